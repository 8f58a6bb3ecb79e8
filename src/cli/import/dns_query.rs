//! DNS queries over TCP, for comparisons: whole answers, as no server truncates them.

use std::{
    collections::BTreeSet,
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::Duration,
};

use crate::{
    dns::message::{
        codes::{class, rtype},
        query::HEADER,
    },
    model::name::Name,
};

/// Timeout of a connection, and of each read.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of compression pointers in a name: a name has at most 127 labels.
const MAX_POINTERS: usize = 127;

/// Host and port of an instance.
pub(super) type Target = (IpAddr, u16);

/// Records of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Records {
    addresses: Vec<(Vec<u8>, IpAddr)>,
    /// Targets in wire form, in lower case, with their ports.
    targets: Vec<(Vec<u8>, u16)>,
    /// Number of records of the answer section in `addresses`.
    answered: usize,
}

/// The addresses of a name: its A and AAAA records.
pub(super) fn addresses(server: SocketAddr, name: &Name) -> io::Result<BTreeSet<IpAddr>> {
    addresses_of(server, name.wire())
}

fn addresses_of(server: SocketAddr, name: &[u8]) -> io::Result<BTreeSet<IpAddr>> {
    let mut found = BTreeSet::new();
    for kind in [rtype::A, rtype::AAAA] {
        let records = exchange(server, name, kind)?;
        found.extend(records.addresses.into_iter().take(records.answered).map(|(_, address)| address));
    }
    Ok(found)
}

/// The instances of a name: the addresses and ports of its SRV records. A target without an address in Additional is asked for.
pub(super) fn instances(server: SocketAddr, name: &Name) -> io::Result<BTreeSet<Target>> {
    let records = exchange(server, name.wire(), rtype::SRV)?;
    let mut found = BTreeSet::new();
    for (target, port) in &records.targets {
        let known = records.addresses.iter().filter(|(owner, _)| owner == target);
        let mut addresses: BTreeSet<IpAddr> = known.map(|(_, address)| *address).collect();
        if addresses.is_empty() {
            addresses = addresses_of(server, target)?;
        }
        found.extend(addresses.into_iter().map(|address| (address, *port)));
    }
    Ok(found)
}

fn exchange(server: SocketAddr, name: &[u8], kind: u16) -> io::Result<Records> {
    let mut stream = TcpStream::connect_timeout(&server, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut query = vec![0; 2 + HEADER];
    query[2..4].copy_from_slice(&fastrand::u16(..).to_be_bytes());
    query[7] = 1;
    query.extend_from_slice(name);
    query.extend(kind.to_be_bytes());
    query.extend(class::IN.to_be_bytes());
    let len = u16::try_from(query.len() - 2).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    query[..2].copy_from_slice(&len.to_be_bytes());
    stream.write_all(&query)?;
    let mut len = [0; 2];
    stream.read_exact(&mut len)?;
    let mut reply = vec![0; usize::from(u16::from_be_bytes(len))];
    stream.read_exact(&mut reply)?;
    match parse(&reply, &query[2..]) {
        Some(Reply::Records(records)) => Ok(records),
        Some(Reply::Failed(rcode)) => Err(io::Error::other(format!("answered with response code {rcode}"))),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "malformed DNS response")),
    }
}

/// A reply to a query.
#[derive(Debug, PartialEq, Eq)]
enum Reply {
    /// NOERROR, or NXDOMAIN without records.
    Records(Records),
    /// Another response code.
    Failed(u8),
}

