//! Our families for a host that already has a `prometheus::Registry`.

use std::collections::HashMap;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use super::super::Metrics;
use super::super::families::FAMILIES;
use super::super::family::{Family, Kind};
use super::super::labels::Labels;
use super::sink::{Exemplar, Number, Sink};
use super::walk::Walk;

/// Collects from the same walk that the endpoint writes. `process_*` is left to the host.
pub(in super::super) struct FamilyCollector {
    metrics: Metrics,
    descriptions: Vec<Desc>,
}

/// Builds the plain structs of `prometheus`.
#[derive(Default)]
struct FamilySink {
    families: Vec<(&'static Family, Vec<Metric>)>,
}

// === impl FamilyCollector ===

impl FamilyCollector {
    pub(in super::super) fn new(metrics: Metrics) -> Self {
        let describe = |family: &Family| {
            let labels = family.labels.iter().map(|label| (*label).to_owned()).collect();
            Desc::new(family.name.to_owned(), family.help.to_owned(), labels, HashMap::new()).ok()
        };
        let descriptions = FAMILIES.iter().filter(|family| is_collected(family)).filter_map(describe).collect();
        Self { metrics, descriptions }
    }
}

impl Collector for FamilyCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut sink = FamilySink::default();
        Walk::new(self.metrics.clone(), is_collected).run(&mut sink);
        sink.families.into_iter().filter(|(_, metrics)| !metrics.is_empty()).map(into_proto).collect()
    }
}

fn is_collected(family: &Family) -> bool {
    !family.is_of_process()
}

fn into_proto((family, metrics): (&Family, Vec<Metric>)) -> MetricFamily {
    let mut proto = MetricFamily::default();
    proto.set_name(family.name.to_owned());
    proto.set_help(family.help.to_owned());
    proto.set_field_type(match family.kind {
        Kind::Counter => MetricType::COUNTER,
        Kind::Gauge => MetricType::GAUGE,
        Kind::Histogram => MetricType::HISTOGRAM,
    });
    proto.set_metric(metrics);
    proto
}

// === impl FamilySink ===

impl FamilySink {
    fn push(&mut self, labels: Vec<LabelPair>, set: impl FnOnce(&'static Family, &mut Metric)) {
        let Some((family, metrics)) = self.families.last_mut() else { return };
        let mut metric = Metric::from_label(labels);
        set(family, &mut metric);
        metrics.push(metric);
    }

    fn push_value(&mut self, labels: Vec<LabelPair>, value: f64) {
        self.push(labels, |family, metric| {
            if family.kind == Kind::Counter {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            } else {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
        });
    }
}

impl Sink for FamilySink {
    fn family(&mut self, family: &'static Family) {
        self.families.push((family, Vec::new()));
    }

    fn sample(&mut self, labels: Labels<'_>, value: Number) {
        self.push_value(pairs(labels), value.into());
    }

    fn each(&mut self, labels: Labels<'_>, counts: &[u64]) {
        let Some(family) = self.families.last().map(|(family, _)| *family) else { return };
        let name = family.labels.last().copied().unwrap_or_default();
        for (value, count) in family.values.iter().zip(counts) {
            let mut labels = pairs(labels);
            labels.push(pair(name, value));
            self.push_value(labels, *count as f64);
        }
    }

    fn histogram(&mut self, labels: Labels<'_>, counts: &[u64], sum: f64, _: &[Option<Exemplar>]) {
        self.push(pairs(labels), |family, metric| {
            let mut histogram = Histogram::default();
            // `+Inf` is left out: writers take it from the count of all.
            histogram
                .set_bucket(family.buckets.iter().zip(counts).map(|(bound, count)| bucket(*bound, *count)).collect());
            histogram.set_sample_count(counts.last().copied().unwrap_or_default());
            histogram.set_sample_sum(sum);
            metric.set_histogram(histogram);
        });
    }
}

fn bucket(upper_bound: f64, cumulative_count: u64) -> Bucket {
    let mut bucket = Bucket::default();
    bucket.set_upper_bound(upper_bound);
    bucket.set_cumulative_count(cumulative_count);
    bucket
}

fn pairs(labels: Labels<'_>) -> Vec<LabelPair> {
    labels.pairs().map(|(name, value)| pair(name, &value)).collect()
}

fn pair(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}
