//! A watch of the store that survives the loss of a voter: each change is seen once, in order.

use std::time::Duration;

use tokio::{sync::mpsc::Receiver, time::sleep};

use super::{
    key::{KeyRange, Revision},
    request::{Store, StoreError},
    watch::{Watch, WatchMessage},
};

/// Pause before a lost watch is started again, so that a store without voters is not asked in a loop.
const RESUME_PAUSE: Duration = Duration::from_millis(50);

/// A watch of the store that starts again behind the last revision that it has seen.
pub struct Follower {
    store: Store,
    range: KeyRange,
    /// First revision that was not seen; `None`: the watch has not begun.
    next: Option<Revision>,
    has_begun: bool,
    messages: Option<Receiver<WatchMessage>>,
}

impl Follower {
    /// Returns a watch of a range from a revision on; `None`: from now on.
    pub fn new(store: Store, range: KeyRange, from: Option<Revision>) -> Self {
        Self { store, range, next: from, has_begun: false, messages: None }
    }

    /// Last revision up to which all changes were seen.
    pub fn seen(&self) -> Revision {
        Revision(self.next.map_or(0, |next| next.0.saturating_sub(1)))
    }

    /// Returns the next message. [`WatchMessage::Began`] is the first one, and comes once.
    ///
    /// # Errors
    /// Fails if the agent is stopping.
    pub async fn next(&mut self) -> Result<WatchMessage, StoreError> {
        loop {
            let Some(messages) = &mut self.messages else {
                let watch = Watch { range: self.range.clone(), from: self.next };
                self.messages = Some(self.store.watch(watch).await?);
                continue;
            };
            match messages.recv().await {
                None => {
                    self.messages = None;
                    sleep(RESUME_PAUSE).await;
                }
                Some(WatchMessage::Began(revision)) => {
                    self.next.get_or_insert(revision.next());
                    if !self.has_begun {
                        self.has_begun = true;
                        return Ok(WatchMessage::Began(revision));
                    }
                }
                Some(WatchMessage::Changes { revision, mut changes }) => {
                    changes.retain(|change| self.next.is_none_or(|next| change.revision >= next));
                    self.saw(revision);
                    return Ok(WatchMessage::Changes { revision, changes });
                }
                Some(WatchMessage::Progress(revision)) => {
                    self.saw(revision);
                    return Ok(WatchMessage::Progress(revision));
                }
                Some(WatchMessage::Compacted(revision)) => return Ok(WatchMessage::Compacted(revision)),
            }
        }
    }

    fn saw(&mut self, revision: Revision) {
        self.next = self.next.max(Some(revision.next()));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::{
        sync::{mpsc, watch},
        task::JoinSet,
    };
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::store::{
        command::{Command, Operation},
        entry::{Attributes, Entry},
        key::Key,
        node,
        request::Request,
        watch::Change,
    };

    fn change(revision: u64) -> Change {
        let entry = Entry::new("v".into(), Attributes::default());
        let key = Key::new("k").unwrap();
        Change { revision: Revision(revision), key, entry: Some(Arc::new(entry)), previous: None }
    }

    #[tokio::test(start_paused = true)]
    async fn lost_watch_resumes_without_gap_or_repetition() {
        let (requests, mut received) = mpsc::channel(1);
        let mut follower = Follower::new(Store::new(requests), KeyRange::ALL, None);
        let voters = async {
            let rounds = [
                (None, vec![WatchMessage::Began(Revision(5)), changes(7, &[6, 7])]),
                // A voter that is behind, and one that repeats.
                (Some(8), vec![WatchMessage::Began(Revision(6))]),
                (Some(8), vec![WatchMessage::Began(Revision(9)), changes(8, &[7, 8]), changes(9, &[9])]),
            ];
            for (from, messages) in rounds {
                let Some(Request::Watch { watch, messages: to }) = received.recv().await else { panic!() };
                assert_eq!(watch.from, from.map(Revision));
                for message in messages {
                    to.send(message).await.unwrap();
                }
            }
        };
        let client = async {
            let mut seen = vec![];
            while seen.len() < 4 {
                match follower.next().await.unwrap() {
                    WatchMessage::Began(revision) => assert_eq!(revision, Revision(5)),
                    WatchMessage::Changes { changes, .. } => {
                        seen.extend(changes.iter().map(|change| change.revision.0));
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(seen, [6, 7, 8, 9]);
            assert_eq!(follower.seen(), Revision(9));
        };
        tokio::join!(voters, client);
    }

    fn changes(revision: u64, revisions: &[u64]) -> WatchMessage {
        let changes = revisions.iter().map(|revision| change(*revision)).collect();
        WatchMessage::Changes { revision: Revision(revision), changes }
    }

    /// Starts a store of one voter.
    fn start(folder: &std::path::Path, shutdown: CancellationToken) -> Store {
        let (requests, received) = mpsc::channel(1024);
        let settings = node::Settings {
            node: "a".to_owned(),
            voters: vec!["a".to_owned()],
            joins: false,
            folder: folder.to_owned(),
            max_octets: 1 << 30,
            metrics: Default::default(),
        };
        let inputs = node::Inputs {
            requests: received,
            connections: mpsc::channel(1).1,
            keyring: watch::channel(None).1,
            addresses: watch::channel(Arc::default()).1,
            catalog: watch::channel(Default::default()).1,
        };
        tokio::spawn(node::run(settings, inputs, shutdown));
        Store::new(requests)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn watch_from_the_past_delivers_all_changes() {
        const WRITES: u64 = 600;
        let folder = tempfile::tempdir().unwrap();
        let shutdown = CancellationToken::new();
        let store = start(folder.path(), shutdown.clone());
        let mut writes = JoinSet::new();
        for number in 0..WRITES {
            let store = store.clone();
            writes.spawn(async move {
                let key = Key::new(format!("key/{number}")).unwrap();
                let set = Operation::Set { key, value: "v".into(), flags: 0 };
                // The store may not have a leader yet.
                while store.write(Command::Operate(vec![set.clone()])).await.is_err() {}
            });
        }
        writes.join_all().await;
        let mut follower = Follower::new(store, KeyRange::prefix("key/"), Some(Revision(1)));
        let mut seen = vec![];
        while follower.seen().0 < 1 + WRITES {
            if let WatchMessage::Changes { changes, .. } = follower.next().await.unwrap() {
                seen.extend(changes.iter().map(|change| change.revision.0));
            }
        }
        assert_eq!(seen, (2..2 + WRITES).collect::<Vec<_>>());
        shutdown.cancel();
    }
}
