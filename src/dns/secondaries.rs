//! NOTIFY to secondaries (RFC 1996).
//!
//! One task sends a message for each secondary and zone whose serial has changed, and repeats it until the secondary responds.
//! Then it asks the secondary for its serial, and sends further messages while that is an older one. Changes within half a second
//! share one message. A node notifies of the zones that it sends: its zone files, and the generated zones if it is their primary.

mod message;
mod progress;
pub mod request;
mod sockets;

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

pub(in crate::dns) use self::sockets::source_for;
use self::{
    message::{Response, notify, question, serial_in},
    progress::{News, Progress, Step},
    request::{NotSent, NotifyRequest, Serials},
    sockets::{MAX_RESPONSE, Sockets},
};
use super::{
    message::codes::Rcode,
    transfer::{
        access::{Access, Secondary},
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

/// Pause before the first message, in which the changes of one event arrive.
const GATHER: Duration = Duration::from_millis(20);
/// Longest pause without anything to send.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

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
    /// Known serials of the secondaries.
    pub serials: watch::Sender<Serials>,
    /// Metrics.
    pub counts: Transfers,
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
            (len, from) = task.sockets.receive(&mut response) => {
                task.take_response(&response[..len], from, &settings.counts);
                wake = wake.min(Instant::now() + GATHER);
            }
            Some(NotifyRequest { zone, done }) = settings.requests.recv() => {
                // The client may be gone.
                let _ = done.send(task.forget(&zone, &settings));
                wake = Instant::now();
            }
            () = shutdown.cancelled() => return,
        }
        settings.serials.send_if_modified(|known| {
            let now = task.serials();
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

    fn serials(&self) -> Serials {
        let known =
            self.progress.iter().map(|((address, zone), progress)| ((zone.clone(), *address), progress.known()));
        known.collect()
    }

    /// Sends the messages that are due. Returns the time of the next one.
    async fn send_due(&mut self, settings: &Settings) -> Instant {
        let now = Instant::now();
        let mut next = now + LONGEST_SLEEP;
        let tables = settings.tables.load_full();
        let primary = settings.primary.borrow().clone();
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
                let progress = self.progress.entry(place).or_insert_with(|| Progress::new(serial, now));
                let Some((due, step)) = progress.next(serial) else { continue };
                if due > now {
                    next = next.min(due);
                    continue;
                }
                let id = fastrand::u16(..);
                let message = match step {
                    Step::Notify => {
                        progress.notified(serial, id, now);
                        settings.counts.notify(&zone.origin, NotifyOutcome::Sent);
                        let (ttl, rdata) = tables.soa_rdata(zone);
                        signed_by(secondary, settings, notify(id, &zone.origin, ttl, &rdata), id)
                    }
                    Step::Ask => {
                        progress.asked(id, now);
                        question(id, &zone.origin)
                    }
                    Step::GiveUp => {
                        progress.stop();
                        info!(secondary = %secondary.address, zone = %zone.origin, serial, "secondary does not respond to NOTIFY");
                        settings.counts.notify(&zone.origin, NotifyOutcome::Unanswered);
                        continue;
                    }
                    Step::StopAsking => {
                        progress.stop();
                        debug!(secondary = %secondary.address, zone = %zone.origin, "secondary does not answer questions");
                        continue;
                    }
                };
                if let Some((due, _)) = progress.next(serial) {
                    next = next.min(due);
                }
                if let Err(error) = self.sockets.send(&message, secondary.address, &settings.sources).await {
                    debug!(secondary = %secondary.address, %error, "message to a secondary not sent");
                }
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
        let Some((id, kind)) = Response::read(response) else { return };
        let now = Instant::now();
        let mut of_secondary = self.progress.iter_mut().filter(|((address, _), _)| *address == from);
        let (zone, news) = match kind {
            Response::Notified(code) => {
                let found = of_secondary.find(|(_, progress)| progress.awaits_response(id));
                let Some(((_, zone), progress)) = found else { return };
                counts.notify(zone, if code == 0 { NotifyOutcome::Accepted } else { NotifyOutcome::Refused });
                (zone, progress.responded(code, now))
            }
            Response::Answer => {
                let found = of_secondary.find(|(_, progress)| progress.awaits_answer(id));
                let Some(((_, zone), progress)) = found else { return };
                (zone, progress.answered(serial_in(response, id, zone), now))
            }
        };
        match news {
            News::None => {}
            News::Late { serial, held } => warn!(
                secondary = %from, %zone, serial, held,
                "secondary does not copy the zone, although it accepts NOTIFY: see its log"
            ),
            News::Refused(number) => {
                let rcode = Rcode::from_number(number).map_or_else(|| number.to_string(), |rcode| rcode.to_string());
                info!(secondary = %from, %zone, rcode, "secondary refuses NOTIFY");
            }
            News::CaughtUp => info!(secondary = %from, %zone, "secondary has copied the zone"),
        }
    }
}

/// Signs a message with the key of the secondary, if it has one.
fn signed_by(secondary: &Secondary, settings: &Settings, mut message: Vec<u8>, id: u16) -> Vec<u8> {
    let Some(name) = &secondary.key else { return message };
    match settings.keys.borrow().get(name) {
        Some(key) => drop(sign_request(key, &mut message, id, unix_now().as_secs())),
        None => warn!(secondary = %secondary.address, key = %name, "NOTIFY is not signed: there is no such TSIG key"),
    }
    message
}
