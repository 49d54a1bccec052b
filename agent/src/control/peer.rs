//! Permissions of the peer of a connection.

use std::ffi::CString;

use nix::unistd::{Gid, Group, Uid, User, geteuid, getgrouplist};

/// Name of the group whose members may use the control socket.
pub(crate) const GROUP: &str = "tr111";

/// Permission of a peer. Each level includes the ones before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Permission {
    /// No access.
    None,
    /// Read and change the state of the agent.
    Use,
    /// Also stop the agent and read passwords.
    Own,
}

/// The group [`GROUP`], if it exists.
pub(crate) fn group() -> Option<Gid> {
    Group::from_name(GROUP).ok().flatten().map(|group| group.gid)
}

/// Permission of a peer with the user id `uid` and the group id `gid`.
pub(super) fn permission(uid: u32, gid: u32) -> Permission {
    let uid = Uid::from_raw(uid);
    judge(uid.is_root() || uid == geteuid(), gid, group(), || supplementary(uid, gid))
}

fn judge(owner: bool, gid: u32, group: Option<Gid>, supplementary: impl FnOnce() -> Vec<Gid>) -> Permission {
    match group {
        _ if owner => Permission::Own,
        Some(group) if Gid::from_raw(gid) == group || supplementary().contains(&group) => Permission::Use,
        _ => Permission::None,
    }
}

fn supplementary(uid: Uid, gid: u32) -> Vec<Gid> {
    let name = User::from_uid(uid).ok().flatten().and_then(|user| CString::new(user.name).ok());
    name.and_then(|name| getgrouplist(&name, Gid::from_raw(gid)).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TR111: u32 = 900;

    #[test]
    fn root_and_the_own_user_own_the_agent() {
        assert_eq!(permission(0, 0), Permission::Own);
        assert_eq!(permission(geteuid().as_raw(), 0), Permission::Own);
    }

    #[test]
    fn a_stranger_may_nothing_and_a_member_of_the_group_may_use() {
        let group = Some(Gid::from_raw(TR111));
        let others = || vec![Gid::from_raw(100)];
        assert_eq!(judge(false, 100, group, others), Permission::None);
        assert_eq!(judge(false, TR111, group, others), Permission::Use);
        assert_eq!(judge(false, 100, group, || vec![Gid::from_raw(TR111)]), Permission::Use);
        assert_eq!(judge(false, TR111, None, others), Permission::None, "without the group nobody is a member");
    }
}
