//! `--web.systemd-socket`: sockets that somebody else has opened.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use super::site::users;
use crate::world::{BINARY, Foreign, get, request_unix, run_to_end};

/// Opens a TCP socket and, if a path is given, a Unix socket with mode 0666, passes them as systemd does, and becomes the
/// program of the arguments, in which `PORT` stands for the port of the first.
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
program = [word.replace("PORT", str(sockets[0].getsockname()[1])) for word in program]
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

// What systemd passes is served instead of the default address: TCP and Unix sockets, by the rules of TCP.
#[tokio::test]
async fn sockets_that_were_passed_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, web) = (folder.path().join("socket"), folder.path().join("web.yml"));
    std::fs::write(&web, users()).unwrap();
    let path = socket.to_str().unwrap();
    let mut exporter = activated(path, "tcp", &[&format!("--web.config.file={}", web.display()), "--log.level=debug"]);
    let address = exporter.address().await;
    exporter.line_with(&format!("msg=\"Listening on\" address=unix:{path}")).await;
    exporter.line_with(&format!("msg=\"open the page\" url=http://{address}/")).await;
    exporter.line_with(&format!("msg=\"commands reach this socket with --url\" url=unix:{path}")).await;
    assert_eq!(get(address, "/-/healthy").await.status, 401);
    assert_eq!(request_unix(&socket, "GET", "/-/healthy").await.unwrap().status, 401);
    std::fs::write(&web, users() + "\n").unwrap();
    exporter.signal(Signal::TERM);
    let (status, log) = exporter.ended().await;
    let listening = log.iter().filter(|line| line.contains("msg=\"Listening on\"")).count();
    assert_eq!((status.code(), listening), (Some(0), 2), "the default address is not listened on: {log:?}");
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
        // Another user is a stranger though the mode lets everyone in. This needs to be root.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let user = ["--reuid=64322", "--regid=64322", "--clear-groups", "curl", "-sS", "-o", "/dev/null"];
        let ask = ["-w", "%{http_code}", "-X", "POST", "http://localhost/-/reload", "--unix-socket"];
        let output = Command::new("setpriv").args(user).args(ask).arg(&socket).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "403", "{}", String::from_utf8_lossy(&output.stderr));
        drop(exporter);
        std::fs::remove_file(&socket).unwrap();
    }
}

// Addresses that are given are listened on as well, of both kinds and as many as there are. A `unix:` address is ours, so that
// orders are taken there.
#[tokio::test]
async fn addresses_that_are_given_are_listened_on_beside_the_sockets() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let unix = ["one", "two"].map(|name| format!("--web.listen-address=unix:{}", path(name).display()));
    let tcp = "--web.listen-address=127.0.0.1:0";
    let passed = path("passed");
    let mut exporter = activated(passed.to_str().unwrap(), "tcp", &[&unix[0], tcp, &unix[1], tcp]);
    let mut addresses = Vec::new();
    for _ in 0..3 {
        addresses.push(exporter.address().await);
        // The sockets are first.
        if addresses.len() == 1 {
            exporter.line_with(&format!("address=unix:{}", passed.display())).await;
        }
    }
    exporter
        .line_with(&format!("msg=\"commands reach this socket with --url\" url=unix:{}", path("two").display()))
        .await;
    for address in addresses {
        assert_eq!(get(address, "/-/healthy").await.status, 200);
    }
    for (name, status) in [("one", 409), ("two", 409), ("passed", 403)] {
        assert_eq!(request_unix(&path(name), "POST", "/-/reload").await.unwrap().status, status, "{name}");
    }
}

// A unit file may name the address of its socket as well; one that somebody else has is an error.
#[tokio::test]
async fn an_address_that_a_socket_has_already_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let own = format!("--web.listen-address=unix:{}", socket.display());
    let mut exporter = activated(socket.to_str().unwrap(), "tcp", &[&own, "--web.listen-address=127.0.0.1:PORT"]);
    let address = exporter.address().await;
    exporter.line_with(&format!("url=unix:{}", socket.display())).await;
    assert_eq!(get(address, "/-/healthy").await.status, 200);
    assert_eq!(request_unix(&socket, "GET", "/-/healthy").await.unwrap().status, 200);

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("--web.listen-address={}", taken.local_addr().unwrap());
    let (status, log) = activated("", "tcp", &[&address]).ended().await;
    assert_eq!(status.code(), Some(1));
    assert!(log.last().unwrap().contains("Address already in use"), "{log:?}");
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
