//! Asks one check once: what all kinds of probes have in common.
//!
//! A probe may hold a socket or a process only while it has a permit, of which there are as many as the node can bear.
//! Waiting for one does not count against the check's time-out: a node that is short of descriptors probes late and
//! says so, but takes no service for dead. The time-out drops the probe's future, and with it whatever it had opened.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};
use tracing::warn;

use super::{Options, connect::Dialer, error::ProbeError, exec, grpc, http, systemd, tcp, tls::Tls};
use crate::{
    metrics::{Checks, Kind, ProbeResult},
    model::{
        health::Status,
        service::{Check, Probe},
    },
};

/// A shortage that lasts is mentioned in the log this often.
const MENTION_EVERY: Duration = Duration::from_secs(60);

/// What probes need and share.
pub(super) struct Prober {
    allow_exec: bool,
    systemctl: PathBuf,
    dialer: Dialer,
    tls: Tls,
    sockets: Bound,
    processes: Bound,
    shortage: Mention,
    metrics: Checks,
}

impl Prober {
    pub(super) fn new(options: Options) -> Self {
        Self {
            allow_exec: options.allow_exec,
            systemctl: options.systemctl,
            dialer: Dialer::new(),
            tls: Tls::new(),
            sockets: Bound::new("sockets", options.sockets),
            processes: Bound::new("processes", options.processes),
            shortage: Mention::default(),
            metrics: options.metrics,
        }
    }

    /// Asks once. All work has ended when this returns or is dropped.
    pub(super) async fn probe(&self, check: &Check) -> Result<(), ProbeError> {
        let patience = check.timeout;
        let mut _socket = None;
        // Boxed each for itself: ten thousand that hang should not each take the room of the largest kind.
        let work: Work<'_> = match &check.probe {
            Probe::Http(probe) => {
                _socket = self.sockets.permit().await;
                Box::pin(http::probe(probe, &self.dialer, &self.tls, patience))
            }
            Probe::Tcp(endpoint) => {
                _socket = self.sockets.permit().await;
                Box::pin(tcp::probe(endpoint, &self.dialer, patience))
            }
            Probe::Grpc { endpoint, service } => {
                _socket = self.sockets.permit().await;
                Box::pin(grpc::probe(endpoint, service, &self.dialer, patience))
            }
            Probe::Exec { argv } if self.allow_exec => {
                let process = self.processes.permit().await;
                Box::pin(exec::probe(argv, process))
            }
            Probe::Exec { .. } => return Err(ProbeError::critical("exec checks are not allowed here")),
            Probe::Systemd { unit } => {
                let process = self.processes.permit().await;
                Box::pin(systemd::probe(&self.systemctl, unit, process))
            }
            Probe::Alias { .. } | Probe::Ttl { .. } => {
                return Err(ProbeError::NotRun("neither an alias nor a ttl check is probed".to_owned()));
            }
        };
        let began = Instant::now();
        let outcome = timeout(patience, guarded(work)).await.unwrap_or_else(|_| Err(ProbeError::timed_out(patience)));
        let found = match &outcome {
            Ok(()) => ProbeResult::Found(Status::Passing),
            Err(ProbeError::Warning(_)) => ProbeResult::Found(Status::Warning),
            Err(ProbeError::Critical(_)) => ProbeResult::Found(Status::Critical),
            Err(ProbeError::NotRun(_)) => ProbeResult::NotRun,
        };
        self.metrics.probed(Kind::of(&check.probe), found, began.elapsed());
        if let Err(ProbeError::NotRun(reason)) = &outcome
            && self.shortage.is_due()
        {
            warn!(check = %check.probe, %reason, "probes could not run: their checks keep their standing");
        }
        outcome
    }
}

/// A probe under way.
type Work<'a> = Pin<Box<dyn Future<Output = Result<(), ProbeError>> + Send + 'a>>;

/// A probe that panics is a defect of ours. It makes its check critical: silence would leave the last standing for ever.
async fn guarded(mut work: Work<'_>) -> Result<(), ProbeError> {
    poll_fn(|context| {
        catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context)))
            .unwrap_or_else(|_| Poll::Ready(Err(ProbeError::critical("the probe itself failed (a defect of muster)"))))
    })
    .await
}

/// As many permits as the node can bear, and a word in the log when they are all out.
struct Bound {
    what: &'static str,
    most: usize,
    permits: Arc<Semaphore>,
    mention: Mention,
}

impl Bound {
    fn new(what: &'static str, most: usize) -> Self {
        let most = most.clamp(1, Semaphore::MAX_PERMITS);
        Self { what, most, permits: Arc::new(Semaphore::new(most)), mention: Mention::default() }
    }

