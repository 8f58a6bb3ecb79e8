//! Rules that the module tree does not make obvious, enforced on the sources.
//!
//! A module is **core** unless [`ADAPTERS`] or [`ROOTS`] list it. Core does no I/O, reads no clock, logs nothing. An adapter
//! connects one part of the outside world; adapters import core and their own group, never each other. Roots wire
//! adapters together. The constants below are the whole policy: a new adapter or exception is one line here.
//!
//! `architecture/source.rs` reads a Rust file, `architecture/imports.rs` finds which module imports which, and
//! `architecture/samples.rs` shows that each rule can fail.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "architecture/imports.rs"]
mod imports;
#[path = "architecture/samples.rs"]
mod samples;
#[path = "architecture/source.rs"]
mod source;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use imports::{Import, SourceTree, dependencies, is_within, path_back, read, siblings};
use source::{Source, What};

/// The layer of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layer {
    /// Values in, values out.
    Core,
    /// Connects the outside world, as part of this group.
    Adapter(&'static str),
    /// A small piece that several adapters share.
    Shared,
    /// Wires adapters together.
    Root,
}

use Layer::{Adapter, Core, Root, Shared};

/// Adapters with their groups. An entry covers all modules below it.
const ADAPTERS: &[(&str, &str)] = &[
    ("address_follower", "address_follower"),
    ("checks", "checks"),
    ("cli", "cli"),
    ("data_dir", "data_dir"),
    ("dns::collector", "dns"),
    ("dns::dynamic", "dns"),
    ("dns::publish", "dns"),
    ("dns::refresh", "dns"),
    ("dns::resolver", "dns"),
    ("dns::secondaries", "dns"),
    ("dns::server", "dns"),
    ("dns::socket", "dns"),
    ("dns::tls_client", "dns"),
    ("etcd", "etcd"),
    ("files::read", "files"),
    ("files::reload", "files"),
    ("files::watch", "files"),
    ("gossip::anti_entropy", "gossip"),
    ("gossip::link", "gossip"),
    ("gossip::command", "gossip"),
    ("gossip::key_rotation", "gossip"),
    ("gossip::node", "gossip"),
    ("gossip::rejected", "gossip"),
    ("gossip::seeds", "gossip"),
    ("gossip::transport", "gossip"),
    ("http", "http"),
    ("metrics::process", "metrics"),
    ("registry::request", "registry"),
    ("registry::task", "registry"),
    ("store::follow", "store"),
    ("store::node", "store"),
    ("store::peers", "store"),
    ("store::raft", "store"),
    ("store::request", "store"),
    ("store::sealed_stream", "store"),
];

/// Pieces that adapters of all groups may import.
const SHARED: &[&str] = &[
    "accept",
    "clock",
    "control",
    "files::access",
    "files::link_walk",
    "host_addresses",
    "inherited_fd",
    "log_limit",
    "service_manager",
    "tls",
];

/// Core modules inside adapters: pure rules that the adapter keeps beside its I/O.
const CORE_WITHIN_ADAPTERS: &[&str] = &[
    "address_follower::external",
    "address_follower::host",
    "address_follower::schedule",
    "cli::setup::error",
    "cli::setup::resolv_conf",
    "cli::setup::resolved",
    "dns::resolver::flights",
    "dns::resolver::upstreams",
];

/// Modules that wire adapters together.
const ROOTS: &[&str] = &["lib", "main", "daemon"];

