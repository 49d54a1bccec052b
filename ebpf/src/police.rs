//! Token buckets: what a MAC address may make the agent look at (requirement SEC-8), and what the operator lets pass.

use crate::maps::Purse;
use tr111_common::{
    abi::Budget,
    config::{Config, POLICE_BURST},
    dhcp4::Fixed,
};

/// Takes one message from what the hardware address may tell the agent; `false` when that is spent.
#[inline(always)]
pub fn may_tell(address: u64, now: u64, config: &Config) -> bool {
    take(Purse::Told, address, now, config.budget_interval, config.budget_burst)
}

/// Takes one message from what a DHCP client may send; `false` when the frame is to be dropped.
#[inline(always)]
pub fn may_pass_dhcp(fixed: &Fixed, now: u64, config: &Config) -> bool {
    let [address, _] = fixed.chaddr_words();
    take(Purse::Dhcp, address, now, config.lan_dhcp_interval, POLICE_BURST)
}

/// Takes one Connection Request from what a source may send; `false` when the frame is to be dropped (T-62).
#[inline(always)]
pub fn may_pass_connection_request(source: [u8; 4], now: u64, config: &Config) -> bool {
    let address = u64::from(u32::from_be_bytes(source));
    take(Purse::ConnectionRequests, address, now, config.wan_connreq_interval, POLICE_BURST)
}

/// Takes one from a bucket that earns one each `interval` nanoseconds and holds `burst`. Without an interval there is
/// no limit.
#[inline(always)]
fn take(purse: Purse, address: u64, now: u64, interval: u64, burst: u32) -> bool {
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
