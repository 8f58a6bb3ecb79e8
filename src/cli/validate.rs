//! `muster validate`: reports all problems of files before the agent reads them.
//!
//! Name and content of a PATH determine its kind:
//! - A folder stands for the YAML and zone files in it, except zone files that others include. Other files in a folder of service, zone or token
//!   files are reported as ignored, by the agent's rule ([`Folder::ignores`]).
//! - A YAML file is a configuration if it names no service and has at least as many keys of a configuration as of a service.
//! - The configuration files of one folder form one configuration, as for `agent --config FOLDER`. The files that a
//!   configuration names are checked with it: `services_dir`, `zones_dir`, keys, tokens, certificates.
//! - Service and zone files outside these folders are checked as files of one node with the first configuration. Without
//!   a configuration, the default one applies, with `exec` checks allowed: the files' node may allow them.

mod referenced;
mod signed_zones;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Exit,
    host_defaults::environment,
    input_files::{Text, folder, has_extension, read},
    output::print,
};
use crate::{
    config::{AllowExec, CONFIG_KEYS, Config, DEFAULT_PATH, Environment},
    diagnostic::Diagnostic,
    files::{
        access,
        contents::{Access, Exposure, FileKind, Folder, FolderError, ReadError},
        definitions,
        live_names::KnownNode,
        read::read_included,
        service_file::{self, Defaults, Located, MAX_FILE, SERVICE_KEYS},
        services,
        zone_file::{self, MAX_ZONE_FILE},
        zones,
    },
    model::{registered_name::RegisteredName, zone::ZoneFile},
    printable,
    yaml::{Document, tree::Value},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Files and folders to check [default: /etc/muster/muster.yaml]
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
}

/// Prints the problems sorted by position, then their number.
pub(super) fn run(args: &Args) -> Exit {
    let mut report = Report::default();
    if args.paths.is_empty() {
        check(&[PathBuf::from(DEFAULT_PATH)], &environment(), &mut report);
        if !report.unread.is_empty() {
            report.unread.push("To check other files: muster validate PATH...\n".to_owned());
        }
    } else {
        check(&args.paths, &environment(), &mut report);
    }
    report.report_if_nothing_read();
    report.print()
}

/// Findings of all checks.
#[derive(Default)]
struct Report {
    problems: Vec<Diagnostic>,
    /// Messages about files that could not be read.
    unread: Vec<String>,
    read: BTreeSet<PathBuf>,
    /// Folders without a file to read.
    empty: Vec<PathBuf>,
    /// Files that each zone file includes, by their paths below its folder.
    included: BTreeMap<PathBuf, Vec<PathBuf>>,
}

impl Report {
    /// Reads a file and counts it as checked.
    fn read(&mut self, path: &Path) -> Option<Text> {
        match read(path, if is_zone(path) { MAX_ZONE_FILE } else { MAX_FILE }) {
            Ok(text) => {
                self.read.insert(path.to_owned());
                Some(if is_zone(path) { self.with_included(text) } else { text })
            }
            Err(error) => {
                self.unreadable(path, &error);
                None
            }
        }
    }

    /// Adds the files that a zone file includes to its text.
    fn with_included(&mut self, text: Text) -> Text {
        let folder = text.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let read = |path: &Path| read_included(folder, path, MAX_ZONE_FILE as u64).text;
        let collected = zone_file::collect(text.path.parent().unwrap_or(folder), text.bytes.as_slice().into(), read);
        self.included.insert(text.path.clone(), collected.included);
        Text { bytes: collected.text.to_vec(), ..text }
    }

    /// Removes the zone files of a folder that others include.
    fn remove_included(&mut self, texts: &mut Vec<Text>) {
        let name = |path: &Path| path.file_name().map(PathBuf::from).unwrap_or_default();
        let named: Vec<(PathBuf, &[PathBuf])> = texts
            .iter()
            .filter_map(|text| Some((name(&text.path), self.included.get(&text.path)?.as_slice())))
            .collect();
        let included = zone_file::included_only(named.iter().map(|(name, paths)| (name.as_path(), *paths)));
        let removed: BTreeSet<PathBuf> = included.into_iter().map(Path::to_owned).collect();
        texts.retain(|text| !removed.contains(&name(&text.path)));
    }

