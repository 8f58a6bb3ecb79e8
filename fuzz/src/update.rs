//! Update target: any message is refused or evaluated; the result is a zone that the store keeps and gives back.
//!
//! The zone has names of each kind. An update is evaluated with permission for everything, twice: the second time, prerequisites
//! apart, nothing is left to do.

use std::collections::BTreeSet;

use muster::{
    dns::{
        message::codes::Rcode,
        update::{
            content::{Content, Definition},
            evaluate::{MAX_ZONE_RECORDS, Outcome, evaluate},
            message::{Update, edns_payload, is_signed, zone_section},
            policy::Grant,
            stored::{key, parse_key, parse_value, value},
        },
    },
    model::name::Name,
};

/// Evaluates the input, and the input behind the head of an update of the zone.
pub fn run(octets: &[u8]) {
    evaluate_message(octets);
    if let [prerequisites, changes, rest @ ..] = octets {
        let mut message = vec![0, 7, 5 << 3, 0, 0, 1, 0, prerequisites % 3, 0, changes % 4, 0, 0];
        message.extend_from_slice(b"\x03dyn\x04test\0\0\x06\0\x01");
        message.extend_from_slice(rest);
        evaluate_message(&message);
    }
}

fn evaluate_message(message: &[u8]) {
    let section = zone_section(message);
    assert!(section.is_empty() || section.len() >= 5);
    let _ = (is_signed(message), edns_payload(message));
    let Ok(update) = Update::parse(message) else { return };
    let grant = |types: &[u16]| Grant {
        key: Name::root(),
        names: Vec::new(),
        types: types.iter().copied().collect::<BTreeSet<u16>>(),
    };
    let grants = [grant(&[]), grant(&[2, 6])];
    let mut content = zone();
    let before = content.serial();
    let changed = match evaluate(&content, &update, &grants.each_ref()) {
        Ok(Outcome::Changed(changed)) => changed,
        Ok(Outcome::Unchanged) => return,
        Err(error) => return assert_ne!(error.rcode(), Rcode::NoError, "{error}"),
    };
    assert!(changed.contains_key(&[][..]), "each change has a serial");
    for (owner, sets) in changed {
        let key = key(&content.origin, &owner);
        assert_eq!(parse_key(&key), Some((content.origin.clone(), owner.clone())), "{key}");
        let value = value(&sets);
        assert_eq!(parse_value(&value).as_ref(), Ok(&sets), "{key}: {value}");
        content.set(owner, sets);
    }
    assert_ne!(content.serial(), before);
    assert!(content.records() <= MAX_ZONE_RECORDS);
    let zone = content.to_zone();
    assert_eq!(zone.records.len(), content.records());
    let has = |rtype| zone.records.iter().filter(|record| record.owner == zone.origin && record.rtype == rtype).count();
    assert!(has(6) == 1 && has(2) > 0 && has(5) == 0, "the apex has an SOA and name servers: {zone:?}");
    for record in zone.records.iter().filter(|record| record.rtype == 5) {
        let beside = zone.records.iter().filter(|other| other.owner == record.owner).count();
        assert_eq!(beside, 1, "records beside a CNAME: {zone:?}");
    }
}

fn zone() -> Content {
    let name = |text: &str| Name::parse(text).unwrap_or_else(|error| panic!("{error}"));
    let mut content = Content::first(&Definition {
        origin: name("dyn.test"),
        name_servers: vec![name("ns.example")],
        grants: Vec::new(),
    });
    let values: [(&[u8], &str); 4] = [
        (b"\x03www", "300 A \\# 4 c0000201\n300 TXT \\# 2 0161\n"),
        (b"\x01c", "300 CNAME \\# 5 0377777700\n"),
        (b"\x01*", "300 TXT \\# 2 0161\n"),
        (b"\x01d\x03www", "300 DHCID \\# 3 000201\n"),
    ];
    for (owner, text) in values {
        content.set(owner.into(), parse_value(text).unwrap_or_else(|error| panic!("{error}")));
    }
    content
}
