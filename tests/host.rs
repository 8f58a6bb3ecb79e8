//! Name resolution on hosts after `muster setup`: glibc, musl, Python, the NSS modules of Debian, Ubuntu and Fedora, and a real
//! systemd-resolved, each on its own host. Programs resolve both muster's names and other names.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::Output,
    sync::{Arc, Mutex},
    thread,
};

use support::{
    machine::{ADDRESS, Machine},
    process::{self, Finish},
    run, skip,
    upstream::Upstream,
    wait::until,
};

/// Services; `web` has an address of a neighbour in the host's network.
const SERVICES: &str = "services:\n- {service: web, port: 8080, address: 10.0.0.8}\n- {service: db, port: 1}\n";
/// Address of `web.service.local`.
const WEB: &str = "10.0.0.8";
/// Address of `www.example`, which only the upstream knows.
const OTHER: &str = "192.0.2.80";

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

#[track_caller]
fn succeed(output: &Output) -> String {
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Compiles a program with musl that prints the result of getaddrinfo.
fn musl_program(folder: &Path) -> PathBuf {
    const SOURCE: &str = r#"
        #include <arpa/inet.h>
        #include <netdb.h>
        #include <stdio.h>
        int main(int count, char **names) {
            struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found;
            char text[INET_ADDRSTRLEN];
            int error = getaddrinfo(names[1], 0, &hints, &found);
            if (error) return puts(gai_strerror(error)), 1;
            puts(inet_ntop(AF_INET, &((struct sockaddr_in *)found->ai_addr)->sin_addr, text, sizeof text));
        }
    "#;
    let (source, program) = (folder.join("lookup.c"), folder.join("lookup"));
    fs::write(&source, SOURCE).unwrap();
    let compiled = process::command("musl-gcc").arg("-static").arg("-o").arg(&program).arg(&source).finish();
    assert!(compiled.status.success(), "{}", text(&compiled.stderr));
    program
}

/// Asserts that every kind of program resolves muster's names and other names.
#[track_caller]
fn assert_programs_resolve_all(machine: &Machine, musl: &Path) {
    const PYTHON: &str = "import socket, sys; print(socket.getaddrinfo(sys.argv[1], 80)[0][4][0])";
    for (name, expected) in [("web.service.local", WEB), ("www.example", OTHER), ("db.service.local", ADDRESS)] {
        let getent = machine.output_of("getent", &["ahosts", name]);
        println!("$ getent ahosts {name}\n{getent}");
        let addresses: BTreeSet<&str> = getent.lines().filter_map(|line| line.split_whitespace().next()).collect();
        assert_eq!(addresses, BTreeSet::from([expected]), "{name}");
        assert_eq!(machine.output_of("python3", &["-c", PYTHON, name]).trim(), expected, "Python: {name}");
        assert_eq!(machine.output_of(musl, &[name]).trim(), expected, "musl: {name}");
    }
    for name in ["nothing.service.local", "nothing.example"] {
        assert_eq!(machine.run("getent", &["ahosts", name]).status.code(), Some(2), "{name}");
    }
}

fn can_run(test: &str) -> bool {
    skip::machines(test)
        && skip::tool(test, "dig", "bind9-dnsutils")
        && skip::tool(test, "python3", "python3")
        && skip::tool(test, "musl-gcc", "musl-tools")
}

#[test]
fn programs_query_muster_through_resolv_conf() {
    if !can_run("a host whose resolv.conf names muster") {
        return;
    }
    let folder = run::temp_dir();
    let machine = Machine::new("# by hand\nnameserver 127.0.0.2\nsearch a.example\n", "files dns");
    let upstream = machine.start_upstream();
    // The host's former resolver.
    let former = machine.start_agent("127.0.0.2:53", &upstream, SERVICES);
    let _agent = machine.start_agent("127.0.0.1:53", &upstream, SERVICES);
    let before = machine.read("etc/resolv.conf");

    let message = succeed(&machine.run("muster", &["setup", "resolv-conf"]));
    println!("$ muster setup resolv-conf\n{message}");
    let expected = [
        "/etc/resolv.conf: written\n",
        "agent at 127.0.0.1:53: service.local. has serial ",
        "C library: host-a.node.service.local. has address 10.0.0.7\n",
        "other names: resolved as before\n",
    ];
    for line in expected {
        assert!(message.contains(line), "{message}");
    }
    assert!(machine.read("etc/resolv.conf").ends_with("\nnameserver 127.0.0.1\nsearch a.example\noptions edns0\n"));
    drop(former);
    assert_programs_resolve_all(&machine, &musl_program(folder.path()));
    succeed(&machine.run("muster", &["setup", "resolv-conf", "--undo"]));
    assert_eq!(machine.read("etc/resolv.conf"), before);
}

#[test]
fn failed_verification_of_resolv_conf_restores_the_former_file() {
    if !can_run("a host whose resolver would be lost") {
        return;
    }
    let machine = Machine::new("nameserver 127.0.0.2\n", "files dns");
    let upstream = machine.start_upstream();
    let _former = machine.start_agent("127.0.0.2:53", &upstream, SERVICES);
    let before = machine.read("etc/resolv.conf");
    let refused = |expected: &str| {
        let output = machine.run("muster", &["setup", "resolv-conf"]);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains(expected), "{message}");
        assert_eq!(machine.read("etc/resolv.conf"), before);
    };

    let silent = machine.start_upstream();
    silent.set_silent(true);
    let mut agent = machine.start_agent("127.0.0.1:53", &silent, SERVICES);
    refused("other names at 127.0.0.1:53, which resolved before: ");
    // /etc/hosts takes precedence over DNS.
    machine.write("etc/hosts", "127.0.0.1 localhost\n192.0.2.99 host-a.node.service.local\n");
    refused("C library: host-a.node.service.local. has address 192.0.2.99");
    agent.signal(nix::sys::signal::Signal::SIGTERM);
    agent.wait();
    refused("the agent at 127.0.0.1:53 does not answer for its zone: connection refused");
}

