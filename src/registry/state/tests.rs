//! Registrations as clients write them, their errors, and changes of the state.
//!
//! The file is long because all tables share one node and its registrations.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use smol_str::SmolStr;

use super::{Change, CriticalChecks, MovedCheck, State, Target};
use crate::{
    model::{
        announcement::{Announcement, Announcements, CheckReport, HealthReport, HoldReason, InstanceState},
        health::Status,
        maintenance::Scope,
        name::Label,
        service::{Check, CheckTitle, Definitions, InstanceKey, Probe, instance_ref::InstanceRef},
        token::Scope as Permission,
    },
    registry::{
        error::RegistryError,
        registration::{CatalogRegistration, CheckRegistration, Host, Registration, go_duration},
    },
};

fn host() -> Host {
    Host {
        node: Label::parse("host-a").unwrap(),
        addresses: vec!["10.0.0.7".parse().unwrap()].into(),
        allow_link_local: false,
        allow_exec: false,
    }
}

fn read(body: &Value) -> Result<Registration, String> {
    Registration::read(body, &host()).map_err(|error| error.to_string())
}

/// Formats an instance and its checks in one line.
fn shown(registration: &Registration) -> String {
    let definition = &registration.definition;
    let instance = &definition.instance;
    let addresses: Vec<String> = instance.addresses.iter().map(ToString::to_string).collect();
    let check = |at: usize| {
        let check = &definition.checks[at];
        format!(
            " [{} {} {:?}/{:?} {}]",
            definition.check_id(at),
            check.probe,
            check.interval,
            check.timeout,
            check.initial.as_str()
        )
    };
    let checks: String = (0..definition.checks.len()).map(check).collect();
    let port = instance.port.map_or("-".to_owned(), |port| port.to_string());
    format!("{} as {} at {}:{port}{checks}", instance.key, registration.id, addresses.join("+"))
}

#[test]
fn registrations_of_common_clients_are_parsed() {
    let cases = [
        ("only a name", json!({"Name": "web"}), "web/web-host-a as web at 10.0.0.7:-"),
        (
            "Go",
            json!({
                "ID": "web-1", "Name": "web", "Tags": ["v2"], "Port": 80, "Address": "10.0.0.9", "Meta": null, "Checks": null,
                "Check": {"HTTP": "http://10.0.0.9/healthz", "Interval": "5s", "Timeout": "1s", "Status": "passing"},
            }),
            "web/web-1-host-a as web-1 at 10.0.0.9:80 [service:web-1 http://10.0.0.9/healthz 5s/1s passing]",
        ),
        (
            "python-consul",
            json!({"name": "web", "id": "web", "port": 80, "check": {"ttl": "10s"}}),
            "web/web-host-a as web at 10.0.0.7:80 [service:web ttl 10s 10s/10s critical]",
        ),
        (
            "Spring: an empty check, several in a list",
            json!({"Name": "Web", "Check": {}, "Checks": [{"TCP": "10.0.0.7:80", "interval": "1m30s"}, {"grpc": "10.0.0.7:81/x"}]}),
            "web/web-x79a45c-host-a as Web at 10.0.0.7:- [service:Web:1 tcp 10.0.0.7:80 90s/10s critical] [service:Web:2 grpc 10.0.0.7:81/x 10s/10s critical]",
        ),
        (
            "registrator",
            json!({"Name": "redis", "ID": "c0ffee:redis_1:6379", "Port": 6379, "Tags": null}),
            "redis/c0ffee-redis-1-6379-xb2c1e0-host-a as c0ffee:redis_1:6379 at 10.0.0.7:6379",
        ),
        (
            "two families",
            json!({"Name": "web", "Address": "10.0.0.9", "TaggedAddresses": {"lan_ipv4": {"Address": "10.0.0.9"}, "lan_ipv6": {"Address": "fd00::9", "Port": 80}}}),
            "web/web-host-a as web at 10.0.0.9+fd00::9:-",
        ),
        (
            "a check with id and name, and fields with zero values",
            json!({
                "Name": "web", "Kind": "", "Connect": {"Native": false}, "Proxy": null, "EnableTagOverride": false, "Namespace": "default",
                "Check": {"CheckID": "alive", "Name": "Alive", "DeregisterCriticalServiceAfter": "1s", "TTL": "1m", "TLSSkipVerify": false},
            }),
            "web/web-host-a as web at 10.0.0.7:- [alive ttl 60s 10s/10s critical]",
        ),
        (
            "an id that ends in the node's name",
            json!({"Name": "web", "ID": "web-host-a"}),
            "web/web-host-a as web-host-a at 10.0.0.7:-",
        ),
    ];
    for (case, body, expected) in cases {
        let registration = read(&body).unwrap_or_else(|error| panic!("{case}: {error}"));
        // The digest's form and stability count, not its value.
        let mask = |text: &str| {
            let mut masked = String::new();
            let mut rest = text;
            while let Some(at) =
                rest.find('x').filter(|at| rest[at + 1..].chars().take(6).filter(char::is_ascii_hexdigit).count() == 6)
            {
                masked.push_str(&rest[..at]);
                masked.push_str("xMARK");
                rest = &rest[at + 7..];
            }
            masked + rest
        };
        assert_eq!(mask(&shown(&registration)), mask(expected), "{case}");
        assert_eq!(shown(&read(&registration.body).unwrap()), shown(&registration), "{case}: stored body");
    }
}

#[test]
fn weight_without_weights_is_that_of_consul() {
    let weight = |body: Value| read(&body).unwrap().definition.instance.weight;
    for (weights, expected) in [
        (Value::Null, 1),
        (json!({}), 1),
        (json!({"Warning": 3}), 1),
        (json!({"Passing": null}), 1),
        (json!({"Passing": 10, "Warning": 5}), 10),
        (json!({"Passing": 0}), 0),
    ] {
        assert_eq!(weight(json!({"Name": "web", "Weights": weights})), expected, "{weights}");
    }
    assert_eq!(weight(json!({"Name": "web"})), 1);
}

#[test]
fn meta_states_how_near_instances_are_preferred() {
    let meta = json!({"muster-nearest": "zone", "muster-min-healthy": "50%", "Muster-Nearest": "other"});
    let registration = read(&json!({"Name": "web", "Meta": meta})).unwrap();
    let instance = &registration.definition.instance;
    assert_eq!((instance.nearest, instance.min_healthy), ("zone".parse().ok(), "50%".parse().ok()));
    // Clients read their metadata back unchanged.
    assert_eq!(json!(instance.meta.to_map()), meta);
}

