//! HAProxy: servers from SRV records, which come and go with them.

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

/// Starts it with the document's configuration, changed by `change`, and a frontend at `listen`.
fn start(scene: &Scene, listen: SocketAddr, change: impl FnOnce(String) -> String) -> (Program, Runtime) {
    let socket = scene.folder.path().join("socket");
    let shown = change(scene.configuration("haproxy", listen));
    let text = format!(
        "global\n log stdout format raw local0 notice\n stats socket {} level admin\n nbthread 1\n\
         defaults\n mode http\n log global\n timeout connect 5s\n timeout client 20s\n timeout server 20s\n\
         frontend web\n bind {listen}\n default_backend web\n{shown}",
        socket.display()
    );
    let mut command = process::command("haproxy");
    command.arg("-f").arg(scene.write("haproxy.cfg", &text));
    (scene.program(command), Runtime(socket))
}

/// Its socket for questions to a running HAProxy.
struct Runtime(PathBuf);

impl Runtime {
    /// Its answer; empty where it does not run yet.
    fn ask(&self, text: &str) -> String {
        let Ok(mut stream) = UnixStream::connect(&self.0) else { return String::new() };
        stream.write_all(format!("{text}\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// The servers that get traffic: address with port, and the place in the template and the weight of each.
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

    /// How many answers of DNS it has taken.
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
fn traffic_follows() {
    if !skip::tool("traffic_follows", "haproxy", "haproxy") {
        return;
    }
    let (scene, listen) = (Scene::start(&[("a", ""), ("b", ""), ("c", "")], ""), listen());
    let (haproxy, _) = start(&scene, listen, |shown| shown);
    scene.assert_followed(haproxy, listen);
}

/// "Within two resolver holds", counted in the answers that it takes: one each hold.
#[test]
fn a_flip_is_followed_with_the_second_answer_at_the_latest() {
    if !skip::tool("a_flip_is_followed_with_the_second_answer_at_the_latest", "haproxy", "haproxy") {
        return;
    }
    let (scene, listen) = (Scene::start(&[("a", ""), ("b", ""), ("c", "")], ""), listen());
    let (mut haproxy, runtime) = start(&scene, listen, |shown| shown);
    haproxy.wait_for("at first", &addresses(&scene, &["a", "b", "c"]), || runtime.addresses());
    for (well, names) in [(false, &["a", "c"][..]), (true, &["a", "b", "c"]), (false, &["a", "c"])] {
        scene.turn("b", well);
        scene.wait_for(names);
        let before = runtime.answers();
        let mut after = before;
        haproxy.wait_for("b has turned", &addresses(&scene, names), || {
            // In this order: what the servers are made of has been counted.
            let servers = runtime.addresses();
            after = runtime.answers();
            servers
        });
        assert!(after - before <= 2, "followed after {} answers", after - before);
    }
}

/// 256 is HAProxy's unit of weight.
#[test]
fn weights_are_shares_of_traffic() {
    if !skip::tool("weights_are_shares_of_traffic", "haproxy", "haproxy") {
        return;
    }
    let scene = Scene::start(&[("a", "weight: 256,"), ("b", "weight: 768,"), ("c", "weight: 1,")], "");
    let (mut haproxy, runtime) = start(&scene, listen(), |shown| shown);
    let due: BTreeMap<String, u32> = addresses(&scene, &["a", "b", "c"]).into_iter().zip([1, 3, 1]).collect();
    let weights = || runtime.servers().into_iter().map(|(address, (_, weight))| (address, weight)).collect();
    haproxy.wait_for("weights", &due, weights);
}

const SERVERS: usize = 27;
const RESOLUTIONS: u64 = 100;

/// "A record that is missing from one answer counts as gone": while nothing changes, no server comes or goes. So many are there
/// of a service of [`SERVERS`]; `whole`: their addresses come with the answer.
fn assert_servers_stay(test: &str, change: fn(String) -> String, expected: RangeInclusive<usize>, whole: bool) {
    if !skip::tool(test, "haproxy", "haproxy") {
        return;
    }
    let scene = Scene::start(&[("a", "")], "");
    for number in 1..=SERVERS {
        let address = format!("127.0.1.{number}");
        let body = json!({"Name": "many", "ID": format!("m{number}"), "Address": address, "Port": 80});
        scene.order("agent/service/register", &body.to_string());
    }
    let (mut haproxy, runtime) = start(&scene, listen(), |shown| {
        // Twenty times as often, to be done before long.
        change(shown).replace("_web._tcp", "_many._tcp").replace(" 1s\n", " 50ms\n")
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
fn all_servers_stay_over_tcp() {
    assert_servers_stay("all_servers_stay_over_tcp", |shown| shown, SERVERS..=SERVERS, true);
}

/// The answers are cut, which HAProxy passes over.
#[test]
fn as_many_servers_stay_as_a_datagram_holds() {
    let change = |shown: String| shown.replace("tcp@", "");
    assert_servers_stay("as_many_servers_stay_as_a_datagram_holds", change, 20..=26, false);
}

#[test]
fn as_many_servers_stay_as_512_octets_hold() {
    let change = |shown: String| shown.replace("tcp@", "").replace("    accepted_payload_size 8192\n", "");
    assert_servers_stay("as_many_servers_stay_as_512_octets_hold", change, 7..=10, false);
}
