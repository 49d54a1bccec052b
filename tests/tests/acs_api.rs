//! The HTTP interface of the ACS: what an ACS beside it tells and asks, and who may not.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{sys::signal::Signal, unistd::Group};
use serde_json::{Value, json};
use tr111_tests::{
    acs,
    agent::{Agent, Files, SOON, binary},
    crowd,
    lab::Lab,
    process::{Process, output, run, text},
    wait::{wait_for, wait_until},
};

const API: &str = "127.0.0.1:8111";
/// Whoever is on the machine may ask.
const NO_TOKEN: &str = "api_token_file = \"none\"";
const TOKEN: &str = "0123456789abcdef0123456789abcdef";
/// Where `cargo xtask setup` puts it.
const SCHEMATHESIS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../.test-tools/schemathesis/bin/schemathesis");

/// An ACS with a token, and whoever asks it by HTTP.
struct Story<'a> {
    agent: Agent<'a>,
    lab: &'a Lab,
    url: String,
    /// What curl needs to be let in.
    options: Vec<String>,
}

impl<'a> Story<'a> {
    fn begin(lab: &'a Lab) -> Result<Self> {
        let token = lab.write("token", &format!("{TOKEN}\n"))?;
        let options = vec!["--header".to_owned(), format!("Authorization: Bearer {TOKEN}")];
        Self::start(lab, &format!("api_token_file = \"{token}\"\n"), "http", options)
    }

    fn start(lab: &'a Lab, settings: &str, scheme: &str, options: Vec<String>) -> Result<Self> {
        Self::start_as(lab, "acs", settings, scheme, options)
    }

    fn start_as(lab: &'a Lab, name: &str, settings: &str, scheme: &str, options: Vec<String>) -> Result<Self> {
        let agent = acs::start(&lab.gateway, lab.path(), name, settings)?;
        Ok(Self { agent, lab, url: format!("{scheme}://{API}"), options })
    }

    /// The same with a registry that cannot be read.
    fn begin_damaged(lab: &'a Lab) -> Result<Self> {
        let token = lab.write("token", &format!("{TOKEN}\n"))?;
        let options = vec!["--header".to_owned(), format!("Authorization: Bearer {TOKEN}")];
        let files = Files::new(lab.path(), "acs")?;
        std::fs::create_dir(files.state())?;
        std::fs::write(files.state().join("registry.redb"), b"no database")?;
        let agent = acs::start_with(&lab.gateway, files, lab.path(), &format!("api_token_file = \"{token}\"\n"))?;
        Ok(Self { agent, lab, url: format!("http://{API}"), options })
    }

    fn curl(&self, method: &str, path: &str) -> Command {
        let mut curl = self.lab.gateway.command("curl");
        curl.args(["--silent", "--show-error", "--max-time", "60", "--write-out", "\n%{http_code} %{content_type}"]);
        curl.args(["--request", method]).args(&self.options).arg(format!("{}{path}", self.url));
        curl
    }

    /// Status and body.
    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<(u16, Value)> {
        let mut curl = self.curl(method, path);
        if let Some(body) = body {
            curl.args(["--header", "Content-Type: application/json", "--data-binary"]).arg(body.to_string());
        }
        answer(&run(&mut curl)?)
    }

    fn get(&self, path: &str) -> Result<Value> {
        let (status, body) = self.ask("GET", path, None)?;
        ensure!(status == 200, "{path}: {status} {body}");
        Ok(body)
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let (status, answer) = self.ask("POST", path, Some(body))?;
        ensure!(status == 200, "{path} {body}: {status} {answer}");
        Ok(answer)
    }

    /// A device reports its gateway; the result.
    fn gateway_info(&self, device: &Value, gateway: &Value) -> Result<String> {
        let answer = self.post("/v1/reports/gateway-info", &json!({"device": device, "gateway": gateway}))?;
        Ok(answer["result"].as_str().context("no result")?.to_owned())
    }

    /// A gateway reports its table.
    fn table(&self, gateway: &Value, devices: &[&Value], notifies: bool) -> Result<Value> {
        let report = json!({
            "gateway": gateway, "number_of_entries": devices.len(), "devices": devices, "active_notification": notifies
        });
        self.post("/v1/reports/manageable-devices", &report)
    }

    /// The gateway on file of a device, by its serial number.
    fn gateway_of(&self, serial: &str) -> Result<Value> {
        let device = self.get(&format!("/v1/associations/00256D/{serial}?product_class=STB"))?;
        Ok(device["gateway"]["serial_number"].clone())
    }

