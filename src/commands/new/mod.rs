//! `benchwright new`: a plan composed from the library, which passes `check` before it is written.

mod answers;

use super::{Session, write_out};
use crate::args::{New, Template};
use crate::draft::{Asked, Draft, Missing};
use crate::exit::{self, Failure};
use crate::reference::{self, Entry};
use crate::terminal::{self, Ink, Terminal};
use crate::{render, words};
use answers::{Nobody, Person};
use engine::expand;
use engine::library::Library;
use engine::params::Settings;
use engine::problem::{Problem, did_you_mean};
use engine::source::Sources;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

/// How often a person may mend a plan that is not sound yet.
const ATTEMPTS: usize = 20;
/// What the names of fragments begin with.
const FRAGMENTS: &str = "library.";
/// The file that editors read the schema of plans from.
const SCHEMA: &str = "plan.schema.json";
const QUICKSTART: &str = include_str!("../../../plans/quickstart.toml");

/// Composes a plan and writes it.
pub(super) fn new(arguments: &New, session: &Session) -> Result<u8, Failure> {
    let usual = PathBuf::from(format!("{}.toml", arguments.name));
    let file = arguments.output.clone().unwrap_or(usual);
    if file.exists() {
        let message = format!("`{}` is there already", file.display());
        return Err(Failure::new(message).help("choose another file with `-o FILE`"));
    }
    let library = (session.library)();
    let schema = schema_for(&file);
    let text = match arguments.template {
        Some(Template::Quickstart) => from_template(arguments, &file, &schema, &library, session),
        None => composed(arguments, &file, &schema, &library, session),
    };
    match text? {
        Some(text) => write(&file, &text, &schema, &library, session),
        None => Ok(exit::UNSOUND),
    }
}

/// Where the schema lies, as the plan names it, and whether it is there.
struct SchemaPlace {
    path: String,
    is_there: bool,
}

/// Looks for a schema beside the plan and above it.
fn schema_for(file: &Path) -> SchemaPlace {
    let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let mut up = String::from("./");
    for folder in absolute.ancestors().skip(1) {
        for place in [SCHEMA.to_owned(), format!("plans/{SCHEMA}")] {
            if folder.join(&place).is_file() {
                let path = format!("{up}{place}");
                return SchemaPlace {
                    path,
                    is_there: true,
                };
            }
        }
        up = if up == "./" {
            "../".to_owned()
        } else {
            format!("{up}../")
        };
    }
    SchemaPlace {
        path: format!("./{SCHEMA}"),
        is_there: false,
    }
}

fn from_template(
    arguments: &New,
    file: &Path,
    schema: &SchemaPlace,
    library: &Library,
    session: &Session,
) -> Result<Option<String>, Failure> {
    let name = &arguments.name;
    let body = QUICKSTART
        .lines()
        .skip_while(|line| line.starts_with("#:schema") || line.is_empty());
    let lines = body.map(|line| match line.starts_with("name = ") {
        true => format!("name = {name:?}\n"),
        false => format!(
            "{}\n",
            line.replace("plans/quickstart.toml", &words::path(file))
        ),
    });
    let text = format!("#:schema {}\n\n{}", schema.path, lines.collect::<String>());
    match check(file, &text, library) {
        Ok(()) => Ok(Some(text)),
        Err(wrong) => {
            draw(&wrong, &session.terminal);
            Ok(None)
        }
    }
}

/// Composes until the plan is sound, or nobody mends it; `None` if it is not.
fn composed(
    arguments: &New,
    file: &Path,
    schema: &SchemaPlace,
    library: &Library,
    session: &Session,
) -> Result<Option<String>, Failure> {
    let entries = in_order(library, file);
    let mut person = terminal::can_ask().then(|| Person::new(session.terminal));
    let wanted = wanted(arguments, &entries, person.as_mut())?;
    if wanted.is_empty() {
        tell_missing_steps(&entries, &session.terminal);
        return Ok(None);
    }
    let mut given = arguments.param.clone();
    for _ in 0..ATTEMPTS {
        let mut draft = Draft::new(&entries, wanted.clone(), given.clone());
        let asked: &mut dyn Asked = match &mut person {
            Some(person) => person,
            None => &mut Nobody,
        };
        draft.complete(asked);
        if let Some(unknown) = draft.unused().first() {
            let options = draft.options();
            let help = did_you_mean(unknown, options.iter().map(String::as_str));
            return Err(Failure::new(format!("nothing takes the value of `{unknown}`")).help(help));
        }
        if !draft.missing.is_empty() {
            tell_missing(&draft.missing, &entries, &session.terminal);
            return Ok(None);
        }
        let text = draft.text(&arguments.name, &schema.path);
        let wrong = match check(file, &text, library) {
            Ok(()) => return Ok(Some(text)),
            Err(wrong) => wrong,
        };
        draw(&wrong, &session.terminal);
        let Some(person) = &mut person else {
            let label = session.terminal.paint_error(Ink::Cyan, "help");
            terminal::error_line(format!("{label}: give values with `--param OPTION=VALUE`"));
            return Ok(None);
        };
        match person.mend() {
            Some(value) => given.push(value),
            None => return Ok(None),
        }
    }
    Ok(None)
}

/// Lists the library as it was put together, because what is tried first stands first, and after
/// it the fragments that a plan at `file` can use.
fn in_order(library: &Library, file: &Path) -> Vec<Entry> {
    let steps = library.steps().map(|s| s.name);
    let names: Vec<&str> = steps.chain(library.services().map(|s| s.name)).collect();
    let mut entries = reference::entries(library);
    entries.sort_by_key(|entry| names.iter().position(|name| *name == entry.name));
    let folder = file.parent().unwrap_or(Path::new(""));
    reference::add_fragments(&mut entries, engine::compose::fragments(folder));
    entries
}

