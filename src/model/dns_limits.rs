//! Configurable limits of the DNS server: response rate and TTLs of cached replies.

use std::num::NonZero;

/// Response rate limiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseRate {
    /// Number of responses per second and client network.
    pub per_second: NonZero<u32>,
    /// Limited clients.
    pub scope: RateScope,
    /// Every `slip`-th excess response is sent truncated, so that legitimate clients of the network retry over TCP; 0: all
    /// excess responses are dropped.
    pub slip: u8,
    /// Prefix length of an IPv4 client network, at most 32.
    pub ipv4_prefix: u8,
    /// Prefix length of an IPv6 client network, at most 128.
    pub ipv6_prefix: u8,
}

/// Clients with a limited response rate; loopback clients are never limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateScope {
    /// Clients that may not use recursion.
    Outside,
    /// All clients.
    All,
}

/// Bounds for the TTLs of cached replies, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheTtls {
    /// Maximum TTL of a positive reply.
    pub ttl: u32,
    /// Maximum TTL of a negative reply (RFC 2308 §5).
    pub negative_ttl: u32,
    /// Time after its TTL for which a stale reply is served if no upstream responds (RFC 8767); 0: never.
    pub stale: u32,
}
