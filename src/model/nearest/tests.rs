//! Choice of the tier, and the texts of its configuration.

use proptest::prelude::*;

use super::*;
use crate::model::name::label;

/// Instances by sign: passing, in a slow start, not healthy.
const STATES: [(char, Count); 3] = [
    ('+', Count { declared: 1, healthy: 1, warming: 0 }),
    ('^', Count { declared: 1, healthy: 1, warming: 1 }),
    ('-', Count { declared: 1, healthy: 0, warming: 0 }),
];

/// Returns the tiers of instances that are written as signs, by distance: `++- + -` has three in the zone, one more in the
/// datacenter and one elsewhere; `.` is no instance.
fn tiers(text: &str) -> Tiers {
    let mut tiers = Tiers::default();
    for (tier, signs) in Tier::ALL.into_iter().zip(text.split(' ')) {
        for sign in signs.chars().filter(|sign| *sign != '.') {
            tiers.add(tier, STATES.iter().find(|(known, _)| *known == sign).unwrap().1);
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
fn service_has_failed_over_if_a_nearer_tier_declares_enough_instances() {
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
        // A tier that declares fewer instances than it needs is never answered, whatever their state.
        ("zone 2", "+ + +", false),
        ("zone 2", "+ . +", false),
        ("zone 2", "- . +", false),
        // The datacenter declares enough.
        ("zone 2", "- + +", true),
        ("zone 2", "+ - +", true),
        ("zone 2", "+- + +", true),
        ("zone 9", "++ + +", false),
        ("zone 50%", "- . +", true),
        ("zone 1", "^ . +", true),
        ("datacenter 3", "+ + +", false),
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
            tiers.add(Tier::ALL[*tier], STATES[*state].1);
        }
        let answered = tiers.answered(policy(&format!("{nearest} {min_healthy}")));
        let healthy = tiers.count(Tier::All).healthy;
        prop_assert_eq!(answered.map_or(0, |tier| tiers.count(tier).healthy) > 0, healthy > 0);
    }
}
