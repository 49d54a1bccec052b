use std::collections::BTreeMap;

use super::*;

/// A gateway with some rows.
struct Gateway {
    root: Root,
    info: GatewayIdentity,
    rows: BTreeMap<u32, DeviceIdentity>,
    binding: binding::Parameters,
}

impl Source for Gateway {
    fn root(&self) -> Root {
        self.root
    }

    fn device_info(&self) -> &GatewayIdentity {
        &self.info
    }

    fn binding(&self) -> &binding::Parameters {
        &self.binding
    }

    fn number_of_entries(&self) -> u32 {
        self.rows.len() as u32
    }

    fn notification_limit(&self) -> u32 {
        0
    }

    fn instances(&self) -> Vec<u32> {
        self.rows.keys().copied().collect()
    }

    fn device(&self, instance: u32) -> Option<&DeviceIdentity> {
        self.rows.get(&instance)
    }
}

fn gateway(root: Root, instances: &[u32]) -> Gateway {
    let row = |instance: u32| DeviceIdentity {
        manufacturer_oui: "00256d".parse().unwrap(),
        serial_number: format!("DEV{instance}").parse().unwrap(),
        product_class: if instance == 1 { "STB" } else { "" }.parse().unwrap(),
    };
    Gateway {
        root,
        info: GatewayIdentity {
            manufacturer_oui: "00256D".parse().unwrap(),
            serial_number: "GW0001".parse().unwrap(),
            product_class: "IGD".parse().unwrap(),
        },
        rows: instances.iter().map(|instance| (*instance, row(*instance))).collect(),
        binding: binding::Parameters::default(),
    }
}

fn values(source: &Gateway, path: &str) -> Vec<(String, String)> {
    let parameters = get(source, path).unwrap();
    parameters.into_iter().map(|parameter| (parameter.name, parameter.value.to_string())).collect()
}

const TABLE: &str = "InternetGatewayDevice.ManagementServer.ManageableDevice.";
const NUMBER: &str = "InternetGatewayDevice.ManagementServer.ManageableDeviceNumberOfEntries";
const LIMIT: &str = "InternetGatewayDevice.ManagementServer.ManageableDeviceNotificationLimit";
const URL: &str = "InternetGatewayDevice.ManagementServer.URL";

/// DM-2: the number of entries is the number of rows, a read-only unsignedInt.
#[test]
fn number_of_entries_is_the_number_of_rows() {
    for instances in [&[][..], &[1], &[1, 7, 9]] {
        let source = gateway(Root::Igd, instances);
        let parameter = get(&source, NUMBER).unwrap().remove(0);
        assert_eq!(parameter.value, Value::UnsignedInt(instances.len() as u32));
        assert_eq!(parameter.value.kind().name(), "unsignedInt");
        assert!(!parameter.writable);
        for text in ["5", "-1", "abc"] {
            assert_eq!(check(&source, NUMBER, text), Err(Fault::NonWritable), "{text}");
        }
    }
}

/// DM-3, T-33: the notification limit exists, is 0, and accepts seconds; other values are faults 9007 and 9006.
#[test]
fn notification_limit_takes_seconds() {
    let source = gateway(Root::Igd, &[]);
    let parameter = get(&source, LIMIT).unwrap().remove(0);
    assert_eq!((parameter.value, parameter.writable), (Value::UnsignedInt(0), true));
    assert_eq!(check(&source, LIMIT, "30"), Ok(Setting::NotificationLimit(30)));
    assert_eq!(check(&source, LIMIT, "-1"), Err(Fault::InvalidParameterValue));
    assert_eq!(check(&source, LIMIT, "4294967296"), Err(Fault::InvalidParameterValue));
    for text in ["abc", "", "-", "1.5", " 1"] {
        assert_eq!(check(&source, LIMIT, text), Err(Fault::InvalidParameterType), "{text:?}");
    }
}

/// DM-4, DM-5, DM-6, DM-7: a row has three strings; a missing product class is empty.
#[test]
fn rows_have_three_strings() {
    let source = gateway(Root::Igd, &[1, 7]);
    let name = |rest: &str| format!("{TABLE}{rest}");
    assert_eq!(
        values(&source, TABLE),
        [
            (name("1.ManufacturerOUI"), "00256D".into()),
            (name("1.SerialNumber"), "DEV1".into()),
            (name("1.ProductClass"), "STB".into()),
            (name("7.ManufacturerOUI"), "00256D".into()),
            (name("7.SerialNumber"), "DEV7".into()),
            (name("7.ProductClass"), String::new()),
        ]
    );
    assert_eq!(values(&source, &name("7.")).len(), 3);
    assert_eq!(values(&source, &name("7.SerialNumber")), [(name("7.SerialNumber"), "DEV7".into())]);
    assert_eq!(check(&source, &name("7.SerialNumber"), "x"), Err(Fault::NonWritable));
}

