//! What one viewer is sent, made as it takes it.

use std::future::{Future, pending};
use std::pin::{Pin, pin};
use std::task::{self, Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::time::sleep;

use super::super::patience::Patience;
use super::super::shapes::LastOutput;
use super::ring::Following;
use super::{Closing, HEARTBEAT, Place, REST, RETRY, Seat};
use crate::wire;

/// Events are sent together up to so many bytes.
const PIECE_BYTES: usize = 16 * 1024;

/// Most events that are looked at for one piece.
const PIECE_EVENTS: usize = 64;

/// The events on their way to a viewer; ends only when the server does, after all that has happened by then.
pub struct LiveStream {
    /// None after the end.
    next: Option<Pin<Box<Next>>>,
}

type Next = dyn Future<Output = Option<(Viewing, Bytes)>> + Send;

/// How far one viewer has come.
struct Viewing {
    seat: Seat,
    /// The number of the last event it was sent.
    place: u64,
    output: LastOutput,
    /// What is sent before the first event.
    greeting: Option<Bytes>,
    /// Whether it was sent all there was.
    is_up_to_date: bool,
    patience: Option<Patience>,
    closing: Option<Closing>,
}

// === impl LiveStream ===

impl LiveStream {
    pub(super) fn new(
        seat: Seat,
        place: Place,
        output: LastOutput,
        patience: Option<Patience>,
        closing: Option<Closing>,
    ) -> Self {
        let live = &seat.live;
        let mut greeting = format!("retry: {}\n", RETRY.as_millis());
        let place = match place {
            Place::After(number) => number,
            Place::Anew => {
                let reset = wire::json(&wire::LiveReset { start: live.shared.start });
                greeting += &format!("event: reset\ndata: {reset}\n");
                0
            }
        };
        greeting += &format!("id: {}\n\n", live.id(place));
        let greeting = Some(greeting.into());
        let viewing = Viewing { seat, place, output, greeting, is_up_to_date: false, patience, closing };
        Self { next: Some(Box::pin(viewing.next())) }
    }

    /// The next piece; none after the end.
    pub(in crate::http) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Some(next) = &mut self.next else { return Poll::Ready(None) };
        let Some((viewing, piece)) = task::ready!(next.as_mut().poll(cx)) else {
            self.next = None;
            return Poll::Ready(None);
        };
        self.next = Some(Box::pin(viewing.next()));
        Poll::Ready(Some(piece))
    }
}

/// Ends when the server closes.
async fn closed(closing: Option<Closing>) {
    match closing {
        // What it waits for is that the other half is dropped.
        Some(Closing(mut closing)) => while closing.changed().await.is_ok() {},
        None => pending().await,
    }
}

// === impl Viewing ===

impl Viewing {
    /// The next piece; none if the server closes and there is no more.
    async fn next(mut self) -> Option<(Self, Bytes)> {
        if let Some(greeting) = self.greeting.take() {
            return Some((self, greeting));
        }
        let mut closed = pin!(closed(self.closing.clone()));
        let rest = async {
            if let Some(patience) = &self.patience {
                // Nothing is made ready for a viewer that has not read what it was given: it would only wait in a buffer.
                patience.all_read().await;
            }
            if self.is_up_to_date {
                sleep(REST).await;
            }
        };
        tokio::select! {
            () = rest => {}
            () = &mut closed => return self.piece().map(|piece| (self, piece)),
        }
        let live = self.seat.live.clone();
        loop {
            let arrived = live.shared.arrived.notified();
            let mut arrived = pin!(arrived);
            // From here on nothing that arrives is overlooked.
            arrived.as_mut().enable();
            if let Some(piece) = self.piece() {
                return Some((self, piece));
            }
            tokio::select! {
                () = arrived => {}
                () = &mut closed => return self.piece().map(|piece| (self, piece)),
                () = sleep(HEARTBEAT) => {
                    let heartbeat = format!(": heartbeat\nid: {}\n\n", live.id(self.place));
                    return Some((self, heartbeat.into()));
                }
            }
        }
    }

    /// What is there and was not sent yet; none if there is nothing.
    fn piece(&mut self) -> Option<Bytes> {
        let live = &self.seat.live;
        let Following { missed, first, items } = live.shared.ring.lock().after(self.place, PIECE_EVENTS);
        let mut piece = BytesMut::new();
        if missed > 0 {
            live.metrics.live_events_missed(missed);
            self.place = first - 1;
            let missed = wire::json(&wire::LiveMissed { missed });
            piece.put_slice(format!("id: {}\nevent: missed\ndata: {missed}\n\n", live.id(self.place)).as_bytes());
        }
        let all = items.len();
        for (number, told) in (first..).zip(items) {
            if piece.len() >= PIECE_BYTES {
                break;
            }
            piece.put_slice(told.frame(live, number, self.output));
            self.place = number;
        }
        self.is_up_to_date = all < PIECE_EVENTS && self.place + 1 == first + all as u64;
        (!piece.is_empty()).then(|| piece.freeze())
    }
}
