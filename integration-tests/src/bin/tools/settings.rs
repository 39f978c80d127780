//! The environment variables of the benchmarks.

use std::str::FromStr;

use anyhow::Result;

/// The number of rounds.
pub fn rounds() -> Result<usize> {
    Ok(variable("ROUNDS", 5)?)
}

/// For how many minutes the endurance run lasts on each store.
pub fn minutes() -> Result<u64> {
    Ok(variable("MINUTES", 60)?)
}

/// The file that gets the result of each run.
pub fn json_file(command: &str) -> Result<String> {
    Ok(variable("JSON", format!("target/bench-{command}.json"))?)
}

/// Whether a side with this name is to be run.
pub fn is_wanted(name: &str) -> Result<bool> {
    let wanted: String = variable("SIDES", String::new())?;
    Ok(name.contains(&wanted))
}

/// The number of events, multiplied by `SCALE`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "it is a number of events"
)]
pub fn scaled(events: usize) -> Result<usize> {
    let scale: f64 = variable("SCALE", 1.0)?;
    Ok((events as f64 * scale) as usize)
}

fn variable<T: FromStr>(name: &str, default: T) -> Result<T, T::Err> {
    std::env::var(name).map_or(Ok(default), |text| text.parse())
}
