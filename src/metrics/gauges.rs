//! Gauges computed at scrape time from the state of the agent.

use std::{collections::BTreeMap, time::Duration};

use super::{
    Family,
    checks::{Kind, STATUSES},
    family::{Content, Labels, Sample, Value},
    zones::{self, ZoneFigures},
};
use crate::model::{
    announcement::{Announcements, HealthReport, HoldReason, InstanceState},
    catalog::{Catalog, CatalogEntry, EXTERNAL_STATUSES, Freshness},
    member::{Cause, Membership, Reach},
    nearest::{Nearest, Place, Policy},
    service::{Check, Definitions},
};

/// State that a scrape reads.
#[derive(Clone, Debug)]
pub struct Snapshot<'a> {
    /// Version of muster.
    pub version: &'static str,
    /// Announcements of all nodes.
    pub catalog: &'a Catalog,
    /// SOA serial of the discovery zone.
    pub serial: u32,
    /// All zones.
    pub zones: Vec<ZoneFigures>,
    /// Zone and datacenter of this node.
    pub place: Place<'a>,
    /// Policy of services that state none.
    pub nearest: Policy,
    /// Signed zones, each with its number of published keys.
    pub signed_zones: Vec<(String, usize)>,
    /// Members of the cluster.
    pub members: &'a Membership,
    /// Number of rejected gossip messages, for every possible reason.
    pub rejected: Vec<(&'static str, u64)>,
    /// Definitions of this node, with their checks.
    pub definitions: &'a Definitions,
    /// Checks of this node as a whole.
    pub node_checks: &'a [Check],
    /// Their results.
    pub node_report: Option<&'a HealthReport>,
    /// Announcements of this node, with the status of its checks.
    pub announcements: &'a Announcements,
    /// Number of cached replies and their size in octets; `None`: recursion is off.
    pub cache: Option<(usize, u64)>,
    /// Number of open DNS connections.
    pub dns_connections: usize,
    /// Resource usage of the process; `None` if the system does not provide it.
    pub process: Option<Process>,
}

/// Resource usage of the process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Process {
    /// Processor time of all threads.
    pub cpu: Duration,
    /// Resident memory in octets.
    pub resident: u64,
    /// Address space in octets.
    pub virtual_memory: u64,
    /// Number of open file descriptors.
    pub open_files: u64,
    /// Limit of open file descriptors.
    pub most_files: u64,
    /// Number of threads.
    pub threads: u64,
    /// Start time, since 1970.
    pub began: Duration,
}

/// States of instances, in display order.
const STATES: [&str; 12] = [
    "passing",
    "warming",
    "warning",
    "critical",
    "disabled",
    HoldReason::Draining.as_str(),
    HoldReason::Maintenance.as_str(),
    HoldReason::NodeMaintenance.as_str(),
    HoldReason::NodeCritical.as_str(),
    HoldReason::Flapping.as_str(),
    HoldReason::Unresolved.as_str(),
    "gone",
];

fn state(entry: &CatalogEntry) -> &'static str {
    match &entry.announcement.state {
        _ if entry.freshness == Freshness::Gone => "gone",
        InstanceState::Passing => "passing",
        InstanceState::Warming(_) => "warming",
        InstanceState::Warning(_) => "warning",
        InstanceState::Critical(_) => "critical",
        InstanceState::Disabled => "disabled",
        InstanceState::Withheld(hold, _) => hold.as_str(),
    }
}

const REACHES: [Reach; 6] = [
    Reach::Alive,
    Reach::Suspect,
    Reach::Held,
    Reach::Restarting,
    Reach::Gone(Cause::Left),
    Reach::Gone(Cause::Silent),
];

