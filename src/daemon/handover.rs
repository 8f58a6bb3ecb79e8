//! What one start of the stages leaves to the next: open sockets, the run in the cluster, and the state.
//!
//! A handover stays in the process for a reload. For an upgrade, it crosses execve(2): the sockets stay open, and a file in
//! memory describes them and holds the state.

use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    net::IpAddr,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    process,
    time::Duration,
};

use rustix::{
    fs::{MemfdFlags, memfd_create},
    io::{FdFlags, fcntl_setfd},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    fixed::Fixed,
    sockets::{SocketName, SocketPool},
};
use crate::{
    config::Config,
    inherited_fd,
    model::member::INCARNATIONS,
    registry::request::Queue,
    saved_state::{SavedState, SavedStateError},
    service_manager,
};

/// Environment variable with the process id and the number of the state's descriptor. The id keeps child processes from
/// taking it for theirs: execve(2) does not change it.
const VARIABLE: &str = "MUSTER_HANDOVER";
/// Environment variable of a rehearsal, with the number of the state's descriptor.
pub(super) const REHEARSAL: &str = "MUSTER_REHEARSAL";
/// Format of the header.
const FORMAT: u32 = 1;

/// What one start of the stages leaves to the next.
#[derive(Debug, Default)]
pub struct Handover {
    /// Listening sockets.
    pub(super) sockets: SocketPool,
    /// The run that goes on; `None` for a new run.
    pub(super) run: Option<Run>,
    /// Settings that an upgrade must not change, and the address in use; `None` within a process.
    pub(super) settings: Option<Settings>,
    /// Names of the open listeners, for a rehearsal, which gets no socket.
    pub(super) listeners: Vec<String>,
    /// Generation above which a new run begins.
    pub(super) above: u64,
    /// Peers, check results and last valid files; `None` if there is none: the data directory may have an older one.
    pub(super) state: Option<SavedState>,
    /// Changes of the registry that wait for the next start in this process.
    pub(super) requests: Queue,
}

/// Identity of a run in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Run {
    /// Generation of the run.
    pub(super) generation: u64,
    /// Number of earlier starts of gossip within the run.
    pub(super) incarnation: u64,
    /// Uptime of the host at the start of the run.
    pub(super) since: Duration,
}

impl Run {
    /// The run after another start of gossip; `None` if the run has no more incarnations.
    pub(super) fn next_incarnation(self) -> Option<Self> {
        let incarnation = self.incarnation + 1;
        (incarnation < INCARNATIONS).then_some(Self { incarnation, ..self })
    }
}

/// A handover cannot be read.
#[derive(Debug, Error)]
pub enum HandoverError {
    /// The environment variable is malformed; holds its value.
    #[error("the variable {VARIABLE} is malformed: {0:?}")]
    Variable(String),
    /// The descriptor is not open; holds its number.
    #[error("descriptor {0} is not open")]
    Descriptor(RawFd),
    /// The state cannot be read.
    #[error("cannot read the handed-over state: {0}")]
    Read(#[from] io::Error),
    /// The header is malformed.
    #[error("the handed-over state has an invalid header: {0}")]
    Header(#[from] serde_json::Error),
    /// The header has another format; holds it.
    #[error("the handed-over state has format {0}; this binary reads format {FORMAT}")]
    Format(u32),
    /// The state is damaged or of another version.
    #[error("cannot read the handed-over state: {0}")]
    State(#[from] SavedStateError),
}

/// Settings of the agent that upgrades.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Settings {
    /// What only a restart changes.
    pub(super) fixed: Fixed,
    /// Advertised addresses.
    pub(super) advertise: Vec<IpAddr>,
    /// Address of the host that the agent advertises.
    address: Option<IpAddr>,
}

/// First line of the file.
#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    run: Option<Run>,
    settings: Option<Settings>,
    /// Names with the numbers of their descriptors.
    sockets: Vec<(String, Vec<RawFd>)>,
}

impl Handover {
    /// Takes over from the previous image of this process, or else from the service manager's store. To be called once, at the
    /// start of the process.
    ///
    /// # Errors
    /// The previous image passed something that cannot be read.
    pub fn receive() -> Result<Self, HandoverError> {
        let mut handover = match std::env::var(VARIABLE) {
            Ok(value) => match value.split_once(' ') {
                Some((pid, number)) if pid == process::id().to_string() => {
                    let malformed = || HandoverError::Variable(value.clone());
                    Self::read(number.parse().map_err(|_| malformed())?)?
                }
                Some(_) => Self::default(),
                None => return Err(HandoverError::Variable(value)),
            },
            Err(_) => Self::default(),
        };
        for (name, socket) in service_manager::stored_sockets() {
            match name.parse::<SocketName>() {
                Ok(name) if name.is_of(&socket) => handover.sockets.add(name, socket),
                // A socket of another version or of another program. Nothing must connect to it and wait.
                Ok(_) | Err(_) => service_manager::forget(&name),
            }
        }
        Ok(handover)
    }

