//! Checks of upstream replies before they are cached: records of our own zones, and private addresses of public names.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tracing::debug;

use crate::{
    dns::{
        answer::Ede,
        message::{
            codes::{Rcode, ede},
            query::LookupName,
        },
        recursion::{rebinding::RebindProtection, upstream_query::Forward, upstream_reply::Reply},
        zone::Tables,
    },
    metrics::{Resolver, Screened},
};

/// Checks of replies.
pub(super) struct Screen {
    tables: Arc<ArcSwap<Tables>>,
    rebind_protection: Option<RebindProtection>,
    metrics: Resolver,
}

impl Screen {
    pub(super) fn new(
        tables: Arc<ArcSwap<Tables>>,
        rebind_protection: Option<RebindProtection>,
        metrics: Resolver,
    ) -> Self {
        Self { tables, rebind_protection, metrics }
    }

    /// Returns the reply as clients may see it. `is_public` is true for a reply of the default upstreams, which resolve public
    /// names.
    pub(super) fn screen(&self, reply: Reply, forward: &Forward, is_public: bool) -> Reply {
        let reply = self.without_own_names(reply, forward);
        let protection = self.rebind_protection.as_ref().filter(|_| is_public);
        let Some(address) = protection.and_then(|protection| protection.violation(forward.name(), &reply)) else {
            return reply;
        };
        self.metrics.screened(Screened::Rebinding);
        let name = String::from_utf8_lossy(forward.name()).into_owned();
        debug!(%address, name, "private address of a public name withheld");
        let text = format!("private address {address} of a public name, see resolver.rebind_protection");
        Reply::bare(Rcode::NoError, Ede { code: ede::BLOCKED, text: &text }, forward.question())
    }

    /// Returns the current tables of our zones.
    pub(super) fn tables(&self) -> Arc<Tables> {
        self.tables.load_full()
    }

    /// Removes records of names in our zones, which only this server has. Names below a delegation belong to other servers.
    pub(super) fn without_own_names(&self, reply: Reply, forward: &Forward) -> Reply {
        let tables = self.tables.load();
        let is_ours = |name: &LookupName| tables.is_authoritative_for(name);
        if !reply.has_owner(is_ours) {
            return reply;
        }
        self.metrics.screened(Screened::OwnZone);
        reply.without(is_ours).unwrap_or_else(|| {
            let error = Ede { code: ede::OTHER, text: "the reply without names of this server's zones is too long" };
            Reply::bare(Rcode::ServFail, error, forward.question())
        })
    }
}
