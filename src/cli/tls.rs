//! TLS for commands that ask an agent at `https://`: the trusted authorities, and a certificate's faults in words.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use tokio_rustls::{
    TlsConnector,
    rustls::{
        CertificateError, ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
    },
};

use super::inputs::read;
use crate::checks::system_roots;

/// Octets of a file with authorities: all public authorities fit.
const MAX_AUTHORITIES: usize = 4 * 1024 * 1024;

/// Why a file with authorities is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum CaFileError {
    /// The file cannot be read.
    #[error("cannot read --ca-file {}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
    /// The file is empty.
    #[error("--ca-file {} is empty: it holds no certificate in PEM", .0.display())]
    Empty(PathBuf),
    /// The file has a private key and no certificate.
    #[error("--ca-file {} holds a private key, but it holds no certificate in PEM", .0.display())]
    KeyOnly(PathBuf),
    /// The file has no section `CERTIFICATE`.
    #[error("--ca-file {} holds no certificate in PEM", .0.display())]
    NoCertificate(PathBuf),
    /// A certificate in the file cannot be decoded.
    #[error("--ca-file {} holds a damaged certificate: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The error of the decoder.
        reason: String,
    },
}

impl CaFileError {
    /// What to do, whatever is wrong with the file.
    pub(super) const ADVICE: &str = "The file must hold certificates of authorities, in PEM. Without --ca-file, this host's authorities are trusted.";
}

/// The authorities in a PEM file; without a file, those of this host.
///
/// # Errors
/// A file that cannot be read, or without a valid certificate.
pub(super) fn authorities(ca_file: Option<&Path>) -> Result<RootCertStore, CaFileError> {
    let Some(path) = ca_file else { return Ok(system_roots()) };
    let text = read(path, MAX_AUTHORITIES).map_err(|error| CaFileError::Unreadable { path: path.to_owned(), error })?;
    let damaged = |reason: String| CaFileError::Damaged { path: path.to_owned(), reason };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text.bytes) {
        let certificate = certificate.map_err(|error| damaged(error.to_string()))?;
        roots.add(certificate).map_err(|error| damaged(error.to_string()))?;
    }
    if !roots.is_empty() {
        return Ok(roots);
    }
    let path = path.to_owned();
    Err(if text.bytes.trim_ascii().is_empty() {
        CaFileError::Empty(path)
    } else if String::from_utf8_lossy(&text.bytes).contains("PRIVATE KEY-----") {
        CaFileError::KeyOnly(path)
    } else {
        CaFileError::NoCertificate(path)
    })
}

/// Opens TLS connections to agents whose certificates one of the authorities has issued.
///
/// # Errors
/// The cryptography has none of TLS's protocol versions.
pub(super) fn connector(authorities: RootCertStore) -> io::Result<TlsConnector> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    Ok(TlsConnector::from(Arc::new(config.with_root_certificates(authorities).with_no_client_auth())))
}

/// The name that the agent's certificate must have.
///
/// # Errors
/// The host is neither an address nor a DNS name.
pub(super) fn name(host: &str) -> io::Result<ServerName<'static>> {
    ServerName::try_from(host.to_owned()).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

/// What is wrong with an agent's certificate.
pub(super) fn describe(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer => "no trusted authority has issued its certificate".to_owned(),
        CertificateError::NotValidForName => "its certificate is for another name".to_owned(),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names: Vec<&str> = presented.iter().map(|name| bare(name)).collect();
            format!("its certificate is for {}, not for {}", names.join(", "), expected.to_str())
        }
        CertificateError::Expired => "its certificate has expired".to_owned(),
        CertificateError::ExpiredContext { not_after, .. } => format!("its certificate expired at {}", date(not_after)),
        CertificateError::NotValidYet => "its certificate is not valid yet".to_owned(),
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("its certificate is not valid before {}", date(not_before))
        }
        other => format!("its certificate is not accepted: {other}"),
    }
}

