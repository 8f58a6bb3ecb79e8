//! Routes requests of this node to a member that can carry them out: its own, the leader, or any voter.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use serde::de::DeserializeOwned;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout_at},
};
use tracing::debug;

use super::{
    describe::describe,
    exchange::{exchange, receive_in_parts},
    failure::Failure,
    held_answers::HeldAnswers,
    local::Local,
    membership::change,
    status::status,
};
use crate::store::{
    command::{Command, Outcome},
    lease::LifetimeId,
    message::{KnownMember, PeerRefusal, PeerRequest, StatusReply, decode},
    peers::{PeerError, Peers, ReplyStream},
    query::{Answer, Consistency, Query, Wait},
    request::{MembershipChange, Request, Status, StoreError},
    watch::{Watch, WatchMessage},
};

/// Time for which a request looks for a leader: longer than an election.
const PATIENCE: Duration = Duration::from_secs(7);
/// Time limit for a change of the voters: a learner needs a whole snapshot first.
const MEMBERSHIP: Duration = Duration::from_secs(300);
/// Time limit for the status of the leader.
const STATUS: Duration = Duration::from_secs(1);
/// Time limit for the states that voters without a leader see.
const VIEW: Duration = Duration::from_millis(700);
/// Time for which a request avoids a node that stops, which would not tell what became of it: as long as a node takes to stop.
const STOPPING: Duration = Duration::from_secs(3);
/// Pause before another attempt, so that nodes without a leader do not spin.
const RETRY: Duration = Duration::from_millis(50);

/// Routes requests.
#[derive(Clone)]
pub(super) struct Router {
    /// Name of this node.
    pub(super) own: Arc<str>,
    /// Names of the configured voters.
    pub(super) voters: Arc<[String]>,
    pub(super) peers: Peers,
    /// This node's member, if it has one.
    pub(super) local: watch::Receiver<Option<Local>>,
    /// Why this node's member does not run.
    pub(super) failure: Failure,
    /// Answers of other nodes that clients of this node have not taken yet.
    pub(super) held_answers: HeldAnswers,
    /// Names of the members and of the leader, as last heard.
    pub(super) known: Arc<Mutex<Known>>,
}

/// Members of the cluster, as this node has last heard of them.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) leader: Option<String>,
    pub(super) members: Vec<String>,
    pub(super) voters: Vec<String>,
}

/// Whether a request may be sent again if its outcome is unknown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    /// It changes nothing, or the same once more.
    Safe,
    /// It may have been applied.
    Unsafe,
}

impl Router {
    /// Carries out a request.
    pub(super) async fn carry_out(self, request: Request) {
        // A client that no longer waits has dropped its end.
        match request {
            Request::Write { command, mut done } => tokio::select! {
                outcome = self.write(command) => drop(done.send(outcome)),
                () = done.closed() => {}
            },
            Request::Read { query, consistency, wait, mut done } => tokio::select! {
                answer = self.read(query, consistency, wait) => drop(done.send(answer)),
                () = done.closed() => {}
            },
            Request::Watch { watch, messages } => self.watch(watch, messages).await,
            Request::Renew { id, done } => drop(done.send(self.renew(id).await)),
            Request::Status { done } => {
                let (failure, known_voters) = (self.failure.text(), self.known_voters());
                drop(done.send(Status { failure, known_voters, ..self.status().await }));
            }
            Request::Membership { change, done } => drop(done.send(self.change_membership(change).await)),
        }
    }

    async fn write(&self, command: Command) -> Result<Outcome, StoreError> {
        let (until, command) = (Instant::now() + PATIENCE, &command);
        let request = || PeerRequest::Write(command.clone());
        let here = |local: Local| async move { local.write(command.clone()).await };
        self.at_leader(request, Repeat::Unsafe, until, Duration::ZERO, here, Ok).await
    }

    async fn read(&self, query: Query, consistency: Consistency, wait: Option<Wait>) -> Result<Answer, StoreError> {
        if consistency == Consistency::Stale
            && let Some(local) = self.holding()
        {
            match local.read(&query, consistency, wait).await {
                Ok(answer) => return Ok(answer),
                Err(PeerRefusal::Failed(error)) => return Err(error),
                Err(PeerRefusal::NotLeader(leader)) => self.hear_of(leader),
                Err(PeerRefusal::Stopping) => self.hear_of(None),
            }
        }
        let longest = wait.map_or(Duration::ZERO, |wait| wait.limit);
        let until = Instant::now() + PATIENCE + longest;
        let query = &query;
        let request = || PeerRequest::Read { query: query.clone(), consistency, wait };
        let here = |local: Local| async move { local.read(query, consistency, wait).await };
        self.at_leader(request, Repeat::Safe, until, longest, here, |answer| self.held_answers.count(answer)).await
    }

