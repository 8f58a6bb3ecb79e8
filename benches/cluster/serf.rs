//! Client of Serf's RPC with the part of MessagePack needed to count alive members.
//!
//! Serf coalesces its events for 1 to 3 s before handlers and streams get them. The members are therefore polled.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};

/// Connection to an agent.
pub(crate) struct Session {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Session {
    /// Connects; `None` if the agent is not running or stopped.
    pub(crate) fn connect(address: Ipv4Addr) -> Option<Self> {
        let stream = TcpStream::connect((address, 7373)).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(Duration::from_millis(200))).ok()?;
        let mut session = Self { stream, buffer: Vec::new() };
        let mut hello = header("handshake");
        hello.push(0x81);
        string(&mut hello, "Version");
        hello.push(1);
        session.exchange(&hello, 1)?;
        Some(session)
    }

    /// Returns the number of alive members with this name, or any if it is empty; `None` without an answer.
    pub(crate) fn alive(&mut self, name: &str) -> Option<usize> {
        let mut question = header("members-filtered");
        question.push(0x83);
        string(&mut question, "Tags");
        question.push(0xc0);
        string(&mut question, "Status");
        string(&mut question, "alive");
        string(&mut question, "Name");
        string(&mut question, name);
        let answer = self.exchange(&question, 2)?;
        let members = answer.windows(8).position(|window| window == b"\xa7Members")? + 8;
        match answer[members..] {
            [short @ 0x90..=0x9f, ..] => Some(usize::from(short & 0x0f)),
            [0xdc, high, low, ..] => Some(usize::from(u16::from_be_bytes([high, low]))),
            // An empty list is nil.
            [0xc0, ..] => Some(0),
            _ => None,
        }
    }

    /// Sends a request and reads this number of values.
    fn exchange(&mut self, request: &[u8], values: usize) -> Option<Vec<u8>> {
        self.stream.write_all(request).ok()?;
        loop {
            let mut end = Some(0);
            for _ in 0..values {
                end = end.and_then(|end| skip(&self.buffer, end));
            }
            if let Some(end) = end {
                let rest = self.buffer.split_off(end);
                return Some(std::mem::replace(&mut self.buffer, rest));
            }
            let mut part = [0; 16 * 1024];
            match self.stream.read(&mut part) {
                Ok(len @ 1..) => self.buffer.extend_from_slice(&part[..len]),
                _ => return None,
            }
        }
    }
}

fn header(command: &str) -> Vec<u8> {
    let mut header = vec![0x82];
    string(&mut header, "Command");
    string(&mut header, command);
    string(&mut header, "Seq");
    header.push(0);
    header
}

/// Encodes a string of less than 32 octets.
fn string(to: &mut Vec<u8>, text: &str) {
    to.push(0xa0 | text.len() as u8);
    to.extend_from_slice(text.as_bytes());
}

/// Returns the end of the value that begins at `at`; `None` if it is incomplete.
fn skip(octets: &[u8], at: usize) -> Option<usize> {
    let number = |len: usize| {
        let octets = octets.get(at + 1..at + 1 + len)?;
        Some(octets.iter().fold(0, |number, octet| number << 8 | usize::from(*octet)))
    };
    let (mut end, values) = match *octets.get(at)? {
        first @ 0x80..=0x8f => (at + 1, 2 * usize::from(first & 0x0f)),
        first @ 0x90..=0x9f => (at + 1, usize::from(first & 0x0f)),
        first @ 0xa0..=0xbf => (at + 1 + usize::from(first & 0x1f), 0),
        0xc4 | 0xd9 => (at + 2 + number(1)?, 0),
        0xc5 | 0xda => (at + 3 + number(2)?, 0),
        0xc6 | 0xdb => (at + 5 + number(4)?, 0),
        0xcc | 0xd0 => (at + 2, 0),
        0xcd | 0xd1 => (at + 3, 0),
        0xca | 0xce | 0xd2 => (at + 5, 0),
        0xcb | 0xcf | 0xd3 => (at + 9, 0),
        0xdc => (at + 3, number(2)?),
        0xdd => (at + 5, number(4)?),
        0xde => (at + 3, 2 * number(2)?),
        0xdf => (at + 5, 2 * number(4)?),
        // Small numbers, nil, true and false.
        _ => (at + 1, 0),
    };
    for _ in 0..values {
        end = skip(octets, end)?;
    }
    (end <= octets.len()).then_some(end)
}
