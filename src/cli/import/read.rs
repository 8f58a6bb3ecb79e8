//! Reads files and folders of Consul.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use super::ImportError;
use crate::{
    files::{
        access,
        contents::{Access, ReadError},
    },
    import::{MAX_FILE, Source, Syntax, parse},
    printable,
};

/// Reads the files, and the `*.json` and `*.hcl` files of folders in name order, as Consul does.
///
/// # Errors
/// All files that cannot be read or parsed.
pub(super) fn sources(paths: &[String]) -> Result<Vec<Source>, ImportError> {
    let mut problems = Vec::new();
    let mut files = Vec::new();
    for path in paths.iter().map(PathBuf::from) {
        match listed(&path) {
            Ok(listed) if listed.is_empty() => {
                problems.push(format!(
                    "{}: no *.json and *.hcl file in this folder (subfolders are not read)",
                    printable::path(&path)
                ));
            }
            Ok(listed) => files.extend(listed),
            Err(error) => problems.push(format!("cannot read {}: {error}", printable::path(&path))),
        }
    }
    let mut sources = Vec::new();
    for path in files {
        let Ok(number) = u16::try_from(sources.len()) else {
            problems.push(format!("more than {} files", u16::MAX));
            break;
        };
        match read(&path) {
            Ok(Text { bytes, is_public }) => {
                let syntax = syntax(&path).unwrap_or_else(|| Syntax::of_text(&String::from_utf8_lossy(&bytes)));
                match parse(&path, &bytes, syntax, number) {
                    Ok(root) => {
                        let name = printable::path(&path).to_string();
                        sources.push(Source { name, stem: stem(&path), is_public, root });
                    }
                    Err(problem) => problems.push(problem.to_string()),
                }
            }
            Err(error) => problems.push(unread(&path, &error)),
        }
    }
    if problems.is_empty() { Ok(sources) } else { Err(ImportError::Unreadable(problems.join("\n"))) }
}

/// The file, or the files of a folder: hidden ones, too. The target of a link decides, as in Consul.
fn listed(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries: std::io::Result<Vec<PathBuf>> = fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect();
    let mut files = entries?;
    files.retain(|file| syntax(file).is_some() && !file.is_dir());
    files.sort();
    Ok(files)
}

/// The syntax of a file by its name, or by that of the target of a link.
fn syntax(path: &Path) -> Option<Syntax> {
    let target = if path.is_symlink() { path.canonicalize().ok() } else { None };
    Syntax::of_name(target.as_deref().unwrap_or(path))
}

/// Describes a file that is not read.
fn unread(path: &Path, error: &ReadError) -> String {
    let hint = error.hint().map_or(String::new(), |hint| format!(" ({hint})"));
    format!("{}: {error}{hint}", printable::path(path))
}

/// A file that was read.
struct Text {
    bytes: Vec<u8>,
    is_public: bool,
}

/// Reads a regular file, at most one octet more than its parser accepts. A link is followed as in the folders of the agent: the
/// output must not show a file that the owner of the link may not read.
fn read(path: &Path) -> Result<Text, ReadError> {
    access::admit_unopened(path, Access::Content, false)?;
    let file = File::open(path)?;
    let opened = file.metadata()?;
    access::admit(path, &opened, Access::Content, false)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Text { bytes, is_public: access::is_public(path, &opened) })
}

fn stem(path: &Path) -> String {
    path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, lchown, symlink};

    use nix::unistd::Uid;

    use super::*;

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// A folder that every user can reach.
    fn folder() -> tempfile::TempDir {
        tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap()
    }

    #[test]
    fn files_of_a_folder_are_those_that_consul_reads() {
        let dir = folder();
        for name in [".hidden.json", ".json", "a.hcl", "a.yaml", "#b.json", "c.json.bak"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        fs::create_dir(dir.path().join("d.json")).unwrap();
        symlink("a.yaml", dir.path().join("link.json")).unwrap();
        symlink("a.hcl", dir.path().join("link")).unwrap();
        symlink("nothing", dir.path().join("dangling.json")).unwrap();
        let found = listed(dir.path()).unwrap();
        let names: Vec<_> = found.iter().map(|file| file.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["#b.json", ".hidden.json", ".json", "a.hcl", "dangling.json", "link"]);
    }

    #[test]
    fn sources_are_public_if_every_user_can_read_them() {
        let dir = folder();
        let file = dir.path().join("a.json");
        fs::write(&file, "{}").unwrap();
        for (mode, folder, expected) in [(0o644, 0o755, true), (0o640, 0o755, false), (0o644, 0o750, false)] {
            chmod(&file, mode);
            chmod(dir.path(), folder);
            assert_eq!(read(&file).unwrap().is_public, expected, "{mode:o} in {folder:o}");
        }
    }

    /// Needs root, which may give files away.
    #[test]
    fn link_of_a_user_to_a_file_of_root_is_not_followed() {
        if !Uid::effective().is_root() {
            return;
        }
        let dir = folder();
        fs::write(dir.path().join("secret"), "{\"service\": {\"name\": \"secret\"}}").unwrap();
        chmod(&dir.path().join("secret"), 0o600);
        let link = dir.path().join("l.json");
        symlink("secret", &link).unwrap();
        assert!(read(&link).is_ok(), "a link of root");
        lchown(&link, Some(1234), None).unwrap();
        assert_eq!(read(&link).err(), Some(ReadError::ForeignLink));
        let error = sources(&[link.to_str().unwrap().to_owned()]).unwrap_err().to_string();
        assert!(error.contains("l.json") && error.contains("it is not followed"), "{error}");
    }
}
