//! Metric families, and their text formats for Prometheus.

use std::{borrow::Cow, fmt};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, prometheus_text, text},
    metrics::MetricType,
    registry::Registry,
};

/// Media type of OpenMetrics.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All series with one name.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// Name without the suffixes `_total` and `_info`.
    pub name: &'static str,
    /// Help text without full stop.
    pub help: &'static str,
    /// Type and samples.
    pub content: Content,
}

/// Type and samples of a family.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Counters; they start at 0 with the agent.
    Counter(Vec<Sample<Value>>),
    /// Current values.
    Gauge(Vec<Sample<Value>>),
    /// Histograms of durations.
    Histogram(Vec<Sample<Observed>>),
    /// Facts given by the labels; the value is 1.
    Info(Labels),
}

/// Labels of a series, in order.
pub type Labels = Vec<(&'static str, Cow<'static, str>)>;

/// Labels with constant values. Only the labels of upstreams come from the configuration.
pub(super) type Words<const N: usize> = [(&'static str, &'static str); N];

/// One series.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample<V> {
    /// Labels, unique within the family.
    pub labels: Labels,
    /// Current value.
    pub value: V,
}

/// Value of a counter or a gauge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// Integer.
    Whole(u64),
    /// Real number.
    Real(f64),
}

/// Histogram of durations in seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// Number of observations.
    pub count: u64,
    /// Sum of all observations.
    pub sum: f64,
    /// Upper bound and number of observations of each bucket, not cumulative; the last bound is infinite.
    pub buckets: Vec<(f64, u64)>,
}

impl Family {
    /// Returns a family of counters.
    pub(super) fn counters<const N: usize>(
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (Words<N>, u64)>,
    ) -> Self {
        let samples = samples.into_iter().map(|(words, count)| sample(words, Value::Whole(count)));
        Self { name, help, content: Content::Counter(samples.collect()) }
    }

    /// Returns a family of gauges.
    pub(super) fn gauges<const N: usize>(
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (Words<N>, u64)>,
    ) -> Self {
        let samples = samples.into_iter().map(|(words, count)| sample(words, Value::Whole(count)));
        Self { name, help, content: Content::Gauge(samples.collect()) }
    }

    /// Returns a family of one gauge without labels.
    pub(super) fn gauge(name: &'static str, help: &'static str, value: u64) -> Self {
        Self::gauges(name, help, [([], value)])
    }

    /// Returns a family of histograms.
    pub(super) fn histograms<const N: usize>(
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (Words<N>, Observed)>,
    ) -> Self {
        let samples = samples.into_iter().map(|(words, observed)| sample(words, observed));
        Self { name, help, content: Content::Histogram(samples.collect()) }
    }

    /// Returns the media type and the text of families, in OpenMetrics or in the older Prometheus text format.
    pub fn text(families: Vec<Self>, open_metrics: bool) -> (&'static str, String) {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Page(families)));
        let mut page = String::new();
        // Writing to a `String` cannot fail.
        let _ = match open_metrics {
            true => text::encode(&mut page, &registry),
            false => prometheus_text::encode(&mut page, &registry),
        };
        (if open_metrics { OPEN_METRICS } else { prometheus_text::CONTENT_TYPE }, page)
    }

    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let kind = match &self.content {
            Content::Counter(_) => MetricType::Counter,
            Content::Gauge(_) => MetricType::Gauge,
            Content::Histogram(_) => MetricType::Histogram,
            Content::Info(_) => MetricType::Info,
        };
        let help = format!("{}.", self.help);
        let mut encoder = encoder.encode_descriptor(self.name, &help, None, kind)?;
        match &self.content {
            Content::Counter(samples) => each(&mut encoder, samples, |mut encoder, value| match value {
                Value::Whole(count) => encoder.encode_counter::<Labels, _, f64>(count, None),
                Value::Real(measure) => encoder.encode_counter::<Labels, _, f64>(measure, None),
            }),
            Content::Gauge(samples) => each(&mut encoder, samples, |mut encoder, value| match value {
                Value::Whole(count) => encoder.encode_gauge(count),
                Value::Real(measure) => encoder.encode_gauge(measure),
            }),
            Content::Histogram(samples) => each(&mut encoder, samples, |mut encoder, observed| {
                encoder.encode_histogram::<Labels>(observed.sum, observed.count, &observed.buckets, None)
            }),
            Content::Info(labels) => encoder.encode_info(labels),
        }
    }
}

fn sample<V, const N: usize>(words: Words<N>, value: V) -> Sample<V> {
    Sample { labels: words.map(|(name, word)| (name, Cow::Borrowed(word))).into(), value }
}

fn each<V>(
    encoder: &mut MetricEncoder<'_>,
    samples: &[Sample<V>],
    encode: impl Fn(MetricEncoder<'_>, &V) -> fmt::Result,
) -> fmt::Result {
    samples.iter().try_for_each(|sample| encode(encoder.encode_family(&sample.labels)?, &sample.value))
}

#[derive(Debug)]
struct Page(Vec<Family>);

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|family| family.encode(&mut encoder))
    }
}
