//! What `haft top` knows and shows, without a terminal: states of a master and keys go in, rows and wishes come out. Pure.

use std::cmp::Reverse;
use std::collections::VecDeque;

use ratatui::crossterm::event::KeyCode;

use crate::commands::logs::WorkerLine;
use crate::commands::view::{SlotView, Status};
use crate::config::MAX_WORKERS;

/// Looks that are remembered: as many as a chart can be wide.
const MAX_LOOKS: usize = 300;
/// Events that are remembered.
const MAX_EVENTS: usize = 100;

/// What may be wanted of the master. It is asked for once more before it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeRequest {
    Reload,
    Scale(usize),
    Drain(usize),
    Undrain(usize),
    Restart(usize),
}

impl ChangeRequest {
    /// How it is asked for on the admin listener.
    pub fn path(self) -> String {
        match self {
            Self::Reload => "/reload".to_owned(),
            Self::Scale(workers) => format!("/scale?workers={workers}"),
            Self::Drain(slot) => format!("/drain?slot={slot}"),
            Self::Undrain(slot) => format!("/undrain?slot={slot}"),
            Self::Restart(slot) => format!("/restart?slot={slot}"),
        }
    }

    /// What the operator is asked.
    pub fn question(self) -> String {
        match self {
            Self::Reload => "Reload: new workers in all slots, one after another?".to_owned(),
            Self::Scale(workers) => format!("Have {workers} workers from now on?"),
            Self::Drain(slot) => format!("Drain slot {slot}: no new connections?"),
            Self::Undrain(slot) => format!("Give slot {slot} connections again?"),
            Self::Restart(slot) => format!("Give slot {slot} a new worker?"),
        }
    }
}

/// What is on the screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Screen {
    Table,
    /// A slot alone, with its last lines.
    Detail(usize),
    /// The question before a wish is done.
    Ask(ChangeRequest),
    /// A filter is being typed.
    Filter,
    Help,
}

/// What a key comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyOutcome {
    Nothing,
    Quit,
    Do(ChangeRequest),
}

/// By what rows are sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    Slot,
    Cpu,
    Memory,
    Delay,
    Connections,
    Rate,
    Restarts,
}

impl Sort {
    const ALL: [Self; 7] =
        [Self::Slot, Self::Cpu, Self::Memory, Self::Delay, Self::Connections, Self::Rate, Self::Restarts];

    fn next(self) -> Self {
        let at = Self::ALL.iter().position(|sort| *sort == self).unwrap_or(0);
        Self::ALL[(at + 1) % Self::ALL.len()]
    }

    /// The heading of its column.
    pub fn heading(self) -> &'static str {
        match self {
            Self::Slot => "SLOT",
            Self::Cpu => "CPU%",
            Self::Memory => "MEM",
            Self::Delay => "LOOP",
            Self::Connections => "CONN",
            Self::Rate => "RATE",
            Self::Restarts => "RST",
        }
    }
}

/// A slot as it is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub slot: SlotView,
    /// Share of one CPU in per cent, between the last two looks.
    pub cpu: Option<f64>,
    pub memory: Option<u64>,
    /// The 99th percentile of the event loop's delay, in milliseconds.
    pub delay: Option<f64>,
    pub connections: Option<u64>,
    pub sessions: Option<u64>,
    /// Connections a second, between the last two looks.
    pub rate: f64,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopEvent {
    /// When it was seen, in seconds since 1970.
    pub unix_time: u64,
    pub text: String,
}

/// What is known of a master over time, and what is shown of it.
#[derive(Debug)]
pub struct Model {
    pub status: Status,
    pub rows: Vec<Row>,
    pub events: VecDeque<TopEvent>,
    /// Of each look: connections a second, per cent of one CPU in all workers, open connections.
    pub rates: VecDeque<u64>,
    pub cpus: VecDeque<u64>,
    pub open: VecDeque<u64>,
    /// The last lines of the slot that is looked at.
    pub lines: Vec<WorkerLine>,
    pub screen: Screen,
    pub sort: Sort,
    pub filter: String,
    /// The row that is chosen.
    pub chosen: usize,
    /// The master's answer to the last request, or why there is none.
    pub message: Option<String>,
}

impl Model {
    /// After the first look.
    pub fn new(status: Status) -> Self {
        let mut model = Self {
            status: status.clone(),
            rows: Vec::new(),
            events: VecDeque::new(),
            rates: VecDeque::new(),
            cpus: VecDeque::new(),
            open: VecDeque::new(),
            lines: Vec::new(),
            screen: Screen::Table,
            sort: Sort::Slot,
            filter: String::new(),
            chosen: 0,
            message: None,
        };
        let mut last: Vec<TopEvent> = (status.slots.iter())
            .filter_map(|slot| Some((slot.slot, slot.last_exit.as_ref()?)))
            .map(|(slot, exit)| TopEvent {
                unix_time: exit.unix_time,
                text: format!("slot {slot}: a worker ended: {}", exit.description),
            })
            .collect();
        last.sort_by_key(|event| event.unix_time);
        last.into_iter().for_each(|event| model.note(event));
        model.rows = model.rows_since(None, 0.0);
        model
    }

