//! The agent's process: start, signals, readiness, and errors of a failed start.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::{
    fs,
    net::{TcpListener, TcpStream, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Output, Stdio},
    sync::mpsc,
    time::Duration,
};

use hickory_proto::op::ResponseCode;
use nix::sys::signal::Signal;
use notify::{EventKind, RecursiveMode, Watcher, event::AccessKind};
use support::{
    Ask,
    agent::Agent,
    decode,
    namespaces::Namespace,
    process::{self, Finish},
    run, skip,
    systemd::NotifySocket,
    wait::{DEADLINE, until},
};

/// Runs an agent that is expected to end by itself.
fn run(config: &str, folder: &Path) -> Output {
    let path = folder.join("muster.yaml");
    fs::write(&path, config).unwrap();
    process::muster().args(["agent", "--config"]).arg(&path).finish()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn service_file_is_answered_over_udp_and_tcp() {
    let agent = Agent::start_with("", &[], |folder| {
        fs::write(folder.join("services.d/web.yaml"), "service: web\nport: 8080\n").unwrap();
    });
    assert_eq!(agent.answers("web.service.local.", 33), ["SRV 1 10 8080 web-host-a.web.service.local."]);
    assert_eq!(agent.answers("web.service.local.", 1), ["A 10.0.0.7"]);
    assert_eq!(agent.ask_tcp("web.service.local.", 33).answers.len(), 1);
}

#[test]
fn sigterm_and_sigint_stop_the_agent_with_exit_code_0() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut agent = Agent::start();
        agent.signal(signal);
        assert_eq!(agent.wait().code(), Some(0), "{}", agent.log());
        assert!(agent.log().contains("INFO stopped"));
    }
}

#[test]
fn sighup_rereads_unchanged_files() {
    let mut agent = Agent::start();
    agent.write_service("web.yaml", "service: web\nport: 1\n");
    agent.wait_for_answers("web.service.local.", 33, &["SRV 1 10 1 web-host-a.web.service.local."]);
    let (sender, events) = mpsc::channel();
    let mut watcher = notify::recommended_watcher(move |event| drop(sender.send(event))).unwrap();
    watcher.watch(&agent.path("services.d/web.yaml"), RecursiveMode::NonRecursive).unwrap();
    let opened = |timeout: Duration| {
        let mut next = || events.recv_timeout(timeout).ok().map(Result::unwrap);
        std::iter::from_fn(&mut next).any(|event| matches!(event.kind, EventKind::Access(AccessKind::Open(_))))
    };
    // A file that has just changed may be read twice. After that, only SIGHUP makes the agent open it.
    until("the agent no longer opens the file", || !opened(Duration::from_secs(2)));
    agent.signal(Signal::SIGHUP);
    agent.wait_for_log("SIGHUP");
    assert!(opened(DEADLINE), "SIGHUP did not make the agent read the file");
    assert_eq!(agent.answers("web.service.local.", 33).len(), 1);
}

#[test]
fn soa_serial_increases_with_every_change_and_across_a_restart() {
    /// Greater than the clock: without a stored serial, an agent starts at the number of seconds since 1970.
    const STORED: u32 = 3_000_000_000;
    let serial =
        |agent: &Agent| -> u32 { agent.answers("service.local.", 6)[0].split(' ').nth(3).unwrap().parse().unwrap() };
    let mut agent = Agent::start_with("", &[], |folder| {
        fs::create_dir(folder.join("data")).unwrap();
        fs::write(folder.join("data/zone-serial"), format!("{STORED}\n")).unwrap();
    });
    let data = run::temp_dir();
    let mut last = serial(&agent);
    assert!(last > STORED, "{last}");
    for port in 1..20 {
        agent.write_service("web.yaml", &format!("service: web\nport: {port}\n"));
        agent.wait_for_answers("web.service.local.", 33, &[&format!("SRV 1 10 {port} web-host-a.web.service.local.")]);
        let now = serial(&agent);
        assert!(now > last, "{now} after {last}");
        last = now;
    }
    agent.signal(Signal::SIGTERM);
    agent.wait();
    fs::rename(agent.path("data"), data.path().join("data")).unwrap();
    let restarted =
        Agent::start_with("", &[], |folder| fs::rename(data.path().join("data"), folder.join("data")).unwrap());
    assert!(serial(&restarted) > last);
}

#[test]
fn systemd_is_notified_of_readiness_watchdog_and_stop() {
    let systemd = NotifySocket::bind();
    let path = systemd.path();
    let environment = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "100000")];
    let agent = Agent::start_with("", &environment, |_| {});
    systemd.wait_for("READY=1");
    systemd.wait_for("WATCHDOG=1");
    systemd.wait_for("WATCHDOG=1");
    agent.signal(Signal::SIGTERM);
    systemd.wait_for("STOPPING=1");
}

#[test]
fn occupied_dns_port_is_reported_with_a_remedy() {
    let agent = Agent::start();
    let folder = run::temp_dir();
    let config = format!(
        "data_dir: data\nhttp: {{listen: []}}\ngossip: {{listen: 127.0.0.1:0}}\ndns: {{listen: [{}]}}\n",
        agent.address()
    );
    let output = run(&config, folder.path());
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains(&format!("cannot listen for DNS on {}", agent.address())), "{message}");
    assert!(message.contains("ss -antup") && message.contains("dns.listen"), "{message}");
}

