//! A GPU that is none: a library that answers as CUDA's driver does, with memory in `/dev/shm`.
//!
//! What searches the driver finds it only in the library path that its process began with, so a test that needs
//! one runs itself again.

use std::path::Path;
use std::process::Command;

/// Set for the second run.
const MARK: &str = "BENCHWRIGHT_TEST_CUDA";
/// The UUID of the only GPU, as the library has it.
pub(crate) const UUID: &str = "00112233-4455-6677-8899-aabbccddeeff";

/// The library of CUDA's runtime.
const RUNTIME: &str = "libcudart.so.12";

/// Whether this is a process that has the library.
pub(crate) fn is_here() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Compiles the libraries of the driver and of the runtime into a folder. Whoever compiles Rust has what links it,
/// which compiles C.
pub(crate) fn compile(to: &Path) {
    // What is linked with the runtime asks for its symbols by this version.
    let versions = to.join("versions");
    std::fs::write(&versions, format!("{RUNTIME} {{ global: cuda*; }};\n")).expect("a file");
    let versions = format!("-Wl,--version-script={}", versions.display());
    cc(&to.join("libcuda.so"), "libcuda.so.1", &[]);
    cc(&to.join(RUNTIME), RUNTIME, &[&versions]);
    std::fs::copy(to.join("libcuda.so"), to.join("libcuda.so.1")).expect("a copy");
}

fn cc(to: &Path, name: &str, flags: &[&str]) {
    let source = root().join(Path::new(file!()).with_file_name("cuda.c"));
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-fPIC", "-shared", "-w", "-o"]).arg(to);
    cc.arg(format!("-Wl,-soname,{name}")).args(flags);
    cc.arg(source).arg("-lrt");
    assert!(cc.status().expect("a C compiler").success());
}

/// The workspace, from which `file!()` counts.
fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let is_root = |folder: &&Path| folder.join("Cargo.lock").exists();
    package.ancestors().find(is_root).expect("the workspace")
}

/// Runs one test of this program again, where the library is found.
pub(crate) fn again(test: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    compile(folder.path());
    let program = std::env::current_exe().expect("this program");
    let mut command = Command::new(program);
    command.args([test, "--exact", "--test-threads", "1"]);
    command.env(MARK, "1").env("LD_LIBRARY_PATH", folder.path());
    let said = command.output().expect("this program");
    let out = String::from_utf8_lossy(&said.stdout);
    let err = String::from_utf8_lossy(&said.stderr);
    let has_passed = said.status.success() && out.contains("1 passed");
    assert!(has_passed, "{test}: {out}{err}");
}
