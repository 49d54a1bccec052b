//! Framing: the length of a message in four bytes, network order, then the message in JSON.

use serde::{Serialize, de::DeserializeOwned};

/// Longest message, in bytes. A message never needs more: lists are cut into several.
pub const MAXIMUM: usize = 1 << 20;
/// Bytes of the length.
pub const LENGTH_BYTES: usize = 4;

/// Why a frame is refused.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The length says more than [`MAXIMUM`], or nothing.
    #[error("a frame of {length} bytes is outside 1 to {MAXIMUM}")]
    Length {
        /// What it says.
        length: usize,
    },
    /// The bytes are not the JSON of a message.
    #[error("a frame that is no message: {0}")]
    Json(#[from] serde_json::Error),
}

/// A message as it goes over the socket.
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

/// The length that a frame announces, checked before anything is reserved for it.
pub fn length(header: [u8; LENGTH_BYTES]) -> Result<usize, FrameError> {
    match u32::from_be_bytes(header) as usize {
        length @ 1..=MAXIMUM => Ok(length),
        length => Err(FrameError::Length { length }),
    }
}

/// The message in the bytes behind the length.
pub fn decode<M: DeserializeOwned>(body: &[u8]) -> Result<M, FrameError> {
    Ok(serde_json::from_slice(body)?)
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
}
