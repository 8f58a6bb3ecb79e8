//! Which host names are looked up when, and what follows for definitions and external nodes. Core: times are arguments.

use std::{net::IpAddr, sync::Arc, time::Duration};

use imbl::ordmap::DiffItem;

use super::{
    external,
    host::{Host, Hosts},
};
use crate::{
    model::{
        announcement::bounded,
        followed_host::{HostName, KnownHosts},
        list::List,
        service::{Definition, Definitions, Instance, instance_ref::InstanceRef},
    },
    registry::external::Announced,
};

/// Shortest time between two lookups of a name: a TTL of 0 must not make the agent ask without a pause.
pub const MIN_REFRESH: Duration = Duration::from_secs(5);
/// Longest time between two lookups: a moved host is found within it, whatever its TTL.
pub const MAX_REFRESH: Duration = Duration::from_secs(300);
/// Time after the first failed lookup until the next one; doubled by each further one, up to [`MAX_RETRY`].
const RETRY: Duration = Duration::from_secs(1);
/// Longest time between two failed lookups.
pub const MAX_RETRY: Duration = Duration::from_secs(30);

/// Outcome of a lookup: addresses in order and their TTL, or the reason for a failure.
pub type Outcome = Result<(Vec<IpAddr>, Duration), String>;

/// Definitions and external nodes with the addresses of their host names.
#[derive(Debug, Default)]
pub struct Schedule {
    defined: Definitions,
    followed: Definitions,
    registered: Announced,
    external: Announced,
    hosts: Hosts,
    /// Addresses from before a restart, until a definition takes them.
    former: KnownHosts,
}

/// What a lookup changed, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing that people want to know.
    Nothing,
    /// The addresses are others.
    Addresses(List<IpAddr>),
    /// The lookup failed after one that succeeded, or for another reason.
    Failed(Arc<str>),
    /// The lookup succeeded after one that failed.
    Recovered(List<IpAddr>),
}

impl Schedule {
    /// Returns a schedule that knows addresses from before a restart.
    pub fn new(former: KnownHosts) -> Self {
        Self { former, ..Self::default() }
    }

    /// Returns the definitions with the addresses of their host names.
    pub fn followed(&self) -> &Definitions {
        &self.followed
    }

    /// Returns the external nodes and their instances with the addresses of their host names.
    pub fn external(&self) -> &Announced {
        &self.external
    }

    /// Returns the addresses that are known, for the next start.
    pub fn known(&self) -> KnownHosts {
        let known = self.hosts.iter().filter(|(_, host)| !host.addresses.is_empty());
        known.map(|(name, host)| (name.clone(), host.addresses.clone())).collect()
    }

    /// Applies new definitions at time `now`; the cost is proportional to the change.
    pub fn define(&mut self, definitions: Definitions, now: Duration) {
        let before = std::mem::replace(&mut self.defined, definitions);
        let definitions = self.defined.clone();
        for change in before.diff(&definitions) {
            let (old, new) = match change {
                DiffItem::Add(key, new) => (None, Some((key, new))),
                DiffItem::Update { old: (_, old), new: (key, new) } => (Some(old), Some((key, new))),
                DiffItem::Remove(_, old) => (Some(old), None),
            };
            if let Some(old) = old {
                self.forget(&old.instance);
            }
            match (old, new) {
                (_, Some((key, new))) => self.follow(key, new, now),
                (Some(old), None) => drop(self.followed.remove(&old.instance.key)),
                (None, None) => {}
            }
        }
        self.forget_unused();
    }

    /// Applies new external nodes at time `now`; the cost is proportional to their number.
    pub fn define_external(&mut self, registered: Announced, now: Duration) {
        self.registered = registered;
        for host in self.hosts.values_mut() {
            host.is_external = false;
        }
        for name in external::host_names(&self.registered) {
            self.hosts.entry(name.clone()).or_insert_with(|| Host::new(name, &mut self.former, now)).is_external = true;
        }
        self.forget_unused();
        self.external = external::with_addresses(&self.registered, &self.hosts, &self.external);
    }

    fn forget_unused(&mut self) {
        self.hosts.retain(|_, host| host.is_external || !host.instances.is_empty());
    }