#[test]
fn partial_paths_reach_everything_below() {
    let source = gateway(Root::Igd, &[1]);
    for everything in ["", "InternetGatewayDevice."] {
        assert_eq!(values(&source, everything).len(), 1 + 3 + 15 + 3);
    }
    assert_eq!(
        values(&source, "InternetGatewayDevice.DeviceInfo."),
        [
            ("InternetGatewayDevice.DeviceInfo.ManufacturerOUI".into(), "00256D".into()),
            ("InternetGatewayDevice.DeviceInfo.SerialNumber".into(), "GW0001".into()),
            ("InternetGatewayDevice.DeviceInfo.ProductClass".into(), "IGD".into()),
        ]
    );
    assert_eq!(values(&gateway(Root::Igd, &[]), TABLE), []);
}

#[test]
fn unknown_names_are_fault_9005() {
    let source = gateway(Root::Igd, &[1]);
    for path in [
        "InternetGatewayDevice",
        "InternetGatewayDevice.ManagementServer",
        "InternetGatewayDevice.ManagementServer.Nothing",
        "InternetGatewayDevice.ManagementServer.Nothing.",
        "InternetGatewayDevice.ManagementServer.ManageableDeviceNumberOfEntries.",
        "InternetGatewayDevice..",
        ".",
        "Device.",
        "internetgatewaydevice.",
        "InternetGatewayDevice.ManagementServer.ManageableDevice.1",
        "InternetGatewayDevice.ManagementServer.ManageableDevice.2.",
        "InternetGatewayDevice.ManagementServer.ManageableDevice.2.SerialNumber",
        "InternetGatewayDevice.ManagementServer.ManageableDevice.01.SerialNumber",
        "InternetGatewayDevice.ManagementServer.ManageableDevice.+1.SerialNumber",
        "InternetGatewayDevice.ManagementServer.ManageableDevice.0.",
        "InternetGatewayDevice.ManagementServer.ManageableDevice.{i}.SerialNumber",
        "InternetGatewayDevice.ManagementServer.ManageableDevice..SerialNumber",
    ] {
        assert_eq!(get(&source, path), Err(Fault::InvalidParameterName), "{path}");
        assert_eq!(check(&source, path, "1"), Err(Fault::InvalidParameterName), "{path}");
    }
    assert_eq!(check(&source, TABLE, "1"), Err(Fault::InvalidParameterName));
}

#[test]
fn faults_have_their_numbers_and_names() {
    assert_eq!(Fault::InvalidParameterName.to_string(), "9005 Invalid parameter name");
    assert_eq!(Fault::NonWritable.to_string(), "9008 Attempt to set a non-writable parameter");
    assert_eq!(Fault::NotificationRejected.code(), 9009);
}

#[test]
fn each_root_has_its_own_objects() {
    let device2 = gateway(Root::Device2, &[3]);
    assert_eq!(values(&device2, "Device.ManagementServer.ManageableDevice.3.SerialNumber")[0].1, "DEV3");
    assert_eq!(get(&device2, NUMBER), Err(Fault::InvalidParameterName));
    let device1 = gateway(Root::Device1, &[]);
    assert_eq!(values(&device1, "Device.").len(), 3);
    assert_eq!(get(&device1, "Device.ManagementServer."), Err(Fault::InvalidParameterName));
}

