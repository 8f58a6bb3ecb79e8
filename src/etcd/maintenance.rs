//! Maintenance: status, hashes and snapshots. The rest has nothing to do in muster.

use std::{hash::Hasher, pin::Pin};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, stream};
use prost::Message;
use ring::digest;
use siphasher::sip::SipHasher13;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, async_trait};

use super::{
    backend::Backend,
    convert::{key_value, number, revision},
    error::{failed, unexpected},
    proto::etcdserverpb::{
        AlarmRequest, AlarmResponse, DefragmentRequest, DefragmentResponse, HashKvRequest, HashKvResponse, HashRequest,
        HashResponse, SnapshotRequest, SnapshotResponse, StatusRequest, StatusResponse, alarm_request::AlarmAction,
        maintenance_server::Maintenance,
    },
    scan::Scan,
    version,
};
use crate::{
    model::token::KeyAccess,
    store::{
        key::Revision,
        query::{Consistency, Content, Query},
    },
};

/// Octets of a message of a snapshot.
const CHUNK: usize = 32 * 1024;
/// Messages of a snapshot that wait for a slow client.
const QUEUE: usize = 4;
/// The length of a snapshot is a multiple of this, without its checksum: etcdctl tells by it that the checksum is there.
const BLOCK: usize = 512;

type Chunks = mpsc::Sender<Result<SnapshotResponse, Status>>;

#[async_trait]
impl Maintenance for Backend {
    type SnapshotStream = Pin<Box<dyn Stream<Item = Result<SnapshotResponse, Status>> + Send>>;

    /// The list of alarms is empty: a store without space refuses writes until it has space, and needs no command to go on.
    async fn alarm(&self, request: Request<AlarmRequest>) -> Result<Response<AlarmResponse>, Status> {
        if request.into_inner().action() != AlarmAction::Get {
            self.require_all(KeyAccess::Write)?;
        }
        Ok(Response::new(AlarmResponse { header: self.header_now(), alarms: vec![] }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let status = self.store().status().await.map_err(|error| failed(&error))?;
        let leader = status.members.iter().find(|member| Some(&member.node) == status.leader.as_ref());
        let own = status.members.iter().find(|member| member.id == status.member_id);
        let errors = if status.leader.is_none() { vec!["etcdserver: no leader".to_owned()] } else { vec![] };
        Ok(Response::new(StatusResponse {
            header: self.header(status.revision),
            version: version::SERVER.to_owned(),
            db_size: number(status.octets),
            leader: leader.map_or(0, |leader| leader.id),
            raft_index: status.last_log,
            raft_term: status.term,
            raft_applied_index: status.applied,
            errors,
            db_size_in_use: number(status.octets),
            is_learner: own.is_some_and(|own| !own.is_voter),
            storage_version: version::CLUSTER.to_owned(),
            db_size_quota: number(status.max_octets),
        }))
    }

    /// Succeeds: the store has no gaps to close.
    async fn defragment(&self, _: Request<DefragmentRequest>) -> Result<Response<DefragmentResponse>, Status> {
        self.require_all(KeyAccess::Write)?;
        Ok(Response::new(DefragmentResponse { header: self.header_now() }))
    }

    async fn hash(&self, _: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        let (hash, at) = self.hash_keys(None).await?;
        Ok(Response::new(HashResponse { header: self.header(at), hash }))
    }

    async fn hash_kv(&self, request: Request<HashKvRequest>) -> Result<Response<HashKvResponse>, Status> {
        let (hash, at) = self.hash_keys(revision(request.into_inner().revision)).await?;
        let answer = self.read(Query::Totals, Consistency::Stale).await?;
        let Content::Totals(totals) = answer.content else { return Err(unexpected()) };
        Ok(Response::new(HashKvResponse {
            header: self.header(answer.revision),
            hash,
            compact_revision: number(totals.compacted.0),
            hash_revision: number(at.0),
        }))
    }

    async fn snapshot(&self, _: Request<SnapshotRequest>) -> Result<Response<Self::SnapshotStream>, Status> {
        self.require_all(KeyAccess::Read)?;
        let (chunks, mut received) = mpsc::channel(QUEUE);
        let snapshot = Snapshot { chunks: chunks.clone(), digest: digest::Context::new(&digest::SHA256), octets: 0 };
        let backend = self.clone();
        tokio::spawn(async move {
            if let Err(status) = snapshot.write(backend).await {
                let _is_open = chunks.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(stream::poll_fn(move |context| received.poll_recv(context)))))
    }
}

impl Backend {
    /// Returns a hash of all keys at a revision, equal on all nodes, and the revision.
    async fn hash_keys(&self, at: Option<Revision>) -> Result<(u32, Revision), Status> {
        let mut scan = Scan::new(self.clone(), at);
        let mut hasher = SipHasher13::new();
        while let Some(page) = scan.page().await? {
            for found in page {
                hasher.write(&key_value(&found.key, &found.entry).encode_length_delimited_to_vec());
            }
        }
        let folded = hasher.finish() >> 32;
        Ok((u32::try_from(folded).unwrap_or(u32::MAX), scan.revision().unwrap_or_default()))
    }
}

/// A snapshot on its way to a client: all keys as messages `mvccpb.KeyValue`, each with its length before it; zeros (empty
/// messages) up to a whole block; the SHA-256 of all that.
struct Snapshot {
    chunks: Chunks,
    digest: digest::Context,
    octets: usize,
}

impl Snapshot {
    async fn write(mut self, backend: Backend) -> Result<(), Status> {
        let mut scan = Scan::new(backend, None);
        let mut buffer = BytesMut::new();
        while let Some(page) = scan.page().await? {
            for found in page {
                let encoded = key_value(&found.key, &found.entry).encode_length_delimited_to_vec();
                buffer.extend_from_slice(&encoded);
                while buffer.len() >= CHUNK {
                    self.send(buffer.split_to(CHUNK).freeze()).await?;
                }
            }
        }
        let padded = (self.octets + buffer.len()).next_multiple_of(BLOCK) - self.octets;
        buffer.resize(padded, 0);
        self.send(buffer.freeze()).await?;
        let checksum = self.digest.clone().finish();
        self.send(Bytes::copy_from_slice(checksum.as_ref())).await
    }

    async fn send(&mut self, blob: Bytes) -> Result<(), Status> {
        self.digest.update(&blob);
        self.octets += blob.len();
        let closed = |_| Status::cancelled("etcdserver: request canceled");
        self.chunks.send(Ok(SnapshotResponse { blob, ..SnapshotResponse::default() })).await.map_err(closed)
    }
}
