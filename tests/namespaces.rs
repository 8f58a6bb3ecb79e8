//! Clusters of the built program in network namespaces: packet loss, one-way links, latency, small MTUs, partitions, and
//! failures of hosts and agents.
//!
//! Invariants are checked throughout: no instance that is healthy and reachable is missing from an answer. Expected
//! changes are awaited; their duration is printed (`--nocapture`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "namespaces/keys.rs"]
mod keys;
mod support;
#[path = "namespaces/zones.rs"]
mod zones;

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    iter,
    net::{Ipv4Addr, UdpSocket},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use support::{
    agent::Agent,
    cluster::{Cluster, GOSSIP, Host, SERVICE, Setup, Watch, address, keygen, wait_until_gone},
    frames::{self, Datagram, Hub},
    namespaces::{Namespace, ip},
    run, skip,
    wait::{DEADLINE, until},
};

/// RFC 8914 code for a stale answer.
const STALE_ANSWER: Option<u16> = Some(3);
/// Exceeds the time in which a crash is detected everywhere.
const SOON: Duration = Duration::from_secs(10);

const SECOND: Duration = Duration::from_secs(1);

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// nftables match for packets from these hosts.
fn from(hosts: &[Host]) -> String {
    let addresses: Vec<String> = hosts.iter().map(|host| host.address.to_string()).collect();
    format!("ip saddr {{ {} }}", addresses.join(", "))
}

/// A service that is healthy while this file exists: without it, `ls` exits with 2, which is critical.
fn flipping(file: &std::path::Path) -> Vec<(String, String)> {
    let text = format!(
        "service: flip\nport: 1\nchecks: [{{exec: [/bin/ls, {}], interval: 200ms, rise: 1, fall: 1}}]\n",
        file.display()
    );
    vec![("flip.yaml".to_owned(), text)]
}

fn answers_flip(cluster: &Cluster, healthy: bool) -> bool {
    cluster.hosts.iter().all(|host| host.ask("flip").is_some_and(|answer| answer.answers.is_empty() != healthy))
}

/// Changes the health of `flip` and waits until each host answers accordingly.
fn flip(cluster: &Cluster, file: &std::path::Path, healthy: bool) -> Duration {
    match healthy {
        true => fs::write(file, "").unwrap(),
        false => fs::remove_file(file).unwrap(),
    }
    until("the changed health is answered everywhere", || answers_flip(cluster, healthy))
}

/// Causes shown by `muster members`, see `model::member::Cause`.
const ENDED: &str = "agent stopped";
const SILENT: &str = "silent and unreachable";
const UNRESPONSIVE: &str = "host responds, agent does not";
const UNREACHABLE: &str = "unreachable, but still sending";
const LEFT: &str = "left the cluster";

/// Waits until these hosts show a node with this state.
#[track_caller]
fn wait_until_reported<'a>(hosts: impl Iterator<Item = &'a Host>, node: &str, why: &str) {
    let hosts: Vec<&Host> = hosts.collect();
    until(&format!("{node} is shown as: {why}"), || {
        hosts.iter().all(|host| host.members().get(node).is_some_and(|state| state == why))
    });
}

#[test]
fn packet_loss_of_a_fifth_removes_no_node() {
    if !skip::namespaces("a fifth of all packets lost") {
        return;
    }
    let folder = run::temp_dir();
    let file = folder.path().join("healthy");
    fs::write(&file, "").unwrap();
    let mut cluster = Cluster::without_agents(5);
    for at in 0..5 {
        let services = if at == 0 { flipping(&file) } else { vec![] };
        cluster.start_agent(at, Setup { services, ..Setup::default() });
    }
    cluster.converge();
    until("all hosts answer the healthy instance", || answers_flip(&cluster, true));
    for host in &cluster.hosts {
        host.namespace.drop_incoming(&["iifname eth0 meta l4proto { tcp, udp } numgen random mod 100 < 20"]);
    }
    let watch = Watch::start(&cluster.hosts, cluster.instances());
    let flips: Vec<Duration> = (0..10).map(|count| flip(&cluster, &file, count % 2 == 1)).collect();
    watch.run_for(20 * SECOND);
    watch.finish();
    let crashed = cluster.hosts[4].take_agent();
    crashed.signal(Signal::SIGKILL);
    let gone = wait_until_gone("web-n5", cluster.others(4));
    println!("at 20 % loss each way: flips {flips:?}, a crash {gone:?}");
}

