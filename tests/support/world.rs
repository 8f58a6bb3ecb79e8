//! DNS tables of one node, whose service file a test provides.

use std::{path::Path, sync::Arc};

use muster::{
    dns::zone::{Settings, Tables},
    files::service_file::{self, Defaults},
    model::{
        alias_domain::AliasDomain,
        announcement::{Announcement, Announcements, InstanceState, Node},
        catalog::{Catalog, Freshness, NodeView, View},
        name::{Label, Name},
        service::InstanceKey,
    },
};

/// Returns the tables of `host-a` at 10.0.0.7, whose service file has this text. All instances are passing; the zone is
/// `service.local`.
pub fn tables(services: &str) -> Tables {
    tables_with_states(services, |_| InstanceState::Passing)
}

/// Returns the same tables with alias domains.
pub fn tables_with_aliases(services: &str, aliases: Vec<AliasDomain>) -> Tables {
    build(services, |_| InstanceState::Passing, aliases)
}

/// Returns the same tables with instances in these states.
pub fn tables_with_states(services: &str, state: impl Fn(&InstanceKey) -> InstanceState) -> Tables {
    build(services, state, Vec::new())
}

fn build(services: &str, state: impl Fn(&InstanceKey) -> InstanceState, aliases: Vec<AliasDomain>) -> Tables {
    let node = Label::parse("host-a").unwrap();
    let addresses = vec!["10.0.0.7".parse().unwrap()];
    let defaults = Defaults { node: &node, addresses: &addresses, allow_exec: false };
    let file = service_file::parse(Path::new("world.yaml"), services.as_bytes(), &defaults);
    let entries = file.unwrap_or_else(|problems| panic!("{problems:#?}")).entries;
    let announced = entries.into_iter().map(|entry| {
        let instance = entry.definition.instance.clone();
        let state = state(&instance.key);
        Announcement::new(instance, state).into_entry()
    });
    let announcements: Announcements = announced.collect();
    let datacenter = Label::parse("dc1").unwrap();
    let view = NodeView {
        node: Arc::new(Node {
            name: node.clone(),
            addresses,
            datacenter: datacenter.clone(),
            zone: None,
            meta: Default::default(),
        }),
        announcements,
        freshness: Freshness::Live,
    };
    let domain = Name::parse("service.local").unwrap();
    let mut tables = Tables::new(Settings { aliases, ..Settings::new(node.clone(), datacenter, domain) });
    let mut catalog = Catalog::default();
    let touched = catalog.update(View::from_iter([(node, Arc::new(view))]));
    tables.update(&catalog, &touched);
    tables
}
