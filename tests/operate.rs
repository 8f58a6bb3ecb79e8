//! What an operator reaches for, on the built program: asking why, draining, stopping, and the ways to an agent.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{fs, path::Path, time::Duration};

use nix::sys::signal::Signal;
use serde_json::Value;
use support::{
    agent::Agent,
    process::{self, Finish},
    run,
    systemd::NotifySocket,
    wait::until,
};

const A: u16 = 1;
const TXT: u16 = 16;
const WEB: &str = "web.service.local.";

/// Runs a command with these variables; its exit code, and all that it prints.
fn muster(arguments: &[&str], environment: &[(&str, &str)]) -> (i32, String) {
    let mut command = process::muster();
    let output = command.args(arguments).envs(environment.iter().copied()).finish();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), text)
}

fn said(agent: &Agent, arguments: &[&str]) -> (i32, String) {
    muster(arguments, &[("MUSTER_HTTP_ADDR", &agent.http().to_string())])
}

/// Drains without waiting; for how many seconds it should be waited.
fn drain(agent: &Agent, target: &str) -> u64 {
    let (code, text) = said(agent, &["drain", target, "--no-wait", "--json"]);
    assert_eq!(code, 0, "{text}");
    serde_json::from_str::<Value>(&text).unwrap()["WaitSeconds"].as_u64().unwrap()
}

/// Ends an agent at once and starts another with its files and its data.
fn restart(agent: Agent) -> Agent {
    let kept = run::temp_dir();
    for name in ["data", "services.d"] {
        let status = process::command("cp").arg("-r").arg(agent.path(name)).arg(kept.path()).finish().status;
        assert!(status.success());
    }
    drop(agent);
    Agent::start_with("", &[], |folder| {
        for name in ["data", "services.d"] {
            let _ = fs::remove_dir(folder.join(name));
            fs::rename(kept.path().join(name), folder.join(name)).unwrap();
        }
    })
}

fn with_web(text: &'static str) -> impl Fn(&Path) {
    move |folder| fs::write(folder.join("services.d/web.yaml"), text).unwrap()
}

/// A port of this host that nobody listens on.
fn closed() -> std::net::SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn dig_and_explain_say_the_same() {
    let closed = closed();
    let agent = Agent::start();
    agent.write_service(
        "web.yaml",
        &format!(
            "services:\n- {{service: web, id: good, port: 80}}\n\
             - {{service: web, id: bad, port: 80, checks: [{{tcp: '{closed}', interval: 100ms, timeout: 100ms}}]}}\n"
        ),
    );
    let refused = format!("the check tcp {closed} is critical: connection refused");
    until("the check fails", || agent.answers("_why.bad.web.service.local.", TXT).concat().contains(&refused));
    let all = agent.answers("_why.web.service.local.", TXT);
    assert_eq!(all.len(), 2, "{all:?}");
    assert_eq!(all[0], "TXT \"1 of 2 answered\"");
    assert!(all[1].starts_with("TXT \"bad on host-a: critical since 20"), "{all:?}");
    assert_eq!(agent.answers("_why.bad.web.service.local.", TXT), [&*all[1]]);
    let good = ["TXT \"good: passing\" \"answered with weight 10\""];
    assert_eq!(agent.answers("_why.good.web.service.local.", TXT), good);
    assert!(agent.answers("_why.web.service.local.", A).is_empty());
    let (code, text) = said(&agent, &["explain", "_why.web.service.local."]);
    assert!(code == 0 && text.contains(&refused) && text.contains("1 of 2 answered"), "{text}");
}

