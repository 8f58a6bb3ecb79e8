//! Programs that write to dynamic zones: certbot and lego with a certificate authority, Kea's DHCP-DDNS, octodns.

use std::{fs, net::UdpSocket, path::Path};

use crate::support::{
    acme::Pebble,
    dynamic::{ACME, Cluster, KEY, dig},
    process::{self, Finish},
    program::{Program, free},
    run, skip, wait,
};

fn has_acme(test: &str, client: &str, package: &str) -> bool {
    skip::tool(test, "dig", "bind9-dnsutils")
        && skip::tool(test, "pebble", "pebble")
        && skip::tool(test, client, package)
}

/// Runs a client of ACME, which must succeed.
#[track_caller]
fn succeed(command: &mut std::process::Command, pebble: &Pebble, cluster: &Cluster) -> String {
    let output = command.finish();
    let printed = [&output.stdout, &output.stderr].map(|octets| String::from_utf8_lossy(octets).into_owned()).concat();
    assert!(output.status.success(), "{printed}\n{}\n{}", pebble.log(), cluster.agent(0).log());
    printed
}

/// Each of two challenges was added and deleted.
#[track_caller]
fn check_challenges(cluster: &Cluster) {
    cluster.wait_for_answers("TXT _acme-challenge.www.dyn.test", "");
    let changes = cluster.agent(0).log().matches("zone updated").count();
    assert!(changes >= 4, "{changes} changes");
}

#[test]
fn certbot_proves_names_by_updates() {
    let test = "certbot_proves_names_by_updates";
    if !has_acme(test, "certbot", "certbot python3-certbot-dns-rfc2136") {
        return;
    }
    let (cluster, folder) = (Cluster::start(1, 1, ""), run::temp_dir());
    let pebble = Pebble::start(folder.path(), cluster.server(0));
    let (server, path) = (cluster.server(0), folder.path().display());
    let credentials = folder.path().join("rfc2136.ini");
    let text = format!(
        "dns_rfc2136_server = {}\ndns_rfc2136_port = {}\ndns_rfc2136_name = {}\ndns_rfc2136_secret = {}\n\
         dns_rfc2136_algorithm = HMAC-SHA256\n",
        server.ip(),
        server.port(),
        ACME.name,
        ACME.secret
    );
    fs::write(&credentials, text).unwrap();
    let mut certbot = process::command("certbot");
    certbot.args(["certonly", "-n", "--agree-tos", "-m", "admin@dyn.test", "--server", &pebble.directory()]);
    certbot.args(["--dns-rfc2136", "--dns-rfc2136-propagation-seconds", "0", "--dns-rfc2136-credentials"]);
    certbot.arg(&credentials).args(["-d", "www.dyn.test", "-d", "*.dyn.test"]);
    for option in ["config", "work", "logs"] {
        certbot.args([&format!("--{option}-dir"), &format!("{path}/{option}")]);
    }
    certbot.env("REQUESTS_CA_BUNDLE", folder.path().join("ca.pem"));
    succeed(&mut certbot, &pebble, &cluster);
    assert!(folder.path().join("config/live/www.dyn.test/fullchain.pem").exists());
    check_challenges(&cluster);
}

#[test]
fn lego_proves_names_by_updates() {
    let test = "lego_proves_names_by_updates";
    if !has_acme(test, "lego", "lego") {
        return;
    }
    let (cluster, folder) = (Cluster::start(1, 1, ""), run::temp_dir());
    let pebble = Pebble::start(folder.path(), cluster.server(0));
    let server = cluster.server(0).to_string();
    let mut lego = process::command("lego");
    lego.args(["--server", &pebble.directory(), "--accept-tos", "--email", "admin@dyn.test", "--dns", "rfc2136"]);
    lego.args(["--domains", "www.dyn.test", "--domains", "*.dyn.test", "--dns.disable-cp", "--dns.resolvers", &server]);
    lego.arg("--path").arg(folder.path().join("lego")).arg("run");
    lego.envs([("RFC2136_NAMESERVER", server.as_str()), ("RFC2136_TSIG_KEY", ACME.name)]);
    lego.envs([("RFC2136_TSIG_SECRET", ACME.secret), ("RFC2136_TSIG_ALGORITHM", "hmac-sha256.")]);
    // It waits for a minute between two challenges otherwise.
    lego.env("RFC2136_SEQUENCE_INTERVAL", "1").env("LEGO_CA_CERTIFICATES", folder.path().join("ca.pem"));
    succeed(&mut lego, &pebble, &cluster);
    assert!(folder.path().join("lego/certificates/www.dyn.test.crt").exists());
    check_challenges(&cluster);
}