    /// Reports the permissions of a file in a folder, and an entry that is no file. Returns false if the agent does not read the file.
    fn admits(&mut self, path: &Path, required: Access, is_open: bool) -> bool {
        match access::admit_unopened(path, required, is_open) {
            Ok(found) => {
                self.problems.extend(found.map(|found| found.at(path)));
                true
            }
            // Reported when it is read: this user may have fewer permissions than the agent.
            Err(ReadError::Absent | ReadError::Denied | ReadError::Io(_)) => true,
            Err(error) => {
                self.problems.push(error.at(path));
                false
            }
        }
    }

    fn unreadable(&mut self, path: &Path, error: &io::Error) {
        self.unread.push(format!("muster: cannot read {}: {error}\n", printable::path(path)));
    }

    /// Reports the folders without a file to read, if no file was read at all. An empty folder of zones beside a folder of
    /// service files is usual.
    fn report_if_nothing_read(&mut self) {
        if !self.read.is_empty() {
            return;
        }
        for path in std::mem::take(&mut self.empty) {
            let problem = "no configuration, service or zone file in this folder (subfolders are not read)";
            self.unread.push(format!("muster: {}: {problem}\n", printable::path(&path)));
            self.warn_of_ignored(&any_files(path));
        }
    }

    /// Reports subfolders with the name of a file to read.
    fn refuse_subfolders(&mut self, folder: &Folder) {
        let entries = fs::read_dir(&folder.path).into_iter().flatten().flatten();
        let named = entries.filter(|entry| folder.reads(&entry.file_name()) && entry.path().is_dir());
        self.problems.extend(named.map(|entry| ReadError::NotAFile.at(&folder.path.join(entry.file_name()))));
    }

    /// Warns of files that the agent ignores. Skips an unreadable folder, which is reported when its files are read.
    fn warn_of_ignored(&mut self, folder: &Folder) {
        let names = fs::read_dir(&folder.path).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let of_folder = self.included.iter().filter(|(file, _)| file.parent() == Some(&folder.path));
        let included: Vec<&PathBuf> = of_folder.flat_map(|(_, paths)| paths).collect();
        let is_included = |name: &OsString| included.iter().any(|path| path.starts_with(name));
        let ignored = names.filter(|name| folder.ignores(name) && !is_included(name));
        let problem = |name| FolderError::Ignored(name, folder.kind).at(&folder.path);
        self.problems.extend(ignored.map(problem));
    }

    /// Warns if this host has no address that an agent with this configuration could advertise.
    fn warn_of_addresses(&mut self, config: &Config, environment: &Environment, path: &Path) {
        if let Some(problem) = config.address_problem(&environment.addresses) {
            let warning = Diagnostic::whole(path, problem.to_string()).with_hint(problem.hint()).as_warning();
            self.problems.push(warning);
        }
    }

