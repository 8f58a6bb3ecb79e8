//! `muster setup`: points the host's resolver at muster.
//!
//! Two methods, `resolved` and `resolv_conf`, each replace one file (`backup`). Obstacles are detected before anything is
//! written. Afterwards lookups verify the result (`verify`); if they fail, the former state is restored (`task`).

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use self::{
    backup::ManagedFile,
    error::SetupError,
    resolved::File,
    run::{Task, undo},
};
use nix::net::if_::if_nametoindex;

use super::{Exit, output::print_error};
use crate::{
    config::{DEFAULT_PATH, DNS_PORT},
    model::upstream_address::UpstreamAddress,
};

mod backup;
mod error;
mod facts;
mod resolv_conf;
mod resolved;
mod run;
mod verify;

/// The stub resolver of systemd-resolved (systemd-resolved.service(8)).
const STUB: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)), DNS_PORT);
/// A file that exists while systemd-resolved runs.
const RUNNING: &str = "run/systemd/resolve/stub-resolv.conf";
/// Reloads the configuration of systemd-resolved. Versions that cannot reload are restarted, which takes a moment.
const RELOAD: [&str; 3] = ["systemctl", "reload-or-restart", "systemd-resolved"];

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    method: Method,
}

#[derive(Debug, clap::Subcommand)]
enum Method {
    /// Configure systemd-resolved to send muster's names to muster
    Resolved(Options),
    /// Make muster the only name server in /etc/resolv.conf
    ResolvConf(Options),
}

#[derive(Debug, clap::Args)]
struct Options {
    /// Configuration of the agent: a file, or a folder of *.yaml files merged in name order
    #[arg(long, value_name = "PATH", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// Print the changes without making them
    #[arg(long)]
    dry_run: bool,
    /// Restore the former state
    #[arg(long)]
    undo: bool,
    /// Ignore obstacles, and keep the changes even if names do not resolve afterwards
    #[arg(long, conflicts_with = "undo")]
    force: bool,
    /// Write below this folder, without running commands or sending queries
    #[arg(long, value_name = "FOLDER", hide = true)]
    root: Option<PathBuf>,
}

impl Options {
    fn root(&self) -> &Path {
        self.root.as_deref().unwrap_or(Path::new("/"))
    }

    /// Reports whether the command changes this host rather than the files below `--root`.
    fn is_live(&self) -> bool {
        self.root.is_none()
    }
}

pub(super) fn run(args: &Args) -> Exit {
    let outcome = match &args.method {
        Method::Resolved(options) => set_up_resolved(options),
        Method::ResolvConf(options) => set_up_resolv_conf(options),
    };
    match outcome {
        Ok(()) => Exit::Done,
        Err(error) => {
            print_error!("muster: {error}");
            if error.is_inability() { Exit::CouldNotRun } else { Exit::Problems }
        }
    }
}

fn set_up_resolved(options: &Options) -> Result<(), SetupError> {
    let file = ManagedFile::new(options.root(), resolved::PATH, "resolved");
    if options.undo {
        return undo(options, &file, Some(RELOAD));
    }
    let config = facts::configuration(&options.config)?;
    let agent = facts::agent_address(&config.dns.listen).ok_or(SetupError::NoServer)?;
    let domains = facts::domains(&config, agent);
    let local = domains.iter().filter(|domain| facts::is_never_forwarded(&config, domain));
    let mut task = Task {
        body: resolved::text(agent, &domains),
        notes: local.map(|zone| reverse_note(zone)).collect(),
        options,
        config,
        file,
        reload: Some(RELOAD),
        agent,
        before: vec![STUB],
        after: STUB,
        hint: "`resolvectl status` shows the servers and domains, `journalctl -u systemd-resolved` shows errors.\n\
               Ports need systemd 246 or later, and DNSOverTLS must be `no` or `opportunistic`. Programs reach\n\
               systemd-resolved if /etc/resolv.conf names 127.0.0.53 or `hosts:` in /etc/nsswitch.conf has `resolve`.",
    };
    if !options.root().join(RUNNING).exists() {
        task.obstacle(SetupError::NoResolved)?;
    }
    let files = facts::resolved_files(options.root(), task.file.path())?;
    let others: Vec<(&File, UpstreamAddress)> =
        resolved::global_servers(&files).into_iter().filter(|(_, server)| server.address != agent).collect();
    if let Some((file, _)) = others.iter().find(|(file, _)| file.is_after(task.file.path())) {
        task.obstacle(SetupError::LaterServers(file.path.clone()))?;
    } else if !others.is_empty() {
        task.require_upstreams(others.iter().map(|(_, server)| server.clone()).collect())?;
    }
    if !facts::resolves(&task.config, agent) {
        task.notes.push("muster resolves only its own names (resolver.allow): reverse zones are omitted".into());
    }
    task.run()
}

fn set_up_resolv_conf(options: &Options) -> Result<(), SetupError> {
    let file = ManagedFile::new(options.root(), resolv_conf::PATH, "resolv-conf");
    if options.undo {
        return undo(options, &file, None);
    }
    let config = facts::configuration(&options.config)?;
    let on_port_53: Vec<SocketAddr> = config.dns.listen.iter().copied().filter(|own| own.port() == DNS_PORT).collect();
    let agent = facts::agent_address(&on_port_53).ok_or_else(|| SetupError::NoPort53(config.dns.listen.clone()))?;
    let (path, former) = file.former()?;
    let link = path.read_link().ok();
    let servers = resolv_conf::servers(&former, &[agent]);
    let mut task = Task {
        body: resolv_conf::text(agent.ip(), &former),
        options,
        config,
        reload: None,
        notes: resolv_conf::other_writer(&former, link.as_deref()).map(str::to_owned).into_iter().collect(),
        agent,
        before: servers.iter().filter_map(reachable).collect(),
        after: agent,
        hint: "`hosts:` in /etc/nsswitch.conf must have `dns`, and before it no module that claims these names. See \
               docs/clients.md.",
        file,
    };
    if resolv_conf::is_resolved(&former, link.as_deref()) {
        task.obstacle(SetupError::UsesResolved)?;
    }
    task.require_upstreams(servers)?;
    task.run()
}

/// Returns the address to connect to; `None` without its interface.
fn reachable(server: &UpstreamAddress) -> Option<SocketAddr> {
    server.socket_address(|name| if_nametoindex(name).ok())
}

fn reverse_note(zone: &str) -> String {
    format!("names in {zone} that muster does not know are NXDOMAIN; add a server that knows them to resolver.routes")
}