/// DM-1, DM-4: `ManagementServer.` has two additional parameters and a table to which the ACS cannot add instances.
#[test]
fn names_tell_objects_and_parameters() {
    let source = gateway(Root::Igd, &[1]);
    let tell = |source: &Gateway, path: &str, next_level| -> Vec<(String, bool)> {
        let names = names(source, path, next_level).unwrap();
        names.into_iter().map(|name| (name.name.replace("InternetGatewayDevice.", "~"), name.writable)).collect()
    };
    let expected = |names: &[(&str, bool)]| -> Vec<(String, bool)> {
        names.iter().map(|(name, writable)| ((*name).to_owned(), *writable)).collect()
    };
    assert_eq!(
        tell(&source, "InternetGatewayDevice.ManagementServer.", false),
        expected(&[
            ("~ManagementServer.", false),
            ("~ManagementServer.URL", true),
            ("~ManagementServer.ConnectionRequestUsername", true),
            ("~ManagementServer.ConnectionRequestPassword", true),
            ("~ManagementServer.UDPConnectionRequestAddress", false),
            ("~ManagementServer.UDPConnectionRequestAddressNotificationLimit", true),
            ("~ManagementServer.STUNEnable", true),
            ("~ManagementServer.STUNServerAddress", true),
            ("~ManagementServer.STUNServerPort", true),
            ("~ManagementServer.STUNUsername", true),
            ("~ManagementServer.STUNPassword", true),
            ("~ManagementServer.STUNMaximumKeepAlivePeriod", true),
            ("~ManagementServer.STUNMinimumKeepAlivePeriod", true),
            ("~ManagementServer.NATDetected", false),
            ("~ManagementServer.ManageableDeviceNumberOfEntries", false),
            ("~ManagementServer.ManageableDeviceNotificationLimit", true),
            ("~ManagementServer.ManageableDevice.", false),
            ("~ManagementServer.ManageableDevice.1.", false),
            ("~ManagementServer.ManageableDevice.1.ManufacturerOUI", false),
            ("~ManagementServer.ManageableDevice.1.SerialNumber", false),
            ("~ManagementServer.ManageableDevice.1.ProductClass", false),
        ])
    );
    for source in [&source, &gateway(Root::Igd, &[])] {
        assert_eq!(
            tell(source, "InternetGatewayDevice.ManagementServer.", true),
            expected(&[
                ("~ManagementServer.URL", true),
                ("~ManagementServer.ConnectionRequestUsername", true),
                ("~ManagementServer.ConnectionRequestPassword", true),
                ("~ManagementServer.UDPConnectionRequestAddress", false),
                ("~ManagementServer.UDPConnectionRequestAddressNotificationLimit", true),
                ("~ManagementServer.STUNEnable", true),
                ("~ManagementServer.STUNServerAddress", true),
                ("~ManagementServer.STUNServerPort", true),
                ("~ManagementServer.STUNUsername", true),
                ("~ManagementServer.STUNPassword", true),
                ("~ManagementServer.STUNMaximumKeepAlivePeriod", true),
                ("~ManagementServer.STUNMinimumKeepAlivePeriod", true),
                ("~ManagementServer.NATDetected", false),
                ("~ManagementServer.ManageableDeviceNumberOfEntries", false),
                ("~ManagementServer.ManageableDeviceNotificationLimit", true),
                ("~ManagementServer.ManageableDevice.", false),
            ])
        );
    }
    let many = tell(&gateway(Root::Igd, &[1, 2, 3, 4, 5]), "", false);
    assert_eq!(many.iter().filter(|(name, _)| name == "~ManagementServer.").count(), 1);
    assert_eq!(many.len(), 1 + 1 + 4 + 17 + 5 * 4);
    assert_eq!(tell(&source, "", true), expected(&[("~", false)]));
    assert_eq!(
        tell(&source, "InternetGatewayDevice.", true),
        expected(&[("~DeviceSummary", false), ("~DeviceInfo.", false), ("~ManagementServer.", false)])
    );
    assert_eq!(tell(&source, NUMBER, false), expected(&[(&NUMBER.replace("InternetGatewayDevice.", "~"), false)]));
    assert_eq!(names(&source, NUMBER, true), Err(Fault::InvalidArguments));
    assert_eq!(names(&source, "InternetGatewayDevice.X.", true), Err(Fault::InvalidParameterName));
}

#[test]
fn a_password_is_written_and_reads_as_nothing() {
    let source = gateway(Root::Igd, &[]);
    let path = "InternetGatewayDevice.ManagementServer.ConnectionRequestPassword";
    assert_eq!(check(&source, path, "s3cret"), Ok(Setting::ConnectionRequestPassword("s3cret".into())));
    assert_eq!(values(&source, path), [(path.to_owned(), String::new())]);
    assert_eq!(check(&source, path, &"x".repeat(257)), Err(Fault::InvalidParameterValue));
    assert!(is_hidden(path) && is_hidden("Device.ManagementServer.ConnectionRequestPassword"));
    assert!(!is_hidden("InternetGatewayDevice.ManagementServer.URL") && !is_hidden(""));
    let username = path.replace("Password", "Username");
    assert!(is_connection_request_username(&username) && !is_hidden(&username));
    assert!(!is_connection_request_username(path) && !is_connection_request_username("Device.ManagementServer."));
}

