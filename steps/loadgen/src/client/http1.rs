//! HTTP/1.1 answers out of bytes, however those were cut.
//!
//! Pure: bytes in, parts of an answer out, as RFC 9112 frames them. A body is handed out as it
//! lies in the bytes that were read, without being copied. Knows no socket and no event stream.

use super::Head;
use crate::{Class, protocol::Fault};

/// Header fields that are looked at before an answer is refused.
const MOST_HEADERS: usize = 128;
/// The longest line of a chunk's size, extensions included, in bytes.
const SIZE_LINE: usize = 1024;

/// A part of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    /// Its head; comes once and first.
    Head(Head),
    /// A piece of its body.
    Body(&'a [u8]),
    /// Its proper end; nothing follows.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    /// So many bytes of body are left.
    Length(u64),
    /// The line with the size of the next chunk.
    Size,
    /// So many bytes of a chunk are left.
    Chunk(u64),
    /// The line break behind a chunk.
    AfterChunk,
    /// Lines behind the last chunk.
    Trailers,
    /// The body ends with the connection.
    UntilClose,
    Done,
}

/// Reads one answer after another from one connection.
#[derive(Debug)]
pub(crate) struct Reader {
    state: State,
    /// The beginning of a head or of a line whose end has not come yet.
    partial: Vec<u8>,
    head_limit: usize,
    /// Whether the connection may carry another answer.
    keep_alive: bool,
}

impl Reader {
    /// Makes a reader that refuses heads of more than `head_limit` bytes.
    pub(crate) fn new(head_limit: usize) -> Self {
        Self {
            state: State::Head,
            partial: Vec::new(),
            head_limit,
            keep_alive: false,
        }
    }

    /// Makes ready for the next answer.
    pub(crate) fn reset(&mut self) {
        self.state = State::Head;
        self.partial.clear();
        self.keep_alive = false;
    }

    /// Whether the connection may carry another answer, once this one has ended.
    pub(crate) fn keep_alive(&self) -> bool {
        self.keep_alive && self.state == State::Done
    }

    /// Whether the rest of this answer can end in such a way that another may follow.
    pub(crate) fn may_continue(&self) -> bool {
        self.keep_alive && !matches!(self.state, State::Done | State::UntilClose | State::Head)
    }

