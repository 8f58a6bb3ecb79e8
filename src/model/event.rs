//! Events: the difference between two states of the cluster, as one node sees it.
//!
//! Events are for people and for `muster monitor`; no decision depends on them. They are derived from whole states, so a
//! change that is undone between two states is no event.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use imbl::ordmap::DiffItem;

use super::{
    announcement::{Announcement, Announcements, InstanceState},
    catalog::{Catalog, Freshness, NodeView},
    member::{Cause, Member, Membership, Reach},
    name::Label,
    reason,
    registered_name::RegisteredName,
    service::InstanceKey,
};
use crate::{
    diagnostic::{Diagnostic, DiagnosticChanges, FolderReport, Reports},
    printable,
};

/// Kind of an event. The part of its word before `-` is its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A service has its first instance.
    ServiceAdded,
    /// A service has lost its last instance.
    ServiceRemoved,
    /// A node announces a new instance.
    InstanceAdded,
    /// A node no longer announces an instance.
    InstanceRemoved,
    /// An instance is now answered.
    InstanceUp,
    /// An instance is no longer answered.
    InstanceDown,
    /// An instance has another state; whether it is answered has not changed.
    InstanceState,
    /// The definition of an instance has changed.
    InstanceChanged,
    /// An instance is withheld whatever its checks report: drained, in maintenance, flapping, unresolved.
    InstanceHeld,
    /// An instance is no longer withheld.
    InstanceReleased,
    /// A node has joined the cluster.
    NodeJoined,
    /// A node does not respond; other nodes probe it.
    NodeSuspect,
    /// A node responds again.
    NodeAlive,
    /// A node is unreachable together with most other nodes.
    NodeHeld,
    /// A node has announced a restart.
    NodeRestarting,
    /// A node was declared dead.
    NodeGone,
    /// A node left gracefully.
    NodeLeft,
    /// The agent of a node was restarted.
    NodeRestarted,
    /// A node that was gone is no longer listed.
    NodeForgotten,
    /// More than half of the other nodes are unreachable together.
    PartitionBegan,
    /// At least half of the other nodes are reachable again.
    PartitionEnded,
    /// A folder was reloaded.
    FileReload,
    /// A file has a new problem.
    FileProblem,
    /// All problems of a file are fixed.
    FileMended,
    /// Messages from the network were rejected.
    GossipRejected,
    /// The gossip keys have changed.
    GossipKeys,
    /// This client has missed events that are no longer kept.
    Missed,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 27] = [
        Self::ServiceAdded,
        Self::ServiceRemoved,
        Self::InstanceAdded,
        Self::InstanceRemoved,
        Self::InstanceUp,
        Self::InstanceDown,
        Self::InstanceState,
        Self::InstanceChanged,
        Self::InstanceHeld,
        Self::InstanceReleased,
        Self::NodeJoined,
        Self::NodeSuspect,
        Self::NodeAlive,
        Self::NodeHeld,
        Self::NodeRestarting,
        Self::NodeGone,
        Self::NodeLeft,
        Self::NodeRestarted,
        Self::NodeForgotten,
        Self::PartitionBegan,
        Self::PartitionEnded,
        Self::FileReload,
        Self::FileProblem,
        Self::FileMended,
        Self::GossipRejected,
        Self::GossipKeys,
        Self::Missed,
    ];

    /// Returns the kind in one word, for JSON and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ServiceAdded => "service-added",
            Self::ServiceRemoved => "service-removed",
            Self::InstanceAdded => "instance-added",
            Self::InstanceRemoved => "instance-removed",
            Self::InstanceUp => "instance-up",
            Self::InstanceDown => "instance-down",
            Self::InstanceState => "instance-state",
            Self::InstanceChanged => "instance-changed",
            Self::InstanceHeld => "instance-held",
            Self::InstanceReleased => "instance-released",
            Self::NodeJoined => "node-joined",
            Self::NodeSuspect => "node-suspect",
            Self::NodeAlive => "node-alive",
            Self::NodeHeld => "node-held",
            Self::NodeRestarting => "node-restarting",
            Self::NodeGone => "node-gone",
            Self::NodeLeft => "node-left",
            Self::NodeRestarted => "node-restarted",
            Self::NodeForgotten => "node-forgotten",
            Self::PartitionBegan => "partition-began",
            Self::PartitionEnded => "partition-ended",
            Self::FileReload => "file-reload",
            Self::FileProblem => "file-problem",
            Self::FileMended => "file-mended",
            Self::GossipRejected => "gossip-rejected",
            Self::GossipKeys => "gossip-keys",
            Self::Missed => "missed",
        }
    }

    /// Reports whether `word` is the kind's word or its group.
    pub fn is(self, word: &str) -> bool {
        self.as_str() == word || self.as_str().split('-').next() == Some(word)
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Kind of the event.
    pub kind: Kind,
    /// Node concerned.
    pub node: Option<Label>,
    /// Service concerned.
    pub service: Option<RegisteredName>,
    /// Id of the instance concerned.
    pub instance: Option<Label>,
    /// State of the instance before, in one word.
    pub was: Option<&'static str>,
    /// State of the instance now.
    pub state: Option<&'static str>,
    /// File, line and column; both are counted from 1.
    pub place: Option<(PathBuf, usize, usize)>,
    /// Number of messages rejected, or of events missed.
    pub count: Option<u64>,
    /// One line for people.
    pub text: String,
}

