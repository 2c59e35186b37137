//! `sluice prices`: what models cost, and a newer catalogue.

use super::GlobalArgs;
use super::consent::consent;
use super::context::environment;
use super::failure::CommandFailure;
use super::output::Output;
use super::today;
use crate::config::{BUILT_IN, Block, Catalogue, Config, Fault, Keys};
use crate::domain::counted::counted;
use crate::domain::{Model, Target, Timestamp};
use crate::exit_code::ExitCode;
use crate::view::prices::{self, Changed, Listed};
use anyhow::Context as _;
use chrono::{DateTime, Days};
use std::collections::BTreeSet;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// What to do.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub command: PricesCommand,
}

/// What to do with prices.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum PricesCommand {
    /// List what models cost now, in dollars per million tokens
    List {
        /// Only models of this vendor of the catalogue, or of this provider
        #[arg(long, value_name = "NAME")]
        vendor: Option<String>,
    },
    /// Show every price of a model: by day, hour, tier and length of prompt
    Show {
        /// The model: gpt-5, openai/gpt-5, or provider/model of the configuration
        model: String,
    },
    /// Take a newer catalogue
    ///
    /// The file is checked as a whole, and what changes is shown; then it is kept beside the configuration (or where
    /// prices.catalogue says), in place of one that was taken before. Of each vendor that block holds which was
    /// compared later (`as_of`): this file's, or that of the program, which a new version of it may bring. Entries of
    /// the configuration ([models]) go over both. Running workers take it when they read their configuration again
    /// (systemctl reload, SIGHUP).
    Update {
        /// The catalogue, in the form of config/prices.toml
        file: PathBuf,
        /// Show what would change, and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// Runs the command. It needs neither a database nor a key.
///
/// # Errors
/// A fault of a file; the user says no.
pub async fn run(args: Args, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let loaded = Config::load_with(global.config.as_deref(), environment(global), Keys::Ignored);
    let config = match (loaded, &args.command) {
        (Ok(config), _) => config,
        (Err(errors), PricesCommand::Update { .. }) if errors.faults().iter().all(is_of_catalogue) => {
            return Err(anyhow::Error::new(errors).context(
                "the catalogue that was taken before has faults: move that file away, and run the command again",
            ));
        }
        (Err(errors), _) => return Err(errors.into()),
    };
    let mut output = Output::new(global);
    let now = today::now();
    match args.command {
        PricesCommand::List { vendor } => {
            let all = listed(&config);
            let some: Vec<Listed<'_>> =
                all.into_iter().filter(|listed| vendor.as_deref().is_none_or(|vendor| vendor == listed.of)).collect();
            if let Some(vendor) = vendor.filter(|_| some.is_empty()) {
                let known = config.prices.catalogue.blocks.keys().cloned().collect::<Vec<_>>().join(", ");
                let message = format!("no price is known of a vendor or provider {vendor:?}; there are: {known}");
                return Err(CommandFailure::not_found(message).into());
            }
            output.table(&prices::list(&some, now))?;
        }
        PricesCommand::Show { model } => {
            let all = listed(&config);
            let is_named =
                |listed: &&Listed<'_>| listed.name == model || model.split_once('/') == Some((listed.of, listed.name));
            let found: Vec<&Listed<'_>> = all.iter().filter(is_named).collect();
            if found.is_empty() {
                return Err(CommandFailure::not_found(format!(
                    "no price is known of a model {model:?}; `sluice prices list` shows those that are"
                ))
                .into());
            }
            for listed in found {
                let alias = listed.alias_of.map_or_else(String::new, |of| format!(", another name of {of}"));
                let as_of = if listed.as_of.is_empty() { String::new() } else { format!(", as of {}", listed.as_of) };
                let source = if listed.source.is_empty() { String::new() } else { format!(" ({})", listed.source) };
                output.note(format_args!("{}/{}{alias}: by {}{as_of}{source}", listed.of, listed.name, listed.origin));
                output.table(&prices::show(listed))?;
            }
        }
        PricesCommand::Update { file, dry_run, yes } => update(&config, &file, dry_run, yes, now, &mut output).await?,
    }
    output.finish()?;
    Ok(ExitCode::Success)
}

/// Whether a fault is one of the catalogue that stands beside the configuration.
fn is_of_catalogue(fault: &Fault) -> bool {
    Path::new(&fault.place).file_name().is_some_and(|name| name == "prices.toml")
}

/// The models to which the configuration itself gives a price, each with the vendor of its provider.
fn own(config: &Config) -> impl Iterator<Item = (&Target, &Model, Option<&str>)> {
    let of_vendor = |(target, model)| {
        let target: &Target = target;
        let provider = config.providers.get(&target.provider);
        (target, model, provider.and_then(|provider| provider.endpoint.vendor.as_deref()))
    };
    config.models.iter().map(of_vendor).filter(|(target, model, vendor)| {
        let known = vendor.and_then(|vendor| config.prices.catalogue.model(vendor, &target.model));
        // A model that a route names has the catalogue's price unless the configuration gives it another.
        model.is_priced() && known.is_none_or(|known| !is_same(&known, model))
    })
}

/// All models with a price: those of the configuration first.
fn listed(config: &Config) -> Vec<Listed<'_>> {
    let own = own(config).map(|(target, model, _)| Listed {
        of: &target.provider,
        name: &target.model,
        alias_of: None,
        model,
        as_of: String::new(),
        source: "",
        origin: "the configuration".to_owned(),
    });
    own.chain(config.prices.catalogue.blocks.iter().flat_map(|(vendor, block)| of_block(vendor, block))).collect()
}

