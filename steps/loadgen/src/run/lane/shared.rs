//! Connections of HTTP/2: many exchanges over one, as many as the server allows.
//!
//! A request goes over a connection that has room, otherwise waits for the one that is being made,
//! otherwise another one is made: the server's limit shows as more connections, never as a queue
//! inside the client.

#![expect(
    clippy::vec_box,
    reason = "exchanges are boxed everywhere else, and move from one list to another"
)]

use std::os::fd::AsFd;

use rustix::event::epoll::{self, EventData, EventFlags};

use super::connection::Exchange;
use super::lateness::{Late, of_answer};
use super::{LAST_CHUNK, Lane, SHARED, name, next, received};
use crate::Outcome;
use crate::client::{Broken, Http2, Life, RequestHead, Socket, StreamPart};
use crate::clock::nanoseconds;
use crate::protocol::Fault;
use crate::run::gauge::Count;

/// Requests that wait for one connection to be made, before the server has said how many it takes.
pub(super) const MOST_WAITING: usize = 100;

/// What a stream is at.
pub(super) enum Stream {
    /// It carries an exchange, over a connection that was made for it or was there.
    Busy {
        exchange: Box<Exchange>,
        fresh: bool,
    },
    /// The exchange is over, the end of its body is awaited until this instant.
    Draining { until: u64 },
}

enum Link {
    /// It is being made, to the server's address of this number.
    Connecting { socket: Socket, address: usize },
    /// It is there; open once the server has said what it allows.
    Made {
        http2: Box<Http2<Stream>>,
        is_open: bool,
    },
}

/// A connection that carries many exchanges.
pub(super) struct Shared {
    /// What the system calls it.
    name: u64,
    link: Link,
    /// When it was begun to be made.
    since: u64,
    /// Exchanges that it is made for.
    waiting: Vec<Box<Exchange>>,
    /// What the system is asked to tell of it.
    interest: EventFlags,
}

impl Shared {
    fn http2(&mut self) -> Option<&mut Http2<Stream>> {
        match &mut self.link {
            Link::Connecting { .. } => None,
            Link::Made { http2, .. } => Some(http2),
        }
    }

    fn is_open(&self) -> bool {
        matches!(self.link, Link::Made { is_open: true, .. })
    }

    fn has_room(&self) -> bool {
        matches!(&self.link, Link::Made { http2, is_open: true } if http2.has_room())
    }

    /// Every exchange that it still carries or is made for.
    fn into_exchanges(self) -> Vec<Box<Exchange>> {
        let streams = match self.link {
            Link::Connecting { .. } => None,
            Link::Made { http2, .. } => Some(http2.into_all()),
        };
        let busy = streams.into_iter().flatten().filter_map(|of| match of {
            Stream::Busy { exchange, .. } => Some(exchange),
            Stream::Draining { .. } => None,
        });
        self.waiting.into_iter().chain(busy).collect()
    }
}

impl Lane {
    /// Sends an exchange over a connection with room, or lets it wait for one.
    pub(super) fn send_shared(&mut self, exchange: Box<Exchange>) {
        let with_room = self.shared.iter().find(|(_, shared)| shared.has_room());
        if let Some((at, _)) = with_room {
            self.send_over(at, exchange, false);
            return self.drive(at);
        }
        let most = self.most_waiting;
        let may_wait = |s: &Shared| !s.is_open() && s.waiting.len() < most;
        let making = self.shared.iter_mut().find(|(_, s)| may_wait(s));
        match making {
            Some((_, shared)) => shared.waiting.push(exchange),
            None => self.connect_shared(vec![exchange], 0, self.context.clock.now()),
        }
    }

    /// Makes a connection, begun to be made at `since`, to the first of the server's addresses from
    /// number `address` on that takes one.
    fn connect_shared(&mut self, waiting: Vec<Box<Exchange>>, mut address: usize, since: u64) {
        let context = self.context.clone();
        let mut failed = None;
        while let Some(made) = context.wire.connect(address) {
            let made = made.and_then(|socket| self.register(socket, address, since));
            match made {
                Ok(at) => {
                    self.shared[at].waiting = waiting;
                    return;
                }
                Err(fault) => failed = Some(fault),
            }
            address += 1;
        }
        let none = || std::io::Error::other("its name has no address");
        let fault = failed.unwrap_or_else(|| context.wire.fault(&none()));
        self.fail(waiting, &fault);
    }

