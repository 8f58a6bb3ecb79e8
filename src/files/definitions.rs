//! The service files of a folder, put together: what no file can know by itself.
//!
//! The running agent and `muster validate` apply the same rules, and both get every problem with its place.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    path::Path,
    sync::Arc,
};

use super::service_file::Located;
use crate::{
    diagnostic::Diagnostic,
    model::{
        name::{Label, Name},
        service::{Definitions, Probe},
    },
};

/// The most services of a circle that a message names.
const MAX_SHOWN: usize = 10;

/// Puts the files of a folder together.
///
/// Of two definitions of one instance the one whose file comes first by name stays, so that the outcome does not
/// depend on which file was read first; the other one is an error. Alias checks in a circle are errors too, but their
/// services stay: each of them can say what is wrong with it only while it is there. An alias of a service that no file
/// defines is a warning, and so is a tag that an instance of the same service has as its id.
pub fn merge<'a>(files: impl Iterator<Item = (&'a Path, &'a [Located])>) -> (Definitions, Vec<Diagnostic>) {
    let mut files: Vec<_> = files.collect();
    files.sort_by_key(|(path, _)| *path);
    let mut problems = Vec::new();
    let mut definitions = Definitions::new();
    let mut kept: HashMap<_, (&Path, &Located)> = HashMap::new();
    let mut in_order: Vec<(&Path, &Located)> = Vec::new();
    for (path, located) in files.iter().flat_map(|(path, entries)| entries.iter().map(move |entry| (*path, entry))) {
        let key = &located.definition.instance.key;
        if let Some((first, entry)) = kept.get(key) {
            let place = format!("{}:{}:{}", first.display(), entry.line, entry.column);
            problems.push(
                problem(path, located, format!("the instance `{key}` is defined in {place} already"))
                    .with_hint("give each of them an `id` of its own"),
            );
            continue;
        }
        kept.insert(key, (path, located));
        in_order.push((path, located));
        definitions.insert(key.clone(), Arc::clone(&located.definition));
    }
    problems.extend(missing_aliases(&in_order));
    problems.extend(alias_circles(&in_order));
    problems.extend(hidden_tags(&in_order));
    problems.sort();
    (definitions, problems)
}

/// The service whose live name a static record would take: the owner of the record is in the zone, at or below
/// `SERVICE.ZONE` or `_SERVICE._tcp.ZONE`.
pub fn service_at<'a>(owner: &Name, zone: &Name, services: &'a BTreeSet<Label>) -> Option<&'a Label> {
    owner.within(zone)?;
    let above = owner.labels().count() - zone.labels().count();
    let mut labels = owner.labels().take(above).collect::<Vec<_>>().into_iter().rev();
    let last = labels.next()?;
    let service = match last.first() {
        // `_tcp`, `_udp` or `_TAG`: the service is the label before it.
        Some(b'_') => labels.next()?.strip_prefix(b"_")?,
        _ => last,
    };
    services.get(service)
}

fn problem(path: &Path, located: &Located, message: String) -> Diagnostic {
    Diagnostic::at(path, located.line, located.column, message)
}

fn aliases(located: &Located) -> impl Iterator<Item = &Label> {
    located.definition.checks.iter().filter_map(|check| match &check.probe {
        Probe::Alias { service } => Some(service),
        Probe::Http(_)
        | Probe::Tcp(_)
        | Probe::Grpc { .. }
        | Probe::Exec { .. }
        | Probe::Systemd { .. }
        | Probe::Ttl { .. } => None,
    })
}

fn missing_aliases(entries: &[(&Path, &Located)]) -> Vec<Diagnostic> {
    let services: HashSet<&Label> = entries.iter().map(|(_, entry)| &entry.definition.instance.key.service).collect();
    let missing = entries.iter().flat_map(|(path, entry)| {
        let missing = aliases(entry).filter(|alias| !services.contains(alias));
        missing.map(|alias| {
            problem(path, entry, format!("the check `alias: {alias}` asks for a service that no file defines"))
                .with_hint("the check is critical until there is one")
                .as_warning()
        })
    });
    missing.collect()
}

