extern crate std;

use std::collections::BTreeSet;

use super::*;

#[test]
fn every_counter_has_a_slot_of_its_own() {
    let mut slots = BTreeSet::new();
    let mut add = |counter: Counter| {
        assert!(counter.slot() < COUNTER_SLOTS, "{counter:?}");
        assert!(slots.insert(counter.slot()), "{counter:?} shares its slot");
    };
    for hook in Hook::ALL {
        for class in Class::ALL {
            add(Counter::Packet(hook, *class));
        }
    }
    for message in MessageType::ALL {
        for refusal in Refusal::ALL {
            add(Counter::Refused(message, refusal));
        }
    }
    for ring in Ring::ALL {
        add(Counter::RingEvents(ring));
        add(Counter::RingLost(ring));
    }
    add(Counter::NewcomersLost);
}

#[test]
fn labels_are_distinct() {
    let labels: BTreeSet<_> = Class::ALL.iter().map(|class| class.label()).collect();
    assert_eq!(labels.len(), Class::ALL.len());
    for (number, class) in Class::ALL.iter().enumerate() {
        assert_eq!(*class as usize, number);
    }
}
