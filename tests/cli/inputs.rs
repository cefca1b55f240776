//! What a step reads and somebody changes while it runs: its result is not taken for that of what was
//! there before.

use crate::folder::Folder;
use std::fs;

#[test]
fn a_result_whose_input_was_changed_meanwhile_is_used_and_not_kept() {
    let folder = Folder::new();
    let script = folder.path("script.sh");
    let write = |text: &str| fs::write(&script, text).expect("a script");
    let plan = format!(
        r#"
[steps.make]
use = "shell.run"
with = {{ argv = ["sh", "{}"] }}

[steps.read]
use = "shell.run"
with = {{ argv = ["cat", "{{inputs.text}}/stdout.txt"], inputs = {{ text = "${{steps.make.files}}" }} }}
"#,
        script.display()
    );
    folder.plan("p", &plan);
    let edits_itself = "echo made; echo '# edited' >> \"$0\"\n";
    write(edits_itself);
    let said = folder.run(&["run", "p.toml"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let made = folder.path("outputs/latest/results/read/files/stdout.txt");
    assert!(
        said.err
            .contains("warning: the result of `make` is not kept for later runs: `"),
        "{}",
        said.err
    );
    assert_eq!(fs::read_to_string(made).expect("a result"), "made\n");

    // The same text as before, of which no result is known.
    write(edits_itself);
    let said = folder.run(&["run", "p.toml", "--json"]);
    assert!(
        said.out.contains(r#""event":"finished","node":"make""#),
        "{}",
        said.out
    );

    // One that nobody changes is kept.
    write("echo made\n");
    for (finishes, word) in [(true, "first"), (false, "second")] {
        let said = folder.run(&["run", "p.toml", "--json"]);
        let found = said.out.contains(r#""event":"finished","node":"make""#);
        assert_eq!(found, finishes, "{word}: {}", said.out);
    }
}
