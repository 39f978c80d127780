//! Completions for shells, and manual pages.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use integration_tests::service::{Finished, Settings};

const HIDDEN: [&str; 2] = ["completions", "man"];

async fn run(arguments: &[&str]) -> Finished {
    let ended = Settings::new("postgres://user:secret-Sw0rdfish@localhost/x")
        .arguments(arguments)
        .run()
        .await;
    ended.ended_with(0);
    assert!(!ended.stdout.contains("secret-Sw0rdfish"), "{}", ended.stdout);
    ended
}

/// The commands that `--help` lists, except for clap's own.
async fn shown() -> Vec<String> {
    let help = run(&["--help"]).await.stdout;
    let (_, list) = help.split_once("\nCommands:\n").expect("a list of commands");
    let names: Vec<String> = list
        .lines()
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(ToOwned::to_owned)
        .collect();
    for name in [
        "serve",
        "demo",
        "load",
        "publish",
        "get",
        "ls",
        "topics",
        "conflicts",
        "tail",
        "stats",
        "verify",
    ] {
        assert!(names.iter().any(|shown| shown == name), "{name} is not in {help}");
    }
    for name in HIDDEN {
        assert!(names.iter().all(|shown| shown != name), "{name} is in {help}");
    }
    names
}

/// The completions of bash for these words, the last of which is incomplete.
fn completed(script: &Path, words: &str) -> Vec<String> {
    let count = words.split(' ').count() - 1;
    let ask = format!(
        "source {} && COMP_WORDS=({words}) COMP_CWORD={count} && _eventsieve eventsieve \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\" && printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        script.display()
    );
    let output = Command::new("bash").args(["-c", &ask]).output().expect("bash");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let offered = String::from_utf8(output.stdout).expect("UTF-8");
    offered.lines().map(ToOwned::to_owned).collect()
}

#[tokio::test]
async fn bash_completes_each_listed_command_and_flag() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let script = folder.path().join("eventsieve.bash");
    fs::write(&script, run(&["completions", "bash"]).await.stdout).expect("a file in a folder of our own");
    let parsed = Command::new("bash").arg("-n").arg(&script).output().expect("bash");
    assert!(
        parsed.status.success() && parsed.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&parsed.stderr)
    );
    for command in shown().await {
        let begun = format!("eventsieve {command}");
        assert!(
            completed(&script, &begun).contains(&command),
            "{command} is not completed"
        );
    }
    for command in HIDDEN {
        let begun = format!("eventsieve {command}");
        assert_eq!(completed(&script, &begun), [""; 1], "{command} is completed");
    }
    assert_eq!(completed(&script, "eventsieve stats --wa"), ["--watch"]);
}

#[tokio::test]
async fn exist_for_each_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completions", shell]).await.stdout;
        for command in shown().await {
            assert!(script.contains(&command), "{shell}: {command}");
        }
        // Two of the shells have a variable with this name.
        let named = script.replace("$completions", "").replace("var completions", "");
        assert!(!named.contains("completions"), "{shell} names a hidden command");
    }
}

#[tokio::test]
async fn hidden_commands_have_help() {
    for command in HIDDEN {
        let help = run(&[command, "--help"]).await.stdout;
        assert!(help.contains("Usage: eventsieve") && help.contains("Example"), "{help}");
    }
}

/// Asserts that this is a manual page with this name.
#[track_caller]
fn assert_page(page: &str, name: &str) {
    let heads = [
        format!(".TH {} 1 ", name.to_uppercase()),
        ".SH NAME".to_owned(),
        format!("{} \\- ", name.replace('-', "\\-")),
        ".SH SYNOPSIS".to_owned(),
        ".SH DESCRIPTION".to_owned(),
        ".SH OPTIONS".to_owned(),
    ];
    let mut rest = page;
    for head in heads {
        let at = rest
            .find(&format!("\n{head}"))
            .unwrap_or_else(|| panic!("{name} has no {head} in the right order:\n{page}"));
        rest = &rest[at + 1..];
    }
    for command in HIDDEN {
        assert!(!page.contains(&format!("eventsieve\\-{command}")), "{page}");
    }
    well_formed(page, name);
}

/// Asserts that groff, if it is installed, prints no warnings.
#[track_caller]
fn well_formed(page: &str, name: &str) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join(name);
    fs::write(&file, page).expect("a file in a folder of our own");
    let groff = Command::new("groff")
        .args(["-man", "-Tutf8", "-ww", "-z"])
        .arg(&file)
        .stdin(Stdio::null())
        .output();
    if let Ok(output) = groff {
        assert!(output.status.success(), "{name}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{name}");
    }
}

#[tokio::test]
async fn each_listed_command_has_a_manual_page() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pages = folder.path().join("share/man1");
    run(&["man", pages.to_str().expect("UTF-8")]).await;
    let mut found: Vec<String> = fs::read_dir(&pages)
        .expect("the folder of the pages")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    found.sort();
    let shown = shown().await;
    let mut expected: Vec<String> = shown
        .iter()
        .map(String::as_str)
        // Of those that have commands below them, each has a page, too.
        .chain(["keys-create", "keys-list", "keys-revoke", "keys-rotate"])
        .map(|command| format!("eventsieve-{command}.1"))
        .chain(["eventsieve.1".to_owned()])
        .collect();
    expected.sort();
    assert_eq!(found, expected);
    for file in found {
        let page = fs::read_to_string(pages.join(&file)).expect("a page");
        let name = file.strip_suffix(".1").expect("section 1");
        assert_page(&page, name);
        if name != "eventsieve" {
            assert!(page.contains("\n.SH EXAMPLES\n"), "{page}");
        }
    }
    let printed = run(&["man"]).await.stdout;
    assert_page(&printed, "eventsieve");
    for command in shown {
        assert!(
            printed.contains(&format!("eventsieve\\-{command}(1)")),
            "{command}: {printed}"
        );
    }
}
