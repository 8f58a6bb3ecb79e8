//! Requests and decoders of Consul's clients that the tests do not run.
//!
//! Traefik, Fabio, consul-template, registrator and Prometheus read with `github.com/hashicorp/consul/api`. [`go`] has
//! the part of its structs that they use. Go's decoder fails on a wrong type and accepts `null` as a zero value, which
//! leads these programs to a panic or an empty list. Every field must therefore be present and have its type.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

#[path = "api_clients/go.rs"]
mod go;
#[path = "api_clients/programs.rs"]
mod programs;
