//! dnstap output of the built agent, with `fstrm_capture` as the collector and `dnstap-read` as the reader, and with collectors that
//! are absent, slow or hostile.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, UdpSocket},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use hickory_proto::op::ResponseCode;
use nix::sys::signal::Signal;
use support::{
    Ask,
    agent::Agent,
    certificates::Authority,
    collector::{Collector, Seen, installed},
    document,
    dynamic::{self, Cluster, nsupdate},
    http,
    process::{self, Finish},
    run, skip,
    upstream::{Upstream, octets},
    wait,
};
use tempfile::TempDir;

const A: u16 = 1;
const SRV: u16 = 33;
const WEB: &str = "{service: web, id: w1, address: 10.0.0.1, port: 80}";

/// Starts an agent with one service and dnstap output.
fn agent(dnstap: &str, config: &str) -> Agent {
    Agent::start_with(&format!("dns: {{listen: [127.0.0.1:0], dnstap: {dnstap}}}\n{config}"), &[], |folder| {
        fs::write(folder.join("services.d/web.yaml"), WEB).unwrap();
    })
}

/// Returns the table `dnstap` of an agent that sends all messages to this socket.
fn to(socket: &Path) -> String {
    format!("{{socket: \"{}\"}}", socket.display())
}

fn connected(agent: &mut Agent) {
    agent.wait_for_log("dnstap collector connected");
}

/// A collector at a socket in a folder.
struct Tap {
    collector: Collector,
    socket: PathBuf,
    _folder: TempDir,
}

impl Tap {
    /// Starts a collector; `None` if it is not installed, which skips `test`.
    fn start(test: &str) -> Option<Self> {
        installed(test).then(|| {
            let folder = run::temp_dir();
            let socket = folder.path().join("tap");
            Self { collector: Collector::start(&socket), socket, _folder: folder }
        })
    }

    /// Starts a collector, and an agent with one service that sends it all messages.
    fn with_agent(test: &str, config: &str) -> Option<(Self, Agent)> {
        let tap = Self::start(test)?;
        let mut agent = agent(&to(&tap.socket), config);
        connected(&mut agent);
        Some((tap, agent))
    }
}

/// Returns the value of a metric.
fn metric(agent: &Agent, series: &str) -> u64 {
    let page = http::ask(agent.http(), "GET", "/metrics", "").body;
    let value = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_else(|| panic!("no {series} in {page}"))
}

fn sent(agent: &Agent) -> u64 {
    metric(agent, "muster_dnstap_messages_total{outcome=\"sent\"}")
}

fn dropped(agent: &Agent) -> u64 {
    metric(agent, "muster_dnstap_messages_total{outcome=\"dropped\"}")
}

fn wait_for_sent(agent: &Agent, messages: u64) {
    wait::until_equal("sent messages", &messages, || sent(agent));
}

fn shown(messages: &[Seen]) -> Vec<String> {
    messages.iter().map(Seen::shown).collect()
}

fn dig(agent: &Agent, arguments: &str) -> String {
    dynamic::dig(agent.address(), arguments)
}

