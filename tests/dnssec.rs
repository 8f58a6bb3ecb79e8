//! Signed zones of the built agent, as validators of others see them: delv (BIND), unbound, and BIND's tools for keys.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

#[path = "dnssec/diagnostic_tools.rs"]
mod diagnostic_tools;
#[path = "dnssec/presigned.rs"]
mod presigned;
#[path = "dnssec/updated_and_copied.rs"]
mod updated_and_copied;

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use hickory_proto::op::ResponseCode;
use support::{
    agent::Agent,
    process::{self, Finish},
    program::{Program, free},
    run, skip,
    upstream::{Upstream, octets},
    wait::{self, until},
};

const ZONE: &str = r#"$TTL 300
@ SOA ns1 hostmaster 7 3600 600 86400 60
@ NS ns1
@ MX 10 Mail
ns1 A 192.0.2.1
www A 192.0.2.2
www A 192.0.2.1
mail A 192.0.2.9
alias CNAME www
chain CNAME alias
live CNAME web.service.local.
*.wild A 192.0.2.3
*.wild TXT "w"
*.cname CNAME www
*.out CNAME www.elsewhere.net.
a.b.c A 192.0.2.4
sub NS ns.sub
ns.sub A 192.0.2.5
sec NS ns.sec
sec DS 12345 13 2 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
ns.sec A 192.0.2.6
txt TXT "Hello World"
moved DNAME other.example.org.
www.other A 192.0.2.7
"#;

/// The parent of `example.org`, without its DS records.
const PARENT: &str = "$TTL 300\n@ SOA ns1.example hostmaster 1 3600 600 86400 60\n@ NS ns1.example\nexample NS ns1.example\n\
                      ns1.example A 192.0.2.1\n";

const SERVICES: &str = r#"services:
- {service: web, id: w1, address: 10.0.0.1, port: 80, tags: [v2]}
- {service: web, id: w2, address: [10.0.0.2, "fd00::2"], port: 80, ports: {http: 8080}, alpn: [h2], meta: {version: "1"}}
- {service: down, id: d1, address: 10.0.0.3, port: 80, enabled: false}
"#;

const REVERSE: &str =
    "$TTL 300\n@ SOA ns1.example.org. hostmaster.example.org. 1 3600 600 86400 60\n@ NS ns1.example.org.\n";

const CONFIG: &str = "alias_domains: [disco.example, {domain: consul.example, scheme: consul}]\n\
                      dns: {listen: [127.0.0.1:0], dnssec_keys_dir: keys, \
                      dnssec: [service.local, example.org, org, disco.example, consul.example, 0.0.10.in-addr.arpa]}\n";
const ZONES: [&str; 6] =
    ["service.local", "example.org", "org", "disco.example", "consul.example", "0.0.10.in-addr.arpa"];

/// Makes a key of a zone; returns the name of its files without extension.
fn keygen(folder: &Path, zone: &str, options: &[&str]) -> String {
    let made = process::muster().args(["dnssec", "keygen", zone, "--dir"]).arg(folder).args(options).finish();
    assert!(made.status.success(), "{made:?}");
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
}

fn signed_agent() -> Agent {
    Agent::start_with(CONFIG, &[], |folder| {
        fs::write(folder.join("zones/example.org.zone"), ZONE).unwrap();
        fs::write(folder.join("zones/0.0.10.in-addr.arpa.zone"), REVERSE).unwrap();
        fs::write(folder.join("services.d/web.yaml"), SERVICES).unwrap();
        for zone in ZONES {
            if zone == "disco.example" {
                keygen(&folder.join("keys"), zone, &["--role", "zsk"]);
                keygen(&folder.join("keys"), zone, &["--role", "ksk"]);
            } else {
                keygen(&folder.join("keys"), zone, &[]);
            }
        }
        let ds = muster(&["dnssec", "ds", "example.org", "--dir", folder.join("keys").to_str().unwrap()]);
        fs::write(folder.join("zones/org.zone"), format!("{PARENT}{ds}")).unwrap();
    })
}

