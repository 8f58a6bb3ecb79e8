//! Keys and values: ranges, puts, deletions, transactions and compaction.

use tonic::{Request, Response, Status, async_trait};

use super::{
    backend::{Backend, check_size},
    convert::{
        self, delete_response, put_response, range_response,
        transaction::{transaction, transaction_response},
    },
    error::unexpected,
    proto::etcdserverpb::{
        CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
        RangeRequest, RangeResponse, TxnRequest, TxnResponse, kv_server::Kv,
    },
};
use crate::{
    model::token::KeyAccess,
    store::{
        command::{Command, TransactionRequest, TransactionResponse},
        key::Revision,
        query::Consistency,
    },
};

#[async_trait]
impl Kv for Backend {
    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        let request = request.into_inner();
        let consistency = if request.serializable { Consistency::Stale } else { Consistency::Linearizable };
        let (revision, answer) = self.range(convert::range(request)?, consistency).await?;
        Ok(Response::new(range_response(self.header(revision), &answer)))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let request = request.into_inner();
        check_size(&request)?;
        let (revision, outcome) = self.request(TransactionRequest::Put(convert::put(request)?)).await?;
        match &outcome.responses[..] {
            [TransactionResponse::Put(previous)] => {
                Ok(Response::new(put_response(self.header(revision), previous.as_ref())))
            }
            _ => Err(unexpected()),
        }
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let request = request.into_inner();
        check_size(&request)?;
        let (revision, outcome) = self.request(convert::delete(request)?).await?;
        match &outcome.responses[..] {
            [TransactionResponse::Delete { deleted, previous }] => {
                Ok(Response::new(delete_response(self.header(revision), *deleted, previous)))
            }
            _ => Err(unexpected()),
        }
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let request = request.into_inner();
        check_size(&request)?;
        let (revision, outcome) = self.transact(transaction(request)?).await?;
        Ok(Response::new(transaction_response(self.header(revision), &outcome)))
    }

    async fn compact(&self, request: Request<CompactionRequest>) -> Result<Response<CompactionResponse>, Status> {
        // It ends the history of all keys.
        self.require_all(KeyAccess::Write)?;
        let revision = Revision(convert::unsigned(request.into_inner().revision));
        let (revision, _) = self.write(Command::Compact(revision)).await?;
        Ok(Response::new(CompactionResponse { header: self.header(revision) }))
    }
}
