//! Locks without any plan: what is written is read again, and each difference is named.

use super::*;
use proptest::prelude::*;

fn pins(fields: &[(&str, &str)]) -> Pins {
    let owned = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
    fields.iter().map(owned).collect()
}

fn sample() -> Lock {
    let map = |fields: &[(&str, &str)]| pins(fields).into_iter().collect::<BTreeMap<_, _>>();
    let result = Pinned {
        key: "k".into(),
        samples: None,
        outputs: map(&[("dir", "d1")]),
    };
    Lock {
        engine: ENGINE.into(),
        plan: "p".into(),
        params: map(&[("layers", "2"), ("rates", "[1.0, 2.0]")]),
        sources: map(&[("p.toml", "s1")]),
        environment: map(&[("cpu_model", "A \"fast\" one")]),
        nodes: vec![
            (
                "model".into(),
                pins(&[
                    ("use", "model.derive"),
                    ("kind", "pure"),
                    ("with.base", "b1"),
                ]),
            ),
            (
                "load[rate=4]".into(),
                pins(&[
                    ("use", "load.test"),
                    ("kind", "measure"),
                    ("with.text", "two\nlines"),
                    ("samples", "3"),
                ]),
            ),
        ],
        results: BTreeMap::from([("model".into(), result)]),
    }
}

fn named(differences: &[Difference]) -> Vec<(String, Option<&str>, Option<&str>)> {
    let name = |d: &Difference| format!("{}/{}", d.node.as_deref().unwrap_or(""), d.field);
    let values = differences.iter();
    values
        .map(|d| (name(d), d.locked.as_deref(), d.found.as_deref()))
        .collect()
}

#[test]
fn what_is_written_is_read_again() {
    let lock = sample();
    let read = Lock::read(&lock.to_text()).expect("a lock");
    assert_eq!(lock.differences(&read), []);
    assert_eq!(read.differences(&lock), []);
    assert_eq!(read.results, lock.results);
    assert_eq!(read.environment, lock.environment);
}

#[test]
fn a_lock_is_read_by_people() {
    let text = sample().to_text();
    assert!(text.contains("\n[params]\nlayers = \"2\"\n"), "{text}");
    let block = "\n[node.model]\nuse = \"model.derive\"\nkind = \"pure\"\n\"with.base\" = \"b1\"\n\
                 \n[result.model]\nkey = \"k\"\noutputs = { dir = \"d1\" }\n";
    assert!(text.contains(block), "{text}");
    assert!(text.contains("\n[node.\"load[rate=4]\"]\n"), "{text}");
}

#[test]
fn thousands_of_nodes_are_a_line_each_and_mean_the_same() {
    let mut lock = sample();
    let node = lock.nodes[1].1.clone();
    lock.nodes
        .extend((0..6000).map(|n| (format!("n[{n}]"), node.clone())));
    let text = lock.to_text();
    assert!(text.lines().count() < 6100, "{}", text.lines().count());
    let read = Lock::read(&text).expect("a lock");
    assert_eq!(lock.differences(&read), []);
    assert_eq!(read.results, lock.results);
}

#[test]
fn every_difference_names_node_field_and_both_values() {
    let (lock, mut now) = (sample(), sample());
    now.params.insert("layers".into(), "4".into());
    now.sources.insert("p.toml".into(), "s2".into());
    now.engine = "9".into();
    now.environment.insert("cpu_model".into(), "another".into());
    now.nodes[0].1[2].1 = "b2".into();
    now.nodes[1].1.pop();
    now.nodes
        .push(("new".into(), pins(&[("use", "shell.run")])));
    let found = lock.differences(&now);
    let wanted = [
        ("/engine".to_owned(), Some(ENGINE), Some("9")),
        ("/source p.toml".to_owned(), Some("s1"), Some("s2")),
        ("/params.layers".to_owned(), Some("2"), Some("4")),
        ("model/with.base".to_owned(), Some("b1"), Some("b2")),
        ("load[rate=4]/samples".to_owned(), Some("3"), None),
        ("new/".to_owned(), None, Some("shell.run")),
    ];
    assert_eq!(named(&found), wanted);
    let back = now.differences(&lock);
    assert!(named(&back).contains(&("new/".to_owned(), Some("shell.run"), None)));
}

#[test]
fn another_kind_of_step_is_one_difference() {
    let (lock, mut now) = (sample(), sample());
    now.nodes[0].1 = pins(&[("use", "model.other"), ("with.else", "1")]);
    let found = lock.differences(&now);
    let wanted = (
        "model/use".to_owned(),
        Some("model.derive"),
        Some("model.other"),
    );
    assert_eq!(named(&found), [wanted]);
}

#[test]
fn only_functions_can_stray() {
    let (lock, mut done) = (sample(), sample());
    if let Some(result) = done.results.get_mut("model") {
        result.outputs.insert("dir".into(), "d2".into());
    }
    let strays = lock.strays(&done);
    let wanted = ("model/output dir".to_owned(), Some("d1"), Some("d2"));
    assert_eq!(named(&strays), [wanted]);
    done.nodes[0].1[1].1 = "report".into();
    assert_eq!(lock.strays(&done), []);
}

#[test]
fn what_is_no_lock_says_why() {
    let error = Lock::read("lock = 2\nengine = \"1\"\nplan = \"p\"\n").expect_err("a later form");
    assert_eq!(error.to_string(), "it has form 2, and only form 1 is known");
    assert!(Lock::read("lock = 1\nengin = \"1\"").is_err());
    assert!(Lock::read("[[").is_err());
}

proptest! {
    #[test]
    fn any_text_can_be_a_name_and_a_value(name in "\\PC{0,12}", value in any::<String>()) {
        let mut lock = sample();
        lock.nodes[0].1.push((format!("with.{name}"), value));
        lock.nodes.push((name.clone(), Pins::new()));
        let read = Lock::read(&lock.to_text()).expect("a lock");
        prop_assert_eq!(lock.differences(&read), []);
    }
}
