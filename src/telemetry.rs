//! Log lines: to standard error (which systemd takes to the journal) and, if configured, to daily files.
//!
//! Standard output is for data. Prompts, answers and keys are never logged.

use crate::config::{Log, LogFormat};
use crate::permissions::{Exposed, open_to_others};
use crate::printable::{Notation, Printable, on_one_line};
use chrono::{NaiveDate, Utc};
use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use tracing::Subscriber;
use tracing::field::Field;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_appender::rolling::{InitError, RollingFileAppender, Rotation};
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer, filter};

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The files cannot be written.
    #[error("cannot keep log files in {dir}: {reason}")]
    Files {
        dir: String,
        /// The system's reason.
        reason: String,
    },
    /// Other users may lay links in the folder, which the files would follow.
    #[error("cannot keep log files in a folder of others: {0}; or set [log] dir to another one")]
    Exposed(Exposed),
    /// The filter is wrong (the configuration checks its own, so this is only for filters from elsewhere).
    #[error("not a log filter: {0}")]
    Filter(#[from] filter::ParseError),
    /// Logging was set up before.
    #[error("logging is set up already")]
    Twice(#[from] tracing::subscriber::SetGlobalDefaultError),
}

/// Writes the lines that are still pending to the files when it is dropped: keep it until the end of `main`.
#[must_use = "dropping it ends the log files"]
#[derive(Debug)]
pub struct Guard(#[expect(dead_code, reason = "held for its drop")] Option<WorkerGuard>);

/// Sets up logging for the whole process; once. `is_brief`: lines for people have neither time nor module, because they
/// stand on a terminal among what a command says.
pub fn init(log: &Log, is_brief: bool) -> Result<Guard, TelemetryError> {
    let no_colour = crate::config::process_environment().any(|(name, value)| name == "NO_COLOR" && !value.is_empty());
    let colours = crate::printable::stderr_is_terminal() && !no_colour;
    let (subscriber, guard) =
        subscriber(log, move || crate::printable::progress::stderr_above(is_brief), colours, is_brief)?;
    tracing::subscriber::set_global_default(subscriber)?;
    Ok(guard)
}

/// The subscriber that [`init`] installs, with another destination for standard error.
fn subscriber<W>(
    log: &Log,
    standard_error: W,
    colours: bool,
    is_brief: bool,
) -> Result<(impl Subscriber + Send + Sync + use<W>, Guard), TelemetryError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let files = log.dir.as_ref().map(|_| open_files(log)).transpose()?;
    let (files, guard) = files.unzip();
    let subscriber = tracing_subscriber::registry()
        // Each connection that is made and refused would give a line; the consequence is logged once
        // (store/database.rs).
        .with(EnvFilter::try_new(&log.filter)?.add_directive("sqlx_core::pool=off".parse()?))
        // It writes whole requests, prompts included, regardless of what the filter lets through.
        .with(filter::filter_fn(|line| !line.target().starts_with("aws_sigv4")))
        .with(layer(log.format, standard_error, colours, is_brief))
        .with(files.map(|files| layer(log.format, files, false, false)));
    Ok((subscriber, Guard(guard)))
}

fn layer<S, W>(format: LogFormat, writer: W, colours: bool, is_brief: bool) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    // The process that read our lines may be gone. That must not end a worker, and complaining on standard error, as
    // the crate would, is then a panic.
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(colours).log_internal_errors(false);
    match format {
        LogFormat::Human if is_brief => {
            layer.without_time().with_target(false).fmt_fields(debug_fn(write_field).delimited(" ")).boxed()
        }
        LogFormat::Human => layer.fmt_fields(debug_fn(write_field).delimited(" ")).boxed(),
        // Fields of the event stand beside the message, so that they can be queried without a path.
        LogFormat::Json => layer.map_writer(|writer| InJson(writer)).json().flatten_event(true).boxed(),
    }
}

/// Writes one field of a line for people. Its value may come from anywhere, and must neither steer a terminal nor begin
/// a line of its own.
fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let value = format!("{value:?}");
    let value = on_one_line(&value);
    match field.name().trim_start_matches("r#") {
        "message" => write!(writer, "{value}"),
        name if writer.has_ansi_escapes() => write!(writer, "\u{1b}[3m{name}\u{1b}[0m\u{1b}[2m=\u{1b}[0m{value}"),
        name => write!(writer, "{name}={value}"),
    }
}

/// Writes lines of JSON, with hidden characters in JSON's own escapes.
struct InJson<W>(W);

impl<'w, W: MakeWriter<'w>> MakeWriter<'w> for InJson<W> {
    type Writer = Printable<W::Writer>;

    fn make_writer(&'w self) -> Self::Writer {
        Printable::new(self.0.make_writer(), Notation::Json)
    }
}

const PREFIX: &str = "sluice";
const SUFFIX: &str = "log";

