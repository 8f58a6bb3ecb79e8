//! `muster setup`: has the programs of this host ask muster.
//!
//! Each way is a text (`resolved`, `resolv_conf`: core) that takes the place of a file (`place`), and questions that have to
//! arrive then (`check`). What speaks against it is looked for before anything is written; if questions do not arrive all
//! the same, what was there before comes back.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
};

use nix::ifaddrs::getifaddrs;

use self::{
    backup::{Place, RestoreError},
    error::SetupError,
    resolved::{File, Network},
};
use super::{
    Exit,
    host_defaults::environment,
    inputs::{self, has_extension},
    table::print,
};
use crate::{
    config::{Config, DEFAULT_PATH, DNS_PORT, Upstreams},
    dns::{message::query::LookupName, recursion::special_use::SpecialUse},
    model::{name::Name, service::RESERVED_SERVICE},
};

mod backup;
mod error;
mod resolv_conf;
mod resolved;
mod verify;

/// Where systemd-resolved takes questions (systemd-resolved.service(8)).
const STUB: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)), DNS_PORT);
/// What systemd-resolved keeps while it runs.
const RUNNING: &str = "run/systemd/resolve/stub-resolv.conf";
/// Where its configuration is, what counts more first (resolved.conf(5)).
const FOLDERS: [&str; 4] = ["etc/systemd", "run/systemd", "usr/local/lib/systemd", "usr/lib/systemd"];
/// Has it read its configuration; versions that cannot are restarted, which takes a moment.
const RELOAD: [&str; 3] = ["systemctl", "reload-or-restart", "systemd-resolved"];

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    way: Way,
}

#[derive(Debug, clap::Subcommand)]
enum Way {
    /// Have systemd-resolved ask muster for the names that muster serves
    Resolved(Options),
    /// Have /etc/resolv.conf name muster and no other server
    ResolvConf(Options),
}

#[derive(Debug, clap::Args)]
struct Options {
    /// The agent's configuration: a file, or a folder of *.yaml merged in the order of their names
    #[arg(long, value_name = "PATH", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// Print what would be written and run, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Bring back what was there before
    #[arg(long)]
    undo: bool,
    /// Go on although something speaks against it, and leave it although questions do not arrive
    #[arg(long, conflicts_with = "undo")]
    force: bool,
    /// Write below this folder; run nothing and ask nobody
    #[arg(long, value_name = "FOLDER", hide = true)]
    root: Option<PathBuf>,
}

impl Options {
    fn root(&self) -> &Path {
        self.root.as_deref().unwrap_or(Path::new("/"))
    }

    /// Whether it is this host that is set up.
    fn is_live(&self) -> bool {
        self.root.is_none()
    }
}

pub(super) fn run(args: &Args) -> Exit {
    let done = match &args.way {
        Way::Resolved(options) => with_resolved(options),
        Way::ResolvConf(options) => with_resolv_conf(options),
    };
    match done {
        Ok(()) => Exit::Done,
        Err(failure) => {
            eprintln!("muster: {failure}");
            if failure.is_inability() { Exit::CouldNotRun } else { Exit::Problems }
        }
    }
}

/// What is to be done.
struct Task<'o> {
    options: &'o Options,
    config: Config,
    place: Place,
    body: String,
    /// What makes it known.
    reload: Option<[&'static str; 3]>,
    /// What the user should know of it.
    notes: Vec<String>,
    /// Where the agent takes questions.
    agent: SocketAddr,
    /// Who resolved for this host before,
    before: Vec<SocketAddr>,
    /// and who does afterwards.
    after: SocketAddr,
    /// Where to look if questions go astray.
    hint: &'static str,
}

