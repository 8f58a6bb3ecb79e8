//! Removal of values that muster's own parsers refuse, so that the output is always valid.

use super::{
    section::{Context, Place},
    tree::Position,
    yaml_text::Yaml,
};
use crate::{
    config::{Config, Environment},
    diagnostic::Diagnostic,
    files::service_file::{self, Defaults, Located},
    model::{host_addresses::HostAddresses, name::Label},
};
use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

/// Name of a node in checks of an output without one. The host's name is the default then.
const ANY_NODE: &str = "host-a";

/// Removes the invalid values of a service and reports each. `None`: the service itself is invalid, and reported at `place`.
pub(super) fn service(
    context: &Context<'_>,
    mut yaml: Yaml,
    place: &Place,
    node: Option<&Label>,
) -> Option<(Yaml, Vec<Located>)> {
    let any = Label::parse(ANY_NODE).ok();
    let node = node.or(any.as_ref())?;
    let addresses = [IpAddr::V4(Ipv4Addr::LOCALHOST)];
    let defaults = Defaults { node, addresses: &addresses, allow_exec: true };
    loop {
        let text = yaml.to_text();
        match service_file::parse(Path::new(""), text.as_bytes(), &defaults) {
            Ok(file) => return Some((yaml, file.entries)),
            Err(problems) => {
                if !remove_invalid(context, &mut yaml, &problems) {
                    let reason = problems.iter().find(|problem| problem.is_error()).map(describe).unwrap_or_default();
                    context.lost(place, format!("The service is left out: {reason}"));
                    return None;
                }
            }
        }
    }
}

/// Removes the invalid values of a configuration and reports each.
pub(super) fn configuration(context: &Context<'_>, mut yaml: Yaml, node: Option<&Label>) -> Yaml {
    let environment = Environment {
        host_name: node.map_or(ANY_NODE, Label::as_str).to_owned(),
        addresses: HostAddresses::default(),
        in_use: None,
        runtime_dir: None,
    };
    loop {
        let text = yaml.to_text();
        match Config::parse([(Path::new(""), text.as_bytes())], &environment) {
            Ok(_) => return yaml,
            Err(problems) if remove_invalid(context, &mut yaml, &problems) => {}
            Err(problems) => {
                let Some(problem) = problems.iter().find(|problem| problem.is_error()) else { return yaml };
                let place = Place { at: Position::default(), path: "(defaults)".to_owned() };
                context.lost(&place, format!("muster refuses the value: {}", describe(problem)));
                if !yaml.remove_entry(problem.line) {
                    return Yaml::table();
                }
            }
        }
    }
}

/// Removes the value of each error that has one with an origin around it. Reports whether there was one.
fn remove_invalid(context: &Context<'_>, yaml: &mut Yaml, problems: &[Diagnostic]) -> bool {
    let errors: Vec<&Diagnostic> = problems.iter().filter(|problem| problem.is_error()).collect();
    let lines: Vec<usize> = errors.iter().map(|problem| problem.line).collect();
    let removed = yaml.remove_lines(&lines);
    for (index, origin) in &removed {
        context.lost(origin, format!("muster refuses the value: {}", describe(errors[*index])));
    }
    !removed.is_empty()
}

fn describe(problem: &Diagnostic) -> String {
    match &problem.hint {
        Some(hint) => format!("{} ({hint})", problem.message),
        None => problem.message.clone(),
    }
}