impl Event {
    /// Returns an event with a text and no other field.
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { kind, node: None, service: None, instance: None, was: None, state: None, place: None, count: None, text }
    }
}

/// State from which events are derived.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// Services and instances of all nodes.
    pub catalog: &'a Catalog,
    /// Members of the cluster.
    pub members: &'a Membership,
    /// Folders of this node.
    pub files: &'a Reports,
    /// Ids of the gossip keys, the primary key first.
    pub keys: &'a [String],
}

/// Emits the events between two states, except those of [`rejected`]: they may never end, so callers limit their rate.
pub fn between(before: Observed<'_>, after: Observed<'_>, emit: &mut dyn FnMut(Event)) {
    members(before.members, after.members, emit);
    announced(before.catalog, after.catalog, emit);
    if !std::ptr::eq(before.files, after.files) {
        for (folder, report) in after.files {
            files(before.files.get(folder), report, folder, emit);
        }
    }
    if before.keys != after.keys {
        let text = match after.keys {
            [] => "gossip is no longer encrypted".to_owned(),
            [primary] => format!("gossip is encrypted with key {primary}, the only key"),
            [primary, others @ ..] => {
                format!("gossip is encrypted with key {primary}; also accepted: {}", others.join(", "))
            }
        };
        emit(Event::new(Kind::GossipKeys, text));
    }
}

/// Reasons for which messages are rejected in every cluster: they were sent to the former run or to this node itself, or have changes
/// that this node made.
pub const EXPECTED_REJECTIONS: [&str; 3] = ["for another run", "own", "own run"];

/// Emits an event for each reason whose count of rejected messages has grown, except for expected ones.
pub fn rejected(before: &[(&'static str, u64)], after: &[(&'static str, u64)], emit: &mut dyn FnMut(Event)) {
    let known: BTreeMap<&str, u64> = before.iter().copied().collect();
    for (reason, count) in after.iter().filter(|(reason, _)| !EXPECTED_REJECTIONS.contains(reason)) {
        let more = count.saturating_sub(known.get(reason).copied().unwrap_or(0));
        if more > 0 {
            let text = format!("messages rejected: {more} ({reason})");
            emit(Event { count: Some(more), ..Event::new(Kind::GossipRejected, text) });
        }
    }
}

fn members(before: &Membership, after: &Membership, emit: &mut dyn FnMut(Event)) {
    match (before.partitioned, after.partitioned) {
        (None, Some(_)) => {
            let text = "more than half of the other nodes are unreachable: their instances are answered as last known";
            emit(Event::new(Kind::PartitionBegan, text));
        }
        (Some(_), None) => {
            emit(Event::new(Kind::PartitionEnded, "at least half of the other nodes are reachable again"));
        }
        _ => {}
    }
    if before.members == after.members {
        return;
    }
    let (were, are) = (by_name(before), by_name(after));
    for (name, member) in &are {
        if let Some((kind, text)) = member_event(were.get(name).copied(), member) {
            emit(Event { node: Some((*name).clone()), ..Event::new(kind, format!("{name} {text}")) });
        }
    }
    for name in were.keys().filter(|name| !are.contains_key(*name)) {
        let text = format!("{name} is no longer listed");
        emit(Event { node: Some((*name).clone()), ..Event::new(Kind::NodeForgotten, text) });
    }
}

