//! What the broker sends, looked at before lapin reads it: what it could not read is made harmless, in place.
//!
//! Whoever may publish chooses the properties of a message and its routing key, and the broker hands them on as they are. A table
//! within tables thousands of levels deep exhausts the stack of lapin's parser, which ends the process; a short string that is not
//! UTF-8 ends its connection. Both would come again with each new connection. So a table or an array too deep is handed on as an array
//! of its bytes, and each byte that is not UTF-8 as U+001A, “substitute”. Nothing changes its length, and `Envelope::decode` refuses
//! both, so that the message is parked and its body untouched.

use correio_message::{MAX_DEPTH, SUBSTITUTE};

/// The frames of one connection, in whatever pieces they come.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// Bytes still to come of a frame that is not looked at.
    passing: usize,
    /// These are no frames: lapin says what is wrong.
    is_off: bool,
}

/// How much of what has come may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checked {
    /// So many bytes.
    pub(crate) good: usize,
    /// How many bytes the rest has when its frame is whole; 0 without a rest.
    pub(crate) wanted: usize,
}

impl Frames {
    /// Looks at what has come: the rest that was left the last time, and what followed it.
    pub(crate) fn check(&mut self, bytes: &mut [u8]) -> Checked {
        let mut at = 0;
        while at < bytes.len() && !self.is_off {
            if self.passing > 0 {
                let passed = self.passing.min(bytes.len() - at);
                self.passing -= passed;
                at += passed;
                continue;
            }
            let rest = &mut bytes[at..];
            let kind = rest[0];
            let Some([_, _, _, size @ ..]) = rest.first_chunk::<HEAD>() else {
                self.is_off = !matches!(kind, METHOD | HEADER | BODY | HEARTBEAT);
                return if self.is_off {
                    Checked { good: bytes.len(), wanted: 0 }
                } else {
                    Checked { good: at, wanted: HEAD }
                };
            };
            let payload = u32::from_be_bytes(*size) as usize;
            let whole = HEAD + payload + 1;
            match kind {
                METHOD | HEADER if payload <= LARGEST => {
                    if rest.len() < whole {
                        return Checked { good: at, wanted: whole };
                    }
                    let mut place = Place { bytes: &mut rest[HEAD..HEAD + payload], at: 0 };
                    // What is not understood is left as it is.
                    let _ = if kind == METHOD { method(&mut place) } else { header(&mut place) };
                    at += whole;
                }
                BODY | HEARTBEAT => self.passing = whole,
                _ => self.is_off = true,
            }
        }
        Checked { good: bytes.len(), wanted: 0 }
    }
}

/// `None`: it ends too early.
type Seen = Option<()>;

/// The methods that say where a message was published.
fn method(place: &mut Place<'_>) -> Seen {
    match (place.u16()?, place.u16()?) {
        BASIC_DELIVER => {
            place.text()?;
            place.skip(8 + 1)?;
        }
        BASIC_RETURN => {
            place.skip(2)?;
            place.text()?;
        }
        BASIC_GET_OK => place.skip(8 + 1)?,
        _ => return Some(()),
    }
    place.text()?;
    place.text()
}

/// The properties, in the order of their flags, highest first.
fn header(place: &mut Place<'_>) -> Seen {
    place.skip(2 + 2 + 8)?;
    let flags = place.u16()?;
    for flag in (2..16).rev().filter(|flag| flags & (1 << flag) != 0) {
        match flag {
            HEADERS => place.table()?,
            DELIVERY_MODE | PRIORITY => place.skip(1)?,
            TIMESTAMP => place.skip(8)?,
            _ => place.text()?,
        }
    }
    Some(())
}

/// A place in a frame.
struct Place<'b> {
    bytes: &'b mut [u8],
    at: usize,
}

impl Place<'_> {
    fn skip(&mut self, bytes: usize) -> Seen {
        self.at = self.at.checked_add(bytes).filter(|at| *at <= self.bytes.len())?;
        Some(())
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let taken = *self.bytes.get(self.at..)?.first_chunk()?;
        self.at += N;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    fn length(&mut self) -> Option<usize> {
        self.take().map(|length| u32::from_be_bytes(length) as usize)
    }

    fn text(&mut self) -> Seen {
        let [length] = self.take()?;
        let begin = self.at;
        self.skip(length.into())?;
        make_utf8(&mut self.bytes[begin..self.at]);
        Some(())
    }

    /// A table, without recursion.
    fn table(&mut self) -> Seen {
        let mut open = [(0, false); MAX_DEPTH];
        let length = self.length()?;
        open[0] = (self.end_of(length)?, true);
        let mut depth = 1_usize;
        while let Some((end, is_table)) = depth.checked_sub(1).map(|level| open[level]) {
            if self.at >= end {
                if self.at > end {
                    return None;
                }
                depth -= 1;
                continue;
            }
            if is_table {
                self.text()?;
            }
            let tag = self.at;
            match self.take()? {
                [kind @ (b'F' | b'A')] => {
                    let length = self.length()?;
                    let inner = self.end_of(length).filter(|inner| *inner <= end)?;
                    match open.get_mut(depth) {
                        Some(level) => {
                            *level = (inner, kind == b'F');
                            depth += 1;
                        }
                        None => {
                            self.bytes[tag] = b'x';
                            self.at = inner;
                        }
                    }
                }
                [b'S' | b'x'] => {
                    let length = self.length()?;
                    self.skip(length)?;
                }
                [b't' | b'b' | b'B'] => self.skip(1)?,
                [b's' | b'u' | b'U'] => self.skip(2)?,
                [b'I' | b'i' | b'f'] => self.skip(4)?,
                [b'D'] => self.skip(5)?,
                [b'L' | b'l' | b'd' | b'T'] => self.skip(8)?,
                [b'V'] => {}
                _ => return None,
            }
        }
        Some(())
    }

    fn end_of(&self, length: usize) -> Option<usize> {
        self.at.checked_add(length).filter(|end| *end <= self.bytes.len())
    }
}

/// Puts a substitute in the place of each byte that is wrong.
fn make_utf8(mut bytes: &mut [u8]) {
    while let Err(error) = str::from_utf8(bytes) {
        let wrong = error.valid_up_to();
        let end = error.error_len().map_or(bytes.len(), |length| wrong + length);
        bytes[wrong..end].fill(SUBSTITUTE as u8);
        bytes = &mut bytes[end..];
    }
}

// https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf, 2.3.5 and 4.2
const HEAD: usize = 7;
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;
const BASIC_DELIVER: (u16, u16) = (60, 60);
const BASIC_RETURN: (u16, u16) = (60, 50);
const BASIC_GET_OK: (u16, u16) = (60, 71);
const HEADERS: u16 = 13;
const DELIVERY_MODE: u16 = 12;
const PRIORITY: u16 = 11;
const TIMESTAMP: u16 = 6;
/// More than any `frame_max` that is in use.
const LARGEST: usize = 1 << 20;

#[cfg(test)]
mod tests;
