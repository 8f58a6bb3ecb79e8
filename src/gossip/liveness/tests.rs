//! The detector's rules one by one, with scripted events. Their interplay is tested in `simulation`.

use super::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn id(name: &str, generation: u64) -> PeerId {
    PeerId { name: Label::parse(name).unwrap(), generation }
}

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 7946))
}

/// A detector `own` with a tick each 50 ms, and peers that ack unless they are `mute`.
struct Bench {
    liveness: Liveness,
    now: Duration,
    mute: Vec<&'static str>,
    /// Its actions, except pings that were acked.
    actions: Vec<Action>,
}

impl Bench {
    /// Creates a detector whose peers have been acking for some time.
    fn new(peers: &[&str]) -> Self {
        let settings = Settings { interval: ms(200), hold: ms(60_000) };
        let liveness = Liveness::new(id("own", 1), settings, fastrand::Rng::with_seed(1));
        let mut bench = Self { liveness, now: ms(10_000), mute: vec![], actions: vec![] };
        for (i, peer) in peers.iter().enumerate() {
            bench.liveness.learn(&id(peer, 1), address(i as u8 + 1), bench.now);
            bench.liveness.heard(&id(peer, 1), bench.now);
        }
        bench.run(ms(1000));
        bench.actions.clear();
        bench
    }

    /// Ticks and acks the resulting pings.
    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now += ms(50);
            self.liveness.tick(self.now);
            let actions: Vec<Action> = self.liveness.actions().collect();
            for action in actions {
                match &action {
                    Action::Ping { to, sequence, .. } if !self.mute.contains(&to.name.as_str()) => {
                        self.liveness.acked(to, *sequence, self.now);
                    }
                    _ => self.actions.push(action),
                }
            }
        }
    }

    /// Like `run`; answers indirect probes and TCP probes of `target` with these results.
    fn run_with(
        &mut self,
        time: Duration,
        target: &str,
        result: Option<IndirectProbeResult>,
        tcp_probe: TcpProbeResult,
    ) {
        let until = self.now + time;
        while self.now < until {
            self.run(ms(50));
            for action in std::mem::take(&mut self.actions) {
                match (&action, result) {
                    (Action::IndirectProbe { by, target, sequence, .. }, Some(result)) => {
                        self.liveness.indirect_result(by, target, *sequence, result, self.now);
                    }
                    (Action::TcpProbe { peer, .. }, _) if peer.name.as_str() == target => {
                        self.liveness.tcp_probed(peer, tcp_probe, self.now);
                    }
                    (Action::BroadcastDead(_) | Action::Conflict { .. }, _) => self.actions.push(action),
                    _ => {}
                }
            }
        }
    }

    fn reach(&self, name: &str) -> Option<Reach> {
        self.liveness.peers().find(|peer| peer.id.name.as_str() == name).map(|peer| peer.reach)
    }

    fn dead(&mut self, name: &str, cause: Cause) {
        self.liveness.dead(&Dead { id: id(name, 1), cause }, self.now);
    }
}

const FOUR: &[&str] = &["a", "b", "c", "d"];

