//! Changing the gossip keys of all nodes, on one node's order.
//!
//! Each node is asked, again and again until it answers or its time is over; what each said is reported. A rotation is
//! three orders: install the new key, use it, remove the old one. Between them an operator sees whether all nodes have
//! followed, so that no node is left with a key that the others no longer take.

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
    channel::Outbox,
    message::{Identity, KeyringChange, Message},
};
use crate::model::{
    keyring::{KeyId, Keyring},
    member::PeerId,
    name::Label,
};

/// From asking a node to asking it again.
const AGAIN: Duration = Duration::from_millis(300);
/// How long nodes have to answer.
const PATIENCE: Duration = Duration::from_secs(4);
/// Orders at once: operators give one after the other.
const AT_ONCE: usize = 16;

/// What the nodes said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyringReport {
    /// Nodes that were asked, this one included.
    pub nodes: usize,
    /// Those that answered.
    pub answered: usize,
    /// The keys, by id: how many nodes have it, and how many seal with it.
    pub keys: BTreeMap<KeyId, (usize, usize)>,
    /// Which node did not do it, and why.
    pub refusals: Vec<(Label, String)>,
}

/// Orders under way.
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
    /// `seed` keeps sequences of one run apart from those of the run before.
    pub(super) fn new(seed: u64) -> Self {
        Self { next: seed, running: Vec::new() }
    }

    /// Does it here, and has the peers do it.
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
            let _ = done.send(Err("gossip is not sealed: set gossip.key_file and restart the agents".to_owned()));
            return;
        }
        if self.running.len() >= AT_ONCE {
            let _ = done.send(Err("too many orders for the keyring at once: wait for those before".to_owned()));
            return;
        }
        let now = Instant::now();
        let mut report = KeyringReport { nodes: peers.len() + 1, ..KeyringReport::default() };
        report.take(own, apply(keyring, &change, own));
        // What this node refuses, the others are not asked.
        let peers = if report.refusals.is_empty() { peers } else { Vec::new() };
        self.next = self.next.wrapping_add(1);
        let waiting = peers.into_iter().map(|peer| (peer.id.clone(), peer)).collect();
        let until = now + PATIENCE;
        let running = Running { sequence: self.next, change, waiting, asked: now, until, report, done };
        running.ask(outbox);
        self.running.push(running);
        self.finish(now);
    }

    /// A peer has answered.
    pub(super) fn answered(&mut self, sequence: u64, by: &PeerId, outcome: Result<Vec<KeyId>, String>) {
        let running = self.running.iter_mut().find(|running| running.sequence == sequence);
        if let Some(running) = running
            && running.waiting.remove(by).is_some()
        {
            running.report.take(&by.name, outcome);
        }
        self.finish(Instant::now());
    }

    /// Asks again, and ends what has had its time.
    pub(super) fn tick(&mut self, outbox: &Outbox) {
        let now = Instant::now();
        for running in &mut self.running {
            if now >= running.asked + AGAIN {
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
            // Whoever asked may have gone.
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
                    let (nodes, primary) = self.keys.entry(key).or_default();
                    *nodes += 1;
                    *primary += usize::from(at == 0);
                }
            }
            Err(why) => self.refusals.push((node.clone(), why)),
        }
    }
}

/// Does on this node's keyring what `by` ordered, and says which keys there are then. Doing it twice changes nothing.
pub(super) fn apply(
    keyring: &watch::Sender<Option<Keyring>>,
    change: &KeyringChange,
    by: &Label,
) -> Result<Vec<KeyId>, String> {
    let Some(mut ring) = keyring.borrow().clone() else {
        return Err("gossip is not sealed here".to_owned());
    };
    let before = ring.clone();
    let changed = match change {
        KeyringChange::List => Ok(()),
        KeyringChange::Install(key) => ring.install(key.clone()).map(drop),
        KeyringChange::Use(id) => ring.make_primary(*id).map(drop),
        // It is not there: that is what was asked for.
        KeyringChange::Remove(id) if ring.get(*id).is_none() => Ok(()),
        KeyringChange::Remove(id) => ring.remove(*id),
    };
    if let Err(error) = changed {
        return Err(error.to_string());
    }
    let keys = ring.iter().map(crate::model::keyring::Key::id).collect();
    if ring != before {
        info!(%by, primary = %ring.primary().id(), keys = ring.iter().len(), "the gossip keys have changed");
        keyring.send_replace(Some(ring));
    }
    Ok(keys)
}
