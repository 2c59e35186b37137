//! The sections of the daemon itself.

use super::{Kind, Table, TakesEffect, depends, instead, key, with_default};
use crate::config::words::{LOG_FORMATS, POOLERS, names};

pub(super) const DATABASE: Table = Table {
    header: Some("[database]"),
    title: "[database]",
    doc: "A Postgres (15 or newer) that runs already. Without it a private one is kept under data_dir; it listens on a \
          socket only and needs PostgreSQL's programs to be installed.",
    effect: TakesEffect::Restart,
    is_on: true,
    keys: &[
        key(
            "url",
            Kind::Text,
            "postgres://sluice:password@db.example.com/sluice",
            "Where it is. Several hosts: \"postgres://sluice@one,two:5433/sluice\".",
        ),
        instead(
            "url_file",
            Kind::Path,
            "database_url",
            "Instead: a file that holds nothing but the URL, for one with a password.",
        ),
        instead(
            "credential",
            Kind::Text,
            "database_url",
            "Instead: a systemd credential (LoadCredential=database_url:PATH).",
        ),
        depends(
            "data_dir",
            Kind::Path,
            "/var/lib/sluice/postgres",
            "`/var/lib/sluice/postgres` for root and the service's user, else `~/.local/state/sluice/postgres`",
            "Where the private Postgres lives.",
        ),
        with_default("max_connections", Kind::Whole(2, 1000), "10", "Connections that this process opens at most."),
        with_default(
            "pooler",
            Kind::Word(|| names(POOLERS)),
            "auto",
            "What the URL leads to. \"transaction\": PgBouncer in transaction mode and the like; \"none\": Postgres \
             itself; \"auto\": find out when connecting (docs/operations.md).",
        ),
    ],
    ..Table::EMPTY
};

pub(super) const WORKER: Table = Table {
    header: Some("[worker]"),
    title: "[worker]",
    is_on: true,
    keys: &[
        with_default(
            "max_in_flight",
            Kind::Whole(1, 100_000),
            "500",
            "Calls that this process has under way at once, at most.",
        ),
        with_default(
            "max_in_flight_bytes",
            Kind::Whole(1_000_000, i64::MAX),
            "268435456",
            "The worker takes no job while the requests of those calls use this many bytes of memory.",
        ),
        with_default(
            "drain_timeout",
            Kind::Duration,
            "60s",
            "After SIGTERM: how long calls may finish before their jobs are given back.",
        ),
        with_default(
            "max_crashes",
            Kind::Whole(1, 1000),
            "3",
            "A job that this many workers died with fails, if the last of them held no other job.",
        ),
    ],
    ..Table::EMPTY
};

pub(super) const SPOOL: Table = Table {
    header: Some("[spool]"),
    title: "[spool]",
    effect: TakesEffect::Restart,
    is_on: true,
    keys: &[
        depends(
            "dir",
            Kind::Path,
            "/var/lib/sluice/spool",
            "`/var/lib/sluice/spool` for root and the service's user, else `~/.local/state/sluice/spool`",
            "Where answers wait while the database is away, and by which a restarted worker knows that its predecessor \
             has ended. It belongs on a local disk, and all workers of a machine use the same. \"off\": answers wait \
             in memory.",
        ),
        with_default(
            "max_bytes",
            Kind::Whole(1_000_000, i64::MAX),
            "1073741824",
            "What one worker may put there. When it is full the worker starts no call.",
        ),
    ],
    ..Table::EMPTY
};

pub(super) const RETENTION: Table = Table {
    header: Some("[retention]"),
    title: "[retention]",
    is_on: true,
    keys: &[depends(
        "finished",
        Kind::Duration,
        "90d",
        "for ever",
        "How long finished jobs are kept, with answers and attempts, counted from the end of the last job of their \
         partition (docs/operations.md). At least one hour.",
    )],
    ..Table::EMPTY
};

pub(super) const HTTP: Table = Table {
    header: Some("[http]"),
    title: "[http]",
    effect: TakesEffect::Restart,
    is_on: true,
    keys: &[
        with_default(
            "listen",
            Kind::Text,
            "127.0.0.1:9470",
            "Where the dashboard (/), the API (/api/v1), /healthz, /readyz, /metrics and /api/status are served; \
             \"off\": nowhere. If it is not set here, a second worker on the same machine runs without HTTP. On an \
             address other than loopback the dashboard and the API need a token; the rest asks for none, so such an \
             address gets a warning.",
        ),
        key(
            "hosts",
            super::TEXTS,
            "[\"sluice.example.org\"]",
            "Host names that the server accepts on loopback besides localhost, 127.0.0.1 and [::1], for example those \
             of a proxy on this machine.",
        ),
        key(
            "token_env",
            Kind::Text,
            "SLUICE_HTTP_TOKEN",
            "The variable of the environment that holds the token of the dashboard and the API: at least 24 \
             characters. Without a token they are open on loopback and closed elsewhere.",
        ),
        instead("token_file", Kind::Path, "http.token", "Instead: a file that holds nothing but the token."),
        instead(
            "credential",
            Kind::Text,
            "http_token",
            "Instead: a systemd credential (LoadCredential=http_token:PATH).",
        ),
        with_default("read_only", Kind::Flag, "false", "Whether the dashboard and the API change nothing."),
        with_default("bodies", Kind::Flag, "false", "Whether they show prompts and answers."),
    ],
    ..Table::EMPTY
};

pub(in crate::config) const LOG: Table = Table {
    header: Some("[log]"),
    title: "[log]",
    effect: TakesEffect::Restart,
    is_on: true,
    keys: &[
        with_default("format", Kind::Word(|| names(LOG_FORMATS)), "human", "The shape of log lines."),
        with_default(
            "filter",
            Kind::Text,
            "info",
            "The filter for log lines: a level, or for example \"warn,sluice=debug\".",
        ),
        key(
            "dir",
            Kind::Path,
            "/var/log/sluice",
            "Where daily files are kept beside standard error. Not a folder that all users may write.",
        ),
        with_default("keep", Kind::Whole(1, 10_000), "14", "How many daily files are kept."),
    ],
    ..Table::EMPTY
};

pub(super) const TRACES: Table = Table {
    header: Some("[traces]"),
    title: "[traces]",
    doc: "A trace of each job for a collector of OpenTelemetry, over OTLP (docs/traces.md). Without an endpoint none \
          is sent.",
    effect: TakesEffect::Restart,
    keys: &[
        key(
            "endpoint",
            Kind::Text,
            "http://127.0.0.1:4318/v1/traces",
            "Where spans are posted to, in Protocol Buffers over HTTP. A URL without a path gets /v1/traces.",
        ),
        key(
            "headers_env",
            Kind::Text,
            "SLUICE_TRACES_HEADERS",
            "The variable that holds headers for the collector, a line for each: \"name: value\".",
        ),
        instead("headers_file", Kind::Path, "traces.headers", "Instead: a file that holds nothing but these lines."),
        instead(
            "credential",
            Kind::Text,
            "traces_headers",
            "Instead: a systemd credential (LoadCredential=traces_headers:PATH).",
        ),
        with_default(
            "sample",
            Kind::Share,
            "1",
            "The share of jobs whose traces are sent, drawn by the job: whole traces, the same on all workers. A job \
             with a `traceparent` follows its caller.",
        ),
        with_default("timeout", Kind::Duration, "10s", "How long one message may take, up to \"1m\"."),
        depends("service", Kind::Text, "sluice-production", "`sluice`", "The name of the service in traces."),
    ],
    ..Table::EMPTY
};
