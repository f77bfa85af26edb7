//! Where in a file something is wrong, in the names that the file itself gives. Pure.

use toml::{Table, Value};

use crate::supervisor::MAX_ID_BYTES;
use crate::text;

/// The path of a key by index, such as `supervisor[0].child[1].backoff.max`, with names instead: `payments/api: backoff.max: `.
/// The index stays where there is no name. Empty if the path is.
pub(super) fn in_names(key: &str, document: &Table) -> String {
    let Some((index, rest)) = indexed(key, "supervisor") else {
        return if key.is_empty() { String::new() } else { format!("{key}: ") };
    };
    let supervisors = list(document.get("supervisor"));
    let mut place = full_name(index, supervisors);
    let rest = match indexed(rest, ".child") {
        Some((number, rest)) => {
            let child = list(supervisors.get(index).and_then(|table| table.get("child"))).get(number);
            let id = child.and_then(|child| name(child, "id"));
            place = format!("{place}/{}", id.map_or_else(|| format!("child[{number}]"), str::to_owned));
            rest
        }
        None => rest,
    };
    match rest.strip_prefix('.') {
        Some(key) => format!("{place}: {key}: "),
        None => format!("{place}: "),
    }
}

/// The index of a table in an array, and what follows it.
fn indexed<'a>(key: &'a str, array: &str) -> Option<(usize, &'a str)> {
    let (index, rest) = key.strip_prefix(array)?.strip_prefix('[')?.split_once(']')?;
    Some((index.parse().ok()?, rest))
}

fn list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The text under a key, if it can be shown as a name.
fn name<'a>(table: &'a Value, key: &str) -> Option<&'a str> {
    let is_shown = |name: &&str| (1..=MAX_ID_BYTES).contains(&name.len()) && !name.contains(text::is_unseen);
    table.get(key)?.as_str().filter(is_shown)
}

/// The name of a supervisor behind those above it, as far as the file says who they are.
fn full_name(index: usize, supervisors: &[Value]) -> String {
    let own = supervisors.get(index).and_then(|table| name(table, "name"));
    let own = own.map_or_else(|| format!("supervisor[{index}]"), str::to_owned);
    let mut path = own.clone();
    let mut parent = supervisors.get(index).and_then(|table| name(table, "parent"));
    // As many as there are at most; who is above itself has no full name.
    for _ in supervisors {
        let above = parent.and_then(|parent| supervisors.iter().find(|table| name(table, "name") == Some(parent)));
        let (Some(above), Some(name_above)) = (above, parent) else { return path };
        path = format!("{name_above}/{path}");
        parent = name(above, "parent");
    }
    own
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(key: &str, text: &str) -> String {
        in_names(key, &text.parse().unwrap())
    }

    // The names of the file, and the index only where there is none.
    #[test]
    fn a_key_is_found_by_the_names_of_the_file() {
        let text = r#"
            [[supervisor]]
            name = "web"
            parent = "payments"
            [[supervisor.child]]
            id = "api"
            [[supervisor.child]]
            id = 7
            [[supervisor]]
            name = "payments"
            parent = "top"
            [[supervisor]]
            name = "top"
            [[supervisor]]
            [[supervisor.child]]
            id = "lost"
            [[supervisor]]
            name = "line\nend"
            parent = "nobody"
        "#;
        let table = [
            ("", ""),
            ("supervisors", "supervisors: "),
            ("supervisor", "supervisor: "),
            ("supervisor[2]", "top: "),
            ("supervisor[1].strategy", "top/payments: strategy: "),
            ("supervisor[0].child", "top/payments/web: child: "),
            ("supervisor[0].child[0]", "top/payments/web/api: "),
            ("supervisor[0].child[0].backoff.max", "top/payments/web/api: backoff.max: "),
            ("supervisor[0].child[1].id", "top/payments/web/child[1]: id: "),
            ("supervisor[0].child[9].id", "top/payments/web/child[9]: id: "),
            ("supervisor[3]", "supervisor[3]: "),
            ("supervisor[3].child[0].command", "supervisor[3]/lost: command: "),
            ("supervisor[4].parent", "supervisor[4]: parent: "),
        ];
        for (key, expected) in table {
            assert_eq!(place(key, text), expected, "{key}");
        }
        let odd = "supervisor = [1, [2]]";
        assert_eq!(
            (place("supervisor[0]", odd), place("supervisor[1].x", odd)),
            ("supervisor[0]: ".into(), "supervisor[1]: x: ".into())
        );
    }

    // Whoever is above itself has no full name, and its own is enough.
    #[test]
    fn a_circle_of_parents_ends() {
        let text = "[[supervisor]]\nname = \"a\"\nparent = \"b\"\n[[supervisor]]\nname = \"b\"\nparent = \"a\"\n\
                    [[supervisor]]\nname = \"c\"\nparent = \"c\"\n";
        assert_eq!(place("supervisor[0].parent", text), "a: parent: ");
        assert_eq!(place("supervisor[2].parent", text), "c: parent: ");
    }
}
