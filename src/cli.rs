//! The command line: flags with dotted names, as Prometheus people know them.

use std::fmt::Display;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use restart_exporter::{OnGiveUp, text};

use crate::client::{Credentials, Target};
use crate::listen::ListenAddress;

/// Where agents dial by default.
const DEFAULT_BEAM: &str = "127.0.0.1:8470";

/// Supervises programs, and reports what died, why, what it said last, and how many restarts are left.
#[derive(Debug, Parser)]
#[command(name = "restart_exporter", version, propagate_version = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the supervisors of a TOML file, and serve metrics, API and page
    Run {
        /// The file; without it nothing is supervised and only the endpoint runs
        file: Option<PathBuf>,
        #[command(flatten)]
        serve: ServeArgs,
    },
    /// Run a built-in tree whose children really crash, each at its own interval
    Demo {
        #[command(flatten)]
        serve: ServeArgs,
    },
    /// Print the source of the agent for Erlang and Elixir nodes, one Erlang module
    BeamAgent,
    /// Show everything that is supervised, trouble first. Exit status: 0 if nothing is in trouble, 1 if something is, 2 if
    /// there is no answer
    Status {
        /// Only this supervisor and those below it, with each child
        supervisor: Option<String>,
        /// List each healthy child instead of their number
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Explain why a child dies or does not run: causes, last words, restarts left, what happens next
    Why {
        /// The child or the supervisor: `CHILD`, `SUPERVISOR/CHILD` or `SUPERVISOR`
        child: String,
        /// The Erlang node of its supervisor, where two have one name; without it one of the exporter's own goes first
        #[arg(long, value_name = "NODE")]
        node: Option<String>,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Show what happened to the children of a supervisor, newest first, equal deaths in a row once
    History {
        #[command(flatten)]
        question: HistoryArgs,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Show what happens, as it happens
    Tail {
        /// Only of this supervisor
        supervisor: Option<String>,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Restart a child or a supervisor, whatever its state (admin API). Exit status: 0 if it was started, 1 if it did not
    /// start, 2 if the order was refused or there is no answer
    Restart {
        /// The child or the supervisor: `SUPERVISOR/CHILD`, `SUPERVISOR`, or the id of a child if only one child has it
        target: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Start a child or a supervisor unless it already runs (admin API). Exit status as for `restart`
    Start {
        /// The child or the supervisor, as for `restart`
        target: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Stop a child or a supervisor, and keep it stopped (admin API). Exit status as for `restart`
    Stop {
        /// The child or the supervisor, as for `restart`
        target: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Read the configuration file again and apply what changed (admin API). Exit status: 0 if all was applied, 1 if something
    /// did not start, 2 if the file is wrong or there is no answer
    Reload {
        /// Print the plan without applying it
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Note something, such as a deploy, in the history of every supervisor (admin API)
    Mark {
        /// What: one line of at most 256 bytes
        text: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Print the completions for a shell
    Completions {
        /// Which
        shell: clap_complete::Shell,
    },
    /// Print the manual page, of the program or of one command
    Man {
        /// The command
        command: Option<String>,
    },
    /// Check a TOML file. Exit status: 0 if it is valid, 1 with file, line and column of the error otherwise
    CheckConfig {
        /// The file
        file: PathBuf,
    },
}

/// What is asked of a running exporter.
#[derive(Debug)]
pub(crate) enum Ask {
    Status { supervisor: Option<String>, all: bool },
    Why { child: String, node: Option<String> },
    History(HistoryArgs),
    Tail { supervisor: Option<String> },
    Order { order: Order, target: String },
    Reload { dry_run: bool },
    Mark { text: String },
}

/// What is to become of a child or a supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Restart,
    Start,
    Stop,
}

/// Which part of a history.
#[derive(Args, Debug)]
pub(crate) struct HistoryArgs {
    /// The supervisor, by name or id; or SUPERVISOR/CHILD
    pub(crate) supervisor: String,

    /// The Erlang node of the supervisor, where two have one name; without it one of the exporter's own goes first
    #[arg(long, value_name = "NODE")]
    pub(crate) node: Option<String>,

    /// Only this child
    #[arg(long, value_name = "CHILD")]
    pub(crate) child: Option<String>,

    /// At most so many events, the newest
    #[arg(long, value_name = "EVENTS", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,

    /// Only what happened within this time
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) since: Option<Duration>,

    /// Show each event by itself
    #[arg(long)]
    pub(crate) raw: bool,
}

/// What every command that asks a running exporter takes.
#[derive(Args, Debug)]
pub(crate) struct ClientArgs {
    /// The exporter: `HOST:PORT`, `http://HOST:PORT`, `https://HOST:PORT` or `unix:PATH`
    #[arg(long, value_name = "URL", env = "RESTART_EXPORTER_URL", default_value = "http://127.0.0.1:8469")]
    pub(crate) url: Target,

    /// Was it given on the command line? Then a command that is told to be typed needs it as well.
    #[arg(skip)]
    pub(crate) url_is_given: bool,

    /// User of the exporter's web config file, `NAME` or `NAME:PASSWORD`
    #[arg(long, value_name = "USER", env = "RESTART_EXPORTER_USER", hide_env_values = true)]
    pub(crate) user: Option<Credentials>,

    /// File whose first line is the password; without it and one in `--user`, `RESTART_EXPORTER_PASSWORD` holds it
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,

    /// Certificates (PEM) to trust instead of the system's
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,

    /// Certificate (PEM) to show to an exporter that requires one, with those of its authorities after it if there are any
    #[arg(long, value_name = "FILE")]
    pub(crate) cert: Option<PathBuf>,

    /// Private key (PEM, not encrypted) of the certificate in `--cert`
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,

    /// Trust any certificate
    #[arg(long, short = 'k')]
    pub(crate) insecure: bool,

    /// Longest time to wait for an answer: 10s by default, no limit for `restart`, `start`, `stop` and `reload`
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Option<Duration>,

    /// Print the data of the API as it is
    #[arg(long)]
    pub(crate) json: bool,
}

/// What every command that serves takes.
#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// Address to listen on: `HOST:PORT`, `:PORT` for all addresses of this host, or `unix:PATH`; may be given several times
    #[arg(long = "web.listen-address", value_name = "ADDRESS", default_value = "127.0.0.1:8469")]
    pub(crate) listen_addresses: Vec<ListenAddress>,

    /// Was one given, so that it is not the default?
    #[arg(skip)]
    pub(crate) listen_is_given: bool,

    /// File with TLS, users, headers and a rate limit for every address but `unix:`, as Prometheus' exporters have it
    #[arg(long = "web.config.file", value_name = "FILE", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub(crate) web_config_file: Option<PathBuf>,

    /// Listen on the sockets that systemd passes, and on each `--web.listen-address` that is given, but not on its default
    #[arg(long = "web.systemd-socket")]
    pub(crate) systemd_socket: bool,

    /// Path under which the metrics are served
    #[arg(long = "web.telemetry-path", value_name = "PATH", default_value = "/metrics", value_parser = telemetry_path)]
    pub(crate) telemetry_path: String,

    /// Scrapes answered at once; those beyond are refused with 503 (0: no limit)
    #[arg(long = "web.max-requests", value_name = "NUMBER", default_value_t = 40)]
    pub(crate) max_requests: usize,

    /// Show `_created` in OpenMetrics; Prometheus usually keeps each as one more series
    #[arg(long = "web.openmetrics-created")]
    pub(crate) openmetrics_created: bool,

    /// Show the newest death of each bucket of lifetimes as an exemplar, in OpenMetrics and protobuf
    #[arg(long = "web.exemplars")]
    pub(crate) exemplars: bool,

    /// Address to listen on for the agents of Erlang and Elixir nodes, in the same forms; may be given several times, and empty for none
    #[arg(long = "beam.listen-address", value_name = "ADDRESS", default_value = DEFAULT_BEAM, value_parser = beam_address)]
    pub(crate) beam_addresses: Vec<Option<ListenAddress>>,

    /// File with the token that agents must send over TCP; required for non-loopback addresses, and read for each connection
    #[arg(long = "beam.token-file", value_name = "FILE", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub(crate) beam_token_file: Option<PathBuf>,

    /// Whether `beam.listen-address` is what the user wants, and not the default
    #[arg(skip)]
    pub(crate) beam_is_wanted: bool,

    /// Allow requests over TCP to restart, start, stop, reload and mark; over a `unix:` address they are always allowed
    #[arg(long = "web.enable-admin-api")]
    pub(crate) enable_admin_api: bool,

    /// What happens when a top supervisor gives up or cannot start: `always` ends the program, `never` keeps it and the other
    /// supervisors running, `auto` means `always` as process 1 and `never` otherwise
    #[arg(long = "exit.on-give-up", value_name = "WHEN", default_value = "auto")]
    pub(crate) exit_on_give_up: ExitOnGiveUp,

    /// How long the endpoint stays up before the program exits because a top supervisor gave up, so that a scrape still sees it
    #[arg(long = "exit.delay", value_name = "DURATION", default_value = "0s", value_parser = humantime::parse_duration)]
    pub(crate) exit_delay: Duration,

    /// Events kept in the history of each supervisor
    #[arg(long = "history.capacity", value_name = "EVENTS", default_value_t = 1000,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) history_capacity: u32,

    /// How long a supervisor's series and history stay after it ended
    #[arg(long = "series.retention", value_name = "DURATION", default_value = "15m", value_parser = humantime::parse_duration)]
    pub(crate) series_retention: Duration,

    /// Supervisors kept apart; those beyond are counted together as `_other`
    #[arg(long = "series.max-supervisors", value_name = "NUMBER", default_value_t = 1000)]
    pub(crate) max_supervisors: usize,

    /// Children kept apart, of all supervisors together; those beyond are counted as `_other` of their supervisor
    #[arg(long = "series.max-children", value_name = "NUMBER", default_value_t = 10_000)]
    pub(crate) max_children: usize,

    /// Children kept apart under one supervisor
    #[arg(long = "series.max-children-per-supervisor", value_name = "NUMBER", default_value_t = 50)]
    pub(crate) max_children_per_supervisor: usize,

    /// Least level that is logged
    #[arg(long = "log.level", value_name = "LEVEL", default_value = "info")]
    pub(crate) log_level: LogLevel,

    /// How log lines look
    #[arg(long = "log.format", value_name = "FORMAT", default_value = "logfmt")]
    pub(crate) log_format: LogFormat,
}

impl Cli {
    /// The command line of this process. Help, version and what cannot be understood end it here.
    pub(crate) fn of_process() -> Self {
        Self::parsed().unwrap_or_else(|error| match error.kind() {
            ErrorKind::DisplayVersion => {
                // Whoever closed the output needs no answer.
                let _ = std::io::stdout().write_all(version().as_bytes());
                std::process::exit(0)
            }
            ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => error.exit(),
            // It repeats what was typed, or what stands in the environment.
            _ => {
                let _ = write!(std::io::stderr(), "{}", text::lines(&error.render().to_string()));
                std::process::exit(error.exit_code())
            }
        })
    }

    fn parsed() -> Result<Self, clap::Error> {
        let matches = Self::command().try_get_matches()?;
        let mut cli = Self::from_arg_matches(&matches)?;
        let Some((_, matches)) = matches.subcommand() else { return Ok(cli) };
        let is_given = |argument: &str| matches.value_source(argument) == Some(ValueSource::CommandLine);
        match &mut cli.command {
            Command::Run { serve, .. } | Command::Demo { serve } => {
                serve.listen_is_given = is_given("listen_addresses");
                serve.beam_is_wanted = is_given("beam_addresses");
            }
            Command::Status { client, .. }
            | Command::Why { client, .. }
            | Command::History { client, .. }
            | Command::Tail { client, .. }
            | Command::Restart { client, .. }
            | Command::Start { client, .. }
            | Command::Stop { client, .. }
            | Command::Reload { client, .. }
            | Command::Mark { client, .. } => client.url_is_given = is_given("url"),
            Command::Completions { .. } | Command::Man { .. } | Command::CheckConfig { .. } | Command::BeamAgent => {}
        }
        Ok(cli)
    }
}

/// Says what is wrong, as a line on standard error.
pub(crate) fn complain(what: impl Display) {
    say(format_args!("restart_exporter: {what}"));
}

/// Says a line on standard error, safe for a terminal whatever is in it. Whoever closed it does not want to know.
pub(crate) fn say(what: impl Display) {
    let _ = writeln!(std::io::stderr(), "{}", text::one_line(&what.to_string()));
}

/// Prints the completions for a shell.
pub(crate) fn completions(shell: clap_complete::Shell) -> std::io::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "restart_exporter", &mut script);
    std::io::stdout().write_all(&script)
}

/// Prints a manual page.
pub(crate) fn man(command: Option<&str>) -> std::io::Result<()> {
    let mut program = Cli::command();
    program.build();
    let page = match command {
        None => Some(program),
        Some(name) => program.find_subcommand(name).cloned(),
    };
    let page =
        page.ok_or_else(|| std::io::Error::other(format!("there is no command {:?}", command.unwrap_or_default())))?;
    let mut text = Vec::new();
    clap_mangen::Man::new(page).render(&mut text)?;
    std::io::stdout().write_all(&text)
}

/// What this program was built from, as the programs of the Prometheus project say it. What is not known is left out.
fn version() -> String {
    let known = |value: Option<&'static str>| value.unwrap_or("unknown");
    let (branch, revision) = (option_env!("RESTART_EXPORTER_BRANCH"), option_env!("RESTART_EXPORTER_REVISION"));
    let mut text = format!(
        "restart_exporter, version {} (branch: {}, revision: {})\n",
        env!("CARGO_PKG_VERSION"),
        known(branch),
        known(revision)
    );
    let platform = concat!(env!("RESTART_EXPORTER_OS"), "/", env!("RESTART_EXPORTER_ARCH"));
    let lines = [
        ("build user", option_env!("RESTART_EXPORTER_BUILD_USER")),
        ("build date", option_env!("RESTART_EXPORTER_BUILD_DATE")),
        ("rust version", option_env!("RESTART_EXPORTER_RUSTVERSION")),
        ("platform", Some(platform)),
        ("tags", option_env!("RESTART_EXPORTER_PROFILE")),
    ];
    for (name, value) in lines {
        if let Some(value) = value {
            text += &format!("  {:<18}{value}\n", format!("{name}:"));
        }
    }
    text
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ExitOnGiveUp {
    Auto,
    Always,
    Never,
}

impl From<ExitOnGiveUp> for OnGiveUp {
    fn from(when: ExitOnGiveUp) -> Self {
        match when {
            ExitOnGiveUp::Auto => OnGiveUp::Auto,
            ExitOnGiveUp::Always => OnGiveUp::Always,
            ExitOnGiveUp::Never => OnGiveUp::Never,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogFormat {
    Logfmt,
    Json,
}

fn beam_address(address: &str) -> Result<Option<ListenAddress>, String> {
    if address.is_empty() { Ok(None) } else { address.parse().map(Some) }
}

fn telemetry_path(path: &str) -> Result<String, String> {
    if path.starts_with('/') && path.len() > 1 && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'?') {
        return Ok(path.into());
    }
    Err("a path begins with `/`, has at least one character more, and no `?`, space or control character".into())
}
