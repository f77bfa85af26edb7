//! The binary: a client of the library.

mod cli;
mod client;
mod demo;
mod listen;
mod logging;
mod signals;
mod sockets;

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use restart_exporter::event::counted;
use restart_exporter::supervisor::{Supervisor, TreeSize, end_leftovers, flush_output, reap_orphans};
use restart_exporter::{Error, Exporter, OnGiveUp, beam, config, resources};

use crate::cli::{Ask, Cli, Command, LogFormat, Order, ServeArgs};
use crate::demo::Demo;
use crate::listen::ListenAddress;
use crate::signals::Hangups;
use crate::sockets::Passed;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What is to be supervised.
enum Tree {
    Nothing,
    File(PathBuf, Vec<Supervisor>),
    Demo(Demo),
}

impl Tree {
    fn supervisors(&self) -> &[Supervisor] {
        match self {
            Tree::Nothing => &[],
            Tree::File(_, supervisors) => supervisors,
            Tree::Demo(demo) => &demo.supervisors,
        }
    }
}

/// How long the end waits for a slow reader of our output.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    match Cli::of_process().command {
        Command::Run { file: None, serve } => start(&serve, || Ok(Tree::Nothing)),
        Command::Run { file: Some(file), serve } => start(&serve, || {
            let supervisors = config::load(&file)?;
            Ok(Tree::File(file, supervisors))
        }),
        Command::Demo { serve } => start(&serve, || Ok(Tree::Demo(Demo::new()))),
        Command::CheckConfig { file } => check_config(&file),
        Command::BeamAgent => printed(std::io::stdout().write_all(beam::AGENT_SOURCE.as_bytes())),
        Command::Status { supervisor, all, client } => client::run(Ask::Status { supervisor, all }, &client),
        Command::Why { child, node, client } => client::run(Ask::Why { child, node }, &client),
        Command::History { question, client } => client::run(Ask::History(question), &client),
        Command::Tail { supervisor, client } => client::run(Ask::Tail { supervisor }, &client),
        Command::Restart { target, client } => client::run(Ask::Order { order: Order::Restart, target }, &client),
        Command::Start { target, client } => client::run(Ask::Order { order: Order::Start, target }, &client),
        Command::Stop { target, client } => client::run(Ask::Order { order: Order::Stop, target }, &client),
        Command::Reload { dry_run, client } => client::run(Ask::Reload { dry_run }, &client),
        Command::Mark { text, client } => client::run(Ask::Mark { text }, &client),
        Command::Completions { shell } => printed(cli::completions(shell)),
        Command::Man { command } => printed(cli::man(command.as_deref())),
    }
}

fn check_config(file: &Path) -> ExitCode {
    match config::load(file) {
        Ok(supervisors) => {
            let size: TreeSize = supervisors.iter().map(Supervisor::size).sum();
            let number = counted(size.supervisors, "supervisor", "supervisors");
            let children = counted(size.children, "child", "children");
            // Whoever closed it knows from the exit status.
            cli::say(format_args!("{}: {number}, {children}, no errors", file.display()));
            for name in supervisors.iter().flat_map(|supervisor| supervisor.never_give_up(None)) {
                let why = "its children's backoffs are too long to use up its restart budget";
                cli::say(format_args!("{}: {name} never gives up: {why}", file.display()));
            }
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error),
    }
}

/// Whoever closed the output needs no answer.
fn printed(written: std::io::Result<()>) -> ExitCode {
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => fail(&error),
        _ => ExitCode::SUCCESS,
    }
}

/// For errors before there is a log.
fn fail(error: &dyn std::error::Error) -> ExitCode {
    cli::complain(error);
    ExitCode::FAILURE
}

