//! Simulated nodes: the library's transport and gossip, without a view of the cluster.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use muster::{
    gossip::{
        anti_entropy::{Cluster, Settings},
        link::{self, Inbound, Outbox},
        liveness::IndirectProbeResult,
        message::{Change, Identity, Message, Push},
        rejected::Rejected,
        transport::{Sockets, Transport},
    },
    model::{
        announcement::InstanceState,
        keyring::Keyring,
        member::PeerId,
        name::Label,
        service::{Instance, InstanceKey},
    },
    record::Record,
};
use tokio::sync::watch;

use super::{FIRST, Size};

/// Maximum octets of gossip that a simulated node processes: digests only, so that the state is not kept 200 times.
const DIGEST: usize = 16 * 1024;

/// A simulated node.
pub(crate) struct Peer {
    generation: u64,
    cluster: Cluster,
    outbox: Outbox,
    keys: Vec<InstanceKey>,
}

impl Peer {
    /// Starts an exchange with an agent.
    pub(crate) fn exchange(&self, with: SocketAddr) {
        self.cluster.talk_to(with);
    }
}

/// Starts a node. It ignores gossip while `gossiping` is false.
pub(crate) async fn peer(number: usize, size: &Size, ring: &Keyring, gossiping: &Arc<AtomicBool>) -> Peer {
    let gossiping = gossiping.clone();
    let label = |text: String| Label::parse(&text).unwrap();
    let address = SocketAddr::from(([127, 4, 1 + (number / 250) as u8, (number % 250) as u8 + 1], 7946));
    let own = Identity { id: PeerId { name: label(format!("n{number}")), generation: 1 << 40 }, address };
    let (mut link, network) = link::pair();
    let (_, keyring) = watch::channel(Some(ring.clone()));
    let transport = Transport::new(own.clone(), keyring, network, Arc::new(Rejected::default())).unwrap();
    tokio::spawn(transport.run(Sockets::bind(address).unwrap()));
    let mut records = vec![
        Record::Node {
            addresses: vec![address.ip()],
            datacenter: label("dc1".into()),
            zone: None,
            version: "0.1.0".into(),
            meta: Default::default(),
            ttl: None,
        }
        .encode(),
    ];
    let mut keys = vec![];
    for at in 0..size.instances {
        let service = (number * size.instances + at) % size.services;
        let key = InstanceKey {
            service: label(format!("service-{service}")).into(),
            id: label(format!("service-{service}-n{number}-{at}")),
        };
        let instance = Instance {
            port: Some(8000 + (at % 1000) as u16),
            tags: vec!["v2".into()].into(),
            meta: [("version", "2.3.1")].into(),
            ..Instance::new(
                key.clone(),
                vec![IpAddr::from([10, (number / 250) as u8, (number % 250) as u8, (at % 250) as u8])],
            )
        };
        records.push(Record::Instance(Arc::new(instance)).encode());
        records.push(Record::State(key.clone(), InstanceState::Passing).encode());
        keys.push(key);
    }
    let settings = Settings { id: own.id.clone(), incarnation: 0, address, cluster: "service.local.".into() };
    let (to_cluster, inbox) = link::gossip();
    let cluster = Cluster::start(settings, records, link.outbox.clone(), inbox, Arc::default()).await.unwrap();
    cluster.talk_to(FIRST);
    let outbox = link.outbox.clone();
    tokio::spawn(async move {
        while let Some(inbound) = link.inbound.recv().await {
            let Inbound::Message { from, octets } = inbound else { continue };
            match Message::decode(&octets).unwrap() {
                Message::Ping { sequence, state } => {
                    // Another state makes the agent ask for this node's.
                    let state = if gossiping.load(Ordering::Relaxed) { !state } else { state };
                    link.outbox.send([from.address], &Message::Ack { sequence, state });
                }
                Message::IndirectProbe { sequence, target } => {
                    link.outbox.send(
                        [from.address],
                        &Message::IndirectResult { sequence, target, result: IndirectProbeResult::Acked },
                    );
                }
                Message::Gossip(octets) if octets.len() < DIGEST && gossiping.load(Ordering::Relaxed) => {
                    let _ = to_cluster.try_send((from.address, octets.to_vec()));
                }
                _ => {}
            }
        }
    });
    Peer { generation: own.id.generation, cluster, outbox, keys }
}

/// Changes the health of instances in turn, `rate` times a second; returns the number of changes.
pub(crate) async fn flip(peers: &mut [Peer], rate: u64, span: Duration) -> u64 {
    let (started, count) = (Instant::now(), peers.len());
    let mut flips = 0;
    while started.elapsed() < span {
        let due = (started.elapsed().as_secs_f64() * rate as f64) as u64;
        while flips < due {
            let peer = &mut peers[flips as usize % count];
            let round = flips as usize / count;
            let key = peer.keys[round % peer.keys.len()].clone();
            let state = match round / peer.keys.len() % 2 {
                0 => InstanceState::Critical("connection refused".into()),
                _ => InstanceState::Passing,
            };
            let (key, value) = Record::State(key, state).encode();
            let entries = peer.cluster.publish(&[(key, Some(value))]).await;
            let changes = entries.iter().map(|entry| Change {
                key: &entry.key,
                version: entry.version,
                value: entry.value.as_deref(),
            });
            let push = Push { generation: peer.generation, changes: changes.collect() };
            peer.outbox.send([FIRST], &Message::Push(push));
            flips += 1;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    flips
}
