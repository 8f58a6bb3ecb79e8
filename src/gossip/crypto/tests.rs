//! Attacks on frames, restarts, reordering and key rotation.

use super::*;

fn key(number: u8) -> Key {
    Key::from_random([number; 32])
}

fn ring(keys: &[u8]) -> Keyring {
    let mut ring = Keyring::new(key(keys[0]));
    for number in &keys[1..] {
        ring.install(key(*number)).unwrap();
    }
    ring
}

fn session(number: u8) -> Session {
    Session([number; 16])
}

/// A process with these keys, the first one primary; not sealed without keys.
fn process(number: u8, keys: &[u8]) -> Seal {
    let protection = if keys.is_empty() { Protection::Open } else { Protection::Sealed(ring(keys)) };
    Seal::new(protection, session(number))
}

fn sealed(by: &mut Seal, to: Recipient, plaintext: &[u8]) -> Vec<u8> {
    let mut frame = vec![];
    by.seal(to, plaintext, &mut frame).unwrap();
    frame
}

/// Opens a copy, as if the frame arrived again.
fn open(by: &mut Seal, frame: &[u8]) -> Result<(Session, bool, Vec<u8>), OpenError> {
    by.open(&mut frame.to_vec()).map(|opened| (opened.from, opened.bound, opened.plaintext.to_vec()))
}

fn to(receiver: &Seal) -> Recipient {
    Recipient::Session(receiver.own())
}

const MODES: [&[u8]; 2] = [&[], &[1]];

#[test]
fn sealed_frames_open() {
    for keys in MODES {
        let (mut a, mut b) = (process(1, keys), process(2, keys));
        let largest = vec![0x5a; MAX_PLAINTEXT];
        for plaintext in [&b""[..], b"x", b"some words", &largest] {
            for recipient in [Recipient::Anyone, to(&b)] {
                let frame = sealed(&mut a, recipient, plaintext);
                assert!(frame.len() <= plaintext.len() + OVERHEAD);
                assert_eq!(open(&mut b, &frame), Ok((session(1), recipient != Recipient::Anyone, plaintext.to_vec())));
            }
        }
    }
}

#[test]
fn frame_layout_is_as_documented() {
    let (mut a, b) = (process(1, &[1]), process(2, &[1]));
    let frame = sealed(&mut a, to(&b), b"secret");
    let head = [&[0xa1, 3][..], &key(1).id().0, &[1; 16], &[0, 0, 0, 0, 0, 0, 0, 1], &[2; 8]].concat();
    assert_eq!(frame[..head.len()], head);
    assert_eq!(frame.len(), head.len() + 6 + 16);
    assert_eq!(frame.len(), 6 + OVERHEAD);
    assert!(!frame.windows(6).any(|part| part == b"secret"));
    let second = sealed(&mut a, Recipient::Anyone, b"secret");
    assert_eq!(second[..30], [&[0xa1, 1][..], &key(1).id().0, &[1; 16], &[0, 0, 0, 0, 0, 0, 0, 2]].concat());
    let mut plain = process(1, &[]);
    assert_eq!(sealed(&mut plain, Recipient::Anyone, b"secret")[24..], *b"\0\0\0\0\0\x01secret");
    assert_eq!(sealed(&mut plain, to(&b), b"")[..2], [0xa1, 2]);
}

#[test]
fn opening_depends_on_keys_and_protection() {
    type Keys = &'static [u8];
    let unknown = |number| Some(OpenError::UnknownKey(key(number).id()));
    let cases: &[(&str, Keys, Keys, Option<OpenError>)] = &[
        ("the same key", &[1], &[1], None),
        ("different keys", &[1], &[2], unknown(1)),
        ("an older key that is still in the ring", &[1], &[2, 1], None),
        ("a newer key that is installed already", &[2, 1], &[1, 2], None),
        ("the sender's secondary key is not used", &[3, 1], &[1, 2], unknown(3)),
        ("both without keys", &[], &[], None),
        ("only the receiver with keys", &[], &[1], Some(OpenError::Plain)),
        ("only the sender with keys", &[1], &[], Some(OpenError::Sealed)),
    ];
    for (what, sender, receiver, expected) in cases {
        let (mut a, mut b) = (process(1, sender), process(2, receiver));
        for recipient in [Recipient::Anyone, to(&b)] {
            let frame = sealed(&mut a, recipient, b"words");
            assert_eq!(open(&mut b, &frame).err(), *expected, "{what}, {recipient:?}");
        }
    }
}

