//! `sluice migrate`: brings the schema up to this binary's version.

use super::GlobalArgs;
use super::context::Context;
use super::output::{Format, Output, OutputError};
use crate::domain::diagnosis::Roles;
use crate::exit_code::ExitCode;
use crate::store::SchemaVersion;
use crate::view::change::MigratedView;

/// Arguments of `sluice migrate`.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Args {
    /// Say what would be done and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Migrates, or says what a migration would do. Refuses a database that is too far ahead of this binary.
pub async fn run(args: Args, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let mut context = Context::open_any_schema(global).await?;
    let version = if args.dry_run { context.store.schema_version().await? } else { context.store.migrate().await? };
    if version.has_outgrown() {
        version.require()?;
    }
    // A schema that does not exist tells nothing about roles.
    let roles = if args.dry_run { Roles::default() } else { context.store.roles().await? };
    say(&mut context.output, version, args.dry_run, &roles)?;
    for fault in roles.faults() {
        context.output.warn(fault);
    }
    if !roles.remedy().is_empty() {
        context.output.note(format_args!("to set that right, {}", roles.remedy()));
    }
    context.close().await?;
    Ok(ExitCode::Success)
}

fn say(
    output: &mut Output,
    SchemaVersion { found, known, .. }: SchemaVersion,
    dry_run: bool,
    roles: &Roles,
) -> Result<(), OutputError> {
    if output.format() == Format::Json {
        return output.json(&MigratedView {
            from: found,
            to: found.max(known),
            dry_run,
            changed: found < known && !dry_run,
            missing_roles: &roles.missing,
            missing_rights: &roles.lacking,
        });
    }
    if found > known {
        return output.line(format_args!(
            "the schema is at version {found}, newer than this binary's {known}, which can live with it: nothing to do"
        ));
    }
    match (found < known, dry_run) {
        (false, _) => output.line(format_args!("the schema is at version {known}: nothing to do")),
        (true, true) => output.line(format_args!("would migrate from version {found} to {known}")),
        (true, false) => output.line(format_args!("migrated from version {found} to {known}")),
    }
}
