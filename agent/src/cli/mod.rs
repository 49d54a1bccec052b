//! The command line `tr111`: arguments and dispatch. One module per command.

#[cfg(feature = "acs")]
mod association;
mod bindings;
mod check;
#[cfg(feature = "acs")]
mod connreq;
#[cfg(feature = "acs")]
mod cpe;
#[cfg(feature = "gateway")]
mod detach;
mod devices;
mod failure;
mod flags;
mod get;
mod man;
mod output;
mod run;
mod status;
mod top;
mod tune;
mod watch;

use std::{path::PathBuf, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand};

use self::failure::Failure;
use crate::control::{Client, DEFAULT_PATH};
#[cfg(feature = "sim")]
use crate::sim;

type Outcome = Result<(), Failure>;

/// TR-111 for Linux: discovery of TR-069 devices on the LAN, STUN, and UDP Connection Requests.
///
/// `tr111 run gateway` watches DHCP on the LAN interfaces and maintains the ManageableDevice table of TR-111 Part 1.
/// The other commands talk to the running agent over its control socket.
#[derive(Debug, Parser)]
#[command(name = "tr111", version, arg_required_else_help = true, max_term_width = 120)]
struct Cli {
    /// Print JSON instead of text
    #[arg(long, global = true)]
    json: bool,
    /// Control socket of the agent [default: /run/tr111/control.sock]
    #[arg(long, global = true, env = "TR111_CONTROL", value_name = "PATH")]
    control: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run an agent in the foreground
    #[command(subcommand, arg_required_else_help = true)]
    Run(Role),
    /// Remove kernel programs, pins and the nft table; a running agent is stopped first
    #[cfg(feature = "gateway")]
    Detach(detach::Args),
    /// Show the rows of the ManageableDevice table
    Devices(devices::Args),
    /// Show the NAT bindings for UDP Connection Requests
    Bindings(bindings::Args),
    /// Show the gateway of each device, on an ACS
    #[cfg(feature = "acs")]
    #[command(subcommand, arg_required_else_help = true)]
    Association(association::Command),
    /// Show the state of the agent
    Status,
    /// Read parameters of the data model
    Get(get::Args),
    /// Write parameters of the data model; if one cannot be written, none is
    Set(get::SetArgs),
    /// Set the notification attribute of parameters
    Notify(get::NotifyArgs),
    /// Acknowledge notifications up to a sequence number; they are not sent again
    ///
    /// A CWMP client acknowledges at the start of a session, as soon as the ACS has answered the Inform. A Connection
    /// Request that is accepted later raises another `6 CONNECTION REQUEST` notification, for another session.
    Ack(get::AckArgs),
    /// Print events as they happen
    Watch(watch::Args),
    /// Show rows, rates and losses live, full screen
    Top(top::Args),
    /// Show or change configuration keys at run time
    Tune(tune::Args),
    /// Check kernel, capabilities and interfaces, and show the effective configuration
    Check(check::Args),
    /// Send Connection Requests
    #[cfg(feature = "acs")]
    #[command(subcommand, arg_required_else_help = true)]
    Connreq(connreq::Command),
    /// Provision the CPEs of an ACS
    #[cfg(feature = "acs")]
    #[command(subcommand, arg_required_else_help = true)]
    Cpe(cpe::Command),
    /// Emulate network peers
    #[cfg(feature = "sim")]
    #[command(subcommand, arg_required_else_help = true)]
    Sim(Sim),
    /// Print a completion script
    Completions {
        /// Shell to generate the script for
        shell: clap_complete::Shell,
    },
    /// Print the man page
    Man,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Gateway: watch DHCP on LAN interfaces and maintain the ManageableDevice table
    ///
    /// SIGTERM stops the agent. SIGHUP reloads the configuration file.
    #[cfg(feature = "gateway")]
    Gateway(flags::Gateway),
    /// Device: send the device identity in DHCP, and learn the identity of the gateway
    ///
    /// SIGTERM stops the agent. In mode dhcp it releases its address first.
    #[cfg(feature = "device")]
    Device(flags::Device),
    /// ACS side: STUN server, registry of CPEs and their bindings, sender of Connection Requests
    ///
    /// SIGTERM stops the agent. SIGHUP reloads the configuration file.
    #[cfg(feature = "acs")]
    Acs(flags::Acs),
}

#[cfg(feature = "sim")]
#[derive(Debug, Subcommand)]
enum Sim {
    Devices(sim::Args),
}

/// Runs the command `tr111` with the arguments of the process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

impl Cli {
    fn run(self) -> Outcome {
        let Self { json, control, command } = self;
        let client = Reach { control: control.clone().unwrap_or_else(|| DEFAULT_PATH.into()) };
        match command {
            #[cfg(feature = "gateway")]
            Command::Run(Role::Gateway(flags)) => run::gateway(flags, control),
            #[cfg(feature = "device")]
            Command::Run(Role::Device(flags)) => run::device(flags, control),
            #[cfg(feature = "acs")]
            Command::Run(Role::Acs(flags)) => run::acs(flags, control),
            #[cfg(feature = "gateway")]
            Command::Detach(args) => detach::run(&args, &client, json),
            Command::Devices(args) => devices::run(&args, &client, json),
            Command::Bindings(args) => bindings::run(&args, &client, json),
            #[cfg(feature = "acs")]
            Command::Association(command) => association::run(&command, &client, json),
            Command::Status => status::run(&client, json),
            Command::Get(args) => get::run(args, &client, json),
            Command::Set(args) => get::set(&args, &client),
            Command::Notify(args) => get::notify(args, &client),
            Command::Ack(args) => get::acknowledge(&args, &client),
            Command::Watch(args) => watch::run(&args, &client, json),
            Command::Top(args) => top::run(&args, client, json),
            Command::Tune(args) => tune::run(&args, &client, json),
            Command::Check(args) => check::run(&args, control.as_ref(), json),
            #[cfg(feature = "acs")]
            Command::Connreq(command) => connreq::run(command, &client, json),
            #[cfg(feature = "acs")]
            Command::Cpe(command) => cpe::run(command, &client, json),
            #[cfg(feature = "sim")]
            Command::Sim(Sim::Devices(args)) => run::sim(args, json),
            Command::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Self::command(), "tr111", &mut script);
                output::write(&script)
            }
            Command::Man => output::write(&man::page(Self::command())),
        }
    }
}

/// Path to the running agent.
struct Reach {
    control: PathBuf,
}

impl Reach {
    fn connect(&self) -> Result<Client, Failure> {
        Ok(Client::connect(&self.control)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn json_and_control_are_accepted_before_and_after_the_subcommand() {
        for line in [
            ["tr111", "--json", "--control", "/x", "devices", "--watch"],
            ["tr111", "devices", "--watch", "--json", "--control", "/x"],
        ] {
            let cli = Cli::try_parse_from(line).expect("valid");
            assert!(cli.json);
            assert_eq!(cli.control, Some("/x".into()));
        }
    }

    #[test]
    fn the_gateway_takes_every_flag_of_the_documentation() {
        let line = "tr111 run gateway --config F --lan a --lan b --wan c --oui 00256D --serial S --product-class C \
                    --state-dir D --control P --metrics 127.0.0.1:1 --pin-dir D --xdp-mode tc --detach-on-exit";
        Cli::try_parse_from(line.split_whitespace()).expect("valid");
    }
}