    /// Reads the handover of a rehearsal; `None` if this process is none. Its sockets belong to the running agent.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn rehearsed() -> Result<Option<Self>, HandoverError> {
        let Ok(value) = std::env::var(REHEARSAL) else { return Ok(None) };
        let number = value.parse().map_err(|_| HandoverError::Variable(value))?;
        let (header, state) = read(number)?;
        let listeners = header.sockets.into_iter().map(|(name, _)| name).collect();
        Ok(Some(Self { run: header.run, settings: header.settings, listeners, state: Some(state), ..Self::default() }))
    }

    fn read(number: RawFd) -> Result<Self, HandoverError> {
        let (header, state) = read(number)?;
        let mut sockets = SocketPool::default();
        for (name, numbers) in header.sockets {
            for number in numbers {
                let socket = inherited_fd::adopt(number).ok_or(HandoverError::Descriptor(number))?;
                // A name of another version: the socket is closed.
                if let Ok(name) = name.parse::<SocketName>() {
                    sockets.add(name, socket);
                }
            }
        }
        Ok(Self { sockets, run: header.run, settings: header.settings, state: Some(state), ..Self::default() })
    }

    /// Address of the host that the agent advertises.
    pub fn address(&self) -> Option<IpAddr> {
        self.settings.as_ref()?.address
    }

    /// Reports whether another image of this process has left it.
    pub(super) fn is_upgrade(&self) -> bool {
        self.settings.is_some()
    }

    /// Returns the handover of an agent with this configuration to another image.
    pub(super) fn of(self, config: &Config) -> Self {
        let advertise = config.advertise.addresses().to_vec();
        let settings = Settings { fixed: Fixed::of(config), advertise, address: config.advertise.of_host() };
        Self { settings: Some(settings), ..self }
    }

    /// Writes the handover to a file in memory.
    ///
    /// # Errors
    /// The system's error.
    pub(super) fn write(&self) -> io::Result<OwnedFd> {
        let sockets = self.sockets.iter().map(|(name, sockets)| {
            let numbers = sockets.iter().map(AsRawFd::as_raw_fd).collect();
            (name.to_string(), numbers)
        });
        let sockets = sockets.chain(self.listeners.iter().map(|name| (name.clone(), Vec::new())));
        let header =
            Header { format: FORMAT, run: self.run, settings: self.settings.clone(), sockets: sockets.collect() };
        let mut file = File::from(memfd_create("muster-handover", MemfdFlags::CLOEXEC)?);
        serde_json::to_writer(&mut file, &header)?;
        file.write_all(b"\n")?;
        if let Some(state) = &self.state {
            file.write_all(&state.encode())?;
        }
        Ok(file.into())
    }

    /// Lets the next image of this process inherit the sockets and the file. Returns the environment variable that passes them.
    ///
    /// # Errors
    /// The system's error.
    pub(super) fn pass(&self, file: &OwnedFd) -> io::Result<(&'static str, String)> {
        self.sockets.iter().flat_map(|(_, sockets)| sockets).try_for_each(inherit)?;
        inherit(file)?;
        Ok((VARIABLE, format!("{} {}", process::id(), file.as_raw_fd())))
    }

    /// Takes back what [`pass`](Self::pass) did.
    pub(super) fn keep(&self) {
        for socket in self.sockets.iter().flat_map(|(_, sockets)| sockets) {
            // Cannot fail for an open descriptor.
            let _ = fcntl_setfd(socket, FdFlags::CLOEXEC);
        }
    }
}

/// Lets the processes that this one executes inherit a descriptor.
pub(super) fn inherit(descriptor: impl AsFd) -> io::Result<()> {
    Ok(fcntl_setfd(descriptor, FdFlags::empty())?)
}

fn read(number: RawFd) -> Result<(Header, SavedState), HandoverError> {
    let mut file = File::from(inherited_fd::adopt(number).ok_or(HandoverError::Descriptor(number))?);
    file.rewind()?;
    let mut octets = Vec::new();
    file.read_to_end(&mut octets)?;
    let end = octets.iter().position(|octet| *octet == b'\n').unwrap_or(octets.len());
    let (header, state) = octets.split_at(end);
    let header: Header = serde_json::from_slice(header)?;
    if header.format != FORMAT {
        return Err(HandoverError::Format(header.format));
    }
    Ok((header, SavedState::decode(state.get(1..).unwrap_or_default())?))
}
