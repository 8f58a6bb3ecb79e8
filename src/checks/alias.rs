//! What an alias check says: the best standing among the local instances of the service that it names.
//!
//! A service stands as its best instance does, an instance as the worst of its checks. Aliases may name services that
//! have aliases themselves. Every service begins as critical and rises only on the ground of probes: services that
//! only hold each other up, in a cycle, stay critical. Pure, without recursion, and each service rises at most twice.

use std::collections::HashMap;

use crate::model::{health::Status, name::Label};

/// As many services are followed to find out why an alias is not well; a reason has no room for more.
const MAX_TRAIL: usize = 8;

/// An instance, as far as aliases go.
pub(super) struct Member<'a> {
    pub(super) service: &'a Label,
    /// `false`: it neither answers nor holds an alias up.
    pub(super) enabled: bool,
    /// What its checks other than aliases add up to.
    pub(super) own: (Status, &'a str),
    /// The services that its alias checks name.
    pub(super) aliases: Vec<&'a Label>,
}

/// The standing of every service that an alias names.
pub(super) fn settle<'a>(members: &[Member<'a>]) -> HashMap<&'a Label, (Status, String)> {
    let services = Services::new(members);
    let targets = members.iter().flat_map(|member| member.aliases.iter().copied());
    let mut settled = HashMap::new();
    for target in targets {
        settled.entry(target).or_insert_with(|| {
            let status = services.status(target);
            let reason = if status == Status::Passing { String::new() } else { services.reason(target) };
            (status, reason)
        });
    }
    settled
}

struct Services<'a, 'm> {
    members: HashMap<&'a Label, Vec<&'m Member<'a>>>,
    status: HashMap<&'a Label, Status>,
}

impl<'a, 'm> Services<'a, 'm> {
    fn new(members: &'m [Member<'a>]) -> Self {
        let mut services = Self { members: HashMap::new(), status: HashMap::new() };
        let mut dependents: HashMap<&Label, Vec<&'a Label>> = HashMap::new();
        for member in members.iter().filter(|member| member.enabled) {
            services.members.entry(member.service).or_default().push(member);
            for target in &member.aliases {
                dependents.entry(target).or_default().push(member.service);
            }
        }
        let mut open: Vec<&'a Label> = services.members.keys().copied().collect();
        while let Some(service) = open.pop() {
            let best = services.members[service].iter().map(|member| services.instance(member)).min();
            let best = best.unwrap_or(Status::Critical);
            if best < services.status(service) {
                services.status.insert(service, best);
                open.extend(dependents.get(service).into_iter().flatten());
            }
        }
        services
    }

    fn status(&self, service: &Label) -> Status {
        self.status.get(service).copied().unwrap_or(Status::Critical)
    }

    fn instance(&self, member: &Member<'_>) -> Status {
        member.aliases.iter().map(|target| self.status(target)).fold(member.own.0, Status::max)
    }

    /// Why `service` is not passing: the first of its best instances tells, through other aliases if need be.
    fn reason(&self, service: &Label) -> String {
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

    /// `web=p>db>cache`: an instance of web whose own checks pass, with aliases for db and cache; `-` is disabled.
    fn settled(instances: &str) -> String {
        let instances: Vec<(Label, char, Vec<Label>)> = instances
            .split_whitespace()
            .map(|text| {
                let (service, rest) = text.split_once('=').unwrap();
                let (own, aliases) = rest.split_at(1);
                let aliases = aliases.split_terminator('>').skip(1).map(|alias| Label::parse(alias).unwrap());
                (Label::parse(service).unwrap(), own.chars().next().unwrap(), aliases.collect())
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
        let mut lines: Vec<String> = settle(&members)
            .into_iter()
            .map(|(service, (status, reason))| format!("{service} {} [{reason}]", status.as_str()))
            .collect();
        lines.sort();
        lines.join(", ")
    }

    #[test]
    fn an_alias_is_as_well_as_the_best_local_instance() {
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
            // what web itself is does not matter to its alias
            ("web=c>db db=p", "db passing []"),
        ];
        for (instances, expected) in cases {
            assert_eq!(settled(instances), expected, "{instances}");
        }
    }

    #[test]
    fn a_cycle_is_critical_unless_a_probe_holds_it_up() {
        let cases = [
            ("a=p>a", "a critical [alias cycle: a -> a]"),
            ("a=p>b b=p>a", "a critical [alias cycle: a -> b -> a], b critical [alias cycle: b -> a -> b]"),
            (
                "c=p>a a=p>b b=p>a d=p>c",
                "a critical [alias cycle: a -> b -> a], b critical [alias cycle: b -> a -> b], c critical [alias cycle: a -> b -> a]",
            ),
            // an instance of b needs no alias: the cycle stands on it
            ("a=p>b b=p>a b=p", "a passing [], b passing []"),
            ("a=p>b b=p>a b=c", "a critical [alias cycle: a -> b -> a], b critical [alias cycle: b -> a -> b]"),
            ("a=c>b b=p>a", "a critical [a: refused], b critical [a: refused]"),
        ];
        for (instances, expected) in cases {
            assert_eq!(settled(instances), expected, "{instances}");
        }
    }

    #[test]
    fn a_chain_of_any_length_settles() {
        let mut chain: Vec<String> = (0..10_000).map(|n| format!("s{n}=p>s{}", n + 1)).collect();
        chain.push("s10000=c".into());
        let text = settled(&chain.join(" "));
        assert!(text.contains("s9995 critical [s10000: refused]"));
        assert!(text.contains("s5 critical [s5: critical]"));
        chain.pop();
        chain.push("s10000=p".into());
        assert!(!settled(&chain.join(" ")).contains("critical"));
    }
}
