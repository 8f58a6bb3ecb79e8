//! Clusters of the built program on networks of their own, and what networks do: lose packets, let them through one way
//! only, hold them back, swallow long ones, fall apart. Plus what hosts and operators do.
//!
//! What must never happen is watched the whole time: an answer without an instance that is healthy and reachable. What has
//! to happen is waited for; how long it took is printed (`--nocapture`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

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

/// RFC 8914: what is answered may not be true any more.
const STALE_ANSWER: Option<u16> = Some(3);
/// Much longer than a crash takes to be noticed everywhere.
const SOON: Duration = Duration::from_secs(10);

const SECOND: Duration = Duration::from_secs(1);

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// What comes from these hosts.
fn from(hosts: &[Host]) -> String {
    let addresses: Vec<String> = hosts.iter().map(|host| host.address.to_string()).collect();
    format!("ip saddr {{ {} }}", addresses.join(", "))
}

/// A service that is healthy as long as this file exists: without it `ls` ends with 2, which is critical.
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
    until("a changed health is everywhere", || answers_flip(cluster, healthy))
}

/// What members say of one that is gone, see `model::member::Cause`.
const ENDED: &str = "its agent has ended";
const SILENT: &str = "nothing is heard of it and nobody reaches it";
const HUNG: &str = "its host answers, its agent does not";
const DEAF: &str = "it can be heard and nobody reaches it";
const LEFT: &str = "it left";

/// Waits until this is how these hosts see a node.
#[track_caller]
fn wait_until_said<'a>(hosts: impl Iterator<Item = &'a Host>, node: &str, why: &str) {
    let hosts: Vec<&Host> = hosts.collect();
    until(&format!("{node} stands so: {why}"), || {
        hosts.iter().all(|host| host.members().get(node).is_some_and(|stands| stands == why))
    });
}

#[test]
fn a_fifth_of_all_packets_lost_each_way_removes_nobody() {
    if !skip::namespaces("a fifth of all packets lost") {
        return;
    }
    let folder = run::temp_dir();
    let file = folder.path().join("healthy");
    fs::write(&file, "").unwrap();
    let mut cluster = Cluster::wired(5);
    for at in 0..5 {
        let services = if at == 0 { flipping(&file) } else { vec![] };
        cluster.start_agent(at, Setup { services, ..Setup::default() });
    }
    cluster.converge();
    until("all is healthy", || answers_flip(&cluster, true));
    for host in &cluster.hosts {
        host.namespace.drop_incoming(&["iifname eth0 meta l4proto { tcp, udp } numgen random mod 100 < 20"]);
    }
    let watch = Watch::start(&cluster.hosts, cluster.instances());
    let flips: Vec<Duration> = (0..10).map(|count| flip(&cluster, &file, count % 2 == 1)).collect();
    watch.go_on(20 * SECOND);
    watch.finish();
    let crashed = cluster.hosts[4].take_agent();
    crashed.signal(Signal::SIGKILL);
    let gone = wait_until_gone("web-n5", cluster.others(4));
    println!("at 20 % loss each way: flips {flips:?}, a crash {gone:?}");
}

#[test]
fn a_way_that_is_cut_between_two_removes_nobody() {
    if !skip::namespaces("a way that is cut between two") {
        return;
    }
    let cluster = Cluster::start(4);
    let watch = Watch::start(&cluster.hosts, cluster.instances());
    cluster.hosts[1].namespace.drop_incoming(&[&from(&cluster.hosts[..1])]);
    watch.go_on(7 * SECOND);
    // Both ways, and then none.
    cluster.hosts[0].namespace.drop_incoming(&[&from(&cluster.hosts[1..2])]);
    watch.go_on(7 * SECOND);
    for host in &cluster.hosts[..2] {
        host.namespace.drop_incoming(&[]);
    }
    cluster.converge();
    watch.finish();
}

