//! The web page at `/ui`, on the built program and in a headless Chromium: what it shows, that it follows, how it is used.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
};

use serde_json::json;
use support::{
    agent::{Agent, DEADLINE},
    browser::{Browser, STRANGER},
};

/// Two services, one of whose instances is critical; and one whose texts are somebody's attempt to be more than text.
const SERVICES: &str = r#"
services:
- {service: web, id: web-1, port: 8080, tags: [v2, eu]}
- {service: web, id: web-2, port: 8081, checks: [{tcp: "127.0.0.1:1", interval: 1h, fall: 1}]}
- {service: mail, enabled: false}
- {service: cache, tags: ["<img src=x onerror=alert(1)>"], meta: {a: "<script>alert(2)</script>"}}
"#;

/// Where the page's files are.
fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/page")
}

/// That the first word of a service's row is so.
fn stands(service: &str, words: &str) -> String {
    format!("document.querySelector('a[href=\"#/services/{service}\"]')?.closest('tr').innerText.includes('{words}')")
}

fn agent() -> Agent {
    agent_at(SocketAddr::from(([127, 0, 0, 1], 0)), "")
}

fn agent_at(http: SocketAddr, more: &str) -> Agent {
    Agent::start_with(&format!("http: {{listen: [\"{http}\"]{more}}}\n"), &[], |folder| {
        fs::write(folder.join("services.d/all.yaml"), SERVICES).unwrap();
        fs::create_dir(folder.join("tokens.d")).unwrap();
        let tokens = "tokens: [{name: eyes, scope: read, token: reads-reads-reads-reads}]\n";
        fs::write(folder.join("tokens.d/all.yaml"), tokens).unwrap();
    })
}

fn url(agent: &Agent, hash: &str) -> String {
    format!("http://{}/ui/{hash}", agent.http())
}

fn ask(agent: &Agent, method: &str, path: &str, headers: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(agent.http()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), head.to_ascii_lowercase(), body.to_owned())
}

/// Nothing was complained of, and nobody but the agent was asked for anything.
fn is_clean(browser: &Browser, agent: &Agent) {
    assert_eq!(browser.complaints(), Vec::<String>::new());
    let own = format!("http://{}/", agent.http());
    let asked = browser.asked();
    assert!(asked.iter().any(|asked| asked.starts_with(&own)), "{asked:?}");
    let elsewhere: Vec<_> = asked.iter().filter(|asked| !asked.starts_with(&own)).collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
}

#[test]
fn its_files_are_kept_by_browsers_and_may_do_nothing_else() {
    let agent = agent_at(SocketAddr::from(([127, 0, 0, 1], 0)), ", tokens_dir: tokens.d");
    // Every file of the folder is served, and the page itself has no name.
    for entry in fs::read_dir(source()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let file = if name == "index.html" { "" } else { &*name };
        let (status, head, body) = ask(&agent, "GET", &format!("/ui/{file}"), "");
        assert!(status == 200 && !body.is_empty(), "{file}: {head}");
        for header in [
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
             img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cross-origin-resource-policy: same-origin",
            "cache-control: no-cache",
        ] {
            assert!(head.contains(&format!("\r\n{header}")), "{file}: no {header} in {head}");
        }
        let tag = head.split("etag: ").nth(1).unwrap().lines().next().unwrap();
        for (asked, status) in [(tag, 304), (&*format!("\"a\", W/{tag}"), 304), ("*", 304), ("\"a\"", 200)] {
            let found = ask(&agent, "GET", &format!("/ui/{file}"), &format!("If-None-Match: {asked}\r\n"));
            assert_eq!(found.0, status, "{file} {asked}");
        }
    }
    assert_eq!(ask(&agent, "HEAD", "/ui/", "").0, 200);
    assert_eq!(ask(&agent, "GET", "/ui/none.js", "").0, 404);
    for path in ["/", "/ui"] {
        let (status, head, _) = ask(&agent, "GET", path, "");
        assert!(status == 307 && head.contains("\r\nlocation: ui/"), "{path}: {head}");
    }
}

#[test]
fn its_source_reads_no_text_as_html_and_names_no_other_host() {
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
        // A picture says what kind of XML it is.
        let text = fs::read_to_string(&path).unwrap().replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
        for word in forbidden {
            assert!(!text.contains(word), "{}: {word}", path.display());
        }
        read += 1;
    }
    assert!(read > 8, "the page was not found");
}

