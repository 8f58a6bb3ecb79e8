//! What a client of the HTTP API registers, from Consul's JSON to a definition.
//!
//! Clients write the same field in several ways: `ServiceID`, `service_id`, `serviceid`. Keys are therefore read without
//! case and underscores, as Consul does; the keys of `Meta` and of `Header` are data and stay as they are. Fields that are
//! not known are passed over. Those that are known and mean something that muster has not are refused with a reason, so
//! that nobody relies on what is not done.
//!
//! A registration is a service ([`Registration`]) or a check of one ([`CheckRegistration`]). `fields` reads JSON fields, `label`
//! makes the DNS label of an id, `duration` parses Go's durations.

mod check;
mod duration;
mod fields;
mod label;

use std::{net::IpAddr, sync::Arc, time::Duration};

use serde_json::{Map, Value};
use smol_str::SmolStr;

pub use self::{check::CheckRegistration, duration::go_duration, fields::field};
use self::{
    check::read_check,
    fields::{Fields, is},
    label::label_of,
};
use super::error::FieldError;
use crate::{
    model::{
        bounds,
        health::Status,
        name::Label,
        service::{DEFAULT_WEIGHT, Definition, Instance, InstanceKey, MAX_CHECKS, MAX_REGISTERED_ID, Pace, Probe},
    },
    record::{MAX_VALUE, value_len},
};

/// What the name of a service is.
const LABEL: &str = "a DNS label (1 to 63 letters, digits and inner hyphens)";

/// What the node decides for what is registered on it.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its name, the end of each registered instance's label.
    pub node: Label,
    /// Its addresses: those of an instance that is registered without one.
    pub addresses: Vec<IpAddr>,
}

/// A service that a client registered.
#[derive(Clone, Debug, PartialEq)]
pub struct Registration {
    /// The id that the client gave, or the name.
    pub id: SmolStr,
    /// What it comes to.
    pub definition: Arc<Definition>,
    /// For how long it may be critical before it is taken away; `None`: for ever.
    pub deregister_after: Option<Duration>,
    /// What was sent, to be kept and read again at the next start.
    pub body: Value,
}

