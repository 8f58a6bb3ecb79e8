//! Hot reload: changes to a real folder and the resulting answers of the built agent.
//!
//! `benches/reload` measures the latency.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{
    fs::{self, Permissions},
    net::TcpListener,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use hickory_proto::op::ResponseCode;
use support::{
    agent::Agent,
    http,
    process::{self, Finish},
    wait::until,
};

const SRV: u16 = 33;
const A: u16 = 1;

fn service(port: u16) -> String {
    format!("service: web\nport: {port}\n")
}

fn srv(port: u16) -> String {
    format!("SRV 1 10 {port} web-host-a.web.service.local.")
}

/// Waits until the service is answered with this port.
fn wait_for_port(agent: &Agent, port: u16) {
    agent.wait_for_answers("web.service.local.", SRV, &[&srv(port)]);
}

fn wait_for_nothing(agent: &Agent) {
    until("web has NXDOMAIN", || agent.ask("web.service.local.", SRV).metadata.response_code == ResponseCode::NXDomain);
}

#[test]
fn created_edited_renamed_and_deleted_files_are_followed() {
    let agent = Agent::start();
    let path = agent.path("services.d/web.yaml");
    fs::write(&path, service(1)).unwrap();
    wait_for_port(&agent, 1);
    fs::write(&path, service(2)).unwrap();
    wait_for_port(&agent, 2);
    let new = agent.path("services.d/.web.yaml.new");
    fs::write(&new, service(3)).unwrap();
    fs::rename(&new, &path).unwrap();
    wait_for_port(&agent, 3);
    fs::rename(&path, agent.path("services.d/other.yaml")).unwrap();
    wait_for_port(&agent, 3);
    fs::remove_file(agent.path("services.d/other.yaml")).unwrap();
    wait_for_nothing(&agent);
}

#[test]
fn editor_files_are_not_read() {
    let agent = Agent::start();
    for name in [".web.yaml.swp", "web.yaml~", "#web.yaml#", "4913", ".hidden.yaml", "web.yaml.bak"] {
        fs::write(agent.path("services.d").join(name), service(1)).unwrap();
    }
    fs::write(agent.path("services.d/last.yaml"), "service: last\n").unwrap();
    agent.wait_for_answers("last.service.local.", A, &["A 10.0.0.7"]);
    assert!(agent.answers("web.service.local.", SRV).is_empty());
}

