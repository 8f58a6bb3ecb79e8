//! The conversion as a whole: files of one node in, files for one node out.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use super::{
    Source, agent, check,
    facts::{Facts, node_label},
    output::{Conversion, ORIGIN, Options, OutputFile, Privacy},
    prune,
    section::{Context, Field, Place, Section},
    service,
    tree::{Entry, FileNumber, Node, Position, Value, is_key},
    yaml_text::Yaml,
};
use crate::model::service::InstanceKey;

/// Folder of the service files, beside the configuration.
pub const SERVICES_DIR: &str = "services.d";
/// Name of the configuration.
const CONFIGURATION: &str = "muster.yaml";
/// Keys of definitions; all others belong to the configuration of the agent.
const DEFINITIONS: &[&str] = &["service", "services", "check", "checks"];

/// Converts the files of one node. The number of a source in its nodes is its index here; its name is for people.
///
/// The result does not depend on anything else, and its files pass `muster validate`.
pub fn convert(sources: &[Source], options: &Options) -> Conversion {
    let names: Vec<String> = sources.iter().map(|source| source.name.clone()).collect();
    let context = Context { files: &names, findings: RefCell::default() };
    let mut parts = Parts::default();
    for (number, source) in (0..=FileNumber::MAX).zip(sources) {
        parts.read(&context, number, &source.root);
    }
    let Parts { configuration, services, checks } = parts;
    let root = Place { at: Position::default(), path: String::new() };

    let mut facts = facts(&names, &configuration, options);
    let quiet = Context { files: &names, findings: RefCell::default() };
    for field in services.iter().map(|(_, field)| field) {
        let Some((name, id)) = Section::of(&quiet, field).and_then(|section| service::name_and_id(&section)) else {
            continue;
        };
        facts.names.insert(id.to_owned(), name.to_owned());
        *facts.instances.entry(name.to_ascii_lowercase()).or_default() += 1;
    }

    for (id, name) in facts.names.clone() {
        if let Some(instance_id) = service::instance_id(&name, &id, &facts) {
            facts.ids.insert(id, instance_id.text);
        }
    }

    let (mut of_service, of_node) = assign(&context, &quiet, &facts, &checks);
    let mut out = ServiceFiles::default();
    for (number, field) in &services {
        let Some(section) = Section::of(&context, field) else { continue };
        let id = Section::of(&quiet, field).and_then(|section| service::name_and_id(&section)).map(|(_, id)| id);
        let more = id.and_then(|id| of_service.remove(id)).unwrap_or_default();
        let Some(service) = service::convert(section, &facts, more) else { continue };
        let Some((yaml, located)) = prune::service(&context, service.yaml, &field.place, facts.node.as_ref()) else {
            continue;
        };
        let is_unchecked = located.iter().all(|located| located.definition.checks.is_empty());
        if service.has_checks && is_unchecked {
            context.lost(&field.place, service::NO_CHECK_LEFT);
        }
        let keys = located.iter().map(|located| located.definition.instance.key.clone());
        out.add(&context, *number, field, yaml, keys);
    }
    let is_public =
        |field: &Field<'_>| sources.get(usize::from(field.place.at.file)).is_none_or(|source| source.is_public);
    let checks_are_public = checks.iter().all(is_public);

    let mut files = Vec::new();
    if options.services_only {
        for section in of_node {
            section
                .abandon("--services-only leaves out checks of the node: write them in `checks.node` of muster.yaml");
        }
        agent::report_left_out(
            &Section::of_entries(&context, root, configuration.iter().collect()),
            out.has_commands(),
        );
    } else {
        let node_checks: Vec<Yaml> =
            of_node.into_iter().filter_map(|section| check::convert(section, &facts, None)).collect();
        let section = Section::of_entries(&context, root, configuration.iter().collect());
        let allow_exec = out.has_commands() || node_checks.iter().any(|check| check.has_key(check::COMMAND));
        let needs = agent::Needs { services_dir: SERVICES_DIR, allow_exec, node_checks };
        let output = agent::convert(section, &facts, needs);
        let yaml = prune::configuration(&context, output.yaml, facts.node.as_ref());
        files.push(OutputFile {
            path: CONFIGURATION.to_owned(),
            text: format!(
                "# Configuration of muster, converted from Consul's by `muster import consul`.\n{}",
                yaml.to_text()
            ),
            privacy: Privacy::of_source(checks_are_public),
        });
        files.extend(output.gossip_key);
    }
    let services = out.count();
    files.extend(out.files(sources, checks_are_public));
    Conversion { files, findings: context.findings.into_inner().sorted(), services }
}

/// The parts of all files.
#[derive(Default)]
struct Parts<'a> {
    /// Keys of the agent's configuration; later files win.
    configuration: Vec<Entry>,
    services: Vec<(FileNumber, Field<'a>)>,
    checks: Vec<Field<'a>>,
}

impl<'a> Parts<'a> {
    fn read(&mut self, context: &Context<'_>, number: FileNumber, root: &'a Node) {
        let place = Place { at: root.at, path: String::new() };
        let entries = match &root.value {
            Value::Table(entries) => entries,
            Value::Null => return,
            value => return context.lost(&place, format!("Expected a table, found {}", value.kind())),
        };
        // The body of a registration by the HTTP API is a definition without a key around it.
        let has = |keys: &[&str]| entries.iter().any(|entry| keys.iter().any(|key| is_key(&entry.key, key)));
        if has(&["name"]) && !has(&["service", "services"]) {
            let field = Field { node: root, place };
            self.services.push((number, field));
            return;
        }
        for entry in entries {
            let place = place.below(&entry.key, entry.value.at);
            let Some(kind) = DEFINITIONS.iter().find(|kind| is_key(&entry.key, kind)) else {
                merge(&mut self.configuration, entry.clone());
                continue;
            };
            let is_list = matches!(entry.value.value, Value::List(_));
            for (at, node) in entry.value.items().into_iter().enumerate() {
                let place = if is_list { place.item(at, node.at) } else { place.clone() };
                let field = Field { node, place };
                if kind.starts_with("service") {
                    self.services.push((number, field));
                } else {
                    self.checks.push(field);
                }
            }
        }
    }
}

