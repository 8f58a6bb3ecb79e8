//! Runs every rule of `tests/architecture.rs` on small samples: violations to find, and valid code to accept.

use super::*;

const MANIFEST: &str = "[dependencies]\n# A.\ntokio = \"1\"\n# B.\ntracing = \"1\"\n# C.\nserde = \"1\"\n";

/// A source tree of these modules.
fn sample(modules: &[(&str, &str)]) -> SourceTree {
    let file = |module: &str| format!("src/{}.rs", module.replace("::", "/"));
    let sources = modules.iter().map(|(module, text)| Source::parse(&file(module), module, text).unwrap());
    SourceTree::new(sources.collect(), MANIFEST)
}

/// Modules, and the finding of a rule among them.
type Case<'c> = (&'c [(&'c str, &'c str)], Option<&'c str>);

/// Asserts the finding of a rule for each sample; `None`: none.
#[track_caller]
fn check(rule: fn(&SourceTree) -> Vec<String>, cases: &[Case<'_>]) {
    for (modules, expected) in cases {
        let found = rule(&sample(modules));
        match expected {
            Some(expected) => assert!(found.len() == 1 && found[0].contains(expected), "{modules:?}: {found:?}"),
            None => assert!(found.is_empty(), "{modules:?}: {found:?}"),
        }
    }
}

#[test]
fn forbidden_imports_are_found() {
    const UDP: (&str, &str) = ("dns::server::udp", "");
    const DAEMON: (&str, &str) = ("daemon", "");
    check(
        wrong_way,
        &[
            (
                &[("dns::engine", "use super::server::udp::serve;"), UDP],
                Some("src/dns/engine.rs:1: `dns::engine` imports `dns::server::udp`; core"),
            ),
            (&[("model", "fn f() { crate::daemon::run() }"), DAEMON], Some("`model` imports `daemon`")),
            (
                &[("checks::tcp", "\nuse crate::{model, dns::server::udp};"), UDP, ("model", "")],
                Some("src/checks/tcp.rs:2: `checks::tcp` imports `dns::server::udp`; adapters"),
            ),
            (&[("checks::tcp", "use super::super::daemon;"), DAEMON], Some("`checks::tcp` imports `daemon`")),
            (&[("dns", "pub use self::server::udp::serve;"), UDP], Some("`dns` imports `dns::server::udp`")),
            (&[("checks", "#[cfg(test)] mod tests { use crate::dns::server::udp; }"), UDP], None),
            (&[("checks", "#[cfg(test)] mod tests;"), ("checks::tests", "use crate::dns::server::udp;"), UDP], None),
            (&[("dns::server::tcp", "use super::udp;"), UDP], None),
            (&[("daemon", "use crate::dns::server::udp;"), UDP], None),
            (&[("cli::agent", "use crate::daemon;"), DAEMON], None),
            (&[("cli::validate", "use crate::daemon;"), DAEMON], Some("`cli::validate` imports `daemon`")),
        ],
    );
    let publish = |text| sample(&[("dns::publish", text), ("data_dir", "")]);
    assert!(idle_exceptions(&publish("use crate::data_dir;")).is_empty());
    assert!(idle_exceptions(&publish(""))[0].contains("`dns::publish` no longer imports `data_dir`"));
}

#[test]
fn io_in_core_is_found() {
    let core = |text| [("dns::engine", text)];
    for text in [
        "use std::fs;",
        "use std::{net::{IpAddr, UdpSocket}};",
        "use std::time;",
        "use std::time::*;",
        "use std::*;",
        "fn f() { std::time::Instant::now(); }",
        "use core::net::TcpStream;",
        "use std::env::var;",
        "fn f() { std::process::exit(1) }",
        "use std::io::{self, stdin};",
        "use tokio::sync::watch;",
        "fn f() { tracing::debug!(); }",
    ] {
        assert_eq!(impure(&sample(&core(text))).len(), 1, "{text}");
    }
    for text in [
        "use std::{net::{IpAddr, SocketAddr}, time::Duration, io, fmt::{self, Display}, path::Path};",
        "use std::net::IpAddr::*;",
        "#[cfg(test)] mod tests { use std::fs; }",
        "use serde::Deserialize;",
        "mod tokio_like { use super::tokio_like; }",
    ] {
        assert_eq!(impure(&sample(&core(text))), [""; 0], "{text}");
    }
    assert!(impure(&sample(&[("checks", "use std::fs; use tokio::net;")])).is_empty());
}

#[test]
fn a_second_importer_is_found() {
    check(
        second_importers,
        &[
            (
                &[("files::watch", "use notify::Watcher;"), ("files::watch::symlinks", "fn f(_: notify::Event) {}")],
                None,
            ),
            (
                &[("daemon", "use notify::Watcher;")],
                Some("src/daemon.rs:1: `notify` may be imported by `files::watch` only"),
            ),
            (&[("config", "fn f() { serde_yaml::from_str(s) }")], Some("`serde_yaml` may be imported by `yaml` only")),
        ],
    );
}

#[test]
fn cycles_are_found() {
    check(
        cycles,
        &[
            (
                &[("yaml", "use crate::model::A;"), ("model", "use crate::yaml::B;")],
                Some("a cycle: `model` imports `yaml` (src/model.rs:1), `yaml` imports `model` (src/yaml.rs:1)"),
            ),
            (
                &[
                    ("dns::a", "use super::b;"),
                    ("dns::b", "use super::c::d;"),
                    ("dns::c", ""),
                    ("dns::c::d", "use super::super::a;"),
                ],
                Some("`dns::a` imports `dns::b`"),
            ),
            // A folder and its modules count as one, and tests may import anything.
            (&[("yaml", "use marks::M; mod marks;"), ("yaml::marks", "use super::F;")], None),
            (&[("yaml", "use crate::model::A;"), ("model", "#[cfg(test)] mod tests { use crate::yaml::B; }")], None),
            (&[("a", "use crate::b;"), ("b", "use crate::c;"), ("c", "")], None),
        ],
    );
}

#[test]
fn leftovers_are_found() {
    for text in [
        "fn f() { todo!() }",
        "fn f() { unimplemented!(\"x\") }",
        "#[cfg(test)] mod tests { fn f() { dbg!(1); } }",
        "#[test] #[ignore] fn f() {}",
        "#[test] #[ignore = \"slow\"] fn f() {}",
        "#![allow(dead_code)]",
        "#[expect(unused, dead_code)] fn f() {}",
        "fn f() { unsafe { g() } }",
    ] {
        assert_eq!(leftovers(&sample(&[("model", text)])).len(), 1, "{text}");
    }
    let fine = "#![deny(unsafe_code)] /* todo!() */ #[warn(dead_code)] fn ignore() { let dbg = \"todo!()\"; }";
    assert_eq!(leftovers(&sample(&[("model", fine)])), [""; 0]);
}

#[test]
fn misplaced_output_is_found() {
    check(
        wrong_voice,
        &[
            (&[("cli::validate", "fn f() { println!(); }"), ("checks", "fn f() { error!(\"own fault\"); }")], None),
            (&[("checks", "fn f() { eprintln!(); }")], Some("`eprintln!` is for commands only")),
            (&[("dns::tcp", "fn f() { error!(%client, \"bad\"); }")], Some("src/dns/tcp.rs:1: an error-level log")),
            (&[("dns::tcp", "fn f() { tracing::error!(\"bad\"); }")], Some("an error-level log")),
            (&[("dns::udp", "fn f() { event!(tracing::Level::ERROR, x); }")], Some("the level ERROR")),
            (&[("dns::udp", "#[cfg(test)] mod tests { fn f() { println!(); error!(); } }")], None),
        ],
    );
}

#[test]
fn headless_and_long_files_are_found() {
    let long = format!("//! A header.\n{}", "fn f() {}\n".repeat(MAX_LINES));
    let long_tests =
        format!("//! What a file is for.\n#[cfg(test)]\nmod tests {{\n{}}}\n", "fn f() {}\n".repeat(MAX_LINES));
    check(
        shapeless,
        &[
            (&[("model", "//! What a file is for.\nfn f() {}")], None),
            (&[("model", &long_tests)], None),
            (&[("model", "fn f() {}")], Some("src/model.rs:1: open with `//!`")),
            (&[("model", "//! types for now\nfn f() {}")], Some("open with `//!`")),
            (&[("model", &long.replace("A header", "A longer header"))], Some("501 lines without tests")),
        ],
    );
}

#[test]
fn dependencies_without_a_reason_are_found() {
    let bad = "[package]\nname = \"x\"\n[dependencies]\n# Why.\na = \"1\"\nb = { version = \"1\", features = [\n  \"x\",\n] }\n[dev-dependencies.c]\nversion = \"1\"\n[lints.rust]\nd = \"warn\"\n";
    let found = unexplained_dependencies(bad);
    assert_eq!(
        found,
        ["Cargo.toml:6: add the reason for `b` above it", "Cargo.toml:9: add the reason for `c` above it"]
    );
}
