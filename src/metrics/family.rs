//! Metrics as values, and as text in the formats that Prometheus reads.

use std::{borrow::Cow, fmt};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, prometheus_text, text},
    metrics::MetricType,
    registry::Registry,
};

/// The media type of OpenMetrics.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All series of one name.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// Without the `_total` of counters and the `_info` of facts.
    pub name: &'static str,
    /// For people: a sentence without its full stop.
    pub help: &'static str,
    /// What its values are.
    pub content: Content,
}

/// What the values of a family are.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// They only grow, until the agent ends.
    Counter(Vec<Sample<Value>>),
    /// As it is at the moment.
    Gauge(Vec<Sample<Value>>),
    /// How long something took, each time.
    Histogram(Vec<Sample<Observed>>),
    /// What its labels say is true.
    Info(Labels),
}

/// The labels of a series, in their order.
pub type Labels = Vec<(&'static str, Cow<'static, str>)>;

/// Labels whose values are words of this program: all but those that the configuration has a say in.
pub(super) type Words<const N: usize> = [(&'static str, &'static str); N];

/// One series.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample<V> {
    /// What tells it from the others of its family.
    pub labels: Labels,
    /// Its value.
    pub value: V,
}

/// A number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A count.
    Whole(u64),
    /// A measure.
    Real(f64),
}

/// Durations that were observed, in seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// How many.
    pub count: u64,
    /// All together.
    pub sum: f64,
    /// The upper bound of each bucket, and what is in it and in none before; the last bound is infinite.
    pub buckets: Vec<(f64, u64)>,
}

impl Family {
    /// Counters, by their labels.
    pub(super) fn counters<const N: usize>(
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (Words<N>, u64)>,
    ) -> Self {
        let samples = samples.into_iter().map(|(words, count)| sample(words, Value::Whole(count)));
        Self { name, help, content: Content::Counter(samples.collect()) }
    }

    /// Gauges, by their labels.
    pub(super) fn gauges<const N: usize>(
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (Words<N>, u64)>,
    ) -> Self {
        let samples = samples.into_iter().map(|(words, count)| sample(words, Value::Whole(count)));
        Self { name, help, content: Content::Gauge(samples.collect()) }
    }

    /// One gauge.
    pub(super) fn gauge(name: &'static str, help: &'static str, value: u64) -> Self {
        Self::gauges(name, help, [([], value)])
    }

    /// Histograms, by their labels.
    pub(super) fn histograms<const N: usize>(
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (Words<N>, Observed)>,
    ) -> Self {
        let samples = samples.into_iter().map(|(words, observed)| sample(words, observed));
        Self { name, help, content: Content::Histogram(samples.collect()) }
    }

    /// The media type and the text of families: OpenMetrics where the reader takes it, else the older format, which
    /// everything takes.
    pub fn text(families: Vec<Self>, open_metrics: bool) -> (&'static str, String) {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Page(families)));
        let mut page = String::new();
        // A `String` takes whatever is written.
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
