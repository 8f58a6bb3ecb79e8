//! The README and the pages of `docs/` are correct: commands print the output shown, files have no problems, the examples
//! validate, and links have targets.
//!
//! A comment above a fenced block names its kind: `<!-- run: ask -->` for commands with their output, `<!-- service -->`
//! for a service file, `<!-- not run: REASON -->` for everything else. A block without a comment fails the test.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use muster::{
    config::{Config, Environment},
    files::{
        service_file::{self, Defaults},
        tokens, zone_file,
    },
    model::{host_addresses::HostAddresses, name::Label},
};
use nix::sys::signal::Signal;
use support::{
    agent::Agent,
    document::{self, Block, blocks, commands, without_times},
    machine::Machine,
    process::{self, Finish},
    program::free,
    run, skip, wait,
};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The README, then the pages of `docs/` in name order.
fn documents() -> Vec<String> {
    let pages = fs::read_dir(repository().join("docs")).unwrap().map(|entry| entry.unwrap().file_name());
    let mut pages: Vec<_> = pages.filter_map(|name| name.into_string().ok()).filter(|n| n.ends_with(".md")).collect();
    pages.sort();
    [String::from("README.md")].into_iter().chain(pages.into_iter().map(|page| format!("docs/{page}"))).collect()
}

/// The blocks of all [`documents`]. `tests/real_clients.rs` reads the blocks of the integrations, `tests/migrating.rs` those of
/// the guides.
fn all_blocks() -> Vec<Block> {
    let elsewhere = ["docs/integrations.md", "docs/migrating.md"];
    documents().iter().filter(|name| !elsewhere.contains(&name.as_str())).flat_map(|name| blocks(name)).collect()
}

/// Output of `dig` without the query id, which is random.
fn without_id(output: &str) -> String {
    let words = output.lines().map(|line| line.split(" id: ").next().unwrap_or_default().to_owned() + "\n");
    words.collect()
}

fn copy_folder(from: &Path, to: &Path, change: &dyn Fn(String) -> String) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &target, change);
        } else {
            fs::write(target, change(fs::read_to_string(path).unwrap())).unwrap();
        }
    }
}

