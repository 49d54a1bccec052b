//! Test vectors of STUN: server 203.0.113.10:3478, mapped address 198.51.100.7:40001.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::stun::{SharedSecret, TransactionId};

pub const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 10), 3478);
pub const MAPPED: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 7), 40001);
pub const USER: &[u8] = b"CPE57689";

/// Sixteen increasing bytes that start with `first`.
pub fn id(first: u8) -> TransactionId {
    TransactionId(std::array::from_fn(|at| first + at as u8))
}

pub fn secret() -> SharedSecret {
    SharedSecret::new(b"stunpassword1234")
}

/// A Binding Request with CONNECTION-REQUEST-BINDING.
pub const S1: &str = "000100180102030405060708090a0b0c0d0e0f10c001001464736c666f72756d2e6f72672f54522d31313120";
/// S1 with USERNAME.
pub const S2: &str = "000100240102030405060708090a0b0c0d0e0f10c001001464736c666f72756d2e6f72672f54522d31313120\
                      000600084350453537363839";
/// S2 with BINDING-CHANGE.
pub const S3: &str = "000100280102030405060708090a0b0c0d0e0f10c001001464736c666f72756d2e6f72672f54522d31313120\
                      c0020000000600084350453537363839";
/// S3, signed with variant A.
pub const S4: &str = "000100401112131415161718191a1b1c1d1e1f20c001001464736c666f72756d2e6f72672f54522d31313120\
                      c00200000006000843504535373638390008001466fe75f37a9b2ac104f5947c80ed24973c4f6730";
/// A Binding Response.
pub const S5: &str = "010100240102030405060708090a0b0c0d0e0f100001000800019c41c63364070004000800010d96cb00710a\
                      0005000800010d96cb00710a";
/// A signed Binding Response.
pub const S6: &str = "0101003c1112131415161718191a1b1c1d1e1f200001000800019c41c63364070004000800010d96cb00710a\
                      0005000800010d96cb00710a000800145d9aac88a3b8fefee4866d84f1b46c11a7297f91";
/// Error 401.
pub const S7: &str = "011100140102030405060708090a0b0c0d0e0f100009001000000401556e617574686f72697a6564";
/// Error 420 for the attribute 0x7777.
pub const S8: &str = "011100240102030405060708090a0b0c0d0e0f100009001800000414556e6b6e6f776e2041747472696275746520\
                      2020000a000477777777";
/// A test of the binding's lifetime.
pub const S9: &str = "0001000c2122232425262728292a2b2c2d2e2f300002000800019c41c6336407";
/// The answer to S9: received from port 40002, sent to port 40001.
pub const S10: &str = "010100302122232425262728292a2b2c2d2e2f300001000800019c42c63364070004000800010d96cb00710a\
                       0005000800010d96cb00710a000b000800019c42c6336407";
/// A padded USERNAME.
pub const S11: &str = "000600084350453537363820";
/// Error 433 to a Shared Secret Request over UDP.
pub const S12: &str = "011200100102030405060708090a0b0c0d0e0f100009000c0000042155736520544c5320";
/// CHANGE-REQUEST with both flags.
pub const CHANGE_BOTH: &str = "0003000400000006";

/// The digest of S4 in each variant of T-19.
pub const DIGESTS: [(char, &str); 6] = [
    ('A', "66fe75f37a9b2ac104f5947c80ed24973c4f6730"),
    ('B', "1edae952b7d04f53568fff7ab311ddf02f645925"),
    ('C', "00ca3c013d3d3db1a000e39e7a60750ce2b6734e"),
    ('D', "3e6de8d17da8705c6f9e14983b2c9d406318f082"),
    ('E', "90918c7b7f08f42fafe8b82dcfa04066d5506ce2"),
    ('F', "80fda5873df17a0e30b2dd5eb747eacfd1a9355a"),
];
