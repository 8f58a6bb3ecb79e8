//! The network's side of the channels of a node without an address for other hosts: nothing is sent, nothing is received.

use std::time::Duration;

use tokio::time::sleep;

use super::{Sockets, streams::MAX_FRAME};
use crate::gossip::link::Network;

/// Pause after a packet or an error: senders do not expect an answer.
const PAUSE: Duration = Duration::from_millis(10);

/// Discards packets and messages until the node has dropped its end. The sockets are emptied, so that a later transport on
/// them starts with the present.
pub async fn discard(sockets: Sockets, network: Network) {
    let Sockets { udp, tcp } = sockets;
    // The sender of `inbound` is kept, because its end would look like the end of the network.
    let Network { mut outbound, inbound: _inbound } = network;
    let mut buffer = vec![0; MAX_FRAME];
    let empty = async {
        loop {
            tokio::select! {
                _ = udp.recv_from(&mut buffer) => {}
                // The connection is closed at once.
                _ = tcp.accept() => {}
            }
            sleep(PAUSE).await;
        }
    };
    tokio::select! {
        () = empty => {}
        () = async { while outbound.recv().await.is_some() {} } => {}
    }
}
