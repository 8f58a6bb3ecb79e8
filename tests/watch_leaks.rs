//! Reloads leak no file descriptors, inotify watches or threads.
//!
//! A separate file, because the test counts the resources of the process.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use muster::files::{
    contents::{Access, Contents, FileKind, Folder, Limits},
    watch,
};
use support::run;
use tokio::{sync, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(60);
const FOLDERS: usize = 20;
/// Rounds of five reloads.
const ROUNDS: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Resources {
    descriptors: usize,
    inotify_instances: usize,
    inotify_watches: usize,
    notify_threads: usize,
}

impl Resources {
    fn now() -> Self {
        let entries = |path: &str| -> Vec<PathBuf> {
            fs::read_dir(path).unwrap().filter_map(Result::ok).map(|entry| entry.path()).collect()
        };
        // Entries may vanish after the listing.
        let descriptors = entries("/proc/self/fd");
        let is_inotify = |path: &&PathBuf| fs::read_link(path).is_ok_and(|to| to == Path::new("anon_inode:inotify"));
        let inotify: Vec<_> = descriptors.iter().filter(is_inotify).collect();
        let info = |path: &Path| Path::new("/proc/self/fdinfo").join(path.file_name().unwrap_or_default());
        let watches = |path: &Path| {
            let text = fs::read_to_string(info(path)).unwrap_or_default();
            text.lines().filter(|line| line.starts_with("inotify wd:")).count()
        };
        let is_notify =
            |path: &&PathBuf| fs::read_to_string(path.join("comm")).is_ok_and(|name| name.starts_with("notify-rs"));
        Self {
            descriptors: descriptors.len(),
            inotify_instances: inotify.len(),
            inotify_watches: inotify.iter().map(|path| watches(path)).sum(),
            notify_threads: entries("/proc/self/task").iter().filter(is_notify).count(),
        }
    }

    /// Waits until the resources are as before: threads end with a delay.
    async fn reached(self) {
        let wait = async {
            while Self::now() != self {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let reached = timeout(DEADLINE, wait).await;
        assert!(reached.is_ok(), "expected {self:?}, got {:?}", Self::now());
    }
}

struct Watched {
    root: tempfile::TempDir,
    contents: sync::watch::Receiver<Contents>,
}

impl Watched {
    async fn new(shutdown: CancellationToken, tasks: &mut JoinSet<()>) -> Self {
        let root = run::temp_dir();
        write_folder(&root.path().join("services.d"), "start");
        let folder = Folder {
            path: root.path().join("services.d"),
            kind: FileKind::Yaml,
            shared: false,
            access: Access::Content,
            required: true,
            limits: Limits::for_files_of(64),
        };
        let (_, rescans) = sync::watch::channel(());
        let (contents, task) = watch::spawn(folder, rescans, shutdown).await;
        tasks.spawn(async { task.await.unwrap() });
        Self { root, contents }
    }

    async fn until(&mut self, text: &str) {
        let path = self.root.path().join("services.d/web.yaml");
        let condition =
            |contents: &Contents| contents.files.get(&path).is_some_and(|file| **file == Ok(text.as_bytes().into()));
        assert!(timeout(DEADLINE, self.contents.wait_for(condition)).await.is_ok(), "{text}");
    }

    /// Performs five reloads. Three of them renew the inotify watches.
    async fn round(&mut self, round: &str) {
        let root = self.root.path().to_owned();
        let (folder, file) = (root.join("services.d"), root.join("services.d/web.yaml"));
        let text = |step: &str| format!("{round} {step}");

        fs::write(&file, text("written")).unwrap();
        self.until(&text("written")).await;

        fs::write(folder.join(".new"), text("replaced")).unwrap();
        fs::rename(folder.join(".new"), &file).unwrap();
        self.until(&text("replaced")).await;

        fs::write(root.join("target"), text("linked")).unwrap();
        symlink("../target", folder.join(".new")).unwrap();
        fs::rename(folder.join(".new"), &file).unwrap();
        self.until(&text("linked")).await;

        fs::remove_dir_all(&folder).unwrap();
        write_folder(&folder, &text("created again"));
        self.until(&text("created again")).await;

        write_folder(&root.join("next"), &text("swapped"));
        fs::rename(&folder, root.join("old")).unwrap();
        fs::rename(root.join("next"), &folder).unwrap();
        self.until(&text("swapped")).await;
        fs::remove_dir_all(root.join("old")).unwrap();
    }
}

fn write_folder(folder: &Path, text: &str) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("web.yaml"), text).unwrap();
}

#[tokio::test]
async fn thousand_reloads_leak_no_resources() {
    let shutdown = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let before = Resources::now();
    let mut folders = Vec::new();
    for _ in 0..FOLDERS {
        folders.push(Watched::new(shutdown.clone(), &mut tasks).await);
    }
    let watching = Resources::now();
    assert_eq!(watching.inotify_instances - before.inotify_instances, FOLDERS);
    assert_eq!(watching.inotify_watches - before.inotify_watches, 2 * FOLDERS, "a folder and its parent");

    let mut rounds = JoinSet::new();
    for mut folder in folders {
        rounds.spawn(async move {
            for round in 0..ROUNDS {
                folder.round(&round.to_string()).await;
            }
            folder
        });
    }
    let folders = rounds.join_all().await;
    watching.reached().await;

    shutdown.cancel();
    tasks.join_all().await;
    before.reached().await;
    drop(folders);
}
