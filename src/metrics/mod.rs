//! All metrics of the agent: names, help texts and labels.
//!
//! ```text
//! servers, checks, gossip ─► handles (`Dns`, `Http`, …) ─┐
//! catalog, members, process ─► `Snapshot` ───────────────┴─► families ─► text, JSON
//! ```
//!
//! `daemon` creates one [`Metrics`] and hands out its handles; there is no global state. Counting is an addition to an
//! atomic number. A scrape reads and sums the numbers.
//!
//! **Labels are bounded.** Label values are constants (`&'static str`) or, for upstreams and zones only, addresses and names from
//! the configuration and its files. Clients and peers never choose a label value: no query name, service, node or path becomes one, so the
//! number of series is bounded.

mod checks;
mod counter;
mod dns;
mod dnssec;
mod dnstap;
mod family;
mod folders;
mod gauges;
mod gossip;
mod http;
mod latency;
pub mod process;
mod resolver;
mod store;
mod transfers;
mod updates;
mod upstreams;
mod zone_counts;
mod zones;

use std::{fmt, sync::Arc};

pub use self::{
    checks::{Checks, Kind, ProbeResult},
    counter::Writers,
    dns::{Account, Dns, Source, Tally, Transport},
    dnssec::{Dnssec, SignatureTally},
    dnstap::Dnstap,
    family::{Content, Family, Labels, Observed, Sample, Value},
    folders::{Folder, Folders, Watched},
    gauges::{Process, Snapshot},
    gossip::{BulkOutcome, Gossip, GossipKeys, GossipTransport},
    http::{Guard, Http},
    resolver::{FullShare, Resolver, Screened, Validation},
    store::{Store, StoreFigures, StoreMember},
    transfers::{CopyOutcome, NotifyOutcome, TransferOutcome, Transfers},
    updates::{UpdateOutcome, Updates},
    upstreams::{Cause, Upstream, Upstreams},
    zones::{CopyFigures, ZoneFigures},
};

/// Handles for counting. Clones share their counters.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// DNS server.
    pub dns: Dns,
    /// Signed zones.
    pub dnssec: Dnssec,
    /// dnstap output.
    pub dnstap: Dnstap,
    /// Resolver.
    pub resolver: Resolver,
    /// Upstreams of the resolver.
    pub upstreams: Upstreams,
    /// Checks and probes.
    pub checks: Checks,
    /// Watched folders.
    pub folders: Folders,
    /// Gossip traffic.
    pub gossip: Gossip,
    /// HTTP API.
    pub http: Http,
    /// Store.
    pub store: Store,
    /// Zone transfers.
    pub transfers: Transfers,
    /// Updates of dynamic zones.
    pub updates: Updates,
}

impl Metrics {
    /// Returns all families in display order.
    pub fn gather(&self, now: &Snapshot<'_>) -> Vec<Family> {
        let mut families = now.families();
        families.extend(self.dns.families());
        families.extend(self.dnssec.families());
        families.extend(self.dnstap.families());
        families.extend(self.resolver.families());
        families.extend(self.upstreams.families());
        families.extend(self.checks.families());
        families.extend(self.folders.families());
        families.extend(self.gossip.families());
        families.extend(self.http.families());
        families.extend(self.store.families());
        families.extend(self.transfers.families());
        families.push(self.updates.family());
        families
    }
}

/// Callback that gathers all metrics, for code that shows them without access to their sources. A call takes up to 10 ms
/// or so.
#[derive(Clone)]
pub struct Scrape(Arc<dyn Fn() -> Vec<Family> + Send + Sync>);

impl Scrape {
    /// Returns a scrape that calls `gather`.
    pub fn new(gather: impl Fn() -> Vec<Family> + Send + Sync + 'static) -> Self {
        Self(Arc::new(gather))
    }

    /// Returns all families.
    pub fn gather(&self) -> Vec<Family> {
        (self.0)()
    }
}

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scrape")
    }
}