fn with_resolved(options: &Options) -> Result<(), SetupError> {
    let place = Place::new(options.root(), resolved::PATH, "resolved");
    if options.undo {
        return undo(options, &place, Some(RELOAD));
    }
    let config = configuration(&options.config)?;
    let agent = server(&config.dns.listen).ok_or(SetupError::NoServer)?;
    let domains = domains(&config, agent);
    let mut task = Task {
        body: resolved::text(agent, &domains),
        notes: domains.iter().filter(|domain| stays_here(&config, domain)).map(|zone| reverse_note(zone)).collect(),
        options,
        config,
        place,
        reload: Some(RELOAD),
        agent,
        before: vec![STUB],
        after: STUB,
        hint: "`resolvectl status` shows whom systemd-resolved asks for what, `journalctl -u systemd-resolved` what is wrong.\n\
               It takes ports from version 246 on, and its DNSOverTLS has to be `no` or `opportunistic`. Programs ask\n\
               it where /etc/resolv.conf names 127.0.0.53, or `hosts:` in /etc/nsswitch.conf has `resolve`.",
    };
    if !options.root().join(RUNNING).exists() {
        task.object(SetupError::NoResolved)?;
    }
    let files = resolved_files(options.root(), task.place.path())?;
    let others: Vec<(&File, SocketAddr)> =
        resolved::global_servers(&files).into_iter().filter(|(_, server)| *server != agent).collect();
    if let Some((file, _)) = others.iter().find(|(file, _)| file.is_after(task.place.path())) {
        task.object(SetupError::Later(file.path.clone()))?;
    } else if !others.is_empty() {
        task.needs_upstreams(others.iter().map(|(_, server)| *server).collect())?;
    }
    if !resolves(&task.config, agent) {
        task.notes.push(
            "muster resolves no names but its own here (resolver.allow): reverse names are left to others".into(),
        );
    }
    task.carry_out()
}

fn with_resolv_conf(options: &Options) -> Result<(), SetupError> {
    let place = Place::new(options.root(), resolv_conf::PATH, "resolv-conf");
    if options.undo {
        return undo(options, &place, None);
    }
    let config = configuration(&options.config)?;
    let with_port: Vec<SocketAddr> = config.dns.listen.iter().copied().filter(|own| own.port() == DNS_PORT).collect();
    let agent = server(&with_port).ok_or_else(|| SetupError::NoPort53(config.dns.listen.clone()))?;
    let (at, former) = place.former()?;
    let link = at.read_link().ok();
    let servers = resolv_conf::servers(&former, &[agent]);
    let mut task = Task {
        body: resolv_conf::text(agent.ip(), &former),
        options,
        config,
        reload: None,
        notes: resolv_conf::other_writer(&former, link.as_deref()).map(str::to_owned).into_iter().collect(),
        agent,
        before: servers.clone(),
        after: agent,
        hint: "Does `hosts:` in /etc/nsswitch.conf have `dns`, and nothing before it that takes these names? See docs/clients.md.",
        place,
    };
    if resolv_conf::is_resolved(&former, link.as_deref()) {
        task.object(SetupError::AsksResolved)?;
    }
    task.needs_upstreams(servers)?;
    task.carry_out()
}

