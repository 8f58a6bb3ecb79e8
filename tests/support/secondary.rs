//! Authoritative servers of other projects that copy zones from an agent.

use std::{fmt::Write as _, fs, net::SocketAddr, os::unix::fs::PermissionsExt, path::Path, process::Command};

use super::{
    process::{self, Finish},
    program::Program,
    skip,
};

/// Software of a secondary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Software {
    /// ISC BIND 9
    Bind,
    /// NLnet Labs NSD
    Nsd,
    /// CZ.NIC Knot DNS
    Knot,
    /// PowerDNS Authoritative Server
    PowerDns,
}

impl Software {
    /// All software.
    pub const ALL: [Self; 4] = [Self::Bind, Self::Nsd, Self::Knot, Self::PowerDns];

    /// Reports whether all software is installed; if not, skips `test`.
    pub fn is_installed(test: &str) -> bool {
        skip::tool(test, "named", "bind9")
            && skip::tool(test, "nsd", "nsd")
            && skip::tool(test, "knotd", "knot")
            && skip::tool(test, "pdns_server", "pdns-server pdns-backend-sqlite3")
            && skip::tool(test, "sqlite3", "sqlite3")
    }
}

/// TSIG key of a test: algorithm hmac-sha256.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Name.
    pub name: &'static str,
    /// Secret in base64.
    pub secret: &'static str,
}

impl Key {
    /// Returns the key as `tsig-keygen` writes it.
    pub fn file(&self) -> String {
        format!("key \"{}\" {{\n\talgorithm hmac-sha256;\n\tsecret \"{}\";\n}};\n", self.name, self.secret)
    }
}

/// Writes TSIG keys into the folder `tsig` of an agent.
pub fn write_keys(folder: &Path, all: &[Key]) {
    let keys = folder.join("tsig");
    fs::create_dir(&keys).unwrap();
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o700)).unwrap();
    for key in all {
        let path = keys.join(format!("{}.key", key.name));
        fs::write(&path, key.file()).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

/// Setup of a secondary.
#[derive(Clone, Debug)]
pub struct Setup<'s> {
    /// Address of the secondary, for queries and NOTIFY.
    pub listen: SocketAddr,
    /// Addresses of its primaries.
    pub primaries: &'s [SocketAddr],
    /// Zones that it copies.
    pub zones: &'s [&'s str],
    /// Key that signs its requests.
    pub key: Option<Key>,
}

/// Starts a secondary with its files in `folder`, which must be empty.
pub fn start(software: Software, setup: &Setup<'_>, folder: &Path) -> Program {
    let command = match software {
        Software::Bind => bind(setup, folder),
        Software::Nsd => nsd(setup, folder),
        Software::Knot => knot(setup, folder),
        Software::PowerDns => power_dns(setup, folder),
    };
    Program::start(command, folder)
}

fn bind(setup: &Setup<'_>, folder: &Path) -> Command {
    let Setup { listen, primaries, zones, key } = setup;
    let (ip, port, path) = (listen.ip(), listen.port(), folder.display());
    let mut config = format!(
        "options {{\n directory \"{path}\";\n pid-file \"{path}/pid\";\n session-keyfile \"{path}/session.key\";\n \
         lock-file none;\n listen-on port {port} {{ {ip}; }};\n listen-on-v6 {{ none; }};\n recursion no;\n \
         dnssec-validation no;\n notify no;\n serial-query-rate 1000;\n}};\ncontrols {{ }};\n"
    );
    let mut of_key = String::new();
    if let Some(key) = key {
        config.push_str(&key.file());
        of_key = format!(" key \"{}\"", key.name);
    }
    let listed: String = primaries.iter().fold(String::new(), |mut text, primary| {
        let _ = write!(text, " {} port {}{of_key};", primary.ip(), primary.port());
        text
    });
    for zone in *zones {
        let _ = writeln!(
            config,
            "zone \"{zone}\" {{ type secondary; primaries {{{listed} }}; masterfile-format text; file \"{zone}.db\"; \
             min-refresh-time 20; min-retry-time 5; max-records-per-type 0; }};"
        );
    }
    fs::write(folder.join("config"), config).unwrap();
    let mut command = process::command("named");
    command.args(["-g", "-n", "1", "-c"]).arg(folder.join("config"));
    command
}

