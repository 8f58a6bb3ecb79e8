//! Core values: no I/O, no clock, no logs.
//!
//! | module | content |
//! | --- | --- |
//! | [`name`], [`registered_name`], [`id_label`] | labels and domain names; names of services as registered; labels of ids |
//! | [`service`], [`meta`], [`alpn`], [`bounds`] | service definitions, their metadata and protocols, and the bounds of an instance |
//! | [`health`], [`flap_damping`] | check state machine; flap damping and slow start |
//! | [`check_results`] | results of this node's checks, across restarts of the agent |
//! | [`followed_host`] | host names whose addresses are those of an instance or an external node |
//! | [`announcement`] | what a node publishes: itself, its instances and their state |
//! | [`external_node`] | hosts without an agent |
//! | [`catalog`] | the announcements of all nodes by service, updated by the difference between two views |
//! | [`maintenance`], [`served_ttls`] | drain and maintenance; served TTLs that caches may still hold |
//! | [`member`], [`view_digest`] | membership; detection of divergent views |
//! | [`reason`] | texts that explain why an instance is answered or not |
//! | [`event`], [`journal`], [`user_event`] | events, the recent ones, and user events as in Consul |
//! | [`zone`], [`alias_domain`] | records of static zones; aliases of the discovery zone and their schemes |
//! | [`recursion_access`], [`dns_limits`], [`upstream_address`] | clients that may use recursion, response rate and cache TTLs, upstreams |
//! | [`host_addresses`] | addresses of this host, and which of them other hosts can use |
//! | [`link_local`] | link-local addresses and metadata services |
//! | [`keyring`], [`token`] | gossip keys; tokens of the HTTP API |
//! | [`consul_version`] | version of Consul that programs require |
//! | [`date`] | formatting of times |

pub mod alias_domain;
pub mod alpn;
pub mod announcement;
pub mod bounds;
pub mod catalog;
pub mod check_results;
pub mod consul_version;
pub mod date;
pub mod dns_limits;
pub mod event;
pub mod external_node;
pub mod flap_damping;
mod folded_text;
pub mod followed_host;
pub mod health;
pub mod host_addresses;
pub mod id_label;
pub mod journal;
pub mod keyring;
pub mod link_local;
pub mod list;
pub mod maintenance;
pub mod member;
pub mod meta;
pub mod name;
pub mod nearest;
pub mod reason;
pub mod recursion_access;
pub mod registered_name;
pub mod report_texts;
pub mod served_ttls;
pub mod service;
pub mod shared_lists;
pub mod stated_policy;
pub mod tagged_addresses;
pub mod token;
pub mod upstream_address;
pub mod user_event;
pub mod view_digest;
pub mod zone;
pub mod zone_serial;
