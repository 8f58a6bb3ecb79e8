//! The address of this host's agent, from its configuration.
//!
//! A command without an address asks the agent that the configuration describes: over its Unix socket, which requires no
//! token, else at its first TCP address, over TLS if the agent has a certificate. If the configuration has errors, the addresses
//! that can be read of it are tried, else the default ones.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    errno::Errno,
    unistd::{AccessFlags, access},
};

use super::{address::Address, host_defaults::environment, input_files, output::print_error, table::printable};
use crate::{
    config::{Config, DEFAULT_PATH, HTTP_PORT, Http, SOCKET_NAME},
    model::service::Endpoint,
};

/// Folder of the socket of the packaged unit (`RuntimeDirectory=muster`), which reads the default configuration.
const UNIT_RUNTIME_DIR: &str = "/run/muster";
/// Time limit of a connection that only tries an address of this host.
const LOCAL_CONNECT: Duration = Duration::from_secs(1);

/// The agent of this host.
#[derive(Debug)]
pub(super) struct LocalAgent {
    /// Address of its API.
    pub(super) address: Address,
    /// Its certificate, which is trusted like an authority.
    pub(super) ca_file: Option<PathBuf>,
    /// Advice for a command that it refuses or that does not reach it.
    pub(super) advice: Option<String>,
}

/// No address to ask.
#[derive(Debug, thiserror::Error)]
pub(super) enum LocalAgentError {
    /// A configuration that the user named cannot be read.
    #[error("cannot read --config {}: {error}", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// The agent has neither a TCP address nor a socket.
    #[error("{}: the agent has no `http.listen` and no `http.socket`", .0.display())]
    NoAddress(PathBuf),
    /// The agent has no TCP address, and its socket does not exist.
    #[error("{}: the agent has no `http.listen`, and its socket {} does not exist", config.display(), socket.display())]
    NoSocket {
        /// The configuration.
        config: PathBuf,
        /// Its socket.
        socket: PathBuf,
    },
    /// The agent has no TCP address, and this user may not connect to its socket.
    #[error(
        "{}: the agent has no `http.listen`, and this user has no access to its socket {}",
        config.display(),
        socket.display()
    )]
    NoAccess {
        /// The configuration.
        config: PathBuf,
        /// Its socket.
        socket: PathBuf,
    },
}

impl LocalAgentError {
    /// Advice for the user.
    pub(super) fn advice(&self) -> &'static str {
        match self {
            Self::Unreadable { error, .. } if error.kind() == io::ErrorKind::PermissionDenied => {
                "Run the command as root, or set the address of the agent with --http-addr or MUSTER_HTTP_ADDR."
            }
            Self::Unreadable { .. } => {
                "Name the configuration of the agent, or set its address with --http-addr or MUSTER_HTTP_ADDR."
            }
            Self::NoAddress(_) => "Set `http.socket` or `http.listen` in the configuration.",
            Self::NoSocket { .. } => "Check that the agent is running (`muster agent` starts one).",
            Self::NoAccess { .. } => "Run the command as root, or as a user with access to the socket.",
        }
    }
}

/// Access of this user to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Granted,
    Denied,
    /// The socket does not exist.
    Absent,
}

/// Finds the agent by its configuration: `--config`, or the default one if it exists. A configuration with errors is used as
/// far as it can be read, since an agent that refused it still runs.
///
/// # Errors
/// The configuration that the user named cannot be read, or it leaves no address.
pub(super) fn find(config: Option<&Path>) -> Result<LocalAgent, LocalAgentError> {
    let path = config.unwrap_or(Path::new(DEFAULT_PATH));
    let texts = match input_files::configuration(path) {
        Ok(texts) => texts,
        Err(error) if config.is_some() => return Err(LocalAgentError::Unreadable { path: path.to_owned(), error }),
        Err(error) => return Ok(unread(path, &error)),
    };
    let mut environment = environment();
    if config.is_none() {
        environment.runtime_dir = Some(UNIT_RUNTIME_DIR.into());
    }
    let files = || texts.iter().map(|text| (text.path.as_path(), text.bytes.as_slice()));
    match Config::parse(files(), &environment) {
        Ok(parsed) => choose(path, &parsed.http, access_to),
        Err(problems) => {
            let known = Config::http_despite_errors(files(), &environment);
            let problem = problems.first().map(ToString::to_string).unwrap_or_default();
            let found = first_reachable(candidates(path, known.as_ref(), access_to), is_listening);
            // Not only at a failure: the agent may be another one than the configuration means.
            print_error!("muster: warning: {}: asking the agent at {}", printable(&problem), found.address);
            Ok(found)
        }
    }
}

