//! What happens, for people who watch: the difference of two states of the cluster, as one node sees it.
//!
//! Nothing is decided from events. They are made of whole states, as everything is: what came and went between two of them
//! is no event.

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
    service::InstanceKey,
};
use crate::diagnostic::{Diagnostic, DiagnosticChanges, FolderReport, Reports};

/// What kind of event it is. The part of the word before `-` is its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A service has its first instance.
    ServiceAdded,
    /// A service has no instance any more.
    ServiceRemoved,
    /// A node announces an instance that it did not announce before.
    InstanceAdded,
    /// A node announces an instance no more.
    InstanceRemoved,
    /// It is answered from now on.
    InstanceUp,
    /// It is not answered any more.
    InstanceDown,
    /// It is answered, or not, as before, and stands otherwise.
    InstanceState,
    /// Its definition is another.
    InstanceChanged,
    /// It is held back, whatever its checks find: drained, in maintenance, flapping.
    InstanceHeld,
    /// It is held back no longer.
    InstanceReleased,
    /// A node is in the cluster that was not.
    NodeJoined,
    /// It does not answer; others are asked.
    NodeSuspect,
    /// It answers again.
    NodeAlive,
    /// It is out of reach together with too many others.
    NodeHeld,
    /// It is gone.
    NodeGone,
    /// It has said good-bye.
    NodeLeft,
    /// Its agent has been started anew.
    NodeRestarted,
    /// It has been gone for so long that it is not listed any more.
    NodeForgotten,
    /// More than half of the other nodes are out of reach together.
    PartitionBegan,
    /// No longer.
    PartitionEnded,
    /// The files of a folder were read again.
    FileReload,
    /// A file has a problem that it did not have.
    FileProblem,
    /// A file has no problem any more.
    FileMended,
    /// Something that arrived from the network was not let in.
    GossipRejected,
    /// The keys of gossip are others.
    GossipKeys,
    /// Events that were not kept for this client.
    Missed,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 26] = [
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

    /// One word for JSON and tables.
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

    /// Whether `word` names it or its group.
    pub fn is(self, word: &str) -> bool {
        self.as_str() == word || self.as_str().split('-').next() == Some(word)
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What kind of thing.
    pub kind: Kind,
    /// The node that it is about.
    pub node: Option<Label>,
    /// The service that it is about.
    pub service: Option<Label>,
    /// The instance's id.
    pub instance: Option<Label>,
    /// How the instance stood before, in one word.
    pub was: Option<&'static str>,
    /// How it stands now.
    pub state: Option<&'static str>,
    /// Where in which file; lines and columns count from 1.
    pub place: Option<(PathBuf, usize, usize)>,
    /// How many times.
    pub count: Option<u64>,
    /// One sentence for people.
    pub text: String,
}

impl Event {
    /// An event that is about nothing in particular.
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { kind, node: None, service: None, instance: None, was: None, state: None, place: None, count: None, text }
    }
}

/// What events are made of.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// All that is announced.
    pub catalog: &'a Catalog,
    /// The cluster.
    pub members: &'a Membership,
    /// The folders of this node.
    pub files: &'a Reports,
    /// The ids of the gossip keys, the one that seals first.
    pub keys: &'a [String],
}

/// Tells what happened between two states. What arrived and was not let in has [`rejected`], since that may never end.
pub fn between(before: Observed<'_>, after: Observed<'_>, tell: &mut dyn FnMut(Event)) {
    members(before.members, after.members, tell);
    announced(before.catalog, after.catalog, tell);
    if !std::ptr::eq(before.files, after.files) {
        for (folder, report) in after.files {
            files(before.files.get(folder), report, folder, tell);
        }
    }
    if before.keys != after.keys {
        let text = match after.keys {
            [] => "gossip is not sealed any more".to_owned(),
            [primary] => format!("gossip is sealed with the key {primary}, the only one"),
            [primary, others @ ..] => {
                format!("gossip is sealed with the key {primary}; {} open it too", others.join(", "))
            }
        };
        tell(Event::new(Kind::GossipKeys, text));
    }
}

/// Tells what arrived and was not let in between two counts of it, by reason.
pub fn rejected(before: &[(&'static str, u64)], after: &[(&'static str, u64)], tell: &mut dyn FnMut(Event)) {
    let known: BTreeMap<&str, u64> = before.iter().copied().collect();
    for (reason, count) in after {
        let more = count.saturating_sub(known.get(reason).copied().unwrap_or(0));
        if more > 0 {
            let text = format!("{more} more that arrived from the network were not let in: {reason}");
            tell(Event { count: Some(more), ..Event::new(Kind::GossipRejected, text) });
        }
    }
}

