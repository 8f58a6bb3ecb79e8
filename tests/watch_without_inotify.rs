//! Without an inotify instance the watcher polls and reports the problem.
//!
//! A separate file, because the test limits the file descriptors of the process.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::{fs, path::Path, time::Duration};

use muster::files::{
    contents::{Access, Contents, FileKind, Folder, FolderError, Limits, WatchError},
    watch,
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use support::run;
use tokio::{
    sync,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(60);

/// Limits the process to two more descriptors: enough to list a folder and read a file, but a watcher needs three.
fn leave_two_descriptors() {
    let is_open = |number: &u64| Path::new("/proc/self/fd").join(number.to_string()).symlink_metadata().is_ok();
    let second_free = (0..).filter(|number| !is_open(number)).nth(1).unwrap();
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, second_free + 1, most).unwrap();
}

#[tokio::test]
async fn watcher_polls_until_inotify_is_available() {
    let dir = run::temp_dir();
    let path = dir.path().join("web.yaml");
    let folder = Folder {
        path: dir.path().to_owned(),
        kind: FileKind::Yaml,
        shared: false,
        access: Access::Content,
        required: true,
        limits: Limits::for_files_of(64),
    };
    let (_, rescans) = sync::watch::channel(());
    let shutdown = CancellationToken::new();
    let (limit, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    leave_two_descriptors();

    let (mut contents, task) = watch::spawn(folder, rescans, shutdown.clone()).await;
    assert_eq!(contents.borrow().problems, [FolderError::Unwatched(WatchError::Instances)]);
    let printed = contents.borrow().folder_problems().map(|problem| problem.to_string()).collect::<String>();
    assert!(printed.ends_with(
        ":1:1: changes may be detected late: inotify instance or open file limit reached \
         (raise the sysctl fs.inotify.max_user_instances or the limit of open files)"
    ));
    for text in ["1", "2"] {
        // The watcher may hold the descriptors at the moment: retry.
        while fs::write(&path, text).is_err() {
            sleep(Duration::from_millis(1)).await;
        }
        let condition =
            |contents: &Contents| contents.files.get(&path).is_some_and(|file| **file == Ok(text.as_bytes().into()));
        assert!(timeout(DEADLINE, contents.wait_for(condition)).await.is_ok(), "{text}");
    }

    setrlimit(Resource::RLIMIT_NOFILE, limit, most).unwrap();
    let watched = |contents: &Contents| contents.problems.is_empty();
    assert!(timeout(DEADLINE, contents.wait_for(watched)).await.is_ok());
    shutdown.cancel();
    task.await.unwrap();
}
