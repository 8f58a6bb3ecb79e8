//! Merging of gossiped and pushed changes, and the former state below one that is arriving.

use super::*;
use crate::model::{
    announcement::CheckReport,
    external_node::ExternalNode,
    health::Status,
    name::label,
    service::Instance,
    user_event::{Audience, UserEvent},
};

fn instance(id: &str) -> (String, String) {
    Record::Instance(Arc::new(Instance::new(key(id), vec!["10.0.0.1".parse().unwrap()]))).encode()
}

fn key(id: &str) -> InstanceKey {
    InstanceKey { service: label("web").into(), id: label(id) }
}

fn health(id: &str, state: InstanceState) -> (String, String) {
    Record::State(key(id), state).encode()
}

fn node() -> (String, String) {
    let (addresses, datacenter) = (vec!["10.0.0.1".parse().unwrap()], label("dc1"));
    Record::Node { addresses, datacenter, zone: None, version: "1".to_owned(), meta: BTreeMap::new(), ttl: None }
        .encode()
}

fn event(time: u64) -> (String, String) {
    let to = Audience::default();
    let event = UserEvent { id: uuid::Uuid::nil(), name: format!("at-{time}"), payload: vec![], to, time };
    Record::Event(0, Arc::new(event)).encode()
}

/// Gossips these records with ascending versions from `first`.
fn gossip(replica: &mut Replica, first: u64, whole: bool, records: &[(String, String)]) {
    let versions = first..;
    let changes = records.iter().zip(versions);
    let changes = changes.map(|((key, value), version)| Change { key, version, value: Some(value) });
    let version = first + records.len() as u64 - 1;
    replica.gossiped(version, whole, changes, &mut Default::default(), |key, error| panic!("{key}: {error}"));
}

/// Ids of the announced instances, each with the first letter of its state.
fn shown(replica: &Replica) -> String {
    let state = |announcement: &Announcement| match announcement.state {
        InstanceState::Passing => 'p',
        InstanceState::Critical(_) => 'c',
        _ => '?',
    };
    let shown = replica.announcements.iter().map(|(key, known)| format!("{}:{}", key.id, state(known)));
    shown.collect::<Vec<_>>().join(" ")
}

fn complete() -> Replica {
    let mut replica = Replica::default();
    let passing = InstanceState::Passing;
    let records = [instance("a"), health("a", passing.clone()), instance("b"), health("b", passing), node()];
    gossip(&mut replica, 1, false, &records);
    assert!(replica.is_complete());
    assert_eq!((shown(&replica).as_str(), replica.version()), ("a:p b:p", 5));
    replica
}

#[test]
fn state_of_a_former_run_stays_until_the_node_record_has_arrived() {
    let mut replica = Replica::default();
    // The first part arrived before the new run was taken.
    gossip(&mut replica, 1, false, &[instance("b")]);
    assert_eq!(shown(&replica), "b:c", "its health has not arrived");
    replica.follow(&complete());
    assert_eq!((shown(&replica).as_str(), replica.is_complete()), ("a:p b:p", false));
    assert_eq!(replica.version(), 0, "an incomplete state is not handed over as complete");
    gossip(&mut replica, 2, false, &[health("b", InstanceState::Critical("refused".into())), instance("c")]);
    assert_eq!(shown(&replica), "a:p b:c c:c");
    gossip(&mut replica, 4, false, &[health("c", InstanceState::Passing), node()]);
    assert_eq!((shown(&replica).as_str(), replica.is_complete()), ("b:c c:p", true));
    replica.follow(&complete());
    assert_eq!(shown(&replica), "b:c c:p", "a complete state has nothing below it");
}

#[test]
fn state_of_a_former_gossip_start_stays_until_the_node_record_has_arrived() {
    let mut replica = complete();
    replica.restart();
    assert_eq!((shown(&replica).as_str(), replica.is_complete()), ("a:p b:p", false));
    // Versions start at one again.
    let (key, value) = health("a", InstanceState::Critical("refused".into()));
    replica.pushed([Change { key: &key, version: 2, value: Some(&value) }], &mut Default::default(), |_, _| {});
    assert_eq!(shown(&replica), "a:c b:p");
    gossip(&mut replica, 1, false, &[instance("a"), health("a", InstanceState::Passing), node()]);
    assert_eq!(shown(&replica), "a:c", "the push is of the same version");
}

