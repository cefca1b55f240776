//! Watches a server that starts: when its port accepts, when its log says that weights are loaded, when it
//! serves. It is asked every few milliseconds; knows nothing of why it was started.

use engine::loan::Launched;
use engine::process::telling_log;
use engine::service::DynService;
use engine::step::{FailureClass, StepError};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::pin::pin;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// The pause between two looks; what is seen is late by so much at most, and by what a look takes.
const PAUSE: Duration = Duration::from_millis(5);
/// How long one question may take: a server that is about to serve may accept and say nothing yet.
const QUESTION_LIMIT: Duration = Duration::from_secs(2);
/// How much of a log is read at a time, bytes.
const PIECE: u64 = 1 << 20;
/// Where health is asked for if the service names no path.
const HEALTH: &str = "/health";

/// What a server's log says of its weights.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Said {
    /// How long reading them took.
    pub(super) weights: Option<Duration>,
    /// How long it took to make the model and to read them.
    pub(super) model: Option<Duration>,
}

/// When what was seen, since right before the process was started.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) spawn: Duration,
    pub(super) listening: Option<Duration>,
    /// The last line about weights.
    pub(super) weights: Option<Duration>,
    pub(super) said: Said,
    pub(super) ready: Duration,
}

/// Looks until the server serves.
///
/// # Errors
/// If it ends, or does not serve within `limit`.
pub(super) async fn watch(
    launched: &Launched,
    service: &dyn DynService,
    limit: Duration,
) -> Result<Seen, StepError> {
    let began = launched.began;
    let mut logs = Logs::of(&launched.logs);
    let mut listening = None;
    let ready = {
        let mut ready = pin!(until_ready(launched, service, &mut listening));
        let mut late = pin!(tokio::time::sleep(limit));
        loop {
            tokio::select! {
                ready = &mut ready => break ready,
                exit = launched.exited() => {
                    return Err(failed(&format!("it {exit} before it served"), launched, service));
                }
                () = &mut late => {
                    let limit = engine::types::duration_text(limit);
                    let what = format!("it does not serve after {limit}");
                    return Err(failed(&what, launched, service).class(FailureClass::Timeout));
                }
                () = tokio::time::sleep(PAUSE) => logs.look(began),
            }
        }
    };
    logs.look(began);
    Ok(Seen {
        spawn: launched.spawned.duration_since(began),
        listening,
        weights: logs.at,
        said: logs.said,
        ready,
    })
}

