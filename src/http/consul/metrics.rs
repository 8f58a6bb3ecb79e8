//! Metrics for Prometheus and for clients of Consul; liveness and readiness.

use std::time::SystemTime;

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use tokio::task::spawn_blocking;

use crate::{
    api::metrics::{Metrics, Number, Summary},
    http::{
        Api,
        query::Query,
        response::{ApiError, json},
    },
    metrics::{Content, Family, Labels, Observed, Scrape, Value},
};

/// Media type that Prometheus prefers.
const OPEN_METRICS: &str = "application/openmetrics-text";

/// `GET /healthz`: liveness.
pub(crate) async fn health() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: readiness to answer DNS queries. A partitioned agent is ready: it answers the last known state.
pub(crate) async fn readiness(State(api): State<Api>) -> Response {
    // The API starts after the DNS servers.
    match api.stopping.is_cancelled() {
        true => {
            ApiError(StatusCode::SERVICE_UNAVAILABLE, "not ready: the agent is stopping".to_owned()).into_response()
        }
        false => "ready\n".into_response(),
    }
}

/// `GET /metrics`.
pub(crate) async fn text(State(api): State<Api>, headers: HeaderMap) -> Result<Response, ApiError> {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let open_metrics = accepted.flat_map(|value| value.split(',')).any(|kind| kind.trim().starts_with(OPEN_METRICS));
    let (kind, text) = Family::text(gather(api.scrape).await?, open_metrics);
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// `GET /v1/agent/metrics`; with `?format=prometheus`, the response of `/metrics`.
pub(crate) async fn consul(
    State(api): State<Api>,
    uri: Uri,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    match query.text("format") {
        Some("prometheus") => text(State(api), headers).await,
        _ => Ok(json(&uri, &summary(gather(api.scrape).await?))),
    }
}

/// Gathers all metrics on a blocking thread: it reads files of the kernel and counts instances.
async fn gather(scrape: Scrape) -> Result<Vec<Family>, ApiError> {
    let gathered = spawn_blocking(move || scrape.gather()).await;
    gathered.map_err(|error| ApiError(StatusCode::INTERNAL_SERVER_ERROR, format!("Cannot gather metrics: {error}")))
}

/// Converts to Consul's format. Sums are since the start, not of the last ten seconds.
fn summary(families: Vec<Family>) -> Metrics {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let mut metrics = Metrics {
        timestamp: format!("{} +0000 UTC", now.replace('T', " ").trim_end_matches('Z')),
        ..Metrics::default()
    };
    for family in families {
        let name = family.name.to_owned();
        let named =
            |labels: Labels| labels.into_iter().map(|(label, value)| (label.to_owned(), value.into_owned())).collect();
        match family.content {
            Content::Counter(samples) => metrics.counters.extend(samples.into_iter().map(|sample| {
                let sum = number(sample.value);
                Summary { name: name.clone(), count: sum as u64, sum, mean: None, labels: named(sample.labels) }
            })),
            Content::Gauge(samples) => metrics.gauges.extend(samples.into_iter().map(|sample| Number {
                name: name.clone(),
                value: number(sample.value),
                labels: named(sample.labels),
            })),
            Content::Histogram(samples) => metrics.samples.extend(samples.into_iter().map(|sample| {
                let Observed { count, sum, .. } = sample.value;
                let mean = (count > 0).then(|| sum / count as f64);
                Summary { name: name.clone(), count, sum, mean, labels: named(sample.labels) }
            })),
            Content::Info(labels) => metrics.gauges.push(Number { name, value: 1.0, labels: named(labels) }),
        }
    }
    metrics
}

fn number(value: Value) -> f64 {
    match value {
        Value::Whole(count) => count as f64,
        Value::Real(measure) => measure,
    }
}