#[test]
fn broken_link_between_two_nodes_removes_none() {
    if !skip::namespaces("a broken link between two nodes") {
        return;
    }
    let cluster = Cluster::start(4);
    let watch = Watch::start(&cluster.hosts, cluster.instances());
    cluster.hosts[1].namespace.drop_incoming(&[&from(&cluster.hosts[..1])]);
    watch.run_for(7 * SECOND);
    // One direction, then both, then none.
    cluster.hosts[0].namespace.drop_incoming(&[&from(&cluster.hosts[1..2])]);
    watch.run_for(7 * SECOND);
    for host in &cluster.hosts[..2] {
        host.namespace.drop_incoming(&[]);
    }
    cluster.converge();
    watch.finish();
}

#[test]
fn host_that_cannot_send_is_removed_and_removes_none() {
    if !skip::namespaces("a host that cannot send") {
        return;
    }
    let cluster = Cluster::start(4);
    let mute = &cluster.hosts[3];
    let watch = Watch::start([mute], cluster.instances());
    let others = Watch::start(cluster.others(3), names(&["web-n1", "web-n2", "web-n3"]));
    for host in cluster.others(3) {
        host.namespace.drop_incoming(&[&from(&cluster.hosts[3..])]);
    }
    let gone = wait_until_gone("web-n4", cluster.others(3));
    wait_until_reported(cluster.others(3), "n4", SILENT);
    // Time for a false detection.
    watch.run_for(5 * SECOND);
    for host in cluster.others(3) {
        host.namespace.drop_incoming(&[]);
    }
    let back = cluster.converge();
    watch.finish();
    others.finish();
    println!("cannot send: gone {gone:?}, healed {back:?}");
}

#[test]
fn host_that_cannot_receive_is_removed_and_removes_none() {
    if !skip::namespaces("a host that cannot receive") {
        return;
    }
    let cluster = Cluster::start(4);
    let deaf = &cluster.hosts[3];
    let watch = Watch::start([deaf], cluster.instances());
    let others = Watch::start(cluster.others(3), names(&["web-n1", "web-n2", "web-n3"]));
    deaf.namespace.drop_incoming(&["iifname eth0"]);
    let gone = wait_until_gone("web-n4", cluster.others(3));
    until("it marks its answers as stale", || deaf.error(SERVICE) == STALE_ANSWER);
    // Frames of the node keep arriving; they must not revive it.
    others.run_for(5 * SECOND);
    wait_until_reported(cluster.others(3), "n4", UNREACHABLE);
    for host in cluster.others(3) {
        assert_eq!(host.instances(SERVICE), names(&["web-n1", "web-n2", "web-n3"]), "{}", host.node);
    }
    deaf.namespace.drop_incoming(&[]);
    let back = cluster.converge();
    watch.finish();
    others.finish();
    println!("cannot receive: gone {gone:?}, healed {back:?}");
}

