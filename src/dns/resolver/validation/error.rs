//! Reasons that a reply cannot be answered, with their Extended DNS Errors (RFC 8914 §4).

use thiserror::Error;

use crate::dns::{message::codes::ede, recursion::validation::Security};

/// Reason that a reply is bogus, or that its status cannot be determined. Its text is sent in the Extended DNS Error.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(super) enum ValidationError {
    /// A signature or a proof does not match.
    #[error("DNSSEC: the signatures or proofs of {0} are wrong")]
    Bogus(String),
    /// All signatures of an RRset have expired, the last one at this time.
    #[error("DNSSEC: the signatures of {set} expired at {at}, or the clock of this server is wrong")]
    Expired {
        /// Name and type of the RRset.
        set: String,
        /// Time in RFC 3339.
        at: String,
    },
    /// All signatures of an RRset begin later, the first one at this time.
    #[error("DNSSEC: the signatures of {set} begin at {at}, or the clock of this server is wrong")]
    NotYetValid {
        /// Name and type of the RRset.
        set: String,
        /// Time in RFC 3339.
        at: String,
    },
    /// A zone has no key that the DS records or trust anchors name.
    #[error("DNSSEC: the zone {0} has no key that its DS records or the trust anchors name")]
    KeyMissing(String),
    /// An RRset of a signed zone has no signatures.
    #[error("DNSSEC: no signatures of {0}")]
    SignaturesMissing(String),
    /// The reply has no proof that a name or type does not exist.
    #[error("DNSSEC: no proof that {0} does not exist")]
    ProofMissing(String),
    /// NSEC3 records with too many iterations (RFC 9276 §3.2).
    #[error("DNSSEC: the proof about {0} has too many NSEC3 iterations")]
    Iterations(String),
    /// The upstreams return no DNSSEC records, even for the zone of a trust anchor.
    #[error(
        "DNSSEC: the upstreams return no signatures of {0}; use upstreams that pass DNSSEC records, or resolver.dnssec: off"
    )]
    Stripped(String),
    /// No upstream responded to a question about the chain of trust.
    #[error("DNSSEC: {question}: {text}")]
    Unreachable {
        /// Name and type in question.
        question: String,
        /// Failure of the upstreams.
        text: String,
    },
    /// An upstream responded with an error to a question about the chain of trust.
    #[error("DNSSEC: {question}: the upstream responds with code {rcode}")]
    Refused {
        /// Name and type in question.
        question: String,
        /// The response code.
        rcode: u16,
    },
    /// The keys were not fetched in time.
    #[error("DNSSEC: the upstreams did not answer the questions for keys in time")]
    Timeout,
    /// Validation would take more messages or signatures than permitted.
    #[error("DNSSEC: validation takes too many messages or signatures")]
    Limit,
    /// The reply cannot be decoded.
    #[error("DNSSEC: the reply cannot be read: {0}")]
    Unreadable(String),
}

impl ValidationError {
    /// Returns the INFO-CODE of the Extended DNS Error.
    pub(super) fn code(&self) -> u16 {
        match self {
            Self::Bogus(_) => ede::DNSSEC_BOGUS,
            Self::Expired { .. } => ede::SIGNATURE_EXPIRED,
            Self::NotYetValid { .. } => ede::SIGNATURE_NOT_YET_VALID,
            Self::KeyMissing(_) => ede::DNSKEY_MISSING,
            Self::SignaturesMissing(_) | Self::Stripped(_) => ede::RRSIGS_MISSING,
            Self::ProofMissing(_) => ede::NSEC_MISSING,
            Self::Iterations(_) => ede::UNSUPPORTED_NSEC3_ITERATIONS,
            Self::Unreachable { .. } | Self::Timeout => ede::NO_REACHABLE_AUTHORITY,
            Self::Refused { .. } => ede::NETWORK_ERROR,
            Self::Limit | Self::Unreadable(_) => ede::DNSSEC_INDETERMINATE,
        }
    }

    /// Returns the security status of a reply with this fault: bogus if a retry would not help.
    pub(super) fn security(&self) -> Security {
        match self {
            Self::Unreachable { .. } | Self::Refused { .. } | Self::Timeout => Security::Indeterminate,
            _ => Security::Bogus,
        }
    }

    /// Reports whether a wrong clock may be the reason.
    pub(super) fn may_be_clock(&self) -> bool {
        matches!(self, Self::Expired { .. } | Self::NotYetValid { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_have_the_codes_of_rfc_8914() {
        let text = || "x.example. A".to_owned();
        let at = || "2026-01-01T00:00:00Z".to_owned();
        let (unreachable, refused) = (
            ValidationError::Unreachable { question: text(), text: text() },
            ValidationError::Refused { question: text(), rcode: 5 },
        );
        for (fault, code, security) in [
            (ValidationError::Bogus(text()), 6, Security::Bogus),
            (ValidationError::Expired { set: text(), at: at() }, 7, Security::Bogus),
            (ValidationError::NotYetValid { set: text(), at: at() }, 8, Security::Bogus),
            (ValidationError::KeyMissing(text()), 9, Security::Bogus),
            (ValidationError::SignaturesMissing(text()), 10, Security::Bogus),
            (ValidationError::Stripped(text()), 10, Security::Bogus),
            (ValidationError::ProofMissing(text()), 12, Security::Bogus),
            (ValidationError::Iterations(text()), 27, Security::Bogus),
            (ValidationError::Limit, 5, Security::Bogus),
            (ValidationError::Unreadable(text()), 5, Security::Bogus),
            (unreachable, 22, Security::Indeterminate),
            (ValidationError::Timeout, 22, Security::Indeterminate),
            (refused, 23, Security::Indeterminate),
        ] {
            assert_eq!((fault.code(), fault.security()), (code, security), "{fault}");
            assert_eq!(fault.may_be_clock(), fault.to_string().contains("clock"), "{fault}");
        }
    }
}
