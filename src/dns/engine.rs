//! The decision for one packet, the same for every transport.
//!
//! [`Engine::answer`] parses, looks up once, and either writes the reply or returns what a later step needs. The result has
//! the account to count; the engine keeps nothing of a packet.

mod aliases;
pub mod first_exchange;
pub mod rrl;

use std::{sync::Arc, time::Duration};

use fastrand::Rng;

use self::{aliases::Aliases, first_exchange::FirstExchange, rrl::ResponseRateLimiter};
use super::{
    answer::{
        Answer, Ede, Outside,
        assemble::{Chain, Scratch, SignerInUse, Signing, assemble, bare, begin, complete, continue_in_zones},
        frame::{Frame, Options, OwnedFrame},
    },
    dnssec::signer::{Effort, Signer},
    message::{
        codes::{Rcode, ede, opcode, rtype},
        cookie::{Checked, Secret},
        query::{CLASSIC_UDP, Edns, Header, LookupName, Query, Rejected},
    },
    recursion::{
        Recursion, Resolution,
        upstream_query::Forward,
        upstream_reply::{Age, Reply},
    },
    zone::Tables,
};
pub use crate::model::recursion_access::Client;
use crate::{
    metrics::{Account, SignatureTally, Source},
    model::recursion_access::is_inside,
};

/// The longest message over TCP (RFC 1035 §4.2.2).
pub const MAX_TCP: usize = 65_535;

/// Idle timeout of a connection, and time limit for sending a query: RFC 7766 §6.2.3 recommends a few seconds. Announced to clients
/// that send the edns-tcp-keepalive option (RFC 7828 §3.3).
pub const TCP_IDLE: Duration = Duration::from_secs(10);

/// Transport of a packet, which bounds the length of its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A datagram.
    Udp,
    /// A message with a length prefix.
    Tcp,
}

/// Transport and sender of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// The transport.
    pub transport: Transport,
    /// The sender and the time; `None` disables cookies, rate limiting and recursion, and counts as a client inside.
    pub client: Option<Client>,
}

impl From<Transport> for Origin {
    fn from(transport: Transport) -> Self {
        Self { transport, client: None }
    }
}

/// Action for a packet, with the account to count once it is known.
#[derive(Debug)]
pub enum Decision {
    /// Send the reply that is written.
    Reply(Account),
    /// Send the reply that is written. It is from a cache entry that this question refreshes.
    ReplyAndRefresh(Account, Box<Forward>),
    /// Send nothing.
    Drop(Account),
    /// Call [`Engine::answer`] on a thread that may take long.
    Defer,
    /// Call [`Engine::answer`] once the first exchange with a peer is over.
    Await,
    /// Query an upstream, and send the reply that [`Pending::relay`] then writes.
    Resolve(Box<Pending>),
    /// Pass the packet to the server of transfers: it asks for a transfer, is an update or a NOTIFY, or is signed with TSIG.
    Transfer,
}

impl Decision {
    /// Returns what to count; `None` while the reply is pending.
    #[inline]
    pub fn account(&self) -> Option<Account> {
        match self {
            Self::Reply(account) | Self::ReplyAndRefresh(account, _) | Self::Drop(account) => Some(*account),
            Self::Defer | Self::Await | Self::Resolve(_) | Self::Transfer => None,
        }
    }

    /// Reports whether a reply was written.
    pub fn has_reply(&self) -> bool {
        matches!(self, Self::Reply(_) | Self::ReplyAndRefresh(..))
    }
}

/// A query that waits for an upstream.
#[derive(Debug)]
pub struct Pending {
    /// The question to the upstream.
    pub forward: Forward,
    qtype: u16,
    frame: OwnedFrame,
    /// The CNAME chain within our zones that precedes the upstream's answer.
    chain: Option<Chain>,
    aliases: Aliases,
}

