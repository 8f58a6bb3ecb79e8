//! The reply target: any octets that an upstream may send are no reply, or are handed out such that a client reads in
//! them what hickory-proto reads in the original.

use std::time::Duration;

use fastrand::Rng;
use hickory_proto::op::Message;
use muster::{
    dns::{
        answer::Outside,
        engine::{Client, Engine, Origin, Transport},
        message::query::LookupName,
        recursion::reply::{Age, Reply},
        zone::{Settings, Tables},
    },
    model::name::{Label, Name},
};

/// What our OPT record announces.
const PAYLOAD: u16 = 1232;

/// Reads a reply to its own question and hands it out.
pub fn run(octets: &[u8]) {
    let Some(question) = question(octets) else { return };
    let id = u16::from_be_bytes([octets[0], octets[1]]);
    let Ok(reply) = Reply::read(octets, id, question) else { return };
    let Some(name) = LookupName::from_wire(&question[..question.len() - 4]) else { return };
    let qtype = u16::from_be_bytes([question[question.len() - 4], question[question.len() - 3]]);
    let is_foreign = tables().lookup(&name, qtype).outside == Outside::Question;
    let original = Message::from_vec(octets);
    let mut engine = Engine::new(PAYLOAD, Rng::with_seed(1));
    for age in [Age::Fresh(0), Age::Fresh(7), Age::Stale] {
        let said = reply.said(age);
        if let (Ok(original), true) = (&original, said.is_answer) {
            assert_eq!(said.answer.len(), in_class(original), "behind a CNAME: {original:?}");
        }
        for (transport, payload) in [(Transport::Udp, None), (Transport::Udp, Some(4096)), (Transport::Tcp, Some(512))]
        {
            let mut out = vec![];
            let client = Client { address: [127, 0, 0, 1].into(), now: Duration::from_secs(1_000_000) };
            let origin = Origin { transport, client: Some(client) };
            engine.relay(&tables(), &query(question, payload), origin, (&reply, age), &mut out);
            let limit = match (transport, payload) {
                (Transport::Tcp, _) => usize::from(u16::MAX),
                (Transport::Udp, None) => 512,
                (Transport::Udp, Some(_)) => PAYLOAD.into(),
            };
            assert!(out.len() <= limit.max(12 + question.len() + 11), "{} octets of {limit}", out.len());
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

/// Records of the answer section that are of the Internet.
fn in_class(message: &Message) -> usize {
    message.answers.iter().filter(|record| u16::from(record.dns_class) == 1).count()
}

/// The question section, if there is one question and its name has no pointers.
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

fn tables() -> Tables {
    let label = Label::parse("host-a").unwrap_or_else(|error| panic!("{error}"));
    let domain = Name::parse("service.local").unwrap_or_else(|error| panic!("{error}"));
    Tables::new(Settings { node: label, domain, aliases: vec![], ttl: 5, negative_ttl: 1 })
}
