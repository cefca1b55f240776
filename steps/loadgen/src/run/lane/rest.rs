//! How long a lane rests between reading its sockets where the kernel takes the time: so long that
//! there may be several packets to read at one go, but over no arrival.
//!
//! Of several packets of one connection the kernel tells the last one's time only: where that happens
//! it rests less, to nothing in the end. Pure: instants in, an instant out.

/// The longest, in nanoseconds.
const LONGEST: u64 = 1_000_000;
/// By how much longer it rests next time if nothing spoke against it, in nanoseconds.
const MORE: u64 = 20_000;

/// How a lane rests.
#[derive(Debug)]
pub(super) struct Rest {
    /// Until when it rested last.
    until: u64,
    /// How long it rests now, in nanoseconds.
    length: u64,
    /// Whether a read has brought several events of one answer since then.
    has_merged: bool,
}

impl Rest {
    pub(super) fn new() -> Self {
        Self {
            until: 0,
            length: LONGEST,
            has_merged: false,
        }
    }

    /// A read has brought so many events of one answer.
    pub(super) fn saw(&mut self, events: usize) {
        self.has_merged |= events > 1;
    }

    /// Until when to rest, if at all; `due` is when the next request is.
    pub(super) fn next(&mut self, now: u64, due: Option<u64>) -> Option<u64> {
        self.length = match std::mem::take(&mut self.has_merged) {
            true => self.length / 2,
            false => LONGEST.min(self.length + MORE),
        };
        let until = self.until + self.length;
        self.until = until.max(now);
        let until = due.map_or(until, |due| due.min(until));
        (until > now).then_some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn it_rests_a_millisecond_at_most_and_over_no_arrival() {
        let mut rest = Rest::new();
        // The last rest was long ago: what came first is not kept waiting.
        assert_eq!(rest.next(50 * MS, None), None);
        assert_eq!(rest.next(50 * MS + 10, None), Some(51 * MS));
        assert_eq!(
            rest.next(51 * MS + 10, Some(51 * MS + 20)),
            Some(51 * MS + 20)
        );
        assert_eq!(rest.next(51 * MS + 30, Some(51 * MS + 30)), None);
    }

    #[test]
    fn it_rests_less_where_packets_run_together_and_slowly_more_again() {
        let mut rest = Rest::new();
        let mut length = |merged: usize| {
            rest.saw(1);
            rest.saw(merged);
            // Asked right after the last rest it says how long the next one is.
            let now = rest.until;
            rest.next(now, None).map_or(0, |until| until - now)
        };
        assert_eq!(length(1), MS);
        assert_eq!([length(2), length(7)], [MS / 2, MS / 4]);
        assert_eq!([length(1), length(1)], [MS / 4 + MORE, MS / 4 + 2 * MORE]);
        for _ in 0..30 {
            length(2);
        }
        assert_eq!(length(2), 0);
        assert_eq!(length(1), MORE);
    }
}