    fn print(mut self) -> Exit {
        self.problems.sort();
        // A file may belong to two configurations.
        self.problems.dedup();
        let errors = self.problems.iter().filter(|problem| problem.is_error()).count();
        let warnings = self.problems.len() - errors;
        let mut out: String = self.problems.iter().map(|problem| format!("{problem}\n")).collect();
        if !self.read.is_empty() {
            let errors = if errors == 0 { "no problems".to_owned() } else { count(errors, "problem") };
            let warnings = if warnings == 0 { String::new() } else { format!(", {}", count(warnings, "warning")) };
            out.push_str(&format!("{} checked: {errors}{warnings}\n", count(self.read.len(), "file")));
        }
        print(&out);
        let _ = io::stderr().write_all(self.unread.concat().as_bytes());
        match (self.unread.len(), errors) {
            (1.., _) => Exit::CouldNotRun,
            (0, 1..) => Exit::Problems,
            (0, 0) => Exit::Done,
        }
    }
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn is_zone(path: &Path) -> bool {
    path.file_name().is_some_and(|name| FileKind::Zone.has(name))
}

fn check(paths: &[PathBuf], environment: &Environment, report: &mut Report) {
    let mut configurations: Vec<Vec<Text>> = Vec::new();
    let mut loose = Files::default();
    for path in paths {
        let configuration = classify(path, &mut loose, report);
        if !configuration.is_empty() {
            configurations.push(configuration);
        }
    }
    let mut first: Option<(Config, BTreeSet<RegisteredName>)> = None;
    let mut seen = BTreeSet::new();
    for texts in &configurations {
        match Config::parse(texts.iter().map(|text| (text.path.as_path(), text.bytes.as_slice())), environment) {
            Ok(config) => {
                report.warn_of_addresses(&config, environment, &texts[0].path);
                referenced::check(&config, report);
                let files = Files::of(&config, &texts[0].path, report);
                let zones = files.zones.iter().filter_map(|text| zone_file::origin_of(&text.path).ok());
                signed_zones::check_zones(&config, &texts[0].path, zones, report);
                seen.extend(files.paths());
                let services = files.check(&config, Some(&texts[0].path), BTreeSet::new(), report);
                first.get_or_insert((config, services));
            }
            Err(problems) => report.problems.extend(problems),
        }
    }
    loose.remove(&seen);
    match first.map_or_else(|| without_configuration(environment), Ok) {
        Ok((config, services)) => drop(loose.check(&config, None, services, report)),
        Err(problems) => report.problems.extend(problems),
    }
}

/// A folder of files of any kind.
fn any_files(path: PathBuf) -> Folder {
    Folder { kind: FileKind::Any, ..services::folder(path, false) }
}

/// Adds the service and zone files of a PATH to `files`, and returns its configuration files.
fn classify(path: &Path, files: &mut Files, report: &mut Report) -> Vec<Text> {
    let mut configuration = Vec::new();
    let before = files.len();
    for text in texts(path, Access::Content, |file| !file.is_dir(), report) {
        if is_zone(&text.path) {
            files.zones.push(text);
            continue;
        }
        match is_configuration(&text) {
            Ok(true) if path.is_dir() && !has_extension(&text.path, "yaml") => {
                let problem = Diagnostic::whole(&text.path, "ignored: the agent reads configuration from *.yaml only");
                report.problems.push(problem.with_hint("rename it to end in `.yaml`").as_warning());
            }
            Ok(true) => configuration.push(text),
            Ok(false) => files.services.push(text),
            Err(problem) => report.problems.push(problem),
        }
    }
    // The folder of a configuration or a project may contain any other files.
    if configuration.is_empty() && files.len() > before && path.is_dir() {
        let folder = any_files(path.to_owned());
        report.warn_of_ignored(&folder);
        report.refuse_subfolders(&folder);
    }
    configuration
}

/// Reads a file, or the YAML and zone files of a folder that `wanted` accepts and whose permissions are as `required`.
fn texts(path: &Path, required: Access, wanted: impl Fn(&Path) -> bool, report: &mut Report) -> Vec<Text> {
    if !path.is_dir() {
        return report.read(path).into_iter().collect();
    }
    match folder(path) {
        Ok(files) => {
            let is_known = |file: &Path| is_zone(file) || has_extension(file, "yaml") || has_extension(file, "yml");
            let files: Vec<_> = files.iter().filter(|file| is_known(file) && wanted(file)).collect();
            if files.is_empty() {
                report.empty.push(path.to_owned());
            }
            let is_open = access::is_open_folder(path);
            if is_open {
                report.problems.push(Exposure::OpenFolder.at(path));
            }
            let mut read = |file: &Path| if report.admits(file, required, is_open) { report.read(file) } else { None };
            let mut texts: Vec<Text> = files.into_iter().filter_map(|file| read(file)).collect();
            report.remove_included(&mut texts);
            texts
        }
        Err(error) => {
            report.unreadable(path, &error);
            Vec::new()
        }
    }
}

/// Reports whether a YAML file is a configuration rather than a service file.
///
/// # Errors
/// The text is not YAML.
fn is_configuration(text: &Text) -> Result<bool, Diagnostic> {
    let document = Document::read(&text.path, &text.bytes, 0)?;
    let Value::Table(entries) = &document.root().value else { return Ok(false) };
    let count = |keys: &[&str]| entries.iter().filter(|entry| keys.contains(&&*entry.key)).count();
    let has_services = count(&["service", "services"]) > 0;
    // The key `checks` belongs to both kinds. Alone, it is a configuration: `checks: {allow_exec: true}`.
    Ok(!has_services && count(CONFIG_KEYS) > 0 && count(CONFIG_KEYS) >= count(SERVICE_KEYS))
}

/// The configuration that checks service and zone files of an unknown node.
fn without_configuration(environment: &Environment) -> Result<(Config, BTreeSet<RegisteredName>), Vec<Diagnostic>> {
    let mut config = Config::dev(Path::new(""), environment)?;
    config.checks.allow_exec = AllowExec::Files;
    Ok((config, BTreeSet::new()))
}

/// The files of one node.
#[derive(Default)]
struct Files {
    services: Vec<Text>,
    zones: Vec<Text>,
}

impl Files {
    /// Reads the folders of a configuration, which was parsed from the file `config_path`.
    fn of(config: &Config, config_path: &Path, report: &mut Report) -> Self {
        let folder = &config.services_dir;
        if !folder.exists() {
            let problem =
                Diagnostic::whole(config_path, format!("the folder {} does not exist", printable::path(folder)));
            report.problems.push(problem.with_hint("`services_dir` names it").as_warning());
        }
        let (of_services, of_zones) = (
            services::folder(folder.clone(), config.checks.allow_exec.in_files()),
            zones::folder(config.zones_dir.clone()),
        );
        let trust = of_services.access;
        // Static zones are optional.
        let mut texts = |folder: &Path, required, zones: bool| {
            if folder.exists() { texts(folder, required, |file| is_zone(file) == zones, report) } else { Vec::new() }
        };
        let (services, zones) = (texts(folder, trust, false), texts(&config.zones_dir, Access::Content, true));
        report.warn_of_ignored(&of_services.clone().beside(&of_zones));
        report.warn_of_ignored(&of_zones.beside(&of_services));
        Self { services, zones }
    }