/// Returns the flags, protocol, algorithm and key of a public key file.
fn public_key(path: &Path) -> (String, Vec<String>) {
    let text = fs::read_to_string(path).unwrap();
    let record = text.lines().find(|line| !line.starts_with(';')).unwrap();
    let words: Vec<String> = record.split(' ').map(str::to_owned).collect();
    (words[0].clone(), words[3..].to_vec())
}

/// Writes trust anchors of these keys for delv.
fn anchors(file: &Path, keys: &[PathBuf]) {
    let mut text = "trust-anchors {\n".to_owned();
    for key in keys {
        let (zone, fields) = public_key(key);
        // Parents refer to entry points only.
        if fields[0] != "257" {
            continue;
        }
        let (numbers, key) = (fields[..3].join(" "), &fields[3]);
        writeln!(text, "\"{zone}\" static-key {numbers} \"{key}\";").unwrap();
    }
    fs::write(file, text + "};\n").unwrap();
}

fn public_keys(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "key")).collect()
}

/// Returns delv's output for a question, validated with the anchors in a file.
fn delv(agent: &Agent, anchors: &Path, zone: &str, name: &str, qtype: &str) -> String {
    let address = agent.address();
    let answer = process::command("delv")
        .args([format!("@{}", address.ip()), "-p".to_owned(), address.port().to_string(), "-a".to_owned()])
        .arg(anchors)
        .args([&format!("+root={zone}"), "+nocrypto", "-t", qtype, "-q", name])
        .finish();
    String::from_utf8_lossy(&answer.stdout).into_owned() + &String::from_utf8_lossy(&answer.stderr)
}

/// Returns dig's output for a question to the agent, with one space between the fields of a record.
fn dig(agent: &Agent, arguments: &[&str]) -> String {
    let (ip, port) = (format!("@{}", agent.address().ip()), agent.address().port().to_string());
    let answer = process::command("dig").args([&ip, "-p", &port]).args(arguments).finish();
    let text = String::from_utf8(answer.stdout).unwrap();
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n").collect()
}

