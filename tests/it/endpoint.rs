//! The HTTP endpoint: every route, every refusal, every limit, and that an exposition is whole and of now.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use restart_exporter::Exporter;
use restart_exporter::event::{Event, EventKind, Payload, Pid, Strategy, SupervisorEvent, SupervisorRef};
use restart_exporter::http::{MAX_BODY_BYTES, MAX_HEAD_BYTES, NOT_FOUND, ROUTES, Route};
use restart_exporter::metrics::{FAMILIES, Format, PIECE_BYTES};
use restart_exporter::prelude::*;
use restart_exporter::telemetry::now;
use tokio::sync::{Notify, Semaphore};

use crate::world::{Events, Response, crasher, exchange, get, listening, request, sample, soon};

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// A supervisor `fragile` that restarted its child `crasher` once, behind an endpoint.
async fn fragile() -> (Exporter, SocketAddr) {
    let (exporter, address) = listening(Exporter::builder()).await;
    let mut events = Events::of(exporter.telemetry());
    let crashes = Arc::new(Semaphore::new(1));
    exporter.supervise(Supervisor::new("fragile").child(crasher("crasher", &crashes))).await.unwrap();
    events.restarts(1).await;
    (exporter, address)
}

/// A question to this route that has an answer.
fn question(route: &Route) -> String {
    let wanted = [("supervisor", "?supervisor=fragile"), ("reason", "?reason=0123456789abcdef")];
    let query = wanted.into_iter().find(|(parameter, _)| route.parameters.contains(parameter));
    format!("{}{}", route.path, query.map_or("", |(_, query)| query))
}

fn content_type(route: &Route) -> &'static str {
    match route.path {
        "/metrics" => Format::Text.content_type(),
        "/" => "text/html; charset=utf-8",
        "/page.css" => "text/css; charset=utf-8",
        "/page.js" => "text/javascript; charset=utf-8",
        "/icon.svg" => "image/svg+xml",
        path if path.starts_with("/api/v1/") => JSON,
        _ => TEXT,
    }
}

fn requests(text: &str, handler: &str, code: u16) -> Option<f64> {
    sample(text, &format!("restart_exporter_http_requests_total{{handler=\"{handler}\",code=\"{code}\"}}"))
}

fn limit(exporter: &Exporter, limit: &str) -> f64 {
    let series = format!("restart_exporter_limit_reached_total{{limit=\"{limit}\"}}");
    sample(&exporter.metrics().render(), &series).expect("every limit stands at 0")
}

/// Tells of a supervisor of this name, which need not exist.
fn announce(exporter: &Exporter, name: &str) {
    let payload = Payload::SupervisorInit {
        strategy: Some(Strategy::OneForOne),
        max_restarts: Some(3),
        max_seconds: Some(5),
        parent: None,
        found: false,
    };
    let supervisor = Arc::new(SupervisorRef::new(Pid::Task(0), name, None));
    exporter.telemetry().execute(&Event::Supervisor(SupervisorEvent { supervisor, time: now(), payload }));
}

fn refused(response: &Response, status: u16, error_type: &str) -> String {
    let answer = response.json();
    assert_eq!((response.status, response.header("content-type")), (status, Some(JSON)), "{answer}");
    assert_eq!((&answer["status"], &answer["errorType"]), (&"error".into(), &error_type.into()), "{answer}");
    assert!(answer["now"].is_u64() && answer.as_object().unwrap().len() == 4, "{answer}");
    answer["error"].as_str().unwrap().to_owned()
}

// === Routes ===

/// The routes that only read, without the one whose answer has no end (see `live`).
fn reading() -> impl Iterator<Item = &'static Route> {
    ROUTES.iter().filter(|route| route.methods() == "GET, HEAD" && route.name != "events")
}

