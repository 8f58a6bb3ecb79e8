//! Zones that an agent copies from BIND, Knot and NSD.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{collections::BTreeSet, fmt::Write as _, fs, net::SocketAddr, path::Path, thread, time::Instant};

use support::{
    agent::Agent,
    certificates::Authority,
    primary::{Primary, Setup, Software, Tls},
    process::{self, Finish},
    program::free,
    run,
    secondary::{self, Key},
    wait,
};

const KEY: Key = Key { name: "xfr", secret: "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IDEyMzQ=" };
const ZONE: &str = "copied.test";

/// Content of the zone, with further records.
fn content(serial: u32, timers: &str, more: &str) -> String {
    format!(
        "$TTL 300\n$ORIGIN {ZONE}.\n@ SOA ns hostmaster {serial} {timers} 60\n@ NS ns\n@ MX 10 Mail\nns A 192.0.2.1\nmail A \
         192.0.2.3\nwww CNAME ns\nsub NS ns.sub\nns.sub A 192.0.2.2\n*.wild TXT \"any\" \"second\"\n_x._tcp SRV 1 2 3 ns\n\
         a.b.c AAAA 2001:db8::1\nold DNAME new.example.\nodd TYPE65400 \\# 3 abcdef\ncaa CAA 0 issue \"ca.example\"\n{more}"
    )
}

/// Timers of an ordinary zone.
const SLOW: &str = "3600 600 86400";

/// Starts an agent that copies the zone.
fn agent(listen: SocketAddr, primaries: &[SocketAddr]) -> Agent {
    let primaries: Vec<String> = primaries.iter().map(|address| format!("\"{address}\"")).collect();
    let config = format!(
        "dns: {{listen: [\"{listen}\"], keys_dir: tsig, transfer: {{allow: [\"key:xfr\"]}}, secondary: [{{zone: {ZONE}, \
         primaries: [{}], key: xfr}}]}}\n",
        primaries.join(", ")
    );
    Agent::start_with(&config, &[], prepare)
}

fn prepare(folder: &Path) {
    secondary::write_keys(folder, &[KEY]);
}

/// Runs dig and returns its output.
fn dig(server: SocketAddr, arguments: &str) -> String {
    let mut dig = process::command("dig");
    dig.args(["-p", &server.port().to_string(), &format!("@{}", server.ip()), "+tries=1", "+time=5", "+nocookie"]);
    dig.args(arguments.split_whitespace());
    String::from_utf8(dig.finish().stdout).unwrap()
}

/// Returns status and records of an answer, sorted: those of the authority section if there are no others.
fn answer(server: SocketAddr, rtype: &str, name: &str) -> (String, Vec<String>) {
    let answer = section(server, "answer", rtype, name);
    if answer.1.is_empty() { section(server, "authority", rtype, name) } else { answer }
}

fn section(server: SocketAddr, section: &str, rtype: &str, name: &str) -> (String, Vec<String>) {
    let output = dig(server, &format!("+noall +{section} +comments +norec {rtype} {name}"));
    let status = output.split("status: ").nth(1).unwrap_or_default().split(',').next().unwrap_or_default().to_owned();
    let lines = output.lines().filter(|line| !line.is_empty() && !line.starts_with(';'));
    let mut records: Vec<String> = lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    records.sort();
    (status, records)
}

/// Names whose answers have to be those of the primary.
const NAMES: [(&str, &str); 18] = [
    ("SOA", "copied.test"),
    ("MX", "copied.test"),
    ("A", "ns.copied.test"),
    ("A", "www.copied.test"),
    ("AAAA", "www.copied.test"),
    ("TXT", "a.b.wild.copied.test"),
    ("A", "a.b.wild.copied.test"),
    ("SRV", "_x._tcp.copied.test"),
    ("A", "_tcp.copied.test"),
    ("AAAA", "a.b.c.copied.test"),
    ("AAAA", "b.c.copied.test"),
    ("A", "none.copied.test"),
    ("A", "host.sub.copied.test"),
    ("NS", "sub.copied.test"),
    ("TYPE65400", "odd.copied.test"),
    ("CAA", "caa.copied.test"),
    ("DNAME", "old.copied.test"),
    ("A", "none.ns.copied.test"),
];

#[track_caller]
fn assert_same(agent: &Agent, primary: SocketAddr, what: &str) {
    for (rtype, name) in NAMES {
        assert_eq!(answer(agent.address(), rtype, name), answer(primary, rtype, name), "{what}: {rtype} {name}");
    }
}

