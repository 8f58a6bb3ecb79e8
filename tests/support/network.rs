//! A network that exists in memory, and nodes on it: the real gossip of each, without sockets between them.
//!
//! Everything runs in one thread under paused time, so that a scenario of minutes takes moments and its times are exact.
//! (chitchat's codec is a pair of loopback sockets within each node; what it sends has arrived when it is sent.)

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashSet},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use muster::{
    dns::{
        code::rtype,
        engine::{Engine, Transport},
        table::{Settings as TableSettings, Tables},
    },
    gossip::{
        join::Targets,
        keyring::{Key, Keyring},
        link::{self, Inbound, Outbound},
        liveness::Knock,
        message::{Identity, Message},
        node::{self, End, Inputs, Order, Outputs, Settings},
        rejected::Rejected,
    },
    model::{
        announcement::{Announcement, Announcements, Node, Standing},
        catalog::{Catalog, View},
        member::{Membership, PeerId, Reach},
        name::{Label, Name},
        service::{Endpoint, Instance, InstanceKey, Protocol},
    },
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{Ask, decode, extended_error};

/// From one host to another.
const DELAY: Duration = Duration::from_millis(1);
/// How long the real wire waits for an answer to a knock.
const KNOCK: Duration = Duration::from_millis(300);
/// Of the configuration's default.
const INTERVAL: Duration = Duration::from_millis(200);
/// Longer than any scenario needs, by the paused clock.
const DEADLINE: Duration = Duration::from_secs(60);
/// From one look at a condition to the next: how exact the times of scenarios are.
const LOOK: Duration = Duration::from_millis(5);

pub fn label(text: &str) -> Label {
    Label::parse(text).unwrap()
}

/// What the network does to messages, beside delivering them.
#[derive(Default)]
struct World {
    hosts: BTreeMap<SocketAddr, Host>,
    /// From whom to whom nothing passes.
    cuts: HashSet<(IpAddr, IpAddr)>,
    /// Pushes are lost, and gossip has to bring everything.
    without_pushes: bool,
}

struct Host {
    who: Identity,
    inbound: mpsc::Sender<Inbound>,
    met: HashSet<PeerId>,
}

impl World {
    fn passes(&self, from: IpAddr, to: IpAddr) -> bool {
        !self.cuts.contains(&(from, to))
    }

    fn deliver(&mut self, from: &Identity, to: SocketAddr, octets: &[u8]) {
        let (there, back) = (self.passes(from.address.ip(), to.ip()), self.passes(to.ip(), from.address.ip()));
        let is_push = matches!(Message::decode(octets), Ok(Message::Push(_)));
        // Who has ended meanwhile sends nothing more.
        let sends = self.hosts.get(&from.address).is_some_and(|host| host.who == *from);
        if !there || !sends || (is_push && self.without_pushes) {
            return;
        }
        let Some(host) = self.hosts.get_mut(&to) else { return };
        if !host.met.contains(&from.id) {
            // Both have to hear each other once, as on the real wire.
            if !back {
                return;
            }
            host.met.insert(from.id.clone());
            let met = Inbound::Met { peer: from.clone(), at: from.address };
            let _ = host.inbound.try_send(met);
            let other = host.who.clone();
            let sender = self.hosts.get_mut(&from.address).unwrap();
            if sender.met.insert(other.id.clone()) {
                let _ = sender.inbound.try_send(Inbound::Met { at: other.address, peer: other });
            }
        }
        let inbound = Inbound::Message { from: from.clone(), octets: octets.to_vec() };
        let _ = self.hosts[&to].inbound.try_send(inbound);
    }
}

/// A cluster under test.
pub struct Cluster {
    world: Arc<Mutex<World>>,
    pub hosts: BTreeMap<&'static str, Running>,
    next_generation: u64,
    pub hold: Duration,
    /// What was answered of which view, by node and service.
    asked: RefCell<BTreeMap<(String, String), (View, Answer)>>,
}

/// A node that runs.
pub struct Running {
    pub identity: Identity,
    announced: watch::Sender<Announcements>,
    pub view: watch::Receiver<View>,
    pub members: watch::Receiver<Arc<Membership>>,
    pub peers: watch::Receiver<BTreeSet<SocketAddr>>,
    pub keyring: watch::Receiver<Option<Keyring>>,
    orders: mpsc::Sender<Order>,
    shutdown: CancellationToken,
    pub running: JoinHandle<End>,
}

/// What a question is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub code: String,
    /// The instances, by the first label of their names.
    pub instances: BTreeSet<String>,
    /// The extended error.
    pub said: Option<(u16, String)>,
}