#[test]
fn messages_have_type_transport_addresses_and_times() {
    let upstream = Upstream::start(|asked| {
        let reply = octets(&asked.address([192, 0, 2, 1], 300));
        if asked.tcp || !asked.name().to_lowercase().starts_with("long") {
            return vec![reply];
        }
        let mut truncated = reply[..reply.len()].to_vec();
        truncated[2] |= 0x02;
        vec![truncated]
    });
    let resolver = format!("resolver: {{upstreams: [\"{}\"], allow: [loopback]}}\n", upstream.address());
    let started = Tap::with_agent("messages_have_type_transport_addresses_and_times", &resolver);
    let Some((tap, agent)) = started else { return };
    // The loop probe of the start, and its reply.
    wait_for_sent(&agent, 2);
    let port = agent.address().port();
    let zone = dig(&agent, "web.service.local SRV +qid=4711 -b 127.0.0.1#0");
    assert!(zone.contains("id: 4711"), "{zone}");
    dig(&agent, "web.service.local SRV +tcp");
    dig(&agent, "nothing.service.local A");
    dig(&agent, "www.example A");
    dig(&agent, "www.example A");
    dig(&agent, "localhost A");
    dig(&agent, "long.example A");
    dig(&agent, "other.example A +norecurse");
    wait_for_sent(&agent, 2 + 22);
    drop(agent);
    let recording = tap.collector.end();
    let messages: Vec<Seen> =
        recording.seen().into_iter().filter(|seen| !seen.text.to_lowercase().contains("muster-loop")).collect();
    let expected = [
        "AUTH_QUERY UDP web.service.local. in srv",
        "AUTH_RESPONSE UDP web.service.local. in srv",
        "AUTH_QUERY TCP web.service.local. in srv",
        "AUTH_RESPONSE TCP web.service.local. in srv",
        "AUTH_QUERY UDP nothing.service.local. in a",
        "AUTH_RESPONSE UDP nothing.service.local. in a",
        "CLIENT_QUERY UDP www.example. in a",
        "FORWARDER_QUERY UDP www.example. in a",
        "FORWARDER_RESPONSE UDP www.example. in a",
        "CLIENT_RESPONSE UDP www.example. in a",
        "CLIENT_QUERY UDP www.example. in a",
        "CLIENT_RESPONSE UDP www.example. in a",
        "CLIENT_QUERY UDP localhost. in a",
        "CLIENT_RESPONSE UDP localhost. in a",
        "CLIENT_QUERY UDP long.example. in a",
        "FORWARDER_QUERY UDP long.example. in a",
        "FORWARDER_RESPONSE UDP long.example. in a",
        "FORWARDER_QUERY TCP long.example. in a",
        "FORWARDER_RESPONSE TCP long.example. in a",
        "CLIENT_RESPONSE UDP long.example. in a",
        "CLIENT_QUERY UDP other.example. in a",
        "CLIENT_RESPONSE UDP other.example. in a",
    ];
    assert_eq!(shown(&messages), expected);
    for seen in &messages {
        assert_eq!((seen.field("identity"), seen.field("version")), ("host-a", "muster 0.1.0"), "{seen:?}");
        assert_eq!(seen.field("socket_family"), "INET");
        assert_eq!((seen.field("query_address"), seen.field("response_address")), ("127.0.0.1", "127.0.0.1"));
        let responder = if seen.field("type").starts_with("FORWARDER") { upstream.address().port() } else { port };
        assert_eq!(seen.field("response_port"), responder.to_string(), "{seen:?}");
        assert_ne!(seen.field("query_port"), "", "{seen:?}");
    }
    assert!(messages[0].text.contains("id:   4711") || messages[0].text.contains("id: 4711"), "{}", messages[0].text);
    assert!(messages[1].text.contains("1 10 80 w1.web.service.local."), "{}", messages[1].text);
    let times: Vec<_> = recording
        .messages()
        .iter()
        .map(|message| {
            let queried = (message.query_time_sec.unwrap(), message.query_time_nsec.unwrap());
            let responded = message.response_time_sec.zip(message.response_time_nsec);
            assert!(responded.is_none_or(|responded| queried < responded), "{message:?}");
            assert_eq!(responded.is_some(), message.response_message.is_some());
            responded.unwrap_or(queried)
        })
        .collect();
    assert!(times.is_sorted(), "{times:?}");
}

