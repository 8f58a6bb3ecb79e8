//! Encoding of states, and refusal of damaged ones.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    time::Duration,
};

use proptest::{collection, option, prelude::*, sample};

use super::*;
use crate::{
    gossip::peer_replica::Facts,
    model::{
        announcement::{Announcement, Announcements, CheckReport, HealthReport, HoldReason, InstanceState},
        check_results::{CheckResult, Fingerprint, InstanceResults},
        external_node::{ExternalNode, ExternalNodes},
        flap_damping::Penalty,
        followed_host::HostName,
        health::Status,
        maintenance::Scope,
        member::{Cause, PeerId, Reach},
        name::label,
        registered_name::{RegisteredName, name},
        service::{Instance, InstanceKey, instance_ref::InstanceRef},
    },
};

fn status() -> impl Strategy<Value = Status> {
    sample::select(vec![Status::Passing, Status::Warning, Status::Critical])
}

/// Any text as a peer or a check may have it: bounded, without control characters.
fn text() -> impl Strategy<Value = String> {
    ".{0,40}".prop_map(|text| bounded(&text))
}

fn key() -> impl Strategy<Value = InstanceKey> {
    ("[a-z%/ ]{1,3}", "[a-z0-9]{1,3}").prop_map(|(service, id)| InstanceKey { service: name(&service), id: label(&id) })
}

fn instance_state() -> impl Strategy<Value = InstanceState> {
    let holds = sample::select(HoldReason::ALL.to_vec());
    prop_oneof![
        (status(), text()).prop_map(|(status, reason)| InstanceState::new(status, &reason)),
        any::<u16>().prop_map(InstanceState::Warming),
        Just(InstanceState::Disabled),
        (holds, text()).prop_map(|(hold, reason)| InstanceState::withheld(hold, &reason)),
    ]
}

fn nanos() -> impl Strategy<Value = Duration> {
    any::<u64>().prop_map(Duration::from_nanos)
}

fn check_result() -> impl Strategy<Value = CheckResult> {
    let fields = (any::<u64>(), status(), text(), any::<u64>(), option::of(nanos()));
    fields.prop_map(|(check, status, reason, since, expires)| CheckResult {
        check: Fingerprint(check),
        status,
        reason: reason.into(),
        since,
        expires,
        progress: None,
    })
}

fn results() -> impl Strategy<Value = InstanceResults> {
    let penalty = (0_u8..9, nanos(), any::<bool>());
    let fields = (instance_state(), any::<u64>(), option::of(nanos()), penalty, collection::vec(check_result(), 0..3));
    fields.prop_map(|(state, since, up, (eighths, at, held), checks)| {
        let penalty = Penalty { value: f64::from(eighths) / 8.0, at, held };
        InstanceResults { state, since, up, penalty, checks }
    })
}

fn health_report() -> impl Strategy<Value = Arc<HealthReport>> {
    let check = ("[a-z]{1,5}", text(), text(), status(), text(), any::<u64>());
    let check = check.prop_map(|(id, name, notes, status, output, since)| CheckReport {
        id: id.into(),
        name: name.into(),
        notes: notes.into(),
        status,
        output: output.into(),
        since,
    });
    let report = (any::<u64>(), collection::vec(check, 0..3));
    report.prop_map(|(since, checks)| Arc::new(HealthReport { since, checks }))
}

fn announcement(key: InstanceKey) -> impl Strategy<Value = Announcement> {
    let tags = collection::vec("\\PC{1,9}", 0..2);
    let fields = (option::of(1_u16..), tags, instance_state(), option::of(health_report()));
    fields.prop_map(move |(port, mut tags, state, report)| {
        tags.dedup();
        let instance =
            Instance { port, tags: tags.into(), ..Instance::new(key.clone(), vec!["10.0.0.7".parse().unwrap()]) };
        Announcement { report, ..Announcement::new(Arc::new(instance), state) }
    })
}

fn external(names: &[&str]) -> ExternalNodes {
    let node = |text: &&str| {
        let name = RegisteredName::parse(text).unwrap();
        (name.clone(), Arc::new(ExternalNode::new(name, vec!["10.9.0.1".parse().unwrap()])))
    };
    names.iter().map(node).collect()
}

fn peer() -> impl Strategy<Value = KnownPeer> {
    let all = collection::vec(key().prop_flat_map(announcement), 0..4);
    let all = all.prop_map(|all| all.into_iter().map(Announcement::into_entry).collect::<Announcements>());
    let reach = sample::select(vec![Reach::Alive, Reach::Suspect, Reach::Held, Reach::Gone(Cause::Silent)]);
    let rest = (option::of(0_u32..9), all, option::of(health_report()));
    let fields = ("[a-z]{1,9}", any::<[u64; 3]>(), any::<std::net::SocketAddr>(), reach, rest);
    fields.prop_map(|(name, [generation, incarnation, version], address, reach, (ttl, announcements, checks))| {
        KnownPeer {
            id: PeerId { name: label(&name), generation },
            incarnation,
            address: std::net::SocketAddr::new(address.ip(), address.port()),
            reach,
            version,
            facts: Facts {
                addresses: vec!["10.0.0.8".parse().unwrap()],
                datacenter: label("dc1"),
                zone: None,
                version: "0.1.0".to_owned(),
                meta: BTreeMap::from([("rack".to_owned(), "r\n1".to_owned())]),
                ttl,
            },
            announcements,
            external: external(&["db1", "a b/c%"][..(ttl.unwrap_or(0) % 3) as usize]),
            node_checks: checks,
            serial: ttl,
            zone_serial: ttl,
        }
    })
}

