//! The address of this host's agent, from its configuration.
//!
//! A command without an address asks the agent that the configuration describes: over its Unix socket, which requires no
//! token, else at its first TCP address, over TLS if the agent has a certificate.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use nix::unistd::{AccessFlags, access};

use super::{address::Address, host_defaults::environment, input_files};
use crate::{
    config::{Config, DEFAULT_PATH, HTTP_PORT, Http},
    model::service::Endpoint,
};

/// Folder of the socket of the packaged unit (`RuntimeDirectory=muster`), which reads the default configuration.
const UNIT_RUNTIME_DIR: &str = "/run/muster";

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
    /// A configuration that the user named has errors; the text is the first one.
    #[error("--config has an error: {0}")]
    Invalid(String),
    /// The agent has no TCP address, and its socket is not accessible.
    #[error(
        "{}: the agent has no `http.listen`{}",
        config.display(),
        socket.as_ref().map_or_else(
            || " and no `http.socket`".to_owned(),
            |socket| format!(", and this user has no access to its socket {}", socket.display())
        )
    )]
    NoAddress {
        /// The configuration.
        config: PathBuf,
        /// Its socket.
        socket: Option<PathBuf>,
    },
}

/// Finds the agent by its configuration: `--config`, or the default one if it exists.
///
/// # Errors
/// The configuration that the user named is unusable, or it leaves no address.
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
    match Config::parse(texts.iter().map(|text| (text.path.as_path(), text.bytes.as_slice())), &environment) {
        Ok(parsed) => choose(path, &parsed.http, is_usable),
        Err(problems) => {
            let problem = problems.first().map(ToString::to_string).unwrap_or_default();
            if config.is_some() {
                return Err(LocalAgentError::Invalid(problem));
            }
            let advice = format!("The configuration does not tell the address: {problem}");
            Ok(LocalAgent { advice: Some(advice), ..default_agent() })
        }
    }
}

/// The agent at the default address.
fn default_agent() -> LocalAgent {
    let endpoint = Endpoint { host: Ipv4Addr::LOCALHOST.to_string(), port: HTTP_PORT };
    LocalAgent { address: Address::Http(endpoint), ca_file: None, advice: None }
}

/// The agent of a default configuration that is missing or unreadable.
fn unread(path: &Path, error: &io::Error) -> LocalAgent {
    let advice = (error.kind() != io::ErrorKind::NotFound).then(|| {
        let path = path.display();
        format!("{path}, which has the agent's address, cannot be read: {error}. Run the command as root, or set --http-addr.")
    });
    LocalAgent { advice, ..default_agent() }
}

/// Reports whether this user may connect to a socket.
fn is_usable(socket: &Path) -> bool {
    access(socket, AccessFlags::W_OK).is_ok()
}

/// Chooses the address of an agent with this configuration.
fn choose(path: &Path, http: &Http, is_usable: impl Fn(&Path) -> bool) -> Result<LocalAgent, LocalAgentError> {
    if let Some(socket) = http.socket.as_deref().filter(|socket| is_usable(socket)) {
        return Ok(LocalAgent { address: Address::Unix(socket.to_owned()), ca_file: None, advice: None });
    }
    let Some(listen) = http.listen.iter().find(|address| address.port() != 0) else {
        return Err(LocalAgentError::NoAddress { config: path.to_owned(), socket: http.socket.clone() });
    };
    let endpoint = Endpoint { host: reachable(*listen).to_string(), port: listen.port() };
    let (address, ca_file) = match &http.tls {
        Some((certificate, _)) => (Address::Https(endpoint), Some(certificate.clone())),
        None => (Address::Http(endpoint), None),
    };
    let advice = http.tokens_dir.is_some().then(|| match &http.socket {
        Some(socket) => {
            format!("Without a token: run the command as root, which may use the socket {}.", socket.display())
        }
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
            let found = choose(Path::new("muster.yaml"), &http, |_| usable).unwrap();
            assert_eq!(found.address.to_string(), expected, "{http:?}");
        }
    }

    #[test]
    fn an_agent_without_an_accessible_address_is_an_error_that_names_its_socket() {
        let only_socket = Http { socket: Some("/run/muster/api.sock".into()), ..http(&[]) };
        let error = choose(Path::new("muster.yaml"), &only_socket, |_| false).unwrap_err().to_string();
        assert_eq!(
            error,
            "muster.yaml: the agent has no `http.listen`, and this user has no access to its socket /run/muster/api.sock"
        );
        let none = choose(Path::new("muster.yaml"), &http(&[]), |_| false).unwrap_err().to_string();
        assert_eq!(none, "muster.yaml: the agent has no `http.listen` and no `http.socket`");
    }

    #[test]
    fn a_missing_default_configuration_means_the_default_address() {
        let missing = unread(Path::new(DEFAULT_PATH), &io::ErrorKind::NotFound.into());
        assert_eq!(missing.address.to_string(), "http://127.0.0.1:8500");
        assert_eq!(missing.advice, None);
        let denied = unread(Path::new(DEFAULT_PATH), &io::ErrorKind::PermissionDenied.into());
        assert!(denied.advice.unwrap().contains("Run the command as root, or set --http-addr."));
    }
}