impl Registration {
    /// Reads the body of `PUT /v1/agent/service/register`.
    ///
    /// # Errors
    /// The first thing that is wrong with it, with the field's name.
    pub fn read(body: &Value, host: &Host) -> Result<Self, FieldError> {
        let fields = Fields::new(body, "")?;
        let name = fields.text("Name")?.ok_or(FieldError::Missing { field: "Name", what: "the service's name" })?;
        let service = Label::parse(name).map_err(|_| fields.mismatch("Name", LABEL))?;
        let id = fields.text("ID")?.unwrap_or(name);
        bounds::registered_id(id).map_err(|_| {
            let what = format!("a string of 1 to {MAX_REGISTERED_ID} octets without control characters");
            fields.mismatch(if fields.is_empty("ID") { "Name" } else { "ID" }, &what)
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
        let mut deregister_after = None;
        for (field, check) in fields.checks()? {
            let (check, after) = read_check(check, &field, &service)?;
            checks.push(check);
            deregister_after = [deregister_after, after].into_iter().flatten().min();
        }
        if checks.len() > MAX_CHECKS {
            let reason = format!("a service has at most {MAX_CHECKS} checks, got {}", checks.len());
            return Err(FieldError::Conflict { field: "Checks".to_owned(), reason });
        }
        let key = InstanceKey { service, id: label_of(id, &host.node) };
        let base = Instance::new(key, addresses(&fields, host)?);
        let instance = Instance {
            port,
            tags: tags(&fields)?,
            meta: fields.texts("Meta")?,
            weight: weight(&fields)?,
            registered_as: Some(SmolStr::new(id)),
            ..base
        };
        instance.check().map_err(FieldError::Bounds)?;
        let octets = value_len(&instance);
        if octets > MAX_VALUE {
            let reason = format!("nodes exchange at most {MAX_VALUE} octets of an instance, this one has {octets}");
            return Err(FieldError::Conflict { field: "Tags and Meta".to_owned(), reason });
        }
        let definition = Definition { instance: Arc::new(instance), enabled: true, checks, pace: Pace::default() };
        let ids: Vec<SmolStr> = (0..definition.checks.len()).map(|at| definition.check_id(at)).collect();
        if let Some(at) = (0..ids.len()).find(|at| ids[..*at].contains(&ids[*at])) {
            let reason = format!("two checks have the id {:?}", ids[at]);
            return Err(FieldError::Conflict { field: "Checks".to_owned(), reason });
        }
        Ok(Self { id: SmolStr::new(id), definition: Arc::new(definition), deregister_after, body: body.clone() })
    }

    /// The same in the place of `known`, which a client registered before under its id: a TTL check that is in both stands as
    /// it stood, and checks that were added to it by themselves stay, unless `only` the new ones are wanted.
    ///
    /// # Errors
    /// As [`read`](Self::read): there may be too many checks then.
    pub fn instead_of(&self, known: &Self, only: bool, host: &Host) -> Result<Self, FieldError> {
        if self.definition.instance.key != known.definition.instance.key {
            return Ok(self.clone());
        }
        let mut next = self.clone();
        for (id, check) in known.checks() {
            let is_there = (0..self.definition.checks.len()).any(|at| self.definition.check_id(at) == id);
            let number = id.strip_prefix(&format!("service:{}", self.id)).map(|rest| rest.trim_start_matches(':'));
            let was_added = !number.is_some_and(|number| number.bytes().all(|b| b.is_ascii_digit()));
            if is_there {
                if let Some(status) =
                    check.iter().find(|(key, _)| is(key, "Status")).and_then(|(_, status)| status.as_str())
                    && let Some(status) = Status::from_word(status)
                {
                    next = next.in_status(&id, status);
                }
            } else if was_added && !only {
                let service = self.id.to_string();
                next = next.with_check(&CheckRegistration { service, id, body: Value::Object(check) }, host)?;
            }
        }
        // Who runs a check sees no other one in it.
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

    /// Its checks as they were sent, each with its id.
    fn checks(&self) -> Vec<(SmolStr, Map<String, Value>)> {
        let mut checks = Vec::new();
        self.with_ids(|id, check| {
            checks.push((id.into(), check.clone()));
            true
        });
        checks
    }

    /// The same, with one check more, or with another of the same id; and with one less.
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
        Self::read(&body, host)
    }

    /// The same without the check of that id; `None`: it has none.
    ///
    /// # Errors
    /// None: what was read can be read with less.
    pub fn without_check(&self, id: &str, host: &Host) -> Option<Result<Self, FieldError>> {
        let known = (0..self.definition.checks.len()).any(|at| self.definition.check_id(at) == id);
        known.then(|| Self::read(&self.without(id), host))
    }

    /// The same, whose ttl check of that id begins in that status after a restart.
    pub fn in_status(&self, id: &str, status: Status) -> Self {
        let mut next = self.clone();
        next.body = self.with_ids(|check_id, check| {
            if check_id == id {
                check.retain(|key, _| !is(key, "Status"));
                check.insert("Status".to_owned(), status.as_str().into());
            }
            true
        });
        next
    }

    /// The body less one check.
    fn without(&self, id: &str) -> Value {
        self.with_ids(|check_id, _| check_id != id)
    }

    /// The body with its checks in one list, each with its id; only those that `keep` wants.
    fn with_ids(&self, mut keep: impl FnMut(&str, &mut Map<String, Value>) -> bool) -> Value {
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

fn addresses(fields: &Fields<'_>, host: &Host) -> Result<Vec<IpAddr>, FieldError> {
    let mut all = Vec::new();
    all.extend(address(fields)?);
    if let Some(tagged) = fields.object("TaggedAddresses")? {
        for key in ["lan_ipv4", "lan_ipv6"] {
            let Some(named) = tagged.object(key)? else { continue };
            all.extend(address(&named)?.filter(|address| !all.contains(address)));
        }
    }
    Ok(if all.is_empty() { host.addresses.clone() } else { all })
}

/// The field `Address` of an object.
fn address(fields: &Fields<'_>) -> Result<Option<IpAddr>, FieldError> {
    let Some(text) = fields.text("Address")? else { return Ok(None) };
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address: IpAddr = bare.parse().map_err(|_| fields.mismatch("Address", "an IP address"))?;
    bounds::host_address(&address).map_err(|_| fields.mismatch("Address", "the IP address of a host"))?;
    Ok(Some(address))
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

fn weight(fields: &Fields<'_>) -> Result<u16, FieldError> {
    let passing = fields.object("Weights")?.map(|weights| weights.integer("Passing", &u16::MAX)).transpose()?;
    Ok(passing.flatten().unwrap_or(DEFAULT_WEIGHT))
}
