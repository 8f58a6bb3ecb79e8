//! Reload of all files: SIGHUP and `muster reload`.

use std::{fs, net::TcpStream, process::Output};

use nix::sys::signal::Signal;

use super::scene::{A, SECOND, Scene};
use crate::support::{
    Ask,
    cluster::Host,
    namespaces::ip,
    skip,
    upstream::{Upstream, octets},
    wait::until,
};

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Reports whether a DNS server answers at this address of the host.
fn answers_at(host: &Host, address: &str) -> bool {
    host.namespace.enter(|| {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(SECOND)).unwrap();
        let ask = Ask { name: "web.service.local.".to_owned(), qtype: 33, edns: Some(1232), dnssec_ok: false };
        socket.connect(address).and_then(|()| socket.send(&ask.packet(1))).is_ok()
            && socket.recv(&mut [0; 4096]).is_ok_and(|len| len > 12)
    })
}

/// TTL of the host's answer.
fn ttl(host: &Host) -> Option<u32> {
    host.ask("web")?.answers.first().map(|record| record.ttl)
}

/// Address that the host's agent answers for a name of the upstream servers.
fn forwarded(host: &Host) -> Option<String> {
    let agent = host.agent();
    let answer = host.namespace.enter(|| agent.ask("www.example.", A));
    answer.answers.first().map(|record| record.data.to_string())
}

#[test]
fn reload_applies_every_change_and_changes_no_answer() {
    if !skip::namespaces("a reload of muster.yaml") {
        return;
    }
    let scene = Scene::start(3);
    let host = &scene.cluster.hosts[1];
    let pid = host.agent().pid();
    ip(&format!("-n {} address add 127.0.0.2/8 dev lo", host.namespace.name()));
    let upstream = host.namespace.enter(|| Upstream::start(|asked| vec![octets(&asked.address([192, 0, 2, 80], 60))]));
    let observer = scene.observe();

    scene.edit_config(
        1,
        &[
            ("dns: {listen: [127.0.0.1:53]}", "dns: {listen: [127.0.0.1:53, 127.0.0.2:5300], ttl: 9s}"),
            ("http: {listen: [127.0.0.1:8500]}", "http: {listen: [127.0.0.1:8500, 127.0.0.1:8501]}"),
        ],
    );
    host.agent().signal(Signal::SIGHUP);
    until("the TTL is answered", || ttl(host) == Some(9));
    until("DNS listens at the new address", || answers_at(host, "127.0.0.2:5300"));
    until("the API listens at the new address", || {
        host.namespace.enter(|| TcpStream::connect("127.0.0.1:8501").is_ok())
    });

    scene.edit_config(
        1,
        &[
            ("127.0.0.2:5300], ttl: 9s}", "127.0.0.2:5301]}"),
            (
                "gossip: {",
                &format!("resolver: {{upstreams: [\"{}\"]}}\ngossip: {{interval: 300ms, ", upstream.address()),
            ),
        ],
    );
    let reloaded = host.muster(&["reload"]);
    assert!(reloaded.status.success(), "{}", text(&reloaded));
    assert!(answers_at(host, "127.0.0.2:5301"), "after `muster reload`, all changes are applied");
    assert!(!answers_at(host, "127.0.0.2:5300"), "a removed address is closed");
    assert_eq!(ttl(host), Some(5));
    assert_eq!(forwarded(host).as_deref(), Some("192.0.2.80"));

    observer.run_for(2 * SECOND);
    let report = observer.finish();
    report.print("2 reloads of muster.yaml, 3 nodes", &[]);
    report.assert_right(&[]);
    assert_eq!(host.agent().pid(), pid);
    let status = host.output_of(&["status"]);
    assert!(status.contains("muster.yaml: active since "), "{status}");
    for host in &scene.cluster.hosts {
        assert!(host.members().values().all(|state| state == "alive"), "{:?}", host.members());
    }
}

#[test]
fn refused_reload_keeps_the_active_configuration() {
    if !skip::namespaces("a reload that is refused") {
        return;
    }
    let scene = Scene::start(3);
    let host = &scene.cluster.hosts[1];
    let config = host.agent().path("muster.yaml");
    let valid = fs::read_to_string(&config).unwrap();
    let observer = scene.observe();
    let with_ttl = valid.replace("[127.0.0.1:53]", "[127.0.0.1:53], ttl: 9s");
    let cases = [
        // Diagnostics of `muster validate`.
        (format!("{with_ttl}nonsense: 1\n"), "muster.yaml:"),
        // One address cannot be bound: none of the changes is applied.
        (with_ttl.replace("[127.0.0.1:53]", "[127.0.0.1:53, 192.0.2.1:53]"), "192.0.2.1:53"),
        (with_ttl.replace("node: n2", "node: other"), "restart"),
        (with_ttl.replace("data_dir: data", "data_dir: other"), "restart"),
        (format!("{with_ttl}domain: other.example\n"), "restart"),
    ];
    for (changed, expected) in cases {
        fs::write(&config, &changed).unwrap();
        let refused = host.muster(&["reload"]);
        assert_eq!(refused.status.code(), Some(1), "{expected}: {}", text(&refused));
        assert!(text(&refused).contains(expected), "{expected}: {}", text(&refused));
        let status = host.muster(&["status"]);
        assert!(text(&status).contains(expected), "{expected}: {}", text(&status));
        assert_eq!(status.status.code(), Some(1), "{expected}: {}", text(&status));
        host.agent().signal(Signal::SIGHUP);
        until("the log says why", || host.agent().log().contains(expected));
        assert_eq!(ttl(host), Some(5), "{expected}");
    }
    observer.run_for(SECOND);
    let report = observer.finish();
    report.print("10 refused reloads, 3 nodes", &[]);
    report.assert_right(&[]);

    fs::write(&config, with_ttl).unwrap();
    host.output_of(&["reload"]);
    assert_eq!(ttl(host), Some(9));
    until("`muster status` shows no problem", || host.muster(&["status"]).status.success());
}
