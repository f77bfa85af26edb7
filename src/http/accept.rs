//! Which format and coding a request asks for, after RFC 9110, section 12.5: pure.
//!
//! Whatever is odd is passed over. A request that asks for nothing we have gets the plain text format, never a refusal: a
//! scraper that is answered can say what it did not like.

use crate::metrics::Format;

/// Longest quality that is read: RFC 9110 allows `0.` and three digits, some clients send more.
const MAX_QUALITY_BYTES: usize = 16;

/// The format that these values of `Accept` like best; among equals the one that is named first.
pub(super) fn format<'a>(accept: impl IntoIterator<Item = &'a str>) -> Format {
    let mut best: [Option<Wish>; Format::ALL.len()] = [None; Format::ALL.len()];
    for (place, element) in elements(accept).enumerate() {
        let (Some((format, precision)), Some(quality)) = (element.format(), element.quality()) else { continue };
        let known = &mut best[format as usize];
        // The more precise range counts, whatever a wider one says; of two equal ones the better.
        if known.is_none_or(|known| (known.precision, known.quality) < (precision, quality)) {
            *known = Some(Wish { precision, quality, place });
        }
    }
    let wished = Format::ALL.iter().zip(best).filter_map(|(format, wish)| Some((*format, wish?)));
    let acceptable = wished.filter(|(_, wish)| wish.quality > 0.0);
    let order = |wish: &Wish| (-wish.quality, wish.place);
    let liked = acceptable
        .min_by(|(_, one), (_, other)| order(one).partial_cmp(&order(other)).unwrap_or(std::cmp::Ordering::Equal));
    liked.map_or(Format::Text, |(format, _)| format)
}

/// Do these values of `Accept-Encoding` like gzip at least as much as no coding, and refuse it nowhere?
pub(super) fn gzip<'a>(accept_encoding: impl IntoIterator<Item = &'a str>) -> bool {
    let (mut gzip, mut identity, mut any) = (None, None, None);
    for element in elements(accept_encoding) {
        let Some(quality) = element.quality() else { continue };
        let known: &mut Option<f32> = match () {
            () if element.is("gzip") || element.is("x-gzip") => &mut gzip,
            () if element.is("identity") => &mut identity,
            () if element.is("*") => &mut any,
            () => continue,
        };
        // A refusal counts, whatever else is said of the same coding; else the better quality.
        *known = Some(match *known {
            Some(known) if known == 0.0 || quality == 0.0 => 0.0,
            Some(known) => known.max(quality),
            None => quality,
        });
    }
    let gzip = gzip.or(any).unwrap_or(0.0);
    gzip > 0.0 && gzip >= identity.unwrap_or(0.0)
}

/// What a request says of one format.
#[derive(Clone, Copy)]
struct Wish {
    precision: Precision,
    quality: f32,
    /// Where in the header it stands.
    place: usize,
}

/// How narrow a media range is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Precision {
    Anything,
    AnyText,
    Type,
    Version,
}

/// One element of a list: a name and its parameters.
#[derive(Clone, Copy)]
struct Element<'a> {
    name: &'a str,
    parameters: &'a str,
}

// === impl Element ===

