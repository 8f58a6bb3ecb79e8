//! What all of them are put before: an agent, and a service `web` of web servers, whose health the test reports.

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

/// The document whose configurations are tried.
pub(crate) const DOCUMENT: &str = "docs/integrations.md";
const A: u16 = 1;

/// The agent, the web servers, and a folder for the program.
pub(crate) struct Scene {
    /// The agent.
    pub(crate) agent: Agent,
    /// The web servers; their names are the ids of the instances.
    pub(crate) backends: Vec<(String, Backend)>,
    /// Where the program may write.
    pub(crate) folder: TempDir,
}

impl Scene {
    /// A web server for each name, all healthy, with a line more in the service file of each; and more configuration.
    pub(crate) fn start(instances: &[(&str, &str)], config: &str) -> Self {
        Self::start_with(instances, config, |_| {})
    }

    /// The same in a folder that `prepare` fills.
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

    /// Waits until these are what muster answers.
    pub(crate) fn wait_for(&self, names: &[&str]) {
        let address = |name: &&str| format!("A {}", self.backend(name).address().ip());
        let mut due: Vec<String> = names.iter().map(address).collect();
        due.sort();
        let due: Vec<&str> = due.iter().map(String::as_str).collect();
        self.agent.wait_for_answers("web.service.local.", A, &due);
    }

    fn backend(&self, name: &str) -> &Backend {
        &self.backends.iter().find(|(known, _)| known == name).unwrap().1
    }

    /// The port of all web servers.
    pub(crate) fn port(&self) -> u16 {
        self.backends[0].1.address().port()
    }

    /// Turns an instance's health.
    pub(crate) fn turn(&self, name: &str, well: bool) {
        report(&self.agent, name, well);
    }

    /// Gives the agent an order.
    pub(crate) fn order(&self, path: &str, body: &str) {
        let answer = ask(self.agent.http(), "PUT", &format!("/v1/{path}"), body);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    }

    /// Writes a file for the program, and says where.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// A configuration of the document, with the addresses that things have here: the agent's, the web servers', and the one
    /// where the program is to listen.
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

    /// Starts the program.
    pub(crate) fn program(&self, command: Command) -> Program {
        Program::start(command, self.folder.path())
    }

    /// A proxy that listens at `listen` sends to these and no others, through all that happens to them.
    pub(crate) fn assert_followed(&self, mut proxy: Program, listen: SocketAddr) {
        let all: Vec<&str> = self.backends.iter().map(|(name, _)| name.as_str()).collect();
        let [first, second, ..] = all[..] else { panic!("two servers at least") };
        let rest =
            |without: &[&str]| -> Vec<&str> { all.iter().copied().filter(|name| !without.contains(name)).collect() };
        let mut follows = |what: &str, names: &[&str]| {
            self.wait_for(names);
            let due: BTreeSet<String> = match names {
                [] => BTreeSet::from(["nobody".to_owned()]),
                names => names.iter().map(|name| (*name).to_owned()).collect(),
            };
            proxy.wait_for(what, &due, || visits(listen, 8 * all.len()));
        };
        follows("at first", &all);
        self.turn(first, false);
        follows("one is ill", &rest(&[first]));
        self.order(&format!("muster/drain/{second}"), "");
        follows("another is drained", &rest(&[first, second]));
        self.turn(first, true);
        follows("one is well again", &rest(&[second]));
        self.order(&format!("muster/resume/{second}"), "");
        follows("the other is back", &all);
        for name in &all {
            self.turn(name, false);
        }
        follows("all are ill", &[]);
        self.turn(first, true);
        follows("one comes back", &[first]);
    }
}

/// Reports for an instance of [`services`].
pub(crate) fn report(agent: &Agent, name: &str, well: bool) {
    let path = format!("/v1/agent/check/{}/service:{name}", if well { "pass" } else { "fail" });
    let answer = ask(agent.http(), "PUT", &path, "");
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
}

/// The service file of web servers, with more in the entry of each.
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

/// The names of the servers that answer some requests to a proxy, `nobody` for an answer of its own, and `no proxy`.
pub(crate) fn visits(proxy: SocketAddr, requests: usize) -> BTreeSet<String> {
    let visit = || match try_ask(proxy, "GET", "/", "") {
        None => "no proxy".to_owned(),
        Some(answer) if answer.status == 200 => answer.body.trim().to_owned(),
        Some(_) => "nobody".to_owned(),
    };
    (0..requests).map(|_| visit()).collect()
}

/// A program or a folder that `tests/real_clients/install` has fetched; `None`: says that the test is skipped.
pub(crate) fn fetched(test: &str, path: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-clients").join(path);
    skip::file(test, &path, "run tests/real_clients/install").then_some(path)
}

/// A port for the program to listen at.
pub(crate) fn listen() -> SocketAddr {
    free()
}

/// It ended well; else what it printed is in the message.
#[track_caller]
pub(crate) fn assert_success(output: &Output) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
}
