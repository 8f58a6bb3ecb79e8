//! Aliases of upstreams: CNAMEs whose targets are in our zones, which only this server can answer.

use super::{Audience, Client};
use crate::dns::{
    answer::{Answer, Outside},
    message::query::LookupName,
    recursion::upstream_reply::Reply,
    zone::Tables,
};

/// Whether the aliases in the reply to a question are followed into our zones.
#[derive(Clone, Copy, Debug)]
pub(super) struct Aliases {
    /// False for a public name that rebinding protection covers: an alias would reach our hosts as a private address does. False also
    /// if the answer begins with proofs, whose place the alias would move.
    pub(super) is_allowed: bool,
    /// False if the client asks for signatures: it follows aliases into signed zones itself, to get all proofs.
    pub(super) enters_signed: bool,
    pub(super) audience: Audience,
    pub(super) client: Option<Client>,
    pub(super) is_inside: bool,
}

impl Aliases {
    /// Returns our answer to the alias in a reply; `None` if it has none, or if it is not followed.
    #[inline]
    pub(super) fn follow<'t>(&self, tables: &'t Tables, reply: &Reply, qtype: u16) -> Option<Answer<'t>> {
        self.follow_to(tables, reply.alias()?, qtype)
    }

    fn follow_to<'t>(&self, tables: &'t Tables, alias: &[u8], qtype: u16) -> Option<Answer<'t>> {
        let target = LookupName::from_wire(alias).filter(|target| tables.is_authoritative_for(target))?;
        let answer = tables.lookup_target(&target, qtype);
        let may_see = self.audience.includes(self.client, &answer) && (self.is_inside || !answer.has_reasons());
        let may_enter = self.enters_signed || tables.zone(&target).is_none_or(|zone| zone.signer().is_none());
        (self.is_allowed && may_enter && may_see && answer.outside == Outside::Nothing).then_some(answer)
    }
}
