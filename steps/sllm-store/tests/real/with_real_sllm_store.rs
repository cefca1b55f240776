//! Starts the package's own server, whose GPU is a file (see `cuda`), and holds what it brings there to the tensors
//! that were converted, byte for byte.
//!
//! `store.py` installs the package; where it is not, `cargo xtask test` says so in one line.

use crate::cuda;
use checkpoints::{Contents, Format, Limits, convert};
use safetensors::tensor::{Dtype, TensorView};
use sllm_store::{Config, LoadLog, ServerProcess, Store, Tail, gpus, packed};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longer than the server takes to start, or a load to end, on a busy machine.
const LONG: Duration = Duration::from_secs(180);
/// Between two looks at something that takes a while.
const PAUSE: Duration = Duration::from_millis(20);

/// Where `store.py` has installed it, if it has.
fn engine() -> Option<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real/store.py");
    let mut check = Command::new("python3");
    check.arg("-B").arg(script).arg("--check");
    let said = check.stderr(Stdio::null()).output().ok()?;
    let folder = String::from_utf8_lossy(&said.stdout).trim().to_owned();
    said.status.success().then(|| folder.into())
}

/// The server, until this is dropped.
struct Server {
    process: Child,
    port: u16,
    log: PathBuf,
    folder: TempDir,
}

impl Server {
    fn start(engine: &Path, flags: &[&str]) -> Self {
        // On the disk of the build: a file system in memory gives no direct reads.
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        cuda::compile(folder.path());
        let log = folder.path().join("log");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let libraries = [folder.path(), &engine.join("lib")];
        let mut command = Command::new(engine.join("venv/bin/python"));
        command.args(["-c", "from sllm_store.cli import main; main()", "start"]);
        command.args(["--host", "127.0.0.1", "--port"]);
        command.arg(port.to_string()).args(flags);
        command.arg("--storage-path").arg(folder.path());
        let libraries = std::env::join_paths(libraries).unwrap();
        command.env("LD_LIBRARY_PATH", libraries);
        command.env("PYTHONPATH", engine.join("python"));
        command.stdout(File::create(folder.path().join("out")).unwrap());
        command.stderr(File::create(&log).unwrap());
        let process = command.stdin(Stdio::null()).spawn().unwrap();
        Self {
            process,
            port,
            log,
            folder,
        }
    }

    fn said(&self) -> String {
        let read = |name: &str| fs::read(self.folder.path().join(name)).unwrap_or_default();
        let all = [read("log"), read("out")].concat();
        String::from_utf8_lossy(&all).into_owned()
    }

