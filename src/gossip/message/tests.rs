//! Encoding, rejection and round trips of messages.

use std::{net::IpAddr, time::Duration};

use proptest::{collection, option, prelude::*};

use super::{codec::sendable, *};
use crate::{
    model::{keyring::MAX_KEYS, member::MAX_GENERATION},
    record::{MAX_KEY, MAX_VALUE},
};

fn encoded(message: &Message<'_>) -> Vec<u8> {
    let mut out = vec![];
    message.encode(&mut out).unwrap();
    out
}

fn peer() -> PeerId {
    PeerId { name: Label::parse("host-a").unwrap(), generation: 0x0102 }
}

fn identity(address: &str) -> Identity {
    Identity { id: peer(), address: address.parse().unwrap() }
}

fn ring(keys: &[u8]) -> Keyring {
    let mut keys = keys.iter().map(|number| Key::from_random([*number; 32]));
    let mut ring = Keyring::new(keys.next().unwrap());
    for key in keys {
        ring.install(key).unwrap();
    }
    ring
}

fn change<'a>(key: &'a str, version: u64, value: Option<&'a str>) -> Change<'a> {
    Change { key, version, value }
}

/// One message of each kind, with the octets after its first.
fn examples() -> Vec<(u8, Message<'static>, Vec<u8>)> {
    const HOST: &[u8] = b"\x06host-a\0\0\0\0\0\0\x01\x02";
    const HERE: &[u8] = b"\x04\x0a\0\0\x07\x1f\x0a";
    let here = || identity("10.0.0.7:7946");
    let id = |number| KeyId([number; 4]);
    let number = |last: u8| [0, 0, 0, 0, 0, 0, 0, last];
    let push = Push { generation: 9, changes: vec![change("k", 1, Some("vw")), change("", 3, None)] };
    let outcome = |outcome| Message::KeyringDone { sequence: 5, outcome };
    let keyring = |change| Message::Keyring { sequence: 5, change };
    vec![
        (1, Message::Hello(here()), [HOST, HERE].concat()),
        (2, Message::Welcome(identity("[::1]:1")), [HOST, b"\x06", &[0; 15], b"\x01\0\x01"].concat()),
        (3, Message::Gossip(b"any"), b"any".into()),
        (3, Message::Gossip(b""), vec![]),
        (
            4,
            Message::Push(push),
            [&number(9)[..], b"\0\x02\0\x01k", &number(1), b"\x01\0\x02vw\0\0", &number(3), b"\0"].concat(),
        ),
        (5, Message::Ping { sequence: 7, state: 9 }, [number(7), number(9)].concat()),
        (6, Message::Ack { sequence: 7, state: 9 }, [number(7), number(9)].concat()),
        (7, Message::IndirectProbe { sequence: 7, target: peer() }, [&number(7)[..], HOST].concat()),
        (
            8,
            Message::IndirectResult { sequence: 7, target: peer(), result: IndirectProbeResult::TcpOnly },
            [&number(7)[..], HOST, b"\x02"].concat(),
        ),
        (9, Message::Dead { peer: peer(), cause: Cause::Silent }, [HOST, b"\x03"].concat()),
        (10, Message::Conflict { holder: here() }, [HOST, HERE].concat()),
        (13, Message::Outdated { known: here().id }, HOST.to_vec()),
        (
            14,
            Message::Claim(Claim { known_for: Duration::from_millis(4), uptime: Duration::from_millis(5) }),
            [&number(4)[..], &number(5)].concat(),
        ),
        (15, Message::Pause, vec![]),
        (11, keyring(KeyringChange::List), [&number(5)[..], b"\x04"].concat()),
        (
            11,
            keyring(KeyringChange::Use { key: id(6), rotation: 4 }),
            [&number(5)[..], b"\x05\x06\x06\x06\x06", &number(4)].concat(),
        ),
        (11, keyring(KeyringChange::Remove(id(6))), [&number(5)[..], b"\x03\x06\x06\x06\x06"].concat()),
        (11, keyring(KeyringChange::Install(Key::from_random([3; 32]))), [&number(5)[..], b"\x01", &[3; 32]].concat()),
        (12, outcome(KeyringOutcome::Refused("no")), [&number(5)[..], b"\x02\0\x02no"].concat()),
        (
            12,
            outcome(KeyringOutcome::Ring(RingState {
                rotation: 4,
                keys: vec![id(1), id(2)],
                unreachable: vec![peer().name],
            })),
            [&number(5)[..], b"\x03", &number(4), b"\x02\x01\x01\x01\x01\x02\x02\x02\x02\x01\x06host-a"].concat(),
        ),
        (17, Message::Serial(0x0102_0304), vec![1, 2, 3, 4]),
        (24, Message::BulkRequest { transfer: 7, known: b"any" }, [&number(7)[..], b"\0\x03any"].concat()),
        (
            25,
            Message::BulkPart { transfer: 7, part: 9, last: true, content: b"any" },
            [&number(7)[..], b"\0\0\0\x09\x01\0\x03any"].concat(),
        ),
        (26, Message::BulkBusy { transfer: 7 }, number(7).into()),
        (16, Message::Keys(ring(&[3, 4]).as_of(7)), [&number(7)[..], b"\x02", &[3; 32], &[4; 32]].concat()),
    ]
}

