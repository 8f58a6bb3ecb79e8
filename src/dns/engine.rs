//! The engine: a packet in, a packet out, the same for every transport.

pub mod rrl;

use std::{sync::Arc, time::Duration};

use fastrand::Rng;

use self::rrl::ResponseRateLimiter;
use super::{
    answer::{
        Answer, Outside,
        assemble::{Frame, Options, Scratch, assemble, bare},
    },
    message::{
        codes::Rcode,
        cookie::{Checked, Secret},
        query::{CLASSIC_UDP, Edns, Header, LookupName, Query, Rejected},
    },
    recursion::{
        Known, Recursion,
        forward::Forward,
        reply::{Age, Reply},
    },
    zone::Tables,
};
use crate::metrics::{Account, Source};
pub use crate::model::access::Client;

/// The longest message over TCP (RFC 1035 §4.2.2).
pub const MAX_TCP: usize = 65_535;

/// How long a connection may wait for its next query, or take to bring it (RFC 7766 §6.2.3 asks for seconds). Clients that
/// ask are told (RFC 7828 §3.3).
pub const TCP_IDLE: Duration = Duration::from_secs(10);

/// How a packet came: it decides how long the reply may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A datagram.
    Udp,
    /// A message with its length in front.
    Tcp,
}

/// How a packet came, and from whom.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// How.
    pub transport: Transport,
    /// From whom, and when; `None`: from nobody who would get cookies or be limited.
    pub client: Option<Client>,
}

impl From<Transport> for Origin {
    fn from(transport: Transport) -> Self {
        Self { transport, client: None }
    }
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There is a reply, with this code.
    Reply(Rcode),
    /// There is a reply, which an upstream gave some time ago.
    Relayed {
        /// Whether somebody should ask the upstreams anew.
        refresh: bool,
    },
    /// It gets none.
    Silence,
    /// Its answer takes long: it was not looked for.
    Slow,
    /// An upstream has to be asked; [`Engine::relay`] then writes what it said.
    Beyond,
}

/// Whether an answer may take long.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Patience {
    None,
    Any,
}

/// What all engines of an agent have in common.
pub struct Settings {
    /// The longest reply over UDP in octets, at least 512.
    pub udp_payload: u16,
    /// What is said to those who ask which server answers (RFC 5001); empty: nothing.
    pub nsid: Box<[u8]>,
    /// What cookies are made with (RFC 7873); `None`: there are none.
    pub secret: Option<Secret>,
    /// How many answers a network gets over UDP; `None`: as many as it asks for.
    pub limit: Option<ResponseRateLimiter>,
    /// Who may ask for names that are not ours; `None`: nobody.
    pub recursion: Option<Recursion>,
}

/// Answers packets; one for each worker. Holds what is used anew for every answer.
pub struct Engine {
    settings: Arc<Settings>,
    rng: Rng,
    name: LookupName,
    scratch: Scratch,
    last: Last,
}

/// What the last packet asked for, and where its answer is from.
#[derive(Clone, Copy)]
struct Last {
    qtype: u16,
    source: Source,
}

impl Last {
    /// A packet of which nothing is known.
    const NOTHING: Self = Self { qtype: 0, source: Source::Dropped };
}

impl Engine {
    /// An engine of the plain protocol. `udp_payload` is the longest reply over UDP in octets, at least 512; `rng` draws
    /// the order of records.
    pub fn new(udp_payload: u16, rng: Rng) -> Self {
        let settings = Settings { udp_payload, nsid: Box::default(), secret: None, limit: None, recursion: None };
        Self::with(Arc::new(settings), rng)
    }

    /// An engine with all that an agent has.
    pub fn with(settings: Arc<Settings>, rng: Rng) -> Self {
        Self { settings, rng, name: LookupName::default(), scratch: Scratch::default(), last: Last::NOTHING }
    }

