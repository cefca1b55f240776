//! One thread of the client: keeps its part of the schedule, and reads its connections.
//!
//! A loop around one epoll. It sleeps until the next arrival, with the kernel's own precision, or
//! until bytes have come; the instant of an event is taken right after the read that brought it.
//! There is no task and no queue between the bytes and the one who takes the time, and a batch
//! of bytes never holds an arrival up: what is due is sent between two reads.

mod connection;
mod feed;
mod lateness;
mod offline;
mod rest;
mod shared;

use std::collections::VecDeque;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use slab::Slab;
use tokio::sync::mpsc::UnboundedSender;

use super::context::{Context, Job};
use super::sight::Sight;
use crate::client::Reader;
use crate::clock::{BesideWall, Moment, nanoseconds};
use crate::protocol::Fault;
use crate::{EventTime, HttpVersion, Outcome, Record};
use connection::{Connection, Exchange, Phase};
use rest::Rest;
use shared::Shared;

pub(in crate::run) use feed::{Arrivals, Feed, Instants, Users};
pub(in crate::run) use offline::play;
pub use offline::{OfflineServer, Piece, Told};

/// Connections kept for reuse; a closed loop of more users than this reconnects.
const MOST_IDLE: usize = 16_384;
/// How long to wait, behind `[DONE]`, for the end of the body that makes a connection reusable;
/// usually it is in the same packet.
const LAST_CHUNK: Duration = Duration::from_millis(100);
/// How long a user waits when no connection came to be, or in made-up time when the answer took none,
/// nanoseconds: otherwise users of a server that is gone would do nothing but try.
const REFUSED: u64 = 10_000_000;
/// What one read takes at most, bytes.
const READ: usize = 64 << 10;
/// Sockets that one look at the system tells of.
const EVENTS: usize = 64;
/// Records are passed on so many at a time, or when timeouts are looked at: whoever takes them has
/// to be woken up.
const RECORDS: usize = 128;
/// Names the events that are no connection's.
const WAKE: u64 = u64::MAX;
const TIMER: u64 = u64::MAX - 1;
/// A body is rendered ahead only so long before the next instant: one takes less, short of prompts
/// of hundreds of thousands of tokens.
const MARGIN: Duration = Duration::from_millis(1);
/// The longest that a lane sleeps: what nobody tells it, it looks up.
const LONGEST_SLEEP: Duration = Duration::from_millis(100);

/// A thread's own state.
pub(super) struct Lane {
    context: Arc<Context>,
    feed: Feed,
    /// Records that were not passed on yet.
    done: Vec<Record>,
    /// Takes records; as many as requests, all of which are kept anyway.
    records: UnboundedSender<Vec<Record>>,
    epoll: OwnedFd,
    /// Wakes the lane at the instant of an arrival.
    timer: OwnedFd,
    /// That instant, in nanoseconds of the run.
    armed: Option<u64>,
    connections: Slab<Connection>,
    /// Connections that carry many exchanges each.
    shared: Slab<Shared>,
    /// Exchanges that look for another one of those.
    again: VecDeque<Box<Exchange>>,
    /// How many of them wait for one that is being made: as many as the server last allowed.
    most_waiting: usize,
    /// Last in, first out, so that few connections stay warm rather than many lukewarm.
    idle: Vec<usize>,
    buffer: Vec<u8>,
    /// Requests that got a place under the cap and are to be sent next.
    admitted: VecDeque<Job>,
    /// Exchanges under way.
    busy: usize,
    /// Tells the connections apart that had one place one after the other.
    generation: u32,
    /// When timeouts are looked at next.
    next_look: u64,
    rest: Rest,
    /// Places the kernel's times on the clock of the run.
    beside_wall: BesideWall,
}