#[test]
fn mounted_resolv_conf_is_not_replaced() {
    if !can_run("a resolv.conf that is mounted") {
        return;
    }
    let machine = Machine::new("nameserver 192.0.2.1\n", "files dns");
    let upstream = machine.start_upstream();
    let _agent = machine.start_agent("127.0.0.1:53", &upstream, SERVICES);
    machine.write("run/mounted", "nameserver 192.0.2.2\n");
    let script = "mount --bind /run/mounted /etc/resolv.conf && muster setup resolv-conf";
    let output = machine.run("sh", &["-c", script]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("The file is a mount, as in containers"), "{}", text(&output.stderr));
    assert_eq!(machine.read("run/mounted"), "nameserver 192.0.2.2\n");
    assert_eq!(machine.read("etc/resolv.conf"), "nameserver 192.0.2.1\n");
}

/// Desktops of Debian and Ubuntu use `mdns4_minimal` of nss-mdns, which queries Avahi.
#[test]
fn names_of_two_labels_go_to_multicast_dns() {
    let test = "a host with nss-mdns";
    if !can_run(test) {
        return;
    }
    let folder = run::temp_dir();
    let arch = format!("usr/lib/{}-linux-gnu/libnss_mdns4_minimal.so.2", std::env::consts::ARCH);
    let Some(library) = skip::file_of(
        test,
        "libnss-mdns",
        &[&arch, &arch.replace("usr/", ""), "usr/lib64/libnss_mdns4_minimal.so.2"],
        folder.path(),
    ) else {
        return;
    };
    let machine = Machine::new("nameserver 127.0.0.1\n", "files mdns4_minimal [NOTFOUND=return] dns");
    let upstream = machine.start_upstream();
    let _agent = machine.start_agent("127.0.0.1:53", &upstream, SERVICES);
    let avahi = avahi(&machine.path("run/avahi-daemon"));
    let getent = |name: &str| machine.run_with(library.parent(), "getent", &["ahosts", name]);
    assert!(succeed(&getent("web.service.local")).starts_with(WEB));
    assert!(succeed(&getent("www.example")).starts_with(OTHER));
    assert_eq!(*avahi.lock().unwrap(), [""; 0], "Avahi receives none of these names");
    assert_eq!(getent("printer.local").status.code(), Some(2));
    assert!(avahi.lock().unwrap().iter().any(|line| line.ends_with(" printer.local")), "{avahi:?}");
    assert_no_printer_upstream(&upstream);
}

