//! `alerts.md`: every rule of `deploy/prometheus/alerts.yml`.

use std::collections::BTreeSet;
use std::fs;

use serde::Deserialize;

use super::{check, documents, file};

const INTRODUCTION: &str = "\
# Alerts

`deploy/prometheus/alerts.yml` has these rules for Prometheus. \"Critical\" means that clients see failures now. \"Warning\" means that
no client sees a failure yet, or only readers and subscribers are affected. `deploy/prometheus/alerts.test.yml` shows each rule firing
and not firing. The rules send no message: name your Alertmanager in `deploy/prometheus/prometheus.yml`. [Metrics](metrics.md)
explains the series.
";

#[derive(Deserialize)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    alert: String,
    expr: String,
    r#for: Option<String>,
    labels: Labels,
    annotations: Annotations,
}

#[derive(Deserialize)]
struct Labels {
    severity: String,
}

#[derive(Deserialize)]
struct Annotations {
    summary: String,
    description: String,
}

fn rules() -> Vec<Rule> {
    let rules: Rules = serde_yaml_ng::from_str(&file("deploy/prometheus/alerts.yml")).unwrap();
    rules.groups.into_iter().flat_map(|group| group.rules).collect()
}

#[test]
fn alerts_page_is_current() {
    let mut page = INTRODUCTION.to_owned();
    for rule in rules() {
        let Annotations { summary, description } = rule.annotations;
        let wait = rule.r#for.map_or("at once".to_owned(), |time| format!("after {time}"));
        page.push_str(&format!(
            "\n## {}\n\n{}, fires {wait}: {}\n\n```promql\n{}\n```\n\n{}\n",
            rule.alert,
            capitalised(&rule.labels.severity),
            plain(&summary),
            rule.expr.trim(),
            description.trim(),
        ));
    }
    check("alerts.md", &page);
}

fn capitalised(word: &str) -> String {
    let (first, rest) = word.split_at(1);
    first.to_uppercase() + rest
}

/// A summary without the templates of Prometheus.
fn plain(summary: &str) -> String {
    let mut text = summary.to_owned();
    while let Some((before, rest)) = text.split_once("{{") {
        let (_, after) = rest.split_once("}}").unwrap();
        text = format!("{before}INSTANCE{after}");
    }
    text
}

#[test]
fn alerts_in_documents_exist() {
    let alerts: BTreeSet<String> = rules().into_iter().map(|rule| rule.alert).collect();
    for page in documents() {
        let text = fs::read_to_string(&page).unwrap();
        let words = text.split(|c: char| !c.is_ascii_alphanumeric());
        for name in words.filter(|word| word.len() > "Eventsieve".len() && word.starts_with("Eventsieve")) {
            assert!(alerts.contains(name), "{}: there is no alert {name}", page.display());
        }
    }
}
