//! Listening sockets that outlive the stages of the agent.
//!
//! The stages work with duplicates. The originals stay open over a reload, an upgrade and, in the service manager's store, a
//! restart: queries wait in the sockets meanwhile. Each listener has a name that is the same in all of them.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    ffi::OsString,
    fmt, io,
    net::SocketAddr,
    os::{
        fd::OwnedFd,
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::PathBuf,
    str::FromStr,
};

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, percent_encode};
use socket2::{SockRef, Type};

use super::Purpose;

/// Name of a listener: its purpose, and its address as configured. Port 0 stays 0.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum SocketName {
    /// UDP sockets, one or more that share the address.
    Udp(Purpose, SocketAddr),
    /// A TCP listener.
    Tcp(Purpose, SocketAddr),
    /// The Unix socket of the HTTP API.
    Unix(PathBuf),
}

impl SocketName {
    /// A UDP and a TCP listener on one address.
    pub(super) fn pair(purpose: Purpose, address: SocketAddr) -> [Self; 2] {
        [Self::Udp(purpose, address), Self::Tcp(purpose, address)]
    }

    /// Reports whether a socket is one of this listener, and makes it non-blocking.
    pub(super) fn is_of(&self, socket: &OwnedFd) -> bool {
        let socket = SockRef::from(socket);
        let is_at = |address: &SocketAddr| {
            let local = socket.local_addr().ok().and_then(|local| local.as_socket());
            local.is_some_and(|local| {
                local.ip() == address.ip() && (address.port() == 0 || local.port() == address.port())
            })
        };
        let is_listener = || socket.is_listener().unwrap_or(false);
        let fits = match self {
            Self::Udp(_, address) => socket.r#type().is_ok_and(|kind| kind == Type::DGRAM) && is_at(address),
            Self::Tcp(_, address) => is_listener() && is_at(address),
            Self::Unix(_) => is_listener() && socket.local_addr().is_ok_and(|local| local.is_unix()),
        };
        fits && socket.set_nonblocking(true).is_ok()
    }
}

/// Open listening sockets by name.
#[derive(Debug, Default)]
pub(super) struct SocketPool(BTreeMap<SocketName, Vec<OwnedFd>>);

impl SocketPool {
    /// Names with their sockets.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&SocketName, &[OwnedFd])> {
        self.0.iter().map(|(name, sockets)| (name, sockets.as_slice()))
    }

    /// Reports whether it has the listener.
    pub(super) fn contains(&self, name: &SocketName) -> bool {
        self.0.contains_key(name)
    }

    /// Adds the listeners that are not open.
    pub(super) fn extend(&mut self, other: Self) {
        for (name, sockets) in other.0 {
            self.0.entry(name).or_insert(sockets);
        }
    }

    /// Adds a socket.
    pub(super) fn add(&mut self, name: SocketName, socket: OwnedFd) {
        self.0.entry(name).or_default().push(socket);
    }
}

/// Collects the listeners of a configuration: those that are open already, and new ones. The open ones stay in their pool,
/// so that a failure changes nothing.
pub(super) struct Binding<'p> {
    open: &'p SocketPool,
    next: SocketPool,
}

impl<'p> Binding<'p> {
    pub(super) fn new(open: &'p SocketPool) -> Self {
        Self { open, next: SocketPool::default() }
    }

    /// Returns the sockets of listeners that belong together. Calls `bind` unless all are open; `bind` returns the sockets of
    /// each name in turn.
    pub(super) fn obtain<const N: usize>(
        &mut self,
        names: [SocketName; N],
        bind: impl FnOnce() -> io::Result<[Vec<OwnedFd>; N]>,
    ) -> io::Result<[Vec<OwnedFd>; N]> {
        let are_open = names.iter().all(|name| self.open.contains(name) && !self.next.contains(name));
        if !are_open {
            return self.bind(names, bind);
        }
        let duplicate = |name| self.open.0.get(name).into_iter().flatten().map(OwnedFd::try_clone).collect();
        let duplicates: [io::Result<Vec<OwnedFd>>; N] = std::array::from_fn(|at| duplicate(&names[at]));
        self.bind(names, || {
            let mut sockets = std::array::from_fn(|_| Vec::new());
            for (sockets, duplicates) in sockets.iter_mut().zip(duplicates) {
                *sockets = duplicates?;
            }
            Ok(sockets)
        })
    }

    /// Like [`obtain`](Self::obtain), but binds even if the listeners are open.
    pub(super) fn bind<const N: usize>(
        &mut self,
        names: [SocketName; N],
        bind: impl FnOnce() -> io::Result<[Vec<OwnedFd>; N]>,
    ) -> io::Result<[Vec<OwnedFd>; N]> {
        let sockets = bind()?;
        for (name, sockets) in names.into_iter().zip(&sockets) {
            let originals = sockets.iter().map(OwnedFd::try_clone).collect::<io::Result<Vec<_>>>()?;
            match self.next.0.entry(name) {
                Entry::Vacant(entry) => drop(entry.insert(originals)),
                // The same address twice, with port 0: the second listener is not handed over.
                Entry::Occupied(_) => {}
            }
        }
        Ok(sockets)
    }

