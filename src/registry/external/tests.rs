//! Registrations of external nodes as clients write them, with the semantics of Consul's catalog.

use serde_json::{Value, json};

use super::*;
use crate::{
    model::{
        announcement::{CheckReport, HoldReason},
        followed_host::FollowedHost,
        name::label,
        registered_name::name,
        service::Definitions,
    },
    registry::state::{Change, State, Target},
};

fn host() -> Host {
    Host {
        node: label("host-a"),
        addresses: vec!["10.0.0.7".parse().unwrap()].into(),
        allow_exec: false,
        allow_link_local: false,
    }
}

fn apply(state: &mut State, change: Change) -> Result<bool, String> {
    let outcome = state.apply(change, &Definitions::new(), &host(), 100);
    outcome.map(|outcome| outcome.changed).map_err(|error| error.to_string())
}

fn register(state: &mut State, body: &Value) -> Result<bool, String> {
    let registration = CatalogRegistration::read(body).map_err(|error| error.to_string())?;
    apply(state, Change::RegisterExternal(Box::new(registration)))
}

fn deregister(state: &mut State, body: &Value) -> Result<bool, String> {
    let request = CatalogDeregistration::read(body).map_err(|error| error.to_string())?;
    apply(state, Change::DeregisterExternal(request))
}

/// Formats what is announced: nodes with their checks, and instances with their state.
fn shown(state: &State) -> String {
    let announced = state.announced(&Announced::default());
    let checks = |checks: &[CheckReport]| -> String {
        checks.iter().map(|check| format!(" {}={}", check.id, check.status.as_str())).collect()
    };
    let nodes = announced.nodes.values().map(|node| {
        let addresses: Vec<String> = node.addresses.iter().map(ToString::to_string).collect();
        format!("{} {}{}", node.shown_name(), addresses.join("+"), checks(&node.checks))
    });
    let instances = announced.instances.values().map(|known| {
        let instance = &known.instance;
        let state = match &known.state {
            InstanceState::Passing => "passing".to_owned(),
            InstanceState::Warning(reason) => format!("warning: {reason}"),
            InstanceState::Critical(reason) => format!("critical: {reason}"),
            other => format!("{other:?}"),
        };
        let on = instance.external.as_ref().map(ToString::to_string).unwrap_or_default();
        let port = instance.port.unwrap_or(0);
        let report = known.report.as_ref().map_or_else(String::new, |report| checks(&report.checks));
        let address = instance.addresses.first().map(ToString::to_string).unwrap_or_default();
        format!("{} on {on} at {address}:{port} {state}{report}", instance.key)
    });
    nodes.chain(instances).collect::<Vec<_>>().join("; ")
}

/// Restores the stored text, which yields the same state.
fn assert_survives_a_restart(state: &State, case: &str) {
    let (restored, problems) = State::parse(&state.to_text(), &host());
    assert_eq!(problems, [""; 0], "{case}");
    assert_eq!(shown(&restored), shown(state), "{case}");
    assert_eq!(restored.to_text(), state.to_text(), "{case}");
}