    async fn renew(&self, id: LifetimeId) -> Result<Option<Duration>, StoreError> {
        let (until, request) = (Instant::now() + PATIENCE, || PeerRequest::Renew(id));
        let here = |local: Local| async move { local.renew(id).await };
        self.at_leader(request, Repeat::Safe, until, Duration::ZERO, here, Ok).await
    }

    async fn change_membership(&self, wanted: MembershipChange) -> Result<(), StoreError> {
        let (until, wanted) = (Instant::now() + PATIENCE, &wanted);
        let request = || PeerRequest::Membership(wanted.clone());
        let here = |local: Local| async move { change(&local, &self.peers, wanted).await.map_err(PeerRefusal::Failed) };
        self.at_leader(request, Repeat::Unsafe, until, MEMBERSHIP, here, Ok).await
    }

    /// The state of the store's cluster, from this node's member, the leader, or another voter.
    async fn status(&self) -> Status {
        let until = Instant::now() + STATUS;
        let here = |local: Local| async move { Ok(status(&local, &self.own)) };
        let asked = self.at_leader(|| PeerRequest::Status, Repeat::Safe, until, Duration::ZERO, here, Ok);
        if let Ok(Ok(status)) = timeout_at(until, asked).await {
            return status;
        }
        if let Some(local) = self.holding() {
            return status(&local, &self.own);
        }
        self.view().await.unwrap_or_else(|| match self.member() {
            Some(local) => status(&local, &self.own),
            None => Status { node: self.own.to_string(), ..Status::default() },
        })
    }

    /// The state of the store's cluster as the voter with the newest state sees it, while there is no leader.
    async fn view(&self) -> Option<Status> {
        let others = self.candidates().into_iter().filter(|node| **node != *self.own);
        let asked = others.map(|node| async move {
            let reply = self.peers.call(&node, PeerRequest::View.encode(), VIEW).await.ok()?;
            decode::<StatusReply>(&reply)?.ok()
        });
        let views = join_all(asked).await.into_iter().flatten();
        views.max_by_key(|view| (view.applied, view.last_log))
    }

    /// Watches here or on a voter. Ends without a word if the voter is gone: the client goes on elsewhere.
    async fn watch(&self, watch: Watch, messages: mpsc::Sender<WatchMessage>) {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until && !messages.is_closed() {
            // Asked each time: a member that has just founded the cluster holds the store a moment later.
            if let Some(local) = self.holding() {
                return local.watch(watch, &messages).await;
            }
            for node in self.candidates() {
                let Ok(mut received) = self.peers.stream(&node, PeerRequest::Watch(watch.clone()).encode()).await
                else {
                    continue;
                };
                // The first message tells that the node has a member.
                let Some(mut next) = receive_message(&mut received).await else { continue };
                while messages.send(next).await.is_ok() {
                    let Some(message) = receive_message(&mut received).await else { return };
                    next = message;
                }
                return;
            }
            sleep(RETRY).await;
        }
    }

    /// This node's member, if it has one.
    fn member(&self) -> Option<Local> {
        self.local.borrow().clone()
    }

    /// This node's member, if it holds the store.
    fn holding(&self) -> Option<Local> {
        self.member().filter(Local::holds_store)
    }

    /// This node's member, if it is the leader.
    fn leading(&self) -> Option<Local> {
        self.member().filter(Local::is_leader)
    }

