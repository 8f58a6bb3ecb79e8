//! Target for chitchat's messages: any input from a peer is refused, or chitchat decodes and applies it without an end of its
//! task, and within a bounded size.

use std::{cell::RefCell, net::SocketAddr, sync::Arc, time::Duration};

use muster::{
    gossip::{
        anti_entropy::{Cluster, Settings},
        link::{self, Inbox, Outbound},
        message::Message,
        rejected::Rejected,
    },
    model::{
        member::{INCARNATIONS, PeerId},
        name::Label,
    },
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc::{Receiver, Sender},
    time::timeout,
};

/// A SYN of the cluster with an empty digest.
const SYN: &[u8] = b"\x53\xb0\x01\x00\x00\x01\x00c";
/// A SYN that lists the runs of the seeds: `a`, `b` and `c` of generation 1024 at 10.0.0.1:7946.
const LISTING: &[u8] = include_bytes!("../seeds/anti_entropy/syn-three-runs");
/// Sender of the input.
const PEER: ([u8; 4], u16) = ([10, 0, 0, 1], 7946);
/// Sender of the message behind it.
const OTHER: ([u8; 4], u16) = ([10, 0, 0, 2], 7946);
/// Time limit for chitchat, even on a slow machine.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Largest number of blocks in a stream, and of octets in a block.
const BLOCKS: usize = 64;
const BLOCK: usize = 16_384;

/// Gives the octets to a running chitchat, and expects that it goes on.
pub fn run(octets: &[u8]) {
    thread_local! {
        static NODE: RefCell<Option<Node>> = const { RefCell::new(None) };
    }
    NODE.with_borrow_mut(|slot| {
        let mut node = slot.take().unwrap_or_else(Node::start);
        if node.accepts(octets) {
            assert!(is_bounded(octets), "chitchat decompressed more than its writer does: {octets:02x?}");
            // The next input finds the same state.
            node.stop();
        } else {
            *slot = Some(node);
        }
    });
}

/// A node without a network.
struct Node {
    runtime: Runtime,
    cluster: Cluster,
    rejected: Arc<Rejected>,
    inbox: Sender<(SocketAddr, Vec<u8>)>,
    network: link::Network,
    _inbound: Receiver<link::Inbound>,
}

impl Node {
    fn start() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let (link, network) = link::pair();
        let (inbox, messages): (_, Inbox) = link::gossip();
        let settings = Settings {
            id: PeerId { name: Label::parse("own").unwrap(), generation: INCARNATIONS },
            incarnation: 0,
            address: ([10, 0, 0, 9], 7946).into(),
            cluster: "c".to_owned(),
        };
        let own = vec![("n/node".to_owned(), "{}".to_owned())];
        let rejected = Arc::new(Rejected::default());
        let started = Cluster::start(settings, own, link.outbox, messages, rejected.clone());
        let cluster = runtime.block_on(started).unwrap();
        let mut node = Self { runtime, cluster, rejected, inbox, network, _inbound: link.inbound };
        assert!(node.accepts(LISTING));
        node
    }

    /// Reports whether a message passes the check, after chitchat has processed it and answered the next one.
    fn accepts(&mut self, octets: &[u8]) -> bool {
        let refused = |node: &Self| node.rejected.all().map(|(_, count)| count).sum::<u64>();
        let before = refused(self);
        self.inbox.try_send((PEER.into(), octets.to_vec())).unwrap();
        // A message that is refused is refused at once.
        self.runtime.block_on(async {
            for _ in 0..4 {
                tokio::task::yield_now().await;
            }
        });
        if refused(self) > before {
            return false;
        }
        let Self { runtime, inbox, network, cluster, .. } = self;
        runtime.block_on(async {
            inbox.try_send((OTHER.into(), SYN.to_vec())).unwrap();
            let answered = async {
                while let Some(sent) = network.outbound.recv().await {
                    let Outbound::Message { to, octets } = sent else { continue };
                    if to == OTHER.into() && matches!(Message::decode(&octets), Ok(Message::Gossip(_))) {
                        return true;
                    }
                }
                false
            };
            let ended = cluster.ended();
            tokio::select! {
                answered = timeout(TIMEOUT, answered) => assert_eq!(answered, Ok(true), "chitchat does not answer"),
                why = ended => panic!("chitchat has ended: {why}"),
            }
        });
        refused(self) == before
    }

    fn stop(self) {
        self.runtime.block_on(self.cluster.stop());
    }
}

/// Reports whether each stream of an accepted message is within the bounds.
fn is_bounded(message: &[u8]) -> bool {
    let mut rest = &message[4..];
    let streams = match message[3] {
        0 | 2 => 1,
        1 => 2,
        _ => 0,
    };
    (0..streams).all(|_| {
        let mut blocks = 0;
        while rest[0] != 0 {
            let len = usize::from(u16::from_le_bytes([rest[1], rest[2]]));
            let block = &rest[3..3 + len];
            let within = if rest[0] == 1 { zstd::bulk::decompress(block, BLOCK).is_ok() } else { len <= BLOCK };
            if !within {
                return false;
            }
            (blocks, rest) = (blocks + 1, &rest[3 + len..]);
        }
        rest = &rest[1..];
        blocks <= BLOCKS
    })
}
