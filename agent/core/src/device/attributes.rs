//! Notification attributes of `GatewayInfo`: Active unless the ACS sets another value (DEV-6).

use super::{GatewayInfo, GatewayParameter};
use crate::{
    model::{Fault, Notification, Root, Source},
    notification::{Notifications, State},
    time::BootTime,
};

/// The notification state of a device at its first start (DEV-6).
pub fn first_state(root: Root) -> State {
    let active = |parameter| (full_name(root, parameter), Notification::Active);
    State { attributes: GatewayParameter::ALL.map(active).into(), ..State::default() }
}

/// Handles a write of `ManagementServer.URL`, even of the same value: the ACS may be another one that has to learn the
/// gateway, so `GatewayInfo` becomes Active again (DEV-7, T-34).
pub fn url_written(notifications: &mut Notifications, source: &dyn Source) -> Result<(), Fault> {
    notifications.set(source, &object(source.root()), Notification::Active)
}

/// Full name of the object `GatewayInfo`, with the final dot.
pub fn object(root: Root) -> String {
    format!("{}GatewayInfo.", root.prefix())
}

/// Reports a change of `GatewayInfo` in one notification for all changed parameters (DEV-8, T-3).
pub fn changed(notifications: &mut Notifications, now: BootTime, root: Root, old: &GatewayInfo, new: &GatewayInfo) {
    let changes =
        old.changes(new).map(|parameter| (full_name(root, parameter), old.get(parameter), new.get(parameter)));
    notifications.changed_together(now, changes);
}

fn full_name(root: Root, parameter: GatewayParameter) -> String {
    format!("{}{}", root.prefix(), parameter.path())
}
