//! The manifests for Kubernetes, against its schema.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/kubernetes");

/// Installed by `integration-tests/setup test`.
const VALIDATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/python/bin/kubernetes-validate");

fn manifests() -> Vec<PathBuf> {
    let entries = fs::read_dir(FOLDER).expect("the manifests");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a file").path()).collect();
    paths.sort();
    paths
}

fn validate(paths: &[PathBuf]) -> (bool, String) {
    let output = Command::new(VALIDATE).arg("--strict").args(paths).output();
    let output = output.expect("kubernetes-validate, which `make test` installs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn manifests_follow_the_schema() {
    let paths = manifests();
    let (is_valid, text) = validate(&paths);
    assert!(is_valid, "{text}");
    for kind in ["deployment", "service", "poddisruptionbudget", "networkpolicy", "job"] {
        assert!(
            text.contains(&format!("for resource {kind}/eventsieve")),
            "{kind}: {text}"
        );
    }
}

#[test]
fn misspelt_field_is_found() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, right, wrong) in [
        ("deployment.yaml", "readinessProbe:", "readynessProbe:"),
        ("deployment.yaml", "periodSeconds: 10", "periodSeconds: ten"),
        ("disruption-budget.yaml", "maxUnavailable: 1", "maxUnavailible: 1"),
    ] {
        let text = fs::read_to_string(Path::new(FOLDER).join(name)).expect("a manifest");
        assert!(text.contains(right), "{name}");
        let path = folder.path().join(name);
        fs::write(&path, text.replace(right, wrong)).expect("a file in a folder of our own");
        let (is_valid, text) = validate(&[path]);
        assert!(!is_valid, "{wrong}: {text}");
    }
}

/// What one manifest says of another is so.
#[test]
fn manifests_agree_with_each_other() {
    let text = |name: &str| fs::read_to_string(Path::new(FOLDER).join(name)).expect("a manifest");
    let pods = "{app.kubernetes.io/name: eventsieve}";
    for name in [
        "deployment.yaml",
        "service.yaml",
        "disruption-budget.yaml",
        "network-policy.yaml",
    ] {
        assert!(text(name).contains(pods), "{name} is about other pods");
    }
    let image = |name: &str| {
        let text = text(name);
        let line = text
            .lines()
            .find_map(|line| line.trim().strip_prefix("image: "))
            .map(str::to_owned);
        line.expect("an image")
    };
    assert_eq!(image("deployment.yaml"), image("migrate.yaml"));
    assert!(image("deployment.yaml").ends_with(concat!(":", env!("CARGO_PKG_VERSION"))));
    for port in ["http", "metrics"] {
        assert!(text("deployment.yaml").contains(&format!("{{name: {port}, containerPort: ")));
        assert!(text("network-policy.yaml").contains(&format!("[{{port: {port}}}]")));
    }
}
