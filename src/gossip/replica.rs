//! What is known of one peer's announcements, put together from two roads.
//!
//! Gossip brings every change in order of version, late. A push brings a change at once, and may be lost or come twice.
//! So a pushed change counts if gossip has not passed its version yet, and gossip's counts unless a push was ahead of it
//! for that key. Both roads carry the same records ([`record`]); one that breaks a bound is skipped, and
//! what was known of its instance stays.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    net::IpAddr,
    sync::Arc,
};

use crate::{
    model::{
        announcement::{Announcement, Announcements, HealthReport, InstanceState},
        name::Label,
        service::InstanceKey,
        user_event::{Heard, UserEvent},
    },
    record::{self, Key, Record, RecordError},
};

/// Instances of one node; more are not taken, and counted. Ten times what one host is meant to carry.
pub const MAX_INSTANCES: usize = 20_000;
/// What is said of an instance whose health has not arrived.
const NO_HEALTH_YET: &str = "its health has not arrived yet";

/// A change of one key: the value, or `None` where it is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// The key.
    pub key: &'a str,
    /// Grows with every change of the peer.
    pub version: u64,
    /// The value.
    pub value: Option<&'a str>,
}

/// What a peer says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Where it can be reached.
    pub addresses: Vec<IpAddr>,
    /// The name of its site.
    pub datacenter: Label,
    /// Of its program.
    pub version: String,
    /// What its configuration says of it.
    pub meta: BTreeMap<String, String>,
    /// Seconds: with what it answers instances that name no TTL; `None`: it has not told.
    pub ttl: Option<u32>,
}

/// Why a change was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Skipped {
    /// It is no record, or out of bounds.
    Bad(RecordError),
    /// The peer announces more than [`MAX_INSTANCES`].
    TooMany,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bad(bad) => bad.fmt(f),
            Self::TooMany => write!(f, "more than {MAX_INSTANCES} instances on one node"),
        }
    }
}

/// One run of one peer.
#[derive(Clone, Debug, Default)]
pub struct Replica {
    /// What it said of itself.
    pub facts: Option<Facts>,
    /// Its instances.
    pub announcements: Announcements,
    /// The digest of its view, where it has told one that can be compared with ours.
    pub view: Option<u64>,
    /// It said good-bye.
    pub left: bool,
    /// User events that it fired and that nobody has taken yet.
    fired: Vec<Arc<UserEvent>>,
    heard: Heard,
    /// Gossip has brought its state at least once: events from now on are news.
    met: bool,
    /// Gossip has brought everything up to this version.
    seen: u64,
    /// Keys that a push has brought with a later version.
    ahead: HashMap<String, u64>,
    /// Health that came before its instance.
    early: HashMap<InstanceKey, InstanceState>,
    /// Reports that came before their instance.
    early_reports: HashMap<InstanceKey, Arc<HealthReport>>,
}

