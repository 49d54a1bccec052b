//! An ACS beside a `GenieACS`: the extension and the provisions of `contrib/genieacs`, run by the rules of genieacs-cwmp, and the
//! import of its CPEs.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};
use tr111_tests::{
    acs,
    agent::{Agent, SOON},
    cpe::PASSWORD,
    lab::Lab,
    process::{Process, run, text},
    wait::wait_until,
};

const API: &str = "http://127.0.0.1:8111";
const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const DEVICE: &str = "00256D-STB-DEV0001";
const GATEWAY: &str = "00256D-IGD-GW0001";

/// An ACS, and a `GenieACS` that has its extension and provisions.
struct Story<'a> {
    agent: Agent<'a>,
    lab: &'a Lab,
}

impl<'a> Story<'a> {
    fn begin(lab: &'a Lab) -> Result<Self> {
        let token = lab.write("token", &format!("{TOKEN}\n"))?;
        lab.write("secret", "a secret of more than sixteen bytes\n")?;
        let agent = acs::start(&lab.gateway, lab.path(), "acs", &format!("api_token_file = \"{token}\"\n"))?;
        Ok(Self { agent, lab })
    }

    /// Adds CPEs with both passwords.
    fn provision(&self, names: &[&str]) -> Result<()> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        acs::import(&self.agent, self.lab.path(), &names, "stunpassword1234")
    }

    /// Runs sessions one after the other in one process of `GenieACS`, without any fault.
    fn sessions(&self, sessions: &[Value]) -> Result<Vec<Value>> {
        let results = genieacs(self.lab, API, sessions)?;
        for result in &results {
            ensure!(result["fault"].is_null(), "{result}");
        }
        Ok(results)
    }

    fn session(&self, session: Value) -> Result<Value> {
        self.sessions(&[session])?.pop().context("no result")
    }

    /// What the ACS shows of a CPE.
    fn cpe(&self, name: &str) -> Result<Value> {
        let list = self.agent.json(&["cpe", "list"])?;
        let cpes = list["cpes"].as_array().context("no list")?;
        Ok(cpes.iter().find(|cpe| cpe["stun_username"] == name).cloned().unwrap_or_default())
    }

    /// All CPEs with their passwords.
    fn credentials(&self) -> Result<Vec<Value>> {
        let path = self.lab.path().join("credentials.json");
        if path.exists() {
            fs::remove_file(&path)?;
        }
        self.agent.print(&["cpe", "export", "--with-secrets", &path.display().to_string()])?;
        let exported: Value = serde_json::from_slice(&fs::read(&path)?)?;
        Ok(exported["cpes"].as_array().context("no list")?.clone())
    }

    /// The gateway that a device is associated with, by their serial numbers.
    fn gateway_of(&self, serial: &str) -> Result<Value> {
        let list = self.agent.json(&["association", "list"])?;
        let associations = list["associations"].as_array().context("no list")?;
        let found = associations.iter().find(|association| association["device"]["serial_number"] == serial);
        Ok(found.map(|association| association["gateway"]["serial_number"].clone()).unwrap_or_default())
    }

    /// What a command says to stderr, which fails with status 1.
    fn refused(&self, arguments: &[&str]) -> Result<String> {
        let output = self.agent.ask(arguments)?;
        ensure!(output.status.code() == Some(1), "{arguments:?}: {:?}", output.status);
        Ok(text(&output.stderr))
    }
}

/// Runs sessions in one process of a `GenieACS` whose tr111 is at `api`.
fn genieacs(lab: &Lab, api: &str, sessions: &[Value]) -> Result<Vec<Value>> {
    let stand_in = lab.write("genieacs.js", include_str!("genieacs.js"))?;
    let recipe = concat!(env!("CARGO_MANIFEST_DIR"), "/../contrib/genieacs");
    let mut node = lab.gateway.command("node");
    node.args([&stand_in, recipe, &Value::from(sessions).to_string()]).env("TR111_API", api);
    node.env("TR111_TOKEN_FILE", lab.path().join("token")).env("TR111_SECRET_FILE", lab.path().join("secret"));
    Ok(serde_json::from_str(&run(&mut node)?)?)
}

/// The session of a device behind a gateway.
fn device_session(address: &str) -> Value {
    json!({"provision": "provision.js", "parameters": {
        "DeviceID.ID": DEVICE, "DeviceID.OUI": "00256D", "DeviceID.ProductClass": "STB",
        "DeviceID.SerialNumber": "DEV0001", "Device.DeviceInfo.SerialNumber": "DEV0001",
        "Device.ManagementServer.UDPConnectionRequestAddress": address,
        "Device.ManagementServer.NATDetected": true,
        "Device.GatewayInfo.ManufacturerOUI": "00256D", "Device.GatewayInfo.ProductClass": "IGD",
        "Device.GatewayInfo.SerialNumber": "GW0001",
    }})
}

