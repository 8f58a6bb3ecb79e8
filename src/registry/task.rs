//! The task that owns what is registered and held on this node.

use std::{
    io,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::block_in_place,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    error::RegistryError,
    registration::Host,
    state::{Change, MAX_KEPT, Outcome, State},
};
use crate::model::{
    announcement::Announcements,
    maintenance::{Maintenance, TtlReport},
    service::{Definitions, InstanceKey},
    ttl_ledger::TtlLedger,
};

/// How often it is looked for services that have been critical for too long, and for TTLs that have run out:
/// `DeregisterCriticalServiceAfter` is in minutes.
const LOOK: Duration = Duration::from_secs(10);
/// What is said of the instances of a node whose agent drains before it stops.
const ABOUT_TO_STOP: &str = "its agent is about to stop";

/// A change that somebody waits for.
#[derive(Debug)]
pub struct Request {
    /// What.
    pub change: Change,
    /// Where the outcome goes; whoever asked may be gone.
    pub done: oneshot::Sender<Result<Outcome, RegistryError>>,
}

/// Where the state is read from.
pub struct Inputs {
    /// What the service files define.
    pub files: watch::Receiver<Definitions>,
    /// How everything here stands.
    pub announced: watch::Receiver<Announcements>,
    /// Seconds: the greatest TTL with which any node answers instances that name none.
    pub default_ttl: watch::Receiver<u32>,
    /// What clients ask for.
    pub requests: mpsc::Receiver<Request>,
    /// Ends when the agent is about to stop: all of the node is withdrawn then, and nothing of that is kept.
    pub withdraw: CancellationToken,
}

/// Where it goes.
pub struct Outputs {
    /// All that there is to check and to announce.
    pub definitions: watch::Sender<Definitions>,
    /// What is held back.
    pub maintenance: watch::Sender<Maintenance>,
    /// What applications report.
    pub beats: mpsc::Sender<TtlReport>,
    /// Once all was withdrawn: for how long answers with it may be in caches.
    pub withdrawn: watch::Sender<Option<Duration>>,
}

/// Stores the state's text, so that a crash leaves the old one or the new.
pub type Keep = Box<dyn Fn(&str) -> io::Result<()> + Send + Sync>;

/// What was kept, for this host, and whether that is all of it; what cannot be read is told in the log.
pub fn restore(text: Option<&str>, host: &Host) -> (State, bool) {
    let (mut state, lost) = text.map(|text| State::parse(text, host)).unwrap_or_default();
    let is_whole = lost.is_empty();
    for problem in lost {
        warn!(%problem, "something that was registered by HTTP cannot be read any more, and is left out");
    }
    state.expire(now());
    (state, is_whole)
}

/// Makes changes until `shutdown`.
pub async fn run(state: State, host: Host, keep: Keep, inputs: Inputs, outputs: Outputs, shutdown: CancellationToken) {
    let clock = Clock::start();
    let served = TtlLedger::resume(state.greatest_ttl(), clock.now());
    Task { state, host, keep, outputs, clock, served, stopping: None }.run(inputs, shutdown).await;
}

/// Time since 1970 that does not step: what is waited for must not run out because a clock was set.
struct Clock {
    started: Duration,
    at: Instant,
}

impl Clock {
    fn start() -> Self {
        Self { started: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(), at: Instant::now() }
    }

    fn now(&self) -> Duration {
        self.started + self.at.elapsed()
    }
}

struct Task {
    state: State,
    host: Host,
    keep: Keep,
    outputs: Outputs,
    clock: Clock,
    served: TtlLedger,
    /// Since when the agent is about to stop.
    stopping: Option<u64>,
}

