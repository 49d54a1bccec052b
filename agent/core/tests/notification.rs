//! Tests of notifications to the ACS: content, time and acknowledgement.

use std::time::Duration;

use proptest::prelude::*;
use tr111_core::{
    binding::Parameters,
    identity::{DeviceIdentity, GatewayIdentity},
    model::{Fault, Notification as Attribute, Root, Source},
    notification::{Cause, Input, Kind, Notifications, Output, Settings, State},
    time::BootTime,
};

const SERVER: &str = "InternetGatewayDevice.ManagementServer.";
const ENTRIES: &str = "InternetGatewayDevice.ManagementServer.ManageableDeviceNumberOfEntries";
const LIMIT: &str = "InternetGatewayDevice.ManagementServer.ManageableDeviceNotificationLimit";
const ROW: &str = "InternetGatewayDevice.ManagementServer.ManageableDevice.1.";
const SERIAL: &str = "InternetGatewayDevice.ManagementServer.ManageableDevice.1.SerialNumber";
const OWN_SERIAL: &str = "InternetGatewayDevice.DeviceInfo.SerialNumber";

/// A gateway with one row.
struct Values {
    info: GatewayIdentity,
    row: DeviceIdentity,
    binding: Parameters,
}

impl Values {
    fn new() -> Self {
        let (oui, serial, class) = ("00256D".parse().unwrap(), "S1".parse().unwrap(), "STB".parse().unwrap());
        let row = DeviceIdentity { manufacturer_oui: oui, serial_number: serial, product_class: class };
        let info = GatewayIdentity {
            manufacturer_oui: oui,
            serial_number: "GW".parse().unwrap(),
            product_class: "IGD".parse().unwrap(),
        };
        Self { info, row, binding: Parameters::default() }
    }
}

impl Source for Values {
    fn root(&self) -> Root {
        Root::Igd
    }

    fn device_info(&self) -> &GatewayIdentity {
        &self.info
    }

    fn binding(&self) -> &Parameters {
        &self.binding
    }

    fn number_of_entries(&self) -> u32 {
        1
    }

    fn notification_limit(&self) -> u32 {
        0
    }

    fn instances(&self) -> Vec<u32> {
        vec![1]
    }

    fn device(&self, instance: u32) -> Option<&DeviceIdentity> {
        (instance == 1).then_some(&self.row)
    }
}

/// The core, the time and the number of entries.
struct Acs {
    core: Notifications,
    now: BootTime,
    rows: u32,
    start: BootTime,
}

impl Acs {
    fn new(settings: Settings) -> Self {
        let start = BootTime::default() + Duration::from_secs(1_000);
        Self { core: Notifications::new(Root::Igd, settings, State::default()), now: start, rows: 0, start }
    }

    /// A core with Active on the number of entries, and a limit in seconds.
    fn active(limit: u32) -> Self {
        let mut acs = Self::new(Settings::default());
        acs.set(ENTRIES, Attribute::Active).unwrap();
        acs.handle(Input::Limit(limit));
        acs
    }

    fn set(&mut self, path: &str, attribute: Attribute) -> Result<(), Fault> {
        self.core.set(&Values::new(), path, attribute)
    }

    fn handle(&mut self, input: Input<'_>) {
        self.core.handle(self.now, input);
    }

    fn change(&mut self, name: &str, before: &str, value: &str) {
        self.handle(Input::Changed { name, before, value, cause: Cause::Other });
    }

    /// Adds (1) or removes (-1) rows, one after the other.
    fn rows(&mut self, steps: &[i32]) {
        for step in steps {
            let before = self.rows.to_string();
            self.rows = self.rows.checked_add_signed(*step).unwrap();
            self.change(ENTRIES, &before, &self.rows.to_string());
        }
    }

    fn pass_s(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        while let Some(deadline) = self.core.next_deadline().filter(|deadline| *deadline <= end) {
            self.now = self.now.max(deadline);
            self.handle(Input::Tick);
        }
        self.now = end;
        self.handle(Input::Tick);
    }