impl Pending {
    /// Writes the reply from the upstream's reply, which may have an alias of a name in these tables. Returns what to count.
    pub fn relay(&self, tables: &Tables, (reply, age): (&Reply, Age), out: &mut Vec<u8>) -> Account {
        let Self { qtype, frame, chain, aliases, .. } = self;
        let relay = Relay { qtype: *qtype, frame: &frame.frame(), chain: chain.as_ref(), aliases: *aliases };
        // A generator and buffers are cheap beside the wait for an upstream.
        relay.write(tables, (reply, age), &mut Rng::new(), &mut Scratch::default(), out);
        let source = if age == Age::Stale { Source::Stale } else { Source::Upstream };
        relayed(self.qtype, source, out)
    }
}

/// What the reply to a client needs besides the upstream's.
struct Relay<'r> {
    qtype: u16,
    frame: &'r Frame<'r>,
    chain: Option<&'r Chain>,
    aliases: Aliases,
}

impl Relay<'_> {
    fn write(
        &self,
        tables: &Tables,
        (reply, age): (&Reply, Age),
        rng: &mut Rng,
        scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) {
        let Self { frame, chain, .. } = *self;
        match (self.aliases.follow(tables, reply, self.qtype), chain) {
            (Some(answer), _) => continue_in_zones(frame, chain, &reply.to_answer(age), &answer, rng, scratch, out),
            (None, Some(chain)) => complete(frame, chain, &reply.to_answer(age), out),
            (None, None) => reply.write(frame, age, out),
        }
    }
}

/// Counts an upstream's reply, whose code may be one that [`Rcode`] does not name.
fn relayed(qtype: u16, source: Source, reply: &[u8]) -> Account {
    let rcode = reply.get(3).map(|flags| u16::from(flags & 0x0f));
    Account { qtype, source, rcode, truncated: is_truncated(reply), tier: None }
}

fn replied(qtype: u16, source: Source, rcode: Rcode, reply: &[u8]) -> Decision {
    let rcode = Some(rcode as u16);
    Decision::Reply(Account { qtype, source, rcode, truncated: is_truncated(reply), tier: None })
}

fn is_truncated(reply: &[u8]) -> bool {
    reply.get(2).is_some_and(|flags| flags & 0x02 != 0)
}

/// True if the caller accepts an answer that takes long.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Patience {
    None,
    Any,
}

/// Clients that may learn the addresses of instances and nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// All.
    Everyone,
    /// Loopback clients: the node has no other address than the loopback address so far.
    ThisHost,
}

impl Audience {
    /// Reports whether a client may receive an answer.
    fn includes(self, client: Option<Client>, answer: &Answer<'_>) -> bool {
        self == Self::Everyone || client.is_none_or(|client| client.address.is_loopback()) || !answer.depends_on_nodes()
    }
}

/// Settings that all engines of an agent share.
pub struct Settings {
    /// Largest reply over UDP in octets, at least 512.
    pub udp_payload: u16,
    /// Name server identifier (RFC 5001); empty if not sent.
    pub nsid: Box<[u8]>,
    /// Secret of server cookies (RFC 7873); `None` disables cookies.
    pub secret: Option<Secret>,
    /// Response rate limit per client network over UDP; `None` is unlimited.
    pub limit: Option<ResponseRateLimiter>,
    /// Resolution of names outside our zones; `None` refuses them.
    pub recursion: Option<Arc<Recursion>>,
    /// Clients that may learn the addresses of instances and nodes.
    pub audience: Audience,
    /// True if there is a server of transfers.
    pub serves_transfers: bool,
    /// True if that server takes updates.
    pub serves_updates: bool,
    /// Makes the signatures of zones with keys; `None` signs nothing.
    pub signer: Option<Arc<Signer>>,
}

/// Answers packets. Each worker has its own engine, with buffers that are reused for every answer.
pub struct Engine {
    settings: Arc<Settings>,
    first_exchange: Option<Arc<FirstExchange>>,
    rng: Rng,
    name: LookupName,
    scratch: Scratch,
    signatures: Option<Arc<SignatureTally>>,
}

