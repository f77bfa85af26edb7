//! Sockets that whoever started us has opened, as systemd passes them: `LISTEN_FDS` of them from descriptor 3 on.

use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;

use listenfd::ListenFd;
use restart_exporter::http::Listener;
use rustix::net::sockopt::socket_acceptconn;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A socket that was passed.
pub(crate) enum Passed {
    Tcp(std::net::TcpListener),
    Unix(UnixListener),
}

/// Takes all sockets that were passed. They are closed in our children, and the variables that tell of them are removed;
/// so call it before there is a second thread.
///
/// # Errors
/// If there are none, or one is no stream socket that listens.
pub(crate) fn passed() -> Result<Vec<Passed>, BoxError> {
    let mut descriptors = ListenFd::from_env();
    let sockets: Result<Vec<_>, BoxError> = (0..descriptors.len()).map(|index| take(&mut descriptors, index)).collect();
    let sockets = sockets?;
    if sockets.is_empty() {
        return Err("no socket activation file descriptors found".into());
    }
    Ok(sockets)
}

fn take(descriptors: &mut ListenFd, index: usize) -> Result<Passed, BoxError> {
    let wrong = |why: &dyn std::fmt::Display| format!("socket activation file descriptor {}: {why}", index + 3);
    let socket = match descriptors.take_unix_listener(index) {
        Ok(Some(socket)) => Passed::Unix(socket),
        _ => match descriptors.take_tcp_listener(index) {
            Ok(Some(socket)) => Passed::Tcp(socket),
            Ok(None) => return Err(wrong(&"taken already").into()),
            Err(_) => return Err(wrong(&"neither a TCP socket nor a Unix stream socket").into()),
        },
    };
    let descriptor = match &socket {
        Passed::Tcp(socket) => socket.as_fd(),
        Passed::Unix(socket) => socket.as_fd(),
    };
    match socket_acceptconn(descriptor) {
        Ok(true) => Ok(socket),
        _ => Err(wrong(&"it does not listen (Accept=yes is not supported)").into()),
    }
}

impl Passed {
    /// For the runtime.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn listener(self) -> std::io::Result<Listener> {
        match self {
            Passed::Tcp(socket) => {
                socket.set_nonblocking(true)?;
                Ok(tokio::net::TcpListener::from_std(socket)?.into())
            }
            Passed::Unix(socket) => {
                socket.set_nonblocking(true)?;
                Ok(tokio::net::UnixListener::from_std(socket)?.into())
            }
        }
    }
}
