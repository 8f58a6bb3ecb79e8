//! The gossip target: nothing that was made without a key opens, and whatever is read as a message is one.

use muster::{
    gossip::{
        crypto::{MAX_PLAINTEXT, OVERHEAD, OpenError, Protection, Seal, Session, To},
        message::{Message, MessageError},
    },
    model::keyring::{Key, Keyring},
};

/// Takes the octets as a frame from a stranger, as a frame where nothing is sealed, as a message, and as what a stranger
/// does to a genuine frame.
pub fn run(octets: &[u8]) {
    stranger(octets);
    without_keys(octets);
    message(octets);
    genuine(octets);
}

/// No seed and no mutation is sealed with one of the keys here: none opens.
fn stranger(octets: &[u8]) {
    match sealed(RECEIVER).open(&mut octets.to_vec()) {
        Ok(opened) => panic!("made without a key, and opened: {opened:?}"),
        Err(refused @ (OpenError::Elsewhere { .. } | OpenError::Replayed)) => {
            panic!("said of a forged frame: {refused:?}")
        }
        Err(_) => {}
    }
}

/// Without keys, a frame that opens says what stands in it, and a bound one does so once.
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

/// What is read can be written, and is read as the same again.
fn message(octets: &[u8]) {
    let message = match Message::decode(octets) {
        Ok(message) => message,
        Err(error) => {
            let unknown = octets.first().is_some_and(|kind| !(1..=12).contains(kind));
            assert_eq!(matches!(error, MessageError::Kind(_)), unknown, "{error:?}");
            assert!(!error.to_string().contains(char::is_control), "{error:?}");
            return;
        }
    };
    let mut again = vec![];
    message.encode(&mut again).unwrap_or_else(|error| panic!("{error}: {message:?}"));
    // Names may come in upper case and are written in lower case: nothing else may differ.
    assert!(octets.eq_ignore_ascii_case(&again), "{octets:02x?} came out as {again:02x?}");
    assert_eq!(Message::decode(&again).as_ref(), Ok(&message));
}

/// A sealed frame opens, whatever is in it; changed in any way, it does not.
fn genuine(octets: &[u8]) {
    let plaintext = &octets[..octets.len().min(MAX_PLAINTEXT)];
    let (mut sender, mut receiver) = (sealed(SENDER), sealed(RECEIVER));
    let mut frame = vec![];
    let to = if octets.len().is_multiple_of(2) { To::Anyone } else { To::Session(RECEIVER) };
    sender.seal(to, plaintext, &mut frame).unwrap_or_else(|error| panic!("{error}"));
    let mut changed = frame.clone();
    // From the end, where short inputs would otherwise change the header alone; every other input from the front.
    let order: &mut dyn Iterator<Item = &mut u8> =
        if octets.len() % 4 < 2 { &mut changed.iter_mut().rev() } else { &mut changed.iter_mut() };
    order.zip(octets).for_each(|(octet, change)| *octet ^= change);
    if changed != frame {
        assert!(receiver.open(&mut changed).is_err(), "changed, and opened all the same");
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
