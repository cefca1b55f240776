//! Opens a window by hand in all processes of a server, and shows what their GPUs did in it:
//!
//! ```text
//! cargo run --release -p profiler-inject --example window -- FOLDER SECONDS
//! ```
//!
//! It is closed after so many seconds, or at a line of the standard input. The server was started with
//! `BENCHWRIGHT_PROFILER_DIR=FOLDER` and `CUDA_INJECTION64_PATH`; see docs/profiler.md.

#![expect(clippy::print_stdout, reason = "a command line")]

use profiler_control::{ControlError, KernelTable, Ranks, Recording};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;
use std::{env, io, thread};

/// How often windows are looked after.
const TURN: Duration = Duration::from_millis(100);
/// Kernels that are shown.
const ROWS: usize = 30;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args_os().skip(1);
    let (Some(folder), Some(seconds)) = (arguments.next(), arguments.next()) else {
        return Err("expected FOLDER SECONDS".into());
    };
    let recording = Recording {
        max_time: Duration::from_secs(seconds.to_string_lossy().parse()?),
        ..Recording::default()
    };
    let mut ranks = Ranks::connect(Path::new(&folder))?;
    for lost in ranks.lost() {
        println!("passed over: {lost}");
    }
    for (pid, opened) in ranks.start(&recording) {
        println!("process {pid}: {}", opened?);
    }
    println!("open");
    wait(&mut ranks, &lines())?;
    for (_, closed) in ranks.stop() {
        let closed = closed?;
        let spool = closed.get("spool").ok_or("a window without a spool")?;
        show(&KernelTable::read(&PathBuf::from(spool))?);
    }
    Ok(())
}

/// The lines of the standard input, as they come.
fn lines() -> Receiver<io::Result<String>> {
    let (sender, receiver) = mpsc::sync_channel(1);
    thread::spawn(move || {
        for line in io::stdin().lines() {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Waits until every window is closed, or for a line.
fn wait(ranks: &mut Ranks, lines: &Receiver<io::Result<String>>) -> Result<(), ControlError> {
    loop {
        match lines.recv_timeout(TURN) {
            Ok(_) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => {}
            // There is no standard input; only time ends it.
            Err(RecvTimeoutError::Disconnected) => thread::sleep(TURN),
        }
        let mut is_open = false;
        for (_, status) in ranks.status() {
            is_open |= status?.get("phase") == Some("open");
        }
        if !is_open {
            return Ok(());
        }
    }
}

fn show(table: &KernelTable) {
    let milliseconds = |ns: u64| ns as f64 / 1e6;
    println!(
        "\nprocess {}: a window of {:.3} ms",
        table.pid,
        milliseconds(table.window_ns)
    );
    for (device, busy) in &table.busy_ns {
        let share = *busy as f64 / table.window_ns.max(1) as f64 * 100.0;
        println!(
            "GPU {device}: busy {:.3} ms, {share:.1} %",
            milliseconds(*busy)
        );
    }
    println!(
        "{:>12} {:>9} {:>9} {:>10} {:>10}  kernel",
        "total ms", "count", "in graphs", "p50 µs", "p99 µs"
    );
    for row in table.rows.iter().take(ROWS) {
        println!(
            "{:>12.3} {:>9} {:>9} {:>10.1} {:>10.1}  {}",
            milliseconds(row.total_ns),
            row.count,
            row.in_graphs,
            row.p50_ns as f64 / 1e3,
            row.p99_ns as f64 / 1e3,
            row.name
        );
    }
    if table.rows.len() > ROWS {
        println!("and {} more", table.rows.len() - ROWS);
    }
    if table.outside > 0 {
        println!("{} kernels lie outside of the window", table.outside);
    }
    for missing in &table.missing {
        println!("PARTIAL: {missing}");
    }
}
