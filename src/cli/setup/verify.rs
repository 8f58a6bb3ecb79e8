//! Whether questions arrive: what a server says, and what the C library finds.

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

/// How long one answer may take: the C library's patience with a server.
const ANSWER: Duration = Duration::from_secs(5);
/// How long a change may take until it shows.
const CHANGE: Duration = Duration::from_secs(8);
/// From one look to the next.
const PERIOD: Duration = Duration::from_millis(250);
/// Octets of a reply: no EDNS is spoken (RFC 1035 §4.2.1).
const MAX_REPLY: usize = 512;
/// Octets of an SOA record behind its two names (RFC 1035 §3.3.13): the serial comes first.
const SOA_NUMBERS: usize = 20;

/// What a server said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Answer {
    rcode: u8,
    records: u16,
    /// Of an SOA record at the beginning.
    serial: Option<u32>,
}

/// The serial of a zone as a server knows it; else why there is none.
pub(super) fn serial(server: SocketAddr, zone: &Name) -> Result<u32, String> {
    let answer = ask(server, zone, rtype::SOA).map_err(|error| words(&error))?;
    answer.serial.ok_or_else(|| format!("it says {} and no SOA record", name_of(answer.rcode)))
}

/// Whether somebody listens there.
pub(super) fn is_there(server: SocketAddr) -> bool {
    !ask(server, &Name::root(), rtype::NS).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Whether a server resolves what all resolvers of the world know; else why not.
pub(super) fn world(server: SocketAddr) -> Result<(), String> {
    let answer = ask(server, &Name::root(), rtype::NS).map_err(|error| words(&error))?;
    // resolved itself says that there are no such records where nobody answers it.
    if answer.rcode == 0 && answer.records > 0 { Ok(()) } else { Err(format!("it says {}", name_of(answer.rcode))) }
}

/// What programs of this host find; the system's configuration is read anew.
pub(super) fn look_up(host: &str) -> Result<BTreeSet<IpAddr>, String> {
    let found = (host, 0).to_socket_addrs().map_err(|error| error.to_string())?;
    Ok(found.map(|address| address.ip()).collect())
}

/// Tries until it works, for a while; then the last trouble.
pub(super) fn patiently<T>(attempt: impl Fn() -> Result<T, String>) -> Result<T, String> {
    let deadline = Instant::now() + CHANGE;
    loop {
        match attempt() {
            Err(_) if Instant::now() < deadline => thread::sleep(PERIOD),
            outcome => return outcome,
        }
    }
}

fn ask(server: SocketAddr, name: &Name, rtype: u16) -> io::Result<Answer> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    let query = query(fastrand::u16(..), name, rtype);
    socket.send(&query)?;
    let deadline = Instant::now() + ANSWER;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let mut reply = [0; MAX_REPLY];
        let len = socket.recv(&mut reply)?;
        if let Some(answer) = read(&reply[..len], &query) {
            return Ok(answer);
        }
    }
}

/// A query that asks for recursion, as programs do.
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

/// What a reply says; `None` if it is not the query's.
fn read(reply: &[u8], query: &[u8]) -> Option<Answer> {
    let is_its = reply.get(..2)? == &query[..2]
        && reply.get(2)? & 0x80 != 0
        && reply.get(HEADER..query.len())?.eq_ignore_ascii_case(&query[HEADER..]);
    let records = u16::from_be_bytes([*reply.get(6)?, *reply.get(7)?]);
    is_its.then(|| Answer { rcode: reply[3] & 0x0f, records, serial: first_serial(reply, query.len()) })
}

/// The serial, if the record that begins there is an SOA.
fn first_serial(reply: &[u8], mut at: usize) -> Option<u32> {
    loop {
        match *reply.get(at)? {
            0 => break at += 1,
            // A pointer ends a name (RFC 1035 §4.1.4).
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

fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "nothing listens there".to_owned(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => format!("no answer within {} s", ANSWER.as_secs()),
        _ => error.to_string(),
    }
}

fn name_of(rcode: u8) -> String {
    match rcode {
        0 => "NOERROR".to_owned(),
        1 => "FORMERR".to_owned(),
        2 => "SERVFAIL".to_owned(),
        3 => "NXDOMAIN".to_owned(),
        4 => "NOTIMP".to_owned(),
        5 => "REFUSED".to_owned(),
        other => format!("the code {other}"),
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
    fn serials_are_found() {
        let query = query(7, &Name::parse("Service.local").unwrap(), rtype::SOA);
        for owner in [&[0xc0, 12][..], b"\x07service\x05local\0"] {
            let reply = soa(&query, owner);
            assert_eq!(read(&reply, &query), Some(Answer { rcode: 0, records: 1, serial: Some(7) }));
            for end in 0..reply.len() {
                let cut = read(&reply[..end], &query);
                assert!(cut.is_none_or(|answer| answer.serial.is_none()), "{end}");
            }
        }
        let mut other = soa(&query, &[0xc0, 12]);
        other[query.len() + 3] = 5;
        assert_eq!(read(&other, &query).unwrap().serial, None, "a CNAME");
        for at in [0, 2, 14] {
            let mut foreign = soa(&query, &[0xc0, 12]);
            foreign[at] ^= 0x83;
            assert_eq!(read(&foreign, &query), None, "{at}");
        }
        let mut refused = query.clone();
        refused[2] = 0x81;
        refused[3] = 5;
        assert_eq!(read(&refused, &query), Some(Answer { rcode: 5, records: 0, serial: None }));
    }

    #[test]
    fn where_nothing_listens_nobody_is() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = socket.local_addr().unwrap();
        drop(socket);
        assert!(!is_there(server));
        assert_eq!(serial(server, &Name::root()).unwrap_err(), "nothing listens there");
        assert_eq!(world(server).unwrap_err(), "nothing listens there");
    }
}
