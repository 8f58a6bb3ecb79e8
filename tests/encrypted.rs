//! DNS over TLS, HTTPS and QUIC of the built binary, queried with kdig and curl; and upstreams over TLS and HTTPS.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{fs, net::SocketAddr, thread};

use hickory_proto::op::ResponseCode;
use support::{
    agent::Agent,
    certificates::Authority,
    decode, extended_error,
    process::{self, Finish},
    show_data, skip,
    upstream::{Upstream, octets},
    wait::until,
};

const A: u16 = 1;
const WEB: &str = "{service: web, id: w1, address: 10.0.0.1, port: 80}";
/// Name in the certificate.
const NAME: &str = "dns.example";

/// Starts an agent with encrypted listeners, certified for [`NAME`] and 127.0.0.1, and a resolver for `upstream`.
fn agent(authority: &Authority, upstream: Option<&Upstream>) -> Agent {
    let resolver = match upstream {
        Some(upstream) => format!("{{upstreams: [\"{}\"]}}", upstream.address()),
        None => "{allow: []}".to_owned(),
    };
    let config = format!(
        "dns: {{listen: [127.0.0.1:0], encrypted: {{tls: 127.0.0.1:0, https: 127.0.0.1:0, quic: 127.0.0.1:0, certificate: \
         cert.pem, key: key.pem}}}}\nresolver: {resolver}\n"
    );
    Agent::start_with(&config, &[], |folder| {
        authority.certify(folder, &[NAME, "127.0.0.1"]);
        fs::write(folder.join("services.d/web.yaml"), WEB).unwrap();
    })
}

/// Runs kdig with the transport options `way` against `address`; returns its output.
fn kdig(agent: &Agent, address: SocketAddr, way: &[&str], question: &[&str]) -> String {
    let output = process::command("kdig")
        .args(["@127.0.0.1", "-p", &address.port().to_string(), &format!("+tls-hostname={NAME}"), "+retry=0"])
        .arg(format!("+tls-ca={}", agent.path("ca.pem").display()))
        .args(way)
        .args(question)
        .finish();
    String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
}

#[test]
fn all_transports_give_the_same_answers() {
    if !skip::tool("all_transports_give_the_same_answers", "kdig", "knot-dnsutils") {
        return;
    }
    let upstream = Upstream::start(|asked| vec![octets(&asked.address([192, 0, 2, 1], 300))]);
    let agent = agent(&Authority::generate(), Some(&upstream));
    for (what, ways) in [
        ("DNS over TLS", &[&["+tls"][..]][..]),
        ("DNS over HTTPS", &[&["+https"][..], &["+https", "+https-get"]]),
        ("DNS over QUIC", &[&["+quic"]]),
    ] {
        let address = agent.listening(what);
        for way in ways {
            let ours = kdig(&agent, address, way, &["web.service.local", "SRV"]);
            assert!(ours.contains("1 10 80 w1.web.service.local."), "{way:?}: {ours}");
            assert!(ours.contains("10.0.0.1"), "{way:?}: the additional section: {ours}");
            let worlds = kdig(&agent, address, way, &["www.example", "A"]);
            assert!(worlds.contains("192.0.2.1"), "{way:?}: {worlds}");
            let nothing = kdig(&agent, address, way, &["nothing.service.local", "A"]);
            assert!(nothing.contains("NXDOMAIN"), "{way:?}: {nothing}");
        }
    }
}

#[test]
fn renewed_certificate_is_used_without_a_restart() {
    if !skip::tool("renewed_certificate_is_used_without_a_restart", "kdig", "knot-dnsutils") {
        return;
    }
    let authority = Authority::generate();
    let mut agent = agent(&authority, None);
    let address = agent.listening("DNS over TLS");
    let asked = |agent: &Agent| kdig(agent, address, &["+tls"], &["web.service.local", "SRV"]);
    assert!(asked(&agent).contains("w1.web"));
    // An incomplete renewal: the certificate file is still empty.
    fs::write(agent.path("cert.pem"), "").unwrap();
    agent.wait_for_log("keeping the previous certificate");
    assert!(asked(&agent).contains("w1.web"));
    let other = Authority::generate();
    other.certify(&agent.path(""), &[NAME]);
    agent.wait_for_log("certificate renewed");
    until("the new certificate, of another authority, is in use", || asked(&agent).contains("w1.web"));
}

