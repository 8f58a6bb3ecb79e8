//! Queues of keys below a name: the key that was created first is at the head. Locks and elections are such queues.

use bytes::Bytes;
use tonic::{Code, Status};

use super::{
    backend::Backend,
    convert::number,
    error::{COMPACTED, bad_key, failed, unexpected},
    proto::etcdserverpb::ResponseHeader,
};
use crate::{
    model::token::KeyAccess,
    store::{
        command::{
            Command, Comparison, Condition, Put, PutLease, Target, Transaction, TransactionRequest, TransactionResponse,
        },
        entry::KeyEntry,
        key::{Key, KeyRange, Revision},
        lease::LeaseId,
        query::{Consistency, Range, RevisionBounds, Sort, SortBy},
        watch::WatchMessage,
    },
};

/// Time to live in seconds of the lease of a client that brings none, as in etcd.
const LEASE_TTL: i64 = 60;
/// Digits of the longest id of a lease in a key.
const LEASE_DIGITS: usize = 16;

/// A key in a queue. Dropping it leaves the queue, unless it was [kept](Self::keep).
pub(super) struct Place {
    backend: Backend,
    prefix: Bytes,
    /// The key: the prefix and the id of the lease.
    pub(super) key: Key,
    /// Revision at which the key was created: the order of the queue.
    pub(super) created: Revision,
    /// Lease with which the key ends.
    pub(super) lease: i64,
    /// The lease, if it was granted for this place.
    own_lease: Option<OwnLease>,
    is_kept: bool,
}

/// A lease that was granted for a place. Dropping it revokes the lease, unless it was kept.
struct OwnLease {
    backend: Backend,
    id: i64,
    is_kept: bool,
}

impl OwnLease {
    async fn grant(backend: &Backend) -> Result<Self, Status> {
        // Exists before the request: a call that is abandoned meanwhile revokes the lease, too.
        let lease = Self { backend: backend.clone(), id: fastrand::i64(1..), is_kept: false };
        backend.grant(lease.id, LEASE_TTL).await?;
        Ok(lease)
    }
}

impl Drop for OwnLease {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        let (backend, revoke) = (self.backend.clone(), Command::RevokeLease(LeaseId(self.id)));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { backend.write(revoke).await });
        }
    }
}

/// Returns the beginning of all keys of a queue.
pub(super) fn prefix(name: &[u8]) -> Bytes {
    [name, b"/"].concat().into()
}

/// Returns the request that deletes a key.
pub(super) fn delete(key: &Key) -> TransactionRequest {
    TransactionRequest::Delete { range: KeyRange::Key(key.clone()), with_previous: false }
}

/// Returns the transaction that carries out a request if the key is still the one that was created at a revision.
pub(super) fn if_created(key: &Key, created: i64, request: TransactionRequest) -> Transaction {
    Transaction { conditions: vec![created_at(key, created)], success: vec![request], failure: vec![] }
}

/// Returns the condition that a key was created at a revision; 0: that there is no such key.
fn created_at(key: &Key, created: i64) -> Condition {
    Condition { range: KeyRange::Key(key.clone()), target: Target::Created(created), comparison: Comparison::Equal }
}

/// Returns the request that puts a value under a key with a lease.
pub(super) fn put(key: &Key, value: Bytes, lease: i64) -> TransactionRequest {
    let lease = PutLease::Attach(LeaseId(lease));
    TransactionRequest::Put(Put { key: key.clone(), value: Some(value), lease, with_previous: false })
}

impl Backend {
    /// Returns the first entry of a range, and the revision of the answer.
    pub(super) async fn first(&self, range: Range) -> Result<(Revision, Option<KeyEntry>), Status> {
        let (revision, answer) = self.range(range, Consistency::Linearizable).await?;
        Ok((revision, answer.entries.into_iter().next()))
    }
}

