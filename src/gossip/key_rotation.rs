//! Changing the gossip keys of all nodes by a command on one node.
//!
//! A command has two phases. First the node asks each peer for its ring. If a member cannot be asked or does not answer, or if
//! a ring shows that its node would refuse the change, the command is refused, and no ring has changed. Otherwise the node
//! applies the change and sends it to the peers. Requests are repeated until the peer answers or the phase times out. A forced
//! command skips the refusal.
//!
//! A rotation takes three commands: install the new key, use it, remove the old one. A node that is away during the first two
//! receives the new key from the first peer that hears it ([`catch_up`]), since that peer still decrypts the old one.

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
    command::{KeyringCommand, KeyringReport},
    link::Outbox,
    message::{Identity, KeyringChange, Message, RingState},
};
use crate::model::{
    keyring::{Effect, Key, KeyId, Keyring, KeyringError, MAX_KEYS},
    member::PeerId,
    name::Label,
};

/// Interval between requests to a node that has not answered.
const RETRY_INTERVAL: Duration = Duration::from_millis(300);
/// Time that nodes have to answer in each of the two phases.
const TIMEOUT: Duration = Duration::from_secs(4);
/// Largest number of concurrent commands.
const MAX_RUNNING: usize = 16;
/// Reason for a member that was asked.
const NO_ANSWER: &str = "no answer";
/// Reason for a member that has left, at the removal of a key.
const LEFT: &str = "not asked: left, and may return with this key";
/// Note on a member that has left, in a list of keys.
const LEFT_LISTED: &str = "left, and may return with the keys that it had: no key can be removed until it returns, or is \
                           removed with `muster force-leave`";

/// Keyring commands in progress.
pub(super) struct Rotations {
    next: u64,
    running: Vec<Running>,
}

/// Members of the cluster, for a command on all of them.
#[derive(Clone, Debug, Default)]
pub(super) struct KnownMembers {
    /// Members that can be asked.
    pub(super) reachable: Vec<Identity>,
    /// Members that cannot be asked, with the reason: by name, or by address.
    pub(super) unreachable: BTreeMap<String, String>,
    /// Members that have left. They return with the keys that they had.
    pub(super) left: BTreeSet<Label>,
}

/// What a command works with.
pub(super) struct Context<'a> {
    /// This node.
    pub(super) own: &'a Label,
    /// The keyring of this node.
    pub(super) keyring: &'a watch::Sender<Option<Keyring>>,
    /// Messages to peers.
    pub(super) outbox: &'a Outbox,
}

struct Running {
    command: KeyringCommand,
    force: bool,
    members: KnownMembers,
    phase: Phase,
    sequence: u64,
    /// Peers that have not answered in this phase.
    waiting: BTreeMap<PeerId, Identity>,
    asked: Instant,
    until: Instant,
    report: KeyringReport,
    done: oneshot::Sender<Result<KeyringReport, String>>,
}

enum Phase {
    /// Peers are asked for their rings; holds those of the peers that answered.
    Ask(BTreeMap<Label, RingState>),
    /// Peers apply the change.
    Apply(KeyringChange),
}

impl Rotations {
    /// `seed` separates the sequence numbers of this run from those of the previous run.
    pub(super) fn new(seed: u64) -> Self {
        Self { next: seed, running: Vec::new() }
    }

    /// Begins a command on these members.
    pub(super) fn begin(
        &mut self,
        command: KeyringCommand,
        force: bool,
        members: KnownMembers,
        context: &Context<'_>,
        done: oneshot::Sender<Result<KeyringReport, String>>,
    ) {
        if context.keyring.borrow().is_none() {
            let _ = done.send(Err("gossip is not encrypted: set gossip.key_file and restart the agents".to_owned()));
            return;
        }
        if self.running.len() >= MAX_RUNNING {
            let _ = done.send(Err("too many concurrent keyring commands: wait until one has finished".to_owned()));
            return;
        }
        let now = Instant::now();
        let mut running = Running {
            command,
            force,
            members,
            phase: Phase::Ask(BTreeMap::new()),
            sequence: 0,
            waiting: BTreeMap::new(),
            asked: now,
            until: now,
            report: KeyringReport::default(),
            done,
        };
        running.begin_phase(self.sequence(), now, context.outbox);
        self.running.push(running);
        self.proceed(context, now);
    }

    /// Records the outcome of a peer.
    pub(super) fn answered(
        &mut self,
        sequence: u64,
        by: &PeerId,
        outcome: Result<RingState, String>,
        context: &Context<'_>,
    ) {
        let running = self.running.iter_mut().find(|running| running.sequence == sequence);
        if let Some(running) = running
            && running.waiting.remove(by).is_some()
        {
            running.take(&by.name, outcome);
        }
        self.proceed(context, Instant::now());
    }

