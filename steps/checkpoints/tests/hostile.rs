//! Files that are made to harm: refused with what they say, and never a crash. What chance makes of files is in
//! `fuzz`.

use checkpoints::Contents;
use std::path::Path;

/// A safetensors file with this header and so many bytes of data.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 7);
    bytes
}

fn problem(folder: &Path) -> String {
    Contents::read(folder).unwrap_err().to_string()
}

#[test]
fn headers_that_lie_are_refused_with_what_they_say() {
    let root = tempfile::tempdir().unwrap();
    let tensor = |begin: u64, end: u64| {
        format!(
            r#"{{"dtype":"U8","shape":[{}],"data_offsets":[{begin},{end}]}}"#,
            end - begin
        )
    };
    let (a, b) = (tensor(0, 4), tensor(2, 6));
    let mut long = u64::MAX.to_le_bytes().to_vec();
    long.resize(100, b' ');
    let mut cut = file(&format!(r#"{{"a":{a}}}"#), 4);
    cut.pop();
    for (bytes, expected) in [
        (Vec::new(), "has only 0 bytes"),
        (vec![1; 7], "has only 7 bytes"),
        (
            long,
            "says that its header has 18446744073709551615 bytes, where 92 are possible",
        ),
        (file("", 0), "has no valid header: EOF"),
        (file("[]", 0), "expected an object with tensors"),
        (
            file(
                r#"{"a":{"dtype":"U9","shape":[1],"data_offsets":[0,1]}}"#,
                1,
            ),
            "unknown variant",
        ),
        (
            file(&format!(r#"{{"a":{a},"b":{b}}}"#), 6),
            "invalid offset for tensor `b`",
        ),
        (
            file(&format!(r#"{{"a":{a},"a":{a}}}"#), 4),
            "`a` stands there twice (keep the one that is meant, or save the checkpoint anew) at line 1 column 56",
        ),
        (
            file(r#"{"__metadata__":{},"__metadata__":{}}"#, 0),
            "`__metadata__` stands there twice",
        ),
        (
            file(
                &format!(r#"{{"a":{a},"__metadata__":{{"b":"a","b":"c"}}}}"#),
                4,
            ),
            "`b` stands there twice",
        ),
        (
            file(&format!(r#"{{"a":{a}}}"#), 5),
            "has 5 bytes of data, and its header asks for 4",
        ),
        (cut, "has 3 bytes of data, and its header asks for 4"),
        (
            file(
                r#"{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,4]}}"#,
                4,
            ),
            "overflow",
        ),
        (
            file(
                r#"{"a":{"dtype":"U8","shape":[9],"data_offsets":[0,18446744073709551615]}}"#,
                4,
            ),
            "invalid shape",
        ),
        (
            file(
                r#"{"a":{"dtype":"U8","shape":[0],"data_offsets":[5,4]}}"#,
                4,
            ),
            "invalid offset",
        ),
    ] {
        std::fs::write(root.path().join("model.safetensors"), bytes).unwrap();
        let found = problem(root.path());
        assert!(found.contains(expected), "{found}\nis not\n{expected}");
    }
}

#[test]
fn indexes_that_lie_are_refused_with_what_they_say() {
    let root = tempfile::tempdir().unwrap();
    let part = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#;
    for name in ["x.safetensors", "y.safetensors"] {
        std::fs::write(root.path().join(name), file(part, 4)).unwrap();
    }
    for (map, expected) in [
        (r#"{"a":"../x.safetensors"}"#, "is no file beside it"),
        (r#"{"a":"/etc/passwd"}"#, "is no file beside it"),
        (r#"{"a":""}"#, "is no file beside it"),
        (r#"{"a":".."}"#, "is no file beside it"),
        (r#"{"a":"none"}"#, "could not open"),
        (
            r#"{"b":"x.safetensors"}"#,
            "says that `b` lies in `x.safetensors`, which does not have it",
        ),
        (
            r#"{"a":"x.safetensors","c":"y.safetensors"}"#,
            "has a tensor `a`, which `x.safetensors` has, too",
        ),
        (
            r#"{"a":"x.safetensors","a":"y.safetensors"}"#,
            "`a` stands there twice (keep the one that is meant, or save the checkpoint anew) at line 1 column 38",
        ),
        ("[]", "cannot be understood"),
    ] {
        let index = format!(r#"{{"weight_map":{map}}}"#);
        std::fs::write(root.path().join("model.safetensors.index.json"), index).unwrap();
        let found = problem(root.path());
        assert!(found.contains(expected), "{found}\nis not\n{expected}");
    }
}

#[test]
fn indexes_of_the_store_that_lie_are_refused_with_what_they_say() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("tensor.data_0"), [0; 16]).unwrap();
    std::fs::write(root.path().join("tensor.data_1"), [0; 16]).unwrap();
    for (index, expected) in [
        (
            r#"{"a":[0,8,[8],[1],"torch.int9"]}"#,
            "the type \"torch.int9\", which is not known",
        ),
        (
            r#"{"a":[0,9,[8],[1],"torch.int8"]}"#,
            "says of `a` 9 bytes, where its shape needs 8",
        ),
        (
            r#"{"a":[28,8,[8],[1],"torch.int8"]}"#,
            "bytes 28 to 36, where its partitions have 32: they were cut off",
        ),
        (
            r#"{"a":[12,8,[8],[1],"torch.int8"]}"#,
            "a place in two partitions",
        ),
        (
            r#"{"a":[18446744073709551615,8,[8],[1],"torch.int8"]}"#,
            "where no file reaches",
        ),
        (
            r#"{"a":[0,8,[9223372036854775808,2],[1,1],"torch.int8"]}"#,
            "which no memory holds",
        ),
        (
            r#"{"a":[0,8,[2,4],[1,2],"torch.int8"]}"#,
            "not that of a contiguous tensor",
        ),
        (
            r#"{"a":[0,8,[8],[],"torch.int8"]}"#,
            "not that of a contiguous tensor",
        ),
        (
            r#"{"a":[0,8,[8],[1],"torch.int8"],"b":[4,8,[8],[1],"torch.int8"]}"#,
            "gives `b` a part of the bytes of `a`",
        ),
        (
            r#"{"a":[0,8,[8],[1],"torch.int8"],"a":[8,8,[8],[1],"torch.int8"]}"#,
            "`a` stands there twice",
        ),
        (
            r#"{"a":[0,-8,[8],[1],"torch.int8"]}"#,
            "cannot be understood",
        ),
        ("7", "cannot be understood"),
    ] {
        std::fs::write(root.path().join("tensor_index.json"), index).unwrap();
        let found = problem(root.path());
        assert!(found.contains(expected), "{found}\nis not\n{expected}");
    }
    std::fs::write(root.path().join("model.safetensors"), []).unwrap();
    assert!(problem(root.path()).contains("holds a checkpoint of each format"));
}

#[test]
fn a_folder_in_place_of_a_file_is_refused() {
    let root = tempfile::tempdir().unwrap();
    for name in ["model.safetensors", "tensor_index.json"] {
        let path = root.path().join(name);
        std::fs::create_dir(&path).unwrap();
        assert!(problem(root.path()).contains("is no file"));
        std::fs::remove_dir(&path).unwrap();
    }
}

#[test]
fn a_file_that_is_longer_than_any_load_is_refused_before_it_is_planned() {
    use checkpoints::loader::{Effort, Way};
    use checkpoints::{Destination, Load};
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    // It takes no room: all but its header is a hole.
    let bytes: u64 = 1 << 40;
    let header =
        format!(r#"{{"a":{{"dtype":"U8","shape":[{bytes}],"data_offsets":[0,{bytes}]}}}}"#);
    let path = root.path().join("model.safetensors");
    std::fs::write(&path, file(&header, 0)).unwrap();
    let hole = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let begin = hole.metadata().unwrap().len();
    hole.set_len(begin + bytes).unwrap();
    let one = std::num::NonZeroUsize::MIN;
    let load = Load {
        folder: root.path().to_owned(),
        way: Way::Buffered,
        effort: Effort {
            threads: one,
            depth: one,
        },
        block: 4096,
    };
    let loaded = checkpoints::load(&load, Destination::Fresh);
    let error = loaded.err().unwrap().to_string();
    assert!(
        error.contains("more than 4194304 reads of 4096 bytes bring"),
        "{error}"
    );
}
