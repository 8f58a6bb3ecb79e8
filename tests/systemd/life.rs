//! Restart, reload, crash, stop and shutdown.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    packaged::{Packaged, can_run, crash},
    scene::SECOND,
    support::{cluster::wait_until_gone, wait::until},
};

/// Shorter than a drain, whose wait is at least the default TTL.
const NO_DRAIN: Duration = Duration::from_secs(4);

#[test]
fn restarts_and_crashes_lose_no_query() {
    if !can_run("restarts under systemd") {
        return;
    }
    let cluster = Packaged::start(1);
    // A minimal Debian has no procps.
    assert!(!cluster.first().path("/bin/kill").exists() && !cluster.first().path("/usr/bin/pgrep").exists());
    for command in ["restart", "try-restart", "restart"] {
        let begun = Instant::now();
        cluster.assert_no_outage(&format!("systemctl {command}"), |host| {
            host.output_of(&["systemctl", command, "muster"]);
            let took = begun.elapsed();
            assert!(took < NO_DRAIN + SECOND, "systemctl {command} took {took:?}");
        });
    }
    // The system bus is not needed to find out that a stop is part of a restart.
    cluster.first().output_of(&["systemctl", "stop", "dbus.socket", "dbus.service"]);
    cluster.assert_no_outage("systemctl restart without D-Bus", |host| {
        host.output_of(&["systemctl", "restart", "muster"]);
    });
    cluster.first().output_of(&["systemctl", "daemon-reload"]);
    cluster.assert_no_outage("SIGKILL", |host| {
        crash(host);
    });
    assert!(!cluster.first().journal().contains("draining"), "{}", cluster.first().journal());
}

/// Programs whose resolver is the agent wait, and fail as rarely as before.
#[test]
fn lookups_through_resolv_conf_do_not_fail_during_a_restart() {
    const LOOKUPS: &str = "
        failed=0 done=0
        while [ ! -e /tmp/end ]; do
            for name in only-n1 only-n2 only-n3; do
                getent ahostsv4 $name.service.local >/dev/null || { failed=$((failed + 1)); echo \"$name\" >&2; }
                done=$((done + 1))
            done
        done
        echo \"$failed of $done\"";
    if !can_run("lookups during a restart under systemd") {
        return;
    }
    let cluster = Packaged::start(1);
    let host = cluster.first();
    host.write("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n");
    host.write("/etc/resolv.conf", "nameserver 192.0.2.1\n");
    let config = std::fs::read_to_string(host.path("/etc/muster/muster.yaml")).unwrap();
    host.write("/etc/muster/muster.yaml", &format!("{config}resolver: {{upstreams: [192.0.2.1]}}\n"));
    host.output_of(&["systemctl", "reload", "muster"]);
    host.output_of(&["muster", "setup", "resolv-conf"]);
    let lookups = thread::scope(|scope| {
        let lookups = scope.spawn(|| host.output_of(&["sh", "-c", LOOKUPS]));
        for _ in 0..3 {
            host.output_of(&["systemctl", "restart", "muster"]);
            thread::sleep(SECOND);
        }
        host.write("/tmp/end", "");
        lookups.join().unwrap()
    });
    println!("3 x systemctl restart during lookups through resolv.conf: failed: {lookups}");
    assert!(lookups.starts_with("0 of "), "{lookups}");
}

#[test]
fn reload_applies_muster_yaml_or_fails() {
    if !can_run("a reload under systemd") {
        return;
    }
    let cluster = Packaged::start(1);
    let host = cluster.first();
    let config = std::fs::read_to_string(host.path("/etc/muster/muster.yaml")).unwrap();
    let pid = host.property("MainPID");
    let ttl = || Some(cluster.scene.cluster.hosts[0].ask("web")?.answers.first()?.ttl);
    // The command does not depend on the addresses of the API.
    let changed = format!("{config}dns: {{ttl: 9s}}\nhttp: {{listen: []}}\n");
    cluster.assert_no_outage("systemctl reload", |host| {
        host.write("/etc/muster/muster.yaml", &changed);
        host.output_of(&["systemctl", "reload", "muster"]);
        assert_eq!(ttl(), Some(9), "the command returns when the changes are applied");
        host.output_of(&["systemctl", "reload", "muster"]);
    });
    cluster.assert_no_outage("systemctl reload, refused", |host| {
        host.write("/etc/muster/muster.yaml", &format!("{changed}nonsense: 1\n"));
        let refused = host.run(&["systemctl", "reload", "muster"]);
        assert_eq!(refused.status.code(), Some(1), "{}", String::from_utf8_lossy(&refused.stderr));
        until("the journal shows why", || {
            host.journal().contains("/etc/muster/muster.yaml:") && host.journal().contains("nonsense")
        });
        assert_eq!(host.property("ActiveState"), "active");
        assert_eq!(ttl(), Some(9));
    });
    assert_eq!(host.property("MainPID"), pid);
}

#[test]
fn stop_and_shutdown_drain() {
    if !can_run("a stop under systemd") {
        return;
    }
    let mut cluster = Packaged::start(1);
    let observer = cluster.scene.observe_except(Some(0), |at| at != 0);
    let host = cluster.first();
    let begun = Instant::now();
    host.output_of(&["systemctl", "stop", "--no-block", "muster"]);
    // The agent answers while it drains, but not with its own instances.
    wait_until_gone("web-n1", &cluster.scene.cluster.hosts);
    until("the unit is inactive", || host.property("ActiveState") == "inactive");
    let took = begun.elapsed();
    assert!(took >= 5 * SECOND, "stopped after {took:?}");
    assert_eq!(host.property("NFileDescriptorStore"), "0", "systemd closes the sockets");
    let report = observer.finish();
    report.print("systemctl stop, systemd, 3 nodes", &[]);
    report.assert_right(&[]);

    host.output_of(&["systemctl", "start", "muster"]);
    cluster.scene.cluster.converge();
    let observer = cluster.scene.observe_except(Some(0), |at| at != 0);
    let begun = Instant::now();
    cluster.first().output_of(&["systemctl", "poweroff"]);
    wait_until_gone("web-n1", cluster.scene.cluster.others(0));
    cluster.booted[0].power_off();
    let took = begun.elapsed();
    assert!(took >= 5 * SECOND, "shut down after {took:?}, without a drain");
    let report = observer.finish();
    report.print("shutdown of a host, systemd, 3 nodes", &[]);
    report.assert_right(&[]);
}
