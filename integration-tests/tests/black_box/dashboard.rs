//! The dashboard in a real browser: what it shows, how it recovers from an outage, and that no input of a client is executed.

use anyhow::ensure;
use integration_tests::browser::Browser;
use integration_tests::dashboard::{dashboard, number, until_received};
use integration_tests::eventually::{SOON, eventually};
use integration_tests::http::ask;
use integration_tests::proxy::{Network, Proxy};
use integration_tests::publish::{Publish, event, event_with_payload, events, text};
use integration_tests::service::Signal;
use integration_tests::world::World;
use serde_json::{Value, json};
use tokio::process::Command;

/// Keys that are no characters, as in WebDriver.
const TAB: &str = "\u{E004}";
const ENTER: &str = "\u{E007}";

/// The most presses of the tab key that reach any part of the page.
const TABS_MAX: usize = 40;

#[tokio::test]
async fn shows_same_values_as_stats() {
    let world = World::embedded();
    let service = world.serve().await;
    world.load(service.url(), &["--events", "12345", "--topics", "7"]).await;
    let browser = dashboard(&service).await;
    until_received(&browser, 12345).await;
    let stats = service.json("/stats").await;
    for (selector, value) in [
        ("#unique", &stats["unique_processed"]),
        ("#duplicates", &stats["duplicate_dropped"]),
        ("#conflicts", &stats["conflicts"]),
        ("#rows", &stats["database_total_rows"]),
    ] {
        assert_eq!(number(&browser, selector).await, value.as_u64(), "{selector}");
    }
    assert_eq!(browser.text("#received").await, "12\u{202f}345");
    assert_eq!(browser.text("#duplicates-note").await, "30.0\u{202f}% of received");
    browser.until_text("#topics-note", "7 topics").await;
    let rows = "return Object.fromEntries([...document.querySelectorAll('#topics tbody tr')].map((row) =>
                [row.cells[0].textContent, Number(row.cells[1].textContent.replaceAll('\u{202f}', ''))]))";
    assert_eq!(browser.run(rows).await, stats["topics"]);
    let version = service.json("/").await["version"].clone();
    browser
        .until_text("#version", version.as_str().expect("a version"))
        .await;
    assert_eq!(browser.text("#store").await, "sqlite is up");
    assert_eq!(browser.text("#fanout").await, "none (no Redis configured)");
    world
        .check(stats["database_total_rows"].as_i64().expect("a number"))
        .await;
}

#[tokio::test]
async fn chart_moves_and_shows_published_events() {
    let world = World::embedded();
    let service = world.serve().await;
    let browser = dashboard(&service).await;
    let area = "return document.querySelector('#chart path.unique')?.getAttribute('d') ?? ''";
    service.publish(&Value::from(events("orders", 0..300))).await;
    browser
        .until(
            "the rate is shown",
            "return !['–', '0/s'].includes(document.querySelector('#rate-unique').textContent)",
        )
        .await;
    let before = browser.run(area).await;
    eventually(SOON, async || {
        let after = browser.run(area).await;
        ensure!(after != before, "the chart stands still");
        Ok(())
    })
    .await;
    // The area of published events has a height above the axis.
    browser
        .until(
            "the area rises above its axis",
            "return document.querySelector('#chart path.unique').getBBox().height > 20",
        )
        .await;
    browser.click("[data-minutes='1']").await;
    browser.until_text("#chart", "−60").await;
}

#[tokio::test]
async fn live_events_arrive_on_top_with_folded_payloads() {
    const PRECISE: &str = r#"{"large":9007199254740993,"b":1.0}"#;

    let world = World::embedded();
    let service = world.serve().await;
    let browser = dashboard(&service).await;
    browser.until_text("#live-note", "Every event").await;
    for id in ["first", "second"] {
        let body = event_with_payload("orders", id, PRECISE);
        assert_eq!(service.publish_bytes("application/json", body).await.status, 201);
        browser.until_text("#live li:first-child .id", id).await;
    }
    assert_eq!(browser.text("#live li:nth-child(2) .id").await, "first");
    let is_folded = "return document.querySelector('#live pre') === null";
    assert_eq!(browser.run(is_folded).await, true);

    // Unfolding an event pauses the list.
    browser.click("#live li:first-child summary").await;
    browser.until_text("#live li:first-child", "large").await;
    let payload = browser.text("#live li:first-child pre").await;
    assert!(
        payload.contains("9007199254740993") && payload.contains("1.0"),
        "{payload}"
    );
    assert_eq!(browser.text("#pause").await, "Resume");
    service.publish(&event("orders", "third")).await;
    until_received(&browser, 3).await;
    assert_eq!(browser.text("#live li:first-child .id").await, "second");
    browser.click("#pause").await;
    browser.until_text("#live li:first-child .id", "third").await;
    assert_eq!(
        browser.run("return document.querySelectorAll('#live li').length").await,
        3
    );
}

