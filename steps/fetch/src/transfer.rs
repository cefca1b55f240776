//! Brings the bytes of one file from one address: by parts over several connections where the server can,
//! from the beginning where it cannot.
//!
//! Each connection has pieces of its own and tries each until it has all of it; what it has is not asked
//! for again. A part is only taken if it is of the same content: by the condition that the request
//! carries, and again by what the answer says.

use crate::client::{Ask, Bound, Client};
use crate::error::FetchError;
use crate::lfs;
use crate::partial::Partial;
use crate::patience::{Failure, Patience};
use crate::progress::{Meter, Phase, Progress};
use crate::remote::{Extent, Validator, check_coding, parse_range, text};
use crate::source::shown;
use crate::space;
use reqwest::{Response, StatusCode, Url, header};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How often progress is told, and how long bytes may wait for being synced at most.
const TICK: Duration = Duration::from_millis(200);
const OLDEST: Duration = Duration::from_secs(2);

/// How it ended, if it ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// All bytes are there.
    Complete,
    /// The source is another one now.
    Changed,
}

/// What is brought, and how.
#[derive(Debug, Clone)]
pub(crate) struct Transfer {
    pub(crate) client: Client,
    pub(crate) url: Url,
    pub(crate) bound: Arc<[Bound]>,
    pub(crate) extent: Extent,
    /// What must stay the same; `None` where a digest says it better in the end.
    pub(crate) validator: Option<Validator>,
    pub(crate) partial: Arc<Partial>,
    /// How long it should be, bytes, where the server does not say how long it is.
    pub(crate) expected: Option<u64>,
    pub(crate) connections: u32,
    /// The most bytes that are asked for at once.
    pub(crate) piece: u64,
}

/// Who hears of progress.
pub(crate) type Watch = Arc<dyn Fn(Progress) + Send + Sync>;

impl Transfer {
    /// Brings what is missing and notes what came, also if it fails.
    ///
    /// # Errors
    /// [`FetchError`], with what came kept.
    pub(crate) async fn run(&self, name: &str, watch: &Watch) -> Result<Ended, FetchError> {
        let mut workers = JoinSet::new();
        match self.extent {
            Extent::Parts(size) => {
                let missing = self.partial.missing(size, self.piece);
                let n = u32::try_from(missing.len()).unwrap_or(u32::MAX);
                let queue = Arc::new(Mutex::new(VecDeque::from(missing)));
                for _ in 0..n.min(self.connections) {
                    workers.spawn(self.clone().bring_parts(queue.clone(), size));
                }
            }
            Extent::Whole(_) | Extent::Framed | Extent::Unframed => {
                workers.spawn(self.clone().bring_whole());
            }
        }
        let ended = self.watch(&mut workers, name, watch).await;
        // Those that are under way would write after it was noted what there is.
        workers.shutdown().await;
        save(&self.partial).await?;
        ended
    }

    /// Waits for the workers, syncs what they write and tells how far they are.
    async fn watch(
        &self,
        workers: &mut JoinSet<Result<Ended, FetchError>>,
        name: &str,
        watch: &Watch,
    ) -> Result<Ended, FetchError> {
        let mut meter = Meter::default();
        let mut saved = Instant::now();
        let mut told: Option<(Instant, u64)> = None;
        loop {
            let done = self.partial.done();
            // Who waits for progress must not hear of it where there is none.
            if told.is_none_or(|(at, before)| at.elapsed() >= TICK && done != before) {
                told = Some((Instant::now(), done));
                watch(Progress {
                    done,
                    total: self.extent.size(),
                    bytes_per_s: meter.note(Instant::now(), done),
                    ..Progress::of(name, Phase::Downloading)
                });
            }
            let due = tokio::select! {
                ended = workers.join_next() => match ended {
                    None => return Ok(Ended::Complete),
                    Some(Ok(Ok(Ended::Complete))) => false,
                    Some(Ok(other)) => return other,
                    Some(Err(broken)) => return Err(broke_down(&broken)),
                },
                () = self.partial.due.notified() => true,
                () = tokio::time::sleep(TICK) => saved.elapsed() >= OLDEST,
            };
            if due {
                save(&self.partial).await?;
                saved = Instant::now();
            }
        }
    }

    /// Brings pieces until there are none.
    async fn bring_parts(
        self,
        queue: Arc<Mutex<VecDeque<Range<u64>>>>,
        size: u64,
    ) -> Result<Ended, FetchError> {
        loop {
            let piece = queue
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_front();
            let Some(piece) = piece else {
                return Ok(Ended::Complete);
            };
            if self.bring_piece(piece, size).await? == Ended::Changed {
                return Ok(Ended::Changed);
            }
        }
    }

    async fn bring_piece(&self, mut piece: Range<u64>, size: u64) -> Result<Ended, FetchError> {
        let mut patience = Patience::new(&self.client.limits);
        while !piece.is_empty() {
            let before = piece.start;
            let tried = self.part(&mut piece, size).await;
            if piece.start > before {
                patience.progressed();
            }
            match tried {
                Ok(()) => {}
                Err(Failure::Changed) => return Ok(Ended::Changed),
                Err(Failure::Never(error)) => return Err(error),
                Err(Failure::Again { why, after }) => {
                    patience.rest(&shown(&self.url), why, after).await?;
                }
            }
        }
        Ok(Ended::Complete)
    }

