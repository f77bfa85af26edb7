//! Which deaths are "the same": the one place where texts become an identity. Pure.

use crate::event::ExitReason;

/// Words that mark the line of an output which says why.
const ERROR_WORDS: [&str; 7] = ["error", "panic", "fatal", "exception", "fail", "cannot", "denied"];

/// The line of a dead run that most likely says why it died: the last that has an error word in it, else the last that
/// is not empty.
pub fn error_line(lines: &[impl AsRef<str>]) -> Option<&str> {
    let is_error = |line: &&str| {
        let line = line.to_ascii_lowercase();
        ERROR_WORDS.iter().any(|word| line.contains(word))
    };
    let newest_first = || lines.iter().rev().map(AsRef::as_ref);
    newest_first().find(is_error).or_else(|| newest_first().find(|line| !line.trim().is_empty()))
}

/// The identity of a death, of one child and of anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprints {
    pub(super) of_child: u64,
    pub(super) of_reason: u64,
}

/// The identity of a death: child, class, detail and the line that says why, with numbers, addresses and times left out.
/// Exit codes, signals and the places of panics stay exact.
pub(super) fn fingerprints(label: &str, reason: &ExitReason, error_line: Option<&str>) -> Fingerprints {
    let mut hash = Fnv::new();
    hash.field(label.as_bytes());
    Fingerprints { of_child: of(hash, reason, error_line), of_reason: of(Fnv::new(), reason, error_line) }
}

fn of(mut hash: Fnv, reason: &ExitReason, error_line: Option<&str>) -> u64 {
    hash.field(reason.class().as_str().as_bytes());
    match reason {
        ExitReason::Error(detail) | ExitReason::Shutdown(Some(detail)) => hash.text(detail),
        ExitReason::Panic(panic) => {
            hash.text(&panic.message);
            hash.field(panic.location.as_deref().unwrap_or_default().as_bytes());
        }
        ExitReason::Exit(number) | ExitReason::Signal(number) => hash.field(&number.to_le_bytes()),
        ExitReason::Normal
        | ExitReason::Shutdown(None)
        | ExitReason::Killed
        | ExitReason::Oom
        | ExitReason::Timeout => {}
    }
    if let Some(line) = error_line {
        hash.text(line);
    }
    hash.0
}

/// FNV-1a in 64 bits. Of our own because the standard hasher may change with the compiler, and people compare
/// fingerprints across machines.
struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn byte(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }

    /// Bytes as they are. 0xff never occurs in UTF-8, so it ends a field without doubt.
    fn field(&mut self, bytes: &[u8]) {
        bytes.iter().chain(&[0xff]).for_each(|byte| self.byte(*byte));
    }

    /// A text for people: words count, what differs from one occurrence to the next does not.
    fn text(&mut self, text: &str) {
        let mut rest = text.as_bytes();
        while let Some((first, _)) = rest.split_first() {
            let length = variable_length(rest);
            if length > 0 {
                self.byte(b'#');
                rest = &rest[length..];
            } else {
                // A whole word at once, so that its tail is not taken for a number.
                let word = rest.iter().take_while(|byte| is_word(**byte)).count().max(1);
                debug_assert!(word == 1 || is_word(*first));
                rest[..word].iter().for_each(|byte| self.byte(*byte));
                rest = &rest[word..];
            }
        }
        self.byte(0xff);
    }
}

/// How many bytes at the start of a text are a number, an address, an id or an escape sequence of a terminal; 0 if none.
fn variable_length(text: &[u8]) -> usize {
    if text.starts_with(b"\x1b[") {
        return text.iter().position(u8::is_ascii_alphabetic).map_or(text.len(), |end| end + 1);
    }
    let word = text.iter().take_while(|byte| is_word(**byte)).count();
    let (word, _) = text.split_at(word);
    if is_variable(word) { word.len() } else { 0 }
}

