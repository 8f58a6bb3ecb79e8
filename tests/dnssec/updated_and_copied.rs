//! Dynamic zones and copies of zones that are signed online, and copies that come signed.

use std::{fs, net::SocketAddr, path::Path};

use super::{
    ZONE, anchors, delv, keygen, public_keys,
    support::{
        agent::Agent,
        dynamic::{KEY, dig, nsupdate, write_keys},
        primary::{Primary, Setup, Software},
        process::{self, Finish},
        program::free,
        run, skip, wait,
    },
};

/// Questions about a copy of [`ZONE`], and their outcomes.
const OF_COPY: [(&str, &str); 3] = [
    ("@ SOA, @ NS, @ DNSKEY, @ MX, www A, chain A, x.wild A, sec DS, moved DNAME", POSITIVE),
    ("www AAAA, c A, sub DS, x.wild AAAA", NODATA),
    ("nope A, a.b.nope A, nope.www A", ABSENT),
];

fn has_tools(test: &str) -> bool {
    skip::tool(test, "delv", "bind9-dnsutils")
        && skip::tool(test, "nsupdate", "bind9-dnsutils")
        && skip::tool(test, "dnssec-signzone", "bind9-utils")
        && Software::is_installed(test)
}

/// Checks that delv validates all answers to these questions, which are of the expected kind.
#[track_caller]
fn assert_validated(agent: &Agent, zone: &str, cases: &[(&str, &str)]) {
    for (questions, expected) in cases {
        for question in questions.split(", ") {
            let (name, qtype) = question.split_once(' ').unwrap();
            let name = if name == "@" { zone.to_owned() } else { format!("{name}.{zone}") };
            let shown = delv(agent, &agent.path("anchors"), zone, &name, qtype);
            assert!(shown.contains(expected) && shown.contains("fully validated"), "{name} {qtype}: {shown}");
        }
    }
}

const POSITIVE: &str = "; fully validated";
const NODATA: &str = "ncache nxrrset";
const ABSENT: &str = "ncache nxdomain";

#[test]
fn updates_of_a_signed_dynamic_zone_validate() {
    if !has_tools("updates_of_a_signed_dynamic_zone_validate") {
        return;
    }
    let config = "dns: {listen: [127.0.0.1:0], keys_dir: tsig, dynamic: [{zone: dyn.test, keys: [{key: ddns}]}], dnssec: \
                  [dyn.test], dnssec_keys_dir: keys}\nstore: {voters: [host-a]}\n";
    let agent = Agent::start_with(config, &[], |folder| {
        write_keys(folder);
        keygen(&folder.join("keys"), "dyn.test", &[]);
    });
    anchors(&agent.path("anchors"), &public_keys(&agent.path("keys")));
    let update = |commands: &str| {
        wait::until_equal(commands, "ok", || nsupdate(agent.address(), Some(KEY), &[], commands));
    };
    assert_validated(&agent, "dyn.test", &[("@ SOA, @ NS, @ DNSKEY, @ CDS", POSITIVE), ("www A", ABSENT)]);
    update(
        "zone dyn.test\nupdate add www.dyn.test 60 A 192.0.2.1\nupdate add alias.dyn.test 60 CNAME www.dyn.test.\nupdate add \
         *.w.dyn.test 60 TXT any\nupdate add a.b.dyn.test 60 A 192.0.2.2",
    );
    let cases = [
        ("@ SOA, www A, alias A, x.w TXT, a.b A, www NSEC", POSITIVE),
        ("www AAAA, b A, x.w A, @ A", NODATA),
        ("nope A, x.www A, c.b A", ABSENT),
    ];
    assert_validated(&agent, "dyn.test", &cases);
    // Answers and proofs of a moment ago are not used again.
    update(
        "zone dyn.test\nupdate add www.dyn.test 60 A 192.0.2.9\nupdate add nope.dyn.test 60 A 192.0.2.3\nupdate delete a.b.dyn.test",
    );
    assert!(delv(&agent, &agent.path("anchors"), "dyn.test", "www.dyn.test", "A").contains("192.0.2.9"));
    assert_validated(&agent, "dyn.test", &[("www A, nope A, @ SOA", POSITIVE), ("a.b A, b A", ABSENT)]);
}

/// Starts an agent that copies a zone from a primary, with further keys of the table `dns`.
fn copying_agent(listen: SocketAddr, zone: &str, primary: SocketAddr, dns: &str, prepare: impl FnOnce(&Path)) -> Agent {
    let config = format!(
        "dns: {{listen: [\"{listen}\"], keys_dir: tsig, secondary: [{{zone: {zone}, primaries: [\"{primary}\"], key: ddns}}]{dns}}}\n"
    );
    Agent::start_with(&config, &[], |folder| {
        write_keys(folder);
        prepare(folder);
    })
}