/// Returns the newest run of each node.
fn by_name(known: &Membership) -> BTreeMap<&Label, &Member> {
    known.members.iter().map(|member| (&member.id.name, member)).collect()
}

fn member_event(was: Option<&Member>, is: &Member) -> Option<(Kind, String)> {
    let address = is.address;
    let Some(was) = was else {
        let joined = || (Kind::NodeJoined, format!("at {address} joined the cluster"));
        return is.reach.is_live().then(joined);
    };
    let restarted = was.id.generation != is.id.generation && is.reach == Reach::Alive;
    if was.reach == Reach::Restarting && restarted || was.reach == is.reach {
        return restarted.then(|| (Kind::NodeRestarted, format!("at {address} restarted")));
    }
    Some(match is.reach {
        Reach::Alive if matches!(was.reach, Reach::Gone(_)) => {
            (Kind::NodeAlive, format!("at {address} rejoined the cluster"))
        }
        Reach::Alive => (Kind::NodeAlive, "responds again".to_owned()),
        Reach::Suspect => (Kind::NodeSuspect, "is suspect: it does not respond".to_owned()),
        Reach::Held => (Kind::NodeHeld, "is unreachable: its instances are answered as last known".to_owned()),
        Reach::Restarting => {
            (Kind::NodeRestarting, "is restarting: its instances are answered as last known".to_owned())
        }
        Reach::Gone(Cause::Left) => (Kind::NodeLeft, "left the cluster".to_owned()),
        Reach::Gone(cause @ Cause::Forgotten) => (Kind::NodeGone, format!("was {}", cause.as_str())),
        Reach::Gone(cause) => (Kind::NodeGone, format!("is gone: {}", cause.as_str())),
    })
}

fn announced(before: &Catalog, after: &Catalog, emit: &mut dyn FnMut(Event)) {
    let mut services = Services { before, after, added: BTreeSet::new(), removed: BTreeSet::new() };
    for item in before.view().diff(after.view()) {
        match item {
            DiffItem::Add(name, new) => services.node(name, None, Some(new), emit),
            DiffItem::Remove(name, old) => services.node(name, Some(old), None, emit),
            DiffItem::Update { old: (name, old), new: (_, new) } => services.node(name, Some(old), Some(new), emit),
        }
    }
    for name in services.removed {
        let text = format!("{name} has no instances: NXDOMAIN");
        emit(Event { service: Some(name), ..Event::new(Kind::ServiceRemoved, text) });
    }
}

/// Emits the events of instances, and of services before their first and after their last one.
struct Services<'a> {
    before: &'a Catalog,
    after: &'a Catalog,
    added: BTreeSet<RegisteredName>,
    removed: BTreeSet<RegisteredName>,
}

impl Services<'_> {
    fn node(
        &mut self,
        name: &Label,
        old: Option<&Arc<NodeView>>,
        new: Option<&Arc<NodeView>>,
        emit: &mut dyn FnMut(Event),
    ) {
        let none = Announcements::new();
        let (was, is) = (old.map(|view| view.freshness), new.map(|view| view.freshness));
        let (before, after) =
            (old.map_or(&none, |view| &view.announcements), new.map_or(&none, |view| &view.announcements));
        if was.is_some() && is.is_some() && was != is {
            // Every instance of the node has another state.
            for (key, announcement) in after {
                self.instance(name, key, before.get(key).zip(was), Some(announcement).zip(is), emit);
            }
            for (key, announcement) in before.iter().filter(|(key, _)| !after.contains_key(*key)) {
                self.instance(name, key, Some(announcement).zip(was), None, emit);
            }
            return;
        }
        for item in before.diff(after) {
            match item {
                DiffItem::Add(key, new) => self.instance(name, key, None, Some(new).zip(is), emit),
                DiffItem::Remove(key, old) => self.instance(name, key, Some(old).zip(was), None, emit),
                DiffItem::Update { old: (key, old), new: (_, new) } => {
                    self.instance(name, key, Some(old).zip(was), Some(new).zip(is), emit);
                }
            }
        }
    }

    fn instance(
        &mut self,
        node: &Label,
        key: &InstanceKey,
        old: Option<(&Arc<Announcement>, Freshness)>,
        new: Option<(&Arc<Announcement>, Freshness)>,
        emit: &mut dyn FnMut(Event),
    ) {
        let service = &key.service;
        if old.is_none() && self.before.service(service).is_none() && self.added.insert(service.clone()) {
            let text = format!("{service} has its first instance");
            emit(Event { service: Some(service.clone()), ..Event::new(Kind::ServiceAdded, text) });
        }
        if new.is_none() && self.after.service(service).is_none() {
            self.removed.insert(service.clone());
        }
        let observe = |known| Observation::new(known, self.after.only_passing());
        let (was, is) = (old.map(observe), new.map(observe));
        let Some((kind, text)) = instance_event(was.as_ref(), is.as_ref()) else { return };
        emit(Event {
            node: Some(node.clone()),
            service: Some(service.clone()),
            instance: Some(key.id.clone()),
            was: was.map(|was| was.word),
            state: is.map(|is| is.word),
            ..Event::new(kind, format!("{key} on {node} {text}"))
        });
    }
}

