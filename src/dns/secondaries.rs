//! NOTIFY to secondaries (RFC 1996).
//!
//! One task sends a message for each secondary and zone whose serial has changed, and repeats it until the secondary responds.
//! Changes within [`INTERVAL`] share one message. A node notifies of the zones that it sends: its zone files, and the generated
//! zones if it is their primary.

pub mod request;

use std::{
    collections::{BTreeSet, HashMap},
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    net::UdpSocket,
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::request::{Acknowledged, NotSent, NotifyRequest};
use super::{
    message::codes::{Rcode, class, rtype},
    transfer::{
        access::{Access, Secondary},
        messages::soa,
        primary::Primary,
        tsig::{Keys, sign_request},
    },
    zone::Tables,
};
use crate::{
    clock::unix_now,
    metrics::{NotifyOutcome, Transfers},
    model::name::Name,
};

/// Shortest interval between two messages about one zone to one secondary. A secondary knows each change within a second.
const INTERVAL: Duration = Duration::from_millis(500);
/// Pause before the first message, in which the changes of one event arrive.
const GATHER: Duration = Duration::from_millis(20);
/// Wait for the response to the first message; it doubles with each repetition.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Number of messages after which the secondary is left to its refresh timer (RFC 1996 §3.6: five repetitions).
const MAX_MESSAGES: u32 = 6;
/// Longest response in octets; more is cut off.
const MAX_RESPONSE: usize = 512;

/// Settings of the task.
pub struct Settings {
    /// The secondaries.
    pub secondaries: Vec<Secondary>,
    /// Zones that may be copied.
    pub access: Access,
    /// Addresses that messages are sent from, if they are configured: those of the DNS listeners. A secondary accepts messages
    /// of its primaries only.
    pub sources: Vec<IpAddr>,
    /// TSIG keys.
    pub keys: watch::Receiver<Keys>,
    /// Published tables.
    pub tables: Arc<ArcSwap<Tables>>,
    /// Changes with each publication.
    pub published: watch::Receiver<()>,
    /// The primary of the generated zones.
    pub primary: watch::Receiver<Primary>,
    /// Requests to notify now.
    pub requests: mpsc::Receiver<NotifyRequest>,
    /// Serials that secondaries have acknowledged.
    pub acknowledged: watch::Sender<Acknowledged>,
    /// Metrics.
    pub counts: Transfers,
}

/// Progress with one zone at one secondary.
#[derive(Debug)]
struct Progress {
    /// Serial of the last message.
    serial: u32,
    /// Transaction id of the last message.
    id: u16,
    /// Messages about this serial.
    sent: u32,
    /// Time of the last message.
    at: Instant,
    /// True if the secondary has responded, or was given up.
    is_done: bool,
    /// Serial that the secondary acknowledged last.
    accepted: Option<u32>,
    /// True if its last response was a refusal, which the log has.
    is_refused: bool,
}

/// Sends messages until `shutdown`.
pub async fn run(mut settings: Settings, shutdown: CancellationToken) {
    let mut task = Task::default();
    let mut wake = Instant::now();
    loop {
        let mut response = [0; MAX_RESPONSE];
        tokio::select! {
            changed = settings.published.changed() => {
                if changed.is_err() {
                    return;
                }
                wake = wake.min(Instant::now() + GATHER);
            }
            () = sleep_until(wake) => wake = task.send_due(&settings).await,
            (len, from) = task.sockets.receive(&mut response) => task.take_response(&response[..len], from, &settings.counts),
            Some(NotifyRequest { zone, done }) = settings.requests.recv() => {
                // The client may be gone.
                let _ = done.send(task.forget(&zone, &settings));
                wake = Instant::now();
            }
            () = shutdown.cancelled() => return,
        }
        settings.acknowledged.send_if_modified(|known| {
            let now = task.acknowledged();
            let is_new = *known != now;
            *known = now;
            is_new
        });
    }
}

#[derive(Default)]
struct Task {
    progress: HashMap<(SocketAddr, Name), Progress>,
    /// Zones signed online, of which the log says that secondaries are not notified.
    signed: BTreeSet<Name>,
    sockets: Sockets,
}

impl Task {
    /// Makes messages about a zone due. Returns the number of secondaries, or why the zone is not notified of.
    fn forget(&mut self, zone: &Name, settings: &Settings) -> Result<usize, NotSent> {
        let tables = settings.tables.load();
        let known = tables.zone_named(zone.wire()).ok_or(NotSent::NoZone)?;
        if let Some(node) = settings.primary.borrow().other_sender(known.kind) {
            return Err(NotSent::OtherPrimary(node.to_string()));
        }
        if known.unavailable().is_some() {
            return Err(NotSent::NotTransferred);
        }
        if !settings.access.allows_copies_of(known) {
            return Err(NotSent::Signed);
        }
        self.progress.retain(|(_, of), _| of != zone);
        Ok(settings.secondaries.len())
    }

    fn acknowledged(&self) -> Acknowledged {
        let accepted = self.progress.iter().filter_map(|((address, zone), progress)| {
            let serial = progress.accepted?;
            Some(((zone.clone(), *address), serial))
        });
        accepted.collect()
    }

    /// Sends the messages that are due. Returns the time of the next one.
    async fn send_due(&mut self, settings: &Settings) -> Instant {
        let now = Instant::now();
        let mut next = now + Duration::from_secs(3600);
        let tables = settings.tables.load_full();
        let primary = settings.primary.borrow().clone();
        let keys = settings.keys.borrow().clone();
        let zones = tables.zones();
        let sent = zones.filter(|zone| zone.unavailable().is_none() && primary.other_sender(zone.kind).is_none());
        let (zones, signed): (Vec<_>, Vec<_>) = sent.partition(|zone| settings.access.allows_copies_of(zone));
        if !settings.secondaries.is_empty() {
            self.log_signed(signed.into_iter().map(|zone| &zone.origin).cloned().collect());
        }
        let mut known = Vec::new();
        for zone in zones {
            let serial = tables.serial_of(zone);
            for secondary in &settings.secondaries {
                let place = (secondary.address, zone.origin.clone());
                known.push(place.clone());
                let due = match self.progress.get(&place) {
                    None => now,
                    Some(progress) if progress.serial != serial => progress.at + INTERVAL,
                    Some(progress) if progress.is_done => continue,
                    Some(progress) => progress.at + FIRST_WAIT * (1 << progress.sent.saturating_sub(1)),
                };
                if due > now {
                    next = next.min(due);
                    continue;
                }
                let sent = match self.progress.get(&place) {
                    Some(progress) if progress.serial == serial => progress.sent,
                    _ => 0,
                };
                let id = fastrand::u16(..);
                let before = self.progress.get(&place);
                let (accepted, is_refused) = before.map_or((None, false), |known| (known.accepted, known.is_refused));
                if sent >= MAX_MESSAGES {
                    info!(secondary = %secondary.address, zone = %zone.origin, serial, "secondary does not respond to NOTIFY");
                    settings.counts.notify(&zone.origin, NotifyOutcome::Unanswered);
                    self.progress
                        .insert(place, Progress { serial, id, sent, at: now, is_done: true, accepted, is_refused });
                    continue;
                }
                let (ttl, rdata) = tables.soa_rdata(zone);
                let mut message = message(id, &zone.origin, ttl, &rdata);
                if let Some(name) = &secondary.key {
                    match keys.get(name) {
                        Some(key) => drop(sign_request(key, &mut message, id, unix_now().as_secs())),
                        None => {
                            warn!(secondary = %secondary.address, key = %name, "NOTIFY is not signed: there is no such TSIG key");
                        }
                    }
                }
                if let Err(error) = self.sockets.send(&message, secondary.address, &settings.sources).await {
                    debug!(secondary = %secondary.address, %error, "NOTIFY not sent");
                }
                settings.counts.notify(&zone.origin, NotifyOutcome::Sent);
                next = next.min(now + FIRST_WAIT * (1 << sent));
                let progress = Progress { serial, id, sent: sent + 1, at: now, is_done: false, accepted, is_refused };
                self.progress.insert(place, progress);
            }
        }
        // A zone that comes back is notified of again.
        if known.len() < self.progress.len() {
            self.progress.retain(|place, _| known.contains(place));
        }
        next
    }

    /// Logs each zone that has come to be signed online: its secondaries keep their copies until these expire.
    fn log_signed(&mut self, now: BTreeSet<Name>) {
        for zone in now.difference(&self.signed) {
            warn!(%zone, "secondaries are not notified: {}", NotSent::Signed);
        }
        self.signed = now;
    }

    fn take_response(&mut self, response: &[u8], from: SocketAddr, counts: &Transfers) {
        let [i0, i1, flags, code, ..] = response else { return };
        // A response (QR) to a NOTIFY (opcode 4).
        if flags & 0xf8 != 0xa0 {
            return;
        }
        let id = u16::from_be_bytes([*i0, *i1]);
        let found = self
            .progress
            .iter_mut()
            .find(|((address, _), progress)| *address == from && progress.id == id && !progress.is_done);
        let Some(((_, zone), progress)) = found else { return };
        progress.is_done = true;
        let number = u16::from(code & 0x0f);
        let is_accepted = number == Rcode::NoError as u16;
        counts.notify(zone, if is_accepted { NotifyOutcome::Accepted } else { NotifyOutcome::Refused });
        if is_accepted {
            progress.accepted = Some(progress.serial);
        } else if !progress.is_refused {
            let rcode = Rcode::from_number(number).map_or_else(|| number.to_string(), |rcode| rcode.to_string());
            info!(secondary = %from, %zone, rcode, "secondary refuses NOTIFY");
        }
        progress.is_refused = !is_accepted;
    }
}

/// Sockets for both families, opened when they are needed.
#[derive(Default)]
struct Sockets {
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
}

impl Sockets {
    async fn send(&mut self, message: &[u8], to: SocketAddr, sources: &[IpAddr]) -> io::Result<()> {
        let socket = if to.is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        if socket.is_none() {
            *socket = Some(UdpSocket::bind((source_for(to, sources), 0)).await?);
        }
        match socket {
            Some(socket) => socket.send_to(message, to).await.map(|_| ()),
            None => Ok(()),
        }
    }

    /// Receives a datagram; waits for ever without sockets.
    async fn receive(&self, response: &mut [u8]) -> (usize, SocketAddr) {
        loop {
            let mut other = [0; MAX_RESPONSE];
            let received = match (&self.v4, &self.v6) {
                (None, None) => std::future::pending().await,
                (Some(socket), None) | (None, Some(socket)) => socket.recv_from(response).await,
                (Some(v4), Some(v6)) => tokio::select! {
                    received = v4.recv_from(response) => received,
                    received = v6.recv_from(&mut other) => {
                        if let Ok((len, _)) = &received {
                            response[..*len].copy_from_slice(&other[..*len]);
                        }
                        received
                    }
                },
            };
            // An error is that of an earlier message, whose secondary is not there.
            if let Ok(received) = received {
                return received;
            }
        }
    }
}

/// Returns the address that messages to a peer are sent from: that of a DNS listener, or any.
pub(super) fn source_for(to: SocketAddr, sources: &[IpAddr]) -> IpAddr {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
    let mut sources = sources.iter().filter(|source| source.is_ipv4() == to.is_ipv4() && is_route(**source, to.ip()));
    sources.next().copied().unwrap_or(any)
}

/// Reports whether messages from an address reach another: a loopback address reaches this host only.
fn is_route(from: IpAddr, to: IpAddr) -> bool {
    !from.is_unspecified() && from.is_loopback() == to.is_loopback()
}

/// Returns a NOTIFY message with the SOA in its answer section (RFC 1996 §3.7).
fn message(id: u16, origin: &Name, ttl: u32, rdata: &[u8]) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    // Opcode NOTIFY, AA.
    message.extend_from_slice(&[0x24, 0, 0, 1, 0, 1, 0, 0, 0, 0]);
    message.extend_from_slice(origin.wire());
    message.extend_from_slice(&rtype::SOA.to_be_bytes());
    message.extend_from_slice(&class::IN.to_be_bytes());
    soa(ttl, rdata).append_to(&mut message);
    message
}
