//! Tests over a real socket, with a stub in place of the owner task.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::sync::{broadcast, mpsc};

use super::{
    message::{Change, Device, Event, Happening, Refusal, Reply, Request, VERSION},
    *,
};
use crate::{service::Ask, telemetry::Telemetry};

const EVENTS: usize = 4;

struct Agent {
    path: PathBuf,
    events: broadcast::Sender<Arc<Event>>,
    telemetry: Arc<Telemetry>,
    _directory: tempfile::TempDir,
}

/// An agent with `rows` rows, in pages of ten. It never answers [`Ask::Knobs`].
fn start(rows: u32, limits: Limits) -> Agent {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("control.sock");
    let (asks, mut asked) = mpsc::channel(4);
    let (events, _) = broadcast::channel(EVENTS);
    let telemetry = Arc::new(Telemetry::plain("gateway").expect("consistent names"));
    let service =
        Service { role: "gateway", asks, acs: None, events: events.clone(), telemetry: Arc::clone(&telemetry), limits };
    tokio::spawn(serve(Listener::bind(&path).expect("a socket"), service));
    tokio::spawn(async move {
        let mut unanswered = Vec::new();
        while let Some(ask) = asked.recv().await {
            match ask {
                Ask::Devices { after, reply } => {
                    let page = (after + 1..=rows).take(10).map(device).collect();
                    reply.send(page).expect("somebody waits");
                }
                other => unanswered.push(other),
            }
        }
    });
    Agent { path, events, telemetry, _directory: directory }
}

fn device(instance: u32) -> Device {
    Device {
        instance,
        manufacturer_oui: "00256D".to_owned(),
        serial_number: instance.to_string(),
        product_class: String::new(),
        first_seen: "2026-01-01T00:00:00Z".to_owned(),
        last_seen: "2026-01-01T00:00:00Z".to_owned(),
        bindings: Vec::new(),
    }
}

fn added(instance: u32) -> Arc<Event> {
    let change = Change::from(device(instance));
    Arc::new(Event { time: "2026-01-01T00:00:00Z".to_owned(), what: Happening::DeviceAdded(change) })
}

/// Runs a client, which blocks, in a thread of its own.
async fn beside<T: Send + 'static>(client: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(client).await.expect("the client ends")
}

async fn until(mut condition: impl FnMut() -> bool) {
    let waited = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waited).await.expect("in time");
}

fn speak(path: &Path, bytes: &[u8]) -> Option<Reply> {
    let mut socket = UnixStream::connect(path).expect("somebody listens");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    socket.write_all(bytes).expect("written");
    let mut header = [0; frame::LENGTH_BYTES];
    socket.read_exact(&mut header).ok()?;
    let mut body = vec![0; frame::length(header).expect("a length")];
    socket.read_exact(&mut body).expect("a body");
    Some(frame::decode(&body).expect("a reply"))
}

#[tokio::test]
async fn rows_come_in_pages_and_arrive_all_and_in_order() {
    let agent = start(95, Limits::default());
    let path = agent.path.clone();
    let instances = beside(move || {
        let mut client = Client::connect(&path).expect("an agent");
        let mut reply = client.ask(&Request::Devices).expect("rows");
        let mut instances = Vec::new();
        loop {
            let Reply::Devices { devices, more } = reply else { panic!("{reply:?}") };
            instances.extend(devices.iter().map(|device| device.instance));
            if !more {
                return instances;
            }
            reply = client.next_reply().expect("more rows");
        }
    })
    .await;
    assert_eq!(instances, (1..=95).collect::<Vec<_>>());
    until(|| agent.telemetry.control_clients.get() == 0).await;
}

#[tokio::test]
async fn a_client_of_another_version_is_told_both_versions() {
    let agent = start(0, Limits::default());
    let path = agent.path.clone();
    let hello = frame::encode(&Request::Hello { version: VERSION + 1 }).expect("small");
    let reply = beside(move || speak(&path, &hello)).await.expect("an answer");
    let Reply::Refused { refusal: Refusal::Version, reason } = reply else { panic!("{reply:?}") };
    assert!(reason.contains(&VERSION.to_string()) && reason.contains(&(VERSION + 1).to_string()), "{reason}");
}