#[track_caller]
fn wait_for_serial(agent: &Agent, serial: u32, what: &str) {
    wait::poll(|| {
        let shown = dig(agent.address(), &format!("+short SOA {ZONE}"));
        let found = shown.split_whitespace().nth(2).and_then(|serial| serial.parse().ok());
        if found == Some(serial) { Ok(()) } else { Err(format!("{what}: {shown:?} instead of serial {serial}")) }
    });
}

#[test]
fn zones_are_copied_from_primaries_and_follow_changes() {
    if !Software::is_installed("zones_are_copied_from_primaries_and_follow_changes") {
        return;
    }
    for software in Software::ALL {
        let (listen, own) = (free(), free());
        let folder = run::temp_dir();
        let setup = Setup { listen, secondary: own, zone: ZONE, key: KEY };
        let mut primary = Primary::start(software, &setup, &content(5, SLOW, ""), folder.path());
        primary.program.wait_for("the zone", &false, || dig(listen, &format!("+short SOA {ZONE}")).is_empty());
        let mut agent = agent(own, &[listen]);
        wait_for_serial(&agent, 5, &format!("{software:?}"));
        assert_same(&agent, listen, &format!("{software:?}, first copy"));
        for serial in 6..9 {
            primary.change(&content(serial, SLOW, &format!("new TXT \"{serial}\"\n")));
            let began = Instant::now();
            wait_for_serial(&agent, serial, &format!("{software:?} after NOTIFY"));
            println!("{software:?}: serial {serial} after {:?}", began.elapsed());
            assert_eq!(dig(agent.address(), &format!("+short TXT new.{ZONE}")), format!("\"{serial}\"\n"));
        }
        assert_same(&agent, listen, &format!("{software:?}, last copy"));
        let log = agent.log();
        let (whole, incremental) = (log.matches("form=Whole").count(), log.matches("form=Incremental").count());
        let expected = if software == Software::Nsd { (4, 0) } else { (1, 3) };
        assert_eq!((whole, incremental), expected, "{software:?}: {log}");
        assert!(!log.contains("zone not refreshed"), "{software:?}: {log}");
        // A restart without the primary goes on with the copy.
        primary.program.kill();
        agent.signal(nix::sys::signal::Signal::SIGKILL);
        agent.start_again();
        agent.wait_until_answering();
        assert_eq!(dig(agent.address(), &format!("+short TXT new.{ZONE}")), "\"8\"\n", "{software:?}");
        // A copy is itself copied.
        let signed = format!("-y hmac-sha256:{}:{} AXFR {ZONE}", KEY.name, KEY.secret);
        assert!(dig(agent.address(), &signed).contains("XFR size: 16 records"), "{}", dig(agent.address(), &signed));
    }
}

/// Starts an agent that copies the zone from this primary over TLS, and trusts the authority in `folder`.
fn agent_over_tls(listen: SocketAddr, primary: &str, folder: &Path) -> Agent {
    let config = format!(
        "dns: {{listen: [\"{listen}\"], keys_dir: tsig, secondary: [{{zone: {ZONE}, primaries: [\"{primary}\"], key: xfr}}]}}\n"
    );
    let authorities = folder.join("ca.pem");
    Agent::start_with(&config, &[("SSL_CERT_FILE", authorities.to_str().unwrap())], prepare)
}

/// RFC 9103: SOA query and transfer use TLS.
#[test]
fn zone_is_copied_over_tls() {
    if !Software::is_installed("zone_is_copied_over_tls") {
        return;
    }
    let (listen, secure, own) = (free(), free(), free());
    let (folder, certificates) = (run::temp_dir(), run::temp_dir());
    Authority::generate().certify(certificates.path(), &["ns.example"]);
    let setup = Setup { listen, secondary: own, zone: ZONE, key: KEY };
    let tls = Tls { listen: secure, certificate: certificates.path() };
    let mut primary = Primary::start_bind_over_tls(&setup, tls, &content(5, SLOW, ""), folder.path());
    primary.program.wait_for("the zone", &false, || dig(listen, &format!("+short SOA {ZONE}")).is_empty());
    let signed = format!("-y hmac-sha256:{}:{} AXFR {ZONE}", KEY.name, KEY.secret);
    assert!(dig(listen, &signed).contains("Transfer failed"), "BIND sends the zone over TLS only");
    let agent = agent_over_tls(own, &format!("tls://{secure}#ns.example"), certificates.path());
    wait_for_serial(&agent, 5, "over TLS");
    assert_same(&agent, listen, "over TLS");
    primary.change(&content(6, SLOW, "new TXT \"6\"\n"));
    wait_for_serial(&agent, 6, "after NOTIFY");
    let log = agent.log();
    assert_eq!([log.matches("form=Whole").count(), log.matches("form=Incremental").count()], [1, 1], "{log}");
    assert!(log.contains(&format!("primary=tls://{secure}#ns.example")) && !log.contains("not refreshed"), "{log}");
    let (list, _) = muster(&agent, &["zone", "list"]);
    assert!(list.contains(&format!("tls://{secure}#ns.example")), "{list}");
    // The certificate has another name.
    let mut agent = agent_over_tls(free(), &format!("tls://{secure}#other.example"), certificates.path());
    agent.wait_for_log("zone not refreshed");
    assert!(agent.log().contains("certificate"), "{}", agent.log());
    assert_eq!(answer(agent.address(), "A", &format!("ns.{ZONE}")).0, "SERVFAIL");
}

