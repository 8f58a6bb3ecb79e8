//! What a client of the HTTP API registers, from Consul's JSON to a definition.
//!
//! Clients write the same field in several ways: `ServiceID`, `service_id`, `serviceid`. Keys are therefore read without
//! case and underscores, as Consul does; the keys of `Meta` and of `Header` are data and stay as they are. Fields that are
//! not known are passed over. Those that are known and mean something that muster has not are refused with a reason, so
//! that nobody relies on what is not done.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use serde_json::{Map, Value};
use smol_str::SmolStr;
use url::Url;

use super::failure::Fault;
use crate::{
    gossip::record::{MAX_VALUE, value_len},
    model::{
        announcement::MAX_CHECK_TEXT,
        bounds,
        health::Status,
        name::{Label, MAX_LABEL},
        service::{
            Check, CheckTitle, DEFAULT_INTERVAL, DEFAULT_PRIORITY, DEFAULT_TIMEOUT, DEFAULT_WEIGHT, Definition,
            HttpProbe, Instance, InstanceKey, MAX_CHECKS, MAX_INTERVAL, MAX_STREAK, MIN_INTERVAL, Pace, Probe,
            Protocol,
        },
    },
    yaml::scalar::parse_endpoint,
};

/// The least `DeregisterCriticalServiceAfter`, as in Consul: a restart must not cost a registration.
const MIN_DEREGISTER: Duration = Duration::from_secs(60);
/// Characters of the mark that tells ids apart that would be one label: 24 bits.
const MARK: usize = 6;
/// The longest URL, in octets: what servers take, as for service files.
const MAX_URL: usize = 8 * 1024;

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

/// A check that a client registered for a service.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckRegistration {
    /// The id of the service.
    pub service: String,
    /// The check's own.
    pub id: SmolStr,
    /// What was sent.
    pub body: Value,
}

impl Registration {
    /// Reads the body of `PUT /v1/agent/service/register`.
    ///
    /// # Errors
    /// The first thing that is wrong with it, with the field's name.
    pub fn read(body: &Value, host: &Host) -> Result<Self, Fault> {
        let fields = Fields::new(body, "")?;
        let name = fields.text("Name")?.ok_or_else(|| Fault::missing("Name", "the service's name"))?;
        let service = Label::parse(name).map_err(|error| {
            let why = format!("{error}; a service's name is a label of the DNS: letters, digits and hyphens");
            Fault::new("Name", why)
        })?;
        let id = fields.text("ID")?.unwrap_or(name);
        bounds::registered_id(id).map_err(|fault| Fault::new("ID", fault.to_string()))?;
        for (field, what) in [
            ("Kind", "proxies and gateways"),
            ("Proxy", "proxies"),
            ("Connect", "service mesh"),
            ("SocketPath", "services on Unix sockets"),
        ] {
            if !fields.is_empty(field) {
                return Err(Fault::new(field, format!("muster has no {what}")));
            }
        }
        for field in ["Namespace", "Partition"] {
            if fields.text(field)?.is_some_and(|value| value != "default") {
                return Err(Fault::new(field, "muster has one namespace and one partition: leave it out".to_owned()));
            }
        }
        let port = match fields.number("Port")?.unwrap_or(0) {
            0 => None,
            port => Some(u16::try_from(port).map_err(|_| Fault::new("Port", format!("{port} is no port")))?),
        };
        let mut checks = Vec::new();
        let mut deregister_after = None;
        for (field, check) in fields.checks()? {
            let (check, after) = read_check(check, &field, &service)?;
            checks.push(check);
            deregister_after = [deregister_after, after].into_iter().flatten().min();
        }
        if checks.len() > MAX_CHECKS {
            return Err(Fault::new("Checks", format!("{} checks, of which there may be {MAX_CHECKS}", checks.len())));
        }
        let key = InstanceKey { service, id: label_of(id, &host.node) };
        let instance = Instance {
            key,
            addresses: addresses(&fields, host)?,
            port,
            ports: Vec::new(),
            protocol: Protocol::Tcp,
            tags: tags(&fields)?,
            meta: fields.texts("Meta")?,
            priority: DEFAULT_PRIORITY,
            weight: weight(&fields)?,
            ttl: None,
            registered_as: Some(SmolStr::new(id)),
        };
        instance.check().map_err(|fault| Fault::new("", fault.to_string()))?;
        if value_len(&instance) > MAX_VALUE {
            let why = format!("tags and meta together are longer than the {MAX_VALUE} octets that nodes exchange");
            return Err(Fault::new("", why));
        }
        let definition = Definition { instance: Arc::new(instance), enabled: true, checks, pace: Pace::default() };
        let ids: Vec<SmolStr> = (0..definition.checks.len()).map(|at| definition.check_id(at)).collect();
        if let Some(at) = (0..ids.len()).find(|at| ids[..*at].contains(&ids[*at])) {
            return Err(Fault::new("Checks", format!("two checks have the id {:?}", ids[at])));
        }
        Ok(Self { id: SmolStr::new(id), definition: Arc::new(definition), deregister_after, body: body.clone() })
    }

