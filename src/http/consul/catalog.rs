//! `/v1/catalog` and `/v1/internal/ui/services`: the nodes and services that all nodes announce.

use std::collections::{BTreeMap, BTreeSet};

use axum::{
    extract::{Path, State},
    http::Uri,
    response::Response,
};

use super::convert::{NodeInstance, NodeRef};
use crate::{
    api::catalog::{Check, NodeServiceList, NodeServices, Service, Summary},
    dns::zone::Tables,
    http::{
        Api,
        blocking::{Snapshot, Topic},
        blocking_response::{known_datacenters, passes, show, show_unfiltered, value_of},
        filter::Filter,
        query::{Query, node_name, service_name},
        response::ApiError,
    },
    model::{
        catalog::{self, Catalog},
        health::Status,
        name::Label,
        nearest::{Nearest, Tier},
        reason,
        registered_name::RegisteredName,
    },
};

/// Returns the nodes that match the query, sorted by `near`.
pub(super) fn matching_nodes<'a>(catalog: &'a Catalog, query: &Query) -> Result<Vec<NodeRef<'a>>, ApiError> {
    let dc = query.datacenter()?;
    let mut nodes = NodeRef::all(catalog);
    nodes.retain(|node| matches(query, node, dc.as_ref()));
    sort_by_nearness(&mut nodes, catalog, query, |node| *node)?;
    Ok(nodes)
}

fn matches(query: &Query, node: &NodeRef<'_>, dc: Option<&Label>) -> bool {
    query.matches(node.datacenter(), node.meta(), dc)
}

/// Returns the node of that name if it matches the query.
pub(super) fn matching_node<'a>(
    catalog: &'a Catalog,
    name: &RegisteredName,
    query: &Query,
) -> Result<Option<NodeRef<'a>>, ApiError> {
    let dc = query.datacenter()?;
    Ok(NodeRef::find(catalog, name).filter(|node| matches(query, node, dc.as_ref())))
}

/// Returns the instances of a service that match the query, sorted by `near`.
pub(super) fn matching_instances<'a>(
    catalog: &'a Catalog,
    name: &RegisteredName,
    query: &Query,
) -> Result<Vec<NodeInstance<'a>>, ApiError> {
    let dc = query.datacenter()?;
    let Some(service) = catalog.service(name) else { return Ok(Vec::new()) };
    let tags: Vec<&str> = query.all("tag").filter(|tag| !tag.is_empty()).collect();
    let mut found: Vec<NodeInstance<'_>> = service_instances(catalog, service)
        .filter(|placed| matches(query, &placed.host(), dc.as_ref()))
        .filter(|placed| {
            let own = &placed.announcement.instance.tags;
            tags.iter().all(|tag| own.iter().any(|known| known.eq_ignore_ascii_case(tag)))
        })
        .collect();
    sort_by_nearness(&mut found, catalog, query, NodeInstance::host)?;
    Ok(found)
}

fn service_instances<'a>(
    catalog: &'a Catalog,
    service: &'a catalog::Service,
) -> impl Iterator<Item = NodeInstance<'a>> {
    let version = service.version();
    service.instances().filter_map(move |entry| NodeInstance::new(catalog, entry, version))
}

/// Sorts by `near`: items of that node first, then those of its zone and of its datacenter. There are no network coordinates.
fn sort_by_nearness<'a, T>(
    items: &mut [T],
    catalog: &'a Catalog,
    query: &Query,
    node: impl Fn(&T) -> NodeRef<'a>,
) -> Result<(), ApiError> {
    let Some(near) = query.near()? else { return Ok(()) };
    let here = catalog.place_of(&near);
    items.sort_by_key(|item| {
        let node = node(item);
        (!node.name().eq_ignore_ascii_case(near.as_str()), here.map_or(Tier::All, |here| Tier::of(here, node.place())))
    });
    Ok(())
}