/// Two networks with one host each, and a path with a small MTU between them that drops fragments and all ICMP errors.
fn narrow_path() -> (Vec<Namespace>, Host, Host) {
    let (near, far) = (Ipv4Addr::new(10, 78, 1, 2), Ipv4Addr::new(10, 78, 2, 2));
    let [a, left, right, b] = [Namespace::new(), Namespace::new(), Namespace::new(), Namespace::new()];
    left.connect("host", &a, "eth0");
    right.connect("host", &b, "eth0");
    left.connect("path", &right, "path");
    for (router, number, other) in [(&left, 1, 2), (&right, 2, 1)] {
        let name = router.name();
        ip(&format!("-n {name} address add 10.78.{number}.1/24 dev host"));
        ip(&format!("-n {name} address add 10.78.0.{number}/24 dev path"));
        ip(&format!("-n {name} link set path mtu 1400"));
        ip(&format!("-n {name} route add 10.78.{other}.0/24 via 10.78.0.{other}"));
        router.enter(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
        router.drop_at("prerouting", "raw", &["ip frag-off & 0x3fff != 0"]);
        router.drop_at("output", "filter", &["ip protocol icmp"]);
    }
    let (a, b) = (Host::new("a", near, a), Host::new("b", far, b));
    for (host, gateway) in [(&a, "10.78.1.1"), (&b, "10.78.2.1")] {
        ip(&format!("-n {} route add default via {gateway}", host.namespace.name()));
    }
    (vec![left, right], a, b)
}

/// Reports whether a datagram of this length arrives. A short one follows it, so that no timeout is needed.
fn arrives(from: &Host, to: &Host, len: usize) -> bool {
    let (sender, receiver) = (from.socket(), to.socket());
    receiver.set_read_timeout(Some(DEADLINE)).unwrap();
    let address = (to.address, receiver.local_addr().unwrap().port());
    let send = |sender: &UdpSocket, len| sender.send_to(&vec![0; len], address).is_ok();
    assert!(send(&sender, len) && send(&sender, 1));
    receiver.recv(&mut [0; 1 << 16]).unwrap() == len
}

#[test]
fn large_state_passes_a_path_that_drops_fragments() {
    const SERVICES: usize = 20;
    const INSTANCES: usize = 50;
    if !skip::namespaces("a narrow path") {
        return;
    }
    let (_routers, mut a, mut b) = narrow_path();
    for (len, expected) in [(1300, true), (1450, false), (3000, false)] {
        assert_eq!(arrives(&a, &b, len), expected, "a datagram of {len} octets");
    }
    let services = (0..SERVICES).map(|service| {
        let mut text = String::from("services:\n");
        for id in 0..INSTANCES {
            let note = "x".repeat(200);
            text.push_str(&format!("- {{service: s{service}, id: i{id}, port: 1, meta: {{note: {note}}}}}\n"));
        }
        (format!("s{service}.yaml"), text)
    });
    let key = keygen();
    a.start(Setup { key: key.clone(), services: services.collect(), ..Setup::default() });
    b.start(Setup { key, join: vec![a.address], ..Setup::default() });
    let begun = Instant::now();
    let answered = |service: usize| {
        let name = format!("s{service}.service.local.");
        let agent = b.agent();
        b.namespace.enter(|| agent.ask_tcp(&name, 33)).answers.len()
    };
    until("the other host answers all instances", || (0..SERVICES).all(|service| answered(service) == INSTANCES));
    println!("{} instances over the narrow path: {:?}", SERVICES * INSTANCES, begun.elapsed());
}

#[test]
fn latency_of_100_ms_removes_no_node() {
    const DELAY: Duration = Duration::from_millis(100);
    if !skip::namespaces("a delay of 100 ms") {
        return;
    }
    let middle = Namespace::new();
    let key = keygen();
    let mut hosts: Vec<Host> = (1..=3)
        .map(|number| {
            let namespace = Namespace::new();
            namespace.connect("eth0", &middle, &format!("p{number}"));
            // No segmentation offload, so that frames are as short as on a cable: the hub writes no longer ones.
            ip(&format!("-n {} link set eth0 gso_max_segs 1", namespace.name()));
            Host::new(&format!("n{number}"), address(number), namespace)
        })
        .collect();
    let _hub = Hub::start(&middle, &["p1".to_owned(), "p2".to_owned(), "p3".to_owned()], DELAY);
    assert_round_trip(&hosts[0], &hosts[1], 2 * DELAY);
    for host in &mut hosts {
        host.start(Setup { key: key.clone(), join: vec![address(1)], ..Setup::default() });
    }
    let mut cluster = Cluster { hosts, key, bridge: middle };
    let converged = cluster.converge();
    let watch = Watch::start(&cluster.hosts, cluster.instances());
    watch.run_for(15 * SECOND);
    watch.finish();
    let crashed = cluster.hosts[2].take_agent();
    crashed.signal(Signal::SIGKILL);
    println!("100 ms each way: together {converged:?}, a crash {:?}", wait_until_gone("web-n3", cluster.others(2)));
}

/// Asserts that an echo takes at least this long.
fn assert_round_trip(from: &Host, to: &Host, least: Duration) {
    let (near, far) = (from.socket(), to.socket());
    far.set_read_timeout(Some(DEADLINE)).unwrap();
    near.set_read_timeout(Some(DEADLINE)).unwrap();
    let begun = Instant::now();
    near.send_to(b"there", (to.address, far.local_addr().unwrap().port())).unwrap();
    let (_, back) = far.recv_from(&mut [0; 16]).unwrap();
    far.send_to(b"and back", back).unwrap();
    near.recv(&mut [0; 16]).unwrap();
    assert!(begun.elapsed() >= least, "{:?}", begun.elapsed());
}

#[test]
fn stopped_agent_is_removed_after_its_grace_period() {
    if !skip::namespaces("a stopped agent") {
        return;
    }
    let cluster = Cluster::start(4);
    let stopped = &cluster.hosts[3];
    let all = Watch::start(cluster.others(3), cluster.instances());
    stopped.agent().signal(Signal::SIGSTOP);
    all.run_for(2 * SECOND);
    stopped.agent().signal(Signal::SIGCONT);
    // This agent was stopped, not the others.
    let own = Watch::start([stopped], cluster.instances());
    own.run_for(3 * SECOND);
    all.finish();
    let others = Watch::start(cluster.others(3), names(&["web-n1", "web-n2", "web-n3"]));
    own.finish();
    stopped.agent().signal(Signal::SIGSTOP);
    let gone = wait_until_gone("web-n4", cluster.others(3));
    wait_until_reported(cluster.others(3), "n4", UNRESPONSIVE);
    stopped.agent().signal(Signal::SIGCONT);
    let back = cluster.converge();
    others.finish();
    println!("stopped: gone {gone:?}, back {back:?}");
}

#[test]
fn instances_of_ended_agents_are_removed() {
    if !skip::namespaces("ended agents") {
        return;
    }
    let mut cluster = Cluster::start(5);
    let rest = Watch::start(&cluster.hosts[..2], names(&["web-n1", "web-n2"]));
    let end = |cluster: &mut Cluster, how: &str, by: &dyn Fn(&Host)| -> Agent {
        let mut host = cluster.hosts.pop().unwrap();
        by(&host);
        let took = wait_until_gone(&host.instance(), &cluster.hosts);
        println!("{how}: {took:?}");
        assert!(took.iter().all(|took| *took < SOON), "{how}: {took:?}");
        host.take_agent()
    };
    end(&mut cluster, "a crash", &|host| host.agent().signal(Signal::SIGKILL)).wait();
    let mut ended = end(&mut cluster, "an end by SIGTERM", &|host| host.agent().signal(Signal::SIGTERM));
    assert_eq!(ended.wait().code(), Some(0));
    let mut left = end(&mut cluster, "`muster leave`", &|host| drop(host.output_of(&["leave"])));
    assert_eq!(left.wait().code(), Some(0));
    rest.finish();
    for (node, stands) in [("n1", "alive"), ("n2", "alive"), ("n3", LEFT), ("n4", LEFT), ("n5", ENDED)] {
        wait_until_reported(cluster.hosts.iter(), node, stands);
    }
}

#[test]
fn vanished_host_is_removed_and_returns() {
    if !skip::namespaces("a host that vanishes") {
        return;
    }
    let cluster = Cluster::start(5);
    let rest = Watch::start(cluster.others(4), names(&["web-n1", "web-n2", "web-n3", "web-n4"]));
    let lonely = Watch::start(&cluster.hosts[4..], cluster.instances());
    ip(&format!("-n {} link set p5 down", cluster.bridge.name()));
    let gone = wait_until_gone("web-n5", cluster.others(4));
    assert!(gone.iter().all(|took| *took < SOON), "{gone:?}");
    wait_until_reported(cluster.others(4), "n5", SILENT);
    until("it marks its answers as stale", || cluster.hosts[4].error(SERVICE) == STALE_ANSWER);
    ip(&format!("-n {} link set p5 up", cluster.bridge.name()));
    let back = cluster.converge();
    rest.finish();
    lonely.finish();
    println!("vanished host: gone {gone:?}, back {back:?}");
}

#[test]
fn minority_of_a_split_keeps_answering_until_it_heals() {
    if !skip::namespaces("a network that splits") {
        return;
    }
    let cluster = Cluster::start(5);
    let (few, many) = cluster.hosts.split_at(2);
    let few_watched = Watch::start(few, cluster.instances());
    let many_watched = Watch::start(many, names(&["web-n3", "web-n4", "web-n5"]));
    let split = |few_drop: &[&str], many_drop: &[&str]| {
        few.iter().for_each(|host| host.namespace.drop_incoming(few_drop));
        many.iter().for_each(|host| host.namespace.drop_incoming(many_drop));
    };
    split(&[&from(many)], &[&from(few)]);
    let gone = [wait_until_gone("web-n1", many), wait_until_gone("web-n2", many)].concat();
    // `muster status` exits with 1 meanwhile.
    let partitioned = |host: &Host| String::from_utf8_lossy(&host.muster(&["status"]).stdout).contains("\npartition");
    until("the minority reports a partition", || {
        few.iter().all(|host| host.error(SERVICE) == STALE_ANSWER && partitioned(host))
    });
    assert!(many.iter().all(|host| host.error(SERVICE).is_none() && !partitioned(host)));
    split(&[], &[]);
    let back = cluster.converge();
    until("no node reports a partition", || !cluster.hosts.iter().any(partitioned));
    few_watched.finish();
    many_watched.finish();
    println!("two of five split off: gone {gone:?}, healed {back:?}");
}

#[test]
fn key_rotation_interrupts_nothing() {
    if !skip::namespaces("key rotation") {
        return;
    }
    let folder = run::temp_dir();
    let file = folder.path().join("healthy");
    fs::write(&file, "").unwrap();
    let mut cluster = Cluster::without_agents(3);
    for at in 0..3 {
        let services = if at == 1 { flipping(&file) } else { vec![] };
        cluster.start_agent(at, Setup { services, ..Setup::default() });
    }
    cluster.converge();
    until("all hosts answer the healthy instance", || answers_flip(&cluster, true));
    let watch = Watch::start(&cluster.hosts, cluster.instances());
    let (old, new) = (cluster.key.clone(), keygen());
    let operator = &cluster.hosts[0];
    for (count, order) in [["install", &new], ["use", &new], ["remove", &old]].iter().enumerate() {
        operator.output_of(&["keyring", order[0], order[1]]);
        let took = flip(&cluster, &file, count % 2 == 1);
        println!("keyring {}: then a flip took {took:?}", order[0]);
    }
    let listed = operator.output_of(&["keyring", "list"]);
    let lines: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines.len(), 2, "{listed}");
    assert_eq!(lines[1][1..], ["3", "of", "3", "3", "of", "3"], "{listed}");

    // A node with the removed key keeps sending.
    cluster.hosts.push(cluster.connect(4));
    cluster.start_agent(3, Setup::default());
    let counted = || cluster.hosts[0].rejected().get("unknown key").copied().unwrap_or(0);
    let logged = || cluster.hosts[0].agent().log().lines().filter(|line| line.contains("unknown key")).count();
    until("its frames are counted and logged", || counted() >= 3 && logged() > 0);
    assert_eq!(logged(), 1, "{}", cluster.hosts[0].agent().log());
    assert!(cluster.hosts[0].output_of(&["status"]).contains("unknown key"));
    assert_eq!(cluster.hosts[3].members().len(), 1);
    assert!(cluster.hosts[..3].iter().all(|host| host.members().len() == 3));
    cluster.hosts.truncate(3);
    watch.finish();
}

