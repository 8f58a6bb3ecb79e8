//! Errors that keep the agent from starting or end it, each with advice.

use std::{
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use crate::{
    diagnostic::Diagnostic,
    files::contents::{GRANT_GROUP, ReadError},
    model::{keyring::KeyFileError, name::Label},
    printable,
};

/// An error that keeps the agent from starting or ends it.
#[derive(Debug)]
pub enum DaemonError {
    /// An address cannot be listened on.
    Listen {
        /// Its purpose.
        purpose: Purpose,
        /// The address.
        address: SocketAddr,
        /// Error of the system.
        error: io::Error,
    },
    /// A bound socket cannot be served.
    Serve {
        /// Its purpose.
        purpose: Purpose,
        /// Error of the system.
        error: io::Error,
    },
    /// A gossip key file is unusable.
    KeyFile {
        /// Its path.
        path: PathBuf,
        /// The fault.
        error: GossipKeyError,
    },
    /// The file of trust anchors is unusable; holds the fault.
    TrustAnchors(Diagnostic),
    /// The certificate for encrypted DNS is unusable; holds the reason.
    Certificate(String),
    /// The certificate of the HTTP API is unusable; holds the reason.
    ApiCertificate(String),
    /// The certificate of etcd's API is unusable; holds the reason.
    EtcdCertificate(String),
    /// A Unix socket cannot be listened on.
    Socket {
        /// Its path.
        path: PathBuf,
        /// Error of the system.
        error: io::Error,
    },
    /// The system provides no random numbers.
    NoRandom,
    /// Gossip cannot be started; holds the reason.
    Gossip(String),
    /// An older member of the cluster has this node's name.
    NameTaken {
        /// The name.
        name: Label,
        /// Gossip address of the other node.
        by: SocketAddr,
    },
    /// A task ended by itself, which is a defect; holds its name.
    Ended(&'static str),
}

/// Reason why a gossip key file is unusable.
#[derive(Debug, thiserror::Error)]
pub enum GossipKeyError {
    /// The file cannot be read.
    #[error(transparent)]
    Unreadable(#[from] ReadError),
    /// The file is not UTF-8.
    #[error("the file is not text: {0}")]
    NotText(#[from] std::str::Utf8Error),
    /// The text has no keys.
    #[error(transparent)]
    Invalid(#[from] KeyFileError),
}

impl GossipKeyError {
    /// Suggested fix for the file at `path`. Only for a file that does not exist it suggests a command that writes the file.
    pub(super) fn hint(&self, path: &Path) -> String {
        let path = printable::path(path);
        match self {
            Self::Unreadable(ReadError::Absent) => {
                format!(
                    "`umask 077 && muster keygen > {path}` creates a key file. All nodes of a cluster need the same key."
                )
            }
            Self::Unreadable(ReadError::Denied) => format!("Do not replace the file: {GRANT_GROUP}."),
            Self::Unreadable(error) => error.hint().unwrap_or_default().to_owned(),
            Self::NotText(_) | Self::Invalid(_) => "All nodes of a cluster need the same keys.".to_owned(),
        }
    }
}

/// Purpose of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// DNS over UDP and TCP.
    Dns,
    /// Gossip over UDP and TCP.
    Gossip,
    /// The HTTP API.
    Http,
    /// DNS over TLS.
    Tls,
    /// DNS over HTTPS.
    Https,
    /// etcd's API.
    Etcd,
    /// DNS over QUIC.
    Quic,
}

impl Purpose {
    /// Name in messages.
    pub(super) fn name(self) -> &'static str {
        self.words().0
    }

    /// All purposes.
    const ALL: [Self; 7] = [Self::Dns, Self::Gossip, Self::Http, Self::Tls, Self::Https, Self::Quic, Self::Etcd];

    /// Word in the name of a socket.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Gossip => "gossip",
            Self::Http => "http",
            Self::Tls => "tls",
            Self::Https => "https",
            Self::Etcd => "etcd",
            Self::Quic => "quic",
        }
    }

    /// Returns the purpose with this word.
    pub(super) fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.word() == word)
    }

    /// Name in messages, configuration key, and an address that usually works.
    fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Dns => ("DNS", "dns.listen", "127.0.0.1:8600"),
            Self::Gossip => ("gossip", "gossip.listen", "127.0.0.1:7947"),
            Self::Http => ("HTTP", "http.listen", "127.0.0.1:8501"),
            Self::Tls => ("DNS over TLS", "dns.encrypted.tls", "127.0.0.1:8853"),
            Self::Https => ("DNS over HTTPS", "dns.encrypted.https", "127.0.0.1:8443"),
            Self::Etcd => ("etcd's API", "store.etcd.listen", "127.0.0.1:2379"),
            Self::Quic => ("DNS over QUIC", "dns.encrypted.quic", "127.0.0.1:8853"),
        }
    }
}

