//! Associations of devices with gateways (TR-111 1.2.3).

use axum::{extract::State, response::Response};
use serde::{Deserialize, Serialize};
use tr111_core::{
    acs::association::Table,
    identity::{DeviceIdentity, GatewayIdentity, Oui, Text},
};
use utoipa::{IntoParams, ToSchema};

use super::{
    Api,
    extract::{Body, InPath, InQuery, json, limit},
    problem::{Always, Named, Problem, WithBody},
};
use crate::{
    control::message::{Association, Identity},
    service::acs::describe,
};

/// GatewayInfo as a device reported it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GatewayInfoReport {
    /// Identity of the device, from its DeviceInfo.
    device: DeviceName,
    /// GatewayInfo of the device. `null`, or three empty strings: the device knows no gateway.
    #[serde(deserialize_with = "Option::deserialize")]
    #[schema(required)]
    gateway: Option<GatewayInfo>,
}

/// A Device Identity or Gateway Identity.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DeviceName {
    /// Six hexadecimal digits.
    #[schema(pattern = "^[0-9A-Fa-f]{6}$")]
    manufacturer_oui: String,
    /// 1 to 64 bytes of UTF-8.
    #[schema(min_length = 1, max_length = 64, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    serial_number: String,
    /// At most 64 bytes of UTF-8; empty if there is none.
    #[serde(default)]
    #[schema(max_length = 64, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    product_class: String,
}

/// GatewayInfo. All strings are empty if the device knows no gateway.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GatewayInfo {
    /// Six hexadecimal digits.
    #[schema(pattern = "^([0-9A-Fa-f]{6})?$")]
    manufacturer_oui: String,
    /// At most 64 bytes of UTF-8.
    #[schema(max_length = 64, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    serial_number: String,
    /// At most 64 bytes of UTF-8.
    #[serde(default)]
    #[schema(max_length = 64, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    product_class: String,
}

/// Result of the report of a device.
#[derive(Serialize, ToSchema)]
pub(super) struct GatewayInfoResult {
    /// `unchanged`; `validated` (the gateway's table contains the device); `unvalidated` (validation is off); `pending`
    /// (the gateway's ManageableDevice table is not known: read it and report it); `refused` (the gateway's table does
    /// not contain the device); `withdrawn` (the device reports no gateway).
    result: &'static str,
    /// Association of the device after the report. `null` if nothing is known of the device.
    #[schema(required)]
    association: Option<Association>,
}

/// The complete ManageableDevice table of a gateway.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ManageableDeviceReport {
    /// Identity of the gateway, from its DeviceInfo.
    gateway: DeviceName,
    /// ManageableDeviceNumberOfEntries, read together with the table.
    #[schema(maximum = 65536)]
    number_of_entries: usize,
    /// Rows of the table.
    #[schema(max_items = 65536)]
    devices: Vec<Row>,
    /// Whether Active notification is set on ManageableDeviceNumberOfEntries, so that every change will be reported. If
    /// `true`, the table is used until the next report. If `false`, it decides pending reports of devices and is then
    /// discarded.
    #[serde(default = "yes")]
    #[schema(default = true)]
    active_notification: bool,
}

fn yes() -> bool {
    true
}

/// A row of the ManageableDevice table. A row that is not a valid Device Identity is ignored.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Row {
    /// Six hexadecimal digits.
    manufacturer_oui: String,
    /// 1 to 64 bytes of UTF-8.
    serial_number: String,
    /// At most 64 bytes of UTF-8; empty if there is none.
    #[serde(default)]
    product_class: String,
}

/// Result of the report of a gateway.
#[derive(Serialize, ToSchema)]
pub(super) struct ManageableDeviceResult {
    /// Number of accepted rows.
    rows: usize,
    /// Number of ignored rows, which are not a valid Device Identity.
    ignored: usize,
    /// Associations that the report changed.
    changed: Vec<Association>,
}