/// RFC 4035 §3.1, RFC 4470.
#[test]
fn delv_validates_answers_of_every_kind() {
    if !skip::tool("delv_validates_answers_of_every_kind", "delv", "bind9-dnsutils") {
        return;
    }
    let agent = signed_agent();
    let file = agent.path("anchors");
    anchors(&file, &public_keys(&agent.path("keys")));
    let positive = "; fully validated";
    let nodata = "ncache nxrrset";
    let absent = "ncache nxdomain";
    let cases = [
        ("example.org", "@ SOA, @ NS, @ DNSKEY, @ CDS, @ CDNSKEY, @ MX, @ NSEC", positive),
        ("example.org", "www A, alias A, chain A, WWW A, a.b.c A, txt TXT, www NSEC, alias NSEC", positive),
        ("example.org", "x.wild A, y.z.wild TXT, *.wild A, x.cname A, x.out CNAME, sec DS, c NSEC", positive),
        ("example.org", "moved DNAME, www.moved A", positive),
        ("example.org", "www AAAA, alias AAAA, @ AAAA, c A, b.c A, wild A, sub DS, x.wild AAAA, x.cname AAAA", nodata),
        ("example.org", "nope A, a.b.nope A, z.b.c A, a.nope.c A, nope.www A, wwx A, 0 A, zzzz A, _ A, - A", absent),
        ("service.local", "@ SOA, @ NS, @ DNSKEY, @ CDS, web A, web AAAA, web SRV, WEB SRV, _web._tcp SRV", positive),
        ("service.local", "w1.web A, w2.web AAAA, w2.web TXT, v2.web A, _http._tcp.web SRV, _why.web TXT", positive),
        ("service.local", "host-a.node A, host-a.node TXT, _services._dns-sd._udp PTR, _web._tcp PTR", positive),
        ("service.local", "w1._web._tcp SRV, w1._web._tcp TXT, web HTTPS", positive),
        ("service.local", "@ A, web TXT, down A, w1.web AAAA, _tcp A, node A, _tcp.web A, _why.web A", nodata),
        ("service.local", "nope A, x.web A, x.y.web A, _x._tcp SRV, _x._tcp.web SRV, x.node A, a.b.c.nope A", absent),
        ("disco.example", "@ DNSKEY, web A, web SRV, _web._tcp SRV, w1.web A, host-a.node A", positive),
        ("disco.example", "web TXT, _tcp A", nodata),
        ("disco.example", "nope A", absent),
        (
            "consul.example",
            "@ SOA, web.service A, web.service SRV, web.service.dc1 SRV, _web._tcp.service SRV",
            positive,
        ),
        ("consul.example", "host-a.node A, 0a000001.addr A, v2.web.service A", positive),
        ("consul.example", "web.service TXT, down.service A, service A, 0a000001.addr AAAA", nodata),
        ("consul.example", "nope.service A, x.node A, nope A", absent),
        ("0.0.10.in-addr.arpa", "@ SOA, 1 PTR, 7 PTR, 2 PTR", positive),
        ("0.0.10.in-addr.arpa", "1 A, @ PTR", nodata),
        ("0.0.10.in-addr.arpa", "77 PTR, x.1 PTR", absent),
    ];
    for (zone, questions, expected) in cases {
        for question in questions.split(", ") {
            let (name, qtype) = question.split_once(' ').unwrap();
            let name = if name == "@" { zone.to_owned() } else { format!("{name}.{zone}") };
            let shown = delv(&agent, &file, zone, &name, qtype);
            assert!(shown.contains(expected) && shown.contains("fully validated"), "{name} {qtype}: {shown}");
        }
    }
    // The DS record at the parent leads to the key of the zone.
    let keys = public_keys(&agent.path("keys")).into_iter();
    let parent: Vec<PathBuf> = keys.filter(|path| path.to_string_lossy().contains("/Korg.")).collect();
    anchors(&file, &parent);
    for name in ["www.example.org", "nope.example.org"] {
        let shown = delv(&agent, &file, "org", name, "A");
        assert!(shown.contains("fully validated"), "{name}: {shown}");
    }
}

/// RFC 4035 §3.1.4: a referral has the DS RRset, or the proof that there is none. RFC 3225: signatures are for clients that ask.
#[test]
fn signatures_are_for_clients_that_ask_and_referrals_prove_their_security() {
    if !skip::tool("signatures_are_for_clients_that_ask", "dig", "bind9-dnsutils") {
        return;
    }
    let agent = signed_agent();
    let dig = |arguments: &[&str]| dig(&agent, &[&["+norecurse"], arguments].concat());
    let secure = dig(&["+dnssec", "x.sec.example.org"]);
    assert!(secure.contains("DS 12345") && secure.contains("RRSIG DS"), "{secure}");
    assert!(!secure.contains("RRSIG NS") && !secure.contains("RRSIG A"), "{secure}");
    let insecure = dig(&["+dnssec", "x.sub.example.org"]);
    assert!(insecure.contains("NSEC \\000.sub.example.org. NS RRSIG NSEC"), "{insecure}");
    for question in ["www.example.org", "nope.example.org", "web.service.local"] {
        let plain = dig(&["+nodnssec", question]);
        assert!(!plain.contains("RRSIG") && !plain.contains("NSEC"), "{plain}");
    }
    // The authoritative server does not validate: AD and CD are clear (RFC 4035 §3.1.6).
    let flags = dig(&["+dnssec", "+adflag", "+cdflag", "www.example.org"]);
    assert!(flags.contains("flags: qr aa;"), "{flags}");
    // The additional section goes first, then TC.
    let whole = dig(&["+dnssec", "+bufsize=4096", "web.service.local", "SRV"]);
    let cut = dig(&["+dnssec", "+bufsize=512", "+ignore", "web.service.local", "SRV"]);
    let addresses = |text: &str| text.matches(" AAAA ").count() + text.matches(" A ").count();
    assert!(addresses(&whole) > addresses(&cut) && cut.contains("RRSIG SRV") && !cut.contains(" tc"), "{cut}");
    // Proofs that do not fit are sent over TCP.
    let cut = dig(&["+dnssec", "+bufsize=512", "+ignore", "nope.nope.example.org"]);
    assert!(cut.contains("flags: qr aa tc;"), "{cut}");
    let whole = dig(&["+dnssec", "+bufsize=512", "nope.nope.example.org"]);
    assert!(whole.contains("(TCP)") && whole.matches("RRSIG NSEC 13").count() == 2, "{whole}");
    let refused = dig(&["+dnssec", "www.example.org", "RRSIG"]);
    assert!(refused.contains("REFUSED"), "{refused}");
}

