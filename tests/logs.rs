//! JSON logs of the agent: each event once, with fields; queries and requests are not logged.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{fs, net::UdpSocket};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::{
    Ask,
    agent::Agent,
    http::{ask, put},
    wait::{self, DEADLINE},
};

/// An agent that logs JSON, with a cursor in its log.
struct Logging {
    agent: Agent,
    read: usize,
}

impl Logging {
    fn start(services: &str) -> Self {
        let config = "checks: {allow_exec: true}\nlog: {format: json}\n";
        let agent = Agent::start_with(config, &[], |folder| {
            fs::write(folder.join("services.d/all.yaml"), services).unwrap();
        });
        Self { agent, read: 0 }
    }

    /// Returns all events so far.
    fn events(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        self.agent.log().lines().map(parse).collect()
    }

    /// Waits for the next event with this message and moves the cursor behind it.
    #[track_caller]
    fn wait_for(&mut self, message: &str) -> Value {
        let (at, event) = wait::poll(|| {
            let mut events = self.events().into_iter().enumerate().skip(self.read);
            let found = events.find(|(_, event)| event["message"].as_str().unwrap().contains(message));
            found.ok_or_else(|| format!("no {message:?} in {}", self.agent.log()))
        });
        self.read = at + 1;
        event
    }

    /// Number of events with this message.
    fn count(&self, message: &str) -> usize {
        self.events().iter().filter(|event| event["message"].as_str().unwrap().contains(message)).count()
    }
}

/// Formats fields of an event as `name=value`; `-` if absent.
fn fields(event: &Value, names: &[&str]) -> String {
    let field = |name: &&str| format!("{name}={}", event[*name].as_str().unwrap_or("-"));
    names.iter().map(field).collect::<Vec<_>>().join(" ")
}

#[test]
fn events_are_logged_once_with_fields_and_queries_never() {
    let mut agent = Logging::start("service: web\nport: 80\nchecks: [{exec: [/bin/sh, -c, exit 2], interval: 1s}]\n");
    let (dns, api) = (agent.agent.address(), agent.agent.http());
    let answering = agent.wait_for("answering");
    assert_eq!(fields(&answering, &["level", "node", "domain"]), "level=INFO node=host-a domain=service.local.");
    let changed = agent.wait_for("check critical");
    assert_eq!(
        fields(&changed, &["level", "service", "id", "check", "status", "reason"]),
        "level=INFO service=web id=web-host-a check=exec /bin/sh status=critical reason=exit 2"
    );

    for (path, body) in [
        ("agent/service/register", json!({"Name": "db", "Port": 5432})),
        ("agent/service/register", json!({"Name": "db", "Port": 5432})),
        ("muster/drain/db-host-a?reason=new%20disk", Value::Null),
        ("muster/drain/db-host-a?reason=new%20disk", Value::Null),
        ("muster/resume/db-host-a", Value::Null),
        ("agent/service/deregister/db", Value::Null),
    ] {
        put(&agent.agent, path, &body);
    }
    let registered = agent.wait_for("registered by HTTP");
    assert_eq!(fields(&registered, &["level", "service", "id"]), "level=INFO service=db id=db-host-a");
    let held = agent.wait_for("instance withheld: draining");
    let names = ["level", "service", "id", "hold", "reason"];
    assert_eq!(fields(&held, &names), "level=INFO service=db id=db-host-a hold=draining reason=new disk");
    agent.wait_for("instance no longer withheld");
    agent.wait_for("deregistered by HTTP");

    let broken = agent.agent.path("services.d/broken.yaml");
    fs::write(&broken, "service: [").unwrap();
    let problem = agent.wait_for("broken.yaml:");
    assert_eq!(fields(&problem, &["level", "path"]), format!("level=WARN path={}", broken.display()));
    fs::remove_file(&broken).unwrap();
    let fixed = agent.wait_for("all problems resolved");
    assert_eq!(fields(&fixed, &["level", "path"]), format!("level=INFO path={}", broken.display()));

    let before = agent.read;
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    for number in 0..100 {
        let name = format!("n{number}.service.local.");
        let query = Ask { name, qtype: 33, edns: Some(1232), dnssec_ok: false }.packet(number);
        socket.send_to(&query, dns).unwrap();
        socket.recv(&mut [0; 4096]).unwrap();
        for (method, path, status) in [
            ("GET", "/v1/catalog/services", 200),
            ("GET", "/nothing", 404),
            ("PUT", "/v1/agent/service/deregister/nothing", 404),
        ] {
            assert_eq!(ask(api, method, path, "").status, status, "{path}");
        }
    }
    agent.agent.signal(Signal::SIGTERM);
    assert_eq!(agent.agent.wait().code(), Some(0));
    let events = agent.events();
    let after: Vec<&str> = events[before..].iter().map(|event| event["message"].as_str().unwrap()).collect();
    assert_eq!(after, ["SIGTERM: stopping", "stopped"]);
    for (message, times) in
        [("check critical", 1), ("registered by HTTP", 2), ("instance withheld", 1), ("no longer withheld", 1)]
    {
        assert_eq!(agent.count(message), times, "{message}: {events:#?}");
    }
}
