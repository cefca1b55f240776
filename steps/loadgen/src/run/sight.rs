//! What was seen of one answer so far.
//!
//! Knows the order of things in an answer. Pure: bytes and instants in, a record out. What was
//! seen stays even if the exchange is cut off, so a failed request keeps its instants.

use crate::{
    Class, Event, Record, RunPlan, SseError, SseParser,
    client::Head,
    protocol::{Answer, Decoder, Fault, excerpt},
};

/// How much of an error's body is read, in bytes.
const ERROR_BODY: usize = 8192;

impl From<SseError> for Fault {
    fn from(error: SseError) -> Self {
        Self {
            class: Class::BadOutput,
            message: error.to_string(),
        }
    }
}

/// What the body of an answer is taken for.
enum Body {
    /// Its head has not come.
    Unknown,
    Events,
    /// The words of a server that has no answer: what they are told as, and how they begin.
    Words {
        class: Class,
        what: String,
        text: Vec<u8>,
    },
}

/// What was seen of an answer.
pub(super) struct Sight {
    pub(super) dispatched: u64,
    pub(super) connected: Option<u64>,
    pub(super) attempts: u32,
    /// When content was read last.
    pub(super) heard: Option<u64>,
    headers: Option<u64>,
    events: Vec<Event>,
    decoder: Decoder,
    /// Whether the server says why an answer ended.
    tells_finish: bool,
    parser: SseParser,
    text: blake3::Hasher,
    body: Body,
    /// Bytes of body that may still come.
    allowed: u64,
    limit: u64,
}

impl Sight {
    /// `answer` says in which form the answer is kept.
    pub(super) fn new(dispatched: u64, plan: &RunPlan, answer: Answer) -> Self {
        let limits = &plan.limits;
        Self {
            dispatched,
            connected: None,
            attempts: 0,
            heard: None,
            headers: None,
            events: Vec::new(),
            decoder: Decoder::new(plan.target.protocol, answer),
            tells_finish: plan.target.protocol.tells_finish(),
            parser: SseParser::new(limits.line, limits.event),
            text: blake3::Hasher::new(),
            body: Body::Unknown,
            allowed: limits.body,
            limit: limits.body,
        }
    }

    /// Takes the head of the answer, which was read at `at`.
    pub(super) fn head(&mut self, head: Head, at: u64) {
        self.headers = Some(self.not_before(at));
        let status = head.status;
        let words = |class, what: String| Body::Words {
            class,
            what,
            text: Vec::new(),
        };
        self.body = match head {
            Head {
                status: 200..300,
                is_event_stream: true,
                coding: None,
                ..
            } => Body::Events,
            Head {
                status: 200..300,
                coding: Some(coding),
                ..
            } => words(
                Class::BadOutput,
                format!("the answer is coded as `{coding}`, which was not asked for: {status}"),
            ),
            Head {
                status: 200..300, ..
            } => words(
                Class::BadOutput,
                format!("expected an event stream but the server answered {status}"),
            ),
            Head {
                location: Some(to), ..
            } => words(
                Class::HttpStatus(status),
                format!("the server answered {status} and leads to `{to}`, which is not followed"),
            ),
            _ => words(
                Class::HttpStatus(status),
                format!("the server answered {status}"),
            ),
        };
    }

    /// Takes a piece of the body that was read at `at`; everything in one piece came at the same
    /// time. Returns the tokens that it carried.
    pub(super) fn piece(&mut self, piece: &[u8], at: u64) -> Result<u64, Fault> {
        let left = self.allowed.checked_sub(piece.len() as u64);
        self.allowed = left.ok_or_else(|| Fault {
            class: Class::BadOutput,
            message: format!("the answer is larger than {} bytes", self.limit),
        })?;
        match &mut self.body {
            Body::Events => self.events(piece, at),
            Body::Words { text, .. } => {
                text.extend_from_slice(&piece[..piece.len().min(ERROR_BODY)]);
                match text.len() < ERROR_BODY {
                    true => Ok(0),
                    false => Err(self.words()),
                }
            }
            Body::Unknown => Ok(0),
        }
    }

    /// Two clocks may differ by what was seen last: nothing comes before what came before it.
    pub(super) fn not_before(&self, at: u64) -> u64 {
        let last = self.heard.or(self.headers).unwrap_or(self.dispatched);
        at.max(last)
    }

    fn events(&mut self, piece: &[u8], at: u64) -> Result<u64, Fault> {
        let at = self.not_before(at);
        let Self {
            events,
            decoder,
            text,
            heard,
            parser,
            ..
        } = self;
        let mut tokens = 0;
        parser.push(piece, |event| {
            if decoder.ended {
                return Ok(());
            }
            let content = decoder.event(event, |piece| {
                text.update(piece.as_bytes());
            });
            if let Some(carried) = content? {
                *heard = Some(at);
                events.push(Event {
                    at,
                    tokens: carried,
                });
                tokens += u64::from(carried);
            }
            Ok::<_, Fault>(())
        })?;
        Ok(tokens)
    }

    /// Events with content so far.
    pub(super) fn n_events(&self) -> usize {
        self.events.len()
    }

    /// Whether the server said that nothing more follows.
    pub(super) fn has_ended(&self) -> bool {
        self.decoder.ended
    }

    /// Judges an answer that came to a proper end.
    pub(super) fn verdict(&mut self) -> Result<(), Fault> {
        if !matches!(self.body, Body::Events) {
            return Err(self.words());
        }
        if self.decoder.finish.is_none() && self.tells_finish {
            let message = "the stream ended without a finish reason".to_owned();
            return Err(Fault {
                class: Class::Truncated,
                message,
            });
        }
        if self.events.is_empty() {
            let message = "the answer has no content".to_owned();
            return Err(Fault {
                class: Class::BadOutput,
                message,
            });
        }
        Ok(())
    }

    /// Judges an answer that was cut off: by whom, `why` says.
    pub(super) fn cut(&mut self, why: String) -> Fault {
        match self.body {
            Body::Words { .. } => self.words(),
            _ => Fault {
                class: Class::Truncated,
                message: why,
            },
        }
    }

    /// What an answer that is no stream of events has to say.
    fn words(&mut self) -> Fault {
        match std::mem::replace(&mut self.body, Body::Unknown) {
            Body::Words { class, what, text } => Fault {
                class,
                message: match excerpt(&text) {
                    said if said.is_empty() => what,
                    said => format!("{what}: {said}"),
                },
            },
            Body::Unknown | Body::Events => Fault {
                class: Class::Truncated,
                message: "the answer has no head".to_owned(),
            },
        }
    }

    /// Fills in what was seen, and returns what was kept of the answer.
    pub(super) fn describe(self, record: &mut Record) -> Answer {
        record.dispatched = Some(self.dispatched);
        record.connected = self.connected;
        record.attempts = self.attempts;
        record.headers = self.headers;
        record.text_digest =
            (!self.events.is_empty()).then(|| self.text.finalize().to_hex().to_string());
        record.events = self.events;
        record.usage = self.decoder.usage;
        record.finish = self.decoder.finish;
        self.decoder.answer
    }
}
