//! The binary: a client of the library.

mod cli;
mod client;
mod demo;
mod logging;
mod signals;
mod sockets;

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use restart_exporter::supervisor::{Supervisor, end_leftovers, flush_output, reap_orphans};
use restart_exporter::{Error, Exporter, beam, config, resources};

use crate::cli::{Ask, Cli, Command, ListenAddress, ServeArgs};
use crate::signals::Hangups;
use crate::sockets::Passed;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What is to be supervised.
enum Tree {
    Nothing,
    File(PathBuf, Vec<Supervisor>),
    Demo,
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
        Command::Demo { serve } => start(&serve, || Ok(Tree::Demo)),
        Command::CheckConfig { file } => check_config(&file),
        Command::BeamAgent => printed(std::io::stdout().write_all(beam::AGENT_SOURCE.as_bytes())),
        Command::Status { supervisor, all, client } => client::run(Ask::Status { supervisor, all }, &client),
        Command::Why { child, node, client } => client::run(Ask::Why { child, node }, &client),
        Command::History { question, client } => client::run(Ask::History(question), &client),
        Command::Tail { supervisor, client } => client::run(Ask::Tail { supervisor }, &client),
        Command::Mark { text, client } => client::run(Ask::Mark { text }, &client),
        Command::Completions { shell } => printed(cli::completions(shell)),
        Command::Man { command } => printed(cli::man(command.as_deref())),
    }
}

fn check_config(file: &Path) -> ExitCode {
    match config::load(file) {
        Ok(supervisors) => {
            // Whoever closed it knows from the exit status.
            let _ = writeln!(std::io::stderr(), "{}: {} supervisors, no errors", file.display(), supervisors.len());
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
    let mut stop = pin!(signals::stop()?);
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
        .exit_delay(args.exit_delay)
        .history_capacity(args.history_capacity as usize)
        .retention(args.series_retention)
        .max_supervisors(args.max_supervisors)
        .max_children(args.max_children, args.max_children_per_supervisor)
        .build()?;
    logging::attach(exporter.telemetry())?;
    let passed = passed?;
    let addresses = if args.systemd_socket { &[][..] } else { &args.listen_addresses };
    for socket in passed {
        exporter.listen_on(socket.listener()?)?;
    }
    for address in addresses {
        match address {
            ListenAddress::Tcp(address) => drop(exporter.listen(address).await?),
            ListenAddress::Unix(path) => exporter.listen_unix(path).await?,
        }
    }
    listen_for_nodes(&exporter, args).await?;
    let started = tokio::select! {
        started = supervise(&exporter, tree) => started.map(|()| true),
        () = &mut stop => Ok(false),
    };
    match started {
        Ok(true) => Ok(exporter.serve(stop).await?),
        // What has started is stopped as at any other end.
        Ok(false) => {
            exporter.shutdown().await;
            Ok(())
        }
        Err(error) => {
            exporter.shutdown().await;
            Err(error)
        }
    }
}

/// Whoever did not ask for nodes shall not have to care that another exporter hears them already.
async fn listen_for_nodes(exporter: &Exporter, args: &ServeArgs) -> Result<(), Error> {
    for address in args.beam_addresses.iter().flatten() {
        let listens = match address {
            ListenAddress::Tcp(address) => exporter.listen_for_nodes(*address).await.map(drop),
            ListenAddress::Unix(path) => exporter.listen_for_nodes_unix(path).await,
        };
        match listens {
            Err(Error::Bind { address, error }) if !args.beam_is_wanted => {
                tracing::warn!(address, err = %error, "no nodes are heard; choose --beam.listen-address");
            }
            listens => listens?,
        }
    }
    Ok(())
}

async fn supervise(exporter: &Exporter, tree: Tree) -> Result<(), BoxError> {
    match tree {
        Tree::Nothing => Hangups::hear()?.act(|| async { tracing::info!("SIGHUP: there is no file to reload") }),
        Tree::Demo => demo::supervise(exporter).await?,
        Tree::File(path, supervisors) => {
            // Before the first child starts, which may take long.
            let hangups = Hangups::hear()?;
            for supervisor in supervisors {
                exporter.supervise(supervisor).await?;
            }
            let reloader = exporter.on_reload(move || config::load(&path).map_err(|error| error.to_string()));
            hangups.act(move || {
                let reloader = reloader.clone();
                // The outcome has been logged.
                async move { drop(reloader.reload().await) }
            });
        }
    }
    Ok(())
}