/// State of an instance at one moment.
struct Observation<'a> {
    announcement: &'a Announcement,
    word: &'static str,
    answered: bool,
    withheld: bool,
}

impl<'a> Observation<'a> {
    fn new((announcement, freshness): (&'a Arc<Announcement>, Freshness), only_passing: bool) -> Self {
        let state = &announcement.state;
        Self {
            announcement,
            word: reason::state(freshness, state),
            answered: freshness != Freshness::Gone
                && state.is_answered()
                && !(only_passing && matches!(state, InstanceState::Warning(_))),
            withheld: freshness != Freshness::Gone && matches!(state, InstanceState::Withheld(..)),
        }
    }

    /// Returns state and reason: `critical: connection refused`.
    fn words(&self) -> String {
        match &self.announcement.state {
            InstanceState::Critical(why) | InstanceState::Warning(why) | InstanceState::Withheld(_, why)
                if !why.is_empty() && !matches!(self.word, "gone" | "stale") =>
            {
                format!("{}: {why}", self.word)
            }
            _ => self.word.to_owned(),
        }
    }
}

fn instance_event(was: Option<&Observation<'_>>, is: Option<&Observation<'_>>) -> Option<(Kind, String)> {
    let answered = |now: &Observation<'_>| if now.answered { "answered" } else { "not answered" };
    let (was, is) = match (was, is) {
        (None, None) => return None,
        (None, Some(is)) => return Some((Kind::InstanceAdded, format!("added, {}: {}", answered(is), is.words()))),
        (Some(was), None) => {
            return Some((Kind::InstanceRemoved, format!("removed, was {}", was.word)));
        }
        (Some(was), Some(is)) => (was, is),
    };
    if was.word == is.word {
        let changed = was.announcement.instance != is.announcement.instance;
        return changed.then(|| (Kind::InstanceChanged, format!("definition changed, still {}", answered(is))));
    }
    let words = is.words();
    Some(match (was.answered, is.answered) {
        _ if is.withheld => (Kind::InstanceHeld, format!("is withheld: {words}")),
        _ if was.withheld => (Kind::InstanceReleased, format!("is no longer withheld, {}: {words}", answered(is))),
        (false, true) => (Kind::InstanceUp, format!("is answered: {words}")),
        (true, false) => (Kind::InstanceDown, format!("is no longer answered: {words}")),
        _ => (Kind::InstanceState, format!("is still {}: {words}", answered(is))),
    })
}

fn files(before: Option<&FolderReport>, now: &FolderReport, folder: &Path, emit: &mut dyn FnMut(Event)) {
    let place = |path: &Path| Some((path.to_owned(), 1, 1));
    let none = FolderReport::default();
    let before = before.unwrap_or(&none);
    if before == now {
        return;
    }
    let changes = DiagnosticChanges::between(&before.problems, &now.problems);
    for problem in changes.appeared {
        let Diagnostic { path, line, column, .. } = problem;
        let place = Some((path.clone(), *line, *column));
        emit(Event { place, ..Event::new(Kind::FileProblem, problem.to_string()) });
    }
    for path in changes.fixed {
        let text = format!("{}: all problems fixed", printable::path(path));
        emit(Event { place: place(path), ..Event::new(Kind::FileMended, text) });
    }
    if before.reads != now.reads {
        let text = format!("{}: reloaded, {}", printable::path(folder), now.in_service);
        emit(Event { place: place(folder), ..Event::new(Kind::FileReload, text) });
    }
}

#[cfg(test)]
mod tests;
