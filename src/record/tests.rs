//! Encoding, decoding and rejection of records.

use proptest::prelude::*;

use super::*;
use crate::model::{
    alpn::PortAlpn,
    announcement::{CheckReport, HoldReason},
    followed_host::{FollowedHost, HostName},
    health::Status,
    list::List,
    name::label,
    nearest::Nearest,
    registered_name::{RegisteredName, name},
    service::{MAX_ADDRESSES, MAX_META, MAX_PORTS, MAX_TAGS, Protocol},
    tagged_addresses::TaggedAddress,
};

fn key() -> InstanceKey {
    InstanceKey { service: label("web").into(), id: label("web-1") }
}

fn plain() -> Instance {
    Instance::new(key(), vec!["10.0.0.7".parse().unwrap()])
}

fn full() -> Instance {
    Instance {
        addresses: vec!["10.0.0.7".parse().unwrap(), "fd00::7".parse().unwrap()].into(),
        port: Some(8080),
        ports: vec![(label("metrics"), 9100), (label("http"), 8080)].into(),
        alpn: vec![
            PortAlpn { port: None, ids: "h2,http/1.1".parse().unwrap() },
            PortAlpn { port: Some(label("http")), ids: "h3".parse().unwrap() },
        ]
        .into(),
        protocol: Protocol::Udp,
        tags: vec!["v2".to_owned(), "größer".to_owned()].into(),
        meta: [("version", "2.3.1"), ("note", "a\"b\n")].into(),
        priority: 0,
        weight: 20,
        ttl: Some(0),
        nearest: Some(Nearest::Zone),
        min_healthy: Some("50%".parse().unwrap()),
        tagged: [("wan".into(), TaggedAddress { address: "192.0.2.7".into(), port: 443 })].into_iter().collect(),
        ..plain()
    }
}

fn report() -> HealthReport {
    let check = |id: &str, name: &str, status, output: &str, since| CheckReport {
        id: id.into(),
        name: name.into(),
        notes: if status == Status::Critical { "see the runbook".into() } else { "".into() },
        status,
        output: output.into(),
        since,
    };
    HealthReport {
        since: 1_795_535_600,
        checks: vec![
            check("service:web-1:1", "tcp 10.0.0.7:80", Status::Passing, "", 1_795_535_600),
            check("disk", "disk", Status::Critical, "91 %", 1_795_535_601),
        ],
    }
}

fn node(version: &str) -> Record {
    let addresses = vec!["10.0.0.7".parse().unwrap()];
    Record::Node {
        addresses,
        datacenter: label("dc1"),
        zone: None,
        version: version.to_owned(),
        meta: Default::default(),
        ttl: None,
    }
}

fn with_meta(pairs: &[(&str, &str)]) -> Record {
    let meta = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let Record::Node { addresses, datacenter, version, .. } = node("1") else { unreachable!() };
    Record::Node { addresses, datacenter, zone: None, version, meta, ttl: None }
}

