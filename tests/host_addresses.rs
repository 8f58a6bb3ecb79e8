//! The addresses of a host in network namespaces: reading them, following their changes, and agents that start on hosts with
//! IPv6 only or without a network.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{
    fs, io,
    net::{IpAddr, TcpListener, UdpSocket},
    path::Path,
    time::{Duration, Instant},
};

use hickory_proto::op::ResponseCode;
use muster::{
    host_addresses,
    model::host_addresses::{Family, HostAddresses},
};
use serde_json::Value;
use support::{
    Ask,
    agent::Agent,
    decode,
    namespaces::{Namespace, ip},
    process::{self, Finish},
    skip,
    wait::{DEADLINE, until, until_equal},
};
use tokio::{runtime, sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

const A: u16 = 1;
const AAAA: u16 = 28;
const WEB: &str = "web.service.local.";
const NODE: &str = "host-a.node.service.local.";

/// Time within which a changed address has to be known.
const SOON: Duration = Duration::from_secs(1);

/// A host whose interfaces `eth0` and `eth1` are connected to a router, without addresses. The router's link-local address is
/// fe80::1.
struct Network {
    host: Namespace,
    router: Namespace,
}

impl Network {
    fn new() -> Self {
        let (host, router) = (Namespace::new(), Namespace::new());
        for end in ["eth0", "eth1"] {
            host.connect(end, &router, end);
            ip(&format!("-n {} address add fe80::1/64 dev {end} nodad", router.name()));
        }
        Self { host, router }
    }

    /// Runs `ip` on the host.
    fn ip(&self, arguments: &str) {
        ip(&format!("-n {} {arguments}", self.host.name()));
    }

    /// Runs several commands of `ip` in one process.
    fn ip_at_once(&self, commands: &str) {
        let output = process::command("ip").args(["-n", self.host.name(), "-batch", "-"]).finish_with(commands);
        assert!(output.status.success(), "{commands}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Returns the addresses that an agent would select, IPv4 and IPv6.
    fn selected(&self) -> [Option<IpAddr>; 2] {
        selected(&self.host.enter(host_addresses::read))
    }

    /// Starts the agent `host-a` with a service `web` on this host.
    fn start(&self, config: &str) -> Agent {
        start_agent(&self.host, "host-a", "web", config)
    }

    /// Starts the agent `peer` with a service `db` on the router, at 10.0.0.1 and fd00::1.
    fn start_peer(&self, listen: &str) -> Agent {
        for address in ["10.0.0.1/24", "fd00::1/64"] {
            let nodad = if address.contains(':') { "nodad" } else { "" };
            ip(&format!("-n {} address add {address} dev eth0 {nodad}", self.router.name()));
        }
        let config = format!("advertise: \"{listen}\"\ngossip: {{listen: \"{listen}\", insecure: true}}");
        start_agent(&self.router, "peer", "db", &config)
    }

    /// Waits until the peer answers `web` with this address, and the host `db`; returns how long that took.
    fn until_joined(&self, agent: &Agent, peer: &Agent, address: &str) -> Duration {
        until(&format!("the peer knows {address}"), || {
            self.router.enter(|| [peer.answers(WEB, A), peer.answers(WEB, AAAA)].concat()) == [address]
                && !self.addresses(agent, "db.service.local.").is_empty()
        })
    }

    /// Returns the answers of an agent on this host to A and AAAA of a name.
    fn addresses(&self, agent: &Agent, name: &str) -> Vec<String> {
        self.host.enter(|| [agent.answers(name, A), agent.answers(name, AAAA)].concat())
    }

    /// Runs a command on this host; returns its exit code and its output.
    fn muster(&self, arguments: &[&str]) -> (i32, String) {
        let mut command = process::muster();
        command.args(arguments);
        let output = self.host.enter(|| command.finish());
        let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), text)
    }
}

/// Starts an agent with one service in a namespace, with DNS on port 53 and the API on port 8500 of loopback.
fn start_agent(namespace: &Namespace, node: &str, service: &str, config: &str) -> Agent {
    let dns = if config.contains("dns:") { "" } else { "dns: {listen: [127.0.0.1:53]}\n" };
    let text = format!(
        "node: {node}\ndata_dir: data\nservices_dir: services.d\nzones_dir: zones\n\
         http: {{listen: [127.0.0.1:8500]}}\nresolver: {{allow: []}}\n{dns}{config}\n"
    );
    let prepare = |folder: &Path| {
        fs::write(folder.join("muster.yaml"), text).unwrap();
        fs::write(folder.join("services.d/own.yaml"), format!("service: {service}\nport: 80\n")).unwrap();
    };
    namespace.enter(|| Agent::start_with("", &[], prepare))
}

/// Queries A of a name; returns the code and the number of answers.
fn ask(server: &str, name: &str) -> (ResponseCode, usize) {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.connect(server).unwrap();
    let query = Ask { name: name.to_owned(), qtype: A, edns: None, dnssec_ok: false }.packet(7);
    socket.send(&query).unwrap();
    let mut reply = [0; 512];
    let len = socket.recv(&mut reply).unwrap();
    let message = decode(&reply[..len]);
    (message.metadata.response_code, message.answers.len())
}

fn selected(host: &HostAddresses) -> [Option<IpAddr>; 2] {
    [Family::Ipv4, Family::Ipv6].map(|family| host.select(family, None))
}

fn parsed(addresses: [&str; 2]) -> [Option<IpAddr>; 2] {
    addresses.map(|address| address.parse().ok())
}

#[test]
fn address_is_the_source_address_of_the_default_route() {
    if !skip::namespaces("the addresses of a host") {
        return;
    }
    let network = Network::new();
    // Commands of `ip`, and the selected addresses after them.
    let steps = [
        ("link set lo up", ["", ""]),
        // On the network of a documentation address, but without a default route.
        ("address add 192.0.2.7/24 dev eth0", ["", ""]),
        ("route add default via 192.0.2.1", ["192.0.2.7", ""]),
        ("address add 192.0.2.8/24 dev eth0", ["192.0.2.7", ""]),
        // The default route moves.
        ("address add 10.1.0.7/24 dev eth1", ["192.0.2.7", ""]),
        ("route replace default via 10.1.0.1", ["10.1.0.7", ""]),
        // A VPN splits the default route into halves.
        ("address add 10.8.0.2/24 dev lo", ["10.1.0.7", ""]),
        ("route add 0.0.0.0/1 dev eth1 src 10.8.0.2", ["10.1.0.7", ""]),
        ("route add 128.0.0.0/1 dev eth1 src 10.8.0.2", ["10.8.0.2", ""]),
        ("route flush 128.0.0.0/1", ["10.1.0.7", ""]),
        ("route add unreachable default metric 1", ["10.1.0.7", ""]),
        ("route del default via 10.1.0.1", ["", ""]),
        // A route, but no other address than the link-local one.
        ("-6 route add default via fe80::1 dev eth0", ["", ""]),
        ("address add fd00::7/64 dev eth0 nodad", ["", "fd00::7"]),
        ("address add 2001:db8:1::7/64 dev eth0 nodad", ["", "2001:db8:1::7"]),
        ("address del fd00::7/64 dev eth0", ["", "2001:db8:1::7"]),
        ("address change 2001:db8:1::7/64 dev eth0 nodad preferred_lft 0", ["", "2001:db8:1::7"]),
    ];
    for (step, expected) in steps {
        network.ip(step);
        assert_eq!(network.selected(), parsed(expected), "after {step}");
    }
}

#[test]
fn tentative_and_temporary_addresses_are_not_selected() {
    if !skip::namespaces("tentative addresses") {
        return;
    }
    let network = Network::new();
    let write = |setting: &str, value: &str| {
        network.host.enter(|| fs::write(Path::new("/proc/sys/net/ipv6/conf/eth0").join(setting), value).unwrap());
    };
    // Duplicate address detection takes a second.
    write("dad_transmits", "2");
    network.ip("-6 route add default via fe80::1 dev eth0");
    network.ip("address add 2001:db8:1::7/64 dev eth0");
    assert_eq!(network.selected(), parsed(["", ""]), "tentative");
    until_equal("valid", &parsed(["", "2001:db8:1::7"]), || network.selected());
    // The kernel prefers the temporary address, which it creates beside a new one.
    write("use_tempaddr", "2");
    write("dad_transmits", "0");
    network.ip("address add 2001:db8:2::7/64 dev eth0 mngtmpaddr");
    network.ip("address del 2001:db8:1::7/64 dev eth0");
    let source = || {
        network.host.enter(|| {
            let socket = UdpSocket::bind("[::]:0").unwrap();
            socket
                .connect("[2001:db8::1]:9")
                .map(|()| socket.local_addr().unwrap().ip().to_string())
                .unwrap_or_default()
        })
    };
    let is_temporary = |address: &str| address.starts_with("2001:db8:2:") && address != "2001:db8:2::7";
    until("the kernel uses the temporary address", || is_temporary(&source()));
    until_equal("the stable address", &parsed(["", "2001:db8:2::7"]), || network.selected());
    assert!(is_temporary(&source()));
}

/// Runs `work` with the followed addresses of the network's host.
fn following<T: Send>(network: &Network, work: impl AsyncFnOnce(&mut watch::Receiver<HostAddresses>) -> T + Send) -> T {
    network.host.enter(|| {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let shutdown = CancellationToken::new();
            let (mut host, following) = host_addresses::follow(shutdown.clone());
            let following = tokio::spawn(following);
            let result = work(&mut host).await;
            shutdown.cancel();
            following.await.unwrap();
            result
        })
    })
}