#[test]
fn one_fault_refuses_every_write() {
    let source = gateway(Root::Igd, &[]);
    assert_eq!(check_all(&source, [(LIMIT, "5")]), Ok(vec![Setting::NotificationLimit(5)]));
    assert_eq!(
        check_all(&source, [(URL, "x"), (NUMBER, "5"), (LIMIT, "x")]),
        Err(vec![(NUMBER, Fault::NonWritable), (LIMIT, Fault::InvalidParameterType)])
    );
}

/// TR-069 A.3.2.1: a name that occurs twice is fault 9003, also with equal values and beside other faults.
#[test]
fn a_name_that_comes_twice_refuses_every_write() {
    let source = gateway(Root::Igd, &[]);
    for writes in [
        &[(LIMIT, "1"), (LIMIT, "2")][..],
        &[(LIMIT, "1"), (LIMIT, "1")],
        &[(LIMIT, "x"), (NUMBER, "5"), (URL, "y"), (LIMIT, "2")],
    ] {
        let refused = check_all(&source, writes.iter().copied());
        assert_eq!(refused, Err(vec![(LIMIT, Fault::InvalidArguments)]), "{writes:?}");
    }
    let twice = [("X", "1"), ("X", "2")];
    assert_eq!(check_all(&source, twice), Err(vec![("X", Fault::InvalidArguments)]));
}

#[test]
fn values_read_and_write_as_cwmp_does() {
    for (kind, text) in
        [(Kind::Int, "-1"), (Kind::Boolean, "1"), (Kind::UnsignedInt, "4294967295"), (Kind::String, "a b")]
    {
        let value = Value::parse(kind, text).unwrap();
        assert_eq!((value.kind(), value.to_string().as_str()), (kind, text));
    }
    assert_eq!(Value::parse(Kind::Boolean, "true"), Ok(Value::Boolean(true)));
    assert_eq!(Value::parse(Kind::Boolean, "yes"), Err(Fault::InvalidParameterType));
    assert_eq!(Value::parse(Kind::Int, "2147483648"), Err(Fault::InvalidParameterValue));
}

/// A device: root, identity, gateway information and STUN parameters.
struct DeviceSide(Root, GatewayIdentity, crate::device::GatewayInfo, binding::Parameters);

fn device(root: Root) -> DeviceSide {
    let info = gateway(root, &[]).info;
    DeviceSide(root, info, crate::device::GatewayInfo::default(), binding::Parameters::default())
}

impl Source for DeviceSide {
    fn root(&self) -> Root {
        self.0
    }

    fn side(&self) -> Side {
        Side::Device
    }

    fn device_info(&self) -> &GatewayIdentity {
        &self.1
    }

    fn binding(&self) -> &binding::Parameters {
        &self.3
    }

    fn number_of_entries(&self) -> u32 {
        0
    }

    fn notification_limit(&self) -> u32 {
        0
    }

    fn instances(&self) -> Vec<u32> {
        Vec::new()
    }

    fn device(&self, _: u32) -> Option<&DeviceIdentity> {
        None
    }

    fn gateway_info(&self) -> Option<&crate::device::GatewayInfo> {
        Some(&self.2)
    }
}

/// DM-12, DM-13, DM-14: three read-only strings, empty if no gateway is known; and no table of devices.
#[test]
fn a_device_has_gateway_info_below_every_root_and_a_gateway_has_none() {
    for root in [Root::Device1, Root::Igd, Root::Device2] {
        let identity = GatewayIdentity {
            manufacturer_oui: "00256D".parse().expect("an OUI"),
            serial_number: "DEV0001".parse().expect("text"),
            product_class: "STB".parse().expect("text"),
        };
        let (info, binding) = (crate::device::GatewayInfo::default(), binding::Parameters::default());
        let device = DeviceSide(root, identity, info, binding);
        let path = |relative: &str| format!("{}{relative}", root.prefix());
        let found = get(&device, &path("GatewayInfo.")).expect("an object of devices");
        let names: Vec<_> = found.iter().map(|parameter| parameter.name.clone()).collect();
        assert_eq!(
            names,
            ["ManufacturerOUI", "ProductClass", "SerialNumber"].map(|name| path(&format!("GatewayInfo.{name}")))
        );
        assert!(found.iter().all(|parameter| parameter.value == Value::String(String::new()) && !parameter.writable));
        assert_eq!(check(&device, &path("GatewayInfo.SerialNumber"), "X"), Err(Fault::NonWritable));
        assert_eq!(
            check(&device, &path("ManagementServer.URL"), "http://acs"),
            Ok(Setting::Url("http://acs".to_owned()))
        );
        let table = path("ManagementServer.ManageableDeviceNumberOfEntries");
        assert_eq!(get(&device, &table), Err(Fault::InvalidParameterName));
    }
}

