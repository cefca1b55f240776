//! `benchwright server`: the embedded inference server on its own.

use super::Session;
use crate::args::Server;
use crate::exit::{self, Failure};
use crate::signals::{self, Signals};
use crate::{terminal, words};
use embedded_server::{ExecutorKind, LoadFormat, ServeError, ServerOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Threads that talk to clients; those that compute are the server's own.
const HTTP_THREADS: usize = 2;
/// How long a request in its last step may hold up the end after everything else is closed.
const LEFTOVERS: Duration = Duration::from_secs(5);

/// Serves until a signal says otherwise.
pub(super) fn server(arguments: &Server, session: &Session) -> Result<u8, Failure> {
    let options = options(arguments)?;
    let failed = |e: std::io::Error| Failure::new(format!("could not start threads: {e}"));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(HTTP_THREADS)
        .enable_all()
        .build()
        .map_err(failed)?;
    let talkative = session.terminal.is_talkative();
    let served = runtime.block_on(serve(options, arguments.address_file.clone(), talkative));
    runtime.shutdown_timeout(LEFTOVERS);
    if let Some(file) = &arguments.address_file {
        // Nobody listens there any more; one that somebody removed is just as well.
        let _ = std::fs::remove_file(file);
    }
    served.map(|()| exit::DONE)
}

fn options(arguments: &Server) -> Result<ServerOptions, Failure> {
    let chunk = match arguments.chunked_prefill_size {
        -1 => None,
        size => Some(usize::try_from(size).map_err(|_| {
            Failure::new(format!("`--chunked-prefill-size` is {size}"))
                .help("give a number of tokens, or -1 for none")
        })?),
    };
    let executor = arguments.executor.unwrap_or_default();
    if executor == ExecutorKind::Cpu && arguments.model_path.is_none() {
        let failure = Failure::new("the executor `cpu` needs a model");
        return Err(failure.help("give its folder with `--model-path`"));
    }
    Ok(ServerOptions {
        model_path: arguments.model_path.clone().unwrap_or_default(),
        executor,
        sim_ttft_ms: arguments.sim_ttft_ms,
        sim_tpot_ms: arguments.sim_tpot_ms,
        sim_steps: arguments.sim_steps,
        sim_prefill_us: arguments.sim_prefill_us,
        sim_bytes_per_token: arguments.sim_bytes_per_token,
        sim_weight_bytes: arguments.sim_weights,
        trace: arguments.trace.clone(),
        served_model_name: arguments.served_model_name.clone(),
        host: arguments.host.clone(),
        port: arguments.port,
        load_format: arguments.load_format,
        max_total_tokens: arguments.max_total_tokens,
        cache_memory_bytes: arguments.cache_memory_mib << 20,
        device_memory_bytes: arguments.device_memory,
        mem_fraction_static: arguments.mem_fraction_static,
        block_tokens: arguments.page_size,
        max_running_requests: arguments.max_running_requests,
        chunked_prefill_size: chunk,
        max_prefill_tokens: arguments.max_prefill_tokens,
        context_length: arguments.context_length,
        schedule_policy: arguments.schedule_policy,
        schedule_conservativeness: arguments.schedule_conservativeness,
        disable_radix_cache: arguments.disable_radix_cache,
        enable_hierarchical_cache: arguments.enable_hierarchical_cache,
        hicache_ratio: arguments.hicache_ratio,
        // One that is no number of bytes holds no block, which is refused when that is known.
        hicache_size_bytes: arguments.hicache_size.map(|gb| (gb * 1e9) as u64),
        hicache_write_policy: arguments.hicache_write_policy,
        hicache_bandwidth: arguments.hicache_bandwidth.map(|gb| gb * 1e9),
        queue_limit: arguments.max_queued_requests,
        threads: arguments.threads,
        deterministic: arguments.deterministic,
        seed: arguments.seed,
        ..ServerOptions::default()
    })
}

async fn serve(
    options: ServerOptions,
    address_file: Option<PathBuf>,
    talkative: bool,
) -> Result<(), Failure> {
    let mut signals = Signals::listen()
        .map_err(|e| Failure::new(format!("could not listen for signals: {e}")))?;
    let say = move |text: String| {
        if talkative {
            terminal::error_line(text);
        }
    };
    let name = options.model_name();
    let for_load = options.clone();
    let load = move || {
        let began = Instant::now();
        let model = embedded_server::load(&for_load)?;
        let took = words::duration(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
        let weights = match for_load.weights() {
            LoadFormat::Safetensors => "its own",
            LoadFormat::Auto | LoadFormat::Dummy | LoadFormat::DummyScaled => "random",
        };
        say(match for_load.executor {
            ExecutorKind::Cpu => {
                format!("model `{name}` loaded in {took} with {weights} weights; ready")
            }
            ExecutorKind::Sim => format!("model `{name}` is not computed, only simulated; ready"),
        });
        Ok(model)
    };
    let (told, mut written) = tokio::sync::oneshot::channel::<Failure>();
    let on_listening = move |address: SocketAddr| {
        say(format!("listening at http://{address}, loading the model"));
        if let Some(file) = address_file
            && let Err(error) = write_address(&file, address)
        {
            // The server ends by itself if nobody waits for this any more.
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
        served = embedded_server::serve_loaded(options, load, shutdown, on_listening) => served.map_err(|e| failure(&e)),
        Ok(failure) = &mut written => Err(failure),
    }
}

fn failure(error: &ServeError) -> Failure {
    Failure::new(error.to_string())
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
    use crate::args::{Arguments, Command};
    use clap::Parser;

    fn parse(flags: &[&str]) -> ServerOptions {
        let words = ["benchwright", "server", "--model-path", "m"]
            .iter()
            .chain(flags);
        let Command::Server(server) = Arguments::try_parse_from(words).expect("flags").command
        else {
            panic!("a server")
        };
        options(&server).expect("options")
    }

    #[test]
    fn without_flags_it_is_what_the_server_says() {
        let wanted = ServerOptions {
            model_path: "m".into(),
            port: 30000,
            ..ServerOptions::default()
        };
        assert_eq!(parse(&[]), wanted);
    }

    #[test]
    fn flags_reach_the_options_that_they_name() {
        let options = parse(&[
            "--page-size",
            "32",
            "--chunked-prefill-size",
            "-1",
            "--load-format",
            "dummy",
            "--random-seed",
            "7",
            "--schedule-policy",
            "lpm",
            "--enable-hierarchical-cache",
            "--hicache-write-policy",
            "write_through_selective",
            "--hicache-bandwidth",
            "2",
            "--device-memory",
            "24GiB",
        ]);
        assert_eq!(options.block_tokens, 32);
        assert_eq!(options.chunked_prefill_size, None);
        assert_eq!(options.load_format, embedded_server::LoadFormat::Dummy);
        assert_eq!(options.seed, 7);
        assert_eq!(options.schedule_policy, embedded_server::Policy::Lpm);
        assert!(options.enable_hierarchical_cache && !options.disable_radix_cache);
        let policy = embedded_server::WritePolicy::WriteThroughSelective;
        assert_eq!(options.hicache_write_policy, policy);
        assert_eq!(options.hicache_bandwidth, Some(2e9));
        assert_eq!(options.device_memory_bytes, Some(24 << 30));
    }

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
