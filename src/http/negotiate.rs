//! What a client can read: the format and the encoding of an answer, from its headers. Pure.
//!
//! RFC 9110, section 12: a quality of 0 forbids, the highest quality wins, and of equals the first. What cannot be
//! understood is passed over, and who accepts nothing that there is gets the text format: never a 406.

use hyper::HeaderMap;
use hyper::header::{ACCEPT, ACCEPT_ENCODING, HeaderName};

use crate::metrics::Format;

/// Most entries of one header that are looked at; further ones are ignored.
const MAX_ENTRIES: usize = 64;

/// The format to answer with.
pub(super) fn format(headers: &HeaderMap) -> Format {
    let mut best = (0.0, Format::Text);
    for entry in entries(headers, ACCEPT) {
        if let Some(format) = entry.format().filter(|_| entry.quality > best.0) {
            best = (entry.quality, format);
        }
    }
    best.1
}

/// Does the client want gzip?
pub(super) fn wants_gzip(headers: &HeaderMap) -> bool {
    let mut named = None;
    let mut any = 0.0;
    for entry in entries(headers, ACCEPT_ENCODING) {
        match entry.name.to_ascii_lowercase().as_str() {
            // Named twice: the one that forbids is to be believed.
            "gzip" | "x-gzip" => named = Some(entry.quality.min(named.unwrap_or(1.0))),
            "*" => any = entry.quality,
            _ => {}
        }
    }
    named.unwrap_or(any) > 0.0
}

/// One entry of a list with qualities.
struct Entry<'a> {
    name: &'a str,
    /// All parameters but the quality.
    parameters: Vec<(&'a str, &'a str)>,
    quality: f32,
}

impl Entry<'_> {
    fn format(&self) -> Option<Format> {
        match self.name.to_ascii_lowercase().as_str() {
            "application/openmetrics-text" => self.says("version", "1.0.0").then_some(Format::OpenMetrics),
            "application/vnd.google.protobuf" => {
                let is_ours =
                    self.says("proto", "io.prometheus.client.MetricFamily") && self.has("encoding", "delimited");
                is_ours.then_some(Format::Protobuf)
            }
            // Our names need no quotes, so that 0.0.4 is a valid 1.0.0.
            "text/plain" => (self.says("version", "0.0.4") || self.has("version", "1.0.0")).then_some(Format::Text),
            "text/*" | "*/*" => Some(Format::Text),
            _ => None,
        }
    }

    fn has(&self, name: &str, value: &str) -> bool {
        self.parameters.iter().any(|(other, its)| other.eq_ignore_ascii_case(name) && *its == value)
    }

    /// Has this parameter this value, or is it not there at all?
    fn says(&self, name: &str, value: &str) -> bool {
        self.has(name, value) || !self.parameters.iter().any(|(other, _)| other.eq_ignore_ascii_case(name))
    }
}

fn entries(headers: &HeaderMap, header: HeaderName) -> impl Iterator<Item = Entry<'_>> {
    let values = headers.get_all(header).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).take(MAX_ENTRIES).filter_map(entry)
}

/// None for an entry whose quality is no number from 0 to 1.
fn entry(text: &str) -> Option<Entry<'_>> {
    let mut parts = text.split(';').map(str::trim);
    let name = parts.next().filter(|name| !name.is_empty())?;
    let (mut quality, mut parameters) = (1.0, Vec::new());
    for (name, value) in parts.filter_map(|part| part.split_once('=')) {
        let (name, value) = (name.trim(), value.trim().trim_matches('"'));
        if name.eq_ignore_ascii_case("q") {
            quality = value.parse().ok().filter(|quality| (0.0..=1.0).contains(quality))?;
        } else {
            parameters.push((name, value));
        }
    }
    Some(Entry { name, parameters, quality })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), value.parse().unwrap())).collect()
    }

    // The exact requests of scrapers.
    #[test]
    fn each_scraper_gets_what_it_likes_best() {
        let protobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
        let table = [
            // Prometheus 2.42
            ("application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1".to_owned(), Format::OpenMetrics),
            // Prometheus 2.42 with native histograms
            (format!("{protobuf},application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"), Format::Protobuf),
            // Prometheus 3.0 to 3.3, which gives a parameter twice
            ("application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;escaping=allow-utf-8;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;escaping=allow-utf-8;q=0.3,*/*;q=0.2".to_owned(), Format::OpenMetrics),
            // Prometheus 3.4 to 3.14
            ("application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2".to_owned(), Format::OpenMetrics),
            // The same, protobuf first
            (format!("{protobuf};q=0.6,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"), Format::Protobuf),
            // VictoriaMetrics 1.79
            ("text/plain;version=0.0.4;q=1,*/*;q=0.1".to_owned(), Format::Text),
            // A browser, curl, http_sd
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8".to_owned(), Format::Text),
            ("*/*".to_owned(), Format::Text),
            ("application/json".to_owned(), Format::Text),
        ];
        for (accept, expected) in table {
            assert_eq!(format(&headers(ACCEPT, &[&accept])), expected, "{accept}");
        }
        assert_eq!(format(&HeaderMap::new()), Format::Text);
    }

    // Whatever is odd is passed over, and what is forbidden is not sent.
    #[test]
    fn odd_entries_change_nothing() {
        let table: [(&[&str], Format); 9] = [
            (&["application/openmetrics-text;q=0"], Format::Text),
            (&["application/openmetrics-text; version=1.0.0 ; q=0.2", "text/plain;q=0.1"], Format::OpenMetrics),
            (&["APPLICATION/OpenMetrics-Text; Version=\"1.0.0\""], Format::OpenMetrics),
            (&["application/openmetrics-text;version=9.0.0"], Format::Text),
            (&["application/openmetrics-text;q=2, text/plain;q=0.1"], Format::Text),
            (&["application/openmetrics-text;q=nonsense"], Format::Text),
            (&[" ,;, ;q=1, application/openmetrics-text ,"], Format::OpenMetrics),
            (&["application/vnd.google.protobuf"], Format::Text),
            (&["text/plain, application/openmetrics-text"], Format::Text),
        ];
        for (accept, expected) in table {
            assert_eq!(format(&headers(ACCEPT, accept)), expected, "{accept:?}");
        }
    }

    // gzip on request, and never where its quality is 0.
    #[test]
    fn gzip_is_for_those_who_ask_for_it() {
        let table = [
            ("gzip", true),
            ("identity", false),
            ("deflate, gzip;q=1.0, *;q=0.5", true),
            ("gzip;q=0", false),
            ("gzip ; q=0.0, *", false),
            ("gzip, gzip;q=0", false),
            ("*", true),
            ("*;q=0", false),
            ("x-gzip", true),
            ("", false),
        ];
        for (accept, expected) in table {
            assert_eq!(wants_gzip(&headers(ACCEPT_ENCODING, &[accept])), expected, "{accept}");
        }
        assert!(!wants_gzip(&HeaderMap::new()));
    }
}