    /// Notifications since the last call: seconds from the start, and the values.
    fn told(&mut self) -> Vec<(u64, String)> {
        let told = std::iter::from_fn(|| self.core.poll_output()).map(|output| {
            let Output::Notify { time, parameters, kind, .. } = output;
            assert_eq!(kind, Kind::ActiveValueChange);
            let values: Vec<String> = parameters
                .into_iter()
                .map(|(name, value)| format!("{}={value}", name.rsplit('.').next().unwrap()))
                .collect();
            let values = values.join(" ").replace("ManageableDeviceNumberOfEntries", "N");
            (time.since(self.start).unwrap().as_secs(), values)
        });
        told.collect()
    }
}

fn told(expected: &[(u64, &str)]) -> Vec<(u64, String)> {
    expected.iter().map(|(at, values)| (*at, (*values).to_owned())).collect()
}

/// GW-12, GW-13, DM-2: with Active on the number of entries, each addition and each removal is notified.
#[test]
fn every_addition_and_removal_is_told() {
    let mut acs = Acs::active(0);
    acs.rows(&[1, 1]);
    acs.pass_s(5);
    acs.rows(&[-1]);
    assert_eq!(acs.told(), told(&[(0, "N=1"), (0, "N=2"), (5, "N=1")]));
}

/// GW-13: with Off nothing is notified, and earlier changes are not notified later.
#[test]
fn without_an_attribute_nothing_is_told() {
    let mut acs = Acs::new(Settings::default());
    acs.rows(&[1, 1]);
    acs.set(ENTRIES, Attribute::Active).unwrap();
    acs.pass_s(100);
    assert_eq!((acs.told(), acs.core.next_deadline()), (vec![], None));
    acs.set(ENTRIES, Attribute::Off).unwrap();
    acs.rows(&[1]);
    assert_eq!(acs.told(), []);
}

/// GW-13: a Passive change causes no notification, and is included in the next one.
#[test]
fn a_passive_change_goes_with_the_next_notification() {
    let mut acs = Acs::new(Settings::default());
    acs.set(ENTRIES, Attribute::Passive).unwrap();
    acs.set(OWN_SERIAL, Attribute::Active).unwrap();
    acs.rows(&[1, 1]);
    acs.pass_s(100);
    assert_eq!((acs.told(), acs.core.next_deadline()), (vec![], None));
    acs.change(OWN_SERIAL, "GW", "GW2");
    assert_eq!(acs.told(), told(&[(100, "SerialNumber=GW2 N=2")]));
}

/// GW-14, T-12: the first change is notified at once; later ones are combined into one with the latest value, when the
/// limit allows.
#[test]
fn the_limit_delays_and_coalesces() {
    let mut acs = Acs::active(30);
    acs.rows(&[1, 1, 1]);
    acs.pass_s(1);
    acs.rows(&[1, 1]);
    acs.pass_s(28);
    assert_eq!(acs.told(), told(&[(0, "N=1")]));
    acs.pass_s(1);
    assert_eq!(acs.told(), told(&[(30, "N=5")]));
    acs.pass_s(100);
    acs.rows(&[-1]);
    assert_eq!(acs.told(), told(&[(130, "N=4")]), "after a quiet time the next is at once again");
}

/// GW-14: the limit applies to the number of entries; other changes are notified at once, with all waiting changes.
#[test]
fn the_limit_is_about_the_number_of_entries() {
    let mut acs = Acs::active(30);
    acs.set(OWN_SERIAL, Attribute::Active).unwrap();
    acs.rows(&[1]);
    acs.change(OWN_SERIAL, "GW", "GW2");
    acs.change(OWN_SERIAL, "GW2", "GW3");
    assert_eq!(acs.told(), told(&[(0, "N=1"), (0, "SerialNumber=GW2"), (0, "SerialNumber=GW3")]));
    acs.pass_s(10);
    acs.rows(&[1]);
    acs.change(OWN_SERIAL, "GW3", "GW4");
    assert_eq!(acs.told(), told(&[(10, "SerialNumber=GW4 N=2")]));
    acs.rows(&[1]);
    acs.pass_s(29);
    assert_eq!(acs.told(), []);
    acs.pass_s(1);
    assert_eq!(acs.told(), told(&[(40, "N=3")]));
}

