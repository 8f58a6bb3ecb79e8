//! Prerequisites and changes with the results that RFC 2136 demands, bounds, and permissions.

use super::*;
use crate::dns::update::{
    content::Definition,
    message::tests::{message, wire},
};

const A: u16 = rtype::A;
const ONE: &[u8] = &[192, 0, 2, 1];
const TWO: &[u8] = &[192, 0, 2, 2];

/// A zone with `a A 192.0.2.1`, `c CNAME z` and a wildcard text.
fn content() -> Content {
    let server = Name::parse("ns.example").unwrap();
    let definition = Definition { origin: Name::parse("z").unwrap(), name_servers: vec![server], grants: Vec::new() };
    let mut content = Content::first(&definition);
    let set = |rtype, rdata: &[u8]| Arc::new(vec![RecordSet { rtype, ttl: 60, records: vec![rdata.into()] }]);
    content.set((*b"\x01a").into(), set(A, ONE));
    content.set((*b"\x01c").into(), set(rtype::CNAME, b"\x01z\0"));
    content.set((*b"\x01*").into(), set(rtype::TXT, b"\x01x"));
    content
}

fn grant(types: &[u16]) -> Grant {
    Grant { key: Name::root(), names: Vec::new(), types: types.iter().copied().collect() }
}

/// Evaluates records with permission for all types.
fn run(prerequisites: &[Vec<u8>], changes: &[Vec<u8>]) -> Result<Outcome, UpdateError> {
    let grants = [grant(&[]), grant(&[rtype::NS, rtype::SOA])];
    let update = Update::parse(&message(prerequisites, changes)).unwrap();
    evaluate(&content(), &update, &grants.each_ref())
}

/// Returns the content after changes, as the text of the values, and its serial.
fn after(changes: &[Vec<u8>]) -> (String, u32) {
    let mut content = content();
    match run(&[], changes).unwrap() {
        Outcome::Unchanged => ("unchanged".to_owned(), content.serial()),
        Outcome::Changed(changed) => {
            let mut text = String::new();
            for (owner, sets) in changed {
                if !owner.is_empty() || sets.len() != 2 || sets.iter().any(|set| set.records.len() != 1) {
                    for line in crate::dns::update::stored::value(&sets).lines() {
                        text += &format!("{} {line};", owner.escape_ascii());
                    }
                    if sets.is_empty() {
                        text += &format!("{} gone;", owner.escape_ascii());
                    }
                }
                content.set(owner, sets);
            }
            (text, content.serial())
        }
    }
}

#[test]
fn prerequisites_have_the_codes_of_rfc_2136() {
    let check = |owner: &[u8], rtype, class, rdata: &[u8]| wire(owner, rtype, class, 0, rdata);
    let cases = [
        ("name in use", check(b"\x01a", 255, CLASS_ANY, b""), Rcode::NoError),
        ("name in use: apex", check(b"", 255, CLASS_ANY, b""), Rcode::NoError),
        ("name in use: a wildcard does not count", check(b"\x01x", 255, CLASS_ANY, b""), Rcode::NxDomain),
        ("name not in use", check(b"\x01x", 255, CLASS_NONE, b""), Rcode::NoError),
        ("name not in use, but is", check(b"\x01a", 255, CLASS_NONE, b""), Rcode::YxDomain),
        ("set exists", check(b"\x01a", A, CLASS_ANY, b""), Rcode::NoError),
        ("set exists, but does not", check(b"\x01a", rtype::TXT, CLASS_ANY, b""), Rcode::NxRrset),
        ("set does not exist", check(b"\x01a", rtype::TXT, CLASS_NONE, b""), Rcode::NoError),
        ("set does not exist, but does", check(b"\x01a", A, CLASS_NONE, b""), Rcode::YxRrset),
        ("set with these records", check(b"\x01a", A, class::IN, ONE), Rcode::NoError),
        ("set with these records, letter case", check(b"\x01C", rtype::CNAME, class::IN, b"\x01Z\0"), Rcode::NoError),
        ("set with other records", check(b"\x01a", A, class::IN, TWO), Rcode::NxRrset),
        ("set with these records, but is none", check(b"\x01x", A, class::IN, ONE), Rcode::NxRrset),
    ];
    for (case, record, expected) in cases {
        let found = run(&[record], &[]).map_or_else(|error| error.rcode(), |_| Rcode::NoError);
        assert_eq!(found, expected, "{case}");
    }
    let both = [check(b"\x01a", A, class::IN, ONE), check(b"\x01a", A, class::IN, TWO)];
    assert_eq!(run(&both, &[]).unwrap_err().rcode(), Rcode::NxRrset, "records of one set are compared together");
}

