//! The README's section on containers, as a newcomer follows it.

use super::engine::{clean_command, finish, remove, run_name};
use super::stack::root;
use crate::postgres::free_port;
use crate::readme::{Example, blocks, examples, readme, section};
use crate::service::Finished;

/// Its commands, in their order and in one project of their own, print what it shows. A number with a fraction, a seed and a speed
/// are other ones each time.
pub async fn every_command_of_the_readme_prints_what_it_shows() {
    let (project, port, other_port) = (format!("{}readme", run_name()), free_port(), free_port());
    let ours = [
        ("127.0.0.1:8080", format!("127.0.0.1:{port}")),
        ("127.0.0.1:8081", format!("127.0.0.1:{other_port}")),
        ("eventsieve-alone", format!("{project}-alone")),
        ("eventsieve-data", format!("{project}-data")),
    ];
    let readme = readme();
    let text = section(&readme, "## Run it in containers", "## Use it");
    let examples: Vec<Example> = blocks(text, "console").into_iter().flat_map(examples).collect();
    assert!(examples.len() > 10, "the README has examples");
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

/// The words of a text without what is another one each time.
fn steady(text: &str) -> Vec<String> {
    // What a publisher says on its way depends on how long that is.
    let is_on_its_way = |line: &&str| line.contains(" of 20000 events, ") || line.contains("waiting for ");
    let text: Vec<&str> = text.lines().filter(|line| !is_on_its_way(line)).collect();
    // Some versions of Compose clear each line of a log before they print it; and who follows one that has just ended is not told.
    let text = text
        .join("\n")
        .replace("\u{1b}[2K", "")
        .replace("publisher-1 exited with code 0", "");
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
