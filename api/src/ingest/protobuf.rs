//! Protocol buffers' wire format, read without copying. It knows keys, lengths and numbers, and no message.

use super::IngestError;

/// How a field is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    Varint,
    Fixed64,
    Bytes,
    Fixed32,
}

/// Reads one message from its first byte to its last.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where the message begins in the body, for errors.
    base: usize,
}

impl<'a> Reader<'a> {
    /// A reader of a message that begins at `base` of the body.
    pub(crate) fn new(bytes: &'a [u8], base: usize) -> Self {
        Self { bytes, at: 0, base }
    }

    /// Where it reads next, within the message.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// Where it reads next, within the body.
    pub(crate) fn place(&self) -> usize {
        self.base + self.at
    }

    /// The next field's number and form; `None` at the end.
    #[inline]
    pub(crate) fn key(&mut self) -> Result<Option<(u64, Wire)>, IngestError> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        let key = self.varint()?;
        let wire = match key & 7 {
            0 => Wire::Varint,
            1 => Wire::Fixed64,
            2 => Wire::Bytes,
            5 => Wire::Fixed32,
            _ => return Err(self.malformed("a field of an unknown form")),
        };
        match key >> 3 {
            0 => Err(self.malformed("a field with number 0")),
            field => Ok(Some((field, wire))),
        }
    }

    /// A number of 7 bits a byte.
    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, IngestError> {
        if let Some(&byte) = self.bytes.get(self.at)
            && byte < 0x80
        {
            self.at += 1;
            return Ok(u64::from(byte));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Result<u64, IngestError> {
        let mut value = 0;
        for shift in (0..70).step_by(7) {
            let Some(&byte) = self.bytes.get(self.at) else { return Err(self.malformed("it ends within a number")) };
            // The tenth byte has room for one bit.
            if shift == 63 && byte > 1 {
                break;
            }
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.malformed("a number of more than 64 bits"))
    }

    /// Eight bytes.
    #[inline]
    pub(crate) fn fixed64(&mut self) -> Result<u64, IngestError> {
        match self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<8>()) {
            Some(bytes) => {
                self.at += 8;
                Ok(u64::from_le_bytes(*bytes))
            }
            None => Err(self.malformed("it ends within a number")),
        }
    }

    /// A length and so many bytes: a text, or a message within this one.
    #[inline]
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], IngestError> {
        let length = self.varint()?;
        let rest = &self.bytes[self.at..];
        match usize::try_from(length).ok().and_then(|length| rest.get(..length)) {
            Some(bytes) => {
                self.at += bytes.len();
                Ok(bytes)
            }
            None => Err(self.malformed("a field is longer than what is left")),
        }
    }

    /// A message within this one.
    #[inline]
    pub(crate) fn message(&mut self) -> Result<Reader<'a>, IngestError> {
        let bytes = self.bytes()?;
        Ok(Reader::new(bytes, self.place() - bytes.len()))
    }

    /// Passes over a field that nobody here knows.
    pub(crate) fn skip(&mut self, wire: Wire) -> Result<(), IngestError> {
        match wire {
            Wire::Varint => self.varint().map(drop),
            Wire::Fixed64 => self.fixed64().map(drop),
            Wire::Bytes => self.bytes().map(drop),
            Wire::Fixed32 => {
                if self.bytes.len() - self.at < 4 {
                    return Err(self.malformed("it ends within a number"));
                }
                self.at += 4;
                Ok(())
            }
        }
    }

    /// An error at this place.
    #[cold]
    pub(crate) fn malformed(&self, what: &'static str) -> IngestError {
        IngestError::Malformed { at: self.place(), what }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_to_their_64th_bit_and_not_beyond() {
        let mut longest = vec![0xff; 9];
        longest.push(1);
        assert_eq!(Reader::new(&longest, 0).varint(), Ok(u64::MAX));
        longest[9] = 2;
        assert!(Reader::new(&longest, 0).varint().is_err());
        assert!(Reader::new(&[0x80; 11], 0).varint().is_err());
        assert_eq!(Reader::new(&[0xac, 0x02], 0).varint(), Ok(300));
    }

    #[test]
    fn lengths_beyond_the_end_are_refused_where_they_stand() {
        let mut reader = Reader::new(&[0x0a, 5, 1, 2], 100);
        assert_eq!(reader.key(), Ok(Some((1, Wire::Bytes))));
        assert_eq!(
            reader.bytes(),
            Err(IngestError::Malformed { at: 102, what: "a field is longer than what is left" })
        );
        let mut huge = vec![0x0a];
        huge.extend([0xff; 9]);
        huge.push(1);
        let mut reader = Reader::new(&huge, 0);
        reader.key().expect("a key");
        assert!(reader.bytes().is_err());
        // Groups, and the forms that nobody has defined.
        for key in [0x0b, 0x0c, 0x0e, 0x0f, 0x00] {
            assert!(Reader::new(&[key], 0).key().is_err(), "{key}");
        }
    }
}