#[test]
fn registrations_add_to_a_node() {
    let steps = [
        (
            "a node",
            json!({"Node": "DB1", "Address": "10.9.0.1", "NodeMeta": {"external-node": "true"}}),
            "DB1 10.9.0.1",
        ),
        (
            "a service",
            json!({"node": "db1", "address": "10.9.0.1", "service": {"service": "pg", "port": 5432}}),
            "db1 10.9.0.1; pg/pg-db1 on db1 at 10.9.0.1:5432 passing",
        ),
        (
            "a check of the service; SkipNodeUpdate keeps the address",
            json!({
                "Node": "db1", "SkipNodeUpdate": true, "Address": "10.9.9.9",
                "Check": {"Node": "db1", "CheckID": "pg-alive", "ServiceID": "pg", "Status": "warning", "Output": "slow"},
            }),
            "db1 10.9.0.1; pg/pg-db1 on db1 at 10.9.0.1:5432 warning: slow pg-alive=warning",
        ),
        (
            "a check of the node; its id is its name",
            json!({"Node": "db1", "Address": "10.9.0.2", "Checks": [{"Name": "Ping", "Status": "passing"}]}),
            "db1 10.9.0.2 Ping=passing; pg/pg-db1 on db1 at 10.9.0.2:5432 warning: slow pg-alive=warning",
        ),
        (
            "critical is the default status, and a critical check of the node takes its instances out",
            json!({"Node": "db1", "SkipNodeUpdate": true, "Check": {"CheckID": "Ping", "Name": "Ping", "Output": "lost"}}),
            "db1 10.9.0.2 Ping=critical; \
             pg/pg-db1 on db1 at 10.9.0.2:5432 critical: check Ping of node db1: lost pg-alive=warning",
        ),
        (
            "a service with the id replaces the service and keeps its checks",
            json!({
                "Node": "db1", "Address": "10.9.0.2", "Service": {"ID": "pg", "Service": "pg", "Address": "10.9.1.1"},
                "Checks": [{"CheckID": "Ping", "Name": "Ping", "Status": "passing"}],
            }),
            "db1 10.9.0.2 Ping=passing; pg/pg-db1 on db1 at 10.9.1.1:0 warning: slow pg-alive=warning",
        ),
        (
            "another node with the id of a service",
            json!({
                "Node": "rack 1/db.2", "Address": "fd00::9", "TaggedAddresses": {"lan_ipv4": "10.9.0.3", "wan": "db2.example"},
                "Service": {"Service": "pg"},
            }),
            "db1 10.9.0.2 Ping=passing; rack 1/db.2 fd00::9+10.9.0.3; \
             pg/pg-db1 on db1 at 10.9.1.1:0 warning: slow pg-alive=warning; \
             pg/pg-rack-1-db-2-x1dc48e-ext on rack 1/db.2 at fd00::9:0 passing",
        ),
    ];
    let mut state = State::default();
    for (case, body, expected) in steps {
        assert_eq!(register(&mut state, &body), Ok(true), "{case}");
        assert_eq!(shown(&state), expected, "{case}");
        assert_eq!(register(&mut state, &body), Ok(false), "{case}: again");
        assert_survives_a_restart(&state, case);
    }
    let announced = state.announced(&Announced::default());
    let node = &announced.nodes[&name("rack 1/db.2")];
    assert_eq!(node.tagged["wan"], "db2.example");
    assert!(announced.nodes[&name("db1")].meta.is_empty(), "the fields of the node are replaced as a whole");
}

#[test]
fn deregistrations_have_the_semantics_of_consul() {
    let mut state = State::default();
    let node = json!({
        "Node": "db1", "Address": "10.9.0.1", "Service": {"Service": "pg"},
        "Checks": [
            {"CheckID": "ping", "Status": "passing"},
            {"CheckID": "alive", "ServiceID": "pg", "Status": "critical"},
            {"CheckID": "lag", "ServiceID": "pg", "Status": "passing"},
        ],
    });
    let steps = [
        (
            json!({"Node": "db1", "CheckID": "alive"}),
            "db1 10.9.0.1 ping=passing; pg/pg-db1 on db1 at 10.9.0.1:0 passing lag=passing",
        ),
        // A service takes precedence over a check, and its checks go with it.
        (json!({"Node": "db1", "ServiceID": "pg", "CheckID": "ping"}), "db1 10.9.0.1 ping=passing"),
        (json!({"Node": "DB1"}), ""),
    ];
    assert_eq!(register(&mut state, &node), Ok(true));
    for (body, expected) in steps {
        assert_eq!(deregister(&mut state, &body), Ok(true), "{body}");
        assert_eq!(shown(&state), expected, "{body}");
        assert_eq!(deregister(&mut state, &body), Ok(false), "{body}: again");
        assert_survives_a_restart(&state, &body.to_string());
    }
    // The removal of what does not exist succeeds.
    for body in
        [json!({"Node": "none"}), json!({"Node": "none", "ServiceID": "x"}), json!({"Node": "none", "CheckID": "x"})]
    {
        assert_eq!(deregister(&mut state, &body), Ok(false), "{body}");
    }
}

