//! The last part of the ACS's story: is the device really behind the gateway that it names (TR-111 1.2.3)?

use std::fs;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::stage::{ask, heading, show, typed};
use crate::{
    agent::{Agent, SOON},
    namespace::Namespace,
    process::{Process, run},
};

/// Where the ACS answers by HTTP to whoever has its token.
const API: &str = "http://127.0.0.1:8111/v1/reports";

/// Tells it as part `number`, on the ACS's machine.
///
/// # Errors
/// curl is missing, or the story went another way.
pub fn tell(number: u32, machine: &Namespace, acs: &Agent<'_>, watch: &mut Process) -> Result<()> {
    heading(number, "Is the device behind the gateway that it names? Only that gateway's own table can tell");
    let identity = |serial: &str, class: &str| json!({"manufacturer_oui": "00256D", "serial_number": serial, "product_class": class});
    let (gateway, stb, forger) = (identity("GW0001", "IGD"), identity("DEV0001", "STB"), identity("DEV0666", "STB"));
    println!("   The gateway's ManageableDevice table has one row, DEV0001. Two devices say that they are there.\n");
    let token = fs::read_to_string(acs.files().state().join("api.token"))?;
    let table = json!({"gateway": gateway, "number_of_entries": 1, "devices": [stb]});
    report(machine, &token, "manageable-devices", &table)?;
    for (device, expected) in [(stb, "validated"), (forger, "refused")] {
        let answer = report(machine, &token, "gateway-info", &json!({"device": device, "gateway": gateway}))?;
        println!("   {}: {}", device["serial_number"].as_str().unwrap_or_default(), answer["result"]);
        ensure!(answer["result"] == expected, "{device}: {answer}");
    }
    println!();
    show(&watch.wait_for_line("ALARM: 00256D-STB-DEV0666", SOON)?, 1);
    ask(acs, &["association", "list"], 4)
}

fn report(machine: &Namespace, token: &str, what: &str, body: &Value) -> Result<Value> {
    typed(&format!(
        "curl -H \"Authorization: Bearer $(cat api.token)\" -H 'Content-Type: application/json' {API}/{what} -d '{body}'"
    ));
    let mut curl = machine.command("curl");
    curl.args(["--silent", "--show-error", "--fail-with-body", "--header", "Content-Type: application/json", "--data"]);
    curl.arg(body.to_string()).args(["--header", &format!("Authorization: Bearer {}", token.trim())]);
    let answer = run(curl.arg(format!("{API}/{what}")))?;
    Ok(serde_json::from_str(&answer)?)
}