fn start(args: &ServeArgs, tree: impl FnOnce() -> Result<Tree, BoxError>) -> ExitCode {
    // Threads take over what is blocked, so before the first.
    let unblocked = signals::unblock();
    let raised = resources::raise_open_files();
    let passed = if args.systemd_socket { sockets::passed() } else { Ok(Vec::new()) };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let _flushes_at_the_end = logging::init(args.log_level, args.log_format);
    for (what, done) in
        [("signals cannot be unblocked", unblocked), ("the limit of open files cannot be raised", raised)]
    {
        if let Err(error) = done {
            tracing::warn!(err = %error, "{what}");
        }
    }
    let ended = runtime.block_on(async {
        let ended = serve(args, tree()?, passed).await;
        end_leftovers().await;
        flush_output(FLUSH_PATIENCE).await;
        signals::unless_again().await;
        ended
    });
    // A file that cannot be read promptly, or a name that does not resolve, keeps a thread busy that need not be waited for.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(err = %error, "restart_exporter ended");
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: &ServeArgs, tree: Tree, passed: Result<Vec<Passed>, BoxError>) -> Result<(), BoxError> {
    // Before the first child starts: a signal that comes meanwhile must end them as well.
    // A task, so that a signal is heard whatever is being waited for; the second one must find its ear.
    let heard = tokio::spawn(signals::stop()?);
    let mut stop = pin!(async move { drop(heard.await) });
    // Whoever ends as a child of our children becomes ours; as process 1 of a container we have no choice.
    tokio::spawn(reap_orphans()?);
    let mut builder = Exporter::builder();
    // An empty value stands for none, as unit files have it.
    if let Some(file) = args.web_config_file.as_ref().filter(|file| !file.as_os_str().is_empty()) {
        builder = builder.web_config_file(file);
    }
    if let Some(file) = args.beam_token_file.as_ref().filter(|file| !file.as_os_str().is_empty()) {
        builder = builder.node_token_file(file);
    }
    let exporter = builder
        .telemetry_path(&args.telemetry_path)
        .max_requests(args.max_requests)
        .openmetrics_created(args.openmetrics_created)
        .exemplars(args.exemplars)
        .admin_api(args.enable_admin_api)
        .on_give_up(args.exit_on_give_up.into())
        .exit_delay(args.exit_delay)
        .history_capacity(args.history_capacity as usize)
        .retention(args.series_retention)
        .max_supervisors(args.max_supervisors)
        .max_children(args.max_children, args.max_children_per_supervisor)
        .build()?;
    logging::attach(exporter.telemetry())?;
    let passed = passed?;
    log_start(&tree);
    log_on_give_up(args.exit_on_give_up.into());
    let urls = listen_for_requests(&exporter, args, passed).await?;
    listen_for_nodes(&exporter, args).await?;
    for url in urls {
        match url {
            Url::Page(url) => tracing::info!(url, "open the page"),
            Url::Socket(url) => tracing::info!(url, "commands reach this socket with --url"),
        }
    }
    let ended = tokio::select! {
        ended = supervise(&exporter, tree) => ended,
        () = &mut stop => Ok(()),
    };
    if let Err(error) = &ended
        && let Some(Error::GaveUp { name, .. }) = error.downcast_ref()
    {
        exporter.stop_supervisors().await;
        client::explain_end(exporter.app(), name, matches!(args.log_format, LogFormat::Json)).await;
        exporter.linger(stop).await;
    }
    exporter.shutdown().await;
    ended
}

/// The first line of the log.
fn log_start(tree: &Tree) {
    let TreeSize { supervisors, children } = tree.supervisors().iter().map(Supervisor::size).sum();
    let file = match tree {
        Tree::File(file, _) => Some(file.display().to_string()),
        Tree::Nothing | Tree::Demo(_) => None,
    };
    tracing::info!(version = env!("CARGO_PKG_VERSION"), file, supervisors, children, "restart_exporter started");
}

/// The second line of the log: whether the program ends with a supervisor that gives up.
fn log_on_give_up(on_give_up: OnGiveUp) {
    let outcome = if on_give_up.ends() { "restart_exporter ends" } else { "restart_exporter and the others go on" };
    let flag = format!("{on_give_up:?}").to_lowercase();
    tracing::info!(flag, outcome, "when a top supervisor gives up");
}

