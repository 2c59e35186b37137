//! The batch that a file goes into, and the messages about one that exists.

use super::{Again, Args};
use crate::cli::batch::alike;
use crate::cli::failure::CommandFailure;
use crate::cli::output::for_stderr;
use crate::cli::words::about;
use crate::domain::counted::counted;
use crate::input::HeldBy;
use crate::printable::on_one_line;
use crate::store::Store;
use crate::store::enqueue::{Admission, BatchSoFar, BulkEnqueue, BulkOptions, Enqueued, Opened, Replaced};
use std::io::Write;
use std::path::Path;

/// How many names are tried for a batch that was given none.
const NAMES: u32 = 100;

/// The way in which a file may go into its batch.
pub(super) struct Entry {
    admission: Admission,
    /// Whether the name was made up here, so that another one will do as well.
    is_made_up: bool,
}

/// A batch that takes a file.
pub(super) struct Entered {
    pub bulk: Box<BulkEnqueue>,
    /// The batch as it was, if it had jobs before.
    pub before: Option<BatchSoFar>,
    /// Whether it may get further jobs: it is new, or the arguments say so. Otherwise it takes the file only if it has
    /// every line of it.
    pub may_grow: bool,
}

impl Entry {
    /// The entry that the arguments ask for. Without a word about it, a batch that exists goes on. Its jobs supply the
    /// route and project that the arguments leave open. `is_made_up`: the batch's name is, so that another will do.
    pub(super) async fn of(
        args: &Args,
        is_made_up: bool,
        store: &Store,
        options: &mut BulkOptions,
    ) -> anyhow::Result<Self> {
        let goes_on = !args.again.append && !is_made_up;
        let admission = match (is_made_up, args.again.append) {
            (true, _) => Admission::New,
            (false, true) => Admission::Append,
            (false, false) if args.again.replace => Admission::Replace { wait: false },
            (false, false) => Admission::Resume { wait: false },
        };
        if let Some(batch) = options.batch.as_deref().filter(|_| goes_on) {
            let so_far = store.batch_so_far(batch).await?;
            options.route = inherited(batch, args.route.as_deref(), &so_far.routes, "route", &options.route)?;
            options.project = inherited(batch, args.project.as_deref(), &so_far.projects, "project", &options.project)?;
            // With keys, the schema itself recognises them.
            if so_far.of_others && !args.again.idempotent {
                let batch = on_one_line(batch);
                return Err(CommandFailure::usage(format!(
                    "batch {batch} has jobs of other logins, which this one may not see, so its lines cannot be told \
                     from those that are new; nothing was enqueued. Use their login, or one with the role \
                     sluice_worker, or choose another --batch"
                ))
                .into());
            }
        }
        Ok(Self { admission, is_made_up })
    }

    /// Opens the batch.
    pub(super) async fn open(
        mut self,
        args: &Args,
        store: &Store,
        options: &mut BulkOptions,
        told: &mut (dyn Write + Send),
    ) -> anyhow::Result<Entered> {
        let name = options.batch.clone().unwrap_or_default();
        for number in 2.. {
            match store.enqueue_into(options.clone(), self.admission).await? {
                // No line is in it yet; the begun transaction is rolled back.
                Opened::Open { before: None, .. } if args.again.resume || args.again.replace => {
                    return Err(no_such(&name, store).await?.into());
                }
                Opened::Open { bulk, before, replaced } => {
                    let Again { resume, append, idempotent, replace } = args.again;
                    let is_told = resume || append || idempotent || replace;
                    if let Some(replaced) = replaced {
                        // When standard error is gone, the command goes on all the same.
                        let words = in_words(&name, replaced, args.file.as_deref());
                        let _ = writeln!(told, "{}", for_stderr(&words));
                    }
                    return Ok(Entered { bulk, may_grow: is_told || before.is_none(), before });
                }
                // Two inputs without a name within a second.
                Opened::Exists(_) | Opened::Busy if self.is_made_up && number <= NAMES => {
                    options.batch = Some(format!("{name}-{number}"));
                }
                Opened::Busy
                    if matches!(
                        self.admission,
                        Admission::Resume { wait: false } | Admission::Replace { wait: false }
                    ) =>
                {
                    // When standard error is gone, the command waits all the same.
                    let _ = writeln!(told, "another command is enqueueing into batch {name}: waiting for it");
                    self.admission = if args.again.replace {
                        Admission::Replace { wait: true }
                    } else {
                        Admission::Resume { wait: true }
                    };
                }
                Opened::Busy | Opened::Exists(_) => break,
                Opened::Lost(so_far, lost) => {
                    return Err(CommandFailure::usage(format!(
                        "of the {} of batch {name} {} no longer kept, because [retention] has dropped them. Their \
                         lines cannot be told from those that are new; nothing was enqueued. Choose another --batch, \
                         or --append with a file of the missing lines",
                        counted(so_far.jobs, "job", "jobs"),
                        counted(lost, "is", "are")
                    ))
                    .into());
                }
            }
        }
        anyhow::bail!("no name is left for the batch")
    }
}