impl Place {
    /// Enters a queue, or finds the place that the lease has in it. Returns the place, the entry found, and the header.
    pub(super) async fn enter(
        backend: &Backend,
        name: &[u8],
        lease: i64,
        value: Bytes,
    ) -> Result<(Self, Option<KeyEntry>, Option<ResponseHeader>), Status> {
        let prefix = prefix(name);
        backend.granted().require(KeyAccess::Write, &KeyRange::prefix(prefix.clone()))?;
        // The key has an id of any length behind the prefix.
        Key::new([&prefix[..], &[b'f'; LEASE_DIGITS]].concat()).map_err(bad_key)?;
        let own_lease = if lease == 0 { Some(OwnLease::grant(backend).await?) } else { None };
        let lease = own_lease.as_ref().map_or(lease, |own| own.id);
        let key = Key::new([&prefix[..], format!("{lease:x}").as_bytes()].concat()).map_err(bad_key)?;
        let read = Range::all(KeyRange::Key(key.clone()));
        let transaction = Transaction {
            conditions: vec![created_at(&key, 0)],
            success: vec![put(&key, value, lease)],
            failure: vec![TransactionRequest::Range(read)],
        };
        let (revision, outcome) = backend.transact(transaction).await?;
        let found = match outcome.responses.into_iter().next() {
            Some(TransactionResponse::Range(answer)) => answer.entries.into_iter().next(),
            Some(TransactionResponse::Put(_)) => None,
            _ => return Err(unexpected()),
        };
        let created = found.as_ref().map_or(revision, |found| found.entry.created);
        let place = Self { backend: backend.clone(), prefix, key, created, lease, own_lease, is_kept: false };
        Ok((place, found, backend.header(revision)))
    }

    /// Waits until the place is at the head of the queue. Returns the header of the last read.
    ///
    /// # Errors
    /// Fails if the key is deleted meanwhile, for example since its lease expired, or if the server ends. A client with a lease of
    /// its own then finds its place with the next call.
    pub(super) async fn head(&mut self) -> Result<Option<ResponseHeader>, Status> {
        tokio::select! {
            reached = self.reach_head() => reached,
            status = self.backend.stopped() => {
                self.is_kept = self.own_lease.is_none();
                Err(status)
            }
        }
    }

    async fn reach_head(&self) -> Result<Option<ResponseHeader>, Status> {
        loop {
            let (revision, before) = self.before().await?;
            let (own_revision, own) = self.backend.first(Range::all(KeyRange::Key(self.key.clone()))).await?;
            if own.is_none_or(|own| own.entry.created != self.created) {
                return Err(Status::unknown("mutex: session is expired"));
            }
            let Some(before) = before else { return Ok(self.backend.header(own_revision)) };
            tokio::select! {
                gone = self.deleted(before.key, revision) => gone?,
                gone = self.deleted(self.key.clone(), own_revision) => gone?,
            }
        }
    }

    /// Returns the next place towards the head, and the revision of the answer.
    async fn before(&self) -> Result<(Revision, Option<KeyEntry>), Status> {
        // The first change of a store has revision 2: the bound is not 0, which would be none.
        let max_created = self.created.0.saturating_sub(1);
        let range = Range {
            limit: 1,
            sort: Some(Sort { by: SortBy::Created, descending: true }),
            keys_only: true,
            bounds: RevisionBounds { max_created, ..RevisionBounds::default() },
            ..Range::all(KeyRange::prefix(self.prefix.clone()))
        };
        self.backend.first(range).await
    }

    /// Waits until a key that exists at a revision is deleted.
    async fn deleted(&self, key: Key, since: Revision) -> Result<(), Status> {
        let mut follower = self.backend.follow(KeyRange::Key(key), Some(since.next()))?;
        loop {
            match follower.next().await.map_err(|error| failed(&error))? {
                WatchMessage::Changes { changes, .. } if changes.iter().any(|change| change.entry.is_none()) => {
                    return Ok(());
                }
                WatchMessage::Compacted(_) => return Err(Status::new(Code::OutOfRange, COMPACTED)),
                _ => {}
            }
        }
    }

    /// Keeps the place: the client has it now.
    pub(super) fn keep(mut self) {
        self.is_kept = true;
        if let Some(lease) = &mut self.own_lease {
            lease.is_kept = true;
        }
    }
}

