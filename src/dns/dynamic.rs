//! Dynamic zones of this node: follows their keys in the store, and carries out updates as transactions of the store.
//!
//! An update is evaluated on this node's copy of the zone. The transaction writes its result on the condition that the copy is
//! the newest: that the SOA was last written at the revision of the copy. If it was not, the update is evaluated again. So the
//! order of updates is that of the store, whichever nodes they arrive at.

pub mod zone_files;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use thiserror::Error;
use tokio::{
    sync::{Mutex, watch},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::zone_files::{First, ZoneFiles};
use super::update::{
    content::{Content, Definition, Sets, find},
    evaluate::{Outcome, UpdateError, evaluate},
    message::Update,
    policy::Grant,
    saved::Contents,
    stored,
};
use crate::{
    dns::message::codes::rtype,
    model::name::Name,
    store::{
        command::{Command, Comparison, Condition, Done, Put, PutLease, Target, Transaction, TransactionRequest},
        follow::Follower,
        key::{Key, KeyRange, Revision},
        pages::Pages,
        query::{Consistency, Content as Read, Query},
        request::{Store, StoreError},
        watch::WatchMessage,
    },
};

/// Time limit for an update: longer than the store needs to elect another leader, and shorter than clients wait.
pub const LIMIT: Duration = Duration::from_secs(5);
/// Evaluations of one update, at most: other nodes update the same zone meanwhile.
const MAX_ATTEMPTS: u32 = 50;
/// Wait until this node has the update itself, after which the next update of the zone has its turn in any case.
const OWN_COPY: Duration = Duration::from_secs(1);
/// Keys that are read at once.
const PAGE: u64 = 1_000;
/// Pause before the keys are read again after a failure.
const RETRY: Duration = Duration::from_millis(200);

/// Dynamic zones of this node, as of one revision of the store.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Revision up to which all changes were seen.
    pub revision: Revision,
    /// Content of the zones.
    pub contents: Contents,
    /// True if the content is that of the store; false if it is that of the copy on this node.
    pub is_loaded: bool,
}

/// Reasons why an update is not carried out.
#[derive(Debug, Error)]
pub enum Failure {
    /// The zone is not dynamic.
    #[error("the zone is not dynamic")]
    NotDynamic,
    /// The key may not update the zone.
    #[error("`dns.dynamic` does not list the key for this zone")]
    Key,
    /// The update is not valid, not permitted, or its prerequisites do not hold.
    #[error(transparent)]
    Update(#[from] UpdateError),
    /// The store does not carry out the transaction.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store did not respond in time. The update may or may not be applied.
    #[error("the store did not respond within {LIMIT:?}: see `muster store status`")]
    Timeout,
    /// Other nodes update the zone all the time.
    #[error("the zone was updated by others during {MAX_ATTEMPTS} attempts")]
    Contention,
}

/// Effect of an update that was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The zone has this serial now.
    Changed(u32),
    /// The zone, with this serial, had the requested records already.
    Unchanged(u32),
}

impl Effect {
    /// Returns the serial of the zone.
    pub fn serial(self) -> u32 {
        match self {
            Self::Changed(serial) | Self::Unchanged(serial) => serial,
        }
    }
}

/// Carries out updates. Clones share it.
#[derive(Clone)]
pub struct Updater(Arc<Shared>);

struct Shared {
    store: Store,
    zones: BTreeMap<Name, Zone>,
    known: watch::Receiver<Known>,
    /// Zone files of this node.
    files: ZoneFiles,
}

struct Zone {
    grants: Vec<Grant>,
    /// Updates that arrive at this node follow each other.
    turn: Mutex<()>,
}

impl Updater {
    /// Returns an updater of these zones, with the state that [`follow`] keeps current, and the zone files of this node.
    pub fn new(store: Store, definitions: &[Definition], known: watch::Receiver<Known>, files: ZoneFiles) -> Self {
        let zone = |definition: &Definition| {
            (definition.origin.clone(), Zone { grants: definition.grants.clone(), turn: Mutex::default() })
        };
        Self(Arc::new(Shared { store, zones: definitions.iter().map(zone).collect(), known, files }))
    }

    /// Waits until the zones are known from the store, and returns the serial of each.
    pub async fn loaded(&self) -> Vec<(Name, u32)> {
        let mut known = self.0.known.clone();
        match known.wait_for(|known| known.is_loaded).await {
            Ok(known) => known.contents.iter().map(|(zone, content)| (zone.clone(), content.serial())).collect(),
            // The agent stops.
            Err(_) => Vec::new(),
        }
    }

