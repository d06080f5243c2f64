//! Connections and their bounds.

use super::{
    access::{self, Rules},
    answer::{Answer, Served, answer},
    route::{Route, RouteError},
};
use crate::host::privileges;
use flate2::{Compression, write::GzEncoder};
use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::{Body, Bytes, Frame, Incoming, SizeHint},
    header::{self, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    io::{self, Write as _},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    pin::Pin,
    sync::{Arc, RwLock},
    task::{Context, Poll},
    thread::JoinHandle,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore},
};

/// Connections at once; further ones wait to be accepted.
const MOST_CONNECTIONS: usize = 64;
/// Answers that are made or being sent at once: they are what takes memory.
const MOST_ANSWERS: usize = 8;
/// Longest wait for one of these.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Longest time for the head of a request, and between two requests.
const HEAD: Duration = Duration::from_secs(5);
/// Bytes of a request's head.
const MOST_HEAD_BYTES: usize = 8 << 10;
/// Lines of a request's head.
const MOST_HEADERS: usize = 64;
/// A connection lasts that long, whatever is done with it: whoever does not read gives back what it holds.
const LIFETIME: Duration = Duration::from_secs(150);
/// Threads that make answers.
const MAKERS: usize = 2;
/// Shorter answers are not worth compressing.
const LEAST_TO_COMPRESS: usize = 1024;

/// Where it listens.
#[derive(Debug, Default)]
pub struct Listeners {
    /// Addresses.
    pub tcp: Vec<std::net::TcpListener>,
    /// A socket of the file system.
    pub unix: Option<std::os::unix::net::UnixListener>,
    /// Names by which it may be asked, besides those of loopback.
    pub hosts: Vec<String>,
    /// The token's file and what was in it; it is read again at SIGHUP.
    pub token: Option<(PathBuf, String)>,
}

/// Listens on an address.
///
/// # Errors
/// When it is taken or not this host's.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves on a thread of its own, to the end of the process. The thread gives up all capabilities first.
///
/// # Errors
/// When the thread or what it waits with cannot be made.
pub fn start(listeners: Listeners, served: Arc<Served>) -> io::Result<JoinHandle<()>> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(MAKERS).thread_name("memtrail-answer").build()?;
    std::thread::Builder::new().name("memtrail-http".to_owned()).spawn(move || {
        privileges::keep_only_or_warn(&[]);
        if let Err(error) = runtime.block_on(serve(listeners, served)) {
            log::error!("nothing is served any more: {error}");
        }
    })
}

/// What connections share.
struct Shared {
    served: Arc<Served>,
    answers: Arc<Semaphore>,
    hosts: Vec<String>,
    token: RwLock<Option<String>>,
}

async fn serve(listeners: Listeners, served: Arc<Served>) -> io::Result<()> {
    let (file, token) = listeners.token.unzip();
    let shared =
        Arc::new(Shared { served, answers: Arc::new(Semaphore::new(MOST_ANSWERS)), hosts: listeners.hosts, token: RwLock::new(token) });
    let connections = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut accepting = tokio::task::JoinSet::new();
    for listener in listeners.tcp {
        let listener = TcpListener::from_std(listener)?;
        accepting.spawn(accept(Arc::clone(&shared), Arc::clone(&connections), async move |shared| {
            let (stream, _) = listener.accept().await?;
            let rules = shared.rules(Some(stream.local_addr()?));
            Ok((stream, rules))
        }));
    }
    if let Some(listener) = listeners.unix {
        let listener = UnixListener::from_std(listener)?;
        accepting.spawn(accept(Arc::clone(&shared), connections, async move |shared| {
            let (stream, _) = listener.accept().await?;
            let rules = shared.rules(None);
            Ok((stream, rules))
        }));
    }
    let mut hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?;
    while hangup.recv().await.is_some() {
        shared.read_token_again(file.as_deref());
    }
    Ok(())
}

impl Shared {
    /// For one connection, to an address of this host unless it is by the socket. A token that was changed since holds for the next one.
    fn rules(&self, to: Option<SocketAddr>) -> Rules {
        let Some(to) = to else { return Rules::default() };
        let mut hosts = self.hosts.clone();
        // The very address that was asked is a name of ours, also where all addresses are listened on.
        hosts.push(match to.ip().to_canonical() {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        });
        Rules { hosts: Some(hosts), token: self.token.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone() }
    }

