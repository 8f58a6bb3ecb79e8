//! What a scenario does with its cluster, and what it sees of it: the DNS answers of each node, and its membership.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use hickory_proto::rr::{RData, RecordType};
use muster::{
    dns::{
        engine::{Engine, Transport},
        zone::{self, Tables},
    },
    gossip::{
        channel,
        key_rotation::KeyringReport,
        message::{Identity, KeyringChange},
        node::{self, Command, End, FireEvent, ForgetError, Inputs, Outputs, Settings},
        rejected::Rejected,
        seeds::Targets,
    },
    model::{
        announcement::{Announcement, Announcements, InstanceState, Node},
        catalog::{Catalog, View},
        health::Status,
        keyring::{Key, Keyring},
        member::{INCARNATIONS, Membership, PeerId, Reach},
        name::{Label, Name},
        service::{Endpoint, Instance, InstanceKey},
        user_event::{Audience, EventLog},
    },
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    network::Network,
    support::{Ask, decode, extended_error, label},
};

/// The gossip interval.
pub(crate) const INTERVAL: Duration = Duration::from_millis(200);
/// How long peers are held, unless a scenario says otherwise.
const HOLD: Duration = Duration::from_secs(60);
/// How exactly times are measured. While the codec's sockets are polled, paused time goes on by this much at most.
const STEP: Duration = Duration::from_millis(1);

/// Milliseconds.
pub(crate) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Hosts of one letter each, with a node on some of them.
pub(crate) struct Cluster {
    pub(crate) network: Network,
    hold: Duration,
    hosts: BTreeMap<&'static str, Host>,
}

/// One host: what outlives its processes.
struct Host {
    identity: Identity,
    announcements: watch::Sender<Announcements>,
    process: Option<Process>,
}

/// One run of a node.
struct Process {
    view: watch::Receiver<View>,
    members: watch::Receiver<Arc<Membership>>,
    peers: watch::Receiver<BTreeSet<SocketAddr>>,
    events: watch::Receiver<EventLog>,
    orders: mpsc::Sender<Command>,
    shutdown: CancellationToken,
    running: JoinHandle<End>,
    dns: RefCell<Dns>,
}

/// What a node answers with, brought up to date as the publisher does it.
struct Dns {
    catalog: Catalog,
    tables: Tables,
    engine: Engine,
    /// What was asked since the last change.
    answered: BTreeMap<String, String>,
}