#[test]
fn different_ids_have_different_labels() {
    let ids =
        ["web_1", "web:1", "web.1", "WEB-1", "web-1", "web 1", "ü", "-", "a".repeat(100).as_str()].map(str::to_owned);
    let long = format!("{}b", "a".repeat(100));
    let mut labels: Vec<String> = Vec::new();
    for id in ids.iter().chain([&long]) {
        let registration = read(&json!({"Name": "web", "ID": id})).unwrap();
        let label = registration.definition.instance.key.id.to_string();
        assert!(label.ends_with("-host-a") && !labels.contains(&label), "{id}: {label}");
        labels.push(label);
    }
}

#[test]
fn refusal_names_the_field_its_range_and_its_value() {
    let service = |field: &str, value: Value| json!({"Name": "web", field: value});
    let check = |value: Value| json!({"Name": "web", "Check": value});
    let name = "a string of 1 to 255 octets without control characters";
    let one_kind = "a check needs exactly one of TTL, HTTP, TCP, UDP, GRPC, H2PING, OSService, Args, ScriptArgs, AliasService, \
                    AliasNode";
    let duration = "a duration such as \"10s\" or \"1m30s\"";
    let must = |field: &str, expected: &str, found: &str| format!("{field} must be {expected}, got {found}");
    let cases = [
        (json!([]), must("the body", "a JSON object", "an array")),
        (json!(null), must("the body", "a JSON object", "null")),
        (json!({}), "Name is missing: it is the service's name".to_owned()),
        (json!({"Name": ""}), "Name is missing: it is the service's name".to_owned()),
        (json!({"Name": 1}), must("Name", "a string", "the number 1")),
        (json!({"Name": "a\nb"}), must("Name", name, "the string \"a\\nb\"")),
        (
            service("ID", "a\nb".into()),
            must("ID", "a string of 1 to 255 octets without control characters", "the string \"a\\nb\""),
        ),
        (service("ID", "a".repeat(256).into()), "got a string of 256 octets that begins with \"aaaa".to_owned()),
        (service("Port", 65536.into()), must("Port", "an integer from 0 to 65535", "the number 65536")),
        (service("Port", "80".into()), must("Port", "an integer from 0 to 65535", "the string \"80\"")),
        (service("Port", (-1).into()), must("Port", "an integer from 0 to 65535", "the number -1")),
        (service("Port", json!(80.5)), must("Port", "an integer from 0 to 65535", "the number 80.5")),
        (service("Port", json!([80])), must("Port", "an integer from 0 to 65535", "an array")),
        (service("Port", json!(true)), must("Port", "an integer from 0 to 65535", "true")),
        (
            service("Address", "10.0.0.300".into()),
            must("Address", "an IP address or a host name", "the string \"10.0.0.300\""),
        ),
        (service("Address", json!({})), must("Address", "a string", "an object")),
        (service("Address", "0.0.0.0".into()), must("Address", "the IP address of a host", "the string \"0.0.0.0\"")),
        (
            service("TaggedAddresses", json!({"lan_ipv6": {"Address": "x"}})),
            must("TaggedAddresses.lan_ipv6.Address", "an IP address", "the string \"x\""),
        ),
        (
            service("TaggedAddresses", json!({"lan_ipv4": "x"})),
            must("TaggedAddresses.lan_ipv4", "a JSON object", "the string \"x\""),
        ),
        (service("Tags", "v2".into()), must("Tags", "an array of strings", "the string \"v2\"")),
        (service("Tags", json!(["a", 5])), must("Tags[1]", "a string", "the number 5")),
        (service("Tags", json!(["a\u{1}"])), "a tag is".to_owned()),
        (service("Meta", json!({"a=b": "c"})), "a key of `meta`".to_owned()),
        (
            service("Meta", json!({"muster-nearest": "Zone"})),
            must("Meta.muster-nearest", "`none`, `zone` or `datacenter`", "the string \"Zone\""),
        ),
        (
            service("Meta", json!({"muster-min-healthy": "0%"})),
            must("Meta.muster-min-healthy", "a number from 1 to 10000 or a share from 1% to 100%", "the string \"0%\""),
        ),
        (
            json!({"Name": "web", "Port": 443, "Meta": {"muster-alpn": "h2,"}}),
            must("Meta.muster-alpn", "ALPN ids, separated by commas, such as `h2,http/1.1`", "the string \"h2,\""),
        ),
        (service("Meta", json!({"muster-alpn": "h2"})), "Port: `muster-alpn` is of the port: add one".to_owned()),
        (service("Meta", json!({"a": 1})), must("Meta.a", "a string", "the number 1")),
        (service("Meta", json!("a")), must("Meta", "an object of strings", "the string \"a\"")),
        (
            service("Kind", "connect-proxy".into()),
            "Kind is not supported: muster has no proxies and gateways".to_owned(),
        ),
        (
            service("Connect", json!({"Native": true})),
            "Connect is not supported: muster has no service mesh".to_owned(),
        ),
        (service("Namespace", "team".into()), "Namespace is not supported: muster has one namespace".to_owned()),
        (
            service("Weights", json!({"Passing": 70000})),
            must("Weights.Passing", "an integer from 0 to 65535", "the number 70000"),
        ),
        (service("Weights", json!(5)), must("Weights", "a JSON object", "the number 5")),
        (service("Checks", json!({"TTL": "1s"})), must("Checks", "an array of objects", "an object")),
        (service("Checks", json!([5])), must("Checks[0]", "a JSON object", "the number 5")),
        (check(json!({"Script": "true"})), "Check.Script is not supported: muster runs no shell".to_owned()),
        (
            check(json!({"DockerContainerID": "c0ffee", "Shell": "/bin/sh", "Args": ["true"]})),
            "Check.DockerContainerID is not supported: muster runs no checks in Docker containers: use an HTTP"
                .to_owned(),
        ),
        (
            check(json!({"docker_container_id": "c0ffee", "shell": "/bin/sh", "script": "true"})),
            "Check.DockerContainerID is not supported: muster runs no checks in Docker containers: use an HTTP"
                .to_owned(),
        ),
        (
            check(json!({"Shell": "/bin/sh", "Args": ["true"]})),
            "Check.Shell is not supported: muster runs no shell: use Args with the shell".to_owned(),
        ),
        (check(json!({"TCP": "a:1", "TCPUseTLS": true})), "Check.TCPUseTLS is not supported: ".to_owned()),
        (
            check(json!({"Args": ["bin/check"]})),
            "Check.Args must be the name or absolute path of a program, then its arguments".to_owned(),
        ),
        (check(json!({"Args": [""]})), "Check.Args must be the name".to_owned()),
        (check(json!({"Args": ["a", "b\u{0}"]})), "Check.Args must be the name".to_owned()),
        (check(json!({"UDP": "a"})), must("Check.UDP", "`host:port`, such as \"127.0.0.1:8080\"", "the string \"a\"")),
        (check(json!({"Name": "x"})), format!("Check: {one_kind}")),
        (check(json!({"TTL": "0s"})), format!("Check: {one_kind}")),
        (check(json!({"TTL": "1s", "TCP": "a:1"})), format!("{one_kind}, got TTL and TCP")),
        (
            check(json!({"GRPC": "a:1", "GRPCUseTLS": true, "TLSServerName": "a b"})),
            must("Check.TLSServerName", "a host name or an IP address", "the string \"a b\""),
        ),
        (
            check(json!({"OSService": "a b"})),
            must("Check.OSService", "a systemd unit such as \"nginx.service\"", "the string \"a b\""),
        ),
        (
            check(json!({"AliasNode": "host-b"})),
            "Check.AliasNode: only this node can be an alias, which is \"host-a\", got \"host-b\"".to_owned(),
        ),
        (
            check(json!({"TCP": "a:1", "FailuresBeforeWarning": 3, "FailuresBeforeCritical": 2})),
            "Check.FailuresBeforeWarning: it must not exceed FailuresBeforeCritical, which is 2".to_owned(),
        ),
        (
            check(json!({"TCP": "a:1", "OutputMaxSize": -1})),
            must("Check.OutputMaxSize", "an integer from 0 to 4294967295", "the number -1"),
        ),
        (
            check(json!({"HTTP": "ftp://a"})),
            must(
                "Check.HTTP",
                "a URL of at most 8192 octets that begins with http:// or https://",
                "the string \"ftp://a\"",
            ),
        ),
        (
            check(json!({"HTTP": "http://a", "Method": "G T"})),
            must("Check.Method", "an HTTP method such as \"GET\"", "the string \"G T\""),
        ),
        (
            check(json!({"HTTP": "http://a", "Header": {"a b": ["c"]}})),
            "Check.Header: \"a b\" cannot be the name of a header".to_owned(),
        ),
        (
            check(json!({"HTTP": "http://a", "Header": {"a": [5]}})),
            must("Check.Header.a", "a string of printable ASCII", "the number 5"),
        ),
        (
            check(json!({"HTTP": "http://a", "Header": "a: b"})),
            must("Check.Header", "a JSON object", "the string \"a: b\""),
        ),
        (
            check(json!({"HTTP": "http://a", "TLSSkipVerify": "no"})),
            must("Check.TLSSkipVerify", "true or false", "the string \"no\""),
        ),
        (check(json!({"TCP": "a"})), must("Check.TCP", "`host:port`, such as \"127.0.0.1:8080\"", "the string \"a\"")),
        (check(json!({"GRPC": "a/b"})), must("Check.GRPC", "`host:port` or `host:port/SERVICE`", "the string \"a/b\"")),
        (check(json!({"TCP": "a:1", "Interval": "soon"})), must("Check.Interval", duration, "the string \"soon\"")),
        (check(json!({"TCP": "a:1", "Interval": -1})), must("Check.Interval", duration, "the number -1")),
        (
            check(json!({"TCP": "a:1", "Timeout": "25h"})),
            must("Check.Timeout", "a duration of at most 24h", "the string \"25h\""),
        ),
        (
            check(json!({"TCP": "a:1", "DeregisterCriticalServiceAfter": []})),
            must("Check.DeregisterCriticalServiceAfter", duration, "an array"),
        ),
        (
            check(json!({"TCP": "a:1", "Status": "fine"})),
            must("Check.Status", "\"passing\", \"warning\" or \"critical\"", "the string \"fine\""),
        ),
        (
            check(json!({"TCP": "a:1", "SuccessBeforePassing": 5000})),
            must("Check.SuccessBeforePassing", "an integer from 0 to 1000", "the number 5000"),
        ),
        (check(json!({"AliasService": "web"})), "Check.AliasService: the service is an alias of itself".to_owned()),
        (
            check(json!({"AliasService": "a\nb"})),
            "Check.AliasService must be the id of a service: 1 to 255 octets without control characters".to_owned(),
        ),
        (
            json!({"Name": "web", "Checks": [{"TTL": "1s", "CheckID": "a"}, {"TTL": "2s", "CheckID": "a"}]}),
            "Checks: two checks have the id \"a\"".to_owned(),
        ),
        (
            json!({"Name": "web", "Checks": vec![json!({"TTL": "1s"}); 33]}),
            "Checks: a service has at most 32 checks, got 33".to_owned(),
        ),
    ];
    for (body, expected) in cases {
        let error = read(&body).map(|read| shown(&read)).expect_err(&body.to_string());
        assert!(error.contains(&expected), "{body}: {error}, expected {expected}");
    }
}

