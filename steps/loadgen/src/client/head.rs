//! What the head of an answer says, in whichever version of HTTP it came.

/// What is looked at of a head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// Whether the body claims to be an event stream.
    pub(crate) is_event_stream: bool,
    /// The content coding, if there is one that would have to be undone.
    pub(crate) coding: Option<String>,
    /// Where a redirection leads.
    pub(crate) location: Option<String>,
}

impl Head {
    /// One that says no more than this.
    pub(crate) fn told(status: u16, is_event_stream: bool) -> Self {
        Self {
            is_event_stream,
            ..Self::of_status(status)
        }
    }

    pub(super) fn of_status(status: u16) -> Self {
        Self {
            status,
            is_event_stream: false,
            coding: None,
            location: None,
        }
    }

    /// The head of an answer of HTTP/2.
    pub(super) fn of_parts(parts: &http::response::Parts) -> Self {
        let mut head = Self::of_status(parts.status.as_u16());
        for (name, value) in &parts.headers {
            head.take(
                name.as_str(),
                String::from_utf8_lossy(value.as_bytes()).trim(),
            );
        }
        head
    }

    /// Takes a field, whose name is in lower case.
    pub(super) fn take(&mut self, name: &str, value: &str) {
        match name {
            "content-type" => {
                self.is_event_stream = value.to_ascii_lowercase().starts_with("text/event-stream");
            }
            "content-encoding" if !value.eq_ignore_ascii_case("identity") => {
                self.coding = Some(value.to_owned());
            }
            "location" => self.location = Some(value.to_owned()),
            _ => {}
        }
    }
}
