//! Sessions and addresses of peers, and messages that wait for a session to become known.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::gossip::{crypto::Session, message::Identity};

/// Time that a message waits for its receiver's session.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Largest number of messages that wait for one address.
const WAITING: usize = 16;
/// Largest number of addresses that messages wait for. Excess messages are dropped; their senders retry.
const WAITING_FOR: usize = 1024;
/// Interval between hellos to one address.
pub(super) const HELLO_INTERVAL: Duration = Duration::from_millis(100);
/// Interval between introductions to one session, since the same hello may arrive repeatedly.
const INTRODUCTION_INTERVAL: Duration = Duration::from_millis(50);
/// Interval between keyrings to one session. Two nodes with different primary keys and rings of the same rotation send them
/// for as long as that lasts.
const KEYS_INTERVAL: Duration = Duration::from_secs(2);
/// Largest number of known sessions: eight for each node of the largest cluster.
const SESSIONS: usize = 4096;

/// Known sessions and pending messages. Holds authenticated data only, see the parent module.
#[derive(Debug, Default)]
pub(super) struct Directory {
    sessions: HashMap<Session, Identity>,
    addresses: HashMap<SocketAddr, Session>,
    waiting: HashMap<SocketAddr, Waiting>,
    /// Times of introductions within the last second.
    introduced: HashMap<Session, Instant>,
    /// Addresses that were greeted within the last second because of a frame with an unknown key.
    greeted: HashSet<SocketAddr>,
    /// Times at which the keyring was sent to sessions that encrypt with another key, within [`KEYS_INTERVAL`].
    keys_sent: HashMap<Session, Instant>,
}

#[derive(Debug)]
struct Waiting {
    since: Instant,
    /// Time of the last hello.
    asked: Option<Instant>,
    /// Number of hellos.
    hellos: usize,
    messages: Vec<Arc<[u8]>>,
}

impl Directory {
    /// Identity of a session's owner.
    pub(super) fn identity(&self, session: &Session) -> Option<&Identity> {
        self.sessions.get(session)
    }

    /// Session of the node at an address.
    pub(super) fn at(&self, address: &SocketAddr) -> Option<Session> {
        self.addresses.get(address).copied()
    }

    /// All known addresses with their sessions.
    pub(super) fn all(&self) -> Vec<(SocketAddr, Session)> {
        self.addresses.iter().map(|(address, session)| (*address, *session)).collect()
    }

    /// Records an authenticated session. Returns whether it is new.
    pub(super) fn learn(&mut self, session: Session, identity: &Identity) -> bool {
        if self.sessions.get(&session) == Some(identity) {
            return false;
        }
        if self.sessions.len() >= SESSIONS {
            // Beyond the size of any real cluster. Live nodes introduce themselves again.
            self.sessions.clear();
            self.addresses.clear();
        }
        if let Some(before) = self.addresses.insert(identity.address, session)
            && before != session
        {
            self.sessions.remove(&before);
        }
        self.sessions.insert(session, identity.clone());
        true
    }

    /// Queues a message until its receiver has introduced itself. Returns whether a hello is due.
    pub(super) fn enqueue(&mut self, to: SocketAddr, octets: Arc<[u8]>, now: Instant) -> bool {
        let full = self.waiting.len() >= WAITING_FOR;
        let waiting = match self.waiting.entry(to) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(_) if full => return false,
            Entry::Vacant(entry) => entry.insert(Waiting { since: now, asked: None, hellos: 1, messages: Vec::new() }),
        };
        if waiting.messages.len() < WAITING {
            waiting.messages.push(octets);
        }
        let due = waiting.asked.is_none_or(|at| now.duration_since(at) >= HELLO_INTERVAL);
        if due {
            waiting.asked = Some(now);
        }
        due
    }

    /// Reports whether messages wait for a session.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Addresses that are due for another hello, with the number of those before. Drops messages whose time is over.
    pub(super) fn unanswered(&mut self, now: Instant) -> Vec<(SocketAddr, usize)> {
        self.waiting.retain(|_, waiting| now.duration_since(waiting.since) < TIMEOUT);
        let due = |waiting: &Waiting| waiting.asked.is_none_or(|at| now.duration_since(at) >= HELLO_INTERVAL);
        let due = self.waiting.iter_mut().filter(|(_, waiting)| due(waiting));
        due.map(|(address, waiting)| {
            waiting.asked = Some(now);
            waiting.hellos += 1;
            (*address, waiting.hellos - 1)
        })
        .collect()
    }

    /// Takes the messages queued for an address.
    pub(super) fn dequeue(&mut self, at: &SocketAddr) -> Vec<Arc<[u8]>> {
        self.waiting.remove(at).map(|waiting| waiting.messages).unwrap_or_default()
    }

    /// Reports whether an introduction to this session is due, and records it.
    pub(super) fn may_introduce(&mut self, session: Session, now: Instant) -> bool {
        let due = self.introduced.get(&session).is_none_or(|at| now.duration_since(*at) >= INTRODUCTION_INTERVAL);
        if due {
            self.introduced.insert(session, now);
        }
        due
    }

    /// Reports whether a greeting of this address is due because of a frame with an unknown key, and records it. Only known
    /// addresses are greeted: an attacker can forge the source of a frame.
    pub(super) fn may_greet(&mut self, address: SocketAddr) -> bool {
        self.addresses.contains_key(&address) && self.greeted.insert(address)
    }

    /// Returns the address of a session's owner if the keyring is due to be sent to it, and records that.
    pub(super) fn may_send_keys(&mut self, session: Session, now: Instant) -> Option<SocketAddr> {
        let address = self.sessions.get(&session)?.address;
        let due = self.keys_sent.get(&session).is_none_or(|at| now.duration_since(*at) >= KEYS_INTERVAL);
        due.then(|| {
            self.keys_sent.insert(session, now);
            address
        })
    }

    /// Forgets recorded introductions. Called once a second.
    pub(super) fn tidy(&mut self, now: Instant) {
        self.introduced.clear();
        self.greeted.clear();
        self.keys_sent.retain(|_, at| now.duration_since(*at) < KEYS_INTERVAL);
    }
}
