//! A TCP stream that knows when the kernel received what is read from it.
//!
//! The kernel notes when a packet came in, before anybody is woken up, and hands that out beside the
//! bytes. Of several packets read at once it tells the last one's time.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt::ReceiveTimestampns,
};
use nix::sys::time::TimeSpec;

use crate::clock::Moment;

/// A stream, and when what was read from it last was received.
pub(crate) struct Stamped {
    stream: TcpStream,
    /// Room for what the kernel says beside the bytes; none if it is not asked.
    beside: Option<Vec<u8>>,
    received: Option<Moment>,
}

impl Stamped {
    /// A stream that says nothing of times.
    pub(super) fn silent(stream: TcpStream) -> Self {
        Self {
            stream,
            beside: None,
            received: None,
        }
    }

    /// Asks the kernel for times.
    pub(super) fn asking(stream: TcpStream) -> io::Result<Self> {
        setsockopt(&stream, ReceiveTimestampns, &true)?;
        Ok(Self {
            beside: Some(nix::cmsg_space!(TimeSpec)),
            ..Self::silent(stream)
        })
    }

    /// When the kernel received what was read last, if it was asked and has said so.
    pub(super) fn received(&self) -> Option<Moment> {
        self.received
    }
}

impl Read for Stamped {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(beside) = &mut self.beside else {
            return self.stream.read(buffer);
        };
        let mut pieces = [IoSliceMut::new(buffer)];
        let fd = self.stream.as_raw_fd();
        let message = recvmsg::<()>(fd, &mut pieces, Some(beside), MsgFlags::empty())?;
        self.received = message.cmsgs()?.find_map(|said| match said {
            ControlMessageOwned::ScmTimestampns(time) => Moment::of(time.tv_sec(), time.tv_nsec()),
            _ => None,
        });
        Ok(message.bytes)
    }
}

impl Write for Stamped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.stream.write_vectored(pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl AsFd for Stamped {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::time::{ClockId, clock_gettime};
    use std::net::TcpListener;
    use std::time::{Duration, Instant};

    /// How long the kernel may take to begin to take times.
    const LIMIT: Duration = Duration::from_secs(10);

    fn wall() -> Moment {
        let time = clock_gettime(ClockId::Realtime);
        Moment::of(time.tv_sec, time.tv_nsec).unwrap()
    }

    #[test]
    fn the_time_is_that_of_the_packet_and_not_of_the_read() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut other, _) = listener.accept().unwrap();
        let mut stream = Stamped::asking(stream).unwrap();
        // The kernel begins to take times a moment after it was asked to.
        let (mut received, asked) = (None, Instant::now());
        while received.is_none() && asked.elapsed() < LIMIT {
            other.write_all(b"a").unwrap();
            stream.stream.peek(&mut [0]).unwrap();
            let had = wall();
            let mut buffer = [0; 8];
            assert_eq!(stream.read(&mut buffer).unwrap(), 1);
            received = stream.received();
            match received {
                Some(at) => assert!(at <= had, "{at:?} {had:?}"),
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        assert!(received.is_some());
        let mut silent = Stamped::silent(stream.stream);
        other.write_all(b"b").unwrap();
        assert_eq!(silent.read(&mut [0; 8]).unwrap(), 1);
        assert_eq!(silent.received(), None);
    }
}