    /// Waits its turn, first come, first served. `None` would mean that nobody bounds probes any more.
    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Some(permit);
        }
        if self.mention.is_due() {
            warn!(most = self.most, "probes start late: they use as many {} as they may", self.what);
        }
        Arc::clone(&self.permits).acquire_owned().await.ok()
    }
}

/// Something worth a line in the log, but not one for every probe.
#[derive(Default)]
struct Mention {
    last: Mutex<Option<Instant>>,
}

impl Mention {
    fn is_due(&self) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| last.elapsed() >= MENTION_EVERY);
        if due {
            *last = Some(Instant::now());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checks::fixtures::{Server, check, options},
        model::service::{Endpoint, HttpProbe},
    };

    const BRIEF: Duration = Duration::from_millis(150);

    fn http(endpoint: &Endpoint) -> Check {
        check(Probe::Http(HttpProbe {
            url: format!("http://{endpoint}/").parse().unwrap(),
            method: "GET".into(),
            headers: vec![],
            body: None,
            expect_status: vec![],
            tls_skip_verify: false,
        }))
    }

    #[tokio::test]
    async fn a_time_out_ends_the_work() {
        let (server, mut gone) = Server::hanging().await;
        let https = format!("https://{}/", server.address);
        let Probe::Http(plain) = http(&server.endpoint()).probe else { panic!() };
        let network = [
            Probe::Http(plain.clone()),
            Probe::Http(HttpProbe { url: https.parse().unwrap(), tls_skip_verify: true, ..plain }),
            Probe::Grpc { endpoint: server.endpoint(), service: String::new() },
        ];
        let local = [
            Probe::Exec { argv: vec!["/bin/sleep".into(), "60".into()] },
            Probe::Systemd { unit: "hanging.service".into() },
        ];
        let prober = Prober::new(options());
        for probe in network.into_iter().chain(local) {
            let on_network = matches!(probe, Probe::Http(_) | Probe::Grpc { .. });
            let check = Check { timeout: BRIEF, ..check(probe) };
            assert_eq!(
                prober.probe(&check).await,
                Err(ProbeError::critical("timed out after 150ms")),
                "{}",
                check.probe
            );
            if on_network {
                gone.recv().await.unwrap();
            }
        }
        assert_eq!(prober.sockets.permits.available_permits(), 64);
        // Given back when the process is gone, which may take the kernel a moment.
        let _all = prober.processes.permits.acquire_many(64).await.unwrap();
    }

    #[tokio::test]
    async fn a_probe_without_a_permit_waits_and_does_not_fail() {
        let prober = Prober::new(Options { sockets: 1, processes: 1, ..options() });
        let (hanging, _gone) = Server::hanging().await;
        let (well, _requests) = Server::answering("HTTP/1.1 204 No Content\r\n\r\n").await;
        // Those in front hold the permit for longer than the time-out of those who wait for it.
        let (long, short) = (BRIEF * 8, BRIEF * 6);
        let hangs = Check { timeout: long, ..http(&hanging.endpoint()) };
        let passes = Check { timeout: short, ..http(&well.endpoint()) };
        let sleeps = Check { timeout: long, ..check(Probe::Exec { argv: vec!["/bin/sleep".into(), "60".into()] }) };
        let exits = Check { timeout: short, ..check(Probe::Exec { argv: vec!["/bin/true".into()] }) };
        for (first, second) in [(hangs, passes), (sleeps, exits)] {
            let began = Instant::now();
            let (first, second) = tokio::join!(prober.probe(&first), prober.probe(&second));
            assert!(began.elapsed() >= long, "the second came after the first");
            assert_eq!((first.is_err(), second), (true, Ok(())));
        }
    }

    #[tokio::test]
    async fn exec_needs_the_operators_consent() {
        let prober = Prober::new(Options { allow_exec: false, ..options() });
        let check = check(Probe::Exec { argv: vec!["/bin/true".into()] });
        assert_eq!(prober.probe(&check).await, Err(ProbeError::critical("exec checks are not allowed here")));
    }

    #[tokio::test(start_paused = true)]
    async fn what_lasts_is_mentioned_now_and_then() {
        let mention = Mention::default();
        let mut said = 0;
        for _ in 0..600 {
            said += usize::from(mention.is_due());
            tokio::time::advance(Duration::from_millis(500)).await;
        }
        assert_eq!(said, 5);
    }

    #[tokio::test]
    async fn a_probe_that_panics_is_critical() {
        let work: Work<'_> = Box::pin(async { panic!("a defect") });
        assert!(
            matches!(guarded(work).await, Err(ProbeError::Critical(reason)) if reason.contains("defect of muster"))
        );
        assert!(guarded(Box::pin(async { Ok(()) })).await.is_ok());
    }
}
