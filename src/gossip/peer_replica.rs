//! One peer's announcements, merged from gossip and pushes.
//!
//! Gossip delivers every change in order of version, but late. A push delivers a change at once, but may be lost or
//! duplicated. A pushed change counts if gossip has not passed its version yet; a gossiped change counts unless a push
//! delivered a later version of its key. Both carry the same records ([`record`]); a record that breaks a bound is skipped,
//! and the previous state of its instance is kept.
//!
//! Gossip delivers a large state in parts. The former state (of the run before, of the gossip start before, or before a
//! whole delivery) stays below the new one until that is complete: keys that have not been delivered again are removed
//! then. The node's record is the last of the initial keys, so its arrival completes them.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use thiserror::Error;

use crate::{
    model::{
        announcement::{Announcement, Announcements, HealthReport, InstanceState, Node},
        external_node::{ExternalNodes, MAX_EXTERNAL_NODES},
        name::Label,
        service::{InstanceKey, instance_ref::InstanceRef},
        shared_lists::SharedLists,
        user_event::{Received, UserEvent},
    },
    record::{self, Key, Record, RecordError},
};

/// Largest number of instances of one node: a gateway may announce all that a large cluster has. Excess instances are counted and
/// skipped.
pub const MAX_INSTANCES: usize = 100_000;
/// Output of an instance whose health state has not arrived.
const NO_HEALTH_YET: &str = "its health has not arrived yet";

/// Change of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// Changed key.
    pub key: &'a str,
    /// Version of the change; increases with every change of the peer.
    pub version: u64,
    /// New value; `None` deletes the key.
    pub value: Option<&'a str>,
}

/// A peer's record of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Addresses of the node.
    pub addresses: Vec<IpAddr>,
    /// Datacenter of the node.
    pub datacenter: Label,
    /// Zone of the node, if it has one.
    pub zone: Option<Label>,
    /// Version of its muster.
    pub version: String,
    /// Metadata from its configuration.
    pub meta: BTreeMap<String, String>,
    /// TTL in seconds of instances that specify none; `None` if the peer does not publish it.
    pub ttl: Option<u32>,
}

impl Facts {
    /// The node as the view shows it.
    /// `checks` are the results of its checks.
    pub fn node(&self, name: &Label, checks: Option<Arc<HealthReport>>) -> Node {
        Node {
            checks,
            name: name.clone(),
            addresses: self.addresses.clone(),
            datacenter: self.datacenter.clone(),
            zone: self.zone.clone(),
            meta: self.meta.clone(),
        }
    }
}

/// Reasons why a change is skipped.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SkipError {
    /// The record is invalid or out of bounds.
    #[error(transparent)]
    Invalid(#[from] RecordError),
    /// The peer announces more than [`MAX_INSTANCES`].
    #[error("more than {MAX_INSTANCES} instances on one node")]
    TooMany,
    /// The peer announces more than [`MAX_EXTERNAL_NODES`].
    #[error("more than {MAX_EXTERNAL_NODES} external nodes of one node")]
    TooManyNodes,
}

/// State of one run of a peer.
#[derive(Clone, Debug, Default)]
pub struct Replica {
    /// The peer's record of itself.
    pub facts: Option<Facts>,
    /// Instances that the peer announces.
    pub announcements: Announcements,
    /// External nodes that the peer announces.
    pub external: ExternalNodes,
    /// Results of the checks of the peer as a whole.
    pub node_checks: Option<Arc<HealthReport>>,
    /// Digest of the peer's view; `None` if unknown or not comparable.
    pub view: Option<u64>,
    /// SOA serial of the generated zones; `None` if the peer serves no transfers.
    pub zone_serial: Option<u32>,
    /// True if the peer has announced its leave.
    pub left: bool,
    /// True if the peer has announced a restart.
    pub restarts: bool,
    /// Bound of its serials, not yet taken.
    serial: Option<u32>,
    /// User events fired by the peer and not yet taken.
    fired: Vec<Arc<UserEvent>>,
    received_events: Received,
    delivery: Delivery,
    /// Keys of the former state that have not been delivered again.
    unconfirmed: HashSet<Key>,
    /// Version up to which gossip has delivered everything.
    seen: u64,
    /// Keys for which a push delivered a later version than gossip.
    ahead: HashMap<String, u64>,
    /// Health states that arrived before their instance.
    early: HashMap<InstanceKey, InstanceState>,
    /// Health reports that arrived before their instance.
    early_reports: HashMap<InstanceKey, Arc<HealthReport>>,
}