    /// The same in the place of `known`, which a client registered before under its id: a TTL check that is in both stands as
    /// it stood, and checks that were added to it by themselves stay, unless `only` the new ones are wanted.
    ///
    /// # Errors
    /// As [`read`](Self::read): there may be too many checks then.
    pub fn instead_of(&self, known: &Self, only: bool, host: &Host) -> Result<Self, Fault> {
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
    pub fn with_check(&self, check: &CheckRegistration, host: &Host) -> Result<Self, Fault> {
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
    pub fn without_check(&self, id: &str, host: &Host) -> Option<Result<Self, Fault>> {
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

impl CheckRegistration {
    /// Reads the body of `PUT /v1/agent/check/register`.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn read(body: &Value) -> Result<Self, Fault> {
        let fields = Fields::new(body, "")?;
        let name = fields.text("Name")?.ok_or_else(|| Fault::missing("Name", "the check's name"))?;
        let id = fields.text("CheckID")?.or(fields.text("ID")?).unwrap_or(name);
        let service = fields.text("ServiceID")?.ok_or_else(|| {
            let what = "the id of the service that it is for: muster has no checks of a node as a whole";
            Fault::missing("ServiceID", what)
        })?;
        check_text("CheckID", id)?;
        Ok(Self { service: service.to_owned(), id: SmolStr::new(id), body: body.clone() })
    }
}

/// The label of a registered id: unique in the cluster, since the node's name ends it, and the same at each start.
///
/// `web-1` on `host-a` becomes `web-1-host-a`. An id in other characters than a label's, or too long, is shortened and gets
/// a mark of its own: `db:5432` becomes `db-5432-x1f2e3-host-a`.
fn label_of(id: &str, node: &Label) -> Label {
    let ending = format!("-{node}");
    let room = MAX_LABEL.saturating_sub(ending.len());
    let whole = id.strip_suffix(ending.as_str()).unwrap_or(id);
    if whole.len() <= room
        && whole.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && let Ok(label) = Label::parse(&format!("{whole}{ending}"))
    {
        return label;
    }
    let digest = ring::digest::digest(&ring::digest::SHA256, id.as_bytes());
    let mark = data_encoding::HEXLOWER.encode(digest.as_ref());
    let mark = format!("x{}", &mark[..MARK]);
    let plain: String =
        id.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    let most = room.saturating_sub(mark.len() + 1);
    let stem = plain[..plain.len().min(most)].trim_matches('-');
    let short = node.as_str()[..node.as_str().len().min(MAX_LABEL - mark.len() - 1)].trim_end_matches('-');
    let text = if stem.is_empty() { format!("{mark}-{short}") } else { format!("{stem}-{mark}-{short}") };
    // It cannot fail: letters, digits, and hyphens inside, within the length. If it did, the node's name is a label.
    Label::parse(&text).unwrap_or_else(|_| node.clone())
}

fn addresses(fields: &Fields<'_>, host: &Host) -> Result<Vec<IpAddr>, Fault> {
    let parse = |field: &str, text: &str| {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        let address = bare.parse::<IpAddr>().map_err(|_| {
            let why = format!("{text:?} is no IP address: a host's name cannot be answered as A or AAAA");
            Fault::new(field, why)
        })?;
        bounds::host_address(&address).map_err(|fault| Fault::new(field, fault.to_string()))?;
        Ok(address)
    };
    let mut all = Vec::new();
    if let Some(text) = fields.text("Address")? {
        all.push(parse("Address", text)?);
    }
    if let Some(Value::Object(tagged)) = fields.get("TaggedAddresses") {
        for key in ["lan_ipv4", "lan_ipv6"] {
            let text = tagged.get(key).and_then(|at| Fields::new(at, "").ok()?.text("Address").ok()?);
            if let Some(text) = text {
                let address = parse(key, text)?;
                if !all.contains(&address) {
                    all.push(address);
                }
            }
        }
    }
    Ok(if all.is_empty() { host.addresses.clone() } else { all })
}

fn tags(fields: &Fields<'_>) -> Result<Vec<String>, Fault> {
    let mut tags: Vec<String> = Vec::new();
    match fields.get("Tags") {
        None | Some(Value::Null) => {}
        Some(Value::Array(list)) => {
            for tag in list {
                let tag = tag.as_str().ok_or_else(|| Fault::new("Tags", "a tag is a text".to_owned()))?;
                if !tag.is_empty() && !tags.iter().any(|known| known == tag) {
                    tags.push(tag.to_owned());
                }
            }
        }
        Some(_) => return Err(Fault::new("Tags", "expected a list of texts".to_owned())),
    }
    Ok(tags)
}

fn weight(fields: &Fields<'_>) -> Result<u16, Fault> {
    let Some(weights) = fields.get("Weights").filter(|value| !value.is_null()) else { return Ok(DEFAULT_WEIGHT) };
    let passing = Fields::new(weights, "Weights")?.number("Passing")?;
    let Some(passing) = passing else { return Ok(DEFAULT_WEIGHT) };
    u16::try_from(passing).map_err(|_| Fault::new("Weights.Passing", format!("{passing} is no weight (0 to 65535)")))
}

/// One check, and for how long it may be critical.
fn read_check(body: &Value, place: &str, own: &Label) -> Result<(Check, Option<Duration>), Fault> {
    let fields = Fields::new(body, place)?;
    for (field, why) in [
        ("Args", "commands are never taken by HTTP: use an `exec` check in a service file"),
        ("ScriptArgs", "commands are never taken by HTTP: use an `exec` check in a service file"),
        ("Script", "commands are never taken by HTTP: use an `exec` check in a service file"),
        ("DockerContainerID", "commands are never taken by HTTP: use an `exec` check in a service file"),
        ("UDP", "muster has no check over UDP"),
        ("H2PING", "muster has no HTTP/2 ping: use GRPC or HTTP"),
        ("OSService", "use a `systemd` check in a service file"),
        ("AliasNode", "muster has aliases of services alone"),
        ("GRPCUseTLS", "muster's gRPC check is in clear text: use HTTP, or leave it out"),
    ] {
        if !fields.is_empty(field) {
            return Err(fields.fault(field, why));
        }
    }
    let kinds: Vec<&str> =
        ["TTL", "HTTP", "TCP", "GRPC", "AliasService"].into_iter().filter(|kind| !fields.is_empty(kind)).collect();
    let [kind] = kinds[..] else {
        return Err(match kinds[..] {
            [] => fields.fault("", "a check has one of TTL, HTTP, TCP, GRPC and AliasService"),
            [first, second, ..] => fields.fault(second, &format!("a check asks one thing, and this one has {first}")),
            [_] => fields.fault("", "a check asks one thing"),
        });
    };
    let bounded = |field: &'static str, default: Duration, least: Duration| match fields.duration(field)? {
        None | Some(Duration::ZERO) => Ok(default),
        Some(span) if (least..=MAX_INTERVAL).contains(&span) => Ok(span),
        Some(span) => Err(fields.fault(field, &format!("{span:?} is not from {least:?} to {MAX_INTERVAL:?}"))),
    };
    let interval = bounded("Interval", DEFAULT_INTERVAL, MIN_INTERVAL)?;
    let timeout = bounded("Timeout", DEFAULT_TIMEOUT, Duration::from_millis(1))?.min(interval);
    let probe = match kind {
        "TTL" => Probe::Ttl { ttl: bounded("TTL", DEFAULT_INTERVAL, MIN_INTERVAL)? },
        "HTTP" => Probe::Http(http(&fields)?),
        "TCP" => Probe::Tcp(endpoint(&fields, "TCP", fields.text("TCP")?.unwrap_or_default())?),
        "GRPC" => {
            let (address, service) =
                fields.text("GRPC")?.map_or(("", ""), |text| text.split_once('/').unwrap_or((text, "")));
            Probe::Grpc { endpoint: endpoint(&fields, "GRPC", address)?, service: service.to_owned() }
        }
        _ => {
            let text = fields.text("AliasService")?.unwrap_or_default();
            let service = Label::parse(text).map_err(|error| fields.fault("AliasService", &error.to_string()))?;
            if service == *own {
                return Err(fields.fault("AliasService", "the service is an alias of itself"));
            }
            Probe::Alias { service }
        }
    };
    let word = fields.text("Status")?.unwrap_or("critical");
    let initial = Status::from_word(word)
        .ok_or_else(|| fields.fault("Status", &format!("{word:?} is none of passing, warning and critical")))?;
    let streak = |field| {
        let streak = fields.number(field)?.unwrap_or(1).max(1);
        let fitting = u32::try_from(streak).ok().filter(|streak| *streak <= MAX_STREAK);
        fitting.ok_or_else(|| fields.fault(field, &format!("{streak} is more than {MAX_STREAK}")))
    };
    let (id, name) = (fields.text("CheckID")?.or(fields.text("ID")?), fields.text("Name")?);
    let title = match id {
        Some(id) => {
            let name = name.unwrap_or(id);
            check_text("CheckID", id).and_then(|()| check_text("Name", name))?;
            Some(CheckTitle { id: id.into(), name: name.into() })
        }
        None => None,
    };
    let after = fields.duration("DeregisterCriticalServiceAfter")?.filter(|after| !after.is_zero());
    let check = Check {
        probe,
        interval,
        timeout,
        rise: streak("SuccessBeforePassing")?,
        fall: streak("FailuresBeforeCritical")?,
        initial,
        title,
    };
    Ok((check, after.map(|after| after.max(MIN_DEREGISTER))))
}

fn http(fields: &Fields<'_>) -> Result<HttpProbe, Fault> {
    let text = fields.text("HTTP")?.unwrap_or_default();
    let url = Url::parse(text).ok().filter(|url| {
        matches!(url.scheme(), "http" | "https") && url.has_host() && url.port() != Some(0) && text.len() <= MAX_URL
    });
    let url = url.ok_or_else(|| fields.fault("HTTP", &format!("{text:?} is no URL of http or https")))?;
    let method = fields.text("Method")?.unwrap_or("GET").to_ascii_uppercase();
    if !method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-') {
        return Err(fields.fault("Method", &format!("{method:?} is no HTTP method")));
    }
    let mut headers = Vec::new();
    if let Some(Value::Object(table)) = fields.get("Header") {
        for (name, values) in table {
            let values = values.as_array().map_or(std::slice::from_ref(values), Vec::as_slice);
            for value in values {
                let value = value.as_str().ok_or_else(|| fields.fault("Header", "a value is a text"))?;
                let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
                let is_right = !name.is_empty()
                    && name.bytes().all(is_token)
                    && value.bytes().all(|b| matches!(b, b'\t' | 0x20..=0x7e));
                if !is_right {
                    return Err(fields.fault("Header", &format!("{name:?} is no header of printable ASCII")));
                }
                headers.push((name.clone(), value.to_owned()));
            }
        }
    }
    Ok(HttpProbe {
        url,
        method,
        headers,
        body: fields.text("Body")?.map(str::to_owned),
        expect_status: Vec::new(),
        tls_skip_verify: fields.flag("TLSSkipVerify")?,
    })
}

fn endpoint(fields: &Fields<'_>, field: &str, text: &str) -> Result<crate::model::service::Endpoint, Fault> {
    parse_endpoint(text, None).ok_or_else(|| fields.fault(field, &format!("{text:?} is not host:port")))
}

fn check_text(field: &str, text: &str) -> Result<(), Fault> {
    if (1..=MAX_CHECK_TEXT).contains(&text.len()) && !text.chars().any(char::is_control) {
        return Ok(());
    }
    Err(Fault::new(field, format!("it has 1 to {MAX_CHECK_TEXT} octets and no control characters")))
}

/// Whether a key is that field, in whatever case and with underscores or without.
fn is(key: &str, field: &str) -> bool {
    let plain = |text: &str| text.bytes().filter(|b| *b != b'_').map(|b| b.to_ascii_lowercase()).collect::<Vec<u8>>();
    plain(key) == plain(field)
}

/// A field of a JSON object, however its key is written.
pub fn field<'a>(body: &'a Value, name: &str) -> Option<&'a Value> {
    Some(Fields::new(body, "").ok()?.get(name)?).filter(|value| !value.is_null())
}

