//! Choice of the tier, and the texts of its configuration.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::{
    announcement::Announcement,
    catalog::Freshness,
    name::label,
    registered_name::name,
    service::{Instance, InstanceKey},
};

const STATES: &[(char, fn() -> InstanceState)] = &[
    ('+', || InstanceState::Passing),
    ('~', || InstanceState::Warning("slow".into())),
    ('^', || InstanceState::Warming(3)),
    ('-', || InstanceState::Critical("refused".into())),
    ('d', || InstanceState::Disabled),
];

fn entry(state: InstanceState, freshness: Freshness) -> CatalogEntry {
    let key = InstanceKey { service: name("web"), id: label("web-1") };
    let instance = Arc::new(Instance::new(key, vec!["10.0.0.1".parse().unwrap()]));
    CatalogEntry { node: label("a"), announcement: Arc::new(Announcement::new(instance, state)), freshness }
}

/// Returns the tiers of instances that are written as signs, by distance: `++- + -` has three in the zone, one more in the
/// datacenter and one elsewhere; `=` is an instance of an unreachable node, `g` one of a node that is gone, `.` no instance.
fn tiers(text: &str) -> Tiers {
    let mut tiers = Tiers::default();
    for (tier, signs) in Tier::ALL.into_iter().zip(text.split(' ')) {
        for sign in signs.chars().filter(|sign| *sign != '.') {
            let state = STATES.iter().find(|(known, _)| *known == sign).map(|(_, state)| state());
            let entry = match (sign, state) {
                ('=', _) => entry(InstanceState::Passing, Freshness::LastKnown),
                ('g', _) => entry(InstanceState::Passing, Freshness::Gone),
                (_, Some(state)) => entry(state, Freshness::Live),
                _ => panic!("{sign}"),
            };
            tiers.add(tier, &entry);
        }
    }
    tiers
}

fn policy(text: &str) -> Policy {
    let (nearest, min_healthy) = text.split_once(' ').unwrap();
    Policy { nearest: nearest.parse().unwrap(), min_healthy: min_healthy.parse().unwrap() }
}

#[test]
fn nearest_tier_with_enough_healthy_instances_is_answered() {
    use Tier::{All, Datacenter, Zone};
    let cases = [
        // One is enough.
        ("zone 1", "+ + +", Some(Zone)),
        ("zone 1", "- + +", Some(Datacenter)),
        ("zone 1", "- - +", Some(All)),
        ("zone 1", "- - -", None),
        ("zone 1", ". . .", None),
        ("zone 1", ". + +", Some(Datacenter)),
        ("zone 1", ". . +", Some(All)),
        ("zone 1", "+- . .", Some(Zone)),
        // A number. The datacenter includes the zone.
        ("zone 2", "+- + +", Some(Datacenter)),
        ("zone 2", "++ - -", Some(Zone)),
        ("zone 2", "+ - +", Some(All)),
        ("zone 3", "++ + +", Some(Datacenter)),
        // The last tier needs one.
        ("zone 9", "++ + +", Some(All)),
        ("zone 9", "+ . .", Some(All)),
        // A share of the declared instances, rounded up.
        ("zone 50%", "+- . +", Some(Zone)),
        ("zone 50%", "+-- + +", Some(Datacenter)),
        ("zone 50%", "++- + +", Some(Zone)),
        ("zone 50%", "+-- -- +", Some(All)),
        ("zone 34%", "+-- + +", Some(Datacenter)),
        ("zone 33%", "+-- + +", Some(Zone)),
        ("zone 100%", "++++ - +", Some(Zone)),
        ("zone 100%", "+++- + +", Some(All)),
        ("zone 1%", "- . +", Some(All)),
        ("zone 1%", "+--- . +", Some(Zone)),
        // Only the datacenter.
        ("datacenter 1", "+ . +", Some(Datacenter)),
        ("datacenter 1", "- + +", Some(Datacenter)),
        ("datacenter 2", "+ - +", Some(All)),
        ("datacenter 50%", "+- -+ +", Some(Datacenter)),
        ("none 1", "+ + +", Some(All)),
        ("none 50%", "- - -", None),
        // Warnings and last known instances count as healthy, disabled ones and those of nodes that are gone as declared.
        ("zone 2", "~= . +", Some(Zone)),
        ("zone 50%", "+dd . +", Some(All)),
        ("zone 50%", "+gg . +", Some(All)),
        // An instance in a slow start does not count, and is answered with its tier.
        ("zone 1", "^ + +", Some(Datacenter)),
        ("zone 1", "+^ + +", Some(Zone)),
        ("zone 2", "+^ + +", Some(Datacenter)),
        ("zone 1", "^ . .", Some(All)),
        ("zone 50%", "+^^ . +", Some(All)),
    ];
    for (stated, instances, expected) in cases {
        assert_eq!(tiers(instances).answered(policy(stated)), expected, "{stated}: {instances}");
    }
}

