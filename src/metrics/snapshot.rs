//! What is counted at the moment of a scrape, from states that are there anyway.

use std::{collections::BTreeMap, time::Duration};

use super::{
    Family,
    checks::{Kind, STATUSES},
    family::{Content, Labels, Sample, Value},
};
use crate::model::{
    announcement::{Announcements, HoldReason, InstanceState},
    catalog::{Catalog, CatalogEntry, Freshness},
    member::{Cause, Membership, Reach},
    service::Definitions,
};

/// The states that a scrape reads.
#[derive(Clone, Debug)]
pub struct Snapshot<'a> {
    /// muster's version.
    pub version: &'static str,
    /// What all nodes announce.
    pub catalog: &'a Catalog,
    /// The serial of the discovery zone.
    pub serial: u32,
    /// Who is in the cluster.
    pub members: &'a Membership,
    /// What gossip did not let in, by every reason that there is.
    pub rejected: Vec<(&'static str, u64)>,
    /// What this node checks.
    pub definitions: &'a Definitions,
    /// How that stands.
    pub announcements: &'a Announcements,
    /// The replies in the cache, and what they take in octets; `None`: nobody may use it.
    pub cache: Option<(usize, u64)>,
    /// Connections of those who ask for names.
    pub dns_connections: usize,
    /// The process; `None` where the system does not tell.
    pub process: Option<Process>,
}

/// What the process uses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Process {
    /// Of all its threads.
    pub cpu: Duration,
    /// Octets of memory that are in use.
    pub resident: u64,
    /// Octets of address space.
    pub virtual_memory: u64,
    /// Files that are open, sockets included.
    pub open_files: u64,
    /// Files that may be open.
    pub most_files: u64,
    /// Threads.
    pub threads: u64,
    /// When it began: since 1970.
    pub began: Duration,
}

/// The words for how an instance stands, in the order in which they are shown.
const STANDINGS: [&str; 10] = [
    "passing",
    "warming",
    "warning",
    "critical",
    "disabled",
    HoldReason::Draining.as_str(),
    HoldReason::Maintenance.as_str(),
    HoldReason::NodeMaintenance.as_str(),
    HoldReason::Flapping.as_str(),
    "gone",
];

fn standing(entry: &CatalogEntry) -> &'static str {
    match &entry.announcement.standing {
        _ if entry.freshness == Freshness::Gone => "gone",
        InstanceState::Passing => "passing",
        InstanceState::Warming(_) => "warming",
        InstanceState::Warning(_) => "warning",
        InstanceState::Critical(_) => "critical",
        InstanceState::Disabled => "disabled",
        InstanceState::Withheld(gate, _) => gate.as_str(),
    }
}

const REACHES: [Reach; 5] =
    [Reach::Alive, Reach::Suspect, Reach::Held, Reach::Gone(Cause::Left), Reach::Gone(Cause::Silent)];

