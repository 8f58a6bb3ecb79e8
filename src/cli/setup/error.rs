//! Why a host is not set up: each with what to do about it.

use std::{fmt, io, net::SocketAddr, path::PathBuf};

use crate::diagnostic::Diagnostic;

/// Why a host is not set up.
#[derive(Debug)]
pub(super) enum SetupError {
    /// The configuration cannot be read.
    NoConfig {
        /// Where it should be.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The configuration has problems.
    Config(Vec<Diagnostic>),
    /// The agent listens on no port that a client could be told of.
    NoServer,
    /// The agent listens on other ports than 53, and resolv.conf has none; holds where.
    NoPort53(Vec<SocketAddr>),
    /// systemd-resolved does not run here.
    NoResolved,
    /// What resolv.conf names is systemd-resolved, which programs also ask without it.
    AsksResolved,
    /// The agent resolves no names but its own.
    NoRecursion,
    /// The agent takes its upstreams from the system, which would name none any more.
    NoUpstreams {
        /// The configuration.
        config: PathBuf,
        /// Where they are named now.
        named_in: PathBuf,
        /// Who they are.
        upstreams: Vec<SocketAddr>,
    },
    /// A file that resolved reads after ours names servers.
    Later(PathBuf),
    /// A file that cannot be read.
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A file that cannot be written, moved or removed.
    Write {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// What is to be undone is not ours.
    Foreign(PathBuf),
    /// What was there before is not where it was kept.
    Lost {
        /// The file.
        path: PathBuf,
        /// Where it was kept.
        kept: PathBuf,
    },
    /// The agent does not answer as it should.
    Agent {
        /// Where it was asked.
        server: SocketAddr,
        /// What came of it.
        why: String,
    },
    /// A command did not do what it should.
    Command {
        /// The command.
        command: String,
        /// What came of it.
        why: String,
    },
    /// A question did not take its way through the system.
    Astray {
        /// Who was asked.
        asked: String,
        /// What came of it.
        why: String,
        /// What to look at.
        hint: &'static str,
    },
}

impl SetupError {
    /// Whether nothing could be tried at all; else something speaks against it.
    pub(super) fn is_inability(&self) -> bool {
        matches!(self, Self::NoConfig { .. } | Self::Read { .. } | Self::Write { .. })
    }
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoConfig { path, error } => write!(
                f,
                "cannot read the configuration {}: {error}\nName another one by --config.",
                path.display()
            ),
            Self::Config(problems) => {
                write!(f, "the configuration has problems")?;
                problems.iter().try_for_each(|problem| write!(f, "\n{problem}"))
            }
            Self::NoServer => f.write_str(
                "dns.listen has only ports that the kernel chooses, which no client can know\nSet dns.listen to \
                 [127.0.0.1:53] and restart muster.",
            ),
            Self::NoPort53(listen) => {
                let listen: Vec<String> = listen.iter().map(ToString::to_string).collect();
                write!(
                    f,
                    "resolv.conf has no ports: whoever reads it asks port 53, and dns.listen is [{}]\nSet dns.listen to \
                     [127.0.0.1:53] and restart muster; where systemd-resolved runs, `muster setup resolved` takes any port.",
                    listen.join(", ")
                )
            }
            Self::NoResolved => f.write_str(
                "systemd-resolved does not run here: there is no /run/systemd/resolve\nWithout it, `muster setup resolv-conf` \
                 is the way.",
            ),
            Self::AsksResolved => f.write_str(
                "this host asks systemd-resolved, which /etc/resolv.conf names or links to, and which many programs ask \
                 without it\nRun `muster setup resolved` instead.",
            ),
            Self::NoRecursion => f.write_str(
                "muster resolves no names but its own here: resolver.allow has no `loopback`\nThe host would know no other \
                 names. Add `loopback` to resolver.allow and restart muster.",
            ),
            Self::NoUpstreams { config, named_in, upstreams } => {
                let listed: Vec<String> = upstreams.iter().map(|server| shown(*server)).collect();
                let listed = if listed.is_empty() { "ADDRESS OF A RESOLVER".to_owned() } else { listed.join(", ") };
                write!(
                    f,
                    "muster would have nobody to ask for other names: it takes its upstreams from the system, and {} \
                     would name only muster\nAdd this to {} (to the table `resolver`, if there is one), restart muster, and \
                     come back:\n\nresolver:\n  upstreams: [{listed}]\n",
                    named_in.display(),
                    config.display()
                )
            }
            Self::Later(path) => write!(
                f,
                "{} names DNS servers too, and is read after muster's file: resolved would ask them for muster's names\nTake \
                 `DNS=` out of it; if muster should ask those servers for other names, they belong into \
                 resolver.upstreams.",
                path.display()
            ),
            Self::Read { path, error } => write!(f, "cannot read {}: {error}", path.display()),
            Self::Write { path, error } => {
                write!(f, "cannot write {}: {error}", path.display())?;
                match error.kind() {
                    io::ErrorKind::PermissionDenied => f.write_str("\nTo set up a host takes root: run it with sudo."),
                    io::ErrorKind::ResourceBusy | io::ErrorKind::CrossesDevices => f.write_str(
                        "\nIt is mounted from elsewhere, as in containers: whoever made the container can name muster as \
                         its DNS server (docker run --dns).",
                    ),
                    _ => Ok(()),
                }
            }
            Self::Foreign(path) => write!(
                f,
                "{} is not what muster wrote: it is left alone\nSomebody has changed it since.",
                path.display()
            ),
            Self::Lost { path, kept } => write!(
                f,
                "{} is muster's, and what was there before is gone: {} does not exist\nWrite the file yourself.",
                path.display(),
                kept.display()
            ),
            Self::Agent { server, why } => write!(
                f,
                "the agent does not answer for its zone at {server}: {why}\nStart it first (`muster agent`, `systemctl \
                 start muster`), with the same configuration."
            ),
            Self::Command { command, why } => write!(f, "`{command}` failed: {why}"),
            Self::Astray { asked, why, hint } => write!(f, "{asked}: {why}\n{hint}"),
        }
    }
}

/// As `upstreams` takes it, in quotes where YAML needs them.
fn shown(server: SocketAddr) -> String {
    match server {
        SocketAddr::V4(server) if server.port() == 53 => server.ip().to_string(),
        SocketAddr::V6(server) if server.port() == 53 => format!("\"{}\"", server.ip()),
        server => format!("\"{server}\""),
    }
}

impl std::error::Error for SetupError {}