    fn provision(&self, name: &str) -> Result<()> {
        let cpe = json!({
            "stun_username": name, "stun_password": "stunpassword1234",
            "connection_request_username": "cr-user", "connection_request_password": "connreqsecret",
        });
        let (status, body) = self.ask("POST", "/v1/cpes", Some(&cpe))?;
        ensure!(status == 201, "{status} {body}");
        Ok(())
    }
}

/// What curl printed with `--write-out`: status and body. Every answer with one says that it is JSON.
fn answer(printed: &str) -> Result<(u16, Value)> {
    let (body, tail) = printed.rsplit_once('\n').context("no status")?;
    let (status, media_type) = tail.split_once(' ').context("no media type")?;
    let status = status.parse()?;
    if body.is_empty() {
        return Ok((status, Value::Null));
    }
    let expected = if status < 400 { "application/json" } else { "application/problem+json" };
    ensure!(media_type == expected, "{status} {media_type}: {body}");
    Ok((status, serde_json::from_str(body)?))
}

fn identity(serial: &str, class: &str) -> Value {
    json!({"manufacturer_oui": "00256D", "serial_number": serial, "product_class": class})
}

/// ACS-1, ACS-2, ACS-3, ACS-4, ACS-5: a true device is associated with its gateway, a forged one is an alarm and changes
/// nothing, whether the gateway's table is notified or read.
#[test]
fn a_true_association_is_accepted_and_a_forged_one_refused() -> Result<()> {
    let lab = Lab::new()?;
    let story = Story::begin(&lab)?;
    let (home, other) = (identity("GW0001", "IGD"), identity("GW0002", "IGD"));
    let (stb, forger) = (identity("DEV0001", "STB"), identity("DEV0666", "STB"));

    // The gateway notifies of its table.
    story.table(&home, &[&stb], true)?;
    assert_eq!(story.gateway_info(&stb, &home)?, "validated");
    assert_eq!(story.gateway_info(&stb, &home)?, "unchanged");
    let mut watcher = lab.gateway.command(binary()?);
    watcher.args(["watch", "--json", "--control"]).arg(story.agent.files().control());
    let mut watcher = Process::start("watch", &mut watcher, lab.path())?;
    let mut sse = story.curl("GET", "/v1/events");
    let mut sse = Process::start("sse", sse.arg("--no-buffer"), lab.path())?;
    // Both hear from when they are there; a forger says so until they are.
    let heard = |process: &mut Process, what: &str| {
        wait_for(what, SOON, || {
            assert_eq!(story.gateway_info(&forger, &home)?, "refused");
            assert_eq!(story.gateway_info(&forger, &json!(null))?, "withdrawn");
            Ok(process.stdout().lines().find(|line| line.contains("\"refused\"")).map(str::to_owned))
        })
    };
    let event: Value = serde_json::from_str(&heard(&mut watcher, "alarm by tr111 watch")?)?;
    assert_eq!((&event["event"], &event["alarm"]), (&json!("association"), &json!(true)));
    assert_eq!((&event["device"], &event["gateway"], &event["associated"]), (&forger, &home, &json!(null)));
    let line = heard(&mut sse, "alarm by the event stream")?;
    let event: Value = serde_json::from_str(line.strip_prefix("data: ").context(line.clone())?)?;
    assert_eq!((&event["result"], &event["device"]), (&json!("refused"), &forger));

    // It names another gateway: nothing changes until that one's table has it.
    assert_eq!(story.gateway_info(&stb, &other)?, "pending");
    assert_eq!(story.gateway_of("DEV0001")?, "GW0001");
    let near = identity("DEV0001", "");
    let read = story.table(&other, &[&near], false)?;
    assert_eq!(read["changed"][0]["claim"]["state"], "refused");
    assert_eq!(story.gateway_of("DEV0001")?, "GW0001");
    assert_eq!(story.get("/v1/alarms")?["count"], 1);
    let metrics = story.agent.metrics()?;
    assert_eq!(metrics.sum("tr111_associations", &[("state", "refused")]), 1);
    assert!(metrics.sum("tr111_association_changes_total", &[("result", "refused")]) >= 3);
    assert_eq!(
        metrics.sum("tr111_association_reports_total", &[("report", "gateway_info"), ("result", "unchanged")]),
        1
    );
    let listed = story.agent.print(&["association", "list"])?;
    assert!(listed.contains("00256D-STB-DEV0001  00256D-IGD-GW0001  yes"), "{listed}");
    assert!(listed.contains("00256D-IGD-GW0002  refused"), "{listed}");

    // Read again, it is there with all elements.
    assert_eq!(story.gateway_info(&stb, &other)?, "pending");
    story.table(&other, &[&near, &stb], false)?;
    assert_eq!(story.gateway_of("DEV0001")?, "GW0002");
    assert_eq!(story.get("/v1/alarms")?["count"], 0);
    let list = story.agent.json(&["association", "list"])?;
    assert_eq!(list["associations"][0]["gateway"], other);
    assert_eq!(story.get("/v1/associations?limit=1")?["associations"], list["associations"]);
    Ok(())
}

