//! A connection of many exchanges at once: HTTP/2 over a socket that never blocks.
//!
//! The protocol is the `h2` crate's. It is driven by hand: whoever has been told by the system that
//! something is to be had polls the connection once, then takes what came from the streams that
//! have something. Knows no load and no event stream.

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use slab::Slab;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Head, Socket};
use crate::clock::Moment;

/// Bytes of one answer, and of all answers of a connection, that may be on their way.
const WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Streams of one connection at most, however many the server allows.
const MOST_STREAMS: usize = 1000;

/// A part of an answer.
#[derive(Debug)]
pub(crate) enum StreamPart {
    /// Its head; comes once and first.
    Head(Head),
    /// A piece of its body.
    Body(Bytes),
    /// Its proper end; nothing follows.
    End,
}

/// Why a stream broke off.
#[derive(Debug)]
pub(crate) struct Broken {
    /// What happened.
    pub(crate) why: String,
    /// Whether the server has said that it did nothing for the request.
    pub(crate) is_unprocessed: bool,
    /// Whether this stream alone was broken off, and the connection goes on.
    pub(crate) is_reset: bool,
}

/// Whether a connection still carries anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// It takes requests, as far as it has room.
    Open,
    /// It is over for this reason: what its streams still tell is the last of it.
    Over(String),
}

/// A connection, with something of the caller's for each stream.
pub(crate) struct Http2<T> {
    channel: Channel,
    sender: SendRequest<Bytes>,
    connection: Connection<Channel, Bytes>,
    streams: Slab<Stream<T>>,
    ready: Arc<Ready>,
    /// Whether it takes no more requests.
    is_closing: bool,
}

/// One exchange of a connection.
struct Stream<T> {
    of: T,
    answer: Answer,
    /// Where the request goes; dropped with the stream, which tells the server to stop.
    _request: SendStream<Bytes>,
    waker: Waker,
}

enum Answer {
    Head(ResponseFuture),
    Body(RecvStream),
    Ended,
}

impl<T> Http2<T> {
    /// Begins to speak HTTP/2 over a socket that is connected; refuses heads of more than
    /// `head_limit` bytes.
    pub(crate) fn new(socket: Socket, head_limit: usize) -> io::Result<Self> {
        let channel = Channel::new(socket);
        let mut builder = Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(u32::try_from(head_limit).unwrap_or(u32::MAX))
            // Until the server has said how many streams it takes.
            .initial_max_send_streams(0);
        let hello = pin!(builder.handshake(channel.clone()));
        match hello.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok((sender, connection))) => Ok(Self {
                channel,
                sender,
                connection,
                streams: Slab::new(),
                ready: Arc::default(),
                is_closing: false,
            }),
            Poll::Ready(Err(error)) => Err(io::Error::other(error)),
            Poll::Pending => Err(io::Error::other("a new connection takes no bytes")),
        }
    }

    /// Reads and writes what can be; afterwards [`ready`](Self::ready) tells of the streams.
    pub(crate) fn drive(&mut self) -> Life {
        let polled = Pin::new(&mut self.connection).poll(&mut Context::from_waker(Waker::noop()));
        match polled {
            Poll::Pending => Life::Open,
            Poll::Ready(ended) => {
                self.is_closing = true;
                Life::Over(match ended {
                    Ok(()) => "the server closed the connection".to_owned(),
                    Err(error) => error.to_string(),
                })
            }
        }
    }

    /// Whether the server has said what it allows.
    pub(crate) fn is_settled(&self) -> bool {
        self.sender.current_max_send_streams() > 0
    }

    /// How many requests may be under way at once.
    pub(crate) fn most_streams(&self) -> usize {
        self.sender.current_max_send_streams().min(MOST_STREAMS)
    }

    /// Whether another request may be sent now.
    pub(crate) fn has_room(&self) -> bool {
        !self.is_closing && self.streams.len() < self.most_streams()
    }

    /// Sends a request; gives back what it was for if the connection takes no more. The next
    /// [`drive`](Self::drive) puts it on the wire.
    pub(crate) fn send(&mut self, request: http::Request<()>, body: Bytes, of: T) -> Result<(), T> {
        let sent = self.sender.send_request(request, false);
        let sent = sent.and_then(|(answer, mut request)| {
            request.send_data(body, true).map(|()| (answer, request))
        });
        let Ok((answer, request)) = sent else {
            self.is_closing = true;
            return Err(of);
        };
        let entry = self.streams.vacant_entry();
        let (key, ready) = (entry.key(), self.ready.clone());
        self.ready.push(key);
        entry.insert(Stream {
            of,
            answer: Answer::Head(answer),
            _request: request,
            waker: Waker::from(Arc::new(StreamWaker { key, ready })),
        });
        Ok(())
    }

    /// The streams that have something to tell since they were asked last.
    pub(crate) fn ready(&self) -> Vec<usize> {
        std::mem::take(&mut *self.ready.lock())
    }

    /// The next part of a stream's answer; `None` when more has to come, or there is no such stream.
    pub(crate) fn next(&mut self, key: usize) -> Option<Result<StreamPart, Broken>> {
        let stream = self.streams.get_mut(key)?;
        match stream.next() {
            Poll::Pending => None,
            Poll::Ready(part) => Some(part.map_err(|error| Broken::of(&error))),
        }
    }

    /// What a stream is for.
    pub(crate) fn of(&mut self, key: usize) -> Option<&mut T> {
        self.streams.get_mut(key).map(|stream| &mut stream.of)
    }

    /// What all streams are for.
    pub(crate) fn all(&self) -> impl Iterator<Item = (usize, &T)> {
        self.streams.iter().map(|(key, stream)| (key, &stream.of))
    }

    /// Gives a stream up: the server is told, if it has not ended.
    pub(crate) fn forget(&mut self, key: usize) -> Option<T> {
        self.streams.try_remove(key).map(|stream| stream.of)
    }

    /// Gives the connection up.
    pub(crate) fn into_all(self) -> impl Iterator<Item = T> {
        self.streams.into_iter().map(|(_, stream)| stream.of)
    }

    /// Whether it waits for room to write.
    pub(crate) fn wants_write(&self) -> bool {
        let inner = self.channel.lock();
        inner.is_blocked || inner.socket.wants_write()
    }

    /// When the kernel received what was read last, if it was asked.
    pub(crate) fn received(&self) -> Option<Moment> {
        self.channel.lock().socket.received()
    }

    /// Lets the system be asked about the socket.
    pub(crate) fn with_fd<R>(&self, ask: impl FnOnce(BorrowedFd<'_>) -> R) -> R {
        ask(self.channel.lock().socket.as_fd())
    }
}