/// Returns the code of an update with these records, with permission for all types.
fn code(prerequisites: &[Vec<u8>], changes: &[Vec<u8>]) -> Rcode {
    let Ok(update) = Update::parse(&message(prerequisites, changes)) else { return Rcode::FormErr };
    let grants = [grant(&[])];
    evaluate(&content(), &update, &grants.each_ref()).map_or_else(|error| error.rcode(), |_| Rcode::NoError)
}

/// Encodes a record whose owner is outside the zone.
fn outside(class: u16, ttl: u32, rdata: &[u8]) -> Vec<u8> {
    let mut record = wire(b"", A, class, ttl, rdata);
    record.splice(..2, *b"\x01y\0");
    record
}

/// A TTL that is not 0, though its lower 31 bits are.
const HIGHEST_BIT: u32 = 1 << 31;
/// Types that no record has: the reserved ones, OPT, TKEY, TSIG, IXFR, AXFR, MAILB and MAILA.
const META: [u16; 9] = [0, rtype::OPT, 249, rtype::TSIG, rtype::IXFR, rtype::AXFR, 253, 254, u16::MAX];

/// Each line of the pseudocode of RFC 2136 §3.2.5.
#[test]
fn forms_of_prerequisites_are_those_of_rfc_2136() {
    let cases = [
        ("ANY, TTL", wire(b"\x01a", A, CLASS_ANY, 1, b""), Rcode::FormErr),
        ("ANY, TTL of the highest bit", wire(b"\x01a", A, CLASS_ANY, HIGHEST_BIT, b""), Rcode::FormErr),
        ("NONE, TTL", wire(b"\x01x", A, CLASS_NONE, 1, b""), Rcode::FormErr),
        ("NONE, TTL of the highest bit", wire(b"\x01x", A, CLASS_NONE, HIGHEST_BIT, b""), Rcode::FormErr),
        ("IN, TTL", wire(b"\x01a", A, class::IN, 1, ONE), Rcode::FormErr),
        ("IN, TTL of the highest bit", wire(b"\x01a", A, class::IN, HIGHEST_BIT, ONE), Rcode::FormErr),
        ("ANY, outside the zone", outside(CLASS_ANY, 0, b""), Rcode::NotZone),
        ("NONE, outside the zone", outside(CLASS_NONE, 0, b""), Rcode::NotZone),
        ("IN, outside the zone", outside(class::IN, 0, ONE), Rcode::NotZone),
        ("ANY, TTL and outside the zone", outside(CLASS_ANY, 1, b""), Rcode::FormErr),
        ("ANY, data", wire(b"\x01a", A, CLASS_ANY, 0, ONE), Rcode::FormErr),
        ("ANY of type ANY, data", wire(b"\x01a", rtype::ANY, CLASS_ANY, 0, b"x"), Rcode::FormErr),
        ("NONE, data", wire(b"\x01x", A, CLASS_NONE, 0, ONE), Rcode::FormErr),
        ("NONE, malformed data", wire(b"\x01x", A, CLASS_NONE, 0, b"x"), Rcode::FormErr),
        ("NONE of type ANY, data", wire(b"\x01x", rtype::ANY, CLASS_NONE, 0, b"x"), Rcode::FormErr),
        ("IN of type ANY", wire(b"\x01a", rtype::ANY, class::IN, 0, b""), Rcode::FormErr),
        ("IN of type ANY, data", wire(b"\x01a", rtype::ANY, class::IN, 0, ONE), Rcode::FormErr),
        ("IN, no data", wire(b"\x01a", A, class::IN, 0, b""), Rcode::FormErr),
        ("IN, no name", wire(b"\x01c", rtype::CNAME, class::IN, 0, b""), Rcode::FormErr),
        ("IN, no text", wire(b"\x01*", rtype::TXT, class::IN, 0, b""), Rcode::FormErr),
        ("IN, malformed data", wire(b"\x01a", A, class::IN, 0, b"x"), Rcode::FormErr),
        ("IN, no data of a type that has none", wire(b"\x01a", 10, class::IN, 0, b""), Rcode::NxRrset),
        ("CH", wire(b"\x01a", A, 3, 0, ONE), Rcode::FormErr),
        ("HS", wire(b"\x01a", A, 4, 0, b""), Rcode::FormErr),
        ("class 0", wire(b"\x01a", A, 0, 0, b""), Rcode::FormErr),
    ];
    for (case, record, expected) in cases {
        assert_eq!(code(&[record], &[]), expected, "{case}");
    }
    for (class, rtype) in [CLASS_ANY, CLASS_NONE, class::IN].iter().flat_map(|class| META.map(|rtype| (*class, rtype)))
    {
        let rdata: &[u8] = if class == class::IN { b"x" } else { b"" };
        assert_eq!(code(&[wire(b"\x01a", rtype, class, 0, rdata)], &[]), Rcode::FormErr, "class {class} type {rtype}");
    }
}

