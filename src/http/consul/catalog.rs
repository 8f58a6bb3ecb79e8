//! `/v1/catalog`, `/v1/health`, `/v1/status`: what all nodes announce.

use std::collections::{BTreeMap, BTreeSet};

use axum::{
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, Uri, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::Value;

use super::{
    convert::{self, Placed},
    filter::Filter,
};
use crate::{
    api::catalog::{Check, Entry, NodeServiceList, NodeServices, Service, Summary},
    http::{
        Api,
        blocking::{Snapshot, Topic},
        query::{Query, bad},
        response::{ApiError, json, text_of},
    },
    model::{
        catalog::{self, Catalog, NodeView},
        health::Status,
        member::Reach,
        name::Label,
        reason,
    },
};

/// Says at which index an answer is true.
pub(crate) const INDEX: &str = "x-consul-index";

/// Shows a part of what is known, at once or when it changes, as the query wants.
pub(crate) async fn show<T: Serialize>(
    api: &Api,
    uri: &Uri,
    query: &Query,
    topic: Topic,
    build: impl Fn(&Snapshot) -> Result<T, ApiError>,
) -> Result<Response, ApiError> {
    let filter = query.filter()?;
    show_items(api, uri, query, topic, filter.as_ref(), build).await
}

/// The same, where the filter is not about what is shown.
async fn show_items<T: Serialize>(
    api: &Api,
    uri: &Uri,
    query: &Query,
    topic: Topic,
    filter: Option<&Filter>,
    build: impl Fn(&Snapshot) -> Result<T, ApiError>,
) -> Result<Response, ApiError> {
    query.check()?;
    if let Some(seen) = query.index()? {
        api.hub.changed(&topic, seen, query.wait()?).await;
    }
    let known = api.hub.known();
    let index = topic.index(&known);
    let question = query.question(uri.path());
    let is_kept = topic != Topic::Explained;
    let written = if is_kept { api.hub.written(&question, index) } else { None };
    let text = match written {
        Some(text) => text,
        None => {
            if let Some(dc) = query.datacenter()?
                && !datacenters(&known.catalog).contains(dc.as_str())
            {
                return Err(bad(&format!("No path to datacenter {dc}: no node of it is known here.")));
            }
            let built = build(&known)?;
            let text = match filter {
                None => text_of(uri, &built),
                Some(filter) => {
                    let mut value = value_of(&built)?;
                    keep(&mut value, |item| passes(filter, item))?;
                    text_of(uri, &value)
                }
            };
            let text = Bytes::from(text?);
            if is_kept {
                api.hub.keep(question, index, text.clone());
            }
            text
        }
    };
    Ok(with_index(text, index))
}

/// The services that pass.
fn kept(services: BTreeMap<String, Service>, filter: Option<&Filter>) -> Result<BTreeMap<String, Service>, ApiError> {
    let Some(filter) = filter else { return Ok(services) };
    let with_shadowed =
        services.into_iter().map(|(id, service)| Ok((passes(filter, &value_of(&service)?)?, id, service)));
    let with_shadowed: Vec<_> = with_shadowed.collect::<Result<_, ApiError>>()?;
    Ok(with_shadowed.into_iter().filter(|(passes, ..)| *passes).map(|(_, id, service)| (id, service)).collect())
}

fn value_of(built: &impl Serialize) -> Result<Value, ApiError> {
    serde_json::to_value(built).map_err(|error| bad(&error.to_string()))
}

fn passes(filter: &Filter, item: &Value) -> Result<bool, ApiError> {
    filter.passes(item).map_err(|error| bad(&format!("filter: {error}")))
}

/// An answer that says at which index it is true.
pub(crate) fn with_index(text: Bytes, index: u64) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(INDEX, index.into());
    headers.insert("x-consul-knownleader", HeaderValue::from_static("true"));
    headers.insert("x-consul-lastcontact", HeaderValue::from_static("0"));
    // What a node knows itself, as Consul says it of answers that did not go to the leader.
    headers.insert("x-consul-effective-consistency", HeaderValue::from_static("stale"));
    (headers, text).into_response()
}

