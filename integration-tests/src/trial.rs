//! What the tester and the tests of the deployment have in common: the runner is given sentences, and shows what one fails with below
//! its name.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};

use libtest_mimic::{Failed, Trial};

thread_local! {
    /// What the trial of this thread has failed with.
    static REMEMBERED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// A trial that fails where it panics, and says where. All of it must be on the thread that runs it.
pub fn trial(sentence: impl Into<String>, run: impl FnOnce() -> Result<(), Failed> + Send + 'static) -> Trial {
    Trial::test(sentence, move || {
        let outcome = panic::catch_unwind(AssertUnwindSafe(run));
        outcome.unwrap_or_else(|_| Err(Failed::from(REMEMBERED.take().unwrap_or_default())))
    })
}

/// From now on, a panic of any thread is not shown where it happens, in between others' lines.
pub fn show_failures_below_their_names() {
    panic::set_hook(Box::new(remember));
}

/// The same, and a panic is shown where it happens, too: for trials that run one after the other and take long, so that who
/// watches need not wait for the end, and who reads half of a log finds the reason beside the name.
pub fn show_failures_at_once_and_below_their_names() {
    let show = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        remember(panic);
        show(panic);
    }));
}

fn remember(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("a panic without a message");
    let place = panic.location().map(|location| format!("\n(at {location})"));
    REMEMBERED.set(Some(format!("{message}{}", place.unwrap_or_default())));
}