fn nsd(setup: &Setup<'_>, folder: &Path) -> Command {
    let Setup { listen, primaries, zones, key } = setup;
    let (ip, port, path) = (listen.ip(), listen.port(), folder.display());
    let mut config = format!(
        "server:\n ip-address: {ip}@{port}\n username: \"\"\n chroot: \"\"\n zonesdir: \"{path}\"\n database: \"\"\n pidfile: \
         \"{path}/pid\"\n zonelistfile: \"{path}/zone.list\"\n xfrdfile: \"{path}/xfrd.state\"\n xfrdir: \"{path}\"\n \
         server-count: 1\n verbosity: 2\nremote-control:\n control-enable: no\n"
    );
    let mut of_key = "NOKEY";
    if let Some(key) = key {
        let _ = write!(config, "key:\n name: \"{}\"\n algorithm: hmac-sha256\n secret: \"{}\"\n", key.name, key.secret);
        of_key = key.name;
    }
    for zone in *zones {
        let _ = write!(config, "zone:\n name: \"{zone}\"\n zonefile: \"{zone}.db\"\n");
        for primary in *primaries {
            let _ = writeln!(config, " allow-notify: {} NOKEY", primary.ip());
            let _ = writeln!(config, " request-xfr: {}@{} {of_key}", primary.ip(), primary.port());
        }
    }
    fs::write(folder.join("config"), config).unwrap();
    let mut command = process::command("nsd");
    command.args(["-d", "-c"]).arg(folder.join("config"));
    command
}

fn knot(setup: &Setup<'_>, folder: &Path) -> Command {
    let Setup { listen, primaries, zones, key } = setup;
    let (ip, port, path) = (listen.ip(), listen.port(), folder.display());
    let mut config = format!(
        "server:\n  listen: {ip}@{port}\n  rundir: {path}\n  udp-workers: 1\n  tcp-workers: 1\n  background-workers: 1\n\
         database:\n  storage: {path}\n"
    );
    let mut of_key = String::new();
    if let Some(key) = key {
        let _ = write!(config, "key:\n  - id: {}\n    algorithm: hmac-sha256\n    secret: {}\n", key.name, key.secret);
        of_key = format!("    key: {}\n", key.name);
    }
    config.push_str("remote:\n");
    for (number, primary) in primaries.iter().enumerate() {
        let _ = write!(config, "  - id: p{number}\n    address: {}@{}\n{of_key}", primary.ip(), primary.port());
    }
    let names: Vec<String> = (0..primaries.len()).map(|number| format!("p{number}")).collect();
    let _ = write!(config, "acl:\n  - id: notify\n    address: 127.0.0.0/8\n    action: notify\n");
    config.push_str("zone:\n");
    for zone in *zones {
        let _ = write!(
            config,
            "  - domain: {zone}\n    storage: {path}\n    master: [{}]\n    acl: notify\n",
            names.join(", ")
        );
    }
    fs::write(folder.join("config"), config).unwrap();
    let mut command = process::command("knotd");
    command.arg("-c").arg(folder.join("config"));
    command
}

fn power_dns(setup: &Setup<'_>, folder: &Path) -> Command {
    let Setup { listen, primaries, zones, key } = setup;
    let database = folder.join("zones.sqlite");
    let schema = fs::read_to_string("/usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql").unwrap();
    let mut script = schema;
    for zone in *zones {
        let listed: Vec<String> = primaries.iter().map(ToString::to_string).collect();
        let _ = writeln!(
            script,
            "INSERT INTO domains (name, master, type) VALUES ('{zone}', '{}', 'SLAVE');",
            listed.join(",")
        );
        if let Some(key) = key {
            let _ = writeln!(
                script,
                "INSERT INTO domainmetadata (domain_id, kind, content) SELECT id, 'AXFR-MASTER-TSIG', '{}' FROM domains WHERE \
                 name = '{zone}';",
                key.name
            );
        }
        let _ = writeln!(
            script,
            "INSERT INTO domainmetadata (domain_id, kind, content) SELECT id, 'IXFR', '1' FROM domains WHERE name = '{zone}';"
        );
    }
    if let Some(key) = key {
        let _ = writeln!(
            script,
            "INSERT INTO tsigkeys (name, algorithm, secret) VALUES ('{}', 'hmac-sha256', '{}');",
            key.name, key.secret
        );
    }
    let mut sqlite = process::command("sqlite3");
    sqlite.arg(&database);
    let filled = sqlite.finish_with(&script);
    assert!(filled.status.success(), "{filled:?}");
    let config = format!(
        "launch=gsqlite3\ngsqlite3-database={}\nlocal-address={}\nlocal-port={}\nslave=yes\nslave-cycle-interval=1\n\
         socket-dir={}\nguardian=no\ndaemon=no\ndisable-syslog=yes\nreceiver-threads=1\ndistributor-threads=1\nretrieval-threads=1\ncache-ttl=0\n\
         query-cache-ttl=0\nnegquery-cache-ttl=0\nzone-cache-refresh-interval=0\nallow-notify-from=127.0.0.0/8\nloglevel=4\n",
        database.display(),
        listen.ip(),
        listen.port(),
        folder.display()
    );
    fs::write(folder.join("pdns.conf"), config).unwrap();
    let mut command = process::command("pdns_server");
    command.arg(format!("--config-dir={}", folder.display()));
    command
}