#[test]
fn service_has_failed_over_if_a_nearer_tier_declares_instances() {
    let cases = [
        ("zone 1", "+ + +", false),
        ("zone 1", "- + +", true),
        ("zone 1", ". + +", false),
        ("zone 1", ". - +", true),
        ("zone 1", ". . +", false),
        ("zone 1", "- - -", false),
        ("datacenter 1", "- + +", false),
        ("datacenter 1", "- - +", true),
        ("none 1", "- - +", false),
    ];
    for (stated, instances, expected) in cases {
        assert_eq!(tiers(instances).has_failed_over(policy(stated)), expected, "{stated}: {instances}");
    }
}

#[test]
fn zone_is_part_of_its_datacenter() {
    let (dc1, dc2, a, b) = (label("dc1"), label("dc2"), label("a"), label("b"));
    let place = |datacenter, zone| Place { datacenter, zone };
    let cases = [
        (place(&dc1, Some(&a)), place(&dc1, Some(&a)), Tier::Zone),
        (place(&dc1, Some(&a)), place(&dc1, Some(&b)), Tier::Datacenter),
        (place(&dc1, Some(&a)), place(&dc1, None), Tier::Datacenter),
        (place(&dc1, None), place(&dc1, None), Tier::Datacenter),
        (place(&dc1, Some(&a)), place(&dc2, Some(&a)), Tier::All),
        (place(&dc1, None), place(&dc2, None), Tier::All),
    ];
    for (here, there, expected) in cases {
        assert_eq!(Tier::of(here, there), expected, "{here:?} {there:?}");
    }
}

#[test]
fn min_healthy_is_a_number_or_a_share() {
    for text in ["1", "10000", "1%", "50%", "100%"] {
        assert_eq!(text.parse::<MinHealthy>().map(|value| value.to_string()).as_deref(), Ok(text));
    }
    for text in ["", "0", "10001", "65536", "-1", "+1", "0%", "101%", "256%", "50 %", "%", "5%%", "0.5", "half", "٣"] {
        let error = text.parse::<MinHealthy>().unwrap_err().to_string();
        assert_eq!(error, format!("expected a number from 1 to 10000 or a share from 1% to 100%, found `{text}`"));
    }
    assert!("Zone".parse::<Nearest>().is_err());
}

#[test]
fn first_instance_by_id_that_states_a_value_counts() {
    let instance = |id: &str, stated: &str| {
        let key = InstanceKey { service: name("web"), id: label(id) };
        let (nearest, min_healthy) = stated.split_once(' ').unwrap();
        Instance {
            nearest: nearest.parse().ok(),
            min_healthy: min_healthy.parse().ok(),
            ..Instance::new(key, vec!["10.0.0.1".parse().unwrap()])
        }
    };
    let cases: &[(&[&str], &str, [Option<&str>; 3])] = &[
        (&["- -"], "datacenter 2", [None, None, None]),
        (&["- -", "zone -"], "zone 2", [Some("1"), None, None]),
        (&["- 50%", "zone -"], "zone 50%", [Some("1"), Some("0"), None]),
        (&["zone 1", "zone 1"], "zone 1", [Some("0"), Some("0"), None]),
        (&["zone 1", "- -", "none 1"], "zone 1", [Some("0"), Some("0"), Some("2")]),
        (&["zone 1", "zone 3", "none 1"], "zone 1", [Some("0"), Some("0"), Some("1")]),
        (&["none -", "zone 1"], "none 1", [Some("0"), Some("1"), Some("1")]),
    ];
    for (stated, expected, by) in cases {
        let instances: Vec<Instance> = (0..).zip(*stated).map(|(at, text)| instance(&at.to_string(), text)).collect();
        let found = StatedPolicy::of(instances.iter(), policy("datacenter 2"));
        let id = |key: Option<&'_ InstanceKey>| key.map(|key| key.id.to_string());
        assert_eq!(found.policy, policy(expected), "{stated:?}");
        assert_eq!(
            [id(found.nearest_by), id(found.min_healthy_by), id(found.other)],
            by.map(|id| id.map(str::to_owned))
        );
    }
}

proptest! {
    /// A share never needs more instances than are declared, and always one at least.
    #[test]
    fn share_needs_one_to_all(percent in 1_u8..=100, declared in 0_usize..5000) {
        let required = MinHealthy::Share(Percent(NonZero::new(percent).unwrap())).required(declared);
        prop_assert!(required >= 1 && required <= declared.max(1));
        prop_assert!(required * 100 >= declared * usize::from(percent));
    }

    /// The answered tier has a healthy instance whenever a name has one.
    #[test]
    fn answered_tier_is_never_empty(
        instances in prop::collection::vec((0_usize..3, 0_usize..STATES.len()), 0..12),
        nearest in prop::sample::select(vec!["none", "zone", "datacenter"]),
        min_healthy in prop::sample::select(vec!["1", "2", "5", "1%", "34%", "50%", "100%"]),
    ) {
        let mut tiers = Tiers::default();
        for (tier, state) in &instances {
            tiers.add(Tier::ALL[*tier], &entry(STATES[*state].1(), Freshness::Live));
        }
        let answered = tiers.answered(policy(&format!("{nearest} {min_healthy}")));
        let healthy = tiers.count(Tier::All).healthy;
        prop_assert_eq!(answered.map_or(0, |tier| tiers.count(tier).healthy) > 0, healthy > 0);
    }
}
