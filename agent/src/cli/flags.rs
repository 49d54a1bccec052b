//! The flags of `tr111 run gateway` (also of `tr111 check`), `tr111 run device` and `tr111 run acs`. Each flag
//! overrides a key of the configuration file.

use std::{fs, path::PathBuf};

use crate::config::{Error, Origin, Values};

/// Flags of the roles gateway and device.
#[derive(Clone, Debug, Default, clap::Args)]
struct Common {
    #[command(flatten)]
    process: Process,
    /// Manufacturer OUI of this gateway or device, six hexadecimal digits
    #[arg(long, value_name = "HEX6")]
    oui: Option<String>,
    /// Serial number of this gateway or device
    #[arg(long, value_name = "S")]
    serial: Option<String>,
    /// Product class of this gateway or device
    #[arg(long, value_name = "C")]
    product_class: Option<String>,
}

impl Common {
    /// Defaults, overridden by the file and by these flags. The identity is set in `section`.
    fn layers(&self, section: &str, control: Option<&PathBuf>) -> Result<Values, Error> {
        let mut values = self.process.layers(control)?;
        set(
            &mut values,
            [
                (&*format!("{section}.manufacturer_oui"), "--oui", &self.oui),
                (&*format!("{section}.serial_number"), "--serial", &self.serial),
                (&*format!("{section}.product_class"), "--product-class", &self.product_class),
            ],
        )?;
        Ok(values)
    }
}

/// Flags of all roles.
#[derive(Clone, Debug, Default, clap::Args)]
struct Process {
    /// Configuration file (TOML); flags override it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of the persistent state
    #[arg(long, value_name = "DIR")]
    state_dir: Option<String>,
    /// Address of /metrics, /healthz and /readyz; empty: off
    #[arg(long, value_name = "ADDR:PORT")]
    metrics: Option<String>,
}

impl Process {
    /// Defaults, overridden by the file and by these flags. Each call reads the file again, for SIGHUP.
    fn layers(&self, control: Option<&PathBuf>) -> Result<Values, Error> {
        let mut values = Values::default();
        if let Some(file) = &self.config {
            let text = fs::read_to_string(file).map_err(|source| Error::Read { file: file.clone(), source })?;
            values.read(file, &text)?;
        }
        let control = control.map(|path| path.to_string_lossy().into_owned());
        set(
            &mut values,
            [
                ("agent.state_dir", "--state-dir", &self.state_dir),
                ("agent.metrics", "--metrics", &self.metrics),
                ("agent.control", "--control", &control),
            ],
        )?;
        Ok(values)
    }
}

/// Sets the keys whose flags were given. Each item has the key, the flag and its value.
fn set<'a>(
    values: &mut Values,
    flags: impl IntoIterator<Item = (&'a str, &'static str, &'a Option<String>)>,
) -> Result<(), Error> {
    for (path, flag, given) in flags {
        if let Some(text) = given {
            values.set(path, text, Origin::Flag(flag))?;
        }
    }
    Ok(())
}

#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Gateway {
    #[command(flatten)]
    common: Common,
    /// LAN interface; repeat for several; for a bridge, name the bridge, not its ports
    #[arg(long, value_name = "IF")]
    lan: Vec<String>,
    /// WAN interface; repeat for several
    #[arg(long, value_name = "IF")]
    wan: Vec<String>,
    /// Directory in a bpffs for pinned programs and maps
    #[arg(long, value_name = "DIR")]
    pin_dir: Option<String>,
    /// How programs attach at LAN ingress: auto, native, generic or tc
    #[arg(long, value_name = "MODE")]
    xdp_mode: Option<String>,
    /// Detach the kernel programs when the agent stops
    #[arg(long)]
    detach_on_exit: bool,
}

impl Gateway {
    /// Defaults, overridden by the file and by these flags. Each call reads the file again, for SIGHUP.
    pub(crate) fn layers(&self, control: Option<&PathBuf>) -> Result<Values, Error> {
        let mut values = self.common.layers("gateway", control)?;
        let detach_on_exit = self.detach_on_exit.then(|| "true".to_owned());
        set(
            &mut values,
            [
                ("agent.pin_dir", "--pin-dir", &self.pin_dir),
                ("agent.xdp_mode", "--xdp-mode", &self.xdp_mode),
                ("agent.detach_on_exit", "--detach-on-exit", &detach_on_exit),
            ],
        )?;
        for (path, flag, given) in [("gateway.lan", "--lan", &self.lan), ("gateway.wan", "--wan", &self.wan)] {
            if !given.is_empty() {
                values.set_list(path, given, Origin::Flag(flag))?;
            }
        }
        Ok(values)
    }

    /// Whether `--config` was given.
    pub(crate) fn names_a_file(&self) -> bool {
        self.common.process.config.is_some()
    }
}

#[cfg(feature = "device")]
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Device {
    #[command(flatten)]
    common: Common,
    /// Interface towards the gateway; auto: the interface of the default route, not allowed in mode dhcp
    #[arg(long, value_name = "IF")]
    interface: Option<String>,
    /// DHCP mode: inform (next to another DHCP client), dhcp (act as the DHCP client) or off
    #[arg(long, value_name = "MODE")]
    mode: Option<String>,
}

#[cfg(feature = "device")]
impl Device {
    /// Defaults, overridden by the file and by these flags. Each call reads the file again, for SIGHUP.
    pub(crate) fn layers(&self, control: Option<&PathBuf>) -> Result<Values, Error> {
        let mut values = self.common.layers("device", control)?;
        set(
            &mut values,
            [("device.interface", "--interface", &self.interface), ("device.mode", "--mode", &self.mode)],
        )?;
        Ok(values)
    }
}

#[cfg(feature = "acs")]
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Acs {
    #[command(flatten)]
    process: Process,
    /// Address of the STUN server; repeat for several
    #[arg(long, value_name = "IPV4:PORT")]
    listen: Vec<String>,
    /// If the registry file cannot be read, move it aside and start with an empty registry
    #[arg(long)]
    pub(crate) start_empty: bool,
}

#[cfg(feature = "acs")]
impl Acs {
    /// Defaults, overridden by the file and by these flags. Each call reads the file again, for SIGHUP.
    pub(crate) fn layers(&self, control: Option<&PathBuf>) -> Result<Values, Error> {
        let mut values = self.process.layers(control)?;
        if !self.listen.is_empty() {
            values.set_list("acs.listen", &self.listen, Origin::Flag("--listen"))?;
        }
        Ok(values)
    }
}
