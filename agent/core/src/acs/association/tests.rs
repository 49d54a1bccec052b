use std::slice::from_ref;

use proptest::prelude::*;

use super::*;

fn device(serial: &str, class: &str) -> DeviceIdentity {
    DeviceIdentity {
        manufacturer_oui: "00256D".parse().expect("an OUI"),
        serial_number: serial.parse().expect("a text"),
        product_class: class.parse().expect("a text"),
    }
}

fn gateway(serial: &str) -> GatewayIdentity {
    let DeviceIdentity { manufacturer_oui, serial_number, product_class } = device(serial, "IGD");
    GatewayIdentity { manufacturer_oui, serial_number, product_class }
}

fn at(seconds: u64) -> Moment {
    Moment { boot: BootTime(seconds * 1_000_000_000), unix: UnixTime(1_000_000 + seconds) }
}

fn table(rows: &[DeviceIdentity], notifies: bool) -> Table {
    Table { entries: rows.len(), rows: rows.iter().cloned().map(Some).collect(), notifies }
}

fn told(associations: &mut Associations) -> Vec<Outcome> {
    std::iter::from_fn(|| associations.poll_change()).map(|change| change.outcome).collect()
}

/// The device's association, and its claim.
fn state(
    associations: &Associations,
    device: &DeviceIdentity,
) -> (Option<GatewayIdentity>, Option<(GatewayIdentity, bool)>) {
    let record = associations.get(device).cloned();
    let (association, claim) = record.map(|record| (record.association, record.claim)).unwrap_or_default();
    (association.map(|association| association.gateway), claim.map(|claim| (claim.gateway, claim.refused)))
}

/// ACS-1, ACS-2: a repeated report of the current association is unchanged and needs no table.
#[test]
fn says_unchanged_to_the_gateway_on_file() {
    let mut associations = Associations::new(Settings::default());
    let (stb, home) = (device("DEV0001", "STB"), gateway("GW0001"));
    associations.table(at(0), &home, table(from_ref(&stb), true)).expect("a table");
    assert_eq!(associations.report(at(1), &stb, Some(home.clone())), Ok(Outcome::Validated));
    assert_eq!(told(&mut associations), [Outcome::Validated]);
    // Later tables of the gateway without the device do not matter.
    associations.table(at(2), &home, table(&[], true)).expect("a table");
    assert_eq!(associations.report(at(3), &stb, Some(home.clone())), Ok(Outcome::Unchanged));
    assert_eq!(told(&mut associations), []);
    assert_eq!(state(&associations, &stb), (Some(home), None));
}

/// ACS-3: another gateway replaces the current one only once its table confirms the device.
#[test]
fn keeps_the_association_until_the_new_one_is_validated() {
    let mut associations = Associations::new(Settings::default());
    let (stb, home, other) = (device("DEV0001", "STB"), gateway("GW0001"), gateway("GW0002"));
    associations.table(at(0), &home, table(from_ref(&stb), true)).expect("a table");
    associations.report(at(1), &stb, Some(home.clone())).expect("room");
    assert_eq!(associations.report(at(2), &stb, Some(other.clone())), Ok(Outcome::Pending));
    assert_eq!(state(&associations, &stb), (Some(home.clone()), Some((other.clone(), false))));
    associations.table(at(3), &other, table(&[device("DEV0002", "STB")], true)).expect("a table");
    assert_eq!(state(&associations, &stb), (Some(home), Some((other.clone(), true))));
    assert_eq!(associations.alarms().count(), 1);
    associations.table(at(4), &other, table(&[device("DEV0002", "STB"), stb.clone()], true)).expect("a table");
    assert_eq!(state(&associations, &stb), (Some(other), None));
    assert_eq!(associations.alarms().count(), 0);
    assert_eq!(told(&mut associations), [Outcome::Validated, Outcome::Pending, Outcome::Refused, Outcome::Validated]);
}

/// ACS-1: a report of the current association withdraws a claim.
#[test]
fn gives_a_claim_up_for_what_is_on_file() {
    let mut associations = Associations::new(Settings::default());
    let (stb, home, other) = (device("DEV0001", "STB"), gateway("GW0001"), gateway("GW0002"));
    associations.table(at(0), &home, table(from_ref(&stb), true)).expect("a table");
    associations.report(at(1), &stb, Some(home.clone())).expect("room");
    associations.report(at(2), &stb, Some(other.clone())).expect("room");
    assert_eq!(associations.report(at(3), &stb, Some(home.clone())), Ok(Outcome::Unchanged));
    associations.table(at(4), &other, table(from_ref(&stb), true)).expect("a table");
    assert_eq!(state(&associations, &stb), (Some(home), None));
}