/// The upstream received queries for public names, and none for the printer of the local network.
#[track_caller]
fn assert_no_printer_upstream(upstream: &Upstream) {
    let names: Vec<String> = upstream.asked().iter().map(|asked| asked.name().to_ascii_lowercase()).collect();
    assert!(names.iter().any(|name| name == "www.example."), "{names:?}");
    assert!(!names.iter().any(|name| name.starts_with("printer.")), "{names:?}");
}

/// Starts an Avahi daemon that finds nothing, and records its requests.
fn avahi(folder: &Path) -> Arc<Mutex<Vec<String>>> {
    fs::create_dir_all(folder).unwrap();
    let listener = UnixListener::bind(folder.join("socket")).unwrap();
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = asked.clone();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut line = String::new();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
            kept.lock().unwrap().push(line.trim().to_owned());
            let _ = stream.write_all(b"-15 Timeout reached\n");
        }
    });
    asked
}

const STUB: &str = "@127.0.0.53";

/// A host with systemd-resolved, like Ubuntu's.
fn start_resolved(test: &str, hosts: &str, folder: &Path) -> Option<Machine> {
    let paths = ["usr/lib/systemd/systemd-resolved", "lib/systemd/systemd-resolved"];
    let program = skip::file_of(test, "systemd-resolved", &paths, folder)?;
    let mut machine = Machine::new("", hosts);
    machine.start_resolved(&program);
    Some(machine)
}

#[test]
fn programs_query_muster_through_systemd_resolved() {
    let test = "a host with systemd-resolved";
    if !can_run(test) {
        return;
    }
    let folder = run::temp_dir();
    let Some(machine) = start_resolved(test, "files dns", folder.path()) else { return };
    let upstream = machine.start_upstream();
    // Another port than 53, as on a host where another server uses port 53.
    let agent = machine.start_agent("127.0.0.1:8600", &upstream, SERVICES);
    let dig = |arguments: &[&str]| machine.output_of("dig", &[&[STUB, "+short"], arguments].concat());
    assert_eq!(dig(&["SRV", "web.service.local"]), "", "before the setup");

    let message = succeed(&machine.run("muster", &["setup", "resolved"]));
    println!("$ muster setup resolved\n{message}\n{}", machine.read("etc/systemd/resolved.conf.d/muster.conf"));
    let expected = [
        "/etc/systemd/resolved.conf.d/muster.conf: written\n",
        "systemctl reload-or-restart systemd-resolved: done\n",
        "agent at 127.0.0.1:8600 and systemd-resolved at 127.0.0.53: service.local. has serial ",
        "C library: host-a.node.service.local. has address 10.0.0.7\n",
    ];
    for line in expected {
        assert!(message.contains(line), "{message}");
    }
    println!("{}", machine.output_of("dig", &[STUB, "SRV", "web.service.local"]));
    assert_eq!(dig(&["SRV", "web.service.local"]), "1 10 8080 web-host-a.web.service.local.\n");
    assert_eq!(dig(&["SRV", "_web._tcp.service.local"]), "1 10 8080 web-host-a.web.service.local.\n");
    assert_eq!(dig(&["NS", "."]), "a.root-servers.example.\n");
    assert_programs_resolve_all(&machine, &musl_program(folder.path()));
    let printer = machine.output_of("dig", &[STUB, "printer.local"]);
    assert!(printer.contains("ANSWER: 0"), "{printer}");
    assert_no_printer_upstream(&upstream);
    // systemd-resolved does not cache answers from loopback servers: a change of health is visible at once.
    agent.write_service("services.yaml", &SERVICES.replace(WEB, "10.0.0.9"));
    until("the stub resolver answers the change", || dig(&["A", "web.service.local"]) == "10.0.0.9\n");

    succeed(&machine.run("muster", &["setup", "resolved", "--undo"]));
    assert!(!machine.path("etc/systemd/resolved.conf.d/muster.conf").exists());
    assert_eq!(dig(&["SRV", "web.service.local"]), "", "after the undo");
}

