//! The server, its settings, and the tables.

use super::{ChurningTable, Finding, Partitions, SchemaState, Seen, ServerState, StatementPlan, grouped, size, span};

/// The oldest version of the server that is tested.
const OLDEST_SERVER: i32 = 150_000;
/// How many job numbers one partition holds.
const PARTITION: i64 = 10_000_000;
/// At two thousand million the server refuses to go on.
const TRANSACTIONS_BAD: i64 = 1_200_000_000;

pub(super) fn connection(pooled: bool, private: bool) -> Finding {
    let how = match (private, pooled) {
        (true, _) => "to the private Postgres",
        (false, true) => "through a pooler that works by transactions",
        (false, false) => "to Postgres itself",
    };
    Finding::ok("connection", how)
}

pub(super) fn server(server: &Seen<ServerState>) -> Vec<Finding> {
    const CHECKS: [&str; 5] = ["server", "encoding", "durability", "transaction_ids", "size"];
    match server {
        Err(reason) => CHECKS.iter().map(|check| Finding::unseen(check, reason)).collect(),
        Ok(server) => vec![
            version(server),
            encoding(&server.encoding),
            settings(server),
            transaction_ids(server),
            Finding::ok("size", size(server.bytes)),
        ],
    }
}

fn version(server: &ServerState) -> Finding {
    let what = format!("PostgreSQL {}", server.version_name);
    if server.standby {
        return Finding::bad(
            "server",
            format!("{what}, a standby"),
            "nothing can be written there",
            "use the primary's address",
        );
    }
    if server.read_only {
        return Finding::bad(
            "server",
            format!("{what}, and the sessions of this login are read-only"),
            "no job is taken, nothing can be enqueued, and what came of calls waits in the spools",
            "default_transaction_read_only is on: `\\drds` in psql shows it of a database or role (alter … reset \
             default_transaction_read_only), `show default_transaction_read_only` of the server (alter system reset, \
             then select pg_reload_conf()). After a switch-over use the address of the new primary",
        );
    }
    if server.version < OLDEST_SERVER {
        return Finding::bad("server", what, "Sluice is made for PostgreSQL 15 and later", "upgrade the server");
    }
    Finding::ok("server", what)
}

fn encoding(encoding: &str) -> Finding {
    let what = format!("the database writes text in {encoding}");
    if encoding == "UTF8" {
        return Finding::ok("encoding", what);
    }
    Finding::bad(
        "encoding",
        what,
        "prompts and answers have characters that it cannot hold: such an answer is paid for and cannot be stored",
        "make a database with `create database … encoding 'UTF8' template template0`, and migrate that one",
    )
}

fn settings(server: &ServerState) -> Finding {
    let off: Vec<String> = server.off.iter().map(|(name, value)| format!("{name} is {value}")).collect();
    let names = |names: &[&str]| server.off.iter().any(|(name, _)| names.contains(&name.as_str()));
    if off.is_empty() {
        return Finding::ok("durability", "commits are durable, and autovacuum is on");
    }
    let why = if names(&["fsync", "full_page_writes"]) {
        "a crash of the machine may destroy the database: jobs, answers and books"
    } else if names(&["autovacuum", "track_counts"]) {
        "dead rows are not removed: every claim gets slower"
    } else {
        "a crash of the server may lose the last answers that were paid for; they are bought again"
    };
    let is_bad = names(&["fsync", "full_page_writes", "autovacuum", "track_counts"]);
    let remedy = if off.len() == 1 { "set it back to its default" } else { "set them back to their defaults" };
    Finding::warning("durability", off.join(", "), why, remedy).grave(is_bad)
}

fn transaction_ids(server: &ServerState) -> Finding {
    let age = server.transaction_age.max(server.multixact_age);
    let what = format!("the oldest row that is not frozen is {} transactions old", grouped(age));
    // Autovacuum begins by itself at this setting; an age of twice that means that it does not get through.
    if age < server.freeze_max_age.saturating_mul(2).max(400_000_000) {
        return Finding::ok("transaction_ids", what);
    }
    Finding::warning(
        "transaction_ids",
        what,
        "at two thousand millions the server takes no more writes",
        "remove what holds old rows (oldest_snapshot, prepared_transactions, replication_slots), then run vacuum \
         (freeze)",
    )
    .grave(age >= TRANSACTIONS_BAD)
}

pub(super) fn schema(SchemaState { found, known, oldest }: SchemaState) -> Finding {
    let what = format!("version {found}, this binary knows {known}");
    if found == 0 {
        return Finding::bad("schema", "there is none", "nothing works without it", "run sluice migrate");
    }
    if found < known {
        return Finding::bad("schema", what, "this binary does not work with an older one", "run sluice migrate");
    }
    if known < oldest {
        let what = format!("{what}; it works with binaries that know {oldest} at least");
        return Finding::bad("schema", what, "this binary does not work with it", "upgrade sluice on this machine");
    }
    Finding::ok("schema", if found > known { format!("{what}, which it can live with") } else { what })
}

pub(super) fn clock((ahead_ms, off_by_ms): (i64, i64)) -> Finding {
    let certain = (ahead_ms.abs() - off_by_ms).max(0);
    let direction = if ahead_ms < 0 { "behind" } else { "ahead of" };
    if certain < 2000 {
        return Finding::ok("clock", "the server's agrees with this machine's");
    }
    Finding::warning(
        "clock",
        format!("the server's is {} {direction} this machine's", span(certain / 1000)),
        "Sluice goes by the server's; deadlines and times that your application sets go by yours",
        "run an NTP service on both machines",
    )
    .grave(certain >= 60_000)
}

