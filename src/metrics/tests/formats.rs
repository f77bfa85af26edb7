//! The formats against each other: one walk, and whatever is written says the same.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::metrics::{Format, PIECE_BYTES};

const OPTIONS: [(bool, bool); 4] = [(false, false), (true, false), (false, true), (true, true)];

fn world_with(openmetrics_created: bool, exemplars: bool) -> World {
    World::new(MetricsConfig { openmetrics_created, exemplars, max_children: 3, ..MetricsConfig::default() })
}

fn text_of(world: &World, format: Format) -> String {
    String::from_utf8(world.metrics.encode(format)).unwrap()
}

/// Series and values of a text, without what belongs to one format alone and what changes from scrape to scrape.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !changes(line) && !line.contains("_created"));
    let samples = lines.map(|line| {
        let line = line.split(" # ").next().unwrap();
        let (series, value) = line.rsplit_once(' ').unwrap();
        (series.to_owned(), value.parse().unwrap())
    });
    samples.collect()
}

fn changes(line: &str) -> bool {
    line.starts_with("process_") || line.contains("scrape_duration_seconds")
}

// === A reader of protobuf, as much as it takes ===

/// A field: its number, and what it holds.
enum Value<'a> {
    Int(u64),
    Double(f64),
    Bytes(&'a [u8]),
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let (byte, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}

fn delimited<'a>(bytes: &mut &'a [u8]) -> &'a [u8] {
    let length = usize::try_from(varint(bytes)).unwrap();
    let (message, rest) = bytes.split_at(length);
    *bytes = rest;
    message
}

fn fields(mut bytes: &[u8]) -> Vec<(u64, Value<'_>)> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let value = match key & 7 {
            0 => Value::Int(varint(&mut bytes)),
            1 => {
                let (double, rest) = bytes.split_first_chunk().unwrap();
                bytes = rest;
                Value::Double(f64::from_le_bytes(*double))
            }
            2 => Value::Bytes(delimited(&mut bytes)),
            other => panic!("wire type {other}"),
        };
        fields.push((key >> 3, value));
    }
    fields
}

fn all<'a>(message: &'a [u8], number: u64) -> impl Iterator<Item = Value<'a>> {
    fields(message).into_iter().filter(move |(other, _)| *other == number).map(|(_, value)| value)
}

fn bytes(message: &[u8], number: u64) -> impl Iterator<Item = &[u8]> {
    all(message, number).map(|value| if let Value::Bytes(bytes) = value { bytes } else { panic!("no bytes") })
}

fn string(message: &[u8], number: u64) -> String {
    String::from_utf8(bytes(message, number).next().unwrap_or_default().to_vec()).unwrap()
}

fn number(message: &[u8], number: u64) -> f64 {
    match all(message, number).next().unwrap() {
        Value::Int(int) => int as f64,
        Value::Double(double) => double,
        Value::Bytes(_) => panic!("no number"),
    }
}

fn timestamp(message: &[u8], field: u64) -> f64 {
    let timestamp = bytes(message, field).next().unwrap();
    number(timestamp, 1) + number(timestamp, 2) / 1e9
}

/// What the messages hold, spelled as the lines of a text, and `_created` of each series that has it.
fn read_protobuf(mut encoded: &[u8]) -> (BTreeMap<String, f64>, BTreeMap<String, f64>) {
    let (mut samples, mut created) = (BTreeMap::new(), BTreeMap::new());
    let mut names = Vec::new();
    while !encoded.is_empty() {
        let family = delimited(&mut encoded);
        let (name, kind) = (string(family, 1), number(family, 3));
        assert!(!names.contains(&name), "{name} comes twice");
        assert!(!string(family, 2).is_empty(), "{name} has no help");
        for metric in bytes(family, 4) {
            let labels: Vec<_> = bytes(metric, 1)
                .map(|pair| {
                    let value = string(pair, 2).replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                    format!("{}=\"{value}\"", string(pair, 1))
                })
                .collect();
            let series = |suffix: &str, more: &str| {
                let labels = labels.iter().map(String::as_str).chain(Some(more).filter(|more| !more.is_empty()));
                let labels = labels.collect::<Vec<_>>().join(",");
                if labels.is_empty() { format!("{name}{suffix}") } else { format!("{name}{suffix}{{{labels}}}") }
            };
            let value = |field| bytes(metric, field).next().unwrap();
            if kind == 4.0 {
                let histogram = value(7);
                for bucket in bytes(histogram, 3) {
                    let bound = number(bucket, 2);
                    let bound = if bound.is_finite() { format!("{bound:?}") } else { "+Inf".into() };
                    samples.insert(series("_bucket", &format!("le=\"{bound}\"")), number(bucket, 1));
                }
                samples.insert(series("_count", ""), number(histogram, 1));
                samples.insert(series("_sum", ""), number(histogram, 2));
                created.insert(series("", ""), timestamp(histogram, 15));
            } else {
                let value = value(if kind == 0.0 { 3 } else { 2 });
                samples.insert(series("", ""), number(value, 1));
                if kind == 0.0 {
                    created.insert(series("", ""), timestamp(value, 3));
                }
            }
        }
        names.push(name);
    }
    samples.retain(|series, _| !changes(series));
    (samples, created)
}

