//! Resolves a path link by link, as the kernel does. The caller sees each entry on the way, which the kernel does not report.

use std::{
    ffi::OsString,
    fs::Metadata,
    io,
    path::{Component, Path, PathBuf},
};

use nix::libc::ELOOP;

/// Maximum links to one file: the limit of the kernel (path_resolution(7)).
const MAX_LINKS: usize = 40;
/// Maximum components of a path with all its links: many times those of real paths. Links can repeat `a/../` to make each
/// read take seconds.
pub(super) const MAX_STEPS: usize = 512;

/// An entry on the path: its own path, which has no links above its last component.
pub(super) enum Visit<'a> {
    /// A symbolic link.
    Link(&'a Path, &'a Metadata),
    /// Any other entry.
    Other(&'a Path),
    /// An entry that cannot be inspected: mostly, it does not exist.
    Missing(&'a Path),
}

/// The end of a path: no link.
pub(super) struct Target {
    /// Path without links.
    pub(super) path: PathBuf,
    /// Its metadata; `None` if the path has no components.
    pub(super) metadata: Option<Metadata>,
}

/// Resolves `path`, which is relative to the folder `start`, a path without links. `visit` receives each entry in order.
///
/// # Errors
/// An entry cannot be inspected, or there are too many links or components.
pub(super) fn resolve(start: &Path, path: &Path, mut visit: impl FnMut(Visit<'_>)) -> io::Result<Target> {
    // Remaining components, the next one last.
    let mut left = steps(path);
    let mut at = start.to_owned();
    let mut metadata = None;
    let mut links = 0;
    for taken in 0.. {
        let Some(step) = left.pop() else { break };
        if taken == MAX_STEPS {
            return Err(io::Error::from_raw_os_error(ELOOP));
        }
        let next = match step {
            Step::Root => PathBuf::from("/"),
            Step::Up => at.parent().unwrap_or(&at).to_owned(),
            Step::Down(name) => at.join(name),
        };
        let found = next.symlink_metadata().inspect_err(|_| visit(Visit::Missing(&next)))?;
        if !found.is_symlink() {
            visit(Visit::Other(&next));
            (at, metadata) = (next, Some(found));
            continue;
        }
        visit(Visit::Link(&next, &found));
        links += 1;
        if links > MAX_LINKS {
            return Err(io::Error::from_raw_os_error(ELOOP));
        }
        left.extend(steps(&next.read_link()?));
    }
    Ok(Target { path: at, metadata })
}

/// Component of a path.
enum Step {
    Root,
    Up,
    Down(OsString),
}

/// Returns the components of a path, the first one last.
fn steps(path: &Path) -> Vec<Step> {
    path.components()
        .rev()
        .filter_map(|component| match component {
            Component::RootDir => Some(Step::Root),
            Component::ParentDir => Some(Step::Up),
            Component::Normal(name) => Some(Step::Down(name.to_owned())),
            Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}