/// Asks again and again; returns when health was answered with 200, and notes when the port accepted.
async fn until_ready(
    launched: &Launched,
    service: &dyn DynService,
    listening: &mut Option<Duration>,
) -> Duration {
    let path = service.health().unwrap_or_else(|| HEALTH.to_owned());
    loop {
        if listening.is_none() && accepts(launched, service).await {
            *listening = Some(launched.began.elapsed());
        }
        if listening.is_some() {
            let asked = service.http_status(&launched.endpoint, &path);
            if let Ok(Ok(200)) = tokio::time::timeout(QUESTION_LIMIT, asked).await {
                return launched.began.elapsed();
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn accepts(launched: &Launched, service: &dyn DynService) -> bool {
    let Some(url) = service.address(&launched.endpoint) else {
        return false;
    };
    let endpoint = engine::service::Endpoint::new(url, Default::default());
    let Some((host, port)) = endpoint.address() else {
        return false;
    };
    let connect = TcpStream::connect((host.as_str(), port));
    matches!(
        tokio::time::timeout(QUESTION_LIMIT, connect).await,
        Ok(Ok(_))
    )
}

/// What happened, with what the log says of it.
fn failed(what: &str, launched: &Launched, service: &dyn DynService) -> StepError {
    let folder = launched.logs[0].parent();
    let log = folder.and_then(telling_log);
    let text = log
        .as_ref()
        .and_then(|log| std::fs::read_to_string(log).ok());
    let diagnosis = text.and_then(|text| service.diagnose(&text));
    let error = match diagnosis {
        Some(found) => {
            let hint = found.hint.to_string();
            StepError::new(format!("the server was started anew, and {what}: {found}")).help(hint)
        }
        None => StepError::new(format!("the server was started anew, and {what}")),
    };
    let error = error.class(FailureClass::Infrastructure);
    match log {
        Some(log) => error.log(log),
        None => error,
    }
}

/// Logs that grow, and what was found in them.
struct Logs {
    logs: Vec<Log>,
    at: Option<Duration>,
    said: Said,
}

struct Log {
    path: PathBuf,
    offset: u64,
    /// The begin of a line whose end was not written yet.
    carried: Vec<u8>,
}

impl Logs {
    fn of(paths: &[PathBuf]) -> Self {
        let log = |path: &PathBuf| Log {
            path: path.clone(),
            offset: 0,
            carried: Vec::new(),
        };
        Self {
            logs: paths.iter().map(log).collect(),
            at: None,
            said: Said::default(),
        }
    }

    fn look(&mut self, began: Instant) {
        let mut found = false;
        for log in &mut self.logs {
            for line in log.new_lines() {
                found |= self.said.hear(&line);
            }
        }
        if found {
            self.at = Some(began.elapsed());
        }
    }
}

impl Log {
    /// Whole lines that were written since the last look; a log that cannot be read says nothing.
    fn new_lines(&mut self) -> Vec<String> {
        let mut read = Vec::new();
        let got = File::open(&self.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.offset))?;
            file.take(PIECE).read_to_end(&mut read)
        });
        self.offset += got.unwrap_or(0) as u64;
        self.carried.extend(read);
        let Some(end) = self.carried.iter().rposition(|byte| *byte == b'\n') else {
            // A line without an end is no log of a server that is looked for here.
            self.carried.truncate(PIECE as usize);
            return Vec::new();
        };
        let rest = self.carried.split_off(end + 1);
        let lines = std::mem::replace(&mut self.carried, rest);
        let lines = String::from_utf8_lossy(&lines).into_owned();
        lines.lines().map(str::to_owned).collect()
    }
}

impl Said {
    /// Takes what a line says of weights; whether it says that they are loaded.
    ///
    /// vLLM 0.32: `Loading weights took 3.21 seconds`, `Model loading took 14.99 GiB memory and 3.85 seconds`;
    /// SGLang 0.5.23: `Load weight end. elapsed=3.12 s, …`; llama.cpp: `model loaded`.
    fn hear(&mut self, line: &str) -> bool {
        let longest = |to: &mut Option<Duration>, seconds: Option<f64>| {
            let time = seconds.and_then(|s| Duration::try_from_secs_f64(s).ok());
            *to = (*to).max(time);
        };
        if let Some((_, rest)) = line.split_once("Loading weights took ") {
            longest(&mut self.weights, number(rest));
            return true;
        }
        if let Some((_, rest)) = line.split_once("Model loading took ") {
            let seconds = rest.split_once(" and ").and_then(|(_, rest)| number(rest));
            longest(&mut self.model, seconds);
            return true;
        }
        if let Some((_, rest)) = line.split_once("Load weight end.") {
            let seconds = rest
                .split_once("elapsed=")
                .and_then(|(_, rest)| number(rest));
            longest(&mut self.model, seconds);
            return true;
        }
        line.trim_end().ends_with(": model loaded")
    }
}

/// The number that a text begins with.
fn number(text: &str) -> Option<f64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    text[..end.unwrap_or(text.len())].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn logs_of_engines_say_how_long_weights_took() {
        let mut said = Said::default();
        assert!(!said.hear("INFO Starting to load model /models/tiny..."));
        let vllm = [
            "(EngineCore pid=7) INFO 11-27 [default_loader.py:502] Loading weights took 3.21 seconds",
            "(Worker_TP1 pid=9) INFO 11-27 [default_loader.py:502] Loading weights took 2.50 seconds",
            "INFO 11-27 [gpu_model_runner.py:5150] Model loading took 14.99 GiB memory and 3.850000 seconds",
        ];
        assert!(vllm.iter().all(|line| said.hear(line)));
        let seconds = |time: Option<Duration>| time.map(|t| t.as_secs_f64());
        assert_eq!(
            (seconds(said.weights), seconds(said.model)),
            (Some(3.21), Some(3.85))
        );
        let mut said = Said::default();
        let sglang =
            "[2026-11-27] Load weight end. elapsed=0.12 s, type=LlamaForCausalLM, avail mem=9 GB";
        assert!(said.hear(sglang));
        assert_eq!(
            (seconds(said.weights), seconds(said.model)),
            (None, Some(0.12))
        );
        assert!(Said::default().hear("main: model loaded"));
    }

    #[test]
    fn a_line_counts_once_it_is_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("stderr.log");
        let mut logs = Logs::of(&[path.clone(), folder.path().join("absent.log")]);
        let mut file = File::create(&path).expect("a file");
        file.write_all(b"Loading weights to").expect("written");
        logs.look(Instant::now());
        assert_eq!(logs.at, None);
        file.write_all(b"ok 1.5 seconds\n").expect("written");
        logs.look(Instant::now());
        assert!(logs.at.is_some());
        assert_eq!(logs.said.weights, Some(Duration::from_millis(1500)));
    }
}
