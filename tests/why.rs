//! Extended DNS Errors, `_why` records and `muster explain` give the same reasons.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::sync::Arc;

use hickory_proto::op::Message;
use muster::{
    dns::{
        engine::{Engine, Transport},
        message::codes::rtype,
        zone::{Settings, Tables},
    },
    model::{
        announcement::{Announcement, CheckReport, HealthReport, HoldReason, InstanceState, Node},
        catalog::{Catalog, Freshness, NodeView, View},
        health::Status,
        member::{Cause, Reach},
        name::Name,
        reason,
        service::{Instance, InstanceKey},
    },
};
use support::{Ask, decode, extended_error, label, show_data};

/// Returns `web/web-1` on `b` with a check of the same status.
fn announcement(state: InstanceState) -> Announcement {
    let instance = Instance {
        port: Some(80),
        weight: 50,
        ..Instance::new(
            InstanceKey { service: label("web").into(), id: label("web-1") },
            vec!["10.0.0.7".parse().unwrap()],
        )
    };
    let status = match state {
        InstanceState::Warning(_) => Status::Warning,
        InstanceState::Critical(_) => Status::Critical,
        _ => Status::Passing,
    };
    let check = CheckReport { id: "c".into(), name: "disk".into(), status, output: "".into(), since: 1_000_000_000 };
    let report = Some(Arc::new(HealthReport { since: 1_000_000_000, checks: vec![check] }));
    Announcement { instance: Arc::new(instance), state, report }
}

fn view(announcement: Announcement, freshness: Freshness) -> View {
    let node = |name: &str, announcements, freshness| {
        let node = Node {
            name: label(name),
            addresses: vec!["10.0.0.7".parse().unwrap()],
            datacenter: label("dc1"),
            zone: None,
            meta: Default::default(),
        };
        (label(name), Arc::new(NodeView { node: Arc::new(node), announcements, freshness }))
    };
    let own = [announcement.into_entry()].into_iter().collect();
    [node("a", Default::default(), Freshness::Live), node("b", own, freshness)].into_iter().collect()
}

struct World {
    catalog: Catalog,
    tables: Tables,
}

impl World {
    fn of(view: View) -> Self {
        let domain = Name::parse("service.local").unwrap();
        let settings = Settings::new(label("a"), label("dc1"), domain);
        let mut world = Self { catalog: Catalog::default(), tables: Tables::new(settings) };
        let touched = world.catalog.update(view);
        world.tables.update(&world.catalog, &touched);
        world
    }

    fn ask(&self, name: &str, qtype: u16, transport: Transport) -> Message {
        let ask = Ask { name: name.to_owned(), qtype, edns: Some(1232), dnssec_ok: false };
        let mut out = Vec::new();
        Engine::new(1232, fastrand::Rng::with_seed(1)).respond(&self.tables, &ask.packet(1), transport, &mut out);
        decode(&out)
    }

    fn texts(&self, name: &str) -> Vec<String> {
        let message = self.ask(name, rtype::TXT, Transport::Tcp);
        assert!(message.answers.iter().all(|record| record.ttl == 1), "cached for at most 1 s");
        message.answers.iter().map(|record| show_data(&record.data)).collect()
    }
}

#[test]
fn ede_why_records_and_explain_agree_for_every_state() {
    let reason = "the reason";
    let mut states = vec![
        InstanceState::Passing,
        InstanceState::Warming(7),
        InstanceState::new(Status::Warning, reason),
        InstanceState::new(Status::Critical, reason),
        InstanceState::Disabled,
    ];
    states.extend(HoldReason::ALL.map(|hold| InstanceState::withheld(hold, reason)));
    for state in states {
        for freshness in [Freshness::Live, Freshness::LastKnown, Freshness::Gone] {
            let case = format!("{state:?} {freshness:?}");
            let world = World::of(view(announcement(state.clone()), freshness));
            let entry = world.catalog.service(&label("web").into()).unwrap().instances().next().unwrap();
            let why = reason::of(entry, true, None);
            let answer = world.ask("web.service.local.", rtype::A, Transport::Udp);
            let error = extended_error(&answer);
            let is_answered = !answer.answers.is_empty();
            assert_eq!(is_answered, entry.is_answered(), "{case}");
            assert_eq!(is_answered, why.text.starts_with("answered"), "{case}: {}", why.text);

            // EDE and explanation share these words.
            let key_words: Vec<String> = match (&state, freshness) {
                (_, Freshness::Gone) => vec!["node b".to_owned(), "gone".to_owned()],
                (InstanceState::Critical(reason), _) => vec![format!("critical: {reason}")],
                (InstanceState::Disabled, _) => vec!["disabled".to_owned()],
                (InstanceState::Withheld(hold, reason), _) => vec![format!("{}: {reason}", hold.words())],
                (_, Freshness::LastKnown) => {
                    vec!["node b is unreachable or restarting".to_owned(), "answered as last known".to_owned()]
                }
                _ => vec![],
            };
            let code = match (is_answered, freshness) {
                (false, _) => Some(14),
                (true, Freshness::LastKnown) => Some(3),
                (true, _) => None,
            };
            assert_eq!(error.as_ref().map(|(code, _)| *code), code, "{case}");
            for word in &key_words {
                assert!(why.text.contains(word), "{case}: {word:?} in {:?}", why.text);
                assert!(error.as_ref().is_some_and(|(_, text)| text.contains(word)), "{case}: {word:?} in {error:?}");
            }

            // `_why` records contain the explanation verbatim.
            let since = if freshness == Freshness::Live { " since 2001-09-09T01:46:40Z" } else { "" };
            let detail = if state == InstanceState::Passing && freshness == Freshness::Live {
                format!("\"web-1: passing\" \"{}\"", why.text)
            } else {
                format!("\"web-1 on b: {}{since}\" \"{}\"", why.state, why.text)
            };
            assert_eq!(world.texts("_why.web-1.web.service.local."), [&*detail], "{case}");
            let summary = match &error {
                Some((14, text)) => format!("\"none answered\" \"{text}\""),
                _ => "\"1 of 1 answered\"".to_owned(),
            };
            let all = world.texts("_why.web.service.local.");
            assert_eq!(all[0], summary, "{case}");
            let is_plain = detail.starts_with("\"web-1: passing");
            assert_eq!(all[1..], if is_plain { vec![] } else { vec![detail] }, "{case}");
        }
    }
}

