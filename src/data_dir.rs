//! Persistent state: small files in `data_dir`, each replaced atomically.

use std::{
    fs::{self, OpenOptions, Permissions},
    io::{self, Read, Write},
    net::SocketAddr,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::{clock::unix_now, model::member::INCARNATIONS};

const SERIAL: &str = "zone-serial";
const GENERATION: &str = "generation";
/// Mode of the files: one holds keys.
const PRIVATE: u32 = 0o600;
const PEERS: &str = "peers";
const KEYRING: &str = "keyring";
const REGISTERED: &str = "registered.json";
/// Copy of a registration file that was only partly readable.
const DAMAGED: &str = "registered.damaged.json";
/// Maximum size of a file in octets: twice the registrations of a full node.
const MAX_FILE: u64 = 128 << 20;

/// Returns the ceiling stored by [`store_serial`]; `None` if it is absent or unreadable.
pub fn load_serial(data_dir: &Path) -> Option<u32> {
    fs::read_to_string(data_dir.join(SERIAL)).ok()?.trim().parse().ok()
}

/// Stores an upper bound for the serial of the discovery zone.
pub fn store_serial(data_dir: &Path, ceiling: u32) -> io::Result<()> {
    replace(&data_dir.join(SERIAL), format!("{ceiling}\n").as_bytes())
}

/// Returns a generation higher than any before, a multiple of [`INCARNATIONS`]: nanoseconds since 1970 or the successor of
/// the stored one, whichever is higher. It grows even if the clock is set back or the folder is lost.
///
/// # Errors
/// The generation cannot be stored, so the next one might not be higher.
pub fn next_generation(data_dir: &Path) -> io::Result<u64> {
    let now = unix_now().as_nanos() as u64;
    let stored: Option<u64> = read(&data_dir.join(GENERATION)).and_then(|text| text.trim().parse().ok());
    let least = stored.map_or(0, |stored| stored.saturating_add(INCARNATIONS));
    let next = now.max(least) / INCARNATIONS * INCARNATIONS;
    replace(&data_dir.join(GENERATION), format!("{next}\n").as_bytes())?;
    Ok(next)
}

/// Returns the addresses stored by [`store_peers`]; empty if they are unreadable.
pub fn load_peers(data_dir: &Path) -> Vec<SocketAddr> {
    let text = read(&data_dir.join(PEERS)).unwrap_or_default();
    text.lines().filter_map(|line| line.trim().parse().ok()).collect()
}

/// Stores the gossip addresses of peers.
pub fn store_peers(data_dir: &Path, peers: &[SocketAddr]) -> io::Result<()> {
    let lines: String = peers.iter().map(|peer| format!("{peer}\n")).collect();
    replace(&data_dir.join(PEERS), lines.as_bytes())
}

/// Returns the keyring stored by [`store_keyring`].
pub fn load_keyring(data_dir: &Path) -> Option<String> {
    read(&data_dir.join(KEYRING))
}

/// Stores the gossip keys after a change at run time; only the owner can read the file.
pub fn store_keyring(data_dir: &Path, keyring: &str) -> io::Result<()> {
    replace(&data_dir.join(KEYRING), keyring.as_bytes())
}

/// Returns registrations and holds stored by [`store_registered`]; `None` if there is no file.
///
/// # Errors
/// The file cannot be read.
pub fn load_registered(data_dir: &Path) -> io::Result<Option<String>> {
    match fs::read(data_dir.join(REGISTERED)) {
        Ok(octets) => Ok(Some(String::from_utf8_lossy(&octets).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Copies a partly readable registration file before it is overwritten; returns the path of the copy.
///
/// # Errors
/// The file cannot be copied.
pub fn keep_damaged(data_dir: &Path) -> io::Result<PathBuf> {
    let copy = data_dir.join(DAMAGED);
    fs::copy(data_dir.join(REGISTERED), &copy)?;
    Ok(copy)
}

/// Stores registrations and holds of the HTTP API.
pub fn store_registered(data_dir: &Path, registered: &str) -> io::Result<()> {
    replace(&data_dir.join(REGISTERED), registered.as_bytes())
}

fn read(path: &Path) -> Option<String> {
    let mut text = String::new();
    fs::File::open(path).ok()?.take(MAX_FILE).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Replaces a file atomically: after a crash it has the old or the new content, never a part.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    // The folder may have been removed at run time.
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let partial = path.with_extension("partial");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(PRIVATE).open(&partial)?;
    // A leftover partial file may have another mode.
    file.set_permissions(Permissions::from_mode(PRIVATE))?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&partial, path)?;
    // The rename is durable once the folder is synced.
    path.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_grow_even_if_the_clock_is_set_back() {
        let folder = tempfile::tempdir().unwrap();
        let first = next_generation(folder.path()).unwrap();
        let second = next_generation(folder.path()).unwrap();
        assert!(second >= first + INCARNATIONS && second.is_multiple_of(INCARNATIONS), "{first} {second}");
        // The clock was a century ahead and was set back.
        let ahead = first + 100 * 365 * 86_400 * 1_000_000_000;
        fs::write(folder.path().join(GENERATION), format!("{ahead}")).unwrap();
        assert!(next_generation(folder.path()).unwrap() > ahead);
        fs::write(folder.path().join(GENERATION), "\0junk").unwrap();
        assert!(next_generation(folder.path()).unwrap() >= second);
    }

    #[test]
    fn peers_round_trip_and_junk_is_skipped() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(load_peers(folder.path()), []);
        let peers = ["10.0.0.7:7946".parse().unwrap(), "[2001:db8::1]:7946".parse().unwrap()];
        store_peers(folder.path(), &peers).unwrap();
        assert_eq!(load_peers(folder.path()), peers);
        fs::write(folder.path().join(PEERS), "10.0.0.7\nx\n10.0.0.8:1\n").unwrap();
        assert_eq!(load_peers(folder.path()), ["10.0.0.8:1".parse().unwrap()]);
    }

    #[test]
    fn keyring_file_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let partial = folder.path().join(KEYRING).with_extension("partial");
        fs::write(&partial, "").unwrap();
        fs::set_permissions(&partial, Permissions::from_mode(0o644)).unwrap();
        store_keyring(folder.path(), "key\n").unwrap();
        assert_eq!(load_keyring(folder.path()).as_deref(), Some("key\n"));
        let mode = fs::metadata(folder.path().join(KEYRING)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn serial_round_trips_and_junk_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(load_serial(folder.path()), None);
        store_serial(folder.path(), 7).unwrap();
        store_serial(folder.path(), 8).unwrap();
        assert_eq!(load_serial(folder.path()), Some(8));
        fs::write(folder.path().join(SERIAL), "\0junk").unwrap();
        assert_eq!(load_serial(folder.path()), None);
    }
}
