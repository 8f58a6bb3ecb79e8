//! Guarantees of the detector on the simulated cluster. Times are printed with `--nocapture`.

use super::{rendezvous::MONITORS, *};

/// Cluster sizes of the short scenarios.
const SIZES: &[usize] = if cfg!(debug_assertions) { &[3, 10, 30] } else { &[3, 10, 30, 50] };

/// Runs per scenario.
const SEEDS: std::ops::Range<u64> = if cfg!(debug_assertions) { 0..1 } else { 0..40 };

/// Returns the worst detection time by the last survivor over all seeds.
fn worst(what: &str, loss: f64, size: usize, state: State, time: Duration, expected: &[Cause]) -> Duration {
    detection(what, SEEDS, loss, size, state, time, expected).1
}

/// Returns the median and the worst detection time by the last survivor.
fn detection(
    what: &str,
    seeds: std::ops::Range<u64>,
    loss: f64,
    size: usize,
    state: State,
    time: Duration,
    expected: &[Cause],
) -> (Duration, Duration) {
    let mut times = vec![];
    for seed in seeds {
        let mut cluster = Cluster::new(size, seed);
        cluster.loss = loss;
        cluster.run(ms(1000 + 37 * seed));
        let since = cluster.now;
        let victim = cluster.random.usize(..size);
        cluster.set(victim, state);
        cluster.run(time);
        let (after, cause) = cluster.gone(victim, since);
        assert!(expected.contains(&cause), "{cause:?}: {what} at {size}, seed {seed}");
        let others = cluster.count(|change| change.id != victim && matches!(change.reach, Reach::Gone(_)));
        assert_eq!(others, 0, "{what} at {size}, seed {seed}: others are gone");
        times.push(after);
    }
    times.sort();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    println!("{what}, loss {loss}, {size} nodes: gone everywhere after {median:?}, at worst {worst:?}");
    (median, worst)
}

/// The promised times, over many crashes.
#[test]
fn crash_and_power_cut_are_detected_in_promised_time() {
    for size in [2, 3, 5, 10, 30, 50] {
        let seeds = 0..if size < 30 { 100 } else { 40 };
        let (median, worst) = detection("crash", seeds.clone(), 0.0, size, State::Killed, ms(1500), &[Cause::Refused]);
        assert!(median < ms(400) && worst < ms(800), "{size} nodes: {median:?}, {worst:?}");
        // Two nodes cannot distinguish a dead host from their own isolation.
        if size > 2 {
            let (median, worst) = detection("power cut", seeds, 0.0, size, State::Crashed, ms(2500), &[Cause::Silent]);
            assert!(median < ms(1500) && worst < ms(1800), "{size} nodes: {median:?}, {worst:?}");
        }
    }
}

#[test]
fn killed_agent_is_gone_within_800_ms() {
    for size in SIZES {
        let worst = worst("killed", 0.0, *size, State::Killed, ms(2500), &[Cause::Refused]);
        assert!(worst < ms(800), "{size} nodes: {worst:?}");
    }
}

#[test]
fn crashed_host_is_gone_within_two_seconds() {
    for size in SIZES {
        let worst = worst("crashed", 0.0, *size, State::Crashed, ms(3500), &[Cause::Silent]);
        assert!(worst < ms(1800), "{size} nodes: {worst:?}");
    }
}

#[test]
fn crash_is_detected_under_packet_loss() {
    for size in SIZES.iter().skip(1) {
        worst("killed", 0.2, *size, State::Killed, ms(8000), &[Cause::Refused, Cause::Silent]);
        worst("crashed", 0.2, *size, State::Crashed, ms(8000), &[Cause::Silent]);
    }
}

#[test]
fn unresponsive_agent_is_gone_after_five_seconds() {
    for size in SIZES.iter().take(2) {
        let worst = worst("unresponsive", 0.0, *size, State::Stopped, ms(7000), &[Cause::Unresponsive]);
        assert!(worst > ms(4800) && worst < ms(6000), "{size} nodes: {worst:?}");
    }
}

