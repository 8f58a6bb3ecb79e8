//! Lines of the encoding. Times on the uptime clock are in nanoseconds.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    files::last_good::LastValidFile,
    gossip::{
        known_peer::KnownPeer,
        peer_replica::{Change, Facts, Replica},
    },
    model::{
        announcement::bounded,
        bounds,
        check_results::{CheckResult, Fingerprint, InstanceResults, Moment},
        flap_damping::Penalty,
        followed_host::HostName,
        health::Status,
        list::List,
        maintenance::Scope,
        member::{Cause, PeerId, Reach},
        name::Label,
        service::InstanceKey,
        shared_lists::SharedLists,
    },
    record::{Record, instance_key, read_instance_key, read_state, state_value},
};

/// Item of the encoding: one line, and the lines or octets that belong to it.
pub(super) enum Item<'a> {
    At(Moment),
    Own(OwnLine<'a>),
    Host(HostName, List<IpAddr>),
    File(LastValidFile),
    Peer(PeerLines<'a>),
    /// An item of a newer version.
    Unknown,
}

/// Line of an instance's results that has not been read.
pub(super) struct OwnLine<'a>(&'a str);

/// Lines of a peer that have not been read.
pub(super) struct PeerLines<'a> {
    /// First line.
    line: &'a str,
    /// Keys and values of its records.
    records: Vec<(&'a str, &'a str)>,
}

/// Place of a key for the results of the node as a whole. Keys of instances have a slash.
const OF_NODE: &str = "node";

pub(super) fn write_moment(at: &Moment, out: &mut Vec<u8>) {
    line("at", &MomentText { unix: nanos(at.unix), uptime: nanos(at.uptime) }, out);
}

pub(super) fn write_results(scope: &Scope, results: &InstanceResults, out: &mut Vec<u8>) {
    let check = |result: &CheckResult| CheckText {
        check: result.check.0,
        status: result.status.as_str().into(),
        reason: bounded(&result.reason).into(),
        since: result.since,
        expires: result.expires.map(nanos),
    };
    let Penalty { value, at, held } = results.penalty;
    let text = ResultsText {
        state: state_value(&results.state).into(),
        since: results.since,
        up: results.up.map(nanos),
        penalty: (results.penalty != Penalty::default()).then(|| ((value * 1000.0).round() as u32, nanos(at), held)),
        checks: results.checks.iter().map(check).collect(),
    };
    let of = match scope {
        Scope::Node => OF_NODE.to_owned(),
        Scope::Instance(key) => instance_key(key),
    };
    line(&format!("own {of}"), &text, out);
}

pub(super) fn write_host(name: &HostName, addresses: &List<IpAddr>, out: &mut Vec<u8>) {
    line(&format!("host {name}"), &&addresses[..], out);
}

/// Writes a file; nothing if its path is not UTF-8.
pub(super) fn write_file(file: &LastValidFile, out: &mut Vec<u8>) {
    let Some(path) = file.path.to_str() else { return };
    line("file", &FileText { path: path.into(), len: file.text.len() }, out);
    out.extend_from_slice(&file.text);
    out.push(b'\n');
}

pub(super) fn write_peer(peer: &KnownPeer, out: &mut Vec<u8>) {
    let text = PeerText {
        name: peer.id.name.as_str().into(),
        generation: peer.id.generation,
        incarnation: peer.incarnation,
        address: peer.address,
        reach: reach_word(peer.reach).into(),
        version: peer.version,
        serial: peer.serial,
        zone_serial: peer.zone_serial,
    };
    line("peer", &text, out);
    let mut record = |record: Record| {
        let (key, value) = record.encode();
        for part in [key.as_bytes(), b" ", value.as_bytes(), b"\n"] {
            out.extend_from_slice(part);
        }
    };
    let Facts { addresses, datacenter, zone, version, meta, ttl } = peer.facts.clone();
    record(Record::Node { addresses, datacenter, zone, version, meta, ttl });
    for node in peer.external.values() {
        record(Record::External(node.clone()));
    }
    for (key, known) in &peer.announcements {
        record(Record::Instance(known.instance.clone()));
        record(Record::State(InstanceKey::clone(key), known.state.clone()));
        if let Some(report) = &known.report {
            record(Record::Report(InstanceKey::clone(key), report.clone()));
        }
    }
    if let Some(report) = &peer.node_checks {
        record(Record::NodeChecks(report.clone()));
    }
}

