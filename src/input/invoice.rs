//! Reading what a provider says of usage and cost: its exports as CSV.
//!
//! Which export it is, is seen from the names of its columns. All of a file is read or none of it: a line that is not
//! understood is a fault.

mod text;

use super::InputSource;
use super::table::bad_quote;
use crate::domain::reconcile::{ALL_MODELS, DaySum, Side};
use chrono::{DateTime, NaiveDate};
use std::fmt;
use text::Text;

/// An export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// OpenAI: tokens by model.
    OpenAiUsage,
    /// OpenAI: money by line item.
    OpenAiCosts,
    /// OpenAI: money by model and type of usage.
    OpenAiLines,
    /// Anthropic: tokens by model.
    AnthropicUsage,
    /// Anthropic: money by model.
    AnthropicCosts,
    /// Columns that the user names.
    Named,
}

impl Kind {
    /// The vendor whose export it is; `None`: anybody's.
    #[must_use]
    pub const fn vendor(self) -> Option<&'static str> {
        match self {
            Self::OpenAiUsage | Self::OpenAiCosts | Self::OpenAiLines => Some("openai"),
            Self::AnthropicUsage | Self::AnthropicCosts => Some("anthropic"),
            Self::Named => None,
        }
    }

    /// What it is called.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OpenAiUsage => "OpenAI's export of usage",
            Self::OpenAiCosts => "OpenAI's export of costs",
            Self::OpenAiLines => "OpenAI's export of costs by model",
            Self::AnthropicUsage => "Anthropic's export of usage",
            Self::AnthropicCosts => "Anthropic's export of costs",
            Self::Named => "a file with named columns",
        }
    }
}

/// The columns of a file that is no vendor's export.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    pub date: Option<String>,
    pub model: Option<String>,
    pub cost: Option<String>,
    pub tokens: Option<String>,
}

impl Columns {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The fault of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvoiceError {
    /// The line, from 1; 0: the file as a whole.
    pub line: u64,
    /// The fault, and the expected form.
    pub reason: String,
}

impl fmt::Display for InvoiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.reason),
            line => write!(f, "{line}: {}", self.reason),
        }
    }
}

impl std::error::Error for InvoiceError {}

/// What an invoice says.
#[derive(Clone, Debug, PartialEq)]
pub struct Invoice {
    pub kind: Kind,
    pub side: Side,
    /// The first and the last day that it speaks of.
    pub days: (NaiveDate, NaiveDate),
}

/// Reads an invoice, compressed or not, in UTF-8 or UTF-16, with commas, semicolons or tabs between its cells. `named`:
/// its columns, where it is no vendor's export.
///
/// # Errors
/// The first fault, with its line.
pub fn read(source: &InputSource, named: &Columns) -> Result<Invoice, InvoiceError> {
    let whole = |reason: String| InvoiceError { line: 0, reason };
    let (file, _) = source.open_bytes().map_err(|error| whole(error.to_string()))?;
    read_text(&Text::read(file)?, named)
}

fn read_text(text: &Text, named: &Columns) -> Result<Invoice, InvoiceError> {
    if text.whole.trim().is_empty() {
        return Err(whole_file("it is empty"));
    }
    // The parser takes all that follows a quote that is never closed for one cell.
    if let Some((line, reason)) = bad_quote(&text.whole, text.delimiter) {
        return Err(InvoiceError { line, reason });
    }
    let mut reader =
        ::csv::ReaderBuilder::new().trim(::csv::Trim::All).delimiter(text.delimiter).from_reader(text.whole.as_bytes());
    let header = reader.headers().map_err(|error| fault_of(&error))?.clone();
    let names: Vec<String> = header.iter().map(|name| name.trim().to_lowercase()).collect();
    let mut layout = Layout::of(&names, named)?;
    layout.may_have_commas = text.delimiter == b';';
    let (mut side, mut days) = (Side::new(), None::<(NaiveDate, NaiveDate)>);
    let mut record = ::csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(|error| fault_of(&error))? {
        let line = record.position().map_or(0, ::csv::Position::line);
        if record.iter().all(str::is_empty) {
            continue;
        }
        let fault = |reason| InvoiceError { line, reason };
        let (day, model, said) = layout.line(&record, line).map_err(fault)?;
        days = Some(days.map_or((day, day), |(first, last)| (first.min(day), last.max(day))));
        side.entry((day.to_string(), model)).or_default().add(&said);
    }
    let days = days.ok_or_else(|| whole_file("it has no line below its header"))?;
    Ok(Invoice { kind: layout.kind, side, days })
}