impl Lane {
    /// Builds a lane that `wake` wakes.
    pub(super) fn new(
        context: Arc<Context>,
        feed: Feed,
        records: UnboundedSender<Vec<Record>>,
        wake: &OwnedFd,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, wake, EventData::new_u64(WAKE), EventFlags::IN)?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        epoll::add(&epoll, &timer, EventData::new_u64(TIMER), EventFlags::IN)?;
        Ok(Self {
            context,
            feed,
            done: Vec::new(),
            records,
            epoll,
            timer,
            armed: None,
            connections: Slab::new(),
            shared: Slab::new(),
            again: VecDeque::new(),
            most_waiting: shared::MOST_WAITING,
            idle: Vec::new(),
            buffer: vec![0; READ],
            admitted: VecDeque::new(),
            busy: 0,
            generation: 0,
            next_look: 0,
            rest: Rest::default(),
            beside_wall: BesideWall::default(),
        })
    }

    /// Sends and receives until nothing is left to do or the run is stopped.
    pub(super) fn run(&mut self) -> io::Result<()> {
        let ended = self.until_the_end();
        self.pass_on();
        ended
    }

    fn until_the_end(&mut self) -> io::Result<()> {
        // The default slack of 50 µs would be a quarter of the lag that is allowed; a kernel that
        // refuses leaves it at that, and the lag is recorded in any case.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            if self.context.is_stopped() {
                self.drop_all();
                return Ok(());
            }
            self.send_due();
            let is_idle = self.busy == 0 && self.admitted.is_empty();
            if is_idle && self.feed.next_due().is_none() {
                return Ok(());
            }
            self.wait(&mut events)?;
            self.rest.looked(events.len(), EVENTS);
            if self.context.plan.event_time == EventTime::Kernel {
                self.beside_wall = self.context.clock.beside_wall();
            }
            for event in events.drain(..) {
                if event.data.u64() == TIMER {
                    // What it counts does not matter: the clock says what is due.
                    let _ = rustix::io::read(&self.timer, &mut [0_u8; 8]);
                    // Two readings of one clock may differ: if it was early, it is set again.
                    self.armed = None;
                } else if event.data.u64() != WAKE {
                    self.ready(event.data.u64(), event.flags);
                    // An appointment is kept between two reads; a user who became free by what
                    // was read just now goes when everything that has come is read.
                    if !matches!(self.feed, Feed::Closed(_)) {
                        self.send_due();
                    }
                }
            }
            self.look_at_timeouts();
            self.rest();
        }
    }

    /// Rests, where the kernel takes the time of what comes in and a connection has one answer.
    fn rest(&mut self) {
        let plan = &self.context.plan;
        let has_one_each = plan.target.http == HttpVersion::One;
        if plan.event_time == EventTime::Read || !has_one_each || self.busy == 0 {
            return;
        }
        let clock = self.context.clock;
        if let Some(until) = self.rest.next(clock.now(), self.feed.next_due()) {
            let at = timespec(clock.started_monotonic() + until);
            // Woken up early by a signal it rests less.
            let _ = rustix::thread::clock_nanosleep_absolute(ClockId::Monotonic, &at);
        }
    }

    /// Sleeps until something has come or is due; renders a body meanwhile if there is time.
    fn wait(&mut self, events: &mut Vec<epoll::Event>) -> io::Result<()> {
        let is_due = self.set_alarm()? || !self.again.is_empty() || !self.admitted.is_empty();
        let can_render = matches!(&self.feed, Feed::Open(instants) if instants.can_render());
        let has_time = || {
            let due = self.feed.next_due();
            due.is_some_and(|due| self.context.clock.until(due) >= MARGIN)
        };
        if !can_render || !has_time() {
            return self.poll(events, !is_due).map(|_| ());
        }
        if !self.poll(events, false)?
            && let Feed::Open(instants) = &mut self.feed
        {
            instants.render_ahead(&self.context);
        }
        Ok(())
    }

    /// Looks what has come, or waits for it or for the alarm; whether anything has come.
    fn poll(&self, events: &mut Vec<epoll::Event>, waits: bool) -> io::Result<bool> {
        const AT_ONCE: Timespec = timespec(0);
        let spare = rustix::buffer::spare_capacity(events);
        // A timeout here would set a timer of the kernel with every wait, which on a virtual machine
        // costs as much as reading an event.
        match epoll::wait(&self.epoll, spare, (!waits).then_some(&AT_ONCE)) {
            Ok(n) => Ok(n > 0),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Sets the timer to when the lane has to be awake at the latest: at the instant of the next
    /// arrival, or to look at timeouts. Whether that is now.
    fn set_alarm(&mut self) -> io::Result<bool> {
        let clock = self.context.clock;
        let due = self.feed.next_due().unwrap_or(u64::MAX);
        // Before the run begins there is no instant, but a wait.
        if clock.until(due).is_zero() {
            return Ok(true);
        }
        let now = clock.now();
        let latest = due.min(now + nanoseconds(self.longest_sleep()));
        // One that is set to sooner wakes the lane once for nothing, which is cheaper than to move it.
        if self.armed.is_none_or(|at| at > latest) {
            self.armed = Some(latest);
            let at = clock.started_monotonic() + latest;
            timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &once(at))?;
        }
        Ok(false)
    }

    /// Sends everything that is due.
    fn send_due(&mut self) {
        while let Some(job) = self.admitted.pop_front() {
            self.start(job, None);
        }
        for exchange in std::mem::take(&mut self.again) {
            self.send_shared(exchange);
        }
        while let Some(due) = self.feed.next_due() {
            if !self.context.clock.until(due).is_zero() {
                return;
            }
            let now = self.context.clock.now();
            let Some(job) = self.feed.take(now, &self.context) else {
                continue;
            };
            self.context.gauge.arrived.add(1);
            let body = match &mut self.feed {
                Feed::Open(instants) => instants.body(),
                Feed::Ready(_) | Feed::Closed(_) => None,
            };
            let is_admitted = match &self.context.cap {
                Some(cap) => cap.admits(job),
                None => true,
            };
            if is_admitted {
                self.start(job, body);
            }
        }
    }

    fn start(&mut self, job: Job, body: Option<bytes::Bytes>) {
        let context = self.context.clone();
        let body = body.unwrap_or_else(|| context.render_job(job));
        let head = context.wire.head(job.index, body.len());
        let dispatched = context.clock.now();
        context.gauge.enter(dispatched);
        self.busy += 1;
        let sight = Sight::new(dispatched, &context.plan, context.answer_form(job));
        let mut exchange = Box::new(Exchange::new(job, head, body, sight));
        if context.wire.http() == HttpVersion::Two {
            return self.send_shared(exchange);
        }
        match self.idle.pop() {
            Some(at) => {
                exchange.sight.attempts = 1;
                let connection = &mut self.connections[at];
                connection.phase = Phase::Busy;
                connection.fresh = false;
                connection.reader.reset();
                connection.exchange = Some(exchange);
                self.write(at);
            }
            None => self.connect(exchange, 0, dispatched),
        }
    }

    /// Makes a connection for an exchange, to the first of the server's addresses from number
    /// `address` on that takes one.
    fn connect(&mut self, exchange: Box<Exchange>, mut address: usize, since: u64) {
        let context = self.context.clone();
        let mut failed = None;
        loop {
            match context.wire.connect(address) {
                Some(Ok(socket)) => {
                    let entry = self.connections.vacant_entry();
                    self.generation = next(self.generation);
                    let name = name(entry.key(), self.generation);
                    let data = EventData::new_u64(name);
                    let interest = EventFlags::OUT;
                    if let Err(error) = epoll::add(&self.epoll, &socket, data, interest) {
                        failed = Some(context.wire.fault(&error.into()));
                        break;
                    }
                    entry.insert(Connection {
                        name,
                        socket,
                        reader: Reader::new(context.plan.limits.head),
                        phase: Phase::Connecting { address, since },
                        exchange: Some(exchange),
                        fresh: true,
                        is_broken: false,
                        interest,
                    });
                    return;
                }
                Some(Err(fault)) => failed = Some(fault),
                None => break,
            }
            address += 1;
        }
        let none = || std::io::Error::other("its name has no address");
        let fault = failed.unwrap_or_else(|| context.wire.fault(&none()));
        self.deliver(exchange, Err(fault), context.clock.now());
    }

    /// Something came on a connection, or there is room to write, or it broke.
    fn ready(&mut self, name: u64, flags: EventFlags) {
        let at = place(name);
        if is_shared(name) {
            return self.shared_ready(name, at);
        }
        // One that was closed a moment ago may have told of itself before, and another has its place.
        let connection = self.connections.get_mut(at);
        let Some(connection) = connection.filter(|c| c.name == name) else {
            return;
        };
        if let Phase::Connecting { .. } = connection.phase {
            return self.connecting(at);
        }
        if flags.contains(EventFlags::OUT) {
            self.write(at);
        }
        let has_ended = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        if has_ended || flags.contains(EventFlags::IN) {
            self.read(at, has_ended);
        }
    }

    fn connecting(&mut self, at: usize) {
        let context = self.context.clone();
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        let Phase::Connecting { address, since } = connection.phase else {
            return;
        };
        match connection.socket.is_connected() {
            Ok(true) => {
                connection.phase = Phase::Busy;
                if let Some(exchange) = &mut connection.exchange {
                    exchange.sight.connected = Some(context.clock.now());
                    exchange.sight.attempts += 1;
                }
                self.write(at);
            }
            // A handshake goes on.
            Ok(false) => self.want(at),
            Err(error) => {
                let fault = context.wire.fault(&error);
                let Some(exchange) = self.close(at) else {
                    return;
                };
                if context.wire.has(address + 1) {
                    return self.connect(exchange, address + 1, since);
                }
                self.deliver(exchange, Err(fault), context.clock.now());
            }
        }
    }

    fn write(&mut self, at: usize) {
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        let name = connection.name;
        match connection.write() {
            Ok(_) => self.want(at),
            Err(error) => {
                // The server may have answered before it closed.
                self.read(at, true);
                // If that has brought about another connection, its place may be the same.
                let is_waiting = |c: &Connection| c.name == name && c.exchange.is_some();
                if self.connections.get(at).is_some_and(is_waiting) {
                    self.broke(at, &error.to_string());
                }
            }
        }
    }

    /// Asks the system for what a connection waits for.
    fn want(&mut self, at: usize) {
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        let is_connecting = matches!(connection.phase, Phase::Connecting { .. });
        let rest = connection
            .exchange
            .as_ref()
            .is_some_and(|e| !e.is_written());
        let mut interest = EventFlags::IN;
        if connection.socket.wants_write() || (rest && !is_connecting) {
            interest |= EventFlags::OUT;
        }
        if !is_connecting {
            // Told once of what has come, the system need not look at the socket again each time it
            // is asked; that the other side has closed behind what has come it then has to say.
            interest |= EventFlags::ET | EventFlags::RDHUP;
        }
        if interest != connection.interest {
            connection.interest = interest;
            let data = EventData::new_u64(connection.name);
            // It fails only for a socket that is not there, which reading finds out.
            let _ = epoll::modify(&self.epoll, &connection.socket, data, interest);
        }
    }

    /// Reads what is there; up to the end, where the other side has closed or may have.
    fn read(&mut self, at: usize, to_the_end: bool) {
        let mut buffer = std::mem::take(&mut self.buffer);
        if buffer.is_empty() {
            // It is in use further up: what was read there has brought this about.
            buffer = vec![0; READ];
        }
        while let Some(connection) = self.connections.get_mut(at) {
            match connection.socket.read(&mut buffer) {
                Ok(None) => break,
                Ok(Some(0)) => {
                    self.closed(at);
                    break;
                }
                Ok(Some(n)) => {
                    let now = self.context.clock.now();
                    let now = received(connection.socket.received(), self.beside_wall, now);
                    let may_hold_more = n == buffer.len() || connection.socket.reads_ahead();
                    self.feed_answer(at, &buffer[..n], now);
                    if !to_the_end && !may_hold_more {
                        break;
                    }
                }
                Err(error) => {
                    self.broke(at, &error.to_string());
                    break;
                }
            }
        }
        self.buffer = buffer;
    }

    /// Takes bytes of an answer, read at `now`.
    fn feed_answer(&mut self, at: usize, mut bytes: &[u8], now: u64) {
        let connection = &mut self.connections[at];
        let before = connection.n_events();
        let outcome = connection.take(&mut bytes, now, &self.context.gauge.tokens);
        self.rest.saw(connection.n_events().saturating_sub(before));
        if let (0, 1.., Some(exchange)) = (before, connection.n_events(), &connection.exchange) {
            let dispatched = exchange.sight.dispatched;
            self.rest.answered_after(now.saturating_sub(dispatched));
        }
        // Nobody asked for more than the answer: what follows would be taken for the next one.
        connection.is_broken |= !bytes.is_empty();
        if let Some(result) = outcome {
            return self.finish(at, result, now);
        }
        if connection.exchange.is_some() {
            return;
        }
        if connection.is_broken {
            self.close(at);
        } else if connection.is_reusable() && connection.phase != Phase::Idle {
            // The end of the body has come behind the end of the answer.
            self.pool(at);
        }
    }

    /// An exchange is over: pools its connection if that can be, and passes the record on.
    fn finish(&mut self, at: usize, result: Result<(), Fault>, done: u64) {
        let connection = &mut self.connections[at];
        let exchange = connection.exchange.take();
        // What is left of a request that was answered early would be taken for the next one.
        connection.is_broken |= exchange.as_ref().is_some_and(|e| !e.is_written());
        match (&result, connection.is_reusable()) {
            (_, true) => self.pool(at),
            (Ok(()), false) if connection.may_become_reusable() => {
                let until = done + nanoseconds(LAST_CHUNK);
                connection.phase = Phase::Draining { until };
            }
            _ => {
                self.close(at);
            }
        }
        if let Some(exchange) = exchange {
            self.deliver(exchange, result.map(|()| Outcome::Completed), done);
        }
    }

    fn pool(&mut self, at: usize) {
        if self.idle.len() >= MOST_IDLE {
            self.close(at);
            return;
        }
        self.connections[at].phase = Phase::Idle;
        self.idle.push(at);
    }

    /// The server has closed a connection.
    fn closed(&mut self, at: usize) {
        let now = self.context.clock.now();
        let connection = &mut self.connections[at];
        if connection.reader.closed()
            && let Some(exchange) = &mut connection.exchange
        {
            let verdict = exchange.sight.verdict();
            return self.finish(at, verdict, now);
        }
        self.broke(
            at,
            "the connection was closed before the answer was complete",
        );
    }

    /// A connection is of no use any more.
    fn broke(&mut self, at: usize, why: &str) {
        let is_stale = self.connections[at].may_be_stale();
        let Some(mut exchange) = self.close(at) else {
            return;
        };
        let now = self.context.clock.now();
        if is_stale {
            exchange.rewind();
            return self.connect(exchange, 0, now);
        }
        let fault = exchange.sight.cut(why.to_owned());
        self.deliver(exchange, Err(fault), now);
    }

    /// Closes a connection and returns the exchange that it carried.
    fn close(&mut self, at: usize) -> Option<Box<Exchange>> {
        let connection = self.connections.try_remove(at)?;
        if connection.phase == Phase::Idle {
            self.idle.retain(|other| *other != at);
        }
        connection.exchange
    }

    /// Passes the record of an exchange on, and lets the next one go.
    fn deliver(&mut self, exchange: Box<Exchange>, outcome: Result<Outcome, Fault>, done: u64) {
        let context = self.context.clone();
        let Exchange { job, sight, .. } = *exchange;
        let done = sight.not_before(done);
        context.gauge.leave(done);
        self.busy -= 1;
        let is_refused = matches!(&outcome, Err(fault) if fault.class.is_before_sending());
        let mut record = context.record(job, outcome, done);
        let answer = sight.describe(&mut record);
        let noted = context.note(job, &record, answer);
        self.keep(record);
        if let Err(why) = noted {
            self.give_up(job, done, &why);
        }
        let rest = if is_refused { REFUSED } else { 0 };
        self.feed.is_over(job, done + rest);
        let next = context.cap.as_ref().and_then(super::cap::Cap::release);
        // Not at once: if it failed at once, too, and the one after it, there would be no end.
        self.admitted.extend(next);
    }

    /// The conversation of a request cannot go on: its further turns are never sent.
    fn give_up(&mut self, job: Job, at: u64, why: &str) {
        for request in self.feed.give_up(job, &self.context) {
            let Some(index) = self.context.number() else {
                return;
            };
            self.context.gauge.arrived.add(1);
            let turn = Job {
                index,
                request,
                scheduled: at,
                ..job
            };
            let mut record = self.context.record(turn, Ok(Outcome::Dropped), at);
            record.error = Some(format!("not sent: {why}"));
            self.keep(record);
        }
    }

    /// Breaks off everything that is under way or waits.
    fn drop_all(&mut self) {
        self.feed = Feed::nothing();
        let waiting = self.context.cap.as_ref().map(super::cap::Cap::give_up);
        let admitted = std::mem::take(&mut self.admitted);
        for job in waiting.into_iter().flatten().chain(admitted) {
            self.drop_job(job);
        }
        let now = self.context.clock.now();
        for connection in std::mem::take(&mut self.connections) {
            if let Some(exchange) = connection.1.exchange {
                self.deliver(exchange, Ok(Outcome::Dropped), now);
            }
        }
        self.drop_shared(now);
        for job in std::mem::take(&mut self.admitted) {
            self.drop_job(job);
        }
    }

    fn drop_job(&mut self, job: Job) {
        let now = self.context.clock.now();
        self.keep(self.context.record(job, Ok(Outcome::Dropped), now));
    }

    fn keep(&mut self, record: Record) {
        self.done.push(record);
        if self.done.len() >= RECORDS {
            self.pass_on();
        }
    }

    /// Passes finished records on.
    fn pass_on(&mut self) {
        if !self.done.is_empty() {
            // The collector is gone only when the whole run is: nobody wants the records then.
            let _ = self.records.send(std::mem::take(&mut self.done));
        }
    }
}

