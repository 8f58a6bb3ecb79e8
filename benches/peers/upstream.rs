//! Upstream that knows every name: a thread on the load generators' core, idle once all names are cached.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    thread,
};

/// TTL in seconds, longer than any run.
const TTL: u32 = 86_400;
/// RDATA of the SOA record: two names, serial, timers, and the negative TTL.
const SOA: &[u8] = b"\x02ns\xc0\x0c\x02hm\xc0\x0c\0\0\0\x01\0\0\x0e\x10\0\0\x02\x58\0\x01\x51\x80\0\0\x0e\x10";

/// Starts the upstream. Names that begin with `x` do not exist; all others have an address.
pub(crate) fn start() -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut query = [0; 4096];
        loop {
            let Ok((len, client)) = socket.recv_from(&mut query) else { continue };
            let _ = socket.send_to(&reply(&query[..len]), client);
        }
    });
    address
}

fn reply(query: &[u8]) -> Vec<u8> {
    let end = 12 + query[12..].iter().position(|octet| *octet == 0).unwrap() + 5;
    let missing = query[13].eq_ignore_ascii_case(&b'x');
    let is_address = !missing && query[end - 3] == 1;
    let mut reply = [&query[..2], &[0x81, 0x80 | (u8::from(missing) * 3), 0, 1], &[0; 6]].concat();
    reply[if is_address { 7 } else { 9 }] = 1;
    reply.extend_from_slice(&query[12..end]);
    let (rtype, rdata) = if is_address { (1_u8, &[192, 0, 2, 1][..]) } else { (6, SOA) };
    reply.extend([0xc0, 0x0c, 0, rtype, 0, 1]);
    reply.extend(TTL.to_be_bytes());
    reply.extend((rdata.len() as u16).to_be_bytes());
    reply.extend_from_slice(rdata);
    reply
}
