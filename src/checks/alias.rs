//! Status of alias checks: the best status among the local instances that an alias names.
//!
//! A service has the status of its best instance, an instance and the node that of their worst check. The named service may
//! itself have alias checks. Everything starts as critical and improves only because of other checks, so that services of an
//! alias cycle stay critical. The evaluation is pure and not recursive; each group of instances improves at most twice.

use std::{
    collections::{HashMap, HashSet},
    fmt,
};

use crate::model::{health::Status, registered_name::RegisteredName, service::AliasTarget};

/// Maximum number of services that are followed to find the reason of an alias; a reason has no room for more.
const MAX_TRAIL: usize = 8;

/// Instance or node, reduced to what alias checks depend on.
pub(super) struct Member<'a> {
    /// Name of the service and id in the HTTP API; `None`: the node.
    pub(super) instance: Option<(&'a RegisteredName, &'a str)>,
    /// Disabled instances count for no alias.
    pub(super) enabled: bool,
    /// Worst status of the checks other than aliases, with its reason.
    pub(super) own: (Status, &'a str),
    /// Targets of the alias checks.
    pub(super) aliases: Vec<&'a AliasTarget>,
}

/// Instances that an alias can name together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Group<'a> {
    Service(&'a RegisteredName),
    Instance(&'a str),
    Node,
}

impl fmt::Display for Group<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(service) => write!(f, "{service}"),
            Self::Instance(id) => f.write_str(id),
            Self::Node => f.write_str("node"),
        }
    }
}

/// Returns the status and reason of every target of an alias.
pub(super) fn evaluate<'a>(members: &[Member<'a>]) -> HashMap<&'a AliasTarget, (Status, String)> {
    let groups = Groups::new(members);
    let targets = members.iter().flat_map(|member| member.aliases.iter().copied());
    let mut evaluated = HashMap::new();
    for target in targets {
        evaluated.entry(target).or_insert_with(|| {
            let group = groups.named(target);
            let status = groups.status(group);
            let reason = if status == Status::Passing { String::new() } else { groups.reason(group) };
            (status, reason)
        });
    }
    evaluated
}

struct Groups<'a, 'm> {
    /// Services and ids of registered instances, disabled ones included.
    services: HashSet<&'a RegisteredName>,
    ids: HashSet<&'a str>,
    members: HashMap<Group<'a>, Vec<&'m Member<'a>>>,
    status: HashMap<Group<'a>, Status>,
}

