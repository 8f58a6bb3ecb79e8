//! `muster zone list|show|diff|notify`: output and exit codes of the built program.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use support::{
    agent::Agent,
    process::{self, Finish},
    program::free,
    wait,
};

const ZONE: &str = "$TTL 300\n@ SOA ns hostmaster 5 3600 600 86400 60\n@ NS ns\nns A 192.0.2.1\n$INCLUDE hosts.inc\n";
const HOSTS: &str = "www 60 A 192.0.2.2\n*.wild TXT \"any text\"\n";

/// Starts an agent with a zone file and a secondary that does not respond; returns it with the secondary's address.
fn agent() -> (Agent, String) {
    let secondary = free().to_string();
    (agent_of(&secondary), secondary)
}

fn agent_of(secondary: &str) -> Agent {
    let config = format!(
        "dns: {{listen: [127.0.0.1:0], transfer: {{allow: [loopback], notify: [\"{secondary}\"]}}}}\nalias_domains: [alias.test]\n"
    );
    Agent::start_with(&config, &[], |folder| {
        fs::write(folder.join("zones/example.org.zone"), ZONE).unwrap();
        fs::write(folder.join("zones/hosts.inc"), HOSTS).unwrap();
    })
}

/// Runs `muster zone` in a folder; returns exit code, standard output and standard error.
fn zone(agent: &Agent, folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = process::muster();
    command.arg("zone").args(arguments).args(["--http-addr", &agent.http().to_string()]).current_dir(folder);
    let output = command.finish();
    let text = |octets| String::from_utf8(octets).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Replaces serials that depend on the clock by `…`, and aligned spaces by one.
fn stable(output: &str) -> String {
    let word = |word: &str| match word.len() == 10 && word.chars().all(|c| c.is_ascii_digit()) {
        true => "…".to_owned(),
        false => word.to_owned(),
    };
    output.lines().map(|line| line.split_whitespace().map(word).collect::<Vec<_>>().join(" ") + "\n").collect()
}

#[test]
fn list_shows_kind_serial_records_and_secondaries() {
    let (agent, secondary) = agent();
    let (code, list, errors) = zone(&agent, &agent.path(""), &["list"]);
    let expected = format!(
        "ZONE KIND SERIAL RECORDS SOURCE CONFIRMED SECONDARIES\n\
         alias.test. discovery … 8 - - {secondary}=?\n\
         example.org. file 5 5 example.org.zone - {secondary}=?\n\
         service.local. discovery … 8 - - {secondary}=?\n"
    );
    assert_eq!((code, stable(&list).as_str(), errors.as_str()), (0, expected.as_str(), ""));
}

/// A secondary that accepts each NOTIFY, and has this serial of all zones.
struct Secondary {
    address: SocketAddr,
    serial: Arc<AtomicU32>,
    /// Number of NOTIFY messages about example.org.
    notified: Arc<AtomicU32>,
}

impl Secondary {
    fn start(serial: u32) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let (serial, notified) = (Arc::new(AtomicU32::new(serial)), Arc::new(AtomicU32::new(0)));
        let (held, count) = (serial.clone(), notified.clone());
        // Ends with the process.
        thread::spawn(move || {
            let mut buffer = [0; 1232];
            while let Ok((len, from)) = socket.recv_from(&mut buffer) {
                let mut message = buffer[..len].to_vec();
                let is_notify = message[2] & 0x78 == 0x20;
                message[2] |= 0x84;
                if is_notify {
                    let is_of_file = message[12..].starts_with(b"\x07example\x03org\0");
                    count.fetch_add(u32::from(is_of_file), Ordering::SeqCst);
                } else {
                    message[7] = 1;
                    // The SOA: a pointer to the question, type, class, TTL, length, two names, and five numbers.
                    message.extend([0xc0, 12, 0, 6, 0, 1, 0, 0, 0, 60, 0, 22, 0, 0]);
                    message.extend(held.load(Ordering::SeqCst).to_be_bytes());
                    message.extend([0, 0, 0, 60].repeat(4));
                }
                socket.send_to(&message, from).unwrap();
            }
        });
        Self { address, serial, notified }
    }
}

