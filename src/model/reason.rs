//! Reason an instance is answered or is not, in words: the one place that Extended DNS Errors, the `_why` names and
//! `muster explain` have theirs from, so that they cannot disagree.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    announcement::{HoldReason, InstanceState},
    catalog::{CatalogEntry, Freshness},
    date::rfc3339,
    member::Reach,
    name::Label,
};

/// What decides about one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// One word for tables and for JSON.
    pub state: &'static str,
    /// A sentence without a capital and a full stop.
    pub text: String,
}

/// What keeps an instance out of answers.
enum Held<'a> {
    Gone,
    Critical(&'a str),
    Disabled,
    Withheld(HoldReason, &'a str),
}

fn held(entry: &CatalogEntry) -> Option<Held<'_>> {
    if entry.freshness == Freshness::Gone {
        return Some(Held::Gone);
    }
    match &entry.announcement.standing {
        InstanceState::Critical(reason) => Some(Held::Critical(reason)),
        InstanceState::Disabled => Some(Held::Disabled),
        InstanceState::Withheld(gate, reason) => Some(Held::Withheld(*gate, reason)),
        InstanceState::Passing | InstanceState::Warming(_) | InstanceState::Warning(_) => None,
    }
}

/// Whether there is nothing to say of an instance but that it is answered.
pub fn is_plain(entry: &CatalogEntry, counts: bool) -> bool {
    counts && entry.freshness == Freshness::Live && entry.announcement.standing == InstanceState::Passing
}

/// What decides about an instance. It `counts` unless another one of its id goes before it. `reach` is how its node
/// stands, where that is known: it names a cause, and decides nothing.
pub fn of(entry: &CatalogEntry, counts: bool, reach: Option<Reach>) -> Reason {
    let node = &entry.node;
    if !counts {
        let text = "another node announces an instance of the same id, and that one counts";
        return Reason { state: "shadowed", text: text.to_owned() };
    }
    let text = match held(entry) {
        Some(Held::Gone) => gone(node, reach),
        Some(Held::Critical(reason)) => with(&worst(entry, "is critical"), reason),
        Some(Held::Disabled) => "it is disabled: its service file says enabled: false".to_owned(),
        Some(Held::Withheld(gate, reason)) => with(&format!("it is {}", gate.words()), reason),
        None => answered(entry),
    };
    let suspected = reach == Some(Reach::Suspect) && entry.is_answered();
    let text = if suspected { format!("{text}; its node {node} does not answer, and others are asked") } else { text };
    Reason { state: state(entry.freshness, &entry.announcement.standing), text }
}

/// How an instance that counts stands, as one word.
pub fn state(freshness: Freshness, standing: &InstanceState) -> &'static str {
    match (freshness, standing) {
        (Freshness::Gone, _) => "gone",
        (_, InstanceState::Critical(_)) => "critical",
        (_, InstanceState::Disabled) => "disabled",
        (_, InstanceState::Withheld(gate, _)) => gate.as_str(),
        (Freshness::LastKnown, _) => "stale",
        (Freshness::Live, InstanceState::Passing) => "passing",
        (Freshness::Live, InstanceState::Warming(_)) => "warming",
        (Freshness::Live, InstanceState::Warning(_)) => "warning",
    }
}

/// What is said of an instance that is answered.
fn answered(entry: &CatalogEntry) -> String {
    let (announcement, node) = (&entry.announcement, &entry.node);
    let whole = announcement.instance.weight;
    let weight = announcement.standing.weight(whole);
    match &announcement.standing {
        _ if entry.freshness == Freshness::LastKnown => {
            format!("answered as last known: its node {node} is out of reach, with too many others")
        }
        InstanceState::Warming(_) => {
            format!("answered with weight {weight} of {whole}, which grows: it has come up lately")
        }
        InstanceState::Warning(reason) => {
            let text = format!("answered with weight {weight}: {}", worst(entry, "warns"));
            with(&text, reason)
        }
        _ => plainly(weight),
    }
}

/// What is said of an instance of which there is no more to say.
pub fn plainly(weight: u16) -> String {
    format!("answered with weight {weight}")
}

fn gone(node: &Label, reach: Option<Reach>) -> String {
    match reach {
        Some(Reach::Gone(cause)) => format!("its node {node} is gone: {}", cause.as_str()),
        Some(_) => format!("its node {node} is gone: it has started anew and said nothing yet"),
        None => format!("its node {node} is gone"),
    }
}

/// Which check it is that decides.
fn worst(entry: &CatalogEntry, does: &str) -> String {
    let checks = entry.announcement.report.iter().flat_map(|report| &report.checks);
    // As `model::health::add_up` has it: the first of the worst.
    let worst = checks.reduce(|worst, check| if check.status > worst.status { check } else { worst });
    worst.map_or_else(|| format!("it {does}"), |check| format!("the check {} {does}", check.name))
}

fn with(text: &str, reason: &str) -> String {
    if reason.is_empty() { text.to_owned() } else { format!("{text}: {reason}") }
}

/// Reason none of these is answered: `3 instances, 3 critical: connection refused`.
pub fn none_answered<'a>(instances: impl IntoIterator<Item = &'a CatalogEntry>) -> String {
    let (mut all, mut critical, mut disabled, mut first) = (0, 0, 0, None);
    let mut withheld: BTreeMap<HoldReason, (usize, &str)> = BTreeMap::new();
    let (mut gone, mut gone_nodes) = (0, BTreeSet::new());
    for entry in instances {
        all += 1;
        match held(entry) {
            Some(Held::Gone) => {
                gone += 1;
                gone_nodes.insert(&entry.node);
            }
            Some(Held::Critical(reason)) => {
                critical += 1;
                first.get_or_insert(reason);
            }
            Some(Held::Disabled) => disabled += 1,
            Some(Held::Withheld(gate, reason)) => withheld.entry(gate).or_insert((0, reason)).0 += 1,
            None => {}
        }
    }
    let mut text = format!("{all} instance{}", if all == 1 { "" } else { "s" });
    if let Some(reason) = first {
        text.push_str(&with(&format!(", {critical} critical"), reason));
    }
    if disabled > 0 {
        text.push_str(&format!(", {disabled} disabled"));
    }
    for (gate, (count, reason)) in withheld {
        text.push_str(&with(&format!(", {count} {}", gate.words()), reason));
    }
    match (gone_nodes.first(), gone_nodes.len()) {
        (None, _) => {}
        (Some(node), 1) => text.push_str(&format!(", {gone} on {node}, which is gone")),
        (Some(node), nodes) => text.push_str(&format!(", {gone} on {nodes} nodes that are gone, such as {node}")),
    }
    text
}

/// How many of all are answered, in a few words.
pub fn summary(answered: usize, all: usize) -> String {
    format!("{answered} of {all} answered")
}

/// Since when an instance stands as it does (RFC 3339), where its live node has told.
pub fn since(entry: &CatalogEntry) -> Option<String> {
    let report = entry.announcement.report.as_ref().filter(|_| entry.freshness == Freshness::Live)?;
    Some(rfc3339(Duration::from_secs(report.since)))
}

/// What is said of the instances of a node out of reach, and of so many more such nodes.
pub fn out_of_reach(node: &Label, more: usize) -> String {
    match more {
        0 => format!("{node} is out of reach: its instances are as last known"),
        _ => format!("{node} and {more} more are out of reach: their instances are as last known"),
    }
}