/// Timers with which a copy expires within seconds: refresh, retry and expire.
const FAST: &str = "2 2 4";

#[test]
fn copy_expires_when_no_primary_confirms_it() {
    if !Software::is_installed("copy_expires_when_no_primary_confirms_it") {
        return;
    }
    let (listen, own) = (free(), free());
    let folder = run::temp_dir();
    let setup = Setup { listen, secondary: own, zone: ZONE, key: KEY };
    let mut primary = Primary::start(Software::Knot, &setup, &content(5, FAST, ""), folder.path());
    primary.program.wait_for("the zone", &false, || dig(listen, &format!("+short SOA {ZONE}")).is_empty());
    let mut agent = agent(own, &[listen]);
    wait_for_serial(&agent, 5, "copy");
    primary.program.kill();
    let status = |agent: &Agent| answer(agent.address(), "A", &format!("ns.{ZONE}")).0;
    assert_eq!(status(&agent), "NOERROR");
    wait::until_equal("an expired copy", "SERVFAIL", || status(&agent));
    let explained = dig(agent.address(), &format!("A ns.{ZONE}"));
    assert!(explained.contains("the copy of the zone has expired: no primary confirms it"), "{explained}");
    // The expiry outlives a restart.
    agent.signal(nix::sys::signal::Signal::SIGKILL);
    agent.start_again();
    agent.wait_until_answering();
    assert_eq!(status(&agent), "SERVFAIL");
    // The primary comes back with an older serial: there is no copy to compare with.
    let second = run::temp_dir();
    let _primary = Primary::start(Software::Knot, &setup, &content(3, SLOW, ""), second.path());
    wait_for_serial(&agent, 3, "the zone of the primary that came back");
    assert_same(&agent, listen, "after the expiry");
}

#[test]
fn older_serials_are_ignored_and_primaries_asked_in_order() {
    if !Software::is_installed("older_serials_are_ignored_and_primaries_asked_in_order") {
        return;
    }
    let (first, second, own) = (free(), free(), free());
    let (nothing, old, new) = (free(), run::temp_dir(), run::temp_dir());
    let setup = |listen| Setup { listen, secondary: own, zone: ZONE, key: KEY };
    let _old = Primary::start(Software::Bind, &setup(first), &content(5, "2 2 3600", ""), old.path());
    let mut program = Primary::start(Software::Knot, &setup(second), &content(7, "2 2 3600", ""), new.path());
    program.program.wait_for("the zone", &false, || dig(second, &format!("+short SOA {ZONE}")).is_empty());
    let mut agent = agent(own, &[nothing, second, first]);
    wait_for_serial(&agent, 7, "the second primary answers");
    agent.wait_for_log("zone not refreshed");
    program.program.kill();
    agent.wait_for_log("its serial 5 is older than that of the copy, 7: it is ignored");
    assert_eq!(dig(agent.address(), &format!("+short SOA {ZONE}")).split_whitespace().nth(2), Some("7"));
    // Serials wrap around (RFC 1982).
    let newer = run::temp_dir();
    let _newer = Primary::start(Software::Knot, &setup(second), &content(2_147_483_650, "2 2 3600", ""), newer.path());
    wait_for_serial(&agent, 2_147_483_650, "half the number space ahead");
    let log = agent.log();
    let refused = format!("WARN zone not refreshed zone=\"copied.test.\" primary={nothing}");
    assert_eq!(log.matches(&refused).count(), 1, "logged once: {log}");
}

