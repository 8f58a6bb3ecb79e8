//! Messages for the own chitchat, built here.

use chitchat::{ChitchatId, Serializable};

use super::{ACK, DELETE, Envelope, KEY_VALUE, MAGIC, NODE, SET, VERSION, Versions};
use crate::gossip::{anti_entropy::stream, peer_replica::Change};

/// Returns a message with changes of one run that follow version `from` without a gap.
pub(in crate::gossip::anti_entropy) fn changes_of(run: &ChitchatId, from: u64, changes: &[Change<'_>]) -> Vec<u8> {
    let mut content = vec![NODE];
    run.serialize(&mut content);
    // chitchat applies changes if the receiver knows all versions up to those where tombstones were collected: it does.
    for counter in [0, from] {
        counter.serialize(&mut content);
    }
    for Change { key, version, value } in changes {
        content.push(KEY_VALUE);
        key.serialize(&mut content);
        value.unwrap_or_default().serialize(&mut content);
        version.serialize(&mut content);
        content.push(if value.is_some() { SET } else { DELETE });
    }
    let [a, b] = MAGIC.to_le_bytes();
    let mut out = vec![a, b, VERSION, ACK];
    stream::write_plain(&content, &mut out);
    out
}

/// Returns a message with these heartbeats of runs, which chitchat answers without changes of any of them.
pub(in crate::gossip::anti_entropy) fn heartbeats(
    runs: impl IntoIterator<Item = (ChitchatId, u64)>,
    cluster: &str,
) -> Vec<u8> {
    let entry = |(id, heartbeat)| Versions { id, heartbeat, collected: 0, max: u64::MAX };
    Envelope::Syn { digest: runs.into_iter().map(entry).collect(), cluster }.write()
}
