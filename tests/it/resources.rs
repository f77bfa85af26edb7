//! What happens when the system has no more to give: children go on being restarted, and nothing ends.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use tokio::net::TcpStream;

use crate::nodes::sockets::looping_node;
use crate::world::{BINARY, Running, raise_open_files, sample, until};

/// One of them dies whenever there is a file `die`.
fn mortal(id: &str, directory: &Path) -> String {
    let script = "until [ -e die ] && mv die dead.$$ 2> /dev/null; do sleep 0.1; done; exit 1";
    format!(
        "[[supervisor.child]]\nid = \"{id}\"\nshell = true\ncommand = \"{script}\"\ncwd = \"{}\"\n",
        directory.display()
    )
}

/// A file with a supervisor `a` that bears a lot, and these children.
fn file(directory: &Path, children: &str) -> String {
    let path = directory.join("tree.toml");
    fs::write(&path, format!("[[supervisor]]\nname = \"a\"\nmax_restarts = 1000\nmax_seconds = 1000\n{children}"))
        .unwrap();
    path.to_str().unwrap().to_owned()
}

/// Words of a command line that make a shell set limits first.
fn below(limits: &str) -> [String; 4] {
    ["sh".into(), "-c".into(), format!("{limits} && exec \"$@\""), "limited".into()]
}

async fn started(limits: &str, arguments: &[&str]) -> Running {
    let before = below(limits);
    Running::start_below(&before.each_ref().map(String::as_str), &[&["run"], arguments].concat()).await
}

async fn restarts(exporter: &Running) -> u64 {
    let all = exporter.data("/api/v1/supervisors").await;
    let children = all[0]["children"].as_array().unwrap();
    children.iter().map(|child| child["restarts"].as_u64().unwrap()).sum()
}

/// Lets one child die, and waits until one runs again.
async fn dies_and_comes_back(exporter: &Running, directory: &Path) {
    let before = restarts(exporter).await;
    fs::write(directory.join("die"), "").unwrap();
    until("a restart", async || (restarts(exporter).await == before + 1).then_some(())).await;
}

fn descriptors(exporter: &Running) -> usize {
    fs::read_dir(format!("/proc/{}/fd", exporter.pid())).unwrap().count()
}

async fn limit_reached(exporter: &Running, limit: &str) -> f64 {
    let text = exporter.get("/metrics").await.body;
    sample(&text, &format!("restart_exporter_limit_reached_total{{limit=\"{limit}\"}}")).unwrap()
}

async fn ends_well(exporter: Running) -> Vec<String> {
    exporter.signal(Signal::TERM);
    let (status, log) = exporter.ended().await;
    assert_eq!(status.code(), Some(0), "{log:#?}");
    log
}

async fn connections(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(TcpStream::connect(address).await.unwrap());
    }
    all
}

// However many strangers connect and say nothing, to HTTP and to the listener for nodes: children are restarted, scrapes
// answered, real nodes heard, and nothing ends.
#[tokio::test]
async fn no_number_of_connections_prevents_a_restart() {
    raise_open_files();
    for limits in ["ulimit -n 256", "ulimit -S -n 256 && ulimit -H -n 1024"] {
        let directory = tempfile::tempdir().unwrap();
        let children = mortal("one", directory.path()) + &mortal("two", directory.path());
        let file = file(directory.path(), &children);
        let mut exporter = started(limits, &[&file, "--beam.listen-address=127.0.0.1:0"]).await;
        let line = exporter.line_with("Listening for nodes on").await;
        let nodes: SocketAddr = line.rsplit_once('=').unwrap().1.parse().unwrap();
        let _idle = connections(exporter.address, 600).await;
        let _silent = connections(nodes, 1000).await;
        for _ in 0..3 {
            dies_and_comes_back(&exporter, directory.path()).await;
        }
        let _node = looping_node(nodes, "shop@a", "badarg").await;
        let open = descriptors(&exporter);
        assert!(open < if limits.contains("1024") { 1024 - 12 } else { 256 - 12 }, "{open} with {limits}");
        assert!(limit_reached(&exporter, "http_connections").await > 0.0);
        assert!(limit_reached(&exporter, "node_connections").await > 0.0);
        assert_eq!(limit_reached(&exporter, "file_descriptors").await, 0.0);
        let log = ends_well(exporter).await;
        assert!(log.len() < 100, "{} lines", log.len());
    }
}

