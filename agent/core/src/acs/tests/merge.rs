//! Tests of several servers that share a store.

use proptest::prelude::*;

use super::{cpe, seen, told};
use crate::acs::*;

/// A store with one CPE, with the behaviour of Redis.
struct Store {
    record: Record,
    last: u64,
}

/// A server: the CPE in its memory, and the changes that it has not written yet.
struct Server {
    number: u32,
    state: State,
    waiting: Vec<Change>,
    is_cut_off: bool,
}

struct World {
    store: Store,
    servers: Vec<Server>,
}

impl World {
    fn new(servers: u32) -> Self {
        let stamp = Stamp { server: 1, revision: 1 };
        let store = Store { record: Record::new(stamp, cpe("CPE57689")), last: 1 };
        let server = |number| Server { number, state: State::default(), waiting: Vec::new(), is_cut_off: false };
        let mut world = Self { store, servers: (1..=servers).map(server).collect() };
        world.exchange();
        world
    }

    /// A server receives a signed Binding Request from this port.
    fn sign(&mut self, server: usize, port: u16, time: u64) {
        let Server { state, waiting, .. } = &mut self.servers[server];
        let is_new = state.authenticated.is_none_or(|known| known.address.port() != port);
        state.authenticated = Some(seen(port, time));
        state.is_reported_last &= !is_new;
        state.must_verify = false;
        waiting.push(Change::State(cpe("CPE57689").name, Box::new(state.clone())));
    }

    /// The CPE reports an address to its ACS, which passes it to a server that is connected to the store.
    fn report(&mut self, server: usize, address: &str, time: u64) {
        let Server { state, waiting, .. } = &mut self.servers[server];
        let revision = state.reported.as_ref().map_or(0, |told| told.revision);
        state.report(Reported { revision, ..told(address, time) });
        waiting.push(Change::Reported(cpe("CPE57689").name, Box::new(told(address, time))));
    }

    fn verify(&mut self, server: usize) {
        let Server { state, waiting, .. } = &mut self.servers[server];
        state.must_verify = true;
        waiting.push(Change::State(cpe("CPE57689").name, Box::new(state.clone())));
    }

    /// A server writes its pending changes.
    fn write(&mut self, server: usize) {
        let Server { number, waiting, .. } = &mut self.servers[server];
        let Store { record, last } = &mut self.store;
        for change in waiting.drain(..) {
            *last += 1;
            let stamp = Stamp { server: *number, revision: *last };
            match &change {
                Change::State(_, state) => record.learn(stamp, state),
                Change::Reported(_, told) => record.report(stamp, told),
                _ => unreachable!("nothing else is made here"),
            }
        }
    }

    /// A server reads the record from the store.
    fn hear(&mut self, server: usize) {
        let Server { number, state, .. } = &mut self.servers[server];
        let Record { cpe, author } = &self.store.record;
        if author.server == *number { state.confirm(&cpe.state) } else { state.follow(&cpe.state) }
    }

    /// All servers that are connected to the store write, then read.
    fn exchange(&mut self) {
        let online: Vec<usize> = (0..self.servers.len()).filter(|&at| !self.servers[at].is_cut_off).collect();
        for &at in &online {
            self.write(at);
        }
        for at in online {
            self.hear(at);
        }
    }

    fn port(&self, server: usize) -> Option<u16> {
        self.servers[server].state.authenticated.map(|seen| seen.address.port())
    }
}

/// T-65: a binding with a time in the future, from a wrong clock, is replaced by the next signed one at any server.
#[test]
fn a_time_of_the_future_decides_nothing() {
    let mut world = World::new(2);
    world.sign(0, 40_000, 4_000_000_000);
    world.report(0, "cpe.example:4000", 4_000_000_001);
    world.exchange();
    world.sign(1, 40_001, 10);
    world.exchange();
    for server in 0..2 {
        let to = world.servers[server].state.destination(Approach::Both).map(|to| to.authority.to_string());
        assert_eq!((to.as_deref(), world.port(server)), (Some("198.51.100.7:40001"), Some(40_001)));
    }
    world.report(0, "cpe.example:4001", 5);
    world.exchange();
    for Server { state, .. } in &world.servers {
        let to = state.destination(Approach::Both).map(|to| to.authority.to_string());
        assert_eq!(to.as_deref(), Some("cpe.example:4001"));
    }
}

