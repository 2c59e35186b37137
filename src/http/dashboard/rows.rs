//! Tables of views as tables of a page, with links to what their cells name.

use crate::view::table::{Cell, Table};
use crate::view::tone::Tone;
use maud::{Markup, html};
use std::fmt::Write as _;

/// A path with a query.
pub(super) fn href(path: &str, query: &[(&str, &str)]) -> String {
    let mut href = path.to_owned();
    for (index, (name, value)) in query.iter().enumerate() {
        let before = if index == 0 { '?' } else { '&' };
        let _ = write!(href, "{before}{name}={}", encoded(value));
    }
    href
}

/// A text as a part of a path or of a query.
pub(super) fn encoded(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

/// The page of a batch. Browsers take some names for a step in the path, whichever way they are written: the jobs of
/// such a batch are shown instead.
pub(super) fn batch_page(name: &str) -> String {
    if matches!(name, "" | "." | "..") {
        return href("/jobs", &[("batch", name)]);
    }
    format!("/batches/{}", encoded(name))
}

/// The page of what a cell names.
fn link(column: &str, cell: &Cell) -> Option<String> {
    let text = match cell {
        Cell::Text(text) => text.as_str(),
        Cell::Id(number) if column == "job" => return Some(format!("/jobs/{number}")),
        _ => return None,
    };
    Some(match column {
        "batch" => batch_page(text),
        "route" | "project" | "login" => href("/jobs", &[(column, text)]),
        "class" | "error_class" => href("/jobs", &[("state", "failed"), ("class", text)]),
        _ => return None,
    })
}

/// The name of a meaning in the style sheet.
pub(super) const fn tone_class(tone: Tone) -> &'static str {
    match tone {
        Tone::Good => "good",
        Tone::Bad => "bad",
        Tone::Warning => "warning",
        Tone::Over => "over",
    }
}

/// A table, or a line that says that there is nothing. `more` adds a cell to a row, such as its buttons.
pub(super) fn table(name: &str, table: &Table, when_empty: &str, more: Option<&dyn Fn(usize) -> Markup>) -> Markup {
    if table.is_empty() {
        return html! { p .empty { (when_empty) } };
    }
    let columns = table.wanted(false);
    let is_figure = |index: usize| {
        let cells = || table.rows.iter().filter_map(|row| row.get(index)).filter(|cell| **cell != Cell::Empty);
        cells().filter(|cell| cell.is_numeric()).count() * 2 > cells().count()
    };
    let figures: Vec<bool> = columns.iter().map(|index| is_figure(*index)).collect();
    let class = |place: usize, index: usize| {
        let is_prose = table.layout.prose.contains(&table.columns[index]);
        if figures[place] { Some("figure") } else { is_prose.then_some("prose") }
    };
    html! {
        div .scroll tabindex="0" role="region" aria-label=(name) {
            table {
                thead {
                    tr {
                        @for (place, index) in columns.iter().enumerate() {
                            th scope="col" class=[class(place, *index)] { (table.columns[*index].replace('_', " ")) }
                        }
                        @if more.is_some() { th scope="col" { "change" } }
                    }
                }
                tbody {
                    @for (number, row) in table.rows.iter().enumerate() {
                        tr {
                            @for (place, index) in columns.iter().enumerate() {
                                td class=[class(place, *index)] { (cell(table.columns[*index], &row[*index])) }
                            }
                            @if let Some(more) = more { td { (more(number)) } }
                        }
                    }
                }
                @if let Some(total) = &table.total {
                    tfoot {
                        tr {
                            @for (place, index) in columns.iter().enumerate() {
                                td class=[class(place, *index)] { (total[*index].in_words()) }
                            }
                            @if more.is_some() { td {} }
                        }
                    }
                }
            }
        }
    }
}

fn cell(column: &'static str, cell: &Cell) -> Markup {
    let words = cell.in_words();
    let tone = Tone::of(column, cell).map(tone_class);
    let inner = html! { @match link(column, cell) { Some(path) => a href=(path) { (words) }, None => (words) } };
    html! { @match tone { Some(tone) => span class=(tone) { (inner) }, None => (inner) } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::NanoUsd;

    #[test]
    fn whatever_a_name_has_in_it_stays_text() {
        let name = "<script>alert('x')</script>/\"&?\u{202e}";
        let mut rows = Table::new(["batch", "cost"]);
        rows.row([name.into(), NanoUsd(1_500_000_000).into()]);
        let page = table("batches", &rows, "none", None).into_string();
        assert!(!page.contains("<script") && !page.contains("alert('x')\""), "{page}");
        assert!(page.contains("&lt;script&gt;") && page.contains("href=\"/batches/%3Cscript%3E"), "{page}");
        assert!(page.contains("<td class=\"figure\">$1.50"), "{page}");
        for name in [".", ".."] {
            assert_eq!(batch_page(name), format!("/jobs?batch={name}"));
        }
        assert_eq!(batch_page("..."), "/batches/...");
    }

    #[test]
    fn a_query_keeps_what_it_is_given() {
        assert_eq!(href("/jobs", &[("batch", "a b&c=ü"), ("state", "x")]), "/jobs?batch=a%20b%26c%3D%C3%BC&state=x");
        assert_eq!(href("/jobs", &[]), "/jobs");
    }
}
