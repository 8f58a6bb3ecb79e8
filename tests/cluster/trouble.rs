//! Invalid state of peers, ends of chitchat, and random sequences of events.

use std::sync::Arc;

use fastrand::Rng;
use muster::{
    gossip::message::{Change, Message, Push},
    model::{
        announcement::InstanceState,
        member::{INCARNATIONS, Reach},
    },
    record::{MAX_KEY, MAX_VALUE, Record},
};

use crate::{
    fault,
    rogue::{self, Rogue},
    script::{Cluster, instance, ms},
    support::label,
};

/// A valid node and one valid instance of `web`, announced by the rogue.
fn sound() -> Vec<(String, String)> {
    let node = Record::Node {
        addresses: vec![rogue::ADDRESS.ip()],
        datacenter: label("dc1"),
        zone: None,
        version: "1".to_owned(),
        meta: Default::default(),
        ttl: None,
    };
    let instance = instance(rogue::ADDRESS, "web", "r");
    let standing = Record::State(instance.key.clone(), InstanceState::Passing);
    [node, Record::Instance(Arc::new(instance)), standing].iter().map(Record::encode).collect()
}

#[tokio::test(start_paused = true)]
async fn invalid_records_are_skipped_and_counted() {
    let cluster = Cluster::running(&["a", "b", "c"]).await;
    let long = |len: usize| "x".repeat(len);
    let bad = [
        ("i/web/s".to_owned(), "{".to_owned()),
        ("i/web/T".to_owned(), "{}".to_owned()),
        ("h/web/r".to_owned(), "?".to_owned()),
        ("i/web".to_owned(), "{}".to_owned()),
        ("i/web/u".to_owned(), format!("{{\"x\":\"{}\"}}", long(MAX_VALUE))),
        (long(MAX_KEY + 1), "1".to_owned()),
        ("n/left".to_owned(), "2".to_owned()),
    ];
    let mut records = sound();
    records.extend(bad.iter().filter(|(key, _)| key != "h/web/r").cloned());
    records.push(("z/of-newer-nodes".to_owned(), "1".to_owned()));
    let rogue = Rogue::join(&cluster.network, cluster.address("a"), &records).await;
    let all = ["a", "b", "c"];
    cluster.answers(ms(2000), &all, "a b c r").await;
    let counted = |c: &Cluster, at: &str| c.members(at).rejected.iter().map(|(_, n)| *n).sum::<u64>();
    cluster
        .until(ms(1000), "one of each bad kind is counted", |c| {
            all.iter().all(|at| c.members(at).rejected == [("bad record", 6)])
        })
        .await;
    // The same in pushes, where they fit.
    let fits = bad.iter().filter(|(key, value)| key.len() <= MAX_KEY && value.len() <= MAX_VALUE);
    let changes: Vec<_> =
        fits.zip(1000..).map(|((key, value), version)| Change { key, version, value: Some(value) }).collect();
    let pushed = changes.len() as u64;
    let push = Message::Push(Push { generation: rogue.identity.id.generation, changes });
    cluster.network.forge(&rogue.identity, cluster.address("b"), &push).await;
    cluster.until(ms(500), "what was pushed is counted", |c| counted(c, "b") == 6 + pushed).await;
    cluster.stays(ms(2000), &all, "a b c r").await;
}

