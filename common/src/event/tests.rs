extern crate std;

use std::vec::Vec;

use super::*;
use crate::counter::Hook;

/// A record as the programs write it: header, then frame.
fn record(class: u8, hook: u8, captured: u32, tag: u32, frame: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(0x0102_0304_0506_0708u64.to_ne_bytes());
    bytes.extend(7u32.to_ne_bytes());
    bytes.extend(5u16.to_ne_bytes());
    bytes.extend(6u16.to_ne_bytes());
    bytes.extend(captured.to_ne_bytes());
    bytes.extend(tag.to_ne_bytes());
    bytes.extend([class, hook, 0, 0, 0, 0, 0, 0]);
    bytes.extend(frame);
    bytes
}

#[test]
fn reads_what_the_programs_write() {
    // The ring pads its records.
    let bytes = record(Class::Ack as u8, Hook::LanEgress as u8, 3, 0x1_0005, b"abc....");
    let event = Event::parse(&bytes).unwrap();
    assert_eq!(event.time, 0x0102_0304_0506_0708);
    assert_eq!(event.segment, Segment { ifindex: 7, vlan: [5, 6] });
    assert_eq!(
        (event.class, event.hook, event.metadata_tag, event.frame),
        (Class::Ack, Hook::LanEgress, Some(5), &b"abc"[..])
    );
    assert_eq!(Event::parse(&record(0, 0, 0, 0, b"")).unwrap().metadata_tag, None);
    assert_eq!(Event::parse(&record(0, 0, 0, 0x1_0000, b"")).unwrap().metadata_tag, Some(0), "a priority tag is a tag");
}

#[test]
fn every_class_and_hook_comes_back() {
    for class in Class::ALL {
        assert_eq!(Event::parse(&record(*class as u8, 0, 0, 0, b"")).unwrap().class, *class);
    }
    for hook in Hook::ALL {
        assert_eq!(Event::parse(&record(0, hook as u8, 0, 0, b"")).unwrap().hook, hook);
    }
}

#[test]
fn refuses_records_that_are_not_ours() {
    let bytes = record(0, 0, 4, 0, b"abc");
    assert_eq!(
        Event::parse(&bytes),
        Err(RecordError::Truncated { needed: HEADER_BYTES + 4, length: HEADER_BYTES + 3 })
    );
    for length in 0..HEADER_BYTES {
        assert_eq!(Event::parse(&bytes[..length]), Err(RecordError::Truncated { needed: HEADER_BYTES, length }));
    }
    assert_eq!(Event::parse(&record(200, 0, 0, 0, b"")), Err(RecordError::UnknownClass(200)));
    assert_eq!(Event::parse(&record(0, 200, 0, 0, b"")), Err(RecordError::UnknownHook(200)));
}
