//! Lookup of host names for the agent itself: addresses of instances that are registered with a host name.
//!
//! The agent asks its own engine as a client on loopback would, so that zone files, routes, upstreams and the cache are those
//! that its clients see. Names of the discovery zone are refused: their addresses would be those of instances, and an instance
//! could keep itself in answers.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use fastrand::Rng;
use thiserror::Error;

use super::Resolver;
use crate::{
    dns::{
        answer::UpstreamAnswer,
        engine::{Audience, Client, Decision, Engine, Origin, Settings, Transport},
        message::{
            codes::{Rcode, class, ede, rtype},
            query::HEADER,
        },
        recursion::{
            Recursion, is_within,
            upstream_reply::{Age, Reply},
        },
        socket,
        zone::Tables,
    },
    model::{bounds::host_address, name::Name, recursion_access::ClientRange, service::MAX_ADDRESSES},
};

/// Client of the questions.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Payload in octets of the OPT record, which requests Extended DNS Errors. Replies are not limited by it.
const PAYLOAD: u16 = 1232;

/// Addresses of a host name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostAddresses {
    /// 1 to [`MAX_ADDRESSES`] addresses in order: the lowest ones if there are more.
    pub addresses: Vec<IpAddr>,
    /// Lowest TTL of the records.
    pub ttl: Duration,
}

/// Reason why a host name has no addresses.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum HostLookupError {
    /// The name, or the end of its CNAME chain, is in a zone of services; holds that zone.
    #[error("names in {0} have the addresses of instances: use the address itself")]
    OwnZone(Name),
    /// No server could be asked, or the name is outside this server's zones and there are no upstreams.
    #[error("not in this agent's zones, and resolver.allow is empty: it asks no upstream")]
    NoResolver,
    /// The reply has another code than NOERROR; holds the Extended DNS Error's text, which may be empty.
    #[error("{0}{text}", text = suffix(.1))]
    Failed(Rcode, String),
    /// The name exists without an address; holds the Extended DNS Error's text, which may be empty.
    #[error("the name has no A and AAAA records{text}", text = suffix(.0))]
    NoAddress(String),
    /// An address that no host can have, or a loopback address for which other hosts would connect to themselves.
    #[error("the address {0} is not that of a host that other hosts can reach")]
    Unusable(IpAddr),
    /// The reply cannot be read.
    #[error("the reply cannot be read")]
    Malformed,
}

