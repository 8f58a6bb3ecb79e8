//! State of host names. Core.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use crate::model::{
    followed_host::{FollowedHost, HostName, KnownHosts},
    list::List,
    service::{Instance, instance_ref::InstanceRef},
};

/// State of a host name.
#[derive(Debug, Default)]
pub(super) struct Host {
    /// Instances with this host.
    pub(super) instances: BTreeSet<InstanceRef>,
    /// True if an external node, or an instance on one, has this host.
    pub(super) is_external: bool,
    pub(super) addresses: List<IpAddr>,
    pub(super) problem: Option<Arc<str>>,
    /// Number of lookups that failed since the last one that succeeded.
    pub(super) failures: u32,
    /// Time of the next lookup; `None` while one runs.
    pub(super) due: Option<Duration>,
}

/// State of host names.
pub(super) type Hosts = BTreeMap<HostName, Host>;

impl Host {
    /// Returns a host that is looked up at once, with its addresses from before a restart.
    pub(super) fn new(name: &HostName, former: &mut KnownHosts, now: Duration) -> Self {
        Self { addresses: former.remove(name).unwrap_or_default(), due: Some(now), ..Self::default() }
    }

    /// Returns an instance with the addresses of this host, which is its own.
    pub(super) fn resolve(&self, instance: &Instance) -> Instance {
        let host = instance.host.as_ref().map(|host| self.followed(&host.name));
        Instance { addresses: self.addresses.clone(), host, ..instance.clone() }
    }

    /// Returns the name of this host with the outcome of its last lookup.
    pub(super) fn followed(&self, name: &HostName) -> Arc<FollowedHost> {
        Arc::new(FollowedHost { name: name.clone(), problem: self.problem.clone() })
    }
}
