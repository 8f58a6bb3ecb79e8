//! Errors of etcd's API: the codes and texts that its clients match.

use tonic::{Code, Status};

use crate::store::{command::Refusal, key::KeyError, request::StoreError};

/// Errors with which etcd refuses a request before the store sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Invalid {
    /// A request without a key.
    EmptyKey,
    /// A request of a transaction without content.
    EmptyRequest,
    /// A put that keeps the value and has one.
    ValueProvided,
    /// A put that keeps the lease and has one.
    LeaseProvided,
    /// Too many requests or conditions in a transaction.
    TooManyOperations,
    /// An unknown order of entries.
    SortOption,
    /// A request above the limit of its size.
    TooLarge,
    /// A lease with too long a time to live.
    TtlTooLarge,
}

impl From<Invalid> for Status {
    fn from(invalid: Invalid) -> Self {
        let (code, text) = match invalid {
            Invalid::EmptyKey => (Code::InvalidArgument, "etcdserver: key is not provided"),
            Invalid::EmptyRequest => (Code::InvalidArgument, "etcdserver: key not found"),
            Invalid::ValueProvided => (Code::InvalidArgument, "etcdserver: value is provided"),
            Invalid::LeaseProvided => (Code::InvalidArgument, "etcdserver: lease is provided"),
            Invalid::TooManyOperations => (Code::InvalidArgument, "etcdserver: too many operations in txn request"),
            Invalid::SortOption => (Code::InvalidArgument, "etcdserver: invalid sort option"),
            Invalid::TooLarge => (Code::InvalidArgument, "etcdserver: request is too large"),
            Invalid::TtlTooLarge => (Code::OutOfRange, "etcdserver: too large lease TTL"),
        };
        Self::new(code, text)
    }
}

/// Text for a revision whose history is gone; watches state it as well.
pub(super) const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";

/// Returns the error for a request that the store refused.
pub(super) fn refused(refusal: &Refusal) -> Status {
    let (code, text) = match refusal {
        Refusal::NoSpace => (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
        Refusal::Compacted(_) => (Code::OutOfRange, COMPACTED),
        Refusal::Future(_) => (Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision"),
        Refusal::NoLease(_) => (Code::NotFound, "etcdserver: requested lease not found"),
        Refusal::LeaseExists(_) => (Code::FailedPrecondition, "etcdserver: lease already exists"),
        Refusal::NoKey(_) => (Code::InvalidArgument, "etcdserver: key not found"),
        Refusal::DuplicateKey(_) => (Code::InvalidArgument, "etcdserver: duplicate key given in txn request"),
        Refusal::TooLarge => (Code::ResourceExhausted, "etcdserver: request is too large"),
        // No request of etcd's API creates a session.
        Refusal::SessionExists(_) => return Status::unknown(refusal.to_string()),
    };
    Status::new(code, text)
}

/// Returns the error for a request that the store could not carry out.
pub(super) fn failed(error: &StoreError) -> Status {
    match error {
        StoreError::NoLeader => Status::unavailable("etcdserver: no leader"),
        StoreError::Stopping => Status::unavailable("etcdserver: server stopped"),
        StoreError::Unreachable => {
            Status::unavailable("etcdserver: request timed out, possibly due to connection lost")
        }
        StoreError::TooManyAnswers => Status::resource_exhausted("etcdserver: too many requests"),
        StoreError::Refused(refusal) => refused(refusal),
        StoreError::NotConfigured | StoreError::Membership(_) => {
            Status::failed_precondition(format!("etcdserver: {error}"))
        }
    }
}

/// Returns the error for a key that the store cannot have.
pub(super) fn bad_key(error: KeyError) -> Status {
    match error {
        KeyError::Empty => Invalid::EmptyKey.into(),
        KeyError::TooLong(_) => Status::invalid_argument(format!("etcdserver: {error}")),
    }
}

/// Returns the error for an answer of the store to another question: a fault of muster.
pub(super) fn unexpected() -> Status {
    Status::internal("etcdserver: the store answered another question; please report this")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{
        key::{Key, Revision},
        lease::LeaseId,
    };

    #[test]
    fn refusals_have_the_codes_and_texts_of_etcd() {
        let key = || Key::new("k").unwrap();
        let cases = [
            (Refusal::NoSpace, Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
            (Refusal::Compacted(Revision(5)), Code::OutOfRange, COMPACTED),
            (
                Refusal::Future(Revision(5)),
                Code::OutOfRange,
                "etcdserver: mvcc: required revision is a future revision",
            ),
            (Refusal::NoLease(LeaseId(1)), Code::NotFound, "etcdserver: requested lease not found"),
            (Refusal::LeaseExists(LeaseId(1)), Code::FailedPrecondition, "etcdserver: lease already exists"),
            (Refusal::NoKey(key()), Code::InvalidArgument, "etcdserver: key not found"),
            (Refusal::DuplicateKey(key()), Code::InvalidArgument, "etcdserver: duplicate key given in txn request"),
            (Refusal::TooLarge, Code::ResourceExhausted, "etcdserver: request is too large"),
        ];
        for (refusal, code, text) in cases {
            let status = failed(&StoreError::Refused(refusal));
            assert_eq!((status.code(), status.message()), (code, text));
        }
        let cases = [
            (StoreError::NoLeader, Code::Unavailable, "etcdserver: no leader"),
            (StoreError::Stopping, Code::Unavailable, "etcdserver: server stopped"),
            (StoreError::TooManyAnswers, Code::ResourceExhausted, "etcdserver: too many requests"),
        ];
        for (error, code, text) in cases {
            let status = failed(&error);
            assert_eq!((status.code(), status.message()), (code, text));
        }
    }
}
