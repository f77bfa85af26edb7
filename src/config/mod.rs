//! The TOML file of `restart_exporter run FILE`: supervisors and the processes they run.
//!
//! ```toml
//! [[supervisor]]
//! name = "payments"
//! strategy = "rest_for_one"
//! max_restarts = 3
//! max_seconds = 5
//!
//! [[supervisor.child]]
//! id = "redis"
//! command = ["redis-server", "--port", "6380"]
//! env = { LANG = "C" }
//! shutdown = "10s"
//! ```
//!
//! Unknown keys are errors, and an error names file, line, column, supervisor, child and key.

mod build;
mod place;
mod tables;

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use serde_path_to_error::Segment;
use thiserror::Error;

use crate::supervisor::Supervisor;

/// Largest file read, in bytes: far beyond any tree a person writes.
pub const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// What is wrong with a configuration file, and where.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{file}: {error}")]
    Read {
        /// The file.
        file: String,
        /// Why not.
        error: std::io::Error,
    },
    /// The file is larger than [`MAX_FILE_BYTES`].
    #[error("{file}: larger than {MAX_FILE_BYTES} bytes")]
    TooLarge {
        /// The file.
        file: String,
    },
    /// There is no supervisor in the file. To start nothing, start without a file.
    #[error("{file}: no supervisor in the file; at least one `[[supervisor]]` is needed")]
    NoSupervisor {
        /// The file.
        file: String,
    },
    /// Its text is not what it should be.
    #[error("{file}:{line}:{column}: {key}{message}")]
    Invalid {
        /// The file.
        file: String,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// Whose key it is and which, each followed by a colon and a space, such as `payments/api: shutdown: `; empty if
        /// there is none. Where a name is missing, `supervisor[0]` stands for it.
        key: String,
        /// What is wrong.
        message: String,
    },
}

/// Reads a file and turns it into supervisors, in the order in which they stand there.
///
/// # Errors
/// [`ConfigError`] for the first thing that is wrong; nothing of the file is used then.
pub fn load(path: &Path) -> Result<Vec<Supervisor>, ConfigError> {
    let file = path.display().to_string();
    let mut bytes = Vec::new();
    // One byte more than is allowed shows that there are too many: a pipe does not say how long it is.
    let read = File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes));
    match read {
        Err(error) => Err(ConfigError::Read { file, error }),
        Ok(length) if length as u64 > MAX_FILE_BYTES => Err(ConfigError::TooLarge { file }),
        Ok(_) => parse(&file, text(&file, &bytes)?),
    }
}

/// The text of a file, if it is one.
fn text<'a>(file: &str, bytes: &'a [u8]) -> Result<&'a str, ConfigError> {
    let (good, bad) = match bytes.utf8_chunks().next() {
        Some(chunk) if !chunk.invalid().is_empty() => (chunk.valid(), chunk.invalid()),
        _ => return Ok(str::from_utf8(bytes).unwrap_or_default()),
    };
    let (line, column) = position(good, good.len());
    let found = match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "the file is UTF-16".to_owned(),
        _ => format!("the byte 0x{:02x} is not UTF-8", bad[0]),
    };
    let message = format!("{found}; save the file as UTF-8");
    Err(ConfigError::Invalid { file: file.into(), line, column, key: String::new(), message })
}

/// Turns the text of a file into supervisors; `file` is only named in errors.
///
/// # Errors
/// [`ConfigError::Invalid`] for the first thing that is wrong; [`ConfigError::NoSupervisor`].
pub fn parse(file: &str, text: &str) -> Result<Vec<Supervisor>, ConfigError> {
    let invalid = |span: Option<Range<usize>>, key: &str, message: String| {
        let (line, column) = position(text, span.map_or(0, |span| span.start));
        let key = place::in_names(key, &text.parse().unwrap_or_default());
        ConfigError::Invalid { file: file.into(), line, column, key, message }
    };
    let document =
        toml::Deserializer::parse(text).map_err(|error| invalid(error.span(), "", error.message().into()))?;
    let tables: tables::File = serde_path_to_error::deserialize(document).map_err(|error| {
        let (key, message) = (key_path(error.path()), in_words(error.inner().message()));
        let message = single_table(&key, &message).map_or(message, str::to_owned);
        invalid(error.inner().span(), &key, message)
    })?;
    let supervisors =
        build::supervisors(tables.supervisor).map_err(|fault| invalid(Some(fault.span), &fault.key, fault.message))?;
    if supervisors.is_empty() { Err(ConfigError::NoSupervisor { file: file.into() }) } else { Ok(supervisors) }
}

