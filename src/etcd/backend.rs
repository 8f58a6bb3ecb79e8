//! What all services share: the store, the state of its cluster for response headers, and the tokens. Each call has the
//! permissions of its token; what reads or writes keys checks them here, for all services.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::watch::{self, Receiver},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{
    ClientUrls, Settings,
    access::Granted,
    convert::number,
    error::{Invalid, failed, refused, unexpected},
    proto::etcdserverpb::ResponseHeader,
};
use crate::{
    model::token::{KeyAccess, Tokens},
    store::{
        command::{Command, Done, Outcome, Transaction, TransactionOutcome, TransactionRequest},
        follow::Follower,
        key::{KeyRange, MAX_VALUE, Revision},
        lease::LeaseId,
        query::{Answer, Consistency, Content, Query, Range, RangeAnswer},
        request::{self, Store, StoreError},
    },
};

/// Pause between two reads of the state of the cluster. Clients compare terms of nodes: a short one keeps them alike.
const REFRESH: Duration = Duration::from_millis(500);
/// Time limit for the first state of the cluster: without one, headers have zeros.
const FIRST_STATUS: Duration = Duration::from_secs(1);
/// Largest request in octets that changes keys, as in etcd.
const MAX_REQUEST: usize = MAX_VALUE;

/// The store with the permissions of one call.
#[derive(Clone)]
pub(super) struct Backend {
    shared: Arc<Shared>,
    granted: Granted,
}

/// State that all calls share.
struct Shared {
    store: Store,
    tokens: Option<Receiver<Tokens>>,
    client_urls: Receiver<ClientUrls>,
    status: Receiver<request::Status>,
    /// Greatest revision that a header had: later headers do not go back behind it.
    newest: AtomicU64,
    /// Cancelled when the server ends.
    shutdown: CancellationToken,
}

impl Backend {
    /// Returns a backend that permits everything. A task follows the state of the cluster until shutdown.
    pub(super) fn new(settings: Settings, shutdown: CancellationToken) -> Self {
        let Settings { store, tokens, client_urls, .. } = settings;
        let (sender, status) = watch::channel(request::Status::default());
        tokio::spawn(refresh(store.clone(), sender, shutdown.clone()));
        let shared = Shared { store, tokens, client_urls, status, newest: AtomicU64::default(), shutdown };
        Self { shared: Arc::new(shared), granted: Granted::EVERYTHING }
    }

    /// Waits for the first state of the cluster, for a bounded time.
    pub(super) async fn ready(&self) {
        // A new receiver has seen only what the first one has seen: nothing.
        let _in_time = timeout(FIRST_STATUS, self.shared.status.clone().changed()).await;
    }

    /// Waits until the server ends. Returns the error for calls that last: clients send them again, to the next server.
    pub(super) async fn stopped(&self) -> Status {
        self.shared.shutdown.cancelled().await;
        failed(&StoreError::Stopping)
    }

    /// Returns the backend of a call with these permissions.
    pub(super) fn with(&self, granted: Granted) -> Self {
        Self { shared: self.shared.clone(), granted }
    }

    /// Permissions of the call.
    pub(super) fn granted(&self) -> &Granted {
        &self.granted
    }

    /// The store. It checks no permissions.
    pub(super) fn store(&self) -> &Store {
        &self.shared.store
    }

    /// Tokens that calls must present; `None`: they need none.
    pub(super) fn tokens(&self) -> Option<&Receiver<Tokens>> {
        self.shared.tokens.as_ref()
    }

    /// URLs of the nodes.
    pub(super) fn client_urls(&self) -> ClientUrls {
        self.shared.client_urls.borrow().clone()
    }

    /// State of the cluster, at most [`REFRESH`] and a round trip old.
    pub(super) fn status(&self) -> request::Status {
        self.shared.status.borrow().clone()
    }

    /// Returns the header of a response at a revision.
    pub(super) fn header(&self, revision: Revision) -> Option<ResponseHeader> {
        self.shared.newest.fetch_max(revision.0, Ordering::Relaxed);
        let status = self.shared.status.borrow();
        Some(ResponseHeader {
            cluster_id: status.cluster_id,
            member_id: status.member_id,
            revision: number(revision.0),
            raft_term: status.term,
        })
    }

