//! Clusters with dynamic zones, and clients of updates.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Command, Output},
    thread,
};

use super::{
    agent::Agent,
    http,
    process::{self, Finish},
    program::free,
    secondary::{self, Key},
    wait,
};

/// Key that may change all names and types.
pub const KEY: Key = Key { name: "ddns", secret: "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IDEyMzQ=" };
/// Key that may change challenges of certificate authorities.
pub const ACME: Key = Key { name: "acme", secret: "YWNtZSBhY21lIGFjbWUgYWNtZSBhY21lIGFjbWUgMTI=" };
/// Key that no zone lists.
pub const OTHER: Key = Key { name: "other", secret: "b3RoZXIgb3RoZXIgb3RoZXIgb3RoZXIgb3RoZXIgMTI=" };

/// Dynamic zones of a cluster: one for hosts and challenges, and a reverse zone.
const ZONES: &str = "[{zone: dyn.test, keys: [{key: ddns, types: [A, AAAA, TXT, CNAME, DHCID, MX, SRV, NS, SOA]}, {key: acme, names: \
                     [_acme-challenge.**], types: [TXT]}]}, {zone: 2.0.192.in-addr.arpa, keys: [{key: ddns}]}]";

/// Agents of one cluster on loopback, of which the first ones are voters.
pub struct Cluster {
    agents: Vec<Agent>,
}

impl Cluster {
    /// Starts so many nodes, and waits until the store has a leader. `dns` are further keys of the table `dns`.
    pub fn start(voters: usize, nodes: usize, dns: &str) -> Self {
        let addresses = |count| -> Vec<SocketAddr> { (0..count).map(|_| free()).collect() };
        let (gossip, servers, apis) = (addresses(nodes), addresses(nodes), addresses(nodes));
        let list = |items: &mut dyn Iterator<Item = String>| items.collect::<Vec<_>>().join(", ");
        let seeds = list(&mut gossip.iter().map(|address| format!("\"{address}\"")));
        let names = list(&mut (0..voters).map(|at| format!("host-{at}")));
        let config = |at: usize| {
            format!(
                "node: host-{at}\nadvertise: 127.0.0.1\ndata_dir: data\nservices_dir: services.d\nzones_dir: zones\n\
                 dns: {{listen: [\"{}\"], keys_dir: tsig, dynamic: {ZONES}{dns}}}\nhttp: {{listen: [\"{}\"]}}\n\
                 resolver: {{allow: []}}\ngossip: {{listen: \"{}\", join: [{seeds}]}}\nstore: {{voters: [{names}]}}\n",
                servers[at], apis[at], gossip[at]
            )
        };
        let config = &config;
        let start = |at: usize| {
            Agent::start_as(&[], &[], |folder| {
                write_keys(folder);
                fs::write(folder.join("muster.yaml"), config(at)).unwrap();
            })
        };
        let start = &start;
        let agents = thread::scope(|scope| {
            let starting: Vec<_> = (0..nodes).map(|at| scope.spawn(move || start(at))).collect();
            starting.into_iter().map(|started| started.join().unwrap()).collect()
        });
        let cluster = Self { agents };
        cluster.wait_for_leader();
        cluster
    }

    /// Returns a node.
    pub fn agent(&self, at: usize) -> &Agent {
        &self.agents[at]
    }

    /// Returns a node, to stop and to start it.
    pub fn agent_mut(&mut self, at: usize) -> &mut Agent {
        &mut self.agents[at]
    }

    /// Returns the address of a node's DNS server.
    pub fn server(&self, at: usize) -> SocketAddr {
        self.agents[at].address()
    }

    /// Waits until the store has a leader.
    #[track_caller]
    pub fn wait_for_leader(&self) {
        wait::poll(|| {
            let answers =
                self.agents.iter().filter_map(|agent| http::try_ask(agent.http(), "GET", "/v1/status/leader", ""));
            let seen: Vec<String> = answers.map(|answer| answer.body.trim().to_owned()).collect();
            let has_leader = seen.iter().any(|leader| leader.len() > 2);
            if has_leader { Ok(()) } else { Err(format!("{seen:?}")) }
        });
    }

    /// Waits until all nodes answer the expected lines of `dig +short`, and returns how long that took.
    #[track_caller]
    pub fn wait_for_answers(&self, question: &str, expected: &str) {
        for agent in &self.agents {
            wait::until_equal(question, expected, || dig(agent.address(), &format!("+short {question}")));
        }
    }
}

/// Writes the TSIG keys of the tests into the folder `tsig`.
pub fn write_keys(folder: &Path) {
    secondary::write_keys(folder, &[KEY, ACME, OTHER]);
}

/// Runs dig and returns its output.
pub fn dig(server: SocketAddr, arguments: &str) -> String {
    let mut dig = process::command("dig");
    dig.args(["-p", &server.port().to_string(), &format!("@{}", server.ip()), "+tries=1", "+time=5", "+nocookie"]);
    dig.args(arguments.split_whitespace());
    String::from_utf8(dig.finish().stdout).unwrap()
}

/// Returns a command of nsupdate that signs with this key.
fn nsupdate_command(key: Option<Key>, options: &[&str]) -> Command {
    let mut nsupdate = process::command("nsupdate");
    if let Some(key) = key {
        nsupdate.args(["-y", &format!("hmac-sha256:{}:{}", key.name, key.secret)]);
    }
    nsupdate.args(options);
    nsupdate
}

/// Runs nsupdate with these commands at a server. Returns `ok`, or the code that it prints.
pub fn nsupdate(server: SocketAddr, key: Option<Key>, options: &[&str], commands: &str) -> String {
    let script = format!("server {} {}\n{commands}\nsend\n", server.ip(), server.port());
    let Output { status, stdout, stderr } = nsupdate_command(key, options).finish_with(&script);
    let printed = [stdout, stderr].map(|octets| String::from_utf8_lossy(&octets).into_owned()).concat();
    match printed.lines().find_map(|line| line.strip_prefix("update failed: ")) {
        Some(code) => code.to_owned(),
        None if status.success() => "ok".to_owned(),
        None => printed,
    }
}

/// Runs nsupdate with the key of all names; the update must succeed.
#[track_caller]
pub fn update(server: SocketAddr, commands: &str) {
    assert_eq!(nsupdate(server, Some(KEY), &[], commands), "ok", "{commands}");
}
