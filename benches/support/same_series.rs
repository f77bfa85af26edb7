//! The series that our text shows, kept once more as a user of another library would, and read back to see that they are
//! the same: a comparison of different texts would be none.

use std::collections::BTreeMap;
use std::hint::black_box;

use prometheus::{Encoder, Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, TextEncoder};
use restart_exporter::metrics::{Format, Metrics};

/// The samples of one metric.
pub(crate) struct Family<'a> {
    pub(crate) name: &'a str,
    pub(crate) help: &'a str,
    pub(crate) kind: Kind,
    pub(crate) series: Vec<Series<'a>>,
}

pub(crate) enum Kind {
    Counter,
    Gauge,
    /// With its bounds, without infinity.
    Histogram(Vec<f64>),
}

pub(crate) struct Series<'a> {
    pub(crate) labels: Vec<(&'a str, &'a str)>,
    /// Of a histogram each observation: all observations of a series of the benches are equal.
    pub(crate) value: f64,
    /// Observations of a histogram.
    pub(crate) count: u64,
}

/// A sample line.
struct Sample<'a> {
    name: &'a str,
    labels: Vec<(&'a str, &'a str)>,
    value: f64,
}

// === impl Family ===

impl<'a> Family<'a> {
    /// The metrics of supervisors in a text of ours that have series.
    pub(crate) fn all_in(text: &'a str) -> Vec<Self> {
        let families = text.split("# HELP ").filter(|family| family.starts_with("supervisor_"));
        families.filter_map(Self::read).collect()
    }

    fn read(text: &'a str) -> Option<Self> {
        let (help, rest) = text.split_once('\n')?;
        let (name, help) = help.split_once(' ')?;
        let (kind, lines) = rest.split_once('\n')?;
        let samples: Vec<_> = lines.lines().map(Sample::read).collect();
        let simple = |samples: Vec<Sample<'a>>| {
            samples.into_iter().map(|Sample { labels, value, .. }| Series { labels, value, count: 1 }).collect()
        };
        let (kind, series) = match kind.rsplit(' ').next()? {
            "counter" => (Kind::Counter, simple(samples)),
            "gauge" => (Kind::Gauge, simple(samples)),
            _ => (Kind::Histogram(bounds(&samples)), histograms(&samples)),
        };
        Some(Self { name, help, kind, series }).filter(|family| !family.series.is_empty())
    }

    /// The names of the labels, in the order of [`Series::label_values`].
    pub(crate) fn label_names(&self) -> Vec<&'a str> {
        self.series[0].labels.iter().map(|(name, _)| *name).collect()
    }
}

impl<'a> Series<'a> {
    pub(crate) fn label_values(&self) -> Vec<&'a str> {
        self.labels.iter().map(|(_, value)| *value).collect()
    }
}

/// The bounds of the first series.
fn bounds(samples: &[Sample<'_>]) -> Vec<f64> {
    let bounds = samples.iter().map_while(|sample| sample.labels.iter().find(|(name, _)| *name == "le"));
    bounds.map(|(_, bound)| bound.parse().unwrap()).take_while(|bound: &f64| bound.is_finite()).collect()
}

fn histograms<'a>(samples: &[Sample<'a>]) -> Vec<Series<'a>> {
    let ends = samples.windows(2).filter(|two| two[0].name.ends_with("_sum") && two[1].name.ends_with("_count"));
    ends.map(|two| Series {
        labels: two[1].labels.clone(),
        value: two[0].value / two[1].value,
        count: two[1].value as u64,
    })
    .collect()
}

// === impl Sample ===

impl<'a> Sample<'a> {
    /// Reads a line. No label of the benches needs escaping.
    fn read(line: &'a str) -> Self {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let pairs = labels.trim_end_matches('}').split(',').filter(|pair| !pair.is_empty());
        let labels =
            pairs.map(|pair| pair.split_once('=').unwrap()).map(|(name, value)| (name, value.trim_matches('"')));
        Self { name, labels: labels.collect(), value: value.parse().unwrap() }
    }
}

/// Do two texts show the same series of supervisors with the same values, whatever the order of lines and labels?
pub(crate) fn is_same(one: &str, other: &str) -> bool {
    let (one, other) = (samples(one), samples(other));
    let is_near = |(one, other): (&f64, &f64)| (one - other).abs() <= 1e-9 * one.abs();
    one.keys().eq(other.keys()) && one.values().zip(other.values()).all(is_near)
}

fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| line.starts_with("supervisor_"));
    let samples = lines.map(Sample::read).map(|mut sample| {
        sample.labels.sort_unstable();
        // Some write a bound as `1`.
        (format!("{}{:?}", sample.name, sample.labels).replace(".0\")", "\")"), sample.value)
    });
    samples.collect()
}

/// The metrics of supervisors that a text shows, kept as a user of `prometheus` would.
pub(crate) fn plain_registry(text: &str) -> Registry {
    let registry = Registry::new();
    Family::all_in(text).iter().for_each(|family| plain_family(&registry, family));
    registry
}

fn plain_family(registry: &Registry, family: &Family<'_>) {
    let names = family.label_names();
    let opts = || Opts::new(family.name, family.help);
    match &family.kind {
        Kind::Gauge if names.is_empty() => {
            let gauge = Gauge::with_opts(opts()).unwrap();
            gauge.set(family.series[0].value);
            registry.register(Box::new(gauge)).unwrap();
        }
        Kind::Gauge => {
            let vec = GaugeVec::new(opts(), &names).unwrap();
            family.series.iter().for_each(|series| vec.with_label_values(&series.label_values()).set(series.value));
            registry.register(Box::new(vec)).unwrap();
        }
        Kind::Counter => {
            let vec = IntCounterVec::new(opts(), &names).unwrap();
            let set = |series: &Series<'_>| vec.with_label_values(&series.label_values()).inc_by(series.value as u64);
            family.series.iter().for_each(set);
            registry.register(Box::new(vec)).unwrap();
        }
        Kind::Histogram(bounds) => {
            let opts = HistogramOpts::new(family.name, family.help).buckets(bounds.clone());
            let vec = HistogramVec::new(opts, &names).unwrap();
            for series in &family.series {
                let histogram = vec.with_label_values(&series.label_values());
                (0..series.count).for_each(|_| histogram.observe(series.value));
            }
            registry.register(Box::new(vec)).unwrap();
        }
    }
}

/// What every example of `prometheus` does.
pub(crate) fn encode(registry: &Registry) -> Vec<u8> {
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text).unwrap();
    text
}

/// Our text, each piece in the same buffer; how many bytes it has.
pub(crate) fn stream(metrics: &Metrics, piece: &mut Vec<u8>) -> usize {
    let (mut exposition, mut bytes) = (metrics.exposition(Format::Text), 0);
    while exposition.next_piece(piece) {
        bytes += black_box(&*piece).len();
    }
    bytes
}
