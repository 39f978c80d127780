//! A bucket of S3, served by another program's library: it checks each signature.

use std::net::SocketAddr;
use std::path::PathBuf;

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use integration_tests::service::Settings;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const KEY: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// A server with one bucket, `events`. Dropping it stops it.
pub struct S3Server {
    folder: TempDir,
    address: SocketAddr,
    serving: JoinSet<()>,
}

impl S3Server {
    /// Starts a server.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(folder.path().join("events")).expect("an empty folder");
        let mut server = Self {
            folder,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            serving: JoinSet::new(),
        };
        server.resume().await;
        server
    }

    /// Goes away: connections are refused.
    pub async fn stop(&mut self) {
        self.serving.shutdown().await;
    }

    /// Comes back on the same port.
    pub async fn resume(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("the port is free");
        self.address = listener.local_addr().expect("it listens");
        let files = FileSystem::new(self.folder.path()).expect("a folder");
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(KEY, SECRET));
        let service = builder.build();
        self.serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service.clone());
                // A connection that breaks is the client's concern.
                connections.spawn(async move { drop(connection.await) });
            }
        });
    }

    /// Settings that archive into the bucket, with this secret.
    pub fn archive(&self, settings: Settings, secret: &str) -> Settings {
        settings
            .with("EVENTSIEVE_ARCHIVE", "s3://events/log/a")
            .with("EVENTSIEVE_ARCHIVE_ENDPOINT", &format!("http://{}", self.address))
            .with("AWS_ACCESS_KEY_ID", KEY)
            .with("AWS_SECRET_ACCESS_KEY", secret)
    }

    /// The secret of the key.
    pub fn secret() -> &'static str {
        SECRET
    }

    /// The folder where the objects are.
    pub fn objects(&self) -> PathBuf {
        self.folder.path().join("events/log/a")
    }
}
