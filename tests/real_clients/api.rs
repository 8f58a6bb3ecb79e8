//! Clients of Consul's HTTP API in Python and Node.js: all calls to supported endpoints, and errors of others.

use std::{
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc::Receiver,
};

use serde_json::Value;

use crate::{
    scene::{DOCUMENT, assert_success, fetched},
    support::{
        agent::Agent,
        backend::Backend,
        document::block,
        http::ask,
        process::{self, Finish},
        skip,
        wait::DEADLINE,
    },
};

fn script(name: &str) -> String {
    format!("{}/tests/real_clients/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn assert_python(python: &Path, modules: &Path) {
    let (agent, other, backend) = (Agent::start(), Agent::start_host_b(), Backend::start(&["web"]));
    let mut command = process::command(python);
    command.args(["-B", "-W", "ignore", &script("consul_client.py")]).env("PYTHONPATH", modules);
    command.args([agent.http(), other.gossip(), backend[0].address()].map(|address| address.to_string()));
    assert_success(&command.finish());
}

fn node_modules(test: &str) -> Option<PathBuf> {
    fetched(test, "node_modules").filter(|_| skip::tool(test, "node", "nodejs"))
}

#[test]
fn py_consul_reads_and_writes() {
    let Some(python) = fetched("py_consul_reads_and_writes", "python/bin/python") else { return };
    assert_python(&python, Path::new(""));
}

#[test]
fn python_consul_reads_and_writes() {
    let test = "python_consul_reads_and_writes";
    let (Some(python), Some(modules)) = (fetched(test, "python/bin/python"), fetched(test, "python-old")) else {
        return;
    };
    assert_python(&python, &modules);
}

#[test]
fn node_consul_reads_writes_and_watches() {
    let Some(modules) = node_modules("node_consul_reads_writes_and_watches") else { return };
    let agent = Agent::start();
    let mut command = process::command("node");
    command.arg(script("consul_client.js")).arg(agent.http().to_string()).env("NODE_PATH", modules);
    assert_success(&command.finish());
}

/// Running program from the document, killed on drop.
struct Example(process::Owned);

impl Example {
    fn start(mut command: Command) -> (Self, Receiver<String>) {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = process::lines(child.stdout.take().unwrap());
        (Self(process::Owned(child)), lines)
    }

    /// Ends the program and returns its error output.
    fn errors(&mut self) -> String {
        process::kill_now(&mut self.0.0);
        let mut text = String::new();
        self.0.0.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }
}

/// The program registers a service, discovers it, and prints the number of instances after a change.
#[test]
fn documented_python_example_follows_health() {
    let Some(python) = fetched("documented_python_example_follows_health", "python/bin/python") else { return };
    let agent = Agent::start();
    let text = block(DOCUMENT, "python").replace("port=8500", &format!("port={}", agent.http().port()));
    let mut command = process::command(python);
    command.args(["-u", "-c", &format!("{text}\nprint(len(instances))")]);
    let (mut example, lines) = Example::start(command);
    let first = lines.recv_timeout(DEADLINE).ok();
    if first.as_deref() != Some("10.0.0.7 8000") {
        panic!("{first:?}: {}", example.errors());
    }
    assert_eq!(ask(agent.http(), "PUT", "/v1/agent/check/fail/service:api-1", "").status, 200);
    assert_eq!(lines.recv_timeout(DEADLINE).ok().as_deref(), Some("0"));
}

/// The program prints the healthy instances, initially and after a change.
#[test]
fn documented_javascript_example_follows_health() {
    let Some(modules) = node_modules("documented_javascript_example_follows_health") else { return };
    let agent = Agent::start();
    let text = block(DOCUMENT, "node").replace("port: 8500", &format!("port: {}", agent.http().port()));
    let mut command = process::command("node");
    command.args(["-e", &format!("(async () => {{ {text} }})();")]).env("NODE_PATH", modules);
    let (mut example, lines) = Example::start(command);
    let first = lines.recv_timeout(DEADLINE).ok();
    if first.as_deref() != Some("10.0.0.7:8000") {
        panic!("{first:?}: {}", example.errors());
    }
    assert_eq!(ask(agent.http(), "PUT", "/v1/agent/check/fail/service:api-1", "").status, 200);
    assert_eq!(lines.recv_timeout(DEADLINE).ok().as_deref(), Some(""));
    let known: Value = ask(agent.http(), "GET", "/v1/agent/services", "").json();
    assert_eq!(known["api-1"]["Port"], 8000);
}
