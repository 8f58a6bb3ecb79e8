//! Event streams, `muster monitor`, and problems in `muster status`, with the built program.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{
    fs,
    net::SocketAddr,
    process::{Child, Output, Stdio},
    sync::mpsc::Receiver,
};

use nix::sys::signal::{Signal, kill};
use serde_json::Value;
use support::{
    agent::Agent,
    http::put,
    process::{self, Finish},
    wait::{DEADLINE, until},
};

const A: u16 = 1;

/// A command with streaming output.
struct Printing {
    child: Child,
    lines: Receiver<String>,
    stderr: Receiver<String>,
}

impl Printing {
    fn start(http: SocketAddr, arguments: &[&str]) -> Self {
        let mut command = process::muster();
        command.args(arguments).env("MUSTER_HTTP_ADDR", http.to_string());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = process::lines(child.stdout.take().unwrap());
        let stderr = process::lines(child.stderr.take().unwrap());
        Self { child, lines, stderr }
    }

    /// Causes events until the command prints one, and discards its output.
    fn wait_for_first(&self, agent: &Agent) {
        until("the command prints an event", || {
            for enable in [true, false] {
                put(agent, &format!("agent/maintenance?enable={enable}"), &Value::Null);
            }
            self.lines.try_iter().count() > 0
        });
    }

    fn next(&self) -> String {
        self.lines.recv_timeout(DEADLINE).expect("another line")
    }

