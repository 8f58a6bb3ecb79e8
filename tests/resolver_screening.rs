//! Records that upstreams may not answer: names of our own zones, and private addresses of public names.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{CNAME, NS},
    },
};
use support::{
    agent::Agent,
    extended_error, http, show_data,
    upstream::{Asked, Upstream, octets},
};

const A: u16 = 1;
const AAAA: u16 = 28;
const PUBLIC: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PRIVATE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

/// `corp.example` with a delegation, and the reverse zone of 10.0.0.0/24.
const ZONES: [(&str, &str); 2] = [
    (
        "corp.example.zone",
        "@ 60 SOA ns hostmaster 1 60 60 60 60\n@ NS ns\nns A 192.0.2.53\nlab NS ns.lab\nns.lab A 192.0.2.54\n",
    ),
    ("0.0.10.in-addr.arpa.zone", "@ 60 SOA ns.corp.example. h.corp.example. 1 60 60 60 60\n@ NS ns.corp.example.\n"),
];

fn agent(resolver: &str) -> Agent {
    Agent::start_with(&format!("resolver: {{{resolver}}}\n"), &[], |folder| {
        for (file, text) in ZONES {
            std::fs::write(folder.join("zones").join(file), text).unwrap();
        }
        std::fs::write(folder.join("services.d/web.yaml"), "{service: web, address: 10.0.0.8, port: 80}\n").unwrap();
    })
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// Adds a CNAME of the question to `target`, and an address of the target.
fn chain(asked: &Asked, target: &str) -> Message {
    let mut reply = asked.reply(ResponseCode::NoError);
    let owner = asked.message.queries[0].name().clone();
    reply.add_answer(Record::from_rdata(owner, 60, RData::CNAME(CNAME(name(target)))));
    reply.add_answer(Record::from_rdata(name(target), 60, RData::A(PUBLIC.into())));
    reply
}

fn shown(message: &Message) -> Vec<String> {
    // Compression may change the letter case of names.
    let lower = |record: &Record| format!("{} {}", record.name, show_data(&record.data)).to_lowercase();
    message.answers.iter().map(lower).collect()
}

#[test]
fn upstream_records_of_our_zones_are_replaced_by_ours() {
    let targets = [
        ("discovery.example.", "web.service.local.", false),
        ("absent.example.", "other.service.local.", false),
        ("static.example.", "www.corp.example.", false),
        ("reverse.example.", "8.0.0.10.in-addr.arpa.", false),
        ("case.example.", "WEB.Service.LOCAL.", false),
        ("delegated.example.", "www.lab.corp.example.", true),
        ("foreign.example.", "www.other.example.", true),
    ];
    let upstream = Upstream::start(move |asked| {
        let asked_name = asked.name().to_lowercase();
        let target = targets.iter().find(|(from, ..)| *from == asked_name).map_or("x.example.", |(_, to, _)| *to);
        let mut reply = chain(asked, target);
        reply.metadata.authentic_data = true;
        reply.add_authority(Record::from_rdata(name("example."), 60, RData::NS(NS(name("web.service.local.")))));
        reply.add_additional(Record::from_rdata(name("web.service.local."), 60, RData::A(PUBLIC.into())));
        reply.add_additional(Record::from_rdata(name("ns.example."), 60, RData::A(PUBLIC.into())));
        vec![octets(&reply)]
    });
    let agent = agent(&format!("upstreams: [\"{}\"]", upstream.address()));
    for (from, to, is_kept) in targets {
        for source in ["the upstream", "the cache"] {
            let reply = agent.ask(from, A);
            let alias = format!("{from} {to}").to_lowercase();
            let additional: Vec<String> = reply.additionals.iter().map(|record| record.name.to_string()).collect();
            if is_kept {
                assert_eq!(reply.metadata.response_code, ResponseCode::NoError, "{from} from {source}");
                assert_eq!(shown(&reply), [alias, format!("{to} {PUBLIC}").to_lowercase()], "{from} from {source}");
                assert_eq!(reply.authorities.len(), 1, "{from}: the owner is foreign");
                assert_eq!(additional, ["ns.example."], "{from} from {source}");
                continue;
            }
            // The alias is followed: the rest of the answer is ours.
            let own = agent.ask(to, A);
            assert_eq!(reply.metadata.response_code, own.metadata.response_code, "{from} from {source}");
            let expected: Vec<String> = [alias].into_iter().chain(shown(&own)).collect();
            assert_eq!(shown(&reply), expected, "{from} from {source}");
            assert_eq!(reply.authorities, own.authorities, "{from} from {source}");
            assert!(!reply.metadata.authoritative && additional.is_empty(), "{from} from {source}: {additional:?}");
        }
    }
    assert_eq!(shown(&agent.ask("discovery.example.", A))[1..], ["web.service.local. 10.0.0.8"]);
    assert_eq!(agent.answers("web.service.local.", A), ["A 10.0.0.8"]);
    let metrics = http::ask(agent.http(), "GET", "/metrics", "").body;
    assert!(metrics.contains("muster_resolver_screened_total{reason=\"own-zone\"} 7"), "{metrics}");
}

#[test]
fn aliases_of_public_names_are_not_followed_with_rebind_protection() {
    let upstream = || {
        Upstream::start(|asked| {
            let mut reply = asked.reply(ResponseCode::NXDomain);
            let owner = asked.message.queries[0].name().clone();
            reply.add_answer(Record::from_rdata(owner, 60, RData::CNAME(CNAME(name("web.service.local.")))));
            vec![octets(&reply)]
        })
    };
    let (public, corp) = (upstream(), upstream());
    let agent = agent(&format!(
        "upstreams: [\"{}\"], routes: {{intern.example: \"{}\"}}, rebind_protection: true, rebind_exceptions: [split.example]",
        public.address(),
        corp.address()
    ));
    for (from, is_followed) in [("evil.example.", false), ("www.split.example.", true), ("www.intern.example.", true)] {
        let reply = agent.ask(from, A);
        let alias = format!("{from} web.service.local.");
        let expected = if is_followed { vec![alias, "web.service.local. 10.0.0.8".to_owned()] } else { vec![alias] };
        assert_eq!(shown(&reply), expected, "{from}");
        let code = if is_followed { ResponseCode::NoError } else { ResponseCode::NXDomain };
        assert_eq!(reply.metadata.response_code, code, "{from}");
    }
}

/// Answers `public.…` with a public address, and `both.…` with a public and a private one, all other names with a private one.
fn with_private_addresses() -> Upstream {
    Upstream::start(|asked| {
        let mut reply = asked.reply(ResponseCode::NoError);
        let owner = asked.message.queries[0].name().clone();
        let first = asked.name().to_lowercase();
        let mut add = |data| {
            reply.add_answer(Record::from_rdata(owner.clone(), 60, data));
        };
        if asked.qtype() == RecordType::AAAA {
            add(RData::AAAA(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1).into()));
        } else {
            if first.starts_with("public.") || first.starts_with("both.") {
                add(RData::A(PUBLIC.into()));
            }
            if !first.starts_with("public.") {
                add(RData::A(PRIVATE.into()));
            }
        }
        vec![octets(&reply)]
    })
}

