//! Merge of the service files of a folder, with the checks that need all files.
//!
//! The agent and `muster validate` apply the same rules. Every problem has a position.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    path::Path,
    sync::Arc,
};

use foldhash::fast::RandomState;

use super::service_file::Located;
use crate::{
    diagnostic::Diagnostic,
    model::{
        alias_domain::{NameScheme, is_consul_kind},
        name::Name,
        registered_name::RegisteredName,
        service::{AliasTarget, Definitions},
    },
    printable,
};

/// Maximum number of services of a cycle in a message.
const MAX_SHOWN: usize = 10;

/// Merges the service files of a folder.
///
/// If two files define one instance, the file that sorts first wins, whatever the order of reading. The other definition is
/// an error. A cycle of alias checks is an error too, but its services stay defined, so that their state shows the cycle.
/// Warnings are an alias of an undefined service or instance, and a tag that equals the id of another instance of the service.
pub fn merge<'a>(files: impl Iterator<Item = (&'a Path, &'a [Located])>) -> (Definitions, Vec<Diagnostic>) {
    let mut files: Vec<_> = files.collect();
    files.sort_by_key(|(path, _)| *path);
    let mut problems = Vec::new();
    let mut definitions = Definitions::new();
    let count = files.iter().map(|(_, entries)| entries.len()).sum();
    let mut kept: HashMap<_, (&Path, &Located), RandomState> =
        HashMap::with_capacity_and_hasher(count, RandomState::default());
    let mut in_order: Vec<(&Path, &Located)> = Vec::with_capacity(count);
    for (path, located) in files.iter().flat_map(|(path, entries)| entries.iter().map(move |entry| (*path, entry))) {
        let key = &located.definition.instance.key;
        if let Some((first, entry)) = kept.get(key) {
            let place = format!("{}:{}:{}", printable::path(first), entry.line, entry.column);
            problems.push(
                problem(path, located, format!("the instance `{key}` is already defined at {place}"))
                    .with_hint("give each instance its own `id`"),
            );
            continue;
        }
        kept.insert(key, (path, located));
        in_order.push((path, located));
        definitions.insert((&located.definition.instance).into(), Arc::clone(&located.definition));
    }
    let has_alias = |entry: &Located| entry.definition.checks.iter().any(|check| check.probe.alias().is_some());
    if in_order.iter().any(|(_, entry)| has_alias(entry)) {
        problems.extend(missing_aliases(&in_order));
    }
    let with_aliases: Vec<_> = in_order.iter().filter(|(_, entry)| aliases(entry).next().is_some()).copied().collect();
    if !with_aliases.is_empty() {
        problems.extend(alias_cycles(&with_aliases));
    }
    problems.extend(shadowed_tags(&in_order));
    problems.sort();
    (definitions, problems)
}

/// Returns the service whose name a static record conflicts with: its owner is in the zone, at or below `SERVICE.ZONE` or
/// `_SERVICE._tcp.ZONE`, or at such names of another scheme.
pub fn service_at<'a>(
    owner: &Name,
    zone: &Name,
    scheme: NameScheme,
    services: &'a BTreeSet<RegisteredName>,
) -> Option<&'a RegisteredName> {
    owner.within(zone)?;
    let above = owner.labels().count() - zone.labels().count();
    let labels = owner.labels().take(above).collect::<Vec<_>>();
    let mut labels = match scheme {
        NameScheme::Muster => &labels[..],
        NameScheme::Consul => {
            // Labels after that of the kind are a datacenter.
            let kind = labels.iter().rposition(|label| is_consul_kind(label) || label.first() == Some(&b'_'))?;
            match labels[kind] {
                b"service" => &labels[..kind],
                label if label.first() == Some(&b'_') => &labels[..=kind],
                _ => return None,
            }
        }
    }
    .iter()
    .rev();
    let last = *labels.next()?;
    let service = match last.first() {
        // `_tcp`, `_udp` or `_TAG`: the service is the preceding label.
        Some(b'_') => labels.next()?.strip_prefix(b"_")?,
        _ => last,
    };
    services.get(service).filter(|service| service.dns_label().is_ok())
}

fn problem(path: &Path, located: &Located, message: String) -> Diagnostic {
    Diagnostic::at(path, located.line, located.column, message)
}

fn aliases(located: &Located) -> impl Iterator<Item = &RegisteredName> {
    located.definition.checks.iter().filter_map(|check| match check.probe.alias()? {
        AliasTarget::Service(service) => Some(service),
        AliasTarget::Registered(_) | AliasTarget::Node => None,
    })
}

