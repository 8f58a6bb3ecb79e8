//! Scheduler with scripted hosts under paused time: what is announced, kept, inherited and cancelled.

use std::{collections::HashMap, sync::Mutex, time::Duration};

use tokio::{
    sync::{Notify, watch},
    time::sleep,
};

use super::*;
use crate::{
    checks::{
        error::ProbeError,
        fixtures::{alias, check, definition, definitions, tcp},
    },
    model::{
        announcement::HealthReport,
        flap_damping::Damping,
        health::Status,
        maintenance::{Hold, TtlReport},
        name::label,
        service::{CheckTitle, Origin, Pace},
    },
};

/// Scripted hosts, and the scheduler that checks them. TCP checks probe a host by name.
struct Fixture {
    hosts: Arc<Mutex<Hosts>>,
    definitions: watch::Sender<Definitions>,
    node_checks: watch::Sender<Arc<[Check]>>,
    hold: watch::Sender<Maintenance>,
    ttl_reports: mpsc::Sender<TtlReport>,
    announced: watch::Receiver<Checked>,
    results: watch::Receiver<CheckResults>,
    release: Arc<Notify>,
    shutdown: CancellationToken,
    scheduler: tokio::task::JoinHandle<()>,
    began: Instant,
}

#[derive(Default)]
struct Hosts {
    /// Results of hosts that do not pass.
    failing: HashMap<String, Result<(), &'static str>>,
    /// Hosts whose probes do not end before `Fixture::release`.
    hanging: HashSet<String>,
    /// Times of probes by host, in milliseconds.
    probed: HashMap<String, Vec<u128>>,
    /// Number of running probes.
    open: usize,
}

impl Fixture {
    fn new(first: impl IntoIterator<Item = Definition>) -> Self {
        Self::restarted(first, Former::default())
    }

    /// Starts a scheduler with the results from before a restart.
    fn restarted(first: impl IntoIterator<Item = Definition>, former: Former) -> Self {
        Self::with_node_checks(first, &[], former)
    }

