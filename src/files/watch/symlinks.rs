//! The way to the files: which folders to watch so that no change of what a path leads to goes unseen.
//!
//! A folder's own events do not tell that it was replaced by a link that now points elsewhere, nor that a file which
//! is a link has another target: `web.yaml -> ..data/web.yaml`, `..data -> ..2026_01_31` is how Kubernetes mounts a
//! ConfigMap, and `services.d/web.yaml -> /opt/web/muster.yaml` is how others enable a site. So the paths are walked
//! as the kernel walks them, link by link. Watched are the folders in which a link of the walk stands, the one that
//! holds its end, and where a walk fails the folder in which the next step is missing. Folders that are only passed
//! through are not: who renames `/etc` is found by the next scan, and a watch there would wake us for every program
//! that starts (each opens `/etc/ld.so.cache`).

use std::{
    collections::{BTreeMap, HashSet},
    ffi::OsString,
    fs::Metadata,
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
    time::SystemTime,
};

/// Links on the way to one file: the kernel's own bound (path_resolution(7)).
const MAX_LINKS: usize = 40;
/// Folders watched because of links. What lies in others is found by the next scan.
const MAX_FOLDERS: usize = 128;

/// The way to a folder and to all of its files. Two are equal if they lead through the same folders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SymlinkChain {
    /// The folder's own path without links, if there is one.
    pub(super) folder: Option<(PathBuf, Identity)>,
    /// The other folders to watch, by their paths without links.
    pub(super) others: BTreeMap<PathBuf, Option<Identity>>,
    /// Every path that was looked up on the way. An event of any other path is of no interest.
    pub(super) steps: HashSet<PathBuf>,
}

/// Which file, whatever its name. The time of its birth is there because numbers are given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    number: u64,
    born: Option<SystemTime>,
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), number: metadata.ino(), born: metadata.created().ok() }
    }

    #[cfg(test)]
    pub(super) fn of_test(number: u64) -> Self {
        Self { device: 0, number, born: None }
    }
}

impl SymlinkChain {
    /// Walks to `folder` and to the files in it that are `links`. Both paths are absolute.
    pub(super) fn walk(folder: &Path, links: impl Iterator<Item = PathBuf>) -> Self {
        let mut route = Self::default();
        if let Some((end, metadata)) = route.follow(folder)
            && metadata.is_dir()
        {
            route.folder = Some((end, Identity::of(&metadata)));
        }
        for link in links {
            route.follow(&link);
        }
        if let Some((folder, _)) = &route.folder {
            route.others.remove(folder);
        }
        route
    }

    /// Walks to `path`, notes the way, and says where it ended.
    fn follow(&mut self, path: &Path) -> Option<(PathBuf, Metadata)> {
        // Steps that are left, the next one last.
        let mut left: Vec<Step> = steps(path);
        let mut at = PathBuf::from("/");
        let mut metadata = None;
        let mut links = 0;
        while let Some(step) = left.pop() {
            let next = match step {
                Step::Root => PathBuf::from("/"),
                Step::Up => at.parent().unwrap_or(&at).to_owned(),
                Step::Down(name) => at.join(name),
            };
            let Ok(found) = next.symlink_metadata() else {
                self.steps.insert(next);
                self.watch(&at);
                return None;
            };
            if found.is_symlink() {
                links += 1;
                self.watch(&at);
                let target = next.read_link();
                self.steps.insert(next);
                match target {
                    Ok(target) if links <= MAX_LINKS => left.extend(steps(&target)),
                    _ => return None,
                }
            } else {
                self.steps.insert(next.clone());
                at = next;
                metadata = Some(found);
            }
        }
        if let Some(parent) = at.parent() {
            self.watch(parent);
        }
        metadata.map(|metadata| (at, metadata))
    }

    fn watch(&mut self, folder: &Path) {
        if self.others.len() < MAX_FOLDERS && !self.others.contains_key(folder) {
            let identity = folder.symlink_metadata().ok().map(|metadata| Identity::of(&metadata));
            self.others.insert(folder.to_owned(), identity);
        }
    }
}

enum Step {
    Root,
    Up,
    Down(OsString),
}

/// The steps of a path, the first one last.
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

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    /// A folder, and its path without links: what of a route lies in it is shown by relative path.
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

        fn route(&self, links: &[&str]) -> SymlinkChain {
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
            let route = self.route(links);
            let folder = self.relative(route.folder.iter().map(|(path, _)| path)).pop();
            (folder, self.relative(route.others.keys()))
        }
    }

    #[test]
    fn watched_are_the_folder_its_parent_and_where_links_and_their_ends_stand() {
        let tree = Tree::new();
        let at = |path: &str| tree.root.join(path);
        let owned = |folders: &[&str]| folders.iter().map(|folder| (*folder).to_owned()).collect::<Vec<_>>();

        assert_eq!(tree.watched(&[]), (None, owned(&[""])), "missing");

        fs::create_dir_all(at("releases/1/services.d")).unwrap();
        symlink("releases/1", at("current")).unwrap();
        symlink("releases/../current/services.d", at("services.d")).unwrap();
        let folder = Some("releases/1/services.d".to_owned());
        assert_eq!(tree.watched(&[]), (folder.clone(), owned(&["", "releases/1"])), "a folder behind links");

        fs::create_dir(at("opt")).unwrap();
        fs::write(at("opt/web.yaml"), "").unwrap();
        symlink(at("opt/web.yaml"), at("services.d/web.yaml")).unwrap();
        symlink(at("opt/none/db.yaml"), at("services.d/db.yaml")).unwrap();
        let links = ["services.d/web.yaml", "services.d/db.yaml"];
        assert_eq!(tree.watched(&links), (folder, owned(&["", "opt", "releases/1"])), "files behind links");

        fs::remove_file(at("current")).unwrap();
        assert_eq!(tree.watched(&[]), (None, owned(&[""])), "a link to nothing");
        assert_eq!(
            tree.relative(tree.route(&[]).steps.iter()),
            ["", "current", "releases", "services.d"],
            "and what has to appear is a step"
        );

        symlink("current", at("current")).unwrap();
        assert_eq!(tree.watched(&[]), (None, owned(&[""])), "a link to itself");
    }

    #[test]
    fn a_route_changes_with_a_link_and_with_a_folder_of_the_same_name() {
        let tree = Tree::new();
        let at = |path: &str| tree.root.join(path);
        fs::create_dir(at("services.d")).unwrap();
        fs::create_dir(at("services.d/..1")).unwrap();
        fs::create_dir(at("services.d/..2")).unwrap();
        symlink("..1", at("services.d/..data")).unwrap();
        symlink("..data/web.yaml", at("services.d/web.yaml")).unwrap();
        let links = ["services.d/web.yaml"];

        let first = tree.route(&links);
        assert_eq!(tree.route(&links), first);
        symlink("..2", at("services.d/..data_tmp")).unwrap();
        assert_eq!(tree.route(&links), first);
        fs::rename(at("services.d/..data_tmp"), at("services.d/..data")).unwrap();
        let second = tree.route(&links);
        assert_ne!(second, first);

        fs::rename(at("services.d"), at("old")).unwrap();
        fs::create_dir(at("services.d")).unwrap();
        fs::rename(at("old/..data"), at("services.d/..data")).unwrap();
        assert_ne!(tree.route(&links), second);
    }
}