/// A secondary without signatures would answer what validators reject.
#[test]
fn zone_that_is_signed_online_is_copied_only_if_unsigned_copies_are_wanted() {
    let test = "zone_that_is_signed_online_is_copied_only_if_unsigned_copies_are_wanted";
    if !skip::tool(test, "dig", "bind9-dnsutils") {
        return;
    }
    // The secondary refuses NOTIFY.
    let secondary = Upstream::start(|asked| vec![octets(&asked.reply(ResponseCode::Refused))]);
    let config = format!(
        "dns: {{listen: [127.0.0.1:0], dnssec: [service.local, example.org], dnssec_keys_dir: keys, \
         transfer: {{allow: [loopback], unsigned: [service.local], notify: [\"{}\"]}}}}\n",
        secondary.address()
    );
    let mut agent = Agent::start_with(&config, &[], |folder| {
        fs::write(folder.join("zones/example.org.zone"), ZONE).unwrap();
        ["service.local", "example.org"].iter().for_each(|zone| drop(keygen(&folder.join("keys"), zone, &[])));
    });
    let copied = dig(&agent, &["service.local", "AXFR"]);
    assert!(copied.contains("IN SOA") && !copied.contains("DNSKEY") && !copied.contains("RRSIG"), "{copied}");
    let refused = dig(&agent, &["example.org", "AXFR"]);
    assert!(refused.contains("Transfer failed"), "{refused}");
    agent.wait_for_log("list it in `dns.transfer.unsigned` if that is wanted");
    agent.wait_for_log("secondaries are not notified: the zone is signed online");
    agent.wait_for_log("secondary refuses NOTIFY");
    let notify = |zone: &str| muster(&["zone", "notify", zone, "--http-addr", &agent.http().to_string()]);
    for (zone, expected) in [("service.local", "NOTIFY to 1 secondary"), ("example.org", "the zone is signed online")] {
        let text = notify(zone);
        assert!(text.contains(expected), "{zone}: {text}");
    }
    assert!(secondary.asked().iter().all(|asked| !asked.name().starts_with("example.org")));
}

/// RFC 4035 §3.1.3.3: the proof belongs to our part of the answer.
#[test]
fn wildcard_in_front_of_an_answer_of_an_upstream_is_proven() {
    let test = "wildcard_in_front_of_an_answer_of_an_upstream_is_proven";
    if !skip::tool(test, "dig", "bind9-dnsutils") {
        return;
    }
    let upstream = Upstream::start(|asked| vec![octets(&asked.address([192, 0, 2, 77], 60))]);
    let config = format!(
        "dns: {{listen: [127.0.0.1:0], dnssec: [example.org], dnssec_keys_dir: keys}}\n\
         resolver: {{allow: [loopback], upstreams: [\"{}\"]}}\n",
        upstream.address()
    );
    let agent = Agent::start_with(&config, &[], |folder| {
        fs::write(folder.join("zones/example.org.zone"), ZONE).unwrap();
        keygen(&folder.join("keys"), "example.org", &[]);
    });
    // The second answer comes from the cache.
    for _ in 0..2 {
        let shown = dig(&agent, &["+dnssec", "x.y.out.example.org"]);
        for record in ["CNAME www.elsewhere.net.", "RRSIG CNAME", "192.0.2.77", "IN NSEC ", "RRSIG NSEC"] {
            assert!(shown.contains(record), "{record}: {shown}");
        }
    }
}

