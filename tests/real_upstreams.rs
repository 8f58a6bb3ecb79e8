//! Resolution through Knot (authoritative, signing) and unbound (validating, also over TLS and HTTPS): replies through muster
//! equal direct replies.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{
    fmt::Write as _,
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{Record, RecordType},
    serialize::binary::BinEncodable,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use support::{
    Ask,
    agent::Agent,
    decode, extended_error,
    process::{self, Finish},
    program::free,
    run, show_data, skip,
    wait::{self, DEADLINE},
};
use tempfile::TempDir;

const A: u16 = 1;

/// Third-party name server, killed on drop.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    /// Starts the server and waits until it answers for `name`.
    fn start(mut command: Command, address: SocketAddr, folder: &Path, name: &str) -> Self {
        let log = fs::File::create(folder.join("log")).unwrap();
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let mut server = Self { child, address };
        wait::poll(|| {
            let reply = ask_once(address, &query(name, A, false, false));
            if reply.is_some_and(|reply| reply.metadata.response_code == ResponseCode::NoError) {
                return Ok(());
            }
            let log = fs::read_to_string(folder.join("log")).unwrap();
            assert!(server.child.try_wait().unwrap().is_none(), "{command:?} has ended: {log}");
            Err(format!("{command:?} does not answer: {log}"))
        });
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        process::kill_now(&mut self.child);
    }
}

fn query(name: &str, qtype: u16, dnssec_ok: bool, checking_disabled: bool) -> Vec<u8> {
    let mut query = decode(&Ask { name: name.to_owned(), qtype, edns: Some(1232), dnssec_ok }.packet(7));
    query.metadata.checking_disabled = checking_disabled;
    query.to_bytes().unwrap()
}

fn ask_once(server: SocketAddr, query: &[u8]) -> Option<Message> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    socket.send(query).ok()?;
    let mut reply = [0; 4096];
    let len = socket.recv(&mut reply).ok()?;
    Some(decode(&reply[..len]))
}

/// Queries over UDP, and over TCP if the reply is truncated.
fn ask(server: SocketAddr, query: &[u8]) -> Message {
    let reply = wait::poll(|| ask_once(server, query).ok_or("no answer"));
    if !reply.metadata.truncation {
        return reply;
    }
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(&[&(query.len() as u16).to_be_bytes(), query].concat()).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut reply).unwrap();
    decode(&reply)
}

/// Returns the records of all sections, sorted, without their TTLs.
fn records(message: &Message) -> Vec<String> {
    let show = |section: &'static str, record: &Record| {
        format!("{section} {} {} {}", record.name.to_lowercase(), record.record_type(), show_data(&record.data))
    };
    let answers = message.answers.iter().map(|record| show("answer", record));
    let mut lines: Vec<String> =
        answers.chain(message.authorities.iter().map(|record| show("authority", record))).collect();
    lines.sort();
    lines
}

/// Starts Knot with a signed zone `example.` and an unsigned zone `bogus.`, for which unbound has a trust anchor.
fn knot(folder: &Path) -> Server {
    let address = free();
    let path = folder.join("knot");
    fs::create_dir(&path).unwrap();
    let mut zone = "$TTL 300\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\nns A 127.0.0.1\nwww A 192.0.2.1\nwww AAAA \
                    2001:db8::1\nalias CNAME www\naway CNAME alias\n@ MX 10 www\ntext TXT \"a b\" \"c\"\n\
                    odd TYPE65400 \\# 3 010203\n_x._tcp SRV 1 2 3 www\n*.wild A 192.0.2.9\nsvc HTTPS 1 . alpn=h2\n\
                    caa CAA 0 issue \"ca.example\"\nnaptr NAPTR 1 2 \"s\" \"x\" \"\" www\nsub NS ns.sub\nns.sub A 127.0.0.9\n"
        .to_owned();
    for host in 0..150 {
        writeln!(zone, "many A 198.51.100.{host}").unwrap();
    }
    fs::write(path.join("example.zone"), &zone).unwrap();
    fs::write(path.join("bogus.zone"), zone).unwrap();
    let config = format!(
        "server:\n    rundir: {0}\n    listen: 127.0.0.1@{1}\n    udp-workers: 1\n    tcp-workers: 1\n    background-workers: 1\n\
         database:\n    storage: {0}\n\
         template:\n  - id: default\n    storage: {0}\n    zonefile-sync: -1\n    journal-content: none\n\
         policy:\n  - id: short\n    algorithm: ecdsap256sha256\n    single-type-signing: on\n\
         zone:\n  - domain: example\n    file: example.zone\n    dnssec-signing: on\n    dnssec-policy: short\n  \
         - domain: bogus\n    file: bogus.zone\n",
        path.display(),
        address.port()
    );
    fs::write(path.join("config"), config).unwrap();
    let mut command = process::command("knotd");
    command.arg("-c").arg(path.join("config"));
    Server::start(command, address, &path, "www.example.")
}