/// Where a host is: `a` at 10.0.0.1, `b` at 10.0.0.2 and so on.
pub fn address(name: &str) -> SocketAddr {
    let number = name.as_bytes()[0] - b'a' + 1;
    SocketAddr::from(([10, 0, 0, number], 7946))
}

/// An instance of a service.
pub fn instance(service: &str, id: &str) -> Instance {
    Instance {
        key: InstanceKey { service: label(service), id: label(id) },
        addresses: vec!["192.0.2.1".parse().unwrap()],
        port: Some(80),
        ports: vec![],
        protocol: Protocol::Tcp,
        tags: vec![],
        meta: BTreeMap::new(),
        priority: 1,
        weight: 10,
        ttl: None,
    }
}

pub fn announcements(instances: impl IntoIterator<Item = Instance>) -> Announcements {
    let one = |instance: Instance| {
        let key = instance.key.clone();
        (key, Arc::new(Announcement { instance: Arc::new(instance), standing: Standing::Passing }))
    };
    instances.into_iter().map(one).collect()
}

impl Cluster {
    pub fn new() -> Self {
        Self {
            world: Arc::default(),
            hosts: BTreeMap::new(),
            next_generation: 1 << 40,
            hold: Duration::from_secs(600),
            asked: RefCell::default(),
        }
    }

