//! Where connections come from: TCP, or a Unix socket.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::server::TlsStream;

use super::access::Ends;
use crate::resources;

/// A socket that is listened on.
#[derive(Debug)]
pub enum Listener {
    /// A TCP address.
    Tcp(TcpListener),
    /// A Unix socket; its file, if it is ours, is removed with it.
    Unix(UnixListener, Option<SocketFile>),
}

/// The file of a Unix socket, removed when dropped.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

/// A connection.
pub(super) enum Connection {
    Tcp(TcpStream),
    /// Over a socket whose file is ours, or not.
    Unix(UnixStream, bool),
    /// One of the others, encrypted.
    Tls(Box<TlsStream<Connection>>),
}

/// Listens on a Unix socket with mode 0600. A socket that nobody listens on any more is replaced.
///
/// # Errors
/// If something answers there, if the path is something other than a socket, or if the system refuses.
pub async fn bind_unix(path: &Path) -> io::Result<Listener> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
        }
        Ok(_) if UnixStream::connect(path).await.is_ok() => return Err(io::ErrorKind::AddrInUse.into()),
        Ok(_) => std::fs::remove_file(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // Bound under another name first: between bind and chmod the socket is open to others.
    let private = path.with_extension(format!("{}.new", std::process::id()));
    let listener = UnixListener::bind(&private)?;
    let file = SocketFile(private);
    resources::set_backlog(&listener)?;
    std::fs::set_permissions(&file.0, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&file.0, path)?;
    Ok(Listener::Unix(listener, Some(SocketFile(path.into()))))
}

impl Listener {
    /// Where it listens: `host:port`, or `unix:PATH`.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn address(&self) -> io::Result<String> {
        match self {
            Listener::Tcp(listener) => Ok(listener.local_addr()?.to_string()),
            Listener::Unix(_, Some(file)) => Ok(format!("unix:{}", file.0.display())),
            Listener::Unix(listener, None) => {
                let address = listener.local_addr()?;
                Ok(format!("unix:{}", address.as_pathname().unwrap_or(Path::new("")).display()))
            }
        }
    }

    pub(super) async fn accept(&self) -> io::Result<Connection> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // A small answer should leave at once, not wait for more.
                let _ = stream.set_nodelay(true);
                Ok(Connection::Tcp(stream))
            }
            Listener::Unix(listener, file) => Ok(Connection::Unix(listener.accept().await?.0, file.is_some())),
        }
    }
}

impl Connection {
    /// Its two ends.
    pub(super) fn ends(&self) -> Ends {
        match self {
            Connection::Tcp(stream) => match (stream.peer_addr(), stream.local_addr()) {
                (Ok(peer), Ok(local)) => Ends::Tcp { peer, local },
                _ => Ends::Unknown,
            },
            Connection::Unix(_, true) => Ends::Unix,
            Connection::Unix(stream, false) => {
                stream.peer_cred().map_or(Ends::Unknown, |peer| Ends::PassedUnix { uid: peer.uid() })
            }
            Connection::Tls(stream) => stream.get_ref().0.ends(),
        }
    }

    /// Whether the first byte that comes begins a request in plain HTTP. Where nobody can look ahead, it does not.
    pub(super) async fn speaks_plainly(&self) -> bool {
        let Connection::Tcp(stream) = self else { return false };
        let mut first = [0];
        matches!(stream.peek(&mut first).await, Ok(1)) && first[0].is_ascii_uppercase()
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Listener::Tcp(listener)
    }
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Self {
        Listener::Unix(listener, None)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connection::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Connection::Unix(stream, _) => Pin::new(stream).poll_read(cx, buf),
            Connection::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Connection::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Connection::Unix(stream, _) => Pin::new(stream).poll_write(cx, bytes),
            Connection::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connection::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Connection::Unix(stream, _) => Pin::new(stream).poll_flush(cx),
            Connection::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connection::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Connection::Unix(stream, _) => Pin::new(stream).poll_shutdown(cx),
            Connection::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Connection::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Connection::Unix(stream, _) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Connection::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, bufs),
        }
    }
}
