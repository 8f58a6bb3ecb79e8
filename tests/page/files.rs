//! The embedded files: response headers, and what their source must not contain.

use std::fs;

use crate::{
    scene::{ANY, agent_at, source},
    support::http::{ask, ask_with, exchange, request},
};

#[test]
fn every_file_has_an_etag_and_a_strict_policy_and_needs_no_token() {
    let agent = agent_at(ANY, ", tokens_dir: tokens.d");
    let get = |path: &str, headers: &str| ask_with(agent.http(), "GET", path, headers, "");
    for entry in fs::read_dir(source()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let file = if name == "index.html" { "" } else { &*name };
        let path = format!("/ui/{file}");
        let answer = get(&path, "");
        assert!(answer.status == 200 && !answer.body.is_empty(), "{file}: {}", answer.head);
        for (header, value) in [
            (
                "content-security-policy",
                "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                 base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
                 trusted-types 'none'",
            ),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-resource-policy", "same-origin"),
            ("cache-control", "no-cache"),
        ] {
            assert_eq!(answer.header(header), Some(value), "{file}: {header}");
        }
        let etag = answer.header("etag").unwrap();
        for (known, status) in [(etag, 304), (&*format!("\"a\", W/{etag}"), 304), ("*", 304), ("\"a\"", 200)] {
            assert_eq!(get(&path, &format!("If-None-Match: {known}\r\n")).status, status, "{file} {known}");
        }
    }
    assert_eq!(get("/ui/none.js", "").status, 404);
    // `/` as Consul; `/ui` relative, for a proxy with a path prefix.
    for (path, status, location) in [("/", 301, "/ui/"), ("/ui", 307, "ui/")] {
        let answer = ask(agent.http(), "GET", path, "");
        assert_eq!((answer.status, answer.header("location")), (status, Some(location)), "{path}");
    }
}

#[test]
fn head_request_for_the_page_succeeds() {
    let agent = agent_at(ANY, "");
    let answer = exchange(agent.http(), request("HEAD", "/ui/", "", ""));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn source_parses_no_html_and_names_no_other_host() {
    let forbidden = [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "setHTML",
        "document.write",
        "DOMParser",
        "createContextualFragment",
        "srcdoc",
        "eval(",
        "Function(",
        "javascript:",
        "localStorage",
        "document.cookie",
        "https://",
        "http://",
        "@import",
        " style=",
        " onclick=",
        " onload=",
        "<script>",
    ];
    let mut read = 0;
    for entry in fs::read_dir(source()).unwrap() {
        let path = entry.unwrap().path();
        // The namespace of SVG is a name, not an address.
        let text = fs::read_to_string(&path).unwrap().replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
        for word in forbidden {
            assert!(!text.contains(word), "{}: {word}", path.display());
        }
        read += 1;
    }
    assert!(read > 8, "the page's files were not found");
}
