//! What all services share: the store, the state of its cluster for response headers, and the tokens.

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
    convert::number,
    error::{Invalid, failed, refused, unexpected},
    proto::etcdserverpb::ResponseHeader,
};
use crate::{
    model::token::Tokens,
    store::{
        command::{Command, Done, Outcome, Transaction, TransactionOutcome, TransactionRequest},
        key::{MAX_VALUE, Revision},
        query::{Answer, Consistency, Content, Query, Range, RangeAnswer},
        request::{self, Store},
    },
};

/// Pause between two reads of the state of the cluster. Clients compare terms of nodes: a short one keeps them alike.
const REFRESH: Duration = Duration::from_millis(500);
/// Time limit for the first state of the cluster: without one, headers have zeros.
const FIRST_STATUS: Duration = Duration::from_secs(1);
/// Largest request in octets that changes keys, as in etcd.
const MAX_REQUEST: usize = MAX_VALUE;

/// State that all services share.
#[derive(Clone)]
pub(super) struct Backend {
    pub(super) store: Store,
    pub(super) tokens: Option<Receiver<Tokens>>,
    pub(super) client_urls: Receiver<ClientUrls>,
    status: Receiver<request::Status>,
    /// Greatest revision that a header had: later headers do not go back behind it.
    newest: Arc<AtomicU64>,
}

impl Backend {
    /// Returns the state for a listener. A task follows the state of the cluster until shutdown.
    pub(super) async fn new(settings: Settings, shutdown: CancellationToken) -> Self {
        let Settings { store, tokens, client_urls, .. } = settings;
        let first = timeout(FIRST_STATUS, store.status()).await;
        let (sender, status) = watch::channel(first.ok().and_then(Result::ok).unwrap_or_default());
        tokio::spawn(refresh(store.clone(), sender, shutdown));
        Self { store, tokens, client_urls, status, newest: Arc::default() }
    }

    /// State of the cluster, at most [`REFRESH`] and a round trip old.
    pub(super) fn status(&self) -> request::Status {
        self.status.borrow().clone()
    }

    /// Returns the header of a response at a revision.
    pub(super) fn header(&self, revision: Revision) -> Option<ResponseHeader> {
        self.newest.fetch_max(revision.0, Ordering::Relaxed);
        let status = self.status.borrow();
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
        self.status.borrow().revision.max(Revision(self.newest.load(Ordering::Relaxed)))
    }

    /// Applies a command.
    pub(super) async fn write(&self, command: Command) -> Result<(Revision, Done), Status> {
        let Outcome { revision, result } = self.store.write(command).await.map_err(|error| failed(&error))?;
        result.map(|done| (revision, done)).map_err(|refusal| refused(&refusal))
    }

    /// Applies a transaction.
    pub(super) async fn transact(&self, transaction: Transaction) -> Result<(Revision, TransactionOutcome), Status> {
        match self.write(Command::Transact(transaction)).await? {
            (revision, Done::Transacted(outcome)) => Ok((revision, outcome)),
            _ => Err(unexpected()),
        }
    }

    /// Applies one request without conditions.
    pub(super) async fn request(&self, request: TransactionRequest) -> Result<(Revision, TransactionOutcome), Status> {
        self.transact(Transaction { success: vec![request], ..Transaction::default() }).await
    }

    /// Answers a query.
    pub(super) async fn read(&self, query: Query, consistency: Consistency) -> Result<Answer, Status> {
        self.store.read(query, consistency, None).await.map_err(|error| failed(&error))
    }

    /// Reads a range.
    pub(super) async fn range(
        &self,
        range: Range,
        consistency: Consistency,
    ) -> Result<(Revision, RangeAnswer), Status> {
        let answer = self.read(Query::Range(range), consistency).await?;
        match answer.content {
            Content::Range(entries) => Ok((answer.revision, entries)),
            _ => Err(unexpected()),
        }
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