impl<'a, 'm> Groups<'a, 'm> {
    fn new(members: &'m [Member<'a>]) -> Self {
        let instances = || members.iter().filter_map(|member| member.instance);
        let mut groups = Self {
            services: instances().map(|(service, _)| service).collect(),
            ids: instances().map(|(_, id)| id).collect(),
            members: HashMap::new(),
            status: HashMap::new(),
        };
        let mut dependents: HashMap<Group<'a>, Vec<Group<'a>>> = HashMap::new();
        for member in members.iter().filter(|member| member.enabled) {
            let own: &[Group<'a>] = match member.instance {
                Some((service, id)) => &[Group::Service(service), Group::Instance(id)],
                None => &[Group::Node],
            };
            for group in own {
                groups.members.entry(*group).or_default().push(member);
            }
            for target in &member.aliases {
                dependents.entry(groups.named(target)).or_default().extend(own);
            }
        }
        let mut pending: Vec<Group<'a>> = groups.members.keys().copied().collect();
        while let Some(group) = pending.pop() {
            let best = groups.members[&group].iter().map(|member| groups.instance(member)).min();
            let best = best.unwrap_or(Status::Critical);
            if best < groups.status(group) {
                groups.status.insert(group, best);
                pending.extend(dependents.get(&group).into_iter().flatten());
            }
        }
        groups
    }

    /// Returns the group that a target names. An id that no instance has may be the name of a service.
    fn named(&self, target: &'a AliasTarget) -> Group<'a> {
        match target {
            AliasTarget::Service(service) => Group::Service(service),
            AliasTarget::Node => Group::Node,
            AliasTarget::Registered(id) => {
                let service = RegisteredName::parse(id).ok().and_then(|name| self.services.get(&name).copied());
                match service.filter(|_| !self.ids.contains(id.as_str())) {
                    Some(service) => Group::Service(service),
                    None => Group::Instance(id),
                }
            }
        }
    }

    fn status(&self, group: Group<'a>) -> Status {
        self.status.get(&group).copied().unwrap_or(Status::Critical)
    }

    fn instance(&self, member: &Member<'a>) -> Status {
        member.aliases.iter().map(|target| self.status(self.named(target))).fold(member.own.0, Status::max)
    }

    /// Returns why `group` is not passing: the reason of its first best instance, followed through other aliases.
    fn reason(&self, group: Group<'a>) -> String {
        let mut trail = vec![group];
        let mut at = group;
        while trail.len() <= MAX_TRAIL {
            let status = self.status(at);
            let best = self.members.get(&at).and_then(|all| all.iter().find(|member| self.instance(member) == status));
            let Some(best) = best else {
                return format!("{at}: no local instance");
            };
            if best.own.0 == status {
                let why = if best.own.1.is_empty() { status.as_str() } else { best.own.1 };
                return format!("{at}: {why}");
            }
            let mut named = best.aliases.iter().map(|target| self.named(target));
            let Some(next) = named.find(|target| self.status(*target) == status) else {
                break;
            };
            if let Some(cycle) = trail.iter().position(|seen| *seen == next) {
                let names: Vec<String> = trail[cycle..].iter().chain([&next]).map(Group::to_string).collect();
                return format!("alias cycle: {}", names.join(" -> "));
            }
            trail.push(next);
            at = next;
        }
        format!("{group}: {}", self.status(group).as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Evaluates instances in a short notation. `web=p>db>cache` is an instance of web whose own checks pass, with aliases for
    /// db and cache; `-` is disabled. `web/1` is an instance with an id, `>#1` an alias of an id, and `node` the node.
    fn evaluated(instances: &str) -> String {
        let target = |alias: &str| match alias.strip_prefix('#') {
            Some(id) => AliasTarget::Registered(id.into()),
            None if alias == "node" => AliasTarget::Node,
            None => AliasTarget::Service(RegisteredName::parse(alias).unwrap()),
        };
        let instances: Vec<(RegisteredName, &str, char, Vec<AliasTarget>)> = instances
            .split_whitespace()
            .map(|text| {
                let (name, rest) = text.split_once('=').unwrap();
                let (service, id) = name.split_once('/').unwrap_or((name, name));
                let (own, aliases) = rest.split_at(1);
                let aliases = aliases.split_terminator('>').skip(1).map(target);
                (RegisteredName::parse(service).unwrap(), id, own.chars().next().unwrap(), aliases.collect())
            })
            .collect();
        let members: Vec<Member<'_>> = instances
            .iter()
            .map(|(service, id, own, aliases)| Member {
                instance: (service.as_str() != "node").then_some((service, *id)),
                enabled: *own != '-',
                own: match own {
                    'c' => (Status::Critical, "refused"),
                    'w' => (Status::Warning, "slow"),
                    // A report without a text.
                    's' => (Status::Critical, ""),
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
    fn alias_names_an_instance_by_its_id_or_the_node() {
        let cases = [
            ("web=p>#db-1 db/db-1=c db/db-2=p", "db-1 critical [db-1: refused]"),
            ("web=p>#db-2 db/db-1=c db/db-2=p", "db-2 passing []"),
            ("web=p>#db db/db-1=c db/db-2=p", "db passing []"),
            ("web=p>#db db/db=c db/db-2=p", "db critical [db: refused]"),
            ("web=p>#gone", "gone critical [gone: no local instance]"),
            ("web=p>node node=s", "node critical [node: critical]"),
            ("web=p>node node=w", "node warning [node: slow]"),
            ("web=p>node node=p>db db=c", "db critical [db: refused], node critical [db: refused]"),
            ("web/1=p>#1", "1 critical [alias cycle: 1 -> 1]"),
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