impl Task<'_> {
    /// Something speaks against it.
    fn object(&mut self, failure: SetupError) -> Result<(), SetupError> {
        if !self.options.force {
            return Err(failure);
        }
        let text = failure.to_string();
        self.notes.push(format!("with --force, although {}", text.lines().next().unwrap_or_default()));
        Ok(())
    }

    /// muster has to resolve for those who asked `upstreams` before.
    fn needs_upstreams(&mut self, upstreams: Vec<SocketAddr>) -> Result<(), SetupError> {
        if !resolves(&self.config, self.agent) {
            return self.object(SetupError::NoRecursion);
        }
        match self.config.resolver.upstreams {
            Upstreams::System => {
                let (config, named_in) = (self.options.config.clone(), self.place.path().to_owned());
                self.object(SetupError::NoUpstreams { config, named_in, upstreams })
            }
            Upstreams::Servers(_) => Ok(()),
        }
    }

    fn carry_out(&self) -> Result<(), SetupError> {
        if self.options.dry_run { self.describe() } else { self.perform() }
    }

    fn describe(&self) -> Result<(), SetupError> {
        let mut text = format!("would write {}:\n", self.place.path().display());
        text.extend(self.place.text(&self.body)?.lines().map(|line| format!("    {line}\n")));
        text.extend(self.reload().map(|command| format!("would run: {}\n", command.join(" "))));
        if self.options.is_live() {
            text.push_str(&format!("would ask for the SOA record of {}: {}", self.config.domain, self.agent));
            text.push_str(if self.reload.is_some() { ", 127.0.0.53\n" } else { "\n" });
            text.push_str(&format!("would look up {}\n", self.own_name()));
        }
        print(&(text + &self.notes()));
        Ok(())
    }

    fn perform(&self) -> Result<(), SetupError> {
        let live = self.options.is_live();
        if live && let Err(why) = verify::serial(self.agent, &self.config.domain) {
            let failure = SetupError::Agent { server: self.agent, why };
            if !self.options.force {
                return Err(failure);
            }
            eprintln!("muster: {failure}");
        }
        let knew_the_world = live && self.before.iter().any(|server| verify::world(*server).is_ok());
        self.place.put(&self.body)?;
        print(&format!("{}: written\n{}", self.place.path().display(), self.notes()));
        let outcome = self.reload().map_or(Ok(()), run_command);
        match outcome.and_then(|()| if live { self.check(knew_the_world) } else { Ok(()) }) {
            Err(failure) if self.options.force => {
                print("left as it is, because of --force\n");
                Err(failure)
            }
            Err(failure) => {
                // What went wrong is what the user has to know; that it could not be undone comes before.
                if let Err(second) = undo(self.options, &self.place, self.reload) {
                    eprintln!("muster: {second}");
                }
                Err(failure)
            }
            Ok(()) => Ok(()),
        }
    }

    /// Asks as programs of this host do.
    fn check(&self, knew_the_world: bool) -> Result<(), SetupError> {
        let domain = &self.config.domain;
        let astray = |asked: &str| {
            let asked = asked.to_owned();
            move |why| SetupError::Astray { asked, why, hint: self.hint }
        };
        if self.reload.is_some() && verify::is_there(STUB) {
            let same = || {
                let expected = verify::serial(self.agent, domain)?;
                match verify::serial(STUB, domain)? {
                    serial if serial == expected => Ok(serial),
                    other => Err(format!("{domain} has serial {other} there, and {expected} at the agent")),
                }
            };
            let serial = verify::patiently(same).map_err(astray("systemd-resolved at 127.0.0.53"))?;
            print(&format!(
                "the agent at {} and systemd-resolved at 127.0.0.53: {domain} has serial {serial}\n",
                self.agent
            ));
        } else {
            let serial = verify::patiently(|| verify::serial(self.agent, domain)).map_err(astray("the agent"))?;
            print(&format!("the agent at {}: {domain} has serial {serial}\n", self.agent));
        }
        let name = self.own_name();
        let found = || {
            let found = verify::look_up(name.trim_end_matches('.'))?;
            let is_ours = self.config.advertise.iter().any(|address| found.contains(address));
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            if is_ours { Ok(found.join(", ")) } else { Err(format!("{name} is {}", found.join(", "))) }
        };
        let found = verify::patiently(found).map_err(astray("programs of this host"))?;
        print(&format!("programs of this host: {name} is {found}\n"));
        if knew_the_world {
            verify::patiently(|| verify::world(self.after)).map_err(|why| SetupError::Astray {
                asked: format!("names of the world, which were resolved before, at {}", self.after),
                why,
                hint: "muster asks its upstreams for them, and finds none that answers: set resolver.upstreams.",
            })?;
            print("names of the world: resolved as before\n");
        }
        Ok(())
    }

    /// The name of the agent's node.
    fn own_name(&self) -> String {
        format!("{}.{RESERVED_SERVICE}.{}", self.config.node, self.config.domain)
    }

    fn reload(&self) -> Option<[&'static str; 3]> {
        self.reload.filter(|_| self.options.is_live())
    }

    fn notes(&self) -> String {
        self.notes.iter().map(|note| format!("note: {note}\n")).collect()
    }
}

