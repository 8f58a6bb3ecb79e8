//! Commands of operators, run with the built program: explain, drain, stop, and connections to an agent.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::{fs, path::Path, time::Duration};

use nix::sys::signal::Signal;
use serde_json::Value;
use support::{
    agent::Agent,
    process::{self, Finish},
    program::free,
    run,
    systemd::NotifySocket,
    wait::until,
};

const A: u16 = 1;
const TXT: u16 = 16;
const WEB: &str = "web.service.local.";

/// Runs a command with these environment variables. Returns its exit code and its output, including stderr.
fn muster(arguments: &[&str], environment: &[(&str, &str)]) -> (i32, String) {
    let mut command = process::muster();
    let output = command.args(arguments).envs(environment.iter().copied()).finish();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), text)
}

fn output(agent: &Agent, arguments: &[&str]) -> (i32, String) {
    muster(arguments, &[("MUSTER_HTTP_ADDR", &agent.http().to_string())])
}

/// Drains without waiting. Returns the wait in seconds that the agent reports.
fn drain(agent: &Agent, target: &str) -> u64 {
    let (code, text) = output(agent, &["drain", target, "--no-wait", "--json"]);
    assert_eq!(code, 0, "{text}");
    serde_json::from_str::<Value>(&text).unwrap()["WaitSeconds"].as_u64().unwrap()
}

/// Kills an agent and starts another with its files and its data.
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

#[test]
fn dig_and_explain_show_the_same_reasons() {
    let closed = free();
    let agent = Agent::start();
    agent.write_service(
        "web.yaml",
        &format!(
            "services:\n- {{service: web, id: good, port: 80}}\n\
             - {{service: web, id: bad, port: 80, checks: [{{tcp: '{closed}', interval: 100ms, timeout: 100ms}}]}}\n"
        ),
    );
    let refused = format!("check tcp {closed} is critical: connection refused");
    until("the check fails", || agent.answers("_why.bad.web.service.local.", TXT).concat().contains(&refused));
    let all = agent.answers("_why.web.service.local.", TXT);
    assert_eq!(all.len(), 2, "{all:?}");
    assert_eq!(all[0], "TXT \"1 of 2 answered\"");
    assert!(all[1].starts_with("TXT \"bad on host-a: critical since 20"), "{all:?}");
    assert_eq!(agent.answers("_why.bad.web.service.local.", TXT), [&*all[1]]);
    let good = ["TXT \"good: passing\" \"answered with weight 10\""];
    assert_eq!(agent.answers("_why.good.web.service.local.", TXT), good);
    assert!(agent.answers("_why.web.service.local.", A).is_empty());
    let (code, text) = output(&agent, &["explain", "_why.web.service.local."]);
    assert!(code == 0 && text.contains(&refused) && text.contains("1 of 2 answered"), "{text}");
}

