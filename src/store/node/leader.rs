//! Duties of the leader: ends leases and sessions whose time is over or whose node or check has failed, ends lock delays, and
//! replaces voters that lost their disk.
//!
//! Every voter keeps the deadlines, which follow from the log ([`Expiry`]); only the leader acts on them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{describe::describe, local::Local, renewal::Renewal};
use crate::{
    model::catalog::Catalog,
    store::{
        command::Command,
        expiry::Expiry,
        message::PeerRequest,
        peers::Peers,
        raft::{Applied, Voter},
        session_health::SessionHealth,
    },
};

/// Time between two looks at the nodes and checks that sessions are bound to.
const SESSION_CHECK: Duration = Duration::from_secs(1);
/// Time between two looks for voters that lost their disk.
const REPLACEMENT: Duration = Duration::from_secs(3);
/// Shortest time between two looks at new leases and sessions. All have a longer time to live.
const FOLLOW: Duration = Duration::from_millis(100);
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
        let mut deadlines = Deadlines::new(&self.local.voter);
        let mut follow = steady(FOLLOW);
        loop {
            // Without a confirmation, the entries of the former leader may not be applied yet.
            if self.may_lead() && self.local.voter.confirm().await.is_ok() {
                info!(term = self.local.voter.role().term, "store: this node is the leader");
                tokio::select! {
                    () = self.lead(&mut deadlines) => {}
                    () = shutdown.cancelled() => return,
                }
                if !self.local.resigning.is_cancelled() {
                    self.report_end();
                }
            }
            tokio::select! {
                changed = roles.changed() => if !changed { return },
                // A leader that no majority confirmed tries again, too.
                _ = follow.tick() => deadlines.follow(),
                // Clients ask another node, or wait until there is a leader.
                Some(refused) = self.renewals.recv() => drop(refused),
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Logs why this node is no longer the leader.
    fn report_end(&self) {
        let voter = &self.local.voter;
        if voter.has_failed() {
            // The failure is logged when the member starts again.
            warn!("store: this node is no longer the leader: it cannot write its log");
        } else if voter.leads() {
            warn!(
                "store: this node is no longer the leader: no majority of the voters has replied for 2 s. Writes wait until one is \
                 reached: see `muster store status`"
            );
        } else if !voter.is_voter() {
            info!("store: this node is no longer the leader: it was removed from the voters");
        } else {
            info!(leader = voter.role().leader, "store: this node is no longer the leader: another election has begun");
        }
    }

    /// Reports whether this member is the leader, as far as it knows, and does not resign.
    fn may_lead(&self) -> bool {
        self.local.voter.leads() && !self.local.resigning.is_cancelled()
    }

    /// Carries out the duties until this member is no longer the leader, or no majority confirms it: renewals do not arrive
    /// then, and clients get time for them afterwards.
    async fn lead(&mut self, deadlines: &mut Deadlines) {
        deadlines.follow();
        deadlines.expiry.lead(deadlines.now());
        self.agree_on_size().await;
        let mut health = SessionHealth::default();
        let mut sessions = steady(SESSION_CHECK);
        let mut replacement = steady(REPLACEMENT);
        let mut follow = steady(FOLLOW);
        let replacing = Arc::new(tokio::sync::Semaphore::new(1));
        while self.local.is_leader() {
            let next = deadlines.next();
            tokio::select! {
                Some(renewal) = self.renewals.recv() => self.renew(deadlines, renewal).await,
                _ = follow.tick() => deadlines.follow(),
                // A process that was stopped finds deadlines passed, and no recent confirmation.
                () = sleep_until(next) => if self.local.is_leader() {
                    for command in deadlines.expiry.due(deadlines.now()) {
                        self.propose(command).await;
                    }
                },
                _ = sessions.tick() => {
                    let state = self.local.voter.state();
                    let catalog = self.catalog.borrow().clone();
                    let ended = health.ended(deadlines.now(), state.sessions(), &catalog);
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

    async fn renew(&self, deadlines: &mut Deadlines, renewal: Renewal) {
        // A lease that was just granted may not be known yet.
        deadlines.follow();
        let now = deadlines.now();
        // A client that no longer waits has dropped its end.
        match renewal {
            Renewal::Renew { id, done } => match deadlines.expiry.renew(now, id) {
                Some(renewed) if renewed.record => {
                    let ttl = renewed.ttl;
                    let recorded = self.local.voter.queue(Command::RecordRemaining { id, remaining: ttl }).await;
                    tokio::spawn(async move {
                        drop(done.send(recorded.await.map(|_| Some(ttl))));
                    });
                }
                renewed => drop(done.send(Ok(renewed.map(|renewed| renewed.ttl)))),
            },
            Renewal::Remaining { id, done } => drop(done.send(deadlines.expiry.remaining(now, id))),
        }
    }

    /// Proposes a command behind all earlier ones: a record of the time left must not overtake that of a renewal. The command
    /// is due again if it fails.
    async fn propose(&self, command: Command) {
        drop(self.local.voter.queue(command).await);
    }
}

/// Deadlines by the clock of this node, which follow the applied state.
struct Deadlines {
    began: Instant,
    expiry: Expiry,
    applied: watch::Receiver<Applied>,
}

impl Deadlines {
    fn new(voter: &Voter) -> Self {
        let mut applied = voter.applied();
        applied.mark_changed();
        Self { began: Instant::now(), expiry: Expiry::default(), applied }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Takes over what was applied since the last call.
    fn follow(&mut self) {
        if self.applied.has_changed().unwrap_or(false) {
            let applied = self.applied.borrow_and_update().clone();
            self.expiry.follow(self.now(), &applied.state, applied.term);
        }
    }

    /// The time at which a command is due.
    fn next(&self) -> Instant {
        self.expiry.next().map_or_else(|| Instant::now() + NO_DEADLINE, |due| self.began + due)
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
