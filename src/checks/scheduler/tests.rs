//! The owner in a world of scripted hosts, under paused time: what is announced, kept, carried over and ended.

use std::{sync::Mutex, time::Duration};

use tokio::{sync::Notify, time::sleep};

use super::*;
use crate::{
    checks::{
        error::ProbeError,
        fixtures::{alias, check, definition, definitions, tcp},
    },
    model::{
        maintenance::{Hold, Scope},
        name::label,
        pacing::Damping,
        service::Pace,
    },
};

/// A world of hosts that tests change at will, and the owner that watches it. TCP checks ask it by host.
struct World {
    hosts: Arc<Mutex<Hosts>>,
    definitions: watch::Sender<Definitions>,
    hold: watch::Sender<Maintenance>,
    beats: mpsc::Sender<TtlReport>,
    announced: watch::Receiver<Announcements>,
    release: Arc<Notify>,
    shutdown: CancellationToken,
    owner: tokio::task::JoinHandle<()>,
    began: Instant,
}

#[derive(Default)]
struct Hosts {
    /// What is not here passes.
    ill: HashMap<String, Result<(), &'static str>>,
    /// Hosts whose probes do not end before `World::release`.
    hanging: HashSet<String>,
    /// When each was asked, in milliseconds.
    asked: HashMap<String, Vec<u128>>,
    /// Probes under way.
    open: usize,
}

impl World {
    fn new(first: impl IntoIterator<Item = Definition>) -> Self {
        let (definitions, watched) = watch::channel(definitions(first));
        let (announcements, announced) = watch::channel(Announcements::new());
        let hosts = Arc::new(Mutex::new(Hosts::default()));
        let began = Instant::now();
        let release = Arc::new(Notify::new());
        let ask: Ask = {
            let (hosts, release) = (Arc::clone(&hosts), Arc::clone(&release));
            Arc::new(move |check| {
                let (hosts, release) = (Arc::clone(&hosts), Arc::clone(&release));
                Box::pin(async move {
                    let Probe::Tcp(endpoint) = &check.probe else { panic!("{} was probed", check.probe) };
                    let _open = Open::new(&hosts);
                    let (answer, hangs) = {
                        let mut hosts = hosts.lock().unwrap();
                        let asked = began.elapsed().as_millis();
                        hosts.asked.entry(endpoint.host.clone()).or_default().push(asked);
                        (hosts.ill.get(&endpoint.host).copied(), hosts.hanging.contains(&endpoint.host))
                    };
                    if hangs {
                        release.notified().await;
                    } else {
                        sleep(Duration::from_millis(1)).await;
                    }
                    match answer {
                        None => Ok(()),
                        Some(Ok(())) => Err(ProbeError::NotRun("too many open files".to_owned())),
                        Some(Err(reason)) => Err(ProbeError::critical(reason)),
                    }
                })
            })
        };
        let shutdown = CancellationToken::new();
        let (hold, maintenance) = watch::channel(Maintenance::default());
        let (beats, heard) = mpsc::channel(16);
        let inputs = Inputs { definitions: watched, maintenance, beats: heard };
        let owner = tokio::spawn(run(inputs, announcements, ask, 1, Checks::default(), shutdown.clone()));
        Self { hosts, definitions, hold, beats, announced, release, shutdown, owner, began }
    }

    fn reload(&self, all: impl IntoIterator<Item = Definition>) {
        self.definitions.send_replace(definitions(all));
    }

    fn set(&self, host: &str, reason: &'static str) {
        self.hosts.lock().unwrap().ill.insert(host.to_owned(), Err(reason));
    }

    fn cure(&self, host: &str) {
        self.hosts.lock().unwrap().ill.remove(host);
    }

    fn asked(&self, host: &str) -> Vec<u128> {
        self.hosts.lock().unwrap().asked.get(host).cloned().unwrap_or_default()
    }

    /// Waits until so much time has passed since the beginning.
    async fn at(&self, time: Duration) {
        sleep_until(self.began + time).await;
    }