    fn with_node_checks(first: impl IntoIterator<Item = Definition>, of_node: &[Check], former: Former) -> Self {
        let (definitions, watched) = watch::channel(definitions(first));
        let (checked, announced) = watch::channel(Checked::default());
        let hosts = Arc::new(Mutex::new(Hosts::default()));
        let began = Instant::now();
        let release = Arc::new(Notify::new());
        let probe: ProbeFn = {
            let (hosts, release) = (Arc::clone(&hosts), Arc::clone(&release));
            Arc::new(move |check| {
                let (hosts, release) = (Arc::clone(&hosts), Arc::clone(&release));
                Box::pin(async move {
                    let Probe::Tcp(endpoint) = &check.probe else { panic!("{} was probed", check.probe) };
                    let _open = Open::new(&hosts);
                    let (answer, hangs) = {
                        let mut hosts = hosts.lock().unwrap();
                        let at = began.elapsed().as_millis();
                        hosts.probed.entry(endpoint.host.clone()).or_default().push(at);
                        (hosts.failing.get(&endpoint.host).copied(), hosts.hanging.contains(&endpoint.host))
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
        let (ttl_reports, reports) = mpsc::channel(16);
        let (results, kept) = watch::channel(CheckResults::new());
        let (node_checks, checks_of_node) = watch::channel(Arc::from(of_node));
        let inputs = Inputs {
            definitions: watched,
            node: label("host-a"),
            node_checks: checks_of_node,
            maintenance,
            ttl_reports: reports,
            former,
        };
        let (texts, _) = watch::channel(ReportTexts::new());
        let outputs = Outputs { checked, results, texts };
        let scheduler = tokio::spawn(run(inputs, outputs, probe, 1, Checks::default(), shutdown.clone()));
        Self {
            hosts,
            definitions,
            node_checks,
            hold,
            ttl_reports,
            announced,
            results: kept,
            release,
            shutdown,
            scheduler,
            began,
        }
    }

    fn reload(&self, all: impl IntoIterator<Item = Definition>) {
        self.definitions.send_replace(definitions(all));
    }

    fn set(&self, host: &str, reason: &'static str) {
        self.hosts.lock().unwrap().failing.insert(host.to_owned(), Err(reason));
    }

    fn cure(&self, host: &str) {
        self.hosts.lock().unwrap().failing.remove(host);
    }

    fn probed(&self, host: &str) -> Vec<u128> {
        self.hosts.lock().unwrap().probed.get(host).cloned().unwrap_or_default()
    }

    /// Waits until this time after the start.
    async fn at(&self, time: Duration) {
        sleep_until(self.began + time).await;
    }

    /// Returns the announcements, after all tasks could run.
    async fn announced(&mut self) -> String {
        sleep(Duration::from_millis(5)).await;
        let announced = self.announced.borrow_and_update().announcements.clone();
        let lines = announced.iter().map(|(key, announcement)| match &announcement.state {
            InstanceState::Passing => format!("{key} passing"),
            InstanceState::Warning(reason) => format!("{key} warning: {reason}"),
            InstanceState::Critical(reason) => format!("{key} critical: {reason}"),
            InstanceState::Disabled => format!("{key} disabled"),
            InstanceState::Warming(weight) => format!("{key} warming: {weight}"),
            InstanceState::Withheld(hold, reason) => format!("{key} {}: {reason}", hold.as_str()),
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
async fn all_instances_are_announced_at_once_and_results_follow_within_a_second() {
    let warning = Check { initial: Status::Warning, ..tcp("b") };
    let passing = Check { initial: Status::Passing, ..tcp("c") };
    let mut fixture = Fixture::new([
        definition("a/1", [tcp("a")]),
        definition("b/1", [warning]),
        definition("c/1", [passing]),
        definition("d/1", []),
    ]);
    fixture.announced.changed().await.unwrap();
    assert_eq!(fixture.began.elapsed(), Duration::ZERO);
    assert_eq!(
        fixture.announced().await,
        "a/1 critical: no result yet, b/1 warning: no result yet, c/1 passing, d/1 passing"
    );
    fixture.at(SECOND).await;
    assert_eq!(fixture.announced().await, "a/1 passing, b/1 passing, c/1 passing, d/1 passing");
}

#[tokio::test(start_paused = true)]
async fn only_changes_are_published_in_batches() {
    let all = (0..500).map(|n| definition(&format!("s{n}/1"), [tcp("same"), tcp("other")]));
    let mut fixture = Fixture::new(all.collect::<Vec<_>>());
    fixture.at(5 * SECOND).await;
    fixture.announced.borrow_and_update();
    fixture.at(60 * SECOND).await;
    assert!(!fixture.announced.has_changed().unwrap(), "no change");
    assert!(fixture.probed("same").len() > 2000);

    fixture.reload((0..500).map(|n| definition(&format!("s{n}/1"), [tcp("same"), tcp("other")])));
    fixture.at(61 * SECOND).await;
    assert!(!fixture.announced.has_changed().unwrap(), "unchanged definitions");

    // All hang, and are released together, as when a switch recovers.
    fixture.hosts.lock().unwrap().hanging.insert("switch".to_owned());
    fixture.set("switch", "refused");
    fixture.reload((0..500).map(|n| definition(&format!("s{n}/1"), [Check { fall: 1, ..tcp("switch") }])));
    fixture.at(65 * SECOND).await;
    fixture.announced.borrow_and_update();
    fixture.release.notify_waiters();
    let mut published = 0;
    let end = fixture.began + 66 * SECOND;
    while tokio::time::timeout_at(end, fixture.announced.changed()).await.is_ok() {
        published += 1;
        fixture.announced.borrow_and_update();
    }
    assert!((1..=3).contains(&published), "{published} publications of simultaneous results");
    assert!(fixture.announced.borrow().announcements.values().all(|announcement| !announcement.state.is_answered()));
}

#[tokio::test(start_paused = true)]
async fn unchanged_check_keeps_phase_and_results_across_reloads() {
    let mut fixture = Fixture::new([definition("web/1", [tcp("kept"), tcp("gone")]), definition("db/1", [])]);
    fixture.at(5 * SECOND).await;
    // `fall` is 2: one failure, a reload of everything else, the second failure.
    fixture.set("kept", "refused");
    let first = fixture.probed("kept").len();
    while fixture.probed("kept").len() == first {
        sleep(SECOND / 10).await;
    }
    assert!(fixture.announced().await.starts_with("db/1 passing, web/1 passing"));
    for version in 0..5 {
        let mut web = definition("web/1", [tcp(&format!("new{version}")), tcp("kept")]);
        let instance = Arc::make_mut(&mut web.instance);
        (instance.weight, instance.tags) = (version, vec!["v2".to_owned()].into());
        fixture.reload([web, definition("db/1", [tcp("db")])]);
        sleep(SECOND / 5).await;
    }
    assert_eq!(fixture.probed("kept").len(), first + 1, "a reload triggers no probe");
    while fixture.probed("kept").len() == first + 1 {
        sleep(SECOND / 10).await;
    }
    assert_eq!(fixture.announced().await, "db/1 passing, web/1 critical: refused");
    assert_eq!(fixture.announced.borrow().announcements.values().next_back().unwrap().instance.weight, 4);
    fixture.at(100 * SECOND).await;
    let asked = fixture.probed("kept");
    let gaps: Vec<u128> = asked.windows(2).skip(1).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.len() > 7 && gaps.iter().all(|gap| (9_990..=10_010).contains(gap)), "{asked:?}");
    let last = *fixture.probed("gone").last().unwrap();
    assert!(last < 16_000, "a removed check was probed at {last} ms");
}

#[tokio::test(start_paused = true)]
async fn changed_check_inherits_the_status_of_its_instance() {
    let mut fixture = Fixture::new([definition("ill/1", [tcp("ill")]), definition("well/1", [tcp("well")])]);
    fixture.set("ill", "refused");
    fixture.at(30 * SECOND).await;
    assert_eq!(fixture.announced().await, "ill/1 critical: refused, well/1 passing");
    fixture.announced.borrow_and_update();

    // The edited checks have no results yet: the status is inherited, whatever `initial` is.
    fixture.hosts.lock().unwrap().hanging.extend(["ill2".to_owned(), "well2".to_owned()]);
    fixture.reload([
        definition("ill/1", [Check { initial: Status::Passing, ..tcp("ill2") }]),
        definition("well/1", [tcp("well2")]),
        definition("new/1", [tcp("well2")]),
    ]);
    fixture.at(40 * SECOND).await;
    assert_eq!(fixture.announced().await, "ill/1 critical: refused, new/1 critical: no result yet, well/1 passing");

    // Their own results replace it.
    fixture.reload([definition("ill/1", [tcp("ill3")]), definition("well/1", [Check { fall: 1, ..tcp("ill") }])]);
    fixture.at(42 * SECOND).await;
    assert_eq!(fixture.announced().await, "ill/1 passing, well/1 critical: refused");
}

#[tokio::test(start_paused = true)]
async fn disabled_instance_is_not_probed_and_returns_as_new() {
    let disabled = || Definition { enabled: false, ..definition("web/1", [tcp("web"), alias("web")]) };
    let mut fixture = Fixture::new([disabled()]);
    fixture.at(30 * SECOND).await;
    assert_eq!(fixture.announced().await, "web/1 disabled");
    assert!(fixture.probed("web").is_empty());
    fixture.reload([definition("web/1", [tcp("web")])]);
    assert_eq!(fixture.announced().await, "web/1 critical: no result yet");
    fixture.at(32 * SECOND).await;
    assert_eq!(fixture.announced().await, "web/1 passing");
    fixture.reload([disabled()]);
    assert_eq!(fixture.announced().await, "web/1 disabled");
    fixture.reload([]);
    assert_eq!(fixture.announced().await, "");
}

#[tokio::test(start_paused = true)]
async fn resource_shortage_of_the_node_keeps_statuses() {
    let mut fixture = Fixture::new([definition("web/1", [tcp("web")])]);
    fixture.at(5 * SECOND).await;
    fixture.hosts.lock().unwrap().failing.insert("web".to_owned(), Ok(()));
    fixture.at(100 * SECOND).await;
    assert_eq!(fixture.announced().await, "web/1 passing");
}

#[tokio::test(start_paused = true)]
async fn alias_follows_the_local_service_at_once() {
    let mut fixture = Fixture::new([
        definition("web/1", [tcp("web"), alias("db")]),
        definition("db/1", [tcp("db1")]),
        definition("db/2", [tcp("db2")]),
        definition("x/1", [alias("y")]),
        definition("y/1", [alias("x")]),
    ]);
    let cycles = "x/1 critical: alias cycle: y -> x -> y, y/1 critical: alias cycle: x -> y -> x";
    fixture.at(2 * SECOND).await;
    assert_eq!(fixture.announced().await, format!("db/1 passing, db/2 passing, web/1 passing, {cycles}"));
    fixture.set("db1", "refused");
    fixture.at(30 * SECOND).await;
    assert_eq!(fixture.announced().await, format!("db/1 critical: refused, db/2 passing, web/1 passing, {cycles}"));
    fixture.set("db2", "reset");
    fixture.at(60 * SECOND).await;
    assert_eq!(
        fixture.announced().await,
        format!("db/1 critical: refused, db/2 critical: reset, web/1 critical: db: refused, {cycles}")
    );
    fixture.cure("db2");
    fixture.at(75 * SECOND).await;
    assert_eq!(fixture.announced().await, format!("db/1 critical: refused, db/2 passing, web/1 passing, {cycles}"));
    fixture.reload([definition("web/1", [tcp("web"), alias("db")])]);
    assert_eq!(fixture.announced().await, "web/1 critical: db: no local instance");
}

#[tokio::test(start_paused = true)]
async fn removed_and_replaced_checks_and_shutdown_cancel_probes() {
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let hanging = |n: usize| definition(&format!("s{n}/1"), [tcp(&format!("host{n}"))]);
    let mut fixture = Fixture::new([]);
    fixture.hosts.lock().unwrap().hanging.extend((0..300).map(|n| format!("host{n}")));
    fixture.announced().await;
    let before = alive();
    for round in 0..100 {
        fixture.reload((round..round + 20).map(hanging));
        sleep(2 * SECOND).await;
        assert_eq!(fixture.hosts.lock().unwrap().open, 20, "in round {round}");
        assert_eq!(alive(), before + 20, "in round {round}");
    }
    fixture.reload([]);
    fixture.announced().await;
    assert_eq!((fixture.hosts.lock().unwrap().open, alive()), (0, before));

    fixture.reload((0..20).map(hanging));
    sleep(2 * SECOND).await;
    fixture.shutdown.cancel();
    (&mut fixture.scheduler).await.unwrap();
    assert_eq!((fixture.hosts.lock().unwrap().open, alive()), (0, before - 1));
}

fn scope(key: &str) -> Scope {
    let (service, id) = key.split_once('/').unwrap();
    Scope::Instance(InstanceKey { service: label(service).into(), id: label(id) })
}

fn ttl(seconds: u64) -> Check {
    check(Probe::Ttl { ttl: Duration::from_secs(seconds) })
}

#[tokio::test(start_paused = true)]
async fn ttl_check_follows_reports_and_expires_to_critical() {
    let mut fixture = Fixture::new([definition("web/1", [ttl(10), tcp("web")]), definition("x/1", [alias("web")])]);
    let say = async |fixture: &Fixture, status, output: &str| {
        let report =
            TtlReport { scope: scope("web/1"), check: "service:1:1".into(), status, output: output.to_owned() };
        fixture.ttl_reports.send(report).await.unwrap();
    };
    fixture.at(2 * SECOND).await;
    assert_eq!(fixture.announced().await, "web/1 critical: no result yet, x/1 critical: web: no result yet");
    say(&fixture, Status::Passing, "").await;
    assert_eq!(fixture.announced().await, "web/1 passing, x/1 passing");
    fixture.at(11 * SECOND).await;
    assert_eq!(fixture.announced().await, "web/1 passing, x/1 passing", "the first report expires after 10 s");
    say(&fixture, Status::Warning, "disk 91 %").await;
    assert_eq!(fixture.announced().await, "web/1 warning: disk 91 %, x/1 warning: web: disk 91 %");
    fixture.at(20 * SECOND).await;
    // A reload without changes keeps the last report.
    fixture.reload([definition("web/1", [ttl(10), tcp("web")])]);
    assert_eq!(fixture.announced().await, "web/1 warning: disk 91 %");
    fixture.at(22 * SECOND).await;
    assert_eq!(fixture.announced().await, "web/1 critical: no report within 10s");
    say(&fixture, Status::Passing, "").await;
    assert_eq!(fixture.announced().await, "web/1 passing");
    fixture.reload([]);
    say(&fixture, Status::Critical, "late").await;
    fixture.at(60 * SECOND).await;
    assert_eq!(fixture.announced().await, "");
}

#[tokio::test(start_paused = true)]
async fn held_instance_is_withheld_until_the_hold_ends() {
    let mut fixture = Fixture::new([definition("web/1", [tcp("web")]), definition("db/1", [tcp("db")])]);
    let hold = |of: &[(Scope, HoldReason)]| {
        let hold = Hold { reason: "new kernel".to_owned(), since: 0, until: None };
        Maintenance(of.iter().map(|held| (held.clone(), hold.clone())).collect())
    };
    let web = || Scope::Instance(InstanceKey { service: label("web").into(), id: label("1") });
    fixture.at(2 * SECOND).await;
    fixture.hold.send_replace(hold(&[(web(), HoldReason::Draining)]));
    assert_eq!(fixture.announced().await, "db/1 passing, web/1 draining: new kernel");
    fixture.hold.send_replace(hold(&[(web(), HoldReason::Draining), (Scope::Node, HoldReason::NodeMaintenance)]));
    assert_eq!(fixture.announced().await, "db/1 node-maintenance: new kernel, web/1 node-maintenance: new kernel");
    // Checks continue during a hold: its end restores the current status.
    fixture.set("db", "refused");
    fixture.at(60 * SECOND).await;
    fixture.hold.send_replace(hold(&[(web(), HoldReason::Draining)]));
    assert_eq!(fixture.announced().await, "db/1 critical: refused, web/1 draining: new kernel");
    fixture.hold.send_replace(Maintenance::default());
    assert_eq!(fixture.announced().await, "db/1 critical: refused, web/1 passing");
}

#[tokio::test(start_paused = true)]
async fn health_report_lists_the_result_of_each_check() {
    let mut fixture = Fixture::new([definition("web/1", [tcp("web"), tcp("disk")]), definition("db/1", [])]);
    fixture.set("disk", "refused");
    fixture.at(30 * SECOND).await;
    fixture.announced().await;
    let announced = fixture.announced.borrow().clone();
    let shown = |key: &str| {
        let (_, known) = announced.announcements.iter().find(|(known, _)| known.to_string() == key).unwrap();
        let checks = known.report.iter().flat_map(|report| &report.checks);
        checks.map(|c| format!("{} ({}) {}: {}", c.id, c.name, c.status.as_str(), c.output)).collect::<Vec<_>>()
    };
    let web = ["service:1:1 (tcp web:1) passing: ", "service:1:2 (tcp disk:1) critical: refused"];
    assert_eq!(shown("web/1"), web);
    assert!(shown("db/1").is_empty());
}

#[tokio::test(start_paused = true)]
async fn flapping_instance_is_withheld_for_a_time() {
    let pace =
        Pace { damping: Some(Damping { half_life: 60 * SECOND, hold_at: 3, release_below: 10 }), ..Pace::default() };
    let flapping = || Definition { pace, ..definition("web/1", [Check { fall: 1, ..ttl(3600) }]) };
    let mut fixture = Fixture::new([flapping(), definition("db/1", [Check { fall: 1, ..ttl(3600) }])]);
    let say = async |fixture: &Fixture, service: &str, status| {
        let scope = scope(&format!("{service}/1"));
        let report = TtlReport { scope, check: "service:1".into(), status, output: "x".to_owned() };
        fixture.ttl_reports.send(report).await.unwrap();
    };
    let mut seconds = 0;
    for fall in 1..=3 {
        for status in [Status::Passing, Status::Critical] {
            seconds += 1;
            fixture.at(seconds * SECOND).await;
            say(&fixture, "web", status).await;
            say(&fixture, "db", status).await;
        }
        assert_eq!(fixture.announced().await, "db/1 critical: x, web/1 critical: x", "after fall {fall}");
    }
    say(&fixture, "web", Status::Passing).await;
    say(&fixture, "db", Status::Passing).await;
    let held = "db/1 passing, web/1 flapping: failed 3 times or more in a short time";
    assert_eq!(fixture.announced().await, held);
    // A reload keeps the penalty.
    fixture.reload([flapping(), definition("db/1", [Check { fall: 1, ..ttl(3600) }])]);
    fixture.at(95 * SECOND).await;
    assert_eq!(fixture.announced().await, held);
    fixture.at(102 * SECOND).await;
    assert_eq!(fixture.announced().await, "db/1 passing, web/1 passing");
}

#[tokio::test(start_paused = true)]
async fn recovered_instance_starts_slowly() {
    let pace = Pace { slow_start: 100 * SECOND, ..Pace::default() };
    let slow = || Definition { pace, ..definition("web/1", [Check { initial: Status::Passing, ..ttl(3600) }]) };
    let mut fixture = Fixture::new([slow()]);
    assert_eq!(fixture.announced().await, "web/1 warming: 1");
    let expected = [(51, "warming: 5"), (95, "warming: 9"), (101, "passing")];
    for (second, expected) in expected {
        fixture.at(second * SECOND).await;
        assert_eq!(fixture.announced().await, format!("web/1 {expected}"), "at {second}");
    }
    fixture.reload([slow(), definition("db/1", [])]);
    assert_eq!(fixture.announced().await, "db/1 passing, web/1 passing", "a reload restarts no slow start");
    let hold = Hold { reason: String::new(), since: 0, until: None };
    fixture.hold.send_replace(Maintenance([((Scope::Node, HoldReason::Draining), hold)].into()));
    assert_eq!(fixture.announced().await, "db/1 draining: , web/1 draining: ");
    fixture.hold.send_replace(Maintenance::default());
    assert_eq!(fixture.announced().await, "db/1 passing, web/1 warming: 1");
}

/// Outputs of the checks of an instance, as in reports.
fn outputs(fixture: &Fixture, key: &str) -> Vec<String> {
    let announced = fixture.announced.borrow().clone();
    let (_, known) = announced.announcements.iter().find(|(known, _)| known.to_string() == key).unwrap();
    known.report.iter().flat_map(|report| &report.checks).map(|check| check.output.to_string()).collect()
}

/// Stops the scheduler and returns its results as the next one of the process gets them, after `away`.
async fn hand_over(fixture: Fixture, away: Duration) -> Former {
    fixture.shutdown.cancel();
    fixture.scheduler.await.unwrap();
    sleep(away).await;
    Former::handed_over(fixture.results.borrow().clone(), away)
}

/// Stops the scheduler and returns its results as they are stored, for a start after `away`.
async fn stop(fixture: Fixture, away: Option<Duration>) -> Former {
    let Former { results, .. } = hand_over(fixture, away.unwrap_or(SECOND)).await;
    let stored = results.into_iter().map(|(scope, mut results)| {
        Arc::make_mut(&mut results).checks.iter_mut().for_each(|check| check.progress = None);
        (scope, results)
    });
    Former { results: stored.collect(), away }
}

#[tokio::test(start_paused = true)]
async fn checks_continue_with_their_schedule_within_the_process() {
    let slow = |host: &str| Check { interval: 60 * SECOND, ..tcp(host) };
    let all = || {
        [
            definition("db/1", [slow("db")]),
            definition("web/1", [slow("web"), Check { initial: Status::Passing, ..slow("hung") }]),
        ]
    };
    let mut fixture = Fixture::new(all());
    fixture.set("db", "refused");
    fixture.hosts.lock().unwrap().hanging.insert("hung".to_owned());
    fixture.at(130 * SECOND).await;
    let before = fixture.announced().await;
    let all_of = |fixture: &Fixture, host: &str| {
        let began = fixture.began;
        fixture.probed(host).into_iter().map(|at| began + Duration::from_millis(at as u64)).collect::<Vec<_>>()
    };
    let (db, web) = (all_of(&fixture, "db"), all_of(&fixture, "web"));
    let former = hand_over(fixture, SECOND / 10).await;

    let mut fixture = Fixture::restarted(all(), former);
    fixture.set("db", "refused");
    fixture.announced.changed().await.unwrap();
    assert_eq!(fixture.announced().await, before, "at the start");
    assert_eq!(outputs(&fixture, "db/1"), ["refused"]);
    assert_eq!(outputs(&fixture, "web/1"), ["", ""]);
    fixture.at(SECOND).await;
    assert_eq!(fixture.probed("hung").len(), 1, "an interrupted probe is repeated at once");
    fixture.at(60 * SECOND).await;
    for (host, before) in [("db", db), ("web", web)] {
        let probes = all_of(&fixture, host);
        let expected = *before.last().unwrap() + 60 * SECOND;
        let late = probes[0].saturating_duration_since(expected);
        assert!(probes.len() == 1 && probes[0] + SECOND / 100 > expected && late < SECOND / 100, "{host}: {late:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn counted_results_continue_within_the_process() {
    // Waits until the host has been probed once.
    let probed_once = async |fixture: &Fixture, host: &str| {
        while fixture.probed(host).is_empty() {
            sleep(SECOND / 10).await;
        }
        sleep(SECOND / 10).await;
    };
    let rising = || [definition("web/1", [Check { rise: 2, ..tcp("web") }])];
    let mut fixture = Fixture::new(rising());
    probed_once(&fixture, "web").await;
    assert_eq!(fixture.announced().await, "web/1 critical: no result yet");
    let former = hand_over(fixture, SECOND / 10).await;
    let mut fixture = Fixture::restarted(rising(), former);
    assert_eq!(fixture.announced().await, "web/1 critical: no result yet");
    probed_once(&fixture, "web").await;
    assert_eq!(fixture.announced().await, "web/1 passing");
    // Two failures make it critical.
    for expected in ["web/1 passing", "web/1 critical: reset"] {
        let former = hand_over(fixture, SECOND / 10).await;
        fixture = Fixture::restarted(rising(), former);
        fixture.set("web", "reset");
        probed_once(&fixture, "web").await;
        assert_eq!(fixture.announced().await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn held_text_of_a_ttl_check_is_handed_over() {
    let all = || [definition("web/1", [ttl(600)])];
    let fixture = Fixture::new(all());
    for output in ["first", "second"] {
        let (scope, check) = (scope("web/1"), "service:1".into());
        let report = TtlReport { scope, check, status: Status::Passing, output: output.to_owned() };
        fixture.ttl_reports.send(report).await.unwrap();
        sleep(SECOND).await;
        assert_eq!(outputs(&fixture, "web/1"), ["first"]);
    }
    let former = hand_over(fixture, SECOND / 10).await;
    let mut fixture = Fixture::restarted(all(), former);
    fixture.announced.changed().await.unwrap();
    assert_eq!(outputs(&fixture, "web/1"), ["second"]);
}

#[tokio::test(start_paused = true)]
async fn checks_continue_from_their_results_after_a_restart() {
    let all = || {
        [
            definition("db/1", [tcp("db")]),
            definition("new/1", []),
            definition("web/1", [tcp("web"), tcp("disk"), alias("db")]),
            definition("x/1", [alias("web")]),
        ]
    };
    let mut fixture = Fixture::new(all());
    fixture.set("db", "refused");
    fixture.at(20 * SECOND).await;
    let before = fixture.announced().await;
    assert_eq!(before, "db/1 critical: refused, new/1 passing, web/1 critical: db: refused, x/1 critical: db: refused");
    let since = fixture.announced.borrow().announcements.values().map(|known| known.report.clone()).collect::<Vec<_>>();
    let former = stop(fixture, Some(20 * SECOND)).await;

    let mut fixture = Fixture::restarted(all(), former);
    fixture.hosts.lock().unwrap().hanging.insert("disk".to_owned());
    fixture.set("db", "refused");
    fixture.announced.changed().await.unwrap();
    assert_eq!(fixture.began.elapsed(), Duration::ZERO);
    assert_eq!(fixture.announced().await, before, "at the start");
    assert_eq!(outputs(&fixture, "db/1"), ["refused (before the restart of the agent; not checked since)"]);
    let unconfirmed = "passing before the restart of the agent; not checked since";
    assert_eq!(outputs(&fixture, "web/1"), [unconfirmed, unconfirmed, "db: refused"]);
    for (known, since) in fixture.announced.borrow().announcements.values().zip(&since) {
        let times = |report: &Option<Arc<HealthReport>>| {
            let report = report.as_ref()?;
            Some((report.since, report.checks.iter().map(|check| check.since).collect::<Vec<_>>()))
        };
        assert_eq!(times(&known.report), times(since));
    }
    // The first result confirms the former one, also where the status stays.
    fixture.at(SECOND + SECOND / 10).await;
    assert_eq!(fixture.announced().await, before);
    assert_eq!(outputs(&fixture, "db/1"), ["refused"]);
    assert_eq!(outputs(&fixture, "web/1"), ["", unconfirmed, "db: refused"]);
    // Two failures make it critical. Failures before the restart do not count.
    fixture.set("web", "reset");
    fixture.at(11 * SECOND).await;
    assert_eq!(outputs(&fixture, "web/1")[0], "");
    fixture.at(27 * SECOND).await;
    assert_eq!(outputs(&fixture, "web/1")[0], "reset");
}

#[tokio::test(start_paused = true)]
async fn changed_checks_and_old_results_start_as_new() {
    let changed = || definition("web/1", [Check { timeout: SECOND, ..tcp("web") }]);
    let same = || definition("web/1", [tcp("web")]);
    let cases = [
        (same(), Some(50 * SECOND), "web/1 passing"),
        (same(), Some(51 * SECOND), "web/1 critical: no result yet"),
        (same(), None, "web/1 critical: no result yet"),
        (changed(), Some(SECOND), "web/1 critical: no result yet"),
        (Definition { enabled: false, ..same() }, Some(SECOND), "web/1 disabled"),
        (definition("web/2", [tcp("web")]), Some(SECOND), "web/2 critical: no result yet"),
    ];
    for (wanted, away, expected) in cases {
        let fixture = Fixture::new([same()]);
        fixture.at(20 * SECOND).await;
        let former = stop(fixture, away).await;
        let mut fixture = Fixture::restarted([wanted.clone()], former);
        fixture.hosts.lock().unwrap().hanging.insert("web".to_owned());
        assert_eq!(fixture.announced().await, expected, "{wanted:?} after {away:?}");
    }
    // The results are for the first definitions only.
    let fixture = Fixture::new([same()]);
    fixture.at(20 * SECOND).await;
    let former = stop(fixture, Some(SECOND)).await;
    let mut fixture = Fixture::restarted([], former);
    fixture.hosts.lock().unwrap().hanging.insert("web".to_owned());
    fixture.announced().await;
    fixture.reload([same()]);
    assert_eq!(fixture.announced().await, "web/1 critical: no result yet");
}

#[tokio::test(start_paused = true)]
async fn deadline_of_a_ttl_check_runs_on_while_the_agent_is_away() {
    let all = || [definition("web/1", [ttl(20)]), definition("x/1", [alias("web")])];
    let expired = "web/1 critical: no report within 20s, x/1 critical: web: no report within 20s";
    let warning = "web/1 warning: disk 91 %, x/1 warning: web: disk 91 %";
    // Seconds away, announced at the start, and when the report has expired.
    let cases = [(5, warning, Some(15)), (19, warning, Some(1)), (20, expired, None), (45, expired, None)];
    for (away, expected, left) in cases {
        let fixture = Fixture::new(all());
        fixture.at(SECOND).await;
        let output = "disk 91 %".to_owned();
        let report = TtlReport { scope: scope("web/1"), check: "service:1".into(), status: Status::Warning, output };
        fixture.ttl_reports.send(report).await.unwrap();
        sleep(SECOND / 100).await;
        let former = stop(fixture, Some(away * SECOND)).await;
        let mut fixture = Fixture::restarted(all(), former);
        fixture.announced.changed().await.unwrap();
        assert_eq!(fixture.began.elapsed(), Duration::ZERO);
        assert_eq!(fixture.announced().await, expected, "after {away} s");
        if let Some(left) = left {
            // The report is still valid: its output stays.
            assert_eq!(outputs(&fixture, "web/1"), ["disk 91 %"]);
            fixture.at(left * SECOND - SECOND / 2).await;
            assert_eq!(fixture.announced().await, warning, "after {away} s");
            fixture.at(left * SECOND + SECOND / 2).await;
        }
        assert_eq!(fixture.announced().await, expired, "after {away} s");
    }
}

#[tokio::test(start_paused = true)]
async fn ttl_check_without_a_report_expires_after_a_restart() {
    let passing = || [definition("web/1", [Check { initial: Status::Passing, ..ttl(20) }])];
    let fixture = Fixture::new(passing());
    fixture.at(15 * SECOND).await;
    let former = stop(fixture, Some(SECOND)).await;
    let mut fixture = Fixture::restarted(passing(), former);
    assert_eq!(fixture.announced().await, "web/1 passing");
    fixture.at(5 * SECOND).await;
    assert_eq!(fixture.announced().await, "web/1 critical: no report within 20s");
}

#[tokio::test(start_paused = true)]
async fn slow_start_and_damping_continue_after_a_restart() {
    let slow = Pace { slow_start: 100 * SECOND, ..Pace::default() };
    let damping = Some(Damping { half_life: 60 * SECOND, hold_at: 1, release_below: 6 });
    let all = || {
        [
            Definition { pace: slow, ..definition("web/1", [tcp("web")]) },
            Definition {
                pace: Pace { damping, ..Pace::default() },
                ..definition("db/1", [Check { fall: 1, ..ttl(600) }])
            },
        ]
    };
    let fixture = Fixture::new(all());
    let say = async |fixture: &Fixture, status| {
        let report = TtlReport { scope: scope("db/1"), check: "service:1".into(), status, output: "x".to_owned() };
        fixture.ttl_reports.send(report).await.unwrap();
    };
    for status in [Status::Passing, Status::Critical, Status::Passing] {
        say(&fixture, status).await;
        sleep(SECOND / 10).await;
    }
    fixture.at(31 * SECOND).await;
    let held = "db/1 flapping: failed 1 times or more in a short time";
    let former = stop(fixture, Some(10 * SECOND)).await;
    let mut fixture = Fixture::restarted(all(), former);
    assert_eq!(fixture.announced().await, format!("{held}, web/1 warming: 4"));
    fixture.at(10 * SECOND).await;
    assert_eq!(fixture.announced().await, "db/1 passing, web/1 warming: 5");
    fixture.at(60 * SECOND).await;
    assert_eq!(fixture.announced().await, "db/1 passing, web/1 passing");
    // A slow start that is over does not begin again.
    let former = stop(fixture, Some(10 * SECOND)).await;
    assert_eq!(Fixture::restarted(all(), former).announced().await, "db/1 passing, web/1 passing");
}

/// Returns the check with this id.
fn titled(id: &str, check: Check) -> Check {
    Check { title: Some(CheckTitle { id: Some(id.into()), ..CheckTitle::default() }), ..check }
}

/// Formats the results of the node's checks.
fn of_node(fixture: &Fixture) -> String {
    let report = fixture.announced.borrow().node_report.clone();
    let checks = report.iter().flat_map(|report| &report.checks);
    let lines = checks.map(|check| format!("{} {} [{}]", check.id, check.status.as_str(), check.output));
    lines.collect::<Vec<_>>().join(", ")
}

#[tokio::test(start_paused = true)]
async fn critical_check_of_the_node_withholds_its_instances() {
    let all = || [definition("web/1", [tcp("web")]), definition("db/1", [])];
    let of_node_checks = || [titled("node:1", Check { fall: 1, ..tcp("disk") }), titled("load", ttl(3600))];
    let mut fixture = Fixture::with_node_checks(all(), &of_node_checks(), Former::default());
    let say = async |fixture: &Fixture, status| {
        let report = TtlReport { scope: Scope::Node, check: "load".into(), status, output: "9.5".to_owned() };
        fixture.ttl_reports.send(report).await.unwrap();
    };
    let held = |why: &str| format!("db/1 node-critical: {why}, web/1 node-critical: {why}");
    assert_eq!(fixture.announced().await, held("tcp disk:1: no result yet"));
    fixture.at(2 * SECOND).await;
    assert_eq!(fixture.announced().await, held("ttl 3600s: no result yet"));
    assert_eq!(of_node(&fixture), "node:1 passing [], load critical [no result yet]");
    say(&fixture, Status::Passing).await;
    assert_eq!(fixture.announced().await, "db/1 passing, web/1 passing");
    say(&fixture, Status::Warning).await;
    assert_eq!(fixture.announced().await, "db/1 warning: ttl 3600s: 9.5, web/1 warning: ttl 3600s: 9.5");
    fixture.set("disk", "full");
    fixture.at(30 * SECOND).await;
    assert_eq!(fixture.announced().await, held("tcp disk:1: full"));
    assert_eq!(of_node(&fixture), "node:1 critical [full], load warning [9.5]");
    // A restart of the agent changes nothing.
    let former = stop(fixture, Some(SECOND)).await;
    let mut fixture = Fixture::with_node_checks(all(), &of_node_checks(), former);
    fixture.set("disk", "full");
    fixture.announced.changed().await.unwrap();
    assert_eq!(fixture.announced().await, held("tcp disk:1: full"));
    assert_eq!(
        of_node(&fixture),
        "node:1 critical [full (before the restart of the agent; not checked since)], load warning [9.5]"
    );
    // Maintenance of the node is the reason that counts, and one more result.
    let hold = Hold { reason: "new kernel".to_owned(), since: 0, until: None };
    fixture.hold.send_replace(Maintenance([((Scope::Node, HoldReason::NodeMaintenance), hold)].into()));
    assert_eq!(fixture.announced().await, "db/1 node-maintenance: new kernel, web/1 node-maintenance: new kernel");
    assert!(of_node(&fixture).starts_with("_node_maintenance critical [new kernel], node:1 critical"));
    fixture.hold.send_replace(Maintenance::default());
    // Without its checks, the node is as any other.
    fixture.node_checks.send_replace(Arc::from([]));
    fixture.at(3 * SECOND).await;
    assert_eq!(fixture.announced().await, "db/1 passing, web/1 passing");
    assert_eq!(of_node(&fixture), "");
}

#[tokio::test(start_paused = true)]
async fn reload_keeps_the_results_of_unchanged_checks_of_the_node() {
    let disk = || titled("node:1", tcp("disk"));
    let mut fixture = Fixture::with_node_checks([definition("db/1", [])], &[disk()], Former::default());
    fixture.at(2 * SECOND).await;
    assert_eq!(fixture.announced().await, "db/1 passing");
    let origin = Origin::Client { link_local: false, exec: false };
    let warning = Check { initial: Status::Warning, origin, ..titled("load", ttl(10)) };
    fixture.node_checks.send_replace(Arc::from([disk(), warning]));
    assert_eq!(fixture.announced().await, "db/1 warning: ttl 10s: no result yet");
    assert_eq!(of_node(&fixture), "node:1 passing [], load warning [no result yet]");
    fixture.at(15 * SECOND).await;
    assert_eq!(fixture.announced().await, "db/1 node-critical: ttl 10s: no report within 10s");
}

/// A reload of the configuration starts the scheduler again.
#[tokio::test(start_paused = true)]
async fn reload_with_a_new_check_of_the_node_changes_no_answer() {
    let check = |port: &str| Check { fall: 1, rise: 1, ..titled("node:1", tcp(port)) };
    let start = |check: Check, former| Fixture::with_node_checks([definition("db/1", [])], &[check], former);
    let mut fixture = Fixture::with_node_checks([definition("db/1", [])], &[], Former::default());
    assert_eq!(fixture.announced().await, "db/1 passing");
    let former = stop(fixture, Some(Duration::ZERO)).await;
    let mut fixture = start(check("disk"), former);
    assert_eq!(fixture.announced().await, "db/1 passing");
    assert_eq!(of_node(&fixture), "node:1 passing []");
    fixture.set("disk", "full");
    fixture.at(30 * SECOND).await;
    assert_eq!(fixture.announced().await, "db/1 node-critical: tcp disk:1: full");
    // The edited check has the status of the former one until its first result.
    let former = stop(fixture, Some(Duration::ZERO)).await;
    let mut fixture = start(check("mirror"), former);
    assert_eq!(fixture.announced().await, "db/1 node-critical: tcp mirror:1: full");
    fixture.at(2 * SECOND).await;
    assert_eq!(fixture.announced().await, "db/1 passing");
    // After a long pause, and for a check of a client, the state is unknown.
    let client = Origin::Client { link_local: false, exec: false };
    for (origin, away) in [(Origin::File, None), (client, Some(Duration::ZERO))] {
        let former = stop(fixture, away).await;
        fixture = start(Check { origin, ..check("disk") }, former);
        assert_eq!(fixture.announced().await, "db/1 node-critical: tcp disk:1: no result yet");
    }
}

#[tokio::test(start_paused = true)]
async fn alias_of_the_node_has_its_status() {
    let alias = check(Probe::Alias(AliasTarget::Node));
    let mut fixture =
        Fixture::with_node_checks([definition("web/1", [alias])], &[titled("node:1", tcp("disk"))], Former::default());
    fixture.at(2 * SECOND).await;
    assert_eq!(fixture.announced().await, "web/1 passing");
    fixture.set("disk", "full");
    fixture.at(30 * SECOND).await;
    assert_eq!(fixture.announced().await, "web/1 node-critical: tcp disk:1: full");
    assert_eq!(outputs(&fixture, "web/1"), ["node: full"]);
}

#[tokio::test(start_paused = true)]
async fn report_that_changes_only_its_text_is_published_at_a_limited_rate() {
    let mut fixture = Fixture::new([definition("web/1", [ttl(3600)])]);
    let say = async |fixture: &mut Fixture, status, output: &str| {
        let (scope, output) = (scope("web/1"), output.to_owned());
        fixture.ttl_reports.send(TtlReport { scope, check: "service:1".into(), status, output }).await.unwrap();
        sleep(SECOND / 100).await;
    };
    // Seconds, status and text of a report, output afterwards, and whether it was published.
    let script = [
        (1, Status::Passing, "0", "0", true),
        (2, Status::Passing, "1", "0", false),
        (3, Status::Warning, "2", "2", true),
        (4, Status::Warning, "3", "2", false),
        (5, Status::Warning, "4", "2", false),
    ];
    for (second, status, text, output, published) in script {
        fixture.at(second * SECOND).await;
        fixture.announced.borrow_and_update();
        say(&mut fixture, status, text).await;
        assert_eq!(outputs(&fixture, "web/1"), [output], "at second {second}");
        assert_eq!(fixture.announced.has_changed().unwrap(), published, "at second {second}");
    }
    // The last text arrives without another report.
    fixture.at(32 * SECOND).await;
    assert_eq!(outputs(&fixture, "web/1"), ["2"]);
    fixture.at(34 * SECOND).await;
    assert_eq!(outputs(&fixture, "web/1"), ["4"]);
    // Reports each second for 10 minutes.
    let mut changes = 0;
    for second in 35..635 {
        fixture.at(second * SECOND).await;
        fixture.announced.borrow_and_update();
        say(&mut fixture, Status::Warning, &second.to_string()).await;
        sleep(SECOND - SECOND / 50).await;
        changes += u32::from(fixture.announced.has_changed().unwrap());
    }
    assert!((19..=21).contains(&changes), "{changes} publications in 10 minutes");
}
