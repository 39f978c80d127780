//! Errors in the words of whoever raised them, in one line for a person.

use std::error::Error;

use serde::Deserialize;

/// How many characters of an explanation are shown.
const EXPLANATION_CHARS_MAX: usize = 300;

/// What is said of a call that took too long.
pub const NO_ANSWER: &str = "no answer in time";

/// The two forms of an error that the service knows: a problem, whose `detail` is a text, and a 422, whose `detail` lists faults.
#[derive(Deserialize)]
struct Explanation {
    detail: Detail,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Detail {
    Text(String),
    Faults(Vec<ValidationError>),
}

#[derive(Deserialize)]
struct ValidationError {
    loc: Vec<serde_json::Value>,
    msg: String,
}

/// What the body of an error says, in one line.
pub fn explain(body: &[u8]) -> String {
    match serde_json::from_slice(body) {
        Ok(Explanation {
            detail: Detail::Text(text),
        }) => one_line(&text),
        Ok(Explanation {
            detail: Detail::Faults(faults),
        }) => explain_faults(&faults),
        Err(_) => one_line(&String::from_utf8_lossy(body)),
    }
}

fn explain_faults(faults: &[ValidationError]) -> String {
    let Some(first) = faults.first() else {
        return String::new();
    };
    let place: Vec<String> = first
        .loc
        .iter()
        .map(|step| step.as_str().map_or_else(|| step.to_string(), ToOwned::to_owned))
        .collect();
    let more = match faults.len() {
        1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    one_line(&format!("{}: {}{more}", place.join("."), first.msg))
}

/// The innermost cause, which is the one that a person can act on ("Connection refused"), never with the URL and its password.
pub fn root_cause(error: reqwest::Error) -> String {
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

/// At most [`EXPLANATION_CHARS_MAX`] characters of `text` in one line that is safe on a terminal.
pub fn one_line(text: &str) -> String {
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
                r#"{"detail":[{"loc":["line",3],"msg":"a"},{"loc":["line",4],"msg":"b"}]}"#,
                "line.3: a (and 1 more)",
            ),
            ("<h1>\u{1b}[31mBad\nGateway</h1>", "<h1> [31mBad Gateway</h1>"),
            ("", ""),
        ];
        for (body, line) in cases {
            assert_eq!(explain(body.as_bytes()), line);
        }
    }
}