#[test]
fn messages_of_others_cause_no_transfer() {
    if !Software::is_installed("messages_of_others_cause_no_transfer") {
        return;
    }
    let (listen, own) = (free(), free());
    let folder = run::temp_dir();
    let setup = Setup { listen, secondary: own, zone: ZONE, key: KEY };
    let mut primary = Primary::start(Software::Bind, &setup, &content(5, SLOW, ""), folder.path());
    primary.program.wait_for("the zone", &false, || dig(listen, &format!("+short SOA {ZONE}")).is_empty());
    let agent = agent(own, &[listen]);
    wait_for_serial(&agent, 5, "copy");
    let notify = |options: &str, zone: &str| dig(own, &format!("+opcode=NOTIFY +norec +noedns {options} SOA {zone}"));
    let signed = format!("-y hmac-sha256:{}:{}", KEY.name, KEY.secret);
    let other = "-y hmac-sha256:other:c2VjcmV0IHNlY3JldA==";
    let cases = [
        ("", ZONE, "status: NOERROR"),
        (&*signed, ZONE, "status: NOERROR"),
        (other, ZONE, "status: NOTAUTH"),
        ("-b 127.0.0.7", ZONE, "status: REFUSED"),
        (&format!("-b 127.0.0.7 {signed}"), ZONE, "status: NOERROR"),
        ("", "other.test", "status: NOTAUTH"),
    ];
    for (options, zone, expected) in cases {
        let reply = notify(options, zone);
        assert!(reply.contains(expected), "{options} {zone}: {reply}");
    }
}

/// Number of names of the large zone.
const MANY: usize = 100_000;

#[test]
fn large_zone_is_copied_and_follows_changes() {
    if !Software::is_installed("large_zone_is_copied_and_follows_changes") {
        return;
    }
    let hosts: String = (0..MANY).fold(String::new(), |mut text, number| {
        let _ = writeln!(text, "h{number} A 10.{}.{}.{}", number >> 16, number >> 8 & 255, number & 255);
        text
    });
    // Taken together: a thread could find a port free that the other one is about to bind.
    let mut addresses = BTreeSet::new();
    while addresses.len() < 4 {
        addresses.insert(free());
    }
    let mut addresses = addresses.into_iter();
    thread::scope(|scope| {
        // NSD sends whole zones like BIND.
        for software in [Software::Bind, Software::Knot] {
            let hosts = &hosts;
            let (listen, own) = (addresses.next().unwrap(), addresses.next().unwrap());
            scope.spawn(move || {
                let folder = run::temp_dir();
                let setup = Setup { listen, secondary: own, zone: ZONE, key: KEY };
                let mut primary = Primary::start(software, &setup, &content(1, SLOW, hosts), folder.path());
                primary.program.wait_for("the zone", &false, || dig(listen, &format!("+short SOA {ZONE}")).is_empty());
                let began = Instant::now();
                let mut agent = agent(own, &[listen]);
                wait_for_serial(&agent, 1, &format!("{software:?}"));
                println!("{software:?}: {MANY} records after {:?}", began.elapsed());
                assert_eq!(dig(own, &format!("+short A h{}.{ZONE}", MANY - 1)), "10.1.134.159\n");
                primary.change(&content(2, SLOW, &format!("{hosts}new A 192.0.2.99\n")));
                let began = Instant::now();
                wait_for_serial(&agent, 2, &format!("{software:?} after NOTIFY"));
                println!("{software:?}: changed after {:?}", began.elapsed());
                assert_eq!(dig(own, &format!("+short A new.{ZONE}")), "192.0.2.99\n");
                agent.signal(nix::sys::signal::Signal::SIGTERM);
                primary.program.kill();
                agent.start_again();
                agent.wait_until_answering();
                assert_eq!(dig(own, &format!("+short A h7.{ZONE}")), "10.0.0.7\n");
                println!(
                    "{}",
                    agent.log().lines().filter(|line| line.contains("zone transferred")).collect::<Vec<_>>().join("\n")
                );
            });
        }
    });
}

/// Runs a command against an agent, and returns its output and whether it succeeded.
fn muster(agent: &Agent, arguments: &[&str]) -> (String, bool) {
    let mut command = process::muster();
    command.args(arguments).args(["--http-addr", &agent.http().to_string()]);
    let output = command.finish();
    assert!(output.status.code().is_some_and(|code| code < 2), "{arguments:?}: {output:?}");
    (String::from_utf8(output.stdout).unwrap(), output.status.success())
}

