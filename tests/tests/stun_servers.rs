//! A device and STUN servers that ask for credentials, refuse, lie, ignore or are silent.

use std::{
    net::{SocketAddr, SocketAddrV4, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tr111_core::{
    secret::SharedSecret,
    stun::{Attribute, Builder, ErrorCode, INTERVALS, Message, MessageType, UnknownAttributes, Variant, Variants},
};
use tr111_tests::{
    agent::{Agent, Files, SOON},
    cpe::{self, MANAGEMENT, PASSWORD, STUN_PASSWORD, USERNAME, get, request, start, unix_now, wait_for_address},
    lab::Lab,
    metrics::Metrics,
    namespace::Namespace,
    nat::{NatLab, PUBLIC, SERVER},
    wait::{wait_for, wait_until},
};

/// As what a scripted server sees the device.
const MAPPED: SocketAddrV4 = SocketAddrV4::new(std::net::Ipv4Addr::new(198, 51, 100, 7), 40_001);
/// RFC 3489 gives a server up after 9.5 s; the binding is believed in for a period more, here of two seconds (T-44).
const UNREACHABLE: Duration = Duration::from_secs(30);

/// A STUN server that does what a story says.
struct Scripted(UdpSocket);

impl Scripted {
    fn bind(namespace: &Namespace, address: &str) -> Result<Self> {
        let socket = namespace.enter(|| UdpSocket::bind(address))?;
        socket.set_read_timeout(Some(SOON))?;
        Ok(Self(socket))
    }

    /// The next request for which `is_wanted`.
    fn next(&self, is_wanted: impl Fn(&Message<'_>) -> bool) -> Result<(Vec<u8>, SocketAddr)> {
        let mut buffer = [0; 1500];
        let deadline = Instant::now() + SOON;
        loop {
            // Others may come all the time.
            ensure!(Instant::now() < deadline, "no such request");
            let (length, source) = self.0.recv_from(&mut buffer).context("no request")?;
            let datagram = buffer[..length].to_vec();
            if is_wanted(&Message::parse(&datagram)?) {
                return Ok((datagram, source));
            }
        }
    }

    fn answer(&self, to: SocketAddr, datagram: &[u8]) -> Result<()> {
        self.0.send_to(datagram, to)?;
        Ok(())
    }
}

/// A server on the gateway, and a device that asks it every second or two.
fn scripted(lab: &Lab) -> Result<(Scripted, Agent<'_>)> {
    lab.lan.ip("addr add 10.111.2.5/16 dev eth0")?;
    let server = Scripted::bind(&lab.gateway, "10.111.0.1:3478")?;
    let management = "stun_enable = true\nstun_server_address = \"10.111.0.1\"\n\
                      stun_minimum_keep_alive_period = 1\nstun_maximum_keep_alive_period = 2\n";
    let device = start(lab, Files::new(lab.path(), "device")?, management)?;
    Ok((server, device))
}

/// The answer to `request` that tells of `mapped`.
fn bound(request: &Message<'_>, mapped: SocketAddrV4) -> Vec<u8> {
    let answer = Builder::new(MessageType::BindingResponse, request.transaction_id());
    answer.attribute(Attribute::MappedAddress(mapped)).build()
}

/// Answers to Binding Requests with this result.
fn received(metrics: &Metrics, result: &str) -> u64 {
    metrics.sum("tr111_stun_messages_total", &[("type", "binding_response"), ("result", result)])
}

fn alarm(device: &Agent<'_>, alarm: &str) -> Result<bool> {
    Ok(device.metrics()?.sum("tr111_binding_alarms", &[("alarm", alarm)]) == 1)
}

/// `UDPConnectionRequestAddress` and `NATDetected` tell of the listener itself (CPE-42).
fn is_untranslated(device: &Agent<'_>) -> Result<bool> {
    Ok(cpe::address(device)? == cpe::DEVICE && get(device, "NATDetected")? == "0")
}

/// CPE-7, CPE-8, CPE-9: the server's name is looked up; without one of its own it is the host of the ACS URL, and a write
/// of the port takes the next request there.
#[test]
fn the_server_is_looked_up_by_name() -> Result<()> {
    let lab = Lab::new()?;
    let server = Scripted::bind(&lab.lan, "127.0.0.1:3478")?;
    let other = Scripted::bind(&lab.lan, "127.0.0.1:3479")?;
    lab.lan.ip("addr add 10.111.2.5/16 dev eth0")?;
    let files = Files::new(lab.path(), "device")?;
    let device = start(&lab, files, "stun_enable = true\nurl = \"http://localhost:7547/acs\"\n")?;
    let from = SocketAddr::from(([127, 0, 0, 1], 7547));
    assert_eq!(server.next(|_| true)?.1, from);
    device.print(&["set", &format!("{MANAGEMENT}STUNMinimumKeepAlivePeriod"), "1"])?;
    device.print(&["set", &format!("{MANAGEMENT}STUNServerPort"), "3479"])?;
    assert_eq!(other.next(|_| true)?.1, from);
    Ok(())
}

/// RFC 3489 9.3, T-40: the first request after the start has all its nine copies, the first of them at once.
#[test]
fn the_first_request_leaves_nine_times() -> Result<()> {
    let lab = Lab::new()?;
    lab.lan.ip("addr add 10.111.2.5/16 dev eth0")?;
    let server = Scripted::bind(&lab.gateway, "10.111.0.1:3478")?;
    let management = "stun_enable = true\nstun_server_address = \"10.111.0.1\"\n";
    let _device = start(&lab, Files::new(lab.path(), "device")?, management)?;
    let (first, _) = server.next(|_| true)?;
    let mut arrived = vec![Instant::now()];
    while arrived.len() < INTERVALS.len() {
        // Nobody answers, so the next request comes after the last copy.
        ensure!(server.next(|_| true)?.0 == first, "only {} copies came", arrived.len());
        arrived.push(Instant::now());
    }
    for (pair, interval) in arrived.windows(2).zip(INTERVALS) {
        let gap = pair[1] - pair[0];
        // This test reads late at times, and the device sends late.
        ensure!(interval / 2 < gap && gap < interval + SOON, "{gap:?} after a copy, not {interval:?}");
    }
    Ok(())
}

/// CPE-9, CPE-13, CPE-14, CPE-17, CPE-28, CPE-30, CPE-31, T-39: asked for its credentials, the device repeats the request
/// signed, believes signed answers only, and signs nothing else.
#[test]
fn a_server_that_asks_for_credentials_gets_them_once() -> Result<()> {
    let lab = Lab::new()?;
    let (server, device) = scripted(&lab)?;
    let secret = SharedSecret::new(STUN_PASSWORD.as_bytes());
    let (request, source) = server.next(|request| !request.is_signed())?;
    let asked = Message::parse(&request)?;
    assert_eq!(source, SocketAddr::V4(cpe::DEVICE));
    assert!(asked.has_connection_request_binding());
    assert_eq!(asked.username().context("no USERNAME")?.trimmed(), USERNAME.as_bytes());
    let refused = Builder::new(MessageType::BindingErrorResponse, asked.transaction_id());
    server.answer(source, &refused.attribute(Attribute::ErrorCode(ErrorCode::UNAUTHORIZED)).build())?;

    let (signed, source) = server.next(|request| request.verify(&secret, Variants::STRICT) == Ok(Variant::A))?;
    let repeated = Message::parse(&signed)?;
    assert_ne!(repeated.transaction_id(), asked.transaction_id());
    assert!(repeated.has_connection_request_binding());
    let answer = |port| {
        let mapped = SocketAddrV4::new(*MAPPED.ip(), port);
        Builder::new(MessageType::BindingResponse, repeated.transaction_id())
            .attribute(Attribute::MappedAddress(mapped))
    };
    // Forgeries first: they are ignored, and counted.
    server.answer(source, &answer(1).build())?;
    server.answer(source, &answer(2).sign(&SharedSecret::new(b"guess"), Variant::A))?;
    device.wait_for_metrics("both forgeries", |metrics| {
        ["unsigned", "bad_integrity"].map(|result| received(metrics, result)) == [1, 1]
    })?;
    assert_eq!(get(&device, "NATDetected")?, "0");
    server.answer(source, &answer(MAPPED.port()).sign(&secret, Variant::A))?;
    wait_for_address(&device, |address| address == MAPPED)?;
    assert_eq!(device.json(&["bindings"])?["bindings"][0]["authenticated"], true);
    assert_eq!(received(&device.metrics()?, "accepted"), 1);

    // What follows is not signed, because nobody asked (CPE-17), and tells of the new binding (CPE-31).
    let (change, _) = server.next(|request| request.transaction_id() != repeated.transaction_id())?;
    let change = Message::parse(&change)?;
    assert!(change.has_binding_change() && !change.is_signed());
    Ok(())
}

/// STUN-4, CPE-28: a server that refuses TR-111's attributes, though it may not, is an alarm. The device leaves nothing out
/// for it, claims no binding, and takes the first good answer.
#[test]
fn a_server_that_refuses_the_attributes_of_tr_111_is_an_alarm() -> Result<()> {
    let lab = Lab::new()?;
    let (server, device) = scripted(&lab)?;
    let (first, source) = server.next(|_| true)?;
    let asked = Message::parse(&first)?;
    let refusal = Builder::new(MessageType::BindingErrorResponse, asked.transaction_id())
        .attribute(Attribute::ErrorCode(ErrorCode::UNKNOWN_ATTRIBUTE))
        .attribute(Attribute::UnknownAttributes(UnknownAttributes::new(&[0xc001])));
    server.answer(source, &refusal.build())?;
    wait_until("alarm", SOON, || alarm(&device, "unknown_attribute"))?;
    assert!(is_untranslated(&device)?);

    let (again, source) = server.next(|request| request.transaction_id() != asked.transaction_id())?;
    let again = Message::parse(&again)?;
    assert!(again.has_connection_request_binding() && again.username().is_some());
    server.answer(source, &bound(&again, MAPPED))?;
    wait_for_address(&device, |address| address == MAPPED)?;
    assert!(!alarm(&device, "unknown_attribute")?);
    Ok(())
}

/// SEC-3: two answers to one request that say different things are an alarm, and neither counts; one that nobody
/// contradicts does.
#[test]
fn two_answers_that_differ_count_for_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let (server, device) = scripted(&lab)?;
    let (first, source) = server.next(|_| true)?;
    let asked = Message::parse(&first)?;
    server.answer(source, &bound(&asked, MAPPED))?;
    server.answer(source, &bound(&asked, SocketAddrV4::new([192, 0, 2, 66].into(), 6_666)))?;
    wait_until("alarm", SOON, || alarm(&device, "contradiction"))?;
    assert_eq!(received(&device.metrics()?, "attack_other_mapping"), 1);
    assert!(is_untranslated(&device)?);

    let is_next =
        |request: &Message<'_>| request.transaction_id() != asked.transaction_id() && !request.has_binding_change();
    let (next, source) = server.next(is_next)?;
    server.answer(source, &bound(&Message::parse(&next)?, MAPPED))?;
    wait_for_address(&device, |address| address == MAPPED)?;
    assert_eq!(get(&device, "NATDetected")?, "1");
    Ok(())
}

/// T-20: the address in RFC 5389's form alone counts where the knob is on, and its forgery by another mask does not. The
/// request then carries the cookie. Where the knob is off, no address is reported.
#[test]
fn the_form_of_rfc_5389_counts_where_it_is_taken() -> Result<()> {
    let lab = Lab::new()?;
    let (server, device) = scripted(&lab)?;
    let answer = |request: &Message<'_>, form: Attribute<'_>| {
        Builder::new(MessageType::BindingResponse, request.transaction_id()).attribute(form).build()
    };
    let (first, source) = server.next(|request| !request.transaction_id().has_cookie())?;
    server.answer(source, &answer(&Message::parse(&first)?, Attribute::XorMappedAddress(MAPPED)))?;
    device.wait_for_metrics("the answer", |metrics| received(metrics, "incomplete") == 1)?;
    assert!(is_untranslated(&device)?);

    device.print(&["tune", "stun.xor_mapped_address=true"])?;
    let (modern, source) = server.next(|request| request.transaction_id().has_cookie())?;
    let modern = Message::parse(&modern)?;
    let other = SocketAddrV4::new([192, 0, 2, 66].into(), 6_666);
    let both = Builder::new(MessageType::BindingResponse, modern.transaction_id())
        .attribute(Attribute::MappedAddress(other))
        .attribute(Attribute::XorMappedAddress(MAPPED));
    server.answer(source, &both.build())?;
    device.wait_for_metrics("the answer", |metrics| received(metrics, "addresses_differ") == 1)?;
    assert!(is_untranslated(&device)?);
    server.answer(source, &answer(&modern, Attribute::XorMappedAddress(MAPPED)))?;
    wait_for_address(&device, |address| address == MAPPED)?;
    assert_eq!(get(&device, "NATDetected")?, "1");
    Ok(())
}

/// T-20: coturn takes a request with the cookie for one of RFC 5389, and tells of the address in that form.
#[test]
fn coturn_tells_a_client_of_rfc_5389_its_address() -> Result<()> {
    let net = NatLab::new("masquerade random")?;
    let _coturn = net.coturn()?;
    let device = start(
        &net.lab,
        Files::new(net.lab.path(), "device")?,
        &format!("stun_enable = true\nstun_server_address = \"{SERVER}\"\n[stun]\nxor_mapped_address = true\n"),
    )?;
    let address = wait_for_address(&device, |address| *address.ip() == PUBLIC)?;
    let flow = net.flow(cpe::DEVICE.port())?.context("no flow")?;
    assert_eq!(address, flow.mapped);
    Ok(())
}

/// T-44: a server that goes silent is an alarm; the values keep what it said for one period, then they tell of the listener
/// itself, until it answers again.
#[test]
fn a_silent_server_takes_its_word_with_it() -> Result<()> {
    let lab = Lab::new()?;
    let (server, device) = scripted(&lab)?;
    let (first, source) = server.next(|_| true)?;
    assert!(is_untranslated(&device)?);
    server.answer(source, &bound(&Message::parse(&first)?, MAPPED))?;
    wait_for_address(&device, |address| address == MAPPED)?;

    // No other alarm is up when it comes, and until then nothing is doubted.
    wait_until("alarm", UNREACHABLE, || {
        let is_up = alarm(&device, "server_unreachable")?;
        ensure!(is_up || cpe::address(&device)? == MAPPED, "the binding is doubted too early");
        Ok(is_up)
    })?;
    wait_until("the listener's own address", UNREACHABLE, || is_untranslated(&device))?;

    // Whatever it asked meanwhile waits in the socket.
    wait_for("the binding again", SOON, || {
        let (request, source) = server.next(|_| true)?;
        server.answer(source, &bound(&Message::parse(&request)?, MAPPED))?;
        Ok((cpe::address(&device)? == MAPPED).then_some(()))
    })?;
    assert!(!alarm(&device, "server_unreachable")?);
    Ok(())
}

/// T-46, CPE-24: coturn sends the answer to a test where the test came from. The device notices by its first test, makes no
/// further one, keeps the binding by its default period, and is reached.
#[test]
fn a_server_that_ignores_response_address_teaches_nothing() -> Result<()> {
    const TIMEOUT: u32 = 4;
    let net = NatLab::new("masquerade random")?;
    net.set_timeouts(TIMEOUT, TIMEOUT)?;
    let coturn = net.coturn()?;
    let device = start(
        &net.lab,
        Files::new(net.lab.path(), "device")?,
        &format!(
            "stun_enable = true\nstun_server_address = \"{SERVER}\"\nstun_minimum_keep_alive_period = 1\n\
             [stun]\ndefault_period_s = 2\n"
        ),
    )?;
    let address = wait_for_address(&device, |address| *address.ip() == PUBLIC)?;
    wait_until("alarm", SOON, || alarm(&device, "probe_unsupported"))?;
    assert_eq!(device.json(&["bindings"])?["bindings"][0]["period_s"], 2);

    // One request more every two seconds: the NAT's timeout passes several times.
    let accepted = received(&device.metrics()?, "accepted");
    device.wait_for_metrics("three more answers", |metrics| received(metrics, "accepted") >= accepted + 3)?;
    assert_eq!(cpe::address(&device)?, address);
    assert_eq!(device.metrics()?.sum("tr111_stun_messages_total", &[("type", "probe")]), 0);

    // UCR-20, T-48: the NAT lets in what comes from the server's own address and port.
    drop(coturn);
    let acs = net.wan.enter(|| UdpSocket::bind((SERVER, 3478)))?;
    acs.send_to(&request(address, unix_now()?, 1, PASSWORD)?, address)?;
    device.wait_for_metrics("the request", |metrics| {
        metrics.sum("tr111_connection_requests_total", &[("result", "accepted")]) == 1
    })?;
    Ok(())
}