#[test]
fn explain_covers_services_static_records_routes_and_upstreams() {
    let config = "resolver: {allow: [loopback], upstreams: [192.0.2.1], routes: {corp.example: [192.0.2.2]}}\n";
    let agent = Agent::start_with(config, &[], |folder| {
        let web = "service: web\nport: 80\ntags: [v2]\nports: {http: 80}\n";
        fs::write(folder.join("services.d/web.yaml"), web).unwrap();
        fs::write(folder.join("services.d/broken.yaml"), "service: other\nprot: 80\n").unwrap();
        let zone = "web A 192.0.2.7\nv2.web A 192.0.2.8\nold A 192.0.2.9\n*.wild A 192.0.2.10\n";
        fs::write(folder.join("zones/service.local.zone"), zone).unwrap();
        let zone = "@ SOA ns hostmaster 1 60 60 60 60\n@ NS ns\nns A 192.0.2.1\nwww 77 A 192.0.2.11\nsub NS ns.sub\nns.sub A 192.0.2.1\n";
        fs::write(folder.join("zones/example.org.zone"), zone).unwrap();
    });
    let instance = "+ web/web-host-a on host-a: passing";
    let cases: &[(&str, i32, &str)] = &[
        ("web.service.local", 0, instance),
        ("_http._tcp.web.service.local.", 0, instance),
        ("_web._v2.service.local", 0, instance),
        ("v2.web", 0, instance),
        ("web-host-a.web.service.local.", 0, instance),
        ("host-a.node.service.local.", 0, "node host-a is alive; 1 of 1 answered"),
        ("web", 0, "service.local.zone:1 defines v2.web.service.local., web.service.local.: hidden by service web."),
        ("web", 0, "broken.yaml:2:1: "),
        ("other", 1, "broken.yaml:2:1: "),
        ("old.service.local", 0, "static: service.local.zone:3 defines this name"),
        ("old", 0, "static: service.local.zone:3 defines this name"),
        ("x.wild.service.local.", 0, "static: service.local.zone:4 defines wildcard *.wild.service.local."),
        ("www.example.org", 0, "TTL 77 s, from the zone file"),
        ("ftp.example.org", 1, "NXDOMAIN: example.org.zone does not define this name"),
        ("a.sub.example.org", 0, "referral: example.org.zone:5 delegates sub.example.org. to "),
        ("localhost", 0, "NOERROR: special-use name, answered locally"),
        ("7.0.0.10.in-addr.arpa", 0, instance),
        ("a.corp.example", 0, "route corp.example. forwards it to 192.0.2.2:53"),
        ("example.com.", 0, "forwarded to 192.0.2.1:53"),
        ("7.0.0.127.in-addr.arpa", 0, "special-use name, answered locally"),
        ("none.service.local", 1, "NXDOMAIN: no node declares this name"),
        ("service.local.", 0, "apex of the discovery zone"),
    ];
    for (name, code, expected) in cases {
        let (exit, text) = output(&agent, &["explain", name]);
        assert!(exit == *code && text.contains(expected), "{name}: {exit} {text}");
    }
}

#[test]
fn a_drain_waits_for_all_served_ttls_and_survives_a_restart() {
    let agent = Agent::start_with("", &[], with_web("service: web\nport: 80\nttl: 300s\n"));
    agent.wait_for_answers(WEB, A, &["A 10.0.0.7"]);
    agent.write_service("web.yaml", "service: web\nport: 80\nttl: 5s\n");
    until("the new TTL is served", || agent.ask(WEB, A).answers[0].ttl == 5);
    let first = drain(&agent, "web-host-a");
    assert!((250..=302).contains(&first), "the TTL served before the change must expire: {first}");
    assert!(agent.answers(WEB, A).is_empty());
    until("a second drain continues the wait of the first", || drain(&agent, "web-host-a") < first);
    let (code, text) = output(&agent, &["drain", "host-a", "--timeout", "0s"]);
    assert!(code == 1 && text.contains("not safe to stop: cached answers may remain for another"), "{text}");

    let agent = restart(agent);
    let after = drain(&agent, "web-host-a");
    assert!((200..first).contains(&after), "the wait continues after a restart: {after} after {first}");
    assert!(agent.answers(WEB, A).is_empty(), "the instance remains withdrawn after a restart");
    for target in ["web-host-a", "host-a"] {
        assert_eq!(output(&agent, &["resume", target]).0, 0);
    }
    agent.wait_for_answers(WEB, A, &["A 10.0.0.7"]);
}

/// Each node answers a service without a TTL with its own default.
#[test]
fn a_drain_waits_for_the_longest_ttl_of_all_nodes() {
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
    until("the first node has received the TTL of the other", || {
        assert_eq!(output(&agent, &["resume", "web-host-a"]).0, 0);
        agent.wait_for_answers(WEB, A, &["A 10.0.0.7"]);
        drain(&agent, "web-host-a") > 250
    });
    let status = output(&agent, &["status"]).1;
    assert!(status.contains("2 alive") && status.contains("views       equal on all nodes"), "{status}");
}

