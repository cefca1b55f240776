//! The real NVTX of Python's package, whose headers load the library and call what it put into their tables: in
//! a process that was started, and in a child of one that forked.

use crate::server::World;
use crate::{only, ranges, small};
use profiler_control::Ranks;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/windows")
        .join(name)
}

/// Where the package is; `cargo xtask test` fetches it, or says in one line that these tests are skipped.
fn package() -> Option<PathBuf> {
    let mut python = Command::new("python3");
    // Nothing is written beside the sources.
    python
        .arg("-B")
        .arg(script("fetch.py"))
        .arg("--check")
        .stdin(Stdio::null());
    let said = python.output().ok().filter(|said| said.status.success())?;
    Some(String::from_utf8_lossy(&said.stdout).trim_end().into())
}

#[test]
fn ranges_of_a_process_that_was_started_are_recorded() {
    let Some(package) = package() else { return };
    let world = World::new();
    let cupti = world.cupti("started", 12, "");
    let mut server = world.python(&script("ranges.py"), &package, &cupti);
    server.does("ranges 2");
    server.does("init");
    let mut ranks = server.ranks();
    only(ranks.start(&small()));
    server.does("ranges 3");
    holds(&mut ranks, 3, server.pid());
}

#[test]
fn ranges_of_a_forked_child_are_recorded_as_its_own() {
    let Some(package) = package() else { return };
    let world = World::new();
    let cupti = world.cupti("forked", 13, "");
    let mut server = world.python(&script("ranges.py"), &package, &cupti);
    // The tables are patched in the parent, and the child has them; only the child uses CUDA.
    server.does("ranges 2");
    let child: u32 = server
        .says("fork")
        .split(' ')
        .nth(1)
        .and_then(|pid| pid.parse().ok())
        .expect("a child");
    server.does("init");
    let mut ranks = Ranks::connect(world.sockets()).expect("a process");
    assert_eq!(
        ranks
            .all()
            .iter()
            .map(|rank| rank.pid())
            .collect::<Vec<_>>(),
        [child]
    );
    only(ranks.start(&small()));
    server.does("ranges 4");
    holds(&mut ranks, 4, child);
    assert_eq!(server.says("leave"), "child 0");
}

/// So many ranges were recorded of each of the ways to mark one.
fn holds(ranks: &mut Ranks, count: usize, pid: u32) {
    let closed = only(ranks.stop());
    let ranges = ranges(&closed);
    let told: Vec<_> = ranges
        .iter()
        .map(|(name, domain, _)| (name.as_str(), domain.as_str()))
        .collect();
    let one = [("inner", "engine"), ("outer", ""), ("started", "")];
    assert_eq!(told, vec![one; count].concat());
    for (name, _, range) in &ranges {
        assert!(range.start_ns <= range.end_ns, "{name}");
        assert_eq!(range.thread, u64::from(pid));
    }
}
