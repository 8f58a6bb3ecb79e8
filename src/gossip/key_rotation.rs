//! Changing the gossip keys of all nodes by a command on one node.
//!
//! The node sends the change to each peer, repeats it until the peer answers or the timeout expires, and reports each
//! outcome. A rotation takes three commands: install the new key, use it, remove the old one. Between them the operator
//! verifies that all nodes have followed, so that no node is left with a key that the others no longer accept.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::{
    sync::{oneshot, watch},
    time::Instant,
};
use tracing::info;

use super::{
    command::KeyringReport,
    link::Outbox,
    message::{Identity, KeyringChange, Message},
};
use crate::model::{
    keyring::{KeyId, Keyring},
    member::PeerId,
    name::Label,
};

/// Interval between requests to a node that has not answered.
const RETRY_INTERVAL: Duration = Duration::from_millis(300);
/// Time that nodes have to answer.
const TIMEOUT: Duration = Duration::from_secs(4);
/// Largest number of concurrent commands.
const MAX_RUNNING: usize = 16;

/// Keyring commands in progress.
pub(super) struct Rotations {
    next: u64,
    running: Vec<Running>,
}

struct Running {
    sequence: u64,
    change: KeyringChange,
    waiting: BTreeMap<PeerId, Identity>,
    asked: Instant,
    until: Instant,
    report: KeyringReport,
    done: oneshot::Sender<Result<KeyringReport, String>>,
}

impl Rotations {
    /// `seed` separates the sequence numbers of this run from those of the previous run.
    pub(super) fn new(seed: u64) -> Self {
        Self { next: seed, running: Vec::new() }
    }

    /// Applies the change here and sends it to the peers.
    pub(super) fn begin(
        &mut self,
        change: KeyringChange,
        own: &Label,
        peers: Vec<Identity>,
        keyring: &watch::Sender<Option<Keyring>>,
        outbox: &Outbox,
        done: oneshot::Sender<Result<KeyringReport, String>>,
    ) {
        if keyring.borrow().is_none() {
            let _ = done.send(Err("gossip is not encrypted: set gossip.key_file and restart the agents".to_owned()));
            return;
        }
        if self.running.len() >= MAX_RUNNING {
            let _ = done.send(Err("too many concurrent keyring commands: wait until one has finished".to_owned()));
            return;
        }
        let now = Instant::now();
        let mut report = KeyringReport { nodes: peers.len() + 1, ..KeyringReport::default() };
        report.take(own, apply(keyring, &change, own));
        // A change that this node refuses is not sent to peers.
        let peers = if report.refusals.is_empty() { peers } else { Vec::new() };
        self.next = self.next.wrapping_add(1);
        let waiting = peers.into_iter().map(|peer| (peer.id.clone(), peer)).collect();
        let until = now + TIMEOUT;
        let running = Running { sequence: self.next, change, waiting, asked: now, until, report, done };
        running.ask(outbox);
        self.running.push(running);
        self.finish(now);
    }

    /// Records the outcome of a peer.
    pub(super) fn answered(&mut self, sequence: u64, by: &PeerId, outcome: Result<Vec<KeyId>, String>) {
        let running = self.running.iter_mut().find(|running| running.sequence == sequence);
        if let Some(running) = running
            && running.waiting.remove(by).is_some()
        {
            running.report.take(&by.name, outcome);
        }
        self.finish(Instant::now());
    }

    /// Repeats requests and finishes commands whose time is over.
    pub(super) fn tick(&mut self, outbox: &Outbox) {
        let now = Instant::now();
        for running in &mut self.running {
            if now >= running.asked + RETRY_INTERVAL {
                running.asked = now;
                running.ask(outbox);
            }
        }
        self.finish(now);
    }

    fn finish(&mut self, now: Instant) {
        let over = |running: &mut Running| running.waiting.is_empty() || now >= running.until;
        for Running { waiting, mut report, done, .. } in self.running.extract_if(.., over) {
            let silent: BTreeSet<Label> = waiting.into_keys().map(|peer| peer.name).collect();
            report.refusals.extend(silent.into_iter().map(|name| (name, "no answer".to_owned())));
            // The sender of the command may be gone.
            let _ = done.send(Ok(report));
        }
    }
}

impl Running {
    fn ask(&self, outbox: &Outbox) {
        let message = Message::Keyring { sequence: self.sequence, change: self.change.clone() };
        outbox.send(self.waiting.values().map(|peer| peer.address), &message);
    }
}

impl KeyringReport {
    fn take(&mut self, node: &Label, outcome: Result<Vec<KeyId>, String>) {
        self.answered += 1;
        match outcome {
            Ok(keys) => {
                for (at, key) in keys.into_iter().enumerate() {
                    let held = self.keys.entry(key).or_default();
                    held.nodes += 1;
                    held.primary_on += usize::from(at == 0);
                }
            }
            Err(why) => self.refusals.push((node.clone(), why)),
        }
    }
}

/// Applies a change that `by` requested to this node's keyring and returns the resulting keys. Idempotent.
pub(super) fn apply(
    keyring: &watch::Sender<Option<Keyring>>,
    change: &KeyringChange,
    by: &Label,
) -> Result<Vec<KeyId>, String> {
    let Some(mut ring) = keyring.borrow().clone() else {
        return Err("gossip is not encrypted on this node".to_owned());
    };
    let before = ring.clone();
    let changed = match change {
        KeyringChange::List => Ok(()),
        KeyringChange::Install(key) => ring.install(key.clone()).map(drop),
        KeyringChange::Use(id) => ring.make_primary(*id).map(drop),
        // The key is already absent.
        KeyringChange::Remove(id) if ring.get(*id).is_none() => Ok(()),
        KeyringChange::Remove(id) => ring.remove(*id),
    };
    if let Err(error) = changed {
        return Err(error.to_string());
    }
    let keys = ring.iter().map(crate::model::keyring::Key::id).collect();
    if ring != before {
        info!(%by, primary = %ring.primary().id(), keys = ring.iter().len(), "gossip keys changed");
        keyring.send_replace(Some(ring));
    }
    Ok(keys)
}
