//! `tr111 top`: the state of an agent, full screen, once a second.

mod screen;
mod view;

use std::{
    io::{IsTerminal as _, stdin, stdout},
    thread,
    time::{Duration, Instant},
};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use self::{
    screen::{Key, Screen},
    view::View,
};
use super::{Failure, Outcome, Reach, devices};
use crate::control::{
    Client, ClientError,
    message::{Counter, Device, NatBinding, Reply, Request, Status},
};

/// A large table is read so rarely that reading it takes at most one part in `SHARE` of the time.
const SHARE: u32 = 20;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Seconds between updates
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=30))]
    interval: u64,
}

/// The state of the agent at one time.
#[derive(Clone, Debug)]
struct Snapshot {
    at: Instant,
    status: Status,
    counters: Vec<Counter>,
    /// The first bindings of the list.
    bindings: Vec<NatBinding>,
    has_more_bindings: bool,
    /// `None`: the rows were not read this time. The previous ones are shown.
    devices: Option<Vec<Device>>,
}

pub(super) fn run(args: &Args, reach: Reach, json: bool) -> Outcome {
    if json || !stdin().is_terminal() || !stdout().is_terminal() {
        let message = "top needs a terminal and prints no JSON; use status, devices, bindings or /metrics instead";
        return Err(Failure::Usage(message.to_owned()));
    }
    let mut looker = Looker::new(reach)?;
    let first = looker.look()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (snapshots, mut news) = mpsc::channel(1);
    let interval = Duration::from_secs(args.interval);
    let (presses, mut keys) = mpsc::channel(1);
    // Two blocking threads, so that an agent that does not answer does not delay key presses. They end with the
    // process.
    thread::Builder::new().name("looker".into()).spawn(move || {
        loop {
            thread::sleep(interval);
            if snapshots.blocking_send(looker.look()).is_err() {
                return;
            }
        }
    })?;
    let _screen = Screen::enter()?;
    thread::Builder::new()
        .name("keys".into())
        .spawn(move || while Key::wait().into_iter().all(|key| presses.blocking_send(key).is_ok()) {})?;
    runtime.block_on(async {
        let mut view = View::new(first);
        let [mut ended, mut hung_up, mut resized] =
            [signal(SignalKind::terminate())?, signal(SignalKind::hangup())?, signal(SignalKind::window_change())?];
        loop {
            let (lines, columns) = screen::size();
            screen::draw(&view.page(lines, columns))?;
            tokio::select! {
                Some(news) = news.recv() => view.take(news),
                Some(key) = keys.recv() => match key {
                    Key::Quit => return Ok(()),
                    Key::Down => view.scroll(1),
                    Key::Up => view.scroll(-1),
                    Key::PageDown => view.scroll(isize::from(lines.cast_signed()) - 2),
                    Key::PageUp => view.scroll(2 - isize::from(lines.cast_signed())),
                    Key::Other => {}
                },
                _ = resized.recv() => {}
                _ = ended.recv() => return Ok(()),
                _ = hung_up.recv() => return Ok(()),
            }
        }
    })
}

/// Reads the state of the agent. Connects again after an error.
struct Looker {
    reach: Reach,
    client: Option<Client>,
    /// Earliest time of the next reading of the rows.
    rows_at: Instant,
}

impl Looker {
    fn new(reach: Reach) -> Result<Self, Failure> {
        Ok(Self { client: Some(reach.connect()?), reach, rows_at: Instant::now() })
    }

    fn look(&mut self) -> Result<Snapshot, Failure> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => self.reach.connect()?,
        };
        let snapshot = self.ask(&mut client)?;
        // The remaining bindings of an ACS with a million CPEs are not needed: a new connection is cheaper than reading
        // them.
        self.client = Some(client).filter(|_| !snapshot.has_more_bindings);
        Ok(snapshot)
    }

    fn ask(&mut self, client: &mut Client) -> Result<Snapshot, ClientError> {
        let Reply::Status(status) = client.ask(&Request::Status)? else { return Err(ClientError::OutOfTurn) };
        let Reply::Counters { counters } = client.ask(&Request::Counters)? else { return Err(ClientError::OutOfTurn) };
        let at = Instant::now();
        let devices = if status.table.max_rows > 0 && at >= self.rows_at {
            let devices = devices::receive(client.ask(&Request::Devices)?, client)?;
            self.rows_at = at + at.elapsed() * SHARE;
            Some(devices)
        } else {
            None
        };
        let Reply::Bindings { bindings, more } = client.ask(&Request::Bindings)? else {
            return Err(ClientError::OutOfTurn);
        };
        Ok(Snapshot { at, status: *status, counters, bindings, has_more_bindings: more, devices })
    }
}