#[test]
fn encrypted_transports_are_named() {
    const TEST: &str = "encrypted_transports_are_named";
    if !skip::tool(TEST, "kdig", "knot-dnsutils") {
        return;
    }
    let Some(tap) = Tap::start(TEST) else { return };
    let config = format!(
        "dns: {{listen: [127.0.0.1:0], dnstap: {{socket: \"{}\", messages: [auth-query, forwarder-response]}}, encrypted: \
         {{tls: 127.0.0.1:0, https: 127.0.0.1:0, quic: 127.0.0.1:0, certificate: cert.pem, key: key.pem}}}}\n",
        tap.socket.display()
    );
    let mut front = Agent::start_with(&config, &[], |folder| {
        Authority::generate().certify(folder, &["dns.example", "127.0.0.1"]);
        fs::write(folder.join("services.d/web.yaml"), WEB).unwrap();
    });
    connected(&mut front);
    let protocols = [("DNS over TLS", "+tls"), ("DNS over HTTPS", "+https"), ("DNS over QUIC", "+quic")];
    for (at, (what, option)) in protocols.iter().enumerate() {
        let mut kdig = process::command("kdig");
        kdig.args(["@127.0.0.1", "-p", &front.listening(what).port().to_string(), "+tls-hostname=dns.example"]);
        kdig.arg(format!("+tls-ca={}", front.path("ca.pem").display())).args([option, "web.service.local", "SRV"]);
        assert!(String::from_utf8(kdig.finish().stdout).unwrap().contains("1 10 80 w1"), "{what}");
        wait_for_sent(&front, at as u64 + 1);
    }
    assert_eq!(tap.collector.end().transports(), ["AuthQuery Dot", "AuthQuery Doh", "AuthQuery Doq"]);

    for (what, upstream, expected) in
        [("DNS over TLS", "tls://ADDRESS#dns.example", "Dot"), ("DNS over HTTPS", "https://ADDRESS", "Doh")]
    {
        let Some(tap) = Tap::start(TEST) else { return };
        let upstream = upstream.replace("ADDRESS", &front.listening(what).to_string());
        let config = format!(
            "domain: other.test\ndns: {{listen: [127.0.0.1:0], dnstap: {{socket: \"{}\", messages: [forwarder]}}}}\nresolver: \
             {{upstreams: [\"{upstream}\"], allow: [loopback]}}\n",
            tap.socket.display()
        );
        let authorities = front.path("ca.pem");
        let environment = [("SSL_CERT_FILE", authorities.to_str().unwrap())];
        let mut agent = Agent::start_with(&config, &environment, |_| {});
        connected(&mut agent);
        assert_eq!(agent.ask("web.service.local.", SRV).answers.len(), 1, "{what}");
        // With the loop probe.
        wait_for_sent(&agent, 4);
        drop(agent);
        let mut seen = tap.collector.end().transports();
        seen.sort();
        let [query, response] = ["Query", "Response"].map(|direction| format!("Forwarder{direction} {expected}"));
        assert_eq!(seen, [&*query, &query, &response, &response], "{what}");
    }
}

#[test]
fn updates_have_a_type_of_their_own() {
    const TEST: &str = "updates_have_a_type_of_their_own";
    if !skip::tool(TEST, "nsupdate", "bind9-dnsutils") {
        return;
    }
    let Some(tap) = Tap::start(TEST) else { return };
    let output = format!(", dnstap: {{socket: \"{}\", messages: [update, auth-response]}}", tap.socket.display());
    let mut cluster = Cluster::start(1, 1, &output);
    connected(cluster.agent_mut(0));
    cluster.wait_for_answers("NS dyn.test", "host-0.node.service.local.\n");
    let before = sent(cluster.agent(0));
    for options in [&[][..], &["-v"]] {
        let added = "zone dyn.test\nupdate add a.dyn.test 60 TXT hello";
        assert_eq!(nsupdate(cluster.server(0), Some(dynamic::KEY), options, added), "ok");
    }
    wait::until("updates", || sent(cluster.agent(0)) >= before + 4);
    drop(cluster);
    let all = tap.collector.end().seen();
    let types: Vec<String> = all
        .iter()
        .filter(|seen| seen.field("type").starts_with("UPDATE"))
        .map(|seen| format!("{} {}", seen.field("type"), seen.field("socket_protocol")))
        .collect();
    assert_eq!(types, ["UPDATE_QUERY UDP", "UPDATE_RESPONSE UDP", "UPDATE_QUERY TCP", "UPDATE_RESPONSE TCP"]);
    assert!(all.iter().any(|seen| seen.field("type") == "UPDATE_QUERY" && seen.text.contains("hello")), "{all:?}");
}

