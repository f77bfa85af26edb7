//! The layers and invariants of the design, read off the sources. A rule that nothing checks is a wish.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use restart_exporter::analytics::EventType;
use restart_exporter::metrics::FAMILIES;

/// Who may import whom. Everything else of the library is forbidden to a module.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("text", &[]),
    ("event", &[]),
    ("telemetry", &["event"]),
    ("wire", &["event", "text"]),
    ("intensity", &[]),
    ("resources", &[]),
    ("supervisor", &["telemetry", "event", "intensity", "resources", "text"]),
    ("beam", &["telemetry", "event", "intensity", "resources"]),
    ("analytics", &["telemetry", "event", "resources"]),
    ("metrics", &["analytics", "telemetry", "event", "resources", "text"]),
    ("control", &["supervisor", "analytics", "telemetry", "event"]),
    ("config", &["supervisor", "text"]),
    ("http", &["control", "metrics", "analytics", "wire", "telemetry", "event", "resources", "text"]),
    (
        "exporter",
        &[
            "http",
            "config",
            "control",
            "metrics",
            "analytics",
            "beam",
            "supervisor",
            "wire",
            "telemetry",
            "event",
            "resources",
        ],
    ),
];

/// The binary: it sees the library as every other program does, through `restart_exporter::`.
const BINARY: &[&str] = &["main", "cli", "client", "demo", "listen", "logging", "signals", "sockets"];

/// Modules that decide and keep, and get the time told.
const PURE: &[&str] = &[
    "src/text.rs",
    "src/supervisor/strategy.rs",
    "src/intensity.rs",
    "src/supervisor/decision.rs",
    "src/supervisor/backoff.rs",
    "src/supervisor/difference.rs",
    "src/control/nearest.rs",
    "src/analytics/history.rs",
    "src/analytics/causes.rs",
    "src/analytics/changes.rs",
    "src/analytics/fingerprint.rs",
    "src/analytics/health.rs",
    "src/analytics/marks.rs",
    "src/analytics/memory.rs",
    "src/supervisor/process/last_output.rs",
    "src/analytics/children.rs",
    "src/analytics/children/states.rs",
    "src/analytics/stats.rs",
    "src/analytics/stories.rs",
    "src/analytics/ring.rs",
    "src/http/access/faults.rs",
    "src/http/access/rate.rs",
    "src/http/access/turns.rs",
    "src/http/access/host.rs",
    "src/http/live/ring.rs",
    "src/config/place.rs",
    "src/beam/frame.rs",
    "src/beam/message/mod.rs",
    "src/beam/message/read.rs",
    "src/beam/message/text.rs",
    "src/beam/message/write.rs",
    "src/beam/report/mod.rs",
    "src/beam/report/children.rs",
    "src/beam/report/kinds.rs",
    "src/beam/report/sums.rs",
    "src/beam/report/text.rs",
    "src/beam/session/clock.rs",
];

/// Longest file, tests inside it not counted: beyond, it wants a second look.
const MAX_LINES: usize = 500;

/// Files that had their second look, and why they stay longer.
const LONGER: &[(&str, &str)] = &[];

/// A source file.
struct Source {
    /// Such as `src/http/api.rs`.
    path: String,
    /// All of it.
    text: String,
    /// Its code: no comments, no tests.
    code: String,
}

impl Source {
    /// The module right below the crate: `http` for `src/http/api.rs`.
    fn module(&self) -> &str {
        let below = self.path.strip_prefix("src/").unwrap();
        below.split_once('/').map_or_else(|| below.strip_suffix(".rs").unwrap(), |(folder, _)| folder)
    }

    /// Is everything in it a test?
    fn is_test(&self) -> bool {
        self.path.contains("/tests/") || self.path.ends_with("/tests.rs") || self.path.ends_with("/testing.rs")
    }

    /// The modules right below the crate that it names.
    fn imports(&self) -> BTreeSet<String> {
        let mut imports = BTreeSet::new();
        for (position, root) in self.code.match_indices("crate::") {
            if self.code[..position].ends_with(|before: char| before.is_alphanumeric() || before == '_') {
                continue;
            }
            let path = &self.code[position + root.len()..];
            match path.strip_prefix('{') {
                None => drop(imports.insert(word(path))),
                Some(group) => imports.extend(group_heads(group)),
            }
        }
        // From the door of a module `super` is the crate as well.
        let is_door = self.path.matches('/').count() == 1 || self.path.ends_with("/mod.rs");
        if is_door {
            imports.extend(
                self.code.match_indices("super::").map(|(position, root)| word(&self.code[position + root.len()..])),
            );
        }
        imports.retain(|module| MAY_IMPORT.iter().any(|(known, _)| known == module));
        imports.remove(self.module());
        imports
    }

