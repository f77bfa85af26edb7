//! Every case of hex `telemetry`'s `telemetry_SUITE` that makes sense here, under its own name.
//!
//! What the types make impossible has no test:
//!
//! | case | why |
//! |---|---|
//! | `bad_event_names` | an event name is an [`EventKind`], a closed set |
//! | `old_execute` | measurements are typed, a bare number is none |
//! | `default_metadata` | metadata cannot be left out |
//! | `persist_with_existing_handlers` | there is one table, and it is always the fast one |
//! | `off_execute` | a bus is a value: there is no application that could be stopped |
//! | `logs_on_local_function` | every function is as fast as any other |
//!
//! The suite runs its cases for two tables, `ets` and `persisted`; here they run for the one there is.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use parking_lot::Mutex;
use restart_exporter::event::{
    Event, EventKind, HandlerFailure, Payload, Pid, Span, SpanPhase, SupervisorEvent, SupervisorExit, SupervisorRef,
};
use restart_exporter::telemetry::{Handler, HandlerInfo, MAX_FAILED_HANDLERS, OTHER_HANDLER, Telemetry, now};

const SPANS: [EventKind; 3] = [EventKind::SpanStart, EventKind::SpanStop, EventKind::SpanException];

fn init() -> Event {
    let payload = Payload::SupervisorInit {
        strategy: None,
        max_restarts: None,
        max_seconds: Some(5),
        parent: None,
        found: false,
    };
    supervisor_event(payload)
}

fn terminate() -> Event {
    supervisor_event(Payload::SupervisorTerminate { reason: SupervisorExit::Normal, lifetime: None })
}

fn supervisor_event(payload: Payload) -> Event {
    let supervisor = Arc::new(SupervisorRef::new(Pid::Task(1), "top", None));
    Event::Supervisor(SupervisorEvent { supervisor, time: now(), payload })
}

/// A handler that keeps what it was called with.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Event>>>);

impl Seen {
    fn handler(&self) -> impl Handler + 'static {
        let seen = self.0.clone();
        move |event: &Event| seen.lock().push(event.clone())
    }

    fn kinds(&self) -> Vec<EventKind> {
        self.0.lock().iter().map(Event::kind).collect()
    }

    fn failures(&self) -> Vec<HandlerFailure> {
        let failure = |event: &Event| match event {
            Event::HandlerFailure(failure) => Some(failure.clone()),
            _ => None,
        };
        self.0.lock().iter().filter_map(failure).collect()
    }

    fn spans(&self) -> Vec<Span> {
        let span = |event: &Event| match event {
            Event::Span(span) => Some(span.clone()),
            _ => None,
        };
        self.0.lock().iter().filter_map(span).collect()
    }
}

fn fail(_: &Event) {
    panic!("handler fails");
}

/// The events that list a handler, whatever the prefix.
fn listed(telemetry: &Telemetry, prefix: &[&str]) -> Vec<EventKind> {
    telemetry.list_handlers(prefix).into_iter().map(|handler| handler.event).collect()
}

// === Attaching ===

// A second handler with the same id is refused, for the same event and for any other.
#[test]
fn duplicate_attach() {
    let telemetry = Telemetry::new();
    telemetry.attach("id", EventKind::SupervisorInit, |_: &Event| {}).unwrap();
    for kind in [EventKind::SupervisorInit, EventKind::SupervisorTerminate] {
        let error = telemetry.attach("id", kind, |_: &Event| {}).unwrap_err();
        assert!(error.to_string().starts_with("already_exists:"), "{error}");
    }
    assert_eq!(listed(&telemetry, &[]), [EventKind::SupervisorInit]);
}

