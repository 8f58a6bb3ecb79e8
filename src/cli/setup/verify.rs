//! Verification of a host's resolution: queries to one server, and lookups with the C library.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use crate::{
    dns::message::{
        codes::{class, rtype},
        query::HEADER,
    },
    model::name::Name,
};

/// Query timeout, like the C library's.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a change to take effect.
const RETRY_TIMEOUT: Duration = Duration::from_secs(8);
/// Delay between attempts.
const RETRY_DELAY: Duration = Duration::from_millis(250);
/// Maximum size of a reply in octets, without EDNS (RFC 1035 §4.2.1).
const MAX_REPLY: usize = 512;
/// Octets of the numbers in SOA RDATA, after the two names; the serial is the first (RFC 1035 §3.3.13).
const SOA_NUMBERS: usize = 20;

/// Reply of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Answer {
    rcode: u8,
    records: u16,
    /// Serial of the first record, if it is an SOA record.
    serial: Option<u32>,
}

/// Queries the serial of a zone; the error is a description.
pub(super) fn serial(server: SocketAddr, zone: &Name) -> Result<u32, String> {
    let answer = exchange(server, zone, rtype::SOA).map_err(|error| describe(&error))?;
    answer.serial.ok_or_else(|| format!("{} without an SOA record", rcode_name(answer.rcode)))
}

/// Reports whether a server listens at the address.
pub(super) fn is_listening(server: SocketAddr) -> bool {
    !exchange(server, &Name::root(), rtype::NS).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Checks that a server resolves public names: the name servers of the root. The error is a description.
pub(super) fn resolves_root(server: SocketAddr) -> Result<(), String> {
    let answer = exchange(server, &Name::root(), rtype::NS).map_err(|error| describe(&error))?;
    // Without a reachable server, resolved answers NOERROR without records.
    if answer.rcode == 0 && answer.records > 0 {
        Ok(())
    } else {
        Err(format!("{} with {} records", rcode_name(answer.rcode), answer.records))
    }
}

/// Looks up a host with the C library, which reads the changed configuration.
pub(super) fn look_up(host: &str) -> Result<BTreeSet<IpAddr>, String> {
    let found = (host, 0).to_socket_addrs().map_err(|error| error.to_string())?;
    Ok(found.map(|address| address.ip()).collect())
}

/// Repeats an attempt until it succeeds or the time is up; then returns the last error.
pub(super) fn retry<T>(attempt: impl Fn() -> Result<T, String>) -> Result<T, String> {
    let deadline = Instant::now() + RETRY_TIMEOUT;
    loop {
        match attempt() {
            Err(_) if Instant::now() < deadline => thread::sleep(RETRY_DELAY),
            outcome => return outcome,
        }
    }
}

fn exchange(server: SocketAddr, name: &Name, rtype: u16) -> io::Result<Answer> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    let query = query(fastrand::u16(..), name, rtype);
    socket.send(&query)?;
    let deadline = Instant::now() + QUERY_TIMEOUT;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let mut reply = [0; MAX_REPLY];
        let len = socket.recv(&mut reply)?;
        if let Some(answer) = parse(&reply[..len], &query) {
            return Ok(answer);
        }
    }
}

/// A query with the RD bit set, like those of stub resolvers.
fn query(id: u16, name: &Name, rtype: u16) -> Vec<u8> {
    let mut query = vec![0; HEADER];
    query[..2].copy_from_slice(&id.to_be_bytes());
    query[2] = 0x01;
    query[5] = 1;
    query.extend_from_slice(name.wire());
    query.extend(rtype.to_be_bytes());
    query.extend(class::IN.to_be_bytes());
    query
}

/// Parses a reply; `None` if it does not belong to the query.
fn parse(reply: &[u8], query: &[u8]) -> Option<Answer> {
    let matches = reply.get(..2)? == &query[..2]
        && reply.get(2)? & 0x80 != 0
        && reply.get(HEADER..query.len())?.eq_ignore_ascii_case(&query[HEADER..]);
    let records = u16::from_be_bytes([*reply.get(6)?, *reply.get(7)?]);
    matches.then(|| Answer { rcode: reply[3] & 0x0f, records, serial: first_serial(reply, query.len()) })
}

/// The serial of the record at an offset, if it is an SOA record.
fn first_serial(reply: &[u8], mut at: usize) -> Option<u32> {
    loop {
        match *reply.get(at)? {
            0 => break at += 1,
            // A compression pointer ends a name (RFC 1035 §4.1.4).
            len if len >= 0xc0 => break at += 2,
            len => at += 1 + usize::from(len),
        }
    }
    let [kind @ .., high, low] = reply.get(at..at + 10)? else { return None };
    let len = usize::from(u16::from_be_bytes([*high, *low]));
    let data = reply.get(at + 10..at + 10 + len)?;
    let numbers = data.get(len.checked_sub(SOA_NUMBERS)?..)?;
    kind.starts_with(&rtype::SOA.to_be_bytes()).then(|| numbers.first_chunk().copied().map(u32::from_be_bytes))?
}

fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("query timed out after {} s", QUERY_TIMEOUT.as_secs())
        }
        _ => error.to_string(),
    }
}

fn rcode_name(rcode: u8) -> String {
    match rcode {
        0 => "NOERROR".to_owned(),
        1 => "FORMERR".to_owned(),
        2 => "SERVFAIL".to_owned(),
        3 => "NXDOMAIN".to_owned(),
        4 => "NOTIMP".to_owned(),
        5 => "REFUSED".to_owned(),
        other => format!("RCODE {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soa(query: &[u8], owner: &[u8]) -> Vec<u8> {
        let mut reply = query.to_vec();
        reply[2] = 0x81;
        reply[7] = 1;
        reply.extend_from_slice(owner);
        reply.extend([0, 6, 0, 1, 0, 0, 0, 5, 0, 24, 0xc0, 12, 0xc0, 12]);
        reply.extend([7_u32, 60, 10, 600, 1].iter().flat_map(|number| number.to_be_bytes()));
        reply
    }

    #[test]
    fn soa_serials_are_parsed_from_replies() {
        let query = query(7, &Name::parse("Service.local").unwrap(), rtype::SOA);
        for owner in [&[0xc0, 12][..], b"\x07service\x05local\0"] {
            let reply = soa(&query, owner);
            assert_eq!(parse(&reply, &query), Some(Answer { rcode: 0, records: 1, serial: Some(7) }));
            for end in 0..reply.len() {
                let truncated = parse(&reply[..end], &query);
                assert!(truncated.is_none_or(|answer| answer.serial.is_none()), "{end}");
            }
        }
        let mut other = soa(&query, &[0xc0, 12]);
        other[query.len() + 3] = 5;
        assert_eq!(parse(&other, &query).unwrap().serial, None, "a CNAME");
        for at in [0, 2, 14] {
            let mut foreign = soa(&query, &[0xc0, 12]);
            foreign[at] ^= 0x83;
            assert_eq!(parse(&foreign, &query), None, "{at}");
        }
        let mut refused = query.clone();
        refused[2] = 0x81;
        refused[3] = 5;
        assert_eq!(parse(&refused, &query), Some(Answer { rcode: 5, records: 0, serial: None }));
    }

    #[test]
    fn a_closed_port_is_reported_as_refused() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = socket.local_addr().unwrap();
        drop(socket);
        assert!(!is_listening(server));
        assert_eq!(serial(server, &Name::root()).unwrap_err(), "connection refused");
        assert_eq!(resolves_root(server).unwrap_err(), "connection refused");
    }
}
