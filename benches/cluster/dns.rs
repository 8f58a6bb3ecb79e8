//! Client that queries many nodes over one UDP socket: all queries are sent, then the answers counted.

use std::{
    net::{Ipv4Addr, UdpSocket},
    time::{Duration, Instant},
};

/// Timeout of a round of queries: loopback takes less than a millisecond.
const PATIENCE: Duration = Duration::from_millis(20);

/// Query packet; the id is set per node.
pub(crate) struct Question(Vec<u8>);

impl Question {
    /// Creates a query for SRV records.
    pub(crate) fn srv(name: &str) -> Self {
        Self::new(name, 33)
    }

    /// Creates a query for A records.
    pub(crate) fn a(name: &str) -> Self {
        Self::new(name, 1)
    }

    fn new(name: &str, qtype: u8) -> Self {
        // One question and the OPT record with a payload of 4,096 octets (RFC 6891 §6.1.2).
        let mut packet = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1];
        for label in name.split('.') {
            packet.push(label.len() as u8);
            packet.extend_from_slice(label.as_bytes());
        }
        packet.extend_from_slice(&[0, 0, qtype, 0, 1]);
        packet.extend_from_slice(&[0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0]);
        Self(packet)
    }
}

/// Client socket.
pub(crate) struct Asker {
    socket: UdpSocket,
    buffer: Vec<u8>,
    round: u8,
}

impl Asker {
    /// Binds the socket.
    pub(crate) fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        Self { socket, buffer: vec![0; 4096], round: 0 }
    }

    /// Queries each node; returns the number of records of each that answers.
    pub(crate) fn ask(&mut self, at: &[(usize, Ipv4Addr)], question: &Question) -> Vec<(usize, usize)> {
        self.round = self.round.wrapping_add(1);
        let mut packet = question.0.clone();
        let mut open = 0;
        for (node, address) in at {
            // The id combines node and round, so that late answers are detected.
            packet[..2].copy_from_slice(&[self.round, *node as u8]);
            // An agent that has just ended makes the socket fail once: its answer is missing.
            open += usize::from(self.socket.send_to(&packet, (*address, 53)).is_ok());
        }
        let until = Instant::now() + PATIENCE;
        let mut answers = Vec::with_capacity(at.len());
        while answers.len() < open {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.socket.set_read_timeout(Some(left)).unwrap();
            let Ok(len) = self.socket.recv(&mut self.buffer) else { continue };
            let reply = &self.buffer[..len];
            if len >= 12 && reply[0] == self.round {
                answers.push((usize::from(reply[1]), usize::from(u16::from_be_bytes([reply[6], reply[7]]))));
            }
        }
        answers
    }
}
