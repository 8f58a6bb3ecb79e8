//! Modules that several tests share. This one builds queries and decodes replies with hickory-proto, the reference
//! decoder.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of this module")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

pub mod acme;
pub mod agent;
pub mod backend;
pub mod booted;
pub mod browser;
pub mod certificates;
pub mod cluster;
pub mod collector;
pub mod document;
pub mod dynamic;
pub mod etcdctl;
pub mod frames;
pub mod http;
pub mod installed;
pub mod machine;
pub mod namespaces;
pub mod observer;
pub mod packages;
pub mod primary;
pub mod process;
pub mod program;
pub mod run;
pub mod scene;
pub mod secondary;
pub mod skip;
pub mod systemd;
pub mod upstream;
pub mod views;
pub mod voters;
pub mod wait;
pub mod watchers;
pub mod world;

use hickory_proto::{
    op::{Edns, Message, OpCode, Query},
    rr::{Name, RData, Record, RecordType, rdata::opt::EdnsOption},
    serialize::binary::BinEncodable,
};
use muster::model::name::Label;

/// Query of a test.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Name in hickory-proto's presentation form, with octal escapes; letter case is kept.
    pub name: String,
    /// Number of the type.
    pub qtype: u16,
    /// Announced EDNS payload in octets; `None` without EDNS.
    pub edns: Option<u16>,
    /// DO bit; ignored without EDNS.
    pub dnssec_ok: bool,
}

impl Ask {
    /// Returns the query's wire form, with RD set as stub resolvers do.
    pub fn packet(&self, id: u16) -> Vec<u8> {
        let mut message = Message::query();
        message.metadata.id = id;
        message.metadata.op_code = OpCode::Query;
        message.metadata.recursion_desired = true;
        let name = name(&self.name);
        message.add_query(Query::query(name, RecordType::from(self.qtype)));
        if let Some(payload) = self.edns {
            let mut edns = Edns::new();
            edns.set_max_payload(payload).set_dnssec_ok(self.dnssec_ok);
            message.set_edns(edns);
        }
        message.to_bytes().expect("a query that hickory encodes")
    }
}

/// Returns a name from its presentation form. hickory-proto reads no labels with spaces.
fn name(text: &str) -> Name {
    if !text.contains('\\') {
        return Name::from_ascii(text).expect("a name that hickory accepts");
    }
    let (mut labels, mut rest) = (vec![Vec::new()], text.strip_suffix('.').unwrap_or(text).bytes());
    while let Some(octet) = rest.next() {
        match octet {
            b'.' => labels.push(Vec::new()),
            b'\\' => {
                let escaped = rest.next().expect("an escaped character");
                let octet = if escaped.is_ascii_digit() {
                    let digits = [escaped, rest.next().unwrap(), rest.next().unwrap()];
                    u8::from_str_radix(str::from_utf8(&digits).unwrap(), 8).unwrap()
                } else {
                    escaped
                };
                labels.last_mut().unwrap().push(octet);
            }
            octet => labels.last_mut().unwrap().push(octet),
        }
    }
    Name::from_labels(labels.iter().map(Vec::as_slice)).expect("labels of at most 63 octets")
}

/// Returns a label from valid text.
pub fn label(text: &str) -> Label {
    Label::parse(text).unwrap()
}

/// Decodes a reply with hickory-proto.
pub fn decode(reply: &[u8]) -> Message {
    Message::from_vec(reply).unwrap_or_else(|error| panic!("hickory cannot decode {reply:02x?}: {error}"))
}

/// Formats a record: owner, TTL, class, type, data.
pub fn show(record: &Record) -> String {
    format!("{} {} {} {} {}", record.name, record.ttl, record.dns_class, record.record_type(), show_data(&record.data))
}

/// Formats RDATA; each character-string is quoted.
pub fn show_data(data: &RData) -> String {
    match data {
        RData::TXT(txt) => {
            let strings = txt.txt_data.iter().map(|s| format!("\"{}\"", s.escape_ascii()));
            strings.collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    }
}

/// Returns the Extended DNS Error of a reply: code and text (RFC 8914 §2).
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
