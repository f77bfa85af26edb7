//! `--web.systemd-socket`: sockets that somebody else has opened.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::process::Signal;

use super::site::users;
use crate::world::{BINARY, Foreign, get, request_unix, run_to_end};

/// Opens a TCP socket and, if a path is given, a Unix socket with mode 0666, passes them as systemd does, and becomes the
/// program of the arguments.
const ACTIVATE: &str = r#"
import os, socket, sys
path, kind, program = sys.argv[1], sys.argv[2], sys.argv[3:]
sockets = []
if kind == "udp":
    sockets.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sockets[0].bind(("127.0.0.1", 0))
else:
    sockets.append(socket.socket())
    sockets[0].bind(("127.0.0.1", 0))
    if kind != "deaf":
        sockets[0].listen()
if path:
    sockets.append(socket.socket(socket.AF_UNIX))
    sockets[1].bind(path)
    os.chmod(path, 0o666)
    sockets[1].listen()
held = [os.dup(each.fileno()) for each in sockets]
held = [os.dup2(each, 50 + index) for index, each in enumerate(held)]
for index, each in enumerate(held):
    os.dup2(each, 3 + index, inheritable=True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(held)))
os.execv(program[0], program)
"#;

fn activated(path: &str, kind: &str, arguments: &[&str]) -> Foreign {
    Foreign::start(
        "python3",
        &[&["-c", ACTIVATE, path, kind, BINARY, "run", "--web.systemd-socket"], arguments].concat(),
    )
}

// What systemd passes is served instead of an address of our own: TCP and Unix sockets, by the rules of TCP.
#[tokio::test]
async fn sockets_that_were_passed_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, web) = (folder.path().join("socket"), folder.path().join("web.yml"));
    std::fs::write(&web, users()).unwrap();
    let (path, taken) = (socket.to_str().unwrap(), std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    // Not tried at all, so that it is taken is no error.
    let address = format!("--web.listen-address={}", taken.local_addr().unwrap());
    let mut exporter =
        activated(path, "tcp", &[&address, &format!("--web.config.file={}", web.display()), "--log.level=debug"]);
    let address = exporter.address().await;
    exporter.line_with(&format!("msg=\"Listening on\" address=unix:{path}")).await;
    exporter.line_with(&format!("msg=\"open the page\" url=http://{address}/")).await;
    exporter.line_with(&format!("msg=\"commands reach this socket with --url\" url=unix:{path}")).await;
    assert_eq!(get(address, "/-/healthy").await.status, 401);
    assert_eq!(request_unix(&socket, "GET", "/-/healthy").await.unwrap().status, 401);
    std::fs::write(&web, users() + "\n").unwrap();
    exporter.signal(Signal::TERM);
    assert_eq!(exporter.ended().await.0.code(), Some(0));
    let mode = std::fs::metadata(Path::new(path)).expect("the file is systemd's").permissions().mode();
    assert_eq!(mode & 0o777, 0o666, "its mode is systemd's");
}

// A Unix socket of others is open to whom they say, so it changes nothing unless the operator opens that.
#[tokio::test]
async fn the_admin_api_is_closed_over_sockets_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    for (flags, status) in [(&[][..], 403), (&["--web.enable-admin-api"][..], 409)] {
        let mut exporter = activated(socket.to_str().unwrap(), "tcp", flags);
        exporter.line_with("msg=\"Listening on\" address=unix:").await;
        assert_eq!(request_unix(&socket, "POST", "/-/reload").await.unwrap().status, status);
        drop(exporter);
        std::fs::remove_file(&socket).unwrap();
    }
}

// No socket, or one that cannot be served, is an error that says so.
#[tokio::test]
async fn a_socket_that_cannot_be_served_is_named() {
    let none = run_to_end(&["run", "--web.systemd-socket"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(none.stderr.contains("err=\"no socket activation file descriptors found\""), "{}", none.stderr);
    for (kind, why) in [("udp", "neither a TCP socket nor"), ("deaf", "it does not listen")] {
        let (status, log) = activated("", kind, &[]).ended().await;
        assert_eq!(status.code(), Some(1));
        assert!(log.last().unwrap().contains(&format!("socket activation file descriptor 3: {why}")), "{log:?}");
    }
}
