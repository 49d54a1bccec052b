use std::collections::BTreeMap;

use super::*;

/// A gateway with some rows.
struct Gateway {
    root: Root,
    info: GatewayIdentity,
    rows: BTreeMap<u32, DeviceIdentity>,
}

impl Source for Gateway {
    fn root(&self) -> Root {
        self.root
    }

    fn device_info(&self) -> &GatewayIdentity {
        &self.info
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
    }
}

fn values(source: &Gateway, path: &str) -> Vec<(String, String)> {
    let parameters = get(source, path).unwrap();
    parameters.into_iter().map(|parameter| (parameter.name, parameter.value.to_string())).collect()
}

const TABLE: &str = "InternetGatewayDevice.ManagementServer.ManageableDevice.";
const NUMBER: &str = "InternetGatewayDevice.ManagementServer.ManageableDeviceNumberOfEntries";
const LIMIT: &str = "InternetGatewayDevice.ManagementServer.ManageableDeviceNotificationLimit";

/// DM-2: the number of entries is the number of rows, an unsignedInt that cannot be set.
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

/// DM-3, T-33: the notification limit is there, holds 0, and takes seconds: others are faults 9007 and 9006.
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

/// DM-4, DM-5, DM-6, DM-7: a row has three strings, an empty one for a class that the device does not give.
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
        assert_eq!(values(&source, everything).len(), 1 + 3 + 5 + 3);
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

/// DM-1, DM-4: `ManagementServer.` is extended by two parameters and a table to which no ACS can add.
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
                ("~ManagementServer.ManageableDeviceNumberOfEntries", false),
                ("~ManagementServer.ManageableDeviceNotificationLimit", true),
                ("~ManagementServer.ManageableDevice.", false),
            ])
        );
    }
    let many = tell(&gateway(Root::Igd, &[1, 2, 3, 4, 5]), "", false);
    assert_eq!(many.iter().filter(|(name, _)| name == "~ManagementServer.").count(), 1);
    assert_eq!(many.len(), 1 + 1 + 4 + 7 + 5 * 4);
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
}

#[test]
fn one_fault_refuses_every_write() {
    let source = gateway(Root::Igd, &[]);
    assert_eq!(check_all(&source, [(LIMIT, "5")]), Ok(vec![Setting::NotificationLimit(5)]));
    assert_eq!(
        check_all(&source, [(LIMIT, "5"), (NUMBER, "5"), (LIMIT, "x")]),
        Err(vec![(NUMBER, Fault::NonWritable), (LIMIT, Fault::InvalidParameterType)])
    );
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

/// A device: what it is, and what it knows of its gateway.
struct DeviceSide(Root, GatewayIdentity, crate::device::GatewayInfo);

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

/// DM-12, DM-13, DM-14: three read-only texts, empty where no gateway is known; and no table of devices.
#[test]
fn a_device_has_gateway_info_below_every_root_and_a_gateway_has_none() {
    for root in [Root::Device1, Root::Igd, Root::Device2] {
        let identity = GatewayIdentity {
            manufacturer_oui: "00256D".parse().expect("an OUI"),
            serial_number: "DEV0001".parse().expect("text"),
            product_class: "STB".parse().expect("text"),
        };
        let device = DeviceSide(root, identity, crate::device::GatewayInfo::default());
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

/// GW-15, DM-11: the summary claims DeviceAssociation:1 on InternetGatewayDevice:1.2 and nothing else, and everything of
/// table 4 can be read at one path. Device:2 has no summary.
#[test]
fn the_summary_claims_the_profile_that_is_served_whole() {
    let source = gateway(Root::Igd, &[1, 2]);
    let summary = values(&source, "InternetGatewayDevice.DeviceSummary");
    assert_eq!(summary[0].1, "InternetGatewayDevice:1.2[](DeviceAssociation:1)");
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

/// T-1, T-2: TR-111 writes `ManagementDevice` and `Device.Info` once each where it means `ManageableDevice` and
/// `DeviceInfo`; there are no such objects.
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
