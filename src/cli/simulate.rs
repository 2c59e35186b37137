//! `sluice simulate`: the provider simulator as a command.

use super::GlobalArgs;
use super::output::{Dispensable, Format, OutputError};
use crate::exit_code::ExitCode;
use crate::printable::{self, Notation, Printable};
use crate::shutdown::Signals;
use crate::simulate::{Scenario, Simulator, Verdict};
use anyhow::{Context, bail};
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Simulate OpenAI, Anthropic and Gemini on a local address, with quotas and faults.
///
/// Configure the base URLs that are printed, run your load, and press Ctrl-C: the verdict goes to standard output.
/// While it runs, GET /_sim/verdict tells the same.
///
/// The verdict is JSON unless --format says plain or table. Exit status: 0 the verdict is clean, 8 it is not.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Address to listen on; port 0 takes any free port. Loopback only.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8089")]
    pub listen: SocketAddr,

    /// Scenario to play (TOML); without it, the one of config/simulate.toml.
    #[arg(long, value_name = "FILE")]
    pub scenario: Option<PathBuf>,

    /// Threads that serve; the scenario's worker_threads when absent.
    #[arg(long, value_name = "N")]
    pub worker_threads: Option<usize>,
}

/// Serves until Ctrl-C or SIGTERM, then prints the verdict.
///
/// # Errors
/// A scenario that cannot be read or is inconsistent, an address that is not loopback or is taken.
pub async fn run(args: Args, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    // Before the address answers: from then on the simulator may be told to stop, and owes a verdict.
    let signals = Signals::listen().context("listening for Ctrl-C")?;
    let simulator = start(&args)?;
    announce(&simulator, &mut Dispensable(printable::stderr())).context("writing to standard error")?;
    signals.stop.cancelled().await;
    let verdict = simulator.verdict();
    simulator.stop();
    let format = global.format.unwrap_or(Format::Json);
    let printed = render(&verdict, format)?;
    let notation = if format == Format::Json { Notation::Json } else { Notation::Text };
    Printable::new(printable::stdout(), notation).write_all(printed.as_bytes()).map_err(OutputError)?;
    Ok(if verdict.clean { ExitCode::Success } else { ExitCode::NotClean })
}

/// Reads the scenario and starts the simulator.
///
/// # Errors
/// As [`run`].
pub fn start(args: &Args) -> anyhow::Result<Simulator> {
    let listen = args.listen;
    if !listen.ip().is_loopback() {
        bail!(
            "--listen {listen}: the simulator listens on loopback only, because it answers every caller and checks no \
             keys; use 127.0.0.1:{} or [::1]:{}",
            listen.port(),
            listen.port()
        );
    }
    let mut scenario = args.scenario.as_deref().map_or_else(|| Ok(Scenario::example()), read)?;
    if let Some(worker_threads) = args.worker_threads {
        scenario.worker_threads = worker_threads;
    }
    match Simulator::start(scenario, listen) {
        Ok(simulator) => Ok(simulator),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => bail!(
            "{listen} is in use by another program: stop it, or choose another address with --listen \
             (port 0 takes any free port)"
        ),
        Err(error) => Err(error).with_context(|| format!("starting the simulator on {listen}")),
    }
}

fn read(path: &Path) -> anyhow::Result<Scenario> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading the scenario {}", path.display()))?;
    Scenario::from_toml(&text).with_context(|| format!("in the scenario {}", path.display()))
}

fn announce(simulator: &Simulator, out: &mut impl io::Write) -> io::Result<()> {
    let address = simulator.addr();
    writeln!(out, "simulator listening on http://{address}; verdict at http://{address}/_sim/verdict")?;
    for (name, provider) in &simulator.scenario().providers {
        let url = simulator.base_url(name).unwrap_or_default();
        let dialect = provider.dialect.name();
        writeln!(out, "  {name:<12} dialect = {dialect:<10} base_url = \"{url}\"")?;
    }
    writeln!(out, "press Ctrl-C for the verdict")
}

