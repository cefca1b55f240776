//! Where CUPTI is looked for: first what the process has loaded, then beside the framework that it runs,
//! then where toolkits are. A second copy is never loaded beside one that is there: two do not know of
//! each other, and both would patch the driver.

use crate::driver::Driver;
use crate::library::{Library, LoadError};
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// The environment's variable that names the library, and so ends the search.
pub const NAMED: &str = "BENCHWRIGHT_CUPTI";

/// Major versions that this crate reads, newest first.
const MAJORS: [u32; 2] = [13, 12];
/// Where a toolkit has it, below its root.
const OF_TOOLKITS: [&str; 3] = ["extras/CUPTI/lib64", "lib64", "targets/x86_64-linux/lib"];
/// A toolkit's root where nothing names one.
const TOOLKIT: &str = "/usr/local/cuda";

/// Something that may be the library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Candidate {
    /// Loaded in this process already, from this file.
    Loaded(PathBuf),
    /// A file.
    File(PathBuf),
    /// A name that the dynamic linker may know.
    Name(String),
}

/// What the search rests on.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// The library that was named, which ends the search.
    pub named: Option<PathBuf>,
    /// Files that the process has mapped, each once.
    pub mapped: Vec<PathBuf>,
    /// Roots of toolkits.
    pub toolkits: Vec<PathBuf>,
    /// Major version of the newest CUDA that the driver can run.
    pub driver_major: Option<u32>,
}

impl Surroundings {
    /// Those of this process.
    #[must_use]
    pub fn of_this_process(driver: Option<Driver>) -> Self {
        let named = |name: &str| env::var_os(name).filter(|value: &OsString| !value.is_empty());
        let toolkits = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(named);
        let maps = fs::read("/proc/self/maps").unwrap_or_default();
        Self {
            named: named(NAMED).map(PathBuf::from),
            mapped: mapped_files(&String::from_utf8_lossy(&maps)),
            toolkits: toolkits
                .map(PathBuf::from)
                .chain([TOOLKIT.into()])
                .collect(),
            driver_major: driver.and_then(Driver::cuda_major),
        }
    }

    /// Where to look, best first. What is newer than the driver is left out: it would answer
    /// `NOT_INITIALIZED` to everything.
    #[must_use]
    pub fn candidates(&self) -> Vec<Candidate> {
        if let Some(named) = &self.named {
            return vec![Candidate::File(named.clone())];
        }
        let mut loaded: Vec<&PathBuf> = self.mapped.iter().filter(|path| is_cupti(path)).collect();
        if !loaded.is_empty() {
            // What the process uses is taken as it is; of two the one of the driver's own CUDA.
            loaded.sort_by_key(|path| major(path) != self.driver_major);
            return loaded.into_iter().cloned().map(Candidate::Loaded).collect();
        }
        let beside = self.site_packages().into_iter().flat_map(|root| {
            let newer = root.join("nvidia/cu13/lib/libcupti.so.13");
            [newer, root.join("nvidia/cuda_cupti/lib/libcupti.so.12")]
        });
        let of_toolkits = self.toolkits.iter().flat_map(|root| {
            OF_TOOLKITS.into_iter().flat_map(move |folder| {
                MAJORS.map(|major| root.join(folder).join(format!("libcupti.so.{major}")))
            })
        });
        let files = beside.chain(of_toolkits).map(Candidate::File);
        let names = MAJORS.map(|major| Candidate::Name(format!("libcupti.so.{major}")));
        files.chain(names).filter(|one| self.suits(one)).collect()
    }

    /// Folders of Python packages that the process has something loaded from, each once.
    fn site_packages(&self) -> Vec<PathBuf> {
        let mut roots = Vec::new();
        for path in &self.mapped {
            let root = path.ancestors().find(|folder| {
                folder.ends_with("site-packages") || folder.ends_with("dist-packages")
            });
            if let Some(root) = root
                && !roots.iter().any(|known| known == root)
            {
                roots.push(root.to_owned());
            }
        }
        roots
    }

