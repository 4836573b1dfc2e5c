//! How `haft top` looks.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Borders, Cell, Clear, Gauge, Paragraph, Row as TableRow, Sparkline, Table, TableState};

use super::detail;
use super::model::{Model, Row, Screen, Sort};
use crate::commands::table::{age, bytes, clock, or_dash};
use crate::log::escaped;

/// From this width on there is room for what is less often asked for.
const WIDE: u16 = 110;
/// From this height on there are charts.
const TALL: u16 = 20;
/// Lines that a slot alone needs more than the table does.
const DETAIL_LINES: u16 = 12;
/// Alarms that are shown at once.
const MAX_ALARMS: usize = 3;

const HELP: &str = "\x20\
 j k, arrows   choose a slot          r    reload: new workers in all slots
 Enter         the slot alone         + -  one worker more, one fewer
 s             sort by the next       d    drain the slot, or end that
 /             show only what matches R    give the slot a new worker
 q, Esc        leave                  ?    this help

 CPU%  of one CPU; LOOP  event-loop delay, 99th percentile, ms; RATE
 connections a second; INFL  in flight and held; RST  restarts";

/// Draws all. `coloured`: whether the terminal is to show colours.
pub fn draw(frame: &mut Frame<'_>, model: &Model, coloured: bool) {
    let look = Palette { coloured };
    let area = frame.area();
    // A slot alone has much to say.
    let room =
        if matches!(model.screen, Screen::Detail(_)) { area.height.saturating_sub(DETAIL_LINES) } else { area.height };
    let charts = if room >= TALL { 4 } else { 0 };
    let events = if room >= TALL - 6 { 6 } else { 0 };
    let parts = [
        Constraint::Length(3 + model.status.alarm_lines().count().min(MAX_ALARMS) as u16),
        Constraint::Length(charts),
        Constraint::Min(3),
        Constraint::Length(events),
        Constraint::Length(1),
    ];
    let [header, chart, body, below, footer] = Layout::vertical(parts).areas(area);
    look.header(frame, header, model);
    if charts > 0 {
        look.charts(frame, chart, model);
    }
    match model.screen {
        Screen::Detail(slot) => look.detail(frame, body, model, slot),
        _ => look.table(frame, body, model),
    }
    if events > 0 {
        look.events(frame, below, model);
    }
    look.footer(frame, footer, model);
    match &model.screen {
        Screen::Ask(wish) => {
            look.popup(frame, " Sure? ", &format!(" {}\n\n y: yes, any other key: no", wish.question()))
        }
        Screen::Help => look.popup(frame, " Keys ", HELP),
        _ => {}
    }
}

struct Palette {
    coloured: bool,
}

impl Palette {
    fn colour(&self, colour: Color) -> Style {
        if self.coloured { Style::new().fg(colour) } else { Style::new() }
    }

    fn header(&self, frame: &mut Frame<'_>, area: Rect, model: &Model) {
        let status = &model.status;
        let mut first = status.heading();
        if let Some(process) = &status.process {
            first += &format!("  master {}", bytes(process.resident_bytes));
            let cpu = format!(" {:.1} s CPU", process.cpu_seconds);
            first += if first.len() + cpu.len() <= usize::from(area.width) { &cpu } else { "" };
        }
        let progress = model.reload_progress();
        let third = match (&model.message, status.stopping) {
            // The bar is there.
            _ if progress.is_some() => Line::default(),
            (Some(message), _) => Line::styled(escaped(message), self.colour(Color::Yellow)),
            (None, true) => Line::styled("haft is stopping", self.colour(Color::Yellow)),
            (None, false) => {
                // Without any, the line above says it.
                let refusals: Vec<String> = status.refusals().collect();
                if refusals.is_empty() {
                    Line::default()
                } else {
                    Line::raw(format!("refused {}", refusals.join(", ")))
                }
            }
        };
        let bold = Style::new().add_modifier(Modifier::BOLD);
        let mut lines = vec![Line::styled(first, bold), Line::raw(status.totals()), third];
        let red = self.colour(Color::Red).add_modifier(Modifier::BOLD);
        lines.extend(status.alarm_lines().map(|line| Line::styled(format!("! {line}"), red)));
        frame.render_widget(Text::from(lines), area);
        if let Some((done, of)) = progress {
            let [_, line, _] =
                Layout::vertical([Constraint::Length(2), Constraint::Length(1), Constraint::Min(0)]).areas(area);
            let gauge = Gauge::default()
                .gauge_style(self.colour(Color::Cyan))
                .ratio((done as f64 / of.max(1) as f64).min(1.0))
                .label(format!("reload: {done} of {of} slots"));
            frame.render_widget(gauge, line);
        }
    }