#[test]
fn names_are_explained_whatever_answers_them() {
    let config = "resolver: {allow: [loopback], upstreams: [192.0.2.1], routes: {corp.example: [192.0.2.2]}}\n";
    let agent = Agent::start_with(config, &[], |folder| {
        let web = "service: web\nport: 80\ntags: [v2]\nports: {http: 80}\n";
        fs::write(folder.join("services.d/web.yaml"), web).unwrap();
        fs::write(folder.join("services.d/broken.yaml"), "service: other\nprot: 80\n").unwrap();
        let zone = "web A 192.0.2.7\nv2.web A 192.0.2.8\nold A 192.0.2.9\n*.wild A 192.0.2.10\n";
        fs::write(folder.join("zones/service.local.zone"), zone).unwrap();
        let zone = "@ SOA ns hostmaster 1 60 60 60 60\n@ NS ns\nns A 192.0.2.1\nwww 77 A 192.0.2.11\n";
        fs::write(folder.join("zones/example.org.zone"), zone).unwrap();
    });
    let instance = "+ web/web-host-a on host-a: passing";
    let cases: &[(&str, i32, &str)] = &[
        ("web.service.local", 0, instance),
        ("_http._tcp.web.service.local.", 0, instance),
        ("_web._v2.service.local", 0, instance),
        ("v2.web", 0, instance),
        ("web-host-a.web.service.local.", 0, instance),
        ("host-a.node.service.local.", 0, "the node host-a is alive; 1 of 1 answered"),
        (
            "web",
            0,
            "service.local.zone:1 has static records for v2.web.service.local., web.service.local.: they are hidden",
        ),
        ("web", 0, "broken.yaml:2:1: "),
        ("other", 1, "broken.yaml:2:1: "),
        ("old.service.local", 0, "the zone file service.local.zone has it in line 3"),
        ("old", 0, "the zone file service.local.zone has it in line 3"),
        ("x.wild.service.local.", 0, "the zone file service.local.zone has its wildcard in line 4"),
        ("www.example.org", 0, "TTL 77 s, from the zone file"),
        ("ftp.example.org", 0, "the zone file example.org.zone has the zone, and not this name"),
        ("a.corp.example", 0, "the route corp.example. asks 192.0.2.2:53"),
        ("example.com.", 0, "upstreams are asked: 192.0.2.1:53"),
        ("7.0.0.127.in-addr.arpa", 0, "no upstream is asked"),
        ("none.service.local", 1, "no node declares it: NXDOMAIN"),
        ("service.local.", 0, "the discovery zone itself"),
    ];
    for (name, code, expected) in cases {
        let (exit, text) = said(&agent, &["explain", name]);
        assert!(exit == *code && text.contains(expected), "{name}: {exit} {text}");
    }
}

#[test]
fn a_drain_waits_for_every_ttl_that_was_served_also_over_a_restart() {
    let agent = Agent::start_with("", &[], with_web("service: web\nport: 80\nttl: 300s\n"));
    agent.wait_for_answers(WEB, A, &["A 10.0.0.7"]);
    agent.write_service("web.yaml", "service: web\nport: 80\nttl: 5s\n");
    until("the new TTL is served", || agent.ask(WEB, A).answers[0].ttl == 5);
    let first = drain(&agent, "web-host-a");
    assert!((250..=302).contains(&first), "what was served before has to run out: {first}");
    assert!(agent.answers(WEB, A).is_empty());
    until("a second drain goes on with the wait of the first", || drain(&agent, "web-host-a") < first);
    let (code, text) = said(&agent, &["drain", "host-a", "--timeout", "0s"]);
    assert!(code == 1 && text.contains("not waited for long enough: caches may have it for"), "{text}");

    let agent = restart(agent);
    let after = drain(&agent, "web-host-a");
    assert!((200..first).contains(&after), "a restart goes on with it: {after} after {first}");
    assert!(agent.answers(WEB, A).is_empty(), "and with what was drained");
    for target in ["web-host-a", "host-a"] {
        assert_eq!(said(&agent, &["resume", target]).0, 0);
    }
    agent.wait_for_answers(WEB, A, &["A 10.0.0.7"]);
}

/// What names no TTL is answered by each node with its own.
#[test]
fn a_drain_waits_for_the_greatest_ttl_of_all_nodes() {
    let agent = Agent::start_with("", &[], with_web("service: web\nport: 80\n"));
    let other = Agent::start_with("", &[], |folder| {
        let config = format!(
            "node: host-b\nadvertise: 10.0.0.8\ndata_dir: data\nservices_dir: services.d\nzones_dir: zones\n\
             dns: {{listen: [127.0.0.1:0], ttl: 300s}}\nhttp: {{listen: [127.0.0.1:0]}}\nresolver: {{allow: []}}\n\
             gossip: {{listen: 127.0.0.1:0, join: [\"{}\"]}}\n",
            agent.gossip()
        );
        fs::write(folder.join("muster.yaml"), config).unwrap();
    });
    other.wait_for_answers(WEB, A, &["A 10.0.0.7"]);
    assert_eq!(other.ask(WEB, A).answers[0].ttl, 300);
    until("the first node has heard of the other's TTL", || {
        assert_eq!(said(&agent, &["resume", "web-host-a"]).0, 0);
        agent.wait_for_answers(WEB, A, &["A 10.0.0.7"]);
        drain(&agent, "web-host-a") > 250
    });
    let status = said(&agent, &["status"]).1;
    assert!(status.contains("2 alive") && status.contains("views       alike on all nodes"), "{status}");
}

