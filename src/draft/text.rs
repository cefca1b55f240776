//! A draft as the text of a plan, in which every option is explained by the library's own words.

use super::{Draft, Node};
use crate::reference::{OptionDoc, value_of};
use crate::words;

/// Where comments are wrapped, in characters.
const WIDTH: usize = 88;

impl Draft<'_> {
    /// Writes the plan; `schema` is where its schema lies, relative to it.
    pub(crate) fn text(&self, name: &str, schema: &str) -> String {
        let mut text =
            format!("#:schema {schema}\n\nschema = 1\nname = {name:?}\ndescription = \"\"\n");
        for node in &self.nodes {
            text.push('\n');
            text.push_str(&self.node(node));
        }
        text
    }

    fn node(&self, node: &Node<'_>) -> String {
        let (name, entry) = (&node.name, node.entry);
        let section = entry.section();
        let mut text = comment(&entry.summary);
        text.push_str(&format!("[{section}.{name}]\nuse = \"{}\"\n", entry.name));
        if !node.after.is_empty() {
            let names: Vec<String> = node.after.iter().map(|n| format!("{n:?}")).collect();
            text.push_str(&format!("after = [{}]\n", names.join(", ")));
        }
        if entry.kind == "measure" {
            text.push_str("samples = { target = 3 }\n");
        }
        if entry.options.is_empty() {
            return text;
        }
        text.push_str(&format!("\n[{section}.{name}.with]\n"));
        let (said, others): (Vec<&OptionDoc>, Vec<&OptionDoc>) = entry
            .options
            .iter()
            .partition(|o| node.with.contains_key(o.name.as_str()));
        for option in said {
            let value = node
                .with
                .get(option.name.as_str())
                .map_or("", String::as_str);
            text.push_str(&comment(&meaning(option)));
            text.push_str(&format!("{} = {value}\n", option.name));
        }
        for option in others {
            text.push_str(&comment(&meaning(option)));
            let value = value_of(option, self.library);
            text.push_str(&format!("# {} = {value}\n", option.name));
        }
        text
    }
}

/// What an option means, with its unit, and what it takes.
fn meaning(option: &OptionDoc) -> String {
    let unit = option
        .unit
        .as_ref()
        .map_or_else(String::new, |unit| format!(" In {unit}."));
    let choices = if option.type_name.starts_with('`') {
        format!(" One of {}.", option.type_name.replace(" | ", ", "))
    } else {
        String::new()
    };
    format!("{}{unit}{choices}", option.doc)
}

fn comment(text: &str) -> String {
    let lines = words::wrap(text, WIDTH).into_iter();
    lines.map(|line| format!("# {line}\n")).collect()
}