fn missing_aliases(entries: &[(&Path, &Located)]) -> Vec<Diagnostic> {
    let instances = || entries.iter().map(|(_, entry)| &entry.definition.instance);
    let services: HashSet<&RegisteredName> = instances().map(|instance| &instance.key.service).collect();
    let ids: HashSet<&str> = instances().map(|instance| instance.api_id()).collect();
    let is_known = |id: &str| ids.contains(id) || RegisteredName::parse(id).is_ok_and(|name| services.contains(&name));
    let describe = |target: &AliasTarget| match target {
        AliasTarget::Service(service) if !services.contains(service) => {
            Some((format!("`alias: {service}` names a service"), "the check is critical until the service is defined"))
        }
        AliasTarget::Registered(id) if !is_known(id) => Some((
            format!("`alias: {{id: {id}}}` names an instance"),
            "the check is critical until the instance is defined or registered",
        )),
        _ => None,
    };
    let missing = entries.iter().flat_map(|(path, entry)| {
        let targets = entry.definition.checks.iter().filter_map(|check| check.probe.alias());
        targets.filter_map(describe).map(|(what, hint)| {
            problem(path, entry, format!("the check {what} that no file defines")).with_hint(hint).as_warning()
        })
    });
    missing.collect()
}

/// Finds cycles of alias checks; the entries are those with an alias check. No service in a cycle can become healthy first.
fn alias_cycles(entries: &[(&Path, &Located)]) -> Vec<Diagnostic> {
    let mut points_to: BTreeMap<&RegisteredName, BTreeSet<&RegisteredName>> = BTreeMap::new();
    for (_, entry) in entries {
        points_to.entry(&entry.definition.instance.key.service).or_default().extend(aliases(entry));
    }
    // Remove services without remaining aliases until none is left: the rest lead into a cycle.
    let mut pointed_from: BTreeMap<&RegisteredName, Vec<&RegisteredName>> = BTreeMap::new();
    for (from, to) in points_to.iter().flat_map(|(from, to)| to.iter().map(move |to| (*from, *to))) {
        pointed_from.entry(to).or_default().push(from);
    }
    let loose = pointed_from.keys().filter(|to| !points_to.contains_key(*to)).copied();
    let ends = points_to.iter().filter(|(_, to)| to.is_empty()).map(|(from, _)| *from);
    let mut settled: Vec<&RegisteredName> = loose.chain(ends).collect();
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
    // Each walk over the rest ends in a cycle or in a service of an earlier walk.
    let mut problems = Vec::new();
    let mut seen: HashMap<&RegisteredName, usize> = HashMap::new();
    for (walk, start) in points_to.keys().enumerate() {
        let mut path: Vec<&RegisteredName> = Vec::new();
        let mut at = *start;
        while !seen.contains_key(at) {
            seen.insert(at, walk);
            path.push(at);
            let Some(next) = points_to.get(at).and_then(BTreeSet::first) else { break };
            at = *next;
        }
        if seen.get(at) == Some(&walk)
            && let Some(first) = path.iter().position(|label| *label == at)
        {
            problems.extend(report_cycle(entries, &path[first..]));
        }
    }
    problems
}

/// Reports a cycle at the first of its services by file and line.
fn report_cycle(entries: &[(&Path, &Located)], cycle: &[&RegisteredName]) -> Option<Diagnostic> {
    let service = |entry: &Located| entry.definition.instance.key.service.clone();
    let has_next = |(_, entry): &&(&Path, &Located)| {
        let at = cycle.iter().position(|label| **label == service(entry));
        at.is_some_and(|at| aliases(entry).any(|alias| alias == cycle[(at + 1) % cycle.len()]))
    };
    let (path, entry) = entries.iter().find(has_next)?;
    let at = cycle.iter().position(|label| **label == service(entry))?;
    let mut shown: Vec<String> =
        cycle.iter().cycle().skip(at).take(MAX_SHOWN.min(cycle.len())).map(|l| format!("`{l}`")).collect();
    shown.extend((cycle.len() > MAX_SHOWN).then(|| "…".to_owned()));
    let message = format!("alias checks form a cycle: {} → `{}`", shown.join(" → "), cycle[at]);
    Some(problem(path, entry, message).with_hint("no service in the cycle can become healthy first"))
}

/// Finds tags that are ids of other instances of the service. (`service_file` compares those of the same instance.)
fn shadowed_tags(entries: &[(&Path, &Located)]) -> Vec<Diagnostic> {
    let instances = || entries.iter().map(|(path, entry)| (path, entry, &*entry.definition.instance));
    let ids: HashSet<_, RandomState> =
        instances().map(|(_, _, instance)| (&instance.key.service, instance.key.id.as_str())).collect();
    let mut problems = Vec::new();
    for (path, entry, instance) in instances() {
        for tag in &instance.tags {
            let label = if tag.bytes().any(|octet| octet.is_ascii_uppercase()) {
                Cow::Owned(tag.to_ascii_lowercase())
            } else {
                Cow::Borrowed(tag.as_str())
            };
            if label != instance.key.id.as_str() && ids.contains(&(&instance.key.service, &*label)) {
                let message = format!(
                    "the tag `{tag}` is not reachable by name: another instance of the service has it as its id"
                );
                problems.push(problem(path, entry, message).with_hint("choose another tag or `id`").as_warning());
            }
        }
    }
    problems
}
