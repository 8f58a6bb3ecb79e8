//! Members of the PostgreSQL cluster: each is patroni, which starts PostgreSQL.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, Uid},
};
use serde_json::Value;

use crate::{
    name,
    support::{
        http::try_ask,
        process::{self, Finish},
        program::free,
        skip,
    },
};

/// User and group that PostgreSQL runs as if the test runs as root, which PostgreSQL refuses. Mapped by a user namespace: the
/// programs keep the access of root, as Python may be in the home of root.
const UNPRIVILEGED: &str = "65534";

/// Parts of lines that patroni logs every two seconds while nothing happens: they would hide the others.
const ROUTINE: [&str; 3] = ["Lock owner: ", "no action. I am ", "bootstrap from leader "];

/// Where patroni comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Origin {
    /// The newest release.
    PyPi,
    /// The package of Debian, with Debian's Python.
    Debian,
}

/// Programs of the test.
pub(crate) struct Programs {
    /// Folder of patroni.
    bin: PathBuf,
    /// Folder of Python with a client of PostgreSQL.
    python: PathBuf,
    /// Folder of PostgreSQL's server programs.
    postgres: PathBuf,
    /// State in which patroni lists a replica that follows the primary: "running" in older versions.
    pub(crate) replica_state: &'static str,
}

impl Programs {
    /// Finds the programs; skips the test if one is missing.
    pub(crate) fn find(test: &str, origin: Origin) -> Option<Self> {
        let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-clients/python/bin");
        let (bin, how, replica_state) = match origin {
            Origin::PyPi => (python.clone(), "run tests/real_clients/install", "streaming"),
            Origin::Debian => {
                (PathBuf::from("/usr/bin"), "apt-get install patroni python3-consul python3-etcd", "running")
            }
        };
        let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let newest = versions.map(|version| version.path().join("bin")).filter(|bin| bin.join("initdb").exists()).max();
        let postgres = newest.unwrap_or_else(|| PathBuf::from("/usr/lib/postgresql"));
        let found = skip::file(test, &bin.join("patroni"), how)
            && skip::file(test, &python, "run tests/real_clients/install")
            && skip::file(test, &postgres.join("initdb"), "apt-get install postgresql")
            && skip::tool(test, "unshare", "util-linux");
        found.then_some(Self { bin, python, postgres, replica_state })
    }

    /// Returns a command of a program of patroni, as an ordinary user.
    fn command(&self, program: &str) -> Command {
        let program = self.bin.join(program);
        if !Uid::effective().is_root() {
            return process::command(program);
        }
        let mut command = process::command("unshare");
        command
            .args(["--user", &format!("--map-user={UNPRIVILEGED}"), &format!("--map-group={UNPRIVILEGED}")])
            .arg(program);
        command
    }

    /// Returns a command of Python.
    pub(crate) fn python(&self) -> Command {
        process::command(self.python.join("python"))
    }
}

/// Member, killed on drop.
pub(crate) struct Member {
    folder: PathBuf,
    /// Address of PostgreSQL.
    address: SocketAddr,
    /// Address of patroni's API.
    api: SocketAddr,
    patroni: Option<Child>,
}

impl Member {
    /// Starts a member in a new folder.
    pub(crate) fn start(programs: &Programs, folder: &Path, scope: &str, at: usize, section: &str) -> Self {
        let (folder, address, api) = (folder.join(name(at)), free(), free());
        fs::create_dir(&folder).unwrap();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/patroni/patroni.yml");
        let config = fs::read_to_string(path).unwrap();
        let config = config
            .replace("SCOPE", scope)
            .replace("NAME", &name(at))
            .replace("STORE", section)
            .replace("API", &api.to_string())
            .replace("POSTGRES", &address.to_string())
            .replace("FOLDER", &folder.display().to_string())
            .replace("BINARIES", &programs.postgres.display().to_string());
        fs::write(folder.join("patroni.yml"), config).unwrap();
        let mut member = Self { folder, address, api, patroni: None };
        member.run(programs);
        member
    }

    /// Starts patroni.
    pub(crate) fn run(&mut self, programs: &Programs) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        let mut command = programs.command("patroni");
        command.arg(self.config()).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.patroni = Some(command.spawn().unwrap());
    }

    /// Returns the path of its configuration.
    fn config(&self) -> PathBuf {
        self.folder.join("patroni.yml")
    }

    /// Returns the port of its PostgreSQL.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Returns all members as this one knows them; empty if it does not answer.
    pub(crate) fn members(&self) -> Vec<Value> {
        let answer = try_ask(self.api, "GET", "/cluster", "").filter(|answer| answer.status == 200);
        answer.and_then(|answer| answer.json()["members"].as_array().cloned()).unwrap_or_default()
    }

    /// Runs patronictl and returns what it prints.
    pub(crate) fn ctl(&self, programs: &Programs, arguments: &[&str]) -> String {
        let output = programs.command("patronictl").arg("-c").arg(self.config()).args(arguments).finish();
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat()
    }

    /// Ends patroni and PostgreSQL with SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut patroni) = self.patroni.take() {
            process::kill_now(&mut patroni);
        }
        // The first line is the process id; the other processes of PostgreSQL end with this one.
        let file = fs::read_to_string(self.folder.join("data/postmaster.pid")).unwrap_or_default();
        if let Some(Ok(pid)) = file.lines().next().map(str::parse) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }

    fn log(&self) -> PathBuf {
        self.folder.join("patroni.log")
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.log()).unwrap_or_default();
            let told = log.lines().filter(|line| !ROUTINE.iter().any(|routine| line.contains(routine)));
            let told: Vec<&str> = told.collect();
            eprintln!("patroni's log in {}, without its routine:\n{}", self.folder.display(), told.join("\n"));
        }
    }
}