/// Drops the items of a list, or the values of a table, that do not pass.
fn keep(value: &mut Value, passes: impl Fn(&Value) -> Result<bool, ApiError>) -> Result<(), ApiError> {
    match value {
        Value::Array(list) => {
            let mut kept = Vec::with_capacity(list.len());
            for item in list.drain(..) {
                if passes(&item)? {
                    kept.push(item);
                }
            }
            *list = kept;
        }
        Value::Object(table) => {
            let mut kept = serde_json::Map::new();
            for (key, item) in std::mem::take(table) {
                if passes(&item)? {
                    kept.insert(key, item);
                }
            }
            *table = kept;
        }
        _ => {}
    }
    Ok(())
}

pub(crate) fn label(text: &str) -> Result<Label, ApiError> {
    Label::parse(text).map_err(|error| bad(&format!("{text:?} is no name of a service or node: {error}")))
}

fn datacenters(catalog: &Catalog) -> BTreeSet<&str> {
    catalog.view().values().map(|view| view.node.datacenter.as_str()).collect()
}

/// The nodes of the site that the query is about.
fn nodes<'a>(catalog: &'a Catalog, query: &Query) -> Result<Vec<&'a NodeView>, ApiError> {
    let dc = query.datacenter()?;
    let here = |view: &&NodeView| query.is_about(&view.node, dc.as_ref());
    let mut views: Vec<&NodeView> = catalog.view().values().map(|view| &**view).filter(here).collect();
    sort_by_nearness(&mut views, catalog, query, |view| view)?;
    Ok(views)
}

/// The node of that name, if the query is about it.
fn node_of<'a>(catalog: &'a Catalog, name: &Label, query: &Query) -> Result<Option<&'a NodeView>, ApiError> {
    let dc = query.datacenter()?;
    let view = catalog.view().get(name).filter(|view| query.is_about(&view.node, dc.as_ref()));
    Ok(view.map(|view| &**view))
}

/// The instances of a service that the query is about.
fn placed<'a>(catalog: &'a Catalog, name: &Label, query: &Query) -> Result<Vec<Placed<'a>>, ApiError> {
    let dc = query.datacenter()?;
    let Some(service) = catalog.service(name) else { return Ok(Vec::new()) };
    let tags: Vec<&str> = query.all("tag").filter(|tag| !tag.is_empty()).collect();
    let mut found: Vec<Placed<'_>> = instances(catalog, service)
        .filter(|placed| query.is_about(&placed.view.node, dc.as_ref()))
        .filter(|placed| {
            let own = &placed.announcement.instance.tags;
            tags.iter().all(|tag| own.iter().any(|known| known.eq_ignore_ascii_case(tag)))
        })
        .collect();
    sort_by_nearness(&mut found, catalog, query, |placed| placed.view)?;
    Ok(found)
}

fn instances<'a>(catalog: &'a Catalog, service: &'a catalog::Service) -> impl Iterator<Item = Placed<'a>> {
    let version = service.version();
    service.instances().filter_map(move |entry| Placed::new(catalog, entry, version))
}

/// `near`: a node's own first, then those of its site. There are no coordinates.
fn sort_by_nearness<T>(
    items: &mut [T],
    catalog: &Catalog,
    query: &Query,
    view: impl Fn(&T) -> &NodeView,
) -> Result<(), ApiError> {
    let Some(near) = query.text("near") else { return Ok(()) };
    let near = if near == "_agent" || near == "_ip" { query.own_node()? } else { label(near)? };
    let site = catalog.view().get(&near).map(|view| view.node.datacenter.clone());
    items.sort_by_key(|item| {
        let node = &view(item).node;
        (node.name != near, site.as_ref() != Some(&node.datacenter))
    });
    Ok(())
}

pub(crate) async fn catalog_datacenters(State(api): State<Api>, uri: Uri, query: Query) -> Result<Response, ApiError> {
    show(&api, &uri, &query, Topic::Nodes, |Snapshot { catalog, .. }| {
        Ok(datacenters(catalog).into_iter().map(str::to_owned).collect::<Vec<_>>())
    })
    .await
}

pub(crate) async fn catalog_nodes(State(api): State<Api>, uri: Uri, query: Query) -> Result<Response, ApiError> {
    let query = query.asked_at(&api);
    show(&api, &uri, &query, Topic::Nodes, |Snapshot { catalog, .. }| {
        let version = catalog.versions().nodes;
        Ok(nodes(catalog, &query)?.into_iter().map(|view| convert::node(view, version)).collect::<Vec<_>>())
    })
    .await
}