    fn suits(&self, candidate: &Candidate) -> bool {
        let path = match candidate {
            Candidate::Loaded(path) | Candidate::File(path) => path.as_path(),
            Candidate::Name(name) => Path::new(name),
        };
        match (major(path), self.driver_major) {
            (Some(major), Some(driver)) => major <= driver,
            _ => true,
        }
    }
}

/// Finds the library and loads it, unless it is loaded; calls nothing of it.
///
/// # Errors
/// [`LoadError::NotFound`] with the places, or why the one that was named, or that is loaded, cannot be used.
pub fn find(surroundings: &Surroundings) -> Result<Library, LoadError> {
    let mut looked = Vec::new();
    for candidate in surroundings.candidates() {
        let opened = match &candidate {
            Candidate::Loaded(path) => match Library::loaded(path.as_os_str()) {
                Some(library) => Ok(library),
                None => {
                    looked.push(format!("{} (which is mapped, not loaded)", path.display()));
                    continue;
                }
            },
            Candidate::File(path) if surroundings.named.is_none() && !path.exists() => {
                looked.push(path.display().to_string());
                continue;
            }
            Candidate::File(path) => Library::open(path),
            Candidate::Name(name) => Library::open(Path::new(name)),
        };
        match opened {
            Ok(library) => return Ok(library.located_by(c"cuptiGetVersion")),
            Err(error) if surroundings.named.is_some() => return Err(error),
            Err(LoadError::Open { path, why }) => {
                looked.push(format!("{} ({why})", path.display()))
            }
            Err(error) => return Err(error),
        }
    }
    Err(LoadError::NotFound { looked })
}

/// The files of `/proc/self/maps`, each once, in its order.
fn mapped_files(maps: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = Vec::new();
    for line in maps.lines() {
        // Address, rights, offset, device and inode come before it; a path may have blanks.
        let Some(at) = line.find('/') else { continue };
        let path = Path::new(line[at..].trim_end_matches(" (deleted)"));
        if files.last().is_none_or(|last| last != path) && !files.iter().any(|known| known == path)
        {
            files.push(path.to_owned());
        }
    }
    files
}

/// Whether a file is CUPTI by its name: frameworks ship it under names with a digest in them, too.
fn is_cupti(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.strip_prefix("libcupti")
        .is_some_and(|rest| rest.starts_with(['.', '-']) && rest.contains(".so"))
}