    fn len(&self) -> usize {
        self.services.len() + self.zones.len()
    }

    /// Canonical paths of the files.
    fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.services.iter().chain(&self.zones).filter_map(|text| text.path.canonicalize().ok())
    }

    /// Removes the files with these canonical paths.
    fn remove(&mut self, paths: &BTreeSet<PathBuf>) {
        let is_new = |text: &Text| text.path.canonicalize().is_ok_and(|path| !paths.contains(&path));
        self.services.retain(is_new);
        self.zones.retain(is_new);
    }

    /// Checks each file and then all files together, and the zones of the configuration at `config_path`. Returns `services`, the
    /// node's services known so far, and the services of the files.
    fn check(
        &self,
        config: &Config,
        config_path: Option<&Path>,
        mut services: BTreeSet<RegisteredName>,
        report: &mut Report,
    ) -> BTreeSet<RegisteredName> {
        let defaults = Defaults {
            node: &config.node,
            addresses: config.advertise.addresses(),
            allow_exec: config.checks.allow_exec.in_files(),
        };
        let mut files: Vec<(&Path, Vec<Located>)> = Vec::new();
        for text in &self.services {
            match service_file::parse(&text.path, &text.bytes, &defaults) {
                Ok(file) => {
                    report.problems.extend(file.warnings);
                    files.push((&text.path, file.entries));
                }
                Err(problems) => report.problems.extend(problems),
            }
        }
        let (definitions, problems) =
            definitions::merge(files.iter().map(|(path, entries)| (*path, entries.as_slice())));
        report.problems.extend(problems);
        services.extend(definitions.keys().map(|key| key.service.clone()));
        let rules = config.zone_rules();
        let node = KnownNode { name: config.node.clone(), datacenter: config.datacenter.clone() };
        let mut zones: Vec<(&Path, Arc<ZoneFile>)> = Vec::new();
        for text in &self.zones {
            match rules.parse(&text.path, &text.bytes) {
                Ok(zone) => {
                    report.problems.extend(zone.warnings.iter().cloned());
                    report.problems.extend(rules.conflicts(&text.path, &zone, &node, &services));
                    report.problems.extend(signed_zones::other_signer(config, &text.path, &zone));
                    zones.push((&text.path, Arc::new(zone)));
                }
                Err(problems) => report.problems.extend(problems),
            }
        }
        let (_, problems) = zones::merge(zones.iter().map(|(path, zone)| (*path, zone)));
        report.problems.extend(problems);
        report.problems.extend(signed_zones::problems_for_validators(config, config_path, &zones));
        services
    }
}