/// Progress of the delivery of a peer's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Delivery {
    /// The initial keys of this run or gossip start are arriving.
    #[default]
    Initial,
    /// The whole state is arriving again.
    Again,
    /// The state is complete.
    Complete,
}

impl Replica {
    /// Creates the replica of a peer whose state was delivered up to `version` in an earlier start of this node; zero if
    /// it was incomplete.
    pub fn known(
        facts: Facts,
        announcements: Announcements,
        external: ExternalNodes,
        node_checks: Option<Arc<HealthReport>>,
        zone_serial: Option<u32>,
        version: u64,
    ) -> Self {
        let facts = Some(facts);
        let mut replica =
            Self { facts, announcements, external, node_checks, zone_serial, seen: version, ..Self::default() };
        if version > 0 {
            replica.delivery = Delivery::Complete;
        } else {
            replica.unconfirmed = replica.keys();
        }
        replica
    }

    /// Puts the state of the peer's former run below this one, unless this one is complete.
    pub fn follow(&mut self, former: &Self) {
        if self.is_complete() {
            return;
        }
        for (key, announcement) in &former.announcements {
            match self.announcements.get(key) {
                None => {
                    self.unconfirmed.extend(keys_of(key, announcement));
                    self.announcements.insert(key.clone(), announcement.clone());
                }
                Some(known) if known.state == no_health_yet() => {
                    let state = announcement.state.clone();
                    let known = Announcement { state, ..Announcement::clone(known) };
                    self.announcements.insert(key.clone(), Arc::new(known));
                }
                Some(_) => {}
            }
        }
        for (name, node) in &former.external {
            if !self.external.contains_key(name) {
                self.unconfirmed.insert(Key::External(name.clone()));
                self.external.insert(name.clone(), node.clone());
            }
        }
        self.facts = self.facts.take().or_else(|| former.facts.clone());
        if let (None, Some(checks)) = (&self.node_checks, &former.node_checks) {
            self.unconfirmed.insert(Key::NodeChecks);
            self.node_checks = Some(checks.clone());
        }
    }

    /// Prepares for the initial keys of another gossip start within the run.
    pub fn restart(&mut self) {
        *self = Self {
            unconfirmed: self.keys(),
            facts: self.facts.take(),
            announcements: std::mem::take(&mut self.announcements),
            external: std::mem::take(&mut self.external),
            node_checks: self.node_checks.take(),
            // The peer stays the primary of the generated zones while it starts again.
            zone_serial: self.zone_serial,
            fired: std::mem::take(&mut self.fired),
            ..Self::default()
        };
    }

    /// Reports whether the initial keys have arrived.
    pub fn is_complete(&self) -> bool {
        self.delivery != Delivery::Initial
    }

    /// Version up to which gossip has delivered the complete state; zero while it is incomplete.
    pub fn version(&self) -> u64 {
        if self.delivery == Delivery::Complete { self.seen } else { 0 }
    }

    /// Reports whether the whole state is arriving again, until [`complete`](Self::complete).
    pub fn is_arriving_again(&self) -> bool {
        self.delivery == Delivery::Again
    }

    /// Completes the delivery: removes the keys of the former state that were not delivered again.
    pub fn complete(&mut self) {
        self.delivery = Delivery::Complete;
        for key in std::mem::take(&mut self.unconfirmed) {
            self.remove(key);
        }
    }