// An owner that attaches the very handler it holds once more is told that all is well, and has one handler.
#[test]
fn attaching_the_same_handler_again_is_no_error_for_its_owner() {
    let telemetry = Telemetry::new();
    let seen = Seen::default();
    let handler: Arc<dyn Handler> = Arc::new(seen.handler());
    for _ in 0..3 {
        telemetry.attach_shared("id", &[EventKind::SupervisorInit], handler.clone()).unwrap();
    }
    telemetry.execute(&init());
    assert_eq!(seen.kinds(), [EventKind::SupervisorInit]);
    let stranger: Arc<dyn Handler> = Arc::new(seen.handler());
    assert!(telemetry.attach_shared("id", &[EventKind::SupervisorInit], stranger).is_err());
    telemetry.detach("id").unwrap();
    telemetry.attach_shared("id", &[EventKind::SupervisorInit], handler).unwrap();
    assert_eq!(telemetry.attached_handlers(), 1);
}

// A handler gets the event with its measurements and metadata. Its config is what the closure holds.
#[test]
fn invoke_handler() {
    let telemetry = Telemetry::new();
    let (config, calls) = ("config", Arc::new(AtomicUsize::new(0)));
    let count = calls.clone();
    let handler = move |event: &Event| {
        let Event::Supervisor(SupervisorEvent { supervisor, payload, .. }) = event else { panic!("{event:?}") };
        assert_eq!((&*supervisor.name, config), ("top", "config"));
        assert!(matches!(payload, Payload::SupervisorInit { max_seconds: Some(5), .. }));
        count.fetch_add(1, SeqCst);
    };
    telemetry.attach("id", EventKind::SupervisorInit, handler).unwrap();
    telemetry.execute(&init());
    assert_eq!(calls.load(SeqCst), 1);
    assert!(telemetry.handler_failures().is_empty());
}

// The list names a handler's id and event.
#[test]
fn list_handlers() {
    let telemetry = Telemetry::new();
    telemetry.attach("id", EventKind::ChildRestart, |_: &Event| {}).unwrap();
    let expected = HandlerInfo { id: "id".into(), event: EventKind::ChildRestart };
    assert_eq!(telemetry.list_handlers(EventKind::ChildRestart.name()), [expected]);
}

// A prefix of the event's name lists it, a longer name and another word do not; a word counts as a whole.
#[test]
fn list_for_prefix() {
    let telemetry = Telemetry::new();
    telemetry.attach("id", EventKind::ChildStart, |_: &Event| {}).unwrap();
    let table: [(&[&str], bool); 7] = [
        (&[], true),
        (&["supervisor"], true),
        (&["supervisor", "child"], true),
        (&["supervisor", "child", "start"], true),
        (&["supervisor", "child", "start", "more"], false),
        (&["supervisor", "init"], false),
        (&["sup"], false),
    ];
    for (prefix, is_listed) in table {
        assert_eq!(telemetry.list_handlers(prefix).len(), usize::from(is_listed), "{prefix:?}");
    }
}

// A handler on several events is called for each of them.
#[test]
fn handler_on_multiple_events() {
    let telemetry = Telemetry::new();
    let seen = Seen::default();
    let kinds = [EventKind::SupervisorInit, EventKind::SupervisorTerminate];
    telemetry.attach_many("id", &kinds, seen.handler()).unwrap();
    telemetry.execute(&init());
    telemetry.execute(&terminate());
    assert_eq!(seen.kinds(), kinds);
    assert_eq!(telemetry.attached_handlers(), 1);
}

// A kind that is named twice is one attachment.
#[test]
fn a_handler_is_called_once_for_an_event_however_often_it_named_it() {
    let telemetry = Telemetry::new();
    let seen = Seen::default();
    telemetry.attach_many("id", &[EventKind::SupervisorInit; 2], seen.handler()).unwrap();
    telemetry.execute(&init());
    assert_eq!(seen.kinds().len(), 1);
}

// A handler on several events is listed once for each.
#[test]
fn list_handler_on_many() {
    let telemetry = Telemetry::new();
    telemetry.attach_many("id", &EventKind::ALL, |_: &Event| {}).unwrap();
    assert_eq!(listed(&telemetry, &[]), EventKind::ALL);
    assert_eq!(listed(&telemetry, &["supervisor"]), EventKind::SUPERVISOR);
    assert_eq!(listed(&telemetry, &["telemetry", "span"]), SPANS);
}

