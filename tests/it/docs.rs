//! The tables of the README are those of the program. A test that fails prints the table to be pasted.

use std::fmt::Write;
use std::fs;

use restart_exporter::http::ROUTES;
use restart_exporter::metrics::FAMILIES;

use crate::world::run_to_end;

/// A long flag as `--help` shows it.
#[derive(Debug, PartialEq)]
struct Flag {
    name: String,
    default: String,
    help: String,
}

/// The table between `<!-- name -->` and `<!-- /name -->`, one line a row.
fn table(name: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = fs::read_to_string(path).unwrap_or_else(|error| panic!("README.md cannot be read: {error}"));
    let table = readme.split_once(&format!("<!-- {name} -->\n")).and_then(|(_, rest)| rest.split_once("<!--"));
    table.unwrap_or_else(|| panic!("README.md has no table between <!-- {name} --> and <!-- /{name} -->")).0.to_owned()
}

fn check(name: &str, head: &str, rows: impl Iterator<Item = String>) {
    let columns = head.matches('|').count() - 1;
    let mut expected = format!("{head}\n|{}\n", "---|".repeat(columns));
    rows.for_each(|row| writeln!(expected, "{row}").unwrap());
    assert!(table(name) == expected, "the table between <!-- {name} --> of README.md should be:\n\n{expected}");
}

/// `` `a`, `b` ``, or a dash for nothing.
fn codes(words: &[&str]) -> String {
    if words.is_empty() {
        return "–".into();
    }
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// What `--help` of a command says of its long flags, those that every program has left out.
fn flags(command: &str) -> Vec<Flag> {
    let help = run_to_end(&[command, "--help"]).stdout;
    let (_, options) = help.split_once("Options:\n").expect("a list of options");
    let mut flags: Vec<Flag> = Vec::new();
    // What is said of a flag stands on the next line, or beside it if there is room.
    for mut line in options.lines().map(str::trim) {
        if let Some(name) =
            line.split_whitespace().find(|word| word.starts_with("--")).filter(|_| line.starts_with('-'))
        {
            flags.push(Flag { name: name.into(), default: String::new(), help: String::new() });
            line = line.split_once("  ").map_or("", |(_, text)| text.trim_start());
        }
        if let Some(flag) = flags.last_mut() {
            let text = line.split(" [possible values:").next().unwrap_or_default();
            let (text, default) = text.split_once(" [default: ").unwrap_or((text, ""));
            // A variable of the environment, and its value if it has one here.
            let text = text.split(" [env: ").next().unwrap_or_default();
            flag.default.push_str(default.strip_suffix(']').unwrap_or(default));
            flag.help.push_str(text);
        }
    }
    flags.retain(|flag| !["--help", "--version"].contains(&flag.name.as_str()));
    flags
}

// One table a namespace; everything else derives from it or is held to it.
#[test]
fn the_readme_lists_the_flags_with_their_defaults() {
    let run = flags("run");
    assert!(run.len() > 5, "{run:?}");
    let row = |flag: &Flag| {
        let default = if flag.default.is_empty() { "–".into() } else { format!("`{}`", flag.default) };
        format!("| `{}` | {default} | {} |", flag.name, flag.help)
    };
    check("flags", "| flag | default | meaning |", run.iter().map(row));
    assert_eq!(flags("demo"), run, "README.md says that both take the same");
    let client = flags("mark");
    check("client-flags", "| flag | default | meaning |", client.iter().map(row));
    for command in ["status", "why", "history", "tail", "restart", "start", "stop", "reload"] {
        let all = flags(command);
        assert!(client.iter().all(|flag| all.contains(flag)), "{command}: README.md says that all take the same");
    }
}

#[test]
fn the_readme_lists_the_routes() {
    let row = |route: &restart_exporter::http::Route| {
        format!("| `{}` | {} | {} |", route.path, codes(route.parameters), route.help)
    };
    check("routes", "| path | parameters | answer |", ROUTES.iter().map(row));
}

#[test]
fn the_readme_lists_the_metrics() {
    let row = |family: &restart_exporter::metrics::Family| {
        format!("| `{}` | {} | {} | {} |", family.name, family.kind.as_str(), codes(family.labels), family.help)
    };
    check("metrics", "| name | type | labels | meaning |", FAMILIES.iter().map(row));
}