    /// Takes in a later look, so many seconds after the one before.
    pub fn take(&mut self, status: Status, seconds: f64, unix_time: u64) {
        let before = std::mem::replace(&mut self.status, status);
        let happened = happenings(&before, &self.status);
        happened.into_iter().for_each(|text| self.note(TopEvent { unix_time, text }));
        self.rows = self.rows_since(Some(&before), seconds);
        let rate: f64 = self.rows.iter().map(|row| row.rate).sum();
        let cpu: f64 = self.rows.iter().filter_map(|row| row.cpu).sum();
        let open: u64 = self.rows.iter().filter_map(|row| row.connections).sum();
        for (looks, now) in [(&mut self.rates, rate as u64), (&mut self.cpus, cpu as u64), (&mut self.open, open)] {
            looks.push_back(now);
            looks.drain(..looks.len().saturating_sub(MAX_LOOKS));
        }
    }

    fn note(&mut self, event: TopEvent) {
        self.events.push_back(event);
        self.events.drain(..self.events.len().saturating_sub(MAX_EVENTS));
    }

    fn rows_since(&self, before: Option<&Status>, seconds: f64) -> Vec<Row> {
        let old = |slot: &SlotView| before.and_then(|before| before.slots.iter().find(|old| old.slot == slot.slot));
        self.status.slots.iter().map(|slot| row(slot, old(slot), seconds)).collect()
    }

    /// The rows in the order in which they are shown.
    pub fn shown(&self) -> Vec<&Row> {
        let matches = |row: &&Row| {
            let slot = &row.slot;
            let exit = slot.last_exit.as_ref().map_or("", |exit| exit.description.as_str());
            let text = format!("{} {} {} {exit}", slot.slot, slot.condition(), slot.pid.unwrap_or(0));
            text.to_lowercase().contains(&self.filter.to_lowercase())
        };
        let mut rows: Vec<&Row> = self.rows.iter().filter(matches).collect();
        let tenths = |number: Option<f64>| (number.unwrap_or(-1.0) * 10.0) as i64;
        match self.sort {
            Sort::Slot => {}
            Sort::Cpu => rows.sort_by_key(|row| Reverse(tenths(row.cpu))),
            Sort::Memory => rows.sort_by_key(|row| Reverse(row.memory)),
            Sort::Delay => rows.sort_by_key(|row| Reverse(tenths(row.delay))),
            Sort::Connections => rows.sort_by_key(|row| Reverse(row.connections)),
            Sort::Rate => rows.sort_by_key(|row| Reverse(tenths(Some(row.rate)))),
            Sort::Restarts => rows.sort_by_key(|row| Reverse(row.slot.restarts())),
        }
        rows
    }

    /// The slot of the row that is chosen.
    pub fn chosen_slot(&self) -> Option<&SlotView> {
        let shown = self.shown();
        shown.get(self.chosen.min(shown.len().saturating_sub(1))).map(|row| &row.slot)
    }

    /// How many slots have a worker of the newest generation, while a reload is under way.
    pub fn reload_progress(&self) -> Option<(usize, usize)> {
        let under_way = self.status.reload.as_ref().is_some_and(|reload| reload.state == "under_way");
        let done = self.status.slots.iter().filter(|slot| slot.generation == self.status.generation).count();
        under_way.then_some((done, self.status.slots.len()))
    }

    /// A key was pressed.
    pub fn key(&mut self, key: KeyCode) -> KeyOutcome {
        match self.screen.clone() {
            Screen::Ask(wish) => {
                self.screen = Screen::Table;
                if matches!(key, KeyCode::Char('y' | 'Y')) { KeyOutcome::Do(wish) } else { KeyOutcome::Nothing }
            }
            Screen::Filter => {
                match key {
                    KeyCode::Enter => self.screen = Screen::Table,
                    KeyCode::Esc => {
                        self.filter.clear();
                        self.screen = Screen::Table;
                    }
                    KeyCode::Backspace => _ = self.filter.pop(),
                    KeyCode::Char(letter) if self.filter.len() < 40 => self.filter.push(letter),
                    _ => {}
                }
                self.chosen = 0;
                KeyOutcome::Nothing
            }
            Screen::Help => {
                self.screen = Screen::Table;
                KeyOutcome::Nothing
            }
            Screen::Table | Screen::Detail(_) => self.key_on_table(key),
        }
    }

