//! Postgres's own programs, run on the database of this configuration.

use super::context::Context;
use crate::config::Config;
use crate::embedded::client_program;
use crate::store::Address;
use anyhow::Context as _;
use secrecy::{ExposeSecret as _, SecretString};
use std::path::{Path, PathBuf};
use tokio::process::Command;

/// The database as those programs are told of it.
pub(super) struct Place {
    /// A URL without a password: other users see the arguments of a process.
    pub(super) url: String,
    /// Goes by way of the environment, which they do not see.
    password: Option<SecretString>,
    /// The folder of the private Postgres, if it is that.
    pub(super) private: Option<PathBuf>,
}

impl Place {
    /// The place that a configured URL leads to; `None`: there is a private Postgres.
    pub(super) fn configured(config: &Config) -> anyhow::Result<Option<Self>> {
        let Some(url) = &config.database.url else { return Ok(None) };
        let (url, password) = Address::for_programs(url.expose_secret()).context("database.url")?;
        Ok(Some(Self { url, password, private: None }))
    }

    /// A private Postgres in this folder.
    pub(super) fn private(url: String, dir: &Path) -> Self {
        Self { url, password: None, private: Some(dir.to_owned()) }
    }

    /// The place that a context is connected to.
    pub(super) fn of(context: &Context) -> anyhow::Result<Self> {
        if let Some(place) = Self::configured(&context.config)? {
            return Ok(place);
        }
        let url = context.private_url().context("there is neither a URL nor a private Postgres")?;
        Ok(Self::private(url, &context.config.database.data_dir))
    }

    /// Whether the URL of the configuration has a password, which [`url`](Self::url) lacks.
    pub(super) fn has_password(&self) -> bool {
        self.password.is_some()
    }

    /// The path of one of the programs.
    pub(super) async fn program(&self, name: &'static str) -> anyhow::Result<PathBuf> {
        Ok(client_program(name, self.private.as_deref()).await?)
    }

    /// The program, told of the database.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.arg("--dbname").arg(&self.url).kill_on_drop(true);
        if let Some(password) = &self.password {
            command.env("PGPASSWORD", password.expose_secret());
        }
        command
    }
}
