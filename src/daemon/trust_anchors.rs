//! Trust anchors of validation: the file in `resolver.trust_anchors`, and the keys of the root that are built in.

use crate::{
    config::Validation,
    diagnostic::Diagnostic,
    dns::{dnssec::trust_anchor, recursion::validation::ValidationScope},
    files::{read::read, trust_anchors},
    model::name::Name,
};

/// Returns the trust anchors and exceptions of a configuration.
///
/// # Errors
/// The file of trust anchors is unusable.
pub(super) fn scope(validation: &Validation) -> Result<ValidationScope, Diagnostic> {
    let own = match &validation.trust_anchors {
        Some(path) => trust_anchors::parse(read(path, trust_anchors::MAX_FILE)).map_err(|error| error.at(path))?,
        None => Vec::new(),
    };
    // Anchors of the root in the file replace those that are built in.
    let has_root = own.iter().any(|anchor| anchor.zone == Name::root());
    let built_in = if has_root { Vec::new() } else { trust_anchor::root() };
    Ok(ValidationScope { anchors: [own, built_in].concat(), insecure: validation.insecure.clone() })
}