impl Engine {
    /// Returns an engine without cookies, rate limit and recursion. `udp_payload` is the largest reply over UDP in octets, at
    /// least 512; `rng` rotates records.
    pub fn new(udp_payload: u16, rng: Rng) -> Self {
        let settings = Settings {
            udp_payload,
            nsid: Box::default(),
            secret: None,
            limit: None,
            recursion: None,
            audience: Audience::Everyone,
            serves_transfers: false,
            serves_updates: false,
            signer: None,
        };
        Self::with(Arc::new(settings), rng)
    }

    /// Returns an engine with these settings.
    pub fn with(settings: Arc<Settings>, rng: Rng) -> Self {
        let signatures = settings.signer.as_ref().map(|signer| signer.tally());
        let (name, scratch) = (LookupName::default(), Scratch::default());
        Self { settings, first_exchange: None, rng, name, scratch, signatures }
    }

    /// Returns the engine with [`Decision::Await`] for answers that a peer may add to, until the first exchange is over.
    #[must_use]
    pub fn awaiting(self, first_exchange: Option<Arc<FirstExchange>>) -> Self {
        Self { first_exchange, ..self }
    }

    /// Reports whether updates are taken.
    pub fn serves_updates(&self) -> bool {
        self.settings.serves_updates
    }

    /// Ends the wait for the first exchange if it is over. Returns whether no answer waits. To be called before the tables are
    /// loaded: answers from earlier ones have to wait.
    pub fn check_first_exchange(&mut self) -> bool {
        self.first_exchange.take_if(|first| first.is_over());
        self.first_exchange.is_none()
    }

    /// Writes the reply to `packet` into `out` and returns its code; `None` if there is no reply, and `out` is empty. For callers
    /// without a resolver: a question for an upstream has no reply.
    pub fn respond(
        &mut self,
        tables: &Tables,
        packet: &[u8],
        origin: impl Into<Origin>,
        out: &mut Vec<u8>,
    ) -> Option<Rcode> {
        self.answer(tables, packet, origin.into(), out).account()?.rcode.and_then(Rcode::from_number)
    }

    /// Decides on `packet` and writes the reply, if any, into `out`. Never returns [`Decision::Defer`].
    pub fn answer(&mut self, tables: &Tables, packet: &[u8], origin: Origin, out: &mut Vec<u8>) -> Decision {
        self.decide(tables, packet, origin, Patience::Any, out)
    }

    /// Like [`answer`](Self::answer), but returns [`Decision::Defer`] for an answer that takes long.
    pub fn answer_at_once(&mut self, tables: &Tables, packet: &[u8], origin: Origin, out: &mut Vec<u8>) -> Decision {
        self.decide(tables, packet, origin, Patience::None, out)
    }

