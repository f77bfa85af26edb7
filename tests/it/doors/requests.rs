//! Requests that are not what they should be, and what every answer says.

use restart_exporter::Exporter;
use restart_exporter::http::ROUTES;

use crate::world::{exchange, get, listening, request};

// RFC 9112, section 3.2: a request has one Host, and an absolute target overrides it.
#[tokio::test]
async fn a_request_with_two_hosts_is_refused() {
    let (_exporter, address) = listening(Exporter::builder()).await;
    for (head, status) in [
        ("GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n", 200),
        ("GET /-/healthy HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n", 400),
        ("GET /-/healthy HTTP/1.1\r\nHost: localhost\r\nhost: evil.example\r\n", 400),
        ("GET /-/healthy HTTP/1.1\r\n", 400),
        ("GET /-/healthy HTTP/1.0\r\n", 200),
        ("GET /-/healthy HTTP/1.1\r\nHost: a b\r\n", 400),
        ("GET http://localhost/-/healthy HTTP/1.1\r\nHost: evil.example\r\n", 200),
        ("GET http://localhost/-/healthy HTTP/1.1\r\nHost: a\r\nHost: b\r\n", 400),
    ] {
        let response = exchange(address, &format!("{head}Connection: close\r\n\r\n")).await.unwrap();
        assert_eq!(response.status, status, "{head:?}: {}", response.body);
    }
}

// Prometheus' jobs have `params:`, which every target gets. The API goes on to name what it does not know.
#[tokio::test]
async fn the_metrics_ignore_unknown_parameters() {
    let (_exporter, address) = listening(Exporter::builder()).await;
    for query in ["anything=1", "x=1&x=2", "%00", "collect[]=a&collect[]=b"] {
        assert_eq!(get(address, &format!("/metrics?{query}")).await.status, 200, "{query}");
    }
    assert_eq!(get(address, "/api/v1/supervisors?anything=1").await.status, 400);
}

// A browser must not take text of programs for a page of its own.
#[tokio::test]
async fn every_answer_says_nosniff() {
    let (_exporter, address) = listening(Exporter::builder()).await;
    let routes = ROUTES.iter().filter(|route| route.name != "events");
    let paths = routes.map(|route| route.path.to_owned()).chain(["/none".into(), "/api/v1/stats?x=1".into()]);
    for path in paths {
        for method in ["GET", "POST", "PUT"] {
            let response = request(address, method, &path).await.unwrap();
            assert_eq!(response.header("x-content-type-options"), Some("nosniff"), "{method} {path}");
        }
    }
    let two_hosts = "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n";
    let refused = exchange(address, two_hosts).await.unwrap();
    assert_eq!((refused.status, refused.header("x-content-type-options")), (400, Some("nosniff")));
}
