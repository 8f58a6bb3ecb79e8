//! The engine: a packet in, a packet out, the same for every transport.

use std::{net::IpAddr, sync::Arc, time::Duration};

use fastrand::Rng;

use super::{
    assemble::{Frame, Options, Scratch, assemble, bare},
    code::Rcode,
    cookie::{Checked, Secret},
    limit::Limit,
    question::{CLASSIC_UDP, Edns, LookupName, Query, Rejected},
    table::Tables,
};

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

/// Who asks, and when.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// The address that the reply goes to.
    pub address: IpAddr,
    /// Since 1970.
    pub now: Duration,
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
    /// It gets none.
    Silence,
    /// Its answer takes long: it was not looked for.
    Slow,
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
    pub limit: Option<Limit>,
}

/// Answers packets; one for each worker. Holds what is used anew for every answer.
pub struct Engine {
    settings: Arc<Settings>,
    rng: Rng,
    name: LookupName,
    scratch: Scratch,
}

impl Engine {
    /// An engine of the plain protocol. `udp_payload` is the longest reply over UDP in octets, at least 512; `rng` draws
    /// the order of records.
    pub fn new(udp_payload: u16, rng: Rng) -> Self {
        let settings = Settings { udp_payload, nsid: Box::default(), secret: None, limit: None };
        Self::with(Arc::new(settings), rng)
    }

    /// An engine with all that an agent has.
    pub fn with(settings: Arc<Settings>, rng: Rng) -> Self {
        Self { settings, rng, name: LookupName::default(), scratch: Scratch::default() }
    }

    /// Writes the reply to `packet` into `out`; `None` where silence is the answer, and `out` then is empty.
    pub fn respond(
        &mut self,
        tables: &Tables,
        packet: &[u8],
        origin: impl Into<Origin>,
        out: &mut Vec<u8>,
    ) -> Option<Rcode> {
        match self.reply(tables, packet, origin.into(), Patience::Any, out) {
            Outcome::Reply(rcode) => Some(rcode),
            Outcome::Silence | Outcome::Slow => None,
        }
    }

    /// The same, unless the answer would take so long that others should not wait for it: then [`Outcome::Slow`], which
    /// [`Self::respond`] answers.
    pub fn respond_at_once(&mut self, tables: &Tables, packet: &[u8], origin: Origin, out: &mut Vec<u8>) -> Outcome {
        self.reply(tables, packet, origin, Patience::None, out)
    }

    fn reply(
        &mut self,
        tables: &Tables,
        packet: &[u8],
        Origin { transport, client }: Origin,
        patience: Patience,
        out: &mut Vec<u8>,
    ) -> Outcome {
        out.clear();
        let settings = &*self.settings;
        let udp_payload = settings.udp_payload.max(CLASSIC_UDP);
        let parsed = Query::parse(packet, &mut self.name);
        let (header, question, edns) = match &parsed {
            Ok(query) => (query.header, query.question, query.edns),
            Err(Rejected::Reply { header, question, edns, .. }) => (*header, *question, *edns),
            Err(Rejected::Silence) => return Outcome::Silence,
        };
        if patience == Patience::None && parsed.is_ok() && tables.takes_long(&self.name) {
            return Outcome::Slow;
        }
        let checked = settings.check(edns, client);
        let options = Options {
            nsid: Some(&*settings.nsid).filter(|nsid| edns.is_some_and(|edns| edns.nsid) && !nsid.is_empty()),
            cookie: checked.map(|checked| checked.reply),
            keepalive: edns.filter(|edns| edns.keepalive && transport == Transport::Tcp).map(|_| TCP_IDLE),
        };
        let limit = match (transport, edns) {
            (Transport::Tcp, _) => MAX_TCP,
            (Transport::Udp, Some(edns)) => edns.payload.min(udp_payload).into(),
            (Transport::Udp, None) => CLASSIC_UDP.into(),
        };
        let frame = Frame { header, question, edns, options, udp_payload, limit };
        let known = transport == Transport::Tcp || checked.is_some_and(|checked| checked.known);
        if let (false, Some(limit), Some(client)) = (known, &settings.limit, client)
            && !limit.allows(client.address, client.now)
        {
            if limit.slip() == 0 || self.rng.u8(0..limit.slip()) > 0 {
                return Outcome::Silence;
            }
            bare(&frame, Rcode::NoError, true, out);
            return Outcome::Reply(Rcode::NoError);
        }
        match parsed {
            Ok(query) => {
                let answer = tables.lookup(&self.name, query.qtype);
                assemble(&frame, &answer, &mut self.rng, &mut self.scratch, out);
                Outcome::Reply(answer.rcode)
            }
            Err(Rejected::Reply { rcode, .. }) => {
                bare(&frame, rcode, false, out);
                Outcome::Reply(rcode)
            }
            Err(Rejected::Silence) => Outcome::Silence,
        }
    }
}

impl Settings {
    /// What the client's cookie is worth, if it sent one.
    fn check(&self, edns: Option<Edns>, client: Option<Client>) -> Option<Checked> {
        let (cookie, client) = (edns?.cookie?, client?);
        // Cookies count seconds modulo 2^32 (RFC 9018 §4.3).
        Some(self.secret.as_ref()?.check(&cookie, client.address, client.now.as_secs() as u32))
    }
}