fn members(before: &Membership, after: &Membership, tell: &mut dyn FnMut(Event)) {
    match (before.partitioned, after.partitioned) {
        (None, Some(_)) => {
            let text = "more than half of the other nodes are out of reach together: what they announced is answered as \
                        last known";
            tell(Event::new(Kind::PartitionBegan, text));
        }
        (Some(_), None) => {
            tell(Event::new(Kind::PartitionEnded, "more than half of the other nodes are within reach again"));
        }
        _ => {}
    }
    if before.members == after.members {
        return;
    }
    let (were, are) = (by_name(before), by_name(after));
    for (name, member) in &are {
        if let Some((kind, text)) = member_event(were.get(name).copied(), member) {
            tell(Event { node: Some((*name).clone()), ..Event::new(kind, format!("{name} {text}")) });
        }
    }
    for name in were.keys().filter(|name| !are.contains_key(*name)) {
        let text = format!("{name} is not listed any more");
        tell(Event { node: Some((*name).clone()), ..Event::new(Kind::NodeForgotten, text) });
    }
}

/// A node's newest run counts.
fn by_name(known: &Membership) -> BTreeMap<&Label, &Member> {
    known.members.iter().map(|member| (&member.id.name, member)).collect()
}

fn member_event(was: Option<&Member>, is: &Member) -> Option<(Kind, String)> {
    let address = is.address;
    let Some(was) = was else {
        let joined = || (Kind::NodeJoined, format!("at {address} is in the cluster"));
        return matches!(is.reach, Reach::Alive | Reach::Suspect).then(joined);
    };
    if was.reach == is.reach {
        let anew = was.id.generation != is.id.generation && is.reach == Reach::Alive;
        return anew.then(|| (Kind::NodeRestarted, format!("at {address} was started anew")));
    }
    Some(match is.reach {
        Reach::Alive if matches!(was.reach, Reach::Gone(_)) => (Kind::NodeAlive, format!("at {address} is back")),
        Reach::Alive => (Kind::NodeAlive, "answers again".to_owned()),
        Reach::Suspect => (Kind::NodeSuspect, "does not answer; others are asked".to_owned()),
        Reach::Held => {
            (Kind::NodeHeld, "is out of reach, with too many others: it is answered as last known".to_owned())
        }
        Reach::Gone(Cause::Left) => (Kind::NodeLeft, "has left the cluster".to_owned()),
        Reach::Gone(cause) => (Kind::NodeGone, format!("is gone: {}", cause.as_str())),
    })
}

fn announced(before: &Catalog, after: &Catalog, tell: &mut dyn FnMut(Event)) {
    let mut services = Services { before, after, told: BTreeSet::new(), gone: BTreeSet::new() };
    for item in before.view().diff(after.view()) {
        match item {
            DiffItem::Add(name, new) => services.node(name, None, Some(new), tell),
            DiffItem::Remove(name, old) => services.node(name, Some(old), None, tell),
            DiffItem::Update { old: (name, old), new: (_, new) } => services.node(name, Some(old), Some(new), tell),
        }
    }
    for name in services.gone {
        let text = format!("{name} has no instance any more: NXDOMAIN");
        tell(Event { service: Some(name), ..Event::new(Kind::ServiceRemoved, text) });
    }
}

/// Tells of instances, and of services before their first and after their last.
struct Services<'a> {
    before: &'a Catalog,
    after: &'a Catalog,
    told: BTreeSet<Label>,
    gone: BTreeSet<Label>,
}

