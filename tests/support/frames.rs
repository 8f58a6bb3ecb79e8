//! Ethernet frames of an interface: capture and delayed delivery.

use std::{
    io::{self, Read as _, Write as _},
    net::Ipv4Addr,
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use nix::{ifaddrs::getifaddrs, sys::socket::bind};
use socket2::{Domain, Protocol, Socket, Type};

use super::{namespaces::Namespace, wait};

/// Every protocol, in network byte order (packet(7)).
const ETH_P_ALL: i32 = 0x0003_u16.to_be() as i32;
/// Read timeout, after which a reading thread checks the stop flag.
const READ_TIMEOUT: Duration = Duration::from_millis(100);
/// Maximum length of a frame, which the kernel may have assembled from several (GRO).
const MAX_FRAME: usize = 1 << 16;

/// Opens a socket that reads and writes the frames of one interface.
pub fn open(namespace: &Namespace, interface: &str) -> Socket {
    namespace.enter(|| {
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(ETH_P_ALL))).unwrap();
        let mut links = getifaddrs().unwrap().filter(|link| link.interface_name == interface);
        let link = links.find_map(|link| link.address?.as_link_addr().copied()).unwrap();
        bind(socket.as_raw_fd(), &link).unwrap();
        socket.set_read_timeout(Some(READ_TIMEOUT)).unwrap();
        socket
    })
}

/// Captured UDP datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Source address.
    pub from: Ipv4Addr,
    /// Destination address.
    pub to: Ipv4Addr,
    /// UDP payload.
    pub payload: Vec<u8>,
}

/// Waits for the next UDP datagram to this port.
pub fn next_datagram(socket: &Socket, port: u16) -> Datagram {
    let mut frame = vec![0; MAX_FRAME];
    let missing = format!("no datagram to port {port}");
    wait::poll(|| match (&*socket).read(&mut frame) {
        Ok(len) => datagram(&frame[..len], port).ok_or(&missing),
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
            Err(&missing)
        }
    })
}

fn datagram(frame: &[u8], port: u16) -> Option<Datagram> {
    let packet = packet(frame)?;
    let (header, segment) = packet.split_at_checked(header(packet))?;
    let matches = header[9] == UDP && segment.get(2..4)? == port.to_be_bytes();
    let address = |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
    matches.then(|| Datagram { from: address(12), to: address(16), payload: segment[8..].to_vec() })
}

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Returns the IPv4 packet of a frame, without the frame's padding.
fn packet(frame: &[u8]) -> Option<&[u8]> {
    let packet = frame.get(14..).filter(|packet| packet.len() >= 20 && frame[12..14] == [0x08, 0x00])?;
    packet.get(..usize::from(u16::from_be_bytes([packet[2], packet[3]])))
}

fn header(packet: &[u8]) -> usize {
    usize::from(packet[0] & 0x0f) * 4
}

/// Ethernet hub: forwards each frame to all other ports after a delay.
pub struct Hub {
    stop: Arc<AtomicBool>,
}

impl Hub {
    /// Connects these interfaces of a namespace.
    pub fn start(namespace: &Namespace, ports: &[String], delay: Duration) -> Self {
        let ports: Arc<[Socket]> = ports.iter().map(|port| open(namespace, port)).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, delayed) = mpsc::channel::<(Instant, usize, Vec<u8>)>();
        for at in 0..ports.len() {
            let (ports, stop, sender) = (ports.clone(), stop.clone(), sender.clone());
            thread::spawn(move || {
                let mut frame = vec![0; MAX_FRAME];
                while !stop.load(Ordering::Relaxed) {
                    if let Ok(len) = (&ports[at]).read(&mut frame) {
                        let _ = sender.send((Instant::now() + delay, at, frame[..len].to_vec()));
                    }
                }
            });
        }
        thread::spawn(move || {
            while let Ok((at, from, mut frame)) = delayed.recv() {
                thread::sleep(at.saturating_duration_since(Instant::now()));
                checksum(&mut frame);
                for (_, port) in ports.iter().enumerate().filter(|(to, _)| *to != from) {
                    // The port's namespace may have been removed.
                    let _ = (&*port).write(&frame);
                }
            }
        });
        Self { stop }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Computes the checksum of TCP or UDP, which the kernel leaves to the network card and a veth does not compute.
fn checksum(frame: &mut [u8]) {
    let Some(len) = packet(frame).map(<[u8]>::len) else { return };
    let packet = &mut frame[14..14 + len];
    let (header, segment) = packet.split_at_mut(header(packet));
    let (at, zero) = match header[9] {
        TCP => (16, [0, 0]),
        // Zero means no checksum (RFC 768).
        UDP => (6, [0xff, 0xff]),
        _ => return,
    };
    segment[at..at + 2].copy_from_slice(&[0, 0]);
    let pseudo = [&header[12..20], &[0, header[9]], &(segment.len() as u16).to_be_bytes()].concat();
    let mut sum: u32 = 0;
    for part in [&pseudo[..], segment] {
        for pair in part.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = (!(sum as u16)).to_be_bytes();
    segment[at..at + 2].copy_from_slice(if sum == [0, 0] { &zero } else { &sum });
}