/// Services whose alias checks lead back to themselves: none of them could ever become healthy first.
fn alias_circles(entries: &[(&Path, &Located)]) -> Vec<Diagnostic> {
    let mut points_to: BTreeMap<&Label, BTreeSet<&Label>> = BTreeMap::new();
    for (_, entry) in entries {
        points_to.entry(&entry.definition.instance.key.service).or_default().extend(aliases(entry));
    }
    // Take away what points to nothing that is left, until nothing changes: what stays leads into a circle.
    let mut pointed_from: BTreeMap<&Label, Vec<&Label>> = BTreeMap::new();
    for (from, to) in points_to.iter().flat_map(|(from, to)| to.iter().map(move |to| (*from, *to))) {
        pointed_from.entry(to).or_default().push(from);
    }
    let loose = pointed_from.keys().filter(|to| !points_to.contains_key(*to)).copied();
    let ends = points_to.iter().filter(|(_, to)| to.is_empty()).map(|(from, _)| *from);
    let mut settled: Vec<&Label> = loose.chain(ends).collect();
    while let Some(to) = settled.pop() {
        points_to.remove(to);
        for from in pointed_from.remove(to).unwrap_or_default() {
            if let Some(left) = points_to.get_mut(from)
                && left.remove(to)
                && left.is_empty()
            {
                settled.push(from);
            }
        }
    }
    // Each walk along what is left ends in a circle, or in what an earlier walk has seen.
    let mut problems = Vec::new();
    let mut seen: HashMap<&Label, usize> = HashMap::new();
    for (walk, start) in points_to.keys().enumerate() {
        let mut way: Vec<&Label> = Vec::new();
        let mut at = *start;
        while !seen.contains_key(at) {
            seen.insert(at, walk);
            way.push(at);
            let Some(next) = points_to.get(at).and_then(BTreeSet::first) else { break };
            at = *next;
        }
        if seen.get(at) == Some(&walk)
            && let Some(first) = way.iter().position(|label| *label == at)
        {
            problems.extend(circle(entries, &way[first..]));
        }
    }
    problems
}

/// The problem of one circle, at the first of its services by file and line.
fn circle(entries: &[(&Path, &Located)], circle: &[&Label]) -> Option<Diagnostic> {
    let service = |entry: &Located| entry.definition.instance.key.service.clone();
    let leads_on = |(_, entry): &&(&Path, &Located)| {
        let at = circle.iter().position(|label| **label == service(entry));
        at.is_some_and(|at| aliases(entry).any(|alias| alias == circle[(at + 1) % circle.len()]))
    };
    let (path, entry) = entries.iter().find(leads_on)?;
    let at = circle.iter().position(|label| **label == service(entry))?;
    let mut way: Vec<String> =
        circle.iter().cycle().skip(at).take(MAX_SHOWN.min(circle.len())).map(|l| format!("`{l}`")).collect();
    way.extend((circle.len() > MAX_SHOWN).then(|| "…".to_owned()));
    let message = format!("alias checks go in a circle: {} → `{}`", way.join(" → "), circle[at]);
    Some(problem(path, entry, message).with_hint("no service in it can become healthy before the others"))
}

/// Tags of an instance that are ids of other instances of the same service. (Of the same instance: `service_file`.)
fn hidden_tags(entries: &[(&Path, &Located)]) -> Vec<Diagnostic> {
    let instances = || entries.iter().map(|(path, entry)| (path, entry, &*entry.definition.instance));
    let ids: HashSet<_> =
        instances().map(|(_, _, instance)| (&instance.key.service, instance.key.id.as_str())).collect();
    let mut problems = Vec::new();
    for (path, entry, instance) in instances() {
        for tag in &instance.tags {
            let label = tag.to_ascii_lowercase();
            if label != instance.key.id.as_str() && ids.contains(&(&instance.key.service, label.as_str())) {
                let message = format!("the tag `{tag}` has no name: another instance of the service has it as its id");
                problems.push(problem(path, entry, message).with_hint("choose another tag or `id`").as_warning());
            }
        }
    }
    problems
}