#[tokio::test]
async fn markup_in_events_stays_text() {
    const SCRIPT: &str = "<script>window.ran=1</script>";
    const IMAGE: &str = "\"><img/src=x/onerror=window.ran=1>";

    let world = World::embedded();
    let service = world.serve().await;
    let browser = dashboard(&service).await;
    for markup in [SCRIPT, IMAGE] {
        let mut event = event(markup, markup);
        event["source"] = json!(markup);
        event["payload"] = json!({ markup: markup });
        assert_eq!(service.publish(&event).await.status, 201);
        for part in ["topic", "id", "source"] {
            browser
                .until_text(&format!("#live li:first-child .{part}"), markup)
                .await;
        }
        browser.click("#live li:first-child summary").await;
        browser.until_text("#live li:first-child", "{").await;
        let shown: Value = serde_json::from_str(&browser.text("#live li:first-child pre").await).expect("JSON");
        assert_eq!(shown, event["payload"]);
        browser.click("#pause").await;

        let fields = format!(
            "document.querySelector('#search-topic').value = {0}; document.querySelector('#search-id').value = {0};",
            json!(markup)
        );
        browser.run(&fields).await;
        browser.click("#search button").await;
        browser.until_text("#found", markup).await;
    }
    browser
        .until(
            "both topics are listed",
            "return document.querySelectorAll('#topics tbody tr').length === 2",
        )
        .await;
    let injected = "return [...document.querySelectorAll('main script, main img')].length";
    assert_eq!(browser.run(injected).await, 0);
    assert_eq!(browser.run("return window.ran ?? null").await, Value::Null);
    assert_eq!(browser.console().await, Vec::<String>::new());
}

#[tokio::test]
async fn requests_only_its_own_service() {
    let world = World::embedded();
    let service = world.serve().await;
    world.load(service.url(), &["--events", "2000"]).await;
    // By another host name than the service's own, and from the root.
    let url = service.url().replace("127.0.0.1", "localhost");
    let browser = Browser::open(1280, 900).await;
    browser.go(&format!("{url}/")).await;
    until_received(&browser, 2000).await;
    browser.until_text("#live-note", "Every event").await;
    browser.until_text("#rate-received", "/s").await;
    browser.click("#theme").await;
    let requests = browser.requests().await;
    for part in [
        "/dashboard/style.css",
        "/stats",
        "/stats/history",
        "/health",
        "/events/stream",
    ] {
        let is_requested = requests.iter().any(|url| url.contains(part));
        assert!(is_requested, "no request for {part}: {requests:?}");
    }
    let others: Vec<&String> = requests
        .iter()
        .filter(|asked| !asked.starts_with(&format!("{url}/")) && !asked.starts_with("data:"))
        .collect();
    assert!(others.is_empty(), "{others:?}");
    assert_eq!(browser.console().await, Vec::<String>::new());
}

#[tokio::test]
async fn root_serves_page_to_browsers_and_json_to_others() {
    const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                          base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

    let world = World::embedded();
    let service = world.serve().await;
    let program = service.fetch("/").await;
    assert_eq!(
        (program.json()["service"].as_str(), program.header("vary")),
        (Some("eventsieve"), "accept")
    );
    let accept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let root = ask(service.get("/").header("accept", accept)).await;
    let page = service.fetch("/dashboard").await;
    assert_eq!(root.header("vary"), "accept");
    assert_eq!(root.text(), page.text());
    for answer in [&root, &page, &service.fetch("/dashboard/app.js").await] {
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-security-policy"), POLICY);
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("referrer-policy"), "no-referrer");
        assert_eq!(answer.header("cache-control"), "no-cache");
    }
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    for inline in ["<style", " style=", "javascript:", "<script>", " on"] {
        let found = page.text().lines().find(|line| {
            line.match_indices(inline)
                .any(|(at, _)| inline != " on" || line[at..].split('"').next().is_some_and(|word| word.ends_with('=')))
        });
        assert_eq!(found, None, "{inline}");
    }
    let again = ask(service.get("/dashboard").header("if-none-match", page.header("etag"))).await;
    assert_eq!((again.status, again.text()), (304, ""));
    let other = ask(service.get("/dashboard").header("if-none-match", "\"another\"")).await;
    assert_eq!(other.status, 200);
    service.fetch("/dashboard/secret.txt").await.problem(404);
}

