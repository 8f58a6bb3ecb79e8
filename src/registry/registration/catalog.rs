//! Requests about external nodes: the bodies of `catalog/register` and `catalog/deregister`.

use std::collections::BTreeMap;

use serde_json::Value;
use smol_str::SmolStr;
use uuid::Uuid;

use super::{
    addresses::Addresses,
    check::{check_id, check_notes, check_text},
    fields::{Fields, field, is},
};
use crate::{
    model::{
        announcement::bounded,
        followed_host::HostName,
        health::Status,
        registered_name::{MAX_REGISTERED_NAME, RegisteredName},
    },
    registry::error::FieldError,
};

/// Consul's tagged addresses that are addresses of the host as well.
const LAN: [&str; 2] = ["lan_ipv4", "lan_ipv6"];

/// A node, a service and checks that a client registered in the catalog.
#[derive(Clone, Debug, PartialEq)]
pub struct CatalogRegistration {
    /// Name of the node.
    pub name: RegisteredName,
    /// Fields of the node; `None`: `SkipNodeUpdate` without an address.
    pub node: Option<NodeFields>,
    /// True if the fields apply to a new node only.
    pub skips_update: bool,
    /// A service, as in the body of `agent/service/register`, without checks.
    pub service: Option<Value>,
    /// Checks of the node and of its services.
    pub checks: Vec<ReportedCheck>,
}

/// Fields of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFields {
    /// Name in its letter case.
    pub letter_case: Option<SmolStr>,
    /// Id; `None`: that of the known node, if it has one.
    pub id: Option<Uuid>,
    /// Addresses of the host.
    pub addresses: Addresses,
    /// Tagged addresses as given.
    pub tagged: BTreeMap<String, String>,
    /// Metadata.
    pub meta: BTreeMap<String, String>,
}

/// A check and its status, as a client reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedCheck {
    /// Check id, unique on the node.
    pub id: SmolStr,
    /// Display name; may be empty.
    pub name: SmolStr,
    /// Status.
    pub status: Status,
    /// Output in at most [`MAX_REASON`](crate::model::announcement::MAX_REASON) octets.
    pub output: String,
    /// Id of the service; `None`: a check of the node as a whole.
    pub service: Option<SmolStr>,
    /// Notes for people, of at most [`MAX_CHECK_TEXT`](crate::model::announcement::MAX_CHECK_TEXT) octets.
    pub notes: SmolStr,
    /// JSON object, as registered; empty without one.
    pub definition: String,
}

/// Removal of a node, or of one of its services or checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogDeregistration {
    /// Name of the node.
    pub name: RegisteredName,
    /// What is removed.
    pub part: Part,
}

/// Part of a node. As in Consul, a service takes precedence over a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The node with its services and checks.
    Node,
    /// The service with this id, with its checks.
    Service(String),
    /// The check with this id.
    Check(String),
}

/// Node and datacenter of a request to the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogTarget {
    /// Name of the node.
    pub name: RegisteredName,
    /// Datacenter; `None`: that of the agent.
    pub datacenter: Option<String>,
}

impl CatalogTarget {
    /// Reads the body of `PUT /v1/catalog/register` or `deregister`.
    ///
    /// # Errors
    /// The first invalid field.
    pub fn read(body: &Value) -> Result<Self, FieldError> {
        let fields = Fields::new(body, "")?;
        let datacenter = fields.text("Datacenter")?.map(str::to_owned);
        Ok(Self { name: node_name(&fields)?.0, datacenter })
    }
}

/// Reads the service of a request about the node of the agent, as a service of `agent/service/register`.
///
/// # Errors
/// The first invalid field: the request has no service, or checks, whose results the agent's own checks would replace.
pub fn service_of_agent(body: &Value) -> Result<Value, FieldError> {
    let fields = Fields::new(body, "")?;
    refuse_partitions(&fields)?;
    if let Some((field, _)) = fields.checks()?.into_iter().next() {
        let reason = "the catalog accepts no check results of a node with an agent: register a TTL check with \
                      /v1/agent/check/register and report to it";
        return Err(FieldError::Conflict { field, reason: reason.to_owned() });
    }
    match fields.get("Service") {
        Some(body) if !fields.is_empty("Service") => service(body),
        _ => Err(FieldError::Missing {
            field: "Service",
            what: "the service to register; the node needs no registration, because its agent announces it",
        }),
    }
}

impl CatalogRegistration {
    /// Reads the body of `PUT /v1/catalog/register`.
    ///
    /// # Errors
    /// The first invalid field. The service is read when it is applied.
    pub fn read(body: &Value) -> Result<Self, FieldError> {
        let fields = Fields::new(body, "")?;
        let (name, text) = node_name(&fields)?;
        refuse_partitions(&fields)?;
        let skips_update = fields.flag("SkipNodeUpdate")?;
        let node = match Addresses::read(&fields)? {
            Some(addresses) => Some(NodeFields::read(&fields, &name, text, addresses)?),
            None if skips_update => None,
            None => {
                let what = "the node's address, unless SkipNodeUpdate is true";
                return Err(FieldError::Missing { field: "Address", what });
            }
        };
        let service = if fields.is_empty("Service") { None } else { fields.get("Service").map(service).transpose()? };
        let checks = fields.checks()?.into_iter().map(|(field, check)| ReportedCheck::read(check, &field, &name));
        Ok(Self { node, skips_update, service, checks: checks.collect::<Result<_, _>>()?, name })
    }

