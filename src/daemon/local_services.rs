//! Starts this node's own services: the registry, which keeps what clients register, and the health checks.

use std::{net::IpAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Context, own_announcements, resolver::Resolution};
use crate::{
    address_follower::{self, Lookup},
    checks::{self, Checked},
    config::Config,
    data_dir::DataDir,
    dns::{resolver::host_lookup::HostLookup, zone::Tables},
    gossip::node::OwnState,
    model::{
        announcement::Announcements,
        check_results::{CheckResults, Former},
        followed_host::KnownHosts,
        maintenance::Maintenance,
        member::{Member, Membership, Reach},
        report_texts::ReportTexts,
        service::{Check, Definitions},
    },
    registry::{
        external::Announced,
        registration::Host,
        request::Queue,
        state::State,
        task::{self, Inputs, Outputs, Store},
    },
};

/// Capacity of the queue of TTL reports.
const QUEUE: usize = 64;
/// Time limit for the first announcement of the loaded services; afterwards the agent answers without them.
const FIRST_ANNOUNCEMENT: Duration = Duration::from_secs(10);

/// This node's services, for the rest of the agent.
pub(super) struct LocalServices {
    /// Number of services at the start.
    pub(super) loaded: usize,
    /// Definitions of files and clients.
    pub(super) definitions: watch::Receiver<Definitions>,
    /// Drains and maintenance.
    pub(super) maintenance: watch::Receiver<Maintenance>,
    /// The definitions with their health, and the instances on external nodes.
    pub(super) announcements: watch::Receiver<Announcements>,
    /// State that the node announces: these, external nodes, and the results of the checks of the node.
    pub(super) own: watch::Receiver<OwnState>,
    /// The checks of the node as a whole.
    pub(super) node_checks: watch::Receiver<Arc<[Check]>>,
    /// The results of all checks, to be stored.
    pub(super) results: watch::Receiver<CheckResults>,
    /// Newest texts of TTL reports.
    pub(super) report_texts: watch::Receiver<ReportTexts>,
    /// Addresses of host names of instances, to be stored.
    pub(super) known_hosts: watch::Receiver<KnownHosts>,
    /// Takes the lookup of these names.
    pub(super) host_lookup: watch::Sender<Option<Lookup>>,
    /// Takes changes of the registry.
    pub(super) requests: Queue,
    /// Time for which caches may still have answers with this node's instances; set when all are withdrawn.
    pub(super) withdrawn: watch::Receiver<Option<Duration>>,
    /// The largest default TTL of all nodes.
    default_ttl: watch::Sender<u32>,
}

/// Starts the registry, which carries out `requests`, and the checks, which continue from `former` results. `drain` withdraws all
/// instances of the node.
pub(super) async fn start(
    context: &mut Context<'_>,
    files: watch::Receiver<Definitions>,
    requests: Queue,
    drain: &CancellationToken,
    former: Former,
    former_hosts: KnownHosts,
) -> LocalServices {
    let config = context.config;
    let host = host(config);
    let mut state = restore(&context.data_dir, &host);
    state.set_configured_checks(config.checks.node.clone());
    let (defined, definitions) = watch::channel(state.definitions(&files.borrow()));
    let (node_defined, node_checks) = watch::channel(state.node_checks());
    let (held, maintenance) = watch::channel(state.maintenance().clone());
    let (checked, checked_now) = watch::channel(Checked::default());
    let (announced, mut announcements) = watch::channel(Announcements::new());
    let registered = state.announced(&Announced::default());
    let on_nodes = registered.instances.keys().filter(|key| !definitions.borrow().contains_key(&***key)).count();
    let schedule = address_follower::begin(definitions.borrow().clone(), registered.clone(), former_hosts);
    let external = schedule.external().clone();
    let (announced_own, own) = watch::channel(OwnState { external: external.nodes.clone(), ..OwnState::default() });
    let (registered, registered_now) = watch::channel(registered);
    let (external, external_now) = watch::channel(external);
    let (report, ttl_reports) = mpsc::channel(QUEUE);
    let (ttl, default_ttl) = watch::channel(config.dns.ttl);
    let (outcome, withdrawn) = watch::channel(None);
    let folder = context.data_dir.clone();
    let store: Store = Box::new(move |text| folder.store_registered(text));
    let inputs = Inputs {
        files,
        announced: announcements.clone(),
        default_ttl,
        requests: requests.clone(),
        withdraw: drain.clone(),
    };
    let outputs = Outputs {
        definitions: defined,
        external: registered,
        node_checks: node_defined,
        maintenance: held,
        ttl_reports: report,
        withdrawn: outcome,
    };
    let registry = task::run(state, host, store, inputs, outputs, context.shutdown.clone());
    context.tasks.spawn("registry", registry);

    let outputs = own_announcements::Outputs { own: announced_own, announcements: announced };
    let merging = own_announcements::merge(checked_now, external_now, outputs, context.shutdown.clone());
    context.tasks.spawn("own announcements", merging);

    let loaded = definitions.borrow().len();
    let (host_lookup, lookup) = watch::channel(None);
    let (followed, with_addresses) = watch::channel(schedule.followed().clone());
    let (hosts, known_hosts) = watch::channel(schedule.known());
    let inputs = address_follower::Inputs { definitions: definitions.clone(), external: registered_now, lookup };
    let outputs = address_follower::Outputs { definitions: followed, external, known: hosts };
    let following = address_follower::run(schedule, inputs, outputs, context.shutdown.clone());
    context.tasks.spawn("address follower", following);

    let inputs = checks::Inputs {
        definitions: with_addresses,
        node: config.node.clone(),
        node_checks: node_checks.clone(),
        maintenance: maintenance.clone(),
        ttl_reports,
        former,
    };
    let (kept, results) = watch::channel(CheckResults::new());
    let (texts, report_texts) = watch::channel(ReportTexts::new());
    let outputs = checks::Outputs { checked, results: kept, texts };
    let options = checks::Options {
        metrics: context.metrics.checks.clone(),
        ..checks::Options::for_this_process(config.checks.allow_exec.in_files(), fastrand::u64(..))
    };
    context.tasks.spawn("health checks", checks::run(inputs, outputs, options, context.shutdown.clone()));
    // A client that starts with the agent must not learn that a service of this node does not exist.
    let all = announcements.wait_for(|now| now.len() >= loaded + on_nodes);
    if timeout(FIRST_ANNOUNCEMENT, all).await.is_err() {
        warn!("checks are slow to start; some services are not answered yet");
    }
    LocalServices {
        loaded,
        definitions,
        maintenance,
        announcements,
        own,
        node_checks,
        results,
        report_texts,
        known_hosts,
        host_lookup,
        requests,
        withdrawn,
        default_ttl: ttl,
    }
}

