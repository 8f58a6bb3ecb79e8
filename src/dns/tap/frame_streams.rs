//! Frame Streams, the framing of dnstap, as a writer on a bi-directional connection needs it.
//!
//! ```text
//! writer:  READY(type)               START(type)  data…  STOP
//! reader:               ACCEPT(type)                            FINISH
//! ```
//!
//! A data frame is a length and its octets. A control frame is an escape, which is a data frame's length of zero, a length, a type,
//! and fields. All numbers have four octets in network order.

use thiserror::Error;

/// Maximum length of a control frame in octets without escape and length, as in the reference implementation.
pub const MAX_CONTROL: usize = 512;
/// Maximum length of a content type in octets, as in the reference implementation.
pub const MAX_CONTENT_TYPE: usize = 256;
/// Octets before the content of a control frame: escape and length.
const CONTROL_HEAD: usize = 8;
/// Field with a content type, the only one that is defined.
const FIELD_CONTENT_TYPE: u32 = 1;

/// Type of a control frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlType {
    /// The reader accepts content types.
    Accept = 1,
    /// The writer begins to send data.
    Start = 2,
    /// The writer has sent all data.
    Stop = 3,
    /// The writer offers content types.
    Ready = 4,
    /// The reader has received all data.
    Finish = 5,
}

/// Octets that are no control frame.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum FrameError {
    /// A data frame, which only the writer may send.
    #[error("a data frame of {0} octets instead of a control frame")]
    Data(u32),
    /// Longer than [`MAX_CONTROL`], or too short for a type.
    #[error("a control frame of {0} octets (4 to {MAX_CONTROL} are allowed)")]
    Length(u32),
    /// Unknown type.
    #[error("a control frame of the unknown type {0}")]
    Type(u32),
    /// Unknown, incomplete or too long field.
    #[error("a control frame with a malformed field")]
    Field,
}

/// A control frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// Type.
    pub control_type: ControlType,
    /// Content types, each within [`MAX_CONTENT_TYPE`].
    pub content_types: Vec<Vec<u8>>,
}

impl Control {
    /// Returns a control frame without content types.
    pub fn bare(control_type: ControlType) -> Self {
        Self { control_type, content_types: Vec::new() }
    }

    /// Returns a control frame with one content type.
    pub fn of(control_type: ControlType, content_type: &[u8]) -> Self {
        Self { control_type, content_types: vec![content_type.to_vec()] }
    }

    /// Reports whether the frame permits a content type: one without any permits all.
    pub fn permits(&self, content_type: &[u8]) -> bool {
        self.content_types.is_empty() || self.content_types.iter().any(|known| known == content_type)
    }

    /// Returns the octets of the frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut content = (self.control_type as u32).to_be_bytes().to_vec();
        for content_type in &self.content_types {
            content.extend(FIELD_CONTENT_TYPE.to_be_bytes());
            content.extend((content_type.len() as u32).to_be_bytes());
            content.extend_from_slice(content_type);
        }
        let mut frame = vec![0; 4];
        frame.extend((content.len() as u32).to_be_bytes());
        frame.extend(content);
        frame
    }

    /// Parses the control frame at the start of the input. Returns the frame and its length; `None` while it is incomplete.
    ///
    /// # Errors
    /// Another frame, or one beyond the bounds. It is refused before it is complete.
    pub fn parse(input: &[u8]) -> Result<Option<(Self, usize)>, FrameError> {
        let Some((escape, rest)) = number(input) else { return Ok(None) };
        if escape != 0 {
            return Err(FrameError::Data(escape));
        }
        let Some((length, rest)) = number(rest) else { return Ok(None) };
        let Some(len) = usize::try_from(length).ok().filter(|len| (4..=MAX_CONTROL).contains(len)) else {
            return Err(FrameError::Length(length));
        };
        let Some((control_type, mut fields)) = rest.get(..len).and_then(number) else { return Ok(None) };
        let control_type = match control_type {
            1 => ControlType::Accept,
            2 => ControlType::Start,
            3 => ControlType::Stop,
            4 => ControlType::Ready,
            5 => ControlType::Finish,
            other => return Err(FrameError::Type(other)),
        };
        let mut content_types = Vec::new();
        while !fields.is_empty() {
            let (content_type, rest) = field(fields).ok_or(FrameError::Field)?;
            content_types.push(content_type.to_vec());
            fields = rest;
        }
        Ok(Some((Self { control_type, content_types }, CONTROL_HEAD + len)))
    }
}

