//! What is written where: only into folders that were made for it, with room, over nothing, and nothing of anybody
//! else's is deleted.

mod some_tensors;

use checkpoints::{CheckpointError, Contents, Format, How, Limits, MARK};
use some_tensors::write;
use std::collections::BTreeMap;
use std::path::Path;

#[test]
fn replicas_are_made_only_in_folders_of_their_own() {
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let from = root.path().join("one");
    std::fs::create_dir(&from).unwrap();
    write(&from, 1);
    std::fs::write(from.join("config.json"), "{}").unwrap();
    let contents = Contents::read(&from).unwrap();
    let make = |count, how, name: &str| {
        checkpoints::replicate(&contents, count, how, &root.path().join(name), &|_| true)
    };
    for how in [How::Copy, How::HardLink] {
        let name = format!("{how:?}");
        let made = make(2, Some(how), &name).unwrap();
        assert_eq!((made.how, made.folders.len()), (how, 2));
        for folder in &made.folders {
            let read = Contents::read(folder).unwrap();
            assert_eq!(read.tensors, contents.tensors);
            assert!(folder.join("config.json").exists());
        }
        assert_eq!(make(1, None, &name).unwrap().folders, made.folders[..1]);
        let error = make(3, Some(how), &name).unwrap_err().to_string();
        assert!(error.contains("holds other replicas"), "{error}");
        std::fs::remove_file(made.folders[1].join("model.safetensors")).unwrap();
        assert!(!made.are_whole());
        assert!(
            made.ready(&|_| true)
                .unwrap_err()
                .to_string()
                .contains("lacks files")
        );
        std::fs::remove_dir_all(&made.folder).unwrap();
        made.ready(&|_| true).unwrap();
        assert!(made.are_whole());
    }
    let theirs = root.path().join("theirs");
    std::fs::create_dir(&theirs).unwrap();
    std::fs::write(theirs.join("thesis.txt"), "all of it").unwrap();
    let error = make(1, None, "theirs").unwrap_err().to_string();
    assert!(error.contains("nothing is written to it"), "{error}");
    assert_eq!(std::fs::read_dir(&theirs).unwrap().count(), 1);
    assert!(make(2, None, "chosen").is_ok());
}

/// Everything below a folder by its path, with its bytes.
fn snapshot(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(snapshot(&path));
        } else {
            all.insert(path.display().to_string(), std::fs::read(&path).unwrap());
        }
    }
    all
}

fn checkpoint(root: &Path) -> Contents {
    let from = root.join("from");
    std::fs::create_dir(&from).unwrap();
    write(&from, 2);
    Contents::read(&from).unwrap()
}

#[test]
fn nothing_is_converted_into_a_folder_that_holds_something() {
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let from = checkpoint(root.path());
    let limits = Limits {
        max_file_bytes: 20_000,
    };
    for name in ["tensor_index.json", "thesis.txt"] {
        let out = root.path().join(name);
        std::fs::create_dir(&out).unwrap();
        std::fs::write(out.join(name), "all of it").unwrap();
        let before = snapshot(root.path());
        for to in [Format::Store, Format::Safetensors] {
            let error = checkpoints::convert(&from, to, limits, &out, &|_| true);
            let error = error.unwrap_err().to_string();
            assert!(error.contains("nothing is written to it"), "{error}");
        }
        // Nor into the checkpoint itself.
        checkpoints::convert(&from, Format::Store, limits, &from.folder, &|_| true).unwrap_err();
        assert_eq!(snapshot(root.path()), before);
    }
}

#[test]
fn replicas_without_room_leave_no_folder_behind_and_others_are_made_there_later() {
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let from = checkpoint(root.path());
    let before = snapshot(root.path());
    let folder = root.path().join("deep/replicas");
    let error = checkpoints::replicate(&from, 1 << 40, Some(How::Copy), &folder, &|_| true);
    assert!(matches!(error, Err(CheckpointError::NoSpace { .. })));
    assert!(!folder.exists());
    assert_eq!(snapshot(root.path()), before);
    checkpoints::replicate(&from, 1, Some(How::Copy), &folder, &|_| true).unwrap();
}

#[test]
fn replicas_are_not_made_within_the_checkpoint_or_where_something_was_cut_off() {
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let from = checkpoint(root.path());
    let within = from.folder.join("replicas");
    let error = checkpoints::replicate(&from, 1, None, &within, &|_| true).unwrap_err();
    assert!(
        error.to_string().contains("the checkpoint's own folder"),
        "{error}"
    );
    assert!(!within.exists());
    let folder = root.path().join("stopped");
    let error = checkpoints::replicate(&from, 2, Some(How::Copy), &folder, &|_| false);
    assert!(matches!(error, Err(CheckpointError::Stopped)));
    let before = snapshot(&folder);
    assert!(!before.is_empty());
    let error = checkpoints::replicate(&from, 2, Some(How::Copy), &folder, &|_| true);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("was not finished here"), "{error}");
    assert_eq!(snapshot(&folder), before);
}

#[test]
fn a_mark_that_names_other_folders_is_not_believed() {
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let from = checkpoint(root.path());
    let folder = root.path().join("replicas");
    let mut made = checkpoints::replicate(&from, 2, Some(How::Copy), &folder, &|_| true).unwrap();
    made.folders[1] = from.folder.clone();
    let mark = folder.join(MARK);
    std::fs::write(&mark, serde_json::to_string(&made).unwrap()).unwrap();
    let error = checkpoints::replicate(&from, 2, Some(How::Copy), &folder, &|_| true);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("made for another folder"), "{error}");
}