#[test]
fn stop_of_two_seconds_removes_no_node() {
    for size in SIZES {
        for (seed, loss) in SEEDS.flat_map(|seed| [(seed, 0.0), (seed, 0.2)]) {
            let mut cluster = Cluster::new(*size, seed);
            cluster.loss = loss;
            for victim in 0..2 {
                cluster.set(victim, State::Stopped);
                cluster.run(ms(2000));
                cluster.set(victim, State::Up);
                cluster.run(ms(1500));
            }
            let changes: Vec<_> = cluster.changes.iter().filter(|c| matches!(c.reach, Reach::Gone(_))).collect();
            assert!(changes.is_empty(), "{size} nodes, loss {loss}, seed {seed}: {changes:?}");
            assert_eq!(cluster.held(), 0, "{size} nodes, loss {loss}, seed {seed}");
            if loss == 0.0 {
                cluster.assert_all_alive("after the stops");
            }
        }
    }
}

/// A resumed agent returns at once and has declared no peer gone.
#[test]
fn stop_of_eight_seconds_removes_the_stopped_node_only() {
    for size in SIZES {
        let mut cluster = Cluster::new(*size, 5);
        cluster.set(1, State::Stopped);
        cluster.run(ms(8000));
        assert_eq!(cluster.gone(1, ms(5000)).1, Cause::Unresponsive);
        cluster.changes.clear();
        cluster.set(1, State::Up);
        cluster.run(ms(1500));
        cluster.assert_all_alive("after the stop");
        let declared_gone = cluster.count(|change| change.observer == 1 && change.reach != Reach::Alive);
        assert_eq!(declared_gone, 0, "{size} nodes: {:?}", cluster.changes);
    }
}

#[test]
fn packet_loss_removes_no_node() {
    let runs: &[(usize, u64)] =
        if cfg!(debug_assertions) { &[(3, 300), (10, 60)] } else { &[(3, 300), (10, 300), (30, 300), (50, 300)] };
    let seeds = if cfg!(debug_assertions) { 1 } else { 4 };
    for (size, seconds) in runs {
        for seed in 0..seeds {
            let mut cluster = Cluster::new(*size, seed);
            cluster.loss = 0.2;
            cluster.run(Duration::from_secs(*seconds));
            let (removals, held) = (cluster.removals(), cluster.held());
            println!(
                "{size} nodes, {seconds} s at 20 % loss, seed {seed}: {} suspicions, {removals} removals, {held} held, {:?}",
                cluster.suspicions(),
                cluster.sent,
            );
            assert_eq!((removals, held), (0, 0), "{size} nodes, seed {seed}");
        }
    }
}

#[test]
fn broken_link_between_two_nodes_removes_none() {
    for size in SIZES {
        for both in [false, true] {
            let mut cluster = Cluster::new(*size, 3);
            cluster.cut(&[0], &[1], true);
            cluster.cut(&[1], &[0], both);
            cluster.run(ms(10_000));
            assert_eq!((cluster.removals(), cluster.held()), (0, 0), "{size} nodes: {:?}", cluster.changes);
            assert_eq!(cluster.suspicions(), 0, "{size} nodes: {:?}", cluster.changes);
        }
    }
}

#[test]
fn one_way_cut_removes_the_cut_node() {
    for size in SIZES {
        for one_way in [true, false] {
            for seed in SEEDS {
                let mut cluster = Cluster::new(*size, seed);
                let rest: Vec<usize> = (1..*size).collect();
                let (from, to) = if one_way { (&rest[..], &[0][..]) } else { (&[0][..], &rest[..]) };
                cluster.cut(from, to, true);
                let since = cluster.now;
                cluster.run(ms(6000));
                // Its own conclusions remove no node.
                let declared_gone = cluster.count(|c| c.observer == 0 && matches!(c.reach, Reach::Gone(_)));
                assert_eq!(declared_gone, 0, "{size} nodes, receives nothing: {one_way}");
                cluster.nodes[0].state = State::Stopped;
                let (after, cause) = cluster.gone(0, since);
                cluster.nodes[0].state = State::Up;
                assert_eq!(
                    cause,
                    if one_way { Cause::Unreachable } else { Cause::Silent },
                    "{size} nodes, seed {seed}"
                );
                assert!(
                    after < if one_way { ms(4000) } else { ms(2000) },
                    "{size} nodes, receives nothing: {one_way}: {after:?}"
                );
                if seed == 0 {
                    println!("receives nothing: {one_way}, {size} nodes: {after:?}");
                }
                let gone = cluster.count(|c| c.reach == Reach::Gone(cause));
                assert_eq!(gone, size - 1, "{size} nodes, receives nothing: {one_way}: its state oscillates");
                let healed = cluster.now;
                cluster.cut(from, to, false);
                cluster.run(ms(8000));
                cluster.assert_all_alive("healed");
                let last = cluster.changes.iter().map(|change| change.at).max().unwrap();
                if seed == 0 {
                    println!("receives nothing: {one_way}, {size} nodes: healed after {:?}", last - healed);
                }
            }
        }
    }
}

