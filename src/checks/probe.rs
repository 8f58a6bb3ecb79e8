//! Runs one probe: limits, timeout and metrics, common to all kinds of checks.
//!
//! A probe needs a permit for its socket or process; the number of permits is limited. Waiting for a permit does not count
//! towards the check's timeout: a node that is short of descriptors probes late and logs it, but marks no service critical.
//! The timeout drops the probe's future, which closes all that it had opened.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::Poll,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};
use tracing::warn;

use super::{
    Options,
    connect::Dialer,
    error::ProbeError,
    exec, http,
    http2::{grpc, ping},
    runner, systemd, tcp,
    tls::Tls,
    udp,
};
use crate::{
    log_limit::LogLimiter,
    metrics::{Checks, Kind, ProbeResult},
    model::{
        health::Status,
        service::{Check, Probe},
    },
};

/// State shared by all probes.
pub(super) struct Prober {
    allow_exec: bool,
    systemctl: PathBuf,
    dialer: Dialer,
    tls: Tls,
    sockets: Permits,
    processes: Permits,
    shortage: LogLimiter,
    metrics: Checks,
}

impl Prober {
    pub(super) fn new(options: Options) -> Self {
        Self {
            allow_exec: options.allow_exec,
            systemctl: options.systemctl,
            dialer: Dialer::new(),
            tls: Tls::new(),
            sockets: Permits::new("sockets", options.sockets),
            processes: Permits::new("processes", options.processes),
            shortage: LogLimiter::default(),
            metrics: options.metrics,
        }
    }

    /// Probes once. All work has ended when this returns or is dropped.
    pub(super) async fn probe(&self, check: &Check) -> Result<(), ProbeError> {
        let patience = check.timeout;
        let mut _socket = None;
        let dialer = self.dialer.of(check);
        // Boxed separately, so that a hanging probe does not take the size of the largest kind.
        let work: Work<'_> = match &check.probe {
            Probe::Http(probe) => {
                _socket = self.sockets.permit().await;
                Box::pin(http::probe(probe, &dialer, &self.tls, patience))
            }
            Probe::Tcp(endpoint) => {
                _socket = self.sockets.permit().await;
                Box::pin(tcp::probe(endpoint, &dialer, patience))
            }
            Probe::Udp(endpoint) => {
                _socket = self.sockets.permit().await;
                Box::pin(udp::probe(endpoint, &dialer, patience))
            }
            Probe::Grpc { endpoint, service, tls } => {
                _socket = self.sockets.permit().await;
                Box::pin(grpc::probe(endpoint, service, tls.as_ref(), (&dialer, &self.tls), patience))
            }
            Probe::H2Ping { endpoint, tls } => {
                _socket = self.sockets.permit().await;
                Box::pin(ping::probe(endpoint, tls.as_ref(), (&dialer, &self.tls), patience))
            }
            Probe::Exec { argv } if self.allow_exec && check.origin.may_run_commands() => {
                let process = self.processes.permit().await;
                Box::pin(exec::probe(argv, runner::output_limit(check), process, patience))
            }
            Probe::Exec { .. } => {
                return Err(ProbeError::critical("exec checks are not allowed here (checks.allow_exec)"));
            }
            Probe::Systemd { unit } => {
                let process = self.processes.permit().await;
                Box::pin(systemd::probe(&self.systemctl, unit, process))
            }
            Probe::Alias(_) | Probe::Ttl { .. } => {
                return Err(ProbeError::NotRun("alias and ttl checks are not probed".to_owned()));
            }
        };
        let began = Instant::now();
        let outcome = match &check.probe {
            // They end in time by themselves: the former with the output so far, the latter passing.
            Probe::Exec { .. } | Probe::Udp(_) => guarded(work).await,
            _ => timeout(patience, guarded(work)).await.unwrap_or_else(|_| Err(ProbeError::timed_out(patience))),
        };
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
            warn!(check = %check.probe, %reason, "probe could not run; the check keeps its status");
        }
        outcome
    }
}

/// Running probe.
type Work<'a> = Pin<Box<dyn Future<Output = Result<(), ProbeError>> + Send + 'a>>;

/// Turns a panic of a probe, a defect of muster, into a critical result: the check must not keep its last status forever.
async fn guarded(mut work: Work<'_>) -> Result<(), ProbeError> {
    poll_fn(|context| {
        catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))).unwrap_or_else(|_| {
            Poll::Ready(Err(ProbeError::critical("internal error of the probe (a defect of muster)")))
        })
    })
    .await
}

/// Permits of one kind of probe; logs when all are taken.
struct Permits {
    what: &'static str,
    most: usize,
    permits: Arc<Semaphore>,
    waiting: LogLimiter,
}