/// ACS-3: what is on file outlives the process, and a claim is decided by the first table after it.
#[test]
fn associations_outlive_the_process() -> Result<()> {
    let lab = Lab::new()?;
    let mut story = Story::start(&lab, NO_TOKEN, "http", Vec::new())?;
    let (home, other) = (identity("GW0001", "IGD"), identity("GW0002", "IGD"));
    let (stb, forger, gone) = (identity("DEV0001", "STB"), identity("DEV0666", "STB"), identity("DEV0003", "STB"));
    story.table(&home, &[&stb, &gone], true)?;
    assert_eq!(story.gateway_info(&stb, &home)?, "validated");
    assert_eq!(story.gateway_info(&gone, &home)?, "validated");
    assert_eq!(story.gateway_info(&gone, &json!(null))?, "withdrawn");
    assert_eq!(story.gateway_info(&forger, &home)?, "refused");
    assert_eq!(story.gateway_info(&stb, &other)?, "pending");
    let before = story.get("/v1/associations")?;
    let files = story.agent.kill()?;
    story.agent = acs::start_with(&lab.gateway, files, lab.path(), NO_TOKEN)?;
    assert_eq!(story.get("/v1/associations")?, before);
    assert_eq!(story.get("/v1/alarms")?["count"], 1);
    assert_eq!(story.agent.metrics()?.sum("tr111_associations", &[("state", "pending")]), 1);
    story.table(&other, &[&stb], true)?;
    assert_eq!(story.gateway_of("DEV0001")?, "GW0002");
    Ok(())
}

/// ACS-6: validation is on unless an operator switches it off, and the metrics tell what was accepted so.
#[test]
fn associations_without_validation_are_told_apart() -> Result<()> {
    let lab = Lab::new()?;
    let story = Story::begin(&lab)?;
    let (stb, home) = (identity("DEV0001", "STB"), identity("GW0001", "IGD"));
    assert_eq!(story.gateway_info(&stb, &home)?, "pending");
    story.agent.print(&["tune", "acs.association.validation=false"])?;
    assert_eq!(story.gateway_info(&stb, &home)?, "unvalidated");
    assert_eq!(story.agent.metrics()?.sum("tr111_associations", &[("state", "unvalidated")]), 1);
    story.table(&home, &[&stb], true)?;
    story.agent.print(&["tune", "acs.association.validation=true"])?;
    assert_eq!(story.gateway_info(&stb, &home)?, "validated");
    assert_eq!(story.agent.metrics()?.sum("tr111_associations", &[("state", "unvalidated")]), 0);
    Ok(())
}

/// STUN-32, STUN-41, STUN-43, STUN-44, STUN-45, STUN-46: what a CPE told its ACS is where its Connection Requests go;
/// without a port that is 80, a CPE without STUN credentials is as good as any, and one without NAT is told apart.
#[test]
fn the_latest_address_that_a_cpe_told_is_its_destination() -> Result<()> {
    let lab = Lab::new()?;
    let story = Story::begin(&lab)?;
    let name = "CPE 57/689?";
    let path = "/v1/cpes/CPE%2057%2F689%3F";
    let cpe = json!({
        "stun_username": name, "connection_request_username": "u", "connection_request_password": "connreqsecret"
    });
    let (status, body) = story.ask("POST", "/v1/cpes", Some(&cpe))?;
    assert_eq!((status, &body["destination"], &body["has_stun_password"]), (201, &json!(null), &json!(false)));
    assert!(!body.to_string().contains("connreqsecret"), "{body}");
    for (told, destination) in [
        ("198.51.100.7:4000", "198.51.100.7:4000"),
        ("198.51.100.7", "198.51.100.7"),
        ("cpe.example:4000", "cpe.example:4000"),
    ] {
        let report = json!({"udp_connection_request_address": told, "nat_detected": false});
        let (status, body) = story.ask("PUT", &format!("{path}/report"), Some(&report))?;
        assert_eq!((status, &body["nat_detected"]), (200, &json!(false)));
        assert_eq!(body["destination"], json!({"address": destination, "way": "reported"}));
    }
    let bindings = story.agent.json(&["bindings"])?;
    assert_eq!(bindings["bindings"][0]["address"], "cpe.example:4000");
    assert_eq!(story.get("/v1/bindings")?["bindings"], bindings["bindings"]);
    let report = json!({"udp_connection_request_address": "198.51.100.7:0"});
    assert_eq!(story.ask("PUT", &format!("{path}/report"), Some(&report))?.0, 422);
    assert_eq!(story.ask("DELETE", path, None)?, (204, Value::Null));
    assert_eq!(story.ask("GET", path, None)?.0, 404);
    Ok(())
}

