//! Encoding of the registrations and holds on the disk.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::State;
use crate::{
    model::{
        announcement::HoldReason,
        maintenance::{Hold, Scope},
        name::Label,
        registered_name::RegisteredName,
        service::InstanceKey,
    },
    registry::registration::{CheckRegistration, Host, Registrar, Registration},
};

/// Version of the stored format.
const FORMAT: u64 = 1;

impl State {
    /// Serializes the state.
    pub fn to_text(&self) -> String {
        let services: Vec<&Value> = self.registered.values().map(|registration| &registration.body).collect();
        let holds: Vec<Value> =
            self.maintenance.0.iter().map(|((scope, kind), hold)| hold_value(scope, *kind, hold)).collect();
        let checks: Vec<&Value> = self.node_checks.values().map(|(_, body)| body).collect();
        let external = self.external.to_values();
        let mut all = json!({
            "format": FORMAT, "services": services, "external": external, "node_checks": checks, "holds": holds,
        });
        let tags = self.registered.iter().filter_map(|(id, known)| Some((id.to_string(), known.catalog_tags.clone()?)));
        let tags: BTreeMap<String, Vec<String>> = tags.collect();
        if !tags.is_empty() {
            all["catalog_tags"] = json!(tags);
        }
        let of_catalog = self.registered.values().filter(|known| known.registrar == Registrar::Catalog);
        let of_catalog: Vec<&str> = of_catalog.map(|known| known.id.as_str()).collect();
        if !of_catalog.is_empty() {
            all["of_catalog"] = json!(of_catalog);
        }
        if let Some(ttl) = self.greatest_ttl {
            all["greatest_ttl"] = ttl.into();
        }
        format!("{all:#}\n")
    }

    /// Parses the output of [`to_text`](Self::to_text). Returns descriptions of the parts that are unreadable and left
    /// out.
    pub fn parse(text: &str, host: &Host) -> (Self, Vec<String>) {
        let mut state = Self::default();
        let mut problems = Vec::new();
        let stored: Value = match serde_json::from_str(text) {
            Ok(stored) => stored,
            Err(error) => return (state, vec![error.to_string()]),
        };
        if stored.get("format") != Some(&FORMAT.into()) {
            problems.push(format!("unknown format; this version reads format {FORMAT}"));
        }
        let list = |key: &str, problems: &mut Vec<String>| match stored.get(key) {
            Some(Value::Array(items)) => items.clone(),
            _ => {
                problems.push(format!("{key}: not a list"));
                Vec::new()
            }
        };
        let (services, holds) = (list("services", &mut problems), list("holds", &mut problems));
        for body in services {
            match Registration::read(&body, host) {
                Ok(registration) => drop(state.registered.insert(registration.id.clone(), registration)),
                Err(error) => problems.push(error.to_string()),
            }
        }
        for id in stored.get("of_catalog").and_then(Value::as_array).into_iter().flatten() {
            if let Some(known) = id.as_str().and_then(|id| state.registered.get_mut(id)) {
                known.registrar = Registrar::Catalog;
            }
        }
        for (id, tags) in stored.get("catalog_tags").and_then(Value::as_object).into_iter().flatten() {
            let Some(known) = state.registered.remove(id.as_str()) else { continue };
            let tags = tags.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
            match known.clone().with_catalog_tags(tags) {
                Ok(known) => drop(state.registered.insert(known.id.clone(), known)),
                Err(error) => {
                    problems.push(error.to_string());
                    state.registered.insert(known.id.clone(), known);
                }
            }
        }
        for node in stored.get("external").and_then(Value::as_array).into_iter().flatten() {
            if let Err(error) = state.external.restore(node, host) {
                problems.push(error.to_string());
            }
        }
        for body in stored.get("node_checks").and_then(Value::as_array).into_iter().flatten() {
            let read = CheckRegistration::read(body).and_then(|read| Ok((read.of_node(host)?, read)));
            match read {
                Ok((check, read)) => drop(state.node_checks.insert(read.id, (check, read.body))),
                Err(error) => problems.push(error.to_string()),
            }
        }
        for value in holds {
            match read_hold(&value) {
                Some((scope, kind, hold)) => drop(state.maintenance.0.insert((scope, kind), hold)),
                None => problems.push(format!("invalid hold: {value}")),
            }
        }
        let ttl = stored.get("greatest_ttl").and_then(Value::as_u64);
        state.greatest_ttl = ttl.and_then(|ttl| u32::try_from(ttl).ok());
        (state, problems)
    }
}

fn hold_value(scope: &Scope, kind: HoldReason, hold: &Hold) -> Value {
    let mut value = json!({"gate": kind.as_str(), "reason": hold.reason, "since": hold.since, "until": hold.until});
    if let Scope::Instance(key) = scope {
        value["service"] = key.service.as_str().into();
        value["id"] = key.id.as_str().into();
    }
    value
}

fn read_hold(value: &Value) -> Option<(Scope, HoldReason, Hold)> {
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    let kind = HoldReason::ALL.into_iter().find(|kind| text("gate") == Some(kind.as_str()))?;
    let scope = match text("service") {
        None => Scope::Node,
        Some(service) => {
            let (service, id) = (RegisteredName::parse(service).ok()?, Label::parse(text("id")?).ok()?);
            Scope::Instance(InstanceKey { service, id })
        }
    };
    let hold = Hold {
        reason: text("reason").unwrap_or_default().to_owned(),
        since: value.get("since").and_then(Value::as_u64).unwrap_or(0),
        until: value.get("until").and_then(Value::as_u64),
    };
    Some((scope, kind, hold))
}
