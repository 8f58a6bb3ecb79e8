//! Files that a command reads once: bounded, in name order, and nothing that could block.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::yaml::MAX_TEXT;

/// A file's octets, at most one more than its parser accepts.
#[derive(Debug)]
pub struct Text {
    /// As it was named.
    pub path: PathBuf,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// The texts of a configuration: the file, or the `*.yaml` of a folder in the order of their names.
///
/// # Errors
/// The file is not there, cannot be read or is no regular file; the folder has no `*.yaml`.
pub fn configuration(path: &Path) -> io::Result<Vec<Text>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![read(path, MAX_TEXT)?]);
    }
    let files: Vec<PathBuf> = folder(path)?.into_iter().filter(|file| has_extension(file, "yaml")).collect();
    if files.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the folder has no *.yaml"));
    }
    files.iter().map(|file| read(file, MAX_TEXT)).collect()
}

/// Reads a regular file. Of one with more than `most` octets, only as much as shows it: the parser is who says so.
pub fn read(path: &Path, most: usize) -> io::Result<Text> {
    // Opening a pipe would wait for somebody to write into it.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(most as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Text { path: path.to_owned(), bytes })
}

/// The files of a folder in the order of their names, without hidden ones, without what editors put beside a file they
/// save, and without what is in its folders.
pub fn folder(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let in_the_way = matches!(entry.file_name().as_encoded_bytes().first(), Some(b'.' | b'#'));
        if !in_the_way && !entry.path().is_dir() {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// Whether a file's name ends in `.extension`.
pub fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}