/// coredns#4448: a signature must belong to the records beside it, whenever they change.
#[test]
fn unbound_validates_answers_while_instances_change() {
    let test = "unbound_validates_answers_while_instances_change";
    if !skip::tool(test, "unbound", "unbound") || !skip::tool(test, "dig", "bind9-dnsutils") {
        return;
    }
    let agent = signed_agent();
    let (folder, address) = (run::temp_dir(), free());
    let mut config = format!(
        "server:\n interface: {ip}\n port: {port}\n use-syslog: no\n username: \"\"\n chroot: \"\"\n pidfile: \"\"\n \
         directory: \"{folder}\"\n do-not-query-localhost: no\n module-config: \"validator iterator\"\n cache-max-ttl: 0\n \
         cache-max-negative-ttl: 0\n do-ip6: no\n val-log-level: 2\n local-zone: \"example.org.\" nodefault\n",
        ip = address.ip(),
        port = address.port(),
        folder = folder.path().display()
    );
    for key in public_keys(&agent.path("keys")) {
        let (zone, fields) = public_key(&key);
        writeln!(config, " trust-anchor: \"{zone} DNSKEY {}\"", fields.join(" ")).unwrap();
    }
    config.push_str("remote-control:\n control-enable: no\n");
    for zone in ZONES {
        writeln!(config, "stub-zone:\n name: {zone}.\n stub-addr: 127.0.0.1@{}", agent.address().port()).unwrap();
    }
    let path = folder.path().join("unbound.conf");
    fs::write(&path, config).unwrap();
    let mut command = process::command("unbound");
    command.args(["-d", "-p", "-c"]).arg(&path);
    let unbound = Program::start(command, folder.path());
    let dig = |name: &str, qtype: &str| {
        let (ip, port) = (format!("@{}", address.ip()), address.port().to_string());
        let answer = process::command("dig").args([&ip, "-p", &port, "+dnssec", "+tries=1", name, qtype]).finish();
        String::from_utf8_lossy(&answer.stdout).into_owned()
    };
    until("unbound answers", || dig("web.service.local", "A").contains("status: NOERROR"));
    let questions = [
        ("web.service.local", "A", "NOERROR"),
        ("web.service.local", "SRV", "NOERROR"),
        ("_web._tcp.disco.example", "SRV", "NOERROR"),
        ("web.service.local", "TXT", "NOERROR"),
        ("down.service.local", "A", "NOERROR"),
        ("x.web.service.local", "A", "NXDOMAIN"),
        ("x.wild.example.org", "A", "NOERROR"),
        ("x.wild.example.org", "AAAA", "NOERROR"),
        ("live.example.org", "A", "NOERROR"),
        ("b.c.example.org", "A", "NOERROR"),
        ("nope.example.org", "A", "NXDOMAIN"),
    ];
    for round in 0..12 {
        let port = 80 + round % 2;
        agent.write_service(
            "web.yaml",
            &SERVICES.replace("port: 80", &format!("port: {port}")).replace("10.0.0.1", &format!("10.0.1.{round}")),
        );
        for (name, qtype, status) in questions {
            let shown = dig(name, qtype);
            let is_valid = shown.contains(&format!("status: {status}")) && shown.contains(" ad;");
            assert!(is_valid, "{name} {qtype}: {shown}\n{}", unbound.log());
        }
    }
}