    /// Writes the reply to `packet` into `out`; `None` where silence is the answer, and `out` then is empty. For who has no
    /// resolver: what is beyond our zones and not known yet is met with silence as well.
    pub fn respond(
        &mut self,
        tables: &Tables,
        packet: &[u8],
        origin: impl Into<Origin>,
        out: &mut Vec<u8>,
    ) -> Option<Rcode> {
        match self.answer(tables, packet, origin.into(), out) {
            Outcome::Reply(rcode) => Some(rcode),
            Outcome::Relayed { .. } | Outcome::Silence | Outcome::Slow | Outcome::Beyond => None,
        }
    }

    /// The same, and says what became of the packet; never [`Outcome::Slow`].
    pub fn answer(&mut self, tables: &Tables, packet: &[u8], origin: Origin, out: &mut Vec<u8>) -> Outcome {
        self.reply(tables, packet, origin, Patience::Any, out)
    }

    /// The same, unless the answer would take so long that others should not wait for it: then [`Outcome::Slow`], which
    /// [`Self::answer`] answers.
    pub fn answer_at_once(&mut self, tables: &Tables, packet: &[u8], origin: Origin, out: &mut Vec<u8>) -> Outcome {
        self.reply(tables, packet, origin, Patience::None, out)
    }

    /// What became of the last packet, for who counts: with the outcome that it had and the reply that was written.
    /// `None` where its answer is still to come. After [`Self::relay`] the outcome is [`Outcome::Relayed`].
    #[inline]
    pub fn account(&self, outcome: Outcome, reply: &[u8]) -> Option<Account> {
        let Last { qtype, source } = self.last;
        let rcode = match outcome {
            Outcome::Slow | Outcome::Beyond => return None,
            Outcome::Silence => None,
            Outcome::Reply(rcode) => Some(rcode as u16),
            // An upstream's code may be one that we have no word for.
            Outcome::Relayed { .. } => reply.get(3).map(|flags| u16::from(flags & 0x0f)),
        };
        let truncated = rcode.is_some() && reply.get(2).is_some_and(|flags| flags & 0x02 != 0);
        Some(Account { qtype, source, rcode, truncated })
    }

    /// What an upstream is to be asked for a packet that was [`Outcome::Beyond`], or whose reply is to be renewed.
    pub fn forward(&mut self, tables: &Tables, packet: &[u8]) -> Option<Forward> {
        let query = Query::parse(packet, &mut self.name).ok()?;
        let target = tables.lookup(&self.name, query.qtype).target().and_then(LookupName::from_wire);
        Some(Forward::new(packet, &query, target.as_ref().unwrap_or(&self.name)))
    }

    /// Writes the reply to such a packet, now that an upstream said this.
    pub fn relay(
        &mut self,
        tables: &Tables,
        packet: &[u8],
        origin: Origin,
        (reply, age): (&Reply, Age),
        out: &mut Vec<u8>,
    ) {
        out.clear();
        let Ok(query) = Query::parse(packet, &mut self.name) else { return };
        let source = if age == Age::Stale { Source::Stale } else { Source::Upstream };
        self.last = Last { qtype: query.qtype, source };
        let frame = self.settings.frame(Ok(&query), origin).0;
        let said;
        let mut answer = tables.lookup(&self.name, query.qtype);
        match answer.outside {
            Outside::Question => return reply.write(&frame, age, out),
            Outside::Target => {
                said = reply.said(age);
                answer.append(&said);
            }
            // It was ours meanwhile.
            Outside::Nothing => {}
        }
        assemble(&frame, &answer, &mut self.rng, &mut self.scratch, out);
    }