/// What is said of `[supervisor]`, and of a `[[supervisor.child]]` that stands before all supervisors.
fn single_table(key: &str, message: &str) -> Option<&'static str> {
    match key.rsplit('.').next() {
        _ if message != "invalid type: table, expected an array" => None,
        Some("supervisor") => Some("a supervisor begins with `[[supervisor]]`, in double brackets"),
        Some("child") => Some("a child begins with `[[supervisor.child]]`, in double brackets"),
        _ => None,
    }
}

/// The path of a key as a person writes it.
fn key_path(path: &serde_path_to_error::Path) -> String {
    let mut key = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => key.push_str(&format!("[{index}]")),
            // `Spanned` shows up as a key of its own, which no file has.
            Segment::Map { key: name } if name.starts_with("$__serde_spanned") => {}
            Segment::Map { key: name } => {
                let dot = if key.is_empty() { "" } else { "." };
                key.push_str(&format!("{dot}{name}"));
            }
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    key
}

/// What serde says, in the words of TOML: it says sequence for an array, and map for a table.
fn in_words(message: &str) -> String {
    let Some((found, expected)) = message.rsplit_once(", expected ") else { return message.into() };
    let found = found.replace("invalid type: map", "invalid type: table");
    let found = found.replace("invalid type: sequence", "invalid type: array");
    let expected = match expected {
        "a sequence" => "an array",
        "a map" => "a table",
        "path string" => "a path as a string",
        other => other,
    };
    format!("{found}, expected {expected}")
}

