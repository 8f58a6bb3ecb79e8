//! The master files in `zones/` are valid, and the agent serves them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use support::{
    agent::Agent,
    process::{self, Finish},
};

const A: u16 = 1;
const CNAME: u16 = 5;
const MX: u16 = 15;
const PTR: u16 = 12;
const SRV: u16 = 33;

fn zones() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("zones")
}

/// Starts an agent with all example zones, and the service for which `service.local.zone` has an alias.
fn agent() -> Agent {
    Agent::start_with("", &[], |folder| {
        for entry in fs::read_dir(zones()).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, folder.join("zones").join(path.file_name().unwrap())).unwrap();
        }
        fs::write(folder.join("services.d/web.yaml"), "service: web\nport: 8080\naddress: 192.0.2.80\n").unwrap();
    })
}

#[test]
fn example_zones_pass_validate_without_warnings() {
    let output = process::muster().arg("validate").arg(zones()).finish();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !printed.contains("warning"), "{printed}");
    assert!(printed.contains(&format!("{} files checked", fs::read_dir(zones()).unwrap().count())), "{printed}");
}

#[test]
fn example_zones_are_answered() {
    let agent = agent();
    let answers: &[(&str, u16, &[&str])] = &[
        // Forward zone.
        ("example.org.", MX, &["MX 10 mail.example.org.", "MX 20 mail.example.net."]),
        ("db.example.org.", A, &["A 192.0.2.21", "A 192.0.2.22"]),
        ("www.example.org.", CNAME, &["CNAME example.org."]),
        ("_ldap._tcp.example.org.", SRV, &["SRV 10 40 389 db-2.example.org.", "SRV 10 60 389 db-1.example.org."]),
        ("no-such-name.example.org.", A, &[]),
        // Reverse zone. The last name is the instance of `web`.
        ("10.2.0.192.in-addr.arpa.", PTR, &["PTR example.org."]),
        ("102.2.0.192.in-addr.arpa.", PTR, &["PTR dhcp-102.example.org."]),
        ("80.2.0.192.in-addr.arpa.", PTR, &["PTR web-host-a.web.service.local."]),
        // Internal zone with wildcards.
        ("any-name.apps.internal.", CNAME, &["CNAME proxy.apps.internal."]),
        ("two.labels.apps.internal.", CNAME, &["CNAME proxy.apps.internal."]),
        ("wiki.apps.internal.", A, &["A 10.0.0.81"]),
        ("any-name.dev.apps.internal.", A, &["A 10.0.1.80"]),
        ("any-name._tcp.apps.internal.", A, &[]),
        // Static records in the discovery zone.
        ("printer.service.local.", A, &["A 192.0.2.3"]),
        ("_ntp._udp.service.local.", SRV, &["SRV 10 10 123 time.service.local."]),
    ];
    for (name, qtype, expected) in answers {
        agent.wait_for_answers(name, *qtype, expected);
    }
}

#[test]
fn example_delegation_is_a_referral() {
    let reply = agent().ask("host.lab.example.org.", A);
    let servers: Vec<String> = reply.authorities.iter().map(|record| record.name.to_string()).collect();
    assert!(!reply.metadata.authoritative && reply.answers.is_empty(), "{reply:?}");
    assert_eq!(servers, ["lab.example.org."]);
}
