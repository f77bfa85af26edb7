//! As much of PromQL as it takes to see which metrics an expression looks at, with which labels, inside which functions.
//! Whether it is PromQL at all is for Prometheus to say.

use std::iter::Peekable;
use std::str::Chars;

/// What an expression looks at.
#[derive(Debug, Default)]
pub(crate) struct Expression {
    pub(crate) selectors: Vec<Selector>,
    pub(crate) groupings: Vec<Grouping>,
}

/// `metric{label="value"}[range]`.
#[derive(Debug, Default)]
pub(crate) struct Selector {
    pub(crate) metric: String,
    /// Label, operator, value.
    pub(crate) matchers: Vec<(String, String, String)>,
    pub(crate) range: Option<String>,
    /// The functions and aggregations around it, from the outermost.
    pub(crate) within: Vec<String>,
}

/// The labels after `by` or `on`.
#[derive(Debug)]
pub(crate) struct Grouping {
    pub(crate) word: String,
    pub(crate) labels: Vec<String>,
    /// The metrics that it groups, by their places among the selectors; for `on` all of the expression.
    pub(crate) selectors: Vec<usize>,
}

/// An open parenthesis: what it belongs to.
#[derive(Default)]
struct Open {
    function: Option<String>,
    grouping: Option<usize>,
}

impl Expression {
    pub(crate) fn of(text: &str) -> Self {
        let mut found = Self::default();
        let mut chars = text.chars().peekable();
        let (mut open, mut next): (Vec<Open>, Open) = (Vec::new(), Open::default());
        while let Some(&c) = chars.peek() {
            if c.is_ascii_alphabetic() || c == '_' {
                let word = word(&mut chars);
                match word.as_str() {
                    "and" | "or" | "unless" | "bool" => {}
                    "offset" => drop(rest_of_word(&mut chars)),
                    "by" | "on" => {
                        let labels = between(&mut chars, '(', ')');
                        let labels = labels.split(',').map(|label| label.trim().to_owned()).collect();
                        next.grouping = (word == "by").then_some(found.groupings.len());
                        found.groupings.push(Grouping { word, labels, selectors: Vec::new() });
                    }
                    _ if follows(&chars, "(") || follows(&chars, "by ") => next.function = Some(word),
                    _ => found.push_selector(word, &mut chars, &open),
                }
            } else if c.is_ascii_digit() {
                rest_of_word(&mut chars);
            } else {
                chars.next();
                match c {
                    '(' => open.push(std::mem::take(&mut next)),
                    ')' => drop(open.pop().unwrap_or_else(|| panic!("a parenthesis too many in {text}"))),
                    '"' | '\'' | '{' | '[' => panic!("{c} belongs to no metric in {text}"),
                    _ => {}
                }
            }
        }
        assert!(open.is_empty() && !found.selectors.is_empty(), "not understood: {text}");
        let all: Vec<_> = (0..found.selectors.len()).collect();
        let on = found.groupings.iter_mut().filter(|grouping| grouping.word == "on");
        on.for_each(|grouping| grouping.selectors.clone_from(&all));
        found
    }

    fn push_selector(&mut self, metric: String, chars: &mut Peekable<Chars<'_>>, open: &[Open]) {
        let mut selector = Selector { metric, ..Selector::default() };
        if chars.peek() == Some(&'{') {
            for matcher in between(chars, '{', '}').split("\",").filter(|matcher| !matcher.trim().is_empty()) {
                let (head, value) = matcher.split_once('"').expect("a quoted value");
                let operator = head.find(['=', '!']).expect("an operator");
                let value = value.trim_end_matches('"');
                selector.matchers.push((head[..operator].trim().into(), head[operator..].into(), value.into()));
            }
        }
        if chars.peek() == Some(&'[') {
            selector.range = Some(between(chars, '[', ']'));
        }
        selector.within = open.iter().filter_map(|open| open.function.clone()).collect();
        for grouping in open.iter().filter_map(|open| open.grouping) {
            self.groupings[grouping].selectors.push(self.selectors.len());
        }
        self.selectors.push(selector);
    }

    /// The labels that a result has: those it is grouped by, else those of its first metric.
    pub(crate) fn outermost_grouping(&self) -> Option<&Grouping> {
        self.groupings.iter().find(|grouping| grouping.word == "by" && grouping.selectors.contains(&0))
    }
}

fn word(chars: &mut Peekable<Chars<'_>>) -> String {
    let mut word = String::new();
    while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || "_:".contains(*c)) {
        word.push(c);
    }
    word
}

/// What stands before the next space or bracket, such as a number or a duration.
fn rest_of_word(chars: &mut Peekable<Chars<'_>>) -> String {
    while chars.next_if_eq(&' ').is_some() {}
    let mut rest = String::new();
    while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || ".$_".contains(*c)) {
        rest.push(c);
    }
    rest
}

/// What stands between two brackets, the first of which comes next.
fn between(chars: &mut Peekable<Chars<'_>>, left: char, right: char) -> String {
    while chars.next_if_eq(&' ').is_some() {}
    assert_eq!(chars.next(), Some(left));
    let (mut inside, mut quoted) = (String::new(), false);
    for c in chars.by_ref() {
        quoted ^= c == '"';
        if c == right && !quoted {
            return inside;
        }
        inside.push(c);
    }
    panic!("{left} is not closed after {inside}");
}

fn follows(chars: &Peekable<Chars<'_>>, text: &str) -> bool {
    let rest: String = chars.clone().skip_while(|c| *c == ' ').take(text.len()).collect();
    rest == text
}

#[cfg(test)]
mod tests {
    use super::Expression;

    #[test]
    fn an_expression_is_taken_apart() {
        let text = r#"sum by (a, le) (rate(m_total{x=~"a|b",y!="}"}[5m] offset 1h)) / on (a) (n > 0.5) unless max(o)"#;
        let expression = Expression::of(text);
        let [m, n, o] = &expression.selectors[..] else { panic!("{expression:?}") };
        assert_eq!(
            (m.metric.as_str(), m.range.as_deref(), &m.within[..]),
            ("m_total", Some("5m"), &["sum".into(), "rate".into()][..])
        );
        let matchers: Vec<_> = m.matchers.iter().map(|(label, is, value)| format!("{label} {is} {value}")).collect();
        assert_eq!(matchers, ["x =~ a|b", "y != }"]);
        assert_eq!((n.metric.as_str(), n.within.len()), ("n", 0));
        assert_eq!((o.metric.as_str(), &o.within[..]), ("o", &["max".into()][..]));
        let groupings: Vec<_> =
            expression.groupings.iter().map(|each| (each.labels.join(" "), each.selectors.clone())).collect();
        assert_eq!(groupings, [("a le".into(), vec![0]), ("a".into(), vec![0, 1, 2])]);
    }
}