#[test]
fn services_and_reasons_show_and_follow_without_a_reload() {
    let Some(browser) = Browser::start("services_and_reasons_show_and_follow_without_a_reload") else { return };
    let agent = agent();
    browser.open(&format!("http://{}/", agent.http()));
    browser.wait(&stands("web", "1 of 2"));
    browser.wait(&stands("web", "1 critical"));
    browser.wait(&stands("mail", "held back"));
    browser.wait(&stands("cache", "<img src=x onerror=alert(1)>"));
    assert_eq!(browser.text("#liveness"), "✓\nlive");
    browser.run("window.loadedOnce = true", &json!([]));

    // The row is kept, and no other is touched.
    browser.run(
        "window.touched = new Set(); window.web = document.querySelector('a[href=\"#/services/web\"]');
         new MutationObserver((all) => all.forEach(({target}) => touched.add((target.closest ? target : target.parentElement).closest('tr')?.innerText)))
         .observe(document.querySelector('tbody'), {subtree: true, childList: true, characterData: true, attributes: true})",
        &json!([]),
    );
    let mended = SERVICES.replace(", checks: [{tcp: \"127.0.0.1:1\", interval: 1h, fall: 1}]", "");
    agent.write_service("all.yaml", &mended);
    browser.wait(&stands("web", "2 of 2"));
    assert_eq!(browser.run("return [touched.size, web.isConnected]", &json!([])), json!([1, true]));
    agent.write_service("all.yaml", SERVICES);
    browser.wait(&stands("web", "1 of 2"));

    // A deep link, and why.
    browser.open(&url(&agent, "#/services/web"));
    let row = "[...document.querySelectorAll('tbody')].find((group) => group.innerText.includes('web-2'))?.innerText";
    browser.wait(&format!("{row}?.includes('the check tcp 127.0.0.1:1 is critical: connection refused')"));
    browser.wait(&format!("{row}.includes('1 check critical') && {row}.includes('host-a')"));
    agent.write_service("all.yaml", &mended);
    browser.wait(&format!("{row}.includes('answered with weight')"));
    browser.open(&url(&agent, "#/services/none"));
    browser.wait("document.querySelector('.summary')?.innerText === 'no node declares it: NXDOMAIN'");
    browser.open(&url(&agent, "#/nodes"));
    browser.wait("document.querySelector('tbody')?.innerText.includes('host-a')");
    browser.open(&url(&agent, "#/nodes/host-a"));
    browser.wait("document.querySelectorAll('tbody').length === 4");
    browser.open(&url(&agent, "#/agent"));
    browser.wait("document.querySelector('dl')?.innerText.includes('service.local.')");
    agent.write_service("broken.yaml", "service: web\nprot: 80\n");
    browser.wait("document.querySelector('.problems')?.innerText.includes('broken.yaml:2:1')");
    browser.wait("document.getElementById('banners').innerText.includes('1 problem in files')");
    fs::remove_file(agent.path("services.d/broken.yaml")).unwrap();
    browser.wait("document.getElementById('banners').innerText === ''");

    // What happened, the last first.
    browser.open(&url(&agent, "#/events"));
    for kind in ["file-problem", "file-mended", "instance-up", "instance-down"] {
        browser.wait(&format!("document.querySelector('.events')?.innerText.includes('{kind}')"));
    }
    let times = "return [...document.querySelectorAll('.events time')].map((time) => time.dateTime)";
    let times = browser.run(times, &json!([]));
    assert!(times.as_array().unwrap().is_sorted_by(|one, next| one.as_str() >= next.as_str()), "{times}");
    browser.open(&url(&agent, "#/services/web"));
    browser.wait("document.querySelector('section .events')?.innerText.includes('web/web-2 on host-a')");
    assert_eq!(browser.run("return window.loadedOnce", &json!([])), json!(true));
    is_clean(&browser, &agent);
}

