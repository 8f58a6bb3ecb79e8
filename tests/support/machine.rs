//! Simulated host: a network namespace with private /etc and /run, in which tests can change name resolution. It is
//! removed on drop.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata::NS},
};
use tempfile::TempDir;

use super::{
    agent::Agent,
    namespaces::{Namespace, ip},
    process::{self, Finish},
    program::Program,
    run,
    upstream::{Asked, Upstream, octets},
    wait,
};

/// Address of the host's only interface, with a prefix of 24 bits.
pub const ADDRESS: &str = "10.0.0.7";

/// Shell command that mounts the host's /etc and /run and runs its arguments.
const INSIDE: &str = "mount --bind \"$1/etc\" /etc && mount --bind \"$1/run\" /run && shift && exec \"$@\"";

/// Substitute for systemd: starts systemd-resolved, and restarts it on SIGHUP.
const UNIT: &str = "#!/bin/sh
trap 'kill $child' HUP
trap 'kill $child; exit' TERM
echo $$ >/run/unit
while :; do
    rm -rf /run/systemd/resolve
    SYSTEMD_LOG_LEVEL=debug SYSTEMD_LOG_TARGET=console \"$1\" 2>>/run/log &
    child=$!
    until [ -s /run/systemd/resolve/stub-resolv.conf ]; do sleep 0.02; done
    date +%s%N >/run/started
    wait $child
    wait $child
done
";

