//! Problems of a plan as annotated source: file, line, column, the place underlined, the mend.

use crate::exit::Failure;
use crate::terminal::{Ink, Terminal};
use crate::words;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use engine::problem::Problem;
use engine::source::{Place, Sources};
use serde_json::{Value, json};

/// Draws all problems, in their order, and how many there are in `plan`.
pub(crate) fn problems(
    problems: &[Problem],
    sources: &Sources,
    plan: &str,
    terminal: &Terminal,
) -> String {
    let renderer = if terminal.error_color {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    let mut drawn: Vec<String> = problems
        .iter()
        .map(|p| problem(p, sources, &renderer, terminal))
        .collect();
    let count = words::plural(problems.len(), "problem");
    drawn.push(format!(
        "{}{}",
        error_label(terminal),
        title(&format!(": {count} in {plan}; nothing ran"), terminal)
    ));
    drawn.join("\n\n")
}

fn problem(
    problem: &Problem,
    sources: &Sources,
    renderer: &Renderer,
    terminal: &Terminal,
) -> String {
    let Some((place, label)) = &problem.place else {
        return failure(
            &Failure {
                message: problem.message.clone(),
                help: problem.help.clone(),
            },
            terminal,
        );
    };
    let title = Level::ERROR.primary_title(&problem.message);
    let mut groups = vec![title.element(snippet(place, label, sources))];
    if let Some(help) = &problem.help {
        groups.push(Group::with_title(Level::HELP.secondary_title(help)));
    }
    renderer.render(&groups)
}

fn snippet<'a>(
    place: &Place,
    label: &'a str,
    sources: &'a Sources,
) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
    let source = sources.get(place.source);
    let length = source.text.len();
    // A table spans all of its lines: its beginning says where it is.
    let first_line_end = source.text[place.span.start.min(length)..]
        .find('\n')
        .map_or(length, |n| place.span.start + n);
    let start = place.span.start.min(length);
    let end = place.span.end.min(first_line_end).max(start);
    let annotation = AnnotationKind::Primary.span(start..end).label(label);
    Snippet::source(&source.text)
        .path(source.path.to_string_lossy())
        .annotation(annotation)
}

/// Draws what keeps a command from its work.
pub(crate) fn failure(failure: &Failure, terminal: &Terminal) -> String {
    let mut text = format!(
        "{}{}",
        error_label(terminal),
        title(&format!(": {}", failure.message), terminal)
    );
    if let Some(help) = &failure.help {
        text.push_str(&format!(
            "\n{}: {help}",
            terminal.paint_error(Ink::Cyan, "help")
        ));
    }
    text
}

fn error_label(terminal: &Terminal) -> String {
    terminal.paint_error(Ink::Red, "error")
}

fn title(text: &str, terminal: &Terminal) -> String {
    terminal.paint_error(Ink::Bold, text)
}

/// Writes a problem for machines: line and column count from 1.
pub(crate) fn problem_json(problem: &Problem, sources: &Sources) -> Value {
    let place = problem.place.as_ref().map(|(place, label)| {
        let (line, column) = sources.line_column(place);
        let path = sources.get(place.source).path.display().to_string();
        json!({ "file": path, "line": line, "column": column, "bytes": [place.span.start, place.span.end], "label": label })
    });
    json!({ "message": problem.message, "place": place, "help": problem.help })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::Verbosity;

    fn plain() -> Terminal {
        Terminal {
            verbosity: Verbosity::Normal,
            color: false,
            error_color: false,
            live: false,
        }
    }

    #[test]
    fn a_problem_shows_its_place_and_its_mend() {
        let mut sources = Sources::default();
        let id = sources.add("plans/p.toml", "schema = 1\nnam = \"x\"\n");
        let found = Problem::at(
            &Place::new(id, 11..14),
            "a plan has no key `nam`",
            "unknown key",
        )
        .help("did you mean `name`?");
        let drawn = problems(&[found], &sources, "plans/p.toml", &plain());
        let lines: Vec<&str> = drawn.lines().map(str::trim_end).collect();
        assert_eq!(
            lines,
            [
                "error: a plan has no key `nam`",
                " --> plans/p.toml:2:1",
                "  |",
                "2 | nam = \"x\"",
                "  | ^^^ unknown key",
                "  |",
                "help: did you mean `name`?",
                "",
                "error: 1 problem in plans/p.toml; nothing ran",
            ]
        );
    }

    #[test]
    fn a_problem_without_a_place_is_a_line() {
        let found = Problem::whole("the plan has no steps").help("add one");
        let drawn = problems(&[found], &Sources::default(), "p.toml", &plain());
        assert!(
            drawn.starts_with("error: the plan has no steps\nhelp: add one\n\n"),
            "{drawn}"
        );
    }

    #[test]
    fn a_place_of_many_lines_is_marked_at_its_first_and_one_beyond_the_text_is_borne() {
        let mut sources = Sources::default();
        let id = sources.add("p.toml", "a = [\n  1,\n  2,\n]\n");
        let long = Problem::at(&Place::new(id, 4..17), "wrong", "here");
        let beyond = Problem::at(&Place::new(id, 90..99), "wrong", "there");
        let drawn = problems(&[long, beyond], &sources, "p.toml", &plain());
        assert!(drawn.contains("1 | a = [\n"), "{drawn}");
        assert!(!drawn.contains("2 |   1"), "{drawn}");
        assert!(
            drawn.ends_with("error: 2 problems in p.toml; nothing ran"),
            "{drawn}"
        );
    }

    #[test]
    fn colours_come_only_where_they_are_wanted() {
        let error = Failure::new("no").help("yes");
        assert_eq!(failure(&error, &plain()), "error: no\nhelp: yes");
        assert!(
            failure(
                &error,
                &Terminal {
                    error_color: true,
                    ..plain()
                }
            )
            .contains("\x1b[")
        );
    }

    #[test]
    fn machines_get_the_place_in_numbers() {
        let mut sources = Sources::default();
        let id = sources.add("p.toml", "a = 1\nb = 2\n");
        let value = problem_json(&Problem::at(&Place::new(id, 6..7), "m", "l"), &sources);
        assert_eq!(value["place"]["line"], 2);
        assert_eq!(value["place"]["column"], 1);
        assert_eq!(value["help"], Value::Null);
    }
}
