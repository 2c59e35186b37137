//! Files that other users of the machine have planted, can read or can write. Cases that need a second user run as
//! root; elsewhere the test says that it leaves them out.

use crate::support::postgres::database;
use crate::support::program::{Program, ended, text};
use crate::support::wait::until;
use rustix::process::{Pid, Signal, geteuid, kill_process};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, lchown, symlink};
use std::path::Path;
use std::process::{Output, Stdio};
use tokio::process::Command;

const CONFIG: &str = "[http]\nlisten = \"off\"\n[providers.one]\ndialect = \"openai\"\n\
                      base_url = \"http://127.0.0.1:9/v1\"\n\
                      [models.\"one/model\"]\nprice = { input = \"1\", output = \"2\" }\n\
                      [routes.default]\nrungs = [\"one/model\"]\n";
/// A user that nothing here belongs to.
const NOBODY: u32 = 65534;

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Whether files can be given to another user.
fn is_root(what: &str) -> bool {
    if !geteuid().is_root() {
        eprintln!("not root: {what} is NOT tried");
    }
    geteuid().is_root()
}

fn said(output: &Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

/// Runs a command in a folder, with no configuration named.
async fn found_in(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.current_dir(folder).args(arguments).env_remove("SLUICE_CONFIG").env_remove("DATABASE_URL");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    ended(command.spawn().unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_another_user_can_have_written_is_not_found_and_warned_of_when_named() {
    for place in ["sluice.toml", "config/sluice.toml"] {
        type Lay = fn(&Path, &Path);
        let ways: &[(&str, bool, Lay, &str)] = &[
            ("in order", false, |_, _| {}, ""),
            ("writable by all", false, |file, _| mode(file, 0o666), "may be written by other users"),
            ("writable by a group", false, |file, _| mode(file, 0o664), "may be written by other users"),
            ("of another user", true, |file, _| chown(file, Some(NOBODY), None).unwrap(), "belongs to the user"),
            ("in a folder that all may write", false, |_, folder| mode(folder, 0o777), "may be written by other users"),
            (
                "in a folder of another user",
                true,
                |_, folder| chown(folder, Some(NOBODY), None).unwrap(),
                "belongs to the user",
            ),
            (
                "a link of another user",
                true,
                |file, _| {
                    fs::rename(file, file.with_extension("real")).unwrap();
                    symlink(file.with_extension("real"), file).unwrap();
                    lchown(file, Some(NOBODY), None).unwrap();
                },
                "belongs to the user",
            ),
            (
                "a pipe",
                false,
                |file, _| {
                    fs::remove_file(file).unwrap();
                    assert!(std::process::Command::new("mkfifo").arg(file).status().unwrap().success());
                },
                "no plain file",
            ),
        ];
        for (what, needs_root, lay, problem) in ways {
            if *needs_root && !is_root(what) {
                continue;
            }
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir(folder.path().join("config")).unwrap();
            let file = folder.path().join(place);
            fs::write(&file, CONFIG).unwrap();
            mode(&file, 0o644);
            lay(&file, folder.path());
            let output = found_in(folder.path(), &["check"]).await;
            let told = said(&output);
            if problem.is_empty() {
                assert_eq!(output.status.code(), Some(0), "{place} {what}: {told}");
                assert!(!told.contains("warning"), "{told}");
                continue;
            }
            assert_eq!(output.status.code(), Some(3), "{place} {what}: {told}");
            assert!(told.contains(problem), "{place} {what}: {told}");
            if *what == "a pipe" {
                continue;
            }
            assert!(told.contains("--config") && (told.contains("chmod") || told.contains("chown")), "{told}");
            // A user who names it is told, and has it.
            let output = found_in(folder.path(), &["--config", place, "check"]).await;
            assert_eq!(output.status.code(), Some(0), "{place} {what}: {}", said(&output));
            let of_the_file = ["writable by all", "writable by a group", "of another user"].contains(what);
            assert_eq!(said(&output).contains("warning"), of_the_file, "{place} {what}: {}", said(&output));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_may_come_from_a_pipe() {
    let database = database().await;
    let program = Program::new("", &database.url());
    let mut command = Command::new("sh");
    command.args(["-c", "printf '%s' \"$TEXT\" | \"$SLUICE\" worker --drain --config /dev/stdin"]);
    command.env("TEXT", CONFIG).env("SLUICE", env!("CARGO_BIN_EXE_sluice")).env("DATABASE_URL", database.url());
    command.env("SLUICE__SPOOL__DIR", program.path("spool")).env_remove("SLUICE_CONFIG");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let output = ended(command.spawn().unwrap()).await;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_url_of_the_database_comes_from_a_file_or_a_credential() {
    let database = database().await;
    let secret = "zq-password-9Rr8Tt7Y";
    let url = database.url();
    let url = format!("{url}{}password={secret}", if url.contains('?') { "&" } else { "?" });
    let program = Program::new("", &url);
    let run = async |config: &str, variables: &[(&str, &str)]| {
        program.file("sluice.toml", format!("{CONFIG}{config}"));
        let mut command = program.command(&["status"]);
        command.env_remove("DATABASE_URL").envs(variables.iter().copied());
        let output = ended(command.spawn().unwrap()).await;
        assert!(!said(&output).contains(secret), "{}", said(&output));
        (output.status.code(), said(&output))
    };
    let file = program.file("url", format!("{url}\n"));
    mode(&file, 0o600);
    let folder = file.parent().unwrap().display().to_string();
    let credentials = [("CREDENTIALS_DIRECTORY", folder.as_str())];
    let (code, told) = run("[database]\nurl_file = \"url\"\n", &[]).await;
    assert_eq!(code, Some(0), "{told}");
    let (code, told) = run("[database]\ncredential = \"url\"\n", &credentials).await;
    assert_eq!(code, Some(0), "{told}");
    // The environment goes before the file.
    let (code, told) = run("[database]\nurl_file = \"missing\"\n", &[("DATABASE_URL", &url)]).await;
    assert_eq!(code, Some(0), "{told}");
    for (config, variables, problem) in [
        ("[database]\ncredential = \"url\"\n", &[][..], "CREDENTIALS_DIRECTORY is not set"),
        ("[database]\nurl_file = \"missing\"\n", &[], "cannot be read"),
        ("[database]\nurl_file = \"url\"\ncredential = \"url\"\n", &credentials, "more than one way"),
        ("[database]\nurl = \"postgres://a/b\"\nurl_file = \"url\"\n", &[], "more than one way"),
        ("[database]\nurl_file = \"sluice.toml\"\n", &[], "is not the URL of a Postgres database"),
    ] {
        let (code, told) = run(config, variables).await;
        assert!(code == Some(3) && told.contains(problem), "{config}: {code:?} {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_that_all_may_read_are_warned_of_and_keys_that_all_may_write_are_refused() {
    let keyed = CONFIG.replace("[models", "api_key_file = \"key\"\n[models");
    let program = Program::new(&keyed, "");
    let key = program.file("key", "k1");
    let config = program.path("sluice.toml");
    let check = async |variables: &[(&str, &str)]| {
        let mut command = program.command(&["check"]);
        command.env_remove("DATABASE_URL").envs(variables.iter().copied());
        ended(command.spawn().unwrap()).await
    };
    for (key_mode, code, words) in [
        (0o600, 0, ""),
        (0o640, 0, ""),
        (0o644, 0, "key may be read by other users (its mode is 0644): chmod o-rwx"),
        (0o666, 3, "chmod go-w"),
        (0o620, 3, "chmod go-w"),
    ] {
        mode(&key, key_mode);
        let output = check(&[]).await;
        assert_eq!(output.status.code(), Some(code), "{key_mode:o}: {}", said(&output));
        assert!(
            said(&output).contains(words) && said(&output).contains("warning") == (key_mode == 0o644),
            "{key_mode:o}: {}",
            said(&output)
        );
        assert!(!said(&output).contains("k1"));
    }
    if is_root("a key of another user, and in a folder of one") {
        mode(&key, 0o600);
        chown(&key, Some(NOBODY), None).unwrap();
        let told = said(&check(&[]).await);
        assert!(told.contains("key belongs to the user with the number 65534") && told.contains("chown 0"), "{told}");
        assert!(told.contains("is not used"), "{told}");
        chown(&key, Some(0), None).unwrap();
        assert_eq!(check(&[]).await.status.code(), Some(0));
        // The folder, one above it, and a link to it that another user may lay anew.
        let (above, folder) = (program.path("above"), program.path("above/folder"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("key"), "k1").unwrap();
        mode(&folder.join("key"), 0o600);
        let link = program.path("link");
        symlink(folder.join("key"), &link).unwrap();
        for (name, theirs) in [("above/folder/key", &folder), ("above/folder/key", &above), ("link", &link)] {
            program.file("sluice.toml", keyed.replace("\"key\"", &format!("\"{name}\"")));
            assert_eq!(check(&[]).await.status.code(), Some(0), "{name}");
            lchown(theirs, Some(NOBODY), None).unwrap();
            let told = said(&check(&[]).await);
            let problem = format!("{} belongs to the user", theirs.display());
            assert!(told.contains(&problem) && told.contains("is not used"), "{name}: {told}");
            lchown(theirs, Some(0), None).unwrap();
        }
        program.file("sluice.toml", &keyed);
    }
    mode(&key, 0o644);
    // A credential's mode is systemd's.
    let text = keyed.replace("api_key_file", "credential");
    program.file("sluice.toml", &text);
    let output = check(&[("CREDENTIALS_DIRECTORY", program.path(".").to_str().unwrap())]).await;
    assert!(output.status.success() && !said(&output).contains("warning"), "{}", said(&output));
    for (url, file_mode, warns) in [
        ("postgres://me:secret@127.0.0.1/x", 0o644, true),
        ("postgres://127.0.0.1/x?user=me&password=secret", 0o644, true),
        ("postgres://me:secret@127.0.0.1/x", 0o640, false),
        ("postgres://me@127.0.0.1/x", 0o644, false),
    ] {
        program.file("sluice.toml", format!("{CONFIG}[database]\nurl = \"{url}\"\n"));
        mode(&config, file_mode);
        let output = check(&[]).await;
        assert_eq!(said(&output).contains("the database's password"), warns, "{url} {file_mode:o}: {}", said(&output));
        assert!(!said(&output).contains("me:secret") && output.status.success(), "{}", said(&output));
    }
    let output = check(&[("SLUICE__HTTP__LISTEN", "0.0.0.0:9470")]).await;
    assert!(said(&output).contains("for which no password is asked"), "{}", said(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_to_which_others_have_access_is_refused_and_nothing_of_theirs_is_taken_over() {
    let database = database().await;
    let program = Program::new(CONFIG, &database.url());
    let spool = program.path("spool");
    fs::create_dir(&spool).unwrap();
    for bits in [0o755, 0o770, 0o1777, 0o701] {
        mode(&spool, bits);
        let output = program.run(&["worker", "--drain"]).await;
        let told = said(&output);
        assert!(output.status.code() == Some(1) && told.contains(&format!("chmod 700 {}", spool.display())), "{told}");
        assert_eq!(fs::read_dir(&spool).unwrap().count(), 0, "nothing was put there");
    }
    mode(&spool, 0o700);
    let laid = spool.join("planted.journal");
    let target = program.file("target.journal", "");
    symlink(&target, &laid).unwrap();
    let pipe = spool.join("pipe.journal");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    if is_root("a spool of another user") {
        let other = spool.join("other.journal");
        fs::write(&other, "").unwrap();
        chown(&other, Some(NOBODY), None).unwrap();
    }
    let output = program.run(&["worker", "--drain"]).await;
    let told = said(&output);
    assert!(output.status.success(), "{told}");
    let mut planted = vec!["planted.journal", "pipe.journal"];
    planted.extend(geteuid().is_root().then_some("other.journal"));
    for name in &planted {
        let is_told = |line: &str| line.contains("cannot read a spool") && line.contains(name);
        assert!(told.lines().any(is_told), "{name}: {told}");
    }
    let planted = planted.len();
    assert_eq!(fs::read_dir(&spool).unwrap().count(), planted, "they are left alone");
    if is_root("a folder of another user") {
        chown(&spool, Some(NOBODY), None).unwrap();
        let told = said(&program.run(&["worker", "--drain"]).await);
        assert!(told.contains("belongs to the user") && told.contains("cannot be used"), "{told}");
    }
}

/// Lays a trap at a path.
type Lay = fn(&Path);

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_that_another_user_can_replace_is_refused() {
    if !is_root("a spool below a folder of another user") {
        return;
    }
    let database = database().await;
    let program = Program::new(CONFIG, &database.url());
    let (above, folder) = (program.path("above"), program.path("above/folder"));
    fs::create_dir_all(&folder).unwrap();
    let link = program.path("link");
    symlink(&folder, &link).unwrap();
    let ways: [(&str, &Path, Lay); 4] = [
        ("above/folder", &folder, |path| lchown(path, Some(NOBODY), None).unwrap()),
        ("above/folder", &above, |path| lchown(path, Some(NOBODY), None).unwrap()),
        ("above/folder", &above, |path| mode(path, 0o777)),
        ("link", &link, |path| lchown(path, Some(NOBODY), None).unwrap()),
    ];
    for (way, theirs, lay) in ways {
        let drained = async || {
            let mut command = program.command(&["worker", "--drain"]);
            command.env("SLUICE__SPOOL__DIR", program.path(way).join("spool"));
            ended(command.spawn().unwrap()).await
        };
        let output = drained().await;
        assert!(output.status.success(), "{way}: {}", said(&output));
        lay(theirs);
        let output = drained().await;
        let told = said(&output);
        assert!(!output.status.success() && told.contains("cannot be used"), "{told}");
        assert!(told.contains(&theirs.display().to_string()), "{}: {told}", theirs.display());
        lchown(theirs, Some(0), None).unwrap();
        if !theirs.is_symlink() {
            mode(theirs, 0o755);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn log_files_are_for_user_and_group_and_lie_in_no_folder_of_all() {
    let database = database().await;
    let program = Program::new(&format!("{CONFIG}[log]\ndir = \"logs\"\n"), &database.url());
    program.output(&["worker", "--drain"]).await;
    let logs = program.path("logs");
    let files: Vec<_> =
        fs::read_dir(&logs).unwrap().map(|file| file.unwrap().metadata().unwrap().mode() & 0o777).collect();
    assert!(!files.is_empty() && files.iter().all(|mode| mode & 0o027 == 0), "{files:?}");
    for bits in [0o777, 0o1777] {
        mode(&logs, bits);
        let output = program.run(&["worker", "--drain"]).await;
        let told = said(&output);
        assert!(!output.status.success() && told.contains("chmod go-w"), "{bits:o}: {told}");
    }
    mode(&logs, 0o770);
    program.output(&["worker", "--drain"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_another_user_laid_is_not_written_through() {
    if !is_root("a link of another user") {
        return;
    }
    let database = database().await;
    let program = Program::new(CONFIG, &database.url());
    program.file("q.jsonl", "{\"prompt\": \"a\"}\n");
    program.output(&["enqueue", "q.jsonl", "--batch", "b"]).await;
    let (victim, link) = (program.file("victim", "theirs"), program.path("out.jsonl"));
    symlink(&victim, &link).unwrap();
    lchown(&link, Some(NOBODY), None).unwrap();
    let output = program.run(&["results", "b", "-o", "out.jsonl", "--force"]).await;
    assert!(output.status.code() == Some(2) && said(&output).contains("is a link"), "{}", said(&output));
    assert_eq!(fs::read_to_string(victim).unwrap(), "theirs");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_process_leaves_its_memory_or_opens_it_to_others() {
    let folder = tempfile::tempdir().unwrap();
    mode(folder.path(), 0o755);
    // Where another user gets at it.
    let program = folder.path().join("sluice");
    fs::copy(env!("CARGO_BIN_EXE_sluice"), &program).unwrap();
    let mut command = Command::new("sh");
    // Of low limits, to see that they are raised, and with dumps allowed.
    command.args(["-c", "ulimit -Sn 100; ulimit -c unlimited 2>/dev/null; exec \"$0\" simulate --listen 127.0.0.1:0"]);
    command.arg(&program).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let as_other = is_root("a process of another user");
    if as_other {
        command.uid(NOBODY).gid(NOBODY);
    }
    let child = command.spawn().unwrap();
    let pid = child.id().unwrap();
    let limits = || fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
    let limit = |name: &str| {
        let limits = limits();
        let line = limits.lines().find(|line| line.starts_with(name))?.to_owned();
        Some(line[name.len()..].split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    };
    until("no dump is written", async || limit("Max core file size").is_some_and(|found| found[..2] == ["0", "0"]))
        .await;
    until("files may be opened", async || {
        let found = limit("Max open files").unwrap();
        let number = |text: &str| text.parse::<u64>().unwrap_or(u64::MAX);
        number(&found[0]) == number(&found[1]).min(65_536)
    })
    .await;
    if as_other {
        // A file that belongs to root under the user's own process may be read and traced by root only.
        let environment = format!("/proc/{pid}/environ");
        until("its memory is its own", async || fs::metadata(&environment).is_ok_and(|found| found.uid() == 0)).await;
    }
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::TERM).unwrap();
    ended(child).await;
}
