//! States and what happened between them.

use std::time::Duration;

use super::*;
use crate::model::{
    announcement::{HoldReason, Node},
    catalog::View,
    member::PeerId,
    name::label,
    service::Instance,
};

/// `passing`, `critical refused`, `draining reason` and so on; a number behind `passing` is its port.
fn standing(text: &str) -> (InstanceState, u16) {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    let standing = match word {
        "passing" => InstanceState::Passing,
        "warming" => InstanceState::Warming(1),
        "warning" => InstanceState::Warning(rest.into()),
        "critical" => InstanceState::Critical(rest.into()),
        "disabled" => InstanceState::Disabled,
        gate => {
            InstanceState::withheld(HoldReason::ALL.into_iter().find(|known| known.as_str() == gate).unwrap(), rest)
        }
    };
    (standing, rest.parse().unwrap_or(80))
}

/// Nodes with a sign before their name for how current they are (`~` last known, `!` gone), each with its instances:
/// `SERVICE/ID STANDING`.
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
            let (key, stands) = text.split_once(' ').unwrap();
            let (service, id) = key.split_once('/').unwrap();
            let key = InstanceKey { service: label(service), id: label(id) };
            let (standing, port) = standing(stands);
            let instance =
                Instance { port: Some(port), ..Instance::new(key.clone(), vec!["10.0.0.1".parse().unwrap()]) };
            announcements.insert(key, Arc::new(Announcement::new(Arc::new(instance), standing)));
        }
        let node = Node { name: name.clone(), addresses: vec![], datacenter: label("dc1"), meta: Default::default() };
        view.insert(name, Arc::new(NodeView { node: Arc::new(node), announcements, freshness }));
    }
    let mut catalog = Catalog::default();
    catalog.update(view);
    catalog
}

/// What happened, as `KIND: TEXT`.
fn told(tell: impl FnOnce(&mut dyn FnMut(Event))) -> Vec<String> {
    let mut told = Vec::new();
    tell(&mut |event: Event| told.push(format!("{}: {}", event.kind.as_str(), event.text)));
    told
}

type Nodes = &'static [(&'static str, &'static [&'static str])];

#[test]
fn instances_and_services_come_go_and_flip() {
    let cases: &[(Nodes, Nodes, &[&str])] = &[
        (&[], &[], &[]),
        (&[("a", &["web/w1 passing"])], &[("a", &["web/w1 passing"])], &[]),
        (
            &[("a", &[])],
            &[("a", &["web/w1 passing", "web/w2 critical refused"])],
            &[
                "service-added: web has its first instance",
                "instance-added: web/w1 on a is there, answered: passing",
                "instance-added: web/w2 on a is there, not answered: critical: refused",
            ],
        ),
        (
            &[("a", &["web/w1 passing"])],
            &[("a", &["web/w1 passing"]), ("b", &["web/w2 passing"])],
            &["instance-added: web/w2 on b is there, answered: passing"],
        ),
        (
            &[("a", &["web/w1 passing", "db/d1 passing"])],
            &[("a", &["web/w1 passing"])],
            &[
                "instance-removed: db/d1 on a is not there any more; it was passing",
                "service-removed: db has no instance any more: NXDOMAIN",
            ],
        ),
        (
            &[("a", &["web/w1 passing"])],
            &[("a", &["web/w1 critical refused"])],
            &["instance-down: web/w1 on a is not answered any more: critical: refused"],
        ),
        (
            &[("a", &["web/w1 critical refused"])],
            &[("a", &["web/w1 warming"])],
            &["instance-up: web/w1 on a is answered from now on: warming"],
        ),
        (
            &[("a", &["web/w1 passing"])],
            &[("a", &["web/w1 warning slow"])],
            &["instance-state: web/w1 on a is warning: slow, and answered as before"],
        ),
        // The reason alone is no event: `explain` has the newest.
        (&[("a", &["web/w1 critical refused"])], &[("a", &["web/w1 critical no answer"])], &[]),
        (
            &[("a", &["web/w1 passing 80"])],
            &[("a", &["web/w1 passing 81"])],
            &["instance-changed: web/w1 on a is defined otherwise, and answered as before"],
        ),
        (
            &[("a", &["web/w1 passing"])],
            &[("a", &["web/w1 draining new disk"])],
            &["instance-held: web/w1 on a is held back: draining: new disk"],
        ),
        (
            &[("a", &["web/w1 flapping"])],
            &[("a", &["web/w1 node-maintenance"])],
            &["instance-held: web/w1 on a is held back: node-maintenance"],
        ),
        (
            &[("a", &["web/w1 maintenance x", "web/w2 flapping"])],
            &[("a", &["web/w1 passing", "web/w2 critical refused"])],
            &[
                "instance-released: web/w1 on a is held back no longer, and answered: passing",
                "instance-released: web/w2 on a is held back no longer, and not answered: critical: refused",
            ],
        ),
        (
            &[("a", &["web/w1 passing", "web/w2 critical refused"])],
            &[("~a", &["web/w1 passing", "web/w2 critical refused"])],
            &["instance-state: web/w1 on a is stale, and answered as before"],
        ),
        (
            &[("~a", &["web/w1 passing"])],
            &[("!a", &["web/w1 passing"])],
            &["instance-down: web/w1 on a is not answered any more: gone"],
        ),
        (
            &[("!a", &["web/w1 passing", "web/w2 passing"])],
            &[("a", &["web/w1 passing"])],
            &[
                "instance-up: web/w1 on a is answered from now on: passing",
                "instance-removed: web/w2 on a is not there any more; it was gone",
            ],
        ),
    ];
    let (members, files) = (Membership::default(), Reports::new());
    for (before, after, expected) in cases {
        let (was, is) = (catalog(before), catalog(after));
        let seen = |catalog| Observed { catalog, members: &members, files: &files, keys: &[] };
        assert_eq!(told(|tell| between(seen(&was), seen(&is), tell)), *expected, "{before:?} {after:?}");
    }
}

