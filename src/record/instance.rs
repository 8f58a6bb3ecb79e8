//! Instances as records: JSON without the key.

use std::{borrow::Cow, collections::BTreeMap, fmt, net::IpAddr, str::FromStr};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
};
use smol_str::SmolStr;

use super::{RecordError, followed_host, json, parse};
use crate::model::{
    alpn::{AlpnIds, PortAlpn},
    meta::Meta,
    name::Label,
    nearest::{MinHealthy, Nearest},
    registered_name::RegisteredName,
    service::{Instance, InstanceKey, Protocol},
    tagged_addresses::TaggedAddress,
};

/// JSON form of an instance without its key. The defaults of absent fields are part of the format: they stay the same when
/// the defaults of service files change.
#[derive(Serialize, Deserialize)]
struct InstanceText<'a> {
    #[serde(rename = "addr")]
    addresses: Cow<'a, [IpAddr]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    host: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "host_problem")]
    problem: Option<Cow<'a, str>>,
    /// Address and port by tag.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    tagged: BTreeMap<Cow<'a, str>, (Cow<'a, str>, u16)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(default, skip_serializing_if = "<[_]>::is_empty", with = "port_table")]
    ports: Cow<'a, [(Label, u16)]>,
    /// Application protocols by the name of the port, which is empty for the default port.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    alpn: BTreeMap<Cow<'a, str>, Vec<Cow<'a, str>>>,
    #[serde(default = "tcp", skip_serializing_if = "is_tcp", rename = "proto", with = "ProtocolText")]
    protocol: Protocol,
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    tags: Cow<'a, [String]>,
    #[serde(default, skip_serializing_if = "is_empty")]
    meta: Cow<'a, Meta>,
    #[serde(default = "priority", skip_serializing_if = "is_priority", rename = "prio")]
    priority: u16,
    #[serde(default = "weight", skip_serializing_if = "is_weight")]
    weight: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ttl: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "as_text")]
    nearest: Option<Nearest>,
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "min", with = "as_text")]
    min_healthy: Option<MinHealthy>,
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "as")]
    registered_as: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "on")]
    external: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "is_false", rename = "eto")]
    tag_override: bool,
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "case")]
    service_case: Option<Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Protocol", rename_all = "lowercase")]
enum ProtocolText {
    Tcp,
    Udp,
}

fn tcp() -> Protocol {
    Protocol::Tcp
}

fn is_tcp(protocol: &Protocol) -> bool {
    *protocol == tcp()
}

fn is_empty(meta: &Meta) -> bool {
    meta.is_empty()
}

fn is_false(flag: &bool) -> bool {
    !flag
}

fn priority() -> u16 {
    1
}

fn is_priority(value: &u16) -> bool {
    *value == priority()
}

fn weight() -> u16 {
    10
}

fn is_weight(value: &u16) -> bool {
    *value == weight()
}

/// An optional value as the text that people write.
mod as_text {
    use super::{Cow, Deserialize, Deserializer, FromStr, Serializer, fmt};

    pub(crate) fn serialize<T: fmt::Display, S: Serializer>(value: &Option<T>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => to.collect_str(value),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, T, D>(from: D) -> Result<Option<T>, D::Error>
    where
        T: FromStr<Err: fmt::Display>,
        D: Deserializer<'de>,
    {
        let text: Option<Cow<'_, str>> = Option::deserialize(from)?;
        text.map(|text| text.parse().map_err(serde::de::Error::custom)).transpose()
    }
}

/// Named ports as a JSON object that keeps their order.
mod port_table {
    use super::{Cow, Deserializer, Label, MapAccess, PortName, Serializer, Visitor, fmt};

    pub(crate) fn serialize<S: Serializer>(ports: &[(Label, u16)], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(ports.iter().map(|(name, port)| (name.as_str(), port)))
    }

