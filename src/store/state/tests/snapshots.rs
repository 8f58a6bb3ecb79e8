//! Snapshots, whole and damaged.

use std::hash::Hasher;

use proptest::prelude::*;
use siphasher::sip::SipHasher13;

use super::*;
use crate::store::state::snapshot::SnapshotError;

/// A state that has some of everything.
fn rich() -> Scenario {
    let mut store = Scenario::new();
    store.grant(1, 60);
    store.grant(2, 60);
    let delay = Duration::from_secs(15);
    for (number, behavior) in [(1, Behavior::Release), (2, Behavior::Delete), (3, Behavior::Release)] {
        let node_checks = vec!["disk".to_owned()];
        let session = Session { behavior, lock_delay: delay, node_checks, ..session(number) };
        store.apply(Command::CreateSession(Box::new(session)));
        store.operate(lock(&format!("lock/{number}"), "held", number));
    }
    store.transact(requests(vec![put_with("leased", "1", PutLease::Attach(LeaseId(1)))]));
    for number in 0..5 {
        store.operate(set("counter", &number.to_string()));
        store.operate(set(&format!("gone/{number}"), "1"));
    }
    store.operate(Operation::DeletePrefix(value("gone/")));
    store.apply(Command::Compact(Revision(8)));
    store.apply(Command::RecordRemaining { id: LifetimeId::Session(session_id(3)), remaining: Duration::from_secs(4) });
    store.apply(Command::DestroySession(session_id(2)));
    store.operate(Operation::Delete(key("counter")));
    store.operate(set("counter", "again"));
    store.apply(Command::SetMaxOctets(AMPLE / 2));
    store
}

fn encode(state: &State) -> Vec<u8> {
    let mut octets = vec![];
    state.encode(&mut octets).unwrap();
    octets
}

fn decode(mut octets: &[u8]) -> Result<State, SnapshotError> {
    State::decode(&mut octets, AMPLE)
}

#[test]
fn snapshot_has_the_whole_state() {
    for store in [Scenario::new(), rich()] {
        let octets = encode(&store.state);
        let decoded = decode(&octets).unwrap();
        assert_eq!(decoded, store.state);
        assert_eq!(encode(&decoded), octets);
    }
}

#[test]
fn decoded_state_goes_on_like_the_original() {
    let mut original = rich();
    let mut copy = Scenario { state: decode(&encode(&original.state)).unwrap() };
    for command in [
        Command::DestroySession(session_id(1)),
        Command::GrantLease { id: LeaseId(3), ttl: 9 },
        Command::Expire(LifetimeId::Lease(LeaseId(1))),
        Command::Operate(vec![set("lock/3", "2"), Operation::Delete(key("counter"))]),
    ] {
        assert_eq!(original.state.apply(command.clone()), copy.state.apply(command));
    }
    assert_eq!(copy.state, original.state);
}

#[test]
fn decoded_history_shares_its_values() {
    let state = decode(&encode(&rich().state)).unwrap();
    let mut last = std::collections::BTreeMap::new();
    for change in state.changes(Revision(0)) {
        if let Some(Some(before)) = last.insert(change.key.clone(), change.entry.clone()) {
            assert!(Arc::ptr_eq(&before, change.previous.as_ref().unwrap()));
        }
    }
    for (key, entry) in last.into_iter().filter_map(|(key, entry)| Some((key, entry?))) {
        assert!(Arc::ptr_eq(&entry, &state.keys[&key]));
    }
}

#[test]
fn decoding_stops_at_the_end_of_the_snapshot() {
    let mut octets = encode(&rich().state);
    octets.extend(b"more");
    let mut rest = &octets[..];
    State::decode(&mut rest, AMPLE).unwrap();
    assert_eq!(rest, b"more");
}

#[test]
fn truncated_snapshot_is_refused() {
    let octets = encode(&rich().state);
    for len in 0..octets.len() {
        assert!(matches!(decode(&octets[..len]), Err(SnapshotError::Io(_))), "{len}");
    }
}

#[test]
fn changed_snapshot_is_refused() {
    let octets = encode(&rich().state);
    for at in 0..octets.len() {
        for bit in [1, 128] {
            let mut damaged = octets.clone();
            damaged[at] ^= bit;
            decode(&damaged).unwrap_err();
        }
    }
}

#[test]
fn other_files_and_formats_are_refused() {
    let mut octets = encode(&Scenario::new().state);
    assert!(matches!(decode(b"SQLite format 3\0"), Err(SnapshotError::NotSnapshot)));
    octets[8] = 9;
    assert!(matches!(decode(&octets), Err(SnapshotError::Format(9))));
    octets[8] = 1;
    octets[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(decode(&octets), Err(SnapshotError::TooLong(u32::MAX))));
}

/// Returns the snapshot with one record removed or repeated, and a digest that fits.
fn forged(octets: &[u8], at: usize, repeat: bool) -> Vec<u8> {
    let mut records = vec![];
    let mut rest = &octets[12..];
    while !rest.is_empty() {
        let len = 4 + u32::from_le_bytes(rest[..4].try_into().unwrap()) as usize;
        let (record, behind) = rest.split_at(len);
        records.push(record);
        rest = behind;
    }
    records.pop();
    let record = records.remove(at % records.len());
    if repeat {
        records.extend([record, record]);
    }
    let mut forged = octets[..12].to_vec();
    forged.extend(records.concat());
    let mut digest = SipHasher13::new();
    digest.write(&forged);
    let mut end = vec![9];
    end.extend(postcard::to_stdvec(&digest.finish()).unwrap());
    forged.extend((end.len() as u32).to_le_bytes());
    forged.extend(end);
    forged
}

#[test]
fn forged_snapshot_never_panics() {
    let octets = encode(&rich().state);
    let mut refused = 0;
    for at in 0..60 {
        for repeat in [false, true] {
            match decode(&forged(&octets, at, repeat)) {
                Ok(mut state) => {
                    let id = session_id(1);
                    state.apply(Command::DestroySession(id));
                    state.apply(Command::Operate(vec![Operation::DeletePrefix(value(""))]));
                }
                Err(error) => {
                    assert!(!matches!(error, SnapshotError::Digest | SnapshotError::Io(_)), "{error}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 20, "{refused}");
}

proptest! {
    #[test]
    fn random_octets_are_refused(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut snapshot = encode(&Scenario::new().state)[..12].to_vec();
        snapshot.extend(octets);
        prop_assert!(decode(&snapshot).is_err());
    }
}
