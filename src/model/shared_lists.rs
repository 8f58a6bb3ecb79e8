//! Equal lists of instances in memory once.
//!
//! Most instances of a cluster have lists that others have as well. [`SharedLists`] finds the equal one.

use std::{collections::HashSet, hash::Hash, net::IpAddr};

use smol_str::SmolStr;

use super::{alpn::PortAlpn, list::List, name::Label, service::Instance, tagged_addresses::TaggedAddress};

/// Lists of known instances, to be shared with equal ones.
#[derive(Clone, Debug, Default)]
pub struct SharedLists {
    addresses: Pool<IpAddr>,
    ports: Pool<(Label, u16)>,
    alpn: Pool<PortAlpn>,
    tags: Pool<String>,
    meta: Pool<(SmolStr, SmolStr)>,
    tagged: Pool<(SmolStr, TaggedAddress)>,
}

impl SharedLists {
    /// Replaces the lists of the instance by equal ones of instances that were passed before.
    pub fn share(&mut self, instance: &mut Instance) {
        self.addresses.share(&mut instance.addresses);
        self.ports.share(&mut instance.ports);
        self.alpn.share(&mut instance.alpn);
        self.tags.share(&mut instance.tags);
        self.meta.share(instance.meta.pairs_mut());
        self.tagged.share(instance.tagged.list_mut());
    }
}

/// Fewest lists at which a pool looks for unused ones.
const MIN_LISTS: usize = 64;

/// Lists of one kind. At most half of them, and [`MIN_LISTS`], are unused.
#[derive(Clone, Debug)]
struct Pool<T> {
    known: HashSet<List<T>>,
    /// Number of lists at which unused ones are removed.
    full: usize,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { known: HashSet::new(), full: MIN_LISTS }
    }
}

impl<T: Eq + Hash> Pool<T> {
    fn share(&mut self, list: &mut List<T>) {
        if list.is_empty() {
            return;
        }
        if let Some(known) = self.known.get(list) {
            *list = known.clone();
            return;
        }
        if self.known.len() >= self.full {
            self.known.retain(|known| !known.is_unique());
            self.full = (2 * self.known.len()).max(MIN_LISTS);
            self.known.shrink_to(self.full);
        }
        self.known.insert(list.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{name::label, service::InstanceKey};

    fn instance(id: usize, tag: &str) -> Instance {
        let key = InstanceKey { service: label("web").into(), id: label(&format!("web-{id}")) };
        Instance {
            tags: vec![tag.to_owned()].into(),
            ports: vec![(label("http"), 80)].into(),
            meta: [("version", tag)].into(),
            ..Instance::new(key, vec!["10.0.0.7".parse().unwrap()])
        }
    }

    #[test]
    fn equal_lists_of_instances_are_in_memory_once() {
        let mut lists = SharedLists::default();
        let mut all = [instance(1, "v1"), instance(2, "v2"), instance(3, "v1")];
        let before = all.clone();
        all.iter_mut().for_each(|instance| lists.share(instance));
        assert_eq!(all, before);
        let [a, b, c] = &mut all;
        assert!(a.addresses.ptr_eq(&b.addresses) && a.ports.ptr_eq(&b.ports));
        assert!(a.tags.ptr_eq(&c.tags) && !a.tags.ptr_eq(&b.tags));
        assert!(a.meta.pairs_mut().ptr_eq(c.meta.pairs_mut()));
    }

    #[test]
    fn lists_that_no_instance_has_any_more_are_removed() {
        let mut lists = SharedLists::default();
        let kept: Vec<_> = (0..100)
            .map(|id| {
                let mut instance = instance(id, &format!("v{id}"));
                lists.share(&mut instance);
                instance
            })
            .collect();
        for id in 100..10_000 {
            lists.share(&mut instance(id, &format!("v{id}")));
        }
        assert!(lists.tags.known.len() <= 2 * kept.len(), "{}", lists.tags.known.len());
        assert!(kept.iter().all(|instance| lists.tags.known.contains(&instance.tags)));
        assert_eq!(lists.addresses.known.len(), 1);
    }
}
