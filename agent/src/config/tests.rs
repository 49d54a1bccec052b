use std::path::Path;

use tr111_common::config::Rate;

use super::*;
use crate::config::key::{Effect, Form, KEYS};

/// A file with all sections.
const CONTRACT: &str = r#"
[gateway]
lan = ["lan0"]              # interfaces facing the devices
wan = ["wan0"]              # optional
manufacturer_oui = "00256d"
serial_number = "GW0001"
product_class = "IGD"       # optional
data_model = "igd"          # igd | device2
[gateway.association]
max_rows = 65536
max_identities_per_mac = 16
max_bindings_per_row = 32
dialect = "auto"            # auto | tr111 | tr124
probe_interval_s = 60
probe_count = 3
nak_grace_s = 10
[gateway.binding]
extend_nat_timeout_s = 300  # 0: off
mark = "0x01000000/0x01000000"
stun_ports = [3478]
[gateway.police]
wan_connreq_pps = 0
lan_dhcp_pps = 0
[agent]
state_dir = "/var/lib/tr111"
pin_dir = "/sys/fs/bpf/tr111"
control = "/run/tr111/control.sock"
metrics = "127.0.0.1:9111"
log = "info"
[device]
interface = "eth0"
mode = "inform"             # inform | dhcp | off
manufacturer_oui = "00256D"
serial_number = "DEV0001"
product_class = "STB"
data_model = "device1"
connection_request_listen = "0.0.0.0:7547"
[management_server]
url = ""
connection_request_username = ""
tcp_connection_requests = "external"
connection_request_password_file = ""
stun_enable = false
stun_server_address = ""
stun_server_port = 3478
stun_username = ""
stun_password_file = ""
stun_maximum_keep_alive_period = -1
stun_minimum_keep_alive_period = 30
[acs]
listen = ["0.0.0.0:3478"]
approach = "both"           # stun | notification | both
xdp = []
registry = "embedded"
api = "127.0.0.1:8111"
api_token_file = ""
"#;

fn read(text: &str) -> Result<Values, Error> {
    let mut values = Values::default();
    values.read(Path::new("tr111.toml"), text)?;
    Ok(values)
}

fn refusal(text: &str) -> String {
    read(text).expect_err(text).to_string()
}

#[test]
fn the_file_of_the_documentation_is_accepted_and_equals_the_presets() {
    let values = read(CONTRACT).expect("valid");
    let gateway = Gateway::try_from(&values).expect("complete");
    assert_eq!(gateway.lan, ["lan0"]);
    assert_eq!(gateway.identity.to_string(), "00256D-IGD-GW0001");
    let presets = Values::default();
    assert_eq!(gateway.association, Association::from(&presets));
    assert_eq!(gateway.agent, Agent::from(&presets));
}

#[test]
fn an_unknown_key_names_file_line_section_and_the_nearest_key() {
    assert_eq!(
        refusal("# comment\n[gateway]\nlann = [\"lan0\"]\n"),
        "tr111.toml:3: unknown key \"lann\" in [gateway]; did you mean \"lan\"?"
    );
    assert_eq!(
        refusal("[gateway]\nmax_rows = 3\n"),
        "tr111.toml:2: unknown key \"max_rows\" in [gateway]; did you mean \"max_rows\" in [gateway.association]?"
    );
}

#[test]
fn an_unknown_section_names_the_nearest_section() {
    assert_eq!(refusal("[gatway]\nlan = []\n"), "tr111.toml:1: unknown key \"gatway\"; did you mean [gateway]?");
    assert_eq!(
        refusal("[gateway.asociation]\nmax_rows = 1\n"),
        "tr111.toml:1: unknown key \"asociation\" in [gateway]; did you mean [gateway.association]?"
    );
}

#[test]
fn a_wrong_value_says_what_was_expected() {
    for (text, reason) in [
        ("[gateway]\nlan = \"lan0\"", "tr111.toml:2: lan in [gateway]: expected a list of strings, not \"lan0\""),
        (
            "[gateway]\n\ndata_model = \"devise2\"",
            "tr111.toml:3: data_model in [gateway]: expected igd | device2, not \"devise2\"; did you mean \"device2\"?",
        ),
        (
            "[gateway.association]\nmax_rows = 0",
            "tr111.toml:2: max_rows in [gateway.association]: 0 is out of range, 1 to 65536",
        ),
        (
            "[gateway.association]\nmax_rows = \"many\"",
            "tr111.toml:2: max_rows in [gateway.association]: expected a whole number, not \"many\"",
        ),
        ("[gateway]\nlan = [\"a\", \"a\"]", "tr111.toml:2: lan in [gateway]: \"a\" is listed twice"),
        (
            "[gateway]\nmanufacturer_oui = \"00:25:6D\"",
            "tr111.toml:2: manufacturer_oui in [gateway]: expected six hexadecimal digits such as \"00256D\", not \"00:25:6D\"",
        ),
        (
            "[gateway.association]\nenterprises = [1,2,3,4,5]",
            "tr111.toml:2: enterprises in [gateway.association]: at most 4 numbers, not 5",
        ),
        ("gateway = 3", "tr111.toml:1: unknown key \"gateway\"; did you mean [gateway]?"),
    ] {
        assert_eq!(refusal(text), reason);
    }
}