#[test]
fn whole_delivery_removes_keys_once_it_is_complete() {
    let mut replica = complete();
    gossip(&mut replica, 20, true, &[instance("a"), instance("c"), health("c", InstanceState::Passing)]);
    assert!(replica.is_arriving_again() && replica.is_complete());
    assert_eq!((shown(&replica).as_str(), replica.version()), ("a:p b:p c:p", 0));
    replica.complete();
    assert_eq!((shown(&replica).as_str(), replica.version()), ("a:p c:p", 22));
}

#[test]
fn handed_over_state_is_complete_unless_its_version_is_zero() {
    let before = complete();
    let known = |version| {
        let (facts, checks) = (before.facts.clone().unwrap(), Some(node_report("disk")));
        Replica::known(facts, before.announcements.clone(), before.external.clone(), checks, Some(7), version)
    };
    let mut replica = known(5);
    assert!(replica.is_complete());
    gossip(&mut replica, 6, false, &[health("a", InstanceState::Critical("refused".into()))]);
    assert_eq!(shown(&replica), "a:c b:p");
    assert!(replica.node_checks.is_some());
    assert_eq!(replica.zone_serial, Some(7));
    let mut replica = known(0);
    assert!(!replica.is_complete());
    gossip(&mut replica, 1, false, &[instance("a"), health("a", InstanceState::Passing), node()]);
    assert_eq!(shown(&replica), "a:p");
    assert_eq!((&replica.node_checks, replica.zone_serial), (&None, None), "not delivered again");
}

fn node_report(id: &str) -> Arc<HealthReport> {
    let (status, since) = (Status::Critical, 7);
    let check = CheckReport { id: id.into(), name: "".into(), notes: "".into(), status, output: "".into(), since };
    Arc::new(HealthReport { since, checks: vec![check] })
}

#[test]
fn checks_of_the_node_follow_its_records() {
    let record = |id: &str| Record::NodeChecks(node_report(id)).encode();
    let id = |replica: &Replica| replica.node_checks.as_ref().map(|report| report.checks[0].id.to_string());
    let mut replica = complete();
    gossip(&mut replica, 20, false, &[record("disk")]);
    assert_eq!(id(&replica).as_deref(), Some("disk"));
    // They stay while another gossip start delivers the state, and go if it lacks them.
    replica.restart();
    assert_eq!(id(&replica).as_deref(), Some("disk"));
    gossip(&mut replica, 2, false, &[record("load"), node()]);
    assert_eq!(id(&replica).as_deref(), Some("load"));
    replica.restart();
    gossip(&mut replica, 1, false, &[node()]);
    assert_eq!(id(&replica), None);
    let mut next = Replica::default();
    gossip(&mut replica, 3, false, &[record("disk")]);
    next.follow(&replica);
    assert_eq!(id(&next).as_deref(), Some("disk"));
    let (key, _) = record("disk");
    replica.pushed([Change { key: &key, version: 9, value: None }], &mut SharedLists::default(), |_, _| {});
    assert_eq!(id(&replica), None);
}

#[test]
fn events_among_the_initial_keys_are_not_delivered() {
    let fired = |replica: &mut Replica| replica.take_fired().iter().map(|event| event.time).collect::<Vec<_>>();
    let mut replica = Replica::default();
    gossip(&mut replica, 1, false, &[event(7)]);
    gossip(&mut replica, 2, false, &[event(8), node()]);
    assert!(fired(&mut replica).is_empty());
    gossip(&mut replica, 4, false, &[event(9)]);
    assert_eq!(fired(&mut replica), [9]);
    // Another gossip start delivers the last events again, and may count from a lower time.
    replica.restart();
    gossip(&mut replica, 1, false, &[event(9), node()]);
    gossip(&mut replica, 3, false, &[event(1)]);
    assert_eq!(fired(&mut replica), [1]);
}

