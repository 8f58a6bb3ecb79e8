//! Errors of upstream queries. Their texts are sent in Extended DNS Errors.

use std::io;

use thiserror::Error;

use crate::{dns::message::codes::Rcode, metrics::Cause};

/// Reason that an upstream has no usable reply.
#[derive(Debug, Error)]
pub(super) enum UpstreamError {
    /// Error of the network or of the upstream's host.
    #[error("{}", io_text(.0))]
    Io(#[from] io::Error),
    /// Malformed reply.
    #[error("malformed reply")]
    Malformed,
    /// Error code without a question.
    #[error("{0} without a question")]
    HeaderOnly(Rcode),
    /// The question of the reply has another letter case than the query (0x20).
    #[error("the question of the reply differs from the query")]
    OtherCase,
    /// The reply is truncated over TCP, too.
    #[error("truncated reply over TCP")]
    Truncated,
    /// Error of the connection, TLS or HTTP.
    #[error("{0}")]
    Secure(String),
}

impl UpstreamError {
    /// Returns the label of the error in metrics.
    pub(super) fn cause(&self) -> Cause {
        match self {
            Self::Io(_) => Cause::Network,
            Self::Malformed | Self::OtherCase => Cause::Malformed,
            Self::HeaderOnly(_) => Cause::Refusal,
            Self::Truncated => Cause::Truncated,
            Self::Secure(_) => Cause::Secure,
        }
    }
}

fn io_text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        _ => error.to_string(),
    }
}