/// Parses a reply; `None` if it is malformed or does not belong to the query.
fn parse(reply: &[u8], query: &[u8]) -> Option<Reply> {
    let is_reply = reply.get(..2)? == query.get(..2)? && reply.get(2)? & 0x80 != 0;
    if !is_reply {
        return None;
    }
    match reply.get(3)? & 0x0f {
        0 | 3 => {}
        rcode => return Some(Reply::Failed(rcode)),
    }
    let count = |at: usize| Some(usize::from(u16::from_be_bytes([*reply.get(at)?, *reply.get(at + 1)?])));
    let (questions, answers) = (count(4)?, count(6)?);
    let all = answers + count(8)? + count(10)?;
    let mut at = HEADER;
    for _ in 0..questions {
        at = name(reply, at)?.1 + 4;
    }
    let mut records = Records::default();
    for number in 0..all {
        let (owner, next) = name(reply, at)?;
        let [high, low, .., len_high, len_low] = *reply.get(next..next + 10)? else { return None };
        let start = next + 10;
        let end = start + usize::from(u16::from_be_bytes([len_high, len_low]));
        let data = reply.get(start..end)?;
        match u16::from_be_bytes([high, low]) {
            rtype::A => records.addresses.push((owner, Ipv4Addr::from(*data.first_chunk::<4>()?).into())),
            rtype::AAAA => records.addresses.push((owner, Ipv6Addr::from(*data.first_chunk::<16>()?).into())),
            rtype::SRV if number < answers => {
                let port = u16::from_be_bytes([*data.get(4)?, *data.get(5)?]);
                records.targets.push((name(reply, start + 6)?.0, port));
            }
            _ => {}
        }
        if number + 1 == answers {
            records.answered = records.addresses.len();
        }
        at = end;
    }
    Some(Reply::Records(records))
}

/// The name at an offset, uncompressed and in lower case, and the offset behind it.
fn name(reply: &[u8], mut at: usize) -> Option<(Vec<u8>, usize)> {
    let (mut name, mut end, mut pointers) = (Vec::new(), None, 0);
    loop {
        let len = *reply.get(at)?;
        match len {
            0 => {
                name.push(0);
                return Some((name, end.unwrap_or(at + 1)));
            }
            // RFC 1035 §4.1.4
            0xc0.. => {
                pointers += 1;
                if pointers > MAX_POINTERS {
                    return None;
                }
                end.get_or_insert(at + 2);
                at = usize::from(u16::from_be_bytes([len & 0x3f, *reply.get(at + 1)?]));
            }
            _ => {
                let label = reply.get(at..at + 1 + usize::from(len))?;
                name.extend(label.iter().map(u8::to_ascii_lowercase));
                at += label.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reply to a query for SRV records of `a.`: one record with an address in Additional.
    fn reply() -> (Vec<u8>, Vec<u8>) {
        let mut query = vec![0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'a', 0, 0, 33, 0, 1];
        let question = query.clone();
        query[2] = 0x80;
        query[7] = 1;
        query[11] = 1;
        query.extend([0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 5, 0, 10, 0, 1, 0, 1, 0, 80, 1, b'T', 0xc0, 12]);
        query.extend([1, b't', 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 0, 0, 7]);
        (query, question)
    }

    #[test]
    fn targets_and_addresses_are_read_from_all_sections() {
        let (reply, query) = reply();
        let owner = b"\x01t\x01a\0".to_vec();
        let records = Records {
            addresses: vec![(owner.clone(), "10.0.0.7".parse().unwrap())],
            targets: vec![(owner, 80)],
            answered: 0,
        };
        assert_eq!(parse(&reply, &query), Some(Reply::Records(records)));
    }

    #[test]
    fn truncated_foreign_and_looping_replies_are_refused() {
        let (reply, query) = reply();
        for end in 0..reply.len() {
            assert_eq!(parse(&reply[..end], &query), None, "{end}");
        }
        let mut other = reply.clone();
        other[1] = 8;
        assert_eq!(parse(&other, &query), None);
        let mut looping = reply.clone();
        looping[19..21].copy_from_slice(&[0xc0, 19]);
        assert_eq!(parse(&looping, &query), None);
        let mut failed = reply;
        failed[3] = 2;
        assert_eq!(parse(&failed, &query), Some(Reply::Failed(2)));
    }
}