/// Tags of the keys with which dig shows the A records of `web` signed.
fn signing_tags(agent: &Agent, name: &str, qtype: &str) -> Vec<String> {
    let text = dig(agent, &["+dnssec", "+short", name, qtype]);
    // TYPE ALGORITHM LABELS TTL EXPIRATION INCEPTION TAG SIGNER SIGNATURE
    let mut tags: Vec<String> = text
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .filter(|words| words.len() > 8 && words[0] == qtype && words[1] == "13")
        .map(|words| words[6].to_owned())
        .collect();
    tags.sort();
    tags
}

fn tag(stem: &str) -> String {
    stem.rsplit('+').next().unwrap().trim_start_matches('0').to_owned()
}

/// RFC 6781 §4.1.3: both keys sign until the parent has the DS record of the new one.
#[test]
fn key_is_rolled_over_by_its_times() {
    let test = "key_is_rolled_over_by_its_times";
    if !skip::tool(test, "delv", "bind9-dnsutils") || !skip::tool(test, "dnssec-settime", "bind9-utils") {
        return;
    }
    let mut first = String::new();
    let agent = Agent::start_with(
        "dns: {listen: [127.0.0.1:0], dnssec: [service.local], dnssec_keys_dir: keys}\n",
        &[],
        |folder| {
            fs::write(folder.join("services.d/web.yaml"), SERVICES).unwrap();
            first = keygen(&folder.join("keys"), "service.local", &[]);
        },
    );
    let keys = agent.path("keys");
    let [old, new] = [agent.path("anchors.old"), agent.path("anchors.new")];
    anchors(&old, &[keys.join(format!("{first}.key"))]);
    let validates =
        |anchors: &Path| delv(&agent, anchors, "service.local", "web.service.local", "A").contains("fully validated");
    assert!(validates(&old));

    // The new key is published before it signs.
    let second = keygen(&keys, "service.local", &["--activate", "3s"]);
    anchors(&new, &[keys.join(format!("{second}.key"))]);
    let published =
        |tag: &str| dig(&agent, &["+multiline", "service.local", "DNSKEY"]).contains(&format!("key id = {tag}"));
    until("the new key is published", || published(&tag(&second)));
    assert_eq!(signing_tags(&agent, "web.service.local", "A"), [tag(&first)]);

    // Both keys sign, and CDS asks the parent for both.
    let mut both = [tag(&first), tag(&second)];
    both.sort();
    wait::until_equal("both keys sign", &both[..], || signing_tags(&agent, "web.service.local", "A"));
    assert_eq!(signing_tags(&agent, "service.local", "DNSKEY"), both);
    assert!(validates(&old) && validates(&new));

    // The old key retires, by BIND's tool.
    let settime = |option: &str| {
        let done = process::command("dnssec-settime").args([option, "now", "-K"]).arg(&keys).arg(&first).finish();
        assert!(done.status.success(), "{done:?}");
    };
    settime("-I");
    wait::until_equal("the new key signs", &[tag(&second)][..], || signing_tags(&agent, "web.service.local", "A"));
    assert!(published(&tag(&first)) && validates(&new));
    settime("-D");
    until("the old key is gone", || !published(&tag(&first)));
    assert!(validates(&new) && !validates(&old));
}

/// Returns stdout and stderr of a command of muster.
fn muster(arguments: &[&str]) -> String {
    let done = process::muster().args(arguments).finish();
    String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr)
}

#[test]
fn key_files_and_ds_records_are_those_of_bind() {
    let test = "key_files_and_ds_records_are_those_of_bind";
    if !skip::tool(test, "dnssec-dsfromkey", "bind9-utils") {
        return;
    }
    let folder = run::temp_dir();
    let keys = folder.path().join("keys");
    let ours = keygen(&keys, "Example.org", &[]);
    let made = process::command("dnssec-keygen")
        .args(["-a", "13", "-f", "KSK", "-L", "600", "-K"])
        .arg(&keys)
        .arg("bind.example")
        .finish();
    let theirs = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    for (zone, stem) in [("example.org", ours), ("bind.example", theirs)] {
        let mode = fs::metadata(keys.join(format!("{stem}.private"))).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let ds = process::command("dnssec-dsfromkey").arg(keys.join(&stem)).finish();
        let shown = muster(&["dnssec", "ds", zone, "--dir", keys.to_str().unwrap()]);
        assert_eq!(shown, String::from_utf8(ds.stdout).unwrap());
    }
}

