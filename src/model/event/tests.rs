//! Events between pairs of states.

use std::time::Duration;

use super::*;
use crate::model::{
    announcement::{HoldReason, Node},
    catalog::View,
    member::PeerId,
    name::label,
    service::Instance,
};

/// Parses `passing`, `critical refused`, `draining reason` and so on; a number after `passing` is the port.
fn state(text: &str) -> (InstanceState, u16) {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    let state = match word {
        "passing" => InstanceState::Passing,
        "warming" => InstanceState::Warming(1),
        "warning" => InstanceState::Warning(rest.into()),
        "critical" => InstanceState::Critical(rest.into()),
        "disabled" => InstanceState::Disabled,
        hold => {
            InstanceState::withheld(HoldReason::ALL.into_iter().find(|known| known.as_str() == hold).unwrap(), rest)
        }
    };
    (state, rest.parse().unwrap_or(80))
}

/// Builds a catalog of nodes with their instances, `SERVICE/ID STATE`. `~` before the name of a node: last known; `!`:
/// gone.
fn catalog(nodes: &[(&str, &[&str])]) -> Catalog {
    let mut view = View::new();
    for (node, instances) in nodes {
        let name = label(node.trim_start_matches(['~', '!']));
        let freshness = match node.chars().next() {
            Some('~') => Freshness::LastKnown,
            Some('!') => Freshness::Gone,
            _ => Freshness::Live,
        };
        let mut announcements = Announcements::new();
        for text in *instances {
            let (key, rest) = text.split_once(' ').unwrap();
            let (service, id) = key.split_once('/').unwrap();
            let key = InstanceKey { service: label(service).into(), id: label(id) };
            let (state, port) = state(rest);
            let instance = Instance { port: Some(port), ..Instance::new(key, vec!["10.0.0.1".parse().unwrap()]) };
            announcements.extend([Announcement::new(Arc::new(instance), state).into_entry()]);
        }
        let node = Node {
            name: name.clone(),
            addresses: vec![],
            datacenter: label("dc1"),
            zone: None,
            meta: Default::default(),
        };
        view.insert(name, Arc::new(NodeView { node: Arc::new(node), announcements, freshness }));
    }
    let mut catalog = Catalog::default();
    catalog.update(view);
    catalog
}

/// Collects events as `KIND: TEXT`.
fn texts(emit: impl FnOnce(&mut dyn FnMut(Event))) -> Vec<String> {
    let mut texts = Vec::new();
    emit(&mut |event: Event| texts.push(format!("{}: {}", event.kind.as_str(), event.text)));
    texts
}

type Nodes = &'static [(&'static str, &'static [&'static str])];

#[test]
fn instances_and_services_are_added_removed_and_flip() {
    let cases: &[(Nodes, Nodes, &[&str])] = &[
        (&[], &[], &[]),
        (&[("a", &["web/w1 passing"])], &[("a", &["web/w1 passing"])], &[]),
        (
            &[("a", &[])],
            &[("a", &["web/w1 passing", "web/w2 critical refused"])],
            &[
                "service-added: web has its first instance",
                "instance-added: web/w1 on a added, answered: passing",
                "instance-added: web/w2 on a added, not answered: critical: refused",
            ],
        ),
        (
            &[("a", &["web/w1 passing"])],
            &[("a", &["web/w1 passing"]), ("b", &["web/w2 passing"])],
            &["instance-added: web/w2 on b added, answered: passing"],
        ),
        (
            &[("a", &["web/w1 passing", "db/d1 passing"])],
            &[("a", &["web/w1 passing"])],
            &["instance-removed: db/d1 on a removed, was passing", "service-removed: db has no instances: NXDOMAIN"],
        ),
        (
            &[("a", &["web/w1 passing"])],
            &[("a", &["web/w1 critical refused"])],
            &["instance-down: web/w1 on a is no longer answered: critical: refused"],
        ),
        (
            &[("a", &["web/w1 critical refused"])],
            &[("a", &["web/w1 warming"])],
            &["instance-up: web/w1 on a is answered: warming"],
        ),
        (
            &[("a", &["web/w1 passing"])],
            &[("a", &["web/w1 warning slow"])],
            &["instance-state: web/w1 on a is still answered: warning: slow"],
        ),
        // A new reason alone is no event; `explain` shows the latest.
        (&[("a", &["web/w1 critical refused"])], &[("a", &["web/w1 critical no answer"])], &[]),
        (
            &[("a", &["web/w1 passing 80"])],
            &[("a", &["web/w1 passing 81"])],
            &["instance-changed: web/w1 on a definition changed, still answered"],
        ),
        (
            &[("a", &["web/w1 passing"])],
            &[("a", &["web/w1 draining new disk"])],
            &["instance-held: web/w1 on a is withheld: draining: new disk"],
        ),
        (
            &[("a", &["web/w1 flapping"])],
            &[("a", &["web/w1 node-maintenance"])],
            &["instance-held: web/w1 on a is withheld: node-maintenance"],
        ),
        (
            &[("a", &["web/w1 maintenance x", "web/w2 flapping"])],
            &[("a", &["web/w1 passing", "web/w2 critical refused"])],
            &[
                "instance-released: web/w1 on a is no longer withheld, answered: passing",
                "instance-released: web/w2 on a is no longer withheld, not answered: critical: refused",
            ],
        ),
        (
            &[("a", &["web/w1 passing", "web/w2 critical refused"])],
            &[("~a", &["web/w1 passing", "web/w2 critical refused"])],
            &["instance-state: web/w1 on a is still answered: stale"],
        ),
        (
            &[("~a", &["web/w1 passing"])],
            &[("!a", &["web/w1 passing"])],
            &["instance-down: web/w1 on a is no longer answered: gone"],
        ),
        (
            &[("!a", &["web/w1 passing", "web/w2 passing"])],
            &[("a", &["web/w1 passing"])],
            &["instance-up: web/w1 on a is answered: passing", "instance-removed: web/w2 on a removed, was gone"],
        ),
    ];
    let (members, files) = (Membership::default(), Reports::new());
    for (before, after, expected) in cases {
        let (was, is) = (catalog(before), catalog(after));
        let seen = |catalog| Observed { catalog, members: &members, files: &files, keys: &[] };
        assert_eq!(texts(|emit| between(seen(&was), seen(&is), emit)), *expected, "{before:?} {after:?}");
    }
}

