//! Copies of secondary zones: one file each, below a folder of their own.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fmt::Write as _,
    fs, io,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{DataDir, read, replace};
use crate::model::name::Name;

/// Folder of the copies.
const FOLDER: &str = "secondary-zones";
/// End of the name of a copy, behind the final dot of the zone.
const EXTENSION: &str = "copy";

impl DataDir {
    /// Returns the copy of a zone stored by [`store_zone_copy`](Self::store_zone_copy), and the Unix time of its last confirmation;
    /// `None` if there is none.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn load_zone_copy(&self, origin: &Name) -> io::Result<Option<(Vec<u8>, Duration)>> {
        let path = self.zone_copy(origin);
        match read(&path) {
            Ok(octets) => {
                let confirmed = fs::metadata(&path)?.modified()?;
                Ok(Some((octets, confirmed.duration_since(UNIX_EPOCH).unwrap_or_default())))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Stores a copy, which a primary has just sent.
    ///
    /// # Errors
    /// The system's error. The former copy stays.
    pub fn store_zone_copy(&self, origin: &Name, content: &[u8]) -> io::Result<()> {
        replace(&self.zone_copy(origin), content)
    }

    /// Marks a stored copy as confirmed by a primary, without writing it again.
    ///
    /// # Errors
    /// The system's error.
    pub fn confirm_zone_copy(&self, origin: &Name) -> io::Result<()> {
        let file = fs::File::open(self.zone_copy(origin))?;
        file.set_modified(SystemTime::now())?;
        file.sync_all()
    }

    /// Removes the copies of all zones but these. Returns the names of the removed files without their extension.
    ///
    /// # Errors
    /// The system's error.
    pub fn remove_other_zone_copies<'z>(&self, zones: impl Iterator<Item = &'z Name>) -> io::Result<Vec<String>> {
        let kept: BTreeSet<PathBuf> = zones.map(|origin| self.zone_copy(origin)).collect();
        let entries = match fs::read_dir(self.path.join(FOLDER)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut removed = Vec::new();
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().and_then(OsStr::to_str).and_then(|name| name.strip_suffix(EXTENSION));
            if let Some(name) = name.filter(|_| !kept.contains(&path)) {
                fs::remove_file(&path)?;
                removed.push(name.to_owned());
            }
        }
        Ok(removed)
    }

    fn zone_copy(&self, origin: &Name) -> PathBuf {
        // Names of reverse zones may have slashes (RFC 2317).
        let mut name = String::new();
        for octet in origin.labels().flat_map(|label| label.iter().copied().chain(*b".")) {
            match octet {
                b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' => name.push(octet.into()),
                // Writing to a `String` cannot fail.
                _ => drop(write!(name, "%{octet:02x}")),
            }
        }
        self.path.join(FOLDER).join(name + EXTENSION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_round_trip() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::new(folder.path().to_owned());
        let origin = Name::parse("0/25.2.0.192.in-addr.arpa").unwrap();
        assert!(dir.load_zone_copy(&origin).unwrap().is_none());
        dir.store_zone_copy(&origin, b"records").unwrap();
        let (content, stored) = dir.load_zone_copy(&origin).unwrap().unwrap();
        assert_eq!(content, b"records");
        dir.confirm_zone_copy(&origin).unwrap();
        assert!(dir.load_zone_copy(&origin).unwrap().unwrap().1 >= stored);
        let names: Vec<_> =
            fs::read_dir(folder.path().join(FOLDER)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["0%2f25.2.0.192.in-addr.arpa.copy"]);
    }

    #[test]
    fn copies_of_other_zones_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::new(folder.path().to_owned());
        let [kept, gone] = ["a.test", "b.test"].map(|origin| Name::parse(origin).unwrap());
        assert_eq!(dir.remove_other_zone_copies([&kept].into_iter()).unwrap(), Vec::<String>::new());
        for origin in [&kept, &gone] {
            dir.store_zone_copy(origin, b"records").unwrap();
        }
        fs::write(folder.path().join(FOLDER).join("notes"), "of an operator").unwrap();
        assert_eq!(dir.remove_other_zone_copies([&kept].into_iter()).unwrap(), ["b.test."]);
        assert!(dir.load_zone_copy(&kept).unwrap().is_some() && dir.load_zone_copy(&gone).unwrap().is_none());
        assert!(folder.path().join(FOLDER).join("notes").exists());
    }
}
