//! The HTTP/1.1 server of every TCP listener of the agent: metrics, TCP Connection Requests, and the HTTP interface of
//! the ACS. It limits the resources that clients can use (SEC-8).
//!
//! | module | purpose |
//! | --- | --- |
//! | `places` | limits of concurrent connections: in total, per source, and separately for event streams |
//! | `timed` | deadlines of a connection: for request headers, for idle time, and for reading a response |
//!
//! A new connection is always accepted. If the limit is reached, the least valuable connection is closed, so that any
//! number of silent clients cannot keep others out.

mod places;
mod timed;

use std::{
    convert::Infallible,
    error::Error,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::{
    Request, Response,
    body::{Body, Frame, Incoming, SizeHint},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::yield_now,
    time::sleep,
};

pub use self::places::Full;
use self::{
    places::{Answering, Places},
    timed::Timed,
};
use crate::telemetry::Connections;

/// Pause after `accept` failed, for example because no file descriptor is left.
const PAUSE: Duration = Duration::from_millis(100);

/// Limits of a listener.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Concurrent connections, without event streams.
    pub connections: usize,
    /// Concurrent connections per source of clients that are not authenticated.
    pub per_source: usize,
    /// Concurrent event streams.
    pub streams: usize,
    /// Concurrent event streams per source.
    pub streams_per_source: usize,
    /// How long a new connection may be silent before it can be closed in favour of another.
    pub grace: Duration,
    /// Timeout for the headers of a request, and with TLS for the handshake before the first one.
    pub headers: Duration,
    /// How long a connection may be idle between two requests.
    pub idle: Duration,
    /// How long a client may read nothing of its response.
    pub stall: Duration,
    /// Greatest size of the headers of a request in bytes; at least 8192.
    pub header_bytes: usize,
}

/// The transport of a connection.
#[derive(Clone)]
pub enum Transport {
    /// TCP without encryption.
    Plain,
    /// TLS.
    #[cfg(feature = "acs")]
    Tls(tokio_rustls::TlsAcceptor),
}

/// The connection of a request.
#[derive(Clone, Debug)]
pub struct Visit {
    places: Arc<Places>,
    number: u64,
    /// Address and port of the client.
    pub from: SocketAddr,
}

impl Visit {
    /// Sets whether the client is authenticated. The connection of an authenticated client is never displaced during a
    /// request, and between requests only if all other connections are authenticated too.
    pub fn set_trusted(&self, is_trusted: bool) {
        self.places.set_trusted(self.number, is_trusted);
    }

    /// Turns the connection into an event stream, which counts against the limits of streams until it ends.
    pub fn stream(&self) -> Result<(), Full> {
        self.places.stream(self.number)
    }
}

/// A listener with limits.
pub struct Server {
    listener: TcpListener,
    transport: Transport,
    limits: Limits,
    counts: Connections,
}

impl Server {
    /// Creates a server for `listener` with these `limits`. Connections are counted in `counts`.
    pub fn new(listener: TcpListener, transport: Transport, limits: Limits, counts: Connections) -> Self {
        Self { listener, transport, limits, counts }
    }

    /// Serves requests until the agent ends. `answer` receives each request with its connection.
    pub async fn serve<A, R, B>(self, answer: A)
    where
        A: Fn(Request<Incoming>, &Visit) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Response<B>> + Send,
        B: Body + Send + Unpin + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let Self { listener, transport, limits, counts } = self;
        let places = Arc::new(Places::new(limits));
        loop {
            let (stream, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a TCP connection");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            counts.accepted.inc();
            let (place, displaced) = places.admit(from.ip()).await;
            let visit = Visit { places: Arc::clone(&places), number: place.number(), from };
            let conversation = Conversation { visit, limits, counts: counts.clone(), answer: answer.clone() };
            let (transport, counts) = (transport.clone(), counts.clone());
            tokio::spawn(async move {
                tokio::select! {
                    ended = conversation.hold(stream, transport) => if let Err(error) = ended {
                        tracing::debug!(%from, %error, "TCP connection failed");
                    },
                    () = displaced => {
                        counts.displaced.inc();
                        tracing::debug!(%from, "TCP connection closed in favour of another one");
                    }
                }
                // The place becomes free after the connection is closed.
                drop(place);
            });
        }
    }
}

/// A connection with the function that answers its requests.
struct Conversation<A> {
    visit: Visit,
    limits: Limits,
    counts: Connections,
    answer: A,
}

impl<A, R, B> Conversation<A>
where
    A: Fn(Request<Incoming>, &Visit) -> R,
    R: Future<Output = Response<B>>,
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    async fn hold(self, stream: TcpStream, transport: Transport) -> io::Result<()> {
        stream.set_nodelay(true)?;
        // A client that vanished acknowledges nothing, and a response can fit into the kernel's buffer, so writing
        // would not time out.
        SockRef::from(&stream).set_tcp_user_timeout(Some(self.limits.stall))?;
        let stream = Timed::new(stream, self.visit.clone(), self.limits, self.counts.timed_out.clone());
        match transport {
            Transport::Plain => self.speak(stream).await,
            #[cfg(feature = "acs")]
            Transport::Tls(tls) => self.speak(tls.accept(stream).await?).await,
        }
    }

    async fn speak(self, stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
        let this = &self;
        let answer = service_fn(move |request| async move {
            let answering = this.visit.places.answer(this.visit.number);
            // Pipelined requests are answered after those of other connections.
            yield_now().await;
            let response = (this.answer)(request, &this.visit).await;
            Ok::<_, Infallible>(response.map(|body| Answered { body, _answering: answering }))
        });
        let mut http = http1::Builder::new();
        // The deadlines are those of the stream. hyper polls an idle connection, and so its deadline, only if it has a
        // read timeout itself.
        let longer = self.limits.idle + self.limits.headers;
        http.timer(TokioTimer::new()).header_read_timeout(longer).max_buf_size(self.limits.header_bytes);
        http.serve_connection(TokioIo::new(stream), answer).await.map_err(io::Error::other)
    }
}

/// The body of a response. The connection becomes idle when the body is dropped.
struct Answered<B> {
    body: B,
    _answering: Answering,
}

impl<B: Body + Unpin> Body for Answered<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