#[test]
fn an_event_names_service_instance_node_and_states() {
    let (was, is) = (catalog(&[("a", &["web/w1 passing"])]), catalog(&[("a", &["web/w1 critical refused"])]));
    let (members, files) = (Membership::default(), Reports::new());
    let seen = |catalog| Observed { catalog, members: &members, files: &files, keys: &[] };
    let mut all = Vec::new();
    between(seen(&was), seen(&is), &mut |event| all.push(event));
    let expected = Event {
        node: Some(label("a")),
        service: Some(label("web").into()),
        instance: Some(label("w1")),
        was: Some("passing"),
        state: Some("critical"),
        ..Event::new(Kind::InstanceDown, "web/w1 on a is no longer answered: critical: refused")
    };
    assert_eq!(all, [expected]);
}

/// Parses members, `NAME.GENERATION REACH`; a leading `|` means that this node is isolated.
fn membership(text: &str) -> Membership {
    let reaches = [
        ("alive", Reach::Alive),
        ("suspect", Reach::Suspect),
        ("held", Reach::Held),
        ("restarting", Reach::Restarting),
        ("left", Reach::Gone(Cause::Left)),
        ("ended", Reach::Gone(Cause::Refused)),
        ("removed", Reach::Gone(Cause::Forgotten)),
        ("late", Reach::Gone(Cause::NotReturned)),
    ];
    let members = text.trim_start_matches('|').split(", ").filter(|text| !text.is_empty()).map(|text| {
        let (id, reach) = text.split_once(' ').unwrap();
        let (name, generation) = id.split_once('.').unwrap();
        Member {
            id: PeerId { name: label(name), generation: generation.parse().unwrap() },
            address: "10.0.0.7:7946".parse().unwrap(),
            datacenter: None,
            zone: None,
            version: None,
            reach: reaches.iter().find(|(word, _)| *word == reach).unwrap().1,
            since: Duration::ZERO,
            instances: 0,
            ttl: None,
            view: None,
            differs: None,
        }
    });
    let partitioned = text.starts_with('|').then_some(Duration::ZERO);
    Membership { members: members.collect(), partitioned, ..Membership::default() }
}

