//! What is read from a running haft as it is: `haft health` and `haft metrics`.

use std::process::ExitCode;
use std::time::Duration;

use super::target::{Target, TargetError};

/// Say whether haft is healthy: exit code 0 if it is, 1 if not
///
/// It is if a new connection would find a worker that is ready. For a container's health check: HEALTHCHECK CMD haft
/// health.
#[derive(Debug, clap::Args)]
pub(super) struct HealthCommand {
    #[command(flatten)]
    target: Target,

    /// Ask only whether the master answers, whatever its workers do
    #[arg(long)]
    live: bool,

    /// How long an answer is waited for
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// Print the metrics, in the text format of Prometheus
#[derive(Debug, clap::Args)]
pub(super) struct Metrics {
    #[command(flatten)]
    target: Target,
}

impl HealthCommand {
    pub(super) fn run(self) -> ExitCode {
        let page = if self.live { "/healthz" } else { "/readyz" };
        let asked = self.target.find().and_then(|found| Ok(found.client.with_patience(self.timeout).get(page)?));
        match asked {
            Ok(answer) if answer.status.is_success() => super::print(answer.body.as_bytes()),
            Ok(answer) => {
                super::print(answer.body.as_bytes());
                ExitCode::FAILURE
            }
            Err(error) => {
                super::report(Err(error));
                // Whatever is wrong, it is not healthy.
                ExitCode::FAILURE
            }
        }
    }
}

impl Metrics {
    pub(super) fn run(self) -> ExitCode {
        super::report(self.target.find().and_then(|found| match found.client.get("/metrics")? {
            answer if answer.status.is_success() => Ok(answer.body),
            answer => Err(TargetError::Other(answer.body.trim_end().to_owned())),
        }))
    }
}