#[test]
fn responder_is_the_queried_address() {
    const TEST: &str = "responder_is_the_queried_address";
    if !skip::loopback_v6(TEST) {
        return;
    }
    for (listen, queried) in [("0.0.0.0:0", "127.0.0.2"), ("127.0.0.3:0", "127.0.0.3"), ("[::]:0", "::1")] {
        let Some(tap) = Tap::start(TEST) else { return };
        let config = format!("dns: {{listen: \"{listen}\", dnstap: {}}}\n", to(&tap.socket));
        let mut agent = Agent::start_with(&config, &[], |_| {});
        connected(&mut agent);
        let server: SocketAddr = (queried.parse::<IpAddr>().unwrap(), agent.address().port()).into();
        for options in ["", " +tcp"] {
            assert!(dynamic::dig(server, &format!("service.local SOA{options}")).contains("NOERROR"), "{listen}");
        }
        wait_for_sent(&agent, 4);
        drop(agent);
        for seen in tap.collector.end().seen() {
            assert_eq!(
                (seen.field("query_address"), seen.field("response_address")),
                (client(queried), queried),
                "{seen:?}"
            );
            assert_eq!(seen.field("response_port"), server.port().to_string());
            assert_eq!(seen.field("socket_family"), if queried.contains(':') { "INET6" } else { "INET" });
        }
    }
}

/// Returns the address from which the kernel queries an address of the loopback interface.
fn client(queried: &str) -> &str {
    if queried.contains(':') { queried } else { "127.0.0.1" }
}

#[test]
fn recorded_octets_are_those_of_the_network() {
    let Some((tap, agent)) = Tap::with_agent("recorded_octets_are_those_of_the_network", "") else { return };
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(agent.address()).unwrap();
    let mut exchanged = Vec::new();
    let query = Ask { name: "wEb.service.local.".into(), qtype: SRV, edns: Some(1232), dnssec_ok: true }.packet(0xabcd);
    for packet in [&query[..], &[&query[..], b"rest"].concat(), &[0xab, 0xcd, 0x78, 0, 0, 0, 0, 0, 0, 0, 0, 0]] {
        let mut reply = [0; 1500];
        socket.send(packet).unwrap();
        let len = socket.recv(&mut reply).unwrap();
        exchanged.extend([packet.to_vec(), reply[..len].to_vec()]);
    }
    // A response is no query.
    socket.send(&[0xff; 40]).unwrap();
    wait_for_sent(&agent, 6);
    drop(agent);
    let recorded: Vec<Vec<u8>> = tap
        .collector
        .end()
        .messages()
        .into_iter()
        .map(|message| message.query_message.or(message.response_message).unwrap().to_vec())
        .collect();
    assert_eq!(recorded, exchanged);
}

#[test]
fn collector_that_is_started_again_gets_messages() {
    let started = Tap::with_agent("collector_that_is_started_again_gets_messages", "");
    let Some((mut tap, mut agent)) = started else { return };
    agent.ask("web.service.local.", SRV);
    wait_for_sent(&agent, 2);
    tap.collector.program().kill();
    agent.wait_for_log("dnstap collector not connected; dropping messages until it is");
    let before = dropped(&agent);
    agent.ask("web.service.local.", SRV);
    wait::until("dropped messages", || dropped(&agent) > before);
    assert_eq!(metric(&agent, "muster_dnstap_connected"), 0);
    tap.collector = Collector::start(&tap.socket);
    wait::until_equal("a connection", &1, || metric(&agent, "muster_dnstap_connected"));
    let before = sent(&agent);
    agent.ask("nothing.service.local.", A);
    wait_for_sent(&agent, before + 2);
    let log = agent.log();
    drop(agent);
    let messages = shown(&tap.collector.end().seen());
    let expected = ["AUTH_QUERY UDP nothing.service.local. in a", "AUTH_RESPONSE UDP nothing.service.local. in a"];
    assert_eq!(messages[messages.len() - 2..], expected);
    assert_eq!(log.matches("dnstap collector not connected").count(), 1, "{log}");
    assert_eq!(log.matches("dnstap collector connected").count(), 2, "{log}");
}

