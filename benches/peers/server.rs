//! Measured server: started with one worker on the servers' core, killed on drop.

use std::{
    fmt, fs,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use super::{load, world::World};

/// Core of the servers: Knot moves its first worker to core 0 whatever its affinity.
const CORE: &str = "0";
/// Timeout of loading a zone.
const PATIENCE: Duration = Duration::from_secs(120);

/// Server program.
#[derive(Clone)]
pub(crate) enum Kind {
    /// muster as built with this benchmark.
    Muster,
    /// Another build of muster.
    Other(PathBuf),
    Nsd,
    Knot,
    Unbound,
    Dnsmasq,
}

impl Kind {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "muster" => Self::Muster,
            "nsd" => Self::Nsd,
            "knot" => Self::Knot,
            "unbound" => Self::Unbound,
            "dnsmasq" => Self::Dnsmasq,
            _ => return None,
        })
    }

    /// Returns the name of the program.
    pub(crate) fn program(&self) -> &str {
        match self {
            Self::Muster => env!("CARGO_BIN_EXE_muster"),
            Self::Other(path) => path.to_str().unwrap(),
            Self::Nsd => "nsd",
            Self::Knot => "knotd",
            Self::Unbound => "unbound",
            Self::Dnsmasq => "dnsmasq",
        }
    }

    /// Starts the server with this data, and waits until it answers.
    pub(crate) fn start(&self, world: &World, folder: &Path) -> Server {
        let folder = folder.join(self.to_string());
        fs::create_dir_all(&folder).unwrap();
        let address = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let config = folder.join("config");
        if !matches!(self, Self::Muster | Self::Other(_)) && world.upstream().is_none() {
            fs::write(folder.join("service.local.zone"), world.zone()).unwrap();
        }
        let text = match world.upstream() {
            Some(upstream) => self.forwarding(&folder, address.port(), upstream),
            None => self.config(&folder, address.port()),
        };
        fs::write(&config, text).unwrap();
        let mut command = Command::new("taskset");
        command.args(["-c", CORE, self.program()]);
        match self {
            Self::Muster | Self::Other(_) => {
                fs::create_dir_all(folder.join("services.d")).unwrap();
                for (number, text) in world.service_files().into_iter().enumerate() {
                    fs::write(folder.join(format!("services.d/{number:03}.yaml")), text).unwrap();
                }
                command.args(["agent", "--config"]).arg(&config);
            }
            Self::Nsd | Self::Unbound => drop(command.args(["-d", "-c"]).arg(&config)),
            Self::Knot => drop(command.arg("-c").arg(&config)),
            Self::Dnsmasq => drop(command.arg("--keep-in-foreground").arg(format!("--conf-file={}", config.display()))),
        }
        let log = fs::File::create(folder.join("log")).unwrap();
        let output = log.try_clone().unwrap();
        let child = command.stdin(Stdio::null()).stdout(output).stderr(log).spawn().unwrap();
        let mut server = Server { kind: self.clone(), address, child };
        let started = Instant::now();
        let question = world.packets().swap_remove(0);
        while !load::answers(address, &question) {
            let ended = server.child.try_wait().unwrap();
            assert!(
                ended.is_none() && started.elapsed() < PATIENCE,
                "{self} does not answer: {}",
                fs::read_to_string(folder.join("log")).unwrap()
            );
            sleep(Duration::from_millis(50));
        }
        server
    }

    /// Returns a configuration to forward, with one worker and a sufficient cache; all else is default.
    fn forwarding(&self, folder: &Path, port: u16, upstream: SocketAddr) -> String {
        let (to, folder) = (upstream.port(), folder.display());
        match self {
            Self::Muster | Self::Other(_) => format!(
                "node: n1\nadvertise: 127.0.0.1\ndata_dir: {folder}/data\nservices_dir: {folder}/services.d\n\
                 zones_dir: {folder}/zones\ndns: {{listen: [127.0.0.1:{port}]}}\nhttp: {{listen: []}}\n\
                 gossip: {{listen: 127.0.0.1:0}}\nresolver: {{upstreams: \"{upstream}\"}}\n"
            ),
            Self::Unbound => format!(
                "server:\n interface: 127.0.0.1@{port}\n num-threads: 1\n username: \"\"\n chroot: \"\"\n directory: \"{folder}\"\n \
                 pidfile: \"{folder}/pid\"\n use-syslog: no\n do-not-query-localhost: no\n ip-ratelimit: 0\n \
                 module-config: \"validator iterator\"\n msg-cache-size: 64m\n rrset-cache-size: 64m\n\
                 remote-control:\n control-enable: no\n\
                 forward-zone:\n name: \".\"\n forward-addr: 127.0.0.1@{to}\n"
            ),
            Self::Dnsmasq => format!(
                "port={port}\nlisten-address=127.0.0.1\nbind-interfaces\nno-resolv\nno-hosts\nserver=127.0.0.1#{to}\n\
                 cache-size=50000\nuser=root\npid-file={folder}/pid\nlog-facility={folder}/log\n"
            ),
            Self::Nsd | Self::Knot => panic!("{self} does not forward"),
        }
    }

    /// Returns a configuration to serve the zone, with one worker and no rate limits; all else is default.
    pub(crate) fn config(&self, folder: &Path, port: u16) -> String {
        let folder = folder.display();
        match self {
            Self::Muster | Self::Other(_) => format!(
                "node: n1\nadvertise: 127.0.0.1\ndata_dir: {folder}/data\nservices_dir: {folder}/services.d\n\
                 zones_dir: {folder}/zones\ndns: {{listen: [127.0.0.1:{port}]}}\nhttp: {{listen: [127.0.0.1:0]}}\n\
                 gossip: {{listen: 127.0.0.1:0}}\n"
            ),
            Self::Nsd => format!(
                "server:\n ip-address: 127.0.0.1@{port}\n server-count: 1\n username: \"\"\n zonesdir: \"{folder}\"\n \
                 database: \"\"\n pidfile: \"{folder}/pid\"\n xfrdfile: \"{folder}/xfrd\"\n zonelistfile: \"{folder}/zones\"\n \
                 xfrdir: \"{folder}\"\n rrl-ratelimit: 0\n minimal-responses: no\n\
                 remote-control:\n control-enable: no\n\
                 zone:\n name: service.local\n zonefile: service.local.zone\n"
            ),
            Self::Knot => format!(
                "server:\n    rundir: {folder}\n    listen: 127.0.0.1@{port}\n    udp-workers: 1\n    tcp-workers: 1\n    \
                 background-workers: 1\n\
                 database:\n    storage: {folder}\n\
                 zone:\n  - domain: service.local\n    storage: {folder}\n    file: service.local.zone\n    \
                 journal-content: none\n"
            ),
            Self::Unbound => format!(
                "server:\n interface: 127.0.0.1@{port}\n num-threads: 1\n username: \"\"\n chroot: \"\"\n directory: \"{folder}\"\n \
                 pidfile: \"{folder}/pid\"\n use-syslog: no\n do-not-query-localhost: no\n ip-ratelimit: 0\n \
                 domain-insecure: service.local\n minimal-responses: no\n\
                 remote-control:\n control-enable: no\n\
                 auth-zone:\n name: service.local\n zonefile: {folder}/service.local.zone\n for-upstream: no\n for-downstream: yes\n"
            ),
            Self::Dnsmasq => panic!("{self} serves no zones"),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Muster => "muster",
            Self::Other(_) => "other",
            Self::Nsd => "nsd",
            Self::Knot => "knot",
            Self::Unbound => "unbound",
            Self::Dnsmasq => "dnsmasq",
        })
    }
}

/// Running server.
pub(crate) struct Server {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
    child: Child,
}

impl Server {
    /// Returns the user and system time of all processes.
    pub(crate) fn cpu(&self) -> Duration {
        let threads = self.processes().into_iter().flat_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).unwrap());
        let run = |thread: fs::DirEntry| {
            let stat = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
            stat.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
        };
        Duration::from_nanos(threads.map(|thread| run(thread.unwrap())).sum())
    }

    /// Returns the proportional set size of all processes in MB.
    pub(crate) fn memory(&self) -> f64 {
        let share = |pid| {
            let maps = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            let line = maps.lines().find_map(|line| line.strip_prefix("Pss:"));
            line.and_then(|line| line.trim().split(' ').next()?.parse().ok()).unwrap_or(0.0)
        };
        self.processes().into_iter().map(share).sum::<f64>() / 1024.0
    }

    /// Returns the process and its children.
    fn processes(&self) -> Vec<u32> {
        let mut found = vec![self.child.id()];
        let mut at = 0;
        while let Some(pid) = found.get(at) {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            found.extend(children.split_whitespace().map(|pid| pid.parse::<u32>().unwrap()));
            at += 1;
        }
        found
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGTERM as from a supervisor: the server ends its children.
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}
