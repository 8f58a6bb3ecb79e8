//! Why the agent could not start, or did not go on: each with what to do about it.

use std::{fmt, io, net::SocketAddr, path::PathBuf};

use crate::model::name::Label;

/// Why the agent could not start, or did not go on.
#[derive(Debug)]
pub enum DaemonError {
    /// An address that cannot be listened on.
    Listen {
        /// What for.
        purpose: Purpose,
        /// Which.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// A data folder that cannot be written to.
    DataDir {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A file of gossip keys that cannot be used.
    KeyFile {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        error: String,
    },
    /// A certificate that cannot be used; holds why.
    Certificate(String),
    /// The certificate of the HTTP API cannot be used; holds why.
    ApiCertificate(String),
    /// A Unix socket cannot be listened on.
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The system yields no random octets.
    NoRandom,
    /// Gossip cannot be started; holds why.
    Gossip(String),
    /// Another node, which was there before, has this node's name.
    NameTaken {
        /// The name.
        name: Label,
        /// Where the other one gossips.
        by: SocketAddr,
    },
    /// A part of the agent that ended by itself, which is a defect; holds its name.
    Ended(&'static str),
}

/// What an address is listened on for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// DNS over QUIC.
    Quic,
}

impl Purpose {
    /// What it is called.
    pub(super) fn name(self) -> &'static str {
        self.words().0
    }

    /// What it is called, the key of the configuration that decides on it, and an address that mostly works.
    fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Dns => ("DNS", "dns.listen", "127.0.0.1:8600"),
            Self::Gossip => ("gossip", "gossip.listen", "127.0.0.1:7947"),
            Self::Http => ("HTTP", "http.listen", "127.0.0.1:8501"),
            Self::Tls => ("DNS over TLS", "dns.encrypted.tls", "127.0.0.1:8853"),
            Self::Https => ("DNS over HTTPS", "dns.encrypted.https", "127.0.0.1:8443"),
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
                        "\nAnother program has the port, or another entry of {key} covers it: `ss -antup 'sport = :{port}'` shows who. Stop \
                         that program, or set {key} to another address or port."
                    ),
                    io::ErrorKind::PermissionDenied => write!(
                        f,
                        "\nPorts below 1024 need the capability CAP_NET_BIND_SERVICE: start muster by its systemd unit, run \
                         `setcap cap_net_bind_service=+ep` on the binary, or set {key} to a higher port such as {example}."
                    ),
                    io::ErrorKind::AddrNotAvailable => {
                        write!(
                            f,
                            "\nNo interface of this host has that address: `ip address` lists them. Set {key} to one of them."
                        )
                    }
                    _ => Ok(()),
                }
            }
            Self::DataDir { path, error } => write!(
                f,
                "cannot write to the data folder {}: {error}\nCreate it for the user that runs muster, or set data_dir to another folder.",
                path.display()
            ),
            Self::KeyFile { path, error } => write!(
                f,
                "cannot use the gossip keys in {}: {error}\n`muster keygen > {}` makes a file with a new key; all nodes of a cluster \
                 have the same.",
                path.display(),
                path.display()
            ),
            Self::Certificate(error) => write!(
                f,
                "no certificate for encrypted DNS: {error}\nMake dns.encrypted.certificate the file with the certificate and those \
                 between it and an authority, dns.encrypted.key its key, both in PEM and readable by the user that runs muster."
            ),
            Self::ApiCertificate(error) => write!(
                f,
                "no certificate for the HTTP API: {error}\nMake http.certificate the file with the certificate and those \
                 between it and an authority, http.key its key, both in PEM and readable by the user that runs muster."
            ),
            Self::Socket { path, error } => write!(
                f,
                "cannot listen on the Unix socket {}: {error}\nIts folder has to be there, and the user that runs muster has \
                 to be allowed to write into it; no other program may listen there.",
                path.display()
            ),
            Self::NoRandom => f.write_str(
                "the system yields no random numbers, without which neither gossip can be sealed nor cookies be made",
            ),
            Self::Gossip(error) => write!(f, "gossip cannot be started: {error}"),
            Self::NameTaken { name, by } => write!(
                f,
                "another node is called {name} too: the one that gossips at {by}, and it was there before\nSet `node` in the \
                 configuration of one of them to another name."
            ),
            Self::Ended(part) => write!(
                f,
                "the part that {part} has ended, so the agent stops rather than answer what it no longer knows\nThis is a \
                 defect of muster: please report it with the lines above."
            ),
        }
    }
}

impl std::error::Error for DaemonError {}