#[test]
fn removed_key_opens_nothing_even_for_a_known_session() {
    let (mut a, mut b) = (process(1, &[1]), process(2, &[2, 1]));
    let frames: Vec<_> = (0..2).map(|_| sealed(&mut a, to(&b), b"words")).collect();
    assert!(open(&mut b, &frames[0]).is_ok());
    b.set_keyring(ring(&[2]));
    assert_eq!(open(&mut b, &frames[1]), Err(OpenError::UnknownKey(key(1).id())));
    // Reinstalling the key does not reset the replay window.
    b.set_keyring(ring(&[2, 1]));
    assert_eq!(open(&mut b, &frames[0]), Err(OpenError::Replayed));
    assert!(open(&mut b, &frames[1]).is_ok());
}

#[test]
fn key_with_a_colliding_id_opens_nothing() {
    let (mut a, mut b) = (process(1, &[1]), process(2, &[2]));
    let mut frame = sealed(&mut a, to(&b), b"words");
    frame[2..6].copy_from_slice(&key(2).id().0);
    assert_eq!(open(&mut b, &frame), Err(OpenError::Forged));
}

#[test]
fn bound_frame_opens_once_and_at_its_receiver_only() {
    for keys in MODES {
        let [mut a, mut b, mut c] = [1, 2, 3].map(|number| process(number, keys));
        let frame = sealed(&mut a, to(&b), b"words");
        let elsewhere = Err(OpenError::OtherSession { from: session(1), key: keys.first().map(|id| key(*id).id()) });
        assert_eq!(open(&mut c, &frame), elsewhere);
        assert!(open(&mut b, &frame).is_ok());
        assert_eq!(open(&mut b, &frame), Err(OpenError::Replayed));
        assert_eq!(open(&mut a, &frame), Err(OpenError::Own));
        // The receiver's next run has another session.
        let mut restarted = process(4, keys);
        assert_eq!(open(&mut restarted, &frame), elsewhere);
        // So has a renewed session in the same process.
        b.renew(session(5));
        assert_eq!(open(&mut b, &frame), elsewhere);
        let again = sealed(&mut a, to(&b), b"words");
        assert!(open(&mut b, &again).is_ok());
    }
}

#[test]
fn other_session_is_reported_for_authentic_frames_only() {
    let [mut a, b, mut c] = [1, 2, 3].map(|number| process(number, &[1]));
    let frame = sealed(&mut a, to(&b), b"words");
    // Modified receiver session; session of this node on a frame for another; modified sender session.
    for (at, octets) in [(30, [9; 8]), (30, [3; 8]), (6, [9; 8])] {
        let mut forged = frame.clone();
        forged[at..at + 8].copy_from_slice(&octets);
        assert_eq!(open(&mut c, &forged), Err(OpenError::Forged));
    }
}

#[test]
fn unbound_frame_is_never_reported_as_bound() {
    let (mut a, mut b) = (process(1, &[1]), process(2, &[1]));
    let hello = sealed(&mut a, Recipient::Anyone, b"hello");
    // However often it arrives, and without an effect on bound frames.
    for _ in 0..3 {
        assert_eq!(open(&mut b, &hello), Ok((session(1), false, b"hello".to_vec())));
    }
    let mut bound = hello.clone();
    bound[1] |= BOUND;
    bound.splice(30..30, [2; 8]);
    assert_eq!(open(&mut b, &bound), Err(OpenError::Forged));
    let mut unbound = sealed(&mut a, to(&b), b"words");
    unbound[1] &= !BOUND;
    assert_eq!(open(&mut b, &unbound), Err(OpenError::Forged));
    unbound.drain(30..38);
    assert_eq!(open(&mut b, &unbound), Err(OpenError::Forged));
}

#[test]
fn frames_open_in_any_order_within_the_window() {
    for keys in MODES {
        let (mut a, mut b) = (process(1, keys), process(2, keys));
        let mut frames: Vec<_> = (0..=WINDOW).map(|_| sealed(&mut a, to(&b), b"words")).collect();
        let late = frames.remove(0);
        fastrand::Rng::with_seed(1).shuffle(&mut frames);
        for frame in &frames {
            assert!(open(&mut b, frame).is_ok());
        }
        for frame in frames.iter().chain([&late]) {
            assert_eq!(open(&mut b, frame), Err(OpenError::Replayed));
        }
    }
}

