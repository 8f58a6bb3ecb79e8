//! The page against untrusted text, foreign pages and missing tokens.

use serde_json::json;

use crate::{
    scene::{ANY, agent, agent_at, assert_clean, row_has, url},
    support::{
        browser::{Browser, FOREIGN},
        http::put,
    },
};

#[test]
fn texts_of_services_are_never_parsed_as_html() {
    let Some(browser) = Browser::start("texts_of_services_are_never_parsed_as_html") else { return };
    let agent = agent();
    let hostile = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>";
    let register = json!({
        "Name": "bad", "ID": hostile, "Tags": [hostile, "javascript:alert(1)"],
        "Check": {"TTL": "1h", "Name": hostile, "Status": "critical"},
    });
    put(&agent, "agent/service/register", &register);
    let id: String = hostile.bytes().map(|octet| format!("%{octet:02x}")).collect();
    put(&agent, &format!("agent/check/update/service:{id}"), &json!({"Status": "critical", "Output": hostile}));
    browser.open(&url(&agent, "#/services"));
    browser.wait(&row_has("bad", "<img src=x onerror="));
    browser.open(&url(&agent, "#/services/bad"));
    browser.wait("document.querySelector('.checks .output')?.innerText.includes('<img src=x onerror=')");
    // The address is untrusted as well.
    browser.open(&url(&agent, "#/services/%3Cimg%20src=x%20onerror=alert(1)%3E"));
    browser.wait("document.querySelector('h1').innerText === '<img src=x onerror=alert(1)>'");
    browser.wait("document.querySelector('.summary')?.innerText.includes('NXDOMAIN')");
    assert_eq!(browser.run("return document.querySelectorAll('img, body script').length", &json!([])), json!(0));
    assert_ne!(browser.run("return document.title", &json!([])), json!("owned"));
    assert_clean(&browser, &agent);
}

#[test]
fn other_origins_and_rebound_names_read_nothing() {
    let Some(browser) = Browser::start("other_origins_and_rebound_names_read_nothing") else { return };
    let agent = agent();
    let (own, port) = (agent.http(), agent.http().port());
    let read = "return fetch(arguments[0]).then((answer) => answer.text(), (error) => error.name)";
    browser.open(&format!("http://{own}/ui/"));
    let text = browser.run(read, &json!([format!("http://{own}/v1/catalog/services")]));
    assert!(text.as_str().unwrap().contains("web"), "{text}");
    // DNS rebinding: a foreign name that resolves to this host is refused.
    for path in ["/ui/", "/v1/catalog/services"] {
        browser.open(&format!("http://{FOREIGN}:{port}{path}"));
        let text = browser.text("body");
        assert!(text.contains("Host") && text.contains("localhost, host-a"), "{path}: {text}");
    }
    let text = browser.run(read, &json!(["/v1/catalog/services"]));
    assert!(text.as_str().unwrap().contains("localhost, host-a"), "{text}");
    // A foreign page that requests the agent by its address gets no permission (CORS).
    let text = browser.run(read, &json!([format!("http://{own}/v1/catalog/services")]));
    assert_eq!(text, json!("TypeError"));
}

#[test]
fn token_is_requested_where_the_agent_requires_one() {
    let Some(browser) = Browser::start("token_is_requested_where_the_agent_requires_one") else { return };
    let agent = agent_at(ANY, ", tokens_dir: tokens.d");
    browser.open(&url(&agent, "#/services/web"));
    browser.wait("document.querySelector('dialog').open && document.activeElement.id === 'token'");
    let enter = |token: &str| {
        let keys: Vec<String> = token.chars().map(String::from).collect();
        browser.press(&keys.iter().map(String::as_str).chain(["Enter"]).collect::<Vec<_>>());
    };
    enter("wrong");
    browser.wait("document.getElementById('token-error').innerText.length > 0");
    enter("reads-reads-reads-reads");
    browser.wait("document.querySelector('.summary')?.innerText.startsWith('1 of 2')");
    browser.wait("!document.querySelector('dialog').open && document.getElementById('banners').innerText === ''");
    // The token is sent in a header, never in an address, and is stored in the tab only.
    let requests = browser.requests();
    assert!(requests.iter().all(|url| !url.contains("reads")), "{requests:?}");
    assert_eq!(browser.run("return document.cookie + localStorage.length", &json!([])), json!("0"));
    browser.open(&url(&agent, "#/agent"));
    browser.wait("[...document.querySelectorAll('button')].some((button) => button.innerText === 'Forget the token')");
    browser.run("document.querySelector('[data-action=forget]').click()", &json!([]));
    browser.wait("document.querySelector('dialog').open && sessionStorage.length === 0");
    browser.press(&["Escape"]);
    browser.wait("document.getElementById('banners').innerText.includes('No access')");
    browser.wait("document.getElementById('connection').innerText.includes('no token')");
}
