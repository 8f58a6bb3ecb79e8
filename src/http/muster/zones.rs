//! `/v1/muster/zones`: the zones that this node answers, their records, and NOTIFY on request.

use std::{convert::Infallible, fmt, sync::Arc};

use arc_swap::ArcSwap;
use axum::{
    extract::{Path, State},
    http::{StatusCode, Uri},
    response::Response,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::spawn_blocking,
};

use crate::{
    api::zones::{Copy, Notified, Record, Records, Secondary, Zone},
    dns::{
        message::{
            codes::rtype,
            presentation::{self, rdata},
        },
        secondaries::request::{NotSent, NotifyRequest, Serials},
        secondary::{Copies, SecondaryZone},
        transfer::access,
        zone::{
            Tables,
            static_names::{self, Kind},
        },
    },
    http::{
        Api, command,
        query::{Query, bad},
        response::{ApiError, json},
    },
    model::{
        date::rfc3339,
        name::Name,
        zone::{CopyState, Source},
    },
};

/// Sources of the zones.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Tables that DNS answers from.
    pub tables: Arc<ArcSwap<Tables>>,
    /// State of the secondary zones.
    pub copies: watch::Receiver<Copies>,
    /// The secondary zones of the configuration.
    pub secondary: Arc<[SecondaryZone]>,
    /// Secondaries that receive NOTIFY.
    pub notified: Arc<[access::Secondary]>,
    /// Known serials of the secondaries.
    pub serials: watch::Receiver<Serials>,
    /// Takes requests for NOTIFY; `None` without secondaries.
    pub requests: Option<mpsc::Sender<NotifyRequest>>,
    /// Counts records.
    pub records: RecordCounter,
}

/// A function that returns the number of records of a zone of these tables.
type Count = dyn Fn(&Tables, &static_names::Zone) -> u64 + Send + Sync;

/// Counts the records of a zone, which may take a second.
#[derive(Clone)]
pub struct RecordCounter(Arc<Count>);

impl RecordCounter {
    /// Returns a counter that calls this function.
    pub fn new(count: impl Fn(&Tables, &static_names::Zone) -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(count))
    }
}

impl fmt::Debug for RecordCounter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecordCounter")
    }
}

/// Lists all zones by name.
pub(in crate::http) async fn list(State(api): State<Api>, uri: Uri, query: Query) -> Result<Response, ApiError> {
    query.check()?;
    let sources = api.zones.clone();
    Ok(json(&uri, &in_thread(move || sources.list()).await?))
}

