//! Serves an exposition until it is ended: `serve ours|encoder SUPERVISORS`. Prints the address that it listens on.
//! `encoder` is what a service with `prometheus` and `hyper` does: gather, encode, answer. `benches/wrk.py` asks both.

#[path = "../../../support/mod.rs"]
mod support;

use std::convert::Infallible;
use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE};
use hyper::{Request, Response, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use prometheus::{Encoder, Registry, TextEncoder};
use restart_exporter::Exporter;
use tokio::net::TcpListener;

use support::same_series::{encode, plain_registry};

const CHILDREN: usize = 4;

fn answer(registry: &Registry, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let text = encode(registry);
    let takes_gzip =
        request.headers().get(ACCEPT_ENCODING).is_some_and(|coding| coding.as_bytes().starts_with(b"gzip"));
    let answer = Response::builder().header(CONTENT_TYPE, TextEncoder::new().format_type());
    if !takes_gzip {
        return answer.body(Full::new(text.into())).unwrap();
    }
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&text).unwrap();
    answer.header(CONTENT_ENCODING, "gzip").body(Full::new(gzip.finish().unwrap().into())).unwrap()
}

async fn serve_encoder(supervisors: usize) {
    let text = support::Attached::after_crashes(supervisors, CHILDREN).metrics.render();
    let registry = Arc::new(plain_registry(&text));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    loop {
        let (connection, _) = listener.accept().await.unwrap();
        let registry = registry.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let response = answer(&registry, &request);
                async move { Ok::<_, Infallible>(response) }
            });
            // Whoever hangs up has what it wanted.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(connection), service).await;
        });
    }
}

async fn serve_ours(supervisors: usize, web_config_file: Option<String>) {
    let mut exporter = Exporter::builder().max_supervisors(supervisors).max_children(supervisors * CHILDREN, CHILDREN);
    if let Some(file) = web_config_file {
        exporter = exporter.web_config_file(file);
    }
    let exporter = exporter.build().unwrap();
    support::crashes(exporter.telemetry(), supervisors, CHILDREN);
    println!("{}", exporter.listen("127.0.0.1:0").await.unwrap());
    exporter.serve(std::future::pending::<()>()).await.unwrap();
}

// As many workers as cores that it may use.
#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let (who, supervisors) = (arguments.next(), arguments.next().and_then(|number| number.parse().ok()));
    match (who.as_deref(), supervisors) {
        (Some("ours"), Some(supervisors)) => serve_ours(supervisors, arguments.next()).await,
        (Some("encoder"), Some(supervisors)) => serve_encoder(supervisors).await,
        _ => eprintln!("usage: serve ours|encoder SUPERVISORS [WEB_CONFIG_FILE]"),
    }
}
