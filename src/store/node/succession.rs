//! Elections after the crash of the leader's node, sooner than Raft's own.
//!
//! Raft waits for as long as a leader that lives may stall. Gossip finds a crashed agent earlier, and knows it from one that is slow.
//! Its word alone starts no election: it may be wrong about a node whose heartbeats arrive, and an election would cost that node its
//! leadership.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tracing::info;

use super::local::Local;
use crate::{
    model::catalog::{Catalog, Freshness},
    store::raft::{MAX_TRUST, MemberId, Role},
};

/// Time between the elections of two voters: an election with slow disks ends sooner, so that they do not split the votes.
const STAGGER: Duration = Duration::from_millis(150);
/// Longest wait for a change. The time of the last heartbeat changes without notice.
const LOOK: Duration = Duration::from_millis(500);

/// Begins elections in place of leaders whose nodes are gone, until the member ends.
pub(super) async fn succeed(local: Local, mut catalog: watch::Receiver<Catalog>) {
    let mut roles = local.voter.role_changes();
    loop {
        let role = local.voter.role();
        let is_gone = |node: &str| catalog.borrow().freshness(node) == Some(Freshness::Gone);
        let lost = role.leader.as_ref().filter(|leader| local.voter.is_voter() && is_gone(leader));
        let wait = lost.and_then(|_| wait(&role, local.voter.id(), local.voter.leader_silence()));
        match (wait, lost) {
            (Some(Duration::ZERO), Some(leader)) => {
                info!(leader, "store: the node of the leader is gone; voting for another one");
                local.voter.elect().await;
            }
            (Some(wait), _) => {
                tokio::select! {
                    () = sleep(wait) => continue,
                    () = local.ended.cancelled() => return,
                }
            }
            (None, _) => {}
        }
        tokio::select! {
            changed = timeout(LOOK, async { tokio::select! {
                changed = roles.changed() => changed,
                changed = catalog.changed() => changed.is_ok(),
            } }) => if changed == Ok(false) { return },
            () = local.ended.cancelled() => return,
        }
    }
}

/// Time after which this member begins the election in place of a lost leader; `None` if it is none of the voters that may.
///
/// `silence` is the time since the last heartbeat. The others vote only once they have trusted the leader for [`MAX_TRUST`] since then.
fn wait(role: &Role, own: MemberId, silence: Duration) -> Option<Duration> {
    if role.is_leader {
        return None;
    }
    let others = role.members.iter().filter(|member| member.is_voter && Some(&member.node) != role.leader.as_ref());
    let mut ids: Vec<MemberId> = others.map(|member| member.id).collect();
    ids.sort_unstable();
    let turn = ids.iter().position(|id| *id == own)?;
    Some((MAX_TRUST + STAGGER * turn as u32).saturating_sub(silence))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::message::KnownMember;

    #[test]
    fn voters_take_turns_once_the_heartbeats_have_ended() {
        let member = |id: MemberId, is_voter| KnownMember { id, node: format!("n{id}"), is_voter };
        let role = Role {
            leader: Some("n2".to_owned()),
            members: vec![member(3, true), member(1, true), member(2, true), member(4, false)],
            ..Role::default()
        };
        let (none, trust) = (Duration::ZERO, MAX_TRUST);
        for (own, silence, expected) in [
            (1, none, Some(trust)),
            (3, none, Some(trust + STAGGER)),
            (1, trust / 2, Some(trust / 2)),
            (1, trust, Some(none)),
            (3, trust, Some(STAGGER)),
            (3, trust * 2, Some(none)),
            // The lost leader, a learner, and a node that is no member.
            (2, trust, None),
            (4, trust, None),
            (5, trust, None),
        ] {
            assert_eq!(wait(&role, own, silence), expected, "{own} {silence:?}");
        }
        assert_eq!(wait(&Role { is_leader: true, ..role }, 1, trust), None);
    }
}