/// Imports from an adapter into another group, with the reason.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("cli::agent", "daemon", "the command that starts the daemon"),
    ("cli::zone", "files::read", "included zone files, read by the agent's rules on links and sizes"),
    (
        "cli::validate",
        "files::read",
        "included zone files and trust anchors, read by the agent's rules on links and sizes",
    ),
    ("dns::publish", "data_dir", "the serial must be on disk before it is answered"),
    ("dns::dynamic", "store::follow", "the watch of the zones, which are keys of the store"),
    ("dns::dynamic", "store::request", "requests to the store, with a channel for the outcome"),
    ("etcd", "store::follow", "watches of the store that survive the loss of a voter"),
    ("dns::refresh", "data_dir", "copies of zones outlive a restart"),
    ("etcd", "store::request", "requests to the store, with a channel for the outcome"),
    ("http", "gossip::command", "commands to the node, with a channel for the outcome"),
    ("cli::store::recover", "store::node", "the command that recovers a store while no agent runs"),
    ("http", "dns::secondaries::request", "requests for NOTIFY, with a channel for the outcome"),
    ("http", "registry::request", "changes of the registry, with a channel for the outcome"),
    ("http", "store::request", "requests to the store, with a channel for the outcome"),
];

/// Dependencies that core may import: the parts in use do no I/O, read no clock and start no threads.
const CORE_CRATES: &[&str] = &[
    "bytes",
    "data_encoding",
    "fastrand",
    "foldhash",
    // Parses HCL.
    "hcl_edit",
    // Formats given points in time.
    "humantime",
    "imbl",
    "percent_encoding",
    // Encodes messages and snapshots of the store.
    "postcard",
    // Formats metrics.
    "prometheus_client",
    // Encodes messages of dnstap.
    "prost",
    "quick_cache",
    "regex_lite",
    // `aead` and `hmac` are deterministic; its random numbers are in NOT_IN_CORE.
    "ring",
    "saphyr_parser",
    // JSON schemas, derived beside `serde`.
    "schemars",
    "serde",
    "serde_json",
    "serde_yaml",
    "siphasher",
    "smallvec",
    "smol_str",
    "strsim",
    "subtle",
    "thiserror",
    "url",
    // Parses and prints ids; adapters make the random ones.
    "thiserror",
    "uuid",
];

/// Crates that a single module imports, so that replacing one changes that module only. Two schemas share prost.
const ONE_IMPORTER: &[(&str, &str)] = &[
    ("axum", "http"),
    ("chitchat", "gossip::anti_entropy"),
    ("clap", "cli"),
    ("clap_complete", "cli::completions_and_man"),
    ("clap_mangen", "cli::completions_and_man"),
    ("h2", "checks::http2"),
    ("hcl_edit", "import::hcl"),
    ("hickory_net", "dns::resolver::validation"),
    ("hickory_server", "dns::server::encrypted"),
    ("netlink_packet_core", "host_addresses::netlink"),
    ("netlink_packet_route", "host_addresses::netlink"),
    ("netlink_sys", "host_addresses::netlink"),
    ("notify", "files::watch"),
    ("openraft", "store::raft"),
    ("prometheus_client", "metrics::family"),
    ("prost", "dns::tap::protobuf"),
    ("prost", "etcd"),
    ("prost_reflect", "etcd"),
    ("raft_log", "store::raft::log"),
    ("rustls_native_certs", "tls::authorities"),
    ("saphyr_parser", "yaml::marks"),
    ("sd_notify", "service_manager"),
    ("serde_yaml", "yaml"),
    ("tonic", "etcd"),
    ("tonic_prost", "etcd"),
    ("zstd", "gossip::anti_entropy"),
];

/// Paths that core must not name, with exceptions below them.
const NOT_IN_CORE: &[(&str, &[&str])] = &[
    // Random numbers are an argument.
    ("ring::rand", &["SecureRandom"]),
    ("std::env", &[]),
    ("std::fs", &[]),
    ("std::io::stderr", &[]),
    ("std::io::stdin", &[]),
    ("std::io::stdout", &[]),
    ("std::net", &["AddrParseError", "IpAddr", "Ipv4Addr", "Ipv6Addr", "SocketAddr", "SocketAddrV4", "SocketAddrV6"]),
    ("std::os", &[]),
    ("std::process", &[]),
    ("std::thread", &[]),
    ("std::time", &["Duration", "TryFromFloatSecsError", "UNIX_EPOCH"]),
];

/// Core modules that may start threads: those only compute, and end before a function returns.
const THREADS: &[&str] = &["parallel"];