/// Sends a request of a DHCP server to change names: a length, and JSON.
fn send_request(to: std::net::SocketAddr, change: u8, name: &str, address: &str, client: &str) {
    let request = format!(
        "{{\"change-type\": {change}, \"forward-change\": true, \"reverse-change\": true, \"fqdn\": \"{name}.\", \"ip-address\": \
         \"{address}\", \"dhcid\": \"{client}\", \"lease-expires-on\": \"20361231235959\", \"lease-length\": 3600, \
         \"use-conflict-resolution\": true}}"
    );
    let datagram = [&(request.len() as u16).to_be_bytes()[..], request.as_bytes()].concat();
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(&datagram, to).unwrap();
}

fn start_kea(folder: &Path, cluster: &Cluster) -> (Program, std::net::SocketAddr) {
    let (listen, server) = (free(), cluster.server(0));
    let zone = |name: &str| {
        format!(
            "{{\"ddns-domains\": [{{\"name\": \"{name}.\", \"key-name\": \"{}\", \"dns-servers\": [{{\"ip-address\": \"{}\", \
             \"port\": {}}}]}}]}}",
            KEY.name,
            server.ip(),
            server.port()
        )
    };
    let config = format!(
        "{{\"DhcpDdns\": {{\"ip-address\": \"{}\", \"port\": {}, \"dns-server-timeout\": 5000, \"tsig-keys\": [{{\"name\": \"{}\", \"algorithm\": \
         \"HMAC-SHA256\", \"secret\": \"{}\"}}], \"forward-ddns\": {}, \"reverse-ddns\": {}, \"loggers\": [{{\"name\": \
         \"kea-dhcp-ddns\", \"severity\": \"DEBUG\", \"output_options\": [{{\"output\": \"stdout\"}}]}}]}}}}",
        listen.ip(),
        listen.port(),
        KEY.name,
        KEY.secret,
        zone("dyn.test"),
        zone("2.0.192.in-addr.arpa")
    );
    fs::write(folder.join("kea.json"), config).unwrap();
    let mut kea = process::command("kea-dhcp-ddns");
    kea.arg("-c").arg(folder.join("kea.json"));
    kea.env("KEA_PIDFILE_DIR", folder).env("KEA_LOCKFILE_DIR", folder);
    (Program::start(kea, folder), listen)
}

#[test]
fn dhcp_server_adds_and_removes_leases() {
    let test = "dhcp_server_adds_and_removes_leases";
    if !skip::tool(test, "kea-dhcp-ddns", "kea-dhcp-ddns-server") || !skip::tool(test, "dig", "bind9-dnsutils") {
        return;
    }
    const ONE: &str = "000201a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90";
    const TWO: &str = "000201ffffffd4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90";
    let (cluster, folder) = (Cluster::start(1, 1, ""), run::temp_dir());
    let (mut kea, to) = start_kea(folder.path(), &cluster);
    kea.wait_for("the start", &true, || kea_is_ready(folder.path()));
    let mut expect = |question: &str, expected: &str| {
        kea.wait_for(question, &expected.to_owned(), || dig(cluster.server(0), &format!("+short {question}")));
    };
    send_request(to, 0, "laptop.dyn.test", "192.0.2.7", ONE);
    expect("A laptop.dyn.test", "192.0.2.7\n");
    expect("-x 192.0.2.7", "laptop.dyn.test.\n");
    assert_ne!(dig(cluster.server(0), "+short DHCID laptop.dyn.test"), "");
    // The same client has another address; another client does not get the name.
    send_request(to, 0, "laptop.dyn.test", "192.0.2.8", ONE);
    expect("A laptop.dyn.test", "192.0.2.8\n");
    send_request(to, 0, "laptop.dyn.test", "192.0.2.9", TWO);
    send_request(to, 0, "other.dyn.test", "192.0.2.10", TWO);
    expect("A other.dyn.test", "192.0.2.10\n");
    expect("A laptop.dyn.test", "192.0.2.8\n");
    // A removal by another client changes nothing.
    send_request(to, 1, "laptop.dyn.test", "192.0.2.8", TWO);
    send_request(to, 1, "other.dyn.test", "192.0.2.10", TWO);
    expect("A other.dyn.test", "");
    expect("A laptop.dyn.test", "192.0.2.8\n");
    send_request(to, 1, "laptop.dyn.test", "192.0.2.8", ONE);
    expect("A laptop.dyn.test", "");
    expect("DHCID laptop.dyn.test", "");
    expect("-x 192.0.2.8", "");
}

