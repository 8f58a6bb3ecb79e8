//! Starts the resolver for names outside the node's zones.

use std::{net::SocketAddr, sync::Arc};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::{Context, DaemonError, trust_anchors};
use crate::{
    config,
    dns::{
        collector::Tap,
        recursion::{Recursion, cache::Cache, loop_detection::LoopDetector, rebinding::RebindProtection},
        resolver::{self, Resolver, system},
        zone::Tables,
    },
    model::upstream_address::UpstreamAddress,
    tls,
};

/// The resolver, for the rest of the agent. All fields are `None` if `resolver.allow` lists no client.
#[derive(Default)]
pub(super) struct Resolution {
    /// Takes questions for upstreams.
    pub(super) resolver: Option<Resolver>,
    /// Access rules, routes and cache.
    pub(super) recursion: Option<Arc<Recursion>>,
    /// The upstreams of names without a route.
    pub(super) upstreams: Option<watch::Receiver<Vec<UpstreamAddress>>>,
}

/// Starts the resolver of an agent that answers at the addresses `own` from these tables. Messages to and from upstreams are recorded
/// with `tap`.
pub(super) async fn start(
    context: &mut Context<'_>,
    own: Vec<SocketAddr>,
    tables: &Arc<ArcSwap<Tables>>,
    tap: &Option<Tap>,
) -> Result<Resolution, DaemonError> {
    let (config, shutdown) = (&context.config.resolver, &context.shutdown);
    if config.allow.is_empty() {
        return Ok(Resolution::default());
    }
    let upstreams = match &config.upstreams {
        config::Upstreams::Servers(servers) => watch::Sender::new(servers.clone()).subscribe(),
        config::Upstreams::System => {
            let (upstreams, watching) = system::watch(own, shutdown.clone()).await;
            context.tasks.spawn("resolv.conf watcher", watching);
            upstreams
        }
    };
    let validation = match &config.validation {
        Some(validation) => Some(Arc::new(trust_anchors::scope(validation).map_err(DaemonError::TrustAnchors)?)),
        None => None,
    };
    let exceptions = config.rebind_protection.clone();
    let recursion = Recursion {
        allow: config.allow.clone(),
        routes: config.routes.clone(),
        rebind_protection: exceptions.map(|exceptions| RebindProtection { exceptions }),
        validation: validation.clone(),
        cache: Arc::new(Cache::new(config.cache.size, config.cache.bounds)),
        loop_detector: Arc::new(LoopDetector::new(fastrand::u64(..))),
    };
    let options = resolver::Options {
        upstreams: upstreams.clone(),
        routes: config.routes.clone(),
        cache: recursion.cache.clone(),
        loop_detector: recursion.loop_detector.clone(),
        authorities: tls::authorities::system_roots,
        tables: tables.clone(),
        rebind_protection: recursion.rebind_protection.clone(),
        validation,
        upstream_metrics: context.metrics.upstreams.clone(),
        metrics: context.metrics.resolver.clone(),
        tap: tap.clone(),
    };
    let (resolver, work) = resolver::start(options, shutdown.clone());
    context.tasks.spawn("resolver", work);
    Ok(Resolution { resolver: Some(resolver), recursion: Some(Arc::new(recursion)), upstreams: Some(upstreams) })
}
