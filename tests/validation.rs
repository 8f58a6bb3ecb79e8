//! Validation of what upstreams reply, against zones that BIND's tools sign, with delv as judge.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

#[path = "validation/signed_tree.rs"]
mod signed_tree;

use std::{
    collections::HashSet,
    fs,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use hickory_proto::{
    dnssec::rdata::DNSSECRData,
    op::{Edns, Message, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType},
};
use nix::sys::signal::Signal;
use signed_tree::{SignedTree, forward};
use support::{
    agent::Agent,
    decode, extended_error, http,
    process::{self, Finish},
    skip,
    upstream::{Asked, Upstream, octets},
    wait,
};

/// Flags of a question.
#[derive(Clone, Copy, Debug, Default)]
struct Flags {
    /// AD: the client asks whether the answer is authentic.
    authentic: bool,
    /// DO: the client takes signatures.
    dnssec_ok: bool,
    /// CD: the client validates itself.
    checking_disabled: bool,
}

const AD: Flags = Flags { authentic: true, dnssec_ok: false, checking_disabled: false };
const DO: Flags = Flags { authentic: false, dnssec_ok: true, checking_disabled: false };
const CD: Flags = Flags { authentic: false, dnssec_ok: true, checking_disabled: true };
const NONE: Flags = Flags { authentic: false, dnssec_ok: false, checking_disabled: false };

fn ask(agent: &Agent, name: &str, rtype: RecordType, flags: Flags) -> Message {
    let mut query = Message::query();
    query.metadata.recursion_desired = true;
    query.metadata.authentic_data = flags.authentic;
    query.metadata.checking_disabled = flags.checking_disabled;
    query.add_query(Query::query(name.parse::<Name>().unwrap(), rtype));
    let mut edns = Edns::new();
    edns.set_max_payload(4096).set_dnssec_ok(flags.dnssec_ok);
    query.set_edns(edns);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket.send_to(&octets(&query), agent.address()).unwrap();
    let mut reply = [0; 4096];
    let (len, _) = socket.recv_from(&mut reply).unwrap();
    decode(&reply[..len])
}

fn agent(upstream: SocketAddr, tree: &SignedTree, more: &str) -> Agent {
    let config = format!(
        "resolver: {{upstreams: [\"{upstream}\"], dnssec: validate, trust_anchors: {}{more}}}\nlog: {{level: debug}}\n",
        tree.anchor.display()
    );
    Agent::start_with(&config, &[], |folder| {
        fs::write(folder.join("services.d/web.yaml"), "{service: web, address: 10.0.0.8, port: 80}\n").unwrap();
    })
}

/// Starts an upstream that changes the replies of the tree.
fn changing(tree: &SignedTree, change: impl Fn(&Asked, &mut Message) + Send + Sync + 'static) -> Upstream {
    let server = tree.address;
    Upstream::start(move |asked| {
        let mut reply = decode(&forward(server, &asked.octets));
        change(asked, &mut reply);
        vec![octets(&reply)]
    })
}

fn is_signature(record: &Record) -> bool {
    record.record_type() == RecordType::RRSIG
}

fn is_dnssec(record: &Record) -> bool {
    matches!(record.record_type(), RecordType::RRSIG | RecordType::NSEC | RecordType::NSEC3)
}

/// Returns delv's judgement: `secure`, `insecure` or `bogus`.
fn delv(tree: &SignedTree, address: SocketAddr, name: &str, rtype: RecordType) -> &'static str {
    let anchor = fs::read_to_string(&tree.anchor).unwrap();
    let words: Vec<&str> = anchor.split_whitespace().collect();
    let file = tree.folder.path().join("delv-anchor");
    let text = format!(
        "trust-anchors {{ \".\" static-ds {} {} {} \"{}\"; }};\n",
        words[3],
        words[4],
        words[5],
        words[6..].concat()
    );
    fs::write(&file, text).unwrap();
    let output = process::command("delv")
        .args([format!("@{}", address.ip()), "-p".to_owned(), address.port().to_string(), "-a".to_owned()])
        .arg(&file)
        .args(["+root=.", name, &rtype.to_string()])
        .finish();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    // A chain has several lines: its status is the worst.
    if text.contains("; unsigned answer") || text.contains("response, unsigned") {
        "insecure"
    } else if text.contains("fully validated") {
        "secure"
    } else {
        "bogus"
    }
}

