//! AMQP 0-9-1 frames, as far as a sieve needs them: type, channel, size, the first words of a method, the end octet.
//!
//! A frame is never held back: as soon as its first eleven bytes are there its fate is decided, and the rest follows.

/// One frame, before its fate is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) channel: u16,
    pub(crate) kind: Kind,
}

/// What the sieve can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `basic.publish`: a message begins.
    Publish,
    /// `basic.ack` or `basic.nack`; from a broker, a confirm.
    Confirm,
    /// Any other method.
    Method,
    /// The header or a piece of the body of the message that the last method on this channel began.
    Content,
    /// A heartbeat, or something unknown.
    Other,
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It goes on.
    Forward,
    /// It is thrown away.
    Drop,
    /// It is thrown away, and so is the connection.
    Cut,
}

/// The stream is not made of AMQP frames, or somebody wanted the connection cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    NotAmqp,
    Cut,
}

/// One direction of one connection, cut into frames.
#[derive(Debug)]
pub(crate) struct Sieve {
    /// The first bytes of a frame, until there are enough to decide.
    head: Vec<u8>,
    /// Bytes of the present frame that are still to come, and whether they go on.
    rest: (usize, bool),
    /// Bytes of the protocol header that are still to come.
    greeting: usize,
}

impl Sieve {
    /// The client's direction begins with a protocol header, the broker's does not.
    pub(crate) fn new(from_client: bool) -> Self {
        Self { head: Vec::new(), rest: (0, true), greeting: if from_client { GREETING } else { 0 } }
    }

    /// Takes bytes off the wire and puts those that go on into `onward`.
    pub(crate) fn pass(
        &mut self,
        mut bytes: &[u8],
        onward: &mut Vec<u8>,
        mut decide: impl FnMut(Frame) -> Fate,
    ) -> Result<(), Stopped> {
        while !bytes.is_empty() {
            if self.greeting > 0 {
                let (now, later) = bytes.split_at(self.greeting.min(bytes.len()));
                self.greeting -= now.len();
                onward.extend_from_slice(now);
                bytes = later;
            } else if self.rest.0 > 0 {
                let (now, later) = bytes.split_at(self.rest.0.min(bytes.len()));
                self.rest.0 -= now.len();
                if self.rest.0 == 0 && now.last() != Some(&END) {
                    return Err(Stopped::NotAmqp);
                }
                if self.rest.1 {
                    onward.extend_from_slice(now);
                }
                bytes = later;
            } else {
                bytes = self.begin(bytes, onward, &mut decide)?;
            }
        }
        Ok(())
    }

    /// Collects the beginning of a frame and decides when it is complete.
    fn begin<'a>(
        &mut self,
        bytes: &'a [u8],
        onward: &mut Vec<u8>,
        decide: &mut impl FnMut(Frame) -> Fate,
    ) -> Result<&'a [u8], Stopped> {
        let missing = self.needed() - self.head.len();
        let (now, later) = bytes.split_at(missing.min(bytes.len()));
        self.head.extend_from_slice(now);
        if self.head.len() < HEAD || self.head.len() < self.needed() {
            return Ok(later);
        }
        let fate = decide(self.frame());
        if fate == Fate::Cut {
            return Err(Stopped::Cut);
        }
        let forward = fate == Fate::Forward;
        if forward {
            onward.extend_from_slice(&self.head);
        }
        self.rest = (HEAD + self.size() + 1 - self.head.len(), forward);
        self.head.clear();
        Ok(later)
    }

    fn frame(&self) -> Frame {
        let head = &self.head;
        let word = |at: usize| head.get(at..at + 2).map_or(0, |word| u16::from_be_bytes([word[0], word[1]]));
        let kind = match (head[0], word(7), word(9)) {
            (METHOD, BASIC, 40) => Kind::Publish,
            (METHOD, BASIC, 80 | 120) => Kind::Confirm,
            (METHOD, _, _) => Kind::Method,
            (HEADER | BODY, _, _) => Kind::Content,
            _ => Kind::Other,
        };
        Frame { channel: word(1), kind }
    }

    /// How many bytes decide: all methods are named in the first four bytes of their payload.
    fn needed(&self) -> usize {
        if self.head.len() < HEAD { HEAD } else { HEAD + self.size().min(4) }
    }

    fn size(&self) -> usize {
        u32::from_be_bytes([self.head[3], self.head[4], self.head[5], self.head[6]]) as usize
    }
}

/// `AMQP` and the version.
const GREETING: usize = 8;
/// Type, channel and size.
const HEAD: usize = 7;
const END: u8 = 0xCE;
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
/// The class of `publish`, `ack` and `nack`.
const BASIC: u16 = 60;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind];
        bytes.extend(channel.to_be_bytes());
        bytes.extend(u32::try_from(payload.len()).expect("small").to_be_bytes());
        bytes.extend(payload);
        bytes.push(END);
        bytes
    }

    fn conversation() -> Vec<(Vec<u8>, Kind)> {
        vec![
            (frame(METHOD, 1, b"\0\x3c\0\x28rest of publish"), Kind::Publish),
            (frame(HEADER, 1, b"\0\x3c\0\0header"), Kind::Content),
            (frame(BODY, 1, b"\xCE\xCE\xCE"), Kind::Content),
            (frame(BODY, 1, b""), Kind::Content),
            (frame(8, 0, b""), Kind::Other),
            (frame(METHOD, 2, b"\0\x3c\0\x50tagtagtag"), Kind::Confirm),
            (frame(METHOD, 2, b"\0\x3c\0\x78tagtagtag"), Kind::Confirm),
            (frame(METHOD, 3, b"\0\x0a\0\x28open"), Kind::Method),
        ]
    }

    #[test]
    fn every_frame_is_recognised_however_the_stream_is_cut_into_pieces() {
        let mut stream = b"AMQP\0\0\x09\x01".to_vec();
        let mut expected = stream.clone();
        for (bytes, kind) in conversation() {
            stream.extend(&bytes);
            if kind != Kind::Confirm {
                expected.extend(&bytes);
            }
        }
        for piece in 1..=stream.len() {
            let mut sieve = Sieve::new(true);
            let (mut onward, mut seen) = (Vec::new(), Vec::new());
            for bytes in stream.chunks(piece) {
                let decided = sieve.pass(bytes, &mut onward, |frame| {
                    seen.push(frame.kind);
                    if frame.kind == Kind::Confirm { Fate::Drop } else { Fate::Forward }
                });
                decided.expect("frames");
            }
            assert_eq!(onward, expected, "pieces of {piece}");
            assert_eq!(seen, conversation().iter().map(|(_, kind)| *kind).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_stream_without_end_octets_is_not_amqp() {
        let mut bytes = frame(METHOD, 1, b"\0\x3c\0\x28");
        *bytes.last_mut().expect("an end") = 0;
        let passed = Sieve::new(false).pass(&bytes, &mut Vec::new(), |_| Fate::Forward);
        assert_eq!(passed, Err(Stopped::NotAmqp));
    }
}
