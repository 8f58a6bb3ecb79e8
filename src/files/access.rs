//! Owners and permissions of the files that muster reads: which links are followed, and which files every user of the host
//! can change or read.
//!
//! The agent may read files that the author of a service file may not. So a link is followed only if its author can read the
//! target as well. As for `FollowSymLinks` and `SymLinksIfOwnerMatch` of httpd, the owner of the link decides.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::unistd::Uid;
use tracing::warn;

use super::{
    contents::{Access, Exposure, ReadError},
    link_walk::{self, Visit},
};

/// Permission of all users to read.
const OTHERS_READ: u32 = 0o004;
/// Permission of all users to write.
const OTHERS_WRITE: u32 = 0o002;
/// Permission of all users to use a file below the folder.
const OTHERS_SEARCH: u32 = 0o001;
/// In a folder with this bit, only its owner and that of a file can replace the file.
const STICKY: u32 = 0o1000;

/// Decides whether the file at `path`, which was `opened`, may be read as one of a folder. `is_open`: every user of the host can
/// add files to the folder.
///
/// Returns how every user of the host can change or read it, to be reported. That files can be replaced because the folder is
/// open is a problem of the folder, which is reported once.
///
/// # Errors
/// The file may not be read.
pub fn admit(path: &Path, opened: &Metadata, access: Access, is_open: bool) -> Result<Option<Exposure>, ReadError> {
    let entry = path.symlink_metadata()?;
    if entry.is_symlink() {
        if !may_follow(path, opened)? {
            return Err(ReadError::ForeignLink);
        }
    } else if !is_same(&entry, opened) {
        // The entry may have been a link when the file was opened.
        return Err(ReadError::Replaced);
    }
    let found = exposure(path, access).filter(|found| {
        let is_of_folder = || is_open && folder_of_target(path) == folder_of(path).canonicalize().ok();
        *found != Exposure::Replaceable || !is_of_folder()
    });
    let is_change = |found: &Exposure| matches!(found, Exposure::Writable | Exposure::Replaceable);
    let changeable = found.filter(is_change).or(is_open.then_some(Exposure::OpenFolder));
    match changeable {
        Some(changeable) if access != Access::Content => Err(ReadError::Exposed(changeable)),
        _ => Ok(found),
    }
}

/// Decides whether a file that a file of `folder` includes may be read: it was `opened` at `path` below the folder. Every link on the path
/// is checked.
///
/// Returns how every user of the host can change it.
///
/// # Errors
/// The file may not be read.
pub fn admit_included(folder: &Path, path: &Path, opened: &Metadata) -> Result<Option<Exposure>, ReadError> {
    if may_follow_below(folder, path, opened)? {
        Ok(exposure(&folder.join(path), Access::Content))
    } else {
        Err(ReadError::ForeignLink)
    }
}

/// Decides as [`admit`] for the entry at `path`, which is not open.
///
/// # Errors
/// The entry is not a regular file, or it may not be read.
pub fn admit_unopened(path: &Path, access: Access, is_open: bool) -> Result<Option<Exposure>, ReadError> {
    let metadata = fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound if path.is_symlink() => ReadError::Dangling,
        _ => error.into(),
    })?;
    if metadata.is_file() { admit(path, &metadata, access, is_open) } else { Err(ReadError::NotAFile) }
}

/// Reports whether the symbolic link at `path` may be followed to the file that was `opened` through it.
///
/// It may if every user can read the file, or if each link on the path from `path` on belongs to root, to the user of this
/// process or to the owner of the file. False as well if the link has changed since.
///
/// # Errors
/// A part of the path cannot be inspected.
fn may_follow(path: &Path, opened: &Metadata) -> io::Result<bool> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    may_follow_below(folder_of(path), Path::new(name), opened)
}

/// Decides as [`may_follow`] for all links on a path below a folder.
fn may_follow_below(folder: &Path, path: &Path, opened: &Metadata) -> io::Result<bool> {
    let (target, owners) = resolve(folder, path)?;
    // The target had no link at its end a moment ago: one that has appeared since is not followed.
    if !is_same(&target.symlink_metadata()?, opened) {
        return Ok(false);
    }
    let trusted = [0, Uid::effective().as_raw(), opened.uid()];
    Ok(owners.iter().all(|owner| trusted.contains(owner))
        || (opened.mode() & OTHERS_READ != 0 && is_reachable(&target)))
}