    fn key_on_table(&mut self, key: KeyCode) -> KeyOutcome {
        let last = self.shown().len().saturating_sub(1);
        let chosen = self.chosen_slot().map(|slot| (slot.slot, slot.drained));
        let slots = self.status.slots.len();
        self.message = None;
        match key {
            KeyCode::Char('q') => return KeyOutcome::Quit,
            KeyCode::Esc if self.screen == Screen::Table => return KeyOutcome::Quit,
            KeyCode::Esc | KeyCode::Left => self.screen = Screen::Table,
            KeyCode::Down | KeyCode::Char('j') => self.chosen = (self.chosen + 1).min(last),
            KeyCode::Up | KeyCode::Char('k') => self.chosen = self.chosen.min(last).saturating_sub(1),
            KeyCode::Home => self.chosen = 0,
            KeyCode::End => self.chosen = last,
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('/') => self.screen = Screen::Filter,
            KeyCode::Char('?' | 'h') => self.screen = Screen::Help,
            KeyCode::Char('r') => self.screen = Screen::Ask(ChangeRequest::Reload),
            KeyCode::Char('+') if slots < MAX_WORKERS => self.screen = Screen::Ask(ChangeRequest::Scale(slots + 1)),
            KeyCode::Char('-') if slots > 1 => self.screen = Screen::Ask(ChangeRequest::Scale(slots - 1)),
            KeyCode::Enter | KeyCode::Right => {
                if let Some((slot, _)) = chosen {
                    (self.screen, self.lines) = (Screen::Detail(slot), Vec::new());
                }
            }
            KeyCode::Char('d') => {
                if let Some((slot, drained)) = chosen {
                    self.screen =
                        Screen::Ask(if drained { ChangeRequest::Undrain(slot) } else { ChangeRequest::Drain(slot) });
                }
            }
            KeyCode::Char('R') => {
                if let Some((slot, _)) = chosen {
                    self.screen = Screen::Ask(ChangeRequest::Restart(slot));
                }
            }
            _ => {}
        }
        if let (Screen::Detail(slot), Some(now)) = (&self.screen, self.chosen_slot().map(|slot| slot.slot))
            && *slot != now
        {
            (self.screen, self.lines) = (Screen::Detail(now), Vec::new());
        }
        KeyOutcome::Nothing
    }
}

fn row(slot: &SlotView, old: Option<&SlotView>, seconds: f64) -> Row {
    let since = |new: f64, old: f64| if seconds > 0.0 { ((new - old) / seconds).max(0.0) } else { 0.0 };
    let same = old.filter(|old| old.worker == slot.worker && seconds > 0.0);
    let cpu =
        same.and_then(|old| Some(100.0 * since(slot.process.as_ref()?.cpu_seconds, old.process.as_ref()?.cpu_seconds)));
    Row {
        cpu,
        memory: slot.process.as_ref().map(|process| process.resident_bytes),
        delay: slot.loop_delay(),
        connections: slot.connections(),
        sessions: slot.all_sessions(),
        rate: old.map_or(0.0, |old| since(slot.delivered as f64, old.delivered as f64)),
        slot: slot.clone(),
    }
}

/// Whether workers of the slot were replaced for this, since it was so.
fn is_more(old: &SlotView, cause: &str, count: u64) -> bool {
    cause != "reload" && count > old.replaced.get(cause).copied().unwrap_or(0)
}

/// What has happened between two looks, in words.
fn happenings(before: &Status, now: &Status) -> Vec<String> {
    let mut texts = Vec::new();
    for slot in &now.slots {
        let Some(old) = before.slots.iter().find(|old| old.slot == slot.slot) else { continue };
        let name = format!("slot {}", slot.slot);
        let exit = slot.last_exit.as_ref().map_or("unknown", |exit| exit.description.as_str());
        if slot.respawned > old.respawned {
            texts.push(format!("{name}: its worker died ({exit}) and was replaced"));
        } else if let Some((cause, _)) = slot.replaced.iter().find(|(cause, count)| is_more(old, cause, **count)) {
            texts.push(format!("{name}: its worker was replaced ({cause})"));
        } else if slot.worker != old.worker && slot.worker > 0 {
            texts.push(format!("{name}: worker {} of generation {}", slot.worker, slot.generation));
        }
        for (was, is, what, over) in [
            (old.hung, slot.hung, "its worker hangs", "its worker answers again"),
            (old.drained, slot.drained, "drained", "takes its clients again"),
            (old.kept_out, slot.kept_out, "kept out: its workers ended too often", "gets workers again"),
        ] {
            if was != is {
                texts.push(format!("{name}: {}", if is { what } else { over }));
            }
        }
    }
    if before.slots.len() != now.slots.len() {
        texts.push(format!("from {} to {} slots", before.slots.len(), now.slots.len()));
    }
    for (reason, count) in &now.refused {
        let more = count.saturating_sub(before.refused.get(reason).copied().unwrap_or(0));
        if more > 0 {
            texts.push(format!("{more} connections refused: {reason}"));
        }
    }
    let is_active = |status: &Status, name: &str| status.alarms.iter().any(|alarm| alarm.alarm == name && alarm.active);
    for alarm in &now.alarms {
        match (is_active(before, &alarm.alarm), alarm.active) {
            (false, true) => texts.push(format!("alarm: {}", alarm.line.as_deref().unwrap_or(&alarm.alarm))),
            (true, false) => texts.push(format!("over: {}", alarm.alarm)),
            _ => {}
        }
    }
    let state = |status: &Status| status.reload.as_ref().map(|reload| (reload.state.clone(), reload.unix_time));
    if let Some(reload) = now.reload.as_ref().filter(|_| state(before) != state(now)) {
        texts.push(reload.description.clone());
    }
    if now.stopping && !before.stopping {
        texts.push("haft stops".to_owned());
    }
    texts
}
