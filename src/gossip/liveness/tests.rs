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
        let settings = Settings { interval: ms(200), hold: ms(60_000), restart_hold: ms(30_000) };
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
    // Results of indirect and TCP probes, presence of frames, and the reachability after 1.2, 2, 4 and 6 seconds.
    let alive = Reach::Alive;
    let suspect = Reach::Suspect;
    let gone = Reach::Gone;
    let [silent, unresponsive, unreachable] = [Cause::Silent, Cause::Unresponsive, Cause::Unreachable].map(gone);
    let cases: &[(Option<IndirectProbeResult>, TcpProbeResult, bool, [Reach; 4])] = &[
        (None, TcpProbeResult::Refused, false, [gone(Cause::Refused); 4]),
        (Some(Unreachable), TcpProbeResult::Refused, false, [gone(Cause::Refused); 4]),
        (Some(Unreachable), TcpProbeResult::Silent, false, [suspect, silent, silent, silent]),
        // Without confirmation by another node.
        (None, TcpProbeResult::Silent, false, [suspect; 4]),
        (Some(Acked), TcpProbeResult::Silent, false, [alive; 4]),
        (Some(TcpOnly), TcpProbeResult::Silent, false, [suspect, suspect, suspect, unresponsive]),
        (Some(Unreachable), TcpProbeResult::Accepted, false, [suspect, suspect, suspect, unresponsive]),
        (Some(Unreachable), TcpProbeResult::Silent, true, [suspect, suspect, unreachable, unreachable]),
        // An agent that sends, and whose host accepts connections, is overloaded.
        (Some(TcpOnly), TcpProbeResult::Silent, true, [suspect, suspect, suspect, unreachable]),
        (Some(Unreachable), TcpProbeResult::Accepted, true, [suspect, suspect, suspect, unreachable]),
        (None, TcpProbeResult::Silent, true, [suspect; 4]),
    ];
    for (result, tcp_probe, sends, expected) in cases {
        let mut bench = Bench::new(FOUR);
        bench.mute.push("a");
        let start = bench.now;
        for (after, expected) in [1200, 2000, 4000, 6000].into_iter().zip(expected) {
            while bench.now < start + ms(after) {
                if *sends {
                    bench.liveness.heard(&id("a", 1), bench.now);
                }
                bench.run_with(ms(200), "a", *result, *tcp_probe);
            }
            let context = format!("{result:?}, {tcp_probe:?}, sends {sends}, after {after}");
            assert_eq!(bench.reach("a"), Some(*expected), "{context}");
        }
        let announced = bench.actions.iter().filter(|action| matches!(action, Action::BroadcastDead(_))).count();
        let times = if matches!(expected[3], Reach::Gone(_)) { TRANSMISSIONS as usize } else { 0 };
        assert_eq!(announced, times, "{result:?}, {tcp_probe:?}, sends {sends}");
    }
}

