//! Tests of the server with real sockets.

use std::future::ready;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout},
};

use super::*;
use crate::telemetry::Telemetry;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
/// More than any deadline in these tests.
const SOON: Duration = Duration::from_secs(10);
/// More than the kernel buffers of a response that is not read.
const LARGE: usize = 16 << 20;

const LIMITS: Limits = Limits {
    connections: 8,
    per_source: 4,
    streams: 1,
    streams_per_source: 1,
    grace: Duration::ZERO,
    headers: Duration::from_mins(1),
    idle: Duration::from_mins(1),
    stall: Duration::from_mins(1),
    header_bytes: 8_192,
};

struct Host {
    address: SocketAddr,
    counts: Connections,
}

/// Serves `/` with a word, `/large` with [`LARGE`] bytes, and `/stream` as an event stream.
async fn start(limits: Limits) -> Host {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let counts = Telemetry::plain("test").expect("consistent names").connections("test");
    let server = Server::new(listener, Transport::Plain, limits, counts.clone());
    tokio::spawn(server.serve(|request: Request<Incoming>, visit: &Visit| {
        ready(Response::new(match request.uri().path() {
            "/large" => "x".repeat(LARGE),
            "/trusted" => {
                visit.set_trusted(true);
                "x".repeat(LARGE)
            }
            "/stream" => match visit.stream() {
                Ok(()) => "x".repeat(LARGE),
                Err(full) => full.to_string(),
            },
            _ => "word".to_owned(),
        }))
    }));
    Host { address, counts }
}

impl Host {
    async fn connect(&self, sent: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.expect("a connection");
        stream.write_all(sent).await.expect("sent");
        stream
    }

    async fn ask(&self, path: &str) -> TcpStream {
        self.connect(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await
    }
}

/// Reads until the first pause or the end.
async fn hear(stream: &mut TcpStream) -> String {
    let mut heard = vec![0; 4_096];
    let length = timeout(SOON, stream.read(&mut heard)).await.expect("something in time").unwrap_or_default();
    String::from_utf8_lossy(&heard[..length]).into_owned()
}

/// Waits for the end of a connection, with small reads.
async fn end(stream: &mut TcpStream, what: &str) {
    let read = async { while stream.read(&mut [0; 8_192]).await.is_ok_and(|length| length > 0) {} };
    timeout(SOON, read).await.unwrap_or_else(|_| panic!("{what} goes on"));
}

/// SEC-8: silent connections, more than the limit, keep nobody out, not even from the same address.
#[tokio::test]
async fn a_request_is_answered_beside_any_number_of_silent_connections() {
    let host = start(LIMITS).await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(host.connect(b"").await);
        silent.push(host.connect(b"GET /").await);
    }
    let start = Instant::now();
    for _ in 0..10 {
        assert!(hear(&mut host.connect(GET).await).await.ends_with("word"));
    }
    assert!(start.elapsed() < Duration::from_secs(1));
    assert!(host.counts.displaced.get() >= 396, "at most four of one address have a place");
}

/// SEC-8: clients that do not read their responses keep nobody out.
#[tokio::test]
async fn a_request_is_answered_beside_clients_that_take_no_answer() {
    let host = start(LIMITS).await;
    let mut slow = Vec::new();
    for _ in 0..20 {
        slow.push(host.ask("/large").await);
    }
    assert!(hear(&mut host.connect(GET).await).await.ends_with("word"));
}

#[tokio::test]
async fn who_proved_who_it_is_is_answered_to_the_end() {
    let host = start(Limits { connections: 4, ..LIMITS }).await;
    let mut trusted = host.ask("/trusted").await;
    assert!(hear(&mut trusted).await.starts_with("HTTP/1.1 200"));
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(host.connect(b"").await);
    }
    assert!(hear(&mut host.connect(GET).await).await.ends_with("word"));
    let mut rest = 0;
    while rest < LARGE - 8_192 {
        rest += timeout(SOON, trusted.read(&mut [0; 8_192])).await.expect("in time").expect("no end");
    }
}

#[tokio::test]
async fn an_event_stream_takes_no_place_of_other_connections() {
    let host = start(Limits { connections: 1, per_source: 1, ..LIMITS }).await;
    let mut stream = host.ask("/stream").await;
    assert!(hear(&mut stream).await.starts_with("HTTP/1.1 200"));
    assert!(hear(&mut host.ask("/stream").await).await.ends_with("too many event streams already"));
    for _ in 0..3 {
        assert!(hear(&mut host.connect(GET).await).await.ends_with("word"));
    }
    assert!(stream.read(&mut [0; 8_192]).await.expect("it goes on") > 0);
    drop(stream);
    let again = async {
        while hear(&mut host.ask("/stream").await).await.ends_with("already") {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, again).await.expect("one that ended makes room");
}

/// SEC-8: each deadline ends a connection.
#[tokio::test]
async fn a_client_that_is_too_slow_is_left() {
    let short = Duration::from_millis(100);
    let host = start(Limits { headers: short, ..LIMITS }).await;
    let start_time = Instant::now();
    end(&mut host.connect(b"").await, "silence").await;
    assert!(start_time.elapsed() >= short);
    // Sending single bytes does not extend the deadline.
    let mut slow = host.connect(b"GET / HTTP/1.1\r\nX: ").await;
    let drips = async {
        while slow.write_all(b"x").await.is_ok() {
            sleep(short / 10).await;
        }
    };
    timeout(SOON, drips).await.expect("the end in time");

    let host = start(Limits { idle: short, ..LIMITS }).await;
    let mut idle = host.connect(GET).await;
    assert!(hear(&mut idle).await.ends_with("word"));
    end(&mut idle, "rest").await;
    // The deadline for the next headers is not the one for idle time.
    let mut next = host.connect(GET).await;
    hear(&mut next).await;
    next.write_all(b"GET / HT").await.expect("sent");
    sleep(short * 2).await;
    next.write_all(b"TP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sent");
    assert!(hear(&mut next).await.ends_with("word"));

    let host = start(Limits { stall: short, ..LIMITS }).await;
    let mut stalled = host.ask("/large").await;
    let left = async {
        while host.counts.timed_out.get() == 0 {
            sleep(short / 10).await;
        }
    };
    timeout(SOON, left).await.expect("it is left");
    end(&mut stalled, "a stall").await;
}
