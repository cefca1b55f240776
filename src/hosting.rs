//! What commands that serve have in common: their threads, the file with their address, and how
//! signals end them.

use crate::exit::Failure;
use crate::signals::{self, Signals};
use crate::terminal;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

/// Threads that talk to clients.
const HTTP_THREADS: usize = 2;
/// How long a request in its last step may hold up the end after everything else is closed.
const LEFTOVERS: Duration = Duration::from_secs(5);

/// Resolves when a signal says that it is time to end.
pub(crate) type Shutdown = Pin<Box<dyn Future<Output = ()> + Send>>;
/// Is told where clients are listened for.
pub(crate) type OnListening = Box<dyn FnOnce(SocketAddr) + Send>;

/// Where and how something is hosted.
#[derive(Clone, Copy)]
pub(crate) struct Host<'a> {
    /// Where its address is written.
    pub(crate) address_file: Option<&'a Path>,
    /// Whether anything is said of it.
    pub(crate) talkative: bool,
    /// What it does once it listens, said after its address.
    pub(crate) then: &'static str,
}

impl Host<'_> {
    /// Runs `serve` to its end, which a signal brings about.
    ///
    /// # Errors
    /// If it cannot be hosted, or ends badly.
    pub(crate) fn run<F, E>(
        self,
        serve: impl FnOnce(Shutdown, OnListening) -> F,
    ) -> Result<(), Failure>
    where
        F: Future<Output = Result<(), E>>,
        E: Display,
    {
        let failed = |e: std::io::Error| Failure::new(format!("could not start threads: {e}"));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(HTTP_THREADS)
            .enable_all()
            .build()
            .map_err(failed)?;
        let served = runtime.block_on(self.host(serve));
        runtime.shutdown_timeout(LEFTOVERS);
        if let Some(file) = self.address_file {
            // Nobody listens there any more; one that somebody removed is just as well.
            let _ = std::fs::remove_file(file);
        }
        served
    }

    async fn host<F, E>(self, serve: impl FnOnce(Shutdown, OnListening) -> F) -> Result<(), Failure>
    where
        F: Future<Output = Result<(), E>>,
        E: Display,
    {
        let mut signals = Signals::listen()
            .map_err(|e| Failure::new(format!("could not listen for signals: {e}")))?;
        let say = say(self.talkative);
        let (told, mut written) = tokio::sync::oneshot::channel::<Failure>();
        let (file, then) = (self.address_file.map(Path::to_owned), self.then);
        let on_listening = move |address: SocketAddr| {
            say(format!("listening at http://{address}, {then}"));
            if let Some(file) = file
                && let Err(error) = write_address(&file, address)
            {
                // It ends by itself if nobody waits for this any more.
                let _ = told.send(
                    Failure::new(format!("could not write `{}`: {error}", file.display()))
                        .help("give `--address-file` in a folder that exists and is writable"),
                );
            }
        };
        let shutdown = async move {
            signals.next().await;
            say("stopping; a second signal ends at once".to_owned());
            tokio::spawn(async move {
                signals.next().await;
                std::process::exit(signals::KILLED_BY_SIGINT);
            });
        };
        tokio::select! {
            served = serve(Box::pin(shutdown), Box::new(on_listening)) => {
                served.map_err(|e| Failure::new(e.to_string()))
            }
            Ok(failure) = &mut written => Err(failure),
        }
    }
}

/// Says something on standard error, or nothing.
pub(crate) fn say(talkative: bool) -> impl Fn(String) + Copy + Send + 'static {
    move |text: String| {
        if talkative {
            terminal::error_line(text);
        }
    }
}

/// Writes aside and renames, so that whoever waits for the file never reads half of it.
fn write_address(file: &Path, address: SocketAddr) -> std::io::Result<()> {
    let mut aside = file.as_os_str().to_owned();
    aside.push(format!(".{}", std::process::id()));
    std::fs::write(&aside, format!("http://{address}"))?;
    std::fs::rename(&aside, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_written_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("address");
        write_address(&file, ([127, 0, 0, 1], 8123).into()).expect("written");
        assert_eq!(
            std::fs::read_to_string(&file).expect("read"),
            "http://127.0.0.1:8123"
        );
        assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 1);
    }
}