// Children that are started while all connections are taken get the descriptors of some of them.
#[tokio::test]
async fn connections_make_room_for_new_children() {
    raise_open_files();
    let directory = tempfile::tempdir().unwrap();
    let one = file(directory.path(), &mortal("one", directory.path()));
    let mut exporter = started("ulimit -n 200", &[&one, "--beam.listen-address=127.0.0.1:0"]).await;
    let line = exporter.line_with("Listening for nodes on").await;
    let nodes: SocketAddr = line.rsplit_once('=').unwrap().1.parse().unwrap();
    until("ready", async || (exporter.get("/-/ready").await.status == 200).then_some(())).await;
    let _idle = connections(exporter.address, 300).await;
    let _silent = connections(nodes, 300).await;
    let many: String = (0..25).map(|n| mortal(&format!("c{n}"), directory.path())).collect();
    file(directory.path(), &(mortal("one", directory.path()) + &many));
    exporter.signal(Signal::HUP);
    until("all run", async || (exporter.pids().await.len() == 26).then_some(())).await;
    dies_and_comes_back(&exporter, directory.path()).await;
    ends_well(exporter).await;
}

// 64 descriptors are enough for two children.
#[tokio::test]
async fn few_descriptors_are_enough_for_few_children() {
    raise_open_files();
    let directory = tempfile::tempdir().unwrap();
    let file = file(directory.path(), &(mortal("one", directory.path()) + &mortal("two", directory.path())));
    let exporter = started("ulimit -n 64", &[&file]).await;
    let _idle = connections(exporter.address, 100).await;
    dies_and_comes_back(&exporter, directory.path()).await;
    assert_eq!(limit_reached(&exporter, "file_descriptors").await, 0.0);
    ends_well(exporter).await;
}

// The exporter takes as many open files as it may have; its children get what it was given, soft and hard.
#[tokio::test]
async fn children_have_the_limits_that_the_exporter_was_given() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let child = format!(
        "[[supervisor.child]]\nid = \"c\"\nshell = true\ncommand = \"echo $(ulimit -S -n) $(ulimit -H -n) > {}; exec sleep 600\"\n",
        out.display()
    );
    let exporter = started("ulimit -S -n 300 && ulimit -H -n 500", &[&file(directory.path(), &child)]).await;
    let limits = until("limits", async || fs::read_to_string(&out).ok().filter(|text| text.ends_with('\n'))).await;
    assert_eq!(limits, "300 500\n");
    let text = exporter.get("/metrics").await.body;
    assert_eq!(sample(&text, "process_max_fds"), Some(500.0));
    ends_well(exporter).await;
}

// A child for which there are no descriptors waits, is no failed start, and is started as soon as there are some. The log
// says it once.
#[tokio::test]
async fn a_child_waits_while_descriptors_are_used_up() {
    let directory = tempfile::tempdir().unwrap();
    let file = file(directory.path(), &mortal("c", directory.path()));
    let mut exporter = started("ulimit -n 500", &[&file]).await;
    until("ready", async || (exporter.get("/-/ready").await.status == 200).then_some(())).await;
    // Fewer than are open already.
    allow(exporter.pid(), "--nofile=5:");
    fs::write(directory.path().join("die"), "").unwrap();
    let line = exporter.line_with("a process waits to be started").await;
    assert!(line.contains("child=c limit=file_descriptors") && line.contains("ulimit -n"), "{line}");
    let (_first, _second) = (TcpStream::connect(exporter.address).await, TcpStream::connect(exporter.address).await);
    exporter.line_with("cannot accept a connection").await;
    allow(exporter.pid(), "--nofile=500:");
    until("a restart", async || (restarts(&exporter).await == 1).then_some(())).await;
    assert!(limit_reached(&exporter, "file_descriptors").await > 0.0);
    let text = exporter.get("/metrics").await.body;
    assert_eq!(sample(&text, "supervisor_child_start_errors_total{supervisor=\"a\"}"), Some(0.0));
    let log = ends_well(exporter).await;
    assert_eq!(log.iter().filter(|line| line.contains("waits to be started")).count(), 1, "{log:#?}");
}

