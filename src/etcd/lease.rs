//! Leases: grants, renewals, the time that is left, and revocations.

use std::pin::Pin;

use futures_util::{Stream, stream};
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{
    backend::Backend,
    convert::{number, unsigned},
    error::{Invalid, failed, refused, unexpected},
    proto::etcdserverpb::{
        LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
        LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus, LeaseTimeToLiveRequest,
        LeaseTimeToLiveResponse, lease_server::Lease,
    },
};
use crate::{
    model::token::KeyAccess,
    store::{
        command::{Command, Refusal},
        key::{Key, KeyRange},
        lease::{LeaseId, LifetimeId, MAX_TTL, MIN_TTL},
        query::{Consistency, Content, Query},
    },
};

impl Backend {
    /// Grants a lease. Returns the response.
    pub(super) async fn grant(&self, id: i64, ttl: i64) -> Result<LeaseGrantResponse, Status> {
        let ttl = unsigned(ttl).max(MIN_TTL);
        if ttl > MAX_TTL {
            return Err(Invalid::TtlTooLarge.into());
        }
        let id = match id {
            0 => fastrand::i64(1..),
            1.. => id,
            ..0 => return Err(Status::invalid_argument("etcdserver: lease ID is negative")),
        };
        let (revision, _) = self.write(Command::GrantLease { id: LeaseId(id), ttl }).await?;
        Ok(LeaseGrantResponse { header: self.header(revision), id, ttl: number(ttl), error: String::new() })
    }

    /// Renews a lease. A lease that is gone has a time to live of 0, as in etcd.
    async fn keep_alive(&self, id: i64) -> Result<LeaseKeepAliveResponse, Status> {
        self.require_lease(LeaseId(id), KeyAccess::Write).await?;
        // Taken first: its revision must not be greater than that of a revocation which follows the renewal.
        let header = self.header_now();
        let left = self.store().renew(LifetimeId::Lease(LeaseId(id))).await.map_err(|error| failed(&error))?;
        let ttl = left.map_or(0, |left| number(left.as_secs()));
        Ok(LeaseKeepAliveResponse { header, id, ttl })
    }
}

#[async_trait]
impl Lease for Backend {
    type LeaseKeepAliveStream = Pin<Box<dyn Stream<Item = Result<LeaseKeepAliveResponse, Status>> + Send>>;

    async fn lease_grant(&self, request: Request<LeaseGrantRequest>) -> Result<Response<LeaseGrantResponse>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.grant(request.id, request.ttl).await?))
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        let id = request.into_inner().id;
        if id == 0 {
            return Err(refused(&Refusal::NoLease(LeaseId(id))));
        }
        self.require_lease(LeaseId(id), KeyAccess::Write).await?;
        let (revision, _) = self.write(Command::RevokeLease(LeaseId(id))).await?;
        Ok(Response::new(LeaseRevokeResponse { header: self.header(revision) }))
    }

    async fn lease_keep_alive(
        &self,
        requests: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let responses = stream::try_unfold((self.clone(), requests.into_inner()), |(backend, mut requests)| async {
            let request = tokio::select! {
                request = requests.message() => request?,
                status = backend.stopped() => return Err(status),
            };
            match request {
                Some(request) => Ok(Some((backend.keep_alive(request.id).await?, (backend, requests)))),
                None => Ok(None),
            }
        });
        Ok(Response::new(Box::pin(responses)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        let LeaseTimeToLiveRequest { id, keys } = request.into_inner();
        let answer = self.read(Query::Lease(LeaseId(id)), Consistency::Linearizable).await?;
        let Content::Lease(lease) = answer.content else { return Err(unexpected()) };
        for key in lease.iter().flat_map(|lease| &lease.keys) {
            self.granted().require(KeyAccess::Read, &KeyRange::Key(key.clone()))?;
        }
        let header = self.header(answer.revision);
        let response = match lease {
            Some(lease) => LeaseTimeToLiveResponse {
                header,
                id,
                ttl: number(lease.remaining),
                granted_ttl: number(lease.ttl),
                keys: lease.keys.iter().filter(|_| keys).map(Key::to_bytes).collect(),
            },
            None => LeaseTimeToLiveResponse { header, id, ttl: -1, granted_ttl: 0, keys: vec![] },
        };
        Ok(Response::new(response))
    }

    async fn lease_leases(&self, _: Request<LeaseLeasesRequest>) -> Result<Response<LeaseLeasesResponse>, Status> {
        let answer = self.read(Query::Leases, Consistency::Linearizable).await?;
        let Content::Leases(leases) = answer.content else { return Err(unexpected()) };
        let leases = leases.into_iter().map(|lease| LeaseStatus { id: lease.0 }).collect();
        Ok(Response::new(LeaseLeasesResponse { header: self.header(answer.revision), leases }))
    }
}