#[test]
fn encoding_is_stable() {
    for (kind, message, octets) in examples() {
        let octets = [&[kind][..], &octets].concat();
        assert_eq!(encoded(&message), octets, "{message:?}");
        assert_eq!(Message::decode(&octets), Ok(message));
    }
}

#[test]
fn truncated_and_overlong_messages_are_refused() {
    for (_, message, _) in examples().into_iter().filter(|(kind, ..)| *kind != 3) {
        let octets = encoded(&message);
        for len in 0..octets.len() {
            assert_eq!(Message::decode(&octets[..len]), Err(MessageError::Cut), "{message:?}, {len} octets");
        }
        let more = [&octets[..], b"!!"].concat();
        assert_eq!(Message::decode(&more), Err(MessageError::Trailing(2)), "{message:?}");
    }
}

#[test]
fn malformed_fields_are_reported() {
    let number = [0; 8];
    let push = |changes: &[u8]| [&[4][..], &number, changes].concat();
    let choice = |what, octet| MessageError::Choice { what, octet };
    let long = |what, len, most| MessageError::TooLong { what, len, most };
    let hello = |rest: &[u8]| [b"\x01\x01a", &number[..], rest].concat();
    let address = |text: &str| MessageError::Address(text.parse().unwrap());
    let cases = [
        (vec![0], MessageError::Kind(0)),
        (vec![18, 1, 2], MessageError::Kind(18)),
        (vec![255], MessageError::Kind(255)),
        (b"\x01\x00".into(), MessageError::Name(LabelError::Empty)),
        (b"\x01\x03a.b".into(), MessageError::Name(LabelError::Character('.'))),
        (b"\x01\x02\xff\xfe".into(), MessageError::Text),
        (b"\x01\x40".into(), long("name", 64, 63)),
        ([b"\x01\x01a", &[0xff; 8][..]].concat(), MessageError::Generation(u64::MAX)),
        (hello(b"\x05"), choice("address family", 5)),
        (hello(b"\x04\x0a\0\0\x01\0\0"), address("10.0.0.1:0")),
        (hello(b"\x04\0\0\0\0\0\x01"), address("0.0.0.0:1")),
        (hello(b"\x04\xe0\0\0\x01\0\x01"), address("224.0.0.1:1")),
        (hello(b"\x04\xff\xff\xff\xff\0\x01"), address("255.255.255.255:1")),
        (push(b"\x04\x01"), long("push", 1025, MAX_CHANGES)),
        (push(b"\x04\x00"), MessageError::Cut),
        (push(&[b"\0\x01\x04\x01", &[b'k'; 1100][..]].concat()), long("key", 1025, MAX_KEY)),
        (push(&[b"\0\x01\0\x00", &number[..], b"\x01\x20\x01"].concat()), long("value", 8193, MAX_VALUE)),
        (push(&[b"\0\x01\0\x00", &number[..], b"\x02"].concat()), choice("boolean", 2)),
        (push(&[b"\0\x02", &[0; 22][..]].concat()), MessageError::Order),
        ([&[8][..], &number, b"\x01a", &number, &[7]].concat(), choice("probe result", 7)),
        ([b"\x09\x01a", &number[..], b"\0"].concat(), choice("cause", 0)),
        ([&[11][..], &number, &[2]].concat(), choice("keyring change", 2)),
        ([&[12][..], &number, &[1]].concat(), choice("keyring outcome", 1)),
        ([&[12][..], &number, &[3], &number, &[9]].concat(), long("keyring", 9, MAX_KEYS)),
        ([&[12][..], &number, &[3], &number, &[0, 17]].concat(), long("list of members", 17, MAX_UNREACHABLE)),
        ([&[16][..], &number, &[0]].concat(), MessageError::Keys),
        ([&[16][..], &number, &[9]].concat(), long("keyring", 9, MAX_KEYS)),
        ([&[16][..], &number, &[2], &[7; 64]].concat(), MessageError::Keys),
        ([&[12][..], &number, b"\x02\0\x79"].concat(), long("reason", 121, MAX_REASON_LEN)),
        ([&[12][..], &number, b"\x02\0\x01\x1b"].concat(), MessageError::Text),
        ([&[24][..], &number, b"\xff\xff"].concat(), long("part of the state", 65_535, MAX_GOSSIP)),
        ([&[25][..], &number, &[0, 0, 0, 1, 2]].concat(), choice("boolean", 2)),
        ([&[3][..], &[0; MAX_GOSSIP + 1]].concat(), long("chitchat message", MAX_GOSSIP + 1, MAX_GOSSIP)),
    ];
    for (octets, expected) in cases {
        let error = Message::decode(&octets).unwrap_err();
        assert_eq!(error, expected, "{octets:.40?}");
        assert!(error.to_string().split(' ').count() > 4, "{error}");
    }
}