// Every route answers GET with its content type, and says that the answer is of now.
#[tokio::test]
async fn every_route_answers_with_its_content_type() {
    let (exporter, address) = fragile().await;
    exporter.app().set_ready(true);
    for route in reading() {
        let response = get(address, &question(route)).await;
        assert_eq!(
            (response.status, response.header("content-type")),
            (200, Some(content_type(route))),
            "{}",
            route.path
        );
        assert_eq!(response.header("cache-control"), Some("no-store"), "{}", route.path);
        assert!(!response.body.is_empty(), "{}", route.path);
        if content_type(route) == JSON {
            response.data();
        }
    }
}

// Every answer of the API says when it was given by the exporter's clock, and so does every error.
#[tokio::test]
async fn every_answer_says_when_it_was_given() {
    let (_exporter, address) = fragile().await;
    let questions = reading().filter(|route| content_type(route) == JSON).map(question);
    let orders = ROUTES.iter().filter(|route| route.methods() == "POST").map(|route| route.path.to_owned());
    for (method, path) in questions.map(|path| ("GET", path)).chain(orders.map(|path| ("POST", path))).chain([
        ("GET", "/api/v1/history?supervisor=nobody".into()),
        ("GET", "/api/v1/history?no=such".into()),
        ("GET", "/api/v1/events?after=x".into()),
    ]) {
        let before = now().unix_millis();
        let answer = request(address, method, &path).await.unwrap().json();
        let given = answer["now"].as_u64().unwrap_or_else(|| panic!("{method} {path}: {answer}"));
        assert!((before..=now().unix_millis()).contains(&given), "{method} {path}: {answer}");
    }
}

// HTTP: HEAD answers what GET would, headers included, without the body.
#[tokio::test]
async fn head_answers_as_get_does_without_a_body() {
    let (exporter, address) = fragile().await;
    exporter.app().set_ready(true);
    for path in reading().map(question).chain(["/no/such/path".into(), "/api/v1/history".into()]) {
        let (by_get, by_head) = (get(address, &path).await, request(address, "HEAD", &path).await.unwrap());
        assert_eq!((by_head.status, by_head.body.as_str()), (by_get.status, ""), "{path}");
        // The date may change between the two, and with the numbers in a text its length.
        let changes = ["date", "content-length"];
        let shape = |response: &Response| {
            let headers = response.headers.iter();
            headers
                .map(|(name, value)| (name.clone(), value.clone()))
                .map(|(name, value)| if changes.contains(&&*name) { (name, String::new()) } else { (name, value) })
                .collect::<BTreeSet<_>>()
        };
        assert_eq!(shape(&by_head), shape(&by_get), "{path}");
    }
}

// An unknown path is 404, whatever the method; a known one with another method is 405 and names the methods it knows.
#[tokio::test]
async fn unknown_paths_and_methods_are_refused() {
    let (_exporter, address) = fragile().await;
    for path in ["/no/such/path", "/metrics/", "//", "/api/v1", "/api/v2/stats", "/METRICS"] {
        let response = get(address, path).await;
        assert_eq!((response.status, response.header("content-type")), (404, Some(TEXT)), "{path}");
        assert_eq!(request(address, "POST", path).await.unwrap().status, 404, "{path}");
    }
    for route in ROUTES {
        let methods = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "QUERY"];
        for method in methods.into_iter().filter(|method| !route.methods().contains(method)) {
            let response = request(address, method, route.path).await.unwrap();
            assert_eq!(
                (response.status, response.header("allow")),
                (405, Some(route.methods())),
                "{method} {}",
                route.path
            );
        }
    }
}

