//! The document around the sections: head, table of contents, scripts.

use crate::escape::escape;
use crate::interactive;
use crate::page::figure::Figures;
use crate::page::{Page, Section, style};

/// Forbids the browser every fetch; `blob:` and `data:` are what saving a picture needs.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
    img-src data: blob:; base-uri 'none'; form-action 'none'";

/// Runs before anything is shown: collects errors, chooses the theme.
const FIRST_SCRIPT: &str = include_str!("first.js");
/// Runs when everything is there: draws, sorts, switches themes.
const LAST_SCRIPT: &str = include_str!("report.js");

/// Writes the document.
pub(crate) fn page(page: &Page) -> String {
    let ids = ids(&page.sections);
    let mut figures = Figures::default();
    let mut body = String::new();
    for (section, id) in page.sections.iter().zip(&ids) {
        write_section(&mut body, section, id, &mut figures);
    }
    let library = if figures.n_plots() > 0 {
        format!("<script>{}</script>\n", interactive::library())
    } else {
        String::new()
    };
    let (title, sheet) = (escape(&page.title), style::sheet());
    let (header, contents) = (header(page), contents(&page.sections, &ids));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n<link rel=\"icon\" href=\"data:,\">\n\
         <title>{title}</title>\n<style>{sheet}</style>\n<script>{FIRST_SCRIPT}</script>\n</head>\n\
         <body>\n{header}<div class=\"layout\">\n{contents}<main>\n{body}</main>\n</div>\n\
         {library}<script>{LAST_SCRIPT}</script>\n</body>\n</html>\n"
    )
}

fn header(page: &Page) -> String {
    let mut lines = String::new();
    if !page.subtitle.is_empty() {
        lines.push_str(&format!(
            "<p class=\"subtitle\">{}</p>",
            escape(&page.subtitle)
        ));
    }
    if !page.generated.is_empty() {
        lines.push_str(&format!(
            "<p class=\"generated\">{}</p>",
            escape(&page.generated)
        ));
    }
    format!(
        "<header class=\"top\"><div><h1>{}</h1>{lines}</div>\
         <button type=\"button\" id=\"theme\" title=\"switch between light and dark\" \
         aria-label=\"switch between light and dark\">\
         <svg width=\"18\" height=\"18\" viewBox=\"0 0 18 18\" aria-hidden=\"true\">\
         <circle cx=\"9\" cy=\"9\" r=\"7\" fill=\"none\" stroke=\"currentColor\" stroke-width=\"1.6\"/>\
         <path d=\"M9 2a7 7 0 0 1 0 14Z\" fill=\"currentColor\"/></svg></button></header>\n",
        escape(&page.title)
    )
}

/// The table of contents; a page of one section needs none.
fn contents(sections: &[Section], ids: &[String]) -> String {
    if sections.len() < 2 {
        return String::new();
    }
    let mut list = String::from("<nav class=\"contents\" aria-label=\"contents\"><ol>");
    for (section, id) in sections.iter().zip(ids) {
        list.push_str(&format!(
            "<li><a href=\"#{id}\">{}</a></li>",
            escape(&section.title)
        ));
    }
    list.push_str("</ol></nav>\n");
    list
}

fn write_section(out: &mut String, section: &Section, id: &str, figures: &mut Figures) {
    let title = escape(&section.title);
    out.push_str(&format!("<section id=\"{id}\"><h2>{title}</h2>\n"));
    for block in &section.blocks {
        block.write(out, figures);
    }
    out.push_str("</section>\n");
}

/// An anchor for each section, made of its title, and numbered where two would be the same.
fn ids(sections: &[Section]) -> Vec<String> {
    let mut ids: Vec<String> = Vec::with_capacity(sections.len());
    for section in sections {
        let words: Vec<String> = section
            .title
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|word| !word.is_empty())
            .map(str::to_ascii_lowercase)
            .collect();
        // The prefix keeps clear of `#light` and `#dark`, which choose the theme.
        let plain = format!("section-{}", words.join("-"));
        let numbered = (2..).map(|n| format!("{plain}-{n}"));
        let free = std::iter::once(plain.clone())
            .chain(numbered)
            .find(|id| !ids.contains(id));
        ids.push(free.unwrap_or(plain));
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Axis, BarChart};

    fn chart() -> BarChart {
        BarChart::new("t", Axis::new("y", ""), ["a"]).series("s", [1.0])
    }

    #[test]
    fn anchors_are_unique() {
        let ids = ids(&["A b", "a  B", "", "A b 2", "a b"].map(Section::new));
        assert_eq!(ids[0], "section-a-b");
        let mut unique = ids.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), ids.len());
    }

    #[test]
    fn the_library_is_there_once_and_only_when_needed() {
        let banner = "* plotly.js v";
        let without = Page::new("t")
            .section(Section::new("s").paragraph("p"))
            .to_html();
        assert_eq!(without.matches(banner).count(), 0);
        let with = Page::new("t")
            .section(Section::new("s").chart(chart()).chart(chart()))
            .to_html();
        assert_eq!(with.matches(banner).count(), 1);
    }

    #[test]
    fn nothing_of_ours_points_outside() {
        let html = Page::new("t")
            .section(Section::new("s").chart(chart()))
            .to_html();
        let ours = html.replace(interactive::library(), "");
        let ours = ours.replace("http://www.w3.org/2000/svg", "");
        assert!(!ours.contains("http://") && !ours.contains("https://"));
        assert!(!ours.contains(" src="));
    }

    #[test]
    fn the_same_data_give_the_same_file() {
        let page = || {
            Page::new("t")
                .generated("now")
                .section(Section::new("s").chart(chart()))
        };
        assert_eq!(page().to_html(), page().to_html());
    }

    #[test]
    fn titles_are_escaped() {
        let html = Page::new("<t>")
            .subtitle("<u>")
            .generated("<v>")
            .section(Section::new("<w>"));
        let html = html.to_html();
        assert!(
            ["<t>", "<u>", "<v>", "<w>"]
                .iter()
                .all(|text| !html.contains(text))
        );
    }
}
