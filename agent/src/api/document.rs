//! The OpenAPI document, generated from the route functions. A route that is not in the document does not exist.

use axum::{extract::State, http::header, response::IntoResponse};
use utoipa::{
    OpenApi,
    openapi::security::{Http, HttpAuthScheme, SecurityScheme},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Api, associations, connection_requests, cpes, events};

/// Path of the document.
pub(super) const PATH: &str = "/v1/openapi.json";

/// The parts of the document that do not belong to a route.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "tr111 acs",
        description = "CPEs, their NAT bindings, UDP Connection Requests and device-gateway associations of TR-111 (TR-069 Annex F and G).",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    security(("token" = [])),
    tags(
        (name = "cpes", description = "CPEs, their credentials and their NAT bindings"),
        (name = "connection requests", description = "UDP Connection Requests to CPEs (TR-111 2.2.2.3)"),
        (name = "associations", description = "Associations of devices with gateways (TR-111 1.2.3)"),
        (name = "events", description = "Event stream"),
    )
)]
struct Document;

/// All routes and their parts of the document.
pub(super) fn routes() -> OpenApiRouter<Api> {
    let mut base = Document::openapi();
    let token = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    base.components.get_or_insert_default().add_security_scheme("token", token);
    OpenApiRouter::with_openapi(base)
        .routes(routes!(cpes::list, cpes::create))
        .routes(routes!(cpes::read, cpes::replace, cpes::remove))
        .routes(routes!(cpes::report))
        .routes(routes!(cpes::verify))
        .routes(routes!(cpes::bindings))
        .routes(routes!(connection_requests::send))
        .routes(routes!(connection_requests::start, connection_requests::jobs))
        .routes(routes!(connection_requests::job, connection_requests::cancel))
        .routes(routes!(associations::report_gateway_info))
        .routes(routes!(associations::report_manageable_devices))
        .routes(routes!(associations::list))
        .routes(routes!(associations::read))
        .routes(routes!(associations::alarms))
        .routes(routes!(events::events))
        .routes(routes!(document))
}

/// Read this document
#[utoipa::path(
    get, path = PATH, security(()),
    responses((status = 200, description = "The document.", content_type = "application/json", body = serde_json::Value))
)]
async fn document(State(api): State<Api>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], api.document)
}
