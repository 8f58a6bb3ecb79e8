//! The part "Store": voters, keys, values on request, sessions and leases.

use std::{fs, net::SocketAddr};

use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::{
    layout::assert_fits,
    scene::{assert_clean, url},
    support::{
        agent::Agent,
        browser::Browser,
        http::{ask, exchange, get, put, request},
        program::free,
        voters::Voters,
        wait,
    },
};

/// Text of the main part of the page.
const MAIN: &str = "document.querySelector('main').innerText";

/// Starts an agent with a store of one voter; returns the address of etcd's API as well.
fn store_agent(options: &str, tokens: &str) -> (Agent, SocketAddr) {
    let etcd = free();
    let config = format!(
        "http: {{listen: [127.0.0.1:0]{options}}}\nstore: {{voters: [host-a], etcd: {{listen: [\"{etcd}\"]}}}}\n"
    );
    let agent = Agent::start_with(&config, &[], |folder| {
        fs::create_dir(folder.join("tokens.d")).unwrap();
        fs::write(folder.join("tokens.d/all.yaml"), format!("tokens: [{tokens}]\n")).unwrap();
    });
    (agent, etcd)
}

/// Starts an agent with a store that has a leader.
fn leading() -> (Agent, SocketAddr) {
    let (agent, etcd) = store_agent("", "");
    wait::poll(|| {
        let leader = get(&agent, "muster/store").json()["Leader"].clone();
        if leader == json!("host-a") { Ok(()) } else { Err(leader) }
    });
    (agent, etcd)
}

fn encoded(text: &str) -> String {
    text.bytes().map(|octet| format!("%{octet:02x}")).collect()
}

fn set(agent: &Agent, key: &str, value: &[u8]) {
    let head = request("PUT", &format!("/v1/kv/{}", encoded(key)), "", "");
    let head = head.replace("Content-Length: 0", &format!("Content-Length: {}", value.len()));
    let answer = exchange(agent.http(), [head.as_bytes(), value].concat());
    assert!(answer.starts_with("HTTP/1.1 200"), "{key}: {answer}");
}

/// Sets many keys by transactions.
fn set_all(agent: &Agent, keys: &[String]) {
    for keys in keys.chunks(64) {
        let set = |key: &String| json!({"KV": {"Verb": "set", "Key": key, "Value": "eA=="}});
        put(agent, "txn", &json!(keys.iter().map(set).collect::<Vec<_>>()));
    }
}

fn includes(text: &str) -> String {
    format!("{MAIN}.includes({})", json!(text))
}

/// Presses the button with this text.
fn click(browser: &Browser, text: &str) {
    let button = format!("[...document.querySelectorAll('main button')].find((one) => one.innerText === '{text}')");
    browser.wait(&button);
    browser.run(&format!("{button}.click()"), &json!([]));
}

/// Names in the list of keys. Rows that the browser has not rendered yet have no `innerText`.
fn names(browser: &Browser) -> Value {
    browser.run("return [...document.querySelectorAll('main a.row')].map((link) => link.textContent)", &json!([]))
}