    /// Returns the host names that are addresses of the node and of the service.
    pub fn host_names(&self) -> impl Iterator<Item = HostName> {
        let of_node = self.node.iter().filter_map(|node| match &node.addresses {
            Addresses::Of(name) => Some(name.clone()),
            Addresses::Given(_) => None,
        });
        let of_service = self.service.as_ref().and_then(|service| field(service, "Address")?.as_str());
        of_node.chain(of_service.and_then(|text| HostName::parse(text).ok()))
    }
}

impl CatalogDeregistration {
    /// Reads the body of `PUT /v1/catalog/deregister`.
    ///
    /// # Errors
    /// The first invalid field.
    pub fn read(body: &Value) -> Result<Self, FieldError> {
        let fields = Fields::new(body, "")?;
        let (name, _) = node_name(&fields)?;
        refuse_partitions(&fields)?;
        let part = match (fields.text("ServiceID")?, fields.text("CheckID")?) {
            (Some(id), _) => Part::Service(id.to_owned()),
            (None, Some(id)) => Part::Check(id.to_owned()),
            (None, None) => Part::Node,
        };
        Ok(Self { name, part })
    }
}

impl NodeFields {
    fn read(
        fields: &Fields<'_>,
        name: &RegisteredName,
        text: &str,
        mut addresses: Addresses,
    ) -> Result<Self, FieldError> {
        let id = fields.text("ID")?.map(Uuid::parse_str).transpose();
        let id = id.map_err(|_| fields.mismatch("ID", "a UUID"))?;
        let tagged = fields.texts("TaggedAddresses")?;
        for key in LAN {
            let Some(text) = tagged.get(key) else { continue };
            let address = text.parse().map_err(|_| FieldError::Mismatch {
                field: format!("TaggedAddresses.{key}"),
                expected: "an IP address".to_owned(),
                found: format!("{text:?}"),
            })?;
            if let Addresses::Given(addresses) = &mut addresses
                && !addresses.contains(&address)
            {
                addresses.push(address);
            }
        }
        let letter_case = (text != name.as_str()).then(|| SmolStr::new(text));
        Ok(Self { letter_case, id, addresses, tagged, meta: fields.texts("NodeMeta")? })
    }
}

impl ReportedCheck {
    fn read(body: &Value, place: &str, node: &RegisteredName) -> Result<Self, FieldError> {
        let fields = Fields::new(body, place)?;
        if let Some(other) = fields.text("Node")?
            && !other.eq_ignore_ascii_case(node.as_str())
        {
            let reason = format!("the check is of node {other:?}, the registration of node {:?}", node.as_str());
            return Err(FieldError::Conflict { field: fields.path("Node"), reason });
        }
        let (id, name) = (fields.text("CheckID")?.or(fields.text("ID")?), fields.text("Name")?);
        let Some(given) = id.or(name) else {
            let reason = "CheckID is missing: it is the id of the check, by default its Name".to_owned();
            return Err(FieldError::Conflict { field: fields.place().to_owned(), reason });
        };
        check_id(&fields, if id.is_some() { "CheckID" } else { "Name" }, given)?;
        let name = name.unwrap_or_default();
        if !name.is_empty() {
            check_text(&fields, "Name", name)?;
        }
        let word = fields.text("Status")?.unwrap_or("critical");
        let expected = "\"passing\", \"warning\" or \"critical\"";
        let definition = fields.object("Definition")?.filter(|_| !fields.is_empty("Definition"));
        Ok(Self {
            id: given.into(),
            name: name.into(),
            status: Status::from_word(word).ok_or_else(|| fields.mismatch("Status", expected))?,
            output: bounded(fields.text("Output")?.unwrap_or_default()),
            service: fields.text("ServiceID")?.map(SmolStr::new),
            notes: check_notes(fields.text("Notes")?),
            definition: definition.and_then(|_| fields.get("Definition")).map(Value::to_string).unwrap_or_default(),
        })
    }
}

/// The field `Node`, folded and as written.
fn node_name<'a>(fields: &Fields<'a>) -> Result<(RegisteredName, &'a str), FieldError> {
    let text = fields.text("Node")?.ok_or(FieldError::Missing { field: "Node", what: "the node's name" })?;
    let expected = format!("a name of 1 to {MAX_REGISTERED_NAME} octets without control characters");
    Ok((RegisteredName::parse(text).map_err(|_| fields.mismatch("Node", &expected))?, text))
}

fn refuse_partitions(fields: &Fields<'_>) -> Result<(), FieldError> {
    for (field, reason) in [
        ("Namespace", "muster has one namespace and one partition: leave it out"),
        ("Partition", "muster has one namespace and one partition: leave it out"),
        ("PeerName", "muster has no peerings: leave it out"),
    ] {
        if fields.text(field)?.is_some_and(|value| value != "default") {
            return Err(fields.unsupported(field, reason));
        }
    }
    Ok(())
}

/// Returns a service of the catalog as a service of `agent/service/register`: the name is in another field, and checks are
/// beside the service.
fn service(service: &Value) -> Result<Value, FieldError> {
    let fields = Fields::new(service, "Service")?;
    let missing = FieldError::Missing { field: "Service.Service", what: "the service's name" };
    let name = fields.text("Service")?.ok_or(missing)?;
    let mut body = service.clone();
    if let Some(table) = body.as_object_mut() {
        table.retain(|key, _| !["Service", "Name", "Check", "Checks"].iter().any(|field| is(key, field)));
        table.insert("Name".to_owned(), name.into());
    }
    Ok(body)
}