/// The parent of a zone must not have the DS record of a key that is gone. The times are in both files.
#[test]
fn ds_records_leave_out_deleted_keys() {
    let folder = run::temp_dir();
    let keys = folder.path().join("keys");
    let gone = keygen(&keys, "example.org", &["--delete", "0s"]);
    let kept = keygen(&keys, "example.org", &["--delete", "1d"]);
    let shown = || muster(&["dnssec", "ds", "example.org", "--dir", keys.to_str().unwrap()]);
    let tag = |stem: &str| format!(" DS {} ", stem.rsplit('+').next().unwrap().trim_start_matches('0'));
    for _ in 0..2 {
        assert!(shown().contains(&tag(&kept)) && !shown().contains(&tag(&gone)), "{}", shown());
        // A user who may not read private keys.
        for stem in [&gone, &kept] {
            drop(fs::remove_file(keys.join(format!("{stem}.private"))));
        }
    }
}

#[test]
fn broken_key_file_keeps_the_former_key_and_shows_no_secret() {
    let test = "broken_key_file_keeps_the_former_key_and_shows_no_secret";
    if !skip::tool(test, "dig", "bind9-dnsutils") {
        return;
    }
    let mut stem = String::new();
    let mut agent = Agent::start_with(
        "dns: {listen: [127.0.0.1:0], dnssec: [service.local, nope.example], dnssec_keys_dir: keys}\n",
        &[],
        |folder| {
            fs::write(folder.join("services.d/web.yaml"), SERVICES).unwrap();
            stem = keygen(&folder.join("keys"), "service.local", &[]);
        },
    );
    let private = agent.path(&format!("keys/{stem}.private"));
    let text = fs::read_to_string(&private).unwrap();
    let secret = text.lines().find_map(|line| line.strip_prefix("PrivateKey: ")).unwrap().to_owned();
    let http = format!("http://{}", agent.http());
    let status = || muster(&["status", "--http-addr", &http]);
    assert!(status().contains(&format!("1 key: service.local. {}", tag(&stem))), "{}", status());
    assert!(status().contains("no key of the zone nope.example.: muster does not sign it"), "{}", status());

    fs::write(&private, text.replace(&secret, &secret[1..])).unwrap();
    agent.wait_for_log("the field `PrivateKey` is not base64 of 32 octets");
    // Another valid key: the pair does not fit.
    let other = keygen(&agent.path("other"), "service.local", &[]);
    fs::copy(agent.path(&format!("other/{other}.private")), &private).unwrap();
    agent.wait_for_log("the private key does not belong to the public key");
    assert_eq!(signing_tags(&agent, "web.service.local", "A"), [tag(&stem)]);

    let config = agent.path("muster.yaml");
    let validated = muster(&["validate", config.to_str().unwrap()]);
    for problem in [
        "the private key does not belong to the public key",
        "no key of the zone nope.example.: muster does not sign it",
        "`dns.dnssec` names nope.example., which is no zone of this node",
    ] {
        assert!(validated.contains(problem), "{validated}");
    }
    fs::set_permissions(&private, fs::Permissions::from_mode(0o644)).unwrap();
    let validated = muster(&["validate", config.to_str().unwrap()]);
    assert!(validated.contains("every user of this host can read this secret"), "{validated}");
    for shown in [validated, status(), agent.log()] {
        assert!(!shown.contains(&secret) && !shown.contains(&secret[1..]), "{shown}");
    }
    let explained = muster(&["explain", "web", "--http-addr", &http]);
    assert!(explained.contains(&format!("is signed (DNSSEC) with the key {}", tag(&stem))), "{explained}");
}
