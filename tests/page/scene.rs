//! The agent whose page the tests use, and expressions about the page.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use crate::support::{agent::Agent, browser::Browser};

/// A degraded service, a held one, and a healthy one whose texts look like HTML.
pub(crate) const SERVICES: &str = r#"
services:
- {service: web, id: web-1, port: 8080, tags: [v2, eu]}
- {service: web, id: web-2, port: 8081, checks: [{tcp: "127.0.0.1:1", interval: 1h, fall: 1}]}
- {service: mail, enabled: false}
- {service: cache, tags: ["<img src=x onerror=alert(1)>"], meta: {a: "<script>alert(2)</script>"}}
"#;

/// A check that fails at once and is not repeated.
pub(crate) const FAILING: &str = ", checks: [{tcp: \"127.0.0.1:1\", interval: 1h, fall: 1}]";

/// Any free port of the loopback address.
pub(crate) const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Folder of the page's files.
pub(crate) fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/page")
}

/// Starts an agent with [`SERVICES`].
pub(crate) fn agent() -> Agent {
    agent_at(ANY, "")
}

/// Starts an agent with [`SERVICES`] and a token that may read, with its HTTP address and more `http` options.
pub(crate) fn agent_at(http: SocketAddr, options: &str) -> Agent {
    Agent::start_with(&format!("http: {{listen: [\"{http}\"]{options}}}\n"), &[], |folder| {
        fs::write(folder.join("services.d/all.yaml"), SERVICES).unwrap();
        fs::create_dir(folder.join("tokens.d")).unwrap();
        let tokens = "tokens: [{name: eyes, scope: read, token: reads-reads-reads-reads}]\n";
        fs::write(folder.join("tokens.d/all.yaml"), tokens).unwrap();
    })
}

/// Address of a part of the page.
pub(crate) fn url(agent: &Agent, hash: &str) -> String {
    format!("http://{}/ui/{hash}", agent.http())
}

/// Expression: the row of a service contains a text.
pub(crate) fn row_has(service: &str, text: &str) -> String {
    format!("document.querySelector('a[href=\"#/services/{service}\"]')?.closest('tr').innerText.includes('{text}')")
}

/// Expression: the rows of the list have these names, in this order.
pub(crate) fn order_is(names: &[&str]) -> String {
    let names = names.join(" ");
    format!("[...document.querySelectorAll('tbody a.row')].map((link) => link.innerText).join(' ') === '{names}'")
}

/// The console has no error, and every request went to the agent.
#[track_caller]
pub(crate) fn assert_clean(browser: &Browser, agent: &Agent) {
    assert_eq!(browser.console_errors(), Vec::<String>::new());
    let own = format!("http://{}/", agent.http());
    let requests = browser.requests();
    assert!(requests.iter().any(|url| url.starts_with(&own)), "{requests:?}");
    let foreign: Vec<_> = requests.iter().filter(|url| !url.starts_with(&own)).collect();
    assert!(foreign.is_empty(), "{foreign:?}");
}