#[test]
fn changes_of_addresses_routes_and_links_are_published() {
    if !skip::namespaces("changes of addresses") {
        return;
    }
    let network = Network::new();
    let steps = [
        ("address add 10.0.0.7/24 dev eth0\nroute add default via 10.0.0.1\n", ["10.0.0.7", ""]),
        // As in a renewal of a lease with another address.
        (
            "address del 10.0.0.7/24 dev eth0\naddress add 10.0.0.8/24 dev eth0\nroute add default via 10.0.0.1\n",
            ["10.0.0.8", ""],
        ),
        ("address add fd00::8/64 dev eth0 nodad\nroute add ::/0 via fe80::1 dev eth0\n", ["10.0.0.8", "fd00::8"]),
        ("link set eth0 down\n", ["", ""]),
    ];
    let took = following(&network, async |host| {
        assert_eq!(selected(&host.borrow_and_update()), [None, None]);
        let mut took = Vec::new();
        for (commands, expected) in steps {
            let begun = Instant::now();
            network.ip_at_once(commands);
            let known = host.wait_for(|host| selected(host) == parsed(expected));
            timeout(DEADLINE, known).await.unwrap_or_else(|_| panic!("after {commands}")).unwrap();
            took.push(begun.elapsed());
        }
        took
    });
    println!("changes are known after {took:?}");
    assert!(took.iter().all(|took| *took < SOON), "{took:?}");
}

