//! Joining seeds, and the execution of commands.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{End, Task};
use crate::{
    gossip::{
        command::{Command, ForgetError, Joined},
        message::Identity,
        seeds,
    },
    model::{member::Reach, name::Label},
    record::Record,
};

/// Time that a join waits for an answer.
const JOIN_TIMEOUT: Duration = Duration::from_secs(5);

/// A join that waits for an answer from one of its addresses.
pub(super) struct Joining {
    addresses: Vec<SocketAddr>,
    until: Instant,
    done: oneshot::Sender<Result<Joined, String>>,
}

/// Addresses to contact, with the channel for the outcome of a command.
pub(super) struct Found {
    addresses: Vec<SocketAddr>,
    done: Option<oneshot::Sender<Result<Joined, String>>>,
}
impl Task {
    pub(super) fn start_joining(&self, shutdown: &CancellationToken) {
        let (found, mut addresses) = mpsc::channel(16);
        let forward = self.found.0.clone();
        let targets = self.settings.targets.clone();
        let rng = fastrand::Rng::with_seed(self.settings.seed.wrapping_add(1));
        let searching = seeds::run(
            targets,
            self.settings.own.address,
            self.outputs.peers.subscribe(),
            found,
            rng,
            shutdown.clone(),
        );
        tokio::spawn(async move {
            let forwarding = async {
                while let Some(address) = addresses.recv().await {
                    let _ = forward.send(Found { addresses: vec![address], done: None }).await;
                }
            };
            tokio::select! {
                ((), ()) = async { tokio::join!(searching, forwarding) } => {}
                // The node has ended.
                () = forward.closed() => {}
            }
        });
    }

    /// Gossips with the given addresses; waits for an answer if a command requested it.
    pub(super) fn contact(&mut self, found: Found) {
        let Found { addresses, done } = found;
        for address in &addresses {
            self.cluster.talk_to(*address);
        }
        let Some(done) = done else { return };
        let known =
            self.peer_states.values().find(|peer| peer.reach == Reach::Alive && addresses.contains(&peer.address));
        if let Some(peer) = known {
            let by = Identity { id: peer.id.clone(), address: peer.address };
            let _ = done.send(Ok(Joined { asked: addresses, by }));
            return;
        }
        self.joins.push(Joining { addresses, until: Instant::now() + JOIN_TIMEOUT, done });
    }

    /// Finishes the joins that wait for this peer.
    pub(super) fn finish_joins(&mut self, peer: &Identity, at: SocketAddr) {
        let is_peer =
            |joining: &mut Joining| [peer.address, at].iter().any(|address| joining.addresses.contains(address));
        for joining in self.joins.extract_if(.., is_peer) {
            // The sender of the command may be gone.
            let _ = joining.done.send(Ok(Joined { asked: joining.addresses, by: peer.clone() }));
        }
    }

    /// Makes all nodes forget a node that is gone.
    fn forget(&mut self, name: &Label) -> Result<(), ForgetError> {
        if *name == self.settings.own.id.name {
            return Err(ForgetError::Itself);
        }
        let now = self.now();
        let forgotten = self.liveness.forget(name, now);
        if forgotten == Err(None) && self.forget_missing(name) {
            return Ok(());
        }
        forgotten.map_err(|reach| reach.map_or(ForgetError::Unknown, ForgetError::Lives))
    }

    /// Finishes joins whose time is over with an error.
    pub(super) fn expire_joins(&mut self) {
        let now = Instant::now();
        for joining in self.joins.extract_if(.., |joining| joining.until <= now) {
            let addresses: Vec<String> = joining.addresses.iter().map(ToString::to_string).collect();
            let _ = joining.done.send(Err(format!(
                "no answer from {}: check that an agent runs there with the same gossip key, and that UDP and TCP are open",
                addresses.join(", ")
            )));
        }
    }

    /// Carries out a command. Returns the reason if it ends the node.
    pub(super) async fn carry_out(&mut self, command: Command) -> Option<End> {
        match command {
            Command::Leave { done } => {
                self.announce(&Record::Left).await;
                let _ = done.send(());
                return Some(End::Left);
            }
            Command::Suspend { done } => {
                self.announce_pause();
                let _ = done.send(self.snapshot());
                return Some(End::Suspended);
            }
            Command::AnnounceRestart { done } => {
                self.announce(&Record::Restart).await;
                // The agent may have given up waiting.
                let _ = done.send(());
            }
            Command::Snapshot { done } => {
                let _ = done.send(self.snapshot());
            }
            Command::Fire { name, payload, to, done } => self.fire(name, payload, to, done).await,
            Command::Forget { name, done } => {
                let _ = done.send(self.forget(&name));
            }
            Command::Join { target, done } => {
                let found = self.found.0.clone();
                tokio::spawn(async move {
                    match seeds::resolve(&target).await {
                        Ok(addresses) => {
                            let _ = found.send(Found { addresses, done: Some(done) }).await;
                        }
                        Err(error) => {
                            let _ = done.send(Err(format!("cannot resolve {}: {error}", target.host)));
                        }
                    }
                });
            }
            Command::Keyring { change, force, done } => self.change_keys(change, force, done),
        }
        None
    }
}