/// Files `sluice.2026-01-31.log`, one per day (UTC), the oldest removed when there are too many.
fn open_files(log: &Log) -> Result<(NonBlocking, WorkerGuard), TelemetryError> {
    let dir = log.dir.as_deref().unwrap_or_else(|| std::path::Path::new("."));
    if let Some(exposed) = std::fs::metadata(dir).ok().and_then(|found| open_to_others(dir, &found)) {
        return Err(TelemetryError::Exposed(exposed));
    }
    let fault = |reason: &InitError| TelemetryError::Files {
        dir: dir.display().to_string(),
        // The crate's own message ends where the reason would begin.
        reason: std::error::Error::source(reason).map_or_else(|| reason.to_string(), ToString::to_string),
    };
    let files = RollingFileAppender::builder()
        .rotation(Rotation::DAILY)
        .filename_prefix(PREFIX)
        .filename_suffix(SUFFIX)
        .build(dir)
        .map_err(|error| fault(&error))?;
    Ok(without_loss(DailyFiles::new(files, dir.to_owned(), log.keep, || Utc::now().date_naive())))
}

/// The daily files. Old ones are removed here and not by the crate: the crate makes room for a file that usually exists
/// already, and takes a file that was copied yesterday for one of yesterday.
struct DailyFiles<W, C> {
    files: W,
    dir: PathBuf,
    keep: usize,
    today: C,
    /// The day for which room was last made.
    tidied: NaiveDate,
}

impl<W: Write, C: Fn() -> NaiveDate> DailyFiles<W, C> {
    fn new(files: W, dir: PathBuf, keep: usize, today: C) -> Self {
        let tidied = today();
        let daily = Self { files, dir, keep, today, tidied };
        daily.tidy();
        daily
    }

    /// Removes all but the newest of the files that bear a day in their name, and touches nothing else.
    fn tidy(&self) {
        // A file that cannot be read or removed is there tomorrow too. The log goes on.
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return };
        let mut days: Vec<(NaiveDate, PathBuf)> = entries
            .filter_map(Result::ok)
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
            .filter_map(|entry| Some((day_of(entry.file_name().to_str()?)?, entry.path())))
            .collect();
        days.sort_unstable();
        for (_, path) in days.iter().rev().skip(self.keep) {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The day of a log file; `None` for other files.
fn day_of(name: &str) -> Option<NaiveDate> {
    let day = name.strip_prefix(PREFIX)?.strip_prefix('.')?.strip_suffix(SUFFIX)?.strip_suffix('.')?;
    NaiveDate::parse_from_str(day, "%Y-%m-%d").ok().filter(|date| date.to_string() == day)
}

impl<W: Write, C: Fn() -> NaiveDate> Write for DailyFiles<W, C> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        // The first line of a day makes its file.
        let written = self.files.write(bytes);
        let today = (self.today)();
        if today != self.tidied {
            self.tidied = today;
            self.tidy();
        }
        written
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.files.flush()
    }
}

