//! Server of zone transfers, of updates, of NOTIFY, and of messages that are signed with TSIG.
//!
//! Each message has a task. It verifies the signature, and answers a transfer in as many messages as the zone needs, any other
//! query like every other server does, with a signature. A zone is encoded on a thread for blocking work, a few messages ahead
//! of the connection.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::spawn_blocking,
    time::{Instant, timeout},
};
use tracing::{debug, info, warn};

use super::{
    error_reply::error,
    notify_message,
    updates::{self, Published, Updates},
};
use crate::{
    clock::unix_now,
    dns::{
        engine::{self, Engine, MAX_TCP, Origin, Transport},
        message::{
            codes::{Rcode, rtype},
            query::{CLASSIC_UDP, HEADER, LookupName, Query},
        },
        refresh::Notified,
        tap,
        transfer::{
            access::Access,
            journal::Journal,
            messages::{Head, MessageWriter, TransferError},
            primary::Primary,
            request::{Form, Reply, Wanted},
            tsig::{self, Keys, Signer, TsigError, Verified},
        },
        update::message::{is_signed, is_update, zone_name},
        zone::{Tables, static_names::Zone},
    },
    metrics::{Account, Source, TransferOutcome, Transfers as Counts},
    model::name::Name,
};

/// Number of transfers that are sent at the same time, as in BIND; further ones wait.
const MAX_TRANSFERS: usize = 10;
/// Longest wait for other transfers. A secondary retries after a refusal.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// Messages that are encoded ahead of the connection.
const AHEAD: usize = 4;

/// Server of transfers. Clones share it.
#[derive(Clone)]
pub struct Transfers(Arc<Shared>);

/// Settings of the server.
pub struct Settings {
    /// Clients that may copy zones.
    pub access: Access,
    /// TSIG keys.
    pub keys: watch::Receiver<Keys>,
    /// Settings of the engines that answer signed queries.
    pub engine: Arc<engine::Settings>,
    /// Published tables.
    pub tables: Arc<ArcSwap<Tables>>,
    /// Changes with each publication.
    pub published: watch::Receiver<()>,
    /// Changes of the zones.
    pub journal: Arc<Mutex<Journal>>,
    /// The primary of the generated zones.
    pub primary: watch::Receiver<Primary>,
    /// Server of updates; `None` without dynamic zones.
    pub updates: Option<Updates>,
    /// Secondary zones, which take NOTIFY.
    pub notified: Vec<Notified>,
    /// Metrics.
    pub counts: Counts,
}

struct Shared {
    settings: Settings,
    permits: Arc<Semaphore>,
}

/// Reasons why a transfer is refused, each with its code.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("malformed request")]
    Malformed,
    #[error("not one of this server's zones")]
    NoZone,
    #[error("`dns.transfer.allow` lists neither the client nor its key")]
    Access,
    #[error("node {0} is the primary of the generated zones: list it in the secondary as well")]
    OtherPrimary(String),
    #[error("there is no copy of this secondary zone, or it has expired")]
    Unavailable,
    #[error(
        "copies of a zone that is signed online have no signatures: list it in `dns.transfer.unsigned` if that is wanted"
    )]
    Signed,
    #[error("{MAX_TRANSFERS} other transfers are under way")]
    Busy,
}

impl Refusal {
    fn rcode(&self) -> Rcode {
        match self {
            Self::Malformed => Rcode::FormErr,
            Self::Unavailable => Rcode::ServFail,
            // RFC 5936 §2.2.1
            Self::NoZone => Rcode::NotAuth,
            Self::Access | Self::OtherPrimary(_) | Self::Signed | Self::Busy => Rcode::Refused,
        }
    }
}

/// A request for a transfer.
struct Request {
    id: u16,
    origin: Name,
    qtype: u16,
    recursion_desired: bool,
    wanted: Wanted,
}

impl Transfers {
    /// Returns a server with these settings.
    pub fn new(settings: Settings) -> Self {
        Self(Arc::new(Shared { settings, permits: Arc::new(Semaphore::new(MAX_TRANSFERS)) }))
    }

    /// Serves a message for which an engine decided on [`Decision::Transfer`](engine::Decision::Transfer). Returns the replies.
    /// Over UDP, there is one. Dropping the receiver ends the transfer.
    pub fn serve(&self, packet: Vec<u8>, origin: Origin) -> mpsc::Receiver<Vec<u8>> {
        let (replies, received) = mpsc::channel(AHEAD);
        let shared = self.0.clone();
        tokio::spawn(async move { shared.serve(packet, origin, replies).await });
        received
    }
}

