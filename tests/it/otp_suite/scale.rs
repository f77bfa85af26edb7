//! Many children: the time of a start or a stop grows with their number and not with its square.
//!
//! Real time, because paused time does not pass while the processor works. The bound is OTP's factor of 50, where linear
//! is 10 and quadratic 100. The smaller number runs ten times, so that a busy machine slows both sides down alike.

use std::time::{Duration, Instant};

use restart_exporter::supervisor::{ChildSpec, Restart, Strategy, Supervisor};
use restart_exporter::telemetry::Telemetry;

use crate::support::counts;

const FEW: usize = 500;

#[allow(clippy::disallowed_methods, reason = "measures work of the processor, which paused time does not show")]
fn clock() -> Instant {
    Instant::now()
}

fn check_ratio(ten_times_few: Duration, many: Duration) {
    assert!(many < ten_times_few * 5, "ten times few took {ten_times_few:?}, ten times as many took {many:?}");
}

fn waiting(id: usize) -> ChildSpec {
    ChildSpec::task(id.to_string(), |stop| async move { stop.stopped().await })
}

/// Time to stop this many temporary children one by one.
async fn stop_one_by_one(number: usize) -> Duration {
    let top = Supervisor::new("top").strategy(Strategy::Dynamic).start(&Telemetry::new()).await.unwrap();
    let mut pids = Vec::new();
    for id in 0..number {
        pids.push(top.start_child(waiting(id).restart(Restart::Temporary)).await.unwrap().pid.unwrap());
    }
    let begin = clock();
    for pid in pids {
        top.terminate_child(pid).await.unwrap();
    }
    let took = begin.elapsed();
    assert_eq!(counts(&top).await, (0, 0, 0, 0));
    took
}

// Stopping ten times as many temporary children one by one takes less than 50 times as long. OTP compares 10,000 with
// 1,000.
#[tokio::test]
async fn simple_one_for_one_scale_many_temporary_children() {
    let mut few = Duration::ZERO;
    for _ in 0..10 {
        few += stop_one_by_one(FEW).await;
    }
    check_ratio(few, stop_one_by_one(10 * FEW).await);
}

/// Time to start and to stop a supervisor with this many children in its list.
async fn start_and_stop(number: usize) -> Duration {
    let top = (0..number).map(waiting).fold(Supervisor::new("top"), Supervisor::child);
    let begin = clock();
    let top = top.start(&Telemetry::new()).await.unwrap();
    top.shutdown().await;
    begin.elapsed()
}

// Starting and stopping ten times as many static children takes less than 50 times as long.
#[tokio::test]
async fn scale_start_stop_many_children() {
    let mut few = Duration::ZERO;
    for _ in 0..10 {
        few += start_and_stop(FEW).await;
    }
    check_ratio(few, start_and_stop(10 * FEW).await);
}