/// `systemctl` with only the command that `muster setup` runs.
const SYSTEMCTL: &str = "#!/bin/sh
[ \"$*\" = 'reload-or-restart systemd-resolved' ] || exit 64
before=$(cat /run/started)
kill -HUP \"$(cat /run/unit)\"
until started=$(cat /run/started) && [ \"$started\" != \"$before\" ] && [ -n \"$started\" ]; do sleep 0.02; done
";

/// Simulated host.
pub struct Machine {
    resolved: Option<Child>,
    folder: TempDir,
    /// Network namespace of the host.
    pub namespace: Namespace,
    /// Network namespace at the other end of the link.
    _network: Namespace,
}

impl Machine {
    /// Creates a host with a copy of /etc, this resolv.conf and this `hosts:` line of nsswitch.conf.
    pub fn new(resolv_conf: &str, hosts: &str) -> Self {
        let (namespace, network) = (Namespace::new(), Namespace::new());
        // Without any network, systemd-resolved sends no queries.
        namespace.connect("eth0", &network, "p1");
        ip(&format!("-n {} address add {ADDRESS}/24 dev eth0", namespace.name()));
        let folder = run::temp_dir();
        let copied = process::command("cp").args(["-a", "/etc"]).arg(folder.path()).finish().status;
        assert!(copied.success());
        for name in ["run/systemd", "bin"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        let machine = Self { resolved: None, folder, namespace, _network: network };
        machine.install("systemctl", SYSTEMCTL);
        symlink(env!("CARGO_BIN_EXE_muster"), machine.path("bin/muster")).unwrap();
        machine.write("etc/nsswitch.conf", &format!("passwd: files\ngroup: files\nhosts: {hosts}\n"));
        let _ = fs::remove_file(machine.path("etc/resolv.conf"));
        machine.write("etc/resolv.conf", resolv_conf);
        machine
    }

    /// Returns a path below the host's folder, which contains its `etc` and `run`.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    /// Writes a file below the host's folder.
    pub fn write(&self, relative: &str, text: &str) {
        fs::create_dir_all(self.path(relative).parent().unwrap()).unwrap();
        fs::write(self.path(relative), text).unwrap();
    }

    /// Reads a file below the host's folder.
    pub fn read(&self, relative: &str) -> String {
        fs::read_to_string(self.path(relative)).unwrap()
    }

    /// Installs a script in the host's PATH.
    fn install(&self, name: &str, text: &str) {
        self.write(&format!("bin/{name}"), text);
        fs::set_permissions(self.path(&format!("bin/{name}")), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Returns a command for the host; it must be spawned within [`Self::namespace`].
    fn command(&self, program: impl AsRef<Path>, arguments: &[&str]) -> Command {
        let mut command = process::command("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", INSIDE, "sh"]).arg(self.folder.path());
        command.arg(program.as_ref()).args(arguments).stdin(Stdio::null());
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.path("bin").display()));
        command
    }

    /// Runs a program on the host, with an additional folder of libraries.
    pub fn run_with(&self, libraries: Option<&Path>, program: impl AsRef<Path>, arguments: &[&str]) -> Output {
        let mut command = self.command(program, arguments);
        if let Some(folder) = libraries {
            command.env("LD_LIBRARY_PATH", folder);
        }
        self.namespace.enter(|| command.finish())
    }

    /// Runs a program on the host.
    pub fn run(&self, program: impl AsRef<Path>, arguments: &[&str]) -> Output {
        self.run_with(None, program, arguments)
    }

    /// Starts a program on the host in the background, with its log in `folder`.
    pub fn start(&self, program: impl AsRef<Path>, arguments: &[&str], folder: &Path) -> Program {
        let command = self.command(program, arguments);
        self.namespace.enter(|| Program::start(command, folder))
    }

    /// Runs a program that must succeed, and returns its output.
    #[track_caller]
    pub fn output_of(&self, program: impl AsRef<Path>, arguments: &[&str]) -> String {
        let output = self.run(&program, arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{} {arguments:?}: {out}{err}", program.as_ref().display());
        out.into_owned()
    }

    /// Starts an agent that listens on `listen`, with this upstream and these services. Its configuration becomes the host's
    /// /etc/muster/muster.yaml.
    pub fn start_agent(&self, listen: &str, upstream: &Upstream, services: &str) -> Agent {
        self.start_agent_with(&format!("listen: [\"{listen}\"]"), upstream, services)
    }

    /// The same with these settings below `dns`.
    pub fn start_agent_with(&self, dns: &str, upstream: &Upstream, services: &str) -> Agent {
        let config = format!(
            "node: host-a\nadvertise: {ADDRESS}\ndata_dir: data\nservices_dir: services.d\nzones_dir: zones\n\
             dns: {{{dns}}}\nhttp: {{listen: [127.0.0.1:0]}}\ngossip: {{listen: 127.0.0.1:0}}\n\
             resolver: {{upstreams: [\"{}\"]}}\n",
            upstream.address()
        );
        self.write("etc/muster/muster.yaml", &config);
        let prepare = |folder: &Path| {
            fs::write(folder.join("muster.yaml"), &config).unwrap();
            if !services.is_empty() {
                fs::write(folder.join("services.d/services.yaml"), services).unwrap();
            }
        };
        self.namespace.enter(|| Agent::start_with("", &[], prepare))
    }

    /// Starts an upstream that answers `www.example` and the root's NS records.
    pub fn start_upstream(&self) -> Upstream {
        self.namespace.enter(|| Upstream::start(|asked| vec![octets(&answer(asked))]))
    }

    /// Sets the DNS server of the host's network, as systemd-networkd passes one from DHCP to systemd-resolved.
    pub fn set_link_dns(&self, address: &str) {
        let number = self.output_of("ip", &["-o", "link", "show", "eth0"]).split(':').next().unwrap().to_owned();
        self.write("run/systemd/netif/state", "OPER_STATE=routable\n");
        let link = format!("ADMIN_STATE=configured\nOPER_STATE=routable\nDNS={address}\n");
        self.write(&format!("run/systemd/netif/links/{number}"), &link);
    }

    /// Starts systemd-resolved from the path `program`, waits until it is ready, and links resolv.conf to its file.
    pub fn start_resolved(&mut self, program: &Path) {
        fs::remove_file(self.path("etc/resolv.conf")).unwrap();
        symlink("../run/systemd/resolve/stub-resolv.conf", self.path("etc/resolv.conf")).unwrap();
        for (file, line) in
            [("passwd", "systemd-resolve:x:990:990::/:/usr/sbin/nologin"), ("group", "systemd-resolve:x:990:")]
        {
            let text = self.read(&format!("etc/{file}"));
            if !text.contains("systemd-resolve:") {
                self.write(&format!("etc/{file}"), &format!("{text}{line}\n"));
            }
        }
        self.install("unit", UNIT);
        let mut command = self.command(self.path("bin/unit"), &[program.to_str().unwrap()]);
        self.resolved = Some(self.namespace.enter(|| command.spawn().unwrap()));
        wait::poll(|| {
            let log = || fs::read_to_string(self.path("run/log")).unwrap_or_default();
            if self.path("run/started").exists() {
                Ok(())
            } else {
                Err(format!("systemd-resolved does not start: {}", log()))
            }
        });
    }
}

/// Returns the reply of the upstream: one host, and the root's name servers.
fn answer(asked: &Asked) -> Message {
    match (asked.name().to_ascii_lowercase().as_str(), asked.qtype()) {
        ("www.example.", RecordType::A) => asked.address([192, 0, 2, 80], 60),
        ("www.example.", _) => asked.nothing(ResponseCode::NoError, 60),
        (".", RecordType::NS) => {
            let mut reply = asked.reply(ResponseCode::NoError);
            let server = Name::from_ascii("a.root-servers.example.").unwrap();
            reply.add_answer(Record::from_rdata(Name::root(), 60, RData::NS(NS(server))));
            reply
        }
        _ => asked.nothing(ResponseCode::NXDomain, 60),
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(mut unit) = self.resolved.take() {
            if thread::panicking() {
                eprintln!("systemd-resolved's log:\n{}", fs::read_to_string(self.path("run/log")).unwrap_or_default());
            }
            process::terminate(&mut unit);
        }
    }
}