/// T-12, DM-3: a changed limit applies to waiting changes, whether longer or shorter.
#[test]
fn a_new_limit_counts_for_what_waits() {
    let mut acs = Acs::active(30);
    acs.rows(&[1, 1]);
    acs.pass_s(10);
    acs.handle(Input::Limit(60));
    acs.pass_s(30);
    assert_eq!(acs.told(), told(&[(0, "N=1")]));
    acs.handle(Input::Limit(45));
    assert_eq!(acs.core.next_deadline(), Some(acs.start + Duration::from_secs(45)));
    acs.pass_s(5);
    assert_eq!(acs.told(), told(&[(45, "N=2")]));
    acs.rows(&[1]);
    acs.handle(Input::Limit(0));
    assert_eq!(acs.told(), told(&[(45, "N=3")]));
}

/// T-12: an addition and a removal within the limit are notified, unless the operator suppresses that.
#[test]
fn what_was_undone_is_told_unless_suppressed() {
    for (suppress_net_zero, expected) in [(false, vec![(0, "N=1"), (30, "N=1")]), (true, vec![(0, "N=1")])] {
        let mut acs = Acs::active(30);
        acs.handle(Input::Settings(Settings { suppress_net_zero, ..Settings::default() }));
        acs.rows(&[1, 1, -1]);
        acs.pass_s(60);
        assert_eq!(acs.told(), told(&expected));
    }
}

/// T-11: another identity of a client is two changes, although the number is unchanged.
#[test]
fn a_change_of_identity_is_two_notifications() {
    let mut acs = Acs::active(0);
    acs.rows(&[1, -1, 1]);
    assert_eq!(acs.told(), told(&[(0, "N=1"), (0, "N=0"), (0, "N=1")]));
}

/// TR-069 A.3.2.1: writes of the ACS are not notified to it.
#[test]
fn writes_of_the_acs_are_not_told() {
    let mut acs = Acs::active(30);
    acs.set(LIMIT, Attribute::Active).unwrap();
    acs.handle(Input::Changed { name: LIMIT, before: "0", value: "30", cause: Cause::Acs });
    acs.pass_s(100);
    assert_eq!(acs.told(), []);
    acs.change(LIMIT, "30", "60");
    assert_eq!(acs.told(), told(&[(100, "ManageableDeviceNotificationLimit=60")]), "somebody else's write is");
}

/// DM-8, DM-10: Active and Passive are accepted on all parameters of table 2 except those of rows, which accept
/// Passive. DM-9: Active on the parameters of a row is fault 9009, unless the operator allows it.
#[test]
fn attributes_are_taken_and_refused_as_the_data_model_says() {
    let mut acs = Acs::new(Settings::default());
    for name in [ENTRIES, LIMIT] {
        for attribute in [Attribute::Active, Attribute::Passive, Attribute::Off] {
            assert_eq!(acs.set(name, attribute), Ok(()));
            assert_eq!(acs.core.attribute(name), attribute);
        }
    }
    for leaf in ["ManufacturerOUI", "SerialNumber", "ProductClass"] {
        let name = format!("{ROW}{leaf}");
        assert_eq!(acs.set(&name, Attribute::Active), Err(Fault::NotificationRejected));
        assert_eq!(acs.core.attribute(&name), Attribute::Off);
        assert_eq!(acs.set(&name, Attribute::Passive), Ok(()));
        assert_eq!(acs.core.attribute(&name), Attribute::Passive);
    }
    acs.handle(Input::Settings(Settings { active_on_rows: true, ..Settings::default() }));
    assert_eq!(acs.set(SERIAL, Attribute::Active), Ok(()));
    assert_eq!(acs.core.attribute(SERIAL), Attribute::Active);
}

/// A partial path sets all parameters below it, or none; an unknown name is fault 9005.
#[test]
fn a_partial_path_sets_all_or_nothing() {
    let mut acs = Acs::new(Settings::default());
    assert_eq!(acs.set(SERVER, Attribute::Active), Err(Fault::NotificationRejected));
    assert_eq!(acs.core.state(), State::default());
    assert_eq!(acs.set(SERVER, Attribute::Passive), Ok(()));
    for name in [ENTRIES, LIMIT, SERIAL] {
        assert_eq!(acs.core.attribute(name), Attribute::Passive);
    }
    assert_eq!(acs.core.attribute(OWN_SERIAL), Attribute::Off);
    for path in ["InternetGatewayDevice.Nothing", "InternetGatewayDevice.ManagementServer", "Device."] {
        assert_eq!(acs.set(path, Attribute::Passive), Err(Fault::InvalidParameterName));
    }
    assert_eq!(acs.set("", Attribute::Off), Ok(()));
    assert_eq!(acs.core.state(), State::default());
}

