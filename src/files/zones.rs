//! The zones folder: which static zones its files define, last good content first.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    contents::{Contents, Folder, Limits},
    last_good::LastGood,
    reload::{self, Loaded},
    zone_file::{self, MAX_ZONE_FILE, ZoneFile},
};
use crate::{diagnostic::Problem, model::name::Name};

/// All static zones, one a file.
pub type ZoneFiles = Arc<[Arc<ZoneFile>]>;

/// The files of `zones_dir`. Who has no static zones needs no folder.
pub fn folder(path: PathBuf) -> Folder {
    Folder { path, extensions: &["zone"], required: false, limits: Limits::for_files_of(MAX_ZONE_FILE as u64) }
}

/// Where zone files stand among the zones that the configuration names.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The discovery zone: its SOA and NS are generated, a file adds to them or overrides them.
    pub domain: Name,
    /// Its aliases: their content is the discovery zone's.
    pub aliases: Vec<Name>,
    /// The TTL of records that name none, in seconds.
    pub ttl: u32,
}

impl Rules {
    /// Reads a zone file by these rules.
    pub fn parse(&self, path: &Path, octets: &[u8]) -> Result<ZoneFile, Vec<Problem>> {
        let file = zone_file::parse(path, octets, self.ttl)?;
        if self.aliases.contains(&file.origin) {
            let problem = Problem::whole(path, format!("{} is an alias of {}", file.origin, self.domain));
            return Err(vec![problem.with_hint(format!("put its records into {}zone", self.domain))]);
        }
        if file.origin != self.domain {
            let problems = file.check_apex(path);
            if !problems.is_empty() {
                return Err(problems);
            }
        }
        Ok(file)
    }
}

/// The state of the zones folder.
pub struct Zones {
    rules: Rules,
    files: LastGood<ZoneFile>,
}

impl Zones {
    /// No files yet.
    pub fn new(rules: Rules) -> Self {
        Self { rules, files: LastGood::new() }
    }
}

impl reload::Reloadable for Zones {
    type Value = ZoneFiles;

    fn load(&mut self, contents: &Contents) -> Loaded<ZoneFiles> {
        self.files.update(contents, |path, octets| self.rules.parse(path, octets));
        let warnings = self.files.values().flat_map(|(_, file)| &file.warnings);
        let problems = self.files.problems().chain(warnings).cloned().collect();
        Loaded { value: self.files.values().map(|(_, file)| file.clone()).collect(), problems }
    }
}