    fn forget(&mut self, instance: &Arc<Instance>) {
        let host = instance.host.as_ref().and_then(|host| self.hosts.get_mut(&host.name));
        if let Some(host) = host {
            host.instances.remove(&InstanceRef::from(instance));
        }
    }

    fn follow(&mut self, key: &InstanceRef, definition: &Arc<Definition>, now: Duration) {
        let Some(followed) = &definition.instance.host else {
            self.followed.insert(key.clone(), definition.clone());
            return;
        };
        let name = &followed.name;
        let host = self.hosts.entry(name.clone()).or_insert_with(|| Host::new(name, &mut self.former, now));
        host.instances.insert(key.clone());
        let definition = with_addresses(definition, host);
        self.followed.insert(InstanceRef::from(&definition.instance), definition);
    }

    /// Returns the time of the next lookup; `None` if none waits.
    pub fn next(&self) -> Option<Duration> {
        self.hosts.values().filter_map(|host| host.due).min()
    }

    /// Takes up to `most` names that are due at time `now`. A name is not due again before its lookup has finished.
    pub fn take_due(&mut self, now: Duration, most: usize) -> Vec<HostName> {
        let is_due = |host: &Host| host.due.is_some_and(|due| due <= now);
        let due = self.hosts.iter_mut().filter(|(_, host)| is_due(host)).take(most);
        due.map(|(name, host)| {
            host.due = None;
            name.clone()
        })
        .collect()
    }

    /// Applies the outcome of a lookup at time `now`.
    pub fn finish(&mut self, name: &HostName, outcome: Outcome, now: Duration) -> Change {
        let Some(host) = self.hosts.get_mut(name) else { return Change::Nothing };
        let (before, problem) = (host.addresses.clone(), host.problem.clone());
        let wait = match outcome {
            Ok((addresses, ttl)) => {
                if *before != *addresses {
                    host.addresses = addresses.into();
                }
                (host.problem, host.failures) = (None, 0);
                ttl.clamp(MIN_REFRESH, MAX_REFRESH)
            }
            Err(reason) => {
                let reason = bounded(&reason);
                if problem.as_deref() != Some(&*reason) {
                    host.problem = Some(reason.into());
                }
                let wait = (RETRY * 2_u32.saturating_pow(host.failures.min(16))).min(MAX_RETRY);
                host.failures += 1;
                wait
            }
        };
        host.due = Some(now + wait);
        let change = match &host.problem {
            Some(reason) if host.problem != problem => Change::Failed(reason.clone()),
            None if problem.is_some() => Change::Recovered(host.addresses.clone()),
            None if before != host.addresses => Change::Addresses(host.addresses.clone()),
            _ => return Change::Nothing,
        };
        for key in &host.instances {
            let Some(definition) = self.defined.get(&**key) else { continue };
            let definition = with_addresses(definition, host);
            self.followed.insert(InstanceRef::from(&definition.instance), definition);
        }
        if host.is_external {
            self.external = external::with_addresses(&self.registered, &self.hosts, &self.external);
        }
        change
    }
}

