//! Signed zones, checked by dnsviz and Zonemaster while instances change.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use super::{
    SERVICES, ZONE, keygen, muster, public_keys, signed_agent,
    support::{agent::Agent, namespaces::Namespace, process, skip},
};

/// Longest run of a tool that asks hundreds of questions.
const LIMIT: Duration = Duration::from_secs(300);
/// Interval between changes of the instances.
const INTERVAL: Duration = Duration::from_millis(200);

/// Runs `check` while the instances of a service change.
fn while_instances_change<T>(agent: &Agent, check: impl FnOnce() -> T) -> T {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut round = 0;
            while !is_over.load(Ordering::SeqCst) {
                round = (round + 1) % 250;
                agent.write_service("web.yaml", &SERVICES.replace("10.0.0.1", &format!("10.0.1.{round}")));
                thread::sleep(INTERVAL);
            }
        });
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(check));
        is_over.store(true, Ordering::SeqCst);
        checked.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[test]
fn dnsviz_finds_secure_answers_only() {
    if !skip::python_tool("dnsviz_finds_secure_answers_only", "dnsviz") {
        return;
    }
    let agent = signed_agent();
    let trusted = agent.path("trusted");
    let keys = public_keys(&agent.path("keys"));
    fs::write(&trusted, keys.iter().map(|path| fs::read_to_string(path).unwrap()).collect::<String>()).unwrap();
    let dnsviz = |arguments: &[&str]| {
        let done = process::finish_within(process::command("dnsviz").args(arguments), "", LIMIT).unwrap();
        assert!(done.status.success(), "{done:?}");
        String::from_utf8(done.stdout).unwrap()
    };
    let questions =
        [("example.org", "www alias nope x.wild b.c txt"), ("service.local", "web w1.web down nope x.web _web._tcp")];
    for (zone, names) in questions {
        let found = agent.path("found");
        let found = found.to_str().unwrap();
        let server = format!("{zone}+:ns1.{zone}={}", agent.address());
        let names: Vec<String> = names.split(' ').map(|name| format!("{name}.{zone}")).collect();
        let names = names.iter().map(String::as_str);
        let probe: Vec<&str> =
            ["probe", "-A", "-4", "-x", &server, "-o", found, zone].into_iter().chain(names).collect();
        while_instances_change(&agent, || dnsviz(&probe));
        let grok = |level| dnsviz(&["grok", "-P", "-t", trusted.to_str().unwrap(), "-l", level, "-r", found]);
        let all = grok("info");
        assert!(all.matches("\"SECURE\"").count() > 20, "{all}");
        for status in ["BOGUS", "INSECURE", "INVALID", "EXPIRED", "INDETERMINATE"] {
            assert!(!all.contains(&format!("\"{status}")), "{all}");
        }
        let warnings = grok("warning");
        // dnsviz asks no parent, so that no DS record names the key that signs CDS and CDNSKEY.
        let is_expected = |line: &str| line.contains("_SIGNER_INVALID");
        assert!(warnings.lines().filter(|line| line.contains("\"code\"")).all(is_expected), "{zone}: {warnings}");
    }
}

#[test]
fn zonemaster_finds_no_fault_of_dnssec() {
    let test = "zonemaster_finds_no_fault_of_dnssec";
    if !skip::namespaces(test) || !skip::tool(test, "zonemaster-cli", "zonemaster-cli") {
        return;
    }
    // Zonemaster asks port 53.
    Namespace::new().enter(|| {
        let config = "dns: {listen: [\"127.0.0.1:53\"], dnssec: [service.local, example.org], dnssec_keys_dir: keys}\n";
        let zones = ["example.org", "service.local"];
        let agent = Agent::start_with(config, &[], |folder| {
            fs::write(folder.join("zones/example.org.zone"), ZONE).unwrap();
            fs::write(folder.join("services.d/web.yaml"), SERVICES).unwrap();
            zones.iter().for_each(|zone| drop(keygen(&folder.join("keys"), zone, &[])));
        });
        let keys = agent.path("keys");
        for zone in zones {
            let ds = muster(&["dnssec", "ds", zone, "--dir", keys.to_str().unwrap()]);
            let ds = ds.split_whitespace().skip(3).collect::<Vec<_>>().join(",");
            let mut command = process::command("zonemaster-cli");
            command.args(["--ns", &format!("ns1.{zone}/127.0.0.1"), "--ds", &ds, "--test", "DNSSEC"]);
            command.args(["--level", "INFO", "--raw", "--no-ipv6", zone]);
            let done = while_instances_change(&agent, || process::finish_within(&mut command, "", LIMIT).unwrap());
            let shown = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
            let is_fine = |line: &str| line.split_whitespace().nth(1) == Some("INFO");
            assert!(shown.contains("DS10_HAS_NSEC") && shown.lines().all(is_fine), "{shown}");
        }
    });
}
