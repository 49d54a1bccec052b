//! `tr111 run` and `tr111 sim`

use std::path::PathBuf;

use super::{Failure, Outcome, flags};
#[cfg(feature = "acs")]
use crate::config::Acs;
#[cfg(feature = "device")]
use crate::config::Device;
#[cfg(feature = "gateway")]
use crate::config::Gateway;
use crate::role;
#[cfg(feature = "sim")]
use crate::sim;

#[cfg(feature = "gateway")]
pub(super) fn gateway(flags: flags::Gateway, control: Option<PathBuf>) -> Outcome {
    let values = flags.layers(control.as_ref())?;
    let gateway = Gateway::try_from(&values)?;
    let reload = move || flags.layers(control.as_ref());
    role::gateway::run(&gateway, values, reload).map_err(Failure::failed)
}

#[cfg(feature = "device")]
pub(super) fn device(flags: flags::Device, control: Option<PathBuf>) -> Outcome {
    let values = flags.layers(control.as_ref())?;
    let device = Device::try_from(&values)?;
    let reload = move || flags.layers(control.as_ref());
    role::device::run(&device, values, reload).map_err(Failure::failed)
}

#[cfg(feature = "acs")]
pub(super) fn acs(flags: flags::Acs, control: Option<PathBuf>) -> Outcome {
    let values = flags.layers(control.as_ref())?;
    let acs = Acs { start_empty: flags.start_empty, ..Acs::from(&values) };
    let reload = move || flags.layers(control.as_ref());
    role::acs::run(&acs, values, reload).map_err(Failure::failed)
}

#[cfg(feature = "sim")]
pub(super) fn sim(mut args: sim::Args, json: bool) -> Outcome {
    args.json = json;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(sim::run(args)).map_err(|error| Failure::failed(format_args!("{error:#}")))
}