#[test]
fn what_services_say_is_text_and_nothing_else() {
    let Some(browser) = Browser::start("what_services_say_is_text_and_nothing_else") else { return };
    let agent = agent();
    let hostile = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>";
    let register = json!({
        "Name": "bad", "ID": hostile, "Tags": [hostile, "javascript:alert(1)"],
        "Check": {"TTL": "1h", "Name": hostile, "Status": "critical"},
    });
    let put = |path: &str, body: &str| {
        let mut stream = TcpStream::connect(agent.http()).unwrap();
        let length = body.len();
        let head =
            format!("PUT {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    };
    put("/v1/agent/service/register", &register.to_string());
    let id: String = hostile.bytes().map(|octet| format!("%{octet:02x}")).collect();
    put(&format!("/v1/agent/check/update/service:{id}"), &json!({"Status": "critical", "Output": hostile}).to_string());
    browser.open(&url(&agent, "#/services"));
    browser.wait(&stands("bad", "<img src=x onerror="));
    browser.open(&url(&agent, "#/services/bad"));
    browser.wait("document.querySelector('.checks .output')?.innerText.includes('<img src=x onerror=')");
    // In the address, too.
    browser.open(&url(&agent, "#/services/%3Cimg%20src=x%20onerror=alert(1)%3E"));
    browser.wait("document.querySelector('h1').innerText === '<img src=x onerror=alert(1)>'");
    browser.wait("document.querySelector('.summary')?.innerText.includes('NXDOMAIN')");
    assert_eq!(browser.run("return document.querySelectorAll('img, body script').length", &json!([])), json!(0));
    assert_ne!(browser.run("return document.title", &json!([])), json!("owned"));
    is_clean(&browser, &agent);
}

#[test]
fn pages_of_strangers_read_nothing() {
    let Some(browser) = Browser::start("pages_of_strangers_read_nothing") else { return };
    let agent = agent();
    let (own, port) = (agent.http(), agent.http().port());
    let read = "return fetch(arguments[0]).then((answer) => answer.text(), (error) => error.name)";
    browser.open(&format!("http://{own}/ui/"));
    let text = browser.run(read, &json!([format!("http://{own}/v1/catalog/services")]));
    assert!(text.as_str().unwrap().contains("web"), "{text}");
    // Their name may lead here (DNS rebinding): it is no name of ours.
    for path in ["/ui/", "/v1/catalog/services"] {
        browser.open(&format!("http://{STRANGER}:{port}{path}"));
        let text = browser.text("body");
        assert!(text.contains("The header Host has to be an IP address or one of localhost, host-a"), "{path}: {text}");
    }
    let text = browser.run(read, &json!(["/v1/catalog/services"]));
    assert!(text.as_str().unwrap().starts_with("The header Host"), "{text}");
    // Or they ask for what is ours by our name: no answer permits it.
    let text = browser.run(read, &json!([format!("http://{own}/v1/catalog/services")]));
    assert_eq!(text, json!("TypeError"));
}

#[test]
fn a_keyboard_is_enough() {
    let Some(browser) = Browser::start("a_keyboard_is_enough") else { return };
    let agent = agent();
    let focus = |expected: &str| browser.wait(&format!("document.activeElement?.innerText === '{expected}'"));
    browser.open(&url(&agent, ""));
    browser.wait(&stands("web", "1 of 2"));
    browser.press(&["/"]);
    browser.wait("document.activeElement.type === 'search'");
    browser.press(&["w", "e", "b"]);
    browser.wait("[...document.querySelectorAll('tbody tr')].filter((row) => row.checkVisibility()).length === 1");
    browser.wait("document.querySelector('.told').innerText === '1 service of 3'");
    browser.wait("location.hash === '#/services?q=web'");
    browser.press(&["ArrowDown"]);
    focus("web");
    let outline = "getComputedStyle(document.activeElement).outlineStyle === 'solid'";
    browser.wait(outline);
    browser.press(&["Enter"]);
    browser.wait("location.hash === '#/services/web' && document.activeElement.tagName === 'H1'");
    browser.wait("document.querySelectorAll('a.row').length === 2");
    browser.press(&["ArrowDown", "Enter"]);
    browser.wait("location.hash === '#/nodes/host-a'");
    browser.back();
    browser.wait("location.hash === '#/services/web'");
    browser.press(&["Escape"]);
    // Back where it began: the same words in the box, and the same row.
    browser.wait("location.hash === '#/services?q=web' && document.querySelector('input').value === 'web'");
    focus("web");
    browser.press(&["/", "Escape"]);
    browser.wait("location.hash === '#/services'");
    browser.press(&["ArrowDown", "End"]);
    focus("web");
    browser.press(&["Home"]);
    focus("cache");
    // From the top of the page every part is reached by Tab alone.
    browser.run("document.querySelector('h1').focus(); document.activeElement.blur(); scrollTo(0, 0)", &json!([]));
    browser.open(&url(&agent, "?again"));
    browser.wait(&stands("web", "1 of 2"));
    for name in ["Skip to content", "muster", "Services", "Nodes", "Events", "Agent"] {
        browser.press(&["Tab"]);
        focus(name);
        browser.wait(outline);
    }
    browser.press(&["Enter"]);
    browser.wait("location.hash === '#/agent' && document.title.startsWith('Agent')");
    is_clean(&browser, &agent);
}

#[test]
fn it_fits_a_phone_and_a_wide_screen_and_reads_in_the_dark() {
    let Some(browser) = Browser::start("it_fits_a_phone_and_a_wide_screen_and_reads_in_the_dark") else { return };
    let agent = agent();
    let long = "a-name-as-long-as-a-label-may-be-which-is-sixty-three-octets-ok";
    agent.write_service("long.yaml", &format!("services:\n- {{service: {long}, id: {long}, tags: [{long}]}}\n"));
    let parts: [(&str, &str); 6] = [
        ("#/services", &stands(long, "1 of 1")),
        ("#/services/web", "document.querySelector('.checks')"),
        (&format!("#/services/{long}"), "document.querySelector('tbody')"),
        ("#/nodes", "document.querySelector('tbody tr')"),
        ("#/events", "document.querySelector('h1').innerText === 'Events'"),
        ("#/agent", "document.querySelector('dl')"),
    ];
    for (width, height) in [(360, 740), (1000, 700), (1600, 900)] {
        for scheme in ["light", "dark"] {
            browser.screen(width, height, scheme);
            for (hash, ready) in &parts {
                browser.open(&url(&agent, hash));
                browser.wait(ready);
                let case = format!("{hash} at {width} in {scheme}");
                let fits = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
                assert_eq!(browser.run(fits, &json!([])), json!(0), "{case} is too wide");
                assert_eq!(browser.run("return innerWidth", &json!([])), json!(width), "{case}");
                assert_eq!(browser.run(include_str!("page/contrast.js"), &json!([])), json!([]), "{case}");
            }
        }
    }
    is_clean(&browser, &agent);
}

#[test]
fn a_token_is_asked_for_where_it_takes_one() {
    let Some(browser) = Browser::start("a_token_is_asked_for_where_it_takes_one") else { return };
    let agent = agent_at(SocketAddr::from(([127, 0, 0, 1], 0)), ", tokens_dir: tokens.d");
    browser.open(&url(&agent, "#/services/web"));
    browser.wait("document.querySelector('dialog').open && document.activeElement.id === 'ask-token'");
    let enter = |token: &str| {
        let keys: Vec<String> = token.chars().map(String::from).collect();
        browser.press(&keys.iter().map(String::as_str).chain(["Enter"]).collect::<Vec<_>>());
    };
    enter("wrong");
    browser.wait("document.getElementById('ask-why').innerText.includes('the token is not known here')");
    enter("reads-reads-reads-reads");
    browser.wait("document.querySelector('.summary')?.innerText === '1 of 2 answered'");
    browser.wait("!document.querySelector('dialog').open && document.getElementById('banners').innerText === ''");
    // It goes in a header, never in an address, and is kept in the tab alone.
    let asked = browser.asked();
    assert!(asked.iter().all(|asked| !asked.contains("reads")), "{asked:?}");
    assert_eq!(browser.run("return document.cookie + localStorage.length", &json!([])), json!("0"));
    browser.open(&url(&agent, "#/agent"));
    browser.wait("[...document.querySelectorAll('button')].some((button) => button.innerText === 'Forget the token')");
    browser.run("document.querySelector('[data-do=forget]').click()", &json!([]));
    browser.wait("document.querySelector('dialog').open && sessionStorage.length === 0");
    browser.press(&["Escape"]);
    browser.wait("document.getElementById('banners').innerText.includes('Not shown')");
    browser.wait("document.getElementById('liveness').innerText.includes('no token')");
}

#[test]
fn what_is_not_current_says_so_until_it_is_again() {
    let Some(browser) = Browser::start("what_is_not_current_says_so_until_it_is_again") else { return };
    // No other test listens on this address, so that its port is free when it is bound again.
    let first = agent_at(SocketAddr::from(([127, 4, 7, 1], 0)), "");
    let http = first.http();
    browser.open(&url(&first, ""));
    browser.wait(&stands("web", "1 of 2"));
    drop(first);
    browser.wait("document.getElementById('banners').innerText.includes('Not current')");
    browser.wait("document.getElementById('liveness').innerText.includes('not current')");
    browser.wait(&stands("web", "1 of 2"));
    let agent = agent_at(http, "");
    agent.write_service("more.yaml", "service: more\n");
    browser.wait(&stands("more", "1 of 1"));
    browser.wait("document.getElementById('banners').innerText === ''");
    browser.wait("document.getElementById('liveness').innerText.includes('live')");
}
