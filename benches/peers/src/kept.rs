//! The series of a text, kept as users of `prometheus-client` and of `metrics` would.

use std::sync::atomic::AtomicU64;

use metrics::{Key, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family as Labelled;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::support::same_series::{Family, Kind, Series};

/// Labels whose number and names differ from metric to metric.
type Labels = Vec<(String, String)>;

fn labels(series: &Series<'_>) -> Labels {
    series.labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A registry of `prometheus-client`.
pub(crate) fn prometheus_client(text: &str) -> Registry {
    let mut registry = Registry::default();
    for family in Family::all_in(text) {
        // It adds `_total` and the full stop by itself.
        let (name, help) = (family.name.trim_end_matches("_total"), family.help.trim_end_matches('.'));
        match family.kind {
            Kind::Counter => {
                let counters = Labelled::<Labels, Counter>::default();
                for series in &family.series {
                    counters.get_or_create(&labels(series)).inc_by(series.value as u64);
                }
                registry.register(name, help, counters);
            }
            Kind::Gauge => {
                let gauges = Labelled::<Labels, Gauge<f64, AtomicU64>>::default();
                for series in &family.series {
                    gauges.get_or_create(&labels(series)).set(series.value);
                }
                registry.register(name, help, gauges);
            }
            Kind::Histogram(bounds) => {
                let new = move || Histogram::new(bounds.iter().copied());
                let histograms = Labelled::<Labels, Histogram, _>::new_with_constructor(new);
                for series in &family.series {
                    let histogram = histograms.get_or_create(&labels(series));
                    (0..series.count).for_each(|_| histogram.observe(series.value));
                }
                registry.register(name, help, histograms);
            }
        }
    }
    registry
}

/// What every example of `prometheus-client` does.
pub(crate) fn encode(registry: &Registry) -> String {
    let mut text = String::new();
    text::encode(&mut text, registry).unwrap();
    text
}

/// The recorder of `metrics-exporter-prometheus`.
pub(crate) fn metrics(text: &str) -> PrometheusRecorder {
    let families = Family::all_in(text);
    let builder = families.iter().fold(PrometheusBuilder::new(), |builder, family| match &family.kind {
        Kind::Histogram(bounds) => {
            builder.set_buckets_for_metric(Matcher::Full(family.name.to_owned()), bounds).unwrap()
        }
        _ => builder,
    });
    let recorder = builder.build_recorder();
    let metadata = Metadata::new("peers", Level::INFO, None);
    for family in &families {
        for series in &family.series {
            let labels: Vec<metrics::Label> =
                labels(series).into_iter().map(|(name, value)| metrics::Label::new(name, value)).collect();
            let key = Key::from_parts(family.name.to_owned(), labels);
            match family.kind {
                Kind::Counter => recorder.register_counter(&key, &metadata).increment(series.value as u64),
                Kind::Gauge => recorder.register_gauge(&key, &metadata).set(series.value),
                Kind::Histogram(_) => {
                    let histogram = recorder.register_histogram(&key, &metadata);
                    (0..series.count).for_each(|_| histogram.record(series.value));
                }
            }
        }
        let help = family.help.to_owned().into();
        match family.kind {
            Kind::Counter => recorder.describe_counter(family.name.to_owned().into(), None, help),
            Kind::Gauge => recorder.describe_gauge(family.name.to_owned().into(), None, help),
            Kind::Histogram(_) => recorder.describe_histogram(family.name.to_owned().into(), None, help),
        }
    }
    recorder
}