    /// Gives a socket that is being connected its place.
    fn register(&mut self, socket: Socket, address: usize, since: u64) -> Result<usize, Fault> {
        self.generation = next(self.generation);
        let entry = self.shared.vacant_entry();
        let name = name(entry.key(), self.generation) | SHARED;
        let interest = EventFlags::OUT;
        epoll::add(&self.epoll, &socket, EventData::new_u64(name), interest)
            .map_err(|error| self.context.wire.fault(&error.into()))?;
        let at = entry.key();
        entry.insert(Shared {
            name,
            link: Link::Connecting { socket, address },
            since,
            waiting: Vec::new(),
            interest,
        });
        Ok(at)
    }

    /// Something came on a connection, or there is room to write, or it broke.
    pub(super) fn shared_ready(&mut self, name: u64, at: usize) {
        let Some(shared) = self.shared.get(at).filter(|shared| shared.name == name) else {
            return;
        };
        match shared.link {
            Link::Connecting { .. } => self.greet(at),
            Link::Made { .. } => self.drive(at),
        }
    }

    /// Begins to speak once the socket is connected.
    fn greet(&mut self, at: usize) {
        let Some(shared) = self.shared.get_mut(at) else {
            return;
        };
        let Link::Connecting { socket, .. } = &mut shared.link else {
            return;
        };
        match socket.is_connected() {
            Ok(true) => {}
            Ok(false) => return self.want_shared(at),
            Err(error) => return self.not_connected(at, &error),
        }
        let Shared {
            link,
            waiting,
            since,
            ..
        } = self.shared.remove(at);
        let Link::Connecting { socket, .. } = link else {
            return self.fail(waiting, &self.no_http2("no connection"));
        };
        if !socket.speaks_http2() {
            return self.fail(
                waiting,
                &self.no_http2("the server did not choose it (ALPN)"),
            );
        }
        match Http2::new(socket, self.context.plan.limits.head) {
            Ok(http2) => self.greeted(http2, waiting, since),
            Err(error) => self.fail(waiting, &self.context.wire.fault(&error)),
        }
    }

    fn greeted(&mut self, http2: Http2<Stream>, waiting: Vec<Box<Exchange>>, since: u64) {
        self.generation = next(self.generation);
        let entry = self.shared.vacant_entry();
        let name = name(entry.key(), self.generation) | SHARED;
        let (at, interest) = (entry.key(), EventFlags::IN);
        // It fails only for a socket that is not there, which reading finds out.
        let _ =
            http2.with_fd(|fd| epoll::modify(&self.epoll, fd, EventData::new_u64(name), interest));
        entry.insert(Shared {
            name,
            link: Link::Made {
                http2: Box::new(http2),
                is_open: false,
            },
            since,
            waiting,
            interest,
        });
        self.drive(at);
    }

    fn not_connected(&mut self, at: usize, error: &std::io::Error) {
        let Shared {
            link,
            waiting,
            since,
            ..
        } = self.shared.remove(at);
        let fault = self.context.wire.fault(error);
        match link {
            Link::Connecting { address, .. } if self.context.wire.has(address + 1) => {
                self.connect_shared(waiting, address + 1, since);
            }
            _ => self.fail(waiting, &fault),
        }
    }

    /// Reads and writes what can be, and takes what came.
    fn drive(&mut self, at: usize) {
        while let Some(http2) = self.http2(at) {
            let life = http2.drive();
            let now = self.context.clock.now();
            let Some(http2) = self.http2(at) else { return };
            let moment = http2.received();
            let ready = http2.ready();
            let now = received(moment, self.beside_wall, now);
            let is_news = !ready.is_empty() | self.settle(at, now);
            for key in ready {
                self.take_parts(at, key, now);
            }
            if let Life::Over(why) = life {
                return self.over(at, &why);
            }
            // What was taken or sent has to be acknowledged or written.
            if !is_news {
                break;
            }
        }
        self.want_shared(at);
    }

    fn http2(&mut self, at: usize) -> Option<&mut Http2<Stream>> {
        self.shared.get_mut(at)?.http2()
    }

