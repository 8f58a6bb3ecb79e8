//! TLS for requests to an agent at `https://`: trusted authorities, and descriptions of certificate errors.

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

use super::input_files::read;
use crate::tls::{
    authorities::system_roots,
    certificate::{self, is_of_authority},
    pem_error,
};

/// Maximum size of --ca-file in octets: enough for all public authorities.
const MAX_AUTHORITIES: usize = 4 * 1024 * 1024;

/// Unusable --ca-file.
#[derive(Debug, thiserror::Error)]
pub(super) enum CaFileError {
    /// The file cannot be read.
    #[error("cannot read --ca-file {}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// The file is empty.
    #[error("--ca-file {} is empty: it contains no PEM certificate", .0.display())]
    Empty(PathBuf),
    /// The file contains a private key and no certificate.
    #[error("--ca-file {} contains a private key, but no PEM certificate", .0.display())]
    KeyOnly(PathBuf),
    /// The file has no PEM section `CERTIFICATE`.
    #[error("--ca-file {} contains no PEM certificate", .0.display())]
    NoCertificate(PathBuf),
    /// A certificate in the file cannot be decoded.
    #[error("--ca-file {} contains a malformed certificate: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The decoder's error.
        reason: String,
    },
}

impl CaFileError {
    /// Advice for all errors.
    pub(super) const ADVICE: &str = "The file must contain PEM certificates of authorities. Without --ca-file, the system's authorities are trusted.";
}

/// Reads the authorities of a PEM file; without a file, returns the system's.
///
/// # Errors
/// The file is unreadable or has no valid certificate.
pub(super) fn authorities(ca_file: Option<&Path>) -> Result<RootCertStore, CaFileError> {
    let Some(path) = ca_file else { return Ok(system_roots()) };
    let text = read(path, MAX_AUTHORITIES).map_err(|error| CaFileError::Unreadable { path: path.to_owned(), error })?;
    let damaged = |reason: String| CaFileError::Damaged { path: path.to_owned(), reason };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text.bytes) {
        let certificate = certificate.map_err(|error| damaged(pem_error::describe(&error)))?;
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

/// Creates a TLS connector that accepts certificates issued by one of the authorities.
///
/// # Errors
/// The cryptography provider supports no TLS version.
pub(super) fn connector(authorities: RootCertStore) -> io::Result<TlsConnector> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    Ok(TlsConnector::from(Arc::new(config.with_root_certificates(authorities).with_no_client_auth())))
}

/// The name that the agent's certificate must contain.
///
/// # Errors
/// The host is neither an IP address nor a DNS name.
pub(super) fn name(host: &str) -> io::Result<ServerName<'static>> {
    ServerName::try_from(host.to_owned()).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

/// Describes a certificate error.
pub(super) fn describe(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer => "its certificate was not issued by a trusted authority".to_owned(),
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
        other if is_of_authority(other) => {
            "its certificate is that of an authority (`CA:TRUE`), not of a server".to_owned()
        }
        other => format!("its certificate is invalid: {other}"),
    }
}

/// Advice for a certificate error.
pub(super) fn advice(error: &CertificateError, ca_file: Option<&Path>) -> String {
    match error {
        CertificateError::UnknownIssuer => match ca_file {
            Some(path) => format!("--ca-file {} must contain the issuing authority.", path.display()),
            None => {
                "Pass the issuing authority's certificate with --ca-file. Without it, the system's authorities are \
                     trusted."
                    .to_owned()
            }
        },
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "Use a name from the certificate in --http-addr or MUSTER_HTTP_ADDR, or issue a certificate for this name."
                .to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "Renew the certificate (`http.certificate` in the agent's configuration), or correct this host's clock."
                .to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "Check this host's clock.".to_owned()
        }
        other if is_of_authority(other) => format!(
            "Replace the certificate (`http.certificate` in the agent's configuration) by one of a server; {}.",
            certificate::SERVER_CERTIFICATE
        ),
        _ => "Replace the certificate (`http.certificate` in the agent's configuration).".to_owned(),
    }
}

/// Extracts `localhost` from `DnsName("localhost")`, the notation of rustls.
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

    use tokio_rustls::rustls::OtherError;

    use super::*;

    #[test]
    fn ca_files_without_authorities_are_refused_with_the_cause() {
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
            ("empty.pem", Some("--ca-file PATH is empty: it contains no PEM certificate")),
            ("key.pem", Some("--ca-file PATH contains a private key, but no PEM certificate")),
            ("text.pem", Some("--ca-file PATH contains no PEM certificate")),
            ("garbled.pem", Some("--ca-file PATH contains a malformed certificate: ")),
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
    fn certificate_errors_come_with_advice() {
        let time = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let name = CertificateError::NotValidForNameContext {
            expected: name("host-a").unwrap(),
            presented: vec!["DnsName(\"localhost\")".to_owned(), "IpAddress(127.0.0.1)".to_owned()],
        };
        let expired = CertificateError::ExpiredContext { time: time(20), not_after: time(10) };
        let early = CertificateError::NotValidYetContext { time: time(10), not_before: time(20) };
        let authority = CertificateError::Other(OtherError(Arc::new(io::Error::other("CaUsedAsEndEntity"))));
        let cases = [
            (authority, "its certificate is that of an authority (`CA:TRUE`), not of a server", "CA:FALSE"),
            (CertificateError::UnknownIssuer, "its certificate was not issued by a trusted authority", "--ca-file"),
            (name, "its certificate is for localhost, 127.0.0.1, not for host-a", "--http-addr"),
            (expired, "its certificate expired at 1970-01-01T00:00:10Z", "Renew the certificate"),
            (early, "its certificate is not valid before 1970-01-01T00:00:20Z", "clock"),
            (CertificateError::BadSignature, "its certificate is invalid: ", "http.certificate"),
        ];
        for (error, text, hint) in cases {
            assert!(describe(&error).starts_with(text), "{error:?}: {}", describe(&error));
            assert!(advice(&error, None).contains(hint), "{error:?}: {}", advice(&error, None));
        }
        let advice = advice(&CertificateError::UnknownIssuer, Some(Path::new("ca.pem")));
        assert_eq!(advice, "--ca-file ca.pem must contain the issuing authority.");
    }
}
