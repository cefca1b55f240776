//! The least that reading costs: the same requests, the same sockets, every event read as it comes and
//! looked at no further. What a client needs beyond this it could do without.

use super::load::{Load, Outcome};
use super::processes::{Served, Watched, itself};
use rustix::event::epoll::{self, EventData, EventFlags};
use std::io::{Read, Write};
use std::net::TcpStream;

/// Reads until as many answers have ended as there are requests.
pub(crate) fn client((port, load): &(u16, Load)) -> std::io::Result<()> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut streams = Vec::new();
    let body = format!("{{\"prompt\":\"floor\",\"max_tokens\":{}}}", load.tokens);
    let request = format!(
        "POST /v1/completions HTTP/1.1\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    for i in 0..load.streams {
        let mut stream = TcpStream::connect(("127.0.0.1", *port))?;
        stream.set_nodelay(true)?;
        epoll::add(
            &epoll,
            &stream,
            EventData::new_u64(i),
            EventFlags::IN | EventFlags::ET,
        )?;
        stream.write_all(request.as_bytes())?;
        streams.push(stream);
    }
    let (mut sent, mut done) = (load.streams, 0);
    let mut events = Vec::with_capacity(64);
    let mut buffer = vec![0; 64 << 10];
    while done < load.requests {
        events.clear();
        epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in &events {
            let stream = &mut streams[usize::try_from(event.data.u64()).unwrap_or(0)];
            let n = stream.read(&mut buffer)?;
            if buffer[..n].ends_with(b"\r\n0\r\n\r\n") {
                done += 1;
                if sent < load.requests {
                    sent += 1;
                    stream.write_all(request.as_bytes())?;
                }
            }
        }
    }
    Ok(())
}

pub(crate) fn measured(load: &Load, served: &Served) -> Outcome {
    let mut child = itself()
        .arg("--floor")
        .args(load.arguments(served.port))
        .spawn()
        .expect("a client");
    let watched = Watched::until_the_end(&mut child);
    let truth = served.truth();
    let cpu = watched.between(truth.span());
    Outcome {
        numbers: vec![("cpu/token us", cpu / 1e3 / truth.tokens().max(1) as f64)],
    }
}