/// Reads items.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Returns the first line, and a reader of what follows.
    pub(super) fn new(octets: &'a [u8]) -> Option<(&'a str, Self)> {
        let mut reader = Self { rest: octets };
        Some((reader.line()?, reader))
    }

    /// Returns the octets that have not been read.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Reads the next item.
    ///
    /// # Errors
    /// The line of an invalid item; empty if it is not a line of text.
    pub(super) fn item(&mut self) -> Result<Item<'a>, &'a str> {
        let text = self.line().ok_or("")?;
        let (word, value) = text.split_once(' ').unwrap_or((text, ""));
        let item = match word {
            "at" => read_moment(value).map(Item::At),
            "own" => Some(Item::Own(OwnLine(text))),
            "host" => read_host(value),
            "file" => self.file(value).map(Item::File),
            "peer" => Some(Item::Peer(PeerLines { line: text, records: self.records() })),
            _ => Some(Item::Unknown),
        };
        item.ok_or(text)
    }

    fn line(&mut self) -> Option<&'a str> {
        line_of(&mut self.rest)
    }

    fn file(&mut self, value: &str) -> Option<LastValidFile> {
        let FileText { path, len } = json(value)?;
        let (text, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest.strip_prefix(b"\n")?;
        Some(LastValidFile { path: PathBuf::from(&*path), text: text.into() })
    }

    /// Returns the records up to the next line whose key has no `/`.
    fn records(&mut self) -> Vec<(&'a str, &'a str)> {
        let mut records = Vec::new();
        loop {
            let mut ahead = Self { rest: self.rest };
            let record = ahead.line().and_then(|line| line.split_once(' ')).filter(|(key, _)| key.contains('/'));
            let Some(record) = record else { return records };
            records.push(record);
            self.rest = ahead.rest;
        }
    }
}

impl<'a> OwnLine<'a> {
    /// Reads the results.
    ///
    /// # Errors
    /// The line if it is invalid.
    pub(super) fn read(&self) -> Result<(Scope, InstanceResults), &'a str> {
        let (_, value) = self.0.split_once(' ').ok_or(self.0)?;
        read_results(value).ok_or(self.0)
    }
}

impl<'a> PeerLines<'a> {
    /// Number of records.
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Reads the peer.
    ///
    /// # Errors
    /// The first line if it is invalid, or if no valid record describes the node.
    pub(super) fn read(&self) -> Result<KnownPeer, &'a str> {
        let value = self.line.split_once(' ').map_or("", |(_, value)| value);
        self.known_peer(value).ok_or(self.line)
    }

    fn known_peer(&self, value: &str) -> Option<KnownPeer> {
        let text: PeerText<'_> = json(value)?;
        let change = |(key, value): &(&'a str, &'a str)| Change { key, version: 1, value: Some(value) };
        let mut replica = Replica::default();
        // Each thread shares lists within a peer: most equal lists are there.
        let mut lists = SharedLists::default();
        replica.gossiped(1, true, self.records.iter().map(change), &mut lists, |_, _| {});
        Some(KnownPeer {
            id: PeerId { name: Label::parse(&text.name).ok()?, generation: text.generation },
            incarnation: text.incarnation,
            address: text.address,
            reach: read_reach(&text.reach),
            version: text.version,
            facts: replica.facts?,
            announcements: replica.announcements,
            external: replica.external,
            node_checks: replica.node_checks,
            serial: text.serial,
            zone_serial: text.zone_serial,
        })
    }
}

/// Takes a line of text off the octets.
fn line_of<'a>(octets: &mut &'a [u8]) -> Option<&'a str> {
    let end = octets.iter().position(|octet| *octet == b'\n')?;
    let text = str::from_utf8(&octets[..end]).ok()?;
    *octets = &octets[end + 1..];
    Some(text)
}

fn read_moment(value: &str) -> Option<Moment> {
    let text: MomentText = json(value)?;
    Some(Moment { unix: Duration::from_nanos(text.unix), uptime: Duration::from_nanos(text.uptime) })
}

