//! Why an upstream has not answered, for people.

use std::{fmt, io};

use crate::metrics::Cause;

/// Why an upstream has not answered.
#[derive(Debug)]
pub(super) enum UpstreamError {
    /// The network, or the upstream's host, said so.
    Io(io::Error),
    /// What it said cannot be read.
    Malformed,
    /// It answered in other letters' case than it was asked, and nobody else did.
    OtherCase,
    /// It was cut over TCP as well.
    Truncated,
    /// TLS or HTTP, or the way to them.
    Secure(String),
}

impl UpstreamError {
    /// In one word, for who counts.
    pub(super) fn cause(&self) -> Cause {
        match self {
            Self::Io(_) => Cause::Network,
            Self::Malformed | Self::OtherCase => Cause::Malformed,
            Self::Truncated => Cause::Truncated,
            Self::Secure(_) => Cause::Secure,
        }
    }
}

impl From<io::Error> for UpstreamError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => f.write_str("refuses"),
            Self::Io(error) => error.fmt(f),
            Self::OtherCase => f.write_str("answers other questions than it was asked"),
            Self::Malformed => f.write_str("answers what cannot be read"),
            Self::Secure(text) => text.fmt(f),
            Self::Truncated => f.write_str("cuts its answer over TCP"),
        }
    }
}