fn whole_file(reason: impl Into<String>) -> InvoiceError {
    InvoiceError { line: 0, reason: reason.into() }
}

fn fault_of(error: &::csv::Error) -> InvoiceError {
    let line = error.position().map_or(0, ::csv::Position::line);
    let reason = match error.kind() {
        ::csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("has {len} columns, and the header {expected_len}")
        }
        _ => error.to_string(),
    };
    InvoiceError { line, reason }
}

/// Where a file has what.
struct Layout {
    kind: Kind,
    date: usize,
    /// `None`: it tells no models apart.
    model: Option<usize>,
    cost: Option<usize>,
    currency: Option<usize>,
    /// Columns that add up to all tokens.
    tokens: Vec<usize>,
    calls: Option<usize>,
    names: Vec<String>,
    /// Whether a comma in an amount stands before its decimals: spreadsheets that write so put semicolons between
    /// cells.
    may_have_commas: bool,
    /// The mark before decimals, and the first line that has it: `1.234` is a thousand where the others have commas.
    mark: Option<(char, u64)>,
}

const ANTHROPIC_TOKENS: [&str; 5] = [
    "usage_input_tokens_no_cache",
    "usage_input_tokens_cache_write_5m",
    "usage_input_tokens_cache_write_1h",
    "usage_input_tokens_cache_read",
    "usage_output_tokens",
];

impl Layout {
    fn of(names: &[String], named: &Columns) -> Result<Self, InvoiceError> {
        let place = |name: &str| names.iter().position(|column| column == &name.trim().to_lowercase());
        let has = |name: &str| place(name).is_some();
        let whole = |reason: String| whole_file(reason);
        let kind = if !named.is_empty() {
            Kind::Named
        } else if has("usage_input_tokens_no_cache") || (has("model_version") && has("usage_output_tokens")) {
            Kind::AnthropicUsage
        } else if has("token_type") && has("cost_usd") {
            Kind::AnthropicCosts
        } else if has("num_model_requests") {
            Kind::OpenAiUsage
        } else if has("amount_value") {
            Kind::OpenAiCosts
        } else if has("usage_type") && has("cost_usd") && has("model") {
            Kind::OpenAiLines
        } else {
            return Err(whole(format!(
                "these columns are no export that is known ({}): name them with --date, --model, --cost and --tokens",
                shown(names)
            )));
        };
        let needed = |name: &str| {
            place(name).ok_or_else(|| {
                whole(format!("{} has a column {name}, and this file has none: {}", kind.name(), shown(names)))
            })
        };
        let one_of = |choices: &[&str]| match choices.iter().find_map(|name| place(name)) {
            Some(place) => Ok(place),
            None => needed(choices.first().copied().unwrap_or_default()),
        };
        let chosen = |option: &str, name: &Option<String>| match name {
            None => Ok(None),
            Some(name) => place(name)
                .map(Some)
                .ok_or_else(|| whole(format!("there is no column {name:?} ({option}); there are: {}", shown(names)))),
        };
        let mut layout = Self {
            kind,
            date: 0,
            model: None,
            cost: None,
            currency: None,
            tokens: Vec::new(),
            calls: None,
            names: names.to_vec(),
            may_have_commas: false,
            mark: None,
        };
        match kind {
            Kind::AnthropicUsage => {
                layout.date = needed("usage_date_utc")?;
                layout.model = Some(needed("model_version")?);
                layout.tokens = ANTHROPIC_TOKENS.iter().map(|name| needed(name)).collect::<Result<_, _>>()?;
            }
            Kind::AnthropicCosts => {
                layout.date = needed("usage_date_utc")?;
                layout.model = Some(one_of(&["model", "model_version"])?);
                layout.cost = Some(needed("cost_usd")?);
            }
            Kind::OpenAiUsage => {
                layout.date = one_of(&["start_time_iso", "start_time"])?;
                layout.model = Some(needed("model")?);
                layout.tokens = vec![needed("input_tokens")?, needed("output_tokens")?];
                layout.calls = Some(needed("num_model_requests")?);
            }
            Kind::OpenAiCosts => {
                layout.date = one_of(&["start_time_iso", "start_time"])?;
                layout.model = place("line_item");
                layout.cost = Some(needed("amount_value")?);
                layout.currency = Some(needed("amount_currency")?);
            }
            Kind::OpenAiLines => {
                layout.date = needed("usage_date_utc")?;
                layout.model = Some(needed("model")?);
                layout.cost = Some(needed("cost_usd")?);
            }
            Kind::Named => {
                let date = chosen("--date", &named.date)?;
                layout.date = date.ok_or_else(|| whole("--date is missing: which column has the day?".to_owned()))?;
                layout.model = chosen("--model", &named.model)?;
                layout.cost = chosen("--cost", &named.cost)?;
                layout.tokens = chosen("--tokens", &named.tokens)?.into_iter().collect();
                if layout.cost.is_none() && layout.tokens.is_empty() {
                    return Err(whole("--cost or --tokens is missing: there is nothing to compare".to_owned()));
                }
            }
        }
        if let Some(name) = layout.taken().find_map(|index| {
            let name = names.get(index)?;
            (names.iter().filter(|other| *other == name).count() > 1).then_some(name)
        }) {
            return Err(whole(format!("it has two columns named {name}; rename the one that is not meant")));
        }
        Ok(layout)
    }

