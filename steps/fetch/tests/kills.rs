//! Downloads that are killed at random bytes always complete with the right digest.
//!
//! The server kills the downloading process in the middle of what it sends: after a number of bytes that is
//! drawn anew for each kill. Then another process goes on.

#![expect(
    clippy::print_stdout,
    reason = "a seed is worth something only if it is told"
)]

mod hostile;

use fetch::{Cache, Client, Fetcher, Limits, Options, RepoKind, Request, Sha256, Source};
use hostile::{Luck, Server, ranged};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// Tells another process what to bring, into which folder, and what it must be.
const ADDRESS: &str = "BENCHWRIGHT_TEST_ADDRESS";
const FOLDER: &str = "BENCHWRIGHT_TEST_FOLDER";
/// A file of many pieces, bytes.
const LARGEST: usize = 2 << 20;
/// What the first process that is to be killed never gets, bytes.
const NEVER_SENT: usize = 64 << 10;

/// Both processes run this test: the one that finds the variables brings something and says what.
#[test]
fn a_download_that_is_killed_at_random_bytes_completes_with_the_right_digest() {
    if let (Some(address), Some(folder)) = (std::env::var(ADDRESS).ok(), std::env::var_os(FOLDER)) {
        bring(&address, Path::new(&folder));
        return;
    }
    rounds(4, 1);
}

#[test]
#[ignore = "a soak test: `cargo xtask soak downloads`"]
fn soak_downloads() {
    let number = |name: &str, otherwise: u64| {
        let set = std::env::var(name).ok();
        set.and_then(|text| text.parse().ok()).unwrap_or(otherwise)
    };
    rounds(
        number("BENCHWRIGHT_SOAK_ROUNDS", 100),
        number("BENCHWRIGHT_SOAK_SEED", 1),
    );
}

#[test]
fn proxies_are_those_that_the_environment_names() {
    let whole = Luck(7).bytes(1000);
    let served = whole.clone();
    let proxy = Server::start(move |asked, _| ranged(&served, "\"1\"", asked));
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = downloader("http://nowhere.invalid/data.bin", folder.path());
    command
        .env("HTTP_PROXY", proxy.url(""))
        .env("http_proxy", proxy.url(""));
    command.env_remove("NO_PROXY").env_remove("no_proxy");
    assert!(command.status().expect("a process").success());
    let there = std::fs::read(folder.path().join("into/data.bin")).expect("a file");
    assert_eq!(there, whole);
    assert!(
        proxy
            .asked()
            .iter()
            .all(|asked| asked.target == "http://nowhere.invalid/data.bin")
    );
}

fn rounds(n: u64, seed: u64) {
    println!("{n} rounds from seed {seed}");
    let (mut kills, mut resumed) = (0, 0);
    for round in 0..n {
        let (killed, kept) = kill_round(&mut Luck(seed + round), round);
        assert!(killed >= 1, "round {round}: nothing was killed");
        kills += killed;
        resumed += kept;
    }
    // How much was noted before a kill is a matter of luck: the test below waits for it.
    println!("{kills} kills; {resumed} bytes were not brought again");
}

