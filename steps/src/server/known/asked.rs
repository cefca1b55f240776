//! What a server was asked for, and what it says that it applied.
//!
//! One list of options yields the flags, the question and the comparison, so that they cannot differ. What a
//! server does not tell is not compared.

use engine::types::{Argument, Arguments, Text, TextPart};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How far numbers may lie apart that are the same, relative to them: servers round.
const ROUNDING: f64 = 1e-6;

/// How an option becomes flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `--flag value`.
    Valued,
    /// `--flag` if it is true, nothing if not.
    Bare,
    /// `--flag` if it is true, `--no-flag` if not.
    Switch,
    /// No flag: it stands in the server's file of options.
    InFile,
}

/// How a server writes the names of its flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    /// `--page-size`.
    Kebab,
    /// `--page_size`.
    Snake,
}

impl Spelling {
    /// The flag of a name in `snake_case` or `kebab-case`.
    pub(super) fn flag(self, name: &str) -> String {
        match self {
            Self::Kebab => format!("--{}", name.replace('_', "-")),
            Self::Snake => format!("--{}", name.replace('-', "_")),
        }
    }
}

/// An option that is given to a server.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Given {
    /// In `snake_case`.
    name: &'static str,
    value: Value,
    form: Form,
}

impl Given {
    /// An option with a value, if the plan gives it one.
    pub(super) fn valued(name: &'static str, value: Option<impl Serialize>) -> Option<Self> {
        Some(Self {
            name,
            value: serde_json::to_value(value?).ok()?,
            form: Form::Valued,
        })
    }

    /// An option that is on or off.
    pub(super) fn on(name: &'static str, is_on: bool, form: Form) -> Self {
        Self {
            name,
            value: Value::Bool(is_on),
            form,
        }
    }

    /// Whether a flag, however it is written, is this option's.
    pub(super) fn is_called(&self, flag: &str) -> bool {
        flag.replace('-', "_") == self.name
    }

    /// The words of the command line.
    pub(super) fn words(&self, spelling: Spelling) -> Vec<String> {
        let flag = spelling.flag(self.name);
        match (self.form, self.value.as_bool()) {
            (Form::Bare | Form::Switch, Some(true)) => vec![flag],
            (Form::Switch, _) => vec![flag.replacen("--", "--no-", 1)],
            (Form::Bare | Form::InFile, _) => Vec::new(),
            (Form::Valued, _) => vec![flag, text(&self.value)],
        }
    }
}

/// One thing that was asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Asked {
    name: String,
    value: Value,
}

/// Everything that is asked for: by options, and by arguments whose value is written in the plan.
pub(super) fn asked(given: &[Given], arguments: &Arguments) -> Vec<Asked> {
    let options = given.iter().map(|given| Asked {
        name: given.name.to_owned(),
        value: given.value.clone(),
    });
    let plain = arguments.iter().filter_map(|(key, argument)| {
        Some(Asked {
            name: key.replace('-', "_"),
            value: plain(argument)?,
        })
    });
    options.chain(plain).collect()
}

/// What is asked for by name, for questions about it.
pub(super) struct Asking<'a>(pub(super) &'a [Asked]);

impl Asking<'_> {
    /// What is asked for under one of these names.
    pub(super) fn value(&self, names: &[&str]) -> Option<&Value> {
        let found = self
            .0
            .iter()
            .find(|asked| names.contains(&asked.name.as_str()));
        found.map(|asked| &asked.value)
    }

    /// Whether something is switched on.
    pub(super) fn is_on(&self, name: &str) -> bool {
        self.value(&[name]).and_then(Value::as_bool) == Some(true)
    }

    /// The product of numbers by their names, of those that are asked for; nothing if none is.
    pub(super) fn product(&self, factors: &[&[&str]]) -> Option<u32> {
        let numbers = factors
            .iter()
            .filter_map(|names| self.value(names)?.as_u64());
        let product = numbers.reduce(u64::saturating_mul)?;
        Some(u32::try_from(product).unwrap_or(u32::MAX))
    }
}

/// What stands in the plan itself. References may hold secrets, and lists mean something else to each
/// server.
fn plain(argument: &Argument) -> Option<Value> {
    match argument {
        Argument::Bool(on) => Some((*on).into()),
        Argument::Int(n) => Some((*n).into()),
        Argument::Float(n) => Some((*n).into()),
        Argument::Text(Text { parts }) => match parts.as_slice() {
            [TextPart::Plain(text)] => Some(text.clone().into()),
            _ => None,
        },
        Argument::List(_) | Argument::Table(_) => None,
    }
}

/// Says of each thing that was asked for and not applied what the server tells instead. `aliases` are names
/// of flags and what the server calls the same.
pub(super) fn differences(asked: &[Asked], told: &Value, aliases: &[(&str, &str)]) -> Vec<String> {
    let difference = |asked: &Asked| {
        let names = aliases.iter().filter(|(flag, _)| *flag == asked.name);
        let names = names.map(|(_, name)| *name);
        let mut names = names.chain([asked.name.as_str()]);
        let applied = names.find_map(|name| find(told, name))?;
        let (name, applied_text) = (&asked.name, text(applied));
        (!agrees(&asked.value, applied)).then(|| {
            let wanted = text(&asked.value);
            format!("`{name}` was asked to be {wanted} and is {applied_text}")
        })
    };
    asked.iter().filter_map(difference).collect()
}

