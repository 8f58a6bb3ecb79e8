//! Cursor over a part of a message. Every step is bounded by the octets that are left.

/// Octets that are not read yet.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'p> {
    pub(crate) rest: &'p [u8],
}

impl<'p> Reader<'p> {
    pub(crate) fn new(rest: &'p [u8]) -> Self {
        Self { rest }
    }

    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> Option<&'p [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|b| u16::from_be_bytes([b[0], b[1]]))
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
    }

    /// Skips a name, compressed or not. Reports whether it was the root.
    #[inline]
    pub(crate) fn skip_name(&mut self) -> Option<bool> {
        let mut root = true;
        loop {
            match self.u8()? {
                0 => return Some(root),
                len @ 1..=0x3f => drop(self.take(usize::from(len))?),
                0xc0..=0xff => {
                    self.u8()?;
                    return Some(false);
                }
                // RFC 6891 §5 deprecates the other two label types.
                0x40..=0xbf => return None,
            }
            root = false;
        }
    }

    /// Takes a name without compression, in wire form.
    pub(crate) fn take_plain_name(&mut self) -> Option<&'p [u8]> {
        let mut end = 0;
        loop {
            match *self.rest.get(end)? {
                0 => return self.take(end + 1),
                len @ 1..=0x3f => end += 1 + usize::from(len),
                _ => return None,
            }
        }
    }
}
