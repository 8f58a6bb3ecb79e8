//! Duties of the leader: ends leases and sessions whose time is over or whose node or check has failed, ends lock delays, and
//! replaces voters that lost their disk.
//!
//! Deadlines begin again with each leader, since the renewals of the former leader are not in the log.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{describe::describe, local::Local, renewal::Renewal};
use crate::{
    model::catalog::Catalog,
    store::{
        command::Command, expiry::Expiry, message::PeerRequest, peers::Peers, request::StoreError,
        session_health::SessionHealth,
    },
};

/// Time between two looks at the nodes and checks that sessions are bound to.
const SESSION_CHECK: Duration = Duration::from_secs(1);
/// Time between two looks for voters that lost their disk.
const REPLACEMENT: Duration = Duration::from_secs(3);
/// Shortest time between two looks at new leases and sessions. All have a longer time to live.
const FOLLOW: Duration = Duration::from_millis(100);
/// Pause before a leader that no majority confirmed tries again.
const RETRY: Duration = Duration::from_millis(500);
/// Wait for a deadline if there is none.
const NO_DEADLINE: Duration = Duration::from_secs(3600);

/// Inputs of the leader.
pub(super) struct Duties {
    pub(super) local: Local,
    pub(super) renewals: mpsc::Receiver<Renewal>,
    pub(super) catalog: watch::Receiver<Catalog>,
    pub(super) peers: Peers,
    /// Name of this node.
    pub(super) own: String,
    /// Size limit in this node's configuration.
    pub(super) max_octets: u64,
}

impl Duties {
    /// Carries out the duties while this member is the leader, until shutdown.
    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        let mut roles = self.local.voter.role_changes();
        loop {
            // Without a confirmation, the entries of the former leader may not be applied yet.
            if self.may_lead() && self.local.voter.confirm().await.is_ok() {
                info!(term = self.local.voter.role().term, "store: this node is the leader");
                tokio::select! {
                    () = self.lead() => {}
                    () = shutdown.cancelled() => return,
                }
                if !self.local.resigning.is_cancelled() {
                    warn!("store: this node is no longer the leader");
                }
            }
            tokio::select! {
                changed = roles.changed() => if !changed { return },
                () = sleep(RETRY), if self.may_lead() => {}
                // Clients ask another node, or wait until there is a leader.
                Some(refused) = self.renewals.recv() => drop(refused),
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Reports whether this member is the leader, as far as it knows, and does not resign.
    fn may_lead(&self) -> bool {
        self.local.voter.leads() && !self.local.resigning.is_cancelled()
    }

    /// Carries out the duties until this member is no longer the leader, or no majority confirms it: renewals do not arrive
    /// then, and deadlines begin again afterwards.
    async fn lead(&mut self) {
        let mut applied = self.local.voter.applied();
        let began = Instant::now();
        let mut expiry = Expiry::start(Duration::ZERO, &applied.borrow_and_update().state);
        self.agree_on_size().await;
        let mut health = SessionHealth::default();
        let mut sessions = steady(SESSION_CHECK);
        let mut replacement = steady(REPLACEMENT);
        let mut follow = steady(FOLLOW);
        let replacing = Arc::new(tokio::sync::Semaphore::new(1));
        while self.local.is_leader() {
            let deadline = began + expiry.next().unwrap_or_else(|| began.elapsed() + NO_DEADLINE);
            tokio::select! {
                Some(renewal) = self.renewals.recv() => {
                    // A lease that was just granted may not be known yet.
                    expiry.follow(began.elapsed(), &self.local.voter.state());
                    self.renew(&mut expiry, began.elapsed(), renewal).await;
                }
                _ = follow.tick() => {
                    if applied.has_changed().unwrap_or(false) {
                        expiry.follow(began.elapsed(), &applied.borrow_and_update().state);
                    }
                }
                // A process that was stopped finds deadlines passed, and no recent confirmation.
                () = sleep_until(deadline) => if self.local.is_leader() {
                    for command in expiry.due(began.elapsed()) {
                        self.propose(command).await;
                    }
                },
                _ = sessions.tick() => {
                    let state = self.local.voter.state();
                    let catalog = self.catalog.borrow().clone();
                    let ended = health.ended(began.elapsed(), state.sessions(), &catalog);
                    for (id, reason) in ended {
                        info!(session = %id, %reason, "store: session ends");
                        self.propose(Command::DestroySession(id)).await;
                    }
                }
                _ = replacement.tick() => {
                    if let Ok(permit) = replacing.clone().try_acquire_owned() {
                        let (local, peers, own) = (self.local.clone(), self.peers.clone(), self.own.clone());
                        tokio::spawn(async move {
                            replace_wiped(&local, &peers, &own).await;
                            drop(permit);
                        });
                    }
                }
            }
        }
    }

    /// Proposes the size limit of this node's configuration: all voters must refuse the same writes.
    async fn agree_on_size(&self) {
        if self.local.voter.state().agreed_max_octets() != Some(self.max_octets) {
            self.propose(Command::SetMaxOctets(self.max_octets)).await;
        }
    }

    async fn renew(&self, expiry: &mut Expiry, now: Duration, renewal: Renewal) {
        let state = self.local.voter.state();
        // A client that no longer waits has dropped its end.
        match renewal {
            Renewal::Renew { id, done } => {
                let renewed = expiry.renew(now, id, &state);
                match renewed {
                    Some(renewed) if renewed.record => {
                        let ttl = renewed.ttl;
                        let recorded = self.local.voter.queue(Command::RecordRemaining { id, remaining: ttl }).await;
                        tokio::spawn(async move {
                            let recorded = recorded.await.unwrap_or(Err(StoreError::NoLeader));
                            drop(done.send(recorded.map(|_| Some(ttl))));
                        });
                    }
                    renewed => drop(done.send(Ok(renewed.map(|renewed| renewed.ttl)))),
                }
            }
            Renewal::Remaining { id, done } => drop(done.send(expiry.remaining(now, id))),
        }
    }

    /// Proposes a command behind all earlier ones: a record of the time left must not overtake that of a renewal. The command
    /// is due again if it fails.
    async fn propose(&self, command: Command) {
        drop(self.local.voter.queue(command).await);
    }
}

fn steady(period: Duration) -> tokio::time::Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// Replaces voters whose node has come back with an empty disk, and so with another id. The set of named nodes stays the same.
async fn replace_wiped(local: &Local, peers: &Peers, own: &str) {
    let members = local.voter.role().members;
    let mut ids: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for member in members.iter().filter(|member| member.node != own) {
        ids.entry(&member.node).or_default().insert(member.id);
    }
    let voters: HashMap<_, _> = members.iter().map(|member| (member.id, member.is_voter)).collect();
    for (node, known) in ids {
        if !known.iter().any(|id| voters.get(id) == Some(&true)) {
            continue;
        }
        let Some(description) = describe(peers, node, &PeerRequest::Describe).await else { continue };
        let Some(id) = description.id.filter(|id| voters.get(id) != Some(&true)) else { continue };
        if description.has_log && !known.contains(&id) {
            warn!(node, "store: the node has the log of another cluster; it is not replaced");
            continue;
        }
        let replaced = known.into_iter().filter(|known| *known != id).collect();
        info!(node, "store: the disk of a voter was replaced; adding the node under its new id");
        if let Err(error) = local.voter.add(id, node, &replaced).await {
            warn!(node, %error, "store: cannot replace a voter; trying again");
        }
    }
}
