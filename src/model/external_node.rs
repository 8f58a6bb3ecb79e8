//! External nodes: hosts without an agent. The agent through which a client registered one announces it, with its instances.
//!
//! An instance names its external node in [`Instance::external`](super::service::Instance::external). The record of the node
//! and those of its instances arrive independently.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use smol_str::SmolStr;
use thiserror::Error;
use uuid::Uuid;

use super::{
    announcement::{CheckReport, MAX_CHECK_TEXT},
    bounds::{self, BoundsError},
    followed_host::{FollowedHost, HostName},
    list::List,
    registered_name::RegisteredName,
    service::MAX_CHECKS,
};

/// Maximum number of external nodes of one agent. Every node of the cluster keeps all of them.
pub const MAX_EXTERNAL_NODES: usize = 1000;
/// Maximum number of instances on the external nodes of one agent: as many as it may have registered services.
pub const MAX_EXTERNAL_INSTANCES: usize = 2000;
/// Maximum number of tagged addresses of an external node; Consul defines six.
pub const MAX_TAGGED_ADDRESSES: usize = 16;
/// Maximum length of the name or the value of a tagged address in octets: a name in the DNS fits.
pub const MAX_TAGGED_ADDRESS: usize = 255;

/// A host without an agent, as its owner announces it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalNode {
    /// Name of the node.
    pub name: RegisteredName,
    /// Name in the letter case of its registration. `None`: as in `name`.
    pub letter_case: Option<SmolStr>,
    /// Id given by the client; `None`: derived from the name.
    pub id: Option<Uuid>,
    /// Addresses of the host, within the bounds of an instance's addresses; none while those of `host` are unknown.
    pub addresses: List<IpAddr>,
    /// Host name that was registered as the address, and whose addresses these are. `None`: the addresses were registered.
    pub host: Option<Arc<FollowedHost>>,
    /// Further addresses for clients of the HTTP API, by Consul's names such as `wan`.
    pub tagged: BTreeMap<String, String>,
    /// `key=value` pairs, within [`bounds::node_meta`].
    pub meta: BTreeMap<String, String>,
    /// Checks of the node as a whole, as a client reported them.
    pub checks: Vec<CheckReport>,
    /// Definitions of checks of the node and of its instances, by check id, for programs that execute the checks: JSON objects,
    /// as registered. No node evaluates them.
    pub definitions: BTreeMap<SmolStr, String>,
}

/// External nodes that one node announces, by name. Clones share structure.
pub type ExternalNodes = imbl::OrdMap<RegisteredName, Arc<ExternalNode>>;

/// Bound that an external node exceeds.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ExternalNodeError {
    /// An address or the metadata.
    #[error("{0}")]
    Bounds(#[from] BoundsError),
    /// Letter case of another name.
    #[error("`{0}` is not the name of the node in another letter case")]
    LetterCase(SmolStr),
    /// Too many tagged addresses, or one with an empty or too long text.
    #[error(
        "a node has at most {MAX_TAGGED_ADDRESSES} tagged addresses with texts of 1 to {MAX_TAGGED_ADDRESS} octets and no \
         control characters"
    )]
    Tagged,
    /// Too many checks, with their number.
    #[error("a node has at most {MAX_CHECKS} checks, this one has {0}")]
    Checks(usize),
    /// A check without an id, or with too long an id, name or notes, with the size.
    #[error("id, name and notes of a check have at most {MAX_CHECK_TEXT} octets, the id at least 1; found {0}")]
    CheckText(usize),
}

impl ExternalNode {
    /// Returns a node without tagged addresses, metadata and checks.
    pub fn new(name: RegisteredName, addresses: Vec<IpAddr>) -> Self {
        Self {
            name,
            letter_case: None,
            id: None,
            addresses: addresses.into(),
            host: None,
            tagged: BTreeMap::new(),
            meta: BTreeMap::new(),
            checks: Vec::new(),
            definitions: BTreeMap::new(),
        }
    }

    /// Returns the name in the letter case of its registration.
    pub fn shown_name(&self) -> &str {
        self.letter_case.as_deref().unwrap_or_else(|| self.name.as_str())
    }

    /// Returns the host name that was registered as the address, if it was one.
    pub fn host_name(&self) -> Option<&HostName> {
        self.host.as_ref().map(|host| &host.name)
    }

