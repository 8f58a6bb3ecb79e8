//! etcd's transactions: checks, conversion into the store's, and the response.

use tonic::Status;

use super::{delete, delete_response, key_range, put, put_response, range, range_response};
use crate::{
    etcd::{
        error::{Invalid, refused},
        proto::etcdserverpb::{
            Compare, RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
            compare::{CompareResult, CompareTarget, TargetUnion},
            request_op::Request,
            response_op::Response,
        },
    },
    store::command::{
        Comparison, Condition, MAX_REQUESTS, Target, Transaction, TransactionOutcome, TransactionRequest,
        TransactionResponse,
    },
};

/// Largest number of requests in a transaction with all transactions within it: the checks compare each written key with
/// each deleted range.
const MAX_NESTED_REQUESTS: usize = 8 * MAX_REQUESTS;

/// Returns the transaction of a request.
pub(in crate::etcd) fn transaction(request: TxnRequest) -> Result<Transaction, Status> {
    let mut budget = MAX_NESTED_REQUESTS;
    let transaction = converted(request, MAX_REQUESTS, &mut budget)?;
    transaction.check_writes().map_err(|refusal| refused(&refusal))?;
    Ok(transaction)
}

/// Converts a transaction. `limit` is the largest length of its lists: what the transactions around it have left. `budget` is
/// the number of requests that are left for all transactions together.
fn converted(request: TxnRequest, limit: usize, budget: &mut usize) -> Result<Transaction, Status> {
    let longest = request.compare.len().max(request.success.len()).max(request.failure.len());
    let used = request.compare.len() + request.success.len() + request.failure.len();
    let (Some(within), Some(left)) = (limit.checked_sub(longest), budget.checked_sub(used)) else {
        return Err(Invalid::TooManyOperations.into());
    };
    *budget = left;
    let conditions = request.compare.into_iter().map(condition).collect::<Result<_, _>>()?;
    let mut requests = |operations: Vec<RequestOp>| {
        operations.into_iter().map(|operation| converted_request(operation, within, budget)).collect::<Result<_, _>>()
    };
    Ok(Transaction { conditions, success: requests(request.success)?, failure: requests(request.failure)? })
}

fn converted_request(operation: RequestOp, limit: usize, budget: &mut usize) -> Result<TransactionRequest, Status> {
    match operation.request {
        Some(Request::RequestRange(request)) => range(request).map(TransactionRequest::Range),
        Some(Request::RequestPut(request)) => put(request).map(TransactionRequest::Put),
        Some(Request::RequestDeleteRange(request)) => delete(request),
        Some(Request::RequestTxn(request)) => {
            converted(request, limit, budget).map(|within| TransactionRequest::Transact(Box::new(within)))
        }
        None => Err(Invalid::EmptyRequest.into()),
    }
}

fn condition(compare: Compare) -> Result<Condition, Status> {
    let unknown = |_| Status::invalid_argument("etcdserver: unknown comparison");
    let comparison = match CompareResult::try_from(compare.result).map_err(unknown)? {
        CompareResult::Equal => Comparison::Equal,
        CompareResult::Greater => Comparison::Greater,
        CompareResult::Less => Comparison::Less,
        CompareResult::NotEqual => Comparison::NotEqual,
    };
    let target = CompareTarget::try_from(compare.target).map_err(unknown)?;
    let target = target_of(target, compare.target_union)?;
    Ok(Condition { range: key_range(compare.key, compare.range_end)?, target, comparison })
}

/// Returns the field to compare. `target` names it; a value of another field counts as absent, as in etcd.
fn target_of(target: CompareTarget, value: Option<TargetUnion>) -> Result<Target, Status> {
    Ok(match (target, value) {
        (CompareTarget::Version, Some(TargetUnion::Version(version))) => Target::Version(version),
        (CompareTarget::Version, _) => Target::Version(0),
        (CompareTarget::Create, Some(TargetUnion::CreateRevision(revision))) => Target::Created(revision),
        (CompareTarget::Create, _) => Target::Created(0),
        (CompareTarget::Mod, Some(TargetUnion::ModRevision(revision))) => Target::Modified(revision),
        (CompareTarget::Mod, _) => Target::Modified(0),
        (CompareTarget::Value, Some(TargetUnion::Value(value))) => Target::Value(value),
        (CompareTarget::Value, _) => Target::Value(bytes::Bytes::new()),
        (CompareTarget::Lease, Some(TargetUnion::Lease(lease))) => Target::Lease(lease),
        (CompareTarget::Lease, _) => Target::Lease(0),
    })
}