    /// The columns that are read.
    fn taken(&self) -> impl Iterator<Item = usize> {
        let single = [Some(self.date), self.model, self.cost, self.currency, self.calls];
        single.into_iter().flatten().chain(self.tokens.iter().copied())
    }

    /// The day, the model and the sums of that line.
    fn line(&mut self, record: &::csv::StringRecord, line: u64) -> Result<(NaiveDate, String, DaySum), String> {
        let cell = |index: usize| record.get(index).unwrap_or_default();
        let cost = self.cost.map(|index| self.amount(cell(index), index, line)).transpose()?;
        let name = |index: usize| self.names.get(index).map_or("", String::as_str);
        let day = day(cell(self.date)).ok_or_else(|| {
            format!("{} is {:?}; expected a day such as 2026-08-05", name(self.date), short(cell(self.date)))
        })?;
        if let Some(index) = self.currency
            && !cell(index).eq_ignore_ascii_case("usd")
        {
            return Err(format!("{} is {:?}; expected usd", name(index), short(cell(index))));
        }
        let model = match self.model.map(cell) {
            None => ALL_MODELS.to_owned(),
            // A line item such as "gpt-4o-2024-08-06, input".
            Some(item) if self.kind == Kind::OpenAiCosts => item.split(',').next().unwrap_or(item).trim().to_owned(),
            Some(model) => model.to_owned(),
        };
        if model.is_empty() {
            return Err(format!("{} is empty; expected a model", self.model.map_or("", name)));
        }
        let mut tokens = None;
        // Exports leave cells empty for kinds of tokens that there were none of.
        for &index in self.tokens.iter().filter(|index| !cell(**index).is_empty()) {
            let count = whole(cell(index)).ok_or_else(|| {
                format!("{} is {:?}; expected a whole number of tokens", name(index), short(cell(index)))
            })?;
            tokens = Some(tokens.unwrap_or(0_i128).saturating_add(count));
        }
        if let (None, Some(&index)) = (tokens, self.tokens.first()) {
            return Err(format!("{} is empty; expected a whole number of tokens (0: none)", name(index)));
        }
        let calls = self.calls.filter(|index| !cell(*index).is_empty()).map(|index| {
            whole(cell(index))
                .and_then(|calls| i64::try_from(calls).ok())
                .ok_or_else(|| format!("{} is {:?}; expected a whole number of calls", name(index), short(cell(index))))
        });
        let said = DaySum { cost, tokens, calls: calls.transpose()?, ..DaySum::default() };
        Ok((day, model, said))
    }

