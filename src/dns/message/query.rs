//! Parser of queries, the untrusted input of the DNS servers.
//!
//! [`Query::parse`] never allocates, never reads past the packet, and takes time linear in its length. An invalid packet
//! becomes a [`Rejected`], which determines the reply. Compression pointers in the question are rejected: no earlier name
//! exists for them to point to (RFC 1035 §4.1.4).

use super::{
    codes::{Rcode, class, option, rtype},
    cookie::Cookie,
    reader::Reader,
};
use crate::model::name::{MAX_LABEL, MAX_NAME};

/// Octets of a header (RFC 1035 §4.1.1).
pub const HEADER: usize = 12;
/// Maximum octets of a UDP reply to a client without EDNS (RFC 1035 §4.2.1).
pub const CLASSIC_UDP: u16 = 512;

/// Valid query.
pub struct Query<'p> {
    /// Header of the packet.
    pub header: Header,
    /// Question section as received, with its letter case.
    pub question: &'p [u8],
    /// Query type.
    pub qtype: u16,
    /// EDNS parameters; `None` if the client does not use EDNS.
    pub edns: Option<Edns>,
    /// True if a TSIG record is in the additional section (RFC 8945).
    pub is_signed: bool,
}

/// Header fields that the reply depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Transaction id.
    pub id: u16,
    /// Opcode, 0 to 15.
    pub opcode: u8,
    /// RD bit.
    pub recursion_desired: bool,
    /// AD bit: the client asks whether the answer is authentic (RFC 6840 §5.7).
    pub authentic_data: bool,
    /// CD bit: the client validates signatures itself (RFC 4035 §3.2.2).
    pub checking_disabled: bool,
}

/// Contents of an OPT record (RFC 6891 §6.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    /// Maximum octets of a UDP reply; at least [`CLASSIC_UDP`] (RFC 6891 §6.2.3).
    pub payload: u16,
    /// DO bit, copied into the reply (RFC 3225 §3).
    pub dnssec_ok: bool,
    /// True if the client requests the server's identifier (RFC 5001 §2.1).
    pub nsid: bool,
    /// True if the client requests the idle timeout of its connection (RFC 7828 §3.2.1).
    pub keepalive: bool,
    /// Cookie (RFC 7873 §5.1).
    pub cookie: Option<Cookie>,
    /// True if options unknown to muster are present, on which an upstream's answer may depend.
    pub others: bool,
}

/// Packet that is not a valid query.
#[derive(Debug, PartialEq, Eq)]
pub enum Rejected<'p> {
    /// Response, or too short for a header: not answered, since a reply could start a loop.
    Silence,
    /// Answered with an error code.
    Reply {
        /// Header of the packet.
        header: Header,
        /// Question section; empty if it is malformed.
        question: &'p [u8],
        /// Response code.
        rcode: Rcode,
        /// EDNS parameters; the reply has an OPT record if present.
        edns: Option<Edns>,
    },
}

impl<'p> Query<'p> {
    /// Parses a packet; stores the query name in `name`, in lower case.
    pub fn parse(packet: &'p [u8], name: &mut LookupName) -> Result<Self, Rejected<'p>> {
        let Some((head, body)) = packet.split_at_checked(HEADER) else { return Err(Rejected::Silence) };
        let flags = head[2];
        if flags & 0x80 != 0 {
            return Err(Rejected::Silence);
        }
        let header = Header {
            id: u16::from_be_bytes([head[0], head[1]]),
            opcode: (flags >> 3) & 0x0f,
            recursion_desired: flags & 0x01 != 0,
            authentic_data: head[3] & 0x20 != 0,
            checking_disabled: head[3] & 0x10 != 0,
        };
        let count = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let mut reader = Reader::new(body);
        let asked = if count(4) == 1 { reader.question(name) } else { None };
        let Some((qtype, qclass)) = asked else {
            // The format of opcodes that are not served is unknown.
            let rcode = if header.opcode == 0 { Rcode::FormErr } else { Rcode::NotImp };
            return Err(Rejected::Reply { header, question: &[], rcode, edns: None });
        };
        let question = &body[..name.wire().len() + 4];
        let others = u32::from(count(6)) + u32::from(count(8));
        let (mut edns, mut is_signed) = (None, false);
        let rest = reader.additional(others, u32::from(count(10)), &mut edns, &mut is_signed);
        let reject = |rcode| Rejected::Reply { header, question, rcode, edns };
        if header.opcode != 0 {
            return Err(reject(Rcode::NotImp));
        }
        match rest {
            Ok(()) => {}
            Err(Unreadable::Malformed) => return Err(reject(Rcode::FormErr)),
            Err(Unreadable::Version) => return Err(reject(Rcode::BadVers)),
        }
        if matches!(qtype, rtype::OPT | rtype::TSIG) {
            return Err(reject(Rcode::FormErr));
        }
        if qclass != class::IN {
            return Err(reject(Rcode::Refused));
        }
        Ok(Self { header, question, qtype, edns, is_signed })
    }
}

enum Unreadable {
    Malformed,
    /// Unsupported EDNS version.
    Version,
}

impl Reader<'_> {
    fn question_name(&mut self, name: &mut LookupName) -> Option<()> {
        name.count = 0;
        let mut end = 0;
        loop {
            let len = usize::from(*self.rest.get(end)?);
            if len == 0 {
                break;
            }
            // The root's octet must fit behind.
            if len > MAX_LABEL || end + 1 + len >= MAX_NAME {
                return None;
            }
            name.starts[usize::from(name.count)] = end as u8;
            name.count += 1;
            end += 1 + len;
        }
        let octets = self.take(end + 1)?;
        name.len = octets.len() as u8;
        let wire = &mut name.wire[..octets.len()];
        wire.copy_from_slice(octets);
        // Length octets are below any letter and do not change.
        wire.make_ascii_lowercase();
        Some(())
    }