// One detach removes a handler from all its events.
#[test]
fn detach_from_all() {
    let telemetry = Telemetry::new();
    let seen = Seen::default();
    telemetry.attach_many("id", &EventKind::ALL, seen.handler()).unwrap();
    telemetry.detach("id").unwrap();
    telemetry.execute(&init());
    telemetry.execute(&terminate());
    assert!(seen.kinds().is_empty() && telemetry.list_handlers(&[]).is_empty());
}

// === Executing ===

// A detached handler is silent; its id is free again, and unknown to a second detach.
#[test]
fn no_execute_detached() {
    let telemetry = Telemetry::new();
    let seen = Seen::default();
    telemetry.attach("id", EventKind::SupervisorInit, seen.handler()).unwrap();
    telemetry.execute(&init());
    telemetry.detach("id").unwrap();
    telemetry.execute(&init());
    assert_eq!(seen.kinds().len(), 1);
    let error = telemetry.detach("id").unwrap_err();
    assert!(error.to_string().starts_with("not_found:"), "{error}");
    telemetry.attach("id", EventKind::SupervisorInit, seen.handler()).unwrap();
}

// An event does not call the handlers of an event whose name is longer: `[supervisor, init]` and the children's events
// begin alike.
#[test]
fn no_execute_on_prefix() {
    let telemetry = Telemetry::new();
    let seen = Seen::default();
    telemetry.attach_many("id", &EventKind::ALL[1..], seen.handler()).unwrap();
    telemetry.execute(&init());
    assert!(seen.kinds().is_empty());
}

// Nor those of a shorter or of any other: of each kind only its own.
#[test]
fn no_execute_on_specific() {
    for kind in EventKind::ALL {
        let telemetry = Telemetry::new();
        let seen = Seen::default();
        telemetry.attach("id", kind, seen.handler()).unwrap();
        telemetry.execute(&init());
        telemetry.execute(&terminate());
        telemetry.span("work", || ());
        let expected = usize::from(!seen.kinds().is_empty());
        assert_eq!(seen.kinds(), vec![kind; expected]);
        assert_eq!(
            expected == 1,
            matches!(kind.name(), ["supervisor", "init" | "terminate"] | [_, "span", "start" | "stop"])
        );
    }
}

// === Failing ===

// A handler that panics is detached and announced with its id, its event and what the panic said; the caller and the
// other handlers never notice.
#[test]
fn detach_on_exception() {
    let telemetry = Telemetry::new();
    let (before, after, announced) = (Seen::default(), Seen::default(), Seen::default());
    telemetry.attach("before", EventKind::SupervisorInit, before.handler()).unwrap();
    telemetry.attach("failing", EventKind::SupervisorInit, fail).unwrap();
    telemetry.attach("after", EventKind::SupervisorInit, after.handler()).unwrap();
    telemetry.attach("announced", EventKind::HandlerFailure, announced.handler()).unwrap();
    telemetry.execute(&init());
    telemetry.execute(&init());
    assert_eq!((before.kinds().len(), after.kinds().len()), (2, 2));
    let failures = announced.failures();
    assert_eq!(failures.len(), 1);
    assert_eq!((&*failures[0].handler_id, failures[0].event_name), ("failing", EventKind::SupervisorInit));
    assert_eq!(&*failures[0].reason, "handler fails");
    assert!(telemetry.detach("failing").is_err());
    let counted = telemetry.handler_failures();
    assert_eq!((counted.len(), &*counted[0].id, counted[0].failures, counted[0].detached), (1, "failing", 1, true));
}

// A failure on one event removes the handler from all of them.
#[test]
fn remove_all_handler_on_failure() {
    let telemetry = Telemetry::new();
    telemetry.attach_many("failing", &EventKind::SUPERVISOR, fail).unwrap();
    telemetry.execute(&terminate());
    assert!(telemetry.list_handlers(&[]).is_empty());
    // Attached again, it is no longer told as detached, and its failures go on.
    telemetry.attach("failing", EventKind::SupervisorInit, fail).unwrap();
    assert!(!telemetry.handler_failures()[0].detached);
    telemetry.execute(&init());
    assert_eq!(telemetry.handler_failures()[0].failures, 2);
}

