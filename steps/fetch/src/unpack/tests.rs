//! Archives that would do harm, made here byte by byte where no writer would make them.

use super::*;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Cursor;
use tar::{EntryType, Header};
use zip::write::SimpleFileOptions;

struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    /// Unpacks an archive within a folder of its own; whatever comes of it, nothing is written beside it.
    fn unpack(
        &self,
        name: &str,
        bytes: &[u8],
        select: &Selection,
        limits: UnpackLimits,
    ) -> Result<Unpacked, FetchError> {
        let archive = self.0.path().join(name);
        fs::write(&archive, bytes).expect("an archive");
        let into = self.0.path().join("into");
        fs::create_dir_all(&into).expect("a folder");
        let taken = unpack(&archive, name, &into, select, limits, &mut |_| true);
        let mut beside: Vec<_> = fs::read_dir(self.0.path())
            .expect("a folder")
            .flatten()
            .map(|e| e.file_name())
            .collect();
        beside.sort();
        let mut expected = vec![std::ffi::OsString::from(name), "into".into()];
        expected.sort();
        assert_eq!(beside, expected);
        fs::remove_file(&archive).expect("an archive");
        taken
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.0.path().join("into").join(name)).expect("a file")
    }
}

/// A tape of entries with names as they are, which the writer would not let pass.
fn tape(entries: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, body) in entries {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_size(body.len() as u64);
        if matches!(kind, EntryType::Symlink | EntryType::Link) {
            header.set_link_name("/etc/passwd").expect("a name");
        }
        header.set_cksum();
        builder.append(&header, *body).expect("memory");
    }
    builder.into_inner().expect("memory")
}

fn zipped(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, body) in entries {
        writer
            .start_file(*name, SimpleFileOptions::default())
            .expect("memory");
        writer.write_all(body).expect("memory");
    }
    writer.finish().expect("memory").into_inner()
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

fn all() -> (Selection, UnpackLimits) {
    (Selection::all(), UnpackLimits::default())
}

#[test]
fn good_archives_come_out_whole() {
    let entries: &[(&str, EntryType, &[u8])] = &[
        ("./", EntryType::Directory, b""),
        ("./a/", EntryType::Directory, b""),
        ("./a/b.txt", EntryType::Regular, b"one"),
        ("c.txt", EntryType::Regular, b"two"),
    ];
    let archives = [
        ("x.tar", tape(entries)),
        ("x.tar.gz", gzipped(&tape(entries))),
        ("x.tgz", gzipped(&tape(entries))),
        ("x.whl", zipped(&[("a/b.txt", b"one"), ("c.txt", b"two")])),
    ];
    for (name, bytes) in archives {
        let world = World::new();
        let (select, limits) = all();
        let taken = world.unpack(name, &bytes, &select, limits).expect(name);
        assert_eq!(
            taken.files,
            [PathBuf::from("a/b.txt"), PathBuf::from("c.txt")],
            "{name}"
        );
        assert_eq!(
            (world.read("a/b.txt"), world.read("c.txt")),
            (b"one".to_vec(), b"two".to_vec())
        );
        assert_eq!(taken.bytes, 6);
    }
    let world = World::new();
    let (select, limits) = all();
    let taken = world
        .unpack("d.json.gz", &gzipped(b"{}"), &select, limits)
        .expect("a file");
    assert_eq!(taken.files, [PathBuf::from("d.json")]);
}

#[test]
fn only_what_is_wanted_comes_out() {
    let bytes = zipped(&[("a/b.json", b"one"), ("c.txt", b"two")]);
    let world = World::new();
    let limits = UnpackLimits::default();
    let taken = world
        .unpack("x.zip", &bytes, &Selection::one("*.json"), limits)
        .expect("one");
    assert_eq!(taken.files, [PathBuf::from("a/b.json")]);
    assert!(!world.0.path().join("into/c.txt").exists());
    let error = World::new().unpack("x.zip", &bytes, &Selection::one("*.csv"), limits);
    let error = error.expect_err("none");
    assert!(
        error.help().expect("a mend").contains("a/b.json"),
        "{error}"
    );
}

