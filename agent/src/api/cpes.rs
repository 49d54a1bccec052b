//! CPEs, their credentials and their bindings.

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use tr111_core::{
    acs::{self, Approach},
    connreq::Authority,
    short::Short,
};
use utoipa::{IntoParams, ToSchema};

use super::{
    Api,
    extract::{Body, InPath, InQuery, json, limit},
    problem::{Always, Conflicting, Named, Problem, WithBody},
};
use crate::{control::message::NatBinding, service::acs::describe};

/// Maximum bytes of the string parameters in TR-111 Table 6.
const TEXT: usize = 256;

/// Credentials of a new CPE.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewCpe {
    /// STUNUsername, unique among the CPEs (STUN-21). For a CPE without STUNUsername, whose address is learned from
    /// notifications only, any unique name (STUN-46).
    #[schema(min_length = 1, max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    stun_username: String,
    /// STUNPassword. Without it, bindings of the CPE cannot be authenticated.
    #[serde(default)]
    #[schema(write_only, max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    stun_password: String,
    /// ConnectionRequestUsername. Without it, no Connection Request can be sent to the CPE.
    #[serde(default)]
    #[schema(max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    connection_request_username: String,
    /// ConnectionRequestPassword. Without it, no Connection Request can be sent to the CPE.
    #[serde(default)]
    #[schema(write_only, max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    connection_request_password: String,
}

/// Credentials that a CPE and its ACS share. An omitted value is empty.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Credentials {
    /// STUNPassword.
    #[serde(default)]
    #[schema(write_only, max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    stun_password: String,
    /// ConnectionRequestUsername.
    #[serde(default)]
    #[schema(max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    connection_request_username: String,
    /// ConnectionRequestPassword.
    #[serde(default)]
    #[schema(write_only, max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    connection_request_password: String,
}

impl From<Credentials> for acs::Credentials {
    fn from(credentials: Credentials) -> Self {
        let short = |text: String| Short::from(text.as_bytes());
        Self {
            stun_password: short(credentials.stun_password),
            connection_request_username: short(credentials.connection_request_username),
            connection_request_password: short(credentials.connection_request_password),
        }
    }
}

/// A CPE, without its passwords.
#[derive(Serialize, ToSchema)]
pub(super) struct Cpe {
    /// STUNUsername.
    stun_username: String,
    /// Whether the CPE has a STUNPassword.
    has_stun_password: bool,
    /// ConnectionRequestUsername.
    connection_request_username: String,
    /// Whether the CPE has a ConnectionRequestPassword.
    has_connection_request_password: bool,
    /// Destination of UDP Connection Requests. `null` if none is known.
    #[schema(required)]
    destination: Option<Destination>,
    /// NATDetected, as the CPE reported it; `null` if it did not.
    #[schema(required)]
    nat_detected: Option<bool>,
    /// Whether the next Binding Request of the CPE must be signed.
    must_verify: bool,
    /// `ts` of the last Connection Request to the CPE.
    #[schema(required)]
    last_timestamp: Option<u64>,
    /// All known bindings of the CPE.
    bindings: Vec<NatBinding>,
}

/// Destination of UDP Connection Requests.
#[derive(Serialize, ToSchema)]
pub(super) struct Destination {
    /// Host and port. Port 80 is omitted.
    address: String,
    /// How the address was learned. `authenticated`: from a signed Binding Request, `reported`: from a notification,
    /// `tentative`: from an unsigned Binding Request.
    way: &'static str,
}

impl Cpe {
    fn describe(cpe: &acs::Cpe, approach: Approach) -> Self {
        let acs::Cpe { name, credentials, state } = cpe;
        let destination = state
            .destination(approach)
            .map(|to| Destination { address: to.authority.to_string(), way: to.way.label() });
        Self {
            stun_username: describe::text(name),
            has_stun_password: !credentials.stun_password.is_empty(),
            connection_request_username: describe::text(&credentials.connection_request_username),
            has_connection_request_password: !credentials.connection_request_password.is_empty(),
            destination,
            nat_detected: state.reported.as_ref().and_then(|told| told.nat_detected),
            must_verify: state.must_verify,
            last_timestamp: state.last_timestamp,
            bindings: describe::bindings(cpe),
        }
    }
}

/// A page of CPEs.
#[derive(Serialize, ToSchema)]
pub(super) struct CpePage {
    /// CPEs in no particular order.
    cpes: Vec<Cpe>,
    /// Value of `from` for the next page; `null` on the last page.
    #[schema(required, value_type = Option<u64>)]
    next: Option<u32>,
}

/// A page of bindings.
#[derive(Serialize, ToSchema)]
pub(super) struct BindingPage {
    /// Bindings, grouped by CPE.
    bindings: Vec<NatBinding>,
    /// Value of `from` for the next page; `null` on the last page.
    #[schema(required, value_type = Option<u64>)]
    next: Option<u32>,
}

/// Position and size of a page.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Part {
    /// Value of `next` of the previous page.
    #[serde(default)]
    #[param(value_type = u64, maximum = 4_294_967_295_u64, default = 0)]
    from: u32,
    /// Maximum CPEs per page.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
}

/// Parameters that a CPE reported to its ACS.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Told {
    /// UDPConnectionRequestAddress: host, or host and port. The default port is 80 (STUN-43). An empty string removes
    /// the reported address.
    #[schema(max_length = 256, pattern = r"^([-._A-Za-z0-9]+(:[1-9][0-9]{0,4})?)?$")]
    udp_connection_request_address: String,
    /// NATDetected; `null` or omitted if the CPE did not report it.
    #[serde(default)]
    nat_detected: Option<bool>,
}

