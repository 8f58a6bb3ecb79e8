//! `muster import`, `register` and `deregister`, and how commands find the agent.
//!
//! `tests/fixtures/consul` has definitions and configurations of Consul: a folder is one agent, and each file in
//! `definitions` is imported on its own. `tests/fixtures/consul.expected` has the output of each.
//! `MUSTER_BLESS=1 cargo test --test import` writes it; review the difference.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{
    env, fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Output,
    thread,
};

use serde_json::{Value, json};
use support::{
    agent::Agent,
    http::get,
    process::{self, Finish},
    run,
    wait::until,
};

/// Parts of secrets in the fixtures. None may be in an output, and none in a file but the key file.
const SECRETS: &[&str] = &[
    "c2l4dGVlbiBvY3RldHMh",
    "bXVzdGVyLWltcG9ydC10",
    "hunter2",
    "agent-secret",
    "default-secret",
    "root-secret",
    "redis-token",
    "proxy-secret",
    "broken-secret",
    "secret-in-the-open",
    "too-short",
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/consul")
}

/// The agents and files to import, relative to the fixtures.
fn cases() -> Vec<String> {
    let names = |folder: PathBuf| {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let agents = names(fixtures()).into_iter().filter(|name| name != "definitions" && name != "broken");
    let files = names(fixtures().join("definitions")).into_iter().map(|name| format!("definitions/{name}"));
    agents.chain(files).collect()
}

fn import(arguments: &[&str]) -> Output {
    let mut command = process::muster();
    command.current_dir(fixtures()).args(["import", "consul"]).args(arguments).finish()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn every_definition_converts_as_expected() {
    let expected = fixtures().with_extension("expected");
    let mut wrong = String::new();
    for case in cases() {
        let output =
            if case.starts_with("definitions/") { import(&[&case, "--node", "host-a"]) } else { import(&[&case]) };
        let text = format!("{}{}exit status {}\n", out(&output), err(&output), output.status.code().unwrap());
        let path = expected.join(format!("{}.txt", case.trim_start_matches("definitions/")));
        if env::var_os("MUSTER_BLESS").is_some() {
            fs::create_dir_all(&expected).unwrap();
            fs::write(&path, &text).unwrap();
        }
        let known = fs::read_to_string(&path).unwrap_or_default();
        if text != known {
            wrong.push_str(&format!("--- {case}, expected:\n{known}\n--- found:\n{text}\n"));
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}MUSTER_BLESS=1 writes the current output");
}

#[test]
fn every_output_passes_validate_and_has_no_secret() {
    for case in cases() {
        let folder = run::temp_dir();
        let to = folder.path().join("out");
        let output = import(&[&case, "--output", to.to_str().unwrap()]);
        assert!(output.status.code().is_some_and(|code| code < 2), "{case}: {}", err(&output));
        let mut all = out(&output) + &err(&output);
        let key = to.join("gossip.key");
        for file in [to.join("muster.yaml"), key.clone()].into_iter().chain(files(&to.join("services.d"))) {
            if file.exists() && file != key {
                all.push_str(&fs::read_to_string(&file).unwrap());
            }
        }
        for secret in SECRETS {
            assert!(!all.contains(secret), "{case}: {secret}: {all}");
        }
        if key.exists() {
            assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o007, 0, "{case}");
        }
        let validated = process::muster().arg("validate").arg(to.join("muster.yaml")).finish();
        assert_eq!(validated.status.code(), Some(0), "{case}: {}{}", out(&validated), err(&validated));
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_gossip_key_is_the_same_on_every_host() {
    let key = |case: &str| {
        let folder = run::temp_dir();
        let output = import(&[case, "--output", folder.path().to_str().unwrap()]);
        assert!(out(&output).contains("gossip.key"), "{}", out(&output));
        fs::read_to_string(folder.path().join("gossip.key")).unwrap()
    };
    // A key of 32 octets stays as it is; a shorter one is its SHA-256 digest.
    assert!(key("hcl-agent").contains("\nbXVzdGVyLWltcG9ydC10ZXN0LWtleS0zMi1vY3RldHM=\n"));
    let derived = key("three-servers");
    assert_eq!(derived, key("three-servers"));
    assert!(!derived.contains("c2l4dGVlbiBvY3RldHMh"), "{derived}");
}

#[test]
fn a_broken_file_is_a_diagnostic_with_its_position() {
    let cases = [
        ("broken/trailing-comma.json", "broken/trailing-comma.json:2:13: "),
        ("broken/unterminated.hcl", "broken/unterminated.hcl:3:"),
        ("broken/bare.hcl", "broken/bare.hcl:1:"),
        ("broken/utf16.json", "broken/utf16.json:1:1: not UTF-8"),
        ("broken/missing.json", "broken/missing.json: there is no such file"),
        ("broken/list.json", "Expected a table, found a list"),
    ];
    for (case, expected) in cases {
        let output = import(&[case]);
        let all = out(&output) + &err(&output);
        assert!(all.contains(expected), "{case}: {all}");
        assert_eq!(output.status.code(), Some(if case.ends_with("list.json") { 1 } else { 2 }), "{case}");
        for secret in SECRETS {
            assert!(!all.contains(secret), "{case}: {all}");
        }
    }
    let all = err(&import(&["broken"]));
    assert_eq!(all.lines().count(), 4, "every broken file is reported: {all}");
}

#[test]
fn hostile_files_are_refused_without_a_panic() {
    let folder = run::temp_dir();
    let texts = [
        ("deep.json", "[".repeat(100_000)),
        ("deep.hcl", "a {\n".repeat(50_000)),
        ("huge.json", format!("{{\"a\": \"{}\"}}", "x".repeat(2_000_000))),
        ("blocks.hcl", "service { name = ".repeat(20_000)),
        ("quotes.hcl", "\"${".repeat(50_000)),
        ("nul.hcl", "a = \"\0\"\n\0".to_owned()),
    ];
    for (name, text) in texts {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        let output = import(&[path.to_str().unwrap()]);
        let text = err(&output);
        assert_eq!(output.status.code(), Some(2), "{name}: {text}");
        assert!(text.contains(&format!("{name}:")) && !text.contains("panicked"), "{name}: {text}");
    }
}

#[test]
fn files_that_exist_are_not_overwritten() {
    let folder = run::temp_dir();
    let to = folder.path().to_str().unwrap();
    assert_eq!(import(&["three-servers", "--output", to]).status.code(), Some(1));
    let again = import(&["split-config", "--output", to]);
    assert_eq!(again.status.code(), Some(2));
    assert!(
        err(&again).contains("muster.yaml exists\nRemove them, or overwrite them with --force."),
        "{}",
        err(&again)
    );
    assert_eq!(import(&["split-config", "--output", to, "--force"]).status.code(), Some(1));
}

#[test]
fn json_lists_files_and_findings() {
    let output = import(&["hcl-agent", "--json"]);
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["Services"], 1);
    assert_eq!(value["Files"][1], json!({"Path": "gossip.key", "Secret": true, "Text": null}));
    let findings = value["Findings"].as_array().unwrap();
    let acl = findings.iter().find(|finding| finding["Key"] == "acl").unwrap();
    assert_eq!((&acl["Kind"], &acl["File"]), (&json!("NotConverted"), &json!("hcl-agent/consul.hcl")));
    assert!(acl["Line"].as_u64().unwrap() > 1, "{acl}");
}

#[test]
fn instances_without_node_name_have_the_name_of_the_host() {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let host = host.trim().split('.').next().unwrap().to_ascii_lowercase();
    let text = out(&import(&["definitions/aliases.hcl"]));
    for expected in [
        format!("\nnode: {host}\n"),
        "# The name of this host, since ids in the service files have it. Import on each host, or pass --node"
            .to_owned(),
        format!("# \"w1\" in Consul; {host} is the name of this host"),
        format!("id: w1-{host}\n"),
        format!("id: w2-{host}\n"),
        format!(
            "Assumed:\n  No file has `node_name`: ids have the name of this host, {host}. Import on each host, or pass --node"
        ),
    ] {
        assert!(text.contains(&expected), "{expected}: {text}");
    }
    let named = out(&import(&["definitions/aliases.hcl", "--node", "host-9"]));
    assert!(named.contains("id: w1-host-9\n") && !named.contains("Assumed"), "{named}");
    let overridden = out(&import(&["hcl-agent", "--node", "host-9"]));
    assert!(overridden.contains("# \"app-07.prod.example\" in Consul\nnode: host-9\n"), "{overridden}");
    // Nothing depends on the name of the node here.
    let single = out(&import(&["three-servers"]));
    assert!(!single.contains("node:") && !single.contains("Assumed"), "{single}");
}

#[test]
fn settings_that_service_files_need_are_reported_without_a_configuration() {
    let output = import(&["hcl-agent", "--services-only"]);
    let text = out(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(!text.contains("muster.yaml <=="), "{text}");
    for expected in [
        "set `datacenter`, or names with one are NXDOMAIN\n    hcl-agent/consul.hcl:",
        "set `dns.only_passing`, or warnings are answered\n    hcl-agent/consul.hcl:",
        "set `alias_domains`, with `scheme: consul`\n    hcl-agent/consul.hcl:",
        "set `node`, which names of the node and ids have\n    hcl-agent/consul.hcl:",
        "--services-only leaves out checks of the node: write them in `checks.node` of muster.yaml\n    hcl-agent/consul.hcl:",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    // Definitions alone have no settings to leave out.
    let definitions = import(&["definitions/tags.json", "--services-only"]);
    assert!(!out(&definitions).contains("--services-only"), "{}", out(&definitions));
}

/// A stub of Consul's HTTP API: a response for each path.
fn consul(responses: Vec<(&'static str, Value)>) -> SocketAddr {
    consul_with("", responses)
}

/// A stub of Consul's HTTP API whose responses have more headers, each with its line end.
fn consul_with(headers: &'static str, responses: Vec<(&'static str, Value)>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            let mut octet = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut octet).unwrap_or(0) > 0 {
                head.push(octet[0]);
            }
            let head = String::from_utf8(head).unwrap();
            let path = head.split(' ').nth(1).unwrap_or_default();
            let found = responses.iter().find(|(known, _)| *known == path);
            let (status, body) = match found {
                Some((_, body)) => ("200 OK", body.to_string()),
                None if path.ends_with("/checks") => ("500 Internal Server Error", "rpc error\nmore".to_owned()),
                None => ("403 Forbidden", "Permission denied: token with AccessorID 'x' lacks permission".to_owned()),
            };
            let _ = write!(stream, "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len());
        }
    });
    address
}

fn agent_responses() -> Vec<(&'static str, Value)> {
    vec![
        (
            "/v1/agent/self",
            json!({
                "Config": {"Datacenter": "dc3", "NodeName": "web-1", "Server": false, "Version": "1.20.0"},
                "DebugConfig": {
                    "DNSDomain": "consul.", "DNSOnlyPassing": true, "DNSPort": 8600, "HTTPPort": 8500, "ClientAddrs": ["127.0.0.1"],
                    "EncryptKey": "hidden", "RetryJoinLAN": ["10.0.0.1"], "NodeMeta": {"rack": "r1"}, "ACLsEnabled": true,
                },
            }),
        ),
        (
            "/v1/agent/services",
            json!({
                "web1": {"ID": "web1", "Service": "web", "Tags": ["v1"], "Meta": {}, "Port": 80, "Address": "10.0.0.7",
                    "TaggedAddresses": {"lan_ipv4": {"Address": "10.0.0.7", "Port": 80}, "wan_ipv4": {"Address": "10.0.0.7", "Port": 80}},
                    "Weights": {"Passing": 1, "Warning": 1}, "EnableTagOverride": false, "Datacenter": "dc3", "ContentHash": "ab"},
                "web2": {"ID": "web2", "Service": "web", "Port": 81, "Weights": {"Passing": 1, "Warning": 1}},
                "proxy": {"ID": "proxy", "Service": "proxy", "Kind": "connect-proxy", "Port": 1, "Proxy": {"DestinationServiceName": "web"}},
            }),
        ),
        (
            "/v1/agent/checks",
            json!({
                "service:web1": {"Node": "web-1", "CheckID": "service:web1", "Name": "web is up", "Status": "passing",
                    "ServiceID": "web1", "ServiceName": "web", "Type": "http", "Interval": "10s", "Timeout": "", "Definition": {}},
            }),
        ),
    ]
}

#[test]
fn an_agent_is_imported_with_its_services() {
    let address = consul(agent_responses());
    let folder = run::temp_dir();
    let to = folder.path();
    let output = import(&[&format!("http://{address}"), "--output", to.to_str().unwrap()]);
    let text = out(&output) + &err(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for expected in [
        "2 services converted",
        "The API does not tell the probe of a check: write the check in the service file",
        "/v1/agent/services  services[0].checks[0]",
        "muster has no proxies and gateways",
        "hidden by the API",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let web = fs::read_to_string(to.join("services.d/web.yaml")).unwrap();
    for expected in ["id: web1-web-1", "address: 10.0.0.7", "1 of 1 checks of Consul are not converted"] {
        assert!(web.contains(expected), "{expected}: {web}");
    }
    let configuration = fs::read_to_string(to.join("muster.yaml")).unwrap();
    for expected in ["node: web-1", "datacenter: dc3", "listen: [127.0.0.1:8600]", "rack: r1"] {
        assert!(configuration.contains(expected), "{expected}: {configuration}");
    }
    let validated = process::muster().arg("validate").arg(to.join("muster.yaml")).finish();
    assert_eq!(validated.status.code(), Some(0), "{}", out(&validated));
}

#[test]
fn the_catalog_is_imported_with_a_folder_per_node() {
    let address = consul(vec![
        (
            "/v1/catalog/nodes",
            json!([{"Node": "web-1", "Address": "10.0.0.7"}, {"Node": "printer", "Address": "10.0.0.99"}]),
        ),
        (
            "/v1/catalog/node/web%2D1",
            json!({"Node": {"Node": "web-1", "Address": "10.0.0.7", "Datacenter": "dc1", "Meta": {"consul-version": "1.20.0"}},
                   "Services": {"web": {"ID": "web", "Service": "web", "Port": 80}, "consul": {"ID": "consul", "Service": "consul", "Port": 8300}}}),
        ),
        ("/v1/health/node/web%2D1", json!([{"CheckID": "serfHealth", "ServiceID": "", "Name": "Serf Health Status"}])),
        (
            "/v1/catalog/node/printer",
            json!({"Node": {"Node": "printer", "Address": "10.0.0.99", "Datacenter": "dc1", "Meta": null},
                   "Services": {"ipp": {"ID": "ipp", "Service": "ipp", "Port": 631}}}),
        ),
        (
            "/v1/health/node/printer",
            json!([{"CheckID": "ipp", "Name": "port", "ServiceID": "ipp", "Type": "tcp",
                    "Definition": {"TCP": "10.0.0.99:631", "Interval": "30s", "IntervalDuration": "30s", "Timeout": "5s", "TimeoutDuration": "5s"}}]),
        ),
    ]);
    let folder = run::temp_dir();
    let to = folder.path();
    let output = import(&[&format!("http://{address}"), "--catalog", "--output", to.to_str().unwrap()]);
    let text = out(&output) + &err(&output);
    assert!(text.contains("2 services converted") && text.contains("A node without an agent"), "{text}");
    let ipp = fs::read_to_string(to.join("printer/services.d/ipp.yaml")).unwrap();
    assert!(ipp.contains("address: 10.0.0.99") && ipp.contains("- tcp: 10.0.0.99:631"), "{ipp}");
    assert!(!to.join("printer/muster.yaml").exists(), "no agent runs there");
    let web = fs::read_to_string(to.join("web-1/services.d/web.yaml")).unwrap();
    assert!(web.contains("service: web") && to.join("web-1/muster.yaml").exists(), "{web}");
    assert!(!to.join("web-1/services.d/consul.yaml").exists(), "Consul itself");
}

#[test]
fn a_refused_or_absent_agent_is_an_error_with_advice() {
    let address = consul(Vec::new());
    let output = import(&[&format!("http://{address}")]);
    assert_eq!(output.status.code(), Some(2));
    let expected = format!("muster: http://{address}/v1/agent/self answered 403 Forbidden: Permission denied");
    assert!(err(&output).starts_with(&expected), "{}", err(&output));
    assert!(err(&output).contains("\nSet a token with agent:read, with --token-file or CONSUL_HTTP_TOKEN."));
    let mut responses = agent_responses();
    responses.truncate(2);
    let address = consul(responses);
    let output = import(&[&format!("http://{address}")]);
    let expected = format!("muster: http://{address}/v1/agent/checks answered 500 Internal Server Error: rpc error\n");
    assert_eq!((output.status.code(), err(&output)), (Some(2), expected));
    let absent = import(&["http://127.0.0.1:1"]);
    assert!(absent.status.code() == Some(2) && err(&absent).contains("Connection refused"), "{}", err(&absent));
    let needs = import(&["three-servers", "--check"]);
    assert!(needs.status.code() == Some(2) && err(&needs).contains("--check needs one URL"), "{}", err(&needs));
}

#[test]
fn responses_that_lack_hidden_entries_are_findings() {
    let mut responses = agent_responses();
    responses.truncate(1);
    responses.extend(["/v1/agent/services", "/v1/agent/checks", "/v1/catalog/services"].map(|path| (path, json!({}))));
    responses.push(("/v1/catalog/nodes", json!([])));
    let url = format!("http://{}", consul_with("X-Consul-Results-Filtered-By-ACLs: true\r\n", responses));
    for (arguments, expected) in [
        (vec![], "/v1/agent/services  (response)"),
        (vec!["--catalog"], "/v1/catalog/nodes  (response)"),
        (
            vec!["--check", "--domain", "consul"],
            "/v1/catalog/services: Consul hid a part of the response: set a token with service:read",
        ),
    ] {
        let output = import(&[&[url.as_str()][..], &arguments].concat());
        let text = out(&output) + &err(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(expected) && text.contains("Consul listed no services."), "{text}");
    }
    // Without a token, Consul does not say that it hides entries.
    let mut responses = agent_responses();
    responses.extend([("/v1/catalog/nodes", json!([])), ("/v1/catalog/services", json!({}))]);
    let silent = consul(responses);
    for arguments in [vec!["--catalog"], vec!["--check", "--domain", "consul"]] {
        let output = import(&[&[format!("http://{silent}").as_str()][..], &arguments].concat());
        let text = out(&output) + &err(&output);
        assert!(output.status.code() == Some(1) && text.contains("Consul listed no services."), "{text}");
    }
}

#[test]
fn passwords_in_addresses_are_not_shown() {
    let cases: &[&[&str]] = &[
        &["import", "consul", "http://u:hunter2@127.0.0.1:1"],
        &["import", "consul", "HTTPS://u:hunter2/x@127.0.0.1:1"],
        &["import", "consul", "a.json", "http://u:hunter2@127.0.0.1:1"],
        &["status", "--http-addr", "http://u:hunter2@127.0.0.1:1"],
        &["status", "--http-addr", "http://u:hunter2/x@127.0.0.1:1"],
        &["status", "http://u:hunter2@127.0.0.1:1"],
    ];
    for arguments in cases {
        let output = process::muster().args(*arguments).finish();
        let text = out(&output) + &err(&output);
        assert!(output.status.code() == Some(2) && !text.contains("hunter2"), "{arguments:?}: {text}");
    }
    let output = process::muster().arg("status").env("MUSTER_HTTP_ADDR", "http://u:hunter2@h").finish();
    let text = err(&output);
    assert!(text.contains("an address has no user") && !text.contains("hunter2"), "{text}");
}

#[test]
fn files_are_private_if_their_source_is() {
    let folder = run::temp_dir();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let check = "[{\"http\": \"https://u:hunter2@127.0.0.1/\", \"interval\": \"10s\"}]";
    for (name, mode) in [("a", 0o644), ("b", 0o640)] {
        let path = folder.path().join(format!("{name}.json"));
        fs::write(&path, format!("{{\"service\": {{\"name\": \"{name}\", \"checks\": {check}}}}}")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let to = folder.path().join("out");
    let output = import(&[folder.path().to_str().unwrap(), "--output", to.to_str().unwrap()]);
    let text = out(&output) + &err(&output);
    assert!(output.status.code() == Some(0) && !text.contains("hunter2"), "{text}");
    let mode = |name: &str| fs::metadata(to.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(["muster.yaml", "services.d/a.yaml"].map(mode), [0o644, 0o644], "{text}");
    assert_eq!(mode("services.d/b.yaml") & 0o007, 0, "{text}");
}

#[test]
fn files_of_an_earlier_import_are_reported() {
    let folder = run::temp_dir();
    let (from, to) = (folder.path().join("consul.d"), folder.path().join("out"));
    fs::create_dir(&from).unwrap();
    fs::write(from.join("web.json"), "{\"service\": {\"name\": \"web\", \"port\": 80}}").unwrap();
    let run = || import(&[from.to_str().unwrap(), "--output", to.to_str().unwrap(), "--force"]);
    assert_eq!(run().status.code(), Some(0));
    fs::rename(from.join("web.json"), from.join("www.json")).unwrap();
    let again = run();
    let text = out(&again) + &err(&again);
    assert!(
        again.status.code() == Some(1) && text.contains("services.d/web.yaml, which an earlier import wrote"),
        "{text}"
    );
    fs::remove_file(to.join("services.d/web.yaml")).unwrap();
    assert_eq!(run().status.code(), Some(0));
}

#[test]
fn checks_keep_the_meaning_of_values_that_muster_refuses() {
    let folder = run::temp_dir();
    let service = json!({"service": {
        "name": "web", "port": 80, "meta": {"muster-nearest": "zone", "muster-min-healthy": "2", "muster-alpn": "h2,h3", "k": "v"},
        "checks": [
            {"tcp": "127.0.0.1:1", "interval": "1ms"},
            {"tcp": "127.0.0.1:2", "interval": "72h", "timeout": "30h", "deregister_critical_service_after": "0s"},
            {"tcp": "127.0.0.1:3", "interval": "10s", "failures_before_critical": 5000},
        ],
    }, "check": {"name": "load", "ttl": "30s"}});
    let path = folder.path().join("web.json");
    fs::write(&path, service.to_string()).unwrap();
    let output = import(&[path.to_str().unwrap()]);
    let text = out(&output) + &err(&output);
    for expected in [
        "alpn: [h2, h3]",
        "interval: 1s\n    timeout: 1s\n    fall: 1",
        "interval: 24h\n    timeout: 24h\n    fall: 1",
        "fall: 1000",
        "`node:NUMBER`",
        "min_healthy: 2\nnearest: zone\nmeta:\n  k: v\n",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(!text.contains("deregister_critical_service_after"), "{text}");
}

#[test]
fn answers_of_two_systems_are_compared() {
    let services = |port: u16, more: &'static str| {
        move |folder: &Path| {
            let text = format!(
                "services:\n- {{service: web, port: {port}, address: 10.0.0.1}}\n- {{service: db, port: 5432}}\n{more}"
            );
            fs::write(folder.join("services.d/all.yaml"), text).unwrap();
        }
    };
    // All agents answer the names of Consul; the first one has its part.
    let config = "datacenter: dc1\nalias_domains: [{domain: consul, scheme: consul}]\n";
    let cache = "- {service: cache, port: 6379, tags: [v1, red]}\n";
    let consul = Agent::start_with(config, &[], services(80, cache));
    let same = Agent::start_with(config, &[], services(80, cache));
    let other = Agent::start_with(config, &[], services(81, "- {service: cache, port: 6379, tags: [v1]}\n"));
    let elsewhere = Agent::start_with(&config.replace("dc1", "dc2"), &[], services(80, cache));
    let check = |muster: &Agent, dns: &Agent, domain: &str| {
        let (url, dns, own) =
            (format!("http://{}", consul.http()), dns.address().to_string(), muster.address().to_string());
        let output = import(&[&url, "--check", "--dns", &dns, "--muster-dns", &own, "--domain", domain]);
        (output.status.code(), out(&output) + &err(&output))
    };
    let (code, text) = check(&same, &consul, "consul");
    assert_eq!(code, Some(0), "{text}");
    // Three services and two tags, and a node; each with and without the datacenter.
    assert!(text.contains("\n12 names of 3 services and 1 node compared, 0 differ; the service consul"), "{text}");
    assert_eq!(text.lines().count(), 1 + 2 * 3 + 1, "one pair of rows for each service: {text}");
    let (code, text) = check(&other, &consul, "consul");
    assert_eq!(code, Some(1), "{text}");
    for expected in [
        "missing in muster: 10.0.0.1:80; only in muster: 10.0.0.1:81",
        "\nred.cache.service.consul      SRV      10.0.0.7:6379  -              missing in muster: 10.0.0.7:6379",
        "\nweb.service.dc1.consul ",
        " compared, 4 differ; ",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(!text.contains("v1.cache"), "names that agree have no row: {text}");
    let (code, text) = check(&elsewhere, &consul, "consul");
    assert_eq!(code, Some(1), "{text}");
    for expected in
        ["web.service.dc1.consul ", "v1.cache.service.dc1.consul ", "host-a.node.dc1.consul ", " 6 differ; "]
    {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    // Neither has names in this domain: equal answers, but not those of the catalog.
    let (code, text) = check(&same, &consul, "other.service.local");
    assert_eq!(code, Some(1), "{text}");
    for expected in ["Consul has 1 passing instance, and neither answers", "Consul has the node, and neither answers"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let dead = import(&[&format!("http://{}", consul.http()), "--check", "--dns", "127.0.0.1:1", "--domain", "consul"]);
    assert!(dead.status.code() == Some(2) && err(&dead).contains("cannot query 127.0.0.1:1 for"), "{}", err(&dead));
}

#[test]
fn services_are_registered_from_files_and_flags_and_deregistered() {
    let agent = Agent::start();
    let folder = run::temp_dir();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let run = |arguments: &[&str], input: &str| {
        let output =
            process::muster().args(arguments).env("MUSTER_HTTP_ADDR", agent.http().to_string()).finish_with(input);
        (output.status.code().unwrap(), out(&output) + &err(&output))
    };
    let yaml = write("web.yaml", "service: web\nport: 80\ntags: [v1]\nchecks:\n- ttl: 30s\n");
    let hcl =
        write("db.hcl", "service {\n  name = \"db\"\n  id = \"db1\"\n  port = 5432\n  token = \"file-secret\"\n}\n");
    assert_eq!(run(&["register", &yaml, &hcl], "").0, 0);
    let (code, text) = run(&["register", &hcl], "");
    assert!(code == 0 && text.contains("registered db (id db1)") && text.contains("`token` is not used"), "{text}");
    assert!(!text.contains("file-secret"), "{text}");
    assert_eq!(run(&["register", "-"], "{\"service\": {\"name\": \"api\", \"port\": 1}}").0, 0);
    assert_eq!(run(&["register", "-"], "service: mail\nport: 25\n").0, 0);
    assert_eq!(
        run(&["register", "--name", "flags", "--port", "9", "--tag", "a", "--tag", "b", "--meta", "k=v"], "").0,
        0
    );
    until("five services", || get(&agent, "agent/services").json().as_object().unwrap().len() == 5);
    let services = get(&agent, "agent/services").json();
    assert_eq!(services["flags"]["Tags"], json!(["a", "b"]));
    assert_eq!(services["flags"]["Meta"]["k"], "v");
    assert_eq!(services["web"]["Port"], 80);
    // A service file has its own default; definitions of Consul and flags have that of the API.
    for (id, weight) in [("web", 10), ("mail", 10), ("db1", 1), ("api", 1), ("flags", 1)] {
        assert_eq!(services[id]["Weights"], json!({"Passing": weight, "Warning": 1}), "{id}");
    }
    for id in ["web", "db1", "api"] {
        let (code, text) = run(&["deregister", id], "");
        assert!(code == 0 && text == format!("deregistered {id}\n"), "{text}");
    }
    let cases = [
        (vec!["deregister", "nothing"], "", 1, "nothing"),
        (vec!["register", "/nonexistent.json"], "", 2, "cannot read /nonexistent.json"),
        (vec!["register", "-"], "service: web\nttl: 5s\n", 2, "`ttl` cannot be registered over the API"),
        (vec!["register", "-"], "service: web\nport: 70000\n", 2, "(standard input):2:7"),
        (vec!["register", "-"], "{\"datacenter\": \"x\"}", 2, "the file defines no service"),
        (
            vec!["register", "-"],
            "service {\n name = \"x\"\n port = var.p\n}\n",
            2,
            "`service.port` is an expression of HCL",
        ),
        (vec!["register"], "", 2, "required"),
        (vec!["register", "--port", "5"], "", 2, "required arguments were not provided:\n  --name <NAME>\n\nUsage"),
        (
            vec!["register", "-"],
            "{\"services\": [{\"name\": \"one\"}, {\"name\": \"two\", \"port\": 70000}]}",
            1,
            "(standard input): cannot register two: ",
        ),
        (vec!["register", "--name", "x", "--meta", "muster-nearest=7"], "", 1, "muster: cannot register x: "),
        (vec!["deregister", "one", "nothing"], "", 1, "cannot deregister nothing: "),
    ];
    for (arguments, input, code, expected) in cases {
        let (found, text) = run(&arguments, input);
        assert!(found == code && text.contains(expected), "{arguments:?}: {found}: {text}");
        if text.contains("cannot register two") {
            assert!(text.ends_with("\nregistered before it: one\n"), "{text}");
        }
    }
}

#[test]
fn commands_find_the_agent_by_its_configuration() {
    let tokens = "http: {listen: [127.0.0.1:0], socket: api.sock, tokens_dir: tokens.d}\n";
    let agent = Agent::start_with(tokens, &[], |folder| {
        fs::create_dir(folder.join("tokens.d")).unwrap();
        let token = "tokens:\n- {name: ops, scope: operate, token: 0123456789abcdef0123}\n";
        fs::write(folder.join("tokens.d/ops.yaml"), token).unwrap();
    });
    let config = agent.path("muster.yaml");
    let status = |config: &Path| process::muster().args(["status", "--config"]).arg(config).finish();
    let found = status(&config);
    assert!(out(&found).contains("host-a"), "over the socket, without a token: {}{}", out(&found), err(&found));
    // Over TLS, with the agent's own certificate; the socket of this copy of its configuration does not exist.
    let tls =
        Agent::start_with("http: {listen: [127.0.0.1:0], certificate: cert.pem, key: key.pem}\n", &[], |folder| {
            let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
            fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
            fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        });
    let text = fs::read_to_string(tls.path("muster.yaml")).unwrap();
    let copy = tls.path("copy.yaml");
    fs::write(&copy, text.replace("http: {listen: [127.0.0.1:0]", &format!("http: {{listen: [\"{}\"]", tls.http())))
        .unwrap();
    let found = status(&copy);
    assert!(out(&found).contains("host-a"), "over TLS: {}{}", out(&found), err(&found));
    let folder = run::temp_dir();
    let cases = [
        ("http: {listen: [127.0.0.1:1]}\n", "cannot query the agent at http://127.0.0.1:1"),
        ("http: {listen: []}\n", "the agent has no `http.listen` and no `http.socket`"),
        // Of a configuration with errors, the address counts.
        ("http: {listen: [127.0.0.1:1]}\nhtp: 1\n", "other.yaml:3:1: unknown key `htp`"),
        ("http: {listen: [127.0.0.1:1]}\nhtp: 1\n", "cannot query the agent at http://127.0.0.1:1"),
    ];
    for (text, expected) in cases {
        let path = folder.path().join("other.yaml");
        fs::write(&path, format!("node: host-a\n{text}")).unwrap();
        let output = status(&path);
        assert!(output.status.code() == Some(2) && err(&output).contains(expected), "{text}: {}", err(&output));
    }
    let missing = status(Path::new("/nonexistent.yaml"));
    assert!(err(&missing).contains("cannot read --config /nonexistent.yaml"), "{}", err(&missing));
}
