//! Policy of a service by which near instances are preferred, as its instances state it.

use super::{
    nearest::Policy,
    service::{Instance, InstanceKey},
};

/// Policy of a service, with the instances that state it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatedPolicy<'a> {
    /// The policy.
    pub policy: Policy,
    /// Instance that states `nearest`; `None`: the default of the node applies.
    pub nearest_by: Option<&'a InstanceKey>,
    /// Instance that states `min_healthy`; `None`: the default of the node applies.
    pub min_healthy_by: Option<&'a InstanceKey>,
    /// First instance that states another value, which does not count.
    pub other: Option<&'a InstanceKey>,
}

impl<'a> StatedPolicy<'a> {
    /// Returns the policy of a service from its instances, sorted by id: the first one that states a value counts.
    pub fn of(instances: impl Iterator<Item = &'a Instance>, default: Policy) -> Self {
        let mut stated = Self { policy: default, nearest_by: None, min_healthy_by: None, other: None };
        for instance in instances {
            let is_other = |known: bool, differs: bool| (known && differs).then_some(&instance.key);
            if let Some(nearest) = instance.nearest {
                let other = is_other(stated.nearest_by.is_some(), nearest != stated.policy.nearest);
                stated.other = stated.other.or(other);
                if stated.nearest_by.is_none() {
                    (stated.policy.nearest, stated.nearest_by) = (nearest, Some(&instance.key));
                }
            }
            if let Some(min_healthy) = instance.min_healthy {
                let other = is_other(stated.min_healthy_by.is_some(), min_healthy != stated.policy.min_healthy);
                stated.other = stated.other.or(other);
                if stated.min_healthy_by.is_none() {
                    (stated.policy.min_healthy, stated.min_healthy_by) = (min_healthy, Some(&instance.key));
                }
            }
        }
        stated
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{name::label, registered_name::name};

    fn policy(text: &str) -> Policy {
        let (nearest, min_healthy) = text.split_once(' ').unwrap();
        Policy { nearest: nearest.parse().unwrap(), min_healthy: min_healthy.parse().unwrap() }
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
            let instances: Vec<Instance> =
                (0..).zip(*stated).map(|(at, text)| instance(&at.to_string(), text)).collect();
            let found = StatedPolicy::of(instances.iter(), policy("datacenter 2"));
            let id = |key: Option<&'_ InstanceKey>| key.map(|key| key.id.to_string());
            assert_eq!(found.policy, policy(expected), "{stated:?}");
            assert_eq!(
                [id(found.nearest_by), id(found.min_healthy_by), id(found.other)],
                by.map(|id| id.map(str::to_owned))
            );
        }
    }
}
