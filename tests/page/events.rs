//! The lists of events.

use serde_json::json;

use crate::{
    scene::{FAILING, SERVICES, agent, assert_clean, url},
    support::browser::Browser,
};

#[test]
fn events_are_plain_lines_newest_first_that_link_only_names() {
    let Some(browser) = Browser::start("events_are_plain_lines_newest_first_that_link_only_names") else { return };
    let agent = agent();
    agent.write_service("all.yaml", &SERVICES.replace("{service: cache", &format!("{{service: cache{FAILING}")));
    agent.write_service("broken.yaml", "service: web\nprot: 80\n");
    browser.screen(1280, 800, "light");
    browser.open(&url(&agent, "#/events"));
    for kind in ["instance-down", "file-problem", "file-reload"] {
        browser.wait(&format!("document.querySelector('.events')?.innerText.includes('{kind}')"));
    }
    let times = "return [...document.querySelectorAll('.events time')].map((time) => time.dateTime)";
    let times = browser.run(times, &json!([]));
    assert!(times.as_array().unwrap().is_sorted_by(|one, next| one.as_str() >= next.as_str()), "{times}");
    // A line is its time, its kind and its text; nothing is underlined; a link is a name and leads to its page.
    let faults = "return [...document.querySelectorAll('.events *')]
        .filter((element) => getComputedStyle(element).textDecorationLine !== 'none' && element.checkVisibility()
            || element.matches('a') && !['services', 'nodes'].some((part) => element.hash === `#/${part}/${element.innerText}`))
        .map((element) => element.parentElement.innerText)";
    assert_eq!(browser.run(faults, &json!([])), json!([]));
    browser.wait("document.querySelector('.events a[href=\"#/services/cache\"]')");
    browser.wait("document.querySelector('.events a[href=\"#/nodes/host-a\"]')");
    let times = "return [...document.querySelectorAll('.events time')]
        .every((time) => getComputedStyle(time).color !== getComputedStyle(document.body).color)";
    assert_eq!(browser.run(times, &json!([])), json!(true), "times are dimmed");
    // On its own page a service is no link.
    browser.open(&url(&agent, "#/services/cache"));
    browser.wait("document.querySelector('section .events')?.innerText.includes('cache/cache')");
    browser.wait("document.querySelector('section .events a[href=\"#/nodes/host-a\"]')");
    browser.wait("!document.querySelector('section .events a[href^=\"#/services/\"]')");
    assert_clean(&browser, &agent);
}