#[test]
fn store_part_shows_voters_keys_sessions_and_leases() {
    let Some(browser) = Browser::start("store_part_shows_voters_keys_sessions_and_leases") else { return };
    let (agent, etcd) = leading();
    let session = json!({"Name": "backup", "TTL": "30s", "Behavior": "delete", "LockDelay": "5s"});
    let session = put(&agent, "session/create", &session).json()["ID"].as_str().unwrap().to_owned();
    let lock = format!("kv/app/lock?acquire={session}&flags=18446744073709551615");
    put(&agent, &lock, &json!("x"));
    set(&agent, "app/limits", b"max=10");
    set(&agent, "app/", b"");
    set(&agent, "app/sub/deep", b"");
    set(&agent, "top", b"");
    let lease = json!({"ID": "7", "TTL": "600"});
    assert_eq!(ask(etcd, "POST", "/v3/lease/grant", &lease.to_string()).status, 200);
    let leased = json!({"key": BASE64.encode(b"leased"), "value": "", "lease": "7"});
    assert_eq!(ask(etcd, "POST", "/v3/kv/put", &leased.to_string()).status, 200);
    let parts: [(&str, &[&str]); 7] = [
        ("#/store", &["leader host-a · 1 voter", "up to date", "0 entries", "Revision", "Size", " of ", "Last entry"]),
        ("#/store/keys/", &["All keys", "app/", "folder", "leased", "top"]),
        ("#/store/keys/app/", &["limits", "lock", "sub/", "key with the name of the folder"]),
        ("#/store/key/app/lock", &["3 octets", "18446744073709551615", &session, "Times locked", "Show value"]),
        ("#/store/key/leased", &["0 octets", "not held", "0000000000000007"]),
        ("#/store/sessions", &["backup", &session, "host-a", "30s", "deletes its keys, lock delay 5 s", "serfHealth"]),
        ("#/store/leases", &["0000000000000007", "10m 0s", "9m 5"]),
    ];
    for (hash, texts) in parts {
        browser.open(&url(&agent, hash));
        browser.wait("document.querySelector('header a[aria-current]').innerText === 'Store'");
        for text in texts {
            browser.wait(&includes(text));
        }
    }
    for (hash, keys) in [("#/store/sessions", 1), ("#/store/leases", 1)] {
        browser.open(&url(&agent, hash));
        browser.wait(&format!("document.querySelector('main td.number')?.innerText === '{keys}'"));
    }
    // Links lead from the key to its session, from folder to folder, and Escape leads back to the row.
    browser.open(&url(&agent, "#/store/key/app/lock"));
    browser.wait(&format!("document.querySelector('dl a[href=\"#/store/sessions?q={session}\"]')"));
    browser.press(&["Escape"]);
    browser.wait("location.hash === '#/store/keys/app/' && document.activeElement.innerText === 'lock'");
    assert_eq!(names(&browser), json!(["app/", "limits", "lock", "sub/"]));
    browser.press(&["ArrowDown", "Enter"]);
    browser.wait(
        "location.hash === '#/store/keys/app/sub/' && document.querySelector('.crumbs').innerText.includes('sub/')",
    );
    browser.press(&["Escape"]);
    browser.wait("location.hash === '#/store/keys/app/' && document.activeElement.innerText === 'sub/'");
    // The list follows the keys.
    set(&agent, "app/new", b"");
    browser.wait("[...document.querySelectorAll('main a.row')].some((link) => link.textContent === 'new')");
    assert_clean(&browser, &agent);
}

#[test]
fn value_is_requested_only_on_demand() {
    let Some(browser) = Browser::start("value_is_requested_only_on_demand") else { return };
    let (agent, _) = leading();
    let all: Vec<u8> = (0..=255).collect();
    let long = "ä".repeat(70_000);
    let values: [(&str, &[u8], &str); 5] = [
        ("text", b"max=10\nsecret", "max=10\nsecret"),
        ("html", b"<img src=x onerror=alert(1)>", "<img src=x onerror=alert(1)>"),
        ("octets", &all, "256 octets that are not UTF-8, in hexadecimal digits.\n\n000000  00 01 02 03 04 05 06 07\n"),
        ("long", long.as_bytes(), "The first 65536 of 70000 characters are shown."),
        ("empty", b"", "The value is empty."),
    ];
    for (key, value, _) in values {
        set(&agent, &format!("app/{key}"), value);
    }
    let content = "document.querySelector('.value .content').innerText";
    for (key, _, expected) in values {
        browser.open(&url(&agent, "#/store/keys/app/"));
        browser.wait(&includes(key));
        browser.open(&url(&agent, &format!("#/store/key/app/{key}")));
        browser.wait(&includes("Changed at index"));
        let reads = |requests: Vec<String>| requests.iter().filter(|url| url.contains("/v1/kv/app%2F")).count();
        let values = |requests: &[String]| requests.iter().any(|url| url.ends_with(&format!("/v1/kv/app%2F{key}")));
        let requests = browser.requests();
        assert!(!values(&requests), "{key}: {requests:?}");
        assert!(reads(requests) > 0, "{key}: the list is requested");
        assert_eq!(browser.run(&format!("return {content}"), &json!([])), json!(""), "{key}");
        click(&browser, "Show value");
        browser.wait(&format!("{content}.startsWith({})", json!(expected)));
        click(&browser, "Hide value");
        browser.wait(&format!("{content} === ''"));
        assert!(values(&browser.requests()), "{key}");
    }
    assert_eq!(browser.run("return document.querySelectorAll('img').length", &json!([])), json!(0));
    assert_eq!(browser.console_errors(), Vec::<String>::new());
    // A changed key does not show its new value unless asked to, and a deleted one is reported.
    browser.open(&url(&agent, "#/store/key/app/text"));
    click(&browser, "Show value");
    browser.wait(&format!("{content}.includes('max=10')"));
    set(&agent, "app/text", b"max=20");
    browser.wait(&includes("The key has changed since."));
    browser.wait(&format!("{content}.includes('max=10')"));
    click(&browser, "Show the new value");
    browser.wait(&format!("{content}.includes('max=20') && !{}", includes("has changed")));
    assert_eq!(ask(agent.http(), "DELETE", "/v1/kv/app/text", "").status, 200);
    browser.wait(&includes("The key was deleted."));
    browser.open(&url(&agent, "#/store/key/none"));
    browser.wait(&includes("There is no such key."));
    browser.open(&url(&agent, "#/store/keys/none/"));
    browser.wait(&includes("No key begins with none/"));
}

