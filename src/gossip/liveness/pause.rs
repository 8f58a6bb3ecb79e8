//! Announced pauses: a run that is about to go on, after a reload or an upgrade of its agent, is not declared gone meanwhile.

use std::time::Duration;

use super::{Liveness, peer::Pause};
use crate::model::member::PeerId;

/// Longest pause: the start of an agent with 100,000 instances takes some seconds.
const PAUSE: Duration = Duration::from_secs(10);

impl Liveness {
    /// Records that this run pauses. For some seconds, only a refusal of its host counts against it.
    pub fn pauses(&mut self, id: &PeerId, now: Duration) {
        let at = self.advance_clock(now);
        if let Some(peer) = self.run(id).filter(|peer| peer.is_live()) {
            peer.pause = Some(Pause { since: now, until: at + PAUSE });
        }
    }
}