pub(crate) async fn datacenters(State(api): State<Api>, uri: Uri, query: Query) -> Result<Response, ApiError> {
    show(&api, &uri, &query, Topic::Nodes, |Snapshot { catalog, .. }| {
        Ok(known_datacenters(catalog).into_iter().map(str::to_owned).collect::<Vec<_>>())
    })
    .await
}

pub(crate) async fn nodes(State(api): State<Api>, uri: Uri, query: Query) -> Result<Response, ApiError> {
    let query = query.with_agent(&api);
    show(&api, &uri, &query, Topic::Nodes, |Snapshot { catalog, .. }| {
        Ok(matching_nodes(catalog, &query)?.into_iter().map(|node| node.node()).collect::<Vec<_>>())
    })
    .await
}

pub(crate) async fn services(State(api): State<Api>, uri: Uri, query: Query) -> Result<Response, ApiError> {
    // As in Consul, the filter applies to instances, which change in more than their tags.
    let filter = query.filter()?;
    let topic = if filter.is_some() { Topic::All } else { Topic::ServiceNames };
    show_unfiltered(&api, &uri, &query, topic, |Snapshot { catalog, .. }| {
        let dc = query.datacenter()?;
        let mut services: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (_, service) in catalog.services() {
            for placed in service_instances(catalog, service) {
                let is_wanted = matches(&query, &placed.host(), dc.as_ref())
                    && filter
                        .as_ref()
                        .map_or(Ok(true), |filter| passes(filter, &value_of(&placed.catalog_service())?))?;
                if is_wanted {
                    // As in Consul, each letter case in use is listed.
                    let instance = &placed.announcement.instance;
                    let tags = services.entry(instance.service_name()).or_default();
                    tags.extend(instance.tags.iter().map(String::as_str));
                }
            }
        }
        // Owned copies, because the snapshot is local to the closure.
        let owned = services
            .into_iter()
            .map(|(name, tags)| (name.to_owned(), tags.into_iter().map(str::to_owned).collect::<Vec<_>>()));
        Ok(owned.collect::<BTreeMap<_, _>>())
    })
    .await
}

pub(crate) async fn service(
    State(api): State<Api>,
    uri: Uri,
    Path(name): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    let (name, query) = (service_name(&name)?, query.with_agent(&api));
    show(&api, &uri, &query, Topic::Service(name.clone()), |Snapshot { catalog, .. }| {
        Ok(matching_instances(catalog, &name, &query)?.iter().map(NodeInstance::catalog_service).collect::<Vec<_>>())
    })
    .await
}

pub(crate) async fn node(
    State(api): State<Api>,
    uri: Uri,
    Path(name): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    let name = node_name(&name)?;
    let filter = query.filter()?;
    show_unfiltered(&api, &uri, &query, Topic::All, |Snapshot { catalog, .. }| {
        let node = matching_node(catalog, &name, &query)?;
        let shown = node.map(|node| {
            let services = filter_services(services_by_id(node.instances(catalog)), filter.as_ref())?;
            Ok(NodeServices { node: node.node(), services })
        });
        shown.transpose()
    })
    .await
}

/// Like [`node`], with a list of services.
pub(crate) async fn node_services(
    State(api): State<Api>,
    uri: Uri,
    Path(name): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    let name = node_name(&name)?;
    let filter = query.filter()?;
    show_unfiltered(&api, &uri, &query, Topic::All, |Snapshot { catalog, .. }| {
        let node = matching_node(catalog, &name, &query)?;
        let services = node.map_or_else(BTreeMap::new, |node| services_by_id(node.instances(catalog)));
        let services = filter_services(services, filter.as_ref())?.into_values().collect();
        let node = node.map(|node| node.node());
        Ok(NodeServiceList { node, services })
    })
    .await
}