#[test]
fn evidence_determines_cause() {
    use IndirectProbeResult::{Acked, TcpOnly, Unreachable};
    // Results of indirect and TCP probes, presence of heartbeats, and the reachability after 1, 2 and 6 seconds.
    let alive = Reach::Alive;
    let suspect = Reach::Suspect;
    let gone = Reach::Gone;
    let cases: &[(Option<IndirectProbeResult>, TcpProbeResult, bool, [Reach; 3])] = &[
        (None, TcpProbeResult::Refused, false, [gone(Cause::Refused); 3]),
        (Some(Unreachable), TcpProbeResult::Refused, false, [gone(Cause::Refused); 3]),
        (Some(Unreachable), TcpProbeResult::Silent, false, [suspect, gone(Cause::Silent), gone(Cause::Silent)]),
        // Without confirmation by another node.
        (None, TcpProbeResult::Silent, false, [suspect; 3]),
        (Some(Acked), TcpProbeResult::Silent, false, [alive; 3]),
        (Some(TcpOnly), TcpProbeResult::Silent, false, [suspect, suspect, gone(Cause::Unresponsive)]),
        (Some(Unreachable), TcpProbeResult::Accepted, false, [suspect, suspect, gone(Cause::Unresponsive)]),
        (Some(Unreachable), TcpProbeResult::Silent, true, [suspect, suspect, gone(Cause::Unreachable)]),
        (Some(Unreachable), TcpProbeResult::Accepted, true, [suspect, suspect, gone(Cause::Unreachable)]),
        (None, TcpProbeResult::Silent, true, [suspect; 3]),
    ];
    for (result, tcp_probe, beats, expected) in cases {
        let mut bench = Bench::new(FOUR);
        bench.mute.push("a");
        let mut heartbeat = 1;
        let start = bench.now;
        for (after, expected) in [1000, 2000, 6000].into_iter().zip(expected) {
            while bench.now < start + ms(after) {
                if *beats {
                    heartbeat += 1;
                    bench.liveness.heartbeat(&id("a", 1), heartbeat, bench.now);
                }
                bench.run_with(ms(200), "a", *result, *tcp_probe);
            }
            let context = format!("{result:?}, {tcp_probe:?}, heartbeats {beats}, after {after}");
            assert_eq!(bench.reach("a"), Some(*expected), "{context}");
        }
        let announced = bench.actions.iter().filter(|action| matches!(action, Action::BroadcastDead(_))).count();
        let times = if matches!(expected[2], Reach::Gone(_)) { TRANSMISSIONS as usize } else { 0 };
        assert_eq!(announced, times, "{result:?}, {tcp_probe:?}, heartbeats {beats}");
    }
}

#[test]
fn peers_known_from_gossip_only_are_no_members() {
    let mut bench = Bench::new(FOUR);
    bench.mute.extend(["e", "f"]);
    bench.liveness.learn(&id("e", 1), address(9), bench.now);
    bench.liveness.heartbeat(&id("e", 1), 1000, bench.now);
    bench.run(ms(5000));
    assert_eq!(bench.reach("e"), None);
    // A rising heartbeat is a sign of life, a single new heartbeat is not.
    for heartbeat in 1001..1008 {
        bench.liveness.heartbeat(&id("e", 1), heartbeat, bench.now);
        bench.run(ms(200));
    }
    assert_eq!(bench.reach("e"), Some(Reach::Alive));
    bench.liveness.learn(&id("f", 1), address(10), bench.now);
    bench.liveness.heard(&id("f", 1), bench.now);
    assert_eq!(bench.reach("f"), Some(Reach::Alive));
}

#[test]
fn forget_command_applies_to_lost_peers_only() {
    let mut bench = Bench::new(FOUR);
    let name = |text: &str| id(text, 1).name;
    bench.dead("a", Cause::Forgotten);
    assert_eq!(bench.reach("a"), Some(Reach::Alive), "it acks");
    assert_eq!(bench.liveness.forget(&name("a"), bench.now), Err(Some(Reach::Alive)));
    assert_eq!(bench.liveness.forget(&name("nobody"), bench.now), Err(None));
    for by_order in [true, false] {
        bench.mute.push("a");
        bench.run(ms(450));
        bench.dead("a", Cause::Silent);
        assert_eq!(bench.reach("a"), Some(Reach::Gone(Cause::Silent)));
        bench.actions.clear();
        if by_order {
            assert_eq!(bench.liveness.forget(&name("a"), bench.now), Ok(()));
            bench.run(ms(2000));
            let told = Action::BroadcastDead(Dead { id: id("a", 1), cause: Cause::Forgotten });
            assert_eq!(bench.actions.iter().filter(|action| **action == told).count(), TRANSMISSIONS as usize);
        } else {
            bench.dead("a", Cause::Forgotten);
            bench.run(ms(2000));
        }
        assert_eq!(bench.reach("a"), Some(Reach::Gone(Cause::Forgotten)));
        // A sign of life reverts it.
        bench.mute.clear();
        bench.liveness.heard(&id("a", 1), bench.now);
        assert_eq!(bench.reach("a"), Some(Reach::Alive));
        bench.run(ms(2000));
    }
    bench.liveness.left(&id("a", 1), bench.now);
    bench.dead("a", Cause::Forgotten);
    assert_eq!(bench.reach("a"), Some(Reach::Gone(Cause::Left)), "a leave is final");
}

