//! Host with systemd as its first process: a minimal Debian in namespaces, with cgroups of its own. It is shut down on
//! drop, also after a panic.
//!
//! The Debian is made once and kept in the target folder; each host writes to a layer in memory above it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use tempfile::TempDir;

use super::{
    namespaces::Namespace,
    packages,
    process::{self, Finish},
    run, skip,
    wait::{holds_in_time, poll, until},
};

/// Packages of the host beyond a minimal Debian. procps is not among them.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,iproute2";

/// Moves to a cgroup of its own, `$2`, below the hierarchy that systemd uses, which is mounted at `$1/cgroup`. Then runs
/// [`BOOT`] in namespaces whose cgroups begin there.
const ENTER: &str = "
mount --make-rprivate /
mkdir -p \"$1/cgroup\"
mount -t cgroup -o none,name=systemd cgroup \"$1/cgroup\"
mkdir \"$1/cgroup/$2\"
echo $$ >\"$1/cgroup/$2/cgroup.procs\"
exec unshare --pid --mount --uts --ipc --cgroup --fork --kill-child sh -ec \"$4\" sh \"$@\"
";

/// Mounts the Debian `$3` with a layer in memory at `$1/root`, and runs its systemd as the first process. In a container,
/// systemd reads kernel options from its arguments: these keep it to the one hierarchy of cgroups that is the host's own.
const BOOT: &str = "
root=$1/root
mkdir -p \"$1/layer\" \"$root\"
mount -t tmpfs tmpfs \"$1/layer\"
mkdir \"$1/layer/upper\" \"$1/layer/work\"
mount -t overlay -o lowerdir=\"$3\",upperdir=\"$1/layer/upper\",workdir=\"$1/layer/work\" overlay \"$root\"
mount -t proc proc \"$root/proc\"
mount -t sysfs sysfs \"$root/sys\"
mount --rbind /dev \"$root/dev\"
mount -t tmpfs tmpfs \"$root/run\"
mount -t tmpfs tmpfs \"$root/tmp\"
mount -t tmpfs tmpfs \"$root/sys/fs/cgroup\"
mkdir \"$root/sys/fs/cgroup/systemd\"
mount -t cgroup -o none,name=systemd cgroup \"$root/sys/fs/cgroup/systemd\"
chroot=$(command -v chroot)
exec env -i container=lxc MUSTER_TEST_RUN=\"$MUSTER_TEST_RUN\" \\
    \"$chroot\" \"$root\" /lib/systemd/systemd --system --unit=multi-user.target \\
    systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=1
";

/// Removes the empty cgroups below `$1`.
const REMOVE_CGROUPS: &str = "
mount --make-rprivate /
mount -t cgroup -o none,name=systemd cgroup \"$1/cgroup\"
find \"$1/cgroup/$2\" -depth -type d -exec rmdir {} + 2>/dev/null
";

/// Reports whether the test may boot hosts; if not, skips it.
pub fn can_boot(test: &str) -> bool {
    let tools =
        [("unshare", "util-linux"), ("nsenter", "util-linux"), ("mount", "mount"), ("debootstrap", "debootstrap")];
    skip::namespaces(test) && tools.iter().all(|(program, package)| skip::tool(test, program, package))
}

/// Returns the Debian that all hosts share, made if it does not exist.
fn debian() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("debian-with-systemd");
        if !path.exists() {
            // A run that ends early leaves only a temporary folder.
            let new = run::temp_dir();
            let tree = new.path().join("tree");
            packages::debootstrap(PACKAGES, &tree);
            packages::run(process::command("cp").arg("-a").arg(&tree).arg(path.with_extension(run::name())));
            fs::rename(path.with_extension(run::name()), &path).unwrap();
        }
        path
    })
}

/// Running host.
pub struct Booted {
    /// `unshare`, whose only child is systemd.
    parent: Child,
    /// Process ID of systemd outside the host.
    systemd: u32,
    cgroup: String,
    folder: TempDir,
}

