//! TCP ports of this machine: finding a free one, seeing that one was given back.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How many ports stay reserved after they were handed out.
const REMEMBERED: usize = 256;
/// How long a connection may take before the port counts as taken by something that hangs.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

static HANDED_OUT: Mutex<VecDeque<u16>> = Mutex::new(VecDeque::new());

/// Returns a port of 127.0.0.1 that nobody listens on.
///
/// Nothing can hold the port for a program that is yet to start, but the last 256 handed out by
/// this process are not handed out again, so that two services never get the same.
///
/// # Errors
/// If the system has no port to give.
pub fn free_port() -> io::Result<u16> {
    let mut handed_out = HANDED_OUT.lock().unwrap_or_else(PoisonError::into_inner);
    // The listeners of ports that were refused are held, or the system might offer them again.
    let mut refused = Vec::new();
    loop {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        if !handed_out.contains(&port) {
            handed_out.push_back(port);
            if handed_out.len() > REMEMBERED {
                handed_out.pop_front();
            }
            return Ok(port);
        }
        refused.push(listener);
        if refused.len() > REMEMBERED {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "no port of 127.0.0.1 is free",
            ));
        }
    }
}

/// Whether a program could listen on `addr` now.
pub fn port_is_free(addr: SocketAddr) -> bool {
    TcpListener::bind(addr).is_ok()
}

/// Whether nobody accepts connections on `addr` any more.
///
/// Blocks for at most half a second; a port that neither accepts nor refuses counts as open.
pub fn port_closed(addr: SocketAddr) -> bool {
    matches!(TcpStream::connect_timeout(&addr, CONNECT_TIMEOUT),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn free_ports_are_distinct() {
        let ports: HashSet<u16> = (0..100).map(|_| free_port().unwrap()).collect();
        assert_eq!(ports.len(), 100);
    }

    #[test]
    fn a_port_with_a_listener_is_neither_free_nor_closed() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        assert!(!port_is_free(addr) && !port_closed(addr));
        drop(listener);
        assert!(port_is_free(addr) && port_closed(addr));
    }
}
