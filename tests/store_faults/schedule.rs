//! The faults, in an order that a seed decides.

use std::{thread, time::Duration};

use nix::sys::signal::Signal;

use crate::{
    injection::DiskFault,
    scene::{HOSTS, Scene, VOTERS},
};

/// A fault, until the hosts are healed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// An agent is killed and started again.
    Kill,
    /// All voters are killed and started again.
    KillAll,
    /// A voter loses its power: what no fsync has covered is gone.
    PowerLoss,
    /// All voters lose their power.
    Blackout,
    /// An agent is stopped by SIGSTOP for a while.
    Stop,
    /// A host neither hears nor is heard.
    Isolate,
    /// A host does not hear the others.
    Deaf,
    /// A host is not heard by the others, or by one of them.
    Mute,
    /// All voters are cut off from each other.
    Shatter,
    /// The clock of one host or of all is set forward or back by hours, and stays so.
    Clock,
    /// The disk of a voter is full for a while.
    FullDisk,
    /// A write of a voter to its disk fails.
    Disk(DiskFault),
    /// An fsync of a voter fails, then the voter loses its power.
    DiskThenPowerLoss(DiskFault),
}

const FAULTS: [Fault; 16] = [
    Fault::Kill,
    Fault::KillAll,
    Fault::PowerLoss,
    Fault::Blackout,
    Fault::Stop,
    Fault::Isolate,
    Fault::Deaf,
    Fault::Mute,
    Fault::Shatter,
    Fault::Clock,
    Fault::FullDisk,
    Fault::Disk(DiskFault::SyncLoses),
    Fault::Disk(DiskFault::SyncTears),
    Fault::Disk(DiskFault::SyncKeepsPages),
    Fault::Disk(DiskFault::WriteTears),
    Fault::DiskThenPowerLoss(DiskFault::SyncKeepsPages),
];

/// Faults in rounds: each round has every fault once.
pub(crate) struct Schedule {
    random: fastrand::Rng,
    left: Vec<Fault>,
}

impl Schedule {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), left: Vec::new() }
    }

    /// Waits for up to this many milliseconds.
    pub(crate) fn rest(&mut self, most: u64) {
        thread::sleep(Duration::from_millis(self.random.u64(300..most.max(301))));
    }

    /// Brings the next fault about, lets it last, and ends it. Returns it with its victim.
    pub(crate) fn bring_about_next(&mut self, scene: &mut Scene) -> (Fault, usize) {
        if self.left.is_empty() {
            self.left = FAULTS.to_vec();
            self.random.shuffle(&mut self.left);
        }
        let fault = self.left.pop().unwrap();
        let leader = scene.leader();
        let victim = if self.random.bool() { leader } else { self.random.usize(..victims(fault)) };
        self.bring_about(fault, victim, scene);
        (fault, victim)
    }

    fn bring_about(&mut self, fault: Fault, victim: usize, scene: &mut Scene) {
        let context = format!("{fault:?} of n{}", victim + 1);
        let others: Vec<usize> = (0..HOSTS).filter(|at| *at != victim).collect();
        let voters: Vec<usize> = (0..VOTERS).collect();
        let time = Duration::from_millis(self.random.u64(500..4000));
        match fault {
            Fault::Kill | Fault::PowerLoss => {
                let thousandths = self.random.u64(..1000);
                self.restart(scene, &[victim], (fault == Fault::PowerLoss).then_some(thousandths));
            }
            Fault::KillAll | Fault::Blackout => {
                let thousandths = self.random.u64(..1000);
                self.restart(scene, &voters, (fault == Fault::Blackout).then_some(thousandths));
            }
            Fault::Stop => {
                scene.signal(victim, Signal::SIGSTOP);
                thread::sleep(Duration::from_millis(self.random.u64(500..8000)));
                scene.signal(victim, Signal::SIGCONT);
            }
            Fault::Isolate => {
                others.iter().for_each(|other| scene.cut(*other, &[victim]));
                scene.cut(victim, &others);
                thread::sleep(time);
            }
            Fault::Deaf => {
                scene.cut(victim, &others);
                thread::sleep(time);
            }
            Fault::Mute => {
                let one = self.random.usize(..others.len());
                let deaf = if self.random.bool() { &others[..] } else { &others[one..=one] };
                deaf.iter().for_each(|other| scene.cut(*other, &[victim]));
                thread::sleep(time);
            }
            Fault::Shatter => {
                voters.iter().for_each(|at| scene.cut(*at, &voters));
                thread::sleep(time);
            }
            Fault::Clock => {
                let hours = self.random.i64(-72..72);
                let hosts = if self.random.bool() { victim..victim + 1 } else { 0..HOSTS };
                scene.commands[hosts].iter().for_each(|commands| commands.shift_clock(hours * 3600));
                thread::sleep(time);
            }
            Fault::FullDisk => {
                scene.fill_disk(victim);
                thread::sleep(time);
                scene.assert_answers(victim, &context);
                scene.empty_disk(victim);
            }
            Fault::Disk(fault) => {
                scene.fail_write(victim, fault, &context);
                scene.assert_answers(victim, &context);
            }
            Fault::DiskThenPowerLoss(fault) => {
                scene.fail_write(victim, fault, &context);
                scene.wait_until_recovered(&context);
                self.rest(2000);
                self.restart(scene, &[victim], Some(0));
            }
        }
        scene.heal();
        scene.wait_until_recovered(&context);
    }

    /// Kills agents and starts them again, without what was not on disk except for some thousandths.
    fn restart(&mut self, scene: &mut Scene, hosts: &[usize], lost: Option<u64>) {
        scene.kill(hosts);
        if let Some(thousandths) = lost {
            scene.lose_power(hosts, thousandths);
        }
        thread::sleep(Duration::from_millis(self.random.u64(..2000)));
        scene.start_again(hosts);
    }
}

/// Number of hosts that a fault may hit: the first ones are the voters.
fn victims(fault: Fault) -> usize {
    match fault {
        Fault::Kill | Fault::Stop | Fault::Isolate | Fault::Deaf | Fault::Mute | Fault::Clock => HOSTS,
        _ => VOTERS,
    }
}