/// The usual host: the network has a DNS server from DHCP, which systemd-networkd passes to resolved.
#[test]
fn networks_own_server_keeps_other_names() {
    let test = "a systemd-resolved whose network has a server";
    if !can_run(test) {
        return;
    }
    let folder = run::temp_dir();
    let Some(machine) = start_resolved(test, "files dns", folder.path()) else { return };
    let (upstream, others) = (machine.start_upstream(), machine.start_upstream());
    // The network's server has the same zone, so that a misdirected query is detected.
    let _network = machine.start_agent("127.0.0.2:53", &others, "");
    machine.set_link_dns("127.0.0.2");
    machine.output_of("systemctl", &["reload-or-restart", "systemd-resolved"]);
    let dig = |arguments: &[&str]| machine.output_of("dig", &[&[STUB, "+short"], arguments].concat());
    until("the network's server is asked", || dig(&["www.example"]) == "192.0.2.80\n");
    let agent = machine.start_agent("127.0.0.1:53", &upstream, SERVICES);
    assert!(succeed(&machine.run("muster", &["setup", "resolved"])).contains("other names: resolved as before\n"));
    for _ in 0..5 {
        assert_eq!(dig(&["SRV", "web.service.local"]), "1 10 8080 web-host-a.web.service.local.\n");
        assert_eq!(dig(&["-x", WEB]), "web-host-a.web.service.local.\n");
        assert_eq!(dig(&["www.example"]), "192.0.2.80\n");
    }
    // Without the reverse zone, resolved queries only the network's server.
    let file = "etc/systemd/resolved.conf.d/muster.conf";
    machine.write(file, &machine.read(file).replace(" ~0.0.10.in-addr.arpa", ""));
    machine.output_of("systemctl", &["reload-or-restart", "systemd-resolved"]);
    let lost = machine.run("dig", &[STUB, "+short", "+tries=1", "-x", WEB]);
    // The server of the network does not answer, so dig may time out.
    assert!(!text(&lost.stdout).contains("web-host-a"), "{}", text(&lost.stdout));
    // resolved also queries muster for other names, and resolves them without muster.
    let asked = upstream.asked().len();
    dig(&["another.example"]);
    assert!(upstream.asked().len() > asked);
    println!("{}", machine.read("run/systemd/resolve/resolv.conf"));
    drop(agent);
    assert_eq!(dig(&["www.example"]), "192.0.2.80\n");
}

