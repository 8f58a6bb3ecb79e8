//! Checks of the zones in `dns.dnssec`: their keys, and that they exist.

use std::{collections::BTreeSet, fs, path::Path, sync::Arc};

use ring::rand::SystemRandom;

use super::Report;
use crate::{
    clock::unix_now,
    config::Config,
    diagnostic::Diagnostic,
    dns::{
        secondary::content::without_copy,
        update::content::Content,
        zone::{
            Settings, Tables,
            static_names::{StaticNames, Zone},
        },
    },
    files::{
        access,
        contents::{Contents, Exposure, Folder},
        dnssec_keys::KeyFiles,
        read::read,
    },
    model::{
        name::Name,
        zone::{CopyState, ZoneFile},
    },
};

/// Checks the keys of signed zones.
pub(super) fn check_keys(config: &Config, folder: &Folder, report: &mut Report) {
    report.warn_of_ignored(folder);
    let is_open = access::is_open_folder(&folder.path);
    if is_open {
        report.problems.push(Exposure::OpenFolder.at(&folder.path));
    }
    let mut contents = Contents::empty(&folder.path);
    let entries = fs::read_dir(&folder.path).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| folder.reads(&entry.file_name())) {
        let path = entry.path();
        if report.admits(&path, folder.access, is_open) {
            let text = read(&path, folder.limits.file);
            contents.files.insert(path, text.into());
        }
    }
    let keys = KeyFiles::new(config.dns.dnssec.clone(), Box::new(SystemRandom::new()));
    report.problems.extend(keys.problems(&contents));
}

/// Reports zones in `dns.dnssec` of the configuration at `path` that neither it nor a zone file has.
pub(super) fn check_zones(config: &Config, path: &Path, of_files: impl Iterator<Item = Name>, report: &mut Report) {
    let aliases = config.alias_domains.iter().map(|alias| alias.domain.clone());
    let dynamic = config.dns.dynamic.iter().map(|zone| zone.origin.clone());
    let copied = config.dns.secondary.iter().map(|zone| zone.origin.clone());
    let known: BTreeSet<Name> =
        of_files.chain(aliases).chain(dynamic).chain(copied).chain([config.domain.clone()]).collect();
    for zone in config.dns.dnssec.iter().filter(|zone| !known.contains::<Name>(zone)) {
        let problem = Diagnostic::whole(path, format!("`dns.dnssec` names {zone}, which is no zone of this node"));
        report.problems.push(problem.with_hint(format!("add the zone file {zone}zone, or remove the name")));
    }
}

/// Returns what makes validators refuse answers of these zone files, and of the other zones of the configuration at `config_path`. The
/// contents of dynamic and secondary zones are not known.
pub(super) fn problems_for_validators(
    config: &Config,
    config_path: Option<&Path>,
    files: &[(&Path, Arc<ZoneFile>)],
) -> Vec<Diagnostic> {
    let names = Settings::new(config.node.clone(), config.datacenter.clone(), config.domain.clone());
    let mut tables = Tables::new(Settings { aliases: config.alias_domains.clone(), ..names });
    let is_dynamic = |zone: &Name| config.dns.dynamic.iter().any(|definition| definition.origin == *zone);
    let dynamic = config.dns.dynamic.iter().map(|definition| Content::first(definition).to_zone());
    let copied = config.dns.secondary.iter().map(|zone| without_copy(&zone.origin, CopyState::Missing));
    let of_files = files.iter().filter(|(_, file)| !is_dynamic(&file.origin)).map(|(_, file)| file.clone());
    let zones: Vec<Arc<ZoneFile>> = of_files.chain(dynamic.chain(copied).map(Arc::new)).collect();
    tables.set_zones(&zones);
    let is_signed = |zone: &Zone| zone.signer().is_some() || config.dns.dnssec.contains(&zone.origin);
    let problems = tables.zone_problems(unix_now(), is_signed);
    let known = problems.iter().filter(|problem| !problem.parent().is_some_and(is_dynamic));
    let shown = known.filter_map(|problem| {
        let file = files.iter().find(|(_, file)| file.origin == *problem.zone()).map(|(path, _)| *path);
        Some(Diagnostic::whole(file.or(config_path)?, problem.to_string()).with_hint(problem.hint()).as_warning())
    });
    shown.collect()
}

/// Returns the problem of a zone that the configuration signs and another tool has signed.
pub(super) fn other_signer(config: &Config, path: &Path, zone: &ZoneFile) -> Option<Diagnostic> {
    let is_twice = config.dns.dnssec.contains(&zone.origin) && StaticNames::new(zone).chain().is_some();
    let message = format!("another tool has signed this zone, and `dns.dnssec` names {}", zone.origin);
    is_twice.then(|| Diagnostic::whole(path, message).with_hint("remove the name, or the signatures of the file"))
}
