//! The Gateway Identity as it arrives: replies of unmodified servers, taken off the wire on the LAN side where nobody
//! completes a checksum any more, and read by tshark.

use std::{fs, net::Ipv4Addr, time::Duration};

use anyhow::Result;
use tr111_tests::{
    agent::{Agent, Device},
    client::Client,
    frame::{Mac, kind},
    host::{dhclient, dnsmasq, kea, leases_of_dhclient, udhcpc, udhcpc_environment},
    lab::{Lab, POOL},
    process::{Process, run},
    tshark::Capture,
    vectors::{D1, D2, G1, hex},
    wait::wait_for,
    wire::Wire,
};

const POOL_END: Ipv4Addr = Ipv4Addr::new(10, 111, 1, 250);
/// G1 as tshark reads it.
const GATEWAY_IDENTITY: &str = "00256D/GW0001/IGD";
/// Real clients wait a second here and there.
const CLIENT: Duration = Duration::from_secs(30);

/// Where the server is, in front of which the identity goes in.
#[derive(Clone, Copy)]
enum Lan {
    /// An interface of the gateway.
    Wire,
    /// A bridge of the gateway; the interface behind it is one of its ports.
    Bridge,
}

impl Lan {
    /// The lab, its LAN interface, and transmit offload switched off where frames leave: sums are on the wire as they
    /// would be on a cable, and not left to a card that a veth does not have. On the interface itself the stack then
    /// completes them before egress; in front of a bridge they are partial at egress, and its port completes them.
    fn lab(self) -> Result<(Lab, &'static str)> {
        let (lab, lan, port) = match self {
            Self::Wire => (Lab::new()?, "lan0", "lan0"),
            Self::Bridge => (Lab::bridged()?, "br-lan", "port0"),
        };
        if matches!(self, Self::Bridge) {
            // The host would answer ARP for `eth0` by both.
            lab.lan.ip("link set eth1 down")?;
        }
        run(lab.gateway.command("ethtool").args(["-K", port, "tx", "off"]))?;
        Ok((lab, lan))
    }
}

/// Lets a real client and two hand-made ones ask for everything that there is to ask for, and judges every reply.
fn every_reply_arrives_right(lan: Lan, server: impl Fn(&Lab, &str) -> Result<Process>) -> Result<()> {
    let (lab, interface) = lan.lab()?;
    let _server = server(&lab, interface)?;
    let _agent = Agent::start(&lab, &[interface], &[])?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    let mut capture = Capture::start(&lab.lan, "eth0")?;

    let _real = udhcpc(&lab.lan, "eth0", &hex(D1), lab.path())?;
    let environment = environment_of_udhcpc(&lab)?;
    // The value of option 125, code and length aside; the script is told in lower case.
    assert!(environment.lines().any(|line| line == format!("opt125={}", &G1[4..])), "{environment}");

    let mut device = Client::new(&wire, 1, hex(D2));
    let mut stranger = Client::new(&wire, 2, Vec::new());
    let address = device.bind()?.yiaddr;
    // Some servers leave it to the kernel to find the client, which then asks by ARP.
    lab.lan.ip(&format!("addr add {address}/16 dev eth0"))?;
    device.renew()?;
    device.inform(address)?;
    let elsewhere = device.message(kind::REQUEST).option(50, &[192, 168, 77, 1]);
    device.ask(&elsewhere, kind::NAK)?;
    stranger.bind()?;
    capture
        .until("ACK to the stranger", |message| message.kind() == kind::ACK && message.xid == stranger.transaction())?;

    let replies = capture.replies()?;
    let kinds = |client: Mac| -> Vec<u8> {
        replies.iter().filter(|reply| reply.client == client).map(|reply| reply.kind).collect()
    };
    assert_eq!(kinds(device.mac), [kind::OFFER, kind::ACK, kind::ACK, kind::ACK, kind::NAK]);
    assert_eq!(kinds(stranger.mac), [kind::OFFER, kind::ACK]);
    assert!(kinds(lab.lan.mac("eth0")?).ends_with(&[kind::OFFER, kind::ACK]));
    for reply in &replies {
        let expected = (reply.client != stranger.mac && reply.kind != kind::NAK).then_some(GATEWAY_IDENTITY);
        assert_eq!(reply.gateway.as_deref(), expected, "{reply:?}");
        assert_eq!(reply.options.contains(&125), expected.is_some(), "{reply:?}");
    }
    Ok(())
}

/// What udhcpc tells its script, once it has a lease.
fn environment_of_udhcpc(lab: &Lab) -> Result<String> {
    let file = udhcpc_environment(lab.path(), "eth0");
    wait_for("lease of udhcpc", CLIENT, || {
        // The script writes it in one go at the end.
        Ok(fs::read_to_string(&file).ok().filter(|environment| !environment.is_empty()))
    })
}

fn real_dnsmasq(lab: &Lab, interface: &str) -> Result<Process> {
    dnsmasq(&lab.gateway, interface, (POOL, POOL_END), lab.path(), &[])
}

fn real_kea(lab: &Lab, interface: &str) -> Result<Process> {
    kea(&lab.gateway, interface, (POOL, POOL_END), lab.path(), "raw")
}

