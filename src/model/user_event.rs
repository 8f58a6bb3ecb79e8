//! User events: a name and a few octets that somebody wants every node to know of, as Consul has them.
//!
//! An event goes from the node on which it was fired to all others by gossip. It says for which of them it is meant: by
//! patterns on their names, their services and the tags of those. Nobody confirms it, and a node that is away for long may
//! miss one.

use std::{collections::BTreeSet, fmt, sync::Arc};

use regex_lite::{Regex, RegexBuilder};
use uuid::Uuid;

use super::{announcement::Announcements, name::Label};

/// Octets of an event's name: a word or two.
pub const MAX_EVENT_NAME: usize = 128;
/// Octets of its payload, as in Consul: an event says that something happened, not all about it.
pub const MAX_PAYLOAD: usize = 512;
/// Octets of each pattern.
pub const MAX_PATTERN: usize = 255;
/// Octets that a pattern may come to: a node compiles those of others.
const MAX_COMPILED: usize = 64 * 1024;
/// Events that a node remembers, as in Consul.
pub const MAX_EVENTS: usize = 256;
/// The last events of a node that its peers can still get: what is fired faster than gossip spreads is lost.
pub const SLOTS: u8 = 16;
/// The greatest time of an event: no peer can bring the others' clocks to their end.
pub const MAX_TIME: u64 = 1 << 62;

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserEvent {
    /// Drawn at random when it is fired.
    pub id: Uuid,
    /// 1 to [`MAX_EVENT_NAME`] octets without control characters.
    pub name: String,
    /// At most [`MAX_PAYLOAD`] octets.
    pub payload: Vec<u8>,
    /// The nodes that it is for.
    pub to: Audience,
    /// A Lamport time: greater than that of every event that its node knew of when it was fired.
    pub time: u64,
}

/// Whom an event is for. Patterns are regular expressions that match anywhere; an empty one stands for everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audience {
    /// On the names of nodes.
    pub node: String,
    /// On the names of the services that a node announces.
    pub service: String,
    /// On the tags of such a service; only with [`service`](Self::service).
    pub tag: String,
}

/// What is wrong with an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserEventError {
    /// A name that is empty, too long, or has control characters.
    Name,
    /// A payload of more than [`MAX_PAYLOAD`] octets; holds how many.
    Payload(usize),
    /// A pattern that is too long or no regular expression; which one.
    Pattern(&'static str),
    /// A pattern on tags without one on services.
    TagAlone,
    /// A time beyond [`MAX_TIME`].
    Time,
}

impl UserEvent {
    /// Whether it is within all bounds.
    ///
    /// # Errors
    /// The first thing that is not.
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
            if pattern.len() > MAX_PATTERN || compile(pattern).is_none() {
                return Err(UserEventError::Pattern(what));
            }
        }
        if !self.tag.is_empty() && self.service.is_empty() { Err(UserEventError::TagAlone) } else { Ok(()) }
    }

    /// Whether this node, which announces that, is among them.
    pub fn includes(&self, node: &Label, announced: &Announcements) -> bool {
        let [by_node, by_service, by_tag] = [&self.node, &self.service, &self.tag].map(|pattern| compile(pattern));
        let fits = |pattern: &Option<Regex>, text: &str| pattern.as_ref().is_some_and(|pattern| pattern.is_match(text));
        if !fits(&by_node, node.as_str()) {
            return false;
        }
        self.service.is_empty()
            || announced.iter().any(|(key, known)| {
                fits(&by_service, key.service.as_str())
                    && (self.tag.is_empty() || known.instance.tags.iter().any(|tag| fits(&by_tag, tag)))
            })
    }
}

fn compile(pattern: &str) -> Option<Regex> {
    RegexBuilder::new(pattern).size_limit(MAX_COMPILED).build().ok()
}

impl fmt::Display for UserEventError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => write!(f, "an event's name has 1 to {MAX_EVENT_NAME} octets and no control characters"),
            Self::Payload(octets) => {
                write!(f, "an event's payload has at most {MAX_PAYLOAD} octets, this one has {octets}")
            }
            Self::Pattern(what) => {
                write!(
                    f,
                    "`{what}` is a regular expression of at most {MAX_PATTERN} octets that is not large when compiled"
                )
            }
            Self::TagAlone => f.write_str("`tag` goes with `service`: it is about the services' tags"),
            Self::Time => write!(f, "an event's time is at most {MAX_TIME}"),
        }
    }
}

