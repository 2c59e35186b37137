//! How fast `sluice enqueue` puts a file into the queue, beside a bare COPY of the same bodies.

use super::support::setting;
use super::whole::Subject;
use super::{body, fast, fill, median};
use anyhow::Context as _;
use sqlx::PgPool;
use sqlx::postgres::PgPoolCopyExt as _;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

/// The bar: lines a second, of those that a bare COPY takes.
const RATE: f64 = 0.75;

/// Bytes that COPY is given at once, as the command gives them.
const PIECE: usize = 64 * 1024;

pub async fn run(out: &mut impl Write, subject: &Subject, scratch: &Path, runs: usize) -> anyhow::Result<()> {
    let lines = setting("SLUICE_BENCH_LINES", 200_000_usize);
    let bodies = scratch.join("bodies.jsonl");
    let mut file = BufWriter::new(File::create(&bodies)?);
    for _ in 0..lines {
        writeln!(file, "{}", body())?;
    }
    file.flush()?;
    sqlx::raw_sql(
        "create table bare_enqueue (id bigint generated always as identity primary key, request jsonb not null)",
    )
    .execute(&subject.pool)
    .await?;
    let (mut copied, mut enqueued) = (Vec::new(), Vec::new());
    for run in 0..runs {
        copied.push(per_second(lines, copy(&subject.pool, lines)).await?);
        fill(&subject.pool, 0).await?;
        enqueued.push(per_second(lines, async { enqueue(subject, scratch, &bodies, run) }).await?);
        let queued: i64 = sqlx::query_scalar("select count(*) from sluice.ready").fetch_one(&subject.pool).await?;
        anyhow::ensure!(queued == i64::try_from(lines)?, "{queued} of {lines} lines were queued");
    }
    let (copied, enqueued) = (median(copied), median(enqueued));
    let verdict = if enqueued / copied >= RATE { "met" } else { "MISSED" };
    writeln!(out, "\n{lines} lines of 1 KB, lines a second")?;
    writeln!(out, "{:>16} {copied:>8.0}", "bare COPY")?;
    writeln!(out, "{:>16} {enqueued:>8.0}, {:.2} of it: {verdict}", "sluice enqueue", enqueued / copied)?;
    Ok(())
}

async fn per_second(lines: usize, work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<f64> {
    let began = Instant::now();
    work.await?;
    #[expect(clippy::cast_precision_loss, reason = "a number of lines")]
    let lines = lines as f64;
    Ok(lines / began.elapsed().as_secs_f64())
}

/// One COPY of the bodies into an empty table that has a key and nothing else.
async fn copy(pool: &PgPool, lines: usize) -> anyhow::Result<()> {
    sqlx::raw_sql("truncate bare_enqueue").execute(pool).await?;
    let mut copy = pool.copy_in_raw("copy bare_enqueue (request) from stdin").await?;
    let line = format!("{}\n", body());
    let piece = line.repeat(PIECE / line.len());
    let mut left = lines;
    while left > 0 {
        let count = left.min(PIECE / line.len());
        copy.send(piece.as_bytes().get(..count * line.len()).context("a piece of whole lines")?).await?;
        left -= count;
    }
    copy.finish().await?;
    Ok(())
}

fn enqueue(subject: &Subject, scratch: &Path, bodies: &Path, run: usize) -> anyhow::Result<()> {
    let Subject { program, url, .. } = subject;
    let mut command = fast::fast_worker(program, scratch, url, "http://127.0.0.1:9")?;
    command.arg("enqueue").arg(bodies).args(["--batch", &format!("of run {run}")]).stdin(Stdio::null());
    let status = command.status().context("sluice enqueue")?;
    anyhow::ensure!(status.success(), "sluice enqueue ended with {status}");
    Ok(())
}
