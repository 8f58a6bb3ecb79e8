//! Follows the addresses of the host, and reports when the node has no usable one.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Context;
use crate::{
    config::{AddressProblem, Config},
    host_addresses,
    model::host_addresses::HostAddresses,
};

/// The addresses of the host, for the rest of the agent.
pub(super) struct Addresses {
    /// The addresses.
    pub(super) host: watch::Receiver<HostAddresses>,
    /// The problem of the advertised addresses.
    pub(super) problem: watch::Receiver<Option<AddressProblem>>,
}

/// Follows the addresses.
pub(super) fn follow(context: &mut Context<'_>) -> Addresses {
    let (host, following) = host_addresses::follow(context.shutdown.clone());
    context.tasks.spawn("host address follower", following);
    let (problem, problems) = watch::channel(None);
    let reporting = report(context.config.clone(), host.clone(), problem, context.shutdown.clone());
    context.tasks.spawn("address reporter", reporting);
    Addresses { host, problem: problems }
}

/// Publishes and logs the problem of the advertised addresses.
async fn report(
    config: Config,
    mut host: watch::Receiver<HostAddresses>,
    problem: watch::Sender<Option<AddressProblem>>,
    shutdown: CancellationToken,
) {
    loop {
        let now = config.address_problem(&host.borrow_and_update());
        let before = problem.send_replace(now);
        match (before, now) {
            (before, Some(now)) if before != Some(now) => warn!(hint = now.hint(), "{now}"),
            (Some(AddressProblem::Lost(address)), None) => info!(%address, "the host has the advertised address again"),
            _ => {}
        }
        tokio::select! {
            changed = host.changed() => if changed.is_err() { return shutdown.cancelled().await },
            () = shutdown.cancelled() => return,
        }
    }
}
