//! One run's hold on the machine: shared or exclusive, counted over its nodes.

use super::{ClaimError, open, try_lock, write_holder};
use crate::policy::Machine;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

pub(super) const MACHINE: &str = "machine";
const TURN: &str = "machine.turn";

/// The lock on the machine that a run holds, and for how many of its nodes.
#[derive(Debug)]
pub(super) struct MachineLock {
    machine: PathBuf,
    turn: PathBuf,
    holder: String,
    n_shared: u32,
    n_exclusive: u32,
    /// The lock, exclusive if `is_alone`.
    file: Option<File>,
    is_alone: bool,
    /// Held while this run waits to be alone.
    waiting: Option<File>,
    /// How many of its nodes wait for that.
    n_waiting: u32,
}

impl MachineLock {
    pub(super) fn new(folder: &Path, holder: String) -> Self {
        Self {
            machine: folder.join(MACHINE),
            turn: folder.join(TURN),
            holder,
            n_shared: 0,
            n_exclusive: 0,
            file: None,
            is_alone: false,
            waiting: None,
            n_waiting: 0,
        }
    }

    /// Takes the machine once more, if nobody else's hold forbids it.
    pub(super) fn try_acquire(&mut self, mode: Machine) -> Result<bool, ClaimError> {
        let acquired = match mode {
            Machine::Shared => self.file.is_some() || self.try_share()?,
            Machine::Exclusive => self.is_alone || self.try_be_alone()?,
        };
        if acquired {
            *self.count(mode) += 1;
        }
        Ok(acquired)
    }

    /// Gives one hold back. The lock goes with the last, so that it never has to be weakened.
    pub(super) fn release(&mut self, mode: Machine) {
        let count = self.count(mode);
        *count = count.saturating_sub(1);
        if self.n_shared == 0 && self.n_exclusive == 0 {
            let file = self.file.take();
            if let Some(file) = file.filter(|_| self.is_alone) {
                // Nobody is to be told of a holder that is long gone.
                let _ = file.set_len(0);
            }
            self.is_alone = false;
        }
    }

    /// One more node waits to be alone, until it gives its turn up.
    pub(super) fn want_turn(&mut self) {
        self.n_waiting += 1;
    }

    /// Lets others go first again, unless another node of this run waits.
    pub(super) fn give_up_turn(&mut self) {
        self.n_waiting = self.n_waiting.saturating_sub(1);
        if self.n_waiting == 0 {
            self.waiting = None;
        }
    }

    fn count(&mut self, mode: Machine) -> &mut u32 {
        match mode {
            Machine::Shared => &mut self.n_shared,
            Machine::Exclusive => &mut self.n_exclusive,
        }
    }

    fn try_share(&mut self) -> Result<bool, ClaimError> {
        // Not while somebody waits to be alone, unless that is this run itself.
        let turn = match &self.waiting {
            Some(_) => None,
            None => match try_lock(&self.turn, &self.holder)? {
                Some(turn) => Some(turn),
                None => return Ok(false),
            },
        };
        let file = open(&self.machine).map_err(|source| self.failed(source))?;
        let shared = match file.try_lock_shared() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => false,
            Err(TryLockError::Error(source)) => return Err(self.failed(source)),
        };
        if shared {
            self.file = Some(file);
        }
        drop(turn);
        Ok(shared)
    }

    fn try_be_alone(&mut self) -> Result<bool, ClaimError> {
        if self.waiting.is_none() {
            self.waiting = try_lock(&self.turn, &self.holder)?;
        }
        if self.waiting.is_none() {
            return Ok(false);
        }
        let mut file = match self.file.take() {
            Some(file) => file,
            None => open(&self.machine).map_err(|source| self.failed(source))?,
        };
        match file.try_lock() {
            Ok(()) => {
                // It only serves to say who has it.
                let _ = write_holder(&mut file, &self.holder);
                self.file = Some(file);
                self.is_alone = true;
                self.waiting = None;
                Ok(true)
            }
            Err(TryLockError::Error(source)) => Err(self.failed(source)),
            Err(TryLockError::WouldBlock) => {
                self.share_again(file)?;
                Ok(false)
            }
        }
    }

    /// An attempt to strengthen a lock loses it. The turn keeps everybody else from taking it
    /// meanwhile, so it can be had back at once.
    fn share_again(&mut self, file: File) -> Result<(), ClaimError> {
        if self.n_shared == 0 {
            return Ok(());
        }
        match file.lock_shared() {
            Ok(()) => {
                self.file = Some(file);
                Ok(())
            }
            Err(source) => Err(self.failed(source)),
        }
    }

    fn failed(&self, source: std::io::Error) -> ClaimError {
        ClaimError::Io {
            path: self.machine.clone(),
            source,
        }
    }
}
