//! Full and damaged disks of voters, and images of their folders.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::{
    super::log_limit::FLOOR,
    cluster::{Cluster, SOON, copy_folder},
    get, key, put, value,
};
use crate::store::{
    key::{KeyRange, Revision},
    query::{Consistency, Query},
    request::{Status, Store, StoreError},
    watch::{Watch, WatchMessage},
};

/// A small file system in memory, until it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts a disk at a folder; `None` if this user must not.
    fn mount(folder: &Path) -> Option<Self> {
        fs::create_dir_all(folder).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(folder).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(folder.to_owned()))
    }

    /// Fills the disk with a file.
    fn fill(&self) {
        let mut ballast = File::create(self.0.join("ballast")).unwrap();
        while ballast.write_all(&[0; 4096]).is_ok() {}
        while ballast.write_all(&[0]).is_ok() {}
    }

    fn empty(&self) {
        fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Waits until a voter has a value in its own state.
async fn wait_for_value(store: &Store, name: &str, expected: &str) {
    let until = Instant::now() + SOON;
    loop {
        let answer = store.read(Query::Key(key(name)), Consistency::Stale, None).await;
        if answer.is_ok_and(|answer| value(&answer.content).as_deref() == Some(expected)) {
            return;
        }
        assert!(Instant::now() < until, "{name} is not {expected}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_with_a_full_disk_gives_up_and_recovers_by_itself() {
    let mut cluster = Cluster::start(3, 0).await;
    put(cluster.store("a"), "key", "1").await;
    let is_complete = |status: &Status| status.members.iter().filter(|member| member.is_voter).count() == 3;
    let before = cluster.wait_for("three voters", is_complete).await;
    cluster.stop("c").await;
    cluster.wipe("c");
    let Some(disk) = SmallDisk::mount(&cluster.data("c")) else {
        return eprintln!("skipped: this user cannot mount a file system");
    };
    cluster.run("c").await;
    let is_replaced = |status: &Status| {
        let of_c = |status: &Status| status.members.iter().find(|member| member.node == "c").map(|member| member.id);
        is_complete(status) && status.members.len() == 3 && of_c(status) != of_c(&before)
    };
    cluster.wait_for("a new id", is_replaced).await;
    while cluster.leader().await != "c" {
        let leader = cluster.leader().await;
        cluster.stop(&leader).await;
        cluster.leader().await;
        cluster.run(&leader).await;
    }
    // A client of the voter watches, and must not keep it from starting again.
    let watch = Watch { range: KeyRange::prefix("key"), from: Some(Revision(2)) };
    let mut messages = cluster.store("c").watch(watch).await.unwrap();
    assert!(matches!(messages.recv().await, Some(WatchMessage::Began(_))));
    disk.fill();
    for count in 0..50 {
        put(cluster.store("a"), "key", &count.to_string().repeat(1000)).await;
    }
    put(cluster.store("b"), "key", "last").await;
    assert_eq!(get(cluster.store("c"), "key").await.as_deref(), Some("last"), "the node forwards");
    let end = async { while messages.recv().await.is_some() {} };
    timeout(SOON, end).await.expect("the watch of a voter that cannot write ends");
    let text = failure(&cluster, "c").await;
    assert!(text.contains("No space left") && text.contains(": free space on the disk"), "{text}");
    wait_until_sound(&cluster, "a").await;
    disk.empty();
    wait_for_value(cluster.store("c"), "key", "last").await;
    put(cluster.store("c"), "key", "after").await;
    wait_until_sound(&cluster, "c").await;
    wait_for_value(cluster.store("c"), "key", "after").await;
    cluster.stop("c").await;
}

/// Waits until a node's voter shows no failure. One that was stopped and started at once may find its log in use.
async fn wait_until_sound(cluster: &Cluster, name: &str) {
    let until = Instant::now() + SOON;
    while let Some(failure) = cluster.store(name).status().await.unwrap().failure {
        assert!(Instant::now() < until, "{name}: {failure}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Waits for the failure of a node's voter.
async fn failure(cluster: &Cluster, name: &str) -> String {
    let until = Instant::now() + SOON;
    loop {
        let status = cluster.store(name).status().await.unwrap();
        if let Some(failure) = status.failure {
            return failure;
        }
        assert!(Instant::now() < until, "{name} has not failed: {status:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Writes keys one after another.
struct Writer {
    acknowledged: Arc<AtomicU64>,
    ends: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Writer {
    fn start(store: &Store) -> Self {
        let (store, acknowledged, ends) =
            (store.clone(), Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let task = tokio::spawn({
            let (acknowledged, ends) = (acknowledged.clone(), ends.clone());
            async move {
                while !ends.load(Relaxed) {
                    let number = acknowledged.load(Relaxed) + 1;
                    put(&store, &number.to_string(), &number.to_string()).await;
                    acknowledged.store(number, Relaxed);
                }
            }
        });
        Self { acknowledged, ends, task }
    }

    /// Number of writes that were acknowledged.
    fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Relaxed)
    }

    async fn wait_for(&self, number: u64) {
        timeout(SOON, async {
            while self.acknowledged() < number {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
    }

    /// Ends and returns the number of writes.
    async fn end(self) -> u64 {
        self.ends.store(true, Relaxed);
        timeout(SOON, self.task).await.unwrap().unwrap();
        self.acknowledged.load(Relaxed)
    }
}

/// Asserts that all writes up to a number are there.
async fn assert_written(store: &Store, number: u64, context: &str) {
    for number in (1..=number).map(|number| number.to_string()) {
        assert_eq!(get(store, &number).await.as_ref(), Some(&number), "{context}");
    }
}

/// The newest file of a log.
fn newest_file(folder: &Path) -> PathBuf {
    let files = fs::read_dir(folder.join("log")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "wal")).max().unwrap()
}

/// Octets of the file up to the last one that is not zero.
fn written(path: &Path) -> u64 {
    let octets = fs::read(path).unwrap();
    octets.iter().rposition(|octet| *octet != 0).map_or(0, |last| last as u64 + 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_of_a_voter_are_open_to_their_owner_only() {
    let mut cluster = Cluster::start(1, 0).await;
    put(cluster.store("a"), "key", "secret").await;
    let folders = [cluster.data("a"), cluster.data("a").join("log")];
    let modes = || folders.each_ref().map(|folder| fs::metadata(folder).unwrap().permissions().mode() & 0o777);
    assert_eq!(modes(), [0o700, 0o700]);
    // Those of an earlier version are corrected.
    cluster.stop("a").await;
    folders.iter().for_each(|folder| fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap());
    cluster.run("a").await;
    assert_eq!(get(cluster.store("a"), "key").await.as_deref(), Some("secret"));
    assert_eq!(modes(), [0o700, 0o700]);
}

#[tokio::test(flavor = "multi_thread")]
async fn image_of_a_running_voter_has_every_acknowledged_write() {
    let mut random = fastrand::Rng::with_seed(20);
    let cluster = Cluster::start(1, 0).await;
    let writer = Writer::start(cluster.store("a"));
    let images = TempDir::new().unwrap();
    // A torn write leaves a part of a record, or zeros, behind the last whole record.
    for (round, torn) in ["whole", "part", "zeros", "whole", "part"].into_iter().enumerate() {
        writer.wait_for(400 * (round as u64 + 1)).await;
        let acknowledged = writer.acknowledged();
        let image = images.path().join(round.to_string());
        copy_folder(&cluster.data("a"), &image);
        let newest = newest_file(&image);
        match torn {
            "part" => {
                // The file begins with a record of 21 octets, the state of an empty log.
                let mut part = vec![0; random.usize(1..21)];
                File::open(&newest).unwrap().read_exact_at(&mut part, 0).unwrap();
                OpenOptions::new().append(true).open(&newest).unwrap().write_all(&part).unwrap();
            }
            "zeros" => OpenOptions::new().append(true).open(&newest).unwrap().write_all(&[0; 1000]).unwrap(),
            _ => {}
        }
        let mut restored = Cluster::start_from(1, 0, &[("a", &image)]).await;
        assert_written(restored.store("a"), acknowledged, &format!("round {round}: {torn}")).await;
        restored.stop("a").await;
    }
    writer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn voter_without_the_snapshot_of_its_log_does_not_start_empty() {
    let mut cluster = Cluster::start(1, 0).await;
    let writer = Writer::start(cluster.store("a"));
    timeout(SOON, async {
        while !cluster.data("a").join("snapshot").exists() {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .unwrap();
    // The log is cut once Raft has heard of the snapshot, which it does between writes.
    writer.wait_for(writer.acknowledged() + 100).await;
    writer.end().await;
    cluster.stop("a").await;
    fs::rename(cluster.data("a").join("snapshot"), cluster.data("a").join("kept")).unwrap();
    cluster.run("a").await;
    let read = cluster.store("a").read(Query::Key(key("1")), Consistency::Stale, None).await;
    assert_eq!(read, Err(StoreError::Unreachable));
    cluster.stop("a").await;
    fs::rename(cluster.data("a").join("kept"), cluster.data("a").join("snapshot")).unwrap();
    cluster.run("a").await;
    assert_eq!(get(cluster.store("a"), "1").await.as_deref(), Some("1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn write_that_a_majority_has_outlives_a_log_that_lost_its_end() {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut cluster = Cluster::start(3, 0).await;
    let mut acknowledged = 0;
    for round in 0..5 {
        let context = format!("seed {seed}, round {round}");
        let writer = Writer::start(cluster.store(["a", "b", "c"][random.usize(..3)]));
        writer.wait_for(100).await;
        acknowledged = acknowledged.max(writer.end().await);
        cluster
            .wait_for("equal logs", |status| {
                status.members.len() == 3 && status.members.iter().all(|member| member.lag == Some(0))
            })
            .await;
        // The voter whose log loses its end stops first. If it stopped later, the first one would miss what the
        // others agreed on without it, and these two could elect a leader: two of three would have lost an entry.
        let mut names = ["a", "b", "c"];
        random.shuffle(&mut names);
        for name in names {
            cluster.stop(name).await;
        }
        let victim = names[0];
        let newest = newest_file(&cluster.data(victim));
        let (file, len) = (OpenOptions::new().write(true).open(&newest).unwrap(), written(&newest));
        let cut = random.u64(len / 2..len);
        file.set_len(cut).unwrap();
        for name in ["a", "b", "c"] {
            cluster.run(name).await;
        }
        assert_written(cluster.store(victim), acknowledged, &context).await;
        wait_for_value(cluster.store(victim), &acknowledged.to_string(), &acknowledged.to_string()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn voter_with_a_damaged_log_stays_out_and_forwards() {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut cluster = Cluster::start(3, 0).await;
    let writer = Writer::start(cluster.store("a"));
    writer.wait_for(200).await;
    let acknowledged = writer.end().await;
    cluster.stop("c").await;
    let image = TempDir::new().unwrap();
    copy_folder(&cluster.data("c"), image.path());
    for round in 0..8 {
        cluster.wipe("c");
        copy_folder(image.path(), &cluster.data("c"));
        let newest = newest_file(&cluster.data("c"));
        let at = random.u64(..written(&newest) / 2);
        let mut octet = [0];
        let file = OpenOptions::new().read(true).write(true).open(&newest).unwrap();
        file.read_exact_at(&mut octet, at).unwrap();
        file.write_all_at(&[octet[0] ^ 1 << random.u8(..8)], at).unwrap();
        let size = file.metadata().unwrap().len();
        cluster.run("c").await;
        let context = format!("seed {seed}, round {round}, octet {at}");
        put(cluster.store("c"), "after", &round.to_string()).await;
        let stale = cluster.store("c").read(Query::Key(key("1")), Consistency::Stale, None).await.unwrap();
        assert_eq!(value(&stale.content).as_deref(), Some("1"), "{context}");
        let text = failure(&cluster, "c").await;
        let folder = cluster.data("c").display().to_string();
        assert!(text.contains(&folder) && text.contains("move this folder away"), "{context}: {text}");
        cluster.stop("c").await;
        assert_eq!(file.metadata().unwrap().len(), size, "{context}: a damaged log is not cut");
    }
    assert_written(cluster.store("b"), acknowledged, "the others go on").await;
}

/// Octets of the files of a folder, those below it included.
fn octets(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    // A file of the log may be removed in the meantime.
    let size = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
    entries.map(|path| if path.is_dir() { octets(&path) } else { size(&path) }).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn log_of_large_values_is_bounded_in_octets() {
    /// Octets of a value. The history keeps some 64 MiB of earlier ones.
    const VALUE: usize = 1 << 20;
    /// Writes: fewer than those after which the number of entries calls for a snapshot.
    const WRITES: usize = 300;
    let mut cluster = Cluster::start(3, 0).await;
    let write =
        |at: usize| async move { (format!("key/{}", at % 5), at.to_string().repeat(VALUE / at.to_string().len())) };
    for at in 0..WRITES {
        let (key, value) = write(at).await;
        put(cluster.store("a"), &key, &value).await;
    }
    // The state of 5 values and its history, as it is bounded; then what is kept, and what is written until the next snapshot. On a
    // slow disk, a snapshot ends after the writes.
    let state = (5 * VALUE as u64 + (256 << 20) / 4) * 11 / 10;
    let bound = (FLOOR + state) * 3 / 2;
    let cut = async {
        while octets(&cluster.data("b").join("log")) > bound {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(SOON, cut).await.expect("the log is cut");
    for name in ["a", "b", "c"] {
        cluster.stop(name).await;
        assert!(cluster.data(name).join("snapshot").exists(), "{name}");
        assert!(!cluster.data(name).join("snapshot.new").exists(), "{name}");
        cluster.run(name).await;
    }
    assert_eq!(get(cluster.store("b"), "key/4").await, Some(write(WRITES - 1).await.1));
    let status = cluster.store("a").status().await.unwrap();
    assert!(status.octets < 6 * VALUE as u64, "the history counts for nothing: {status:?}");
}