/// Starts unbound in front of Knot, also over TLS and HTTPS: it validates `example.` by its key and finds `bogus.` bogus.
fn unbound(folder: &Path, knot: &Server) -> (Server, SocketAddr, SocketAddr) {
    let (address, tls, https) = (free(), free(), free());
    let path = folder.join("unbound");
    fs::create_dir(&path).unwrap();
    let mut keys = process::command("keymgr");
    let output = keys.arg("-c").arg(folder.join("knot/config")).args(["example.", "ds"]).finish();
    let anchors = String::from_utf8(output.stdout).unwrap();
    let anchor = anchors.lines().next().unwrap();
    let wrong = anchor.replacen("example.", "bogus.", 1);
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "authority of a test");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = ["dns.example".to_owned(), "127.0.0.1".to_owned()];
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
    fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    fs::write(path.join("cert.pem"), certificate.pem()).unwrap();
    fs::write(path.join("key.pem"), key.serialize_pem()).unwrap();
    let folder = path.display();
    let config = format!(
        "server:\n interface: 127.0.0.1@{}\n interface: 127.0.0.1@{}\n interface: 127.0.0.1@{}\n tls-port: {}\n https-port: {}\n \
         tls-service-key: {folder}/key.pem\n tls-service-pem: {folder}/cert.pem\n num-threads: 1\n username: \"\"\n chroot: \
         \"\"\n directory: {folder}\n pidfile: {folder}/pid\n use-syslog: no\n do-not-query-localhost: no\n module-config: \
         \"validator iterator\"\n ede: yes\n local-zone: bogus. transparent\n trust-anchor: \"{anchor}\"\n trust-anchor: \
         \"{wrong}\"\n\
         remote-control:\n control-enable: no\n\
         stub-zone:\n name: example\n stub-addr: 127.0.0.1@{}\n\
         stub-zone:\n name: bogus\n stub-addr: 127.0.0.1@{}\n",
        address.port(),
        tls.port(),
        https.port(),
        tls.port(),
        https.port(),
        knot.address.port(),
        knot.address.port()
    );
    fs::write(path.join("config"), config).unwrap();
    let mut command = process::command("unbound");
    command.args(["-d", "-c"]).arg(path.join("config"));
    (Server::start(command, address, &path, "www.example."), tls, https)
}

fn agent(upstreams: &[String], folder: &TempDir) -> Agent {
    let authorities = folder.path().join("ca.pem");
    let environment = [("SSL_CERT_FILE", authorities.to_str().unwrap())];
    Agent::start_with(&format!("resolver: {{upstreams: [{}]}}\n", upstreams.join(", ")), &environment, |_| {})
}

fn quoted(server: impl std::fmt::Display) -> String {
    format!("\"{server}\"")
}

fn servers_are_installed(test: &str) -> bool {
    skip::tool(test, "keymgr", "knot") && skip::tool(test, "unbound", "unbound")
}

/// Compares all kinds of records and replies, with and without signatures, twice: the second reply is cached.
#[test]
fn replies_of_knot_pass_through() {
    if !servers_are_installed("replies_of_knot_pass_through") {
        return;
    }
    let folder = run::temp_dir();
    let knot = knot(folder.path());
    let agent = agent(&[quoted(knot.address)], &folder);
    let types = ["A", "AAAA", "MX", "TXT", "SRV", "HTTPS", "CAA", "NAPTR", "NS", "SOA", "DNSKEY", "DS"];
    let mut types: Vec<u16> = types.iter().map(|name| name.parse::<RecordType>().unwrap().into()).collect();
    types.push(65_400);
    for name in [
        "example.",
        "www.example.",
        "alias.example.",
        "away.example.",
        "text.example.",
        "odd.example.",
        "_x._tcp.example.",
        "a.wild.example.",
        "svc.example.",
        "caa.example.",
        "naptr.example.",
        "many.example.",
        "nothing.example.",
        "a.sub.example.",
    ] {
        for qtype in &types {
            for dnssec_ok in [false, true] {
                let query = query(name, *qtype, dnssec_ok, false);
                let direct = ask(knot.address, &query);
                for _ in 0..2 {
                    let through = ask(agent.address(), &query);
                    assert_eq!(records(&through), records(&direct), "{name} {qtype} {dnssec_ok}");
                    assert_eq!(through.metadata.response_code, direct.metadata.response_code, "{name} {qtype}");
                    let least = |message: &Message| message.answers.iter().map(|record| record.ttl).min();
                    assert!(least(&through) <= least(&direct), "{name} {qtype}: TTLs are never raised");
                }
            }
        }
    }
}