#[test]
fn hostile_names_of_keys_do_no_harm() {
    let Some(browser) = Browser::start("hostile_names_of_keys_do_no_harm") else { return };
    let (agent, _) = leading();
    // Keys with the text of their rows.
    let hostile = [
        ("<script>document.title='owned'</script>", "<script>document.title='owned'</"),
        ("\u{202e}evil\u{2066}", "\\u{202e}evil\\u{2066}"),
        ("line\nbreak\ttab\u{1}", "line\\u{a}break\\u{9}tab\\u{1}"),
        ("..", ".."),
        ("a?b#c%2F&d", "a?b#c%2F&d"),
        ("two  spaces", "two  spaces"),
    ];
    for (key, _) in hostile {
        set(&agent, &format!("bad/{key}"), b"1");
    }
    set(&agent, "../agent/self", b"1");
    browser.open(&url(&agent, "#/store/keys/bad/"));
    for (_, text) in hostile {
        browser.wait(&format!(
            "[...document.querySelectorAll('main a.row')].some((link) => link.textContent === {})",
            json!(text)
        ));
    }
    for (key, _) in hostile.iter().filter(|(key, _)| !key.contains('/')) {
        let hash = browser.run(
            "return [...document.querySelectorAll('main a.row')].map((link) => link.hash).find((hash) => \
             decodeURIComponent(hash).endsWith(arguments[0]))",
            &json!([format!("bad/{key}")]),
        );
        browser.open(&url(&agent, hash.as_str().unwrap()));
        browser.wait(&includes("Changed at index"));
        click(&browser, "Show value");
        browser.wait("document.querySelector('.value pre')?.innerText === '1'");
        browser.open(&url(&agent, "#/store/keys/bad/"));
        browser.wait("document.querySelectorAll('main a.row').length === 6");
    }
    // Steps in a path are parts of a key.
    browser.open(&url(&agent, "#/store/key/../agent/self"));
    browser.wait(&includes("Changed at index"));
    browser.open(&url(&agent, "#/store/key/.."));
    browser.wait(&includes("A browser cannot request this key."));
    assert_eq!(browser.run("return document.querySelectorAll('body script').length", &json!([])), json!(0));
    assert_ne!(browser.run("return document.title", &json!([])), json!("owned"));
    assert_clean(&browser, &agent);
}

#[test]
fn folder_of_ten_thousand_keys_is_shown_in_pages() {
    let Some(browser) = Browser::start("folder_of_ten_thousand_keys_is_shown_in_pages") else { return };
    let (agent, _) = leading();
    set_all(&agent, &(0..10_000).map(|number| format!("many/key-{number:05}")).collect::<Vec<_>>());
    browser.open(&url(&agent, "#/store/keys/many/"));
    browser.wait(&includes("The first 200 of 10000 names are shown."));
    browser.wait("document.querySelectorAll('main a.row').length === 200");
    click(&browser, "Show 200 more");
    browser.wait("document.querySelectorAll('main a.row').length === 400");
    browser.wait("document.activeElement.innerText === 'key-00200'");
    browser.press(&["/", "9", "9", "9", "9"]);
    browser.wait("document.querySelectorAll('main a.row').length === 1");
    browser.wait("document.querySelector('.matches').innerText === '1 of 10000 names'");
    assert_eq!(names(&browser), json!(["key-09999"]));
    browser.wait("location.hash === '#/store/keys/many/?q=9999'");
    assert_clean(&browser, &agent);
}

#[test]
fn store_without_leader_is_reported_and_recovers() {
    let test = "store_without_leader_is_reported_and_recovers";
    let Some(browser) = Browser::start(test) else { return };
    let mut voters = Voters::start();
    set(voters.agent(0), "app/a", b"1");
    browser.open(&url(voters.agent(0), "#/store"));
    browser.wait("document.querySelectorAll('main tbody tr').length === 3");
    browser.wait(&includes("· 3 voters"));
    browser.wait("document.getElementById('banners').innerText === ''");
    voters.kill(1);
    voters.kill(2);
    let banner = "document.getElementById('banners').innerText.includes('The store has no leader: reads and writes')";
    browser.wait(banner);
    browser.wait(&includes("no leader"));
    browser.wait(&format!("!{}", includes("up to date")));
    // Discovery goes on, and the warning is above every part.
    browser.open(&url(voters.agent(0), "#/nodes"));
    browser.wait(&includes("host-1"));
    browser.wait(banner);
    browser.open(&url(voters.agent(0), "#/store/keys/"));
    browser.wait(&includes("No answer No cluster leader"));
    voters.start_again(1);
    browser.wait("!document.getElementById('banners').innerText.includes('No leader')");
    browser.wait("[...document.querySelectorAll('main a.row')].map((link) => link.textContent).join() === 'app/'");
    browser.wait("document.querySelector('.notice').innerText === ''");
}

