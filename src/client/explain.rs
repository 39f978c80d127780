//! Error answers as one line for people.

use std::error::Error;

use serde::Deserialize;

use crate::api::problem::{Problem, ValidationErrors};
use crate::event::ValidationError;

/// The most characters of an explanation.
const EXPLANATION_CHARS_MAX: usize = 300;

/// The reason of a call that took too long.
pub(super) const NO_ANSWER: &str = "no answer in time";

/// The two forms of an error answer.
#[derive(Deserialize)]
#[serde(untagged)]
enum ErrorAnswer<'a> {
    Problem(#[serde(borrow)] Problem<'a>),
    Invalid(ValidationErrors<'a>),
}

/// The explanation in the body of an error answer, in one line, and its validation errors.
pub(super) fn explain(body: &[u8]) -> (String, Vec<ValidationError>) {
    match serde_json::from_slice(body) {
        Ok(ErrorAnswer::Problem(problem)) => (one_line(&problem.detail), Vec::new()),
        Ok(ErrorAnswer::Invalid(ValidationErrors { detail })) => (explain_first(&detail), detail.into_owned()),
        Err(_) => (one_line(&String::from_utf8_lossy(body)), Vec::new()),
    }
}

fn explain_first(errors: &[ValidationError]) -> String {
    let Some(first) = errors.first() else {
        return String::new();
    };
    let location: Vec<String> = first.loc.iter().map(ToString::to_string).collect();
    let more = match errors.len() {
        1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    one_line(&format!("{}: {}{more}", location.join("."), first.msg))
}

/// The innermost cause, on which a person can act ("Connection refused"), without the URL and its password.
pub(super) fn root_cause(error: reqwest::Error) -> String {
    let error = error.without_url();
    if error.is_timeout() {
        return NO_ANSWER.to_owned();
    }
    let mut cause: &dyn Error = &error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// At most [`EXPLANATION_CHARS_MAX`] characters of `text`, in one line that is safe on a terminal.
pub(super) fn one_line(text: &str) -> String {
    let printable: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(EXPLANATION_CHARS_MAX)
        .collect();
    printable.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_explained_in_one_line() {
        let cases: [(&str, &str); 5] = [
            (r#"{"detail":"the queue is full","status":503}"#, "the queue is full"),
            (
                r#"{"detail":[{"type":"missing","loc":["body",1,"topic"],"msg":"Field required"}]}"#,
                "body.1.topic: Field required",
            ),
            (
                r#"{"detail":[{"type":"missing","loc":["line",3],"msg":"a"},{"type":"missing","loc":["line",4],"msg":"b"}]}"#,
                "line.3: a (and 1 more)",
            ),
            ("<h1>\u{1b}[31mBad\nGateway</h1>", "<h1> [31mBad Gateway</h1>"),
            ("", ""),
        ];
        for (body, line) in cases {
            assert_eq!(explain(body.as_bytes()).0, line);
        }
    }
}