/// RFC 6840 §5.7, §5.8, and CD: secure, insecure and bogus names.
#[test]
fn validation_results_of_unbound_pass_through() {
    if !servers_are_installed("validation_results_of_unbound_pass_through") {
        return;
    }
    let folder = run::temp_dir();
    let knot = knot(folder.path());
    let (unbound, ..) = unbound(folder.path(), &knot);
    let agent = agent(&[quoted(unbound.address)], &folder);
    for _ in 0..2 {
        for (name, dnssec_ok, checking_disabled) in [
            ("www.example.", false, false),
            ("www.example.", true, false),
            ("www.example.", true, true),
            ("nothing.example.", true, false),
            ("www.bogus.", false, true),
        ] {
            let query = query(name, A, dnssec_ok, checking_disabled);
            let (direct, through) = (ask(unbound.address, &query), ask(agent.address(), &query));
            assert_eq!(records(&through), records(&direct), "{name} {dnssec_ok} {checking_disabled}");
            let flags = |message: &Message| (message.metadata.authentic_data, message.metadata.checking_disabled);
            assert_eq!(flags(&through), flags(&direct), "{name} {dnssec_ok} {checking_disabled}");
        }
        let bogus = ask(agent.address(), &query("www.bogus.", A, false, false));
        assert_eq!(bogus.metadata.response_code, ResponseCode::ServFail);
        let direct = ask(unbound.address, &query("www.bogus.", A, false, false));
        let code = |message: &Message| extended_error(message).map(|(code, _)| code);
        assert!(code(&direct).is_some(), "unbound sends an EDE");
        assert_eq!(code(&bogus), code(&direct));
    }
}

#[test]
fn unbound_is_queried_over_tls_and_https() {
    if !servers_are_installed("unbound_is_queried_over_tls_and_https") {
        return;
    }
    let folder = run::temp_dir();
    let knot = knot(folder.path());
    let (unbound, tls, https) = unbound(folder.path(), &knot);
    for server in [format!("tls://{tls}#dns.example"), format!("https://{https}#dns.example"), format!("tls://{tls}")] {
        let agent = agent(&[quoted(&server)], &folder);
        for name in ["www.example.", "many.example.", "nothing.example."] {
            let query = query(name, A, true, false);
            let (direct, through) = (ask(unbound.address, &query), ask(agent.address(), &query));
            assert_eq!(records(&through), records(&direct), "{server} {name}");
        }
    }
}

/// With one dead upstream replies continue; with both dead they are stale (RFC 8767).
#[test]
fn dead_upstreams_do_not_fail_queries() {
    if !servers_are_installed("dead_upstreams_do_not_fail_queries") {
        return;
    }
    let folder = run::temp_dir();
    let knot = knot(folder.path());
    let (unbound, ..) = unbound(folder.path(), &knot);
    let agent = agent(&[quoted(knot.address), quoted(unbound.address)], &folder);
    let asked = |name: &str| ask(agent.address(), &query(name, A, false, false));
    assert_eq!(asked("a.wild.example.").answers.len(), 1);
    // Caches the name in unbound, before Knot ends.
    ask(unbound.address, &query("www.example.", A, false, false));
    drop(knot);
    assert_eq!(asked("www.example.").answers.len(), 1, "from unbound's cache");
    drop(unbound);
    let gone = wait::poll(|| {
        let reply = asked("unknown.example.");
        if reply.metadata.response_code == ResponseCode::ServFail { Ok(reply) } else { Err(Box::new(reply)) }
    });
    let (code, text) = extended_error(&gone).unwrap();
    assert_eq!(code, 22, "{text}");
    assert!(text.contains("connection refused"), "{text}");
}
