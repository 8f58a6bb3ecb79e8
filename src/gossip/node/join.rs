//! Whom to join, and what operators order.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{Command, ForgetError, Joined, Task};
use crate::{
    gossip::{message::Identity, seeds},
    model::{member::Reach, name::Label},
};

/// How long an order to join waits for an answer.
const JOIN: Duration = Duration::from_secs(5);

/// An order to join that waits for one of these addresses to answer.
pub(super) struct Joining {
    addresses: Vec<SocketAddr>,
    until: Instant,
    done: oneshot::Sender<Result<Joined, String>>,
}

/// Where somebody may be found.
pub(super) struct Found {
    addresses: Vec<SocketAddr>,
    done: Option<oneshot::Sender<Result<Joined, String>>>,
}

impl Task {
    pub(super) fn look_for_others(&self, shutdown: &CancellationToken) {
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
                // The node has ended, whatever the reason.
                () = forward.closed() => {}
            }
        });
    }

    pub(super) fn approach(&mut self, found: Found) {
        let Found { addresses, done } = found;
        for address in &addresses {
            self.cluster.talk_to(*address);
        }
        let Some(done) = done else { return };
        let known =
            self.standings.values().find(|peer| peer.reach == Reach::Alive && addresses.contains(&peer.address));
        if let Some(peer) = known {
            let by = Identity { id: peer.id.clone(), address: peer.address };
            let _ = done.send(Ok(Joined { asked: addresses, by }));
            return;
        }
        self.joins.push(Joining { addresses, until: Instant::now() + JOIN, done });
    }

    pub(super) fn joined(&mut self, peer: &Identity, at: SocketAddr) {
        let is_it =
            |joining: &mut Joining| [peer.address, at].iter().any(|address| joining.addresses.contains(address));
        for joining in self.joins.extract_if(.., is_it) {
            // Whoever asked may have gone.
            let _ = joining.done.send(Ok(Joined { asked: joining.addresses, by: peer.clone() }));
        }
    }

    /// Has all nodes forget one that is gone.
    fn dismiss(&mut self, name: &Label) -> Result<(), ForgetError> {
        if *name == self.settings.own.id.name {
            return Err(ForgetError::Itself);
        }
        let now = self.now();
        self.liveness.dismiss(name, now).map_err(|reach| reach.map_or(ForgetError::Unknown, ForgetError::Lives))
    }

    pub(super) fn give_up_joins(&mut self) {
        let now = Instant::now();
        for joining in self.joins.extract_if(.., |joining| joining.until <= now) {
            let addresses: Vec<String> = joining.addresses.iter().map(ToString::to_string).collect();
            let _ = joining.done.send(Err(format!(
                "no answer from {}: does an agent run there, with the same gossip key, and are UDP and TCP open to it?",
                addresses.join(", ")
            )));
        }
    }

    /// Carries out an order; returns where to answer if it was to leave.
    pub(super) async fn order(&mut self, order: Command) -> Option<oneshot::Sender<()>> {
        match order {
            Command::Leave { done } => return Some(done),
            Command::Fire { firing, done } => self.fire(firing, done).await,
            Command::Dismiss { name, done } => {
                let _ = done.send(self.dismiss(&name));
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
            Command::Keyring { change, done } => {
                // One that is held would miss it, and has to be told of: it is asked, and does not answer.
                let members = self.standings.values().filter(|peer| !matches!(peer.reach, Reach::Gone(_)));
                let peers = members.map(|peer| Identity { id: peer.id.clone(), address: peer.address }).collect();
                let own = &self.settings.own.id.name;
                self.rotations.begin(change, own, peers, &self.outputs.keyring, &self.outbox, done);
            }
        }
        None
    }
}