/// The effect on a batch of a file that takes the place of its waiting jobs, told before it happens.
fn in_words(batch: &str, replaced: Replaced, file: Option<&Path>) -> String {
    let Replaced { cancelled, begun, ended } = replaced;
    let file = file.map_or_else(|| "the input".to_owned(), |file| file.display().to_string());
    let (batch, file) = (on_one_line(batch), on_one_line(&file));
    format!(
        "--replace: of batch {batch}, {} and {} cancelled together with the enqueue of {file}; {}, and {}",
        counted(cancelled, "job waits", "jobs wait"),
        if cancelled == 1 { "is" } else { "are" },
        counted(begun, "has begun and goes on", "have begun and go on"),
        counted(ended, "has ended and stays", "have ended and stay")
    )
}

/// A batch's own route or project. It is a failure to ask for another one, since the jobs cannot change it.
fn inherited(
    batch: &str,
    asked: Option<&str>,
    there: &[String],
    what: &str,
    usual: &str,
) -> Result<String, CommandFailure> {
    let (shown, listed) = (on_one_line(batch), there.join(", "));
    let listed = on_one_line(&listed);
    match (asked, there) {
        (None, []) => Ok(usual.to_owned()),
        (None, [only]) => Ok(only.clone()),
        (None, _) => Err(CommandFailure::usage(format!(
            "batch {shown} has jobs of more than one {what} ({listed}): say with --{what} which one new lines get"
        ))),
        (Some(asked), there) if there.is_empty() || there.iter().any(|name| name == asked) => Ok(asked.to_owned()),
        (Some(asked), _) => Err(CommandFailure::usage(format!(
            "batch {shown} uses the {what} {listed}, and a job's {what} never changes; nothing was enqueued. Leave out \
             --{what} {asked} to continue the batch. To use {asked}, cancel the remaining jobs (`{}`) and choose \
             another --batch",
            about("sluice batch cancel", batch, ""),
            asked = on_one_line(asked)
        ))),
    }
}

/// The failure when there is no batch to go on with: a typing error in the name would buy the whole file again.
async fn no_such(batch: &str, store: &Store) -> anyhow::Result<CommandFailure> {
    let hint = match alike(store, batch).await {
        Ok(hint) => hint.map_or_else(String::new, |hint| format!(" ({hint})")),
        // A login that may only enqueue may not look.
        Err(error) if error.is_denied() => String::new(),
        Err(error) => return Err(error.into()),
    };
    Ok(CommandFailure::not_found(format!(
        "there is no batch {batch:?} to go on with{hint}; nothing was enqueued. Correct --batch; to begin a batch of \
         this name, leave out --resume or --replace"
    )))
}

/// The failure when a batch of this name exists and does not have the file as it is, and the arguments do not say what
/// to do then. `enqueued` is what the batch made of the file.
pub(super) fn differs(
    batch: &str,
    so_far: &BatchSoFar,
    enqueued: &Enqueued,
    unit: HeldBy,
    args: &Args,
) -> CommandFailure {
    let (one, many) = unit.words();
    let file = args.file.as_deref().map_or_else(|| "the input".to_owned(), |file| file.display().to_string());
    let (batch, file) = (on_one_line(batch), on_one_line(&file));
    let other = match (&enqueued.changed, enqueued.jobs) {
        (Some(custom_id), _) => format!("another request under the custom_id `{}`", on_one_line(custom_id)),
        (None, jobs) => format!("{} that it does not have", counted(jobs, one, many)),
    };
    CommandFailure::usage(format!(
        "batch {batch} exists already ({}, of which {} ended), and {file} has {other}; nothing was enqueued. \
         Choose one:\n  \
         --resume      add the {many} that it does not have; those that it has stay as they are\n  \
         --append      add every {one} of {file} once more, and pay for it once more\n  \
         --replace     cancel its jobs that wait, and add the {many} that it then does not have\n  \
         --batch NAME  keep them apart",
        counted(so_far.jobs, "job", "jobs"),
        counted(so_far.ended, "has", "have")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_says_what_was_left_open_and_is_not_contradicted() {
        let [cheap, dear] = ["cheap", "dear"].map(str::to_owned);
        let of = |asked: Option<&str>, there: &[String]| {
            inherited("b", asked, there, "route", "default").map_err(|failure| failure.to_string())
        };
        let one = std::slice::from_ref(&cheap);
        assert_eq!(of(None, &[]).unwrap(), "default");
        assert_eq!(of(Some("dear"), &[]).unwrap(), "dear");
        assert_eq!(of(None, one).unwrap(), "cheap");
        assert_eq!(of(Some("cheap"), one).unwrap(), "cheap");
        assert!(of(Some("dear"), one).unwrap_err().contains("never changes"));
        let both = [cheap, dear];
        assert_eq!(of(Some("dear"), &both).unwrap(), "dear");
        assert!(of(None, &both).unwrap_err().contains("more than one route (cheap, dear)"));
    }
}
