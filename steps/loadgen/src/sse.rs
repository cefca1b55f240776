//! Server-sent events out of bytes, however those were cut.
//!
//! Follows the event-stream format of the WHATWG HTML standard (section 9.2.6) as far as a
//! client without reconnection needs it: `data` and `event` count, `id` and `retry` and
//! comments do not. Knows nothing of JSON, of UTF-8 (a cut may fall inside a character; lines
//! are put together before anybody looks at one) and of time. Its buffers are reused, so an
//! event costs no allocation.

/// One event; borrowed from the parser until the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SseEvent<'a> {
    /// The `event` field; empty if there was none.
    pub name: &'a [u8],
    /// The `data` lines, joined by line feeds. Not checked to be UTF-8.
    pub data: &'a [u8],
}

/// The stream is larger than allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SseError {
    /// A line has no end within the limit.
    #[error("an event-stream line is longer than {0} bytes")]
    LineTooLong(usize),
    /// The data of an event exceeds the limit.
    #[error("an event is larger than {0} bytes")]
    EventTooLarge(usize),
}

/// Turns pieces of a stream into events.
#[derive(Debug)]
pub struct SseParser {
    line_limit: usize,
    event_limit: usize,
    /// The beginning of a line whose end has not come yet.
    partial: Vec<u8>,
    name: Vec<u8>,
    data: Vec<u8>,
    /// Whether a `data` line was seen: an event without one is not dispatched.
    has_data: bool,
    /// Whether the last byte was a CR, so that an LF that follows belongs to it.
    after_cr: bool,
    /// Whether no line was finished yet: the first may start with a byte order mark.
    at_start: bool,
}

impl SseParser {
    /// Makes a parser that refuses longer lines and larger events than these, in bytes.
    #[must_use]
    pub fn new(line_limit: usize, event_limit: usize) -> Self {
        Self {
            line_limit,
            event_limit,
            partial: Vec::new(),
            name: Vec::new(),
            data: Vec::new(),
            has_data: false,
            after_cr: false,
            at_start: true,
        }
    }

