//! Writes the files of a conversion: each atomically, and none over a file that exists.

use std::{
    collections::BTreeSet,
    fs::{self, Metadata, Permissions},
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
};

use nix::unistd::{Group, Uid};
use tempfile::NamedTempFile;

use super::ImportError;
use crate::{
    cli::input_files::{folder as visible, has_extension, read},
    import::{MAX_FILE, OutputFile, Privacy, SERVICES_DIR, is_imported},
    printable,
};

/// Mode of a file that every user may read.
const OPEN_MODE: u32 = 0o644;
/// Mode of a private file.
const PRIVATE_MODE: u32 = 0o600;
/// Mode of a private file for the agent's group.
const GROUP_MODE: u32 = 0o640;
/// Bits of a mode that a private file may have.
const PRIVATE_BITS: u32 = 0o770;
/// Bits of a mode without the kind of the file.
const MODE_BITS: u32 = 0o777;
/// Group of the agent, as the package creates it.
const AGENT_GROUP: &str = "muster";

/// A file that was written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) path: PathBuf,
    /// True for a private file that only its owner can read.
    pub(super) is_private: bool,
}

/// Writes the files. A file that exists with the same content is no obstacle. A file that is replaced keeps its owner, its group
/// and its mode; a new private file gets the group of the folder or of the agent if root writes it.
///
/// # Errors
/// Without `force`, nothing is written if one of the files exists.
pub(super) fn write(folder: &Path, files: &[OutputFile], force: bool) -> Result<Vec<Written>, ImportError> {
    let paths: Vec<PathBuf> = files.iter().map(|file| folder.join(&file.path)).collect();
    if !force {
        let is_other = |(path, file): &(&PathBuf, &OutputFile)| {
            fs::symlink_metadata(path).is_ok() && fs::read(path).ok().as_deref() != Some(file.text.as_bytes())
        };
        let exist = paths.iter().zip(files).filter(is_other);
        let exist: Vec<String> = exist.map(|(path, _)| format!("{} exists", printable::path(path))).collect();
        if !exist.is_empty() {
            return Err(ImportError::Exists(exist.join("\n")));
        }
    }
    let agent = agent_group();
    let mut written = Vec::new();
    for (path, file) in paths.into_iter().zip(files) {
        match write_file(&path, file, agent) {
            Ok(mode) => written.push(Written { path, is_private: is_private(file) && mode & 0o040 == 0 }),
            Err(error) => return Err(ImportError::Unwritable { path, error }),
        }
    }
    Ok(written)
}

/// Owner, group and mode of a file. `None`: those of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Access {
    owner: Option<u32>,
    group: Option<u32>,
    mode: u32,
}

impl Access {
    /// The access of a file that replaces another one.
    fn of_replaced(replaced: &Metadata, is_private: bool) -> Self {
        let bits = if is_private { PRIVATE_BITS } else { MODE_BITS };
        Self { owner: Some(replaced.uid()), group: Some(replaced.gid()), mode: replaced.mode() & bits }
    }

    /// The access of a new file. `agent`: the group of the agent, if this process may give files to it.
    fn of_new(folder: &Metadata, agent: Option<u32>, is_private: bool) -> Self {
        let of_folder = Some(folder.gid()).filter(|group| agent.is_some() && *group != 0);
        match of_folder.or(agent) {
            Some(group) if is_private => Self { owner: None, group: Some(group), mode: GROUP_MODE },
            _ => Self { owner: None, group: None, mode: if is_private { PRIVATE_MODE } else { OPEN_MODE } },
        }
    }
}

/// Id of the agent's group, if the host has it and this process may give files to it.
fn agent_group() -> Option<u32> {
    let group = Uid::effective().is_root().then(|| Group::from_name(AGENT_GROUP).ok().flatten()).flatten()?;
    Some(group.gid.as_raw())
}

/// Reports whether a file is not for every user.
fn is_private(file: &OutputFile) -> bool {
    file.privacy != Privacy::Public
}

/// The service files of an earlier import in the output folder, and in those of its nodes, which were not `written` now.
pub(super) fn left(output: &Path, written: &[Written]) -> Vec<PathBuf> {
    let written: BTreeSet<&Path> = written.iter().map(|file| file.path.as_path()).collect();
    let nodes = visible(output).unwrap_or_default();
    let folders = std::iter::once(output.to_owned()).chain(nodes).map(|folder| folder.join(SERVICES_DIR));
    let files = folders.flat_map(|folder| visible(&folder).unwrap_or_default());
    let is_left = |path: &PathBuf| {
        has_extension(path, "yaml")
            && !written.contains(path.as_path())
            && read(path, MAX_FILE).is_ok_and(|text| is_imported(&String::from_utf8_lossy(&text.bytes)))
    };
    files.filter(is_left).collect()
}

