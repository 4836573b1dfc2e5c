//! The frames of a WebSocket's client, judged as ws 8 judges them (RFC 6455, 5).

// The codes to close with (RFC 6455, 7.4.1).
const PROTOCOL_ERROR: u16 = 1002;
const NOT_UTF8: u16 = 1007;
const TOO_BIG: u16 = 1009;

/// Follows the frames of a client, and finds the first thing that is wrong with them.
#[derive(Debug, Default)]
pub(super) struct ClientFrames {
    max_payload: u64,
    /// The code to close with, once something was wrong.
    pub(super) wrong: Option<u16>,
    /// The code with which the client has closed.
    pub(super) closed: Option<u16>,
    header: [u8; 14],
    have: usize,
    frame: WebSocketFrame,
    /// Bytes of the message before this frame.
    before: u64,
    /// The kind of the message that goes on, if one does.
    message: Option<FrameKind>,
    text: Utf8,
    /// What a close frame carries, as far as it has come.
    close: Vec<u8>,
}

#[derive(Debug, Default)]
struct WebSocketFrame {
    fin: bool,
    kind: FrameKind,
    mask: [u8; 4],
    /// Bytes of its payload that have come, and those to come.
    at: u64,
    left: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum FrameKind {
    #[default]
    Binary,
    Text,
    Close,
    Heartbeat,
}

impl ClientFrames {
    /// The frames of a client that may send messages of so many bytes.
    pub(super) fn new(max_payload: u64) -> Self {
        Self { max_payload, ..Self::default() }
    }

    /// Takes the next bytes of the stream.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.wrong.is_none() {
            let found = if self.frame.left > 0 {
                let count = usize::try_from(self.frame.left).unwrap_or(usize::MAX).min(bytes.len());
                let (payload, rest) = bytes.split_at(count);
                bytes = rest;
                self.payload(payload)
            } else {
                self.header[self.have] = bytes[0];
                self.have += 1;
                bytes = &bytes[1..];
                self.head()
            };
            self.wrong = found.err();
        }
    }

    /// One more byte of a frame's header has come.
    fn head(&mut self) -> Result<(), u16> {
        let [first, second, ..] = self.header;
        let short = second & 0x7f;
        let extra = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if self.have == 2 {
            self.check(first, second)?;
        }
        if self.have < 2 || self.have < 6 + extra {
            return Ok(());
        }
        let mut long = [0; 8];
        long[8 - extra..].copy_from_slice(&self.header[2..2 + extra]);
        let left = if extra == 0 { short.into() } else { u64::from_be_bytes(long) };
        let kind = match first & 0x0f {
            0 => self.message.unwrap_or_default(),
            1 => FrameKind::Text,
            8 => FrameKind::Close,
            9 | 10 => FrameKind::Heartbeat,
            _ => FrameKind::Binary,
        };
        let (mut mask, fin) = ([0; 4], first & 0x80 != 0);
        mask.copy_from_slice(&self.header[2 + extra..6 + extra]);
        (self.have, self.frame) = (0, WebSocketFrame { fin, kind, mask, at: 0, left });
        if matches!(kind, FrameKind::Text | FrameKind::Binary) {
            self.before = self.before.saturating_add(left);
            if self.before > self.max_payload {
                return Err(TOO_BIG);
            }
            self.message = Some(kind);
        }
        if left == 0 { self.end() } else { Ok(()) }
    }

    /// What the first two bytes of a frame may say.
    fn check(&self, first: u8, second: u8) -> Result<(), u16> {
        let (fin, reserved, masked, short) = (first & 0x80 != 0, first & 0x70 != 0, second & 0x80 != 0, second & 0x7f);
        let fits = match first & 0x0f {
            0 => self.message.is_some(),
            1 | 2 => self.message.is_none(),
            8 => fin && short <= 125 && short != 1,
            9 | 10 => fin && short <= 125,
            _ => false,
        };
        if fits && masked && !reserved { Ok(()) } else { Err(PROTOCOL_ERROR) }
    }

    fn payload(&mut self, bytes: &[u8]) -> Result<(), u16> {
        let WebSocketFrame { kind, mask, at, .. } = self.frame;
        if matches!(kind, FrameKind::Text | FrameKind::Close) {
            let mut room = [0; 1024];
            let mut at = at;
            for part in bytes.chunks(room.len()) {
                let plain = &mut room[..part.len()];
                for (plain, byte) in plain.iter_mut().zip(part) {
                    *plain = byte ^ mask[(at % 4) as usize];
                    at += 1;
                }
                match kind {
                    FrameKind::Close => self.close.extend_from_slice(plain),
                    _ => self.text.feed(plain)?,
                }
            }
        }
        self.frame.at += bytes.len() as u64;
        self.frame.left -= bytes.len() as u64;
        if self.frame.left == 0 { self.end() } else { Ok(()) }
    }

    /// A frame has come to its end.
    fn end(&mut self) -> Result<(), u16> {
        match self.frame.kind {
            FrameKind::Heartbeat => Ok(()),
            FrameKind::Close => self.closed(),
            FrameKind::Text | FrameKind::Binary if !self.frame.fin => Ok(()),
            FrameKind::Text | FrameKind::Binary => {
                (self.message, self.before) = (None, 0);
                std::mem::take(&mut self.text).end()
            }
        }
    }

    /// The client has closed; its close frame may be invalid too.
    fn closed(&mut self) -> Result<(), u16> {
        let Some((code, reason)) = self.close.split_first_chunk::<2>() else { return Ok(()) };
        let code = u16::from_be_bytes(*code);
        match code {
            1000..=1003 | 1007..=1014 | 3000..=4999 => {}
            _ => return Err(PROTOCOL_ERROR),
        }
        std::str::from_utf8(reason).map_err(|_| NOT_UTF8)?;
        self.closed = Some(code);
        Ok(())
    }
}