    /// Asks for a piece once; its start moves with what came.
    async fn part(&self, piece: &mut Range<u64>, size: u64) -> Result<(), Failure> {
        let ask = Ask {
            range: Some(piece),
            same: self.validator.as_ref(),
            bound: &self.bound,
            ..Ask::default()
        };
        let mut response = self.client.ask(&self.url, ask).await?;
        self.check_part(&response, piece, size)?;
        while let Some(chunk) = self.client.chunk(&mut response).await? {
            let room = usize::try_from(piece.end - piece.start).unwrap_or(usize::MAX);
            let chunk = chunk.as_ref();
            let taken = &chunk[..chunk.len().min(room)];
            self.partial.write(piece.start, taken)?;
            piece.start += taken.len() as u64;
            if taken.len() < chunk.len() {
                return Err(Failure::again("it sent more than was asked for"));
            }
        }
        match piece.is_empty() {
            true => Ok(()),
            false => Err(Failure::again("it sent less than was asked for")),
        }
    }

    /// Makes sure that an answer is the part of this content that was asked for.
    fn check_part(
        &self,
        response: &Response,
        piece: &Range<u64>,
        size: u64,
    ) -> Result<(), Failure> {
        let headers = response.headers();
        check_coding(&self.url, headers)?;
        let now = Validator::of(headers);
        if self.validator.is_some() && now.is_some() && now != self.validator {
            return Err(Failure::Changed);
        }
        match response.status() {
            StatusCode::PARTIAL_CONTENT => {}
            // The condition did not hold, or the server forgot what it said of parts.
            StatusCode::OK if now == self.validator || self.validator.is_none() => {
                return Err(Failure::again("it sent the whole instead of a part"));
            }
            StatusCode::OK | StatusCode::RANGE_NOT_SATISFIABLE => return Err(Failure::Changed),
            status => return Err(Failure::again(format!("it answered {status}"))),
        }
        let part = text(headers, header::CONTENT_RANGE).and_then(parse_range);
        let Some((bytes, whole)) = part.and_then(|part| Some((part.bytes?, part.size))) else {
            return Err(Failure::again("it does not say which part it sent"));
        };
        if whole.is_some_and(|whole| whole != size) {
            return Err(Failure::Changed);
        }
        if bytes.start != piece.start {
            return Err(Failure::again("it sent another part than was asked for"));
        }
        Ok(())
    }

    /// Brings everything from the beginning, each time anew.
    async fn bring_whole(self) -> Result<Ended, FetchError> {
        let mut patience = Patience::new(&self.client.limits);
        let url = shown(&self.url);
        loop {
            match self.whole(&url).await {
                Ok(()) => return Ok(Ended::Complete),
                Err(Failure::Changed) => return Ok(Ended::Changed),
                Err(Failure::Never(error)) => return Err(error),
                Err(Failure::Again { why, after }) => patience.rest(&url, why, after).await?,
            }
        }
    }

    async fn whole(&self, url: &str) -> Result<(), Failure> {
        self.partial
            .begin(url, self.extent.size(), self.validator.clone())?;
        let size = self.extent.size();
        if size == Some(0) {
            return Ok(());
        }
        let ask = Ask {
            bound: &self.bound,
            ..Ask::default()
        };
        let mut response = self.client.ask(&self.url, ask).await?;
        check_coding(&self.url, response.headers())?;
        let now = Validator::of(response.headers());
        if self.validator.is_some() && now != self.validator {
            return Err(Failure::Changed);
        }
        let (mut at, mut room) = (0, 0);
        while let Some(chunk) = self.client.chunk(&mut response).await? {
            let chunk = chunk.as_ref();
            let end = at + chunk.len() as u64;
            match size {
                Some(size) if end > size => return Err(Failure::Changed),
                Some(_) => {}
                None => room = self.bound(end, room)?,
            }
            self.partial.write(at, chunk)?;
            at = end;
        }
        match size {
            Some(size) if at < size => Err(Failure::again(format!(
                "it ended after {at} of {size} bytes"
            ))),
            _ => Ok(()),
        }
    }

    /// Keeps what has no known length from going on for ever; returns up to where there is room.
    fn bound(&self, end: u64, room: u64) -> Result<u64, FetchError> {
        // Instead of something short a pointer may come.
        let most = self.expected.map(|expected| expected.max(lfs::LONGEST));
        if let (Some(expected), Some(_)) = (self.expected, most.filter(|most| end > *most)) {
            return Err(FetchError::Size {
                name: shown(&self.url),
                found: end,
                expected,
            });
        }
        if end <= room {
            return Ok(room);
        }
        let data = self.partial.data();
        let more = self.partial.checkpoint().max(end - room);
        space::ensure(data.parent().unwrap_or(data), more)?;
        Ok(room + more)
    }
}

async fn save(partial: &Arc<Partial>) -> Result<(), FetchError> {
    let partial = partial.clone();
    let saved = tokio::task::spawn_blocking(move || partial.save()).await;
    saved.unwrap_or_else(|broken| Err(broke_down(&broken)))
}

pub(crate) fn broke_down(broken: &tokio::task::JoinError) -> FetchError {
    FetchError::Request(format!(
        "the download broke down, which is a fault of its own: {broken}"
    ))
}
