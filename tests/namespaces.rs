//! The built program on hosts of its own: network namespaces whose links lose, cut and delay.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use support::namespaces::{Agent, Network, address, possible, relay, run, throughout, until, until_all};

const fn s(number: u64) -> Duration {
    Duration::from_secs(number)
}

/// The agents without one.
fn but(agents: &[Agent], without: usize) -> Vec<&Agent> {
    agents.iter().enumerate().filter(|(at, _)| *at != without).map(|(_, agent)| agent).collect()
}

/// Every fifth packet is lost, of UDP and TCP alike: nobody is taken for dead, and who is dead is found.
#[test]
fn loss_takes_nobody_away() {
    if !possible("loss") {
        return;
    }
    let network = Network::new(5);
    let agents = network.start_all();
    (1..=5).for_each(|host| network.lose(host, 20));
    throughout(s(20), &agents, &[1, 2, 3, 4, 5]);
    fs::write(agents[1].folder.join("services.d/web.yaml"), "service: web\nid: web-2\nport: 80\nenabled: false\n")
        .unwrap();
    until_all(&agents, &[1, 3, 4, 5]);
    agents[2].signal(Signal::SIGKILL);
    let took = until_all(but(&agents, 2), &[1, 4, 5]);
    eprintln!("kill -9 at 20 % loss: {took:?}");
}

#[test]
fn a_way_that_is_broken_in_one_direction() {
    if !possible("one-way cuts") {
        return;
    }
    let network = Network::new(5);
    let agents = network.start_all();
    // Between two: the others know better.
    network.drop_from(2, &[1]);
    throughout(s(8), &agents, &[1, 2, 3, 4, 5]);
    network.pass(2);

    // Host 3 hears nobody: it is taken away, and itself goes on with what it knew.
    network.drop_from(3, &[1, 2, 4, 5]);
    until_all(but(&agents, 2), &[1, 2, 4, 5]);
    until("host 3 marks its answers", || agents[2].ask().is_some_and(|answer| answer.said == Some(3)));
    network.pass(3);
    until_all(&agents, &[1, 2, 3, 4, 5]);

    // Nobody hears host 4.
    [1, 2, 3, 5].into_iter().for_each(|host| network.drop_from(host, &[4]));
    until_all(but(&agents, 3), &[1, 2, 3, 5]);
    [1, 2, 3, 5].into_iter().for_each(|host| network.pass(host));
    until_all(&agents, &[1, 2, 3, 4, 5]);
}

