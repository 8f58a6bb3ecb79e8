//! The log: its cache, and the last entry for a recovery.

use openraft::CommittedLeaderId;

use super::*;
use crate::store::raft::batch::Batch;

const ENTRIES: u64 = 16;
const ENTRY: usize = 1 << 20;

#[tokio::test]
async fn cache_is_bounded_and_evicted_entries_are_read_from_disk() {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::open(&folder.path().join("log"), metrics::Store::default()).unwrap();
    let octets = postcard::to_stdvec(&vec![b'x'; ENTRY]).unwrap();
    let batch: Batch = postcard::from_bytes(&octets).unwrap();
    for index in 1..=ENTRIES {
        let id = Encoded(LogId::new(CommittedLeaderId::new(1, 0), index));
        let entry = (id, Encoded(EntryPayload::Normal(batch.clone())));
        log.write(ErrorVerb::Write, |log| log.append([entry]).map(drop)).await.unwrap();
    }
    let cached = log.lock().stat().payload_cache_size;
    assert!(cached <= (CACHED_OCTETS + MAX_FILE) as u64, "{cached} octets");
    let read = log.read(1..=ENTRIES, usize::MAX).unwrap();
    assert_eq!(read.iter().map(|entry| entry.log_id.index).collect::<Vec<_>>(), (1..=ENTRIES).collect::<Vec<_>>());
    assert!(read.iter().all(|entry| size(&entry.payload) == ENTRY as u64));
}