    /// Returns the pool of the new configuration.
    pub(super) fn finish(self) -> SocketPool {
        self.next
    }
}

/// Kind of the Unix socket.
const UNIX: &str = "http-unix";
/// Octets of a path that a name must not have.
const UNSAFE: &AsciiSet = &CONTROLS.add(b':').add(b'%').add(b' ');
/// Separates the purpose from the address.
const SEPARATOR: char = '/';
/// Replaces colons, which the service manager does not permit in names (sd_pid_notify_with_fds(3)).
const COLON: &str = ",";

impl fmt::Display for SocketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, address) = match self {
            Self::Udp(purpose, address) => (format!("{}-udp", purpose.word()), address.to_string()),
            Self::Tcp(purpose, address) => (format!("{}-tcp", purpose.word()), address.to_string()),
            Self::Unix(path) => {
                let path = percent_encode(path.as_os_str().as_bytes(), UNSAFE);
                return write!(f, "{UNIX}{SEPARATOR}{path}");
            }
        };
        write!(f, "{kind}{SEPARATOR}{}", address.replace(':', COLON))
    }
}

/// The text is no name of a listener.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no name of a listener")]
pub(super) struct SocketNameError(String);

impl FromStr for SocketName {
    type Err = SocketNameError;

    fn from_str(text: &str) -> Result<Self, SocketNameError> {
        let parse = || {
            let (kind, address) = text.split_once(SEPARATOR)?;
            if kind == UNIX {
                let path: Vec<u8> = percent_decode_str(address).collect();
                return Some(Self::Unix(PathBuf::from(OsString::from_vec(path))));
            }
            let (purpose, protocol) = kind.rsplit_once('-')?;
            let purpose = Purpose::from_word(purpose)?;
            let address = address.replace(COLON, ":").parse().ok()?;
            match protocol {
                "udp" => Some(Self::Udp(purpose, address)),
                "tcp" => Some(Self::Tcp(purpose, address)),
                _ => None,
            }
        };
        parse().ok_or_else(|| SocketNameError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn names_round_trip_without_colons() {
        let address = |text: &str| text.parse().unwrap();
        let names = [
            SocketName::Udp(Purpose::Dns, address("127.0.0.1:53")),
            SocketName::Tcp(Purpose::Gossip, address("[2001:db8::1]:7946")),
            SocketName::Tcp(Purpose::Https, address("[::]:0")),
            SocketName::Udp(Purpose::Quic, address("0.0.0.0:853")),
            SocketName::Unix("/run/muster/api.sock".into()),
            SocketName::Unix("/run/a:b 100%,\u{fc}.sock".into()),
        ];
        for name in names {
            let text = name.to_string();
            assert!(!text.contains(':') && text.is_ascii(), "{text}");
            assert_eq!(text.parse(), Ok(name), "{text}");
        }
        for text in
            ["", "dns-udp", "dns-udp/", "dns/127.0.0.1,53", "other-tcp/127.0.0.1,53", "dns-udp/127.0.0.1", "stored"]
        {
            assert_eq!(text.parse::<SocketName>(), Err(SocketNameError(text.to_owned())));
        }
    }

    fn listen() -> io::Result<OwnedFd> {
        Ok(TcpListener::bind("127.0.0.1:0")?.into())
    }

    fn port(socket: &OwnedFd) -> u16 {
        TcpListener::from(socket.try_clone().unwrap()).local_addr().unwrap().port()
    }

    #[test]
    fn open_listeners_are_kept_and_new_ones_bound() {
        let name = |port: u16| SocketName::Tcp(Purpose::Dns, SocketAddr::from(([127, 0, 0, 1], port)));
        let mut pool = SocketPool::default();
        pool.add(name(1), listen().unwrap());
        let kept = port(&pool.0[&name(1)][0]);

        let mut binding = Binding::new(&pool);
        let [sockets] = binding.obtain([name(1)], || panic!("the listener is open")).unwrap();
        assert_eq!(port(&sockets[0]), kept);
        let failure = || Err(io::Error::other("taken"));
        assert!(binding.obtain([name(2)], failure).is_err());
        binding.obtain([name(3)], || Ok([vec![listen()?]])).unwrap();
        let next = binding.finish();
        assert_eq!(next.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(), [name(1), name(3)]);
        assert_eq!(port(&next.0[&name(1)][0]), kept);
        assert!(pool.contains(&name(1)), "a failure must not change the open pool");
    }

    #[test]
    fn listeners_that_belong_together_are_bound_together() {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let names = || [SocketName::Udp(Purpose::Dns, address), SocketName::Tcp(Purpose::Dns, address)];
        let mut pool = SocketPool::default();
        pool.add(names()[1].clone(), listen().unwrap());
        let [udp, tcp] =
            Binding::new(&pool).obtain(names(), || Ok([vec![listen()?, listen()?], vec![listen()?]])).unwrap();
        assert_eq!((udp.len(), tcp.len()), (2, 1));
        assert_ne!(port(&tcp[0]), port(&pool.0[&names()[1]][0]));
    }
}