/// ACS-4, T-15, SEC-1: all elements of the identity are compared; an empty product class equals a missing one.
#[test]
fn compares_all_elements() {
    let row = device("DEV0001", "STB");
    let mut other_oui = row.clone();
    other_oui.manufacturer_oui = "00D09E".parse().expect("an OUI");
    let without = device("DEV0001", "");
    for (row, device, outcome) in [
        (&row, row.clone(), Outcome::Validated),
        (&row, device("DEV0001", "Stb"), Outcome::Refused),
        (&row, without.clone(), Outcome::Refused),
        (&row, device("DEV0002", "STB"), Outcome::Refused),
        (&row, other_oui, Outcome::Refused),
        (&without, without.clone(), Outcome::Validated),
        (&without, row.clone(), Outcome::Refused),
    ] {
        let mut associations = Associations::new(Settings::default());
        associations.table(at(0), &gateway("GW0001"), table(from_ref(row), true)).expect("a table");
        assert_eq!(associations.report(at(1), &device, Some(gateway("GW0001"))), Ok(outcome), "{row:?} {device:?}");
        // The same row in another gateway's table does not confirm the claim.
        assert_eq!(associations.report(at(1), &device, Some(gateway("GW0003"))), Ok(Outcome::Pending));
    }
}

/// ACS-5: a table that was read decides the waiting claims and is not stored.
#[test]
fn decides_by_a_table_that_was_read() {
    let mut associations = Associations::new(Settings::default());
    let (stb, home) = (device("DEV0001", "STB"), gateway("GW0001"));
    associations.table(at(0), &home, table(from_ref(&stb), false)).expect("a table");
    assert_eq!(associations.report(at(1), &stb, Some(home.clone())), Ok(Outcome::Pending));
    associations.table(at(2), &home, table(&[], false)).expect("a table");
    assert_eq!(state(&associations, &stb), (None, Some((home.clone(), true))));
    // The device repeats its report, so the gateway has to be read again.
    assert_eq!(associations.report(at(3), &stb, Some(home.clone())), Ok(Outcome::Pending));
    associations.table(at(4), &home, table(from_ref(&stb), false)).expect("a table");
    assert_eq!(state(&associations, &stb), (Some(home), None));
    assert_eq!(associations.tally(), Tally { validated: 1, ..Tally::default() });
}

/// ACS-5: a gateway may delay its notification, and the device's claim is not refused before.
#[test]
fn waits_for_a_delayed_notification() {
    let settings = Settings { notification_delay: Duration::from_mins(1), ..Settings::default() };
    let mut associations = Associations::new(settings);
    let (stb, forger, home) = (device("DEV0001", "STB"), device("DEV0666", "STB"), gateway("GW0001"));
    associations.table(at(0), &home, table(&[], true)).expect("a table");
    assert_eq!(associations.report(at(1), &stb, Some(home.clone())), Ok(Outcome::Pending));
    assert_eq!(associations.report(at(2), &forger, Some(home.clone())), Ok(Outcome::Pending));
    assert_eq!(associations.next_deadline(), Some(at(61).boot));
    associations.table(at(30), &home, table(from_ref(&stb), true)).expect("a table");
    assert_eq!(state(&associations, &stb), (Some(home.clone()), None));
    assert_eq!(associations.report(at(31), &forger, Some(home.clone())), Ok(Outcome::Pending));
    associations.pass(at(61));
    assert_eq!(state(&associations, &forger), (None, Some((home.clone(), false))));
    associations.pass(at(62));
    assert_eq!(state(&associations, &forger), (None, Some((home.clone(), true))));
    assert_eq!(associations.report(at(63), &forger, Some(home)), Ok(Outcome::Refused));
    assert_eq!(associations.next_deadline(), None);
}

/// ACS-6: validation is on by default; associations without validation are marked as such.
#[test]
fn validates_unless_told_not_to() {
    assert!(Settings::default().validation);
    let mut associations = Associations::new(Settings { validation: false, ..Settings::default() });
    let (stb, home) = (device("DEV0001", "STB"), gateway("GW0001"));
    assert_eq!(associations.report(at(1), &stb, Some(home.clone())), Ok(Outcome::Unvalidated));
    assert_eq!(associations.tally(), Tally { unvalidated: 1, ..Tally::default() });
    assert_eq!(associations.report(at(2), &stb, Some(home.clone())), Ok(Outcome::Unchanged));
    associations.set(Settings::default());
    assert_eq!(associations.report(at(3), &stb, Some(home.clone())), Ok(Outcome::Pending));
    associations.table(at(4), &home, table(from_ref(&stb), true)).expect("a table");
    let association = associations.get(&stb).and_then(|record| record.association.clone());
    assert_eq!(association, Some(Association { gateway: home, validated: true, since: at(1).unix }));
}