#[test]
fn collector_that_does_not_read_delays_no_answer() {
    let started = Tap::with_agent("collector_that_does_not_read_delays_no_answer", "");
    let Some((mut tap, mut agent)) = started else { return };
    tap.collector.program().signal(Signal::SIGSTOP);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(agent.address()).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let query = Ask { name: "web.service.local.".into(), qtype: SRV, edns: Some(1232), dnssec_ok: false }.packet(7);
    let mut answers = 0;
    wait::until("dropped messages", || {
        for _ in 0..32 {
            for _ in 0..64 {
                client.send(&query).unwrap();
            }
            for _ in 0..64 {
                let mut reply = [0; 1500];
                client.recv(&mut reply).expect("an answer");
                answers += 1;
            }
        }
        dropped(&agent) > 0
    });
    agent.wait_for_log("dnstap collector does not read; dropping messages that exceed the queue");
    assert!(answers > 1000, "{answers}");
    tap.collector.program().signal(Signal::SIGCONT);
    agent.wait_for_log("dnstap collector reads again");
    wait::until_equal("all messages", &(2 * answers), || sent(&agent) + dropped(&agent));
    let log = agent.log();
    assert_eq!(log.matches("dnstap collector not connected").count(), 0, "{log}");
    let sent = sent(&agent);
    drop(agent);
    assert_eq!(tap.collector.end().messages().len() as u64, sent, "the collector has what was counted");
}

#[test]
fn absent_and_refusing_collectors_are_logged_once() {
    if !installed("absent_and_refusing_collectors_are_logged_once") {
        return;
    }
    let folder = run::temp_dir();
    let socket = folder.path().join("tap");
    let refusing = folder.path().join("other");
    let _collector = Collector::of_type(&refusing, "protobuf:other");
    for (socket, reason) in [
        (&socket, "No such file or directory"),
        (&refusing, "the collector has closed the connection in the handshake"),
    ] {
        let mut agent = agent(&to(socket), "log: {level: debug}\n");
        agent.wait_for_log("dnstap collector not connected; dropping messages until it is");
        agent.wait_for_log(reason);
        assert_eq!(agent.ask("web.service.local.", SRV).answers.len(), 1);
        wait::until("dropped messages", || dropped(&agent) > 0);
        // Later attempts are visible at the level debug only.
        wait::until("attempts", || agent.log().matches("dnstap collector not connected").count() >= 3);
        let log = agent.log();
        let loud = log.lines().filter(|line| line.contains("dnstap") && !line.contains("DEBUG")).count();
        assert_eq!(loud, 1, "{log}");
        assert!(!log.contains("ERROR"), "{log}");
    }
}

#[test]
fn new_reason_of_a_missing_collector_is_logged() {
    let folder = run::temp_dir();
    let socket = folder.path().join("tap");
    let mut agent = agent(&to(&socket), "");
    agent.wait_for_log("No such file or directory");
    fs::write(&socket, "").unwrap();
    agent.wait_for_log("Connection refused");
}

/// Sends what a hostile collector answers to READY, and returns how many octets it received before the end.
fn misbehave(mut stream: UnixStream, answer: &[u8]) -> usize {
    let mut ready = [0; 42];
    stream.read_exact(&mut ready).unwrap();
    let _ = stream.write_all(answer);
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    rest.len()
}

#[test]
fn hostile_collectors_are_left() {
    let accept = b"\0\0\0\0\0\0\0\x22\0\0\0\x01\0\0\0\x01\0\0\0\x16protobuf:dnstap.Dnstap";
    let other = b"\0\0\0\0\0\0\0\x1a\0\0\0\x01\0\0\0\x01\0\0\0\x0eprotobuf:other";
    let cases: [(&[u8], &str); 6] = [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not a collector of Frame Streams: a data frame"),
        (b"\0\0\0\0\xff\xff\xff\xff", "not a collector of Frame Streams: a control frame of 4294967295 octets"),
        (
            b"\0\0\0\0\0\0\0\x0c\0\0\0\x01\0\0\0\x07\0\0\0\0",
            "not a collector of Frame Streams: a control frame with a malformed",
        ),
        (b"\0\0\0\0\0\0\0\x04\0\0\0\x05", "a control frame Finish instead of Accept"),
        (other, "does not accept `protobuf:dnstap.Dnstap`"),
        (&[&accept[..], &[7; 5000]].concat(), "not a collector of Frame Streams: a data frame"),
    ];
    for (answer, reason) in cases {
        let folder = run::temp_dir();
        let socket = folder.path().join("tap");
        let listener = UnixListener::bind(&socket).unwrap();
        let mut agent = agent(&to(&socket), "");
        let answer = answer.to_vec();
        let collector =
            thread::spawn(move || (0..2).map(|_| misbehave(listener.accept().unwrap().0, &answer)).sum::<usize>());
        agent.wait_for_log(reason);
        assert_eq!(agent.ask("web.service.local.", SRV).metadata.response_code, ResponseCode::NoError);
        collector.join().unwrap();
    }
}

