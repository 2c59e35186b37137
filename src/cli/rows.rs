//! The question about the rows of a table, and what routes add to requests: for the commands that read files.

use super::failure::CommandFailure;
use super::words::{option, path};
use crate::config::Config;
use crate::domain::Route;
use crate::domain::template::{RequestTemplate, Template};
use crate::input::{Along, Asking, Completion, InputFormat, ReadLimits, Reading, RouteByName};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const TABLES: &str = "Tables";

/// How a table becomes requests.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Rows {
    /// What the file holds [default: by the ending of its name; JSON Lines without one]
    #[arg(long, help_heading = TABLES, value_name = "FORMAT", value_enum)]
    pub input_format: Option<Format>,
    /// What is asked of each row: {column} stands for its value, {{ and }} for braces
    /// [default: the column prompt, or the route's template]
    #[arg(long, help_heading = TABLES, value_name = "TEXT", allow_hyphen_values = true, conflicts_with = "template")]
    pub prompt: Option<String>,
    /// Instructions before the question; may name columns, too
    #[arg(long, help_heading = TABLES, value_name = "TEXT", allow_hyphen_values = true, conflicts_with = "template")]
    pub system: Option<String>,
    /// A whole request in JSON, with {column} in its strings
    #[arg(long, help_heading = TABLES, value_name = "FILE")]
    pub template: Option<PathBuf>,
    /// The column that names each job: its custom_id [default: custom_id, where there is such a column]
    #[arg(long, help_heading = TABLES, value_name = "COLUMN", allow_hyphen_values = true)]
    pub id_column: Option<String>,
    /// The columns that are kept with the job as its metadata; '': none [default: all but that of the id]
    #[arg(long, help_heading = TABLES, value_name = "COLUMN,…", value_delimiter = ',', allow_hyphen_values = true)]
    pub keep: Option<Vec<String>>,
    /// What is between the cells of CSV [default: a comma; in TSV a tab]
    #[arg(long, help_heading = TABLES, value_name = "CHARACTER", value_parser = delimiter)]
    pub delimiter: Option<u8>,
}

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A request on each line, or with a template a row.
    Jsonl,
    /// Comma-separated values.
    Csv,
    /// Tab-separated values.
    Tsv,
    /// Parquet.
    Parquet,
}

impl Format {
    /// The same for the reader.
    pub(super) const fn of_input(self) -> InputFormat {
        match self {
            Self::Jsonl => InputFormat::JsonLines,
            Self::Csv => InputFormat::Csv,
            Self::Tsv => InputFormat::Tsv,
            Self::Parquet => InputFormat::Parquet,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
            Self::Tsv => "tsv",
            Self::Parquet => "parquet",
        }
    }
}

/// A character between cells, as an argument.
pub(super) fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        b"\\t" => Ok(b'\t'),
        [byte] if byte.is_ascii() && !byte.is_ascii_alphanumeric() && !matches!(byte, b'"' | b'\n' | b'\r') => {
            Ok(*byte)
        }
        _ => Err("expected one character that is no letter, digit or quote, such as ';' or '\\t'".to_owned()),
    }
}

/// The jobs that a file is read for.
#[derive(Clone, Copy, Debug)]
pub(super) struct For<'a> {
    pub config: &'a Config,
    /// The route that the jobs name.
    pub route: &'a str,
    pub project: &'a str,
    pub batch: Option<&'a str>,
}

impl Rows {
    /// How a file is read for these jobs.
    ///
    /// # Errors
    /// A template is in no order.
    pub(super) fn reading(&self, limits: ReadLimits, jobs: &For<'_>) -> Result<Reading, CommandFailure> {
        let text = |text: Option<&str>, name: &str| {
            let parse = |text| Template::parse(text).map_err(|fault| CommandFailure::usage(format!("{name}: {fault}")));
            text.map(parse).transpose()
        };
        let (prompt, system) = (text(self.prompt.as_deref(), "--prompt")?, text(self.system.as_deref(), "--system")?);
        let request = match (prompt, &self.template) {
            (None, None) => None,
            (None, Some(file)) => Some((read_template(file)?, "--template")),
            (Some(prompt), _) => Some((RequestTemplate::of_prompt(prompt, system.clone()), "--prompt")),
        };
        let asking = Asking {
            system: system.filter(|_| request.is_none()),
            request,
            id_column: self.id_column.clone(),
            keep: self.keep.as_ref().map(|keep| keep.iter().filter(|name| !name.is_empty()).cloned().collect()),
            route_names: jobs.along(|along| along.names_of_route()),
        };
        let format = self.input_format.map(Format::of_input);
        Ok(Reading {
            limits,
            format,
            delimiter: self.delimiter,
            asking,
            completion: jobs.along(|along| along.completion()),
        })
    }