#[track_caller]
fn wait_for_answer(agent: &Agent, question: &str, expected: &str) {
    wait::until_equal(question, expected, || dig(agent.address(), &format!("+short {question}")));
}

#[test]
fn copy_that_is_signed_online_validates() {
    if !has_tools("copy_that_is_signed_online_validates") {
        return;
    }
    let (listen, own, folder) = (free(), free(), run::temp_dir());
    let setup = Setup { listen, secondary: own, zone: "example.org", key: KEY };
    let mut primary = Primary::start(Software::Bind, &setup, ZONE, folder.path());
    primary.program.wait_for("the zone", &false, || dig(listen, "+short SOA example.org").is_empty());
    let agent = copying_agent(own, "example.org", listen, ", dnssec: [example.org], dnssec_keys_dir: keys", |folder| {
        drop(keygen(&folder.join("keys"), "example.org", &[]));
    });
    anchors(&agent.path("anchors"), &public_keys(&agent.path("keys")));
    wait_for_answer(&agent, "A ns1.example.org", "192.0.2.1\n");
    assert_validated(&agent, "example.org", &OF_COPY);
    primary.change(&ZONE.replace(" 7 3600", " 8 3600").replace("www A 192.0.2.1\n", "nope A 192.0.2.1\n"));
    wait_for_answer(&agent, "A nope.example.org", "192.0.2.1\n");
    assert_validated(&agent, "example.org", &[("nope A, www A, @ SOA", POSITIVE), ("nopf A", ABSENT)]);
}

/// Signs a zone with a key in `folder`, with options of dnssec-signzone. Returns the signed zone.
fn sign(folder: &Path, zone: &str, content: &str, options: &[&str]) -> String {
    let (plain, signed) = (folder.join("plain"), folder.join("signed"));
    fs::write(&plain, content).unwrap();
    let done = process::command("dnssec-signzone")
        .args(["-S", "-z", "-o", zone, "-K"])
        .arg(folder)
        .arg("-d")
        .arg(folder)
        .arg("-f")
        .arg(&signed)
        .args(options)
        .arg(&plain)
        .finish();
    assert!(done.status.success(), "{done:?}");
    fs::read_to_string(signed).unwrap()
}

/// RFC 4035 §3.1, RFC 5155 §7.2: signatures and proofs of the primary are served as they are, and follow its changes.
#[test]
fn copy_that_comes_signed_validates() {
    if !has_tools("copy_that_comes_signed_validates") {
        return;
    }
    for (software, options) in [(Software::Bind, &[][..]), (Software::Knot, &["-3", "ab01", "-H", "5"])] {
        let (listen, own, folder, keys) = (free(), free(), run::temp_dir(), run::temp_dir());
        keygen(keys.path(), "example.org", &[]);
        let setup = Setup { listen, secondary: own, zone: "example.org", key: KEY };
        let signed = sign(keys.path(), "example.org", ZONE, options);
        let mut primary = Primary::start(software, &setup, &signed, folder.path());
        primary.program.wait_for("the zone", &false, || dig(listen, "+short SOA example.org").is_empty());
        // Keys for online signing are not used.
        let mut agent =
            copying_agent(own, "example.org", listen, ", dnssec: [example.org], dnssec_keys_dir: keys", |folder| {
                drop(keygen(&folder.join("keys"), "example.org", &[]));
            });
        anchors(&agent.path("anchors"), &public_keys(keys.path()));
        wait_for_answer(&agent, "A ns1.example.org", "192.0.2.1\n");
        assert_validated(&agent, "example.org", &OF_COPY);
        let changed = ZONE.replace(" 7 3600", " 8 3600").replace("www A 192.0.2.1\n", "nope A 192.0.2.1\n");
        primary.change(&sign(keys.path(), "example.org", &changed, options));
        wait_for_answer(&agent, "A nope.example.org", "192.0.2.1\n");
        assert_validated(&agent, "example.org", &[("nope A, www A, @ SOA", POSITIVE), ("nopf A", ABSENT)]);
        agent.wait_for_log("the keys of the zone are not used: its file has the signatures of another tool");
        // The copy has them after a restart without the primary.
        primary.program.kill();
        agent.signal(nix::sys::signal::Signal::SIGKILL);
        agent.start_again();
        agent.wait_until_answering();
        assert_validated(&agent, "example.org", &[("www A", POSITIVE), ("www AAAA", NODATA), ("nopf A", ABSENT)]);
    }
}
