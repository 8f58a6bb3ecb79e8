//! State that a [`Cluster`](super::Cluster) shares with the transport of its chitchat.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Notify;

use super::{lag::Lag, offers::Offers};

/// Offers, known versions, requested exchanges and notifications.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) offers: Offers,
    pub(super) lag: Lag,
    /// Notified when chitchat has received changes or new runs.
    pub(super) news: Arc<Notify>,
    /// Addresses of requested exchanges that have not started yet.
    requested: Addresses,
    /// Addresses of nodes that may have more changes than fitted one message.
    more: Addresses,
}

#[derive(Default)]
struct Addresses(Mutex<BTreeSet<SocketAddr>>);

impl Addresses {
    fn with<T>(&self, change: impl FnOnce(&mut BTreeSet<SocketAddr>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Shared {
    /// Requests an exchange. Returns false if it is requested already.
    pub(super) fn request(&self, address: SocketAddr) -> bool {
        self.requested.with(|requested| requested.insert(address))
    }

    /// Takes the request of an exchange. Returns false if there is none.
    pub(super) fn take_requested(&self, address: SocketAddr) -> bool {
        self.requested.with(|requested| requested.remove(&address))
    }

    /// Records that a node may have more changes.
    pub(super) fn note_more(&self, address: SocketAddr) {
        self.more.with(|more| more.insert(address));
    }

    /// Takes the addresses of nodes that may have more changes.
    pub(super) fn take_more(&self) -> BTreeSet<SocketAddr> {
        self.more.with(std::mem::take)
    }
}
