//! A cluster in one process, by script: start, stop, kill, cut, heal, flip, and what each node then answers.
//!
//! Time is paused: the times in assertions are those of the scenario, and the same on every machine.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{collections::BTreeSet, time::Duration};

use muster::{
    gossip::{
        join::Targets,
        keyring::Key,
        message::{Change, KeyringChange, Message, Push},
        node::{End, Order},
    },
    model::{
        announcement::Standing,
        member::{Cause, Reach},
    },
};
use support::network::{Answer, Cluster, address, announcements, endpoint, instance};

const fn ms(number: u64) -> Duration {
    Duration::from_millis(number)
}

const fn s(number: u64) -> Duration {
    Duration::from_secs(number)
}

fn ids(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| format!("web-{name}")).collect()
}

fn critical() -> Standing {
    Standing::Critical("connection refused".into())
}

#[tokio::test(start_paused = true)]
async fn nodes_that_know_one_know_all_and_answer_for_all() {
    let mut cluster = Cluster::new();
    for name in ["a", "b", "c", "d", "e"] {
        cluster.start(name, &["a"]);
    }
    let took = cluster.until_all_answer(&["a", "b", "c", "d", "e"]).await;
    assert!(took < s(2), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_change_of_health_is_everywhere_before_the_next_round_of_gossip() {
    let cluster = Cluster::of(&["a", "b", "c", "d", "e"]).await;
    for round in 0..20 {
        cluster.flip("b", "web", "web-b", critical());
        let took = cluster.until_all_answer(&["a", "c", "d", "e"]).await;
        assert!(took < ms(50), "{round}: {took:?} down");
        cluster.flip("b", "web", "web-b", Standing::Passing);
        let took = cluster.until_all_answer(&["a", "b", "c", "d", "e"]).await;
        assert!(took < ms(50), "{round}: {took:?} up");
    }
}

#[tokio::test(start_paused = true)]
async fn what_pushes_do_not_bring_gossip_does() {
    let cluster = Cluster::of(&["a", "b", "c", "d", "e"]).await;
    cluster.without_pushes();
    cluster.flip("b", "web", "web-b", critical());
    cluster.announce("c", |all| all.extend(announcements([instance("db", "db-c")])));
    cluster.until_all_answer(&["a", "c", "d", "e"]).await;
    cluster
        .until("db is known", |cluster| cluster.hosts.keys().all(|name| cluster.ask(name, "db").instances.len() == 1))
        .await;
    cluster.announce("c", |all| drop(all.remove(&instance("db", "db-c").key)));
    let unknown = |cluster: &Cluster, name: &str| cluster.ask(name, "db").code == "Non-Existent Domain";
    cluster.until("db is gone", |cluster| cluster.hosts.keys().all(|name| unknown(cluster, name))).await;
}

#[tokio::test(start_paused = true)]
async fn who_says_good_bye_is_gone_within_300_ms() {
    let mut cluster = Cluster::of(&["a", "b", "c", "d", "e"]).await;
    let started = tokio::time::Instant::now();
    assert_eq!(cluster.stop("c").await, End::Left);
    cluster.until_all_answer(&["a", "b", "d", "e"]).await;
    assert!(started.elapsed() < ms(300), "{:?}", started.elapsed());
    cluster.until("membership", |cluster| cluster.reach("a", "c") == Some(Reach::Gone(Cause::Left))).await;
    // And stays so.
    cluster
        .throughout(s(5), "c is gone", |cluster| cluster.ask("a", "web").instances == ids(&["a", "b", "d", "e"]))
        .await;

    cluster.order("d", |done| Order::Leave { done }).await;
    assert_eq!(cluster.ended("d").await, End::Left);
    let took = cluster.until_all_answer(&["a", "b", "e"]).await;
    assert!(took < ms(300), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn who_is_killed_is_gone_within_a_second_and_its_services_say_why() {
    let mut cluster = Cluster::of(&["a", "b", "c", "d", "e"]).await;
    cluster.announce("c", |all| all.extend(announcements([instance("db", "db-c")])));
    cluster.until("db is known", |cluster| cluster.ask("a", "db").instances.len() == 1).await;
    cluster.kill("c");
    let took = cluster.until_all_answer(&["a", "b", "d", "e"]).await;
    assert!(took < s(1), "{took:?}");
    for name in ["a", "b", "d", "e"] {
        cluster.until("members say so", |cluster| cluster.reach(name, "c") == Some(Reach::Gone(Cause::Refused))).await;
        let expected = Answer {
            code: "No Error".to_owned(),
            instances: BTreeSet::new(),
            said: Some((14, "1 instance, 1 on c, which is gone".to_owned())),
        };
        assert_eq!(cluster.ask(name, "db"), expected);
    }
    // Ten minutes later it is forgotten.
    tokio::time::sleep(s(601)).await;
    let unknown = |cluster: &Cluster| cluster.ask("a", "db").code == "Non-Existent Domain";
    cluster.until("db is forgotten", unknown).await;
    cluster.until("members say so", |cluster| cluster.reach("a", "c").is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn a_host_that_vanishes_is_gone_within_two_seconds() {
    let mut cluster = Cluster::of(&["a", "b", "c", "d", "e"]).await;
    cluster.split(&["c"], &["a", "b", "d", "e"], true);
    cluster.kill("c");
    let took = cluster.until_all_answer(&["a", "b", "d", "e"]).await;
    assert!(took < s(2), "{took:?}");
    cluster.until("members say so", |cluster| cluster.reach("a", "c") == Some(Reach::Gone(Cause::Silent))).await;
}

#[tokio::test(start_paused = true)]
async fn a_new_run_replaces_what_the_one_before_announced() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    cluster.announce("c", |all| all.extend(announcements([instance("db", "db-c")])));
    cluster.until("db is known", |cluster| cluster.ask("a", "db").instances.len() == 1).await;
    for round in 0..3 {
        // At once, before anybody has missed it; and after it was found gone.
        cluster.kill("c");
        if round % 2 == 1 {
            cluster.until_all_answer(&["a", "b"]).await;
        }
        cluster.start("c", &["a"]);
        cluster.until_all_answer(&["a", "b", "c"]).await;
        let unknown = |cluster: &Cluster| cluster.ask("b", "db").code == "Non-Existent Domain";
        cluster.until("its old service is gone", unknown).await;
        cluster.until("it is alive", |cluster| cluster.reach("b", "c") == Some(Reach::Alive)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_smaller_side_of_a_split_answers_what_it_knew_and_says_so() {
    let cluster = Cluster::of(&["a", "b", "c", "d", "e"]).await;
    let (large, small) = (["a", "b", "c"], ["d", "e"]);
    cluster.split(&large, &small, true);
    // The larger side goes on without the others.
    cluster.until_these_answer(&large, &["a", "b", "c"]).await;
    let held = |cluster: &Cluster, name: &str| {
        let answer = cluster.ask(name, "web");
        let said =
            answer.said.is_some_and(|(code, text)| code == 3 && text.starts_with("a and 2 more are out of reach"));
        said && answer.instances == ids(&["a", "b", "c", "d", "e"])
    };
    cluster.until("d and e hold the others", |cluster| small.iter().all(|name| held(cluster, name))).await;
    for name in small {
        assert!(cluster.hosts[name].members.borrow().partitioned.is_some(), "{name}");
    }
    assert!(cluster.hosts["a"].members.borrow().partitioned.is_none());
    // On either side, what happens there is answered at once.
    cluster.flip("d", "web", "web-d", critical());
    let took = cluster
        .until("e sees d's change", |cluster| cluster.ask("e", "web").instances == ids(&["a", "b", "c", "e"]))
        .await;
    assert!(took < ms(50), "{took:?}");
    cluster.flip("a", "web", "web-a", critical());
    let took = cluster.until_these_answer(&large, &["b", "c"]).await;
    assert!(took < ms(50), "{took:?}");
    // It lasts, and nobody changes his mind.
    cluster
        .throughout(s(20), "d holds", |cluster| cluster.ask("d", "web").instances == ids(&["a", "b", "c", "e"]))
        .await;
    cluster.throughout(s(20), "a goes on", |cluster| cluster.ask("a", "web").instances == ids(&["b", "c"])).await;

    cluster.heal();
    let took = cluster.until_all_answer(&["b", "c", "e"]).await;
    assert!(took < s(3), "{took:?}");
    for name in large.iter().chain(&small) {
        assert!(cluster.hosts[name].members.borrow().partitioned.is_none(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_held_is_held_for_a_bounded_time() {
    let mut cluster = Cluster::new();
    cluster.hold = s(30);
    for name in ["a", "b", "c"] {
        cluster.start(name, &["a"]);
    }
    cluster.until_all_answer(&["a", "b", "c"]).await;
    cluster.split(&["a"], &["b", "c"], true);
    cluster.until("a holds", |cluster| cluster.ask("a", "web").said.is_some()).await;
    let took = cluster.until("a gives up", |cluster| cluster.ask("a", "web").instances == ids(&["a"])).await;
    assert!(took > s(27) && took < s(33), "{took:?}");
    assert_eq!(cluster.reach("a", "b"), Some(Reach::Gone(Cause::Expired)));
    cluster.heal();
    let took = cluster.until_all_answer(&["a", "b", "c"]).await;
    assert!(took < s(6), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_way_that_is_broken_between_two_takes_nobody_away() {
    for (one_way, what) in [(true, "one way"), (false, "both ways")] {
        let cluster = Cluster::of(&["a", "b", "c", "d", "e"]).await;
        cluster.cut(&["a"], &["b"], true);
        if !one_way {
            cluster.cut(&["b"], &["a"], true);
        }
        let all = ids(&["a", "b", "c", "d", "e"]);
        let whole = |cluster: &Cluster| cluster.hosts.keys().all(|name| cluster.ask(name, "web").instances == all);
        cluster.throughout(s(20), what, whole).await;
        // What changes goes round the break.
        cluster.flip("a", "web", "web-a", critical());
        cluster.until_all_answer(&["b", "c", "d", "e"]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_came_first_keeps_the_name() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    let other = announcements([instance("web", "web-x")]);
    let targets = || Targets { configured: vec![endpoint("a")], remembered: vec![] };
    cluster.start_with("b", "x", targets(), other);
    let End::NameTaken(by) = cluster.ended("x").await else { panic!("it is to stop") };
    assert_eq!(by.address, address("b"));
    cluster
        .throughout(s(5), "b stays", |cluster| {
            ["a", "b", "c"].iter().all(|name| cluster.ask(name, "web").instances.is_superset(&ids(&["a", "b", "c"])))
        })
        .await;
    cluster.until_all_answer(&["a", "b", "c"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_may_move_to_another_address() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    cluster.kill("b");
    let targets = Targets { configured: vec![endpoint("a")], remembered: vec![] };
    cluster.start_with("b", "x", targets, announcements([instance("web", "web-b")]));
    cluster
        .until("it is alive", |cluster| {
            cluster.reach("a", "b") == Some(Reach::Alive) && cluster.reach("c", "b") == Some(Reach::Alive)
        })
        .await;
    cluster.until_these_answer(&["a", "c"], &["a", "b", "c"]).await;
}

#[tokio::test(start_paused = true)]
async fn peers_of_before_are_found_without_anybody_to_join() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    let peers = |cluster: &Cluster| cluster.hosts["c"].peers.borrow().iter().copied().collect::<Vec<_>>();
    cluster.until("c has peers", |cluster| peers(cluster) == [address("a"), address("b")]).await;
    let remembered = peers(&cluster);
    cluster.kill("c");
    cluster.kill("a");
    cluster.until_these_answer(&["b"], &["b"]).await;
    let targets = Targets { configured: vec![], remembered };
    cluster.start_with("c", "c", targets, announcements([instance("web", "web-c")]));
    cluster.until_all_answer(&["b", "c"]).await;
}

#[tokio::test(start_paused = true)]
async fn an_order_to_join_makes_two_clusters_one() {
    let mut cluster = Cluster::new();
    for (name, join) in [("a", "a"), ("b", "a"), ("c", "c"), ("d", "c")] {
        cluster.start(name, &[join]);
    }
    cluster.until_these_answer(&["a", "b"], &["a", "b"]).await;
    cluster.until_these_answer(&["c", "d"], &["c", "d"]).await;
    let joined = cluster.order("b", |done| Order::Join { target: endpoint("d"), done }).await.unwrap();
    assert_eq!((joined.asked, joined.by.address), (vec![address("d")], address("d")));
    cluster.until_all_answer(&["a", "b", "c", "d"]).await;
    let nobody = cluster.order("b", |done| Order::Join { target: endpoint("z"), done }).await.unwrap_err();
    assert!(nobody.starts_with("no answer from 10.0.0.26:7946"), "{nobody}");
}

#[tokio::test(start_paused = true)]
async fn records_that_break_a_bound_are_skipped_and_counted() {
    let cluster = Cluster::of(&["a", "b", "c"]).await;
    let generation = cluster.hosts["b"].identity.id.generation;
    let long = "x".repeat(8_000);
    let changes = vec![
        ("i/web/UPPER", Some("{}")),
        ("i/web/no.label", Some("{}")),
        ("i/web/not-json", Some("nonsense")),
        ("h/web/web-b", Some("sideways")),
        ("i/web/long", Some(long.as_str())),
        ("n/node", Some("[]")),
    ];
    let expected = changes.len() as u64;
    let changes = changes.into_iter().enumerate();
    let changes = changes.map(|(at, (key, value))| Change { key, version: 1_000 + at as u64, value }).collect();
    cluster.say("b", "a", &Message::Push(Push { generation, changes }));
    let counted = |cluster: &Cluster| {
        cluster.hosts["a"]
            .members
            .borrow()
            .rejected
            .iter()
            .any(|(what, count)| *what == "bad record" && *count == expected)
    };
    cluster.until("they are counted", counted).await;
    cluster
        .throughout(s(2), "nothing else happens", |cluster| cluster.ask("a", "web").instances == ids(&["a", "b", "c"]))
        .await;
}

#[tokio::test(start_paused = true)]
async fn keys_are_changed_on_all_nodes_and_who_does_not_follow_is_named() {
    let cluster = Cluster::of(&["a", "b", "c"]).await;
    let new = Key::from_random([2; 32]);
    let order = async |change| cluster.order("b", |done| Order::Keyring { change, done }).await.unwrap();
    let old = order(KeyringChange::List).await.keys.keys().copied().next().unwrap();
    assert_eq!(order(KeyringChange::Install(new.clone())).await.keys[&new.id()], (3, 0));
    assert_eq!(order(KeyringChange::Use(new.id())).await.keys[&new.id()], (3, 3));
    // Nobody forgets the key that seals.
    let refused = order(KeyringChange::Remove(new.id())).await;
    assert_eq!(refused.refusals.len(), 1, "{refused:?}");
    let removed = order(KeyringChange::Remove(old)).await;
    assert_eq!((removed.nodes, removed.answered, removed.keys.len()), (3, 3, 1));
    for host in cluster.hosts.values() {
        assert_eq!(host.keyring.borrow().as_ref().unwrap().primary().id(), new.id());
    }

    cluster.split(&["b"], &["c"], true);
    let report = order(KeyringChange::List).await;
    assert_eq!((report.nodes, report.answered), (3, 2));
    assert_eq!(
        report.refusals.iter().map(|(node, why)| (node.as_str(), why.as_str())).collect::<Vec<_>>(),
        [("c", "no answer")]
    );
}

/// Whatever happens, afterwards everybody answers the truth.
#[tokio::test(start_paused = true)]
async fn after_any_disorder_all_nodes_agree() {
    const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
    for seed in 0..2 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut cluster = Cluster::of(&NAMES).await;
        let mut healthy: BTreeSet<&str> = NAMES.into();
        for _ in 0..40 {
            let name = NAMES[rng.usize(..NAMES.len())];
            let other = NAMES[rng.usize(..NAMES.len())];
            let runs = cluster.hosts.contains_key(name);
            match rng.u8(..8) {
                0 if runs && cluster.hosts.len() > 2 => cluster.kill(name),
                1 if runs && cluster.hosts.len() > 2 => drop(cluster.stop(name).await),
                0..=2 if !runs => {
                    cluster.start(name, &["a", "b", "c"]);
                    healthy.insert(name);
                }
                3 => cluster.cut(&[name], &[other], true),
                4 => {
                    let rest: Vec<&str> = NAMES.into_iter().filter(|node| *node != name && *node != other).collect();
                    cluster.split(&[name, other], &rest, true);
                }
                5 => cluster.heal(),
                _ if runs => {
                    let up = !healthy.remove(name);
                    if up {
                        healthy.insert(name);
                    }
                    let standing = if up { Standing::Passing } else { critical() };
                    cluster.flip(name, "web", &format!("web-{name}"), standing);
                }
                _ => {}
            }
            tokio::time::sleep(ms(rng.u64(..1500))).await;
        }
        cluster.heal();
        let expected =
            ids(&healthy.iter().copied().filter(|name| cluster.hosts.contains_key(name)).collect::<Vec<_>>());
        let agreed =
            |cluster: &Cluster| cluster.hosts.keys().all(|name| cluster.ask(name, "web").instances == expected);
        cluster.until(&format!("seed {seed}: all answer {expected:?}"), agreed).await;
        cluster.throughout(s(3), "they stay so", agreed).await;
    }
}