impl Shared {
    async fn serve(&self, packet: Vec<u8>, origin: Origin, replies: mpsc::Sender<Vec<u8>>) {
        if let Some(updates) = self.settings.updates.as_ref().filter(|_| is_update(&packet)) {
            return self.update(updates, packet, origin, &replies).await;
        }
        let mut name = LookupName::default();
        // The parser of queries does not look for signatures of other opcodes.
        let is_signed = match notify_message::is_notify(&packet) {
            true => is_signed(&packet),
            false => Query::parse(&packet, &mut name).is_ok_and(|query| query.is_signed),
        };
        let (message, mut signer) = match self.verify(packet, is_signed, origin) {
            Ok(verified) => verified,
            Err(reply) => return drop(replies.send(reply).await),
        };
        if notify_message::is_notify(&message) {
            let reply = self.take_notify(&message, origin, signer.as_ref());
            return self.send(reply, signer.as_mut(), origin, &replies).await;
        }
        let mut name = LookupName::default();
        let Ok(query) = Query::parse(&message, &mut name) else {
            return self.send(error(&message, Refusal::Malformed.rcode()), signer.as_mut(), origin, &replies).await;
        };
        if !matches!(query.qtype, rtype::AXFR | rtype::IXFR) {
            let reply = self.answer(&message, origin);
            return self.send(reply, signer.as_mut(), origin, &replies).await;
        }
        let client = origin.client.map(|client| client.address);
        let shown = client.map(|client| client.to_string()).unwrap_or_default();
        if let Err(refusal) = self.transfer(&message, &query, &name, &mut signer, origin, &replies).await {
            let key = signer.as_ref().map(|signer| signer.key().name().to_string());
            info!(client = shown, zone = %shown_name(&name), key, reason = %refusal, "zone transfer refused");
            let tables = self.settings.tables.load();
            let zone = tables.zone_named(name.wire()).map(|zone| &zone.origin);
            self.settings.counts.transfer(zone, TransferOutcome::Refused);
            self.send(error(&message, refusal.rcode()), signer.as_mut(), origin, &replies).await;
        }
    }

    /// Verifies the signature of a message, if it has one. The error is the reply.
    fn verify(&self, packet: Vec<u8>, is_signed: bool, origin: Origin) -> Result<(Vec<u8>, Option<Signer>), Vec<u8>> {
        if !is_signed {
            return Ok((packet, None));
        }
        let now = unix_now().as_secs();
        let keys = self.settings.keys.borrow().clone();
        match tsig::verify(&packet, &keys, now) {
            Ok(Verified { message, signer }) => Ok((message, Some(signer))),
            Err(mut fault) => {
                let client = origin.client.map(|client| client.address.to_string()).unwrap_or_default();
                info!(client, zone = zone_name(&packet).map(|name| shown_name(&name)), %fault, "signed message refused");
                self.settings.counts.bad_signature();
                // RFC 8945 §5.2
                let rcode = if matches!(fault, TsigError::Malformed) { Rcode::FormErr } else { Rcode::NotAuth };
                let mut reply = if is_update(&packet) { updates::error(&packet, rcode) } else { error(&packet, rcode) };
                fault.append_to(&mut reply, now);
                Err(reply)
            }
        }
    }

    /// Carries out an update and answers it.
    async fn update(&self, updates: &Updates, packet: Vec<u8>, origin: Origin, replies: &mpsc::Sender<Vec<u8>>) {
        let is_signed = is_signed(&packet);
        let client = origin.client.map(|client| client.address);
        let (reply, signer) = match self.verify(packet, is_signed, origin) {
            Ok((message, Some(mut signer))) => {
                let published =
                    Published { tables: self.settings.tables.clone(), changes: self.settings.published.clone() };
                let reply = updates.answer(&published, &message, signer.key().name(), client).await;
                return self.send(reply, Some(&mut signer), origin, replies).await;
            }
            Ok((message, None)) => (updates.refuse_unsigned(&self.settings.tables.load(), &message, client), None),
            Err(reply) => (reply, None),
        };
        self.send(reply, signer, origin, replies).await;
    }

