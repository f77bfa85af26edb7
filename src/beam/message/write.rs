//! To the agent.

use super::SCHEMA_VERSION;
use crate::beam::frame::FrameWriter;

/// The answer to a hello: go on after this number.
pub fn welcome(resume_after: u64, heartbeat_ms: i64, max_frame: i64) -> Vec<u8> {
    FrameWriter::new()
        .tuple(4)
        .atom("welcome")
        .integer(SCHEMA_VERSION)
        .integer(number(resume_after))
        .list(3)
        .tuple(2)
        .atom("heartbeat_ms")
        .integer(heartbeat_ms)
        .tuple(2)
        .atom("max_frame")
        .integer(max_frame)
        .tuple(2)
        .atom("progress")
        .integer(1)
        .end_list()
        .finish()
}

/// Everything up to this number was taken in.
pub fn ack(seq: u64) -> Vec<u8> {
    FrameWriter::new().tuple(2).atom("ack").integer(number(seq)).finish()
}

/// Please say all supervisors again, as in the beginning.
pub fn resync() -> Vec<u8> {
    FrameWriter::new().tuple(1).atom("resync").finish()
}

/// Numbers come from the agent, which has no greater ones.
fn number(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}
