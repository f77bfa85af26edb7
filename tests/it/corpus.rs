//! Files that are wrong, each in its own way: types, ranges, words, duplicates, parents, programs that are not there.
//!
//! `fixtures/wrong.txt` holds them, with what is said of each.

use crate::world::run_to_end;

const WRONG: &str = include_str!("fixtures/wrong.txt");

/// A file, and what should be said of it behind its name.
struct Wrong<'a> {
    text: &'a str,
    said: &'a str,
}

fn corpus() -> Vec<Wrong<'static>> {
    let (_about, blocks) = WRONG.split_once("\n\n").unwrap();
    let blocks = blocks.split("\n\n").filter(|block| !block.starts_with("## "));
    let wrong = blocks.map(|block| {
        let (text, said) = block.split_once("\n=> ").unwrap_or_else(|| panic!("nothing is said of {block}"));
        Wrong { text, said: said.trim_end() }
    });
    wrong.collect()
}

// Every file that is wrong gives one line on standard error, with file, line, column, names, key and what is right, and
// exit status 1.
#[test]
fn each_wrong_file_gives_one_line_that_says_where_and_what_would_be_right() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tree.toml");
    let corpus = corpus();
    assert!(corpus.len() >= 60, "only {} files", corpus.len());
    for Wrong { text, said } in corpus {
        std::fs::write(&file, text).unwrap();
        let ended = run_to_end(&["check-config", file.to_str().unwrap()]);
        assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(1), ""), "{text}\nis not wrong");
        let line = ended.stderr.strip_suffix('\n').unwrap_or_else(|| panic!("no line for\n{text}"));
        let expected = format!("restart_exporter: {}:{said}", file.display());
        let fits = match expected.strip_suffix('…') {
            Some(beginning) => line.starts_with(beginning) && !line.contains('\n'),
            None => line == expected,
        };
        assert!(fits, "{text}\n  gives {line}\n  not   {expected}");
    }
}

// What is said is for people who write files: no word of the program's own.
#[test]
fn what_is_said_of_a_wrong_file_is_in_the_words_of_files() {
    for Wrong { said, .. } in corpus() {
        for word in ["struct", "enum", "u32", "u8", "i64", "f64", "sequence", "map", "Option", "Table"] {
            assert!(!said.split(|c: char| !c.is_alphanumeric()).any(|said| said == word), "{word}: {said}");
        }
    }
}