    /// Carries out an update that this key has signed. After a success the change is on the disks of a majority of the voters.
    ///
    /// # Errors
    /// The reason why nothing has changed; after [`Failure::Store`] and [`Failure::Timeout`], the change may still come.
    pub async fn update(&self, update: &Update, key: &Name) -> Result<Effect, Failure> {
        let zone = self.0.zones.get(&update.zone).ok_or(Failure::NotDynamic)?;
        let grants: Vec<&Grant> = zone.grants.iter().filter(|grant| grant.key == *key).collect();
        if grants.is_empty() {
            return Err(Failure::Key);
        }
        let until = Instant::now() + LIMIT;
        let carried_out = async {
            let _turn = zone.turn.lock().await;
            self.0.carry_out(update, &grants, until).await
        };
        timeout_at(until, carried_out).await.unwrap_or(Err(Failure::Timeout))
    }
}

impl Shared {
    async fn carry_out(&self, update: &Update, grants: &[&Grant], until: Instant) -> Result<Effect, Failure> {
        let mut known = self.known.clone();
        for _ in 0..MAX_ATTEMPTS {
            let content = known.borrow_and_update().contents.get(&update.zone).cloned().ok_or(Failure::NotDynamic)?;
            let result = evaluate(&content, update, grants);
            let files = self.files.borrow().clone();
            let at = match (First::of(&files, &content), &result) {
                // The update follows the zone file.
                (Some(first), _) => {
                    first.write(&self.store, &content).await?;
                    None
                }
                (None, Ok(Outcome::Changed(changed))) => write(&self.store, &content, changed).await?,
                // The copy may be older than an update that another node has acknowledged.
                (None, Ok(Outcome::Unchanged) | Err(_)) => self.check(&content).await?,
            };
            let Some(revision) = at else {
                let is_newer =
                    |known: &Known| known.contents.get(&update.zone).is_none_or(|now| now.revision != content.revision);
                match timeout_at(until, known.wait_for(is_newer)).await {
                    Ok(Ok(_)) => continue,
                    Ok(Err(_)) => return Err(StoreError::Stopping.into()),
                    Err(_) => return Err(Failure::Timeout),
                }
            };
            let Outcome::Changed(changed) = result? else { return Ok(Effect::Unchanged(content.serial())) };
            // The next update would be evaluated again without this one.
            let _ = timeout(OWN_COPY, known.wait_for(|known| known.revision >= revision)).await;
            return Ok(Effect::Changed(serial_after(&content, &changed)));
        }
        Err(Failure::Contention)
    }

    /// Returns the revision of the store if the content is that of now; `None` if it is older.
    async fn check(&self, content: &Content) -> Result<Option<Revision>, Failure> {
        let apex = key(&content.origin, &[]).ok_or(Failure::NotDynamic)?;
        let answer = self.store.read(Query::Key(apex), Consistency::Linearizable, None).await?;
        let Read::Entries(entries) = answer.content else { return Ok(None) };
        let modified = entries.first().map_or(0, |entry| entry.entry.modified.0);
        Ok((modified == content.revision).then_some(answer.revision))
    }
}

/// Writes the names that change. Returns the revision; `None` if the zone is newer than the content.
async fn write(
    store: &Store,
    content: &Content,
    changed: &BTreeMap<Box<[u8]>, Sets>,
) -> Result<Option<Revision>, StoreError> {
    let request = |owner: &[u8], sets: &Sets| {
        let key = key(&content.origin, owner)?;
        Some(if sets.is_empty() {
            TransactionRequest::Delete { range: KeyRange::Key(key), with_previous: false }
        } else {
            let value = Some(stored::value(sets).into());
            TransactionRequest::Put(Put { key, value, lease: PutLease::Detach, with_previous: false })
        })
    };
    // The key of an apex is shorter than the limit.
    let Some(apex) = key(&content.origin, &[]) else { return Ok(None) };
    let modified = i64::try_from(content.revision).unwrap_or(i64::MAX);
    let is_newest =
        Condition { range: KeyRange::Key(apex), target: Target::Modified(modified), comparison: Comparison::Equal };
    let transaction = Transaction {
        conditions: vec![is_newest],
        // Keys of names are shorter than the limit.
        success: changed.iter().filter_map(|(owner, sets)| request(owner, sets)).collect(),
        failure: Vec::new(),
    };
    let outcome = store.write(Command::Transact(transaction)).await?;
    match outcome.result.map_err(StoreError::Refused)? {
        Done::Transacted(transacted) if transacted.succeeded => Ok(Some(outcome.revision)),
        _ => Ok(None),
    }
}

fn key(origin: &Name, owner: &[u8]) -> Option<Key> {
    Key::new(stored::key(origin, owner)).ok()
}

fn serial_after(content: &Content, changed: &BTreeMap<Box<[u8]>, Sets>) -> u32 {
    let mut after = content.clone();
    if let Some(apex) = changed.get(&[][..]) {
        after.set(Box::default(), apex.clone());
    }
    after.serial()
}