/// GW-4, GW-5, T-24: dnsmasq leaves its checksums to the kernel, which completes them before egress.
#[test]
fn replies_of_dnsmasq_arrive_right() -> Result<()> {
    every_reply_arrives_right(Lan::Wire, real_dnsmasq)
}

/// GW-4, GW-5, T-24: the sums are partial where the identity goes in, and completed behind the bridge.
#[test]
fn replies_of_dnsmasq_arrive_right_through_a_bridge() -> Result<()> {
    every_reply_arrives_right(Lan::Bridge, real_dnsmasq)
}

/// GW-4, GW-5, T-24: Kea on a raw socket writes its checksums itself.
#[test]
fn replies_of_kea_arrive_right() -> Result<()> {
    every_reply_arrives_right(Lan::Wire, real_kea)
}

/// GW-4, GW-5, T-24: complete sums through a bridge.
#[test]
fn replies_of_kea_arrive_right_through_a_bridge() -> Result<()> {
    every_reply_arrives_right(Lan::Bridge, real_kea)
}

/// GW-4, OPT-10: dhclient writes the Gateway Identity into its leases, although it did not ask for option 125.
#[test]
fn dhclient_keeps_it_with_its_lease() -> Result<()> {
    let lab = Lab::new()?;
    let _server = real_kea(&lab, "lan0")?;
    let _agent = Agent::start(&lab, &["lan0"], &[])?;
    let _client = dhclient(&lab.lan, "eth0", &hex(D1), lab.path())?;
    let file = leases_of_dhclient(lab.path());
    let lease = wait_for("lease of dhclient", CLIENT, || {
        Ok(fs::read_to_string(&file).ok().filter(|leases| leases.contains("expire")))
    })?;
    // The value of option 125, as dhclient writes bytes.
    let value: Vec<_> = hex(G1)[2..].iter().map(|byte| format!("{byte:x}")).collect();
    assert!(lease.contains(&format!("option tr111 {};", value.join(":"))), "{lease}");
    Ok(())
}

/// GW-4: two clients with different client identifiers behind one hardware address are two clients, however their
/// exchanges mix: who identified itself gets the Gateway Identity, also later without saying who it is; the other never.
#[test]
fn two_clients_behind_one_hardware_address_are_two() -> Result<()> {
    let (lab, interface) = Lan::Wire.lab()?;
    let _server = real_kea(&lab, interface)?;
    let agent = Agent::start(&lab, &[interface], &[])?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    let with_id = |id: &[u8], rest: &[u8]| [&[61, id.len() as u8], id, rest].concat();
    let mut device = Client::new(&wire, 1, with_id(b"\0device", &hex(D1)));
    let mut other = Client::new(&wire, 2, with_id(b"\0other", &[]));
    other.mac = device.mac;

    let (offer, offer_to_other) = (device.discover()?, other.discover()?);
    assert_ne!(offer.yiaddr, offer_to_other.yiaddr, "two clients for the server");
    let (ack_to_other, ack) = (other.request(&offer_to_other)?, device.request(&offer)?);
    let row = agent.wait_for_rows(1, CLIENT)?.remove(0);
    assert_eq!((row.bindings.len(), &row.bindings[0].ip), (1, &ack.yiaddr.to_string()));
    device.options = with_id(b"\0device", &[]);
    let (later, later_to_other) = (device.bind()?, other.bind()?);

    let identity = Some(&hex(G1)[2..]);
    assert_eq!([&offer, &ack, &later].map(|reply| reply.option(125) == identity), [true; 3]);
    assert_eq!([&offer_to_other, &ack_to_other, &later_to_other].map(|reply| reply.option(125)), [None; 3]);
    Ok(())
}

/// GW-4, GW-7: three boxes of one image share a client identifier, and a server that ignores it gives each an address. They
/// are three rows, and each gets the Gateway Identity, also when it comes again.
#[test]
fn three_boxes_of_one_client_identifier_are_three() -> Result<()> {
    let (lab, interface) = Lan::Wire.lab()?;
    let _server = dnsmasq(&lab.gateway, interface, (POOL, POOL_END), lab.path(), &["--dhcp-ignore-clid"])?;
    let agent = Agent::start(&lab, &[interface], &[])?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    let serial = |number: u8| D1.replace("44455630303031", &format!("4445563030303{number}"));
    let options = |number| [&[61, 6], &b"\0image"[..], &hex(&serial(number))].concat();
    let mut boxes = [1, 2, 3].map(|number| Client::new(&wire, number, options(number)));
    let identity = Some(&hex(G1)[2..]);
    for client in &mut boxes {
        assert_eq!(client.bind()?.option(125), identity);
    }
    let rows = agent.wait_for_rows(3, CLIENT)?;
    let held = |rows: &[Device]| rows.iter().map(|row| row.bindings[0].ip.clone()).collect::<Vec<_>>();
    let given: Vec<_> = boxes.iter().map(|client| client.address.to_string()).collect();
    assert_eq!(held(&rows), given);
    for client in &mut boxes {
        assert_eq!(client.bind()?.option(125), identity);
    }
    assert_eq!(held(&agent.devices()?), given);
    Ok(())
}