/// STUN-21: CPEs are provisioned, listed in pages, given other credentials and forgotten, and no answer has a secret.
#[test]
fn cpes_come_in_pages_and_keep_their_secrets() -> Result<()> {
    let lab = Lab::new()?;
    let story = Story::begin(&lab)?;
    for number in 0..5 {
        story.provision(&format!("CPE{number}"))?;
    }
    let again = json!({"stun_username": "CPE3"});
    assert_eq!(story.ask("POST", "/v1/cpes", Some(&again))?.0, 409);
    let (mut from, mut names) = (Some(0), Vec::new());
    while let Some(next) = from {
        let page = story.get(&format!("/v1/cpes?from={next}&limit=2"))?;
        assert!(!page.to_string().contains("stunpassword1234"), "{page}");
        let cpes = page["cpes"].as_array().context("no list")?;
        names.extend(cpes.iter().filter_map(|cpe| cpe["stun_username"].as_str().map(str::to_owned)));
        from = page["next"].as_u64();
    }
    assert_eq!(names, ["CPE0", "CPE1", "CPE2", "CPE3", "CPE4"]);
    let (status, cpe) = story.ask("PUT", "/v1/cpes/CPE1", Some(&json!({"connection_request_username": "other"})))?;
    assert_eq!((status, &cpe["connection_request_username"]), (200, &json!("other")));
    assert_eq!((&cpe["has_stun_password"], &cpe["has_connection_request_password"]), (&json!(false), &json!(false)));
    assert_eq!(story.ask("POST", "/v1/cpes/CPE1/verify", None)?.0, 204);
    assert_eq!(story.get("/v1/cpes/CPE1")?["must_verify"], true);
    assert_eq!(story.ask("POST", "/v1/cpes/nobody/verify", None)?.0, 404);
    Ok(())
}

/// UCR-20, T-68: CPEs are woken through the interface, one at a time and as a job, from the STUN server's own port.
#[test]
fn cpes_are_woken_by_name_and_in_bulk() -> Result<()> {
    let lab = Lab::new()?;
    let story = Story::begin(&lab)?;
    let cpe = lab.gateway.enter(|| UdpSocket::bind("127.0.0.1:0"))?;
    cpe.set_read_timeout(Some(SOON))?;
    let report = json!({"udp_connection_request_address": cpe.local_addr()?.to_string(), "nat_detected": true});
    for name in ["CPE1", "CPE2"] {
        story.provision(name)?;
        assert_eq!(story.ask("PUT", &format!("/v1/cpes/{name}/report"), Some(&report))?.0, 200);
    }
    story.provision("CPE3")?;
    let mut datagram = [0; 1500];
    let mut hear = || -> Result<String> {
        let (length, from) = cpe.recv_from(&mut datagram)?;
        assert_eq!(from.port(), 3478);
        Ok(text(&datagram[..length]))
    };
    let (status, sent) = story.ask("POST", "/v1/cpes/CPE1/connection-requests?copies=2", None)?;
    assert_eq!((status, &sent["copies"], &sent["way"]), (200, &json!(2), &json!("reported")));
    assert_eq!(Value::from(hear()?), sent["request"]);
    assert_eq!(Value::from(hear()?), sent["request"]);
    assert_eq!(story.ask("POST", "/v1/cpes/CPE3/connection-requests", None)?.0, 409);
    assert_eq!(story.ask("POST", "/v1/cpes/nobody/connection-requests", None)?.0, 404);

    let order = json!({"cpes": ["CPE1", "CPE2", "CPE3", "nobody"], "rate": 100, "copies": 1});
    let (status, job) = story.ask("POST", "/v1/connection-requests", Some(&order))?;
    assert_eq!((status, &job["progress"]["cpes"]), (202, &json!(4)));
    let path = format!("/v1/connection-requests/{}", job["id"]);
    let ended = wait_for("end of the job", SOON, || {
        let job = story.get(&path)?;
        Ok((job["state"] == "finished").then_some(job))
    })?;
    assert_eq!((&ended["summary"]["sent"], &ended["summary"]["datagrams"]), (&json!(2), &json!(2)));
    assert_eq!(ended["summary"]["failed"], json!({"no_destination": 1, "unknown_cpe": 1}));
    hear().and_then(|_| hear())?;

    // One that would take hours is cancelled.
    let order = json!({"cpes": vec!["CPE1"; 10_000], "rate": 1});
    let (_, job) = story.ask("POST", "/v1/connection-requests", Some(&order))?;
    let path = format!("/v1/connection-requests/{}", job["id"]);
    assert_eq!(story.get(&path)?["state"], "running");
    assert_eq!(story.ask("DELETE", &path, None)?.0, 204);
    assert_eq!(story.ask("GET", &path, None)?.0, 404);
    Ok(())
}

