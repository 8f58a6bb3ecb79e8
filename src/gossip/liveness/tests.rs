//! Each rule by hand-made events. What follows from them together is in `simulation`.

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

/// The node `own`, with a clock that goes in ticks of 50 ms, and peers that ack unless they are `mute`.
struct Bench {
    liveness: Liveness,
    now: Duration,
    mute: Vec<&'static str>,
    /// What it wanted, pings that were acked aside.
    wanted: Vec<Action>,
}

impl Bench {
    /// All of them have been answering for some time.
    fn new(peers: &[&str]) -> Self {
        let settings = Settings { interval: ms(200), hold: ms(60_000) };
        let liveness = Liveness::new(id("own", 1), settings, fastrand::Rng::with_seed(1));
        let mut bench = Self { liveness, now: ms(10_000), mute: vec![], wanted: vec![] };
        for (i, peer) in peers.iter().enumerate() {
            bench.liveness.learn(&id(peer, 1), address(i as u8 + 1), bench.now);
            bench.liveness.heard(&id(peer, 1), bench.now);
        }
        bench.run(ms(1000));
        bench.wanted.clear();
        bench
    }

    /// Each tick, and the acks to its pings.
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
                    _ => self.wanted.push(action),
                }
            }
        }
    }

    /// As `run`, while each ask for `target` is answered with the finding, each knock so.
    fn run_with(&mut self, time: Duration, target: &str, finding: Option<Finding>, knock: TcpProbeResult) {
        let until = self.now + time;
        while self.now < until {
            self.run(ms(50));
            for action in std::mem::take(&mut self.wanted) {
                match (&action, finding) {
                    (Action::Ask { by, target, sequence, .. }, Some(finding)) => {
                        self.liveness.told(by, target, *sequence, finding, self.now);
                    }
                    (Action::Knock { peer, .. }, _) if peer.name.as_str() == target => {
                        self.liveness.knocked(peer, knock, self.now);
                    }
                    (Action::Announce(_) | Action::Conflict { .. }, _) => self.wanted.push(action),
                    _ => {}
                }
            }
        }
    }

    fn reach(&self, name: &str) -> Option<Reach> {
        self.liveness.peers().find(|peer| peer.id.name.as_str() == name).map(|peer| peer.reach)
    }

    fn verdict(&mut self, name: &str, cause: Cause) {
        self.liveness.verdict(&Verdict { subject: id(name, 1), cause }, self.now);
    }
}

const FOUR: &[&str] = &["a", "b", "c", "d"];

#[test]
fn the_verdict_follows_from_the_evidence() {
    use Finding::{Answers, Listens, Nothing};
    // What others find, how knocks go, whether heartbeats come; how it stands after 1, 2 and 6 seconds.
    let alive = Reach::Alive;
    let suspect = Reach::Suspect;
    let gone = Reach::Gone;
    let cases: &[(Option<Finding>, TcpProbeResult, bool, [Reach; 3])] = &[
        (None, TcpProbeResult::Refused, false, [gone(Cause::Refused); 3]),
        (Some(Nothing), TcpProbeResult::Refused, false, [gone(Cause::Refused); 3]),
        (Some(Nothing), TcpProbeResult::Silent, false, [suspect, gone(Cause::Silent), gone(Cause::Silent)]),
        // Nobody says that it cannot be reached.
        (None, TcpProbeResult::Silent, false, [suspect; 3]),
        (Some(Answers), TcpProbeResult::Silent, false, [alive; 3]),
        (Some(Listens), TcpProbeResult::Silent, false, [suspect, suspect, gone(Cause::Hung)]),
        (Some(Nothing), TcpProbeResult::Accepted, false, [suspect, suspect, gone(Cause::Hung)]),
        (Some(Nothing), TcpProbeResult::Silent, true, [suspect, suspect, gone(Cause::Deaf)]),
        (Some(Nothing), TcpProbeResult::Accepted, true, [suspect, suspect, gone(Cause::Deaf)]),
        (None, TcpProbeResult::Silent, true, [suspect; 3]),
    ];
    for (finding, knock, beats, expected) in cases {
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
                bench.run_with(ms(200), "a", *finding, *knock);
            }
            let context = format!("{finding:?}, {knock:?}, heartbeats {beats}, after {after}");
            assert_eq!(bench.reach("a"), Some(*expected), "{context}");
        }
        let announced = bench.wanted.iter().filter(|action| matches!(action, Action::Announce(_))).count();
        let times = if matches!(expected[2], Reach::Gone(_)) { TIMES as usize } else { 0 };
        assert_eq!(announced, times, "{finding:?}, {knock:?}, heartbeats {beats}");
    }
}

