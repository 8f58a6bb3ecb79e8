//! Voters whose disks fail or hang: what they acknowledge is on disk, and the others go on.

use nix::sys::signal::Signal;

use crate::{
    injection::{Commands, DiskFault, Injection},
    scene::{HOSTS, Scene},
    support::{
        agent::Agent,
        http::{ask, try_ask},
        skip,
        wait::until,
    },
};

const A: u16 = 1;
/// Message of a voter that could not write.
const FAILED: &str = "the log could not be written";

/// A voter, and the number of writes that it has acknowledged.
struct Disk {
    injection: Injection,
    commands: Commands,
    agent: Agent,
    acknowledged: u32,
}

impl Disk {
    fn start() -> Self {
        let injection = Injection::compile();
        let commands = injection.commands("host-a");
        let environment = commands.environment();
        let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let agent = Agent::start_with("store: {voters: [host-a]}\n", &environment, |_| {});
        agent.write_service("web.yaml", "service: web\nport: 80\n");
        agent.wait_for_answers("web.service.local.", A, &["A 10.0.0.7"]);
        let mut disk = Self { injection, commands, agent, acknowledged: 0 };
        disk.write_until("it has a leader", |disk| disk.acknowledged > 0);
        disk
    }

    /// Writes one key after another until a condition holds. A write that fails is tried again under the same key.
    fn write_until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        until(what, || {
            let number = self.acknowledged;
            let path = format!("/v1/kv/{number}");
            let written = try_ask(self.agent.http(), "PUT", &path, &number.to_string());
            if written.is_some_and(|answer| answer.status == 200 && answer.body == "true") {
                self.acknowledged += 1;
            }
            holds(self)
        });
    }

    fn write(&mut self, count: u32) {
        let whole = self.acknowledged + count;
        self.write_until("writes succeed", |disk| disk.acknowledged >= whole);
    }

    /// Ends the agent with SIGKILL, and starts it without what was not on disk.
    fn lose_power(&mut self, thousandths: u64) {
        self.agent.signal(Signal::SIGKILL);
        self.agent.wait();
        print!("{}", self.injection.lose_power(&self.agent.path("data/store"), thousandths));
        self.agent.start_again();
        self.agent.wait_until_answering();
    }

    /// Asserts that every write that was acknowledged is there.
    fn assert_complete(&self, context: &str) {
        let value = |number: u32| ask(self.agent.http(), "GET", &format!("/v1/kv/{number}?raw"), "");
        until(&format!("{context}: the store answers"), || value(0).status == 200);
        for number in 0..self.acknowledged {
            assert_eq!(value(number).body, number.to_string(), "{context}: of {}", self.acknowledged);
        }
    }
}

#[test]
fn acknowledged_writes_outlive_a_failed_fsync_and_the_loss_of_power() {
    if !skip::root("faults of a disk") {
        return;
    }
    let mut disk = Disk::start();
    let faults = [DiskFault::SyncLoses, DiskFault::SyncTears, DiskFault::WriteTears, DiskFault::SyncKeepsPages];
    for (round, fault) in faults.into_iter().enumerate() {
        let context = format!("round {round}, {fault:?}");
        disk.write(20);
        let failures = disk.agent.log().matches(FAILED).count();
        disk.commands.fail(fault);
        disk.write_until(&context, |disk| disk.commands.has_failed());
        // Discovery goes on while the voter is out.
        assert_eq!(disk.agent.answers("web.service.local.", A), ["A 10.0.0.7"], "{context}");
        disk.write(20);
        assert_eq!(disk.agent.log().matches(FAILED).count(), failures + 1, "{context}");
        disk.assert_complete(&context);
        disk.lose_power(if round.is_multiple_of(2) { 0 } else { 500 });
        disk.assert_complete(&format!("{context}, then a loss of power"));
    }
    assert!(!disk.agent.log().contains("panicked"));
}

#[test]
fn leader_whose_disk_hangs_is_replaced() {
    if !skip::machines("a leader whose disk hangs") {
        return;
    }
    let scene = Scene::start();
    let leader = scene.leader();
    scene.commands[leader].fail(DiskFault::SyncHangs);
    let is_set = |at: usize| {
        let answer = scene.ask(at, "PUT", "/v1/kv/key", "set");
        answer.is_some_and(|answer| answer.body == "true")
    };
    for at in [HOSTS - 1, leader] {
        until(&format!("n{} writes", at + 1), || is_set(at));
    }
    assert_ne!(scene.leader(), leader);
    scene.assert_answers(leader, "a disk that hangs");
    scene.commands[leader].end();
    scene.wait_until_recovered("the disk no longer hangs");
}
