//! Zone transfers to BIND, NSD, Knot and PowerDNS, and their signatures.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{collections::BTreeSet, fs, net::SocketAddr, path::Path, thread};

use support::{
    agent::Agent,
    process::{self, Finish},
    program::free,
    run,
    secondary::{self, Key, Setup, Software},
    skip, wait,
};

const KEY: Key = Key { name: "xfr", secret: "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IDEyMzQ=" };

const ZONE: &str = "$TTL 300\n@ SOA ns hostmaster 5 3600 600 86400 60\n@ NS ns\n@ MX 10 mail\nns A 192.0.2.1\nmail A 192.0.2.3\n\
                    www CNAME ns\nsub NS ns.sub\nns.sub A 192.0.2.2\n*.wild TXT \"any\"\n_x._tcp SRV 1 2 3 ns\n";

/// Services of a test: one with all kinds of names, one that is unhealthy.
fn services(port: u16) -> String {
    format!(
        "services:\n- {{service: web, id: w1, address: [10.0.0.7, \"fd00::7\"], ports: {{http: {port}, metrics: 9100}}, tags: \
         [v2], meta: {{version: \"2.3.1\"}}}}\n- {{service: web, id: w2, address: 10.0.0.9, port: 80}}\n\
         - {{service: db, address: 10.0.0.8, port: 5432, checks: [{{ttl: 10s, initial: critical}}]}}\n"
    )
}

fn prepare(folder: &Path) {
    secondary::write_keys(folder, &[KEY]);
    fs::write(folder.join("zones/example.org.zone"), ZONE).unwrap();
    fs::write(folder.join("services.d/all.yaml"), services(8080)).unwrap();
}

/// Starts an agent that serves transfers.
fn agent(allow: &str, notify: &[SocketAddr]) -> Agent {
    let notify: Vec<String> = notify.iter().map(|address| format!("\"{address}\"")).collect();
    let config = format!(
        "alias_domains: [alias.test, {{domain: consul, scheme: consul}}]\ndns: {{listen: [127.0.0.1:0], keys_dir: tsig, transfer: {{allow: [{allow}], notify: [{}]}}}}\n",
        notify.join(", ")
    );
    Agent::start_with(&config, &[], prepare)
}

/// Runs dig and returns its output.
fn dig(server: SocketAddr, arguments: &str) -> String {
    let mut dig = process::command("dig");
    dig.args(["-p", &server.port().to_string(), &format!("@{}", server.ip()), "+tries=1", "+time=5", "+nocookie"]);
    dig.args(arguments.split_whitespace());
    String::from_utf8(dig.finish().stdout).unwrap()
}

/// Returns the records of an output of dig with names and fields separated by one space, sorted.
fn records(output: &str) -> Vec<String> {
    let lines = output.lines().filter(|line| !line.is_empty() && !line.starts_with(';'));
    let mut records: Vec<String> = lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    records.sort();
    records
}

/// Returns the serial that a server answers for a zone; `None` if it does not serve it.
fn serial(server: SocketAddr, zone: &str) -> Option<u32> {
    dig(server, &format!("+short SOA {zone}")).split_whitespace().nth(2)?.parse().ok()
}

fn signed() -> String {
    format!("-y hmac-sha256:{}:{}", KEY.name, KEY.secret)
}

#[test]
fn copied_zone_has_the_records_that_are_answered() {
    if !skip::tool("copied_zone_has_the_records_that_are_answered", "dig", "bind9-dnsutils") {
        return;
    }
    let agent = agent("loopback", &[]);
    for zone in ["service.local", "alias.test", "consul", "example.org"] {
        let copied = records(&dig(agent.address(), &format!("+noall +answer AXFR {zone}")));
        assert!(copied.len() > 8, "{zone}: {copied:?}");
        let names: BTreeSet<(&str, &str)> = copied
            .iter()
            .map(|record| {
                let mut fields = record.split(' ');
                (fields.next().unwrap(), fields.nth(2).unwrap())
            })
            .collect();
        for (name, rtype) in names {
            // Names that keep a declared service from being NXDOMAIN, delegations and their glue.
            if name.starts_with("_why.") || name.contains("sub.example.org.") {
                continue;
            }
            let expected: BTreeSet<&String> = copied
                .iter()
                .filter(|record| record.starts_with(&format!("{name} ")) && record.split(' ').nth(3) == Some(rtype))
                .collect();
            let answered = records(&dig(agent.address(), &format!("+noall +answer +norec {rtype} {name}")));
            assert_eq!(answered.iter().collect::<BTreeSet<_>>(), expected, "{rtype} {name}");
        }
    }
    let copied = dig(agent.address(), "+noall +answer AXFR service.local");
    let unhealthy = "_why.db.service.local. 5 IN TXT \"no healthy instance: a muster server has the reason\"";
    assert!(records(&copied).contains(&unhealthy.to_owned()), "{copied}");
}

