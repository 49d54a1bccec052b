//! Framing: the length of the message in bytes as four bytes in network byte order, then the message in JSON. Long
//! lists are split into several messages by the size of their items.

use std::io::{self, Write};

use serde::{Serialize, de::DeserializeOwned};

/// Maximum length of a message in bytes.
pub const MAXIMUM: usize = 1 << 20;
/// Bytes of the length field.
pub const LENGTH_BYTES: usize = 4;

/// Maximum bytes for the items of a list in a message. The rest is for the other fields.
pub const ITEMS: usize = MAXIMUM - 4_096;

/// An invalid frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The length is 0 or above [`MAXIMUM`].
    #[error("a frame of {length} bytes is outside 1 to {MAXIMUM}")]
    Length {
        /// The length in bytes.
        length: usize,
    },
    /// The content is not the JSON of a message.
    #[error("a frame that is not a message: {0}")]
    Json(#[from] serde_json::Error),
}

/// Encodes a message with its length field. Fails if the message is longer than [`MAXIMUM`].
pub fn encode<M: Serialize>(message: &M) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; LENGTH_BYTES];
    serde_json::to_writer(&mut frame, message)?;
    let length = frame.len() - LENGTH_BYTES;
    if length > MAXIMUM {
        return Err(FrameError::Length { length });
    }
    frame[..LENGTH_BYTES].copy_from_slice(&(length as u32).to_be_bytes());
    Ok(frame)
}

/// Decodes and checks the length field, before memory is reserved for the message.
pub fn length(header: [u8; LENGTH_BYTES]) -> Result<usize, FrameError> {
    match u32::from_be_bytes(header) as usize {
        length @ 1..=MAXIMUM => Ok(length),
        length => Err(FrameError::Length { length }),
    }
}

/// Decodes the bytes after the length field.
pub fn decode<M: DeserializeOwned>(body: &[u8]) -> Result<M, FrameError> {
    Ok(serde_json::from_slice(body)?)
}

/// Bytes of an item in a list, its comma included.
pub fn size<T: Serialize>(item: &T) -> usize {
    let mut bytes = Bytes(1);
    // The messages of this protocol always serialise.
    let _ = serde_json::to_writer(&mut bytes, item);
    bytes.0
}

/// Counts the bytes that are written.
struct Bytes(usize);

impl Write for Bytes {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.0 += from.len();
        Ok(from.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Splits a list into parts that fit into a message each. The flag of a part says whether another part follows. An
/// empty list has one empty part.
pub fn parts<I: IntoIterator<Item: Serialize>>(items: I) -> impl Iterator<Item = (Vec<I::Item>, bool)> {
    let mut items = items.into_iter();
    let mut next = items.next();
    let mut is_over = false;
    std::iter::from_fn(move || {
        if is_over {
            return None;
        }
        let (mut part, mut room) = (Vec::new(), ITEMS);
        while let Some(item) = next.take() {
            let size = size(&item);
            if size > room && !part.is_empty() {
                next = Some(item);
                break;
            }
            // An item that is longer than `ITEMS` is alone in its part. `encode` refuses it if it is longer than
            // `MAXIMUM`.
            room = room.saturating_sub(size);
            part.push(item);
            next = items.next();
        }
        is_over = next.is_none();
        Some((part, !is_over))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::message::{Reply, Request};

    #[test]
    fn a_message_survives_the_socket() {
        let request = Request::Get { paths: vec!["Device.\"\u{202e}".to_owned()] };
        let frame = encode(&request).expect("small");
        let header: [u8; LENGTH_BYTES] = frame[..LENGTH_BYTES].try_into().expect("four bytes");
        assert_eq!(length(header).expect("small"), frame.len() - LENGTH_BYTES);
        assert_eq!(decode::<Request>(&frame[LENGTH_BYTES..]).expect("the same"), request);
    }

    #[test]
    fn a_frame_above_the_cap_is_refused_in_both_directions() {
        assert!(matches!(length((MAXIMUM as u32 + 1).to_be_bytes()), Err(FrameError::Length { .. })));
        assert!(matches!(length([0; 4]), Err(FrameError::Length { length: 0 })));
        assert_eq!(length((MAXIMUM as u32).to_be_bytes()).expect("the cap itself"), MAXIMUM);
        let request = Request::Get { paths: vec!["x".repeat(MAXIMUM)] };
        assert!(matches!(encode(&request), Err(FrameError::Length { .. })));
    }

    #[test]
    fn bytes_that_are_no_message_are_an_error() {
        assert!(matches!(decode::<Request>(b"{\"request\":\"fly\"}"), Err(FrameError::Json(_))));
        assert!(matches!(decode::<Reply>(&[0xff; 8]), Err(FrameError::Json(_))));
    }

    #[test]
    fn a_list_is_cut_by_bytes_into_messages_that_fit() {
        // A control character takes six bytes in JSON.
        let items: Vec<String> = (0..2_000).map(|number| "\u{1}".repeat(number)).collect();
        let parts: Vec<_> = parts(items.clone()).collect();
        let longest = parts.iter().map(|(part, _)| serde_json::to_vec(part).expect("strings").len()).max();
        assert!(longest.is_some_and(|longest| (ITEMS - 12_000..=ITEMS + 2).contains(&longest)), "{longest:?}");
        assert_eq!(
            parts.iter().map(|(_, more)| *more).collect::<Vec<_>>(),
            [vec![true; parts.len() - 1], vec![false]].concat()
        );
        assert_eq!(parts.into_iter().flat_map(|(part, _)| part).collect::<Vec<_>>(), items);
    }

    #[test]
    fn a_list_without_items_is_one_message_and_an_item_that_is_too_long_is_alone() {
        assert_eq!(parts(Vec::<String>::new()).collect::<Vec<_>>(), [(Vec::new(), false)]);
        let long = "x".repeat(MAXIMUM);
        let cut: Vec<_> = parts(["a", long.as_str(), "b"]).map(|(part, more)| (part.len(), more)).collect();
        assert_eq!(cut, [(1, true), (1, true), (1, false)]);
    }
}
