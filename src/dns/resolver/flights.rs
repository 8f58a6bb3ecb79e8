//! Questions that wait for upstreams, and their fair share of the capacity.
//!
//! Every waiting question takes a place. Equal questions share a flight: one query to the upstreams. If all places of a client
//! or all places are taken, a new question replaces the oldest one of that client, or of the client with the most places.
//! A flood therefore replaces its own questions, and the newest question is always asked.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use crate::{metrics::FullShare, model::recursion_access::client_network};

/// Fraction of the places that only clients on this host may take.
const LOOPBACK_RESERVE: usize = 4;
/// Fraction of the places that one other client may take. A resolver that forwards here for a network needs many.
const SHARE_OF_ONE: usize = 4;

/// Flight of one question.
pub(super) type FlightId = u64;

/// Flights and the places in them. `W` is the end of a waiting client, `T` the task of a flight: it ends when it is dropped.
pub(super) struct Flights<W, T> {
    /// Number of places.
    most: usize,
    next: u64,
    flights: HashMap<FlightId, Flight<T>>,
    /// Flights of questions that clients share, by their keys.
    shared: HashMap<Arc<[u8]>, FlightId>,
    /// Places of each client by number, so the oldest is first. No client is without a place.
    clients: HashMap<IpAddr, BTreeMap<u64, Place<W>>>,
    /// Places of clients on this host.
    loopback: usize,
    /// Places of all other clients.
    remote: usize,
}

struct Flight<T> {
    key: Option<Arc<[u8]>>,
    _task: T,
    /// Client and number of each place; at least one.
    places: Vec<(IpAddr, u64)>,
}

struct Place<W> {
    flight: FlightId,
    waiting: W,
}

impl<W, T> Flights<W, T> {
    /// Returns flights with this number of places.
    pub(super) fn new(most: usize) -> Self {
        let (flights, shared, clients) = Default::default();
        Self { most, next: 0, flights, shared, clients, loopback: 0, remote: 0 }
    }

    /// Returns the number of places taken.
    pub(super) fn len(&self) -> usize {
        self.loopback + self.remote
    }

    /// Takes a place for a client's question, in the flight of the same `key` if there is one. `start` starts the task of a new
    /// flight. Returns the share that was full, if the place was that of an older question; its `W` is dropped.
    pub(super) fn join(
        &mut self,
        client: IpAddr,
        key: Option<&[u8]>,
        waiting: W,
        start: impl FnOnce(FlightId) -> T,
    ) -> Option<FullShare> {
        let client = client_network(client);
        let full = self.make_room(client);
        let number = self.next;
        self.next += 1;
        let flight = match key.and_then(|key| self.shared.get(key)) {
            Some(flight) => *flight,
            None => {
                let key: Option<Arc<[u8]>> = key.map(Into::into);
                self.shared.extend(key.clone().map(|key| (key, number)));
                self.flights.insert(number, Flight { key, _task: start(number), places: Vec::new() });
                number
            }
        };
        self.flights.entry(flight).and_modify(|flight| flight.places.push((client, number)));
        self.clients.entry(client).or_default().insert(number, Place { flight, waiting });
        *self.count(client) += 1;
        full
    }

    /// Ends a flight and returns the clients that wait for it; none if it has ended before.
    pub(super) fn finish(&mut self, flight: FlightId) -> Vec<W> {
        let Some(Flight { key, places, .. }) = self.flights.remove(&flight) else { return Vec::new() };
        key.map(|key| self.shared.remove(&key));
        places
            .into_iter()
            .filter_map(|(client, number)| self.leave(client, number))
            .map(|place| place.waiting)
            .collect()
    }

