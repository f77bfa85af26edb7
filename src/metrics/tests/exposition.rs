//! What is written, byte by byte.

use super::*;
use crate::metrics::{FAMILIES, Format, PIECE_BYTES};

/// What depends on the machine and the build is not in the golden file.
fn without_the_machine(text: &str) -> String {
    let is_of_the_machine = |line: &&str| line.contains("process_") || line.contains("_build_info");
    text.lines().filter(|line| !is_of_the_machine(line)).map(|line| format!("{line}\n")).collect()
}

// The whole text of a scripted sequence of events, as it was read and approved by a person.
#[tokio::test(start_paused = true)]
async fn the_exposition_of_a_scripted_sequence_is_the_golden_one() {
    let world = World::new(MetricsConfig { max_children: 3, ..MetricsConfig::default() });
    scripted(&world);
    world.metrics.http_handlers(&["/metrics"]);
    let text = without_the_machine(&world.metrics.render());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/metrics/tests/golden.txt"), &text).unwrap();
    }
    assert!(text == include_str!("golden.txt"), "UPDATE_GOLDEN=1 writes what is shown now; read the difference");
}

// One group a family, its HELP and TYPE before its samples and once; a family without samples is not there.
#[test]
fn a_header_stands_before_the_samples_of_a_family_and_nowhere_else() {
    let world = World::new(MetricsConfig::default());
    let empty = world.metrics.render();
    assert!(!empty.contains("supervisor_up") && empty.contains("supervisor_history_capacity_events 1000\n"));
    scripted(&world);
    let (mut current, mut seen) = ("", Vec::new());
    let text = world.metrics.render();
    for line in text.lines() {
        if let Some(header) = line.strip_prefix("# HELP ") {
            current = header.split(' ').next().unwrap();
            seen.push(current);
        } else if let Some(header) = line.strip_prefix("# TYPE ") {
            assert!(header.starts_with(current));
        } else {
            assert!(line.starts_with(current), "{line} after the header of {current}");
        }
    }
    let in_order: Vec<_> = FAMILIES.iter().map(|family| family.name).filter(|name| seen.contains(name)).collect();
    assert_eq!(seen, in_order);
}

// A large exposition comes in pieces of whole lines, and together they are the same text.
#[test]
fn pieces_are_whole_lines_and_bounded() {
    let world = World::new(MetricsConfig::default());
    for number in 0..200 {
        let supervisor = world.supervisor(&format!("supervisor-{number:03}"));
        supervisor.init();
        supervisor.start("child");
    }
    let (mut exposition, mut piece, mut pieces, mut headers) =
        (world.metrics.exposition(Format::Text), Vec::new(), 0, 0);
    while exposition.next_piece(&mut piece) {
        assert!(piece.len() < PIECE_BYTES + 8 * 1024 && piece.ends_with(b"\n"));
        headers += String::from_utf8(piece.clone()).unwrap().matches("# HELP supervisor_up ").count();
        pieces += 1;
    }
    assert!(pieces > 3 && headers == 1);
    assert!(!exposition.next_piece(&mut piece) && piece.is_empty(), "the end stays the end");
}

// The supervisors shown are those at the start; nobody waits for a slow reader.
#[test]
fn events_go_on_while_an_exposition_is_read() {
    let world = World::new(MetricsConfig::default());
    for number in 0..100 {
        world.supervisor(&format!("old-{number:03}")).init();
    }
    let (mut exposition, mut piece, mut text) = (world.metrics.exposition(Format::Text), Vec::new(), String::new());
    while exposition.next_piece(&mut piece) {
        world.supervisor(&format!("new-{}", text.len())).init();
        text.push_str(std::str::from_utf8(&piece).unwrap());
    }
    assert!(text.contains("old-099") && !text.contains("new-"));
    assert!(world.metrics.render().contains("new-0"));
}