    fn charts(&self, frame: &mut Frame<'_>, area: Rect, model: &Model) {
        let areas: [Rect; 3] = Layout::horizontal([Constraint::Fill(1); 3]).areas(area);
        for (area, (title, looks, unit)) in areas.into_iter().zip([
            ("connections/s", &model.rates, ""),
            ("workers' CPU", &model.cpus, "%"),
            ("open connections", &model.open, ""),
        ]) {
            let now = looks.back().copied().unwrap_or(0);
            let block = Block::new().borders(Borders::TOP).title(format!(" {title} {now}{unit} "));
            let width = usize::from(area.width);
            let shown: Vec<u64> = looks.iter().skip(looks.len().saturating_sub(width)).copied().collect();
            frame.render_widget(Sparkline::default().block(block).data(shown).style(self.colour(Color::Cyan)), area);
        }
    }

    fn table(&self, frame: &mut Frame<'_>, area: Rect, model: &Model) {
        let wide = area.width >= WIDE;
        let shown = model.shown();
        let heading = |(name, width): (&str, u16)| {
            let style = Style::new().add_modifier(Modifier::BOLD);
            let sorted = if name == model.sort.heading() { style.add_modifier(Modifier::UNDERLINED) } else { style };
            // Above words to the left, above numbers to the right.
            let is_of_words = matches!(name, "STATE" | "LAST EXIT");
            let width = if is_of_words { 0 } else { usize::from(width) };
            Line::from(vec![
                Span::raw(" ".repeat(width.saturating_sub(name.len()))),
                Span::styled(name.to_owned(), sorted),
            ])
        };
        let mut names =
            vec!["SLOT", "STATE", "PID", "UP", "CPU%", "MEM", "LOOP", "CONN", "SESS", "RATE", "INFL", "RST"];
        let mut widths = vec![4, 16, 7, 7, 5, 6, 6, 6, 6, 6, 4, 4];
        if wide {
            names.extend(["GEN", "LAST EXIT"]);
            widths.extend([4, 24]);
        } else {
            widths[1] = 9;
        }
        let rows = shown.iter().map(|row| self.row(row, wide));
        let title = match (&model.filter, &model.screen) {
            (filter, Screen::Filter) => format!(" slots matching: {filter}_ "),
            (filter, _) if !filter.is_empty() => format!(" slots matching: {filter} "),
            _ => match model.status.slots.len() {
                1 => " 1 slot ".to_owned(),
                slots => format!(" {slots} slots "),
            },
        };
        let headings = names.into_iter().zip(widths.iter().copied()).map(heading).map(Cell::new);
        let table = Table::new(rows, widths.iter().copied().map(Constraint::Length))
            .header(TableRow::new(headings))
            .block(Block::new().borders(Borders::TOP).title(title))
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
        let mut state = TableState::new().with_selected(Some(model.chosen.min(shown.len().saturating_sub(1))));
        frame.render_stateful_widget(table, area, &mut state);
    }

