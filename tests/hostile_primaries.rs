//! Primaries whose replies contradict each other, or that are not authoritative: the copy of an agent lives only as long as a primary
//! has its version.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use hickory_proto::{op::ResponseCode, rr::RData};
use support::{
    agent::Agent,
    http,
    program::free,
    upstream::{Asked, Upstream},
    wait,
};

const SOA: u16 = 6;
const IXFR: u16 = 251;
const AXFR: u16 = 252;
/// Flags of a response, the second with authority.
const RESPONSE: u8 = 0x80;
const AUTHORITATIVE: u8 = 0x84;
/// Serial of the first copy.
const FIRST: u32 = 5;

/// Reply of a primary.
#[derive(Clone, Copy)]
enum Reply {
    /// A response code without records.
    Code(u8),
    /// No records.
    Nothing,
    /// The end of the connection.
    End,
    /// The SOA with this serial alone.
    Version(u32),
    /// The SOA with this serial alone, without authority.
    Unauthoritative(u32),
    /// The zone with this serial.
    Zone(u32),
    /// The zone with this serial, without authority.
    UnauthoritativeZone(u32),
}

use Reply::{Code, End, Nothing, Unauthoritative, UnauthoritativeZone, Version, Zone};

/// Outcome of a case.
#[derive(Clone, Copy)]
enum Outcome {
    /// The copy expires.
    Expires,
    /// The copy lives, and has this serial.
    Lives(u32),
}

use Outcome::{Expires, Lives};

/// First label of the zone; replies to queries for SOA, IXFR and AXFR after the first copy; a line of the log; the outcome.
type Case = (&'static str, [Reply; 3], &'static str, Outcome);

const OLDER: &str =
    "its serial 4 is older than that of the copy, 5: it is ignored until the zone there has serial 5 or a later one";

const CASES: [Case; 10] = [
    ("older-soa", [Version(4), Code(5), Code(5)], OLDER, Expires),
    ("older-changes", [Version(9), Version(4), Code(5)], OLDER, Expires),
    ("older-zone", [Version(9), Code(4), Zone(4)], OLDER, Expires),
    (
        "unauthoritative",
        [Unauthoritative(5), Code(5), Code(5)],
        "its SOA is not authoritative: is the zone loaded there",
        Expires,
    ),
    ("without-soa", [Nothing, Code(5), Code(5)], "it has no SOA of the zone: does it serve the zone?", Expires),
    ("no-changes", [Version(9), Version(5), Zone(9)], "no incremental transfer; transferring the whole zone", Lives(9)),
    (
        "no-version",
        [Version(9), Version(5), Zone(5)],
        "the reply has serial 5, as the copy has, though the SOA had",
        Lives(5),
    ),
    ("cut-changes", [Version(9), End, Zone(9)], "no incremental transfer; transferring the whole zone", Lives(9)),
    ("cut-zone", [Version(9), Code(4), End], "the primary closes the connection before the end of its reply", Expires),
    // RFC 5936 §2.2.1: a client ignores the flag.
    ("unflagged", [Version(9), Code(4), UnauthoritativeZone(9)], "zone transferred", Lives(9)),
];

/// Encodes records of the zone in the question, which is the only name before them.
fn record(owner: &[u8], rtype: u16, rdata: &[u8]) -> Vec<u8> {
    let mut record = [owner, b"\xc0\x0c"].concat();
    for number in [rtype, 1, 0, 60, rdata.len() as u16] {
        record.extend_from_slice(&number.to_be_bytes());
    }
    record.extend_from_slice(rdata);
    record
}

fn soa(serial: u32) -> Vec<u8> {
    let mut rdata = b"\x02ns\xc0\x0c\0".to_vec();
    rdata.extend([serial, 2, 2, 6, 60].iter().flat_map(|number| number.to_be_bytes()));
    record(b"", SOA, &rdata)
}

fn zone(serial: u32) -> Vec<Vec<u8>> {
    vec![soa(serial), record(b"", 2, b"\x02ns\xc0\x0c"), record(b"\x02ns", 1, &[192, 0, 2, 1]), soa(serial)]
}

fn octets(asked: &Asked, reply: Reply) -> Vec<u8> {
    let (flags, code, records) = match reply {
        Code(code) => (RESPONSE, code, vec![]),
        Nothing | End => (AUTHORITATIVE, 0, vec![]),
        Version(serial) => (AUTHORITATIVE, 0, vec![soa(serial)]),
        Unauthoritative(serial) => (RESPONSE, 0, vec![soa(serial)]),
        Zone(serial) => (AUTHORITATIVE, 0, zone(serial)),
        UnauthoritativeZone(serial) => (RESPONSE, 0, zone(serial)),
    };
    let question = asked.octets[12..].iter().position(|octet| *octet == 0).unwrap() + 12 + 5;
    let mut message = asked.octets[..2].to_vec();
    message.extend_from_slice(&[flags, code, 0, 1, 0, records.len() as u8, 0, 0, 0, 0]);
    message.extend_from_slice(&asked.octets[12..question]);
    message.extend(records.concat());
    message
}

