//! Wires what clients of the HTTP API registered: from `data_dir`, beside the service files, to the checks.

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::Parts;
use crate::{
    checks,
    config::Config,
    data_dir,
    model::{announcement::Announcements, service::Definitions},
    registry::{
        registration::Host,
        task::{self, Inputs, Keep, Outputs, Request},
    },
};

/// Changes that wait for their turn, and reports for the checks.
const WAITING: usize = 64;

/// Starts it; what goes to the checks, and where changes are asked for.
pub(super) fn start(
    config: &Config,
    files: watch::Receiver<Definitions>,
    announced: watch::Receiver<Announcements>,
    parts: &mut Parts,
    shutdown: &CancellationToken,
) -> (checks::Inputs, mpsc::Sender<Request>) {
    let host = host(config);
    let state = task::restore(data_dir::load_registered(&config.data_dir).as_deref(), &host);
    let (definitions, all) = watch::channel(state.definitions(&files.borrow()));
    let (upkeep, held) = watch::channel(state.upkeep().clone());
    let (beats, heard) = mpsc::channel(WAITING);
    let (requests, asked) = mpsc::channel(WAITING);
    let folder = config.data_dir.clone();
    let keep: Keep = Box::new(move |text| data_dir::store_registered(&folder, text));
    let inputs = Inputs { files, announced, requests: asked };
    let outputs = Outputs { definitions, upkeep, beats };
    parts.spawn("keeps what is registered", task::run(state, host, keep, inputs, outputs, shutdown.clone()));
    (checks::Inputs { definitions: all, upkeep: held, beats: heard }, requests)
}

/// What registrations take from this node.
pub(super) fn host(config: &Config) -> Host {
    Host { node: config.node.clone(), addresses: config.advertise.clone() }
}
