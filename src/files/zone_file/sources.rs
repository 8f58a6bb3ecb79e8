//! Texts of a zone: its zone file and the files that this one includes, as one value.
//!
//! The reader of a folder collects the included files ([`collect`]), so that the parser does no I/O, and a change of an included
//! file is a change of the zone file. The value is octets, as those of any other file: it is stored and compared like them.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use super::{
    MAX_ZONE_FILE,
    lexer::{Entries, Form, Token},
};
use crate::files::contents::FileText;

/// Maximum number of files that a zone file includes, also through others.
pub(super) const MAX_INCLUDED: usize = 100;
/// Keyword of the directive (RFC 1035 §5.1).
pub(super) const INCLUDE: &[u8] = b"$INCLUDE";
/// Start of a value with included files. A text has no NUL octet.
const MARK: &[u8] = b"\0zone file with included files\n";

/// Texts of a zone.
#[derive(Debug)]
pub(super) struct Sources<'a> {
    /// Text of the zone file.
    pub(super) text: &'a [u8],
    /// Texts of included files by their paths below the folder, or the reasons why they could not be read.
    pub(super) included: BTreeMap<&'a Path, Result<&'a [u8], &'a str>>,
}

/// A zone file with its included files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collected {
    /// The texts, for the parser.
    pub text: Arc<[u8]>,
    /// Paths of the included files below the folder.
    pub included: Vec<PathBuf>,
}

/// Collects the files that a zone file in `folder` includes. `read` reads a file by its path below the folder.
///
/// Files beyond [`MAX_INCLUDED`], or beyond [`MAX_ZONE_FILE`] octets in total, are not read.
pub fn collect(folder: &Path, text: Arc<[u8]>, mut read: impl FnMut(&Path) -> FileText) -> Collected {
    let mut wanted: VecDeque<PathBuf> = included_by(folder, &text).into();
    if wanted.is_empty() && !text.starts_with(MARK) {
        return Collected { text, included: Vec::new() };
    }
    let (mut octets, mut included) = (MARK.to_vec(), Vec::<PathBuf>::new());
    append(&mut octets, &text);
    let mut room = MAX_ZONE_FILE.saturating_sub(text.len());
    while let Some(path) = wanted.pop_front() {
        if included.contains(&path) || included.len() == MAX_INCLUDED {
            continue;
        }
        let text = read(&path).map_err(|error| error.to_string()).and_then(|text| match text.len() <= room {
            true => Ok(text),
            false => Err(format!("the zone file and its included files exceed {MAX_ZONE_FILE} octets")),
        });
        append(&mut octets, path.as_os_str().as_encoded_bytes());
        match &text {
            Ok(text) => {
                room -= text.len();
                wanted.extend(included_by(folder, text));
                octets.push(1);
                append(&mut octets, text);
            }
            Err(reason) => {
                octets.push(0);
                append(&mut octets, reason.as_bytes());
            }
        }
        included.push(path);
    }
    Collected { text: octets.into(), included }
}

/// Returns the files of a folder that others include, and that are no zones therefore. `files` are names with the paths that each includes.
/// Files that include each other are none of them.
pub fn included_only<'a>(files: impl Iterator<Item = (&'a Path, &'a [PathBuf])>) -> BTreeSet<&'a Path> {
    let files: BTreeMap<&Path, &[PathBuf]> = files.collect();
    let includes =
        |file: &Path, other: &Path| files.get(file).is_some_and(|paths| paths.iter().any(|path| path == other));
    let pairs = files.iter().flat_map(|(file, paths)| paths.iter().map(|path| (*file, path.as_path())));
    pairs.filter(|(file, path)| file != path && !includes(path, file)).map(|(_, path)| path).collect()
}

fn append(octets: &mut Vec<u8>, part: &[u8]) {
    octets.extend((part.len() as u32).to_be_bytes());
    octets.extend(part);
}

impl<'a> Sources<'a> {
    /// Splits the value that [`collect`] returns. Other octets are the text of a zone file without included files.
    pub(super) fn split(octets: &'a [u8]) -> Self {
        Self::read(octets).unwrap_or(Self { text: octets, included: BTreeMap::new() })
    }

    fn read(octets: &'a [u8]) -> Option<Self> {
        let mut rest = octets.strip_prefix(MARK)?;
        let text = part(&mut rest)?;
        let mut included = BTreeMap::new();
        while !rest.is_empty() {
            let path = Path::new(std::str::from_utf8(part(&mut rest)?).ok()?);
            let (is_read, tail) = rest.split_first()?;
            rest = tail;
            let octets = part(&mut rest)?;
            let text = if *is_read == 1 { Ok(octets) } else { Err(std::str::from_utf8(octets).ok()?) };
            included.insert(path, text);
        }
        Some(Self { text, included })
    }
}

fn part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, tail) = rest.split_first_chunk()?;
    let (part, tail) = tail.split_at_checked(u32::from_be_bytes(*len) as usize)?;
    *rest = tail;
    Some(part)
}

/// Returns the paths of the files that a text includes, without those that it may not include.
fn included_by(folder: &Path, text: &[u8]) -> Vec<PathBuf> {
    let is_keyword = |at: usize| text[at..].get(..INCLUDE.len()).is_some_and(|word| word.eq_ignore_ascii_case(INCLUDE));
    // Almost no zone file includes others: do not read its tokens twice.
    if !(0..text.len()).any(|at| text[at] == b'$' && is_keyword(at)) {
        return Vec::new();
    }
    let (mut entries, mut tokens, mut paths) = (Entries::new(text, Form::Described), Vec::new(), Vec::new());
    while let Some((entry, _)) = entries.next(&mut tokens) {
        if let [keyword, file, ..] = tokens[..]
            && is_include(entry.blank, &keyword)
            && let Ok(path) = path(folder, file.raw)
        {
            paths.push(path);
        }
    }
    paths
}

/// Reports whether an entry with this first token includes a file.
pub(super) fn is_include(blank: bool, first: &Token<'_>) -> bool {
    !blank && !first.quoted && first.raw.eq_ignore_ascii_case(INCLUDE)
}

/// Returns the path of an included file below the folder of the zone file. Relative paths are relative to that folder, as in BIND and
/// NSD.
///
/// # Errors
/// The path leads out of the folder, or has no file.
pub(super) fn path(folder: &Path, raw: &[u8]) -> Result<PathBuf, &'static str> {
    let text = std::str::from_utf8(raw).map_err(|_| "is not UTF-8")?;
    let path = Path::new(text);
    let below = if path.is_absolute() { path.strip_prefix(folder).map_err(|_| "is outside the folder")? } else { path };
    let mut relative = PathBuf::new();
    for component in below.components() {
        match component {
            Component::Normal(name) => relative.push(name),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return Err("is outside the folder"),
        }
    }
    if relative.as_os_str().is_empty() { Err("names no file") } else { Ok(relative) }
}
