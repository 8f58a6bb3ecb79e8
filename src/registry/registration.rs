//! Registrations by HTTP clients: Consul's JSON, parsed into a definition.
//!
//! Clients spell fields in several ways: `ServiceID`, `service_id`, `serviceid`. As in Consul, keys match regardless of
//! case and underscores; the keys of `Meta` and `Header` are data and stay unchanged. Unknown fields are ignored.
//! Fields of features that muster lacks are refused with a reason, so that no client relies on them.
//!
//! A registration is a service ([`Registration`]) or a check of a service ([`CheckRegistration`]). `fields` reads JSON
//! fields, `duration` parses Go's durations.

mod addresses;
mod catalog;
mod check;
mod duration;
mod fields;

use std::{str::FromStr, sync::Arc, time::Duration};

use serde_json::{Map, Value};
use smol_str::SmolStr;

pub use self::{
    addresses::Addresses,
    catalog::{
        CatalogDeregistration, CatalogRegistration, CatalogTarget, NodeFields, Part, ReportedCheck, service_of_agent,
    },
    check::CheckRegistration,
    duration::go_duration,
    fields::field,
};
use self::{
    addresses::ServiceAddresses,
    check::read_check,
    fields::{Fields, is},
};
use super::error::FieldError;
use crate::{
    model::{
        alpn::{ALPN_META, AlpnIds, PortAlpn},
        bounds,
        id_label::label_of,
        link_local::is_link_local_or_metadata,
        name::Label,
        nearest::{MIN_HEALTHY_META, MinHealthy, NEAREST_META, Nearest},
        registered_name::RegisteredName,
        service::{Check, Definition, Instance, InstanceKey, MAX_CHECKS, MAX_REGISTERED_ID, Pace, Probe},
    },
    record::{MAX_VALUE, value_len},
};

/// Syntax of a service name.
const NAME: &str = "a string of 1 to 255 octets without control characters";
/// Weight of a service without `Weights`, as in Consul: instances that register there and here have equal shares.
const CONSUL_WEIGHT: u16 = 1;

/// Defaults of the node for its registrations.
#[derive(Clone, Debug)]
pub struct Host {
    /// Name of the node, the suffix of each registered instance's label.
    pub node: Label,
    /// Addresses of the node, for instances registered without an address.
    pub addresses: Addresses,
    /// True if registered checks may connect to link-local addresses and metadata services.
    pub allow_link_local: bool,
    /// True if registered checks may run commands.
    pub allow_exec: bool,
}

/// API by which a client registered a service of the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Registrar {
    /// `agent/service/register`: the catalog does not change the service, except for tags.
    #[default]
    Agent,
    /// `catalog/register`.
    Catalog,
}

/// A service that a client registered.
#[derive(Clone, Debug, PartialEq)]
pub struct Registration {
    /// Id given by the client; default: the name.
    pub id: SmolStr,
    /// Resulting definition.
    pub definition: Arc<Definition>,
    /// Time for which each check may be critical until the service is deregistered, in the order of the definition; `None`:
    /// for any time.
    pub deregister_after: Vec<Option<Duration>>,
    /// API of the last registration.
    pub registrar: Registrar,
    /// Tags that `catalog/register` gave to the service, in place of those of the body.
    pub catalog_tags: Option<Vec<String>>,
    /// Request body, which is stored and parsed again at the next start.
    pub body: Value,
}