#[test]
fn minority_holds_and_majority_removes() {
    for (size, small) in [(2, 1), (3, 1), (10, 1), (10, 3), (10, 5), (30, 10), (50, 20)] {
        for seed in SEEDS {
            let mut cluster = Cluster::new(size, seed);
            let (a, b): (Vec<usize>, Vec<usize>) = (0..size).partition(|i| *i < small);
            let since = cluster.now;
            cluster.split(&a, &b, true);
            cluster.run(ms(6000));
            let context = format!("{small} of {size}, seed {seed}");
            // In an even split, each side has lost more than half of its peers.
            let both = small * 2 == size;
            for change in &cluster.changes {
                let held = both || change.observer < small;
                let fine = match change.reach {
                    Reach::Held => held,
                    Reach::Gone(cause) => !held && cause == Cause::Silent,
                    Reach::Alive | Reach::Suspect => true,
                    Reach::Restarting => false,
                };
                assert!(fine, "{context}: {change:?}");
            }
            for (observer, node) in cluster.nodes.iter().enumerate() {
                let held = both || observer < small;
                assert_eq!(node.liveness.partitioned().is_some(), held, "{context}: {observer}");
                for (id, reach) in node.seen.iter().enumerate().filter(|(i, _)| *i != observer) {
                    let across = (observer < small) != (id < small);
                    let expected = match across {
                        true if held => Reach::Held,
                        true => Reach::Gone(Cause::Silent),
                        false => Reach::Alive,
                    };
                    assert_eq!(*reach, Some(expected), "{context}: {observer} sees {id}");
                }
            }
            let last = cluster.changes.iter().map(|change| change.at).max().unwrap();
            cluster.split(&a, &b, false);
            let healed = cluster.now;
            cluster.run(ms(8000));
            cluster.assert_all_alive(&context);
            assert!(cluster.nodes.iter().all(|node| node.liveness.partitioned().is_none()), "{context}");
            if seed == 0 {
                let back = cluster.changes.iter().map(|change| change.at).max().unwrap();
                println!("split {context}: settled after {:?}, healed after {:?}", last - since, back - healed);
            }
        }
    }
}

#[test]
fn hold_expires() {
    let mut cluster = Cluster::new(3, 1);
    cluster.split(&[0], &[1, 2], true);
    cluster.run(HOLD + ms(4000));
    assert_eq!(cluster.nodes[0].seen[1], Some(Reach::Gone(Cause::Expired)));
    assert_eq!(cluster.nodes[0].liveness.partitioned(), None);
    cluster.split(&[0], &[1, 2], false);
    cluster.run(ms(8000));
    cluster.assert_all_alive("healed");
}

#[test]
fn new_run_replaces_the_old_one() {
    for size in SIZES {
        // The shorter outage ends before its detection.
        for down in [100, 5000] {
            let mut cluster = Cluster::new(*size, 2);
            cluster.set(0, State::Killed);
            cluster.run(ms(down));
            cluster.restart(0);
            let since = cluster.now;
            cluster.run(ms(3000));
            cluster.assert_all_alive("after the restart");
            let last = cluster.changes.iter().map(|change| change.at).max().unwrap_or(since);
            let gone = cluster.count(|c| c.at > since + ms(1000) && matches!(c.reach, Reach::Gone(_)));
            assert_eq!(gone, 0, "{size} nodes, {down} ms");
            println!("restart after {down} ms, {size} nodes: known after {:?}", last.saturating_sub(since));
        }
    }
}

/// Every node restarts in turn: announced, with closed sockets, or after a crash whose sockets stay open.
#[test]
fn restarts_of_all_nodes_in_turn_remove_none() {
    let sizes = SIZES.iter().copied().chain(if cfg!(debug_assertions) { None } else { Some(500) });
    for (size, announced) in sizes.flat_map(|size| [(size, true), (size, false)]) {
        // A large cluster takes minutes of computing.
        let (restarts, losses) = if size > 50 { (2, &[0.0][..]) } else { (size, &[0.0, 0.05][..]) };
        for &loss in losses {
            let mut cluster = Cluster::new(size, 7);
            cluster.loss = loss;
            for i in 0..restarts {
                if announced {
                    cluster.announce_restart(i);
                    cluster.announce_restart(i);
                    cluster.run(ms(200));
                }
                cluster.set(i, if announced { State::Killed } else { State::Stopped });
                cluster.run(ms(1000));
                cluster.restore(i);
                for _ in 0..10 {
                    cluster.run(ms(100));
                    let partitioned = |node: &Node| node.liveness.partitioned().is_some();
                    assert!(!cluster.nodes.iter().any(partitioned), "{size} nodes, {i} restarts");
                }
            }
            cluster.run(ms(2000));
            let context = format!("{size} nodes, announced: {announced}, loss {loss}");
            let gone: Vec<_> = cluster.changes.iter().filter(|change| matches!(change.reach, Reach::Gone(_))).collect();
            assert!(gone.is_empty(), "{context}: {gone:?}");
            cluster.assert_all_alive(&context);
        }
    }
}