// All three formats come from the same walk and say the same, whatever is shown besides.
#[test]
fn all_formats_show_the_same_series_and_values() {
    for (created, exemplars) in OPTIONS {
        let world = world_with(created, exemplars);
        scripted(&world);
        world.metrics.http_handlers(&["/metrics"]);
        let plain = samples(&text_of(&world, Format::Text));
        assert!(plain.len() > 150);
        assert_eq!(samples(&text_of(&world, Format::OpenMetrics)), plain);
        assert_eq!(read_protobuf(&world.metrics.encode(Format::Protobuf)).0, plain);
    }
}

proptest! {
    // Whatever names hold.
    #[test]
    fn all_formats_agree_on_any_names(names in proptest::collection::btree_set("[\\\\\"\n{},=#aé🦀 ]{0,6}", 1..4)) {
        let world = world_with(false, false);
        for name in &names {
            let supervisor = world.supervisor(name);
            supervisor.init_under(Some(name));
            names.iter().for_each(|child| supervisor.start(child));
        }
        let plain = samples(&text_of(&world, Format::Text).replace(" # ", " % "));
        prop_assert_eq!(&samples(&text_of(&world, Format::OpenMetrics).replace(" # ", " % ")), &plain);
        let (read, _) = read_protobuf(&world.metrics.encode(Format::Protobuf));
        let read: BTreeMap<_, _> =
            read.into_iter().map(|(series, value)| (series.replace(" # ", " % "), value)).collect();
        prop_assert_eq!(&read, &plain);
    }
}

// OpenMetrics: TYPE, UNIT, HELP before the samples, each once; `_total` is no part of a counter's family; no line is
// empty; `# EOF` is the last line and the only one of its kind. With neither flag nothing else is shown.
#[test]
fn openmetrics_has_its_own_headers_and_an_end() {
    let world = world_with(false, false);
    scripted(&world);
    let text = text_of(&world, Format::OpenMetrics);
    assert!(text.contains(
        "# TYPE supervisor_child_restarts counter\n\
         # HELP supervisor_child_restarts Restarts of a child, by cause: its own failure, a sibling's failure under the \
         strategy, or an operator's request.\n\
         supervisor_child_restarts_total{"
    ));
    assert!(text.contains(
        "# TYPE supervisor_child_lifetime_seconds histogram\n\
         # UNIT supervisor_child_lifetime_seconds seconds\n\
         # HELP supervisor_child_lifetime_seconds "
    ));
    assert!(text.contains("# UNIT process_cpu_seconds seconds\n# HELP process_cpu_seconds "));
    assert!(!text.contains("_created") && !text.contains(" # {") && !text.contains("\n\n") && !text.contains('\r'));
    assert!(text.ends_with("\n# EOF\n") && text.matches("# EOF").count() == 1);
    for line in text.lines().filter(|line| line.starts_with("# TYPE")) {
        assert_eq!(text.matches(line).count(), 1, "{line}");
        assert!(!line.contains("_total "), "{line}");
    }
}

