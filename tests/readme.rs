//! What the documents show is true: the README's commands print what it says they print, its files are read without a
//! problem, the examples validate, and links lead somewhere.
//!
//! A comment above a fenced block says what it is: `<!-- run: ask -->` for commands with their output, `<!-- service -->`
//! for a service file, and so on. A block in one of those languages without such a comment fails the test.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use muster::{
    config::{Config, Environment},
    files::{
        service_file::{self, Defaults},
        tokens, zone_file,
    },
    model::name::Label,
};
use support::{
    agent::{Agent, DEADLINE},
    document::{Block, blocks},
    machine::Machine,
    skip,
};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Commands after `$ `, each with the output that is shown below it.
fn commands(block: &Block) -> Vec<(String, String)> {
    let mut commands: Vec<(String, String)> = vec![];
    for line in block.text.lines() {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push((command.to_owned(), String::new())),
            (None, Some((_, output))) => output.extend([line, "\n"]),
            (None, None) => panic!("output before any command: {line}"),
        }
    }
    commands
}

/// A query's id is another each time.
fn without_id(output: &str) -> String {
    let words = output.lines().map(|line| line.split(" id: ").next().unwrap_or_default().to_owned() + "\n");
    words.collect()
}

/// With a single space for any number of them and `…` for how long ago something was, which start this is, which index, and
/// the digest of a view.
fn without_times(output: &str) -> String {
    let is_time = |word: &str| {
        let units = word.trim_start_matches(|c: char| c.is_ascii_digit() || "smhd".contains(c));
        let is_digest = word.len() == 8 && word.chars().all(|c| c.is_ascii_hexdigit());
        is_digest || units.is_empty() && (word.ends_with(['s', 'm', 'h']) || word.len() == 19 || word.len() == 13)
    };
    let words = |line: &str| {
        line.split_whitespace().map(|word| if is_time(word) { "…" } else { word }).collect::<Vec<_>>().join(" ")
    };
    output.lines().map(|line| words(line) + "\n").collect()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
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

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_quick_start_prints_what_it_shows() {
    let test = "the README's quick start";
    if !skip::tool(test, "dig", "bind9-dnsutils") || !skip::tool(test, "python3", "python3") {
        return;
    }
    let blocks = blocks("README.md");
    let of_kind = |kind: &str| blocks.iter().find(|b| b.kind == kind).unwrap_or_else(|| panic!("no block {kind:?}"));
    let [(start, _)] = &commands(of_kind("run: agent"))[..] else { panic!("one command starts the agent") };
    assert_eq!(start, "cargo run --release -- agent --config examples/quickstart/muster.yaml");

    // The same files on ports that are free here.
    let api = free_port().to_string();
    let agent = Agent::start_with("", &[], |folder| {
        let change = |text: String| {
            text.replace("127.0.0.1:8600", "127.0.0.1:0")
                .replace("127.0.0.1:8500", "127.0.0.1:0")
                .replace("127.0.0.1:7946", "127.0.0.1:0")
                .replace("../../target/quickstart", "data")
                .replace("8000", &api)
        };
        for name in ["services.d", "zones"] {
            fs::remove_dir(folder.join(name)).unwrap();
        }
        copy_folder(&repository().join("examples/quickstart"), folder, &change);
    });
    let port = agent.address().port().to_string();
    let http = agent.http().to_string();
    let gossip = agent.gossip().to_string();
    let run = |kind: &str| {
        for block in blocks.iter().filter(|block| block.kind == kind) {
            for (command, expected) in commands(block) {
                let here = |text: &str| {
                    text.replace("8600", &port)
                        .replace("127.0.0.1:7946", &gossip)
                        .replace("127.0.0.1:8500", &http)
                        .replace("8000", &api)
                        .replace("target/release/muster", env!("CARGO_BIN_EXE_muster"))
                };
                let mut shell = Command::new("sh");
                shell.arg("-c").arg(here(&command)).env("MUSTER_HTTP_ADDR", &http);
                prints(shell, &here(&expected));
            }
        }
    };
    run("run: ask");
    run("run: commands");
    run("run: ask while the api is down");
    let [(serve, _)] = &commands(of_kind("run: server"))[..] else { panic!("one command starts the server") };
    let mut words = serve.split(' ').map(|word| word.replace("8000", &api));
    let server = Command::new(words.next().unwrap())
        .args(words)
        .current_dir(agent.path("services.d"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let server = Server(server.unwrap());
    run("run: ask while the api is up");
    drop(server);
    run("run: ask while the api is down");
}

/// A command prints what is expected sooner or later.
fn prints(mut command: Command, expected: &str) {
    let same = |text: &str| without_times(&without_id(text));
    let deadline = Instant::now() + DEADLINE;
    loop {
        let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
        if same(&output) == same(expected) {
            return;
        }
        assert!(Instant::now() < deadline, "{command:?}\nprints\n{output}where the README shows\n{expected}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_cluster_prints_what_it_shows() {
    let test = "the README's cluster";
    if !skip::tool(test, "dig", "bind9-dnsutils") || !skip::tool(test, "bash", "bash") {
        return;
    }
    let blocks = blocks("README.md");
    let of_kind = |kind: &str| {
        let block = blocks.iter().find(|block| block.kind == kind).unwrap_or_else(|| panic!("no block {kind:?}"));
        commands(block)
    };
    let [(start, _)] = &of_kind("run: cluster")[..] else { panic!("one command starts the cluster") };
    // The same files on addresses that nobody else uses.
    let folder = tempfile::tempdir().unwrap();
    let id = std::process::id();
    let network = format!("127.{}.{}.", 100 + id % 100, id / 100 % 250);
    let here =
        |text: &str| text.replace("127.0.1.", &network).replace("target/release/muster", env!("CARGO_BIN_EXE_muster"));
    copy_folder(&repository().join("examples/cluster"), &folder.path().join("examples/cluster"), &|text| here(&text));
    let command = |text: &str| {
        let mut command = Command::new("bash");
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

/// What `examples/cluster/run` has started, which it ends itself.
struct Cluster(Child);

impl Drop for Cluster {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// With `…` for serials, and no space at the end of lines.
fn without_serials(output: &str) -> String {
    let line = |line: &str| {
        let (text, serial) = line.rsplit_once(" has serial ").unwrap_or((line, ""));
        if serial.is_empty() { line.trim_end().to_owned() } else { format!("{text} has serial …") }
    };
    output.lines().map(|text| line(text) + "\n").collect()
}

#[test]
fn the_setup_of_a_host_prints_what_it_shows() {
    let test = "the README's setup of a host";
    if !skip::machines(test) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let paths = ["usr/lib/systemd/systemd-resolved", "lib/systemd/systemd-resolved"];
    let Some(program) = skip::file_of(test, "systemd-resolved", &paths, folder.path()) else { return };
    let services = "service: web\nport: 8080\naddress: 10.0.0.8\n";
    for (kind, resolved) in [("run: setup resolved", true), ("run: setup resolv-conf", false)] {
        let mut machine = Machine::new("nameserver 127.0.0.2\n", "files dns");
        if resolved {
            machine.name_server("127.0.0.2");
            machine.start_resolved(&program);
        }
        let world = machine.start_world();
        let _network = machine.start_agent("127.0.0.2:53", &world, "");
        let _agent = machine.start_agent("127.0.0.1:53", &world, services);
        let block = blocks("README.md").into_iter().find(|block| block.kind == kind).unwrap();
        for (command, expected) in commands(&block) {
            let printed = machine.says("sh", &["-c", command.trim_start_matches("sudo ")]);
            assert_eq!(without_serials(&printed), without_serials(&expected), "{command}");
        }
    }
}

#[test]
fn the_validate_command_passes_on_the_examples() {
    let blocks = blocks("README.md");
    let block = blocks.iter().find(|block| block.kind == "run: validate").unwrap();
    let (command, _) = commands(block).remove(0);
    let arguments = command.strip_prefix("cargo run --release -- ").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_muster"))
        .args(arguments.split(' '))
        .current_dir(repository())
        .output()
        .unwrap();
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
fn every_file_that_is_shown_is_read_without_a_problem() {
    let node = Label::parse("host-a").unwrap();
    let addresses = ["10.0.0.7".parse().unwrap()];
    let environment = Environment { host_name: "host-a".into(), default_address: addresses[0] };
    let mut seen = 0;
    for block in blocks("README.md").into_iter().chain(blocks("docs/api.md")) {
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
            ["run:", ..] | ["ci:", ..] | ["on", "three", "hosts"] => continue,
            _ => panic!("a block in {:?} without a comment that says what it is:\n{}", block.language, block.text),
        };
        assert!(problems.is_empty(), "{problems:#?}\nin\n{}", block.text);
        seen += 1;
    }
    assert!(seen >= 5, "the README shows a configuration, service files and a zone file");
}

#[test]
fn links_lead_somewhere() {
    let mut links = 0;
    for document in [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "docs/api.md",
        "docs/rfc.md",
        "docs/clients.md",
        "docs/integrations.md",
        "docs/cluster.md",
        "docs/cluster-benchmark.md",
        "docs/metrics.md",
        "docs/performance.md",
        "docs/scale.md",
    ] {
        let path = repository().join(document);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{document}: {error}"));
        for rest in text.split("](").skip(1) {
            let target = rest.split([')', '#']).next().unwrap_or_default();
            if target.is_empty() || target.starts_with("http") {
                continue;
            }
            assert!(path.parent().unwrap().join(target).exists(), "{document} links to {target}, which does not exist");
            links += 1;
        }
    }
    assert!(links > 5);
}

#[test]
fn tests_that_the_rfc_page_names_exist() {
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