/// A page of associations.
#[derive(Serialize, ToSchema)]
pub(super) struct AssociationPage {
    /// Associations, sorted by device identity.
    associations: Vec<Association>,
    /// Value of `after` for the next page; `null` on the last page.
    #[schema(required)]
    next: Option<String>,
}

/// Devices whose reported gateway was refused.
#[derive(Serialize, ToSchema)]
pub(super) struct Alarms {
    /// Devices whose reported gateway was refused, the oldest report first; at most 1000.
    alarms: Vec<Association>,
    /// Number of such devices, which may be more than are listed.
    count: u64,
}

/// Position and size of a page.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Part {
    /// Value of `next` of the previous page.
    after: Option<String>,
    /// Maximum devices per page.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
}

/// The part of an identity that is not in the path.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Class {
    /// Product class of the device. Omit it if the device has none.
    #[serde(default)]
    product_class: String,
}

/// Report the gateway of a device
///
/// Send this whenever an Inform or a `GetParameterValues` response contains GatewayInfo (TR-111 1.2.3). If the reported
/// gateway differs from the known one, it is validated against the gateway's ManageableDevice table (ACS-1 to ACS-4).
#[utoipa::path(
    post, path = "/v1/reports/gateway-info", tag = "associations", request_body = GatewayInfoReport,
    responses((status = 200, description = "Result of the report.", body = GatewayInfoResult), Always, WithBody)
)]
pub(super) async fn report_gateway_info(
    State(api): State<Api>,
    Body(report): Body<GatewayInfoReport>,
) -> Result<Response, Problem> {
    let device = identity(
        "device",
        &report.device.manufacturer_oui,
        &report.device.serial_number,
        &report.device.product_class,
    )?;
    let gateway = match report.gateway {
        None => None,
        Some(GatewayInfo { manufacturer_oui, serial_number, product_class })
            if [&manufacturer_oui, &serial_number, &product_class].into_iter().all(String::is_empty) =>
        {
            None
        }
        Some(GatewayInfo { manufacturer_oui, serial_number, product_class }) => {
            Some(gateway(identity("gateway", &manufacturer_oui, &serial_number, &product_class)?))
        }
    };
    let outcome = api.acs.report_gateway(&device, gateway).await?;
    let association = api.acs.association(&device);
    Ok(json(&GatewayInfoResult {
        result: outcome.label(),
        association: association.as_ref().map(describe::association),
    }))
}

/// Report the table of a gateway
///
/// Send this whenever ManageableDeviceNumberOfEntries changes, if Active notification is set on it, or after the table
/// was read because a report of a device is pending (ACS-5).
#[utoipa::path(
    post, path = "/v1/reports/manageable-devices", tag = "associations", request_body = ManageableDeviceReport,
    responses((status = 200, description = "Result of the report.", body = ManageableDeviceResult), Always, WithBody)
)]
pub(super) async fn report_manageable_devices(
    State(api): State<Api>,
    Body(report): Body<ManageableDeviceReport>,
) -> Result<Response, Problem> {
    let ManageableDeviceReport { gateway: name, number_of_entries, devices, active_notification } = report;
    let name = gateway(identity("gateway", &name.manufacturer_oui, &name.serial_number, &name.product_class)?);
    let row = |row: &Row| identity("row", &row.manufacturer_oui, &row.serial_number, &row.product_class).ok();
    let rows: Vec<_> = devices.iter().map(row).collect();
    let total = rows.len();
    let table = Table { entries: number_of_entries, rows, notifies: active_notification };
    let (ignored, changed) = api.acs.report_table(&name, table).await?;
    let changed = changed.iter().map(describe::association).collect();
    Ok(json(&ManageableDeviceResult { rows: total - ignored, ignored, changed }))
}

