//! Names that are not ours: who is asked for them, and who may ask us.

use std::{net::SocketAddr, sync::Arc};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Parts;
use crate::{
    config::{Config, Upstreams},
    dns::{
        cache::Cache,
        engine::Recursion,
        resolver::{self, Resolver, system},
    },
};

/// Octets that replies of upstreams may take.
const CACHE: usize = 32 << 20;
/// Seconds beyond its TTL for which a reply is given if no upstream answers (RFC 8767 §5: one to three days).
const STALE: u32 = 24 * 60 * 60;

/// Starts the resolver of an agent that answers at `own`; `None` where nobody may use it.
pub(super) async fn start(
    config: &Config,
    own: Vec<SocketAddr>,
    parts: &mut Parts,
    shutdown: &CancellationToken,
) -> Option<(Resolver, Recursion)> {
    let allow = config.resolver.allow.clone();
    if allow.is_empty() {
        return None;
    }
    let cache = Arc::new(Cache::new(CACHE, STALE));
    let upstreams = match &config.resolver.upstreams {
        Upstreams::Servers(servers) => watch::Sender::new(servers.clone()).subscribe(),
        Upstreams::System => {
            let (upstreams, watching) = system::watch(own, shutdown.clone()).await;
            parts.spawn("watches resolv.conf", watching);
            upstreams
        }
    };
    let options = resolver::Options { upstreams, routes: config.resolver.routes.clone(), cache: cache.clone() };
    let (resolver, work) = resolver::start(options, shutdown.clone());
    parts.spawn("resolves other names", work);
    Some((resolver, Recursion { allow, cache }))
}