#[test]
fn what_is_only_mentioned_is_no_member() {
    let mut bench = Bench::new(FOUR);
    bench.mute.extend(["e", "f"]);
    bench.liveness.learn(&id("e", 1), address(9), bench.now);
    bench.liveness.heartbeat(&id("e", 1), 1000, bench.now);
    bench.run(ms(5000));
    assert_eq!(bench.reach("e"), None);
    // A rising heartbeat is a sign of life, one step is not.
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
fn an_order_to_forget_is_followed_where_the_peer_does_not_live() {
    let mut bench = Bench::new(FOUR);
    let name = |text: &str| id(text, 1).name;
    bench.verdict("a", Cause::Dismissed);
    assert_eq!(bench.reach("a"), Some(Reach::Alive), "it answers us");
    assert_eq!(bench.liveness.dismiss(&name("a"), bench.now), Err(Some(Reach::Alive)));
    assert_eq!(bench.liveness.dismiss(&name("nobody"), bench.now), Err(None));
    for by_order in [true, false] {
        bench.mute.push("a");
        bench.run(ms(450));
        bench.verdict("a", Cause::Silent);
        assert_eq!(bench.reach("a"), Some(Reach::Gone(Cause::Silent)));
        bench.wanted.clear();
        if by_order {
            assert_eq!(bench.liveness.dismiss(&name("a"), bench.now), Ok(()));
            bench.run(ms(2000));
            let told = Action::Announce(Verdict { subject: id("a", 1), cause: Cause::Dismissed });
            assert_eq!(bench.wanted.iter().filter(|action| **action == told).count(), TIMES as usize);
        } else {
            bench.verdict("a", Cause::Dismissed);
            bench.run(ms(2000));
        }
        assert_eq!(bench.reach("a"), Some(Reach::Gone(Cause::Dismissed)));
        // A sign of life undoes it.
        bench.mute.clear();
        bench.liveness.heard(&id("a", 1), bench.now);
        assert_eq!(bench.reach("a"), Some(Reach::Alive));
        bench.run(ms(2000));
    }
    bench.liveness.left(&id("a", 1), bench.now);
    bench.verdict("a", Cause::Dismissed);
    assert_eq!(bench.reach("a"), Some(Reach::Gone(Cause::Left)), "a good-bye stays one");
}

#[test]
fn who_is_gone_comes_back_by_what_is_new() {
    let mut bench = Bench::new(FOUR);
    let ping = |bench: &Bench| sequence(bench.now);
    // A frame that was under way does not count, a later one does.
    bench.mute.push("a");
    bench.run(ms(450));
    let before = ping(&bench);
    bench.verdict("a", Cause::Silent);
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

    // One that is deaf is heard all the time; only an ack counts.
    bench.mute.push("b");
    bench.run(ms(450));
    bench.verdict("b", Cause::Deaf);
    bench.now += ms(100);
    bench.liveness.heard(&id("b", 1), bench.now);
    assert_eq!(bench.reach("b"), Some(Reach::Gone(Cause::Deaf)));
    bench.liveness.acked(&id("b", 1), ping(&bench), bench.now);
    assert_eq!(bench.reach("b"), Some(Reach::Alive));

    // Who left is back only as a new run.
    bench.liveness.left(&id("c", 1), bench.now);
    bench.now += ms(500);
    bench.liveness.heard(&id("c", 1), bench.now);
    bench.liveness.acked(&id("c", 1), ping(&bench), bench.now);
    assert_eq!(bench.reach("c"), Some(Reach::Gone(Cause::Left)));
    bench.liveness.learn(&id("c", 2), address(3), bench.now);
    assert_eq!(bench.reach("c"), Some(Reach::Alive));
}

/// Something on the way refuses connections, while the peer lives.
#[test]
fn a_refusal_that_was_wrong_is_not_believed_again() {
    let mut bench = Bench::new(FOUR);
    bench.mute.push("a");
    bench.run_with(ms(500), "a", None, TcpProbeResult::Refused);
    assert_eq!(bench.reach("a"), Some(Reach::Gone(Cause::Refused)));
    bench.liveness.heard(&id("a", 1), bench.now);
    assert_eq!(bench.reach("a"), Some(Reach::Alive));
    bench.run_with(ms(2000), "a", None, TcpProbeResult::Refused);
    assert_eq!(bench.reach("a"), Some(Reach::Suspect));
    bench.run_with(ms(2000), "a", Some(Finding::Nothing), TcpProbeResult::Refused);
    assert_eq!(bench.reach("a"), Some(Reach::Gone(Cause::Silent)));
}

#[test]
fn one_that_was_deaf_is_asked_each_second_in_which_it_speaks() {
    let mut bench = Bench::new(&["a", "b", "c", "d"]);
    bench.mute.push("a");
    bench.run(ms(450));
    bench.verdict("a", Cause::Deaf);
    bench.wanted.clear();
    for _ in 0..40 {
        bench.liveness.heard(&id("a", 1), bench.now);
        bench.run(ms(50));
    }
    let asked = bench.wanted.iter().filter(|action| matches!(action, Action::Ping { to, .. } if *to == id("a", 1)));
    assert!((2..=3).contains(&asked.count()), "{:?}", bench.wanted);
    // As soon as it hears, it is back.
    bench.mute.clear();
    bench.run(ms(1000));
    bench.liveness.heard(&id("a", 1), bench.now);
    bench.run(ms(50));
    assert_eq!(bench.reach("a"), Some(Reach::Alive));
}

#[test]
fn a_verdict_against_our_own_news_makes_us_look() {
    let mut bench = Bench::new(FOUR);
    // The pings of this tick are acked.
    let acked = |bench: &Bench| bench.liveness.peers[&id("a", 1).name].acked == Some(bench.now);
    while !acked(&bench) {
        bench.run(ms(50));
    }
    bench.verdict("a", Cause::Silent);
    assert_eq!(bench.reach("a"), Some(Reach::Alive));
    // The next is due, and may answer as this one did. That it is refused everywhere is newer.
    bench.now += ms(150);
    bench.verdict("a", Cause::Silent);
    assert_eq!(bench.reach("a"), Some(Reach::Alive));
    bench.verdict("c", Cause::Refused);
    assert_eq!(bench.reach("c"), Some(Reach::Gone(Cause::Refused)));
    // Another run, one of whom we know nothing: ignored.
    bench.liveness.verdict(&Verdict { subject: id("b", 2), cause: Cause::Silent }, bench.now);
    bench.liveness.verdict(&Verdict { subject: id("z", 1), cause: Cause::Silent }, bench.now);
    assert_eq!(bench.reach("b"), Some(Reach::Alive));
    bench.mute.push("a");
    bench.run(ms(450));
    bench.verdict("a", Cause::Silent);
    assert_eq!(bench.reach("a"), Some(Reach::Gone(Cause::Silent)));
}

#[test]
fn a_verdict_on_ourselves_is_refuted_a_few_times() {
    let mut bench = Bench::new(FOUR);
    bench.verdict("own", Cause::Silent);
    bench.verdict("own", Cause::Silent);
    let since = bench.now;
    bench.run(ms(50));
    assert!(bench.wanted.is_empty(), "{:?}", bench.wanted);
    bench.run(ms(1000));
    let refuted = bench.wanted.iter().filter(|action| **action == Action::Refute).count();
    assert_eq!(refuted, TIMES as usize, "since {since:?}");
}

#[test]
fn one_name_at_two_addresses() {
    let mut bench = Bench::new(FOUR);
    let reach = |bench: &Bench| {
        let peer = bench.liveness.peers().find(|peer| peer.id.name.as_str() == "a").unwrap();
        (peer.id.generation, peer.address, peer.reach)
    };
    // An answer that was under way does not say that it still lives.
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
    bench.verdict("a", Cause::Silent);
    bench.liveness.learn(&id("a", 2), address(77), bench.now);
    assert_eq!(reach(&bench), (2, address(77), Reach::Alive));
    // At the same address at once; lower ones never.
    bench.liveness.learn(&id("a", 3), address(77), bench.now);
    bench.liveness.learn(&id("a", 1), address(77), bench.now);
    assert_eq!(reach(&bench), (3, address(77), Reach::Alive));
}

#[test]
fn who_was_stalled_blames_nobody() {
    let mut bench = Bench::new(FOUR);
    bench.now += ms(60_000);
    bench.run(ms(50));
    let states: Vec<_> = bench.liveness.peers().map(|peer| peer.reach).collect();
    assert_eq!(states, [Reach::Alive; 4]);
    assert!(bench.wanted.is_empty(), "{:?}", bench.wanted);
}

#[test]
fn lost_together_is_held_and_what_stays_away_is_gone() {
    let mut bench = Bench::new(FOUR);
    bench.mute.extend(["a", "b", "c", "d"]);
    bench.run_with(ms(2500), "-", None, TcpProbeResult::Silent);
    let knock = |bench: &mut Bench| {
        for name in FOUR {
            bench.liveness.knocked(&id(name, 1), TcpProbeResult::Silent, bench.now);
            bench.liveness.knocked(&id(name, 1), TcpProbeResult::Silent, bench.now);
        }
    };
    knock(&mut bench);
    bench.run(ms(100));
    assert!(FOUR.iter().all(|name| bench.reach(name) == Some(Reach::Held)));
    assert!(bench.liveness.partitioned().is_some());
    assert!(!bench.wanted.iter().any(|action| matches!(action, Action::Announce(_))));
    // Three come back: the fourth is lost alone.
    bench.mute = vec!["a"];
    bench.run(ms(1500));
    assert_eq!(bench.reach("b"), Some(Reach::Alive));
    assert_eq!(bench.reach("a"), Some(Reach::Held));
    assert_eq!(bench.liveness.partitioned(), None);
    bench.run(ms(4500));
    assert_eq!(bench.reach("a"), Some(Reach::Gone(Cause::Silent)));
}

#[test]
fn whoever_asks_is_told() {
    let ask = |bench: &mut Bench, target: &PeerId| {
        bench.liveness.asked(&id("b", 1), address(2), target, 7, bench.now);
        bench.run(ms(150));
        let mut told = vec![];
        for _ in 0..10 {
            let wanted = std::mem::take(&mut bench.wanted);
            told.extend(wanted.into_iter().filter(|action| matches!(action, Action::Tell { .. })));
            bench.run(ms(50));
        }
        let findings = told.into_iter().filter_map(|action| match action {
            Action::Tell { to, sequence, finding, .. } => Some((to, sequence, finding)),
            _ => None,
        });
        findings.collect::<Vec<_>>()
    };
    let told = |finding| vec![(id("b", 1), 7, finding)];
    let mut bench = Bench::new(FOUR);
    assert_eq!(ask(&mut bench, &id("a", 1)), told(Finding::Answers));
    assert_eq!(ask(&mut bench, &id("own", 1)), told(Finding::Answers));
    assert_eq!(ask(&mut bench, &id("unknown", 1)), []);
    assert_eq!(ask(&mut bench, &id("a", 2)), []);
    bench.mute.push("a");
    bench.run(ms(100));
    assert_eq!(ask(&mut bench, &id("a", 1)), told(Finding::Nothing));
}

#[test]
fn what_is_known_is_bounded() {
    let mut bench = Bench::new(FOUR);
    for i in 0..2 * MAX_PEERS {
        bench.liveness.learn(&id(&format!("n{i}"), 1), address(5), bench.now);
    }
    assert!(bench.liveness.peers.len() <= MAX_PEERS);
    assert_eq!(bench.liveness.agenda.len(), bench.liveness.peers.len());
    assert_eq!(bench.reach("a"), Some(Reach::Alive));
    bench.now += ms(50);
    bench.liveness.tick(bench.now);
    assert!(bench.liveness.actions().count() <= 5 * MAX_LOOKS);
}

/// What each node computes from changes is what it would compute from the whole.
#[test]
fn monitors_are_the_same_however_the_members_came() {
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
            let ahead =
                members.iter().filter(|other| *other != member && score(key(other), key(member)) > ours).count();
            assert_eq!(bench.liveness.peers[member].ahead, ahead, "round {round}, {member}");
        }
    }
}