/// A change that a disconnected server learned is accepted if nothing else changed meanwhile. Otherwise it is
/// discarded, whatever the times say, and the CPE has to sign again.
#[test]
fn what_was_learned_while_cut_off_loses_to_what_moved_on() {
    for has_moved_on in [false, true] {
        let mut world = World::new(3);
        world.sign(0, 40_000, 10);
        world.exchange();
        world.servers[0].is_cut_off = true;
        world.sign(0, 40_001, 4_000_000_000);
        world.sign(0, 40_002, 4_000_000_000);
        if has_moved_on {
            world.sign(1, 40_003, 20);
            world.exchange();
        }
        world.servers[0].is_cut_off = false;
        world.exchange();
        for server in 0..3 {
            let expected = if has_moved_on { (Some(40_003), true) } else { (Some(40_002), false) };
            assert_eq!((world.port(server), world.servers[server].state.must_verify), expected);
        }
        world.sign(2, 40_004, 30);
        world.exchange();
        for server in 0..3 {
            assert_eq!((world.port(server), world.servers[server].state.must_verify), (Some(40_004), false));
        }
    }
}

/// A server that receives its own change late does not revert to it, and its later changes are accepted.
#[test]
fn an_echo_changes_nothing() {
    let mut world = World::new(2);
    world.sign(0, 40_000, 10);
    world.write(0);
    world.sign(0, 40_001, 11);
    world.hear(0);
    assert_eq!(world.port(0), Some(40_001));
    world.exchange();
    assert_eq!((world.port(0), world.port(1)), (Some(40_001), Some(40_001)));
    assert!(!world.store.record.cpe.state.must_verify);
}

/// The same address is no conflict, wherever it was learned.
#[test]
fn the_same_address_twice_needs_no_signature() {
    let mut world = World::new(2);
    world.sign(0, 40_000, 10);
    world.sign(1, 40_000, 10);
    world.exchange();
    world.exchange();
    assert_eq!((world.port(0), world.store.record.cpe.state.must_verify), (Some(40_000), false));
}

#[derive(Clone, Debug)]
enum Step {
    Sign(usize, u16),
    Report(usize, u16),
    Verify(usize),
    Write(usize),
    Hear(usize),
    CutOff(usize),
    Exchange,
}

fn step() -> impl Strategy<Value = Step> {
    let server = 0_usize..3;
    prop_oneof![
        (server.clone(), 1_u16..6).prop_map(|(server, port)| Step::Sign(server, port)),
        (server.clone(), 1_u16..6).prop_map(|(server, port)| Step::Report(server, port)),
        server.clone().prop_map(Step::Verify),
        server.clone().prop_map(Step::Write),
        server.clone().prop_map(Step::Hear),
        server.prop_map(Step::CutOff),
        Just(Step::Exchange),
    ]
}

proptest! {
    /// T-65: whatever the servers learn, in whatever order they write and read, and with any clocks: in the end all
    /// have the same state, and a server learned it.
    #[test]
    fn all_servers_come_to_know_the_same(steps in proptest::collection::vec((step(), any::<u32>()), 0..40)) {
        let mut world = World::new(3);
        for (step, time) in steps {
            let time = u64::from(time);
            match step {
                Step::Sign(server, port) => world.sign(server, port, time),
                Step::Report(server, port) if !world.servers[server].is_cut_off => {
                    world.report(server, &format!("cpe.example:{port}"), time);
                }
                Step::Verify(server) => world.verify(server),
                Step::Write(server) if !world.servers[server].is_cut_off => world.write(server),
                Step::Hear(server) if !world.servers[server].is_cut_off => world.hear(server),
                Step::Report(..) | Step::Write(_) | Step::Hear(_) => {}
                Step::CutOff(server) => world.servers[server].is_cut_off ^= true,
                Step::Exchange => world.exchange(),
            }
        }
        world.servers.iter_mut().for_each(|server| server.is_cut_off = false);
        world.exchange();
        let Record { cpe: Cpe { state: stored, .. }, .. } = &world.store.record;
        for Server { state, number, .. } in &world.servers {
            prop_assert!(state.has_binding_of(stored), "{number}: {state:?} {stored:?}");
            prop_assert_eq!(&state.reported, &stored.reported);
            prop_assert_eq!(state.is_reported_last, stored.is_reported_last, "{}: {:?} {:?}", number, state, stored);
        }
        // The next signed request is accepted everywhere.
        world.sign(0, 7, 0);
        world.exchange();
        for server in 0..3 {
            prop_assert_eq!((world.port(server), world.servers[server].state.must_verify), (Some(7), false));
        }
    }
}
