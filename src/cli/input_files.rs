//! Input files of commands: read once, bounded in size, in name order. Only regular files are opened, so that reading never
//! blocks.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::yaml::MAX_TEXT;

/// A file that has been read.
#[derive(Debug)]
pub struct Text {
    /// The path, as given by the user.
    pub path: PathBuf,
    /// The content, at most one octet more than its parser accepts.
    pub bytes: Vec<u8>,
}

/// Reads a configuration: the file, or the `*.yaml` files of a folder in name order.
///
/// # Errors
/// The file does not exist, is unreadable or is not a regular file; the folder has no `*.yaml` file.
pub fn configuration(path: &Path) -> io::Result<Vec<Text>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![read(path, MAX_TEXT)?]);
    }
    let is_read = |file: &PathBuf| has_extension(file, "yaml") && !file.is_dir();
    let files: Vec<PathBuf> = folder(path)?.into_iter().filter(is_read).collect();
    if files.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the folder has no *.yaml file"));
    }
    files.iter().map(|file| read(file, MAX_TEXT)).collect()
}

/// Reads a regular file, at most `limit + 1` octets: the parser reports files above the limit.
///
/// # Errors
/// The file does not exist, is unreadable or is not a regular file.
pub fn read(path: &Path, limit: usize) -> io::Result<Text> {
    // Opening a pipe would block until a writer opens it.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Text { path: path.to_owned(), bytes })
}

/// The files and subfolders of a folder in name order, without hidden files and editors' lock files.
///
/// # Errors
/// The folder cannot be listed.
pub fn folder(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let is_hidden = matches!(entry.file_name().as_encoded_bytes().first(), Some(b'.' | b'#'));
        if !is_hidden {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// Reports whether a file's name ends in `.extension`.
pub fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}
