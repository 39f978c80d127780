//! The dashboard as a person meets it: its page in a real browser, and the figures on it.

use anyhow::ensure;

use crate::browser::Browser;
use crate::eventually::{SOON, eventually};
use crate::service::Service;

/// The page of a service, as wide as a laptop's.
pub async fn dashboard(service: &Service) -> Browser {
    let browser = Browser::open(1280, 900).await;
    browser.go(&format!("{}/dashboard", service.url())).await;
    browser.until_text("#status", "healthy").await;
    browser
}

/// The figure that an element shows, without the blanks between its thousands.
pub async fn figure(browser: &Browser, selector: &str) -> Option<u64> {
    let text = browser.text(selector).await;
    text.replace('\u{202f}', "").parse().ok()
}

/// Waits until the page shows that so many events were received.
pub async fn until_received(browser: &Browser, received: u64) {
    eventually(SOON, async || {
        let shown = figure(browser, "#received").await;
        ensure!(shown == Some(received), "{shown:?} of {received}");
        Ok(())
    })
    .await;
}
