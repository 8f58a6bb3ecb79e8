//! A store of one voter in memory, with etcd's API on a port of its own.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use muster::{
    etcd::{Server, Settings},
    model::token::Tokens,
    store::{
        expiry::{Expiry, TermStart},
        query::{Answer, Content, Query},
        request::{MemberStatus, Request, Status, Store, StoreError},
        state::State,
        watch::{Change, Watch, WatchMessage},
    },
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    time::{Instant, interval},
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Octets that the store holds.
const MAX_OCTETS: u64 = 64 * 1024 * 1024;
/// Pause between two looks at deadlines, and between two reports of progress.
const TICK: Duration = Duration::from_millis(100);

/// A running store.
pub struct TestStore {
    /// Address of etcd's API.
    pub address: SocketAddr,
    voter: watch::Sender<Voter>,
    tokens: Option<watch::Sender<Tokens>>,
    shutdown: CancellationToken,
    _stop: DropGuard,
}

/// What a test does to the voter.
#[derive(Clone, Copy, Debug, Default)]
struct Voter {
    /// Number of times that the voter was lost: its watches end.
    losses: u64,
    /// True if there is no leader.
    is_headless: bool,
}

impl TestStore {
    /// Starts a store whose API needs no token.
    pub async fn start() -> Self {
        Self::with(None).await
    }

    /// Starts a store whose API needs one of these tokens, if there are any.
    pub async fn with(tokens: Option<Tokens>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, received) = mpsc::channel(64);
        let (voter, changed) = watch::channel(Voter::default());
        let shutdown = CancellationToken::new();
        tokio::spawn(run(received, changed));
        let urls = BTreeMap::from([("node-1".to_owned(), vec![format!("http://{address}")])]);
        let tokens = tokens.map(watch::Sender::new);
        let settings = Settings {
            store: Store::new(requests),
            tokens: tokens.as_ref().map(watch::Sender::subscribe),
            tls: None,
            client_urls: watch::channel(urls).1,
        };
        tokio::spawn(Server::new(settings, shutdown.clone()).serve(listener));
        Self { address, voter, tokens, _stop: shutdown.clone().drop_guard(), shutdown }
    }

    /// Replaces the tokens that the API needs.
    pub fn set_tokens(&self, tokens: Tokens) {
        self.tokens.as_ref().unwrap().send_replace(tokens);
    }

    /// Loses the voter: all its watches end, and clients of the store are connected to another one.
    pub fn lose_voter(&self) {
        self.voter.send_modify(|voter| voter.losses += 1);
    }

    /// Ends the server. The voter goes on.
    pub fn stop_server(&self) {
        self.shutdown.cancel();
    }

    /// Sets whether the store has a leader.
    pub fn set_headless(&self, is_headless: bool) {
        self.voter.send_modify(|voter| voter.is_headless = is_headless);
    }
}

async fn run(mut requests: mpsc::Receiver<Request>, voter: watch::Receiver<Voter>) {
    let started = Instant::now();
    let mut state = State::new(MAX_OCTETS);
    let (mut expiry, term) = (Expiry::default(), TermStart::default());
    let states = watch::Sender::new(state.clone());
    let mut tick = interval(TICK);
    loop {
        let request = tokio::select! {
            request = requests.recv() => request,
            _ = tick.tick() => {
                for command in expiry.due(started.elapsed()) {
                    state.apply(command);
                }
                expiry.follow(started.elapsed(), &state, term);
                states.send_replace(state.clone());
                continue;
            }
        };
        let Some(request) = request else { return };
        let is_headless = voter.borrow().is_headless;
        let leader = || if is_headless { Err(StoreError::NoLeader) } else { Ok(()) };
        match request {
            Request::Write { command, done } => {
                let outcome = leader().map(|()| state.apply(command));
                expiry.follow(started.elapsed(), &state, term);
                states.send_replace(state.clone());
                let _ = done.send(outcome);
            }
            Request::Read { query, done, .. } => {
                let answer = leader().and_then(|()| Ok(state.read(&query)?));
                let _ = done.send(answer.map(|answer| with_remaining(answer, &query, &expiry, started.elapsed())));
            }
            Request::Watch { watch, messages } => {
                tokio::spawn(follow(watch, messages, states.subscribe(), voter.clone()));
            }
            Request::Renew { id, done } => {
                let renewed = leader().map(|()| expiry.renew(started.elapsed(), id));
                let _ = done.send(renewed.map(|renewed| renewed.map(|renewed| renewed.ttl)));
            }
            Request::Status { done } => {
                let _ = done.send(status(&state, is_headless));
            }
            Request::Membership { done, .. } => {
                let _ = done.send(Err(StoreError::Membership("one voter only".to_owned())));
            }
        }
    }
}

fn with_remaining(mut answer: Answer, query: &Query, expiry: &Expiry, now: Duration) -> Answer {
    if let (Query::Lease(id), Content::Lease(Some(lease))) = (query, &mut answer.content) {
        let left = expiry.remaining(now, muster::store::lease::LifetimeId::Lease(*id));
        lease.remaining = left.unwrap_or_default().as_secs();
    }
    answer
}

fn status(state: &State, is_headless: bool) -> Status {
    let member = MemberStatus { id: 7, node: "node-1".to_owned(), is_voter: true, lag: None, unreached: None };
    Status {
        cluster_id: 42,
        member_id: 7,
        node: "node-1".to_owned(),
        leader: (!is_headless).then(|| "node-1".to_owned()),
        term: 3,
        revision: state.revision(),
        members: vec![member],
        max_octets: MAX_OCTETS,
        ..Status::default()
    }
}

/// Sends the changes of a range until the client or the voter is gone.
async fn follow(
    watch: Watch,
    messages: mpsc::Sender<WatchMessage>,
    mut states: watch::Receiver<State>,
    mut voter: watch::Receiver<Voter>,
) -> Option<()> {
    let losses = voter.borrow().losses;
    let now = states.borrow().revision();
    messages.send(WatchMessage::Began(now)).await.ok()?;
    let mut next = watch.from.unwrap_or(now.next());
    loop {
        let state = states.borrow_and_update().clone();
        if next < state.compacted() {
            messages.send(WatchMessage::Compacted(state.compacted())).await.ok()?;
            return None;
        }
        let revision = state.revision();
        let after = muster::store::key::Revision(next.0.saturating_sub(1));
        let changes: Vec<Change> =
            state.changes(after).filter(|change| watch.range.contains(&change.key)).cloned().collect();
        if revision >= next {
            next = revision.next();
            let message = if changes.is_empty() {
                WatchMessage::Progress(revision)
            } else {
                WatchMessage::Changes { revision, changes }
            };
            messages.send(message).await.ok()?;
        }
        tokio::select! {
            changed = states.changed() => changed.ok()?,
            changed = voter.changed() => {
                changed.ok()?;
                if voter.borrow().losses > losses {
                    return None;
                }
            }
            () = messages.closed() => return None,
        }
    }
}
