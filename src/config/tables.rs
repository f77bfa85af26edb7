//! The tables of the file as serde reads them: keys, types and words. What goes together is checked in `build`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use toml::Spanned;

use crate::supervisor::{AutoShutdown, PassOn, Restart, Shutdown, StartErrorPolicy, StopSignal, Strategy};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    pub(super) supervisor: Vec<SupervisorTable>,
}

/// Largest number that fits where one is kept.
const MAX_U32: usize = u32::MAX as usize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table: `[[supervisor]]`")]
pub(super) struct SupervisorTable {
    pub(super) name: Spanned<String>,
    pub(super) parent: Option<Spanned<String>>,
    pub(super) strategy: Option<Word<Strategy>>,
    pub(super) max_restarts: Option<Ranged<0, MAX_U32>>,
    pub(super) max_seconds: Option<Ranged<1, MAX_U32>>,
    pub(super) auto_shutdown: Option<Word<AutoShutdown>>,
    #[serde(default)]
    pub(super) child: Vec<ChildTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table: `[[supervisor.child]]`")]
pub(super) struct ChildTable {
    pub(super) id: Spanned<String>,
    pub(super) command: Spanned<CommandLine>,
    pub(super) shell: Option<bool>,
    pub(super) cwd: Option<Spanned<PathBuf>>,
    #[serde(default)]
    pub(super) env: BTreeMap<String, Spanned<String>>,
    pub(super) env_clear: Option<bool>,
    pub(super) env_inherit: Option<Spanned<Vec<String>>>,
    pub(super) user: Option<Spanned<String>>,
    pub(super) group: Option<Spanned<String>>,
    pub(super) umask: Option<Umask>,
    pub(super) restart: Option<Word<Restart>>,
    pub(super) shutdown: Option<Word<Shutdown>>,
    pub(super) stop_signal: Option<Word<StopSignal>>,
    pub(super) significant: Option<Spanned<bool>>,
    #[serde(default)]
    pub(super) ok_exit_codes: Vec<Ranged<0, 255>>,
    pub(super) backoff: Option<BackoffKey>,
    pub(super) start_error: Option<Word<StartErrorPolicy>>,
    pub(super) ready: Option<Spanned<ReadyTable>>,
    pub(super) output: Option<Word<PassOn>>,
    pub(super) last_output: Option<LastOutputTable>,
}

/// A table, or `"none"`.
pub(super) enum BackoffKey {
    None,
    Table(BackoffTable),
}

/// Keys that are absent have the values of [`Backoff::OF_PROCESSES`](crate::supervisor::Backoff::OF_PROCESSES).
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table such as `{ initial = \"1s\", max = \"1m\" }`")]
pub(super) struct BackoffTable {
    pub(super) initial: Option<Spanned<Word<Duration>>>,
    pub(super) max: Option<Spanned<Word<Duration>>>,
    pub(super) factor: Option<Decimal<1, 100>>,
    pub(super) jitter: Option<Decimal<0, 1>>,
    pub(super) reset_after: Option<Word<Duration>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table such as `{ tcp = \"localhost:80\" }`")]
pub(super) struct ReadyTable {
    pub(super) stable_after: Option<Word<Duration>>,
    pub(super) exec: Option<Spanned<Vec<String>>>,
    pub(super) tcp: Option<Spanned<String>>,
    pub(super) http: Option<Spanned<String>>,
    pub(super) interval: Option<Spanned<Word<Duration>>>,
    pub(super) timeout: Option<Spanned<Word<Duration>>>,
}

/// Keys that are absent have the values of [`LastOutputLimits::default`](crate::supervisor::LastOutputLimits).
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table such as `{ lines = 20 }`")]
pub(super) struct LastOutputTable {
    pub(super) lines: Option<Ranged<0, 1000>>,
    pub(super) bytes: Option<Ranged<0, 1_048_576>>,
    pub(super) stdout: Option<bool>,
}

/// A program and its arguments, or a line for the shell.
pub(super) enum CommandLine {
    Argv(Vec<String>),
    Line(String),
}

/// A value that the file writes as text of its own kind.
#[derive(Clone, Copy)]
pub(super) struct Word<T>(pub(super) T);

/// A whole number within bounds.
#[derive(Clone, Copy)]
pub(super) struct Ranged<const MIN: usize, const MAX: usize>(pub(super) usize);

/// A number within bounds, with or without a decimal point.
#[derive(Clone, Copy)]
pub(super) struct Decimal<const MIN: u32, const MAX: u32>(pub(super) f64);

/// Octal, written as text, because TOML's own `022` is an error and `22` would be misread.
#[derive(Clone, Copy)]
pub(super) struct Umask(pub(super) u32);

impl<'de> Deserialize<'de> for CommandLine {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CommandVisitor;

        impl<'de> Visitor<'de> for CommandVisitor {
            type Value = CommandLine;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of program and arguments, or with `shell = true` a string")
            }

            fn visit_str<E: de::Error>(self, line: &str) -> Result<CommandLine, E> {
                Ok(CommandLine::Line(line.into()))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut words: A) -> Result<CommandLine, A::Error> {
                let mut argv = Vec::new();
                while let Some(word) = words.next_element()? {
                    argv.push(word);
                }
                Ok(CommandLine::Argv(argv))
            }
        }

