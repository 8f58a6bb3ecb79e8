//! Symlink chains: the folders to watch so that every change of a link target is detected.
//!
//! The events of a folder do not report that the folder was replaced by a link, or that a linked file has a new target.
//! Kubernetes mounts a ConfigMap as `web.yaml -> ..data/web.yaml` and `..data -> ..2026_01_31`; others enable a site with
//! `services.d/web.yaml -> /opt/web/muster.yaml`. So paths are resolved link by link, as the kernel resolves them. Watched
//! are the folders that hold a link of the chain, the folder of its target, and for a dangling link the folder that lacks
//! the next component. Other folders on the path are not watched: the next scan finds a renamed `/etc`, and a watch there
//! would fire for every program start (each opens `/etc/ld.so.cache`).

use std::{
    collections::{BTreeMap, HashSet},
    fs::Metadata,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use crate::files::link_walk::{self, Target, Visit};

/// Maximum folders watched because of links. The next scan finds changes in others.
const MAX_FOLDERS: usize = 128;

/// Path of a folder and of all its linked files. Two chains are equal if they lead through the same folders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SymlinkChain {
    /// Path of the folder without links, if it exists.
    pub(super) folder: Option<(PathBuf, Identity)>,
    /// Other folders to watch, by their paths without links.
    pub(super) others: BTreeMap<PathBuf, Option<Identity>>,
    /// All paths on the chain. Events of other paths are ignored.
    pub(super) steps: HashSet<PathBuf>,
}

/// Identity of a file, independent of its name. The birth time is included because inode numbers are reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    born: Option<SystemTime>,
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino(), born: metadata.created().ok() }
    }

    #[cfg(test)]
    pub(super) fn of_test(inode: u64) -> Self {
        Self { device: 0, inode, born: None }
    }
}

impl SymlinkChain {
    /// Resolves `folder` and its files that are `links`. All paths are absolute.
    pub(super) fn walk(folder: &Path, links: impl Iterator<Item = PathBuf>) -> Self {
        let mut chain = Self::default();
        if let Some((end, metadata)) = chain.resolve(folder)
            && metadata.is_dir()
        {
            chain.folder = Some((end, Identity::of(&metadata)));
        }
        for link in links {
            chain.resolve(&link);
        }
        if let Some((folder, _)) = &chain.folder {
            chain.others.remove(folder);
        }
        chain
    }

    /// Resolves `path`, which is absolute, records the chain, and returns the target.
    fn resolve(&mut self, path: &Path) -> Option<(PathBuf, Metadata)> {
        let target = link_walk::resolve(Path::new("/"), path, |visit| {
            let (entry, is_watched) = match visit {
                Visit::Link(entry, _) | Visit::Missing(entry) => (entry, true),
                Visit::Other(entry) => (entry, false),
            };
            self.steps.insert(entry.to_owned());
            if let Some(folder) = entry.parent().filter(|_| is_watched) {
                self.watch(folder);
            }
        });
        let Target { path, metadata } = target.ok()?;
        if let Some(parent) = path.parent() {
            self.watch(parent);
        }
        metadata.map(|metadata| (path, metadata))
    }

    fn watch(&mut self, folder: &Path) {
        if self.others.len() < MAX_FOLDERS && !self.others.contains_key(folder) {
            let identity = folder.symlink_metadata().ok().map(|metadata| Identity::of(&metadata));
            self.others.insert(folder.to_owned(), identity);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    /// A temporary folder. Paths of a chain are shown relative to it.
    struct Tree {
        _dir: tempfile::TempDir,
        root: PathBuf,
    }

    impl Tree {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().canonicalize().unwrap();
            Self { _dir: dir, root }
        }

        fn chain(&self, links: &[&str]) -> SymlinkChain {
            SymlinkChain::walk(&self.root.join("services.d"), links.iter().map(|link| self.root.join(link)))
        }

        fn relative<'a>(&self, paths: impl Iterator<Item = &'a PathBuf>) -> Vec<String> {
            let mut paths: Vec<_> = paths
                .filter_map(|path| path.strip_prefix(&self.root).ok())
                .map(|path| path.to_string_lossy().into_owned())
                .collect();
            paths.sort();
            paths
        }

        fn watched(&self, links: &[&str]) -> (Option<String>, Vec<String>) {
            let chain = self.chain(links);
            let folder = self.relative(chain.folder.iter().map(|(path, _)| path)).pop();
            (folder, self.relative(chain.others.keys()))
        }
    }

    #[test]
    fn folders_of_links_and_of_their_targets_are_watched() {
        let tree = Tree::new();
        let at = |path: &str| tree.root.join(path);
        let owned = |folders: &[&str]| folders.iter().map(|folder| (*folder).to_owned()).collect::<Vec<_>>();

        assert_eq!(tree.watched(&[]), (None, owned(&[""])), "missing");

        fs::create_dir_all(at("releases/1/services.d")).unwrap();
        symlink("releases/1", at("current")).unwrap();
        symlink("releases/../current/services.d", at("services.d")).unwrap();
        let folder = Some("releases/1/services.d".to_owned());
        assert_eq!(tree.watched(&[]), (folder.clone(), owned(&["", "releases/1"])), "a linked folder");

        fs::create_dir(at("opt")).unwrap();
        fs::write(at("opt/web.yaml"), "").unwrap();
        symlink(at("opt/web.yaml"), at("services.d/web.yaml")).unwrap();
        symlink(at("opt/none/db.yaml"), at("services.d/db.yaml")).unwrap();
        let links = ["services.d/web.yaml", "services.d/db.yaml"];
        assert_eq!(tree.watched(&links), (folder, owned(&["", "opt", "releases/1"])), "linked files");

        fs::remove_file(at("current")).unwrap();
        assert_eq!(tree.watched(&[]), (None, owned(&[""])), "a dangling link");
        assert_eq!(
            tree.relative(tree.chain(&[]).steps.iter()),
            ["", "current", "releases", "services.d"],
            "the missing component is a step"
        );

        symlink("current", at("current")).unwrap();
        assert_eq!(tree.watched(&[]), (None, owned(&[""])), "a link to itself");
    }

    #[test]
    fn chain_changes_with_a_link_and_with_a_replaced_folder() {
        let tree = Tree::new();
        let at = |path: &str| tree.root.join(path);
        fs::create_dir(at("services.d")).unwrap();
        fs::create_dir(at("services.d/..1")).unwrap();
        fs::create_dir(at("services.d/..2")).unwrap();
        symlink("..1", at("services.d/..data")).unwrap();
        symlink("..data/web.yaml", at("services.d/web.yaml")).unwrap();
        let links = ["services.d/web.yaml"];

        let first = tree.chain(&links);
        assert_eq!(tree.chain(&links), first);
        symlink("..2", at("services.d/..data_tmp")).unwrap();
        assert_eq!(tree.chain(&links), first);
        fs::rename(at("services.d/..data_tmp"), at("services.d/..data")).unwrap();
        let second = tree.chain(&links);
        assert_ne!(second, first);

        fs::rename(at("services.d"), at("old")).unwrap();
        fs::create_dir(at("services.d")).unwrap();
        fs::rename(at("old/..data"), at("services.d/..data")).unwrap();
        assert_ne!(tree.chain(&links), second);
    }
}
