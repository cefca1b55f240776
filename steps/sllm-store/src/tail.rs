//! A log that grows: what is written to it from now on, line by line.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// How much is read at a time, bytes.
const PIECE: usize = 64 << 10;
/// A line that is longer is none that anybody reads: it is thrown away.
const LONGEST: usize = 1 << 20;

/// The end of a file that others write.
#[derive(Debug)]
pub struct Tail {
    file: File,
    /// Of a line that is not whole yet.
    rest: Vec<u8>,
}

impl Tail {
    /// Begins where the file ends now.
    ///
    /// # Errors
    ///
    /// If it cannot be opened.
    pub fn from_end(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self {
            file,
            rest: Vec::new(),
        })
    }

    /// Gives every whole line that was written since to `read`. Does not wait.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn lines(&mut self, mut read: impl FnMut(&str)) -> io::Result<()> {
        let mut piece = vec![0; PIECE];
        loop {
            let n = self.file.read(&mut piece)?;
            if n == 0 {
                return Ok(());
            }
            self.rest.extend_from_slice(&piece[..n]);
            while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                read(&String::from_utf8_lossy(&line[..end]));
            }
            if self.rest.len() > LONGEST {
                self.rest.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn only_new_and_whole_lines_come() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"before\n").unwrap();
        let mut tail = Tail::from_end(&path).unwrap();
        let mut lines = || {
            let mut all = Vec::new();
            tail.lines(|line| all.push(line.to_owned())).unwrap();
            all
        };
        assert!(lines().is_empty());
        file.write_all(b"one\n\xfftw").unwrap();
        assert_eq!(lines(), ["one"]);
        file.write_all(b"o\n\n").unwrap();
        assert_eq!(lines(), ["\u{fffd}two", ""]);
        file.write_all(&vec![b'x'; LONGEST + 1]).unwrap();
        assert!(lines().is_empty());
        file.write_all(b"end\nthree\n").unwrap();
        assert_eq!(lines(), ["end", "three"]);
    }
}