/// ACS-7, ACS-8, SEC-2: only the reports of device and gateway count. An unknown gateway confirms nothing; a device
/// with a row is confirmed, even if a relay in the LAN caused the row.
#[test]
fn knows_only_what_both_sides_report() {
    let mut associations = Associations::new(Settings::default());
    let (stb, relayed, home, foreign) =
        (device("DEV0001", "STB"), device("DEV0666", "STB"), gateway("GW0001"), gateway("GW9999"));
    assert_eq!(associations.report(at(0), &stb, Some(foreign.clone())), Ok(Outcome::Pending));
    associations.table(at(1), &home, table(&[stb.clone(), relayed.clone()], true)).expect("a table");
    associations.pass(at(1_000_000));
    assert_eq!(state(&associations, &stb), (None, Some((foreign, false))));
    assert_eq!(associations.report(at(2), &relayed, Some(home)), Ok(Outcome::Validated));
}

/// A device that reports no gateway, as after the end of its lease, loses its association.
#[test]
fn forgets_what_a_device_withdraws() {
    let mut associations = Associations::new(Settings::default());
    let (stb, home) = (device("DEV0001", "STB"), gateway("GW0001"));
    assert_eq!(associations.report(at(1), &stb, None), Ok(Outcome::Unchanged));
    associations.report(at(2), &stb, Some(home)).expect("room");
    assert_eq!(associations.report(at(3), &stb, None), Ok(Outcome::Withdrawn));
    assert_eq!((associations.get(&stb), associations.tally()), (None, Tally::default()));
}

/// An incomplete table is refused as a whole, as is one that is too long.
#[test]
fn refuses_a_table_in_parts() {
    let mut associations = Associations::new(Settings { max_table_rows: 2, ..Settings::default() });
    let (stb, home) = (device("DEV0001", "STB"), gateway("GW0001"));
    associations.report(at(0), &stb, Some(home.clone())).expect("room");
    let part = Table { entries: 2, ..table(from_ref(&stb), true) };
    assert_eq!(associations.table(at(1), &home, part), Err(Refusal::Incomplete { entries: 2, rows: 1 }));
    let long = table(&[stb.clone(), stb.clone(), stb.clone()], true);
    assert_eq!(associations.table(at(2), &home, long), Err(Refusal::TooManyRows { rows: 3, limit: 2 }));
    assert_eq!(state(&associations, &stb), (None, Some((home.clone(), false))));
    // A row that no device can have does not hide the others.
    let odd = Table { entries: 2, rows: vec![None, Some(stb.clone())], notifies: true };
    assert_eq!(associations.table(at(3), &home, odd), Ok(1));
    assert_eq!(state(&associations, &stb), (Some(home), None));
}

/// Another server received the claim, and this server has the table that decides it.
#[test]
fn decides_what_another_server_was_told() {
    let mut associations = Associations::new(Settings::default());
    let (stb, home) = (device("DEV0001", "STB"), gateway("GW0001"));
    associations.table(at(0), &home, table(from_ref(&stb), true)).expect("a table");
    let claim = Claim { gateway: home.clone(), refused: false, since: at(1).unix };
    associations.restore(at(1), Record { device: stb.clone(), association: None, claim: Some(claim) });
    assert_eq!(told(&mut associations), [Outcome::Validated]);
    assert_eq!(state(&associations, &stb), (Some(home), None));
}

#[derive(Clone, Debug)]
enum Step {
    Report(u8, Option<u8>),
    Table(u8, Vec<u8>, bool),
    Restore(u8),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..6, prop::option::weighted(0.9, 0u8..3)).prop_map(|(device, gateway)| Step::Report(device, gateway)),
        3 => (0u8..3, prop::collection::vec(0u8..6, 0..5), any::<bool>())
            .prop_map(|(gateway, rows, notifies)| Step::Table(gateway, rows, notifies)),
        1 => (0u8..6).prop_map(Step::Restore),
        1 => (0u64..40).prop_map(Step::Pass),
    ]
}

fn devices() -> Vec<DeviceIdentity> {
    (0..6).map(|number| device(&format!("DEV{}", number / 2), if number % 2 == 0 { "" } else { "STB" })).collect()
}

fn gateways() -> Vec<GatewayIdentity> {
    (0..3).map(|number| gateway(&format!("GW{number}"))).collect()
}