impl std::error::Error for UserEventError {}

/// The last [`MAX_EVENTS`] events that were meant for this node, oldest first. Clones share structure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventLog(imbl::Vector<Arc<UserEvent>>);

impl EventLog {
    /// Adds the newest; the oldest makes room.
    pub fn push(&mut self, event: Arc<UserEvent>) {
        if self.0.len() >= MAX_EVENTS {
            self.0.pop_front();
        }
        self.0.push_back(event);
    }

    /// Oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<UserEvent>> {
        self.0.iter()
    }
}

/// Which events of one peer have been heard. Its times only grow, so the last ones are enough.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Up to this time everything counts as heard.
    floor: u64,
    recent: BTreeSet<u64>,
}

impl Heard {
    /// Whether an event of that time is news; from now on it is not.
    pub fn is_news(&mut self, time: u64) -> bool {
        if time <= self.floor || !self.recent.insert(time) {
            return false;
        }
        // A push may be ahead of gossip, but by no more than the peer keeps.
        while self.recent.len() > usize::from(SLOTS) {
            self.floor = self.recent.pop_first().unwrap_or(self.floor);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        announcement::{Announcement, InstanceState},
        name::label,
        service::{Instance, InstanceKey},
    };

    fn event(name: &str, payload: usize, [node, service, tag]: [&str; 3], time: u64) -> UserEvent {
        let to = Audience { node: node.to_owned(), service: service.to_owned(), tag: tag.to_owned() };
        UserEvent { id: Uuid::nil(), name: name.to_owned(), payload: vec![0; payload], to, time }
    }

    #[test]
    fn an_event_is_within_bounds() {
        let long = "x".repeat(256);
        let cases: &[(UserEvent, Option<UserEventError>)] = &[
            (event("deploy", 512, ["^web-[0-9]+$", "web", "v2"], MAX_TIME), None),
            (event("", 0, [""; 3], 1), Some(UserEventError::Name)),
            (event(&long[..129], 0, [""; 3], 1), Some(UserEventError::Name)),
            (event("a\nb", 0, [""; 3], 1), Some(UserEventError::Name)),
            (event("deploy", 513, [""; 3], 1), Some(UserEventError::Payload(513))),
            (event("deploy", 0, ["(", "", ""], 1), Some(UserEventError::Pattern("node"))),
            (event("deploy", 0, ["", &long, ""], 1), Some(UserEventError::Pattern("service"))),
            (event("deploy", 0, ["", "x", "((a{99}){99}){99}"], 1), Some(UserEventError::Pattern("tag"))),
            (event("deploy", 0, ["", "", "v2"], 1), Some(UserEventError::TagAlone)),
            (event("deploy", 0, [""; 3], MAX_TIME + 1), Some(UserEventError::Time)),
        ];
        for (event, expected) in cases {
            assert_eq!(event.check().err(), *expected, "{event:?}");
        }
    }

    #[test]
    fn patterns_choose_nodes_by_their_names_services_and_tags() {
        let instance = |service: &str, tags: &[&str]| {
            let key = InstanceKey { service: label(service), id: label("x") };
            let instance = Instance {
                tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
                ..Instance::new(key.clone(), vec![])
            };
            (key, Arc::new(Announcement::new(Arc::new(instance), InstanceState::Passing)))
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
            assert_eq!(to.includes(&label("host-a"), &announced), expected, "{patterns:?}");
        }
    }

    #[test]
    fn what_was_heard_is_no_news_again_however_it_comes() {
        let mut heard = Heard::default();
        // A push that was ahead of gossip, then gossip, then gossip from the start again.
        for (time, news) in [(3, true), (1, true), (2, true), (3, false), (1, false), (9, true)] {
            assert_eq!(heard.is_news(time), news, "{time}");
        }
        for time in 10..100 {
            assert!(heard.is_news(time) && !heard.is_news(time), "{time}");
        }
        assert!(!heard.is_news(4), "so old that its peer does not have it any more");
        assert!(heard.recent.len() <= usize::from(SLOTS));
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