#[test]
fn go_durations_are_parsed() {
    let cases = [
        ("10s", Some(10_000)),
        ("1m30s", Some(90_000)),
        ("120000ms", Some(120_000)),
        ("1.5h", Some(5_400_000)),
        ("0", Some(0)),
        ("0s", Some(0)),
        ("", None),
        ("10", None),
        ("s", None),
        ("-1s", None),
        ("1d", None),
        ("1e9s", None),
        ("99999999999999999999h", None),
    ];
    for (text, milliseconds) in cases {
        assert_eq!(go_duration(text).map(|span| span.as_millis()), milliseconds, "{text:?}");
    }
}

/// A state, and the definitions of the files.
struct Node {
    state: State,
    files: Definitions,
}

impl Node {
    fn new(files: &[Value]) -> Self {
        let of = |body: &Value| {
            let definition = read(body).unwrap().definition;
            (InstanceRef::from(&definition.instance), definition)
        };
        Self { state: State::default(), files: files.iter().map(of).collect() }
    }

    fn apply(&mut self, change: Change) -> Result<bool, String> {
        let outcome = self.state.apply(change, &self.files, &host(), 100);
        outcome.map(|outcome| outcome.changed).map_err(|error| {
            let kind = match error {
                RegistryError::Unknown(_) => "unknown",
                RegistryError::Refused(_) => "refused",
                RegistryError::Forbidden(_) => "forbidden",
                RegistryError::NotStored(_) => "not stored",
            };
            format!("{kind}: {error}")
        })
    }

    fn register(&mut self, body: &Value) -> Result<bool, String> {
        self.apply(register(body, false))
    }

    /// Formats all definitions with the ids of their checks.
    fn shown(&self) -> Vec<String> {
        let checks = |definition: &crate::model::service::Definition| {
            let ids: Vec<String> = (0..definition.checks.len()).map(|at| definition.check_id(at).to_string()).collect();
            ids.join(",")
        };
        self.state.definitions(&self.files).iter().map(|(key, one)| format!("{key} [{}]", checks(one))).collect()
    }