    fn read_token_again(&self, file: Option<&std::path::Path>) {
        let Some(file) = file else { return };
        match access::read_token(file) {
            Ok(token) => {
                *self.token.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(token);
                eprintln!("memtrail: the token was read again");
            }
            Err(error) => eprintln!("memtrail: the old token stays: {error}"),
        }
    }
}

/// Accepts for ever. A connection that cannot be accepted, for want of descriptors, is tried again a moment later.
async fn accept<S, A>(shared: Arc<Shared>, connections: Arc<Semaphore>, mut next: A)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: AsyncFnMut(&Shared) -> io::Result<(S, Rules)>,
{
    // Closed never.
    while let Ok(permit) = Arc::clone(&connections).acquire_owned().await {
        match next(&shared).await {
            Ok((stream, rules)) => {
                tokio::spawn(converse(stream, rules, Arc::clone(&shared), permit));
            }
            Err(error) => {
                log::debug!("a connection was not accepted: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    rules: Rules,
    shared: Arc<Shared>,
    _permit: OwnedSemaphorePermit,
) {
    let rules = Arc::new(rules);
    let service = service_fn(move |request| {
        let (shared, rules) = (Arc::clone(&shared), Arc::clone(&rules));
        async move { Ok::<_, Infallible>(respond(&shared, &rules, &request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(MOST_HEAD_BYTES)
        .max_headers(MOST_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(LIFETIME, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => log::debug!("a connection ended: {error}"),
        Err(_) => log::debug!("a connection lasted too long"),
    }
}

/// A body that holds its place among the answers until it is sent.
struct Held {
    body: Full<Bytes>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Body for Held {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

async fn respond(shared: &Shared, rules: &Rules, request: &Request<Incoming>) -> Response<Held> {
    let uri = request.uri();
    let authority = uri.authority().map(hyper::http::uri::Authority::as_str);
    let is_open = uri.path() == "/healthz";
    if let Err(refusal) = access::check(rules, request.method(), authority, request.headers(), is_open) {
        shared.served.count("(refused)", refusal.status);
        return response(request, Answer::refusal(refusal.status, refusal.text), None);
    }
    let route = match Route::parse(uri.path(), uri.query().unwrap_or_default()) {
        Ok(route) => route,
        Err(error) => {
            let status = if error == RouteError::Unknown { StatusCode::NOT_FOUND } else { StatusCode::BAD_REQUEST };
            shared.served.count("(unknown)", status);
            return response(request, Answer::refusal(status, &error.to_string()), None);
        }
    };
    let name = route.name();
    let Ok(Ok(permit)) = tokio::time::timeout(LONGEST_WAIT, Arc::clone(&shared.answers).acquire_owned()).await else {
        shared.served.count(name, StatusCode::SERVICE_UNAVAILABLE);
        return response(request, Answer::refusal(StatusCode::SERVICE_UNAVAILABLE, "too many answers are being made"), None);
    };
    let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let answer = answer(&shared.served, route, accept).await;
    shared.served.count(name, answer.status);
    response(request, answer, Some(permit))
}

fn response(request: &Request<Incoming>, answer: Answer, permit: Option<OwnedSemaphorePermit>) -> Response<Held> {
    let takes_gzip = request.headers().get(header::ACCEPT_ENCODING).is_some_and(|value| takes_gzip(value.as_bytes()));
    let compressed = (takes_gzip && !answer.is_packed && answer.body.len() >= LEAST_TO_COMPRESS).then(|| gzip(&answer.body)).flatten();
    let is_compressed = compressed.is_some();
    let body = Full::new(Bytes::from(compressed.unwrap_or(answer.body)));
    let mut response = Response::new(Held { body, _permit: permit });
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    let fixed = [
        (header::CONTENT_TYPE, answer.content_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, answer.trust.policy()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (header::VARY, "accept, accept-encoding"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if is_compressed {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    match answer.status {
        StatusCode::UNAUTHORIZED => headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
        StatusCode::METHOD_NOT_ALLOWED => headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD")),
        StatusCode::SERVICE_UNAVAILABLE => headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5")),
        // Bytes of a question that was not read would be taken for the next one.
        StatusCode::PAYLOAD_TOO_LARGE => headers.insert(header::CONNECTION, HeaderValue::from_static("close")),
        _ => None,
    };
    response
}

fn takes_gzip(accept: &[u8]) -> bool {
    accept.split(|byte| *byte == b',').any(|one| one.trim_ascii() == b"gzip" || one.trim_ascii().starts_with(b"gzip;q=1"))
}

/// `None` where it cannot be compressed, which does not occur in memory.
fn gzip(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).ok()?;
    encoder.finish().ok()
}
