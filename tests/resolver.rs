//! Resolution of other names by the built binary, with scripted upstreams.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{CNAME, MX, opt::EdnsOption},
    },
    serialize::binary::BinEncodable,
};
use support::{
    Ask,
    agent::Agent,
    decode, extended_error,
    program::free,
    show_data,
    upstream::{Asked, Upstream, octets},
    wait::{self, DEADLINE, until},
};

const A: u16 = 1;
const ADDRESS: [u8; 4] = [192, 0, 2, 1];

fn agent_of(upstreams: &[&Upstream]) -> Agent {
    agent_with(upstreams, "")
}

fn agent_with(upstreams: &[&Upstream], more: &str) -> Agent {
    let addresses: Vec<String> = upstreams.iter().map(|upstream| format!("\"{}\"", upstream.address())).collect();
    Agent::start_with(&format!("resolver: {{upstreams: [{}]{more}}}\n", addresses.join(", ")), &[], |_| {})
}

fn addresses(message: &Message) -> Vec<String> {
    message.answers.iter().map(|record| show_data(&record.data)).collect()
}

/// Sends octets and returns the reply.
fn exchange(server: SocketAddr, query: &[u8]) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.send(query).unwrap();
    let mut reply = [0; 65_535];
    let len = socket.recv(&mut reply).unwrap();
    decode(&reply[..len])
}

#[test]
fn upstream_reply_reaches_the_client() {
    let upstream = Upstream::start(|asked| vec![octets(&asked.address(ADDRESS, 300))]);
    let agent = agent_of(&[&upstream]);
    for reply in [agent.ask("www.Example.", A), agent.ask_tcp("www.Example.", A)] {
        assert_eq!(addresses(&reply), ["192.0.2.1"]);
        assert_eq!(reply.queries[0].name().to_string(), "www.Example.", "the client's letter case");
        assert!(reply.metadata.recursion_available && !reply.metadata.authoritative);
    }
    assert_eq!(upstream.asked().len(), 1, "the second reply comes from the cache");
    assert!(agent.ask("_nothing.service.local.", A).metadata.recursion_available, "RA is set for local names too");
}

/// RFC 5452 §9.1 and 0x20: ports, ids and letter case are random.
#[test]
fn upstream_queries_are_unpredictable() {
    let upstream = Upstream::start(|asked| vec![octets(&asked.address(ADDRESS, 0))]);
    let agent = agent_of(&[&upstream]);
    for _ in 0..8 {
        agent.ask("a-name-with-many-letters.example.", A);
    }
    let asked = upstream.asked();
    let distinct = |of: fn(&Asked) -> String| {
        let mut seen: Vec<String> = asked.iter().map(of).collect();
        seen.sort();
        seen.dedup();
        seen.len()
    };
    assert_eq!(asked.len(), 8, "a TTL of 0 is not cached");
    assert_eq!(distinct(|asked| asked.message.metadata.id.to_string()), 8);
    assert_eq!(distinct(Asked::name), 8);
}

