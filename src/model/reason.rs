//! Texts that explain why an instance is answered or not.
//!
//! Extended DNS Errors, `_why` records, `muster explain`, events and the page all take their texts from here, so they
//! cannot disagree.

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

/// Cause for which a node withholds instances in state warning.
const ONLY_PASSING: &str = "this node has `dns.only_passing`";

/// State of one instance, and why it is answered or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// State in one word, for tables and JSON.
    pub state: &'static str,
    /// One clause in lower case, without a full stop. Starts with `answered` if DNS answers carry the instance.
    pub text: String,
}

/// Cause that keeps an instance out of answers.
enum Exclusion<'a> {
    Gone,
    Critical(&'a str),
    /// In state warning, and this node answers passing instances only.
    Warning(&'a str),
    Disabled,
    Withheld(HoldReason, &'a str),
}

fn exclusion(entry: &CatalogEntry) -> Option<Exclusion<'_>> {
    if entry.freshness == Freshness::Gone {
        return Some(Exclusion::Gone);
    }
    match &entry.announcement.state {
        InstanceState::Critical(reason) => Some(Exclusion::Critical(reason)),
        InstanceState::Disabled => Some(Exclusion::Disabled),
        InstanceState::Withheld(hold, reason) => Some(Exclusion::Withheld(*hold, reason)),
        InstanceState::Warning(reason) if entry.only_passing => Some(Exclusion::Warning(reason)),
        InstanceState::Passing | InstanceState::Warming(_) | InstanceState::Warning(_) => None,
    }
}

/// Returns the addresses of a host name, and why the last lookup failed, in one clause.
pub fn followed(host: &str, addresses: &[String], problem: Option<&str>) -> String {
    let listed = addresses.join(", ");
    match problem {
        None => format!("addresses of {host}: {listed}"),
        Some(problem) if listed.is_empty() => format!("no addresses of {host}: {problem}"),
        Some(problem) => format!("last known addresses of {host}: {listed}; {problem}"),
    }
}

/// Reports whether the instance is live, passing and not shadowed: [`plainly`] is then the whole explanation.
pub fn is_plain(entry: &CatalogEntry, counts: bool) -> bool {
    counts && entry.freshness == Freshness::Live && entry.announcement.state == InstanceState::Passing
}

/// Returns the state of an instance and the reason for it.
///
/// `counts` is false for a shadowed entry: another node's instance of the same id takes precedence. `reach` is the state
/// of the node, where known; it adds a cause to the text and decides nothing.
pub fn of(entry: &CatalogEntry, counts: bool, reach: Option<Reach>) -> Reason {
    let node = &entry.node;
    if !counts {
        let text = "another node announces the same instance id and takes precedence";
        return Reason { state: "shadowed", text: text.to_owned() };
    }
    let mut text = match exclusion(entry) {
        Some(Exclusion::Gone) => gone(node, reach),
        Some(Exclusion::Critical(reason)) => with(&worst(entry, "critical"), reason),
        Some(Exclusion::Warning(reason)) => with(&format!("{}, and {ONLY_PASSING}", worst(entry, "warning")), reason),
        Some(Exclusion::Disabled) => "disabled: `enabled: false` in its service file".to_owned(),
        Some(Exclusion::Withheld(hold, reason)) => with(hold.words(), reason),
        None => answered(entry, reach),
    };
    if reach == Some(Reach::Suspect) && entry.is_answered() {
        text.push_str(&format!("; node {node} is suspect"));
    }
    Reason { state: state(entry.freshness, &entry.announcement.state), text }
}

/// Returns the state of an instance that is not shadowed, in one word.
pub fn state(freshness: Freshness, state: &InstanceState) -> &'static str {
    match (freshness, state) {
        (Freshness::Gone, _) => "gone",
        (_, InstanceState::Critical(_)) => "critical",
        (_, InstanceState::Disabled) => "disabled",
        (_, InstanceState::Withheld(hold, _)) => hold.as_str(),
        (Freshness::LastKnown, _) => "stale",
        (Freshness::Live, InstanceState::Passing) => "passing",
        (Freshness::Live, InstanceState::Warming(_)) => "warming",
        (Freshness::Live, InstanceState::Warning(_)) => "warning",
    }
}

fn answered(entry: &CatalogEntry, reach: Option<Reach>) -> String {
    let (announcement, node) = (&entry.announcement, &entry.node);
    let full = announcement.instance.weight;
    let weight = announcement.state.weight(full);
    match &announcement.state {
        _ if entry.freshness == Freshness::LastKnown => last_known(node, reach),
        InstanceState::Warming(_) => format!("answered with weight {weight} of {full}: slow start"),
        InstanceState::Warning(reason) => {
            with(&format!("answered with weight {weight}: {}", worst(entry, "warning")), reason)
        }
        _ => plainly(weight),
    }
}