#[test]
fn invalid_registrations_are_refused_and_change_nothing() {
    let id = "11111111-2222-3333-4444-555555555555";
    let long: Vec<Value> =
        (0..32).map(|at| json!({"CheckID": at.to_string(), "Definition": {"TCP": "x".repeat(300)}})).collect();
    let many: Vec<Value> = (0..33).map(|at| json!({"CheckID": at.to_string()})).collect();
    let cases = [
        (json!({"Address": "10.9.0.1"}), "Node is missing"),
        (json!({"Node": "a\nb", "Address": "10.9.0.1"}), "Node must be a name of 1 to 255 octets"),
        (json!({"Node": "x"}), "Address is missing: it is the node's address, unless SkipNodeUpdate is true"),
        (json!({"Node": "x", "SkipNodeUpdate": true}), "Node x is not registered: a new node needs an Address"),
        (json!({"Node": "x", "Address": "0.0.0.0"}), "Address must be the IP address of a host"),
        (json!({"Node": "x", "Address": "10.9.0.300"}), "Address must be an IP address or a host name, got"),
        (
            json!({"Node": "x", "Address": "10.9.0.1", "Service": {"Service": "a", "Address": "a b"}}),
            "Service: Address must be an IP address or a host name, got the string \"a b\"",
        ),
        (json!({"Node": "x", "Address": "10.9.0.1", "ID": "7"}), "ID must be a UUID"),
        (json!({"Node": "x", "Address": "10.9.0.1", "Partition": "a"}), "Partition is not supported"),
        (json!({"Node": "x", "Address": "10.9.0.1", "PeerName": "a"}), "PeerName is not supported"),
        (json!({"Node": "x", "Address": "10.9.0.1", "NodeMeta": {"a": 1}}), "NodeMeta.a must be a string"),
        (json!({"Node": "x", "Address": "10.9.0.1", "NodeMeta": {"a": "x".repeat(300)}}), "at most 255 octets"),
        (
            json!({"Node": "x", "Address": "10.9.0.1", "TaggedAddresses": {"lan_ipv6": "a"}}),
            "TaggedAddresses.lan_ipv6 must be an IP address",
        ),
        (json!({"Node": "x", "Address": "10.9.0.1", "Service": {"ID": "a"}}), "Service.Service is missing"),
        (json!({"Node": "x", "Address": "10.9.0.1", "Service": {"Service": "a", "Port": -1}}), "Service: Port must be"),
        (
            json!({"Node": "x", "Address": "10.9.0.1", "Service": {"Service": "a", "Kind": "mesh-gateway"}}),
            "Service: Kind is not supported",
        ),
        (json!({"Node": "x", "Address": "10.9.0.1", "Check": {"Status": "passing"}}), "Check: CheckID is missing"),
        (
            json!({"Node": "x", "Address": "10.9.0.1", "Check": {"CheckID": "a", "Status": "fine"}}),
            "Check.Status must be \"passing\", \"warning\" or \"critical\"",
        ),
        (
            json!({"Node": "x", "Address": "10.9.0.1", "Check": {"CheckID": "a", "Node": "y"}}),
            "Check.Node: the check is of node \"y\"",
        ),
        (
            json!({"Node": "x", "Address": "10.9.0.1", "Check": {"CheckID": "a", "ServiceID": "none"}}),
            "the node has no service with the ID \"none\"",
        ),
        (json!({"Node": "x", "Address": "10.9.0.1", "Checks": many}), "at most 32 checks"),
        (json!({"Node": "x", "Address": "10.9.0.1", "Checks": long}), "nodes exchange at most 8192 octets"),
    ];
    let mut state = State::default();
    let body = json!({"Node": "db-1", "ID": id, "Address": "10.9.0.1", "Service": {"Service": "pg", "ID": "a"}});
    assert_eq!(register(&mut state, &body), Ok(true));
    let before = state.to_text();
    for (body, expected) in cases {
        let refused = register(&mut state, &body).unwrap_err();
        assert!(refused.contains(expected), "{body}: {refused}");
        assert_eq!(state.to_text(), before, "{body}");
    }
    // A node with a known id and another name is renamed.
    assert_eq!(register(&mut state, &json!({"Node": "db2", "ID": id, "Address": "10.9.0.2"})), Ok(true));
    assert_eq!(shown(&state), "db2 10.9.0.2");
    assert_survives_a_restart(&state, "renamed");
}