impl Snapshot<'_> {
    pub(super) fn families(&self) -> Vec<Family> {
        let version = vec![("version", self.version.into())];
        let mut families = vec![Family {
            name: "muster_build",
            help: "The version of muster; the value is always 1",
            content: Content::Info(version),
        }];
        families.extend(self.catalog());
        families.extend(self.members());
        families.push(self.checks());
        families.push(Family::gauge(
            "muster_dns_connections",
            "Connections of clients that ask for names, over TCP, TLS and HTTPS",
            self.dns_connections as u64,
        ));
        if let Some((entries, octets)) = self.cache {
            families.push(Family::gauge("muster_dns_cache_entries", "Replies in the cache", entries as u64));
            families.push(Family::gauge("muster_dns_cache_bytes", "Memory that they take", octets));
        }
        families.extend(self.process.iter().flat_map(Process::families));
        families
    }

    fn catalog(&self) -> [Family; 5] {
        let mut standings = BTreeMap::<&str, u64>::new();
        let (mut last_known, mut answered, mut empty) = (0, 0, 0);
        for (_, service) in self.catalog.services() {
            let mut is_answered = false;
            for entry in service.instances() {
                *standings.entry(standing(entry)).or_default() += 1;
                is_answered |= entry.is_answered();
                last_known += u64::from(entry.is_answered() && entry.freshness == Freshness::LastKnown);
            }
            *(if is_answered { &mut answered } else { &mut empty }) += 1;
        }
        let standings = STANDINGS.map(|word| ([("standing", word)], standings.get(word).copied().unwrap_or_default()));
        [
            Family::gauges(
                "muster_instances",
                "Instances of all services in the cluster, by how they stand",
                standings,
            ),
            Family::gauge(
                "muster_instances_last_known",
                "Instances that are answered as last known, because their node is out of reach",
                last_known,
            ),
            Family::gauges(
                "muster_services",
                "Services in the cluster: answered with at least one instance, or empty",
                [([("state", "answered")], answered), ([("state", "empty")], empty)],
            ),
            Family::gauge(
                "muster_catalog_version",
                "Grows with every change of what nodes announce; means nothing on another node",
                self.catalog.versions().all,
            ),
            Family::gauge("muster_zone_serial", "The serial of the discovery zone's SOA", self.serial.into()),
        ]
    }

    fn members(&self) -> [Family; 5] {
        let reach = |reach: &Reach| {
            let count = self.members.members.iter().filter(|member| member.reach.as_str() == reach.as_str()).count();
            ([("reach", reach.as_str())], count as u64)
        };
        let fresh = |(freshness, word)| {
            let count = self.catalog.view().values().filter(|view| view.freshness == freshness).count();
            ([("freshness", word)], count as u64)
        };
        let freshnesses = [(Freshness::Live, "live"), (Freshness::LastKnown, "last-known"), (Freshness::Gone, "gone")];
        [
            Family::gauges(
                "muster_members",
                "Nodes of the cluster, by how this one reaches them",
                REACHES.iter().map(reach),
            ),
            Family::gauges(
                "muster_view_nodes",
                "Nodes of which something is known, by how current it is",
                freshnesses.map(fresh),
            ),
            Family::gauge(
                "muster_partitioned",
                "1 while more than half of the other nodes are out of reach together",
                self.members.partitioned.is_some().into(),
            ),
            Family::gauge("muster_gossip_sealed", "1 where gossip is sealed with a key", self.members.sealed.into()),
            Family::counters(
                "muster_gossip_rejected",
                "Gossip that was not let in, by reason",
                self.rejected.iter().map(|(reason, count)| ([("reason", *reason)], *count)),
            ),
        ]
    }

    /// The checks of this node. What is defined and not announced yet is not counted.
    fn checks(&self) -> Family {
        let mut counts = [[0; STATUSES.len()]; Kind::ALL.len()];
        for (key, definition) in self.definitions {
            let report = self.announcements.get(key).and_then(|announcement| announcement.report.as_ref());
            let checks = report.iter().flat_map(|report| &report.checks);
            for (check, found) in definition.checks.iter().zip(checks) {
                counts[Kind::of(&check.probe) as usize][found.status as usize] += 1;
            }
        }
        let samples = Kind::ALL.iter().zip(counts).flat_map(|((_, kind), counts)| {
            let each = STATUSES.iter().zip(counts);
            each.map(move |(status, count)| ([("kind", *kind), ("status", status.as_str())], count))
        });
        Family::gauges("muster_checks", "Checks of this node, by kind and status", samples)
    }
}

impl Process {
    /// Under the names that all programs have for them.
    fn families(&self) -> [Family; 7] {
        let one = |value: f64| vec![Sample { labels: Labels::new(), value: Value::Real(value) }];
        let gauge = |name, help, value: f64| Family { name, help, content: Content::Gauge(one(value)) };
        [
            Family {
                name: "process_cpu_seconds",
                help: "Processor time of the process, in the kernel and out of it",
                content: Content::Counter(one(self.cpu.as_secs_f64())),
            },
            Family::gauge("process_resident_memory_bytes", "Memory that is in use", self.resident),
            Family::gauge("process_virtual_memory_bytes", "Address space that is in use", self.virtual_memory),
            Family::gauge("process_open_fds", "Files that are open, sockets included", self.open_files),
            Family::gauge("process_max_fds", "Files that may be open", self.most_files),
            Family::gauge("process_threads", "Threads", self.threads),
            gauge("process_start_time_seconds", "When the process began, since 1970", self.began.as_secs_f64()),
        ]
    }
}
