//! One query across the upstreams of a pool: the first usable reply wins.
//!
//! If an upstream takes longer than usual, the next one is queried in parallel. A dead server therefore delays a client by
//! a tenth of a second until it is detected, and not at all afterwards.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tracing::{info, warn};

use super::{
    error::UpstreamError,
    exchange::{Exchanged, ask},
    rng,
    secure::Secure,
    upstreams::Upstreams,
};
use crate::{
    dns::recursion::{
        loop_detection::LoopDetector,
        upstream_query::{Forward, Manners},
        upstream_reply::Reply,
    },
    metrics::{self, Cause},
    model::upstream_address::UpstreamAddress,
};

/// Total timeout of a query. glibc and musl retry after five seconds and should get a response before.
pub(super) const PATIENCE: Duration = Duration::from_millis(4500);
/// First retransmission interval; doubles each time.
const FIRST_REPEAT: Duration = Duration::from_millis(400);
/// Maximum number of messages per query, to all upstreams together.
const MESSAGES: usize = 12;

/// Time that a loop probe may take to return to this server.
const LOOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Upstreams for the same names.
pub(super) struct Pool {
    upstreams: Mutex<Upstreams>,
    meters: Mutex<Meters>,
    metrics: metrics::Upstreams,
    secure: Arc<Secure>,
    started: Instant,
}

/// Metrics of each upstream.
type Meters = HashMap<UpstreamAddress, Arc<metrics::Upstream>>;

/// Query to one upstream.
struct Attempt {
    at: usize,
    server: UpstreamAddress,
    meter: Arc<metrics::Upstream>,
    began: Instant,
    patience: Duration,
    ended: bool,
}

impl Pool {
    pub(super) fn new(servers: &[UpstreamAddress], secure: Arc<Secure>, metrics: metrics::Upstreams) -> Self {
        let (upstreams, meters) = (Mutex::new(Upstreams::new(servers)), Mutex::new(meters(servers, &metrics)));
        Self { upstreams, meters, metrics, secure, started: Instant::now() }
    }

    /// Replaces the upstreams. Reports whether they differ.
    pub(super) fn replace(&self, servers: &[UpstreamAddress]) -> bool {
        *self.meters.lock().unwrap_or_else(PoisonError::into_inner) = meters(servers, &self.metrics);
        self.with(|upstreams| upstreams.replace(servers))
    }

    /// Resolves a query.
    ///
    /// # Errors
    /// Text for the Extended DNS Error: the failure of each upstream.
    pub(super) async fn fetch(&self, forward: &Forward) -> Result<Reply, String> {
        let plan = self.with(|upstreams| upstreams.plan(self.now()));
        if plan.order.is_empty() {
            return Err("no upstream is usable; set resolver.upstreams".to_owned());
        }
        let deadline = Instant::now() + PATIENCE;
        let (mut running, mut attempts) = (JoinSet::new(), Vec::<Attempt>::new());
        let start = |at: usize, running: &mut JoinSet<_>, attempts: &mut Vec<Attempt>| {
            let known = self.with(|upstreams| {
                upstreams.get(at).map(|server| (server.server.clone(), server.manners(), server.patience()))
            });
            let Some((server, manners, patience)) = known else { return Duration::ZERO };
            let (number, forward, secure, to) = (attempts.len(), forward.clone(), self.secure.clone(), server.clone());
            running.spawn(async move { (number, ask(&to, &secure, &forward, manners, rng()).await) });
            let meter = self.meter(&server);
            meter.asked();
            attempts.push(Attempt { at, server, meter, began: Instant::now(), patience, ended: false });
            patience
        };
        if let Some(at) = plan.probe {
            start(at, &mut running, &mut attempts);
        }
        let (mut turn, mut next) = (0, Instant::now());
        let (mut refusal, mut reasons) = (None, Vec::<String>::new());
        loop {
            let is_more = turn < MESSAGES;
            let ended = tokio::select! {
                biased;
                Some(Ok(ended)) = running.join_next(), if !running.is_empty() => ended,
                () = sleep_until(next), if is_more && next < deadline => {
                    let server = plan.order[turn % plan.order.len()];
                    let patience = start(server, &mut running, &mut attempts);
                    turn += 1;
                    let round = (turn / plan.order.len()) as u32;
                    let is_last_of_round = turn % plan.order.len() == 0;
                    let pause = if is_last_of_round { FIRST_REPEAT * 2_u32.pow(round.min(4)) } else { patience };
                    next = Instant::now() + pause;
                    continue;
                }
                () = sleep_until(deadline) => break,
            };
            let (number, outcome) = ended;
            attempts[number].ended = true;
            let Attempt { at, server, meter, began, .. } = &attempts[number];
            let at = *at;
            match outcome {
                Ok(Exchanged { reply, manners }) => {
                    meter.answered(began.elapsed());
                    self.with(|upstreams| {
                        upstreams.answered(at, began.elapsed());
                        upstreams.learned(at, manners);
                    });
                    if reply.is_answer() {
                        self.fail_late_attempts(&attempts);
                        return Ok(reply);
                    }
                    meter.failed(Cause::Refusal);
                    refusal.get_or_insert(reply);
                }
                Err(failed) => {
                    meter.failed(failed.cause());
                    self.fail(at, server, &failed);
                    let reason = format!("{server}: {failed}");
                    if !reasons.contains(&reason) {
                        reasons.push(reason);
                    }
                }
            }
            let is_first_round = turn < plan.order.len();
            if is_first_round {
                next = Instant::now();
            } else if running.is_empty() && refusal.is_some() {
                break;
            }
        }
        self.fail_late_attempts(&attempts);
        match refusal {
            Some(reply) => Ok(reply),
            None if reasons.is_empty() => Err("no upstream responded in time".to_owned()),
            None => Err(reasons.join("; ")),
        }
    }

