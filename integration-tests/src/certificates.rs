//! Certificates of an authority of a test's own, made by the program `openssl`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// An authority, a server certificate and a client certificate, in files. They are removed when this is dropped.
#[derive(Debug)]
pub struct Certificates {
    folder: TempDir,
}

impl Certificates {
    /// Makes them; the server's are for these names, such as `DNS:localhost` or `IP:127.0.0.1`.
    pub fn new(names: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let made = Self { folder };
        made.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=the authority of a test",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
        ]);
        made.sign("server", &format!("subjectAltName={}", names.join(",")));
        made.sign("client", "extendedKeyUsage=clientAuth");
        made
    }

    /// A file of these: `ca.pem`, `server.pem`, `server.key`, `client.pem` or `client.key`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The same as text.
    pub fn path(&self, name: &str) -> String {
        self.file(name).to_str().expect("a path of our own is UTF-8").to_owned()
    }

    fn sign(&self, name: &str, extension: &str) {
        let (key, request, certificate) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.pem"));
        self.openssl(&[
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            &format!("/CN={name}"),
            "-keyout",
            &key,
            "-out",
            &request,
        ]);
        let extensions = format!("basicConstraints=CA:FALSE\n{extension}\n");
        fs::write(self.file("extensions"), extensions).expect("a file in a folder of our own");
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            "extensions",
            "-out",
            &certificate,
        ]);
    }

    fn openssl(&self, arguments: &[&str]) {
        run(self.folder.path(), arguments);
    }
}

fn run(folder: &Path, arguments: &[&str]) {
    let output = Command::new("openssl")
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("openssl is installed: `integration-tests/setup test` installs it");
    assert!(
        output.status.success(),
        "openssl {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
