//! `config/sluice.toml`: every key with its default or an example, as comments that change nothing.

use super::{list, own_section, prose, shown, wrapped};
use crate::config::keys::{Default, Key, ROOT, SampleStyle, Table};

const WIDTH: usize = 120;
/// The column where remarks after settings begin.
const REMARKS: usize = 44;

const HEAD: &str = "\
#:schema ./sluice.schema.json
# The line above tells editors where a schema of this file is: `sluice config schema > sluice.schema.json` writes it.
#
# The configuration of Sluice, complete. Every line that is commented out shows the default or an example: this file
# as it stands changes nothing. `sluice check` reads it and names every fault at once.
#
# Looked for at --config, $SLUICE_CONFIG, ./sluice.toml, ./config/sluice.toml, /etc/sluice/sluice.toml, in this order.
# A running worker reads it again at SIGHUP (systemctl reload sluice).
#
# Variables go over the file: SLUICE__WORKER__MAX_IN_FLIGHT=100 is [worker] max_in_flight = 100. Lists are written
# with commas between. DATABASE_URL is [database] url.
#
# Durations are texts such as \"90s\", \"10m\", \"1h 30m\". Money is a text too: dollars with up to 9 decimals. Names of
# providers, buckets and routes are of a to z, 0 to 9 and _. Paths are relative to this file.
";

/// The sample file.
#[must_use]
pub fn sample() -> String {
    let mut file = HEAD.to_owned();
    for key in ROOT.all_keys() {
        if let Some(table) = own_section(key) {
            write_section(&mut file, table);
        }
    }
    file
}

fn write_section(file: &mut String, table: &'static Table) {
    file.push('\n');
    let header = table.header.unwrap_or_default();
    if table.is_on {
        push(file, header);
    }
    for paragraph in prose(table).split('\n').filter(|_| !table.doc.is_empty()) {
        for line in wrapped(paragraph, WIDTH - 4) {
            // A section that is switched off is a comment; text about it is a comment within that comment.
            let mark = if table.is_on { "#" } else { "# #" };
            push(file, format!("{mark} {line}").trim_end());
        }
    }
    if !table.is_on {
        push(file, &format!("# {header}"));
    }
    match table.sample {
        SampleStyle::Text(text) => push_commented(file, text),
        SampleStyle::EachKey => table.all_keys().for_each(|key| write_key(file, key)),
    }
    for key in table.all_keys() {
        if let Some(below) = own_section(key) {
            write_section(file, below);
        }
    }
    if !table.more.is_empty() {
        file.push('\n');
        push_commented(file, table.more);
    }
}

fn write_key(file: &mut String, key: &Key) {
    let Some(value) = shown(key).filter(|_| own_section(key).is_none()) else { return };
    let mark = if key.is_alternative { "# # " } else { "# " };
    let setting = match key.default {
        Default::Texts(texts) => {
            let names = list(&texts());
            let lines = wrapped(names.trim_matches(['[', ']']), WIDTH - 6);
            let last = lines.len() - 1;
            let lines: Vec<String> = lines
                .iter()
                .enumerate()
                .map(|(index, line)| format!("    {line}{}", if index == last { "," } else { "" }))
                .collect();
            format!("{} = [\n{}\n]", key.name, lines.join("\n"))
        }
        _ => format!("{} = {value}", key.name),
    };
    let remark = match key.default {
        Default::Depends(default) => format!("{} Default: {}.", key.doc, default.replace('`', "")),
        _ => key.doc.to_owned(),
    };
    let is_short = !setting.contains('\n') && mark.len() + setting.len() + 2 <= REMARKS;
    let lines = wrapped(&remark, WIDTH - REMARKS - 2);
    if is_short && lines.len() <= 3 {
        let mut lines = lines.into_iter();
        let first = format!("{mark}{setting}");
        push(file, &format!("{first:<REMARKS$}# {}", lines.next().unwrap_or_default()));
        lines.for_each(|line| push(file, &format!("{:<REMARKS$}# {line}", "")));
    } else {
        for line in wrapped(&remark, WIDTH - 4) {
            push(file, &format!("# # {line}"));
        }
        for line in setting.lines() {
            push(file, &format!("{mark}{line}"));
        }
    }
}

fn push_commented(file: &mut String, text: &str) {
    text.lines().for_each(|line| push(file, format!("# {line}").trim_end_matches(['#', ' '])));
}

fn push(file: &mut String, line: &str) {
    file.push_str(line);
    file.push('\n');
}