#[test]
fn address_that_returns_at_once_is_no_change() {
    if !skip::namespaces("an address that returns") {
        return;
    }
    let network = Network::new();
    network.ip_at_once("address add 10.0.0.7/24 dev eth0\nroute add default via 10.0.0.1\n");
    let published = following(&network, async |host| {
        host.borrow_and_update();
        let flap =
            "address del 10.0.0.7/24 dev eth0\naddress add 10.0.0.7/24 dev eth0\nroute add default via 10.0.0.1\n";
        network.ip_at_once(&flap.repeat(10));
        tokio::time::sleep(SOON).await;
        assert!(!host.has_changed().unwrap(), "{:?}", host.borrow());
        network.ip("address del 10.0.0.7/24 dev eth0");
        timeout(DEADLINE, host.changed()).await.unwrap().unwrap();
        selected(&host.borrow())
    });
    assert_eq!(published, [None, None]);
}

#[test]
fn host_with_ipv6_only_advertises_its_ipv6_address() {
    if !skip::namespaces("a host with IPv6 only") {
        return;
    }
    let network = Network::new();
    network.ip("address add 2001:db8:1::7/64 dev eth0 nodad");
    network.ip("-6 route add default via fe80::1 dev eth0");
    for config in ["", "gossip: {listen: '[::]', insecure: true}"] {
        let agent = network.start(config);
        assert_eq!(network.addresses(&agent, WEB), ["AAAA 2001:db8:1::7"], "{config}");
        assert_eq!(network.addresses(&agent, NODE), ["AAAA 2001:db8:1::7"], "{config}");
        let (code, text) = network.muster(&["status"]);
        assert_eq!(code, 0, "{text}");
        assert!(text.contains("host-a at 2001:db8:1::7, generation "), "{text}");
        let (code, text) = network.muster(&["validate", agent.path("muster.yaml").to_str().unwrap()]);
        assert!(code == 0 && text.contains("no problems\n"), "{text}");
    }
}

