//! SOA serials of peers: ceilings that their runs announced, kept for their next runs.
//!
//! Each node answers with serials of its own. A node that lost its data directory would start at its clock, possibly below what
//! its secondaries and caches have seen. So each node announces a bound that its serials do not exceed. Peers keep the latest
//! one by the name of the node, beyond the end of the run, and hand it to another run of that name when it introduces itself.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{Task, publish::freshness};
use crate::{
    gossip::message::{Identity, Message},
    model::{
        catalog::Freshness,
        member::PeerId,
        name::Label,
        zone_serial::{RESERVE, is_later},
    },
    record::Record,
};

/// Largest number of names, that of the largest cluster.
const MAX_NAMES: usize = 4096;

/// Shortest interval between announcements of the serial of the generated zones, so that frequent changes cost each node a few
/// messages a second.
pub(super) const SERIAL_INTERVAL: Duration = Duration::from_millis(200);

/// Ceilings of the serials of peers.
#[derive(Debug)]
pub(super) struct Ceilings {
    by_name: BTreeMap<Label, Ceiling>,
    /// Serial of this node at its start. Ceilings of former runs are later: otherwise several in turn, from a hostile peer,
    /// would lead around the numbers to an earlier serial.
    first: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ceiling {
    /// Run that announced it.
    generation: u64,
    serial: u32,
}

impl Ceilings {
    /// `own`: ceiling of this node at its start.
    pub(super) fn new(own: u32) -> Self {
        Self { by_name: BTreeMap::new(), first: own.wrapping_sub(RESERVE) }
    }

    /// Records a ceiling that a run announced.
    pub(super) fn note(&mut self, id: &PeerId, serial: u32) {
        let new = Ceiling { generation: id.generation, serial };
        let has_room = self.by_name.len() < MAX_NAMES;
        match self.by_name.get_mut(&id.name) {
            Some(known) if is_later(serial, known.serial) => *known = new,
            None if has_room => drop(self.by_name.insert(id.name.clone(), new)),
            Some(_) | None => {}
        }
    }

    /// Returns the latest ceiling of a name.
    pub(super) fn of(&self, name: &Label) -> Option<u32> {
        self.by_name.get(name).map(|known| known.serial)
    }

    /// Returns the latest ceiling of a name if another run than this one announced it.
    pub(super) fn of_former_run(&self, id: &PeerId) -> Option<u32> {
        self.by_name.get(&id.name).filter(|known| known.generation != id.generation).map(|known| known.serial)
    }
}

impl Task {
    /// Own ceiling as a record.
    pub(super) fn ceiling_record(&self) -> (String, String) {
        Record::Serial(*self.inputs.serial_ceiling.borrow()).encode()
    }

    /// Serial of the generated zones as a record, if this node serves transfers.
    pub(super) fn zone_serial_record(&self) -> Option<(String, String)> {
        self.inputs.zone_serial.borrow().map(|serial| Record::ZoneSerial(serial).encode())
    }

    /// Announces a new ceiling.
    pub(super) async fn publish_ceiling(&mut self) {
        let serial = *self.inputs.serial_ceiling.borrow_and_update();
        let (key, value) = Record::Serial(serial).encode();
        let published = self.cluster.publish(&[(key, Some(value))]).await;
        self.push(&published);
    }

    /// Announces the serial of the generated zones, or that this node no longer serves transfers.
    pub(super) async fn publish_zone_serial(&mut self) {
        let serial = *self.inputs.zone_serial.borrow_and_update();
        let (key, value) = Record::ZoneSerial(serial.unwrap_or_default()).encode();
        let published = self.cluster.publish(&[(key, serial.map(|_| value))]).await;
        self.push(&published);
    }