/// Starts a primary of all zones, which is honest until the flag is set.
fn primary(turned: Arc<AtomicBool>) -> Upstream {
    Upstream::start(move |asked| {
        let name = asked.name();
        let (_, replies, ..) = CASES.iter().find(|(zone, ..)| name == format!("{zone}.test.")).unwrap();
        let honest = [Version(FIRST), Zone(FIRST), Zone(FIRST)];
        let replies = if turned.load(Ordering::SeqCst) { replies } else { &honest };
        let at = match asked.qtype().into() {
            SOA => 0,
            IXFR => 1,
            _ => 2,
        };
        // Without a reply, the upstream closes the connection.
        if let End = replies[at] { vec![] } else { vec![octets(asked, replies[at])] }
    })
}

/// Starts an agent that copies all zones from this primary, or from one that does not respond.
fn agent(primary: SocketAddr, absent: SocketAddr) -> Agent {
    let zones: Vec<String> = CASES
        .iter()
        .map(|(zone, ..)| format!("{{zone: {zone}.test, primaries: [\"{primary}\", \"{absent}\"]}}"))
        .collect();
    Agent::start_with(&format!("dns: {{listen: [127.0.0.1:0], secondary: [{}]}}\n", zones.join(", ")), &[], |_| {})
}

/// Returns the serial that the agent answers; `None` without a copy.
fn serial(agent: &Agent, zone: &str) -> Option<u32> {
    let answer = agent.ask(&format!("{zone}.test."), SOA);
    match &answer.answers.first()?.data {
        RData::SOA(soa) if answer.metadata.response_code == ResponseCode::NoError => Some(soa.serial),
        _ => None,
    }
}

#[test]
fn copy_lives_only_while_a_primary_has_its_version() {
    let turned = Arc::new(AtomicBool::new(false));
    let (primary, absent) = (primary(turned.clone()), free());
    let agent = agent(primary.address(), absent);
    for (zone, ..) in CASES {
        wait::until_equal("the first copy", &Some(FIRST), || serial(&agent, zone));
    }
    turned.store(true, Ordering::SeqCst);
    let has_line = |zone: &str, text: &str| {
        let zone = format!("{zone}.test.");
        agent.log().lines().any(|line| line.contains(&zone) && line.contains(text))
    };
    for (zone, _, line, end) in CASES {
        wait::until(&format!("{zone}: {line}"), || has_line(zone, line));
        match end {
            Expires => {
                wait::until(&format!("the end of {zone}"), || has_line(zone, "has expired: no primary confirms it"));
            }
            Lives(expected) => wait::until_equal(zone, &Some(expected), || serial(&agent, zone)),
        }
    }
    // The reason of each primary is shown.
    let shown = http::get(&agent, "muster/zones").json();
    let zone = shown.as_array().unwrap().iter().find(|zone| zone["Zone"] == "unauthoritative.test.").unwrap();
    let problem = zone["Copy"]["Problem"].as_str().unwrap();
    let first = format!("{}: its SOA is not authoritative", primary.address());
    assert!(problem.starts_with(&first) && problem.contains(&format!("; {absent}: ")), "{problem}");
    // All copies have the same times: those that expire have expired by now.
    for (zone, _, _, end) in CASES {
        if let Lives(expected) = end {
            assert_eq!(serial(&agent, zone), Some(expected), "{zone}");
            assert!(!has_line(zone, "expired"), "{zone}: {}", agent.log());
        }
    }
}

/// Longer than any wait of the test.
const NEVER: Duration = Duration::from_secs(300);

#[test]
fn slow_primary_does_not_delay_the_zones_of_others() {
    let honest = |asked: &Asked| if u16::from(asked.qtype()) == SOA { Version(1) } else { Zone(1) };
    let slow = Upstream::start(move |asked| {
        if u16::from(asked.qtype()) == AXFR {
            thread::sleep(NEVER);
        }
        vec![octets(asked, honest(asked))]
    });
    let other = Upstream::start_at("127.0.0.2", move |asked| vec![octets(asked, honest(asked))]);
    other.set_silent(true);
    let mut zones: Vec<String> =
        (0..20).map(|at| format!("{{zone: z{at}.test, primaries: [\"{}\"]}}", slow.address())).collect();
    zones.push(format!("{{zone: other.test, primaries: [\"{}\"]}}", other.address()));
    let config = format!("dns: {{listen: [127.0.0.1:0], secondary: [{}]}}\n", zones.join(", "));
    let agent = Agent::start_with(&config, &[], |_| {});
    let transfers = || slow.asked().iter().filter(|asked| u16::from(asked.qtype()) == AXFR).count();
    wait::until("slow transfers", || transfers() >= 2);
    // Time for more of them.
    thread::sleep(Duration::from_secs(1));
    other.set_silent(false);
    let took = wait::until("the zone of the other primary", || serial(&agent, "other") == Some(1));
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert_eq!(transfers(), 2);
}