/// Instance numbers are not reused (T-32), so the attributes of a row are removed with it.
#[test]
fn attributes_of_a_row_go_with_it() {
    let mut acs = Acs::new(Settings::default());
    acs.set(SERVER, Attribute::Passive).unwrap();
    let before = acs.core.state().attributes.len();
    acs.handle(Input::Gone { object: ROW });
    assert_eq!(acs.core.state().attributes.len(), before - 3);
    assert_eq!((acs.core.attribute(SERIAL), acs.core.attribute(ENTRIES)), (Attribute::Off, Attribute::Passive));
}

/// A waiting change is discarded when its parameter is set to Off or removed.
#[test]
fn what_nobody_wants_any_more_is_not_told() {
    let mut acs = Acs::new(Settings::default());
    for name in [SERIAL, LIMIT, ENTRIES] {
        acs.set(name, Attribute::Passive).unwrap();
        acs.change(name, "1", "2");
    }
    acs.handle(Input::Gone { object: ROW });
    acs.set(LIMIT, Attribute::Off).unwrap();
    acs.set(OWN_SERIAL, Attribute::Active).unwrap();
    acs.change(OWN_SERIAL, "GW", "GW2");
    assert_eq!(acs.told(), told(&[(0, "SerialNumber=GW2 N=2")]));
}

/// Numbers of the unacknowledged notifications.
fn pending(core: &Notifications, after: u64) -> Vec<u64> {
    core.pending(after).map(|pending| pending.sequence).collect()
}

/// A notification is kept until it or a later one is acknowledged.
#[test]
fn notifications_stay_until_they_are_acknowledged() {
    let mut acs = Acs::active(0);
    acs.rows(&[1, 1, 1]);
    assert_eq!(pending(&acs.core, 0), [1, 2, 3]);
    assert_eq!(pending(&acs.core, 2), [3]);
    assert!(acs.core.acknowledge(2));
    assert_eq!(pending(&acs.core, 0), [3]);
    assert!(acs.core.acknowledge(1), "again");
    assert!(!acs.core.acknowledge(4), "nobody was told of that one");
    assert_eq!(pending(&acs.core, 0), [3]);
    assert_eq!(acs.told(), told(&[(0, "N=3")]), "the others went before they were put out");
}

/// T-30: a restart loses no notification, repeats no acknowledged one, and keeps the limit.
#[test]
fn a_restart_loses_and_repeats_nothing() {
    let mut acs = Acs::active(30);
    acs.set(LIMIT, Attribute::Passive).unwrap();
    acs.rows(&[1]);
    acs.pass_s(40);
    acs.rows(&[1, 1]);
    acs.core.acknowledge(1);
    assert_eq!(acs.told().len(), 1);
    let state = acs.core.state();
    acs.core = Notifications::new(Root::Igd, Settings::default(), state.clone());
    assert_eq!(acs.core.state(), state);
    assert_eq!((pending(&acs.core, 0), acs.core.poll_output()), (vec![2], None));
    acs.pass_s(29);
    assert_eq!(acs.told(), []);
    acs.pass_s(1);
    assert_eq!(acs.told(), told(&[(70, "N=3")]));
    assert_eq!(pending(&acs.core, 0), [2, 3]);
    assert_eq!(acs.core.attribute(LIMIT), Attribute::Passive);
}

/// T-31: a stored time in the future, from a wrong clock, delays notifications by at most the limit.
#[test]
fn a_wrong_clock_does_not_silence() {
    let mut acs = Acs::active(30);
    let mut state = acs.core.state();
    state.last_notification = Some(acs.now + Duration::from_hours(10_000));
    acs.core = Notifications::new(Root::Igd, Settings::default(), state);
    acs.rows(&[1]);
    acs.pass_s(30);
    assert_eq!(acs.told(), told(&[(30, "N=1")]));
}