    /// Formats the checks of the node.
    fn node_checks(&self) -> Vec<String> {
        self.state.node_checks().iter().map(|check| format!("{} {}", check.id().unwrap(), check.probe)).collect()
    }

    /// Returns the state after a restart.
    fn restarted(&self) -> State {
        let (state, lost) = State::parse(&self.state.to_text(), &host());
        assert!(lost.is_empty(), "{lost:?}");
        assert_eq!(state.to_text(), self.state.to_text());
        state
    }
}

fn register(body: &Value, replace_checks: bool) -> Change {
    Change::Register { registration: Box::new(read(body).unwrap()), replace_checks }
}

fn register_in_catalog(body: &Value) -> Change {
    Change::RegisterInCatalog(Box::new(read(body).unwrap()))
}

fn remove_check(id: &str) -> Change {
    Change::DeregisterCheck { check: id.into(), granted: Permission::Operate }
}

fn check(body: &Value) -> Change {
    Change::RegisterCheck(CheckRegistration::read(body).unwrap())
}

#[test]
fn services_and_checks_are_registered_and_deregistered_by_id() {
    let mut node = Node::new(&[json!({"Name": "ssh", "Check": {"TTL": "5s"}})]);
    assert_eq!(node.register(&json!({"Name": "web", "ID": "a", "Check": {"TTL": "5s"}})), Ok(true));
    assert_eq!(
        node.register(&json!({"Name": "web", "ID": "a", "Check": {"TTL": "5s"}})),
        Ok(false),
        "identical registration"
    );
    assert_eq!(node.shown(), ["ssh/ssh-host-a [service:ssh]", "web/a-host-a [service:a]"]);
    assert_eq!(node.apply(check(&json!({"Name": "disk", "ServiceID": "a", "TTL": "9s"}))), Ok(true));
    assert_eq!(node.shown()[1], "web/a-host-a [service:a,disk]");
    node.restarted();
    assert_eq!(node.apply(check(&json!({"Name": "disk", "ServiceID": "a", "TCP": "a:1"}))), Ok(true), "replaced");
    assert_eq!(node.shown()[1], "web/a-host-a [service:a,disk]");
    assert_eq!(node.apply(remove_check("service:a")), Ok(true));
    assert_eq!(node.shown()[1], "web/a-host-a [disk]");
    assert_eq!(node.register(&json!({"Name": "db", "ID": "a"})), Ok(true), "another service by the same id");
    assert_eq!(node.shown(), ["db/a-host-a [disk]", "ssh/ssh-host-a [service:ssh]"]);
    assert_eq!(node.apply(Change::Deregister("a".into())), Ok(true));
    assert_eq!(node.shown(), ["ssh/ssh-host-a [service:ssh]"]);

    let refused = [
        (Change::Deregister("a".into()), "unknown: Unknown service ID \"a\""),
        (Change::Deregister("ssh-host-a".into()), "refused: Instance ssh/ssh-host-a is defined by a service file"),
        (remove_check("x"), "unknown: Unknown check ID"),
        (remove_check("service:ssh"), "refused: Check \"service:ssh\" is defined by a service file"),
        (check(&json!({"Name": "x", "ServiceID": "a", "TTL": "1s"})), "unknown: Unknown service ID"),
        (check(&json!({"Name": "x", "ServiceID": "ssh-host-a", "TTL": "1s"})), "refused: Instance ssh/ssh-host-a"),
        (register(&json!({"Name": "ssh"}), false), "refused: Instance ssh/ssh-host-a is defined by a service file"),
        (
            Change::Hold {
                target: Target::Instance("x".into()),
                kind: HoldReason::Draining,
                reason: String::new(),
                period: None,
            },
            "unknown: Unknown instance \"x\"",
        ),
    ];
    for (change, expected) in refused {
        let shown = format!("{change:?}");
        let error = node.apply(change).expect_err(&shown);
        assert!(error.starts_with(expected), "{shown}: {error}");
    }
    assert_eq!(node.shown(), ["ssh/ssh-host-a [service:ssh]"]);
}

#[test]
fn service_file_takes_precedence_over_registration() {
    let mut node = Node::new(&[]);
    node.register(&json!({"Name": "web", "Check": {"TTL": "5s"}})).unwrap();
    let files = Node::new(&[json!({"Name": "web"})]).files;
    let seen = node.state.definitions(&files);
    assert!(seen.values().all(|definition| definition.checks.is_empty()) && seen.len() == 1);
    // Without the file, the registration is active again.
    assert_eq!(node.shown(), ["web/web-host-a [service:web]"]);
}