// A parameter misspelt is a question misunderstood: what is unknown, given twice, missing or no value is named.
#[tokio::test]
async fn a_wrong_parameter_is_bad_data_and_is_named() {
    let (_exporter, address) = fragile().await;
    let table = [
        ("/?x=1", "\"x\""),
        ("/-/healthy?x=1", "\"x\""),
        ("/api/v1/stats?supervisor=fragile", "supervisor"),
        ("/api/v1/history?supervisor=fragile&limits=1", "limits"),
        ("/api/v1/history?supervisor=fragile&supervisor=fragile", "supervisor"),
        ("/api/v1/history", "supervisor"),
        ("/api/v1/history?supervisor=fragile&limit=0", "limit"),
        ("/api/v1/history?supervisor=fragile&limit=-1", "limit"),
        ("/api/v1/history?supervisor=fragile&limit=many", "limit"),
        ("/api/v1/history?supervisor=fragile&limit=", "limit"),
        ("/api/v1/history?supervisor=fragile&event=died", "event"),
        ("/api/v1/failure_rate", "supervisor"),
        ("/api/v1/failure_rate?supervisor=fragile&window=60", "window"),
        ("/api/v1/failure_rate?supervisor=fragile&window=0s", "window"),
        ("/api/v1/failure_rate?supervisor=fragile&window=-1s", "window"),
        ("/api/v1/failure_rate?supervisor=fragile&window=99999y", "window"),
        ("/api/v1/causes", "supervisor"),
        ("/api/v1/causes?supervisor=fragile&%00=1", "\\0"),
    ];
    for (path, name) in table {
        let message = refused(&get(address, path).await, 400, "bad_data");
        assert!(message.contains(name), "{path}: {message}");
    }
}

// The document's `{:error, …}` for an unknown supervisor; a child nobody knows is just one without events.
#[tokio::test]
async fn an_unknown_supervisor_is_not_found() {
    let (_exporter, address) = fragile().await;
    for route in ["history", "failure_rate", "causes"] {
        for name in ["nobody", "", "fragile/nobody", "%ff%fe"] {
            let message = refused(&get(address, &format!("/api/v1/{route}?supervisor={name}")).await, 404, "not_found");
            assert!(message.starts_with("not_found: "), "{message}");
        }
    }
    let nothing = get(address, "/api/v1/history?supervisor=fragile&child=nobody").await.data();
    assert_eq!((&nothing["events"], &nothing["total"]), (&serde_json::json!([]), &2.into()));
}

// The filters of the history: by child, by event, and the newest so many; a name may be any id, percent-encoded.
#[tokio::test]
async fn the_history_is_filtered_as_asked() {
    let (exporter, address) = fragile().await;
    let id = exporter.control().supervisors()[0].id.unwrap();
    let table = [
        ("supervisor=fragile", vec!["restarted", "terminated"]),
        ("supervisor=fragile&limit=1", vec!["restarted"]),
        ("supervisor=fragile&event=terminated", vec!["terminated"]),
        ("supervisor=%66ragile&child=crasher&event=restarted&limit=10", vec!["restarted"]),
        ("supervisor=fragile&event=start_error", vec![]),
        (&format!("supervisor={id}"), vec!["restarted", "terminated"]),
    ];
    for (query, expected) in table {
        let page = get(address, &format!("/api/v1/history?{query}")).await.data();
        let types: Vec<_> =
            page["events"].as_array().unwrap().iter().map(|event| event["event_type"].clone()).collect();
        assert_eq!(types, expected, "{query}");
        assert_eq!((&page["supervisor"], &page["capacity"]), (&"fragile".into(), &1000.into()), "{query}");
    }
}

// --web.telemetry-path: the metrics move, everything else stays, and the page links to where they are.
#[tokio::test]
async fn the_metrics_are_served_where_they_were_asked_for() {
    let (_exporter, address) = listening(Exporter::builder().telemetry_path("/probes/metrics")).await;
    assert_eq!(get(address, "/probes/metrics").await.header("content-type"), Some(Format::Text.content_type()));
    assert_eq!(get(address, "/metrics").await.status, 404);
    let page = get(address, "/").await.body;
    assert!(page.contains("href=\"probes/metrics\"") && !page.contains("href=\"metrics\""), "{page}");
}

