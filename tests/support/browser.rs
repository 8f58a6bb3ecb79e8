//! Headless Chromium, driven by [WebDriver](https://www.w3.org/TR/webdriver2/) with the extensions of chromedriver.

use std::{
    net::SocketAddr,
    process::{Child, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    http, process, run, skip,
    wait::{self, DEADLINE},
};

/// Arguments of the browser: no sandbox, because tests run as root, and no requests of the browser's own.
const ARGUMENTS: &[&str] = &[
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP evil.example 127.0.0.1",
];

/// A foreign name that resolves to this host, as after DNS rebinding.
pub const FOREIGN: &str = "evil.example";

/// Browser with one window, killed on drop.
pub struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    _profile: TempDir,
}

impl Browser {
    /// Starts a browser. Returns `None` and reports `test` as skipped if Chromium is not installed.
    pub fn start(test: &str) -> Option<Self> {
        if !skip::tool(test, "chromium", "chromium") || !skip::tool(test, "chromedriver", "chromium-driver") {
            return None;
        }
        let profile = run::temp_dir();
        let mut command = process::command("chromedriver");
        let mut driver = command.arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = process::lines(driver.stdout.take().unwrap());
        let port = wait::poll(|| {
            let line = lines.recv_timeout(DEADLINE).expect("the port of chromedriver");
            let port =
                line.split_once("successfully on port ").map(|(_, port)| port.trim_end_matches('.').parse().unwrap());
            port.ok_or(line)
        });
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut browser = Self { driver, address, session: String::new(), _profile: profile };
        let folder = format!("--user-data-dir={}", browser._profile.path().display());
        let arguments: Vec<&str> = ARGUMENTS.iter().copied().chain([&*folder]).collect();
        let options = json!({"args": arguments, "perfLoggingPrefs": {"enableNetwork": true}});
        let logs = json!({"browser": "ALL", "performance": "ALL"});
        let wanted = json!({"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": logs});
        let session = browser.command("POST", "/session", &json!({"capabilities": {"alwaysMatch": wanted}}));
        browser.session = session["sessionId"].as_str().unwrap().to_owned();
        // The browser's initial page makes requests.
        browser.open("about:blank");
        browser.requests();
        Some(browser)
    }

    /// Opens an address.
    pub fn open(&self, url: &str) {
        self.execute("url", &json!({"url": url}));
    }

    /// Sets the screen size in CSS pixels and the colour scheme, `light` or `dark`; reduces motion.
    pub fn screen(&self, width: u32, height: u32, scheme: &str) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500});
        self.devtools("Emulation.setDeviceMetricsOverride", &metrics);
        let features = json!([
            {"name": "prefers-color-scheme", "value": scheme}, {"name": "prefers-reduced-motion", "value": "reduce"},
        ]);
        self.devtools("Emulation.setEmulatedMedia", &json!({"features": features}));
    }

    /// Runs the body of a function in the page and returns its result; a promise is awaited.
    pub fn run(&self, script: &str, arguments: &Value) -> Value {
        self.execute("execute/sync", &json!({"script": script, "args": arguments}))
    }

    /// Waits until an expression in the page is true. An expression that throws, for example because an element is not
    /// there yet, is not true; the failure contains what it threw last.
    pub fn wait(&self, expression: &str) {
        let script = format!("try {{ return Boolean({expression}) }} catch (error) {{ return String(error) }}");
        // During a navigation, a script has no result.
        let mut last = Value::Null;
        let holds = || {
            last = self.run(&script, &json!([]));
            last == json!(true)
        };
        if !wait::holds_in_time(holds) {
            let text = self.run("return document.body.innerText", &json!([]));
            panic!("not true: {expression}: {last}\npage: {text}\nconsole: {:?}", self.console_errors());
        }
    }

    /// Returns the visible text of the first element that matches a CSS selector.
    pub fn text(&self, selector: &str) -> String {
        let script = "return document.querySelector(arguments[0])?.innerText ?? null";
        let text = self.run(script, &json!([selector]));
        text.as_str().unwrap_or_else(|| panic!("no {selector}")).to_owned()
    }

    /// Presses keys in order, by their names in `KeyboardEvent.key`.
    pub fn press(&self, keys: &[&str]) {
        let actions: Vec<Value> = keys
            .iter()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": code(key)})))
            .collect();
        self.execute("actions", &json!({"actions": [{"type": "key", "id": "keyboard", "actions": actions}]}));
    }

    /// Takes a screenshot of the window, as PNG.
    pub fn screenshot(&self) -> Vec<u8> {
        let picture = self.devtools("Page.captureScreenshot", &json!({"format": "png"}));
        decode_base64(picture["data"].as_str().unwrap())
    }

    /// Goes back in the history.
    pub fn back(&self) {
        self.execute("back", &json!({}));
    }

    /// Returns the console's errors and warnings since the last call: scripts, security policy, failed requests.
    pub fn console_errors(&self) -> Vec<String> {
        let lines = self.log("browser");
        let bad = lines.iter().filter(|line| line["level"] == "SEVERE" || line["level"] == "WARNING");
        bad.map(|line| line["message"].as_str().unwrap().to_owned()).collect()
    }

    /// Returns the URL of every request since the last call.
    pub fn requests(&self) -> Vec<String> {
        let url = |line: &Value| {
            let event: Value = serde_json::from_str(line["message"].as_str()?).ok()?;
            let message = &event["message"];
            let is_request = message["method"] == "Network.requestWillBeSent";
            is_request.then(|| message["params"]["request"]["url"].as_str().map(str::to_owned)).flatten()
        };
        self.log("performance").iter().filter_map(url).collect()
    }

    fn log(&self, kind: &str) -> Vec<Value> {
        self.execute("se/log", &json!({"type": kind})).as_array().cloned().unwrap_or_default()
    }

    fn devtools(&self, command: &str, parameters: &Value) -> Value {
        self.execute("goog/cdp/execute", &json!({"cmd": command, "params": parameters}))
    }

    fn execute(&self, what: &str, body: &Value) -> Value {
        self.command("POST", &format!("/session/{}/{what}", self.session), body)
    }

    fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = http::ask(self.address, method, path, &body.to_string());
        let mut value = answer.json();
        assert_eq!(answer.status, 200, "{path} {body}: {}", value["value"]["message"]);
        value["value"].take()
    }
}

/// Decodes base64 (RFC 4648 §4).
fn decode_base64(text: &str) -> Vec<u8> {
    let alphabet = ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(['+', '/']).collect::<String>();
    let digits: Vec<u32> =
        text.trim_end_matches('=').chars().map(|digit| alphabet.find(digit).unwrap() as u32).collect();
    let octets = |group: &[u32]| {
        let bits = group.iter().enumerate().map(|(at, digit)| digit << (18 - 6 * at)).sum::<u32>();
        bits.to_be_bytes().into_iter().skip(1).take(group.len() - 1).collect::<Vec<u8>>()
    };
    digits.chunks(4).flat_map(octets).collect()
}

/// Returns the code of a key in WebDriver (§17.4.2).
fn code(key: &str) -> &str {
    match key {
        "Tab" => "\u{e004}",
        "Enter" => "\u{e007}",
        "Escape" => "\u{e00c}",
        "End" => "\u{e010}",
        "Home" => "\u{e011}",
        "ArrowUp" => "\u{e013}",
        "ArrowDown" => "\u{e015}",
        other => other,
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Deleting the session ends the browser; killing the driver does not.
        http::try_ask(self.address, "DELETE", &format!("/session/{}", self.session), "");
        process::kill_now(&mut self.driver);
    }
}