/// Returns the services that pass the filter.
fn filter_services(
    services: BTreeMap<String, Service>,
    filter: Option<&Filter>,
) -> Result<BTreeMap<String, Service>, ApiError> {
    let Some(filter) = filter else { return Ok(services) };
    let tested = services.into_iter().map(|(id, service)| Ok((passes(filter, &value_of(&service)?)?, id, service)));
    let tested: Vec<_> = tested.collect::<Result<_, ApiError>>()?;
    Ok(tested.into_iter().filter(|(passes, ..)| *passes).map(|(_, id, service)| (id, service)).collect())
}

/// Returns the instances of a node by the ids that clients know.
pub(crate) fn services_by_id<'a>(instances: impl IntoIterator<Item = NodeInstance<'a>>) -> BTreeMap<String, Service> {
    let mut services = BTreeMap::new();
    for placed in instances {
        let service = placed.service();
        // Ids in service files are unique only within a service. A duplicate id gets the service's name as prefix.
        let id = if services.contains_key(&service.id) {
            format!("{}/{}", service.service, service.id)
        } else {
            service.id.clone()
        };
        services.insert(id, service);
    }
    services
}

pub(crate) async fn ui_services(State(api): State<Api>, uri: Uri, query: Query) -> Result<Response, ApiError> {
    show(&api, &uri, &query, Topic::All, |Snapshot { catalog, .. }| {
        let dc = query.datacenter()?;
        let tables = api.explain.tables.load();
        let nodes = NodeRef::all(catalog);
        let of_nodes: BTreeMap<&str, [usize; 3]> =
            nodes.iter().map(|node| (node.name(), count(&node.checks()))).collect();
        let summaries = catalog.services().filter_map(|(_, service)| {
            let here = |placed: &NodeInstance<'_>| matches(&query, &placed.host(), dc.as_ref());
            let mut summary = Summary::default();
            summary.muster.tier = answered_tier(catalog, service, &tables).map(|tier| tier.as_str().to_owned());
            let (mut tags, mut nodes, mut checks) = (BTreeSet::new(), BTreeSet::new(), [0; 3]);
            for entry in service.instances() {
                let Some(placed) = NodeInstance::new(catalog, entry, service.version()).filter(here) else { continue };
                let node = placed.host();
                if summary.name.is_empty() {
                    // One service, in the letter case of its first instance.
                    placed.announcement.instance.service_name().clone_into(&mut summary.name);
                }
                summary.instance_count += 1;
                summary.muster.answered += usize::from(entry.is_answered());
                let state = reason::state(entry.freshness, &entry.announcement.state);
                *summary.muster.states.entry(state.to_owned()).or_default() += 1;
                summary.datacenter = node.datacenter().to_string();
                tags.extend(placed.announcement.instance.tags.iter().cloned());
                nodes.insert(node.name().to_owned());
                let of_node = of_nodes.get(node.name()).copied().unwrap_or_default();
                let own = count(&placed.checks());
                checks = std::array::from_fn(|at| checks[at] + of_node[at] + own[at]);
            }
            (summary.tags, summary.nodes) = (tags.into_iter().collect(), nodes.into_iter().collect());
            [summary.checks_passing, summary.checks_warning, summary.checks_critical] = checks;
            (summary.instance_count > 0).then_some(summary)
        });
        let mut summaries: Vec<_> = summaries.collect();
        summaries.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Ok(summaries)
    })
    .await
}

/// Returns the tier that this node answers of a service that prefers near instances.
fn answered_tier(catalog: &Catalog, service: &catalog::Service, tables: &Tables) -> Option<Tier> {
    let policy = service.policy(tables.nearest()).policy;
    let is_near = policy.nearest != Nearest::None;
    is_near.then(|| catalog.tiers(tables.place(), service.instances()).answered(policy)).flatten()
}

/// Counts passing, warning and critical checks.
fn count(checks: &[Check]) -> [usize; 3] {
    let with = |status: Status| checks.iter().filter(|check| check.status == status.as_str()).count();
    [with(Status::Passing), with(Status::Warning), with(Status::Critical)]
}