/// Follows the keys of the zones until `shutdown`. While no voter can be reached, the zones stay as they were.
pub async fn follow(
    store: Store,
    definitions: Vec<Definition>,
    known: watch::Sender<Known>,
    shutdown: CancellationToken,
) {
    let following = async {
        loop {
            match load(&store, &definitions).await {
                Ok(loaded) => {
                    let next = loaded.revision.next();
                    debug!(revision = %loaded.revision, "dynamic zones loaded from the store");
                    known.send_if_modified(|known| {
                        let is_changed = known.contents != loaded.contents;
                        // Unchanged zones stay the same values.
                        let contents = if is_changed { loaded.contents } else { known.contents.clone() };
                        let is_first = !known.is_loaded;
                        *known = Known { revision: loaded.revision, contents, is_loaded: true };
                        is_changed || is_first
                    });
                    let prefix = KeyRange::prefix(stored::PREFIX);
                    let mut follower = Follower::new(store.clone(), prefix, Some(next));
                    if follow_changes(&mut follower, &definitions, &known).await.is_err() {
                        return;
                    }
                    info!(
                        "the history of the store does not reach back to the copy of dynamic zones: reading all keys"
                    );
                }
                Err(StoreError::Stopping) => return,
                Err(error) => {
                    debug!(%error, "dynamic zones cannot be read from the store");
                    sleep(RETRY).await;
                }
            }
        }
    };
    tokio::select! {
        () = following => shutdown.cancelled().await,
        () = shutdown.cancelled() => {}
    }
}

/// Reads all zones at one revision.
async fn load(store: &Store, definitions: &[Definition]) -> Result<Known, StoreError> {
    let mut contents = super::update::saved::first(definitions);
    let mut pages = Pages::new(KeyRange::prefix(stored::PREFIX), None);
    while let Some(range) = pages.next(PAGE) {
        let answer = store.read(Query::Range(range), Consistency::Linearizable, None).await?;
        let Read::Range(page) = answer.content else { break };
        pages.advance(answer.revision, &page);
        for entry in page.entries {
            apply(&mut contents, definitions, &entry.key, Some(&entry.entry.value), entry.entry.modified);
        }
    }
    let contents = contents.into_iter().map(|(origin, content)| (origin, Arc::new(content))).collect();
    Ok(Known { revision: pages.revision().unwrap_or_default(), contents, is_loaded: true })
}

/// Applies changes until the history of the store does not reach back.
async fn follow_changes(
    follower: &mut Follower,
    definitions: &[Definition],
    known: &watch::Sender<Known>,
) -> Result<(), StoreError> {
    loop {
        let (revision, changes) = match follower.next().await? {
            WatchMessage::Changes { revision, changes } => (revision, changes),
            WatchMessage::Progress(revision) => (revision, Vec::new()),
            WatchMessage::Began(_) => continue,
            WatchMessage::Compacted(_) => return Ok(()),
        };
        known.send_modify(|known| {
            // Only zones that change are copied.
            let mut changed: BTreeMap<Name, Content> = BTreeMap::new();
            for change in &changes {
                let Some((origin, _)) = change.key.as_str().and_then(stored::parse_key) else { continue };
                let Some(content) = known.contents.get(&origin) else { continue };
                changed.entry(origin).or_insert_with(|| Content::clone(content));
                let value = change.entry.as_ref().map(|entry| &entry.value[..]);
                apply(&mut changed, definitions, &change.key, value, change.revision);
            }
            known.contents.extend(changed.into_iter().map(|(origin, content)| (origin, Arc::new(content))));
            known.revision = revision;
        });
    }
}

/// Applies a key with its value, or its deletion.
fn apply(
    contents: &mut BTreeMap<Name, Content>,
    definitions: &[Definition],
    key: &Key,
    value: Option<&[u8]>,
    revision: Revision,
) {
    let Some((origin, owner)) = key.as_str().and_then(stored::parse_key) else { return };
    let Some(content) = contents.get_mut(&origin) else { return };
    let text = value.map(|value| std::str::from_utf8(value).unwrap_or_default());
    let read = text.map(stored::parse_value).transpose();
    if let Err(error) = &read {
        warn!(%key, %error, "key of a dynamic zone is not a list of records: the name has none");
    }
    let sets = read.ok().flatten().unwrap_or_default();
    if !owner.is_empty() {
        return content.set(owner, sets);
    }
    content.revision = if value.is_some() { revision.0 } else { 0 };
    if find(&sets, rtype::SOA).is_some() && find(&sets, rtype::NS).is_some() {
        content.set(owner, sets);
    } else if let Some(definition) = definitions.iter().find(|definition| definition.origin == origin) {
        // Deleted by hand: without an SOA there is no zone.
        let first = Content::first(definition);
        content.set(owner, Arc::new(first.sets(&[]).to_vec()));
    }
}