impl<'a> Element<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (name, parameters) = text.split_once(';').unwrap_or((text, ""));
        Some(Self { name: name.trim(), parameters }).filter(|element| !element.name.is_empty())
    }

    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// The first parameter of this name, without quotes. Prometheus 3.0 sends one of them twice.
    fn parameter(&self, name: &str) -> Option<&'a str> {
        let mut pairs = outside_quotes(self.parameters, ';').filter_map(|pair| pair.split_once('='));
        let (_, value) = pairs.find(|(other, _)| other.trim().eq_ignore_ascii_case(name))?;
        let value = value.trim();
        Some(value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value))
    }

    /// From 0 to 1; 1 if nothing is said, none if it is no quality.
    fn quality(&self) -> Option<f32> {
        let Some(text) = self.parameter("q") else { return Some(1.0) };
        let is_number =
            text.len() <= MAX_QUALITY_BYTES && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        text.parse().ok().filter(|quality| is_number && (0.0..=1.0).contains(quality))
    }

    /// The format that this media range means, if it is one of ours.
    fn format(&self) -> Option<(Format, Precision)> {
        let of_version = |format, ours| match self.parameter("version") {
            None => Some((format, Precision::Type)),
            Some(version) => (version == ours).then_some((format, Precision::Version)),
        };
        match () {
            () if self.is("*/*") => Some((Format::Text, Precision::Anything)),
            () if self.is("text/*") => Some((Format::Text, Precision::AnyText)),
            () if self.is("text/plain") => of_version(Format::Text, "0.0.4"),
            () if self.is("application/openmetrics-text") => of_version(Format::OpenMetrics, "1.0.0"),
            () if self.is("application/vnd.google.protobuf") => {
                let is_ours = self.parameter("proto") == Some("io.prometheus.client.MetricFamily")
                    && self.parameter("encoding") == Some("delimited");
                is_ours.then_some((Format::Protobuf, Precision::Version))
            }
            () => None,
        }
    }
}

/// The elements of all lists, one after the other.
fn elements<'a>(values: impl IntoIterator<Item = &'a str>) -> impl Iterator<Item = Element<'a>> {
    values.into_iter().flat_map(|value| outside_quotes(value, ',')).filter_map(Element::parse)
}