        deserializer.deserialize_any(CommandVisitor)
    }
}

impl<'de> Deserialize<'de> for BackoffKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BackoffVisitor;

        impl<'de> Visitor<'de> for BackoffVisitor {
            type Value = BackoffKey;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table such as `{ initial = \"1s\", max = \"1m\" }`, or `\"none\"`")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<BackoffKey, E> {
                match word {
                    "none" => Ok(BackoffKey::None),
                    _ => Err(E::invalid_value(de::Unexpected::Str(word), &self)),
                }
            }

            fn visit_map<A: de::MapAccess<'de>>(self, keys: A) -> Result<BackoffKey, A::Error> {
                BackoffTable::deserialize(de::value::MapAccessDeserializer::new(keys)).map(BackoffKey::Table)
            }
        }

        deserializer.deserialize_any(BackoffVisitor)
    }
}

impl<'de, const MIN: usize, const MAX: usize> Deserialize<'de> for Ranged<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RangedVisitor<const MIN: usize, const MAX: usize>;

        impl<const MIN: usize, const MAX: usize> Visitor<'_> for RangedVisitor<MIN, MAX> {
            type Value = usize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a whole number from {MIN} to {MAX}")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<usize, E> {
                let in_range = usize::try_from(number).ok().filter(|number| (MIN..=MAX).contains(number));
                in_range.ok_or_else(|| E::invalid_value(de::Unexpected::Signed(number), &self))
            }
        }

        deserializer.deserialize_i64(RangedVisitor::<MIN, MAX>).map(Self)
    }
}

impl<'de, const MIN: u32, const MAX: u32> Deserialize<'de> for Decimal<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DecimalVisitor<const MIN: u32, const MAX: u32>;

        impl<const MIN: u32, const MAX: u32> Visitor<'_> for DecimalVisitor<MIN, MAX> {
            type Value = f64;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a number from {MIN} to {MAX}")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<f64, E> {
                let in_range = (i64::from(MIN)..=i64::from(MAX)).contains(&number);
                let number_as_float = number as f64;
                in_range
                    .then_some(number_as_float)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Signed(number), &self))
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<f64, E> {
                let in_range = (f64::from(MIN)..=f64::from(MAX)).contains(&number);
                in_range.then_some(number).ok_or_else(|| E::invalid_value(de::Unexpected::Float(number), &self))
            }
        }

        deserializer.deserialize_f64(DecimalVisitor::<MIN, MAX>).map(Self)
    }
}

impl<'de> Deserialize<'de> for Umask {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_word(deserializer, "an octal mask from `000` to `777` as text, such as `022`", |text| {
            let is_octal = text.len() <= 4 && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
            u32::from_str_radix(text, 8).ok().filter(|mask| is_octal && *mask <= 0o777)
        })
        .map(Umask)
    }
}

/// Words that are parsed from a closed set or a pattern; the text says what is expected.
macro_rules! word {
    ($type:ty, $expected:expr, $parse:expr) => {
        impl<'de> Deserialize<'de> for Word<$type> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                parse_word(deserializer, $expected, $parse).map(Word)
            }
        }
    };
}

// A file describes static children, and a dynamic supervisor starts with none.
word!(Strategy, "`one_for_one`, `one_for_all` or `rest_for_one`", |text| {
    find(Strategy::ALL, Strategy::as_str, text).filter(|strategy| *strategy != Strategy::Dynamic)
});
word!(AutoShutdown, "`never`, `any_significant` or `all_significant`", |text| {
    find(AutoShutdown::ALL, AutoShutdown::as_str, text)
});
word!(Restart, "`permanent`, `transient` or `temporary`", |text| find(Restart::ALL, Restart::as_str, text));
word!(StopSignal, "`SIGTERM`, `SIGINT`, `SIGHUP`, `SIGQUIT`, `SIGUSR1` or `SIGUSR2`", |text| text.parse().ok());
word!(Duration, "a duration such as `5s`", duration);
word!(Shutdown, "`brutal_kill`, `infinity` or a duration such as `5s`", |text| match text {
    "brutal_kill" => Some(Shutdown::BrutalKill),
    "infinity" => Some(Shutdown::Infinity),
    _ => duration(text).map(Shutdown::Timeout),
});
word!(StartErrorPolicy, "`retry` or `fail`", |text| match text {
    "retry" => Some(StartErrorPolicy::Retry),
    "fail" => Some(StartErrorPolicy::Fail),
    _ => None,
});
word!(PassOn, "`prefixed`, `raw` or `off`", |text| match text {
    "prefixed" => Some(PassOn::Prefixed),
    "raw" => Some(PassOn::Raw),
    "off" => Some(PassOn::Off),
    _ => None,
});

fn duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok()
}

fn find<T: Copy>(all: &[T], as_str: fn(T) -> &'static str, text: &str) -> Option<T> {
    all.iter().copied().find(|word| as_str(*word) == text)
}

fn parse_word<'de, T, D: Deserializer<'de>>(
    deserializer: D,
    expected: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<T, D::Error> {
    struct WordVisitor<'a, F>(&'a str, F);

    impl<T, F: Fn(&str) -> Option<T>> Visitor<'_> for WordVisitor<'_, F> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            (self.1)(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
        }
    }

    deserializer.deserialize_str(WordVisitor(expected, parse))
}
