//! Sources of replies: the upstreams of each name, and what is done to their replies before they are cached.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};
use tokio::sync::Semaphore;

use super::{fetch::Pool, screen::Screen, validation::Fetch};
use crate::{
    dns::{
        answer::Ede,
        message::codes::{Rcode, ede},
        recursion::{
            cache::{Cache, Entry},
            is_public, private_suffix, route,
            upstream_query::Forward,
            upstream_reply::Reply,
            validation::Security,
        },
        socket,
    },
    model::name::Name,
};

/// Maximum number of exchanges at a time for records of the chain of trust; more wait. Replies to all are cached, so a full cache
/// needs few.
const MAX_CHAIN_EXCHANGES: usize = 256;
/// Number of questions about the chain of trust at which those are removed that nothing awaits.
const PRUNE: usize = 1024;

/// Upstreams, cache and checks of replies.
pub(super) struct Sources {
    pub(super) default: Arc<Pool>,
    pub(super) routes: Vec<(Name, Arc<Pool>)>,
    pub(super) cache: Arc<Cache>,
    pub(super) screen: Screen,
}

/// Questions about the chain of trust that upstreams have not answered yet: equal ones are sent once.
#[derive(Default)]
struct Running(Mutex<HashMap<Box<[u8]>, WeakShared<Fetching>>>);

type Fetching = BoxFuture<'static, Arc<Entry>>;

impl Sources {
    /// Returns the upstreams of a name, in wire form and lower case.
    pub(super) fn pool(&self, name: &[u8]) -> &Pool {
        route(&self.routes, name).map_or(&self.default, |(_, pool)| pool)
    }

    /// Reports whether the default upstreams, or those of the root's route, resolve a name.
    pub(super) fn is_public(&self, name: &[u8]) -> bool {
        is_public(route(&self.routes, name))
    }

    /// Returns the suffix of the route of a name that is not public.
    pub(super) fn private_suffix(&self, name: &[u8]) -> Option<&Name> {
        private_suffix(route(&self.routes, name))
    }

    /// Asks the upstreams of a name.
    pub(super) async fn ask(&self, forward: &Forward) -> Reply {
        self.pool(forward.name()).fetch(forward).await.unwrap_or_else(|text| {
            let error = Ede { code: ede::NO_REACHABLE_AUTHORITY, text: &text };
            Reply::bare(Rcode::ServFail, error, forward.question())
        })
    }

    /// Returns a function that fetches records of the chain of trust: from the cache, else from the upstreams.
    pub(super) fn chain(self: Arc<Self>) -> Fetch {
        let (running, permits) = (Arc::new(Running::default()), Arc::new(Semaphore::new(MAX_CHAIN_EXCHANGES)));
        Arc::new(move |forward: Forward| {
            let (sources, running, permits) = (self.clone(), running.clone(), permits.clone());
            async move {
                if let Some(entry) = sources.cache.fresh(forward.key(), socket::now()) {
                    return entry;
                }
                let key: Box<[u8]> = forward.key().into();
                running.join(key, || sources.fetch_chain(forward, permits).boxed()).await
            }
            .boxed()
        })
    }

    async fn fetch_chain(self: Arc<Self>, forward: Forward, permits: Arc<Semaphore>) -> Arc<Entry> {
        // The semaphore is never closed.
        let _permit = permits.acquire().await;
        let reply = self.ask(&forward).await;
        // Addresses of name servers are not needed, and could be private.
        let reply = reply.without_additional().unwrap_or(reply).with_security(Security::Unvalidated);
        let reply = self.screen.without_own_names(reply, &forward);
        self.cache.put(forward.key(), reply, socket::now())
    }
}

impl Running {
    /// Returns the running fetch of a key, else a new one.
    fn join(&self, key: Box<[u8]>, start: impl FnOnce() -> Fetching) -> Shared<Fetching> {
        // No code under the lock can panic half-way.
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fetch) = running.get(&key).and_then(WeakShared::upgrade) {
            return fetch;
        }
        if running.len() >= PRUNE {
            running.retain(|_, fetch| fetch.upgrade().is_some());
        }
        let fetch = start().shared();
        running.extend(fetch.downgrade().map(|weak| (key, weak)));
        fetch
    }
}