// Ready means that all supervisors have started: not before serve, and no more once it stops, while a slow child ends.
#[tokio::test]
async fn ready_is_503_before_serve_and_while_stopping() {
    let (exporter, address) = listening(Exporter::builder()).await;
    let (told, may_end) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tells, waits) = (told.clone(), may_end.clone());
    let slow = ChildSpec::task("slow", move |stop| {
        let (told, may_end) = (tells.clone(), waits.clone());
        async move {
            stop.stopped().await;
            told.notify_one();
            may_end.notified().await;
        }
    });
    exporter.supervise(Supervisor::new("top").child(slow.shutdown(Shutdown::Infinity))).await.unwrap();
    assert_eq!(get(address, "/-/ready").await.status, 503);
    assert_eq!(get(address, "/-/healthy").await.status, 200);

    let (ready, asked) = (exporter.app().clone(), Arc::new(Notify::new()));
    let shutdown = asked.clone();
    let serving = tokio::spawn(exporter.serve(async move { shutdown.notified().await }));
    // Ready is said when serve is polled first, and this test shares its one thread with it.
    tokio::task::yield_now().await;
    assert_eq!(get(address, "/-/ready").await.status, 200);
    drop(ready);

    asked.notify_one();
    soon("the order to stop", told.notified()).await;
    assert_eq!(get(address, "/-/ready").await.status, 503);
    assert_eq!(get(address, "/-/healthy").await.status, 200);
    may_end.notify_one();
    soon("the end of serve", serving).await.unwrap().unwrap();
    assert!(request(address, "GET", "/-/healthy").await.is_err(), "the endpoint stops last");
}

// === Limits ===

// Everything a client can make large has a limit with a counter: the head of a request …
#[tokio::test]
async fn a_head_that_is_too_long_is_431_and_counted() {
    let (exporter, address) = fragile().await;
    assert_eq!(limit(&exporter, "http_request_header"), 0.0);
    let long = "x".repeat(2 * MAX_HEAD_BYTES);
    let head = format!("GET / HTTP/1.1\r\nHost: {address}\r\nX-Long: {long}\r\n\r\n");
    assert_eq!(exchange(address, &head).await.unwrap().status, 431);
    // The connection is closed and counted after its answer; the next request is served, whenever that was.
    assert_eq!(get(address, "/-/healthy").await.status, 200);
    let counted = async {
        while limit(&exporter, "http_request_header") < 1.0 {
            tokio::task::yield_now().await;
        }
    };
    soon("the counter of heads", counted).await;
    let fits =
        format!("GET /-/healthy HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nX: {}\r\n\r\n", "x".repeat(8000));
    assert_eq!(exchange(address, &fits).await.unwrap().status, 200);
    assert_eq!(limit(&exporter, "http_request_header"), 1.0);
}

