//! patroni with PostgreSQL on a store of three voters, by etcd's API and by Consul's: a primary is elected, moved and
//! replaced, the store loses its leader, and two servers are never primary at the same time.
//!
//! PostgreSQL and Debian's patroni must be installed; `tests/real_clients/install` fetches the newest patroni.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

#[path = "patroni/member.rs"]
mod member;
#[path = "patroni/roles.rs"]
mod roles;

use std::{
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use member::{Member, Origin, Programs};
use roles::Roles;
use support::{
    run,
    voters::{VOTERS, Voters},
};

/// Time to live of patroni's lock, as in its configuration, and one round more.
const LOCK_TTL: Duration = Duration::from_secs(20 + 2);

/// Returns the section of patroni's configuration that names the store, for the member beside this voter.
type StoreSection = fn(&Voters, usize) -> String;

/// Members of a PostgreSQL cluster, one beside each voter.
struct Scene {
    programs: Programs,
    voters: Voters,
    members: Vec<Member>,
    roles: Roles,
    begun: Instant,
    _folder: tempfile::TempDir,
}

impl Scene {
    /// Starts the members and waits for a primary with replicas.
    fn start(programs: Programs, scope: &str, section: StoreSection) -> Self {
        let begun = Instant::now();
        let (voters, folder) = (Voters::start(), run::temp_dir());
        let member = |at| Member::start(&programs, folder.path(), scope, at, &section(&voters, at));
        let members: Vec<Member> = (0..VOTERS).map(member).collect();
        let roles = Roles::follow(&programs, &members);
        let scene = Self { programs, voters, members, roles, begun, _folder: folder };
        scene.wait_for_streaming("at first", VOTERS - 1);
        scene.report("bootstrap", begun);
        scene
    }

    /// Waits until so many replicas stream from the primary.
    fn wait_for_streaming(&self, what: &str, replicas: usize) {
        roles::wait_for(what, || {
            // Some member may have lost its node, or not have started yet.
            let list = self.members.iter().map(Member::members).find(|list| !list.is_empty()).unwrap_or_default();
            let (leaders, others): (Vec<_>, Vec<_>) = list.iter().partition(|member| member["role"] == "leader");
            let following = others.iter().filter(|member| member["state"] == self.programs.replica_state);
            let found = (leaders.len(), following.count());
            if found == (1, replicas) { Ok(()) } else { Err(format!("{list:?}")) }
        });
    }

    /// Moves the primary.
    fn switch_over(&self, candidate: usize) {
        let begun = Instant::now();
        let output =
            self.members[candidate].ctl(&self.programs, &["switchover", "--candidate", &name(candidate), "--force"]);
        assert!(output.contains("Successfully switched over to"), "{output}");
        self.roles.wait_for_primary(candidate);
        self.report("switchover with patronictl", begun);
    }

    /// Prints how long a step took; shown with `--nocapture`.
    fn report(&self, what: &str, begun: Instant) {
        println!("{:5.1} s  {what}: {:.1} s", self.begun.elapsed().as_secs_f64(), begun.elapsed().as_secs_f64());
    }
}

fn name(at: usize) -> String {
    format!("pg{at}")
}

fn primary_moves_and_is_never_doubled(test: &str, origin: Origin, section: StoreSection) {
    // PostgreSQL binds its port long after the port was found free: another cluster that starts meanwhile could take it.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(programs) = Programs::find(test, origin) else { return };
    let mut scene = Scene::start(programs, &test.replace('_', "-"), section);

    // The new primary is not beside the store's leader: the loss of its own node would be another scene.
    let (primary, leader) = (scene.roles.primary(), scene.voters.wait_for_leader());
    let candidate = (0..VOTERS).find(|at| ![primary, leader].contains(at)).unwrap();
    scene.switch_over(candidate);
    scene.wait_for_streaming("after the switchover", VOTERS - 1);

    // The primary keeps its lock while the store elects another leader.
    let (before, begun) = (scene.roles.changes(), Instant::now());
    scene.voters.kill(leader);
    thread::sleep(LOCK_TTL);
    assert_eq!(scene.roles.changes(), before, "roles changed after the loss of the store's leader");
    scene.voters.start_again(leader);
    assert_ne!(scene.voters.wait_for_leader(), leader);
    scene.report("another leader of the store", begun);

    // A lost primary is replaced, and follows the new one when it is back.
    let begun = Instant::now();
    scene.members[candidate].kill();
    let next = scene.roles.wait_for_another_primary(candidate);
    scene.report("failover", begun);
    assert_ne!(next, candidate);
    scene.members[candidate].run(&scene.programs);
    scene.wait_for_streaming("after the failover", VOTERS - 1);
    scene.report("rejoin", begun);
    scene.roles.assert_one_primary();
}

/// The section for etcd's API.
fn etcd3(voters: &Voters, _: usize) -> String {
    let hosts: Vec<String> = (0..VOTERS).map(|at| format!("\"{}\"", voters.etcd(at))).collect();
    format!("etcd3: {{hosts: [{}]}}", hosts.join(", "))
}

/// The section for Consul's API.
fn consul(voters: &Voters, at: usize) -> String {
    format!("consul: {{host: \"{}\", register_service: true}}", voters.agent(at).http())
}

#[test]
fn patroni_keeps_one_primary_by_etcd() {
    primary_moves_and_is_never_doubled("patroni_keeps_one_primary_by_etcd", Origin::PyPi, etcd3);
}

#[test]
fn patroni_keeps_one_primary_by_consul() {
    primary_moves_and_is_never_doubled("patroni_keeps_one_primary_by_consul", Origin::PyPi, consul);
}

#[test]
fn patroni_of_debian_keeps_one_primary_by_etcd() {
    primary_moves_and_is_never_doubled("patroni_of_debian_keeps_one_primary_by_etcd", Origin::Debian, etcd3);
}

#[test]
fn patroni_of_debian_keeps_one_primary_by_consul() {
    primary_moves_and_is_never_doubled("patroni_of_debian_keeps_one_primary_by_consul", Origin::Debian, consul);
}