/// The agent at an address that needs no advice.
fn agent_at(address: Address) -> LocalAgent {
    LocalAgent { address, ca_file: None, advice: None }
}

/// The agents at the default socket, if this user may connect to it, and at the default address.
fn default_agents(access: impl Fn(&Path) -> Access) -> Vec<LocalAgent> {
    let socket = Path::new(UNIT_RUNTIME_DIR).join(SOCKET_NAME);
    let endpoint = Endpoint { host: Ipv4Addr::LOCALHOST.to_string(), port: HTTP_PORT };
    let socket = (access(&socket) == Access::Granted).then(|| agent_at(Address::Unix(socket)));
    socket.into_iter().chain([agent_at(Address::Http(endpoint))]).collect()
}

/// The agent of a default configuration that is missing or unreadable.
fn unread(path: &Path, error: &io::Error) -> LocalAgent {
    let advice = (error.kind() != io::ErrorKind::NotFound).then(|| {
        let path = path.display();
        format!("{path}, which has the agent's address, cannot be read: {error}. Run the command as root, or set --http-addr.")
    });
    LocalAgent { advice, ..first_reachable(default_agents(access_to), is_listening) }
}

/// The addresses that a configuration with errors may mean, in the order of preference: those of `http`, as far as it can be
/// read, else the default ones.
fn candidates(path: &Path, http: Option<&Http>, access: impl Fn(&Path) -> Access) -> Vec<LocalAgent> {
    let chosen = http.and_then(|http| choose(path, http, &access).ok());
    // The socket may be that of an agent that has ended.
    let over_tcp = http.and_then(|http| choose(path, &Http { socket: None, ..http.clone() }, &access).ok());
    let mut all: Vec<LocalAgent> = chosen.into_iter().chain(over_tcp).collect();
    if all.is_empty() {
        all = default_agents(access);
    }
    all.dedup_by(|a, b| a.address.to_string() == b.address.to_string());
    all
}

/// Returns the first agent that accepts connections; without one, the first agent, with advice that names all.
fn first_reachable(mut agents: Vec<LocalAgent>, is_listening: impl Fn(&Address) -> bool) -> LocalAgent {
    let at = agents.iter().position(|agent| is_listening(&agent.address));
    let tried: Vec<String> = agents.iter().map(|agent| agent.address.to_string()).collect();
    let mut agent = agents.swap_remove(at.unwrap_or(0));
    if at.is_none() && tried.len() > 1 {
        let more = format!("No agent answers at {}.", tried.join(" or at "));
        agent.advice = Some(agent.advice.map_or(more.clone(), |advice| format!("{more}\n{advice}")));
    }
    agent
}

/// Reports whether a server accepts connections at an address of this host.
fn is_listening(address: &Address) -> bool {
    match address {
        Address::Unix(path) => UnixStream::connect(path).is_ok(),
        Address::Http(Endpoint { host, port }) | Address::Https(Endpoint { host, port }) => {
            let ip: Option<IpAddr> = host.parse().ok();
            ip.is_some_and(|ip| TcpStream::connect_timeout(&SocketAddr::new(ip, *port), LOCAL_CONNECT).is_ok())
        }
    }
}

/// Returns the access of this user to a socket.
fn access_to(socket: &Path) -> Access {
    match access(socket, AccessFlags::W_OK) {
        Ok(()) => Access::Granted,
        Err(Errno::ENOENT | Errno::ENOTDIR) => Access::Absent,
        Err(_) => Access::Denied,
    }
}

