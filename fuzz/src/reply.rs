//! Reply target: any input from an upstream is rejected, or relayed so that hickory-proto decodes the same records from both.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use hickory_proto::op::Message;
use muster::{
    dns::{
        answer::Outside,
        engine::{self, Client, Decision, Engine, Origin, Transport},
        message::query::LookupName,
        recursion::{
            Recursion,
            cache::Cache,
            loop_detection::LoopDetector,
            upstream_reply::{Age, Reply},
        },
        zone::{Settings, Tables},
    },
    model::{
        dns_limits::CacheTtls,
        name::{Label, Name},
        recursion_access::ClientRange,
    },
};

/// UDP payload in our OPT record.
const PAYLOAD: u16 = 1232;

/// Parses the input as a reply to its own question, and relays it.
pub fn run(octets: &[u8]) {
    let Some(question) = question(octets) else { return };
    let id = u16::from_be_bytes([octets[0], octets[1]]);
    let Ok(reply) = Reply::read(octets, id, question) else { return };
    let Some(name) = LookupName::from_wire(&question[..question.len() - 4]) else { return };
    let qtype = u16::from_be_bytes([question[question.len() - 4], question[question.len() - 3]]);
    let is_foreign = tables().lookup(&name, qtype).outside == Outside::Question;
    let original = Message::from_vec(octets);
    screen(&reply, original.as_ref().ok());
    let mut engine = engine();
    for age in [Age::Fresh(0), Age::Fresh(7), Age::Stale] {
        let answer = reply.to_answer(age);
        if let (Ok(original), true) = (&original, answer.is_answer) {
            assert_eq!(answer.answer.len(), in_class(original), "records for a CNAME chain: {original:?}");
        }
        for (transport, payload) in [(Transport::Udp, None), (Transport::Udp, Some(4096)), (Transport::Tcp, Some(512))]
        {
            let mut out = vec![];
            let client = Client { address: [127, 0, 0, 1].into(), now: Duration::from_secs(1_000_000) };
            let origin = Origin { transport, client: Some(client) };
            // Special-use names are never forwarded.
            let decision = engine.answer(&tables(), &query(question, payload), origin, &mut out);
            let Decision::Resolve(pending) = decision else { continue };
            pending.relay(&tables(), (&reply, age), &mut out);
            let limit = match (transport, payload) {
                (Transport::Tcp, _) => usize::from(u16::MAX),
                (Transport::Udp, None) => 512,
                (Transport::Udp, Some(_)) => PAYLOAD.into(),
            };
            assert!(out.len() <= limit.max(12 + question.len() + 11), "{} octets exceed {limit}", out.len());
            let Ok(original) = &original else { continue };
            if out.is_empty() || !is_foreign {
                continue;
            }
            let relayed = Message::from_vec(&out).unwrap_or_else(|error| panic!("{error}: {out:02x?}"));
            if relayed.metadata.truncation {
                continue;
            }
            assert_eq!(relayed.answers.len(), original.answers.len());
            assert_eq!(relayed.authorities.len(), original.authorities.len());
            for (after, before) in relayed.answers.iter().zip(&original.answers) {
                let names = (after.name.to_lowercase(), before.name.to_lowercase());
                assert!(after.data == before.data && names.0 == names.1, "{after:?} {before:?}");
                assert!(after.ttl <= before.ttl, "a TTL was raised");
            }
        }
    }
}

/// Removes no record, and all records.
fn screen(reply: &Reply, original: Option<&Message>) {
    reply.find_address(|_| false);
    if let (Some(same), Some(original)) = (reply.without(|_| false), original) {
        let answer = same.to_answer(Age::Fresh(0));
        assert!(!answer.is_answer || answer.answer.len() == in_class(original), "a record is lost: {original:?}");
    }
    let none = reply.without(|_| true).map(|none| none.has_owner(|_| true));
    assert_eq!(none, Some(false), "a record is left");
}

/// Returns the number of answers of class IN.
fn in_class(message: &Message) -> usize {
    message.answers.iter().filter(|record| u16::from(record.dns_class) == 1).count()
}

/// Returns the question section; `None` without a question or if its name is compressed.
fn question(octets: &[u8]) -> Option<&[u8]> {
    let mut at = 12;
    loop {
        match usize::from(*octets.get(at)?) {
            0 => return octets.get(12..at + 5),
            len @ 1..=63 => at += 1 + len,
            _ => return None,
        }
    }
}

fn query(question: &[u8], payload: Option<u16>) -> Vec<u8> {
    let mut query = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(payload.is_some())];
    query.extend_from_slice(question);
    if let Some(payload) = payload {
        query.extend([0, 0, 41]);
        query.extend(payload.to_be_bytes());
        query.extend([0; 6]);
    }
    query
}

/// Returns an engine that allows recursion for loopback clients, with an empty cache.
fn engine() -> Engine {
    let ttls = CacheTtls { ttl: 60, negative_ttl: 60, stale: 0 };
    let recursion = Recursion {
        allow: vec![ClientRange::Loopback],
        routes: vec![],
        rebind_protection: None,
        validation: None,
        cache: Arc::new(Cache::new(1 << 16, ttls)),
        loop_detector: Arc::new(LoopDetector::new(1)),
    };
    let settings = engine::Settings {
        udp_payload: PAYLOAD,
        nsid: Box::default(),
        secret: None,
        limit: None,
        recursion: Some(Arc::new(recursion)),
        audience: engine::Audience::Everyone,
        serves_transfers: false,
        serves_updates: false,
        signer: None,
    };
    Engine::with(Arc::new(settings), Rng::with_seed(1))
}

fn tables() -> Tables {
    let label = |text| Label::parse(text).unwrap_or_else(|error| panic!("{error}"));
    let domain = Name::parse("service.local").unwrap_or_else(|error| panic!("{error}"));
    Tables::new(Settings::new(label("host-a"), label("dc1"), domain))
}