#[test]
fn nodes_join_leave_fail_and_rejoin() {
    let cases = [
        ("a.1 alive", "a.1 alive", ""),
        ("", "a.1 alive", "node-joined: a at 10.0.0.7:7946 joined the cluster"),
        ("", "a.1 ended", ""),
        ("a.1 alive", "a.1 suspect", "node-suspect: a is suspect: it does not respond"),
        ("a.1 suspect", "a.1 alive", "node-alive: a responds again"),
        ("a.1 suspect", "a.1 ended", "node-gone: a is gone: agent stopped"),
        ("a.1 alive", "a.1 left", "node-left: a left the cluster"),
        ("a.1 ended", "a.2 alive", "node-alive: a at 10.0.0.7:7946 rejoined the cluster"),
        ("a.1 alive", "a.2 alive", "node-restarted: a at 10.0.0.7:7946 restarted"),
        ("a.1 alive", "a.1 ended, a.2 alive", "node-restarted: a at 10.0.0.7:7946 restarted"),
        ("a.1 alive", "a.1 restarting", "node-restarting: a is restarting: its instances are answered as last known"),
        ("a.1 restarting", "a.2 alive", "node-restarted: a at 10.0.0.7:7946 restarted"),
        ("a.1 restarting", "a.1 alive", "node-alive: a responds again"),
        ("a.1 restarting", "a.1 late", "node-gone: a is gone: did not return from a restart"),
        ("a.1 ended", "a.1 removed", "node-gone: a was removed by an operator (force-leave)"),
        ("a.1 ended", "", "node-forgotten: a is no longer listed"),
        (
            "a.1 alive",
            "|a.1 held",
            "partition-began: more than half of the other nodes are unreachable: their instances are answered as last known\n\
             node-held: a is unreachable: its instances are answered as last known",
        ),
        (
            "|a.1 held",
            "a.1 alive",
            "partition-ended: at least half of the other nodes are reachable again\nnode-alive: a responds again",
        ),
    ];
    let (catalog, files) = (Catalog::default(), Reports::new());
    for (before, after, expected) in cases {
        let (was, is) = (membership(before), membership(after));
        let seen = |members| Observed { catalog: &catalog, members, files: &files, keys: &[] };
        let texts = texts(|emit| between(seen(&was), seen(&is), emit));
        assert_eq!(texts.join("\n"), expected, "{before:?} {after:?}");
    }
}

#[test]
fn reloads_key_changes_and_rejected_messages_are_events() {
    let report = |reads, problems: &[&str]| {
        let problems = problems.iter().map(|message| Diagnostic::at(Path::new("d/web.yaml"), 3, 5, *message)).collect();
        Reports::from([(
            PathBuf::from("d"),
            FolderReport { in_service: format!("{reads} instances"), problems, reads },
        )])
    };
    let cases = [
        (report(1, &[]), report(1, &[]), &[][..]),
        (report(1, &[]), report(2, &[]), &["file-reload: d: reloaded, 2 instances"][..]),
        (
            report(1, &["bad"]),
            report(2, &["bad", "worse"]),
            &["file-problem: d/web.yaml:3:5: worse", "file-reload: d: reloaded, 2 instances"],
        ),
        (
            report(2, &["bad"]),
            report(3, &[]),
            &["file-mended: d/web.yaml: all problems fixed", "file-reload: d: reloaded, 3 instances"],
        ),
        (
            Reports::new(),
            report(1, &["bad"]),
            &["file-problem: d/web.yaml:3:5: bad", "file-reload: d: reloaded, 1 instances"],
        ),
    ];
    let (catalog, members) = (Catalog::default(), Membership::default());
    for (was, is, expected) in cases {
        let seen = |files| Observed { catalog: &catalog, members: &members, files, keys: &[] };
        assert_eq!(texts(|emit| between(seen(&was), seen(&is), emit)), expected, "{was:?} {is:?}");
    }
    let keys = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    let (none, one, two) = (keys(&[]), keys(&["0a"]), keys(&["0a", "0b"]));
    let files = Reports::new();
    let cases = [
        (&one, &one, ""),
        (&one, &two, "gossip-keys: gossip is encrypted with key 0a; also accepted: 0b"),
        (&two, &one, "gossip-keys: gossip is encrypted with key 0a, the only key"),
        (&one, &none, "gossip-keys: gossip is no longer encrypted"),
    ];
    for (was, is, expected) in cases {
        let seen = |keys| Observed { catalog: &catalog, members: &members, files: &files, keys };
        assert_eq!(texts(|emit| between(seen(was), seen(is), emit)).join("\n"), expected);
    }
    let after = [("forged", 5), ("own", 2), ("for another run", 9), ("sealed", 1)];
    let texts = texts(|emit| rejected(&[("forged", 3), ("own", 1)], &after, emit));
    let expected = ["gossip-rejected: messages rejected: 2 (forged)", "gossip-rejected: messages rejected: 1 (sealed)"];
    assert_eq!(texts, expected);
}

#[test]
fn every_kind_has_a_unique_word_and_a_group() {
    let words: BTreeSet<&str> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
    assert_eq!(words.len(), Kind::ALL.len());
    assert!(Kind::InstanceUp.is("instance") && Kind::InstanceUp.is("instance-up") && !Kind::InstanceUp.is("instance-"));
    assert!(!Kind::InstanceUp.is("") && !Kind::NodeGone.is("instance"));
}
