//! The tester and the tests of the deployment run their trials by these functions, which show the reason of a failure below the name
//! of the trial.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};

use libtest_mimic::{Failed, Trial};

thread_local! {
    /// The failure of this thread's trial.
    static REMEMBERED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// A trial that fails by a panic, whose location is reported. It must run on a single thread.
pub fn trial(name: impl Into<String>, run: impl FnOnce() -> Result<(), Failed> + Send + 'static) -> Trial {
    Trial::test(name, move || {
        let outcome = panic::catch_unwind(AssertUnwindSafe(run));
        outcome.unwrap_or_else(|_| Err(Failed::from(REMEMBERED.take().unwrap_or_default())))
    })
}

/// From now on, no panic is printed at once, between the lines of other trials.
pub fn show_failures_below_their_names() {
    panic::set_hook(Box::new(remember));
}

/// The same, but a panic is also printed at once: for long trials that run one after the other, so that the reason can be seen
/// before the end of the run.
pub fn show_failures_at_once_and_below_their_names() {
    let show = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        remember(panic);
        show(panic);
    }));
}

fn remember(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("a panic without a message");
    let location = panic.location().map(|location| format!("\n(at {location})"));
    REMEMBERED.set(Some(format!("{message}{}", location.unwrap_or_default())));
}
