//! Reads files and folders of Consul.

use std::path::{Path, PathBuf};

use super::ImportError;
use crate::{
    cli::input_files::{folder, read},
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
        match read(&path, MAX_FILE) {
            Ok(text) => {
                let by_content = || Syntax::of_text(&String::from_utf8_lossy(&text.bytes));
                let syntax = Syntax::of_name(&path).unwrap_or_else(by_content);
                match parse(&path, &text.bytes, syntax, number) {
                    Ok(root) => {
                        sources.push(Source { name: printable::path(&path).to_string(), stem: stem(&path), root });
                    }
                    Err(problem) => problems.push(problem.to_string()),
                }
            }
            Err(error) => problems.push(format!("cannot read {}: {error}", printable::path(&path))),
        }
    }
    if problems.is_empty() { Ok(sources) } else { Err(ImportError::Unreadable(problems.join("\n"))) }
}

fn listed(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let files = folder(path)?.into_iter();
    Ok(files.filter(|file| Syntax::of_name(file).is_some() && !file.is_dir()).collect())
}

fn stem(path: &Path) -> String {
    path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}
