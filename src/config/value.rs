//! Parsers for the values of settings, which report every invalid value and not only the first.
//!
//! clap stops at the first value that its parser rejects. These parsers never reject: for an invalid value they note a problem
//! and return the default of the type. [`Checked`] takes the problems of its own parse, so nothing uses settings before `check`
//! has reported the problems.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use clap::builder::TypedValueParser;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

thread_local! {
    /// The problems of the parse that this thread is in: clap parses all values and then calls [`FromArgMatches`], on one thread.
    static PROBLEMS: RefCell<Vec<String>> = RefCell::default();
}

/// Settings as they were read, and the problems with their values.
#[derive(Debug, Clone)]
pub struct Checked<S> {
    pub(super) settings: S,
    pub(super) problems: Vec<String>,
}

impl<S: Args> Args for Checked<S> {
    fn augment_args(command: Command) -> Command {
        // A parse that clap ended early may have left some.
        PROBLEMS.take();
        S::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        S::augment_args_for_update(command)
    }
}

impl<S: FromArgMatches> FromArgMatches for Checked<S> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let problems = PROBLEMS.take();
        let settings = S::from_arg_matches(matches)?;
        Ok(Self { settings, problems })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.problems.extend(PROBLEMS.take());
        self.settings.update_from_arg_matches(matches)
    }
}

/// Reads a valid value; `None` for an invalid one.
type Parse<T> = dyn Fn(&str) -> Option<T> + Send + Sync;

/// A parser for the values of one setting.
#[derive(Clone)]
pub(super) struct Parser<T> {
    parse: Arc<Parse<T>>,
    /// What a valid value is: "a time such as 15s".
    expected: String,
}

impl<T> Parser<T> {
    /// A parser of values that `parse` reads; `expected` says what a valid value is.
    pub(super) fn new(expected: &str, parse: impl Fn(&str) -> Option<T> + Send + Sync + 'static) -> Self {
        Self {
            parse: Arc::new(parse),
            expected: expected.to_owned(),
        }
    }

    #[cfg(test)]
    pub(super) fn read(&self, text: &str) -> Option<T> {
        (self.parse)(text)
    }
}

impl<T: Default + Clone + Send + Sync + 'static> TypedValueParser for Parser<T> {
    type Value = T;

    fn parse_ref(&self, _: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<T, clap::Error> {
        let text = value.to_string_lossy();
        Ok((self.parse)(&text).unwrap_or_else(|| {
            let problem = format!("{} must be {}, not {text:?}", name(arg), self.expected);
            PROBLEMS.with_borrow_mut(|problems| problems.push(problem));
            T::default()
        }))
    }
}

/// The variable of a setting, or its flag where the environment is not read.
fn name(arg: Option<&Arg>) -> String {
    let variable = arg
        .and_then(Arg::get_env)
        .map(|name| name.to_string_lossy().into_owned());
    let flag = || arg.and_then(Arg::get_long).map(|flag| format!("--{flag}"));
    variable.or_else(flag).unwrap_or_default()
}

/// A whole number in `range`.
pub(super) fn number<N: TryFrom<u64>>(range: RangeInclusive<u64>) -> Parser<N> {
    Parser {
        expected: format!("a whole number from {} to {}", range.start(), range.end()),
        parse: Arc::new(move |text| {
            let number = text.parse().ok().filter(|number| range.contains(number))?;
            N::try_from(number).ok()
        }),
    }
}

/// A number of bytes.
pub(super) fn size() -> Parser<usize> {
    Parser {
        expected: "a size of at least 1KiB, such as 10MiB".to_owned(),
        parse: Arc::new(|text| {
            let size: bytesize::ByteSize = text.parse().ok()?;
            usize::try_from(size.as_u64()).ok().filter(|size| *size >= 1024)
        }),
    }
}

/// The word for a limit that follows from the memory.
const AUTO: &str = "auto";

/// A number of bytes, or `auto`, which is 0.
pub(super) fn size_or_auto() -> Parser<usize> {
    let Parser { parse, expected } = size();
    Parser {
        expected: format!("{AUTO} or {expected}"),
        parse: Arc::new(move |text| if text == AUTO { Some(0) } else { parse(text) }),
    }
}

/// A whole number in `range`, or `auto`, which is 0.
pub(super) fn number_or_auto(range: RangeInclusive<u64>) -> Parser<usize> {
    let Parser { parse, expected } = number(range);
    Parser {
        expected: format!("{AUTO} or {expected}"),
        parse: Arc::new(move |text| if text == AUTO { Some(0) } else { parse(text) }),
    }
}

/// A time, which may be zero.
pub(super) fn time() -> Parser<Duration> {
    Parser {
        expected: "a time such as 500ms, 15s or 2m".to_owned(),
        parse: Arc::new(|text| humantime::parse_duration(text).ok()),
    }
}

/// A time of at least a millisecond.
pub(super) fn time_above_zero() -> Parser<Duration> {
    Parser {
        expected: "a time above zero, such as 500ms, 15s or 2m".to_owned(),
        parse: Arc::new(|text| {
            let time = humantime::parse_duration(text).ok()?;
            (time >= Duration::from_millis(1)).then_some(time)
        }),
    }
}

/// A name without control characters.
pub(super) fn name_text() -> Parser<String> {
    Parser {
        expected: "a name without control characters".to_owned(),
        parse: Arc::new(|text| (!text.is_empty() && !text.contains(char::is_control)).then(|| text.to_owned())),
    }
}

/// The same, or nothing.
pub(super) fn optional_name_text() -> Parser<String> {
    Parser {
        expected: "a name without control characters".to_owned(),
        parse: Arc::new(|text| (!text.contains(char::is_control)).then(|| text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, clap::Args)]
    struct Settings {
        #[arg(long, env = "EVENTSIEVE_TEST_SIZE", default_value = "2KiB", value_parser = size())]
        size: usize,
        #[arg(long, default_value = "1", value_parser = number::<u16>(1..=9))]
        number: u16,
    }

    fn parse(arguments: &[&str]) -> Checked<Settings> {
        let command = Checked::<Settings>::augment_args(Command::new("test").no_binary_name(true));
        let matches = command.try_get_matches_from(arguments).unwrap();
        Checked::from_arg_matches(&matches).unwrap()
    }

    #[test]
    fn reports_every_invalid_value() {
        let checked = parse(&["--size=1", "--number=10"]);
        assert_eq!(
            checked.problems,
            [
                "EVENTSIEVE_TEST_SIZE must be a size of at least 1KiB, such as 10MiB, not \"1\"",
                "--number must be a whole number from 1 to 9, not \"10\"",
            ]
        );
    }

    #[test]
    fn forgets_problems_of_a_failed_parse() {
        let command = Checked::<Settings>::augment_args(Command::new("test").no_binary_name(true));
        assert!(command.try_get_matches_from(["--number=10", "--unknown"]).is_err());
        let checked = parse(&[]);
        assert_eq!((checked.settings.size, checked.settings.number), (2048, 1));
        assert!(checked.problems.is_empty());
    }
}
