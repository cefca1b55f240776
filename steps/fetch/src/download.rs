//! One file, from whichever of its mirrors gives it: begun or gone on with, and held to its digest.

use crate::cache::Cache;
use crate::client::{Bound, Client};
use crate::digest::{Sha256, digest_file};
use crate::error::FetchError;
use crate::lfs::Pointer;
use crate::partial::{About, Partial};
use crate::progress::{Phase, Progress};
use crate::remote::{Extent, Remote};
use crate::source::shown;
use crate::space;
use crate::transfer::{Ended, Transfer, Watch, broke_down};
use reqwest::Url;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often a source may turn out to be another one while it is read.
const MOST_CHANGES: u32 = 5;
/// How often another process is asked whether it is done.
const POLL: Duration = Duration::from_millis(250);

/// One file that is to be brought.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    /// What it is called in progress.
    pub(crate) name: String,
    /// Where it is; the first that gives it is taken.
    pub(crate) urls: Vec<Url>,
    /// Headers that some hosts get.
    pub(crate) bound: Arc<[Bound]>,
    /// What it must be.
    pub(crate) sha256: Option<Sha256>,
    /// How long it must be, bytes.
    pub(crate) size: Option<u64>,
    /// Whether a pointer of Git LFS may come in its place; never for what a pointer stands for.
    pub(crate) may_be_pointer: bool,
}

impl Job {
    /// What it is known by while it is under way: by content where that is known, so that mirrors
    /// share it, else by its address.
    pub(crate) fn identity(&self) -> String {
        match (self.sha256, self.urls.first()) {
            (Some(sha256), _) => format!("sha256:{sha256}"),
            (None, Some(url)) => url.to_string(),
            (None, None) => String::new(),
        }
    }
}

/// A file that is there, still among those under way.
#[derive(Debug)]
pub(crate) struct Brought {
    pub(crate) url: Url,
    pub(crate) bytes: u64,
    /// Of these the ones that were there before.
    pub(crate) resumed: u64,
    pub(crate) sha256: Sha256,
    /// What it stands for, if it is only a pointer of Git LFS.
    pub(crate) pointer: Option<Pointer>,
    pub(crate) partial: Arc<Partial>,
}

/// What downloads share.
#[derive(Clone)]
pub(crate) struct Downloader {
    pub(crate) client: Client,
    pub(crate) cache: Cache,
    pub(crate) connections: u32,
    pub(crate) piece: u64,
    pub(crate) watch: Watch,
}

impl Downloader {
    /// Brings a file. What came before a failure is kept for the next try.
    ///
    /// # Errors
    /// [`FetchError`].
    pub(crate) async fn bring(&self, job: &Job) -> Result<Brought, FetchError> {
        let partial = Arc::new(self.claim(job).await?);
        let mut failed = Vec::new();
        for url in &job.urls {
            match self.from(url, job, &partial).await {
                Ok(brought) => return Ok(brought),
                // Another mirror writes to the same disk.
                Err(error @ (FetchError::Io { .. } | FetchError::Space { .. })) => {
                    return Err(error);
                }
                Err(error) => failed.push(error),
            }
        }
        match failed.pop() {
            Some(error) if failed.is_empty() => Err(error),
            last => Err(FetchError::Mirrors(
                failed.into_iter().chain(last).collect(),
            )),
        }
    }

    /// Waits until no other process brings the same.
    async fn claim(&self, job: &Job) -> Result<Partial, FetchError> {
        let began = Instant::now();
        loop {
            if let Some(partial) = self.cache.claim(&job.identity())? {
                return Ok(partial);
            }
            if began.elapsed() > self.client.limits.busy {
                return Err(FetchError::Busy(self.cache.folder().to_owned()));
            }
            (self.watch)(Progress::of(&job.name, Phase::Waiting));
            tokio::time::sleep(POLL).await;
        }
    }