/// The problem of an agent that listens for gossip on IPv4 and has no IPv4 default route.
const NO_IPV4: &str = "no address for other hosts: gossip.listen is 0.0.0.0, and this host has no IPv4 default route";

#[test]
fn wrong_address_family_is_reported_with_the_key_to_change() {
    if !skip::namespaces("gossip on IPv4 on a host with IPv6 only") {
        return;
    }
    let network = Network::new();
    network.ip("address add 2001:db8:1::7/64 dev eth0 nodad");
    network.ip("-6 route add default via fe80::1 dev eth0");
    let mut agent = network.start("gossip: {listen: 0.0.0.0, insecure: true}");
    let hint = "this host has the address 2001:db8:1::7: set `gossip.listen` to `[::]`, or set `advertise`";
    agent.wait_for_log(NO_IPV4);
    assert!(agent.log().contains(hint), "{}", agent.log());
    let (code, text) = network.muster(&["status"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains(&format!("problem     {NO_IPV4} ({hint})\n")), "{text}");
    let path = agent.path("muster.yaml");
    let (code, text) = network.muster(&["validate", path.to_str().unwrap()]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains(&format!("{}:1:1: warning: {NO_IPV4} ({hint})\n", path.display())), "{text}");
}

#[test]
fn agent_without_a_network_serves_its_own_names_and_sends_nothing() {
    if !skip::namespaces("an agent without a network") {
        return;
    }
    let network = Network::new();
    // A network without a default route. The peer's gossip port is open, without an agent.
    network.ip("address add 10.0.0.7/24 dev eth0");
    ip(&format!("-n {} address add 10.0.0.1/24 dev eth0", network.router.name()));
    let (udp, tcp) = network
        .router
        .enter(|| (UdpSocket::bind("10.0.0.1:7946").unwrap(), TcpListener::bind("10.0.0.1:7946").unwrap()));
    let mut agent = network
        .start("dns: {listen: [127.0.0.1, 10.0.0.7]}\ngossip: {listen: 0.0.0.0, insecure: true, join: [10.0.0.1]}");
    agent.wait_for_log(NO_IPV4);
    let hint = "the agent waits for an IPv4 default route; or set `advertise`";
    assert!(agent.log().contains(hint), "{}", agent.log());
    assert_eq!(network.addresses(&agent, WEB), ["A 127.0.0.1"]);
    assert_eq!(network.addresses(&agent, NODE), ["A 127.0.0.1"]);
    // Clients of other hosts do not receive the loopback address.
    let (rcode, answers) = network.router.enter(|| ask("10.0.0.7:53", WEB));
    assert_eq!((rcode, answers), (ResponseCode::Refused, 0));
    let (code, text) = network.muster(&["status", "--json"]);
    assert_eq!(code, 1, "{text}");
    let status: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(status["Muster"]["Advertise"], Value::Array(vec![]));
    assert_eq!(status["Muster"]["AddressProblem"], format!("{NO_IPV4} ({hint})"));
    // Longer than the agent waits before its second attempt to join.
    udp.set_read_timeout(Some(2 * SOON)).unwrap();
    let received = udp.recv(&mut [0; 64]).map_err(|error| error.kind());
    assert_eq!(received, Err(io::ErrorKind::WouldBlock));
    tcp.set_nonblocking(true).unwrap();
    assert_eq!(tcp.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    // The problem is logged once.
    assert_eq!(agent.log().matches(NO_IPV4).count(), 1, "{}", agent.log());
}

#[test]
fn agent_that_starts_before_its_network_joins_when_the_network_appears() {
    if !skip::namespaces("a network that appears late") {
        return;
    }
    let cases = [
        ("0.0.0.0", "10.0.0.1", "address add 10.0.0.7/24 dev eth0\nroute add default via 10.0.0.1\n", "A 10.0.0.7"),
        ("'[::]'", "fd00::1", "address add fd00::7/64 dev eth0\nroute add ::/0 via fe80::1 dev eth0\n", "AAAA fd00::7"),
    ];
    for (listen, join, network_appears, expected) in cases {
        let network = Network::new();
        let peer = network.start_peer(join);
        let agent = network.start(&format!("gossip: {{listen: {listen}, insecure: true, join: ['{join}']}}"));
        assert_eq!(network.addresses(&agent, WEB), ["A 127.0.0.1"]);
        let (code, text) = network.muster(&["status"]);
        assert_eq!(code, 1, "{text}");
        let (code, text) = network.muster(&["join", join]);
        assert!(code == 1 && text.contains("This node does not gossip: no address for other hosts"), "{text}");
        network.ip_at_once(network_appears);
        println!("{expected}: known to the peer after {:?}", network.until_joined(&agent, &peer, expected));
        for name in [WEB, NODE] {
            until_equal(name, &[expected][..], || network.addresses(&agent, name));
        }
        until("status reports no problem", || network.muster(&["status"]).0 == 0);
    }
}

#[test]
fn changed_address_reaches_peers() {
    if !skip::namespaces("a changed address") {
        return;
    }
    let network = Network::new();
    network.ip_at_once("address add 10.0.0.7/24 dev eth0\nroute add default via 10.0.0.1\n");
    let peer = network.start_peer("10.0.0.1");
    let agent = network.start("gossip: {listen: 0.0.0.0, insecure: true, join: [10.0.0.1]}");
    network.until_joined(&agent, &peer, "A 10.0.0.7");
    assert!(!agent.log().contains("WARN"), "{}", agent.log());
    for number in 8..11 {
        network.ip_at_once(&format!(
            "address del 10.0.0.{}/24 dev eth0\naddress add 10.0.0.{number}/24 dev eth0\nroute add default via 10.0.0.1\n",
            number - 1
        ));
        let address = format!("A 10.0.0.{number}");
        println!("{address}: known to the peer after {:?}", network.until_joined(&agent, &peer, &address));
        for name in [WEB, NODE] {
            until_equal(name, &[&*address][..], || network.addresses(&agent, name));
        }
        let expected = format!("host-a at 10.0.0.{number}, ");
        until(&expected, || network.muster(&["status"]).1.contains(&expected));
        let (_, members) = network.muster(&["members"]);
        assert!(members.contains(&format!("10.0.0.{number}:7946")), "{members}");
    }
    assert!(!agent.log().contains("WARN"), "{}", agent.log());
}

#[test]
fn lost_address_is_reported_until_it_returns() {
    if !skip::namespaces("a lost address") {
        return;
    }
    let network = Network::new();
    let appear = "address add 10.0.0.7/24 dev eth0\nroute add default via 10.0.0.1\n";
    network.ip_at_once(appear);
    let peer = network.start_peer("10.0.0.1");
    let mut agent = network.start("gossip: {listen: 0.0.0.0, insecure: true, join: [10.0.0.1]}");
    network.until_joined(&agent, &peer, "A 10.0.0.7");
    let generation = || {
        let (_, text) = network.muster(&["status", "--json"]);
        serde_json::from_str::<Value>(&text).unwrap()["Muster"]["Generation"].clone()
    };
    let run = generation();
    // Without a default route the host still has the address.
    network.ip("route del default");
    network.ip("address add 10.9.0.7/24 dev eth0");
    let (code, text) = network.muster(&["status"]);
    assert_eq!(code, 0, "{text}");
    network.ip("address flush dev eth0");
    agent.wait_for_log("WARN this host no longer has the advertised address 10.0.0.7");
    until("status reports the problem", || network.muster(&["status"]).0 == 1);
    assert_eq!(network.addresses(&agent, WEB), ["A 10.0.0.7"]);
    network.ip_at_once(appear);
    agent.wait_for_log("INFO the host has the advertised address again");
    network.until_joined(&agent, &peer, "A 10.0.0.7");
    until("status reports no problem", || network.muster(&["status"]).0 == 0);
    assert_eq!(generation(), run, "the node goes on with its run");
}
