//! Token buckets: limits on the events that a sender causes (SEC-8), and on the messages that the operator lets pass.
//!
//! # Theory of operation
//!
//! Each bucket holds up to `burst` messages and gains one per `interval`. Elapsed time is converted to messages when
//! the bucket is used, so no timer is needed. A sender over its event budget is still forwarded: its messages pass, but
//! cause no event. A message is dropped only where the operator enabled policing. Relay agents send for many clients
//! and have a rate of their own.

use crate::maps::Purse;
use tr111_common::{
    abi::Budget,
    config::{Config, POLICE_BURST, Rate},
    dhcp4::{Fixed, Hash},
};

/// Takes one event from the budget of an Ethernet source; `false` if the budget is spent.
#[inline(always)]
pub fn may_tell(source: u64, now: u64, config: &Config) -> bool {
    take(Purse::Source, source, now, &config.budget)
}

/// Takes one event for a DHCP message from the budget of the Ethernet source, then from that of the client behind this
/// source. The source chooses the client's hardware address, so it spends its own budget first, and never that of a
/// client behind another source.
// A separate function: the verifier verifies the code after the call once, not once per path through the budgets.
#[inline(never)]
pub fn may_tell_dhcp(source: u64, fixed: &Fixed, now: u64, config: &Config) -> bool {
    let rate = if is_relayed(fixed) { &config.relay_budget } else { &config.budget };
    let mut client = Hash::new(config.seed);
    let [high, low] = fixed.chaddr_words();
    client.add(source);
    client.add(high);
    client.add(low);
    take(Purse::Source, source, now, rate) && take(Purse::Client, client.value(), now, &config.budget)
}

/// Takes one DHCP message from the policing budget of an Ethernet source; `false` if the frame has to be dropped.
#[inline(always)]
pub fn may_pass_dhcp(source: u64, fixed: &Fixed, now: u64, config: &Config) -> bool {
    if config.lan_dhcp_interval == 0 {
        return true;
    }
    let own = Rate::new(config.lan_dhcp_interval, POLICE_BURST);
    take(Purse::Dhcp, source, now, if is_relayed(fixed) { &config.relay_budget } else { &own })
}

/// Takes one Connection Request from the budget of a source; `false` if the frame has to be dropped (T-62).
#[inline(always)]
pub fn may_pass_connection_request(source: [u8; 4], now: u64, config: &Config) -> bool {
    let address = u64::from(u32::from_be_bytes(source));
    take(Purse::ConnectionRequests, address, now, &Rate::new(config.wan_connreq_interval, POLICE_BURST))
}

/// Whether a relay agent, which sends for many clients, forwarded the message.
#[inline(always)]
fn is_relayed(fixed: &Fixed) -> bool {
    fixed.giaddr != [0; 4]
}

/// Takes one message from a bucket; `false` if it is empty. An interval of 0 means no limit.
#[inline(always)]
fn take(purse: Purse, address: u64, now: u64, rate: &Rate) -> bool {
    let Rate { interval, burst, .. } = *rate;
    if interval == 0 {
        return true;
    }
    let Some(budget) = purse.find(address) else {
        purse.open(address, &Budget { time: now, left: burst.saturating_sub(1), reserved: 0 });
        return true;
    };
    let earned = now.saturating_sub(budget.time) / interval;
    if earned >= u64::from(burst) {
        budget.left = burst;
        budget.time = now;
    } else if earned > 0 {
        budget.left = (budget.left + earned as u32).min(burst);
        budget.time += earned * interval;
    }
    if budget.left == 0 {
        return false;
    }
    budget.left -= 1;
    true
}