/// Returns the response to a transaction. Responses within it have the same header.
pub(in crate::etcd) fn transaction_response(
    header: Option<ResponseHeader>,
    outcome: &TransactionOutcome,
) -> TxnResponse {
    let responses = outcome.responses.iter().map(|response| {
        let response = match response {
            TransactionResponse::Range(answer) => Response::ResponseRange(range_response(header, answer)),
            TransactionResponse::Put(previous) => Response::ResponsePut(put_response(header, previous.as_ref())),
            TransactionResponse::Delete { deleted, previous } => {
                Response::ResponseDeleteRange(delete_response(header, *deleted, previous))
            }
            TransactionResponse::Transact(within) => Response::ResponseTxn(transaction_response(header, within)),
        };
        ResponseOp { response: Some(response) }
    });
    TxnResponse { header, succeeded: outcome.succeeded, responses: responses.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::proto::etcdserverpb::{DeleteRangeRequest, PutRequest};

    fn put_of(key: &'static str) -> RequestOp {
        let request = PutRequest { key: key.into(), ..PutRequest::default() };
        RequestOp { request: Some(Request::RequestPut(request)) }
    }

    fn delete_of(key: &'static str, end: &'static str) -> RequestOp {
        let request = DeleteRangeRequest { key: key.into(), range_end: end.into(), prev_kv: false };
        RequestOp { request: Some(Request::RequestDeleteRange(request)) }
    }

    fn within(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
        let request = TxnRequest { compare: vec![], success, failure };
        RequestOp { request: Some(Request::RequestTxn(request)) }
    }

    fn checked(success: Vec<RequestOp>) -> Result<(), String> {
        let request = TxnRequest { compare: vec![], success, failure: vec![] };
        transaction(request).map(|_| ()).map_err(|status| status.message().to_owned())
    }

    #[test]
    fn transaction_that_writes_a_key_twice_is_refused() {
        let duplicate = || Err("etcdserver: duplicate key given in txn request".to_owned());
        let cases = [
            (vec![put_of("a"), put_of("b")], Ok(())),
            (vec![put_of("a"), put_of("a")], duplicate()),
            (vec![put_of("a"), delete_of("a", "")], duplicate()),
            (vec![delete_of("a", "c"), put_of("b")], duplicate()),
            (vec![delete_of("a", "c"), put_of("c")], Ok(())),
            (vec![delete_of("a", "c"), delete_of("a", "c")], Ok(())),
            (vec![within(vec![put_of("a")], vec![put_of("a")])], Ok(())),
            (vec![within(vec![put_of("a")], vec![]), put_of("a")], duplicate()),
            (vec![within(vec![delete_of("a", "")], vec![]), put_of("a")], duplicate()),
            (vec![within(vec![put_of("a")], vec![]), within(vec![], vec![put_of("a")])], duplicate()),
        ];
        for (index, (requests, expected)) in cases.into_iter().enumerate() {
            assert_eq!(checked(requests), expected, "case {index}");
        }
    }

    #[test]
    fn transaction_is_bounded() {
        let many = |number: usize| vec![delete_of("a", ""); number];
        let too_many = || Err("etcdserver: too many operations in txn request".to_owned());
        assert_eq!(checked(many(MAX_REQUESTS)), Ok(()));
        assert_eq!(checked(many(MAX_REQUESTS + 1)), too_many());
        assert_eq!(checked(vec![within(many(MAX_REQUESTS - 1), vec![])]), Ok(()));
        assert_eq!(checked(vec![within(many(MAX_REQUESTS), vec![])]), too_many());
        assert_eq!(checked((0..64).map(|_| within(many(64), vec![])).collect()), too_many());
    }

    #[test]
    fn empty_request_of_a_transaction_is_refused() {
        assert_eq!(checked(vec![RequestOp { request: None }]), Err("etcdserver: key not found".to_owned()));
        assert_eq!(checked(vec![put_of("")]), Err("etcdserver: key is not provided".to_owned()));
    }
}