/// UCR-14, T-27: Connection Requests cause one session until its notification is acknowledged; the next one after that
/// causes another session.
#[test]
fn connection_requests_are_coalesced_while_one_is_not_acknowledged() {
    let mut acs = Acs::new(Settings::default());
    acs.handle(Input::ConnectionRequest);
    acs.handle(Input::ConnectionRequest);
    let kinds = |acs: &Acs| acs.core.pending(0).map(|pending| (pending.sequence, pending.kind)).collect::<Vec<_>>();
    assert_eq!(kinds(&acs), [(1, Kind::ConnectionRequest)]);
    assert!(matches!(acs.core.poll_output(), Some(Output::Notify { sequence: 1, .. })));
    assert_eq!(acs.core.poll_output(), None);
    assert!(acs.core.acknowledge(1));
    acs.handle(Input::ConnectionRequest);
    acs.handle(Input::ConnectionRequest);
    assert_eq!(kinds(&acs), [(2, Kind::ConnectionRequest)]);
    // Repeating the first acknowledgement does not acknowledge the second notification.
    assert!(acs.core.acknowledge(1));
    assert_eq!(kinds(&acs), [(2, Kind::ConnectionRequest)]);
    acs.core = Notifications::new(Root::Igd, Settings::default(), acs.core.state());
    acs.handle(Input::ConnectionRequest);
    assert_eq!(kinds(&acs), [(2, Kind::ConnectionRequest)]);
    assert!(acs.core.acknowledge(2));
    assert_eq!(kinds(&acs), []);
    assert_eq!(Kind::ConnectionRequest.event(), "6 CONNECTION REQUEST");
}

/// Without acknowledgements memory is bounded, and the latest value is notified after an acknowledgement.
#[test]
fn without_a_subscriber_notifications_are_bounded() {
    let mut acs = Acs::active(0);
    acs.rows(&[1; 3_000]);
    assert_eq!((pending(&acs.core, 0).len(), acs.core.next_deadline()), (1_024, None));
    assert!(acs.core.acknowledge(1_024));
    acs.pass_s(0);
    assert_eq!(acs.told().last().unwrap().1, "N=3000");
    assert_eq!(pending(&acs.core, 0), [1_025]);
}

#[derive(Clone, Debug)]
enum Step {
    Row(bool),
    Pass(u64),
    Limit(u32),
    Restart,
    Acknowledge,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any::<bool>().prop_map(Step::Row),
        4 => (0u64..40).prop_map(Step::Pass),
        1 => (0u32..60).prop_map(Step::Limit),
        1 => Just(Step::Restart),
        1 => Just(Step::Acknowledge),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// GW-13, GW-14: notifications respect the limit and their order, and the last value is notified in the end.
    #[test]
    fn any_order_of_changes_keeps_the_limit(steps in prop::collection::vec(step(), 1..80)) {
        let mut acs = Acs::active(30);
        let (mut limit, mut changed, mut sequence, mut last, mut value) = (30u64, false, 0, None::<BootTime>, "0".to_owned());
        for step in steps.into_iter().chain([Step::Pass(100)]) {
            match step {
                Step::Row(true) => (acs.rows(&[1]), changed = true).1,
                Step::Row(false) if acs.rows > 0 => (acs.rows(&[-1]), changed = true).1,
                Step::Row(false) => {}
                Step::Pass(seconds) => acs.pass_s(seconds),
                Step::Limit(seconds) => {
                    limit = u64::from(seconds);
                    acs.handle(Input::Limit(seconds));
                }
                Step::Restart => acs.core = Notifications::new(Root::Igd, Settings::default(), acs.core.state()),
                Step::Acknowledge => prop_assert!(acs.core.acknowledge(sequence)),
            }
            while let Some(Output::Notify { sequence: next, time, parameters, .. }) = acs.core.poll_output() {
                prop_assert_eq!(next, sequence + 1);
                prop_assert!(last.is_none_or(|last| time >= last + Duration::from_secs(limit)));
                prop_assert_eq!(&parameters[0].0, ENTRIES);
                (sequence, last, value) = (next, Some(time), parameters[0].1.clone());
            }
        }
        prop_assert_eq!(value, if changed { acs.rows.to_string() } else { "0".to_owned() });
    }
}
