//! Contact with nodes that were away during a rotation of keys.
//!
//! Such a node encrypts with a key that this node still holds and no longer encrypts with, and may lack the primary key of
//! this node. Introductions that answer it are encrypted with its own key, and so is one message with this node's keyring,
//! [`Message::Keys`]. Only a bound frame, made for this run of this node by a holder of that key, leads to that message.
//! [`Keyring::take_over`](crate::model::keyring::Keyring::take_over) decides which of the two nodes follows the other.
//!
//! If the others have removed the key with which the node encrypts, it still decrypts their frames if it has their primary key.
//! It is then the node that sends its keyring, encrypted with that key. The peer answers a keyring of an earlier rotation with
//! its own.
//!
//! Both need a hello that the other node can open: a hello that reacts to a frame is encrypted with the key of that frame, one
//! that is not answered is repeated with each key of the ring in turn, and a known address that sends frames with an unknown key
//! is sent a hello with each key.

use std::{net::SocketAddr, time::Instant};

use super::{Task, Via};
use crate::{
    gossip::{
        crypto::{Protection, Recipient, Session},
        message::Message,
    },
    model::keyring::{Key, KeyId, Keyring},
};

impl Task {
    fn ring(&self) -> Option<&Keyring> {
        match self.transport.seal.protection() {
            Protection::Sealed(ring) => Some(ring),
            Protection::Open => None,
        }
    }

    /// Reports whether a frame was encrypted with another key than the primary one.
    pub(super) fn is_other_key(&self, key: Option<KeyId>) -> bool {
        self.ring().is_some_and(|ring| key.is_some_and(|key| key != ring.primary().id()))
    }

    /// Reports whether a peer's keyring is of an earlier rotation than this node's.
    pub(super) fn is_ahead_of(&self, theirs: &Keyring) -> bool {
        self.ring().is_some_and(|ring| ring.rotation() > theirs.rotation())
    }

    /// Sends the keyring to the owner of a session, with the key of its frame, within a limit.
    pub(super) fn send_keys(&mut self, session: Session, key: Option<KeyId>) {
        let Some(ring) = self.ring() else { return };
        let message = Message::Keys(ring.clone());
        if let Some(address) = self.directory.may_send_keys(session, Instant::now()) {
            self.send_message(address, Recipient::Session(session), key, &message);
        }
    }

    /// Repeats a hello: with each key of the ring in turn.
    pub(super) fn hello_again(&mut self, to: SocketAddr, hellos: usize) {
        let key = self.ring().and_then(|ring| ring.iter().nth(hellos % ring.iter().len())).map(Key::id);
        self.hello(to, key);
    }

    /// Sends hellos to the source of a frame that this node cannot open, if that is the address of a known peer: it may have
    /// taken part in another rotation.
    pub(super) fn greet_with_all_keys(&mut self, to: SocketAddr, via: Via) {
        let keys: Vec<KeyId> = self.ring().into_iter().flat_map(Keyring::iter).map(Key::id).collect();
        if via != Via::Datagram || keys.is_empty() || !self.directory.may_greet(to) {
            return;
        }
        for key in keys {
            self.greet(to, via, Some(key));
        }
    }
}