/// Messages of a peer with the key that would end chitchat's task, or take memory. The peer is a node of the cluster.
#[tokio::test(start_paused = true)]
async fn hostile_chitchat_messages_are_refused_and_counted() {
    let all = ["a", "b", "c"];
    let cluster = Cluster::running(&all).await;
    let run = cluster.identity("a");
    // An operation that changes node `a` in the name of another one, up to the highest version.
    let operations = [
        b"\x00\x01\x00a".to_vec(),
        run.id.generation.to_le_bytes().to_vec(),
        b"\x04\x0a\x00\x00\x01\x0a\x1f".to_vec(),
        vec![0; 16],
        b"\x01\x01\x00k\x01\x00v".to_vec(),
        ((1_u64 << 40) - 1).to_le_bytes().to_vec(),
        vec![0],
    ];
    let operations = operations.concat();
    assert_eq!(run.address, "10.0.0.1:7946".parse().unwrap());
    let of_the_receiver =
        [b"\x53\xb0\x01\x02\x02", &[u8::try_from(operations.len()).unwrap(), 0][..], &operations, &[0]];
    // 65 KB that decompress to 330 MB: 5,000 frames, each a run of 65,535 zeros.
    let frame = b"\x01\x0a\x00\x28\xb5\x2f\xfd\x00\x30\xfb\xff\x07\x00";
    let bomb = [&b"\x53\xb0\x01\x02"[..], &frame.repeat(5_000), &[0]].concat();
    let hostile = [
        include_bytes!("../../fuzz/seeds/anti_entropy/ack-not-ascii").to_vec(),
        include_bytes!("../../fuzz/seeds/anti_entropy/ack-max-below").to_vec(),
        include_bytes!("../../fuzz/seeds/anti_entropy/syn-version-max").to_vec(),
        include_bytes!("../../fuzz/seeds/anti_entropy/syn-version-0").to_vec(),
        of_the_receiver.concat(),
        bomb,
    ];
    cluster.network.lose(Some(|message| matches!(message, Message::Push(_))));
    let from = cluster.identity("c");
    let mut malformed = 0;
    for (sent, octets) in (1..).zip(&hostile) {
        cluster.network.forge(&from, cluster.address("a"), &Message::Gossip(octets)).await;
        // What this node has changed may also come back from honest peers.
        malformed += u64::from(*octets != of_the_receiver.concat());
        let own = (sent > malformed).then_some(("own run", sent - malformed));
        let expected: Vec<(&str, u64)> = [("malformed", malformed)].into_iter().chain(own).collect();
        let counted = |c: &Cluster| c.members("a").rejected == expected;
        cluster.until(ms(500), &format!("message {sent} is counted"), counted).await;
        cluster.flip("b", sent % 2 == 0);
        cluster.settles(ms(2000)).await;
    }
    cluster.network.lose(None);
    cluster.flip("a", false);
    cluster.settles(ms(300)).await;
    assert_eq!(cluster.network.pushed(&label("a")), run.id.generation, "gossip was not restarted");
}

/// A push of another run or of an unknown node has no effect.
#[tokio::test(start_paused = true)]
async fn pushes_of_other_runs_are_ignored() {
    let cluster = Cluster::running(&["a", "b"]).await;
    let mut b = cluster.identity("b");
    for generation in [0, b.id.generation + 1, b.id.generation + INCARNATIONS] {
        let changes = vec![Change { key: "h/web/b", version: 1000, value: Some("c forged") }];
        let push = Message::Push(Push { generation, changes });
        cluster.network.forge(&b, cluster.address("a"), &push).await;
    }
    b.id.name = label("nobody");
    let changes = vec![Change { key: "n/left", version: 1000, value: Some("1") }];
    let push = Message::Push(Push { generation: b.id.generation, changes });
    cluster.network.forge(&b, cluster.address("a"), &push).await;
    cluster.stays(ms(1000), &["a", "b"], "a b").await;
}

