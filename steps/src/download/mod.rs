//! `dataset.fetch` and `model.download`: what lies elsewhere is brought here once, and held to its digest.
//!
//! How bytes come is the business of the crate `fetch`. Here a plan's options become a request, its
//! progress the step's, and its receipt the step's record.

mod dataset;
mod model;
mod options;

pub(crate) use dataset::DatasetFetch;
pub(crate) use model::ModelDownload;
pub(crate) use options::Digest;

use crate::files;
use engine::step::{FailureClass, StepContext, StepError};
use engine::types::Text;
use fetch::{
    Cache, Client, Delivery, FetchError, Fetched, Fetcher, Hub, Limits, Options, Pin, Progress,
    Receipt, Request, Selection, Token, UnpackLimits,
};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Bytes that a kill may cost: synced and noted are those before.
const CHECKPOINT: u64 = 32 << 20;

/// What is left of a fetch besides its files.
#[derive(Serialize)]
struct Record<'a> {
    /// The short name that the plan gave.
    name: Option<&'a str>,
    /// What is known of the licence by the short name; the source's own word is in the receipt.
    known_licence: Option<&'a str>,
    /// What came out of archives.
    unpacked_files: usize,
    unpacked_bytes: u64,
    #[serde(flatten)]
    receipt: &'a Receipt,
}

impl<'a> Record<'a> {
    fn of(receipt: &'a Receipt) -> Self {
        Self {
            name: None,
            known_licence: None,
            unpacked_files: 0,
            unpacked_bytes: 0,
            receipt,
        }
    }

    fn write(&self, path: &Path) -> Result<(), StepError> {
        files::write_json(path, self)
    }
}

/// What both steps say of how to bring something.
struct How<'a> {
    token: Option<&'a Text>,
    connections: u32,
    lfs: Option<&'a str>,
}

impl How<'_> {
    /// Brings a source, with `into` for what has to lie somewhere meanwhile; stops when the step should.
    async fn bring(
        &self,
        context: &StepContext,
        request: &Request,
        into: &Path,
    ) -> Result<Delivery, StepError> {
        let fetcher = self.fetcher(context)?;
        tokio::select! {
            delivery = fetcher.bring(request, into) => delivery.map_err(failed),
            () = context.cancelled() => {
                let error = StepError::new("interrupted; what has come is kept for the next run");
                Err(error.class(FailureClass::Interrupted))
            }
        }
    }

    fn fetcher(&self, context: &StepContext) -> Result<Fetcher, StepError> {
        let mut options = Options::usual(|name| std::env::var(name).ok()).map_err(failed)?;
        options.connections = self.connections;
        let lfs = self.lfs.map(str::parse).transpose();
        options.lfs = lfs.map_err(|_| StepError::new("`lfs` is no address"))?;
        let token = self.token.map(|token| context.text(token)).transpose()?;
        let token = token
            .map(|token| Token::bearer(&token, &options.hub))
            .transpose();
        let client = Client::new(Limits::default(), token.map_err(failed)?).map_err(failed)?;
        let folder = Cache::usual(|name| std::env::var_os(name).map(PathBuf::from));
        let cache = Cache::open(&folder, CHECKPOINT).map_err(failed)?;
        Ok(Fetcher::new(client, cache, options, tell(context)))
    }
}

/// Brings the one file of a source to `to`, for a step that makes something of it; says what came.
pub(crate) async fn bring_file(
    context: &StepContext,
    request: &Request,
    to: &Path,
) -> Result<Fetched, StepError> {
    let how = How {
        token: None,
        connections: options::USUAL.get(),
        lfs: None,
    };
    let mut delivery = how.bring(context, request, &context.folder).await?;
    delivery.place(0, to).await.map_err(failed)?;
    let receipt = delivery.settle().map_err(failed)?;
    let file = receipt.files.into_iter().next();
    file.ok_or_else(|| StepError::new("the source has no file"))
}

/// Takes an archive apart into an existing folder; stops when the step should.
pub(crate) async fn take_apart(
    context: &StepContext,
    archive: &Path,
    into: &Path,
) -> Result<(), StepError> {
    let name = archive.file_name().unwrap_or_default().to_string_lossy();
    let name = name.into_owned();
    let (from, to, called) = (archive.to_owned(), into.to_owned(), name.clone());
    let work = move |told: &mut dyn FnMut(u64) -> bool| {
        let limits = UnpackLimits::default();
        fetch::unpack(&from, &called, &to, &Selection::all(), limits, told)
    };
    blocking(context, work, name).await.map(drop)
}