impl<T> Stream<T> {
    fn next(&mut self) -> Poll<Result<StreamPart, h2::Error>> {
        let context = &mut Context::from_waker(&self.waker);
        match &mut self.answer {
            Answer::Head(head) => {
                let (parts, body) = std::task::ready!(Pin::new(head).poll(context))?.into_parts();
                self.answer = Answer::Body(body);
                Poll::Ready(Ok(StreamPart::Head(Head::of_parts(&parts))))
            }
            Answer::Body(body) => match std::task::ready!(body.poll_data(context)) {
                Some(piece) => {
                    let piece = piece?;
                    body.flow_control().release_capacity(piece.len())?;
                    Poll::Ready(Ok(StreamPart::Body(piece)))
                }
                None => {
                    self.answer = Answer::Ended;
                    Poll::Ready(Ok(StreamPart::End))
                }
            },
            Answer::Ended => Poll::Pending,
        }
    }
}

impl Broken {
    fn of(error: &h2::Error) -> Self {
        Self {
            why: format!("the connection or the stream broke off: {error}"),
            is_reset: error.is_reset(),
            is_unprocessed: error.reason() == Some(Reason::REFUSED_STREAM)
                || error.is_go_away()
                    && error.is_remote()
                    && error.reason() == Some(Reason::NO_ERROR),
        }
    }
}

/// The streams that have something to tell.
#[derive(Default)]
struct Ready(Mutex<Vec<usize>>);

impl Ready {
    fn lock(&self) -> MutexGuard<'_, Vec<usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, key: usize) {
        self.lock().push(key);
    }
}

struct StreamWaker {
    key: usize,
    ready: Arc<Ready>,
}

impl Wake for StreamWaker {
    fn wake(self: Arc<Self>) {
        self.ready.push(self.key);
    }
}

/// A socket as the protocol sees it; nobody is woken up, as it is polled when the system says so.
#[derive(Clone)]
struct Channel(Arc<Mutex<Inner>>);

struct Inner {
    socket: Socket,
    /// Whether the socket took no more.
    is_blocked: bool,
}

impl Channel {
    fn new(socket: Socket) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            socket,
            is_blocked: false,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncRead for Channel {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.lock().socket.read(buffer.initialize_unfilled()) {
            Ok(Some(n)) => {
                buffer.advance(n);
                Poll::Ready(Ok(()))
            }
            Ok(None) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl AsyncWrite for Channel {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.lock();
        let written = inner.socket.write(&[io::IoSlice::new(bytes)])?;
        inner.is_blocked = written == 0;
        match written {
            0 => Poll::Pending,
            n => Poll::Ready(Ok(n)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.lock().socket.flush())
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