#[test]
fn requests_are_refused_with_the_code_of_their_fault() {
    if !skip::tool("requests_are_refused_with_the_code_of_their_fault", "dig", "bind9-dnsutils") {
        return;
    }
    let agent = agent("\"key:xfr\", 192.0.2.0/24", &[]);
    let good = signed();
    let cases = [
        ("AXFR service.local", "Transfer failed"),
        (&format!("{good} AXFR service.local"), "XFR size"),
        (&format!("{good} AXFR nowhere.test"), "Transfer failed"),
        (&format!("{good} AXFR web.service.local"), "Transfer failed"),
        ("-y hmac-sha256:other:c2VjcmV0IHNlY3JldA== SOA service.local", "status: NOTAUTH"),
        ("-y hmac-sha256:other:c2VjcmV0IHNlY3JldA== SOA service.local", "BADKEY"),
        ("-y hmac-sha256:xfr:c2VjcmV0IHNlY3JldA== SOA service.local", "BADSIG"),
        (&format!("-y hmac-sha512:{}:{} SOA service.local", KEY.name, KEY.secret), "BADKEY"),
        (&format!("{good} SOA service.local"), "status: NOERROR"),
        (&format!("{good} +tcp SRV web.service.local"), "status: NOERROR"),
        (&format!("{good} A nothing.service.local"), "status: NXDOMAIN"),
        (&format!("{good} A www.example.com"), "status: REFUSED"),
        (&format!("{good} +notcp IXFR=1 service.local"), "hostmaster.service.local."),
    ];
    for (arguments, expected) in cases {
        let output = dig(agent.address(), arguments);
        assert!(output.contains(expected), "{arguments}: {output}");
        let is_refused = expected.starts_with("BAD") || expected.contains("NOTAUTH");
        assert_eq!(output.contains("Couldn't verify signature"), is_refused, "{arguments}: {output}");
    }
    assert!(!agent.log().contains(KEY.secret));
}

/// Waits until a secondary has the serial of the agent for a zone.
#[track_caller]
fn wait_for_copy(agent: &Agent, copy: SocketAddr, zone: &str, what: &str) {
    wait::poll(|| {
        let (own, copied) = (serial(agent.address(), zone), serial(copy, zone));
        if own.is_some() && own == copied {
            Ok(())
        } else {
            Err(format!("{what} {zone}: {copied:?} instead of {own:?}"))
        }
    });
}