/// The session of a gateway whose table has these serial numbers.
fn gateway_session(address: &str, serials: &[&str]) -> Value {
    let mut parameters = json!({
        "DeviceID.ID": GATEWAY, "DeviceID.OUI": "00256D", "DeviceID.ProductClass": "IGD",
        "DeviceID.SerialNumber": "GW0001", "InternetGatewayDevice.DeviceInfo.SerialNumber": "GW0001",
        "InternetGatewayDevice.ManagementServer.UDPConnectionRequestAddress": address,
        "InternetGatewayDevice.ManagementServer.NATDetected": "false",
        "InternetGatewayDevice.ManagementServer.ManageableDeviceNumberOfEntries": serials.len(),
    });
    for (row, serial) in serials.iter().enumerate() {
        let row = format!("InternetGatewayDevice.ManagementServer.ManageableDevice.{}", row + 1);
        for (name, value) in [("ManufacturerOUI", "00256D"), ("ProductClass", "STB"), ("SerialNumber", serial)] {
            parameters[format!("{row}.{name}")] = json!(value);
        }
    }
    json!({"provision": "provision.js", "parameters": parameters})
}

/// A CPE that hears Connection Requests.
fn listen(lab: &Lab) -> Result<UdpSocket> {
    let socket = lab.gateway.enter(|| UdpSocket::bind("127.0.0.1:0"))?;
    socket.set_read_timeout(Some(SOON))?;
    Ok(socket)
}