impl Booted {
    /// Boots a host in this network namespace and waits until it is up.
    pub fn start(name: &str, namespace: &Namespace) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (folder, cgroup) = (run::temp_dir(), format!("{}-{}", run::name(), NEXT.fetch_add(1, Ordering::Relaxed)));
        let mut command = process::command("unshare");
        command.args(["--mount", "sh", "-ec", ENTER, "sh"]).arg(folder.path()).arg(&cgroup).arg(debian()).arg(BOOT);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let parent = namespace.enter(|| command.spawn().unwrap());
        let mut host = Self { parent, systemd: 0, cgroup, folder };
        host.systemd = poll(|| host.first_process().ok_or("systemd does not start"));
        host.output_of(&["hostname", name]);
        poll(|| {
            // `degraded`: a unit failed that has no meaning here.
            let state = text(&host.run(&["systemctl", "is-system-running"]).stdout);
            if ["running\n", "degraded\n"].contains(&state.as_str()) {
                Ok(())
            } else {
                Err(format!("the host is {state}"))
            }
        });
        host
    }

    /// Returns the process ID of systemd once it runs.
    fn first_process(&self) -> Option<u32> {
        let parent = self.parent.id().to_string();
        let pids =
            fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.into_iter().find(|pid: &u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let is_child = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)) == Some(&parent);
            let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            is_child && program.ends_with("systemd")
        })
    }

    /// Returns the path outside the host of an absolute path on it.
    pub fn path(&self, absolute: &str) -> PathBuf {
        Path::new("/proc").join(self.systemd.to_string()).join("root").join(absolute.trim_start_matches('/'))
    }

    /// Writes a file on the host; its folder is created.
    pub fn write(&self, absolute: &str, text: &str) {
        fs::create_dir_all(self.path(absolute).parent().unwrap()).unwrap();
        fs::write(self.path(absolute), text).unwrap();
    }

    /// Returns a command that runs on the host.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = process::command("nsenter");
        command.args(["-t", &self.systemd.to_string(), "-p", "-m", "-n", "-u", "-i", "-C", "-r", "-w"]).args(arguments);
        command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C");
        command
    }

    /// Runs a command on the host.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).finish()
    }

    /// Runs a command that must succeed and returns its output, including stderr.
    #[track_caller]
    pub fn output_of(&self, arguments: &[&str]) -> String {
        packages::run(&mut self.command(arguments))
    }

    /// Installs a package and returns the output of dpkg. Configuration files that exist are kept.
    #[track_caller]
    pub fn install(&self, package: &[u8]) -> String {
        fs::write(self.path("/tmp/package.deb"), package).unwrap();
        self.output_of(&["dpkg", "--install", "--force-confold", "/tmp/package.deb"])
    }

    /// Returns a property of the unit `muster.service`.
    #[track_caller]
    pub fn property(&self, name: &str) -> String {
        self.output_of(&["systemctl", "show", "--property", name, "--value", "muster.service"]).trim().to_owned()
    }

    /// Returns the log of the unit `muster.service`.
    pub fn journal(&self) -> String {
        text(&self.run(&["journalctl", "--unit", "muster", "--no-pager", "--output", "cat"]).stdout)
    }

    /// Shuts the host down and waits until all of its processes have ended.
    pub fn power_off(&mut self) {
        drop(self.run(&["systemctl", "poweroff"]));
        until("the host has ended", || self.parent.try_wait().unwrap().is_some());
    }
}

impl Drop for Booted {
    fn drop(&mut self) {
        let is_panicking = thread::panicking();
        if self.systemd != 0 && self.parent.try_wait().is_ok_and(|ended| ended.is_none()) {
            if is_panicking {
                eprintln!("the unit's log:\n{}", self.journal());
            }
            // Units that do not stop are ended with systemd: all processes of its PID namespace end.
            let _ = self.command(&["systemctl", "poweroff", "--force"]).output();
            holds_in_time(|| self.parent.try_wait().is_ok_and(|ended| ended.is_some()));
        }
        // Ends systemd too, by --kill-child.
        process::kill_now(&mut self.parent);
        let mut remove = process::command("unshare");
        remove.args(["--mount", "sh", "-ec", REMOVE_CGROUPS, "sh"]).arg(self.folder.path()).arg(&self.cgroup);
        // Processes may take a moment to leave their cgroups.
        holds_in_time(|| remove.output().is_ok_and(|output| output.status.success()));
    }
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}
