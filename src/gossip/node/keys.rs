//! Keyring commands of this node and of its peers.

use tokio::sync::oneshot;

use super::{Outputs, Settings, Task};
use crate::{
    gossip::{
        command::{KeyringCommand, KeyringReport},
        key_rotation::{self, Context},
        link::Outbox,
        message::{Identity, KeyringChange, KeyringOutcome, Message},
    },
    model::{member::Cause, name::Label},
};

impl Task {
    /// Carries out a keyring command on all nodes.
    pub(super) fn change_keys(
        &mut self,
        command: KeyringCommand,
        force: bool,
        done: oneshot::Sender<Result<KeyringReport, String>>,
    ) {
        let members = self.known_members();
        let context = context(&self.settings, &self.outputs, &self.outbox);
        self.rotations.begin(command, force, members, &context, done);
    }

    /// Continues the keyring commands in progress.
    pub(super) fn rotate_keys(&mut self) {
        let context = context(&self.settings, &self.outputs, &self.outbox);
        self.rotations.tick(&context);
    }

    /// Applies a change that a peer requests, and answers.
    pub(super) fn take_key_change(&mut self, from: &Identity, sequence: u64, change: &KeyringChange) {
        let keyring = &self.outputs.keyring;
        let applied = key_rotation::apply(keyring, change, &from.id.name);
        let outcome = match &applied {
            Ok(keys) => KeyringOutcome::Ring(key_rotation::state(keyring, keys.clone(), self.unreachable())),
            Err(why) => KeyringOutcome::Refused(why),
        };
        self.outbox.send([from.address], &Message::KeyringDone { sequence, outcome });
    }

    /// Records a peer's answer to a request.
    pub(super) fn take_key_outcome(&mut self, from: &Identity, sequence: u64, outcome: KeyringOutcome<'_>) {
        let outcome = match outcome {
            KeyringOutcome::Ring(state) => Ok(state),
            KeyringOutcome::Refused(why) => Err(why.to_owned()),
        };
        let context = context(&self.settings, &self.outputs, &self.outbox);
        self.rotations.answered(sequence, &from.id, outcome, &context);
    }

    /// Makes all nodes forget a member that the failure detector does not know any more. Returns whether this node knew it.
    pub(super) fn forget_missing(&mut self, name: &Label) -> bool {
        let Some(peer) = self.missing.forget(name) else { return false };
        let all = self.peer_states.values().map(|peer| peer.address);
        self.outbox.send(all, &Message::Dead { peer, cause: Cause::Forgotten });
        true
    }
}

fn context<'a>(settings: &'a Settings, outputs: &'a Outputs, outbox: &'a Outbox) -> Context<'a> {
    Context { own: &settings.own.id.name, keyring: &outputs.keyring, outbox }
}
