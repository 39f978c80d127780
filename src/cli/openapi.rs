//! `eventsieve openapi`: the description of the HTTP interface, for client generators and their like.

use std::io::{Write, stdout};

use anyhow::{Context, Result};

use crate::http;

/// Print the OpenAPI 3.1 document of the service, as `/openapi.json` serves it
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  eventsieve openapi > openapi.json")]
pub struct Args {}

impl Args {
    /// Prints the document on standard output.
    ///
    /// # Errors
    /// When standard output takes no more.
    pub fn run(self) -> Result<()> {
        stdout()
            .write_all(http::document().as_bytes())
            .context("cannot print the document")
    }
}