    /// The string literals of its code that stand on one line.
    fn literals(&self) -> impl Iterator<Item = &str> {
        self.code.lines().flat_map(|line| line.split('"').skip(1).step_by(2))
    }
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The first words of `a::b, c::{d, e}}`.
fn group_heads(group: &str) -> Vec<String> {
    let (mut depth, mut heads, mut at_head) = (1, Vec::new(), true);
    for (position, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => break,
            '}' => depth -= 1,
            ',' if depth == 1 => at_head = true,
            c if at_head && (c.is_alphanumeric() || c == '_') => {
                heads.push(word(&group[position..]));
                at_head = false;
            }
            _ => {}
        }
    }
    heads
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut folders, mut sources) = (vec![root.join("src")], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                sources.push(Source { path, code: code(&text), text });
            }
        }
    }
    assert!(sources.len() > 20, "the sources are elsewhere");
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

/// The sources whose code is not only for tests.
fn library() -> Vec<Source> {
    sources().into_iter().filter(|source| !source.is_test()).collect()
}

/// What stands before the tests of a file, without comments.
fn code(text: &str) -> String {
    let lines = before_tests(text).filter(|line| !line.trim_start().starts_with("//"));
    lines.map(|line| line.split(" // ").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

fn before_tests(text: &str) -> impl Iterator<Item = &str> {
    // `mod tests;` and its like hide nothing and may stand in the middle.
    let inline = ["#[cfg(test)]\nmod tests {", "#[cfg(test)]\nmod testing {"];
    let end = inline.iter().filter_map(|mark| text.find(mark)).min().unwrap_or(text.len());
    text[..end].lines()
}

/// Fails with all offenders at once.
fn none(rule: &str, offenders: impl IntoIterator<Item = String>) {
    let offenders: Vec<_> = offenders.into_iter().collect();
    assert!(offenders.is_empty(), "{rule}:\n  {}", offenders.join("\n  "));
}

/// The files whose code has this text, other than these. A name that ends in `/` stands for all in that folder.
fn elsewhere(text: &str, home: &[&str]) -> Vec<String> {
    let is_home = |path: &str| home.iter().any(|home| path == *home || home.ends_with('/') && path.starts_with(home));
    let offends = |source: &Source| !is_home(&source.path) && source.code.contains(text);
    library().into_iter().filter(offends).map(|source| source.path).collect()
}

// === Layers ===

// Section 3 of the design, "who may import whom".
#[test]
fn a_module_imports_only_what_lies_below_it() {
    let mut offenders = Vec::new();
    for source in library().iter().filter(|source| source.module() != "lib" && !BINARY.contains(&source.module())) {
        let module = source.module();
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(known, _)| *known == module) else {
            offenders.push(format!("{}: {module} has no line in MAY_IMPORT", source.path));
            continue;
        };
        let forbidden = source.imports().into_iter().filter(|import| !allowed.contains(&import.as_str()));
        offenders.extend(forbidden.map(|import| format!("{}: imports {import}", source.path)));
    }
    none("a layer is broken", offenders);
}

// The same, without trusting the table: what the sources import has no cycle.
#[test]
fn modules_import_each_other_without_a_cycle() {
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in library().iter().filter(|source| source.module() != "lib") {
        graph.entry(source.module().to_owned()).or_default().extend(source.imports());
    }
    assert!(graph["http"].contains("control"), "imports are not found: {graph:?}");
    // Takes away what imports nothing that is left, until nothing can be taken.
    while let Some(leaf) = graph.iter().find(|(_, imports)| imports.iter().all(|import| !graph.contains_key(import))) {
        let leaf = leaf.0.clone();
        graph.remove(&leaf);
    }
    assert!(graph.is_empty(), "a cycle among {graph:?}");
}

// The binary is a client of the library: what it can do, every other program can.
#[test]
fn the_binary_uses_the_public_api_alone() {
    let is_binary = |source: &Source| BINARY.contains(&source.module());
    let mut offenders = Vec::new();
    for source in library().iter().filter(|source| is_binary(source)) {
        let imports =
            source.code.match_indices("crate::").map(|(position, root)| word(&source.code[position + root.len()..]));
        let foreign = imports.filter(|import| !BINARY.contains(&import.as_str()));
        offenders.extend(foreign.map(|import| format!("{}: crate::{import}", source.path)));
        offenders.extend(source.code.contains("#[path").then(|| format!("{}: includes a file by path", source.path)));
    }
    none("only `restart_exporter::` in the binary", offenders);
    let main = sources().into_iter().find(|source| source.path == "src/main.rs").unwrap();
    let modules: Vec<_> = main.code.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';')).collect();
    assert!(modules.iter().all(|module| BINARY.contains(module)), "BINARY lacks one of {modules:?}");
    none("the library knows nothing of its binary", elsewhere("clap::", &["src/cli.rs", "src/main.rs"]));
}

// === Invariants ===

#[test]
fn json_exists_in_wire_alone() {
    none("serde_json belongs into wire", elsewhere("serde_json", &["src/wire.rs"]));
}