/// What was asked for by flags, or by a person where no flag says anything. What reports comes
/// last: it shows what there is.
fn wanted<'a>(
    arguments: &New,
    entries: &'a [Entry],
    person: Option<&mut Person>,
) -> Result<Vec<&'a Entry>, Failure> {
    let whole = |name: &String| match name.starts_with(FRAGMENTS) {
        true => name.clone(),
        false => format!("{FRAGMENTS}{name}"),
    };
    let fragments = arguments.fragment.iter().map(whole);
    let named = arguments
        .server
        .iter()
        .map(|name| (name.clone(), "service"));
    let named = named
        .chain(arguments.step.iter().map(|name| (name.clone(), "step")))
        .chain(fragments.map(|name| (name, "fragment")));
    let mut found = Vec::new();
    for (name, sort) in named {
        found.push(find(&name, sort, entries)?);
    }
    if found.iter().all(|entry| entry.sort == "service") {
        let steps = person.map_or_else(Vec::new, |person| person.steps(entries));
        if steps.is_empty() {
            return Ok(steps);
        }
        found.extend(steps);
    }
    found.sort_by_key(|entry| entry.kind == "report");
    Ok(found)
}

fn find<'a>(name: &str, sort: &str, entries: &'a [Entry]) -> Result<&'a Entry, Failure> {
    let of_sort = || entries.iter().filter(|entry| entry.sort == sort);
    of_sort().find(|entry| entry.name == name).ok_or_else(|| {
        let help = did_you_mean(name, of_sort().map(|entry| entry.name.as_str()));
        Failure::new(format!("the library has no {sort} `{name}`")).help(help)
    })
}

/// A plan that is not sound, with its text.
struct Wrong {
    problems: Vec<Problem>,
    sources: Sources,
    plan: String,
}

fn check(file: &Path, text: &str, library: &Library) -> Result<(), Wrong> {
    let mut sources = Sources::default();
    let settings = Settings::default();
    match expand::expand(
        file,
        &[(file.to_owned(), text.to_owned())],
        &settings,
        library,
        &mut sources,
    ) {
        Ok(_) => Ok(()),
        Err(problems) => Err(Wrong {
            problems,
            sources,
            plan: file.display().to_string(),
        }),
    }
}

fn draw(wrong: &Wrong, terminal: &Terminal) {
    let drawn = render::problems(&wrong.problems, &wrong.sources, &wrong.plan, terminal);
    terminal::error_line(drawn);
}

fn tell_missing_steps(entries: &[Entry], terminal: &Terminal) {
    let measures = entries.iter().filter(|e| e.kind == "measure");
    let names: Vec<String> = measures.map(|e| format!("`--step {}`", e.name)).collect();
    let help = format!(
        "name one with {}, or begin with `--template quickstart`; `benchwright steps` lists all",
        names.join(" or ")
    );
    let failure = Failure::new("a plan needs at least one step").help(help);
    terminal::error_line(render::failure(&failure, terminal));
}

/// Names every flag that would have said what is missing.
fn tell_missing(missing: &[Missing], entries: &[Entry], terminal: &Terminal) {
    let mut message = String::from("these are needed, and nobody is there to be asked");
    for option in missing {
        let flag = flag(option, entries);
        let unit = option
            .unit
            .as_ref()
            .map_or_else(String::new, |unit| format!(", in {unit}"));
        message.push_str(&format!(
            "\n  {flag}  {}{unit}: {}",
            option.type_name, option.doc
        ));
    }
    let failure = Failure::new(message).help("add the flags, or run it on a terminal");
    terminal::error_line(render::failure(&failure, terminal));
}

fn flag(option: &Missing, entries: &[Entry]) -> String {
    if !option.type_name.starts_with("service") {
        return format!("--param {}.{}=…", option.node, option.option);
    }
    // A fragment's parameter may take any service.
    let kind = option.type_name.strip_prefix("service<");
    let kind = kind.and_then(|rest| rest.strip_suffix('>'));
    let is_it = |entry: &&Entry| kind.is_none_or(|kind| entry.kind == kind);
    let services = entries.iter().filter(|entry| entry.sort == "service");
    let servers = services.filter(is_it);
    let names: Vec<&str> = servers.map(|entry| entry.name.as_str()).collect();
    format!("--server {}", names.join("|"))
}

/// Writes the plan, and the schema beside it where there is none yet.
fn write(
    file: &Path,
    text: &str,
    schema: &SchemaPlace,
    library: &Library,
    session: &Session,
) -> Result<u8, Failure> {
    if file == Path::new("-") {
        write_out(None, text.as_bytes())?;
        return Ok(exit::DONE);
    }
    create(file, text)?;
    let mut wrote = words::path(file);
    if !schema.is_there {
        let beside = file.with_file_name(SCHEMA);
        let schema = format!("{:#}\n", engine::schema::plan(library));
        create(&beside, &schema)?;
        wrote.push_str(&format!(
            " and {}, its schema for editors",
            words::path(&beside)
        ));
    }
    terminal::line(format!("wrote {wrote}"));
    if session.terminal.is_talkative() {
        let check = session.command(&format!("check {}", words::shell(&words::path(file))));
        terminal::line(format!("`{check}` shows what it would run"));
    }
    Ok(exit::DONE)
}

/// Never writes over anything.
fn create(file: &Path, text: &str) -> Result<(), Failure> {
    let created = OpenOptions::new().write(true).create_new(true).open(file);
    let written = created.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|e| {
        Failure::new(format!("could not write `{}`: {e}", file.display()))
            .help("give a file in a folder that exists and is writable: `-o FILE`")
    })
}