#[test]
fn tokens_see_the_keys_that_they_may_read() {
    let Some(browser) = Browser::start("tokens_see_the_keys_that_they_may_read") else { return };
    let tokens = "{name: shop, scope: read, keys: [{prefix: shop/, access: read}], token: shop-shop-shop-shop}, \
                  {name: all, scope: operate, token: operates-operates-operates}";
    let (agent, _) = store_agent(", tokens_dir: tokens.d", tokens);
    let put = |key: &str| {
        let path = format!("/v1/kv/{key}?token=operates-operates-operates");
        wait::poll(|| {
            let answer = ask(agent.http(), "PUT", &path, "1");
            if answer.status == 200 { Ok(()) } else { Err(answer.body) }
        });
    };
    put("shop/limits");
    put("secret/key");
    browser.open(&url(&agent, "#/store/keys/"));
    browser.wait("document.querySelector('dialog').open && document.activeElement.id === 'token'");
    let enter = |text: &str| {
        let keys: Vec<String> = text.chars().map(String::from).collect();
        browser.press(&keys.iter().map(String::as_str).chain(["Enter"]).collect::<Vec<_>>());
    };
    enter("shop-shop-shop-shop");
    browser.wait(&includes("No access Permission denied: read access to all keys is required"));
    browser.run("document.querySelector('form.open input').focus()", &json!([]));
    enter("shop/");
    browser.wait("location.hash === '#/store/keys/shop/'");
    browser.wait("[...document.querySelectorAll('main a.row')].map((link) => link.textContent).join() === 'limits'");
    browser.open(&url(&agent, "#/store/key/secret/key"));
    browser.wait(&includes("No access Permission denied: read access to key secret/key is required"));
    browser.wait(&format!("!{}", includes("Show value")));
    for hash in ["#/store", "#/store/sessions", "#/store/leases"] {
        browser.open(&url(&agent, hash));
        browser.wait("document.querySelector('.views [aria-current]')");
        browser.wait(&format!("!{}", includes("No access")));
    }
    // Another token is asked for where one is refused.
    browser.open(&url(&agent, "#/store/keys/"));
    click(&browser, "Enter a token");
    browser.wait("document.activeElement.id === 'token'");
    enter("operates-operates-operates");
    browser.wait(
        "[...document.querySelectorAll('main a.row')].map((link) => link.textContent).join() === 'secret/,shop/'",
    );
    let requests = browser.requests();
    assert!(requests.iter().all(|url| !url.contains("operates")), "{requests:?}");
}

#[test]
fn cluster_without_store_has_no_store_part() {
    let Some(browser) = Browser::start("cluster_without_store_has_no_store_part") else { return };
    let agent = crate::scene::agent();
    browser.open(&url(&agent, "#/agent"));
    browser.wait("document.querySelector('dl')");
    browser.wait("!document.getElementById('store-link').checkVisibility()");
    browser.open(&url(&agent, "#/store/keys/"));
    browser.wait(&includes("This cluster has no store."));
    let requests = browser.requests();
    assert!(requests.iter().all(|url| !url.contains("/v1/kv") && !url.contains("/v1/muster/store")), "{requests:?}");
    assert_eq!(browser.console_errors(), Vec::<String>::new());
}

#[test]
fn store_part_fits_its_screen_with_enough_contrast() {
    let Some(browser) = Browser::start("store_part_fits_its_screen_with_enough_contrast") else { return };
    let (agent, etcd) = leading();
    let long = "a-long-name-".repeat(20);
    set(&agent, &format!("{long}/{long}"), long.as_bytes());
    let session = put(&agent, "session/create", &json!({"Name": long})).json()["ID"].as_str().unwrap().to_owned();
    put(&agent, &format!("kv/app/lock?acquire={session}"), &json!(long));
    assert_eq!(ask(etcd, "POST", "/v3/lease/grant", &json!({"ID": "7", "TTL": "600"}).to_string()).status, 200);
    let has_row = "document.querySelector('main tbody tr')";
    let parts = [
        ("#/store", has_row),
        ("#/store/keys/", has_row),
        (&*format!("#/store/keys/{long}/"), has_row),
        (&*format!("#/store/key/{long}/{long}"), "document.querySelector('dl')"),
        ("#/store/key/app/lock", "document.querySelector('dl')"),
        ("#/store/sessions", has_row),
        ("#/store/leases", has_row),
    ];
    assert_fits(&browser, &agent, &parts);
    assert_clean(&browser, &agent);
}
