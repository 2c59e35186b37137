//! What the documentation tells a user to type is what the program takes, and the pages that one follows line by line
//! lead where they say.

use crate::moving::empty;
use crate::support::page::Page;
use crate::support::postgres::database;
use crate::support::program::{Program, ended, json_lines, text};
use clap::Parser as _;
use clap::error::ErrorKind;
use sluice::cli::Cli;
use sluice::simulate::{Scenario, Simulator};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

/// The commands in a text for a shell, each as its words; substitutions and variables stay as they are written.
fn commands(text: &str) -> Vec<Vec<String>> {
    let text = text.replace("\\\n", " ");
    let mut commands = Vec::new();
    for line in text.lines() {
        let line = line.trim_start_matches("$ ").trim();
        let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
        let mut letters = line.chars().peekable();
        let mut end = |words: &mut Vec<String>, word: &mut Option<String>| {
            words.extend(word.take());
            commands.push(std::mem::take(words));
        };
        let mut depth = 0;
        while let Some(letter) = letters.next() {
            match (letter, quote) {
                (letter, Some(open)) if letter == open => quote = None,
                (letter, Some(_)) => word.get_or_insert_default().push(letter),
                ('\'' | '"', None) => {
                    quote = Some(letter);
                    word.get_or_insert_default();
                }
                ('(' | ')', None) => {
                    depth += if letter == '(' { 1 } else { -1 };
                    word.get_or_insert_default().push(letter);
                }
                _ if depth > 0 => word.get_or_insert_default().push(letter),
                // A remark, or the rest is a file.
                ('#' | '>' | '<', None) if word.is_none() => break,
                (' ', None) => words.extend(word.take()),
                ('|' | ';' | '&', None) => {
                    letters.next_if(|next| *next == letter);
                    end(&mut words, &mut word);
                }
                (letter, None) => word.get_or_insert_default().push(letter),
            }
        }
        end(&mut words, &mut word);
    }
    commands
}

/// The arguments of those that are of the program: behind the variables and other words before it.
fn of_sluice(commands: Vec<Vec<String>>) -> impl Iterator<Item = Vec<String>> {
    commands.into_iter().filter_map(|words| {
        let at = words.iter().position(|word| word == "sluice")?;
        // Cron's five fields, or variables.
        let is_before = |word: &String| word.contains('=') || word.chars().all(|c| "0123456789*/,-".contains(c));
        words[..at].iter().all(is_before).then(|| words[at..].to_vec())
    })
}

/// The word with a value where one is to be put in.
fn filled_in(word: &str) -> String {
    let is_name = |word: &str| word.len() > 1 && word.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    match word {
        "ID" | "N" | "NUMBER" | "JOB" => "7".to_owned(),
        "AMOUNT" => "5".to_owned(),
        "SHARE" => "0.05".to_owned(),
        word if is_name(word) => word.to_ascii_lowercase(),
        word => word.replace('…', "x"),
    }
}

