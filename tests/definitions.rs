//! Problems across several service files.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{collections::BTreeSet, net::IpAddr, path::Path};

use muster::{
    diagnostic::Diagnostic,
    files::{
        definitions::{merge, service_at},
        service_file::{Defaults, Located, parse},
    },
    model::{
        alias_domain::NameScheme,
        name::{Label, Name},
        registered_name::RegisteredName,
    },
};

fn read(path: &str, text: &str) -> Vec<Located> {
    let node = Label::parse("host-a").unwrap();
    let address = [IpAddr::from([10, 0, 0, 7])];
    parse(Path::new(path), text.as_bytes(), &Defaults { node: &node, addresses: &address, allow_exec: true })
        .unwrap()
        .entries
}

/// Names and texts.
type Files = Vec<(&'static str, String)>;

/// Merges files; returns the defined keys and the problems.
fn merged(files: &[(&str, &str)]) -> (String, String) {
    let files: Vec<_> = files.iter().map(|(path, text)| (Path::new(path), read(path, text))).collect();
    let (definitions, problems) = merge(files.iter().map(|(path, entries)| (*path, entries.as_slice())));
    let keys: Vec<String> = definitions.keys().map(ToString::to_string).collect();
    let problems: Vec<String> = problems.iter().map(Diagnostic::to_string).collect();
    (keys.join(" "), problems.join("\n"))
}

#[test]
fn problems_across_files_are_reported() {
    let service = |name: &str, rest: &str| format!("service: {name}\n{rest}");
    let alias = |name: &str, to: &str| format!("service: {name}\nchecks: [{{alias: {to}}}]\n");
    let cycle = "alias checks form a cycle";
    let hint = "(no service in the cycle can become healthy first)";
    let cases: [(&str, Files, &str, String); 10] = [
        ("nothing", vec![], "", String::new()),
        (
            "different instances",
            vec![("a", service("web", "")), ("b", service("web", "id: two")), ("c", service("db", ""))],
            "db/db-host-a web/two web/web-host-a",
            String::new(),
        ),
        (
            "the first file by name wins a duplicate instance",
            vec![("b", service("web", "port: 1")), ("a", format!("# first\n{}", service("WEB", "")))],
            "web/web-host-a",
            "b:1:1: the instance `web/web-host-a` is already defined at a:2:1 (give each instance its own `id`)"
                .to_owned(),
        ),
        (
            "an alias of an undefined service",
            vec![("a", alias("web", "db"))],
            "web/web-host-a",
            "a:1:1: warning: the check `alias: db` names a service that no file defines (the check is critical until the service is defined)".to_owned(),
        ),
        (
            "an alias of an undefined instance, and of ids that files have",
            vec![
                ("a", "service: web\nchecks: [{alias: {id: db-9}}, {alias: {id: db-1}}, {alias: {id: db}}]\n".to_owned()),
                ("b", "service: db\nid: db-1\n".to_owned()),
            ],
            "db/db-1 web/web-host-a",
            "a:1:1: warning: the check `alias: {id: db-9}` names an instance that no file defines (the check is critical until the instance is defined or registered)".to_owned(),
        ),
        (
            "a chain of aliases",
            vec![("a", alias("a", "b")), ("b", alias("b", "c")), ("c", service("c", ""))],
            "a/a-host-a b/b-host-a c/c-host-a",
            String::new(),
        ),
        (
            "a cycle of two, and an alias of it",
            vec![("a", alias("a", "b")), ("b", alias("b", "c")), ("c", alias("c", "b"))],
            "a/a-host-a b/b-host-a c/c-host-a",
            format!("b:1:1: {cycle}: `b` → `c` → `b` {hint}"),
        ),
        (
            "two cycles",
            vec![("1", alias("a", "b")), ("2", alias("d", "c")), ("3", alias("c", "d")), ("4", alias("b", "a"))],
            "a/a-host-a b/b-host-a c/c-host-a d/d-host-a",
            format!("1:1:1: {cycle}: `a` → `b` → `a` {hint}\n2:1:1: {cycle}: `d` → `c` → `d` {hint}"),
        ),
        (
            "a cycle with another alias",
            vec![("a", "service: a\nchecks: [{alias: b}, {alias: c}]\n".to_owned()), ("b", alias("b", "a")), ("c", service("c", ""))],
            "a/a-host-a b/b-host-a c/c-host-a",
            format!("a:1:1: {cycle}: `a` → `b` → `a` {hint}"),
        ),
        (
            "a tag that is another instance's id",
            vec![("a", service("web", "tags: [Two, three]")), ("b", service("web", "id: two")), ("c", service("db", "id: three"))],
            "db/three web/two web/web-host-a",
            "a:1:1: warning: the tag `Two` is not reachable by name: another instance of the service has it as its id (choose another tag or `id`)".to_owned(),
        ),
    ];
    for (name, files, keys, problems) in cases {
        let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
        assert_eq!(merged(&files), (keys.to_owned(), problems), "{name}");
    }
}

#[test]
fn long_cycle_is_found_without_recursion_and_abbreviated() {
    let count = 20_000;
    let text: String =
        (0..count).map(|n| format!("- {{service: s{n}, checks: {{alias: s{}}}}}\n", (n + 1) % count)).collect();
    let files: Vec<_> = text
        .lines()
        .collect::<Vec<_>>()
        .chunks(5000)
        .enumerate()
        .map(|(n, lines)| (format!("{n}"), format!("services:\n{}\n", lines.join("\n"))))
        .collect();
    let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let (_, problems) = merged(&files);
    let shown: Vec<String> = (0..10).map(|n| format!("`s{n}`")).collect();
    assert!(problems.starts_with(&format!("0:2:4: alias checks form a cycle: {} → … → `s0` (", shown.join(" → "))));
    assert_eq!(problems.lines().count(), 1);
}

#[test]
fn static_names_that_conflict_with_services_are_found() {
    let services: BTreeSet<RegisteredName> = ["web", "db"].map(|text| RegisteredName::parse(text).unwrap()).into();
    let zone = Name::parse("service.local").unwrap();
    let cases = [
        ("service.local", None),
        ("web.service.local", Some("web")),
        ("WEB.service.local", Some("web")),
        ("a.web.service.local", Some("web")),
        ("_http._tcp.web.service.local", Some("web")),
        ("_web._tcp.service.local", Some("web")),
        ("_web._v2.service.local", Some("web")),
        ("_tcp.service.local", None),
        ("_mail._tcp.service.local", None),
        ("mail.service.local", None),
        ("web.mail.service.local", None),
        ("*.service.local", None),
        ("web.local", None),
        ("web", None),
    ];
    for (owner, expected) in cases {
        let found = service_at(&Name::parse(owner).unwrap(), &zone, NameScheme::Muster, &services);
        assert_eq!(found.map(RegisteredName::as_str), expected, "{owner}");
    }
}