// … and its body, whether its length is said before or not. A short one, sent by habit, is let pass.
#[tokio::test]
async fn a_body_that_is_too_long_is_413_and_counted() {
    let (exporter, address) = fragile().await;
    let with_length = |length: u64| {
        let body = "x".repeat(usize::try_from(length).unwrap());
        format!(
            "GET /-/healthy HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    };
    assert_eq!(exchange(address, &with_length(MAX_BODY_BYTES)).await.unwrap().status, 200);
    assert_eq!(limit(&exporter, "http_request_body"), 0.0);
    let refused = exchange(address, &with_length(MAX_BODY_BYTES + 1)).await.unwrap();
    assert_eq!((refused.status, refused.header("connection")), (413, Some("close")));
    assert_eq!(limit(&exporter, "http_request_body"), 1.0);
    let chunked = format!("GET / HTTP/1.1\r\nHost: {address}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    assert_eq!(exchange(address, &chunked).await.unwrap().status, 413, "of unknown length");
    assert_eq!(limit(&exporter, "http_request_body"), 2.0);
}

// A request that is none harms nobody.
#[tokio::test]
async fn what_is_no_http_is_refused_and_the_next_client_is_served() {
    let (_exporter, address) = fragile().await;
    for nonsense in [
        "\r\n\r\n\0\0\0\0 nonsense\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        // One that speaks HTTP/2 is only cut off.
        let refused = exchange(address, nonsense).await.map_or(400, |response| response.status);
        assert_eq!(refused, 400, "{nonsense:?}");
        assert_eq!(get(address, "/-/healthy").await.status, 200, "{nonsense:?}");
    }
}

// Two requests on one connection are answered on it, in order.
#[tokio::test]
async fn a_connection_serves_more_than_one_request() {
    let (_exporter, address) = fragile().await;
    let both = format!(
        "GET /-/healthy HTTP/1.1\r\nHost: {address}\r\n\r\nGET /-/ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    );
    let answers = exchange(address, &both).await.unwrap();
    assert_eq!(answers.status, 200);
    assert!(answers.body.contains("HTTP/1.1 503"), "{answers:?}");
}

// === The metrics of the endpoint itself ===

// Requests are counted by the name of their route, never by their path, and stand at 0 before the first.
#[tokio::test]
async fn requests_are_counted_by_route_and_status() {
    let (exporter, address) = fragile().await;
    for handler in ROUTES.iter().map(|route| route.name) {
        assert_eq!(requests(&exporter.metrics().render(), handler, 200), Some(0.0), "{handler}");
    }
    for path in ["/api/v1/stats", "/api/v1/stats", "/api/v1/history", "/api/v1/history?supervisor=nobody", "/a", "/b"] {
        get(address, path).await;
    }
    request(address, "POST", "/").await.unwrap();
    let text = get(address, "/metrics").await.body;
    let counted =
        [("stats", 200, 2.0), ("history", 400, 1.0), ("history", 404, 1.0), (NOT_FOUND, 404, 2.0), ("index", 405, 1.0)];
    for (handler, code, count) in counted {
        assert_eq!(requests(&text, handler, code), Some(count), "{handler} {code}");
    }
    assert_eq!(requests(&text, "metrics", 200), Some(0.0), "the one that is being answered is not counted yet");
    assert_eq!(sample(&text, "restart_exporter_http_requests_in_flight"), Some(1.0));
    assert_eq!(requests(&get(address, "/metrics").await.body, "metrics", 200), Some(1.0));
    assert!(!text.contains("/a\""), "no path is a label");
}

// === The exposition ===

// Handlers run in the emitter: a scrape after an event sees the event, with nothing waiting in between.
#[tokio::test]
async fn a_scrape_right_after_an_event_sees_it() {
    let (exporter, address) = listening(Exporter::builder()).await;
    for number in 1..=20 {
        announce(&exporter, &format!("supervisor-{number:02}"));
        let text = get(address, "/metrics").await.body;
        let up = format!("supervisor_up{{supervisor=\"supervisor-{number:02}\"}}");
        assert_eq!(sample(&text, &up), Some(1.0));
        let inits = sample(&text, "restart_exporter_telemetry_events_total{event=\"supervisor_init\"}");
        assert_eq!(inits, Some(f64::from(number)));
        let stats = get(address, "/api/v1/stats").await.data();
        assert_eq!(stats["total_supervisors"], number);
    }
}

// An exposition longer than one piece is built while it is sent; what arrives is all of it, in order.
#[tokio::test]
async fn a_long_exposition_arrives_whole() {
    let (exporter, address) = listening(Exporter::builder()).await;
    (0..400).for_each(|number| announce(&exporter, &format!("supervisor-{number}")));
    get(address, "/metrics").await; // From the second on, the duration of the one before is shown.
    let response = get(address, "/metrics").await;
    assert!(response.body.len() > 4 * PIECE_BYTES, "{} bytes", response.body.len());
    assert_eq!(response.header("transfer-encoding"), Some("chunked"));
    let changing = ["process_", "restart_exporter_http_", "restart_exporter_scrape_"];
    let lasting = |text: &str| {
        let lines = text.lines().filter(|line| !changing.iter().any(|prefix| line.starts_with(prefix)));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let (arrived, rendered) = (lasting(&response.body), lasting(&exporter.metrics().render()));
    let first_other = arrived.iter().zip(&rendered).find(|(arrived, rendered)| arrived != rendered);
    assert_eq!((first_other, arrived.len()), (None, rendered.len()));
    assert!(response.body.ends_with('\n'));
}

// A host that has a registry of its own shows the same families and series through it, without those of its process.
#[tokio::test]
async fn a_registry_of_the_host_shows_the_same_series() {
    let (exporter, address) = fragile().await;
    let registry = ::prometheus::Registry::new();
    registry.register(Box::new(exporter.metrics().collector())).unwrap();
    get(address, "/metrics").await;
    let ours = get(address, "/metrics").await.body;
    let theirs = ::prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    let series = |text: &str| -> BTreeSet<String> {
        let lines = text.lines().filter(|line| !line.contains("process_") && !line.starts_with("# HELP"));
        // Without the value, because some change while one looks, and with bounds as the encoder spells them.
        lines
            .map(|line| {
                if line.starts_with('#') { line } else { line.rsplit_once(' ').unwrap().0 }.replace(".0\"}", "\"}")
            })
            .collect()
    };
    assert_eq!(series(&ours), series(&theirs));
    let families: BTreeSet<_> = registry.gather().iter().map(|family| family.name().to_owned()).collect();
    assert!(FAMILIES.iter().any(|family| families.contains(family.name)));
}

// The bus' contract, as seen from outside: a handler that panics on each event changes nothing and is counted.
#[tokio::test]
async fn a_handler_that_panics_on_each_event_changes_nothing_and_is_counted() {
    let (exporter, address) = listening(Exporter::builder()).await;
    let bus = exporter.telemetry().clone();
    let attach = move || {
        let broken = |event: &Event| panic!("broken on {}", event.kind());
        bus.attach_many("broken", &EventKind::SUPERVISOR, broken).unwrap();
    };
    attach();
    // As soon as it is detached it is there again.
    exporter.telemetry().attach("attaches-again", EventKind::HandlerFailure, move |_: &Event| attach()).unwrap();
    let mut events = Events::of(exporter.telemetry());
    let crashes = Arc::new(Semaphore::new(3));
    exporter.supervise(Supervisor::new("fragile").child(crasher("crasher", &crashes))).await.unwrap();
    events.restarts(3).await;

    let text = get(address, "/metrics").await.body;
    let restarts = "supervisor_child_restarts_total{supervisor=\"fragile\",child=\"crasher\",cause=\"failure\"}";
    assert_eq!(sample(&text, restarts), Some(3.0));
    let failures = "restart_exporter_telemetry_handler_failures_total{handler=\"broken\"}";
    assert_eq!(sample(&text, failures), Some(8.0), "an init, a start, three deaths and three restarts");
    let page = get(address, "/api/v1/history?supervisor=fragile").await.data();
    assert_eq!(page["total"], 6);
    for handler in ["analytics", restart_exporter::metrics::HANDLER_ID] {
        let healthy = format!("restart_exporter_telemetry_handler_failures_total{{handler=\"{handler}\"}}");
        assert!(sample(&text, &healthy).unwrap_or_default() == 0.0, "{handler}");
    }

    exporter.telemetry().detach("attaches-again").unwrap();
    announce(&exporter, "later");
    let text = exporter.metrics().render();
    assert_eq!(sample(&text, "restart_exporter_telemetry_handlers{state=\"detached\"}"), Some(1.0));
    assert_eq!(sample(&text, failures), Some(9.0));
}

// Concurrent scrapes must work (Prometheus' own rule): many at once all get a whole exposition.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_scrapes_at_once_are_all_whole() {
    let (exporter, address) = listening(Exporter::builder()).await;
    (0..100).for_each(|number| announce(&exporter, &format!("supervisor-{number}")));
    let scrapes: Vec<_> = (0..40).map(|_| tokio::spawn(async move { get(address, "/metrics").await })).collect();
    let last = FAMILIES.iter().map(|family| family.name).rfind(|name| name.starts_with("process_")).unwrap();
    for scrape in scrapes {
        let text = scrape.await.unwrap().body;
        assert_eq!(text.lines().filter(|line| line.starts_with("supervisor_up{")).count(), 100);
        assert!(text.lines().last().unwrap().starts_with(last), "{:?}", text.lines().last());
    }
    assert_eq!(requests(&exporter.metrics().render(), "metrics", 200), Some(40.0));
    let rate =
        soon("an answer", async { exporter.control().failure_rate("supervisor-1", Duration::from_secs(1)) }).await;
    assert_eq!(rate.unwrap().restarts, 0);
}