/// The OpenAPI document and the program say the same: schemathesis finds no answer that is not in it, and no server error.
#[test]
fn schemathesis_finds_no_answer_that_the_document_does_not_have() -> Result<()> {
    ensure!(Path::new(SCHEMATHESIS).exists(), "no schemathesis: `cargo xtask setup` brings it");
    let lab = Lab::new()?;
    let story = Story::begin(&lab)?;
    for number in 0..3 {
        story.provision(&format!("CPE{number}"))?;
    }
    let mut fuzz = lab.gateway.command(SCHEMATHESIS);
    fuzz.current_dir(lab.path()).args(["run", &format!("{}/v1/openapi.json", story.url)]).args(&story.options);
    // Events never end. What is right by its form may still contradict itself, as a count of rows and the rows do.
    fuzz.args(["--exclude-path", "/v1/events", "--exclude-checks", "positive_data_acceptance"]);
    fuzz.args(["--generation-deterministic", "--max-examples", "25", "--request-timeout", "20", "--no-color"]);
    let said = output(&mut fuzz)?;
    ensure!(said.status.success(), "{}\n{}\n{}", text(&said.stdout), text(&said.stderr), story.agent.log());
    assert!(!story.agent.log().contains("panicked"), "{}", story.agent.log());
    Ok(())
}

/// SEC-6: nobody asks without the token, or with another, and everybody may read the document.
#[test]
fn who_has_no_token_is_not_let_in() -> Result<()> {
    let lab = Lab::new()?;
    let mut story = Story::begin(&lab)?;
    for header in [None, Some("Authorization: Bearer 0123456789abcdef0123456789abcdee"), Some("Authorization: Basic x")]
    {
        story.options = header.map(|header| vec!["--header".to_owned(), header.to_owned()]).unwrap_or_default();
        for (method, path) in
            [("GET", "/v1/cpes"), ("DELETE", "/v1/cpes/CPE1"), ("GET", "/v1/events"), ("GET", "/other")]
        {
            assert_eq!(story.ask(method, path, None)?.0, 401, "{header:?} {method} {path}");
        }
        assert_eq!(story.get("/v1/openapi.json")?["openapi"], "3.1.0");
    }
    assert!(!story.agent.log().contains(TOKEN), "the token is in the log");
    Ok(())
}

/// Without a token only this machine is answered, and only by a name of its own; others are never listened to without one.
#[test]
fn without_a_token_only_loopback_is_served() -> Result<()> {
    let lab = Lab::new()?;
    let mut story = Story::start(&lab, NO_TOKEN, "http", Vec::new())?;
    assert_eq!(story.get("/v1/cpes")?["cpes"], json!([]));
    story.options = vec!["--header".to_owned(), "Host: attacker.example".to_owned()];
    assert_eq!(story.ask("GET", "/v1/cpes", None)?.0, 403);
    drop(story);
    let refused = |settings: &str, reason: &str| -> Result<()> {
        let files = Files::new(lab.path(), &format!("refused-{}", reason.len()))?;
        let config = lab.write("refused.toml", &format!("[acs]\n{settings}"))?;
        let said = output(&mut files.run_acs(&lab.gateway, &["--config", &config])?)?;
        ensure!(said.status.code() == Some(1), "{settings}: {}", said.status);
        ensure!(text(&said.stderr).contains(reason), "{settings}: {}", text(&said.stderr));
        Ok(())
    };
    let short = lab.write("short", "secret\n")?;
    let open = format!("api = \"0.0.0.0:8111\"\n{NO_TOKEN}\n");
    refused(&open, "name a token with acs.api_token_file, or listen on 127.0.0.1")?;
    refused(&format!("api_token_file = \"{short}\"\n"), "a token has at least 16 bytes")?;
    refused(&format!("api_certificate_file = \"{short}\"\n"), "go together: set both, or none")?;
    Ok(())
}

