//! Screens from a phone to a wide one, in light and dark colours.

use serde_json::json;

use crate::{
    scene::{agent, assert_clean, row_has, url},
    support::{agent::Agent, browser::Browser},
};

#[test]
fn every_part_fits_its_screen_with_enough_contrast() {
    let Some(browser) = Browser::start("every_part_fits_its_screen_with_enough_contrast") else { return };
    let agent = agent();
    let long = "a-name-as-long-as-a-label-may-be-which-is-sixty-three-octets-ok";
    agent.write_service("long.yaml", &format!("services:\n- {{service: {long}, id: {long}, tags: [{long}]}}\n"));
    let parts: [(&str, &str); 6] = [
        ("#/services", &row_has(long, "1 of 1")),
        ("#/services/web", "document.querySelector('.checks')"),
        (&format!("#/services/{long}"), "document.querySelector('tbody')"),
        ("#/nodes", "document.querySelector('tbody tr')"),
        ("#/events", "document.querySelector('h1').innerText === 'Events'"),
        ("#/agent", "document.querySelector('dl')"),
    ];
    assert_fits(&browser, &agent, &parts);
    assert_clean(&browser, &agent);
}

/// Parts of the page, each with an expression that is true when it is complete, fit narrow and wide screens, and their texts have
/// contrast.
#[track_caller]
pub(crate) fn assert_fits(browser: &Browser, agent: &Agent, parts: &[(&str, &str)]) {
    for (width, height) in [(360, 740), (1000, 700), (1600, 900)] {
        for scheme in ["light", "dark"] {
            browser.screen(width, height, scheme);
            for (hash, ready) in parts {
                browser.open(&url(agent, hash));
                browser.wait(ready);
                let case = format!("{hash} at {width} in {scheme}");
                let fits = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
                assert_eq!(browser.run(fits, &json!([])), json!(0), "{case} is too wide");
                assert_eq!(browser.run("return innerWidth", &json!([])), json!(width), "{case}");
                assert_eq!(browser.run(include_str!("contrast.js"), &json!([])), json!([]), "{case}");
            }
        }
    }
}