impl Registration {
    /// Reads the body of `PUT /v1/agent/service/register`.
    ///
    /// # Errors
    /// The first invalid field.
    pub fn read(body: &Value, host: &Host) -> Result<Self, FieldError> {
        let fields = Fields::new(body, "")?;
        let name = fields.text("Name")?.ok_or(FieldError::Missing { field: "Name", what: "the service's name" })?;
        let service = RegisteredName::parse(name).map_err(|_| fields.mismatch("Name", NAME))?;
        let id = fields.text("ID")?.unwrap_or(name);
        bounds::registered_id(id).map_err(|_| {
            let what = format!("a string of 1 to {MAX_REGISTERED_ID} octets without control characters");
            fields.mismatch("ID", &what)
        })?;
        for (field, reason) in [
            ("Kind", "muster has no proxies and gateways"),
            ("Proxy", "muster has no proxies"),
            ("Connect", "muster has no service mesh"),
            ("SocketPath", "muster has no services on Unix sockets"),
        ] {
            if !fields.is_empty(field) {
                return Err(fields.unsupported(field, reason));
            }
        }
        for field in ["Namespace", "Partition"] {
            if fields.text(field)?.is_some_and(|value| value != "default") {
                return Err(fields.unsupported(field, "muster has one namespace and one partition: leave it out"));
            }
        }
        let port = fields.integer("Port", &u16::MAX)?.filter(|port| *port > 0);
        let mut checks = Vec::new();
        let mut deregister_after = Vec::new();
        for (field, check) in fields.checks()? {
            let read = read_check(check, &field, Some(id), host)?;
            checks.push(read.check);
            deregister_after.push(read.deregister_after);
        }
        if checks.len() > MAX_CHECKS {
            let reason = format!("a service has at most {MAX_CHECKS} checks, got {}", checks.len());
            return Err(FieldError::Conflict { field: "Checks".to_owned(), reason });
        }
        let meta = fields.texts("Meta")?;
        let alpn = stated::<AlpnIds>(&fields, ALPN_META, AlpnIds::EXPECTED)?;
        if let (Some(_), None) = (&alpn, port) {
            let reason = format!("`{ALPN_META}` is of the port: add one");
            return Err(FieldError::Conflict { field: "Port".to_owned(), reason });
        }
        let letter_case = (service.as_str() != name).then(|| SmolStr::new(name));
        let key = InstanceKey { service, id: label_of(id, &host.node) };
        let ServiceAddresses { own, tagged } = ServiceAddresses::read(&fields, port, host)?;
        let (addresses, followed) = own.into_parts();
        let base = Instance::new(key, addresses);
        let instance = Instance {
            host: followed,
            tagged,
            port,
            tags: tags(&fields)?.into(),
            meta: meta.into(),
            weight: weight(&fields)?,
            alpn: alpn.map(|ids| PortAlpn { port: None, ids }).into_iter().collect(),
            nearest: stated(&fields, NEAREST_META, Nearest::EXPECTED)?,
            min_healthy: stated(&fields, MIN_HEALTHY_META, MinHealthy::EXPECTED)?,
            registered_as: Some(SmolStr::new(id)),
            tag_override: fields.flag("EnableTagOverride")?,
            service_case: letter_case,
            ..base
        };
        ensure_bounds(&instance)?;
        let definition = Definition { instance: Arc::new(instance), enabled: true, checks, pace: Pace::default() };
        let ids: Vec<SmolStr> = (0..definition.checks.len()).map(|at| definition.check_id(at)).collect();
        if let Some(at) = (0..ids.len()).find(|at| ids[..*at].contains(&ids[*at])) {
            let reason = format!("two checks have the id {:?}", ids[at]);
            return Err(FieldError::Conflict { field: "Checks".to_owned(), reason });
        }
        Ok(Self {
            id: SmolStr::new(id),
            definition: Arc::new(definition),
            deregister_after,
            registrar: Registrar::Agent,
            catalog_tags: None,
            body: body.clone(),
        })
    }