/// DO, CD, unknown types and unknown options reach the upstream; AD, EDE and options are returned.
#[test]
fn unknown_types_and_options_pass_through() {
    let upstream = Upstream::start(|asked| {
        let mut reply = asked.reply(ResponseCode::NoError);
        let owner = asked.message.queries[0].name().clone();
        let unknown =
            RData::Unknown { code: asked.qtype(), rdata: hickory_proto::rr::rdata::NULL::with(vec![1, 2, 3]) };
        reply.add_answer(Record::from_rdata(owner, 60, unknown));
        reply.metadata.authentic_data = true;
        let options = reply.edns.as_mut().unwrap().options_mut();
        options.insert(EdnsOption::Unknown(15, b"\0\x04forged".to_vec()));
        options.insert(EdnsOption::Unknown(65_001, b"back".to_vec()));
        vec![octets(&reply)]
    });
    let agent = agent_of(&[&upstream]);
    for dnssec_ok in [false, true] {
        for checking_disabled in [false, true] {
            let mut query =
                decode(&Ask { name: "x.example.".to_owned(), qtype: 65_400, edns: Some(1232), dnssec_ok }.packet(9));
            query.metadata.checking_disabled = checking_disabled;
            let options = query.edns.as_mut().unwrap().options_mut();
            options.insert(EdnsOption::Unknown(65_002, b"there".to_vec()));
            // Hop-by-hop options are not forwarded.
            options.insert(EdnsOption::Unknown(12, vec![0; 30]));
            options.insert(EdnsOption::Unknown(10, vec![7; 8]));
            let reply = exchange(agent.address(), &octets(&query));
            let seen = upstream.asked().pop().unwrap().message;
            let edns = seen.edns.as_ref().unwrap();
            assert_eq!(edns.flags().dnssec_ok, dnssec_ok);
            assert_eq!(seen.metadata.checking_disabled, checking_disabled);
            assert_eq!(seen.queries[0].query_type(), RecordType::Unknown(65_400));
            let codes: Vec<u16> = edns.options().as_ref().iter().map(|(code, _)| (*code).into()).collect();
            assert_eq!(codes, [65_002]);
            assert_eq!(reply.metadata.authentic_data, dnssec_ok, "AD only on request (RFC 6840 §5.8)");
            assert_eq!(reply.metadata.checking_disabled, checking_disabled);
            assert_eq!(extended_error(&reply), Some((4, "forged".to_owned())));
            let options = reply.edns.as_ref().unwrap().options();
            assert!(options.as_ref().iter().any(|(code, _)| u16::from(*code) == 65_001));
            assert_eq!(reply.answers[0].record_type(), RecordType::Unknown(65_400));
        }
    }
    assert_eq!(upstream.asked().len(), 4, "replies to queries with unknown options are not cached");
}

#[test]
fn upstream_rcode_reaches_the_client() {
    for code in [ResponseCode::NXDomain, ResponseCode::ServFail, ResponseCode::Refused, ResponseCode::NotImp] {
        let upstream = Upstream::start(move |asked| vec![octets(&asked.reply(code))]);
        let agent = agent_of(&[&upstream]);
        assert_eq!(agent.ask("www.example.", A).metadata.response_code, code);
    }
}

/// RFC 5452 §9: replies whose question differs, letter case included, are ignored.
#[test]
fn forged_replies_are_ignored() {
    let upstream = Upstream::start(|asked| {
        let forged = asked.address([203, 0, 113, 9], 300);
        let mut other_id = forged.clone();
        other_id.metadata.id = forged.metadata.id.wrapping_add(1);
        let mut other_name = octets(&forged);
        other_name[13] = b'q';
        let mut other_case = octets(&forged);
        let letter = (13..).find(|at| other_case[*at].is_ascii_alphabetic()).unwrap();
        other_case[letter] ^= 0x20;
        let mut other_type = octets(&forged);
        let end = 12 + asked.message.queries[0].name().to_bytes().unwrap().len();
        other_type[end + 1] = 28;
        let mut no_response = octets(&forged);
        no_response[2] &= 0x7f;
        let good = octets(&asked.address(ADDRESS, 300));
        vec![vec![], vec![0; 5], octets(&other_id), other_name, other_case, other_type, no_response, good]
    });
    let agent = agent_of(&[&upstream]);
    assert_eq!(addresses(&agent.ask("www.example.", A)), ["192.0.2.1"]);
}

#[test]
fn truncated_replies_are_retried_over_tcp() {
    let upstream = Upstream::start(|asked| {
        if !asked.tcp {
            let mut cut = asked.reply(ResponseCode::NoError);
            cut.metadata.truncation = true;
            return vec![octets(&cut)];
        }
        let mut reply = asked.reply(ResponseCode::NoError);
        let owner = asked.message.queries[0].name().clone();
        for host in 0..200 {
            reply.add_answer(Record::from_rdata(owner.clone(), 60, RData::A(Ipv4Addr::new(192, 0, 2, host).into())));
        }
        vec![octets(&reply)]
    });
    let agent = agent_of(&[&upstream]);
    let cut = agent.ask("many.example.", A);
    assert!(cut.metadata.truncation && cut.answers.is_empty() && cut.edns.is_some(), "the reply exceeds 1,232 octets");
    assert_eq!(agent.ask_tcp("many.example.", A).answers.len(), 200);
}

