//! Reload of the configuration: read, checked as a whole, and applied as a whole or refused as a whole.

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    DaemonError, bind, cluster::read_key_file, fixed::Fixed, handover::Handover, sockets::SocketPool, trust_anchors,
};
use crate::{
    clock::unix_now,
    config::{self, Config},
    diagnostic::Diagnostic,
    dns::recursion::validation::ValidationScope,
    model::{date::rfc3339, keyring::Keyring},
    tls::certificate::Certificate,
};

/// Source of the configuration.
pub struct Source {
    /// Path of the file or folder; the name of the mode without one.
    pub path: PathBuf,
    /// Reads and parses the configuration.
    pub read: Box<Read>,
}

/// Reads and parses the configuration. The argument is the address of the host that is in use.
type Read = dyn Fn(Option<IpAddr>) -> Result<Config, Vec<Diagnostic>> + Send + Sync;

/// The active configuration.
pub(super) struct Active {
    config: Config,
    /// Content of the key file at the start.
    gossip_keys: Option<String>,
    /// Trust anchors in use.
    trust_anchors: Option<ValidationScope>,
    since: Duration,
}

/// A configuration that has been read again.
pub(super) enum Reread {
    /// It is the active one.
    Unchanged,
    /// It can be applied; holds its sockets, so that no other program takes a port meanwhile.
    Changed(Box<Config>, SocketPool),
    /// It cannot be applied; holds the problems.
    Refused(Vec<Diagnostic>),
}

impl Active {
    /// The configuration that has just been applied.
    pub(super) fn new(config: &Config) -> Self {
        let (gossip_keys, trust_anchors) = (gossip_keys(config), trust_anchors(config));
        Self { config: config.clone(), gossip_keys, trust_anchors, since: unix_now() }
    }
}

impl fmt::Display for Active {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "active since {}", rfc3339(self.since))
    }
}

fn gossip_keys(config: &Config) -> Option<String> {
    match &config.gossip.seal {
        config::Seal::KeyFile(path) => read_key_file(path).ok(),
        config::Seal::Open => None,
    }
}

fn trust_anchors(config: &Config) -> Option<ValidationScope> {
    config.resolver.validation.as_ref().and_then(|validation| trust_anchors::scope(validation).ok())
}

/// Returns the reasons why an agent with this configuration, of `path`, cannot go on from the handover.
pub fn check_start(config: &Config, path: &Path, handover: &Handover) -> Vec<Diagnostic> {
    let Some(before) = &handover.settings else { return named_file_problems(config) };
    let mut problems = before.fixed.changes(&Fixed::of(config), path);
    let hint = "run `muster reload` before the upgrade, or undo the change";
    for name in bind::names(config).iter().filter(|name| !handover.listeners.contains(&name.to_string())) {
        let message = format!("the listener {name} is not open, and an upgrade opens none");
        problems.push(Diagnostic::whole(path, message).with_hint(hint));
    }
    if before.advertise != config.advertise.addresses() {
        problems.push(Diagnostic::whole(path, "the advertised address has changed").with_hint(hint));
    }
    problems.extend(named_file_problems(config));
    problems
}

impl Source {
    /// Reads the configuration and checks that it can replace the active one, whose sockets are `open`.
    pub(super) fn reread(&self, active: &Active, open: &SocketPool) -> Reread {
        let config = match (self.read)(active.config.advertise.of_host()) {
            Ok(config) => config,
            Err(problems) => return Reread::Refused(problems),
        };
        let has_same_files =
            gossip_keys(&config) == active.gossip_keys && trust_anchors(&config) == active.trust_anchors;
        if config == active.config && has_same_files {
            return Reread::Unchanged;
        }
        let mut problems = Fixed::of(&active.config).changes(&Fixed::of(&config), &self.path);
        problems.extend(named_file_problems(&config));
        if !problems.is_empty() {
            return Reread::Refused(problems);
        }
        // Last, since a refused configuration must not take a port, however briefly.
        match bind::bind(&config, open) {
            Ok((_, sockets)) => Reread::Changed(Box::new(config), sockets),
            Err(error) => Reread::Refused(vec![self.unbindable(&error)]),
        }
    }

    fn unbindable(&self, error: &DaemonError) -> Diagnostic {
        let text = error.to_string();
        let (message, hint) = text.split_once('\n').unwrap_or((&text, ""));
        let problem = Diagnostic::whole(&self.path, message);
        let overlap = "An address that overlaps with one in use by this agent needs a restart of the agent.";
        problem.with_hint(format!("{hint} {overlap}").trim())
    }
}

/// Problems of keys and certificates.
fn named_file_problems(config: &Config) -> Vec<Diagnostic> {
    let mut problems = Vec::new();
    if let config::Seal::KeyFile(path) = &config.gossip.seal {
        let keys = read_key_file(path).and_then(|text| Ok(Keyring::parse(&text)?));
        problems.extend(keys.err().map(|error| {
            let problem = Diagnostic::whole(path, format!("unusable gossip keys: {error}"));
            problem.with_hint(error.hint(path))
        }));
    }
    problems.extend(config.resolver.validation.as_ref().and_then(|validation| trust_anchors::scope(validation).err()));
    let encrypted = config.dns.encrypted.as_ref().map(|encrypted| (&encrypted.certificate, &encrypted.key));
    let http = config.http.tls.as_ref().map(|(certificate, key)| (certificate, key));
    for (certificate, key) in encrypted.into_iter().chain(http) {
        let unusable = Certificate::read(certificate, key).err();
        problems.extend(unusable.map(|error| Diagnostic::whole(certificate, format!("unusable certificate: {error}"))));
    }
    problems
}
