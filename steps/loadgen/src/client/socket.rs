//! A TCP or TLS stream that never blocks.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::stamped::Stamped;
use crate::EventTime;
use crate::clock::Moment;

/// What TLS calls HTTP/2.
pub(super) const HTTP2: &[u8] = b"h2";

/// TLS towards one server.
#[derive(Clone)]
pub(crate) struct Tls {
    pub(super) config: Arc<ClientConfig>,
    pub(super) name: ServerName<'static>,
}

/// A connection to a server, made or being made.
pub(crate) enum Socket {
    Plain(Stamped),
    Tls(Box<StreamOwned<ClientConnection, Stamped>>),
}

impl Socket {
    /// Begins to connect. Whether that went well shows once the socket can be written to.
    pub(crate) fn connect(to: SocketAddr, tls: Option<&Tls>, time: EventTime) -> io::Result<Self> {
        let family = match to {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(family, SocketType::STREAM, flags, None)?;
        // Without this a request could wait for the acknowledgement of the one before it.
        sockopt::set_tcp_nodelay(&socket, true)?;
        match rustix::net::connect(&socket, &to) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let stream = TcpStream::from(socket);
        let stream = match time {
            EventTime::Read => Stamped::silent(stream),
            EventTime::Kernel => Stamped::asking(stream)?,
        };
        Ok(match tls {
            None => Self::Plain(stream),
            Some(Tls { config, name }) => {
                let connection = ClientConnection::new(config.clone(), name.clone());
                let connection = connection.map_err(io::Error::other)?;
                Self::Tls(Box::new(StreamOwned::new(connection, stream)))
            }
        })
    }

    /// Takes the result of connecting, TLS included: whether it has come.
    pub(crate) fn is_connected(&mut self) -> io::Result<bool> {
        sockopt::socket_error(self.as_fd())??;
        let Self::Tls(stream) = self else {
            return Ok(true);
        };
        match stream.conn.complete_io(&mut stream.sock) {
            Ok(_) => Ok(!stream.conn.is_handshaking()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the other side speaks HTTP/2: with TLS it says so, without it is taken at its word.
    pub(crate) fn speaks_http2(&self) -> bool {
        match self {
            Self::Plain(_) => true,
            Self::Tls(stream) => stream.conn.alpn_protocol() == Some(HTTP2),
        }
    }

    /// Whether it waits for room to write.
    pub(crate) fn wants_write(&self) -> bool {
        matches!(self, Self::Tls(stream) if stream.conn.wants_write())
    }

    /// Passes on what TLS has kept back.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(stream) => match stream.flush() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
                other => other,
            },
        }
    }

    /// Reads what is there: 0 bytes where the other side has closed, `None` where nothing is.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let read = match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        };
        match read {
            Ok(n) => Ok(Some(n)),
            Err(error) if is_nothing_yet(&error) => Ok(None),
            // A server that closes without the farewell of TLS has closed nevertheless: whether
            // an answer is whole its own framing says.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(Some(0)),
            Err(error) => Err(error),
        }
    }

    /// When the kernel received what was read last, if it was asked and has said so.
    pub(crate) fn received(&self) -> Option<Moment> {
        match self {
            Self::Plain(stream) => stream.received(),
            Self::Tls(stream) => stream.sock.received(),
        }
    }

    /// Writes what there is room for.
    pub(crate) fn write(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let written = match self {
            Self::Plain(stream) => stream.write_vectored(pieces),
            Self::Tls(stream) => stream.write_vectored(pieces),
        };
        match written {
            Err(error) if is_nothing_yet(&error) => Ok(0),
            other => other,
        }
    }

    /// Whether bytes may lie ready although the socket has none: TLS reads records whole.
    pub(crate) fn reads_ahead(&self) -> bool {
        matches!(self, Self::Tls(_))
    }
}

fn is_nothing_yet(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Plain(stream) => stream.as_fd(),
            Self::Tls(stream) => stream.sock.as_fd(),
        }
    }
}
