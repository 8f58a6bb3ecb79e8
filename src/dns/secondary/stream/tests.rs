//! Replies of primaries, as tables of messages.

use super::*;
use crate::model::zone::StaticRecord;

const ID: u16 = 7;

fn origin() -> Name {
    Name::parse("z").unwrap()
}

/// A record in wire form: `soa 5`, `h1 9` (address record of a host), `out` (outside the zone), `bad` (malformed), `meta`.
fn record(text: &str) -> Vec<u8> {
    let (word, number) = text.split_once(' ').unwrap_or((text, "0"));
    let number: u32 = number.parse().unwrap();
    let of = |owner: &[u8], rtype: u16, rdata: &[u8]| {
        let mut wire = owner.to_vec();
        for field in [rtype, 1, 0, 60, rdata.len() as u16] {
            wire.extend_from_slice(&field.to_be_bytes());
        }
        wire.extend_from_slice(rdata);
        wire
    };
    let mut soa = b"\x02ns\x01z\0\x04host\x01z\0".to_vec();
    soa.extend([number, 60, 10, 600, 5].iter().flat_map(|number| number.to_be_bytes()));
    match word {
        "soa" => of(b"\x01z\0", rtype::SOA, &soa),
        "below" => of(b"\x01x\x01z\0", rtype::SOA, &soa),
        "out" => of(b"\x03out\x01y\0", rtype::A, &[192, 0, 2, 1]),
        "bad" => of(b"\x01z\0", rtype::A, &[192, 0, 2]),
        "trailing" => of(b"\x01z\0", rtype::NS, b"\x01z\0junk"),
        "meta" => of(b"\x01z\0", rtype::ANY, &[]),
        "loop" => of(b"\xc0\x0c", rtype::NS, b"\xc0\xff"),
        host => of(&[&[host.len() as u8], host.as_bytes(), b"\x01z\0"].concat(), rtype::A, &[192, 0, 2, number as u8]),
    }
}

/// A message with these records, separated by commas.
fn message(records: &str) -> Vec<u8> {
    let records: Vec<Vec<u8>> = records.split(", ").filter(|text| !text.is_empty()).map(record).collect();
    let mut message = ID.to_be_bytes().to_vec();
    message.extend_from_slice(&[0x84, 0, 0, 1]);
    message.extend_from_slice(&(records.len() as u16).to_be_bytes());
    message.extend_from_slice(&[0; 4]);
    message.extend_from_slice(b"\x01Z\0\0\xfc\0\x01");
    message.extend(records.concat());
    message
}

fn shown(record: &StaticRecord) -> String {
    match record.rtype {
        rtype::SOA => format!("soa {}", serial(&record.rdata).unwrap()),
        _ => format!("{} {}", String::from_utf8_lossy(record.owner.labels().next().unwrap()), record.rdata[3]),
    }
}

fn list(records: &[StaticRecord]) -> String {
    records.iter().map(shown).collect::<Vec<_>>().join(", ")
}

/// Outcome of a reply of these messages.
fn outcome(asked: Asked, messages: &[&str]) -> String {
    let mut stream = Stream::new(origin(), ID, asked);
    let mut received = None;
    for text in messages {
        if received.is_some() {
            return "done before the last message".to_owned();
        }
        match stream.take(&message(text)) {
            Ok(done) => received = done,
            Err(error) => return format!("{error}"),
        }
    }
    match received {
        None => "unfinished".to_owned(),
        Some(Received::NoLater(serial)) => format!("no later than {serial}"),
        Some(Received::Whole(records)) => format!("whole: {}", list(&records)),
        Some(Received::Changes(changes)) => {
            let each = changes.iter().map(|change| format!("-[{}] +[{}]", list(&change.removed), list(&change.added)));
            each.collect::<Vec<_>>().join(" ")
        }
    }
}

