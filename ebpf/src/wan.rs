//! What comes from the WAN: Connection Requests (TR-111 2.2.2.3) and the answers of STUN servers.

use crate::{maps, police};
use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use tr111_common::{
    classify,
    config::Config,
    counter::{Class, Counter, Hook},
    headers::{self, Udp, Wanted},
};
use tr111_ebpf::frame::Packet;

/// Counts the frame. `false`: it is to be dropped, because its source sends more Connection Requests than the operator
/// lets pass (T-62).
#[inline(always)]
pub fn ingress<P: Packet>(packet: &P) -> bool {
    let Some(config) = maps::config() else { return true };
    let class = match headers::find_udp(packet, packet.metadata_tag(), Wanted::Any) {
        Ok(udp) => judge(packet, &udp, config),
        Err(class) => class,
    };
    maps::count(Counter::Packet(Hook::WanIngress, class));
    // The one class whose outcome is `Dropped`: asking for the outcome costs every frame a look into a table.
    !matches!(class, Class::Policed)
}

#[inline(always)]
fn judge<P: Packet>(packet: &P, udp: &Udp, config: &Config) -> Class {
    let class = classify::judge_wan(packet, udp, config);
    if !matches!(class, Class::ConnectionRequest) {
        return class;
    }
    let Some(source) = packet.load::<4>(udp.ip as usize + headers::IPV4_ADDRESSES) else { return class };
    // SAFETY: the helper takes nothing and reads a clock.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    if police::may_pass_connection_request(source, now, config) { class } else { Class::Policed }
}