impl fmt::Display for DaemonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { purpose, address, error } => {
                let (what, key, example) = purpose.words();
                write!(f, "cannot listen for {what} on {address}: {error}")?;
                let port = address.port();
                match error.kind() {
                    io::ErrorKind::AddrInUse => write!(
                        f,
                        "\nAnother program, or another entry of {key}, uses the port: see `ss -antup 'sport = :{port}'`. Stop that program, or \
                         set {key} to another address or port in a configuration file (--config)."
                    ),
                    io::ErrorKind::PermissionDenied => write!(
                        f,
                        "\nPorts below 1024 need the capability CAP_NET_BIND_SERVICE: start muster with its systemd unit, run \
                         `setcap cap_net_bind_service=+ep` on the binary, or set {key} to a higher port such as {example}."
                    ),
                    io::ErrorKind::AddrNotAvailable => {
                        write!(
                            f,
                            "\nNo interface of this host has this address: set {key} to one that `ip address` lists."
                        )
                    }
                    _ => Ok(()),
                }
            }
            Self::Serve { purpose, error } => write!(f, "cannot serve {}: {error}", purpose.name()),
            Self::KeyFile { path, error } => {
                write!(f, "cannot use the gossip keys in {}: {error}\n{}", printable::path(path), error.hint(path))
            }
            Self::TrustAnchors(fault) => write!(
                f,
                "cannot use the trust anchors: {fault}\nSet resolver.trust_anchors to a file of DS or DNSKEY records, or remove it to \
                 use the keys of the root that are built in."
            ),
            Self::Certificate(error) => write!(
                f,
                "unusable certificate for encrypted DNS: {error}\nSet dns.encrypted.certificate to the certificate chain and dns.encrypted.key to \
                 its key, both in PEM and readable by the user that runs muster."
            ),
            Self::ApiCertificate(error) => write!(
                f,
                "unusable certificate for the HTTP API: {error}\nSet http.certificate to the certificate chain and http.key to its key, both in \
                 PEM and readable by the user that runs muster."
            ),
            Self::EtcdCertificate(error) => write!(
                f,
                "unusable certificate for etcd's API: {error}\nSet http.certificate to the certificate chain and http.key to its key, both in \
                 PEM and readable by the user that runs muster."
            ),
            Self::Socket { path, error } => write!(
                f,
                "cannot listen on the Unix socket {}: {error}\nIts directory must exist and be writable by the user that runs \
                 muster, and no other program may listen there.",
                path.display()
            ),
            Self::NoRandom => {
                f.write_str("the system provides no random numbers, which gossip encryption and DNS cookies need")
            }
            Self::Gossip(error) => write!(f, "cannot start gossip: {error}"),
            Self::NameTaken { name, by } => write!(
                f,
                "the name {name} belongs to another node of the cluster, which gossips at {by}\nSet `node` in the configuration of one \
                 of them to another name."
            ),
            Self::Ended(part) => write!(
                f,
                "the task `{part}` ended unexpectedly, so the agent stops\nThis is a defect of muster: please report it with the log \
                 lines above."
            ),
        }
    }
}

impl std::error::Error for DaemonError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::keyring::Keyring;

    /// `muster keygen > FILE` as root truncates a key that only the agent's user cannot read.
    #[test]
    fn only_a_missing_key_file_is_to_be_created() {
        let invalid = Keyring::parse("short").unwrap_err();
        let cases: [(GossipKeyError, &str, bool); 4] = [
            (ReadError::Absent.into(), "there is no such file", true),
            (ReadError::Denied.into(), "run `chgrp muster` and `chmod 640` on the file", false),
            (ReadError::Dangling.into(), "fix or remove the link", false),
            (invalid.into(), "All nodes of a cluster need the same keys.", false),
        ];
        for (error, expected, creates) in cases {
            let shown = DaemonError::KeyFile { path: "gossip.key".into(), error }.to_string();
            assert!(shown.contains(expected), "{shown}");
            assert_eq!(shown.contains("keygen > gossip.key"), creates, "{shown}");
        }
    }
}
