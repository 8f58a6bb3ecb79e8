//! The rules of the house, enforced: who may import whom, and what may stand in a file at all.
//!
//! Three layers. **Core** says what things are and what follows from them; it does no I/O, reads no clock, logs
//! nothing. An **adapter** brings one part of the outside world in; adapters import core and never each other. The
//! **root** wires adapters together. The tables below are the whole policy: a new module or a new exception is one line
//! here, with its reason.
//!
//! `architecture/house.rs` says who imports whom, from what `architecture/scan.rs` reads; `architecture/sketches.rs`
//! shows that each rule can fail.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "architecture/house.rs"]
mod house;
#[path = "architecture/scan.rs"]
mod scan;
#[path = "architecture/sketches.rs"]
mod sketches;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use house::{House, Import, dependencies, is_within, read, siblings, way_back};
use scan::{Source, What};

/// Where a module belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layer {
    /// Pure: values in, values out.
    Core,
    /// Touches the outside world, as part of the group named.
    Adapter(&'static str),
    /// Wires adapters together.
    Root,
    /// Core itself, with children of several layers: each has its own line.
    Mixed,
}

use Layer::{Adapter, Core, Mixed, Root};

/// Every module's layer. A line counts for all modules below, unless a longer line says otherwise.
const LAYERS: &[(&str, Layer)] = &[
    ("lib", Root),
    ("main", Root),
    ("daemon", Root),
    ("api", Core),
    ("metrics", Core),
    ("metrics::process", Adapter("metrics")),
    ("model", Core),
    ("diagnostic", Core),
    ("config", Core),
    ("yaml", Core),
    ("files", Mixed),
    ("files::check", Core),
    ("files::contents", Core),
    ("files::definitions", Core),
    ("files::last_good", Core),
    ("files::service_file", Core),
    ("files::services", Core),
    ("files::tokens", Core),
    ("files::zone_file", Core),
    ("files::zones", Core),
    ("files::read", Adapter("files")),
    ("files::reload", Adapter("files")),
    ("files::watch", Adapter("files")),
    ("checks", Adapter("checks")),
    ("dns", Mixed),
    ("dns::access", Core),
    ("dns::answer", Core),
    ("dns::assemble", Core),
    ("dns::cache", Core),
    ("dns::code", Core),
    ("dns::cookie", Core),
    ("dns::echo", Core),
    ("dns::engine", Core),
    ("dns::forward", Core),
    ("dns::limit", Core),
    ("dns::local", Core),
    ("dns::lookup", Core),
    ("dns::order", Core),
    ("dns::question", Core),
    ("dns::recursion", Core),
    ("dns::reply", Core),
    ("dns::server", Core),
    ("dns::resolver", Adapter("dns")),
    ("dns::resolver::upstream", Core),
    ("dns::reverse", Core),
    ("dns::serial", Core),
    ("dns::table", Core),
    ("dns::accept", Adapter("dns")),
    ("dns::clients", Adapter("dns")),
    ("dns::publish", Adapter("dns")),
    ("dns::socket", Adapter("dns")),
    ("dns::tcp", Adapter("dns")),
    ("dns::udp", Adapter("dns")),
    ("dns::encrypted", Adapter("dns")),
    ("data_dir", Adapter("data_dir")),
    ("registry", Mixed),
    ("registry::failure", Core),
    ("registry::registration", Core),
    ("registry::state", Core),
    ("registry::task", Adapter("registry")),
    ("gossip", Mixed),
    ("gossip::keyring", Core),
    ("gossip::liveness", Core),
    ("gossip::message", Core),
    ("gossip::record", Core),
    ("gossip::replica", Core),
    ("gossip::seal", Core),
    ("gossip::cluster", Adapter("gossip")),
    ("gossip::join", Adapter("gossip")),
    ("gossip::link", Adapter("gossip")),
    ("gossip::node", Adapter("gossip")),
    ("gossip::rejected", Adapter("gossip")),
    ("gossip::rotation", Adapter("gossip")),
    ("gossip::wire", Adapter("gossip")),
    ("http", Adapter("http")),
    ("cli", Adapter("cli")),
    ("cli::setup::failure", Core),
    ("cli::setup::resolv_conf", Core),
    ("cli::setup::resolved", Core),
];

/// Imports against the layers: who, whom, why.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("cli::agent", "daemon", "the command that starts the daemon"),
    ("cli::tls", "checks", "which authorities this host trusts is read in one place"),
    ("dns::publish", "data_dir", "the serial must be on disk before it is answered"),
];

