//! The thread that reads: the server's metrics and GPUs, at a steady beat, away from whatever measures.
//!
//! Both go on side by side on one thread, so that a server that does not answer holds no GPU up. A beat that
//! finds the reading before it under way passes.

use super::super::quantities::Told;
use crate::http::{self, Peer};
use engine::service::Endpoint;
use engine::step::StepError;
use std::time::Duration;
use telemetry::exposition::{Exposition, Limits, Series};
use telemetry::{Gpu, Gpus, Reading, clock};
use tokio::sync::{oneshot, watch};
use tokio::time::{Interval, MissedTickBehavior};

/// How long the thread may take to end: what it waits for has shorter limits.
const END: Duration = Duration::from_secs(10);
/// Readings that are kept of each thing: a day of the quickest beat.
const MOST: usize = 864_000;

/// What is to be read.
pub(super) struct Asked {
    pub(super) endpoint: Endpoint,
    /// Where the server tells metrics, if it does.
    pub(super) path: Option<String>,
    pub(super) interval: Duration,
    /// How long the server may take to answer.
    pub(super) patience: Duration,
    /// Further series by the server's names.
    pub(super) further: Vec<String>,
    /// The GPUs, and where they are read.
    pub(super) gpus: Option<(Box<dyn Gpus>, Vec<Gpu>)>,
}

/// When an answer was there, and what it told; or why there was none.
pub(super) type Answer = Result<(u64, Told), String>;
/// When a GPU was asked, when it had answered, and what.
pub(super) type Read = (u64, u64, Result<Reading, String>);

/// What was read; instants are those of the monotonic clock, nanoseconds.
#[derive(Default)]
pub(super) struct Found {
    pub(super) scrapes: Vec<(u64, Answer)>,
    pub(super) further: Vec<(u64, Series)>,
    pub(super) gpus: Vec<(Gpu, Vec<Read>)>,
    pub(super) bytes: u64,
    /// The first thing that was wrong with a text that was read all the same, or that no more was kept.
    pub(super) trouble: Option<String>,
    /// What the thread has used of a processor.
    pub(super) cpu: Duration,
}

/// A thread that reads until it is ended or dropped.
pub(super) struct Sampler {
    stop: watch::Sender<bool>,
    found: oneshot::Receiver<Found>,
}

impl Sampler {
    /// Starts the thread. It reads at once, so that what changes first has something to differ from.
    pub(super) fn start(asked: Asked) -> Result<Self, StepError> {
        let failed = |e| StepError::because("could not start the thread that reads telemetry", e);
        let (stop, stopped) = watch::channel(false);
        let (tell, found) = oneshot::channel();
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let mut found = match runtime {
                Ok(runtime) => runtime.block_on(all(&asked, stopped)),
                Err(e) => Found {
                    trouble: Some(format!("nothing could be read: {e}")),
                    ..Found::default()
                },
            };
            found.cpu = clock::thread_cpu();
            // Who does not wait for it any more has failed for a reason of its own.
            let _ = tell.send(found);
        };
        let thread = std::thread::Builder::new().name("telemetry".to_owned());
        thread.spawn(work).map_err(failed)?;
        Ok(Self { stop, found })
    }

    /// Ends it and returns what was read.
    pub(super) async fn end(self) -> Result<Found, String> {
        // The thread may have ended by itself, having nothing to read.
        let _ = self.stop.send(true);
        match tokio::time::timeout(END, self.found).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(_)) => Err("the thread that reads telemetry has died".to_owned()),
            Err(_) => Err("the thread that reads telemetry did not end".to_owned()),
        }
    }
}

async fn all(asked: &Asked, stopped: watch::Receiver<bool>) -> Found {
    let (server, gpus) = tokio::join!(scrapes(asked, stopped.clone()), gpus(asked, stopped));
    Found { gpus, ..server }
}