#[test]
fn every_command_that_the_documentation_shows_is_one() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for path in Page::all() {
        let page = Page::at(&path);
        let shells =
            page.every_block().into_iter().filter(|block| ["", "console", "sh", "bash"].contains(&block.language));
        let shells = shells.map(|block| block.text.to_owned());
        // Within a line of prose, and over its end.
        let mut prose = page.text().to_owned();
        for block in page.every_block() {
            prose = prose.replacen(block.text, "", 1);
        }
        let prose = prose.replace("```", "");
        let in_prose =
            prose.split('`').skip(1).step_by(2).map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "));
        // One that ends with an ellipsis is not a whole command.
        let in_prose = in_prose.filter(|part| part.starts_with("sluice ") && !part.ends_with('…'));
        let in_prose = in_prose.collect::<Vec<_>>();
        for text in shells.chain(in_prose) {
            for words in of_sluice(commands(&text)) {
                count += 1;
                let words: Vec<String> = words.iter().map(|word| filled_in(word)).collect();
                let Err(fault) = Cli::try_parse_from(&words) else { continue };
                let is_shortened = [
                    ErrorKind::MissingRequiredArgument,
                    ErrorKind::DisplayHelp,
                    ErrorKind::DisplayVersion,
                    ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand,
                    ErrorKind::MissingSubcommand,
                ];
                if !is_shortened.contains(&fault.kind()) {
                    wrong.push(format!("{path}: {}: {}", words.join(" "), fault.to_string().lines().next().unwrap()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(count > 250, "{count}");
}

#[test]
fn commands_are_found_in_a_text_for_a_shell() {
    let found: Vec<_> = of_sluice(commands(
        "$ sluice run a.csv --prompt 'Good or \"bad\"? {text}' \\\n  -o out   # the answers\nA=1 sluice x && \
         sluice y | cat\nexport B=2\nsluice db export /b/s-$(date +%F x).dump; echo sluice's",
    ))
    .map(|words| words.join("·"))
    .collect();
    assert_eq!(
        found,
        [
            "sluice·run·a.csv·--prompt·Good or \"bad\"? {text}·-o·out",
            "sluice·x",
            "sluice·y",
            "sluice·db·export·/b/s-$(date +%F x).dump"
        ]
    );
}

/// A folder in which a user types commands into a shell: the program is in the path as `sluice`, and Postgres's own
/// programs are.
struct Shell {
    program: Program,
    path: String,
}

impl Shell {
    async fn new(config: &str, url: &str) -> Self {
        let program = Program::new(config, url);
        std::fs::create_dir(program.path("bin")).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_sluice"), program.path("bin/sluice")).unwrap();
        let dump = sluice::embedded::client_program("pg_dump", None).await.unwrap();
        let path = format!(
            "{}:{}:{}",
            program.path("bin").display(),
            dump.parent().map(Path::display).unwrap(),
            std::env::var("PATH").unwrap_or_default()
        );
        Self { program, path }
    }

    /// Types lines, of which each has to succeed.
    async fn types(&self, lines: &str, variables: &[(&str, &str)]) -> Output {
        let plain = self.program.command(&[]);
        let mut shell = tokio::process::Command::new("sh");
        shell.args(["-eu", "-c", lines]).current_dir(self.program.path("."));
        for (name, value) in plain.as_std().get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        shell
            .env("PATH", &self.path)
            .env("SLUICE_CONFIG", self.program.path("sluice.toml"))
            .envs(variables.iter().copied());
        shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let output = ended(shell.spawn().unwrap()).await;
        assert!(output.status.success(), "{lines}\n{}{}", text(&output.stdout), text(&output.stderr));
        output
    }
}

/// A provider that answers, and a configuration with it.
fn provider() -> (Simulator, String) {
    let scenario = Scenario::from_toml("[providers.one]\ndialect = \"openai\"\n").unwrap();
    let simulator = Simulator::start(scenario, "127.0.0.1:0".parse().unwrap()).unwrap();
    let config = format!(
        "[http]\nlisten = \"off\"\n[providers.one]\ndialect = \"openai\"\nbase_url = \"{}\"\n\
         [models.\"one/m\"]\nprice = {{ input = \"1\", output = \"2\" }}\n[routes.default]\nrungs = [\"one/m\"]\n",
        simulator.base_url("one").unwrap()
    );
    (simulator, config)
}

/// The only file in a folder.
fn only_file(folder: &Path) -> PathBuf {
    let files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_on_backups_leads_to_a_queue_that_was_restored() {
    let (database, page, (_simulator, config)) = (database().await, Page::read("backup.md"), provider());
    let shell = Shell::new(&config, &database.url()).await;
    let folder = shell.program.path("backup");
    std::fs::create_dir(&folder).unwrap();
    shell.program.file("q.jsonl", "{\"prompt\": \"a\"}\n{\"prompt\": \"b\"}\n");
    shell.program.output(&["run", "q.jsonl", "-o", "out.jsonl"]).await;
    let blocks = page.every_block();
    let [nightly, restore, rehearse] = &blocks[..] else { panic!("the page has three blocks: {}", blocks.len()) };
    let here = |lines: &str| lines.replace("/backup/", &format!("{}/", folder.display()));

    shell.types(&here(nightly.text), &[]).await;
    let dump = only_file(&folder).display().to_string();
    let (empty_url, empty_pool) = empty(&database, "restored").await;
    let this_one = |lines: &str| {
        let shown = lines.split_whitespace().find(|word| word.starts_with("/backup/")).unwrap();
        lines.replace(shown, &dump)
    };
    let restore = this_one(restore.text).replace("postgres://owner@host/new_database", &format!("'{empty_url}'"));
    shell.types(&restore, &[]).await;
    let answers: i64 = sqlx::query_scalar("select count(*) from sluice.result").fetch_one(&empty_pool).await.unwrap();
    assert_eq!(answers, 2);
    // It goes on there.
    let there = format!("export DATABASE_URL='{empty_url}'; sluice run q.jsonl --batch more -o more.jsonl");
    shell.types(&there, &[]).await;
    assert_eq!(json_lines(&shell.program.path("more.jsonl")).len(), 2);

    // The rehearsal, on the server that Postgres's programs find by themselves.
    let options = database.connect_options();
    let host = options.get_socket().map_or_else(|| options.get_host().to_owned(), |path| path.display().to_string());
    let port = options.get_port().to_string();
    let said = shell
        .types(&this_one(rehearse.text), &[("PGHOST", &host), ("PGPORT", &port), ("PGUSER", options.get_username())])
        .await;
    assert!(text(&said.stdout).contains("\nq\t2\t2\t"), "{}", text(&said.stdout));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nightly_recipes_of_the_cookbook_run_as_they_stand() {
    let (database, page, (simulator, config)) = (database().await, Page::read("cookbook.md"), provider());
    let shell = Shell::new(&config, &database.url()).await;
    let blocks = page.every_block();
    let shells: Vec<&str> = blocks.iter().filter(|block| block.language.is_empty()).map(|block| block.text).collect();
    let [cron, evening, trial] = shells[..] else { panic!("the page has three blocks for a shell: {shells:?}") };

    // As cron reads its line: five fields, and a per cent sign behind a backslash.
    let command = cron.splitn(6, char::is_whitespace).nth(5).unwrap().trim().replace("\\%", "%");
    let nightly = shell.program.path("nightly");
    std::fs::create_dir(&nightly).unwrap();
    let today = text(&shell.types("date +%F", &[]).await.stdout).trim().to_owned();
    std::fs::write(nightly.join(format!("prompts-{today}.jsonl")), "{\"prompt\": \"a\"}\n{\"prompt\": \"b\"}\n")
        .unwrap();
    let command = command.replace("/srv/nightly", &nightly.display().to_string());
    for _ in 0..2 {
        shell.types(&command, &[]).await;
        assert_eq!(json_lines(&nightly.join(format!("answers-{today}.jsonl"))).len(), 2);
        assert_eq!(json_lines(&nightly.join(format!("errors-{today}.jsonl"))).len(), 0);
        assert_eq!(simulator.verdict().total.calls, 2, "the same command buys nothing again");
    }

    // In the evening: the jobs wait for their hour, and a worker takes them then.
    shell.program.file("prompts.jsonl", "{\"prompt\": \"c\"}\n");
    let (enqueue, watch) = evening.rsplit_once('\n').unwrap();
    let name = evening.lines().next().unwrap();
    shell.types(enqueue, &[]).await;
    let scheduled: i64 =
        sqlx::query_scalar("select count(*) from sluice.jobs where waits_for = 'scheduled' and deadline > run_at")
            .fetch_one(&database.pool())
            .await
            .unwrap();
    assert_eq!(scheduled, 1);
    sqlx::query("update sluice.parked set run_at = now()").execute(&database.pool()).await.unwrap();
    shell.types("sluice worker --drain", &[]).await;
    shell.types(&format!("{name}\n{watch}"), &[]).await;
    assert_eq!(json_lines(&shell.program.path("answers.jsonl")).len(), 1);

    // The rungs of the recipe stand for models that cost money; here they are one that does not.
    shell.program.file("invoices.jsonl", "{\"prompt\": \"invoice 1\"}\n{\"prompt\": \"invoice 2\"}\n");
    shell.program.file("sluice.toml", format!("{config}[routes.extract]\nrungs = [\"one/m\"]\n"));
    shell.types(trial, &[]).await;
    assert!(std::fs::read_to_string(shell.program.path("compared.md")).unwrap().contains("invoice 1"));
}

/// The help of each command, on a screen of 80 columns.
#[test]
fn help_fits_on_a_screen() {
    fn fits(command: &mut clap::Command, name: &str) {
        *command = command.clone().term_width(80);
        for help in [command.render_long_help(), command.render_help()] {
            let wide = help.to_string().lines().find(|line| line.chars().count() > 80).map(str::to_owned);
            assert_eq!(wide, None, "{name}");
        }
        let below: Vec<String> = command.get_subcommands().map(|below| below.get_name().to_owned()).collect();
        for each in below {
            fits(command.find_subcommand_mut(&each).unwrap(), &format!("{name} {each}"));
        }
    }
    let mut command = <Cli as clap::CommandFactory>::command();
    command.build();
    fits(&mut command, "sluice");
}
