//! Zones that another tool has signed: with NSEC, NSEC3 and opt-out, by BIND's tool.

use std::{fs, path::Path};

use super::{
    ZONE, anchors, delv, dig, keygen, muster, public_keys,
    support::{
        agent::Agent,
        process::{self, Finish},
        skip,
    },
};

/// Zones, with options of dnssec-signzone.
const SIGNED: [(&str, &[&str]); 3] =
    [("nsec.example", &[]), ("nsec3.example", &["-3", "ab01", "-H", "5"]), ("optout.example", &["-3", "-", "-A"])];

/// Reports whether the tests can run.
fn has_tools(test: &str) -> bool {
    skip::tool(test, "delv", "bind9-dnsutils") && skip::tool(test, "dnssec-signzone", "bind9-utils")
}

/// Writes a zone file that is signed with a new key of muster.
fn sign(folder: &Path, zone: &str, options: &[&str]) {
    let keys = folder.join("signer");
    keygen(&keys, zone, &[]);
    let plain = folder.join(zone);
    fs::write(&plain, ZONE.replace("example.org", zone)).unwrap();
    let done = process::command("dnssec-signzone")
        .args(["-S", "-z", "-o", zone, "-K"])
        .arg(&keys)
        .arg("-d")
        .arg(folder)
        .arg("-f")
        .arg(folder.join(format!("zones/{zone}.zone")))
        .args(options)
        .arg(&plain)
        .finish();
    assert!(done.status.success(), "{done:?}");
}

fn presigned_agent(config: &str) -> Agent {
    Agent::start_with(config, &[], |folder| SIGNED.iter().for_each(|(zone, options)| sign(folder, zone, options)))
}

/// RFC 4035 §3.1, RFC 5155 §7.2.
#[test]
fn delv_validates_zones_that_come_signed() {
    if !has_tools("delv_validates_zones_that_come_signed") {
        return;
    }
    let agent = presigned_agent("");
    let file = agent.path("anchors");
    anchors(&file, &public_keys(&agent.path("signer")));
    let positive = "@ SOA, @ NS, @ DNSKEY, @ MX, www A, alias A, chain A, WWW A, a.b.c A, x.wild A, y.z.wild TXT, *.wild A, \
                    x.cname A, sec DS, moved DNAME, www.moved A";
    let nodata = "www AAAA, alias AAAA, @ AAAA, c A, b.c A, wild A, x.wild AAAA, x.cname AAAA, sub DS";
    let absent = "nope A, a.b.nope A, z.b.c A, a.nope.c A, nope.www A, 0 A, zzzz A, _ A";
    for (zone, _) in SIGNED {
        for (questions, expected) in [(positive, "RRSIG"), (nodata, "ncache nxrrset"), (absent, "ncache nxdomain")] {
            for question in questions.split(", ") {
                let (name, qtype) = question.split_once(' ').unwrap();
                let name = if name == "@" { zone.to_owned() } else { format!("{name}.{zone}") };
                let shown = delv(&agent, &file, zone, &name, qtype);
                // With opt-out, proofs of absence leave out unsigned delegations, so that they prove nothing (RFC 5155 §9.2).
                let is_expanded = ["x.wild", "y.z.wild", "x.cname", "sub"].iter().any(|part| name.starts_with(part));
                let is_insecure = zone.starts_with("optout") && (expected.ends_with("nxdomain") || is_expanded);
                let is_validated =
                    shown.contains("fully validated") || is_insecure && shown.contains("unsigned answer");
                assert!(shown.contains(expected) && is_validated, "{name} {qtype}: {shown}");
            }
        }
    }
}

#[test]
fn signed_zone_is_transferred_whole_and_is_not_signed_again() {
    let test = "signed_zone_is_transferred_whole_and_is_not_signed_again";
    if !has_tools(test) || !skip::tool(test, "ldns-verify-zone", "ldnsutils") {
        return;
    }
    let mut agent = presigned_agent(
        "dns: {listen: [127.0.0.1:0], transfer: {allow: [loopback]}, dnssec: [nsec.example], dnssec_keys_dir: signer}\n",
    );
    agent.wait_for_log("its file has the signatures of another tool");
    let dig = |arguments: &[&str]| dig(&agent, &[&["+norecurse"], arguments].concat());
    for (zone, _) in SIGNED {
        let copy = agent.path("copy");
        fs::write(&copy, dig(&["+onesoa", "+nocmd", "+nocomments", "+nostats", zone, "AXFR"])).unwrap();
        let verified = process::command("ldns-verify-zone").arg(&copy).finish();
        assert!(verified.status.success(), "{zone}: {verified:?}\n{}", fs::read_to_string(&copy).unwrap());
        // Clients that do not ask for signatures receive none.
        for question in ["www", "nope"] {
            let plain = dig(&["+nodnssec", &format!("{question}.{zone}")]);
            assert!(!plain.contains("RRSIG") && !plain.contains("NSEC"), "{plain}");
        }
        let proof = if zone == "nsec.example" { "IN NSEC " } else { "IN NSEC3 " };
        let insecure = dig(&["+dnssec", &format!("x.sub.{zone}")]);
        assert!(insecure.contains(proof) && !insecure.contains("RRSIG NS "), "{insecure}");
        let secure = dig(&["+dnssec", &format!("x.sec.{zone}")]);
        assert!(secure.contains("RRSIG DS") && !secure.contains(proof), "{secure}");
    }
    let config = agent.path("muster.yaml");
    let validated = muster(&["validate", config.to_str().unwrap()]);
    assert!(validated.contains("another tool has signed this zone"), "{validated}");
}
