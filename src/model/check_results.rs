//! Results of a node's checks, which survive a restart of its agent.
//!
//! An agent that starts goes on with the results of the former one, so that its restart withdraws no healthy instance and
//! answers no dead one. A result counts for a check of the same instance and definition:
//!
//! - A probed check or an alias goes on with its result if the agent was away for at most [`recent`]. The result stays
//!   [`unconfirmed`] until the first probe.
//! - The deadline of a TTL check runs on while the agent is away, also across a reboot of the host.
//! - Within a process, such as at a reload, a probed check goes on with its exact [`Progress`]: nothing is unconfirmed.
//!
//! Points in time on the monotonic clock of the host ([`Moment::uptime`]) are comparable between agents of one boot.

use std::{hash::Hasher, sync::Arc, time::Duration};

use serde_json::{Value, json};
use siphasher::sip::SipHasher13;

use super::{
    announcement::{InstanceState, MAX_REASON, cut},
    flap_damping::Penalty,
    health::{Health, Status},
    maintenance::Scope,
    service::{AliasTarget, Check, Probe, ProbeTls},
};

/// Results of a node's checks: those of its instances, and those of the node as a whole. Clones share structure.
pub type CheckResults = imbl::OrdMap<Scope, Arc<InstanceResults>>;

/// State of an instance and results of its checks.
#[derive(Clone, Debug, PartialEq)]
pub struct InstanceResults {
    /// Announced state.
    pub state: InstanceState,
    /// Unix time in seconds of the last change of state.
    pub since: u64,
    /// Uptime at which the instance became healthy without a hold; `None` while it is not.
    pub up: Option<Duration>,
    /// Penalty for recent falls.
    pub penalty: Penalty,
    /// Results of its checks, in the order of their definition. Checks without a result are left out.
    pub checks: Vec<CheckResult>,
}

/// Result of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckResult {
    /// Identifies the definition of the check.
    pub check: Fingerprint,
    /// Status after `rise` and `fall`.
    pub status: Status,
    /// Reason of the status; empty if passing.
    pub reason: Arc<str>,
    /// Unix time in seconds of the last change of status.
    pub since: u64,
    /// Uptime at which the report of a TTL check expires; `None` for other checks.
    pub expires: Option<Duration>,
    /// State of a probed check at the end of its scheduler; `None` while it runs. It is handed over within the process, and
    /// never stored.
    pub progress: Option<Progress>,
}

/// State of a probed check between two probes, with which another scheduler of the process continues as if the check had
/// not been interrupted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Status and counted results.
    pub health: Health,
    /// Uptime of the result that set the reason; `None` for the initial reason.
    pub reason_since: Option<Duration>,
    /// True if the status is from before a restart of the agent and no probe has ended since.
    pub unconfirmed: bool,
    /// Uptime of the next probe. A probe that was interrupted is the next one.
    pub next: Duration,
    /// Uptime of the probe after it; `None`: one interval later.
    pub second: Option<Duration>,
}

/// A point in time, on two clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Unix time.
    pub unix: Duration,
    /// Monotonic clock of the host, which starts at its boot and which all timers of the agent use (CLOCK_MONOTONIC).
    pub uptime: Duration,
}

/// Largest difference of the Unix time of one boot, computed at two moments. A larger one means another boot or a step of
/// the system clock. Both clocks are slewed alike, and are read within microseconds.
const SAME_BOOT: Duration = Duration::from_secs(2);

impl Moment {
    /// Reports whether `earlier` was in the same boot of the host. False if the system clock has been stepped since, or the
    /// host suspended: this is the safe error.
    pub fn is_same_boot(&self, earlier: &Self) -> bool {
        let ran = self.uptime.checked_sub(earlier.uptime);
        ran.is_some_and(|ran| (earlier.unix + ran).abs_diff(self.unix) <= SAME_BOOT)
    }
}

/// Stable identity of a check's definition: a hash of everything that affects results. The initial status and the display
/// name do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub u64);

