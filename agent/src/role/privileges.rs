//! The capabilities that a process needs to load and attach programs.

use std::fs;

/// The capabilities that the agent needs, by number (`linux/capability.h`).
const NEEDED: [(u32, &str); 4] =
    [(CAP_NET_ADMIN, "CAP_NET_ADMIN"), (CAP_NET_RAW, "CAP_NET_RAW"), (38, "CAP_PERFMON"), (39, "CAP_BPF")];
const CAP_NET_ADMIN: u32 = 12;
/// Needed for probes: without them, every silent device would be regarded as absent.
const CAP_NET_RAW: u32 = 13;
/// Replaces `CAP_PERFMON` and `CAP_BPF`.
const CAP_SYS_ADMIN: u32 = 21;

/// How to grant the capabilities.
pub const HINT: &str = "run as root, or with systemd's AmbientCapabilities=CAP_BPF CAP_NET_ADMIN CAP_NET_RAW \
                        CAP_PERFMON, or once: setcap cap_bpf,cap_net_admin,cap_net_raw,cap_perfmon+ep on the tr111 binary";

/// The capabilities that this process lacks; `None` if its status cannot be read.
pub fn missing() -> Option<Vec<&'static str>> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    Some(missing_of(u64::from_str_radix(effective.trim(), 16).ok()?))
}

fn missing_of(effective: u64) -> Vec<&'static str> {
    let has = |capability: u32| effective >> capability & 1 == 1;
    let replaced = |number: u32| number > CAP_NET_RAW && has(CAP_SYS_ADMIN);
    let lacks = |&(number, _): &(u32, _)| !has(number) && !replaced(number);
    NEEDED.into_iter().filter(lacks).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sys_admin_does_instead_of_bpf_and_perfmon_but_not_of_the_network_ones() {
        assert!(missing_of(u64::MAX).is_empty());
        assert_eq!(missing_of(0), ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_PERFMON", "CAP_BPF"]);
        assert_eq!(missing_of(1 << CAP_SYS_ADMIN), ["CAP_NET_ADMIN", "CAP_NET_RAW"]);
        assert_eq!(missing_of(1 << CAP_NET_ADMIN | 1 << CAP_NET_RAW | 1 << 38), ["CAP_BPF"]);
    }
}
