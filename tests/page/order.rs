//! The order of lists and the summary line above them.

use serde_json::json;

use crate::{
    scene::{FAILING, SERVICES, agent, assert_clean, order_is, row_has, url},
    support::browser::Browser,
};

/// Expression: the summary line, without the signs of states.
fn overview_is(text: &str) -> String {
    format!("document.querySelector('.overview')?.textContent.replace(/[✓!✕–]/g, '') === '{text}'")
}

#[test]
fn services_with_problems_come_first_by_severity_then_name() {
    let Some(browser) = Browser::start("services_with_problems_come_first_by_severity_then_name") else { return };
    let agent = agent();
    let more = format!("services:\n- {{service: zebra{FAILING}}}\n- {{service: yak{FAILING}}}\n- {{service: api}}\n");
    agent.write_service("more.yaml", &more);
    browser.open(&url(&agent, ""));
    browser.wait(&order_is(&["yak", "zebra", "web", "mail", "api", "cache"]));
    for (service, word) in [("yak", "down"), ("web", "degraded"), ("mail", "held"), ("api", "healthy")] {
        browser.wait(&row_has(service, word));
    }
    browser.wait("document.querySelector('.choice').innerText.includes('Problems 3')");
    // No reader is active: a service that recovers moves down at once, and its row is the same element.
    browser.run("window.zebra = document.querySelector('a[href=\"#/services/zebra\"]')", &json!([]));
    agent.write_service("more.yaml", &more.replacen(&format!("zebra{FAILING}"), "zebra", 1));
    browser.wait(&order_is(&["yak", "web", "mail", "api", "cache", "zebra"]));
    assert_eq!(browser.run("return zebra.isConnected", &json!([])), json!(true));
    // Instances are sorted as well.
    browser.open(&url(&agent, "#/services/web"));
    browser.wait("document.querySelector('tbody')?.innerText.includes('web-2')");
    browser.wait(&overview_is("2 instances · 1 critical · 1 passing"));
    assert_clean(&browser, &agent);
}

#[test]
fn rows_keep_their_places_while_the_reader_is_active() {
    let Some(browser) = Browser::start("rows_keep_their_places_while_the_reader_is_active") else { return };
    let agent = agent();
    browser.open(&url(&agent, ""));
    browser.wait(&order_is(&["web", "mail", "cache"]));
    browser.press(&["ArrowDown", "ArrowDown", "ArrowDown"]);
    browser.wait("document.activeElement.innerText === 'cache'");
    agent.write_service("all.yaml", &SERVICES.replace("{service: cache", &format!("{{service: cache{FAILING}")));
    browser.wait(&row_has("cache", "down"));
    browser.wait(&order_is(&["web", "mail", "cache"]));
    browser.wait(&overview_is("0 of 3 services healthy · 1 without a healthy instance · 1 degraded · 1 held · 1 node"));
    // The reader is idle from now on: the list is sorted, and the focus stays on its row.
    browser.wait(&order_is(&["cache", "web", "mail"]));
    browser.wait("document.activeElement.innerText === 'cache'");
    assert_clean(&browser, &agent);
}

#[test]
fn overview_counts_services_by_health_and_nodes() {
    let Some(browser) = Browser::start("overview_counts_services_by_health_and_nodes") else { return };
    let agent = agent();
    browser.open(&url(&agent, ""));
    browser.wait(&overview_is("1 of 3 services healthy · 1 degraded · 1 held · 1 node"));
    // The filter hides rows and does not change the summary.
    browser.press(&["/", "m", "a", "i", "l"]);
    browser.wait("document.querySelector('.matches').innerText === '1 of 3 services'");
    browser.wait(&overview_is("1 of 3 services healthy · 1 degraded · 1 held · 1 node"));
    agent.write_service("all.yaml", "services: [{service: web}, {service: mail}]\n");
    browser.wait(&overview_is("2 of 2 services healthy · 1 node"));
    browser.run("document.querySelector('.overview a').click()", &json!([]));
    browser.wait("location.hash === '#/nodes'");
    browser.wait(&overview_is("1 node"));
    // The line counts unreachable nodes.
    let line = "return import(new URL('overview.js', document.baseURI)).then(({ nodesOverview }) => \
                nodesOverview({ alive: 9, gone: 1, held: 1, suspect: 1, left: 2 }, 3, [{ Status: 'passing' }, { Status: 'gone' }]).flat()
                  .map((part) => part.textContent ?? part).join('').replace(/[✓!✕–]/g, ''))";
    let expected =
        "12 nodes, 2 unreachable · 1 suspect · 3 with a different view · 2 left · 2 external nodes · 1 of them failing";
    assert_eq!(browser.run(line, &json!([])), json!(expected));
    assert_clean(&browser, &agent);
}
