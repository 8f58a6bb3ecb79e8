//! Upgrade and downgrade of the package.

use std::fs;

use crate::{
    packaged::{Packaged, can_run, package},
    support::{cluster::Host, installed},
};

/// Reports whether the unit's main process runs the program that is now installed.
fn runs_installed(cluster: &Packaged) -> bool {
    let host = cluster.first();
    let running = host.path(&format!("/proc/{}/exe", host.property("MainPID")));
    installed::is_same_file(&running, &host.path("/usr/bin/muster"))
}

#[test]
fn upgrade_of_the_package_is_in_place() {
    if !can_run("an upgrade of the package under systemd") {
        return;
    }
    let cluster = Packaged::start(0);
    let host = cluster.first();
    let pid = host.property("MainPID");
    cluster.assert_no_outage("upgrade of the package", |host| {
        let output = host.install(package(1));
        assert!(!output.contains("still runs"), "{output}");
        assert!(runs_installed(&cluster), "{output}");
    });
    assert_eq!(host.property("MainPID"), pid);
    cluster.assert_no_outage("reinstallation of the package", |host| {
        host.install(package(1));
        assert!(runs_installed(&cluster));
    });
    assert_eq!(host.property("MainPID"), pid);

    // The new program refuses this configuration, and the running one goes on.
    let config = fs::read_to_string(host.path("/etc/muster/muster.yaml")).unwrap();
    cluster.assert_no_outage("upgrade of the package, refused", |host| {
        host.write("/etc/muster/muster.yaml", &format!("{config}nonsense: 1\n"));
        let output = host.install(package(1));
        assert!(output.contains("the agent still runs the previous version: upgrade refused"), "{output}");
        assert!(output.contains("nonsense"), "{output}");
        assert!(!runs_installed(&cluster));
    });
    host.write("/etc/muster/muster.yaml", &config);

    cluster.assert_no_outage("downgrade of the package", |host| {
        host.install(package(0));
        assert!(runs_installed(&cluster));
    });
    assert_ne!(host.property("MainPID"), pid, "a downgrade restarts the agent");
    assert!(!host.journal().contains("draining"), "{}", host.journal());
}

#[test]
fn removal_of_the_package_drains() {
    if !can_run("a removal of the package under systemd") {
        return;
    }
    let cluster = Packaged::start(1);
    let observer = cluster.scene.observe_except(Some(0), |at| at != 0);
    cluster.first().output_of(&["dpkg", "--remove", "muster"]);
    let is_gone = |host: &Host| host.ask("web").is_some_and(|answer| answer.answers.len() == 2);
    assert!(cluster.scene.cluster.others(0).all(is_gone));
    let report = observer.finish();
    report.print("removal of the package, systemd, 3 nodes", &[]);
    report.assert_right(&[]);
}
