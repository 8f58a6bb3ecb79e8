//! Confirmation of the leadership by a majority, which makes reads linearizable, and heartbeats.
//!
//! openraft's own heartbeats are entries of the log: an idle store would write to disk all the time. The exchange that confirms
//! the leadership writes nothing and reaches all voters, so it takes their place. Reads that wait at the same time
//! share an exchange (read index, §6.4 of the Raft thesis).

use std::time::Duration;

use openraft::{LogId, Raft};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior, interval},
};

use super::{Applied, MemberId, Types, contacts::Contacts};

/// Time between two heartbeats.
pub(super) const HEARTBEAT: Duration = Duration::from_millis(200);

/// Takes the confirmation that the applied state is that of a leader, as of a moment after the request; dropped if this
/// voter is not the leader, or cannot reach a majority.
pub(super) type Confirmed = oneshot::Sender<()>;

/// Confirms the leadership for readers and sends heartbeats, until all senders are dropped. `last` is the time of the last
/// confirmation.
pub(super) async fn confirm(
    raft: Raft<Types>,
    mut waiting: mpsc::Receiver<Confirmed>,
    applied: watch::Receiver<Applied>,
    last: watch::Sender<Option<Instant>>,
    contacts: Contacts,
) {
    let mut heartbeat = interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let metrics = raft.server_metrics();
    loop {
        let mut readers = Vec::new();
        tokio::select! {
            reader = waiting.recv() => match reader {
                Some(reader) => readers.push(reader),
                None => return,
            },
            _ = heartbeat.tick() => {}
        }
        while let Ok(reader) = waiting.try_recv() {
            readers.push(reader);
        }
        let is_leader = {
            let metrics = metrics.borrow();
            let is_member = metrics.membership_config.membership().get_node(&metrics.id).is_some();
            // Without heartbeats of a leader that was removed, the others elect another one.
            metrics.current_leader == Some(metrics.id) && is_member
        };
        if !is_leader {
            last.send_if_modified(|last| last.take().is_some());
            contacts.clear();
            continue;
        }
        let began = Instant::now();
        let Ok((read, _)) = raft.get_read_log_id().await else { continue };
        last.send_replace(Some(began));
        if !readers.is_empty() {
            tokio::spawn(release(readers, read, applied.clone()));
        }
    }
}

/// Confirms to readers once the state has the entries up to `read`.
async fn release(readers: Vec<Confirmed>, read: Option<LogId<MemberId>>, mut applied: watch::Receiver<Applied>) {
    let read = read.map_or(0, |read| read.index);
    if applied.wait_for(|applied| applied.index >= read).await.is_ok() {
        // A client that no longer waits has dropped its end.
        for reader in readers {
            let _ = reader.send(());
        }
    }
}
