//! A real Prometheus, and questions to it.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::Value;

use super::{Foreign, get, until};

/// A running Prometheus, ended when dropped.
pub(crate) struct Prometheus {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    _process: Foreign,
    _data: tempfile::TempDir,
    /// It reads its configuration some time after it listens.
    _config: Option<tempfile::TempDir>,
}

impl Prometheus {
    /// One that scrapes one exporter every second.
    pub(crate) async fn scraping(target: SocketAddr) -> Self {
        Self::scraping_with(target, &[]).await
    }

    /// The same, with more flags.
    pub(crate) async fn scraping_with(target: SocketAddr, flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("prometheus.yml");
        let text = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
             scrape_configs: [{{job_name: exporter, static_configs: [{{targets: ['{target}']}}]}}]\n"
        );
        std::fs::write(&config, text).unwrap();
        Self { _config: Some(directory), ..Self::configured(&config, flags).await }
    }

    /// One with this configuration, a file that stays.
    pub(crate) async fn configured(config: &Path, flags: &[&str]) -> Self {
        let data = tempfile::tempdir().unwrap();
        let arguments = [
            format!("--config.file={}", config.display()),
            format!("--storage.tsdb.path={}", data.path().display()),
            "--web.listen-address=127.0.0.1:0".into(),
        ];
        let arguments: Vec<_> = arguments.iter().map(String::as_str).chain(flags.iter().copied()).collect();
        let mut process = Foreign::start("prometheus", &arguments);
        let address = process.address().await;
        Self { address, _process: process, _data: data, _config: None }
    }

    /// `data` of an answer, none if there was an error.
    pub(crate) async fn data(&self, path: &str) -> Option<Value> {
        let response = get(self.address, path).await;
        (response.status == 200).then(|| response.data())
    }

    /// The series that an expression gives now: labels, and the value or list of values.
    pub(crate) async fn query(&self, expression: &str) -> Vec<(Value, Value)> {
        let query: String = form_urlencoded::byte_serialize(expression.as_bytes()).collect();
        let data = self.data(&format!("/api/v1/query?query={query}")).await;
        let series = data.iter().flat_map(|data| data["result"].as_array()).flatten();
        series
            .map(|series| (series["metric"].clone(), series.get("values").unwrap_or(&series["value"]).clone()))
            .collect()
    }

    /// The value of an expression that gives one series, none as long as it gives none.
    pub(crate) async fn value(&self, expression: &str) -> Option<f64> {
        match &self.query(expression).await[..] {
            [] => None,
            [(_, value)] => value[1].as_str()?.parse().ok(),
            series => panic!("{expression} gives {series:?}"),
        }
    }

    /// Returns when an expression has this value.
    pub(crate) async fn sees(&self, expression: &str, expected: f64) {
        until(&format!("{expression} is {expected}"), async || {
            self.value(expression).await.filter(|value| *value == expected)
        })
        .await;
    }
}