fn undo(options: &Options, place: &Place, reload: Option<[&'static str; 3]>) -> Result<(), SetupError> {
    let undone = place.undo(options.dry_run)?;
    let would = if options.dry_run { "would be " } else { "" };
    let path = place.path().display();
    print(&match undone {
        RestoreError::Nothing => format!("nothing to undo: muster has written no {path}\n"),
        RestoreError::Removed => format!("{path}: {would}removed\n"),
        RestoreError::Restored => {
            format!("{path}: what was there before {}\n", if would.is_empty() { "is back" } else { "would be back" })
        }
    });
    match reload.filter(|_| undone != RestoreError::Nothing && options.is_live()) {
        Some(command) if options.dry_run => print(&format!("would run: {}\n", command.join(" "))),
        Some(command) => run_command(command)?,
        None => {}
    }
    Ok(())
}

fn run_command(command: [&str; 3]) -> Result<(), SetupError> {
    let [program, arguments @ ..] = command;
    let failed = |why| SetupError::Command { command: command.join(" "), why };
    let output = Command::new(program).args(arguments).output().map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(failed(if said.is_empty() { output.status.to_string() } else { said }));
    }
    print(&format!("{}: done\n", command.join(" ")));
    Ok(())
}

fn configuration(path: &Path) -> Result<Config, SetupError> {
    let texts = inputs::configuration(path).map_err(|error| SetupError::NoConfig { path: path.to_owned(), error })?;
    let texts = texts.iter().map(|text| (text.path.as_path(), text.bytes.as_slice()));
    Config::parse(texts, &environment()).map_err(SetupError::Config)
}

/// Where clients of this host reach an agent that listens there: rather at port 53, rather over loopback.
fn server(listen: &[SocketAddr]) -> Option<SocketAddr> {
    let reached = |own: &SocketAddr| match own.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), own.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), own.port()),
        _ => *own,
    };
    let known = listen.iter().filter(|own| own.port() > 0).map(reached);
    known.min_by_key(|server| (server.port() != DNS_PORT, !server.ip().is_loopback()))
}

/// Whether the agent resolves other names for clients of this host.
fn resolves(config: &Config, agent: SocketAddr) -> bool {
    // A client on this host that asks an address of this host asks from that address.
    config.resolver.allow.iter().any(|allow| allow.matches(agent.ip()))
}

fn domains(config: &Config, agent: SocketAddr) -> Vec<String> {
    let files = inputs::folder(&config.zones_dir).unwrap_or_default();
    let zones: Vec<Name> = files
        .iter()
        .filter(|file| has_extension(file, "zone"))
        .filter_map(|file| Name::parse(&file.file_stem()?.to_string_lossy()).ok())
        .collect();
    let networks: Vec<Network> = config.advertise.iter().filter_map(|address| network(*address)).collect();
    resolved::domains(config, &zones, &networks, resolves(config, agent))
}

/// Whether muster passes on no questions for names in a zone (RFC 6303), though it is asked for all of them.
fn stays_here(config: &Config, zone: &str) -> bool {
    let Ok(zone) = Name::parse(zone) else { return false };
    let is_ours = |other: &Name| zone.within(other).is_some();
    let is_routed = config.resolver.routes.iter().any(|(suffix, _)| is_ours(suffix));
    let is_zone = is_ours(&config.domain) || config.alias_domains.iter().any(is_ours);
    !is_routed && !is_zone && LookupName::from_wire(zone.wire()).is_some_and(|name| SpecialUse::find(&name).is_some())
}

fn reverse_note(zone: &str) -> String {
    format!("names in {zone} that muster does not know do not exist: who else knows them belongs into resolver.routes")
}

/// The network around an address of this host; around another, the usual.
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
    // Names of loopback addresses are resolved's own.
    let prefix = prefixes.min().unwrap_or(u8::MAX);
    (!address.is_loopback()).then_some(Network { address, prefix })
}

/// The files of resolved's configuration in the order in which it reads them, without ours.
fn resolved_files(root: &Path, ours: &Path) -> Result<Vec<File>, SetupError> {
    let main = FOLDERS.iter().map(|folder| root.join(folder).join("resolved.conf")).find(|path| path.exists());
    let mut drop_ins = BTreeMap::new();
    for folder in FOLDERS.iter().rev() {
        for path in inputs::folder(&root.join(folder).join("resolved.conf.d")).unwrap_or_default() {
            if has_extension(&path, "conf") && path != ours {
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