#[test]
fn dead_or_slow_upstream_hardly_delays_queries() {
    let dead = Upstream::start(|_| vec![]);
    let well = Upstream::start(|asked| vec![octets(&asked.address(ADDRESS, 0))]);
    let mut agent = agent_of(&[&dead, &well]);
    for at in 0..20 {
        assert_eq!(addresses(&agent.ask(&format!("n{at}.example."), A)), ["192.0.2.1"]);
    }
    agent.wait_for_log("upstream does not respond; preferring others");
    // The dead upstream is retried in parallel at intervals.
    let before = dead.asked().len();
    for at in 0..100 {
        agent.ask(&format!("m{at}.example."), A);
    }
    let again = dead.asked().len() - before;
    assert!(again <= 10, "the dead upstream got {again} of 100 queries");
    assert_eq!(well.asked().len(), 120);
}

#[test]
fn refused_and_servfail_try_the_next_upstream() {
    let refuses = Upstream::start(|asked| vec![octets(&asked.reply(ResponseCode::Refused))]);
    let fails = Upstream::start(|asked| vec![octets(&asked.reply(ResponseCode::ServFail))]);
    let nonsense = Upstream::start(|asked| {
        let mut octets = octets(&asked.address(ADDRESS, 60));
        octets.truncate(octets.len() - 20);
        vec![octets]
    });
    let well = Upstream::start(|asked| vec![octets(&asked.address(ADDRESS, 60))]);
    let agent = agent_of(&[&refuses, &fails, &nonsense, &well]);
    assert_eq!(addresses(&agent.ask("www.example.", A)), ["192.0.2.1"]);
}

/// RFC 6891 §7: some servers lack EDNS.
#[test]
fn upstream_without_edns_is_queried_without() {
    let upstream = Upstream::start(|asked| {
        if asked.message.edns.is_some() {
            let mut reply = asked.reply(ResponseCode::FormErr);
            reply.edns = None;
            return vec![octets(&reply)];
        }
        vec![octets(&asked.address(ADDRESS, 0))]
    });
    let agent = agent_of(&[&upstream]);
    for _ in 0..3 {
        assert_eq!(addresses(&agent.ask("www.example.", A)), ["192.0.2.1"]);
    }
    let with: Vec<bool> = upstream.asked().iter().map(|asked| asked.message.edns.is_some()).collect();
    assert_eq!(with, [true, false, false, false], "the result is remembered");
}

/// Some servers answer so to any query with EDNS, or to all queries of a client that they do not serve.
#[test]
fn error_without_a_question_counts_at_once() {
    let header = |asked: &Asked, code: u8| {
        let id = asked.message.metadata.id.to_be_bytes();
        vec![vec![id[0], id[1], 0x81, 0x80 | code, 0, 0, 0, 0, 0, 0, 0, 0]]
    };
    for code in [1, 2, 4, 5] {
        let broken = Upstream::start(move |asked| header(asked, code));
        let well = Upstream::start(|asked| vec![octets(&asked.address(ADDRESS, 0))]);
        let both = agent_of(&[&broken, &well]);
        let begin = Instant::now();
        assert_eq!(addresses(&both.ask("www.example.", A)), ["192.0.2.1"], "code {code}");
        // The loop probe at the start asks the upstream, too.
        assert!(begin.elapsed() < Duration::from_secs(1), "code {code}: {:?}", begin.elapsed());
        let alone = agent_of(&[&broken]);
        let begin = Instant::now();
        let reply = alone.ask("www.example.", A);
        assert_eq!(u16::from(reply.metadata.response_code), u16::from(code));
        assert!(begin.elapsed() < Duration::from_secs(1), "code {code} of the only upstream: {:?}", begin.elapsed());
    }
    let without_edns = Upstream::start(move |asked| match asked.message.edns {
        Some(_) => header(asked, 2),
        None => vec![octets(&asked.address(ADDRESS, 0))],
    });
    let agent = agent_of(&[&without_edns]);
    for _ in 0..3 {
        assert_eq!(addresses(&agent.ask("www.example.", A)), ["192.0.2.1"]);
    }
    let with: Vec<bool> = without_edns.asked().iter().map(|asked| asked.message.edns.is_some()).collect();
    assert_eq!(with, [true, false, false, false], "the result is remembered");
}