    /// Takes the next part off the beginning of `bytes`; `None` when more bytes are needed.
    pub(crate) fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Part<'a>>, Fault> {
        loop {
            match self.state {
                State::Done => return Ok(None),
                State::Head => match self.head(bytes)? {
                    // An interim answer says nothing yet.
                    Some(head) if (100..200).contains(&head.status) => {
                        if head.status == 101 {
                            return Err(bad("the server switched protocols"));
                        }
                        self.state = State::Head;
                    }
                    Some(head) => return Ok(Some(Part::Head(head))),
                    None => return Ok(None),
                },
                State::Length(0) => return Ok(Some(self.end())),
                State::Length(left) => {
                    let piece = take(bytes, left);
                    self.state = State::Length(left - piece.len() as u64);
                    return Ok((!piece.is_empty()).then_some(Part::Body(piece)));
                }
                State::Size => match self.line(bytes, SIZE_LINE, chunk_size)? {
                    Some(size) => {
                        self.state = match size? {
                            0 => State::Trailers,
                            size => State::Chunk(size),
                        }
                    }
                    None => return Ok(None),
                },
                State::Chunk(left) => {
                    let piece = take(bytes, left);
                    self.state = match left - piece.len() as u64 {
                        0 => State::AfterChunk,
                        left => State::Chunk(left),
                    };
                    return Ok((!piece.is_empty()).then_some(Part::Body(piece)));
                }
                State::AfterChunk => match self.line(bytes, 2, <[u8]>::is_empty)? {
                    Some(true) => self.state = State::Size,
                    Some(false) => return Err(bad("a chunk is longer than its size says")),
                    None => return Ok(None),
                },
                State::Trailers => match self.line(bytes, self.head_limit, <[u8]>::is_empty)? {
                    Some(true) => return Ok(Some(self.end())),
                    Some(false) => {}
                    None => return Ok(None),
                },
                State::UntilClose => {
                    let piece = std::mem::take(bytes);
                    return Ok((!piece.is_empty()).then_some(Part::Body(piece)));
                }
            }
        }
    }

    /// The connection was closed: whether that is the proper end of an answer.
    pub(crate) fn closed(&mut self) -> bool {
        let is_end = self.state == State::UntilClose;
        if is_end {
            self.state = State::Done;
        }
        is_end
    }

    fn end(&mut self) -> Part<'static> {
        self.state = State::Done;
        Part::End
    }

    fn head(&mut self, bytes: &mut &[u8]) -> Result<Option<Head>, Fault> {
        let already = self.partial.len();
        // Only with a line break can a head have come to its end.
        let room = self.head_limit + 1 - already.min(self.head_limit);
        let more = &bytes[..bytes.len().min(room)];
        self.partial.extend_from_slice(more);
        if memchr::memchr(b'\n', more).is_some() {
            let mut fields = [httparse::EMPTY_HEADER; MOST_HEADERS];
            let mut answer = httparse::Response::new(&mut fields);
            let parsed = answer.parse(&self.partial);
            match parsed
                .map_err(|error| bad(&format!("the head of the answer is wrong: {error}")))?
            {
                httparse::Status::Complete(length) => {
                    let (head, state, keep_alive) = understood(&answer)?;
                    *bytes = &bytes[length - already..];
                    self.partial.clear();
                    (self.state, self.keep_alive) = (state, keep_alive);
                    return Ok(Some(head));
                }
                httparse::Status::Partial => {}
            }
        }
        if self.partial.len() > self.head_limit {
            let limit = self.head_limit;
            return Err(bad(&format!(
                "the head of the answer is longer than {limit} bytes"
            )));
        }
        *bytes = &[];
        Ok(None)
    }

    /// Takes a line off the beginning of `bytes` and looks at it without its end.
    fn line<T>(
        &mut self,
        bytes: &mut &[u8],
        limit: usize,
        look: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>, Fault> {
        let end = memchr::memchr(b'\n', bytes);
        let (line, rest) = match end {
            Some(end) => (&bytes[..end], &bytes[end + 1..]),
            None => (*bytes, &[][..]),
        };
        if self.partial.len() + line.len() > limit {
            return Err(bad(&format!(
                "a line of the framing is longer than {limit} bytes"
            )));
        }
        *bytes = rest;
        if end.is_none() {
            self.partial.extend_from_slice(line);
            return Ok(None);
        }
        if self.partial.is_empty() {
            return Ok(Some(look(line.strip_suffix(b"\r").unwrap_or(line))));
        }
        self.partial.extend_from_slice(line);
        let seen = look(self.partial.strip_suffix(b"\r").unwrap_or(&self.partial));
        self.partial.clear();
        Ok(Some(seen))
    }
}

/// Takes at most `most` bytes off the beginning.
fn take<'a>(bytes: &mut &'a [u8], most: u64) -> &'a [u8] {
    let n = usize::try_from(most).unwrap_or(usize::MAX).min(bytes.len());
    let (piece, rest) = bytes.split_at(n);
    *bytes = rest;
    piece
}

fn chunk_size(line: &[u8]) -> Result<u64, Fault> {
    let digits = line.split(|b| *b == b';').next().unwrap_or_default();
    let digits = std::str::from_utf8(digits.trim_ascii()).unwrap_or_default();
    let is_hex = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let size = is_hex
        .then(|| u64::from_str_radix(digits, 16).ok())
        .flatten();
    size.ok_or_else(|| bad(&format!("`{digits}` is no size of a chunk")))
}

/// What a head means for what follows it.
fn understood(answer: &httparse::Response<'_, '_>) -> Result<(Head, State, bool), Fault> {
    let mut head = Head::of_status(answer.code.unwrap_or(0));
    let (mut length, mut chunked, mut other_coding) = (None::<u64>, false, false);
    let mut keep_alive = answer.version == Some(1);
    for field in answer.headers.iter() {
        let value = String::from_utf8_lossy(field.value);
        let value = value.trim();
        let has = |word: &str| {
            value
                .split(',')
                .any(|v| v.trim().eq_ignore_ascii_case(word))
        };
        match field.name.to_ascii_lowercase().as_str() {
            "connection" if has("close") => keep_alive = false,
            "connection" if has("keep-alive") => keep_alive = true,
            "transfer-encoding" => {
                chunked = value.to_ascii_lowercase().ends_with("chunked");
                other_coding = !value.eq_ignore_ascii_case("chunked");
            }
            "content-length" => {
                let found = value
                    .parse()
                    .ok()
                    .filter(|_| value.bytes().all(|b| b.is_ascii_digit()));
                let found = found.ok_or_else(|| bad(&format!("`{value}` is no length")))?;
                if length.is_some_and(|other| other != found) {
                    return Err(bad("the answer states two different lengths"));
                }
                length = Some(found);
            }
            name => head.take(name, value),
        }
    }
    if other_coding {
        return Err(bad("the answer has a transfer coding besides `chunked`"));
    }
    let state = match (head.status, chunked, length) {
        (100..200, ..) => State::Head,
        (204 | 304, ..) => State::Length(0),
        (_, true, _) => State::Size,
        (_, false, Some(length)) => State::Length(length),
        (_, false, None) => State::UntilClose,
    };
    keep_alive &= state != State::UntilClose;
    Ok((head, state, keep_alive))
}

