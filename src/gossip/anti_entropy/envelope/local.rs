//! Messages for the own chitchat, built here, and its own messages, completed.

use chitchat::{ChitchatId, Serializable};

use super::{
    ACK, Envelope, EnvelopeError, HEADER, KEY_VALUE, MAGIC, NODE, SYN, SYN_ACK, VERSION, Versions, read_digest,
    write_change, write_digest,
};
use crate::gossip::{anti_entropy::stream, peer_replica::Change};

/// Returns a message with changes of one run that follow version `from` without a gap.
pub(in crate::gossip::anti_entropy) fn changes_of(run: &ChitchatId, from: u64, changes: &[Change<'_>]) -> Vec<u8> {
    let mut content = vec![NODE];
    run.serialize(&mut content);
    // chitchat applies changes if the receiver knows all versions up to those where tombstones were collected: it does.
    for counter in [0, from] {
        counter.serialize(&mut content);
    }
    for change in changes {
        content.push(KEY_VALUE);
        write_change(change, &mut content);
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

/// Adds live runs to the digest of an own message; `None` if it lists all of them. chitchat leaves out a run that has
/// returned until its next round, and peers would send the run's whole state before all other changes.
///
/// # Errors
/// Fails if chitchat's form has changed.
pub(in crate::gossip::anti_entropy) fn completed(
    octets: &[u8],
    live: &[(ChitchatId, u64)],
) -> Result<Option<Vec<u8>>, EnvelopeError> {
    let Some((header, rest)) = octets.split_first_chunk::<HEADER>() else { return Err(EnvelopeError::Form) };
    if !matches!(header[HEADER - 1], SYN | SYN_ACK) {
        return Ok(None);
    }
    let (mut digest, rest) = read_digest(rest)?;
    let listed = digest.len();
    for (run, version) in live {
        if digest[..listed].binary_search_by(|entry| entry.id.cmp(run)).is_err() {
            digest.push(Versions { id: run.clone(), heartbeat: 0, collected: 0, max: *version });
        }
    }
    if digest.len() == listed {
        return Ok(None);
    }
    digest.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    let mut out = header.to_vec();
    write_digest(&digest, &mut out);
    out.extend_from_slice(rest);
    Ok(Some(out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gossip::anti_entropy::envelope::Delta;

    fn run(name: &str) -> ChitchatId {
        ChitchatId::new(name, 1, ([10, 0, 0, 1], 7946).into())
    }

    fn entry(name: &str, heartbeat: u64, max: u64) -> Versions {
        Versions { id: run(name), heartbeat, collected: 0, max }
    }

    #[test]
    fn digest_lists_all_live_runs() {
        let live = [(run("a"), 3), (run("m"), 5), (run("z"), 7)];
        let digest = vec![entry("a", 9, 4), entry("dead", 9, 4), entry("z", 9, 4)];
        let whole = vec![entry("a", 9, 4), entry("dead", 9, 4), entry("m", 0, 5), entry("z", 9, 4)];
        let syn = |digest| Envelope::Syn { digest, cluster: "c" };
        let octets = completed(&syn(digest.clone()).write(), &live).unwrap().unwrap();
        assert_eq!(Envelope::read(&octets), Ok(syn(whole.clone())));
        assert_eq!(completed(&octets, &live), Ok(None));
        let answer = Envelope::SynAck { digest, delta: Delta::EMPTY }.write();
        let octets = completed(&answer, &live).unwrap().unwrap();
        assert_eq!(Envelope::read(&octets), Ok(Envelope::SynAck { digest: whole, delta: Delta::EMPTY }));
        assert_eq!(completed(&Envelope::BadCluster.write(), &live), Ok(None));
    }

    #[test]
    fn changes_are_written_as_chitchat_reads_them() {
        let changes =
            [Change { key: "k", version: 8, value: Some("v") }, Change { key: "gone", version: 9, value: None }];
        let octets = changes_of(&run("a"), 7, &changes);
        let Ok(Envelope::Ack { delta }) = Envelope::read(&octets) else { panic!("{octets:?}") };
        assert_eq!(delta.runs, [run("a")]);
        // The reader refuses a key that chitchat does not survive.
        let hostile = changes_of(&run("a"), 7, &[Change { key: "\u{e9}", version: 8, value: None }]);
        assert_eq!(Envelope::read(&hostile), Err(EnvelopeError::Text("key")));
    }
}