impl Cluster {
    /// Hosts without nodes. Each has a service file of an instance of `web` with the host's name.
    pub(crate) fn of(names: &[&'static str]) -> Self {
        Self::holding(names, HOLD)
    }

    /// The same with another time for which peers are held.
    pub(crate) fn holding(names: &[&'static str], hold: Duration) -> Self {
        // Paused time jumps from timer to timer, also while a socket of the codec has something: with this one the
        // jumps are short.
        tokio::spawn(async {
            loop {
                sleep(STEP).await;
            }
        });
        let hosts = names.iter().enumerate().map(|(at, name)| {
            let octet = u8::try_from(at + 1).unwrap();
            let identity = Identity {
                id: PeerId { name: label(name), generation: 0 },
                address: SocketAddr::from(([10, 0, 0, octet], 7946)),
            };
            let (announcements, _) = watch::channel(Announcements::new());
            (*name, Host { identity, announcements, process: None })
        });
        let cluster = Self { network: Network::default(), hold, hosts: hosts.collect() };
        for name in names {
            cluster.announce(name, "web", name, InstanceState::Passing);
        }
        cluster
    }

    /// All these run, joined through the first one, and each answers all.
    pub(crate) async fn running(names: &[&'static str]) -> Self {
        let mut cluster = Self::of(names);
        cluster.run_all(names).await;
        cluster
    }

    /// Starts a node on each host, joined through the first one, and waits until each answers all.
    pub(crate) async fn run_all(&mut self, names: &[&'static str]) {
        for name in names {
            self.start(name, &names[..1]).await;
        }
        self.settles(ms(5000)).await;
        self.until(ms(5000), "all are alive", |c| {
            names.iter().all(|by| names.iter().all(|of| by == of || c.reach(by, of) == Some(Reach::Alive)))
        })
        .await;
    }

    // --- What is done ------------------------------------------------------------------------------------------------

    /// Starts a node with the next generation, with these in its `gossip.join`.
    pub(crate) async fn start(&mut self, name: &'static str, join: &[&'static str]) {
        let generation = self.hosts[name].identity.id.generation + INCARNATIONS;
        self.start_as(name, generation, join, &[]).await;
    }

    /// Starts a node with this generation; `remembered` are peers of before.
    pub(crate) async fn start_as(&mut self, name: &'static str, generation: u64, join: &[&str], remembered: &[&str]) {
        let endpoint = |name: &&str| {
            let address = self.address(name);
            Endpoint { host: address.ip().to_string(), port: address.port() }
        };
        let targets = Targets {
            configured: join.iter().map(endpoint).collect(),
            remembered: remembered.iter().map(|name| self.address(name)).collect(),
        };
        let (network, hold) = (self.network.clone(), self.hold);
        let host = self.hosts.get_mut(name).unwrap();
        assert!(host.process.is_none(), "{name} runs already");
        host.identity.id.generation = generation;
        host.process = Some(Process::start(&network, &host.identity, targets, hold, &host.announcements));
    }

    /// A host of another address with the name of one that is there already: a node starts on it.
    pub(crate) fn impostor(&mut self, host: &'static str, of: &str, join: &str) {
        let join = self.address(join);
        let address = SocketAddr::from(([10, 0, 9, 9], 7946));
        let PeerId { name, generation } = self.hosts[of].identity.id.clone();
        let identity = Identity { id: PeerId { name, generation: generation + INCARNATIONS }, address };
        let (announcements, _) = watch::channel(Announcements::new());
        let targets = Targets {
            configured: vec![Endpoint { host: join.ip().to_string(), port: join.port() }],
            ..Targets::default()
        };
        let process = Process::start(&self.network, &identity, targets, self.hold, &announcements);
        self.hosts.insert(host, Host { identity, announcements, process: Some(process) });
        self.announce(host, "web", host, InstanceState::Passing);
    }

    /// Tells a node to leave, as a signal would.
    pub(crate) fn dismiss(&self, name: &str) {
        self.process(name).shutdown.cancel();
    }

    /// Lets a node leave; returns what it ended with.
    pub(crate) async fn stop(&mut self, name: &str) -> End {
        self.dismiss(name);
        self.ends(name).await
    }

    /// Ends a node without a good-bye.
    pub(crate) async fn kill(&mut self, name: &str) {
        let host = self.hosts.get_mut(name).unwrap();
        let mut process = host.process.take().expect("a node that runs");
        self.network.detach(&host.identity);
        process.running.abort();
        let _ = (&mut process.running).await;
    }

    /// Waits for a node that ends by itself.
    pub(crate) async fn ends(&mut self, name: &str) -> End {
        let mut process = self.hosts.get_mut(name).unwrap().process.take().expect("a node that runs");
        (&mut process.running).await.unwrap()
    }

    /// Nothing passes between these and those.
    pub(crate) fn cut(&self, these: &[&str], those: &[&str]) {
        self.cut_one_way(these, those);
        self.cut_one_way(those, these);
    }

    /// Nothing passes from these to those.
    pub(crate) fn cut_one_way(&self, from: &[&str], to: &[&str]) {
        for from in from {
            for to in to.iter().filter(|to| *to != from) {
                self.network.cut(self.address(from), self.address(to));
            }
        }
    }

    /// A service file of a host defines an instance, or a check changes its standing.
    pub(crate) fn announce(&self, host: &str, service: &str, id: &str, standing: InstanceState) {
        let host = &self.hosts[host];
        let instance = instance(host.identity.address, service, id);
        let announcement = Announcement::new(Arc::new(instance), standing);
        host.announcements.send_modify(|all| {
            all.insert(announcement.instance.key.clone(), Arc::new(announcement));
        });
    }

    /// The host's instance of `web` becomes healthy, or not.
    pub(crate) fn flip(&self, host: &str, healthy: bool) {
        let status = if healthy { Status::Passing } else { Status::Critical };
        self.announce(host, "web", host, InstanceState::new(status, "refused"));
    }

    /// A service file goes.
    pub(crate) fn withdraw(&self, host: &str, service: &str, id: &str) {
        let key = InstanceKey { service: label(service), id: label(id) };
        self.hosts[host].announcements.send_modify(|all| drop(all.remove(&key)));
    }

    /// Gives an order for the keyring to one node.
    pub(crate) async fn keyring(&self, at: &str, change: KeyringChange) -> KeyringReport {
        let (done, outcome) = oneshot::channel();
        self.process(at).orders.send(Command::Keyring { change, done }).await.unwrap();
        outcome.await.unwrap().unwrap()
    }

    /// Fires a user event on a node.
    pub(crate) async fn fire(&self, at: &str, name: &str, to: Audience) {
        let firing = FireEvent { name: name.to_owned(), payload: b"x".to_vec(), to };
        let (done, fired) = oneshot::channel();
        self.process(at).orders.send(Command::Fire { firing, done }).await.unwrap();
        assert_eq!(fired.await.unwrap().name, name);
    }

    /// Orders a node to have another one forgotten.
    pub(crate) async fn forget(&self, at: &str, name: &str) -> Result<(), ForgetError> {
        let (done, outcome) = oneshot::channel();
        self.process(at).orders.send(Command::Dismiss { name: label(name), done }).await.unwrap();
        outcome.await.unwrap()
    }

    /// Lets a node leave by an order.
    pub(crate) async fn leave(&mut self, name: &str) -> End {
        let (done, said) = oneshot::channel();
        self.process(name).orders.send(Command::Leave { done }).await.unwrap();
        said.await.unwrap();
        self.ends(name).await
    }

    // --- What is seen ------------------------------------------------------------------------------------------------

    /// What a node answers to SRV of a service: the ids, or that there are none, and the Extended DNS Error.
    pub(crate) fn answer(&self, at: &str, service: &str) -> String {
        let process = self.process(at);
        process.dns.borrow_mut().ask(process.view.borrow().clone(), service)
    }

    /// The names of the user events that a node knows, oldest first.
    pub(crate) fn events(&self, at: &str) -> Vec<String> {
        self.process(at).events.borrow().iter().map(|event| event.name.clone()).collect()
    }

    /// How `by` sees `of`.
    pub(crate) fn reach(&self, by: &str, of: &str) -> Option<Reach> {
        let name = &self.hosts[of].identity.id.name;
        self.members(by).members.iter().find(|member| member.id.name == *name).map(|member| member.reach)
    }

    /// The membership that a node shows.
    pub(crate) fn members(&self, by: &str) -> Arc<Membership> {
        self.process(by).members.borrow().clone()
    }

    /// Where the peers gossip that a node reaches.
    pub(crate) fn peers(&self, by: &str) -> BTreeSet<SocketAddr> {
        self.process(by).peers.borrow().clone()
    }

    /// Hosts on which a node runs.
    pub(crate) fn up(&self) -> Vec<&'static str> {
        let up = self.hosts.iter().filter(|(_, host)| host.process.is_some());
        up.map(|(name, _)| *name).collect()
    }

    /// Where a host's node gossips.
    pub(crate) fn address(&self, name: &str) -> SocketAddr {
        self.hosts[name].identity.address
    }

    /// Whether a node has ended by itself.
    pub(crate) fn has_ended(&self, name: &str) -> bool {
        self.process(name).running.is_finished()
    }

    /// Which run of a node it is now.
    pub(crate) fn identity(&self, name: &str) -> Identity {
        self.hosts[name].identity.clone()
    }

    /// What all should answer for `web`.
    pub(crate) fn truth(&self) -> String {
        let mut declared = false;
        let mut ids = BTreeSet::new();
        for host in self.hosts.values().filter(|host| host.process.is_some()) {
            for (key, announced) in host.announcements.borrow().iter().filter(|(key, _)| key.service == label("web")) {
                declared = true;
                if announced.standing.is_answered() {
                    ids.insert(key.id.to_string());
                }
            }
        }
        match (declared, ids.is_empty()) {
            (false, _) => "NXDOMAIN".to_owned(),
            (true, true) => "nothing, EDE 14".to_owned(),
            (true, false) => ids.into_iter().collect::<Vec<_>>().join(" "),
        }
    }

    /// Waits until a condition holds; returns how long that took.
    pub(crate) async fn until(&self, within: Duration, what: &str, holds: impl Fn(&Self) -> bool) -> Duration {
        let start = Instant::now();
        while !holds(self) {
            assert!(start.elapsed() < within, "not within {within:?}: {what}\n{}", self.show());
            sleep(STEP).await;
        }
        start.elapsed()
    }

    /// Waits until each of these answers `web` so.
    pub(crate) async fn answers(&self, within: Duration, at: &[&str], expected: &str) -> Duration {
        let what = format!("{at:?} answer {expected:?}");
        self.until(within, &what, |c| at.iter().all(|at| c.answer(at, "web") == expected)).await
    }

    /// Waits until every node that runs answers what is true.
    pub(crate) async fn settles(&self, within: Duration) -> Duration {
        self.answers(within, &self.up(), &self.truth()).await
    }

    /// Each of these answers `web` so, whenever it is asked.
    pub(crate) async fn stays(&self, lasting: Duration, at: &[&str], expected: &str) {
        let start = Instant::now();
        while start.elapsed() < lasting {
            for at in at {
                let answer = self.answer(at, "web");
                assert_eq!(answer, expected, "{at}, after {:?}\n{}", start.elapsed(), self.show());
            }
            sleep(5 * STEP).await;
        }
    }

    /// All that each node answers and believes.
    pub(crate) fn show(&self) -> String {
        let mut lines = vec![format!("true: {:?}", self.truth())];
        for name in self.up() {
            let members = self.members(name);
            let others = members.members.iter().map(|member| format!("{}: {:?}", member.id.name, member.reach));
            let others = others.collect::<Vec<_>>().join(", ");
            lines.push(format!("{name} answers {:?}; {others}", self.answer(name, "web")));
        }
        lines.join("\n")
    }

    fn process(&self, name: &str) -> &Process {
        self.hosts[name].process.as_ref().unwrap_or_else(|| panic!("{name} does not run"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Process {
    fn start(
        network: &Network,
        identity: &Identity,
        targets: Targets,
        hold: Duration,
        announcements: &watch::Sender<Announcements>,
    ) -> Self {
        let PeerId { name, generation } = identity.id.clone();
        let node = Arc::new(Node {
            name: name.clone(),
            addresses: vec![identity.address.ip()],
            datacenter: label("dc1"),
            meta: Default::default(),
        });
        let (link, side) = channel::pair();
        network.attach(identity.clone(), side);
        let settings = Settings {
            own: identity.clone(),
            node: node.clone(),
            version: "1".to_owned(),
            ttl: 5,
            cluster: "service.local.".to_owned(),
            interval: INTERVAL,
            hold,
            targets,
            seed: generation.wrapping_add(identity.address.ip().is_ipv4().into()),
        };
        let announced = announcements.subscribe();
        let (orders, ordered) = mpsc::channel(4);
        let (view, seen) = watch::channel(node::alone(&node, &announced.borrow()));
        let (members, membership) = watch::channel(Arc::default());
        let (peers, reached) = watch::channel(BTreeSet::new());
        let (keyring, _) = watch::channel(Some(Keyring::new(Key::from_random([7; 32]))));
        let inputs =
            Inputs { announcements: announced, link, orders: ordered, rejected: Arc::new(Rejected::default()) };
        let (events, fired) = watch::channel(EventLog::default());
        let outputs = Outputs { view, members, peers, keyring, events };
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(node::run(settings, inputs, outputs, shutdown.clone()));
        Self {
            view: seen,
            members: membership,
            peers: reached,
            events: fired,
            orders,
            shutdown,
            running,
            dns: RefCell::new(Dns::of(name)),
        }
    }
}

impl Dns {
    fn of(node: Label) -> Self {
        let domain = Name::parse("service.local").unwrap();
        let tables = Tables::new(zone::Settings { node, domain, aliases: vec![], ttl: 5, negative_ttl: 1 });
        let engine = Engine::new(1232, fastrand::Rng::with_seed(1));
        Self { catalog: Catalog::default(), tables, engine, answered: BTreeMap::new() }
    }

    fn ask(&mut self, view: View, service: &str) -> String {
        let touched = self.catalog.update(view);
        if !touched.is_empty() {
            self.tables.update(&self.catalog, &touched);
            self.answered.clear();
        }
        if let Some(answer) = self.answered.get(service) {
            return answer.clone();
        }
        let answer = self.ask_engine(service);
        self.answered.insert(service.to_owned(), answer.clone());
        answer
    }

    fn ask_engine(&mut self, service: &str) -> String {
        let qtype = RecordType::SRV.into();
        let name = format!("{service}.service.local.");
        let packet = Ask { name, qtype, edns: Some(1232), dnssec_ok: false }.packet(7);
        let mut reply = Vec::new();
        self.engine.respond(&self.tables, &packet, Transport::Udp, &mut reply).unwrap();
        let message = decode(&reply);
        let mut ids = BTreeSet::new();
        for record in &message.answers {
            let RData::SRV(srv) = &record.data else { panic!("{record} in answer to SRV") };
            ids.insert(String::from_utf8(srv.target.iter().next().unwrap().to_vec()).unwrap());
        }
        let mut text = match (format!("{:?}", message.metadata.response_code).as_str(), ids.is_empty()) {
            ("NoError", true) => "nothing".to_owned(),
            ("NoError", false) => ids.into_iter().collect::<Vec<_>>().join(" "),
            (other, _) => other.to_uppercase(),
        };
        if let Some((code, _)) = extended_error(&message) {
            text.push_str(&format!(", EDE {code}"));
        }
        text
    }
}

/// An instance on that host, with nothing special.
pub(crate) fn instance(host: SocketAddr, service: &str, id: &str) -> Instance {
    Instance {
        port: Some(80),
        ..Instance::new(InstanceKey { service: label(service), id: label(id) }, vec![host.ip()])
    }
}