/// A truncated datagram, and one with a flipped bit for each of some bits.
fn spoiled(payload: &[u8]) -> Vec<Vec<u8>> {
    let cut = [0, 1, payload.len() / 2, payload.len() - 1].map(|len| payload[..len].to_vec());
    let turned = (0..8 * payload.len()).step_by(61).map(|bit| {
        let mut payload = payload.to_vec();
        payload[bit / 8] ^= 1 << (bit % 8);
        payload
    });
    cut.into_iter().chain(turned).collect()
}

#[test]
fn packets_without_the_key_are_counted_and_have_no_effect() {
    if !skip::namespaces("packets of strangers") {
        return;
    }
    let cluster = Cluster::start(3);
    let stranger = cluster.connect(9);
    let standing = |host: &Host| -> Vec<String> {
        let members: Vec<serde_json::Value> = serde_json::from_str(&host.output_of(&["members", "--json"])).unwrap();
        members
            .iter()
            .map(|member| {
                format!("{} {} {}", member["Name"], member["Muster"]["Reach"], member["Muster"]["Generation"])
            })
            .collect()
    };
    let before: Vec<Vec<String>> = cluster.hosts.iter().map(standing).collect();
    let watch = Watch::start(&cluster.hosts, cluster.instances());
    let tap = frames::open(&cluster.bridge, "p1");
    let socket = stranger.socket();
    let send = |to: Ipv4Addr, payload: &[u8]| drop(socket.send_to(payload, (to, GOSSIP)));
    let stream = |to: Ipv4Addr, octets: &[u8]| {
        // The refused node has sent several frames.
        let _ = stranger.open(to, GOSSIP).write_all(octets);
    };
    let mut random = fastrand::Rng::with_seed(7);
    let theirs = |datagram: &Datagram| datagram.from != stranger.address && datagram.to != stranger.address;
    let captured = iter::repeat_with(|| frames::next_datagram(&tap, GOSSIP)).filter(theirs).take(100);
    for (round, Datagram { from, to, payload }) in captured.enumerate() {
        // The frame itself, to its receiver and to others.
        for host in [from, to, cluster.hosts[2].address] {
            send(host, &payload);
        }
        for spoiled in spoiled(&payload) {
            send(to, &spoiled);
        }
        let noise: Vec<u8> = (0..random.usize(0..1400)).map(|_| random.u8(..)).collect();
        send(to, &noise);
        if round % 10 == 0 {
            let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
            stream(to, &[&len[..], &payload].concat());
            stream(to, &[&len[..], &payload[1..]].concat());
            stream(to, &[&[0xff; 4], &noise[..]].concat());
            stream(to, &noise);
            stream(to, &[]);
        }
    }
    for host in &cluster.hosts[..2] {
        until("all reasons are counted", || {
            let counted = host.rejected();
            ["foreign", "forged", "replayed"].iter().all(|why| counted.get(*why).is_some_and(|count| *count > 0))
        });
    }
    let rejected: Vec<_> = cluster.hosts.iter().map(Host::rejected).collect();
    assert!(rejected[2].contains_key("for another run"), "{:?}", rejected[2]);
    let after: Vec<Vec<String>> = cluster.hosts.iter().map(standing).collect();
    assert_eq!(after, before);
    watch.finish();
    println!("strangers: {rejected:?}");
}