    /// Reports whether a command is running.
    pub(super) fn is_pending(&self) -> bool {
        !self.running.is_empty()
    }

    /// Repeats requests, and ends the phases whose time is over.
    pub(super) fn tick(&mut self, context: &Context<'_>) {
        let now = Instant::now();
        for running in &mut self.running {
            if now >= running.asked + RETRY_INTERVAL {
                running.asked = now;
                running.ask(context.outbox);
            }
        }
        self.proceed(context, now);
    }

    /// Ends the phases in which all peers have answered or the time is over.
    fn proceed(&mut self, context: &Context<'_>, now: Instant) {
        let is_over = |running: &Running| running.waiting.is_empty() || now >= running.until;
        while let Some(at) = self.running.iter().position(is_over) {
            let mut running = self.running.swap_remove(at);
            if running.ends_with_phase(context) {
                running.finish();
            } else {
                running.begin_phase(self.sequence(), now, context.outbox);
                self.running.push(running);
            }
        }
    }

    fn sequence(&mut self) -> u64 {
        self.next = self.next.wrapping_add(1);
        self.next
    }
}

impl Running {
    fn begin_phase(&mut self, sequence: u64, now: Instant, outbox: &Outbox) {
        self.sequence = sequence;
        self.waiting = self.members.reachable.iter().map(|peer| (peer.id.clone(), peer.clone())).collect();
        (self.asked, self.until) = (now, now + TIMEOUT);
        self.ask(outbox);
    }

    fn ask(&self, outbox: &Outbox) {
        let change = match &self.phase {
            Phase::Ask(_) => KeyringChange::List,
            Phase::Apply(change) => change.clone(),
        };
        let message = Message::Keyring { sequence: self.sequence, change };
        outbox.send(self.waiting.values().map(|peer| peer.address), &message);
    }

    fn take(&mut self, node: &Label, outcome: Result<RingState, String>) {
        self.report.answered += 1;
        match outcome {
            Ok(state) => {
                self.report.count(&state.keys);
                if let Phase::Ask(rings) = &mut self.phase {
                    rings.insert(node.clone(), state);
                }
            }
            Err(why) => drop(self.report.refusals.insert(node.to_string(), why)),
        }
    }

    /// Ends the current phase. Returns whether the command ends with it.
    fn ends_with_phase(&mut self, context: &Context<'_>) -> bool {
        let silent = self.waiting.keys().map(|peer| (peer.name.to_string(), NO_ANSWER.to_owned()));
        self.report.absent = silent.collect();
        let Phase::Ask(rings) = &mut self.phase else { return true };
        let rings = std::mem::take(rings);
        // Checked at the begin; a ring is never removed.
        let Some(own) = context.keyring.borrow().clone() else { return true };
        self.add_unreachable(&rings, context.own);
        let own_state = RingState { rotation: own.rotation(), keys: ids(&own), unreachable: Vec::new() };
        self.take(context.own, Ok(own_state.clone()));
        if self.command == KeyringCommand::List {
            self.report.applied = true;
            return true;
        }
        if let KeyringCommand::Remove(id) = self.command
            && !self.report.keys.contains_key(&id)
        {
            self.report.unknown_key = Some(id);
            return true;
        }
        let own_refusal = self.command.refused_by(&own_state);
        let all = || rings.iter().chain([(context.own, &own_state)]);
        for (node, why) in all().filter_map(|(node, state)| Some((node, self.command.refused_by(state)?))) {
            self.report.refusals.insert(node.to_string(), why.to_string());
        }
        self.add_left();
        let is_refused = !(self.report.refusals.is_empty() && self.report.absent.is_empty());
        if own_refusal.is_some() || (is_refused && !self.force) {
            return true;
        }
        if all().all(|(_, state)| self.command.is_done_in(state)) && self.report.absent.is_empty() {
            self.report.applied = true;
            return true;
        }
        let change = self.command.change(all().map(|(_, state)| state.rotation).max().unwrap_or_default());
        self.report = KeyringReport { applied: true, ..KeyringReport::default() };
        self.phase = Phase::Apply(change.clone());
        let applied = apply(context.keyring, &change, context.own);
        self.take(context.own, applied.map(|keys| RingState { keys, ..RingState::default() }));
        false
    }