    /// Opens a connection whose server has said by now what it allows, and sends what has waited
    /// for that; whether it did.
    fn settle(&mut self, at: usize, now: u64) -> bool {
        let Some(shared) = self.shared.get_mut(at) else {
            return false;
        };
        match &mut shared.link {
            Link::Made { http2, is_open } if !*is_open && http2.is_settled() => {
                *is_open = true;
                self.most_waiting = http2.most_streams();
            }
            _ => return false,
        }
        let mut waiting = std::mem::take(&mut shared.waiting).into_iter();
        while self.shared.get(at).is_some_and(Shared::has_room)
            && let Some(mut exchange) = waiting.next()
        {
            exchange.sight.connected = Some(now);
            self.send_over(at, exchange, true);
        }
        self.again.extend(waiting);
        true
    }

    /// Sends an exchange over a connection that has room.
    fn send_over(&mut self, at: usize, mut exchange: Box<Exchange>, fresh: bool) {
        let RequestHead::Two(request) = &exchange.head else {
            return self.fail(vec![exchange], &self.no_http2("the request is of HTTP/1.1"));
        };
        let (request, body) = (*request.clone(), exchange.body.clone());
        exchange.sight.attempts += 1;
        let Some(http2) = self.http2(at) else {
            return self.again.push_back(exchange);
        };
        let unsent = http2.send(request, body, Stream::Busy { exchange, fresh });
        if let Err(Stream::Busy { mut exchange, .. }) = unsent {
            exchange.sight.attempts -= 1;
            self.again.push_back(exchange);
        }
    }

    /// Takes what came of one answer.
    fn take_parts(&mut self, at: usize, key: usize, now: u64) {
        let context = self.context.clone();
        while let Some(http2) = self.http2(at)
            && let Some(part) = http2.next(key)
        {
            let is_end = matches!(part, Ok(StreamPart::End) | Err(_));
            let result = match (http2.of(key), part) {
                (Some(Stream::Busy { exchange, .. }), Ok(part)) => {
                    exchange.take_part(part, now, &context.gauge.tokens)
                }
                (Some(Stream::Busy { .. }), Err(broken)) => {
                    return self.broke_off(at, key, broken, now);
                }
                (Some(Stream::Draining { .. }), _) if is_end => {
                    http2.forget(key);
                    None
                }
                _ => None,
            };
            if let Some(result) = result {
                self.finish_stream(at, key, result, is_end, now);
            }
        }
    }

    /// An exchange is over; its stream is, too, or is given the time to end.
    fn finish_stream(
        &mut self,
        at: usize,
        key: usize,
        result: Result<(), Fault>,
        is_end: bool,
        now: u64,
    ) {
        let Some(http2) = self.http2(at) else { return };
        let until = now + nanoseconds(LAST_CHUNK);
        let of = match result.is_ok() && !is_end {
            true => http2
                .of(key)
                .map(|of| std::mem::replace(of, Stream::Draining { until })),
            false => http2.forget(key),
        };
        if let Some(Stream::Busy { exchange, .. }) = of {
            self.deliver(exchange, result.map(|()| Outcome::Completed), now);
        }
    }

    /// A stream has broken off: sends its request again where the server did nothing for it.
    fn broke_off(&mut self, at: usize, key: usize, broken: Broken, now: u64) {
        let of = self.http2(at).and_then(|http2| http2.forget(key));
        let Some(Stream::Busy {
            mut exchange,
            fresh,
        }) = of
        else {
            return;
        };
        let is_first = !exchange.answered && exchange.sight.attempts == 1;
        let is_stale = !fresh && !broken.is_reset;
        if is_first && (is_stale || broken.is_unprocessed) {
            exchange.rewind();
            exchange.sight.connected = None;
            // Not now: what else the connection has brought comes first.
            return self.again.push_back(exchange);
        }
        let fault = exchange.sight.cut(broken.why);
        self.deliver(exchange, Err(fault), now);
    }

    /// A connection is over.
    fn over(&mut self, at: usize, why: &str) {
        let Some(shared) = self.shared.try_remove(at) else {
            return;
        };
        let fault = self.no_http2(why);
        self.fail(shared.into_exchanges(), &fault);
    }

    fn no_http2(&self, why: &str) -> Fault {
        let why = format!("no HTTP/2 came about: {why}");
        self.context.wire.fault(&std::io::Error::other(why))
    }