#[test]
fn mounted_config_map_is_followed() {
    // The kubelet links files through `..data` and replaces that link by a rename.
    let agent = Agent::start();
    let folder = agent.path("services.d");
    let swap = |version: &str, text: &str| {
        fs::create_dir(folder.join(version)).unwrap();
        fs::write(folder.join(version).join("web.yaml"), text).unwrap();
        symlink(version, folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    };
    swap("..2026_11_23_1", &service(1));
    symlink("..data/web.yaml", folder.join("web.yaml")).unwrap();
    wait_for_port(&agent, 1);
    swap("..2026_11_23_2", &service(2));
    fs::remove_dir_all(folder.join("..2026_11_23_1")).unwrap();
    wait_for_port(&agent, 2);
}

#[test]
fn broken_file_keeps_its_last_valid_content() {
    let mut agent = Agent::start();
    agent.write_service("web.yaml", &service(1));
    wait_for_port(&agent, 1);
    agent.write_service("web.yaml", "service: web\nport: [not a port\n");
    agent.wait_for_log("the last valid content of this file stays in use until it is fixed");
    agent.write_service("other.yaml", "service: other\n");
    agent.wait_for_answers("other.service.local.", A, &["A 10.0.0.7"]);
    assert_eq!(agent.answers("web.service.local.", SRV), [srv(1)]);
    let log = agent.log();
    let of_file = log.lines().filter(|line| line.contains("web.yaml:"));
    let (warnings, others): (Vec<_>, Vec<_>) = of_file.partition(|line| line.contains("WARN"));
    assert_eq!((warnings.len(), others.len()), (2, 0), "the problem and its effect are logged once: {log}");
    agent.write_service("web.yaml", &service(2));
    wait_for_port(&agent, 2);
    agent.wait_for_log("all problems resolved");
}

#[test]
fn emptied_file_keeps_its_last_valid_content() {
    // A shell redirection `> web.yaml` truncates the file before the program writes to it.
    let mut agent = Agent::start();
    agent.write_service("web.yaml", &service(1));
    wait_for_port(&agent, 1);
    agent.write_service("web.yaml", "");
    agent.wait_for_log("web.yaml:1:1: warning: the file is empty");
    agent.wait_for_log("web.yaml:1:1: warning: the last valid content of this file stays in use until it is fixed");
    agent.write_service("new.yaml", "# nothing yet\n");
    agent.wait_for_log("new.yaml:1:1: warning: the file has no content");
    agent.wait_for_log("new.yaml:1:1: warning: nothing from this file is in use until it is fixed");
    assert_eq!(agent.answers("web.service.local.", SRV), [srv(1)]);
    agent.write_service("web.yaml", &service(2));
    wait_for_port(&agent, 2);
    // An empty list is deliberate.
    agent.write_service("web.yaml", "services: []\n");
    wait_for_nothing(&agent);
}

#[test]
fn ignored_files_are_logged_once() {
    let mut agent = Agent::start_with("", &[], |folder| {
        fs::write(folder.join("services.d/web.json"), "{}").unwrap();
        fs::write(folder.join("services.d/README.md"), "x").unwrap();
    });
    agent.wait_for_log("web.json:1:1: warning: ignored: only files that end in .yaml or .yml are read");
    agent.write_service("web.yaml", &service(1));
    wait_for_port(&agent, 1);
    let log = agent.log();
    assert_eq!(log.matches("web.json:1:1").count(), 1, "{log}");
    assert!(!log.contains("README.md"), "{log}");
}

#[test]
fn folder_that_vanishes_and_returns_is_followed() {
    let agent = Agent::start();
    agent.write_service("web.yaml", &service(1));
    wait_for_port(&agent, 1);
    fs::rename(agent.path("services.d"), agent.path("gone")).unwrap();
    fs::create_dir(agent.path("services.d")).unwrap();
    agent.write_service("web.yaml", &service(2));
    wait_for_port(&agent, 2);
    fs::remove_dir_all(agent.path("services.d")).unwrap();
    wait_for_nothing(&agent);
    fs::create_dir(agent.path("services.d")).unwrap();
    agent.write_service("web.yaml", &service(3));
    wait_for_port(&agent, 3);
}

#[test]
fn thousand_files_rewritten_at_once_are_read() {
    let agent = Agent::start();
    let write = |round: u16| {
        for number in 0..1000_u16 {
            let text = format!("service: s{number}\nport: {}\n", number % 1000 + round * 1000);
            fs::write(agent.path("services.d").join(format!("{number}.yaml")), text).unwrap();
        }
    };
    (1..=5).for_each(write);
    fs::remove_file(agent.path("services.d/999.yaml")).unwrap();
    for number in (0..999_u16).rev() {
        let expected = format!("SRV 1 10 {} s{number}-host-a.s{number}.service.local.", number + 5000);
        agent.wait_for_answers(&format!("s{number}.service.local."), SRV, &[&expected]);
    }
    // Deletions have a longer debounce: a file may be about to be replaced.
    agent.wait_for_answers("s999.service.local.", SRV, &[]);
    // A file that is read between its truncation and its new content is empty: that warning is true.
    let log = agent.log();
    let unexpected = log.lines().filter(|line| line.contains("WARN") && !line.contains("the file is empty"));
    assert_eq!(unexpected.collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn zone_files_are_followed_and_keep_their_last_valid_content() {
    let mut agent = Agent::start();
    let path = agent.path("zones/service.local.zone");
    fs::write(&path, "printer A 192.0.2.1\n").unwrap();
    agent.wait_for_answers("printer.service.local.", A, &["A 192.0.2.1"]);
    fs::write(&path, "printer A 192.0.2.2\nbroken A 300.0.0.1\n").unwrap();
    agent.wait_for_log("service.local.zone:2:");
    assert_eq!(agent.answers("printer.service.local.", A), ["A 192.0.2.1"]);
    fs::remove_file(&path).unwrap();
    agent.wait_for_answers("printer.service.local.", A, &[]);
    let own = "@ SOA ns admin 1 2 3 4 5\n@ NS ns\nns A 192.0.2.9\n";
    fs::write(agent.path("zones/example.org.zone"), own).unwrap();
    agent.wait_for_answers("ns.example.org.", A, &["A 192.0.2.9"]);
}

#[test]
fn duplicate_definition_takes_over_when_the_first_is_deleted() {
    let mut agent = Agent::start();
    agent.write_service("a.yaml", &service(1));
    wait_for_port(&agent, 1);
    agent.write_service("b.yaml", &service(2));
    agent.wait_for_log("b.yaml:1:");
    assert_eq!(agent.answers("web.service.local.", SRV), [srv(1)]);
    fs::remove_file(agent.path("services.d/a.yaml")).unwrap();
    wait_for_port(&agent, 2);
}

/// Sets `checks.allow_exec`, and reloads. Returns the exit code and the output.
fn reload_with(agent: &Agent, allow_exec: bool) -> (Option<i32>, String) {
    let path = agent.path("muster.yaml");
    let config = fs::read_to_string(&path).unwrap();
    let setting = |value: bool| format!("checks: {{allow_exec: {value}}}");
    fs::write(&path, config.replace(&setting(!allow_exec), &setting(allow_exec))).unwrap();
    let output = process::muster().args(["reload", "--http-addr", &agent.http().to_string()]).finish();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn file_that_a_new_configuration_refuses_keeps_its_last_valid_content() {
    let open = "checks: {allow_exec: false}\n";
    let mut agent = Agent::start_with(open, &[], |folder| {
        // Permissions count only below folders that all users can enter.
        fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(folder.join("services.d"), Permissions::from_mode(0o777)).unwrap();
        fs::write(folder.join("services.d/web.yaml"), service(1)).unwrap();
    });
    wait_for_port(&agent, 1);
    agent.wait_for_log("services.d:1:1: warning: every user of this host can add files to this folder");
    let warned = agent.log().matches("every user of this host").count();
    assert_eq!(warned, 1, "the folder is reported once: {}", agent.log());
    let (code, text) = reload_with(&agent, true);
    let stays = "web.yaml:1:1: warning: the last valid content of this file stays in use until it is fixed";
    assert!(code == Some(1) && text.contains(stays), "{code:?}: {text}");
    assert!(text.contains("web.yaml:1:1: every user of this host can add files to this folder; the file is not read"));
    assert_eq!(agent.answers("web.service.local.", SRV), [srv(1)]);
    // A further start has the content, too.
    agent.signal(nix::sys::signal::Signal::SIGUSR1);
    agent.signal(nix::sys::signal::Signal::SIGTERM);
    agent.start_again();
    agent.wait_until_answering();
    assert_eq!(agent.answers("web.service.local.", SRV), [srv(1)]);
    fs::set_permissions(agent.path("services.d"), Permissions::from_mode(0o755)).unwrap();
    agent.write_service("web.yaml", &service(2));
    wait_for_port(&agent, 2);
}

/// A reload of a changed configuration starts the scheduler again: its checks go on.
#[test]
fn reload_of_the_configuration_keeps_results_and_schedule_of_checks() {
    let agent = Agent::start();
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = backend.local_addr().unwrap().port();
    let probes = Arc::new(AtomicUsize::new(0));
    // Ends with the process of the test.
    thread::spawn({
        let probes = probes.clone();
        move || {
            for _ in backend.incoming() {
                probes.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let checks = format!("[{{tcp: 127.0.0.1:{port}, interval: 60s}}, {{tcp: 127.0.0.1:1, interval: 60s, fall: 1}}]");
    fs::write(agent.path("services.d/web.yaml"), format!("{}checks: {checks}\n", service(1))).unwrap();
    let outputs = || {
        let checks = http::get(&agent, "agent/checks").json();
        let checks = checks.as_object().unwrap().values();
        checks.map(|check| format!("{} {}", check["Status"], check["Output"])).collect::<Vec<_>>().join("; ")
    };
    until("both checks have a result", || outputs().contains("refused") && outputs().contains("passing"));
    let before = outputs();
    let config = fs::read_to_string(agent.path("muster.yaml")).unwrap();
    for ttl in 10..13 {
        let changed = config.replace("dns: {", &format!("dns: {{ttl: {ttl}s, "));
        assert_ne!(changed, config);
        fs::write(agent.path("muster.yaml"), changed).unwrap();
        let reload = process::muster().args(["reload", "--http-addr", &agent.http().to_string()]).finish();
        assert_eq!(reload.status.code(), Some(0), "{reload:?}");
        assert_eq!(outputs(), before);
    }
    // New checks are probed within a second of their start.
    thread::sleep(Duration::from_millis(1500));
    assert_eq!(outputs(), before);
    assert_eq!(probes.load(Ordering::Relaxed), 1);
}

#[test]
fn exec_check_that_is_no_longer_allowed_withdraws_its_file() {
    let agent = Agent::start_with("checks: {allow_exec: true}\n", &[], |folder| {
        let exec = "checks: [{exec: [/bin/true], initial: passing}]\n";
        fs::write(folder.join("services.d/web.yaml"), service(1) + exec).unwrap();
        fs::write(folder.join("services.d/other.yaml"), "service: other\n").unwrap();
    });
    wait_for_port(&agent, 1);
    let (code, text) = reload_with(&agent, false);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("this node does not allow `exec` checks"), "{text}");
    let withdrawn = "web.yaml:1:1: warning: nothing from this file is in use until it is fixed: the configuration no longer \
                     allows its last valid content";
    assert!(text.contains(withdrawn), "{text}");
    wait_for_nothing(&agent);
    assert_eq!(agent.answers("other.service.local.", A), ["A 10.0.0.7"]);
    assert_eq!(reload_with(&agent, true).0, Some(0));
    wait_for_port(&agent, 1);
}

#[test]
fn reloads_leak_no_descriptors_or_threads() {
    let count = |agent: &Agent, what: &str| {
        let own = Path::new("/proc").join(agent.pid().to_string()).join(what);
        fs::read_dir(own).unwrap().count()
    };
    let agent = Agent::start();
    let round = |from: u16| {
        for port in from..from + 50 {
            agent.write_service(
                "web.yaml",
                &format!("{}checks: [{{tcp: 127.0.0.1:1, initial: passing, fall: 100}}]\n", service(port)),
            );
            wait_for_port(&agent, port);
        }
    };
    round(1);
    let before = count(&agent, "fd");
    round(1001);
    round(2001);
    // A probe may be running, and the number of blocking threads of tokio varies.
    until("descriptors and threads are as before", || count(&agent, "fd") <= before + 2 && count(&agent, "task") <= 20);
}
