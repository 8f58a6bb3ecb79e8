//! Errors of probes, in texts short enough for a DNS response.
//!
//! Reasons are gossiped to every node and sent in Extended DNS Errors. They contain no addresses (the record has them), no
//! response bodies and no file names of this host.

use std::{io, time::Duration};

use nix::errno::Errno;

/// Result of a probe that did not pass.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ProbeError {
    /// The service works, but needs attention.
    Warning(String),
    /// The service does not work.
    Critical(String),
    /// This node lacked a resource that the probe needs: descriptors, memory or processes. The check keeps its status.
    NotRun(String),
}

impl ProbeError {
    /// Returns a critical result with this reason.
    pub(super) fn critical(reason: impl Into<String>) -> Self {
        Self::Critical(reason.into())
    }

    /// Returns the result of a check that exceeded its timeout.
    pub(super) fn timed_out(patience: Duration) -> Self {
        Self::critical(format!("timed out after {patience:?}"))
    }

    /// Prefixes the reason with `what: `.
    pub(super) fn of(self, what: &str) -> Self {
        match self {
            Self::Warning(reason) => Self::Warning(format!("{what}: {reason}")),
            Self::Critical(reason) => Self::Critical(format!("{what}: {reason}")),
            Self::NotRun(reason) => Self::NotRun(format!("{what}: {reason}")),
        }
    }
}

impl From<&io::Error> for ProbeError {
    fn from(error: &io::Error) -> Self {
        let errno = error.raw_os_error().map(Errno::from_raw);
        if let Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS) = errno {
            return Self::NotRun(reason(error));
        }
        Self::Critical(reason(error))
    }
}

impl From<io::Error> for ProbeError {
    fn from(error: io::Error) -> Self {
        Self::from(&error)
    }
}

/// Returns the system's error text without its number.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        io::ErrorKind::UnexpectedEof => "connection closed".to_owned(),
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::AddrNotAvailable
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::PermissionDenied
        | io::ErrorKind::TimedOut => error.kind().to_string(),
        _ => {
            let text = error.to_string();
            let end = text.find(" (os error").unwrap_or(text.len());
            text[..end].to_lowercase()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_errors_have_short_reasons() {
        let critical = |reason: &str| ProbeError::critical(reason);
        let cases = [
            (Errno::ECONNREFUSED, critical("connection refused")),
            (Errno::ECONNRESET, critical("connection reset")),
            (Errno::EHOSTUNREACH, critical("no route to host")),
            (Errno::ENETUNREACH, critical("network unreachable")),
            (Errno::ETIMEDOUT, critical("timed out")),
            (Errno::EADDRNOTAVAIL, critical("address not available")),
            (Errno::EPROTO, critical("protocol error")),
            (Errno::EMFILE, ProbeError::NotRun("too many open files".into())),
            (Errno::ENOMEM, ProbeError::NotRun("cannot allocate memory".into())),
        ];
        for (errno, expected) in cases {
            assert_eq!(ProbeError::from(io::Error::from_raw_os_error(errno as i32)), expected);
        }
    }
}