#[test]
fn replies_are_read_in_all_their_forms() {
    use Asked::{Since, Whole};
    let cases: &[(&str, Asked, &[&str], &str)] = &[
        ("one message", Whole, &["soa 5, a 1, b 2, soa 5"], "whole: soa 5, a 1, b 2"),
        ("a record a message", Whole, &["soa 5", "a 1", "b 2", "soa 5"], "whole: soa 5, a 1, b 2"),
        ("an empty zone", Whole, &["soa 5, soa 5"], "whole: soa 5"),
        ("cut", Whole, &["soa 5, a 1"], "unfinished"),
        ("changes", Since(3), &["soa 5, soa 3, a 1, soa 5, a 2, soa 5"], "-[soa 3, a 1] +[soa 5, a 2]"),
        (
            "several versions",
            Since(3),
            &["soa 5, soa 3, a 1", "soa 4, a 2, soa 4", "a 2, soa 5, a 3, soa 5"],
            "-[soa 3, a 1] +[soa 4, a 2] -[soa 4, a 2] +[soa 5, a 3]",
        ),
        ("only removed", Since(3), &["soa 5, soa 3, a 1, soa 5, soa 5"], "-[soa 3, a 1] +[soa 5]"),
        ("changes that are cut", Since(3), &["soa 5, soa 3, a 1, soa 5"], "unfinished"),
        ("the whole zone instead of changes", Since(3), &["soa 5, a 1, soa 5"], "whole: soa 5, a 1"),
        ("an empty zone instead of changes", Since(3), &["soa 5, soa 5"], "whole: soa 5"),
        ("no later version", Since(5), &["soa 5"], "no later than 5"),
        ("an older version", Since(5), &["soa 4"], "no later than 4"),
        (
            "the serial wraps",
            Since(u32::MAX),
            &["soa 1, soa 4294967295, soa 1, a 2, soa 1"],
            "-[soa 4294967295] +[soa 1, a 2]",
        ),
        ("a later version, to be continued", Since(3), &["soa 5"], "unfinished"),
    ];
    for (case, asked, messages, expected) in cases {
        assert_eq!(outcome(*asked, messages), *expected, "{case}");
    }
}

#[test]
fn hostile_replies_are_refused() {
    use Asked::{Since, Whole};
    let cases: &[(&str, Asked, &[&str], &str)] = &[
        ("no records", Whole, &[""], "a message of the transfer has no records"),
        ("no SOA", Whole, &["a 1, soa 5"], "the transfer does not begin with the SOA of the zone"),
        ("a second SOA", Whole, &["soa 5, a 1, soa 6"], "unexpected SOA with serial 6"),
        ("an SOA below the apex", Whole, &["soa 5, below 5"], "unexpected SOA with serial 5"),
        ("records behind the end", Whole, &["soa 5, a 1, soa 5, b 2"], "records follow the end of the transfer"),
        ("a name outside the zone", Whole, &["soa 5, out"], "record of `out.y.`, which is not in the zone"),
        ("a malformed address", Whole, &["soa 5, bad"], "malformed record of type 1 of `z.`"),
        ("octets behind a name", Whole, &["soa 5, trailing"], "malformed record of type 2 of `z.`"),
        ("a query type", Whole, &["soa 5, meta"], "record of type 255 of `z.`: no zone can have it"),
        ("a pointer ahead", Whole, &["soa 5, loop"], "malformed record of type 2 of `z.`"),
        ("changes from another version", Since(3), &["soa 5, soa 2"], "unexpected SOA with serial 2"),
        ("versions that go back", Since(3), &["soa 5, soa 3, soa 2"], "unexpected SOA with serial 2"),
        ("versions beyond the last", Since(3), &["soa 5, soa 3, soa 6"], "unexpected SOA with serial 6"),
        ("a gap between versions", Since(3), &["soa 9, soa 3, soa 4, soa 5"], "unexpected SOA with serial 5"),
    ];
    for (case, asked, messages, expected) in cases {
        assert_eq!(outcome(*asked, messages), *expected, "{case}");
    }
}

