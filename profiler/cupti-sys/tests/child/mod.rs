//! A process of its own that opens a library without a driver, and may die of it.

use cupti_sys::{Cupti, Driver, Kind, Library, Strides};
use std::path::Path;
use std::process::{Command, Output};

/// Which library a child of this test opens.
const OPENS: &str = "CUPTI_TEST_OPENS";

/// Has a child open a library, enable kernels and learn sizes, and say what came of it.
pub(crate) fn opened_by_a_child(path: &Path) -> Output {
    let mut child = Command::new(std::env::current_exe().expect("this test"));
    child
        .args(["--exact", "child::opens", "--nocapture"])
        .env(OPENS, path);
    child.output().expect("a child")
}

#[test]
#[expect(clippy::print_stdout, reason = "the parent reads it")]
fn opens() {
    let Some(path) = std::env::var_os(OPENS) else {
        // Without a parent there is nothing to open, and no driver either.
        assert_eq!(Driver::loaded(), None);
        return;
    };
    let library = Library::open(Path::new(&path)).expect("a library");
    // SAFETY: if it kills this process, that is what is looked for.
    match unsafe { Cupti::open_without_driver(library) } {
        Ok(cupti) => {
            let enabled = cupti.enable(Kind::CONCURRENT_KERNEL);
            let enabled = enabled.map_err(|error| error.code.0);
            let version = cupti.version();
            let sizes = Strides::learn(&cupti).map_err(|error| error.to_string());
            println!("version {}, enabling {enabled:?}", version.0);
            println!(
                "sizes {:?}",
                sizes.map(|sizes| sizes == Strides::of(version))
            );
        }
        Err(error) => println!("refuses: {error}"),
    }
}
