//! HAProxy: servers from SRV records.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::SocketAddr,
    ops::RangeInclusive,
    os::unix::net::UnixStream,
    path::PathBuf,
};

use serde_json::json;

use crate::{
    scene::{Scene, listen},
    support::{process, program::Program, skip},
};

/// Starts HAProxy with the document's configuration, changed by `change`, and a frontend on `listen`.
fn start(scene: &Scene, listen: SocketAddr, change: impl FnOnce(String) -> String) -> (Program, Runtime) {
    let socket = scene.folder.path().join("socket");
    let config = change(scene.configuration("haproxy", listen));
    let text = format!(
        "global\n log stdout format raw local0 notice\n stats socket {} level admin\n nbthread 1\n\
         defaults\n mode http\n log global\n timeout connect 5s\n timeout client 20s\n timeout server 20s\n\
         frontend web\n bind {listen}\n default_backend web\n{config}",
        socket.display()
    );
    let mut command = process::command("haproxy");
    command.arg("-f").arg(scene.write("haproxy.cfg", &text));
    (scene.program(command), Runtime(socket))
}

/// Client of HAProxy's Runtime API.
struct Runtime(PathBuf);

impl Runtime {
    /// Runs a command and returns its output; empty if HAProxy does not run yet.
    fn ask(&self, text: &str) -> String {
        let Ok(mut stream) = UnixStream::connect(&self.0) else { return String::new() };
        stream.write_all(format!("{text}\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Returns the servers that get traffic: address and port, with the template slot and the weight of each.
    fn servers(&self) -> BTreeMap<String, (String, u32)> {
        const UP: &str = "2";
        let answer = self.ask("show servers state web");
        let rows = answer.lines().skip(2).map(|line| line.split(' ').collect::<Vec<_>>());
        let up = rows.filter(|fields| fields.get(5) == Some(&UP));
        up.map(|fields| (format!("{}:{}", fields[4], fields[18]), (fields[3].to_owned(), fields[7].parse().unwrap())))
            .collect()
    }

    fn addresses(&self) -> Vec<String> {
        self.servers().into_keys().collect()
    }

    /// Returns the number of valid DNS answers received.
    fn answers(&self) -> u64 {
        let text = self.ask("show resolvers muster");
        let number = text.lines().find_map(|line| line.trim().strip_prefix("valid:"));
        number.map_or(0, |number| number.trim().parse().unwrap())
    }
}

fn addresses(scene: &Scene, names: &[&str]) -> Vec<String> {
    let wanted = scene.backends.iter().filter(|(name, _)| names.contains(&name.as_str()));
    wanted.map(|(_, backend)| backend.address().to_string()).collect()
}

#[test]
fn haproxy_follows_health_and_drain() {
    if !skip::tool("haproxy_follows_health_and_drain", "haproxy", "haproxy") {
        return;
    }
    let (scene, listen) = (Scene::start(&[("a", ""), ("b", ""), ("c", "")], ""), listen());
    let (haproxy, _) = start(&scene, listen, |config| config);
    scene.assert_followed(haproxy, listen);
}

/// The document promises two resolver holds; HAProxy receives one answer per hold.
#[test]
fn health_change_is_applied_within_two_answers() {
    if !skip::tool("health_change_is_applied_within_two_answers", "haproxy", "haproxy") {
        return;
    }
    let (scene, listen) = (Scene::start(&[("a", ""), ("b", ""), ("c", "")], ""), listen());
    let (mut haproxy, runtime) = start(&scene, listen, |config| config);
    haproxy.wait_for("at first", &addresses(&scene, &["a", "b", "c"]), || runtime.addresses());
    for (healthy, names) in [(false, &["a", "c"][..]), (true, &["a", "b", "c"]), (false, &["a", "c"])] {
        scene.set_health("b", healthy);
        scene.wait_for(names);
        let before = runtime.answers();
        let mut after = before;
        haproxy.wait_for("b has changed", &addresses(&scene, names), || {
            // The servers are read first, so that the answers they come from are counted.
            let servers = runtime.addresses();
            after = runtime.answers();
            servers
        });
        assert!(after - before <= 2, "applied after {} answers", after - before);
    }
}

/// HAProxy divides SRV weights by 256.
#[test]
fn instance_weights_become_server_weights() {
    if !skip::tool("instance_weights_become_server_weights", "haproxy", "haproxy") {
        return;
    }
    let scene = Scene::start(&[("a", "weight: 256,"), ("b", "weight: 768,"), ("c", "weight: 1,")], "");
    let (mut haproxy, runtime) = start(&scene, listen(), |config| config);
    let expected: BTreeMap<String, u32> = addresses(&scene, &["a", "b", "c"]).into_iter().zip([1, 3, 1]).collect();
    let weights = || runtime.servers().into_iter().map(|(address, (_, weight))| (address, weight)).collect();
    haproxy.wait_for("weights", &expected, weights);
}

const SERVERS: usize = 27;
const RESOLUTIONS: u64 = 100;

/// HAProxy removes a server whose record is missing from one answer. Asserts that, without changes, the servers of a
/// service of [`SERVERS`] instances stay the same and their number is `expected`. `whole`: answers include the addresses.
fn assert_servers_stay(test: &str, change: fn(String) -> String, expected: RangeInclusive<usize>, whole: bool) {
    if !skip::tool(test, "haproxy", "haproxy") {
        return;
    }
    let scene = Scene::start(&[("a", "")], "");
    for number in 1..=SERVERS {
        let address = format!("127.0.1.{number}");
        let body = json!({"Name": "many", "ID": format!("m{number}"), "Address": address, "Port": 80});
        scene.put("agent/service/register", &body.to_string());
    }
    let (mut haproxy, runtime) = start(&scene, listen(), |config| {
        // Twenty times the query rate, to shorten the test.
        change(config).replace("_web._tcp", "_many._tcp").replace(" 1s\n", " 50ms\n")
    });
    haproxy.wait_for("servers", &true, || expected.contains(&runtime.servers().len()));
    let round = if whole { 1 } else { 1 + runtime.servers().len() as u64 };
    let start = runtime.answers() + 3 * round;
    haproxy.wait_for("answers", &true, || runtime.answers() >= start);
    let (seen, until) = (runtime.servers(), start + RESOLUTIONS * round);
    let lines = haproxy.log().lines().count();
    haproxy.wait_for("more answers", &true, || {
        assert_eq!(runtime.servers(), seen);
        runtime.answers() >= until
    });
    assert_eq!(haproxy.log().lines().count(), lines, "{}", haproxy.log());
}

#[test]
fn all_servers_stay_with_answers_over_tcp() {
    assert_servers_stay("all_servers_stay_with_answers_over_tcp", |config| config, SERVERS..=SERVERS, true);
}

/// HAProxy ignores the TC bit of the truncated answers.
#[test]
fn servers_of_a_truncated_answer_stay() {
    let change = |config: String| config.replace("tcp@", "");
    assert_servers_stay("servers_of_a_truncated_answer_stay", change, 20..=26, false);
}

#[test]
fn servers_of_a_truncated_answer_without_edns_stay() {
    let change = |config: String| config.replace("tcp@", "").replace("    accepted_payload_size 8192\n", "");
    assert_servers_stay("servers_of_a_truncated_answer_without_edns_stay", change, 7..=10, false);
}