fn of_block<'a>(vendor: &'a str, block: &'a Block) -> impl Iterator<Item = Listed<'a>> {
    block.models.iter().map(move |(name, entry)| Listed {
        of: vendor,
        name,
        alias_of: entry.alias_of.as_deref(),
        model: &entry.model,
        as_of: block.as_of.to_string(),
        source: &block.source,
        origin: block.file.as_deref().map_or_else(|| BUILT_IN.to_owned(), |file| file.display().to_string()),
    })
}

async fn update(
    config: &Config,
    file: &Path,
    dry_run: bool,
    yes: bool,
    now: Timestamp,
    output: &mut Output,
) -> anyhow::Result<()> {
    let Some(place) = &config.prices.file else {
        let message = "there is no configuration file beside which a catalogue could be kept: name one with --config";
        return Err(CommandFailure::usage(message).into());
    };
    let text = read(file)?;
    let newer = Catalogue::of_text(file, &text).map_err(|errors| refused(errors.faults()))?;
    let built_in = Catalogue::built_in();
    for said in of_days_to_come(&newer, now) {
        output.warn(said);
    }
    for vendor in newer.blocks.keys().filter(|vendor| !built_in.blocks.contains_key(*vendor)) {
        let mut providers = config.providers.values();
        if !providers.any(|provider| provider.endpoint.vendor.as_deref() == Some(vendor)) {
            output.warn(format!(
                "{vendor} is a vendor that the program does not know, and no provider of the configuration is of it \
                 (`vendor`): its prices hold for no call"
            ));
        }
    }
    let after = built_in.with(newer.clone());
    for (vendor, block) in &newer.blocks {
        if let Some(known) = built_in.blocks.get(vendor).filter(|known| known.as_of > block.as_of) {
            output.warn(format!(
                "{vendor} is as of {}, and that of the program as of {}: the program's goes on to hold",
                block.as_of, known.as_of
            ));
        }
    }
    let before = &config.prices.catalogue;
    for (vendor, _) in
        before.blocks.iter().filter(|(vendor, block)| block.file.is_some() && !newer.blocks.contains_key(*vendor))
    {
        output.warn(format!(
            "{vendor} is not in {}: its block of the former file goes, and what the program has of it holds",
            file.display()
        ));
    }
    let changes = differences(before, &after, now);
    let overridden = overridden(config, &changes);
    if !overridden.is_empty() {
        output.warn(format!(
            "the configuration has prices of its own for {}, which go on to hold",
            overridden.iter().map(|target| format!("[models.\"{target}\"]")).collect::<Vec<_>>().join(", ")
        ));
    }
    let count = changes.len();
    output.table(&prices::changes(changes))?;
    if dry_run {
        output.note(format_args!("{} would change", counted(count, "price", "prices")));
        return Ok(());
    }
    if !yes {
        // The changes are read before the question.
        output.finish()?;
        consent(&format!("change {} and keep the file as {}", counted(count, "price", "prices"), place.display()))
            .await?;
    }
    keep(place, &text, config.file.as_deref())
        .with_context(|| format!("keeping the catalogue as {}", place.display()))?;
    output.note(format_args!(
        "{} changed, by {}; workers take it when they read their configuration again",
        counted(count, "price", "prices"),
        place.display()
    ));
    Ok(())
}