#[test]
fn nodes_and_instances_of_an_agent_are_bounded() {
    let mut external = External::default();
    let registration = |node: &str, service: Option<String>| {
        let service = service.map(|id| json!({"Service": "web", "ID": id}));
        CatalogRegistration::read(&json!({"Node": node, "Address": "10.9.0.1", "Service": service})).unwrap()
    };
    for at in 0..MAX_EXTERNAL_NODES {
        external.register(&registration(&format!("n{at}"), None), &host(), |_| false, 0).unwrap();
    }
    let refused = external.register(&registration("more", None), &host(), |_| false, 0).unwrap_err().to_string();
    assert!(refused.contains("1000 external nodes, the maximum"), "{refused}");
    assert_eq!(external.register(&registration("n7", None), &host(), |_| false, 0), Ok(()));
    let mut services = External::default();
    let body = |at: usize| registration(&format!("n{}", at % 8), Some(at.to_string()));
    for at in 0..MAX_EXTERNAL_INSTANCES {
        services.register(&body(at), &host(), |_| false, 0).unwrap();
    }
    let refused = services.register(&body(9999), &host(), |_| false, 0).unwrap_err().to_string();
    assert!(refused.contains("2000 services, the maximum"), "{refused}");
}

#[test]
fn holds_withhold_instances_and_end_with_them() {
    let mut state = State::default();
    let body = json!({"Node": "db1", "Address": "10.9.0.1", "Service": {"Service": "pg"}});
    assert_eq!(register(&mut state, &body), Ok(true));
    let instance_state =
        |state: &State| state.announced(&Announced::default()).instances.values().next().unwrap().state.clone();
    let hold = |target: Target, kind| Change::Hold { target, kind, reason: "disk".to_owned(), period: None };
    let release = |target: Target| Change::Release { target, kinds: vec![] };
    let withheld = |kind| InstanceState::withheld(kind, "disk");
    for target in ["pg-db1", "pg/pg-db1", "pg"] {
        let target = Target::Instance(target.to_owned());
        apply(&mut state, hold(target.clone(), HoldReason::Draining)).unwrap();
        assert_eq!(instance_state(&state), withheld(HoldReason::Draining), "{target:?}");
        assert_survives_a_restart(&state, "a hold");
        apply(&mut state, release(target)).unwrap();
        assert_eq!(instance_state(&state), InstanceState::Passing);
    }
    // Maintenance of the agent's node does not concern other hosts; a drain does.
    apply(&mut state, hold(Target::Node, HoldReason::NodeMaintenance)).unwrap();
    assert_eq!(instance_state(&state), InstanceState::Passing);
    apply(&mut state, release(Target::Node)).unwrap();
    apply(&mut state, hold(Target::Node, HoldReason::Draining)).unwrap();
    assert_eq!(instance_state(&state), withheld(HoldReason::Draining));
    apply(&mut state, release(Target::Node)).unwrap();
    apply(&mut state, hold(Target::Instance("pg-db1".to_owned()), HoldReason::Maintenance)).unwrap();
    assert_eq!(deregister(&mut state, &json!({"Node": "db1"})), Ok(true));
    assert!(state.maintenance().0.is_empty());
}