// A handler of the failure event that fails itself is announced to the others and not to itself: no endless round.
#[test]
fn a_failing_handler_of_the_failure_event_does_not_recurse() {
    let telemetry = Telemetry::new();
    let announced = Seen::default();
    for id in ["failing-1", "failing-2", "failing-3"] {
        telemetry.attach_many(id, &[EventKind::HandlerFailure, EventKind::SupervisorInit], fail).unwrap();
    }
    telemetry.attach("announced", EventKind::HandlerFailure, announced.handler()).unwrap();
    telemetry.execute(&init());
    let mut failed: Vec<_> = announced.failures().iter().map(|failure| failure.handler_id.to_string()).collect();
    failed.sort_unstable();
    assert_eq!(failed, ["failing-1", "failing-2", "failing-3"]);
    assert_eq!(telemetry.attached_handlers(), 1);
}

// Panics whose payload is no text, or panics itself when it is dropped, do no more harm than others.
#[test]
fn a_hostile_panic_payload_harms_nobody() {
    struct Hostile;
    impl Drop for Hostile {
        fn drop(&mut self) {
            panic!("payload");
        }
    }
    let telemetry = Telemetry::new();
    let announced = Seen::default();
    telemetry.attach("hostile", EventKind::SupervisorInit, |_: &Event| panic::panic_any(Hostile)).unwrap();
    telemetry.attach("announced", EventKind::HandlerFailure, announced.handler()).unwrap();
    telemetry.execute(&init());
    assert_eq!(&*announced.failures()[0].reason, "Box<dyn Any>");
}

// The counts of failures are bounded: handlers with ever new ids are counted together from a number on.
#[test]
fn the_counts_of_failures_are_bounded() {
    let telemetry = Telemetry::new();
    for n in 0..MAX_FAILED_HANDLERS + 100 {
        telemetry.attach(&format!("failing-{n:04}"), EventKind::SupervisorInit, fail).unwrap();
        telemetry.execute(&init());
    }
    let counted = telemetry.handler_failures();
    assert_eq!(counted.len(), MAX_FAILED_HANDLERS + 1);
    let other = counted.iter().find(|entry| &*entry.id == OTHER_HANDLER).unwrap();
    assert_eq!(other.failures, 100);
    assert!(counted.iter().filter(|entry| &*entry.id != OTHER_HANDLER).all(|entry| entry.failures == 1));
}

// === From inside, and at the same time ===

// A handler may attach, detach (itself as well) and execute; what it attaches is called from the next event on.
#[test]
fn a_handler_may_attach_detach_and_execute() {
    let telemetry = Telemetry::new();
    let (bus, seen, inner) = (telemetry.clone(), Seen::default(), Seen::default());
    let (outer, attached) = (seen.clone(), inner.clone());
    let once = move |event: &Event| {
        outer.0.lock().push(event.clone());
        bus.detach("once").unwrap();
        bus.attach("inner", EventKind::SupervisorInit, attached.handler()).unwrap();
        bus.execute(&terminate());
        assert_eq!(bus.list_handlers(&["supervisor"]).len(), 2);
    };
    telemetry.attach("once", EventKind::SupervisorInit, once).unwrap();
    telemetry.attach("end", EventKind::SupervisorTerminate, seen.handler()).unwrap();
    telemetry.execute(&init());
    assert_eq!(seen.kinds(), [EventKind::SupervisorInit, EventKind::SupervisorTerminate]);
    assert!(inner.kinds().is_empty());
    telemetry.execute(&init());
    assert_eq!(inner.kinds(), [EventKind::SupervisorInit]);
    assert!(telemetry.handler_failures().is_empty());
}

