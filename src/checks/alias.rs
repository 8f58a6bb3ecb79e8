//! Status of alias checks: the best status among the local instances of the service that an alias names.
//!
//! A service has the status of its best instance, an instance that of its worst check. The named service may itself have
//! alias checks. Every service starts as critical and improves only because of other checks, so that services of an alias
//! cycle stay critical. The evaluation is pure and not recursive; each service improves at most twice.

use std::collections::HashMap;

use crate::model::{health::Status, registered_name::RegisteredName};

/// Maximum number of services that are followed to find the reason of an alias; a reason has no room for more.
const MAX_TRAIL: usize = 8;

/// Instance, reduced to what alias checks depend on.
pub(super) struct Member<'a> {
    pub(super) service: &'a RegisteredName,
    /// Disabled instances count for no alias.
    pub(super) enabled: bool,
    /// Worst status of the checks other than aliases, with its reason.
    pub(super) own: (Status, &'a str),
    /// Services that the alias checks name.
    pub(super) aliases: Vec<&'a RegisteredName>,
}

/// Returns the status and reason of every service that an alias names.
pub(super) fn evaluate<'a>(members: &[Member<'a>]) -> HashMap<&'a RegisteredName, (Status, String)> {
    let services = Services::new(members);
    let targets = members.iter().flat_map(|member| member.aliases.iter().copied());
    let mut evaluated = HashMap::new();
    for target in targets {
        evaluated.entry(target).or_insert_with(|| {
            let status = services.status(target);
            let reason = if status == Status::Passing { String::new() } else { services.reason(target) };
            (status, reason)
        });
    }
    evaluated
}

struct Services<'a, 'm> {
    members: HashMap<&'a RegisteredName, Vec<&'m Member<'a>>>,
    status: HashMap<&'a RegisteredName, Status>,
}

