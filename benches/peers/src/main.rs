//! What a scrape costs beside the libraries that a Rust service would use: the same series, rendered by turns in one run.
//!
//!     cargo run --release --manifest-path benches/peers/Cargo.toml --bin peers [SUPERVISORS]

#[path = "../../support/mod.rs"]
mod support;

mod kept;

use std::hint::black_box;
use std::process::Command;

use restart_exporter::telemetry::monotonic_now;

use support::same_series::{encode, is_same, plain_registry, stream};
use support::{Attached, Target};

const CHILDREN: usize = 4;
const ROUNDS: usize = 5;

/// Asks a new process for the peak of one rendering, so that no free memory lies around that it could take.
const PEAK_ENV: &str = "PEERS_PEAK";

/// Who renders.
const NAMES: [&str; 4] = ["restart_exporter", "prometheus", "prometheus-client", "metrics-exporter-prometheus"];

/// What renders a text and tells how many bytes it has.
type Render = Box<dyn FnMut() -> usize>;

/// Who renders by its place in [`NAMES`], keeping the series of a text.
fn renderer(number: usize, supervisors: usize) -> Render {
    let ours = Attached::after_crashes(supervisors, CHILDREN);
    let text = ours.metrics.render();
    match number {
        0 => {
            let mut piece = Vec::new();
            Box::new(move || stream(&ours.metrics, &mut piece))
        }
        1 => {
            let registry = plain_registry(&text);
            Box::new(move || black_box(encode(&registry)).len())
        }
        2 => {
            let registry = kept::prometheus_client(&text);
            Box::new(move || black_box(kept::encode(&registry)).len())
        }
        _ => {
            let recorder = kept::metrics(&text);
            Box::new(move || black_box(recorder.handle().render()).len())
        }
    }
}

fn check() {
    let ours = Attached::after_crashes(100, CHILDREN).metrics.render();
    assert!(is_same(&ours, &String::from_utf8(encode(&plain_registry(&ours))).unwrap()), "prometheus");
    assert!(is_same(&ours, &kept::encode(&kept::prometheus_client(&ours))), "prometheus-client");
    assert!(is_same(&ours, &kept::metrics(&ours).handle().render()), "metrics-exporter-prometheus");
}

/// How far memory rises during one rendering, in MB.
fn peak(number: usize, supervisors: usize) -> f64 {
    let this = std::env::current_exe().unwrap();
    let output = Command::new(this).arg(supervisors.to_string()).env(PEAK_ENV, number.to_string()).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse::<f64>().unwrap() / 1e6
}

fn main() {
    let supervisors = std::env::args().nth(1).map_or(25_000, |supervisors| supervisors.parse().unwrap());
    if let Ok(number) = std::env::var(PEAK_ENV) {
        let mut render = renderer(number.parse().unwrap(), supervisors);
        println!("{}", support::peak(|| _ = render()));
        return;
    }
    check();
    let mut renderers = std::array::from_fn::<_, 4, _>(|number| renderer(number, supervisors));
    let bytes = renderers.each_mut().map(|render| render());
    let [one, two, three, four] = &mut renderers;
    let ms = |render: &mut Render| {
        let start = monotonic_now();
        render();
        (monotonic_now() - start).as_secs_f64() * 1e3
    };
    let times = support::by_turns(
        ROUNDS,
        [&mut || ms(one), &mut || ms(two), &mut || ms(three), &mut || ms(four)],
    );
    drop(renderers);
    println!("{supervisors} supervisors x {CHILDREN} children, equal series");
    println!("{:<30} {:>9} {:>9} {:>9} {:>7} {:>14}", "", "MB", "ms", "MB/s", "ratio", "extra peak MB");
    for (number, name) in NAMES.iter().enumerate() {
        let (megabytes, ms) = (bytes[number] as f64 / 1e6, times[number]);
        let (speed, ratio, peak) = (megabytes / ms * 1e3, ms / times[0], peak(number, supervisors));
        println!("{name:<30} {megabytes:>9.1} {ms:>9.1} {speed:>9.0} {ratio:>7.1} {peak:>14.2}");
    }
    support::verdict("ratio: prometheus / ours", times[1] / times[0], "", Target::AtLeast(20.0));
}
