//! `muster validate`: everything that is wrong with some files, before the agent reads them.
//!
//! What a PATH is shows in its name and content. A folder stands for the `*.yaml` and `*.yml` in it. A YAML file is
//! configuration if its keys are rather the configuration's than a service's. The configuration files of one folder
//! are one configuration, as for `agent --config FOLDER`; with it come the service files of its `services_dir`.
//!
//! Service files that are named without their configuration are taken for those of one node with the first
//! configuration that is named. If there is none, they get the default one, except that `exec` checks are let through:
//! they may be right where the files belong.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::{
    Exit,
    environment::environment,
    sources::{Text, folder, has_extension, read},
};
use crate::{
    config::{CONFIG_KEYS, Config, DEFAULT_PATH, Environment},
    diagnostic::Problem,
    files::{
        definitions,
        service_file::{self, Defaults, Located, SERVICE_KEYS},
    },
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
    problems: Vec<Problem>,
    /// What kept a file from being read at all.
    unread: Vec<String>,
    read: BTreeSet<PathBuf>,
}

impl Report {
    /// Reads a file and counts it. What the parser has to say about its content is for the caller.
    fn read(&mut self, path: &Path) -> Option<Text> {
        match read(path) {
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

fn check(paths: &[PathBuf], environment: &Environment, report: &mut Report) {
    let mut configurations: Vec<Vec<Text>> = Vec::new();
    let mut services: Vec<Text> = Vec::new();
    for path in paths {
        let mut configuration = Vec::new();
        for text in texts(path, report) {
            match is_configuration(&text) {
                Ok(true) if path.is_dir() && !has_extension(&text.path, "yaml") => {
                    let problem = Problem::whole(&text.path, "in a folder of configuration this file is not read");
                    report.problems.push(problem.with_hint("rename it: its name has to end in `.yaml`").as_warning());
                }
                Ok(true) => configuration.push(text),
                Ok(false) => services.push(text),
                Err(problem) => report.problems.push(problem),
            }
        }
        if !configuration.is_empty() {
            configurations.push(configuration);
        }
    }
    let mut first = None;
    let mut seen = BTreeSet::new();
    for texts in &configurations {
        match Config::parse(texts.iter().map(|text| (text.path.as_path(), text.bytes.as_slice())), environment) {
            Ok(config) => {
                let services = services_of(&config, &texts[0].path, report);
                seen.extend(services.iter().filter_map(|text| text.path.canonicalize().ok()));
                check_services(&services, &config, report);
                first.get_or_insert(config);
            }
            Err(problems) => report.problems.extend(problems),
        }
    }
    services.retain(|text| text.path.canonicalize().is_ok_and(|path| !seen.contains(&path)));
    match first.map_or_else(|| without_configuration(environment), Ok) {
        Ok(config) => check_services(&services, &config, report),
        Err(problems) => report.problems.extend(problems),
    }
}

/// The file itself, or the YAML files of a folder.
fn texts(path: &Path, report: &mut Report) -> Vec<Text> {
    if !path.is_dir() {
        return report.read(path).into_iter().collect();
    }
    match folder(path) {
        Ok(files) => {
            let is_yaml = |file: &&PathBuf| has_extension(file, "yaml") || has_extension(file, "yml");
            files.iter().filter(is_yaml).filter_map(|file| report.read(file)).collect()
        }
        Err(error) => {
            report.unreadable(path, &error);
            Vec::new()
        }
    }
}

/// Whether a YAML file is configuration; else it holds services. The problem: it cannot be read as YAML.
fn is_configuration(text: &Text) -> Result<bool, Problem> {
    let document = Document::read(&text.path, &text.bytes, 0)?;
    let Value::Table(entries) = &document.root().value else { return Ok(false) };
    let count = |keys: &[&str]| entries.iter().filter(|entry| keys.contains(&&*entry.key)).count();
    let has_services = count(&["service", "services"]) > 0;
    // The key `checks` is in both: alone it is configuration, `checks: {allow_exec: true}`.
    Ok(!has_services && count(CONFIG_KEYS) > 0 && count(CONFIG_KEYS) >= count(SERVICE_KEYS))
}

fn services_of(config: &Config, named_in: &Path, report: &mut Report) -> Vec<Text> {
    let folder = &config.services_dir;
    if !folder.exists() {
        let problem = Problem::whole(named_in, format!("there is no folder {}", folder.display()));
        report.problems.push(problem.with_hint("`services_dir` names it").as_warning());
        return Vec::new();
    }
    texts(folder, report)
}

/// What service files are judged by whose node is not known.
fn without_configuration(environment: &Environment) -> Result<Config, Vec<Problem>> {
    let mut config = Config::dev(Path::new(""), environment)?;
    config.checks.allow_exec = true;
    Ok(config)
}

/// The service files of one node, each by itself and then together.
fn check_services(texts: &[Text], config: &Config, report: &mut Report) {
    let defaults = Defaults { node: &config.node, addresses: &config.advertise, allow_exec: config.checks.allow_exec };
    let mut files: Vec<(&Path, Vec<Located>)> = Vec::new();
    for text in texts {
        match service_file::parse(&text.path, &text.bytes, &defaults) {
            Ok(file) => {
                report.problems.extend(file.warnings);
                files.push((&text.path, file.entries));
            }
            Err(problems) => report.problems.extend(problems),
        }
    }
    let (_, problems) = definitions::merge(files.iter().map(|(path, entries)| (*path, entries.as_slice())));
    report.problems.extend(problems);
}
