//! The certificates of connections to Redis.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::Args;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// The files of the certificates.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Redis")]
pub struct TlsFiles {
    /// The PEM file of the authorities that sign the certificates of Redis and the Sentinels, instead of those that the system knows
    #[arg(long = "redis-ca-file", env = "REDIS_CA_FILE", value_name = "FILE")]
    authorities: Option<OsString>,
    /// The PEM file of the client certificate, with its chain
    #[arg(long = "redis-cert-file", env = "REDIS_CERT_FILE", value_name = "FILE")]
    certificate: Option<OsString>,
    /// The PEM file of the private key of the client certificate
    #[arg(long = "redis-key-file", env = "REDIS_KEY_FILE", value_name = "FILE")]
    key: Option<OsString>,
}

/// The certificates, in PEM; they have been checked.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Certificates {
    /// The authorities; without them, those of the system.
    pub authorities: Option<Vec<u8>>,
    /// The client certificate and its key.
    pub client: Option<(Vec<u8>, Vec<u8>)>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Certificates(authorities: {}, client: {})",
            self.authorities.is_some(),
            self.client.is_some()
        )
    }
}

impl TlsFiles {
    /// Reads the files, for a URL that `is_tls`; adds to the `problems` what can never work.
    pub(super) fn check(&self, is_tls: bool, problems: &mut Vec<String>) -> Certificates {
        // An empty variable counts as unset.
        let given = |file: &Option<OsString>| file.clone().filter(|file| !file.is_empty()).map(PathBuf::from);
        let files = [
            ("REDIS_CA_FILE", given(&self.authorities)),
            ("REDIS_CERT_FILE", given(&self.certificate)),
            ("REDIS_KEY_FILE", given(&self.key)),
        ];
        let before = problems.len();
        if !is_tls && let Some((name, _)) = files.iter().find(|(_, file)| file.is_some()) {
            problems.push(format!(
                "{name} is set, but REDIS_URL is not for TLS: it must begin with rediss:// (or rediss+sentinel://, rediss+cluster://)"
            ));
            return Certificates::default();
        }
        let [(_, authorities), (_, certificate), (_, key)] = &files;
        match (certificate, key) {
            (Some(_), None) => {
                problems.push("REDIS_CERT_FILE needs REDIS_KEY_FILE, the key of that certificate".to_owned())
            }
            (None, Some(_)) => {
                problems.push("REDIS_KEY_FILE needs REDIS_CERT_FILE, the certificate of that key".to_owned())
            }
            _ => {}
        }
        let mut read = |name, file: &Option<PathBuf>, check: fn(&[u8]) -> Result<(), &'static str>| {
            let pem = self::read(name, file.as_deref()?, check);
            pem.map_err(|problem| problems.push(problem)).ok()
        };
        let found = Certificates {
            authorities: read("REDIS_CA_FILE", authorities, |pem| certificates(pem).map(drop)),
            client: match (
                read("REDIS_CERT_FILE", certificate, |pem| certificates(pem).map(drop)),
                read("REDIS_KEY_FILE", key, |pem| private_key(pem).map(drop)),
            ) {
                (Some(certificate), Some(key)) => Some((certificate, key)),
                _ => None,
            },
        };
        if problems.len() == before {
            problems.extend(found.problem());
        }
        found
    }
}

impl Certificates {
    /// What is wrong with certificates whose files are readable.
    fn problem(&self) -> Option<String> {
        let authorities = self.authorities.as_deref().and_then(|pem| certificates(pem).ok());
        let mut roots = RootCertStore::empty();
        for certificate in authorities.unwrap_or_default() {
            if let Err(error) = roots.add(certificate) {
                return Some(format!(
                    "REDIS_CA_FILE holds a certificate that cannot be used: {error}"
                ));
            }
        }
        self.key_problem(roots)
    }

    fn key_problem(&self, roots: RootCertStore) -> Option<String> {
        let (certificate, key) = self.client.as_ref()?;
        let (chain, key) = (certificates(certificate).ok()?, private_key(key).ok()?);
        let config = ClientConfig::builder().with_root_certificates(roots);
        match config.with_client_auth_cert(chain, key) {
            Ok(_) => None,
            Err(rustls::Error::InconsistentKeys(_)) => {
                Some("REDIS_KEY_FILE holds another key than that of the certificate in REDIS_CERT_FILE".to_owned())
            }
            Err(error) => Some(format!("REDIS_CERT_FILE and REDIS_KEY_FILE cannot be used: {error}")),
        }
    }
}

fn read(name: &str, file: &Path, check: fn(&[u8]) -> Result<(), &'static str>) -> Result<Vec<u8>, String> {
    let pem = std::fs::read(file).map_err(|error| format!("{name}: cannot read {}: {error}", file.display()))?;
    match check(&pem) {
        Ok(()) => Ok(pem),
        Err(problem) => Err(format!("{name}: {} {problem}", file.display())),
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, &'static str> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    found
        .ok()
        .filter(|found| !found.is_empty())
        .ok_or("holds no certificate in PEM")
}

fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, &'static str> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| "holds no private key in PEM that is not encrypted")
}
