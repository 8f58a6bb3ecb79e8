//! Authoritative servers of other projects from which an agent copies zones.

use std::{
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use nix::sys::signal::Signal;

use super::{process, program::Program, secondary::Key, skip};

/// Software of a primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Software {
    /// ISC BIND 9
    Bind,
    /// CZ.NIC Knot DNS
    Knot,
    /// NLnet Labs NSD, which sends whole zones only
    Nsd,
}

impl Software {
    /// All software.
    pub const ALL: [Self; 3] = [Self::Bind, Self::Knot, Self::Nsd];

    /// Reports whether all software is installed; if not, skips `test`.
    pub fn is_installed(test: &str) -> bool {
        skip::tool(test, "named", "bind9")
            && skip::tool(test, "knotd", "knot")
            && skip::tool(test, "nsd", "nsd")
            && skip::tool(test, "dig", "bind9-dnsutils")
    }
}

/// Setup of a primary.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'s> {
    /// Address of the primary.
    pub listen: SocketAddr,
    /// Address of the agent, which receives NOTIFY.
    pub secondary: SocketAddr,
    /// The zone.
    pub zone: &'s str,
    /// Key of all messages.
    pub key: Key,
}

/// A listener of BIND over TLS, by which alone it sends zones.
#[derive(Clone, Copy, Debug)]
pub struct Tls<'s> {
    /// Address of the listener.
    pub listen: SocketAddr,
    /// Folder with `cert.pem` and `key.pem`.
    pub certificate: &'s Path,
}

/// A running primary.
pub struct Primary {
    /// The program.
    pub program: Program,
    file: PathBuf,
}

impl Primary {
    /// Starts a primary of a zone with this content, with its files in `folder`, which must be empty.
    pub fn start(software: Software, setup: &Setup<'_>, content: &str, folder: &Path) -> Self {
        let file = folder.join("zone.db");
        fs::write(&file, content).unwrap();
        let command = match software {
            Software::Bind => bind(setup, None, folder),
            Software::Knot => knot(setup, folder),
            Software::Nsd => nsd(setup, folder),
        };
        Self { program: Program::start(command, folder), file }
    }

    /// Starts BIND, which sends the zone over TLS only.
    pub fn start_bind_over_tls(setup: &Setup<'_>, tls: Tls<'_>, content: &str, folder: &Path) -> Self {
        let file = folder.join("zone.db");
        fs::write(&file, content).unwrap();
        Self { program: Program::start(bind(setup, Some(tls), folder), folder), file }
    }

    /// Replaces the content of the zone.
    pub fn change(&self, content: &str) {
        let partial = self.file.with_extension("partial");
        fs::write(&partial, content).unwrap();
        fs::rename(&partial, &self.file).unwrap();
        self.program.signal(Signal::SIGHUP);
    }
}

fn bind(setup: &Setup<'_>, tls: Option<Tls<'_>>, folder: &Path) -> Command {
    let Setup { listen, secondary, zone, key } = setup;
    let (ip, port, path) = (listen.ip(), listen.port(), folder.display());
    let name = key.name;
    let mut config = key.file();
    let (mut listener, mut transport) = (String::new(), String::new());
    if let Some(Tls { listen, certificate }) = tls {
        let certificate = certificate.display();
        let _ = writeln!(
            config,
            "tls own {{ cert-file \"{certificate}/cert.pem\"; key-file \"{certificate}/key.pem\"; }};"
        );
        listener = format!(" listen-on port {} tls own {{ {}; }};\n", listen.port(), listen.ip());
        transport = format!("port {} transport tls ", listen.port());
    }
    let _ = write!(
        config,
        "options {{\n directory \"{path}\";\n pid-file \"{path}/pid\";\n session-keyfile \"{path}/session.key\";\n \
         lock-file none;\n listen-on port {port} {{ {ip}; }};\n listen-on-v6 {{ none; }};\n{listener} recursion no;\n \
         dnssec-validation no;\n notify-delay 0;\n}};\ncontrols {{ }};\n\
         zone \"{zone}\" {{\n type primary;\n file \"zone.db\";\n ixfr-from-differences yes;\n allow-transfer {transport}{{ key \"{name}\"; \
         }};\n notify explicit;\n also-notify {{ {} port {} key \"{name}\"; }};\n}};\n",
        secondary.ip(),
        secondary.port(),
    );
    fs::write(folder.join("config"), config).unwrap();
    let mut command = process::command("named");
    command.args(["-g", "-n", "1", "-c"]).arg(folder.join("config"));
    command
}

fn knot(setup: &Setup<'_>, folder: &Path) -> Command {
    let Setup { listen, secondary, zone, key } = setup;
    let (ip, port, path) = (listen.ip(), listen.port(), folder.display());
    let name = key.name;
    let config = format!(
        "server:\n  listen: {ip}@{port}\n  rundir: {path}\n  udp-workers: 1\n  tcp-workers: 1\n  background-workers: 1\n\
         database:\n  storage: {path}\nkey:\n  - id: {name}\n    algorithm: hmac-sha256\n    secret: {}\n\
         remote:\n  - id: secondary\n    address: {}@{}\n    key: {name}\n\
         acl:\n  - id: transfer\n    key: {name}\n    action: transfer\n\
         zone:\n  - domain: {zone}\n    storage: {path}\n    file: zone.db\n    zonefile-sync: -1\n    zonefile-load: difference\n    \
         notify: secondary\n    acl: transfer\n",
        key.secret,
        secondary.ip(),
        secondary.port(),
    );
    fs::write(folder.join("config"), config).unwrap();
    let mut command = process::command("knotd");
    command.arg("-c").arg(folder.join("config"));
    command
}

fn nsd(setup: &Setup<'_>, folder: &Path) -> Command {
    let Setup { listen, secondary, zone, key } = setup;
    let (ip, port, path) = (listen.ip(), listen.port(), folder.display());
    let name = key.name;
    let config = format!(
        "server:\n ip-address: {ip}@{port}\n username: \"\"\n chroot: \"\"\n zonesdir: \"{path}\"\n database: \"\"\n pidfile: \
         \"{path}/pid\"\n zonelistfile: \"{path}/zone.list\"\n xfrdfile: \"{path}/xfrd.state\"\n xfrdir: \"{path}\"\n \
         server-count: 1\n verbosity: 2\nremote-control:\n control-enable: no\n\
         key:\n name: \"{name}\"\n algorithm: hmac-sha256\n secret: \"{}\"\n\
         zone:\n name: \"{zone}\"\n zonefile: \"zone.db\"\n provide-xfr: 127.0.0.0/8 {name}\n notify: {}@{} {name}\n",
        key.secret,
        secondary.ip(),
        secondary.port(),
    );
    fs::write(folder.join("config"), config).unwrap();
    let mut command = process::command("nsd");
    command.args(["-d", "-c"]).arg(folder.join("config"));
    command
}
