//! Encoding and decoding of the state for the next start, with 100,000 instances: `cargo bench --bench state`.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot continue ends")]

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use muster::{
    gossip::{known_peer::KnownPeer, peer_replica::Facts},
    model::{
        announcement::{Announcement, Announcements, CheckReport, HealthReport, InstanceState},
        check_results::{CheckResult, Fingerprint, InstanceResults},
        flap_damping::Penalty,
        health::Status,
        maintenance::Scope,
        member::{PeerId, Reach},
        name::Label,
        service::{Instance, InstanceKey, instance_ref::InstanceRef},
    },
    saved_state::SavedState,
};

/// Peers, and instances of each.
const PEERS: usize = 200;
const INSTANCES: usize = 500;
const ROUNDS: usize = 5;

fn main() {
    let state = SavedState { peers: (0..PEERS).map(peer).collect(), checks: own(), ..SavedState::default() };
    let (mut encode, mut decode) = (Duration::MAX, Duration::MAX);
    let mut octets = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        octets = state.encode();
        encode = encode.min(start.elapsed());
        let start = Instant::now();
        let read = SavedState::decode(&octets).unwrap();
        decode = decode.min(start.elapsed());
        assert_eq!(read, state);
    }
    let megabytes = octets.len() as f64 / 1e6;
    println!(
        "{PEERS} peers with {INSTANCES} instances each: {megabytes:.1} MB, encoded in {encode:.0?}, decoded in {decode:.0?}"
    );
}

fn label(text: &str) -> Label {
    Label::parse(text).unwrap()
}

fn key(node: usize, at: usize) -> InstanceKey {
    InstanceKey { service: label(&format!("service-{at}")).into(), id: label(&format!("service-{at}-host-{node}")) }
}

fn peer(node: usize) -> KnownPeer {
    KnownPeer {
        id: PeerId { name: label(&format!("host-{node}")), generation: 1_795_474_285_827_805_184 },
        incarnation: 0,
        address: ([10, 0, 0, 7], 7946).into(),
        reach: Reach::Alive,
        version: 3000,
        facts: Facts {
            addresses: vec![[10, 0, 0, 7].into()],
            datacenter: label("dc1"),
            zone: None,
            version: "0.1.0".to_owned(),
            meta: BTreeMap::new(),
            ttl: Some(5),
        },
        external: Default::default(),
        node_checks: None,
        announcements: (0..INSTANCES).map(|at| announcement(&key(node, at))).collect::<Announcements>(),
        serial: None,
        zone_serial: None,
    }
}

fn announcement(key: &InstanceKey) -> (InstanceRef, Arc<Announcement>) {
    let instance = Instance {
        port: Some(8080),
        tags: vec!["v2".to_owned(), "primary".to_owned()].into(),
        meta: [("version", "2.3.1")].into(),
        ..Instance::new(key.clone(), vec![[10, 0, 0, 7].into()])
    };
    let check = CheckReport {
        id: format!("service:{}", key.id).into(),
        name: "http://10.0.0.7:8080/healthz".into(),
        notes: "".into(),
        status: Status::Passing,
        output: "".into(),
        since: 1_795_535_600,
    };
    let report = HealthReport { since: 1_795_535_600, checks: vec![check] };
    let known = Announcement::new(Arc::new(instance), InstanceState::Passing);
    Announcement { report: Some(Arc::new(report)), ..known }.into_entry()
}

/// Results of the node's own checks.
fn own() -> muster::model::check_results::CheckResults {
    let result = |at: usize| CheckResult {
        check: Fingerprint(at as u64),
        status: Status::Passing,
        reason: "".into(),
        since: 1_795_535_600,
        expires: None,
        progress: None,
    };
    let results = |at: usize| InstanceResults {
        state: InstanceState::Passing,
        since: 1_795_535_600,
        up: Some(Duration::from_secs(1)),
        penalty: Penalty::default(),
        checks: vec![result(at)],
    };
    (0..INSTANCES).map(|at| (Scope::Instance(key(PEERS, at)), Arc::new(results(at)))).collect()
}
