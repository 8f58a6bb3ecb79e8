//! The state for the next start: collected from the stages, stored in the data directory, and loaded.

use std::time::{Duration, Instant};

use tokio::{
    sync::{mpsc, watch},
    task::spawn_blocking,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{cluster, handover::Handover};
use crate::{
    clock::moment,
    data_dir::DataDir,
    files::reload::LastValid,
    gossip::{command::Command, known_peer::KnownPeer},
    model::{
        catalog::View,
        check_results::{CheckResults, Former, Moment},
        followed_host::KnownHosts,
    },
    saved_state::SavedState,
};

/// Shortest pause between two writes.
const PAUSE: Duration = Duration::from_secs(10);
/// Shortest pause as a multiple of the duration of a write: a large state on a slow disk takes at most 2 % of its time.
const PAUSE_FACTOR: u32 = 50;
/// Time for which a change waits for others, which come together.
const SETTLE: Duration = Duration::from_secs(1);

/// Parts of the agent that the state is collected from.
#[derive(Clone)]
pub(super) struct Sources {
    /// Takes the command for the peers.
    pub(super) commands: mpsc::Sender<Command>,
    /// Announcements of the peers: a change of it is one of the peers.
    pub(super) view: watch::Receiver<View>,
    /// Results of the checks.
    pub(super) results: watch::Receiver<CheckResults>,
    /// Addresses of host names of instances.
    pub(super) known_hosts: watch::Receiver<KnownHosts>,
    /// Last valid texts of files that are invalid.
    pub(super) last_valid: watch::Receiver<LastValid>,
}

impl Sources {
    /// Returns the current state; `None` if the node has ended or does not respond.
    pub(super) async fn collect(&self) -> Option<SavedState> {
        let peers = cluster::ask(&self.commands, |done| Command::Snapshot { done }).await;
        peers.map(|peers| self.with_peers(peers))
    }

    /// Returns the current state with these peers.
    pub(super) fn with_peers(&self, peers: Vec<KnownPeer>) -> SavedState {
        let files = self.last_valid.borrow().values().flatten().cloned().collect();
        let (checks, hosts) = (self.results.borrow().clone(), self.known_hosts.borrow().clone());
        SavedState { saved_at: moment(), peers, checks, hosts, files, valid_files: Vec::new() }
    }

    /// Waits for a change.
    async fn changed(&mut self) {
        let changed = tokio::select! {
            changed = self.view.changed() => changed,
            changed = self.results.changed() => changed,
            changed = self.known_hosts.changed() => changed,
            changed = self.last_valid.changed() => changed,
        };
        if changed.is_err() {
            // The agent ends.
            std::future::pending::<()>().await;
        }
    }

    fn mark_unchanged(&mut self) {
        self.view.mark_unchanged();
        self.results.mark_unchanged();
        self.known_hosts.mark_unchanged();
        self.last_valid.mark_unchanged();
    }
}

/// Stores the state at its changes until `shutdown`, at most once in [`PAUSE`]. A stored state that is still the current one
/// is marked as such.
pub(super) async fn run(mut sources: Sources, data_dir: DataDir, shutdown: CancellationToken) {
    let mut stored: Option<Moment> = None;
    let mut pause = SETTLE;
    loop {
        tokio::select! {
            () = sleep(pause) => {}
            () = shutdown.cancelled() => return,
        }
        // After a step of the system clock, the time of the stored state is of no use.
        let is_current = |stored: &Moment| moment().is_same_boot(stored);
        if stored.as_ref().is_some_and(is_current) {
            let changed = tokio::select! {
                () = sources.changed() => true,
                () = sleep(PAUSE) => false,
                () = shutdown.cancelled() => return,
            };
            if !changed {
                // Fails if the file was removed: the next round stores it again.
                if data_dir.touch_state().is_err() {
                    stored = None;
                }
                pause = Duration::ZERO;
                continue;
            }
            tokio::select! {
                () = sleep(SETTLE) => {}
                () = shutdown.cancelled() => return,
            }
        }
        sources.mark_unchanged();
        let Some(state) = sources.collect().await else {
            pause = PAUSE;
            continue;
        };
        let (saved_at, folder) = (state.saved_at, data_dir.clone());
        let began = Instant::now();
        let written = spawn_blocking(move || folder.store_state(&state.encode())).await;
        pause = (PAUSE_FACTOR * began.elapsed()).max(PAUSE);
        stored = matches!(written, Ok(Ok(()))).then_some(saved_at);
    }
}

/// State that a start goes on with.
pub(super) struct Loaded {
    pub(super) state: SavedState,
    /// Results of the former checks.
    pub(super) former: Former,
}

/// Returns the handed-over state, else the stored one.
pub(super) fn load(data_dir: &DataDir, handover: &Handover) -> Loaded {
    let now = moment();
    if let Some(state) = &handover.state {
        // The process is the same one: no step of the system clock matters.
        let away = now.uptime.saturating_sub(state.saved_at.uptime);
        return Loaded { former: Former::handed_over(state.checks.clone(), away), state: state.clone() };
    }
    let (state, valid_until) = read(data_dir).unwrap_or_default();
    Loaded { former: state.former(valid_until, &now), state }
}

fn read(data_dir: &DataDir) -> Option<(SavedState, Duration)> {
    let (octets, valid_until) = data_dir.load_state()?;
    match SavedState::decode(&octets) {
        Ok(state) => Some((state, valid_until)),
        Err(error) => {
            data_dir.keep_damaged_state(&error.to_string());
            None
        }
    }
}