/// Chooses the address of an agent with this configuration.
fn choose(path: &Path, http: &Http, access: impl Fn(&Path) -> Access) -> Result<LocalAgent, LocalAgentError> {
    let socket = http.socket.as_deref().map(|socket| (socket, access(socket)));
    if let Some((socket, Access::Granted)) = socket {
        return Ok(agent_at(Address::Unix(socket.to_owned())));
    }
    let Some(listen) = http.listen.iter().find(|address| address.port() != 0) else {
        let config = path.to_owned();
        return Err(match socket {
            None => LocalAgentError::NoAddress(config),
            Some((socket, Access::Absent)) => LocalAgentError::NoSocket { config, socket: socket.to_owned() },
            Some((socket, _)) => LocalAgentError::NoAccess { config, socket: socket.to_owned() },
        });
    };
    let endpoint = Endpoint { host: reachable(*listen).to_string(), port: listen.port() };
    let (address, ca_file) = match &http.tls {
        Some((certificate, _)) => (Address::Https(endpoint), Some(certificate.clone())),
        None => (Address::Http(endpoint), None),
    };
    let advice = http.tokens_dir.is_some().then(|| match socket {
        Some((socket, Access::Denied)) => {
            format!("Without a token: run the command as root, which may use the socket {}.", socket.display())
        }
        Some((socket, _)) => format!("The agent's socket {}, which needs no token, does not exist.", socket.display()),
        None => format!("The agent requires a token: {} has `http.tokens_dir`.", path.display()),
    });
    Ok(LocalAgent { address, ca_file, advice })
}