#[test]
fn a_host_that_nobody_hears_is_removed_and_removes_nobody() {
    if !skip::namespaces("a host that nobody hears") {
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
    wait_until_said(cluster.others(3), "n4", SILENT);
    // It is given the time to make the mistake.
    watch.go_on(5 * SECOND);
    for host in cluster.others(3) {
        host.namespace.drop_incoming(&[]);
    }
    let back = cluster.converge();
    watch.finish();
    others.finish();
    println!("heard by nobody: gone {gone:?}, healed {back:?}");
}

#[test]
fn a_host_that_hears_nobody_is_removed_and_removes_nobody() {
    if !skip::namespaces("a host that hears nobody") {
        return;
    }
    let cluster = Cluster::start(4);
    let deaf = &cluster.hosts[3];
    let watch = Watch::start([deaf], cluster.instances());
    let others = Watch::start(cluster.others(3), names(&["web-n1", "web-n2", "web-n3"]));
    deaf.namespace.drop_incoming(&["iifname eth0"]);
    let gone = wait_until_gone("web-n4", cluster.others(3));
    until("it says that its answers are old", || deaf.error(SERVICE) == STALE_ANSWER);
    // Its frames arrive all the time; that must not bring it back.
    others.go_on(5 * SECOND);
    wait_until_said(cluster.others(3), "n4", DEAF);
    for host in cluster.others(3) {
        assert_eq!(host.instances(SERVICE), names(&["web-n1", "web-n2", "web-n3"]), "{}", host.node);
    }
    deaf.namespace.drop_incoming(&[]);
    let back = cluster.converge();
    watch.finish();
    others.finish();
    println!("hears nobody: gone {gone:?}, healed {back:?}");
}

/// Two networks, each with one host, and a narrow path between them that drops fragments and every word about it.
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

/// Whether a datagram of so many octets arrives. One that does follows it, so that nothing needs waiting for.
fn arrives(from: &Host, to: &Host, len: usize) -> bool {
    let (sender, receiver) = (from.socket(), to.socket());
    receiver.set_read_timeout(Some(DEADLINE)).unwrap();
    let address = (to.address, receiver.local_addr().unwrap().port());
    let send = |sender: &UdpSocket, len| sender.send_to(&vec![0; len], address).is_ok();
    assert!(send(&sender, len) && send(&sender, 1));
    receiver.recv(&mut [0; 1 << 16]).unwrap() == len
}

#[test]
fn a_large_state_passes_a_narrow_path_that_drops_fragments() {
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
    until("the other host answers all", || (0..SERVICES).all(|service| answered(service) == INSTANCES));
    println!("{} instances over the narrow path: {:?}", SERVICES * INSTANCES, begun.elapsed());
}

#[test]
fn a_delay_of_100_ms_each_way_removes_nobody() {
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
            // Frames as they are on a cable: the hub writes none that is longer.
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
    watch.go_on(15 * SECOND);
    watch.finish();
    let crashed = cluster.hosts[2].take_agent();
    crashed.signal(Signal::SIGKILL);
    println!("100 ms each way: together {converged:?}, a crash {:?}", wait_until_gone("web-n3", cluster.others(2)));
}

/// That an echo takes at least so long.
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
fn an_agent_that_is_stopped_is_missed_only_after_a_while() {
    if !skip::namespaces("an agent that is stopped") {
        return;
    }
    let cluster = Cluster::start(4);
    let stopped = &cluster.hosts[3];
    let all = Watch::start(cluster.others(3), cluster.instances());
    stopped.agent().signal(Signal::SIGSTOP);
    all.go_on(2 * SECOND);
    stopped.agent().signal(Signal::SIGCONT);
    // It was away, not the others.
    let own = Watch::start([stopped], cluster.instances());
    own.go_on(3 * SECOND);
    all.finish();
    let others = Watch::start(cluster.others(3), names(&["web-n1", "web-n2", "web-n3"]));
    own.finish();
    stopped.agent().signal(Signal::SIGSTOP);
    let gone = wait_until_gone("web-n4", cluster.others(3));
    wait_until_said(cluster.others(3), "n4", HUNG);
    stopped.agent().signal(Signal::SIGCONT);
    let back = cluster.converge();
    others.finish();
    println!("stopped: gone {gone:?}, back {back:?}");
}

#[test]
fn who_crashes_ends_or_leaves_is_soon_answered_no_more() {
    if !skip::namespaces("who crashes, ends or leaves") {
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
    let mut left = end(&mut cluster, "`muster leave`", &|host| drop(host.said(&["leave"])));
    assert_eq!(left.wait().code(), Some(0));
    rest.finish();
    for (node, stands) in [("n1", "alive"), ("n2", "alive"), ("n3", LEFT), ("n4", LEFT), ("n5", ENDED)] {
        wait_until_said(cluster.hosts.iter(), node, stands);
    }
}

#[test]
fn a_host_that_vanishes_is_removed_and_comes_back() {
    if !skip::namespaces("a host that vanishes") {
        return;
    }
    let cluster = Cluster::start(5);
    let rest = Watch::start(cluster.others(4), names(&["web-n1", "web-n2", "web-n3", "web-n4"]));
    let lonely = Watch::start(&cluster.hosts[4..], cluster.instances());
    ip(&format!("-n {} link set p5 down", cluster.bridge.name()));
    let gone = wait_until_gone("web-n5", cluster.others(4));
    assert!(gone.iter().all(|took| *took < SOON), "{gone:?}");
    wait_until_said(cluster.others(4), "n5", SILENT);
    until("it says that its answers are old", || cluster.hosts[4].error(SERVICE) == STALE_ANSWER);
    ip(&format!("-n {} link set p5 up", cluster.bridge.name()));
    let back = cluster.converge();
    rest.finish();
    lonely.finish();
    println!("a host vanishes: gone {gone:?}, back {back:?}");
}

#[test]
fn a_network_that_splits_keeps_the_smaller_part_answering_and_heals() {
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
    // It exits with 1 meanwhile.
    let partitioned = |host: &Host| String::from_utf8_lossy(&host.muster(&["status"]).stdout).contains("\npartition");
    until("the smaller part says so", || {
        few.iter().all(|host| host.error(SERVICE) == STALE_ANSWER && partitioned(host))
    });
    assert!(many.iter().all(|host| host.error(SERVICE).is_none() && !partitioned(host)));
    split(&[], &[]);
    let back = cluster.converge();
    until("nobody speaks of a partition", || !cluster.hosts.iter().any(partitioned));
    few_watched.finish();
    many_watched.finish();
    println!("two of five split off: gone {gone:?}, healed {back:?}");
}

#[test]
fn keys_are_changed_while_everything_goes_on() {
    if !skip::namespaces("keys are changed") {
        return;
    }
    let folder = run::temp_dir();
    let file = folder.path().join("healthy");
    fs::write(&file, "").unwrap();
    let mut cluster = Cluster::wired(3);
    for at in 0..3 {
        let services = if at == 1 { flipping(&file) } else { vec![] };
        cluster.start_agent(at, Setup { services, ..Setup::default() });
    }
    cluster.converge();
    until("all is healthy", || answers_flip(&cluster, true));
    let watch = Watch::start(&cluster.hosts, cluster.instances());
    let (old, new) = (cluster.key.clone(), keygen());
    let operator = &cluster.hosts[0];
    for (count, order) in [["install", &new], ["use", &new], ["remove", &old]].iter().enumerate() {
        operator.said(&["keyring", order[0], order[1]]);
        let took = flip(&cluster, &file, count % 2 == 1);
        println!("keyring {}: then a flip took {took:?}", order[0]);
    }
    let listed = operator.said(&["keyring", "list"]);
    let lines: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines.len(), 2, "{listed}");
    assert_eq!(lines[1][1..], ["3", "of", "3", "3", "of", "3"], "{listed}");

    // It has the key of before, and knocks where it always did.
    cluster.hosts.push(cluster.wire(4));
    cluster.start_agent(3, Setup::default());
    let counted = || cluster.hosts[0].rejected().get("unknown key").copied().unwrap_or(0);
    let told = || cluster.hosts[0].agent().log().lines().filter(|line| line.contains("unknown key")).count();
    until("its frames are counted, and told", || counted() >= 3 && told() > 0);
    assert_eq!(told(), 1, "{}", cluster.hosts[0].agent().log());
    assert!(cluster.hosts[0].said(&["status"]).contains("unknown key"));
    assert_eq!(cluster.hosts[3].members().len(), 1);
    assert!(cluster.hosts[..3].iter().all(|host| host.members().len() == 3));
    cluster.hosts.truncate(3);
    watch.finish();
}

/// A datagram that is cut, and one for each of some bits that is turned over.
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
fn what_strangers_send_is_counted_and_changes_nothing() {
    if !skip::namespaces("what strangers send") {
        return;
    }
    let cluster = Cluster::start(3);
    let stranger = cluster.wire(9);
    let standing = |host: &Host| -> Vec<String> {
        let members: Vec<serde_json::Value> = serde_json::from_str(&host.said(&["members", "--json"])).unwrap();
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
        // Who is turned away has been heard enough.
        let _ = stranger.open(to, GOSSIP).write_all(octets);
    };
    let mut random = fastrand::Rng::with_seed(7);
    let theirs = |datagram: &Datagram| datagram.from != stranger.address && datagram.to != stranger.address;
    let captured = iter::repeat_with(|| frames::next_datagram(&tap, GOSSIP)).filter(theirs).take(100);
    for (round, Datagram { from, to, payload }) in captured.enumerate() {
        // The frame itself, to whom it was for and to others.
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
        until("everything is counted", || {
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
fn a_node_comes_back_elsewhere_by_what_it_remembers() {
    if !skip::namespaces("a node comes back elsewhere") {
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
    let mut moved = cluster.wire(4);
    moved.node = "n3".to_owned();
    moved.start(Setup { key: cluster.key.clone(), data: Some(data), ..Setup::default() });
    cluster.hosts.push(moved);
    let back = until("all know where it is now", || {
        cluster.hosts.iter().all(|host| {
            let members = host.said(&["members"]);
            members.contains("10.77.0.4:7946") && !members.contains("10.77.0.3:7946")
        })
    });
    cluster.converge();
    rest.finish();
    println!("back elsewhere: {back:?}");
}

#[test]
fn a_node_that_crashed_and_lost_its_data_is_back_at_once() {
    if !skip::namespaces("a node that crashed and lost its data") {
        return;
    }
    let mut cluster = Cluster::start(3);
    let rest = Watch::start(cluster.others(2), names(&["web-n1", "web-n2"]));
    let crashed = cluster.hosts[2].take_agent();
    crashed.signal(Signal::SIGKILL);
    drop(crashed);
    // Something new, so that what is left of the run before is not taken for it.
    let services = vec![("new.yaml".to_owned(), "service: new\nport: 1\n".to_owned())];
    cluster.start_agent(2, Setup { services, ..Setup::default() });
    let back = until("all answer what is new", || cluster.hosts.iter().all(|host| !host.instances("new").is_empty()));
    cluster.converge();
    rest.finish();
    println!("back after a crash, without its data: {back:?}");
}

#[test]
fn a_name_stays_with_the_node_that_has_it() {
    if !skip::namespaces("a name that is taken") {
        return;
    }
    let cluster = Cluster::start(3);
    let watch = Watch::start(&cluster.hosts, cluster.instances());
    let mut second = cluster.wire(4);
    second.node = "n3".to_owned();
    second.start(Setup { key: cluster.key.clone(), ..Setup::default() });
    // It ends while it is asked to join, or a moment later.
    second.muster(&["join", "10.77.0.1"]);
    let mut ended = second.take_agent();
    assert_eq!(ended.wait().code(), Some(2), "{}", ended.log());
    assert!(
        ended.log().contains("another node is called n3 too: the one that gossips at 10.77.0.3:7946"),
        "{}",
        ended.log()
    );
    watch.finish();
    for host in &cluster.hosts {
        assert!(host.said(&["members"]).contains("10.77.0.3:7946"));
    }
}
