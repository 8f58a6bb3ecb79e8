//! Scenarios on a real folder. Changes are detected by events alone: periodic scans are an hour away except where they are
//! tested.
//!
//! The file is long because all scenarios share one harness and one table of steps.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::{PermissionsExt, symlink},
    thread,
};

use nix::{sys::stat::Mode, unistd::mkfifo};
use tokio::time::timeout;

use super::*;
use crate::files::contents::{Access, FileKind, FileText, Limits};

/// Long enough for a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);
const NEVER: Duration = Duration::from_secs(3600);

fn by_events() -> Timing {
    Timing { scan: NEVER, poll: NEVER, grace: NEVER, ..Timing::default() }
}

/// As [`by_events`], and without a maximum debounce, so that a test that is suspended between two calls sees no
/// intermediate state.
fn patient() -> Timing {
    Timing { pace: Pace { longest: NEVER, ..Timing::default().pace }, ..by_events() }
}

/// A watched folder.
struct Scene {
    root: PathBuf,
    marks: Arc<Marks>,
    contents: watch::Receiver<Contents>,
    rescan: watch::Sender<()>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Scene {
    /// Watches `services.d` after `prepare` was called with its parent.
    async fn new(timing: Timing, prepare: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_owned();
        prepare(&root);
        let folder = Folder {
            path: root.join("services.d"),
            kind: FileKind::Yaml,
            shared: false,
            access: Access::Content,
            required: true,
            limits: Limits { file: 64, files: 5000, total: 1 << 20 },
        };
        let (rescan, rescans) = watch::channel(());
        let shutdown = CancellationToken::new();
        let (marks, contents, task) = start(folder, timing, rescans, shutdown.clone()).await;
        Self { root, marks, contents, rescan, shutdown, task, _dir: dir }
    }

    /// Watches a `services.d` with files such as `a=1 b=2`.
    async fn with(timing: Timing, files: &str) -> Self {
        Self::new(timing, |root| write_folder(&root.join("services.d"), files)).await
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// The path of a file in the folder.
    fn file(&self, name: &str) -> PathBuf {
        self.root.join("services.d").join(format!("{name}.yaml"))
    }

    fn shown(&self) -> String {
        show(&self.contents.borrow())
    }

    fn problems(&self) -> Vec<FolderError> {
        self.contents.borrow().problems.clone()
    }

    /// Waits for contents; returns `false` on timeout.
    async fn reach(&mut self, condition: impl FnMut(&Contents) -> bool) -> bool {
        matches!(timeout(DEADLINE, self.contents.wait_for(condition)).await, Ok(Ok(_)))
    }

    /// Waits until the contents are as expected.
    async fn until(&mut self, expected: &str) {
        let reached = self.reach(|contents| show(contents) == expected).await;
        assert!(reached, "expected {expected:?}, got {:?}", self.shown());
    }

    async fn until_problems(&mut self, expected: &[FolderError]) {
        let reached = self.reach(|contents| contents.problems == expected).await;
        assert!(reached, "expected {expected:?}, got {:?}", self.problems());
    }

    /// Waits until all events so far are processed, by creating and deleting another file.
    async fn settled(&mut self) {
        let probe = self.file("zz-probe");
        fs::write(&probe, "").unwrap();
        assert!(self.reach(|contents| contents.files.contains_key(&probe)).await);
        fs::remove_file(&probe).unwrap();
        assert!(self.reach(|contents| !contents.files.contains_key(&probe)).await);
    }

    /// Records all states from now on until the end of the scene.
    fn history(&self) -> JoinHandle<Vec<String>> {
        let mut contents = self.contents.clone();
        tokio::spawn(async move {
            let mut states = vec![show(&contents.borrow_and_update())];
            while contents.changed().await.is_ok() {
                states.push(show(&contents.borrow_and_update()));
            }
            states
        })
    }

    async fn end(self) {
        self.shutdown.cancel();
        timeout(DEADLINE, self.task).await.unwrap().unwrap();
    }
}

fn write_folder(folder: &Path, files: &str) {
    fs::create_dir_all(folder).unwrap();
    for file in files.split_whitespace() {
        let (name, text) = file.split_once('=').unwrap();
        fs::write(folder.join(format!("{name}.yaml")), text).unwrap();
    }
}

/// `a=1 b=2`; an unreadable file shows its error.
fn show(contents: &Contents) -> String {
    let text = |text: &FileText| match text {
        Ok(octets) => String::from_utf8_lossy(octets).into_owned(),
        Err(error) => format!("{error:?}"),
    };
    let files: Vec<_> = contents
        .files
        .iter()
        .map(|(path, file)| format!("{}={}", path.file_stem().unwrap().to_string_lossy(), text(file)))
        .collect();
    files.join(" ")
}

#[tokio::test]
async fn first_state_is_complete_on_return() {
    let scene = Scene::with(by_events(), "a=1 b=2").await;
    assert_eq!(scene.shown(), "a=1 b=2");
    assert_eq!(scene.problems(), []);
    scene.end().await;
}

#[tokio::test]
async fn created_edited_replaced_and_deleted_files_are_followed() {
    let mut scene = Scene::with(by_events(), "").await;
    fs::write(scene.file("a"), "1").unwrap();
    scene.until("a=1").await;
    fs::write(scene.file("a"), "2").unwrap();
    scene.until("a=2").await;
    OpenOptions::new().append(true).open(scene.file("a")).unwrap().write_all(b"3").unwrap();
    scene.until("a=23").await;
    fs::write(scene.at("services.d/.a.yaml.Zq3"), "4").unwrap();
    fs::rename(scene.at("services.d/.a.yaml.Zq3"), scene.file("a")).unwrap();
    scene.until("a=4").await;
    fs::write(scene.at("elsewhere"), "5").unwrap();
    fs::rename(scene.at("elsewhere"), scene.file("a")).unwrap();
    scene.until("a=5").await;
    fs::rename(scene.file("a"), scene.file("b")).unwrap();
    scene.until("b=5").await;
    fs::hard_link(scene.file("b"), scene.file("c")).unwrap();
    scene.until("b=5 c=5").await;
    fs::rename(scene.file("b"), scene.at("services.d/b.yaml.off")).unwrap();
    scene.until("c=5").await;
    fs::remove_file(scene.file("c")).unwrap();
    scene.until("").await;
    scene.end().await;
}

#[tokio::test]
async fn file_is_not_read_while_it_is_written() {
    let mut scene = Scene::with(patient(), "a=1").await;
    let history = scene.history();
    let mut file = File::create(scene.file("a")).unwrap();
    fs::write(scene.file("b"), "1").unwrap();
    scene.until("a=1 b=1").await;
    file.write_all(b"2").unwrap();
    fs::write(scene.file("b"), "2").unwrap();
    scene.until("a=1 b=2").await;
    file.write_all(b"3").unwrap();
    drop(file);
    scene.until("a=23 b=2").await;
    scene.end().await;
    assert_eq!(history.await.unwrap(), ["a=1", "a=1 b=1", "a=1 b=2", "a=23 b=2"]);
}

#[tokio::test]
async fn file_that_stays_open_is_read() {
    let mut scene = Scene::with(by_events(), "a=1").await;
    let mut file = OpenOptions::new().append(true).open(scene.file("a")).unwrap();
    file.write_all(b"2").unwrap();
    scene.until("a=12").await;
    file.write_all(b"3").unwrap();
    scene.until("a=123").await;
    file.set_len(1).unwrap();
    scene.until("a=1").await;
    scene.end().await;
}

#[tokio::test]
async fn editors_cause_no_intermediate_state() {
    let mut scene = Scene::with(patient(), "a=1 b=1").await;
    let history = scene.history();
    let (file, folder) = (scene.file("a"), scene.at("services.d"));

    // vim: swap file, a probe for permissions, the old file becomes the backup, a new one is written.
    fs::write(folder.join(".a.yaml.swp"), "swap").unwrap();
    fs::write(folder.join("4913"), "").unwrap();
    fs::remove_file(folder.join("4913")).unwrap();
    fs::rename(&file, folder.join("a.yaml~")).unwrap();
    fs::write(&file, "2").unwrap();
    fs::remove_file(folder.join("a.yaml~")).unwrap();
    fs::remove_file(folder.join(".a.yaml.swp")).unwrap();
    scene.until("a=2 b=1").await;

    // emacs: a lock that is a link to nothing, an auto-save file, a backup by copying, written in place.
    symlink("someone@host.1234", folder.join(".#a.yaml")).unwrap();
    fs::write(folder.join("#a.yaml#"), "3").unwrap();
    fs::copy(&file, folder.join("a.yaml~")).unwrap();
    fs::write(&file, "3").unwrap();
    fs::remove_file(folder.join("#a.yaml#")).unwrap();
    fs::remove_file(folder.join(".#a.yaml")).unwrap();
    scene.until("a=3 b=1").await;

    // git: deleted, created.
    fs::remove_file(&file).unwrap();
    fs::write(&file, "4").unwrap();
    scene.until("a=4 b=1").await;

    scene.end().await;
    assert_eq!(history.await.unwrap(), ["a=1 b=1", "a=2 b=1", "a=3 b=1", "a=4 b=1"]);
}

#[tokio::test]
async fn unchanged_files_keep_their_arc() {
    let mut scene = Scene::with(by_events(), "a=1 b=1 c=1").await;
    let before = scene.contents.borrow().files.clone();
    fs::write(scene.file("a"), "1").unwrap();
    fs::write(scene.at("b.new"), "1").unwrap();
    fs::rename(scene.at("b.new"), scene.file("b")).unwrap();
    fs::set_permissions(scene.file("c"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(scene.file("d"), "1").unwrap();
    scene.until("a=1 b=1 c=1 d=1").await;
    let after = scene.contents.borrow().files.clone();
    for (path, text) in &before {
        assert!(Arc::ptr_eq(text, &after[path]), "{}", path.display());
    }
    scene.end().await;
}

#[tokio::test]
async fn unreadable_files_are_in_the_contents_with_their_error() {
    let mut scene = Scene::with(by_events(), "a=1").await;
    mkfifo(&scene.file("pipe"), Mode::S_IRWXU).unwrap();
    fs::create_dir(scene.file("folder")).unwrap();
    symlink("/dev/zero", scene.file("zero")).unwrap();
    symlink("nothing", scene.file("dangling")).unwrap();
    fs::write(scene.file("large"), [b'x'; 65]).unwrap();
    scene.until("a=1 dangling=Dangling folder=NotAFile large=TooLarge(64) pipe=NotAFile zero=NotAFile").await;
    fs::write(scene.at("services.d/nothing"), "now").unwrap();
    fs::write(scene.file("large"), "small").unwrap();
    fs::remove_file(scene.file("pipe")).unwrap();
    fs::remove_file(scene.file("zero")).unwrap();
    fs::remove_dir(scene.file("folder")).unwrap();
    scene.until("a=1 dangling=now large=small").await;
    scene.end().await;
}

/// Updates of a mounted ConfigMap, call by call as the kubelet does them.
struct ConfigMap {
    folder: PathBuf,
    generation: u32,
}

impl ConfigMap {
    fn project(&mut self, files: &str) {
        let at = |name: &str| self.folder.join(name);
        let old = fs::read_link(at("..data")).ok();
        self.generation += 1;
        let new = format!("..2026_01_31_12_00_00.{}", self.generation);
        fs::create_dir(at(&new)).unwrap();
        fs::set_permissions(at(&new), fs::Permissions::from_mode(0o755)).unwrap();
        let files: BTreeMap<String, &str> = files
            .split_whitespace()
            .filter_map(|file| file.split_once('='))
            .map(|(name, text)| (format!("{name}.yaml"), text))
            .collect();
        for (name, text) in &files {
            let path = at(&new).join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        }
        for name in files.keys().filter(|name| fs::read_link(at(name)).is_err()) {
            symlink(Path::new("..data").join(name), at(name)).unwrap();
        }
        symlink(&new, at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        if let Some(old) = old {
            for entry in fs::read_dir(self.folder.join(&old)).unwrap() {
                let name = entry.unwrap().file_name();
                if !files.keys().any(|kept| name == kept.as_str()) {
                    fs::remove_file(self.folder.join(&name)).unwrap();
                }
            }
            fs::remove_dir_all(self.folder.join(&old)).unwrap();
        }
    }
}

#[tokio::test]
async fn mounted_config_map_is_followed() {
    let mut map = ConfigMap { folder: PathBuf::new(), generation: 0 };
    let mut scene = Scene::new(by_events(), |root| {
        map.folder = root.join("services.d");
        fs::create_dir(&map.folder).unwrap();
        map.project("a=1 b=1");
    })
    .await;
    assert_eq!(scene.shown(), "a=1 b=1");
    let history = scene.history();
    let mut states = vec!["a=1 b=1".to_owned()];
    for generation in 2..12 {
        let files = format!("a={generation} b=1");
        map.project(&files);
        scene.until(&files).await;
        states.push(files);
    }
    for files in ["a=x c=x", "c=y", "b=z c=z"] {
        map.project(files);
        scene.until(files).await;
    }
    scene.end().await;
    let history = history.await.unwrap();
    assert!(history.starts_with(&states), "intermediate states: {history:?}");
}

#[tokio::test]
async fn config_map_can_be_mounted_late() {
    let mut scene = Scene::with(by_events(), "").await;
    let mut map = ConfigMap { folder: scene.at("services.d"), generation: 0 };
    map.project("a=1");
    scene.until("a=1").await;
    map.project("a=2");
    scene.until("a=2").await;
    scene.end().await;
}

#[tokio::test]
async fn link_targets_outside_the_folder_are_followed() {
    let mut scene = Scene::new(by_events(), |root| {
        write_folder(&root.join("available"), "a=1");
        write_folder(&root.join("services.d"), "b=1");
        symlink("../available/a.yaml", root.join("services.d/a.yaml")).unwrap();
    })
    .await;
    assert_eq!(scene.shown(), "a=1 b=1");
    fs::write(scene.at("available/a.yaml"), "2").unwrap();
    scene.until("a=2 b=1").await;
    fs::write(scene.at("available/new"), "3").unwrap();
    fs::rename(scene.at("available/new"), scene.at("available/a.yaml")).unwrap();
    scene.until("a=3 b=1").await;
    fs::remove_file(scene.at("available/a.yaml")).unwrap();
    scene.until("a=Dangling b=1").await;
    fs::rename(scene.at("available"), scene.at("old")).unwrap();
    write_folder(&scene.at("available"), "a=4");
    scene.until("a=4 b=1").await;
    fs::write(scene.at("available/a.yaml"), "5").unwrap();
    scene.until("a=5 b=1").await;
    fs::remove_file(scene.file("a")).unwrap();
    symlink(scene.at("other/a.yaml"), scene.file("a")).unwrap();
    scene.until("a=Dangling b=1").await;
    write_folder(&scene.at("other"), "a=6");
    scene.until("a=6 b=1").await;
    fs::remove_file(scene.file("a")).unwrap();
    scene.until("b=1").await;
    scene.end().await;
}

#[tokio::test]
async fn linked_folder_is_followed_when_the_link_is_swapped() {
    let mut scene = Scene::new(by_events(), |root| {
        write_folder(&root.join("releases/1/services.d"), "a=1 b=1");
        write_folder(&root.join("releases/2/services.d"), "a=2");
        symlink("releases/1", root.join("current")).unwrap();
        symlink("current/services.d", root.join("services.d")).unwrap();
    })
    .await;
    assert_eq!(scene.shown(), "a=1 b=1");
    fs::write(scene.at("releases/1/services.d/a.yaml"), "1+").unwrap();
    scene.until("a=1+ b=1").await;
    symlink("releases/2", scene.at("next")).unwrap();
    fs::rename(scene.at("next"), scene.at("current")).unwrap();
    scene.until("a=2").await;
    fs::write(scene.at("releases/1/services.d/c.yaml"), "unseen").unwrap();
    fs::write(scene.at("releases/2/services.d/a.yaml"), "2+").unwrap();
    scene.until("a=2+").await;
    symlink("releases/1/services.d", scene.at("next")).unwrap();
    fs::rename(scene.at("next"), scene.at("services.d")).unwrap();
    scene.until("a=1+ b=1 c=unseen").await;
    scene.end().await;
}

#[tokio::test]
async fn folder_and_its_parents_may_be_created_later() {
    let mut scene =
        Scene::new(by_events(), |root| symlink("opt/muster/services.d", root.join("services.d")).unwrap()).await;
    assert_eq!((scene.shown().as_str(), scene.problems()), ("", vec![FolderError::Missing]));
    fs::create_dir(scene.at("opt")).unwrap();
    fs::create_dir(scene.at("opt/muster")).unwrap();
    fs::create_dir(scene.at("opt/muster/services.d")).unwrap();
    scene.until_problems(&[]).await;
    fs::write(scene.file("a"), "1").unwrap();
    scene.until("a=1").await;
    scene.end().await;
}

#[tokio::test]
async fn change_of_an_included_file_is_a_change_of_the_zone_file() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("sub")).unwrap();
    fs::write(at("sub/hosts"), "a A 10.0.0.1\n").unwrap();
    fs::write(at("common.zone"), "$INCLUDE sub/hosts\n").unwrap();
    fs::write(at("z.test.zone"), "$INCLUDE common.zone\n").unwrap();
    let (_rescan, rescans) = watch::channel(());
    let shutdown = CancellationToken::new();
    let folder = crate::files::zones::folder(dir.path().to_owned());
    let (mut contents, task) = spawn(folder, rescans, shutdown.clone()).await;
    let has = |contents: &Contents, text: &str| {
        let files: Vec<_> = contents.files.iter().collect();
        let [(path, octets)] = files[..] else { return false };
        assert_eq!(*path, at("z.test.zone"), "included files are no zones");
        octets.as_ref().as_ref().is_ok_and(|octets| String::from_utf8_lossy(octets).contains(text))
    };
    assert!(has(&contents.borrow(), "a A 10.0.0.1") && contents.borrow().problems.is_empty());
    let started = Instant::now();
    fs::write(at("sub/hosts"), "a A 10.0.0.2\n").unwrap();
    contents.wait_for(|contents| has(contents, "a A 10.0.0.2")).await.unwrap();
    // Sooner than by a periodic scan.
    assert!(started.elapsed() < SCAN, "{:?}", started.elapsed());
    fs::remove_file(at("sub/hosts")).unwrap();
    contents.wait_for(|contents| has(contents, "there is no such file")).await.unwrap();
    shutdown.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn optional_folder_may_be_missing() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder {
        path: dir.path().join("zones"),
        kind: FileKind::Zone,
        shared: false,
        access: Access::Content,
        required: false,
        limits: Limits::for_files_of(64),
    };
    let (_rescan, rescans) = watch::channel(());
    let shutdown = CancellationToken::new();
    let (mut contents, task) = spawn(folder, rescans, shutdown.clone()).await;
    assert_eq!(*contents.borrow(), Contents::empty(&dir.path().join("zones")));
    fs::create_dir(dir.path().join("zones")).unwrap();
    fs::write(dir.path().join("zones/a.zone"), "1").unwrap();
    timeout(DEADLINE, contents.wait_for(|contents| contents.files.len() == 1)).await.unwrap().unwrap();
    shutdown.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn files_of_a_vanished_folder_stay_in_use_until_they_return() {
    let mut scene = Scene::with(by_events(), "a=1 b=1").await;
    let history = scene.history();
    let vanished = [FolderError::Vanished(NEVER.as_secs())];
    fs::rename(scene.at("services.d"), scene.at("older")).unwrap();
    scene.until_problems(&vanished).await;
    fs::create_dir(scene.at("services.d")).unwrap();
    fs::write(scene.file("a"), "2").unwrap();
    scene.until("a=2 b=1").await;
    assert_eq!(scene.problems(), vanished);
    fs::write(scene.file("b"), "2").unwrap();
    scene.until("a=2 b=2").await;
    assert_eq!(scene.problems(), []);
    scene.end().await;
    let states = history.await.unwrap();
    assert!(states.iter().all(|state| state.starts_with("a=")), "{states:?}");
}

#[tokio::test]
async fn vanished_folder_is_withdrawn_after_the_grace_period() {
    let timing = Timing { grace: Duration::from_millis(300), ..by_events() };
    let mut scene = Scene::with(timing, "a=1").await;
    fs::rename(scene.at("services.d"), scene.at("older")).unwrap();
    scene.until_problems(&[FolderError::Vanished(0)]).await;
    assert_eq!(scene.shown(), "a=1");
    scene.until("").await;
    assert_eq!(scene.problems(), [FolderError::Missing]);
    write_folder(&scene.at("services.d"), "a=2");
    scene.until("a=2").await;
    assert_eq!(scene.problems(), []);
    fs::rename(scene.at("services.d"), scene.at("old")).unwrap();
    fs::write(scene.at("services.d"), "").unwrap();
    scene.until("").await;
    assert_eq!(scene.problems(), [FolderError::NotAFolder]);
    scene.end().await;
}

#[tokio::test]
async fn folder_may_vanish_with_its_parent() {
    let mut scene = Scene::new(by_events(), |root| {
        write_folder(&root.join("etc/muster/services.d"), "a=1");
        symlink("etc/muster/services.d", root.join("services.d")).unwrap();
    })
    .await;
    fs::rename(scene.at("etc/muster"), scene.at("older")).unwrap();
    scene.until_problems(&[FolderError::Vanished(NEVER.as_secs())]).await;
    fs::remove_dir(scene.at("etc")).unwrap();
    write_folder(&scene.at("etc/muster/services.d"), "a=2");
    scene.until("a=2").await;
    fs::rename(scene.at("etc/muster"), scene.at("etc/old")).unwrap();
    write_folder(&scene.at("etc/muster/services.d"), "a=3");
    scene.until("a=3").await;
    fs::write(scene.file("a"), "4").unwrap();
    scene.until("a=4").await;
    scene.end().await;
}

#[tokio::test]
async fn folder_may_be_replaced_repeatedly() {
    let mut scene = Scene::with(by_events(), "a=0 gone=0").await;
    for round in 1..20 {
        write_folder(&scene.at("next"), &format!("a={round}"));
        fs::rename(scene.at("services.d"), scene.at(&format!("old{round}"))).unwrap();
        fs::rename(scene.at("next"), scene.at("services.d")).unwrap();
        scene.until(&format!("a={round}")).await;
        fs::write(scene.file("a"), format!("{round}+")).unwrap();
        scene.until(&format!("a={round}+")).await;
    }
    scene.end().await;
}

/// The folder is the same, but `notify` has dropped its watch.
#[tokio::test]
async fn folder_may_be_renamed_and_renamed_back() {
    let mut scene = Scene::with(by_events(), "a=0").await;
    for round in 1..10 {
        fs::rename(scene.at("services.d"), scene.at("away")).unwrap();
        fs::rename(scene.at("away"), scene.at("services.d")).unwrap();
        scene.settled().await;
        fs::write(scene.file("a"), round.to_string()).unwrap();
        scene.until(&format!("a={round}")).await;
    }
    scene.end().await;
}

/// The new folder may reuse the inode number, and a process in the old folder delays its last event.
#[tokio::test]
async fn folder_may_be_replaced_while_it_is_open() {
    let mut scene = Scene::with(by_events(), "a=0").await;
    for round in 1..20 {
        let open_folder = File::open(scene.at("services.d")).unwrap();
        fs::remove_dir_all(scene.at("services.d")).unwrap();
        write_folder(&scene.at("services.d"), &format!("a={round}"));
        scene.until(&format!("a={round}")).await;
        drop(open_folder);
        fs::write(scene.file("a"), format!("{round}+")).unwrap();
        scene.until(&format!("a={round}+")).await;
    }
    scene.end().await;
}

/// Writes through a hard link in another folder, which causes no event.
fn write_unseen(scene: &Scene, name: &str, text: &str) {
    let other = scene.at("other name");
    fs::hard_link(scene.file(name), &other).unwrap();
    fs::write(&other, text).unwrap();
    fs::remove_file(&other).unwrap();
}

#[tokio::test]
async fn change_without_an_event_is_found_by_a_rescan() {
    let mut scene = Scene::with(by_events(), "a=1").await;
    write_unseen(&scene, "a", "2");
    scene.settled().await;
    assert_eq!(scene.shown(), "a=1", "an event reported the change, so this test is void");
    scene.rescan.send_replace(());
    scene.until("a=2").await;
    scene.end().await;
}

#[tokio::test]
async fn change_without_an_event_is_found_by_the_next_scan() {
    let timing = Timing { scan: Duration::from_millis(200), ..by_events() };
    let mut scene = Scene::with(timing, "a=1").await;
    for round in 2..6 {
        write_unseen(&scene, "a", &round.to_string());
        scene.until(&format!("a={round}")).await;
    }
    scene.end().await;
}

/// Holds the lock of notify's thread until the queue of the kernel is full.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queue_overflow_loses_no_change() {
    let mut scene = Scene::with(by_events(), "a=1 b=1").await;
    let room: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    let marks = scene.marks.clone();
    let (a, b, c) = (scene.file("a"), scene.file("b"), scene.file("c"));
    let noise = scene.at("services.d/noise");
    let overflow = spawn_blocking(move || {
        let pending = marks.lock();
        // The first event of this file makes the thread wait for the lock.
        fs::write(&c, "1").unwrap();
        // At least two events per file; those already read make room for some.
        for _ in 0..room {
            File::create(&noise).unwrap();
            fs::remove_file(&noise).unwrap();
        }
        fs::write(&a, "2").unwrap();
        fs::remove_file(&b).unwrap();
        assert!(pending.is_empty(), "the thread did not wait");
    });
    overflow.await.unwrap();
    scene.until("a=2 c=1").await;
    fs::write(scene.file("a"), "3").unwrap();
    scene.until("a=3 c=1").await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousand_files_rewritten_at_once_are_read() {
    let files = |text: &str| (0..1000).map(|n| format!("f{n:03}={text}")).collect::<Vec<_>>().join(" ");
    let mut scene = Scene::with(patient(), &files("old")).await;
    let history = scene.history();
    let start = Instant::now();
    let folder = scene.at("services.d");
    let new = files("new");
    spawn_blocking(move || write_folder(&folder, &new)).await.unwrap();
    scene.until(&files("new")).await;
    let most = start.elapsed().as_millis() / SETTLE.as_millis() + 2;
    scene.end().await;
    let states = history.await.unwrap();
    assert!(states.len() as u128 <= most, "{} states, at most {most}", states.len());
    let torn = states
        .iter()
        .flat_map(|state| state.split(' '))
        .find(|file| !file.ends_with("=old") && !file.ends_with("=new"));
    assert_eq!(torn, None, "no file is seen half-written");
}

/// Random operations with fixed seeds; the interleaving varies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contents_match_the_folder_after_random_operations() {
    let mut scene = Scene::with(by_events(), "a=1").await;
    let end = Instant::now() + Duration::from_secs(2);
    let writers: Vec<_> = (0..4)
        .map(|seed| {
            let folder = scene.at("services.d");
            thread::spawn(move || storm(&folder, seed, end))
        })
        .collect();
    spawn_blocking(|| writers.into_iter().for_each(|writer| writer.join().unwrap())).await.unwrap();
    scene.settled().await;
    let expected = folder_now(&scene.at("services.d"));
    let reached = scene.reach(|contents| contents.files == expected).await;
    let expected = show(&Contents { files: expected, ..scene.contents.borrow().clone() });
    assert!(reached, "expected {expected}, got {}", scene.shown());
    scene.end().await;
}

fn storm(folder: &Path, seed: u64, end: Instant) {
    let mut random = fastrand::Rng::with_seed(seed);
    // Other writers remove files at any time: any step here may fail.
    while Instant::now() < end {
        let any = |random: &mut fastrand::Rng| folder.join(format!("f{}.yaml", random.u8(..20)));
        let (file, other, hidden) = (any(&mut random), any(&mut random), folder.join(format!(".new{seed}")));
        let text = random.u32(..).to_string();
        let _ = match random.u8(..8) {
            0..3 => fs::write(&file, &text),
            3 => fs::write(&hidden, &text).and_then(|()| fs::rename(&hidden, &file)),
            4 => fs::rename(&file, &other),
            5 => fs::remove_file(&file),
            6 => fs::hard_link(&file, &other),
            _ => symlink(other.file_name().unwrap_or_default(), &file),
        };
        if random.u8(..50) == 0 {
            thread::sleep(Duration::from_millis(random.u64(..60)));
        }
    }
}

fn folder_now(folder: &Path) -> imbl::OrdMap<PathBuf, Arc<FileText>> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let wanted = |name: &OsString| Path::new(name).extension().is_some_and(|extension| extension == "yaml");
    names
        .filter(wanted)
        .map(|name| folder.join(name))
        .map(|path| {
            let text = crate::files::read::read(&path, 64);
            (path, Arc::new(text))
        })
        .collect()
}

#[tokio::test]
async fn task_ends_at_shutdown() {
    let mut scene = Scene::with(by_events(), "a=1").await;
    scene.shutdown.cancel();
    timeout(DEADLINE, &mut scene.task).await.unwrap().unwrap();
    assert!(scene.contents.changed().await.is_err());
}

#[test]
fn events_are_classified() {
    use notify::event::{AccessKind::*, CreateKind, DataChange, MetadataKind, RemoveKind};
    let cases = [
        (EventKind::Access(Open(AccessMode::Any)), None),
        (EventKind::Access(Close(AccessMode::Read)), None),
        (EventKind::Access(Close(AccessMode::Write)), Some((Sign::Complete, false))),
        (EventKind::Create(CreateKind::File), Some((Sign::Complete, true))),
        (EventKind::Create(CreateKind::Folder), Some((Sign::Complete, true))),
        (EventKind::Modify(ModifyKind::Data(DataChange::Any)), Some((Sign::Written, false))),
        (EventKind::Modify(ModifyKind::Metadata(MetadataKind::Any)), Some((Sign::Touched, false))),
        (EventKind::Modify(ModifyKind::Name(RenameMode::From)), Some((Sign::Gone, true))),
        (EventKind::Modify(ModifyKind::Name(RenameMode::To)), Some((Sign::Complete, true))),
        (EventKind::Modify(ModifyKind::Name(RenameMode::Both)), None),
        (EventKind::Remove(RemoveKind::File), Some((Sign::Gone, true))),
        (EventKind::Other, Some((Sign::Touched, false))),
    ];
    for (kind, expected) in cases {
        assert_eq!(classify(kind), expected, "{kind:?}");
    }
}

#[test]
fn notify_errors_map_to_reasons() {
    let system = |errno: Errno| notify::Error::io(errno.into());
    let cases = [
        (notify::Error::new(notify::ErrorKind::MaxFilesWatch), WatchError::Watches),
        (system(Errno::EMFILE), WatchError::Instances),
        (system(Errno::ENFILE), WatchError::Instances),
        (system(Errno::EACCES).add_path("/etc/muster".into()), WatchError::Denied("/etc/muster".into())),
        (system(Errno::ENOSYS), WatchError::Io("Function not implemented (os error 38)".to_owned())),
    ];
    for (error, expected) in cases {
        assert_eq!(reason(&error), expected, "{error:?}");
    }
}