fn last_known(node: &Label, reach: Option<Reach>) -> String {
    let why = match reach {
        Some(Reach::Restarting) => "is restarting",
        Some(Reach::Alive | Reach::Suspect) => "has restarted and has not announced everything yet",
        Some(Reach::Held | Reach::Gone(_)) => "is unreachable",
        None => "is unreachable or restarting",
    };
    format!("answered as last known: node {node} {why}")
}

/// Returns the text for an instance that is answered with its full weight.
pub fn plainly(weight: u16) -> String {
    format!("answered with weight {weight}")
}

fn gone(node: &Label, reach: Option<Reach>) -> String {
    match reach {
        Some(Reach::Gone(cause)) => format!("node {node} is gone: {}", cause.as_str()),
        Some(_) => format!("node {node} is gone: restarted, nothing announced yet"),
        None => format!("node {node} is gone"),
    }
}

/// Names the check that decides: the first one with the worst status, as in
/// [`model::health::add_up`](super::health::add_up).
fn worst(entry: &CatalogEntry, status: &str) -> String {
    let checks = entry.announcement.report.iter().flat_map(|report| &report.checks);
    let worst = checks.reduce(|worst, check| if check.status > worst.status { check } else { worst });
    // Without such a check, a check of the node or of an external node decides, which the reason names.
    let worst = worst.filter(|check| check.status.as_str() == status);
    worst.map_or_else(|| status.to_owned(), |check| format!("check {} is {status}", check.name))
}

fn with(text: &str, reason: &str) -> String {
    if reason.is_empty() { text.to_owned() } else { format!("{text}: {reason}") }
}

/// Returns why none of these instances is answered: `3 instances, 3 critical: connection refused`.
pub fn none_answered<'a>(instances: impl IntoIterator<Item = &'a CatalogEntry>) -> String {
    let (mut all, mut critical, mut disabled, mut first) = (0, 0, 0, None);
    let (mut warning, mut first_warning) = (0, None);
    let mut withheld: BTreeMap<HoldReason, (usize, &str)> = BTreeMap::new();
    let (mut gone, mut gone_nodes) = (0, BTreeSet::new());
    for entry in instances {
        all += 1;
        match exclusion(entry) {
            Some(Exclusion::Gone) => {
                gone += 1;
                gone_nodes.insert(&entry.node);
            }
            Some(Exclusion::Critical(reason)) => {
                critical += 1;
                first.get_or_insert(reason);
            }
            Some(Exclusion::Warning(reason)) => {
                warning += 1;
                first_warning.get_or_insert(reason);
            }
            Some(Exclusion::Disabled) => disabled += 1,
            Some(Exclusion::Withheld(hold, reason)) => withheld.entry(hold).or_insert((0, reason)).0 += 1,
            None => {}
        }
    }
    let mut text = format!("{all} instance{}", if all == 1 { "" } else { "s" });
    if let Some(reason) = first {
        text.push_str(&with(&format!(", {critical} critical"), reason));
    }
    if let Some(reason) = first_warning {
        text.push_str(&with(&format!(", {warning} warning ({ONLY_PASSING})"), reason));
    }
    if disabled > 0 {
        text.push_str(&format!(", {disabled} disabled"));
    }
    for (hold, (count, reason)) in withheld {
        text.push_str(&with(&format!(", {count} {}", hold.words()), reason));
    }
    match (gone_nodes.first(), gone_nodes.len()) {
        (None, _) => {}
        (Some(node), 1) => text.push_str(&format!(", {gone} gone (node {node})")),
        (Some(node), nodes) => text.push_str(&format!(", {gone} gone (node {node} and {} more)", nodes - 1)),
    }
    text
}

/// Returns `2 of 3 answered`.
pub fn summary(answered: usize, all: usize) -> String {
    format!("{answered} of {all} answered")
}

/// Returns when the instance entered its state (RFC 3339); `None` unless its node is live and has reported it.
pub fn since(entry: &CatalogEntry) -> Option<String> {
    let report = entry.announcement.report.as_ref().filter(|_| entry.freshness == Freshness::Live)?;
    Some(rfc3339(Duration::from_secs(report.since)))
}

/// Returns the text for answered instances of an unreachable or restarting node and of `more` such nodes.
pub fn out_of_reach(node: &Label, more: usize) -> String {
    match more {
        0 => format!("node {node} is unreachable or restarting: answered as last known"),
        _ => format!("node {node} and {more} more are unreachable or restarting: answered as last known"),
    }
}