/// Splits where the separator stands outside of quotes.
fn outside_quotes(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |character| {
        let splits = character == separator && !is_quoted;
        is_quoted ^= character == '"' && !is_escaped;
        is_escaped = character == '\\' && is_quoted && !is_escaped;
        splits
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PROTOBUF: &str = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";

    // What real scrapers send, to the letter.
    #[test]
    fn real_scrapers_get_what_they_like_best() {
        let prometheus_2 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                            text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let prometheus_2_protobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
            encoding=delimited,application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;\
            version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let prometheus_2_49 = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;\
            version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        let prometheus_3_0 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;escaping=allow-utf-8;q=0.5,text/plain;version=1.0.0;\
            escaping=allow-utf-8;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;escaping=allow-utf-8;q=0.3,*/*;q=0.2";
        let prometheus_3_4 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
            text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        let prometheus_3_4_protobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
            encoding=delimited;q=0.6,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
            application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
            text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        for (accept, expected) in [
            (prometheus_2, Format::OpenMetrics),
            (prometheus_2_protobuf, Format::Protobuf),
            (prometheus_2_49, Format::OpenMetrics),
            (prometheus_3_0, Format::OpenMetrics),
            (prometheus_3_4, Format::OpenMetrics),
            (prometheus_3_4_protobuf, Format::Protobuf),
            // VictoriaMetrics, a browser, curl, service discovery.
            ("text/plain;version=0.0.4;q=1,*/*;q=0.1", Format::Text),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8", Format::Text),
            ("*/*", Format::Text),
            ("application/json", Format::Text),
        ] {
            assert_eq!(format([accept]), expected, "{accept}");
        }
    }

    // RFC 9110: qualities from 0 to 1, where 0 is a refusal; the more precise range counts; parameters in any order,
    // spaces around separators, names in any case, values in quotes. Anything odd is passed over.
    #[test]
    fn odd_headers_are_read_as_far_as_they_make_sense() {
        for (accept, expected) in [
            ("", Format::Text),
            (",,;,;q=1,", Format::Text),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("application/openmetrics-text;version=0.0.1", Format::Text),
            ("application/openmetrics-text;version=2.0.0, text/plain;q=0.1", Format::Text),
            ("application/openmetrics-text;q=0", Format::Text),
            ("application/openmetrics-text;q=0.000, */*", Format::Text),
            ("text/plain;q=0, application/openmetrics-text;q=0.1", Format::OpenMetrics),
            ("text/plain;q=0, */*;q=1, application/openmetrics-text;q=0.1", Format::OpenMetrics),
            ("text/plain;q=0", Format::Text),
            ("*/*;q=0.9, application/openmetrics-text;q=0.1", Format::Text),
            ("text/*;q=0.2, application/openmetrics-text;q=0.3", Format::OpenMetrics),
            ("text/plain;q=0.1, text/plain;q=0.9, application/openmetrics-text;q=0.5", Format::Text),
            ("application/openmetrics-text;q=0.9;q=0.1, text/plain;q=0.5", Format::OpenMetrics),
            ("application/openmetrics-text;q=0.9, application/openmetrics-text;version=1.0.0;q=0", Format::Text),
            ("text/plain, application/openmetrics-text", Format::Text),
            ("application/openmetrics-text, text/plain", Format::OpenMetrics),
            ("  APPLICATION/OpenMetrics-Text ; Version=1.0.0 ;  Q=0.9 , text/plain ; q=0.8", Format::OpenMetrics),
            (
                "application/openmetrics-text;version=\"1.0.0\";x=\"a,b;q=0\";q=0.9, text/plain;q=0.8",
                Format::OpenMetrics,
            ),
            ("application/openmetrics-text;q=NaN", Format::Text),
            ("application/openmetrics-text;q=inf", Format::Text),
            ("application/openmetrics-text;q=-1", Format::Text),
            ("application/openmetrics-text;q=1.1", Format::Text),
            ("application/openmetrics-text;q=", Format::Text),
            ("application/openmetrics-text;q=0.00000000000000000001", Format::Text),
            ("application/vnd.google.protobuf", Format::Text),
            ("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text", Format::Text),
            ("application/vnd.google.protobuf;encoding=delimited;proto=other.Family", Format::Text),
            (PROTOBUF, Format::Protobuf),
            ("\"", Format::Text),
            ("\u{e4}/\u{e4};\u{e4}=\u{e4}", Format::Text),
        ] {
            assert_eq!(format([accept]), expected, "{accept}");
        }
        assert_eq!(format([]), Format::Text, "no header");
        assert_eq!(format(["text/plain;q=0.5", PROTOBUF]), Format::Protobuf, "two headers are one list");
    }

    // RFC 9110, Accept-Encoding: no header is no gzip, `gzip;q=0` is a refusal also where `*` is not.
    #[test]
    fn gzip_is_used_only_where_it_is_asked_for() {
        for (accept_encoding, expected) in [
            ("", false),
            ("gzip", true),
            ("GZIP", true),
            ("x-gzip", true),
            ("gzip;q=0", false),
            ("gzip ; q=0.0", false),
            ("gzip;q=0, *", false),
            ("gzip, gzip;q=0", false),
            ("gzip;q=0, x-gzip;q=1", false),
            ("gzip;q=0.2, gzip;q=0.9, identity;q=0.5", true),
            ("*;q=0", false),
            ("*", true),
            ("identity", false),
            ("identity;q=0.5, gzip;q=0.5", true),
            ("identity;q=1, gzip;q=0.5", false),
            ("identity;q=0, gzip;q=0.001", true),
            ("deflate, gzip;q=1.0, *;q=0.5", true),
            ("gzip, deflate, br, zstd", true),
            ("zstd, br", false),
            ("gzip;q=nonsense", false),
            ("gzipped", false),
        ] {
            assert_eq!(gzip([accept_encoding]), expected, "{accept_encoding}");
        }
        assert!(!gzip([]), "no header");
    }

    proptest! {
        // Whatever is sent, there is an answer.
        #[test]
        fn nothing_that_is_sent_does_harm(accept in "[a-z*/;=,\" \\\\q.0-9é]{0,60}") {
            format([accept.as_str()]);
            gzip([accept.as_str()]);
        }
    }
}