#[test]
fn concurrent_equal_queries_are_sent_once() {
    let go = Arc::new(AtomicBool::new(false));
    let may_answer = go.clone();
    let upstream = Upstream::start(move |asked| {
        until("the upstream is released", || may_answer.load(Ordering::SeqCst));
        vec![octets(&asked.address(ADDRESS, 60))]
    });
    let agent = agent_of(&[&upstream]);
    let server = agent.address();
    let clients: Vec<_> = (0..50)
        .map(|id| {
            let query =
                Ask { name: "www.example.".to_owned(), qtype: A, edns: Some(1232), dnssec_ok: false }.packet(id);
            thread::spawn(move || exchange(server, &query))
        })
        .collect();
    until("the upstream is queried", || !upstream.asked().is_empty());
    go.store(true, Ordering::SeqCst);
    for (id, client) in clients.into_iter().enumerate() {
        let reply = client.join().unwrap();
        assert_eq!((usize::from(reply.metadata.id), addresses(&reply)), (id, vec!["192.0.2.1".to_owned()]));
    }
    let mut ids: Vec<u16> = upstream.asked().iter().map(|asked| asked.message.metadata.id).collect();
    ids.dedup();
    assert!(ids.len() <= 3, "one query and its retransmissions: {ids:?}");
}

/// RFC 2308 §5: negative replies are cached for the time in their SOA, and not without one.
#[test]
fn negative_replies_are_cached_by_their_soa() {
    let upstream = Upstream::start(|asked| {
        let name = asked.name().to_lowercase();
        vec![octets(&match &name[..] {
            "no-name.example." => asked.nothing(ResponseCode::NXDomain, 60),
            "no-data.example." => asked.nothing(ResponseCode::NoError, 60),
            "zero.example." => asked.nothing(ResponseCode::NXDomain, 0),
            _ => asked.reply(ResponseCode::NXDomain),
        })]
    });
    let agent = agent_of(&[&upstream]);
    for (name, times) in [("no-name", 1), ("no-data", 1), ("zero", 3), ("no-soa", 3)] {
        let before = upstream.asked().len();
        for _ in 0..3 {
            agent.ask(&format!("{name}.example."), A);
        }
        assert_eq!(upstream.asked().len() - before, times, "{name}");
    }
}

#[test]
fn cached_ttls_count_down() {
    let upstream = Upstream::start(|asked| vec![octets(&asked.address(ADDRESS, 60))]);
    let agent = agent_of(&[&upstream]);
    let mut last = 60;
    until("the TTL has counted down three seconds", || {
        let ttl = agent.ask("www.example.", A).answers[0].ttl;
        assert!(ttl <= last, "{ttl} after {last}");
        last = ttl;
        last <= 57
    });
    assert_eq!(upstream.asked().len(), 1);
}

/// RFC 8767: a stale reply is served, marked with EDE.
#[test]
fn stale_reply_is_served_if_no_upstream_responds() {
    let upstream = Upstream::start(|asked| vec![octets(&asked.address(ADDRESS, 1))]);
    let agent = agent_of(&[&upstream]);
    assert_eq!(extended_error(&agent.ask("www.example.", A)), None);
    upstream.set_silent(true);
    let query = Ask { name: "www.example.".to_owned(), qtype: A, edns: Some(1232), dnssec_ok: false }.packet(3);
    let stale = wait::poll(|| {
        let reply = exchange(agent.address(), &query);
        assert_eq!(addresses(&reply), ["192.0.2.1"]);
        if extended_error(&reply).is_some() { Ok(reply) } else { Err("the reply is not marked as stale") }
    });
    assert_eq!(extended_error(&stale).unwrap().0, 3);
    assert!(stale.answers[0].ttl <= 30, "RFC 8767 §4");
    upstream.set_silent(false);
    until("a fresh reply is served again", || extended_error(&exchange(agent.address(), &query)).is_none());
}

#[test]
fn ede_names_the_failed_upstream() {
    let closed = free();
    let agent = Agent::start_with(&format!("resolver: {{upstreams: [\"{closed}\"]}}\n"), &[], |_| {});
    let reply = agent.ask("www.example.", A);
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    let (code, text) = extended_error(&reply).unwrap();
    assert_eq!(code, 22);
    assert!(text.starts_with(&format!("{closed}: connection refused")), "{text}");
}