#[test]
fn of_several_errors_the_first_in_the_file_is_told() {
    let text = "[gateway.association]\nzzz = 1\nmax_rows = 0\n[agent]\naaa = 1\n";
    assert!(refusal(text).starts_with("tr111.toml:2: "), "{}", refusal(text));
}

#[test]
fn text_that_is_not_toml_is_one_line_with_its_number() {
    let refusal = refusal("[gateway]\nlan = [\n\nserial_number = 4");
    assert!(refusal.starts_with("tr111.toml:") && !refusal.contains('\n'), "{refusal}");
}

#[test]
fn flags_override_the_file_and_are_named_when_they_are_wrong() {
    let mut values = read(CONTRACT).expect("valid");
    values.set("gateway.serial_number", "GW0002", Origin::Flag("--serial")).expect("valid");
    assert_eq!(values.text("gateway", "serial_number"), "GW0002");
    let error = values.set("gateway.manufacturer_oui", "xyz", Origin::Flag("--oui")).expect_err("wrong");
    assert!(error.to_string().starts_with("--oui: manufacturer_oui in [gateway]: expected six"), "{error}");
}

#[test]
fn a_gateway_without_interface_or_identity_says_which_flag_gives_it() {
    let error = Gateway::try_from(&Values::default()).expect_err("nothing set");
    assert!(error.to_string().contains("lan in [gateway] is missing: give --lan IF"), "{error}");
}

#[test]
fn every_preset_obeys_its_own_form_and_every_key_is_explained() {
    let values = Values::default();
    for key in KEYS {
        assert!(!key.help.is_empty(), "{}", key.path());
        let Some((value, _)) = values.get(key) else { continue };
        let text = value.to_string();
        let mut again = Values::default();
        again.set(&key.path(), &text, Origin::Tune).expect("a preset is valid");
        assert_eq!(again.get(key).map(|(value, _)| value), Some(value), "{}", key.path());
    }
}

#[test]
fn both_ends_of_every_association_range_fit_their_type() {
    for key in KEYS.iter().filter(|key| key.section == "gateway.association" && key.effect != Effect::Obsolete) {
        let Form::Integer(least, most) = key.form else { continue };
        for number in [least, most] {
            let mut values = Values::default();
            values.set(&key.path(), &number.to_string(), Origin::Tune).expect("in range");
            assert!(u32::try_from(number).is_ok(), "{}", key.path());
            let _ = Association::from(&values).kernel(0);
        }
    }
}

#[test]
fn a_budget_of_ten_messages_a_second_earns_one_in_100_ms() {
    let mut values = Values::default();
    values.set("gateway.association.mac_budget_pps", "10", Origin::Tune).expect("valid");
    assert_eq!(Association::from(&values).kernel(0).budget, Rate::new(100_000_000, 50));
    values.set("gateway.association.mac_budget_pps", "0", Origin::Tune).expect("valid");
    assert_eq!(Association::from(&values).kernel(0).budget.interval, 0);
}

/// T-45: as for values that the ACS sets, the minimum must not be above the maximum.
#[test]
fn a_keep_alive_period_that_cannot_be_is_refused_with_its_place() {
    let mut values = Values::default();
    let text = "[management_server]\nstun_minimum_keep_alive_period = 20\nstun_maximum_keep_alive_period = 10\n";
    values.read(Path::new("tr111.toml"), text).expect("each is in its range");
    let error = ManagementServer::try_from(&values).expect_err("no such period");
    assert_eq!(
        error.to_string(),
        "tr111.toml:3: stun_maximum_keep_alive_period in [management_server]: 10 is below \
         stun_minimum_keep_alive_period, which is 20"
    );
    values.set("management_server.stun_maximum_keep_alive_period", "20", Origin::Tune).expect("in range");
    assert_eq!(
        ManagementServer::try_from(&values).map(|server| server.stun.stun_minimum_keep_alive_period).ok(),
        Some(20)
    );
}

/// Reads a file of `examples/` twice: as it is, and with all settings that are switched off by a `#` switched on. Neither
/// has an unknown key, a wrong value or an obsolete key.
fn example(text: &str) -> [Values; 2] {
    fn switched_on(line: &str) -> &str {
        match line.strip_prefix('#') {
            // In a comment, a blank follows the `#`.
            Some(setting) if setting.starts_with(|first: char| first.is_ascii_lowercase()) => setting,
            _ => line,
        }
    }
    let complete = text.lines().map(switched_on).collect::<Vec<_>>().join("\n");
    [text, complete.as_str()].map(|text| {
        let values = read(text).expect("a configuration");
        assert_eq!(values.obsolete().count(), 0);
        values
    })
}

#[test]
fn the_examples_are_configurations() {
    #[cfg(feature = "device")]
    for values in example(include_str!("../../../examples/device.toml")) {
        let device = Device::try_from(&values).expect("complete");
        assert!(device.management_server.stun.stun_enable);
    }
    #[cfg(feature = "acs")]
    for values in example(include_str!("../../../examples/acs.toml")) {
        let acs = Acs::from(&values);
        assert!(acs.api.is_some());
    }
    for values in example(include_str!("../../../examples/gateway.toml")) {
        let gateway = Gateway::try_from(&values).expect("complete");
        assert_eq!(gateway.lan, ["br-lan"]);
    }
}
