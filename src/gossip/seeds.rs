//! Seed discovery: configured addresses and host names, and peers remembered from before a restart.
//!
//! A host name is resolved at every attempt. Attempts never end; their interval grows up to a bound and starts small again
//! whenever the node is alone. Gossip maintains the peers that were found.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use tokio::{
    net::lookup_host,
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::model::service::Endpoint;

/// Initial interval.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest interval while no peer is reached.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Interval once all seeds are reached: detects a seed that restarts under a new address.
const SETTLED: Duration = Duration::from_secs(30);
/// Time limit for resolving a name. The resolver may be this agent, which is not answering yet.
const RESOLVE: Duration = Duration::from_secs(5);
/// Number of remembered peers that are tried at once: one answer is enough.
const REMEMBERED: usize = 8;

/// Addresses to contact.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    /// Seeds of the configuration.
    pub configured: Vec<Endpoint>,
    /// Peers known before the restart, tried while the node is alone.
    pub remembered: Vec<SocketAddr>,
}

/// Sends seed addresses that are not among `peers` to `found` until `shutdown`. `peers` holds the gossip addresses of
/// reachable peers. `own` is left out.
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
    let mut joined = false;
    // Ends with the node as well.
    while peers.has_changed().is_ok() {
        let mut missing = 0;
        for endpoint in &configured {
            match resolve(endpoint).await {
                Ok(addresses) => {
                    if unresolved.remove(&endpoint.host) {
                        info!(host = %endpoint.host, "gossip.join resolves again");
                    }
                    let known = peers.borrow().clone();
                    // One name may have the addresses of many nodes. Each is tried; one that answers is enough.
                    let new = addresses.iter().filter(|address| !known.contains(address) && **address != own);
                    for address in new {
                        missing += 1;
                        let _ = found.send(*address).await;
                    }
                }
                Err(error) => {
                    missing += 1;
                    if unresolved.insert(endpoint.host.clone()) {
                        warn!(host = %endpoint.host, %error, "gossip.join: cannot resolve; retrying");
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
            // The peers were lost: start over.
            (true, _) if joined => FIRST_PAUSE,
            (true, _) => (pause * 2).min(LONGEST_PAUSE),
            (false, 0) => SETTLED,
            (false, _) => (pause * 2).min(SETTLED),
        };
        joined = !alone;
        // Jitter keeps nodes that start together from attempting in step.
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
            // The channel is closed: the node has ended.
            known = lost => if !known { return },
            () = shutdown.cancelled() => return,
        }
    }
}

/// Resolves an endpoint to addresses.
///
/// # Errors
/// Returns the system resolver's error as text.
pub async fn resolve(endpoint: &Endpoint) -> Result<Vec<SocketAddr>, String> {
    if let Ok(ip) = endpoint.host.parse() {
        return Ok(vec![SocketAddr::new(ip, endpoint.port)]);
    }
    match timeout(RESOLVE, lookup_host((endpoint.host.as_str(), endpoint.port))).await {
        Ok(Ok(addresses)) => Ok(addresses.collect()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("lookup timed out after {} s", RESOLVE.as_secs())),
    }
}
