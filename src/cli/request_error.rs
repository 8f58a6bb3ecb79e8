//! Errors of requests to an agent, each with advice.

use std::{error::Error, io, path::Path, time::Duration};

use tokio_rustls::rustls::{self, CertificateError, InvalidMessage};

use super::{address::Address, client_tls};

/// Failure of a request to an agent.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    /// The host name cannot be resolved.
    #[error("{0}")]
    NoSuchHost(io::Error),
    /// The agent's certificate is invalid.
    #[error("{}", client_tls::describe(.0))]
    Certificate(CertificateError),
    /// The server does not use TLS.
    #[error("the server does not use TLS")]
    Cleartext,
    /// The TLS handshake failed for another reason.
    #[error("the TLS handshake failed: {0}")]
    Handshake(rustls::Error),
    /// The connection failed.
    #[error("{0}")]
    Io(io::Error),
    /// The HTTP exchange failed; the text is the innermost cause.
    #[error("{0}")]
    Http(String),
    /// The connection timed out.
    #[error("connection timed out after {0:?}")]
    NoConnection(Duration),
    /// The request timed out.
    #[error("request timed out after {0:?}")]
    NoAnswer(Duration),
}

impl RequestError {
    /// Keeps the innermost cause of an HTTP error; the outer errors only name libraries.
    pub(super) fn http(error: &(dyn Error + 'static)) -> Self {
        let mut cause = error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        Self::Http(cause.to_string())
    }

    /// Advice for the user.
    pub(super) fn advice(&self, address: &Address, ca_file: Option<&Path>) -> String {
        let text = match self {
            Self::Certificate(error) => return client_tls::advice(error, ca_file),
            Self::NoSuchHost(_) => "Check the host name in --http-addr or MUSTER_HTTP_ADDR.",
            Self::Cleartext => "Use an address that begins with http://.",
            Self::Http(text) if text.contains("invalid HTTP version") => {
                "If the agent uses TLS, use an address that begins with https://."
            }
            Self::Io(error)
                if error.kind() == io::ErrorKind::PermissionDenied && matches!(address, Address::Unix(_)) =>
            {
                "Run the command as root, or as a user with access to the socket."
            }
            _ => {
                "Check that the agent is running (`muster agent` starts one), or set its address with --http-addr or \
                 MUSTER_HTTP_ADDR."
            }
        };
        text.to_owned()
    }
}

impl From<io::Error> for RequestError {
    fn from(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(error)) => Self::Certificate(error.clone()),
            Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => Self::Cleartext,
            Some(error) => Self::Handshake(error.clone()),
            // The standard library has no error kind for failed name resolution.
            None if error.to_string().starts_with("failed to lookup address information") => Self::NoSuchHost(error),
            None => Self::Io(error),
        }
    }
}
