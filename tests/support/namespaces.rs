//! Network namespaces, veth pairs between them, and nftables rules that drop packets. A namespace is removed on drop,
//! also after a panic; those of a killed run are removed by the next run. Namespaces are isolated, so all may use the
//! same addresses.

use std::{
    fmt::Write as _,
    fs::File,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use nix::sched::{CloneFlags, setns};

use super::{
    process::{self, Finish},
    run,
};

/// Network namespace, removed on drop.
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Creates a namespace in which only the loopback interface is up.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{}-{}", run::name(), NEXT.fetch_add(1, Ordering::Relaxed));
        ip(&format!("netns add {name}"));
        let namespace = Self { name };
        ip(&format!("-n {} link set lo up", namespace.name));
        namespace
    }

    /// Returns its name for `ip`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` in the namespace, on a thread. Sockets and processes of `work` stay in the namespace.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let work = || {
            join(&self.name);
            work()
        };
        thread::scope(|scope| scope.spawn(work).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Connects two namespaces with a veth pair whose ends have these names and are up.
    pub fn connect(&self, end: &str, other: &Self, other_end: &str) {
        let (here, there) = (&self.name, &other.name);
        ip(&format!("link add {end} netns {here} type veth peer name {other_end} netns {there}"));
        ip(&format!("-n {here} link set {end} up"));
        ip(&format!("-n {there} link set {other_end} up"));
    }

    /// Drops incoming packets that match one of these nft expressions; replaces earlier rules.
    pub fn drop_incoming(&self, matches: &[&str]) {
        self.drop_at("input", "filter", matches);
    }

    /// Drops packets at a hook; `priority` decides whether before or after reassembly of fragments.
    pub fn drop_at(&self, hook: &str, priority: &str, matches: &[&str]) {
        let mut rules = String::new();
        for expression in matches {
            let _ = writeln!(rules, "    {expression} drop");
        }
        let table = format!("inet {hook}");
        self.nft(&format!(
            "table {table}\ndelete table {table}\ntable {table} {{\n  chain {hook} {{\n    type filter hook {hook} \
             priority {priority};\n{rules}  }}\n}}\n"
        ));
    }

    fn nft(&self, script: &str) {
        self.enter(|| succeed("nft", "-f -", script));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // An error here must not hide the failure of the test.
        let _ = process::command("ip").args(["netns", "del", &self.name]).status();
    }
}

/// Moves the calling thread into a namespace, with all sockets and processes that it creates.
pub fn join(name: &str) {
    let file = File::open(Path::new("/run/netns").join(name)).unwrap();
    setns(file, CloneFlags::CLONE_NEWNET).unwrap();
}

/// Runs a program that must succeed.
fn succeed(program: &str, arguments: &str, input: &str) {
    let output = process::command(program).args(arguments.split_whitespace()).finish_with(input);
    assert!(output.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs `ip` with these arguments.
pub fn ip(arguments: &str) {
    succeed("ip", arguments, "");
}