/// SEC-6: unless an operator says otherwise, a token is made at the first start, for its owner and the group alone, and
/// nobody on this machine asks without it. It is the same after a restart, and another one for another ACS.
#[test]
fn a_token_is_made_at_the_first_start() -> Result<()> {
    let lab = Lab::new()?;
    let mut story = Story::start(&lab, "", "http", Vec::new())?;
    let file = story.agent.files().state().join("api.token");
    let token = std::fs::read_to_string(&file)?;
    let mode = std::fs::metadata(&file)?.permissions().mode() & 0o777;
    let group = Group::from_name("tr111")?;
    assert_eq!(mode, if group.is_some() { 0o640 } else { 0o600 });
    assert!(token.trim().len() == 64 && token.trim().bytes().all(|byte| byte.is_ascii_hexdigit()), "{token}");
    for (method, path) in [("GET", "/v1/cpes"), ("DELETE", "/v1/cpes/CPE1"), ("POST", "/v1/connection-requests")] {
        assert_eq!(story.ask(method, path, None)?.0, 401, "{method} {path}");
    }
    story.options = vec!["--header".to_owned(), format!("Authorization: Bearer {}", token.trim())];
    assert_eq!(story.get("/v1/cpes")?["cpes"], json!([]));
    let files = story.agent.kill()?;
    story.agent = acs::start_with(&lab.gateway, files, lab.path(), "")?;
    assert_eq!(story.get("/v1/cpes")?["cpes"], json!([]));
    drop(story);
    let other = acs::start(&lab.gateway, lab.path(), "other", "")?;
    assert!(std::fs::read_to_string(other.files().state().join("api.token"))? != token);
    Ok(())
}

/// SEC-6: a page of another origin is refused, whether there is a token or not.
#[test]
fn pages_of_another_origin_are_refused() -> Result<()> {
    let lab = Lab::new()?;
    for settings in ["", NO_TOKEN] {
        let mut story = match settings {
            "" => Story::begin(&lab)?,
            _ => Story::start_as(&lab, "open", settings, "http", Vec::new())?,
        };
        story.provision("CPE1")?;
        let options = story.options.clone();
        for origin in ["http://attacker.example", "http://127.0.0.1:8080", "null"] {
            story.options = [options.clone(), vec!["--header".to_owned(), format!("Origin: {origin}")]].concat();
            assert_eq!(story.ask("DELETE", "/v1/cpes/CPE1", None)?.0, 403, "{settings} {origin}");
        }
        story.options = [options, vec!["--header".to_owned(), format!("Origin: http://{API}")]].concat();
        assert_eq!(story.ask("DELETE", "/v1/cpes/CPE1", None)?.0, 204, "{settings}");
    }
    Ok(())
}

/// SEC-6: SIGHUP takes another token and another certificate while the ACS serves on. Streams that the old token opened
/// end; what is not in order changes nothing.
#[test]
fn sighup_takes_another_token_and_another_certificate() -> Result<()> {
    const OTHER: &str = "fedcba9876543210fedcba9876543210";
    let lab = Lab::new()?;
    let [one, two] = ["one", "two"].map(|name| lab.path().join(name));
    certificate(&one)?;
    certificate(&two)?;
    let install =
        |from: &Path, what: &str| std::fs::copy(from.with_extension(what), lab.path().join(format!("served.{what}")));
    install(&one, "pem")?;
    install(&one, "key")?;
    let token = lab.write("token", TOKEN)?;
    let served = lab.path().join("served");
    let settings = format!(
        "api_token_file = \"{token}\"\napi_certificate_file = \"{0}.pem\"\napi_key_file = \"{0}.key\"\n",
        served.display()
    );
    let options = |certificate: &Path, token: &str| {
        let certificate = certificate.with_extension("pem").display().to_string();
        ["--cacert", &certificate, "--header", &format!("Authorization: Bearer {token}")].map(str::to_owned).to_vec()
    };
    let mut story = Story::start(&lab, &settings, "https", options(&one, TOKEN))?;
    let pid = story.agent.process().id();
    story.provision("CPE1")?;
    let mut sse = story.curl("GET", "/v1/events");
    let mut sse = Process::start("sse", sse.arg("--no-buffer"), lab.path())?;
    story.agent.wait_for_metrics("the stream", |metrics| {
        metrics.sum("tr111_tcp_connections_total", &[("listener", "api")]) >= 2
    })?;
    assert!(sse.try_status()?.is_none());

    // A token of three letters, and a key that is not the certificate's: all stays.
    lab.write("token", "abc")?;
    install(&two, "key")?;
    story.agent.process().signal(Signal::SIGHUP)?;
    wait_until("both refusals", SOON, || {
        let log = story.agent.log();
        Ok(["cannot renew the token of the HTTP API", "cannot renew the certificate of the HTTP API"]
            .iter()
            .all(|said| log.contains(said)))
    })?;
    assert_eq!(story.get("/v1/cpes")?["cpes"][0]["stun_username"], "CPE1");
    assert!(sse.try_status()?.is_none(), "{}", sse.stderr());

    lab.write("token", OTHER)?;
    install(&two, "pem")?;
    story.agent.process().signal(Signal::SIGHUP)?;
    sse.wait(SOON)?;
    story.options = options(&two, OTHER);
    assert_eq!(story.get("/v1/cpes")?["cpes"][0]["stun_username"], "CPE1");
    story.options = options(&two, TOKEN);
    assert_eq!(story.ask("GET", "/v1/cpes", None)?.0, 401);
    story.options = options(&one, OTHER);
    assert!(!output(&mut story.curl("GET", "/v1/cpes"))?.status.success(), "the old certificate is shown");
    assert_eq!(story.agent.json(&["status"])?["pid"], pid);
    Ok(())
}