/// Writes a file and returns its mode.
fn write_file(path: &Path, file: &OutputFile, agent: Option<u32>) -> std::io::Result<u32> {
    let is_private = is_private(file);
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let access = match fs::metadata(path) {
        Ok(replaced) if replaced.is_file() => Access::of_replaced(&replaced, is_private),
        _ => Access::of_new(&fs::metadata(folder)?, agent, is_private),
    };
    // Created with mode 0600, and readable by others only once it is complete.
    let mut temporary = NamedTempFile::new_in(folder)?;
    temporary.write_all(file.text.as_bytes())?;
    let own = temporary.as_file().metadata()?;
    let is_foreign = |id: Option<u32>, own: u32| id.is_some_and(|id| id != own);
    let mut mode = access.mode;
    if is_foreign(access.owner, own.uid()) || is_foreign(access.group, own.gid()) {
        // Another user than root cannot give files away: the file is this user's then, and a private one for no group.
        match fchown(temporary.as_file(), access.owner, access.group) {
            Ok(()) => {}
            Err(_) if is_private => mode &= PRIVATE_MODE,
            Err(_) => {}
        }
    }
    temporary.as_file().set_permissions(Permissions::from_mode(mode))?;
    temporary.as_file().sync_all()?;
    temporary.persist(path)?;
    Ok(mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(text: &str) -> Vec<OutputFile> {
        let file = |path: &str, privacy| OutputFile { path: path.to_owned(), text: text.to_owned(), privacy };
        vec![
            file("muster.yaml", Privacy::Public),
            file("services.d/web.yaml", Privacy::Public),
            file("gossip.key", Privacy::Secret),
            file("services.d/db.yaml", Privacy::Private),
        ]
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & MODE_BITS
    }

    #[test]
    fn files_are_written_with_their_modes_and_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("new/out");
        let written = write(&output, &files("a"), false).unwrap();
        let paths: Vec<&Path> = written.iter().map(|file| file.path.as_path()).collect();
        let secret = if written[2].is_private { PRIVATE_MODE } else { GROUP_MODE };
        assert_eq!(paths.iter().map(|path| mode(path)).collect::<Vec<_>>(), [OPEN_MODE, OPEN_MODE, secret, secret]);
        write(&output, &files("a"), false).unwrap();
        let error = write(&output, &files("b"), false).unwrap_err().to_string();
        assert!(error.contains("services.d/web.yaml exists") && error.ends_with("with --force."), "{error}");
        assert_eq!(fs::read_to_string(paths[0]).unwrap(), "a", "nothing was written");
        write(&output, &files("b"), true).unwrap();
        assert_eq!(fs::read_to_string(paths[2]).unwrap(), "b");
        let left = fs::read_dir(&output).unwrap().count();
        assert_eq!(left, 3, "no temporary file is left");
    }

    #[test]
    fn replaced_files_keep_their_access() {
        let folder = tempfile::tempdir().unwrap();
        let written = write(folder.path(), &files("a"), false).unwrap();
        for (file, before, after) in [(0, 0o600, 0o600), (1, 0o664, 0o664), (2, 0o640, 0o640), (2, 0o644, 0o640)] {
            fs::set_permissions(&written[file].path, Permissions::from_mode(before)).unwrap();
            let again = write(folder.path(), &files("b"), true).unwrap();
            assert_eq!(mode(&again[file].path), after, "{before:o}");
            assert!(!again[file].is_private);
        }
    }

    #[test]
    fn files_of_an_earlier_import_are_listed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for path in ["services.d/old.yaml", "services.d/own.yaml", "services.d/web.yaml", "host-a/services.d/old.yaml"]
        {
            fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            let text = if path.ends_with("own.yaml") { "service: a\n" } else { "# From a.json:1\nservice: a\n" };
            fs::write(at(path), text).unwrap();
        }
        let written = write(folder.path(), &files("b"), true).unwrap();
        let left = left(folder.path(), &written);
        assert_eq!(left, [at("services.d/old.yaml"), at("host-a/services.d/old.yaml")]);
    }

    #[test]
    fn new_secrets_of_root_are_for_the_group_of_the_folder_or_the_agent() {
        let folder = tempfile::tempdir().unwrap();
        let metadata = fs::metadata(folder.path()).unwrap();
        let own = if metadata.gid() == 0 { 998 } else { metadata.gid() };
        let of_group = Access { owner: None, group: Some(own), mode: GROUP_MODE };
        assert_eq!(Access::of_new(&metadata, Some(998), true), of_group);
        let of_process = |mode| Access { owner: None, group: None, mode };
        assert_eq!(Access::of_new(&metadata, None, true), of_process(PRIVATE_MODE));
        assert_eq!(Access::of_new(&metadata, Some(998), false), of_process(OPEN_MODE));
    }

    #[test]
    fn root_gives_a_secret_to_the_group_of_the_agent() {
        if !Uid::effective().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let file = OutputFile { path: "gossip.key".to_owned(), text: "k".to_owned(), privacy: Privacy::Secret };
        let path = folder.path().join("gossip.key");
        for _ in 0..2 {
            // The second time, it replaces the first one without knowing the group.
            let agent = if path.exists() { None } else { Some(998) };
            assert_eq!(write_file(&path, &file, agent).unwrap(), GROUP_MODE);
            let found = fs::metadata(&path).unwrap();
            assert_eq!((found.uid(), found.gid(), found.mode() & MODE_BITS), (0, 998, GROUP_MODE));
        }
    }
}
