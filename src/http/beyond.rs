//! What decides about names that no node announces: this node's zone files, what is wrong with its service files, and whom
//! it asks for names beyond its zones.

use std::{path::PathBuf, sync::Arc};

use tokio::sync::watch;

use crate::{
    diagnostic::{Diagnostic, Reports},
    dns::{message::query::LookupName, recursion::special_use::SpecialUse},
    files::zone_file::{EXTENSION, StaticRecord, ZoneFile},
    model::{name::Name, upstream_address::UpstreamAddress},
};

/// Owners of hidden records that are told of, of one file.
const MAX_SHOWN: usize = 3;

/// Where it comes from, always the newest.
#[derive(Clone, Debug)]
pub struct Beyond {
    /// All zone files.
    pub zones: watch::Receiver<Arc<[Arc<ZoneFile>]>>,
    /// The folder of service files: what is wrong with them is told.
    pub services: PathBuf,
    /// Suffixes with upstreams of their own; the longest counts.
    pub routes: Vec<(Name, Vec<UpstreamAddress>)>,
    /// Who is asked for all other names; `None`: nobody may ask for them.
    pub upstreams: Option<watch::Receiver<Vec<UpstreamAddress>>>,
}

impl Beyond {
    pub(super) fn borrow(&self, reports: &Reports) -> Files {
        Files {
            zones: self.zones.borrow().clone(),
            problems: reports.get(&self.services).map_or_else(Vec::new, |report| report.problems.clone()),
            routes: self.routes.clone(),
            upstreams: self.upstreams.as_ref().map(|upstreams| upstreams.borrow().clone()),
        }
    }
}

/// The same at a moment.
pub(super) struct Files {
    zones: Arc<[Arc<ZoneFile>]>,
    pub(super) problems: Vec<Diagnostic>,
    routes: Vec<(Name, Vec<UpstreamAddress>)>,
    upstreams: Option<Vec<UpstreamAddress>>,
}

impl Files {
    /// What a zone file has at a name, and for how many seconds; `None` where the name is in no such zone, or the zone has
    /// it not.
    pub(super) fn answered(&self, name: &Name) -> Option<(String, u32)> {
        let file = self.zone_of(name)?;
        let records = || file.records.iter();
        let at = |owner: &Name| records().filter(|record| record.owner == *owner).collect::<Vec<_>>();
        // Of wildcards the nearest counts, and none reaches below a name that exists (RFC 4592 §3.3.1).
        let mut labels: Vec<&[u8]> = name.labels().collect();
        let mut found = (at(name), false);
        while found.0.is_empty() && labels.len() > file.origin.labels().count() {
            labels.remove(0);
            let encloser = Name::from_labels(labels.iter().copied()).ok()?;
            let wildcard = encloser.prepend([&b"*"[..]]).ok()?;
            found = (at(&wildcard), true);
            if records().any(|record| record.owner.within(&encloser).is_some()) {
                break;
            }
        }
        let (records, is_wildcard) = found;
        let first = records.first()?;
        let (path, line) = (path_of(file), first.line);
        let by = if is_wildcard { "its wildcard" } else { "it" };
        let summary =
            format!("static: the zone file {path} has {by} in line {line}; no node declares a service of this name");
        Some((summary, records.iter().map(|record| record.ttl).min().unwrap_or(first.ttl)))
    }

    /// Which static records are not answered, since a live service has their names; one note a file.
    pub(super) fn hidden(&self, zones: &[Name], is_hidden: impl Fn(&Name) -> bool) -> Vec<String> {
        let of_file = |file: &Arc<ZoneFile>| {
            let around = zones.iter().any(|zone| file.origin.within(zone).is_some());
            let mut hidden: Vec<&StaticRecord> = Vec::new();
            for record in file.records.iter().filter(|_| around) {
                let known = hidden.last().is_some_and(|last| last.owner == record.owner);
                if !known && record.owner != file.origin && is_hidden(&record.owner) {
                    hidden.push(record);
                }
            }
            let first = hidden.iter().min_by_key(|record| record.line)?;
            let mut owners: Vec<String> = hidden.iter().map(|record| record.owner.to_string()).collect();
            owners.sort();
            owners.dedup();
            let more = owners.len().saturating_sub(MAX_SHOWN);
            owners.truncate(MAX_SHOWN);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let (path, line) = (path_of(file), first.line);
            Some(format!(
                "{path}:{line} has static records for {}{more}: they are hidden while a service has the name.",
                owners.join(", ")
            ))
        };
        self.zones.iter().filter_map(of_file).collect()
    }

    /// Who is asked for a name that is in none of our zones.
    pub(super) fn outside(&self, name: &Name) -> String {
        if let Some(file) = self.zone_of(name) {
            return format!("NXDOMAIN or no data: the zone file {} has the zone, and not this name", path_of(file));
        }
        let Some(upstreams) = &self.upstreams else {
            return "REFUSED: it is in none of this node's zones, and resolver.allow lists nobody".to_owned();
        };
        let routes = self.routes.iter().filter(|(suffix, _)| name.within(suffix).is_some());
        let route = routes.max_by_key(|(suffix, _)| suffix.wire().len());
        let local = LookupName::from_wire(name.wire()).and_then(|name| SpecialUse::find(&name));
        match (route, local) {
            (Some((suffix, servers)), _) => {
                format!("outside our zones: the route {suffix} asks {}", list(servers))
            }
            (None, Some(_)) => {
                "a name of this host or network alone: answered here, and no upstream is asked".to_owned()
            }
            (None, None) if upstreams.is_empty() => "SERVFAIL: outside our zones, and there is no upstream".to_owned(),
            (None, None) => format!("outside our zones: upstreams are asked: {}", list(upstreams)),
        }
    }

    fn zone_of(&self, name: &Name) -> Option<&Arc<ZoneFile>> {
        let around = self.zones.iter().filter(|file| name.within(&file.origin).is_some());
        around.max_by_key(|file| file.origin.wire().len())
    }
}

fn path_of(file: &ZoneFile) -> String {
    format!("{}{EXTENSION}", file.origin.to_string().trim_end_matches('.'))
}

fn list(servers: &[UpstreamAddress]) -> String {
    servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