/// How many dead rows a table may have before claims notice.
fn bearable(table: &ChurningTable) -> i64 {
    if matches!(table.name.as_str(), "ready" | "parked" | "inflight" | "tally") { 200_000 } else { 20_000 }
}

pub(super) fn dead_rows(tables: &[ChurningTable]) -> Finding {
    const CHECK: &str = "dead_rows";
    let vacuumed = |table: &ChurningTable| {
        table.vacuumed.map_or_else(|| "never vacuumed".to_owned(), |ago| format!("vacuumed {} ago", span(ago)))
    };
    if let Some(worst) = tables.iter().filter(|table| table.dead >= bearable(table)).max_by_key(|table| table.dead) {
        return Finding::warning(
            CHECK,
            format!(
                "{} has {} dead rows beside {} live ones, {}",
                worst.name,
                grouped(worst.dead),
                grouped(worst.live),
                vacuumed(worst)
            ),
            "each claim may read past them",
            format!("see oldest_snapshot and autovacuum; then vacuum sluice.{}", worst.name),
        )
        .grave(worst.dead >= bearable(worst).saturating_mul(10));
    }
    // Workers fold the table every few seconds.
    if let Some(tally) = tables.iter().find(|table| table.name == "tally" && table.live >= 500_000) {
        return Finding::warning(
            CHECK,
            format!("tally has {} rows that are not folded", grouped(tally.live)),
            "every report adds them up",
            "any running worker folds them: start one, or look into its log",
        );
    }
    let most = tables.iter().max_by_key(|table| table.dead);
    Finding::ok(
        CHECK,
        most.map_or_else(String::new, |table| {
            format!("{} in {}, {}", grouped(table.dead), table.name, vacuumed(table))
        }),
    )
}

pub(super) fn table_settings(tables: &[ChurningTable]) -> Finding {
    let missing: Vec<String> = tables
        .iter()
        .filter(|table| !table.missing.is_empty())
        .map(|table| format!("{} has lost {}", table.name, table.missing.join(", ")))
        .collect();
    if missing.is_empty() {
        return Finding::ok("table_settings", "those of the migrations are there");
    }
    Finding::warning(
        "table_settings",
        missing.join("; "),
        "without them autovacuum comes too late to tables that turn over completely all day",
        "set them again with alter table … set (…): they stand in the migrations",
    )
}

pub(super) fn vacuum_off(tables: &[String]) -> Finding {
    if tables.is_empty() {
        return Finding::ok("autovacuum", "it looks after every table");
    }
    Finding::bad(
        "autovacuum",
        format!("it is told to leave these alone: {}", tables.join(", ")),
        "dead rows are never removed",
        "alter table … reset (autovacuum_enabled)",
    )
}

pub(super) fn indexes(missing: &[String], invalid: &[String]) -> Finding {
    let mut what = Vec::new();
    if !missing.is_empty() {
        what.push(format!("missing: {}", missing.join(", ")));
    }
    if !invalid.is_empty() {
        what.push(format!("not valid: {}", invalid.join(", ")));
    }
    if what.is_empty() {
        return Finding::ok("indexes", "all are there and valid");
    }
    Finding::bad(
        "indexes",
        what.join("; "),
        "statements that use them read whole tables, and what must be unique may not be",
        "make them again (they stand in the migrations), or reindex",
    )
}

pub(super) fn trigger(fires: Option<bool>) -> Finding {
    let what = match fires {
        Some(true) => return Finding::ok("trigger", "new jobs are put into the queue"),
        Some(false) => "job_enqueued on sluice.job is disabled",
        None => "job_enqueued on sluice.job is missing",
    };
    Finding::bad(
        "trigger",
        what,
        "new jobs are not put into the queue, and no worker will find them",
        "alter table sluice.job enable trigger job_enqueued; what came meanwhile has to be inserted again",
    )
}

pub(super) fn partitions(partitions: &Partitions) -> Finding {
    const WHY: &str = "a job without a partition cannot be enqueued";
    const REMEDY: &str = "any running worker makes them every minute: look into its log, or run sluice migrate";
    if !partitions.missing.is_empty() {
        return Finding::bad("partitions", format!("missing: {}", partitions.missing.join(", ")), WHY, REMEDY);
    }
    let what = format!("{} job numbers are left before the last of them is full", grouped(partitions.ids_left));
    if partitions.ids_left < PARTITION {
        return Finding::warning("partitions", what, WHY, REMEDY).grave(partitions.ids_left < PARTITION / 10);
    }
    Finding::ok("partitions", what)
}

pub(super) fn plans(plans: &[StatementPlan]) -> Finding {
    let faults: Vec<String> = plans
        .iter()
        .filter(|plan| !plan.is_small && !plan.faults.is_empty())
        .map(|plan| format!("{}: {}", plan.statement, plan.faults.join(", ")))
        .collect();
    if !faults.is_empty() {
        return Finding::bad(
            "plans",
            faults.join("; "),
            "the time of each claim grows with the queue",
            "analyze sluice.ready; see indexes; look for planner settings (enable_…) of this role, database or server",
        );
    }
    let small = plans.iter().any(|plan| plan.is_small && !plan.faults.is_empty());
    Finding::ok(
        "plans",
        if small { "the queue is too short to tell" } else { "the queue is read in the order of its index" },
    )
}
