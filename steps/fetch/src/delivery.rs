//! What was brought, while it still is where the next try would find it.
//!
//! Whoever takes archives apart may fail at it, or be killed. So what was brought leaves the folder of what
//! is under way only when it is put to its place, or when all is done with it.

use crate::error::FetchError;
use crate::partial::Partial;
use crate::receipt::Receipt;
use crate::transfer::broke_down;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files that were brought. Dropped without [`Delivery::settle`] it leaves them for the next try.
#[derive(Debug)]
pub struct Delivery {
    receipt: Receipt,
    there: Vec<There>,
}

/// Where a file is.
#[derive(Debug, Clone)]
pub(crate) enum There {
    /// Among those under way, perhaps as several files of the same content.
    Cached(Arc<Partial>),
    /// In the folder that it was brought into.
    Brought(PathBuf),
    /// Where it was put.
    Placed(PathBuf),
}

impl There {
    fn is_content(&self, content: &Arc<Partial>) -> bool {
        matches!(self, Self::Cached(own) if Arc::ptr_eq(own, content))
    }
}

impl Delivery {
    pub(crate) fn new(receipt: Receipt, there: Vec<There>) -> Self {
        Self { receipt, there }
    }

    /// What came; its files count as the ones here do.
    pub fn receipt(&self) -> &Receipt {
        &self.receipt
    }

    /// Where a file can be read now.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn path(&self, file: usize) -> &Path {
        match &self.there[file] {
            There::Cached(partial) => partial.data(),
            There::Brought(at) | There::Placed(at) => at,
        }
    }

    /// Moves a file to `to`, which must not exist.
    ///
    /// # Errors
    /// If the disk does not let it, or if something is there.
    ///
    /// # Panics
    /// If there is no such file.
    pub async fn place(&mut self, file: usize, to: &Path) -> Result<(), FetchError> {
        if self.path(file) == to {
            self.there[file] = There::Placed(to.to_owned());
            return Ok(());
        }
        put(&self.there[file], to, self.uses(file) <= 1).await?;
        self.there[file] = There::Placed(to.to_owned());
        Ok(())
    }

    /// Moves all files into a folder, by their own paths.
    ///
    /// # Errors
    /// As [`Delivery::place`].
    pub async fn place_all(mut self, into: &Path) -> Result<Receipt, FetchError> {
        for file in 0..self.there.len() {
            let to = into.join(&self.receipt.files[file].path);
            self.place(file, &to).await?;
        }
        self.settle()
    }

    /// As how many files the content of this one is still wanted.
    fn uses(&self, file: usize) -> usize {
        let There::Cached(this) = &self.there[file] else {
            return 0;
        };
        let all = self.there.iter();
        all.filter(|there| there.is_content(this)).count()
    }

    fn first_use(&self, content: &Arc<Partial>) -> Option<usize> {
        let mut all = self.there.iter();
        all.position(|there| there.is_content(content))
    }

    /// Removes what was not put anywhere.
    ///
    /// # Errors
    /// If the disk does not let it.
    pub fn settle(self) -> Result<Receipt, FetchError> {
        for file in 0..self.there.len() {
            match &self.there[file] {
                // Once, or it could be that of another process already.
                There::Cached(partial) if self.first_use(partial) == Some(file) => {
                    partial.discard()?
                }
                There::Brought(at) => fs::remove_file(at).map_err(FetchError::io("remove", at))?,
                There::Cached(_) | There::Placed(_) => {}
            }
        }
        Ok(self.receipt)
    }
}

/// Puts a file to `to`, which must not exist, and leaves nothing where it was if it is the last use of it.
pub(crate) async fn put(there: &There, to: &Path, is_last: bool) -> Result<(), FetchError> {
    let folder = to.parent().unwrap_or(to);
    fs::create_dir_all(folder).map_err(FetchError::io("create the folder", folder))?;
    if to.exists() {
        let exists = io::Error::from(io::ErrorKind::AlreadyExists);
        return Err(FetchError::io("create", to)(exists));
    }
    let (from, to) = (there.clone(), to.to_owned());
    let moved = tokio::task::spawn_blocking(move || match from {
        There::Cached(partial) if is_last => partial.finish(&to),
        There::Cached(partial) => partial.lend(&to),
        There::Brought(at) | There::Placed(at) => {
            fs::rename(&at, &to).map_err(FetchError::io("move", &at))
        }
    });
    moved
        .await
        .unwrap_or_else(|broken| Err(broke_down(&broken)))
}