/// RFC 5358: muster is no open resolver.
#[test]
fn recursion_is_refused_to_unlisted_clients() {
    let upstream = Upstream::start(|asked| vec![octets(&asked.address(ADDRESS, 60))]);
    let agent = agent_with(&[&upstream], ", allow: [192.0.2.0/24]");
    let reply = agent.ask("www.example.", A);
    assert_eq!(reply.metadata.response_code, ResponseCode::Refused);
    assert!(!reply.metadata.recursion_available);
    assert_eq!(extended_error(&reply).unwrap().0, 18);
    assert!(upstream.asked().is_empty());
}

/// Queries without RD must not reveal the cache.
#[test]
fn query_without_rd_is_neither_forwarded_nor_answered_from_the_cache() {
    let upstream = Upstream::start(|asked| vec![octets(&asked.address(ADDRESS, 60))]);
    let agent = agent_of(&[&upstream]);
    agent.ask("www.example.", A);
    let mut query = decode(&Ask { name: "www.example.".to_owned(), qtype: A, edns: None, dnssec_ok: false }.packet(3));
    query.metadata.recursion_desired = false;
    let reply = exchange(agent.address(), &octets(&query));
    assert_eq!(reply.metadata.response_code, ResponseCode::Refused);
}

#[test]
fn routes_use_their_own_upstreams() {
    let answering = |last| Upstream::start(move |asked| vec![octets(&asked.address([192, 0, 2, last], 60))]);
    let (world, corp, lab) = (answering(1), answering(2), answering(3));
    let routes =
        format!(", routes: {{corp.example: [\"{}\"], lab.corp.example: [\"{}\"]}}", corp.address(), lab.address());
    let agent = agent_with(&[&world], &routes);
    for (name, expected) in [
        ("example.", "192.0.2.1"),
        ("notcorp.example.", "192.0.2.1"),
        ("corp.example.", "192.0.2.2"),
        ("Wiki.CORP.example.", "192.0.2.2"),
        ("lab.corp.example.", "192.0.2.3"),
        ("a.b.lab.corp.example.", "192.0.2.3"),
    ] {
        assert_eq!(addresses(&agent.ask(name, A)), [expected], "{name}");
    }
}

/// Replies cached with DO or CD serve only queries with the same bits.
#[test]
fn do_and_cd_are_part_of_the_cache_key() {
    let upstream = Upstream::start(|asked| vec![octets(&asked.address(ADDRESS, 60))]);
    let agent = agent_of(&[&upstream]);
    let ask = |dnssec_ok, checking_disabled| {
        let name = "www.example.".to_owned();
        let mut query = decode(&Ask { name, qtype: A, edns: Some(1232), dnssec_ok }.packet(3));
        query.metadata.checking_disabled = checking_disabled;
        exchange(agent.address(), &octets(&query));
        upstream.asked().len()
    };
    assert_eq!([ask(false, false), ask(true, false), ask(false, true), ask(true, true)], [1, 2, 3, 4]);
    assert_eq!([ask(false, false), ask(true, false), ask(false, true), ask(true, true)], [4; 4]);
}

/// Zone file with a CNAME chain that leaves the zone.
const LEADS_AWAY: &str = "\
@ 60 SOA ns hostmaster 1 60 60 60 60
@ NS ns
ns A 192.0.2.53
www 300 CNAME edge.cdn.example.
old 300 CNAME gone.cdn.example.
bad 300 CNAME broken.cdn.example.
here 300 CNAME ns
";

fn agent_with_zone(upstream: &Upstream, more: &str) -> Agent {
    let config = format!("resolver: {{upstreams: [\"{}\"]{more}}}\n", upstream.address());
    Agent::start_with(&config, &[], |folder| {
        std::fs::write(folder.join("zones/corp.example.zone"), LEADS_AWAY).unwrap();
    })
}