/// Asks the server at every beat.
async fn scrapes(asked: &Asked, mut stopped: watch::Receiver<bool>) -> Found {
    let mut found = Found::default();
    let Some(path) = &asked.path else {
        return found;
    };
    let mut beats = beats(asked.interval);
    while beat(&mut beats, &mut stopped).await {
        let at = clock::now();
        let answer = tokio::select! {
            biased;
            _ = stopped.changed() => break,
            answer = scrape(asked, path) => answer,
        };
        let answered = clock::now();
        if found.scrapes.len() == MOST || found.further.len() > MOST {
            let words =
                "no more of the server's metrics were kept: the load is too long for this interval";
            found.trouble = Some(words.to_owned());
            break;
        }
        let told = answer.map(|(bytes, told, further)| {
            found.bytes += bytes as u64;
            let damage = further
                .damaged
                .map(|damage| format!("the server's metrics are damaged: {damage}"));
            found.trouble = found.trouble.take().or(damage);
            let series = further.series.into_iter();
            let wanted = series.filter(|series| is_wanted(&asked.further, &series.name));
            found.further.extend(wanted.map(|series| (at, series)));
            (answered, told)
        });
        found.scrapes.push((at, told));
    }
    found
}

/// Whether a series is one that the plan names, or the sum or the count of one.
fn is_wanted(further: &[String], name: &str) -> bool {
    let part = |of: &str| {
        name.strip_prefix(of)
            .is_some_and(|rest| ["", "_sum", "_count"].contains(&rest))
    };
    further.iter().any(|of| part(of))
}

async fn scrape(asked: &Asked, path: &str) -> Result<(usize, Told, Exposition), String> {
    let largest = Limits::default().bytes;
    let answer = http::get_text_within(Peer::of(&asked.endpoint), path, asked.patience, largest);
    match answer.await.map_err(|error| error.message)? {
        (200, text) => {
            let (told, found) = Told::read(&text, &asked.further)?;
            if told.is_empty() && found.series.is_empty() {
                return Err("its metrics have none of the series that are known".to_owned());
            }
            Ok((text.len(), told, found))
        }
        (status, _) => Err(format!("status {status} at `{path}`")),
    }
}

/// Reads all GPUs at every beat.
async fn gpus(asked: &Asked, mut stopped: watch::Receiver<bool>) -> Vec<(Gpu, Vec<Read>)> {
    let Some((source, chosen)) = &asked.gpus else {
        return Vec::new();
    };
    let mut series: Vec<(Gpu, Vec<Read>)> =
        chosen.iter().map(|gpu| (gpu.clone(), Vec::new())).collect();
    let mut beats = beats(asked.interval);
    while beat(&mut beats, &mut stopped).await {
        for (gpu, readings) in series
            .iter_mut()
            .filter(|(_, readings)| readings.len() < MOST)
        {
            let at = clock::now();
            let reading = source.read(gpu);
            readings.push((at, clock::now(), reading));
        }
    }
    series
}

fn beats(interval: Duration) -> Interval {
    let mut beats = tokio::time::interval(interval);
    beats.set_missed_tick_behavior(MissedTickBehavior::Skip);
    beats
}