    /// Takes the next piece of the stream and hands every event it completes to `on_event`.
    /// An event that the stream leaves incomplete is never handed out.
    ///
    /// # Errors
    ///
    /// [`SseError`] where a limit is exceeded, and whatever `on_event` returns; the parser is
    /// of no further use then.
    pub fn push<E: From<SseError>>(
        &mut self,
        mut bytes: &[u8],
        mut on_event: impl FnMut(SseEvent<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.after_cr && !bytes.is_empty() {
            self.after_cr = false;
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        while let Some(end) = memchr::memchr2(b'\n', b'\r', bytes) {
            self.fits(end)?;
            let (line, mut rest) = (&bytes[..end], &bytes[end + 1..]);
            if bytes[end] == b'\r' {
                self.after_cr = rest.is_empty();
                rest = rest.strip_prefix(b"\n").unwrap_or(rest);
            }
            bytes = rest;
            if self.partial.is_empty() {
                self.line(line, &mut on_event)?;
            } else {
                let mut whole = std::mem::take(&mut self.partial);
                whole.extend_from_slice(line);
                let done = self.line(&whole, &mut on_event);
                whole.clear();
                self.partial = whole;
                done?;
            }
        }
        self.fits(bytes.len())?;
        self.partial.extend_from_slice(bytes);
        Ok(())
    }

    fn fits(&self, more: usize) -> Result<(), SseError> {
        if self.partial.len() + more > self.line_limit {
            return Err(SseError::LineTooLong(self.line_limit));
        }
        Ok(())
    }

    fn line<E: From<SseError>>(
        &mut self,
        mut line: &[u8],
        on_event: &mut impl FnMut(SseEvent<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if std::mem::take(&mut self.at_start) {
            line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
        }
        if line.is_empty() {
            return self.dispatch(on_event);
        }
        let (field, value) = match memchr::memchr(b':', line) {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => self.append(value)?,
            b"event" => {
                self.name.clear();
                self.name.extend_from_slice(value);
            }
            _ => {}
        }
        Ok(())
    }

    fn append(&mut self, value: &[u8]) -> Result<(), SseError> {
        if self.data.len() + value.len() + 1 > self.event_limit {
            return Err(SseError::EventTooLarge(self.event_limit));
        }
        if std::mem::replace(&mut self.has_data, true) {
            self.data.push(b'\n');
        }
        self.data.extend_from_slice(value);
        Ok(())
    }

    fn dispatch<E>(
        &mut self,
        on_event: &mut impl FnMut(SseEvent<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let told = if std::mem::take(&mut self.has_data) {
            on_event(SseEvent {
                name: &self.name,
                data: &self.data,
            })
        } else {
            Ok(())
        };
        self.name.clear();
        self.data.clear();
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Seen = Vec<(String, String)>;

    fn parse(pieces: &[&[u8]]) -> Result<Seen, SseError> {
        let mut parser = SseParser::new(64, 128);
        let mut seen = Vec::new();
        for piece in pieces {
            parser.push(piece, |event| {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                seen.push((text(event.name), text(event.data)));
                Ok::<_, SseError>(())
            })?;
        }
        Ok(seen)
    }

    fn data(stream: &str) -> Vec<String> {
        parse(&[stream.as_bytes()])
            .unwrap()
            .into_iter()
            .map(|(_, data)| data)
            .collect()
    }

    #[test]
    fn the_format_as_the_standard_has_it() {
        assert_eq!(
            data("data: a\n\ndata:b\r\n\r\ndata:  c\r\rdata: d"),
            ["a", "b", " c"]
        );
        assert_eq!(data("data: a\ndata: b\ndata\n\n"), ["a\nb\n"]);
        assert_eq!(data(": ping\n\nid: 7\nretry: 3\n\ndata: x\n\n"), ["x"]);
        assert_eq!(data("\u{feff}data: x\n\n"), ["x"]);
        assert_eq!(data("data\n\n"), [""]);
        let named = parse(&[b"event: error\ndata: no\n\ndata: yes\n\n"]).unwrap();
        assert_eq!(
            named,
            [("error".into(), "no".into()), (String::new(), "yes".into())]
        );
    }

    #[test]
    fn limits_hold_whole_and_in_pieces() {
        let long = [b'x'; 65];
        assert_eq!(parse(&[&long]), Err(SseError::LineTooLong(64)));
        assert_eq!(
            parse(&[&long[..40], &long[..40]]),
            Err(SseError::LineTooLong(64))
        );
        assert_eq!(
            parse(&[&[&long[..], b"\n"].concat()]),
            Err(SseError::LineTooLong(64))
        );
        let line = [b"data: ", &long[..50], b"\n"].concat();
        assert_eq!(
            parse(&[&line, &line, &line]),
            Err(SseError::EventTooLarge(128))
        );
    }

    fn stream() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("data: ".to_owned()),
            Just("data:".to_owned()),
            Just("event: e".to_owned()),
            Just(": c".to_owned()),
            Just("é€𝄞".to_owned()),
            Just("\n".to_owned()),
            Just("\n\n".to_owned()),
            Just("\r".to_owned()),
            Just("\r\n".to_owned()),
            Just("\u{feff}".to_owned()),
            "[a-z:{} ]{0,6}",
        ];
        proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(stream in stream(), cuts in proptest::collection::vec(0.0..1.0f64, 0..12)) {
            let bytes = stream.as_bytes();
            let mut at: Vec<usize> = cuts.iter().map(|c| (c * bytes.len() as f64) as usize).collect();
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            let pieces: Vec<&[u8]> = at.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
            prop_assert_eq!(parse(&pieces), parse(&[bytes]));
        }

        #[test]
        fn one_byte_at_a_time_changes_nothing(stream in stream()) {
            let bytes = stream.as_bytes();
            prop_assert_eq!(parse(&bytes.chunks(1).collect::<Vec<_>>()), parse(&[bytes]));
        }
    }
}
