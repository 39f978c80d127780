//! A real proxy of a test's own between clients and a service: nginx or HAProxy, as Debian packages them.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};

use anyhow::Context;
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::eventually::{SOON, eventually};
use crate::postgres::free_port;
use crate::service::{Signal, send};

/// A proxy. It ends when this is dropped.
#[derive(Debug)]
pub struct Balancer {
    folder: TempDir,
    port: u16,
    process: Child,
}

impl Balancer {
    /// Starts nginx with these directives in its only `server`, and waits until it accepts connections.
    pub async fn nginx(server: &str) -> Self {
        Self::start("nginx", |folder, port| {
            let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
            let paths: String = paths
                .map(|name| format!("{name}_temp_path {folder}/{name};\n"))
                .concat();
            // One process, so that it is this test's to end.
            let text = format!(
                "daemon off; master_process off; pid {folder}/pid; error_log stderr;\n\
                 events {{ worker_connections 256; }}\n\
                 http {{ access_log off;\n{paths}server {{ listen 127.0.0.1:{port};\n{server}\n}} }}\n"
            );
            (text, vec!["-p", "FOLDER", "-e", "stderr", "-c", "CONFIG"])
        })
        .await
    }

    /// Starts HAProxy, which passes connections on to a server that is written as in its configuration, and waits until it accepts them.
    pub async fn haproxy(server: &str) -> Self {
        Self::start("haproxy", |_, port| {
            let text = format!(
                "defaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n\
                 listen service\n bind 127.0.0.1:{port}\n server service {server}\n"
            );
            (text, vec!["-db", "-f", "CONFIG"])
        })
        .await
    }

    async fn start(program: &str, configure: impl FnOnce(&str, u16) -> (String, Vec<&'static str>)) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().to_str().expect("temporary folders have UTF-8 names");
        let port = free_port();
        let (text, arguments) = configure(path, port);
        let config = format!("{path}/config");
        fs::write(&config, text).expect("a file in a folder of our own");
        let arguments = arguments.into_iter().map(|argument| match argument {
            "FOLDER" => path,
            "CONFIG" => &config,
            argument => argument,
        });
        let log = File::create(folder.path().join("log")).expect("a file in a folder of our own");
        let process = Command::new(format!("/usr/sbin/{program}"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor more"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{program} does not start, `make test` installs it: {error}"));
        let balancer = Balancer { folder, port, process };
        eventually(SOON, async || {
            TcpStream::connect(balancer.address())
                .await
                .context("it does not listen")?;
            Ok(())
        })
        .await;
        balancer
    }

    /// Its address: `HOST:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its URL, without a path.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.path().join("log"));
            eprintln!("--- the log of the proxy:\n{}", log.unwrap_or_default());
        }
        send(Signal::Kill, self.process.id());
        drop(self.process.wait());
    }
}