impl Fingerprint {
    /// Returns the fingerprint of a definition: SipHash-1-3 of its canonical text, the same in all processes and versions.
    /// A later field is part of the text only where it differs from its default.
    pub fn of(check: &Check) -> Self {
        let probe = match &check.probe {
            Probe::Http(http) => {
                let (url, skip_verify) = (http.url.as_str(), http.tls.skip_verify);
                let mut text =
                    json!(["http", url, http.method, http.headers, http.body, http.expect_status, skip_verify]);
                add(&mut text, !http.warn_status.is_empty(), || json!({"warn": http.warn_status}));
                add(&mut text, http.follow_redirects, || json!("follow"));
                add(&mut text, http.tls.server_name.is_some(), || json!({"name": http.tls.server_name}));
                text
            }
            Probe::Tcp(endpoint) => json!(["tcp", endpoint.host, endpoint.port]),
            Probe::Udp(endpoint) => json!(["udp", endpoint.host, endpoint.port]),
            Probe::Grpc { endpoint, service, tls } => {
                let mut text = json!(["grpc", endpoint.host, endpoint.port, service]);
                add(&mut text, tls.is_some(), || tls_text(tls.as_ref()));
                text
            }
            Probe::H2Ping { endpoint, tls } => json!(["h2ping", endpoint.host, endpoint.port, tls_text(tls.as_ref())]),
            Probe::Exec { argv } => json!(["exec", argv]),
            Probe::Systemd { unit } => json!(["systemd", unit]),
            Probe::Alias(AliasTarget::Service(service)) => json!(["alias", service.as_str()]),
            Probe::Alias(AliasTarget::Registered(id)) => json!(["alias", {"id": id.as_str()}]),
            Probe::Alias(AliasTarget::Node) => json!(["alias", {"node": true}]),
            Probe::Ttl { ttl } => json!(["ttl", ttl.as_millis() as u64]),
        };
        let id = check.title.as_ref().and_then(|title| title.id.as_deref());
        let (interval, timeout) = (check.interval.as_millis() as u64, check.timeout.as_millis() as u64);
        let mut text = json!([probe, interval, timeout, check.rise, check.fall, id]);
        add(&mut text, check.warn_after < check.fall, || json!({"warn_after": check.warn_after}));
        add(&mut text, check.output_max.is_some(), || json!({"output_max": check.output_max}));
        let text = text.to_string();
        let mut hash = SipHasher13::new();
        hash.write(text.as_bytes());
        Self(hash.finish())
    }
}

/// Appends a part to a list if it differs from its default.
fn add(list: &mut Value, differs: bool, part: impl FnOnce() -> Value) {
    if let (Value::Array(list), true) = (list, differs) {
        list.push(part());
    }
}

fn tls_text(tls: Option<&ProbeTls>) -> Value {
    tls.map_or(Value::Null, |tls| json!(["tls", tls.skip_verify, tls.server_name]))
}

/// Results from before a restart of the agent.
#[derive(Clone, Debug, Default)]
pub struct Former {
    /// The results. Their uptimes are those of the current boot.
    pub results: CheckResults,
    /// Time for which no agent ran; `None` if unknown, or if the host was rebooted meanwhile.
    pub away: Option<Duration>,
}

/// Part of [`Former`] that a new start of one instance goes on with.
#[derive(Clone, Debug, PartialEq)]
pub struct FormerInstance {
    /// State before the restart, and the Unix time in seconds of its beginning.
    pub state: Option<(InstanceState, u64)>,
    /// Uptime at which the instance became healthy without a hold.
    pub up: Option<Duration>,
    /// Penalty for recent falls.
    pub penalty: Penalty,
    /// Result of each check; `None`: the check starts at its initial status.
    pub checks: Vec<Option<CheckResult>>,
}

/// Longest time without an agent after which a probed check goes on with its result: two intervals, after which the agent
/// would have noticed a failure itself, and the time of a restart.
pub fn recent(check: &Check) -> Duration {
    2 * check.interval + Duration::from_secs(30)
}

impl Former {
    /// Reports whether a probed check goes on with its result.
    pub fn is_recent(&self, check: &Check) -> bool {
        self.away.is_some_and(|away| away <= recent(check))
    }