#[test]
fn an_event_says_what_it_is_about() {
    let (was, is) = (catalog(&[("a", &["web/w1 passing"])]), catalog(&[("a", &["web/w1 critical refused"])]));
    let (members, files) = (Membership::default(), Reports::new());
    let seen = |catalog| Observed { catalog, members: &members, files: &files, keys: &[] };
    let mut all = Vec::new();
    between(seen(&was), seen(&is), &mut |event| all.push(event));
    let expected = Event {
        node: Some(label("a")),
        service: Some(label("web")),
        instance: Some(label("w1")),
        was: Some("passing"),
        state: Some("critical"),
        ..Event::new(Kind::InstanceDown, "web/w1 on a is not answered any more: critical: refused")
    };
    assert_eq!(all, [expected]);
}

/// Members as `NAME.GENERATION REACH`, after a `|` if the node is cut off.
fn membership(text: &str) -> Membership {
    let reaches = [
        ("alive", Reach::Alive),
        ("suspect", Reach::Suspect),
        ("held", Reach::Held),
        ("left", Reach::Gone(Cause::Left)),
        ("ended", Reach::Gone(Cause::Refused)),
    ];
    let members = text.trim_start_matches('|').split(", ").filter(|text| !text.is_empty()).map(|text| {
        let (id, reach) = text.split_once(' ').unwrap();
        let (name, generation) = id.split_once('.').unwrap();
        Member {
            id: PeerId { name: label(name), generation: generation.parse().unwrap() },
            address: "10.0.0.7:7946".parse().unwrap(),
            datacenter: None,
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
fn nodes_come_go_and_come_back() {
    let cases = [
        ("a.1 alive", "a.1 alive", ""),
        ("", "a.1 alive", "node-joined: a at 10.0.0.7:7946 is in the cluster"),
        ("", "a.1 ended", ""),
        ("a.1 alive", "a.1 suspect", "node-suspect: a does not answer; others are asked"),
        ("a.1 suspect", "a.1 alive", "node-alive: a answers again"),
        ("a.1 suspect", "a.1 ended", "node-gone: a is gone: its agent has ended"),
        ("a.1 alive", "a.1 left", "node-left: a has left the cluster"),
        ("a.1 ended", "a.2 alive", "node-alive: a at 10.0.0.7:7946 is back"),
        ("a.1 alive", "a.2 alive", "node-restarted: a at 10.0.0.7:7946 was started anew"),
        ("a.1 alive", "a.1 ended, a.2 alive", "node-restarted: a at 10.0.0.7:7946 was started anew"),
        ("a.1 ended", "", "node-forgotten: a is not listed any more"),
        (
            "a.1 alive",
            "|a.1 held",
            "partition-began: more than half of the other nodes are out of reach together: what they announced is answered \
             as last known\nnode-held: a is out of reach, with too many others: it is answered as last known",
        ),
        (
            "|a.1 held",
            "a.1 alive",
            "partition-ended: more than half of the other nodes are within reach again\nnode-alive: a answers again",
        ),
    ];
    let (catalog, files) = (Catalog::default(), Reports::new());
    for (before, after, expected) in cases {
        let (was, is) = (membership(before), membership(after));
        let seen = |members| Observed { catalog: &catalog, members, files: &files, keys: &[] };
        let told = told(|tell| between(seen(&was), seen(&is), tell));
        assert_eq!(told.join("\n"), expected, "{before:?} {after:?}");
    }
}

#[test]
fn files_keys_and_what_is_not_let_in() {
    let report = |reads, problems: &[&str]| {
        let problems = problems.iter().map(|message| Diagnostic::at(Path::new("d/web.yaml"), 3, 5, *message)).collect();
        Reports::from([(
            PathBuf::from("d"),
            FolderReport { in_service: format!("{reads} instances"), problems, reads },
        )])
    };
    let cases = [
        (report(1, &[]), report(1, &[]), &[][..]),
        (report(1, &[]), report(2, &[]), &["file-reload: d: read again, 2 instances in service"][..]),
        (
            report(1, &["bad"]),
            report(2, &["bad", "worse"]),
            &["file-problem: d/web.yaml:3:5: worse", "file-reload: d: read again, 2 instances in service"],
        ),
        (
            report(2, &["bad"]),
            report(3, &[]),
            &["file-mended: d/web.yaml: no problems any more", "file-reload: d: read again, 3 instances in service"],
        ),
        (
            Reports::new(),
            report(1, &["bad"]),
            &["file-problem: d/web.yaml:3:5: bad", "file-reload: d: read again, 1 instances in service"],
        ),
    ];
    let (catalog, members) = (Catalog::default(), Membership::default());
    for (was, is, expected) in cases {
        let seen = |files| Observed { catalog: &catalog, members: &members, files, keys: &[] };
        assert_eq!(told(|tell| between(seen(&was), seen(&is), tell)), expected, "{was:?} {is:?}");
    }
    let keys = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    let (none, one, two) = (keys(&[]), keys(&["0a"]), keys(&["0a", "0b"]));
    let files = Reports::new();
    let cases = [
        (&one, &one, ""),
        (&one, &two, "gossip-keys: gossip is sealed with the key 0a; 0b open it too"),
        (&two, &one, "gossip-keys: gossip is sealed with the key 0a, the only one"),
        (&one, &none, "gossip-keys: gossip is not sealed any more"),
    ];
    for (was, is, expected) in cases {
        let seen = |keys| Observed { catalog: &catalog, members: &members, files: &files, keys };
        assert_eq!(told(|tell| between(seen(was), seen(is), tell)).join("\n"), expected);
    }
    let told = told(|tell| rejected(&[("forged", 3), ("own", 1)], &[("forged", 5), ("own", 1), ("sealed", 1)], tell));
    let expected = [
        "gossip-rejected: 2 more that arrived from the network were not let in: forged",
        "gossip-rejected: 1 more that arrived from the network were not let in: sealed",
    ];
    assert_eq!(told, expected);
}

#[test]
fn every_kind_has_a_word_of_its_own_and_a_group() {
    let words: BTreeSet<&str> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
    assert_eq!(words.len(), Kind::ALL.len());
    assert!(Kind::InstanceUp.is("instance") && Kind::InstanceUp.is("instance-up") && !Kind::InstanceUp.is("instance-"));
    assert!(!Kind::InstanceUp.is("") && !Kind::NodeGone.is("instance"));
}