impl<'a, 'm> Services<'a, 'm> {
    fn new(members: &'m [Member<'a>]) -> Self {
        let mut services = Self { members: HashMap::new(), status: HashMap::new() };
        let mut dependents: HashMap<&RegisteredName, Vec<&'a RegisteredName>> = HashMap::new();
        for member in members.iter().filter(|member| member.enabled) {
            services.members.entry(member.service).or_default().push(member);
            for target in &member.aliases {
                dependents.entry(target).or_default().push(member.service);
            }
        }
        let mut pending: Vec<&'a RegisteredName> = services.members.keys().copied().collect();
        while let Some(service) = pending.pop() {
            let best = services.members[service].iter().map(|member| services.instance(member)).min();
            let best = best.unwrap_or(Status::Critical);
            if best < services.status(service) {
                services.status.insert(service, best);
                pending.extend(dependents.get(service).into_iter().flatten());
            }
        }
        services
    }

    fn status(&self, service: &RegisteredName) -> Status {
        self.status.get(service).copied().unwrap_or(Status::Critical)
    }

    fn instance(&self, member: &Member<'_>) -> Status {
        member.aliases.iter().map(|target| self.status(target)).fold(member.own.0, Status::max)
    }

    /// Returns why `service` is not passing: the reason of its first best instance, followed through other aliases.
    fn reason(&self, service: &RegisteredName) -> String {
        let mut trail = vec![service];
        let mut at = service;
        while trail.len() <= MAX_TRAIL {
            let status = self.status(at);
            let best = self.members.get(at).and_then(|all| all.iter().find(|member| self.instance(member) == status));
            let Some(best) = best else {
                return format!("{at}: no local instance");
            };
            if best.own.0 == status {
                return format!("{at}: {}", best.own.1);
            }
            let Some(next) = best.aliases.iter().copied().find(|target| self.status(target) == status) else {
                break;
            };
            if let Some(cycle) = trail.iter().position(|seen| *seen == next) {
                let names: Vec<&str> = trail[cycle..].iter().chain([&next]).map(|label| label.as_str()).collect();
                return format!("alias cycle: {}", names.join(" -> "));
            }
            trail.push(next);
            at = next;
        }
        format!("{service}: {}", self.status(service).as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Evaluates instances in a short notation. `web=p>db>cache` is an instance of web whose own checks pass, with aliases for
    /// db and cache; `-` is disabled.
    fn evaluated(instances: &str) -> String {
        let instances: Vec<(RegisteredName, char, Vec<RegisteredName>)> = instances
            .split_whitespace()
            .map(|text| {
                let (service, rest) = text.split_once('=').unwrap();
                let (own, aliases) = rest.split_at(1);
                let aliases = aliases.split_terminator('>').skip(1).map(|alias| RegisteredName::parse(alias).unwrap());
                (RegisteredName::parse(service).unwrap(), own.chars().next().unwrap(), aliases.collect())
            })
            .collect();
        let members: Vec<Member<'_>> = instances
            .iter()
            .map(|(service, own, aliases)| Member {
                service,
                enabled: *own != '-',
                own: match own {
                    'c' => (Status::Critical, "refused"),
                    'w' => (Status::Warning, "slow"),
                    _ => (Status::Passing, ""),
                },
                aliases: aliases.iter().collect(),
            })
            .collect();
        let mut lines: Vec<String> = evaluate(&members)
            .into_iter()
            .map(|(service, (status, reason))| format!("{service} {} [{reason}]", status.as_str()))
            .collect();
        lines.sort();
        lines.join(", ")
    }

    #[test]
    fn alias_has_the_status_of_the_best_local_instance() {
        let cases = [
            ("web=p>db db=p", "db passing []"),
            ("web=p>db db=w", "db warning [db: slow]"),
            ("web=p>db db=c", "db critical [db: refused]"),
            ("web=p>db db=c db=w db=p", "db passing []"),
            ("web=p>db db=c db=w", "db warning [db: slow]"),
            ("web=p>db", "db critical [db: no local instance]"),
            ("web=p>db db=-", "db critical [db: no local instance]"),
            ("web=p>api api=p>db db=c", "api critical [db: refused], db critical [db: refused]"),
            ("web=p>api api=w>db db=p", "api warning [api: slow], db passing []"),
            (
                "web=p>api api=p>db>queue db=p queue=w",
                "api warning [queue: slow], db passing [], queue warning [queue: slow]",
            ),
            // the status of web does not affect its alias
            ("web=c>db db=p", "db passing []"),
        ];
        for (instances, expected) in cases {
            assert_eq!(evaluated(instances), expected, "{instances}");
        }
    }

    #[test]
    fn alias_cycle_is_critical_unless_an_instance_of_it_passes() {
        let cases = [
            ("a=p>a", "a critical [alias cycle: a -> a]"),
            ("a=p>b b=p>a", "a critical [alias cycle: a -> b -> a], b critical [alias cycle: b -> a -> b]"),
            (
                "c=p>a a=p>b b=p>a d=p>c",
                "a critical [alias cycle: a -> b -> a], b critical [alias cycle: b -> a -> b], c critical [alias cycle: a -> b -> a]",
            ),
            // an instance of b without an alias makes the cycle pass
            ("a=p>b b=p>a b=p", "a passing [], b passing []"),
            ("a=p>b b=p>a b=c", "a critical [alias cycle: a -> b -> a], b critical [alias cycle: b -> a -> b]"),
            ("a=c>b b=p>a", "a critical [a: refused], b critical [a: refused]"),
        ];
        for (instances, expected) in cases {
            assert_eq!(evaluated(instances), expected, "{instances}");
        }
    }

    #[test]
    fn alias_chain_of_any_length_is_evaluated() {
        let mut chain: Vec<String> = (0..10_000).map(|n| format!("s{n}=p>s{}", n + 1)).collect();
        chain.push("s10000=c".into());
        let text = evaluated(&chain.join(" "));
        assert!(text.contains("s9995 critical [s10000: refused]"));
        assert!(text.contains("s5 critical [s5: critical]"));
        chain.pop();
        chain.push("s10000=p".into());
        assert!(!evaluated(&chain.join(" ")).contains("critical"));
    }
}
