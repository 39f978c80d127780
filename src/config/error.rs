//! The error of a wrong configuration.

/// A wrong configuration: each problem is a sentence that says what to change.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct ConfigError(pub Vec<String>);

impl ConfigError {
    /// `value`, if there are no problems.
    pub(super) fn unless<T>(problems: Vec<String>, value: T) -> Result<T, Self> {
        if problems.is_empty() {
            Ok(value)
        } else {
            Err(Self(problems))
        }
    }
}