    /// Checks the node against all bounds.
    ///
    /// # Errors
    /// The first bound that the node exceeds.
    pub fn check(&self) -> Result<(), ExternalNodeError> {
        if self.host.is_none() || !self.addresses.is_empty() {
            bounds::addresses(&self.addresses)?;
        }
        bounds::node_meta(&self.meta)?;
        if let Some(text) = &self.letter_case
            && (!text.eq_ignore_ascii_case(self.name.as_str()) || text == self.name.as_str())
        {
            return Err(ExternalNodeError::LetterCase(text.clone()));
        }
        let fits = |text: &str| (1..=MAX_TAGGED_ADDRESS).contains(&text.len()) && !text.chars().any(char::is_control);
        let fits_all = self.tagged.iter().all(|(name, address)| fits(name) && fits(address));
        if self.tagged.len() > MAX_TAGGED_ADDRESSES || !fits_all {
            return Err(ExternalNodeError::Tagged);
        }
        if self.checks.len() > MAX_CHECKS {
            return Err(ExternalNodeError::Checks(self.checks.len()));
        }
        let texts = |check: &CheckReport| [(1, check.id.len()), (0, check.name.len()), (0, check.notes.len())];
        let wrong = self.checks.iter().flat_map(texts).find(|(least, len)| !(*least..=MAX_CHECK_TEXT).contains(len));
        if let Some((_, len)) = wrong {
            return Err(ExternalNodeError::CheckText(len));
        }
        Ok(())
    }

    /// Reports whether the node is the registered one: the addresses of a host name may differ.
    pub fn is_as_registered(&self, registered: &Self) -> bool {
        let Some(name) = self.host_name() else { return self == registered };
        let unresolved =
            Self { addresses: registered.addresses.clone(), host: registered.host.clone(), ..self.clone() };
        registered.host_name() == Some(name) && unresolved == *registered
    }

    /// Reports whether answers about the nodes are the same: all but checks.
    pub fn answers_like(&self, other: &Self) -> bool {
        (&self.name, &self.addresses, &self.meta) == (&other.name, &other.addresses, &other.meta)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{health::Status, registered_name::name};

    fn node() -> ExternalNode {
        ExternalNode::new(name("db1"), vec!["10.9.0.1".parse().unwrap()])
    }

    #[test]
    fn nodes_have_bounds() {
        let check = |id: &str| CheckReport {
            id: id.into(),
            name: "".into(),
            notes: "".into(),
            status: Status::Passing,
            output: "".into(),
            since: 0,
        };
        let tagged = |name: &str, address: &str| BTreeMap::from([(name.to_owned(), address.to_owned())]);
        let many = (0..=MAX_TAGGED_ADDRESSES).map(|at| (at.to_string(), "a".to_owned())).collect();
        let wrong_case = SmolStr::from("DB2");
        let host = Some(Arc::new(FollowedHost { name: HostName::parse("db1.example").unwrap(), problem: None }));
        let long_notes = CheckReport { notes: "x".repeat(MAX_CHECK_TEXT + 1).into(), ..check("ping") };
        let cases = [
            (node(), None),
            (ExternalNode { letter_case: Some("DB1".into()), ..node() }, None),
            (ExternalNode { tagged: tagged("wan", "db1.example"), ..node() }, None),
            (ExternalNode { checks: vec![check("ping"); MAX_CHECKS], ..node() }, None),
            (ExternalNode { host, ..ExternalNode::new(name("db1"), vec![]) }, None),
            (ExternalNode::new(name("db1"), vec![]), Some(ExternalNodeError::Bounds(BoundsError::NoAddress))),
            (
                ExternalNode { checks: vec![long_notes], ..node() },
                Some(ExternalNodeError::CheckText(MAX_CHECK_TEXT + 1)),
            ),
            (
                ExternalNode { letter_case: Some(wrong_case.clone()), ..node() },
                Some(ExternalNodeError::LetterCase(wrong_case)),
            ),
            (
                ExternalNode { letter_case: Some("db1".into()), ..node() },
                Some(ExternalNodeError::LetterCase("db1".into())),
            ),
            (ExternalNode { tagged: many, ..node() }, Some(ExternalNodeError::Tagged)),
            (ExternalNode { tagged: tagged("wan", ""), ..node() }, Some(ExternalNodeError::Tagged)),
            (ExternalNode { tagged: tagged("a\n", "b"), ..node() }, Some(ExternalNodeError::Tagged)),
            (ExternalNode { checks: vec![check("")], ..node() }, Some(ExternalNodeError::CheckText(0))),
            (
                ExternalNode { checks: vec![check("ping"); MAX_CHECKS + 1], ..node() },
                Some(ExternalNodeError::Checks(MAX_CHECKS + 1)),
            ),
            (
                ExternalNode { checks: vec![check(&"x".repeat(MAX_CHECK_TEXT + 1))], ..node() },
                Some(ExternalNodeError::CheckText(MAX_CHECK_TEXT + 1)),
            ),
        ];
        for (node, expected) in cases {
            assert_eq!(node.check().err(), expected, "{node:?}");
        }
    }
}