#[test]
fn private_addresses_of_public_names_are_withheld_with_rebind_protection() {
    let (upstream, corp) = (with_private_addresses(), with_private_addresses());
    let agent = agent(&format!(
        "upstreams: [\"{}\"], routes: {{intern.example: \"{}\"}}, rebind_protection: true, rebind_exceptions: [split.example]",
        upstream.address(),
        corp.address()
    ));
    for (name, qtype) in [("evil.example.", A), ("both.example.", A), ("evil.example.", AAAA)] {
        for source in ["the upstream", "the cache"] {
            let reply = agent.ask(name, qtype);
            assert_eq!((reply.metadata.response_code, reply.answers.len()), (ResponseCode::NoError, 0), "{name}");
            let (code, text) = extended_error(&reply).unwrap();
            assert_eq!(code, 15, "{name} from {source}");
            assert!(text.contains("resolver.rebind_protection"), "{text}");
        }
    }
    for name in ["public.example.", "www.split.example.", "split.example.", "www.intern.example."] {
        assert_eq!(agent.ask(name, A).answers.len(), 1, "{name}");
    }
    let metrics = http::ask(agent.http(), "GET", "/metrics", "").body;
    assert!(!metrics.contains("muster_resolver_screened_total{reason=\"rebinding\"} 0"), "{metrics}");
    for (name, expected) in [("evil.example.", true), ("www.split.example.", false), ("www.intern.example.", false)] {
        let explained = http::get(&agent, &format!("muster/explain/{name}")).body;
        assert_eq!(explained.contains("resolver.rebind_protection"), expected, "{name}: {explained}");
    }
}

/// Split-horizon networks depend on private addresses for names below a public suffix.
#[test]
fn private_addresses_of_public_names_are_answered_by_default() {
    let upstream = with_private_addresses();
    let agent = agent(&format!("upstreams: [\"{}\"]", upstream.address()));
    assert_eq!(shown(&agent.ask("evil.example.", A)), ["evil.example. 10.0.0.1"]);
}