#[test]
fn reach_of_the_node_adds_a_cause_and_decides_nothing() {
    let cases = [
        (Freshness::Live, None, "answered with weight 50"),
        (Freshness::Live, Some(Reach::Alive), "answered with weight 50"),
        (Freshness::Live, Some(Reach::Suspect), "answered with weight 50; node b is suspect"),
        (Freshness::Gone, None, "node b is gone"),
        (Freshness::Gone, Some(Reach::Gone(Cause::Refused)), "node b is gone: agent stopped"),
        (Freshness::Gone, Some(Reach::Alive), "node b is gone: restarted, nothing announced yet"),
    ];
    for (freshness, reach, expected) in cases {
        let world = World::of(view(announcement(InstanceState::Passing), freshness));
        let entry = world.catalog.service(&label("web").into()).unwrap().instances().next().unwrap();
        assert_eq!(reason::of(entry, true, reach).text, expected, "{freshness:?} {reach:?}");
    }
}

/// A report that arrives after its state updates the `_why` records, unless the instance is plainly passing.
#[test]
fn late_reports_update_why_records_of_failing_instances() {
    for (state, updated) in [(InstanceState::Passing, false), (InstanceState::new(Status::Critical, "refused"), true)] {
        let early = Announcement { report: None, ..announcement(state.clone()) };
        let mut world = World::of(view(early, Freshness::Live));
        let before = world.texts("_why.web.service.local.");
        let touched = world.catalog.update(view(announcement(state), Freshness::Live));
        assert!(touched.is_empty() && touched.reports.len() == 1);
        assert_eq!(world.tables.update_reports(&world.catalog, &touched.reports), updated);
        assert_eq!(world.texts("_why.web.service.local.") != before, updated);
        assert!(!world.tables.update_reports(&world.catalog, &touched.reports), "once");
    }
}

#[test]
fn shadowed_instances_and_missing_why_names() {
    let mut both = view(announcement(InstanceState::Passing), Freshness::Live);
    let critical = view(announcement(InstanceState::new(Status::Critical, "refused")), Freshness::Live);
    let other = &critical[&label("b")];
    let node = Arc::new(Node { name: label("c"), ..Node::clone(&other.node) });
    both.insert(label("c"), Arc::new(NodeView { node, ..NodeView::clone(other) }));
    let world = World::of(both);
    let shadowed = "another node announces the same instance id and takes precedence";
    let texts = world.texts("_why.web-1.web.service.local.");
    assert_eq!(texts, [format!("\"web-1 on c: shadowed since 2001-09-09T01:46:40Z\" \"{shadowed}\"")]);
    assert_eq!(world.texts("_why.web.service.local.")[0], "\"1 of 1 answered\"");
    let cases = [
        ("_why.web.service.local.", rtype::A, "No Error", 0),
        ("_why.web.service.local.", rtype::ANY, "No Error", 2),
        ("_WHY.Web-1.web.service.local.", rtype::TXT, "No Error", 1),
        ("_why.none.web.service.local.", rtype::TXT, "Non-Existent Domain", 0),
        ("x._why.web.service.local.", rtype::TXT, "Non-Existent Domain", 0),
        ("_why.none.service.local.", rtype::TXT, "Non-Existent Domain", 0),
    ];
    for (name, qtype, code, answers) in cases {
        let message = world.ask(name, qtype, Transport::Udp);
        let got = (message.metadata.response_code.to_string(), message.answers.len());
        assert_eq!(got, (code.to_owned(), answers), "{name} {qtype}");
    }
}

/// Over UDP the reply is truncated and keeps the summary; TC is set.
#[test]
fn why_records_beyond_a_datagram_are_truncated_over_udp() {
    let announcements = (0..100).map(|at| {
        let mut announcement = announcement(InstanceState::new(Status::Critical, "connection refused"));
        Arc::make_mut(&mut announcement.instance).key.id = label(&format!("web-{at}"));
        announcement.into_entry()
    });
    let node =
        Node { name: label("b"), addresses: vec![], datacenter: label("dc1"), zone: None, meta: Default::default() };
    let view = NodeView { node: Arc::new(node), announcements: announcements.collect(), freshness: Freshness::Live };
    let world = World::of([(label("b"), Arc::new(view))].into_iter().collect());
    let over_udp = world.ask("_why.web.service.local.", rtype::TXT, Transport::Udp);
    assert!(over_udp.metadata.truncation && over_udp.answers.len() > 1);
    assert_eq!(
        show_data(&over_udp.answers[0].data),
        "\"none answered\" \"100 instances, 100 critical: connection refused\""
    );
    assert_eq!(world.texts("_why.web.service.local.").len(), 101);
}