#[tokio::test]
async fn recovers_from_store_outage_without_reload() {
    let world = World::new().await;
    let proxy = Proxy::to(world.database_url()).await;
    let settings = world
        .settings()
        .with("DATABASE_URL", &proxy.through(world.database_url()));
    let service = world.serve_with(settings).await;
    assert_eq!(service.publish(&event("orders", "before")).await.status, 201);
    let browser = dashboard(&service).await;
    until_received(&browser, 1).await;
    browser.run("window.sameVisit = true").await;

    proxy.set(Network::Refuse);
    proxy.cut();
    browser.until_text("#alert-text", "The store is down.").await;
    browser.until_text("#status", "unhealthy").await;
    browser.until_text("#store", "postgres is down").await;
    browser.until_text("#alert-age", "ago").await;
    assert_eq!(number(&browser, "#received").await, Some(1), "the last values stay");
    let is_marked = "return document.body.classList.contains('stale')";
    assert_eq!(browser.run(is_marked).await, true);

    proxy.set(Network::Pass);
    browser
        .until(
            "the status is healthy",
            "return document.querySelector('#status').textContent === 'healthy'",
        )
        .await;
    eventually(SOON, async || {
        let answer = service.publish(&event("orders", "after")).await;
        ensure!([200, 201].contains(&answer.status), "{}", answer.text());
        Ok(())
    })
    .await;
    browser.until_text("#live li:first-child .id", "after").await;
    browser
        .until("the banner is gone", "return document.querySelector('#alert').hidden")
        .await;
    assert_eq!(browser.run(is_marked).await, false);
    assert_eq!(browser.run("return window.sameVisit").await, true);
    browser.until_text("#unique", "2").await;
    world.check(2).await;
}

#[tokio::test]
async fn reconnects_to_service_without_reload() {
    let world = World::embedded();
    let mut service = world.serve().await;
    service.publish(&Value::from(events("orders", 0..3))).await;
    let browser = dashboard(&service).await;
    browser.until_text("#live-note", "Every event").await;
    browser.run("window.sameVisit = true").await;
    service.signal(Signal::Stop);
    browser.until_text("#alert-text", "not responding").await;
    browser.until_text("#status", "no response").await;
    service.restart().await;
    service.ready().await;
    browser.until_text("#status", "healthy").await;
    service.publish(&event("orders", "after")).await;
    browser.until_text("#live li:first-child .id", "after").await;
    browser.until_text("#live-note", "Every event").await;
    until_received(&browser, 4).await;
    browser
        .until("the banner is gone", "return document.querySelector('#alert').hidden")
        .await;
    assert_eq!(browser.run("return window.sameVisit").await, true);
}

#[tokio::test]
async fn search_shows_first_copy_or_that_there_is_none() {
    let world = World::embedded();
    let service = world.serve().await;
    let first = service.publish(&event("orders", "evt & 1")).await;
    let received_at = text(&first.json()["results"][0], "received_at");
    service.publish(&event("orders", "evt & 1")).await;
    let browser = dashboard(&service).await;
    browser.click("#search-topic").await;
    browser.press("orders").await;
    browser.click("#search-id").await;
    browser.press("evt & 1").await;
    browser.click("#search button").await;
    browser.until_text("#found", &received_at).await;
    for part in [
        "First copy received",
        "integration-tests",
        "2025-10-24T10:30:00Z",
        "\"message\": \"hello\"",
    ] {
        browser.until_text("#found", part).await;
    }
    browser.click("#search-id").await;
    browser.press("0").await;
    browser.press(ENTER).await;
    browser
        .until_text("#found", "There is no event with this topic and id.")
        .await;
}

/// Presses the tab key until an element has the focus, which must be visible.
async fn tab_to(browser: &Browser, selector: &str) {
    let is_there = format!("return document.activeElement.matches({})", json!(selector));
    for _ in 0..TABS_MAX {
        if browser.run(&is_there).await == true {
            let outline = browser
                .run("return getComputedStyle(document.activeElement).outlineStyle")
                .await;
            assert_eq!(outline, "solid", "the focus is visible: {selector}");
            return;
        }
        browser.press(TAB).await;
    }
    panic!("{TABS_MAX} tabs do not lead to {selector}");
}

#[tokio::test]
async fn is_usable_by_keyboard_alone() {
    let world = World::embedded();
    let service = world.serve().await;
    service
        .publish(&json!([event("a.topic", "evt-1"), event("b.topic", "evt-2")]))
        .await;
    let browser = dashboard(&service).await;
    browser.until_text("#live", "evt-1").await;
    tab_to(&browser, "#theme").await;
    tab_to(&browser, "#chart").await;
    browser.press("\u{E012}").await;
    browser
        .until(
            "an arrow key reads the chart",
            "return !document.querySelector('#reading').hidden",
        )
        .await;
    tab_to(&browser, "#search-topic").await;
    browser.press("b.topic").await;
    tab_to(&browser, "#search-id").await;
    browser.press(&format!("evt-2{ENTER}")).await;
    browser.until_text("#found", "First copy received").await;
    tab_to(&browser, "[data-sort=name]").await;
    browser.press(ENTER).await;
    browser
        .until(
            "the table is sorted",
            "return document.querySelector('#topics th').ariaSort === 'ascending'",
        )
        .await;
    tab_to(&browser, "#live summary").await;
    browser.press(ENTER).await;
    browser.until_text("#live pre", "hello").await;
    assert_eq!(browser.text("#pause").await, "Resume");
}

