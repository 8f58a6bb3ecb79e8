//! Nodes whose clock is wrong.

use std::{
    fs,
    net::UdpSocket,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use hickory_proto::rr::{RData, RecordType};
use nix::sys::signal::Signal;

use super::{
    clock_shim::ClockShim,
    scene::{SECOND, Scene},
};
use crate::support::{
    Ask,
    cluster::{Host, Setup, address},
    decode, skip,
    wait::until,
};

const YEAR: i64 = 365 * 24 * 60 * 60;

fn can_run(test: &str) -> bool {
    skip::namespaces(test) && skip::tool(test, "gcc", "gcc")
}

/// The generation of the new run comes from the clock, and nothing on disk is above it.
#[test]
fn node_without_data_and_with_a_clock_behind_returns_within_3_s() {
    if !can_run("a node without data and with a clock behind") {
        return;
    }
    let shim = ClockShim::compile();
    let mut scene = Scene::start(3);
    for offset in [-60, -30 * YEAR] {
        let observer = scene.observe_except(Some(2), |at| at != 2);
        let crashed = scene.cluster.hosts[2].take_agent();
        crashed.signal(Signal::SIGKILL);
        drop(crashed);
        let begun = Instant::now();
        scene.start_agent(2, Setup { environment: shim.environment(offset), ..Setup::default() });
        scene.cluster.converge();
        let back = begun.elapsed();
        println!("clock off by {offset} s, without data: back after {back:?}");
        assert!(back < 3 * SECOND, "{offset} s: {back:?}");
        let report = observer.finish();
        report.print(&format!("start without data, clock off by {offset} s, 3 nodes"), &[]);
        report.assert_right(&[]);
        for host in &scene.cluster.hosts {
            until("all are alive", || host.members().values().all(|state| state == "alive"));
        }
    }
}

#[test]
fn planned_restart_with_a_clock_behind_changes_no_answer() {
    if !can_run("a planned restart with a clock behind") {
        return;
    }
    let shim = ClockShim::compile();
    let mut scene = Scene::start(3);
    let kept = crate::support::run::temp_dir();
    let observer = scene.observe();
    scene.announce_restart_and_stop(2);
    let mut stopped = scene.cluster.hosts[2].take_agent();
    stopped.wait();
    let data = kept.path().join("data");
    fs::rename(stopped.path("data"), &data).unwrap();
    drop(stopped);
    scene.start_agent(2, Setup { environment: shim.environment(-30 * YEAR), data: Some(data), ..Setup::default() });
    scene.cluster.converge();
    observer.run_for(2 * SECOND);
    let report = observer.finish();
    report.print("planned restart, clock 30 years back, 3 nodes", &["n3"]);
    report.assert_right(&["n3"]);
}

/// Of two running nodes with one name, the one that the cluster knows stays, whatever the clocks say.
#[test]
fn known_node_keeps_its_name_whatever_the_clocks_say() {
    if !can_run("two nodes with one name and different clocks") {
        return;
    }
    let shim = ClockShim::compile();
    let scene = Scene::start(3);
    let observer = scene.observe();
    for (number, offset) in [(4, -YEAR), (5, 0), (6, YEAR)] {
        let mut second = scene.cluster.connect(number);
        second.node = "n3".to_owned();
        // It joins after its start, so that it ends only once it meets the cluster.
        let environment = shim.environment(offset);
        second.start(Setup { key: scene.cluster.key.clone(), environment, ..Setup::default() });
        second.muster(&["join", "10.77.0.1"]);
        let mut ended = second.take_agent();
        assert_eq!(ended.wait().code(), Some(2), "clock off by {offset} s: {}", ended.log());
        assert!(ended.log().contains("the name n3 belongs to another node"), "{}", ended.log());
    }
    observer.run_for(2 * SECOND);
    let report = observer.finish();
    report.print("3 newcomers with a taken name, 3 nodes", &[]);
    report.assert_right(&[]);
    for host in &scene.cluster.hosts {
        assert!(host.output_of(&["members"]).contains("10.77.0.3:7946"));
    }
}

/// The serial that secondaries have seen of the node is not on its disk, and the clock is below it.
#[test]
fn serial_of_a_node_without_data_and_with_a_clock_behind_never_goes_back() {
    if !can_run("the serial of a node without data and with a clock behind") {
        return;
    }
    let shim = ClockShim::compile();
    let mut scene = Scene::start(3);
    for offset in [-60, -30 * YEAR] {
        // Changes of the zone, which its serials count.
        for port in 1..50 {
            let path = scene.cluster.hosts[0].agent().path("services.d/more.yaml");
            fs::write(path, format!("service: more\nport: {port}\n")).unwrap();
            until("the change has arrived", || port_of(&scene.cluster.hosts[2], "more") == Some(port));
        }
        let last = serial(&scene.cluster.hosts[2]).unwrap();
        let crashed = scene.cluster.hosts[2].take_agent();
        crashed.signal(Signal::SIGKILL);
        drop(crashed);
        let host = &mut scene.cluster.hosts[2];
        let setup = Setup {
            key: scene.cluster.key.clone(),
            join: vec![address(1), address(2)],
            environment: shim.environment(offset),
            ..Setup::default()
        };
        let asked = host.namespace.enter(|| UdpSocket::bind("127.0.0.1:0").unwrap());
        let (stop, stopped) = mpsc::channel();
        let asking = thread::spawn(move || serials(&asked, &stopped));
        host.start(setup);
        scene.cluster.converge();
        thread::sleep(SECOND);
        stop.send(()).unwrap();
        let seen = asking.join().unwrap();
        println!(
            "clock off by {offset} s, without data: serial {last}, then {} answers from {:?}",
            seen.len(),
            seen[0]
        );
        assert!(seen.len() > 50, "{} answers", seen.len());
        let mut before = last;
        for serial in seen {
            assert!(serial == before || serial.wrapping_sub(before) < 1 << 31, "{serial} after {before}");
            before = serial;
        }
        assert_ne!(before, last, "the start is a change");
    }
}

/// The port of the only instance of a service.
fn port_of(host: &Host, service: &str) -> Option<u16> {
    let answer = host.ask(service)?;
    answer.answers.iter().find_map(|record| match &record.data {
        RData::SRV(srv) => Some(srv.port),
        _ => None,
    })
}

fn serial(host: &Host) -> Option<u32> {
    ask_serial(&host.namespace.enter(|| UdpSocket::bind("127.0.0.1:0").unwrap()))
}

fn ask_serial(socket: &UdpSocket) -> Option<u32> {
    let query = Ask { name: "service.local.".to_owned(), qtype: RecordType::SOA.into(), edns: None, dnssec_ok: false };
    socket.set_read_timeout(Some(SECOND / 10)).unwrap();
    socket.send_to(&query.packet(7), "127.0.0.1:53").ok()?;
    let mut reply = [0; 512];
    let len = socket.recv(&mut reply).ok()?;
    decode(&reply[..len]).answers.iter().find_map(|record| match &record.data {
        RData::SOA(soa) => Some(soa.serial),
        _ => None,
    })
}

/// Serials of all answers until a message.
fn serials(socket: &UdpSocket, stopped: &mpsc::Receiver<()>) -> Vec<u32> {
    let mut seen = Vec::new();
    while stopped.try_recv().is_err() {
        seen.extend(ask_serial(socket));
        thread::sleep(Duration::from_millis(2));
    }
    seen
}

/// `muster status` of a node that its peers consider gone exits with 1.
#[test]
fn node_that_peers_consider_gone_reports_a_problem() {
    if !skip::namespaces("a node that its peers consider gone") {
        return;
    }
    let scene = Scene::start(3);
    let mute = &scene.cluster.hosts[2];
    // Its packets do not arrive, those of others do.
    for host in scene.cluster.others(2) {
        host.namespace.drop_incoming(&[&format!("ip saddr {}", mute.address)]);
    }
    until("`muster status` exits with 1", || mute.muster(&["status"]).status.code() == Some(1));
    for host in scene.cluster.others(2) {
        host.namespace.drop_incoming(&[]);
    }
    until("`muster status` exits with 0", || mute.muster(&["status"]).status.success());
}