/// The faults of a catalogue, which is a file that was given, and no part of the configuration yet.
fn refused(faults: &[Fault]) -> CommandFailure {
    let lines: Vec<String> = faults.iter().map(|fault| format!("\n  {fault}")).collect();
    CommandFailure::input(format!(
        "the catalogue has {}, and is not taken:{}",
        counted(faults.len(), "fault", "faults"),
        lines.concat()
    ))
}

/// The blocks of a day to come, each with what that means.
fn of_days_to_come(newer: &Catalogue, now: Timestamp) -> Vec<String> {
    let Some(today) = DateTime::from_timestamp_millis(now.0).map(|now| now.date_naive()) else { return Vec::new() };
    // East of here it may be tomorrow.
    let to_come = newer.blocks.iter().filter(|(_, block)| block.as_of > today + Days::new(1));
    let said = to_come.map(|(vendor, block)| {
        format!(
            "{vendor} is as of {}, a day to come: until then it goes over what newer versions of the program know",
            block.as_of
        )
    });
    said.collect()
}

/// The targets of the configuration whose own price goes over one that changes.
fn overridden(config: &Config, changes: &[Changed]) -> Vec<String> {
    let is_changed = |vendor: &str, model: &str| {
        changes.iter().any(|changed| (changed.vendor.as_str(), changed.model.as_str()) == (vendor, model))
    };
    let changed =
        own(config).filter(|(target, _, vendor)| vendor.is_some_and(|vendor| is_changed(vendor, &target.model)));
    changed.map(|(target, ..)| target.to_string()).collect()
}

fn read(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file)
        .map_err(|error| CommandFailure::input(format!("{}: cannot be read: {error}", file.display())).into())
}

/// Puts the file in its place at once, so that a worker reads the former one or this one. The users who may read the
/// configuration may read it, too: root often runs this command, and the worker is another user.
fn keep(place: &Path, text: &str, config: Option<&Path>) -> anyhow::Result<()> {
    let folder = place.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let mut new = tempfile_beside(folder, place)?;
    new.1.write_all(text.as_bytes())?;
    if let Some(like) = [Some(place), config].into_iter().flatten().find_map(|file| std::fs::metadata(file).ok()) {
        new.1.set_permissions(like.permissions())?;
        // Only root may give a file away; where that fails, the file stays this user's.
        let _ = std::os::unix::fs::fchown(&new.1, Some(like.uid()), Some(like.gid()));
    }
    new.1.sync_all()?;
    std::fs::rename(&new.0, place)?;
    Ok(())
}

fn tempfile_beside(folder: &Path, place: &Path) -> anyhow::Result<(PathBuf, std::fs::File)> {
    let name = place.file_name().context("it is no file")?.to_string_lossy();
    let path = folder.join(format!(".{name}.{}", std::process::id()));
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(&path)?;
    Ok((path, file))
}

/// The models whose terms differ.
fn differences(before: &Catalogue, after: &Catalogue, now: Timestamp) -> Vec<Changed> {
    let names = |catalogue: &Catalogue| -> BTreeSet<(String, String)> {
        let of = |(vendor, block): (&String, &Block)| {
            block.models.keys().map(|name| (vendor.clone(), name.clone())).collect::<Vec<_>>()
        };
        catalogue.blocks.iter().flat_map(of).collect()
    };
    let all: BTreeSet<(String, String)> = names(before).union(&names(after)).cloned().collect();
    let entry = |catalogue: &Catalogue, (vendor, name): &(String, String)| {
        Some(catalogue.blocks.get(vendor)?.models.get(name)?.model.clone())
    };
    let mut changes = Vec::new();
    for key in all {
        let (old, new) = (entry(before, &key), entry(after, &key));
        let what = match (&old, &new) {
            (None, Some(_)) => "new",
            (Some(_), None) => "gone",
            (Some(old), Some(new)) if is_same(old, new) => continue,
            _ => "changed",
        };
        let words = |model: Option<&Model>| model.map_or_else(String::new, |model| prices::in_words(model, now));
        let (before, after) = match (&old, &new) {
            (Some(old), Some(new)) => prices::both_in_words(old, new, now),
            _ => (words(old.as_ref()), words(new.as_ref())),
        };
        changes.push(Changed { vendor: key.0, model: key.1, what, before, after });
    }
    changes
}

fn is_same(old: &Model, new: &Model) -> bool {
    (&old.terms, &old.changes) == (&new.terms, &new.changes)
}