/// The fields of a JSON object, by their names in Consul's documentation.
struct Fields<'a> {
    place: String,
    fields: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    fn new(value: &'a Value, place: &str) -> Result<Self, Fault> {
        let fields = value.as_object().ok_or_else(|| Fault::new(place, "expected a JSON object".to_owned()))?;
        Ok(Self { place: place.to_owned(), fields })
    }

    fn get(&self, field: &str) -> Option<&'a Value> {
        self.fields.get(field).or_else(|| self.fields.iter().find(|(key, _)| is(key, field)).map(|(_, value)| value))
    }

    fn fault(&self, field: &str, why: &str) -> Fault {
        let at = if self.place.is_empty() || field.is_empty() { "" } else { "." };
        Fault::new(&format!("{}{at}{field}", self.place), why.to_owned())
    }

    /// Whether it is missing, or says nothing.
    fn is_empty(&self, field: &str) -> bool {
        match self.get(field) {
            None | Some(Value::Null | Value::Bool(false)) => true,
            Some(Value::String(text)) => text.is_empty(),
            Some(Value::Array(list)) => list.is_empty(),
            Some(Value::Object(table)) => table.values().all(|v| matches!(v, Value::Null | Value::Bool(false))),
            Some(Value::Number(number)) => number.as_f64() == Some(0.0),
            Some(Value::Bool(true)) => false,
        }
    }

    /// A text that is not empty.
    fn text(&self, field: &str) -> Result<Option<&'a str>, Fault> {
        match self.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
            Some(_) => Err(self.fault(field, "expected a text")),
        }
    }

    fn number(&self, field: &str) -> Result<Option<u64>, Fault> {
        match self.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64() {
                Some(number) => Ok(Some(number)),
                None => Err(self.fault(field, "expected a whole number from 0")),
            },
        }
    }

    fn flag(&self, field: &str) -> Result<bool, Fault> {
        match self.get(field) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(self.fault(field, "expected true or false")),
        }
    }

    fn texts(&self, field: &str) -> Result<BTreeMap<String, String>, Fault> {
        let mut texts = BTreeMap::new();
        match self.get(field) {
            None | Some(Value::Null) => {}
            Some(Value::Object(table)) => {
                for (key, value) in table {
                    let text = value.as_str().ok_or_else(|| self.fault(field, "its values are texts"))?;
                    texts.insert(key.clone(), text.to_owned());
                }
            }
            Some(_) => return Err(self.fault(field, "expected an object of texts")),
        }
        Ok(texts)
    }

    fn duration(&self, field: &str) -> Result<Option<Duration>, Fault> {
        match self.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(text)) => match go_duration(text) {
                Some(span) => Ok(Some(span)),
                None => Err(self.fault(field, &format!("{text:?} is no duration such as 10s or 1m30s"))),
            },
            // Go writes durations as nanoseconds.
            Some(value) => match value.as_u64() {
                Some(nanoseconds) => Ok(Some(Duration::from_nanos(nanoseconds))),
                None => Err(self.fault(field, "expected a duration such as 10s")),
            },
        }
    }

    /// `Check` and `Checks` as one list, each with its place.
    fn checks(&self) -> Result<Vec<(String, &'a Value)>, Fault> {
        let mut checks = Vec::new();
        // Some clients send an empty object where they mean none.
        if !self.is_empty("Check")
            && let Some(check) = self.get("Check")
        {
            checks.push(("Check".to_owned(), check));
        }
        match self.get("Checks") {
            None | Some(Value::Null) => {}
            Some(Value::Array(list)) => {
                let some = list.iter().filter(|check| !matches!(check, Value::Null));
                checks.extend(some.enumerate().map(|(at, check)| (format!("Checks[{at}]"), check)));
            }
            Some(_) => return Err(self.fault("Checks", "expected a list of checks")),
        }
        Ok(checks)
    }
}

/// A duration as Go writes it: `10s`, `1m30s`, `1.5h`, `120000ms`.
pub fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += number * unit;
        rest = &rest[end..];
    }
    if text.is_empty() { None } else { Duration::try_from_secs_f64(total).ok() }
}
