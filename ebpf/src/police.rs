//! The budget of a MAC address (requirement SEC-8): what it may make the agent look at.

use crate::maps;
use tr111_common::{abi::Budget, config::Config, dhcp4::Fixed};

/// Takes one message from the budget of the hardware address; `false` when it is spent.
#[inline(always)]
pub fn allow(fixed: &Fixed, now: u64, config: &Config) -> bool {
    if config.budget_interval == 0 {
        return true;
    }
    let [address, _] = fixed.chaddr_words();
    let Some(budget) = maps::budget(address) else {
        let left = config.budget_burst.saturating_sub(1);
        maps::open_budget(address, &Budget { time: now, left, reserved: 0 });
        return true;
    };
    let earned = now.saturating_sub(budget.time) / config.budget_interval;
    if earned >= u64::from(config.budget_burst) {
        budget.left = config.budget_burst;
        budget.time = now;
    } else if earned > 0 {
        budget.left = (budget.left + earned as u32).min(config.budget_burst);
        budget.time += earned * config.budget_interval;
    }
    if budget.left == 0 {
        return false;
    }
    budget.left -= 1;
    true
}