impl Replica {
    /// Takes what gossip brought: everything up to `version`. Where it is `whole`, what is not in it is gone.
    /// `bad` is called for each record that is skipped.
    pub fn gossiped<'a>(
        &mut self,
        version: u64,
        whole: bool,
        changes: impl IntoIterator<Item = Change<'a>>,
        mut bad: impl FnMut(&str, Skipped),
    ) {
        if whole {
            *self = Self {
                facts: self.facts.take(),
                fired: std::mem::take(&mut self.fired),
                heard: std::mem::take(&mut self.heard),
                met: self.met,
                ..Self::default()
            };
        }
        let fired = self.fired.len();
        for change in changes {
            if self.ahead.get(change.key).is_none_or(|ahead| *ahead < change.version) {
                self.apply(change, &mut bad);
            }
        }
        if !std::mem::replace(&mut self.met, true) {
            // What was fired before we met is heard, and is no news.
            self.fired.truncate(fired);
        }
        self.seen = version;
        self.ahead.retain(|_, ahead| *ahead > version);
    }

    /// Takes what was pushed.
    pub fn pushed<'a>(&mut self, changes: impl IntoIterator<Item = Change<'a>>, mut bad: impl FnMut(&str, Skipped)) {
        for change in changes {
            let known = self.ahead.get(change.key).map_or(self.seen, |ahead| *ahead);
            if change.version > known && (self.ahead.len() < 2 * MAX_INSTANCES || self.ahead.contains_key(change.key)) {
                self.ahead.insert(change.key.to_owned(), change.version);
                self.apply(change, &mut bad);
            }
        }
    }

    /// What it has fired since the last time, in the order in which it was heard.
    pub fn take_fired(&mut self) -> Vec<Arc<UserEvent>> {
        std::mem::take(&mut self.fired)
    }

    fn apply(&mut self, change: Change<'_>, bad: &mut impl FnMut(&str, Skipped)) {
        let applied = match change.value {
            Some(value) => match record::decode(change.key, value) {
                Ok(Some(record)) => self.set(record),
                // Something that only newer nodes know.
                Ok(None) => Ok(()),
                Err(bad) => Err(Skipped::Bad(bad)),
            },
            None => Key::parse(change.key).map(|key| self.remove(key)).map_err(Skipped::Bad),
        };
        if let Err(error) = applied {
            bad(change.key, error);
        }
    }

    fn set(&mut self, record: Record) -> Result<(), Skipped> {
        match record {
            Record::Instance(instance) => {
                let key = instance.key.clone();
                let (standing, report) = match self.announcements.get(&key) {
                    Some(known) => (known.standing.clone(), known.report.clone()),
                    None if self.announcements.len() >= MAX_INSTANCES => return Err(Skipped::TooMany),
                    None => {
                        let standing = self.early.remove(&key);
                        let standing = standing.unwrap_or_else(|| InstanceState::Critical(NO_HEALTH_YET.into()));
                        (standing, self.early_reports.remove(&key))
                    }
                };
                self.announcements.insert(key, Arc::new(Announcement { instance, standing, report }));
            }
            Record::Standing(key, standing) => match self.announcements.get(&key) {
                Some(known) => {
                    let announcement = Announcement { standing, ..Announcement::clone(known) };
                    self.announcements.insert(key, Arc::new(announcement));
                }
                None if self.early.len() >= MAX_INSTANCES => return Err(Skipped::TooMany),
                None => drop(self.early.insert(key, standing)),
            },
            Record::Report(key, report) => match self.announcements.get(&key) {
                Some(known) => {
                    let announcement = Announcement { report: Some(report), ..Announcement::clone(known) };
                    self.announcements.insert(key, Arc::new(announcement));
                }
                None if self.early_reports.len() >= MAX_INSTANCES => return Err(Skipped::TooMany),
                None => drop(self.early_reports.insert(key, report)),
            },
            Record::Node { addresses, datacenter, version, meta, ttl } => {
                self.facts = Some(Facts { addresses, datacenter, version, meta, ttl });
            }
            Record::Event(_, event) => {
                if self.heard.is_news(event.time) {
                    self.fired.push(event);
                }
            }
            Record::View(digest) => self.view = Some(digest),
            Record::Left => self.left = true,
        }
        Ok(())
    }

    fn remove(&mut self, key: Key) {
        match key {
            Key::Instance(key) => {
                self.announcements.remove(&key);
            }
            // The instance goes with it, or is announced anew.
            Key::Standing(key) => drop(self.early.remove(&key)),
            Key::Report(key) => {
                self.early_reports.remove(&key);
                if let Some(known) = self.announcements.get(&key).filter(|known| known.report.is_some()) {
                    let announcement = Announcement { report: None, ..Announcement::clone(known) };
                    self.announcements.insert(key, Arc::new(announcement));
                }
            }
            Key::View => self.view = None,
            // A node without a record of itself keeps the last one.
            Key::Node | Key::Event(_) | Key::Left | Key::Unknown => {}
        }
    }
}
