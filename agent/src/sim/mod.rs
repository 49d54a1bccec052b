//! `tr111 sim`: many LAN devices on one interface, for load and demonstration.

mod fleet;
mod frames;

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use nix::ifaddrs::getifaddrs;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::fleet::{Fleet, Plan};
use crate::os::packet_socket::PacketSocket;

/// Largest frame that is read.
const FRAME_MAXIMUM: usize = 16 * 1024;
/// Frames that are read before the clock is looked at again.
const BATCH: usize = 256;
/// MAC addresses have three bytes for the number.
const NUMBER_MAXIMUM: u32 = 0x00ff_ffff;

/// Emulates many LAN devices with distinct identities on one interface.
///
/// Each has its own MAC address and serial number, goes through DISCOVER, OFFER, REQUEST and ACK (or INFORM), answers
/// ARP for its address and renews at half of its lease. One line says when all have what they asked for. SIGINT or
/// SIGTERM makes them release their leases, then the command ends. The interface has to take frames for foreign MAC
/// addresses: veth, tap and bridge do, a network card after `ip link set IF promisc on`.
#[derive(Clone, Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is one switch of the command line")]
pub struct Args {
    /// Interface to send on
    #[arg(long, value_name = "IF")]
    pub iface: String,
    /// Number of devices
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub count: u32,
    /// Devices that start, or release, per second
    #[arg(long, value_name = "R", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: u32,
    /// Send INFORM from static addresses instead of asking for a lease
    #[arg(long)]
    pub inform: bool,
    /// First static address for --inform, the others follow; else the last ones of the interface's network
    #[arg(long, value_name = "IPV4", requires = "inform")]
    pub address: Option<Ipv4Addr>,
    /// Number of the first device, in MAC addresses and serial numbers: two simulators on one LAN use two ranges
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub first: u32,
    /// Manufacturer OUI, six hexadecimal digits
    #[arg(long, value_name = "HEX6", default_value = "00256D")]
    pub oui: String,
    /// Serial numbers are this and six digits
    #[arg(long, value_name = "TEXT", default_value = "SIM")]
    pub serial_prefix: String,
    /// Product class; empty to send none
    #[arg(long, value_name = "TEXT", default_value = "SIM")]
    pub product_class: String,
    /// Send no option 125: ordinary devices
    #[arg(long)]
    pub no_identity: bool,
    /// Let servers answer by unicast, which fills their ARP tables
    #[arg(long)]
    pub unicast: bool,
    /// Release and end as soon as all have what they asked for
    #[arg(long, conflicts_with = "vanish")]
    pub release: bool,
    /// End without a release, as if somebody pulled the plugs
    #[arg(long)]
    pub vanish: bool,
    /// Seconds in which every device has to have what it asked for, else the command fails
    #[arg(long, value_name = "S", default_value_t = 120)]
    pub deadline: u64,
    /// Print JSON objects, one a line
    #[arg(skip)]
    pub json: bool,
}

/// Runs the devices until a signal, or until `--release` has done its work.
///
/// # Errors
/// The interface cannot be used, or not every device got an answer before the deadline.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let plan = plan(&args)?;
    let started = Instant::now();
    let deadline = started + Duration::from_secs(args.deadline);
    let simulator = Simulator {
        socket: PacketSocket::open(&args.iface)?,
        terminate: signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?,
        interrupt: signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?,
        fleet: Fleet::new(plan, started),
        frame: vec![0; FRAME_MAXIMUM],
    };
    simulator.run(&args, started, deadline).await
}

fn plan(args: &Args) -> anyhow::Result<Plan> {
    let is_digit = |byte: u8| byte.is_ascii_hexdigit();
    ensure!(
        args.oui.len() == 6 && args.oui.bytes().all(is_digit),
        "--oui {:?} is not six hexadecimal digits",
        args.oui
    );
    ensure!(args.serial_prefix.len() <= 57, "--serial-prefix is above 57 bytes: a serial number has at most 64");
    ensure!(args.product_class.len() <= 64, "--product-class is above 64 bytes");
    let last = args.first.checked_add(args.count - 1).filter(|last| *last <= NUMBER_MAXIMUM);
    ensure!(last.is_some(), "--first and --count go past device number {NUMBER_MAXIMUM}");
    let inform_from = match args.address {
        _ if !args.inform => None,
        Some(address) => Some(address),
        None => Some(last_addresses(&args.iface, args.count)?),
    };
    Ok(Plan {
        count: args.count,
        first: args.first,
        rate: args.rate,
        oui: args.oui.clone(),
        serial_prefix: args.serial_prefix.clone(),
        product_class: args.product_class.clone(),
        identify: !args.no_identity,
        broadcast_replies: !args.unicast,
        inform_from,
    })
}

