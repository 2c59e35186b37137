//! The things that most commands need: the configuration, the database, and a place for their output.

use super::output::Output;
use super::{GlobalArgs, LogFormat};
use crate::config::{self, Config, ConfigErrors, Keys};
use crate::embedded::{EmbeddedPostgres, Keeper, Options};
use crate::http::Reach;
use crate::printable;
use crate::shutdown::Signals;
use crate::store::{Address, Pooler, Purpose, Store, StoreError};
use crate::telemetry::{self, TelemetryError};
use anyhow::Context as _;
use secrecy::ExposeSecret as _;
use std::time::Duration;

/// Connections that the private Postgres accepts: workers and commands of one machine share it.
const PRIVATE_CONNECTIONS: u32 = 200;

/// How often a worker that has yet to start asks a server whether it takes writes now.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// The reader of the log lines on standard error.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reader {
    /// The operator of a daemon.
    Operator,
    /// The user of a command, who sees its progress.
    Caller,
}

/// An open database with the configuration that led to it.
#[derive(Debug)]
pub struct Context {
    /// The configuration.
    pub config: Config,
    /// The queue; its schema fits this binary.
    pub store: Store,
    /// The output of the command.
    pub output: Output,
    /// The way to the database, for connections beside these.
    pub reach: Reach,
    /// Starts the private Postgres again when it ends while providers are called: what they answer is paid for. This is
    /// dropped before the server.
    keeper: Option<Keeper>,
    /// The private Postgres, when there is no other.
    private: Option<EmbeddedPostgres>,
    /// The signals, if the daemon has listened to them since it had to wait for its database.
    signals: Option<Signals>,
    /// `None` when logging was set up by an earlier context of this process.
    _log: Option<telemetry::Guard>,
}

impl Context {
    /// Opens the context of a command that makes no calls: it reads no key, and logs only warnings.
    pub async fn open(global: &GlobalArgs) -> anyhow::Result<Self> {
        Self::open_if(global, |_| Ok(())).await
    }

    /// Like [`open`](Self::open), if the configuration passes a check that needs no database: a private Postgres is not
    /// made for a command that is refused anyway.
    ///
    /// # Errors
    /// That of the check, or as [`open`](Self::open).
    pub async fn open_if(
        global: &GlobalArgs,
        check: impl FnOnce(&Config) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let config = without_keys(global)?;
        check(&config)?;
        let context = Self::connect(config, global, Keys::Ignored, Reader::Caller).await?;
        context.require_schema().await?;
        Ok(context)
    }

    /// Opens the context of the daemon: it requires providers, reads their keys, and applies `[log]`.
    pub async fn open_for_work(global: &GlobalArgs) -> anyhow::Result<Self> {
        Self::open_with_providers(global, Reader::Operator, |_| Ok(())).await
    }

    /// Opens the context for work that a user waits for at a terminal. It is like the daemon's, except that normal
    /// progress is not logged unless `[log]` says so. The check comes first, as in [`open_if`](Self::open_if).
    pub async fn open_for_run(
        global: &GlobalArgs,
        check: impl FnOnce(&Config) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        Self::open_with_providers(global, Reader::Caller, check).await
    }

    async fn open_with_providers(
        global: &GlobalArgs,
        reader: Reader,
        check: impl FnOnce(&Config) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let config = Config::load_with(global.config.as_deref(), environment(global), Keys::Required)?;
        // Checked before a private Postgres is made for a worker that could not work.
        config.require_providers()?;
        check(&config)?;
        let context = Self::connect(config, global, Keys::Required, reader).await?;
        context.require_schema().await?;
        Ok(context)
    }

    /// Opens the context without looking at the schema, for `sluice migrate`. A private Postgres is migrated
    /// nevertheless, because no operator looks after it.
    pub async fn open_any_schema(global: &GlobalArgs) -> anyhow::Result<Self> {
        Self::connect(without_keys(global)?, global, Keys::Ignored, Reader::Caller).await
    }

