//! A Chromium without a window, driven by [WebDriver](https://www.w3.org/TR/webdriver2/) and what chromedriver adds to it.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{agent::DEADLINE, skip};

/// What the browser is started with: no sandbox, since tests run as root; and nothing that asks anybody of its own accord.
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

/// A name of somebody else that leads to this host, as after DNS rebinding.
pub const STRANGER: &str = "evil.example";

/// A browser with one window, ended with its test.
pub struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    _profile: TempDir,
}

impl Browser {
    /// Starts one. `None`: it is not installed, and `test` says that it is skipped.
    pub fn start(test: &str) -> Option<Self> {
        if !skip::tool(test, "chromium", "chromium") || !skip::tool(test, "chromedriver", "chromium-driver") {
            return None;
        }
        let profile = tempfile::tempdir().unwrap();
        let mut command = Command::new("chromedriver");
        let mut driver = command.arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines().map_while(Result::ok);
        let port =
            lines.find_map(|line| line.split_once("successfully on port ")?.1.trim_end_matches('.').parse().ok());
        let address = SocketAddr::from(([127, 0, 0, 1], port.expect("chromedriver says its port")));
        // What it says later is read by nobody, and must not fill the pipe.
        thread::spawn(move || lines.for_each(drop));
        let mut browser = Self { driver, address, session: String::new(), _profile: profile };
        let folder = format!("--user-data-dir={}", browser._profile.path().display());
        let arguments: Vec<&str> = ARGUMENTS.iter().copied().chain([&*folder]).collect();
        let options = json!({"args": arguments, "perfLoggingPrefs": {"enableNetwork": true}});
        let logs = json!({"browser": "ALL", "performance": "ALL"});
        let wanted = json!({"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": logs});
        let session = browser.command("POST", "/session", &json!({"capabilities": {"alwaysMatch": wanted}}));
        browser.session = session["sessionId"].as_str().unwrap().to_owned();
        // Instead of its own first page, which asks for much.
        browser.open("about:blank");
        browser.asked();
        Some(browser)
    }

    /// Goes there.
    pub fn open(&self, url: &str) {
        self.order("url", &json!({"url": url}));
    }

    /// Looks at the page on a screen of such a width and height, in `light` or `dark`, without movement.
    pub fn screen(&self, width: u32, height: u32, scheme: &str) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500});
        self.devtools("Emulation.setDeviceMetricsOverride", &metrics);
        let features = json!([
            {"name": "prefers-color-scheme", "value": scheme}, {"name": "prefers-reduced-motion", "value": "reduce"},
        ]);
        self.devtools("Emulation.setEmulatedMedia", &json!({"features": features}));
    }

    /// Runs the body of a function in the page, with arguments, and returns its result, or what that promises.
    pub fn run(&self, script: &str, arguments: &Value) -> Value {
        self.order("execute/sync", &json!({"script": script, "args": arguments}))
    }

    /// Waits until an expression in the page is true.
    pub fn wait(&self, expression: &str) {
        let deadline = Instant::now() + DEADLINE;
        // A page that is just being left has no result.
        while self.run(&format!("return Boolean({expression})"), &json!([])) != json!(true) {
            if Instant::now() >= deadline {
                let text = self.run("return document.body.innerText", &json!([]));
                panic!("never true: {expression}\nthe page: {text}\nits console: {:?}", self.complaints());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// What the visible text of the first element is that a CSS selector finds.
    pub fn text(&self, selector: &str) -> String {
        let script = "return document.querySelector(arguments[0])?.innerText ?? null";
        let text = self.run(script, &json!([selector]));
        text.as_str().unwrap_or_else(|| panic!("no {selector}")).to_owned()
    }

    /// Presses keys one after the other, as their names are in `KeyboardEvent.key`.
    pub fn press(&self, keys: &[&str]) {
        let actions: Vec<Value> = keys
            .iter()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": code(key)})))
            .collect();
        self.order("actions", &json!({"actions": [{"type": "key", "id": "keyboard", "actions": actions}]}));
    }

    /// Goes back in the history.
    pub fn back(&self) {
        self.order("back", &json!({}));
    }

    /// What the console has of errors and warnings since the last call: of scripts, of the policy, of failed requests.
    pub fn complaints(&self) -> Vec<String> {
        let lines = self.log("browser");
        let bad = lines.iter().filter(|line| line["level"] == "SEVERE" || line["level"] == "WARNING");
        bad.map(|line| line["message"].as_str().unwrap().to_owned()).collect()
    }

    /// Every address that was asked for since the last call.
    pub fn asked(&self) -> Vec<String> {
        let url = |line: &Value| {
            let event: Value = serde_json::from_str(line["message"].as_str()?).ok()?;
            let message = &event["message"];
            let asked = message["method"] == "Network.requestWillBeSent";
            asked.then(|| message["params"]["request"]["url"].as_str().map(str::to_owned)).flatten()
        };
        self.log("performance").iter().filter_map(url).collect()
    }

    fn log(&self, kind: &str) -> Vec<Value> {
        self.order("se/log", &json!({"type": kind})).as_array().cloned().unwrap_or_default()
    }

    fn devtools(&self, command: &str, parameters: &Value) {
        self.order("goog/cdp/execute", &json!({"cmd": command, "params": parameters}));
    }

    fn order(&self, what: &str, body: &Value) -> Value {
        self.command("POST", &format!("/session/{}/{what}", self.session), body)
    }

    fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, answer) = self.exchange(method, path, &body.to_string());
        let mut answer: Value =
            serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{path}: {error}: {answer}"));
        assert_eq!(status, 200, "{path} {body}: {}", answer["value"]["message"]);
        answer["value"].take()
    }

    fn exchange(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let (host, length) = (self.address, body.len());
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        let mut reader = BufReader::new(stream);
        let (mut status, mut length) = (0, 0);
        for line in reader.by_ref().lines().map(Result::unwrap).take_while(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
                status = rest[..3].parse().unwrap();
            } else if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap();
            }
        }
        let mut answer = vec![0; length];
        reader.read_exact(&mut answer).unwrap();
        (status, String::from_utf8(answer).unwrap())
    }
}

/// A key as WebDriver writes it (§17.4.2).
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
        // The driver ends the browser; it would not if it were ended first. A test that failed may have left neither.
        if let Ok(mut stream) = TcpStream::connect(self.address) {
            let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
            let _ = write!(stream, "DELETE /session/{} HTTP/1.1\r\nHost: {}\r\n\r\n", self.session, self.address);
            let _ = stream.read(&mut [0; 1024]);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