    /// The options as they are written in a command.
    pub(super) fn words(&self) -> Vec<String> {
        let text = |name, value: Option<&str>| value.map(|value| option(name, value));
        let keep = self.keep.as_ref().map(|keep| keep.join(","));
        let delimiter =
            self.delimiter.map(|byte| if byte == b'\t' { "\\t".to_owned() } else { char::from(byte).to_string() });
        let words = [
            text("input-format", self.input_format.map(Format::word)),
            text("prompt", self.prompt.as_deref()),
            text("system", self.system.as_deref()),
            self.template.as_deref().map(|file| format!("--template {}", path(file))),
            text("id-column", self.id_column.as_deref()),
            text("keep", keep.as_deref()),
            text("delimiter", delimiter.as_deref()),
        ];
        words.into_iter().flatten().collect()
    }
}

fn read_template(file: &Path) -> Result<RequestTemplate, CommandFailure> {
    let shown = file.display();
    let fault = |reason: String| CommandFailure::input(format!("--template: {shown}: {reason}"));
    let text = std::fs::read_to_string(file).map_err(|error| fault(error.to_string()))?;
    RequestTemplate::parse(text.strip_prefix('\u{feff}').unwrap_or(&text)).map_err(|error| fault(error.to_string()))
}

impl For<'_> {
    /// Asks something of the routes that the jobs may go along.
    fn along<T>(&self, ask: impl FnOnce(Along<'_>) -> T) -> T {
        let find = |name: &str| self.config.routes.get(name).map(|route| Arc::clone(&route.route));
        let is_known = !self.config.routes.is_empty();
        let find: Option<&RouteByName<'_>> = if is_known { Some(&find) } else { None };
        ask(Along { find, route: self.route, project: self.project, batch: self.batch })
    }
}

/// What a route adds to requests that go along no other one.
pub(super) fn of_route_alone(route: &Arc<Route>) -> Completion {
    if route.defaults.is_empty() {
        return Completion::Nothing;
    }
    let route = Arc::clone(route);
    Completion::By(Arc::new(move |body, _| route.defaults.read(body)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        rows: Rows,
    }

    #[test]
    fn the_options_that_are_shown_are_those_that_were_given() {
        let given = [
            "x",
            "--input-format",
            "csv",
            "--prompt",
            "- {text}?",
            "--system",
            "it's",
            "--id-column",
            "-id",
            "--keep",
            "a,b c",
            "--delimiter",
            ";",
        ];
        let words = Command::try_parse_from(given).unwrap().rows.words();
        assert_eq!(
            words.join(" "),
            "--input-format csv --prompt='- {text}?' --system 'it'\\''s' --id-column=-id --keep 'a,b c' --delimiter ';'"
        );
        let given = Command::try_parse_from(["x", "--delimiter", "\\t", "--template", "-t.json"]);
        assert!(given.is_err(), "a file is not taken for an option");
        let words = Command::try_parse_from(["x", "--delimiter", "\\t", "--template=-t.json"]).unwrap().rows.words();
        assert_eq!(words.join(" "), "--template ./-t.json --delimiter '\\t'");
        assert!(Rows::default().words().is_empty());
    }

    #[test]
    fn a_delimiter_is_one_character() {
        for (text, byte) in [(";", Some(b';')), ("\\t", Some(b'\t')), ("\t", Some(b'\t')), ("", None), (";;", None)] {
            assert_eq!(delimiter(text).ok(), byte, "{text:?}");
        }
        assert!(delimiter("a").is_err() && delimiter("\"").is_err() && delimiter("é").is_err());
    }
}