#[test]
fn maintenance_of_the_agents_node_hides_no_hold_of_an_external_instance() {
    use HoldReason::{Draining, Maintenance, NodeMaintenance};
    let node = || Target::Node;
    let instance = || Target::Instance("pg-db1".to_owned());
    let hold = |target: Target, kind| Change::Hold { target, kind, reason: String::new(), period: None };
    let release = |target: Target, kind| Change::Release { target, kinds: vec![kind] };
    let all = vec![Draining, Maintenance, NodeMaintenance];
    let resume = |target: Target| Change::Release { target, kinds: all.clone() };
    // Changes in their order; each with the hold that the instance has afterwards, whether the change concerns the instance, and
    // the hold that is reported as the remaining one.
    type Step = (Change, Option<HoldReason>, bool, Option<HoldReason>);
    let scenarios: Vec<Vec<Step>> = vec![
        vec![
            (hold(node(), NodeMaintenance), None, false, None),
            (hold(instance(), Draining), Some(Draining), true, None),
            (hold(instance(), Maintenance), Some(Draining), true, None),
            (release(instance(), Draining), Some(Maintenance), true, Some(Maintenance)),
            (release(node(), NodeMaintenance), Some(Maintenance), false, Some(Maintenance)),
            (resume(instance()), None, true, None),
        ],
        vec![
            (hold(instance(), Maintenance), Some(Maintenance), true, None),
            (hold(node(), NodeMaintenance), Some(Maintenance), false, None),
            (hold(node(), Draining), Some(Draining), true, None),
            (release(instance(), Maintenance), Some(Draining), true, Some(Draining)),
            (hold(instance(), Maintenance), Some(Draining), true, None),
            (release(node(), Draining), Some(Maintenance), true, Some(Maintenance)),
            (resume(instance()), None, true, None),
            (resume(node()), None, false, None),
        ],
    ];
    for (at, scenario) in scenarios.into_iter().enumerate() {
        let mut state = State::default();
        let body = json!({"Node": "db1", "Address": "10.9.0.1", "Service": {"Service": "pg"}});
        assert_eq!(register(&mut state, &body), Ok(true));
        for (change, withheld, concerns, remaining) in scenario {
            let step = format!("scenario {at}: {change:?}");
            let outcome = state.apply(change, &Definitions::new(), &host(), 100).unwrap();
            let announced = state.announced(&Announced::default());
            let expected = withheld.map_or(InstanceState::Passing, |kind| InstanceState::withheld(kind, ""));
            assert_eq!(announced.instances.values().next().unwrap().state, expected, "{step}");
            assert_eq!(outcome.instances.len(), usize::from(concerns), "{step}");
            assert_eq!(outcome.held.first().map(|held| held.kind), remaining, "{step}");
            assert_survives_a_restart(&state, &step);
        }
    }
}

#[test]
fn status_keeps_its_start_and_notes_and_definition_are_kept() {
    let mut state = State::default();
    let definition = json!({"TCP": "10.9.0.1:5432", "IntervalDuration": "10s"});
    let check = |status: &str, output: &str| {
        json!({
            "Node": "db1", "Address": "10.9.0.1", "Service": {"Service": "pg"},
            "Check": {
                "CheckID": "tcp", "ServiceID": "pg", "Status": status, "Output": output, "Notes": "by esm",
                "Definition": definition,
            },
        })
    };
    let since = |state: &State| {
        let announced = state.announced(&Announced::default());
        let report = announced.instances.values().next().unwrap().report.clone().unwrap();
        (report.since, report.checks[0].since, report.checks[0].output.to_string())
    };
    for (now, status, output, expected) in [
        (100, "critical", "refused", (100, 100)),
        (200, "critical", "timed out", (100, 100)),
        (300, "passing", "", (300, 300)),
        (400, "passing", "", (300, 300)),
    ] {
        let registration = CatalogRegistration::read(&check(status, output)).unwrap();
        let change = Change::RegisterExternal(Box::new(registration));
        state.apply(change, &Definitions::new(), &host(), now).unwrap();
        assert_eq!(since(&state), (expected.0, expected.1, output.to_owned()), "at {now}");
    }
    assert_survives_a_restart(&state, "since");
    let announced = state.announced(&Announced::default());
    let (node, instance) = (&announced.nodes[&name("db1")], announced.instances.values().next().unwrap());
    assert_eq!(instance.report.as_ref().unwrap().checks[0].notes, "by esm");
    assert_eq!(serde_json::from_str::<Value>(&node.definitions["tcp"]).unwrap(), definition);
    let again = state.announced(&announced);
    let shared = announced.instances.values().zip(again.instances.values()).all(|(one, two)| Arc::ptr_eq(one, two));
    assert!(shared && Arc::ptr_eq(&announced.nodes[&name("db1")], &again.nodes[&name("db1")]));
}