#[test]
fn invalid_https_requests_get_an_error_status() {
    if !skip::tool("invalid_https_requests_get_an_error_status", "curl", "curl") {
        return;
    }
    let agent = agent(&Authority::generate(), None);
    let base = format!("https://{}", agent.listening("DNS over HTTPS"));
    let long = "A".repeat(6000);
    let get = |path: &str| vec![format!("{base}{path}")];
    let post = |kind: &str, body: &str| {
        let kind = format!("content-type: {kind}");
        [&format!("{base}/dns-query"), "-H", &kind, "--data-binary", body].map(ToString::to_string).to_vec()
    };
    // A query for the root's NS, in base64url (RFC 4648 §5).
    let query = "AAABAAABAAAAAAAAAAACAAE";
    let cases = [
        (get(&format!("/dns-query?dns={query}")), "200"),
        (get(&format!("/dns-query?x=1&dns={query}==")), "200"),
        (get("/dns-query?dns=%"), "400"),
        (get("/dns-query?dns=AAAA"), "400"),
        (get("/dns-query"), "400"),
        (get("/"), "404"),
        (get(&format!("/dns-query?dns={long}")), "413"),
        (post("text/plain", "x"), "415"),
        (post("application/dns-message", "short"), "400"),
        (post("application/dns-message", &long), "413"),
        ([get("/dns-query"), vec!["-X".to_owned(), "DELETE".to_owned()]].concat(), "405"),
    ];
    for (arguments, expected) in cases {
        let output = process::command("curl")
            .args(["--silent", "--http2", "--output", "/dev/null", "--write-out", "%{http_code} %{http_version}"])
            .arg("--cacert")
            .arg(agent.path("ca.pem"))
            .args(&arguments)
            .finish();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{expected} 2"), "{arguments:?}");
    }
}

/// Starts an agent that resolves through `front` over the encrypted `upstream`.
fn agent_behind(front: &Agent, upstream: &str) -> Agent {
    let authorities = front.path("ca.pem");
    let environment = [("SSL_CERT_FILE", authorities.to_str().unwrap())];
    Agent::start_with(&format!("resolver: {{upstreams: [\"{upstream}\"]}}\n"), &environment, |_| {})
}

#[test]
fn encrypted_upstreams_are_queried() {
    let upstream = Upstream::start(|asked| vec![octets(&asked.address([192, 0, 2, 1], 0))]);
    let front = agent(&Authority::generate(), Some(&upstream));
    let (tls, https) = (front.listening("DNS over TLS"), front.listening("DNS over HTTPS"));
    for server in [
        format!("tls://{tls}#{NAME}"),
        format!("tls://{tls}"),
        format!("https://{https}#{NAME}"),
        format!("https://{https}/dns-query"),
    ] {
        let agent = agent_behind(&front, &server);
        for at in 0..20 {
            let reply = agent.ask(&format!("n{at}.example."), A);
            let shown: Vec<String> = reply.answers.iter().map(|record| show_data(&record.data)).collect();
            assert_eq!(shown, ["192.0.2.1"], "{server}: {:?}", extended_error(&reply));
        }
        let all: Vec<_> = (0..50).map(|at| format!("m{at}.example.")).collect();
        thread::scope(|scope| {
            for name in &all {
                let (agent, server) = (&agent, &server);
                scope.spawn(move || assert_eq!(agent.ask(name, A).answers.len(), 1, "{server}: {name}, concurrently"));
            }
        });
    }
}

/// An upstream with an invalid certificate is rejected, and the EDE names the reason.
#[test]
fn upstream_with_wrong_certificate_is_rejected() {
    let upstream = Upstream::start(|asked| vec![octets(&asked.address([192, 0, 2, 1], 0))]);
    let front = agent(&Authority::generate(), Some(&upstream));
    let tls = front.listening("DNS over TLS");
    let agent = agent_behind(&front, &format!("tls://{tls}#other.example"));
    let reply = agent.ask("www.example.", A);
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    let (_, text) = extended_error(&reply).unwrap();
    assert!(text.contains("certificate"), "{text}");
    assert!(decode(&octets(&reply)).answers.is_empty());
}

/// Servers close idle connections; the next query must succeed.
#[test]
fn closed_upstream_connection_is_reopened() {
    let upstream = Upstream::start(|asked| vec![octets(&asked.address([192, 0, 2, 1], 0))]);
    let authority = Authority::generate();
    let front = agent(&authority, Some(&upstream));
    let tls = front.listening("DNS over TLS");
    let config = format!(
        "dns: {{listen: [127.0.0.1:0], encrypted: {{tls: \"{tls}\", certificate: cert.pem, key: key.pem}}}}\nresolver: \
         {{upstreams: [\"{}\"]}}\n",
        upstream.address()
    );
    let agent = agent_behind(&front, &format!("tls://{tls}#{NAME}"));
    assert_eq!(agent.ask("a.example.", A).answers.len(), 1);
    let folder = fs::read_to_string(front.path("ca.pem")).unwrap();
    let (certificate, key) = (fs::read(front.path("cert.pem")).unwrap(), fs::read(front.path("key.pem")).unwrap());
    drop(front);
    let _again = Agent::start_with(&config, &[], |path| {
        fs::write(path.join("cert.pem"), &certificate).unwrap();
        fs::write(path.join("key.pem"), &key).unwrap();
        fs::write(path.join("ca.pem"), &folder).unwrap();
    });
    assert_eq!(agent.ask("b.example.", A).answers.len(), 1);
}