#[test]
fn lost_peers_return_by_evidence_after_the_loss() {
    let mut bench = Bench::new(FOUR);
    let ping = |bench: &Bench| sequence(bench.now);
    // A frame in flight does not count, a later one does.
    bench.mute.push("a");
    bench.run(ms(450));
    let before = ping(&bench);
    bench.dead("a", Cause::Silent);
    assert_eq!(bench.reach("a"), Some(Reach::Gone(Cause::Silent)));
    bench.now += ms(40);
    bench.liveness.heard(&id("a", 1), bench.now);
    bench.liveness.heartbeat(&id("a", 1), 99, bench.now);
    assert_eq!(bench.reach("a"), Some(Reach::Gone(Cause::Silent)));
    bench.liveness.acked(&id("a", 1), before - 1, bench.now);
    assert_eq!(bench.reach("a"), Some(Reach::Gone(Cause::Silent)));
    bench.now += ms(10);
    bench.liveness.heard(&id("a", 1), bench.now);
    assert_eq!(bench.reach("a"), Some(Reach::Alive));

    // Frames of an unreachable peer keep arriving; only an ack counts.
    bench.mute.push("b");
    bench.run(ms(450));
    bench.dead("b", Cause::Unreachable);
    bench.now += ms(100);
    bench.liveness.heard(&id("b", 1), bench.now);
    assert_eq!(bench.reach("b"), Some(Reach::Gone(Cause::Unreachable)));
    bench.liveness.acked(&id("b", 1), ping(&bench), bench.now);
    assert_eq!(bench.reach("b"), Some(Reach::Alive));

    // A peer that left returns only as a new run.
    bench.liveness.left(&id("c", 1), bench.now);
    bench.now += ms(500);
    bench.liveness.heard(&id("c", 1), bench.now);
    bench.liveness.acked(&id("c", 1), ping(&bench), bench.now);
    assert_eq!(bench.reach("c"), Some(Reach::Gone(Cause::Left)));
    bench.liveness.learn(&id("c", 2), address(3), bench.now);
    assert_eq!(bench.reach("c"), Some(Reach::Alive));
}

/// A device on the path refuses connections while the peer is alive.
#[test]
fn wrong_refusals_are_ignored_afterwards() {
    let mut bench = Bench::new(FOUR);
    bench.mute.push("a");
    bench.run_with(ms(500), "a", None, TcpProbeResult::Refused);
    assert_eq!(bench.reach("a"), Some(Reach::Gone(Cause::Refused)));
    bench.liveness.heard(&id("a", 1), bench.now);
    assert_eq!(bench.reach("a"), Some(Reach::Alive));
    bench.run_with(ms(2000), "a", None, TcpProbeResult::Refused);
    assert_eq!(bench.reach("a"), Some(Reach::Suspect));
    bench.run_with(ms(2000), "a", Some(IndirectProbeResult::Unreachable), TcpProbeResult::Refused);
    assert_eq!(bench.reach("a"), Some(Reach::Gone(Cause::Silent)));
}

#[test]
fn unreachable_peer_is_pinged_once_a_second_while_it_sends() {
    let mut bench = Bench::new(&["a", "b", "c", "d"]);
    bench.mute.push("a");
    bench.run(ms(450));
    bench.dead("a", Cause::Unreachable);
    bench.actions.clear();
    for _ in 0..40 {
        bench.liveness.heard(&id("a", 1), bench.now);
        bench.run(ms(50));
    }
    let asked = bench.actions.iter().filter(|action| matches!(action, Action::Ping { to, .. } if *to == id("a", 1)));
    assert!((2..=3).contains(&asked.count()), "{:?}", bench.actions);
    // The peer returns with the first ack.
    bench.mute.clear();
    bench.run(ms(1000));
    bench.liveness.heard(&id("a", 1), bench.now);
    bench.run(ms(50));
    assert_eq!(bench.reach("a"), Some(Reach::Alive));
}

