//! The configuration of the ACS role.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    num::NonZero,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use tr111_core::{
    acs::{Approach, Challenge, Duplicates, ResponseAddress, Settings, association},
    stun::Variants,
};

use super::{Agent, TlsFiles, Values};
use crate::{api, registry::Location};

const SECTION: &str = "acs";

/// Configuration of `tr111 run acs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acs {
    /// Addresses of the STUN server.
    pub listen: Vec<SocketAddrV4>,
    /// Threads of the STUN server per address.
    pub threads: NonZero<usize>,
    /// Interfaces with the line-rate path.
    pub xdp: Vec<String>,
    /// Location of the registry.
    pub registry: Location,
    /// `--start-empty`: move a registry that cannot be read aside and create an empty one. Not a key of the file.
    pub start_empty: bool,
    /// File with the password of the Redis server.
    pub registry_password_file: Option<PathBuf>,
    /// Files for TLS with the Redis server.
    pub registry_tls: TlsFiles,
    /// File with the key that encrypts the passwords of CPEs. `None`: passwords are stored in clear.
    pub registry_encryption_key_file: Option<PathBuf>,
    /// The HTTP API; `None`: off.
    pub api: Option<api::Settings>,
    /// `[agent]`
    pub agent: Agent,
}

impl From<&Values> for Acs {
    fn from(values: &Values) -> Self {
        // The form of the values was checked when they were read.
        let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 3478);
        let cores = || thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
        let threads = usize::try_from(values.integer(SECTION, "threads")).ok().and_then(NonZero::new);
        let agent = Agent::from(values);
        let file = |name| Some(values.text(SECTION, name)).filter(|file| !file.is_empty()).map(PathBuf::from);
        Self {
            registry: match values.text(SECTION, "registry").parse() {
                Ok(address) => Location::Redis(address),
                Err(_) => Location::Embedded(agent.state_dir.clone()),
            },
            start_empty: false,
            registry_password_file: file("registry_password_file"),
            registry_tls: TlsFiles {
                ca: file("registry_ca_file"),
                certificate: file("registry_certificate_file"),
                key: file("registry_key_file"),
            },
            registry_encryption_key_file: file("registry_encryption_key_file"),
            listen: values.texts(SECTION, "listen").iter().map(|text| text.parse().unwrap_or(any)).collect(),
            threads: threads.unwrap_or_else(cores),
            api: api(values, &agent.state_dir),
            xdp: values.texts(SECTION, "xdp").to_vec(),
            agent,
        }
    }
}

/// Value of `api_token_file` for access without a token.
const NO_TOKEN: &str = "none";

fn api(values: &Values, state_dir: &Path) -> Option<api::Settings> {
    let file = |name| Some(values.text(SECTION, name)).filter(|text| !text.is_empty()).map(PathBuf::from);
    // Empty: off.
    let address = values.text(SECTION, "api").parse().ok()?;
    let token = match values.text(SECTION, "api_token_file") {
        "" => api::Token::Made(state_dir.join(api::TOKEN_FILE)),
        NO_TOKEN => api::Token::None,
        file => api::Token::Named(file.into()),
    };
    Some(api::Settings {
        address,
        token,
        certificate_file: file("api_certificate_file"),
        key_file: file("api_key_file"),
    })
}

/// Settings of the ACS that can be changed at run time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcsKnobs {
    /// Settings of the STUN server.
    pub stun: Settings,
    /// Binding Requests per second and source address; 0: no limit.
    pub source_pps: u32,
    /// CPEs that may be added until the registry has so many.
    pub max_cpes: u32,
    /// How associations are decided.
    pub association: association::Settings,
}

impl From<&Values> for AcsKnobs {
    fn from(values: &Values) -> Self {
        let text = |name| values.text(SECTION, name);
        let stun = Settings {
            approach: match text("approach") {
                "stun" => Approach::Stun,
                "notification" => Approach::Notification,
                _ => Approach::Both,
            },
            challenge: match text("challenge") {
                "change" => Challenge::Change,
                "binding" => Challenge::Binding,
                "all" => Challenge::All,
                _ => Challenge::Moved,
            },
            // The form of the value was checked when it was read.
            variants: text("mi_variants").parse().unwrap_or(Variants::FIELD),
            response_address: match text("response_address") {
                "any" => ResponseAddress::Any,
                "off" => ResponseAddress::Off,
                _ => ResponseAddress::Own,
            },
            duplicates: match text("dup") {
                "drop" => Duplicates::Drop,
                _ => Duplicates::Replay,
            },
            ..Settings::default()
        };
        let number = |name| u32::try_from(values.integer(SECTION, name)).unwrap_or(u32::MAX);
        let (source_pps, max_cpes) = (number("source_pps"), number("max_cpes"));
        Self { stun, source_pps, max_cpes, association: association(values) }
    }
}

fn association(values: &Values) -> association::Settings {
    const SECTION: &str = "acs.association";
    let count = |name| usize::try_from(values.integer(SECTION, name)).unwrap_or(usize::MAX);
    let delay = u64::try_from(values.integer(SECTION, "notification_delay_s")).unwrap_or_default();
    association::Settings {
        validation: values.boolean(SECTION, "validation"),
        notification_delay: Duration::from_secs(delay),
        max_devices: count("max_devices"),
        max_claims: count("max_claims"),
        max_table_rows: count("max_table_rows"),
        max_kept_rows: count("max_kept_rows"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_presets_are_the_defaults_of_the_core() {
        let preset = AcsKnobs::from(&Values::default());
        assert_eq!((preset.stun, preset.source_pps), (Settings::default(), 500));
        assert_eq!(preset.association, association::Settings::default());
    }
}
