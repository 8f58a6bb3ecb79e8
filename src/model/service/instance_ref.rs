//! Keys of maps of instances that share the instance instead of copying its names.
//!
//! A node keeps several maps by instance. Two labels have 48 octets, and a map with room for more entries takes some 100 for
//! each pair of them. A reference takes 8.

use std::{borrow::Borrow, cmp::Ordering, fmt, ops::Deref, sync::Arc};

use super::{Instance, InstanceKey};

/// Reference to an instance that is equal, ordered and looked up like its [`InstanceKey`].
#[derive(Clone, Debug)]
pub struct InstanceRef(Arc<Instance>);

impl From<&Arc<Instance>> for InstanceRef {
    fn from(instance: &Arc<Instance>) -> Self {
        Self(Arc::clone(instance))
    }
}

#[cfg(test)]
impl InstanceRef {
    /// Returns the instance.
    pub(crate) fn instance(&self) -> &Arc<Instance> {
        &self.0
    }
}

impl Deref for InstanceRef {
    type Target = InstanceKey;

    fn deref(&self) -> &InstanceKey {
        &self.0.key
    }
}

impl Borrow<InstanceKey> for InstanceRef {
    fn borrow(&self) -> &InstanceKey {
        self
    }
}

impl fmt::Display for InstanceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl PartialEq for InstanceRef {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for InstanceRef {}

impl PartialOrd for InstanceRef {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for InstanceRef {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::name::label;

    fn instance(id: &str, port: u16) -> Arc<Instance> {
        let key = InstanceKey { service: label("web").into(), id: label(id) };
        Arc::new(Instance { port: Some(port), ..Instance::new(key, vec![]) })
    }

    #[test]
    fn map_by_instance_is_looked_up_by_key_and_keeps_the_newest_instance() {
        let (old, new) = (instance("a", 1), instance("a", 2));
        let mut map = imbl::OrdMap::unit(InstanceRef::from(&old), 1);
        map.insert(InstanceRef::from(&instance("b", 1)), 2);
        map.insert(InstanceRef::from(&new), 3);
        assert_eq!(map.get(&old.key), Some(&3));
        let kept: Vec<_> = map.iter().map(|(key, value)| (key.0.port, *value)).collect();
        assert_eq!(kept, [(Some(2), 3), (Some(1), 2)]);
        assert_eq!(map.remove(&new.key), Some(3));
        assert_eq!(Arc::strong_count(&old), 1);
    }
}
