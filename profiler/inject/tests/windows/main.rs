//! Windows in a server that has the library injected, from the socket to the table of kernels, with
//! stand-ins for the server, the driver and CUPTI.

mod server;

mod lies;
mod with_python_nvtx;

use profiler_control::{ControlError, KernelTable, Missing, Outcomes, Ranks, Recording};
use profiler_wire::rows::Range;
use profiler_wire::{Frame, Frames, Line};
use server::{Server, World};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Windows that close only when they are told to, with buffers of a few records.
fn small() -> Recording {
    Recording {
        buffers: 64,
        buffer_bytes: 16 * 1024,
        device_buffers: NonZeroU32::new(64),
        grace: Duration::ZERO,
        ..Recording::default()
    }
}

/// What the only process answered.
fn only(outcomes: Outcomes) -> Line {
    let [(_, outcome)] = <[_; 1]>::try_from(outcomes).expect("one process");
    outcome.expect("an answer")
}

fn refusal(outcomes: Outcomes) -> String {
    let [(_, outcome)] = <[_; 1]>::try_from(outcomes).expect("one process");
    match outcome {
        Err(ControlError::Refused { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

fn spool(line: &Line) -> PathBuf {
    line.get("spool").expect("a spool").into()
}

/// The ranges of a spool, with their names and those of their domains.
fn ranges(closed: &Line) -> Vec<(String, String, Range)> {
    let (mut names, mut ranges) = (HashMap::new(), Vec::new());
    for frame in Frames::open(&spool(closed)).expect("a spool") {
        match frame.expect("a frame") {
            Frame::Names(some) => names.extend(some),
            Frame::Ranges(some) => ranges.extend(some),
            _ => {}
        }
    }
    let name = |number: u64| names.get(&number).cloned().unwrap_or_default();
    let named = |range: Range| (name(range.name), name(range.domain), range);
    ranges.into_iter().map(named).collect()
}

/// Runs some work in a window, and returns the table of its kernels.
fn recorded(server: &mut Server, recording: &Recording, work: &[&str]) -> KernelTable {
    let mut ranks = server.ranks();
    only(ranks.start(recording));
    work.iter().for_each(|line| server.does(line));
    let closed = only(ranks.stop());
    KernelTable::read(&spool(&closed)).expect("a spool")
}

/// Asks until the answer is as it should be.
fn until(ranks: &mut Ranks, is_so: impl Fn(&Line) -> bool) -> Line {
    let limit = Instant::now() + Duration::from_secs(20);
    loop {
        let status = only(ranks.status());
        if is_so(&status) {
            return status;
        }
        assert!(Instant::now() < limit, "{status}");
    }
}

#[test]
fn what_ran_in_a_window_is_in_its_table_and_nothing_else() {
    let world = World::new();
    for (name, major, script) in [
        ("12.6", 12, ""),
        ("12.4", 12, "version=22\n"),
        ("13.1", 13, ""),
        ("13.4", 13, "version=130401\n"),
        ("lazy", 13, "version=130301\nlazy=1\nelsewhere=1\n"),
    ] {
        let mut server = world.server(name, major, script);
        server.does("init");
        server.does("kernel 50");
        let work = ["kernel 1000", "graph 10 20", "copy 3 4096"];
        let table = recorded(&mut server, &small(), &work);
        server.does("kernel 50");
        assert!(table.missing.is_empty(), "{name}: {:?}", table.missing);
        assert_eq!(
            (table.pid, table.outside),
            (server.pid().into(), 0),
            "{name}"
        );
        let rows = table.rows.iter().map(|row| {
            let durations = (row.total_ns, row.p50_ns, row.p99_ns);
            (row.name.as_str(), row.count, row.in_graphs, durations)
        });
        assert_eq!(
            rows.collect::<Vec<_>>(),
            [
                ("_Z4gemmPfS_i", 500, 0, (1_000_000, 2000, 2000)),
                ("_Z7rmsnormPfi", 500, 0, (500_000, 1000, 1000)),
                ("_Z6decodePf", 200, 200, (100_000, 500, 500)),
            ],
            "{name}"
        );
        assert_eq!(table.busy_ns, [(0, 1_600_000)].into(), "{name}");
        assert!(table.window_ns > 1_600_000, "{name}");
    }
}

#[test]
fn launches_and_copies_are_spooled_beside_kernels() {
    let world = World::new();
    let mut server = world.server("calls", 12, "");
    server.does("init");
    let mut ranks = server.ranks();
    let opened = only(ranks.start(&small()));
    server.does("kernel 3");
    server.does("copy 2 4096");
    let closed = only(ranks.stop());
    assert_eq!(opened.get("unset"), Some(""));
    assert_eq!(
        (opened.number("cupti"), closed.number("records")),
        (Ok(24), Ok(3 + 2 + 5))
    );
    let (mut correlations, mut calls, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    for frame in Frames::open(&spool(&closed)).expect("a spool") {
        match frame.expect("a frame") {
            Frame::Kernels(rows) => correlations.extend(rows.iter().map(|row| row.correlation)),
            Frame::MemoryOps(rows) => {
                assert!(rows.iter().all(|row| row.bytes == 4096 && row.kind == 1));
                correlations.extend(rows.iter().map(|row| row.correlation));
            }
            Frame::Calls(rows) => calls.extend(rows.iter().map(|row| row.correlation)),
            Frame::Opened(line) | Frame::Closed(line) => ends.push(line),
            Frame::Names(_) | Frame::Status(_) => {}
            other => panic!("{other:?}"),
        }
    }
    // Each has its launch.
    assert_eq!(correlations, calls);
    assert_eq!(ends.len(), 2);
    let clock = |line: &Line, key| line.number(key).expect("a clock");
    let (t0, t1) = (clock(&ends[0], "t0"), clock(&ends[1], "t1"));
    assert!(
        clock(&ends[0], "cupti_ns") <= t0 && t0 < t1 && t1 <= clock(&ends[1], "cupti_ns_at_end")
    );
    assert!(clock(&ends[0], "monotonic_ns") < clock(&ends[1], "monotonic_ns_at_end"));
}

#[test]
fn until_a_window_is_armed_cupti_is_not_loaded() {
    let world = World::new();
    let mut server = world.server("asleep", 12, "");
    server.does("init");
    assert!(!server.has_loaded("libcupti"));
    let mut ranks = server.ranks();
    assert_eq!(only(ranks.status()).get("phase"), Some("asleep"));
    assert!(refusal(ranks.stop()).contains("no window was opened"));
    assert!(!server.has_loaded("libcupti"));
    only(ranks.start(&small()));
    assert!(server.has_loaded("libcupti"));
    assert!(refusal(ranks.start(&small())).contains("a window is open"));
}

#[test]
fn windows_follow_one_another_where_the_version_can() {
    let world = World::new();
    let mut server = world.server("twice", 13, "");
    server.does("init");
    for count in [10, 30] {
        let table = recorded(&mut server, &small(), &[&format!("kernel {count}")]);
        assert_eq!(table.rows.iter().map(|row| row.count).sum::<u64>(), count);
    }
    let mut once = world.server("once", 12, "version=22\n");
    once.does("init");
    recorded(&mut once, &small(), &["kernel 10"]);
    let why = refusal(once.ranks().start(&small()));
    assert!(
        why.contains("22 (CUDA 12.4) has one session per process"),
        "{why}"
    );
}

#[test]
fn a_server_that_is_killed_leaves_what_was_flushed() {
    let world = World::new();
    let mut server = world.server("killed", 12, "");
    server.does("init");
    let mut ranks = server.ranks();
    let opened = only(ranks.start(&Recording {
        launches: false,
        ..small()
    }));
    server.does("kernel 2000");
    let status = until(&mut ranks, |status| {
        status.number("records").is_ok_and(|rows| rows > 1500)
    });
    server.dies();
    let outcomes = ranks.stop();
    assert!(
        matches!(outcomes[..], [(_, Err(ControlError::Gone { .. }))]),
        "{outcomes:?}"
    );
    let table = KernelTable::read(&spool(&opened)).expect("a spool");
    assert_eq!(table.missing, [Missing::End]);
    let count = table.rows.iter().map(|row| row.count).sum::<u64>();
    assert!(
        status.number("records").is_ok_and(|told| count >= told),
        "{count} of {status}"
    );
}

#[test]
fn a_window_ends_with_its_controller() {
    let world = World::new();
    let mut server = world.server("left", 12, "");
    server.does("init");
    let mut ranks = server.ranks();
    only(ranks.start(&small()));
    server.does("kernel 100");
    drop(ranks);
    let status = only(server.ranks().status());
    assert_eq!(
        (status.get("phase"), status.get("reason")),
        (Some("closed"), Some("controller_gone"))
    );
    let table = KernelTable::read(&spool(&status)).expect("a spool");
    assert_eq!(table.rows.iter().map(|row| row.count).sum::<u64>(), 100);
    assert!(table.missing.is_empty());
}

#[test]
fn a_window_ends_by_itself() {
    let world = World::new();
    let mut server = world.server("limits", 13, "");
    server.does("init");
    let mut ranks = server.ranks();
    only(ranks.start(&Recording {
        max_time: Duration::ZERO,
        ..small()
    }));
    let status = until(&mut ranks, |status| status.get("phase") == Some("closed"));
    assert_eq!(status.get("reason"), Some("max_ms"));
    only(ranks.start(&Recording {
        max_records: 100,
        ..small()
    }));
    server.does("kernel 2000");
    let status = until(&mut ranks, |status| status.get("phase") == Some("closed"));
    assert_eq!(status.get("reason"), Some("max_records"));
    assert!(status.number("records").is_ok_and(|rows| rows >= 100));
}

#[test]
fn a_child_of_a_fork_is_not_recorded_and_disturbs_nothing() {
    let world = World::new();
    let mut server = world.server("fork", 12, "");
    server.does("init");
    let mut ranks = server.ranks();
    only(ranks.start(&small()));
    server.does("kernel 10");
    let parent = server.pid();
    assert_ne!(server.says("fork"), format!("fork {parent}"));
    // The child's hooks and buffers are its own now.
    server.does("kernel 500");
    assert_eq!(server.says("leave"), "child 0");
    server.does("kernel 10");
    let closed = only(ranks.stop());
    let table = KernelTable::read(&spool(&closed)).expect("a spool");
    assert_eq!(table.rows.iter().map(|row| row.count).sum::<u64>(), 20);
    assert!(table.missing.is_empty(), "{:?}", table.missing);
}

#[test]
fn all_processes_are_recorded_at_once() {
    let world = World::new();
    let path = world.cupti("both", 13, "");
    let mut servers = [world.start(&path), world.start(&path)];
    servers.iter_mut().for_each(|server| server.does("init"));
    let mut ranks = Ranks::connect(world.sockets()).expect("processes");
    assert_eq!((ranks.all().len(), ranks.lost().len()), (2, 0));
    assert!(
        ranks
            .all()
            .iter()
            .all(|rank| rank.program().ends_with("server"))
    );
    assert!(
        ranks
            .start(&small())
            .iter()
            .all(|(_, outcome)| outcome.is_ok())
    );
    servers[0].does("kernel 10");
    servers[1].does("kernel 20");
    for (pid, outcome) in ranks.stop() {
        let table = KernelTable::read(&spool(&outcome.expect("closed"))).expect("a spool");
        assert_eq!(table.pid, u64::from(pid));
        let expected = if pid == servers[0].pid() { 10 } else { 20 };
        assert_eq!(
            table.rows.iter().map(|row| row.count).sum::<u64>(),
            expected
        );
    }
    // One that died is told, and the other is still there.
    drop(ranks);
    servers[0].dies();
    let ranks = Ranks::connect(world.sockets()).expect("a process");
    assert_eq!((ranks.all().len(), ranks.lost().len()), (1, 1));
    assert!(ranks.detach().iter().all(|(_, outcome)| outcome.is_ok()));
    let nobody = Ranks::connect(world.sockets()).unwrap_err();
    assert!(matches!(nobody, ControlError::Nobody { .. }), "{nobody}");
    servers[1].does("kernel 10");
}

#[test]
fn ranges_of_nvtx_are_spooled_if_they_lie_within_the_window() {
    let world = World::new();
    let mut server = world.server("nvtx", 12, "");
    server.does("init");
    server.does("nvtx");
    server.does("step 5");
    let mut ranks = server.ranks();
    only(ranks.start(&small()));
    server.does("step 3");
    let closed = only(ranks.stop());
    server.does("step 5");
    let (mut names, mut ranges) = (Vec::new(), Vec::<Range>::new());
    for frame in Frames::open(&spool(&closed)).expect("a spool") {
        match frame.expect("a frame") {
            Frame::Names(some) => names.extend(some),
            Frame::Ranges(some) => ranges.extend(some),
            _ => {}
        }
    }
    let name = |number| {
        let found = names.iter().find(|(known, _)| *known == number);
        found.map_or("", |(_, name)| name.as_str())
    };
    let told: Vec<_> = ranges
        .iter()
        .map(|range| (name(range.name), name(range.domain)))
        .collect();
    let step = [
        ("forward", "engine"),
        ("execute_context_1(8)_generation_0(0)", ""),
    ];
    assert_eq!(told, [step, step, step].concat());
    for pair in ranges.chunks(2) {
        assert!(pair[1].start_ns <= pair[0].start_ns && pair[0].end_ns <= pair[1].end_ns);
        assert!(pair[0].end_ns - pair[0].start_ns >= 1000);
        assert_eq!(u64::from(server.pid()), pair[0].thread);
    }
}

#[test]
fn a_window_can_be_opened_by_hand() {
    let world = World::new();
    let mut server = world.server("by-hand", 12, "drops=3\n");
    server.does("init");
    let folder = server::library().with_file_name("../examples/window");
    let mut window = Command::new(folder)
        .arg(world.sockets())
        .arg("60")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the example");
    let mut said = BufReader::new(window.stdout.take().expect("its output")).lines();
    let mut line = || said.next().expect("a line").expect("text");
    assert!(line().starts_with(&format!("process {}: opened ", server.pid())));
    assert_eq!(line(), "open");
    server.does("kernel 100");
    writeln!(window.stdin.take().expect("its input")).expect("it listens");
    let shown: Vec<String> = said.map(|line| line.expect("text")).collect();
    assert!(window.wait().expect("its end").success());
    let shown = shown.join("\n");
    assert!(
        shown.contains("0.100        50         0        2.0        2.0  _Z4gemmPfS_i"),
        "{shown}"
    );
    assert!(shown.contains("GPU 0: busy 0.150 ms, "), "{shown}");
    assert!(
        shown.ends_with("PARTIAL: 3 records were dropped by CUPTI"),
        "{shown}"
    );
}

#[test]
fn without_its_variable_a_process_has_nothing_of_it() {
    let world = World::new();
    let mut server = world.start_without_folder();
    server.does("init");
    server.does("nvtx");
    server.does("kernel 10");
    assert!(world.files("").is_empty());
}

#[test]
fn two_symbols_are_exported_and_no_more() {
    let said = Command::new("nm")
        .args(["-D", "--defined-only"])
        .arg(server::library())
        .output();
    let said = String::from_utf8(said.expect("nm").stdout).expect("text");
    let mut symbols: Vec<&str> = said
        .lines()
        .filter_map(|line| line.split(' ').nth(2))
        .collect();
    symbols.sort_unstable();
    assert_eq!(symbols, ["InitializeInjection", "InitializeInjectionNvtx2"]);
}
