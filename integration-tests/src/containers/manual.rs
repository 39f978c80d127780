//! The guide to containers, as a new user follows it.

use super::engine::{clean_command, finish, remove, run_name};
use super::stack::root;
use crate::markdown::{Example, examples, page};
use crate::postgres::free_port;
use crate::service::Finished;

/// The page whose examples are run here.
pub const PAGE: &str = "docs/guides/compose.md";

/// The commands of the guide, in their order and in one project of their own, print what it shows. A number with a fraction, a
/// seed and a rate differ from run to run.
pub async fn examples_of_containers_print_what_they_show() {
    let (project, port, other_port) = (format!("{}guide", run_name()), free_port(), free_port());
    let ours = [
        ("127.0.0.1:8080", format!("127.0.0.1:{port}")),
        ("127.0.0.1:8081", format!("127.0.0.1:{other_port}")),
        ("eventsieve-alone", format!("{project}-alone")),
        ("eventsieve-data", format!("{project}-data")),
    ];
    let examples = examples(&page(PAGE));
    assert!(examples.len() > 10, "{PAGE} has examples");
    let mut exports = String::new();
    for Example { command, output } in examples {
        if command.starts_with("export ") {
            exports.push_str(&format!("{command}\n"));
            continue;
        }
        let ours_of = |text: &str| {
            ours.iter()
                .fold(text.to_owned(), |text, (theirs, ours)| text.replace(theirs, ours))
        };
        let mut shell = clean_command("bash", &["-c", &format!("{exports}{}", ours_of(&command))]);
        shell
            .current_dir(root())
            .env("COMPOSE_PROJECT_NAME", &project)
            .env("COMPOSE_ENV_FILES", "/dev/null")
            .env("PORT", port.to_string());
        let Finished { code, stdout, stderr } = finish(shell).await;
        assert_eq!(code, Some(0), "{command}: {stdout}{stderr}");
        assert_eq!(steady(&stdout), steady(&ours_of(&output)), "{command}");
    }
    remove(&project).await;
}

/// The words of a text without those that differ from run to run.
fn steady(text: &str) -> Vec<String> {
    // The number of progress lines depends on how long the publisher takes.
    let is_progress = |line: &&str| line.contains(" of 20,000 events, ") || line.contains("waiting for ");
    let text: Vec<&str> = text.lines().filter(|line| !is_progress(line)).collect();
    // Some versions of Compose clear each line of a log before they print it.
    let text = text.join("\n").replace("\u{1b}[2K", "");
    let mut words: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let is_fraction = word.contains('.') && word.trim_end_matches('s').parse::<f64>().is_ok();
        let is_other = words.last().is_some_and(|last| last == "seed" || last == "events/s");
        words.push(if is_fraction || is_other {
            "…".to_owned()
        } else {
            word.to_owned()
        });
    }
    words
}