impl Task {
    async fn run(mut self, inputs: Inputs, shutdown: CancellationToken) {
        let Inputs { mut files, mut announced, mut default_ttl, mut requests, withdraw } = inputs;
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Whether anybody asks for changes: without an HTTP API nobody does.
        let mut asked = true;
        self.follow(&announced.borrow_and_update().clone(), *default_ttl.borrow_and_update());
        loop {
            let end = self.state.maintenance().next_end();
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = files.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.outputs.definitions.send_replace(self.state.definitions(&files.borrow_and_update()));
                }
                Ok(()) = announced.changed() => {
                    self.follow(&announced.borrow_and_update().clone(), *default_ttl.borrow());
                }
                Ok(()) = default_ttl.changed() => {
                    self.follow(&announced.borrow().clone(), *default_ttl.borrow_and_update());
                }
                request = requests.recv(), if asked => match request {
                    Some(Request { change, done }) => {
                        let known = files.borrow().clone();
                        let outcome = self.make(change, &known).await;
                        // Whoever asked may be gone.
                        let _ = done.send(outcome);
                    }
                    None => asked = false,
                },
                () = withdraw.cancelled(), if self.stopping.is_none() => self.withdraw(&announced.borrow().clone()),
                _ = look.tick() => {
                    if self.served.forget(self.clock.now()) {
                        self.state.set_greatest_ttl(self.served.greatest());
                        self.store_or_warn();
                    }
                    if self.state.may_reap() {
                        self.reap(&announced.borrow().clone(), &files.borrow().clone());
                    }
                }
                () = sleep(until(end)), if end.is_some() => {
                    if self.state.expire(now()) {
                        info!("what was held back for a time is answered again");
                        self.store_or_warn();
                        self.show_upkeep();
                    }
                }
            }
        }
    }

    /// Takes over what is served now. A TTL greater than all before is on the disk before long: the next run has to know
    /// of it.
    fn follow(&mut self, own: &Announcements, default_ttl: u32) {
        if self.served.update(own, default_ttl, self.clock.now()) {
            self.state.set_greatest_ttl(self.served.greatest());
            self.store_or_warn();
        }
    }

    /// Takes the whole node out of answers, for as long as this run lasts.
    fn withdraw(&mut self, own: &Announcements) {
        let left = own.keys().map(|key| self.left(key)).max().unwrap_or_default();
        self.stopping = Some(now());
        self.show_upkeep();
        self.outputs.withdrawn.send_replace(Some(left));
    }

    /// For how long answers with an instance may be in caches.
    fn left(&self, key: &InstanceKey) -> Duration {
        let held = self.state.maintenance().since(key).map(Duration::from_secs);
        self.served.left(key, held, self.clock.now())
    }

    fn show_upkeep(&self) {
        let held = self.state.maintenance();
        let held = match self.stopping {
            Some(since) => held.with_node_drained(ABOUT_TO_STOP, since),
            None => held.clone(),
        };
        self.outputs.maintenance.send_if_modified(|known| replace(known, held));
    }

    fn reap(&mut self, announced: &Announcements, files: &Definitions) {
        let gone = self.state.reap(announced, files, now());
        if gone.is_empty() {
            return;
        }
        for id in &gone {
            info!(%id, "deregistered: it was critical for longer than its registration allows");
        }
        self.store_or_warn();
        self.outputs.definitions.send_replace(self.state.definitions(files));
    }

    async fn make(&mut self, change: Change, files: &Definitions) -> Result<Outcome, RegistryError> {
        let word = match &change {
            Change::Register { .. } => Some("registered by HTTP"),
            Change::Deregister(_) => Some("deregistered by HTTP"),
            _ => None,
        };
        let said = match &change {
            Change::Report { status, output, .. } => Some((*status, output.clone())),
            _ => None,
        };
        let mut next = self.state.clone();
        let mut outcome = next.apply(change, files, &self.host, now())?;
        // Before anything is withdrawn: what is held already is held on.
        outcome.left = outcome.instances.iter().map(|key| self.left(key)).max().unwrap_or_default();
        if outcome.changed {
            let text = next.to_text();
            if text.len() > MAX_KEPT && text.len() > self.state.to_text().len() {
                let what =
                    format!("All that is registered on this node has at most {MAX_KEPT} octets: deregister some.");
                return Err(RegistryError::Refused(what));
            }
            block_in_place(|| (self.keep)(&text)).map_err(|error| {
                RegistryError::NotKept(format!("It cannot be kept in data_dir, so it is not done: {error}"))
            })?;
            self.state = next;
            // What is registered anew as it was is no change.
            for (word, key) in word.iter().flat_map(|word| outcome.instances.iter().map(move |key| (word, key))) {
                info!(service = %key.service, id = %key.id, "{word}");
            }
            self.show_upkeep();
            if said.is_none() {
                self.outputs.definitions.send_replace(self.state.definitions(files));
            }
        }
        if let (Some((instance, check)), Some((status, output))) = (outcome.beat.clone(), said) {
            // The checks end with the agent alone.
            let _ = self.outputs.beats.send(TtlReport { instance, check, status, output }).await;
        }
        Ok(outcome)
    }

    fn store_or_warn(&self) {
        if let Err(error) = store(&self.keep, &self.state) {
            warn!(%error, "cannot keep what is registered: a restart begins with what was kept before");
        }
    }
}

fn replace<T: PartialEq>(held: &mut T, now: T) -> bool {
    let differs = *held != now;
    if differs {
        *held = now;
    }
    differs
}

fn store(keep: &Keep, state: &State) -> io::Result<()> {
    block_in_place(|| keep(&state.to_text()))
}

fn until(end: Option<u64>) -> Duration {
    // A second more: ends are whole seconds.
    end.map_or(Duration::MAX, |end| Duration::from_secs(end.saturating_sub(now())).max(Duration::from_millis(200)))
}

/// Seconds since 1970; 0 where the clock is before.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs())
}