    async fn ready(&mut self) -> Store {
        let began = Instant::now();
        let url = format!("http://127.0.0.1:{}", self.port);
        loop {
            if let Ok(mut store) = Store::connect(&url, LONG).await
                && store.config().await.is_ok()
            {
                return store;
            }
            let ended = self.process.try_wait().unwrap();
            let is_late = began.elapsed() > LONG;
            assert!(ended.is_none() && !is_late, "{ended:?}: {}", self.said());
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits until the log says of the load what is waited for.
    async fn wait(&self, tail: &mut Tail, said: &mut LoadLog, is_it: fn(&LoadLog) -> bool) {
        let began = Instant::now();
        while !is_it(said) {
            tail.lines(|line| said.read(line)).unwrap();
            let failure = said.failure();
            let is_late = began.elapsed() > LONG;
            assert!(
                failure.is_none() && !is_late,
                "{failure:?}: {}",
                self.said()
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A checkpoint of the types that the store gives back, with lengths of all kinds, tied and empty tensors; in both
/// formats, the store's in several partitions. Its folders.
fn checkpoint(root: &Path) -> (PathBuf, PathBuf) {
    let (own, to) = (root.join("own"), root.join("converted"));
    for folder in [&own, &to] {
        fs::create_dir(folder).unwrap();
    }
    let data: Vec<u8> = (0..3_000_000_u32)
        .map(|i| ((i * 2_654_435_761_u32) >> 13) as u8)
        .collect();
    let view = |dtype, shape: Vec<usize>, from: usize, n: usize| {
        TensorView::new(dtype, shape, &data[from..from + n]).unwrap()
    };
    let views = [
        ("a.f32", view(Dtype::F32, vec![256, 1024], 0, 1_048_576)),
        ("b.bf16", view(Dtype::BF16, vec![2052], 11, 4104)),
        ("c.u8", view(Dtype::U8, vec![8191], 12, 8191)),
        ("d.i64", view(Dtype::I64, vec![3, 5, 7], 13, 840)),
        ("e.f16", view(Dtype::F16, vec![0, 4], 0, 0)),
        ("f.f64", view(Dtype::F64, vec![1032], 1400, 8256)),
        ("g.i8", view(Dtype::I8, vec![1_500_001], 15, 1_500_001)),
        ("h.i32", view(Dtype::I32, vec![1], 16, 4)),
        ("i.i16", view(Dtype::I16, vec![2176], 17, 4352)),
    ];
    let bytes = safetensors::serialize(views, None).unwrap();
    fs::write(own.join("model.safetensors"), bytes).unwrap();
    let contents = Contents::read(&own).unwrap();
    let limits = Limits {
        max_file_bytes: 2 << 20,
    };
    convert(&contents, Format::Store, limits, &to, &|_| true).unwrap();
    (own, to)
}

/// The bytes of a tensor, from its file.
fn bytes(contents: &Contents, name: &str) -> Vec<u8> {
    let tensor = contents.tensors.iter().find(|tensor| tensor.name == name);
    let tensor = tensor.unwrap();
    let mut bytes = vec![0; usize::try_from(tensor.bytes).unwrap()];
    let file = File::open(contents.path(tensor.file)).unwrap();
    file.read_exact_at(&mut bytes, tensor.offset).unwrap();
    bytes
}

/// Memory that a handle of the stand-in names.
struct Memory {
    path: PathBuf,
    handle: [u8; 64],
}

impl Memory {
    fn of(bytes: u64) -> Self {
        let name = format!("/real-store-{}-{bytes}", std::process::id());
        let path = Path::new("/dev/shm").join(&name[1..]);
        File::create(&path).unwrap().set_len(bytes).unwrap();
        let mut handle = [0; 64];
        handle[..name.len()].copy_from_slice(name.as_bytes());
        Self { path, handle }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[tokio::test]
async fn it_gives_back_what_was_converted_here() {
    let Some(engine) = engine() else {
        return;
    };
    let flags = "--mem-pool-size 16MB --chunk-size 1MB --num-thread 3";
    let flags: Vec<&str> = flags.split(' ').collect();
    let mut server = Server::start(&engine, &flags);
    let mut store = server.ready().await;
    let config = Config {
        pool: 16 << 20,
        chunk: 1 << 20,
    };
    assert_eq!(store.config().await, Ok(config));
    let log = fs::read_to_string(&server.log).unwrap();
    assert_eq!(gpus(&log), [cuda::UUID], "{log}");
    let (own, to) = checkpoint(server.folder.path());
    let (own, contents) = (Contents::read(&own).unwrap(), Contents::read(&to).unwrap());
    assert!(contents.files.len() > 1);
    let model = to.canonicalize().unwrap().display().to_string();
    assert_eq!(store.register(&model).await, Ok(contents.file_bytes()));
    let mut begins = vec![0];
    for file in &contents.files {
        begins.push(begins[begins.len() - 1] + file.bytes);
    }
    let all: Vec<_> = contents.own().filter(|tensor| tensor.bytes > 0).collect();
    let places = all
        .iter()
        .map(|tensor| (begins[tensor.file] + tensor.offset, tensor.bytes));
    let copies = packed(places);
    let process = ServerProcess::at_port(server.port).unwrap();
    for round in 0..2 {
        let cpu = process.cpu().unwrap();
        let memory = Memory::of(copies.bytes);
        let mut tail = Tail::from_end(&server.log).unwrap();
        let mut said = LoadLog::new(&model);
        store.load_to_host(&model).await.unwrap();
        server.wait(&mut tail, &mut said, LoadLog::has_begun).await;
        let replica = format!("replica-{round}");
        let chunks = copies.chunks.clone();
        let copy = store.load_to_gpu(&model, &replica, cuda::UUID, &memory.handle, chunks);
        copy.await.unwrap();
        store.confirm(&model, &replica, LONG).await.unwrap();
        server.wait(&mut tail, &mut said, LoadLog::is_done).await;
        assert!(said.read_time().is_some() && said.copy_time().is_some());
        let found = fs::read(&memory.path).unwrap();
        for (tensor, chunk) in all.iter().zip(&copies.chunks.chunks) {
            let from = usize::try_from(chunk.dst_offset).unwrap();
            let part = &found[from..from + usize::try_from(tensor.bytes).unwrap()];
            assert!(part == bytes(&own, &tensor.name), "{}", tensor.name);
        }
        store.unload(&model).await.unwrap();
        assert!(process.cpu().unwrap() > cpu);
    }
    store.clear().await.unwrap();
    assert!(store.unload(&model).await.is_err());
}
