//! Zones that this node copies from the primary servers of others (RFC 1034 §4.3.5, RFC 1995, RFC 5936).
//!
//! ```text
//! SOA, NOTIFY ─► schedule ─► ask a primary ─► stream ─► content ─► publish
//!                                                          └─► data directory
//! ```
//!
//! All modules are core. [`refresh`](super::refresh) does the I/O.

pub mod content;
pub mod schedule;
pub mod stream;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::model::{name::Name, upstream_address::UpstreamAddress, zone::ZoneFile};

/// A zone that is copied from primaries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecondaryZone {
    /// Name of the zone.
    pub origin: Name,
    /// Addresses of the primaries, at least one, over TCP or TLS; asked in this order.
    pub primaries: Vec<UpstreamAddress>,
    /// Name of the TSIG key that signs requests and their replies.
    pub key: Option<Name>,
}

/// A secondary zone as it is now.
#[derive(Clone, Debug)]
pub struct ZoneCopy {
    /// Records; none unless the copy is answered.
    pub file: Arc<ZoneFile>,
    /// Primary that sent the copy, or confirmed it; `None` since the start.
    pub primary: Option<UpstreamAddress>,
    /// Unix time of the last confirmation; `None` without one.
    pub confirmed: Option<Duration>,
    /// Unix time at which the copy expires unless it is confirmed; `None` without a copy.
    pub expires: Option<Duration>,
    /// Reason of the last failure of each primary, if none has helped since.
    pub problem: Option<Arc<str>>,
}

/// All secondary zones.
pub type Copies = Arc<BTreeMap<Name, ZoneCopy>>;