    pub(crate) fn deserialize<'de, 'a, D: Deserializer<'de>>(from: D) -> Result<Cow<'a, [(Label, u16)]>, D::Error> {
        struct Ports;
        impl<'de> Visitor<'de> for Ports {
            type Value = Vec<(Label, u16)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("named ports")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut ports = Vec::new();
                while let Some((PortName(name), port)) = map.next_entry()? {
                    ports.push((name, port));
                }
                Ok(ports)
            }
        }
        from.deserialize_map(Ports).map(Cow::Owned)
    }
}

/// A port name, parsed without an intermediate string.
struct PortName(Label);

impl<'de> Deserialize<'de> for PortName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = PortName;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port name")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<PortName, E> {
                Label::parse(text).map(PortName).map_err(E::custom)
            }
        }
        from.deserialize_str(Text)
    }
}

pub(super) fn instance_value(instance: &Instance) -> String {
    json(&InstanceText {
        addresses: Cow::Borrowed(&instance.addresses),
        host: instance.host.as_ref().map(|host| Cow::Borrowed(host.name.as_str())),
        problem: instance.host.as_ref().and_then(|host| host.problem.as_deref()).map(Cow::Borrowed),
        tagged: instance.tagged.iter().map(|(tag, to)| (tag.into(), (to.address.as_str().into(), to.port))).collect(),
        port: instance.port,
        ports: Cow::Borrowed(&instance.ports),
        alpn: instance.alpn.iter().map(alpn_text).collect(),
        protocol: instance.protocol,
        tags: Cow::Borrowed(&instance.tags),
        meta: Cow::Borrowed(&instance.meta),
        priority: instance.priority,
        weight: instance.weight,
        ttl: instance.ttl,
        nearest: instance.nearest,
        min_healthy: instance.min_healthy,
        registered_as: instance.registered_as.as_deref().map(Cow::Borrowed),
        external: instance.external.as_ref().map(|node| Cow::Borrowed(node.as_str())),
        tag_override: instance.tag_override,
        service_case: instance.service_case.as_deref().map(Cow::Borrowed),
    })
}

fn alpn_text(alpn: &PortAlpn) -> (Cow<'_, str>, Vec<Cow<'_, str>>) {
    let port = alpn.port.as_ref().map_or("", Label::as_str);
    (port.into(), alpn.ids.iter().map(|id| id.as_str().into()).collect())
}

fn read_alpn((port, ids): (Cow<'_, str>, Vec<Cow<'_, str>>)) -> Result<PortAlpn, RecordError> {
    let port = (!port.is_empty()).then(|| Label::parse(&port)).transpose();
    let port = port.map_err(|error| RecordError::Json(format!("alpn: {error}")))?;
    let ids = AlpnIds::new(ids.into_iter().map(SmolStr::new).collect());
    Ok(PortAlpn { port, ids: ids.map_err(RecordError::Alpn)? })
}

pub(super) fn read_instance(key: InstanceKey, value: &str) -> Result<Instance, RecordError> {
    let text: InstanceText<'_> = parse(value)?;
    let external = text.external.as_deref().map(RegisteredName::parse).transpose();
    let host = followed_host(text.host.as_deref(), text.problem.as_deref())?;
    let tagged = text
        .tagged
        .into_iter()
        .map(|(tag, (address, port))| (SmolStr::new(tag), TaggedAddress { address: SmolStr::new(address), port }));
    let instance = Instance {
        key,
        addresses: text.addresses.into_owned().into(),
        host,
        tagged: tagged.collect(),
        port: text.port,
        ports: text.ports.into_owned().into(),
        alpn: text.alpn.into_iter().map(read_alpn).collect::<Result<_, _>>()?,
        protocol: text.protocol,
        tags: text.tags.into_owned().into(),
        meta: text.meta.into_owned(),
        priority: text.priority,
        weight: text.weight,
        ttl: text.ttl,
        nearest: text.nearest,
        min_healthy: text.min_healthy,
        registered_as: text.registered_as.map(SmolStr::new),
        external: external.map_err(RecordError::KeyName)?.map(Box::new),
        tag_override: text.tag_override,
        service_case: text.service_case.map(SmolStr::new),
    };
    instance.check().map_err(RecordError::Bounds)?;
    Ok(instance)
}