    /// Nodes that all know the first one. Each announces the instance `web-NAME` of `web`, and they have met.
    pub async fn of(names: &[&'static str]) -> Self {
        let mut cluster = Self::new();
        for name in names {
            cluster.start(name, &[names[0]]);
        }
        cluster.until_all_answer(names).await;
        cluster
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// Starts a node at its own address, which looks for others at those of `join`.
    pub fn start(&mut self, name: &'static str, join: &[&str]) {
        let targets = Targets { configured: join.iter().map(|name| endpoint(name)).collect(), remembered: vec![] };
        self.start_with(name, name, targets, announcements([instance("web", &format!("web-{name}"))]));
    }

    /// The same at the address of `at`, with what it announces. It is kept under the name of `at`.
    pub fn start_with(&mut self, name: &'static str, at: &'static str, targets: Targets, announced: Announcements) {
        self.next_generation += 1 << 20;
        let own = Identity { id: PeerId { name: label(name), generation: self.next_generation }, address: address(at) };
        let (link, mut network) = link::pair();
        let world = self.world.clone();
        let host = Host { who: own.clone(), inbound: network.inbound.clone(), met: HashSet::new() };
        assert!(self.world().hosts.insert(own.address, host).is_none(), "two nodes at one address");
        let who = own.clone();
        tokio::spawn(async move {
            while let Some(outbound) = network.outbound.recv().await {
                let (world, who, inbound) = (world.clone(), who.clone(), network.inbound.clone());
                tokio::spawn(async move {
                    sleep(DELAY).await;
                    match outbound {
                        Outbound::Message { to, octets } => world.lock().unwrap().deliver(&who, to, &octets),
                        Outbound::Knock { peer, address } => {
                            let (ours, theirs) = (who.address.ip(), address.ip());
                            let answer = {
                                let world = world.lock().unwrap();
                                match world.passes(ours, theirs) && world.passes(theirs, ours) {
                                    false => Knock::Silent,
                                    true if world.hosts.contains_key(&address) => Knock::Accepted,
                                    true => Knock::Refused,
                                }
                            };
                            if answer == Knock::Silent {
                                sleep(KNOCK).await;
                            }
                            let _ = inbound.try_send(Inbound::Knocked { peer, answer });
                        }
                    }
                });
            }
        });
        let node = Arc::new(Node { name: label(name), addresses: vec![own.address.ip()], datacenter: label("dc1") });
        let (announced, own_announcements) = watch::channel(announced);
        let (view, seen) = watch::channel(View::new());
        let (members, membership) = watch::channel(Arc::default());
        let (peers, reached) = watch::channel(BTreeSet::new());
        let (keys, ring) = watch::channel(Some(Keyring::new(Key::from_random([1; 32]))));
        let (orders, ordered) = mpsc::channel(16);
        let shutdown = CancellationToken::new();
        let settings = Settings {
            own: own.clone(),
            node,
            version: "1.2.3".to_owned(),
            cluster: "service.local.".to_owned(),
            interval: INTERVAL,
            hold: self.hold,
            targets,
            seed: self.next_generation,
        };
        let inputs =
            Inputs { announcements: own_announcements, link, orders: ordered, rejected: Arc::new(Rejected::default()) };
        let outputs = Outputs { view, members, peers, keyring: keys };
        let running = tokio::spawn(node::run(settings, inputs, outputs, shutdown.clone()));
        let host = Running {
            identity: own,
            announced,
            view: seen,
            members: membership,
            peers: reached,
            keyring: ring,
            orders,
            shutdown,
            running,
        };
        self.hosts.insert(at, host);
    }

    /// Ends a node without a word, as `kill -9` does.
    pub fn kill(&mut self, name: &str) {
        let host = self.hosts.remove(name).unwrap();
        self.world().hosts.remove(&host.identity.address);
        host.running.abort();
        host.shutdown.cancel();
    }

    /// Ends a node as SIGTERM does; its good-bye is said when this returns.
    pub async fn stop(&mut self, name: &str) -> End {
        let host = self.hosts.remove(name).unwrap();
        host.shutdown.cancel();
        let end = host.running.await.unwrap();
        self.world().hosts.remove(&host.identity.address);
        end
    }

    /// Waits until the node has ended by itself.
    pub async fn ended(&mut self, name: &str) -> End {
        let host = self.hosts.remove(name).unwrap();
        let end = host.running.await.unwrap();
        self.world().hosts.remove(&host.identity.address);
        end
    }

    /// Nothing passes from one to the other, or passes again.
    pub fn cut(&self, from: &[&str], to: &[&str], cut: bool) {
        let mut world = self.world();
        for from in from {
            for to in to {
                let pair = (address(from).ip(), address(to).ip());
                if cut {
                    world.cuts.insert(pair)
                } else {
                    world.cuts.remove(&pair)
                };
            }
        }
    }

    /// Nothing passes between the two sides, or passes again.
    pub fn split(&self, a: &[&str], b: &[&str], cut: bool) {
        self.cut(a, b, cut);
        self.cut(b, a, cut);
    }

    pub fn heal(&self) {
        self.world().cuts.clear();
    }

    pub fn without_pushes(&self) {
        self.world().without_pushes = true;
    }

    /// Has a peer say something that the node at `to` hears.
    pub fn say(&self, from: &str, to: &str, message: &Message<'_>) {
        let mut octets = vec![];
        message.encode(&mut octets).unwrap();
        let from = self.hosts[from].identity.clone();
        let _ = self.world().hosts[&address(to)].inbound.try_send(Inbound::Message { from, octets });
    }

    /// Changes what a node announces.
    pub fn announce(&self, name: &str, change: impl FnOnce(&mut Announcements)) {
        self.hosts[name].announced.send_modify(change);
    }

    /// Changes the health of an instance.
    pub fn flip(&self, name: &str, service: &str, id: &str, standing: Standing) {
        let key = InstanceKey { service: label(service), id: label(id) };
        self.announce(name, |announcements| {
            let instance = announcements[&key].instance.clone();
            announcements.insert(key, Arc::new(Announcement { instance, standing }));
        });
    }

    pub async fn order<T>(&self, name: &str, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> T {
        let (done, outcome) = oneshot::channel();
        self.hosts[name].orders.send(order(done)).await.unwrap();
        outcome.await.unwrap()
    }

    /// What a node answers.
    pub fn ask(&self, name: &str, service: &str) -> Answer {
        let view = self.hosts[name].view.borrow().clone();
        let mut asked = self.asked.borrow_mut();
        match asked.get(&(name.to_owned(), service.to_owned())) {
            Some((of, answer)) if of.ptr_eq(&view) => answer.clone(),
            _ => {
                let answer = answer(name, service, &view);
                asked.insert((name.to_owned(), service.to_owned()), (view, answer.clone()));
                answer
            }
        }
    }

    /// How `name` sees `peer`.
    pub fn reach(&self, name: &str, peer: &str) -> Option<Reach> {
        let members = self.hosts[name].members.borrow();
        members.members.iter().find(|member| member.id.name == label(peer)).map(|member| member.reach)
    }

    /// Waits until something is so, and says how long that took.
    pub async fn until(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) -> Duration {
        let started = Instant::now();
        while !is_so(self) {
            if started.elapsed() >= DEADLINE {
                let seen: Vec<String> = self.hosts.keys().map(|name| self.describe(name)).collect();
                panic!("not in {DEADLINE:?}: {what}\n{}", seen.join("\n"));
            }
            sleep(LOOK).await;
        }
        started.elapsed()
    }

    fn describe(&self, name: &str) -> String {
        let members = self.hosts[name].members.borrow();
        let members: Vec<_> = members.members.iter().map(|member| (&member.id.name, member.reach)).collect();
        format!("{name}: {:?} {members:?}", self.ask(name, "web"))
    }

    /// Waits until each of these answers `web` with the instances of those.
    pub async fn until_these_answer(&self, these: &[&str], with: &[&str]) -> Duration {
        let expected: BTreeSet<String> = with.iter().map(|name| format!("web-{name}")).collect();
        self.until(&format!("{these:?} answer {expected:?}"), |cluster| {
            these.iter().all(|name| {
                let answer = cluster.ask(name, "web");
                answer.instances == expected && answer.said.is_none()
            })
        })
        .await
    }

    /// The same for all nodes.
    pub async fn until_all_answer(&self, with: &[&str]) -> Duration {
        let all: Vec<&str> = self.hosts.keys().copied().collect();
        self.until_these_answer(&all, with).await
    }

    /// For so long something stays so.
    pub async fn throughout(&self, time: Duration, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let started = Instant::now();
        while started.elapsed() < time {
            assert!(is_so(self), "after {:?} no more: {what}", started.elapsed());
            sleep(10 * LOOK).await;
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for host in self.hosts.values() {
            host.running.abort();
            host.shutdown.cancel();
        }
    }
}

pub fn endpoint(name: &str) -> Endpoint {
    Endpoint { host: address(name).ip().to_string(), port: address(name).port() }
}

/// What the tables of a view answer.
fn answer(name: &str, service: &str, view: &View) -> Answer {
    let mut tables = Tables::new(TableSettings {
        node: label(name),
        domain: Name::parse("service.local.").unwrap(),
        aliases: vec![],
        ttl: 5,
        negative_ttl: 1,
    });
    let mut catalog = Catalog::default();
    let touched = catalog.update(view.clone());
    tables.update(&catalog, &touched);
    tables.set_serial(1);
    let ask = Ask { name: format!("{service}.service.local."), qtype: rtype::SRV, edns: Some(1232), dnssec_ok: false };
    let mut out = vec![];
    let mut engine = Engine::new(1232, fastrand::Rng::with_seed(7));
    engine.respond(&tables, &ask.packet(1), Transport::Tcp, &mut out).expect("an answer");
    let message = decode(&out);
    let target = |data: String| data.rsplit(' ').next().unwrap().split('.').next().unwrap().to_owned();
    Answer {
        code: message.metadata.response_code.to_string(),
        instances: message.answers.iter().map(|record| target(record.data.to_string())).collect(),
        said: extended_error(&message),
    }
}
