//! The zones folder and the static zones that its files define.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    contents::{Access, Contents, FileKind, Folder, Limits},
    last_good::{LastGood, LastValidFile, Loaded, Reloadable},
    live_names::{KnownNode, live_name_at},
    zone_file::{self, MAX_ZONE_FILE},
};
use crate::{
    diagnostic::Diagnostic,
    model::{
        alias_domain::{AliasDomain, NameScheme},
        name::{MAX_NAME, Name},
        registered_name::RegisteredName,
        zone::{StaticRecord, ZoneFile, target_at},
    },
    printable,
};

/// All static zones, one per file.
pub type ZoneFiles = Arc<[Arc<ZoneFile>]>;

/// The files of `zones_dir`. The folder is optional.
pub fn folder(path: PathBuf) -> Folder {
    Folder {
        path,
        kind: FileKind::Zone,
        shared: false,
        access: Access::Content,
        required: false,
        limits: Limits::for_files_of(MAX_ZONE_FILE as u64),
    }
}

/// Settings of the configuration that zone files are checked against. The agent and `muster validate` apply the same rules.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The discovery zone. Its SOA and NS are generated; a file adds to them or overrides them.
    pub domain: Name,
    /// Aliases of the discovery zone. One with the scheme of Consul has a file of its own, like the discovery zone.
    pub aliases: Vec<AliasDomain>,
    /// Zones that are copied from primaries, and have no file.
    pub secondary: Vec<Name>,
    /// Zones that clients change by updates: a file is their first content.
    pub dynamic: Vec<Name>,
    /// Default TTL of records, in seconds.
    pub ttl: u32,
}

impl Rules {
    /// Parses a zone file and checks it against these settings.
    ///
    /// # Errors
    /// Every problem of the file.
    pub fn parse(&self, path: &Path, octets: &[u8]) -> Result<ZoneFile, Vec<Diagnostic>> {
        let mut file = zone_file::parse(path, octets, self.ttl)?;
        let alias = self.aliases.iter().find(|alias| alias.domain == file.origin);
        if alias.is_some_and(|alias| alias.scheme == NameScheme::Muster) {
            let problem = Diagnostic::whole(path, format!("{} is an alias of {}", file.origin, self.domain));
            return Err(vec![problem.with_hint(format!("put its records into {}zone", self.domain))]);
        }
        if self.secondary.contains(&file.origin) {
            let problem = Diagnostic::whole(
                path,
                format!("`dns.secondary` has {}: it is copied from its primaries", file.origin),
            );
            return Err(vec![problem.with_hint("remove the file, or the zone from `dns.secondary`")]);
        }
        if self.dynamic.contains(&file.origin) {
            let message = format!(
                "`dns.dynamic` has {}: the file is its first content, and is not read once the zone has content",
                file.origin
            );
            let hint = "remove the file once `muster zone show` has its records";
            file.warnings.push(Diagnostic::whole(path, message).with_hint(hint).as_warning());
        }
        let problems = self.too_long_for_aliases(path, &file);
        if !problems.is_empty() {
            return Err(problems);
        }
        // Targets in a zone with live names may be services, whose records change.
        if alias.is_none() && file.origin != self.domain {
            let problems = file.check_apex(path);
            if !problems.is_empty() {
                return Err(problems);
            }
            file.warnings.extend(file.check_targets(path));
        }
        // An editor may have truncated the file and be about to write it. Other zones have at least an SOA here.
        if file.records.is_empty() {
            let problem =
                Diagnostic::whole(path, "the file has no records").with_hint("delete the file to withdraw its records");
            return Err(vec![problem.as_warning()]);
        }
        Ok(file)
    }

