//! Echo servers over the system-call paths that have safe wrappers.

use std::{
    array,
    io::{ErrorKind, IoSlice, IoSliceMut},
    net::UdpSocket,
    os::fd::{AsFd, AsRawFd},
    sync::atomic::{AtomicBool, Ordering},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg, sendmsg},
};

/// Maximum octets of a datagram.
const MAX: usize = 512;

fn reply(packet: &mut [u8]) {
    if let Some(flags) = packet.get_mut(2) {
        *flags |= 0x80;
    }
}

pub(crate) fn blocking(socket: &UdpSocket, stop: &AtomicBool) {
    let mut packet = [0; MAX];
    while !stop.load(Ordering::Relaxed) {
        let (len, client) = socket.recv_from(&mut packet).unwrap();
        reply(&mut packet[..len]);
        let _ = socket.send_to(&packet[..len], client);
    }
}

pub(crate) fn readiness(socket: &UdpSocket, stop: &AtomicBool) {
    socket.set_nonblocking(true).unwrap();
    let mut packet = [0; MAX];
    while !stop.load(Ordering::Relaxed) {
        match socket.recv_from(&mut packet) {
            Ok((len, client)) => {
                reply(&mut packet[..len]);
                let _ = socket.send_to(&packet[..len], client);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => wait(socket),
            Err(error) => panic!("{error}"),
        }
    }
}

fn wait(socket: &UdpSocket) {
    poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).unwrap();
}

pub(crate) fn many<const N: usize>(socket: &UdpSocket, stop: &AtomicBool) {
    batches::<N>(socket, stop, MsgFlags::MSG_DONTWAIT, together);
}

pub(crate) fn many_blocking<const N: usize>(socket: &UdpSocket, stop: &AtomicBool) {
    batches::<N>(socket, stop, MsgFlags::MSG_WAITFORONE, together);
}

pub(crate) fn segments<const N: usize>(socket: &UdpSocket, stop: &AtomicBool) {
    batches::<N>(socket, stop, MsgFlags::MSG_DONTWAIT, in_segments);
}

type Send = fn(&UdpSocket, &mut MultiHeaders<SockaddrIn>, &[([u8; MAX], usize)], &[Option<SockaddrIn>]);

fn batches<const N: usize>(socket: &UdpSocket, stop: &AtomicBool, flags: MsgFlags, send: Send) {
    let mut packets = [([0; MAX], 0); N];
    let mut clients = [None; N];
    let mut received = MultiHeaders::preallocate(N, None);
    let mut sent = MultiHeaders::preallocate(N, None);
    while !stop.load(Ordering::Relaxed) {
        let mut rest = packets.iter_mut();
        let mut slices: [[IoSliceMut<'_>; 1]; N] = array::from_fn(|_| [IoSliceMut::new(&mut rest.next().unwrap().0)]);
        let lens: [usize; N] = match recvmmsg(socket.as_raw_fd(), &mut received, slices.iter_mut(), flags, None) {
            Ok(messages) => {
                let mut lens = [0; N];
                for (at, message) in messages.enumerate() {
                    (lens[at], clients[at]) = (message.bytes, message.address);
                }
                lens
            }
            Err(Errno::EAGAIN) => {
                wait(socket);
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        let count = lens.iter().take_while(|len| **len > 0).count();
        for (packet, len) in packets.iter_mut().zip(lens).take(count) {
            packet.1 = len;
            reply(&mut packet.0[..len]);
        }
        send(socket, &mut sent, &packets[..count], &clients[..count]);
        if flags == MsgFlags::MSG_DONTWAIT && count < N {
            wait(socket);
        }
    }
}

fn together(
    socket: &UdpSocket,
    headers: &mut MultiHeaders<SockaddrIn>,
    packets: &[([u8; MAX], usize)],
    clients: &[Option<SockaddrIn>],
) {
    let slices: Vec<[IoSlice<'_>; 1]> = packets.iter().map(|(packet, len)| [IoSlice::new(&packet[..*len])]).collect();
    sendmmsg(socket.as_raw_fd(), headers, slices.iter(), clients, [], MsgFlags::MSG_DONTWAIT).unwrap();
}

/// Sends replies of one length to one client as one buffer, which the kernel segments (GSO).
fn in_segments(
    socket: &UdpSocket,
    _: &mut MultiHeaders<SockaddrIn>,
    packets: &[([u8; MAX], usize)],
    clients: &[Option<SockaddrIn>],
) {
    let mut order: Vec<usize> = (0..packets.len()).collect();
    let key = |at: &usize| (clients[*at].map(|client| (client.ip(), client.port())), packets[*at].1);
    order.sort_by_key(key);
    for same in order.chunk_by(|a, b| key(a) == key(b)) {
        let len = packets[same[0]].1;
        let slices: Vec<IoSlice<'_>> = same.iter().map(|at| IoSlice::new(&packets[*at].0[..len])).collect();
        let size = u16::try_from(len).unwrap();
        let control: &[ControlMessage<'_>] =
            if same.len() > 1 { &[ControlMessage::UdpGsoSegments(&size)] } else { &[] };
        let client = clients[same[0]].unwrap();
        sendmsg(socket.as_raw_fd(), &slices, control, MsgFlags::MSG_DONTWAIT, Some(&client)).unwrap();
    }
}