    /// Publishes the serial that a peer announces, as long as the peer is live.
    pub(super) fn note_zone_serial(&self, name: &Label) {
        let peer = self.peer_states.get(name).filter(|peer| freshness(peer.reach) == Some(Freshness::Live));
        let serial = peer.and_then(|peer| self.replicas.get(&peer.id)?.replica.zone_serial);
        if self.outputs.zone_serials.borrow().get(name).copied() != serial {
            self.outputs.zone_serials.send_modify(|known| match serial {
                Some(serial) => drop(Arc::make_mut(known).insert(name.clone(), serial)),
                None => drop(Arc::make_mut(known).remove(name)),
            });
        }
    }

    /// Hands the ceiling of a former run to a run that introduces itself, or that has announced a lower one.
    pub(super) fn hand_over_ceiling(&self, peer: &Identity) {
        if let Some(serial) = self.ceilings.of_former_run(&peer.id) {
            self.outbox.send([peer.address], &Message::Serial(serial));
        }
    }

    /// Records the ceiling that a peer has announced since the last call.
    pub(super) fn take_ceiling_of(&mut self, id: &PeerId) {
        let Some(serial) = self.replicas.get_mut(id).and_then(|known| known.replica.take_serial()) else { return };
        self.ceilings.note(id, serial);
        // The former run's is still the latest: the message at the introduction was lost, or is on its path.
        if let Some(peer) = self.peer_states.get(&id.name).filter(|peer| peer.id == *id) {
            self.hand_over_ceiling(&Identity { id: id.clone(), address: peer.address });
        }
    }

    /// Publishes the ceiling of a former run of this node that a peer knows.
    pub(super) fn take_former_ceiling(&self, serial: u32) {
        let first = self.ceilings.first;
        self.outputs.former_serial.send_if_modified(|known| {
            let is_new = is_new_ceiling(serial, *known, first);
            if is_new {
                *known = Some(serial);
            }
            is_new
        });
    }
}

/// Reports whether a ceiling of a former run is later than the `known` one, and than the `first` serial of this run.
fn is_new_ceiling(serial: u32, known: Option<u32>, first: u32) -> bool {
    is_later(serial, known.unwrap_or(first)) && is_later(serial, first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceilings_of_former_runs_never_lead_around_to_earlier_serials() {
        let first: u32 = 1_795_918_201;
        let half = 1 << 31;
        let cases = [
            (first, None, false),
            (first - 1, None, false),
            (first + 1, None, true),
            (first + half - 1, None, true),
            (first + half - 1, Some(first + 9), true),
            (first + 5, Some(first + 9), false),
            // Later than the known one, but earlier than the first one.
            (first.wrapping_add(half + 9), Some(first + half - 1), false),
            (first - 7, Some(first + half - 1), false),
        ];
        for (serial, known, expected) in cases {
            assert_eq!(is_new_ceiling(serial, known, first), expected, "{serial} {known:?}");
        }
    }

    #[test]
    fn latest_ceiling_of_a_name_is_kept_for_other_runs() {
        let run = |generation| PeerId { name: Label::parse("a").unwrap(), generation };
        let mut ceilings = Ceilings::new(RESERVE);
        assert_eq!((ceilings.of(&run(1).name), ceilings.of_former_run(&run(1))), (None, None));
        ceilings.note(&run(1), 70_000);
        ceilings.note(&run(1), 60_000);
        assert_eq!((ceilings.of(&run(1).name), ceilings.of_former_run(&run(1))), (Some(70_000), None));
        // A run that lost its data announces a lower one.
        ceilings.note(&run(2), 9);
        assert_eq!(ceilings.of_former_run(&run(2)), Some(70_000));
        ceilings.note(&run(2), 140_000);
        assert_eq!((ceilings.of_former_run(&run(2)), ceilings.of_former_run(&run(3))), (None, Some(140_000)));
        // Around the end of the numbers.
        ceilings.note(&run(3), 140_000 + (1 << 31) - 1);
        ceilings.note(&run(4), 5);
        assert_eq!(ceilings.of(&run(4).name), Some(5));
        for number in 0..MAX_NAMES + 9 {
            ceilings.note(&PeerId { name: Label::parse(&format!("n{number}")).unwrap(), generation: 1 }, 1);
        }
        assert_eq!(ceilings.by_name.len(), MAX_NAMES);
    }
}