    /// An amount of money in nano-dollars.
    fn amount(&mut self, text: &str, index: usize, line: u64) -> Result<i128, String> {
        let name = self.names.get(index).map_or("", String::as_str);
        if text.is_empty() {
            return Err(format!("{name} is empty; expected dollars such as 12.34 (0: nothing)"));
        }
        let mark = ['.', ','].into_iter().find(|mark| text.contains(*mark));
        if let Some(mark) = mark.filter(|mark| self.may_have_commas || *mark == '.') {
            let (usual, since) = *self.mark.get_or_insert((mark, line));
            if mark != usual {
                return Err(format!(
                    "{name} is {:?}, and amounts from line {since} on have {usual:?} before their decimals; expected \
                     one form in all lines",
                    short(text)
                ));
            }
        }
        let plain = if self.may_have_commas { text.replacen(',', ".", 1) } else { text.to_owned() };
        nanos(&plain).ok_or_else(|| format!("{name} is {:?}; expected dollars such as 12.34", short(text)))
    }
}

/// The names of the columns, as many as a line takes.
fn shown(names: &[String]) -> String {
    const MOST: usize = 12;
    let some: Vec<String> = names.iter().take(MOST).map(|name| short(name)).collect();
    let more = if names.len() > MOST { ", …" } else { "" };
    format!("{}{more}", some.join(", "))
}

fn short(text: &str) -> String {
    text.chars().take(40).collect()
}

/// A day, an instant, or the time since 1970 in seconds, or in thousandths, millionths or billionths of them.
fn day(text: &str) -> Option<NaiveDate> {
    if let Ok(day) = text.parse::<NaiveDate>() {
        return Some(day);
    }
    if let Ok(since) = text.strip_suffix(".0").unwrap_or(text).parse::<i64>() {
        // Each form has days from 1973 to 5138 for itself; smaller numbers are days such as 20260805.
        let seconds = match since {
            ..=100_000_000 => return None,
            100_000_001..100_000_000_000 => since,
            100_000_000_000..100_000_000_000_000 => since / 1_000,
            100_000_000_000_000..100_000_000_000_000_000 => since / 1_000_000,
            _ => since / 1_000_000_000,
        };
        return DateTime::from_timestamp(seconds, 0).map(|at| at.date_naive());
    }
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Some(at.to_utc().date_naive());
    }
    // "2026-08-05 00:00" and "2026-08-05T00:00:00" are of UTC, as all exports are.
    let (date, rest) = text.split_at_checked(10)?;
    let is_time = rest.starts_with([' ', 'T']) && rest.len() <= 30 && rest.contains(':');
    date.parse().ok().filter(|_| is_time)
}

/// A whole number.
fn whole(text: &str) -> Option<i128> {
    let text = text.strip_suffix(".0").unwrap_or(text);
    let is_digits = !text.is_empty() && text.len() <= 18 && text.bytes().all(|byte| byte.is_ascii_digit());
    is_digits.then(|| text.parse().ok())?
}