#[test]
fn contradicted_dead_broadcast_starts_monitoring() {
    let mut bench = Bench::new(FOUR);
    // The pings of this tick are acked.
    let acked = |bench: &Bench| bench.liveness.peers[&id("a", 1).name].acked == Some(bench.now);
    while !acked(&bench) {
        bench.run(ms(50));
    }
    bench.dead("a", Cause::Silent);
    assert_eq!(bench.reach("a"), Some(Reach::Alive));
    // The next ping may be acked like the last one. A refusal is newer evidence.
    bench.now += ms(150);
    bench.dead("a", Cause::Silent);
    assert_eq!(bench.reach("a"), Some(Reach::Alive));
    bench.dead("c", Cause::Refused);
    assert_eq!(bench.reach("c"), Some(Reach::Gone(Cause::Refused)));
    // An unknown run is ignored.
    bench.liveness.dead(&Dead { id: id("b", 2), cause: Cause::Silent }, bench.now);
    bench.liveness.dead(&Dead { id: id("z", 1), cause: Cause::Silent }, bench.now);
    assert_eq!(bench.reach("b"), Some(Reach::Alive));
    bench.mute.push("a");
    bench.run(ms(450));
    bench.dead("a", Cause::Silent);
    assert_eq!(bench.reach("a"), Some(Reach::Gone(Cause::Silent)));
}

#[test]
fn dead_broadcast_about_this_node_is_refuted() {
    let mut bench = Bench::new(FOUR);
    bench.dead("own", Cause::Silent);
    bench.dead("own", Cause::Silent);
    let since = bench.now;
    bench.run(ms(50));
    assert!(bench.actions.is_empty(), "{:?}", bench.actions);
    bench.run(ms(1000));
    let refuted = bench.actions.iter().filter(|action| **action == Action::Refute).count();
    assert_eq!(refuted, TRANSMISSIONS as usize, "since {since:?}");
}

#[test]
fn name_conflict_is_reported_if_the_incumbent_acks() {
    let mut bench = Bench::new(FOUR);
    let reach = |bench: &Bench| {
        let peer = bench.liveness.peers().find(|peer| peer.id.name.as_str() == "a").unwrap();
        (peer.id.generation, peer.address, peer.reach)
    };
    // An ack in flight does not prove that it is still alive.
    bench.now += Duration::from_nanos(1);
    let before = sequence(bench.now) - 1;
    for _ in 0..3 {
        bench.liveness.learn(&id("a", 2), address(77), bench.now);
        bench.liveness.acked(&id("a", 1), before, bench.now);
    }
    let asked: Vec<Action> = bench.liveness.actions().collect();
    assert!(matches!(asked[..], [Action::Ping { .. }]), "{asked:?}");
    assert_eq!(reach(&bench), (1, address(1), Reach::Alive));
    let answer = sequence(bench.now);
    for _ in 0..3 {
        bench.liveness.acked(&id("a", 1), answer, bench.now);
    }
    let conflict =
        Action::Conflict { incumbent: id("a", 1), address: address(1), newcomer: id("a", 2), from: address(77) };
    assert_eq!(bench.liveness.actions().collect::<Vec<_>>(), [conflict]);
    bench.mute.push("a");
    bench.run(ms(450));
    bench.dead("a", Cause::Silent);
    bench.liveness.learn(&id("a", 2), address(77), bench.now);
    assert_eq!(reach(&bench), (2, address(77), Reach::Alive));
    // At the same address a higher generation replaces it at once; a lower one never does.
    bench.liveness.learn(&id("a", 3), address(77), bench.now);
    bench.liveness.learn(&id("a", 1), address(77), bench.now);
    assert_eq!(reach(&bench), (3, address(77), Reach::Alive));
}

#[test]
fn stall_of_this_node_removes_no_peer() {
    let mut bench = Bench::new(FOUR);
    bench.now += ms(60_000);
    bench.run(ms(50));
    let states: Vec<_> = bench.liveness.peers().map(|peer| peer.reach).collect();
    assert_eq!(states, [Reach::Alive; 4]);
    assert!(bench.actions.is_empty(), "{:?}", bench.actions);
}