fn external() -> ExternalNode {
    let check = CheckReport {
        id: "ping".into(),
        name: "Ping".into(),
        notes: "by esm".into(),
        status: Status::Warning,
        output: "3 %".into(),
        since: 7,
    };
    ExternalNode {
        name: name("db 1"),
        letter_case: Some("DB 1".into()),
        id: Some(uuid::Uuid::from_u128(7)),
        addresses: vec!["10.9.0.1".parse().unwrap(), "fd00::9".parse().unwrap()].into(),
        host: None,
        tagged: BTreeMap::from([("wan".to_owned(), "db1.example".to_owned())]),
        meta: BTreeMap::from([("external-node".to_owned(), "true".to_owned())]),
        checks: vec![check],
        definitions: BTreeMap::from([("ping".into(), r#"{"TCP":"a:1"}"#.to_owned())]),
    }
}

fn event() -> UserEvent {
    UserEvent {
        id: uuid::Uuid::from_u128(7),
        name: "deploy".to_owned(),
        payload: b"v2".to_vec(),
        to: crate::model::user_event::Audience {
            service: "web".to_owned(),
            tag: "v2".to_owned(),
            ..Default::default()
        },
        time: 9,
    }
}

/// The format that nodes of other versions have to read: changing a line here breaks compatibility.
#[test]
fn record_format_is_stable() {
    let state = |status, reason| Record::State(key(), InstanceState::new(status, reason));
    let cases = [
        (Record::Instance(Arc::new(plain())), "i/web/web-1", r#"{"addr":["10.0.0.7"]}"#),
        (
            Record::Instance(Arc::new(full())),
            "i/web/web-1",
            r#"{"addr":["10.0.0.7","fd00::7"],"tagged":{"wan":["192.0.2.7",443]},"port":8080,"ports":{"metrics":9100,"http":8080},"alpn":{"":["h2","http/1.1"],"http":["h3"]},"proto":"udp","tags":["v2","größer"],"meta":{"note":"a\"b\n","version":"2.3.1"},"prio":0,"weight":20,"ttl":0,"nearest":"zone","min":"50%"}"#,
        ),
        (state(Status::Passing, ""), "h/web/web-1", "p"),
        (state(Status::Warning, "disk 91 %"), "h/web/web-1", "w disk 91 %"),
        (state(Status::Critical, "connection refused"), "h/web/web-1", "c connection refused"),
        (state(Status::Critical, ""), "h/web/web-1", "c "),
        (Record::State(key(), InstanceState::Disabled), "h/web/web-1", "d"),
        (Record::State(key(), InstanceState::Warming(3)), "h/web/web-1", "u 3"),
        (
            Record::State(key(), InstanceState::withheld(HoldReason::NodeMaintenance, "new kernel")),
            "h/web/web-1",
            "x node-maintenance new kernel",
        ),
        (Record::State(key(), InstanceState::withheld(HoldReason::Draining, "")), "h/web/web-1", "x draining "),
        (
            Record::Report(key(), Arc::new(report())),
            "r/web/web-1",
            r#"{"since":1795535600,"checks":[{"id":"service:web-1:1","name":"tcp 10.0.0.7:80","is":"p","since":1795535600},{"id":"disk","name":"disk","notes":"see the runbook","is":"c","out":"91 %","since":1795535601}]}"#,
        ),
        (
            Record::NodeChecks(Arc::new(HealthReport { since: 7, checks: report().checks.split_off(1) })),
            "n/checks",
            r#"{"since":7,"checks":[{"id":"disk","name":"disk","notes":"see the runbook","is":"c","out":"91 %","since":1795535601}]}"#,
        ),
        (
            Record::Instance(Arc::new(Instance {
                external: Some(Box::new(name("db1.example"))),
                tag_override: true,
                ..plain()
            })),
            "i/web/web-1",
            r#"{"addr":["10.0.0.7"],"on":"db1.example","eto":true}"#,
        ),
        (
            Record::External(Arc::new(external())),
            "x/db%201",
            r#"{"addr":["10.9.0.1","fd00::9"],"case":"DB 1","id":"00000000-0000-0000-0000-000000000007","tagged":{"wan":"db1.example"},"meta":{"external-node":"true"},"checks":[{"id":"ping","name":"Ping","notes":"by esm","is":"w","out":"3 %","since":7}],"defs":{"ping":"{\"TCP\":\"a:1\"}"}}"#,
        ),
        (
            Record::External(Arc::new(ExternalNode::new(name("db 1"), vec!["10.9.0.1".parse().unwrap()]))),
            "x/db%201",
            r#"{"addr":["10.9.0.1"]}"#,
        ),
        (
            Record::External(Arc::new(ExternalNode {
                host: Some(Arc::new(FollowedHost {
                    name: HostName::parse("db1.example").unwrap(),
                    problem: Some("NXDOMAIN".into()),
                })),
                ..ExternalNode::new(name("db1"), vec![])
            })),
            "x/db1",
            r#"{"addr":[],"host":"db1.example","host_problem":"NXDOMAIN"}"#,
        ),
        (node("0.2.0"), "n/node", r#"{"addr":["10.0.0.7"],"dc":"dc1","version":"0.2.0"}"#),
        (
            with_meta(&[("rack", "r1")]),
            "n/node",
            r#"{"addr":["10.0.0.7"],"dc":"dc1","version":"1","meta":{"rack":"r1"}}"#,
        ),
        (
            Record::Event(15, Arc::new(event())),
            "e/15",
            r#"{"id":"00000000-0000-0000-0000-000000000007","name":"deploy","data":"djI=","service":"web","tag":"v2","time":9}"#,
        ),
        (
            Record::Node {
                addresses: vec!["10.0.0.7".parse().unwrap()],
                datacenter: label("dc1"),
                zone: Some(label("eu-1a")),
                version: "0.2.0".to_owned(),
                meta: Default::default(),
                ttl: Some(5),
            },
            "n/node",
            r#"{"addr":["10.0.0.7"],"dc":"dc1","zone":"eu-1a","version":"0.2.0","ttl":5}"#,
        ),
        (Record::View(0xabc), "n/view", "3 0000000000000abc"),
        (Record::Serial(1_795_524_918), "n/serial", "1795524918"),
        (Record::ZoneSerial(1_795_524_918), "n/zone-serial", "1795524918"),
        (Record::Left, "n/left", "1"),
        (Record::Restart, "n/restart", "1"),
    ];
    for (record, key, value) in cases {
        assert_eq!(record.encode(), (key.to_owned(), value.to_owned()));
        assert_eq!(decode(key, value), Ok(Some(record)), "{key} {value}");
    }
}

#[test]
fn unknown_fields_and_keys_are_ignored() {
    let addresses = r#""addr":["10.0.0.7"]"#;
    let instance = || Some(Record::Instance(Arc::new(plain())));
    let cases = [
        ("y/web", "anything".to_owned(), None),
        ("n/keys", "{".to_owned(), None),
        ("", String::new(), None),
        ("n/nodes", "1".to_owned(), None),
        ("e/16", "{".to_owned(), None),
        ("e/00", "{".to_owned(), None),
        ("n/view", "4 whatever".to_owned(), None),
        ("i/web/web-1", format!(r#"{{"zone":{{"a":[1]}},{addresses}}}"#), instance()),
        ("i/web/web-1", format!(r#" {{ {addresses} , "tags" : [] , "port" : null }} "#), instance()),
        ("n/node", format!(r#"{{{addresses},"dc":"dc1","version":"1","load":0.5}}"#), Some(node("1"))),
    ];
    for (key, value, expected) in cases {
        assert_eq!(decode(key, &value), Ok(expected), "{key} {value}");
    }
}

#[test]
fn invalid_keys_are_refused() {
    let cases = [
        ("k".repeat(MAX_KEY + 1), RecordError::KeyLength(MAX_KEY + 1)),
        ("i/web".to_owned(), RecordError::KeyParts),
        ("i/".to_owned(), RecordError::KeyParts),
        ("h//a".to_owned(), RecordError::KeyName(RegisteredNameError::Empty)),
        ("h/web/".to_owned(), RecordError::KeyLabel(LabelError::Empty)),
        ("i/web/a/b".to_owned(), RecordError::KeyLabel(LabelError::Character('/'))),
        (format!("i/web/{}", "a".repeat(64)), RecordError::KeyLabel(LabelError::TooLong(64))),
        ("i/Web/a".to_owned(), RecordError::KeyCase),
        ("h/web/A".to_owned(), RecordError::KeyCase),
    ];
    for (key, expected) in cases {
        assert_eq!(Key::parse(&key), Err(expected), "{key}");
    }
}

#[test]
fn instances_out_of_bounds_are_refused() {
    let list = |count: usize, item: &dyn Fn(usize) -> String| (0..count).map(item).collect::<Vec<_>>().join(",");
    let addressed = |rest: &str| format!(r#"{{"addr":["10.0.0.7"],{rest}}}"#);
    let at = |addresses: &str| format!(r#"{{"addr":[{addresses}]}}"#);
    let too_many = |what, found, most| BoundsError::TooMany { what, found, most };
    let address = |text: &str| BoundsError::Address(text.parse().unwrap());
    let cases = [
        (at(""), BoundsError::NoAddress),
        (at(&list(17, &|n| format!(r#""10.0.0.{n}""#))), too_many("addresses", 17, MAX_ADDRESSES)),
        (at(r#""10.0.0.7","10.0.0.7""#), BoundsError::SameAddress("10.0.0.7".parse().unwrap())),
        (at(r#""0.0.0.0""#), address("0.0.0.0")),
        (at(r#""::""#), address("::")),
        (at(r#""224.0.0.1""#), address("224.0.0.1")),
        (at(r#""ff02::1""#), address("ff02::1")),
        (at(r#""::ffff:10.0.0.7""#), address("::ffff:10.0.0.7")),
        (addressed(r#""port":0"#), BoundsError::PortZero),
        (addressed(r#""ports":{"http":0}"#), BoundsError::PortZero),
        (addressed(r#""ports":{"http":1,"HTTP":2}"#), BoundsError::SamePort(label("http"))),
        (addressed(r#""ports":{"http":1,"http":1}"#), BoundsError::SamePort(label("http"))),
        (addressed(&format!(r#""ports":{{"{}":1}}"#, "a".repeat(63))), BoundsError::PortName(label(&"a".repeat(63)))),
        (
            addressed(&format!(r#""ports":{{{}}}"#, list(33, &|n| format!(r#""p{n}":1"#)))),
            too_many("ports", 33, MAX_PORTS),
        ),
        (addressed(r#""tags":[""]"#), BoundsError::Tag),
        (addressed(r#""tags":["a\nb"]"#), BoundsError::Tag),
        (addressed(r#""tags":["a","b","a"]"#), BoundsError::SameTag),
        (addressed(&format!(r#""tags":["{}"]"#, "a".repeat(256))), BoundsError::TagLength(256)),
        (addressed(&format!(r#""tags":[{}]"#, list(65, &|n| format!(r#""t{n}""#)))), too_many("tags", 65, MAX_TAGS)),
        (addressed(r#""meta":{"":"x"}"#), BoundsError::MetaKey),
        (addressed(r#""meta":{"a=b":"x"}"#), BoundsError::MetaKey),
        (addressed(r#""meta":{"é":"x"}"#), BoundsError::MetaKey),
        (addressed(&format!(r#""meta":{{"k":"{}"}}"#, "a".repeat(254))), BoundsError::MetaLength(256)),
        (
            addressed(&format!(r#""meta":{{{}}}"#, list(65, &|n| format!(r#""k{n}":"""#)))),
            too_many("entries of `meta`", 65, MAX_META),
        ),
        (addressed(r#""ttl":2147483648"#), BoundsError::Ttl(MAX_TTL + 1)),
    ];
    for (value, expected) in cases {
        assert_eq!(decode("i/web/web-1", &value), Err(RecordError::Bounds(expected)), "{value}");
    }
}

#[test]
fn invalid_values_are_refused() {
    let long = format!(r#"{{"addr":["10.0.0.7"]}}{}"#, " ".repeat(MAX_VALUE));
    let variant = format!(r#"{{"addr":["10.0.0.7"],"proto":"{}\n"}}"#, "s".repeat(500));
    let version = |text: &str| format!(r#"{{"addr":["10.0.0.7"],"dc":"dc1","version":"{text}"}}"#);
    let long_version = version(&"1".repeat(65));
    let entries: Vec<String> = (0..5).map(|key| format!(r#""k{key}":"{}""#, "x".repeat(252))).collect();
    let much_meta = format!(r#"{{"addr":["10.0.0.7"],"dc":"dc1","version":"1","meta":{{{}}}}}"#, entries.join(","));
    let (no_version, control) = (version(""), version("1\\u0007"));
    let cases: &[(&str, &str, &str)] = &[
        ("i/web/a", &long, "value of 8213 octets exceeds the limit of 8192"),
        ("i/web/a", "", "EOF while parsing a value at line 1 column 0"),
        ("i/web/a", "{}", "missing field `addr` at line 1 column 2"),
        ("i/web/a", r#"{"addr":["10.0.0.7"]}x"#, "trailing characters at line 1 column 22"),
        ("i/web/a", r#"{"addr":["10.0.0.7"],"addr":[]}"#, "duplicate field `addr` at line 1 column 27"),
        ("i/web/a", r#"{"addr":["web.example"]}"#, "invalid IP address syntax at line 1 column 22"),
        (
            "i/web/a",
            r#"{"addr":["10.0.0.7"],"port":65536}"#,
            "invalid value: integer `65536`, expected u16 at line 1 column 33",
        ),
        (
            "i/web/a",
            r#"{"addr":["10.0.0.7"],"ports":{"a_b":1}}"#,
            "'_' is not allowed in a DNS label: use letters, digits and hyphens at line 1 column 35",
        ),
        ("n/node", r#"{"addr":[],"dc":"dc1","version":"1"}"#, "there is no address"),
        ("n/node", r#"{"addr":["10.0.0.7"],"dc":"","version":"1"}"#, "dc: a DNS label has at least one character"),
        ("n/node", &no_version, "version must be 1 to 64 characters of printable ASCII"),
        ("n/node", &long_version, "version must be 1 to 64 characters of printable ASCII"),
        ("n/node", &control, "version must be 1 to 64 characters of printable ASCII"),
        ("h/web/a", "", "instance state must be `p`, `u WEIGHT`, `w REASON`, `c REASON`, `d` or `x HOLD REASON`"),
        ("h/web/a", "x", "instance state must be `p`, `u WEIGHT`, `w REASON`, `c REASON`, `d` or `x HOLD REASON`"),
        ("h/web/a", "p up", "instance state must be `p`, `u WEIGHT`, `w REASON`, `c REASON`, `d` or `x HOLD REASON`"),
        ("h/web/a", "u -1", "instance state must be `p`, `u WEIGHT`, `w REASON`, `c REASON`, `d` or `x HOLD REASON`"),
        (
            "h/web/a",
            "x tired ",
            "instance state must be `p`, `u WEIGHT`, `w REASON`, `c REASON`, `d` or `x HOLD REASON`",
        ),
        (
            "r/web/a",
            r#"{"since":1,"checks":[{"id":"","is":"p","since":1}]}"#,
            "health report must have at most 32 checks and texts of at most 266 octets",
        ),
        (
            "n/node",
            r#"{"addr":["10.0.0.7"],"dc":"dc1","version":"1","meta":{"":"x"}}"#,
            "a key of `meta` is printable ASCII without `=`",
        ),
        ("n/node", &much_meta, "a node's `meta` has at most 1024 octets, this one has 1275"),
        ("e/0", r#"{"id":"7","name":"x","time":1}"#, "id: not a UUID"),
        (
            "e/0",
            r#"{"id":"00000000-0000-0000-0000-000000000007","name":"x","data":"!","time":1}"#,
            "data: invalid length at 0",
        ),
        (
            "e/15",
            r#"{"id":"00000000-0000-0000-0000-000000000007","name":"","time":1}"#,
            "an event's name has 1 to 128 octets and no control characters",
        ),
        (
            "h/web/a",
            "critical",
            "instance state must be `p`, `u WEIGHT`, `w REASON`, `c REASON`, `d` or `x HOLD REASON`",
        ),
        ("n/serial", "4294967296", "serial must be a number from 0 to 4294967295"),
        ("n/zone-serial", "-1", "serial must be a number from 0 to 4294967295"),
        ("n/serial", "", "serial must be a number from 0 to 4294967295"),
        ("n/left", "0", "the value of `n/left` and `n/restart` must be `1`"),
        ("n/restart", "", "the value of `n/left` and `n/restart` must be `1`"),
    ];
    for (key, value, expected) in cases {
        assert_eq!(decode(key, value).unwrap_err().to_string(), *expected, "{key} {value}");
    }
    let Err(RecordError::Json(decoded)) = decode("i/web/a", &variant) else { panic!("{variant}") };
    assert!(decoded.len() <= 120 && !decoded.contains('\n'), "peer-controlled text stays on one line: {decoded:?}");
}

#[test]
fn longest_id_of_a_check_is_kept() {
    let id = format!("service:{}:32", "a".repeat(255));
    let check = CheckReport { id: id.into(), ..report().checks[0].clone() };
    let record = Record::Report(key(), Arc::new(HealthReport { checks: vec![check], ..report() }));
    let (key, value) = record.encode();
    assert_eq!(decode(&key, &value), Ok(Some(record)));
}

#[test]
fn decoded_reasons_are_bounded() {
    let decoded = decode("h/web/web-1", &format!("c {}\n", "é".repeat(200)));
    let Ok(Some(Record::State(_, InstanceState::Critical(reason)))) = decoded else { panic!("{decoded:?}") };
    assert_eq!(&*reason, "é".repeat(60));
}

prop_compose! {
    fn instance()(
        addresses in prop::collection::hash_set(any::<IpAddr>(), 1..=MAX_ADDRESSES),
        port in prop::option::of(1u16..),
        ports in prop::collection::hash_map("[a-z0-9]([a-z0-9-]{0,60}[a-z0-9])?", 1u16.., 0..4),
        protocol in prop::sample::select(vec![Protocol::Tcp, Protocol::Udp]),
        tags in prop::collection::hash_set("\\PC{1,40}", 0..6),
        meta in prop::collection::btree_map("[ -<>-~]{1,20}", any::<String>(), 0..6),
        priority: u16,
        weight in prop_oneof![Just(10), any::<u16>()],
        ttl in prop::option::of(0..=MAX_TTL),
        nearest in prop::option::of(prop::sample::select(Nearest::WORDS.map(|(_, nearest)| nearest).to_vec())),
        min_healthy in prop::option::of(prop::sample::select(vec!["1", "10000", "1%", "100%"])),
        registered_as in prop::option::of("\\PC{1,60}"),
        webs in prop::option::of("[Ww][Ee][Bb]"),
        on in prop::option::of("\\PC{1,40}"),
        tag_override: bool,
        tagged in prop::collection::btree_map("[a-z_]{1,20}", ("\\PC{1,40}", any::<u16>()), 0..4),
        host in prop::option::of(("[a-z]{1,8}\\.example", prop::option::of("[ -~]{0,20}"))),
    ) -> Instance {
        let registered_as = registered_as.map(Into::into);
        let followed = |(name, problem): (String, Option<String>)| FollowedHost {
            name: HostName::parse(&name).unwrap(),
            problem: problem.map(Into::into),
        };
        let host = host.map(followed);
        let is_host = |address: &IpAddr| bounds::host_address(address).is_ok();
        let mut addresses: List<IpAddr> = addresses.into_iter().filter(is_host).collect();
        if addresses.is_empty() {
            addresses = plain().addresses;
        }
        let ports = ports.into_iter().map(|(name, port)| (label(&name), port)).collect();
        let tags = tags.into_iter().filter(|tag| bounds::tag(tag).is_ok()).collect();
        let meta = meta.into_iter().filter(|(key, value)| bounds::meta_entry(key, value).is_ok()).collect();
        let external = on.map(|on| Box::new(RegisteredName::parse(&on).unwrap()));
        let service_case = webs.map(Into::into);
        let tagged = tagged.into_iter();
        let instance = Instance { addresses, port, ports, protocol, tags, meta, priority, weight, ttl, ..plain() };
        Instance {
            host: host.map(Arc::new),
            nearest,
            min_healthy: min_healthy.map(|text| text.parse().unwrap()),
            registered_as,
            external,
            tag_override,
            service_case,
            tagged: tagged.map(|(tag, (address, port))| (tag.into(), TaggedAddress { address: address.into(), port })).collect(),
            ..instance
        }
    }
}

/// Texts similar to records.
fn near_records() -> impl Strategy<Value = (String, String)> {
    let pairs = [full(), plain()].map(|instance| Record::Instance(Arc::new(instance)).encode());
    let pairs = [
        pairs.to_vec(),
        vec![
            node("1").encode(),
            Record::External(Arc::new(external())).encode(),
            ("h/web/a".to_owned(), "c é".to_owned()),
        ],
    ]
    .concat();
    (prop::sample::select(pairs), any::<prop::sample::Index>(), any::<char>()).prop_map(
        |((key, mut value), at, with)| {
            let places: Vec<usize> = value.char_indices().map(|(at, _)| at).collect();
            let at = *at.get(&places);
            value.remove(at);
            value.insert(at, with);
            (key, value)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn instances_round_trip(instance in instance()) {
        prop_assert_eq!(instance.check(), Ok(()));
        let record = Record::Instance(Arc::new(instance));
        let (key, value) = record.encode();
        prop_assert_eq!(decode(&key, &value), Ok(Some(record)));
    }

    #[test]
    fn states_round_trip(status in 0..3, reason in any::<String>()) {
        let status = [Status::Passing, Status::Warning, Status::Critical][status as usize];
        let record = Record::State(key(), InstanceState::new(status, &reason));
        let (key, value) = record.encode();
        prop_assert_eq!(decode(&key, &value), Ok(Some(record)));
    }

    #[test]
    fn decode_never_panics(
        key in prop_oneof!["[ihn]/\\PC{0,12}/?\\PC{0,70}", any::<String>(), Just("i/web/a".to_owned()), Just("n/node".to_owned())],
        value in any::<String>(),
        (near_key, near_value) in near_records(),
    ) {
        for (key, value) in [(key, value), (near_key, near_value)] {
            match decode(&key, &value) {
                // A decoded record can be encoded again and is within its bounds.
                Ok(Some(record)) => {
                    let (again, value) = record.encode();
                    prop_assert_eq!(&again, &key);
                    prop_assert_eq!(decode(&again, &value), Ok(Some(record)));
                }
                Ok(None) => prop_assert_eq!(Key::parse(&key), Ok(Key::Unknown)),
                Err(bad) => prop_assert!(!bad.reason().is_empty() && !bad.to_string().contains('\n')),
            }
        }
    }
}

#[test]
fn values_have_room_for_any_outcome_of_a_lookup() {
    let unresolved = FollowedHost::from(HostName::parse("db1.example").unwrap());
    let resolved = FollowedHost {
        problem: Some("\"".repeat(crate::model::announcement::MAX_REASON).into()),
        ..unresolved.clone()
    };
    let longest = |at: u8| -> IpAddr { format!("abcd:abcd:abcd:abcd:abcd:abcd:abcd:ab{at:02x}").parse().unwrap() };
    let addresses: Vec<IpAddr> = (0x10..0x10 + MAX_ADDRESSES as u8).map(longest).collect();
    let instance = |addresses: &[IpAddr], host: &FollowedHost| Instance {
        addresses: addresses.to_vec().into(),
        host: Some(Arc::new(host.clone())),
        ..plain()
    };
    let node = |addresses: &[IpAddr], host: &FollowedHost| ExternalNode {
        host: Some(Arc::new(host.clone())),
        ..ExternalNode::new(name("db1"), addresses.to_vec())
    };
    let len = |record: Record| record.encode().1.len();
    let registered = value_len(&instance(&[], &unresolved));
    assert!(len(Record::Instance(Arc::new(instance(&addresses, &resolved)))) <= registered);
    let registered = external_value_len(&node(&[], &unresolved));
    assert!(len(Record::External(Arc::new(node(&addresses, &resolved)))) <= registered);
}
