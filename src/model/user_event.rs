//! User events, as in Consul: a name and a small payload, sent to all nodes.
//!
//! An event travels by gossip from the node on which it was fired to all others. Patterns on node names, services and tags
//! select the nodes that it is for. Delivery is not confirmed; a node that is away for long may miss an event.

use std::{collections::BTreeSet, sync::Arc};

use regex_lite::{Regex, RegexBuilder};
use thiserror::Error;
use uuid::Uuid;

use super::{
    announcement::{Announcements, Node},
    name::Label,
};

/// Maximum length of the name of an event in octets.
pub const MAX_EVENT_NAME: usize = 128;
/// Maximum size of the payload in octets, as in Consul: an event is a notification, not a message queue.
pub const MAX_PAYLOAD: usize = 512;
/// Maximum length of a pattern in octets.
pub const MAX_PATTERN: usize = 255;
/// Maximum size of a compiled pattern in octets: nodes compile the patterns of other nodes.
const MAX_COMPILED: usize = 64 * 1024;
/// Number of events that a node keeps, as in Consul.
pub const MAX_EVENTS: usize = 256;
/// Number of latest events of a node that gossip carries: events fired faster than gossip spreads are lost.
pub const SLOTS: u8 = 16;
/// Maximum Lamport time: no peer can exhaust the clocks of the others.
pub const MAX_TIME: u64 = 1 << 62;

/// A user event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserEvent {
    /// Random id, assigned when the event is fired.
    pub id: Uuid,
    /// Name of 1 to [`MAX_EVENT_NAME`] octets without control characters.
    pub name: String,
    /// Payload of at most [`MAX_PAYLOAD`] octets.
    pub payload: Vec<u8>,
    /// Nodes that the event is for.
    pub to: Audience,
    /// Lamport time: greater than that of every event known to the node when it was fired.
    pub time: u64,
}

/// Filter on nodes. Patterns are regular expressions that match anywhere; an empty pattern matches all nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audience {
    /// Datacenter of the nodes; `None`: any.
    pub datacenter: Option<Label>,
    /// Pattern on the name of the node.
    pub node: String,
    /// Pattern on the names of the services that the node announces.
    pub service: String,
    /// Pattern on the tags of such a service; requires [`service`](Self::service).
    pub tag: String,
}

/// Bound that an event exceeds.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum UserEventError {
    /// Name that is empty, too long, or has control characters.
    #[error("an event's name has 1 to {MAX_EVENT_NAME} octets and no control characters")]
    Name,
    /// Payload of more than [`MAX_PAYLOAD`] octets, with its size.
    #[error("an event's payload has at most {MAX_PAYLOAD} octets, this one has {0}")]
    Payload(usize),
    /// Pattern that is too long, with its field and its size.
    #[error("`{0}` has at most {MAX_PATTERN} octets, this one has {1}")]
    LongPattern(&'static str, usize),
    /// Pattern that is no regular expression, or is large when compiled, with its field and the reason.
    #[error("`{0}` must be a regular expression: {1}")]
    Pattern(&'static str, String),
    /// Pattern on tags without one on services.
    #[error("`tag` requires `service`: it selects among the tags of these services")]
    TagAlone,
    /// Time above [`MAX_TIME`].
    #[error("an event's time is at most {MAX_TIME}")]
    Time,
}

impl UserEvent {
    /// Checks the event against all bounds.
    ///
    /// # Errors
    /// The first bound that the event exceeds.
    pub fn check(&self) -> Result<(), UserEventError> {
        if !(1..=MAX_EVENT_NAME).contains(&self.name.len()) || self.name.chars().any(char::is_control) {
            return Err(UserEventError::Name);
        }
        if self.payload.len() > MAX_PAYLOAD {
            return Err(UserEventError::Payload(self.payload.len()));
        }
        if self.time > MAX_TIME {
            return Err(UserEventError::Time);
        }
        self.to.check()
    }
}

impl Audience {
    fn check(&self) -> Result<(), UserEventError> {
        for (what, pattern) in [("node", &self.node), ("service", &self.service), ("tag", &self.tag)] {
            if pattern.len() > MAX_PATTERN {
                return Err(UserEventError::LongPattern(what, pattern.len()));
            }
            compile(pattern).map_err(|error| UserEventError::Pattern(what, error.to_string()))?;
        }
        if !self.tag.is_empty() && self.service.is_empty() { Err(UserEventError::TagAlone) } else { Ok(()) }
    }

    /// Reports whether the filter selects a node with these announcements.
    pub fn includes(&self, node: &Node, announced: &Announcements) -> bool {
        if self.datacenter.as_ref().is_some_and(|datacenter| *datacenter != node.datacenter) {
            return false;
        }
        let [by_node, by_service, by_tag] = [&self.node, &self.service, &self.tag].map(|pattern| compile(pattern).ok());
        let fits = |pattern: &Option<Regex>, text: &str| pattern.as_ref().is_some_and(|pattern| pattern.is_match(text));
        if !fits(&by_node, node.name.as_str()) {
            return false;
        }
        self.service.is_empty()
            || announced.iter().any(|(key, known)| {
                fits(&by_service, key.service.as_str())
                    && (self.tag.is_empty() || known.instance.tags.iter().any(|tag| fits(&by_tag, tag)))
            })
    }
}

fn compile(pattern: &str) -> Result<Regex, regex_lite::Error> {
    RegexBuilder::new(pattern).size_limit(MAX_COMPILED).build()
}

/// Last [`MAX_EVENTS`] events for this node, oldest first. Clones share structure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventLog(imbl::Vector<Arc<UserEvent>>);

impl EventLog {
    /// Adds the newest event and drops the oldest if the log is full.
    pub fn push(&mut self, event: Arc<UserEvent>) {
        if self.0.len() >= MAX_EVENTS {
            self.0.pop_front();
        }
        self.0.push_back(event);
    }

    /// Iterates over the events, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<UserEvent>> {
        self.0.iter()
    }
}