fn kea_is_ready(folder: &Path) -> bool {
    fs::read_to_string(folder.join("kea-dhcp-ddns.log")).is_ok_and(|log| log.contains("DHCP_DDNS_STARTED"))
}

#[test]
fn octodns_synchronizes_a_zone() {
    let test = "octodns_synchronizes_a_zone";
    if !skip::python_tool(test, "octodns-sync") || !skip::tool(test, "dig", "bind9-dnsutils") {
        return;
    }
    let (cluster, folder) = (Cluster::start(1, 1, ", transfer: {allow: [\"key:ddns\"]}"), run::temp_dir());
    let (server, path) = (cluster.server(0), folder.path());
    fs::create_dir(path.join("zones")).unwrap();
    let config = format!(
        "providers:\n  config: {{class: octodns.provider.yaml.YamlProvider, directory: {}/zones, default_ttl: 60, enforce_order: \
         false}}\n  muster: {{class: octodns_bind.Rfc2136Provider, host: {}, port: {}, key_name: {}, key_secret: {}, \
         key_algorithm: hmac-sha256}}\nzones:\n  dyn.test.: {{sources: [config], targets: [muster]}}\n",
        path.display(),
        server.ip(),
        server.port(),
        KEY.name,
        KEY.secret
    );
    fs::write(path.join("config.yaml"), config).unwrap();
    let sync = |zone: &str| {
        fs::write(path.join("zones/dyn.test.yaml"), zone).unwrap();
        let mut command = process::command("octodns-sync");
        command.arg("--config-file").arg(path.join("config.yaml")).args(["--doit", "--force"]);
        let output = command.finish();
        let printed =
            [&output.stdout, &output.stderr].map(|octets| String::from_utf8_lossy(octets).into_owned()).concat();
        assert!(output.status.success(), "{printed}");
        printed
    };
    sync(
        "www: {type: A, values: [192.0.2.1, 192.0.2.2]}\nmail:\n- {type: MX, value: {preference: 10, exchange: www.dyn.test.}}\n- {type: TXT, value: v=spf1}\n",
    );
    let sorted = |question: &str| {
        let mut lines: Vec<String> =
            dig(server, &format!("+short {question}")).lines().map(ToOwned::to_owned).collect();
        lines.sort();
        lines
    };
    wait::until_equal("addresses", &["192.0.2.1", "192.0.2.2"][..], || sorted("A www.dyn.test"));
    assert_eq!(sorted("MX mail.dyn.test"), ["10 www.dyn.test."]);
    assert!(sync("www: {type: A, values: [192.0.2.1, 192.0.2.2]}\nmail:\n- {type: MX, value: {preference: 10, exchange: www.dyn.test.}}\n- {type: TXT, value: v=spf1}\n").contains("No changes"));
    sync("www: {type: A, values: [192.0.2.3]}\n");
    wait::until_equal("addresses", &["192.0.2.3"][..], || sorted("A www.dyn.test"));
    assert_eq!(sorted("MX mail.dyn.test"), Vec::<String>::new());
}