/// A word with a digit in it (counters, times, addresses, `worker-3`'s tail), or a long hexadecimal one (ids).
fn is_variable(word: &[u8]) -> bool {
    word.iter().any(u8::is_ascii_digit) || word.len() >= 8 && word.iter().all(u8::is_ascii_hexdigit)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::event::{Detail, Panic};

    fn fingerprint(label: &str, reason: &ExitReason, error_line: Option<&str>) -> u64 {
        fingerprints(label, reason, error_line).of_child
    }

    fn of(text: &str) -> u64 {
        fingerprint("api", &ExitReason::Error(Detail::new(text)), None)
    }

    // Equal deaths fall together, whatever number, address, time or id they were given.
    #[test]
    fn numbers_addresses_times_and_ids_do_not_tell_deaths_apart() {
        let table = [
            ("timeout after 31 ms", "timeout after 5 ms"),
            ("connect 10.0.0.7:8080: refused", "connect 192.168.1.20:443: refused"),
            ("bad pointer 0x7ffdeadbeef0", "bad pointer 0x1"),
            ("2026-11-23T22:13:15.123Z gone", "2027-01-01T03:07:41.999Z gone"),
            (
                "request 1f0c6a52-0d5e-4c1b-9a53-2d8f7f3a0b11 failed",
                "request 9e107d9d-372b-4b88-8a1a-6d5b4c3f2e10 failed",
            ),
            ("commit deadbeefcafe lost", "commit facefeedabba lost"),
            ("\x1b[31mboom\x1b[0m", "\x1b[1;91mboom\x1b[0m"),
        ];
        for (one, other) in table {
            assert_eq!(of(one), of(other), "{one} / {other}");
        }
    }

    // An odd death stands out: words, classes, codes and children do tell deaths apart.
    #[test]
    fn words_codes_and_children_tell_deaths_apart() {
        assert_ne!(of("connection refused"), of("connection reset"));
        assert_ne!(of("dead"), of("bead"));
        let exit = |label, code| fingerprint(label, &ExitReason::Exit(code), None);
        assert_ne!(exit("api", 1), exit("api", 2));
        assert_ne!(exit("api", 1), exit("web", 1));
        let with = |line| fingerprint("api", &ExitReason::Exit(1), Some(line));
        assert_ne!(with("bind: address in use"), with("bind: permission denied"));
        assert_eq!(with("bind 0.0.0.0:8080: in use"), with("bind 0.0.0.0:9090: in use"));
    }

    // People compare fingerprints across machines and versions: the values are part of the contract.
    #[test]
    fn fingerprints_do_not_change() {
        let table = [
            ("mailer", ExitReason::Killed, 0x1c0f_4abb_d201_4e88),
            ("mailer", ExitReason::error("no"), 0xf33a_a559_68bd_077b),
            ("mailer", ExitReason::Exit(1), 0x2082_e75e_6785_d63d),
        ];
        for (label, reason, expected) in table {
            assert_eq!(fingerprint(label, &reason, None), expected, "{label} {reason}");
        }
    }

    // "Who else dies of the same": without the child, whatever else tells deaths apart.
    #[test]
    fn a_reason_has_the_same_fingerprint_whoever_dies_of_it() {
        let of = |label, text| fingerprints(label, &ExitReason::error(text), Some("bind: in use")).of_reason;
        assert_eq!(of("api", "no port 80"), of("web", "no port 443"));
        assert_ne!(of("api", "no port"), of("api", "no disk"));
    }

    // Child, class and each part of the detail tell causes apart; the fields cannot run into each other.
    #[test]
    fn different_causes_have_different_fingerprints() {
        let at = |message: &str, location: &str| {
            let location = Some(location.into());
            ExitReason::Panic(Arc::new(Panic { message: Detail::new(message), location }))
        };
        let mut all = vec![
            fingerprint("a", &ExitReason::error("x"), None),
            fingerprint("b", &ExitReason::error("x"), None),
            fingerprint("a", &ExitReason::error("y"), None),
            fingerprint("a", &at("x", ""), None),
            fingerprint("a", &at("x", "y"), None),
            fingerprint("a", &at("x y", ""), None),
            fingerprint("a", &ExitReason::Exit(9), None),
            fingerprint("a", &ExitReason::Signal(9), None),
            fingerprint("a", &ExitReason::Killed, None),
            fingerprint("a", &ExitReason::Oom, None),
        ];
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 10);
    }

    #[test]
    fn the_line_that_says_why_is_found_among_the_last_words() {
        let rust = ["listening", "thread 'main' panicked at src/main.rs:2:5:", "boom", "note: run with …"];
        assert_eq!(error_line(&rust), Some("thread 'main' panicked at src/main.rs:2:5:"));
        assert_eq!(error_line(&["one", "two", "  "]), Some("two"));
        assert_eq!(error_line(&[""; 0]), None);
    }
}
