//! The page follows the agent without a reload, and marks data that is stale.

use std::{fs, net::SocketAddr};

use serde_json::{Value, json};

use crate::{
    scene::{FAILING, SERVICES, agent, agent_at, assert_clean, row_has, url},
    support::{
        agent::Agent,
        browser::Browser,
        http::{get, put},
    },
};

/// An instance of `web` as the API explains it.
fn instance(agent: &Agent, id: &str) -> Value {
    let explained = get(agent, "muster/explain/web").json();
    let instances = explained["Instances"].as_array().unwrap();
    instances.iter().find(|instance| instance["ID"] == id).unwrap().clone()
}

#[test]
fn lists_and_explanations_follow_changes_without_a_reload() {
    let Some(browser) = Browser::start("lists_and_explanations_follow_changes_without_a_reload") else { return };
    let agent = agent();
    browser.open(&format!("http://{}/", agent.http()));
    browser.wait(&row_has("web", "1 of 2"));
    browser.wait(&row_has("web", "1 critical"));
    browser.wait(&row_has("mail", "held"));
    browser.wait(&row_has("cache", "<img src=x onerror=alert(1)>"));
    assert_eq!(browser.text("#connection"), "✓\nlive");
    browser.run("window.loadedOnce = true", &json!([]));

    // The row is kept, and no other row is touched.
    browser.run(
        "window.touched = new Set(); window.web = document.querySelector('a[href=\"#/services/web\"]');
         new MutationObserver((all) => all.map(({target}) => (target.closest ? target : target.parentElement).closest('tr')).filter(Boolean).forEach((row) => touched.add(row)))
         .observe(document.querySelector('tbody'), {subtree: true, childList: true, characterData: true, attributes: true})",
        &json!([]),
    );
    let repaired = SERVICES.replace(FAILING, "");
    agent.write_service("all.yaml", &repaired);
    browser.wait(&row_has("web", "2 of 2"));
    assert_eq!(browser.run("return [touched.size, web.isConnected]", &json!([])), json!([1, true]));
    agent.write_service("all.yaml", SERVICES);
    browser.wait(&row_has("web", "1 of 2"));

    // The address of a service shows the reason for the state of each instance.
    browser.open(&url(&agent, "#/services/web"));
    let row = "[...document.querySelectorAll('tbody')].find((group) => group.innerText.includes('web-2'))?.innerText";
    let reason = instance(&agent, "web-2")["Why"].clone();
    browser.wait(&format!("{row}?.includes({reason})"));
    browser.wait(&format!("{row}.includes('1 check critical') && {row}.includes('host-a')"));
    agent.write_service("all.yaml", &repaired);
    browser.wait(&format!("{row}.includes('passing')"));
    let reason = instance(&agent, "web-2")["Why"].clone();
    browser.wait(&format!("{row}.includes({reason})"));
    browser.open(&url(&agent, "#/services/none"));
    browser.wait("document.querySelector('.summary')?.innerText.includes('NXDOMAIN')");
    browser.open(&url(&agent, "#/nodes"));
    browser.wait("document.querySelector('tbody')?.innerText.includes('host-a')");
    let check = json!({"CheckID": "ping", "Status": "critical", "Output": "lost"});
    put(&agent, "catalog/register", &json!({"Node": "rack 1/db", "Address": "10.9.0.1", "Check": check}));
    let row = "[...document.querySelectorAll('tbody tr')].find((row) => row.innerText.includes('rack 1/db'))";
    browser.wait(&format!("{row}?.innerText.includes('external, through host-a')"));
    browser.wait(&format!("{row}.innerText.includes('critical') && {row}.innerText.includes('10.9.0.1')"));
    browser.run(&format!("{row}.querySelector('a.row').click()"), &json!([]));
    for text in ["critical", "ping", "lost"] {
        browser.wait(&format!("document.querySelector('.node-checks')?.innerText.includes('{text}')"));
    }
    browser.open(&url(&agent, "#/nodes/host-a"));
    browser.wait("document.querySelectorAll('tbody').length === 4");
    browser.open(&url(&agent, "#/agent"));
    browser.wait("document.querySelector('dl')?.innerText.includes('service.local.')");
    agent.write_service("broken.yaml", "service: web\nprot: 80\n");
    browser
        .wait("[...document.querySelectorAll('.problems')].some((list) => list.innerText.includes('broken.yaml:2:1'))");
    browser.wait("document.getElementById('banners').innerText.includes('1 error in files')");
    fs::remove_file(agent.path("services.d/broken.yaml")).unwrap();
    browser.wait("document.getElementById('banners').innerText === ''");

    browser.open(&url(&agent, "#/events"));
    for kind in ["file-problem", "file-mended", "instance-up", "instance-down"] {
        browser.wait(&format!("document.querySelector('.events')?.innerText.includes('{kind}')"));
    }
    browser.open(&url(&agent, "#/services/web"));
    browser.wait("document.querySelector('section .events')?.innerText.includes('web/web-2 on host-a')");
    assert_eq!(browser.run("return window.loadedOnce", &json!([])), json!(true));
    assert_clean(&browser, &agent);
}

