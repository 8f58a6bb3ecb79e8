//! Cluster of agents with clients on each host.

use std::{
    fs,
    net::SocketAddr,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use nix::sys::signal::Signal;

use super::{
    cluster::{Cluster, Host, SERVICE, Setup},
    installed::Installed,
    observer::{Client, Observer, Question},
};

pub const A: u16 = 1;
pub const AAAA: u16 = 28;
pub const SRV: u16 = 33;

pub const SECOND: Duration = Duration::from_secs(1);

/// Number of hosts from which on a cluster needs the machine for itself.
const LARGE: u8 = 10;
/// Small clusters share the machine, a large one has it for itself: it would slow the others down, and they it.
static MACHINE: RwLock<()> = RwLock::new(());

/// A cluster's part of the machine.
enum Turn {
    Shared { _guard: RwLockReadGuard<'static, ()> },
    Alone { _guard: RwLockWriteGuard<'static, ()> },
}

/// Cluster whose hosts have a service of their own each, in addition to the common one, and a replaceable program.
pub struct Scene {
    pub cluster: Cluster,
    pub programs: Installed,
    _turn: Turn,
}

impl Scene {
    /// Starts `size` hosts and waits until each answers all instances.
    pub fn start(size: u8) -> Self {
        Self::start_with(size, |_| Setup::default())
    }

    /// Starts `size` hosts with additional settings.
    pub fn start_with(size: u8, setup: impl Fn(usize) -> Setup) -> Self {
        let mut scene = Self::without_agents(size);
        for at in 0..usize::from(size) {
            scene.start_agent(at, setup(at));
        }
        scene.cluster.converge();
        scene
    }

    /// Connects `size` hosts without agents.
    pub fn without_agents(size: u8) -> Self {
        let turn = match size {
            LARGE.. => Turn::Alone { _guard: MACHINE.write().unwrap_or_else(PoisonError::into_inner) },
            _ => Turn::Shared { _guard: MACHINE.read().unwrap_or_else(PoisonError::into_inner) },
        };
        Self { cluster: Cluster::without_agents(size), programs: Installed::new(), _turn: turn }
    }

    /// Starts the agent of a host, as the unit does: it drains at SIGTERM.
    pub fn start_agent(&mut self, at: usize, setup: Setup) {
        let host = &self.cluster.hosts[at];
        let mut services = setup.services;
        services.push(("only.yaml".to_owned(), own_service(host)));
        let program = Some(self.programs.install(&host.node));
        self.cluster.start_agent(at, Setup { services, program, options: vec!["--drain"], ..setup });
    }

    /// Starts clients on all hosts; every instance must be answered throughout.
    pub fn observe(&self) -> Observer {
        self.observe_except(None, |_| true)
    }

    /// Starts clients on these hosts. The instances of `gone` may be missing.
    pub fn observe_except(&self, gone: Option<usize>, is_asked: impl Fn(usize) -> bool) -> Observer {
        let hosts = self.cluster.hosts.iter().enumerate().filter(|(at, _)| is_asked(*at));
        Observer::start(hosts.map(|(at, host)| client(host, self.questions(at, gone))))
    }

    /// Questions on a host about all other hosts and itself.
    pub fn questions(&self, at: usize, gone: Option<usize>) -> Vec<Question> {
        let hosts = &self.cluster.hosts;
        let (required, permitted): (Vec<_>, Vec<_>) = (0..hosts.len()).partition(|of| Some(*of) != gone);
        let records =
            |of: &[usize], record: fn(&Host) -> String| of.iter().map(|at| record(&hosts[*at])).collect::<Vec<_>>();
        let common = |qtype: u16, record: fn(&Host) -> String| {
            let name = format!("{SERVICE}.service.local.");
            Question::new(&name, qtype, records(&required, record)).permitting(records(&permitted, record))
        };
        let mut questions = vec![
            question_of_own_service(&hosts[at], SRV),
            common(SRV, |host| format!("SRV 1 10 80 {}.{SERVICE}.service.local.", host.instance())),
            common(A, |host| format!("A {}", host.address)),
        ];
        for of in required.into_iter().filter(|of| *of != at) {
            let host = &hosts[of];
            questions.extend([SRV, A, AAAA].map(|qtype| question_of_own_service(host, qtype)));
            let name = format!("{}.node.service.local.", host.node);
            questions.push(Question::new(&name, A, [format!("A {}", host.address)]));
        }
        questions
    }

    /// Restarts an agent as planned, with this pause between its end and its start. Returns when all hosts answer all
    /// instances as live.
    pub fn restart(&mut self, at: usize, away: Duration) {
        self.announce_restart_and_stop(at);
        self.cluster.hosts[at].agent_mut().wait();
        std::thread::sleep(away);
        self.cluster.hosts[at].start_again();
        self.cluster.hosts[at].agent_mut().wait_until_answering();
        self.cluster.converge();
    }

    /// Prints which nodes were removed from answers, and why.
    pub fn print_removals(&self) {
        for host in &self.cluster.hosts {
            let log = host.agent().log();
            for line in log.lines().filter(|line| line.contains("gone") || line.contains("unreachable")) {
                println!("{}: {line}", host.node);
            }
        }
    }

    /// Sends the signals of a planned restart.
    pub fn announce_restart_and_stop(&self, at: usize) {
        let agent = self.cluster.hosts[at].agent();
        agent.signal(Signal::SIGUSR1);
        agent.signal(Signal::SIGTERM);
    }

    /// Changes the configuration file of a host; each change must apply.
    #[track_caller]
    pub fn edit_config(&self, at: usize, changes: &[(&str, &str)]) {
        let path = self.cluster.hosts[at].agent().path("muster.yaml");
        let mut text = fs::read_to_string(&path).unwrap();
        for (from, to) in changes {
            assert!(text.contains(from), "{from} is not in {text}");
            text = text.replacen(from, to, 1);
        }
        fs::write(path, text).unwrap();
    }
}

/// Client on a host, of its own agent.
pub fn client(host: &Host, questions: Vec<Question>) -> Client<'_> {
    let server = SocketAddr::from(([127, 0, 0, 1], 53));
    Client { host: host.node.clone(), namespace: &host.namespace, server, questions }
}

/// Service file of the host's own service.
pub fn own_service(host: &Host) -> String {
    let (node, address, number) = (&host.node, host.address, host.address.octets()[3]);
    format!("service: only-{node}\nid: one\nport: {number}\naddress: [{address}, \"fd77::{number}\"]\n")
}

/// Question for the host's own service.
fn question_of_own_service(host: &Host, qtype: u16) -> Question {
    let (node, number) = (&host.node, host.address.octets()[3]);
    let name = format!("only-{node}.service.local.");
    let record = match qtype {
        SRV => format!("SRV 1 10 {number} one.only-{node}.service.local."),
        A => format!("A {}", host.address),
        _ => format!("AAAA fd77::{number}"),
    };
    Question::new(&name, qtype, [record])
}
