//! The HTTP/1.1 server behind every TCP listener of the agent: metrics, TCP Connection Requests, and the interface of the
//! ACS. Here, and nowhere else, is decided what clients may take of the agent (SEC-8).
//!
//! | module | does |
//! | --- | --- |
//! | `places` | connections at a time: in all, of one source, and event streams, which have places of their own |
//! | `timed` | deadlines of a connection: for the headers of a request, for rest, and for taking an answer |
//!
//! A newcomer is always let in. Where there is no place, the connection that is worth least gives way, so clients that
//! are silent keep nobody else out, however many they are.

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

/// Pause after the kernel had no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// What clients of a listener get at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time, without event streams.
    pub connections: usize,
    /// Connections at a time of one source that did not prove who it is.
    pub per_source: usize,
    /// Event streams at a time.
    pub streams: usize,
    /// Event streams at a time of one source.
    pub streams_per_source: usize,
    /// How long a new connection may be silent before it gives way to others.
    pub grace: Duration,
    /// How long the headers of a request may take, and with TLS the handshake before the first.
    pub headers: Duration,
    /// How long a connection may rest between two requests.
    pub idle: Duration,
    /// How long a client may take nothing of its answer.
    pub stall: Duration,
    /// Bytes of the headers of a request; at least 8192.
    pub header_bytes: usize,
}

/// How bytes travel.
#[derive(Clone)]
pub enum Transport {
    /// As they are.
    Plain,
    /// By TLS.
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
    /// Says whether the client proved who it is. The connection of one who did is never displaced while a request of it
    /// is answered, and between two requests only where no stranger is left.
    pub fn set_trusted(&self, is_trusted: bool) {
        self.places.set_trusted(self.number, is_trusted);
    }

    /// Gives the connection the place of an event stream, for as long as it lasts.
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
    /// Serves the clients of `listener` within `limits`, and counts them.
    pub fn new(listener: TcpListener, transport: Transport, limits: Limits, counts: Connections) -> Self {
        Self { listener, transport, limits, counts }
    }

    /// Answers requests, and tells of each from where it is, until the agent ends.
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
                    tracing::debug!(%error, "a TCP connection was not accepted");
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
                        tracing::debug!(%from, %error, "a TCP connection broke off");
                    },
                    () = displaced => {
                        counts.displaced.inc();
                        tracing::debug!(%from, "a TCP connection gave way to another one");
                    }
                }
                // Last, when the connection is closed.
                drop(place);
            });
        }
    }
}

/// One connection, and what answers on it.
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
        // Clients that vanished acknowledge nothing, and what is sent to them fits the kernel's buffer for long.
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
            // Requests that are sent in a row take their turn after those of other connections.
            yield_now().await;
            let response = (this.answer)(request, &this.visit).await;
            Ok::<_, Infallible>(response.map(|body| Answered { body, _answering: answering }))
        });
        let mut http = http1::Builder::new();
        // The deadlines are those of the stream. hyper reads from a connection that rests, and so comes to them, only if it
        // has one itself.
        let longer = self.limits.idle + self.limits.headers;
        http.timer(TokioTimer::new()).header_read_timeout(longer).max_buf_size(self.limits.header_bytes);
        http.serve_connection(TokioIo::new(stream), answer).await.map_err(io::Error::other)
    }
}

/// The body of an answer. The connection rests from when it was taken.
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
