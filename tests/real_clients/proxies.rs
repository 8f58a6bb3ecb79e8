//! nginx, Caddy, Envoy and gRPC clients: traffic goes only to the instances that muster answers.

use std::{io::Write, process::Stdio, thread};

use crate::{
    scene::{DOCUMENT, Scene, fetched, listen},
    support::{
        document::block,
        process, skip,
        wait::{self, DEADLINE},
    },
};

const THREE: &[(&str, &str)] = &[("a", ""), ("b", ""), ("c", "")];

/// nginx queries A and AAAA: for names with only A records, the AAAA answer must be NODATA, not NXDOMAIN.
#[test]
fn nginx_follows_health_with_and_without_ipv6() {
    if !skip::tool("nginx_follows_health_with_and_without_ipv6", "nginx", "nginx-light") {
        return;
    }
    thread::scope(|scope| {
        for ipv6 in ["", " ipv6=off"] {
            scope.spawn(|| assert_nginx_follows(ipv6));
        }
    });
}

fn assert_nginx_follows(ipv6: &str) {
    let (scene, listen) = (Scene::start(THREE, ""), listen());
    let server = scene.configuration("nginx", listen).replace(" valid=1s", &format!(" valid=1s{ipv6}"));
    let folder = scene.folder.path().display();
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("{what}_temp_path {folder}/{what};\n"))
        .concat();
    let text = format!(
        "daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n\
         {paths}{server}}}\n"
    );
    let mut nginx = process::command("nginx");
    nginx.args(["-e", "stderr", "-c"]).arg(scene.write("nginx.conf", &text));
    let nginx = scene.program(nginx);
    scene.assert_followed(nginx, listen);
}

#[test]
fn caddy_follows_health() {
    let Some(program) = fetched("caddy_follows_health", "python/bin/caddy") else { return };
    let (scene, listen) = (Scene::start(THREE, ""), listen());
    let site = scene.configuration("caddy", listen);
    let global = "{\n\tadmin off\n\tauto_https off\n\tpersist_config off\n}\n";
    let path = scene.write("Caddyfile", &[global, &site].concat());
    let mut caddy = process::command(program);
    caddy.args(["run", "--adapter", "caddyfile", "--config"]).arg(path);
    for variable in ["HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"] {
        caddy.env(variable, scene.folder.path());
    }
    let caddy = scene.program(caddy);
    scene.assert_followed(caddy, listen);
}

#[test]
fn envoy_follows_health() {
    let Some(program) = fetched("envoy_follows_health", "python/bin/envoy") else { return };
    let (scene, listen) = (Scene::start(THREE, ""), listen());
    let clusters = scene.configuration("envoy", listen).replace('\n', "\n  ");
    let listener = r#"
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: PORT}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: web
          route_config:
            virtual_hosts: [{name: web, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: web}}]}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
"#;
    let listener = listener.replace("PORT", &listen.port().to_string());
    let path = scene.write("envoy.yaml", &format!("static_resources:\n  {clusters}{listener}"));
    let mut envoy = process::command(program);
    envoy.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning", "-c"]).arg(path);
    let envoy = scene.program(envoy);
    scene.assert_followed(envoy, listen);
}

/// `grpc_client.py` runs gRPC servers on the addresses of the web servers, and a client.
#[test]
fn grpc_client_follows_health() {
    let Some(python) = fetched("grpc_client_follows_health", "python/bin/python") else { return };
    let names = ["a", "b"];
    let scene = Scene::start(&[("a", ""), ("b", "")], "");
    // The gRPC servers use another port than the web servers. The minimum time between DNS resolutions is shortened.
    let port = listen().port();
    let channel = block(DOCUMENT, "grpc")
        .replace("127.0.0.1:8600", &scene.agent.address().to_string())
        .replace("9000", &port.to_string())
        .replace("options=[", "options=[(\"grpc.dns_min_time_between_resolutions_ms\", 200), ");
    let addresses: Vec<String> =
        scene.backends.iter().map(|(_, backend)| format!("{}:{port}", backend.address().ip())).collect();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/real_clients/grpc_client.py");
    let mut command = process::command(python);
    command.args([script, &channel]).args(&addresses);
    let mut grpc = process::Owned(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let (mut commands, answers) = (grpc.0.stdin.take().unwrap(), grpc.0.stdout.take().unwrap());
    let lines = process::lines(answers);
    let next = || lines.recv_timeout(DEADLINE).expect("a line of the script");
    assert_eq!(next(), "ready");
    for (failed, expected) in [(None, "a b"), (Some("b"), "a"), (Some("a"), "b"), (None, "a b")] {
        let passing: Vec<&str> = names.iter().copied().filter(|name| Some(*name) != failed).collect();
        for name in names {
            scene.set_health(name, Some(name) != failed);
        }
        scene.wait_for(&passing);
        wait::until_equal("the answering servers", expected, || {
            writeln!(commands, "ask").unwrap();
            names.iter().zip(&addresses).fold(next(), |answered, (name, address)| answered.replace(address, name))
        });
    }
}
