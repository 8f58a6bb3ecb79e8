//! This node in the store's cluster: its id on disk, and its member, if it holds a log.
//!
//! The id is made once, with the folder. A disk that was replaced has none, so the node comes back under another id: it has forgotten
//! its votes and entries, and counting it as the former voter could lose acknowledged writes.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
    sync::Arc,
};

use thiserror::Error;
use tokio::sync::{Mutex, Semaphore, mpsc, watch};
use tracing::{info, warn};

use super::{
    failure::{Cause, Failure},
    interest::Interests,
    leader::Duties,
    local::Local,
    resignation::resign,
    role_log::log_roles,
    space_log::SpaceLog,
    succession::succeed,
};
use crate::{
    metrics::{self, StoreMember},
    model::catalog::Catalog,
    store::{
        message::Description,
        peers::Peers,
        raft::{self, Voter, VoterError},
    },
};
use tokio_util::sync::CancellationToken;

/// Name of the file with the node's id.
pub(super) const ID: &str = "id";
/// Renewals that wait for the leader.
const RENEWALS: usize = 8192;

/// Reasons why the node cannot hold a log.
#[derive(Debug, Error)]
enum MemberError {
    /// The folder cannot be created, or the id in it cannot be read or written.
    #[error("cannot use the folder: {0}")]
    Folder(io::Error),
    /// The member cannot start.
    #[error(transparent)]
    Voter(#[from] VoterError),
}

impl MemberError {
    /// The cause of the error.
    fn cause(&self) -> Cause {
        match self {
            Self::Voter(error) if error.is_damage() => Cause::Damaged,
            Self::Folder(_) | Self::Voter(_) => Cause::of(&self.to_string()),
        }
    }
}

/// This node in the store's cluster.
#[derive(Clone)]
pub(super) struct Node {
    /// Name of the node.
    pub(super) own: Arc<str>,
    /// True if it joins others at its start.
    pub(super) joins: bool,
    pub(super) folder: Arc<Path>,
    pub(super) max_octets: u64,
    pub(super) metrics: metrics::Store,
    pub(super) peers: Peers,
    pub(super) catalog: watch::Receiver<Catalog>,
    /// The member, once it has started.
    pub(super) local: Arc<watch::Sender<Option<Local>>>,
    /// Held while the member starts.
    pub(super) starting: Arc<Mutex<()>>,
    /// Turns of large answers to other nodes.
    pub(super) large_answers: Arc<Semaphore>,
    /// Why the member does not run.
    pub(super) failure: Failure,
    pub(super) shutdown: CancellationToken,
}

impl Node {
    /// This node's member, if it has one.
    pub(super) fn member(&self) -> Option<Local> {
        self.local.borrow().clone()
    }

    /// Reports whether the disk has an id, so that the node holds a log.
    pub(super) fn has_id(&self) -> bool {
        self.folder.join(ID).exists()
    }

    /// Describes the node to others.
    pub(super) fn description(&self) -> Description {
        let Some(local) = self.member() else { return Description::default() };
        let role = local.voter.role();
        Description {
            id: Some(local.voter.id()),
            has_log: local.voter.had_log() || role.last_log > 0,
            members: role.members,
        }
    }

    /// Starts the member, unless it runs. Logs a failure.
    pub(super) async fn prepare(&self) {
        let _starting = self.starting.lock().await;
        if self.member().is_some() {
            return;
        }
        match self.start().await {
            Ok(local) => {
                self.local.send_replace(Some(local));
            }
            Err(error) => {
                self.metrics.set(StoreMember::Failed);
                if let Some(error) = self.failure.note(&self.folder, &error.to_string(), error.cause()) {
                    warn!(error, "store: this node cannot hold the log");
                }
            }
        }
    }

    async fn start(&self) -> Result<Local, MemberError> {
        let id = own_id(&self.folder).map_err(MemberError::Folder)?;
        let voter = Voter::open(&self.folder, id, self.peers.clone(), self.max_octets, self.metrics.clone()).await?;
        info!(id = format!("{id:016x}"), "store: this node holds the log");
        let interests = Interests::default();
        tokio::spawn(interests.clone().follow(voter.applied()));
        let ended = self.shutdown.child_token();
        let (renewals, renewed) = mpsc::channel(RENEWALS);
        let resigning = CancellationToken::new();
        let local = Local {
            voter,
            interests,
            renewals,
            resigning,
            accepting: Arc::default(),
            space_log: SpaceLog::default(),
            ended: ended.clone(),
        };
        let duties = Duties {
            local: local.clone(),
            renewals: renewed,
            catalog: self.catalog.clone(),
            peers: self.peers.clone(),
            own: self.own.to_string(),
            max_octets: self.max_octets,
        };
        tokio::spawn(duties.run(ended));
        tokio::spawn(log_roles(local.clone()));
        tokio::spawn(succeed(local.clone(), self.catalog.clone()));
        Ok(local)
    }

    /// Lets another node's member take over, if this node's is the leader.
    pub(super) async fn resign(&self) {
        if let Some(local) = self.member() {
            resign(&local, &self.peers).await;
        }
    }

    /// Ends the member.
    pub(super) async fn end(&self) {
        self.metrics.set(StoreMember::None);
        let local = self.local.send_replace(None);
        if let Some(local) = local {
            local.ended.cancel();
            local.voter.end().await;
        }
    }
}

/// Reads the id of this node, or makes one.
fn own_id(folder: &Path) -> io::Result<u64> {
    match read_id(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let id = random_id()?;
            fs::create_dir_all(folder)?;
            raft::restrict(folder)?;
            write_id(folder, id)?;
            Ok(id)
        }
        read => read.and_then(|id| raft::restrict(folder).map(|()| id)),
    }
}

/// Reads the id in the store's folder.
pub(super) fn read_id(folder: &Path) -> io::Result<u64> {
    let path = folder.join(ID);
    let text = fs::read_to_string(&path)?;
    u64::from_str_radix(text.trim(), 16)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("{} has no id", path.display())))
}

/// Returns a random id, never 0.
pub(super) fn random_id() -> io::Result<u64> {
    let mut octets = [0; 8];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut octets)
        .map_err(|_| io::Error::other("the system's random generator failed"))?;
    Ok(u64::from_be_bytes(octets).max(1))
}

/// Writes the id into the store's folder.
pub(super) fn write_id(folder: &Path, id: u64) -> io::Result<()> {
    let temporary = folder.join("id.new");
    let mut file = File::create(&temporary)?;
    writeln!(file, "{id:016x}")?;
    file.sync_all()?;
    fs::rename(&temporary, folder.join(ID))?;
    File::open(folder)?.sync_all()
}