fn cdn() -> Upstream {
    Upstream::start(|asked| {
        let owner = asked.message.queries[0].name().clone();
        let name = owner.to_string().to_lowercase();
        vec![octets(&match name.as_str() {
            "edge.cdn.example." => {
                let mut reply = asked.reply(ResponseCode::NoError);
                let node: Name = "node.edge.cdn.example.".parse().unwrap();
                reply.add_answer(Record::from_rdata(owner, 60, RData::CNAME(CNAME(node.clone()))));
                if asked.qtype() == RecordType::MX {
                    let exchange = MX::new(10, "mail.edge.cdn.example.".parse().unwrap());
                    reply.add_answer(Record::from_rdata(node, 30, RData::MX(exchange)));
                } else {
                    reply.add_answer(Record::from_rdata(node, 30, RData::A(Ipv4Addr::from(ADDRESS).into())));
                }
                reply
            }
            "gone.cdn.example." => asked.nothing(ResponseCode::NXDomain, 60),
            _ => asked.reply(ResponseCode::ServFail),
        })]
    })
}

/// RFC 1034 §4.3.2, step 3a: a CNAME whose target is outside the served zones is followed.
#[test]
fn cname_chains_out_of_served_zones_are_followed() {
    let upstream = cdn();
    let agent = agent_with_zone(&upstream, "");
    let show = |message: &Message| -> Vec<String> {
        let record = |record: &Record| format!("{} {} {}", record.name, record.ttl, show_data(&record.data));
        message.answers.iter().map(record).collect()
    };
    let expected = [
        "www.corp.example. 300 edge.cdn.example.",
        "edge.cdn.example. 60 node.edge.cdn.example.",
        "node.edge.cdn.example. 30 192.0.2.1",
    ];
    let first = agent.ask("www.corp.example.", A);
    assert_eq!(show(&first), expected);
    assert!(first.metadata.authoritative, "AA concerns the first owner name (RFC 1034 §6.2.7)");
    assert_eq!(show(&agent.ask_tcp("www.corp.example.", A)).len(), 3, "from the cache");
    assert_eq!(upstream.asked().len(), 1);
    let mx = agent.ask("www.corp.example.", 15);
    assert_eq!(show(&mx)[2], "node.edge.cdn.example. 30 10 mail.edge.cdn.example.", "names in RDATA are complete");

    let gone = agent.ask("old.corp.example.", A);
    assert_eq!(gone.metadata.response_code, ResponseCode::NXDomain, "RFC 6604 §2: the code of the last name");
    assert_eq!(show(&gone), ["old.corp.example. 300 gone.cdn.example."]);
    assert_eq!(gone.authorities.len(), 1, "the SOA permits caching");
    let broken = agent.ask("bad.corp.example.", A);
    assert_eq!((broken.metadata.response_code, broken.answers.len()), (ResponseCode::ServFail, 0));

    let before = upstream.asked().len();
    assert_eq!(agent.ask("here.corp.example.", A).answers.len(), 2);
    assert_eq!(upstream.asked().len(), before, "chains within served zones query no upstream");
}

/// Clients without recursion get the chain within the served zones.
#[test]
fn cname_chains_are_followed_for_permitted_clients_only() {
    let upstream = cdn();
    let agent = agent_with_zone(&upstream, ", allow: [203.0.113.0/24]");
    let reply = agent.ask("www.corp.example.", A);
    assert_eq!((reply.metadata.response_code, reply.answers.len()), (ResponseCode::NoError, 1));
    assert!(upstream.asked().is_empty());
}

