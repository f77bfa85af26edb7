//! Where Erlang nodes come in.

use std::net::SocketAddr;
use std::path::Path;

use tokio::net::TcpListener;

use super::{Error, Exporter};
use crate::beam::Socket;
use crate::http::{self, Listener, SocketFile};
use crate::resources;

impl Exporter {
    /// Listens for the agents of Erlang nodes on a TCP address, from now on. Returns the address, which is of use if port 0
    /// was asked for.
    ///
    /// # Errors
    /// [`Error::Bind`]; [`Error::NoToken`] if the address is beyond loopback and there is no token file.
    pub async fn listen_for_nodes(&self, address: SocketAddr) -> Result<SocketAddr, Error> {
        if !address.ip().is_loopback() && !self.beam.has_token() {
            return Err(Error::NoToken { address: address.to_string() });
        }
        let bind = |error| Error::Bind { address: address.to_string(), error };
        let listener = TcpListener::bind(address).await.map_err(bind)?;
        resources::set_backlog(&listener).map_err(bind)?;
        let bound = listener.local_addr().map_err(bind)?;
        self.serve_nodes(Socket::Tcp(listener), bound.to_string(), None);
        Ok(bound)
    }

    /// Listens for the agents of Erlang nodes on a Unix socket that only this user can open (mode 0600), from now on. Whoever
    /// can open it needs no token. A socket that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// [`Error::Bind`], also if something answers there, or if the path is no socket.
    pub async fn listen_for_nodes_unix(&self, path: &Path) -> Result<(), Error> {
        let address = format!("unix:{}", path.display());
        let bind = |error| Error::Bind { address: address.clone(), error };
        match http::bind_unix(path).await.map_err(bind)? {
            Listener::Tcp(listener) => self.serve_nodes(Socket::Tcp(listener), address, None),
            Listener::Unix(listener, file) => self.serve_nodes(Socket::Unix(listener), address, file),
        }
        Ok(())
    }

    fn serve_nodes(&self, socket: Socket, address: String, file: Option<SocketFile>) {
        tracing::info!(address, "Listening for nodes on");
        let beam = self.beam.clone();
        let mut stop = self.stop.subscribe();
        self.listeners.lock().spawn(async move {
            // An exporter that is dropped stops as well.
            beam.serve(socket, async { drop(stop.wait_for(|stop| *stop).await) }).await;
            drop(file);
        });
    }
}