    /// Returns what an instance, or the node, goes on with. Equal checks are matched in their order.
    pub fn of(&self, scope: &Scope, checks: &[Check]) -> FormerInstance {
        let known = self.results.get(scope);
        let mut results: Vec<&CheckResult> = known.map_or_else(Vec::new, |known| known.checks.iter().collect());
        let counts = |check: &Check| match check.probe {
            Probe::Ttl { .. } => true,
            _ => self.is_recent(check),
        };
        let mut take = |check: &Check| {
            let fingerprint = Fingerprint::of(check);
            let at = results.iter().position(|result| result.check == fingerprint)?;
            Some(results.remove(at).clone())
        };
        let checks: Vec<_> = checks.iter().map(|check| take(check).filter(|_| counts(check))).collect();
        // After a reboot of the host, its services have started again, too.
        let known = known.filter(|_| self.away.is_some());
        let is_whole = checks.iter().all(Option::is_some);
        FormerInstance {
            state: known.map(|known| (known.state.clone(), known.since)),
            up: known.filter(|_| is_whole).and_then(|known| known.up),
            penalty: known.map(|known| known.penalty).unwrap_or_default(),
            checks,
        }
    }

    /// Returns results that were handed over within the process, or across its upgrade, `away` ago.
    pub fn handed_over(results: CheckResults, away: Duration) -> Self {
        Self { results, away: Some(away) }
    }

    /// Returns results that were stored at `saved` as those of a start at `now`. They were valid until the Unix time
    /// `valid_until`, which is not before `saved`.
    ///
    /// After a reboot, the deadlines of TTL checks have run on by the system clock.
    pub fn stored(results: CheckResults, saved: &Moment, valid_until: Duration, now: &Moment) -> Self {
        let valid_for = valid_until.saturating_sub(saved.unix);
        // The clock may have been stepped since: the results were not valid later than now.
        let valid_until = Moment { unix: saved.unix + valid_for, uptime: saved.uptime + valid_for };
        if now.is_same_boot(saved) && now.is_same_boot(&valid_until) {
            let away = now.uptime.saturating_sub(valid_until.uptime);
            return Self { results, away: Some(away) };
        }
        let elapsed = now.unix.saturating_sub(saved.unix);
        let expires = |stored: Duration| now.uptime + stored.saturating_sub(saved.uptime).saturating_sub(elapsed);
        let moved = results.into_iter().map(|(key, mut known)| {
            for check in &mut Arc::make_mut(&mut known).checks {
                check.expires = check.expires.map(expires);
            }
            (key, known)
        });
        Self { results: moved.collect(), away: None }
    }
}

