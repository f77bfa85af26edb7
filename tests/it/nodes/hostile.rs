//! Frames that no agent writes: refused with a word about what and where, never a panic, never more memory than the frame.

use restart_exporter::beam::message;

use super::Session;
use super::agent::Sup;

/// What the decoder must refuse: a name, then the frame in hexadecimal digits.
const FRAMES: &str = include_str!("../fixtures/hostile_frames.txt");

fn frames() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    FRAMES.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let (name, hex) = line.split_once(": ").unwrap();
        let mut frame = Vec::new();
        for part in hex.split(' ').filter(|part| !part.is_empty()) {
            // `6801*100` is as many times the same.
            let (digits, times) = part.split_once('*').unwrap_or((part, "1"));
            let bytes: Vec<u8> =
                (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect();
            (0..times.parse().unwrap()).for_each(|_| frame.extend(&bytes));
        }
        (name, frame)
    })
}

#[test]
fn a_hostile_frame_is_an_error_that_names_what_and_where() {
    assert!(frames().count() >= 20);
    for (name, frame) in frames() {
        let error = message::read(&frame).map(|_| name).expect_err(name).to_string();
        assert!(error.contains(" at byte "), "{name}: {error}");
    }
}

// A protocol error ends the connection; what was said before stands.
#[tokio::test(start_paused = true)]
async fn a_hostile_frame_takes_nothing_away_from_what_was_said() {
    let mut session = Session::with(&[Sup::default()]);
    session.reports(&[Default::default()]);
    for (_, frame) in frames() {
        let length = (frame.len() as u32).to_be_bytes();
        session.says(&[&length[..], &frame].concat()).unwrap_err();
    }
    assert_eq!(session.sum("restart_exporter_node_events_total", &[]), 1.0);
}
