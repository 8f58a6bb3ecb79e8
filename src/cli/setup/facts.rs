//! Facts about the agent and the host that a setup depends on, from the configuration, the interfaces and the files of
//! systemd-resolved.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

use nix::ifaddrs::getifaddrs;

use super::{
    backup,
    error::SetupError,
    resolved::{self, File, Network},
};
use crate::{
    cli::{
        host_defaults::environment,
        input_files::{self, has_extension},
    },
    config::{Config, DNS_PORT},
    dns::{message::query::LookupName, recursion::special_use::SpecialUse},
    model::name::Name,
};

/// Folders of the configuration of systemd-resolved, by descending precedence (resolved.conf(5)).
const FOLDERS: [&str; 4] = ["etc/systemd", "run/systemd", "usr/local/lib/systemd", "usr/lib/systemd"];

/// Reads and parses the agent's configuration.
///
/// # Errors
/// The configuration is unreadable or has errors.
pub(super) fn configuration(path: &Path) -> Result<Config, SetupError> {
    let texts =
        input_files::configuration(path).map_err(|error| SetupError::NoConfig { path: path.to_owned(), error })?;
    let texts = texts.iter().map(|text| (text.path.as_path(), text.bytes.as_slice()));
    Config::parse(texts, &environment()).map_err(SetupError::Config)
}

/// Selects the address at which clients of this host reach the agent; prefers port 53, then loopback.
pub(super) fn agent_address(listen: &[SocketAddr]) -> Option<SocketAddr> {
    let reachable = |own: &SocketAddr| match own.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), own.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), own.port()),
        _ => *own,
    };
    let known = listen.iter().filter(|own| own.port() > 0).map(reachable);
    known.min_by_key(|server| (server.port() != DNS_PORT, !server.ip().is_loopback()))
}

/// Reports whether the agent resolves other names for clients of this host.
pub(super) fn resolves(config: &Config, agent: SocketAddr) -> bool {
    // The source address of a query to an address of this host is that address.
    config.resolver.allow.iter().any(|allow| allow.matches(agent.ip()))
}

/// The domains that the host's resolver should send to the agent.
pub(super) fn domains(config: &Config, agent: SocketAddr) -> Vec<String> {
    let files = input_files::folder(&config.zones_dir).unwrap_or_default();
    let zones: Vec<Name> = files
        .iter()
        .filter(|file| has_extension(file, "zone"))
        .filter_map(|file| Name::parse(&file.file_stem()?.to_string_lossy()).ok())
        .collect();
    let networks: Vec<Network> = config.advertise.addresses().iter().filter_map(|address| network(*address)).collect();
    resolved::domains(config, &zones, &networks, resolves(config, agent))
}

/// Reports whether muster never forwards the names of a zone (RFC 6303), although it receives all queries for them.
pub(super) fn is_never_forwarded(config: &Config, zone: &str) -> bool {
    let Ok(zone) = Name::parse(zone) else { return false };
    let contains_zone = |other: &Name| zone.within(other).is_some();
    let is_routed = config.resolver.routes.iter().any(|(suffix, _)| contains_zone(suffix));
    let is_own = contains_zone(&config.domain) || config.alias_domains.iter().any(|alias| contains_zone(&alias.domain));
    !is_routed && !is_own && LookupName::from_wire(zone.wire()).is_some_and(|name| SpecialUse::find(&name).is_some())
}

/// The network of an address: the interface's prefix if the address belongs to this host, else the longest.
fn network(address: IpAddr) -> Option<Network> {
    let prefixes = getifaddrs().into_iter().flatten().filter_map(|interface| {
        let (own, mask) = (interface.address?, interface.netmask?);
        match address {
            IpAddr::V4(ip) if own.as_sockaddr_in()?.ip() == ip => {
                Some(mask.as_sockaddr_in()?.ip().to_bits().leading_ones() as u8)
            }
            IpAddr::V6(ip) if own.as_sockaddr_in6()?.ip() == ip => {
                Some(mask.as_sockaddr_in6()?.ip().to_bits().leading_ones() as u8)
            }
            _ => None,
        }
    });
    // resolved answers the names of loopback addresses itself.
    let prefix = prefixes.min().unwrap_or(u8::MAX);
    (!address.is_loopback()).then_some(Network { address, prefix })
}

/// The configuration files of systemd-resolved in reading order, except `managed`.
///
/// # Errors
/// A file cannot be read.
pub(super) fn resolved_files(root: &Path, managed: &Path) -> Result<Vec<File>, SetupError> {
    let main = FOLDERS.iter().map(|folder| root.join(folder).join("resolved.conf")).find(|path| path.exists());
    let mut drop_ins = BTreeMap::new();
    for folder in FOLDERS.iter().rev() {
        for path in input_files::folder(&root.join(folder).join("resolved.conf.d")).unwrap_or_default() {
            if has_extension(&path, "conf") && path != managed {
                drop_ins.insert(path.file_name().map(ToOwned::to_owned), path);
            }
        }
    }
    let mut files = Vec::new();
    for path in main.into_iter().chain(drop_ins.into_values()) {
        let text = backup::read(&path)?.unwrap_or_default();
        files.push(File { path, text });
    }
    Ok(files)
}