#[test]
fn peers_known_from_gossip_only_are_no_members() {
    let mut bench = Bench::new(FOUR);
    bench.mute.extend(["e", "f"]);
    bench.liveness.learn(&id("e", 1), address(9), bench.now);
    bench.run(ms(3000));
    assert_eq!(bench.reach("e"), None);
    // An ack is a sign of life, and so is a frame.
    bench.mute.retain(|name| *name != "e");
    bench.run(ms(5500));
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
    // It counts for a node that has left, too, and the leave that gossip repeats does not revert it.
    for by_order in [true, false] {
        let mut bench = Bench::new(FOUR);
        bench.mute.push("a");
        bench.liveness.left(&id("a", 1), bench.now);
        assert_eq!(bench.reach("a"), Some(Reach::Gone(Cause::Left)));
        if by_order {
            assert_eq!(bench.liveness.forget(&name("a"), bench.now), Ok(()));
            bench.run(ms(2000));
            let told = Action::BroadcastDead(Dead { id: id("a", 1), cause: Cause::Forgotten });
            assert!(bench.actions.contains(&told), "{:?}", bench.actions);
        } else {
            bench.dead("a", Cause::Forgotten);
        }
        bench.liveness.left(&id("a", 1), bench.now);
        assert_eq!(bench.reach("a"), Some(Reach::Gone(Cause::Forgotten)));
    }
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
    bench.run_with(ms(800), "a", None, TcpProbeResult::Refused);
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

/// A node whose run is not the known one makes contact.
#[test]
fn outdated_run_is_told_which_one_is_known() {
    // State of the known run 5, and address and generation of the other one, with the reaction.
    #[derive(Debug, PartialEq)]
    enum Reaction {
        None,
        Outdated,
        Replaced,
        Pinged,
    }
    use Reaction::{Outdated, Pinged, Replaced};
    let gone = Reach::Gone(Cause::Silent);
    let left = Reach::Gone(Cause::Left);
    let cases = [
        (Reach::Alive, 1, 5, Reaction::None),
        (Reach::Alive, 1, 4, Outdated),
        (Reach::Alive, 1, 6, Replaced),
        (Reach::Alive, 77, 4, Pinged),
        (Reach::Alive, 77, 6, Pinged),
        (Reach::Suspect, 77, 4, Pinged),
        (Reach::Held, 77, 4, Outdated),
        (Reach::Held, 77, 6, Replaced),
        (Reach::Restarting, 77, 4, Outdated),
        (Reach::Restarting, 77, 6, Replaced),
        (gone, 1, 4, Outdated),
        (gone, 77, 4, Outdated),
        (gone, 1, 5, Reaction::None),
        // It lives on after its leave.
        (left, 1, 5, Outdated),
        (left, 1, 4, Outdated),
        (left, 1, 6, Replaced),
    ];
    for (reach, at, generation, expected) in cases {
        let mut bench = Bench::new(&[]);
        bench.mute.push("a");
        bench.liveness.restore(&id("a", 5), address(1), reach, true, bench.now);
        if reach == left {
            bench.liveness.contacted(&id("a", 5), address(1), bench.now);
            assert_eq!(bench.liveness.actions().count(), 0, "its last frames may arrive late");
            bench.run(ms(5000));
        }
        bench.actions.clear();
        for _ in 0..3 {
            bench.liveness.contacted(&id("a", generation), address(at), bench.now);
        }
        let actions: Vec<Action> = bench.liveness.actions().collect();
        let known = bench.liveness.peers().find(|peer| peer.id.name.as_str() == "a").unwrap();
        let outdated = Action::Outdated { to: address(at), known: id("a", 5) };
        let reaction = match actions[..] {
            [] if known.id.generation == generation && generation > 5 => Replaced,
            [] => Reaction::None,
            [Action::Ping { .. }] => Pinged,
            [ref action] if *action == outdated => Outdated,
            ref other => panic!("{other:?}"),
        };
        assert_eq!(reaction, expected, "{reach:?} {at} {generation}");
        let kept = reaction != Replaced;
        assert_eq!(
            (known.id.generation, known.reach == reach),
            if kept { (5, true) } else { (6, reach == Reach::Alive) }
        );
        bench.now += ms(200);
        bench.liveness.contacted(&id("a", generation), address(at), bench.now);
        let again = bench.liveness.actions().any(|action| action == outdated);
        assert_eq!(again, reaction == Outdated, "it is repeated, since a frame may be lost");
    }
}

#[test]
fn node_is_doubted_until_peers_answer_again() {
    let mut bench = Bench::new(FOUR);
    let since = bench.now;
    bench.dead("own", Cause::Silent);
    bench.run(ms(1000));
    bench.dead("own", Cause::Silent);
    assert_eq!(bench.liveness.doubted(), Some(since));
    bench.run(ms(2500));
    assert_eq!(bench.liveness.doubted(), Some(since));
    bench.liveness.changed();
    bench.run(ms(1000));
    assert_eq!(bench.liveness.doubted(), None);
    assert!(bench.liveness.changed());
}

/// A sequence of events at a restarting peer, each with the reachability after it.
#[test]
fn restarting_peer_is_left_alone_until_its_new_run_starts() {
    let mut bench = Bench::new(FOUR);
    let ping = sequence(bench.now);
    bench.liveness.restarts(&id("a", 1), bench.now);
    assert_eq!(bench.reach("a"), Some(Reach::Restarting));
    bench.mute.push("a");
    // Neither its last frames nor reports of its end count.
    bench.liveness.heard(&id("a", 1), bench.now);
    bench.liveness.acked(&id("a", 1), ping, bench.now);
    bench.dead("a", Cause::Refused);
    bench.dead("a", Cause::Silent);
    for _ in 0..3 {
        bench.liveness.tcp_probed(&id("a", 1), TcpProbeResult::Refused, bench.now);
    }
    bench.run_with(ms(10_000), "a", Some(IndirectProbeResult::Unreachable), TcpProbeResult::Refused);
    assert_eq!(bench.reach("a"), Some(Reach::Restarting));
    assert!(!bench.actions.iter().any(|action| matches!(action, Action::BroadcastDead(_))), "{:?}", bench.actions);
    assert_eq!(bench.liveness.partitioned(), None);
    // Its new run is taken from any address.
    bench.liveness.learn(&id("a", 2), address(77), bench.now);
    assert_eq!(bench.reach("a"), Some(Reach::Alive));

    for (event, expected) in
        [(Cause::Left, Reach::Gone(Cause::Left)), (Cause::Forgotten, Reach::Gone(Cause::Forgotten))]
    {
        let mut bench = Bench::new(FOUR);
        bench.liveness.restarts(&id("b", 1), bench.now);
        bench.dead("b", event);
        assert_eq!(bench.reach("b"), Some(expected));
        bench.liveness.restarts(&id("b", 1), bench.now);
        assert_eq!(bench.reach("b"), Some(expected));
    }
}

#[test]
fn restart_that_does_not_happen_ends() {
    let mut bench = Bench::new(FOUR);
    for name in ["a", "b"] {
        bench.liveness.restarts(&id(name, 1), bench.now);
    }
    bench.mute.push("a");
    bench.run(ms(4500));
    assert_eq!(bench.reach("b"), Some(Reach::Restarting));
    // One answers on: it has not restarted. The announcement counts once.
    bench.run(ms(2000));
    bench.liveness.restarts(&id("b", 1), bench.now);
    assert_eq!(bench.reach("b"), Some(Reach::Alive));
    bench.run(ms(22_000));
    assert_eq!(bench.reach("a"), Some(Reach::Restarting));
    bench.run(ms(2000));
    assert_eq!(bench.reach("a"), Some(Reach::Gone(Cause::NotReturned)));
}

#[test]
fn restored_peers_start_as_they_were_or_held() {
    let settings = Settings { interval: ms(200), hold: ms(60_000), restart_hold: ms(30_000) };
    let gone = Reach::Gone(Cause::Refused);
    let reaches = [Reach::Alive, Reach::Suspect, Reach::Held, Reach::Restarting, gone];
    for continues in [true, false] {
        let liveness = Liveness::new(id("own", 1), settings, fastrand::Rng::with_seed(1));
        let mut bench = Bench { liveness, now: ms(10_000), mute: vec!["a", "b", "c", "d", "e"], actions: vec![] };
        for (name, (i, reach)) in ["a", "b", "c", "d", "e"].iter().zip(reaches.iter().enumerate()) {
            bench.liveness.restore(&id(name, 1), address(i as u8), *reach, continues, bench.now);
        }
        let found: Vec<Reach> = bench.liveness.peers().map(|peer| peer.reach).collect();
        let held = Reach::Held;
        assert_eq!(found, if continues { reaches } else { [held, held, held, Reach::Restarting, gone] });
        if continues {
            continue;
        }
        assert!(bench.liveness.awaits_answers(bench.now));
        bench.run(ms(50));
        let pinged = |action: &&Action| matches!(action, Action::Ping { .. });
        assert_eq!(bench.actions.iter().filter(pinged).count(), 3, "{:?}", bench.actions);
        bench.run(ms(400));
        assert!(!bench.liveness.awaits_answers(bench.now));
        // Gossip has had the time to report a restart.
        let probed = |action: &&Action| matches!(action, Action::TcpProbe { .. });
        assert_eq!(bench.actions.iter().filter(probed).count(), 3, "{:?}", bench.actions);
        let refuse = |bench: &mut Bench| {
            for _ in 0..2 {
                bench.liveness.tcp_probed(&id("b", 1), TcpProbeResult::Refused, bench.now);
            }
        };
        // No peer has answered: this host may be the first one that boots.
        bench.run(ms(2000));
        refuse(&mut bench);
        assert_eq!(bench.reach("b"), Some(Reach::Held));
        bench.run(ms(7000));
        assert_eq!(bench.liveness.partitioned(), None);
        bench.run(ms(1000));
        assert!(bench.liveness.changed() && bench.liveness.partitioned().is_some());
        bench.liveness.heard(&id("a", 1), bench.now);
        assert_eq!(bench.reach("a"), Some(Reach::Alive));
        // A peer has answered, so the refusal counts.
        refuse(&mut bench);
        assert_eq!(bench.reach("b"), Some(gone));
        bench.liveness.restarts(&id("b", 1), bench.now);
        assert_eq!(bench.reach("b"), Some(Reach::Restarting));
    }
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

fn pinged(actions: &[Action]) -> Vec<String> {
    let name = |action: &Action| match action {
        Action::Ping { to, .. } => Some(to.name.to_string()),
        _ => None,
    };
    actions.iter().filter_map(name).collect()
}

#[test]
fn members_without_recent_sign_of_life_are_verified_at_most_every_five_seconds() {
    let names: Vec<String> = (0..40).map(|i| format!("n{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut bench = Bench::new(&names);
    let verify = |bench: &mut Bench| {
        bench.liveness.verify_members(bench.now);
        bench.liveness.heard(&id("n0", 1), bench.now);
        bench.liveness.tick(bench.now);
        let actions: Vec<Action> = bench.liveness.actions().collect();
        for action in &actions {
            if let Action::Ping { to, sequence, .. } = action {
                bench.liveness.acked(to, *sequence, bench.now);
            }
        }
        pinged(&actions)
    };
    let verified = verify(&mut bench);
    assert!((30..40).contains(&verified.len()), "{verified:?}");
    assert!(!verified.contains(&"n0".to_owned()));
    bench.run(ms(4500));
    assert!(verify(&mut bench).len() < 10);
    bench.run(ms(600));
    assert!(verify(&mut bench).len() >= 30);
}

/// The caller may be early, late by less than a stall, or sleep for as long as it is told.
#[test]
fn tick_is_due_at_next_ping_and_sleep_is_no_stall() {
    let mut bench = Bench::new(&["a"]);
    let mut pings = 0;
    for late in [0, 40, 0, 300, 0, 0, 100].iter().cycle().take(70) {
        let due = bench.liveness.due().unwrap();
        bench.liveness.tick(due.checked_sub(ms(10)).unwrap());
        assert_eq!(bench.liveness.actions().count(), 0, "early");
        bench.now = bench.liveness.due().unwrap() + ms(*late);
        bench.liveness.tick(bench.now);
        let actions: Vec<Action> = bench.liveness.actions().collect();
        for action in actions {
            let Action::Ping { to, sequence, .. } = action else { panic!("{action:?}") };
            bench.liveness.acked(&to, sequence, bench.now);
            pings += 1;
        }
    }
    assert_eq!(pings, 70);
    assert_eq!(bench.liveness.stalled, Duration::ZERO);
    // A delay beyond that is a stall, and counts for no peer.
    bench.now = bench.liveness.due().unwrap() + ms(60_000);
    bench.liveness.tick(bench.now);
    assert_eq!(bench.liveness.stalled, ms(60_000));
    assert_eq!(bench.reach("a"), Some(Reach::Alive));
}

#[test]
fn detector_without_peers_waits_for_nothing() {
    let mut bench = Bench::new(&[]);
    assert_eq!(bench.liveness.due(), None);
    bench.now += ms(60_000);
    bench.liveness.tick(bench.now);
    assert_eq!(bench.liveness.due(), None);
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