#[test]
fn modified_frames_are_refused() {
    let mut a = process(1, &[1]);
    for recipient in [Recipient::Anyone, Recipient::Session(session(2))] {
        let frame = sealed(&mut a, recipient, b"words");
        let mut b = process(2, &[1]);
        for at in 0..frame.len() {
            for bit in 0..8 {
                let mut changed = frame.clone();
                changed[at] ^= 1 << bit;
                let refused = open(&mut b, &changed).unwrap_err();
                let expected = match at {
                    0 => matches!(refused, OpenError::NotOurs),
                    1 => matches!(
                        refused,
                        OpenError::NotOurs | OpenError::Plain | OpenError::Forged | OpenError::TooShort
                    ),
                    2..6 => matches!(refused, OpenError::UnknownKey(_)),
                    _ => refused == OpenError::Forged,
                };
                assert!(expected, "octet {at}, bit {bit}: {refused:?}");
            }
        }
        // The failed attempts left no trace.
        assert_eq!(b.sessions.len(), 0);
        assert!(open(&mut b, &frame).is_ok());
    }
}

#[test]
fn truncated_frames_are_refused() {
    let mut a = process(1, &[1]);
    for (recipient, head) in [(Recipient::Anyone, HEADER), (Recipient::Session(session(2)), HEADER + BINDING)] {
        let frame = sealed(&mut a, recipient, b"words");
        let mut b = process(2, &[1]);
        for len in 0..frame.len() {
            let expected = if len < head + TAG { OpenError::TooShort } else { OpenError::Forged };
            assert_eq!(open(&mut b, &frame[..len]), Err(expected), "{len} octets");
        }
        assert_eq!(open(&mut b, &[&frame[..], &[0]].concat()), Err(OpenError::Forged));
    }
    let frame = sealed(&mut process(1, &[]), Recipient::Session(session(2)), b"");
    for len in 0..frame.len() {
        assert_eq!(open(&mut process(2, &[]), &frame[..len]), Err(OpenError::TooShort), "{len} octets");
    }
}

#[test]
fn foreign_packets_are_refused() {
    let cases: &[(&[u8], OpenError)] = &[
        (b"", OpenError::TooShort),
        (b"\xa1", OpenError::TooShort),
        (b"\xa2", OpenError::NotOurs),
        (b"GET / HTTP/1.1", OpenError::NotOurs),
        (b"\xa1\x04", OpenError::NotOurs),
        (&[0; 100], OpenError::NotOurs),
        (&[0xa1; 100], OpenError::NotOurs),
        (&[&[0xa1, 1][..], &[0; MAX_PLAINTEXT + OVERHEAD]].concat(), OpenError::TooLong),
    ];
    for (octets, expected) in cases {
        for keys in MODES {
            assert_eq!(open(&mut process(2, keys), octets), Err(*expected), "{octets:.20?}");
        }
    }
}

#[test]
fn key_rotation_refuses_no_frame() {
    let (mut a, mut b) = (process(1, &[1]), process(2, &[1]));
    let mut on_the_way: Vec<(bool, Vec<u8>)> = vec![];
    let mut opened = 0;
    // Each step reaches one side first, while frames of the previous step are in flight.
    let mut step = |rings: [&[u8]; 2]| {
        a.set_keyring(ring(rings[0]));
        b.set_keyring(ring(rings[1]));
        let late = std::mem::take(&mut on_the_way);
        for _ in 0..3 {
            on_the_way.push((true, sealed(&mut a, Recipient::Session(session(2)), b"to b")));
            on_the_way.push((false, sealed(&mut b, Recipient::Session(session(1)), b"to a")));
        }
        for (to_b, frame) in &late {
            let receiver = if *to_b { &mut b } else { &mut a };
            open(receiver, frame).unwrap_or_else(|refused| panic!("{rings:?}: {refused}"));
            assert_eq!(open(receiver, frame), Err(OpenError::Replayed), "{rings:?}");
            opened += 1;
        }
    };
    let (old, installed, used, new): (&[u8], &[u8], &[u8], &[u8]) = (&[1], &[1, 2], &[2, 1], &[2]);
    for rings in [
        [old, old],
        [installed, old],
        [installed, installed],
        [used, installed],
        [used, used],
        // The last frame under the old key arrives before the key is removed.
        [used, used],
        [new, used],
        [new, new],
        [new, new],
    ] {
        step(rings);
    }
    assert_eq!(opened, 8 * 6);
}

#[test]
fn sender_can_change_its_key_within_a_session() {
    let (mut a, mut b) = (process(1, &[1]), process(2, &[1, 2]));
    for keys in [[1, 2], [2, 1], [1, 2]] {
        a.set_keyring(ring(&keys));
        let frame = sealed(&mut a, to(&b), b"words");
        assert!(open(&mut b, &frame).is_ok(), "{keys:?}");
    }
}

