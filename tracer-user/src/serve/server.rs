//! Connections and their bounds.

use super::{
    access::{self, Rules},
    answer::{Answer, Served, answer},
    route::{Route, RouteError},
};
use crate::host::privileges;
use flate2::{Compression, write::GzEncoder};
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
use tokio_io_timeout::TimeoutStream;

/// Connections at once; further ones wait to be accepted.
const MOST_CONNECTIONS: usize = 64;
/// Answers that are made or being sent at once: they are what takes memory.
const MOST_ANSWERS: usize = 8;
/// Bytes of an answer that are given to a connection at once.
const PIECE: usize = 64 << 10;
/// Questions about the next seconds that wait for them at once.
const MOST_SLEEPERS: usize = 4;
/// Longest wait for one of these.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Longest time for the head of a request, and between two requests.
const HEAD: Duration = Duration::from_secs(5);
/// Who takes nothing of an answer for so long gets no more of it.
const DEAF: Duration = Duration::from_secs(10);
/// Bytes of a request's head.
const MOST_HEAD_BYTES: usize = 8 << 10;
/// Lines of a request's head.
const MOST_HEADERS: usize = 64;
/// A connection lasts that long, whatever is done with it: whoever does not read gives back what it holds.
const LIFETIME: Duration = Duration::from_secs(120);
/// And so much longer what was asked for in it.
const LAST_ANSWER: Duration = Duration::from_secs(90);
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
    sleepers: Arc<Semaphore>,
    hosts: Vec<String>,
    token: RwLock<Option<String>>,
}

async fn serve(listeners: Listeners, served: Arc<Served>) -> io::Result<()> {
    let (file, token) = listeners.token.unzip();
    let shared = Arc::new(Shared {
        served,
        answers: Arc::new(Semaphore::new(MOST_ANSWERS)),
        sleepers: Arc::new(Semaphore::new(MOST_SLEEPERS)),
        hosts: listeners.hosts,
        token: RwLock::new(token),
    });
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
        // Whoever fills the port does not keep this host's own programs out.
        let connections = Arc::new(Semaphore::new(MOST_CONNECTIONS));
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
                say("the token was read again");
            }
            Err(error) => say(&format!("the old token stays: {error}")),
        }
    }
}

/// Says something where somebody reads it: a terminal that is gone is no reason to end.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "memtrail: {text}");
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
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(DEAF));
    let service = service_fn(move |request| {
        let (shared, rules) = (Arc::clone(&shared), Arc::clone(&rules));
        async move { Ok::<_, Infallible>(respond(&shared, &rules, &request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(MOST_HEAD_BYTES)
        .max_headers(MOST_HEADERS)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    let mut connection = std::pin::pin!(connection);
    let mut ended = tokio::time::timeout(LIFETIME, connection.as_mut()).await;
    if ended.is_err() {
        connection.as_mut().graceful_shutdown();
        ended = tokio::time::timeout(LAST_ANSWER, connection).await;
    }
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => log::debug!("a connection ended: {error}"),
        Err(_) => log::debug!("a connection lasted too long"),
    }
}

/// A body that is given out piece by piece, and holds its place among the answers until the last piece is on its way: who does not read keeps
/// others from being made, and no more than so many are in memory.
struct Held {
    rest: Bytes,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Body for Held {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let length = self.rest.len().min(PIECE);
        Poll::Ready((length > 0).then(|| Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

async fn respond(shared: &Shared, rules: &Rules, request: &Request<Incoming>) -> Response<Held> {
    let uri = request.uri();
    let authority = uri.authority().map(hyper::http::uri::Authority::as_str);
    let is_open = uri.path() == "/healthz";
    if let Err(refusal) = access::check(rules, request.method(), authority, request.headers(), is_open) {
        shared.served.count("(refused)", refusal.status);
        return response(request, Answer::refusal(refusal.status, refusal.text), None).await;
    }
    let route = match Route::parse(uri.path(), uri.query().unwrap_or_default()) {
        Ok(route) => route,
        Err(error) => {
            let status = if error == RouteError::Unknown { StatusCode::NOT_FOUND } else { StatusCode::BAD_REQUEST };
            shared.served.count("(unknown)", status);
            return response(request, Answer::refusal(status, &error.to_string()), None).await;
        }
    };
    let name = route.name();
    // What costs nothing is answered however much else is asked for; what waits for its seconds keeps nobody else waiting.
    let turns = if route.waits() { &shared.sleepers } else { &shared.answers };
    let permit = match route.is_light() {
        true => None,
        false => match tokio::time::timeout(LONGEST_WAIT, Arc::clone(turns).acquire_owned()).await {
            Ok(Ok(permit)) => Some(permit),
            Ok(Err(_)) | Err(_) => {
                shared.served.count(name, StatusCode::SERVICE_UNAVAILABLE);
                let refusal = Answer::refusal(StatusCode::SERVICE_UNAVAILABLE, "too many answers are being made");
                return response(request, refusal, None).await;
            }
        },
    };
    let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let answer = answer(&shared.served, route, accept).await;
    shared.served.count(name, answer.status);
    response(request, answer, permit).await
}

async fn response(request: &Request<Incoming>, answer: Answer, permit: Option<OwnedSemaphorePermit>) -> Response<Held> {
    let takes_gzip = request.headers().get(header::ACCEPT_ENCODING).is_some_and(|value| takes_gzip(value.as_bytes()));
    let mut body = Bytes::from(answer.body);
    let mut is_compressed = false;
    if takes_gzip && !answer.is_packed && body.len() >= LEAST_TO_COMPRESS {
        let plain = body.clone();
        if let Ok(Some(packed)) = tokio::task::spawn_blocking(move || gzip(&plain)).await {
            (body, is_compressed) = (Bytes::from(packed), true);
        }
    }
    let mut response = Response::new(Held { rest: body, _permit: permit });
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
    // Who may not ask keeps no connection.
    if [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::MISDIRECTED_REQUEST].contains(&answer.status) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
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