#[test]
fn output_alone_is_announced_every_thirty_seconds() {
    let mut state = State::default();
    let report = |state: &mut State, now: u64, status: &str, output: &str| {
        let check =
            |id: &str, service: &str| json!({"CheckID": id, "ServiceID": service, "Status": status, "Output": output});
        let checks = [check("ping", ""), check("tcp", "pg")];
        let body = json!({"Node": "db1", "Address": "10.9.0.1", "Service": {"Service": "pg"}, "Checks": checks});
        let change = Change::RegisterExternal(Box::new(CatalogRegistration::read(&body).unwrap()));
        state.apply(change, &Definitions::new(), &host(), now).unwrap();
    };
    let outputs = |state: &State| {
        let announced = state.announced(&Announced::default());
        let known = announced.instances.values().next().unwrap();
        let of_instance = known.report.as_ref().unwrap().checks[0].output.to_string();
        assert_eq!(*announced.nodes[&name("db1")].checks[0].output, *of_instance);
        if let InstanceState::Critical(reason) = &known.state {
            assert_eq!(**reason, *of_instance);
        }
        of_instance
    };
    // Time, status, output and announced output; no status: the outputs that are due are released.
    for (now, status, output, expected) in [
        (100, "critical", "1 ms", "1 ms"),
        (101, "critical", "2 ms", "1 ms"),
        (129, "critical", "3 ms", "1 ms"),
        (129, "", "", "1 ms"),
        (130, "", "", "3 ms"),
        (140, "critical", "4 ms", "3 ms"),
        (141, "critical", "3 ms", "3 ms"),
        (160, "critical", "5 ms", "5 ms"),
        (161, "passing", "6 ms", "6 ms"),
        (162, "passing", "7 ms", "6 ms"),
        // The clock went back.
        (10, "", "", "7 ms"),
    ] {
        match status {
            "" => {
                let before = outputs(&state);
                assert_eq!(state.release_outputs(now), before != expected, "at {now}");
            }
            status => report(&mut state, now, status, output),
        }
        assert_eq!(outputs(&state), expected, "at {now}");
    }
    assert!(!state.release_outputs(200));
    assert_survives_a_restart(&state, "outputs");
}

#[test]
fn host_names_of_a_node_are_those_of_its_services() {
    let followed = |state: &State| {
        let announced = state.announced(&Announced::default());
        let host = |host: &Option<Arc<FollowedHost>>| host.as_ref().map(|host| host.name.to_string());
        let nodes = announced.nodes.values().map(|node| (host(&node.host), node.addresses.len()));
        let instances =
            announced.instances.values().map(|known| (host(&known.instance.host), known.instance.addresses.len()));
        nodes.chain(instances).collect::<Vec<_>>()
    };
    let name = |text: &str| (Some(text.to_owned()), 0);
    let mut state = State::default();
    let body = json!({
        "Node": "db1", "Address": "Db1.example", "TaggedAddresses": {"lan_ipv4": "10.9.0.1"}, "Service": {"Service": "a"},
    });
    assert_eq!(register(&mut state, &body), Ok(true));
    let body = json!({"Node": "db1", "SkipNodeUpdate": true, "Service": {"Service": "b", "Address": "b.example"}});
    assert_eq!(register(&mut state, &body), Ok(true));
    let body = json!({"Node": "db1", "SkipNodeUpdate": true, "Service": {"Service": "c", "Address": "10.9.0.3"}});
    assert_eq!(register(&mut state, &body), Ok(true));
    assert_eq!(followed(&state), [name("Db1.example"), name("Db1.example"), name("b.example"), (None, 1)]);
    assert_survives_a_restart(&state, "host names");
    assert_eq!(register(&mut state, &json!({"Node": "db1", "Address": "10.9.0.1"})), Ok(true));
    assert_eq!(followed(&state), [(None, 1), (None, 1), name("b.example"), (None, 1)]);
}