/// Each line of the pseudocode of RFC 2136 §3.4.1.3.
#[test]
fn forms_of_changes_are_those_of_rfc_2136() {
    let cases = [
        ("IN, outside the zone", outside(class::IN, 0, ONE), Rcode::NotZone),
        ("ANY, outside the zone", outside(CLASS_ANY, 0, b""), Rcode::NotZone),
        ("NONE, outside the zone", outside(CLASS_NONE, 0, ONE), Rcode::NotZone),
        ("IN", wire(b"\x01x", A, class::IN, 60, ONE), Rcode::NoError),
        ("IN, TTL of the highest bit", wire(b"\x01x", A, class::IN, HIGHEST_BIT, ONE), Rcode::NoError),
        ("IN of type ANY", wire(b"\x01x", rtype::ANY, class::IN, 60, b"x"), Rcode::FormErr),
        ("IN, no data", wire(b"\x01x", A, class::IN, 60, b""), Rcode::FormErr),
        ("IN, malformed data", wire(b"\x01x", A, class::IN, 60, b"x"), Rcode::FormErr),
        ("ANY", wire(b"\x01a", A, CLASS_ANY, 0, b""), Rcode::NoError),
        ("ANY of type ANY", wire(b"\x01a", rtype::ANY, CLASS_ANY, 0, b""), Rcode::NoError),
        ("ANY, TTL", wire(b"\x01a", A, CLASS_ANY, 1, b""), Rcode::FormErr),
        ("ANY, TTL of the highest bit", wire(b"\x01a", A, CLASS_ANY, HIGHEST_BIT, b""), Rcode::FormErr),
        ("ANY of type ANY, TTL", wire(b"\x01a", rtype::ANY, CLASS_ANY, 1, b""), Rcode::FormErr),
        ("ANY, data", wire(b"\x01a", A, CLASS_ANY, 0, ONE), Rcode::FormErr),
        ("ANY of type ANY, data", wire(b"\x01a", rtype::ANY, CLASS_ANY, 0, b"x"), Rcode::FormErr),
        ("NONE", wire(b"\x01a", A, CLASS_NONE, 0, ONE), Rcode::NoError),
        ("NONE, TTL", wire(b"\x01a", A, CLASS_NONE, 1, ONE), Rcode::FormErr),
        ("NONE, TTL of the highest bit", wire(b"\x01a", A, CLASS_NONE, HIGHEST_BIT, ONE), Rcode::FormErr),
        ("NONE of type ANY", wire(b"\x01a", rtype::ANY, CLASS_NONE, 0, b""), Rcode::FormErr),
        ("NONE, no data", wire(b"\x01a", A, CLASS_NONE, 0, b""), Rcode::FormErr),
        ("NONE, malformed data", wire(b"\x01a", A, CLASS_NONE, 0, b"x"), Rcode::FormErr),
        ("CH", wire(b"\x01x", A, 3, 60, ONE), Rcode::FormErr),
        ("class 0", wire(b"\x01x", A, 0, 0, b""), Rcode::FormErr),
    ];
    for (case, record, expected) in cases {
        assert_eq!(code(&[], &[record]), expected, "{case}");
    }
    for (class, rtype) in [CLASS_ANY, CLASS_NONE, class::IN].iter().flat_map(|class| META.map(|rtype| (*class, rtype)))
    {
        let rdata: &[u8] = if class == CLASS_ANY { b"" } else { b"x" };
        assert_eq!(code(&[], &[wire(b"\x01a", rtype, class, 0, rdata)]), Rcode::FormErr, "class {class} type {rtype}");
    }
    let (text, _) = after(&[wire(b"\x01x", A, class::IN, HIGHEST_BIT, ONE)]);
    assert_eq!(text, "\\x01x 0 A \\# 4 c0000201;", "RFC 2181 §8");
}