/// Splits a content type off.
fn field(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (field, rest) = number(input)?;
    let (length, rest) = number(rest)?;
    let len = usize::try_from(length).ok().filter(|len| *len <= MAX_CONTENT_TYPE)?;
    rest.split_at_checked(len).filter(|_| field == FIELD_CONTENT_TYPE)
}

fn number(input: &[u8]) -> Option<(u32, &[u8])> {
    let (octets, rest) = input.split_first_chunk()?;
    Some((u32::from_be_bytes(*octets), rest))
}

/// Appends the head of a data frame of this length, which is not zero.
pub fn push_data(len: usize, out: &mut Vec<u8>) {
    out.extend((len as u32).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// READY as fstrm sends it.
    const READY: &[u8] = b"\0\0\0\0\0\0\0\x22\0\0\0\x04\0\0\0\x01\0\0\0\x16protobuf:dnstap.Dnstap";

    #[test]
    fn control_frames_are_encoded_and_parsed() {
        let ready = Control::of(ControlType::Ready, b"protobuf:dnstap.Dnstap");
        assert_eq!(ready.encode(), READY);
        let several = Control { control_type: ControlType::Accept, content_types: vec![b"a".to_vec(), b"bc".to_vec()] };
        for control in [ready, several, Control::bare(ControlType::Stop), Control::bare(ControlType::Finish)] {
            let octets = control.encode();
            let parsed = Control::parse(&[&octets[..], b"rest"].concat());
            assert_eq!(parsed, Ok(Some((control, octets.len()))));
            for len in 0..octets.len() {
                assert_eq!(Control::parse(&octets[..len]), Ok(None), "{len}");
            }
        }
    }

    #[test]
    fn frames_beyond_the_bounds_are_refused() {
        let field = |len: u32, content: &[u8]| {
            let mut octets = vec![0, 0, 0, 0];
            octets.extend((12 + content.len() as u32).to_be_bytes());
            octets.extend([0, 0, 0, 1, 0, 0, 0, 1]);
            octets.extend(len.to_be_bytes());
            octets.extend_from_slice(content);
            octets
        };
        let cases: [(&[u8], FrameError); 8] = [
            (&[0, 0, 0, 9], FrameError::Data(9)),
            (&[0, 0, 0, 0, 0, 0, 2, 1], FrameError::Length(513)),
            (&[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], FrameError::Length(u32::MAX)),
            (&[0, 0, 0, 0, 0, 0, 0, 3], FrameError::Length(3)),
            (&[0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 6], FrameError::Type(6)),
            (&[0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 2], FrameError::Field),
            (&field(2, b"a"), FrameError::Field),
            (&field(257, &[b'a'; 257]), FrameError::Field),
        ];
        for (octets, expected) in cases {
            assert_eq!(Control::parse(octets), Err(expected), "{octets:?}");
        }
        assert!(Control::parse(&field(256, &[b'a'; 256])).is_ok_and(|parsed| parsed.is_some()));
    }

    #[test]
    fn frame_without_content_types_permits_all() {
        let accept = |types: &[&str]| Control {
            control_type: ControlType::Accept,
            content_types: types.iter().map(|text| text.as_bytes().to_vec()).collect(),
        };
        assert!(accept(&[]).permits(b"a"));
        assert!(accept(&["b", "a"]).permits(b"a"));
        assert!(!accept(&["b"]).permits(b"a"));
    }
}
