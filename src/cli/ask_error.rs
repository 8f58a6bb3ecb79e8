//! Why an agent could not be asked, and what to do.

use std::{error::Error, io, path::Path, time::Duration};

use tokio_rustls::rustls::{self, CertificateError, InvalidMessage};

use super::{address::Address, tls};

/// What failed between a command and its agent.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// The host's name has no address.
    #[error("{0}")]
    NoSuchHost(io::Error),
    /// The agent's certificate is not accepted.
    #[error("{}", tls::describe(.0))]
    Certificate(CertificateError),
    /// The other end answers in clear text.
    #[error("it does not speak TLS")]
    ClearText,
    /// TLS failed for another reason.
    #[error("the TLS handshake failed: {0}")]
    Handshake(rustls::Error),
    /// The connection failed.
    #[error("{0}")]
    Io(io::Error),
    /// The other end does not speak HTTP as expected; the innermost cause.
    #[error("{0}")]
    Http(String),
    /// No connection was opened in time.
    #[error("no connection within {0:?}")]
    NoConnection(Duration),
    /// No answer came in time.
    #[error("no answer within {0:?}")]
    NoAnswer(Duration),
}

impl AskError {
    /// The innermost cause: the errors around it name libraries.
    pub(super) fn http(error: &(dyn Error + 'static)) -> Self {
        let mut cause = error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        Self::Http(cause.to_string())
    }

    /// What to do about it.
    pub(super) fn advice(&self, address: &Address, ca_file: Option<&Path>) -> String {
        let text = match self {
            Self::Certificate(error) => return tls::advice(error, ca_file),
            Self::NoSuchHost(_) => "Check the name of the host in --http-addr or MUSTER_HTTP_ADDR.",
            Self::ClearText => "Its address begins with http://.",
            Self::Http(text) if text.contains("invalid HTTP version") => {
                "Does it speak TLS? Then its address begins with https://."
            }
            Self::Io(error)
                if error.kind() == io::ErrorKind::PermissionDenied && matches!(address, Address::Unix(_)) =>
            {
                "Run the command as root, or as a user who may open the socket."
            }
            _ => "Is it running? `muster agent` starts one; --http-addr or MUSTER_HTTP_ADDR names another address.",
        };
        text.to_owned()
    }
}

impl From<io::Error> for AskError {
    fn from(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(error)) => Self::Certificate(error.clone()),
            Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => Self::ClearText,
            Some(error) => Self::Handshake(error.clone()),
            // The standard library has no kind for it.
            None if error.to_string().starts_with("failed to lookup address information") => Self::NoSuchHost(error),
            None => Self::Io(error),
        }
    }
}