/// A writer behind a thread. When the thread falls behind, the logging task waits: the default would drop lines.
fn without_loss(files: impl Write + Send + 'static) -> (NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default().lossy(false).thread_name("sluice-log").finish(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::sync::{Arc, Mutex};

    fn with_dir(dir: &Path) -> Log {
        Log { dir: Some(dir.to_owned()), ..Log::default() }
    }

    /// Runs `act` under the subscriber and returns what went to standard error.
    fn log_while(log: &Log, act: impl FnOnce()) -> String {
        let standard_error = Arc::new(Mutex::new(Vec::new()));
        let (subscriber, guard) = subscriber(log, Mutex::new(Tee(standard_error.clone())), false, false).unwrap();
        tracing::subscriber::with_default(subscriber, act);
        drop(guard);
        let bytes = standard_error.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    struct Tee(Arc<Mutex<Vec<u8>>>);

    impl Write for Tee {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn files_in(dir: &Path) -> Vec<PathBuf> {
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    #[test]
    fn no_line_is_lost_on_the_way_to_the_file() {
        // More than the queue between the two threads holds.
        const LINES: usize = 150_000;
        let dir = tempfile::tempdir().unwrap();
        let standard_error = log_while(&with_dir(dir.path()), || {
            for line in 0..LINES {
                tracing::info!(line, "counted");
            }
        });
        let text: String = files_in(dir.path()).iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
        assert_eq!(text.lines().count(), LINES);
        assert_eq!(standard_error.lines().count(), LINES);
    }

    #[test]
    fn json_lines_hold_the_fields_at_the_top() {
        let log = Log { format: LogFormat::Json, ..Log::default() };
        let line = log_while(&log, || tracing::warn!(job.id = 7, "the breaker is open"));
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["message"], "the breaker is open");
        assert_eq!((&line["level"], &line["job.id"]), (&"WARN".into(), &7.into()));
    }

    #[test]
    fn no_field_steers_a_terminal_or_begins_a_line_of_its_own() {
        let evil = "\u{1b}[2J\u{9b}31m\u{202e}txt\nWARN forged\r\u{200b}";
        for format in [LogFormat::Human, LogFormat::Json] {
            let dir = tempfile::tempdir().unwrap();
            let log = Log { format, ..with_dir(dir.path()) };
            let text = log_while(&log, || {
                tracing::warn!(batch = evil, path = %evil, error = %std::io::Error::other(evil), "of {evil}");
                tracing::warn!(error = &std::io::Error::other(evil) as &dyn std::error::Error, "an error");
            });
            let file: String = files_in(dir.path()).iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
            for text in [text, file] {
                assert_eq!(text.lines().count(), 2, "{text}");
                assert!(!text.chars().any(|c| crate::printable::is_hidden(c) && c != '\n'), "{text:?}");
                assert!(text.contains("forged") && text.contains("txt"), "{text}");
                if format == LogFormat::Json {
                    let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
                    assert_eq!(line["path"], evil, "it means the same");
                }
            }
        }
    }

    #[test]
    fn a_brief_line_is_its_words() {
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (subscriber, _guard) = subscriber(&Log::default(), Mutex::new(Tee(shown.clone())), false, true).unwrap();
        tracing::subscriber::with_default(subscriber, || tracing::warn!(jobs = 3, "took over"));
        assert_eq!(String::from_utf8(shown.lock().unwrap().clone()).unwrap().trim_start(), "WARN took over jobs=3\n");
    }

    #[test]
    fn the_filter_keeps_lines_out() {
        let log = Log { filter: "warn".to_owned(), ..Log::default() };
        let text = log_while(&log, || {
            tracing::info!("quiet");
            tracing::warn!("loud");
        });
        assert!(text.contains("loud") && !text.contains("quiet"), "{text}");
    }

    #[test]
    fn no_filter_shows_what_is_signed() {
        let log = Log { filter: "trace,aws_sigv4::http_request::sign=trace".to_owned(), ..Log::default() };
        let text = log_while(&log, || {
            tracing::trace!(target: "aws_sigv4::http_request::sign", request = "the prompt", "signing request");
            tracing::trace!("of our own");
        });
        assert!(text.contains("of our own") && !text.contains("the prompt"), "{text}");
    }

    fn names_in(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            files_in(dir).iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn as_many_files_are_kept_as_is_said_and_nothing_else_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        // The oldest was copied last.
        for day in [5, 4, 3, 2, 1] {
            std::fs::write(dir.path().join(format!("sluice.2020-01-0{day}.log")), "old").unwrap();
        }
        let others =
            ["sluice.2020-01-01.log.gz", "sluice.log", "sluice.notes.log", "sluice.2020-1-1.log", "thesis.txt"];
        for other in others {
            std::fs::write(dir.path().join(other), "not ours").unwrap();
        }
        std::fs::create_dir(dir.path().join("sluice.2019-12-31.log")).unwrap();
        for _restart in 0..3 {
            log_while(&Log { keep: 3, ..with_dir(dir.path()) }, || tracing::info!("new"));
            let today = format!("sluice.{}.log", Utc::now().date_naive());
            let kept: Vec<String> =
                names_in(dir.path()).into_iter().filter(|name| !others.contains(&name.as_str())).collect();
            assert_eq!(kept, ["sluice.2019-12-31.log", "sluice.2020-01-04.log", "sluice.2020-01-05.log", &today]);
            assert_eq!(names_in(dir.path()).len(), 4 + others.len());
        }
    }

    #[test]
    fn todays_file_outlives_a_restart_also_where_one_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log { keep: 1, ..with_dir(dir.path()) };
        for restart in 1..=3 {
            log_while(&log, || tracing::info!("again"));
            let text: String = files_in(dir.path()).iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
            assert_eq!(text.lines().count(), restart);
        }
    }

    /// As the crate's writer: a file for each day, made with its first line.
    struct PerDay<C>(PathBuf, C);
    impl<C: Fn() -> NaiveDate> Write for PerDay<C> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let path = self.0.join(format!("sluice.{}.log", (self.1)()));
            std::fs::File::options().create(true).append(true).open(path)?.write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_new_day_makes_room_for_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let day = Arc::new(Mutex::new(NaiveDate::from_ymd_opt(2026, 1, 30).unwrap()));
        let (clock, folder) = (Arc::clone(&day), dir.path().to_owned());
        let today = move || *clock.lock().unwrap();
        let mut files = DailyFiles::new(PerDay(folder.clone(), today.clone()), folder, 2, today);
        for _ in 0..4 {
            files.write_all(b"a line\n").unwrap();
            files.write_all(b"another\n").unwrap();
            let mut day = day.lock().unwrap();
            *day = day.succ_opt().unwrap();
        }
        assert_eq!(names_in(dir.path()), ["sluice.2026-02-01.log", "sluice.2026-02-02.log"]);
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let result = subscriber(&with_dir(&file.path().join("logs")), std::io::sink, false, false);
        let error = result.err().unwrap().to_string();
        assert!(error.starts_with("cannot keep log files in ") && error.contains("Not a directory"), "{error}");
    }
}
