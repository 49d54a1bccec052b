//! Test vectors: option 125 as it appears on the wire, including code and length, in hexadecimal.
//!
//! The tests of `tr111-core` use the same file.

/// Device 00256D / DEV0001 / STB.
pub(crate) const D1: &str = "7d1b00000de91601063030323536440207444556303030310303535442";
/// The same device without a product class.
pub(crate) const D2: &str = "7d1600000de9110106303032353644020744455630303031";
/// Gateway 00256D / GW0001 / IGD.
pub(crate) const G1: &str = "7d1a00000de915040630303235364405064757303030310603494744";
/// The same gateway without a product class.
pub(crate) const G2: &str = "7d1500000de91004063030323536440506475730303031";
/// D1 in two instances, split inside sub-option 1.
pub(crate) const D1_SPLIT: &str = "7d0900000de916010630307d12323536440207444556303030310303535442";
/// An element of enterprise 4491, then the element of D1.
pub(crate) const TWO_ENTERPRISES: &str = "7d240000118b040102aabb00000de91601063030323536440207444556303030310303535442";
/// D1 with a byte-swapped enterprise number.
pub(crate) const LE: &str = "7d1be90d00001601063030323536440207444556303030310303535442";
/// The length of the element extends past the option.
pub(crate) const OVER_1: &str = "7d1b00000de9ff01063030323536440207444556303030310303535442";
/// The length of a sub-option extends past the element.
pub(crate) const OVER_2: &str = "7d1600000de9110106303032353644022044455630303031";
/// OUI and serial number with trailing NULs.
pub(crate) const NUL: &str = "7d1800000de91301073030323536440002084445563030303100";
/// OUI "00d09e" and serial number "SN1".
pub(crate) const LOWER: &str = "7d1200000de90d01063030643039650203534e31";
/// Empty serial number.
pub(crate) const ZERO: &str = "7d0f00000de90a01063030323536440200";
/// D2 with the additional codes 0 and 255.
pub(crate) const SUB0_255: &str = "7d1c00000de917000141ff01420106303032353644020744455630303031";
/// From a real gateway: 6475DA / JA12345AV000000 / "Livebox Nautilus".
pub(crate) const LIVEBOX: &str =
    "7d3000000de92b0406363437354441050f4a413132333435415630303030303006104c697665626f78204e617574696c7573";
/// From a real TR-124 device: 1=00D09E 2=homeportal 3=5268AC 4=15171N098922.
pub(crate) const TR124: &str =
    "7d2f00000de92a0106303044303945020a686f6d65706f7274616c0306353236384143040c31353137314e303938393232";
/// An element without sub-options.
pub(crate) const EMPTY: &str = "7d0500000de900";
