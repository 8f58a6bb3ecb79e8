//! Zone files mean the same to muster as to BIND, Knot and NSD: names, data, and TTLs where the file leaves them out.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{collections::BTreeSet, fs, net::SocketAddr};

use support::{
    agent::Agent,
    primary::{Primary, Setup, Software},
    process::{self, Finish},
    program::free,
    run,
    secondary::Key,
};

const KEY: Key = Key { name: "xfr", secret: "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IDEyMzQ=" };
const ZONE: &str = "read.test";

/// All that are compared.
const ALL: &[Software] = &Software::ALL;

/// Zone files: subject, servers that read the same, and text.
const FILES: [(&str, &[Software], &str); 9] = [
    // Knot and NSD take 3600 s.
    (
        "no TTL at all: the SOA minimum",
        &[Software::Bind],
        "@ IN SOA ns h 1 3600 600 86400 300\n@ IN NS ns\nns IN A 192.0.2.1\n",
    ),
    (
        "$TTL, and a TTL of a record",
        ALL,
        "$TTL 2h\n@ SOA ns h 1 3600 600 86400 300\n@ NS ns\nns 60 A 192.0.2.1\nb A 192.0.2.2\n",
    ),
    ("a second $TTL", ALL, "$TTL 100\n@ SOA ns h 1 3600 600 86400 300\n@ NS ns\n$TTL 200\nns A 192.0.2.1\n"),
    ("units of time", ALL, "$TTL 1d2h3m4s\n@ SOA ns h 1 1h 10m 1w 5m\n@ NS ns\nns 1h30m A 192.0.2.1\n"),
    (
        "class before and behind the TTL",
        ALL,
        "$TTL 9\n@ IN SOA ns h 1 3600 600 86400 300\n@ 7 IN NS ns\nns IN 8 A 192.0.2.1\n",
    ),
    (
        "origins, blank owners, parentheses",
        ALL,
        "$TTL 9\n@ SOA ns h ( 1 ; serial\n 3600\n 600 86400\n 300 )\n NS ns\n$ORIGIN sub.read.test.\nwww A 192.0.2.1\n  A 192.0.2.2\n\
         $ORIGIN read.test.\nns A 192.0.2.3\n",
    ),
    (
        "escapes and quotes",
        ALL,
        "$TTL 9\n@ SOA ns h\\.m 1 3600 600 86400 300\n@ NS ns\nns A 192.0.2.1\na\\.b TXT \"x \\\"y\\\" \\\\ \\065;\" z\nc\\032d TXT x\n",
    ),
    // Knot and NSD fold it.
    (
        "letter case of data",
        &[Software::Bind],
        "$TTL 9\n@ SOA NS H 1 3600 600 86400 300\n@ NS NS\nNS A 192.0.2.1\nc CNAME Mixed.Case.Example.\nm MX 5 Mail.Example.\nS SRV 1 2 3 Host.Read.Test.\n",
    ),
    (
        "types of all kinds",
        ALL,
        "$TTL 9\n@ SOA ns h 1 3600 600 86400 300\n@ NS ns\nns A 192.0.2.1\nl LOC 52 22 23.000 N 4 53 32.000 E -2.00m 1m 10000m 10m\n\
         h HINFO x y\nn NAPTR 100 10 \"u\" \"sip+E2U\" \"!^.*$!sip:i@x.y!\" .\nt TLSA 3 1 1 \
         0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\ns SSHFP 4 2 \
         0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\nu TYPE65400 \\# 3 abcdef\nd DNAME new.example.\n\
         r RP who.example. .\ne TYPE108 \\# 6 00005e00532a\nv SVCB 1 ns alpn=h2,h3 port=8443 ipv4hint=192.0.2.1\nc CAA 0 issue \"ca.example\"\n",
    ),
];

/// Returns the records of a transfer as text, each once, with owners in lower case.
fn transfer(server: SocketAddr, more: &[&str]) -> BTreeSet<String> {
    let mut dig = process::command("dig");
    dig.args(["-p", &server.port().to_string(), &format!("@{}", server.ip()), "+tries=1", "+time=5", "+onesoa"]);
    dig.args(["+noall", "+answer", "AXFR", ZONE]).args(more);
    let output = String::from_utf8(dig.finish().stdout).unwrap();
    let lines = output.lines().filter(|line| !line.is_empty() && !line.starts_with(';') && !line.contains("TSIG"));
    let record = |line: &str| {
        let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        words[0].make_ascii_lowercase();
        words.join(" ")
    };
    lines.map(record).collect()
}

#[test]
fn zone_files_mean_what_other_servers_read() {
    if !Software::is_installed("zone_files_mean_what_other_servers_read") {
        return;
    }
    let mut differences = Vec::new();
    for (subject, others, text) in FILES {
        let agent = Agent::start_with("dns: {listen: [127.0.0.1:0], transfer: {allow: [loopback]}}\n", &[], |folder| {
            fs::write(folder.join(format!("zones/{ZONE}.zone")), text).unwrap();
        });
        let own = transfer(agent.address(), &[]);
        assert!(!own.is_empty(), "{subject}: {}", agent.log());
        for &software in others {
            let folder = run::temp_dir();
            let setup = Setup { listen: free(), secondary: free(), zone: ZONE, key: KEY };
            let mut primary = Primary::start(software, &setup, text, folder.path());
            let key = format!("hmac-sha256:{}:{}", KEY.name, KEY.secret);
            let asked = || transfer(setup.listen, &["-y", &key]);
            primary.program.wait_for("the zone", &false, || asked().is_empty());
            let other = asked();
            if own != other {
                let only = |one: &BTreeSet<String>, than: &BTreeSet<String>| {
                    one.difference(than).cloned().collect::<Vec<_>>().join("\n  ")
                };
                let (own, other) = (only(&own, &other), only(&other, &own));
                differences.push(format!("{subject}\n muster\n  {own}\n {software:?}\n  {other}"));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
