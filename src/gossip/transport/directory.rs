//! Who has which session, where each is reached, and what waits until that is known.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::gossip::{crypto::Session, message::Identity};

/// How long a message waits for its receiver's session.
const PATIENCE: Duration = Duration::from_secs(1);
/// Messages that wait for one address.
const WAITING: usize = 16;
/// Addresses that messages wait for. More are lost, and sent again by who keeps trying.
const WAITING_FOR: usize = 1024;
/// From one hello to an address to the next.
pub(super) const HELLO_AGAIN: Duration = Duration::from_millis(100);
/// From one introduction to a session to the next: the same hello may come over and over.
const INTRODUCE_AGAIN: Duration = Duration::from_millis(50);
/// Sessions that are remembered: eight for each node of the largest cluster.
const SESSIONS: usize = 4096;

/// What is known of others. Only what was proven gets in, see the module above.
#[derive(Debug, Default)]
pub(super) struct Directory {
    sessions: HashMap<Session, Identity>,
    addresses: HashMap<SocketAddr, Session>,
    waiting: HashMap<SocketAddr, Waiting>,
    /// When we told whom who we are; of the last second.
    introduced: HashMap<Session, Instant>,
}

#[derive(Debug)]
struct Waiting {
    since: Instant,
    /// When its receiver was last asked who it is.
    asked: Option<Instant>,
    messages: Vec<Arc<[u8]>>,
}

impl Directory {
    /// Whose session that is.
    pub(super) fn who(&self, session: &Session) -> Option<&Identity> {
        self.sessions.get(session)
    }

    /// Who gossips at that address.
    pub(super) fn at(&self, address: &SocketAddr) -> Option<Session> {
        self.addresses.get(address).copied()
    }

    /// Everybody, and where they are reached.
    pub(super) fn everybody(&self) -> Vec<(SocketAddr, Session)> {
        self.addresses.iter().map(|(address, session)| (*address, *session)).collect()
    }

    /// A proven session. Returns whether it is new.
    pub(super) fn learn(&mut self, session: Session, identity: &Identity) -> bool {
        if self.sessions.get(&session) == Some(identity) {
            return false;
        }
        if self.sessions.len() >= SESSIONS {
            // Not reached by any real cluster; who is still there introduces itself anew.
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

    /// Keeps a message until its receiver has introduced itself. Returns whether the receiver is to be asked who it is.
    pub(super) fn wait(&mut self, to: SocketAddr, octets: Arc<[u8]>, now: Instant) -> bool {
        let full = self.waiting.len() >= WAITING_FOR;
        let waiting = match self.waiting.entry(to) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(_) if full => return false,
            Entry::Vacant(entry) => entry.insert(Waiting { since: now, asked: None, messages: Vec::new() }),
        };
        if waiting.messages.len() < WAITING {
            waiting.messages.push(octets);
        }
        let due = waiting.asked.is_none_or(|at| now.duration_since(at) >= HELLO_AGAIN);
        if due {
            waiting.asked = Some(now);
        }
        due
    }

    /// Those that have not answered a hello yet, and are to be sent another. What has waited too long is forgotten.
    pub(super) fn unanswered(&mut self, now: Instant) -> Vec<SocketAddr> {
        self.waiting.retain(|_, waiting| now.duration_since(waiting.since) < PATIENCE);
        let due = |waiting: &Waiting| waiting.asked.is_none_or(|at| now.duration_since(at) >= HELLO_AGAIN);
        let due = self.waiting.iter_mut().filter(|(_, waiting)| due(waiting));
        due.map(|(address, waiting)| {
            waiting.asked = Some(now);
            *address
        })
        .collect()
    }

    /// What waited for whoever is at this address.
    pub(super) fn waited(&mut self, at: &SocketAddr) -> Vec<Arc<[u8]>> {
        self.waiting.remove(at).map(|waiting| waiting.messages).unwrap_or_default()
    }

    /// Whether to tell a session who we are, which it may have been told a moment ago.
    pub(super) fn may_introduce(&mut self, session: Session, now: Instant) -> bool {
        let due = self.introduced.get(&session).is_none_or(|at| now.duration_since(*at) >= INTRODUCE_AGAIN);
        if due {
            self.introduced.insert(session, now);
        }
        due
    }

    /// Once a second: forgets who was told who we are.
    pub(super) fn tidy(&mut self) {
        self.introduced.clear();
    }
}
