//! Keeps the copies of secondary zones up to date: one task for each zone.
//!
//! Each node copies its zones itself. A new version is on disk before it is answered, so that a restart goes on with it.

mod exchange;
mod hints;

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use fastrand::Rng;
use tokio::{
    sync::{Semaphore, SemaphorePermit, watch},
    task::block_in_place,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

pub use self::hints::Hint;
use self::{
    exchange::{ExchangeError, Primary, Transferred},
    hints::Hints,
};
use super::{
    secondary::{
        Copies, SecondaryZone, ZoneCopy,
        content::{self, ContentError},
        schedule::{Schedule, Step, Timers},
        stream::{Received, StreamError, serial},
    },
    tls_client::TlsClient,
    transfer::tsig::Keys,
    zone::serial::is_later,
};
use crate::{
    clock::unix_now,
    data_dir::DataDir,
    log_limit::LogLimiter,
    metrics::{CopyOutcome, Transfers as Counts},
    model::{
        name::Name,
        upstream_address::UpstreamAddress,
        zone::{CopyState, StaticRecord, ZoneFile},
    },
};

/// Number of transfers that are received at the same time, as in BIND; further ones wait.
const MAX_TRANSFERS: usize = 10;
/// Number of these that one host sends, as in BIND: a primary that sends slowly does not keep the zones of others from being transferred.
const MAX_OF_PRIMARY: usize = 2;

/// Settings of all zones.
#[derive(Clone)]
pub struct Settings {
    /// TSIG keys.
    pub keys: watch::Receiver<Keys>,
    /// Addresses that requests are sent from, if they are configured: those of the DNS listeners.
    pub sources: Vec<IpAddr>,
    /// Stores the copies.
    pub data_dir: DataDir,
    /// Client of primaries over TLS.
    pub tls: Arc<TlsClient>,
    /// Metrics.
    pub counts: Counts,
}

/// A zone that takes NOTIFY.
#[derive(Clone, Debug)]
pub struct Notified {
    /// The zone.
    pub zone: SecondaryZone,
    hints: Arc<Hints>,
}

impl Notified {
    /// Passes a message on.
    pub fn notify(&self, hint: Hint) {
        self.hints.add(hint);
    }
}

/// The task of one zone.
pub struct Refresher {
    zone: SecondaryZone,
    hints: Arc<Hints>,
    settings: Settings,
    copies: watch::Sender<Copies>,
    permits: Arc<Permits>,
    /// Last failure of each primary, as logged.
    logged: HashMap<UpstreamAddress, String>,
    older_notify: LogLimiter,
}

/// Permits of transfers.
struct Permits {
    all: Semaphore,
    /// Those of each host with primaries.
    of_primary: HashMap<IpAddr, Semaphore>,
}

impl Permits {
    fn new(zones: &[SecondaryZone]) -> Self {
        let hosts = zones.iter().flat_map(|zone| &zone.primaries).map(|primary| primary.address.ip());
        let of_primary = hosts.map(|host| (host, Semaphore::new(MAX_OF_PRIMARY))).collect();
        Self { all: Semaphore::new(MAX_TRANSFERS), of_primary }
    }

    /// Waits for the permits of a transfer from this host.
    async fn acquire(&self, host: IpAddr) -> [Option<SemaphorePermit<'_>>; 2] {
        // The semaphores are never closed.
        let of_primary = match self.of_primary.get(&host) {
            Some(permits) => permits.acquire().await.ok(),
            None => None,
        };
        [of_primary, self.all.acquire().await.ok()]
    }
}

/// A received version of a zone.
struct Content {
    file: ZoneFile,
    form: CopyOutcome,
    messages: u64,
    octets: u64,
}

/// Reasons why a primary does not help.
#[derive(Debug, thiserror::Error)]
enum RefreshError {
    #[error("{0}")]
    Exchange(#[from] ExchangeError),
    #[error("{0}")]
    Content(#[from] ContentError),
    #[error(
        "its serial {theirs} is older than that of the copy, {ours}: it is ignored until the zone there has serial {ours} or a later one"
    )]
    Older { theirs: u32, ours: u32 },
}

impl RefreshError {
    /// Reports whether the zone exceeds its limits.
    fn is_too_large(&self) -> bool {
        matches!(
            self,
            Self::Exchange(ExchangeError::Stream(StreamError::TooLarge)) | Self::Content(ContentError::TooLarge)
        )
    }
}

/// Loads the stored copies of all zones. Returns what they are now, and for each zone its task and the receiver of NOTIFY.
pub fn load(zones: &[SecondaryZone], settings: &Settings) -> (watch::Receiver<Copies>, Vec<Refresher>, Vec<Notified>) {
    // A zone that left the configuration may hold what its owner does not want to keep here. If it returns, it is transferred again.
    match settings.data_dir.remove_other_zone_copies(zones.iter().map(|zone| &zone.origin)) {
        Ok(removed) => removed.iter().for_each(|zone| info!(zone, "copy removed: the zone is not in `dns.secondary`")),
        Err(error) => warn!(%error, "cannot remove copies of zones that are not in `dns.secondary`"),
    }
    let stored = zones.iter().map(|zone| (zone.origin.clone(), load_copy(&zone.origin, &settings.data_dir)));
    let (copies, permits) = (watch::Sender::new(Arc::new(stored.collect())), Arc::new(Permits::new(zones)));
    let tasks = zones.iter().map(|zone| {
        let hints = Arc::<Hints>::default();
        let refresher = Refresher {
            zone: zone.clone(),
            hints: hints.clone(),
            settings: settings.clone(),
            copies: copies.clone(),
            permits: permits.clone(),
            logged: HashMap::new(),
            older_notify: LogLimiter::default(),
        };
        (refresher, Notified { zone: zone.clone(), hints })
    });
    let (refreshers, notified) = tasks.unzip();
    (copies.subscribe(), refreshers, notified)
}

fn load_copy(origin: &Name, data_dir: &DataDir) -> ZoneCopy {
    let without = |state| ZoneCopy {
        file: Arc::new(content::without_copy(origin, state)),
        primary: None,
        confirmed: None,
        expires: None,
        problem: None,
    };
    let (octets, confirmed) = match data_dir.load_zone_copy(origin) {
        Ok(Some(stored)) => stored,
        Ok(None) => return without(CopyState::Missing),
        Err(error) => {
            warn!(zone = %origin, %error, "cannot read the copy of the zone; starting without it");
            return without(CopyState::Missing);
        }
    };
    let file = match content::decode(origin, &octets) {
        Ok(file) => file,
        Err(error) => {
            warn!(zone = %origin, %error, "the copy of the zone is not readable; starting without it");
            return without(CopyState::Missing);
        }
    };
    let Some(timers) = timers_of(&file) else { return without(CopyState::Missing) };
    let expires = confirmed + timers.expire;
    if unix_now() >= expires {
        warn!(zone = %origin, "the copy of the zone has expired");
        return ZoneCopy { confirmed: Some(confirmed), ..without(CopyState::Expired) };
    }
    info!(zone = %origin, serial = content::serial_of(&file), records = file.records.len(), "copy of the zone loaded");
    ZoneCopy { file: Arc::new(file), confirmed: Some(confirmed), expires: Some(expires), ..without(CopyState::Current) }
}

fn timers_of(file: &ZoneFile) -> Option<Timers> {
    content::soa_of(file).and_then(|soa| Timers::of_soa(&soa.rdata))
}

impl Refresher {
    /// Refreshes the zone until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let started = Instant::now();
        let copy = self.copy();
        let age = copy.confirmed.map(|confirmed| unix_now().saturating_sub(confirmed)).unwrap_or_default();
        let stored = timers_of(&copy.file).map(|timers| (timers, age));
        let mut schedule = Schedule::new(self.zone.primaries.len(), stored, Duration::ZERO, Rng::new());
        loop {
            match schedule.next(started.elapsed()) {
                Step::Ask(primary) => {
                    // A primary that sends slowly does not extend the life of the copy.
                    let expiry = schedule.expiry();
                    let outcome = tokio::select! {
                        outcome = self.ask(primary) => outcome,
                        () = sleep_until(started + expiry.unwrap_or_default()), if expiry.is_some() => continue,
                        () = shutdown.cancelled() => return,
                    };
                    let address = self.zone.primaries.get(primary).cloned();
                    match outcome {
                        Ok(timers) => {
                            schedule.confirm(timers, started.elapsed());
                            self.helped(address.as_ref());
                        }
                        Err(error) => {
                            let is_last = schedule.fail(started.elapsed());
                            if is_last && error.is_too_large() {
                                schedule.put_off(started.elapsed());
                            }
                            self.failed(address, &error, is_last);
                        }
                    }
                }
                Step::Wait(until) => {
                    let hint = tokio::select! {
                        () = sleep_until(started + until) => continue,
                        hint = self.hints.take() => hint,
                        () = shutdown.cancelled() => return,
                    };
                    let ours = content::serial_of(&self.copy().file);
                    if let Some((theirs, ours)) = hint.serial.zip(ours)
                        && !is_later(theirs, ours)
                    {
                        self.ignored(hint.from, theirs, ours);
                        continue;
                    }
                    let primary = self.zone.primaries.iter().position(|primary| primary.address.ip() == hint.from);
                    schedule.notify(primary, started.elapsed());
                    sleep(Schedule::pause()).await;
                }
                Step::Expire => {
                    warn!(zone = %self.zone.origin, "the copy of the zone has expired: no primary confirms it");
                    self.settings.counts.copied(&self.zone.origin, CopyOutcome::Expired);
                    let file = Arc::new(content::without_copy(&self.zone.origin, CopyState::Expired));
                    self.publish(|copy| (copy.file, copy.expires) = (file, None));
                }
            }
        }
    }

    /// Logs a NOTIFY that announces nothing new. It changes no time: anyone may send one.
    fn ignored(&self, from: IpAddr, theirs: u32, ours: u32) {
        let zone = self.zone.origin.to_string();
        if theirs != ours && self.older_notify.is_due() {
            info!(zone, %from, theirs, ours, "NOTIFY ignored: its serial is older than that of the copy");
        } else {
            debug!(zone, %from, theirs, ours, "NOTIFY ignored: the copy has its serial or a later one");
        }
    }

    fn copy(&self) -> ZoneCopy {
        let copies = self.copies.borrow();
        match copies.get(&self.zone.origin) {
            Some(copy) => copy.clone(),
            None => load_copy(&self.zone.origin, &self.settings.data_dir),
        }
    }

    fn publish(&self, change: impl FnOnce(&mut ZoneCopy)) {
        let mut copy = self.copy();
        change(&mut copy);
        self.copies.send_modify(|copies| drop(Arc::make_mut(copies).insert(self.zone.origin.clone(), copy)));
    }

    /// Logs the end of a failure.
    fn helped(&mut self, primary: Option<&UpstreamAddress>) {
        let Some(primary) = primary else { return };
        if let Some(former) = self.logged.remove(primary) {
            info!(zone = %self.zone.origin, %primary, former, "zone refreshed again");
        }
    }

    /// Logs a failure, once for each change.
    fn failed(&mut self, primary: Option<UpstreamAddress>, error: &RefreshError, is_last: bool) {
        let Some(primary) = primary else { return };
        let (zone, reason) = (self.zone.origin.to_string(), error.to_string());
        self.settings.counts.copied(&self.zone.origin, CopyOutcome::Failed);
        if self.logged.get(&primary) == Some(&reason) {
            debug!(zone, %primary, reason, "zone not refreshed");
        } else {
            warn!(zone, %primary, reason, "zone not refreshed");
            self.logged.insert(primary, reason);
        }
        if is_last {
            // All primaries of the round have failed.
            let reasons = self.zone.primaries.iter().filter_map(|primary| Some((primary, self.logged.get(primary)?)));
            let reasons: Vec<String> = reasons.map(|(primary, reason)| format!("{primary}: {reason}")).collect();
            self.publish(|copy| copy.problem = Some(reasons.join("; ").into()));
        }
    }

    /// Asks a primary, and copies the zone if it has a later version. Returns the times of the copy.
    async fn ask(&self, primary: usize) -> Result<Timers, RefreshError> {
        let Some(address) = self.zone.primaries.get(primary) else {
            return Err(ContentError::Soa.into());
        };
        let key = match &self.zone.key {
            Some(name) => {
                let key = self.settings.keys.borrow().get(name).cloned();
                Some(key.ok_or_else(|| ExchangeError::NoKey(name.clone()))?)
            }
            None => None,
        };
        let primary = Primary { origin: &self.zone.origin, address, key, settings: &self.settings };
        let copy = self.copy().file;
        let theirs = primary.soa().await?;
        let theirs = serial(&theirs.rdata).ok_or(ContentError::Soa)?;
        let version = content::soa_of(&copy).zip(content::serial_of(&copy));
        match version {
            Some((_, ours)) if ours == theirs => {
                if let Err(error) = block_in_place(|| self.settings.data_dir.confirm_zone_copy(&self.zone.origin)) {
                    // It was not stored.
                    self.store(&copy, Some(&error.to_string()));
                }
            }
            Some((_, ours)) if !is_later(theirs, ours) => return Err(RefreshError::Older { theirs, ours }),
            version => return self.transfer(&primary, version, &copy).await,
        }
        self.settings.counts.copied(&self.zone.origin, CopyOutcome::Current);
        self.confirmed(address, copy)
    }

    /// Publishes a version that a primary has confirmed or sent.
    fn confirmed(&self, primary: &UpstreamAddress, file: Arc<ZoneFile>) -> Result<Timers, RefreshError> {
        let timers = timers_of(&file).ok_or(ContentError::Soa)?;
        let now = unix_now();
        self.publish(|copy| {
            *copy = ZoneCopy {
                file,
                primary: Some(primary.clone()),
                confirmed: Some(now),
                expires: Some(now + timers.expire),
                problem: None,
            };
        });
        Ok(timers)
    }

    async fn transfer(
        &self,
        primary: &Primary<'_>,
        version: Option<(&StaticRecord, u32)>,
        copy: &ZoneFile,
    ) -> Result<Timers, RefreshError> {
        let _permits = self.permits.acquire(primary.address.address.ip()).await;
        let started = Instant::now();
        let mut incremental = None;
        if version.is_some() {
            incremental = match primary.transfer(version).await {
                Ok(transferred) => match self.content(transferred, copy) {
                    Err(RefreshError::Content(error)) => {
                        self.falls_back(primary, &error.to_string());
                        None
                    }
                    content => Some(content?),
                },
                // The primary may not know IXFR, or have lost its journal.
                Err(error @ (ExchangeError::Stream(_) | ExchangeError::Cut)) => {
                    self.falls_back(primary, &error.to_string());
                    None
                }
                Err(error) => return Err(error.into()),
            };
        }
        let Content { file, form, messages, octets } = match incremental {
            Some(content) => content,
            None => self.content(primary.transfer(None).await?, copy)?,
        };
        self.store(&file, None);
        let (serial, records) = (content::serial_of(&file), file.records.len());
        let timers = self.confirmed(primary.address, Arc::new(file))?;
        self.settings.counts.copied(&self.zone.origin, form);
        let (zone, primary, took) = (primary.origin.to_string(), primary.address, started.elapsed());
        info!(zone, %primary, serial, records, ?form, messages, octets, ?took, "zone transferred");
        Ok(timers)
    }

    fn falls_back(&self, primary: &Primary<'_>, reason: &str) {
        info!(zone = %primary.origin, primary = %primary.address, reason, "no incremental transfer; transferring the whole zone");
    }

    /// Returns the zone with what was received.
    fn content(&self, transferred: Transferred, copy: &ZoneFile) -> Result<Content, RefreshError> {
        let Transferred { received, messages, octets } = transferred;
        // The primary may have changed since the SOA query.
        let check = |theirs: u32| match content::serial_of(copy) {
            Some(ours) if theirs != ours && !is_later(theirs, ours) => Err(RefreshError::Older { theirs, ours }),
            _ => Ok(()),
        };
        if let Received::NoLater(theirs) = received {
            check(theirs)?;
        }
        let (file, form) = block_in_place(|| match received {
            Received::NoLater(serial) => (Err(ContentError::NotLater(serial)), CopyOutcome::Failed),
            Received::Whole(records) => (content::whole(&self.zone.origin, records), CopyOutcome::Whole),
            Received::Changes(changes) => (content::changed(copy, changes), CopyOutcome::Incremental),
        });
        let file = file?;
        check(content::serial_of(&file).ok_or(ContentError::Soa)?)?;
        Ok(Content { file, form, messages, octets })
    }

    /// Stores a version. A failure means that the next start has a former one.
    fn store(&self, file: &ZoneFile, why: Option<&str>) {
        let stored =
            block_in_place(|| self.settings.data_dir.store_zone_copy(&self.zone.origin, &content::encode(file)));
        if let Err(error) = stored {
            let zone = self.zone.origin.to_string();
            warn!(zone, %error, why, "cannot store the copy of the zone: the next start has a former one");
        }
    }
}
