//! What the process tells of itself: logs, one line each on standard error, as text or JSON; and traces, to a collector.

mod line;
#[cfg_attr(not(feature = "otel"), path = "telemetry/no_traces.rs")]
mod traces;

use std::any::Any;
use std::io::IsTerminal;
use std::panic;

use tracing_subscriber::EnvFilter;

use self::line::Lines;
pub use self::traces::{RequestSpan, Step, end_traces, send_traces};

/// Starts logging: what is logged by `RUST_LOG` (else `filter`), how by `LOG_FORMAT` (`text` or `json`; default `text` on a
/// terminal, else `json`). Called once, by commands that run for long.
///
/// # Errors
/// A sentence that says what is wrong with one of the two.
#[expect(
    clippy::disallowed_methods,
    reason = "logging starts before anything else, so that configuration can be reported"
)]
pub fn start(filter: &str) -> Result<(), String> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => {
            EnvFilter::try_new(&text).map_err(|_| format!("RUST_LOG is not understood: {text:?}; try info or debug"))?
        }
        _ => EnvFilter::new(filter),
    };
    let is_coloured = std::io::stderr().is_terminal();
    let is_json = match std::env::var("LOG_FORMAT").as_deref() {
        Ok("json") => true,
        Ok("text") => false,
        Ok("") | Err(_) => !is_coloured,
        Ok(other) => return Err(format!("LOG_FORMAT must be text or json, not {other:?}")),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || Lines { is_coloured })
        .with_ansi(is_coloured);
    let started = if is_json {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.try_init()
    };
    started.map_err(|error| format!("logging cannot be started: {error}"))?;
    panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Logs a panic in one line. What it says is shown only if it is the program's own words: else it may quote what was being
/// looked at.
fn log_panic(panic: &panic::PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string);
    tracing::error!(place, "a panic: {}", words(panic.payload()));
}

fn words(payload: &(dyn Any + Send)) -> &'static str {
    let own = payload.downcast_ref::<&'static str>();
    own.unwrap_or(&"its words may hold what was sent, and are not shown")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_in_the_words_of_the_program_and_in_none_of_a_client() {
        let told = |panicking: fn()| words(&*panic::catch_unwind(panicking).unwrap_err());
        assert_eq!(told(|| panic!("a promise was broken")), "a promise was broken");
        let sent = told(|| panic!("no event is {:?}", "payload".to_owned()));
        assert!(!sent.contains("payload"), "{sent}");
    }
}
