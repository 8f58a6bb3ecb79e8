//! The query path does not allocate in steady state.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::time::Duration;

use muster::{
    dns::engine::{Engine, Transport},
    metrics::{self, Dns, Writers},
    model::{alias_domain::AliasDomain, name::Name},
};
use support::{Ask, world};

const SERVICES: &str = "
services:
- {service: web, id: w1, address: [10.0.0.1, 'fd00::1'], port: 80, tags: [v2], meta: {version: '1'}, alpn: [h2]}
- {service: web, id: w2, address: 10.0.0.2, port: 80, ports: {http: 8080}, tags: [v2]}
- {service: dns, id: d1, port: 53, protocol: udp}
";

#[test]
fn answers_do_not_allocate() {
    let tables = world::tables_with_aliases(SERVICES, vec![AliasDomain::consul(Name::parse("consul").unwrap())]);
    let asked = [
        ("web.service.local", 1),
        ("web.service.local", 28),
        ("web.service.local", 33),
        ("WEB.service.LOCAL", 255),
        ("web.service.local", 16),
        ("_web._tcp.service.local", 33),
        ("_http._tcp.web.service.local", 33),
        ("v2.web.service.local", 1),
        ("_web._v2.service.local", 33),
        ("_web._tcp.service.local", 12),
        ("_v2._sub._web._tcp.service.local", 12),
        ("w1._web._tcp.service.local", 33),
        ("w1._web._tcp.service.local", 16),
        ("web.service.local", 65),
        ("w1.web.service.local", 65),
        ("w1.web.service.local", 16),
        ("host-a.node.service.local", 1),
        ("service.local", 6),
        ("nothing.service.local", 1),
        ("a.b.c.nothing.service.local", 33),
        ("example.org", 1),
        ("web.service.consul", 1),
        ("web.service.dc1.consul", 33),
        ("_web._tcp.consul", 33),
        ("v2.web.service.consul", 28),
        ("w1.web.service.dc1.consul", 16),
        ("host-a.node.dc1.consul", 1),
        ("0a000007.addr.dc1.consul", 1),
        ("20010db8000000000000000000000007.addr.dc1.consul", 28),
        ("consul", 6),
        ("web.service.dc9.consul", 1),
        ("web.connect.consul", 1),
    ];
    let mut engine = Engine::new(1232, fastrand::Rng::with_seed(7));
    let mut reply = Vec::with_capacity(4096);
    let tally = Dns::default().tally(metrics::Transport::Udp, Writers::One);
    for edns in [None, Some(1232)] {
        for (name, qtype) in asked {
            let packet = Ask { name: name.to_owned(), qtype, edns, dnssec_ok: false }.packet(7);
            let mut answer = || {
                let decision = engine.answer(&tables, &packet, Transport::Udp.into(), &mut reply);
                tally.count(decision.account().expect("a reply"));
                tally.took(Duration::from_micros(7), 1);
                assert!(!reply.is_empty());
            };
            answer();
            let used = allocation_counter::measure(answer);
            assert_eq!(used.count_total, 0, "{name} {qtype}");
        }
    }
}
