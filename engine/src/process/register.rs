//! Every process that was started for a run, as lines of a file in the run's folder.
//!
//! The guardian writes them, itself before its program starts and the program right after, so that
//! they are there however soon the engine is killed. Names processes; ends none.

use super::Identity;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

/// The register's file in the folder of a run.
pub(super) const REGISTER: &str = "processes.log";
/// How much of a register is read, bytes: a hundred thousand processes and more.
const MOST: u64 = 32 << 20;
/// Where a label is cut, characters.
const LONGEST_LABEL: usize = 200;

/// What a process of a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Role {
    /// It watches a program.
    Guardian,
    /// It is what a step or a service has started.
    Program,
}

/// One process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    #[serde(flatten)]
    pub(super) identity: Identity,
    pub(super) role: Role,
    /// For which step or service.
    pub(super) label: String,
}

/// Adds a process.
///
/// # Errors
/// What the system said.
pub(super) fn add(register: &Path, identity: Identity, role: Role, label: &str) -> io::Result<()> {
    let entry = Entry {
        identity,
        role,
        label: label.chars().take(LONGEST_LABEL).collect(),
    };
    let mut line = serde_json::to_vec(&entry)?;
    line.push(b'\n');
    let mut options = OpenOptions::new();
    // One write at the end of the file: lines of several guardians do not mix.
    options
        .append(true)
        .create(true)
        .open(register)?
        .write_all(&line)
}

/// Lists the processes of a run, oldest first; what cannot be read is left out.
pub(super) fn read(run: &Path) -> Vec<Entry> {
    let Ok(file) = File::open(run.join(REGISTER)) else {
        return Vec::new();
    };
    let lines = BufReader::new(file.take(MOST)).split(b'\n');
    lines
        .map_while(Result::ok)
        .filter_map(|line| serde_json::from_slice(&line).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_read_and_torn_lines_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let register = folder.path().join(REGISTER);
        assert!(read(folder.path()).is_empty());
        let me = Identity::of(std::process::id()).unwrap();
        add(&register, me.clone(), Role::Guardian, "load").unwrap();
        let mut file = OpenOptions::new().append(true).open(&register).unwrap();
        file.write_all(b"{\"pid\":1,\"sta\n\xff\n").unwrap();
        add(&register, me.clone(), Role::Program, &"x".repeat(1000)).unwrap();
        let all = read(folder.path());
        assert_eq!((all.len(), &all[0].identity), (2, &me));
        assert_eq!(
            (all[0].role, all[0].label.as_str()),
            (Role::Guardian, "load")
        );
        assert_eq!(all[1].label.len(), LONGEST_LABEL);
    }
}