    /// Takes a NOTIFY message, and returns the reply.
    fn take_notify(&self, message: &[u8], origin: Origin, signer: Option<&Signer>) -> Vec<u8> {
        let client = origin.client.map(|client| client.address);
        let key = signer.map(|signer| signer.key().name());
        let (zone, outcome) = notify_message::take(&self.settings.notified, message, client, key);
        let shown = client.map(|client| client.to_string()).unwrap_or_default();
        let zone = zone.map(|zone| zone.to_string());
        match &outcome {
            Ok(()) => debug!(client = shown, zone, "NOTIFY received"),
            Err(reason) => info!(client = shown, zone, %reason, "NOTIFY refused"),
        }
        notify_message::reply(message, &outcome)
    }

    /// Answers a query other than for a transfer from our zones.
    fn answer(&self, message: &[u8], origin: Origin) -> Vec<u8> {
        let settings = &self.settings;
        let mut engine = Engine::with(settings.engine.clone(), fastrand::Rng::new());
        let mut reply = Vec::new();
        let decision = engine.answer(&settings.tables.load(), message, origin, &mut reply);
        // Names outside our zones are not resolved for signed queries.
        if decision.has_reply() { reply } else { error(message, Refusal::Access.rcode()) }
    }

    /// Sends a reply of one message.
    async fn send(
        &self,
        mut reply: Vec<u8>,
        signer: Option<&mut Signer>,
        origin: Origin,
        replies: &mpsc::Sender<Vec<u8>>,
    ) {
        let limit = match origin.transport {
            Transport::Tcp => MAX_TCP,
            Transport::Udp => self.settings.engine.udp_payload.max(CLASSIC_UDP).into(),
        };
        if let Some(signer) = signer {
            if reply.len() + signer.max_len() > limit {
                reply = truncated(&reply);
            }
            signer.sign(&mut reply, unix_now().as_secs());
        }
        // The client is gone otherwise.
        let _ = replies.send(reply).await;
    }

    async fn transfer(
        &self,
        message: &[u8],
        query: &Query<'_>,
        name: &LookupName,
        signer: &mut Option<Signer>,
        origin: Origin,
        replies: &mpsc::Sender<Vec<u8>>,
    ) -> Result<(), Refusal> {
        let client = origin.client.map(|client| client.address);
        let key = signer.as_ref().map(|signer| signer.key().name().clone());
        if !client.is_none_or(|client| self.settings.access.allows(client, key.as_ref())) {
            return Err(Refusal::Access);
        }
        let wanted = Wanted::parse(message, name, query.qtype).ok_or(Refusal::Malformed)?;
        let tables = self.settings.tables.load_full();
        let zone = tables.zone_named(name.wire()).ok_or(Refusal::NoZone)?;
        self.check(zone)?;
        let request = Request {
            id: query.header.id,
            origin: zone.origin.clone(),
            qtype: query.qtype,
            recursion_desired: query.header.recursion_desired,
            wanted,
        };
        if origin.transport == Transport::Udp {
            // RFC 5936 §4.2: AXFR is not defined over UDP. RFC 1995 §2: the SOA alone makes the client use TCP.
            if query.qtype == rtype::AXFR {
                return Err(Refusal::Malformed);
            }
            let reply = soa_only(&tables, zone, &request);
            self.send(reply, signer.as_mut(), origin, replies).await;
            return Ok(());
        }
        let zone_name = zone.origin.clone();
        let waited = timeout(MAX_WAIT, self.permits.clone().acquire_owned()).await;
        let Ok(Ok(permit)) = waited else { return Err(Refusal::Busy) };
        let (journal, replies, signer) = (self.settings.journal.clone(), replies.clone(), signer.take());
        let shown = client.map(|client| client.to_string()).unwrap_or_default();
        let started = Instant::now();
        let sent = spawn_blocking(move || {
            let _permit = permit;
            send_zone(&tables, &request, &journal, signer, &replies)
        });
        match sent.await {
            Ok(Ok(Sent { form, serial, messages, octets })) => {
                let outcome = match form {
                    Form::Whole => TransferOutcome::Whole,
                    Form::Incremental => TransferOutcome::Incremental,
                    Form::Current => TransferOutcome::Current,
                };
                self.settings.counts.transfer(Some(&zone_name), outcome);
                let (zone, took) = (zone_name.to_string(), started.elapsed());
                let key = key.map(|key| key.to_string());
                info!(client = shown, zone, key, serial, ?form, messages, octets, ?took, "zone transfer sent");
            }
            Ok(Err(TransferError::Closed)) => {
                self.settings.counts.transfer(Some(&zone_name), TransferOutcome::Aborted);
                debug!(client = shown, "zone transfer ended by the client");
            }
            Ok(Err(error @ TransferError::TooLong { .. })) => {
                self.settings.counts.transfer(Some(&zone_name), TransferOutcome::Failed);
                warn!(client = shown, zone = %zone_name, %error, "zone transfer failed");
            }
            Err(error) => warn!(client = shown, %error, "zone transfer failed"),
        }
        Ok(())
    }