#[test]
fn an_instance_never_answered_is_safe_to_stop_at_once() {
    let agent = Agent::start();
    let check = format!("{{tcp: '{}', interval: 100ms, timeout: 100ms}}", free());
    agent.write_service("web.yaml", &format!("service: web\nport: 80\nttl: 300s\nchecks: [{check}]\n"));
    until("the instance is critical", || output(&agent, &["explain", "web"]).1.contains("connection refused"));
    for target in ["web-host-a", "host-a"] {
        assert_eq!(drain(&agent, target), 0, "{target}");
        let (code, text) = output(&agent, &["drain", target]);
        assert!(code == 0 && text.contains("safe to stop") && !text.contains("waiting"), "{text}");
    }
}

#[test]
fn a_drain_with_a_period_ends_by_itself_even_after_a_restart() {
    let agent = Agent::start_with("", &[], with_web("service: web\nport: 80\nttl: 0s\n"));
    let drained = ["drain", "web-host-a", "--for", "2s", "--no-wait"];
    assert_eq!(output(&agent, &drained).0, 0);
    assert!(agent.answers(WEB, A).is_empty());
    agent.wait_for_answers(WEB, A, &["A 10.0.0.7"]);
    assert_eq!(output(&agent, &drained).0, 0);
    let agent = restart(agent);
    agent.wait_for_answers(WEB, A, &["A 10.0.0.7"]);
}

#[test]
fn a_draining_agent_runs_without_its_instances_until_ttls_expire() {
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
    agent.wait_for_log("drained: waiting");
    let extended_error = support::extended_error(&agent.ask(WEB, A)).unwrap();
    assert_eq!(extended_error, (14, "1 instance, 1 draining: its agent is about to stop".to_owned()));
    assert_eq!(agent.wait().code(), Some(0), "{}", agent.log());
    assert!(agent.log().contains("INFO stopped"), "{}", agent.log());
    // A drain at the stop ends with the process.
    let agent = restart(agent);
    agent.wait_for_answers(WEB, A, &["A 10.0.0.7"]);
}

#[test]
fn sigterm_drains_only_with_the_option_and_answered_instances() {
    let web = "service: web\nport: 80\nttl: 300s\n";
    // Service file, options, signals, and whether the agent drains.
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
                    agent.wait_for_log("drained: waiting 30 s");
                }
                _ => {}
            }
        }
        assert_eq!(agent.wait().code(), Some(0), "{}", agent.log());
        assert_eq!(agent.log().contains("drained: waiting"), *waits, "{options:?} {signals:?}: {}", agent.log());
    }
}

#[test]
fn commands_connect_over_tls_and_unix_sockets() {
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
            "its certificate was not issued by a trusted authority\nPass the issuing authority's certificate with --ca-file",
        ),
        (&https, &["--ca-file", &empty], 2, "contains no PEM certificate"),
        (&https, &["--ca-file", &none], 2, "cannot read --ca-file"),
        (&plain, &["--ca-file", &none], 2, "cannot read --ca-file"),
        (&https, &["--ca-file", &key], 2, "contains a private key, but no PEM certificate"),
        (&wrong_name, &["--ca-file", &cert], 2, "its certificate is for 127.0.0.1, not for localhost"),
        (&plain, &[], 2, "If the agent uses TLS, use an address that begins with https://."),
        (&clear, &["--ca-file", &cert], 2, "the server does not use TLS\nUse an address that begins with http://."),
        (&https, &["--ca-file", &cert, "--token-file", &none], 2, "cannot read the token file"),
        (&nowhere, &[], 2, "cannot query the agent at unix://"),
    ];
    for (address, options, code, expected) in cases {
        let arguments = [&["members"], *options].concat();
        let (exit, text) = muster(&arguments, &[("MUSTER_HTTP_ADDR", address)]);
        assert!(exit == *code && text.contains(expected), "{address} {options:?}: {exit} {text}");
    }
    // 0.0.0.0 reaches this host, but is no loopback address.
    let open = format!("http://0.0.0.0:{}", Agent::start().http().port());
    for (address, warns) in [(&open, true), (&https, false), (&socket, false)] {
        let environment = [("MUSTER_HTTP_ADDR", &**address), ("MUSTER_HTTP_TOKEN", "a-token-of-someone")];
        let text = muster(&["members", "--ca-file", &cert], &environment).1;
        assert_eq!(text.contains("warning: the token is sent unencrypted to"), warns, "{address}: {text}");
    }
    // Requests that change state use the same connections.
    let (exit, text) = muster(&["reload", "--http-addr", &socket], &[]);
    assert!(exit == 0 && text.contains("reloaded"), "{text}");
}

