//! Wires what clients of the HTTP API registered: from `data_dir`, beside the service files, to the checks.

use std::{path::Path, sync::Arc, time::Duration};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Parts;
use crate::{
    checks,
    config::Config,
    data_dir,
    model::{
        announcement::Announcements,
        member::{Member, Membership, Reach},
        service::Definitions,
    },
    registry::{
        registration::Host,
        state::State,
        task::{self, Inputs, Keep, Outputs, Request},
    },
};

/// Changes that wait for their turn, and reports for the checks.
const WAITING: usize = 64;

/// The registry, for the rest of the agent.
pub(super) struct Registry {
    /// Where changes are asked for.
    pub(super) requests: mpsc::Sender<Request>,
    /// For the greatest TTL of all nodes.
    pub(super) ttl: watch::Sender<u32>,
    /// Once all of the node was withdrawn: for how long answers with it may be in caches.
    pub(super) withdrawn: watch::Receiver<Option<Duration>>,
}

/// Starts it; what goes to the checks, and the way to it. `withdraw` takes all of the node out of answers.
pub(super) fn start(
    config: &Config,
    files: watch::Receiver<Definitions>,
    announced: watch::Receiver<Announcements>,
    withdraw: &CancellationToken,
    parts: &mut Parts,
    shutdown: &CancellationToken,
) -> (checks::Inputs, Registry) {
    let host = host(config);
    let state = restore(&config.data_dir, &host);
    let (definitions, all) = watch::channel(state.definitions(&files.borrow()));
    let (maintenance, held) = watch::channel(state.maintenance().clone());
    let (beats, heard) = mpsc::channel(WAITING);
    let (requests, asked) = mpsc::channel(WAITING);
    let folder = config.data_dir.clone();
    let keep: Keep = Box::new(move |text| data_dir::store_registered(&folder, text));
    let (ttl, default_ttl) = watch::channel(config.dns.ttl);
    let (outcome, withdrawn) = watch::channel(None);
    let inputs = Inputs { files, announced, default_ttl, requests: asked, withdraw: withdraw.clone() };
    let outputs = Outputs { definitions, maintenance, beats, withdrawn: outcome };
    parts.spawn("keeps what is registered", task::run(state, host, keep, inputs, outputs, shutdown.clone()));
    (checks::Inputs { definitions: all, maintenance: held, beats: heard }, Registry { requests, ttl, withdrawn })
}

/// Tells the registry with which TTL the nodes answer instances that name none: the greatest of them counts.
pub(super) async fn follow_ttls(
    own: u32,
    mut members: watch::Receiver<Arc<Membership>>,
    ttl: watch::Sender<u32>,
    shutdown: CancellationToken,
) {
    loop {
        let told = |member: &Member| member.ttl.filter(|_| !matches!(member.reach, Reach::Gone(_)));
        let greatest = members.borrow_and_update().members.iter().filter_map(told).max();
        let greatest = greatest.unwrap_or(own).max(own);
        ttl.send_if_modified(|known| std::mem::replace(known, greatest) != greatest);
        tokio::select! {
            changed = members.changed() => if changed.is_err() { return shutdown.cancelled().await },
            () = shutdown.cancelled() => return,
        }
    }
}

/// What was kept. What of it cannot be read stays beside it: the next change replaces it.
fn restore(folder: &Path, host: &Host) -> State {
    let text = data_dir::load_registered(folder).unwrap_or_else(|error| {
        warn!(%error, "cannot read what was registered by HTTP: the agent begins without");
        None
    });
    let (state, is_whole) = task::restore(text.as_deref(), host);
    if !is_whole {
        match data_dir::keep_damaged(folder) {
            Ok(copy) => warn!(copy = %copy.display(), "what was registered by HTTP is kept as it was in a copy"),
            Err(error) => {
                warn!(%error, "what was registered by HTTP cannot be copied, and the next change replaces it");
            }
        }
    }
    state
}

/// What registrations take from this node.
pub(super) fn host(config: &Config) -> Host {
    Host { node: config.node.clone(), addresses: config.advertise.clone() }
}
