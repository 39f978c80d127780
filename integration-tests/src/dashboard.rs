//! The dashboard in a real browser, and the numbers on it.

use anyhow::ensure;

use crate::browser::Browser;
use crate::eventually::{SOON, eventually};
use crate::service::Service;

/// The dashboard of a service, on a screen as wide as a laptop's.
pub async fn dashboard(service: &Service) -> Browser {
    let browser = Browser::open(1280, 900).await;
    browser.go(&format!("{}/dashboard", service.url())).await;
    browser.until_text("#status", "healthy").await;
    browser
}

/// The number that an element shows, without the spaces between its digits.
pub async fn number(browser: &Browser, selector: &str) -> Option<u64> {
    let text = browser.text(selector).await;
    text.replace('\u{202f}', "").parse().ok()
}

/// Waits until the page shows this many received events.
pub async fn until_received(browser: &Browser, received: u64) {
    eventually(SOON, async || {
        let shown = number(browser, "#received").await;
        ensure!(shown == Some(received), "{shown:?} of {received}");
        Ok(())
    })
    .await;
}
