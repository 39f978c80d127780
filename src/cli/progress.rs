//! Progress of `load` and `publish` on standard error: a bar on a terminal, else a line every few seconds.

use std::{
    cell::{Cell, RefCell},
    fmt::Write,
    io::{IsTerminal, stderr},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use super::table::count;
use crate::cli::print::note;
use crate::client::{ClientError, target::Target};

/// The time between two lines in a log.
pub(crate) const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// How far a run is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Done {
    /// How many events were answered.
    pub(crate) events: u64,
    /// More about them, in a few words.
    pub(crate) details: String,
}

/// Writes to standard error.
#[derive(Debug)]
pub(crate) struct Progress {
    target: Target,
    total: Option<u64>,
    bar: Option<ProgressBar>,
    /// The failure that is being retried, since the last answer.
    retrying: RefCell<Option<String>>,
    /// Whether that failure was printed. It is printed once until answers have come again for a while.
    is_printed: Cell<bool>,
}

impl Progress {
    /// Progress towards `total` events, where that is known, sent to `target`.
    pub(crate) fn new(target: Target, total: Option<u64>) -> Self {
        let bar = stderr().is_terminal().then(|| bar(total));
        Self {
            target,
            total,
            bar,
            retrying: RefCell::default(),
            is_printed: Cell::default(),
        }
    }

    /// An attempt failed and will be repeated.
    pub(crate) fn retrying(&self, error: &ClientError) {
        let text = format!("waiting for {}: {error}; retrying", self.target);
        match &self.bar {
            Some(bar) => bar.set_message(text.clone()),
            None if !self.is_printed.replace(true) => note(&text),
            None => {}
        }
        *self.retrying.borrow_mut() = Some(text);
    }

    /// An answer has come.
    pub(crate) fn answered(&self, done: impl FnOnce() -> Done) {
        *self.retrying.borrow_mut() = None;
        if let Some(bar) = &self.bar {
            let Done { events, details } = done();
            bar.set_position(events);
            bar.set_message(details);
        }
    }

    /// To be called every [`LINE_INTERVAL`].
    pub(crate) fn line(&self, done: impl FnOnce() -> Done) {
        if self.bar.is_some() {
            return;
        }
        let Done { events, details } = done();
        let total = self
            .total
            .map(|total| format!(" of {}", count(total)))
            .unwrap_or_default();
        let retrying = self.retrying.borrow();
        let retrying = retrying.as_ref().map(|text| format!("; {text}")).unwrap_or_default();
        let published = count(events);
        note(&format!("published {published}{total} events, {details}{retrying}"));
        self.is_printed.set(!retrying.is_empty());
    }

    /// Prints a line above the bar.
    pub(crate) fn println(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| note(line)),
            None => note(line),
        }
    }

    /// Removes the bar, so that something else can be printed.
    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (
            ProgressBar::new(total),
            "{bar:30} {human_pos}/{human_len} events, {rate}, {msg}",
        ),
        None => (ProgressBar::no_length(), "{spinner} {human_pos} events, {rate}, {msg}"),
    };
    let style = ProgressStyle::with_template(template).expect("a template that is valid");
    bar.with_style(style.with_key("rate", |state: &ProgressState, out: &mut dyn Write| {
        // A rate that cannot be shown is left out.
        write!(out, "{:.0}/s", state.per_sec()).unwrap_or_default();
    }))
}