/// Returns the output of a check whose result is from before a restart of the agent. The reason is cut so that the whole
/// has at most [`MAX_REASON`] octets.
pub fn unconfirmed(status: Status, reason: &str) -> String {
    const PASSING: &str = "passing before the restart of the agent; not checked since";
    const SUFFIX: &str = " (before the restart of the agent; not checked since)";
    match status {
        Status::Passing => PASSING.to_owned(),
        Status::Warning | Status::Critical => format!("{}{SUFFIX}", cut(reason, MAX_REASON - SUFFIX.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        name::label,
        service::{CheckTitle, Endpoint, HttpProbe, InstanceKey},
    };

    const SECOND: Duration = Duration::from_secs(1);

    fn check(probe: Probe) -> Check {
        Check::new(probe)
    }

    fn tcp(port: u16) -> Check {
        check(Probe::Tcp(Endpoint { host: "127.0.0.1".to_owned(), port }))
    }

    fn ttl(seconds: u64) -> Check {
        check(Probe::Ttl { ttl: Duration::from_secs(seconds) })
    }

    fn key() -> Scope {
        Scope::Instance(InstanceKey { service: label("web").into(), id: label("1") })
    }

    fn result(check: &Check, reason: &str, expires: Option<u64>) -> CheckResult {
        let (status, expires) = (Status::Critical, expires.map(Duration::from_secs));
        CheckResult { check: Fingerprint::of(check), status, reason: reason.into(), since: 1, expires, progress: None }
    }

    fn results(checks: Vec<CheckResult>) -> CheckResults {
        let (up, penalty) = (Some(SECOND), Penalty { value: 2.0, at: SECOND, held: true });
        let known = InstanceResults { state: InstanceState::Passing, since: 7, up, penalty, checks };
        [(key(), Arc::new(known))].into_iter().collect()
    }

    #[test]
    fn fingerprint_is_the_same_in_all_versions() {
        let http = HttpProbe {
            url: "https://10.0.0.7:8443/healthz?x=1".parse().unwrap(),
            method: "GET".to_owned(),
            headers: vec![("Accept".to_owned(), "*/*".to_owned())],
            body: Some("\u{e9}\"\n".to_owned()),
            expect_status: vec![200, 204],
            tls: ProbeTls { skip_verify: true, server_name: None },
            ..HttpProbe::get("http://unused/".parse().unwrap())
        };
        let endpoint = Endpoint { host: "::1".to_owned(), port: 9 };
        let title = Some(CheckTitle { id: Some("disk".into()), name: Some("Disk".into()), ..CheckTitle::default() });
        let cases = [
            (check(Probe::Http(http)), 0x07bd_8582_4873_b5c2_u64),
            (tcp(80), 0x2d18_9f24_e1af_171f),
            (check(Probe::Grpc { endpoint, service: "my.Service".to_owned(), tls: None }), 0x3fe9_df76_53a7_b980),
            (check(Probe::Exec { argv: vec!["/bin/true".to_owned(), "-x".to_owned()] }), 0x8ba2_ec74_918e_d936),
            (check(Probe::Systemd { unit: "nginx.service".to_owned() }), 0xcbbc_6c0e_34a8_bdfa),
            (check(Probe::Alias(AliasTarget::Service(label("db").into()))), 0x23ee_d61b_286c_17f8),
            (ttl(20), 0xa464_0806_2340_b996),
            (Check { title, ..ttl(20) }, 0x4812_4f17_dfc6_6326),
        ];
        // A changed number loses the results of all checks of this kind at an upgrade.
        let got: Vec<String> = cases.iter().map(|(check, _)| format!("{:#018x}", Fingerprint::of(check).0)).collect();
        let expected: Vec<String> = cases.iter().map(|(_, expected)| format!("{expected:#018x}")).collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn fingerprint_covers_what_affects_results() {
        let base = || tcp(80);
        let title = |id: &str, name: &str| {
            Some(CheckTitle { id: Some(id.into()), name: Some(name.into()), ..CheckTitle::default() })
        };
        let differ = [
            tcp(81),
            Check { interval: SECOND, ..base() },
            Check { timeout: SECOND, ..base() },
            Check { rise: 2, ..base() },
            Check { fall: 1, ..base() },
            Check { warn_after: 1, ..base() },
            Check { output_max: Some(9), ..base() },
            check(Probe::Udp(Endpoint { host: "127.0.0.1".to_owned(), port: 80 })),
            Check { title: title("a", "A"), ..base() },
        ];
        for other in differ {
            assert_ne!(Fingerprint::of(&other), Fingerprint::of(&base()), "{other:?}");
        }
        assert_eq!(Fingerprint::of(&Check { initial: Status::Passing, ..base() }), Fingerprint::of(&base()));
        let named = |name| Fingerprint::of(&Check { title: title("a", name), ..base() });
        assert_eq!(named("A"), named("B"));
        let get = || HttpProbe::get("https://10.0.0.7/".parse().unwrap());
        let name = |name: &str| ProbeTls { server_name: Some(name.to_owned()), ..ProbeTls::default() };
        let endpoint = || Endpoint { host: "127.0.0.1".to_owned(), port: 80 };
        let grpc = |tls| Probe::Grpc { endpoint: endpoint(), service: String::new(), tls };
        let h2ping = |tls| Probe::H2Ping { endpoint: endpoint(), tls };
        let probes = [
            Probe::Http(get()),
            Probe::Http(HttpProbe { warn_status: vec![429], ..get() }),
            Probe::Http(HttpProbe { follow_redirects: true, ..get() }),
            Probe::Http(HttpProbe { tls: name("a"), ..get() }),
            Probe::Http(HttpProbe { tls: name("b"), ..get() }),
            grpc(None),
            grpc(Some(ProbeTls::default())),
            grpc(Some(name("a"))),
            h2ping(None),
            h2ping(Some(ProbeTls::default())),
            h2ping(Some(name("a"))),
        ];
        let all: std::collections::BTreeSet<u64> =
            probes.iter().map(|probe| Fingerprint::of(&check(probe.clone())).0).collect();
        assert_eq!(all.len(), probes.len());
    }

    #[test]
    fn unchanged_checks_continue_if_the_agent_was_away_shortly() {
        // Known checks, wanted checks, seconds away, reasons of the former results.
        let two = || vec![result(&tcp(80), "a", None), result(&tcp(81), "b", None)];
        let cases = [
            (two(), vec![tcp(80), tcp(81)], Some(0), "a b"),
            (two(), vec![tcp(81), tcp(80)], Some(50), "b a"),
            (two(), vec![tcp(80), tcp(81)], Some(51), "- -"),
            (two(), vec![tcp(80), tcp(81)], None, "- -"),
            (two(), vec![tcp(82), tcp(80)], Some(1), "- a"),
            (two(), vec![tcp(80), tcp(80)], Some(1), "a -"),
            (vec![result(&tcp(80), "a", None), result(&tcp(80), "b", None)], vec![tcp(80), tcp(80)], Some(1), "a b"),
            (two(), vec![Check { initial: Status::Passing, ..tcp(80) }], Some(1), "a"),
            // The scheduler compares the deadline of a TTL check with the time.
            (vec![result(&ttl(20), "a", Some(7))], vec![ttl(20)], None, "a"),
            (vec![result(&ttl(20), "a", Some(7))], vec![ttl(20)], Some(1_000_000), "a"),
            (vec![result(&ttl(20), "a", Some(7))], vec![ttl(21)], Some(1), "-"),
        ];
        for (known, wanted, away, expected) in cases {
            let former = Former { results: results(known), away: away.map(Duration::from_secs) };
            let got = former.of(&key(), &wanted);
            let reasons: Vec<&str> =
                got.checks.iter().map(|result| result.as_ref().map_or("-", |result| &result.reason)).collect();
            assert_eq!(reasons.join(" "), expected, "{wanted:?} after {away:?}");
            assert_eq!(got.state.is_some(), away.is_some());
            assert_eq!(got.penalty.held, away.is_some());
            assert_eq!(got.up.is_some(), away.is_some() && !expected.contains('-'), "{expected}");
        }
        let unknown = Former::default().of(&key(), &[tcp(80)]);
        let expected = FormerInstance { state: None, up: None, penalty: Penalty::default(), checks: vec![None] };
        assert_eq!(unknown, expected);
    }

    #[test]
    fn deadlines_run_on_while_the_agent_is_away() {
        let at = |unix, uptime| Moment { unix: Duration::from_secs(unix), uptime: Duration::from_secs(uptime) };
        // Stored, valid until, now, time away, expiry of a report that had 20 s left when it was stored.
        let cases = [
            (at(1000, 50), 1000, at(1005, 55), Some(5), 70),
            // Nothing had changed for 30 s when the agent ended.
            (at(1000, 50), 1030, at(1045, 95), Some(15), 70),
            // The host was rebooted.
            (at(1000, 50), 1000, at(1012, 5), None, 13),
            (at(1000, 50), 1000, at(1060, 5), None, 5),
            (at(1000, 50), 1000, at(1200, 100), None, 100),
            (at(1000, 50), 1030, at(1045, 60), None, 60),
            // The clock was set forward or back.
            (at(1000, 50), 1000, at(4605, 55), None, 55),
            (at(1000, 50), 1000, at(405, 55), None, 75),
            (at(1000, 50), 4600, at(1012, 62), None, 70),
        ];
        for (stored, valid_until, now, away, expires) in cases {
            let known = results(vec![result(&ttl(20), "", Some(70)), result(&tcp(80), "", None)]);
            let former = Former::stored(known, &stored, Duration::from_secs(valid_until), &now);
            let got = former.results[&key()].checks.iter().map(|check| check.expires).collect::<Vec<_>>();
            let expected = [Some(Duration::from_secs(expires)), None];
            assert_eq!((former.away, &got[..]), (away.map(Duration::from_secs), &expected[..]), "{stored:?} {now:?}");
        }
    }

    #[test]
    fn output_of_an_unconfirmed_result_says_so() {
        assert_eq!(unconfirmed(Status::Passing, ""), "passing before the restart of the agent; not checked since");
        let refused = "refused (before the restart of the agent; not checked since)";
        assert_eq!(unconfirmed(Status::Critical, "refused"), refused);
        let long = unconfirmed(Status::Warning, &"\u{e9}".repeat(200));
        assert!(
            long.len() <= MAX_REASON && long.ends_with("\u{e9} (before the restart of the agent; not checked since)")
        );
    }
}