/// Tells the engine how far a download is.
fn tell(context: &StepContext) -> impl Fn(Progress) + Send + Sync + 'static {
    let told = context.progress.clone();
    move |progress: Progress| told(as_engine(&progress))
}

fn as_engine(progress: &Progress) -> engine::step::Progress {
    engine::step::Progress {
        doing: progress.to_string(),
        done: progress.total.map(|total| (progress.done, total)),
    }
}

/// A repository at the revision that an option names.
fn at(hub: Hub, revision: &str) -> Result<Hub, StepError> {
    hub.at(revision)
        .map_err(|error| StepError::new(error.to_string()).help(error.help))
}

fn failed(error: FetchError) -> StepError {
    let class = match error.is_transient() {
        true => FailureClass::Infrastructure,
        false => FailureClass::Step,
    };
    let step = StepError::new(error.to_string()).class(class);
    match error.help() {
        Some(help) => step.help(help),
        None => step,
    }
}

/// Says in a line what was brought, and by what it can be pinned if it is not.
fn summary(receipt: &Receipt, unpacked: usize) -> String {
    let noun = if receipt.files.len() == 1 {
        "file"
    } else {
        "files"
    };
    let bytes = fetch::bytes_text(receipt.bytes);
    let mut text = format!("{} {noun}, {bytes}", receipt.files.len());
    let resumed: u64 = receipt.files.iter().map(|f| f.resumed_bytes).sum();
    if resumed > 0 {
        text += &format!(", {} of it from before", fetch::bytes_text(resumed));
    }
    if unpacked > 0 {
        text += &format!(", {unpacked} unpacked");
    }
    match &receipt.pin {
        Pin::Pinned => text,
        Pin::Moving(advice) if advice.is_empty() => text + "; not pinned",
        Pin::Moving(advice) => text + &format!("; not pinned: write `{advice}`"),
    }
}

/// Runs what blocks for the disk and stops when the step should; it is asked now and then whether to go on.
async fn blocking<T: Send + 'static>(
    context: &StepContext,
    work: impl FnOnce(&mut dyn FnMut(u64) -> bool) -> Result<T, FetchError> + Send + 'static,
    name: String,
) -> Result<T, StepError> {
    let (told, cancel) = (context.progress.clone(), context.cancel.clone());
    let done = tokio::task::spawn_blocking(move || {
        let mut last = 0;
        work(&mut |bytes| {
            // Each megabyte: more often nobody can see.
            if bytes >> 20 != last {
                last = bytes >> 20;
                let doing = format!("unpacking {name}, {}", fetch::bytes_text(bytes));
                told(engine::step::Progress { doing, done: None });
            }
            !*cancel.borrow()
        })
    });
    match done.await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(_)) if context.is_cancelled() => {
            Err(StepError::new("interrupted").class(FailureClass::Interrupted))
        }
        Ok(Err(error)) => Err(failed(error)),
        Err(broken) => Err(StepError::because("unpacking broke down", broken)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fetch::{Fetched, Sha256};

    #[test]
    fn what_is_not_pinned_says_by_what_it_can_be() {
        let file = Fetched {
            path: "a.json".into(),
            url: "https://h/a.json".to_owned(),
            bytes: 5 << 20,
            sha256: Sha256::of(b""),
            resumed_bytes: 2 << 20,
        };
        let mut receipt = Receipt {
            source: "https://h/a.json".to_owned(),
            revision: None,
            pin: Pin::Moving("sha256 = \"e3b0\"".to_owned()),
            licence: None,
            bytes: file.bytes,
            files: vec![file],
            seconds: 1.0,
            bytes_per_s: 3.0,
            fetched_at_s: 0,
        };
        assert_eq!(
            summary(&receipt, 3),
            "1 file, 5.0 MiB, 2.0 MiB of it from before, 3 unpacked; not pinned: write `sha256 = \"e3b0\"`"
        );
        receipt.pin = Pin::Pinned;
        receipt.files[0].resumed_bytes = 0;
        assert_eq!(summary(&receipt, 0), "1 file, 5.0 MiB");
    }

    #[test]
    fn what_may_pass_is_a_failure_of_the_infrastructure() {
        let given_up = FetchError::GivenUp {
            url: "https://h/a".to_owned(),
            tries: 8,
            why: "it answered 503".to_owned(),
        };
        assert_eq!(failed(given_up).class, FailureClass::Infrastructure);
        let refused = failed(FetchError::Refused {
            url: "https://h/a".to_owned(),
            status: 401,
        });
        assert_eq!(refused.class, FailureClass::Step);
        assert!(
            refused
                .help
                .is_some_and(|help| help.contains("secret.HF_TOKEN"))
        );
    }
}