    /// Reports names in RDATA of the discovery zone that are too long with an alias in place of the domain.
    fn too_long_for_aliases(&self, path: &Path, file: &ZoneFile) -> Vec<Diagnostic> {
        let same = self.aliases.iter().filter(|alias| alias.scheme == NameScheme::Muster);
        let longest = same.map(|alias| &alias.domain).max_by_key(|alias| alias.wire().len());
        let Some(alias) = longest.filter(|_| file.origin == self.domain) else { return Vec::new() };
        let target = |record: &StaticRecord| {
            let name = record.rdata.get(target_at(record.rtype)?..)?;
            let relative = name.len().checked_sub(self.domain.wire().len())?;
            name[relative..].eq_ignore_ascii_case(self.domain.wire()).then_some(())?;
            (relative + alias.wire().len() > MAX_NAME).then_some((record.line, record.column))
        };
        let problem = |(line, column)| {
            let message = format!("a name in this record exceeds {MAX_NAME} octets in the alias domain {alias}");
            let problem = Diagnostic::at(path, line, column, message);
            file.files.located(problem.with_hint("shorten the name or the alias domain"))
        };
        file.records.iter().filter_map(target).map(problem).collect()
    }

    /// Reports static names that names of a node and its services hide.
    pub fn conflicts(
        &self,
        path: &Path,
        file: &ZoneFile,
        node: &KnownNode,
        services: &BTreeSet<RegisteredName>,
    ) -> Vec<Diagnostic> {
        let aliases = || self.aliases.iter().map(|alias| (&alias.domain, alias.scheme));
        let domains = || std::iter::once((&self.domain, NameScheme::Muster)).chain(aliases());
        let mut reported = BTreeSet::new();
        let mut problems = Vec::new();
        for record in &file.records {
            let live = |(domain, scheme)| live_name_at(&record.owner, domain, scheme, node, services);
            if let Some(live) = domains().find_map(live).filter(|_| reported.insert(&record.owner)) {
                let problem = Diagnostic::at(path, record.line, record.column, format!("{} is {live}", record.owner));
                problems.push(file.files.located(problem.with_hint(live.hint())));
            }
        }
        problems
    }
}

/// Merges zone files. If two files hold one zone, the file that sorts first wins.
pub fn merge<'a>(files: impl Iterator<Item = (&'a Path, &'a Arc<ZoneFile>)>) -> (ZoneFiles, Vec<Diagnostic>) {
    let mut kept: BTreeMap<&Name, (&Path, &Arc<ZoneFile>)> = BTreeMap::new();
    let mut problems = Vec::new();
    for (path, file) in files {
        if let Some((first, _)) = kept.get(&file.origin) {
            let message = format!("the zone {} is already defined in {}", file.origin, printable::path(first));
            problems.push(Diagnostic::whole(path, message).with_hint("keep each zone in one file"));
        } else {
            kept.insert(&file.origin, (path, file));
        }
    }
    (kept.into_values().map(|(_, file)| file.clone()).collect(), problems)
}

/// Parser of the zones folder.
pub struct Zones {
    rules: Rules,
    files: LastGood<ZoneFile>,
}

impl Zones {
    /// Creates a parser without files.
    pub fn new(rules: Rules) -> Self {
        Self { rules, files: LastGood::new() }
    }
}

impl Reloadable for Zones {
    type Value = ZoneFiles;

    fn restore(&mut self, former: Vec<LastValidFile>) {
        self.files.restore(former);
    }