/// The dependencies that core may import: no I/O, no clock, no threads in what we use of them.
const CORE_CRATES: &[&str] = &[
    "data_encoding",
    "fastrand",
    "foldhash",
    // Points in time as text: of those that it is given.
    "humantime",
    "imbl",
    "percent_encoding",
    // Text out of numbers.
    "prometheus_client",
    "quick_cache",
    "regex_lite",
    // `aead` and `hmac`: the same octets in, the same octets out. Its random numbers are in NOT_IN_CORE.
    "ring",
    "saphyr_parser",
    // What shapes look like, derived beside `serde`.
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
    // Reading and writing ids: the random ones are made by adapters.
    "uuid",
];

/// Crates that one module alone knows, so that replacing one is a change of that module.
const ONE_IMPORTER: &[(&str, &str)] = &[
    ("axum", "http"),
    ("chitchat", "gossip::cluster"),
    ("clap", "cli"),
    ("clap_complete", "cli::pages"),
    ("clap_mangen", "cli::pages"),
    ("h2", "checks::grpc"),
    ("hickory_server", "dns::encrypted"),
    ("notify", "files::watch"),
    ("prometheus_client", "metrics::family"),
    ("rustls_native_certs", "checks::tls"),
    ("saphyr_parser", "yaml::marks"),
    ("sd_notify", "cli::agent"),
    ("serde_yaml", "yaml"),
];