    fn reply(
        &mut self,
        tables: &Tables,
        packet: &[u8],
        origin: Origin,
        patience: Patience,
        out: &mut Vec<u8>,
    ) -> Outcome {
        out.clear();
        self.last = Last::NOTHING;
        let settings = &*self.settings;
        let parsed = Query::parse(packet, &mut self.name);
        if let Err(Rejected::Silence) = parsed {
            return Outcome::Silence;
        }
        if patience == Patience::None && parsed.is_ok() && tables.takes_long(&self.name) {
            return Outcome::Slow;
        }
        let (frame, known) = settings.frame(parsed.as_ref(), origin);
        if let (false, Some(limit), Some(client)) = (known, &settings.limit, origin.client)
            && !limit.allows(client.address, client.now)
        {
            self.last = Last { qtype: parsed.map_or(0, |query| query.qtype), source: Source::Limited };
            if limit.slip() == 0 || self.rng.u8(0..limit.slip()) > 0 {
                return Outcome::Silence;
            }
            bare(&frame, Rcode::NoError, true, out);
            return Outcome::Reply(Rcode::NoError);
        }
        let query = match parsed {
            Ok(query) => query,
            Err(Rejected::Reply { rcode, .. }) => {
                self.last.source = Source::Rejected;
                bare(&frame, rcode, false, out);
                return Outcome::Reply(rcode);
            }
            Err(Rejected::Silence) => return Outcome::Silence,
        };
        let said;
        let mut answer = tables.lookup(&self.name, query.qtype);
        let is_ours = answer.outside != Outside::Question;
        self.last = Last { qtype: query.qtype, source: if is_ours { Source::Zone } else { Source::Refused } };
        let recursion = settings.recursion.as_ref().filter(|_| query.header.recursion_desired);
        let known = recursion.and_then(|recursion| match answer.outside {
            Outside::Nothing => None,
            Outside::Question => Some(recursion.find(&query, &self.name, origin.client)),
            Outside::Target => {
                let target = LookupName::from_wire(answer.target()?)?;
                // Who may not ask has the chain as far as it is ours.
                Some(Ok(recursion.find(&query, &target, origin.client).ok()?))
            }
        });
        let mut outcome = None;
        match known {
            None => {}
            Some(Err(reason)) => answer = Answer::refused(reason),
            Some(Ok(Known::Nothing)) => return Outcome::Beyond,
            Some(Ok(Known::Local(local))) => {
                // The end of a chain that stays here is the client's to follow.
                if let (Outside::Question, Some(zone)) = (answer.outside, tables.domain()) {
                    answer = local.answer(&self.name, query.qtype, zone);
                    self.last.source = Source::Host;
                }
            }
            Some(Ok(Known::Cached(hit))) => {
                let (reply, age) = hit.parts();
                self.last.source = if age == Age::Stale { Source::Stale } else { Source::Cache };
                let relayed = Outcome::Relayed { refresh: hit.refresh() };
                if answer.outside == Outside::Question {
                    reply.write(&frame, age, out);
                    return relayed;
                }
                outcome = Some(relayed);
                said = reply.said(age);
                answer.append(&said);
            }
        }
        assemble(&frame, &answer, &mut self.rng, &mut self.scratch, out);
        outcome.unwrap_or(Outcome::Reply(answer.rcode))
    }
}

impl Settings {
    /// What the reply repeats of a query, and whether the client is known not to be forged.
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
        let recursion = self.recursion.as_ref().zip(client);
        let recursion_available = recursion.is_some_and(|(recursion, client)| recursion.allows(client));
        let known = transport == Transport::Tcp || checked.is_some_and(|checked| checked.known);
        let client = client.map(|client| client.address);
        (Frame { header, question, edns, options, recursion_available, udp_payload, limit, client }, known)
    }

    /// What the client's cookie is worth, if it sent one.
    fn check(&self, edns: Option<Edns>, client: Option<Client>) -> Option<Checked> {
        let (cookie, client) = (edns?.cookie?, client?);
        // Cookies count seconds modulo 2^32 (RFC 9018 §4.3).
        Some(self.secret.as_ref()?.check(&cookie, client.address, client.now.as_secs() as u32))
    }
}