#[test]
fn encode_refuses_messages_that_decode_would() {
    let (key, value, reason) = ("k".repeat(MAX_KEY + 1), "v".repeat(MAX_VALUE + 1), "r".repeat(MAX_REASON_LEN + 1));
    let push = |changes| Message::Push(Push { generation: 1, changes });
    let done = |outcome| Message::KeyringDone { sequence: 1, outcome };
    let cases = [
        Message::Hello(identity("0.0.0.0:7946")),
        Message::Welcome(identity("[::]:7946")),
        Message::Conflict { holder: identity("10.0.0.1:0") },
        Message::Gossip(&[0; MAX_GOSSIP + 1]),
        Message::BulkRequest { transfer: 1, known: &[0; MAX_GOSSIP + 1] },
        Message::BulkPart { transfer: 1, part: 0, last: false, content: &[0; MAX_GOSSIP + 1] },
        push(vec![change(&key, 1, None)]),
        push(vec![change("k", 1, Some(&value))]),
        push(vec![change("k", 2, None), change("k", 2, None)]),
        push((0..=MAX_CHANGES as u64).map(|version| change("", version, None)).collect()),
        done(KeyringOutcome::Ring(RingState { keys: vec![KeyId([0; 4]); MAX_KEYS + 1], ..RingState::default() })),
        done(KeyringOutcome::Ring(RingState {
            unreachable: vec![peer().name; MAX_UNREACHABLE + 1],
            ..RingState::default()
        })),
        done(KeyringOutcome::Refused(&reason)),
        done(KeyringOutcome::Refused("two\nlines")),
    ];
    for message in cases {
        let mut out = b"before".to_vec();
        assert!(message.encode(&mut out).is_err(), "{message:.80?}");
        assert_eq!(out, b"before");
    }
}

#[test]
fn push_length_is_sum_of_encoded_len() {
    for value in [None, Some(""), Some("value")] {
        let changes = vec![change("key", 1, value), change("", 2, value)];
        let told: usize = changes.iter().map(Change::encoded_len).sum();
        let push = Message::Push(Push { generation: 1, changes });
        assert_eq!(encoded(&push).len(), Push::EMPTY_LEN + told, "{value:?}");
    }
}

#[test]
fn debug_output_hides_keys() {
    let message = Message::Keyring { sequence: 1, change: KeyringChange::Install(Key::from_random([77; 32])) };
    assert!(!format!("{message:?}").contains("77, 77"));
    assert!(!format!("{:?}", Message::Keys(ring(&[77]))).contains("77, 77"));
}

// --- Random messages -------------------------------------------------------------------------------------------------

