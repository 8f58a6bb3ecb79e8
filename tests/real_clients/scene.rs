//! Common scene: an agent, and a service `web` of web servers whose health the test reports.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

use crate::support::{
    agent::Agent,
    backend::Backend,
    document::block,
    http::{ask, try_ask},
    program::{Program, free},
    run, skip,
};

/// Document with the tested configurations.
pub(crate) const DOCUMENT: &str = "docs/integrations.md";
const A: u16 = 1;
/// Result of a request that the proxy answers with an error.
const NO_SERVER: &str = "no server";

/// Agent, web servers, and a folder for the program.
pub(crate) struct Scene {
    /// Agent.
    pub(crate) agent: Agent,
    /// Web servers by instance id.
    pub(crate) backends: Vec<(String, Backend)>,
    /// Folder of the program.
    pub(crate) folder: TempDir,
}

impl Scene {
    /// Starts an agent with additional configuration and a healthy web server for each instance: its id, and additional
    /// keys of its definition.
    pub(crate) fn start(instances: &[(&str, &str)], config: &str) -> Self {
        Self::start_with(instances, config, |_| {})
    }

    /// Starts the scene in a folder that `prepare` fills.
    pub(crate) fn start_with(instances: &[(&str, &str)], config: &str, prepare: impl FnOnce(&Path)) -> Self {
        let names: Vec<&str> = instances.iter().map(|(name, _)| *name).collect();
        let backends = Backend::start(&names);
        let services = services(instances, &backends);
        let agent = Agent::start_with(config, &[], |folder| {
            fs::write(folder.join("services.d/web.yaml"), services).unwrap();
            prepare(folder);
        });
        let backends = names.iter().map(|name| (*name).to_owned()).zip(backends).collect();
        let scene = Self { agent, backends, folder: run::temp_dir() };
        scene.wait_for(&names);
        scene
    }

    /// Waits until muster answers exactly these instances.
    pub(crate) fn wait_for(&self, names: &[&str]) {
        let address = |name: &&str| format!("A {}", self.backend(name).address().ip());
        let mut expected: Vec<String> = names.iter().map(address).collect();
        expected.sort();
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        self.agent.wait_for_answers("web.service.local.", A, &expected);
    }

    fn backend(&self, name: &str) -> &Backend {
        &self.backends.iter().find(|(known, _)| known == name).unwrap().1
    }

    /// Returns the port of all web servers.
    pub(crate) fn port(&self) -> u16 {
        self.backends[0].1.address().port()
    }

    /// Sets an instance's health.
    pub(crate) fn set_health(&self, name: &str, healthy: bool) {
        report(&self.agent, name, healthy);
    }

    /// Sends a PUT request to the agent, which must succeed.
    pub(crate) fn put(&self, path: &str, body: &str) {
        let answer = ask(self.agent.http(), "PUT", &format!("/v1/{path}"), body);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    }

    /// Writes a file for the program and returns its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// Returns a configuration of the document with the addresses of this scene: of the agent, of the web servers, and
    /// `listen` for the program.
    pub(crate) fn configuration(&self, kind: &str, listen: SocketAddr) -> String {
        block(DOCUMENT, kind)
            .replace("127.0.0.1:8600", &self.agent.address().to_string())
            .replace("127.0.0.1:8500", &self.agent.http().to_string())
            .replace("port_value: 8600", &format!("port_value: {}", self.agent.address().port()))
            .replace("port=8500", &format!("port={}", self.agent.http().port()))
            .replace("port: 8500", &format!("port: {}", self.agent.http().port()))
            .replace("127.0.0.1:8080", &listen.to_string())
            .replace("9000", &self.port().to_string())
    }

    /// Starts a program.
    pub(crate) fn program(&self, command: Command) -> Program {
        Program::start(command, self.folder.path())
    }

    /// Asserts that a proxy on `listen` uses exactly the answered instances while health and drains change.
    pub(crate) fn assert_followed(&self, mut proxy: Program, listen: SocketAddr) {
        let all: Vec<&str> = self.backends.iter().map(|(name, _)| name.as_str()).collect();
        let [first, second, ..] = all[..] else { panic!("at least two servers") };
        let rest =
            |without: &[&str]| -> Vec<&str> { all.iter().copied().filter(|name| !without.contains(name)).collect() };
        let mut follows = |what: &str, names: &[&str]| {
            self.wait_for(names);
            let expected: BTreeSet<String> = match names {
                [] => BTreeSet::from([NO_SERVER.to_owned()]),
                names => names.iter().map(|name| (*name).to_owned()).collect(),
            };
            proxy.wait_for(what, &expected, || visits(listen, 8 * all.len()));
        };
        follows("at first", &all);
        self.set_health(first, false);
        follows("the first is critical", &rest(&[first]));
        self.put(&format!("muster/drain/{second}"), "");
        follows("the second is drained", &rest(&[first, second]));
        self.set_health(first, true);
        follows("the first is passing again", &rest(&[second]));
        self.put(&format!("muster/resume/{second}"), "");
        follows("the second is resumed", &all);
        for name in &all {
            self.set_health(name, false);
        }
        follows("all are critical", &[]);
        self.set_health(first, true);
        follows("the first is passing alone", &[first]);
    }
}

/// Reports the health of an instance of [`services`].
pub(crate) fn report(agent: &Agent, name: &str, healthy: bool) {
    let path = format!("/v1/agent/check/{}/service:{name}", if healthy { "pass" } else { "fail" });
    let answer = ask(agent.http(), "PUT", &path, "");
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
}

/// Returns the service file of web servers, with additional keys for each.
pub(crate) fn services(instances: &[(&str, &str)], backends: &[Backend]) -> String {
    let mut services = "services:\n".to_owned();
    for ((name, more), backend) in instances.iter().zip(backends) {
        let address = backend.address();
        writeln!(
            services,
            "- {{service: web, id: {name}, address: {}, port: {}, ttl: 1s, {more} checks: [{{ttl: 1h, initial: passing}}]}}",
            address.ip(),
            address.port()
        )
        .unwrap();
    }
    services
}

/// Returns the servers that answer these requests to a proxy; [`NO_SERVER`] for an error response, and `no proxy` if it
/// does not listen.
pub(crate) fn visits(proxy: SocketAddr, requests: usize) -> BTreeSet<String> {
    let visit = || match try_ask(proxy, "GET", "/", "") {
        None => "no proxy".to_owned(),
        Some(answer) if answer.status == 200 => answer.body.trim().to_owned(),
        Some(_) => NO_SERVER.to_owned(),
    };
    (0..requests).map(|_| visit()).collect()
}

/// Returns the path of a program or folder fetched by `tests/real_clients/install`; skips the test if it is missing.
pub(crate) fn fetched(test: &str, path: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-clients").join(path);
    skip::file(test, &path, "run tests/real_clients/install").then_some(path)
}

/// Returns a free address for the program.
pub(crate) fn listen() -> SocketAddr {
    free()
}

/// Asserts that a command succeeded, else fails with its output.
#[track_caller]
pub(crate) fn assert_success(output: &Output) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
}