    fn question(&mut self, name: &mut LookupName) -> Option<(u16, u16)> {
        self.question_name(name)?;
        Some((self.u16()?, self.u16()?))
    }

    /// Skips the records behind the question, and stores the OPT record of the additional section in `edns`, even if the
    /// records after it are malformed. Sets `is_signed` if there is a TSIG record.
    fn additional(
        &mut self,
        others: u32,
        additional: u32,
        edns: &mut Option<Edns>,
        is_signed: &mut bool,
    ) -> Result<(), Unreadable> {
        for at in 0..others + additional {
            let root = self.skip_name().ok_or(Unreadable::Malformed)?;
            let rtype = self.u16().ok_or(Unreadable::Malformed)?;
            let class = self.u16().ok_or(Unreadable::Malformed)?;
            let ttl = self.take(4).ok_or(Unreadable::Malformed)?;
            let rdlength = self.u16().ok_or(Unreadable::Malformed)?;
            let rdata = self.take(usize::from(rdlength)).ok_or(Unreadable::Malformed)?;
            *is_signed |= rtype == rtype::TSIG && at >= others;
            if rtype == rtype::OPT {
                // At most one, owned by the root, in the additional section (RFC 6891 §6.1.1).
                if edns.is_some() || !root || at < others {
                    return Err(Unreadable::Malformed);
                }
                let found = Edns {
                    payload: class.max(CLASSIC_UDP),
                    dnssec_ok: ttl[2] & 0x80 != 0,
                    nsid: false,
                    keepalive: false,
                    cookie: None,
                    others: false,
                };
                // Even with malformed options the client uses EDNS (RFC 6891 §7).
                *edns = Some(found);
                *edns = Some(found.with_options(rdata).ok_or(Unreadable::Malformed)?);
                if ttl[1] != 0 {
                    return Err(Unreadable::Version);
                }
            }
        }
        // Trailing octets belong to no section: the counts or the packet are wrong.
        if self.rest.is_empty() { Ok(()) } else { Err(Unreadable::Malformed) }
    }
}

impl Edns {
    /// Parses the options of an OPT record; `None` if they do not fill it exactly (RFC 6891 §6.1.2), or one is malformed.
    /// Unknown options and padding (RFC 7830) are ignored.
    fn with_options(mut self, mut rdata: &[u8]) -> Option<Self> {
        while let [c0, c1, l0, l1, rest @ ..] = rdata {
            let (data, next) = rest.split_at_checked(usize::from(u16::from_be_bytes([*l0, *l1])))?;
            match u16::from_be_bytes([*c0, *c1]) {
                option::NSID => self.nsid = true,
                option::KEEPALIVE => self.keepalive = true,
                // The first of several is used (RFC 7873 §5.2).
                option::COOKIE if self.cookie.is_none() => self.cookie = Some(Cookie::parse(data)?),
                code => self.others |= !option::is_for_one_hop(code),
            }
            rdata = next;
        }
        rdata.is_empty().then_some(self)
    }
}

/// Query name in wire form and lower case, with the offsets of its labels; stored on the stack.
#[derive(Clone)]
pub struct LookupName {
    wire: [u8; MAX_NAME],
    len: u8,
    starts: [u8; MAX_LABELS],
    count: u8,
}

/// Maximum number of labels in [`MAX_NAME`] octets, without the root.
const MAX_LABELS: usize = MAX_NAME / 2;

