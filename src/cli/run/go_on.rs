//! The command with which a run goes on, where it ended before its work did.

use super::Args;
use crate::cli::table::wrapped;
use crate::cli::words::{about, beginning, option, path};
use crate::cli::{GlobalArgs, enqueue};
use crate::domain::NanoUsd;
use crate::domain::budget::{BudgetStanding, MOST};
use crate::domain::counted::counted;
use crate::printable::on_one_line;
use crate::view::dollars::Dollars;
use std::path::Path;

/// That the stop-loss has paused a batch, and what to type about it.
pub(in crate::cli) fn paused_by_loss(batch: &str, reason: &str, screen: usize) -> String {
    let said = format!(
        "batch {} is paused ({}). `sluice report failures {}` shows what failed; `{}` lets it go on",
        on_one_line(batch),
        on_one_line(reason),
        option("batch", batch),
        about("sluice batch resume", batch, "")
    );
    wrapped(&said, screen).join("\n  ")
}

/// The event that must come before the command goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum GoOn {
    /// Nothing.
    AtOnce,
    /// The batch has to be resumed.
    AfterResume,
    /// What it is stuck at has to be mended.
    OnceMended,
    /// The budget of this name has to be raised, for example to this.
    AfterRaise(String, NanoUsd),
}

/// As much again as the limit was, for a person to look at: the next call has room with that, too. More where the jobs
/// that are left need more, by what those before them have cost, and a tenth beside that.
pub(super) fn enough(standing: &BudgetStanding, needed: Option<NanoUsd>) -> NanoUsd {
    let needed = needed.map_or(0, |needed| needed.0.saturating_add(needed.0 / 10));
    let again = standing.budget.limit.max(standing.least.unwrap_or_default()).max(NanoUsd(needed));
    (standing.used().max(standing.budget.limit) + again).min(MOST)
}