    fn keys(&self) -> HashSet<Key> {
        let instances = self.announcements.iter().flat_map(|(key, announcement)| keys_of(key, announcement));
        let instances = instances.chain(self.external.keys().cloned().map(Key::External));
        let node_checks = self.node_checks.as_ref().map(|_| Key::NodeChecks);
        instances.chain(node_checks).chain(self.zone_serial.map(|_| Key::ZoneSerial)).collect()
    }

    /// Applies gossiped changes: everything up to `version`. If `whole`, keys without an entry are deleted once the state
    /// is complete. Instances share their lists with those in `lists`. Calls `skipped` for each skipped record.
    pub fn gossiped<'a>(
        &mut self,
        version: u64,
        whole: bool,
        changes: impl IntoIterator<Item = Change<'a>>,
        lists: &mut SharedLists,
        mut skipped: impl FnMut(&str, SkipError),
    ) {
        if whole {
            self.unconfirmed = self.keys();
            if self.delivery == Delivery::Complete {
                self.delivery = Delivery::Again;
            }
        }
        let (initial, fired) = (!self.is_complete(), self.fired.len());
        for change in changes {
            if self.ahead.get(change.key).is_none_or(|ahead| *ahead < change.version) {
                self.apply(change, lists, &mut skipped);
            }
        }
        if initial {
            // Events fired before the first contact are marked as seen and not delivered.
            self.fired.truncate(fired);
        }
        self.seen = version;
        self.ahead.retain(|_, ahead| *ahead > version);
        // A burst of pushes leaves room for its number of keys.
        if self.ahead.is_empty() {
            self.ahead = HashMap::new();
        }
    }

    /// Applies pushed changes, as [`gossiped`](Self::gossiped).
    pub fn pushed<'a>(
        &mut self,
        changes: impl IntoIterator<Item = Change<'a>>,
        lists: &mut SharedLists,
        mut skipped: impl FnMut(&str, SkipError),
    ) {
        for change in changes {
            let known = self.ahead.get(change.key).map_or(self.seen, |ahead| *ahead);
            if change.version > known && (self.ahead.len() < 2 * MAX_INSTANCES || self.ahead.contains_key(change.key)) {
                self.ahead.insert(change.key.to_owned(), change.version);
                self.apply(change, lists, &mut skipped);
            }
        }
    }

    /// Takes the user events received since the last call, in order of arrival.
    pub fn take_fired(&mut self) -> Vec<Arc<UserEvent>> {
        std::mem::take(&mut self.fired)
    }

    /// Takes the bound of serials received since the last call.
    pub fn take_serial(&mut self) -> Option<u32> {
        self.serial.take()
    }

    fn apply(&mut self, change: Change<'_>, lists: &mut SharedLists, skipped: &mut impl FnMut(&str, SkipError)) {
        if !self.unconfirmed.is_empty()
            && let Ok(key) = Key::parse(change.key)
        {
            self.unconfirmed.remove(&key);
        }
        let applied = match change.value {
            Some(value) => match record::decode(change.key, value) {
                Ok(Some(record)) => self.set(record, lists),
                // Only newer versions know this record.
                Ok(None) => Ok(()),
                Err(invalid) => Err(SkipError::Invalid(invalid)),
            },
            None => Key::parse(change.key).map(|key| self.remove(key)).map_err(SkipError::Invalid),
        };
        if let Err(error) = applied {
            skipped(change.key, error);
        }
    }

    fn set(&mut self, record: Record, lists: &mut SharedLists) -> Result<(), SkipError> {
        match record {
            Record::Instance(mut instance) => {
                lists.share(Arc::make_mut(&mut instance));
                let key = instance.key.clone();
                let (state, report) = match self.announcements.get(&key) {
                    // The catalog keeps what it has while values are equal: another copy would stay in memory besides it.
                    Some(known) if known.instance == instance => return Ok(()),
                    Some(known) => (known.state.clone(), known.report.clone()),
                    None if self.announcements.len() >= MAX_INSTANCES + self.unconfirmed.len() => {
                        return Err(SkipError::TooMany);
                    }
                    None => {
                        let state = self.early.remove(&key);
                        let state = state.unwrap_or_else(no_health_yet);
                        (state, self.early_reports.remove(&key))
                    }
                };
                self.announcements
                    .insert(InstanceRef::from(&instance), Arc::new(Announcement { instance, state, report }));
            }
            Record::State(key, state) => match self.announcements.get(&key) {
                Some(known) if known.state == state => {}
                Some(known) => {
                    let announcement = Announcement { state, ..Announcement::clone(known) };
                    self.announcements.insert(InstanceRef::from(&announcement.instance), Arc::new(announcement));
                }
                None if self.early.len() >= MAX_INSTANCES => return Err(SkipError::TooMany),
                None => drop(self.early.insert(key, state)),
            },
            Record::Report(key, report) => match self.announcements.get(&key) {
                Some(known) if known.report.as_ref() == Some(&report) => {}
                Some(known) => {
                    let announcement = Announcement { report: Some(report), ..Announcement::clone(known) };
                    self.announcements.insert(InstanceRef::from(&announcement.instance), Arc::new(announcement));
                }
                None if self.early_reports.len() >= MAX_INSTANCES => return Err(SkipError::TooMany),
                None => drop(self.early_reports.insert(key, report)),
            },
            Record::External(node) => match self.external.get(&node.name) {
                Some(known) if *known == node => {}
                None if self.external.len() >= MAX_EXTERNAL_NODES + self.unconfirmed.len() => {
                    return Err(SkipError::TooManyNodes);
                }
                _ => drop(self.external.insert(node.name.clone(), node)),
            },
            Record::Node { addresses, datacenter, zone, version, meta, ttl } => {
                self.facts = Some(Facts { addresses, datacenter, zone, version, meta, ttl });
                if !self.is_complete() {
                    self.complete();
                }
            }
            Record::NodeChecks(report) if self.node_checks.as_ref() == Some(&report) => {}
            Record::NodeChecks(report) => self.node_checks = Some(report),
            Record::Event(_, event) => {
                if self.received_events.insert(event.time) {
                    self.fired.push(event);
                }
            }
            Record::View(digest) => self.view = Some(digest),
            Record::Serial(serial) => self.serial = Some(serial),
            Record::ZoneSerial(serial) => self.zone_serial = Some(serial),
            Record::Left => self.left = true,
            Record::Restart => self.restarts = true,
        }
        Ok(())
    }

    fn remove(&mut self, key: Key) {
        match key {
            Key::Instance(key) => {
                self.announcements.remove(&key);
            }
            // The instance is removed as well, or announced again.
            Key::State(key) => drop(self.early.remove(&key)),
            Key::Report(key) => {
                self.early_reports.remove(&key);
                if let Some(known) = self.announcements.get(&key).filter(|known| known.report.is_some()) {
                    let announcement = Announcement { report: None, ..Announcement::clone(known) };
                    self.announcements.insert(InstanceRef::from(&announcement.instance), Arc::new(announcement));
                }
            }
            Key::External(name) => drop(self.external.remove(&name)),
            Key::NodeChecks => self.node_checks = None,
            Key::View => self.view = None,
            Key::ZoneSerial => self.zone_serial = None,
            // A deleted node record keeps the last known facts.
            Key::Restart => self.restarts = false,
            Key::Node | Key::Event(_) | Key::Serial | Key::Left | Key::Unknown => {}
        }
    }
}

fn no_health_yet() -> InstanceState {
    InstanceState::Critical(NO_HEALTH_YET.into())
}

/// Keys that an announcement has besides its state, which is removed with it.
fn keys_of(key: &InstanceKey, announcement: &Announcement) -> impl Iterator<Item = Key> + use<> {
    let report = announcement.report.is_some().then(|| Key::Report(key.clone()));
    std::iter::once(Key::Instance(key.clone())).chain(report)
}

#[cfg(test)]
mod tests;
