//! The task that owns what is registered and held on this node.

use std::{
    io,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::block_in_place,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    failure::Denied,
    registration::Host,
    state::{Change, MAX_KEPT, Outcome, State},
};
use crate::model::{
    announcement::Announcements,
    service::Definitions,
    upkeep::{Beat, Upkeep},
};

/// How often it is looked for services that have been critical for too long: `DeregisterCriticalServiceAfter` is in
/// minutes.
const REAP: Duration = Duration::from_secs(10);

/// A change that somebody waits for.
#[derive(Debug)]
pub struct Request {
    /// What.
    pub change: Change,
    /// Where the outcome goes; whoever asked may be gone.
    pub done: oneshot::Sender<Result<Outcome, Denied>>,
}

/// Where the state is read from.
pub struct Inputs {
    /// What the service files define.
    pub files: watch::Receiver<Definitions>,
    /// How everything here stands.
    pub announced: watch::Receiver<Announcements>,
    /// What clients ask for.
    pub requests: mpsc::Receiver<Request>,
}

/// Where it goes.
pub struct Outputs {
    /// All that there is to check and to announce.
    pub definitions: watch::Sender<Definitions>,
    /// What is held back.
    pub upkeep: watch::Sender<Upkeep>,
    /// What applications report.
    pub beats: mpsc::Sender<Beat>,
}

/// Stores the state's text, so that a crash leaves the old one or the new.
pub type Keep = Box<dyn Fn(&str) -> io::Result<()> + Send + Sync>;

/// What was kept, for this host; what of it cannot be read is told in the log.
pub fn restore(text: Option<&str>, host: &Host) -> State {
    let (mut state, lost) = text.map(|text| State::parse(text, host)).unwrap_or_default();
    for problem in lost {
        warn!(%problem, "something that was registered by HTTP cannot be read any more, and is left out");
    }
    state.expire(now());
    state
}

/// Makes changes until `shutdown`.
pub async fn run(
    mut state: State,
    host: Host,
    keep: Keep,
    inputs: Inputs,
    outputs: Outputs,
    shutdown: CancellationToken,
) {
    let Inputs { mut files, announced, mut requests } = inputs;
    let mut reap = interval(REAP);
    reap.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let end = state.upkeep().next_end();
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = files.changed() => {
                if changed.is_err() {
                    return;
                }
                outputs.definitions.send_replace(state.definitions(&files.borrow_and_update()));
            }
            request = requests.recv() => {
                // Without an HTTP API nobody asks for changes.
                let Some(Request { change, done }) = request else {
                    return keep_serving(state, files, outputs, shutdown).await;
                };
                let known = files.borrow().clone();
                let outcome = make(&mut state, change, &known, &host, &keep, &outputs).await;
                let _ = done.send(outcome);
            }
            _ = reap.tick(), if state.may_reap() => {
                let gone = state.reap(&announced.borrow(), now());
                if !gone.is_empty() {
                    for id in &gone {
                        info!(%id, "deregistered: it was critical for longer than its registration allows");
                    }
                    store_or_warn(&keep, &state);
                    outputs.definitions.send_replace(state.definitions(&files.borrow()));
                }
            }
            () = sleep(until(end)), if end.is_some() => {
                if state.expire(now()) {
                    info!("what was held back for a time is answered again");
                    store_or_warn(&keep, &state);
                    outputs.upkeep.send_replace(state.upkeep().clone());
                }
            }
        }
    }
}

/// Follows the files, where no changes can come any more.
async fn keep_serving(
    state: State,
    mut files: watch::Receiver<Definitions>,
    outputs: Outputs,
    shutdown: CancellationToken,
) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = files.changed() => {
                if changed.is_err() {
                    return;
                }
                outputs.definitions.send_replace(state.definitions(&files.borrow_and_update()));
            }
        }
    }
}

async fn make(
    state: &mut State,
    change: Change,
    files: &Definitions,
    host: &Host,
    keep: &Keep,
    outputs: &Outputs,
) -> Result<Outcome, Denied> {
    let word = match &change {
        Change::Register { .. } => Some("registered by HTTP"),
        Change::Deregister(_) => Some("deregistered by HTTP"),
        _ => None,
    };
    let said = match &change {
        Change::Report { status, output, .. } => Some((*status, output.clone())),
        _ => None,
    };
    let mut next = state.clone();
    let outcome = next.apply(change, files, host, now())?;
    if outcome.changed {
        let text = next.to_text();
        if text.len() > MAX_KEPT && text.len() > state.to_text().len() {
            let what = format!("All that is registered on this node has at most {MAX_KEPT} octets: deregister some.");
            return Err(Denied::Refused(what));
        }
        block_in_place(|| keep(&text))
            .map_err(|error| Denied::NotKept(format!("It cannot be kept in data_dir, so it is not done: {error}")))?;
        *state = next;
        // What is registered anew as it was is no change.
        for (word, key) in word.iter().flat_map(|word| outcome.instances.iter().map(move |key| (word, key))) {
            info!(service = %key.service, id = %key.id, "{word}");
        }
        outputs.upkeep.send_if_modified(|held| replace(held, state.upkeep()));
        if said.is_none() {
            outputs.definitions.send_replace(state.definitions(files));
        }
    }
    if let (Some((instance, check)), Some((status, output))) = (outcome.beat.clone(), said) {
        // The checks end with the agent alone.
        let _ = outputs.beats.send(Beat { instance, check, status, output }).await;
    }
    Ok(outcome)
}

fn replace(held: &mut Upkeep, now: &Upkeep) -> bool {
    let differs = held != now;
    if differs {
        held.clone_from(now);
    }
    differs
}

fn store(keep: &Keep, state: &State) -> io::Result<()> {
    block_in_place(|| keep(&state.to_text()))
}

fn store_or_warn(keep: &Keep, state: &State) {
    if let Err(error) = store(keep, state) {
        warn!(%error, "cannot keep what is registered: a restart begins with what was kept before");
    }
}

fn until(end: Option<u64>) -> Duration {
    // A second more: ends are whole seconds.
    end.map_or(Duration::MAX, |end| Duration::from_secs(end.saturating_sub(now())).max(Duration::from_millis(200)))
}

/// Seconds since 1970; 0 where the clock is before.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs())
}