/// An announced pause of several seconds removes no node, and a crash during the pause does.
#[test]
fn announced_pause_removes_no_node() {
    for size in SIZES {
        // Where both announcements are lost, the usual limits apply.
        for (loss, pause) in [(0.0, ms(8000)), (0.05, ms(4000))] {
            let mut cluster = Cluster::new(*size, 11);
            cluster.loss = loss;
            for i in 0..(*size).min(10) {
                cluster.announce_pause(i);
                cluster.announce_pause(i);
                cluster.run(ms(5));
                cluster.set(i, State::Stopped);
                cluster.run(pause);
                cluster.set(i, State::Up);
                cluster.run(ms(1000));
            }
            assert_eq!(cluster.removals(), 0, "{size} nodes, loss {loss}: {:?}", cluster.changes);
            cluster.assert_all_alive("after the pauses");
        }
    }
    let mut cluster = Cluster::new(5, 11);
    cluster.announce_pause(1);
    cluster.run(ms(5));
    let since = cluster.now;
    cluster.set(1, State::Killed);
    cluster.run(ms(1000));
    let (at, cause) = cluster.gone(1, since);
    assert_eq!(cause, Cause::Refused);
    assert!(at < ms(700), "{at:?}");
}

/// A crash beside a restart is detected as usual.
#[test]
fn crash_beside_a_restart_is_detected() {
    for size in SIZES {
        let mut cluster = Cluster::new(*size, 3);
        cluster.announce_restart(0);
        cluster.run(ms(200));
        cluster.set(0, State::Killed);
        cluster.set(1, State::Killed);
        let since = cluster.now;
        cluster.run(ms(3000));
        let (after, cause) = cluster.gone(1, since);
        assert!(after < ms(700) && cause == Cause::Refused, "{size} nodes: {after:?}, {cause:?}");
        let restarting = |node: &Node| node.seen[0] == Some(Reach::Restarting);
        assert!(cluster.nodes[2..].iter().all(restarting), "{size} nodes");
        cluster.run(RESTART_HOLD);
        let (after, cause) = cluster.gone(0, since);
        assert!(after < RESTART_HOLD + ms(200) && cause == Cause::NotReturned, "{size} nodes: {after:?}, {cause:?}");
    }
}

/// A minority crashes together, monitors and targets alike.
#[test]
fn crashed_rack_is_gone() {
    for (size, rack) in [(10, 4), (30, 10), (50, 20)] {
        let mut times = vec![];
        for seed in SEEDS {
            let mut cluster = Cluster::new(size, seed);
            for i in 0..rack {
                cluster.set(i, State::Crashed);
            }
            let since = cluster.now;
            cluster.run(ms(5000));
            times.extend((0..rack).map(|i| cluster.gone(i, since).0));
            assert_eq!(cluster.held(), 0);
        }
        let worst = times.into_iter().max().unwrap();
        println!("{rack} of {size} crash: gone everywhere after {worst:?}");
        assert!(worst < ms(3500), "{worst:?}");
    }
}