#[test]
fn secondaries_copy_zones_and_follow_changes() {
    if !Software::is_installed("secondaries_copy_zones_and_follow_changes") {
        return;
    }
    let addresses = Software::ALL.map(|software| (software, free()));
    let agent = agent("\"key:xfr\"", &addresses.map(|(_, address)| address));
    let folder = run::temp_dir();
    let zones = ["service.local", "alias.test", "consul", "example.org"];
    let mut programs = Vec::new();
    for (software, listen) in addresses {
        let path = folder.path().join(format!("{software:?}"));
        fs::create_dir(&path).unwrap();
        let setup = Setup { listen, primaries: &[agent.address()], zones: &zones, key: Some(KEY) };
        programs.push(secondary::start(software, &setup, &path));
    }
    let names = [
        ("A", "web.service.local"),
        ("AAAA", "web.service.local"),
        ("SRV", "web.service.local"),
        ("SRV", "_http._tcp.web.service.local"),
        ("TXT", "w1.web.service.local"),
        ("A", "v2.web.service.local"),
        ("SRV", "_web._tcp.alias.test"),
        ("A", "web.service.consul"),
        ("SRV", "web.service.dc1.consul"),
        ("SRV", "_web._tcp.consul"),
        ("SRV", "_http._tcp.web.service.consul"),
        ("A", "v2.web.service.dc1.dc.consul"),
        ("A", "0a000009.addr.dc1.consul"),
        ("A", "host-a.node.dc1.consul"),
        ("AAAA", "db.service.consul"),
        ("A", "nothing.service.consul"),
        ("NS", "consul"),
        ("A", "host-a.node.service.local"),
        ("A", "db.service.local"),
        ("A", "nothing.service.local"),
        ("NS", "service.local"),
        ("MX", "example.org"),
        ("CNAME", "www.example.org"),
        ("TXT", "a.b.wild.example.org"),
        ("A", "none.example.org"),
    ];
    let assert_same = |what: &str| {
        for (software, copy) in addresses {
            for (rtype, name) in names {
                let ask = |server| {
                    let output = dig(server, &format!("+noall +answer +comments +norec {rtype} {name}"));
                    let status =
                        output.split("status: ").nth(1).unwrap_or_default().split(',').next().map(str::to_owned);
                    (status, records(&output))
                };
                assert_eq!(ask(copy), ask(agent.address()), "{what}: {software:?} {rtype} {name}");
            }
        }
    };
    for (software, copy) in addresses {
        for zone in zones {
            wait_for_copy(&agent, copy, zone, &format!("first copy of {software:?}:"));
        }
    }
    assert_same("first copy");
    // Instances change, one after the other: NOTIFY brings each to the secondaries, long before the refresh of the SOA.
    for port in [8081, 8082, 8083] {
        fs::write(agent.path("services.d/all.yaml"), services(port)).unwrap();
        let expected = format!("1 10 {port} w1.web.service.local.");
        for (software, copy) in addresses {
            wait::poll(|| {
                let answer = dig(copy, "+short SRV _http._tcp.web.service.local");
                if answer.trim() == expected { Ok(()) } else { Err(format!("{software:?}: {answer:?}")) }
            });
        }
    }
    fs::write(agent.path("zones/example.org.zone"), ZONE.replace(" 5 3600", " 6 3600") + "new A 192.0.2.77\n").unwrap();
    for (software, copy) in addresses {
        wait::until_equal(&format!("{software:?}"), "192.0.2.77\n", || dig(copy, "+short A new.example.org"));
        for zone in zones {
            wait_for_copy(&agent, copy, zone, &format!("last copy of {software:?}:"));
        }
    }
    assert_same("last copy");
    // Three changes of three zones, and one of the last.
    let incremental = agent.log().matches("form=Incremental").count();
    assert!(incremental >= 10 * Software::ALL.len(), "{incremental}");
}

/// A secondary with serial 5 may have either content: differences would keep one of them incomplete for good.
#[test]
fn zone_file_that_changed_without_a_later_serial_is_sent_whole() {
    if !skip::tool("zone_file_that_changed_without_a_later_serial_is_sent_whole", "dig", "bind9-dnsutils") {
        return;
    }
    let mut agent = agent("loopback", &[]);
    let file = agent.path("zones/example.org.zone");
    let write = |serial: u32, more: &str| {
        let text = ZONE.replace(" 5 3600", &format!(" {serial} 3600")) + more;
        fs::write(&file, text).unwrap();
    };
    let address = agent.address();
    let since = |serial: u32| records(&dig(address, &format!("+noall +answer IXFR={serial} example.org")));
    write(5, "lost A 192.0.2.77\n");
    agent.wait_for_log("its serial did not rise");
    write(7, "lost A 192.0.2.77\nnext A 192.0.2.78\n");
    wait::until_equal("serial", &Some(7), || serial(agent.address(), "example.org"));
    let whole = since(5);
    assert!(whole.iter().any(|record| record == "lost.example.org. 300 IN A 192.0.2.77"), "{whole:?}");
    assert_eq!(agent.log().matches("its serial did not rise").count(), 1);
    write(8, "lost A 192.0.2.77\n");
    wait::until_equal("serial", &Some(8), || serial(agent.address(), "example.org"));
    let soa =
        |serial| format!("example.org. 300 IN SOA ns.example.org. hostmaster.example.org. {serial} 3600 600 86400 60");
    let removed = "next.example.org. 300 IN A 192.0.2.78".to_owned();
    assert_eq!(since(7), [soa(7), soa(8), soa(8), soa(8), removed]);
}

