//! Defaults of the configuration that depend on the host: its name, its addresses, and the folder for sockets.

use std::{env, path::PathBuf};

use crate::{config::Environment, host_addresses};

/// The host's name and addresses, for an agent that does not run yet.
pub fn environment() -> Environment {
    // uname rather than /proc/sys, which the systemd unit hides (ProcSubset=pid).
    let host_name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    Environment { host_name, addresses: host_addresses::read(), in_use: None, runtime_dir: runtime_dir() }
}

/// The first folder of `RuntimeDirectory=` in the systemd unit (systemd.exec(5)).
fn runtime_dir() -> Option<PathBuf> {
    env::split_paths(&env::var_os("RUNTIME_DIRECTORY")?).next()
}