    /// Adds the members that peers cannot reach and that this node does not know.
    fn add_unreachable(&mut self, rings: &BTreeMap<Label, RingState>, own: &Label) {
        let members = &mut self.members;
        for (by, state) in rings {
            for name in &state.unreachable {
                let is_known = name == own
                    || rings.contains_key(name)
                    || members.left.contains(name)
                    || members.reachable.iter().any(|peer| peer.id.name == *name);
                if !is_known {
                    let why = || format!("not asked: {by} cannot reach it");
                    members.unreachable.entry(name.to_string()).or_insert_with(why);
                }
            }
        }
        self.report.absent.extend(members.unreachable.clone());
    }

    /// Adds the members that have left, if the change would lock them out, or for information.
    fn add_left(&mut self) {
        let why = match self.command {
            KeyringCommand::List => LEFT_LISTED,
            KeyringCommand::Remove(_) => LEFT,
            KeyringCommand::Install(_) | KeyringCommand::Use(_) => return,
        };
        let left = self.members.left.iter().map(|name| (name.to_string(), why.to_owned()));
        self.report.absent.extend(left);
    }

    fn finish(mut self) {
        self.add_left();
        let Self { members, mut report, done, .. } = self;
        report.absent.extend(members.unreachable.clone());
        report.nodes = 1 + members.reachable.len() + members.unreachable.len();
        // The sender of the command may be gone.
        let _ = done.send(Ok(report));
    }
}

impl KeyringCommand {
    /// Returns the reason for which a node with this ring would refuse the change.
    fn refused_by(&self, state: &RingState) -> Option<KeyringError> {
        match self {
            Self::List => None,
            Self::Install(key) if state.keys.contains(&key.id()) => None,
            Self::Install(_) => (state.keys.len() >= MAX_KEYS).then_some(KeyringError::Full),
            Self::Use(id) => (!state.keys.contains(id)).then_some(KeyringError::Absent(*id)),
            Self::Remove(id) => (state.keys.first() == Some(id)).then_some(KeyringError::Primary(*id)),
        }
    }

    /// Reports whether a ring is as it would be after the change.
    fn is_done_in(&self, state: &RingState) -> bool {
        match self {
            Self::List => true,
            // The key of this id may be another one: the node itself compares them.
            Self::Install(_) => false,
            Self::Use(id) => state.keys.first() == Some(id),
            Self::Remove(id) => !state.keys.contains(id),
        }
    }

    /// Returns the change, after the rotation of this number.
    fn change(&self, rotation: u64) -> KeyringChange {
        match self {
            Self::List => KeyringChange::List,
            Self::Install(key) => KeyringChange::Install(key.clone()),
            Self::Use(key) => KeyringChange::Use { key: *key, rotation: rotation.saturating_add(1) },
            Self::Remove(key) => KeyringChange::Remove(*key),
        }
    }
}

impl KeyringReport {
    fn count(&mut self, keys: &[KeyId]) {
        for (at, key) in keys.iter().enumerate() {
            let held = self.keys.entry(*key).or_default();
            held.nodes += 1;
            held.primary_on += usize::from(at == 0);
        }
    }
}

fn ids(ring: &Keyring) -> Vec<KeyId> {
    ring.iter().map(Key::id).collect()
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
    let changed = match change {
        KeyringChange::List => Ok(Effect::Already),
        KeyringChange::Install(key) => ring.install(key.clone()),
        KeyringChange::Use { key, rotation } => ring.make_primary(*key, *rotation),
        // The key is already absent.
        KeyringChange::Remove(id) if ring.get(*id).is_none() => Ok(Effect::Already),
        KeyringChange::Remove(id) => ring.remove(*id).map(|()| Effect::Changed),
    };
    let keys = ids(&ring);
    if changed.map_err(|error| error.to_string())? == Effect::Changed {
        info!(%by, primary = %ring.primary().id(), keys = keys.len(), "gossip keys changed");
        keyring.send_replace(Some(ring));
    }
    Ok(keys)
}

/// Takes over the keys that a peer sent because this node encrypts with another key.
pub(super) fn catch_up(keyring: &watch::Sender<Option<Keyring>>, theirs: &Keyring, from: &Label) {
    let Some(mut ring) = keyring.borrow().clone() else { return };
    let before = ring.primary().id();
    if ring.take_over(theirs) == Effect::Changed {
        let primary = ring.primary().id();
        info!(%from, %before, %primary, keys = ring.iter().len(), "gossip keys taken over: this node missed a rotation");
        keyring.send_replace(Some(ring));
    }
}

/// State of this node's keyring, for the answer to a request.
pub(super) fn state(keyring: &watch::Sender<Option<Keyring>>, keys: Vec<KeyId>, unreachable: Vec<Label>) -> RingState {
    let rotation = keyring.borrow().as_ref().map_or(0, Keyring::rotation);
    RingState { rotation, keys, unreachable }
}