/// Returns the definition with the addresses of its host.
fn with_addresses(definition: &Arc<Definition>, host: &Host) -> Arc<Definition> {
    let instance = Arc::new(host.resolve(&definition.instance));
    Arc::new(Definition { instance, ..Definition::clone(definition) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        announcement::{Announcement, HoldReason, InstanceState},
        external_node::ExternalNode,
        followed_host::FollowedHost,
        name::label,
        service::{InstanceKey, Pace},
    };

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn host(name: &str) -> HostName {
        HostName::parse(name).unwrap()
    }

    fn addresses(last: &[u8]) -> Vec<IpAddr> {
        last.iter().map(|last| [10, 0, 0, *last].into()).collect()
    }

    /// Definitions by `ID`, or `ID=HOST`.
    fn definitions(entries: &[&str]) -> Definitions {
        let definition = |text: &&str| {
            let (id, host) = text.split_once('=').map_or((*text, None), |(id, host)| (id, Some(host)));
            let key = InstanceKey { service: label("web").into(), id: label(id) };
            let followed =
                host.map(|name| Arc::new(FollowedHost { name: HostName::parse(name).unwrap(), problem: None }));
            let own = if followed.is_some() { Vec::new() } else { addresses(&[1]) };
            let instance = Arc::new(Instance { host: followed, ..Instance::new(key, own) });
            let definition =
                Definition { instance: instance.clone(), enabled: true, checks: Vec::new(), pace: Pace::default() };
            (InstanceRef::from(&instance), Arc::new(definition))
        };
        entries.iter().map(definition).collect()
    }

    /// Addresses and problem by id.
    fn shown(schedule: &Schedule) -> Vec<String> {
        let shown = |(key, definition): (&InstanceRef, &Arc<Definition>)| {
            let instance = &definition.instance;
            let last: Vec<String> = instance.addresses.iter().map(|a| a.to_string().replace("10.0.0.", "")).collect();
            let problem = instance.host.as_ref().and_then(|host| host.problem.clone());
            format!("{} {}{}", key.id, last.join(","), problem.map_or(String::new(), |text| format!(" {text}")))
        };
        schedule.followed().iter().map(shown).collect()
    }

    #[test]
    fn addresses_of_a_host_name_follow_lookups() {
        let mut schedule = Schedule::default();
        schedule.define(definitions(&["a", "b=db.example", "c=db.example", "d=x.example"]), seconds(0));
        assert_eq!(shown(&schedule), ["a 1", "b ", "c ", "d "]);
        assert_eq!(schedule.take_due(seconds(0), 9), [host("db.example"), host("x.example")]);
        assert_eq!((schedule.next(), schedule.take_due(seconds(9), 9)), (None, vec![]), "both lookups run");

        let found = Ok((addresses(&[7, 8]), seconds(60)));
        assert_eq!(
            schedule.finish(&host("db.example"), found, seconds(1)),
            Change::Addresses(addresses(&[7, 8]).into())
        );
        let failed = schedule.finish(&host("x.example"), Err("NXDOMAIN".to_owned()), seconds(1));
        assert_eq!(failed, Change::Failed("NXDOMAIN".into()));
        assert_eq!(shown(&schedule), ["a 1", "b 7,8", "c 7,8", "d  NXDOMAIN"]);

        // A failure keeps the addresses.
        assert_eq!(schedule.next(), Some(seconds(2)));
        assert_eq!(schedule.take_due(seconds(61), 1), [host("db.example")]);
        schedule.finish(&host("db.example"), Err("SERVFAIL".to_owned()), seconds(61));
        assert_eq!(shown(&schedule), ["a 1", "b 7,8 SERVFAIL", "c 7,8 SERVFAIL", "d  NXDOMAIN"]);
        let found = Ok((addresses(&[7, 8]), seconds(60)));
        let recovered = schedule.finish(&host("db.example"), found, seconds(62));
        assert_eq!(recovered, Change::Recovered(addresses(&[7, 8]).into()));
        let known: Vec<_> = schedule.known().into_keys().collect();
        assert_eq!(known, [host("db.example")]);

        // A changed definition keeps the addresses; one without a host name has its own.
        schedule.define(definitions(&["b=db.example", "c", "e=db.example"]), seconds(63));
        assert_eq!(shown(&schedule), ["b 7,8", "c 1", "e 7,8"]);
        assert_eq!(schedule.next(), Some(seconds(122)), "x.example is forgotten");
        assert_eq!(schedule.finish(&host("x.example"), Err(String::new()), seconds(64)), Change::Nothing);
    }

    #[test]
    fn lookups_are_repeated_within_bounds() {
        let mut schedule = Schedule::default();
        schedule.define(definitions(&["b=db.example"]), seconds(0));
        for (ttl, expected) in [(0, MIN_REFRESH), (60, seconds(60)), (86_400, MAX_REFRESH)] {
            schedule.finish(&host("db.example"), Ok((addresses(&[1]), seconds(ttl))), seconds(100));
            assert_eq!(schedule.next(), Some(seconds(100) + expected));
        }
        for expected in [1, 2, 4, 8, 16, 30, 30] {
            schedule.finish(&host("db.example"), Err("timeout".to_owned()), seconds(100));
            assert_eq!(schedule.next(), Some(seconds(100 + expected)));
        }
    }

    #[test]
    fn addresses_from_before_a_restart_are_used_until_a_lookup() {
        let former = KnownHosts::from([(host("db.example"), addresses(&[7]).into())]);
        let mut schedule = Schedule::new(former);
        schedule.define(definitions(&["b=db.example"]), seconds(0));
        assert_eq!(shown(&schedule), ["b 7"]);
        assert_eq!(schedule.next(), Some(seconds(0)));
    }

    /// External nodes by `NAME=HOST`, each with an instance; a `!` before it drains the instance.
    fn external(entries: &[&str]) -> Announced {
        let mut announced = Announced::default();
        for text in entries {
            let (is_drained, text) = text.strip_prefix('!').map_or((false, *text), |text| (true, text));
            let (name, host) = text.split_once('=').unwrap();
            let host = Some(Arc::new(FollowedHost::from(HostName::parse(host).unwrap())));
            let node = ExternalNode { host: host.clone(), ..ExternalNode::new(label(name).into(), vec![]) };
            announced.nodes.insert(node.name.clone(), Arc::new(node));
            let key = InstanceKey { service: label("pg").into(), id: label(name) };
            let state = match is_drained {
                true => InstanceState::withheld(HoldReason::Draining, "disk"),
                false => InstanceState::Passing,
            };
            let instance = Arc::new(Instance { host, ..Instance::new(key, vec![]) });
            let (key, known) = Announcement::new(instance, state).into_entry();
            announced.instances.insert(key, known);
        }
        announced
    }

    /// Addresses of node and instance and the state by name.
    fn shown_external(schedule: &Schedule) -> Vec<String> {
        let last = |addresses: &[IpAddr]| -> Vec<String> {
            addresses.iter().map(|address| address.to_string().replace("10.0.0.", "")).collect()
        };
        let Announced { nodes, instances } = schedule.external();
        let shown = nodes.values().zip(instances.values()).map(|(node, known)| {
            let state = match &known.state {
                InstanceState::Withheld(hold, reason) => format!("{}: {reason}", hold.as_str()),
                state => format!("{state:?}"),
            };
            let (node_at, at) = (last(&node.addresses), last(&known.instance.addresses));
            assert_eq!(node_at, at);
            format!("{} {} {state}", node.name, at.join(","))
        });
        shown.collect()
    }

    #[test]
    fn host_names_of_external_nodes_follow_lookups() {
        let former = KnownHosts::from([(host("old.example"), addresses(&[9]).into())]);
        let mut schedule = Schedule::new(former);
        let nodes = external(&["a=db.example", "!b=db.example", "c=old.example"]);
        schedule.define(definitions(&["x=db.example"]), seconds(0));
        schedule.define_external(nodes.clone(), seconds(0));
        let not_yet = "a  unresolved: db.example: not looked up yet";
        assert_eq!(shown_external(&schedule), [not_yet, "b  draining: disk", "c 9 Passing"]);
        assert_eq!(schedule.take_due(seconds(0), 9), [host("db.example"), host("old.example")]);
        schedule.finish(&host("db.example"), Ok((addresses(&[7, 8]), seconds(60))), seconds(1));
        assert_eq!(shown_external(&schedule), ["a 7,8 Passing", "b 7,8 draining: disk", "c 9 Passing"]);
        assert_eq!(shown(&schedule), ["x 7,8"]);

        // Values that have not changed are shared.
        let before = schedule.external().clone();
        schedule.define_external(nodes, seconds(2));
        let now = schedule.external();
        assert!(before.nodes.values().zip(now.nodes.values()).all(|(one, two)| Arc::ptr_eq(one, two)));
        assert!(before.instances.values().zip(now.instances.values()).all(|(one, two)| Arc::ptr_eq(one, two)));

        // A host name stays known as long as one of both has it.
        schedule.define_external(external(&["c=old.example"]), seconds(3));
        schedule.define(definitions(&[]), seconds(3));
        assert_eq!(schedule.known().into_keys().collect::<Vec<_>>(), [host("old.example")]);
        schedule.define_external(Announced::default(), seconds(4));
        assert_eq!((schedule.known(), schedule.external()), (KnownHosts::new(), &Announced::default()));
    }
}