/// Finds a value by its name, at most two tables down: vLLM groups them.
fn find<'a>(told: &'a Value, name: &str) -> Option<&'a Value> {
    let tables = |of: &'a Value| of.as_object().into_iter().flatten().map(|(_, v)| v);
    let plain = |of: &'a Value| of.get(name).filter(|v| is_plain(v));
    plain(told)
        .or_else(|| tables(told).find_map(plain))
        .or_else(|| tables(told).flat_map(tables).find_map(plain))
}

fn is_plain(value: &Value) -> bool {
    value.is_boolean() || value.is_number() || value.is_string()
}

fn agrees(asked: &Value, applied: &Value) -> bool {
    let number = |value: &Value| value.as_f64().or_else(|| value.as_str()?.parse().ok());
    match (number(asked), number(applied)) {
        (Some(asked), Some(applied)) => {
            (asked - applied).abs() <= ROUNDING * asked.abs().max(applied.abs())
        }
        // Python writes `True`.
        _ => text(asked).eq_ignore_ascii_case(&text(applied)) || is_name_of(applied, asked),
    }
}

/// Torch calls its types by their module: `torch.bfloat16` is `bfloat16`. What was left to the server, as
/// `auto`, is whatever it chose.
fn is_name_of(applied: &Value, asked: &Value) -> bool {
    let (asked, applied) = (text(asked), text(applied));
    asked == "auto" || applied.strip_prefix("torch.") == Some(&asked)
}

fn text(value: &Value) -> String {
    match value.as_str() {
        Some(text) => text.to_owned(),
        None => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn given() -> Vec<Given> {
        let valued = [
            Given::valued("page_size", Some(16)),
            Given::valued("dtype", Some("bfloat16")),
            Given::valued("tp", None::<u32>),
        ];
        let mut given: Vec<Given> = valued.into_iter().flatten().collect();
        given.push(Given::on("disable_radix_cache", false, Form::Bare));
        given.push(Given::on("enable_prefix_caching", false, Form::Switch));
        given
    }

    #[test]
    fn options_become_the_flags_of_their_form() {
        let words = given().into_iter().flat_map(|g| g.words(Spelling::Kebab));
        let words: Vec<String> = words.collect();
        let expected = "--page-size 16 --dtype bfloat16 --no-enable-prefix-caching";
        assert_eq!(words.join(" "), expected);
        let words = given()[0].words(Spelling::Snake);
        assert_eq!(words, ["--page_size", "16"]);
        let on = Given::on("disable_radix_cache", true, Form::Bare);
        assert_eq!(on.words(Spelling::Kebab), ["--disable-radix-cache"]);
        let filed = Given::on("enable_block_reuse", true, Form::InFile);
        assert_eq!(filed.words(Spelling::Snake), [""; 0]);
    }

    #[test]
    fn numbers_are_multiplied_by_whatever_they_are_called() {
        let given = [
            Given::valued("tp_size", Some(8)),
            Given::valued("pp_size", Some(2)),
        ];
        let given: Vec<Given> = given.into_iter().flatten().collect();
        let asked = asked(&given, &Arguments::default());
        let asking = Asking(&asked);
        let factors: [&[&str]; 3] = [&["tp", "tp_size"], &["pp_size"], &["dp_size"]];
        assert_eq!(asking.product(&factors), Some(16));
        assert_eq!(asking.product(&factors[2..]), None);
    }

    #[test]
    fn what_was_not_applied_is_told_with_both_values() {
        let asked = asked(&given(), &Arguments::default());
        let same =
            json!({ "page_size": 16, "dtype": "torch.bfloat16", "disable_radix_cache": false });
        assert_eq!(differences(&asked, &same, &[]), [""; 0]);
        let other = json!({ "page_size": 1, "disable_radix_cache": true });
        let found = differences(&asked, &other, &[]);
        assert_eq!(
            found,
            [
                "`page_size` was asked to be 16 and is 1",
                "`disable_radix_cache` was asked to be false and is true"
            ]
        );
    }

    #[test]
    fn values_are_found_in_groups_and_under_other_names() {
        let asked = asked(&given(), &Arguments::default());
        let told = json!({ "vllm_config": { "cache_config": { "block_size": 32, "enable_prefix_caching": false } } });
        let found = differences(&asked, &told, &[("page_size", "block_size")]);
        assert_eq!(found, ["`page_size` was asked to be 16 and is 32"]);
    }

    #[test]
    fn rounding_and_what_was_left_open_are_no_difference() {
        let agree = |asked: Value, applied: Value| agrees(&asked, &applied);
        assert!(agree(json!(0.05), json!(0.050_000_000_1)));
        assert!(agree(json!(4096), json!("4096")));
        assert!(agree(json!("auto"), json!("torch.bfloat16")));
        assert!(agree(json!(true), json!("True")) && !agree(json!(true), json!("False")));
        assert!(!agree(json!(4096), json!(4095)));
        assert!(!agree(json!("fcfs"), json!("lpm")));
    }
}