    async fn connect(config: Config, global: &GlobalArgs, keys: Keys, reader: Reader) -> anyhow::Result<Self> {
        let is_brief = reader == Reader::Caller && printable::stderr_is_terminal();
        let log = match telemetry::init(&log_settings(global, &config, keys, reader), is_brief) {
            Ok(log) => Some(log),
            Err(TelemetryError::Twice(_)) => None,
            Err(error) => return Err(error.into()),
        };
        if reader == Reader::Operator {
            for warning in &config.warnings {
                tracing::warn!("{warning}");
            }
        }
        let (address, private, keeper, pooler) = if let Some(url) = &config.database.url {
            // The URL is not repeated in the error: it may hold a password.
            let address: Address = url.expose_secret().parse().context("database.url")?;
            (address.set_by(&config.database.url_set_by), None, None, config.database.pooler)
        } else {
            let options = Options {
                data_dir: config.database.data_dir.clone(),
                fsync: true,
                max_connections: PRIVATE_CONNECTIONS.max(config.database.max_connections),
            };
            let is_told = keys == Keys::Required && reader == Reader::Caller;
            if is_told && !EmbeddedPostgres::runs_in(&options.data_dir).await {
                // The first start makes the cluster, which takes seconds: the user is told what they go into.
                Output::new(global)
                    .note(format_args!("starting the private Postgres in {}", options.data_dir.display()));
            }
            let private = EmbeddedPostgres::start(&options)
                .await
                .context("no database.url is configured, so a private Postgres is kept, and it could not be started")?;
            let address = Address::of(private.connect_options("sluice"));
            let keeper = (keys == Keys::Required).then(|| Keeper::of(options));
            (address, Some(private), keeper, Pooler::None)
        };
        // Commands that only read may read from a standby.
        let purpose = if keys == Keys::Required { Purpose::Work } else { Purpose::Commands };
        let connect = async || Store::connect_through(pooler, purpose, &address, config.database.max_connections).await;
        let (store, signals) = match Box::pin(connect()).await {
            Err(error) if error.takes_no_writes() && reader == Reader::Operator => {
                Box::pin(until_writable(error, connect)).await?
            }
            connected => (connected?, None),
        };
        if store.is_pooled() {
            tracing::info!("a pooler is between this process and Postgres: every statement is a transaction");
        }
        let reach = Reach { pooler, address };
        Ok(Self { config, store, output: Output::new(global), reach, private, keeper, signals, _log: log })
    }

    async fn require_schema(&self) -> Result<(), StoreError> {
        match self.store.require_schema().await {
            Err(StoreError::NotMigrated | StoreError::Outdated { .. }) if self.private.is_some() => {
                self.store.migrate().await.map(|_| ())
            }
            looked => looked,
        }
    }

    /// The signals, from now on or since the daemon began to wait for its database.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn listen(&mut self) -> std::io::Result<Signals> {
        self.signals.take().map_or_else(Signals::listen, Ok)
    }

    /// The URL of the private Postgres, without a password, as `psql` takes it; `None`: there is another database.
    #[must_use]
    pub fn private_url(&self) -> Option<String> {
        self.private.as_ref().map(|private| private.url("sluice"))
    }

    /// Whether the database is the private one.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.private.is_some()
    }

    /// Finishes the output and leaves the database. A private Postgres that no other process uses stops.
    pub async fn close(mut self) -> anyhow::Result<()> {
        let written = self.output.finish();
        self.store.close().await;
        if let Some(keeper) = self.keeper.take() {
            keeper.stop().await;
        }
        if let Some(private) = self.private.take() {
            private.stop().await?;
        }
        Ok(written?)
    }
}

/// The configuration, for a command that calls no provider.
fn without_keys(global: &GlobalArgs) -> Result<Config, ConfigErrors> {
    Config::load_with(global.config.as_deref(), environment(global), Keys::Ignored)
}

/// Connects as soon as the server takes writes: during a failover a standby may answer. Until then the daemon waits and
/// listens to signals.
async fn until_writable(
    mut refused: StoreError,
    connect: impl AsyncFn() -> Result<Store, StoreError>,
) -> anyhow::Result<(Store, Option<Signals>)> {
    let signals = Signals::listen()?;
    tracing::warn!(error = %refused, "the worker waits until its database takes writes");
    loop {
        tokio::select! {
            () = tokio::time::sleep(ASK_EVERY) => {}
            () = signals.stop.cancelled() => return Err(refused.into()),
        }
        match Box::pin(connect()).await {
            Ok(store) => {
                tracing::info!("the database takes writes now");
                return Ok((store, Some(signals)));
            }
            // The earlier refusal may be over while the address leads nowhere: that passes too.
            Err(error @ StoreError::Connect { .. }) => refused = error,
            Err(error) => return Err(error.into()),
        }
    }
}

/// The variables that configuration is read from, with those of the command line over them.
pub fn environment(global: &GlobalArgs) -> impl Iterator<Item = (String, String)> + use<> {
    let url = global.database_url.clone().map(|url| (config::DATABASE_URL_OPTION.to_owned(), url));
    config::process_environment().chain(url)
}

/// The settings of the log: a daemon logs its work, a command only warnings and errors.
fn log_settings(global: &GlobalArgs, config: &Config, keys: Keys, reader: Reader) -> config::Log {
    let mut log = config.log.clone();
    if keys != Keys::Required {
        log.dir = None;
        "warn,sqlx=error".clone_into(&mut log.filter);
    } else if reader == Reader::Caller && log.filter == config::Log::default().filter {
        "warn".clone_into(&mut log.filter);
    }
    match (global.quiet, global.verbose) {
        (true, _) => "error".clone_into(&mut log.filter),
        (false, 0) => {}
        (false, 1) => "info,sluice=debug".clone_into(&mut log.filter),
        (false, _) => "debug".clone_into(&mut log.filter),
    }
    match global.log_format {
        Some(LogFormat::Human) => log.format = config::LogFormat::Human,
        Some(LogFormat::Json) => log.format = config::LogFormat::Json,
        None => {}
    }
    log
}