/// A host that validates: the trust anchor of the discovery zone is the key that signs it.
#[test]
fn resolved_validates_the_signed_zone_while_instances_change() {
    let test = "a systemd-resolved that validates";
    if !can_run(test) {
        return;
    }
    let folder = run::temp_dir();
    let Some(machine) = start_resolved(test, "files dns", folder.path()) else { return };
    let (upstream, keys) = (machine.start_upstream(), machine.path("keys"));
    let keys = keys.to_str().unwrap();
    fs::create_dir(keys).unwrap();
    machine.output_of("muster", &["dnssec", "keygen", "service.local", "--dir", keys]);
    let ds = machine.output_of("muster", &["dnssec", "ds", "service.local", "--dir", keys]);
    let dns = format!("listen: [\"127.0.0.1:53\"], dnssec_keys_dir: {keys}, dnssec: [service.local]");
    let agent = machine.start_agent_with(&dns, &upstream, SERVICES);
    machine.write("etc/dnssec-trust-anchors.d/service.local.positive", &ds);
    machine.write("etc/systemd/resolved.conf.d/validation.conf", "[Resolve]\nDNSSEC=yes\n");
    succeed(&machine.run("muster", &["setup", "resolved"]));
    let cases = [
        (["web.service.local", "A"], "NOERROR"),
        (["web.service.local", "SRV"], "NOERROR"),
        (["web.service.local", "AAAA"], "NOERROR"),
        (["_web._tcp.service.local", "SRV"], "NOERROR"),
        (["host-a.node.service.local", "A"], "NOERROR"),
        (["none.service.local", "A"], "NXDOMAIN"),
        (["none.web.service.local", "A"], "NXDOMAIN"),
    ];
    for round in 0..12 {
        let address = format!("10.0.0.{}", 100 + round);
        agent.write_service("services.yaml", &SERVICES.replace(WEB, &address));
        for (question, rcode) in cases {
            let shown = machine.output_of("dig", &[&[STUB, "+dnssec"], &question[..]].concat());
            let flags = shown.lines().find(|line| line.contains(";; flags:")).unwrap_or_default();
            let is_secure = shown.contains(&format!("status: {rcode},")) && flags.contains(" ad");
            assert!(is_secure, "{question:?}: {shown}\n{}", machine.read("run/log"));
        }
    }
}

/// The order of Fedora: programs reach systemd-resolved through its socket, whatever resolv.conf contains.
#[test]
fn programs_query_muster_through_nss_resolve() {
    let test = "a host with nss-resolve";
    if !can_run(test) {
        return;
    }
    let folder = run::temp_dir();
    let arch = format!("usr/lib/{}-linux-gnu/libnss_resolve.so.2", std::env::consts::ARCH);
    let paths = [arch.as_str(), "usr/lib64/libnss_resolve.so.2"];
    let Some(library) = skip::file_of(test, "libnss-resolve", &paths, folder.path()) else { return };
    let Some(machine) = start_resolved(test, "files resolve [!UNAVAIL=return] dns", folder.path()) else { return };
    let upstream = machine.start_upstream();
    let _agent = machine.start_agent("127.0.0.1:53", &upstream, SERVICES);
    succeed(&machine.run("muster", &["setup", "resolved"]));
    fs::remove_file(machine.path("etc/resolv.conf")).unwrap();
    machine.write("etc/resolv.conf", "nameserver 192.0.2.1\n");
    for (name, expected) in [("web.service.local", WEB), ("www.example", OTHER)] {
        let output = machine.run_with(library.parent(), "getent", &["ahosts", name]);
        assert!(succeed(&output).starts_with(expected), "{name}");
    }
}

#[test]
fn failed_verification_of_resolved_removes_the_drop_in() {
    let test = "a systemd-resolved that queries over TLS only";
    if !can_run(test) {
        return;
    }
    let folder = run::temp_dir();
    let Some(machine) = start_resolved(test, "files dns", folder.path()) else { return };
    let upstream = machine.start_upstream();
    let _agent = machine.start_agent("127.0.0.1:53", &upstream, SERVICES);
    machine.write("etc/systemd/resolved.conf.d/tls.conf", "[Resolve]\nDNSOverTLS=yes\n");
    let output = machine.run("muster", &["setup", "resolved"]);
    let message = text(&output.stderr);
    println!("{}{message}", text(&output.stdout));
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("systemd-resolved at 127.0.0.53: ") && message.contains("DNSOverTLS"), "{message}");
    assert!(text(&output.stdout).contains("/etc/systemd/resolved.conf.d/muster.conf: removed\nsystemctl "));
    assert!(!machine.path("etc/systemd/resolved.conf.d/muster.conf").exists());
}
