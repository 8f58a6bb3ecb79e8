//! Locks: the head of a queue holds the lock. The revision at which its key was created is the fencing number.

use bytes::Bytes;
use tonic::{Request, Response, Status, async_trait};

use super::{
    backend::Backend,
    error::bad_key,
    proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse, lock_server::Lock},
    queue::{Place, delete},
};
use crate::store::key::Key;

#[async_trait]
impl Lock for Backend {
    async fn lock(&self, request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        let LockRequest { name, lease } = request.into_inner();
        let (mut place, _, _) = Place::enter(self, &name, lease, Bytes::new()).await?;
        let header = place.head().await?;
        let key = place.key.to_bytes();
        place.keep();
        Ok(Response::new(LockResponse { header, key }))
    }

    async fn unlock(&self, request: Request<UnlockRequest>) -> Result<Response<UnlockResponse>, Status> {
        let key = Key::new(request.into_inner().key).map_err(bad_key)?;
        let (revision, _) = self.request(delete(&key)).await?;
        Ok(Response::new(UnlockResponse { header: self.header(revision) }))
    }
}
