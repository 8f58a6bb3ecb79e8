//! `muster validate`: everything that is wrong with some files, before the agent reads them.
//!
//! What a PATH is shows in its name and content. A folder stands for the `*.yaml`, `*.yml` and `*.zone` in it, and other files
//! in a folder of service, zone or token files are listed as ignored, by the agent's rule ([`Folder::ignores`]). A YAML
//! file is configuration if its keys are rather the configuration's than a service's. The configuration files of one
//! folder are one configuration, as for `agent --config FOLDER`; with it come the files of its `services_dir` and its
//! `zones_dir`, and what else it names.
//!
//! Service and zone files that are named without their configuration are taken for those of one node with the first
//! configuration that is named. If there is none, they get the default one, except that `exec` checks are let through:
//! they may be right where the files belong.

mod referenced;

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Exit,
    host_defaults::environment,
    inputs::{Text, folder, has_extension, read},
};
use crate::{
    config::{CONFIG_KEYS, Config, DEFAULT_PATH, Environment},
    diagnostic::Diagnostic,
    files::{
        contents::{Folder, FolderError},
        definitions,
        service_file::{self, Defaults, Located, MAX_FILE, SERVICE_KEYS},
        services,
        zone_file::{MAX_ZONE_FILE, ZoneFile},
        zones::{self, Rules},
    },
    model::name::Label,
    yaml::{Document, tree::Value},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Files and folders [default: /etc/muster/muster.yaml]
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
}

/// Prints the problems in the order of their places, then how many there are.
pub(super) fn run(args: &Args) -> Exit {
    let mut report = Report::default();
    if args.paths.is_empty() {
        check(&[PathBuf::from(DEFAULT_PATH)], &environment(), &mut report);
        if !report.unread.is_empty() {
            report.unread.push("Name what to check: muster validate PATH...\n".to_owned());
        }
    } else {
        check(&args.paths, &environment(), &mut report);
    }
    report.print()
}

/// What was found.
#[derive(Default)]
struct Report {
    problems: Vec<Diagnostic>,
    /// What kept a file from being read at all.
    unread: Vec<String>,
    read: BTreeSet<PathBuf>,
}

impl Report {
    /// Reads a file and counts it. What the parser has to say about its content is for the caller.
    fn read(&mut self, path: &Path) -> Option<Text> {
        match read(path, if is_zone(path) { MAX_ZONE_FILE } else { MAX_FILE }) {
            Ok(text) => {
                self.read.insert(path.to_owned());
                Some(text)
            }
            Err(error) => {
                self.unreadable(path, &error);
                None
            }
        }
    }

    fn unreadable(&mut self, path: &Path, error: &io::Error) {
        self.unread.push(format!("muster: cannot read {}: {error}\n", path.display()));
    }

    /// Warns of the files that the agent does not read. A folder that cannot be listed is reported by who reads its files.
    fn ignored(&mut self, folder: &Folder) {
        let names = fs::read_dir(&folder.path).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let ignored = names.filter(|name| folder.ignores(name));
        let problem = |name| FolderError::Ignored(name, folder.extensions).at(&folder.path);
        self.problems.extend(ignored.map(problem));
    }

