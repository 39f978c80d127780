//! A picture of the dashboard, of a real service under load. It takes a little over a minute.

use std::fs;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use integration_tests::browser::Browser;
use integration_tests::world::World;

/// The events a second and the part of them that are duplicates, for five seconds each: an ordinary minute, with a client that
/// sends again what it has sent before.
const MINUTE: [(u32, &str); 13] = [
    (1500, "0.12"),
    (1800, "0.15"),
    (2100, "0.12"),
    (1950, "0.18"),
    (2400, "0.15"),
    (4600, "0.60"),
    (3900, "0.50"),
    (2200, "0.20"),
    (2000, "0.15"),
    (2300, "0.14"),
    (2600, "0.17"),
    (2250, "0.15"),
    (2500, "0.13"),
];
const SECONDS: u32 = 5;

/// Takes the picture and writes it to a file.
pub async fn screenshot(file: &str) -> Result<()> {
    let redis_url = std::env::var("REDIS_URL").context("REDIS_URL is not set: `make screenshot` starts a Redis")?;
    let world = World::new().await;
    let service = world
        .serve_with(world.settings().with("REDIS_URL", &redis_url).with("RUST_LOG", "warn"))
        .await;
    let browser = Browser::open(1360, 1000).await;
    browser.go(&format!("{}/dashboard", service.url())).await;
    browser.click("[data-minutes='1']").await;
    for (rate, duplicates) in MINUTE {
        let (events, rate) = ((rate * SECONDS).to_string(), rate.to_string());
        let flags = [
            "--events",
            &events,
            "--rate",
            &rate,
            "--duplicate-rate",
            duplicates,
            "--topics",
            "12",
        ];
        world.load(service.url(), &flags).await;
    }
    let picture = BASE64_STANDARD.decode(browser.screenshot().await)?;
    ensure!(
        browser.text("#alert-text").await.is_empty(),
        "the dashboard reports a problem of the service"
    );
    fs::write(file, &picture).with_context(|| format!("cannot write {file}"))?;
    println!("{file}: {} kB", picture.len() / 1000);
    Ok(())
}
