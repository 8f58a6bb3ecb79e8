//! Messages of the agent and explanations of any kind.

use serde_json::{Value, json};

use crate::{
    scene::{agent, assert_clean, url},
    support::{browser::Browser, http::get},
};

#[test]
fn text_between_backticks_becomes_code_and_stays_text() {
    let Some(browser) = Browser::start("text_between_backticks_becomes_code_and_stays_text") else { return };
    let agent = agent();
    browser.open(&url(&agent, "#/services/none"));
    browser.wait("document.querySelector('.note')");
    let build = "return import(new URL('dom.js', document.baseURI))
        .then(({ el, message }) => el('p', {}, message(arguments[0])).innerHTML)";
    for (text, html) in [
        ("plain", "plain"),
        ("run `muster validate`, then `dig`", "run <code>muster validate</code>, then <code>dig</code>"),
        ("`a`", "<code>a</code>"),
        ("one ` alone", "one ` alone"),
        ("`a` and ` alone", "<code>a</code> and ` alone"),
        ("`<img src=x>` <b>", "<code>&lt;img src=x&gt;</code> &lt;b&gt;"),
        ("", ""),
    ] {
        assert_eq!(browser.run(build, &json!([text])), json!(html), "{text}");
    }
    // The notes of the API, as the page shows them.
    let notes = get(&agent, "muster/explain/none").json()["Notes"].clone();
    let notes: Vec<&str> = notes.as_array().unwrap().iter().map(|note| note.as_str().unwrap()).collect();
    assert!(notes.iter().any(|note| note.contains('`')), "{notes:?}");
    let shown: Vec<Value> = notes.iter().map(|note| json!(note.replace('`', ""))).collect();
    let text = "return [...document.querySelectorAll('.note')].map((note) => note.textContent)";
    assert_eq!(browser.run(text, &json!([])), json!(shown));
    browser.wait("document.querySelector('.note code')");
    assert_clean(&browser, &agent);
}

#[test]
fn names_that_are_no_service_show_their_kind_and_explanation() {
    let Some(browser) = Browser::start("names_that_are_no_service_show_their_kind_and_explanation") else { return };
    let agent = agent();
    for name in ["localhost", "www.example.com", "service.local", "web-1.web", "host-a.node"] {
        let explained = get(&agent, &format!("muster/explain/{name}")).json();
        browser.open(&url(&agent, &format!("#/services/{name}")));
        let summary = explained["Summary"].as_str().unwrap().replace('`', "");
        let summary = json!(summary).to_string();
        browser.wait(&format!("document.querySelector('.summary')?.textContent.endsWith({summary})"));
        // A service and a node have events; a request for those of another name would fail.
        let kind = explained["Kind"].as_str().unwrap();
        if !["service", "instance", "node", "unknown"].contains(&kind) {
            assert_eq!(browser.text(".summary .chip"), kind.replace('-', " "), "{name}");
        }
    }
    assert_clean(&browser, &agent);
}