/// The command that goes on with the remaining jobs: the same one, for a file goes on with its batch.
pub(super) fn resume_line(args: &Args, global: &GlobalArgs, batch: &str, left: i64, on: &GoOn) -> String {
    let jobs = counted(left, "job is left and stays", "jobs are left and stay");
    let when = if *on == GoOn::OnceMended { ". When that is mended, go on with" } else { ". Go on with" };
    let raise = match on {
        GoOn::AfterRaise(budget, limit) => {
            format!("{} &&\n  ", about("sluice budget raise", budget, &Dollars(*limit).to_string()))
        }
        _ => String::new(),
    };
    let Some(file) = args.enqueue.file.as_deref().filter(|file| *file != Path::new("-")) else {
        let errors = args.errors.as_deref().map_or_else(String::new, |errors| format!(" --errors {}", path(errors)));
        let results = about("sluice results", batch, &format!("-o {}{errors}", path(&args.output)));
        return format!("stopped: {jobs} queued{when}: {raise}sluice worker --drain\nand then: {results}");
    };
    let mut words = beginning(global);
    let first = |command: String| format!("{} {command} &&\n  ", words.join(" "));
    let resume = match on {
        GoOn::AfterResume => first(about("batch resume", batch, "")),
        GoOn::AfterRaise(budget, limit) => first(about("budget raise", budget, &Dollars(*limit).to_string())),
        GoOn::AtOnce | GoOn::OnceMended => String::new(),
    };
    words.extend(["run".to_owned(), path(file)]);
    // The others are in the batch already, and a file whose lines are all there needs no word about it.
    for (name, value) in [("batch", &args.enqueue.batch), ("route", &args.enqueue.route)] {
        words.extend(value.as_ref().map(|value| option(name, value)));
    }
    words.extend(args.enqueue.project.as_ref().map(|project| option("project", project)));
    if let Some(limit) = args.enqueue.limit {
        words.push(format!("--limit {limit}"));
    }
    if args.enqueue.skip_bad {
        words.push("--skip-bad".to_owned());
    }
    words.extend(args.enqueue.rows.words());
    if args.enqueue.max_line != enqueue::MAX_LINE {
        words.push(format!("--max-line {}", args.enqueue.max_line));
    }
    words.extend(["-o".to_owned(), path(&args.output)]);
    if let Some(errors) = &args.errors {
        words.extend(["--errors".to_owned(), path(errors)]);
    }
    if args.force {
        words.push("--force".to_owned());
    }
    format!("stopped: {jobs} queued{when}:\n  {resume}{}", words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::budget::Budget;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        global: GlobalArgs,
        #[command(flatten)]
        args: Args,
    }

    fn line(words: &[&str]) -> String {
        let command = Command::try_parse_from([&["run"], words].concat()).unwrap();
        resume_line(&command.args, &command.global, "b 1", 3, &GoOn::AtOnce)
    }

    #[test]
    fn the_raise_that_is_proposed_has_room_for_the_next_call_and_for_as_much_again() {
        let standing = |limit, spent, uncertain, least| BudgetStanding {
            budget: Budget::of_batch("b", NanoUsd(limit)),
            ends_at: None,
            spent: NanoUsd(spent),
            uncertain: NanoUsd(uncertain),
            reserved: NanoUsd::ZERO,
            least: Some(NanoUsd(least)),
            least_is_old: false,
        };
        for (standing, needed, expected) in [
            (standing(100, 95, 0, 10), None, 200),
            (standing(100, 100, 0, 10), Some(50), 200),
            // The uncertain amount counts, and the charge of a provider beyond its worst case.
            (standing(100, 90, 30, 10), None, 220),
            // It was lowered, below what the next call may cost.
            (standing(10, 95, 0, 40), None, 135),
            // The rest needs more than that.
            (standing(100, 100, 0, 10), Some(300), 430),
            (standing(MOST.0, MOST.0, 0, 10), None, MOST.0),
        ] {
            let NanoUsd(raised) = enough(&standing, needed.map(NanoUsd));
            assert_eq!(raised, expected, "{standing:?}");
            let after = BudgetStanding { budget: Budget::of_batch("b", NanoUsd(raised)), ..standing };
            assert!(!after.holds() || raised == MOST.0, "{after:?}");
        }
    }

    #[test]
    fn what_is_said_to_go_on_is_the_command_that_does() {
        let said =
            line(&["my file.jsonl", "-o", "out", "--errors", "it's", "--limit", "7", "--skip-bad", "-c", "s.toml"]);
        assert_eq!(
            said,
            "stopped: 3 jobs are left and stay queued. Go on with:\n  sluice --config s.toml run 'my file.jsonl' \
             --limit 7 --skip-bad -o out --errors 'it'\\''s'"
        );
        let paused = Command::try_parse_from(["run", "x", "--batch", "b 1", "-o", "y", "-c", "s.toml"]).unwrap();
        let said = resume_line(&paused.args, &paused.global, "b 1", 3, &GoOn::AfterResume);
        assert!(
            said.ends_with(
                "  sluice --config s.toml batch resume 'b 1' &&\n  sluice --config s.toml run x --batch 'b 1' \
                 -o y"
            ),
            "{said}"
        );
        // The same words, as a shell passes them to the program, are understood.
        let again = ["x.jsonl", "--batch", "b 1", "--resume", "-o", "-", "--force", "--max-line", "64"];
        let said = line(&again);
        assert!(said.ends_with("run x.jsonl --batch 'b 1' --max-line 64 -o - --force"), "{said}");
        assert!(!line(&["x", "-o", "y", "--database-url", "postgres://u:hunter2@h/d"]).contains("hunter2"));
    }

    #[test]
    fn the_command_that_goes_on_is_the_same_one() {
        let said = line(&["x.csv", "--route", "cheap one", "--project", "p", "--id-column", "id", "-o", "y.csv"]);
        assert!(said.ends_with("run x.csv --route 'cheap one' --project p --id-column id -o y.csv"), "{said}");
    }

    #[test]
    fn a_batch_that_its_stop_loss_has_paused_is_told_in_lines_that_fit() {
        let said = paused_by_loss("b 1", "stop-loss: 12 of 20 jobs failed", 80);
        assert!(said.replace("\n  ", " ").contains("`sluice report failures --batch 'b 1'` shows"), "{said}");
        assert!(said.lines().count() > 1 && said.lines().all(|line| line.chars().count() <= 82), "{said}");
    }

    #[test]
    fn standard_input_cannot_be_read_twice() {
        for words in [&["-", "-o", "out"][..], &["-o", "out"]] {
            let said = line(words);
            assert!(said.contains("sluice worker --drain") && said.contains("sluice results 'b 1' -o out"), "{said}");
        }
    }

    #[test]
    fn a_batch_that_is_called_like_an_option_is_named_as_it_is() {
        let told = |words: &[&str]| {
            let command = Command::try_parse_from([&["run"], words].concat()).unwrap();
            resume_line(&command.args, &command.global, "-x", 3, &GoOn::AtOnce)
        };
        assert!(told(&["f", "--batch=-x", "-o", "out"]).ends_with("run f --batch=-x -o out"));
        assert!(told(&["-o", "out"]).ends_with("sluice results -o out -- -x"));
        let again = Command::try_parse_from(["run", "f", "--batch=-x", "--resume", "-o", "out"]).unwrap();
        assert_eq!(again.args.enqueue.batch.as_deref(), Some("-x"));
    }
}