    fn fail(&mut self, exchanges: Vec<Box<Exchange>>, fault: &Fault) {
        let now = self.context.clock.now();
        for exchange in exchanges {
            self.deliver(exchange, Err(fault.clone()), now);
        }
    }

    /// Asks the system for what a connection waits for.
    fn want_shared(&mut self, at: usize) {
        let Some(shared) = self.shared.get_mut(at) else {
            return;
        };
        let wants_write = match &shared.link {
            Link::Connecting { socket, .. } => socket.wants_write(),
            Link::Made { http2, .. } => http2.wants_write(),
        };
        let mut interest = EventFlags::IN;
        if wants_write {
            interest |= EventFlags::OUT;
        }
        if interest == shared.interest {
            return;
        }
        shared.interest = interest;
        let data = EventData::new_u64(shared.name);
        // It fails only for a socket that is not there, which reading finds out.
        let _ = match &shared.link {
            Link::Connecting { socket, .. } => {
                epoll::modify(&self.epoll, socket.as_fd(), data, interest)
            }
            Link::Made { http2, .. } => {
                http2.with_fd(|fd| epoll::modify(&self.epoll, fd, data, interest))
            }
        };
    }

    /// Ends what is late.
    pub(super) fn look_at_shared(&mut self, now: u64, too_late: &Fault) {
        let timeouts = self.context.plan.timeouts;
        let connections: Vec<usize> = self.shared.iter().map(|(at, _)| at).collect();
        for at in connections {
            let shared = &self.shared[at];
            let since = now.saturating_sub(shared.since);
            if !shared.is_open() && since >= nanoseconds(timeouts.connect) {
                let exchanges = self.shared.remove(at).into_exchanges();
                self.fail(exchanges, too_late);
                continue;
            }
            let is_late = |e: &mut Box<Exchange>| of_answer(&e.sight, now, &timeouts).is_some();
            let waited: Vec<_> = self.shared[at].waiting.extract_if(.., is_late).collect();
            for exchange in waited {
                let fault = Late::Whole.fault(&timeouts, too_late);
                let fault = fault.unwrap_or_else(|| too_late.clone());
                self.deliver(exchange, Err(fault), now);
            }
            let mut is_late = false;
            for (key, late) in self.late_streams(at, now) {
                is_late = true;
                let of = self.http2(at).and_then(|http2| http2.forget(key));
                if let Some(Stream::Busy { exchange, .. }) = of
                    && let Some(fault) = late.fault(&timeouts, too_late)
                {
                    self.deliver(exchange, Err(fault), now);
                }
            }
            if is_late {
                // The server is told that nobody waits for the rest.
                self.drive(at);
            }
        }
    }

    fn late_streams(&mut self, at: usize, now: u64) -> Vec<(usize, Late)> {
        let timeouts = self.context.plan.timeouts;
        let late = |of: &Stream| match of {
            Stream::Draining { until } => (now >= *until).then_some(Late::Draining),
            Stream::Busy { exchange, .. } => of_answer(&exchange.sight, now, &timeouts),
        };
        let Some(http2) = self.http2(at) else {
            return Vec::new();
        };
        let all = http2.all();
        all.filter_map(|(key, of)| Some((key, late(of)?))).collect()
    }

    /// Breaks off everything that is under way over shared connections.
    pub(super) fn drop_shared(&mut self, now: u64) {
        for exchange in std::mem::take(&mut self.again) {
            self.deliver(exchange, Ok(Outcome::Dropped), now);
        }
        for (_, shared) in std::mem::take(&mut self.shared) {
            for exchange in shared.into_exchanges() {
                self.deliver(exchange, Ok(Outcome::Dropped), now);
            }
        }
    }
}

impl Exchange {
    /// Takes a part of the answer that came at `now`; the result once it is over.
    fn take_part(
        &mut self,
        part: StreamPart,
        now: u64,
        tokens: &Count,
    ) -> Option<Result<(), Fault>> {
        self.answered = true;
        match part {
            StreamPart::Head(head) => self.sight.head(head, now),
            StreamPart::Body(piece) => match self.sight.piece(&piece, now) {
                Ok(more) => tokens.add(more),
                Err(fault) => return Some(Err(fault)),
            },
            StreamPart::End => return Some(self.sight.verdict()),
        }
        self.sight.has_ended().then(|| self.sight.verdict())
    }
}