/// chitchat is restarted after its task has ended, without an effect on answers.
#[tokio::test(start_paused = true)]
async fn chitchat_is_restarted_while_answers_stay_complete() {
    let all = ["a", "b", "c"];
    let cluster = Cluster::running(&all).await;
    let _fault = fault::inject();
    for (at, time) in (1..=3).zip(["first", "second", "third"]) {
        fault::end_gossip(&cluster, &all).await;
        cluster.stays(ms(1500), &all, "a b c").await;
        let alive = all.iter().all(|by| all.iter().all(|of| cluster.reach(by, of) == Some(Reach::Alive)));
        assert!(alive, "{time}: {}", cluster.show());
        // Gossip without pushes works again.
        cluster.network.lose(Some(|message| matches!(message, Message::Push(_))));
        for name in all {
            cluster.flip(name, false);
            cluster.settles(ms(2000)).await;
            cluster.flip(name, true);
            let took = cluster.settles(ms(2000)).await;
            println!("a flip after the {time} restart of chitchat: {took:?}");
        }
        cluster.network.lose(None);
        // The pushes prove that chitchat was restarted.
        let mut started = 0;
        for name in all {
            cluster.flip(name, false);
            cluster.settles(ms(300)).await;
            cluster.flip(name, true);
            cluster.settles(ms(300)).await;
            started += cluster.network.pushed(&label(name)) - cluster.identity(name).id.generation;
        }
        assert_eq!(started, 3 * at, "starts of gossip");
    }
}

/// While chitchat ends again and again: no node is removed.
#[tokio::test(start_paused = true)]
async fn repeated_ends_of_chitchat_remove_no_node() {
    let all = ["a", "b", "c"];
    let cluster = Cluster::running(&all).await;
    let fault = fault::inject();
    for _ in 0..60 {
        fault::end_gossip(&cluster, &all).await;
        cluster.stays(ms(200), &all, "a b c").await;
    }
    drop(fault);
    // chitchat has been restarted by then.
    cluster.stays(ms(12_000), &all, "a b c").await;
    cluster.flip("b", false);
    cluster.settles(ms(2000)).await;
}

/// After any sequence of events, once the network is healed, every node answers the true state.
#[tokio::test(start_paused = true)]
async fn random_events_converge_to_the_true_state() {
    const NAMES: &[&str] = &["a", "b", "c", "d", "e"];
    for seed in 1..=4 {
        let mut random = Rng::with_seed(seed);
        let mut cluster = Cluster::running(NAMES).await;
        let mut done = vec![];
        for _ in 0..30 {
            done.push(step(&mut cluster, NAMES, &mut random).await);
            tokio::time::sleep(ms(random.u64(0..1000))).await;
        }
        cluster.network.heal();
        for name in NAMES {
            if cluster.up().len() < 2 && !cluster.up().contains(name) {
                cluster.start(name, NAMES).await;
            }
        }
        println!("seed {seed}: {}", done.join("; "));
        let took = cluster.settles(ms(20_000)).await;
        println!("settled after {took:?}");
        cluster.stays(ms(3000), &cluster.up(), &cluster.truth()).await;
    }
}

/// Performs a random event and returns its description.
async fn step(cluster: &mut Cluster, names: &[&'static str], random: &mut Rng) -> String {
    let name = names[random.usize(..names.len())];
    let runs = cluster.up().contains(&name);
    match random.u32(0..10) {
        _ if !runs => {
            cluster.start(name, names).await;
            format!("start {name}")
        }
        0 if cluster.up().len() > 1 => {
            cluster.stop(name).await;
            format!("stop {name}")
        }
        1 if cluster.up().len() > 1 => {
            cluster.kill(name).await;
            format!("kill {name}")
        }
        2 => {
            let (these, those) = names.split_at(random.usize(1..names.len()));
            cluster.cut(these, those);
            format!("cut {these:?} {those:?}")
        }
        3 => {
            cluster.cut_one_way(&[name], names);
            format!("cut from {name}")
        }
        4 => {
            let other = names[random.usize(..names.len())];
            cluster.cut_one_way(&[name], &[other]);
            format!("cut from {name} to {other}")
        }
        5 => {
            cluster.network.heal();
            "heal".to_owned()
        }
        6 => {
            cluster.withdraw(name, "web", &format!("more-{name}"));
            format!("withdraw of {name}")
        }
        7 => {
            let id = format!("more-{name}");
            cluster.announce(name, "web", &id, InstanceState::Passing);
            format!("announce {id}")
        }
        _ => {
            let healthy = random.bool();
            cluster.flip(name, healthy);
            format!("{name} healthy: {healthy}")
        }
    }
}
