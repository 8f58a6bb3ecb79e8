//! Store of three voters: agents of one cluster on loopback. A voter that is started again has the same addresses.

use std::{fs, net::SocketAddr, path::Path, thread};

use nix::sys::signal::Signal;

use super::{agent::Agent, http, program::free, wait};

/// Number of voters.
pub const VOTERS: usize = 3;

/// Running voters, killed on drop.
pub struct Voters {
    agents: Vec<Agent>,
    etcd: Vec<SocketAddr>,
}

impl Voters {
    /// Starts the voters and waits until they have a leader.
    pub fn start() -> Self {
        Self::start_with("", |_| {})
    }

    /// Starts the voters with additional keys of `store.etcd`, in folders that `prepare` fills.
    pub fn start_with(etcd_keys: &str, prepare: impl Fn(&Path) + Sync) -> Self {
        let addresses = || -> Vec<SocketAddr> { (0..VOTERS).map(|_| free()).collect() };
        let (gossip, etcd, http) = (addresses(), addresses(), addresses());
        let seeds = gossip.iter().map(|address| format!("\"{address}\"")).collect::<Vec<_>>().join(", ");
        let config = |at: usize| {
            format!(
                "node: host-{at}\nadvertise: 127.0.0.1\ndata_dir: data\nservices_dir: services.d\nzones_dir: zones\n\
                 dns: {{listen: [127.0.0.1:0]}}\nhttp: {{listen: [\"{}\"]}}\nresolver: {{allow: []}}\n\
                 gossip: {{listen: \"{}\", join: [{seeds}]}}\n\
                 store: {{voters: [host-0, host-1, host-2], etcd: {{listen: [\"{}\"]{etcd_keys}}}}}\n",
                http[at], gossip[at], etcd[at]
            )
        };
        let start = |at: usize| {
            Agent::start_as(&[], &[], |folder| {
                fs::write(folder.join("muster.yaml"), config(at)).unwrap();
                prepare(folder);
            })
        };
        let start = &start;
        let agents = thread::scope(|scope| {
            let starting: Vec<_> = (0..VOTERS).map(|at| scope.spawn(move || start(at))).collect();
            starting.into_iter().map(|started| started.join().unwrap()).collect()
        });
        let voters = Self { agents, etcd };
        voters.wait_for_leader();
        voters
    }

    /// Returns the agent of a voter.
    pub fn agent(&self, at: usize) -> &Agent {
        &self.agents[at]
    }

    /// Returns the address of a voter's etcd API.
    pub fn etcd(&self, at: usize) -> SocketAddr {
        self.etcd[at]
    }

    /// Waits until a voter leads in the view of all running voters, and returns the leader.
    #[track_caller]
    pub fn wait_for_leader(&self) -> usize {
        wait::poll(|| {
            let answers =
                self.agents.iter().filter_map(|agent| http::try_ask(agent.http(), "GET", "/v1/status/leader", ""));
            let mut seen: Vec<String> = answers.map(|answer| answer.body.trim().trim_matches('"').to_owned()).collect();
            seen.dedup();
            let leads = |agent: &Agent| seen.len() == 1 && agent.gossip().to_string() == seen[0];
            self.agents.iter().position(leads).ok_or_else(|| format!("leaders: {seen:?}"))
        })
    }

    /// Ends a voter with SIGKILL.
    pub fn kill(&mut self, at: usize) {
        self.agents[at].signal(Signal::SIGKILL);
        self.agents[at].wait();
    }

    /// Starts a killed voter again.
    pub fn start_again(&mut self, at: usize) {
        self.agents[at].start_again();
        self.agents[at].wait_until_answering();
    }
}