    /// Returns the header of a response that is about no revision: that of the newest known state.
    pub(super) fn header_now(&self) -> Option<ResponseHeader> {
        self.header(self.newest())
    }

    /// Newest known revision.
    pub(super) fn newest(&self) -> Revision {
        self.shared.status.borrow().revision.max(Revision(self.shared.newest.load(Ordering::Relaxed)))
    }

    /// Applies a command, whatever the permissions are.
    pub(super) async fn write(&self, command: Command) -> Result<(Revision, Done), Status> {
        let Outcome { revision, result } = self.store().write(command).await.map_err(|error| failed(&error))?;
        result.map(|done| (revision, done)).map_err(|refusal| refused(&refusal))
    }

    /// Applies a transaction, if the call may read and write its keys.
    pub(super) async fn transact(&self, transaction: Transaction) -> Result<(Revision, TransactionOutcome), Status> {
        for lease in self.granted.require_for(&transaction)? {
            // Its owner could not renew a lease with a key that the owner may not write.
            self.require_lease(lease, KeyAccess::Write).await?;
        }
        match self.write(Command::Transact(transaction)).await? {
            (revision, Done::Transacted(outcome)) => Ok((revision, outcome)),
            _ => Err(unexpected()),
        }
    }

    /// Applies one request without conditions.
    pub(super) async fn request(&self, request: TransactionRequest) -> Result<(Revision, TransactionOutcome), Status> {
        self.transact(Transaction { success: vec![request], ..Transaction::default() }).await
    }

    /// Answers a query, whatever the permissions are.
    pub(super) async fn read(&self, query: Query, consistency: Consistency) -> Result<Answer, Status> {
        self.store().read(query, consistency, None).await.map_err(|error| failed(&error))
    }

    /// Reads a range, if the call may read its keys.
    pub(super) async fn range(
        &self,
        range: Range,
        consistency: Consistency,
    ) -> Result<(Revision, RangeAnswer), Status> {
        self.granted.require(KeyAccess::Read, &range.range)?;
        let answer = self.read(Query::Range(range), consistency).await?;
        match answer.content {
            Content::Range(entries) => Ok((answer.revision, entries)),
            _ => Err(unexpected()),
        }
    }

    /// Returns a watch of a range from a revision on, if the call may read its keys; `None`: from now on.
    pub(super) fn follow(&self, range: KeyRange, from: Option<Revision>) -> Result<Follower, Status> {
        self.granted.require(KeyAccess::Read, &range)?;
        Ok(Follower::new(self.store().clone(), range, from))
    }

    /// Requires access to all keys of the store.
    pub(super) fn require_all(&self, access: KeyAccess) -> Result<(), Status> {
        self.granted.require(access, &KeyRange::ALL)
    }

    /// Requires access to all keys of a lease, as etcd does. A lease without keys may be used by all that know its id.
    pub(super) async fn require_lease(&self, id: LeaseId, access: KeyAccess) -> Result<(), Status> {
        if self.granted.permits(access, &KeyRange::ALL) {
            return Ok(());
        }
        let answer = self.read(Query::Lease(id), Consistency::Linearizable).await?;
        let Content::Lease(lease) = answer.content else { return Err(unexpected()) };
        let mut keys = lease.into_iter().flat_map(|lease| lease.keys);
        keys.try_for_each(|key| self.granted.require(access, &KeyRange::Key(key)))
    }
}

/// Refuses a request that is too large to be written.
pub(super) fn check_size(request: &impl prost::Message) -> Result<(), Status> {
    if request.encoded_len() > MAX_REQUEST { Err(Invalid::TooLarge.into()) } else { Ok(()) }
}

async fn refresh(store: Store, status: watch::Sender<request::Status>, shutdown: CancellationToken) {
    let refresh = async {
        while let Ok(newest) = store.status().await {
            status.send_replace(newest);
            sleep(REFRESH).await;
        }
    };
    shutdown.run_until_cancelled(refresh).await;
}