// A child that waits is stopped at once.
#[tokio::test]
async fn a_child_that_waits_is_stopped_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let file = file(directory.path(), &mortal("c", directory.path()));
    let mut exporter = started("ulimit -n 500", &[&file]).await;
    until("ready", async || (exporter.get("/-/ready").await.status == 200).then_some(())).await;
    allow(exporter.pid(), "--nofile=5:");
    fs::write(directory.path().join("die"), "").unwrap();
    exporter.line_with("a process waits to be started").await;
    ends_well(exporter).await;
}

/// Another user, whom no other process runs as: a limit of processes counts by user, and does not hold for root. So this
/// needs to be root.
const USER: [&str; 4] = ["setpriv", "--reuid=64321", "--regid=64321", "--clear-groups"];

// The same where the user may have no more processes.
#[tokio::test]
async fn a_child_waits_while_processes_are_used_up() {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    // The binary may lie where others cannot go.
    let binary = directory.path().join("restart_exporter");
    fs::copy(BINARY, &binary).unwrap();
    let file = file(directory.path(), &mortal("c", directory.path()));
    let copy = format!("shift; exec {} \"$@\"", binary.display());
    let before = [&USER[..], &["sh", "-c", &copy, "sh"]].concat();
    let mut exporter = Running::start_below(&before, &["run", &file]).await;
    until("ready", async || (exporter.get("/-/ready").await.status == 200).then_some(())).await;
    allow(exporter.pid(), "--nproc=1:");
    fs::write(directory.path().join("die"), "").unwrap();
    let line = exporter.line_with("a process waits to be started").await;
    assert!(line.contains("limit=processes") && line.contains("TasksMax="), "{line}");
    allow(exporter.pid(), "--nproc=1000:");
    until("a restart", async || (restarts(&exporter).await == 1).then_some(())).await;
    assert!(limit_reached(&exporter, "processes").await > 0.0);
    ends_well(exporter).await;
}

/// Sets a soft limit of another process, as its own user: not even root may do so everywhere.
fn allow(pid: u32, limit: &str) {
    let owner = fs::metadata(format!("/proc/{pid}")).unwrap().uid();
    let user: &[&str] = if owner == 64321 { &USER } else { &["env"] };
    let pid = pid.to_string();
    let words = [user, &["prlimit", "--pid", &pid, limit]].concat();
    let done = Command::new(words[0]).args(&words[1..]).status().unwrap();
    assert!(done.success(), "{words:?}");
}

// A full disk under our standard output ends nothing: neither us nor a child.
#[tokio::test]
async fn a_full_disk_for_our_output_ends_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let script = "i=0; while [ $i -lt 2000 ]; do i=$((i + 1)); echo a line of some length that goes nowhere; done; \
                  echo done > written; exec sleep 600";
    let child = format!(
        "[[supervisor.child]]\nid = \"c\"\nshell = true\ncommand = '''{script}'''\ncwd = \"{}\"\n",
        directory.path().display()
    );
    for keys in ["", "output = \"raw\"\n"] {
        let file = file(directory.path(), &(child.clone() + keys + &mortal("m", directory.path())));
        let before = ["sh", "-c", "exec \"$@\" > /dev/full", "full"];
        let exporter = Running::start_below(&before, &["run", &file]).await;
        until("all is written", async || fs::read_to_string(directory.path().join("written")).ok()).await;
        dies_and_comes_back(&exporter, directory.path()).await;
        assert_eq!(restarts(&exporter).await, 1);
        ends_well(exporter).await;
        fs::remove_file(directory.path().join("written")).unwrap();
    }
}