#[test]
fn what_was_noted_before_a_kill_is_gone_on_with() {
    let whole = Luck(8).bytes(LARGEST);
    let folder = tempfile::tempdir().expect("a folder");
    let victim: Arc<Mutex<Option<Child>>> = Arc::default();
    let (served, aim, cache) = (whole.clone(), victim.clone(), folder.path().join("cache"));
    let server = Server::counting(
        move |asked, _| ranged(&served, "\"1\"", asked),
        move |sent| {
            let mut aim = aim.lock().expect("no panic");
            if let Some(child) = aim.as_mut()
                && sent >= LARGEST as u64 / 2
            {
                // Nothing more is sent meanwhile, so that it cannot end by itself.
                while !is_noted(&cache) && child.try_wait().expect("a child").is_none() {
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
                child.kill().expect("a child");
                child.wait().expect("a child");
                *aim = None;
            }
        },
    );
    let address = server.url("/data.bin");
    let mut held = victim.lock().expect("no panic");
    *held = Some(
        downloader(&address, folder.path())
            .spawn()
            .expect("a process"),
    );
    drop(held);
    while victim.lock().expect("no panic").is_some() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let output = downloader(&address, folder.path())
        .output()
        .expect("a process");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    let into = folder.path().join("into/data.bin");
    assert!(std::fs::read(into).expect("a file") == whole);
    assert!(resumed(&said) > 0, "{said}");
}

/// Whether notes say what is there.
fn is_noted(cache: &Path) -> bool {
    let mut files = std::fs::read_dir(cache).into_iter().flatten().flatten();
    files.any(|file| file.path().extension().is_some_and(|kind| kind == "json"))
}

/// How many bytes a process found that an earlier one had brought.
fn resumed(said: &str) -> u64 {
    said.lines()
        .find_map(|line| line.split("resumed ").nth(1)?.trim().parse().ok())
        .unwrap_or(0)
}

/// Kills a download again and again, then lets it end; returns how often, and how many bytes the last
/// process found.
fn kill_round(luck: &mut Luck, round: u64) -> (u64, u64) {
    let size = LARGEST / 2 + luck.below(LARGEST / 2);
    let whole = luck.bytes(size);
    let digest = Sha256::of(&whole);
    let victim: Arc<Mutex<Option<(Child, u64)>>> = Arc::default();
    let (served, aim) = (whole, victim.clone());
    let server = Server::counting(
        move |asked, _| ranged(&served, "\"1\"", asked),
        move |sent| {
            // As slow as a fast network, or all would be sent before anything could be synced.
            std::thread::sleep(std::time::Duration::from_micros(20));
            let mut aim = aim.lock().expect("no panic");
            if let Some((child, limit)) = aim.as_mut()
                && sent >= *limit
            {
                // One that has ended already cannot be killed, which is as well.
                let _ = child.kill();
                *limit = u64::MAX;
            }
        },
    );
    let folder = tempfile::tempdir().expect("a folder");
    let mut sent = 0;
    let mut kills = 0;
    for _ in 0..1 + luck.below(3) {
        // Before the last bytes are sent, so that the first one cannot end before it is killed.
        let limit = sent + luck.below(size - NEVER_SENT) as u64;
        let mut aim = victim.lock().expect("no panic");
        *aim = Some((
            downloader(&server.url("/data.bin"), folder.path())
                .spawn()
                .expect("a process"),
            limit,
        ));
        drop(aim);
        let status = wait(&victim);
        if status.success() {
            break;
        }
        kills += 1;
        sent += limit.saturating_sub(sent);
    }
    let into = folder.path().join("into/data.bin");
    let output = downloader(&server.url("/data.bin"), folder.path())
        .output()
        .expect("a process");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "round {round}: {said}");
    let found = fetch::digest_file(&into, &mut |_| true).expect("a file");
    assert_eq!(found, digest, "round {round}");
    (kills, resumed(&said))
}

/// Waits for the victim without keeping others from it.
fn wait(victim: &Mutex<Option<(Child, u64)>>) -> std::process::ExitStatus {
    loop {
        let mut aim = victim.lock().expect("no panic");
        let (child, _) = aim.as_mut().expect("a victim");
        if let Some(status) = child.try_wait().expect("a child") {
            *aim = None;
            return status;
        }
        drop(aim);
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

fn downloader(address: &str, folder: &Path) -> Command {
    let this = std::env::current_exe().expect("this program");
    let mut command = Command::new(this);
    command
        .args([
            "--exact",
            "a_download_that_is_killed_at_random_bytes_completes_with_the_right_digest",
        ])
        .arg("--nocapture")
        .env(ADDRESS, address)
        .env(FOLDER, folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

fn bring(address: &str, folder: &Path) {
    let mut options = Options::usual(|_| None).expect("the public ones");
    options.piece = 128 << 10;
    let cache = Cache::open(&folder.join("cache"), 32 << 10).expect("a cache");
    let client = Client::new(Limits::default(), None).expect("a client");
    let fetcher = Fetcher::new(client, cache, options, |_| {});
    let into = folder.join("into");
    // What an earlier one moved here before it was killed is made anew, as a step's folder is.
    let _ = std::fs::remove_dir_all(&into);
    std::fs::create_dir_all(&into).expect("a folder");
    let source = Source::parse(address, RepoKind::Dataset).expect("an address");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let receipt = runtime
        .block_on(fetcher.fetch(&Request::of(source), &into))
        .expect("a file");
    println!("resumed {}", receipt.files[0].resumed_bytes);
}