/// Different requests that have come.
fn heard(socket: &UdpSocket) -> Result<BTreeSet<String>> {
    socket.set_nonblocking(true)?;
    let (mut requests, mut datagram) = (BTreeSet::new(), [0; 1500]);
    loop {
        match socket.recv_from(&mut datagram) {
            Ok((length, from)) => {
                assert_eq!(from.port(), 3478);
                requests.insert(text(&datagram[..length]));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(requests),
            Err(error) => return Err(error.into()),
        }
    }
}

/// STUN-40, STUN-41, STUN-44, ACS-1, ACS-5: a session sets Active notification on what it names and tells what the CPE has, a
/// table of 300 rows like one of two, in a few commits.
#[test]
fn a_session_tells_what_a_cpe_tells() -> Result<()> {
    let lab = Lab::new()?;
    let story = Story::begin(&lab)?;
    story.provision(&[DEVICE, GATEWAY])?;
    let address = listen(&lab)?.local_addr()?.to_string();
    let device = story.session(device_session("198.51.100.7:40001"))?;
    let is_active = |session: &Value, name: &str| session["notification"][name] == 2;
    for name in ["UDPConnectionRequestAddress", "NATDetected"] {
        assert!(is_active(&device, &format!("Device.ManagementServer.{name}")), "{name}: {device}");
    }
    assert!(is_active(&device, "Device.GatewayInfo.*"), "{device}");
    assert_eq!(device["log"], json!(["association: pending"]));
    let cpe = story.cpe(DEVICE)?;
    assert_eq!((&cpe["address"], &cpe["nat_detected"]), (&json!("198.51.100.7:40001"), &json!(true)));

    let serials: Vec<String> = (1..=300).map(|number| format!("DEV{number:04}")).collect();
    let serials: Vec<&str> = serials.iter().map(String::as_str).collect();
    let gateway = story.session(gateway_session(&address, &serials))?;
    let entries = "InternetGatewayDevice.ManagementServer.ManageableDeviceNumberOfEntries";
    assert!(is_active(&gateway, entries), "{gateway}");
    assert_eq!(gateway["log"], json!([]));
    assert!(gateway["commits"].as_u64().is_some_and(|commits| commits < 10), "{gateway}");
    assert_eq!(story.cpe(GATEWAY)?["address"], *address);
    assert_eq!(story.gateway_of("DEV0001")?, "GW0001");
    assert_eq!(story.session(device_session("198.51.100.7:40001"))?["log"], json!(["association: unchanged"]));
    Ok(())
}

/// ACS-5: a gateway whose table is awaited is woken once a minute, however many devices name it in however many processes, and
/// no session waits for it.
#[test]
fn a_gateway_whose_table_is_awaited_is_woken_once_a_minute() -> Result<()> {
    let lab = Lab::new()?;
    let story = Story::begin(&lab)?;
    story.provision(&[GATEWAY])?;
    let gateway = listen(&lab)?;
    let address = gateway.local_addr()?.to_string();
    story.session(gateway_session(&address, &[]))?;
    // The gateway's table says nothing of it any more, so that devices wait for it.
    story.agent.print(&["tune", "acs.association.notification_delay_s=3600"])?;
    let behind = |serial: &str| {
        let mut session = device_session("198.51.100.7:40001");
        for name in ["DeviceID.SerialNumber", "Device.DeviceInfo.SerialNumber"] {
            session["parameters"][name] = json!(serial);
        }
        session
    };
    for serials in [&["DEV0001", "DEV0002", "DEV0003"][..], &["DEV0004"]] {
        let sessions: Vec<Value> = serials.iter().map(|serial| behind(serial)).collect();
        for session in story.sessions(&sessions)? {
            assert_eq!(session["log"], json!(["association: pending"]));
        }
    }
    let requests = heard(&gateway)?;
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert!(requests.iter().all(|request| request.starts_with(&format!("GET http://{address}?"))), "{requests:?}");
    Ok(())
}

/// STUN-41: an address that became empty is told, and Connection Requests do not go to the old one any more.
#[test]
fn an_address_that_became_empty_is_told() -> Result<()> {
    let lab = Lab::new()?;
    let story = Story::begin(&lab)?;
    story.provision(&[DEVICE])?;
    let socket = listen(&lab)?;
    let wake = json!({"ext": ["tr111", "connectionRequest", DEVICE]});
    let results = story.sessions(&[
        device_session(&socket.local_addr()?.to_string()),
        wake.clone(),
        device_session(""),
        wake,
        // It says so in every session.
        device_session(""),
    ])?;
    assert_eq!(results[1]["value"], "sent");
    assert_eq!(results[3]["value"], "failed: no address of this CPE is known");
    assert_eq!(story.cpe(DEVICE)?["address"], Value::Null);
    assert_eq!(story.agent.json(&["bindings"])?["bindings"], json!([]));
    assert_eq!(heard(&socket)?.len(), 1);
    Ok(())
}

/// ACS-4: an empty `ProductClass` is a missing one, in whatever way `GenieACS` has none.
#[test]
fn an_empty_product_class_is_a_missing_one() -> Result<()> {
    let lab = Lab::new()?;
    let story = Story::begin(&lab)?;
    let mut gateway = gateway_session("", &["DEV0001", "DEV0002", "DEV0003"]);
    let mut parameters = gateway["parameters"].take();
    let rows = parameters.as_object_mut().context("no parameters")?;
    let row = |row: usize| format!("InternetGatewayDevice.ManagementServer.ManageableDevice.{row}.ProductClass");
    rows.insert(row(1), json!(""));
    rows.insert(row(2), Value::Null);
    rows.remove(&row(3));
    gateway["parameters"] = parameters;
    let mut sessions = vec![gateway];
    for (serial, class) in [("DEV0001", None), ("DEV0002", Some(json!(""))), ("DEV0003", Some(Value::Null))] {
        let mut session = device_session("");
        let parameters = session["parameters"].as_object_mut().context("no parameters")?;
        parameters.insert("DeviceID.SerialNumber".to_owned(), json!(serial));
        parameters.remove("DeviceID.ProductClass");
        parameters.extend(class.map(|class| ("DeviceID.ProductClass".to_owned(), class)));
        sessions.push(session);
    }
    for session in &story.sessions(&sessions)?[1..] {
        assert_eq!(session["log"], json!(["association: validated"]));
    }
    Ok(())
}

/// Whatever tr111 does, and where it is not, no function fails: each resolves with a value well before the 3 s of `GenieACS`.
#[test]
fn nothing_of_tr111_fails_a_session() -> Result<()> {
    let lab = Lab::new()?;
    let story = Story::begin(&lab)?;
    let upsert = json!({
        "stun_username": DEVICE, "stun_password": "s", "connection_request_username": "u", "connection_request_password": "p",
    });
    let sessions = [
        device_session("198.51.100.7:40001"),
        gateway_session("198.51.100.7:40002", &["DEV0001"]),
        json!({"ext": ["tr111", "address", "nobody", "198.51.100.7", ""]}),
        json!({"ext": ["tr111", "connectionRequest", "nobody"]}),
        json!({"ext": ["tr111", "gatewayInfo", "no JSON"]}),
        json!({"ext": ["tr111", "manageableDevices", "{}"]}),
        json!({"ext": ["tr111", "connectionRequest"]}),
        json!({"ext": ["tr111", "provision", DEVICE, "u", "p"]}),
        json!({"ext": ["tr111", "upsert", upsert.to_string()]}),
    ];
    let known = story.sessions(&sessions)?;
    assert_eq!((&known[2]["value"], &known[3]["value"]), (&json!("unknown"), &json!("unknown")));

    let closed = lab.gateway.enter(|| TcpListener::bind("127.0.0.1:0"))?.local_addr()?;
    let trickle = |stream: &mut TcpStream| {
        for part in "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n".bytes().chain([b' '].into_iter().cycle()) {
            if stream.write_all(&[part]).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    };
    let say = |words: &'static str| move |stream: &mut TcpStream| drop(stream.write_all(words.as_bytes()));
    let silent = |stream: &mut TcpStream| drop(stream.read_to_end(&mut Vec::new()));
    let mut places = vec![format!("http://{closed}"), "no URL".to_owned()];
    places.push(serve(&lab, trickle)?);
    places.push(serve(&lab, silent)?);
    places.push(serve(&lab, |_| {})?);
    for words in [
        "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>",
        "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 6\r\n\r\n<html>",
        "HTTP/1.1 200 OK\r\nContent-Length: 600\r\n\r\n<html>",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n42",
        "SSH-2.0-OpenSSH_9.2\r\n",
    ] {
        places.push(serve(&lab, say(words))?);
    }
    lab.write("wrong", "ffffffffffffffffffffffffffffffff")?;
    let judge = |what: &str, results: Vec<Value>| -> Result<()> {
        for (session, result) in sessions.iter().zip(results) {
            ensure!(result["fault"].is_null(), "{what}: {session}: {result}");
            ensure!(session.get("ext").is_none() || !result["value"].is_null(), "{what}: {session}: {result}");
        }
        Ok(())
    };
    for place in places {
        judge(&place, genieacs(&lab, &place, &sessions)?)?;
    }
    for token in ["wrong", "missing"] {
        fs::rename(lab.path().join("token"), lab.path().join("old"))?;
        if token == "wrong" {
            fs::copy(lab.path().join("wrong"), lab.path().join("token"))?;
        }
        judge(token, genieacs(&lab, API, &sessions)?)?;
        fs::rename(lab.path().join("old"), lab.path().join("token"))?;
    }
    Ok(())
}

/// STUN-20 to STUN-22: a provision has tr111 know a CPE, with a password of its own, and sets STUN in the CPE; it waits for the
/// Connection Request credentials of `GenieACS`, and never empties a password.
#[test]
fn a_provision_provisions_a_cpe_in_both() -> Result<()> {
    let lab = Lab::new()?;
    let story = Story::begin(&lab)?;
    let session = |name: &str, password: &str| {
        let management = "InternetGatewayDevice.ManagementServer";
        let mut parameters = json!({"DeviceID.ID": name, "InternetGatewayDevice.DeviceInfo.SerialNumber": "1"});
        for (parameter, value) in [
            ("STUNEnable", json!(false)),
            ("STUNServerAddress", json!("")),
            ("STUNServerPort", json!(0)),
            ("STUNUsername", json!("")),
            ("STUNPassword", json!("")),
            ("ConnectionRequestUsername", json!(name)),
            ("ConnectionRequestPassword", json!(password)),
        ] {
            parameters[format!("{management}.{parameter}")] = value;
        }
        json!({"provision": "stun.js", "args": ["stun.example"], "parameters": parameters})
    };
    let waits = story.session(session(DEVICE, ""))?;
    assert_eq!(waits["values"], json!({}));
    assert_eq!(waits["log"], json!(["tr111: stun: failed: connection_request_password is empty"]));
    assert_eq!(story.credentials()?, [] as [Value; 0]);

    let set = story.session(session(DEVICE, "cr-secret-01"))?;
    let values = &set["values"];
    let of = |name: &str| &values[format!("InternetGatewayDevice.ManagementServer.{name}")];
    assert_eq!((of("STUNEnable"), of("STUNServerAddress")), (&json!(true), &json!("stun.example")));
    assert_eq!((of("STUNServerPort"), of("STUNUsername")), (&json!(3478), &json!(DEVICE)));
    let password = of("STUNPassword").as_str().context("no password")?;
    assert!(password.len() == 32 && password.bytes().all(|digit| digit.is_ascii_hexdigit()), "{password}");
    let expected = json!({
        "stun_username": DEVICE, "stun_password": password, "connection_request_username": DEVICE,
        "connection_request_password": "cr-secret-01",
    });
    assert_eq!(story.credentials()?, [expected]);
    assert!(!set["log"].to_string().contains(password), "{set}");

    // The next session has the same password, an empty one changes nothing, and another CPE has another password.
    let again =
        story.sessions(&[session(DEVICE, "cr-secret-02"), session(DEVICE, ""), session(GATEWAY, "cr-secret-03")])?;
    assert_eq!(again[0]["values"], *values);
    assert_eq!(again[1]["values"], json!({}));
    let kept = story.credentials()?;
    assert_eq!(kept.len(), 2);
    let device = kept.iter().find(|cpe| cpe["stun_username"] == DEVICE).context("it is gone")?;
    assert_eq!(
        (&device["connection_request_password"], &device["stun_password"]),
        (&json!("cr-secret-02"), &json!(password))
    );
    assert_ne!(kept[0]["stun_password"], kept[1]["stun_password"]);
    let lint = text(&story.agent.ask(&["cpe", "lint"])?.stdout);
    assert!(lint.contains("connection_request") && !lint.contains("stun_password"), "{lint}");

    // An upsert keeps what was learned.
    story.agent.print(&["cpe", "verify", DEVICE])?;
    let upsert = |name: &str, password: &str| {
        let cpe = json!({
            "stun_username": name, "stun_password": password, "connection_request_username": "u",
            "connection_request_password": "p",
        });
        json!({"ext": ["tr111", "upsert", cpe.to_string()]})
    };
    let results = story.sessions(&[upsert(DEVICE, "x"), upsert("new", "x"), upsert(DEVICE, "")])?;
    let values: Vec<&Value> = results.iter().map(|result| &result["value"]).collect();
    assert_eq!(values, ["updated", "added", "failed: stun_password is empty"]);
    assert_eq!(story.cpe(DEVICE)?["must_verify"], true);

    // Without a secret, and without tr111, nothing is set in the CPE.
    fs::remove_file(lab.path().join("secret"))?;
    assert_eq!(story.session(session(DEVICE, "cr-secret-01"))?["values"], json!({}));
    lab.write("secret", "a secret of more than sixteen bytes\n")?;
    let nowhere = genieacs(&lab, "http://127.0.0.1:1", &[session(DEVICE, "cr-secret-01")])?;
    assert_eq!((&nowhere[0]["values"], &nowhere[0]["fault"]), (&json!({}), &Value::Null));
    Ok(())
}

/// A TCP server that answers each client by `answer`, after the head of its request.
fn serve(lab: &Lab, answer: impl Fn(&mut TcpStream) + Clone + Send + 'static) -> Result<String> {
    let listener = lab.gateway.enter(|| TcpListener::bind("127.0.0.1:0"))?;
    let address = listener.local_addr()?;
    // It ends with the process.
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(mut stream), answer) = (stream, answer.clone()) else { return };
            thread::spawn(move || {
                if head(&stream).is_some() {
                    answer(&mut stream);
                }
            });
        }
    });
    Ok(format!("http://{address}"))
}