#[test]
fn quick_start_commands_print_the_documented_output() {
    let test = "the README's quick start";
    if !skip::tool(test, "dig", "bind9-dnsutils") || !skip::tool(test, "python3", "python3") {
        return;
    }
    let blocks = all_blocks();
    let of_kind = |kind: &str| blocks.iter().find(|b| b.kind == kind).unwrap_or_else(|| panic!("no block {kind:?}"));
    let [(start, _)] = &commands(&of_kind("run: agent").text)[..] else { panic!("one command starts the agent") };
    assert_eq!(start, "cargo run --release -- agent --config examples/quickstart/muster.yaml");

    // The same files, with free ports.
    let api = free().port().to_string();
    let agent = Agent::start_with("", &[], |folder| {
        let change = |text: String| {
            text.replace("127.0.0.1:8600", "127.0.0.1:0")
                .replace("127.0.0.1:8500", "127.0.0.1:0")
                .replace("127.0.0.1:7946", "127.0.0.1:0")
                .replace("../../target/quickstart", "data")
                .replace("../../zones", "zones")
                .replace("8000", &api)
        };
        for name in ["services.d", "zones"] {
            fs::remove_dir(folder.join(name)).unwrap();
        }
        copy_folder(&repository().join("examples/quickstart"), folder, &change);
        copy_folder(&repository().join("zones"), &folder.join("zones"), &change);
    });
    let port = agent.address().port().to_string();
    let http = agent.http().to_string();
    let gossip = agent.gossip().to_string();
    let run = |kind: &str| {
        for block in blocks.iter().filter(|block| block.kind == kind) {
            for (command, expected) in commands(&block.text) {
                let here = |text: &str| {
                    text.replace("8600", &port)
                        .replace("127.0.0.1:7946", &gossip)
                        .replace("127.0.0.1:8500", &http)
                        .replace("8000", &api)
                        .replace("target/release/muster", env!("CARGO_BIN_EXE_muster"))
                };
                let mut shell = process::command("sh");
                shell.arg("-c").arg(here(&command)).env("MUSTER_HTTP_ADDR", &http);
                prints(shell, &here(&expected));
            }
        }
    };
    run("run: ask");
    run("run: commands");
    run("run: ask while the api is down");
    let [(serve, _)] = &commands(&of_kind("run: server").text)[..] else { panic!("one command starts the server") };
    let mut words = serve.split(' ').map(|word| word.replace("8000", &api));
    let server = process::command(words.next().unwrap())
        .args(words)
        .current_dir(agent.path("services.d"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let server = process::Owned(server.unwrap());
    run("run: ask while the api is up");
    drop(server);
    run("run: ask while the api is down");
}

/// Repeats a command until it prints the expected output.
fn prints(mut command: Command, expected: &str) {
    let same = |text: &str| without_times(&without_id(text));
    wait::poll(|| {
        let output = String::from_utf8(command.finish().stdout).unwrap();
        if same(&output) == same(expected) {
            return Ok(());
        }
        Err(format!("{command:?}\nprints\n{output}instead of\n{expected}"))
    });
}

#[test]
fn cluster_commands_print_the_documented_output() {
    let test = "the README's cluster";
    if !skip::tool(test, "dig", "bind9-dnsutils") || !skip::tool(test, "bash", "bash") {
        return;
    }
    let blocks = blocks("README.md");
    let of_kind = |kind: &str| {
        let block = blocks.iter().find(|block| block.kind == kind).unwrap_or_else(|| panic!("no block {kind:?}"));
        commands(&block.text)
    };
    let [(start, _)] = &of_kind("run: cluster")[..] else { panic!("one command starts the cluster") };
    // The same files, with unused addresses.
    let folder = run::temp_dir();
    let id = std::process::id();
    let network = format!("127.{}.{}.", 100 + id % 100, id / 100 % 250);
    let here =
        |text: &str| text.replace("127.0.1.", &network).replace("target/release/muster", env!("CARGO_BIN_EXE_muster"));
    copy_folder(&repository().join("examples/cluster"), &folder.path().join("examples/cluster"), &|text| here(&text));
    let command = |text: &str| {
        let mut command = process::command("bash");
        command.arg("-c").arg(here(text)).current_dir(folder.path());
        command
    };
    let log = fs::File::create(folder.path().join("log")).unwrap();
    let mut cluster = command(&format!("exec bash {start}"));
    cluster.env("MUSTER", env!("CARGO_BIN_EXE_muster")).stdout(Stdio::null()).stderr(log);
    let cluster = Cluster(cluster.spawn().unwrap());
    for kind in ["run: in the cluster", "run: kill host-b", "run: in the cluster without host-b"] {
        for (text, expected) in of_kind(kind) {
            prints(command(&text), &here(&expected));
        }
    }
    drop(cluster);
}

#[test]
fn zone_commands_print_the_documented_output() {
    const PAGE: &str = "docs/nearest.md";
    if !skip::tool("the zones of docs/nearest.md", "dig", "bind9-dnsutils") {
        return;
    }
    let (place, service) = (document::block(PAGE, "config"), document::block(PAGE, "service"));
    // Unused addresses, other than those of the cluster.
    let id = std::process::id();
    let network = format!("127.{}.{}.", 100 + id % 100, id / 100 % 250 + 1);
    let agents = [("host-a", 1), ("host-b", 2), ("host-c", 3)].map(|(node, number)| {
        let place = if number == 3 { place.replace("eu-1a", "eu-1b") } else { place.clone() };
        let config = format!(
            "node: {node}\nadvertise: {network}{number}\n{place}\ndata_dir: data\nservices_dir: services.d\n\
             zones_dir: zones\ndns: {{listen: [\"127.0.0.1:0\"]}}\nhttp: {{listen: [\"127.0.0.1:0\"]}}\n\
             resolver: {{allow: []}}\ngossip: {{listen: {network}{number}, join: [{network}1]}}\n"
        );
        Agent::start_with("", &[], |folder| {
            fs::write(folder.join("muster.yaml"), config).unwrap();
            fs::write(folder.join("services.d/web.yaml"), &service).unwrap();
        })
    });
    let steps = [("on host-a in its zone", 0), ("on host-a", 0), ("on host-b", 1), ("on host-a without its zone", 0)];
    for (kind, at) in steps {
        let agent: &Agent = &agents[at];
        for (command, expected) in commands(&document::block(PAGE, &format!("run: {kind}"))) {
            let dig = format!("dig @127.0.0.1 -p {} ", agent.address().port());
            let program = format!("{} ", env!("CARGO_BIN_EXE_muster"));
            let mut shell = process::command("sh");
            shell.arg("-c").arg(command.replace("dig ", &dig).replace("muster ", &program));
            shell.env("MUSTER_HTTP_ADDR", agent.http().to_string());
            prints(shell, &expected);
        }
    }
}

#[test]
fn store_commands_succeed_as_documented() {
    const PAGE: &str = "docs/store.md";
    if !skip::tool("the commands of docs/store.md", "curl", "curl") {
        return;
    }
    let folder = run::temp_dir();
    // Programs of the page.
    let programs = [
        ("consul", "echo '[{\"key\": \"app/color\", \"flags\": 0, \"value\": \"Ymx1ZQ==\"}]'"),
        ("backup", "test \"$1\" = --full"),
        ("sudo", "exec \"$@\""),
    ];
    for (name, text) in programs {
        let path = folder.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let of_muster = Path::new(env!("CARGO_BIN_EXE_muster")).parent().unwrap();
    let path = format!("{}:{}:{}", folder.path().display(), of_muster.display(), std::env::var("PATH").unwrap());

    let [first, other] = [free(), free()];
    let voter = |node: &str, gossip| {
        let config = format!(
            "node: {node}\nadvertise: 127.0.0.1\ndata_dir: data\nservices_dir: services.d\nzones_dir: zones\n\
             dns: {{listen: [127.0.0.1:0]}}\nhttp: {{listen: [127.0.0.1:0]}}\nresolver: {{allow: []}}\n\
             gossip: {{listen: \"{gossip}\", join: [\"{first}\", \"{other}\"]}}\nstore: {{voters: [host-a]}}\n"
        );
        Agent::start_with("", &[], |folder| fs::write(folder.join("muster.yaml"), config).unwrap())
    };
    let mut agent = voter("host-a", first);
    let shell = |agent: &Agent, line: &str| {
        let here = line
            .replace("muster kv watch", "timeout 1 muster kv watch")
            .replace("/var/lib/muster", agent.path("data").to_str().unwrap())
            .replace("/var/backups", folder.path().to_str().unwrap())
            .replace("127.0.0.1:8500", &agent.http().to_string());
        let mut shell = process::command("sh");
        shell.arg("-c").arg(here).env("PATH", &path).env("MUSTER_HTTP_ADDR", agent.http().to_string());
        let output = shell.finish();
        let text = |octets| String::from_utf8(octets).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    };
    let wait_for_leader = |agent: &Agent| wait::until("a leader", || shell(agent, "muster store status").0);
    wait_for_leader(&agent);
    let mut printed = Vec::new();
    for kind in ["keys", "requests", "backup", "recover"] {
        for line in document::block(PAGE, &format!("run: {kind}")).lines() {
            match line {
                "sudo systemctl stop muster" => {
                    agent.signal(Signal::SIGTERM);
                    agent.wait();
                }
                "sudo systemctl start muster" => {
                    agent.start_again();
                    agent.wait_until_answering();
                    wait_for_leader(&agent);
                }
                // `timeout` ends it.
                watch if watch.contains("kv watch") => printed.push(shell(&agent, watch).1),
                line => {
                    let (succeeded, output, errors) = shell(&agent, line);
                    assert!(succeeded, "{line}: {output}{errors}");
                    printed.push(output);
                }
            }
        }
    }
    let expected = [
        "app/limits: set\n",
        "set app/limits max=10\n",
        "1 key imported\n",
        "",
        "true",
        "max=10",
        "2 keys saved\n",
        "2 keys restored\n0 keys deleted\n",
    ];
    assert_eq!(&printed[..expected.len()], expected);
    assert!(printed[expected.len()].starts_with("host-a is the only voter: 2 keys at revision "), "{printed:?}");

    let added = voter("host-d", other);
    for line in document::block(PAGE, "run: voters").lines() {
        let node = line.split_whitespace().nth(3).unwrap();
        let answered = |agent: &Agent| {
            let (succeeded, output, errors) = shell(agent, line);
            if succeeded { Ok(output) } else { Err(errors) }
        };
        // Gossip may not have found the node yet.
        assert!(wait::poll(|| answered(&added)).starts_with(node), "{line}");
    }
    wait_for_leader(&added);
    assert_eq!(shell(&added, "muster kv get app/limits").1, "max=10\n");
}

/// A running `examples/cluster/run`, which stops its agents at SIGTERM.
struct Cluster(Child);

impl Drop for Cluster {
    fn drop(&mut self) {
        process::terminate(&mut self.0);
    }
}

/// Output with `…` instead of serials, without trailing spaces.
fn without_serials(output: &str) -> String {
    let line = |line: &str| {
        let (text, serial) = line.rsplit_once(" has serial ").unwrap_or((line, ""));
        if serial.is_empty() { line.trim_end().to_owned() } else { format!("{text} has serial …") }
    };
    output.lines().map(|text| line(text) + "\n").collect()
}

#[test]
fn setup_commands_print_the_documented_output() {
    let test = "the README's setup of a host";
    if !skip::machines(test) {
        return;
    }
    let folder = run::temp_dir();
    let paths = ["usr/lib/systemd/systemd-resolved", "lib/systemd/systemd-resolved"];
    let Some(program) = skip::file_of(test, "systemd-resolved", &paths, folder.path()) else { return };
    let services = "service: web\nport: 8080\naddress: 10.0.0.8\n";
    for (kind, resolved) in [("run: setup resolved", true), ("run: setup resolv-conf", false)] {
        let mut machine = Machine::new("nameserver 127.0.0.2\n", "files dns");
        if resolved {
            machine.set_link_dns("127.0.0.2");
            machine.start_resolved(&program);
        }
        let upstream = machine.start_upstream();
        let _network = machine.start_agent("127.0.0.2:53", &upstream, "");
        let _agent = machine.start_agent("127.0.0.1:53", &upstream, services);
        let block = document::block("docs/clients.md", kind);
        for (command, expected) in commands(&block) {
            let printed = machine.output_of("sh", &["-c", command.trim_start_matches("sudo ")]);
            assert_eq!(without_serials(&printed), without_serials(&expected), "{command}");
        }
    }
}

#[test]
fn examples_pass_validate_without_warnings() {
    let blocks = blocks("README.md");
    let block = blocks.iter().find(|block| block.kind == "run: validate").unwrap();
    let (command, _) = commands(&block.text).remove(0);
    let arguments = command.strip_prefix("cargo run --release -- ").unwrap();
    let output = process::muster().args(arguments.split(' ')).current_dir(repository()).finish();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        !String::from_utf8_lossy(&output.stdout).contains("warning"),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[test]
fn documented_files_have_no_problems() {
    let node = Label::parse("host-a").unwrap();
    let addresses = ["10.0.0.7".parse().unwrap()];
    let host = HostAddresses::single(addresses[0]);
    let environment = Environment { host_name: "host-a".into(), addresses: host, in_use: None, runtime_dir: None };
    let mut seen = 0;
    for block in all_blocks() {
        let octets = block.text.as_bytes();
        let words: Vec<&str> = block.kind.split(' ').collect();
        let problems = match words[..] {
            ["config"] => Config::parse([(Path::new("muster.yaml"), octets)], &environment).err().unwrap_or_default(),
            ["service", ref rest @ ..] => {
                let defaults = Defaults { node: &node, addresses: &addresses, allow_exec: rest == ["exec"] };
                service_file::parse(Path::new("web.yaml"), octets, &defaults).map_or_else(|p| p, |file| file.warnings)
            }
            ["zone", name] => {
                let path = PathBuf::from(format!("{name}.zone"));
                match zone_file::parse(&path, octets, 5) {
                    Ok(file) => file.check_apex(&path).into_iter().chain(file.warnings).collect(),
                    Err(problems) => problems,
                }
            }
            ["tokens"] => tokens::parse(Path::new("tokens.yaml"), octets).err().unwrap_or_default(),
            ["run:" | "ci:", ..] | ["on", "three", "hosts"] | ["not", "run:", ..] => continue,
            // `prometheus_configurations_pass_promtool` reads these.
            ["prometheus"] | ["prometheus", "local"] => continue,
            _ => panic!("a block in {:?} without a comment that says what it is:\n{}", block.language, block.text),
        };
        assert!(problems.is_empty(), "{problems:#?}\nin\n{}", block.text);
        seen += 1;
    }
    assert!(seen >= 10, "the documents show configurations, service files, a zone file and tokens: {seen}");
}

#[test]
fn prometheus_configurations_pass_promtool() {
    if !skip::tool("prometheus_configurations_pass_promtool", "promtool", "prometheus") {
        return;
    }
    let folder = run::temp_dir();
    let rules = repository().join("packaging/prometheus/muster.rules.yaml");
    for kind in ["prometheus local", "prometheus"] {
        let shown = document::block("docs/metrics.md", kind);
        let here = shown
            .replace("/usr/share/muster/prometheus/muster.rules.yaml", rules.to_str().unwrap())
            .replace("/etc/prometheus", folder.path().to_str().unwrap());
        for file in ["prometheus.yml", "muster-ca.pem", "muster.token"] {
            fs::write(folder.path().join(file), &here).unwrap();
        }
        let mut check = process::command("promtool");
        let output = check.args(["check", "config"]).arg(folder.path().join("prometheus.yml")).finish();
        assert!(output.status.success(), "{kind}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Anchors of a document's headings, as GitHub derives them.
fn anchors(text: &str) -> impl Iterator<Item = String> {
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    headings.map(|heading| {
        let kept = |c: char| (c.is_alphanumeric() || "-_ ".contains(c)).then(|| c.to_ascii_lowercase());
        heading.chars().filter_map(kept).map(|c| if c == ' ' { '-' } else { c }).collect()
    })
}

#[test]
fn links_have_targets() {
    let mut links = 0;
    let others = ["ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(str::to_owned);
    for document in documents().into_iter().chain(others) {
        let path = repository().join(&document);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{document}: {error}"));
        for rest in text.split("](").skip(1) {
            let link = rest.split(')').next().unwrap_or_default();
            if link.starts_with("http") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(target.exists(), "{document} links to {link}, which does not exist");
            let has_anchor = || anchors(&fs::read_to_string(&target).unwrap()).any(|heading| heading == anchor);
            assert!(anchor.is_empty() || has_anchor(), "{document} links to {link}: there is no such heading");
            links += 1;
        }
    }
    assert!(links > 5);
}

#[test]
fn rfc_page_names_existing_tests() {
    let page = fs::read_to_string(repository().join("docs/rfc.md")).unwrap();
    let mut sources = String::new();
    for folder in ["src", "tests"] {
        read_all(&repository().join(folder), &mut sources);
    }
    for name in page.split('`').skip(1).step_by(2) {
        let found = match name {
            golden if golden.ends_with(".txt") => repository().join("tests/golden").join(golden).exists(),
            path if path.starts_with("tests/") || path.starts_with("src/") => repository().join(path).exists(),
            test if test.contains('_')
                && test.bytes().all(|b| b.is_ascii_lowercase() || b == b'_' || b.is_ascii_digit()) =>
            {
                test.starts_with('_') || sources.contains(&format!("fn {test}("))
            }
            _ => true,
        };
        assert!(found, "docs/rfc.md names {name}, which does not exist");
    }
}

fn read_all(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_all(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}
