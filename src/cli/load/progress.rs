//! Tells a person how far a run is: a bar on a terminal, else a line every few seconds that suits a log.

use std::{
    cell::{Cell, RefCell},
    fmt::Write,
    io::{IsTerminal, stderr},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use super::tally::Tally;
use crate::client::{ClientError, target::Target};

/// The time between two lines in a log.
pub const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Writes to standard error.
#[derive(Debug)]
pub struct Progress {
    target: Target,
    total: Option<u64>,
    bar: Option<ProgressBar>,
    /// What went wrong since the last answer.
    trouble: RefCell<Option<String>>,
    /// Whether that has been told: once is enough until things have gone well again for a while.
    told: Cell<bool>,
}

impl Progress {
    /// Progress towards `total` events, where that is known, published to `target`.
    #[must_use]
    pub fn new(target: Target, total: Option<u64>) -> Self {
        let bar = stderr().is_terminal().then(|| bar(total));
        Self {
            target,
            total,
            bar,
            trouble: RefCell::default(),
            told: Cell::default(),
        }
    }

    /// Tells that an attempt failed and will be repeated.
    pub fn trouble(&self, error: &ClientError) {
        let text = format!("waiting for {}: {error}", self.target);
        match &self.bar {
            Some(bar) => bar.set_message(text.clone()),
            None if !self.told.replace(true) => eprintln!("{text}"),
            None => {}
        }
        *self.trouble.borrow_mut() = Some(text);
    }

    /// Tells of an answer.
    pub fn answered(&self, tally: &Tally) {
        *self.trouble.borrow_mut() = None;
        if let Some(bar) = &self.bar {
            bar.set_position(tally.events());
            bar.set_message(details(tally));
        }
    }

    /// To be called every [`LINE_INTERVAL`].
    pub fn line(&self, tally: &Tally) {
        if self.bar.is_some() {
            return;
        }
        let total = self.total.map(|total| format!(" of {total}")).unwrap_or_default();
        let trouble = self.trouble.borrow();
        let trouble = trouble.as_ref().map(|text| format!("; {text}")).unwrap_or_default();
        eprintln!(
            "published {}{total} events, {}{trouble}",
            tally.events(),
            details(tally)
        );
        self.told.set(!trouble.is_empty());
    }

    /// Clears the bar away, so that something else can be printed.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn details(tally: &Tally) -> String {
    let resent = match tally.resent() {
        0 => String::new(),
        resent => format!(", {resent} resent"),
    };
    format!("{} unique{resent}", tally.unique().low)
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
        // What cannot be shown is left out.
        write!(out, "{:.0}/s", state.per_sec()).unwrap_or_default();
    }))
}