pub(crate) async fn catalog_services(State(api): State<Api>, uri: Uri, query: Query) -> Result<Response, ApiError> {
    // It is about instances, as in Consul, and these change in more than their tags.
    let filter = query.filter()?;
    let topic = if filter.is_some() { Topic::All } else { Topic::Names };
    show_items(&api, &uri, &query, topic, None, |Snapshot { catalog, .. }| {
        let dc = query.datacenter()?;
        let mut services: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (name, service) in catalog.services() {
            for placed in instances(catalog, service) {
                let is_wanted = query.is_about(&placed.view.node, dc.as_ref())
                    && filter
                        .as_ref()
                        .map_or(Ok(true), |filter| passes(filter, &value_of(&placed.catalog_service())?))?;
                if is_wanted {
                    let tags = services.entry(name.as_str()).or_default();
                    tags.extend(placed.announcement.instance.tags.iter().map(String::as_str));
                }
            }
        }
        // Owned, since the catalog is the closure's.
        let owned = services
            .into_iter()
            .map(|(name, tags)| (name.to_owned(), tags.into_iter().map(str::to_owned).collect::<Vec<_>>()));
        Ok(owned.collect::<BTreeMap<_, _>>())
    })
    .await
}

pub(crate) async fn catalog_service(
    State(api): State<Api>,
    uri: Uri,
    Path(name): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    let (name, query) = (label(&name)?, query.asked_at(&api));
    show(&api, &uri, &query, Topic::Service(name.clone()), |Snapshot { catalog, .. }| {
        Ok(placed(catalog, &name, &query)?.iter().map(Placed::catalog_service).collect::<Vec<_>>())
    })
    .await
}

pub(crate) async fn catalog_node(
    State(api): State<Api>,
    uri: Uri,
    Path(name): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    let name = label(&name)?;
    let filter = query.filter()?;
    show_items(&api, &uri, &query, Topic::All, None, |Snapshot { catalog, .. }| {
        let view = node_of(catalog, &name, &query)?;
        let shown = view.map(|view| {
            let services = kept(own_services(catalog, view), filter.as_ref())?;
            Ok(NodeServices { node: convert::node(view, catalog.versions().nodes), services })
        });
        shown.transpose()
    })
    .await
}

/// The same as a list.
pub(crate) async fn catalog_node_services(
    State(api): State<Api>,
    uri: Uri,
    Path(name): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    let name = label(&name)?;
    let filter = query.filter()?;
    show_items(&api, &uri, &query, Topic::All, None, |Snapshot { catalog, .. }| {
        let view = node_of(catalog, &name, &query)?;
        let services = view.map_or_else(BTreeMap::new, |view| own_services(catalog, view));
        let services = kept(services, filter.as_ref())?.into_values().collect();
        let node = view.map(|view| convert::node(view, catalog.versions().nodes));
        Ok(NodeServiceList { node, services })
    })
    .await
}

/// The instances of a node, by the ids that clients know them by.
pub(crate) fn own_services(catalog: &Catalog, view: &NodeView) -> BTreeMap<String, Service> {
    let mut services = BTreeMap::new();
    for placed in on(catalog, view) {
        let service = placed.service();
        // Ids of files are unique in their service alone: the second of one id gets its service's name before it.
        let id = if services.contains_key(&service.id) {
            format!("{}/{}", service.service, service.id)
        } else {
            service.id.clone()
        };
        services.insert(id, service);
    }
    services
}

/// Everything on a node.
pub(crate) fn on<'a>(catalog: &'a Catalog, view: &'a NodeView) -> impl Iterator<Item = Placed<'a>> {
    view.announcements.iter().map(|(key, announcement)| {
        let version = catalog.service(&key.service).map_or(catalog.versions().all, |service| service.version());
        Placed { view, announcement, version }
    })
}

pub(crate) async fn health_node(
    State(api): State<Api>,
    uri: Uri,
    Path(name): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    let name = label(&name)?;
    show(&api, &uri, &query, Topic::All, |Snapshot { catalog, .. }| {
        let view = node_of(catalog, &name, &query)?;
        Ok(view.map_or_else(Vec::new, |view| checks_on(catalog, view)))
    })
    .await
}