fn read_host<'a>(value: &str) -> Option<Item<'a>> {
    let (name, addresses) = value.split_once(' ')?;
    let (name, addresses): (_, Vec<IpAddr>) = (HostName::parse(name).ok()?, json(addresses)?);
    bounds::addresses(&addresses).ok()?;
    Some(Item::Host(name, addresses.into()))
}

fn read_results(value: &str) -> Option<(Scope, InstanceResults)> {
    let (key, value) = value.split_once(' ')?;
    let scope = match key {
        OF_NODE => Scope::Node,
        key => Scope::Instance(read_instance_key(key).ok()?),
    };
    let text: ResultsText<'_> = json(value)?;
    let check = |check: CheckText<'_>| {
        Some(CheckResult {
            check: Fingerprint(check.check),
            status: Status::from_word(&check.status)?,
            reason: bounded(&check.reason).into(),
            since: check.since,
            expires: check.expires.map(Duration::from_nanos),
            progress: None,
        })
    };
    let penalty = |(thousandths, at, held)| Penalty {
        value: f64::from(thousandths) / 1000.0,
        at: Duration::from_nanos(at),
        held,
    };
    let results = InstanceResults {
        state: read_state(&text.state).ok()?,
        since: text.since,
        up: text.up.map(Duration::from_nanos),
        penalty: text.penalty.map(penalty).unwrap_or_default(),
        checks: text.checks.into_iter().map(check).collect::<Option<_>>()?,
    };
    Some((scope, results))
}

/// Words for reachability.
const REACHES: &[(&str, Reach)] = &[
    ("alive", Reach::Alive),
    ("suspect", Reach::Suspect),
    ("held", Reach::Held),
    ("restarting", Reach::Restarting),
    ("left", Reach::Gone(Cause::Left)),
    ("refused", Reach::Gone(Cause::Refused)),
    ("silent", Reach::Gone(Cause::Silent)),
    ("unresponsive", Reach::Gone(Cause::Unresponsive)),
    ("unreachable", Reach::Gone(Cause::Unreachable)),
    ("expired", Reach::Gone(Cause::Expired)),
    ("not-returned", Reach::Gone(Cause::NotReturned)),
    ("forgotten", Reach::Gone(Cause::Forgotten)),
];
/// Word of a state that this version does not know, which is read as [`Reach::Held`]: its instances are the last known ones.
const OTHER: &str = "held";

pub(super) fn reach_word(reach: Reach) -> &'static str {
    REACHES.iter().find(|(_, known)| *known == reach).map_or(OTHER, |(word, _)| word)
}

pub(super) fn read_reach(word: &str) -> Reach {
    REACHES.iter().find(|(known, _)| *known == word).map_or(Reach::Held, |(_, reach)| *reach)
}

#[derive(Serialize, Deserialize)]
struct MomentText {
    unix: u64,
    uptime: u64,
}

#[derive(Serialize, Deserialize)]
struct ResultsText<'a> {
    /// As the value of a record.
    #[serde(borrow)]
    state: Cow<'a, str>,
    since: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    up: Option<u64>,
    /// Value in thousandths, time, held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    penalty: Option<(u32, u64, bool)>,
    #[serde(borrow)]
    checks: Vec<CheckText<'a>>,
}

#[derive(Serialize, Deserialize)]
struct CheckText<'a> {
    check: u64,
    #[serde(borrow, rename = "is")]
    status: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty", rename = "why")]
    reason: Cow<'a, str>,
    since: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct FileText<'a> {
    #[serde(borrow)]
    path: Cow<'a, str>,
    len: usize,
}

#[derive(Serialize, Deserialize)]
struct PeerText<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    generation: u64,
    incarnation: u64,
    address: SocketAddr,
    #[serde(borrow)]
    reach: Cow<'a, str>,
    version: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    serial: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    zone_serial: Option<u32>,
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn line(word: &str, value: &impl Serialize, out: &mut Vec<u8>) {
    out.extend_from_slice(word.as_bytes());
    out.push(b' ');
    // Serialization cannot fail: all keys are strings. An empty value would be rejected by the reader.
    let _ = serde_json::to_writer(&mut *out, value);
    out.push(b'\n');
}

fn json<'a, T: Deserialize<'a>>(text: &'a str) -> Option<T> {
    serde_json::from_str(text).ok()
}