#[test]
fn port_53_without_the_capability_is_reported_with_a_remedy() {
    let unprivileged = ["setpriv", "--reuid=65534", "--clear-groups", "--bounding-set=-net_bind_service"];
    let test = "port_53_without_the_capability_is_reported_with_a_remedy";
    if !skip::namespaces(test) || !skip::tool(test, "setpriv", "util-linux") {
        return;
    }
    // In a new network namespace, ports below 1024 need the capability; containers may permit them without it.
    let namespace = Namespace::new();
    let folder = run::temp_dir();
    let binary = folder.path().join("muster");
    fs::copy(env!("CARGO_BIN_EXE_muster"), &binary).unwrap();
    let config = folder.path().join("muster.yaml");
    fs::write(
        &config,
        "data_dir: data\nhttp: {listen: []}\ngossip: {listen: 127.0.0.1:0}\ndns: {listen: [127.0.0.1:53]}\n",
    )
    .unwrap();
    for path in [folder.path(), &config, &binary] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = process::command(unprivileged[0]);
    command.args(&unprivileged[1..]).arg(&binary).args(["agent", "--config"]).arg(&config);
    let output = namespace.enter(|| command.finish());
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("127.0.0.1:53") && message.contains("CAP_NET_BIND_SERVICE"), "{message}");
}

#[test]
fn failed_start_reports_cause_and_exit_code() {
    let cases = [
        (
            "an address of no interface",
            "data_dir: data\nhttp: {listen: []}\ngossip: {listen: 127.0.0.1:0}\ndns: {listen: [192.0.2.1:0]}\n",
            2,
            "No interface of this host",
        ),
        ("an unknown key", "domian: x\n", 1, "muster.yaml:1:1: "),
    ];
    for (case, config, code, expected) in cases {
        let folder = run::temp_dir();
        let output = run(config, folder.path());
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{case}: {message}");
        assert!(message.contains(expected), "{case}: {message}");
    }
    let output = process::muster().args(["agent", "--config", "/nowhere.yaml"]).finish();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("/nowhere.yaml") && stderr(&output).contains("--config"));
}

#[test]
fn malformed_packets_are_neither_logged_nor_harmful() {
    let agent = Agent::start();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut rng = fastrand::Rng::with_seed(11);
    for _ in 0..2000 {
        let mut junk = vec![0; rng.usize(0..600)];
        rng.fill(&mut junk);
        socket.send_to(&junk, agent.address()).unwrap();
    }
    for _ in 0..20 {
        let mut stream = TcpStream::connect(agent.address()).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut junk = vec![0; 3000];
        rng.fill(&mut junk);
        // The server may close before it has read everything.
        let _ = std::io::Write::write_all(&mut stream, &junk);
    }
    let soa = agent.ask("service.local.", 6);
    assert_eq!(soa.answers.len(), 1);
    let log = agent.log();
    assert!(!log.contains("ERROR") && !log.contains("WARN"), "{log}");
}

#[test]
fn idle_tcp_clients_do_not_starve_health_checks() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap();
    let agent = Agent::start_with_files(128, "", |folder| {
        let check = format!("{{tcp: \"{target}\", interval: 100ms, timeout: 100ms}}");
        fs::write(folder.join("services.d/web.yaml"), format!("service: web\nchecks: [{check}]\n")).unwrap();
    });
    agent.wait_for_answers("web.service.local.", 1, &["A 10.0.0.7"]);
    // More clients than the process may have open files; the agent closes the excess connections.
    let clients: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(agent.address()).unwrap()).collect();
    drop(listener);
    agent.wait_for_answers("web.service.local.", 1, &[]);
    drop(clients);
}

#[test]
fn own_instances_are_answered_before_the_first_exchange_with_a_peer() {
    let mut agent = Agent::start_with("gossip: {listen: 127.0.0.1:0, join: [127.0.0.1:9]}\n", &[], |folder| {
        fs::write(folder.join("services.d/web.yaml"), "service: web\nport: 8080\n").unwrap();
    });
    agent.signal(Signal::SIGTERM);
    agent.start_again();
    agent.wait_for_log("listening for DNS");
    let address = agent.listening("DNS");
    let ask = |name: &str| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let query = Ask { name: name.to_owned(), qtype: 1, edns: None, dnssec_ok: false }.packet(7);
        socket.send_to(&query, address).unwrap();
        socket
    };
    let answer = |socket: UdpSocket| {
        let mut reply = [0; 512];
        let len = socket.recv(&mut reply).unwrap();
        decode(&reply[..len])
    };
    let other = ask("other.service.local.");
    let service = ask("web.service.local.");
    assert_eq!(answer(ask("web-host-a.web.service.local.")).answers.len(), 1);
    assert!(!agent.log_of_latest_start().contains("no exchange with a peer"), "{}", agent.log());
    // A peer may have instances of any service.
    assert_eq!(answer(service).answers.len(), 1);
    assert_eq!(answer(other).metadata.response_code, ResponseCode::NXDomain);
    agent.wait_for_log("no exchange with a peer");
}

#[test]
fn removed_data_directory_is_recreated() {
    let mut agent = Agent::start();
    fs::remove_dir_all(agent.path("data")).unwrap();
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.wait().code(), Some(0));
    assert!(agent.path("data/zone-serial").exists());
}

#[test]
fn agent_dev_answers_without_files_and_removes_its_folder() {
    if !skip::namespaces("agent_dev_answers_without_files_and_removes_its_folder") {
        return;
    }
    // The ports of --dev are fixed.
    let namespace = Namespace::new();
    let mut command = process::muster();
    command.args(["agent", "--dev"]).stderr(Stdio::piped());
    let mut child = namespace.enter(|| command.spawn().unwrap());
    let log = process::lines(child.stderr.take().unwrap());
    let next = || log.recv_timeout(DEADLINE).expect("another log line");
    let first = next();
    let folder = Path::new(first.rsplit('=').next().unwrap());
    assert!(folder.join("services.d").is_dir(), "{first}");
    until("the agent answers", || next().contains("INFO answering"));
    process::terminate(&mut child);
    assert!(!folder.exists(), "{} was not removed", folder.display());
}
