//! Names beyond our zones: who may ask for them, and what can be said without asking anybody.

pub mod cache;
pub mod forward;
pub mod loop_detection;
pub mod reply;
pub mod special_use;

use std::sync::Arc;

use self::{
    cache::{Cache, Hit, Key},
    loop_detection::LoopDetector,
    special_use::SpecialUse,
};
use super::{
    answer::Ede,
    message::{
        codes::ede,
        query::{LookupName, Query},
    },
};
use crate::model::{
    access::{Client, ClientRange},
    name::Name,
};

/// What an agent knows of names that are not its own.
pub struct Recursion {
    /// Who may ask for them.
    pub allow: Vec<ClientRange>,
    /// Suffixes that have upstreams of their own: nothing below them stays here.
    pub routes: Vec<Name>,
    /// What was asked for before.
    pub cache: Arc<Cache>,
    /// Questions of our own that may come back.
    pub echoes: Arc<LoopDetector>,
}

/// What is known of a question.
pub enum Known {
    /// What an upstream said of it.
    Cached(Hit),
    /// That it stays here.
    Local(SpecialUse),
    /// Nothing: an upstream has to be asked.
    Nothing,
}

impl Recursion {
    /// What is known of a question, of `name` rather than the query's own.
    ///
    /// # Errors
    /// Why it is not answered.
    pub fn find(&self, query: &Query<'_>, name: &LookupName, client: Option<Client>) -> Result<Known, Ede<'static>> {
        let Some(client) = client.filter(|client| self.allows(*client)) else {
            let text = "resolver.allow does not list this client";
            return Err(Ede { code: ede::PROHIBITED, text });
        };
        let is_plain = query.edns.is_none_or(|edns| !edns.others);
        if is_plain && let Some(hit) = self.cache.get(Key::new(query, name).as_bytes(), client.now) {
            // An upstream is asked before what it said of old is told.
            return Ok(if matches!(hit, Hit::Stale { tried: false, .. }) {
                Known::Nothing
            } else {
                Known::Cached(hit)
            });
        }
        if let Some(local) = SpecialUse::find(name).filter(|_| !self.is_routed(name)) {
            return Ok(Known::Local(local));
        }
        if self.echoes.hear(name) {
            return Err(Ede { code: ede::OTHER, text: "this question is this server's own" });
        }
        Ok(Known::Nothing)
    }

    /// Whether this client may ask.
    pub fn allows(&self, client: Client) -> bool {
        self.allow.iter().any(|allow| allow.matches(client.address))
    }

    fn is_routed(&self, name: &LookupName) -> bool {
        // A route for everything is like `upstreams`: local names are none of it.
        self.routes.iter().any(|route| route.wire().len() > 1 && is_within(name.wire(), route.wire()))
    }
}

/// Whether a name is at or below a suffix: both in wire form and lower case.
pub fn is_within(name: &[u8], suffix: &[u8]) -> bool {
    let mut rest = name;
    loop {
        if rest == suffix {
            return true;
        }
        match rest.split_first() {
            Some((len @ 1.., labels)) => rest = labels.get(usize::from(*len)..).unwrap_or_default(),
            _ => return false,
        }
    }
}