#[test]
fn reload_starts_and_ends_the_output() {
    let Some(tap) = Tap::start("reload_starts_and_ends_the_output") else { return };
    let mut agent = agent("null", "");
    let path = agent.path("muster.yaml");
    let without = fs::read_to_string(&path).unwrap();
    agent.ask("web.service.local.", SRV);
    assert_eq!((sent(&agent), dropped(&agent)), (0, 0));
    let reload = |agent: &Agent, text: &str| {
        fs::write(&path, text).unwrap();
        let output = process::muster().args(["reload", "--http-addr", &agent.http().to_string()]).finish();
        assert!(output.status.success(), "{output:?}");
    };
    reload(&agent, &without.replace("dnstap: null", &format!("dnstap: {}", to(&tap.socket))));
    connected(&mut agent);
    agent.ask("web.service.local.", SRV);
    wait_for_sent(&agent, 2);
    let queries = to(&tap.socket).replace('}', ", messages: auth-query}");
    reload(&agent, &without.replace("dnstap: null", &format!("dnstap: {queries}")));
    wait::until("a second connection", || agent.log().matches("dnstap collector connected").count() == 2);
    assert_eq!(metric(&agent, "muster_dnstap_connected"), 1);
    agent.ask("web.service.local.", SRV);
    wait_for_sent(&agent, 3);
    reload(&agent, &without);
    wait::until_equal("no connection", &0, || metric(&agent, "muster_dnstap_connected"));
    agent.ask("web.service.local.", SRV);
    let [query, response] = ["QUERY", "RESPONSE"].map(|word| format!("AUTH_{word} UDP web.service.local. in srv"));
    assert_eq!(shown(&tap.collector.end().seen()), [&*query, &response, &query]);
    assert_eq!((sent(&agent), dropped(&agent)), (3, 0));
}

/// Output of `dnstap-read` without times and ports.
fn without_numbers(output: &str) -> String {
    let is_number = |c: char| c.is_ascii_digit() || ".:".contains(c);
    let word = |word: &str| match word.rsplit_once(':') {
        Some((address, _)) if address == "127.0.0.1" => address.to_owned(),
        _ if word.len() > 10 && word.chars().any(is_number) && word.ends_with("2026") => String::new(),
        _ if word.len() > 8 && word.chars().all(is_number) => String::new(),
        _ => word.to_owned(),
    };
    output.lines().map(|line| line.split(' ').skip(2).map(word).collect::<Vec<_>>().join(" ") + "\n").collect()
}

#[test]
fn documented_commands_collect_messages() {
    const PAGE: &str = "docs/dnstap.md";
    if !installed("documented_commands_collect_messages") {
        return;
    }
    let folder = run::temp_dir();
    let here = |text: &str| {
        let folder = folder.path().to_str().unwrap();
        text.replace("/run/dnstap", folder).replace("/var/log/dnstap", folder)
    };
    let command = |kind: &str| document::commands(&document::block(PAGE, kind)).remove(0);
    let mut shell = process::command("sh");
    shell.arg("-c").arg(format!("exec {}", here(&command("run: collector").0)));
    let mut collector = support::program::Program::start(shell, folder.path());
    let socket = folder.path().join("muster.sock");
    wait::until("the socket of the collector", || socket.exists());
    let mut agent = agent(&to(&socket), "");
    connected(&mut agent);
    dig(&agent, "web.service.local SRV +cookie=0123456789abcdef");
    wait_for_sent(&agent, 2);
    drop(agent);
    collector.end();
    let (read, expected) = command("run: reader");
    let mut shell = process::command("sh");
    shell.arg("-c").arg(here(&read));
    let printed = String::from_utf8(shell.finish().stdout).unwrap();
    assert_eq!(without_numbers(&printed), without_numbers(&expected), "{printed}");
}