/// GW-15, DM-11: the summary has DeviceAssociation:1 on InternetGatewayDevice:1.2, and all parameters of table 4 are
/// readable below one path. Device:2 has no summary.
#[test]
fn the_summary_claims_the_profile_that_is_served_whole() {
    let source = gateway(Root::Igd, &[1, 2]);
    let summary = values(&source, "InternetGatewayDevice.DeviceSummary");
    assert_eq!(summary[0].1, "InternetGatewayDevice:1.2[](DeviceAssociation:1, UDPConnReq:1)");
    let told = names(&source, "InternetGatewayDevice.ManagementServer.", false).unwrap();
    let read = get(&source, "InternetGatewayDevice.ManagementServer.").unwrap();
    let row = |instance: u32| {
        ["ManufacturerOUI", "SerialNumber", "ProductClass"].map(|name| format!("{TABLE}{instance}.{name}"))
    };
    for name in [row(1), row(2)].as_flattened().iter().chain([&NUMBER.to_owned()]) {
        assert!(told.iter().any(|told| told.name == *name && !told.writable), "{name}");
        assert!(read.iter().any(|read| read.name == *name), "{name}");
    }
    for object in [TABLE.to_owned(), format!("{TABLE}2.")] {
        assert!(told.iter().any(|told| told.name == object && !told.writable), "{object}");
    }
    assert_eq!(get(&gateway(Root::Device2, &[]), "Device.DeviceSummary"), Err(Fault::InvalidParameterName));
}

/// T-1, T-2: TR-111 once writes `ManagementDevice` and once `Device.Info` instead of `ManageableDevice` and
/// `DeviceInfo`; such objects do not exist.
#[test]
fn slips_of_the_text_are_no_names() {
    for (root, slip, meant) in [
        (Root::Igd, "InternetGatewayDevice.ManagementServer.ManagementDevice.", TABLE),
        (Root::Igd, "InternetGatewayDevice.Info.", "InternetGatewayDevice.DeviceInfo."),
        (Root::Device2, "Device.Info.", "Device.DeviceInfo."),
    ] {
        let source = gateway(root, &[1]);
        assert_eq!(get(&source, slip), Err(Fault::InvalidParameterName), "{slip}");
        assert_eq!(get(&source, meant).map(|found| found.len()), Ok(3), "{meant}");
    }
}

const TABLE_6: [(&str, &str, bool, &str); 10] = [
    ("UDPConnectionRequestAddress", "string", false, ""),
    ("UDPConnectionRequestAddressNotificationLimit", "unsignedInt", true, "0"),
    ("STUNEnable", "boolean", true, "0"),
    ("STUNServerAddress", "string", true, ""),
    ("STUNServerPort", "unsignedInt", true, "3478"),
    ("STUNUsername", "string", true, ""),
    ("STUNPassword", "string", true, ""),
    ("STUNMaximumKeepAlivePeriod", "int", true, "-1"),
    ("STUNMinimumKeepAlivePeriod", "unsignedInt", true, "30"),
    ("NATDetected", "boolean", false, "0"),
];

fn server(root: Root, name: &str) -> String {
    format!("{}ManagementServer.{name}", root.prefix())
}

/// DM-20, DM-21, DM-22, DM-23, DM-24, DM-25, DM-26, DM-27, DM-28, DM-29: all parameters of table 6, with their types,
/// exist below the roots of gateways and of devices. T-71: they have the defaults that TR-111 leaves open.
#[test]
fn table_6_is_there_on_gateways_and_devices_alike() {
    let gateways = [Root::Igd, Root::Device2].map(|root| gateway(root, &[]));
    let devices = [Root::Device1, Root::Igd, Root::Device2].map(device);
    let gateways = gateways.iter().map(|source| source as &dyn Source);
    for source in gateways.chain(devices.iter().map(|source| source as &dyn Source)) {
        for (name, kind, writable, value) in TABLE_6 {
            let path = server(source.root(), name);
            let found = get(source, &path).unwrap().remove(0);
            let found = (found.value.kind().name(), found.writable, found.value.to_string());
            assert_eq!(found, (kind, writable, value.to_owned()), "{path}");
            let text = if kind == "string" { "x" } else { "1" };
            assert_eq!(check(source, &path, text).err(), (!writable).then_some(Fault::NonWritable), "{path}");
        }
    }
}