#[test]
fn names_that_lead_out_are_refused() {
    for name in ["../evil", "/etc/evil", "a/../../evil", "a\\..\\evil"] {
        let (select, limits) = all();
        let archives = [
            ("x.tar", tape(&[(name, EntryType::Regular, b"x")])),
            ("x.zip", zipped(&[(name, b"x")])),
        ];
        for (archive, bytes) in archives {
            let error = World::new().unpack(archive, &bytes, &select, limits);
            let error = error.expect_err(name).to_string();
            assert!(error.contains("is refused"), "{archive} {name}: {error}");
        }
    }
}

#[test]
fn links_and_devices_are_refused() {
    let (select, limits) = all();
    for kind in [
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Char,
        EntryType::Fifo,
    ] {
        let bytes = tape(&[("a", kind, b"")]);
        let error = World::new().unpack("x.tar", &bytes, &select, limits);
        assert!(
            matches!(error, Err(FetchError::Archive { .. })),
            "{kind:?}: {error:?}"
        );
    }
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    writer
        .add_symlink("a", "/etc/passwd", SimpleFileOptions::default())
        .expect("memory");
    let bytes = writer.finish().expect("memory").into_inner();
    let error = World::new()
        .unpack("x.zip", &bytes, &select, limits)
        .expect_err("a link");
    assert!(error.to_string().contains("a link"), "{error}");
}

#[test]
fn names_that_occur_twice_are_refused() {
    let (select, limits) = all();
    let twice: &[(&str, EntryType, &[u8])] = &[
        ("a", EntryType::Regular, b"1"),
        ("./a", EntryType::Regular, b"2"),
    ];
    let error = World::new()
        .unpack("x.tar", &tape(twice), &select, limits)
        .expect_err("twice");
    assert!(error.to_string().contains("twice"), "{error}");
    let inside: &[(&str, EntryType, &[u8])] = &[
        ("a", EntryType::Regular, b"1"),
        ("a/b", EntryType::Regular, b"2"),
    ];
    assert!(
        World::new()
            .unpack("x.tar", &tape(inside), &select, limits)
            .is_err()
    );
    // The writer does not make one, so the second name is changed afterwards, wherever it stands.
    let mut bytes = zipped(&[("aaaa", b"1"), ("aaab", b"2")]);
    for at in 0..bytes.len() - 4 {
        if &bytes[at..at + 4] == b"aaab" {
            bytes[at + 3] = b'a';
        }
    }
    let error = World::new()
        .unpack("x.zip", &bytes, &select, limits)
        .expect_err("twice");
    assert!(error.to_string().contains("twice"), "{error}");
}

#[test]
fn bombs_go_off_at_their_limit() {
    let zeros = vec![0; 40 << 20];
    let bombs = [
        ("x.zip", zipped(&[("a", &zeros)])),
        ("x.gz", gzipped(&zeros)),
        (
            "x.tar.gz",
            gzipped(&tape(&[("a", EntryType::Regular, &zeros)])),
        ),
    ];
    for (name, bytes) in bombs {
        let world = World::new();
        let (select, limits) = all();
        let error = world.unpack(name, &bytes, &select, limits).expect_err(name);
        assert!(error.to_string().contains("which is the limit"), "{error}");
        let written = fs::metadata(world.0.path().join("into/a")).map_or(0, |found| found.len());
        assert!(written <= ALWAYS + CHUNK as u64, "{name}: {written}");
    }
    let many: Vec<String> = (0..20).map(|i| i.to_string()).collect();
    let many: Vec<(&str, &[u8])> = many
        .iter()
        .map(|name| (name.as_str(), b"".as_slice()))
        .collect();
    let limits = UnpackLimits {
        entries: 10,
        ..UnpackLimits::default()
    };
    let error = World::new().unpack("x.zip", &zipped(&many), &Selection::all(), limits);
    assert!(
        error
            .expect_err("many")
            .to_string()
            .contains("more than 10 entries")
    );
    let limits = UnpackLimits {
        bytes: 10,
        ..UnpackLimits::default()
    };
    let small = zipped(&[("a", b"123456"), ("b", b"123456")]);
    assert!(
        World::new()
            .unpack("x.zip", &small, &Selection::all(), limits)
            .is_err()
    );
}