    /// Returns the next line without its time.
    fn event(&self) -> String {
        let line = self.next();
        let (time, rest) = line.split_once("  ").unwrap();
        assert!(humantime::parse_rfc3339(time).is_ok(), "{line}");
        rest.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn expect_stderr(&self, text: &str) {
        let line = self.stderr.recv_timeout(DEADLINE).expect("a line on stderr");
        assert!(line.contains(text), "{line}");
    }

    fn end(mut self, signal: Signal) -> Option<i32> {
        kill(process::pid(&self.child), signal).unwrap();
        process::wait(&mut self.child).code()
    }
}

impl Drop for Printing {
    fn drop(&mut self) {
        process::kill_now(&mut self.child);
    }
}

fn muster(http: SocketAddr, arguments: &[&str]) -> Output {
    let mut command = process::muster();
    command.args(arguments).env("MUSTER_HTTP_ADDR", http.to_string()).finish()
}

/// An agent that answers the service `web`.
fn agent() -> Agent {
    let agent = Agent::start();
    agent.write_service("web.yaml", "service: web\nport: 80\n");
    agent.wait_for_answers("web.service.local.", A, &["A 10.0.0.7"]);
    agent
}

#[test]
fn monitor_prints_events_as_they_happen() {
    let agent = agent();
    let monitor = Printing::start(agent.http(), &["monitor"]);
    let services = Printing::start(agent.http(), &["monitor", "--service", "web", "--kind", "instance", "--json"]);
    for printing in [&monitor, &services] {
        printing.wait_for_first(&agent);
    }
    let mark = |printing: &Printing, text: &str| {
        until(text, || printing.next().contains(text));
    };

    put(&agent, "muster/drain/web-host-a?reason=new+disk", &Value::Null);
    mark(&services, "draining");
    mark(&monitor, "draining: new disk");
    put(&agent, "muster/resume/web-host-a", &Value::Null);
    let expected = "instance-released web/web-host-a on host-a is no longer withheld, answered: passing";
    assert_eq!(monitor.event(), expected);
    let event: Value = serde_json::from_str(&services.next()).unwrap();
    assert_eq!(
        (&event["Was"], &event["State"], &event["Service"]),
        (&"draining".into(), &"passing".into(), &"web".into())
    );

    agent.write_service("web.yaml", "service: web\nprot: 80\n");
    let problem = monitor.event();
    let path = agent.path("services.d/web.yaml").display().to_string();
    assert!(problem.starts_with(&format!("file-problem {path}:2:1: unknown key `prot`")), "{problem}");
    assert!(monitor.event().ends_with("the last valid content of this file stays in use until it is fixed"));
    let reload = monitor.event();
    assert!(reload.starts_with("file-reload") && reload.ends_with("reloaded, 1 instance"), "{reload}");

    fs::remove_file(agent.path("services.d/web.yaml")).unwrap();
    let mut lines: Vec<String> = (0..4).map(|_| monitor.event()).collect();
    lines.sort();
    let kinds: Vec<&str> = lines.iter().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(kinds, ["file-mended", "file-reload", "instance-removed", "service-removed"]);
    assert_eq!(monitor.end(Signal::SIGTERM), Some(0));
    assert_eq!(services.end(Signal::SIGINT), Some(0));
}

#[test]
fn monitor_reconnects_to_a_restarted_agent() {
    let agent = agent();
    let http = agent.http();
    let monitor = Printing::start(http, &["monitor", "--kind", "instance", "--json"]);
    monitor.wait_for_first(&agent);
    drop(agent);
    monitor.expect_stderr("lost the connection to the agent");
    let config = format!("http: {{listen: [\"{http}\"]}}\n");
    let agent = Agent::start_with(&config, &[], |folder| {
        fs::write(folder.join("services.d/web.yaml"), "service: web\n").unwrap();
    });
    monitor.expect_stderr("reconnected to the agent");
    put(&agent, "agent/maintenance?enable=true", &Value::Null);
    let mut kinds = Vec::new();
    while kinds.last().is_none_or(|kind| kind != "instance-held") {
        let event: Value = serde_json::from_str(&monitor.next()).unwrap();
        kinds.push(event["Kind"].as_str().unwrap().to_owned());
    }
    assert!(kinds.contains(&"missed".to_owned()), "a restart causes a missed event: {kinds:?}");
}

#[test]
fn monitor_ends_at_a_closed_pipe_and_prints_refusals() {
    let agent = agent();
    let mut child = process::muster()
        .arg("monitor")
        .env("MUSTER_HTTP_ADDR", agent.http().to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(process::wait(&mut child).code(), Some(0));

    let output = muster(agent.http(), &["monitor", "--kind", "nothing"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("expected one of service-added"), "{output:?}");
    let unreachable: SocketAddr = "127.0.0.1:1".parse().unwrap();
    assert_eq!(muster(unreachable, &["monitor"]).status.code(), Some(2));
}

#[test]
fn status_shows_problems_and_holds() {
    let agent = agent();
    let status = || {
        let output = muster(agent.http(), &["status"]);
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let shows = |code: i32, expected: &[&str]| {
        until("the status is as expected", || {
            let (exit, text) = status();
            exit == code && expected.iter().all(|line| text.contains(line))
        });
    };
    let folder = |name: &str| agent.path(name).display().to_string();
    let files = format!("files       {}: 1 instance", folder("services.d"));
    shows(0, &[&files]);

    agent.write_service("web.yaml", "service: web\nprot: 80\n");
    fs::write(agent.path("zones/example.org.zone"), "@ SOA\n").unwrap();
    let problem = format!("problem     {}:2:1: unknown key `prot`", folder("services.d/web.yaml"));
    let kept = "warning: the last valid content of this file stays in use until it is fixed";
    let zone = format!("problem     {}:1:", folder("zones/example.org.zone"));
    shows(1, &[&files, &problem, kept, &zone, "nothing from this file is in use until it is fixed"]);

    agent.write_service("web.yaml", "service: web\nport: 81\n");
    fs::remove_file(agent.path("zones/example.org.zone")).unwrap();
    put(&agent, "muster/drain/web-host-a?reason=new+disk&for=1h", &Value::Null);
    shows(0, &[&files, "withheld    web/web-host-a: draining for ", ": new disk"]);
    assert!(!status().1.contains("problem"));
    let output = muster(agent.http(), &["status", "--json"]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["Muster"]["Held"][0]["Gate"], "draining");
}

#[test]
fn curl_reads_a_stream() {
    if !support::skip::tool("curl reads a stream", "curl", "curl") {
        return;
    }
    let agent = agent();
    let url = format!("http://{}/v1/watch/health/service/web?passing", agent.http());
    let mut child = process::command("curl").args(["-sN", &url]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = process::lines(child.stdout.take().unwrap());
    let next = || lines.recv_timeout(DEADLINE).unwrap();
    for expected in [1, 0] {
        let id: u64 = next().strip_prefix("id: ").unwrap().parse().unwrap();
        assert!(id > 1_000_000_000_000, "{id}");
        assert_eq!(next(), "event: state");
        let data: Value = serde_json::from_str(next().strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(data.as_array().unwrap().len(), expected);
        assert_eq!(next(), "");
        if expected == 1 {
            put(&agent, "agent/maintenance?enable=true", &Value::Null);
        }
    }
    process::kill_now(&mut child);
}