/// The path of a request.
fn head(stream: &TcpStream) -> Option<String> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    lines.find(|line| line.as_ref().is_ok_and(String::is_empty))?.ok()?;
    first.strip_prefix("GET ").or(first.split_once(' ').map(|(_, rest)| rest))?.split(' ').next().map(str::to_owned)
}

/// The north-bound interface of a `GenieACS` that has `devices`, in the order of their `_id`.
#[derive(Clone)]
struct Nbi {
    devices: Arc<Mutex<Vec<Value>>>,
    /// Queries that came, decoded.
    asked: Arc<Mutex<Vec<Map<String, Value>>>>,
}

impl Nbi {
    fn start(lab: &Lab, devices: Vec<Value>) -> Result<(Self, String)> {
        let nbi = Self { devices: Arc::new(Mutex::new(devices)), asked: Arc::default() };
        let listener = lab.gateway.enter(|| TcpListener::bind("127.0.0.1:0"))?;
        let address: SocketAddr = listener.local_addr()?;
        let server = nbi.clone();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = head(&stream).and_then(|path| server.answer(&path, &mut stream));
            }
        });
        Ok((nbi, format!("http://{address}")))
    }

    fn set(&self, name: &str, parameter: &str, value: &str) {
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        for device in devices.iter_mut().filter(|device| device["_id"] == name) {
            device["InternetGatewayDevice"]["ManagementServer"][parameter]["_value"] = json!(value);
        }
    }

    fn asked(&self) -> Vec<Map<String, Value>> {
        std::mem::take(&mut *self.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// As genieacs-nbi answers: the documents that match, from `MongoDB`'s cursor, in chunks.
    fn answer(&self, path: &str, stream: &mut TcpStream) -> Option<()> {
        let (path, query) = path.split_once('?')?;
        let query: Map<String, Value> = query
            .split('&')
            .map(|pair| pair.split_once('=').map(|(name, value)| (name.to_owned(), Value::from(unescape(value)))))
            .collect::<Option<_>>()?;
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(query.clone());
        if path != "/devices/" {
            return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 13\r\n\r\n404 Not Found").ok();
        }
        let filter: Value = serde_json::from_str(query["query"].as_str()?).ok()?;
        let after = filter["_id"]["$gt"].as_str().unwrap_or_default();
        let limit: usize = query["limit"].as_str()?.parse().ok()?;
        let paths: Vec<&str> = query["projection"].as_str()?.split(',').collect();
        let devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        let found: Vec<&Value> = devices.iter().filter(|device| device["_id"].as_str() > Some(after)).collect();
        let mut body = vec!["[\n".to_owned()];
        for (number, device) in found.iter().take(limit).enumerate() {
            if number > 0 {
                body.push(",\n".to_owned());
            }
            body.push(project(device, &paths).to_string());
        }
        body.push("\n]".to_owned());
        let total = found.len();
        let mut answer = format!(
            "HTTP/1.1 200 OK\r\nGenieACS-Version: 1.2.16\r\nContent-Type: application/json\r\ntotal: {total}\r\n\
             Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        for part in body {
            write!(answer, "{:x}\r\n{part}\r\n", part.len()).ok()?;
        }
        answer.push_str("0\r\n\r\n");
        stream.write_all(answer.as_bytes()).ok()
    }
}

/// The paths of a document that a projection names, and its `_id`.
fn project(device: &Value, paths: &[&str]) -> Value {
    let mut document = json!({"_id": device["_id"]});
    for path in paths {
        let pointer = format!("/{}", path.replace('.', "/"));
        let Some(value) = device.pointer(&pointer) else { continue };
        let mut place = &mut document;
        for name in path.split('.') {
            place = &mut place[name];
        }
        *place = value.clone();
    }
    document
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((before, escaped)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        let (digits, behind) = escaped.split_at_checked(2).unwrap_or(("", ""));
        bytes.extend(u8::from_str_radix(digits, 16));
        rest = behind;
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A device as `GenieACS` keeps it in `MongoDB`.
fn document(id: &str, credentials: &[(&str, &str)]) -> Value {
    let mut management = json!({"_object": true, "_timestamp": "2024-05-01T12:00:00.000Z", "_writable": false});
    for (name, value) in credentials {
        management[name] = json!({
            "_object": false, "_timestamp": "2024-05-01T12:00:00.000Z", "_type": "xsd:string", "_value": value,
            "_writable": true,
        });
    }
    json!({
        "_id": id,
        "_deviceId": {"_Manufacturer": "M", "_OUI": "00256D", "_SerialNumber": "1"},
        "_lastInform": "2024-05-01T12:00:00.000Z",
        "InternetGatewayDevice": {"_object": true, "ManagementServer": management},
    })
}

/// 1,203 devices of which one has its STUNUsername from somewhere else.
fn devices() -> Vec<Value> {
    let device = |number: usize| {
        let id = format!("00256D-Home%20Box-{number:05}");
        let stun = if number == 7 { "other" } else { "" };
        let password = format!("cr-password-{number}");
        document(
            &id,
            &[
                ("STUNUsername", stun),
                ("STUNPassword", "stunpassword1234"),
                ("ConnectionRequestUsername", &id),
                ("ConnectionRequestPassword", &password),
                ("STUNEnable", "true"),
            ],
        )
    };
    (0..1_203).map(device).collect()
}

/// STUN-20, STUN-21: the CPEs of a `GenieACS` are imported page by page with the credentials that it set, all or none; a password
/// that it does not know is refused unless it may be empty, and an upsert leaves what was learned.
#[test]
fn the_cpes_of_a_genieacs_are_imported() -> Result<()> {
    let lab = Lab::new()?;
    let story = Story::begin(&lab)?;
    let (nbi, url) = Nbi::start(&lab, devices())?;
    let import = ["cpe", "import", "--genieacs", &url];
    let with =
        |options: &[&'static str]| -> Vec<&str> { import.iter().copied().chain(options.iter().copied()).collect() };
    assert_eq!(story.agent.print(&import)?, "1203 CPEs imported\n");
    let asked = nbi.asked();
    assert_eq!(asked.len(), 3, "{asked:?}");
    for (page, query) in asked.iter().enumerate() {
        let filter: Value = serde_json::from_str(query["query"].as_str().context("no query")?)?;
        let last = format!("00256D-Home%20Box-{:05}", (page * 500).saturating_sub(1));
        assert_eq!(filter, if page == 0 { json!({}) } else { json!({"_id": {"$gt": last}}) });
        assert_eq!((&query["limit"], &query["sort"]), (&json!("500"), &json!("{\"_id\":1}")));
        let paths = query["projection"].as_str().context("no projection")?;
        assert!(paths.split(',').count() == 8 && !paths.contains("STUNEnable"), "{paths}");
    }
    let credentials = story.credentials()?;
    let of = |credentials: &[Value], name: &str| credentials.iter().find(|cpe| cpe["stun_username"] == name).cloned();
    let second = json!({
        "stun_username": "00256D-Home%20Box-00001", "stun_password": "stunpassword1234",
        "connection_request_username": "00256D-Home%20Box-00001", "connection_request_password": "cr-password-1",
    });
    assert_eq!(of(&credentials, "00256D-Home%20Box-00001"), Some(second));
    let other = of(&credentials, "other").context("no CPE has the STUNUsername")?;
    assert_eq!(other["connection_request_username"], "00256D-Home%20Box-00007");
    assert_eq!(credentials.len(), 1_203);

    // The second time they are there; with --upsert they get what changed.
    let changed = "00256D-Home%20Box-00500";
    story.agent.print(&["cpe", "verify", changed])?;
    nbi.set(changed, "ConnectionRequestPassword", "new-password");
    let error = story.refused(&import)?;
    ensure!(error.contains("device 00256D-Home%20Box-00000") && error.contains("nothing was imported"), "{error}");
    assert_eq!(story.agent.json(&with(&["--upsert"]))?, json!({"imported": 1203}));
    let after = story.credentials()?;
    assert_eq!(of(&after, changed).context("it is gone")?["connection_request_password"], "new-password");
    assert_eq!(after.len(), 1_203);
    assert_eq!(story.cpe(changed)?["must_verify"], true);

    // A CPE tells an empty password when GenieACS reads it.
    nbi.set(changed, "STUNPassword", "");
    nbi.set("00256D-Home%20Box-00501", "ConnectionRequestPassword", "");
    for options in [&[][..], &["--upsert"]] {
        let error = story.refused(&with(options))?;
        for words in [&format!("device {changed}: stun_password is empty"), "2 of 1203 CPEs", "--allow-empty"] {
            ensure!(error.contains(words), "{error}");
        }
        ensure!(!error.contains("cr-password"), "{error}");
    }
    assert_eq!(story.credentials()?, after);
    story.agent.print(&with(&["--upsert", "--allow-empty"]))?;
    assert_eq!(of(&story.credentials()?, changed).context("it is gone")?["stun_password"], "");
    Ok(())
}

/// SEC-8: what is no NBI, or one that never ends, imports nothing, and says why.
#[test]
fn what_is_no_nbi_imports_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let story = Story::begin(&lab)?;
    let page = |numbers: std::ops::Range<usize>| {
        let devices: Vec<Value> =
            numbers.map(|number| document(&format!("{number:05}"), &[("STUNPassword", "secret")])).collect();
        let body = Value::from(devices).to_string();
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    let say = |words: String| move |stream: &mut TcpStream| drop(stream.write_all(words.as_bytes()));
    let endless = |stream: &mut TcpStream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n[");
        while stream.write_all(&[b' '; 8_192]).is_ok() {}
    };
    let fixed = |status: &str, body: &str| format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let closed = lab.gateway.enter(|| TcpListener::bind("127.0.0.1:0"))?.local_addr()?;
    let cases = [
        (format!("http://{closed}"), "refused"),
        (serve(&lab, endless)?, "16777216 bytes"),
        (serve(&lab, say(page(0..501)))?, "do not come in pages"),
        (serve(&lab, say(page(0..500)))?, "do not come in pages"),
        (serve(&lab, say(page(0..500).replace("Content-Length: ", "Content-Length: 9")))?, "is incomplete"),
        (
            serve(&lab, say(fixed("500 Internal Server Error", "MongoServerError: not primary\u{1b}[2J")))?,
            "MongoServerError",
        ),
        (serve(&lab, say(fixed("200 OK", "{\"secret\": 1}")))?, "no list of devices"),
        (serve(&lab, say(fixed("200 OK", "[{\"secret\": 1}]")))?, "no list of devices"),
        (serve(&lab, say("SSH-2.0-OpenSSH_9.2\r\n".to_owned()))?, "no answer of an NBI"),
        (serve(&lab, |_| {})?, "no answer of an NBI"),
        (format!("https://{closed}"), "--ca-file"),
    ];
    for (url, words) in cases {
        let error = story.refused(&["cpe", "import", "--allow-empty", "--genieacs", &url])?;
        ensure!(error.contains(words) && error.contains("nothing was imported"), "{url}: {error}");
        ensure!(!error.contains("secret") && !error.contains('\u{1b}'), "{url}: {error}");
    }
    assert_eq!(story.agent.json(&["cpe", "list"])?["number_of_entries"], 0);
    for wrong in [
        &["cpe", "import"][..],
        &["cpe", "import", "cpes.csv", "--genieacs", "http://127.0.0.1"],
        &["cpe", "import", "--genieacs", "127.0.0.1:7557"],
        &["cpe", "import", "cpes.csv", "--ca-file", "ca.pem"],
    ] {
        assert_eq!(story.agent.ask(wrong)?.status.code(), Some(2), "{wrong:?}");
    }
    Ok(())
}

/// SEC-6: passwords come by TLS from an NBI that has a certificate of the named CA, and from no other.
#[test]
fn an_nbi_with_a_certificate_is_asked_by_tls() -> Result<()> {
    const SERVER: &str = "const [key, cert] = process.argv.slice(1).map((file) => require('fs').readFileSync(file));
        require('https').createServer({ key, cert }, (request, response) => response.end(JSON.stringify([{ _id: 'A-1',
        Device: { ManagementServer: { STUNPassword: { _value: 's' }, ConnectionRequestPassword: { _value: 'c' } } } }])))
        .listen(7557, '127.0.0.1', () => console.log('ready'));";
    let lab = Lab::new()?;
    let story = Story::begin(&lab)?;
    let certificate = |name: &str, options: &[&str]| -> Result<[String; 2]> {
        let files = ["key", "cert"].map(|kind| lab.path().join(format!("{name}-{kind}.pem")).display().to_string());
        let mut openssl = Command::new("openssl");
        openssl.args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "1",
        ]);
        openssl.args(["-subj", &format!("/CN={name}")]).args(options);
        run(openssl.args(["-keyout", &files[0], "-out", &files[1]]))?;
        Ok(files)
    };
    let ([ca_key, ca], [_, other]) = (certificate("ca", &[])?, certificate("other", &[])?);
    let signed = ["-CA", &ca, "-CAkey", &ca_key, "-addext", "subjectAltName=IP:127.0.0.1"];
    let [key, cert] = certificate("nbi", &[&signed[..], &["-addext", "basicConstraints=critical,CA:FALSE"]].concat())?;
    let mut node = lab.gateway.command("node");
    let server = Process::start("nbi", node.args(["--eval", SERVER, &key, &cert]), lab.path())?;
    wait_until("the NBI", SOON, || Ok(server.stdout().contains("ready")))?;
    let url = "https://127.0.0.1";
    for (url, ca) in [(url, &other), ("https://localhost", &ca), ("http://127.0.0.1", &ca), (url, &key)] {
        let error = story.refused(&["cpe", "import", "--genieacs", url, "--ca-file", ca])?;
        ensure!(error.contains("nothing was imported"), "{error}");
    }
    story.agent.print(&["cpe", "import", "--genieacs", url, "--ca-file", &ca])?;
    assert_eq!(story.credentials()?[0]["stun_username"], "A-1");
    Ok(())
}

/// STUN-20, STUN-21: a file is imported over CPEs that are there if that is asked for, and with an empty password as well.
#[test]
fn a_file_is_imported_over_what_is_there() -> Result<()> {
    let lab = Lab::new()?;
    let story = Story::begin(&lab)?;
    story.provision(&[DEVICE])?;
    story.agent.print(&["cpe", "verify", DEVICE])?;
    let headings = "stun_username,stun_password,connection_request_username,connection_request_password";
    let file = lab.write("both.csv", &format!("{headings}\n{DEVICE},new-password-1,u,p\n{GATEWAY},other,u,p\n"))?;
    ensure!(story.refused(&["cpe", "import", &file])?.contains("another CPE has this STUNUsername"));
    assert_eq!(story.credentials()?.len(), 1);
    story.agent.print(&["cpe", "import", "--upsert", &file])?;
    let is_there = |password: &str| -> Result<bool> {
        let all = story.credentials()?;
        Ok(all.len() == 2 && all.iter().any(|cpe| cpe["stun_username"] == DEVICE && cpe["stun_password"] == password))
    };
    ensure!(is_there("new-password-1")?);
    assert_eq!(story.cpe(DEVICE)?["must_verify"], true);
    let empty = lab.write("empty.csv", &format!("{headings}\n{GATEWAY},other,u,p\n{DEVICE},,u,{PASSWORD}\n"))?;
    let error = story.refused(&["cpe", "import", "--upsert", &empty])?;
    for words in ["line 3: stun_password is empty", "1 of 2 CPEs", "--allow-empty", "nothing was imported"] {
        ensure!(error.contains(words), "{error}");
    }
    ensure!(is_there("new-password-1")?);
    story.agent.print(&["cpe", "import", "--upsert", "--allow-empty", &empty])?;
    ensure!(is_there("")?);
    // It outlives the process.
    let before = story.credentials()?;
    let Story { agent, .. } = story;
    let files = agent.kill()?;
    let token = lab.path().join("token").display().to_string();
    let agent = acs::start_with(&lab.gateway, files, lab.path(), &format!("api_token_file = \"{token}\"\n"))?;
    let story = Story { agent, lab: &lab };
    let after: BTreeSet<String> = story.credentials()?.iter().map(Value::to_string).collect();
    assert_eq!(after, before.iter().map(Value::to_string).collect());
    Ok(())
}