fn file() -> impl Strategy<Value = LastValidFile> {
    let text = prop_oneof![collection::vec(any::<u8>(), 0..40), Just(b"at {}\npeer {}\n".to_vec())];
    (".{1,9}", text).prop_map(|(path, text)| LastValidFile { path: path.into(), text: text.into() })
}

fn state() -> impl Strategy<Value = SavedState> {
    let scope = prop_oneof![Just(Scope::Node), key().prop_map(Scope::Instance)];
    let fields = (
        nanos(),
        nanos(),
        collection::vec(peer(), 0..3),
        collection::vec((scope, results().prop_map(Arc::new)), 0..3),
        collection::vec(file(), 0..3),
        collection::btree_map("[a-z]{1,9}\\.example", collection::hash_set(1_u8.., 1..3), 0..3),
    );
    let host = |(name, last): (String, HashSet<u8>)| {
        (HostName::parse(&name).unwrap(), last.into_iter().map(|last| IpAddr::from([10, 0, 0, last])).collect())
    };
    fields.prop_map(move |(unix, uptime, peers, checks, files, hosts)| SavedState {
        saved_at: Moment { unix, uptime },
        peers,
        checks: checks.into_iter().collect(),
        hosts: hosts.into_iter().map(host).collect(),
        files,
        valid_files: Vec::new(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decoded_state_equals_the_encoded_one(state in state()) {
        prop_assert_eq!(SavedState::decode(&state.encode()), Ok(state));
    }

    #[test]
    fn truncated_or_changed_state_is_refused(state in state(), at in any::<sample::Index>(), bit in 0_u8..8) {
        let octets = state.encode();
        let at = at.index(octets.len());
        prop_assert!(SavedState::decode(&octets[..at]).is_err(), "cut at {}", at);
        let mut changed = octets;
        changed[at] ^= 1 << bit;
        prop_assert!(SavedState::decode(&changed).is_err(), "bit {} of octet {}", bit, at);
    }

    #[test]
    fn any_lines_with_a_valid_checksum_do_not_panic(lines in "((at|own|host a|file|peer|i/a/b|h/a/b|x) ?[ -~]{0,30}\n?){0,5}") {
        let _ = SavedState::decode(&with_checksum(&lines));
    }
}

fn with_checksum(body: &str) -> Vec<u8> {
    format!("{MAGIC} {VERSION} {}\n{body}", checksum(body.as_bytes())).into_bytes()
}

/// The format that other versions read: a changed line breaks compatibility.
#[test]
fn format_is_stable() {
    let key = InstanceKey { service: label("web").into(), id: label("web-1") };
    let result = CheckResult {
        check: Fingerprint(7),
        status: Status::Critical,
        reason: "refused".into(),
        since: 9,
        expires: Some(Duration::from_nanos(11)),
        progress: None,
    };
    let passing = CheckResult { status: Status::Passing, reason: "".into(), expires: None, ..result.clone() };
    let own = InstanceResults {
        state: InstanceState::new(Status::Critical, "refused"),
        since: 8,
        up: Some(Duration::from_nanos(5)),
        penalty: Penalty { value: 1.5, at: Duration::from_nanos(6), held: true },
        checks: vec![result, passing],
    };
    let instance = Arc::new(Instance::new(key.clone(), vec!["10.0.0.7".parse().unwrap()]));
    let announcement = Arc::new(Announcement::new(instance, InstanceState::Passing));
    let facts = Facts {
        addresses: vec!["10.0.0.8".parse().unwrap()],
        datacenter: label("dc1"),
        zone: None,
        version: "0.1.0".to_owned(),
        meta: BTreeMap::new(),
        ttl: Some(5),
    };
    let peer = KnownPeer {
        id: PeerId { name: label("host-b"), generation: 1024 },
        incarnation: 1,
        address: "10.0.0.8:7946".parse().unwrap(),
        reach: Reach::Gone(Cause::Refused),
        version: 12,
        facts,
        announcements: Announcements::from_iter([(InstanceRef::from(&announcement.instance), announcement)]),
        external: external(&["db1"]),
        node_checks: None,
        serial: Some(70_000),
        zone_serial: Some(69_000),
    };
    let state = SavedState {
        saved_at: Moment { unix: Duration::from_nanos(1), uptime: Duration::from_nanos(2) },
        peers: vec![peer],
        checks: [(Scope::Instance(key), Arc::new(own))].into_iter().collect(),
        hosts: KnownHosts::from([(
            HostName::parse("Db.example.org").unwrap(),
            vec![[10, 0, 0, 9].into(), "fd00::9".parse().unwrap()].into(),
        )]),
        files: vec![LastValidFile { path: "services.d/a.yaml".into(), text: b"a\nb"[..].into() }],
        valid_files: Vec::new(),
    };
    let expected = concat!(
        "at {\"unix\":1,\"uptime\":2}\n",
        "own web/web-1 {\"state\":\"c refused\",\"since\":8,\"up\":5,\"penalty\":[1500,6,true],\"checks\":[",
        "{\"check\":7,\"is\":\"critical\",\"why\":\"refused\",\"since\":9,\"expires\":11},",
        "{\"check\":7,\"is\":\"passing\",\"since\":9}]}\n",
        "host Db.example.org [\"10.0.0.9\",\"fd00::9\"]\n",
        "file {\"path\":\"services.d/a.yaml\",\"len\":3}\na\nb\n",
        "peer {\"name\":\"host-b\",\"generation\":1024,\"incarnation\":1,\"address\":\"10.0.0.8:7946\",",
        "\"reach\":\"refused\",\"version\":12,\"serial\":70000,\"zone_serial\":69000}\n",
        "n/node {\"addr\":[\"10.0.0.8\"],\"dc\":\"dc1\",\"version\":\"0.1.0\",\"ttl\":5}\n",
        "x/db1 {\"addr\":[\"10.9.0.1\"]}\n",
        "i/web/web-1 {\"addr\":[\"10.0.0.7\"]}\n",
        "h/web/web-1 p\n",
    );
    assert_eq!(String::from_utf8(state.encode()).unwrap(), String::from_utf8(with_checksum(expected)).unwrap());
    assert_eq!(SavedState::decode(&with_checksum(expected)), Ok(state));
}

#[test]
fn errors_name_the_reason() {
    let newer = format!("{MAGIC} 2 0\n");
    let unknown = with_checksum("at {\"unix\":1,\"uptime\":2,\"more\":3}\nlater {\"x\": 1}\n");
    let cases: [(&[u8], &str); 8] = [
        (b"", "not a saved state"),
        (b"\n", "not a saved state"),
        (b"\xff\n", "not a saved state"),
        (b"muster-state", "not a saved state"),
        (newer.as_bytes(), "saved state of format 2; this version reads format 1"),
        (b"muster-state 1 0\n", "the checksum does not match the content"),
        (&with_checksum("at 7\n"), "invalid line: at 7"),
        (&with_checksum("peer {\"name\":\"a\"}\n"), "invalid line: peer {\"name\":\"a\"}"),
    ];
    for (octets, expected) in cases {
        assert_eq!(SavedState::decode(octets).unwrap_err().to_string(), expected);
    }
    let state = SavedState::decode(&unknown).unwrap();
    assert_eq!(state.saved_at.uptime, Duration::from_nanos(2), "lines and fields of newer versions are ignored");
}

#[test]
fn files_and_peers_beyond_the_bound_are_left_out() {
    let file = |name: &str, len| LastValidFile { path: name.into(), text: vec![b'x'; len].into() };
    let key = InstanceKey { service: label("web").into(), id: label("web-1") };
    let own = InstanceResults {
        state: InstanceState::Passing,
        since: 8,
        up: None,
        penalty: Penalty::default(),
        checks: Vec::new(),
    };
    let state = SavedState {
        checks: [(Scope::Instance(key), Arc::new(own))].into_iter().collect(),
        files: vec![file("a", MAX_LEN / 2), file("b", MAX_LEN / 2), file("c", 10)],
        ..SavedState::default()
    };
    let octets = state.encode();
    assert!(octets.len() < MAX_LEN);
    let read = SavedState::decode(&octets).unwrap();
    let names: Vec<_> = read.files.iter().map(|file| file.path.display().to_string()).collect();
    assert_eq!((names, read.checks.len()), (vec!["a".to_owned(), "c".to_owned()], 1));
}

#[test]
fn texts_of_valid_files_are_handed_over_and_not_stored() {
    let file = |name: &str| LastValidFile { path: name.into(), text: b"x"[..].into() };
    let state = SavedState { files: vec![file("a")], valid_files: vec![file("b")], ..SavedState::default() };
    let read = SavedState::decode(&state.encode()).unwrap();
    assert_eq!((read.files, read.valid_files), (vec![file("a"), file("b")], Vec::new()));
    assert_eq!(SavedState::decode(&state.without_valid_files().encode()).unwrap().files, [file("a")]);
}

#[test]
fn every_reachability_has_a_word() {
    let causes = [
        Cause::Left,
        Cause::Refused,
        Cause::Silent,
        Cause::Unresponsive,
        Cause::Unreachable,
        Cause::Expired,
        Cause::NotReturned,
        Cause::Forgotten,
    ];
    for reach in
        [Reach::Alive, Reach::Suspect, Reach::Held, Reach::Restarting].into_iter().chain(causes.map(Reach::Gone))
    {
        assert_eq!(text::read_reach(text::reach_word(reach)), reach);
    }
}