    /// Returns this registration as the replacement of `known`, a registration with the same id. As in Consul, the checks of
    /// `known` that this one lacks stay unless `only` is set; TTL checks in both go on.
    ///
    /// # Errors
    /// As [`read`](Self::read); the merged registration may have too many checks.
    pub fn replacing(&self, known: &Self, only: bool, host: &Host) -> Result<Self, FieldError> {
        let mut next = self.clone();
        let given = self.check_ids();
        let kept: Vec<_> = known.checks().into_iter().filter(|(id, _)| !only && !given.contains(id)).collect();
        if given.len() + kept.len() > MAX_CHECKS {
            let reason = format!(
                "the service has {} checks that the request lacks, with which it would exceed {MAX_CHECKS} checks: deregister some, or \
                 set ?replace-existing-checks",
                kept.len()
            );
            return Err(FieldError::Conflict { field: "Checks".to_owned(), reason });
        }
        for (id, check) in kept {
            let service = Some(self.id.to_string());
            next = next.with_check(&CheckRegistration { service, id, body: Value::Object(check) }, host)?;
        }
        if self.definition.instance.key != known.definition.instance.key {
            return Ok(next);
        }
        // An unchanged TTL check must compare equal, or the checks would restart it.
        let definition = Arc::make_mut(&mut next.definition);
        for at in 0..definition.checks.len() {
            let id = definition.check_id(at);
            let same = (0..known.definition.checks.len()).find(|at| known.definition.check_id(*at) == id);
            if let Some(same) = same.filter(|_| matches!(definition.checks[at].probe, Probe::Ttl { .. })) {
                definition.checks[at].initial = known.definition.checks[same].initial;
            }
        }
        Ok(next)
    }

    /// Returns the registration if its checks may do what they are for.
    ///
    /// A registration that is restored is not verified: it was allowed when it was made, and its probe fails with the reason.
    ///
    /// # Errors
    /// The first check that connects to a link-local address or a metadata service, or runs a command, without permission.
    pub fn with_allowed_targets(self) -> Result<Self, FieldError> {
        self.definition.checks.iter().try_for_each(ensure_allowed)?;
        Ok(self)
    }

    /// Returns the registration with these tags in place of its own.
    ///
    /// # Errors
    /// The service does not permit it (`EnableTagOverride`), or the tags are out of bounds.
    pub fn with_catalog_tags(mut self, tags: Vec<String>) -> Result<Self, FieldError> {
        let definition = Arc::make_mut(&mut self.definition);
        if !definition.instance.tag_override {
            let reason = "the service was registered without it: its tags are those of its own registration".to_owned();
            return Err(FieldError::Conflict { field: "EnableTagOverride".to_owned(), reason });
        }
        let instance = Instance { tags: tags.clone().into(), ..Instance::clone(&definition.instance) };
        ensure_bounds(&instance)?;
        definition.instance = Arc::new(instance);
        self.catalog_tags = Some(tags);
        Ok(self)
    }

    /// Returns the ids of the checks, in their order.
    pub fn check_ids(&self) -> Vec<SmolStr> {
        (0..self.definition.checks.len()).map(|at| self.definition.check_id(at)).collect()
    }

    /// Returns the checks as registered, with their ids.
    fn checks(&self) -> Vec<(SmolStr, Map<String, Value>)> {
        let mut checks = Vec::new();
        self.map_checks(|id, check| {
            checks.push((id.into(), check.clone()));
            true
        });
        checks
    }

