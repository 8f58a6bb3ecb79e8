//! What outlives a restart: small files in `data_dir`, each replaced as a whole.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

const SERIAL: &str = "zone-serial";

/// The ceiling that [`store_serial`] stored; `None` where there is none that can be read.
pub fn load_serial(data_dir: &Path) -> Option<u32> {
    fs::read_to_string(data_dir.join(SERIAL)).ok()?.trim().parse().ok()
}

/// Stores a ceiling of the zone's serial.
pub fn store_serial(data_dir: &Path, ceiling: u32) -> io::Result<()> {
    replace(&data_dir.join(SERIAL), format!("{ceiling}\n").as_bytes())
}

/// Replaces a file so that a crash leaves the old content or the new, never a part.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    // Somebody may have removed the folder while we run.
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let partial = path.with_extension("partial");
    let mut file = File::create(&partial)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&partial, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_comes_back_and_junk_does_not() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(load_serial(folder.path()), None);
        store_serial(folder.path(), 7).unwrap();
        store_serial(folder.path(), 8).unwrap();
        assert_eq!(load_serial(folder.path()), Some(8));
        fs::write(folder.path().join(SERIAL), "\0junk").unwrap();
        assert_eq!(load_serial(folder.path()), None);
    }
}
