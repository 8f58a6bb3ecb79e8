//! Clients of Consul's and of etcd's API in Python, Node.js and Rust, each on two nodes of a store of three voters.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    scene::{assert_success, fetched},
    support::{
        process::{self, Finish},
        skip,
        voters::Voters,
    },
};

/// Runs a script of this folder with two addresses of nodes.
fn assert_runs(mut command: Command, name: &str, address: impl Fn(&Voters, usize) -> SocketAddr) {
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real_clients").join(name));
    assert_succeeds(command, address);
}

/// Runs a command with two addresses of nodes.
fn assert_succeeds(mut command: Command, address: impl Fn(&Voters, usize) -> SocketAddr) {
    let voters = Voters::start();
    assert_success(&command.args([0, 1].map(|at| address(&voters, at).to_string())).finish());
}

/// Returns a command of Python with additional modules.
fn python(python: &Path, modules: &Path) -> Command {
    let mut command = process::command(python);
    command.args(["-B", "-W", "ignore"]).env("PYTHONPATH", modules);
    command
}

/// Returns a command of Node.js with the modules; skips the test if they are missing.
fn node(test: &str) -> Option<Command> {
    let modules = fetched(test, "node_modules").filter(|_| skip::tool(test, "node", "nodejs"))?;
    let mut command = process::command("node");
    command.env("NODE_PATH", modules);
    Some(command)
}

fn consul(voters: &Voters, at: usize) -> SocketAddr {
    voters.agent(at).http()
}

fn python_with(test: &str, modules: &str) -> Option<(PathBuf, PathBuf)> {
    Some((fetched(test, "python/bin/python")?, fetched(test, modules)?))
}

#[test]
fn py_consul_reads_writes_and_locks_keys() {
    let Some(program) = fetched("py_consul_reads_writes_and_locks_keys", "python/bin/python") else { return };
    assert_runs(python(&program, Path::new("")), "consul_store.py", consul);
}

#[test]
fn python_consul_reads_writes_and_locks_keys() {
    let test = "python_consul_reads_writes_and_locks_keys";
    let Some((program, modules)) = python_with(test, "python-old") else { return };
    assert_runs(python(&program, &modules), "consul_store.py", consul);
}

#[test]
fn node_consul_reads_writes_and_locks_keys() {
    let Some(command) = node("node_consul_reads_writes_and_locks_keys") else { return };
    assert_runs(command, "consul_store.js", consul);
}

#[test]
fn python_etcd3_watches_and_locks_keys() {
    let Some((program, modules)) = python_with("python_etcd3_watches_and_locks_keys", "python-etcd3") else { return };
    let mut command = python(&program, &modules);
    // Its generated code is older than the C implementation.
    command.env("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python");
    assert_runs(command, "etcd3_client.py", Voters::etcd);
}

#[test]
fn python_etcd3gw_watches_and_locks_keys() {
    let Some(program) = fetched("python_etcd3gw_watches_and_locks_keys", "python/bin/python") else { return };
    assert_runs(python(&program, Path::new("")), "etcd3gw_client.py", Voters::etcd);
}

#[test]
fn node_etcd3_watches_locks_and_elects() {
    let Some(command) = node("node_etcd3_watches_locks_and_elects") else { return };
    assert_runs(command, "etcd3_client.js", Voters::etcd);
}

#[test]
fn rust_etcd_client_watches_locks_and_elects() {
    let Some(program) = fetched("rust_etcd_client_watches_locks_and_elects", "etcd-client-calls") else { return };
    assert_succeeds(process::command(program), Voters::etcd);
}