/// The stop timeout of the unit covers a drain and the stop after it.
#[test]
fn the_unit_drains_and_has_a_sufficient_stop_timeout() {
    let unit = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/muster.service")).unwrap();
    let value = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    assert!(value("ExecStart=").ends_with("--drain"), "{unit}");
    let timeout = Duration::from_secs(value("TimeoutStopSec=").parse().unwrap());
    assert!(timeout >= muster::daemon::MAX_DRAIN + Duration::from_secs(10), "{timeout:?}");
}

/// Stopping an instance that is answered again would fail requests.
#[test]
fn a_drain_that_ended_during_the_wait_is_not_safe() {
    let agent = Agent::start();
    agent.write_service("web.yaml", "service: web\nport: 80\nttl: 1s\n");
    agent.wait_for_answers(WEB, A, &["A 10.0.0.7"]);
    let (code, text) = output(&agent, &["drain", "web-host-a", "--for", "1s"]);
    assert!(code == 1 && text.contains("not safe to stop: web/web-host-a is answered again"), "{code} {text}");
    let (code, text) = output(&agent, &["drain", "web-host-a"]);
    assert!(code == 0 && text.ends_with("safe to stop\n"), "{code} {text}");
    assert_eq!(output(&agent, &["resume", "web-host-a"]).0, 0);
    let (code, text) = output(&agent, &["resume", "web-host-a"]);
    assert!(code == 0 && text.contains("web-host-a: not drained or in maintenance"), "{code} {text}");
}

/// Without a gossip key, every local user could announce instances whatever the API asks for.
#[test]
fn tokens_without_a_gossip_key_are_refused() {
    let mut agent = Agent::start();
    let path = agent.path("muster.yaml");
    let valid = fs::read_to_string(&path).unwrap();
    fs::create_dir(agent.path("tokens.d")).unwrap();
    let with_tokens = valid.replace("http: {", "http: {tokens_dir: tokens.d, ");
    let reason = "tokens without a gossip key: every local user could join by gossip and announce instances";
    fs::write(&path, &with_tokens).unwrap();
    let (code, text) = output(&agent, &["reload"]);
    assert!(code == 1 && text.contains(reason), "{code}: {text}");
    let (code, text) = output(&agent, &["status"]);
    assert!(code == 1 && text.contains(reason), "{code}: {text}");
    assert_eq!(output(&agent, &["members"]).0, 0, "the former configuration stays active: no token is needed");
    let (code, text) = muster(&["validate", path.to_str().unwrap()], &[]);
    assert!(code == 1 && text.contains(reason) && text.contains("set `gossip.key_file`"), "{code}: {text}");

    agent.signal(Signal::SIGKILL);
    agent.start_again();
    assert_eq!(agent.wait().code(), Some(1));
    assert!(agent.log_of_latest_start().contains(reason), "{}", agent.log());
    // With a key, or for trusted users.
    let (_, key) = muster(&["keygen"], &[]);
    fs::write(agent.path("key"), key).unwrap();
    for gossip in ["key_file: key, ", "insecure: true, "] {
        fs::write(&path, with_tokens.replace("gossip: {", &format!("gossip: {{{gossip}"))).unwrap();
        agent.start_again();
        agent.wait_until_answering();
        assert_eq!(output(&agent, &["members"]).0, 1, "a token is needed");
        agent.signal(Signal::SIGKILL);
    }
}
