//! Zones in responses: items sorted by their distance from a node, and the tier that is answered.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{json_of, streams::TestAgent};
use crate::{
    dns::zone::Tables,
    model::{
        announcement::{Announcement, Announcements, InstanceState, Node},
        catalog::{Freshness, NodeView, View},
        name::{Label, label},
        nearest::Nearest,
        registered_name,
        service::{Instance, InstanceKey},
    },
};

/// Nodes with their places and the states of their instances of `web`; `edge` has none.
const NODES: [(&str, &str, Option<&str>, Option<InstanceState>); 5] = [
    ("host-d", "dc2", Some("z1"), Some(InstanceState::Passing)),
    ("host-b", "dc1", Some("z2"), Some(InstanceState::Passing)),
    ("host-c", "dc1", None, Some(InstanceState::Passing)),
    ("host-a", "dc1", None, Some(InstanceState::Disabled)),
    ("edge", "dc1", Some("z2"), None),
];

fn view() -> View {
    let node = |(name, datacenter, zone, state): &(&str, &str, Option<&str>, Option<InstanceState>)| {
        let address = "10.0.0.8".parse().unwrap();
        let data = Node {
            name: label(name),
            addresses: vec![address],
            datacenter: label(datacenter),
            zone: zone.map(label),
            meta: Default::default(),
        };
        let key = InstanceKey { service: label("web").into(), id: label(&format!("web-{name}")) };
        let instance = Instance { nearest: Some(Nearest::Datacenter), ..Instance::new(key, vec![address]) };
        let announced = state.iter().map(|state| Announcement::new(Arc::new(instance.clone()), state.clone()));
        let announcements = Announcements::from_iter(announced.map(Announcement::into_entry));
        (label(name), Arc::new(NodeView { node: Arc::new(data), announcements, freshness: Freshness::Live }))
    };
    NODES.iter().map(node).collect()
}

/// Moves a node to another place.
fn moved(view: &View, name: &str, datacenter: &str, zone: Option<Label>) -> View {
    let known = &view[&label(name)];
    let node = Node { datacenter: label(datacenter), zone, ..Node::clone(&known.node) };
    view.update(label(name), Arc::new(NodeView { node: Arc::new(node), ..NodeView::clone(known) }))
}

impl TestAgent {
    fn show(&self, view: &View) {
        self.catalog.send_modify(|catalog| {
            let touched = catalog.update(view.clone());
            let mut tables = Tables::clone(&self.tables.load());
            tables.update(catalog, &touched);
            self.tables.store(Arc::new(tables));
        });
    }

    /// Returns the names of the nodes of a list.
    async fn nodes(&self, path: &str) -> Vec<String> {
        let node = |item: &Value| item.get("Node").map(|node| node.get("Node").unwrap_or(node).clone());
        let list = json_of(&self.server, path).await;
        list.as_array().unwrap().iter().map(|item| node(item).unwrap().as_str().unwrap().to_owned()).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn near_sorts_by_node_zone_and_datacenter() {
    let agent = TestAgent::new(None);
    let view = view();
    agent.show(&view);
    tokio::task::yield_now().await;
    let cases = [
        ("catalog/service/web?near=_agent", "host-a host-b host-c host-d"),
        ("catalog/service/web?near=edge", "host-b host-a host-c host-d"),
        ("health/service/web?near=edge", "host-b host-a host-c host-d"),
        ("health/service/web?near=host-d", "host-d host-a host-b host-c"),
        ("catalog/service/web?near=host-c", "host-c host-a host-b host-d"),
        ("catalog/service/web?near=unknown", "host-a host-b host-c host-d"),
        ("catalog/nodes?near=edge", "edge host-b host-a host-c host-d"),
        ("catalog/nodes?near=_agent", "host-a edge host-b host-c host-d"),
        ("catalog/service/web?near=edge&dc=dc2", "host-d"),
        ("catalog/service/web", "host-a host-b host-c host-d"),
    ];
    for (path, expected) in cases {
        assert_eq!(agent.nodes(&format!("/v1/{path}")).await.join(" "), expected, "{path}");
    }

    // No instance changes with a node that has none, but the order does.
    let index = |agent: &TestAgent| agent.catalog.borrow().service(&registered_name::name("web")).unwrap().version();
    let before = index(&agent);
    agent.show(&moved(&view, "edge", "dc2", Some(label("z1"))));
    tokio::task::yield_now().await;
    assert_eq!(index(&agent), before);
    for path in ["/v1/catalog/service/web?near=edge", "/v1/health/service/web?near=edge"] {
        assert_eq!(agent.nodes(path).await.join(" "), "host-d host-a host-b host-c", "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn zones_and_answered_tiers_are_shown() {
    let agent = TestAgent::new(None);
    let view = view();
    agent.show(&view);
    tokio::task::yield_now().await;
    let zone = json!({"Region": "dc2", "Zone": "z1"});
    let nodes = json_of(&agent.server, "/v1/catalog/nodes?dc=dc2").await;
    let catalog = json_of(&agent.server, "/v1/catalog/service/web?dc=dc2").await;
    let health = json_of(&agent.server, "/v1/health/service/web?dc=dc2").await;
    for shown in [
        &nodes[0]["Locality"],
        &catalog[0]["ServiceLocality"],
        &health[0]["Node"]["Locality"],
        &health[0]["Service"]["Locality"],
    ] {
        assert_eq!(*shown, zone);
    }
    let without = json_of(&agent.server, "/v1/catalog/nodes?near=host-c").await;
    assert_eq!(without[0].get("Locality"), None);

    let tier = async || json_of(&agent.server, "/v1/internal/ui/services").await[0]["Muster"]["Tier"].clone();
    assert_eq!(tier().await, "datacenter");
    let far = ["host-b", "host-c"].iter().fold(view, |view, node| moved(&view, node, "dc2", None));
    agent.show(&far);
    tokio::task::yield_now().await;
    assert_eq!(tier().await, "all");
}