/// What core may not name of the standard library and of its crates, and what of that it may all the same.
const NOT_IN_CORE: &[(&str, &[&str])] = &[
    ("ring::rand", &[]),
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

/// The modules that may hold `unsafe`. In the product there is none: the one is a road that a benchmark compares with ours.
const UNSAFE: &[&str] = &["benches::roads::ring"];

/// Where dead code may be silenced: each test takes from there what it needs.
const DEAD_CODE: &[&str] = &["tests/support/"];

/// Where `println!` and its like may stand: what a command prints is its result.
const PRINTS: &[&str] = &["cli", "main"];

/// Lines of a file, tests aside. What is longer is two things.
const MAX_LINES: usize = 700;

// --- The rules -------------------------------------------------------------------------------------------------------

/// Every module has a line in [`LAYERS`].
fn unclassified(house: &House) -> Vec<String> {
    let lost = house.sources.iter().filter(|source| layer(&source.module).is_none());
    lost.map(|source| format!("{}: classify `{}` in LAYERS", source.file, source.module)).collect()
}

/// Core imports core, an adapter its own group and core; nobody imports the root.
fn wrong_way(house: &House) -> Vec<String> {
    let mut wrong = vec![];
    for import in house.imports() {
        let Import { from, to, .. } = &import;
        let (Some(own), Some(other)) = (layer(from), layer(to)) else { continue };
        let allowed = match (own, other) {
            (Root, _) | (_, Core | Mixed) => true,
            (Adapter(own), Adapter(other)) => own == other,
            (Core | Mixed, Adapter(_)) | (_, Root) => false,
        };
        if !allowed && !EXCEPTIONS.iter().any(|(who, whom, _)| is_within(from, who) && is_within(to, whom)) {
            let what = match own {
                Adapter(_) => "adapters meet in `daemon` only: pass a value, a channel or a function in from there",
                _ => "core takes values: let an adapter bring in what is needed",
            };
            wrong.push(format!("{}: `{from}` imports `{to}`; {what}", import.place()));
        }
    }
    wrong
}

/// An exception that nobody needs any more goes.
fn idle_exceptions(house: &House) -> Vec<String> {
    let exists = |module: &str| house.sources.iter().any(|source| is_within(&source.module, module));
    let used = |who, whom| house.imports().any(|i| is_within(&i.from, who) && is_within(&i.to, whom));
    let idle = EXCEPTIONS.iter().filter(|(who, whom, _)| exists(who) && exists(whom) && !used(who, whom));
    idle.map(|(who, whom, _)| format!("`{who}` no longer imports `{whom}`: take the line out of EXCEPTIONS")).collect()
}

/// Core names nothing of the standard library that does I/O or reads a clock, and only crates that do neither.
fn impure(house: &House) -> Vec<String> {
    let mut wrong = vec![];
    for (source, seen) in house.code() {
        if !matches!(layer(&source.module), Some(Core | Mixed)) {
            continue;
        }
        let What::Path(path) = &seen.what else { continue };
        let (Some(first), shown) = (path.first(), path.join("::")) else { continue };
        let place = format!("{}:{}", source.file, seen.line);
        if is_forbidden_in_core(path) {
            wrong.push(format!("{place}: core names `{shown}`; take what it yields as an argument"));
        } else if house.crates.contains(first) && !CORE_CRATES.contains(&first.as_str()) {
            wrong.push(format!(
                "{place}: core names the crate `{first}`; move the code into an adapter or, if the crate does no I/O and \
                 reads no clock, add it to CORE_CRATES"
            ));
        }
    }
    wrong
}

/// A crate of [`ONE_IMPORTER`] is imported there and nowhere else, in tests too.
fn second_importers(house: &House) -> Vec<String> {
    let mut wrong = vec![];
    for (source, seen) in house.seen() {
        let What::Path(path) = &seen.what else { continue };
        for (name, owner) in ONE_IMPORTER {
            // `main` is a crate of its own and may call what `cli` shows, but the parser is `cli`'s.
            if path.first().is_some_and(|first| first == name) && !is_within(&source.module, owner) {
                let place = format!("{}:{}", source.file, seen.line);
                wrong.push(format!("{place}: `{name}` is known to `{owner}` alone; have it show what is needed"));
            }
        }
    }
    wrong
}

/// No two modules import each other, directly or around a corner: top-level modules, and the modules of one folder.
fn cycles(house: &House) -> Vec<String> {
    let mut folders: BTreeMap<String, BTreeMap<String, BTreeMap<String, String>>> = BTreeMap::new();
    for import in house.imports() {
        let Some((folder, from, to)) = siblings(&import.from, &import.to) else { continue };
        let edges = folders.entry(folder).or_default();
        edges.entry(from).or_default().entry(to).or_insert(import.place());
    }
    let mut found = BTreeSet::new();
    for edges in folders.values() {
        for start in edges.keys() {
            if let Some(path) = way_back(edges, start) {
                // One cycle is found from each of its members: only the first by name tells.
                if path.iter().min() == Some(start) {
                    let steps: Vec<String> = path
                        .iter()
                        .zip(path.iter().cycle().skip(1))
                        .map(|(from, to)| format!("`{from}` imports `{to}` ({})", edges[from][to]))
                        .collect();
                    let what = "move what both need into a module of its own";
                    found.insert(format!("a cycle: {}; {what}", steps.join(", ")));
                }
            }
        }
    }
    found.into_iter().collect()
}

/// What may not be left in a file, in tests neither.
fn leftovers(house: &House) -> Vec<String> {
    let mut wrong = vec![];
    for (source, seen) in house.seen() {
        let what = match &seen.what {
            What::Macro(name) if matches!(name.as_str(), "todo" | "unimplemented") => {
                format!("`{name}!` is a promise; write it or leave it out")
            }
            What::Macro(name) if name == "dbg" => "`dbg!` was left behind".to_owned(),
            What::Attribute(text) if text == "ignore" || text.starts_with("ignore=") => {
                "an ignored test tests nothing; make it run, say what it needs with `need`, or delete it".to_owned()
            }
            What::Attribute(text) if silences_dead_code(text) => {
                if DEAD_CODE.iter().any(|folder| source.file.starts_with(folder)) {
                    continue;
                }
                "dead code goes, it is not silenced".to_owned()
            }
            What::Unsafe if !UNSAFE.iter().any(|module| is_within(&source.module, module)) => {
                "`unsafe` has no place here; a crate with a safe function does, or see UNSAFE".to_owned()
            }
            _ => continue,
        };
        wrong.push(format!("{}:{}: {what}", source.file, seen.line));
    }
    wrong
}

/// Only commands print; nothing that a client sent is an error of ours.
fn wrong_voice(house: &House) -> Vec<String> {
    let mut wrong = vec![];
    for (source, seen) in house.code() {
        let what = match &seen.what {
            What::Macro(name) if matches!(name.as_str(), "print" | "println" | "eprint" | "eprintln") => {
                if PRINTS.iter().any(|module| is_within(&source.module, module)) {
                    continue;
                }
                format!("`{name}!` stands in commands only; an adapter logs with `tracing`, core returns a value")
            }
            What::Macro(name) if name == "error" && is_within(&source.module, "dns") => {
                "an error-level log in `dns`: no client may cause one, so `debug!`, or `warn!` for what the operator can mend"
                    .to_owned()
            }
            What::Path(path) if path.ends_with(&["Level".into(), "ERROR".into()]) && is_within(&source.module, "dns") => {
                "the level ERROR in `dns`: no client may cause an error-level log".to_owned()
            }
            _ => continue,
        };
        wrong.push(format!("{}:{}: {what}", source.file, seen.line));
    }
    wrong
}

/// A file says what it is for, and is about one thing.
fn shapeless(house: &House) -> Vec<String> {
    let mut wrong = vec![];
    for source in &house.sources {
        let header = source.header();
        if !header.contains(['.', ':', ';']) || header.split_whitespace().count() < 3 {
            wrong.push(format!("{}:1: open with `//!` and a sentence that says why the file exists", source.file));
        }
        let lines = source.code_lines();
        if lines > MAX_LINES {
            wrong.push(format!("{}: {lines} lines without tests, at most {MAX_LINES}: make it two", source.file));
        }
    }
    wrong
}

/// Every dependency has a comment above it that says why it is there.
fn unexplained_dependencies(manifest: &str) -> Vec<String> {
    let lines: Vec<&str> = manifest.lines().collect();
    let explained = |at: usize| at > 0 && lines[at - 1].starts_with("# ");
    let wrong = dependencies(manifest).into_iter().filter(|(at, _)| !explained(*at));
    wrong.map(|(at, name)| format!("Cargo.toml:{}: say above `{name}` why it is there", at + 1)).collect()
}

// --- Reading the tables ----------------------------------------------------------------------------------------------

/// The layer of the longest line of [`LAYERS`] that fits; `None` for a child of a mixed module without its own line.
fn layer(module: &str) -> Option<Layer> {
    let fitting = LAYERS.iter().filter(|(prefix, _)| is_within(module, prefix));
    let (prefix, layer) = fitting.max_by_key(|(prefix, _)| prefix.len())?;
    (*layer != Mixed || *prefix == module).then_some(*layer)
}

fn is_forbidden_in_core(path: &[String]) -> bool {
    let path = path.join("::").replacen("core::", "std::", 1);
    NOT_IN_CORE.iter().any(|(forbidden, allowed)| {
        let may = allowed.iter().any(|name| is_within(&path, &format!("{forbidden}::{name}")));
        // A glob takes all that stands below.
        let glob = path.strip_suffix("::*").is_some_and(|above| is_within(forbidden, above));
        glob || (is_within(&path, forbidden) && !may)
    })
}

fn silences_dead_code(attribute: &str) -> bool {
    let lints = attribute.strip_prefix("allow(").or_else(|| attribute.strip_prefix("expect("));
    lints.is_some_and(|lints| lints.contains("dead_code"))
}

// --- The house as it is ----------------------------------------------------------------------------------------------

fn manifest() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap()
}