#[test]
fn commands_show_compare_and_notify() {
    let test = "commands_show_compare_and_notify";
    if !Software::is_installed(test) || !support::skip::tool(test, "named-checkzone", "bind9-utils") {
        return;
    }
    let (listen, own, copy) = (free(), free(), free());
    let folder = run::temp_dir();
    let setup = Setup { listen, secondary: own, zone: ZONE, key: KEY };
    let mut primary = Primary::start(Software::Knot, &setup, &content(5, SLOW, ""), folder.path());
    primary.program.wait_for("the zone", &false, || dig(listen, &format!("+short SOA {ZONE}")).is_empty());
    let config = format!(
        "dns: {{listen: [\"{own}\"], keys_dir: tsig, transfer: {{allow: [loopback], notify: [\"{copy}\"]}}, secondary: [{{zone: \
         {ZONE}, primaries: [\"{listen}\"], key: xfr}}, {{zone: missing.test, primaries: [\"{copy}\"]}}]}}\n"
    );
    let agent = Agent::start_with(&config, &[], prepare);
    wait_for_serial(&agent, 5, "copy");
    // A copy of the copy.
    let second = run::temp_dir();
    let setup = secondary::Setup { listen: copy, primaries: &[own], zones: &[ZONE], key: None };
    let mut knot = secondary::start(secondary::Software::Knot, &setup, second.path());
    knot.wait_for("the copy", &"\"any\" \"second\"\n".to_owned(), || dig(copy, &format!("+short TXT x.wild.{ZONE}")));
    assert!(muster(&agent, &["zone", "notify", ZONE]).0.contains("NOTIFY to 1 secondary"));
    wait::poll(|| {
        let (list, _) = muster(&agent, &["zone", "list"]);
        let line = list.lines().find(|line| line.starts_with(ZONE)).unwrap_or_default().to_owned();
        let words: Vec<&str> = line.split_whitespace().collect();
        let source = listen.to_string();
        let acknowledged = format!("{copy}=5");
        match words[..] {
            [_, "secondary", "5", "14", from, _, ref rest @ ..] if from == source && rest == [&*acknowledged] => Ok(()),
            _ => Err(list),
        }
    });
    let (list, _) = muster(&agent, &["zone", "list"]);
    assert!(list.contains("missing.test.   secondary  0") && list.contains(", missing"), "{list}");
    let (shown, _) = muster(&agent, &["zone", "show", ZONE]);
    let file = folder.path().join("shown.db");
    fs::write(&file, &shown).unwrap();
    let mut check = process::command("named-checkzone");
    check.arg(ZONE).arg(&file);
    let checked = check.finish();
    assert!(checked.status.success(), "{checked:?} {shown}");
    let path = file.to_str().unwrap();
    assert_eq!(muster(&agent, &["zone", "diff", ZONE, path]), (String::new(), true));
    fs::write(&file, content(5, SLOW, "new A 192.0.2.9\n").replace("mail A 192.0.2.3\n", "").replace("Mail", "mail"))
        .unwrap();
    let expected = "+mail.copied.test. 300 IN A 192.0.2.3\n-new.copied.test. 300 IN A 192.0.2.9\n";
    assert_eq!(muster(&agent, &["zone", "diff", ZONE, path]), (expected.to_owned(), false));
    let (discovery, _) = muster(&agent, &["zone", "show", "service.local"]);
    assert!(discovery.contains("host-a.node.service.local. 5 IN A 10.0.0.7"), "{discovery}");
    let cases = [
        ("ns.copied.test", "static: the secondary zone copied.test., serial 5, defines this name"),
        ("x.wild.copied.test", "defines wildcard *.wild.copied.test."),
        ("none.copied.test", "NXDOMAIN: the secondary zone copied.test., serial 5, does not define this name"),
        ("copied.test", "static: apex of the secondary zone copied.test., serial 5"),
        ("www.missing.test", "SERVFAIL: secondary zone missing.test.: no primary has sent the zone yet"),
    ];
    for (name, expected) in cases {
        let (explained, _) = muster(&agent, &["explain", name]);
        assert!(explained.contains(expected), "{name}: {explained}");
    }
    // Without the zone in the configuration, a reload ends the copy and removes its file.
    let stored = agent.path(&format!("data/secondary-zones/{ZONE}.copy"));
    assert!(stored.exists());
    let config = fs::read_to_string(agent.path("muster.yaml")).unwrap();
    let (before, after) = config.split_once("secondary: [").unwrap();
    let end = &after[after.rfind("]}").unwrap()..];
    fs::write(agent.path("muster.yaml"), format!("{before}secondary: [{end}")).unwrap();
    muster(&agent, &["reload"]);
    assert_eq!(answer(agent.address(), "A", &format!("ns.{ZONE}")).0, "REFUSED");
    assert!(!stored.exists());
    assert!(
        agent.log().contains("copy removed: the zone is not in `dns.secondary` zone=\"copied.test.\""),
        "{}",
        agent.log()
    );
}
