//! A private tree of signed zones: BIND's tools sign them, and named serves them as an upstream would, DNSSEC records included.

use std::{
    fmt::Write as _,
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
};

use hickory_proto::{
    op::{Message, Query, ResponseCode},
    rr::RecordType,
};
use tempfile::TempDir;

use crate::support::{
    decode,
    process::{self, Finish},
    program::{Program, free},
    run, skip,
    upstream::octets,
};

/// Content of the zones that resolve as they should.
const CONTENT: &str = "www A 192.0.2.1\nalias CNAME www\nabsent CNAME nothing\nout CNAME www.insec.\nloop CNAME loop\n\
                       *.wild A 192.0.2.2\na.b.c A 192.0.2.3\nmoved DNAME target\nx.target A 192.0.2.4\ntxt TXT \"Text\"\n\
                       intern CNAME web.service.local.\nlab CNAME www.lab.sec.\nsub NS ns.sub\nns.sub A 127.0.0.1\n\
                       people RP Admin.Sec. Text.SEC.\nafs AFSDB 1 AFS.sec.\nkx KX 1 KX.sec.\n\
                       px PX 1 Map.sec. X400.sec.\nrt RT 1 Relay.sec.\nMoved2 DNAME Target\n";

/// Zones below the root: name, arguments of dnssec-signzone (`None`: not signed), and whether the root has the DS record.
const ZONES: [(&str, Option<&[&str]>, bool); 9] = [
    ("sec", Some(&[]), true),
    ("three", Some(&["-3", "aabb", "-H", "5"]), true),
    ("optout", Some(&["-3", "-", "-A"]), true),
    ("many", Some(&["-3", "-", "-H", "120"]), true),
    ("insec", None, false),
    ("island", Some(&[]), false),
    ("expired", Some(&["-s", "20200101000000", "-e", "20200201000000"]), true),
    ("future", Some(&["-s", "20300101000000", "-e", "20300201000000"]), true),
    ("nokey", Some(&[]), true),
];

/// Running server of the tree.
pub(crate) struct SignedTree {
    pub(crate) address: SocketAddr,
    /// File of the root's trust anchor, as DS record.
    pub(crate) anchor: PathBuf,
    pub(crate) folder: TempDir,
    _named: Program,
}

impl SignedTree {
    /// Reports whether the programs are installed; if not, skips `test`.
    pub(crate) fn is_possible(test: &str) -> bool {
        skip::tool(test, "named", "bind9")
            && skip::tool(test, "dnssec-signzone", "bind9-utils")
            && skip::tool(test, "dnssec-keygen", "bind9-utils")
    }

    /// Signs the zones and starts the server.
    pub(crate) fn start() -> Self {
        let folder = run::temp_dir();
        let path = folder.path();
        let mut root = "a.ns A 127.0.0.1\n".to_owned();
        let mut config = String::new();
        for (zone, options, has_ds) in ZONES {
            fs::write(path.join(zone), zone_text(zone, CONTENT)).unwrap();
            writeln!(root, "{zone} NS a.ns").unwrap();
            let Some(options) = options else {
                zone_config(&mut config, zone, zone);
                continue;
            };
            let ds = sign(path, zone, options);
            fs::write(path.join(format!("{zone}.anchor")), &ds).unwrap();
            match (has_ds, zone) {
                // The DS record of a key that the zone does not have.
                (true, "nokey") => writeln!(root, "nokey DS 1 13 2 {}", "ab".repeat(32)).unwrap(),
                (true, _) => root.push_str(&ds),
                (false, _) => {}
            }
            zone_config(&mut config, zone, &format!("{zone}.signed"));
        }
        // Delegated without a DS record from a signed zone with NSEC, NSEC3, opt-out and too many iterations.
        for parent in ["sec", "three", "optout", "many"] {
            let zone = format!("sub.{parent}");
            fs::write(path.join(&zone), zone_text(&zone, "www A 192.0.2.9\n")).unwrap();
            zone_config(&mut config, &zone, &zone);
        }
        fs::write(path.join("root"), zone_text("", &root)).unwrap();
        let anchor = sign(path, ".", &[]);
        fs::write(path.join("anchor"), anchor).unwrap();
        zone_config(&mut config, ".", "root.signed");
        let address = free();
        let options = format!(
            "options {{ directory \"{0}\"; listen-on port {1} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; pid-file none; \
             recursion no; notify no; dnssec-validation no; session-keyfile none; }};\ncontrols {{}};\n{config}",
            path.display(),
            address.port()
        );
        fs::write(path.join("named.conf"), options).unwrap();
        let mut command = process::command("named");
        command.args(["-g", "-c"]).arg(path.join("named.conf"));
        let mut named = Program::start(command, path);
        named.wait_for("named", &true, || TcpStream::connect(address).is_ok());
        // It listens before it has read the zones.
        for zone in ZONES.map(|(zone, ..)| zone).into_iter().chain(["."]) {
            named.wait_for(zone, &ResponseCode::NoError, || {
                let mut query = Message::query();
                query.add_query(Query::query(zone.parse().unwrap(), RecordType::SOA));
                decode(&forward(address, &octets(&query))).metadata.response_code
            });
        }
        Self { address, anchor: path.join("anchor"), folder, _named: named }
    }
}

fn zone_text(zone: &str, content: &str) -> String {
    let origin = if zone.is_empty() { "." } else { zone };
    let dot = if zone.is_empty() { "" } else { "." };
    format!("$TTL 300\n$ORIGIN {origin}{dot}\n@ SOA ns h 1 3600 600 86400 60\n@ NS ns\nns A 127.0.0.1\n{content}")
}

fn zone_config(config: &mut String, zone: &str, file: &str) {
    writeln!(config, "zone \"{zone}\" {{ type primary; file \"{file}\"; }};").unwrap();
}

/// Signs a zone with new keys; returns the DS record of its key-signing key.
fn sign(folder: &Path, zone: &str, options: &[&str]) -> String {
    let file = if zone == "." { "root" } else { zone };
    let keys = folder.join(format!("keys-{file}"));
    fs::create_dir(&keys).unwrap();
    let mut key = String::new();
    for flags in [&[][..], &["-f", "KSK"]] {
        let mut command = process::command("dnssec-keygen");
        let made = command.args(["-q", "-a", "ECDSAP256SHA256", "-K"]).arg(&keys).args(flags).arg(zone).finish();
        assert!(made.status.success(), "{made:?}");
        key = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    }
    let mut command = process::command("dnssec-signzone");
    command.args(["-q", "-P", "-S", "-K"]).arg(&keys).arg("-d").arg(folder).args(options);
    let signed =
        command.args(["-o", zone, "-f"]).arg(folder.join(format!("{file}.signed"))).arg(folder.join(file)).finish();
    assert!(signed.status.success(), "{zone}: {signed:?}");
    let ds = process::command("dnssec-dsfromkey").args(["-2"]).arg(keys.join(key)).finish();
    assert!(ds.status.success(), "{ds:?}");
    String::from_utf8(ds.stdout).unwrap()
}

/// Returns the reply of a server over TCP.
pub(crate) fn forward(server: SocketAddr, query: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.write_all(&[&(query.len() as u16).to_be_bytes(), query].concat()).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut reply = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut reply).unwrap();
    reply
}
