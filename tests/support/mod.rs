//! What several tests need: reading a reply with hickory-proto, the reference decoder, and showing it as `dig` would.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part of this module")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

pub mod agent;
pub mod backend;
pub mod browser;
pub mod cluster;
pub mod document;
pub mod frames;
pub mod http;
pub mod machine;
pub mod namespaces;
pub mod process;
pub mod program;
pub mod run;
pub mod skip;
pub mod systemd;
pub mod upstream;
pub mod wait;
pub mod watchers;
pub mod world;

use hickory_proto::{
    op::{Edns, Message, OpCode, Query},
    rr::{Name, RData, Record, RecordType, rdata::opt::EdnsOption},
    serialize::binary::BinEncodable,
};
use muster::model::name::Label;

/// What a test asks.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Presentation form; letter case is kept.
    pub name: String,
    /// The type's number.
    pub qtype: u16,
    /// The EDNS payload that is announced; `None`: no EDNS.
    pub edns: Option<u16>,
    /// The DO bit, where there is EDNS.
    pub dnssec_ok: bool,
}

impl Ask {
    /// The query's wire form, with RD set as stub resolvers do.
    pub fn packet(&self, id: u16) -> Vec<u8> {
        let mut message = Message::query();
        message.metadata.id = id;
        message.metadata.op_code = OpCode::Query;
        message.metadata.recursion_desired = true;
        let name = Name::from_ascii(&self.name).expect("a name that hickory takes");
        message.add_query(Query::query(name, RecordType::from(self.qtype)));
        if let Some(payload) = self.edns {
            let mut edns = Edns::new();
            edns.set_max_payload(payload).set_dnssec_ok(self.dnssec_ok);
            message.set_edns(edns);
        }
        message.to_bytes().expect("a query that hickory encodes")
    }
}

/// A label from text that is known to be valid.
pub fn label(text: &str) -> Label {
    Label::parse(text).unwrap()
}

/// A reply as hickory-proto reads it.
pub fn decode(reply: &[u8]) -> Message {
    Message::from_vec(reply).unwrap_or_else(|error| panic!("hickory cannot read {reply:02x?}: {error}"))
}

/// One record as text: owner, TTL, class, type, data.
pub fn show(record: &Record) -> String {
    format!("{} {} {} {} {}", record.name, record.ttl, record.dns_class, record.record_type(), show_data(&record.data))
}

/// RDATA as text; character-strings in quotes, one by one.
pub fn show_data(data: &RData) -> String {
    match data {
        RData::TXT(txt) => {
            let strings = txt.txt_data.iter().map(|s| format!("\"{}\"", s.escape_ascii()));
            strings.collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    }
}

/// The Extended DNS Error of a reply: its code and text (RFC 8914 §2).
pub fn extended_error(message: &Message) -> Option<(u16, String)> {
    let options = message.edns.as_ref()?.options();
    options.as_ref().iter().find_map(|(_, option)| match option {
        EdnsOption::Unknown(15, octets) => {
            let code = u16::from_be_bytes([octets[0], octets[1]]);
            Some((code, String::from_utf8(octets[2..].to_vec()).expect("EXTRA-TEXT is UTF-8")))
        }
        _ => None,
    })
}