/// When something that was read at `now` came, by the kernel if it says so.
fn received(moment: Option<Moment>, beside_wall: BesideWall, now: u64) -> u64 {
    let received = moment.and_then(|moment| beside_wall.when(moment));
    received.map_or(now, |at| at.min(now))
}

/// What the system calls a connection: its place, and which of those that had it.
fn name(at: usize, generation: u32) -> u64 {
    u64::from(generation) << 32 | (at as u64 & u64::from(u32::MAX))
}

/// The generation after this one; the two highest bits are kept for kinds of names.
fn next(generation: u32) -> u32 {
    (generation + 1) & (u32::MAX >> 2)
}

/// Tells names of connections that carry many exchanges from those of others.
const SHARED: u64 = 1 << 62;

fn is_shared(name: u64) -> bool {
    name & SHARED != 0
}

fn place(name: u64) -> usize {
    usize::try_from(name & u64::from(u32::MAX)).unwrap_or(usize::MAX)
}

/// Sets a timer to an instant of the monotonic clock, in nanoseconds.
fn once(at: u64) -> Itimerspec {
    let zero = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    Itimerspec {
        it_interval: zero,
        it_value: timespec(at),
    }
}

const fn timespec(nanoseconds: u64) -> Timespec {
    const SECOND: u64 = 1_000_000_000;
    // Neither reaches the sign: the one is below 2^35, the other below a second.
    Timespec {
        tv_sec: (nanoseconds / SECOND).cast_signed(),
        tv_nsec: (nanoseconds % SECOND).cast_signed(),
    }
}
