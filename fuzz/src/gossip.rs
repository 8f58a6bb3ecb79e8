//! Fuzz target for gossip: no frame made without a key opens, and decoded messages encode to the same octets.

use muster::{
    gossip::{
        crypto::{MAX_PLAINTEXT, OVERHEAD, OpenError, Protection, Recipient, Seal, Session},
        message::{Message, MessageError},
    },
    model::keyring::{Key, Keyring},
};

/// Uses the octets as a forged frame, as an unsealed frame, as a message, and as a modification of an authentic frame.
pub fn run(octets: &[u8]) {
    forged(octets);
    without_keys(octets);
    message(octets);
    authentic(octets);
}

/// No seed or mutation is sealed with a key of this target, so no frame opens.
fn forged(octets: &[u8]) {
    match sealed(RECEIVER).open(&mut octets.to_vec()) {
        Ok(opened) => panic!("opened a frame made without a key: {opened:?}"),
        Err(refused @ (OpenError::OtherSession { .. } | OpenError::Replayed)) => {
            panic!("a forged frame passed authentication: {refused:?}")
        }
        Err(_) => {}
    }
}

/// Without keys, an opened frame contains its plaintext, and a bound one opens once.
fn without_keys(octets: &[u8]) {
    let mut receiver = Seal::new(Protection::Open, RECEIVER);
    let bound = match receiver.open(&mut octets.to_vec()) {
        Err(_) => return,
        Ok(opened) => {
            assert!(octets.ends_with(opened.plaintext));
            assert!(octets.len() - opened.plaintext.len() <= OVERHEAD);
            message(opened.plaintext);
            opened.bound
        }
    };
    assert_eq!(receiver.open(&mut octets.to_vec()).err(), bound.then_some(OpenError::Replayed));
}

/// A decoded message can be encoded, and decodes to the same message.
fn message(octets: &[u8]) {
    let message = match Message::decode(octets) {
        Ok(message) => message,
        Err(error) => {
            let unknown = octets.first().is_some_and(|kind| !matches!(kind, 1..=17 | 24..=26));
            assert_eq!(matches!(error, MessageError::Kind(_)), unknown, "{error:?}");
            assert!(!error.to_string().contains(char::is_control), "{error:?}");
            return;
        }
    };
    let mut again = vec![];
    message.encode(&mut again).unwrap_or_else(|error| panic!("{error}: {message:?}"));
    // Names are decoded in any case and encoded in lower case: nothing else may differ.
    assert!(octets.eq_ignore_ascii_case(&again), "{octets:02x?} was encoded as {again:02x?}");
    assert_eq!(Message::decode(&again).as_ref(), Ok(&message));
}

/// A sealed frame opens with any content, and does not open if it is modified.
fn authentic(octets: &[u8]) {
    let plaintext = &octets[..octets.len().min(MAX_PLAINTEXT)];
    let (mut sender, mut receiver) = (sealed(SENDER), sealed(RECEIVER));
    let mut frame = vec![];
    let to = if octets.len().is_multiple_of(2) { Recipient::Anyone } else { Recipient::Session(RECEIVER) };
    sender.seal(to, plaintext, &mut frame).unwrap_or_else(|error| panic!("{error}"));
    let mut changed = frame.clone();
    // Half of the inputs modify the end of the frame, since short inputs would otherwise modify the header only.
    let order: &mut dyn Iterator<Item = &mut u8> =
        if octets.len() % 4 < 2 { &mut changed.iter_mut().rev() } else { &mut changed.iter_mut() };
    order.zip(octets).for_each(|(octet, change)| *octet ^= change);
    if changed != frame {
        assert!(receiver.open(&mut changed).is_err(), "a modified frame was opened");
    }
    let opened = receiver.open(&mut frame).unwrap_or_else(|refused| panic!("{refused}"));
    assert_eq!((opened.from, opened.plaintext), (SENDER, plaintext));
}

const RECEIVER: Session = Session([2; 16]);
const SENDER: Session = Session([1; 16]);

fn sealed(own: Session) -> Seal {
    let mut ring = Keyring::new(Key::from_random([1; 32]));
    ring.install(Key::from_random([2; 32])).unwrap_or_else(|error| panic!("{error}"));
    Seal::new(Protection::Sealed(ring), own)
}