#[test]
fn checks_of_a_node_are_shown_in_its_details_and_followed() {
    let Some(browser) = Browser::start("checks_of_a_node_are_shown_in_its_details_and_followed") else { return };
    let agent = Agent::start();
    let report = |status: &str, output: &str| {
        put(&agent, "agent/check/update/disk", &json!({"Status": status, "Output": output}));
    };
    browser.open(&url(&agent, "#/nodes/host-a"));
    browser.wait("document.querySelector('.summary')?.innerText.includes('node host-a is alive')");
    assert_eq!(browser.run("return document.querySelector('.node-checks').hidden", &json!([])), json!(true));
    // The node has no instance: only its checks change.
    put(&agent, "agent/check/register", &json!({"Name": "Disk of <b>/</b>", "CheckID": "disk", "TTL": "1h"}));
    let section = "document.querySelector('.node-checks:not([hidden])')?.innerText";
    let has = |text: &str| browser.wait(&format!("{section}?.includes({})", json!(text)));
    has("1 check critical");
    report("passing", "12 % used");
    has("1 check passing");
    report("warning", "91 % used");
    for text in ["Checks of the node", "1 check warning", "Disk of <b>/</b>", "91 % used"] {
        has(text);
    }
    assert_eq!(browser.text(".node-checks li .mark"), "!\nwarning");
    // A problem opens the list.
    assert_eq!(browser.run("return document.querySelector('.node-checks details').open", &json!([])), json!(true));
    // The reason of an instance names the check.
    agent.write_service("web.yaml", "service: web\n");
    report("critical", "100 % used");
    browser.wait("document.querySelector('td.why')?.innerText.includes('Disk of <b>/</b>: 100 % used')");
    put(&agent, "agent/check/deregister/disk", &Value::Null);
    browser.wait("document.querySelector('.node-checks').hidden");
    browser.wait("document.querySelector('td.state')?.innerText.includes('passing')");
    assert_clean(&browser, &agent);
}

/// Validators refuse such zones, and DNS clients see only SERVFAIL.
#[test]
fn zones_with_expired_signatures_are_told() {
    let Some(browser) = Browser::start("zones_with_expired_signatures_are_told") else { return };
    let agent = agent();
    browser.open(&url(&agent, ""));
    browser.wait(&row_has("web", "1 of 2"));
    let signatures = ["SOA", "NS", "DNSKEY", "NSEC"]
        .map(|of| format!("@ 60 RRSIG {of} 13 2 60 20200102000000 20200101000000 1 old.test. AAAA\n"))
        .concat();
    let zone = format!(
        "@ 60 SOA ns.example.org. h 1 1 1 1 1\n@ 60 NS ns.example.org.\n@ 60 DNSKEY 257 3 13 AAAA\n\
         @ 60 NSEC @ NS SOA RRSIG NSEC DNSKEY\n{signatures}"
    );
    fs::write(agent.path("zones/old.test.zone"), zone).unwrap();
    let told = "document.getElementById('banners').innerText";
    browser.wait(&format!("{told}.includes('all signatures of the zone old.test. have expired')"));
    browser.wait(&format!("{told}.includes('sign the zone again')"));
    fs::remove_file(agent.path("zones/old.test.zone")).unwrap();
    browser.wait(&format!("{told} === ''"));
    assert_clean(&browser, &agent);
}

#[test]
fn stale_data_is_marked_until_the_agent_is_back() {
    let Some(browser) = Browser::start("stale_data_is_marked_until_the_agent_is_back") else { return };
    // No other test listens on this address, so its port is free for the second agent.
    let first = agent_at(SocketAddr::from(([127, 4, 7, 1], 0)), "");
    let http = first.http();
    browser.open(&url(&first, ""));
    browser.wait(&row_has("web", "1 of 2"));
    drop(first);
    browser.wait("document.getElementById('banners').innerText.includes('Stale')");
    browser.wait("document.getElementById('connection').innerText.includes('stale')");
    browser.wait(&row_has("web", "1 of 2"));
    let agent = agent_at(http, "");
    agent.write_service("more.yaml", "service: more\n");
    browser.wait(&row_has("more", "1 of 1"));
    browser.wait("document.getElementById('banners').innerText === ''");
    browser.wait("document.getElementById('connection').innerText.includes('live')");
}
