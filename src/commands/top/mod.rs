//! `haft top`: a running haft on the screen of a terminal, again each second.

mod detail;
mod model;
mod screen;

#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use self::model::{ChangeRequest, KeyOutcome, Model, Screen};
use super::client::{Client, ClientError};
use super::logs;
use super::target::{RunningHaft, Target, TargetError};
use super::view::Status;
use crate::log;

/// How often the master is asked.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long it may take to answer: keys wait as long.
const PATIENCE: Duration = Duration::from_secs(2);

/// Watch a running haft: slots, workers, connections, each second
///
/// Keys reload, scale, drain and restart, and ask first. NO_COLOR in the environment turns colours off.
#[derive(Debug, clap::Args)]
pub(super) struct Top {
    #[command(flatten)]
    target: Target,
}

impl Top {
    pub(super) fn run(self) -> ExitCode {
        if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
            let why = "top: it needs a terminal; `haft status` shows the same once, `haft status --json` all of it";
            return super::report(Err(TargetError::Other(why.to_owned())));
        }
        if std::env::var_os("TERM").is_some_and(|term| term == "dumb") {
            let why = "top: this terminal (TERM=dumb) cannot move its cursor; `haft status` shows the same once";
            return super::report(Err(TargetError::Other(why.to_owned())));
        }
        let found = match self.target.find() {
            Ok(found) => found,
            Err(error) => return super::report(Err(error)),
        };
        let mut terminal = match ratatui::try_init() {
            Ok(terminal) => terminal,
            Err(error) => {
                return super::report(Err(TargetError::Other(format!("the terminal cannot be used: {error}"))));
            }
        };
        let outcome = watch(&mut terminal, &self.target, found);
        ratatui::restore();
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => super::report(Err(TargetError::Other(format!("the terminal cannot be used: {error}")))),
        }
    }
}

fn watch(
    terminal: &mut DefaultTerminal,
    target: &Target,
    RunningHaft { client, status }: RunningHaft,
) -> io::Result<()> {
    let mut client = client.with_patience(PATIENCE);
    let coloured = log::terminal_has_colours();
    let (mut model, mut looked) = (Model::new(status), Instant::now());
    loop {
        terminal.draw(|frame| screen::draw(frame, &model, coloured))?;
        let left = LOOK_EVERY.saturating_sub(looked.elapsed());
        if event::poll(left)? {
            let outcome = match event::read()? {
                Event::Key(key) if key.kind == KeyEventKind::Release => KeyOutcome::Nothing,
                Event::Key(key) if key.code == KeyCode::Char('c') && key.modifiers == KeyModifiers::CONTROL => {
                    KeyOutcome::Quit
                }
                Event::Key(key) => model.key(key.code),
                // It is drawn again in its new size.
                _ => KeyOutcome::Nothing,
            };
            match outcome {
                KeyOutcome::Quit => return Ok(()),
                KeyOutcome::Do(wish) => model.message = Some(wished(&client, wish)),
                KeyOutcome::Nothing => {}
            }
        }
        if looked.elapsed() >= LOOK_EVERY {
            let is_there = look(&mut model, &client, looked.elapsed());
            if !is_there && let Ok(next) = target.find_successor(&model.status.name) {
                client = next.client.with_patience(PATIENCE);
            }
            looked = Instant::now();
        }
    }
}

/// Returns whether the haft still runs.
fn look(model: &mut Model, client: &Client, since: Duration) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let status = Status::of(client);
    let is_there = !matches!(status, Err(TargetError::Client(ClientError::Gone(_))));
    match status {
        Ok(status) => {
            model.message.take_if(|message| message.starts_with(NO_ANSWER));
            model.take(status, since.as_secs_f64(), now);
        }
        Err(error) => model.message = Some(format!("{NO_ANSWER}{error}")),
    }
    if let Screen::Detail(slot) = model.screen
        && let Ok(lines) = logs::read(client, 0, Some(slot as u64))
    {
        model.lines = lines;
    }
    is_there
}

/// What a message begins with that is over when there is an answer again.
const NO_ANSWER: &str = "no answer: ";

fn wished(client: &Client, wish: ChangeRequest) -> String {
    match client.post(&wish.path()) {
        Ok(answer) => super::change::said(&answer.body),
        Err(error) => error.to_string(),
    }
}