#[test]
fn enabling_encryption_discards_unauthenticated_sessions() {
    let (mut a, mut b) = (process(1, &[]), process(2, &[]));
    let mut forged = sealed(&mut a, to(&b), b"words");
    forged[22..30].copy_from_slice(&u64::MAX.to_be_bytes());
    assert!(open(&mut b, &forged).is_ok());
    a.set_keyring(ring(&[1]));
    b.set_keyring(ring(&[1]));
    let frame = sealed(&mut a, to(&b), b"words");
    assert!(open(&mut b, &frame).is_ok());
}

/// One process of many.
fn peer(number: u32, keys: &[u8]) -> Seal {
    let mut octets = [0; 16];
    octets[..4].copy_from_slice(&number.to_be_bytes());
    octets[15] = 1;
    Seal::new(process(0, keys).protection, Session(octets))
}

#[test]
fn session_table_is_bounded_and_keeps_live_sessions() {
    for keys in MODES {
        let mut receiver = process(2, keys);
        let mut living = peer(0, keys);
        let first = sealed(&mut living, to(&receiver), b"words");
        assert!(open(&mut receiver, &first).is_ok());
        let mut crowded_at = None;
        for number in 1..2 * MAX_SESSIONS as u32 {
            let frame = sealed(&mut peer(number, keys), to(&receiver), b"words");
            assert!(open(&mut receiver, &frame).is_ok(), "session {number}");
            assert!(receiver.sessions.len() <= MAX_SESSIONS);
            if receiver.is_crowded() {
                crowded_at.get_or_insert(number);
            }
            if number % 1000 == 0 {
                let frame = sealed(&mut living, to(&receiver), b"words");
                assert!(open(&mut receiver, &frame).is_ok());
            }
        }
        assert_eq!(open(&mut receiver, &first), Err(OpenError::Replayed), "a live session was evicted");
        // Crowding is reported before the first eviction, and only with keys, where attackers cannot cause it.
        let sealed = !keys.is_empty();
        assert_eq!(crowded_at.is_some(), sealed);
        assert!(
            crowded_at.is_none_or(|number| (number as usize) > MAX_SESSIONS / 2 && (number as usize) < MAX_SESSIONS)
        );
        receiver.renew(session(3));
        assert!(!receiver.is_crowded());
        assert_eq!(receiver.sessions.len(), 0);
    }
}

#[test]
fn attackers_cannot_grow_the_session_table() {
    let mut receiver = process(2, &[1]);
    let elsewhere = Recipient::Session(session(9));
    for number in 1..5000 {
        let mut peer = peer(number, &[1]);
        // Captured frames, and forged ones.
        let hello = sealed(&mut peer, Recipient::Anyone, b"hello");
        let other = sealed(&mut peer, elsewhere, b"words");
        let mut forged = hello.clone();
        forged[30] ^= 1;
        assert!(open(&mut receiver, &hello).is_ok());
        assert!(matches!(open(&mut receiver, &other), Err(OpenError::OtherSession { .. })));
        assert_eq!(open(&mut receiver, &forged), Err(OpenError::Forged));
    }
    assert_eq!(receiver.sessions.len(), 0);
}

#[test]
fn failed_sealing_leaves_the_output_unchanged() {
    let mut a = process(1, &[1]);
    let mut out = b"before".to_vec();
    let long = vec![0; MAX_PLAINTEXT + 1];
    assert_eq!(a.seal(Recipient::Anyone, &long, &mut out), Err(SealError::TooLong(MAX_PLAINTEXT + 1)));
    a.counter = u64::MAX;
    assert_eq!(a.seal(Recipient::Anyone, b"", &mut out), Err(SealError::Exhausted));
    assert_eq!(out, b"before");
    a.renew(session(7));
    assert_eq!(a.seal(Recipient::Anyone, b"", &mut out), Ok(()));
    assert_eq!((&out[..6], out.len()), (&b"before"[..], 6 + HEADER + TAG));
}

#[test]
fn each_open_error_has_a_unique_name_and_a_message() {
    let all = [
        OpenError::TooShort,
        OpenError::TooLong,
        OpenError::NotOurs,
        OpenError::Plain,
        OpenError::Sealed,
        OpenError::UnknownKey(key(1).id()),
        OpenError::Forged,
        OpenError::OtherSession { from: session(1), key: Some(key(1).id()) },
        OpenError::Replayed,
        OpenError::Own,
    ];
    let words: std::collections::BTreeSet<_> = all.iter().map(|refused| refused.as_str()).collect();
    assert_eq!(words.len(), all.len());
    for refused in all {
        assert!(refused.to_string().split(' ').count() > 4, "{refused}");
    }
    assert!(OpenError::UnknownKey(key(1).id()).to_string().contains(&key(1).id().to_string()));
}