#[test]
fn secondary_that_does_not_copy_the_zone_is_told_again_and_shown() {
    let secondary = Secondary::start(4);
    let agent = agent_of(&secondary.address.to_string());
    let shown = || {
        let (_, list, _) = zone(&agent, &agent.path(""), &["list"]);
        list.lines().find(|line| line.starts_with("example.org.")).unwrap().to_owned()
    };
    wait::until_equal("a second NOTIFY", &true, || secondary.notified.load(Ordering::SeqCst) > 1);
    let behind = format!("{}=4 (behind)", secondary.address);
    assert!(shown().ends_with(&behind), "{}", shown());
    secondary.serial.store(u32::MAX >> 1, Ordering::SeqCst);
    wait::until_equal("the serial of the secondary", &true, || shown().ends_with(&format!("={}", u32::MAX >> 1)));
}

/// Runs dig for a transfer of a zone, and returns its number of records without the second SOA, and the names of NS records.
fn transferred(agent: &Agent, zone: &str) -> (u64, Vec<String>) {
    let mut dig = process::command("dig");
    dig.args([&format!("@{}", agent.address().ip()), "-p", &agent.address().port().to_string(), "AXFR", zone]);
    let output = String::from_utf8(dig.finish().stdout).unwrap();
    let size = output.split("XFR size: ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok());
    let records = output.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let name_servers = records.filter(|words| words.get(3) == Some(&"NS")).map(|words| words[0].to_owned()).collect();
    (size.unwrap_or_else(|| panic!("{zone}: {output}")) - 1, name_servers)
}

#[test]
fn number_of_records_is_that_of_a_transfer() {
    if !support::skip::tool("number_of_records_is_that_of_a_transfer", "dig", "bind9-dnsutils") {
        return;
    }
    let config = "dns: {listen: [127.0.0.1:0], transfer: {allow: [loopback]}}\n\
                  alias_domains: [alias.test, {domain: consul, scheme: consul}]\n";
    let head = "$TTL 300\n@ SOA ns.example. hostmaster 5 3600 600 86400 60\n@ NS ns.example.\n";
    let files = [
        // A delegation to another zone of this server, and records that it hides from answers.
        (
            "plain.test",
            "sub NS ns.sub\nns.sub A 192.0.2.1\nother NS ns.other\nns.other A 192.0.2.2\nold DNAME example.\n* TXT x\n",
        ),
        ("sub.plain.test", "ns A 192.0.2.1\n"),
        // The address of this node.
        ("10.in-addr.arpa", "7.0.0 PTR own.example.\n8.0.0 PTR other.example.\n"),
        ("service.local", "static A 192.0.2.3\n"),
        ("bare.test", ""),
    ];
    let agent = Agent::start_with(config, &[], |folder| {
        for (zone, records) in files {
            fs::write(folder.join(format!("zones/{zone}.zone")), format!("{head}{records}")).unwrap();
        }
        let instance = |id: &str, more: &str| format!("{{id: {id}, address: 10.0.0.1, port: 80{more}}}");
        let web = format!("[{}, {}]", instance("w1", ", tags: [v1, v2]"), instance("w2", ""));
        fs::write(folder.join("services.d/web.yaml"), format!("{{service: web, instances: {web}}}")).unwrap();
    });
    let listed = |zone_name: &str| {
        let (_, json, _) = zone(&agent, &agent.path(""), &["list", "--json"]);
        let zones: serde_json::Value = serde_json::from_str(&json).unwrap();
        let found = zones.as_array().unwrap().iter().find(|zone| zone["Zone"] == format!("{zone_name}.")).cloned();
        found.unwrap_or_else(|| panic!("no {zone_name} in {json}"))["Records"].as_u64().unwrap()
    };
    let zones = files.map(|(zone, _)| zone).into_iter().chain(["alias.test", "consul"]);
    for name in zones.clone() {
        assert_eq!(listed(name), transferred(&agent, name).0, "{name}");
    }
    let cuts = ["plain.test.", "sub.plain.test.", "other.plain.test."];
    let (_, mut found) = transferred(&agent, "plain.test");
    found.sort_by_key(|name| cuts.iter().position(|cut| cut == name));
    assert_eq!(
        found, cuts,
        "RFC 5936 §3.2: delegations belong to the zone above, also if this server has the zone below"
    );
    // The count follows the zone at once.
    let before = listed("service.local");
    agent.write_service("db.yaml", "{service: db, id: d1, address: 10.0.0.2, port: 5432}");
    wait::until("the service", || listed("service.local") > before);
    for name in zones {
        wait::until(name, || listed(name) == transferred(&agent, name).0);
    }
}

#[test]
fn show_prints_a_zone_file() {
    let (agent, _) = agent();
    let expected = "\
example.org. 300 IN SOA ns.example.org. hostmaster.example.org. 5 3600 600 86400 60
example.org. 300 IN NS ns.example.org.
*.wild.example.org. 300 IN TXT \"any text\"
ns.example.org. 300 IN A 192.0.2.1
www.example.org. 60 IN A 192.0.2.2
";
    assert_eq!(zone(&agent, &agent.path(""), &["show", "example.org"]), (0, expected.to_owned(), String::new()));
    let (code, output, errors) = zone(&agent, &agent.path(""), &["show", "other.test"]);
    assert_eq!((code, output.as_str()), (1, ""), "{errors}");
    assert!(errors.contains("other.test"), "{errors}");
}

#[test]
fn diff_reads_included_files() {
    let (agent, _) = agent();
    let zones = agent.path("zones");
    let equal = (0, String::new(), String::new());
    assert_eq!(zone(&agent, &zones, &["diff", "example.org", "example.org.zone"]), equal, "relative to the folder");
    let path = agent.path("zones/example.org.zone");
    assert_eq!(zone(&agent, Path::new("/"), &["diff", "example.org", path.to_str().unwrap()]), equal);

    let edited = agent.path("edited");
    fs::create_dir(&edited).unwrap();
    fs::write(edited.join("any-name"), ZONE).unwrap();
    fs::write(edited.join("hosts.inc"), HOSTS.replace("192.0.2.2", "192.0.2.9")).unwrap();
    let differences = "-www.example.org. 60 IN A 192.0.2.9\n+www.example.org. 60 IN A 192.0.2.2\n";
    let found = zone(&agent, &edited, &["diff", "example.org", "any-name"]);
    assert_eq!(found, (1, differences.to_owned(), String::new()));
    let (code, json, _) = zone(&agent, &edited, &["diff", "example.org", "any-name", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &value[0]["Only"], &value[1]["Only"]), (1, &"file".into(), &"served".into()), "{json}");
}

#[test]
fn diff_names_the_file_of_a_problem() {
    let (agent, _) = agent();
    let edited = agent.path("edited");
    fs::create_dir(&edited).unwrap();
    let cases = [
        (ZONE, Some("www A 192.0.2.\n"), "hosts.inc:1:7: "),
        (&*ZONE.replace("ns A 192.0.2.1", "ns A x"), Some(HOSTS), "any-name:4:6: "),
        (ZONE, None, "any-name:5:"),
        (&*ZONE.replace("hosts.inc", "../zones/hosts.inc"), None, "any-name:5:"),
    ];
    for (text, included, expected) in cases {
        fs::write(edited.join("any-name"), text).unwrap();
        let _ = fs::remove_file(edited.join("hosts.inc"));
        if let Some(included) = included {
            fs::write(edited.join("hosts.inc"), included).unwrap();
        }
        let (code, output, errors) = zone(&agent, &edited, &["diff", "example.org", "any-name"]);
        assert_eq!((code, output.as_str()), (2, ""), "{errors}");
        assert!(errors.starts_with(expected), "{expected}: {errors}");
    }
    let (code, output, errors) = zone(&agent, &edited, &["diff", "example.org", "absent"]);
    assert_eq!((code, output.as_str()), (2, ""));
    assert!(errors.starts_with("absent: No such file"), "{errors}");
}

#[test]
fn notify_names_the_number_of_secondaries() {
    let (agent, _) = agent();
    let found = zone(&agent, &agent.path(""), &["notify", "example.org"]);
    assert_eq!(found, (0, "example.org: NOTIFY to 1 secondary\n".to_owned(), String::new()));
    let (code, output, errors) = zone(&agent, &agent.path(""), &["notify", "other.test"]);
    assert_eq!((code, output.as_str()), (1, ""), "{errors}");
    let alone = Agent::start();
    let (code, output, errors) = zone(&alone, &alone.path(""), &["notify", "other.test"]);
    assert_eq!((code, output.as_str()), (1, ""));
    assert!(errors.contains("this node does not serve the zone"), "{errors}");
    let (code, output, errors) = zone(&alone, &alone.path(""), &["notify", "service.local"]);
    assert_eq!((code, output.as_str()), (1, ""), "{errors}");
    assert!(errors.contains("dns.transfer.notify"), "{errors}");
}
