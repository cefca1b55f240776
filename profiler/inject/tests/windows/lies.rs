//! A CUPTI that does not do what it should: what is missing is told, and the server goes on.

use crate::server::World;
use crate::{only, recorded, refusal, small};
use profiler_control::{Missing, Recording};

#[test]
fn what_another_tool_holds_is_left_to_it() {
    let world = World::new();
    let mut server = world.server("taken", 12, "taken=1\n");
    server.does("init");
    let mut ranks = server.ranks();
    let why = refusal(ranks.start(&small()));
    assert!(
        why.contains("MULTIPLE_SUBSCRIBERS") && why.contains("restart the server"),
        "{why}"
    );
    server.does("kernel 10");
    assert_eq!(only(ranks.status()).get("phase"), Some("asleep"));
    let spools = world.files(".spool");
    assert!(spools.is_empty(), "{spools:?}");
}

#[test]
fn what_cannot_be_recorded_is_refused_and_nothing_is_left_on() {
    let world = World::new();
    for (name, script, expected) in [
        ("refuses", "refuse=27\n", "27 (NOT_SUPPORTED)"),
        ("liar", "told_stride=216\n", "cannot be trusted"),
        ("old", "version=17\n", "expected 18"),
    ] {
        let mut server = world.server(name, 12, script);
        server.does("init");
        let mut ranks = server.ranks();
        let why = refusal(ranks.start(&small()));
        assert!(why.contains(expected), "{name}: {why}");
        server.does("kernel 10");
    }
    assert!(world.files(".spool").is_empty());
}

#[test]
fn whatever_is_missing_is_told() {
    let world = World::new();
    for (name, script, expected) in [
        ("cut", "cut=100\n", "bytes of records could not be read"),
        (
            "foreign",
            "foreign=3\n",
            "bytes of records could not be read",
        ),
        ("drops", "drops=7\n", "7 records were dropped by CUPTI"),
        ("zero", "zero_times=50\n", "2 rows have no instants"),
        (
            "backwards",
            "backwards=50\n",
            "2 rows end before they begin",
        ),
        (
            "state",
            "state_errors=2\n",
            "2 errors were reported by CUPTI",
        ),
        ("unfinished", "unfinished=1\n", "1 rows had not ended"),
    ] {
        let mut server = world.server(name, 12, script);
        server.does("init");
        let table = recorded(&mut server, &small(), &["kernel 100"]);
        let told: Vec<String> = table.missing.iter().map(Missing::to_string).collect();
        assert!(
            told.len() == 1 && told[0].contains(expected),
            "{name}: {told:?}"
        );
        assert!(table.rows.iter().all(|row| row.p99_ns <= 2000), "{name}");
    }
}

#[test]
fn without_a_free_buffer_records_are_lost_and_the_server_goes_on() {
    let world = World::new();
    // Of this version that ends a process which is given no buffer.
    let mut server = world.server("full", 12, "version=24\n");
    server.does("init");
    let one = Recording {
        buffers: 1,
        buffer_bytes: 4096,
        ..small()
    };
    // One launch fills many buffers, with no time between them.
    let table = recorded(&mut server, &one, &["graph 1 20000"]);
    let lost = |missing: &Missing| missing.to_string().ends_with("because none was free");
    assert!(table.missing.iter().any(lost), "{:?}", table.missing);
    assert!(!table.rows.is_empty());
}