/// Modules that may contain `unsafe`: the program adopts descriptors by their numbers, and a benchmark compares an io_uring
/// path.
const UNSAFE: &[&str] = &["benches::udp_io::ring", "inherited_fd"];

/// Folders and files where dead code may be allowed: each test, and the benchmark of the start, uses a part of modules of others.
const DEAD_CODE: &[&str] = &["benches/start.rs", "tests/support/"];

/// Modules that may print.
const PRINTS: &[&str] = &["cli", "main"];

/// Maximum number of lines of a file without its tests.
const MAX_LINES: usize = 500;

// --- Rules -------------------------------------------------------------------------------------------------------

/// Core imports core, an adapter its own group and core, and no module imports a root.
fn wrong_way(tree: &SourceTree) -> Vec<String> {
    let mut wrong = vec![];
    for import in tree.imports() {
        let Import { from, to, .. } = &import;
        let (own, other) = (layer(from), layer(to));
        let allowed = match (own, other) {
            (Root, _) | (_, Core) | (Adapter(_) | Shared, Shared) => true,
            (Adapter(own), Adapter(other)) => own == other,
            (Core, Adapter(_) | Shared) | (Shared, Adapter(_)) | (_, Root) => false,
        };
        if !allowed
            && !EXCEPTIONS.iter().any(|(importer, imported, _)| is_within(from, importer) && is_within(to, imported))
        {
            let what = match own {
                Adapter(_) | Shared => "adapters meet in `daemon`: pass a value, a channel or a function from there",
                _ => "core takes values: pass in what an adapter reads",
            };
            wrong.push(format!("{}: `{from}` imports `{to}`; {what}", import.place()));
        }
    }
    wrong
}

/// Unused exceptions must be removed.
fn idle_exceptions(tree: &SourceTree) -> Vec<String> {
    let exists = |module: &str| tree.sources.iter().any(|source| is_within(&source.module, module));
    let used = |importer, imported| tree.imports().any(|i| is_within(&i.from, importer) && is_within(&i.to, imported));
    let idle = EXCEPTIONS
        .iter()
        .filter(|(importer, imported, _)| exists(importer) && exists(imported) && !used(importer, imported));
    idle.map(|(importer, imported, _)| {
        format!("`{importer}` no longer imports `{imported}`: remove the line from EXCEPTIONS")
    })
    .collect()
}

/// Core names no path that does I/O or reads a clock, and no crate that does either.
fn impure(tree: &SourceTree) -> Vec<String> {
    let mut wrong = vec![];
    for (source, seen) in tree.code() {
        if layer(&source.module) != Core {
            continue;
        }
        let What::Path(path) = &seen.what else { continue };
        let (Some(first), shown) = (path.first(), path.join("::")) else { continue };
        let place = format!("{}:{}", source.file, seen.line);
        let starts_threads = THREADS.contains(&source.module.as_str()) && shown.starts_with("std::thread");
        if is_forbidden_in_core(path) && !starts_threads {
            wrong.push(format!("{place}: core names `{shown}`; take its result as an argument"));
        } else if tree.crates.contains(first) && !CORE_CRATES.contains(&first.as_str()) {
            wrong.push(format!(
                "{place}: core names the crate `{first}`; move the code into an adapter or, if the crate does no I/O and \
                 reads no clock, add it to CORE_CRATES"
            ));
        }
    }
    wrong
}

/// A crate of [`ONE_IMPORTER`] is imported by that module only, in tests too.
fn second_importers(tree: &SourceTree) -> Vec<String> {
    let mut wrong = vec![];
    for (source, seen) in tree.seen() {
        let What::Path(path) = &seen.what else { continue };
        for (name, owner) in ONE_IMPORTER {
            // `main` is a crate of its own; it may call `cli` but not the parser.
            if path.first().is_some_and(|first| first == name) && !may_import(&source.module, name) {
                let place = format!("{}:{}", source.file, seen.line);
                wrong.push(format!(
                    "{place}: `{name}` may be imported by `{owner}` only; export what is needed from there"
                ));
            }
        }
    }
    wrong
}

