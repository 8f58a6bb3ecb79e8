//! Errors of `muster setup`. The first line of each message is the cause, the lines after it are the remedy.

use std::{io, net::SocketAddr, path::PathBuf};

use crate::{diagnostic::Diagnostic, model::upstream_address::UpstreamAddress};

/// Reason why a host is not set up.
#[derive(Debug, thiserror::Error)]
pub(super) enum SetupError {
    /// The configuration cannot be read.
    #[error("cannot read the configuration {}: {error}\nName another configuration with --config.", path.display())]
    NoConfig {
        /// Path of the configuration.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// The configuration has errors.
    #[error("the configuration has errors{}", lines(.0))]
    Config(Vec<Diagnostic>),
    /// The agent listens only on ports that the kernel chooses.
    #[error(
        "dns.listen has only ports that the kernel chooses, which clients cannot know\nSet dns.listen to [127.0.0.1:53] \
         and restart muster."
    )]
    NoServer,
    /// The agent does not listen on port 53, the only port of resolv.conf; holds `dns.listen`.
    #[error(
        "resolv.conf supports only port 53, and dns.listen is [{}]\nSet dns.listen to [127.0.0.1:53] and restart muster. \
         With systemd-resolved, `muster setup resolved` supports any port.",
        list(.0, ToString::to_string)
    )]
    NoPort53(Vec<SocketAddr>),
    /// systemd-resolved is not running.
    #[error(
        "systemd-resolved is not running: /run/systemd/resolve does not exist\nUse `muster setup resolv-conf` instead."
    )]
    NoResolved,
    /// resolv.conf belongs to systemd-resolved, which programs also reach without the file.
    #[error(
        "/etc/resolv.conf points at systemd-resolved, which many programs query without this file\nUse `muster setup \
         resolved` instead."
    )]
    UsesResolved,
    /// The agent resolves only its own names.
    #[error(
        "muster resolves only its own names: resolver.allow does not contain `loopback`\nThe host could resolve no other \
         names. Add `loopback` to resolver.allow and restart muster."
    )]
    NoRecursion,
    /// The agent takes its upstreams from the system, which would name only the agent.
    #[error(
        "muster would have no upstream: it uses the system's servers, and {} would name only muster\nAdd these lines to {} \
         (or `upstreams` to its table `resolver`), restart muster, and repeat the command:\n\nresolver:\n  upstreams: \
         [{}]\n",
        file.display(),
        config.display(),
        if upstreams.is_empty() { "ADDRESS OF A RESOLVER".to_owned() } else { list(upstreams, yaml) }
    )]
    NoUpstreams {
        /// Path of the configuration.
        config: PathBuf,
        /// The file that names the upstreams now.
        file: PathBuf,
        /// The upstreams in the file.
        upstreams: Vec<UpstreamAddress>,
    },
    /// A drop-in that systemd-resolved reads later names servers.
    #[error(
        "{} names DNS servers and is read after muster's file: systemd-resolved would query them for muster's names\n\
         Remove `DNS=` from it. If muster should forward other names to these servers, add them to resolver.upstreams.",
        .0.display()
    )]
    LaterServers(PathBuf),
    /// A file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// A file cannot be written, moved or removed.
    #[error("cannot write {}: {error}{}", path.display(), write_advice(error))]
    Write {
        /// Path of the file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// The file to undo was changed by another program.
    #[error(
        "{} was not written by muster and stays unchanged\nAnother program has replaced muster's file.",
        .0.display()
    )]
    Foreign(PathBuf),
    /// The backup of the former file is missing.
    #[error(
        "cannot restore {}: the former file {} does not exist\nWrite the file by hand.",
        path.display(),
        backup.display()
    )]
    NoBackup {
        /// Path of the file.
        path: PathBuf,
        /// Path of the backup.
        backup: PathBuf,
    },
    /// The agent does not answer for its zone.
    #[error(
        "the agent at {server} does not answer for its zone: {cause}\nStart the agent with the same configuration (`muster \
         agent`, `systemctl start muster`)."
    )]
    Agent {
        /// Address of the agent.
        server: SocketAddr,
        /// Failure of the query.
        cause: String,
    },
    /// A system command failed.
    #[error("`{command}` failed: {cause}")]
    Command {
        /// The command.
        command: String,
        /// Its error output or exit status.
        cause: String,
    },
    /// The host does not resolve a name as expected.
    #[error("{subject}: {cause}\n{hint}")]
    Verification {
        /// The resolver or the kind of names that was verified.
        subject: String,
        /// Failure of the lookup.
        cause: String,
        /// Advice.
        hint: &'static str,
    },
}

impl SetupError {
    /// Reports whether the command could not run at all (exit code 2), rather than finding an obstacle (exit code 1).
    pub(super) fn is_inability(&self) -> bool {
        matches!(self, Self::NoConfig { .. } | Self::Read { .. } | Self::Write { .. })
    }
}

/// Formats each diagnostic as a further line.
fn lines(problems: &[Diagnostic]) -> String {
    problems.iter().map(|problem| format!("\n{problem}")).collect()
}

fn list<T>(servers: &[T], format: impl Fn(&T) -> String) -> String {
    servers.iter().map(format).collect::<Vec<_>>().join(", ")
}

/// Formats a server for `upstreams`, quoted where YAML requires it.
fn yaml(server: &UpstreamAddress) -> String {
    match (server.address, &server.interface) {
        (SocketAddr::V4(address), None) if address.port() == 53 => address.ip().to_string(),
        (SocketAddr::V6(address), None) if address.port() == 53 => format!("\"{}\"", address.ip()),
        (SocketAddr::V6(address), Some(interface)) if address.port() == 53 => {
            format!("\"{}%{interface}\"", address.ip())
        }
        _ => format!("\"{server}\""),
    }
}

fn write_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "\nThe command needs root: run it with sudo.",
        io::ErrorKind::ResourceBusy | io::ErrorKind::CrossesDevices => {
            "\nThe file is a mount, as in containers: set muster as the DNS server of the container (docker run --dns)."
        }
        _ => "",
    }
}
