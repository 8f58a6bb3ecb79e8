//! Who has how many connections: bounded in all, and for each client, so that none can keep the others out.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::dns::engine::TCP_IDLE;

/// The part of all connections that one client may have. A stub or a resolver needs a handful; of those that want more,
/// it takes sixteen to use up all.
const SHARE_OF_ONE: usize = 16;
/// A client of IPv6 is a network of this length: every host of one can have any address in it (RFC 4291 §2.5.4).
const IPV6_PREFIX: u32 = 64;
/// How long a connection may idle while three quarters of all places are taken (RFC 7766 §6.2.3: a server may be less
/// patient under load).
const IDLE_WHEN_BUSY: Duration = Duration::from_secs(2);

/// The connections of all listeners.
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

/// A connection's place; it is free again when this goes.
pub(crate) struct ConnectionSlot {
    clients: Arc<ConnectionQuota>,
    client: Option<IpAddr>,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// All places are taken.
    All,
    /// This client has as many as one may have.
    Client,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "as many TCP connections are open as may be",
            Self::Client => "a client has as many TCP connections as one may have",
        })
    }
}

impl ConnectionQuota {
    /// So many places.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, most_of_one: (most / SHARE_OF_ONE).max(1), open: Mutex::default() })
    }

    /// Takes a place for a client. Those of this host share an address: they are bounded together, by the whole.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Result<ConnectionSlot, Full> {
        let client = (!address.is_loopback()).then(|| network(address));
        let mut open = self.open();
        if open.all >= self.most {
            return Err(Full::All);
        }
        if let Some(client) = client {
            let of = open.of.entry(client).or_default();
            if *of >= self.most_of_one {
                return Err(Full::Client);
            }
            *of += 1;
        }
        open.all += 1;
        Ok(ConnectionSlot { clients: self.clone(), client })
    }

    /// How many connections are open.
    pub fn count(&self) -> usize {
        self.open().all
    }

    /// How long a connection may wait for its next query.
    pub(crate) fn patience(&self) -> Duration {
        if self.open().all >= self.most - self.most / 4 { IDLE_WHEN_BUSY } else { TCP_IDLE }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // Nothing that is done under it can stop half-way.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut open = self.clients.open();
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

fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << (128 - IPV6_PREFIX))).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_its_share_and_all_have_the_whole() {
        let clients = ConnectionQuota::new(64);
        let mut places = vec![];
        let mut take = |address: &str, count: usize| -> Vec<Option<Full>> {
            let address = address.parse().unwrap();
            let outcome = (0..count).map(|_| clients.admit(address));
            outcome.map(|place| place.map(|place| places.push(place)).err()).collect()
        };
        let (ok, of_one, all) = (None, Some(Full::Client), Some(Full::All));
        assert_eq!(take("192.0.2.1", 5), [ok, ok, ok, ok, of_one]);
        assert_eq!(take("192.0.2.2", 1), [ok], "its neighbour is another");
        assert_eq!(take("2001:db8::1", 4), [ok; 4]);
        assert_eq!(take("2001:db8::ffff", 1), [of_one], "of the same 64 bits");
        assert_eq!(take("2001:db8:0:1::1", 1), [ok]);
        assert_eq!(take("127.0.0.1", 55), [vec![ok; 54], vec![all]].concat(), "those of this host have what is left");
        assert_eq!(take("192.0.2.3", 1), [all]);
        places.clear();
        assert_eq!(clients.open().all, 0);
        assert!(clients.open().of.is_empty(), "who has none is forgotten");
    }

    #[test]
    fn patience_wears_thin_as_places_do() {
        let clients = ConnectionQuota::new(8);
        let admit = || clients.admit(IpAddr::from([127, 0, 0, 1])).ok();
        let mut places: Vec<_> = (0..5).map(|_| admit()).collect();
        assert_eq!(clients.patience(), TCP_IDLE);
        places.push(admit());
        assert_eq!(clients.patience(), IDLE_WHEN_BUSY);
    }
}