#[test]
fn node_with_a_new_address_rejoins_by_remembered_peers() {
    if !skip::namespaces("a node with a new address") {
        return;
    }
    let mut cluster = Cluster::start(3);
    let rest = Watch::start(&cluster.hosts[..2], names(&["web-n1", "web-n2"]));
    let peers = cluster.hosts[2].agent().path("data/peers");
    let remembered = || {
        fs::read_to_string(&peers)
            .is_ok_and(|text| text.contains(&address(1).to_string()) || text.contains(&address(2).to_string()))
    };
    until("it remembers a peer", remembered);
    let kept = run::temp_dir();
    let data = kept.path().join("data");
    let mut before = cluster.hosts.pop().unwrap();
    let mut crashed = before.take_agent();
    crashed.signal(Signal::SIGKILL);
    crashed.wait();
    fs::rename(crashed.path("data"), &data).unwrap();
    let mut moved = cluster.connect(4);
    moved.node = "n3".to_owned();
    moved.start(Setup { key: cluster.key.clone(), data: Some(data), ..Setup::default() });
    cluster.hosts.push(moved);
    let back = until("all know its new address", || {
        cluster.hosts.iter().all(|host| {
            let members = host.output_of(&["members"]);
            members.contains("10.77.0.4:7946") && !members.contains("10.77.0.3:7946")
        })
    });
    cluster.converge();
    rest.finish();
    println!("back at a new address: {back:?}");
}

