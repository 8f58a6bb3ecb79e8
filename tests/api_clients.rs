//! Programs that speak Consul's API and are not run here: what their sources send, and what they read of the answers.
//!
//! Traefik, Fabio, consul-template, registrator and Prometheus read with `github.com/hashicorp/consul/api`. [`go`] has its
//! structs as far as they read them; Go's decoder fails on a number where a text is due, and takes `null` for nothing at all,
//! which those programs then follow into a panic or an empty list. So here every field has to be there, and of its type.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

#[path = "api_clients/go.rs"]
mod go;
#[path = "api_clients/programs.rs"]
mod programs;