/// Makes a certificate for the address of the interface: `NAME.pem`, with its key in `NAME.key`.
fn certificate(name: &Path) -> Result<()> {
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]);
    openssl
        .args(["-subj", "/CN=acs", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout"])
        .arg(name.with_extension("key"));
    run(openssl.arg("-out").arg(name.with_extension("pem"))).map(drop)
}

/// SEC-6: with a certificate, the interface speaks TLS and nothing else.
#[test]
fn a_client_by_tls_is_served() -> Result<()> {
    let lab = Lab::new()?;
    let name = lab.path().join("served");
    certificate(&name)?;
    let (certificate, key) = (name.with_extension("pem"), name.with_extension("key"));
    let token = lab.write("token", TOKEN)?;
    let settings = format!(
        "api_token_file = \"{token}\"\napi_certificate_file = \"{}\"\napi_key_file = \"{}\"\n",
        certificate.display(),
        key.display()
    );
    let options =
        ["--cacert", &certificate.display().to_string(), "--header", &format!("Authorization: Bearer {TOKEN}")];
    let mut story = Story::start(&lab, &settings, "https", options.map(str::to_owned).to_vec())?;
    story.provision("CPE1")?;
    assert_eq!(story.get("/v1/cpes")?["cpes"][0]["stun_username"], "CPE1");
    // Whoever does not know the certificate does not go on, and plain HTTP is no answer.
    story.options.drain(..2);
    assert!(!output(&mut story.curl("GET", "/v1/cpes"))?.status.success());
    story.url = format!("http://{API}");
    assert!(!output(&mut story.curl("GET", "/v1/cpes"))?.status.success());
    Ok(())
}

/// SEC-8: a body that is too large is refused, a client that is slow is left, and others are served meanwhile.
#[test]
fn large_and_slow_clients_take_nothing_from_others() -> Result<()> {
    let lab = Lab::new()?;
    let story = Story::begin(&lab)?;
    let large = lab.path().join("large");
    std::fs::write(&large, vec![b' '; (16 << 20) + 1])?;
    let mut curl = story.curl("POST", "/v1/cpes");
    curl.args(["--header", "Content-Type: application/json", "--header", "Expect:", "--data-binary"]);
    let (status, problem) = answer(&run(curl.arg(format!("@{}", large.display())))?)?;
    assert_eq!((status, &problem["status"]), (413, &json!(413)));
    let mut form = story.curl("POST", "/v1/cpes");
    assert_eq!(answer(&run(form.args(["--data", "a=b"]))?)?.0, 415);

    let started = Instant::now();
    let address: SocketAddr = API.parse()?;
    let connect = |sent: &str| -> Result<TcpStream> {
        let mut stream = lab.gateway.enter(|| TcpStream::connect(address))?;
        stream.set_read_timeout(Some(Duration::from_millis(1)))?;
        stream.write_all(sent.as_bytes())?;
        Ok(stream)
    };
    let mut silent = connect("GET /v1/cpes HT")?;
    let mut slow = connect(&format!(
        "POST /v1/cpes HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"
    ))?;
    assert_eq!(story.get("/v1/cpes")?["cpes"], json!([]));
    let gone = |stream: &mut TcpStream, said: &mut Vec<u8>| match stream.read_to_end(said) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
            Ok(false)
        }
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(true),
        Err(error) => bail!(error),
    };
    let (mut nothing, mut said) = (Vec::new(), Vec::new());
    wait_until("end of the one without a request", Duration::from_secs(25), || gone(&mut silent, &mut nothing))?;
    wait_until("end of the one without a body", Duration::from_secs(25), || {
        Ok(gone(&mut slow, &mut said)? || text(&said).contains("408"))
    })?;
    assert!(text(&said).starts_with("HTTP/1.1 408 "), "{}", text(&said));
    assert!(started.elapsed() < Duration::from_secs(40));
    Ok(())
}

