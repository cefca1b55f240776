//! Locks between processes: who holds one, and that it ends with its holder.

#![expect(clippy::print_stdout, reason = "it tells the other process")]

use engine::store::{Attempt, Digest, Store, StoreError};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Tells the other process where the store is.
const STORE: &str = "BENCHWRIGHT_TEST_STORE";

/// Both processes run this test: the one that finds the variable holds locks until it is killed,
/// or the other one ends.
#[test]
fn a_lock_keeps_other_processes_out_and_ends_with_its_holder() {
    if let Some(root) = std::env::var_os(STORE) {
        hold_until_the_end(Path::new(&root));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("a store");
    let key = Digest::of(b"key");
    let mut other = start_holder(folder.path());

    match store
        .try_lock_key("actions", &key, "mine")
        .expect("an attempt")
    {
        Attempt::Held(Some(holder)) => {
            assert_eq!((holder.pid, &*holder.run), (other.id(), "theirs"));
        }
        unexpected => panic!("{unexpected:?}"),
    }
    let error = store.gc(Default::default, &Default::default());
    assert!(matches!(error, Err(StoreError::InUse { .. })), "{error:?}");

    other.kill().expect("a living process");
    other.wait().expect("its end");
    let attempt = store
        .try_lock_key("actions", &key, "mine")
        .expect("an attempt");
    assert!(matches!(attempt, Attempt::Taken(_)), "{attempt:?}");
    store
        .gc(Default::default, &Default::default())
        .expect("nobody is there");
}

fn start_holder(store: &Path) -> Child {
    let this = std::env::current_exe().expect("this program");
    let mut child = Command::new(this)
        .args([
            "--exact",
            "a_lock_keeps_other_processes_out_and_ends_with_its_holder",
        ])
        .arg("--nocapture")
        .env(STORE, store)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("another process");
    let output = child.stdout.take().expect("its output");
    let said = BufReader::new(output).lines().map_while(Result::ok);
    assert!(said.into_iter().any(|line| line.contains("they are held")));
    child
}

fn hold_until_the_end(root: &Path) -> ! {
    let store = Store::open(root).expect("a store");
    let lease = store.lease(Duration::ZERO).expect("a lease");
    let lock = store
        .try_lock_key("actions", &Digest::of(b"key"), "theirs")
        .expect("a lock");
    println!("they are held: {lock:?} {lease:?}");
    let _ = std::io::stdin().read(&mut [0]);
    std::process::exit(0)
}
