//! The pictures of the page in the documentation: made on request, otherwise checked.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use serde_json::json;

use crate::{
    scene::{order_is, row_has, url},
    support::{agent::Agent, browser::Browser, http::put, voters::Voters},
};

/// Set, it makes the tests write the pictures.
const WRITE: &str = "MUSTER_PAGE_IMAGES";
/// Width and height of a picture, in pixels.
const SIZE: (u32, u32) = (1280, 800);
/// Greatest size of a picture, in octets.
const MAX_OCTETS: usize = 150_000;

/// The nodes of a small shop, with the services of each.
const NODES: [(&str, &str); 3] = [
    (
        "edge-1",
        "services:
- {service: gateway, id: gateway-1, port: 443, tags: [public, tls]}
- {service: web, id: web-1, port: 8080, tags: [v42]}
- {service: auth, id: auth-1, port: 9000, tags: [v7]}
- {service: checkout, id: checkout-1, port: 9100, tags: [v18]}
",
    ),
    (
        "app-1",
        "services:
- {service: web, id: web-2, port: 8080, tags: [v42]}
- {service: auth, id: auth-2, port: 9000, tags: [v7]}
- {service: checkout, id: checkout-2, port: 9100, tags: [v18]}
- {service: search, id: search-1, port: 9200, tags: [v3]}
- {service: billing, id: billing-1, port: 9400, tags: [v11]}
- {service: images, id: images-1, port: 9500, tags: [v5, resize]}
- {service: mail, id: mail-1, port: 25, tags: [smtp]}
",
    ),
    (
        "db-1",
        "services:
- {service: postgres, id: postgres-1, port: 5432, tags: [primary]}
- {service: redis, id: redis-1, port: 6379, tags: [cache]}
- {service: nats, id: nats-1, port: 4222, tags: [queue]}
- {service: search, id: search-2, port: 9200, tags: [v3]}
- {service: metrics, id: metrics-1, port: 9090}
",
    ),
];

/// Starts the nodes as one cluster.
fn cluster() -> Vec<Agent> {
    let mut agents: Vec<Agent> = Vec::new();
    for (number, (node, services)) in (1..).zip(NODES) {
        let join: Vec<String> = agents.iter().map(|agent| agent.gossip().to_string()).collect();
        agents.push(Agent::start_with("", &[], |folder| {
            let config = format!(
                "node: {node}\ndatacenter: fra1\nadvertise: 10.20.0.1{number}\ndata_dir: data\n\
                 services_dir: services.d\nzones_dir: zones\ndns: {{listen: [127.0.0.1:0]}}\n\
                 http: {{listen: [127.0.0.1:0]}}\ngossip: {{listen: 127.0.0.1:0, join: {join:?}}}\n\
                 resolver: {{allow: []}}\n"
            );
            fs::write(folder.join("muster.yaml"), config).unwrap();
            fs::write(folder.join("services.d/shop.yaml"), services).unwrap();
        }));
    }
    agents
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/images").join(name)
}

/// Checks the window, and writes it to the file on request.
#[track_caller]
fn take(browser: &Browser, name: &str) {
    let picture = browser.screenshot();
    check(&picture, name);
    if env::var_os(WRITE).is_some() {
        fs::create_dir_all(file("")).unwrap();
        fs::write(file(name), picture).unwrap();
    }
    check(&fs::read(file(name)).unwrap_or_else(|error| panic!("{name}: {error}; set {WRITE}")), name);
}

/// A picture is a PNG of the expected width and height (PNG §11.2.1) and not too large.
#[track_caller]
fn check(picture: &[u8], name: &str) {
    assert_eq!(picture.get(..8), Some(&b"\x89PNG\r\n\x1a\n"[..]), "{name}");
    let number = |at: usize| u32::from_be_bytes(picture[at..at + 4].try_into().unwrap());
    assert_eq!((number(16), number(20)), SIZE, "{name}");
    assert!(picture.len() <= MAX_OCTETS, "{name}: {} octets", picture.len());
}

#[test]
fn pictures_show_a_healthy_cluster_and_a_problem() {
    let test = "pictures_show_a_healthy_cluster_and_a_problem";
    let Some(browser) = Browser::start(test) else { return };
    let agents = cluster();
    let (page, database) = (&agents[0], &agents[2]);
    let report = |check: &str, status: &str, output: &str| {
        let body = json!({"Status": status, "Output": output});
        put(database, &format!("agent/check/update/{check}"), &body);
    };
    let service = json!({
        "Name": "checkout", "ID": "checkout-3", "Port": 9100, "Tags": ["v19"],
        "Checks": [
            {"CheckID": "ready", "Name": "GET /ready", "TTL": "1h", "Status": "passing"},
            {"CheckID": "queue", "Name": "queue depth", "TTL": "1h", "Status": "passing"},
        ],
    });
    put(database, "agent/service/register", &service);
    report("ready", "passing", "200 OK");
    report("queue", "passing", "12 orders waiting");
    browser.screen(SIZE.0, SIZE.1, "light");
    browser.open(&url(page, ""));
    browser.wait("document.querySelector('.overview').textContent === '12 of 12 services healthy · 3 nodes'");
    let names = ["auth", "billing", "checkout", "gateway", "images", "mail", "metrics"];
    browser.wait(&order_is(&[&names[..], &["nats", "postgres", "redis", "search", "web"]].concat()));
    browser.wait(&row_has("checkout", "3 of 3"));
    browser.wait(&row_has("search", "2 of 2"));
    take(&browser, "page-services.png");

    report("ready", "critical", "503 Service Unavailable: connection pool exhausted, 64 of 64 in use");
    browser.wait(&row_has("checkout", "2 of 3"));
    browser.wait("document.querySelector('tbody tr').innerText.includes('checkout')");
    browser.open(&url(page, "#/services/checkout"));
    browser.wait("document.querySelector('.instances tbody').innerText.includes('checkout-3')");
    browser.wait("document.querySelector('.checks details').open");
    browser.wait("document.querySelector('section .events')?.innerText.includes('instance-down')");
    take(&browser, "page-problem.png");
}

#[test]
fn picture_shows_a_key_with_its_lock_and_value() {
    let Some(browser) = Browser::start("picture_shows_a_key_with_its_lock_and_value") else { return };
    let voters = Voters::start();
    let agent = voters.agent(0);
    let session = json!({"Name": "checkout-2", "TTL": "30s"});
    let session = put(agent, "session/create", &session).json()["ID"].as_str().unwrap().to_owned();
    let value = json!({"leader": "checkout-2", "address": "10.20.0.12:9100", "since": "2026-03-01T08:00:00Z"});
    put(agent, &format!("kv/shop/checkout/leader?acquire={session}"), &value);
    browser.screen(SIZE.0, SIZE.1, "light");
    browser.open(&url(agent, "#/store/key/shop/checkout/leader"));
    browser.wait("document.querySelector('main dl')?.innerText.includes('held')");
    browser.run("document.querySelector('.value button').click()", &json!([]));
    browser.wait("document.querySelector('.value pre')?.innerText.includes('10.20.0.12')");
    browser.run("document.activeElement.blur()", &json!([]));
    take(&browser, "page-store.png");
}