impl Default for LookupName {
    /// Returns the root.
    fn default() -> Self {
        Self { wire: [0; MAX_NAME], len: 1, starts: [0; MAX_LABELS], count: 0 }
    }
}

impl LookupName {
    /// Parses a name in wire form; `None` if it is too long or incomplete.
    pub fn from_wire(wire: &[u8]) -> Option<Self> {
        let (mut reader, mut name) = (Reader::new(wire), Self::default());
        reader.question_name(&mut name)?;
        reader.rest.is_empty().then_some(name)
    }

    /// Returns the name in wire form.
    pub fn wire(&self) -> &[u8] {
        &self.wire[..usize::from(self.len)]
    }

    /// Returns the number of labels, without the root.
    pub fn count(&self) -> usize {
        usize::from(self.count)
    }

    /// Returns the labels from left to right.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.count()).map(|index| self.label(index))
    }

    /// Returns the offset in [`Self::wire`] of the label at `index` from the left; of the root for `index == count()`.
    pub fn offset(&self, index: usize) -> usize {
        match self.starts[..self.count()].get(index) {
            Some(start) => usize::from(*start),
            None => usize::from(self.len) - 1,
        }
    }

    /// Returns the label at `index` from the left, without its length octet.
    pub fn label(&self, index: usize) -> &[u8] {
        let start = self.offset(index);
        &self.wire[start + 1..][..usize::from(self.wire[start])]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds a query for `web.` with these section counts, and `tail` behind the question.
    fn packet(flags: [u8; 2], counts: [u16; 4], tail: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x12, 0x34, flags[0], flags[1]];
        packet.extend(counts.iter().flat_map(|c| c.to_be_bytes()));
        packet.extend(b"\x03wEb\0\0\x01\0\x01");
        packet.extend(tail);
        packet
    }

    fn outcome(packet: &[u8]) -> String {
        match Query::parse(packet, &mut LookupName::default()) {
            Ok(query) => format!("query, edns {:?}", query.edns.map(|e| (e.payload, e.dnssec_ok))),
            Err(Rejected::Silence) => "silence".into(),
            Err(Rejected::Reply { rcode, question, edns, .. }) => {
                format!("{rcode:?}, question {}, edns {}", !question.is_empty(), edns.is_some())
            }
        }
    }

    const OPT: &[u8] = b"\0\0\x29\x10\0\0\0\x80\0\0\0";

    #[test]
    fn packets_are_parsed_or_rejected() {
        let opt_v1 = b"\0\0\x29\x10\0\0\x01\0\0\0\0";
        let opt_small = b"\0\0\x29\0\x10\0\0\0\0\0\0";
        let opt_named = b"\x01a\0\0\x29\x10\0\0\0\0\0\0\0";
        let opt_option = b"\0\0\x29\x10\0\0\0\0\0\0\x06\xff\x0a\0\x02\xab\xcd";
        let opt_cookie = |len: usize| {
            [b"\0\0\x29\x10\0\0\0\0\0\0", &[4 + len as u8, 0, 10, 0, len as u8][..], &vec![1; len]].concat()
        };
        let opt_cut_option = b"\0\0\x29\x10\0\0\0\0\0\0\x05\xff\x0a\0\x02\xab";
        let a_record = b"\xc0\x0c\0\x01\0\x01\0\0\0\0\0\x04\x01\x02\x03\x04";
        let cases: &[(&str, Vec<u8>, &str)] = &[
            ("RFC 1035 §4.1.1: plain", packet([1, 0], [1, 0, 0, 0], b""), "query, edns None"),
            ("empty", vec![], "silence"),
            ("eleven octets", vec![0; 11], "silence"),
            ("a response", packet([0x80, 0], [1, 0, 0, 0], b""), "silence"),
            ("opcode NOTIFY", packet([4 << 3, 0], [1, 0, 0, 0], b""), "NotImp, question true, edns false"),
            ("opcode UPDATE with OPT", packet([5 << 3, 0], [1, 0, 0, 1], OPT), "NotImp, question true, edns true"),
            (
                "an opcode of another format",
                packet([6 << 3, 0], [2, 0, 0, 0], b""),
                "NotImp, question false, edns false",
            ),
            (
                "RFC 6891 §7: OPT, then junk",
                packet([0, 0], [1, 0, 0, 1], &[OPT, b"x"].concat()),
                "FormErr, question true, edns true",
            ),
            ("RFC 9619: no question", packet([0, 0], [0, 0, 0, 0], b""), "FormErr, question false, edns false"),
            ("RFC 9619: two questions", packet([0, 0], [2, 0, 0, 0], b""), "FormErr, question false, edns false"),
            ("65,535 questions", packet([0, 0], [65535, 0, 0, 0], b""), "FormErr, question false, edns false"),
            ("trailing octets", packet([0, 0], [1, 0, 0, 0], b"x"), "FormErr, question true, edns false"),
            ("a missing record", packet([0, 0], [1, 0, 0, 1], b""), "FormErr, question true, edns false"),
            ("RFC 6891: OPT", packet([0, 0], [1, 0, 0, 1], OPT), "query, edns Some((4096, true))"),
            ("RFC 6891 §6.2.3: under 512", packet([0, 0], [1, 0, 0, 1], opt_small), "query, edns Some((512, false))"),
            ("an unknown option", packet([0, 0], [1, 0, 0, 1], opt_option), "query, edns Some((4096, false))"),
            (
                "RFC 7873 §5.2.2: a client cookie",
                packet([0, 0], [1, 0, 0, 1], &opt_cookie(8)),
                "query, edns Some((4096, false))",
            ),
            (
                "RFC 7873 §5.2.2: half a client cookie",
                packet([0, 0], [1, 0, 0, 1], &opt_cookie(4)),
                "FormErr, question true, edns true",
            ),
            ("a cut option", packet([0, 0], [1, 0, 0, 1], opt_cut_option), "FormErr, question true, edns true"),
            ("§6.1.3: version 1", packet([0, 0], [1, 0, 0, 1], opt_v1), "BadVers, question true, edns true"),
            (
                "§6.1.1: two OPT",
                packet([0, 0], [1, 0, 0, 2], &[OPT, OPT].concat()),
                "FormErr, question true, edns true",
            ),
            ("§6.1.1: OPT of a name", packet([0, 0], [1, 0, 0, 1], opt_named), "FormErr, question true, edns false"),
            ("OPT as an answer", packet([0, 0], [1, 1, 0, 0], OPT), "FormErr, question true, edns false"),
            (
                "other records are skipped",
                packet([0, 0], [1, 1, 1, 1], &[a_record, a_record, OPT].concat()),
                "query, edns Some((4096, true))",
            ),
        ];
        for (case, packet, expected) in cases {
            assert_eq!(outcome(packet), *expected, "{case}");
        }
    }

    #[test]
    fn invalid_questions_are_rejected() {
        let with = |question: &[u8]| {
            let mut packet = vec![0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            packet.extend(question);
            packet
        };
        let long: Vec<u8> = [b"\x3f".as_slice(), &[b'a'; 63]].concat().repeat(4);
        let cases: &[(&str, Vec<u8>, &str)] = &[
            ("a pointer", with(b"\xc0\x0c\0\x01\0\x01"), "FormErr, question false, edns false"),
            ("RFC 6891 §5: label type 01", with(b"\x41a\0\0\x01\0\x01"), "FormErr, question false, edns false"),
            ("256 octets", with(&[&long[..], b"\0\0\x01\0\x01"].concat()), "FormErr, question false, edns false"),
            ("cut in a label", with(b"\x05ab"), "FormErr, question false, edns false"),
            ("cut before the class", with(b"\x01a\0\0\x01"), "FormErr, question false, edns false"),
            ("class CH", with(b"\x01a\0\0\x10\0\x03"), "Refused, question true, edns false"),
            ("the root", with(b"\0\0\x02\0\x01"), "query, edns None"),
            ("type OPT", with(b"\x01a\0\0\x29\0\x01"), "FormErr, question true, edns false"),
        ];
        for (case, packet, expected) in cases {
            assert_eq!(outcome(packet), *expected, "{case}");
        }
    }

    #[test]
    fn names_are_lowercased_and_split_into_labels() {
        let packet = packet([0, 0], [1, 0, 0, 0], b"");
        let mut name = LookupName::default();
        let Ok(query) = Query::parse(&packet, &mut name) else { panic!("not parsed") };
        assert_eq!(query.question, b"\x03wEb\0\0\x01\0\x01");
        assert_eq!(name.wire(), b"\x03web\0");
        let name = LookupName::from_wire(b"\x01a\x02bc\0").unwrap();
        assert_eq!((name.count(), name.label(0), name.label(1)), (2, &b"a"[..], &b"bc"[..]));
        assert_eq!((name.offset(0), name.offset(1), name.offset(2)), (0, 2, 5));
        let labels = [[1, b'a'].repeat(127), vec![0]].concat();
        assert_eq!(LookupName::from_wire(&labels).unwrap().count(), 127);
        assert!(LookupName::from_wire(b"\x01a").is_none());
        assert!(LookupName::from_wire(b"\x01a\0b").is_none());
    }
}
