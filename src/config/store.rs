//! Configuration of the replicated store.

use std::{net::SocketAddr, path::PathBuf};

use crate::model::name::Label;

/// Default of `store.max_size` in octets. Each voter holds all data in memory: that is 2 million keys with values of 256 octets,
/// on a host that serves applications as well.
pub(super) const DEFAULT_MAX_SIZE: u64 = 1 << 30;
/// Smallest `store.max_size` in octets: ten of the largest requests fit.
pub(super) const MIN_MAX_SIZE: u64 = 16 << 20;
/// Largest `store.max_size` in octets: a new voter receives all data at once, and 16 GiB take minutes.
pub(super) const MAX_MAX_SIZE: u64 = 16 << 30;
/// Numbers of voters. A majority of them has to be alive: an even number is not safer than the next lower one, and more than five
/// make writes slower.
pub(super) const VOTER_COUNTS: [usize; 3] = [1, 3, 5];
/// Port of etcd for clients.
pub(super) const ETCD_PORT: u16 = 2379;

/// `store:`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// Names of the nodes that hold the store when it is created: 1, 3 or 5, all different. This node need not be one of them.
    pub voters: Vec<Label>,
    /// Octets of keys, values, sessions and leases at which the store refuses writes. The history has what is left, at most a quarter.
    pub max_octets: u64,
    /// API of etcd; `None`: disabled.
    pub etcd: Option<Etcd>,
}

/// `store.etcd:`
///
/// An address other than loopback requires [`Http::tokens_dir`](super::Http::tokens_dir) and TLS, or `insecure: true`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etcd {
    /// Listen addresses for gRPC and JSON, at least one; port 0 takes any free port.
    pub listen: Vec<SocketAddr>,
    /// Certificate chain and private key in PEM; `None`: no TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
}

impl Store {
    /// Returns the configuration of a store on one node, without the API of etcd.
    pub fn with_one_voter(node: Label) -> Self {
        Self { voters: vec![node], max_octets: DEFAULT_MAX_SIZE, etcd: None }
    }
}