/// What to do about an agent's certificate.
pub(super) fn advice(error: &CertificateError, ca_file: Option<&Path>) -> String {
    match error {
        CertificateError::UnknownIssuer => match ca_file {
            Some(path) => format!("--ca-file {} must hold the authority that issued the certificate.", path.display()),
            None => "Name the authority's certificate with --ca-file, in PEM. Without the option, this host's authorities \
                     are trusted."
                .to_owned(),
        },
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "Name the agent in --http-addr or MUSTER_HTTP_ADDR as its certificate does, or give it a certificate for this \
             name."
                .to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "Renew it: `http.certificate` of the agent names the file. Or is the clock of this host wrong?".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "Is the clock of this host wrong?".to_owned()
        }
        _ => "`http.certificate` of the agent names the file.".to_owned(),
    }
}

/// `localhost` of `DnsName("localhost")`, as rustls writes names.
fn bare(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
    inner.trim_matches('"')
}

fn date(time: &UnixTime) -> String {
    let time = UNIX_EPOCH + Duration::from_secs(time.as_secs());
    humantime::format_rfc3339_seconds(time).to_string()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_ca_file_without_authorities_is_refused_with_its_fault() {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let garbled = certificate.replace("MII", "AAA");
        let files = [
            ("good.pem", certificate.as_str()),
            ("both.pem", &format!("{key}{certificate}")),
            ("empty.pem", "\n"),
            ("key.pem", &key),
            ("text.pem", "nothing\n"),
            ("garbled.pem", &garbled),
        ];
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let cases = [
            ("good.pem", None),
            ("both.pem", None),
            ("nosuch", Some("cannot read --ca-file PATH: No such file or directory (os error 2)")),
            (".", Some("cannot read --ca-file PATH: not a regular file")),
            ("empty.pem", Some("--ca-file PATH is empty: it holds no certificate in PEM")),
            ("key.pem", Some("--ca-file PATH holds a private key, but it holds no certificate in PEM")),
            ("text.pem", Some("--ca-file PATH holds no certificate in PEM")),
            ("garbled.pem", Some("--ca-file PATH holds a damaged certificate: ")),
        ];
        for (name, expected) in cases {
            let path = folder.path().join(name);
            let got = authorities(Some(&path)).err().map(|error| error.to_string());
            match (got, expected) {
                (None, None) => {}
                (Some(got), Some(expected)) => {
                    let expected = expected.replace("PATH", &path.display().to_string());
                    assert!(got.starts_with(&expected), "{name}: {got}");
                }
                (got, expected) => panic!("{name}: {got:?}, expected {expected:?}"),
            }
        }
    }

    #[test]
    fn faults_of_certificates_say_what_to_do() {
        let time = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let name = CertificateError::NotValidForNameContext {
            expected: name("host-a").unwrap(),
            presented: vec!["DnsName(\"localhost\")".to_owned(), "IpAddress(127.0.0.1)".to_owned()],
        };
        let expired = CertificateError::ExpiredContext { time: time(20), not_after: time(10) };
        let early = CertificateError::NotValidYetContext { time: time(10), not_before: time(20) };
        let cases = [
            (CertificateError::UnknownIssuer, "no trusted authority has issued its certificate", "--ca-file"),
            (name, "its certificate is for localhost, 127.0.0.1, not for host-a", "--http-addr"),
            (expired, "its certificate expired at 1970-01-01T00:00:10Z", "Renew it"),
            (early, "its certificate is not valid before 1970-01-01T00:00:20Z", "clock"),
            (CertificateError::BadSignature, "its certificate is not accepted: ", "http.certificate"),
        ];
        for (error, text, what_to_do) in cases {
            assert!(describe(&error).starts_with(text), "{error:?}: {}", describe(&error));
            assert!(advice(&error, None).contains(what_to_do), "{error:?}: {}", advice(&error, None));
        }
        let advice = advice(&CertificateError::UnknownIssuer, Some(Path::new("ca.pem")));
        assert_eq!(advice, "--ca-file ca.pem must hold the authority that issued the certificate.");
    }
}
