//! `eventsieve openapi`: the description of the HTTP API, for client generators and similar tools.

use anyhow::Result;

use crate::cli::print::print;
use crate::http;

/// Print the OpenAPI 3.1 document of the service, as `/openapi.json` serves it
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  eventsieve openapi > openapi.json")]
pub(crate) struct Args {}

impl Args {
    /// Prints the document on standard output.
    pub(crate) fn run(self) -> Result<()> {
        print(http::document(), "the document").map(drop)
    }
}