/// Reports whether both describe one file.
fn is_same(a: &Metadata, b: &Metadata) -> bool {
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// Returns how every user of the host can change, or read, the file at `path`; `None` if none can, or if the file cannot be
/// inspected.
pub fn exposure(path: &Path, access: Access) -> Option<Exposure> {
    let target = path.canonicalize().ok()?;
    let is_open = |path: &Path, bits: u32| path.metadata().is_ok_and(|known| known.mode() & bits == bits);
    let folder = target.parent().unwrap_or(&target);
    let is_replaceable = is_open(folder, OTHERS_WRITE) && !is_open(folder, STICKY);
    let found = if is_open(&target, OTHERS_WRITE) {
        Exposure::Writable
    } else if is_replaceable {
        Exposure::Replaceable
    } else if access.is_secret(path) && is_open(&target, OTHERS_READ) {
        Exposure::Readable
    } else {
        return None;
    };
    is_reachable(&target).then_some(found)
}

/// Reports whether every user of the host can read the file at `path`, which was `opened`.
pub fn is_public(path: &Path, opened: &Metadata) -> bool {
    opened.mode() & OTHERS_READ != 0 && path.canonicalize().is_ok_and(|target| is_reachable(&target))
}

/// Logs if every user of the host can read or change the file at `path`, which has a key.
pub fn warn_of_exposed_secret(path: &Path) {
    if let Some(found) = exposure(path, Access::Secret) {
        warn!("{}", found.at(path));
    }
}

/// Reports whether every user of the host can add files to the folder at `path`.
pub fn is_open_folder(path: &Path) -> bool {
    let Ok(folder) = path.canonicalize() else { return false };
    let bits = OTHERS_WRITE | OTHERS_SEARCH;
    folder.metadata().is_ok_and(|known| known.is_dir() && known.mode() & bits == bits) && is_reachable(&folder)
}

/// Reports whether every user of the host can use the file at `path`, a path without links: no folder above it is closed.
fn is_reachable(path: &Path) -> bool {
    let mut above = path.ancestors().skip(1);
    above.all(|folder| folder.metadata().is_ok_and(|known| known.mode() & OTHERS_SEARCH != 0))
}

/// The folder of the entry at `path`.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The folder of the file at `path`, links followed; `None` if the file cannot be inspected.
fn folder_of_target(path: &Path) -> Option<PathBuf> {
    path.canonicalize().ok()?.parent().map(Path::to_owned)
}

/// Returns the target of the entry at `path` below `folder`, and the owners of the links to it.
fn resolve(folder: &Path, path: &Path) -> io::Result<(PathBuf, Vec<u32>)> {
    // The folder is named by the configuration: links above it are trusted.
    let mut owners = Vec::new();
    let target = link_walk::resolve(&fs::canonicalize(folder)?, path, |visit| {
        if let Visit::Link(_, link) = visit {
            owners.push(link.uid());
        }
    })?;
    Ok((target.path, owners))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, lchown, symlink};

    use super::{super::link_walk::MAX_STEPS, *};

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Needs root, which may give files away.
    #[test]
    fn link_is_followed_if_its_owner_can_read_the_target() {
        if !Uid::effective().is_root() {
            return;
        }
        let (me, other) = (1234, 4321);
        // Owner of the link, owner and mode of the target, mode of its folder.
        let cases = [
            (0, 0, 0o600, 0o755, true),
            (0, other, 0o600, 0o755, true),
            (me, me, 0o600, 0o755, true),
            (me, 0, 0o644, 0o755, true),
            (me, other, 0o644, 0o755, true),
            (me, 0, 0o640, 0o755, false),
            (me, 0, 0o600, 0o755, false),
            (me, other, 0o600, 0o755, false),
            (me, 0, 0o644, 0o750, false),
        ];
        let dir = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for folder in ["services.d", "keys"] {
            fs::create_dir(at(folder)).unwrap();
        }
        for (link_owner, owner, mode, folder, expected) in cases {
            fs::write(at("keys/secret"), "x").unwrap();
            lchown(at("keys/secret"), Some(owner), None).unwrap();
            chmod(&at("keys/secret"), mode);
            chmod(&at("keys"), folder);
            symlink("../keys/secret", at("services.d/x.yaml")).unwrap();
            lchown(at("services.d/x.yaml"), Some(link_owner), None).unwrap();
            // A link of root to the link of the user.
            symlink("x.yaml", at("services.d/y.yaml")).unwrap();
            // A folder of the user.
            symlink("../keys", at("services.d/keys")).unwrap();
            lchown(at("services.d/keys"), Some(link_owner), None).unwrap();
            symlink("./keys/../keys/secret", at("services.d/z.yaml")).unwrap();
            let opened = at("keys/secret").metadata().unwrap();
            for name in ["services.d/x.yaml", "services.d/y.yaml", "services.d/z.yaml"] {
                let got = may_follow(&at(name), &opened).unwrap();
                assert_eq!(got, expected, "{name} of {link_owner} to {mode:o} of {owner} in {folder:o}");
            }
            for name in
                ["services.d/x.yaml", "services.d/y.yaml", "services.d/z.yaml", "services.d/keys", "keys/secret"]
            {
                fs::remove_file(at(name)).unwrap();
            }
        }
    }

    #[test]
    fn link_that_has_changed_since_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("a"), "").unwrap();
        fs::write(at("b"), "").unwrap();
        symlink("a", at("link")).unwrap();
        assert!(may_follow(&at("link"), &at("a").metadata().unwrap()).unwrap());
        assert!(!may_follow(&at("link"), &at("b").metadata().unwrap()).unwrap());
        assert!(matches!(
            admit(&at("a"), &at("b").metadata().unwrap(), Access::Content, false),
            Err(ReadError::Replaced)
        ));
        symlink("../".repeat(MAX_STEPS) + "a", at("long")).unwrap();
        assert!(may_follow(&at("long"), &at("a").metadata().unwrap()).is_err());
        symlink("loop", at("loop")).unwrap();
        assert!(may_follow(&at("loop"), &at("a").metadata().unwrap()).is_err());
    }

    #[test]
    fn open_folder_is_not_repeated_as_a_problem_of_its_files() {
        let dir = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for folder in ["d", "e"] {
            fs::create_dir(at(folder)).unwrap();
            chmod(&at(folder), 0o777);
            fs::write(at(folder).join("f"), "").unwrap();
            chmod(&at(folder).join("f"), 0o644);
        }
        symlink("../e/f", at("d/link")).unwrap();
        let admit = |name: &str, access| admit(&at(name), &at(name).metadata().unwrap(), access, true);
        assert_eq!(admit("d/f", Access::Content), Ok(None));
        assert_eq!(admit("d/link", Access::Content), Ok(Some(Exposure::Replaceable)), "another folder");
        assert_eq!(admit("d/f", Access::Trusted), Err(ReadError::Exposed(Exposure::OpenFolder)));
        assert_eq!(admit("d/link", Access::Trusted), Err(ReadError::Exposed(Exposure::Replaceable)));
        chmod(&at("d/f"), 0o666);
        assert_eq!(admit("d/f", Access::Content), Ok(Some(Exposure::Writable)));
    }

    #[test]
    fn permissions_of_all_users_expose_a_file() {
        use Exposure::{Readable, Replaceable, Writable};
        // Modes of the file and its folder, exposure of content and of a secret.
        let cases = [
            (0o644, 0o755, None, Some(Readable)),
            (0o640, 0o755, None, None),
            (0o600, 0o755, None, None),
            (0o644, 0o750, None, None),
            (0o666, 0o755, Some(Writable), Some(Writable)),
            (0o602, 0o755, Some(Writable), Some(Writable)),
            (0o664, 0o775, None, Some(Readable)),
            (0o666, 0o750, None, None),
            (0o640, 0o777, Some(Replaceable), Some(Replaceable)),
            (0o666, 0o777, Some(Writable), Some(Writable)),
            (0o640, 0o1777, None, None),
            (0o644, 0o1777, None, Some(Readable)),
        ];
        let dir = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
        let (folder, file) = (dir.path().join("d"), dir.path().join("d/f"));
        fs::create_dir(&folder).unwrap();
        fs::write(&file, "").unwrap();
        for (mode, folder_mode, content, secret) in cases {
            chmod(&file, mode);
            chmod(&folder, folder_mode);
            assert_eq!(exposure(&file, Access::Content), content, "{mode:o} in {folder_mode:o}");
            assert_eq!(exposure(&file, Access::Secret), secret, "{mode:o} in {folder_mode:o}");
            assert_eq!(is_open_folder(&folder), folder_mode & 0o003 == 0o003, "{folder_mode:o}");
        }
        // No folder above is closed.
        chmod(&file, 0o666);
        chmod(&folder, 0o777);
        chmod(dir.path(), 0o700);
        assert_eq!((exposure(&file, Access::Secret), is_open_folder(&folder)), (None, false));
        assert_eq!(exposure(&dir.path().join("none"), Access::Secret), None);
    }
}