    fn load(&mut self, contents: &Contents) -> Loaded<ZoneFiles> {
        self.files.update(contents, |path, octets| self.rules.parse(path, octets));
        let (value, across) = merge(self.files.values());
        let warnings = self.files.values().flat_map(|(_, file)| &file.warnings);
        let problems =
            self.files.problems().chain(warnings).cloned().chain(across).chain(self.files.consequences()).collect();
        let summary = format!("{} zone{}", value.len(), if value.len() == 1 { "" } else { "s" });
        let last_valid = self.files.last_valid();
        Loaded { value, summary, problems, last_valid }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::name::label;

    fn rules(alias: &str) -> Rules {
        Rules {
            domain: Name::parse("service.local").unwrap(),
            aliases: vec![AliasDomain::new(Name::parse(alias).unwrap())],
            secondary: vec![Name::parse("copied.test").unwrap()],
            dynamic: vec![Name::parse("dyn.test").unwrap()],
            ttl: 5,
        }
    }

    #[test]
    fn names_must_fit_under_every_alias() {
        let long = vec!["a".repeat(60); 3].join(".");
        let text = format!("c CNAME {long}\n");
        let read = |alias: &str| rules(alias).parse(Path::new("service.local.zone"), text.as_bytes());
        assert!(read("svc.example").is_ok());
        let problems = read(&format!("{}.{}", "b".repeat(60), "c".repeat(20))).unwrap_err();
        assert_eq!(problems.len(), 1);
        assert!(
            problems[0].to_string().starts_with("service.local.zone:1:1: a name in this record exceeds 255 octets")
        );
        assert!(rules("svc.example").parse(Path::new("svc.example.zone"), b"a A 10.0.0.1\n").is_err());
    }

    #[test]
    fn secondary_zone_has_no_file() {
        let problems = rules("svc.example").parse(Path::new("copied.test.zone"), b"a A 10.0.0.1\n").unwrap_err();
        let expected = "copied.test.zone:1:1: `dns.secondary` has copied.test.: it is copied from its primaries (remove the file, or \
                        the zone from `dns.secondary`)";
        assert_eq!(problems[0].to_string(), expected);
    }

    #[test]
    fn file_of_a_dynamic_zone_has_a_warning() {
        let text = b"@ SOA ns h 1 1 1 1 1\n@ NS ns\nns A 10.0.0.1\n";
        let file = rules("svc.example").parse(Path::new("dyn.test.zone"), text).unwrap();
        let expected = "dyn.test.zone:1:1: warning: `dns.dynamic` has dyn.test.: the file is its first content, and is not read once the \
                        zone has content (remove the file once `muster zone show` has its records)";
        assert_eq!(file.warnings[0].to_string(), expected);
    }

    #[test]
    fn alias_with_the_scheme_of_consul_has_a_file() {
        let domain = Name::parse("service.local").unwrap();
        let rules = Rules {
            domain,
            aliases: vec![AliasDomain::consul(Name::parse("consul").unwrap())],
            secondary: Vec::new(),
            dynamic: Vec::new(),
            ttl: 5,
        };
        let file = rules.parse(Path::new("consul.zone"), b"vault A 10.0.0.9\nweb.service A 10.0.0.9\n").unwrap();
        let services = BTreeSet::from([RegisteredName::parse("web").unwrap(), RegisteredName::parse("vault").unwrap()]);
        let node = KnownNode { name: label("host-a"), datacenter: label("dc1") };
        let conflicts = rules.conflicts(Path::new("consul.zone"), &file, &node, &services);
        assert_eq!(conflicts.len(), 1, "{conflicts:?}");
        assert!(
            conflicts[0].to_string().starts_with("consul.zone:2:1: web.service.consul. is a name of the service `web`")
        );
    }

    #[test]
    fn file_without_records_is_refused() {
        for text in ["", "\n", "; nothing\n", "$TTL 5\n"] {
            let read = |name: &str| rules("svc.example").parse(Path::new(name), text.as_bytes()).unwrap_err();
            let problems = read("service.local.zone");
            assert_eq!(problems.len(), 1, "{text:?}");
            let expected =
                "service.local.zone:1:1: warning: the file has no records (delete the file to withdraw its records)";
            assert_eq!(problems[0].to_string(), expected, "{text:?}");
            assert!(read("example.org.zone").iter().any(Diagnostic::is_error), "{text:?}: it has no SOA");
        }
    }

    #[test]
    fn first_file_by_name_wins_a_duplicate_zone() {
        let file = |path: &str| Arc::new(zone_file::parse(Path::new(path), b"a A 10.0.0.1\n", 5).unwrap());
        let files = [("Example.org.zone", file("Example.org.zone")), ("example.org.zone", file("example.org.zone"))];
        let (kept, problems) = merge(files.iter().map(|(path, file)| (Path::new(*path), file)));
        assert_eq!((kept.len(), problems.len()), (1, 1));
        assert_eq!(problems[0].path, Path::new("example.org.zone"));
    }
}