fn render(verdict: &Verdict, format: Format) -> anyhow::Result<String> {
    if format == Format::Json {
        return Ok(serde_json::to_string_pretty(verdict).context("writing the verdict as JSON")? + "\n");
    }
    let total = &verdict.total;
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<26} {value}");
    };
    line("clean", if verdict.clean { "yes".to_owned() } else { format!("no: {}", verdict.reasons.join("; ")) });
    line("calls", total.calls.to_string());
    line("distinct requests", verdict.distinct_requests.to_string());
    line("answered well", verdict.answered_requests.to_string());
    line("answered more than once", verdict.answered_twice.to_string());
    line("most calls of one request", verdict.max_calls_per_request.to_string());
    line("most calls at once", total.max_concurrency.to_string());
    line("429 answers", total.rate_limited.to_string());
    line("early retries", total.early_retries.to_string());
    line("storms", total.storms.to_string());
    line("retried non-retryables", total.retried_non_retryables.to_string());
    line("calls after out of quota", total.calls_after_out_of_quota.to_string());
    line("malformed requests", total.malformed_requests.to_string());
    line("abandoned calls", total.abandoned.to_string());
    line("tokens charged", format!("{} in, {} out", total.input_tokens, total.output_tokens));
    line("charged", dollars(total.charged_nano_usd));
    line("generated, not delivered", format!("{} calls, {}", total.lost_calls, dollars(total.lost_nano_usd)));
    Ok(text)
}

fn dollars(nanos: u64) -> String {
    format!("${}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(listen: &str) -> Args {
        let listen = listen.parse().unwrap();
        Args { listen, scenario: None, worker_threads: None }
    }

    #[test]
    fn it_says_where_each_provider_is() {
        let simulator = start(&args("127.0.0.1:0")).unwrap();
        let mut said = Vec::new();
        announce(&simulator, &mut said).unwrap();
        let (said, port) = (String::from_utf8(said).unwrap(), simulator.addr().port());
        for path in ["openai/v1", "anthropic/v1", "gemini/v1beta"] {
            assert!(said.contains(&format!("base_url = \"http://127.0.0.1:{port}/{path}\"")), "{said}");
        }
    }

    #[test]
    fn an_address_that_is_taken_is_named_with_what_to_do() {
        let first = start(&args("127.0.0.1:0")).unwrap();
        let error = start(&args(&first.addr().to_string())).unwrap_err().to_string();
        assert!(error.contains(&format!("{} is in use", first.addr())) && error.contains("--listen"), "{error}");
    }

    #[test]
    fn an_address_that_others_can_reach_is_refused() {
        let error = start(&args("0.0.0.0:8089")).unwrap_err().to_string();
        assert!(error.contains("loopback only") && error.contains("127.0.0.1:8089"), "{error}");
    }

    #[test]
    fn a_scenario_that_is_wrong_is_named_with_its_file_and_place() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[providers.a]\ndialect = \"openai\"\nlatnecy = {}\n").unwrap();
        let wrong = Args { scenario: Some(file.path().to_owned()), ..args("127.0.0.1:0") };
        let error = format!("{:#}", start(&wrong).unwrap_err());
        assert!(error.contains(&file.path().display().to_string()), "{error}");
        assert!(error.contains("line 3") && error.contains("latnecy"), "{error}");
        let missing = Args { scenario: Some("/nowhere.toml".into()), ..args("127.0.0.1:0") };
        assert!(start(&missing).unwrap_err().to_string().contains("/nowhere.toml"));
    }

    #[test]
    fn a_verdict_is_printed_as_json_or_as_text() {
        let simulator = start(&args("127.0.0.1:0")).unwrap();
        let verdict = simulator.verdict();
        let json: serde_json::Value = serde_json::from_str(&render(&verdict, Format::Json).unwrap()).unwrap();
        assert_eq!((json["clean"].as_bool(), json["calls"].as_u64()), (Some(true), Some(0)));
        assert!(render(&verdict, Format::Plain).unwrap().starts_with("clean "));
        assert_eq!(dollars(1_234_567), "$0.001234567");
    }
}