    /// What is announced, after everybody has had the chance to run.
    async fn announced(&mut self) -> String {
        sleep(Duration::from_millis(5)).await;
        let announced = self.announced.borrow_and_update().clone();
        let lines = announced.iter().map(|(key, announcement)| match &announcement.standing {
            InstanceState::Passing => format!("{key} passing"),
            InstanceState::Warning(reason) => format!("{key} warning: {reason}"),
            InstanceState::Critical(reason) => format!("{key} critical: {reason}"),
            InstanceState::Disabled => format!("{key} disabled"),
            InstanceState::Warming(weight) => format!("{key} warming: {weight}"),
            InstanceState::Withheld(gate, reason) => format!("{key} {}: {reason}", gate.as_str()),
        });
        lines.collect::<Vec<_>>().join(", ")
    }
}

struct Open(Arc<Mutex<Hosts>>);

impl Open {
    fn new(hosts: &Arc<Mutex<Hosts>>) -> Self {
        hosts.lock().unwrap().open += 1;
        Self(Arc::clone(hosts))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.lock().unwrap().open -= 1;
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn all_is_announced_at_once_and_results_follow_within_a_second() {
    let warning = Check { initial: Status::Warning, ..tcp("b") };
    let passing = Check { initial: Status::Passing, ..tcp("c") };
    let mut world = World::new([
        definition("a/1", [tcp("a")]),
        definition("b/1", [warning]),
        definition("c/1", [passing]),
        definition("d/1", []),
    ]);
    world.announced.changed().await.unwrap();
    assert_eq!(world.began.elapsed(), Duration::ZERO);
    assert_eq!(
        world.announced().await,
        "a/1 critical: no result yet, b/1 warning: no result yet, c/1 passing, d/1 passing"
    );
    world.at(SECOND).await;
    assert_eq!(world.announced().await, "a/1 passing, b/1 passing, c/1 passing, d/1 passing");
}

#[tokio::test(start_paused = true)]
async fn only_real_changes_are_published_and_what_comes_together_goes_together() {
    let all = (0..500).map(|n| definition(&format!("s{n}/1"), [tcp("same"), tcp("other")]));
    let mut world = World::new(all.collect::<Vec<_>>());
    world.at(5 * SECOND).await;
    world.announced.borrow_and_update();
    world.at(60 * SECOND).await;
    assert!(!world.announced.has_changed().unwrap(), "nothing happened");
    assert!(world.asked("same").len() > 2000);

    world.reload((0..500).map(|n| definition(&format!("s{n}/1"), [tcp("same"), tcp("other")])));
    world.at(61 * SECOND).await;
    assert!(!world.announced.has_changed().unwrap(), "the same definitions again");

    // All hang, and are let go at once, as when a switch comes back.
    world.hosts.lock().unwrap().hanging.insert("switch".to_owned());
    world.set("switch", "refused");
    world.reload((0..500).map(|n| definition(&format!("s{n}/1"), [Check { fall: 1, ..tcp("switch") }])));
    world.at(65 * SECOND).await;
    world.announced.borrow_and_update();
    world.release.notify_waiters();
    let mut published = 0;
    let end = world.began + 66 * SECOND;
    while tokio::time::timeout_at(end, world.announced.changed()).await.is_ok() {
        published += 1;
        world.announced.borrow_and_update();
    }
    assert!((1..=3).contains(&published), "{published} publications of what came at once");
    assert!(world.announced.borrow().values().all(|announcement| !announcement.standing.is_answered()));
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_check_keeps_its_place_and_memory_through_reloads() {
    let mut world = World::new([definition("web/1", [tcp("kept"), tcp("gone")]), definition("db/1", [])]);
    world.at(5 * SECOND).await;
    // One failure of the two that it takes, then a reload of everything else, then the other failure.
    world.set("kept", "refused");
    let first = world.asked("kept").len();
    while world.asked("kept").len() == first {
        sleep(SECOND / 10).await;
    }
    assert!(world.announced().await.starts_with("db/1 passing, web/1 passing"));
    for version in 0..5 {
        let mut web = definition("web/1", [tcp(&format!("new{version}")), tcp("kept")]);
        let instance = Arc::make_mut(&mut web.instance);
        (instance.weight, instance.tags) = (version, vec!["v2".to_owned()]);
        world.reload([web, definition("db/1", [tcp("db")])]);
        sleep(SECOND / 5).await;
    }
    assert_eq!(world.asked("kept").len(), first + 1, "a reload is no reason to probe");
    while world.asked("kept").len() == first + 1 {
        sleep(SECOND / 10).await;
    }
    assert_eq!(world.announced().await, "db/1 passing, web/1 critical: refused");
    assert_eq!(world.announced.borrow().values().next_back().unwrap().instance.weight, 4);
    world.at(100 * SECOND).await;
    let asked = world.asked("kept");
    let gaps: Vec<u128> = asked.windows(2).skip(1).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.len() > 7 && gaps.iter().all(|gap| (9_990..=10_010).contains(gap)), "{asked:?}");
    let last = *world.asked("gone").last().unwrap();
    assert!(last < 16_000, "a check that went was asked at {last} ms");
}

#[tokio::test(start_paused = true)]
async fn a_changed_check_begins_with_the_standing_that_the_instance_had() {
    let mut world = World::new([definition("ill/1", [tcp("ill")]), definition("well/1", [tcp("well")])]);
    world.set("ill", "refused");
    world.at(30 * SECOND).await;
    assert_eq!(world.announced().await, "ill/1 critical: refused, well/1 passing");
    world.announced.borrow_and_update();

    // Edited, and the new ones have not been asked yet: nothing changes, whatever `initial` says.
    world.hosts.lock().unwrap().hanging.extend(["ill2".to_owned(), "well2".to_owned()]);
    world.reload([
        definition("ill/1", [Check { initial: Status::Passing, ..tcp("ill2") }]),
        definition("well/1", [tcp("well2")]),
        definition("new/1", [tcp("well2")]),
    ]);
    world.at(40 * SECOND).await;
    assert_eq!(world.announced().await, "ill/1 critical: refused, new/1 critical: no result yet, well/1 passing");

    // Their own results decide.
    world.reload([definition("ill/1", [tcp("ill3")]), definition("well/1", [Check { fall: 1, ..tcp("ill") }])]);
    world.at(42 * SECOND).await;
    assert_eq!(world.announced().await, "ill/1 passing, well/1 critical: refused");
}

#[tokio::test(start_paused = true)]
async fn a_disabled_instance_is_not_probed_and_comes_back_as_a_new_one() {
    let disabled = || Definition { enabled: false, ..definition("web/1", [tcp("web"), alias("web")]) };
    let mut world = World::new([disabled()]);
    world.at(30 * SECOND).await;
    assert_eq!(world.announced().await, "web/1 disabled");
    assert!(world.asked("web").is_empty());
    world.reload([definition("web/1", [tcp("web")])]);
    assert_eq!(world.announced().await, "web/1 critical: no result yet");
    world.at(32 * SECOND).await;
    assert_eq!(world.announced().await, "web/1 passing");
    world.reload([disabled()]);
    assert_eq!(world.announced().await, "web/1 disabled");
    world.reload([]);
    assert_eq!(world.announced().await, "");
}

#[tokio::test(start_paused = true)]
async fn a_shortage_on_this_node_leaves_standings_alone() {
    let mut world = World::new([definition("web/1", [tcp("web")])]);
    world.at(5 * SECOND).await;
    world.hosts.lock().unwrap().ill.insert("web".to_owned(), Ok(()));
    world.at(100 * SECOND).await;
    assert_eq!(world.announced().await, "web/1 passing");
}

#[tokio::test(start_paused = true)]
async fn aliases_follow_the_local_service_at_once() {
    let mut world = World::new([
        definition("web/1", [tcp("web"), alias("db")]),
        definition("db/1", [tcp("db1")]),
        definition("db/2", [tcp("db2")]),
        definition("x/1", [alias("y")]),
        definition("y/1", [alias("x")]),
    ]);
    let cycles = "x/1 critical: alias cycle: y -> x -> y, y/1 critical: alias cycle: x -> y -> x";
    world.at(2 * SECOND).await;
    assert_eq!(world.announced().await, format!("db/1 passing, db/2 passing, web/1 passing, {cycles}"));
    world.set("db1", "refused");
    world.at(30 * SECOND).await;
    assert_eq!(world.announced().await, format!("db/1 critical: refused, db/2 passing, web/1 passing, {cycles}"));
    world.set("db2", "reset");
    world.at(60 * SECOND).await;
    assert_eq!(
        world.announced().await,
        format!("db/1 critical: refused, db/2 critical: reset, web/1 critical: db: refused, {cycles}")
    );
    world.cure("db2");
    world.at(75 * SECOND).await;
    assert_eq!(world.announced().await, format!("db/1 critical: refused, db/2 passing, web/1 passing, {cycles}"));
    world.reload([definition("web/1", [tcp("web"), alias("db")])]);
    assert_eq!(world.announced().await, "web/1 critical: db: no local instance");
}

#[tokio::test(start_paused = true)]
async fn what_is_removed_replaced_or_shut_down_ends_with_its_work() {
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let hanging = |n: usize| definition(&format!("s{n}/1"), [tcp(&format!("host{n}"))]);
    let mut world = World::new([]);
    world.hosts.lock().unwrap().hanging.extend((0..300).map(|n| format!("host{n}")));
    world.announced().await;
    let before = alive();
    for round in 0..100 {
        world.reload((round..round + 20).map(hanging));
        sleep(2 * SECOND).await;
        assert_eq!(world.hosts.lock().unwrap().open, 20, "in round {round}");
        assert_eq!(alive(), before + 20, "in round {round}");
    }
    world.reload([]);
    world.announced().await;
    assert_eq!((world.hosts.lock().unwrap().open, alive()), (0, before));

    world.reload((0..20).map(hanging));
    sleep(2 * SECOND).await;
    world.shutdown.cancel();
    (&mut world.owner).await.unwrap();
    assert_eq!((world.hosts.lock().unwrap().open, alive()), (0, before - 1));
}

fn ttl(seconds: u64) -> Check {
    check(Probe::Ttl { ttl: Duration::from_secs(seconds) })
}

#[tokio::test(start_paused = true)]
async fn an_application_that_reports_stands_as_it_says_and_silence_is_critical() {
    let mut world = World::new([definition("web/1", [ttl(10), tcp("web")]), definition("x/1", [alias("web")])]);
    let say = async |world: &World, status, output: &str| {
        let instance = InstanceKey { service: label("web"), id: label("1") };
        let beat = TtlReport { instance, check: "service:1:1".into(), status, output: output.to_owned() };
        world.beats.send(beat).await.unwrap();
    };
    world.at(2 * SECOND).await;
    assert_eq!(world.announced().await, "web/1 critical: no result yet, x/1 critical: web: no result yet");
    say(&world, Status::Passing, "").await;
    assert_eq!(world.announced().await, "web/1 passing, x/1 passing");
    world.at(11 * SECOND).await;
    assert_eq!(world.announced().await, "web/1 passing, x/1 passing", "the first report is good for 10 s");
    say(&world, Status::Warning, "disk 91 %").await;
    assert_eq!(world.announced().await, "web/1 warning: disk 91 %, x/1 warning: web: disk 91 %");
    world.at(20 * SECOND).await;
    // The same file again: the reports go on.
    world.reload([definition("web/1", [ttl(10), tcp("web")])]);
    assert_eq!(world.announced().await, "web/1 warning: disk 91 %");
    world.at(22 * SECOND).await;
    assert_eq!(world.announced().await, "web/1 critical: nothing was reported for 10s");
    say(&world, Status::Passing, "").await;
    assert_eq!(world.announced().await, "web/1 passing");
    world.reload([]);
    say(&world, Status::Critical, "late").await;
    world.at(60 * SECOND).await;
    assert_eq!(world.announced().await, "");
}

#[tokio::test(start_paused = true)]
async fn what_is_held_back_is_withheld_until_it_is_given_back() {
    let mut world = World::new([definition("web/1", [tcp("web")]), definition("db/1", [tcp("db")])]);
    let hold = |of: &[(Scope, HoldReason)]| {
        let hold = Hold { reason: "new kernel".to_owned(), since: 0, until: None };
        Maintenance(of.iter().map(|held| (held.clone(), hold.clone())).collect())
    };
    let web = || Scope::Instance(InstanceKey { service: label("web"), id: label("1") });
    world.at(2 * SECOND).await;
    world.hold.send_replace(hold(&[(web(), HoldReason::Draining)]));
    assert_eq!(world.announced().await, "db/1 passing, web/1 draining: new kernel");
    world.hold.send_replace(hold(&[(web(), HoldReason::Draining), (Scope::Node, HoldReason::NodeMaintenance)]));
    assert_eq!(world.announced().await, "db/1 node-maintenance: new kernel, web/1 node-maintenance: new kernel");
    // Checks go on: what is given back stands as it is then.
    world.set("db", "refused");
    world.at(60 * SECOND).await;
    world.hold.send_replace(hold(&[(web(), HoldReason::Draining)]));
    assert_eq!(world.announced().await, "db/1 critical: refused, web/1 draining: new kernel");
    world.hold.send_replace(Maintenance::default());
    assert_eq!(world.announced().await, "db/1 critical: refused, web/1 passing");
}

#[tokio::test(start_paused = true)]
async fn a_report_has_each_check_with_its_own_result() {
    let mut world = World::new([definition("web/1", [tcp("web"), tcp("disk")]), definition("db/1", [])]);
    world.set("disk", "refused");
    world.at(30 * SECOND).await;
    world.announced().await;
    let announced = world.announced.borrow().clone();
    let shown = |key: &str| {
        let (_, known) = announced.iter().find(|(known, _)| known.to_string() == key).unwrap();
        let checks = known.report.iter().flat_map(|report| &report.checks);
        checks.map(|c| format!("{} ({}) {}: {}", c.id, c.name, c.status.as_str(), c.output)).collect::<Vec<_>>()
    };
    let web = ["service:1:1 (tcp web:1) passing: ", "service:1:2 (tcp disk:1) critical: refused"];
    assert_eq!(shown("web/1"), web);
    assert!(shown("db/1").is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_flaps_is_held_down_and_given_back_by_itself() {
    let pace =
        Pace { damping: Some(Damping { half_life: 60 * SECOND, hold_at: 3, release_below: 10 }), ..Pace::default() };
    let flapping = || Definition { pace, ..definition("web/1", [Check { fall: 1, ..ttl(3600) }]) };
    let mut world = World::new([flapping(), definition("db/1", [Check { fall: 1, ..ttl(3600) }])]);
    let say = async |world: &World, service: &str, status| {
        let instance = InstanceKey { service: label(service), id: label("1") };
        let beat = TtlReport { instance, check: "service:1".into(), status, output: "x".to_owned() };
        world.beats.send(beat).await.unwrap();
    };
    let mut seconds = 0;
    for fall in 1..=3 {
        for status in [Status::Passing, Status::Critical] {
            seconds += 1;
            world.at(seconds * SECOND).await;
            say(&world, "web", status).await;
            say(&world, "db", status).await;
        }
        assert_eq!(world.announced().await, "db/1 critical: x, web/1 critical: x", "after fall {fall}");
    }
    say(&world, "web", Status::Passing).await;
    say(&world, "db", Status::Passing).await;
    let held = "db/1 passing, web/1 flapping: it went down 3 times or more in a short time";
    assert_eq!(world.announced().await, held);
    // A reload does not forgive.
    world.reload([flapping(), definition("db/1", [Check { fall: 1, ..ttl(3600) }])]);
    world.at(95 * SECOND).await;
    assert_eq!(world.announced().await, held);
    world.at(102 * SECOND).await;
    assert_eq!(world.announced().await, "db/1 passing, web/1 passing");
}

#[tokio::test(start_paused = true)]
async fn what_comes_up_starts_slowly() {
    let pace = Pace { slow_start: 100 * SECOND, ..Pace::default() };
    let slow = || Definition { pace, ..definition("web/1", [Check { initial: Status::Passing, ..ttl(3600) }]) };
    let mut world = World::new([slow()]);
    assert_eq!(world.announced().await, "web/1 warming: 1");
    let expected = [(51, "warming: 5"), (95, "warming: 9"), (101, "passing")];
    for (second, expected) in expected {
        world.at(second * SECOND).await;
        assert_eq!(world.announced().await, format!("web/1 {expected}"), "at {second}");
    }
    world.reload([slow(), definition("db/1", [])]);
    assert_eq!(world.announced().await, "db/1 passing, web/1 passing", "a reload is no start");
    let hold = Hold { reason: String::new(), since: 0, until: None };
    world.hold.send_replace(Maintenance([((Scope::Node, HoldReason::Draining), hold)].into()));
    assert_eq!(world.announced().await, "db/1 draining: , web/1 draining: ");
    world.hold.send_replace(Maintenance::default());
    assert_eq!(world.announced().await, "db/1 passing, web/1 warming: 1");
}
