//! Detects LAN interfaces whose requests get no replies. If the programs do not see the replies, the gateway has no
//! rows and inserts nothing, although nothing else fails.

use std::{collections::BTreeMap, time::Duration};

use tr111_common::{
    counter::{Class, Hook},
    event::Event,
};
use tr111_core::time::BootTime;

/// How long a request may be without a reply.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long after its last request an interface is reported.
pub(super) const MEMORY: Duration = Duration::from_hours(1);

/// Unanswered requests of clients with an identity, by the kernel index of their interface.
#[derive(Debug)]
pub(super) struct Replies {
    unanswered: BTreeMap<u32, Unanswered>,
    /// When the programs began to record replies.
    begin: BootTime,
}

#[derive(Clone, Copy, Debug)]
struct Unanswered {
    first: BootTime,
    last: BootTime,
}

impl Replies {
    /// Creates an empty record. The programs record replies from `now` on.
    pub(super) fn new(now: BootTime) -> Self {
        Self { unanswered: BTreeMap::new(), begin: now }
    }

    /// Takes an event of the ring buffer.
    pub(super) fn take(&mut self, event: &Event<'_>) {
        let (ifindex, time) = (event.segment.ifindex, BootTime(event.time));
        match (event.hook, event.class) {
            (Hook::LanIngress, Class::Discover | Class::Request | Class::Inform | Class::Sticky) => {
                let time = time.max(self.begin);
                let unanswered = self.unanswered.entry(ifindex).or_insert(Unanswered { first: time, last: time });
                unanswered.last = unanswered.last.max(time);
            }
            (Hook::LanEgress, Class::Ack | Class::Nak) => self.answered(ifindex, time),
            _ => {}
        }
    }

    /// Removes the interface's requests.
    pub(super) fn forget(&mut self, ifindex: u32) {
        self.unanswered.remove(&ifindex);
    }

    /// Returns the interfaces whose requests have had no reply for longer than [`PATIENCE`]. `last_reply` returns when
    /// the programs last saw a reply to a client with an identity leave by an interface; it includes OFFERs, which are
    /// not in the ring.
    pub(super) fn overdue(&mut self, now: BootTime, last_reply: impl Fn(u32) -> Option<BootTime>) -> Vec<u32> {
        self.unanswered.retain(|_, unanswered| unanswered.last + MEMORY > now);
        let due = |unanswered: &Unanswered| unanswered.first + PATIENCE <= now;
        let candidates: Vec<u32> =
            self.unanswered.iter().filter(|(_, unanswered)| due(unanswered)).map(|(ifindex, _)| *ifindex).collect();
        for ifindex in &candidates {
            if let Some(reply) = last_reply(*ifindex) {
                self.answered(*ifindex, reply);
            }
        }
        candidates.into_iter().filter(|ifindex| self.unanswered.get(ifindex).is_some_and(due)).collect()
    }

    /// A reply left at `time`. It answers all requests before it.
    fn answered(&mut self, ifindex: u32, time: BootTime) {
        let Some(unanswered) = self.unanswered.get_mut(&ifindex).filter(|unanswered| unanswered.first <= time) else {
            return;
        };
        if unanswered.last > time {
            unanswered.first = unanswered.last;
        } else {
            self.unanswered.remove(&ifindex);
        }
    }
}

#[cfg(test)]
mod tests {
    use tr111_common::headers::Segment;

    use super::*;

    const LAN: u32 = 7;

    fn at(seconds: u64) -> BootTime {
        BootTime(seconds * 1_000_000_000)
    }

    fn see(replies: &mut Replies, seconds: u64, hook: Hook, class: Class) {
        let segment = Segment { ifindex: LAN, vlan: [0, 0] };
        replies.take(&Event { time: at(seconds).0, segment, metadata_tag: None, class, hook, frame: &[] });
    }

    #[test]
    fn a_request_without_a_reply_is_overdue_after_a_minute() {
        let mut replies = Replies::new(at(0));
        see(&mut replies, 10, Hook::LanIngress, Class::Discover);
        see(&mut replies, 40, Hook::LanIngress, Class::Discover);
        assert_eq!(replies.overdue(at(69), |_| None), [0; 0]);
        assert_eq!(replies.overdue(at(70), |_| None), [LAN]);
        see(&mut replies, 71, Hook::LanEgress, Class::Nak);
        assert_eq!(replies.overdue(at(200), |_| None), [0; 0]);
    }

    #[test]
    fn an_offer_that_only_the_programs_saw_is_a_reply() {
        let mut replies = Replies::new(at(0));
        see(&mut replies, 10, Hook::LanIngress, Class::Discover);
        assert_eq!(replies.overdue(at(70), |_| Some(at(9))), [LAN], "an offer to an earlier request");
        assert_eq!(replies.overdue(at(70), |_| Some(at(11))), [0; 0]);
    }

    #[test]
    fn a_reply_answers_what_came_before_and_nothing_that_comes_later() {
        let mut replies = Replies::new(at(0));
        see(&mut replies, 10, Hook::LanIngress, Class::Request);
        see(&mut replies, 30, Hook::LanIngress, Class::Inform);
        assert_eq!(replies.overdue(at(89), |_| Some(at(11))), [0; 0]);
        assert_eq!(replies.overdue(at(90), |_| Some(at(11))), [LAN]);
    }

    #[test]
    fn requests_from_before_the_start_are_counted_from_there_and_forgotten_after_an_hour() {
        let mut replies = Replies::new(at(1_000));
        see(&mut replies, 10, Hook::LanIngress, Class::Sticky);
        assert_eq!(replies.overdue(at(1_059), |_| None), [0; 0]);
        assert_eq!(replies.overdue(at(1_060), |_| None), [LAN]);
        assert_eq!(replies.overdue(at(4_599), |_| None), [LAN]);
        assert_eq!(replies.overdue(at(4_600), |_| None), [0; 0]);
        see(&mut replies, 5_000, Hook::LanIngress, Class::Request);
        replies.forget(LAN);
        assert_eq!(replies.overdue(at(6_000), |_| None), [0; 0]);
    }

    #[test]
    fn what_is_no_request_with_an_identity_waits_for_nothing() {
        let mut replies = Replies::new(at(0));
        for class in [Class::Release, Class::Decline, Class::Fragment] {
            see(&mut replies, 10, Hook::LanIngress, class);
        }
        assert_eq!(replies.overdue(at(600), |_| None), [0; 0]);
    }
}
