//! Asking another memtrail: by the socket of one on this host, or by an address.

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, StatusCode, Uri, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use std::{path::Path, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};

/// Longest for one answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Largest answer that is read.
const MOST_BYTES: usize = 256 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address cannot be asked.
    #[error("{0}: an address is http://HOST:PORT")]
    Address(String),
    /// Nobody is there.
    #[error("{0}: {1}")]
    Connect(String, std::io::Error),
    /// The connection broke.
    #[error("{0}: {1}")]
    Http(String, hyper::Error),
    /// The answer is none: its status and first line.
    #[error("{0} answers {1}: {2}")]
    Status(String, StatusCode, String),
    /// It is too long, or broke off.
    #[error("{0}: the answer is not whole, or too long")]
    Body(String),
    /// It takes too long.
    #[error("{0} does not answer")]
    Late(String),
}

/// Asks an address, such as `http://127.0.0.1:9774`, for a path.
///
/// # Errors
/// Why there is no answer.
pub async fn get(address: &str, path: &str, token: Option<&str>) -> Result<Bytes, ClientError> {
    let wrong = || ClientError::Address(address.to_owned());
    let uri: Uri = address.parse().map_err(|_| wrong())?;
    let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http")).ok_or_else(wrong)?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let connecting = TcpStream::connect((host, authority.port_u16().unwrap_or(80)));
    let stream = within(address, connecting).await?.map_err(|error| ClientError::Connect(address.to_owned(), error))?;
    ask(stream, address, authority.as_str(), path, token).await
}

/// The same by a socket.
///
/// # Errors
/// As [`get`].
pub async fn get_by_socket(socket: &Path, path: &str) -> Result<Bytes, ClientError> {
    let name = socket.display().to_string();
    let stream = within(&name, UnixStream::connect(socket)).await?.map_err(|error| ClientError::Connect(name.clone(), error))?;
    ask(stream, &name, "localhost", path, None).await
}

async fn within<T>(name: &str, future: impl Future<Output = T>) -> Result<T, ClientError> {
    tokio::time::timeout(PATIENCE, future).await.map_err(|_| ClientError::Late(name.to_owned()))
}

async fn ask<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    name: &str,
    host: &str,
    path: &str,
    token: Option<&str>,
) -> Result<Bytes, ClientError> {
    let broke = |error| ClientError::Http(name.to_owned(), error);
    let (mut sender, connection) = within(name, http1::handshake(TokioIo::new(stream))).await?.map_err(broke)?;
    // It ends with the sender; what breaks it is told by the answer.
    let driving = tokio::spawn(connection);
    let mut request = Request::builder().uri(path).header(header::HOST, host);
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|_| ClientError::Address(name.to_owned()))?;
    let answer = within(name, sender.send_request(request)).await?.map_err(broke)?;
    let status = answer.status();
    let body = within(name, Limited::new(answer.into_body(), MOST_BYTES).collect())
        .await?
        .map_err(|_| ClientError::Body(name.to_owned()))?
        .to_bytes();
    driving.abort();
    if status != StatusCode::OK {
        let line = String::from_utf8_lossy(&body[..body.len().min(200)]).lines().next().unwrap_or_default().to_owned();
        return Err(ClientError::Status(name.to_owned(), status, crate::text::escape(&line)));
    }
    Ok(body)
}
