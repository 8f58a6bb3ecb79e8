//! Tables of accepted and rejected replies, their cache TTLs, and the TTLs in answers.

use std::net::IpAddr;

use super::*;
use crate::dns::message::query::LookupName;

const QUESTION: &[u8] = b"\x03www\x07example\0\0\x01\0\x01";

/// A record of the question's name: type, TTL, RDATA.
type Given<'r> = (u16, u32, &'r [u8]);

fn message(flags: [u8; 2], sections: [&[Given<'_>]; 3]) -> Vec<u8> {
    let mut octets = [&[0, 7][..], &flags, &[0, 1]].concat();
    octets.extend(sections.iter().flat_map(|section| (section.len() as u16).to_be_bytes()));
    octets.extend_from_slice(QUESTION);
    for (rtype, ttl, rdata) in sections.concat() {
        let owner: &[u8] = if rtype == rtype::OPT { &[0] } else { &[0xc0, 0x0c] };
        let class = if rtype == rtype::OPT { 1232_u16 } else { class::IN };
        octets.extend([owner, &rtype.to_be_bytes(), &class.to_be_bytes(), &ttl.to_be_bytes()].concat());
        octets.extend([&(rdata.len() as u16).to_be_bytes(), rdata].concat());
    }
    octets
}

const ADDRESS: &[u8] = &[192, 0, 2, 1];
/// MNAME `ns.`, RNAME `hm.`, minimum 60 seconds.
const SOA: &[u8] = b"\x02ns\0\x02hm\0\0\0\0\x01\0\0\x0e\x10\0\0\x02\x58\0\x01\x51\x80\0\0\0\x3c";

#[test]
fn cache_ttl_of_replies() {
    let a = |ttl| (rtype::A, ttl, ADDRESS);
    let soa = |ttl| (rtype::SOA, ttl, SOA);
    let cname = (rtype::CNAME, 40, &b"\x01x\0"[..]);
    let cases: &[(&str, u8, [&[Given<'_>]; 3], u32)] = &[
        ("smallest TTL", 0, [&[a(300), a(200)], &[], &[]], 200),
        ("in all sections", 0, [&[a(300)], &[], &[a(100)]], 100),
        ("highest bit set counts as 0 (RFC 2181 §8)", 0, [&[a(0x8000_0001)], &[], &[]], 0),
        ("OPT has no TTL", 0, [&[a(300)], &[], &[(rtype::OPT, 0, b"")]], 300),
        ("NXDOMAIN: the SOA's minimum (RFC 2308 §5)", 3, [&[], &[soa(300)], &[]], 60),
        ("or the SOA's TTL", 3, [&[], &[soa(30)], &[]], 30),
        ("NODATA", 0, [&[], &[soa(300)], &[]], 60),
        ("NODATA behind a CNAME: the CNAME's TTL", 0, [&[cname], &[soa(300)], &[]], 40),
        ("NXDOMAIN without SOA", 3, [&[], &[], &[]], 0),
        ("NODATA without SOA", 0, [&[], &[], &[]], 0),
        ("CNAME without SOA", 0, [&[cname], &[], &[]], 0),
        ("a failure (RFC 9520 §3.2)", 2, [&[], &[], &[]], FAILURE_TTL),
    ];
    for (what, rcode, sections, expected) in cases {
        let octets = message([0x81, 0x80 | rcode], *sections);
        assert_eq!(Reply::read(&octets, 7, QUESTION).unwrap().ttl(), *expected, "{what}");
    }
}

#[test]
fn faulty_messages_are_rejected() {
    let good = message([0x81, 0x80], [&[(rtype::A, 60, ADDRESS)], &[], &[]]);
    let changed = |change: fn(&mut Vec<u8>)| {
        let mut octets = good.clone();
        change(&mut octets);
        octets
    };
    let cases: &[(&str, Vec<u8>, Result<(), ReplyError>)] = &[
        ("valid", good.clone(), Ok(())),
        ("octets behind the last record", changed(|octets| octets.extend([1, 2, 3])), Ok(())),
        ("empty", vec![], Err(ReplyError::Foreign)),
        ("other id", changed(|octets| octets[1] = 8), Err(ReplyError::Foreign)),
        ("a query", changed(|octets| octets[2] = 1), Err(ReplyError::Foreign)),
        ("an update", changed(|octets| octets[2] = 0xa8), Err(ReplyError::Foreign)),
        ("other question", changed(|octets| octets[13] = b'x'), Err(ReplyError::Foreign)),
        ("other letter case", changed(|octets| octets[13] = b'W'), Err(ReplyError::OtherCase)),
        ("no question", message([0x81, 0x80], [&[], &[], &[]])[..12].to_vec(), Err(ReplyError::Foreign)),
        ("truncated", changed(|octets| octets[2] |= 2), Err(ReplyError::Truncated)),
        ("incomplete", changed(|octets| octets.truncate(octets.len() - 1)), Err(ReplyError::Malformed)),
        ("one record missing", changed(|octets| octets[7] = 2), Err(ReplyError::Malformed)),
        ("a pointer to itself", changed(|octets| octets[30] = 29), Err(ReplyError::Malformed)),
        ("a pointer into the header", changed(|octets| octets[30] = 2), Err(ReplyError::Malformed)),
        ("an owner that leads into its record", changed(|octets| octets[30] = 28), Err(ReplyError::Malformed)),
        (
            "two OPT records",
            message([0x81, 0x80], [&[], &[], &[(rtype::OPT, 0, b""), (rtype::OPT, 0, b"")]]),
            Err(ReplyError::Malformed),
        ),
        (
            "OPT record in the answer section",
            message([0x81, 0x80], [&[(rtype::OPT, 0, b"")], &[], &[]]),
            Err(ReplyError::Malformed),
        ),
        (
            "incomplete option",
            message([0x81, 0x80], [&[], &[], &[(rtype::OPT, 0, b"\0\x0f\0\x09\0")]]),
            Err(ReplyError::Malformed),
        ),
    ];
    for (what, octets, expected) in cases {
        assert_eq!(Reply::read(octets, 7, QUESTION).map(|_| ()), *expected, "{what}");
    }
}

#[test]
fn errors_without_a_question_are_told_from_forged_replies() {
    for (flags, questions, expected) in [
        (0x81, 0, ReplyError::HeaderOnly(Rcode::FormErr)),
        (0x82, 0, ReplyError::HeaderOnly(Rcode::ServFail)),
        (0x84, 0, ReplyError::HeaderOnly(Rcode::NotImp)),
        (0x85, 0, ReplyError::HeaderOnly(Rcode::Refused)),
        (0x82, 1, ReplyError::HeaderOnly(Rcode::ServFail)),
        (0x80, 0, ReplyError::Foreign),
        (0x83, 0, ReplyError::Foreign),
    ] {
        let octets = [0, 7, 0x81, flags, 0, questions, 0, 0, 0, 0, 0, 0];
        assert_eq!(Reply::read(&octets, 7, QUESTION), Err(expected), "{octets:02x?}");
        assert_eq!(Reply::read(&octets, 8, QUESTION), Err(ReplyError::Foreign), "other id");
    }
}

/// Names in RDATA and owners are complete although they pointed into a removed record.
#[test]
fn records_are_removed_by_their_owner() {
    let web = b"\x03web\x05local\0";
    // www CNAME web.local; web.local CNAME edge.web.local; edge.web.local A; additional: web.local A.
    let mut octets = [&[0, 7, 0x81, 0xa0, 0, 1, 0, 3, 0, 0, 0, 1], QUESTION].concat();
    let fields = |rtype: u16, len: u8| [&rtype.to_be_bytes()[..], &[0, 1, 0, 0, 0, 60, 0, len]].concat();
    octets.extend([&[0xc0, 12], &fields(rtype::CNAME, 11)[..], web].concat());
    let target = (octets.len() - web.len()) as u8;
    octets.extend([&[0xc0, target], &fields(rtype::CNAME, 7)[..], b"\x04edge", &[0xc0, target]].concat());
    let edge = (octets.len() - 7) as u8;
    octets.extend([&[0xc0, edge], &fields(rtype::A, 4)[..], ADDRESS].concat());
    octets.extend([&[0xc0, target], &fields(rtype::A, 4)[..], ADDRESS].concat());
    let reply = Reply::read(&octets, 7, QUESTION).unwrap();
    let owners = |reply: &Reply| -> Vec<String> {
        let answer = reply.to_answer(Age::Fresh(0)).answer;
        answer.iter().map(|record| String::from_utf8_lossy(&record.owner).into_owned()).collect()
    };
    let is_web = |name: &LookupName| name.wire() == web;
    assert!(reply.has_owner(is_web));
    let without = reply.without(is_web).unwrap();
    assert!(!without.has_owner(is_web) && !without.authentic && without.ttl() == 60);
    assert_eq!(owners(&without), ["\x03www\x07example\0", "\x04edge\x03web\x05local\0"]);
    assert_eq!(without.octets[6..12], [0, 2, 0, 0, 0, 0], "the additional record is removed, too");
    assert_eq!(&*without.to_answer(Age::Fresh(10)).answer[0].rdata, web);
    assert_eq!(without.to_answer(Age::Fresh(10)).answer[1].ttl, 50);
    assert_eq!(owners(&reply.without(|_| false).unwrap()), owners(&reply));
}

#[test]
fn addresses_are_found_in_records_and_hints() {
    // Priority 1, target `.`, then alpn, ipv4hint and ipv6hint.
    let v6: &[u8] = &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    let hints = [&b"\0\x01\0\0\x01\0\x03\x02h2\0\x04\0\x08"[..], ADDRESS, &[10, 0, 0, 1], &[0, 6, 0, 16], v6].concat();
    let reply = |record| Reply::read(&message([0x81, 0x80], [&[record], &[], &[]]), 7, QUESTION).unwrap();
    let has = |reply: &Reply, address: &str| {
        let address: IpAddr = address.parse().unwrap();
        reply.find_address(|found| found == address).is_some()
    };
    assert!(has(&reply((rtype::A, 60, ADDRESS)), "192.0.2.1"));
    assert!(!has(&reply((rtype::TXT, 60, b"\x03abc")), "192.0.2.1"));
    for rtype in [rtype::SVCB, rtype::HTTPS] {
        let reply = reply((rtype, 60, &*hints));
        for (address, expected) in [("192.0.2.1", true), ("10.0.0.1", true), ("2001:db8::9", true), ("10.0.0.2", false)]
        {
            assert_eq!(has(&reply, address), expected, "{address}");
        }
        let cut = Reply::read(&message([0x81, 0x80], [&[(rtype::HTTPS, 60, &hints[..20])], &[], &[]]), 7, QUESTION);
        assert!(!has(&cut.unwrap(), "10.0.0.1"), "malformed parameters have no addresses for clients either");
    }
}

#[test]
fn ttls_are_capped_and_never_raised() {
    let octets = message([0x81, 0x80], [&[(rtype::A, 300, ADDRESS), (rtype::A, 20, ADDRESS)], &[], &[]]);
    let reply = Reply::read(&octets, 7, QUESTION).unwrap().bounded(100, 5);
    let ttls = |age| -> Vec<u32> { reply.to_answer(age).answer.iter().map(|record| record.ttl).collect() };
    assert_eq!(reply.ttl(), 20);
    assert_eq!(ttls(Age::Fresh(0)), [100, 20]);
    assert_eq!(ttls(Age::Fresh(30)), [70, 0]);
    assert_eq!(ttls(Age::Stale), [STALE_TTL, 20], "RFC 8767 §4");
    let negative = message([0x81, 0x83], [&[], &[(rtype::SOA, 300, SOA)], &[]]);
    assert_eq!(Reply::read(&negative, 7, QUESTION).unwrap().bounded(100, 5).ttl(), 5);
}