#[test]
fn common_loss_is_held_and_later_single_loss_is_gone() {
    let mut bench = Bench::new(FOUR);
    bench.mute.extend(["a", "b", "c", "d"]);
    bench.run_with(ms(2500), "-", None, TcpProbeResult::Silent);
    let tcp_probe = |bench: &mut Bench| {
        for name in FOUR {
            bench.liveness.tcp_probed(&id(name, 1), TcpProbeResult::Silent, bench.now);
            bench.liveness.tcp_probed(&id(name, 1), TcpProbeResult::Silent, bench.now);
        }
    };
    tcp_probe(&mut bench);
    bench.run(ms(100));
    assert!(FOUR.iter().all(|name| bench.reach(name) == Some(Reach::Held)));
    assert!(bench.liveness.partitioned().is_some());
    assert!(!bench.actions.iter().any(|action| matches!(action, Action::BroadcastDead(_))));
    // Three return: the fourth is lost alone.
    bench.mute = vec!["a"];
    bench.run(ms(1500));
    assert_eq!(bench.reach("b"), Some(Reach::Alive));
    assert_eq!(bench.reach("a"), Some(Reach::Held));
    assert_eq!(bench.liveness.partitioned(), None);
    bench.run(ms(4500));
    assert_eq!(bench.reach("a"), Some(Reach::Gone(Cause::Silent)));
}

#[test]
fn indirect_probe_requests_are_answered() {
    let ask = |bench: &mut Bench, target: &PeerId| {
        bench.liveness.indirect_probe(&id("b", 1), address(2), target, 7, bench.now);
        bench.run(ms(150));
        let mut sent = vec![];
        for _ in 0..10 {
            let actions = std::mem::take(&mut bench.actions);
            sent.extend(actions.into_iter().filter(|action| matches!(action, Action::IndirectResult { .. })));
            bench.run(ms(50));
        }
        let results = sent.into_iter().filter_map(|action| match action {
            Action::IndirectResult { to, sequence, result, .. } => Some((to, sequence, result)),
            _ => None,
        });
        results.collect::<Vec<_>>()
    };
    let results = |result| vec![(id("b", 1), 7, result)];
    let mut bench = Bench::new(FOUR);
    assert_eq!(ask(&mut bench, &id("a", 1)), results(IndirectProbeResult::Acked));
    assert_eq!(ask(&mut bench, &id("own", 1)), results(IndirectProbeResult::Acked));
    assert_eq!(ask(&mut bench, &id("unknown", 1)), []);
    assert_eq!(ask(&mut bench, &id("a", 2)), []);
    bench.mute.push("a");
    bench.run(ms(100));
    assert_eq!(ask(&mut bench, &id("a", 1)), results(IndirectProbeResult::Unreachable));
}

#[test]
fn peer_table_is_bounded() {
    let mut bench = Bench::new(FOUR);
    for i in 0..2 * MAX_PEERS {
        bench.liveness.learn(&id(&format!("n{i}"), 1), address(5), bench.now);
    }
    assert!(bench.liveness.peers.len() <= MAX_PEERS);
    assert_eq!(bench.liveness.agenda.len(), bench.liveness.peers.len());
    assert_eq!(bench.reach("a"), Some(Reach::Alive));
    bench.now += ms(50);
    bench.liveness.tick(bench.now);
    assert!(bench.liveness.actions().count() <= 5 * MAX_PROBES_PER_TICK);
}

/// The incrementally maintained assignment equals the computed one.
#[test]
fn monitor_assignment_is_independent_of_join_order() {
    use rendezvous::{key, score};
    let mut random = fastrand::Rng::with_seed(3);
    let mut bench = Bench::new(&[]);
    let names: Vec<String> = (0..40).map(|i| format!("n{i}")).collect();
    for round in 0..200 {
        let name = &names[random.usize(..names.len())];
        let generation = round + 1;
        if bench.reach(name) == Some(Reach::Alive) {
            let known = bench.liveness.peers().find(|peer| peer.id.name.as_str() == name).unwrap().id;
            bench.liveness.left(&known, bench.now);
        } else {
            bench.liveness.learn(&id(name, generation), address(1), bench.now);
            bench.liveness.heard(&id(name, generation), bench.now);
        }
        let members: Vec<Label> = bench.liveness.members.clone();
        for member in &members {
            let ours = score(bench.liveness.key, key(member));
            let monitors_ahead =
                members.iter().filter(|other| *other != member && score(key(other), key(member)) > ours).count();
            assert_eq!(bench.liveness.peers[member].monitors_ahead, monitors_ahead, "round {round}, {member}");
        }
    }
}
