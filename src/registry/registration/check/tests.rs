//! Checks as clients write them, and what muster does with them.

use serde_json::json;

use super::*;
use crate::model::name::label;

const SECOND: Duration = Duration::from_secs(1);

fn host(allow_exec: bool) -> Host {
    Host {
        node: label("host-a"),
        addresses: vec!["10.0.0.7".parse().unwrap()].into(),
        allow_link_local: false,
        allow_exec,
    }
}

fn read(body: &Value) -> ReadCheck {
    read_check(body, "Check", Some("web"), &host(true)).unwrap_or_else(|error| panic!("{body}: {error}"))
}

/// Returns the check with this probe and the defaults of registered checks.
fn check(probe: Probe) -> Check {
    Check {
        timeout: 10 * SECOND,
        fall: 1,
        warn_after: 1,
        origin: Origin::Client { link_local: false, exec: true },
        ..Check::new(probe)
    }
}

#[test]
fn each_kind_has_the_meaning_of_consul() {
    let endpoint = |port| Endpoint { host: "10.0.0.7".to_owned(), port };
    let http = || HttpProbe {
        warn_status: vec![429],
        follow_redirects: true,
        ..HttpProbe::get("https://10.0.0.7/healthz".parse().unwrap())
    };
    let named = || ProbeTls { skip_verify: true, server_name: Some("web.example".to_owned()) };
    let grpc = |tls| Probe::Grpc { endpoint: endpoint(81), service: "my.Service".to_owned(), tls };
    let h2ping = |tls| Probe::H2Ping { endpoint: endpoint(82), tls };
    let exec = |argv: &[&str]| Check {
        timeout: 30 * SECOND,
        ..check(Probe::Exec { argv: argv.iter().map(|&text| text.to_owned()).collect() })
    };
    let url = "https://10.0.0.7/healthz";
    let cases = [
        (json!({"TTL": "15s"}), check(Probe::Ttl { ttl: 15 * SECOND })),
        (json!({"TTL": 15_000_000_000_u64}), check(Probe::Ttl { ttl: 15 * SECOND })),
        (json!({"ttl": 1.5e10}), check(Probe::Ttl { ttl: 15 * SECOND })),
        (json!({"HTTP": url}), check(Probe::Http(http()))),
        (json!({"HTTP": url, "TTL": "0s", "Timeout": "0s", "Interval": ""}), check(Probe::Http(http()))),
        (json!({"HTTP": url, "TTL": 0, "DeregisterCriticalServiceAfter": "0s"}), check(Probe::Http(http()))),
        (
            json!({"http": url, "disable_redirects": true, "tls_skip_verify": true, "tls_server_name": "web.example"}),
            check(Probe::Http(HttpProbe { follow_redirects: false, tls: named(), ..http() })),
        ),
        (
            json!({"HTTP": url, "Method": "put", "Body": "ping", "Header": {"X-A": ["1", "2"], "X-B": "3"}}),
            check(Probe::Http(HttpProbe {
                method: "PUT".to_owned(),
                body: Some("ping".to_owned()),
                headers: [("X-A", "1"), ("X-A", "2"), ("X-B", "3")].map(|(a, b)| (a.to_owned(), b.to_owned())).to_vec(),
                ..http()
            })),
        ),
        (json!({"TCP": "10.0.0.7:80"}), check(Probe::Tcp(endpoint(80)))),
        (json!({"UDP": "10.0.0.7:80"}), check(Probe::Udp(endpoint(80)))),
        (json!({"GRPC": "10.0.0.7:81/my.Service"}), check(grpc(None))),
        (json!({"GRPC": "10.0.0.7:81/my.Service", "GRPCUseTLS": true}), check(grpc(Some(ProbeTls::default())))),
        (
            json!({
                "GRPC": "10.0.0.7:81/my.Service", "grpc_use_tls": true, "TLSSkipVerify": true,
                "TLSServerName": "web.example",
            }),
            check(grpc(Some(named()))),
        ),
        (json!({"H2PING": "10.0.0.7:82"}), check(h2ping(Some(ProbeTls::default())))),
        (json!({"h2ping": "10.0.0.7:82", "h2ping_use_tls": false}), check(h2ping(None))),
        (
            json!({"OSService": "nginx"}),
            Check { timeout: 30 * SECOND, ..check(Probe::Systemd { unit: "nginx.service".to_owned() }) },
        ),
        (json!({"Args": ["/bin/check", "-x"]}), exec(&["/bin/check", "-x"])),
        (json!({"ScriptArgs": ["check_disk"]}), exec(&["check_disk"])),
        (json!({"AliasService": "db:1"}), check(Probe::Alias(AliasTarget::Registered("db:1".into())))),
        (
            json!({"AliasService": "db:1", "AliasNode": "HOST-A"}),
            check(Probe::Alias(AliasTarget::Registered("db:1".into()))),
        ),
        (json!({"AliasNode": "host-a"}), check(Probe::Alias(AliasTarget::Node))),
    ];
    for (body, expected) in cases {
        assert_eq!(read(&body).check, expected, "{body}");
    }
}

#[test]
fn schedule_and_thresholds_are_those_of_the_client() {
    let tcp = |fields: Value| {
        let mut body = json!({"TCP": "10.0.0.7:80"});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        read(&body).check
    };
    let base = || tcp(json!({}));
    let cases = [
        (json!({"Interval": "30s", "Timeout": "60s"}), Check { interval: 30 * SECOND, timeout: 60 * SECOND, ..base() }),
        (json!({"Interval": "1ms", "Timeout": "1us"}), {
            let (interval, timeout) = (MIN_INTERVAL, Duration::from_millis(1));
            Check { interval, timeout, ..base() }
        }),
        (
            json!({"SuccessBeforePassing": 3, "FailuresBeforeWarning": 2, "FailuresBeforeCritical": 4}),
            Check { rise: 3, warn_after: 2, fall: 4, ..base() },
        ),
        (json!({"FailuresBeforeCritical": 4}), Check { warn_after: 4, fall: 4, ..base() }),
        (json!({"Status": "passing", "OutputMaxSize": 20}), {
            Check { initial: Status::Passing, output_max: Some(20), ..base() }
        }),
        (json!({"Status": "", "OutputMaxSize": 0}), base()),
        (json!({"Name": "Alive", "Notes": "is it?"}), {
            let title = CheckTitle { id: None, name: Some("Alive".into()), notes: "is it?".into() };
            Check { title: Some(title), ..base() }
        }),
        (json!({"CheckID": "alive", "Name": ""}), {
            let title = CheckTitle { id: Some("alive".into()), name: Some("alive".into()), notes: "".into() };
            Check { title: Some(title), ..base() }
        }),
        (json!({"ID": "alive", "Name": "Alive"}), {
            let title = CheckTitle { id: Some("alive".into()), name: Some("Alive".into()), notes: "".into() };
            Check { title: Some(title), ..base() }
        }),
    ];
    for (fields, expected) in cases {
        assert_eq!(tcp(fields.clone()), expected, "{fields}");
    }
    let after = |text: &str| read(&json!({"TCP": "a:1", "deregister_critical_service_after": text})).deregister_after;
    assert_eq!(["0s", "", "1s", "5m"].map(after), [None, None, Some(60 * SECOND), Some(300 * SECOND)]);
}
