//! Indirect probes on behalf of other nodes, whose own path to the target may be broken.

use std::{net::SocketAddr, time::Duration};

use super::{
    Liveness, MAX_PENDING,
    action::{Action, IndirectProbeResult},
};
use crate::model::{member::PeerId, name::Label};

/// A request in progress.
#[derive(Debug)]
pub(super) struct IndirectProbe {
    requester: PeerId,
    address: SocketAddr,
    pub(super) target: Label,
    generation: u64,
    sequence: u64,
    /// Time of the negative result.
    until: Duration,
}

impl Liveness {
    /// Handles a request by the node `by` at `address` to probe `target`. Leads to an [`Action::IndirectResult`] within two
    /// intervals, unless this run of the target is unknown.
    pub fn indirect_probe(&mut self, by: &PeerId, address: SocketAddr, target: &PeerId, sequence: u64, now: Duration) {
        let at = self.advance_clock(now);
        if *target == self.own {
            let (to, target) = (by.clone(), target.clone());
            self.actions.push(Action::IndirectResult {
                to,
                address,
                target,
                sequence,
                result: IndirectProbeResult::Acked,
            });
            return;
        }
        let until = at + self.timing.indirect_timeout;
        let Some(peer) = self.run(target) else { return };
        let since = peer.indirect_probe.map_or(at, |(since, _)| since);
        // A repeated request is covered by the result of the first one.
        let known =
            self.indirect_probes.iter().any(|probe| probe.requester.name == by.name && probe.target == target.name);
        if known || self.indirect_probes.len() >= MAX_PENDING {
            return;
        }
        self.indirect_probes.push(IndirectProbe {
            requester: by.clone(),
            address,
            target: target.name.clone(),
            generation: target.generation,
            sequence,
            until,
        });
        if let Some(peer) = self.run(target) {
            peer.indirect_probe = Some((since, until));
        }
        self.schedule(&target.name, at);
    }

    /// Sends a result to all requesters that wait for this peer.
    pub(super) fn finish_indirect_probe(&mut self, name: &Label, result: IndirectProbeResult) {
        self.send_results(name, Duration::MAX, result);
        if let Some(peer) = self.peers.get_mut(name) {
            peer.indirect_probe = None;
        }
    }

    /// Continues the indirect probes of a peer and sends results where the time limit is reached.
    pub(super) fn run_indirect_probes(&mut self, name: &Label, now: Duration, at: Duration) {
        let Some(peer) = self.peers.get_mut(name) else { return };
        let Some((since, until)) = peer.indirect_probe else { return };
        let accepts = peer.tcp_probe.accepted.is_some_and(|accepted| accepted >= since);
        // Several TCP probes: one lost packet must not make a stopped agent look like a dead host.
        let last = peer.tcp_probe.at.map_or(since, |probed| probed.max(since));
        let wants_tcp_probe = !accepts && at + self.timing.step / 2 >= last + self.timing.retry;
        let pause = if peer.has_acked() { self.timing.interval } else { peer.retry(&self.timing) };
        let wants_ping = peer.pinged_before(pause, at, &self.timing);
        if until <= at {
            peer.indirect_probe = None;
        }
        self.send_results(
            name,
            at,
            if accepts { IndirectProbeResult::TcpOnly } else { IndirectProbeResult::Unreachable },
        );
        if until > at {
            if wants_ping {
                self.ping(name, now, at);
            }
            if wants_tcp_probe {
                self.tcp_probe(name, at);
            }
        }
    }

    /// Sends a result to the requesters whose time limit is reached by `at`.
    fn send_results(&mut self, name: &Label, at: Duration, result: IndirectProbeResult) {
        let actions = &mut self.actions;
        self.indirect_probes.retain(|probe| {
            if probe.target != *name || probe.until > at {
                return true;
            }
            let (to, address, sequence) = (probe.requester.clone(), probe.address, probe.sequence);
            let target = PeerId { name: name.clone(), generation: probe.generation };
            actions.push(Action::IndirectResult { to, address, target, sequence, result });
            false
        });
    }
}