/// The monitors of some nodes die with them: the others find these by their surveys.
#[test]
fn nodes_that_die_with_all_their_monitors_are_gone() {
    let size = 60;
    for seed in SEEDS.take(5) {
        let mut cluster = Cluster::new(size, seed);
        let key = |i: usize| rendezvous::key(&name(i));
        // Each of the first targets with its monitors, as long as a third remains.
        let mut dead: BTreeSet<usize> = BTreeSet::new();
        let mut orphans = vec![];
        for target in 0..size {
            let mut monitors: Vec<usize> = (0..size).filter(|other| *other != target).collect();
            monitors.sort_by_key(|other| Reverse(rendezvous::score(key(*other), key(target))));
            let group: BTreeSet<usize> = monitors[..MONITORS].iter().copied().chain([target]).collect();
            if dead.union(&group).count() <= size / 3 {
                dead.extend(group);
                orphans.push(target);
            }
        }
        assert!(orphans.len() >= 3, "{orphans:?}");
        for i in &dead {
            cluster.set(*i, State::Crashed);
        }
        let since = cluster.now;
        cluster.run(ms(4000));
        let worst = dead.iter().map(|i| cluster.gone(*i, since).0).max().unwrap();
        println!("{} of {size} crash, {} with all monitors: gone after {worst:?}", dead.len(), orphans.len());
        assert!(worst < ms(2500), "{worst:?}");
        assert_eq!(cluster.held(), 0);
        let alive = |change: &Change| matches!(change.reach, Reach::Gone(_)) && !dead.contains(&change.id);
        assert_eq!(cluster.count(alive), 0);
    }
}

/// Background pings find a dead member whose dead broadcast did not arrive; surveys on demand find it at once.
#[test]
fn lost_dead_broadcast_leaves_no_dead_member() {
    for verify in [false, true] {
        let mut cluster = Cluster::new(20, 4);
        let monitors = |cluster: &Cluster, target: usize| -> Vec<usize> {
            let monitors = |i: &usize| *i != target && cluster.nodes[*i].liveness.peers[&name(target)].is_target();
            (0..20).filter(monitors).collect()
        };
        let deaf = (0..20).find(|i| *i != 7 && !monitors(&cluster, 7).contains(i)).unwrap();
        cluster.misses_broadcasts[deaf] = true;
        cluster.set(7, State::Crashed);
        let since = cluster.now;
        cluster.run(ms(2500));
        // The survivors' view excludes it; the deaf node does not know unless its turn to ping it has come.
        if verify {
            let now = cluster.now;
            cluster.nodes[deaf].liveness.verify_members(now);
            cluster.schedule_tick(deaf);
        }
        cluster.run(if verify { ms(3500) } else { ms(45_000) });
        let (after, cause) = cluster.gone(7, since);
        println!("lost broadcast, on demand: {verify}: gone after {after:?}");
        assert_eq!(cause, Cause::Silent);
        let others = cluster.count(|change| change.id != 7 && change.reach != Reach::Alive);
        assert_eq!(others, 0, "{:?}", cluster.changes);
    }
}

/// Surveys after false suspicions do not lead to more of them.
#[test]
fn packet_loss_in_large_cluster_leads_to_few_surveys() {
    let rate = |size: usize, seconds: u64| {
        let mut cluster = Cluster::new(size, 1);
        cluster.loss = 0.2;
        cluster.run(Duration::from_secs(seconds));
        let Sent { pings, tcp_probes, asks, .. } = cluster.sent;
        let messages = (pings + tcp_probes + asks) as f64 / seconds as f64 / size as f64;
        println!(
            "{size} nodes at 20 % loss: {messages:.1} messages a second and node without acks, {:?}",
            cluster.sent
        );
        assert_eq!((cluster.removals(), cluster.held()), (0, 0), "{size} nodes");
        messages
    };
    let few = rate(15, 60);
    // A large cluster takes minutes of computing without optimization.
    let many = rate(if cfg!(debug_assertions) { 150 } else { 500 }, 20);
    assert!(many < 2.0 * few, "{few} {many}");
}

#[test]
fn messages_per_node_are_independent_of_cluster_size() {
    // A large cluster takes minutes of computing without optimization.
    let sizes: &[usize] = if cfg!(debug_assertions) { &[3, 15, 150] } else { &[3, 15, 150, 500] };
    for size in sizes.iter().copied() {
        let mut cluster = Cluster::new(size, 1);
        cluster.run(ms(5000));
        let Sent { pings, tcp_probes, asks, others, ticks, burst } = cluster.sent;
        let per_node = |count: u64| count as f64 / 5.0 / size as f64;
        let (messages, ticks) = (per_node(pings + others), per_node(ticks));
        println!(
            "{size} nodes: {messages:.1} messages and {ticks:.1} ticks a second and node, {burst} actions at once"
        );
        assert!(messages < 23.0, "{size} nodes: {messages} messages");
        // The targets are pinged together.
        assert!(ticks < 7.0, "{size} nodes: {ticks} ticks");
        // A node has up to three times as many targets as on average, and one background ping.
        assert!(burst <= 3 * MONITORS + 1, "{size} nodes: {burst} actions at once");
        assert_eq!(tcp_probes + asks, 0, "{size} nodes");
    }
}
