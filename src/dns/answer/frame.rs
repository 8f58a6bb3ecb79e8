//! Fields of a reply that come from its query, and the OPT record.

use std::{net::IpAddr, time::Duration};

use super::Ede;
use crate::dns::message::{
    codes::{option, rtype},
    cookie,
    query::{Edns, Header},
};

/// Length of an OPT record without options (RFC 6891 §6.1.2).
const OPT: usize = 11;
/// Length of an option's code and length fields (RFC 6891 §6.1.2).
const OPTION: usize = 4;
/// Length of an EDE option's INFO-CODE (RFC 8914 §2).
const INFO_CODE: usize = 2;
/// Length of the keepalive option's timeout (RFC 7828 §3.1).
const KEEPALIVE: usize = 2;

/// Fields of a reply that come from its query, and the length limit.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'p> {
    /// Header of the query.
    pub header: Header,
    /// Question section as received; empty if it could not be parsed.
    pub question: &'p [u8],
    /// EDNS parameters of the client; `None` for a reply without an OPT record.
    pub edns: Option<Edns>,
    /// Options that the OPT record always carries.
    pub options: Options<'p>,
    /// RA bit: this client may use recursion (RFC 1035 §4.1.1).
    pub recursion_available: bool,
    /// UDP payload size in our OPT record.
    pub udp_payload: u16,
    /// Maximum length of the reply in octets; at least a header, a question and an OPT record.
    pub limit: usize,
    /// Client, which determines the records of a truncated answer.
    pub client: Option<IpAddr>,
    /// True if the client is on this host or may use recursion. Other clients receive no texts that describe the cluster.
    pub is_inside: bool,
}

/// Optional content of the OPT record, sent if it fits.
#[derive(Clone, Copy)]
pub enum Extra<'p> {
    /// Our Extended DNS Error.
    Error(Ede<'p>),
    /// Options of an upstream, as received.
    Options(&'p [u8]),
}

/// Options that the client requested.
#[derive(Clone, Copy, Default, Debug)]
pub struct Options<'p> {
    /// Name server identifier (RFC 5001).
    pub nsid: Option<&'p [u8]>,
    /// Client and server cookie (RFC 7873).
    pub cookie: Option<[u8; cookie::REPLY]>,
    /// Idle timeout of the connection (RFC 7828).
    pub keepalive: Option<Duration>,
}

impl Frame<'_> {
    /// Returns the minimum length of the OPT record in octets; 0 without EDNS.
    pub fn opt_len(&self) -> usize {
        self.edns.map_or(0, |_| OPT + self.options.len())
    }

    /// Writes the OPT record for clients with EDNS; `rcode` is the upper eight bits of the code. The caller counts the record.
    pub fn write_opt(&self, rcode: u8, extra: Extra<'_>, out: &mut Vec<u8>) {
        let Some(edns) = self.edns else { return };
        let extra = match extra {
            Extra::Error(ede) if !self.is_inside => Extra::Error(Ede { text: "", ..ede }),
            extra => extra,
        };
        let len = match extra {
            Extra::Error(ede) => OPTION + INFO_CODE + ede.text.len(),
            Extra::Options(octets) => octets.len(),
        };
        let fits = out.len() + self.opt_len() + len <= self.limit;
        let [p0, p1] = self.udp_payload.to_be_bytes();
        let dnssec_ok = if edns.dnssec_ok { 0x80 } else { 0 };
        let [l0, l1] = ((self.options.len() + if fits { len } else { 0 }) as u16).to_be_bytes();
        out.extend_from_slice(&[0, 0, rtype::OPT as u8, p0, p1, rcode, 0, dnssec_ok, 0, l0, l1]);
        if let Some(nsid) = self.options.nsid {
            put_option(option::NSID, &[], nsid, out);
        }
        if let Some(cookie) = &self.options.cookie {
            put_option(option::COOKIE, &[], cookie, out);
        }
        if let Some(idle) = self.options.keepalive {
            // In tenths of a second.
            put_option(option::KEEPALIVE, &[], &((idle.as_millis() / 100) as u16).to_be_bytes(), out);
        }
        match extra {
            Extra::Error(ede) if fits => put_option(option::EDE, &ede.code.to_be_bytes(), ede.text.as_bytes(), out),
            Extra::Options(octets) if fits => out.extend_from_slice(octets),
            Extra::Error(_) | Extra::Options(_) => {}
        }
    }
}

fn put_option(code: u16, field: &[u8], data: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(&((field.len() + data.len()) as u16).to_be_bytes());
    out.extend_from_slice(field);
    out.extend_from_slice(data);
}

impl Options<'_> {
    fn len(&self) -> usize {
        self.nsid.map_or(0, |nsid| OPTION + nsid.len())
            + self.cookie.map_or(0, |cookie| OPTION + cookie.len())
            + self.keepalive.map_or(0, |_| OPTION + KEEPALIVE)
    }
}

/// An owned [`Frame`], for a reply that is written after an upstream has replied.
#[derive(Debug)]
pub struct OwnedFrame {
    /// The frame without question and NSID.
    frame: Frame<'static>,
    question: Box<[u8]>,
    nsid: Option<Box<[u8]>>,
}

impl OwnedFrame {
    /// Returns the frame with its question and NSID.
    pub fn frame(&self) -> Frame<'_> {
        let options = Options { nsid: self.nsid.as_deref(), ..self.frame.options };
        Frame { question: &self.question, options, ..self.frame }
    }
}

impl From<&Frame<'_>> for OwnedFrame {
    fn from(frame: &Frame<'_>) -> Self {
        let Options { nsid, cookie, keepalive } = frame.options;
        let Frame { header, question, edns, recursion_available, udp_payload, limit, client, is_inside, .. } = *frame;
        let options = Options { nsid: None, cookie, keepalive };
        Self {
            frame: Frame {
                header,
                question: &[],
                edns,
                options,
                recursion_available,
                udp_payload,
                limit,
                client,
                is_inside,
            },
            question: question.into(),
            nsid: nsid.map(Into::into),
        }
    }
}