/// Reports whether a module belongs to an importer of a crate of [`ONE_IMPORTER`].
fn may_import(module: &str, name: &str) -> bool {
    ONE_IMPORTER.iter().any(|(known, owner)| *known == name && is_within(module, owner))
}

/// Neither top-level modules nor the modules of one folder import each other in a cycle.
fn cycles(tree: &SourceTree) -> Vec<String> {
    let mut folders: BTreeMap<String, BTreeMap<String, BTreeMap<String, String>>> = BTreeMap::new();
    for import in tree.imports() {
        let Some((folder, from, to)) = siblings(&import.from, &import.to) else { continue };
        let edges = folders.entry(folder).or_default();
        edges.entry(from).or_default().entry(to).or_insert(import.place());
    }
    let mut found = BTreeSet::new();
    for edges in folders.values() {
        for start in edges.keys() {
            if let Some(path) = path_back(edges, start) {
                // Each member finds the cycle; only the first by name reports it.
                if path.iter().min() == Some(start) {
                    let steps: Vec<String> = path
                        .iter()
                        .zip(path.iter().cycle().skip(1))
                        .map(|(from, to)| format!("`{from}` imports `{to}` ({})", edges[from][to]))
                        .collect();
                    let what = "move the shared part into a module of its own";
                    found.insert(format!("a cycle: {}; {what}", steps.join(", ")));
                }
            }
        }
    }
    found.into_iter().collect()
}

/// Leftovers that no file may contain, tests included.
fn leftovers(tree: &SourceTree) -> Vec<String> {
    let mut wrong = vec![];
    for (source, seen) in tree.seen() {
        let what = match &seen.what {
            What::Macro(name) if matches!(name.as_str(), "todo" | "unimplemented") => {
                format!("`{name}!` is unfinished code")
            }
            What::Macro(name) if name == "dbg" => "`dbg!` is a debugging leftover".to_owned(),
            What::Attribute(text) if text == "ignore" || text.starts_with("ignore=") => {
                "an ignored test tests nothing: make it run, declare its needs with `need`, or delete it".to_owned()
            }
            What::Attribute(text) if silences_dead_code(text) => {
                if DEAD_CODE.iter().any(|folder| source.file.starts_with(folder)) {
                    continue;
                }
                "remove dead code instead of silencing the lint".to_owned()
            }
            What::Unsafe if !UNSAFE.iter().any(|module| is_within(&source.module, module)) => {
                "use a crate with a safe function instead of `unsafe`, or add the module to UNSAFE".to_owned()
            }
            _ => continue,
        };
        wrong.push(format!("{}:{}: {what}", source.file, seen.line));
    }
    wrong
}

/// Only commands print, and DNS never logs at error level.
fn wrong_voice(tree: &SourceTree) -> Vec<String> {
    let mut wrong = vec![];
    for (source, seen) in tree.code() {
        let what = match &seen.what {
            What::Macro(name) if matches!(name.as_str(), "print" | "println" | "eprint" | "eprintln") => {
                if PRINTS.iter().any(|module| is_within(&source.module, module)) {
                    continue;
                }
                format!("`{name}!` is for commands only: an adapter logs with `tracing`, core returns a value")
            }
            What::Macro(name) if name == "error" && is_within(&source.module, "dns") => {
                "an error-level log in `dns`: a client could cause it; use `debug!`, or `warn!` for faults that the operator can fix"
                    .to_owned()
            }
            What::Path(path) if path.ends_with(&["Level".into(), "ERROR".into()]) && is_within(&source.module, "dns") => {
                "the level ERROR in `dns`: a client could cause an error-level log".to_owned()
            }
            _ => continue,
        };
        wrong.push(format!("{}:{}: {what}", source.file, seen.line));
    }
    wrong
}