/// Line and column of a byte, both from 1.
fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(byte)];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse("tree.toml", text).unwrap_err().to_string()
    }

    #[test]
    fn a_file_with_every_key_is_understood() {
        let text = r#"
            [[supervisor]]
            name = "payments"
            strategy = "rest_for_one"
            max_restarts = 10
            max_seconds = 60
            auto_shutdown = "any_significant"

            [[supervisor.child]]
            id = "store"
            command = ["sh", "-c", "exec sleep 1000"]
            cwd = "/tmp"
            env = { LANG = "C" }
            env_clear = true
            env_inherit = ["PATH"]
            umask = "027"
            ok_exit_codes = [3, 75]
            ready = { tcp = "127.0.0.1:6380", interval = "100ms", timeout = "5s" }
            output = "raw"
            last_output = { lines = 100, bytes = 65536, stdout = true }
            restart = "transient"
            shutdown = "1m 30s"
            stop_signal = "SIGINT"
            significant = true
            backoff = { initial = "1s", max = "5m", factor = 3, jitter = 0.5, reset_after = "1m" }

            [[supervisor.child]]
            id = "worker"
            command = "sleep 1000 | cat"
            shell = true
            shutdown = "infinity"

            [[supervisor]]
            name = "web"

            [[supervisor]]
            name = "sessions"
            parent = "payments"
        "#;
        let supervisors = parse("tree.toml", text).unwrap();
        assert_eq!(supervisors.iter().map(Supervisor::name).collect::<Vec<_>>(), ["payments", "web"]);
        let shown = format!("{:?}", supervisors[0]);
        for word in [
            "RestForOne",
            "max_restarts: 10",
            "max_seconds: 60",
            "Transient",
            "Timeout(90s)",
            "Infinity",
            "initial: 1s, max: 300s, factor: 3.0",
        ] {
            assert!(shown.contains(word), "{word} in {shown}");
        }
    }

    // An error names file, line, column, whose key it is, and the key; unknown keys are errors.
    #[test]
    fn an_error_names_file_line_column_and_key() {
        let table = [
            (
                "[[supervisor]]\nname = 1",
                "tree.toml:2:8: supervisor[0]: name: invalid type: integer `1`, expected a string",
            ),
            ("[[supervisor]]\nname = \"a\"\nmax_restart = 1", "tree.toml:3:1: a: max_restart: unknown field"),
            ("[[supervisor]]\n", "tree.toml:1:1: supervisor[0]: missing field `name`"),
            ("name = ", "tree.toml:1:8: "),
            (
                "[[supervisor]]\nname = \"a\"\nstrategy = \"one_for_two\"",
                "tree.toml:3:12: a: strategy: invalid value: string \"one_for_two\", expected `one_for_one`",
            ),
            (
                "[[supervisor]]\nname = \"a\"\n[[supervisor.child]]\nid = \"c\"\ncommand = [\"sh\"]\nshutdown = \"soon\"",
                "tree.toml:6:12: a/c: shutdown: invalid value: string \"soon\", expected `brutal_kill`",
            ),
            (
                "[[supervisor]]\nname = \"a\"\n[[supervisor.child]]\nid = \"c\"\ncommand = []",
                "tree.toml:5:11: a/c: command: the command is empty",
            ),
            ("[supervisor]\nname = \"a\"", "tree.toml:1:1: supervisor: a supervisor begins with `[[supervisor]]`"),
            (
                "[[supervisor.child]]\nid = \"c\"",
                "tree.toml:1:3: supervisor: a supervisor begins with `[[supervisor]]`",
            ),
            (
                "[[supervisor]]\nname = \"a\"\n[supervisor.child]\nid = \"c\"",
                "tree.toml:3:1: a: child: a child begins with `[[supervisor.child]]`",
            ),
            (
                "[[supervisor]]\nname = \"a\"\n[[supervisor.child]]\nid = \"c\"\ncommand = \"sh \\u0000\"\nshell = true",
                "tree.toml:5:11: a/c: command: no program takes an argument with a NUL in it",
            ),
            ("[[supervisor]]\nname = \"a/b\"", "tree.toml:2:8: a/b: name: invalid id \"a/b\""),
            (
                "[[supervisor]]\nname = \"a\"\nmax_seconds = 0",
                "tree.toml:3:15: a: max_seconds: invalid value: integer `0`, expected a whole number from 1",
            ),
            (
                "[[supervisor]]\nname = \"a\"\n[[supervisor]]\nname = \"a\"",
                "tree.toml:4:8: a: name: another supervisor is named \"a\"",
            ),
            (
                "[[supervisor]]\nname = \"a\"\n[[supervisor.child]]\nid = \"c\"\ncommand = [\"sh\"]\nsignificant = true",
                "tree.toml:6:15: a/c: significant: child \"c\" is significant, but",
            ),
        ];
        for (text, expected) in table {
            let error = error(text);
            assert!(error.starts_with(expected), "{text}\n  gives {error}\n  not   {expected}");
        }
    }

    #[test]
    fn a_file_that_is_absent_or_too_large_is_named() {
        let absent = load(Path::new("no/such.toml")).unwrap_err().to_string();
        assert!(absent.starts_with("no/such.toml: No such file"), "{absent}");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("large.toml");
        std::fs::write(&path, vec![b'#'; MAX_FILE_BYTES as usize + 1]).unwrap();
        assert!(load(&path).unwrap_err().to_string().ends_with("larger than 1048576 bytes"));
    }

    // A file that is no text is told where, and what is right.
    #[test]
    fn a_file_that_is_not_utf_8_says_where() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tree.toml");
        let said = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let error = load(&path).unwrap_err().to_string();
            error.strip_prefix(&path.display().to_string()).unwrap().to_owned()
        };
        let latin = said(b"[[supervisor]]\nname = \"\xc3\xa4caf\xe9\"\n");
        assert_eq!(latin, ":2:13: the byte 0xe9 is not UTF-8; save the file as UTF-8");
        assert_eq!(said(b"name = \"a\"\n# \xf0\x9f"), ":2:3: the byte 0xf0 is not UTF-8; save the file as UTF-8");
        assert_eq!(said(b"\xff\xfe[\0"), ":1:1: the file is UTF-16; save the file as UTF-8");
    }

    // A file without any supervisor is none to run: an empty one is more often a mistake than a wish.
    #[test]
    fn a_file_without_a_supervisor_is_refused() {
        for text in ["", "# nothing yet\n", "supervisor = []\n"] {
            let error = parse("tree.toml", text).unwrap_err();
            assert!(matches!(error, ConfigError::NoSupervisor { .. }), "{text:?}: {error}");
        }
        assert_eq!(error(""), "tree.toml: no supervisor in the file; at least one `[[supervisor]]` is needed");
    }

    // What has no length of its own is bounded as well.
    #[test]
    fn a_file_without_an_end_is_too_large() {
        assert!(matches!(load(Path::new("/dev/zero")), Err(ConfigError::TooLarge { .. })));
    }
}