impl Permits {
    fn new(what: &'static str, most: usize) -> Self {
        let most = most.clamp(1, Semaphore::MAX_PERMITS);
        Self { what, most, permits: Arc::new(Semaphore::new(most)), waiting: LogLimiter::default() }
    }

    /// Waits for a permit, first come, first served. `None` if the semaphore is closed, which never happens.
    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Some(permit);
        }
        if self.waiting.is_due() {
            warn!(limit = self.most, "probes start late: limit of {} reached", self.what);
        }
        Arc::clone(&self.permits).acquire_owned().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        checks::fixtures::{Server, check, options},
        model::service::{Endpoint, HttpProbe, Origin, ProbeTls},
    };

    const BRIEF: Duration = Duration::from_millis(150);

    fn http(endpoint: &Endpoint) -> Check {
        check(Probe::Http(HttpProbe::get(format!("http://{endpoint}/").parse().unwrap())))
    }

    #[tokio::test]
    async fn timeout_ends_the_work() {
        let (server, mut gone) = Server::hanging().await;
        let https = format!("https://{}/", server.address);
        let Probe::Http(plain) = http(&server.endpoint()).probe else { panic!() };
        let unverified = ProbeTls { skip_verify: true, ..ProbeTls::default() };
        let network = [
            Probe::Http(plain.clone()),
            Probe::Http(HttpProbe { url: https.parse().unwrap(), tls: unverified.clone(), ..plain }),
            Probe::Grpc { endpoint: server.endpoint(), service: String::new(), tls: None },
            Probe::Grpc { endpoint: server.endpoint(), service: String::new(), tls: Some(unverified.clone()) },
            Probe::H2Ping { endpoint: server.endpoint(), tls: None },
        ];
        let local = [
            Probe::Exec { argv: vec!["/bin/sleep".into(), "60".into()] },
            Probe::Systemd { unit: "hanging.service".into() },
        ];
        let prober = Prober::new(options());
        for probe in network.into_iter().chain(local) {
            let on_network = matches!(probe, Probe::Http(_) | Probe::Grpc { .. } | Probe::H2Ping { .. });
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
        // The permit is released when the process has ended, which may take the kernel a moment.
        let _all = prober.processes.permits.acquire_many(64).await.unwrap();
    }

    #[tokio::test]
    async fn probe_without_permit_waits_and_does_not_fail() {
        let prober = Prober::new(Options { sockets: 1, processes: 1, ..options() });
        let (hanging, _gone) = Server::hanging().await;
        let (healthy, _requests) = Server::answering("HTTP/1.1 204 No Content\r\n\r\n").await;
        // The first probe holds the permit for longer than the timeout of the second.
        let (long, short) = (BRIEF * 8, BRIEF * 6);
        let hangs = Check { timeout: long, ..http(&hanging.endpoint()) };
        let passes = Check { timeout: short, ..http(&healthy.endpoint()) };
        let sleeps = Check { timeout: long, ..check(Probe::Exec { argv: vec!["/bin/sleep".into(), "60".into()] }) };
        let exits = Check { timeout: short, ..check(Probe::Exec { argv: vec!["/bin/true".into()] }) };
        for (first, second) in [(hangs, passes), (sleeps, exits)] {
            let began = Instant::now();
            let (first, second) = tokio::join!(prober.probe(&first), prober.probe(&second));
            assert!(began.elapsed() >= long, "the second probe starts after the first");
            assert_eq!((first.is_err(), second), (true, Ok(())));
        }
    }

    #[tokio::test]
    async fn exec_check_is_critical_unless_allowed() {
        let client = |exec| Origin::Client { link_local: true, exec };
        let refused = Err(ProbeError::critical("exec checks are not allowed here (checks.allow_exec)"));
        let cases = [
            (false, Origin::File, refused),
            (true, Origin::File, Ok(())),
            (false, client(true), Err(ProbeError::critical("exec checks are not allowed here (checks.allow_exec)"))),
            (true, client(false), Err(ProbeError::critical("exec checks are not allowed here (checks.allow_exec)"))),
            (true, client(true), Ok(())),
        ];
        for (allow_exec, origin, expected) in cases {
            let prober = Prober::new(Options { allow_exec, ..options() });
            let check = Check { origin, ..check(Probe::Exec { argv: vec!["/bin/true".into()] }) };
            assert_eq!(prober.probe(&check).await, expected, "{allow_exec} {origin:?}");
        }
    }

    #[tokio::test]
    async fn panicking_probe_is_critical() {
        let work: Work<'_> = Box::pin(async { panic!("a defect") });
        assert!(
            matches!(guarded(work).await, Err(ProbeError::Critical(reason)) if reason.contains("defect of muster"))
        );
        assert!(guarded(Box::pin(async { Ok(()) })).await.is_ok());
    }
}