/// Owned form of a message.
#[derive(Clone, Debug)]
enum Any {
    Short(Message<'static>),
    Gossip(Vec<u8>),
    Push(u64, Vec<(String, u64, Option<String>)>),
    Refused(u64, String),
}

fn any_identity() -> impl Strategy<Value = Identity> {
    ("[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", 0..=MAX_GENERATION, any::<(IpAddr, u16)>())
        .prop_map(|(name, generation, (ip, port))| {
            let id = PeerId { name: Label::parse(&name).unwrap(), generation };
            Identity { id, address: SocketAddr::new(ip, port) }
        })
        .prop_filter("not a destination", |identity| sendable(identity.address).is_ok())
}

fn any_cause() -> impl Strategy<Value = Cause> {
    use Cause::{Expired, Left, NotReturned, Refused, Silent, Unreachable, Unresponsive};
    prop::sample::select(&[Left, Refused, Silent, Unresponsive, Unreachable, Expired, NotReturned][..])
}

fn any_result() -> impl Strategy<Value = IndirectProbeResult> {
    prop::sample::select(
        &[IndirectProbeResult::Acked, IndirectProbeResult::TcpOnly, IndirectProbeResult::Unreachable][..],
    )
}

fn any_keyring_change() -> impl Strategy<Value = KeyringChange> {
    prop_oneof![
        any::<[u8; 32]>().prop_map(|octets| KeyringChange::Install(Key::from_random(octets))),
        any::<([u8; 4], u64)>().prop_map(|(id, rotation)| KeyringChange::Use { key: KeyId(id), rotation }),
        any::<[u8; 4]>().prop_map(|id| KeyringChange::Remove(KeyId(id))),
        Just(KeyringChange::List),
    ]
}

fn any_ring_state() -> impl Strategy<Value = RingState> {
    let keys = collection::vec(any::<[u8; 4]>().prop_map(KeyId), 0..=MAX_KEYS);
    let unreachable = collection::vec(any_identity().prop_map(|identity| identity.id.name), 0..=MAX_UNREACHABLE);
    (any::<u64>(), keys, unreachable).prop_map(|(rotation, keys, unreachable)| RingState {
        rotation,
        keys,
        unreachable,
    })
}

fn any_message() -> impl Strategy<Value = Any> {
    let number = any::<u64>();
    let short = prop_oneof![
        any_identity().prop_map(Message::Hello),
        any_identity().prop_map(Message::Welcome),
        (number, number).prop_map(|(sequence, state)| Message::Ping { sequence, state }),
        (number, number).prop_map(|(sequence, state)| Message::Ack { sequence, state }),
        (number, any_identity()).prop_map(|(sequence, target)| Message::IndirectProbe { sequence, target: target.id }),
        (number, any_identity(), any_result()).prop_map(|(sequence, target, result)| Message::IndirectResult {
            sequence,
            target: target.id,
            result
        }),
        (any_identity(), any_cause()).prop_map(|(peer, cause)| Message::Dead { peer: peer.id, cause }),
        any_identity().prop_map(|holder| Message::Conflict { holder }),
        any_identity().prop_map(|known| Message::Outdated { known: known.id }),
        any::<(u64, u64)>().prop_map(|(known_for, uptime)| {
            Message::Claim(Claim { known_for: Duration::from_millis(known_for), uptime: Duration::from_millis(uptime) })
        }),
        Just(Message::Pause),
        any::<u32>().prop_map(Message::Serial),
        (number, any_keyring_change()).prop_map(|(sequence, change)| Message::Keyring { sequence, change }),
        (number, any_ring_state())
            .prop_map(|(sequence, state)| { Message::KeyringDone { sequence, outcome: KeyringOutcome::Ring(state) } }),
        (number, collection::btree_set(any::<u8>(), 1..=MAX_KEYS)).prop_map(|(rotation, keys)| {
            Message::Keys(ring(&keys.into_iter().collect::<Vec<_>>()).as_of(rotation))
        }),
    ];
    let changes = collection::vec(("\\PC{0,60}", number, option::of("\\PC{0,300}")), 0..20);
    prop_oneof![
        4 => short.prop_map(Any::Short),
        1 => collection::vec(any::<u8>(), 0..300).prop_map(Any::Gossip),
        2 => (number, changes).prop_map(|(generation, mut changes)| {
            changes.sort_by_key(|(_, version, _)| *version);
            changes.dedup_by_key(|(_, version, _)| *version);
            Any::Push(generation, changes)
        }),
        1 => (number, "\\PC{0,30}").prop_map(|(sequence, reason)| Any::Refused(sequence, reason)),
    ]
}

impl Any {
    fn message(&self) -> Message<'_> {
        match self {
            Self::Short(message) => message.clone(),
            Self::Gossip(octets) => Message::Gossip(octets),
            Self::Push(generation, changes) => {
                let changes = changes.iter();
                let changes = changes.map(|(key, version, value)| change(key, *version, value.as_deref()));
                Message::Push(Push { generation: *generation, changes: changes.collect() })
            }
            Self::Refused(sequence, reason) => {
                Message::KeyringDone { sequence: *sequence, outcome: KeyringOutcome::Refused(reason) }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn encoded_messages_decode_unchanged(any in any_message()) {
        let message = any.message();
        let octets = encoded(&message);
        prop_assert_eq!(Message::decode(&octets), Ok(message));
    }
}