    /// Carries out a request at the leader: by `here` on this node's member, or as a request to another node, whose outcome
    /// `received` takes. Looks for a leader until one carries it out. `longest` is added to the time limit of each attempt.
    async fn at_leader<T: DeserializeOwned, F: Future<Output = Result<T, PeerRefusal>>>(
        &self,
        request: impl Fn() -> PeerRequest,
        repeat: Repeat,
        until: Instant,
        longest: Duration,
        here: impl Fn(Local) -> F,
        received: impl Fn(T) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let (mut was_reached, mut next) = (false, None::<String>);
        let mut stopping = None::<(String, Instant)>;
        while Instant::now() < until {
            if let Some(local) = self.leading() {
                match timeout_at(until + longest, here(local)).await {
                    Ok(Ok(outcome)) => return Ok(outcome),
                    Ok(Err(PeerRefusal::Failed(error))) => return Err(error),
                    Ok(Err(PeerRefusal::NotLeader(leader))) => self.hear_of(leader),
                    Ok(Err(PeerRefusal::Stopping)) => self.hear_of(None),
                    Err(_) => return Err(StoreError::NoLeader),
                }
            }
            let candidates = match next.take() {
                Some(leader) => vec![leader],
                None => self.candidates(),
            };
            for node in candidates.iter().filter(|node| **node != *self.own) {
                if stopping.as_ref().is_some_and(|(name, since)| name == node && since.elapsed() < STOPPING) {
                    continue;
                }
                let limit = until.saturating_duration_since(Instant::now()).min(PATIENCE) + longest;
                match exchange(&self.peers, node, &request(), limit).await {
                    Ok(reply) => match decode::<Result<T, PeerRefusal>>(&reply) {
                        Some(Ok(outcome)) => {
                            self.hear_of(Some(node.clone()));
                            return received(outcome);
                        }
                        Some(Err(PeerRefusal::Failed(error))) => return Err(error),
                        Some(Err(PeerRefusal::NotLeader(leader))) => {
                            was_reached = true;
                            self.hear_of(leader.clone());
                            if leader.is_some() {
                                next = leader.filter(|leader| leader != node);
                                break;
                            }
                        }
                        Some(Err(PeerRefusal::Stopping)) => {
                            was_reached = true;
                            self.hear_of(None);
                            stopping = Some((node.clone(), Instant::now()));
                        }
                        None => debug!(node, "store: a reply cannot be read"),
                    },
                    // Nothing was sent.
                    Err(PeerError::Unreachable | PeerError::Overloaded) => {}
                    Err(_) if repeat == Repeat::Safe => {}
                    Err(_) => return Err(StoreError::NoLeader),
                }
            }
            sleep(RETRY).await;
        }
        // This node may hold one of the voters that are left.
        Err(if was_reached || self.holding().is_some() { StoreError::NoLeader } else { StoreError::Unreachable })
    }

    /// Names of nodes that may have a member, the leader first.
    fn candidates(&self) -> Vec<String> {
        let known = self.known();
        let mut names: Vec<String> = Vec::new();
        let role = self.local.borrow().as_ref().map(|local| local.voter.role());
        let leader = role.as_ref().and_then(|role| role.leader.as_ref()).or(known.leader.as_ref());
        let members = role.iter().flat_map(|role| &role.members).map(|member| &member.node);
        for name in leader.into_iter().chain(members).chain(&known.members).chain(&*self.voters) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
    }

    /// Names of the voters, as last heard of or as configured.
    fn known_voters(&self) -> Vec<String> {
        let known = self.known();
        if known.voters.is_empty() { self.voters.to_vec() } else { known.voters.clone() }
    }

    fn hear_of(&self, leader: Option<String>) {
        self.known().leader = leader;
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Learns the members from the voters from time to time: the configuration names the first ones only.
    pub(super) async fn follow_members(self) {
        loop {
            for node in self.candidates() {
                if *node == *self.own {
                    continue;
                }
                if let Some(description) = describe(&self.peers, &node, &PeerRequest::Describe).await
                    && !description.members.is_empty()
                {
                    let voters = description.members.iter().filter(|member| member.is_voter);
                    let voters = voters.map(|member| member.node.clone()).collect();
                    let mut known = self.known();
                    (known.members, known.voters) = (voters_first(&description.members), voters);
                    break;
                }
            }
            sleep(FOLLOW_MEMBERS).await;
        }
    }
}

/// The next message of a forwarded watch; `None` if the watch has ended.
async fn receive_message(received: &mut ReplyStream) -> Option<WatchMessage> {
    decode(&receive_in_parts(received).await?)
}

/// Time between two looks at the members.
const FOLLOW_MEMBERS: Duration = Duration::from_secs(10);

fn voters_first(members: &[KnownMember]) -> Vec<String> {
    let mut members: Vec<_> = members.iter().collect();
    members.sort_by_key(|member| !member.is_voter);
    members.into_iter().map(|member| member.node.clone()).collect()
}
