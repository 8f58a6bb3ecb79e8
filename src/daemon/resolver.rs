//! Names that are not ours: who is asked for them, and who may ask us.

use std::{net::SocketAddr, sync::Arc};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Parts;
use crate::{
    checks,
    config::{self, Config},
    dns::{
        recursion::{Recursion, cache::Cache, loop_detection::LoopDetector},
        resolver::{self, Resolver, system},
    },
    metrics::Upstreams,
    model::upstream_address::UpstreamAddress,
};

/// Starts the resolver of an agent that answers at `own`; `None` where nobody may use it. With whom it asks for what no route
/// has.
pub(super) async fn start(
    config: &Config,
    own: Vec<SocketAddr>,
    metrics: Upstreams,
    parts: &mut Parts,
    shutdown: &CancellationToken,
) -> Option<(Resolver, Recursion, watch::Receiver<Vec<UpstreamAddress>>)> {
    let config = &config.resolver;
    if config.allow.is_empty() {
        return None;
    }
    let upstreams = match &config.upstreams {
        config::Upstreams::Servers(servers) => watch::Sender::new(servers.clone()).subscribe(),
        config::Upstreams::System => {
            let (upstreams, watching) = system::watch(own, shutdown.clone()).await;
            parts.spawn("watches resolv.conf", watching);
            upstreams
        }
    };
    let recursion = Recursion {
        allow: config.allow.clone(),
        routes: config.routes.iter().map(|(suffix, _)| suffix.clone()).collect(),
        cache: Arc::new(Cache::new(config.cache.size, config.cache.bounds)),
        echoes: Arc::new(LoopDetector::new(fastrand::u64(..))),
    };
    let options = resolver::Options {
        upstreams: upstreams.clone(),
        routes: config.routes.clone(),
        cache: recursion.cache.clone(),
        echoes: recursion.echoes.clone(),
        authorities: checks::system_roots,
        metrics,
    };
    let (resolver, work) = resolver::start(options, shutdown.clone());
    parts.spawn("resolves other names", work);
    Some((resolver, recursion, upstreams))
}
