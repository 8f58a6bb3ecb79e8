//! Five hosts, three of them voters, each with a small disk in memory.

use std::{
    env,
    fs::{self, File},
    io::Write,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use nix::{
    sched::{CloneFlags, unshare},
    sys::signal::Signal,
};
use serde_json::Value as Json;
use tempfile::TempDir;

use crate::{
    injection::{Commands, DiskFault, Injection},
    support::{
        cluster::{Cluster, Host, SERVICE, Setup},
        http::{Answer, try_ask},
        process::{self, Finish},
        run,
        wait::until,
    },
};

/// Number of voters: the first hosts.
pub(crate) const VOTERS: usize = 3;
/// Number of hosts.
pub(crate) const HOSTS: usize = 5;
/// Message of a voter that could not write.
const FAILED: &str = "the log could not be written";
/// Entries that a voter may lack: more are under way to voters that are in touch with the leader while clients write.
const MAX_LAG: u64 = 100;

/// Hosts with their disks and commands for faults. Fields are dropped in this order: agents before disks.
pub(crate) struct Scene {
    pub(crate) cluster: Cluster,
    pub(crate) commands: Vec<Commands>,
    injection: Injection,
    disks: Disks,
    _only: MutexGuard<'static, ()>,
}

/// Held by the only scene: several would make each other slow.
static ONLY: Mutex<()> = Mutex::new(());

impl Scene {
    /// Starts the agents and waits for a leader. This thread gets mounts of its own, as do threads that it starts.
    pub(crate) fn start() -> Self {
        // A test that failed has ended its scene as well.
        let only = ONLY.lock().unwrap_or_else(PoisonError::into_inner);
        let (injection, disks) = (Injection::compile(), Disks::mount());
        let mut cluster = Cluster::without_agents(HOSTS as u8);
        let mut commands = Vec::new();
        for at in 0..HOSTS {
            let own = injection.commands(&cluster.hosts[at].node);
            let setup = Setup {
                data: Some(disks.link(at)),
                environment: own.environment(),
                program: env::var_os("MUSTER_STORE_PROGRAM").map(PathBuf::from),
                lines: "store: {voters: [n1, n2, n3], etcd: {listen: [\"127.0.0.1:2379\"]}}\n".to_owned(),
                ..Setup::default()
            };
            commands.push(own);
            cluster.start_agent(at, setup);
        }
        let scene = Self { cluster, commands, injection, disks, _only: only };
        scene.wait_until_recovered("start");
        scene
    }

    pub(crate) fn host(&self, at: usize) -> &Host {
        &self.cluster.hosts[at]
    }

    /// Sends a request to the agent of a host; `None` if it does not run.
    pub(crate) fn ask(&self, at: usize, method: &str, path: &str, body: &str) -> Option<Answer> {
        self.host(at).namespace.enter(|| try_ask(([127, 0, 0, 1], 8500).into(), method, path, body))
    }

    /// Position of the host that leads.
    pub(crate) fn leader(&self) -> usize {
        let mut found = None;
        until("the store has a leader", || {
            let status = self.ask(HOSTS - 1, "GET", "/v1/muster/store", "").unwrap().json();
            let leader = status["Leader"].as_str();
            found = self.cluster.hosts.iter().position(|host| Some(&*host.node) == leader);
            found.is_some()
        });
        found.unwrap()
    }

    /// Waits until every host writes, and all voters follow.
    pub(crate) fn wait_until_recovered(&self, context: &str) {
        for at in 0..HOSTS {
            until(&format!("{context}: n{} writes", at + 1), || {
                let answer = self.ask(at, "PUT", "/v1/kv/probe", context);
                answer.is_some_and(|answer| answer.status == 200 && answer.body == "true")
            });
        }
        until(&format!("{context}: all voters follow"), || {
            let status = self.ask(HOSTS - 1, "GET", "/v1/muster/store", "").unwrap().json();
            let follows =
                |member: &Json| member["Voter"] == true && member["Lag"].as_u64().is_some_and(|lag| lag < MAX_LAG);
            let members = status["Members"].as_array().unwrap();
            members.len() == VOTERS && members.iter().all(follows)
        });
    }

    /// Asserts that the DNS server of a host answers.
    pub(crate) fn assert_answers(&self, at: usize, context: &str) {
        until(&format!("{context}: DNS answers"), || self.host(at).ask(SERVICE).is_some());
    }

    pub(crate) fn signal(&self, at: usize, signal: Signal) {
        self.host(at).agent().signal(signal);
    }

    /// Ends the agents of hosts with SIGKILL.
    pub(crate) fn kill(&mut self, hosts: &[usize]) {
        for at in hosts {
            self.signal(*at, Signal::SIGKILL);
        }
        for at in hosts {
            self.cluster.hosts[*at].agent_mut().wait();
        }
    }

    /// Starts the agents of hosts again.
    pub(crate) fn start_again(&mut self, hosts: &[usize]) {
        for at in hosts {
            self.cluster.hosts[*at].start_again();
        }
        for at in hosts {
            self.cluster.hosts[*at].agent_mut().wait_until_answering();
        }
    }

    /// Removes what is not on the disks of hosts whose agents have ended, except for some thousandths.
    pub(crate) fn lose_power(&self, hosts: &[usize], thousandths: u64) {
        for at in hosts {
            self.injection.lose_power(&self.disks.path(*at).join("store"), thousandths);
        }
    }

    /// Makes a write of a voter fail. Waits until the voter says so.
    pub(crate) fn fail_write(&self, at: usize, fault: DiskFault, context: &str) {
        let failures = || self.host(at).agent().log().matches(FAILED).count();
        let before = failures();
        self.commands[at].fail(fault);
        until(&format!("{context}: the write fails"), || self.commands[at].has_failed());
        until(&format!("{context}: the log names the failure"), || failures() > before);
    }

    /// Fills the disk of a host.
    pub(crate) fn fill_disk(&self, at: usize) {
        let mut ballast = File::create(self.disks.path(at).join("ballast")).unwrap();
        while ballast.write_all(&[0; 4096]).is_ok() {}
        while ballast.write_all(&[0]).is_ok() {}
    }

    /// Ends [`fill_disk`](Self::fill_disk).
    pub(crate) fn empty_disk(&self, at: usize) {
        fs::remove_file(self.disks.path(at).join("ballast")).unwrap();
    }

    /// Drops packets that a host receives from other hosts.
    pub(crate) fn cut(&self, at: usize, from: &[usize]) {
        let from: Vec<_> = from.iter().map(|from| self.host(*from).address.to_string()).collect();
        self.host(at).namespace.drop_incoming(&[&format!("ip saddr {{ {} }}", from.join(", "))]);
    }

    /// Ends all cuts.
    pub(crate) fn heal(&self) {
        self.cluster.hosts.iter().for_each(|host| host.namespace.drop_incoming(&[]));
    }
}

/// Small file systems in memory, one for each host.
struct Disks(TempDir);

impl Disks {
    fn mount() -> Self {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(&["--make-rprivate"], Path::new("/"));
        let disks = Self(run::temp_dir());
        for at in 0..HOSTS {
            fs::create_dir(disks.path(at)).unwrap();
            mount(&["-t", "tmpfs", "-o", "size=96m,mode=0700", "tmpfs"], &disks.path(at));
        }
        disks
    }

    fn path(&self, at: usize) -> PathBuf {
        self.0.path().join(at.to_string())
    }

    /// A link to the disk of a host.
    fn link(&self, at: usize) -> PathBuf {
        let link = self.0.path().join(format!("link-{at}"));
        symlink(self.path(at), &link).unwrap();
        link
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        for at in 0..HOSTS {
            let _ = process::command("umount").arg("--lazy").arg(self.path(at)).status();
        }
    }
}

fn mount(options: &[&str], at: &Path) {
    let output = process::command("mount").args(options).arg(at).finish();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