/// The address at which this host reaches a listener.
fn reachable(listen: SocketAddr) -> IpAddr {
    match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;

    fn http(listen: &[&str]) -> Http {
        let listen = listen.iter().map(|address| address.parse().unwrap()).collect();
        Http { listen, socket: None, tokens_dir: None, tls: None, consul_version: None }
    }

    #[test]
    fn the_socket_precedes_tls_and_plain_addresses() {
        let socket = Some(PathBuf::from("/run/muster/api.sock"));
        let tls = Some((PathBuf::from("/tls/cert.pem"), PathBuf::from("/tls/key.pem")));
        let cases = [
            (http(&["127.0.0.1:8500"]), true, "http://127.0.0.1:8500"),
            (Http { socket: socket.clone(), ..http(&["127.0.0.1:8500"]) }, true, "unix:///run/muster/api.sock"),
            (Http { socket: socket.clone(), ..http(&["127.0.0.1:8500"]) }, false, "http://127.0.0.1:8500"),
            (Http { socket: socket.clone(), ..http(&[]) }, true, "unix:///run/muster/api.sock"),
            (Http { tls, ..http(&["0.0.0.0:8501"]) }, false, "https://127.0.0.1:8501"),
            (http(&["[::]:8500"]), false, "http://[::1]:8500"),
            (http(&["10.0.0.7:0", "10.0.0.7:8500"]), false, "http://10.0.0.7:8500"),
        ];
        for (http, usable, expected) in cases {
            let access = if usable { Access::Granted } else { Access::Denied };
            let found = choose(Path::new("muster.yaml"), &http, |_| access).unwrap();
            assert_eq!(found.address.to_string(), expected, "{http:?}");
        }
    }

    #[test]
    fn an_agent_without_an_accessible_address_is_an_error_that_says_why() {
        let socket = || Http { socket: Some("/run/muster/api.sock".into()), ..http(&[]) };
        let only = "muster.yaml: the agent has no `http.listen`, and";
        let cases = [
            (
                socket(),
                Access::Denied,
                format!("{only} this user has no access to its socket /run/muster/api.sock"),
                "root",
            ),
            (socket(), Access::Absent, format!("{only} its socket /run/muster/api.sock does not exist"), "running"),
            (
                http(&[]),
                Access::Denied,
                "muster.yaml: the agent has no `http.listen` and no `http.socket`".to_owned(),
                "`http.socket`",
            ),
        ];
        for (http, access, expected, advice) in cases {
            let error = choose(Path::new("muster.yaml"), &http, |_| access).unwrap_err();
            assert_eq!(error.to_string(), expected);
            assert!(error.advice().contains(advice), "{error}: {}", error.advice());
            assert_eq!(error.advice().contains("root"), access == Access::Denied && http.socket.is_some(), "{error}");
        }
    }

    #[test]
    fn a_token_is_required_where_the_socket_is_not_usable() {
        let with_tokens = |socket: Option<&str>| Http {
            socket: socket.map(PathBuf::from),
            tokens_dir: Some("tokens.d".into()),
            ..http(&["127.0.0.1:8500"])
        };
        let cases = [
            (with_tokens(Some("/s")), Access::Denied, "Without a token: run the command as root"),
            (with_tokens(Some("/s")), Access::Absent, "The agent's socket /s, which needs no token, does not exist."),
            (with_tokens(None), Access::Absent, "The agent requires a token"),
        ];
        for (http, access, expected) in cases {
            let found = choose(Path::new("muster.yaml"), &http, |_| access).unwrap();
            assert!(found.advice.as_deref().unwrap().starts_with(expected), "{:?}", found.advice);
        }
    }

    #[test]
    fn a_configuration_with_errors_is_used_as_far_as_it_can_be_read() {
        let environment = Environment { runtime_dir: None, ..environment() };
        // Text of the file, addresses that are tried if all sockets exist, the first one that answers, the address.
        let cases = [
            ("http: {listen: [127.0.0.1:9500]}\nhtp: 1\n", "http://127.0.0.1:9500", "", "http://127.0.0.1:9500"),
            ("http: {socket: /s, listen: []}\nttl: x\n", "unix:///s", "", "unix:///s"),
            (
                "http: {socket: /s, listen: [127.0.0.1:9500], certificate: /c, key: /k}\nttl: x\n",
                "unix:///s https://127.0.0.1:9500",
                "https://127.0.0.1:9500",
                "https://127.0.0.1:9500",
            ),
            // The text is not YAML.
            (
                "a: b: c\nhttp:\n  listen: 127.0.0.1:9500\n# end\ndns: {}\n",
                "http://127.0.0.1:9500",
                "",
                "http://127.0.0.1:9500",
            ),
            ("http:\n  listen: nowhere\n", "http://127.0.0.1:8500", "", "http://127.0.0.1:8500"),
            (
                "http: [\n",
                "unix:///run/muster/api.sock http://127.0.0.1:8500",
                "http://127.0.0.1:8500",
                "http://127.0.0.1:8500",
            ),
            ("htp: 1\n", "unix:///run/muster/api.sock http://127.0.0.1:8500", "", "unix:///run/muster/api.sock"),
        ];
        for (text, tried, answering, expected) in cases {
            let path = Path::new("/etc/muster/muster.yaml");
            assert!(Config::parse([(path, text.as_bytes())], &environment).is_err(), "{text}");
            let http = Config::http_despite_errors([(path, text.as_bytes())], &environment);
            let all = candidates(path, http.as_ref(), |_| Access::Granted);
            let addresses: Vec<String> = all.iter().map(|agent| agent.address.to_string()).collect();
            assert_eq!(addresses.join(" "), tried, "{text}");
            let found = first_reachable(all, |address| address.to_string() == answering);
            assert_eq!(found.address.to_string(), expected, "{text}");
            let names_all = found.advice.is_some_and(|advice| advice.contains(&addresses.join(" or at ")));
            assert_eq!(names_all, answering.is_empty() && addresses.len() > 1, "{text}");
        }
    }

    #[test]
    fn a_missing_default_configuration_means_the_default_addresses() {
        let defaults = |access| {
            let all = default_agents(|_| access).into_iter().map(|agent| agent.address.to_string());
            all.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(defaults(Access::Absent), "http://127.0.0.1:8500");
        assert_eq!(defaults(Access::Granted), "unix:///run/muster/api.sock http://127.0.0.1:8500");
        assert!(!unread(Path::new(DEFAULT_PATH), &io::ErrorKind::NotFound.into()).address.to_string().is_empty());
        let denied = unread(Path::new(DEFAULT_PATH), &io::ErrorKind::PermissionDenied.into());
        assert!(denied.advice.unwrap().contains("Run the command as root, or set --http-addr."));
    }
}
