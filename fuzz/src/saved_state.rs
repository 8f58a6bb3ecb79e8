//! Fuzz target for the state that an agent hands to its next start.

use muster::saved_state::{SavedState, SavedStateError};

/// Uses the octets as a state, and as a state with a valid header: the checksum would hide the lines.
pub fn run(octets: &[u8]) {
    assert!(SavedState::decode(octets).is_err(), "no seed has a checksum");
    let sum = data_encoding::HEXLOWER.encode(ring::digest::digest(&ring::digest::SHA256, octets).as_ref());
    let mut whole = format!("muster-state 1 {sum}\n").into_bytes();
    whole.extend_from_slice(octets);
    match SavedState::decode(&whole) {
        // Decoded states encode to a state that decodes to the same one.
        Ok(state) => assert_eq!(SavedState::decode(&state.encode()), Ok(state)),
        Err(SavedStateError::Line(line)) => assert!(!line.contains(char::is_control), "{line:?}"),
        Err(error) => panic!("the header is valid: {error}"),
    }
}
