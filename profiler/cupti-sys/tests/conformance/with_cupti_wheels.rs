//! Sizes and places of records, numbers of calls, codes and kinds: what the compiler makes of each version's
//! headers. And each version's library, opened as far as it can be without a driver.

use crate::child::opened_by_a_child;
use cupti_sys::records::LAYOUTS;
use cupti_sys::{Attribute, Code, Domain, Kind, Version, cbid};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Headers of CUDA that CUPTI's include, as far as they need them: names of types.
const CUDA: &str = include_str!("cuda_types.h");
/// Empty ones beside it.
const EMPTY: [&str; 3] = ["builtin_types.h", "cuda_runtime_api.h", "vector_types.h"];

/// The versions that are there, with where they are; `cargo xtask test` fetches them, or says in one line that
/// these tests are skipped.
fn wheels() -> Option<Vec<(String, PathBuf)>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/fetch.py");
    let mut python = Command::new("python3");
    // Nothing is written beside the sources.
    python
        .arg("-B")
        .arg(script)
        .arg("--check")
        .stdin(Stdio::null());
    let said = python.output().ok().filter(|said| said.status.success())?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let wheel = |line: &str| {
        let (version, path) = line.split_once(' ').expect("a version and a path");
        (version.to_owned(), PathBuf::from(path))
    };
    Some(said.lines().map(wheel).collect())
}

/// What C makes of some expressions, in the headers of one version.
fn compiled(headers: &Path, expressions: &[(String, String)]) -> HashMap<String, usize> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    fs::write(path("cuda.h"), CUDA).expect("written");
    for name in EMPTY {
        fs::write(path(name), "").expect("written");
    }
    let mut source =
        String::from("#include <stddef.h>\n#include <stdio.h>\n#include <cupti_version.h>\n");
    source.push_str("#include <cupti_activity.h>\n#include <cupti_driver_cbid.h>\n");
    source.push_str("#include <cupti_runtime_cbid.h>\nint main(void) {\n");
    for (name, expression) in expressions {
        writeln!(
            source,
            "printf(\"%s %zu\\n\", \"{name}\", (size_t)({expression}));"
        )
        .expect("a line");
    }
    source.push_str("return 0; }\n");
    fs::write(path("told.c"), source).expect("written");
    let mut compiler = Command::new("cc");
    compiler
        .args(["-w", "-std=gnu11", "-I"])
        .arg(folder.path())
        .arg("-I")
        .arg(headers);
    let said = compiler
        .arg("-o")
        .arg(path("told"))
        .arg(path("told.c"))
        .output();
    let said = said.expect("a C compiler");
    assert!(
        said.status.success(),
        "{}",
        String::from_utf8_lossy(&said.stderr)
    );
    let told = Command::new(path("told")).output().expect("it runs").stdout;
    let told = String::from_utf8(told).expect("text");
    let pair = |line: &str| {
        let (name, value) = line.split_once(' ').expect("a pair");
        (name.to_owned(), value.parse().expect("a number"))
    };
    told.lines().map(pair).collect()
}

