//! What only several service files together can show.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{collections::BTreeSet, net::IpAddr, path::Path};

use muster::{
    diagnostic::Diagnostic,
    files::{
        definitions::{merge, service_at},
        service_file::{Defaults, Located, parse},
    },
    model::name::{Label, Name},
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

/// The keys that stay, and the problems.
fn merged(files: &[(&str, &str)]) -> (String, String) {
    let files: Vec<_> = files.iter().map(|(path, text)| (Path::new(path), read(path, text))).collect();
    let (definitions, problems) = merge(files.iter().map(|(path, entries)| (*path, entries.as_slice())));
    let keys: Vec<String> = definitions.keys().map(ToString::to_string).collect();
    let problems: Vec<String> = problems.iter().map(Diagnostic::to_string).collect();
    (keys.join(" "), problems.join("\n"))
}

#[test]
fn files_together_have_problems_that_none_has_alone() {
    let service = |name: &str, rest: &str| format!("service: {name}\n{rest}");
    let alias = |name: &str, to: &str| format!("service: {name}\nchecks: [{{alias: {to}}}]\n");
    let circle = "alias checks go in a circle";
    let hint = "(no service in it can become healthy before the others)";
    let cases: [(&str, Files, &str, String); 9] = [
        ("nothing", vec![], "", String::new()),
        (
            "different instances",
            vec![("a", service("web", "")), ("b", service("web", "id: two")), ("c", service("db", ""))],
            "db/db-host-a web/two web/web-host-a",
            String::new(),
        ),
        (
            "the first file by name keeps an instance, whichever was read first",
            vec![("b", service("web", "port: 1")), ("a", format!("# first\n{}", service("WEB", "")))],
            "web/web-host-a",
            "b:1:1: the instance `web/web-host-a` is defined in a:2:1 already (give each of them an `id` of its own)"
                .to_owned(),
        ),
        (
            "an alias of nothing",
            vec![("a", alias("web", "db"))],
            "web/web-host-a",
            "a:1:1: warning: the check `alias: db` asks for a service that no file defines (the check is critical until there is one)".to_owned(),
        ),
        (
            "aliases in a line",
            vec![("a", alias("a", "b")), ("b", alias("b", "c")), ("c", service("c", ""))],
            "a/a-host-a b/b-host-a c/c-host-a",
            String::new(),
        ),
        (
            "two that wait for each other, and one that waits for them",
            vec![("a", alias("a", "b")), ("b", alias("b", "c")), ("c", alias("c", "b"))],
            "a/a-host-a b/b-host-a c/c-host-a",
            format!("b:1:1: {circle}: `b` → `c` → `b` {hint}"),
        ),
        (
            "two circles",
            vec![("1", alias("a", "b")), ("2", alias("d", "c")), ("3", alias("c", "d")), ("4", alias("b", "a"))],
            "a/a-host-a b/b-host-a c/c-host-a d/d-host-a",
            format!("1:1:1: {circle}: `a` → `b` → `a` {hint}\n2:1:1: {circle}: `d` → `c` → `d` {hint}"),
        ),
        (
            "a way out that does not help",
            vec![("a", "service: a\nchecks: [{alias: b}, {alias: c}]\n".to_owned()), ("b", alias("b", "a")), ("c", service("c", ""))],
            "a/a-host-a b/b-host-a c/c-host-a",
            format!("a:1:1: {circle}: `a` → `b` → `a` {hint}"),
        ),
        (
            "a tag that is another instance's id",
            vec![("a", service("web", "tags: [Two, three]")), ("b", service("web", "id: two")), ("c", service("db", "id: three"))],
            "db/three web/two web/web-host-a",
            "a:1:1: warning: the tag `Two` has no name: another instance of the service has it as its id (choose another tag or `id`)".to_owned(),
        ),
    ];
    for (name, files, keys, problems) in cases {
        let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
        assert_eq!(merged(&files), (keys.to_owned(), problems), "{name}");
    }
}

#[test]
fn a_long_circle_is_found_without_a_deep_stack_and_told_in_short() {
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
    let way: Vec<String> = (0..10).map(|n| format!("`s{n}`")).collect();
    assert!(problems.starts_with(&format!("0:2:4: alias checks go in a circle: {} → … → `s0` (", way.join(" → "))));
    assert_eq!(problems.lines().count(), 1);
}

#[test]
fn a_static_name_can_take_a_live_one() {
    let services: BTreeSet<Label> = ["web", "db"].map(|text| Label::parse(text).unwrap()).into();
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
        let found = service_at(&Name::parse(owner).unwrap(), &zone, &services);
        assert_eq!(found.map(Label::as_str), expected, "{owner}");
    }
}