fn suffix(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

/// Looks up host names.
pub struct HostLookup {
    tables: Arc<ArcSwap<Tables>>,
    resolver: Option<Resolver>,
    settings: Arc<Settings>,
    /// True if the node itself has a loopback address: instances may have one, too.
    allow_loopback: bool,
}

impl HostLookup {
    /// Returns a lookup in these tables and, with a resolver, at its upstreams.
    pub fn new(
        tables: Arc<ArcSwap<Tables>>,
        resolver: Option<Resolver>,
        recursion: Option<&Recursion>,
        allow_loopback: bool,
    ) -> Self {
        // The agent may ask its own resolver, whichever clients may.
        let recursion = recursion.map(|recursion| {
            Arc::new(Recursion {
                allow: vec![ClientRange::Loopback],
                routes: recursion.routes.clone(),
                rebind_protection: recursion.rebind_protection.clone(),
                validation: recursion.validation.clone(),
                cache: recursion.cache.clone(),
                loop_detector: recursion.loop_detector.clone(),
            })
        });
        let (nsid, audience) = (Box::default(), Audience::Everyone);
        let settings = Settings {
            udp_payload: PAYLOAD,
            nsid,
            secret: None,
            limit: None,
            recursion,
            audience,
            serves_transfers: false,
            serves_updates: false,
            signer: None,
        };
        Self { tables, resolver, settings: Arc::new(settings), allow_loopback }
    }

    /// Returns the addresses of a host name.
    ///
    /// # Errors
    /// The reason why it has none.
    pub async fn addresses(&self, name: &Name) -> Result<HostAddresses, HostLookupError> {
        self.check_zone(name.wire())?;
        let (v4, v6) = tokio::join!(self.ask(name, rtype::A), self.ask(name, rtype::AAAA));
        let mut found = HostAddresses { addresses: Vec::new(), ttl: Duration::MAX };
        let mut reason = String::new();
        // Some servers fail for types that they do not know: one type with addresses is enough.
        let failed = match (v4, v6) {
            (Err(error), Err(_)) => return Err(error),
            (Ok(v4), Ok(v6)) => {
                for answer in [&v4, &v6] {
                    self.collect(answer, &mut found)?;
                    reason = answer.ede.as_ref().map_or(reason, |(_, text)| text.clone());
                }
                None
            }
            (Ok(one), Err(error)) | (Err(error), Ok(one)) => {
                self.collect(&one, &mut found)?;
                Some(error)
            }
        };
        found.addresses.sort_unstable();
        found.addresses.dedup();
        found.addresses.truncate(MAX_ADDRESSES);
        match failed {
            _ if !found.addresses.is_empty() => Ok(found),
            Some(error) => Err(error),
            None => Err(HostLookupError::NoAddress(reason)),
        }
    }

    /// Refuses names of the discovery zone and its aliases.
    fn check_zone(&self, name: &[u8]) -> Result<(), HostLookupError> {
        let tables = self.tables.load();
        let mut zones = tables.discovery_zones();
        match zones.find(|zone| is_within(name, zone.wire())) {
            Some(zone) => Err(HostLookupError::OwnZone(zone.clone())),
            None => Ok(()),
        }
    }

    /// Adds the addresses of a reply.
    fn collect(&self, reply: &UpstreamAnswer, found: &mut HostAddresses) -> Result<(), HostLookupError> {
        for record in &reply.answer {
            self.check_zone(&record.owner.to_ascii_lowercase())?;
            if record.rtype == rtype::CNAME {
                // Upstreams' records of the target are removed, since it is in a zone of this server.
                self.check_zone(&record.rdata.to_ascii_lowercase())?;
            }
            let address = match (record.rtype, &*record.rdata) {
                (rtype::A, octets) => <[u8; 4]>::try_from(octets).ok().map(|octets| Ipv4Addr::from(octets).into()),
                (rtype::AAAA, octets) => <[u8; 16]>::try_from(octets).ok().map(|octets| Ipv6Addr::from(octets).into()),
                _ => None,
            };
            found.ttl = found.ttl.min(Duration::from_secs(record.ttl.into()));
            let Some(address) = address else { continue };
            if host_address(&address).is_err() || address.is_loopback() && !self.allow_loopback {
                return Err(HostLookupError::Unusable(address));
            }
            found.addresses.push(address);
        }
        Ok(())
    }

    async fn ask(&self, name: &Name, qtype: u16) -> Result<UpstreamAnswer, HostLookupError> {
        let question = [name.wire(), &qtype.to_be_bytes(), &class::IN.to_be_bytes()].concat();
        let [p0, p1] = PAYLOAD.to_be_bytes();
        let header = [0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
        let opt = [0, 0, rtype::OPT as u8, p0, p1, 0, 0, 0, 0, 0, 0];
        let packet = [&header[..], &question, &opt].concat();
        let origin = Origin { transport: Transport::Tcp, client: Some(Client { address: CLIENT, now: socket::now() }) };
        let mut reply = Vec::new();
        let decision = {
            // An engine is cheap, and lookups are rare.
            let mut engine = Engine::with(self.settings.clone(), Rng::new());
            engine.answer(&self.tables.load(), &packet, origin, &mut reply)
        };
        match (decision, &self.resolver) {
            (Decision::Reply(_), _) => {}
            (Decision::ReplyAndRefresh(_, forward), resolver) => {
                resolver.iter().for_each(|resolver| resolver.refresh(CLIENT, &forward));
            }
            (Decision::Resolve(pending), Some(resolver)) => {
                let resolved = resolver.resolve(CLIENT, &pending.forward).await;
                pending.relay(&self.tables.load(), resolved.parts(), &mut reply);
            }
            (Decision::Resolve(_), None) => return Err(HostLookupError::NoResolver),
            (Decision::Drop(_) | Decision::Defer | Decision::Await | Decision::Transfer, _) => {
                return Err(HostLookupError::Malformed);
            }
        }
        debug_assert!(reply.len() >= HEADER, "a reply has a header");
        let reply = Reply::read(&reply, 0, &question).map_err(|_| HostLookupError::Malformed)?;
        let answer = reply.to_answer(Age::Fresh(0));
        let text = || answer.ede.as_ref().map(|(_, text)| text.clone()).unwrap_or_default();
        let is_stale =
            answer.ede.as_ref().is_some_and(|(code, _)| matches!(*code, ede::STALE_ANSWER | ede::STALE_NXDOMAIN));
        match answer.rcode {
            // The addresses before are as good, and the failure is shown.
            _ if is_stale => Err(HostLookupError::Failed(Rcode::ServFail, text())),
            Rcode::NoError => Ok(answer),
            Rcode::Refused if self.resolver.is_none() => Err(HostLookupError::NoResolver),
            other => Err(HostLookupError::Failed(other, text())),
        }
    }
}