/// The latest revision of a structure in a header: the name itself, or that with the largest number behind it.
fn latest(header: &str, structure: &str) -> String {
    let mut latest = (0, structure.to_owned());
    for (at, _) in header.match_indices(structure) {
        let rest = &header[at + structure.len()..];
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        let is_whole = !rest[digits.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_');
        if let (true, Ok(number)) = (is_whole, digits.parse::<u32>())
            && number > latest.0
        {
            latest = (number, format!("{structure}{number}"));
        }
    }
    latest.1
}

/// The API's version, as the headers have it.
fn version(headers: &Path) -> Version {
    let ask = [("version".to_owned(), "CUPTI_API_VERSION".to_owned())];
    let number = compiled(headers, &ask)["version"];
    Version(u32::try_from(number).expect("a version"))
}

#[test]
fn records_are_laid_out_as_the_headers_say() {
    let Some(wheels) = wheels() else { return };
    for (name, headers) in wheels {
        let version = version(&headers);
        let header = fs::read_to_string(headers.join("cupti_activity.h")).expect("a header");
        let (mut asked, mut expected) = (Vec::new(), HashMap::new());
        for layout in LAYOUTS {
            let structure = latest(&header, layout.structure);
            let size = version.stride(layout.kinds[0]).expect("a size");
            asked.push((layout.structure.to_owned(), format!("sizeof({structure})")));
            expected.insert(layout.structure.to_owned(), size);
            for field in layout
                .fields
                .iter()
                .filter(|field| field.at + field.size <= size)
            {
                let (at, long) = (
                    format!("{}.{}@", layout.structure, field.name),
                    format!("{}.{}:", layout.structure, field.name),
                );
                asked.push((at.clone(), format!("offsetof({structure}, {})", field.name)));
                asked.push((
                    long.clone(),
                    format!("sizeof((({structure} *)0)->{})", field.name),
                ));
                expected.insert(at, field.at);
                expected.insert(long, field.size);
            }
        }
        assert_eq!(compiled(&headers, &asked), expected, "{name}, {version}");
    }
}

/// Names of the calls in the headers, in the order of [`cbid`].
const DRIVER_LAUNCHES: [&str; 6] = [
    "cuLaunchKernel",
    "cuLaunchKernel_ptsz",
    "cuGraphLaunch",
    "cuGraphLaunch_ptsz",
    "cuLaunchKernelEx",
    "cuLaunchKernelEx_ptsz",
];
const RUNTIME_LAUNCHES: [&str; 6] = [
    "cudaLaunchKernel_v7000",
    "cudaLaunchKernel_ptsz_v7000",
    "cudaGraphLaunch_v10000",
    "cudaGraphLaunch_ptsz_v10000",
    "cudaLaunchKernelExC_v11060",
    "cudaLaunchKernelExC_ptsz_v11060",
];

/// What versions before these do not have; there it is not set, and a window says so.
const LATE: [(&str, Version); 2] = [
    ("CUPTI_CB_DOMAIN_STATE", Version::V12_2),
    (
        "CUPTI_ACTIVITY_ATTR_PER_THREAD_ACTIVITY_BUFFER",
        Version::V12_3,
    ),
];

#[test]
fn numbers_are_those_of_the_headers() {
    let Some(wheels) = wheels() else { return };
    let mut expected: HashMap<String, usize> = HashMap::new();
    let mut expect = |name: String, number: u32| {
        expected.insert(name, usize::try_from(number).expect("a number"));
    };
    for kind in Kind::known() {
        let name = kind.to_string().to_uppercase();
        expect(format!("CUPTI_ACTIVITY_KIND_{name}"), kind.0);
    }
    for (name, number) in DRIVER_LAUNCHES.iter().zip(cbid::DRIVER_LAUNCHES) {
        expect(format!("CUPTI_DRIVER_TRACE_CBID_{name}"), *number);
    }
    for (name, number) in RUNTIME_LAUNCHES.iter().zip(cbid::RUNTIME_LAUNCHES) {
        expect(format!("CUPTI_RUNTIME_TRACE_CBID_{name}"), *number);
    }
    for (name, attribute) in [
        (
            "DEVICE_BUFFER_POOL_LIMIT",
            Attribute::DEVICE_BUFFER_POOL_LIMIT,
        ),
        (
            "ZEROED_OUT_ACTIVITY_BUFFER",
            Attribute::ZEROED_OUT_ACTIVITY_BUFFER,
        ),
        (
            "PER_THREAD_ACTIVITY_BUFFER",
            Attribute::PER_THREAD_ACTIVITY_BUFFER,
        ),
    ] {
        expect(format!("CUPTI_ACTIVITY_ATTR_{name}"), attribute.0);
    }
    for (name, domain) in [
        ("DRIVER_API", Domain::DRIVER),
        ("RUNTIME_API", Domain::RUNTIME),
        ("STATE", Domain::STATE),
    ] {
        expect(format!("CUPTI_CB_DOMAIN_{name}"), domain.0);
    }
    expect("CUPTI_ACTIVITY_FLAG_FLUSH_FORCED".to_owned(), 1);
    expect("CUPTI_ACTIVITY_THREAD_ID_TYPE_SYSTEM".to_owned(), 1);
    for (name, headers) in wheels {
        let mut expected = expected.clone();
        for (late, since) in LATE {
            if version(&headers) < since {
                expected.remove(late);
            }
        }
        let names = expected.keys();
        let asked: Vec<_> = names.map(|name| (name.clone(), name.clone())).collect();
        assert_eq!(compiled(&headers, &asked), expected, "{name}");
        codes_are_named_as_in(&headers);
        // The last of the runtime's came with 13.0.
        let header = fs::read_to_string(headers.join("cupti_runtime_cbid.h")).expect("a header");
        let has = |line: &str| line.contains("___cudaLaunchKernel_v") && line.contains("= 505,");
        assert_eq!(header.lines().any(has), name.starts_with("13"), "{name}");
    }
}

/// Every code of a header has its name here.
fn codes_are_named_as_in(headers: &Path) {
    let header = fs::read_to_string(headers.join("cupti_result.h")).expect("a header");
    let mut seen = 0;
    for line in header.lines() {
        let Some((name, rest)) = line
            .trim()
            .strip_prefix("CUPTI_ERROR_")
            .and_then(|line| line.split_once('='))
        else {
            continue;
        };
        let number = rest.trim().trim_end_matches(',');
        if let Ok(number) = number.parse() {
            assert_eq!(
                Code(number).name(),
                Some(name.trim()),
                "{}",
                headers.display()
            );
            seen += 1;
        }
    }
    assert!(seen > 40, "{seen} codes in {}", headers.display());
}

#[test]
fn libraries_are_opened_as_far_as_they_can_be_without_a_driver() {
    let Some(wheels) = wheels() else { return };
    for (name, folder) in wheels {
        let number = version(&folder).0;
        let major = if number < 100_000 { 12 } else { 13 };
        let said = opened_by_a_child(&folder.join(format!("libcupti.so.{major}")));
        let out = String::from_utf8_lossy(&said.stdout);
        let answers = |code: u32| format!("enabling Err({code})\nsizes Ok(true)");
        let expected = match number {
            ..130_000 => answers(15),
            130_000..130_200 => answers(999),
            130_200..130_300 => {
                assert!(said.status.signal().is_some(), "{name}: {out}");
                continue;
            }
            _ => "`cuptiGetVersion` answered 999 (UNKNOWN)".to_owned(),
        };
        assert!(said.status.success(), "{name}: {said:?}");
        assert!(out.contains(&expected), "{name}: {out}");
    }
}
