//! The socket: one controller at a time, one line for each line. A window is closed when its controller
//! goes, however it goes.

#![expect(
    unsafe_code,
    reason = "who is at the other end, and waiting with a limit"
)]

use crate::process::{ClosedByChildren, Descriptor};
use crate::session::Session;
use profiler_wire::{LONGEST_LINE, Line, PROTOCOL};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;
use std::{env, process, thread};

/// How long a controller that has no window open may say nothing, while others wait for their turn.
const IDLE: Duration = Duration::from_secs(300);
/// How often an open window is looked after.
const TENDED: Duration = Duration::from_millis(50);
/// Between attempts at what the system refuses for a moment.
const AGAIN: Duration = Duration::from_millis(200);
/// How long a controller may take to take an answer.
const SLOW: Duration = Duration::from_secs(2);

/// Serves one controller after the other, until one says `detach`.
pub(crate) fn serve(listener: &UnixListener, folder: &Path) {
    let mut session = Session::new(folder);
    loop {
        let Ok((stream, _)) = listener.accept() else {
            thread::sleep(AGAIN);
            continue;
        };
        if !is_allowed(&stream) {
            continue;
        }
        let inherited = ClosedByChildren::new(Descriptor::Connection, stream.as_raw_fd());
        let ended = Connection {
            stream,
            pending: Vec::new(),
        }
        .serve(&mut session);
        drop(inherited);
        session.close("controller_gone");
        if matches!(ended, Ok(Ended::Detached)) {
            return;
        }
    }
}

/// How a controller left.
enum Ended {
    Gone,
    Detached,
}

struct Connection {
    stream: UnixStream,
    /// What was read of lines that are not whole.
    pending: Vec<u8>,
}

impl Connection {
    fn serve(mut self, session: &mut Session) -> io::Result<Ended> {
        self.stream.set_write_timeout(Some(SLOW))?;
        self.say(&hello())?;
        loop {
            let limit = if session.is_open() { TENDED } else { IDLE };
            if !readable(self.stream.as_raw_fd(), limit)? {
                if !session.is_open() {
                    return Ok(Ended::Gone);
                }
                session.tend();
                continue;
            }
            let mut some = [0; 4096];
            match self.stream.read(&mut some)? {
                0 => return Ok(Ended::Gone),
                read => self.pending.extend_from_slice(&some[..read]),
            }
            while let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line[..end]).into_owned();
                let answer = match line.parse::<Line>() {
                    Ok(line) if line.word() == "detach" => {
                        session.close("detached");
                        self.say(&Line::new("detached"))?;
                        return Ok(Ended::Detached);
                    }
                    Ok(line) => session.answer(&line),
                    Err(error) => Line::new("refused").with("why", error),
                };
                self.say(&answer)?;
            }
            if self.pending.len() > LONGEST_LINE {
                return Ok(Ended::Gone);
            }
            session.tend();
        }
    }

    fn say(&mut self, line: &Line) -> io::Result<()> {
        self.stream.write_all(format!("{line}\n").as_bytes())
    }
}

fn hello() -> Line {
    let program = env::current_exe().unwrap_or_default();
    Line::new("hello")
        .with("protocol", PROTOCOL)
        .with("pid", process::id())
        .with("program", program.display())
}

/// Waits until something can be read, or until the limit.
fn readable(fd: RawFd, limit: Duration) -> io::Result<bool> {
    let mut waits = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    let limit = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: one entry is passed, which is ours to be written.
    match unsafe { libc::poll(&raw mut waits, 1, limit) } {
        0 => Ok(false),
        1.. => Ok(true),
        _ => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(false),
            error => Err(error),
        },
    }
}

/// Whether the other end is the server's own user, or root.
fn is_allowed(stream: &UnixStream) -> bool {
    let mut who = libc::ucred {
        pid: 0,
        uid: u32::MAX,
        gid: u32::MAX,
    };
    let mut size = libc::socklen_t::try_from(size_of_val(&who)).unwrap_or(0);
    // SAFETY: the option's value is of this type, and `size` is its size.
    let code = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut who).cast(),
            &raw mut size,
        )
    };
    // SAFETY: it cannot fail.
    code == 0 && (who.uid == 0 || who.uid == unsafe { libc::geteuid() })
}