/// SEC-8: whoever has the token is answered beside a thousand clients who do not, and those take few descriptors. They are
/// silent, or they ask and are refused.
#[test]
fn a_client_with_the_token_is_answered_beside_a_thousand_without() -> Result<()> {
    let lab = Lab::new()?;
    let story = Story::begin(&lab)?;
    let address: SocketAddr = API.parse()?;
    let pid = story.agent.json(&["status"])?["pid"].as_u64().context("no pid")?.try_into()?;
    let before = crowd::descriptors(pid)?;
    let mut clients = crowd::gather(&lab.gateway, address, 500, b"")?;
    clients.extend(crowd::gather(&lab.gateway, address, 100, b"POST /v1/cpes HTTP/1.1\r\n")?);
    clients.extend(crowd::gather(&lab.gateway, address, 400, b"GET /v1/cpes HTTP/1.1\r\nHost: localhost\r\n\r\n")?);
    let begin = Instant::now();
    assert_eq!(story.get("/v1/cpes")?["cpes"], json!([]));
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    // The same for whoever talks to it with a pause.
    let token = format!("Host: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
    let mut known = crowd::gather(&lab.gateway, address, 1, format!("GET /v1/cpes HTTP/1.1\r\n{token}").as_bytes())?;
    let mut known = known.pop().context("no client")?;
    known.set_read_timeout(Some(SOON))?;
    let hear = |stream: &mut TcpStream| -> Result<String> {
        let mut answer = [0; 4_096];
        let length = stream.read(&mut answer)?;
        Ok(text(&answer[..length]))
    };
    assert!(hear(&mut known)?.starts_with("HTTP/1.1 200"));
    clients.extend(crowd::gather(&lab.gateway, address, 600, b"")?);
    known.write_all(format!("GET /v1/cpes HTTP/1.1\r\n{token}").as_bytes())?;
    assert!(hear(&mut known)?.starts_with("HTTP/1.1 200"), "a connection of somebody known gives way to strangers");
    let more = crowd::descriptors(pid)? - before;
    ensure!(more <= 300, "{more} descriptors");
    Ok(())
}

/// SEC-8: event streams have places of their own: so many and no more, and requests are answered beside them.
#[test]
fn event_streams_take_no_place_of_requests() -> Result<()> {
    let lab = Lab::new()?;
    let story = Story::begin(&lab)?;
    let request = format!("GET /v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
    let mut streams = Vec::new();
    let mut open = |count: usize, from: u8| -> Result<Vec<String>> {
        let mut statuses = Vec::new();
        for _ in 0..count {
            let source = [127, 0, 0, from].into();
            let mut stream = lab.gateway.enter(|| crowd::connect_from(source, API.parse()?))?;
            stream.set_read_timeout(Some(SOON))?;
            stream.write_all(request.as_bytes())?;
            let mut answer = [0; 12];
            stream.read_exact(&mut answer)?;
            statuses.push(text(&answer[9..]));
            streams.push(stream);
        }
        Ok(statuses)
    };
    let accepted = |statuses: &[String]| statuses.iter().filter(|status| *status == "200").count();
    let first = open(20, 1)?;
    assert_eq!((accepted(&first), first.len()), (16, 20), "{first:?}");
    assert!(first[16..].iter().all(|status| status == "503"), "{first:?}");
    assert_eq!(accepted(&open(20, 2)?), 16);
    assert_eq!(accepted(&open(1, 3)?), 0, "32 in all");
    for _ in 0..3 {
        assert_eq!(story.get("/v1/cpes")?["cpes"], json!([]));
    }
    Ok(())
}

/// While the registry cannot be read, every request is told so, and nothing is added.
#[test]
fn everything_is_refused_while_the_registry_cannot_be_read() -> Result<()> {
    let lab = Lab::new()?;
    let story = Story::begin_damaged(&lab)?;
    let cpe = json!({"stun_username": "CPE57689"});
    let wake = json!({"stun_username": "CPE57689"});
    for (method, path, body) in [
        ("GET", "/v1/cpes", None),
        ("POST", "/v1/cpes", Some(&cpe)),
        ("GET", "/v1/associations", None),
        ("POST", "/v1/connection-requests", Some(&wake)),
        ("GET", "/v1/events", None),
    ] {
        let (status, problem) = story.ask(method, path, body)?;
        let detail = problem["detail"].as_str().unwrap_or_default();
        ensure!(
            status == 503 && detail.contains("is damaged") && detail.contains("--start-empty"),
            "{path}: {problem}"
        );
    }
    story.get("/v1/openapi.json")?;
    Ok(())
}