    /// Returns the registration with a check added, or replaced by id.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn with_check(&self, check: &CheckRegistration, host: &Host) -> Result<Self, FieldError> {
        let mut body = self.without(&check.id);
        let Some(fields) = body.as_object_mut() else { return Ok(self.clone()) };
        let mut added = check.body.clone();
        if let Some(added) = added.as_object_mut() {
            added.retain(|key, _| !is(key, "CheckID") && !is(key, "ID"));
            added.insert("CheckID".to_owned(), check.id.as_str().into());
        }
        let checks = fields.entry("Checks").or_insert_with(|| Value::Array(Vec::new()));
        if let Some(checks) = checks.as_array_mut() {
            checks.push(added);
        }
        self.with_body(&body, host)
    }

    /// Returns the registration without a check; `None`: it has no check with this id.
    ///
    /// # Errors
    /// None in practice: a valid registration stays valid without a check.
    pub fn without_check(&self, id: &str, host: &Host) -> Option<Result<Self, FieldError>> {
        let is_known = self.check_ids().iter().any(|known| known == id);
        is_known.then(|| self.with_body(&self.without(id), host))
    }

    /// Returns the registration with another body, by the same API and with the tags of the catalog.
    fn with_body(&self, body: &Value, host: &Host) -> Result<Self, FieldError> {
        let next = Self { registrar: self.registrar, ..Self::read(body, host)? };
        match self.catalog_tags.clone() {
            Some(tags) => next.with_catalog_tags(tags),
            None => Ok(next),
        }
    }

    /// Returns the body without one check.
    fn without(&self, id: &str) -> Value {
        self.map_checks(|check_id, _| check_id != id)
    }

    /// Returns the body with all checks in one list, each with its id, filtered by `keep`.
    fn map_checks(&self, mut keep: impl FnMut(&str, &mut Map<String, Value>) -> bool) -> Value {
        let mut body = self.body.clone();
        let Some(fields) = body.as_object_mut() else { return body };
        let mut checks = Vec::new();
        for key in ["Check", "Checks"] {
            let Some(found) = fields.keys().find(|known| is(known, key)).cloned() else { continue };
            match fields.remove(&found) {
                Some(Value::Array(list)) => checks.extend(list),
                Some(check @ Value::Object(_)) => checks.push(check),
                _ => {}
            }
        }
        checks.retain(|check| check.as_object().is_some_and(|fields| !fields.is_empty()));
        let mut at = 0;
        checks.retain_mut(|check| {
            let id = self.definition.check_id(at);
            at += 1;
            let Some(check) = check.as_object_mut() else { return false };
            check.retain(|key, _| !is(key, "CheckID") && !is(key, "ID"));
            check.insert("CheckID".to_owned(), id.as_str().into());
            keep(&id, check)
        });
        fields.insert("Checks".to_owned(), checks.into());
        body
    }
}

/// Verifies that a check may do what it is for.
///
/// # Errors
/// It connects to a link-local address or a metadata service, or runs a command, without permission.
///
/// Names are verified when the probe has resolved them.
pub(super) fn ensure_allowed(check: &Check) -> Result<(), FieldError> {
    let refuse = |reason: String| Err(FieldError::Conflict { field: "Checks".to_owned(), reason });
    if let Some(address) = check.probe.literal_address()
        && !check.origin.may_reach_link_local()
        && is_link_local_or_metadata(address)
    {
        return refuse(format!(
            "{address} is a link-local address or a metadata service, which registered checks may not probe; use a service \
             file, or set checks.allow_link_local"
        ));
    }
    if matches!(check.probe, Probe::Exec { .. }) && !check.origin.may_run_commands() {
        let reason =
            "commands are not accepted over HTTP: use an `exec` check in a service file, or set checks.allow_exec: api";
        return refuse(reason.to_owned());
    }
    Ok(())
}

fn ensure_bounds(instance: &Instance) -> Result<(), FieldError> {
    instance.check().map_err(FieldError::Bounds)?;
    let octets = value_len(instance);
    if octets > MAX_VALUE {
        let reason = format!("nodes exchange at most {MAX_VALUE} octets of an instance, this one has {octets}");
        return Err(FieldError::Conflict { field: "Tags and Meta".to_owned(), reason });
    }
    Ok(())
}

fn tags(fields: &Fields<'_>) -> Result<Vec<String>, FieldError> {
    let mut tags: Vec<String> = Vec::new();
    for tag in fields.list("Tags")? {
        if !tag.is_empty() && !tags.iter().any(|known| known == tag) {
            tags.push(tag.to_owned());
        }
    }
    Ok(tags)
}

/// Reads a value that an entry of `Meta` states.
fn stated<T: FromStr>(fields: &Fields<'_>, key: &str, expected: &str) -> Result<Option<T>, FieldError> {
    let Some(meta) = fields.object("Meta")? else { return Ok(None) };
    let Some((_, value)) = meta.entries().find(|(known, _)| *known == key) else { return Ok(None) };
    let parsed = value.as_str().and_then(|text| text.parse().ok());
    parsed.map(Some).ok_or_else(|| meta.mismatch(key, expected))
}

fn weight(fields: &Fields<'_>) -> Result<u16, FieldError> {
    let passing = fields.object("Weights")?.map(|weights| weights.integer("Passing", &u16::MAX)).transpose()?;
    Ok(passing.flatten().unwrap_or(CONSUL_WEIGHT))
}