impl Snapshot<'_> {
    pub(super) fn families(&self) -> Vec<Family> {
        let version = vec![("version", self.version.into())];
        let mut families = vec![Family {
            name: "muster_build",
            help: "Version of muster; the value is always 1",
            content: Content::Info(version),
        }];
        families.extend(self.catalog());
        families.extend(zones::families(&self.zones));
        families.extend(self.members());
        families.push(self.external_nodes());
        families.push(self.checks());
        let keys = self.signed_zones.iter().map(|(zone, keys)| Sample {
            labels: vec![("zone", zone.clone().into())],
            value: Value::Whole(*keys as u64),
        });
        let content = Content::Gauge(keys.collect());
        if !self.signed_zones.is_empty() {
            let help = "Number of published keys of a signed zone";
            families.push(Family { name: "muster_dnssec_keys", help, content });
        }
        families.push(Family::gauge(
            "muster_dns_connections",
            "Number of open DNS connections over TCP, TLS and HTTPS",
            self.dns_connections as u64,
        ));
        if let Some((entries, octets)) = self.cache {
            families.push(Family::gauge("muster_dns_cache_entries", "Number of replies in the cache", entries as u64));
            families.push(Family::gauge("muster_dns_cache_bytes", "Memory used by replies in the cache", octets));
        }
        families.extend(self.process.iter().flat_map(Process::families));
        families
    }

    fn catalog(&self) -> [Family; 6] {
        let mut states = BTreeMap::<&str, u64>::new();
        let (mut last_known, mut answered, mut empty, mut failed_over) = (0, 0, 0, 0);
        for (_, service) in self.catalog.services() {
            let mut is_answered = false;
            for entry in service.instances() {
                *states.entry(state(entry)).or_default() += 1;
                is_answered |= entry.is_answered();
                last_known += u64::from(entry.is_answered() && entry.freshness == Freshness::LastKnown);
            }
            let policy = service.policy(self.nearest).policy;
            if policy.nearest != Nearest::None {
                let tiers = self.catalog.tiers(self.place, service.instances());
                failed_over += u64::from(tiers.has_failed_over(policy));
            }
            *(if is_answered { &mut answered } else { &mut empty }) += 1;
        }
        let states = STATES.map(|word| ([("standing", word)], states.get(word).copied().unwrap_or_default()));
        [
            Family::gauges("muster_instances", "Number of instances of all services in the cluster, by state", states),
            Family::gauge(
                "muster_instances_last_known",
                "Number of instances answered as last known because their node is unreachable or restarting",
                last_known,
            ),
            Family::gauges(
                "muster_services",
                "Number of services in the cluster, by whether at least one instance is answered",
                [([("state", "answered")], answered), ([("state", "empty")], empty)],
            ),
            Family::gauge(
                "muster_failed_over_services",
                "Number of services that this node answers from a farther tier, because a nearer one lacks healthy instances",
                failed_over,
            ),
            Family::gauge(
                "muster_catalog_version",
                "Version of the catalog: grows with every change, not comparable between nodes",
                self.catalog.versions().all,
            ),
            Family::gauge("muster_zone_serial", "SOA serial of the discovery zone", self.serial.into()),
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
                "Number of members of the cluster, by state as seen by this node",
                REACHES.iter().map(reach),
            ),
            Family::gauges(
                "muster_view_nodes",
                "Number of nodes in the view, by freshness of their announcements",
                freshnesses.map(fresh),
            ),
            Family::gauge(
                "muster_partitioned",
                "1 while more than half of the other nodes are unreachable together",
                self.members.partitioned.is_some().into(),
            ),
            Family::gauge("muster_gossip_sealed", "1 if gossip is encrypted with a key", self.members.sealed.into()),
            Family::counters(
                "muster_gossip_rejected",
                "Number of rejected gossip messages, by reason",
                self.rejected.iter().map(|(reason, count)| ([("reason", *reason)], *count)),
            ),
        ]
    }

    fn external_nodes(&self) -> Family {
        let mut counts = BTreeMap::<&str, u64>::new();
        for claim in self.catalog.external_nodes() {
            *counts.entry(claim.status()).or_default() += 1;
        }
        let counts = EXTERNAL_STATUSES.map(|word| ([("status", word)], counts.get(word).copied().unwrap_or_default()));
        Family::gauges(
            "muster_external_nodes",
            "Number of external nodes, by the worst status of their own checks",
            counts,
        )
    }

    /// Returns the checks of this node. Definitions that are not announced yet are not counted.
    fn checks(&self) -> Family {
        let mut counts = [[0; STATUSES.len()]; Kind::ALL.len()];
        for (key, definition) in self.definitions {
            let report = self.announcements.get(key).and_then(|announcement| announcement.report.as_ref());
            let checks = report.iter().flat_map(|report| &report.checks);
            for (check, found) in definition.checks.iter().zip(checks) {
                counts[Kind::of(&check.probe) as usize][found.status as usize] += 1;
            }
        }
        for check in self.node_checks {
            let mut checks = self.node_report.iter().flat_map(|report| &report.checks);
            if let Some(found) = checks.find(|found| check.id() == Some(&found.id)) {
                counts[Kind::of(&check.probe) as usize][found.status as usize] += 1;
            }
        }
        let samples = Kind::ALL.iter().zip(counts).flat_map(|((_, kind), counts)| {
            let each = STATUSES.iter().zip(counts);
            each.map(move |(status, count)| ([("kind", *kind), ("status", status.as_str())], count))
        });
        Family::gauges("muster_checks", "Number of checks of this node, by kind and status", samples)
    }
}

impl Process {
    /// Returns the usual process metrics of Prometheus clients.
    fn families(&self) -> [Family; 7] {
        let one = |value: f64| vec![Sample { labels: Labels::new(), value: Value::Real(value) }];
        let gauge = |name, help, value: f64| Family { name, help, content: Content::Gauge(one(value)) };
        [
            Family {
                name: "process_cpu_seconds",
                help: "User and system processor time of the process",
                content: Content::Counter(one(self.cpu.as_secs_f64())),
            },
            Family::gauge("process_resident_memory_bytes", "Resident memory of the process", self.resident),
            Family::gauge("process_virtual_memory_bytes", "Virtual memory of the process", self.virtual_memory),
            Family::gauge("process_open_fds", "Number of open file descriptors", self.open_files),
            Family::gauge("process_max_fds", "Maximum number of open file descriptors", self.most_files),
            Family::gauge("process_threads", "Number of threads", self.threads),
            gauge(
                "process_start_time_seconds",
                "Start time of the process in seconds since 1970",
                self.began.as_secs_f64(),
            ),
        ]
    }
}
