//! Links the command at a fixed address.
//!
//! Every local step starts the command once more, as its guardian. A position-independent
//! executable of this size has a hundred thousand addresses to relocate at each start, which took a
//! quarter of all the time that a step costs (`cargo bench --bench engine -- overhead`). What is given
//! up is that the command's own code lies elsewhere at each start; libraries, heap and stack still do.

#![forbid(unsafe_code)]

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    if is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu") {
        println!("cargo:rustc-link-arg-bins=-no-pie");
    }
}