    fn decide(
        &mut self,
        tables: &Tables,
        packet: &[u8],
        origin: Origin,
        patience: Patience,
        out: &mut Vec<u8>,
    ) -> Decision {
        out.clear();
        let Self { settings, first_exchange, rng, name, scratch, signatures } = self;
        let dropped =
            |qtype, source| Decision::Drop(Account { qtype, source, rcode: None, truncated: false, tier: None });
        let parsed = Query::parse(packet, name);
        if let Err(Rejected::Silence) = parsed {
            return dropped(0, Source::Dropped);
        }
        if patience == Patience::None && parsed.is_ok() && tables.is_expensive(name) {
            return Decision::Defer;
        }
        let (frame, known) = settings.frame(parsed.as_ref(), origin);
        // Clients inside do not pay for a limit that excludes them.
        let limit = settings.limit.as_ref().filter(|limit| !frame.is_inside || limit.is_for_all());
        if let (false, Some(limit), Some(client)) = (known, limit, origin.client)
            && !limit.allows(client.address, client.now)
        {
            let qtype = parsed.map_or(0, |query| query.qtype);
            if limit.slip() == 0 || rng.u8(0..limit.slip()) > 0 {
                return dropped(qtype, Source::Limited);
            }
            bare(&frame, Rcode::NoError, true, out);
            return replied(qtype, Source::Limited, Rcode::NoError, out);
        }
        let query = match parsed {
            Ok(query) => query,
            Err(Rejected::Reply { header, .. }) if header.opcode == opcode::UPDATE && settings.serves_updates => {
                return Decision::Transfer;
            }
            Err(Rejected::Reply { header, .. }) if settings.serves_transfers && header.opcode == opcode::NOTIFY => {
                return Decision::Transfer;
            }
            Err(Rejected::Reply { rcode, .. }) => {
                bare(&frame, rcode, false, out);
                return replied(0, Source::Rejected, rcode, out);
            }
            Err(Rejected::Silence) => return dropped(0, Source::Dropped),
        };
        if settings.serves_transfers && (query.is_signed || matches!(query.qtype, rtype::AXFR | rtype::IXFR)) {
            return Decision::Transfer;
        }
        let name = &*name;
        let mut answer = tables.lookup(name, query.qtype);
        if first_exchange.as_ref().is_some_and(|first| first.delays(name, query.qtype, &answer)) {
            return Decision::Await;
        }
        if !settings.audience.includes(origin.client, &answer) {
            answer = Answer::refused(Ede { code: ede::NOT_READY, text: "this node has no address for other hosts" });
        }
        if !frame.is_inside && answer.has_reasons() {
            answer = Answer::refused(Ede { code: ede::PROHIBITED, text: "resolver.allow does not list this client" });
        }
        let signer = settings.signer.as_deref().zip(signatures.as_deref()).zip(origin.client);
        let signer = signer.map(|((signer, tally), client)| {
            let effort = if patience == Patience::None { Effort::Cached } else { Effort::Any };
            SignerInUse { signer, tally, now: client.now, effort }
        });
        let wants_signatures = query.edns.is_some_and(|edns| edns.dnssec_ok);
        let mut source = Source::Zone;
        let target;
        let outside = match answer.outside {
            Outside::Nothing => None,
            Outside::Question => {
                source = Source::Refused;
                Some(name)
            }
            Outside::Target => {
                target = answer.target().and_then(LookupName::from_wire);
                target.as_ref()
            }
        };
        let recursion = settings.recursion.as_ref().filter(|_| query.header.recursion_desired);
        if let (Some(outside), Some(recursion)) = (outside, recursion) {
            let is_chain = answer.outside == Outside::Target;
            let refusal = match recursion.resolution(outside, origin.client.map(|client| client.address)) {
                Resolution::Prohibited => Some((ede::PROHIBITED, "resolver.allow does not list this client")),
                Resolution::Loop(number) => {
                    recursion.loop_detector.record(number);
                    Some((ede::OTHER, "this question is this server's own"))
                }
                Resolution::SpecialUse(local) => {
                    // The client resolves a special-use name at the end of a chain itself.
                    if let (false, Some(zone)) = (is_chain, tables.domain()) {
                        answer = local.answer(name, query.qtype, zone);
                        source = Source::Host;
                    }
                    None
                }
                resolution @ (Resolution::Route(_) | Resolution::Upstream) => {
                    let mut signing = (is_chain && wants_signatures)
                        .then(|| Signing::begin(signer, tables.proofs(name, &answer), scratch));
                    let chain = is_chain.then(|| begin(&frame, &answer, signing.as_mut(), rng, scratch, out));
                    out.clear();
                    if is_deferred(signing, scratch) {
                        return Decision::Defer;
                    }
                    let now = origin.client.map(|client| client.now).unwrap_or_default();
                    let hit = recursion.cached(&query, outside, now);
                    let aliases = Aliases {
                        is_allowed: !recursion.is_protected(outside, resolution)
                            && !chain.as_ref().is_some_and(Chain::has_proofs),
                        enters_signed: !wants_signatures,
                        audience: settings.audience,
                        client: origin.client,
                        is_inside: frame.is_inside,
                    };
                    if let Some(hit) = &hit {
                        let (reply, age) = hit.parts();
                        let relay = Relay { qtype: query.qtype, frame: &frame, chain: chain.as_ref(), aliases };
                        relay.write(tables, (reply, age), rng, scratch, out);
                        let source = if age == Age::Stale { Source::Stale } else { Source::Cache };
                        let account = relayed(query.qtype, source, out);
                        if !hit.refresh() {
                            return Decision::Reply(account);
                        }
                        return Decision::ReplyAndRefresh(account, Forward::new(packet, &query, outside).into());
                    }
                    let (qtype, frame) = (query.qtype, OwnedFrame::from(&frame));
                    let forward = Forward::new(packet, &query, outside);
                    return Decision::Resolve(Pending { forward, qtype, frame, chain, aliases }.into());
                }
            };
            // A client without recursion receives the part of the chain within our zones.
            if let Some((code, text)) = refusal.filter(|_| !is_chain) {
                answer.refuse(Ede { code, text });
            }
        }
        let mut signing = wants_signatures.then(|| Signing::begin(signer, tables.proofs(name, &answer), scratch));
        assemble(&frame, &answer, signing.as_mut(), rng, scratch, out);
        if is_deferred(signing, scratch) {
            out.clear();
            return Decision::Defer;
        }
        let rcode = Some(answer.rcode as u16);
        let truncated = is_truncated(out);
        Decision::Reply(Account { qtype: query.qtype, source, rcode, truncated, tier: answer.tier() })
    }
}

