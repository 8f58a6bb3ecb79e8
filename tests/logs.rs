//! What the agent logs, as JSON: each event once, with fields, and nothing for those who only ask.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use support::{Ask, agent::DEADLINE};

/// A running agent that logs JSON.
struct Logging {
    child: Child,
    lines: Receiver<Value>,
    seen: Vec<Value>,
    folder: tempfile::TempDir,
}

impl Logging {
    fn start(services: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = "node: host-a\nadvertise: 10.0.0.7\ndata_dir: data\nservices_dir: services.d\nzones_dir: zones\n\
                      dns: {listen: [127.0.0.1:0]}\nhttp: {listen: [127.0.0.1:0]}\ngossip: {listen: 127.0.0.1:0}\n\
                      resolver: {allow: []}\nchecks: {allow_exec: true}\nlog: {format: json}\n";
        fs::create_dir(folder.path().join("services.d")).unwrap();
        fs::create_dir(folder.path().join("zones")).unwrap();
        fs::write(folder.path().join("services.d/all.yaml"), services).unwrap();
        fs::write(folder.path().join("muster.yaml"), config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
        command.args(["agent", "--config"]).arg(folder.path().join("muster.yaml"));
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let log = BufReader::new(child.stderr.take().unwrap());
        thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        Self { child, lines, seen: Vec::new(), folder }
    }

    /// The next event with this message; those before it are kept.
    fn wait_for(&mut self, message: &str) -> Value {
        loop {
            let event = self.lines.recv_timeout(DEADLINE);
            let event = event.unwrap_or_else(|error| panic!("{error}: no {message:?} in {:#?}", self.seen));
            self.seen.push(event.clone());
            if event["message"].as_str().unwrap().contains(message) {
                return event;
            }
        }
    }

    /// How many events with this message there were.
    fn count(&self, message: &str) -> usize {
        self.seen.iter().filter(|event| event["message"].as_str().unwrap().contains(message)).count()
    }

    /// The rest of the log, when the agent has ended.
    fn stop(&mut self) {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM).unwrap();
        self.child.wait().unwrap();
        while let Ok(event) = self.lines.recv_timeout(DEADLINE) {
            self.seen.push(event);
        }
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn address(event: &Value) -> SocketAddr {
    event["address"].as_str().unwrap().parse().unwrap()
}

fn request(api: SocketAddr, line: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(api).unwrap();
    let head =
        format!("{line} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The fields of an event that are there, as `name=value`.
fn fields(event: &Value, names: &[&str]) -> String {
    let field = |name: &&str| format!("{name}={}", event[*name].as_str().unwrap_or("-"));
    names.iter().map(field).collect::<Vec<_>>().join(" ")
}

#[test]
fn events_are_told_once_with_their_fields_and_questions_never() {
    let mut agent = Logging::start("service: web\nport: 80\nchecks: [{exec: [/bin/sh, -c, exit 2], interval: 1s}]\n");
    let dns = address(&agent.wait_for("listening for DNS"));
    let api = address(&agent.wait_for("listening for HTTP"));
    let answering = agent.wait_for("answering");
    assert_eq!(fields(&answering, &["level", "node", "domain"]), "level=INFO node=host-a domain=service.local.");
    let turned = agent.wait_for("check critical");
    assert_eq!(
        fields(&turned, &["level", "service", "id", "check", "status", "reason"]),
        "level=INFO service=web id=web-host-a check=exec /bin/sh status=critical reason=exit 2"
    );

    for answer in [
        request(api, "PUT /v1/agent/service/register", "{\"Name\": \"db\", \"Port\": 5432}"),
        request(api, "PUT /v1/agent/service/register", "{\"Name\": \"db\", \"Port\": 5432}"),
        request(api, "PUT /v1/muster/drain/db-host-a?reason=new%20disk", ""),
        request(api, "PUT /v1/muster/drain/db-host-a?reason=new%20disk", ""),
        request(api, "PUT /v1/muster/resume/db-host-a", ""),
        request(api, "PUT /v1/agent/service/deregister/db", ""),
    ] {
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let registered = agent.wait_for("registered by HTTP");
    assert_eq!(fields(&registered, &["level", "service", "id"]), "level=INFO service=db id=db-host-a");
    let held = agent.wait_for("instance is held back: it is draining");
    let names = ["level", "service", "id", "gate", "reason"];
    assert_eq!(fields(&held, &names), "level=INFO service=db id=db-host-a gate=draining reason=new disk");
    agent.wait_for("instance is not held back any more");
    agent.wait_for("deregistered by HTTP");

    let broken = agent.folder.path().join("services.d/broken.yaml");
    fs::write(&broken, "service: [").unwrap();
    let problem = agent.wait_for("broken.yaml:");
    assert_eq!(fields(&problem, &["level", "path"]), format!("level=WARN path={}", broken.display()));
    fs::remove_file(&broken).unwrap();
    let mended = agent.wait_for("no problems any more");
    assert_eq!(fields(&mended, &["level", "path"]), format!("level=INFO path={}", broken.display()));

    let before = agent.seen.len();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    for number in 0..100 {
        let name = format!("n{number}.service.local.");
        let query = Ask { name, qtype: 33, edns: Some(1232), dnssec_ok: false }.packet(number);
        socket.send_to(&query, dns).unwrap();
        socket.recv(&mut [0; 4096]).unwrap();
        request(api, "GET /v1/catalog/services", "");
        request(api, "GET /nothing", "");
        request(api, "PUT /v1/agent/service/deregister/nothing", "");
    }
    agent.stop();
    let after: Vec<&str> = agent.seen[before..].iter().map(|event| event["message"].as_str().unwrap()).collect();
    assert_eq!(after, ["SIGTERM: stopping", "stopped"]);
    for (message, times) in
        [("check critical", 1), ("registered by HTTP", 2), ("instance is held back", 1), ("not held back", 1)]
    {
        assert_eq!(agent.count(message), times, "{message}: {:#?}", agent.seen);
    }
}