    /// Checks whether this node sends the zone.
    fn check(&self, zone: &Zone) -> Result<(), Refusal> {
        if zone.unavailable().is_some() {
            return Err(Refusal::Unavailable);
        }
        if !self.settings.access.allows_copies_of(zone) {
            return Err(Refusal::Signed);
        }
        match self.settings.primary.borrow().other_sender(zone.kind) {
            Some(node) => Err(Refusal::OtherPrimary(node.to_string())),
            None => Ok(()),
        }
    }
}

/// A transfer that was sent.
struct Sent {
    form: Form,
    serial: u32,
    messages: u64,
    octets: usize,
}

/// Sends a zone.
fn send_zone(
    tables: &Tables,
    request: &Request,
    journal: &Mutex<Journal>,
    mut signer: Option<Signer>,
    replies: &mpsc::Sender<Vec<u8>>,
) -> Result<Sent, TransferError> {
    // The request was checked with the same tables.
    let Some(zone) = tables.zone_named(request.origin.wire()) else { return Err(TransferError::Closed) };
    let journal = journal.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let reply = Reply::new(tables, zone, &journal, request.wanted);
    let mut sent = Sent { form: reply.form(), serial: tables.serial_of(zone), messages: 0, octets: 0 };
    let reserve = signer.as_ref().map_or(0, Signer::max_len);
    let writer = MessageWriter::new(head(request), reserve, |mut message| {
        if let Some(signer) = &mut signer {
            signer.sign(&mut message, unix_now().as_secs());
        }
        sent.messages += 1;
        sent.octets += message.len();
        replies.blocking_send(message).map_err(|_| TransferError::Closed)
    });
    reply.write(writer)?;
    Ok(sent)
}

fn head(request: &Request) -> Head<'_> {
    Head { id: request.id, origin: &request.origin, qtype: request.qtype, recursion_desired: request.recursion_desired }
}

/// Returns the reply to IXFR over UDP.
fn soa_only(tables: &Tables, zone: &Zone, request: &Request) -> Vec<u8> {
    let mut only = Vec::new();
    let writer = MessageWriter::new(head(request), 0, |message| {
        only = message;
        Ok(())
    });
    // One record fits.
    let _ = Reply::soa(tables, zone).write(writer);
    only
}

/// Returns a reply without records and with the TC bit.
fn truncated(reply: &[u8]) -> Vec<u8> {
    let mut name = LookupName::default();
    let mut request = reply.to_vec();
    request[2] &= 0x7f;
    let question = Query::parse(&request, &mut name).map(|query| query.question.len()).unwrap_or_default();
    let mut short = reply[..HEADER + question].to_vec();
    short[2] |= 0x02;
    short[4..HEADER].copy_from_slice(&[0, u8::from(question > 0), 0, 0, 0, 0, 0, 0]);
    short
}

/// Returns what to count for a message and its first reply.
pub(super) fn account(packet: &[u8], reply: &[u8]) -> Account {
    let mut name = LookupName::default();
    let qtype = Query::parse(packet, &mut name).map_or(0, |query| query.qtype);
    let rcode = reply.get(3).map(|flags| u16::from(flags & 0x0f));
    let truncated = reply.get(2).is_some_and(|flags| flags & 0x02 != 0);
    Account { qtype, source: Source::Zone, rcode, truncated, tier: None }
}

/// Returns the kind of a message for the server of transfers.
pub(super) fn kind(packet: &[u8]) -> tap::Kind {
    if is_update(packet) { tap::Kind::Update } else { tap::Kind::Auth }
}

/// Returns a name for the log.
fn shown_name(name: &LookupName) -> String {
    Name::from_labels(name.labels()).map(|name| name.to_string()).unwrap_or_default()
}