#[tokio::test]
async fn fits_a_phone_without_sideways_scrolling() {
    let world = World::embedded();
    let service = world.serve().await;
    let long = "x".repeat(255);
    service.publish(&event(&long, &long)).await;
    world
        .load(
            service.url(),
            &["--events", "100000", "--batch-size", "2000", "--topics", "30"],
        )
        .await;
    service.publish(&event(&long, "evt")).await;
    let browser = dashboard(&service).await;
    browser.resize(360, 780).await;
    browser.until_text("#received", "100\u{202f}002").await;
    browser.until_text("#live", &long).await;
    browser.run("document.querySelector('#live details').open = true").await;
    let fields = format!(
        "document.querySelector('#search-topic').value = document.querySelector('#search-id').value = '{long}'"
    );
    browser.run(&fields).await;
    browser.click("#search button").await;
    browser.until_text("#found", "First copy received").await;
    let beyond = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
    assert_eq!(browser.run(beyond).await, 0);
    // No value is wider than its tile.
    let cut = "return [...document.querySelectorAll('.value, .facts dd, .legend dd, button')]
               .filter((part) => part.scrollWidth > part.clientWidth + 1 && part.clientWidth > 0).map((part) => part.id)";
    assert_eq!(browser.run(cut).await, json!([]));
}

/// The texts whose contrast is below 4.5 (WCAG 2.2, success criterion 1.4.3).
const FAINT_TEXTS: &str = "
    const canvas = new OffscreenCanvas(1, 1).getContext('2d');
    const bytes = (color) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
                               return canvas.getImageData(0, 0, 1, 1).data };
    const luminance = (color) => [...bytes(color)].slice(0, 3).map((byte) => byte / 255)
        .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
        .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
    const behind = (part) => { const color = getComputedStyle(part).backgroundColor;
                               return bytes(color)[3] === 255 ? color : behind(part.parentElement) };
    const texts = [...document.querySelectorAll('body *')].filter((part) => part.checkVisibility()
        && [...part.childNodes].some((node) => node.nodeType === 3 && node.data.trim()));
    return texts.map((part) => {
        const style = getComputedStyle(part);
        const [text, ground] = [luminance(part.matches('svg *') ? style.fill : style.color), luminance(behind(part))];
        const ratio = (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
        return [part.id || part.className?.baseVal || part.className || part.tagName, ratio];
    }).filter(([, ratio]) => ratio < 4.5)";

#[tokio::test]
async fn themes_are_remembered_and_have_enough_contrast() {
    const GROUND: &str = "return getComputedStyle(document.body).backgroundColor";

    let world = World::embedded();
    let service = world.serve().await;
    world.load(service.url(), &["--events", "500"]).await;
    let browser = dashboard(&service).await;
    until_received(&browser, 500).await;
    let light = browser.run(GROUND).await;
    assert_eq!(browser.run(FAINT_TEXTS).await, json!([]), "in light");
    browser.click("#theme").await;
    let dark = browser.run(GROUND).await;
    assert_ne!(light, dark);
    assert_eq!(browser.run(FAINT_TEXTS).await, json!([]), "in dark");
    browser.go(&format!("{}/dashboard", service.url())).await;
    assert_eq!(browser.run(GROUND).await, dark, "it is remembered");

    // Without a choice, the theme of the system applies, also when it changes.
    browser.run("localStorage.clear()").await;
    for (scheme, ground) in [("dark", &dark), ("light", &light)] {
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        browser.devtools("Emulation.setEmulatedMedia", features).await;
        eventually(SOON, async || {
            let shown = browser.run(GROUND).await;
            ensure!(shown == *ground, "{shown} in {scheme}");
            Ok(())
        })
        .await;
    }
}

#[tokio::test]
async fn empty_store_shows_a_working_first_command() {
    let world = World::embedded();
    let service = world.serve().await;
    let browser = dashboard(&service).await;
    browser
        .until(
            "the empty state is shown",
            "return !document.querySelector('#empty').hidden",
        )
        .await;
    let command = browser.text("#first-event").await;
    assert!(command.contains(&format!("{}/publish", service.url())), "{command}");
    let ran = Command::new("bash")
        .args(["-c", &command])
        .env("NO_PROXY", "*")
        .output()
        .await;
    let ran = ran.expect("bash is installed");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    until_received(&browser, 1).await;
    assert_eq!(
        browser.run("return document.querySelector('#empty').hidden").await,
        true
    );
    browser.until_text("#live li:first-child .topic", "order.created").await;
}