proptest! {
    /// ACS-3, ACS-4: an association changes only to a gateway whose table has the device, memory stays bounded, and the
    /// counts match the stored records.
    #[test]
    fn associates_only_what_a_table_confirms(
        steps in prop::collection::vec(step(), 1..60), delay in 0u64..30, bounds in (1usize..6, 1usize..8),
    ) {
        let settings = Settings {
            notification_delay: Duration::from_secs(delay),
            max_devices: 5,
            max_claims: bounds.0,
            max_kept_rows: bounds.1,
            ..Settings::default()
        };
        let (devices, gateways) = (devices(), gateways());
        let mut associations = Associations::new(settings);
        let mut tables: Vec<Option<Vec<DeviceIdentity>>> = vec![None; 3];
        let mut seconds = 0;
        for step in steps {
            let before: Vec<_> = devices.iter().map(|device| state(&associations, device).0).collect();
            match &step {
                Step::Report(device, gateway) => {
                    let gateway = gateway.map(|number| gateways[usize::from(number)].clone());
                    let _ = associations.report(at(seconds), &devices[usize::from(*device)], gateway);
                }
                Step::Table(gateway, rows, notifies) => {
                    let rows: Vec<_> = rows.iter().map(|&row| devices[usize::from(row)].clone()).collect();
                    let number = usize::from(*gateway);
                    prop_assert_eq!(associations.table(at(seconds), &gateways[number], table(&rows, *notifies)), Ok(0));
                    tables[number] = Some(rows);
                }
                Step::Restore(device) => {
                    let record = associations.get(&devices[usize::from(*device)]).cloned();
                    if let Some(record) = record {
                        associations.restore(at(seconds), record);
                    }
                }
                Step::Pass(time) => {
                    seconds += time;
                    associations.pass(at(seconds));
                    prop_assert!(associations.next_deadline().is_none_or(|until| until > at(seconds).boot));
                }
            }
            for (device, before) in devices.iter().zip(before) {
                let after = state(&associations, device).0;
                if after != before && let Some(after) = after {
                    let number = gateways.iter().position(|gateway| *gateway == after).expect("one of them");
                    prop_assert!(tables[number].as_ref().is_some_and(|rows| rows.contains(device)), "{:?}", step);
                }
            }
            let tally = associations.tally();
            let held: Vec<_> = associations.after(None).collect();
            let claims = |refused| held.iter().filter_map(|record| record.claim.as_ref()).filter(move |claim| claim.refused == refused).count() as u64;
            prop_assert_eq!((tally.pending, tally.refused), (claims(false), claims(true)));
            prop_assert_eq!(tally.validated, held.iter().filter(|record| record.association.is_some()).count() as u64);
            prop_assert_eq!(associations.alarms().count() as u64, tally.refused);
            prop_assert!(held.len() <= 5 && tally.pending + tally.refused <= bounds.0 as u64);
            prop_assert!(tally.rows + tally.tables <= bounds.1 as u64);
            prop_assert!(associations.file.is_consistent());
        }
    }

    /// ACS-5: the result depends on the reports of devices and gateways, not on their order.
    #[test]
    fn decides_alike_in_any_order(
        steps in Just(()).prop_flat_map(|()| {
            let reports = prop::collection::vec(0u8..3, 6);
            let tables = prop::collection::vec(prop::collection::vec(0u8..6, 0..5), 3);
            (reports, tables).prop_map(|(reports, tables)| {
                let reports = (0u8..).zip(reports).map(|(device, gateway)| Step::Report(device, Some(gateway)));
                reports.chain((0u8..).zip(tables).map(|(gateway, rows)| Step::Table(gateway, rows, true))).collect::<Vec<_>>()
            })
        }).prop_flat_map(|steps| (Just(steps.clone()), Just(steps).prop_shuffle())),
        delay in 0u64..3,
    ) {
        let (devices, gateways) = (devices(), gateways());
        let run = |steps: Vec<Step>| {
            let settings = Settings { notification_delay: Duration::from_secs(delay), ..Settings::default() };
            let mut associations = Associations::new(settings);
            for (second, step) in (0..).zip(steps) {
                match step {
                    Step::Report(device, gateway) => {
                        let gateway = gateway.map(|number| gateways[usize::from(number)].clone());
                        associations.report(at(second), &devices[usize::from(device)], gateway).expect("room");
                    }
                    Step::Table(gateway, rows, notifies) => {
                        let rows: Vec<_> = rows.iter().map(|&row| devices[usize::from(row)].clone()).collect();
                        associations.table(at(second), &gateways[usize::from(gateway)], table(&rows, notifies)).expect("whole");
                    }
                    _ => {}
                }
                associations.pass(at(second));
            }
            associations.pass(at(100));
            devices.iter().map(|device| state(&associations, device)).collect::<Vec<_>>()
        };
        let (ordered, shuffled) = steps;
        prop_assert_eq!(run(ordered), run(shuffled));
    }
}