#[test]
fn changes_follow_rfc_2136() {
    let add = |owner: &[u8], rtype, rdata: &[u8]| wire(owner, rtype, class::IN, 60, rdata);
    let delete = |owner: &[u8], rtype, class, rdata: &[u8]| wire(owner, rtype, class, 0, rdata);
    let soa = |serial: u32| [b"\x01n\0\x01h\0".as_slice(), &serial.to_be_bytes(), &[0; 16]].concat();
    let ns = |name: &[u8]| add(b"", rtype::NS, name);
    let cases = [
        ("add", vec![add(b"\x01x", A, ONE)], "\\x01x 60 A \\# 4 c0000201;", 2),
        ("add twice", vec![add(b"\x01a", A, ONE)], "unchanged", 1),
        ("add to a set", vec![wire(b"\x01a", A, 1, 5, TWO)], "\\x01a 5 A \\# 4 c0000201;\\x01a 5 A \\# 4 c0000202;", 2),
        ("another TTL", vec![wire(b"\x01a", A, 1, 5, ONE)], "\\x01a 5 A \\# 4 c0000201;", 2),
        ("CNAME beside others", vec![add(b"\x01a", rtype::CNAME, b"\0")], "unchanged", 1),
        ("CNAME at the apex", vec![add(b"", rtype::CNAME, b"\0")], "unchanged", 1),
        ("others beside CNAME", vec![add(b"\x01c", A, ONE)], "unchanged", 1),
        ("another CNAME", vec![add(b"\x01c", rtype::CNAME, b"\x01y\0")], "\\x01c 60 CNAME \\# 3 017900;", 2),
        ("delete a record", vec![delete(b"\x01a", A, CLASS_NONE, ONE)], "\\x01a gone;", 2),
        ("delete another record", vec![delete(b"\x01a", A, CLASS_NONE, TWO)], "unchanged", 1),
        ("delete a set", vec![delete(b"\x01a", A, CLASS_ANY, b"")], "\\x01a gone;", 2),
        ("delete a name", vec![delete(b"\x01a", 255, CLASS_ANY, b"")], "\\x01a gone;", 2),
        ("delete the apex", vec![delete(b"", 255, CLASS_ANY, b"")], "unchanged", 1),
        ("delete the SOA", vec![delete(b"", rtype::SOA, CLASS_ANY, b"")], "unchanged", 1),
        ("delete the name servers", vec![delete(b"", rtype::NS, CLASS_ANY, b"")], "unchanged", 1),
        (
            "delete the last name server",
            vec![delete(b"", rtype::NS, CLASS_NONE, b"\x02ns\x07example\0")],
            "unchanged",
            1,
        ),
        (
            "delete a name, then add",
            vec![delete(b"\x01a", 255, CLASS_ANY, b""), add(b"\x01a", rtype::TXT, b"\x01t")],
            "\\x01a 60 TXT \\# 2 0174;",
            2,
        ),
        ("add, then delete", vec![add(b"\x01x", A, ONE), delete(b"\x01x", A, CLASS_NONE, ONE)], "unchanged", 1),
        ("a newer SOA", vec![add(b"", rtype::SOA, &soa(7))], "", 7),
        ("an older SOA", vec![add(b"", rtype::SOA, &soa(0))], "unchanged", 1),
        ("an SOA below the apex", vec![add(b"\x01x", rtype::SOA, &soa(7))], "unchanged", 1),
    ];
    for (case, changes, text, serial) in cases {
        assert_eq!(after(&changes), (text.to_owned(), serial), "{case}");
    }
    let (text, serial) = after(&[ns(b"\x01n\0"), delete(b"", rtype::NS, CLASS_NONE, b"\x02NS\x07example\0")]);
    assert_eq!((text.as_str(), serial), ("", 2), "another name server takes the place of the last one");
}