/// Two agents serve the same zone: their serials are those of one, also after its end, and never go back.
#[test]
fn secondary_of_two_agents_follows_the_primary() {
    let test = "secondary_of_two_agents_follows_the_primary";
    if !Software::is_installed(test) {
        return;
    }
    let copy = free();
    let mut first = agent("loopback", &[copy]);
    let config = format!(
        "node: host-b\nadvertise: 10.0.0.8\ndata_dir: data\nservices_dir: services.d\nzones_dir: zones\nalias_domains: \
         [alias.test]\ndns: {{listen: [127.0.0.1:0], transfer: {{allow: [loopback], notify: [\"{copy}\"]}}}}\n\
         http: {{listen: [127.0.0.1:0]}}\ngossip: {{listen: 127.0.0.1:0, join: [\"{}\"]}}\nresolver: {{allow: []}}\n",
        first.gossip()
    );
    let mut second = Agent::start_with("", &[], |folder| {
        fs::write(folder.join("muster.yaml"), config).unwrap();
        fs::write(folder.join("services.d/b.yaml"), "{service: beta, port: 1}").unwrap();
    });
    second.wait_for_log("primary of the generated zones");
    let same_serial = |agents: [&Agent; 2]| {
        wait::poll(|| {
            let [a, b] = agents.map(|agent| serial(agent.address(), "service.local"));
            if a.is_some() && a == b { Ok(a) } else { Err(format!("{a:?} {b:?}")) }
        })
    };
    same_serial([&first, &second]);
    let refused = dig(second.address(), "AXFR service.local");
    assert!(refused.contains("Transfer failed"), "{refused}");
    let folder = run::temp_dir();
    let primaries = [second.address(), first.address()];
    let setup = Setup { listen: copy, primaries: &primaries, zones: &["service.local"], key: None };
    let mut knot = secondary::start(Software::Knot, &setup, folder.path());
    let shows = |port: u16| format!("1 10 {port} beta-host-b.beta.service.local.\n");
    let mut last = 0;
    let mut follows = |program: &mut support::program::Program, port: u16| {
        program.wait_for("the copy", &shows(port), || dig(copy, "+short SRV beta.service.local"));
        let now = serial(copy, "service.local").unwrap();
        assert!(muster::dns::zone::serial::is_later(now, last) || last == 0, "{now} after {last}");
        last = now;
    };
    follows(&mut knot, 1);
    for port in [2, 3] {
        second.write_service("b.yaml", &format!("{{service: beta, port: {port}}}"));
        follows(&mut knot, port);
    }
    // The primary leaves the cluster: the other agent takes over, with later serials.
    first.signal(nix::sys::signal::Signal::SIGTERM);
    first.wait();
    wait::poll(|| {
        let output = dig(second.address(), "AXFR service.local");
        if output.contains("XFR size") { Ok(()) } else { Err(output) }
    });
    for port in [4, 5] {
        second.write_service("b.yaml", &format!("{{service: beta, port: {port}}}"));
        follows(&mut knot, port);
    }
}

/// Number of names of the large zone.
const MANY: usize = 100_000;

#[test]
fn secondaries_copy_a_large_signed_transfer() {
    if !Software::is_installed("secondaries_copy_a_large_signed_transfer") {
        return;
    }
    let records: String = (0..MANY)
        .map(|number| format!("h{number} A 10.{}.{}.{}\n", number >> 16, number >> 8 & 255, number & 255))
        .collect();
    // More records at one name than BIND accepts without the documented option.
    let at_one_name: String = (0..150).map(|number| format!("many A 10.9.0.{number}\n")).collect();
    let addresses = Software::ALL.map(|software| (software, free()));
    let agent = {
        let config = "dns: {listen: [127.0.0.1:0], keys_dir: tsig, transfer: {allow: [\"key:xfr\"]}}\n";
        Agent::start_with(config, &[], |folder| {
            prepare(folder);
            let head = "$TTL 300\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\nns A 192.0.2.1\n";
            fs::write(folder.join("zones/large.test.zone"), format!("{head}{at_one_name}{records}")).unwrap();
        })
    };
    let folder = run::temp_dir();
    let primaries = [agent.address()];
    thread::scope(|scope| {
        for (software, listen) in addresses {
            let path = folder.path().join(format!("{software:?}"));
            fs::create_dir(&path).unwrap();
            let setup = Setup { listen, primaries: &primaries, zones: &["large.test"], key: Some(KEY) };
            scope.spawn(move || {
                let mut program = secondary::start(software, &setup, &path);
                let last = format!("h{}.large.test", MANY - 1);
                program.wait_for("the last record", &"10.1.134.159\n".to_owned(), || {
                    dig(listen, &format!("+short A {last}"))
                });
            });
        }
    });
    assert_eq!(agent.log().matches("zone transfer sent").count(), Software::ALL.len());
}