/// The first of the last `count` host addresses of the interface's network.
fn last_addresses(interface: &str, count: u32) -> anyhow::Result<Ipv4Addr> {
    let network = getifaddrs()
        .context("cannot list addresses")?
        .filter(|entry| entry.interface_name == interface)
        .find_map(|entry| {
            let address = entry.address?.as_sockaddr_in()?.ip();
            Some((address, entry.netmask?.as_sockaddr_in()?.ip()))
        });
    let Some((own, mask)) = network else {
        bail!("{interface} has no IPv4 address to derive static ones from; name the first one with --address");
    };
    let broadcast = u32::from(own) | !u32::from(mask);
    let first = broadcast.saturating_sub(count);
    let range = first..broadcast;
    if first <= (u32::from(own) & u32::from(mask)) || range.contains(&u32::from(own)) {
        bail!("the network of {interface} has no {count} free addresses at its end; name the first with --address");
    }
    Ok(first.into())
}

struct Simulator {
    socket: PacketSocket,
    terminate: Signal,
    interrupt: Signal,
    fleet: Fleet,
    frame: Vec<u8>,
}

/// What ended one turn of the loop.
enum Event {
    Frame(usize),
    Timer,
    Stop,
}

impl Simulator {
    async fn run(mut self, args: &Args, started: Instant, deadline: Instant) -> anyhow::Result<()> {
        let count = args.count as usize;
        let mut complete = false;
        loop {
            if !complete && self.fleet.bound() == count {
                complete = true;
                report(args, "bound", count, started.elapsed());
                if args.release {
                    break;
                }
            }
            let limit = (!complete).then_some(deadline);
            match self.turn(limit).await? {
                Event::Stop => break,
                Event::Timer if !complete && Instant::now() >= deadline => break,
                Event::Frame(_) | Event::Timer => {}
            }
        }
        let bound = self.fleet.bound();
        if !args.vanish && !args.inform {
            self.release().await?;
            report(args, "released", bound, started.elapsed());
        }
        ensure!(complete, "{bound} of {count} devices were answered within {:.1} s", started.elapsed().as_secs_f64());
        Ok(())
    }

    async fn release(&mut self) -> anyhow::Result<()> {
        let mut left = self.fleet.bound();
        self.fleet.release(Instant::now());
        while left != 0 {
            self.turn(None).await?;
            left = self.fleet.bound();
        }
        Ok(())
    }

    /// Waits for one thing to happen, does it, and sends what comes of it.
    async fn turn(&mut self, limit: Option<Instant>) -> anyhow::Result<Event> {
        let next = match (self.fleet.next_deadline(), limit) {
            (Some(timer), Some(limit)) => Some(timer.min(limit)),
            (timer, limit) => timer.or(limit),
        };
        let event = tokio::select! {
            biased;
            _ = self.terminate.recv() => Event::Stop,
            _ = self.interrupt.recv() => Event::Stop,
            length = self.socket.receive(&mut self.frame) => Event::Frame(length.context("cannot receive frames")?),
            () = until(next) => Event::Timer,
        };
        let now = Instant::now();
        if let Event::Frame(length) = event {
            self.fleet.handle(&self.frame[..length], now);
            for _ in 0..BATCH {
                let Some(length) = self.socket.try_receive(&mut self.frame).context("cannot receive frames")? else {
                    break;
                };
                self.fleet.handle(&self.frame[..length], now);
            }
        }
        self.fleet.tick(now);
        for frame in self.fleet.take_frames() {
            self.socket.send(&frame).await.context("cannot send frames")?;
        }
        Ok(event)
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

fn report(args: &Args, event: &str, devices: usize, after: Duration) {
    let seconds = after.as_secs_f64();
    if args.json {
        println!("{}", serde_json::json!({ "event": event, "devices": devices, "seconds": seconds }));
    } else {
        println!("{devices} devices {event} after {seconds:.1} s");
    }
}
