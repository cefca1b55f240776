//! The end of a log file, for error messages. Knows nothing of who wrote it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// How much of the end is looked at, in bytes.
const WINDOW: u64 = 64 << 10;
/// Where a line is cut, in characters: a progress bar may write megabytes without a line feed.
const MAX_LINE: usize = 1000;

/// Returns the last `n_lines` lines of the file at `path`, oldest first.
///
/// Reads at most 64 KiB, whatever the file's size; bytes that are not UTF-8 become `�`, long
/// lines end in `…`, and of a line rewritten with carriage returns only the last state is kept. A
/// file that cannot be read has no lines.
pub fn log_tail(path: &Path, n_lines: usize) -> Vec<String> {
    let Ok((bytes, from_start)) = read_end(path) else {
        return Vec::new();
    };
    let text = String::from_utf8_lossy(&bytes);
    let mut lines: Vec<&str> = text.lines().collect();
    if !from_start && lines.len() > 1 {
        // The first line most likely began before the window.
        lines.remove(0);
    }
    let skip = lines.len().saturating_sub(n_lines);
    lines[skip..].iter().map(|line| shown(line)).collect()
}

fn read_end(path: &Path) -> std::io::Result<(Vec<u8>, bool)> {
    let mut file = File::open(path)?;
    let start = file.metadata()?.len().saturating_sub(WINDOW);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(WINDOW).read_to_end(&mut bytes)?;
    Ok((bytes, start == 0))
}

fn shown(line: &str) -> String {
    let line = line.trim_end_matches('\r');
    let line = line.rsplit('\r').next().unwrap_or(line);
    match line.char_indices().nth(MAX_LINE) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail_of(content: &[u8], n_lines: usize) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, content).unwrap();
        log_tail(&path, n_lines)
    }

    #[test]
    fn the_last_lines_come_in_order() {
        assert_eq!(tail_of(b"a\nb\nc\n", 2), ["b", "c"]);
        assert_eq!(tail_of(b"a\nb", 9), ["a", "b"]);
        assert_eq!(tail_of(b"", 3), Vec::<String>::new());
        assert_eq!(log_tail(Path::new("/nonexistent"), 3), Vec::<String>::new());
    }

    #[test]
    fn only_the_end_of_a_large_file_is_read_and_no_half_line_is_shown() {
        let content: String = (0..20_000)
            .map(|i| format!("line number {i:08}\n"))
            .collect();
        let lines = tail_of(content.as_bytes(), usize::MAX);
        assert!(
            lines.len() < 4000 && lines.iter().all(|line| line.len() == 20),
            "{}",
            lines.len()
        );
        assert_eq!(lines.last().unwrap(), "line number 00019999");
    }

    #[test]
    fn foreign_bytes_long_lines_and_progress_bars_are_tamed() {
        assert_eq!(tail_of(b"\xff!\n", 1), ["\u{fffd}!"]);
        assert_eq!(tail_of(b" 1%\r 50%\r100%\r\ndone\n", 2), ["100%", "done"]);
        assert_eq!(
            tail_of(&b"x".repeat(5000), 1)[0].chars().count(),
            MAX_LINE + 1
        );
    }
}