// `--web.openmetrics-created`: a series began when its supervisor or child was first seen, those of the exporter with it;
// the line stands right behind the sample it belongs to. Protobuf says the same without being asked.
#[test]
fn created_is_the_birth_of_a_series() {
    let world = world_with(true, false);
    scripted(&world);
    let text = text_of(&world, Format::OpenMetrics);
    let restarts = "{supervisor=\"shop\",child=\"mailer\",cause=\"failure\"}";
    assert!(text.contains(&format!(
        "supervisor_child_restarts_total{restarts} 1\nsupervisor_child_restarts_created{restarts} 1700000000.000\n"
    )));
    assert!(text.contains(
        "supervisor_child_lifetime_seconds_count{supervisor=\"shop\"} 2\n\
         supervisor_child_lifetime_seconds_created{supervisor=\"shop\"} 1700000000.000\n"
    ));
    assert!(text.contains("restart_exporter_telemetry_events_created{event=\"child_start\"} "));
    assert!(!text_of(&world, Format::Text).contains("_created"));
    let shown: BTreeMap<_, _> = text
        .lines()
        .filter(|line| line.contains("_created") && !changes(line))
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let counter = !series.contains("_seconds_created");
            (series.replace("_created", if counter { "_total" } else { "" }), value.parse::<f64>().unwrap())
        })
        .collect();
    for world in [&world, &world_with(false, false)] {
        if !text_of(world, Format::Text).contains("supervisor=\"shop\"") {
            scripted(world);
        }
        let (_, created) = read_protobuf(&world.metrics.encode(Format::Protobuf));
        let of_supervisors = |created: &BTreeMap<String, f64>| -> BTreeMap<String, f64> {
            created
                .iter()
                .filter(|(series, _)| series.starts_with("supervisor_"))
                .map(|(s, v)| (s.clone(), *v))
                .collect()
        };
        assert_eq!(of_supervisors(&created), of_supervisors(&shown));
        assert!(created.keys().all(|series| shown.contains_key(series) || changes(series)));
    }
}

// `--web.exemplars`: a bucket of lifetimes points to the newest death of the history that lies in it.
#[test]
fn an_exemplar_is_the_newest_death_of_its_bucket() {
    let world = world_with(false, true);
    scripted(&world);
    let text = text_of(&world, Format::OpenMetrics);
    let bucket = "supervisor_child_lifetime_seconds_bucket{supervisor=\"shop\",le=\"5.0\"} 2";
    // Two deaths after 1.5 s: the second is event 3 of the history, after a death and a restart.
    assert!(text.contains(&format!("{bucket} # {{event_id=\"3\"}} 1.5 1700000000.000\n")), "{text}");
    assert_eq!(text.matches(" # {event_id=\"3\"}").count(), 1, "larger buckets hold it only by sum");
    assert!(!text_of(&world, Format::Text).contains(" # {"));

    let encoded = world.metrics.encode(Format::Protobuf);
    let mut rest = encoded.as_slice();
    let mut exemplars = Vec::new();
    while !rest.is_empty() {
        let family = delimited(&mut rest);
        let histograms = bytes(family, 4).flat_map(|metric| bytes(metric, 7));
        for exemplar in histograms.flat_map(|histogram| bytes(histogram, 3)).flat_map(|bucket| bytes(bucket, 3)) {
            let label = bytes(exemplar, 1).next().unwrap();
            exemplars.push((string(label, 1), string(label, 2), number(exemplar, 2), timestamp(exemplar, 3)));
        }
    }
    let shop = ("event_id".to_owned(), "3".to_owned(), 1.5, 1_700_000_000.0);
    assert!(exemplars.contains(&shop), "{exemplars:?}");
    let shown = text.lines().filter(|line| line.contains(" # {event_id=")).count();
    assert_eq!(exemplars.len(), shown);
}

// A message cannot be cut, so a family of protobuf comes in one piece; all others are cut as the text is.
#[test]
fn pieces_end_where_a_line_or_a_message_ends() {
    let world = World::new(MetricsConfig::default());
    for number in 0..500 {
        let supervisor = world.supervisor(&format!("supervisor-{number:03}"));
        supervisor.init();
        supervisor.start("child");
    }
    for format in Format::ALL {
        let (mut exposition, mut piece, mut pieces) = (world.metrics.exposition(*format), Vec::new(), 0);
        while exposition.next_piece(&mut piece) {
            pieces += 1;
            if *format == Format::Protobuf {
                let mut rest = piece.as_slice();
                while !rest.is_empty() {
                    delimited(&mut rest);
                }
            } else {
                assert!(piece.len() < PIECE_BYTES + 8 * 1024 && piece.ends_with(b"\n"));
            }
        }
        assert!(pieces > 3, "{format:?}");
        assert!(!exposition.next_piece(&mut piece) && piece.is_empty(), "the end stays the end");
    }
}
