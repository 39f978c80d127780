//! Lists rejected lines on standard error, and writes them into the file of `--rejects`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};

use anyhow::Context;
use serde::Serialize;

use super::lines::Batch;
use crate::cli::progress::Progress;
use crate::cli::text::printable;
use crate::event::{Loc, ValidationError};

/// How many lines are listed on standard error.
const LISTED_MAX: u64 = 100;

/// Where rejected lines are listed.
pub(crate) struct Rejects {
    file: Option<BufWriter<File>>,
    listed: u64,
}

/// A line of the file.
#[derive(Serialize)]
struct Reject<'a> {
    line: u64,
    errors: &'a [ValidationError],
    text: &'a str,
}

impl Rejects {
    /// Rejected lines are written into the file `name`, if there is one. What the file has is lost.
    pub(crate) fn open(name: Option<&str>) -> anyhow::Result<Self> {
        let file = name
            .map(|name| File::create(name).with_context(|| format!("cannot write {name}")))
            .transpose()?;
        Ok(Self {
            file: file.map(BufWriter::new),
            listed: 0,
        })
    }

    /// Lists the line with this index in its request.
    pub(crate) fn list(
        &mut self,
        batch: &Batch,
        index: usize,
        errors: &[ValidationError],
        progress: &Progress,
    ) -> anyhow::Result<()> {
        let line = batch.lines.get(index).copied().unwrap_or_default();
        let text = String::from_utf8_lossy(batch.text(index));
        let explanation: Vec<String> = errors.iter().map(explain).collect();
        let explanation = match explanation.len() {
            0 => "invalid; the service lists the errors of other lines first".to_owned(),
            _ => explanation.join("; "),
        };
        let errors: Vec<ValidationError> = errors.iter().map(|error| in_file(error, line)).collect();
        let reject = Reject {
            line,
            errors: &errors,
            text: text.trim_end_matches('\r'),
        };
        self.write(&reject, &explanation, progress)
    }

    /// Lists a line that is too long to be sent.
    pub(crate) fn list_too_long(&mut self, line: u64, progress: &Progress) -> anyhow::Result<()> {
        let reject = Reject {
            line,
            errors: &[],
            text: "",
        };
        self.write(&reject, "longer than 4 MiB, and not sent", progress)
    }

    fn write(&mut self, reject: &Reject<'_>, explanation: &str, progress: &Progress) -> anyhow::Result<()> {
        self.listed += 1;
        if self.listed <= LISTED_MAX {
            progress.println(&format!("line {}: {}", reject.line, printable(explanation)));
        } else if self.listed == LISTED_MAX + 1 {
            progress.println("more lines were rejected; --rejects FILE lists all of them");
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        let written = serde_json::to_writer(&mut *file, reject).map_err(Into::into);
        written
            .and_then(|()| file.write_all(b"\n"))
            .context("cannot write the rejected lines")
    }

    /// Writes what is still in memory.
    pub(crate) fn end(&mut self) -> anyhow::Result<()> {
        match &mut self.file {
            Some(file) => file.flush().context("cannot write the rejected lines"),
            None => Ok(()),
        }
    }
}

/// A validation error of a line of a request as one of that line of the file.
fn in_file(error: &ValidationError, line: u64) -> ValidationError {
    let mut error = error.clone();
    if let [Loc::Name(_), Loc::Index(index), ..] = error.loc.as_mut_slice() {
        *index = usize::try_from(line).unwrap_or(usize::MAX);
    }
    error
}

/// A validation error without the place of its event: `topic: Field required`.
fn explain(error: &ValidationError) -> String {
    let members = match error.loc.as_slice() {
        [Loc::Name(_), Loc::Index(_), members @ ..] | [Loc::Name(_), members @ ..] => members,
        members => members,
    };
    let members: Vec<String> = members.iter().map(ToString::to_string).collect();
    match members.len() {
        0 => error.msg.to_string(),
        _ => format!("{}: {}", members.join("."), error.msg),
    }
}

/// The validation errors of a 422 by the index of their line in the request; nothing if one is not an error of a line.
pub(crate) fn by_line(errors: &[ValidationError], lines: usize) -> Option<BTreeMap<usize, Vec<ValidationError>>> {
    let mut found = BTreeMap::<usize, Vec<ValidationError>>::new();
    for error in errors {
        let [Loc::Name(kind), Loc::Index(line), ..] = error.loc.as_slice() else {
            return None;
        };
        if kind != "line" || *line == 0 || *line > lines {
            return None;
        }
        found.entry(line - 1).or_default().push(error.clone());
    }
    (!found.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::ValidationErrorKind;

    fn error(loc: Vec<Loc>) -> ValidationError {
        ValidationError {
            kind: ValidationErrorKind::Missing,
            loc,
            msg: "Field required".into(),
        }
    }

    #[test]
    fn errors_are_explained_without_the_place_of_their_event() {
        let topic = || Loc::name("topic");
        for (loc, text) in [
            (vec![Loc::name("line"), Loc::Index(3), topic()], "topic: Field required"),
            (vec![Loc::name("line"), Loc::Index(3)], "Field required"),
            (vec![Loc::name("body"), topic()], "topic: Field required"),
        ] {
            assert_eq!(explain(&error(loc)), text);
        }
    }

    #[test]
    fn errors_of_a_request_are_grouped_by_line() {
        let line = |number| error(vec![Loc::name("line"), Loc::Index(number)]);
        let found = by_line(&[line(2), line(1), line(2)], 2).unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), [&0, &1]);
        assert_eq!(found[&1].len(), 2);
        assert_eq!(in_file(&line(2), 7), line(7));
        for errors in [&[][..], &[line(3)], &[line(0)], &[error(vec![Loc::name("body")])]] {
            assert_eq!(by_line(errors, 2), None);
        }
    }
}