    /// Probes upstreams for forwarding loops and disables those that loop. Probes only suspects, or all upstreams if `all`.
    pub(super) async fn detect_loops(&self, loop_detector: &LoopDetector, all: bool) {
        for server in self.with(|upstreams| upstreams.suspects(all)) {
            let (number, name) = loop_detector.draw();
            let probe = Forward::probe(&name);
            // The reply is irrelevant: the detector sees whether the probe returned.
            let _ = timeout(LOOP_TIMEOUT, ask(&server, &self.secure, &probe, Manners::default(), rng())).await;
            let loops = loop_detector.take(number);
            if self.with(|upstreams| upstreams.set_loops(&server, loops)) {
                if loops {
                    warn!(upstream = %server, "forwarding loop detected; upstream disabled, set another in resolver.upstreams");
                } else {
                    info!(upstream = %server, "forwarding loop ended; upstream enabled");
                }
            }
        }
    }

    /// Marks the attempts as failed that exceeded the usual time when another upstream had replied.
    fn fail_late_attempts(&self, attempts: &[Attempt]) {
        for attempt in attempts.iter().filter(|attempt| !attempt.ended && attempt.began.elapsed() > attempt.patience) {
            attempt.meter.failed(Cause::Late);
            if self.with(|upstreams| upstreams.failed(attempt.at, self.now())) {
                warn!(upstream = %attempt.server, "upstream does not respond; preferring others");
            }
        }
    }

    fn fail(&self, at: usize, server: &UpstreamAddress, failed: &UpstreamError) {
        if self.with(|upstreams| upstreams.failed(at, self.now())) {
            warn!(upstream = %server, "upstream failed: {failed}; preferring others");
        }
    }

    fn meter(&self, server: &UpstreamAddress) -> Arc<metrics::Upstream> {
        let meters = self.meters.lock().unwrap_or_else(PoisonError::into_inner);
        // A replaced upstream is counted while its last queries run.
        meters.get(server).cloned().unwrap_or_else(|| self.metrics.of(server.label()))
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Runs `act` under the lock; no caller panics half-way.
    fn with<T>(&self, act: impl FnOnce(&mut Upstreams) -> T) -> T {
        act(&mut self.upstreams.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn meters(servers: &[UpstreamAddress], metrics: &metrics::Upstreams) -> Meters {
    servers.iter().map(|server| (server.clone(), metrics.of(server.label()))).collect()
}