/// Dollars as nano-dollars, rounded half up: `12.34`, `$12.34`, `1.2e-05`, `-0.5` (a credit).
fn nanos(text: &str) -> Option<i128> {
    let text = text.trim();
    let (sign, text) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text),
    };
    let text = text.strip_prefix('$').unwrap_or(text);
    let (digits, exponent) = match text.split_once(['e', 'E']) {
        Some((digits, exponent)) => (digits, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all = format!("{whole}{fraction}");
    if all.is_empty() || all.len() > 30 || !all.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: i128 = all.parse().ok()?;
    let shift = 9_i32.checked_add(exponent)?.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    let power = |places: u32| 10_i128.checked_pow(places);
    let nanos = match u32::try_from(shift) {
        Ok(places) => number.checked_mul(power(places)?)?,
        Err(_) => match power(shift.unsigned_abs()) {
            Some(divisor) => number.checked_add(divisor / 2)? / divisor,
            None => 0,
        },
    };
    (nanos <= 1_000_000_000_000_000_000_000).then_some(sign * nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_bytes(bytes: &[u8], named: &Columns) -> Result<Invoice, InvoiceError> {
        super::read_text(&Text::read(bytes)?, named)
    }

    fn read_text(text: &str) -> Result<Invoice, InvoiceError> {
        read_bytes(text.as_bytes(), &Columns::default())
    }

    #[test]
    fn amounts_of_money_are_read_to_the_nano_dollar() {
        for (text, expected) in [
            ("12.34", Some(12_340_000_000)),
            ("$0.000000001", Some(1)),
            ("1.25e-05", Some(12_500)),
            ("0.0000000005", Some(1)),
            ("0.00000000049", Some(0)),
            ("-0.5", Some(-500_000_000)),
            ("", None),
            ("1e-40", Some(0)),
            ("12,34", None),
            ("1.2.3", None),
            ("12 EUR", None),
            ("1e99", None),
            ("NaN", None),
        ] {
            assert_eq!(nanos(text), expected, "{text}");
        }
    }

    #[test]
    fn days_are_read_in_the_forms_of_exports() {
        let expected = NaiveDate::from_ymd_opt(2026, 8, 5);
        for text in [
            "2026-08-05",
            "2026-08-05T00:00:00+00:00",
            "2026-08-05T23:59:59Z",
            "2026-08-05 13:00",
            "2026-08-06T01:00:00+02:00",
            "1785888000",
            "1785888000.0",
            "1785888000123",
            "1785888000123456",
            "1785888000123456789",
        ] {
            assert_eq!(day(text), expected, "{text}");
        }
        for text in ["", "05.08.2026", "2026-13-01", "20260805", "2026-08-05x", "yesterday"] {
            assert_eq!(day(text), None, "{text}");
        }
    }

    #[test]
    fn the_exports_of_both_vendors_are_known_by_their_columns() {
        let anthropic = "usage_date_utc,model_version,api_key,workspace,usage_type,context_window,\
            usage_input_tokens_no_cache,usage_input_tokens_cache_write_5m,usage_input_tokens_cache_write_1h,\
            usage_input_tokens_cache_read,usage_output_tokens,web_search_count,inference_geo,speed\n\
            2026-08-05,claude-opus-5,Key,Default,standard,≤ 200k,46981,15969,7,5,16932,0,global,\n\
            2026-08-05,claude-opus-5,Key,Default,standard,≤ 200k,1,,,,2,0,global,\n";
        let costs = "usage_date_utc,model,workspace,api_key,usage_type,context_window,token_type,cost_usd,\
            list_price_usd,cost_type\n2026-08-04,Claude Haiku 4.5,Default,k,message,≤ 200k,input_no_cache,0.05,0.05,\
            token\n2026-08-04,Claude Haiku 4.5,Default,k,message,≤ 200k,output,0.02,0.02,token\n";
        let openai = "start_time,end_time,start_time_iso,end_time_iso,project_id,num_model_requests,user_id,\
            api_key_id,model,batch,input_tokens,output_tokens,input_cached_tokens\n\
            1785888000,1785974400,2026-08-05T00:00:00+00:00,2026-08-06T00:00:00+00:00,p,3,,,gpt-4o-mini-2024-07-18,\
            False,100,20,50\n";
        let amounts = "start_time_iso,amount_value,amount_currency,line_item\n\
            2026-08-05T00:00:00+00:00,0.06,usd,\"gpt-4o-2024-08-06, input\"\n\
            2026-08-05T00:00:00+00:00,0.03,usd,\"gpt-4o-2024-08-06, output\"\n";
        for (text, kind, model, cost, tokens) in [
            (anthropic, Kind::AnthropicUsage, "claude-opus-5", None, Some(46_981 + 15_969 + 7 + 5 + 16_932 + 3)),
            (costs, Kind::AnthropicCosts, "Claude Haiku 4.5", Some(70_000_000), None),
            (openai, Kind::OpenAiUsage, "gpt-4o-mini-2024-07-18", None, Some(120)),
            (amounts, Kind::OpenAiCosts, "gpt-4o-2024-08-06", Some(90_000_000), None),
        ] {
            let found = read_text(text).unwrap();
            let said: Vec<_> =
                found.side.iter().map(|((_, model), said)| (model.as_str(), said.cost, said.tokens)).collect();
            assert_eq!((found.kind, said.as_slice()), (kind, [(model, cost, tokens)].as_slice()));
        }
    }

    #[test]
    fn every_fault_names_its_line_and_what_was_expected() {
        let usage = "usage_date_utc,model_version,usage_input_tokens_no_cache,usage_input_tokens_cache_write_5m,\
                     usage_input_tokens_cache_write_1h,usage_input_tokens_cache_read,usage_output_tokens\n";
        for (text, line, words) in [
            ("a,b,c\n1,2,3\n".to_owned(), 0, "no export that is known (a, b, c): name them with --date"),
            ("model_version,usage_output_tokens\nm,1\n".to_owned(), 0, "has a column usage_date_utc, and this file"),
            (format!("{usage}2026-08-05,m,x,0,0,0,1\n"), 2, "usage_input_tokens_no_cache is \"x\"; expected a whole"),
            (format!("{usage}2026-08-05,m,1,0,0,0,1\nsoon,m,1,0,0,0,1\n"), 3, "expected a day such as"),
            (format!("{usage}2026-08-05,,1,0,0,0,1\n"), 2, "model_version is empty"),
            (
                format!("{usage}2026-08-05,m,1,0,0,0,\"1\n2026-08-06,m,1,0,0,0,1\n"),
                2,
                "that opens here is never closed",
            ),
            (format!("{usage}2026-08-05,m,1,0,0,0,1\n2026-08-06,\"m"), 3, "that opens here is never closed"),
            (format!("{usage}2026-08-05,\"m\"x,1,0,0,0,1\n"), 2, "closes before more text"),
            (format!("{usage}2026-08-05,m,1\n"), 2, "has 3 columns, and the header 7"),
            (format!("{usage}2026-08-05,m,-1,0,0,0,1\n"), 2, "is \"-1\""),
            (usage.to_owned(), 0, "no line below its header"),
            ("start_time_iso,amount_value,amount_currency\n2026-08-05,1,eur\n".to_owned(), 2, "expected usd"),
            ("start_time_iso,amount_value,amount_currency\n2026-08-05,1 EUR,usd\n".to_owned(), 2, "expected dollars"),
        ] {
            let error = read_text(&text).unwrap_err();
            assert_eq!(error.line, line, "{error}");
            assert!(error.to_string().contains(words), "{error}");
        }
        let named = Columns { date: Some("Day".to_owned()), cost: Some("spent".to_owned()), ..Columns::default() };
        let error = read_bytes(b"day,price\n2026-08-05,1\n", &named).unwrap_err();
        assert!(error.reason.contains("no column \"spent\" (--cost); there are: day, price"), "{error}");
        let error = read_bytes(b"day\n", &Columns { cost: None, ..named.clone() }).unwrap_err();
        assert!(error.reason.contains("--cost or --tokens is missing"), "{error}");
        let found = read_bytes(b"day,spent\n2026-08-05,1.5\n", &named).unwrap();
        assert_eq!(found.side.keys().next().unwrap().1, ALL_MODELS);
        let error = read_bytes(b"day,spent,spent\n2026-08-05,1,2\n", &named).unwrap_err();
        assert!(error.reason.contains("two columns named spent"), "{error}");
    }

    #[test]
    fn what_is_left_empty_is_not_nothing() {
        let usage = "start_time_iso,model,num_model_requests,input_tokens,output_tokens\n";
        for (text, line, words) in [
            (
                "start_time_iso,amount_value,amount_currency\n2026-08-05,1,usd\n2026-08-05,,usd\n".to_owned(),
                3,
                "amount_value is empty; expected dollars such as 12.34",
            ),
            (format!("{usage}2026-08-05,m,1,5,\n2026-08-05,m,1,,\n"), 3, "input_tokens is empty; expected a whole"),
        ] {
            let error = read_text(&text).unwrap_err();
            assert!(error.line == line && error.reason.contains(words), "{error}");
        }
        let found = read_text(&format!("{usage}2026-08-05,m,,5,\n")).unwrap();
        let said = found.side.values().next().unwrap();
        assert_eq!((said.tokens, said.calls), (Some(5), None), "no output, and calls that it does not tell");
    }

    #[test]
    fn spreadsheets_that_write_decimal_commas_are_read_as_they_mean_it() {
        let named = Columns { date: Some("Tag".to_owned()), cost: Some("Größe".to_owned()), ..Columns::default() };
        let found = read_bytes("Tag;Größe\n2026-08-05;1,25\n2026-08-05;0,75\n".as_bytes(), &named).unwrap();
        assert_eq!(found.side.values().next().unwrap().cost, Some(2_000_000_000));
        for (text, words) in [
            ("Tag;Größe\n2026-08-05;1,25\n2026-08-05;1.234\n", "amounts from line 2 on have ',' before"),
            ("Tag;Größe\n2026-08-05;1.234,25\n", "expected dollars such as 12.34"),
            ("Tag,Größe\n2026-08-05,\"1,25\"\n", "expected dollars such as 12.34"),
        ] {
            let error = read_bytes(text.as_bytes(), &named).unwrap_err();
            assert!(error.reason.contains(words), "{error}");
        }
    }
}