/// List CPEs
#[utoipa::path(
    get, path = "/v1/cpes", tag = "cpes", params(Part),
    responses((status = 200, description = "A page of CPEs.", body = CpePage), Always)
)]
pub(super) async fn list(State(api): State<Api>, InQuery(part): InQuery<Part>) -> Result<Response, Problem> {
    let page = api.acs.list(part.from, limit(part.limit)?);
    let approach = api.acs.approach();
    let cpes = page.items.iter().map(|cpe| Cpe::describe(cpe, approach)).collect();
    Ok(json(&CpePage { cpes, next: page.next }))
}

/// Add a CPE
#[utoipa::path(
    post, path = "/v1/cpes", tag = "cpes", request_body = NewCpe,
    responses(
        (
            status = 201, description = "The CPE was added.", body = Cpe,
            headers(("Location" = String, description = "Path of the CPE."))
        ),
        Always, WithBody, Conflicting
    )
)]
pub(super) async fn create(State(api): State<Api>, Body(new): Body<NewCpe>) -> Result<Response, Problem> {
    let NewCpe { stun_username: name, stun_password, connection_request_username, connection_request_password } = new;
    let credentials = Credentials { stun_password, connection_request_username, connection_request_password };
    api.acs.add(&name, credentials.into()).await?;
    let location = format!("/v1/cpes/{}", escape(&name));
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], one(&api, &name)?).into_response())
}

/// Read a CPE
#[utoipa::path(
    get, path = "/v1/cpes/{name}", tag = "cpes", params(("name" = String, Path, description = "STUNUsername.")),
    responses((status = 200, description = "The CPE.", body = Cpe), Always, Named)
)]
pub(super) async fn read(State(api): State<Api>, InPath(name): InPath<String>) -> Result<Response, Problem> {
    one(&api, &name)
}

/// Replace the credentials of a CPE
///
/// The known bindings of the CPE are kept.
#[utoipa::path(
    put, path = "/v1/cpes/{name}", tag = "cpes", params(("name" = String, Path, description = "STUNUsername.")), request_body = Credentials,
    responses((status = 200, description = "The CPE.", body = Cpe), Always, Named, WithBody)
)]
pub(super) async fn replace(
    State(api): State<Api>,
    InPath(name): InPath<String>,
    Body(credentials): Body<Credentials>,
) -> Result<Response, Problem> {
    api.acs.set_credentials(&name, credentials.into()).await?;
    one(&api, &name)
}

/// Remove a CPE
#[utoipa::path(
    delete, path = "/v1/cpes/{name}", tag = "cpes", params(("name" = String, Path, description = "STUNUsername.")),
    responses((status = 204, description = "The CPE was removed."), Always, Named)
)]
pub(super) async fn remove(State(api): State<Api>, InPath(name): InPath<String>) -> Result<StatusCode, Problem> {
    api.acs.remove(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Report the address of a CPE
///
/// Send this whenever an Inform or a `GetParameterValues` response contains UDPConnectionRequestAddress or NATDetected
/// (STUN-41, STUN-44).
#[utoipa::path(
    put, path = "/v1/cpes/{name}/report", tag = "cpes", params(("name" = String, Path, description = "STUNUsername.")), request_body = Told,
    responses((status = 200, description = "The CPE.", body = Cpe), Always, Named, WithBody)
)]
pub(super) async fn report(
    State(api): State<Api>,
    InPath(name): InPath<String>,
    Body(told): Body<Told>,
) -> Result<Response, Problem> {
    let wrong = |why: &str| Problem::unprocessable(format!("udp_connection_request_address: {why}"));
    let text = told.udp_connection_request_address;
    if text.len() > TEXT {
        return Err(wrong("at most 256 bytes"));
    }
    let address = Some(text).filter(|text| !text.is_empty()).map(|text| text.parse::<Authority>()).transpose();
    let address = address.map_err(|error| wrong(&error.to_string()))?;
    let reported = acs::Reported { address, nat_detected: told.nat_detected, at: api.acs.now().unix, revision: 0 };
    api.acs.report(&name, reported).await?;
    one(&api, &name)
}

/// Require a CPE to sign
///
/// The next Binding Request of the CPE is answered with 401 if it is not signed (STUN-30).
#[utoipa::path(
    post, path = "/v1/cpes/{name}/verify", tag = "cpes", params(("name" = String, Path, description = "STUNUsername.")),
    responses((status = 204, description = "The next Binding Request must be signed."), Always, Named)
)]
pub(super) async fn verify(State(api): State<Api>, InPath(name): InPath<String>) -> Result<StatusCode, Problem> {
    api.acs.verify(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List bindings
///
/// All known bindings of each CPE, signed or not. A page has the bindings of at most `limit` CPEs.
#[utoipa::path(
    get, path = "/v1/bindings", tag = "cpes", params(Part),
    responses((status = 200, description = "A page of bindings.", body = BindingPage), Always)
)]
pub(super) async fn bindings(State(api): State<Api>, InQuery(part): InQuery<Part>) -> Result<Response, Problem> {
    let page = api.acs.bindings(part.from, limit(part.limit)?);
    Ok(json(&BindingPage { bindings: page.items, next: page.next }))
}

fn one(api: &Api, name: &str) -> Result<Response, Problem> {
    let cpe = api.acs.get(name).ok_or_else(|| Problem::not_found("no CPE has this STUNUsername"))?;
    Ok(json(&Cpe::describe(&cpe, api.acs.approach())))
}

/// Percent-encodes text for a path segment or a query value: all bytes except for unreserved characters (RFC 3986 2.3).
pub(crate) fn escape(segment: &str) -> String {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let escape = |byte: u8| if unreserved(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    segment.bytes().map(escape).collect()
}