#[test]
fn restart_is_announced_and_withdrawn() {
    let mut replica = complete();
    let (key, value) = Record::Restart.encode();
    for (version, value, expected) in [(6, Some(value.as_str()), true), (7, None, false)] {
        replica.pushed([Change { key: &key, version, value }], &mut Default::default(), |_, _| {});
        assert_eq!(replica.restarts, expected);
    }
}

#[test]
fn equal_state_that_arrives_again_takes_no_memory() {
    let mut replica = complete();
    let before = replica.announcements.clone();
    let passing = InstanceState::Passing;
    let records = [instance("a"), health("a", passing.clone()), instance("b"), health("b", passing), node()];
    gossip(&mut replica, 6, true, &records);
    replica.complete();
    assert!(replica.announcements.ptr_eq(&before), "the view would keep two copies");
}

#[test]
fn a_peer_announces_a_hundred_thousand_instances_and_no_more() {
    let mut replica = Replica::default();
    let records: Vec<_> = (0..=MAX_INSTANCES).map(|at| instance(&format!("w{at}"))).collect();
    let mut skipped = Vec::new();
    let changes = records.iter().zip(1..);
    let changes = changes.map(|((key, value), version)| Change { key, version, value: Some(value) });
    replica.gossiped(MAX_INSTANCES as u64 + 1, false, changes, &mut Default::default(), |_, error| skipped.push(error));
    assert_eq!((replica.announcements.len(), skipped), (100_000, vec![SkipError::TooMany]));
}

fn external(name: &str, address: &str) -> (String, String) {
    let name = crate::model::registered_name::name(name);
    Record::External(Arc::new(ExternalNode::new(name, vec![address.parse().unwrap()]))).encode()
}

#[test]
fn external_nodes_are_merged_like_instances() {
    let shown = |replica: &Replica| {
        let nodes = replica.external.values().map(|node| format!("{}={}", node.name, node.addresses[0]));
        nodes.collect::<Vec<_>>().join(" ")
    };
    let mut replica = Replica::default();
    gossip(&mut replica, 1, false, &[external("db1", "10.9.0.1"), external("db2", "10.9.0.2"), node()]);
    assert_eq!(shown(&replica), "db1=10.9.0.1 db2=10.9.0.2");
    let (key, value) = external("db1", "10.9.0.3");
    replica.pushed([Change { key: &key, version: 4, value: Some(&value) }], &mut Default::default(), |_, _| {});
    assert_eq!(shown(&replica), "db1=10.9.0.3 db2=10.9.0.2");
    let deleted = Change { key: "x/db2", version: 5, value: None };
    replica.gossiped(5, false, [deleted], &mut Default::default(), |_, error| panic!("{error}"));
    assert_eq!(shown(&replica), "db1=10.9.0.3");
    // The next run keeps them until its own state is complete.
    let mut next = Replica::default();
    next.follow(&replica);
    gossip(&mut next, 1, false, &[external("db3", "10.9.0.4")]);
    assert_eq!(shown(&next), "db1=10.9.0.3 db3=10.9.0.4");
    gossip(&mut next, 2, false, &[node()]);
    assert_eq!(shown(&next), "db3=10.9.0.4");
    // A whole delivery removes the others.
    gossip(&mut next, 20, true, &[external("db4", "10.9.0.5")]);
    next.complete();
    assert_eq!(shown(&next), "db4=10.9.0.5");
}

#[test]
fn excess_external_nodes_are_skipped() {
    let mut replica = complete();
    let records: Vec<_> = (0..=MAX_EXTERNAL_NODES).map(|at| external(&format!("n{at:04}"), "10.9.0.1")).collect();
    let changes = records.iter().map(|(key, value)| Change { key, version: 9, value: Some(value) });
    let mut skipped = Vec::new();
    replica.gossiped(9, false, changes, &mut Default::default(), |key, error| skipped.push((key.to_owned(), error)));
    assert_eq!(replica.external.len(), MAX_EXTERNAL_NODES);
    assert_eq!(skipped, [("x/n1000".to_owned(), SkipError::TooManyNodes)]);
}
