//! The folder of DNSSEC keys: pairs of files in BIND's form, one pair a key.
//!
//! The two files of a pair may arrive one after the other. A pair that does not fit keeps its former key.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use ring::rand::SecureRandom;

use super::{
    contents::{Access, Contents, FileKind, Folder, Limits},
    last_good::{LastGood, LastValidFile, Loaded, Reloadable},
};
use crate::{
    diagnostic::Diagnostic,
    dns::dnssec::{
        key::{Key, SharedKey},
        key_file::{KeyFileError, KeyId, PRIVATE_EXTENSION, PUBLIC_EXTENSION, PrivateKey, PublicKey},
    },
    model::name::Name,
};

/// Maximum octets of a file: those of BIND have some hundred.
const MAX_FILE: u64 = 16 * 1024;
/// Advice for a zone without a key.
const MAKE_A_KEY: &str = "make one with `muster dnssec keygen` and copy both files to all nodes; remove the name from `dns.dnssec` if \
                          another tool signs the zone";

/// All usable keys, in the order of their names.
pub type Keys = Arc<[SharedKey]>;

/// The files of `dns.dnssec_keys_dir`.
pub fn folder(path: PathBuf) -> Folder {
    Folder {
        path,
        kind: FileKind::KeyPair,
        shared: false,
        access: Access::KeyPairs,
        required: true,
        limits: Limits::for_files_of(MAX_FILE),
    }
}

/// Content of one file.
#[derive(Clone)]
pub enum KeyFile {
    /// A public key.
    Public(KeyId, PublicKey),
    /// A private key.
    Private(KeyId, PrivateKey),
}

/// Reads one file.
///
/// # Errors
/// The problem of the file.
pub fn parse(path: &Path, octets: &[u8]) -> Result<KeyFile, Vec<Diagnostic>> {
    let read = || {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).ok_or(KeyFileError::Name)?;
        let id = KeyId::parse(stem)?;
        if path.extension().is_some_and(|extension| extension == PRIVATE_EXTENSION) {
            let key = PrivateKey::parse(octets)?;
            Ok(KeyFile::Private(id, key))
        } else {
            let key = PublicKey::parse(&id, octets)?;
            Ok(KeyFile::Public(id, key))
        }
    };
    read().map_err(|error: KeyFileError| {
        let hint = match error {
            KeyFileError::Algorithm(_) => "use ECDSA P-256, algorithm 13: `muster dnssec keygen ZONE`",
            _ => "copy both files of the key again, unchanged",
        };
        vec![Diagnostic::whole(path, error.to_string()).with_hint(hint)]
    })
}

/// Parser of the folder.
pub struct KeyFiles {
    /// Zones that are to be signed.
    zones: Vec<Name>,
    files: LastGood<KeyFile>,
    pairs: BTreeMap<KeyId, SharedKey>,
    random: Box<dyn SecureRandom + Send + Sync>,
}

impl KeyFiles {
    /// Returns a parser for keys of these zones.
    pub fn new(zones: Vec<Name>, random: Box<dyn SecureRandom + Send + Sync>) -> Self {
        Self { zones, files: LastGood::new(), pairs: BTreeMap::new(), random }
    }

    /// Returns the problems of a folder.
    pub fn problems(mut self, contents: &Contents) -> Vec<Diagnostic> {
        self.files.update(contents, parse);
        let pairs = self.pair(&contents.folder);
        self.files.problems().cloned().chain(pairs).collect()
    }

    /// Pairs the files; returns the problems of pairs and zones in `folder`.
    fn pair(&mut self, folder: &Path) -> Vec<Diagnostic> {
        let mut found: BTreeMap<KeyId, (Option<PublicKey>, Option<PrivateKey>)> = BTreeMap::new();
        for (_, file) in self.files.values() {
            match &**file {
                KeyFile::Public(id, key) => found.entry(id.clone()).or_default().0 = Some(key.clone()),
                KeyFile::Private(id, key) => found.entry(id.clone()).or_default().1 = Some(key.clone()),
            }
        }
        let mut problems = Vec::new();
        let mut pairs = BTreeMap::new();
        for (id, pair) in found {
            let path = |extension| folder.join(format!("{}.{extension}", id.stem()));
            let missing = match &pair {
                (Some(public), Some(private)) => {
                    let former = self.pairs.get(&id);
                    let key = Key::new(id.zone.clone(), public.flags, public.key, &private.key, &*self.random);
                    match key {
                        Ok(mut key) => {
                            (key.ttl, key.timing) = (public.ttl, private.timing);
                            pairs.insert(id, Arc::new(key));
                        }
                        Err(error) => {
                            problems.push(
                                Diagnostic::whole(&path(PRIVATE_EXTENSION), error.to_string())
                                    .with_hint("copy both files of the key again, unchanged"),
                            );
                            pairs.extend(former.map(|key| (id, key.clone())));
                        }
                    }
                    continue;
                }
                (None, _) => PUBLIC_EXTENSION,
                (_, None) => PRIVATE_EXTENSION,
            };
            let problem = Diagnostic::whole(&path(missing), "this file of the key is missing: the key is not used");
            problems.push(problem.with_hint("copy both files of the key").as_warning());
        }
        for zone in self.zones.iter().filter(|zone| !pairs.keys().any(|id| id.zone == **zone)) {
            let message = format!("no key of the zone {zone}: muster does not sign it");
            problems.push(Diagnostic::whole(folder, message).with_hint(MAKE_A_KEY));
        }
        self.pairs = pairs;
        problems
    }
}

impl Reloadable for KeyFiles {
    type Value = Keys;

    fn restore(&mut self, former: Vec<LastValidFile>) {
        self.files.restore(former);
    }

    fn load(&mut self, contents: &Contents) -> Loaded<Keys> {
        self.files.update(contents, parse);
        let mut problems: Vec<Diagnostic> = self.files.problems().cloned().collect();
        problems.extend(self.pair(&contents.folder));
        problems.extend(self.files.consequences());
        let tags: Vec<String> = self.pairs.keys().map(|id| format!("{} {}", id.zone, id.tag)).collect();
        let keys = if tags.len() == 1 { "1 key".to_owned() } else { format!("{} keys", tags.len()) };
        let summary = if tags.is_empty() { keys } else { format!("{keys}: {}", tags.join(", ")) };
        let last_valid = self.files.last_valid();
        Loaded { value: self.pairs.values().cloned().collect(), summary, problems, last_valid }
    }
}
