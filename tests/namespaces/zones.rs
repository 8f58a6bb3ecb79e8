//! Answers by zone: three hosts in zone `a`, two in zone `b`, and a service with two instances in each zone.

use std::{
    collections::BTreeSet,
    fs,
    net::Ipv4Addr,
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::{
    SECOND, names,
    support::{
        cluster::{Cluster, Host, Resolver, Setup},
        process, skip,
        wait::until,
    },
};

/// Service with instances on the hosts n2 and n3 of zone `a`, and n4 and n5 of zone `b`.
const NEAR: &str = "near";
/// Bound of the time in which a dead instance leaves the answers of all hosts, as documented.
const PROMISED: Duration = Duration::from_secs(2);
/// Pause between two queries.
const PAUSE: Duration = Duration::from_millis(2);
/// Port of the instances that are processes.
const PORT: u16 = 8080;

fn zone_a() -> BTreeSet<String> {
    names(&["near-n2", "near-n3"])
}

fn zone_b() -> BTreeSet<String> {
    names(&["near-n4", "near-n5"])
}

/// Starts five hosts in two zones. `service` is the rest of the service file of [`NEAR`].
fn two_zones(service: &str) -> Cluster {
    let mut cluster = Cluster::without_agents(5);
    for at in 0..5 {
        let zone = if at < 3 { "a" } else { "b" };
        let text = format!("service: {NEAR}\nport: {PORT}\nnearest: zone\n{service}");
        let services = if at == 0 { vec![] } else { vec![("near.yaml".to_owned(), text)] };
        cluster.start_agent(at, Setup { services, lines: format!("zone: {zone}\n"), ..Setup::default() });
    }
    cluster.converge();
    cluster
}

/// Answered instances of [`NEAR`] with the time of the answer, in order.
type Answers = Vec<(Instant, BTreeSet<String>)>;

/// Client that queries the agent of its host without a pause.
struct Client {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Answers>,
}

impl Client {
    fn start(host: &Host) -> Self {
        let (resolver, stop) = (Resolver::new(&host.namespace), Arc::new(AtomicBool::new(false)));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut answers = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                answers.push((Instant::now(), resolver.instances(NEAR)));
                thread::sleep(PAUSE);
            }
            answers
        });
        Self { stop, thread }
    }

    fn finish(self) -> Answers {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Asserts that the answers come from these tiers, one after another, and that each tier is left once.
#[track_caller]
fn assert_tiers(answers: &Answers, expected: &[(&str, BTreeSet<String>)]) {
    let tier = |answer: &BTreeSet<String>| {
        let found = expected.iter().find(|(_, tier)| !answer.is_empty() && answer.is_subset(tier));
        found.map_or_else(|| format!("{answer:?}"), |(name, _)| (*name).to_owned())
    };
    let mut tiers: Vec<String> = answers.iter().map(|(_, answer)| tier(answer)).collect();
    tiers.dedup();
    assert_eq!(tiers, expected.iter().map(|(name, _)| *name).collect::<Vec<_>>());
}

/// Asserts that no answer after the promised time has a dead instance, until `back`.
#[track_caller]
fn assert_no_dead_instance(answers: &Answers, dead: &BTreeSet<String>, died: Instant, back: Instant) {
    let late = answers
        .iter()
        .find(|(at, answer)| *at > died + PROMISED && *at < back && answer.intersection(dead).next().is_some());
    assert_eq!(late, None);
}

fn assert_local(answers: &Answers, zone: &BTreeSet<String>) {
    let local = answers.iter().filter(|(_, answer)| answer == zone).count();
    println!("{local} of {} answers have exactly the instances of the zone", answers.len());
    assert_eq!(local, answers.len());
}

#[test]
fn zone_is_answered_until_its_agents_crash_and_again_when_they_are_back() {
    if !skip::namespaces("crashed agents of a zone") {
        return;
    }
    let mut cluster = two_zones("");
    until("each host answers its zone", || {
        cluster.hosts[..3].iter().all(|host| host.instances(NEAR) == zone_a())
            && cluster.hosts[3..].iter().all(|host| host.instances(NEAR) == zone_b())
    });
    let clients: Vec<Client> = [0, 3, 4].map(|at| Client::start(&cluster.hosts[at])).into();
    thread::sleep(3 * SECOND);
    let died = Instant::now();
    for host in &mut cluster.hosts[1..3] {
        host.agent().signal(Signal::SIGKILL);
        host.agent_mut().wait();
    }
    let failover = until("the other zone is answered", || cluster.hosts[0].instances(NEAR) == zone_b());
    assert!(failover < PROMISED, "{failover:?}");
    let explained = cluster.hosts[0].output_of(&["explain", NEAR]);
    for line in ["  zone a: 0 of 2 healthy, 1 required", "> datacenter dc1: 2 of 4 healthy, 1 required"] {
        assert!(explained.lines().any(|shown| shown == line), "{explained}");
    }
    assert!(explained.contains("2 of 4 answered, those of datacenter dc1"), "{explained}");
    thread::sleep(3 * SECOND);
    let back = Instant::now();
    cluster.hosts[1..3].iter_mut().for_each(Host::start_again);
    let again = until("the zone is answered again", || cluster.hosts[0].instances(NEAR) == zone_a());
    println!("crashed agents: failover {failover:?}, return {again:?} after the start of the agents");
    thread::sleep(2 * SECOND);
    let [near, others @ ..] = &clients.into_iter().map(Client::finish).collect::<Vec<_>>()[..] else { unreachable!() };
    assert_tiers(near, &[("a", zone_a()), ("b", zone_b()), ("a", zone_a())]);
    assert_no_dead_instance(near, &zone_a(), died, back);
    assert_local(&near.iter().filter(|(at, _)| *at < died).cloned().collect(), &zone_a());
    others.iter().for_each(|answers| assert_local(answers, &zone_b()));
}

/// Starts the program of an instance.
fn serve(host: &Host) -> Child {
    let mut program = process::command("python3");
    let address = host.address.to_string();
    program.args(["-m", "http.server", &PORT.to_string(), "--bind", &address]).current_dir("/");
    program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    host.namespace.enter(|| program.spawn().unwrap())
}

#[test]
fn killed_programs_of_a_zone_fail_over_and_return_without_a_flap() {
    if !skip::namespaces("killed programs of a zone") || !skip::tool("programs", "python3", "python3") {
        return;
    }
    let check = |address: Ipv4Addr| {
        format!("checks: [{{tcp: '{address}:{PORT}', interval: 200ms, timeout: 200ms, rise: 1, fall: 1}}]\n")
    };
    let cluster = two_zones("");
    let mut programs: Vec<Child> = cluster.hosts[1..].iter().map(serve).collect();
    for host in &cluster.hosts[1..] {
        let text = format!("service: {NEAR}\nport: {PORT}\nnearest: zone\nmin_healthy: 50%\n{}", check(host.address));
        fs::write(host.agent().path("services.d/near.yaml"), text).unwrap();
    }
    let checked =
        |host: &Host| host.output_of(&["explain", NEAR]).contains("min_healthy: 50%, from the min_healthy of");
    until("each host answers its zone, checked", || {
        cluster.hosts.iter().all(checked)
            && cluster.hosts[..3].iter().all(|host| host.instances(NEAR) == zone_a())
            && cluster.hosts[3..].iter().all(|host| host.instances(NEAR) == zone_b())
    });
    let clients: Vec<Client> = [0, 3].map(|at| Client::start(&cluster.hosts[at])).into();
    thread::sleep(SECOND);
    let died = Instant::now();
    for program in &mut programs[..2] {
        program.kill().unwrap();
        program.wait().unwrap();
    }
    let failover = until("the other zone is answered", || cluster.hosts[0].instances(NEAR) == zone_b());
    assert!(failover < PROMISED, "{failover:?}");
    thread::sleep(3 * SECOND);
    let back = Instant::now();
    // One of two instances is half of them.
    programs[0] = serve(&cluster.hosts[1]);
    let half = until("half of the zone is enough", || cluster.hosts[0].instances(NEAR) == names(&["near-n2"]));
    programs[1] = serve(&cluster.hosts[2]);
    let again = until("the zone is answered again", || cluster.hosts[0].instances(NEAR) == zone_a());
    println!("killed programs: failover {failover:?}, return {half:?} and {again:?} after the start of the programs");
    thread::sleep(2 * SECOND);
    let [near, other] = &clients.into_iter().map(Client::finish).collect::<Vec<_>>()[..] else { unreachable!() };
    assert_tiers(near, &[("a", zone_a()), ("b", zone_b()), ("a", zone_a())]);
    assert_no_dead_instance(near, &zone_a(), died, back);
    assert_local(other, &zone_b());
    for mut program in programs {
        program.kill().unwrap();
        program.wait().unwrap();
    }
}

/// A node that moves to another zone by a reload changes the answers of all nodes, its own included.
#[test]
fn reload_moves_a_node_to_another_zone() {
    if !skip::namespaces("a node that moves to another zone") {
        return;
    }
    let cluster = two_zones("");
    until("each host answers its zone", || cluster.hosts[0].instances(NEAR) == zone_a());
    let moved = &cluster.hosts[2];
    let path = moved.agent().path("muster.yaml");
    let text = fs::read_to_string(&path).unwrap().replace("zone: a", "zone: b");
    fs::write(&path, text).unwrap();
    moved.output_of(&["reload"]);
    let in_b = names(&["near-n3", "near-n4", "near-n5"]);
    let took = until("all hosts answer the new zones", || {
        cluster.hosts[..2].iter().all(|host| host.instances(NEAR) == names(&["near-n2"]))
            && cluster.hosts[2..].iter().all(|host| host.instances(NEAR) == in_b)
    });
    until("the members show the new zone", || {
        let members = cluster.hosts[0].output_of(&["members"]);
        members.lines().any(|line| line.starts_with("n3") && line.contains(" b "))
    });
    println!("moved to another zone: {took:?}");
}
