//! `format_log_1` and `format_log_2`: what supervisors say for people, and that it has a limit.

use restart_exporter::event::{ExitReason, MAX_DETAIL_BYTES, Payload, SupervisorExit};
use restart_exporter::supervisor::{ChildSpec, Supervisor};

use crate::support::{Kid, reason, supervise};

// The reports in one line each. Adapted: OTP formats report terms, here the reasons show themselves; the lines hold the
// same facts: who, how it ended, why the supervisor gave up.
#[tokio::test(start_paused = true)]
async fn format_log_1() {
    let kid = Kid::new("child");
    let (top, log) = supervise(Supervisor::new("top").max_restarts(1).child(kid.spec())).await;
    kid.panic();
    let said = reason(&log.first("terminate top/child").await).to_string();
    let (what, at) = said.split_once(" at ").unwrap();
    assert_eq!(what, "panic: child panics");
    assert!(at.starts_with("tests/it/support.rs:"), "{at}");
    log.first("restart top/child").await;
    kid.exit(ExitReason::Exit(3));
    let said = top.wait().await.to_string();
    let expected = r#"max_intensity: more than 1 restart in 5 s; last child "child": error: exit code 3"#;
    assert_eq!(said, expected);
}

// Long texts: an error shows its whole chain of causes and all its lines, but no text is longer than its limit. Adapted:
// OTP limits depth and size of printed terms, here a text is cut.
#[tokio::test(start_paused = true)]
async fn format_log_2() {
    let message = |text: &'static str| {
        ChildSpec::ready_task("child", move |_stop, _ready| async move { Err::<(), _>(format!("{text}\nsecond line")) })
    };
    let (top, log) = supervise(Supervisor::new("top")).await;
    top.start_child(message("first line")).await.unwrap_err();
    let said = reason(&log.first("start_error top/child").await).to_string();
    assert_eq!(said, "error: first line\nsecond line");

    let kid = Kid::new("long");
    top.start_child(kid.spec()).await.unwrap();
    kid.exit(ExitReason::error("ä".repeat(MAX_DETAIL_BYTES)));
    let detail = reason(&log.first("terminate top/long").await).detail().unwrap();
    assert!(detail.len() <= MAX_DETAIL_BYTES && detail.ends_with("ä…"));
    for _ in 0..3 {
        kid.exit(ExitReason::error("ä".repeat(MAX_DETAIL_BYTES)));
    }
    let SupervisorExit::MaxIntensity(detail) = top.wait().await else { panic!("it gave up") };
    assert!(detail.len() <= MAX_DETAIL_BYTES && detail.ends_with("ä…"));
    let Payload::SupervisorTerminate { reason, .. } = log.first("end top").await.payload else { panic!("the end") };
    assert_eq!(reason, SupervisorExit::MaxIntensity(detail));
}