// Three copies of the rule used to differ. The page writes out as `text` does, between the escapes of HTML.
#[test]
fn what_is_written_out_is_said_in_text_alone() {
    let home = ["src/text.rs", "src/http/page/text.rs"];
    none("characters are written out by `text`", elsewhere(".escape_", &home));
    none("which characters those are is said in `text`", elsewhere("u{202", &["src/text.rs"]));
}

// A name that is written twice is one that can differ.
#[test]
fn a_metric_is_named_in_the_table_alone() {
    // A live event has this word, which no history has.
    let words: Vec<_> = EventType::ALL.iter().map(|event| event.as_str()).chain(["supervisor_started"]).collect();
    let looks_like_one = |literal: &str| {
        let prefixed =
            ["supervisor_", "restart_exporter_", "process_"].iter().any(|prefix| literal.starts_with(prefix));
        prefixed && literal.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') && !words.contains(&literal)
    };
    let mut offenders = Vec::new();
    for source in library().iter().filter(|source| source.path != "src/metrics/families.rs") {
        let literals = source.literals().filter(|literal| looks_like_one(literal));
        offenders.extend(literals.map(|literal| format!("{}: {literal:?}", source.path)));
        let names = FAMILIES.iter().map(|family| family.name).filter(|name| source.code.contains(*name));
        offenders.extend(names.map(|name| format!("{}: {name}", source.path)));
    }
    none("metric names belong into families", offenders);
}

#[test]
fn a_path_is_written_in_the_router_alone() {
    let home = ["src/http/router.rs"];
    none("paths belong into ROUTES", ["\"/api/", "\"/-/", "/api/v1"].iter().flat_map(|path| elsewhere(path, &home)));
    let telemetry_path = "\"/metrics\"";
    // The default of the builder and of the flag; the router has the route.
    let home = ["src/http/router.rs", "src/exporter/mod.rs", "src/cli.rs"];
    none("the path of the metrics", elsewhere(telemetry_path, &home));
}

// Per supervisor events have one author and one order.
#[test]
fn only_the_loop_and_the_listener_of_nodes_emit() {
    let home = ["src/telemetry.rs", "src/supervisor/run_loop.rs", "src/beam/"];
    none("`execute` is called by the author of the events", elsewhere(".execute(", &home));
}

// A program may have several exporters and its tests many; a hidden global would join them.
#[test]
fn nobody_reads_the_global_bus() {
    none("`Telemetry::global` is for applications", elsewhere("Telemetry::global", &[]));
    none("`Telemetry::global` is for applications", elsewhere("Self::global", &[]));
}

// What decides and what keeps takes time as an argument, so that it can be tested on any time.
#[test]
fn pure_modules_read_no_clock() {
    let pure = |source: &Source| PURE.contains(&source.path.as_str());
    let mut offenders = Vec::new();
    for source in library().iter().filter(|source| pure(source)) {
        let clocks = ["now()", "monotonic_now", "SystemTime", "tokio::", "std::env", "std::fs", "Mutex", "tracing::"];
        let found = clocks.iter().filter(|clock| source.code.contains(**clock));
        offenders.extend(found.map(|clock| format!("{}: {clock}", source.path)));
    }
    none("pure modules neither read a clock nor act", offenders);
    let missing = |path: &&&str| !Path::new(env!("CARGO_MANIFEST_DIR")).join(path).exists();
    none("a pure module moved: tell PURE", PURE.iter().filter(missing).map(|path| (*path).to_owned()));
}

// The wall clock is only for showing: it is read where an event happens and where a line is logged. (That the monotonic
// one is tokio's everywhere is held by clippy.)
#[test]
fn the_wall_clock_is_read_by_the_bus_and_the_log_alone() {
    none("read time through telemetry", elsewhere("SystemTime::now", &["src/telemetry.rs", "src/logging.rs"]));
}

// === Files ===

#[test]
fn every_file_says_what_it_is_for() {
    let silent = library().into_iter().filter(|source| !source.text.starts_with("//! "));
    none("a file begins with `//!`", silent.map(|source| source.path));
}

#[test]
fn no_file_is_much_longer_than_one_can_read() {
    let length = |source: &Source| before_tests(&source.text).count();
    let is_allowed = |path: &str| LONGER.iter().any(|(longer, _)| *longer == path);
    let sources = sources();
    let long: Vec<_> = sources.iter().filter(|source| length(source) > MAX_LINES).collect();
    let offenders = long.iter().filter(|source| !is_allowed(&source.path));
    none("give it a second look", offenders.map(|source| format!("{}: {} lines", source.path, length(source))));
    let stale = LONGER.iter().filter(|(path, _)| !long.iter().any(|source| source.path == *path));
    none("short enough by now: take it off LONGER", stale.map(|(path, _)| (*path).to_owned()));
}
