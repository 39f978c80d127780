//! A real browser, driven as a person would: Chromium without a window, by the WebDriver protocol (W3C) over `chromedriver`.

use std::process::Stdio;

use anyhow::{Context, ensure};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::eventually::{SOON, eventually};
use crate::http::{client, try_ask};

/// What the driver prints before its port once it listens.
const STARTED: &str = "started successfully on port ";

/// How WebDriver names an element in its answers.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Without a sandbox, because it runs as root in containers; without scrollbars, as on a phone; without background requests to its
/// vendor.
const FLAGS: [&str; 7] = [
    "--headless",
    "--hide-scrollbars",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
];

/// How many browsers run at once: each needs about a whole processor core to start and to draw its page in time.
const BROWSERS_MAX: usize = 2;

static BROWSERS: Semaphore = Semaphore::const_new(BROWSERS_MAX);

/// A browser with one page. Its processes are killed when this is dropped.
#[derive(Debug)]
pub struct Browser {
    session: String,
    client: Client,
    driver: Child,
    // Kept open, because the driver ends when its output cannot be written.
    _output: Lines<BufReader<ChildStdout>>,
    _profile: TempDir,
    _permit: SemaphorePermit<'static>,
}

impl Browser {
    /// Starts a browser with a page of this width and height in CSS pixels.
    ///
    /// # Panics
    /// There is no browser on this machine, or it does not start.
    pub async fn open(width: u32, height: u32) -> Self {
        let permit = BROWSERS.acquire().await.expect("the semaphore is never closed");
        let profile = tempfile::tempdir().expect("a temporary folder");
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            // A group of its own, which the browser's processes join: it is killed as a whole.
            .process_group(0)
            .env("TMPDIR", profile.path())
            .env("HOME", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver starts: it is in Debian's packages chromium and chromium-driver");
        let output = driver.stdout.take().expect("it was piped");
        let mut output = BufReader::new(output).lines();
        let port = timeout(SOON, port(&mut output))
            .await
            .expect("chromedriver listens soon")
            .expect("chromedriver prints its port");
        let mut browser = Browser {
            session: format!("http://127.0.0.1:{port}"),
            client: client(),
            driver,
            _output: output,
            _profile: profile,
            _permit: permit,
        };
        browser.begin(width, height).await;
        browser
    }

    async fn begin(&mut self, width: u32, height: u32) {
        let flags: Vec<&str> = FLAGS.into();
        let capabilities = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "args": flags },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        }}});
        let session = self
            .try_command(Method::POST, "/session", capabilities)
            .await
            .expect("Chromium starts: it is in Debian's package chromium");
        let id = session["sessionId"].as_str().expect("a session has an id");
        self.session = format!("{}/session/{id}", self.session);
        self.resize(width, height).await;
    }

    /// Sets the width and height of the page in CSS pixels by emulating a screen: a window cannot be as narrow as a phone.
    pub async fn resize(&self, width: u32, height: u32) {
        let screen = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", screen).await;
    }

    /// Sends a command of Chromium's own protocol.
    pub async fn devtools(&self, command: &str, parameters: Value) {
        let body = json!({ "cmd": command, "params": parameters });
        self.command("/goog/cdp/execute", body).await;
    }

    /// Opens a page, and waits until it has loaded.
    pub async fn go(&self, url: &str) {
        self.command("/url", json!({ "url": url })).await;
    }

    /// The result of a function body on the page, such as `return document.title`.
    pub async fn run(&self, script: &str) -> Value {
        self.command("/execute/sync", json!({ "script": script, "args": [] }))
            .await
    }

    /// The text of the element that a CSS selector finds.
    pub async fn text(&self, selector: &str) -> String {
        let text = self.find_text(selector).await;
        text.unwrap_or_else(|| panic!("there is no {selector}"))
    }

    async fn find_text(&self, selector: &str) -> Option<String> {
        let script = format!(
            "return document.querySelector({})?.textContent ?? null",
            json!(selector)
        );
        self.run(&script).await.as_str().map(str::to_owned)
    }

    /// Waits until a script returns `true`; `what` describes the condition if it never does.
    pub async fn until(&self, what: &str, script: &str) {
        eventually(SOON, async || {
            let found = self.run(script).await;
            ensure!(found == true, "{what}: {found}");
            Ok(())
        })
        .await;
    }

    /// Waits until the text of an element contains this.
    pub async fn until_text(&self, selector: &str, part: &str) {
        eventually(SOON, async || {
            let text = self.find_text(selector).await;
            let is_there = text.as_ref().is_some_and(|text| text.contains(part));
            ensure!(is_there, "{selector} contains {text:?} and not {part:?}");
            Ok(())
        })
        .await;
    }

    /// Clicks the element that a CSS selector finds, as a mouse does.
    pub async fn click(&self, selector: &str) {
        let query = json!({ "using": "css selector", "value": selector });
        let found = self.command("/element", query).await;
        let id = found[ELEMENT].as_str().expect("an element has an id");
        self.command(&format!("/element/{id}/click"), json!({})).await;
    }

    /// Presses keys, for the element that has the focus. Keys that are no characters are written as in WebDriver, such as `\u{E004}`
    /// (Tab).
    pub async fn press(&self, keys: &str) {
        let strokes: Vec<Value> = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|stroke| json!({ "type": stroke, "value": key })))
            .collect();
        let keyboard = json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": strokes }] });
        self.command("/actions", keyboard).await;
    }

    /// What the page and the browser have written to the console since the last call. Messages about a change of the machine's
    /// network, as when a container starts beside the test, are left out.
    pub async fn console(&self) -> Vec<String> {
        let entries = self.log("browser").await;
        let messages = entries.iter().map(|entry| entry["message"].to_string());
        messages
            .filter(|message| !message.contains("ERR_NETWORK_CHANGED"))
            .collect()
    }

    /// The URLs that the page has requested since the last call.
    pub async fn requests(&self) -> Vec<String> {
        let entries = self.log("performance").await;
        let messages = entries.iter().filter_map(|entry| {
            let event: Value = serde_json::from_str(entry["message"].as_str()?).ok()?;
            let event = &event["message"];
            (event["method"] == "Network.requestWillBeSent").then(|| event["params"]["request"]["url"].clone())
        });
        messages.filter_map(|url| url.as_str().map(str::to_owned)).collect()
    }

    async fn log(&self, kind: &str) -> Vec<Value> {
        let entries = self.command("/se/log", json!({ "type": kind })).await;
        entries.as_array().expect("a log is a list").clone()
    }

    /// A picture of the page, as a PNG in base64.
    pub async fn screenshot(&self) -> String {
        let picture = self
            .try_command(Method::GET, "/screenshot", Value::Null)
            .await
            .expect("the driver answers");
        picture.as_str().expect("base64 is text").to_owned()
    }

    async fn command(&self, path: &str, body: Value) -> Value {
        self.try_command(Method::POST, path, body)
            .await
            .unwrap_or_else(|error| panic!("{path}: {error:#}"))
    }

    async fn try_command(&self, method: Method, path: &str, body: Value) -> anyhow::Result<Value> {
        let mut request = self.client.request(method, format!("{}{path}", self.session));
        if !body.is_null() {
            request = request.json(&body);
        }
        let answer = try_ask(request).await?;
        ensure!(answer.status == 200, "{}", answer.json()["value"]["message"]);
        Ok(answer.json()["value"].clone())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Some(pid) = self.driver.id() {
            let group = format!("kill -s KILL -- -{pid}");
            // A process that has ended by itself need not be killed.
            drop(std::process::Command::new("sh").args(["-c", &group]).status());
        }
    }
}

async fn port(output: &mut Lines<BufReader<ChildStdout>>) -> anyhow::Result<u16> {
    loop {
        let line = output.next_line().await?.context("it has ended")?;
        if let Some((_, port)) = line.split_once(STARTED) {
            return Ok(port.trim_end_matches('.').parse()?);
        }
    }
}