#[test]
fn headers_must_be_those_of_a_reply() {
    let change = |at: usize, octet: u8| {
        let mut message = message("soa 5, soa 5");
        message[at] = octet;
        Stream::new(origin(), ID, Asked::Whole).take(&message)
    };
    let cases = [
        ("another id", 1, 8, StreamError::OtherRequest),
        ("a query", 2, 0x04, StreamError::OtherRequest),
        ("another opcode", 2, 0xa4, StreamError::OtherRequest),
        ("truncated", 2, 0x86, StreamError::Malformed),
        ("REFUSED", 3, 5, StreamError::Refused(5)),
        ("two questions", 5, 2, StreamError::Malformed),
        ("another zone", 13, b'y', StreamError::OtherRequest),
        ("more records than the transfer has", 7, 3, StreamError::AfterEnd),
    ];
    for (case, at, octet, expected) in cases {
        assert_eq!(change(at, octet), Err(expected), "{case}");
    }
    let mut cut = message("soa 5, a 1");
    cut.pop();
    for message in [&b"short"[..], &cut] {
        assert_eq!(Stream::new(origin(), ID, Asked::Whole).take(message), Err(StreamError::Malformed));
    }
}

#[test]
fn soa_must_be_an_authoritative_answer() {
    let reply = |flags: u8, records: &str| {
        let mut message = message(records);
        message[2] = flags;
        soa_in(&message, ID, &origin()).map(|soa| serial(&soa.rdata).unwrap())
    };
    let cases = [
        ("an answer", 0x84, "soa 5", Ok(5)),
        ("without authority", 0x80, "soa 5", Err(StreamError::NotAuthoritative)),
        ("a referral", 0x80, "", Err(StreamError::NotAuthoritative)),
        ("no SOA", 0x84, "a 1", Err(StreamError::NoZone)),
        ("no records", 0x84, "", Err(StreamError::NoZone)),
    ];
    for (case, flags, records, expected) in cases {
        assert_eq!(reply(flags, records), expected, "{case}");
    }
    let mut transfer = message("soa 5, a 1, soa 5");
    transfer[2] = 0x80;
    assert!(Stream::new(origin(), ID, Asked::Whole).take(&transfer).is_ok(), "a client ignores the flag of transfers");
}

/// A message of 64 KB can name five thousand owners of 255 octets: a stream without an end reaches the limit.
#[test]
fn endless_streams_are_bounded() {
    let mut stream = Stream::new(origin(), ID, Asked::Whole);
    stream.take(&message("soa 5")).unwrap();
    stream.records = MAX_RECORDS - 10_000;
    let hosts = vec!["a 1"; 2_000].join(", ");
    let message = message(&hosts);
    let ended = (0..MAX_RECORDS).find_map(|_| stream.take(&message).err());
    assert_eq!(ended, Some(StreamError::TooLarge));
    let mut stream = Stream::new(origin(), ID, Asked::Whole);
    stream.octets = MAX_OCTETS;
    assert_eq!(stream.take(&self::message("soa 5")), Err(StreamError::TooLarge));
}

#[test]
fn damaged_messages_are_read_without_panic() {
    let good = message("soa 5, soa 3, a 1, soa 5, b 2, soa 5");
    let mut random = fastrand::Rng::with_seed(1995);
    for _ in 0..20_000 {
        let mut damaged = good.clone();
        damaged.truncate(random.usize(0..=good.len()));
        for _ in 0..random.usize(0..4) {
            if let Some(last) = damaged.len().checked_sub(1) {
                damaged[random.usize(0..=last)] = random.u8(..);
            }
        }
        let _ = Stream::new(origin(), ID, Asked::Since(3)).take(&damaged);
        let _ = soa_in(&damaged, ID, &origin());
    }
}