    /// Ends all flights.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.most);
    }

    /// Makes room for a place of this client. Returns the full share if a question lost its place.
    fn make_room(&mut self, client: IpAddr) -> Option<FullShare> {
        let is_local = client.is_loopback();
        let own = self.clients.get(&client).map_or(0, BTreeMap::len);
        let (full, loser) = if !is_local && own >= (self.most / SHARE_OF_ONE).max(1) {
            (FullShare::Client, Some(client))
        } else if !is_local && self.remote >= (self.most - self.most / LOOPBACK_RESERVE).max(1) {
            (FullShare::All, self.heaviest(|client| !client.is_loopback()))
        } else if self.len() >= self.most {
            (FullShare::All, self.heaviest(|_| true))
        } else {
            return None;
        };
        let loser = loser?;
        let number = *self.clients.get(&loser)?.first_key_value()?.0;
        let place = self.leave(loser, number)?;
        if let Some(flight) = self.flights.get_mut(&place.flight) {
            flight.places.retain(|(_, other)| *other != number);
            if flight.places.is_empty() {
                self.finish(place.flight);
            }
        }
        Some(full)
    }

    /// Returns the client with the most places; of several, the one with the oldest place.
    fn heaviest(&self, among: impl Fn(&IpAddr) -> bool) -> Option<IpAddr> {
        let clients = self.clients.iter().filter(|(client, _)| among(client));
        let heaviest = clients.max_by_key(|(_, places)| (places.len(), places.keys().next().map(Reverse)));
        heaviest.map(|(client, _)| *client)
    }

    /// Removes a place from its client.
    fn leave(&mut self, client: IpAddr, number: u64) -> Option<Place<W>> {
        let places = self.clients.get_mut(&client)?;
        let place = places.remove(&number)?;
        if places.is_empty() {
            self.clients.remove(&client);
        }
        *self.count(client) -= 1;
        Some(place)
    }

    fn count(&mut self, client: IpAddr) -> &mut usize {
        if client.is_loopback() { &mut self.loopback } else { &mut self.remote }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, rc::Rc};

    use super::*;

    /// A waiting question or a task; records its name when it is dropped.
    struct Named(String, Rc<RefCell<Vec<String>>>);

    impl Drop for Named {
        fn drop(&mut self) {
            self.1.borrow_mut().push(self.0.clone());
        }
    }

    struct Fixture {
        flights: Flights<Named, Named>,
        dropped: Rc<RefCell<Vec<String>>>,
    }

    impl Fixture {
        fn new(most: usize) -> Self {
            Self { flights: Flights::new(most), dropped: Rc::default() }
        }

        /// Asks for a name; returns the full share, and what ended.
        fn ask(&mut self, client: &str, name: &str) -> (Option<FullShare>, Vec<String>) {
            let dropped = &self.dropped;
            let waiting = Named(format!("{client} {name}"), dropped.clone());
            let task = |_| Named(format!("task {name}"), dropped.clone());
            let full = self.flights.join(client.parse().unwrap(), Some(name.as_bytes()), waiting, task);
            (full, dropped.take())
        }

        fn ask_many(&mut self, client: &str, count: usize) {
            for at in 0..count {
                self.ask(client, &format!("{client}-{at}"));
            }
        }

        fn count(&self, client: &str) -> usize {
            let client = client_network(client.parse().unwrap());
            self.flights.clients.get(&client).map_or(0, BTreeMap::len)
        }
    }

    #[test]
    fn client_replaces_its_own_oldest_question() {
        let mut fixture = Fixture::new(16);
        for name in ["a", "b", "c", "d"] {
            assert_eq!(fixture.ask("10.0.0.1", name), (None, vec![]));
        }
        let ended = vec!["task a".to_owned(), "10.0.0.1 a".to_owned()];
        assert_eq!(fixture.ask("10.0.0.1", "e"), (Some(FullShare::Client), ended));
        assert_eq!(fixture.ask("10.0.0.2", "f"), (None, vec![]), "others have room");
        assert_eq!((fixture.count("10.0.0.1"), fixture.flights.len()), (4, 5));
    }

    #[test]
    fn heaviest_client_makes_room_for_others() {
        let mut fixture = Fixture::new(16);
        fixture.ask_many("10.0.0.1", 4);
        fixture.ask_many("10.0.0.2", 4);
        fixture.ask_many("10.0.0.3", 3);
        fixture.ask_many("10.0.0.4", 1);
        let (full, ended) = fixture.ask("10.0.0.5", "new");
        assert_eq!((full, &*ended[1]), (Some(FullShare::All), "10.0.0.1 10.0.0.1-0"), "the oldest of the heaviest two");
        let (full, ended) = fixture.ask("10.0.0.6", "new");
        assert_eq!((full, &*ended[1]), (Some(FullShare::All), "10.0.0.2 10.0.0.2-0"));
        assert_eq!(fixture.count("10.0.0.4"), 1);
    }

    #[test]
    fn reserve_is_for_clients_on_this_host() {
        let mut fixture = Fixture::new(16);
        for host in 0..100 {
            fixture.ask(&format!("10.0.0.{host}"), &host.to_string());
        }
        assert_eq!(fixture.flights.len(), 12);
        for name in ["a", "b", "c", "d"] {
            assert_eq!(fixture.ask("127.0.0.1", name).0, None);
        }
        assert_eq!(fixture.ask("127.0.0.1", "e").0, Some(FullShare::All));
        assert_eq!(fixture.count("127.0.0.1"), 4, "now the heaviest, it replaced its own");
        let mut fixture = Fixture::new(16);
        fixture.ask_many("127.0.0.1", 16);
        assert_eq!(fixture.count("127.0.0.1"), 16, "this host may take all places");
        fixture.ask("10.0.0.1", "a");
        assert_eq!((fixture.count("127.0.0.1"), fixture.count("10.0.0.1")), (15, 1));
    }

    #[test]
    fn equal_questions_share_a_flight_until_the_last_client_leaves() {
        let mut fixture = Fixture::new(16);
        fixture.ask("10.0.0.1", "same");
        assert_eq!(fixture.ask("10.0.0.2", "same"), (None, vec![]), "no second task");
        for name in ["a", "b", "c"] {
            fixture.ask("10.0.0.1", name);
        }
        let (_, ended) = fixture.ask("10.0.0.1", "d");
        assert_eq!(ended, ["10.0.0.1 same"], "the flight goes on for the other client");
        let waiting: Vec<String> = fixture.flights.finish(0).iter().map(|named| named.0.clone()).collect();
        assert_eq!(waiting, ["10.0.0.2 same"]);
        assert!(fixture.flights.finish(0).is_empty(), "a flight ends once");
        fixture.dropped.take();
        assert_eq!(fixture.ask("10.0.0.3", "same").0, None);
        assert_eq!((fixture.flights.len(), fixture.flights.flights.len()), (5, 5), "a new flight");
    }

    #[test]
    fn questions_without_a_key_are_not_shared() {
        let mut flights: Flights<u8, ()> = Flights::new(16);
        let client = "10.0.0.1".parse().unwrap();
        for waiting in [1, 2] {
            flights.join(client, None, waiting, |_| ());
        }
        assert_eq!((flights.finish(0), flights.finish(1)), (vec![1], vec![2]));
        assert!(flights.clients.is_empty() && flights.len() == 0);
    }

    #[test]
    fn ipv6_network_is_one_client() {
        let mut fixture = Fixture::new(16);
        for host in 0..10 {
            fixture.ask(&format!("2001:db8::{host:x}"), &host.to_string());
        }
        assert_eq!(fixture.count("2001:db8::ffff"), 4);
        fixture.ask("::ffff:10.0.0.1", "mapped");
        assert_eq!(fixture.count("10.0.0.1"), 1);
    }

    #[test]
    fn smallest_capacity_still_asks_the_newest_question() {
        let mut fixture = Fixture::new(1);
        for client in ["10.0.0.1", "127.0.0.1", "10.0.0.2"] {
            fixture.ask(client, client);
            assert_eq!((fixture.flights.len(), fixture.count(client)), (1, 1), "{client}");
        }
    }
}
