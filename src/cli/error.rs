//! Usage errors, and the exit codes of failed commands.

use std::process::ExitCode;

use crate::config::ConfigError;

/// `EX_USAGE` of BSD's `sysexits.h`.
pub(super) const EXIT_USAGE: u8 = 64;

/// Flags that are valid one by one and wrong together. The text says what to change.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);

impl From<ConfigError> for UsageError {
    fn from(error: ConfigError) -> Self {
        Self(error.to_string())
    }
}

/// The exit code of a command that failed with `error`: 64 for wrong usage or configuration, else 1.
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.is::<UsageError>() || error.is::<ConfigError>() {
        ExitCode::from(EXIT_USAGE)
    } else {
        ExitCode::FAILURE
    }
}