/// A file opens with its purpose and has a bounded length.
fn shapeless(tree: &SourceTree) -> Vec<String> {
    let mut wrong = vec![];
    for source in &tree.sources {
        let header = source.header();
        if !header.contains(['.', ':', ';']) || header.split_whitespace().count() < 3 {
            wrong.push(format!("{}:1: open with `//!` and a sentence on the purpose of the file", source.file));
        }
        let lines = source.code_lines();
        if lines > MAX_LINES {
            wrong.push(format!("{}: {lines} lines without tests, at most {MAX_LINES}: split it", source.file));
        }
    }
    wrong
}

/// Every dependency has a comment above it with its reason.
fn unexplained_dependencies(manifest: &str) -> Vec<String> {
    let lines: Vec<&str> = manifest.lines().collect();
    let explained = |at: usize| at > 0 && lines[at - 1].starts_with("# ");
    let wrong = dependencies(manifest).into_iter().filter(|(at, _)| !explained(*at));
    wrong.map(|(at, name)| format!("Cargo.toml:{}: add the reason for `{name}` above it", at + 1)).collect()
}

// --- Reading the constants ----------------------------------------------------------------------------------------------

/// The layer of a module.
fn layer(module: &str) -> Layer {
    let is_core = || CORE_WITHIN_ADAPTERS.iter().any(|core| is_within(module, core));
    if ROOTS.iter().any(|root| is_within(module, root)) {
        return Root;
    }
    if SHARED.iter().any(|shared| is_within(module, shared)) {
        return Shared;
    }
    match ADAPTERS.iter().find(|(adapter, _)| is_within(module, adapter)) {
        Some((_, group)) if !is_core() => Adapter(group),
        _ => Core,
    }
}

fn is_forbidden_in_core(path: &[String]) -> bool {
    let path = path.join("::").replacen("core::", "std::", 1);
    NOT_IN_CORE.iter().any(|(forbidden, allowed)| {
        let may = allowed.iter().any(|name| is_within(&path, &format!("{forbidden}::{name}")));
        // A glob imports everything below.
        let glob = path.strip_suffix("::*").is_some_and(|above| is_within(forbidden, above));
        glob || (is_within(&path, forbidden) && !may)
    })
}

fn silences_dead_code(attribute: &str) -> bool {
    let lints = attribute.strip_prefix("allow(").or_else(|| attribute.strip_prefix("expect("));
    lints.is_some_and(|lints| lints.contains("dead_code"))
}

// --- Tests ----------------------------------------------------------------------------------------------

fn manifest() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap()
}

fn tree() -> SourceTree {
    let tree = SourceTree::new(read("src"), &manifest());
    assert!(tree.sources.iter().any(|source| source.module == "dns::zone"), "the sources were not found");
    tree
}

#[track_caller]
fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}\n(the constants are in tests/architecture.rs)\n", wrong.join("\n"));
}

#[test]
fn modules_import_only_allowed_layers() {
    let tree = tree();
    assert!(tree.imports().count() > 50, "the imports were not found");
    assert_none(&wrong_way(&tree));
    assert_none(&idle_exceptions(&tree));
}

#[test]
fn core_does_no_io() {
    assert_none(&impure(&tree()));
}

#[test]
fn wrapped_crates_have_one_importer() {
    assert_none(&second_importers(&tree()));
}

#[test]
fn modules_form_no_cycles() {
    assert_none(&cycles(&tree()));
}

#[test]
fn sources_have_no_leftovers() {
    let folders = ["src", "tests", "fuzz", "benches", "examples"];
    let there = |folder: &&str| Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).is_dir();
    let sources = folders.into_iter().filter(there).flat_map(read).collect();
    assert_none(&leftovers(&SourceTree::new(sources, &manifest())));
}

#[test]
fn only_commands_print() {
    assert_none(&wrong_voice(&tree()));
}

#[test]
fn files_have_a_header_and_bounded_length() {
    assert_none(&shapeless(&tree()));
}

#[test]
fn every_dependency_has_a_reason() {
    let manifest = manifest();
    assert!(dependencies(&manifest).iter().any(|(_, name)| name == "tokio"), "the dependencies were not found");
    assert_none(&unexplained_dependencies(&manifest));
}