    fn print(mut self) -> Exit {
        self.problems.sort();
        // A file may have been looked at for two configurations.
        self.problems.dedup();
        let errors = self.problems.iter().filter(|problem| problem.is_error()).count();
        let warnings = self.problems.len() - errors;
        let mut out: String = self.problems.iter().map(|problem| format!("{problem}\n")).collect();
        if !self.read.is_empty() {
            let errors = if errors == 0 { "no problems".to_owned() } else { count(errors, "problem") };
            let warnings = if warnings == 0 { String::new() } else { format!(", {}", count(warnings, "warning")) };
            out.push_str(&format!("{} checked: {errors}{warnings}\n", count(self.read.len(), "file")));
        }
        // Whoever does not read what is printed gets the exit code.
        let _ = io::stdout().write_all(out.as_bytes());
        let _ = io::stderr().write_all(self.unread.concat().as_bytes());
        match (self.unread.len(), errors) {
            (1.., _) => Exit::CouldNotRun,
            (0, 1..) => Exit::Problems,
            (0, 0) => Exit::Done,
        }
    }
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn is_zone(path: &Path) -> bool {
    has_extension(path, "zone")
}

fn check(paths: &[PathBuf], environment: &Environment, report: &mut Report) {
    let mut configurations: Vec<Vec<Text>> = Vec::new();
    let mut loose = Files::default();
    for path in paths {
        let configuration = sort(path, &mut loose, report);
        if !configuration.is_empty() {
            configurations.push(configuration);
        }
    }
    let mut first: Option<(Config, BTreeSet<Label>)> = None;
    let mut seen = BTreeSet::new();
    for texts in &configurations {
        match Config::parse(texts.iter().map(|text| (text.path.as_path(), text.bytes.as_slice())), environment) {
            Ok(config) => {
                referenced::check(&config, report);
                let files = Files::of(&config, &texts[0].path, report);
                seen.extend(files.paths());
                let services = files.check(&config, BTreeSet::new(), report);
                first.get_or_insert((config, services));
            }
            Err(problems) => report.problems.extend(problems),
        }
    }
    loose.forget(&seen);
    match first.map_or_else(|| without_configuration(environment), Ok) {
        Ok((config, services)) => drop(loose.check(&config, services, report)),
        Err(problems) => report.problems.extend(problems),
    }
}

/// Puts a PATH's service and zone files to the others, and returns its configuration.
fn sort(path: &Path, files: &mut Files, report: &mut Report) -> Vec<Text> {
    let mut configuration = Vec::new();
    let before = files.len();
    for text in texts(path, |_| true, report) {
        if is_zone(&text.path) {
            files.zones.push(text);
            continue;
        }
        match is_configuration(&text) {
            Ok(true) if path.is_dir() && !has_extension(&text.path, "yaml") => {
                let problem = Diagnostic::whole(&text.path, "in a folder of configuration this file is not read");
                report.problems.push(problem.with_hint("rename it: its name has to end in `.yaml`").as_warning());
            }
            Ok(true) => configuration.push(text),
            Ok(false) => files.services.push(text),
            Err(problem) => report.problems.push(problem),
        }
    }
    // The folder of a whole configuration, or of a whole project, holds other files for good reasons.
    if configuration.is_empty() && files.len() > before && path.is_dir() {
        report.ignored(&Folder { extensions: &["yaml", "yml", "zone"], ..services::folder(path.to_owned()) });
    }
    configuration
}

/// The file itself, or those files of a folder that are `wanted`.
fn texts(path: &Path, wanted: impl Fn(&Path) -> bool, report: &mut Report) -> Vec<Text> {
    if !path.is_dir() {
        return report.read(path).into_iter().collect();
    }
    match folder(path) {
        Ok(files) => {
            let is_ours = |file: &Path| is_zone(file) || has_extension(file, "yaml") || has_extension(file, "yml");
            let files = files.iter().filter(|file| is_ours(file) && wanted(file));
            files.filter_map(|file| report.read(file)).collect()
        }
        Err(error) => {
            report.unreadable(path, &error);
            Vec::new()
        }
    }
}

/// Whether a YAML file is configuration; else it holds services. The problem: it cannot be read as YAML.
fn is_configuration(text: &Text) -> Result<bool, Diagnostic> {
    let document = Document::read(&text.path, &text.bytes, 0)?;
    let Value::Table(entries) = &document.root().value else { return Ok(false) };
    let count = |keys: &[&str]| entries.iter().filter(|entry| keys.contains(&&*entry.key)).count();
    let has_services = count(&["service", "services"]) > 0;
    // The key `checks` is in both: alone it is configuration, `checks: {allow_exec: true}`.
    Ok(!has_services && count(CONFIG_KEYS) > 0 && count(CONFIG_KEYS) >= count(SERVICE_KEYS))
}

/// What service and zone files are with_shadowed by whose node is not known.
fn without_configuration(environment: &Environment) -> Result<(Config, BTreeSet<Label>), Vec<Diagnostic>> {
    let mut config = Config::dev(Path::new(""), environment)?;
    config.checks.allow_exec = true;
    Ok((config, BTreeSet::new()))
}

/// The files of one node.
#[derive(Default)]
struct Files {
    services: Vec<Text>,
    zones: Vec<Text>,
}

impl Files {
    /// Those in the folders of a configuration, which is in the file `named_in`.
    fn of(config: &Config, named_in: &Path, report: &mut Report) -> Self {
        let folder = &config.services_dir;
        if !folder.exists() {
            let problem = Diagnostic::whole(named_in, format!("there is no folder {}", folder.display()));
            report.problems.push(problem.with_hint("`services_dir` names it").as_warning());
        }
        let (of_services, of_zones) = (services::folder(folder.clone()), zones::folder(config.zones_dir.clone()));
        report.ignored(&of_services.clone().beside(&of_zones));
        report.ignored(&of_zones.beside(&of_services));
        // Nobody has to have static zones.
        let mut texts = |folder: &Path, zones: bool| {
            if folder.exists() { texts(folder, |file| is_zone(file) == zones, report) } else { Vec::new() }
        };
        Self { services: texts(folder, false), zones: texts(&config.zones_dir, true) }
    }

    fn len(&self) -> usize {
        self.services.len() + self.zones.len()
    }

    /// Where they really are.
    fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.services.iter().chain(&self.zones).filter_map(|text| text.path.canonicalize().ok())
    }

    fn forget(&mut self, paths: &BTreeSet<PathBuf>) {
        let is_new = |text: &Text| text.path.canonicalize().is_ok_and(|path| !paths.contains(&path));
        self.services.retain(is_new);
        self.zones.retain(is_new);
    }

    /// Checks each file by itself and then all together. `services` are those of the node that are known already; those
    /// of the files are added to them.
    fn check(&self, config: &Config, mut services: BTreeSet<Label>, report: &mut Report) -> BTreeSet<Label> {
        let defaults =
            Defaults { node: &config.node, addresses: &config.advertise, allow_exec: config.checks.allow_exec };
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
        let rules = Rules { domain: config.domain.clone(), aliases: config.alias_domains.clone(), ttl: config.dns.ttl };
        let mut zones: Vec<(&Path, Arc<ZoneFile>)> = Vec::new();
        for text in &self.zones {
            match rules.parse(&text.path, &text.bytes) {
                Ok(zone) => {
                    report.problems.extend(zone.warnings.iter().cloned());
                    report.problems.extend(rules.taken(&text.path, &zone, &services));
                    zones.push((&text.path, Arc::new(zone)));
                }
                Err(problems) => report.problems.extend(problems),
            }
        }
        let (_, problems) = zones::merge(zones.iter().map(|(path, zone)| (*path, zone)));
        report.problems.extend(problems);
        services
    }
}