/// Host 1 and host 2 with a router between them, which is host 0 of the network.
fn routed() -> Network {
    let network = Network::empty(2);
    let [router, one, two] = [0, 1, 2].map(|host| network.namespace(host));
    let lines = [
        format!("netns add {router}"),
        format!("netns add {one}"),
        format!("netns add {two}"),
        format!("-n {router} link add r1 type veth peer name eth0 netns {one}"),
        format!("-n {router} link add r2 type veth peer name eth0 netns {two}"),
        format!("-n {router} address add 10.77.0.101/32 dev r1"),
        format!("-n {router} address add 10.77.0.102/32 dev r2"),
        format!("-n {router} link set lo up"),
        format!("-n {router} link set r1 up"),
        format!("-n {router} link set r2 up"),
        format!("-n {router} route add 10.77.0.1/32 dev r1"),
        format!("-n {router} route add 10.77.0.2/32 dev r2"),
        format!("-n {one} address add 10.77.0.1/32 dev eth0"),
        format!("-n {two} address add 10.77.0.2/32 dev eth0"),
        format!("-n {one} link set lo up"),
        format!("-n {two} link set lo up"),
        format!("-n {one} link set eth0 up"),
        format!("-n {two} link set eth0 up"),
        format!("-n {one} route add 10.77.0.101/32 dev eth0"),
        format!("-n {two} route add 10.77.0.102/32 dev eth0"),
        format!("-n {one} route add default via 10.77.0.101"),
        format!("-n {two} route add default via 10.77.0.102"),
    ];
    for line in lines {
        run("ip", &line.split(' ').collect::<Vec<_>>(), "");
    }
    run("ip", &["netns", "exec", &router, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"], "");
    network
}

/// 2,000 instances reach a node behind a link of 1,400 octets that swallows fragments and tells nobody.
#[test]
fn a_large_state_passes_a_narrow_link_that_swallows_fragments() {
    if !possible("a narrow link") {
        return;
    }
    let network = routed();
    let router = network.namespace(0);
    for link in ["r1", "r2"] {
        run("ip", &["-n", &router, "link", "set", link, "mtu", "1400"], "");
    }
    network.filter(
        0,
        "chain f { type filter hook forward priority 0; ip frag-off & 0x3fff != 0 drop; }\n\
         chain o { type filter hook output priority 0; icmp type destination-unreachable drop; }",
    );
    // That it does: 1,000 octets pass, 3,000 do not.
    let receiver = network.inside(2, || UdpSocket::bind("10.77.0.2:9").unwrap());
    receiver.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let sender = network.inside(1, || UdpSocket::bind("10.77.0.1:0").unwrap());
    let mut buffer = [0; 4096];
    // What is sent first may be lost to the search for the neighbour's address.
    until("a small datagram passes", || {
        sender.send_to(&[0; 1000], "10.77.0.2:9").unwrap();
        receiver.recv(&mut buffer).is_ok()
    });
    while receiver.recv(&mut buffer).is_ok() {}
    for _ in 0..3 {
        let _ = sender.send_to(&[0; 3000], "10.77.0.2:9");
        assert!(receiver.recv(&mut buffer).is_err(), "fragments pass");
    }

    fs::create_dir_all(network.folder.path().join("1/services.d")).unwrap();
    for file in 0..20 {
        let mut text = "services:\n".to_owned();
        for number in 0..100 {
            text.push_str(&format!("  - {{service: s{file}, id: s{file}-{number}, port: {}}}\n", 1000 + number));
        }
        fs::write(network.folder.path().join(format!("1/services.d/many-{file}.yaml")), text).unwrap();
    }
    let agents = [network.start(1), network.start(2)];
    let took = until_all(&agents, &[1, 2]);
    let all = until("host 2 knows 2,001 instances", || {
        let members = agents[1].json(&["members"]);
        members
            .as_array()
            .unwrap()
            .iter()
            .any(|member| member["Name"] == "host-1" && member["Muster"]["Instances"] == 2001)
    });
    eprintln!("met after {took:?}, 2,000 instances after {all:?} more");
    until("and answers them", || {
        agents[1].ask_for("s19-99.s19.service.local.").is_some_and(|answer| answer.hosts.len() == 1)
    });
}

/// 100 ms each way.
#[test]
fn a_slow_link_is_no_failure() {
    if !possible("a slow link") {
        return;
    }
    let network = routed();
    // What goes to the other host's gossip port is caught by the router, held and passed on by itself.
    network.filter(
        0,
        "chain d { type nat hook prerouting priority -100;\n\
         iifname \"r1\" ip daddr 10.77.0.2 meta l4proto { tcp, udp } th dport 7946 dnat ip to 10.77.0.101:9001\n\
         iifname \"r2\" ip daddr 10.77.0.1 meta l4proto { tcp, udp } th dport 7946 dnat ip to 10.77.0.102:9002\n}",
    );
    for (listen, to) in [("10.77.0.101:9001", "10.77.0.2:7946"), ("10.77.0.102:9002", "10.77.0.1:7946")] {
        let to: SocketAddr = to.parse().unwrap();
        let (udp, tcp, out) = network.inside(0, move || {
            (
                UdpSocket::bind(listen).unwrap(),
                TcpListener::bind(listen).unwrap(),
                UdpSocket::bind("0.0.0.0:0").unwrap(),
            )
        });
        let path = format!("/run/netns/{}", network.namespace(0));
        let connect = move || -> TcpStream {
            let path = path.clone();
            let inside = thread::spawn(move || {
                use nix::sched::{CloneFlags, setns};
                setns(fs::File::open(path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
                TcpStream::connect(to).unwrap()
            });
            inside.join().unwrap()
        };
        relay(udp, tcp, out, to, Duration::from_millis(100), connect);
    }
    let agents = [network.start(1), network.start(2)];
    until_all(&agents, &[1, 2]);
    throughout(s(15), &agents, &[1, 2]);
    assert_eq!(agents[0].reach(2).as_deref(), Some("alive"));
}

#[test]
fn a_stop_of_two_seconds_is_no_failure_and_a_long_one_is() {
    if !possible("stops") {
        return;
    }
    let network = Network::new(5);
    let agents = network.start_all();
    for round in 0..2 {
        agents[round].signal(Signal::SIGSTOP);
        throughout(s(2), but(&agents, round), &[1, 2, 3, 4, 5]);
        agents[round].signal(Signal::SIGCONT);
        throughout(s(3), but(&agents, round), &[1, 2, 3, 4, 5]);
    }
    // Two at once.
    [3, 4].iter().for_each(|at| agents[*at].signal(Signal::SIGSTOP));
    throughout(s(2), &agents[..3], &[1, 2, 3, 4, 5]);
    [3, 4].iter().for_each(|at| agents[*at].signal(Signal::SIGCONT));
    throughout(s(3), &agents[..3], &[1, 2, 3, 4, 5]);

    agents[4].signal(Signal::SIGSTOP);
    let took = until_all(&agents[..4], &[1, 2, 3, 4]);
    agents[4].signal(Signal::SIGCONT);
    let back = until_all(&agents, &[1, 2, 3, 4, 5]);
    eprintln!("stopped for good: gone after {took:?}, back after {back:?}");
}

#[test]
fn whoever_ends_leaves_the_answers_in_time() {
    if !possible("ends") {
        return;
    }
    let network = Network::new(5);
    let mut agents = network.start_all();
    let killed = agents.pop().unwrap();
    killed.signal(Signal::SIGKILL);
    let kill = until_all(&agents, &[1, 2, 3, 4]);
    let stopped = agents.pop().unwrap();
    stopped.signal(Signal::SIGTERM);
    let stop = until_all(&agents, &[1, 2, 3]);
    assert_eq!(stopped.ended(), Some(0));
    let left = agents.pop().unwrap();
    assert!(left.muster(&["leave"]).status.success());
    let leave = until_all(&agents, &[1, 2]);
    assert_eq!(left.ended(), Some(0));
    assert_eq!(agents[0].reach(3).as_deref(), Some("left"));
    eprintln!("kill -9: {kill:?}, SIGTERM: {stop:?}, leave: {leave:?}");

    // One that comes back under its name, with nobody to join but what it remembers.
    let back = network.start_with(4, "join: []", &network.key);
    agents.push(back);
    until_all(&agents, &[1, 2, 4]);
}

#[test]
fn the_smaller_side_of_a_split_goes_on_and_says_so() {
    if !possible("a split") {
        return;
    }
    let network = Network::new(5);
    let agents = network.start_all();
    let (large, small) = ([1, 2, 3], [4, 5]);
    let split = Instant::now();
    large.iter().for_each(|host| network.drop_from(*host, &small));
    small.iter().for_each(|host| network.drop_from(*host, &large));
    until_all(&agents[..3], &large);
    let marked = |agent: &Agent| agent.ask().is_some_and(|answer| answer.hosts.len() == 5 && answer.said == Some(3));
    until("the smaller side marks its answers", || agents[3..].iter().all(marked));
    eprintln!("split: settled after {:?}", split.elapsed());
    let says_so = || {
        String::from_utf8_lossy(&agents[3].muster(&["status"]).stdout).contains(
            "
partition ",
        )
    };
    until("status says so", says_so);
    assert_eq!(agents[3].reach(1).as_deref(), Some("held"));
    assert!(agents[3].log().contains("WARN is out of reach"), "{}", agents[3].log());
    let healed = Instant::now();
    (1..=5).for_each(|host| network.pass(host));
    until_all(&agents, &[1, 2, 3, 4, 5]);
    eprintln!("healed: converged after {:?}", healed.elapsed());
    until("status says so no more", || !says_so());
}

#[test]
fn keys_are_changed_under_traffic_and_the_old_one_is_worth_nothing() {
    if !possible("keys") {
        return;
    }
    let network = Network::new(4);
    let agents: Vec<Agent> = (1..=3).map(|host| network.start(host)).collect();
    until_all(&agents, &[1, 2, 3]);
    let key = network.folder.path().join("new");
    let made = agents[0].muster(&["keygen"]).stdout;
    fs::write(&key, &made).unwrap();
    let new = String::from_utf8(made).unwrap().trim().to_owned();
    let ids = |agent: &Agent| -> Vec<String> {
        agent.json(&["keyring", "list"])[0]["Keys"].as_object().unwrap().keys().cloned().collect()
    };
    let old = ids(&agents[0]).remove(0);
    let over = Arc::new(AtomicBool::new(false));
    thread::scope(|scope| {
        let (changing, stop) = (&agents, over.clone());
        scope.spawn(move || {
            for order in [["install", new.as_str()], ["use", new.as_str()], ["remove", old.as_str()]] {
                let output = changing[1].muster(&["keyring", order[0], order[1]]);
                assert!(output.status.success(), "{order:?}: {output:?}");
                thread::sleep(s(1));
            }
            thread::sleep(s(2));
            stop.store(true, Ordering::Relaxed);
        });
        // Nobody is missing at any time.
        while !over.load(Ordering::Relaxed) {
            throughout(Duration::from_millis(200), &agents, &[1, 2, 3]);
        }
    });
    assert_eq!(ids(&agents[2]).len(), 1);

    // The old key is in the file that a new node starts with: it is not let in, and the others say so.
    let stranger = network.start(4);
    let counted =
        |agent: &Agent| agent.json(&["status"])["Muster"]["Rejected"]["unknown key"].as_u64().unwrap_or(0) > 0;
    until("it is counted", || counted(&agents[0]) || counted(&agents[1]));
    until_all([&stranger], &[4]);
    throughout(s(2), &agents, &[1, 2, 3]);
    let lines = agents[0].log().matches("gossip that was not let in").count();
    assert!(lines <= 1, "{lines} lines");
    drop(stranger);
    // With the new one it is, as soon as it starts again.
    let friend = network.start_with(4, "join: [10.77.0.1]", &key);
    until_all(agents.iter().chain([&friend]), &[1, 2, 3, 4]);
}

#[test]
fn what_strangers_send_changes_nothing() {
    if !possible("strangers") {
        return;
    }
    let network = Network::new(4);
    let agents: Vec<Agent> = (1..=3).map(|host| network.start(host)).collect();
    until_all(&agents, &[1, 2, 3]);
    let flood = || {
        use std::io::Write;
        let mut rng = fastrand::Rng::with_seed(7);
        let udp = UdpSocket::bind("10.77.0.4:0").unwrap();
        for round in 0..20_000_usize {
            let len = rng.usize(..1400);
            let mut octets: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(len).collect();
            // Some look like frames, up to where they would be opened.
            if let (0, Some(head)) = (round % 2, octets.get_mut(..2)) {
                head.copy_from_slice(&[0xa1, rng.u8(..4)]);
            }
            let _ = udp.send_to(&octets, (address(1 + round % 3).as_str(), 7946));
            if round % 100 == 0
                && let Ok(mut stream) = TcpStream::connect((address(1 + round % 3).as_str(), 7946))
            {
                let _ = stream.write_all(&(octets.len() as u32).to_be_bytes());
                let _ = stream.write_all(&octets);
            }
        }
    };
    thread::scope(|scope| {
        let strangers = scope.spawn(|| network.inside(4, flood));
        throughout(s(3), &agents, &[1, 2, 3]);
        strangers.join().unwrap();
    });
    throughout(s(2), &agents, &[1, 2, 3]);
    for agent in &agents {
        let rejected = agent.json(&["status"])["Muster"]["Rejected"].clone();
        assert!(rejected["foreign"].as_u64().unwrap_or(0) > 0, "{rejected}");
        assert_eq!(agent.json(&["members"]).as_array().unwrap().len(), 3);
        let lines = agent.log().matches("gossip that was not let in").count();
        assert_eq!(lines, 1, "{}", agent.log());
    }
}
