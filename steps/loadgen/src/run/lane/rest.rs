//! How long a lane rests between reading its sockets where the kernel takes the time: so long that
//! there may be several packets to read at one go, but over no arrival.
//!
//! Who waits for an answer before asking again is held up so long, which is why it is never more than a
//! small share of the shortest time to a first token. Of several packets of one connection the kernel
//! tells the last one's time only: where that happens it rests less, to nothing in the end. Pure:
//! instants in, an instant out.

/// The longest, in nanoseconds.
const LONGEST: u64 = 5_000_000;
/// The share of the shortest time to a first token that it rests at most: one in so many.
const SHARE: u64 = 50;
/// By how much longer it rests next time if nothing spoke against it, in nanoseconds.
const MORE: u64 = 20_000;

/// How a lane rests.
#[derive(Debug, Default)]
pub(super) struct Rest {
    /// Until when it rested last.
    until: u64,
    /// How long it rests now, in nanoseconds.
    length: u64,
    /// How long it may rest, in nanoseconds; `None` until a first token has come.
    most: Option<u64>,
    /// Whether a read has brought several events of one answer since then.
    has_merged: bool,
    /// Whether the last look at the system told of as many sockets as it could: there may be more.
    has_more: bool,
}

impl Rest {
    /// A look at the system has told of `n` sockets, of which it tells `most` at once.
    pub(super) fn looked(&mut self, n: usize, most: usize) {
        self.has_more = n >= most;
    }

    /// A read has brought so many events of one answer.
    pub(super) fn saw(&mut self, events: usize) {
        self.has_merged |= events > 1;
    }

    /// A first token has come so long after its request, in nanoseconds.
    pub(super) fn answered_after(&mut self, ttft: u64) {
        let most = (ttft / SHARE).min(LONGEST);
        self.most = Some(self.most.map_or(most, |known| known.min(most)));
    }

    /// Until when to rest, if at all; `due` is when the next request is.
    ///
    /// Never while there may be more to read: of a thousand sockets most would wait through one rest after the other
    /// until their next packet had come.
    pub(super) fn next(&mut self, now: u64, due: Option<u64>) -> Option<u64> {
        if self.has_more {
            return None;
        }
        self.length = match std::mem::take(&mut self.has_merged) {
            true => self.length / 2,
            false => self.length + MORE,
        };
        self.length = self.length.min(self.most?);
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

    /// Rests so often.
    fn often(rest: &mut Rest, times: usize) {
        for _ in 0..times {
            length(rest);
        }
    }

    /// How long the next one is, asked right after the last.
    fn length(rest: &mut Rest) -> u64 {
        let now = rest.until;
        rest.next(now, None).map_or(0, |until| until - now)
    }

    #[test]
    fn it_rests_over_no_arrival() {
        let mut rest = Rest::default();
        rest.answered_after(50 * MS);
        often(&mut rest, 100);
        // The last rest was long ago: what came first is not kept waiting.
        assert_eq!(rest.next(500 * MS, None), None);
        assert_eq!(rest.next(500 * MS + 10, None), Some(501 * MS));
        assert_eq!(
            rest.next(501 * MS + 10, Some(501 * MS + 20)),
            Some(501 * MS + 20)
        );
        assert_eq!(rest.next(501 * MS + 30, Some(501 * MS + 30)), None);
    }

    #[test]
    fn it_rests_a_small_share_of_the_shortest_time_to_a_first_token_at_most() {
        let mut rest = Rest::default();
        assert_eq!(length(&mut rest), 0, "before any first token");
        for (ttft, most) in [(1000 * MS, 5 * MS), (100 * MS, 2 * MS), (400 * MS, 2 * MS)] {
            rest.answered_after(ttft);
            often(&mut rest, 300);
            assert_eq!(length(&mut rest), most, "{ttft}");
        }
        rest.answered_after(49);
        assert_eq!(length(&mut rest), 0);
    }

    #[test]
    fn it_does_not_rest_before_everything_that_has_come_is_read() {
        let mut rest = Rest::default();
        rest.answered_after(100 * MS);
        often(&mut rest, 100);
        for _ in 0..16 {
            rest.looked(64, 64);
            assert_eq!(length(&mut rest), 0);
        }
        rest.looked(63, 64);
        assert_eq!(length(&mut rest), 2 * MS);
    }

    #[test]
    fn it_rests_less_where_packets_run_together_and_slowly_more_again() {
        let mut rest = Rest::default();
        rest.answered_after(50 * MS);
        often(&mut rest, 100);
        let mut after = |merged: usize| {
            rest.saw(1);
            rest.saw(merged);
            length(&mut rest)
        };
        assert_eq!(after(1), MS);
        assert_eq!([after(2), after(7)], [MS / 2, MS / 4]);
        assert_eq!([after(1), after(1)], [MS / 4 + MORE, MS / 4 + 2 * MORE]);
        for _ in 0..30 {
            after(2);
        }
        assert_eq!(after(2), 0);
        assert_eq!(after(1), MORE);
    }
}