/// Where people and commands on this host find the endpoint.
#[derive(PartialEq, Eq)]
enum Url {
    Page(String),
    Socket(String),
}

/// Listens on the sockets that were passed, and on the addresses of the flags. With sockets the default address is not one of
/// them, nor is an address that a socket listens on.
async fn listen_for_requests(exporter: &Exporter, args: &ServeArgs, passed: Vec<Passed>) -> Result<Vec<Url>, BoxError> {
    let (is_tls, _) = exporter.app().tls();
    let (mut urls, mut tcp) = (Vec::new(), Vec::new());
    for socket in passed {
        let listener = socket.listener()?;
        let address = listener.address()?;
        exporter.listen_on(listener)?;
        urls.push(match address.parse() {
            Ok(address) => {
                tcp.push(address);
                Url::Page(listen::page_url(address, is_tls))
            }
            Err(_) => Url::Socket(address),
        });
    }
    let addresses = if args.systemd_socket && !args.listen_is_given { &[][..] } else { &args.listen_addresses };
    for address in addresses {
        let url = match address {
            ListenAddress::Tcp(host) => {
                let listen = async |address| match exporter.listen(address).await {
                    Err(Error::Bind { error, .. })
                        if error.kind() == ErrorKind::AddrInUse && listen::is_covered(address, &tcp) =>
                    {
                        Ok(address)
                    }
                    listens => listens,
                };
                let bound = host.listen(listen).await?;
                Url::Page(host.page_url(bound, is_tls))
            }
            ListenAddress::Unix(path) => {
                let url = Url::Socket(address.to_string());
                if !urls.contains(&url) {
                    exporter.listen_unix(path).await?;
                }
                url
            }
        };
        if !urls.contains(&url) {
            urls.push(url);
        }
    }
    Ok(urls)
}

/// The default port for nodes may be taken by another exporter. That is only an error if the user asked for it.
async fn listen_for_nodes(exporter: &Exporter, args: &ServeArgs) -> Result<(), BoxError> {
    for address in args.beam_addresses.iter().flatten() {
        let listens = match address {
            ListenAddress::Tcp(host) => {
                host.listen(async |address| exporter.listen_for_nodes(address).await).await.map(drop)
            }
            ListenAddress::Unix(path) => exporter.listen_for_nodes_unix(path).await,
        };
        match listens {
            Err(Error::Bind { address, error }) if !args.beam_is_wanted => {
                tracing::warn!(address, err = %error, "no nodes are heard; choose --beam.listen-address");
            }
            Err(Error::NoToken { address: resolved }) => {
                let address = match address.to_string() {
                    address if address == resolved => address,
                    address => format!("{address} ({resolved})"),
                };
                let message = "--beam.token-file is required for non-loopback addresses";
                return Err(format!("refusing to listen for nodes on {address}: {message}").into());
            }
            listens => listens?,
        }
    }
    Ok(())
}

/// Starts what is to be supervised, and returns when there is no point in going on.
async fn supervise(exporter: &Exporter, tree: Tree) -> Result<(), BoxError> {
    match tree {
        Tree::Nothing => Hangups::hear()?.act(|| async { tracing::info!("SIGHUP: there is no file to reload") }),
        Tree::Demo(demo) => demo.supervise(exporter).await?,
        Tree::File(path, supervisors) => {
            // Before the first child starts, which may take long: a wrong probe can be mended meanwhile.
            let hangups = Hangups::hear()?;
            let reloader = exporter.on_reload(move || config::load(&path).map_err(|error| error.to_string()));
            tokio::spawn(reloader.start(supervisors).await);
            hangups.act(move || {
                let reloader = reloader.clone();
                // The outcome has been logged.
                async move { drop(reloader.reload().await) }
            });
        }
    }
    exporter.app().set_ready(true);
    Ok(exporter.done().await?)
}
