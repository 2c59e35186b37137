//! The listener and its connections.

use super::call::answer_call;
use super::core::Core;
use super::endpoints;
use super::reply_body::ReplyBody;
use super::wire::{Tear, Wire};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;

/// Connections that may wait to be accepted: thousands of clients connect at once.
const BACKLOG: u32 = 4096;

/// Binds the address. Must be called within a runtime.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Connections of an earlier run that linger in TIME_WAIT do not occupy the port; a live listener does.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until told to stop; dropping the runtime then ends the connections.
pub(crate) async fn serve(core: Arc<Core>, listener: TcpListener, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                tokio::spawn(connection(Arc::clone(&core), stream));
            }
            // The process is out of file descriptors, or a client left before it was accepted: neither ends the server.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn connection(core: Arc<Core>, stream: TcpStream) {
    // Without this, small answers wait for the client's acknowledgement. If it fails, only speed is lost.
    let _ = stream.set_nodelay(true);
    let tear = Tear::default();
    let wire = TokioIo::new(Wire::new(stream, tear.clone()));
    let service = service_fn(move |request| route(Arc::clone(&core), request, tear.clone()));
    // An error means that a client went away, or that a fault was asked for: the ledger has it.
    let _ = http1::Builder::new().pipeline_flush(true).serve_connection(wire, service).await;
}

async fn route(core: Arc<Core>, request: Request<Incoming>, tear: Tear) -> io::Result<Response<ReplyBody>> {
    let path = request.uri().path();
    let name = path[1.min(path.len())..].split('/').next().unwrap_or_default();
    if name == "_sim" {
        let rest = path["/_sim".len()..].trim_start_matches('/');
        return Ok(endpoints::answer(&core, request.method(), rest, request.uri().query()));
    }
    match core.providers.iter().position(|(known, _)| known == name) {
        Some(provider) if request.method() == Method::GET && &path[1 + name.len()..] == "/health" => {
            Ok(endpoints::health(&core, provider))
        }
        Some(provider) => {
            let name_length = name.len();
            answer_call(core, provider, name_length, request, tear).await
        }
        None => Ok(endpoints::unknown_provider(&core)),
    }
}
