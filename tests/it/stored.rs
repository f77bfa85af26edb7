//! One exporter, every format, and two databases that scrape it: what they have stored is equal.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener as PortFinder};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::prometheus::{TREE, kill_and_see_restarted};
use crate::world::{Foreign, Prometheus, Running, get, until};

/// What is compared: all that does not change from scrape to scrape once nobody dies any more.
const STORED: &str =
    r#"{__name__=~"supervisor_.+|restart_exporter_(build_info|telemetry_.+|limit_.+|label_.+|supervisors)"}"#;

/// Series by their labels, without those that the scraper adds.
type Series = BTreeMap<String, String>;

fn series(answer: &Value) -> Series {
    let all = answer["result"].as_array().into_iter().flatten();
    all.map(|series| {
        let mut labels = series["metric"].as_object().unwrap().clone();
        labels.retain(|name, _| name != "job" && name != "instance");
        (Value::from(labels).to_string(), series["value"][1].as_str().unwrap().to_owned())
    })
    .collect()
}

async fn stored(database: SocketAddr) -> Series {
    let query: String = form_urlencoded::byte_serialize(STORED.as_bytes()).collect();
    // VictoriaMetrics keeps answers; the parameter means nothing to Prometheus.
    let answer = get(database, &format!("/api/v1/query?query={query}&nocache=1")).await;
    if answer.status == 200 { series(&answer.data()) } else { Series::new() }
}

/// Are they the same but for what VictoriaMetrics rounds? It keeps some 15 digits of a value.
fn is_near(exact: &Series, rounded: &Series) -> bool {
    let value = |text: &String| text.parse::<f64>().unwrap();
    let is_near = |(one, other)| (value(one) - value(other)).abs() <= 1e-14 * value(one).abs();
    exact.keys().eq(rounded.keys()) && exact.values().zip(rounded.values()).all(is_near)
}

/// Stands before an exporter and says that its scrapers read no more than this.
async fn accepting(accept: &'static str, exporter: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(pass_on(client, accept, exporter));
        }
    });
    address
}

async fn pass_on(mut client: TcpStream, accept: &str, exporter: SocketAddr) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head);
    let others = head.trim_end().split("\r\n").filter(|line| !line.to_ascii_lowercase().starts_with("accept:"));
    let head = others.collect::<Vec<_>>().join("\r\n");
    let mut server = TcpStream::connect(exporter).await?;
    server.write_all(format!("{head}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}

/// A VictoriaMetrics that scrapes one exporter every second. It does not tell its port, so one is looked for before.
async fn victoria_metrics(target: SocketAddr, data: &tempfile::TempDir) -> (Foreign, SocketAddr) {
    let address = PortFinder::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = data.path().join("scrape.yml");
    let text = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
         scrape_configs: [{{job_name: exporter, static_configs: [{{targets: ['{target}']}}]}}]\n"
    );
    std::fs::write(&config, text).unwrap();
    let arguments = [
        format!("-promscrape.config={}", config.display()),
        format!("-storageDataPath={}", data.path().join("data").display()),
        format!("-httpListenAddr={address}"),
        "-memory.allowedBytes=64MiB".into(),
        // What was scraped is to be seen at once.
        "-search.latencyOffset=1ms".into(),
    ];
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let mut process = Foreign::start("victoria-metrics", &arguments);
    process.line_with("starting http server at").await;
    (process, address)
}

// All formats come from one walk and say the same; so do the databases that read them: Prometheus in text, OpenMetrics and
// protobuf, VictoriaMetrics in the text that it asks for. Equal names, labels, bounds and values.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_database_has_stored_the_same_series_whatever_format_it_read() {
    let (directory, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let exporter = Running::file(directory.path(), TREE).await;
    for _ in 0..3 {
        kill_and_see_restarted(&exporter, "web").await;
    }
    let text = Prometheus::scraping(accepting("text/plain;version=0.0.4", exporter.address).await).await;
    let openmetrics =
        Prometheus::scraping(accepting("application/openmetrics-text;version=1.0.0", exporter.address).await).await;
    let protobuf = Prometheus::scraping_with(exporter.address, &["--enable-feature=native-histograms"]).await;
    let (_victoria_metrics, victoria_metrics) = victoria_metrics(exporter.address, &data).await;

    let equal = until("equal series in all databases", async || {
        let first = stored(text.address).await;
        let mut equal = first.len() > 100;
        for other in [openmetrics.address, protobuf.address] {
            equal &= first == stored(other).await;
        }
        equal &= is_near(&first, &stored(victoria_metrics).await);
        equal.then_some(first)
    })
    .await;
    let restarts = equal.iter().find(|(labels, _)| {
        ["supervisor_child_restarts_total", "\"web\"", "\"failure\""].iter().all(|part| labels.contains(part))
    });
    assert_eq!(restarts.map(|(_, value)| value.as_str()), Some("3"), "{equal:?}");
}