/// Times of the events received from one peer. They only grow, so the last ones suffice to detect duplicates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Events up to this time count as received.
    floor: u64,
    recent: BTreeSet<u64>,
}

impl Received {
    /// Records an event; returns whether it is new.
    pub fn insert(&mut self, time: u64) -> bool {
        if time <= self.floor || !self.recent.insert(time) {
            return false;
        }
        // A push may be ahead of gossip, but at most by the number of events that the peer keeps.
        while self.recent.len() > usize::from(SLOTS) {
            self.floor = self.recent.pop_first().unwrap_or(self.floor);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::{
        announcement::{Announcement, InstanceState},
        name::label,
        service::{Instance, InstanceKey},
    };

    fn event(name: &str, payload: usize, [node, service, tag]: [&str; 3], time: u64) -> UserEvent {
        let to = Audience { datacenter: None, node: node.to_owned(), service: service.to_owned(), tag: tag.to_owned() };
        UserEvent { id: Uuid::nil(), name: name.to_owned(), payload: vec![0; payload], to, time }
    }

    #[test]
    fn events_have_bounds() {
        let long = "x".repeat(256);
        let error =
            |what, pattern: &str| Some(UserEventError::Pattern(what, compile(pattern).unwrap_err().to_string()));
        let cases: &[(UserEvent, Option<UserEventError>)] = &[
            (event("deploy", 512, ["^web-[0-9]+$", "web", "v2"], MAX_TIME), None),
            (event("", 0, [""; 3], 1), Some(UserEventError::Name)),
            (event(&long[..129], 0, [""; 3], 1), Some(UserEventError::Name)),
            (event("a\nb", 0, [""; 3], 1), Some(UserEventError::Name)),
            (event("deploy", 513, [""; 3], 1), Some(UserEventError::Payload(513))),
            (event("deploy", 0, ["(", "", ""], 1), error("node", "(")),
            (event("deploy", 0, ["", &long, ""], 1), Some(UserEventError::LongPattern("service", 256))),
            (event("deploy", 0, ["", "x", "((a{99}){99}){99}"], 1), error("tag", "((a{99}){99}){99}")),
            (event("deploy", 0, ["", "", "v2"], 1), Some(UserEventError::TagAlone)),
            (event("deploy", 0, [""; 3], MAX_TIME + 1), Some(UserEventError::Time)),
        ];
        for (event, expected) in cases {
            assert_eq!(event.check().err(), *expected, "{event:?}");
        }
    }

    #[test]
    fn audience_selects_nodes_by_datacenter_name_service_and_tag() {
        let node = Node {
            name: label("host-a"),
            addresses: vec![],
            datacenter: label("dc1"),
            zone: None,
            meta: BTreeMap::default(),
            checks: None,
        };
        let instance = |service: &str, tags: &[&str]| {
            let key = InstanceKey { service: label(service).into(), id: label("x") };
            let instance =
                Instance { tags: tags.iter().map(|tag| (*tag).to_owned()).collect(), ..Instance::new(key, vec![]) };
            Announcement::new(Arc::new(instance), InstanceState::Passing).into_entry()
        };
        let announced: Announcements = [instance("web", &["v1"]), instance("db", &["v2"])].into_iter().collect();
        let cases = [
            (["", "", ""], true),
            (["host", "", ""], true),
            (["^host$", "", ""], false),
            (["", "^web$", ""], true),
            (["", "cache", ""], false),
            (["", "web", "v1"], true),
            (["", "web", "v2"], false),
            (["", "web|db", "v2"], true),
            (["other", "web", ""], false),
        ];
        for (patterns, expected) in cases {
            let to = event("x", 0, patterns, 1).to;
            assert_eq!(to.includes(&node, &announced), expected, "{patterns:?}");
        }
        for (datacenter, expected) in [("dc1", true), ("dc2", false)] {
            let to = Audience { datacenter: Some(label(datacenter)), ..Audience::default() };
            assert_eq!(to.includes(&node, &announced), expected, "{datacenter}");
        }
    }

    #[test]
    fn duplicate_events_are_detected_in_any_order() {
        let mut received = Received::default();
        // A push ahead of gossip, then gossip, then gossip from the start again.
        for (time, is_new) in [(3, true), (1, true), (2, true), (3, false), (1, false), (9, true)] {
            assert_eq!(received.insert(time), is_new, "{time}");
        }
        for time in 10..100 {
            assert!(received.insert(time) && !received.insert(time), "{time}");
        }
        assert!(!received.insert(4), "too old: its peer no longer keeps it");
        assert!(received.recent.len() <= usize::from(SLOTS));
    }

    #[test]
    fn the_log_keeps_the_last_events() {
        let mut log = EventLog::default();
        for time in 0..300 {
            log.push(Arc::new(event("x", 0, [""; 3], time)));
        }
        let times: Vec<u64> = log.iter().map(|event| event.time).collect();
        assert_eq!(times, (44..300).collect::<Vec<_>>());
    }
}