/// List devices and their gateways
#[utoipa::path(
    get, path = "/v1/associations", tag = "associations", params(Part),
    responses((status = 200, description = "A page of associations.", body = AssociationPage), Always)
)]
pub(super) async fn list(State(api): State<Api>, InQuery(part): InQuery<Part>) -> Result<Response, Problem> {
    let after = part.after.as_deref().map(parse_cursor).transpose()?;
    let limit = limit(part.limit)?;
    let records = api.acs.associations(after.as_ref(), limit);
    let next = records.last().filter(|_| records.len() == limit).map(|last| cursor(&last.device));
    Ok(json(&AssociationPage { associations: records.iter().map(describe::association).collect(), next }))
}

/// Read a device and its gateway
#[utoipa::path(
    get, path = "/v1/associations/{manufacturer_oui}/{serial_number}", tag = "associations",
    params(
        ("manufacturer_oui" = String, Path, description = "Six hexadecimal digits."),
        ("serial_number" = String, Path, description = "Serial number of the device."), Class
    ),
    responses((status = 200, description = "The association.", body = Association), Always, Named)
)]
pub(super) async fn read(
    State(api): State<Api>,
    InPath((oui, serial)): InPath<(String, String)>,
    InQuery(class): InQuery<Class>,
) -> Result<Response, Problem> {
    let unknown = || Problem::not_found("nothing is known of a device with this identity");
    // An invalid identity cannot have been reported.
    let device = identity("device", &oui, &serial, &class.product_class).map_err(|_| unknown())?;
    let record = api.acs.association(&device).ok_or_else(unknown)?;
    Ok(json(&describe::association(&record)))
}

/// List devices whose reported gateway was refused
#[utoipa::path(
    get, path = "/v1/alarms", tag = "associations",
    responses((status = 200, description = "The devices.", body = Alarms), Always)
)]
pub(super) async fn alarms(State(api): State<Api>) -> Response {
    let (records, count) = api.acs.alarms(1_000);
    json(&Alarms { alarms: records.iter().map(describe::association).collect(), count })
}

fn identity(whose: &str, oui: &str, serial: &str, class: &str) -> Result<DeviceIdentity, Problem> {
    let wrong = |what: &str, why: &str| Problem::unprocessable(format!("{whose}.{what}: {why}"));
    let text = |what, text: &str| text.parse::<Text>().map_err(|error| wrong(what, &error.to_string()));
    let identity = DeviceIdentity {
        manufacturer_oui: oui.parse::<Oui>().map_err(|error| wrong("manufacturer_oui", &error.to_string()))?,
        serial_number: text("serial_number", serial)?,
        product_class: text("product_class", class)?,
    };
    if identity.serial_number.is_empty() {
        return Err(wrong("serial_number", "must not be empty"));
    }
    Ok(identity)
}

fn gateway(DeviceIdentity { manufacturer_oui, serial_number, product_class }: DeviceIdentity) -> GatewayIdentity {
    GatewayIdentity { manufacturer_oui, serial_number, product_class }
}

/// The end of a page as an opaque text for [`parse_cursor`].
fn cursor(last: &DeviceIdentity) -> String {
    let Identity { manufacturer_oui, serial_number, product_class } = describe::identity(last);
    serde_json::json!([manufacturer_oui, serial_number, product_class]).to_string()
}

fn parse_cursor(text: &str) -> Result<DeviceIdentity, Problem> {
    let wrong = || Problem::bad_request("after must be the value of next in the previous page");
    let [oui, serial, class]: [String; 3] = serde_json::from_str(text).map_err(|_| wrong())?;
    identity("after", &oui, &serial, &class).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_whatever_is_in_it() {
        let device = identity("device", "00256d", "a-\"b\\/ü", "").expect("an identity");
        assert_eq!(parse_cursor(&cursor(&device)), Ok(device));
        for other in ["", "[]", "[\"00256D\",\"\",\"\"]", "[\"00256D\",\"S\"]", "{}"] {
            assert!(parse_cursor(other).is_err(), "{other}");
        }
    }
}