/// DM-23 to DM-28: a value of the wrong type is fault 9006, one out of range is fault 9007.
#[test]
fn table_6_has_types_and_ranges() {
    let source = gateway(Root::Igd, &[]);
    let check = |name: &str, text: &str| check(&source, &server(Root::Igd, name), text);
    let long = "x".repeat(257);
    for (name, text, fault) in [
        ("UDPConnectionRequestAddressNotificationLimit", "-1", Fault::InvalidParameterValue),
        ("UDPConnectionRequestAddressNotificationLimit", "soon", Fault::InvalidParameterType),
        ("STUNEnable", "on", Fault::InvalidParameterType),
        ("STUNServerAddress", long.as_str(), Fault::InvalidParameterValue),
        ("STUNServerPort", "65536", Fault::InvalidParameterValue),
        ("STUNServerPort", "stun", Fault::InvalidParameterType),
        ("STUNUsername", long.as_str(), Fault::InvalidParameterValue),
        ("STUNPassword", long.as_str(), Fault::InvalidParameterValue),
        ("STUNMaximumKeepAlivePeriod", "-2", Fault::InvalidParameterValue),
        ("STUNMaximumKeepAlivePeriod", "2147483648", Fault::InvalidParameterValue),
        ("STUNMinimumKeepAlivePeriod", "-1", Fault::InvalidParameterValue),
    ] {
        assert_eq!(check(name, text), Err(fault), "{name} {text}");
    }
    let longest = "x".repeat(256);
    assert_eq!(check("STUNServerPort", "65535"), Ok(Setting::StunServerPort(65_535)));
    assert_eq!(check("STUNServerPort", "0"), Ok(Setting::StunServerPort(0)));
    assert_eq!(check("STUNUsername", &longest), Ok(Setting::StunUsername(longest.clone())));
    assert_eq!(check("STUNPassword", &longest), Ok(Setting::StunPassword(longest.clone())));
    assert_eq!(check("STUNMaximumKeepAlivePeriod", "-1"), Ok(Setting::StunMaximumKeepAlivePeriod(-1)));
    assert_eq!(check("STUNMaximumKeepAlivePeriod", "0"), Ok(Setting::StunMaximumKeepAlivePeriod(0)));
    assert_eq!(check("STUNEnable", "true"), Ok(Setting::StunEnable(true)));
}

/// DM-26: `STUNPassword` always reads as an empty string.
#[test]
fn the_password_of_stun_is_hidden() {
    let mut source = gateway(Root::Igd, &[]);
    "stunpassword1234".clone_into(&mut source.binding.stun_password);
    let path = server(Root::Igd, "STUNPassword");
    assert_eq!(values(&source, &path), [(path.clone(), String::new())]);
    assert!(is_hidden(&path) && is_hidden(&server(Root::Device2, "STUNPassword")));
    assert!(!is_hidden(&server(Root::Igd, "STUNUsername")));
}

/// DM-30: the summary has UDPConnReq:1 on the versions that it requires, with all parameters of tables 7 and 8.
#[test]
fn the_summary_claims_connection_requests_by_udp() {
    let gateway = gateway(Root::Igd, &[]);
    let [igd, device1, device2] = [Root::Igd, Root::Device1, Root::Device2].map(device);
    let sources: [(&dyn Source, &str); 3] =
        [(&gateway, "InternetGatewayDevice:1.2["), (&igd, "InternetGatewayDevice:1.2["), (&device1, "Device:1.1[")];
    for (source, version) in sources {
        let prefix = source.root().prefix();
        let summary = get(source, &format!("{prefix}DeviceSummary")).unwrap().remove(0);
        let value = summary.value.to_string();
        assert!(value.starts_with(version) && value.contains("UDPConnReq:1") && !summary.writable, "{value}");
        let told = names(source, &format!("{prefix}ManagementServer."), true).unwrap();
        for (name, _, writable, _) in TABLE_6 {
            let name = server(source.root(), name);
            assert!(told.contains(&Name { name, writable }), "{told:?}");
        }
    }
    assert_eq!(get(&device2, "Device.DeviceSummary"), Err(Fault::InvalidParameterName));
}
