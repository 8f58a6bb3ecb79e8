//! Actions of a scenario on its cluster, and observations: DNS answers and membership of each node.

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
        command::{Command, ForgetError, KeyringCommand, KeyringReport},
        known_peer::KnownPeer,
        link,
        message::Identity,
        node::{self, End, Inputs, Outputs, OwnState, Settings},
        rejected::Rejected,
        seeds::Targets,
    },
    metrics::Gossip,
    model::{
        announcement::{Announcement, CheckReport, HealthReport, HoldReason, InstanceState, Node},
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

/// Gossip interval.
pub(crate) const INTERVAL: Duration = Duration::from_millis(200);
/// Default time that peers are held.
const HOLD: Duration = Duration::from_secs(60);
/// Time that a restarting node is expected back.
pub(crate) const RESTART_HOLD: Duration = Duration::from_secs(30);
/// Resolution of measured times: paused time advances by this much at most while the codec's sockets are polled.
const STEP: Duration = Duration::from_millis(1);

/// Milliseconds.
pub(crate) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Hosts named by one letter, some of them with a node.
pub(crate) struct Cluster {
    pub(crate) network: Network,
    hold: Duration,
    hosts: BTreeMap<&'static str, Host>,
}

/// A host: the state that outlives its processes.
struct Host {
    identity: Identity,
    announcements: watch::Sender<OwnState>,
    process: Option<Process>,
}

/// What one start of a node hands over to the next.
#[derive(Default)]
pub(crate) struct Handover {
    pub(crate) incarnation: u64,
    pub(crate) known: Vec<KnownPeer>,
    pub(crate) continues: bool,
}

/// One run of a node.
struct Process {
    view: watch::Receiver<View>,
    members: watch::Receiver<Arc<Membership>>,
    peers: watch::Receiver<BTreeSet<SocketAddr>>,
    events: watch::Receiver<EventLog>,
    synced: watch::Receiver<bool>,
    serial_ceiling: watch::Sender<u32>,
    zone_serial: watch::Sender<Option<u32>>,
    zone_serials: watch::Receiver<Arc<BTreeMap<Label, u32>>>,
    former_serial: watch::Receiver<Option<u32>>,
    commands: mpsc::Sender<Command>,
    shutdown: CancellationToken,
    running: JoinHandle<End>,
    dns: RefCell<Dns>,
}

/// The DNS engine of a node, updated like the daemon's.
struct Dns {
    catalog: Catalog,
    tables: Tables,
    engine: Engine,
    /// Answers since the last change.
    answered: BTreeMap<String, String>,
}

impl Cluster {
    /// Creates hosts without nodes. Each has a service file with an instance of `web` named like the host.
    pub(crate) fn of(names: &[&'static str]) -> Self {
        Self::holding(names, HOLD)
    }

    /// Like `of`, with another hold time.
    pub(crate) fn holding(names: &[&'static str], hold: Duration) -> Self {
        // Paused time jumps from timer to timer even while a codec socket has data. This timer keeps the jumps short.
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
            let (announcements, _) = watch::channel(OwnState::default());
            (*name, Host { identity, announcements, process: None })
        });
        let cluster = Self { network: Network::default(), hold, hosts: hosts.collect() };
        for name in names {
            cluster.announce(name, "web", name, InstanceState::Passing);
        }
        cluster
    }

    /// Creates a cluster of running nodes, joined through the first one, that answer all instances.
    pub(crate) async fn running(names: &[&'static str]) -> Self {
        let mut cluster = Self::of(names);
        cluster.run_all(names).await;
        cluster
    }

    /// Starts a node on each host, joined through the first one, and waits until each answers all instances.
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

    // --- Actions -----------------------------------------------------------------------------------------------------

    /// Starts a node with the next generation and these seeds.
    pub(crate) async fn start(&mut self, name: &'static str, join: &[&'static str]) {
        let generation = self.hosts[name].identity.id.generation + INCARNATIONS;
        self.start_as(name, generation, join, &[]).await;
    }

    /// Starts a node with this generation, seeds and remembered peers.
    pub(crate) async fn start_as(&mut self, name: &'static str, generation: u64, join: &[&str], remembered: &[&str]) {
        let endpoint = |name: &&str| {
            let address = self.address(name);
            Endpoint { host: address.ip().to_string(), port: address.port() }
        };
        let targets = Targets {
            configured: join.iter().map(endpoint).collect(),
            remembered: remembered.iter().map(|name| self.address(name)).collect(),
        };
        self.start_with(name, generation, targets, Handover::default());
    }

    /// Starts a node with what an earlier start knew, and without seeds.
    pub(crate) fn start_from(&mut self, name: &'static str, handover: Handover) {
        let generation = self.hosts[name].identity.id.generation;
        let generation = if handover.continues { generation } else { generation + INCARNATIONS };
        self.start_with(name, generation, Targets::default(), handover);
    }

    fn start_with(&mut self, name: &'static str, generation: u64, targets: Targets, handover: Handover) {
        let (network, hold) = (self.network.clone(), self.hold);
        let host = self.hosts.get_mut(name).unwrap();
        assert!(host.process.is_none(), "{name} is running already");
        host.identity.id.generation = generation;
        host.process = Some(Process::start(&network, &host.identity, targets, hold, &host.announcements, handover));
    }

    /// Starts a node on a host of another address with the name of an existing one.
    pub(crate) fn impostor(&mut self, host: &'static str, of: &str, join: &str) {
        let generation = self.hosts[of].identity.id.generation + INCARNATIONS;
        self.impostor_of(host, of, generation, join);
    }

    /// Like `impostor`, with this generation.
    pub(crate) fn impostor_of(&mut self, host: &'static str, of: &str, generation: u64, join: &str) {
        let join = self.address(join);
        let address = SocketAddr::from(([10, 0, 9, 9], 7946));
        let name = self.hosts[of].identity.id.name.clone();
        let identity = Identity { id: PeerId { name, generation }, address };
        let (announcements, _) = watch::channel(OwnState::default());
        let targets = Targets {
            configured: vec![Endpoint { host: join.ip().to_string(), port: join.port() }],
            ..Targets::default()
        };
        let start = Handover::default();
        let process = Process::start(&self.network, &identity, targets, self.hold, &announcements, start);
        self.hosts.insert(host, Host { identity, announcements, process: Some(process) });
        self.announce(host, "web", host, InstanceState::Passing);
    }

    /// Asks a node to stop, like a signal.
    pub(crate) fn signal(&self, name: &str) {
        self.process(name).shutdown.cancel();
    }

    /// Stops a node; returns its end.
    pub(crate) async fn stop(&mut self, name: &str) -> End {
        self.signal(name);
        self.ends(name).await
    }

    /// Kills a node, so that it does not announce its leave.
    pub(crate) async fn kill(&mut self, name: &str) {
        let host = self.hosts.get_mut(name).unwrap();
        let mut process = host.process.take().expect("a running node");
        self.network.detach(&host.identity);
        process.running.abort();
        let _ = (&mut process.running).await;
    }

    /// Ends a node whose sockets stay open.
    pub(crate) async fn hang(&mut self, name: &str) {
        self.network.keep_open(self.address(name));
        self.kill(name).await;
    }

    /// Sends a command to announce a restart.
    pub(crate) async fn announce_restart(&self, name: &str) {
        let (done, announced) = oneshot::channel();
        self.process(name).commands.send(Command::AnnounceRestart { done }).await.unwrap();
        announced.await.unwrap();
    }

    /// What a node hands over to its next start.
    pub(crate) async fn snapshot(&self, name: &str) -> Vec<KnownPeer> {
        let (done, known) = oneshot::channel();
        self.process(name).commands.send(Command::Snapshot { done }).await.unwrap();
        known.await.unwrap()
    }

    /// Waits for the end of a node.
    pub(crate) async fn ends(&mut self, name: &str) -> End {
        let mut process = self.hosts.get_mut(name).unwrap().process.take().expect("a running node");
        (&mut process.running).await.unwrap()
    }

    /// Cuts the links between two groups of hosts.
    pub(crate) fn cut(&self, these: &[&str], those: &[&str]) {
        self.cut_one_way(these, those);
        self.cut_one_way(those, these);
    }

    /// Cuts the links between two groups of hosts in one direction.
    pub(crate) fn cut_one_way(&self, from: &[&str], to: &[&str]) {
        for from in from {
            for to in to.iter().filter(|to| *to != from) {
                self.network.cut(self.address(from), self.address(to));
            }
        }
    }

    /// Announces an instance on a host, or changes its state.
    pub(crate) fn announce(&self, host: &str, service: &str, id: &str, standing: InstanceState) {
        let host = &self.hosts[host];
        let instance = instance(host.identity.address, service, id);
        let announcement = Announcement::new(Arc::new(instance), standing);
        host.announcements.send_modify(|own| {
            let all = &mut own.announcements;
            all.extend([announcement.into_entry()]);
        });
    }

    /// Announces this many services on a host, each with this many octets of metadata that do not compress.
    pub(crate) fn announce_many(&self, host: &str, services: usize, meta: usize) {
        let host = &self.hosts[host];
        let seed = host.identity.id.name.as_str().bytes().fold(1, |seed, octet| seed * 31 + u64::from(octet));
        let mut rng = fastrand::Rng::with_seed(seed);
        host.announcements.send_modify(|own| {
            let all = &mut own.announcements;
            for at in 0..services {
                let text: String = (0..meta).map(|_| rng.alphanumeric()).collect();
                let id = format!("{}-{at}", host.identity.id.name);
                let mut instance = instance(host.identity.address, &format!("bulk{at}"), &id);
                instance.meta = [("text", text)].into();
                let announcement = Announcement::new(Arc::new(instance), InstanceState::Passing);
                all.extend([announcement.into_entry()]);
            }
        });
    }

    /// Changes the health of the host's instance of `web`.
    pub(crate) fn flip(&self, host: &str, healthy: bool) {
        let status = if healthy { Status::Passing } else { Status::Critical };
        self.announce(host, "web", host, InstanceState::new(status, "refused"));
    }

    /// Sets the status of a check of a host as a whole, with the states of all its instances, as one change.
    pub(crate) fn check_node(&self, host: &str, status: Status, output: &str) {
        let check = CheckReport {
            id: "disk".into(),
            name: "Disk".into(),
            notes: "".into(),
            status,
            output: output.into(),
            since: 1,
        };
        let state = match status {
            Status::Critical => InstanceState::withheld(HoldReason::NodeCritical, &format!("Disk: {output}")),
            Status::Passing | Status::Warning => InstanceState::new(status, output),
        };
        self.hosts[host].announcements.send_modify(|own| {
            own.node_checks = Some(Arc::new(HealthReport { since: 1, checks: vec![check] }));
            let held =
                |known: &Arc<Announcement>| Announcement::new(known.instance.clone(), state.clone()).into_entry();
            own.announcements = own.announcements.values().map(held).collect();
        });
    }

    /// Removes an instance from a host.
    pub(crate) fn withdraw(&self, host: &str, service: &str, id: &str) {
        let key = InstanceKey { service: label(service).into(), id: label(id) };
        self.hosts[host].announcements.send_modify(|own| drop(own.announcements.remove(&key)));
    }

    /// Sends a keyring command to a node.
    pub(crate) async fn keyring(&self, at: &str, change: KeyringCommand) -> KeyringReport {
        self.change_keys(at, change, false).await
    }

    /// Sends a keyring command to a node, which carries it out although members are missing.
    pub(crate) async fn force_keyring(&self, at: &str, change: KeyringCommand) -> KeyringReport {
        self.change_keys(at, change, true).await
    }

    async fn change_keys(&self, at: &str, change: KeyringCommand, force: bool) -> KeyringReport {
        let (done, outcome) = oneshot::channel();
        self.process(at).commands.send(Command::Keyring { change, force, done }).await.unwrap();
        outcome.await.unwrap().unwrap()
    }

    /// Fires a user event on a node.
    pub(crate) async fn fire(&self, at: &str, name: &str, to: Audience) {
        let (done, fired) = oneshot::channel();
        let command = Command::Fire { name: name.to_owned(), payload: b"x".to_vec(), to, done };
        self.process(at).commands.send(command).await.unwrap();
        assert_eq!(fired.await.unwrap().name, name);
    }

    /// Sends a command to forget a node.
    pub(crate) async fn forget(&self, at: &str, name: &str) -> Result<(), ForgetError> {
        let (done, outcome) = oneshot::channel();
        self.process(at).commands.send(Command::Forget { name: label(name), done }).await.unwrap();
        outcome.await.unwrap()
    }

    /// Sends a command to join another node's cluster.
    pub(crate) async fn join(&self, at: &str, other: &str) {
        let (done, outcome) = oneshot::channel();
        let address = self.address(other);
        let target = Endpoint { host: address.ip().to_string(), port: address.port() };
        self.process(at).commands.send(Command::Join { target, done }).await.unwrap();
        outcome.await.unwrap().unwrap();
    }

    /// Sends a command to leave; returns the node's end.
    pub(crate) async fn leave(&mut self, name: &str) -> End {
        let (done, outcome) = oneshot::channel();
        self.process(name).commands.send(Command::Leave { done }).await.unwrap();
        outcome.await.unwrap();
        self.ends(name).await
    }

    // --- Observations ------------------------------------------------------------------------------------------------

    /// A node's answer to SRV of a service: the ids, or their absence, and the Extended DNS Error.
    pub(crate) fn answer(&self, at: &str, service: &str) -> String {
        let process = self.process(at);
        process.dns.borrow_mut().ask(process.view.borrow().clone(), service)
    }

    /// The checks of a host as a whole that a node knows: name, status and output.
    pub(crate) fn checks_of(&self, by: &str, of: &str) -> Vec<String> {
        let view = self.process(by).view.borrow().clone();
        let report = view.get(&self.hosts[of].identity.id.name).and_then(|known| known.node.checks.clone());
        let checks = report.iter().flat_map(|report| &report.checks);
        checks.map(|check| format!("{} {}: {}", check.name, check.status.as_str(), check.output)).collect()
    }

    /// Names of the user events that a node knows, oldest first.
    pub(crate) fn events(&self, at: &str) -> Vec<String> {
        self.process(at).events.borrow().iter().map(|event| event.name.clone()).collect()
    }

    /// Reachability of `of` as seen by `by`.
    pub(crate) fn reach(&self, by: &str, of: &str) -> Option<Reach> {
        let name = &self.hosts[of].identity.id.name;
        self.members(by).members.iter().find(|member| member.id.name == *name).map(|member| member.reach)
    }

    /// Membership published by a node.
    pub(crate) fn members(&self, by: &str) -> Arc<Membership> {
        self.process(by).members.borrow().clone()
    }

    /// Reports whether a node has published that its state of the cluster is complete.
    pub(crate) fn is_synced(&self, by: &str) -> bool {
        *self.process(by).synced.borrow()
    }

    /// Bound of the serials of a node's former runs, as its peers know it.
    pub(crate) fn former_serial(&self, at: &str) -> Option<u32> {
        *self.process(at).former_serial.borrow()
    }

    /// Sets the bound of a node's own serials.
    pub(crate) fn reserve_serials(&self, at: &str, ceiling: u32) {
        self.process(at).serial_ceiling.send_replace(ceiling);
    }

    /// Sets the serial of the generated zones that a node announces.
    pub(crate) fn announce_serial(&self, at: &str, serial: Option<u32>) {
        self.process(at).zone_serial.send_replace(serial);
    }

    /// Serials of the generated zones that a node knows of its live peers.
    pub(crate) fn zone_serials(&self, at: &str) -> Vec<(String, u32)> {
        let known = self.process(at).zone_serials.borrow().clone();
        known.iter().map(|(name, serial)| (name.to_string(), *serial)).collect()
    }

    /// Gossip addresses of the peers that a node reaches.
    pub(crate) fn peers(&self, by: &str) -> BTreeSet<SocketAddr> {
        self.process(by).peers.borrow().clone()
    }

    /// Hosts with a running node.
    pub(crate) fn up(&self) -> Vec<&'static str> {
        let up = self.hosts.iter().filter(|(_, host)| host.process.is_some());
        up.map(|(name, _)| *name).collect()
    }

    /// Gossip address of a host's node.
    pub(crate) fn address(&self, name: &str) -> SocketAddr {
        self.hosts[name].identity.address
    }

    /// Reports whether a node has ended by itself.
    pub(crate) fn has_ended(&self, name: &str) -> bool {
        self.process(name).running.is_finished()
    }

    /// Current run of a node.
    pub(crate) fn identity(&self, name: &str) -> Identity {
        self.hosts[name].identity.clone()
    }

    /// Correct answer for `web`.
    pub(crate) fn truth(&self) -> String {
        let mut declared = false;
        let mut ids = BTreeSet::new();
        for host in self.hosts.values().filter(|host| host.process.is_some()) {
            for (key, announced) in
                host.announcements.borrow().announcements.iter().filter(|(key, _)| key.service.as_str() == "web")
            {
                declared = true;
                if announced.state.is_answered() {
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

    /// Waits until a condition holds; returns the time that took.
    pub(crate) async fn until(&self, within: Duration, what: &str, holds: impl Fn(&Self) -> bool) -> Duration {
        let start = Instant::now();
        while !holds(self) {
            assert!(start.elapsed() < within, "timeout after {within:?}: {what}\n{}", self.show());
            sleep(STEP).await;
        }
        start.elapsed()
    }

    /// Waits until all these nodes give this answer for `web`.
    pub(crate) async fn answers(&self, within: Duration, at: &[&str], expected: &str) -> Duration {
        let what = format!("{at:?} answer {expected:?}");
        self.until(within, &what, |c| at.iter().all(|at| c.answer(at, "web") == expected)).await
    }

    /// Waits until every running node gives the correct answer.
    pub(crate) async fn settles(&self, within: Duration) -> Duration {
        self.answers(within, &self.up(), &self.truth()).await
    }

    /// Asserts that these nodes keep giving this answer for `web`.
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

    /// Correct answer, and answers and membership of each node.
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
        self.hosts[name].process.as_ref().unwrap_or_else(|| panic!("{name} is not running"))
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
        announcements: &watch::Sender<OwnState>,
        handover: Handover,
    ) -> Self {
        let PeerId { name, generation } = identity.id.clone();
        let node = Arc::new(Node {
            name: name.clone(),
            addresses: vec![identity.address.ip()],
            datacenter: label("dc1"),
            zone: None,
            meta: Default::default(),
            checks: None,
        });
        let (link, side) = link::pair();
        network.attach(identity.clone(), side);
        let (known, continues) = (handover.known.clone(), handover.continues);
        let settings = Settings {
            own: identity.clone(),
            node: node.clone(),
            version: "1".to_owned(),
            ttl: 5,
            cluster: "service.local.".to_owned(),
            interval: INTERVAL,
            hold,
            restart_hold: RESTART_HOLD,
            incarnation: handover.incarnation,
            age: Duration::ZERO,
            known: handover.known,
            continues: handover.continues,
            targets,
            seed: generation.wrapping_add(identity.address.ip().is_ipv4().into()),
        };
        let announced = announcements.subscribe();
        let (commands, queue) = mpsc::channel(4);
        let (view, seen) = watch::channel(node::initial_view(
            &node,
            &announced.borrow().announcements,
            &Default::default(),
            &known,
            continues,
        ));
        let first_serials = node::initial_zone_serials(&known, continues);
        let (members, membership) = watch::channel(Arc::default());
        let (peers, reached) = watch::channel(BTreeSet::new());
        let (keyring, _) = watch::channel(Some(Keyring::new(Key::from_random([7; 32]))));
        let (serial_ceiling, ceiling) = watch::channel(0);
        let (zone_serial, zone) = watch::channel(None);
        let (serials, zone_serials) = watch::channel(first_serials);
        let inputs = Inputs {
            own: announced,
            link,
            commands: queue,
            rejected: Arc::new(Rejected::default()),
            metrics: Gossip::default(),
            serial_ceiling: ceiling,
            zone_serial: zone,
        };
        let (events, fired) = watch::channel(EventLog::default());
        let (complete, synced) = watch::channel(false);
        let (former, former_serial) = watch::channel(None);
        let outputs = Outputs {
            view,
            members,
            peers,
            keyring,
            events,
            synced: complete,
            former_serial: former,
            zone_serials: serials,
        };
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(node::run(settings, inputs, outputs, shutdown.clone()));
        Self {
            view: seen,
            members: membership,
            peers: reached,
            events: fired,
            synced,
            serial_ceiling,
            zone_serial,
            zone_serials,
            former_serial,
            commands,
            shutdown,
            running,
            dns: RefCell::new(Dns::of(name)),
        }
    }
}

impl Dns {
    fn of(node: Label) -> Self {
        let domain = Name::parse("service.local").unwrap();
        let tables = Tables::new(zone::Settings::new(node, label("dc1"), domain));
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

/// A minimal instance on a host.
pub(crate) fn instance(host: SocketAddr, service: &str, id: &str) -> Instance {
    Instance {
        port: Some(80),
        ..Instance::new(InstanceKey { service: label(service).into(), id: label(id) }, vec![host.ip()])
    }
}