fn house() -> House {
    let house = House::new(read("src"), &manifest());
    assert!(house.sources.iter().any(|source| source.module == "dns::table"), "the sources were not found");
    house
}

#[track_caller]
fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}\n(the tables are in tests/architecture.rs)\n", wrong.join("\n"));
}

#[test]
fn every_module_has_a_layer() {
    assert_none(&unclassified(&house()));
}

#[test]
fn imports_go_with_the_layers() {
    let house = house();
    assert!(house.imports().count() > 50, "the imports were not found");
    assert_none(&wrong_way(&house));
    assert_none(&idle_exceptions(&house));
}

#[test]
fn core_is_pure() {
    assert_none(&impure(&house()));
}

#[test]
fn some_crates_have_one_importer() {
    assert_none(&second_importers(&house()));
}

#[test]
fn modules_form_no_cycles() {
    assert_none(&cycles(&house()));
}

#[test]
fn nothing_is_left_behind() {
    let folders = ["src", "tests", "fuzz", "benches", "examples"];
    let there = |folder: &&str| Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).is_dir();
    let sources = folders.into_iter().filter(there).flat_map(read).collect();
    assert_none(&leftovers(&House::new(sources, &manifest())));
}

#[test]
fn everything_speaks_in_its_place() {
    assert_none(&wrong_voice(&house()));
}

#[test]
fn files_have_a_header_and_a_bounded_length() {
    assert_none(&shapeless(&house()));
}

#[test]
fn every_dependency_has_its_reason() {
    let manifest = manifest();
    assert!(dependencies(&manifest).iter().any(|(_, name)| name == "tokio"), "the dependencies were not found");
    assert_none(&unexplained_dependencies(&manifest));
}
