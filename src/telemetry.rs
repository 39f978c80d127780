//! Logs, one line each on standard error, as text or JSON; and traces, sent to a collector.

mod line;
mod queue;
mod sample;
#[cfg_attr(not(feature = "otel"), path = "telemetry/no_traces.rs")]
mod traces;

use std::any::Any;
use std::io::IsTerminal;
use std::panic;

use tracing_subscriber::EnvFilter;

use self::line::Lines;
pub(crate) use self::line::is_unsafe;
pub use self::queue::end_log;
pub(crate) use self::queue::lost as lost_lines;
pub(crate) use self::sample::Sample;
pub(crate) use self::traces::{RequestSpan, Step, end_traces, send_traces};

/// Starts logging. `RUST_LOG` (else `filter`) says what is logged, `LOG_FORMAT` (`text` or `json`; default `text` on a terminal,
/// else `json`) in which format. Called once, by long-running commands.
///
/// # Errors
/// A sentence that says what is wrong with one of the two variables.
#[expect(
    clippy::disallowed_methods,
    reason = "logging starts before anything else, so that configuration can be reported"
)]
pub fn start(filter: &str) -> Result<(), String> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(&text)
            .map_err(|_| format!("RUST_LOG must be a filter such as info or debug, not {text:?}"))?,
        _ => EnvFilter::new(filter),
    };
    let is_coloured = std::io::stderr().is_terminal();
    let is_json = match std::env::var("LOG_FORMAT").as_deref() {
        Ok("json") => true,
        Ok("text") => false,
        Ok("") | Err(_) => !is_coloured,
        Ok(other) => return Err(format!("LOG_FORMAT must be text or json, not {other:?}")),
    };
    queue::start().map_err(|error| format!("failed to start logging: {error}"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || Lines { is_coloured })
        .with_ansi(is_coloured);
    let started = if is_json {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.try_init()
    };
    started.map_err(|error| format!("failed to start logging: {error}"))?;
    panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Logs a panic in one line. Its message is shown only if it is a literal of the program: a formatted one may quote the data of
/// a client.
fn log_panic(panic: &panic::PanicHookInfo<'_>) {
    let location = panic.location().map(ToString::to_string);
    tracing::error!(location, "a task panicked: {}", message(panic.payload()));
}

fn message(payload: &(dyn Any + Send)) -> &'static str {
    let literal = payload.downcast_ref::<&'static str>();
    literal.unwrap_or(&"the message is not shown, it may quote the data of a client")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_a_panic_without_the_data_of_a_client() {
        let logged = |panicking: fn()| message(&*panic::catch_unwind(panicking).unwrap_err());
        assert_eq!(logged(|| panic!("a promise was broken")), "a promise was broken");
        let sent = logged(|| panic!("no event is {:?}", "payload".to_owned()));
        assert!(!sent.contains("payload"), "{sent}");
    }
}