/// Takes the buffer back, and reports whether the answer has to be made by a thread that may make signatures.
fn is_deferred(signing: Option<Signing<'_>>, scratch: &mut Scratch) -> bool {
    signing.is_some_and(|signing| {
        scratch.content = signing.content;
        signing.is_missing && signing.signer.is_some_and(|signer| signer.effort == Effort::Cached)
    })
}

impl Settings {
    /// Returns what the reply repeats of a query, and whether the client's address is proven not to be forged.
    fn frame<'p>(
        &'p self,
        parsed: Result<&Query<'p>, &Rejected<'p>>,
        Origin { transport, client }: Origin,
    ) -> (Frame<'p>, bool) {
        let (header, question, edns) = match parsed {
            Ok(query) => (query.header, query.question, query.edns),
            Err(Rejected::Reply { header, question, edns, .. }) => (*header, *question, *edns),
            Err(Rejected::Silence) => (Header::default(), &[][..], None),
        };
        let udp_payload = self.udp_payload.max(CLASSIC_UDP);
        let checked = self.check(edns, client);
        let options = Options {
            nsid: Some(&*self.nsid).filter(|nsid| edns.is_some_and(|edns| edns.nsid) && !nsid.is_empty()),
            cookie: checked.map(|checked| checked.reply),
            keepalive: edns.filter(|edns| edns.keepalive && transport == Transport::Tcp).map(|_| TCP_IDLE),
        };
        let limit = match (transport, edns) {
            (Transport::Tcp, _) => MAX_TCP,
            (Transport::Udp, Some(edns)) => edns.payload.min(udp_payload).into(),
            (Transport::Udp, None) => CLASSIC_UDP.into(),
        };
        let known = transport == Transport::Tcp || checked.is_some_and(|checked| checked.known);
        let client = client.map(|client| client.address);
        let recursion = self.recursion.as_ref().zip(client);
        let recursion_available = recursion.is_some_and(|(recursion, client)| recursion.allows(client));
        let is_inside = client.is_none_or(|client| is_inside(recursion_available, client));
        (Frame { header, question, edns, options, recursion_available, udp_payload, limit, client, is_inside }, known)
    }

    /// Validates the client's cookie, if it sent one.
    fn check(&self, edns: Option<Edns>, client: Option<Client>) -> Option<Checked> {
        let (cookie, client) = (edns?.cookie?, client?);
        // Cookies count seconds modulo 2^32 (RFC 9018 §4.3).
        Some(self.secret.as_ref()?.check(&cookie, client.address, client.now.as_secs() as u32))
    }
}
