//! `benchwright fsck`: reads everything that is kept, mends what can be mended, and says the rest.

use super::Session;
use crate::args::Fsck;
use crate::exit::{self, Failure};
use crate::terminal;
use crate::{outputs, words};
use engine::store::{FsckOptions, FsckReport, Remedy};

/// Checks the store.
pub(super) fn fsck(arguments: &Fsck, session: &Session) -> Result<u8, Failure> {
    if !session.out.join("store").is_dir() {
        return Err(Failure::new(format!(
            "there is no store in `{}`",
            session.out.display()
        )));
    }
    let store = outputs::open(&session.out)?;
    let dry_run = arguments.dry_run;
    let report = store
        .fsck(FsckOptions { dry_run })
        .map_err(|error| Failure::new(error.to_string()))?;
    if arguments.json {
        terminal::line(serde_json::to_value(&report).unwrap_or_default());
    } else {
        show(&report);
    }
    // What was mended is no failure; what cannot be is made again by the next run that wants it.
    let is_good = report.is_sound() || (!dry_run && report.trouble.is_empty());
    Ok(if is_good { exit::DONE } else { exit::FAILED })
}

fn show(report: &FsckReport) {
    for finding in &report.findings {
        terminal::line(format!(
            "{} {}: {}",
            finding.path.display(),
            finding.problem,
            remedy(finding.remedy, report.dry_run)
        ));
    }
    for trouble in &report.trouble {
        terminal::error_line(format!("could not check or mend: {trouble}"));
    }
    let read = format!(
        "read {} in {}, {} and {}",
        words::bytes(report.bytes),
        words::plural(count(report.blobs), "file"),
        words::plural(count(report.trees), "tree"),
        words::plural(count(report.records), "record")
    );
    terminal::line(match (report.is_sound(), report.has_lost()) {
        (true, _) => format!("{read}: everything is as it should be"),
        (false, false) => format!("{read}: nothing is lost"),
        (false, true) => {
            format!("{read}: what is lost is made again by the next run that wants it")
        }
    });
}

fn remedy(remedy: Remedy, dry_run: bool) -> &'static str {
    match (remedy, dry_run) {
        (Remedy::Nothing, _) => "it is made again when a run needs it",
        (Remedy::Rebuilt, false) => "made again from what is whole",
        (Remedy::Rebuilt, true) => "can be made again from what is whole",
        (Remedy::Sealed, false) => "sealed again",
        (Remedy::Sealed, true) => "would be sealed again",
        (Remedy::Quarantined, false) => "moved to `quarantine/`",
        (Remedy::Quarantined, true) => "would be moved to `quarantine/`",
        (Remedy::Removed, false) => "removed",
        (Remedy::Removed, true) => "would be removed",
    }
}

fn count(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
