//! What happens in a process without a driver, version by version, with a stand-in that answers as the real
//! ones were seen to.

mod child;

use child::opened_by_a_child;
use fake_cupti::Fakes;
use std::os::unix::process::ExitStatusExt;

#[test]
fn each_version_answers_in_its_way() {
    let fakes = Fakes::new().expect("a C compiler");
    for (version, expected) in [
        (22, ["version 22, enabling Err(15)", "sizes Ok(true)"]),
        (
            130_001,
            ["version 130001, enabling Err(999)", "sizes Ok(true)"],
        ),
        (
            130_301,
            ["refuses: ", "`cuptiGetVersion` answered 999 (UNKNOWN)"],
        ),
    ] {
        let name = format!("without-{version}");
        let absent = ["cuptiActivityGetStructSize"];
        let script = format!("version={version}\n");
        let path = fakes.cupti(&name, 12, &script, &absent).expect("a library");
        let said = opened_by_a_child(&path);
        let out = String::from_utf8_lossy(&said.stdout);
        assert!(said.status.success(), "{version}: {out}");
        assert!(
            expected.iter().all(|line| out.contains(line)),
            "{version}: {out}"
        );
    }
}

#[test]
fn a_version_that_dies_without_a_driver_takes_its_process_along() {
    let fakes = Fakes::new().expect("a C compiler");
    let path = fakes
        .cupti("dies", 13, "version=130202\n", &[])
        .expect("a library");
    let said = opened_by_a_child(&path);
    assert_eq!(said.status.signal(), Some(libc::SIGSEGV), "{said:?}");
}