/// Waits for the next beat; false once it is over.
async fn beat(beats: &mut Interval, stopped: &mut watch::Receiver<bool>) -> bool {
    tokio::select! {
        biased;
        _ = stopped.changed() => false,
        _ = beats.tick() => true,
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::quantities::Quantity;
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::sync::mpsc;

    /// A GPU that tells which reading it is.
    struct Counting(std::sync::Mutex<u64>, mpsc::Sender<()>);

    impl Gpus for Counting {
        fn list(&self) -> Result<Vec<Gpu>, String> {
            Ok(Vec::new())
        }

        fn processes(&self, _: &Gpu) -> Vec<u32> {
            Vec::new()
        }

        fn read(&self, _: &Gpu) -> Result<Reading, String> {
            let mut n = self.0.lock().expect("no panic");
            *n += 1;
            let _ = self.1.send(());
            Ok(Reading {
                energy_mj: Some(*n),
                ..Reading::default()
            })
        }
    }

    fn gpu() -> Gpu {
        Gpu {
            index: 0,
            uuid: "GPU-0".to_owned(),
            name: "made up".to_owned(),
        }
    }

    fn asked(url: &str, gpus: Option<(Box<dyn Gpus>, Vec<Gpu>)>) -> Asked {
        Asked {
            endpoint: Endpoint::new(url, std::collections::BTreeMap::new()),
            path: Some("/metrics".to_owned()),
            interval: Duration::from_millis(10),
            // Whatever else the machine does: what hangs here hangs for ever.
            patience: Duration::from_secs(60),
            further: vec!["sglang:queue_time_seconds".to_owned()],
            gpus,
        }
    }

    /// A server that gives each who asks the next of these texts, and the last one from then on; what is not
    /// there is never answered. Each answer is told of.
    fn server(texts: Vec<Option<String>>) -> (String, mpsc::Receiver<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            let mut held = Vec::new();
            for (i, stream) in listener.incoming().flatten().enumerate() {
                let mut stream = stream;
                let _ = stream.read(&mut [0; 4096]);
                if let Some(text) = &texts[i.min(texts.len() - 1)] {
                    let _ = stream.write_all(text.as_bytes());
                } else {
                    held.push(stream);
                }
                if tell.send(()).is_err() {
                    return;
                }
            }
        });
        (url, told)
    }

    fn answer(status: u16, body: &str) -> Option<String> {
        let length = body.len();
        Some(format!(
            "HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        ))
    }

    fn wait(told: &mpsc::Receiver<()>, n: usize) {
        for _ in 0..n {
            let limit = Duration::from_secs(60);
            told.recv_timeout(limit).expect("asked again");
        }
    }

    #[tokio::test]
    async fn what_is_missed_is_a_gap_with_its_reason_and_reading_goes_on() {
        let text = include_str!("../fixtures/sglang.prom");
        let large = "x".repeat(Limits::default().bytes + 1);
        let texts = vec![
            answer(200, text),
            answer(503, "busy"),
            answer(200, "other 1\n"),
            answer(200, &large),
            answer(200, text),
        ];
        let (url, told) = server(texts);
        let sampler = Sampler::start(asked(&url, None)).expect("started");
        wait(&told, 6);
        let found = sampler.end().await.expect("ended");
        let answers: Vec<Result<f64, &str>> = found
            .scrapes
            .iter()
            .take(5)
            .map(|(_, answer)| match answer {
                Ok((_, told)) => Ok(told.get(Quantity::Running).expect("told")),
                Err(why) => Err(why.as_str()),
            })
            .collect();
        assert_eq!(answers[..2], [Ok(3.0), Err("status 503 at `/metrics`")]);
        assert_eq!(
            answers[2],
            Err("its metrics have none of the series that are known")
        );
        assert!(
            answers[3].is_err_and(|why| why.contains("larger than")),
            "{:?}",
            answers[3]
        );
        assert_eq!(answers[4], Ok(3.0));
        let mut instants = found.scrapes.windows(2);
        assert!(instants.all(|pair| pair[0].0 < pair[1].0));
        assert!(found.bytes >= 2 * text.len() as u64 && found.cpu > Duration::ZERO);
        let names: Vec<&str> = found
            .further
            .iter()
            .take(2)
            .map(|(_, s)| s.name.as_str())
            .collect();
        assert_eq!(
            names,
            [
                "sglang:queue_time_seconds_sum",
                "sglang:queue_time_seconds_count"
            ]
        );
    }

    #[tokio::test]
    async fn a_server_that_hangs_holds_neither_gpus_nor_the_end_up() {
        let (url, asked_server) = server(vec![None]);
        let (tell, told) = mpsc::channel();
        let gpus: Box<dyn Gpus> = Box::new(Counting(std::sync::Mutex::new(0), tell));
        let sampler = Sampler::start(asked(&url, Some((gpus, vec![gpu()])))).expect("started");
        wait(&asked_server, 1);
        wait(&told, 3);
        let found = sampler.end().await.expect("ended");
        let readings = &found.gpus[0].1;
        assert!(readings.len() >= 3, "{}", readings.len());
        let energies = readings
            .iter()
            .map(|(_, _, r)| r.clone().expect("read").energy_mj);
        let counted = (1..).map(Some).take(readings.len());
        assert!(energies.eq(counted));
        // What was under way when it ended is none that was missed.
        assert!(found.scrapes.iter().all(|(_, answer)| answer.is_err()));
    }

    #[tokio::test]
    async fn who_has_nothing_to_read_ends_at_once() {
        let nothing = Asked {
            path: None,
            ..asked("http://127.0.0.1:1", None)
        };
        let found = Sampler::start(nothing).expect("started").end().await;
        let found = found.expect("ended");
        assert!(found.scrapes.is_empty() && found.gpus.is_empty());
    }
}