// Attaching and detaching in one thread disturbs no event in another: a handler that stays sees each event once.
#[test]
fn threads_may_attach_and_execute_at_the_same_time() {
    const ROUNDS: usize = 2_000;
    let telemetry = Telemetry::new();
    let (calls, passing) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let count = calls.clone();
    telemetry
        .attach("staying", EventKind::SupervisorInit, move |_: &Event| {
            count.fetch_add(1, SeqCst);
        })
        .unwrap();
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (telemetry, passing) = (&telemetry, &passing);
            scope.spawn(move || {
                let id = format!("passing-{thread}");
                for _ in 0..ROUNDS {
                    let count = passing.clone();
                    let handler = move |_: &Event| {
                        count.fetch_add(1, SeqCst);
                    };
                    telemetry.attach(&id, EventKind::SupervisorInit, handler).unwrap();
                    telemetry.execute(&init());
                    telemetry.detach(&id).unwrap();
                }
            });
        }
    });
    assert_eq!(calls.load(SeqCst), 2 * ROUNDS);
    // Each sees at least its own events, and those of the other thread while it was attached.
    assert!((2 * ROUNDS..=4 * ROUNDS).contains(&passing.load(SeqCst)));
    assert_eq!(telemetry.attached_handlers(), 1);
}

// A handler that fails in two threads at the same time is detached and announced once.
#[test]
fn a_handler_that_fails_in_two_threads_is_announced_once() {
    for _ in 0..20 {
        let telemetry = Telemetry::new();
        let announced = Seen::default();
        let both_inside = Arc::new(std::sync::Barrier::new(2));
        let failing = move |_: &Event| {
            both_inside.wait();
            panic!("handler fails");
        };
        telemetry.attach("failing", EventKind::SupervisorInit, failing).unwrap();
        telemetry.attach("announced", EventKind::HandlerFailure, announced.handler()).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| telemetry.execute(&init()));
            }
        });
        assert_eq!(announced.failures().len(), 1);
        assert_eq!(telemetry.handler_failures()[0].failures, 2);
    }
}

// === Spans ===

// A span says that it starts and stops, with its duration, and gives the result of the work.
#[test]
fn invoke_successful_span_handlers() {
    let telemetry = Telemetry::new();
    let seen = Seen::default();
    telemetry.attach_many("id", &SPANS, seen.handler()).unwrap();
    assert_eq!(telemetry.span("work", || 42), 42);
    assert_eq!(seen.kinds(), [EventKind::SpanStart, EventKind::SpanStop]);
    let spans = seen.spans();
    assert!(spans.iter().all(|span| span.name == "work"));
    let SpanPhase::Stop { duration } = spans[1].phase else { panic!("{spans:?}") };
    assert_eq!(spans[1].time.monotonic - spans[0].time.monotonic, duration);
}

// A span whose work panics says so, with what the panic said, and the panic goes on as it was.
#[test]
fn invoke_exception_span_handlers() {
    let telemetry = Telemetry::new();
    let seen = Seen::default();
    telemetry.attach_many("id", &SPANS, seen.handler()).unwrap();
    let number = seen.kinds().len();
    let work = || telemetry.span("work", || panic!("work {number} fails"));
    let outcome = panic::catch_unwind(AssertUnwindSafe(work));
    assert_eq!(outcome.unwrap_err().downcast_ref::<String>().unwrap(), "work 0 fails");
    assert_eq!(seen.kinds(), [EventKind::SpanStart, EventKind::SpanException]);
    let spans = seen.spans();
    assert_eq!((spans[1].name, spans[1].context), ("work", spans[0].context));
    let SpanPhase::Exception { reason, .. } = &spans[1].phase else { panic!("{spans:?}") };
    assert_eq!(&**reason, "work 0 fails");
}

// Each span has a context of its own, the same at its start and at its end, and spans may nest.
#[test]
fn spans_generate_unique_default_contexts() {
    let telemetry = Telemetry::new();
    let seen = Seen::default();
    telemetry.attach_many("id", &SPANS, seen.handler()).unwrap();
    telemetry.span("outer", || telemetry.span("inner", || ()));
    let spans = seen.spans();
    let names: Vec<_> = spans.iter().map(|span| span.name).collect();
    assert_eq!(names, ["outer", "inner", "inner", "outer"]);
    assert_eq!((spans[0].context, spans[1].context), (spans[3].context, spans[2].context));
    assert_ne!(spans[0].context, spans[1].context);
}
