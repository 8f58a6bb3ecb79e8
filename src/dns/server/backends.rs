//! Parts of the agent that all DNS servers pass messages to, besides their engines.

use super::transfers::Transfers;
use crate::dns::{collector::Tap, resolver::Resolver};

/// Parts of the agent that all servers share.
#[derive(Clone, Default)]
pub struct Backends {
    /// Resolver of names outside our zones.
    pub resolver: Option<Resolver>,
    /// Server of transfers and signed messages.
    pub transfers: Option<Transfers>,
    /// Records messages for a collector.
    pub tap: Option<Tap>,
}