/// RFC 6761, 6303, 7793, 8375: special-use names are answered locally, unless there is a route.
#[test]
fn special_use_names_are_not_forwarded() {
    let upstream = Upstream::start(|asked| vec![octets(&asked.address(ADDRESS, 60))]);
    let own = Upstream::start(|asked| vec![octets(&asked.address([10, 0, 0, 99], 60))]);
    let agent = agent_with(&[&upstream], &format!(", routes: {{2.10.in-addr.arpa: \"{}\"}}", own.address()));
    const AAAA: u16 = 28;
    const PTR: u16 = 12;
    let cases: &[(&str, u16, ResponseCode, &[&str])] = &[
        ("localhost.", A, ResponseCode::NoError, &["127.0.0.1"]),
        ("a.localhost.", AAAA, ResponseCode::NoError, &["::1"]),
        ("localhost.", PTR, ResponseCode::NoError, &[]),
        ("x.invalid.", A, ResponseCode::NXDomain, &[]),
        ("x.test.", A, ResponseCode::NXDomain, &[]),
        ("x.onion.", A, ResponseCode::NXDomain, &[]),
        ("x.home.arpa.", A, ResponseCode::NXDomain, &[]),
        ("1.0.0.127.in-addr.arpa.", PTR, ResponseCode::NoError, &["localhost."]),
        ("4.3.1.10.in-addr.arpa.", PTR, ResponseCode::NXDomain, &[]),
        ("10.in-addr.arpa.", PTR, ResponseCode::NoError, &[]),
        ("1.1.168.192.in-addr.arpa.", PTR, ResponseCode::NXDomain, &[]),
        ("4.3.2.10.in-addr.arpa.", A, ResponseCode::NoError, &["10.0.0.99"]),
    ];
    for (name, qtype, code, expected) in cases {
        let reply = agent.ask(name, *qtype);
        assert_eq!(reply.metadata.response_code, *code, "{name}");
        assert_eq!(addresses(&reply), *expected, "{name}");
        if reply.answers.is_empty() {
            assert_eq!(reply.authorities.len(), 1, "{name}: SOA of the negative reply");
        }
    }
    let leaked: Vec<String> = upstream.asked().iter().map(Asked::name).collect();
    assert!(leaked.is_empty(), "{leaked:?}");
}

#[test]
fn cached_ttls_are_bounded() {
    let upstream = Upstream::start(|asked| {
        let is_there = asked.name().to_lowercase().starts_with("there");
        vec![octets(&if is_there { asked.address(ADDRESS, 3600) } else { asked.nothing(ResponseCode::NXDomain, 3600) })]
    });
    let agent = agent_with(&[&upstream], ", cache: {max_ttl: 100s, max_negative_ttl: 10s}");
    assert!(agent.ask("there.example.", A).answers[0].ttl <= 100);
    assert!(agent.ask("nothing.example.", A).authorities[0].ttl <= 10);
}

/// With an upstream that forwards to this server, queries would loop until they time out.
#[test]
fn looping_upstream_is_disabled() {
    let target = Arc::new(Mutex::new(None::<SocketAddr>));
    let back = target.clone();
    let looped = Upstream::start(move |asked| {
        // The agent sends its probe at the start, before the test knows its address.
        let agent = wait::poll(|| back.lock().unwrap().ok_or("the address of the agent is not known"));
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        socket.send_to(&asked.octets, agent).unwrap();
        let mut reply = [0; 4096];
        socket.recv(&mut reply).map(|len| reply[..len].to_vec()).into_iter().collect()
    });
    let well = Upstream::start(|asked| vec![octets(&asked.address(ADDRESS, 0))]);
    let config = format!("resolver: {{upstreams: [\"{}\", \"{}\"]}}\n", looped.address(), well.address());
    let mut agent = Agent::start_with(&config, &[], |_| {});
    *target.lock().unwrap() = Some(agent.address());
    agent.wait_for_log("forwarding loop detected; upstream disabled");
    let before = looped.asked().len();
    for at in 0..10 {
        assert_eq!(addresses(&agent.ask(&format!("n{at}.example."), A)), ["192.0.2.1"]);
    }
    assert_eq!(looped.asked().len(), before);
}

/// Some routers change the letter case of names. After the first reply they are queried without random case.
#[test]
fn upstream_that_changes_letter_case_is_queried_in_lower_case() {
    let upstream = Upstream::start(|asked| {
        let mut reply = octets(&asked.address(ADDRESS, 0));
        let end = 12 + asked.message.queries[0].name().to_bytes().unwrap().len();
        reply[12..end].make_ascii_lowercase();
        vec![reply]
    });
    let agent = agent_of(&[&upstream]);
    for _ in 0..4 {
        assert_eq!(addresses(&agent.ask("a-name-with-many-letters.example.", A)), ["192.0.2.1"]);
    }
    let asked: Vec<bool> = upstream.asked().iter().map(|asked| asked.name() == asked.name().to_lowercase()).collect();
    assert_eq!(asked.iter().rev().take(3).collect::<Vec<_>>(), [&true; 3], "the result is remembered");
    assert!(!asked[0], "the first query has random letter case");
}
