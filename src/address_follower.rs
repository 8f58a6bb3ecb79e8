//! Addresses of instances and external nodes that are registered with a host name.
//!
//! ```text
//! definitions, external nodes ──► schedule ──► the same with addresses
//!                                  │    ▲
//!                                  └─ lookup (the agent's resolver)
//! ```
//!
//! A name is looked up at once, then again at the end of its TTL, within bounds. A failed lookup keeps the addresses.
//! [`schedule`] decides, and this module runs the lookups.

mod external;
mod host;
pub mod schedule;

use std::{pin::Pin, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::schedule::{Change, Outcome, Schedule};
use crate::{
    model::{
        followed_host::{HostName, KnownHosts},
        list::List,
        name::Name,
        service::Definitions,
    },
    registry::external::Announced,
};

/// Maximum number of lookups at once: many names must not fill the queue of the resolver.
const MAX_LOOKUPS: usize = 16;

/// Looks up the addresses of a host name, in some seconds at most.
pub type Lookup = Arc<dyn Fn(Name) -> Pin<Box<dyn Future<Output = Outcome> + Send>> + Send + Sync>;

/// Inputs of the follower.
pub struct Inputs {
    /// Definitions of files and clients.
    pub definitions: watch::Receiver<Definitions>,
    /// Registered external nodes with their instances.
    pub external: watch::Receiver<Announced>,
    /// Lookup of a name, once there is one.
    pub lookup: watch::Receiver<Option<Lookup>>,
}

/// Outputs of the follower.
pub struct Outputs {
    /// The definitions, with addresses of host names.
    pub definitions: watch::Sender<Definitions>,
    /// The external nodes with their instances, with addresses of host names.
    pub external: watch::Sender<Announced>,
    /// Addresses of host names, for the next start.
    pub known: watch::Sender<KnownHosts>,
}

/// Follows the host names of the inputs, of which `schedule` has the first.
pub async fn run(mut schedule: Schedule, inputs: Inputs, outputs: Outputs, shutdown: CancellationToken) {
    let Inputs { mut definitions, mut external, mut lookup } = inputs;
    let began = Instant::now();
    let mut lookups: JoinSet<(HostName, Outcome)> = JoinSet::new();
    loop {
        let ask = lookup.borrow_and_update().clone();
        if let Some(ask) = &ask {
            for name in schedule.take_due(began.elapsed(), MAX_LOOKUPS - lookups.len()) {
                let found = ask(name.name());
                lookups.spawn(async move { (name, found.await) });
            }
        }
        let has_room = ask.is_some() && lookups.len() < MAX_LOOKUPS;
        let next = schedule.next().filter(|_| has_room).map(|due| began + due);
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = definitions.changed() => {
                if changed.is_err() {
                    return shutdown.cancelled().await;
                }
                let defined = definitions.borrow_and_update().clone();
                schedule.define(defined, began.elapsed());
                publish(&schedule, &outputs);
            }
            changed = external.changed() => {
                if changed.is_err() {
                    return shutdown.cancelled().await;
                }
                let registered = external.borrow_and_update().clone();
                schedule.define_external(registered, began.elapsed());
                publish(&schedule, &outputs);
            }
            changed = lookup.changed(), if ask.is_none() => {
                if changed.is_err() {
                    return shutdown.cancelled().await;
                }
            }
            Some(Ok((name, outcome))) = lookups.join_next() => {
                let change = schedule.finish(&name, outcome, began.elapsed());
                log(&name, &change);
                if change != Change::Nothing {
                    publish(&schedule, &outputs);
                }
            }
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
        }
    }
}

/// Returns a schedule with the first definitions and external nodes.
pub fn begin(definitions: Definitions, external: Announced, former: KnownHosts) -> Schedule {
    let mut schedule = Schedule::new(former);
    schedule.define(definitions, Duration::ZERO);
    schedule.define_external(external, Duration::ZERO);
    schedule
}

fn publish(schedule: &Schedule, outputs: &Outputs) {
    outputs.known.send_if_modified(|known| {
        let now = schedule.known();
        let differs = *known != now;
        *known = now;
        differs
    });
    outputs.definitions.send_replace(schedule.followed().clone());
    outputs.external.send_replace(schedule.external().clone());
}

fn log(name: &HostName, change: &Change) {
    let listed = |addresses: &List<_>| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match change {
        Change::Nothing => {}
        Change::Addresses(addresses) => info!(host = %name, addresses = listed(addresses), "host name resolved"),
        Change::Recovered(addresses) => info!(host = %name, addresses = listed(addresses), "host name resolved again"),
        Change::Failed(reason) => {
            warn!(host = %name, %reason, "host name not resolved; its last addresses stay in use");
        }
    }
}