#[test]
fn changes_that_are_malformed_or_not_permitted_are_refused_as_a_whole() {
    let good = wire(b"\x01x", A, class::IN, 60, ONE);
    let update = |records: &[Vec<u8>]| Update::parse(&message(&[], records)).unwrap();
    let txt = grant(&[rtype::TXT]);
    let cases = [
        ("a meta type", wire(b"\x01x", 255, class::IN, 60, b"x"), Rcode::FormErr),
        ("a type that no key may change", wire(b"\x01x", rtype::NSEC, class::IN, 60, b"\0\0\0"), Rcode::Refused),
    ];
    for (case, record, expected) in cases {
        let grants = [grant(&[])];
        let found = evaluate(&content(), &update(&[good.clone(), record]), &grants.each_ref());
        assert_eq!(found.unwrap_err().rcode(), expected, "{case}");
    }
    let permitted = |record: Vec<u8>| evaluate(&content(), &update(&[record]), &[&txt]).is_ok();
    assert!(permitted(wire(b"\x01x", rtype::TXT, class::IN, 60, b"\x01x")));
    assert!(!permitted(good));
    assert!(!permitted(wire(b"\x01a", 255, CLASS_ANY, 0, b"")), "the name has an address");
    assert!(permitted(wire(b"\x01*", 255, CLASS_ANY, 0, b"")), "the name has a text only");
}

#[test]
fn names_and_zones_have_bounds() {
    let text = |number: u32| {
        let mut rdata = vec![200; 201];
        rdata[1..5].copy_from_slice(&number.to_be_bytes());
        wire(b"\x01t", rtype::TXT, class::IN, 60, &rdata)
    };
    let records: Vec<_> = (0..200).map(text).collect();
    let name = Name::parse("t.z").unwrap();
    assert_eq!(run(&[], &records), Err(UpdateError::TooLarge(name)));
    assert!(run(&[], &records[..150]).is_ok());
    let mut content = content();
    for number in 0..MAX_ZONE_RECORDS as u32 - 5 {
        let owner = [&[4][..], &number.to_be_bytes()].concat();
        let set = RecordSet { rtype: A, ttl: 60, records: vec![ONE.into()] };
        content.set(owner.into(), Arc::new(vec![set]));
    }
    assert_eq!(content.records(), MAX_ZONE_RECORDS);
    let grants = [grant(&[])];
    let run = |record: Vec<u8>| {
        evaluate(&content, &Update::parse(&message(&[], &[record])).unwrap(), &grants.each_ref()).map(drop)
    };
    assert_eq!(run(wire(b"\x01x", A, class::IN, 60, ONE)), Err(UpdateError::TooManyRecords));
    assert_eq!(run(wire(b"\x01a", A, CLASS_ANY, 0, b"")), Ok(()));
}