#[test]
fn what_nobody_was_sent_to_is_safe_to_stop_at_once() {
    let agent = Agent::start();
    let check = format!("{{tcp: '{}', interval: 100ms, timeout: 100ms}}", closed());
    agent.write_service("web.yaml", &format!("service: web\nport: 80\nttl: 300s\nchecks: [{check}]\n"));
    until("it is critical", || said(&agent, &["explain", "web"]).1.contains("connection refused"));
    for target in ["web-host-a", "host-a"] {
        assert_eq!(drain(&agent, target), 0, "{target}");
        let (code, text) = said(&agent, &["drain", target]);
        assert!(code == 0 && text.contains("safe to stop") && !text.contains("waiting"), "{text}");
    }
}

#[test]
fn what_is_drained_for_a_time_comes_back_by_itself_also_after_a_restart() {
    let agent = Agent::start_with("", &[], with_web("service: web\nport: 80\nttl: 0s\n"));
    let drained = ["drain", "web-host-a", "--for", "2s", "--no-wait"];
    assert_eq!(said(&agent, &drained).0, 0);
    assert!(agent.answers(WEB, A).is_empty());
    agent.wait_for_answers(WEB, A, &["A 10.0.0.7"]);
    assert_eq!(said(&agent, &drained).0, 0);
    let agent = restart(agent);
    agent.wait_for_answers(WEB, A, &["A 10.0.0.7"]);
}

#[test]
fn an_agent_that_drains_answers_without_its_instances_until_no_cache_has_them() {
    let systemd = NotifySocket::bind();
    let path = systemd.path();
    let environment = [("NOTIFY_SOCKET", path.to_str().unwrap())];
    let web = with_web("service: web\nport: 80\nttl: 3s\n");
    let mut agent = Agent::start_as(&["--drain"], &environment, web);
    agent.wait_for_answers(WEB, A, &["A 10.0.0.7"]);
    assert!(systemd.receive().contains("READY=1"));
    agent.signal(Signal::SIGTERM);
    let stopping = systemd.receive();
    for line in ["STOPPING=1", "STATUS=draining: ", "EXTEND_TIMEOUT_USEC=45000000"] {
        assert!(stopping.contains(line), "{stopping}");
    }
    agent.wait_for_log("drained: going on for");
    let told = support::extended_error(&agent.ask(WEB, A)).unwrap();
    assert_eq!(told, (14, "1 instance, 1 draining: its agent is about to stop".to_owned()));
    assert_eq!(agent.wait().code(), Some(0), "{}", agent.log());
    assert!(agent.log().contains("INFO stopped"), "{}", agent.log());
    // Nothing of it is kept.
    let agent = restart(agent);
    agent.wait_for_answers(WEB, A, &["A 10.0.0.7"]);
}

#[test]
fn a_drain_at_the_stop_is_for_whoever_asks_for_it_and_has_something_to_drain() {
    let web = "service: web\nport: 80\nttl: 300s\n";
    // What is answered, how it is started, which signals, and whether it waits.
    let cases: &[(&str, &[&str], &[Signal], bool)] = &[
        (web, &["--drain"], &[Signal::SIGTERM, Signal::SIGTERM], true),
        (web, &["--drain"], &[Signal::SIGTERM, Signal::SIGINT], true),
        (web, &["--drain"], &[Signal::SIGINT], false),
        (web, &["--drain"], &[Signal::SIGUSR1, Signal::SIGTERM], false),
        (web, &[], &[Signal::SIGTERM], false),
        ("service: web\nenabled: false\n", &["--drain"], &[Signal::SIGTERM], false),
    ];
    for (service, options, signals, waits) in cases {
        let mut agent = Agent::start_as(options, &[], |folder| {
            fs::write(folder.join("services.d/web.yaml"), service).unwrap();
        });
        for signal in *signals {
            agent.signal(*signal);
            match signal {
                Signal::SIGUSR1 => agent.wait_for_log("SIGUSR1"),
                Signal::SIGTERM if *waits && !agent.log().contains("drained") => {
                    agent.wait_for_log("drained: going on for 30 s");
                }
                _ => {}
            }
        }
        assert_eq!(agent.wait().code(), Some(0), "{}", agent.log());
        assert_eq!(agent.log().contains("drained: going on"), *waits, "{options:?} {signals:?}: {}", agent.log());
    }
}