/// The major version of CUDA in a library's name, if one is there: `libcupti.so.13` is 13.
fn major(path: &Path) -> Option<u32> {
    let name = path.file_name()?.to_str()?;
    let (_, version) = name.split_once(".so.")?;
    // Toolkits name the file itself by the year of CUPTI, `libcupti.so.2025.1.0`.
    let major = version.split('.').next()?.parse().ok()?;
    (major < 1000).then_some(major)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
7f0-7f1 r-xp 00000000 08:01 12 /opt/venv/lib/python3.12/site-packages/torch/lib/libtorch_cuda.so
7f1-7f2 r--p 00001000 08:01 12 /opt/venv/lib/python3.12/site-packages/torch/lib/libtorch_cuda.so
7f2-7f3 r-xp 00000000 08:01 13 /usr/lib/x86_64-linux-gnu/libcuda.so.580.1
7f3-7f4 rw-p 00000000 00:00 0
7f4-7f5 rw-p 00000000 00:00 0 [heap]
7f5-7f6 r-xp 00000000 08:01 14 /srv/a folder/libx.so (deleted)
";

    fn surroundings(extra: &[&str], driver_major: Option<u32>) -> Surroundings {
        let mut mapped = mapped_files(MAPS);
        mapped.extend(extra.iter().map(PathBuf::from));
        Surroundings {
            mapped,
            toolkits: vec!["/cuda".into()],
            driver_major,
            ..Surroundings::default()
        }
    }

    #[test]
    fn files_of_the_map_are_read_once_each() {
        assert_eq!(
            mapped_files(MAPS),
            [
                "/opt/venv/lib/python3.12/site-packages/torch/lib/libtorch_cuda.so",
                "/usr/lib/x86_64-linux-gnu/libcuda.so.580.1",
                "/srv/a folder/libx.so"
            ]
            .map(PathBuf::from)
        );
    }

    #[test]
    fn what_is_loaded_ends_the_search() {
        let twelve = "/v/nvidia/cuda_cupti/lib/libcupti.so.12";
        let thirteen = "/v/nvidia/cu13/lib/libcupti.so.13";
        let loaded = |paths: &[&str]| {
            let paths = paths.iter().map(|path| Candidate::Loaded(path.into()));
            paths.collect::<Vec<_>>()
        };
        let of = |driver| surroundings(&[twelve, thirteen], driver).candidates();
        assert_eq!(of(Some(13)), loaded(&[thirteen, twelve]));
        assert_eq!(of(Some(12)), loaded(&[twelve, thirteen]));
        let renamed = "/v/torch/lib/libcupti-74e3f1b2.so.12";
        let others = "/v/torch/lib/libcuptiutil.so.12";
        assert_eq!(
            surroundings(&[others, renamed], Some(13)).candidates(),
            loaded(&[renamed])
        );
    }

    #[test]
    fn the_frameworks_own_comes_before_toolkits_and_the_linker() {
        let candidates = surroundings(&[], Some(13)).candidates();
        let packages = "/opt/venv/lib/python3.12/site-packages";
        let file = |path: String| Candidate::File(path.into());
        assert_eq!(
            candidates[..4],
            [
                file(format!("{packages}/nvidia/cu13/lib/libcupti.so.13")),
                file(format!("{packages}/nvidia/cuda_cupti/lib/libcupti.so.12")),
                file("/cuda/extras/CUPTI/lib64/libcupti.so.13".into()),
                file("/cuda/extras/CUPTI/lib64/libcupti.so.12".into()),
            ]
        );
        assert_eq!(
            candidates.last(),
            Some(&Candidate::Name("libcupti.so.12".into()))
        );
    }

    #[test]
    fn what_is_newer_than_the_driver_is_left_out() {
        let candidates = surroundings(&[], Some(12)).candidates();
        assert!(!candidates.is_empty());
        let told = format!("{candidates:?}");
        assert!(!told.contains("so.13") && told.contains("so.12"), "{told}");
        let unknown = surroundings(&[], None).candidates();
        assert!(format!("{unknown:?}").contains("so.13"));
        assert_eq!(major(Path::new("/x/libcupti.so.2025.1.0")), None);
    }

    #[test]
    fn what_is_named_is_all_that_is_looked_at() {
        let mut named = surroundings(&["/v/libcupti.so.12"], Some(12));
        named.named = Some("/nowhere/libcupti.so.13".into());
        assert_eq!(
            named.candidates(),
            [Candidate::File("/nowhere/libcupti.so.13".into())]
        );
        let error = find(&named).unwrap_err();
        assert!(matches!(error, LoadError::Open { .. }), "{error}");
    }

    #[test]
    fn where_it_was_looked_for_is_told() {
        let nowhere = Surroundings {
            toolkits: vec!["/nowhere".into()],
            // No CUDA is as old as this, so that the linker is asked for nothing.
            driver_major: Some(1),
            ..Surroundings::default()
        };
        let error = find(&nowhere).unwrap_err().to_string();
        assert!(error.contains("BENCHWRIGHT_CUPTI"), "{error}");
        let mapped = Surroundings {
            mapped: vec!["/nowhere/libcupti.so.12".into()],
            ..nowhere
        };
        let error = find(&mapped).unwrap_err().to_string();
        assert!(error.contains("mapped, not loaded"), "{error}");
    }
}