#[test]
fn crashed_node_without_data_rejoins_at_once() {
    if !skip::namespaces("a node that crashed and lost its data") {
        return;
    }
    let mut cluster = Cluster::start(3);
    let rest = Watch::start(cluster.others(2), names(&["web-n1", "web-n2"]));
    let crashed = cluster.hosts[2].take_agent();
    crashed.signal(Signal::SIGKILL);
    drop(crashed);
    // A new service, which cannot be left over from the previous run.
    let services = vec![("new.yaml".to_owned(), "service: new\nport: 1\n".to_owned())];
    cluster.start_agent(2, Setup { services, ..Setup::default() });
    let back =
        until("all answer the new service", || cluster.hosts.iter().all(|host| !host.instances("new").is_empty()));
    cluster.converge();
    rest.finish();
    println!("back after a crash, without its data: {back:?}");
}

#[test]
fn name_stays_with_its_holder() {
    if !skip::namespaces("a name that is taken") {
        return;
    }
    let cluster = Cluster::start(3);
    let watch = Watch::start(&cluster.hosts, cluster.instances());
    let mut second = cluster.connect(4);
    second.node = "n3".to_owned();
    second.start(Setup { key: cluster.key.clone(), ..Setup::default() });
    // The node ends during the join or shortly after it.
    second.muster(&["join", "10.77.0.1"]);
    let mut ended = second.take_agent();
    assert_eq!(ended.wait().code(), Some(2), "{}", ended.log());
    assert!(
        ended.log().contains("the name n3 belongs to another node of the cluster, which gossips at 10.77.0.3:7946"),
        "{}",
        ended.log()
    );
    watch.finish();
    for host in &cluster.hosts {
        assert!(host.output_of(&["members"]).contains("10.77.0.3:7946"));
    }
}