#[test]
fn commands_ask_over_tls_and_on_a_unix_socket() {
    let config = "http: {listen: [127.0.0.1:0], certificate: cert.pem, key: key.pem, socket: http.sock}\n";
    let agent = Agent::start_with(config, &[], |folder| {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
        fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        fs::write(folder.join("empty.pem"), "nothing").unwrap();
    });
    let path = |name: &str| agent.path(name).display().to_string();
    let https = format!("https://{}", agent.http());
    let (cert, empty, none, key) = (path("cert.pem"), path("empty.pem"), path("none.pem"), path("key.pem"));
    let other = Agent::start();
    let clear = format!("https://{}", other.http());
    let (socket, nowhere) = (format!("unix://{}", path("http.sock")), format!("unix://{}", path("none.sock")));
    let plain = format!("http://{}", agent.http());
    let wrong_name = format!("https://localhost:{}", agent.http().port());
    let cases: &[(&str, &[&str], i32, &str)] = &[
        (&https, &["--ca-file", &cert], 0, "host-a"),
        (&socket, &[], 0, "host-a"),
        (
            &https,
            &[],
            2,
            "no trusted authority has issued its certificate\nName the authority's certificate with --ca-file",
        ),
        (&https, &["--ca-file", &empty], 2, "holds no certificate in PEM"),
        (&https, &["--ca-file", &none], 2, "cannot read --ca-file"),
        (&plain, &["--ca-file", &none], 2, "cannot read --ca-file"),
        (&https, &["--ca-file", &key], 2, "holds a private key, but it holds no certificate in PEM"),
        (&wrong_name, &["--ca-file", &cert], 2, "its certificate is for 127.0.0.1, not for localhost"),
        (&plain, &[], 2, "Does it speak TLS? Then its address begins with https://."),
        (&clear, &["--ca-file", &cert], 2, "it does not speak TLS\nIts address begins with http://."),
        (&https, &["--ca-file", &cert, "--token-file", &none], 2, "cannot read the token file"),
        (&nowhere, &[], 2, "cannot ask the agent at unix://"),
    ];
    for (address, options, code, expected) in cases {
        let arguments = [&["members"], *options].concat();
        let (exit, text) = muster(&arguments, &[("MUSTER_HTTP_ADDR", address)]);
        assert!(exit == *code && text.contains(expected), "{address} {options:?}: {exit} {text}");
    }
    // 0.0.0.0 is this host, and looks like any other.
    let open = format!("http://0.0.0.0:{}", Agent::start().http().port());
    for (address, warns) in [(&open, true), (&https, false), (&socket, false)] {
        let environment = [("MUSTER_HTTP_ADDR", &**address), ("MUSTER_HTTP_TOKEN", "a-token-of-someone")];
        let text = muster(&["members", "--ca-file", &cert], &environment).1;
        assert_eq!(text.contains("can read the token: use https://"), warns, "{address}: {text}");
    }
    // An order, too.
    let (exit, text) = muster(&["reload", "--http-addr", &socket], &[]);
    assert!(exit == 0 && text.contains("reads its service and zone files again"), "{text}");
}

/// systemd waits for as long as a drain and the end after it may take.
#[test]
fn the_unit_drains_and_is_given_the_time() {
    let unit = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/muster.service")).unwrap();
    let value = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    assert!(value("ExecStart=").ends_with("--drain"), "{unit}");
    let patience = Duration::from_secs(value("TimeoutStopSec=").parse().unwrap());
    assert!(patience >= muster::daemon::MAX_DRAIN + Duration::from_secs(10), "{patience:?}");
}

/// Who stops a program for a drain that is over takes requests down.
#[test]
fn a_drain_that_was_given_back_meanwhile_is_not_safe() {
    let agent = Agent::start();
    agent.write_service("web.yaml", "service: web\nport: 80\nttl: 1s\n");
    agent.wait_for_answers(WEB, A, &["A 10.0.0.7"]);
    let (code, text) = said(&agent, &["drain", "web-host-a", "--for", "1s"]);
    assert!(code == 1 && text.contains("not safe to stop: web/web-host-a is answered again"), "{code} {text}");
    let (code, text) = said(&agent, &["drain", "web-host-a"]);
    assert!(code == 0 && text.ends_with("safe to stop\n"), "{code} {text}");
    assert_eq!(said(&agent, &["resume", "web-host-a"]).0, 0);
    let (code, text) = said(&agent, &["resume", "web-host-a"]);
    assert!(code == 0 && text.contains("nothing of web-host-a was held back"), "{code} {text}");
}