impl LocalServices {
    /// Begins to look up host names of instances, in these tables and at the resolver's upstreams.
    pub(super) fn look_up_hosts(&self, config: &Config, tables: &Arc<ArcSwap<Tables>>, resolution: &Resolution) {
        let allow_loopback = config.advertise.addresses().iter().all(IpAddr::is_loopback);
        let (resolver, recursion) = (resolution.resolver.clone(), resolution.recursion.as_deref());
        let lookup = Arc::new(HostLookup::new(tables.clone(), resolver, recursion, allow_loopback));
        let ask: Lookup = Arc::new(move |name| {
            let lookup = lookup.clone();
            Box::pin(async move {
                let found = lookup.addresses(&name).await.map_err(|error| error.to_string())?;
                Ok((found.addresses, found.ttl))
            })
        });
        self.host_lookup.send_replace(Some(ask));
    }

    /// Stores the registry informed of the largest default TTL of all nodes.
    pub(super) fn follow_ttls(&self, context: &mut Context<'_>, members: watch::Receiver<Arc<Membership>>) {
        let following =
            follow_ttls(context.config.dns.ttl, members, self.default_ttl.clone(), context.shutdown.clone());
        context.tasks.spawn("TTL follower", following);
    }
}

/// An instance without a TTL is answered by each node with that node's default: the largest one counts for a drain.
async fn follow_ttls(
    own: u32,
    mut members: watch::Receiver<Arc<Membership>>,
    ttl: watch::Sender<u32>,
    shutdown: CancellationToken,
) {
    loop {
        let default = |member: &Member| member.ttl.filter(|_| !matches!(member.reach, Reach::Gone(_)));
        let largest = members.borrow_and_update().members.iter().filter_map(default).max();
        let largest = largest.unwrap_or(own).max(own);
        ttl.send_if_modified(|known| std::mem::replace(known, largest) != largest);
        tokio::select! {
            changed = members.changed() => if changed.is_err() { return shutdown.cancelled().await },
            () = shutdown.cancelled() => return,
        }
    }
}

/// Reads the stored registrations. A damaged file is copied first, since the next change replaces it.
fn restore(data_dir: &DataDir, host: &Host) -> State {
    let text = data_dir.load_registered();
    let (state, is_whole) = task::restore(text.as_deref(), host);
    if !is_whole {
        data_dir.keep_damaged_registered("some registrations or holds cannot be read");
    }
    state
}

/// The part of this node that registrations default to.
fn host(config: &Config) -> Host {
    Host {
        node: config.node.clone(),
        addresses: config.advertise.addresses().to_vec().into(),
        allow_link_local: config.checks.allow_link_local,
        allow_exec: config.checks.allow_exec.over_http(),
    }
}
