//! Connection quota: limits in total and per client, so that no client can lock out the others.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use thiserror::Error;

use crate::{dns::engine::TCP_IDLE, model::recursion_access::client_network};

/// Each client may have this fraction of all connections. A stub or resolver needs a handful; exhausting the quota takes
/// sixteen clients.
const SHARE_OF_ONE: usize = 16;
/// Idle timeout while three quarters of all connections are in use (RFC 7766 §6.2.3 permits a shorter one under load).
const IDLE_WHEN_BUSY: Duration = Duration::from_secs(2);

/// Open connections of all listeners.
pub struct ConnectionQuota {
    most: usize,
    most_of_one: usize,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    all: usize,
    of: HashMap<IpAddr, usize>,
}

/// Slot of a connection; released on drop.
pub(crate) struct ConnectionSlot {
    quota: Arc<ConnectionQuota>,
    client: Option<IpAddr>,
}

/// Limit that a new connection would exceed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum QuotaError {
    /// Limit of all connections.
    #[error("too many connections are open")]
    Total,
    /// Limit per client.
    #[error("too many connections of one client are open")]
    Client,
}

impl ConnectionQuota {
    /// Creates a quota of `most` connections.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, most_of_one: (most / SHARE_OF_ONE).max(1), open: Mutex::default() })
    }

    /// Takes a slot for a client. Loopback clients share an address: only the total limits them.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Result<ConnectionSlot, QuotaError> {
        let client = Some(client_network(address)).filter(|client| !client.is_loopback());
        let mut open = self.open();
        if open.all >= self.most {
            return Err(QuotaError::Total);
        }
        if let Some(client) = client {
            let of = open.of.entry(client).or_default();
            if *of >= self.most_of_one {
                return Err(QuotaError::Client);
            }
            *of += 1;
        }
        open.all += 1;
        Ok(ConnectionSlot { quota: self.clone(), client })
    }

    /// Returns the number of open connections.
    pub fn count(&self) -> usize {
        self.open().all
    }

    /// Returns the current idle timeout.
    pub(crate) fn idle_timeout(&self) -> Duration {
        if self.open().all >= self.most - self.most / 4 { IDLE_WHEN_BUSY } else { TCP_IDLE }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // No code under the lock can panic half-way.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut open = self.quota.open();
        open.all -= 1;
        if let Some(client) = self.client
            && let Some(of) = open.of.get_mut(&client)
        {
            *of -= 1;
            if *of == 0 {
                open.of.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_limited_per_client_and_in_total() {
        let quota = ConnectionQuota::new(64);
        let mut slots = vec![];
        let mut take = |address: &str, count: usize| -> Vec<Option<QuotaError>> {
            let address = address.parse().unwrap();
            let outcome = (0..count).map(|_| quota.admit(address));
            outcome.map(|slot| slot.map(|slot| slots.push(slot)).err()).collect()
        };
        let (ok, of_one, all) = (None, Some(QuotaError::Client), Some(QuotaError::Total));
        assert_eq!(take("192.0.2.1", 5), [ok, ok, ok, ok, of_one]);
        assert_eq!(take("192.0.2.2", 1), [ok], "another IPv4 address is another client");
        assert_eq!(take("2001:db8::1", 4), [ok; 4]);
        assert_eq!(take("2001:db8::ffff", 1), [of_one], "the same /64 is the same client");
        assert_eq!(take("2001:db8:0:1::1", 1), [ok]);
        assert_eq!(take("127.0.0.1", 55), [vec![ok; 54], vec![all]].concat(), "loopback clients get the rest");
        assert_eq!(take("192.0.2.3", 1), [all]);
        slots.clear();
        assert_eq!(quota.open().all, 0);
        assert!(quota.open().of.is_empty(), "clients without connections are removed");
    }

    #[test]
    fn idle_timeout_is_shorter_under_load() {
        let quota = ConnectionQuota::new(8);
        let admit = || quota.admit(IpAddr::from([127, 0, 0, 1])).ok();
        let mut slots: Vec<_> = (0..5).map(|_| admit()).collect();
        assert_eq!(quota.idle_timeout(), TCP_IDLE);
        slots.push(admit());
        assert_eq!(quota.idle_timeout(), IDLE_WHEN_BUSY);
    }
}
