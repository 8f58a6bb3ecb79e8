//! Fuzz target for what the store reads from other nodes and from its disk.

use muster::store::{
    message::{Description, PeerRequest, ReadReply, StatusReply, WriteReply, decode, encode},
    state::State,
    watch::WatchMessage,
};

/// Limit of the state: no input has as many octets.
const MAX_OCTETS: u64 = 1 << 20;

/// Uses the octets as each kind of message, and as a snapshot.
pub fn run(octets: &[u8]) {
    if let Some(request) = PeerRequest::decode(octets) {
        assert_eq!(PeerRequest::decode(&request.encode()), Some(request));
    }
    macro_rules! message {
        ($($kind:ty),*) => {$(
            if let Some(message) = decode::<$kind>(octets) {
                assert_eq!(decode::<$kind>(&encode(&message)), Some(message));
            }
        )*};
    }
    message!(Description, ReadReply, StatusReply, WriteReply, WatchMessage);
    if let Ok(state) = State::decode(&mut &*octets, MAX_OCTETS) {
        let mut encoded = Vec::new();
        state.encode(&mut encoded).unwrap();
        let again = State::decode(&mut &*encoded, MAX_OCTETS).unwrap();
        assert_eq!(again.totals(), state.totals());
    }
}
