//! Three hosts of a guide: each has its own network, host name, /etc, /run and /var/lib.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    str::FromStr,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::support::{
    namespaces::{Namespace, ip},
    process::{self, Finish},
    program::Program,
    run,
};

/// Names and addresses of the hosts.
const HOSTS: [(&str, &str); 3] = [("host-1", "10.0.0.1"), ("host-2", "10.0.0.2"), ("host-3", "10.0.0.3")];

/// Shell command that mounts the folders of host `$2`, sets its name to `$3`, and runs its last argument.
const INSIDE: &str = "for folder in etc run var/lib; do mount --bind \"$1/$2/$folder\" /$folder; done && hostname \"$3\" && \
                      exec sh -ec \"$4\"";

/// Substitute for systemd, with the commands of the guides: the agent's output is in /run/log, its process in /run/pid, that of
/// Consul in /run/consul.pid.
const SYSTEMCTL: &str = "#!/bin/sh
[ ! -s /run/pid ] || pid=$(cat /run/pid)
case \"$*\" in
'restart muster') [ -z \"$pid\" ] || { kill -USR1 $pid && kill -TERM $pid; } ;;
'kill --signal KILL muster') kill -KILL $pid ;;
'stop consul') pid=$(cat /run/consul.pid) && kill -TERM $pid ;;
*) exit 64 ;;
esac
while [ -n \"$pid\" ] && [ -e /proc/$pid/exe ]; do sleep 0.02; done
[ \"$1\" = restart ] || exit 0
muster agent >/run/log 2>&1 &
echo $! >/run/pid
until grep -q 'INFO answering' /run/log; do
    [ -e /proc/$!/exe ] || { cat /run/log >&2; exit 1; }
    sleep 0.02
done
";

/// `ssh root@ADDRESS 'install … /dev/stdin PATH'`. Its group exists in /etc/group of the guide's hosts only.
const SSH: &str = "#!/bin/sh
case \"$2\" in 'install -o root -g muster -m 640 /dev/stdin '*) ;; *) exit 64 ;; esac
exec install -o root -g muster -m 640 /dev/stdin \"$HOSTS/${1#root@}${2##* }\"
";

/// Group of the agent, as the package creates it.
const GROUP: &str = "muster:x:7946:\n";

/// The hosts, connected by a bridge.
pub(crate) struct Hosts {
    servers: Vec<Program>,
    hosts: Vec<GuideHost>,
    folder: TempDir,
    _bridge: Namespace,
}

/// One host.
pub(crate) struct GuideHost {
    name: &'static str,
    address: &'static str,
    /// Folder of all hosts, with a folder for each, and `bin`.
    folder: PathBuf,
    namespace: Namespace,
}

impl Hosts {
    /// Creates the hosts without agents; `muster` is in their PATH.
    pub(crate) fn new() -> Self {
        let (folder, bridge) = (run::temp_dir(), Namespace::new());
        ip(&format!("-n {} link add br0 type bridge", bridge.name()));
        ip(&format!("-n {} link set br0 up", bridge.name()));
        let bin = folder.path().join("bin");
        fs::create_dir(&bin).unwrap();
        symlink(env!("CARGO_BIN_EXE_muster"), bin.join("muster")).unwrap();
        for (name, script) in [("systemctl", SYSTEMCTL), ("ssh", SSH)] {
            fs::write(bin.join(name), script).unwrap();
            fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let hosts = HOSTS.map(|(name, address)| {
            let namespace = Namespace::new();
            let port = format!("p-{name}");
            namespace.connect("eth0", &bridge, &port);
            ip(&format!("-n {} link set {port} master br0", bridge.name()));
            ip(&format!("-n {} address add {address}/24 dev eth0", namespace.name()));
            ip(&format!("-n {} route add default via 10.0.0.254", namespace.name()));
            let host = GuideHost { name, address, folder: folder.path().to_owned(), namespace };
            for path in ["run", "var/lib", "etc/muster/services.d", "etc/muster/zones", "etc/consul.d"] {
                fs::create_dir_all(host.path(path)).unwrap();
            }
            for path in ["passwd", "group", "ssl", "nsswitch.conf", "localtime", "alternatives", "ld.so.cache"] {
                let _ =
                    process::command("cp").arg("-a").arg(Path::new("/etc").join(path)).arg(host.path("etc")).finish();
            }
            let groups = fs::read_to_string(host.path("etc/group")).unwrap_or_default();
            let others = groups.lines().filter(|line| !line.starts_with("muster:")).map(|line| format!("{line}\n"));
            host.write("/etc/group", &(others.collect::<String>() + GROUP));
            host
        });
        Self { servers: Vec::new(), hosts: hosts.into(), folder, _bridge: bridge }
    }

    /// Iterates over the hosts.
    pub(crate) fn all(&self) -> impl Iterator<Item = &GuideHost> {
        self.hosts.iter()
    }

    /// Returns the host of that name.
    #[track_caller]
    pub(crate) fn host(&self, name: &str) -> &GuideHost {
        self.hosts.iter().find(|host| host.name == name).unwrap_or_else(|| panic!("there is no host {name:?}"))
    }

    /// Starts a program that keeps running on every host.
    pub(crate) fn start_everywhere(&mut self, script: &str) {
        for host in &self.hosts {
            let log = self.folder.path().join(host.address).join("log");
            fs::create_dir_all(&log).unwrap();
            let command = host.command(&format!("exec {script}"));
            self.servers.push(host.namespace.enter(|| Program::start(command, &log)));
        }
    }
}

impl GuideHost {
    /// Returns the path of a file that the host has at this path.
    fn path(&self, absolute: &str) -> PathBuf {
        self.folder.join(self.address).join(absolute.trim_start_matches('/'))
    }

    /// Writes a file.
    pub(crate) fn write(&self, path: &str, text: &str) {
        fs::write(self.path(path), text).unwrap();
    }

    fn command(&self, script: &str) -> Command {
        let mut command = process::command("unshare");
        command.args(["--mount", "--uts", "--propagation", "private", "sh", "-ec", INSIDE, "sh"]).arg(&self.folder);
        command.args([self.address, self.name, script]).env("HOSTS", &self.folder);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.folder.join("bin").display())).current_dir(&self.folder);
        command
    }

    /// Runs a script that must succeed, and returns its output.
    #[track_caller]
    pub(crate) fn output_of(&self, script: &str) -> String {
        let output = self.namespace.enter(|| self.command(script).finish());
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{}: {script}\n{out}{err}", self.name);
        out.into_owned()
    }
}

impl Drop for GuideHost {
    fn drop(&mut self) {
        for file in ["run/pid", "run/consul.pid"] {
            let pid = fs::read_to_string(self.path(file)).ok().and_then(|text| i32::from_str(text.trim()).ok());
            if let Some(pid) = pid {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
}