    fn row(&self, row: &Row, wide: bool) -> TableRow<'static> {
        let slot = &row.slot;
        let style = match slot.state.as_str() {
            "ready" if slot.hung || slot.drained || slot.listens_on_nothing => self.colour(Color::Yellow),
            "ready" => self.colour(Color::Green),
            "gone" => self.colour(Color::Red),
            _ => self.colour(Color::Yellow),
        };
        let lagging =
            if row.delay.is_some_and(|delay| delay >= 100.0) { self.colour(Color::Red) } else { Style::new() };
        let condition = slot.condition();
        let number = |text: String, width: usize| Cell::new(format!("{text:>width$}"));
        let decimal = |value: Option<f64>| or_dash(value.map(|value| format!("{value:.1}")));
        let mut cells = vec![
            number(slot.slot.to_string(), 4),
            Cell::new(if wide { condition } else { condition.replace("ready, ", "") }).style(style),
            number(or_dash(slot.pid), 7),
            number(age(slot.uptime_seconds), 7),
            number(decimal(row.cpu), 5),
            number(row.memory.map_or_else(|| "-".to_owned(), bytes), 6),
            number(decimal(row.delay), 6).style(lagging),
            number(or_dash(row.connections), 6),
            number(or_dash(row.sessions), 6),
            number(format!("{:.0}", row.rate), 6),
            number((slot.in_flight + slot.held).to_string(), 4),
            number(slot.restarts().to_string(), 4),
        ];
        if wide {
            cells.push(number(slot.generation.to_string(), 4));
            let exit = slot.last_exit.as_ref().map_or_else(String::new, |exit| escaped(&exit.description));
            cells.push(Cell::new(exit));
        }
        TableRow::new(cells)
    }

    fn detail(&self, frame: &mut Frame<'_>, area: Rect, model: &Model, slot: usize) {
        let [reported, written] =
            Layout::horizontal([Constraint::Length(detail::WIDTH), Constraint::Min(10)]).areas(area);
        let Some(row) = model.rows.iter().find(|row| row.slot.slot == slot) else { return };
        let block = |title: String| Block::new().borders(Borders::TOP).title(title);
        let figures = Paragraph::new(detail::lines(row).join("\n")).block(block(format!(" slot {slot} ")));
        frame.render_widget(figures, reported);
        let room = usize::from(written.height.saturating_sub(1));
        let last = &model.lines[model.lines.len().saturating_sub(room)..];
        let lines: Vec<Line<'_>> = last.iter().map(|line| Line::raw(escaped(&line.text))).collect();
        let title = match model.status.keeps_stdout {
            Some(false) => " its last lines (standard error) ",
            _ => " its last lines ",
        };
        frame.render_widget(Paragraph::new(lines).block(block(title.to_owned())), written);
    }

    fn events(&self, frame: &mut Frame<'_>, area: Rect, model: &Model) {
        let room = usize::from(area.height.saturating_sub(1));
        let last = model.events.iter().skip(model.events.len().saturating_sub(room));
        let line = |event: &super::model::TopEvent| {
            Line::from(vec![
                Span::styled(clock(event.unix_time), self.colour(Color::DarkGray)),
                Span::raw(format!(" {}", escaped(&event.text))),
            ])
        };
        let lines: Vec<Line<'_>> = last.map(line).collect();
        let block = Block::new().borders(Borders::TOP).title(" events (UTC) ");
        frame.render_widget(Paragraph::new(lines).block(block), area);
    }

    fn footer(&self, frame: &mut Frame<'_>, area: Rect, model: &Model) {
        let sort = match model.sort {
            Sort::Slot => "slot".to_owned(),
            sort => sort.heading().to_owned(),
        };
        let text = format!("q leave ? keys Enter slot s sort:{sort} / filter r reload +- scale d drain R new");
        frame.render_widget(Line::styled(text, Style::new().add_modifier(Modifier::REVERSED)), area);
    }

    fn popup(&self, frame: &mut Frame<'_>, title: &str, text: &str) {
        let screen = frame.area();
        let lines = text.lines().count() as u16;
        let longest = text.lines().map(|line| line.chars().count()).max().unwrap_or(0) as u16;
        let (width, height) = ((longest + 3).min(screen.width), (lines + 2).min(screen.height));
        let area = Rect::new((screen.width - width) / 2, (screen.height - height) / 2, width, height);
        frame.render_widget(Clear, area);
        frame.render_widget(Paragraph::new(text.to_owned()).block(Block::bordered().title(title.to_owned())), area);
    }
}
