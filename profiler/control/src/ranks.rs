//! All processes of a server: each GPU's worker is one, and so is whoever else uses CUDA. What is asked is
//! asked of all at once, so that their windows begin together.

use crate::error::ControlError;
use crate::rank::Rank;
use crate::recording::Recording;
use profiler_wire::{Line, SOCKET};
use std::fs;
use std::path::Path;
use std::thread;

/// The processes that can be reached.
#[derive(Debug)]
pub struct Ranks {
    ranks: Vec<Rank>,
    /// Those that could not be: sockets of dead ones stay.
    lost: Vec<ControlError>,
}

/// What each process answered, by its id.
pub type Outcomes = Vec<(u32, Result<Line, ControlError>)>;

impl Ranks {
    /// Reaches every process whose socket lies in a folder.
    ///
    /// # Errors
    /// [`ControlError::Folder`], or [`ControlError::Nobody`] if none can be reached.
    pub fn connect(folder: &Path) -> Result<Self, ControlError> {
        let unread = |source| ControlError::Folder {
            path: folder.to_owned(),
            source,
        };
        let (mut ranks, mut lost) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(folder).map_err(unread)? {
            let path = entry.map_err(unread)?.path();
            let stem = path
                .file_stem()
                .and_then(|stem| stem.to_str()?.parse().ok());
            let (Some(pid), true) = (stem, path.extension().is_some_and(|kind| kind == SOCKET))
            else {
                continue;
            };
            match Rank::connect(pid, &path) {
                Ok(rank) => ranks.push(rank),
                Err(error) => lost.push(error),
            }
        }
        if ranks.is_empty() {
            return Err(ControlError::Nobody {
                path: folder.to_owned(),
            });
        }
        ranks.sort_by_key(Rank::pid);
        Ok(Self { ranks, lost })
    }

    /// Those that are reached.
    #[must_use]
    pub fn all(&self) -> &[Rank] {
        &self.ranks
    }

    /// Why others are not.
    #[must_use]
    pub fn lost(&self) -> &[ControlError] {
        &self.lost
    }

    /// Has every process find its CUPTI and set its buffers up, and then opens the window in all at once. In
    /// those that did not arm none is opened.
    pub fn start(&mut self, recording: &Recording) -> Outcomes {
        let armed = self.ask(&recording.arm());
        let line = recording.start();
        let asked = self.ranks.iter_mut().zip(armed);
        in_parallel(asked.map(|(rank, (pid, armed))| {
            let line = &line;
            (pid, move || armed.and_then(|_| rank.ask(line)))
        }))
    }

    /// Closes the windows, or tells of those that closed by themselves.
    pub fn stop(&mut self) -> Outcomes {
        self.ask(&Line::new("stop"))
    }

    /// Has the library's thread end in all of them: nothing of these processes can be recorded any more.
    pub fn detach(mut self) -> Outcomes {
        self.ask(&Line::new("detach"))
    }

    /// Asks how far each is: `phase` is `asleep`, `open` or `closed`, beside what was counted.
    pub fn status(&mut self) -> Outcomes {
        self.ask(&Line::new("status"))
    }

    fn ask(&mut self, line: &Line) -> Outcomes {
        in_parallel(
            self.ranks
                .iter_mut()
                .map(|rank| (rank.pid(), move || rank.ask(line))),
        )
    }
}

/// Does all at once, each in a thread of its own.
fn in_parallel<F>(all: impl Iterator<Item = (u32, F)>) -> Outcomes
where
    F: FnOnce() -> Result<Line, ControlError> + Send,
{
    thread::scope(|scope| {
        let running: Vec<_> = all.map(|(pid, ask)| (pid, scope.spawn(ask))).collect();
        let done = running.into_iter().map(|(pid, thread)| {
            let panicked = |_| {
                let source = std::io::Error::other("its thread panicked");
                Err(ControlError::Gone { pid, source })
            };
            (pid, thread.join().unwrap_or_else(panicked))
        });
        done.collect()
    })
}