#[test]
fn secure_and_insecure_replies_are_answered_and_bogus_ones_are_not() {
    const TEST: &str = "secure_and_insecure_replies_are_answered_and_bogus_ones_are_not";
    if !SignedTree::is_possible(TEST) || !skip::tool(TEST, "delv", "bind9-dnsutils") {
        return;
    }
    let tree = SignedTree::start();
    let server = tree.address;
    // named leaves the end of a chain in another zone to resolvers.
    let upstream = changing(&tree, move |asked, reply| {
        if asked.name().to_lowercase().starts_with("out.") {
            let end = decode(&forward(server, &question("www.insec.", asked.qtype())));
            reply.answers.extend(end.answers);
            reply.authorities = end.authorities;
        }
    });
    let agent = agent(upstream.address(), &tree, "");
    let (a, aaaa, txt) = (RecordType::A, RecordType::AAAA, RecordType::TXT);
    let (good, none) = (ResponseCode::NoError, ResponseCode::NXDomain);
    let deep = |end: &str| format!("{}{end}", "a.".repeat(60));
    let (deep_absent, deep_wild) = (deep("insec."), deep("wild.insec."));
    let answers: &[(&str, RecordType, ResponseCode, &str, usize)] = &[
        ("www.sec.", a, good, "secure", 1),
        ("txt.sec.", txt, good, "secure", 1),
        ("sec.", RecordType::SOA, good, "secure", 1),
        ("sec.", RecordType::DNSKEY, good, "secure", 2),
        ("sec.", RecordType::DS, good, "secure", 1),
        (".", RecordType::NS, good, "secure", 1),
        ("www.sec.", aaaa, good, "secure", 0),
        ("no.sec.", a, none, "secure", 0),
        ("deep.no.sec.", a, none, "secure", 0),
        ("no-such-tld.", a, none, "secure", 0),
        ("b.c.sec.", a, good, "secure", 0),
        ("alias.sec.", a, good, "secure", 2),
        ("alias.sec.", aaaa, good, "secure", 1),
        ("absent.sec.", a, none, "secure", 1),
        ("x.wild.sec.", a, good, "secure", 1),
        ("x.y.wild.sec.", a, good, "secure", 1),
        ("x.wild.sec.", aaaa, good, "secure", 0),
        ("x.moved.sec.", a, good, "secure", 3),
        ("www.three.", a, good, "secure", 1),
        ("www.three.", aaaa, good, "secure", 0),
        ("no.three.", a, none, "secure", 0),
        ("deep.no.three.", a, none, "secure", 0),
        ("alias.three.", aaaa, good, "secure", 1),
        ("absent.three.", a, none, "secure", 1),
        ("x.wild.three.", a, good, "secure", 1),
        ("x.wild.three.", aaaa, good, "secure", 0),
        ("b.c.three.", a, good, "secure", 0),
        ("www.optout.", a, good, "secure", 1),
        ("www.optout.", aaaa, good, "secure", 0),
        ("people.sec.", RecordType::from(17), good, "secure", 1),
        ("afs.sec.", RecordType::from(18), good, "secure", 1),
        ("kx.sec.", RecordType::from(36), good, "secure", 1),
        ("px.sec.", RecordType::from(26), good, "secure", 1),
        ("rt.sec.", RecordType::from(21), good, "secure", 1),
        ("x.moved2.sec.", a, good, "secure", 3),
        ("moved2.sec.", RecordType::DNAME, good, "secure", 1),
        (".", RecordType::DS, good, "insecure", 0),
        ("www.sub.many.", a, good, "insecure", 1),
        ("www.sub.many.", aaaa, good, "insecure", 0),
        ("no.sub.many.", a, none, "insecure", 0),
        ("out.sec.", a, good, "insecure", 2),
        ("no.optout.", a, none, "insecure", 0),
        ("no.many.", a, none, "insecure", 0),
        ("www.insec.", a, good, "insecure", 1),
        ("www.insec.", aaaa, good, "insecure", 0),
        ("no.insec.", a, none, "insecure", 0),
        ("x.wild.insec.", a, good, "insecure", 1),
        ("www.island.", a, good, "insecure", 1),
        ("www.sub.sec.", a, good, "insecure", 1),
        ("www.sub.three.", a, good, "insecure", 1),
        ("www.sub.optout.", a, good, "insecure", 1),
        ("no.sub.optout.", a, none, "insecure", 0),
        (&deep_absent, a, none, "insecure", 0),
        (&deep_wild, a, good, "insecure", 1),
        (&deep_wild, aaaa, good, "insecure", 0),
    ];
    let mut wrong = Vec::new();
    for (name, rtype, code, status, count) in answers {
        for flags in [AD, DO, NONE] {
            let reply = ask(&agent, name, *rtype, flags);
            let data = reply.answers.iter().filter(|record| !is_signature(record)).count();
            let is_asked = flags.authentic || flags.dnssec_ok;
            let expected = (*code, *count, is_asked && *status == "secure");
            let found = (reply.metadata.response_code, data, reply.metadata.authentic_data);
            if found != expected
                || !flags.dnssec_ok && *rtype != RecordType::NSEC && reply.all_sections().any(is_dnssec)
            {
                wrong.push(format!("{name} {rtype} {flags:?}: {found:?}, {:?}", extended_error(&reply)));
            }
            if *status == "secure" && flags.dnssec_ok && !reply.all_sections().any(is_signature) {
                wrong.push(format!("{name} {rtype}: no signatures"));
            }
        }
        // delv permits more iterations, takes no notice of opt-out, and validates the absence of DS records of the root.
        let judged = delv(&tree, upstream.address(), name, *rtype);
        if !["no.optout.", "no.many.", "."].contains(name) && judged != *status {
            wrong.push(format!("{name} {rtype}: delv says {judged}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for (name, rtype, code) in [
        ("www.expired.", a, 7),
        ("no.expired.", a, 7),
        ("www.future.", a, 8),
        ("www.nokey.", a, 9),
        ("no.nokey.", a, 9),
    ] {
        for flags in [AD, NONE] {
            let reply = ask(&agent, name, rtype, flags);
            assert_eq!(reply.metadata.response_code, ResponseCode::ServFail, "{name}");
            assert!(reply.answers.is_empty() && !reply.metadata.authentic_data, "{name}");
            let (found, text) = extended_error(&reply).unwrap();
            assert_eq!(found, code, "{name}: {text}");
            assert_eq!(text.contains("clock"), matches!(code, 7 | 8), "{name}: {text}");
        }
        assert_eq!(delv(&tree, upstream.address(), name, rtype), "bogus", "{name}");
        let reply = ask(&agent, name, rtype, CD);
        assert_ne!(reply.metadata.response_code, ResponseCode::ServFail, "{name}: a client that validates itself");
        assert!(!reply.metadata.authentic_data && reply.metadata.checking_disabled, "{name}");
        // That did not change the answer of others.
        assert_eq!(ask(&agent, name, rtype, NONE).metadata.response_code, ResponseCode::ServFail, "{name}");
    }
    let explained = |name: &str| http::get(&agent, &format!("muster/explain/{name}")).body;
    for (name, expected) in [
        ("www.sec.", "reply is secure"),
        ("www.insec.", "reply is insecure"),
        ("www.expired.", "Extended DNS Error 7"),
        ("unasked.sec.", "query the name"),
    ] {
        assert!(explained(name).contains(expected), "{}", explained(name));
    }
    let metrics = http::ask(agent.http(), "GET", "/metrics", "").body;
    for result in ["secure", "insecure", "bogus"] {
        assert!(
            !metrics.contains(&format!("muster_resolver_validations_total{{result=\"{result}\"}} 0\n")),
            "{metrics}"
        );
    }
}

/// Returns a question with DO and CD.
fn question(name: &str, rtype: RecordType) -> Vec<u8> {
    let mut query = Message::query();
    query.metadata.checking_disabled = true;
    query.add_query(Query::query(name.parse::<Name>().unwrap(), rtype));
    let mut edns = Edns::new();
    edns.set_dnssec_ok(true);
    query.set_edns(edns);
    octets(&query)
}

#[test]
fn changed_replies_are_bogus() {
    const TEST: &str = "changed_replies_are_bogus";
    if !SignedTree::is_possible(TEST) {
        return;
    }
    let tree = SignedTree::start();
    let server = tree.address;
    let upstream = changing(&tree, move |asked, reply| {
        let (name, rtype) = (asked.name().to_lowercase(), asked.qtype());
        let insecure_soa = || decode(&forward(server, &question("no.insec.", RecordType::A))).authorities;
        match (name.as_str(), rtype) {
            ("www.sec.", RecordType::A) => {
                for record in reply.answers.iter_mut().filter(|record| !is_signature(record)) {
                    record.data = RData::A(Ipv4Addr::new(192, 0, 2, 66).into());
                }
            }
            ("txt.sec.", RecordType::TXT) => reply.answers.retain(|record| !is_signature(record)),
            ("no.sec." | "no.three.", RecordType::A) => reply.authorities.retain(|record| {
                let covered = match &record.data {
                    RData::DNSSEC(DNSSECRData::RRSIG(signature)) => signature.input().type_covered,
                    _ => record.record_type(),
                };
                covered == RecordType::SOA
            }),
            // The answer of a wildcard for a name of its own.
            ("x.target.sec." | "www.three.", RecordType::A) => {
                let zone = name.split('.').nth_back(1).unwrap();
                let mut other = decode(&forward(server, &question(&format!("x.wild.{zone}."), RecordType::A)));
                for record in &mut other.answers {
                    record.name = asked.message.queries[0].name().clone();
                }
                (reply.answers, reply.authorities) = (other.answers, other.authorities);
            }
            // Absence, with records of an unsigned zone beside it or instead of it.
            ("a.b.c.sec.", RecordType::A) => {
                reply.answers.clear();
                reply.authorities = insecure_soa();
                reply.metadata.response_code = ResponseCode::NXDomain;
            }
            ("many.", RecordType::DNSKEY) => *reply = asked.reply(ResponseCode::ServFail),
            // The code of the header is not signed.
            ("www.optout.", RecordType::A) => reply.metadata.response_code = ResponseCode::NXDomain,
            // A forged delegation without DS record.
            ("a.b.c.three.", _) => {
                let mut other = decode(&forward(server, &question("www.insec.", rtype)));
                for record in other.answers.iter_mut().chain(&mut other.authorities) {
                    record.name = asked.message.queries[0].name().clone();
                }
                (reply.answers, reply.authorities) = (other.answers, other.authorities);
            }
            _ => {}
        }
    });
    let agent = agent(upstream.address(), &tree, "");
    for (name, rtype, code) in [
        ("www.sec.", RecordType::A, 6),
        ("txt.sec.", RecordType::TXT, 10),
        ("no.sec.", RecordType::A, 12),
        ("no.three.", RecordType::A, 12),
        ("x.target.sec.", RecordType::A, 6),
        ("www.three.", RecordType::A, 6),
        ("a.b.c.sec.", RecordType::A, 12),
        ("www.optout.", RecordType::A, 6),
        ("a.b.c.three.", RecordType::A, 10),
        ("www.many.", RecordType::A, 23),
    ] {
        let reply = ask(&agent, name, rtype, AD);
        assert_eq!(reply.metadata.response_code, ResponseCode::ServFail, "{name}: {reply:?}");
        assert_eq!(extended_error(&reply).map(|(code, _)| code), Some(code), "{name}: {:?}", extended_error(&reply));
    }
    let good = ask(&agent, "www.sec.", RecordType::NS, AD);
    assert!(good.metadata.authentic_data, "{good:?}");
}

#[test]
fn upstreams_without_dnssec_are_named() {
    const TEST: &str = "upstreams_without_dnssec_are_named";
    if !SignedTree::is_possible(TEST) {
        return;
    }
    let tree = SignedTree::start();
    let stripping = changing(&tree, |_, reply| {
        reply.answers.retain(|record| !is_dnssec(record));
        reply.authorities.retain(|record| !is_dnssec(record));
    });
    let without_edns = changing(&tree, |asked, reply| {
        if asked.message.edns.is_some() {
            *reply = asked.reply(ResponseCode::FormErr);
        }
        reply.edns = None;
    });
    for upstream in [stripping, without_edns] {
        let agent = agent(upstream.address(), &tree, "");
        for name in ["www.sec.", "www.insec."] {
            let reply = ask(&agent, name, RecordType::A, NONE);
            assert_eq!(reply.metadata.response_code, ResponseCode::ServFail, "{name}");
            let (code, text) = extended_error(&reply).unwrap();
            assert_eq!(code, 10, "{text}");
            assert!(text.contains("upstreams return no signatures"), "{text}");
        }
        let log = agent.log();
        let warnings =
            log.lines().filter(|line| line.contains("WARN") && line.contains("upstreams return no signatures"));
        assert_eq!(warnings.count(), 1, "{log}");
    }
}

#[test]
fn exceptions_and_routes_without_anchor_are_not_validated() {
    const TEST: &str = "exceptions_and_routes_without_anchor_are_not_validated";
    if !SignedTree::is_possible(TEST) {
        return;
    }
    let tree = SignedTree::start();
    let private = Upstream::start(|asked| vec![octets(&asked.address([192, 0, 2, 7], 60))]);
    let more = format!(", dnssec_insecure: [nokey, lab.sec], routes: {{corp.sec: \"{}\"}}", private.address());
    let agent = agent(tree.address, &tree, &more);
    for (name, count) in [("www.nokey.", 1), ("www.corp.sec.", 1), ("www.lab.sec.", 0), ("lab.sec.", 1)] {
        let reply = ask(&agent, name, RecordType::A, AD);
        assert_ne!(reply.metadata.response_code, ResponseCode::ServFail, "{name}: {:?}", extended_error(&reply));
        assert_eq!((reply.answers.len(), reply.metadata.authentic_data), (count, false), "{name}");
    }
    for (name, expected) in [
        ("www.nokey.", "since nokey. is in resolver.dnssec_insecure"),
        ("www.corp.sec.", "the route corp.sec. has no anchor"),
    ] {
        let explained = http::get(&agent, &format!("muster/explain/{name}")).body;
        assert!(explained.contains(expected), "{explained}");
    }
    // The name of the alias is in a signed zone, the end of its chain in one of ours.
    let reply = ask(&agent, "intern.sec.", RecordType::A, AD);
    assert_eq!(reply.metadata.response_code, ResponseCode::NoError, "{:?}", extended_error(&reply));
    let data: Vec<String> = reply.answers.iter().map(|record| record.data.to_string()).collect();
    assert_eq!(data, ["web.service.local.", "10.0.0.8"]);
    assert!(!reply.metadata.authentic_data);
}

#[test]
fn anchors_of_private_zones_apply_to_their_routes() {
    const TEST: &str = "anchors_of_private_zones_apply_to_their_routes";
    if !SignedTree::is_possible(TEST) {
        return;
    }
    let mut tree = SignedTree::start();
    let island = tree.folder.path().join("island.anchor");
    let anchors = [&tree.anchor, &island].map(|path| fs::read_to_string(path).unwrap()).concat();
    let file = tree.folder.path().join("anchors");
    fs::write(&file, anchors).unwrap();
    tree.anchor = file;
    // The default upstream does not have the zone, and the root proves that it is not signed.
    let public = changing(&tree, |asked, reply| {
        if asked.name().to_lowercase().ends_with("island.") && asked.qtype() != RecordType::DS {
            *reply = asked.reply(ResponseCode::Refused);
        }
    });
    let private = changing(&tree, |asked, reply| {
        if asked.name().to_lowercase().starts_with("txt.") {
            reply.answers.retain(|record| !is_signature(record));
        }
    });
    let agent = agent(public.address(), &tree, &format!(", routes: {{island: \"{}\"}}", private.address()));
    for (name, rtype, code) in
        [("www.island.", RecordType::A, ResponseCode::NoError), ("no.island.", RecordType::A, ResponseCode::NXDomain)]
    {
        let reply = ask(&agent, name, rtype, AD);
        assert_eq!(reply.metadata.response_code, code, "{name}: {:?}", extended_error(&reply));
        assert!(reply.metadata.authentic_data, "{name}");
    }
    let stripped = ask(&agent, "txt.island.", RecordType::TXT, AD);
    assert_eq!(extended_error(&stripped).map(|(code, _)| code), Some(10), "{stripped:?}");
    assert!(ask(&agent, "www.sec.", RecordType::A, AD).metadata.authentic_data);
}

#[test]
fn trust_anchors_are_read_again_on_reload() {
    const TEST: &str = "trust_anchors_are_read_again_on_reload";
    if !SignedTree::is_possible(TEST) {
        return;
    }
    let mut tree = SignedTree::start();
    let right = fs::read_to_string(&tree.anchor).unwrap();
    tree.anchor = tree.folder.path().join("anchors");
    fs::write(&tree.anchor, fs::read_to_string(tree.folder.path().join("sec.anchor")).unwrap().replace("sec.", "."))
        .unwrap();
    let agent = agent(tree.address, &tree, "");
    let reply = ask(&agent, "www.sec.", RecordType::A, AD);
    assert_eq!(extended_error(&reply).map(|(code, _)| code), Some(9), "{reply:?}");
    fs::write(&tree.anchor, right).unwrap();
    agent.signal(Signal::SIGHUP);
    wait::until("a secure reply", || ask(&agent, "txt.sec.", RecordType::TXT, AD).metadata.authentic_data);
}

#[test]
fn bogus_names_cost_few_questions() {
    const TEST: &str = "bogus_names_cost_few_questions";
    if !SignedTree::is_possible(TEST) {
        return;
    }
    let tree = SignedTree::start();
    let upstream = changing(&tree, |_, _| {});
    let agent = agent(upstream.address(), &tree, "");
    let servfail = |name: &str| {
        assert_eq!(ask(&agent, name, RecordType::A, NONE).metadata.response_code, ResponseCode::ServFail, "{name}");
    };
    // A busy host may send a question again.
    let asked = || {
        let questions = upstream.asked().into_iter().map(|asked| (asked.name().to_lowercase(), asked.qtype()));
        questions.collect::<HashSet<_>>().len()
    };
    servfail("first.nokey.");
    let before = asked();
    for _ in 0..20 {
        servfail("first.nokey.");
    }
    assert_eq!(asked(), before, "a bogus reply is cached");
    for number in 0..50 {
        servfail(&format!("n{number}.nokey."));
    }
    // The name itself, and whether it is the apex of an unsigned zone.
    assert_eq!(asked() - before, 100, "questions for 50 names");
}