impl Drop for Place {
    /// Leaves the queue if the client is gone, so that the others need not wait for the end of the lease.
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        let leave = if_created(&self.key, number(self.created.0), delete(&self.key));
        let backend = self.backend.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { backend.transact(leave).await });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, future::pending, time::Duration};

    use tokio::{
        sync::{mpsc, watch},
        time::{sleep, timeout},
    };
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{
        etcd::{Settings, access::Granted},
        model::token::{KeyGrant, Permissions, Token},
        store::{
            key::MAX_KEY,
            query::{Content, Query},
            request::{Request, Store},
            state::State,
        },
    };

    /// Returns a backend with a store in memory, and the token that ends it.
    fn backend() -> (Backend, CancellationToken) {
        let (requests, mut received) = mpsc::channel(16);
        tokio::spawn(async move {
            let (mut state, mut watches) = (State::new(1 << 20), vec![]);
            while let Some(request) = received.recv().await {
                match request {
                    Request::Write { command, done } => drop(done.send(Ok(state.apply(command)))),
                    Request::Read { query, done, .. } => drop(done.send(Ok(state.read(&query).unwrap()))),
                    other => watches.push(other),
                }
            }
        });
        let client_urls = watch::channel(BTreeMap::new()).1;
        let settings = Settings { store: Store::new(requests), tokens: None, tls: None, client_urls };
        let shutdown = CancellationToken::new();
        (Backend::new(settings, shutdown.clone()), shutdown)
    }

    /// Returns the number of keys in the store.
    async fn keys(backend: &Backend) -> usize {
        let (_, answer) = backend.range(Range::all(KeyRange::ALL), Consistency::Linearizable).await.unwrap();
        answer.entries.len()
    }

    /// Waits until the store has this number of leases.
    async fn wait_for_leases(backend: &Backend, expected: u64) {
        let reached = async {
            while !matches!(
                backend.read(Query::Totals, Consistency::Linearizable).await.unwrap().content,
                Content::Totals(totals) if totals.leases == expected
            ) {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(20), reached).await.unwrap();
    }

    #[tokio::test]
    async fn refused_or_abandoned_call_leaves_no_lease() {
        let (backend, _shutdown) = backend();
        let enter = async |backend: &Backend, name: &[u8]| Place::enter(backend, name, 0, Bytes::new()).await;
        let keys = vec![KeyGrant::new("app/", KeyAccess::Write)];
        let token = Token::new("app", Permissions { scope: None, keys }, "staple-correct-horse");
        let limited = backend.with(Granted::to(&token));
        for (backend, name) in [(&limited, &b"other"[..]), (&backend, &[b'a'; MAX_KEY])] {
            assert!(enter(backend, name).await.is_err());
            wait_for_leases(backend, 0).await;
        }
        let (place, _, _) = enter(&limited, b"app/lock").await.unwrap();
        wait_for_leases(&backend, 1).await;
        place.keep();
        // The second call waits for the first, and is abandoned.
        let waiting = async {
            let (mut place, _, _) = enter(&limited, b"app/lock").await.unwrap();
            wait_for_leases(&backend, 2).await;
            let _head = place.head().await;
            pending::<()>().await;
        };
        assert!(timeout(Duration::from_millis(200), waiting).await.is_err());
        wait_for_leases(&backend, 1).await;
    }

    /// A client calls the next server again: with its lease it finds its place, without one it cannot.
    #[tokio::test]
    async fn end_of_the_server_ends_the_wait_and_keeps_the_place_of_a_lease() {
        let (backend, shutdown) = backend();
        let enter = async |lease| Place::enter(&backend, b"lock", lease, Bytes::new()).await.unwrap().0;
        let holder = enter(0).await;
        backend.grant(7, LEASE_TTL).await.unwrap();
        let (mut with_lease, mut without) = (enter(7).await, enter(0).await);
        assert_eq!(keys(&backend).await, 3);
        shutdown.cancel();
        for place in [&mut with_lease, &mut without] {
            assert_eq!(place.head().await.unwrap_err().message(), "etcdserver: server stopped");
        }
        drop((with_lease, without));
        // The lease of the place that is gone is revoked.
        wait_for_leases(&backend, 2).await;
        assert_eq!(keys(&backend).await, 2);
        holder.keep();
    }
}