fn checks_on(catalog: &Catalog, view: &NodeView) -> Vec<Check> {
    let mut checks = convert::node_checks(view, catalog.versions().nodes);
    checks.extend(on(catalog, view).flat_map(|placed| placed.checks()));
    checks
}

pub(crate) async fn health_checks(
    State(api): State<Api>,
    uri: Uri,
    Path(name): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    let (name, query) = (label(&name)?, query.asked_at(&api));
    show(&api, &uri, &query, Topic::Service(name.clone()), |Snapshot { catalog, .. }| {
        Ok(placed(catalog, &name, &query)?.iter().flat_map(Placed::checks).collect::<Vec<_>>())
    })
    .await
}

pub(crate) async fn health_service(
    State(api): State<Api>,
    uri: Uri,
    Path(name): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    let (name, query) = (label(&name)?, query.asked_at(&api));
    let passing = query.flag("passing")?;
    show(&api, &uri, &query, Topic::Service(name.clone()), |Snapshot { catalog, .. }| {
        let mut entries: Vec<Entry> = placed(catalog, &name, &query)?.iter().map(Placed::entry).collect();
        if passing {
            entries.retain(|entry| entry.checks.iter().all(|check| check.status == Status::Passing.as_str()));
        }
        Ok(entries)
    })
    .await
}

pub(crate) async fn health_state(
    State(api): State<Api>,
    uri: Uri,
    Path(state): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    let known = ["any", "passing", "warning", "critical"];
    if !known.contains(&state.as_str()) {
        return Err(bad(&format!("{state:?} is no state: expected {}.", known.join(", "))));
    }
    let query = query.asked_at(&api);
    show(&api, &uri, &query, Topic::All, |Snapshot { catalog, .. }| {
        let all = nodes(catalog, &query)?.into_iter().flat_map(|view| checks_on(catalog, view));
        Ok(all.filter(|check| state == "any" || check.status == state).collect::<Vec<_>>())
    })
    .await
}

pub(crate) async fn ui_services(State(api): State<Api>, uri: Uri, query: Query) -> Result<Response, ApiError> {
    show(&api, &uri, &query, Topic::All, |Snapshot { catalog, .. }| {
        let dc = query.datacenter()?;
        let version = catalog.versions().nodes;
        let of_nodes = |view: &NodeView| count(&convert::node_checks(view, version));
        let of_nodes: BTreeMap<&Label, [usize; 3]> =
            catalog.view().iter().map(|(name, view)| (name, of_nodes(view))).collect();
        let summaries = catalog.services().filter_map(|(name, service)| {
            let here = |placed: &Placed<'_>| query.is_about(&placed.view.node, dc.as_ref());
            let mut summary = Summary { name: name.to_string(), ..Summary::default() };
            let (mut tags, mut nodes, mut checks) = (BTreeSet::new(), BTreeSet::new(), [0; 3]);
            for entry in service.instances() {
                let Some(placed) = Placed::new(catalog, entry, service.version()).filter(here) else { continue };
                let node = &placed.view.node;
                summary.instance_count += 1;
                summary.muster.answered += usize::from(entry.is_answered());
                let state = reason::state(entry.freshness, &entry.announcement.standing);
                *summary.muster.states.entry(state.to_owned()).or_default() += 1;
                summary.datacenter = node.datacenter.to_string();
                tags.extend(placed.announcement.instance.tags.iter().cloned());
                nodes.insert(node.name.to_string());
                let of_node = of_nodes.get(&node.name).copied().unwrap_or_default();
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

/// How many pass, warn and are critical.
fn count(checks: &[Check]) -> [usize; 3] {
    let with = |status: Status| checks.iter().filter(|check| check.status == status.as_str()).count();
    [with(Status::Passing), with(Status::Warning), with(Status::Critical)]
}

/// There are no servers, and none leads: whoever is asked answers for itself.
pub(crate) async fn leader(State(api): State<Api>, uri: Uri) -> Response {
    json(&uri, &api.agent.gossip.to_string())
}

pub(crate) async fn peers(State(api): State<Api>, uri: Uri) -> Response {
    let known = api.hub.known();
    let there = known.members.members.iter().filter(|member| matches!(member.reach, Reach::Alive | Reach::Suspect));
    json(&uri, &there.map(|member| member.address.to_string()).collect::<Vec<_>>())
}
