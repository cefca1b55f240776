//! Large pages of the whole machine, reserved for a while: asked for, looked at, and always put back.
//!
//! `fio` reads into them as fast as the storage gives. Only root may reserve them, and only as many as the
//! kernel finds together; that it was asked for more than it gave is not told, so what is there is looked at.

use std::path::{Path, PathBuf};

/// Where the kernel tells and takes how many there are.
const POOL: &str = "/proc/sys/vm/nr_hugepages";
/// Where it tells their size, and how many nobody uses.
const MEMORY: &str = "/proc/meminfo";

/// What the kernel shows of large pages.
pub(super) struct LargePages {
    pool: PathBuf,
    memory: PathBuf,
}

impl Default for LargePages {
    fn default() -> Self {
        Self {
            pool: POOL.into(),
            memory: MEMORY.into(),
        }
    }
}

/// Pages that were added to the pool, until this is dropped: also when what they are for fails, or is stopped.
#[derive(Debug)]
pub(super) struct Reserved {
    pool: PathBuf,
    /// Pages that came to the pool.
    added: u64,
}

impl LargePages {
    /// Bytes of one page.
    pub(super) fn size(&self) -> u64 {
        self.number("Hugepagesize:") * 1024
    }

    /// Bytes that are reserved, and that nobody uses or has been promised.
    pub(super) fn free(&self) -> u64 {
        let free = self.number("HugePages_Free:");
        free.saturating_sub(self.number("HugePages_Rsvd:")) * self.size()
    }

    /// Makes sure that `needed` bytes are free, for which more may be reserved until what is returned is dropped; or says
    /// why they are not.
    pub(super) fn reserve(&self, needed: u64) -> Result<Reserved, String> {
        let (size, free) = (self.size(), self.free());
        let mut reserved = Reserved {
            pool: self.pool.clone(),
            added: 0,
        };
        if needed <= free {
            return Ok(reserved);
        }
        if size == 0 {
            return Err("the kernel has no large pages".to_owned());
        }
        let before = count(&self.pool)?;
        set(&self.pool, before + (needed - free).div_ceil(size))?;
        reserved.added = count(&self.pool)?.saturating_sub(before);
        if self.free() >= needed {
            return Ok(reserved);
        }
        let missing = (needed - self.free()).div_ceil(size);
        Err(format!(
            "the kernel found {} large pages and not {}",
            reserved.added,
            reserved.added + missing
        ))
    }

    fn number(&self, word: &str) -> u64 {
        let text = std::fs::read_to_string(&self.memory).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(word));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.and_then(|n| n.parse().ok()).unwrap_or(0)
    }
}

impl Reserved {
    /// Puts the pages back, and says if that did not succeed.
    pub(super) fn put_back(mut self) -> Result<(), String> {
        self.give()
    }

    fn give(&mut self) -> Result<(), String> {
        let added = std::mem::take(&mut self.added);
        if added == 0 {
            return Ok(());
        }
        // Others may have changed it meanwhile: only what was added goes.
        let wanted = count(&self.pool)?.saturating_sub(added);
        set(&self.pool, wanted)?;
        match count(&self.pool)? {
            now if now <= wanted => Ok(()),
            now => Err(format!(
                "{} large pages stayed reserved; `sysctl vm.nr_hugepages={wanted}` puts them back",
                now - wanted
            )),
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        // Whoever wants to tell what went wrong calls `put_back`.
        let _ = self.give();
    }
}

fn count(pool: &Path) -> Result<u64, String> {
    let text = std::fs::read_to_string(pool);
    let text = text.map_err(|e| format!("could not read `{}`: {e}", pool.display()))?;
    let number = text.trim().parse();
    number.map_err(|_| format!("`{}` holds no number", pool.display()))
}

fn set(pool: &Path, pages: u64) -> Result<(), String> {
    std::fs::write(pool, pages.to_string())
        .map_err(|e| format!("could not write `{}`: {e}", pool.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files in place of the kernel's, with 5 pages of which 3 are free.
    fn kernel(folder: &Path, free: u64) -> LargePages {
        let (pool, memory) = (folder.join("nr_hugepages"), folder.join("meminfo"));
        std::fs::write(&pool, "5\n").unwrap();
        let text = format!(
            "MemFree: 7 kB\nHugePages_Total: 5\nHugePages_Free: {free}\nHugePages_Rsvd: 1\nHugepagesize: 2048 kB\n"
        );
        std::fs::write(&memory, text).unwrap();
        LargePages { pool, memory }
    }

    #[test]
    fn pages_that_are_free_are_not_asked_for_again() {
        let folder = tempfile::tempdir().unwrap();
        let kernel = kernel(folder.path(), 3);
        assert_eq!(kernel.free(), 4 << 20);
        let reserved = kernel.reserve(4 << 20).unwrap();
        assert_eq!((count(&kernel.pool), reserved.added), (Ok(5), 0));
        reserved.put_back().unwrap();
        assert_eq!(count(&kernel.pool), Ok(5));
    }

    #[test]
    fn pages_that_the_kernel_does_not_give_are_put_back_and_missed() {
        let folder = tempfile::tempdir().unwrap();
        let kernel = kernel(folder.path(), 3);
        // This kernel counts them, and has no more free than before.
        let why = kernel.reserve(10 << 20).unwrap_err();
        assert_eq!(why, "the kernel found 3 large pages and not 6");
        assert_eq!(count(&kernel.pool), Ok(5));
    }

    #[test]
    fn what_was_added_goes_and_what_others_added_stays() {
        let folder = tempfile::tempdir().unwrap();
        let kernel = kernel(folder.path(), 3);
        let reserved = Reserved {
            pool: kernel.pool.clone(),
            added: 4,
        };
        set(&kernel.pool, 12).unwrap();
        drop(reserved);
        assert_eq!(count(&kernel.pool), Ok(8));
    }

    #[test]
    fn where_nothing_may_be_written_the_reason_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let mut kernel = kernel(folder.path(), 0);
        kernel.pool = folder.path().join("none/nr_hugepages");
        let why = kernel.reserve(1).unwrap_err();
        assert!(why.starts_with("could not read `"), "{why}");
    }
}
