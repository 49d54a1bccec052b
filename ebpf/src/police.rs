//! Token buckets: what a sender may make the agent look at (requirement SEC-8), and what the operator lets pass.

use crate::maps::Purse;
use tr111_common::{
    abi::Budget,
    config::{Config, POLICE_BURST, Rate},
    dhcp4::{Fixed, Hash},
};

/// Takes one message from what an Ethernet source may bring to the agent; `false` when that is spent.
#[inline(always)]
pub fn may_tell(source: u64, now: u64, config: &Config) -> bool {
    take(Purse::Source, source, now, &config.budget)
}

/// The same of a DHCP message, and behind it from what its client may bring by that source. The source writes the
/// client's address, so that it spends its own budget first, and never that of a client elsewhere.
// A function of its own: the verifier walks what follows once, however many ways through the budgets lead there.
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

/// Takes one message from the DHCP that an Ethernet source may send; `false` when the frame is to be dropped.
#[inline(always)]
pub fn may_pass_dhcp(source: u64, fixed: &Fixed, now: u64, config: &Config) -> bool {
    if config.lan_dhcp_interval == 0 {
        return true;
    }
    let own = Rate::new(config.lan_dhcp_interval, POLICE_BURST);
    take(Purse::Dhcp, source, now, if is_relayed(fixed) { &config.relay_budget } else { &own })
}

/// Takes one Connection Request from what a source may send; `false` when the frame is to be dropped (T-62).
#[inline(always)]
pub fn may_pass_connection_request(source: [u8; 4], now: u64, config: &Config) -> bool {
    let address = u64::from(u32::from_be_bytes(source));
    take(Purse::ConnectionRequests, address, now, &Rate::new(config.wan_connreq_interval, POLICE_BURST))
}

/// A relay sends for many clients.
#[inline(always)]
fn is_relayed(fixed: &Fixed) -> bool {
    fixed.giaddr != [0; 4]
}

/// Takes one from a bucket. Without an interval there is no limit.
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
