//! Finding the others: addresses and host names that the configuration gives, and peers of before the restart.
//!
//! A host name is resolved anew at every attempt. Attempts go on for ever, each pause longer than the last up to a bound,
//! and begin anew at short ones whenever the node is alone. Who has been found is gossip's to keep.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use tokio::{
    net::lookup_host,
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::model::service::Endpoint;

/// The first pause.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause while nobody was found.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The pause once all were found: one that restarts elsewhere under its name is found then.
const SETTLED: Duration = Duration::from_secs(30);
/// How long a name may take to resolve. The resolver may be this very agent, which is not answering yet.
const RESOLVE: Duration = Duration::from_secs(5);
/// Peers of before that are tried at once: one that answers is enough.
const REMEMBERED: usize = 8;

/// Whom to look for.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    /// Of the configuration.
    pub configured: Vec<Endpoint>,
    /// Peers of before the restart, tried while the node is alone.
    pub remembered: Vec<SocketAddr>,
}

/// Sends addresses to `found` until `shutdown`: those of targets that are not among `peers`, which holds where peers that
/// are reached gossip. `own` is left out.
pub async fn run(
    targets: Targets,
    own: SocketAddr,
    peers: watch::Receiver<BTreeSet<SocketAddr>>,
    found: mpsc::Sender<SocketAddr>,
    mut rng: fastrand::Rng,
    shutdown: CancellationToken,
) {
    let Targets { configured, mut remembered } = targets;
    let mut pause = FIRST_PAUSE;
    let mut unresolved = BTreeSet::new();
    let mut met = false;
    // Ends with the node, too.
    while peers.has_changed().is_ok() {
        let mut missing = 0;
        for endpoint in &configured {
            match resolve(endpoint).await {
                Ok(addresses) => {
                    if unresolved.remove(&endpoint.host) {
                        info!(host = %endpoint.host, "gossip.join resolves again");
                    }
                    let known = peers.borrow().clone();
                    // One name may stand for many nodes: any of them is a way in, and each is tried.
                    let new = addresses.iter().filter(|address| !known.contains(address) && **address != own);
                    for address in new {
                        missing += 1;
                        let _ = found.send(*address).await;
                    }
                }
                Err(error) => {
                    missing += 1;
                    if unresolved.insert(endpoint.host.clone()) {
                        warn!(host = %endpoint.host, %error, "gossip.join: cannot resolve; it is tried again until it can be");
                    }
                }
            }
        }
        let alone = peers.borrow().is_empty();
        if alone {
            rng.shuffle(&mut remembered);
            for address in remembered.iter().filter(|address| **address != own).take(REMEMBERED) {
                let _ = found.send(*address).await;
            }
        }
        pause = match (alone, missing) {
            // Lost after it had been found: as at the start.
            (true, _) if met => FIRST_PAUSE,
            (true, _) => (pause * 2).min(LONGEST_PAUSE),
            (false, 0) => SETTLED,
            (false, _) => (pause * 2).min(SETTLED),
        };
        met = !alone;
        // Nodes that start together must not keep step.
        let jitter = pause.mul_f64(0.75 + rng.f64() / 2.0);
        let mut watched = peers.clone();
        let lost = async {
            match alone {
                false => watched.wait_for(BTreeSet::is_empty).await.is_ok(),
                true => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep(jitter) => {}
            // Nobody reaches peers any more, where the node has ended.
            known = lost => if !known { return },
            () = shutdown.cancelled() => return,
        }
    }
}

/// The addresses of an endpoint.
///
/// # Errors
/// What the system's resolver said, for a person to read.
pub async fn resolve(endpoint: &Endpoint) -> Result<Vec<SocketAddr>, String> {
    if let Ok(ip) = endpoint.host.parse() {
        return Ok(vec![SocketAddr::new(ip, endpoint.port)]);
    }
    match timeout(RESOLVE, lookup_host((endpoint.host.as_str(), endpoint.port))).await {
        Ok(Ok(addresses)) => Ok(addresses.collect()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", RESOLVE.as_secs())),
    }
}