    async fn from(
        &self,
        url: &Url,
        job: &Job,
        partial: &Arc<Partial>,
    ) -> Result<Brought, FetchError> {
        let mut changes = 0;
        let mut resumed = None;
        loop {
            (self.watch)(Progress::of(&job.name, Phase::Asking));
            let remote = Remote::ask(&self.client, url, &job.bound).await?;
            check_size(url, job, remote.extent)?;
            // A digest makes sure of the whole in the end, whatever parts it was put together of.
            let is_safe = remote.validator.is_some() || job.sha256.is_some();
            let extent = match remote.extent {
                Extent::Parts(size) if !is_safe => Extent::Whole(size),
                Extent::Unframed if job.sha256.is_none() => return Err(unframed(url)),
                extent => extent,
            };
            prepare(url, job, extent, &remote, partial)?;
            // What comes as a whole begins anew, whatever is there.
            let there = match extent {
                Extent::Parts(_) => partial.done(),
                Extent::Whole(_) | Extent::Framed | Extent::Unframed => 0,
            };
            let had = *resumed.get_or_insert(there);
            space::ensure(
                self.cache.folder(),
                extent.size().unwrap_or(0).saturating_sub(there),
            )?;
            let transfer = Transfer {
                client: self.client.clone(),
                url: url.clone(),
                bound: job.bound.clone(),
                extent,
                // Servers behind one address may have tags of their own for the same content.
                validator: remote.validator.filter(|_| job.sha256.is_none()),
                partial: partial.clone(),
                expected: job.size,
                connections: self.connections,
                piece: self.piece,
            };
            let ended = transfer.run(&job.name, &self.watch).await?;
            if ended == Ended::Complete {
                match self.check(url, job, partial, had).await {
                    // What was there before may have been of another content.
                    Err(FetchError::Digest { .. }) if had > 0 && changes == 0 => {}
                    checked => return checked,
                }
            }
            changes += 1;
            if changes >= MOST_CHANGES {
                let (url, times) = (shown(url), changes);
                return Err(FetchError::Changing { url, times });
            }
            partial.begin(&shown(url), None, None)?;
            resumed = None;
        }
    }

    /// Holds what came to its digest.
    async fn check(
        &self,
        url: &Url,
        job: &Job,
        partial: &Arc<Partial>,
        resumed: u64,
    ) -> Result<Brought, FetchError> {
        let pointer = match job.may_be_pointer {
            true => Pointer::at(partial.data())?,
            false => None,
        };
        // What is expected is the content, which is not here yet if this is a pointer.
        let found = partial.done();
        let size = job.size.filter(|_| pointer.is_none());
        if let Some(expected) = size.filter(|expected| *expected != found) {
            partial.begin(&shown(url), None, None)?;
            return Err(FetchError::Size {
                name: shown(url),
                found,
                expected,
            });
        }
        let sha256 = self.digest(&job.name, partial.data()).await?;
        let expected = job.sha256.filter(|_| pointer.is_none());
        if let Some(expected) = expected.filter(|expected| *expected != sha256) {
            // Nothing of it is worth anything to anyone.
            partial.begin(&shown(url), None, None)?;
            return Err(FetchError::Digest {
                name: shown(url),
                found: sha256,
                expected,
            });
        }
        Ok(Brought {
            url: url.clone(),
            bytes: partial.done(),
            resumed,
            sha256,
            pointer,
            partial: partial.clone(),
        })
    }

    /// Finds a file again that was brought to its end a moment ago, if nobody has taken it since.
    pub(crate) async fn again(
        &self,
        job: &Job,
        sha256: Sha256,
    ) -> Result<Option<Arc<Partial>>, FetchError> {
        let partial = self.claim(job).await?;
        let is_same = partial.is_whole() && self.digest(&job.name, partial.data()).await? == sha256;
        Ok(is_same.then(|| Arc::new(partial)))
    }

    /// Hashes a file beside everything else, and tells how far it is.
    pub(crate) async fn digest(&self, name: &str, path: &Path) -> Result<Sha256, FetchError> {
        let (watch, name, path) = (self.watch.clone(), name.to_owned(), path.to_owned());
        let total = std::fs::metadata(&path).map(|found| found.len()).ok();
        let hashed = tokio::task::spawn_blocking(move || {
            digest_file(&path, &mut |done| {
                watch(Progress {
                    done,
                    total,
                    ..Progress::of(&name, Phase::Checking)
                });
                true
            })
        });
        hashed
            .await
            .unwrap_or_else(|broken| Err(broke_down(&broken)))
    }
}

fn check_size(url: &Url, job: &Job, extent: Extent) -> Result<(), FetchError> {
    match (job.size, extent.size()) {
        (Some(expected), Some(found)) if expected != found => Err(FetchError::Size {
            name: shown(url),
            found,
            expected,
        }),
        _ => Ok(()),
    }
}

fn unframed(url: &Url) -> FetchError {
    FetchError::Answer {
        url: shown(url),
        why: "it does not say how long it is, and there is no `sha256` that could tell a cut from its end"
            .to_owned(),
    }
}

/// Keeps what is there if it is of the same content, and begins anew if not.
fn prepare(
    url: &Url,
    job: &Job,
    extent: Extent,
    remote: &Remote,
    partial: &Partial,
) -> Result<(), FetchError> {
    let Extent::Parts(size) = extent else {
        // The transfer begins anew itself, each time.
        return Ok(());
    };
    let now = About {
        source: shown(url),
        size,
        validator: remote.validator.clone(),
    };
    let is_same = partial.about().is_some_and(|then| {
        then.size == size && (job.sha256.is_some() || (then == now && now.validator.is_some()))
    });
    match is_same {
        true => partial.adopt(now),
        false => partial.begin(&now.source, Some(size), now.validator)?,
    }
    Ok(())
}