/// Text that comes in pieces, which may end within a character.
#[derive(Debug, Default)]
struct Utf8 {
    begun: [u8; 4],
    have: usize,
}

impl Utf8 {
    fn feed(&mut self, mut bytes: &[u8]) -> Result<(), u16> {
        while self.have > 0 {
            let Some((byte, rest)) = bytes.split_first() else { return Ok(()) };
            (self.begun[self.have], bytes) = (*byte, rest);
            self.have += 1;
            match std::str::from_utf8(&self.begun[..self.have]) {
                Ok(_) => self.have = 0,
                Err(error) if error.error_len().is_some() => return Err(NOT_UTF8),
                Err(_) => {}
            }
        }
        let Err(error) = std::str::from_utf8(bytes) else { return Ok(()) };
        if error.error_len().is_some() {
            return Err(NOT_UTF8);
        }
        // At most three bytes: a whole character would be none that has only begun.
        let begun = &bytes[error.valid_up_to()..];
        self.begun[..begun.len()].copy_from_slice(begun);
        self.have = begun.len();
        Ok(())
    }

    fn end(self) -> Result<(), u16> {
        if self.have == 0 { Ok(()) } else { Err(NOT_UTF8) }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A masked frame of at most 125 bytes.
    pub(in super::super) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let masked = payload.iter().zip([9, 8, 7, 6].iter().cycle()).map(|(byte, mask)| byte ^ mask);
        [first, 0x80 | payload.len() as u8, 9, 8, 7, 6].into_iter().chain(masked).collect()
    }

    fn found(bytes: &[u8], cut: usize) -> Option<u16> {
        let mut frames = ClientFrames::new(100);
        bytes.chunks(cut).for_each(|part| frames.feed(part));
        frames.wrong
    }

    proptest! {
        #[test]
        fn text_is_judged_alike_however_it_is_cut(
            text in prop_oneof![any::<String>().prop_map(String::into_bytes), prop::collection::vec(any::<u8>(), 0..40)],
            fragment in 1..50_usize,
            cut in 1..50_usize,
        ) {
            let text = &text[..text.len().min(90)];
            let mut parts: Vec<&[u8]> = text.chunks(fragment).collect();
            let last = parts.pop().unwrap_or_default();
            let begin = |at: usize| u8::from(at == 0);
            let mut bytes: Vec<u8> = parts.iter().enumerate().flat_map(|(at, part)| frame(begin(at), part)).collect();
            bytes.extend(frame(0x80 | begin(parts.len()), last));
            let wrong = std::str::from_utf8(text).is_err().then_some(NOT_UTF8);
            prop_assert_eq!(found(&bytes, cut), wrong);
            bytes.extend(frame(0x80, b"a continuation of nothing"));
            prop_assert_eq!(found(&bytes, cut), wrong.or(Some(PROTOCOL_ERROR)));
        }

        #[test]
        fn any_bytes_are_frames_or_wrong(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 1..50_usize) {
            prop_assert_eq!(found(&bytes, cut), found(&bytes, bytes.len().max(1)));
        }
    }
}
