//! Elections: the head of a queue is the leader.

use std::pin::Pin;

use futures_util::{Stream, stream};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, async_trait};

use super::{
    backend::Backend,
    convert::{key_value, number},
    error::{bad_key, failed},
    proto::{
        etcdserverpb::ResponseHeader,
        v3electionpb::{
            CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
            ProclaimResponse, ResignRequest, ResignResponse, election_server::Election,
        },
    },
    queue::{Place, delete, if_created, prefix, put},
};
use crate::store::{
    command::TransactionRequest,
    entry::KeyEntry,
    key::{Key, KeyRange, Revision},
    query::{Range, Sort, SortBy},
    watch::WatchMessage,
};

/// Leaders that wait for a slow observer.
const QUEUE: usize = 16;

#[async_trait]
impl Election for Backend {
    type ObserveStream = Pin<Box<dyn Stream<Item = Result<LeaderResponse, Status>> + Send>>;

    async fn campaign(&self, request: Request<CampaignRequest>) -> Result<Response<CampaignResponse>, Status> {
        let CampaignRequest { name, lease, value } = request.into_inner();
        let (mut place, found, header) = Place::enter(self, &name, lease, value.clone()).await?;
        let rev = number(place.created.0);
        if found.is_some_and(|found| found.entry.value != value) {
            let write = put(&place.key, value, place.lease);
            self.as_leader(&place.key, rev, write).await?.ok_or_else(not_leader)?;
        }
        place.head().await?;
        let leader = LeaderKey { name, key: place.key.to_bytes(), rev, lease: place.lease };
        place.keep();
        Ok(Response::new(CampaignResponse { header, leader: Some(leader) }))
    }

    async fn proclaim(&self, request: Request<ProclaimRequest>) -> Result<Response<ProclaimResponse>, Status> {
        let ProclaimRequest { leader, value } = request.into_inner();
        let leader = leader.ok_or_else(missing_leader)?;
        let key = Key::new(leader.key).map_err(bad_key)?;
        let written = self.as_leader(&key, leader.rev, put(&key, value, leader.lease)).await?;
        let header = written.ok_or_else(not_leader)?;
        Ok(Response::new(ProclaimResponse { header: Some(header) }))
    }

    async fn leader(&self, request: Request<LeaderRequest>) -> Result<Response<LeaderResponse>, Status> {
        let (revision, leader) = self.head_of(&prefix(&request.into_inner().name)).await?;
        let leader = leader.ok_or_else(|| Status::unknown("election: no leader"))?;
        Ok(Response::new(self.leader_response(revision, &leader)))
    }

    async fn observe(&self, request: Request<LeaderRequest>) -> Result<Response<Self::ObserveStream>, Status> {
        let prefix = prefix(&request.into_inner().name);
        let (responses, mut received) = mpsc::channel(QUEUE);
        let backend = self.clone();
        tokio::spawn(async move {
            let status = tokio::select! {
                () = responses.closed() => return,
                Err(status) = backend.observe_leaders(&prefix, &responses) => status,
                status = backend.stopped() => status,
            };
            let _is_open = responses.send(Err(status)).await;
        });
        Ok(Response::new(Box::pin(stream::poll_fn(move |context| received.poll_recv(context)))))
    }

    async fn resign(&self, request: Request<ResignRequest>) -> Result<Response<ResignResponse>, Status> {
        let leader = request.into_inner().leader.ok_or_else(missing_leader)?;
        let key = Key::new(leader.key).map_err(bad_key)?;
        // A leader that has lost its place has nothing to resign from: that is no error.
        let header = self.as_leader(&key, leader.rev, delete(&key)).await?.or_else(|| self.header_now());
        Ok(Response::new(ResignResponse { header }))
    }
}

impl Backend {
    /// Carries out a request if the key is still the one that was created at a revision. Returns `None` otherwise.
    async fn as_leader(
        &self,
        key: &Key,
        created: i64,
        request: TransactionRequest,
    ) -> Result<Option<ResponseHeader>, Status> {
        let (revision, outcome) = self.transact(if_created(key, created, request)).await?;
        Ok(if outcome.succeeded { self.header(revision) } else { None })
    }

    /// Returns the head of a queue, and the revision of the answer.
    async fn head_of(&self, prefix: &bytes::Bytes) -> Result<(Revision, Option<KeyEntry>), Status> {
        let range = Range {
            limit: 1,
            sort: Some(Sort { by: SortBy::Created, descending: false }),
            ..Range::all(KeyRange::prefix(prefix.clone()))
        };
        self.first(range).await
    }

    fn leader_response(&self, revision: Revision, leader: &KeyEntry) -> LeaderResponse {
        LeaderResponse { header: self.header(revision), kv: Some(key_value(&leader.key, &leader.entry)) }
    }

    /// Sends each leader and each of its values. Returns only with an error.
    async fn observe_leaders(
        &self,
        prefix: &bytes::Bytes,
        responses: &mpsc::Sender<Result<LeaderResponse, Status>>,
    ) -> Result<(), Status> {
        let closed = |_| Status::cancelled("etcdserver: request canceled");
        let mut shown = None;
        loop {
            let (revision, leader) = self.head_of(prefix).await?;
            if let Some(leader) = &leader {
                let version = (leader.key.clone(), leader.entry.modified);
                if shown.as_ref() != Some(&version) {
                    responses.send(Ok(self.leader_response(revision, leader))).await.map_err(closed)?;
                    shown = Some(version);
                }
            }
            // A change of the leader's key, or the first key of the queue.
            let range = leader.map_or_else(|| KeyRange::prefix(prefix.clone()), |leader| KeyRange::Key(leader.key));
            let mut follower = self.follow(range, Some(revision.next()))?;
            loop {
                match follower.next().await.map_err(|error| failed(&error))? {
                    WatchMessage::Changes { changes, .. } if !changes.is_empty() => break,
                    WatchMessage::Compacted(_) => break,
                    _ => {}
                }
            }
        }
    }
}

fn not_leader() -> Status {
    Status::unknown("election: not leader")
}

fn missing_leader() -> Status {
    Status::unknown("\"leader\" field must be provided")
}