#[test]
fn only_ttl_checks_accept_reports_and_none_is_stored_here() {
    let report = |check: &str, status| {
        let granted = Permission::Register;
        Change::Report { check: check.into(), granted, status, output: "x".into() }
    };
    let mut node = Node::new(&[json!({"Name": "ssh", "Check": {"TTL": "5s"}})]);
    node.register(&json!({"Name": "web", "Checks": [{"TTL": "5s"}, {"TCP": "a:1"}]})).unwrap();
    // The results of checks are stored with those of service files.
    for check in ["service:web:1", "service:ssh"] {
        assert_eq!(node.apply(report(check, Status::Passing)), Ok(false), "{check}");
    }
    let error = node.apply(report("service:web:2", Status::Passing)).unwrap_err();
    assert!(error.starts_with("refused: Check \"service:web:2\" is not a TTL check"), "{error}");
    assert!(node.apply(report("web", Status::Passing)).unwrap_err().starts_with("unknown: Unknown check ID"));
    // Earlier versions stored a report as the status to start with.
    let stored = node.state.to_text().replace(r#""TTL": "5s""#, r#""Status": "passing", "TTL": "5s""#);
    let (state, lost) = State::parse(&stored, &host());
    assert!(lost.is_empty(), "{lost:?}");
    let again = state.definitions(&Definitions::new());
    let checks = &again.values().next().unwrap().checks;
    assert!(matches!(checks[0].probe, Probe::Ttl { .. }));
    assert_eq!((checks[0].initial, checks[1].initial), (Status::Passing, Status::Critical));
}

#[test]
fn repeated_registration_keeps_ttl_checks_and_separate_checks() {
    let web = json!({"Name": "web", "ID": "a", "Check": {"TTL": "5s"}});
    let mut node = Node::new(&[]);
    node.register(&web).unwrap();
    node.apply(check(&json!({"Name": "disk", "ServiceID": "a", "TTL": "9s"}))).unwrap();
    let checks = |node: &Node| {
        let all = node.state.definitions(&Definitions::new());
        all.values().next().unwrap().checks.clone()
    };
    // Equal checks go on, with their last report.
    let before = checks(&node);
    assert_eq!(node.register(&web), Ok(false), "identical registration");
    assert_eq!(checks(&node), before);
    let mut again = Node { state: node.restarted(), files: Definitions::new() };
    assert_eq!(again.register(&web), Ok(false));
    assert_eq!(checks(&again), before);
    // As in Consul, separately registered checks stay unless they are replaced.
    let tagged = json!({"Name": "web", "ID": "a", "Tags": ["v2"], "Check": {"TTL": "5s", "Status": "passing"}});
    assert_eq!(again.register(&tagged), Ok(true));
    assert_eq!(again.shown(), ["web/a-host-a [service:a,disk]"]);
    assert_eq!(checks(&again), before);
    assert_eq!(again.apply(register(&tagged, true)), Ok(true));
    assert_eq!(again.shown(), ["web/a-host-a [service:a]"]);
}

/// As in Consul, where only `replace-existing-checks` removes checks: a client that registers without its check leaves no dead
/// instance in answers.
#[test]
fn repeated_registration_keeps_the_checks_that_it_lacks() {
    let mut node = Node::new(&[]);
    node.register(&json!({"Name": "web", "Checks": [{"TTL": "5s"}, {"TTL": "9s"}]})).unwrap();
    let steps = [
        (json!({"Name": "web"}), false, "web/web-host-a [service:web:1,service:web:2]"),
        (
            json!({"Name": "web", "Check": {"TCP": "a:1"}}),
            false,
            "web/web-host-a [service:web,service:web:1,service:web:2]",
        ),
        (json!({"Name": "web", "Port": 80, "Check": {"TCP": "a:1"}}), true, "web/web-host-a [service:web]"),
        (json!({"Name": "web", "Port": 81}), false, "web/web-host-a [service:web]"),
        (json!({"Name": "other", "ID": "web"}), false, "other/web-host-a [service:web]"),
        (json!({"Name": "web"}), true, "web/web-host-a []"),
    ];
    for (body, replace, expected) in steps {
        assert_eq!(node.apply(register(&body, replace)).map(|_| ()), Ok(()), "{body}");
        assert_eq!(node.shown(), [expected], "{body}");
        node.restarted();
    }
    let many = |from: usize| json!({"Name": "web", "Checks": (from..from + 32).map(|at| json!({"CheckID": at.to_string(), "TTL": "5s"})).collect::<Vec<_>>()});
    node.register(&many(0)).unwrap();
    let error = node.register(&many(1)).unwrap_err();
    assert!(
        error.contains("the service has 1 checks that the request lacks") && error.contains("replace-existing-checks"),
        "{error}"
    );
}

#[test]
fn catalog_changes_only_tags_of_a_service_of_the_agent() {
    let mut node = Node::new(&[]);
    let web = json!({"Name": "web", "Port": 80, "Tags": ["v1"], "Check": {"TTL": "5s"}});
    node.register(&web).unwrap();
    let of_catalog = json!({"Name": "web", "Port": 81, "Tags": ["v2"]});
    assert_eq!(node.apply(register_in_catalog(&of_catalog)), Ok(false));
    assert_eq!(node.register(&web), Ok(false), "nothing has changed");
    let free = json!({"Name": "web", "Port": 80, "Tags": ["v1"], "EnableTagOverride": true});
    node.register(&free).unwrap();
    assert_eq!(node.apply(register_in_catalog(&of_catalog)), Ok(true));
    let shown = |node: &Node| {
        let all = node.state.definitions(&node.files);
        let definition = all.values().next().unwrap();
        (definition.instance.port, definition.instance.tags.join(" "), definition.checks.len())
    };
    assert_eq!(shown(&node), (Some(80), "v2".to_owned(), 1));
    // A check that another service takes leaves the tags.
    node.register(&json!({"Name": "db", "Check": {"CheckID": "service:web", "TTL": "5s"}})).unwrap();
    assert_eq!(node.apply(Change::Deregister("db".into())), Ok(true));
    assert_eq!(shown(&node), (Some(80), "v2".to_owned(), 0));
}

#[test]
fn service_of_the_catalog_is_changed_by_the_catalog_until_the_agent_has_it() {
    let mut node = Node::new(&[]);
    let of_catalog = |port: u16| json!({"Name": "web", "Port": port});
    assert_eq!(node.apply(register_in_catalog(&of_catalog(80))), Ok(true));
    node.apply(check(&json!({"Name": "disk", "ServiceID": "web", "TTL": "9s"}))).unwrap();
    let mut node = Node { state: node.restarted(), files: Definitions::new() };
    assert_eq!(node.apply(register_in_catalog(&of_catalog(81))), Ok(true));
    assert_eq!(node.shown(), ["web/web-host-a [disk]"]);
    assert_eq!(node.register(&of_catalog(82)), Ok(true));
    assert_eq!(node.apply(register_in_catalog(&of_catalog(83))), Ok(false));
}

#[test]
fn ids_of_checks_with_a_meaning_are_refused() {
    for id in ["serfHealth", "_node_maintenance", "_service_maintenance", "_service_maintenance:web"] {
        let of_service = json!({"Name": "web", "Check": {"CheckID": id, "TTL": "5s"}});
        let separate = json!({"Name": id, "TTL": "5s"});
        let renamed = json!({"Name": "x", "ID": id, "ServiceID": "web", "TTL": "5s"});
        let read_check = |body: &Value| CheckRegistration::read(body).map_err(|error| error.to_string());
        for error in
            [read(&of_service).unwrap_err(), read_check(&separate).unwrap_err(), read_check(&renamed).unwrap_err()]
        {
            assert!(error.contains(&format!("the id {id:?} is reserved")), "{error}");
        }
    }
    let of_node = CheckRegistration::read(&json!({"Name": "self", "AliasNode": "host-a"})).unwrap().of_node(&host());
    assert!(of_node.unwrap_err().to_string().contains("alias of itself"));
}

#[test]
fn unset_objects_of_other_features_are_accepted() {
    let catalog = json!({
        "Name": "web", "Proxy": {"Mode": "", "MeshGateway": {}, "Expose": {}, "Config": null, "LocalServicePort": 0},
        "Connect": {}, "Kind": "",
    });
    assert_eq!(shown(&read(&catalog).unwrap()), "web/web-host-a as web at 10.0.0.7:-");
    let error = read(&json!({"Name": "web", "Proxy": {"Expose": {"Checks": true}}})).unwrap_err();
    assert!(error.contains("Proxy is not supported"), "{error}");
}

#[test]
fn changes_of_checks_of_the_node_need_the_scope_operate() {
    let mut node = Node::new(&[]);
    node.state.set_configured_checks([configured_check()].into());
    node.apply(check(&json!({"Name": "disk", "TTL": "9s"}))).unwrap();
    for id in ["disk", "node:1"] {
        let remove = |granted| Change::DeregisterCheck { check: id.into(), granted };
        let report =
            |granted| Change::Report { check: id.into(), granted, status: Status::Passing, output: String::new() };
        for change in [remove(Permission::Register), report(Permission::Register)] {
            let error = node.apply(change).unwrap_err();
            assert!(error.starts_with("forbidden: Permission denied: scope operate is required"), "{error}");
        }
    }
    assert_eq!(node.node_checks().len(), 2);
}

#[test]
fn deregistration_removes_the_holds_of_the_instance() {
    let hold = || Change::Hold {
        target: Target::Instance("a".into()),
        kind: HoldReason::Maintenance,
        reason: "x".into(),
        period: None,
    };
    let mut node = Node::new(&[]);
    for (change, held) in [
        (register(&json!({"Name": "web", "ID": "a"}), false), 0),
        (hold(), 1),
        (register(&json!({"Name": "web", "ID": "a", "Port": 80}), false), 1),
        (register(&json!({"Name": "db", "ID": "a"}), false), 0),
        (hold(), 1),
        (Change::Deregister("a".into()), 0),
    ] {
        let shown = format!("{change:?}");
        node.apply(change).unwrap();
        assert_eq!(node.state.maintenance().0.len(), held, "{shown}");
    }
}

#[test]
fn registration_with_the_label_of_another_is_refused() {
    let mut node = Node::new(&[]);
    node.register(&json!({"Name": "web"})).unwrap();
    let error = node.register(&json!({"Name": "web", "ID": "web-host-a"})).unwrap_err();
    assert!(error.starts_with("refused: Instance web/web-host-a is already registered with the ID \"web\""), "{error}");
    assert_eq!(node.register(&json!({"Name": "db", "ID": "web-host-a"})), Ok(true));
}

#[test]
fn holds_end_by_time_limit_or_release() {
    let mut node = Node::new(&[json!({"Name": "web"}), json!({"Name": "db"})]);
    let hold = |target, kind, seconds: Option<u64>| {
        let period = seconds.map(Duration::from_secs);
        Change::Hold { target, kind, reason: "kernel".into(), period }
    };
    let web = || Target::Instance("web-host-a".into());
    let kinds = |state: &State| -> Vec<(HoldReason, Option<u64>)> {
        state.maintenance().0.iter().map(|((_, kind), hold)| (*kind, hold.until)).collect()
    };
    node.apply(hold(web(), HoldReason::Draining, Some(60))).unwrap();
    node.apply(hold(web(), HoldReason::Maintenance, None)).unwrap();
    node.apply(hold(Target::Node, HoldReason::Draining, None)).unwrap();
    let all = [(HoldReason::Draining, None), (HoldReason::Draining, Some(160)), (HoldReason::Maintenance, None)];
    assert_eq!(kinds(&node.restarted()), all);
    assert!(!node.state.clone().expire(159));
    let mut later = node.state.clone();
    assert!(later.expire(160));
    assert_eq!(kinds(&later), [(HoldReason::Draining, None), (HoldReason::Maintenance, None)]);
    assert_eq!(
        node.apply(Change::Release { target: Target::Node, kinds: vec![HoldReason::NodeMaintenance] }),
        Ok(false)
    );
    assert_eq!(node.apply(Change::Release { target: Target::Node, kinds: vec![HoldReason::Draining] }), Ok(true));
    assert_eq!(node.apply(Change::Release { target: web(), kinds: vec![] }), Ok(true));
    assert!(kinds(&node.state).is_empty());
}

#[test]
fn damaged_stored_text_loses_only_the_damaged_part() {
    let texts = [
        "",
        "{",
        "[]",
        "null",
        r#"{"format": 1, "services": {}, "holds": []}"#,
        r#"{"format": 1, "services": [], "holds": [1]}"#,
        r#"{"format": 1, "services": [], "holds": [{"gate": "x"}]}"#,
        r#"{"format": 99, "services": [], "holds": []}"#,
    ];
    for text in texts {
        let (state, lost) = State::parse(text, &host());
        assert!(state.is_empty() && state.maintenance().0.is_empty(), "{text}");
        assert!(!lost.is_empty(), "{text}: every loss is reported");
    }
    let text = r#"{"format": 1, "services": [{"Name": ""}, {"Name": "web"}], "holds": []}"#;
    let (state, lost) = State::parse(text, &host());
    assert_eq!((state.len(), lost.len()), (1, 1));
}

fn drain(id: &str) -> Change {
    let (target, kind) = (Target::Instance(id.into()), HoldReason::Draining);
    Change::Hold { target, kind, reason: String::new(), period: None }
}

/// While a file defines an instance, the instance and its holds belong to the file.
#[test]
fn deregistration_behind_a_file_keeps_the_files_holds() {
    let body = json!({"Name": "web", "Check": {"TTL": "5s", "DeregisterCriticalServiceAfter": "1m"}});
    let mut node = Node::new(&[]);
    assert_eq!(node.register(&body), Ok(true));
    node.files = Node::new(&[json!({"Name": "web"})]).files;
    assert_eq!(node.apply(drain("web-host-a")), Ok(true));

    let key = node.files.keys().next().unwrap().clone();
    let report = HealthReport { since: 0, checks: vec![report("service:web", Status::Critical, 0)] };
    let critical = Announcement {
        report: Some(Arc::new(report)),
        ..Announcement::new(node.files[&key].instance.clone(), InstanceState::new(Status::Critical, "down"))
    };
    let announced = Announcements::from_iter([critical.into_entry()]);
    assert!(
        reaped_after(60, &node.state, &announced, &node.files).is_empty(),
        "the file's instance is critical, not the registration's"
    );
    assert_eq!(reaped_after(60, &node.state, &announced, &Definitions::new()).len(), 1);

    for change in [Change::Deregister("web".into()), register(&json!({"Name": "other", "ID": "web"}), false)] {
        let mut node = Node { state: node.state.clone(), files: node.files.clone() };
        assert_eq!(node.apply(change), Ok(true));
        assert_eq!(node.state.maintenance().0.len(), 1, "the file's instance stays drained");
    }
}

/// Returns the services that are deregistered when they have been critical for this many seconds of a run.
fn reaped_after(seconds: u64, state: &State, announced: &Announcements, files: &Definitions) -> Vec<SmolStr> {
    let (mut state, mut critical) = (state.clone(), CriticalChecks::default());
    assert!(
        state.reap(&mut critical, announced, files, Duration::from_secs(7)).is_empty(),
        "the time before does not count"
    );
    state.reap(&mut critical, announced, files, Duration::from_secs(7 + seconds))
}

fn report(id: &str, status: Status, since: u64) -> CheckReport {
    CheckReport { id: id.into(), name: "".into(), notes: "".into(), status, output: "".into(), since }
}

#[test]
fn service_is_deregistered_by_the_check_that_asks_for_it() {
    let body = json!({"Name": "web", "Checks": [
        {"CheckID": "keeps", "TTL": "5s"},
        {"CheckID": "minute", "TTL": "5s", "DeregisterCriticalServiceAfter": "1m"},
        {"CheckID": "hour", "TTL": "5s", "DeregisterCriticalServiceAfter": "1h"},
    ]});
    let mut node = Node::new(&[]);
    assert_eq!(node.register(&body), Ok(true));
    let critical = |id, since| report(id, Status::Critical, since);
    // Reports, seconds, and whether the service is deregistered.
    let cases = [
        (vec![critical("keeps", 0)], 100_000, false),
        (vec![critical("minute", 1_000)], 59, false),
        (vec![critical("minute", 1_000)], 60, true),
        (vec![critical("hour", 1_000), critical("keeps", 0)], 3_000, false),
        (vec![critical("hour", 1_000)], 3_600, true),
        (vec![report("minute", Status::Warning, 0)], 100_000, false),
    ];
    for (checks, seconds, expected) in cases {
        let key = InstanceKey { service: Label::parse("web").unwrap().into(), id: Label::parse("web-host-a").unwrap() };
        let known = Announcement {
            report: Some(Arc::new(HealthReport { since: 0, checks: checks.clone() })),
            // Maintenance does not keep a service registered.
            ..Announcement::new(
                node.state.definitions(&node.files)[&key].instance.clone(),
                InstanceState::withheld(HoldReason::Maintenance, ""),
            )
        };
        let announced = Announcements::from_iter([known.into_entry()]);
        let gone = reaped_after(seconds, &node.state, &announced, &node.files);
        assert_eq!(!gone.is_empty(), expected, "{checks:?} after {seconds} s");
    }
}

#[test]
fn hold_of_a_removed_instance_can_be_released() {
    let mut node = Node::new(&[json!({"Name": "web", "ID": "old"})]);
    assert_eq!(node.apply(drain("old-host-a")), Ok(true));
    node.files = Definitions::new();
    let release = || Change::Release { target: Target::Instance("old-host-a".into()), kinds: vec![] };
    assert_eq!(node.apply(release()), Ok(true));
    assert!(node.state.maintenance().0.is_empty());
    assert!(node.apply(release()).unwrap_err().starts_with("unknown: Unknown instance"));
}

/// As in Consul, where the checks of an agent are a map by id.
#[test]
fn last_registration_of_a_check_id_counts() {
    let body = |name: &str| json!({"Name": name, "Checks": [{"CheckID": "c", "TTL": "5s"}, {"TTL": "5s"}]});
    let mut node = Node::new(&[json!({"Name": "ssh", "Check": {"TTL": "5s"}})]);
    assert_eq!(node.register(&body("a")), Ok(true));
    assert_eq!(node.register(&body("a")), Ok(false), "identical registration");
    let outcome = node.state.apply(register(&body("b"), false), &node.files, &host(), 100).unwrap();
    assert_eq!(outcome.moved, [MovedCheck { id: "c".into(), from: "a".into() }]);
    assert_eq!(node.shown()[..2], ["a/a-host-a [service:a:2]", "b/b-host-a [c,service:b:2]"]);
    // The separate registration of a check takes it as well, and a check of the node.
    assert_eq!(node.apply(check(&json!({"Name": "c", "ServiceID": "a", "TTL": "1s"}))), Ok(true));
    assert_eq!(node.shown()[..2], ["a/a-host-a [service:a:2,c]", "b/b-host-a [service:b:2]"]);
    let outcome = node.state.apply(check(&json!({"Name": "c", "TTL": "1s"})), &node.files, &host(), 100).unwrap();
    assert!(outcome.node && outcome.instances.len() == 1, "{outcome:?}");
    assert_eq!(node.shown()[0], "a/a-host-a [service:a:2]");
    assert_eq!(node.node_checks(), ["c ttl 1s"]);
    let refused =
        "refused: Check ID \"c\" is that of a check of the node: use another CheckID, or deregister that check.";
    assert_eq!(node.register(&body("b")), Err(refused.to_owned()));
    node.restarted();
    let of_file = check(&json!({"Name": "x", "CheckID": "service:ssh", "ServiceID": "a", "TTL": "1s"}));
    let refused = "refused: Check ID \"service:ssh\" is that of a check in a file of this node: use another CheckID.";
    assert_eq!(node.apply(of_file), Err(refused.to_owned()));
}

/// A check of the node in the configuration.
fn configured_check() -> Check {
    let title = Some(CheckTitle { id: Some("node:1".into()), ..CheckTitle::default() });
    Check { title, ..Check::new(Probe::Systemd { unit: "sshd.service".to_owned() }) }
}

#[test]
fn checks_of_the_node_are_registered_reported_and_deregistered() {
    let mut node = Node::new(&[]);
    node.state.set_configured_checks([configured_check()].into());
    let load = json!({"Name": "Load", "CheckID": "load", "Notes": "uptime(1)", "TTL": "30s"});
    assert_eq!(node.apply(check(&load)), Ok(true));
    assert_eq!(node.apply(check(&load)), Ok(false), "identical registration");
    assert_eq!(node.apply(check(&json!({"Name": "disk", "TCP": "10.0.0.7:1", "Interval": "5s"}))), Ok(true));
    assert_eq!(node.node_checks(), ["node:1 systemd sshd.service", "disk tcp 10.0.0.7:1", "load ttl 30s"]);
    assert_eq!(node.shown(), [""; 0], "they are no instances");
    let granted = Permission::Operate;
    let report =
        |id: &str| Change::Report { check: id.into(), granted, status: Status::Passing, output: String::new() };
    let outcome = node.state.apply(report("load"), &node.files, &host(), 100).unwrap();
    assert_eq!(outcome.ttl_report, Some((Scope::Node, "load".into())));

    let mut again = Node { state: node.restarted(), files: Definitions::new() };
    assert_eq!(again.node_checks(), ["disk tcp 10.0.0.7:1", "load ttl 30s"]);
    assert_eq!(again.apply(check(&load)), Ok(false), "identical after a restart");

    let refused = [
        (report("disk"), "refused: Check \"disk\" is not a TTL check and accepts no reports."),
        (report("x"), "unknown: Unknown check ID \"x\""),
        (remove_check("node:1"), "refused: Check \"node:1\" is defined in the configuration"),
        (check(&json!({"Name": "node:1", "TTL": "1s"})), "refused: Check ID \"node:1\" is that of a check in a file"),
        (check(&json!({"Name": "x", "Args": ["/bin/true"]})), "refused: Checks: commands are not accepted over HTTP"),
        (check(&json!({"Name": "x", "TCP": "169.254.169.254:80"})), "refused: Checks: 169.254.169.254 is a link-local"),
        (check(&json!({"Name": "x", "TTL": "0s"})), "refused: the check: a check needs exactly one of"),
    ];
    for (change, expected) in refused {
        let error = node.apply(change.clone()).expect_err(expected);
        assert!(error.starts_with(expected), "{change:?}: {error}");
    }
    assert_eq!(node.apply(remove_check("disk")), Ok(true));
    for at in 0..29 {
        assert_eq!(node.apply(check(&json!({"Name": format!("more-{at}"), "TTL": "1s"}))), Ok(true));
    }
    let full = "refused: This node has 31 checks of its own, the maximum: deregister some.";
    assert_eq!(node.apply(check(&json!({"Name": "last", "TTL": "1s"}))), Err(full.to_owned()));
}

#[test]
fn command_is_registered_if_the_configuration_allows_it() {
    let allowed = Host { allow_exec: true, ..host() };
    let body = json!({"Name": "web", "Check": {"Args": ["/bin/true"], "Interval": "1s"}});
    let mut state = State::default();
    let error = state.apply(register(&body, false), &Definitions::new(), &host(), 0).unwrap_err();
    assert!(error.to_string().contains("set checks.allow_exec: api"), "{error}");
    let registration = Box::new(Registration::read(&body, &allowed).unwrap());
    let change = Change::Register { registration, replace_checks: false };
    assert!(state.apply(change, &Definitions::new(), &allowed, 0).unwrap().changed);
    // Restored without the permission, the check stays and its probe fails.
    let (restored, lost) = State::parse(&state.to_text(), &host());
    assert!(lost.is_empty(), "{lost:?}");
    let definitions = restored.definitions(&Definitions::new());
    assert!(!definitions.values().next().unwrap().checks[0].origin.may_run_commands());
}

#[test]
fn hold_of_a_service_name_lists_its_instances() {
    let mut node = Node::new(&[
        json!({"Name": "web", "ID": "c"}),
        json!({"Name": "db", "ID": "a"}),
        json!({"Name": "db", "ID": "b"}),
    ]);
    let cases = [
        ("web", "unknown: \"web\" is a service: its instance on this node is c-host-a."),
        ("DB", "unknown: \"DB\" is a service: its instances on this node are a-host-a, b-host-a."),
        ("x", "unknown: Unknown instance \"x\" on this node"),
    ];
    for (id, expected) in cases {
        let error = node.apply(drain(id)).unwrap_err();
        assert!(error.starts_with(expected), "{id}: {error}");
    }
}

#[test]
fn unknown_id_of_an_external_node_names_the_request() {
    let mut node = Node::new(&[]);
    let registered = |body: Value| Change::RegisterExternal(Box::new(CatalogRegistration::read(&body).unwrap()));
    let service = json!({"ID": "pg/1", "Service": "postgres"});
    node.apply(registered(json!({"Node": "DB1", "Address": "10.9.0.1", "Service": service}))).unwrap();
    node.apply(registered(json!({"Node": "nas", "Address": "10.9.0.2"}))).unwrap();
    let label = node.state.external().find("pg/1").unwrap().id.to_string();
    let requests = "PUT /v1/catalog/register and /v1/catalog/deregister change it, with";
    let service = format!("unknown: Service ID \"pg/1\" is registered on the external node DB1: {requests}");
    let keys = "\"Node\": \"DB1\" and \"ServiceID\": \"pg/1\".";
    for (change, expected) in [
        (Change::Deregister("pg/1".into()), format!("{service} {keys}")),
        (Change::Deregister(label.clone()), format!("{service} {keys}")),
        (check(&json!({"Name": "x", "ServiceID": "pg/1", "TTL": "1s"})), format!("{service} {keys}")),
        (
            Change::Deregister("db1".into()),
            format!("unknown: \"db1\" is an external node: {requests} \"Node\": \"DB1\"."),
        ),
        (drain("db1"), format!("unknown: \"DB1\" is an external node: its instance is {label}.")),
        (drain("Postgres"), format!("unknown: \"Postgres\" is a service: its instance on this node is {label}.")),
        (drain("nas"), "unknown: \"nas\" is an external node without services.".to_owned()),
    ] {
        assert_eq!(node.apply(change.clone()), Err(expected), "{change:?}");
    }
}

#[test]
fn check_of_a_link_local_address_is_refused() {
    let refused = [
        json!({"HTTP": "http://169.254.169.254/latest/meta-data/", "Interval": "10s"}),
        json!({"HTTP": "https://[fe80::1]:8443/", "Interval": "10s"}),
        json!({"HTTP": "http://2852039166/", "Interval": "10s"}),
        json!({"HTTP": "http://[::ffff:a9fe:a9fe]/", "Interval": "10s"}),
        json!({"TCP": "169.254.1.1:80", "Interval": "10s"}),
        json!({"TCP": "[fd00:ec2::254]:80", "Interval": "10s"}),
        json!({"GRPC": "168.63.129.16:80/a", "Interval": "10s"}),
    ];
    for body in &refused {
        let mut node = Node::new(&[]);
        assert_eq!(node.register(&json!({"Name": "web"})), Ok(true));
        let error = node.register(&json!({"Name": "db", "Check": body})).unwrap_err();
        assert!(error.starts_with("refused: Checks: "), "{error}");
        assert!(error.ends_with("use a service file, or set checks.allow_link_local"), "{error}");
        let mut added = body.clone();
        added.as_object_mut().unwrap().extend([("Name".into(), json!("c")), ("ServiceID".into(), json!("web"))]);
        assert_eq!(node.apply(check(&added)), Err(error.clone()));
        // It is restored, and its probe refused, after it was allowed.
        let allowed = Host { allow_link_local: true, ..host() };
        let registration = Registration::read(&json!({"Name": "db", "Check": body}), &allowed).unwrap();
        let change = Change::Register { registration: Box::new(registration), replace_checks: false };
        let mut state = State::default();
        state.apply(change, &Definitions::new(), &allowed, 0).unwrap();
        let (restored, problems) = State::parse(&state.to_text(), &host());
        let definitions = restored.definitions(&Definitions::new());
        let checks: Vec<bool> =
            definitions.values().map(|definition| definition.checks[0].origin.may_reach_link_local()).collect();
        assert_eq!((checks, problems), (vec![false], vec![]));
    }
    let mut node = Node::new(&[]);
    for (name, address) in [("a", "127.0.0.1:80"), ("b", "[::1]:80"), ("c", "metadata.google.internal:80")] {
        let body = json!({"Name": name, "Check": {"TCP": address, "Interval": "10s"}});
        assert_eq!(node.register(&body), Ok(true), "{address}");
    }
}