/// Does work that takes long for a large zone.
async fn in_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    let done = spawn_blocking(work).await;
    done.map_err(|error| ApiError(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

/// Shows all records of a zone, as of one moment.
pub(in crate::http) async fn show(
    State(api): State<Api>,
    uri: Uri,
    Path(zone): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    query.check()?;
    let origin = origin(&zone)?;
    let tables = api.zones.tables.load_full();
    let records = in_thread(move || records(&tables, &origin)).await?;
    Ok(json(&uri, &records.map_err(|text| ApiError(StatusCode::NOT_FOUND, format!("{zone}: {text}.")))?))
}

/// Sends NOTIFY to the secondaries.
pub(in crate::http) async fn notify(
    State(api): State<Api>,
    uri: Uri,
    Path(zone): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    query.check()?;
    let conflict = |text: String| ApiError(StatusCode::CONFLICT, text);
    let origin = origin(&zone)?;
    if api.zones.tables.load().zone_named(origin.wire()).is_none() {
        return Err(conflict(format!("{zone}: {}.", NotSent::NoZone)));
    }
    let none = || conflict("There are no secondaries: list them in dns.transfer.notify.".to_owned());
    let requests = api.zones.requests.as_ref().ok_or_else(none)?;
    let (done, outcome) = oneshot::channel();
    requests.send(NotifyRequest { zone: origin, done }).await.map_err(|_| command::ended())?;
    let secondaries =
        outcome.await.map_err(|_| command::ended())?.map_err(|reason| conflict(format!("{zone}: {reason}.")))?;
    Ok(json(&uri, &Notified { secondaries }))
}

fn origin(text: &str) -> Result<Name, ApiError> {
    Name::parse(text).map_err(|error| bad(&format!("{text}: {error}")))
}

impl Sources {
    fn list(&self) -> Vec<Zone> {
        let tables = self.tables.load_full();
        let mut zones: Vec<&static_names::Zone> = tables.zones().collect();
        zones.sort_by_key(|zone| zone.origin.to_string());
        let (copies, serials) = (self.copies.borrow().clone(), self.serials.borrow().clone());
        zones.iter().map(|zone| self.shown(&tables, zone, &copies, &serials)).collect()
    }

    fn shown(&self, tables: &Tables, zone: &static_names::Zone, copies: &Copies, serials: &Serials) -> Zone {
        let secondary = |to: &access::Secondary| {
            let known = serials.get(&(zone.origin.clone(), to.address)).copied().unwrap_or_default();
            Secondary { address: to.address.to_string(), acknowledged: known.acknowledged, serial: known.held }
        };
        let kind = match zone.kind {
            Kind::Discovery => "discovery",
            Kind::Consul => "consul",
            Kind::Static => match zone.source {
                Source::Files => "file",
                Source::Updates => "dynamic",
                Source::Primary(_) => "secondary",
            },
        };
        let copy = match zone.source {
            Source::Files | Source::Updates => None,
            Source::Primary(state) => Some(self.copy(zone, state, copies)),
        };
        Zone {
            zone: zone.origin.to_string(),
            kind: kind.to_owned(),
            serial: tables.serial_of(zone),
            records: (self.records.0)(tables, zone),
            file: zone.names.file().to_owned(),
            copy,
            secondaries: self.notified.iter().map(secondary).collect(),
        }
    }

    fn copy(&self, zone: &static_names::Zone, state: CopyState, copies: &Copies) -> Copy {
        let known = copies.get(&zone.origin);
        let configured = self.secondary.iter().find(|secondary| secondary.origin == zone.origin);
        let primaries = configured.iter().flat_map(|zone| &zone.primaries).map(ToString::to_string).collect();
        let state = match state {
            CopyState::Current => "current",
            CopyState::Missing => "missing",
            CopyState::Expired => "expired",
        };
        Copy {
            state: state.to_owned(),
            primaries,
            primary: known.and_then(|copy| copy.primary.as_ref()).map_or_else(String::new, ToString::to_string),
            confirmed: known.and_then(|copy| copy.confirmed).map_or_else(String::new, rfc3339),
            expires: known.and_then(|copy| copy.expires).map_or_else(String::new, rfc3339),
            problem: known.and_then(|copy| copy.problem.as_deref()).unwrap_or_default().to_owned(),
        }
    }
}

/// Returns all records of a zone, or why there are none.
fn records(tables: &Tables, origin: &Name) -> Result<Records, &'static str> {
    let zone = tables.zone_named(origin.wire()).ok_or("this node does not serve the zone")?;
    if zone.unavailable().is_some() {
        return Err("there is no copy of this secondary zone, or it has expired");
    }
    let record = |name: &str, number: u16, ttl: u32, data: &[u8]| Record {
        name: name.to_owned(),
        rtype: rtype::name(number).into_owned(),
        ttl,
        data: rdata(number, data),
    };
    let (ttl, soa) = tables.soa_rdata(zone);
    let mut records = vec![record(&zone.origin.to_string(), rtype::SOA, ttl, &soa)];
    let all = tables.visit_zone(zone, |set| {
        let name = presentation::name(&[&*set.owner, zone.origin.wire()].concat());
        records.extend(set.rdata.iter().map(|rdata| record(&name, set.rtype, set.ttl, rdata)));
        Ok::<(), Infallible>(())
    });
    match all {
        Ok(()) => Ok(Records { zone: zone.origin.to_string(), serial: tables.serial_of(zone), records }),
        Err(never) => match never {},
    }
}
