//! Every metric of the agent, in one place: what is counted, under which name, with which labels.
//!
//! ```text
//! who does something ─► a handle of this module (`Dns`, `Http`, …) ─┐
//! the catalog, the members, the process ─► `Snapshot` ───────────────────┴─► families ─► text, JSON
//! ```
//!
//! `daemon` makes one [`Metrics`] and gives its handles away; nothing here is global. Counting is an addition to an atomic
//! number; reading all of them is a scrape's work, and no one's who counts.
//!
//! **Labels are bounded.** The value of a label is a word of this program (`&'static str`) or, for upstreams alone, what
//! this host's configuration names. Nothing that a client or a peer chooses becomes one: neither a name that is asked for
//! nor that of a service, a node or a path. So the number of series is known, whoever asks for whatever.

mod checks;
mod dns;
mod family;
mod folders;
mod gossip;
mod http;
mod latency;
pub mod process;
mod snapshot;
mod upstreams;
mod writers;

use std::{fmt, sync::Arc};

pub use self::{
    checks::{Checks, Kind, ProbeResult},
    dns::{Account, Dns, Source, Tally, Transport},
    family::{Content, Family, Labels, Observed, Sample, Value},
    folders::{Folder, Folders, Watched},
    gossip::{Gossip, Way},
    http::{Guard, Http},
    snapshot::{Process, Snapshot},
    upstreams::{Cause, Upstream, Upstreams},
    writers::Writers,
};

/// Handles for all that is counted. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// What is answered.
    pub dns: Dns,
    /// Who is asked for other names.
    pub upstreams: Upstreams,
    /// Probes and their results.
    pub checks: Checks,
    /// Files that are read again.
    pub folders: Folders,
    /// What nodes tell each other.
    pub gossip: Gossip,
    /// The HTTP API.
    pub http: Http,
}

impl Metrics {
    /// Everything as it is now, in the order in which it is shown.
    pub fn gather(&self, now: &Snapshot<'_>) -> Vec<Family> {
        let mut families = now.families();
        families.extend(self.dns.families());
        families.extend(self.upstreams.families());
        families.extend(self.checks.families());
        families.extend(self.folders.families());
        families.extend(self.gossip.families());
        families.extend(self.http.families());
        families
    }
}

/// Gathers everything as it is when it is called; takes up to some ten milliseconds. For whoever shows metrics and knows
/// nobody who has them.
#[derive(Clone)]
pub struct Scrape(Arc<dyn Fn() -> Vec<Family> + Send + Sync>);

impl Scrape {
    /// Calls this.
    pub fn new(gather: impl Fn() -> Vec<Family> + Send + Sync + 'static) -> Self {
        Self(Arc::new(gather))
    }

    /// Everything as it is now.
    pub fn gather(&self) -> Vec<Family> {
        (self.0)()
    }
}

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scrape")
    }
}