#[tokio::test]
async fn a_request_before_hello_and_bytes_that_are_no_message_are_refused() {
    let agent = start(0, Limits::default());
    for bytes in [
        frame::encode(&Request::Devices).expect("small"),
        vec![0, 0, 0, 3, b'{', b'"', b'}'],
        vec![0xff; 64],
        vec![0; 8],
    ] {
        let path = agent.path.clone();
        let reply = beside(move || speak(&path, &bytes)).await;
        assert!(matches!(reply, Some(Reply::Refused { refusal: Refusal::BadRequest, .. })), "{reply:?}");
    }
}

#[tokio::test]
async fn a_client_above_the_limit_is_told_so_and_one_that_leaves_makes_room() {
    let agent = start(0, Limits { clients: 1, ..Limits::default() });
    let path = agent.path.clone();
    let first = beside(move || Client::connect(&path).expect("the first")).await;
    let path = agent.path.clone();
    let second = beside(move || Client::connect(&path)).await;
    assert!(matches!(second, Err(ClientError::Refused { refusal: Refusal::Busy, .. })), "{second:?}");
    drop(first);
    until(|| agent.telemetry.control_clients.get() == 0).await;
    let path = agent.path.clone();
    beside(move || Client::connect(&path).map(drop)).await.expect("there is room again");
}

#[tokio::test]
async fn an_owner_that_does_not_answer_is_a_refusal_and_not_silence() {
    let agent = start(0, Limits { answer: Duration::from_millis(50), ..Limits::default() });
    let path = agent.path.clone();
    let answer = beside(move || Client::connect(&path).expect("an agent").ask(&Request::Knobs)).await;
    assert!(matches!(answer, Err(ClientError::Refused { refusal: Refusal::Deadline, .. })), "{answer:?}");
}

#[tokio::test]
async fn a_client_that_never_says_hello_loses_its_place() {
    let agent = start(0, Limits { hello: Duration::from_millis(50), ..Limits::default() });
    let path = agent.path.clone();
    let silent = beside(move || UnixStream::connect(&path).expect("somebody listens")).await;
    until(|| agent.telemetry.control_clients.get() == 1).await;
    until(|| agent.telemetry.control_clients.get() == 0).await;
    drop(silent);
}

#[tokio::test]
async fn a_watcher_gets_rows_then_events_and_is_told_how_many_it_missed() {
    let agent = start(1, Limits::default());
    let path = agent.path.clone();
    let (started, starts) = std::sync::mpsc::channel();
    let (go, goes) = std::sync::mpsc::channel::<()>();
    let watcher = tokio::task::spawn_blocking(move || {
        let mut client = Client::connect(&path).expect("an agent");
        let mut replies = vec![client.ask(&Request::Watch { devices: true }).expect("rows")];
        replies.push(client.next_reply().expect("the end of the rows"));
        started.send(()).expect("the test waits");
        goes.recv().expect("the test goes on");
        replies.extend((0..=EVENTS).map(|_| client.next_reply().expect("an event")));
        replies
    });
    tokio::task::spawn_blocking(move || starts.recv().expect("the watcher watches")).await.expect("no panic");
    // More events than the channel holds, sent before the connection task can run.
    for instance in 0..EVENTS as u32 + 3 {
        agent.events.send(added(instance)).expect("a receiver");
    }
    go.send(()).expect("the watcher waits");
    let replies = watcher.await.expect("no panic");
    assert!(matches!(&replies[0], Reply::Devices { devices, more: true } if devices.len() == 1));
    assert!(matches!(&replies[1], Reply::Devices { more: false, .. }));
    assert_eq!(replies[2], Reply::Lagged { missed: 3 });
    assert_eq!(replies[3], Reply::Event((*added(3)).clone()));
}

#[tokio::test]
async fn a_watcher_that_leaves_is_forgotten() {
    let agent = start(0, Limits::default());
    let path = agent.path.clone();
    let watching = beside(move || {
        let mut client = Client::connect(&path).expect("an agent");
        client.ask(&Request::Watch { devices: false }).expect("watching");
        client
    })
    .await;
    assert_eq!(agent.telemetry.control_clients.get(), 1);
    drop(watching);
    until(|| agent.telemetry.control_clients.get() == 0).await;
}

#[test]
fn without_an_agent_the_client_says_so() {
    let error = Client::connect(Path::new("/nonexistent/control.sock")).expect_err("nobody");
    assert_eq!(error.to_string(), "no agent answers on /nonexistent/control.sock (not running?)");
    assert!(error.is_absence());
}
