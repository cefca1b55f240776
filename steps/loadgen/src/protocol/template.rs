//! The shape that the events of one answer have in common.
//!
//! Servers repeat an event a thousand times and change nothing but the piece of text. Once one was
//! understood, another that has the same bytes before and after its text means the same, and need
//! not be parsed: JSON of the same bytes around a string that ends where the other did has the same
//! structure.

/// What stands before and after the text of an event that was understood.
#[derive(Debug, Default)]
pub(super) struct Template {
    before: Vec<u8>,
    after: Vec<u8>,
}

impl Template {
    /// Learns from an event whose only meaning is `text`, if that lies in it as it is: one in which
    /// the text is written with escapes teaches nothing.
    pub(super) fn learn(&mut self, data: &[u8], text: &str) {
        let Some(start) = (text.as_ptr() as usize).checked_sub(data.as_ptr() as usize) else {
            return;
        };
        if let (Some(before), Some(after)) = (data.get(..start), data.get(start + text.len()..))
            && before.last() == Some(&b'"')
            && after.first() == Some(&b'"')
        {
            self.before.clear();
            self.before.extend_from_slice(before);
            self.after.clear();
            self.after.extend_from_slice(after);
        }
    }

    /// The text of an event of this shape; `None` if it has another, or text that needs a look.
    pub(super) fn text<'a>(&self, data: &'a [u8]) -> Option<&'a str> {
        if self.before.is_empty() {
            return None;
        }
        let text = data
            .strip_prefix(self.before.as_slice())?
            .strip_suffix(self.after.as_slice())?;
        let is_plain = |b: &u8| *b != b'"' && *b != b'\\' && *b >= b' ';
        (!text.is_empty() && text.iter().all(is_plain))
            .then(|| std::str::from_utf8(text).ok())
            .flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_text_may_differ() {
        let mut template = Template::default();
        assert_eq!(template.text(b"{\"text\":\"b\"}"), None);
        let data = "{\"id\":\"1\",\"text\":\"a\",\"x\":1}";
        let at = data.find(":\"a").unwrap() + 2;
        template.learn(data.as_bytes(), &data[at..=at]);
        let text = |data: &str| template.text(data.as_bytes()).map(str::to_owned);
        assert_eq!(
            text("{\"id\":\"1\",\"text\":\"é b\",\"x\":1}"),
            Some("é b".into())
        );
        for other in [
            "{\"id\":\"2\",\"text\":\"b\",\"x\":1}",
            "{\"id\":\"1\",\"text\":\"b\",\"x\":2}",
            "{\"id\":\"1\",\"text\":\"\",\"x\":1}",
            "{\"id\":\"1\",\"text\":\"\\n\",\"x\":1}",
            "{\"id\":\"1\",\"text\":\"b\",\"finish\":\"length\",\"x\":1}",
        ] {
            assert_eq!(text(other), None, "{other}");
        }
    }

    #[test]
    fn text_from_elsewhere_teaches_nothing() {
        let mut template = Template::default();
        template.learn(b"{\"text\":\"a\"}", &String::from("a"));
        assert_eq!(template.text(b"{\"text\":\"b\"}"), None);
    }
}
