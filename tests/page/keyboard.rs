//! The page without a mouse.

use serde_json::json;

use crate::{
    scene::{agent, assert_clean, row_has, url},
    support::browser::Browser,
};

#[test]
fn every_part_is_reachable_by_keyboard() {
    let Some(browser) = Browser::start("every_part_is_reachable_by_keyboard") else { return };
    let agent = agent();
    let focus = |expected: &str| browser.wait(&format!("document.activeElement?.innerText === '{expected}'"));
    browser.open(&url(&agent, ""));
    browser.wait(&row_has("web", "1 of 2"));
    browser.press(&["/"]);
    browser.wait("document.activeElement.type === 'search'");
    browser.press(&["w", "e", "b"]);
    browser.wait("[...document.querySelectorAll('tbody tr')].filter((row) => row.checkVisibility()).length === 1");
    browser.wait("document.querySelector('.matches').innerText === '1 of 3 services'");
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
    // The list is as it was left: the same filter, and the focus on the same row.
    browser.wait("location.hash === '#/services?q=web' && document.querySelector('input').value === 'web'");
    focus("web");
    browser.press(&["/", "Escape"]);
    browser.wait("location.hash === '#/services'");
    browser.press(&["ArrowDown", "End"]);
    focus("cache");
    browser.press(&["Home"]);
    focus("web");
    // From the top of the page, Tab alone reaches every part.
    browser.run("document.querySelector('h1').focus(); document.activeElement.blur(); scrollTo(0, 0)", &json!([]));
    browser.open(&url(&agent, "?again"));
    browser.wait(&row_has("web", "1 of 2"));
    for name in ["Skip to content", "muster", "Services", "Nodes", "Events", "Agent"] {
        browser.press(&["Tab"]);
        focus(name);
        browser.wait(outline);
    }
    browser.press(&["Enter"]);
    browser.wait("location.hash === '#/agent' && document.title.startsWith('Agent')");
    assert_clean(&browser, &agent);
}