/// Merges a key of a later file as Consul does: tables key by key, lists by appending; other values are replaced.
fn merge(entries: &mut Vec<Entry>, later: Entry) {
    let Some(known) = entries.iter_mut().find(|entry| is_key(&entry.key, &later.key)) else {
        entries.push(later);
        return;
    };
    match (&mut known.value.value, later.value.value) {
        (Value::Table(known), Value::Table(later)) => later.into_iter().for_each(|entry| merge(known, entry)),
        (Value::List(known), Value::List(later)) => known.extend(later),
        (_, value) => *known = Entry { value: Node { value, at: later.value.at }, key: later.key },
    }
}

/// Facts of the configuration.
fn facts(names: &[String], configuration: &[Entry], options: &Options) -> Facts {
    let context = Context { files: names, findings: RefCell::default() };
    let root = Place { at: Position::default(), path: String::new() };
    let section = Section::of_entries(&context, root, configuration.iter().collect());
    let named = options.node.as_deref().or(section.text("node_name").map(|(name, _)| name));
    let mut facts = Facts { node: named.and_then(node_label), ..Facts::default() };
    if facts.node.is_none() {
        facts.node = options.host_name.as_deref().and_then(node_label);
        facts.is_host_name = true;
    }
    facts.ttls = agent::service_ttls(&section).into_iter().map(|(name, seconds, _)| (name, seconds)).collect();
    let scripts = ["enable_script_checks", "enable_local_script_checks"]
        .map(|key| section.flag(key).is_some_and(|(flag, _)| flag));
    // Definitions alone do not say whether their agent allows commands.
    facts.allow_exec = scripts.contains(&true) || !section.has_settings();
    facts
}

/// Checks by the id of their service.
type ChecksOfServices<'a> = BTreeMap<String, Vec<Section<'a>>>;

/// Assigns checks that were defined apart from services: by `service_id`, else to the node.
fn assign<'a>(
    context: &'a Context<'a>,
    quiet: &'a Context<'a>,
    facts: &Facts,
    checks: &'a [Field<'a>],
) -> (ChecksOfServices<'a>, Vec<Section<'a>>) {
    let (mut of_service, mut of_node): (ChecksOfServices<'a>, Vec<_>) = (BTreeMap::new(), Vec::new());
    for field in checks {
        let Some(section) = Section::of(context, field) else { continue };
        let id = Section::of(quiet, field).and_then(|section| section.text("service_id")).map(|(id, _)| id);
        match id {
            None => of_node.push(section),
            Some(id) if facts.names.contains_key(id) => of_service.entry(id.to_owned()).or_default().push(section),
            Some(_) => section.abandon("The check is of a service that these files do not define"),
        }
    }
    (of_service, of_node)
}

/// Service files by their source.
#[derive(Default)]
struct ServiceFiles {
    of_source: BTreeMap<FileNumber, Vec<Yaml>>,
    keys: BTreeSet<InstanceKey>,
}

impl ServiceFiles {
    fn add(
        &mut self,
        context: &Context<'_>,
        number: FileNumber,
        field: &Field<'_>,
        yaml: Yaml,
        keys: impl Iterator<Item = InstanceKey>,
    ) {
        for key in keys {
            if !self.keys.insert(key) {
                context.lost(&field.place, "Another definition has the same service and id: this one is left out");
                return;
            }
        }
        let line = if field.place.at.line == 0 { String::new() } else { format!(":{}", field.place.at.line) };
        let mut yaml = yaml.from(&field.place);
        yaml.comment_first(&format!("{ORIGIN}{}{line}", context.file(field.place.at)));
        self.of_source.entry(number).or_default().push(yaml);
    }

    /// Reports whether a check runs a command.
    fn has_commands(&self) -> bool {
        self.of_source.values().flatten().any(|service| service.has_key(check::COMMAND))
    }

    fn count(&self) -> usize {
        self.of_source.values().map(Vec::len).sum()
    }

    /// The files, each named after its source. `checks_are_public`: so are the sources of checks that were defined apart.
    fn files(self, sources: &[Source], checks_are_public: bool) -> Vec<OutputFile> {
        let mut taken = BTreeSet::new();
        let mut files = Vec::new();
        for (number, mut services) in self.of_source {
            let source = sources.get(usize::from(number));
            let stem = source.map_or("", |source| source.stem.as_str());
            let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' };
            let stem: String = stem.chars().map(plain).collect();
            let stem = stem.trim_matches(['-', '.']);
            let stem = if stem.is_empty() { "services" } else { stem };
            let mut name = stem.to_owned();
            let mut copy = 2;
            while !taken.insert(name.clone()) {
                name = format!("{stem}-{copy}");
                copy += 1;
            }
            let yaml = match services.pop() {
                Some(only) if services.is_empty() => only,
                last => {
                    services.extend(last);
                    let mut root = Yaml::table();
                    root.set("services", Yaml::list(services));
                    root
                }
            };
            files.push(OutputFile {
                path: format!("{SERVICES_DIR}/{name}.yaml"),
                text: yaml.to_document(),
                privacy: Privacy::of_source(checks_are_public && source.is_some_and(|source| source.is_public)),
            });
        }
        files
    }
}