impl Services<'_> {
    fn node(
        &mut self,
        name: &Label,
        old: Option<&Arc<NodeView>>,
        new: Option<&Arc<NodeView>>,
        tell: &mut dyn FnMut(Event),
    ) {
        let none = Announcements::new();
        let (was, is) = (old.map(|view| view.freshness), new.map(|view| view.freshness));
        let (before, after) =
            (old.map_or(&none, |view| &view.announcements), new.map_or(&none, |view| &view.announcements));
        if was.is_some() && is.is_some() && was != is {
            // All of its instances stand otherwise.
            for (key, announcement) in after {
                self.instance(name, key, before.get(key).zip(was), Some(announcement).zip(is), tell);
            }
            for (key, announcement) in before.iter().filter(|(key, _)| !after.contains_key(*key)) {
                self.instance(name, key, Some(announcement).zip(was), None, tell);
            }
            return;
        }
        for item in before.diff(after) {
            match item {
                DiffItem::Add(key, new) => self.instance(name, key, None, Some(new).zip(is), tell),
                DiffItem::Remove(key, old) => self.instance(name, key, Some(old).zip(was), None, tell),
                DiffItem::Update { old: (key, old), new: (_, new) } => {
                    self.instance(name, key, Some(old).zip(was), Some(new).zip(is), tell);
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
        tell: &mut dyn FnMut(Event),
    ) {
        let service = &key.service;
        if old.is_none() && self.before.service(service).is_none() && self.told.insert(service.clone()) {
            let text = format!("{service} has its first instance");
            tell(Event { service: Some(service.clone()), ..Event::new(Kind::ServiceAdded, text) });
        }
        if new.is_none() && self.after.service(service).is_none() {
            self.gone.insert(service.clone());
        }
        let (was, is) = (old.map(Stood::new), new.map(Stood::new));
        let Some((kind, text)) = instance_event(was.as_ref(), is.as_ref()) else { return };
        tell(Event {
            node: Some(node.clone()),
            service: Some(service.clone()),
            instance: Some(key.id.clone()),
            was: was.map(|stood| stood.word),
            state: is.map(|stands| stands.word),
            ..Event::new(kind, format!("{key} on {node} {text}"))
        });
    }
}

/// How an instance stands at one moment.
struct Stood<'a> {
    announcement: &'a Announcement,
    word: &'static str,
    answered: bool,
    held: bool,
}

impl<'a> Stood<'a> {
    fn new((announcement, freshness): (&'a Arc<Announcement>, Freshness)) -> Self {
        let standing = &announcement.standing;
        let word = reason::state(freshness, standing);
        Self {
            announcement,
            word,
            answered: freshness != Freshness::Gone && standing.is_answered(),
            held: freshness != Freshness::Gone && matches!(standing, InstanceState::Withheld(..)),
        }
    }

    /// `critical: connection refused`.
    fn words(&self) -> String {
        match &self.announcement.standing {
            InstanceState::Critical(why) | InstanceState::Warning(why) | InstanceState::Withheld(_, why)
                if !why.is_empty() && !matches!(self.word, "gone" | "stale") =>
            {
                format!("{}: {why}", self.word)
            }
            _ => self.word.to_owned(),
        }
    }
}

fn instance_event(was: Option<&Stood<'_>>, is: Option<&Stood<'_>>) -> Option<(Kind, String)> {
    let answered = |stands: &Stood<'_>| if stands.answered { "answered" } else { "not answered" };
    let (was, is) = match (was, is) {
        (None, None) => return None,
        (None, Some(is)) => return Some((Kind::InstanceAdded, format!("is there, {}: {}", answered(is), is.words()))),
        (Some(was), None) => {
            return Some((Kind::InstanceRemoved, format!("is not there any more; it was {}", was.word)));
        }
        (Some(was), Some(is)) => (was, is),
    };
    if was.word == is.word {
        let changed = was.announcement.instance != is.announcement.instance;
        return changed
            .then(|| (Kind::InstanceChanged, format!("is defined otherwise, and {} as before", answered(is))));
    }
    let words = is.words();
    Some(match (was.answered, is.answered) {
        _ if is.held => (Kind::InstanceHeld, format!("is held back: {words}")),
        _ if was.held => (Kind::InstanceReleased, format!("is held back no longer, and {}: {words}", answered(is))),
        (false, true) => (Kind::InstanceUp, format!("is answered from now on: {words}")),
        (true, false) => (Kind::InstanceDown, format!("is not answered any more: {words}")),
        _ => (Kind::InstanceState, format!("is {words}, and {} as before", answered(is))),
    })
}

fn files(before: Option<&FolderReport>, now: &FolderReport, folder: &Path, tell: &mut dyn FnMut(Event)) {
    let place = |path: &Path| Some((path.to_owned(), 1, 1));
    let none = FolderReport::default();
    let before = before.unwrap_or(&none);
    if before == now {
        return;
    }
    let news = DiagnosticChanges::between(&before.problems, &now.problems);
    for problem in news.appeared {
        let Diagnostic { path, line, column, .. } = problem;
        let place = Some((path.clone(), *line, *column));
        tell(Event { place, ..Event::new(Kind::FileProblem, problem.to_string()) });
    }
    for path in news.mended {
        let text = format!("{}: no problems any more", path.display());
        tell(Event { place: place(path), ..Event::new(Kind::FileMended, text) });
    }
    if before.reads != now.reads {
        let text = format!("{}: read again, {} in service", folder.display(), now.in_service);
        tell(Event { place: place(folder), ..Event::new(Kind::FileReload, text) });
    }
}

#[cfg(test)]
mod tests;