fn bad(message: &str) -> Fault {
    Fault {
        class: Class::BadOutput,
        message: message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EVENTS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n";

    /// What pieces mean: status, body, whether it ended, whether more may follow.
    fn read(pieces: &[&[u8]]) -> Result<(Option<u16>, Vec<u8>, bool, bool), String> {
        let mut reader = Reader::new(512);
        let (mut status, mut body, mut ended) = (None, Vec::new(), false);
        for piece in pieces {
            let mut bytes = *piece;
            while let Some(part) = reader.next(&mut bytes).map_err(|fault| fault.message)? {
                match part {
                    Part::Head(head) => status = Some(head.status),
                    Part::Body(more) => body.extend_from_slice(more),
                    Part::End => ended = true,
                }
            }
        }
        Ok((status, body, ended, reader.keep_alive()))
    }

    #[test]
    fn bodies_end_as_their_framing_says() {
        let chunked = format!(
            "{EVENTS}Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nT: 1\r\n\r\n"
        );
        assert_eq!(
            read(&[chunked.as_bytes()]),
            Ok((Some(200), b"abcde".to_vec(), true, true))
        );
        let length = format!("{EVENTS}content-length: 2\r\nconnection: close\r\n\r\nab");
        assert_eq!(
            read(&[length.as_bytes()]),
            Ok((Some(200), b"ab".to_vec(), true, false))
        );
        let open = format!("{EVENTS}\r\nab");
        assert_eq!(
            read(&[open.as_bytes()]),
            Ok((Some(200), b"ab".to_vec(), false, false))
        );
        let early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n";
        assert_eq!(read(&[early]), Ok((Some(204), Vec::new(), true, true)));
        let old = b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(read(&[old]), Ok((Some(200), Vec::new(), true, false)));
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for (text, why) in [
            (
                "SSH-2.0-x\r\n\r\n".to_owned(),
                "head of the answer is wrong",
            ),
            (
                format!("{EVENTS}X: {}\r\n\r\n", "y".repeat(600)),
                "longer than 512 bytes",
            ),
            (
                format!("{EVENTS}content-length: 1\r\ncontent-length: 2\r\n\r\n"),
                "two different lengths",
            ),
            (format!("{EVENTS}content-length: +1\r\n\r\n"), "no length"),
            (
                format!("{EVENTS}transfer-encoding: gzip, chunked\r\n\r\n"),
                "transfer coding",
            ),
            (
                format!("{EVENTS}transfer-encoding: chunked\r\n\r\nxyz\r\n"),
                "no size of a chunk",
            ),
            (
                format!("{EVENTS}transfer-encoding: chunked\r\n\r\n1\r\nabc\r\n"),
                "longer than",
            ),
            (
                format!(
                    "{EVENTS}transfer-encoding: chunked\r\n\r\n{}",
                    "0".repeat(2000)
                ),
                "longer than 1024",
            ),
            (
                "HTTP/1.1 101 Switching\r\n\r\n".to_owned(),
                "switched protocols",
            ),
        ] {
            let error = read(&[text.as_bytes()]).expect_err(&text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(
            chunks in prop::collection::vec("[a-z\r\n]{1,20}", 0..6),
            cuts in prop::collection::vec(0_usize..400, 0..30),
        ) {
            let mut text = format!("{EVENTS}transfer-encoding: chunked\r\n\r\n");
            for chunk in &chunks {
                text.push_str(&format!("{:x}\r\n{chunk}\r\n", chunk.len()));
            }
            text.push_str("0\r\n\r\n");
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|at| at.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            prop_assert_eq!(read(&pieces), Ok((Some(200), chunks.concat().into_bytes(), true, true)));
        }

        #[test]
        fn no_bytes_make_it_fall_over(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&[&bytes]);
            let _ = read(&[EVENTS.as_bytes(), b"transfer-encoding: chunked\r\n\r\n", &bytes]);
        }
    }
}
