//! A disk without space for the agent's state.

use crate::{
    packaged::{Packaged, can_run, crash},
    scene::SECOND,
    support::wait::until,
};

#[test]
fn full_disk_keeps_no_unit_from_answering() {
    if !can_run("a full disk under systemd") {
        return;
    }
    let cluster = Packaged::start(1);
    let host = cluster.first();
    let observer = cluster.scene.observe_except(Some(0), |at| at != 0);
    host.output_of(&["systemctl", "stop", "muster"]);
    host.output_of(&["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "/var/lib/muster"]);
    // dd fails when the disk is full.
    host.run(&["dd", "if=/dev/zero", "of=/var/lib/muster/filler", "bs=4k"]);
    host.output_of(&["systemctl", "start", "muster"]);
    cluster.scene.cluster.converge();
    until("the journal names the folder", || {
        host.journal().lines().any(|line| line.contains("WARN") && line.contains("/var/lib/muster"))
    });
    // Ten crashes on a full disk do not leave the unit failed.
    for _ in 0..10 {
        crash(host);
    }
    host.output_of(&["rm", "/var/lib/muster/filler"]);
    until("the state is written once there is space", || host.path("/var/lib/muster/state").exists());
    cluster.scene.cluster.converge();
    observer.run_for(SECOND);
    let report = observer.finish();
    report.print("start and 10 crashes on a full disk, systemd, 3 nodes", &[]);
    report.assert_right(&[]);
}