#[test]
fn damaged_archives_say_so() {
    let (select, limits) = all();
    let good = [
        ("x.zip", zipped(&[("a", &[7; 4000])])),
        (
            "x.tar.gz",
            gzipped(&tape(&[("a", EntryType::Regular, &[7; 4000])])),
        ),
        ("x.gz", gzipped(&[7; 4000])),
    ];
    for (name, bytes) in good {
        let cut = &bytes[..bytes.len() / 2];
        let error = World::new()
            .unpack(name, cut, &select, limits)
            .expect_err(name)
            .to_string();
        assert!(error.contains("damaged"), "{name}: {error}");
    }
    assert!(
        World::new()
            .unpack("x.txt", b"text", &select, limits)
            .is_err()
    );
}

#[test]
fn it_stops_when_it_is_told_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let archive = folder.path().join("x.gz");
    fs::write(&archive, gzipped(b"{}")).expect("an archive");
    let (select, limits) = all();
    let error = unpack(
        &archive,
        "x.gz",
        folder.path(),
        &select,
        limits,
        &mut |_| false,
    );
    assert!(matches!(error, Err(FetchError::Io { .. })), "{error:?}");
}

#[test]
fn what_nobody_wants_and_what_only_describes_is_bounded_too() {
    let zeros = vec![0; 40 << 20];
    let unwanted = tape(&[
        ("a", EntryType::Regular, &zeros),
        ("b", EntryType::Regular, b"x"),
    ]);
    let (_, limits) = all();
    let error = World::new()
        .unpack(
            "x.tar.gz",
            &gzipped(&unwanted),
            &Selection::one("b"),
            limits,
        )
        .expect_err("too much");
    assert!(error.to_string().contains("which is the limit"), "{error}");
    let long = vec![b'a'; 2 << 20];
    for kind in [
        EntryType::GNULongName,
        EntryType::GNULongLink,
        EntryType::XHeader,
    ] {
        let described = tape(&[("x", kind, &long), ("b", EntryType::Regular, b"x")]);
        for (name, bytes) in [
            ("x.tar", described.clone()),
            ("x.tar.gz", gzipped(&described)),
        ] {
            let error = World::new().unpack(name, &bytes, &Selection::all(), limits);
            let error = error.expect_err(name).to_string();
            assert!(
                error.contains("more than 1048576 bytes"),
                "{kind:?}: {error}"
            );
        }
    }
}

#[test]
fn it_stops_too_while_it_reads_what_nobody_wants() {
    let folder = tempfile::tempdir().expect("a folder");
    let archive = folder.path().join("it");
    let bytes = tape(&[("a", EntryType::Regular, &[0; 1 << 20])]);
    fs::write(&archive, gzipped(&bytes)).expect("an archive");
    let mut asked = 0;
    let select = Selection::one("b");
    let limits = UnpackLimits::default();
    let error = unpack(
        &archive,
        "x.tar.gz",
        folder.path(),
        &select,
        limits,
        &mut |_| {
            asked += 1;
            asked < 5
        },
    );
    assert!(matches!(error, Err(FetchError::Io { .. })), "{error:?}");
    assert_eq!(asked, 5);
}

#[test]
fn a_checksum_after_the_end_of_an_archive_is_held_to() {
    let (select, limits) = all();
    let mut bytes = gzipped(&tape(&[("a", EntryType::Regular, b"one")]));
    World::new()
        .unpack("x.tar.gz", &bytes, &select, limits)
        .expect("as it was made");
    let at = bytes.len() - 8;
    bytes[at] ^= 1;
    let error = World::new().unpack("x.tar.gz", &bytes, &select, limits);
    let error = error.expect_err("another checksum").to_string();
    assert!(error.contains("damaged"), "{error}");
}
