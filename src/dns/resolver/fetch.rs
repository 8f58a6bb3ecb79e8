//! One question through all upstreams that may know: the first good answer counts.
//!
//! An upstream that takes longer than usual is not waited for: the next one is asked as well, and whoever is first wins. So
//! a dead server costs a client a tenth of a second while nobody knows it, and nothing after.

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
    exchange::{Said, ask},
    rng,
    secure::Secure,
    upstream::Upstreams,
};
use crate::{
    dns::recursion::{
        forward::{Forward, Manners},
        loop_detection::LoopDetector,
        reply::Reply,
    },
    metrics::{self, Cause},
    model::upstream_address::UpstreamAddress,
};

/// How long a question may take in all: glibc and musl ask again after five seconds, and then should not do so in vain.
pub(super) const PATIENCE: Duration = Duration::from_millis(4500);
/// From one message to an upstream to the next one, at first; twice as long each time.
const FIRST_REPEAT: Duration = Duration::from_millis(400);
/// Messages for one question, to all upstreams together.
const MESSAGES: usize = 12;

/// How long a question of ours may take to come back to us.
const ECHO: Duration = Duration::from_secs(2);

/// Upstreams that are asked for the same names.
pub(super) struct Pool {
    upstreams: Mutex<Upstreams>,
    meters: Mutex<Meters>,
    metrics: metrics::Upstreams,
    secure: Arc<Secure>,
    started: Instant,
}

/// Where it is counted how each upstream does.
type Meters = HashMap<UpstreamAddress, Arc<metrics::Upstream>>;

/// An attempt, as long as it runs.
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

    /// Asks these from now on; says whether they are others.
    pub(super) fn replace(&self, servers: &[UpstreamAddress]) -> bool {
        *self.meters.lock().unwrap_or_else(PoisonError::into_inner) = meters(servers, &self.metrics);
        self.with(|upstreams| upstreams.replace(servers))
    }

    /// Has an upstream answer.
    ///
    /// # Errors
    /// Why none did, for people.
    pub(super) async fn fetch(&self, forward: &Forward) -> Result<Reply, String> {
        let plan = self.with(|upstreams| upstreams.plan(self.now()));
        if plan.order.is_empty() {
            return Err("there is no upstream that does not ask this server: set resolver.upstreams".to_owned());
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
            let (number, said) = ended;
            attempts[number].ended = true;
            let Attempt { at, server, meter, began, .. } = &attempts[number];
            let at = *at;
            match said {
                Ok(Said { reply, manners }) => {
                    meter.answered(began.elapsed());
                    self.with(|upstreams| {
                        upstreams.answered(at, began.elapsed());
                        upstreams.learned(at, manners);
                    });
                    if reply.is_answer() {
                        self.blame_the_late(&attempts);
                        return Ok(reply);
                    }
                    meter.failed(Cause::Refusal);
                    refusal.get_or_insert(reply);
                }
                Err(failed) => {
                    meter.failed(failed.cause());
                    self.blame(at, server, &failed);
                    let reason = format!("{server} {failed}");
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
        self.blame_the_late(&attempts);
        match refusal {
            Some(reply) => Ok(reply),
            None if reasons.is_empty() => Err("no upstream answers in time".to_owned()),
            None => Err(reasons.join("; ")),
        }
    }

    /// Finds out which upstreams ask us what we ask them: they are left out. Those that are well are not suspected, unless
    /// `all` are.
    pub(super) async fn look_for_loops(&self, echoes: &LoopDetector, all: bool) {
        for server in self.with(|upstreams| upstreams.suspects(all)) {
            let (number, name) = echoes.draw();
            let probe = Forward::probe(&name);
            // What it says does not matter, nor whether it says anything.
            let _ = timeout(ECHO, ask(&server, &self.secure, &probe, Manners::default(), rng())).await;
            let loops = echoes.take(number);
            if self.with(|upstreams| upstreams.loops(&server, loops)) {
                if loops {
                    warn!(upstream = %server, "upstream asks this server: it is left out, name another in resolver.upstreams");
                } else {
                    info!(upstream = %server, "upstream does not ask this server any more");
                }
            }
        }
    }

    /// Those that had more than their time while another was done.
    fn blame_the_late(&self, attempts: &[Attempt]) {
        for attempt in attempts.iter().filter(|attempt| !attempt.ended && attempt.began.elapsed() > attempt.patience) {
            attempt.meter.failed(Cause::Late);
            if self.with(|upstreams| upstreams.failed(attempt.at, self.now())) {
                warn!(upstream = %attempt.server, "upstream does not answer: others are asked first");
            }
        }
    }

    fn blame(&self, at: usize, server: &UpstreamAddress, failed: &UpstreamError) {
        if self.with(|upstreams| upstreams.failed(at, self.now())) {
            warn!(upstream = %server, "upstream {failed}: others are asked first");
        }
    }

    fn meter(&self, server: &UpstreamAddress) -> Arc<metrics::Upstream> {
        let meters = self.meters.lock().unwrap_or_else(PoisonError::into_inner);
        // One that was replaced since is counted for as long as it is asked.
        meters.get(server).cloned().unwrap_or_else(|| self.metrics.of(server.label()))
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Nothing that is done under the lock can panic half-way.
    fn with<T>(&self, act: impl FnOnce(&mut Upstreams) -> T) -> T {
        act(&mut self.upstreams.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn meters(servers: &[UpstreamAddress], metrics: &metrics::Upstreams) -> Meters {
    servers.iter().map(|server| (server.clone(), metrics.of(server.label()))).collect()
}
