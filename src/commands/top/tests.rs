//! The screens as a terminal of a certain size shows them, and what keys do.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::KeyCode;

use super::model::{ChangeRequest, KeyOutcome, Model, Screen};
use super::screen::draw;
use crate::commands::logs::WorkerLine;
use crate::commands::table::bytes;
use crate::commands::view::Status;

/// So many slots, one second later than the first look if `later`.
fn status(slots: usize, later: bool) -> Status {
    let second = f64::from(u8::from(later));
    let slot = |slot: usize| {
        serde_json::json!({
            "slot": slot, "state": "ready", "worker": slot + 1, "pid": 4000 + slot, "generation": 0,
            "uptime_seconds": 3700.0 + second, "delivered": 1000 + slot * 10 + usize::from(later) * (slot + 1),
            "in_flight": 0, "held": 0, "respawned": if slot == 1 { 1 + u64::from(later) } else { 0 }, "open": 7,
            "drained": slot == 2, "last_exit": (slot == 1).then(|| serde_json::json!(
                {"description": if later { "signal SIGSEGV" } else { "exit code 1" }, "unix_time": 1_700_000_000})),
            "process": {"resident_bytes": (slot + 40) << 20, "cpu_seconds": 10.0 + second * (slot as f64 + 1.0) / 10.0,
                "threads": 7, "descriptors": 30},
            "reported": {"age_seconds": 0.5, "open_connections": 100 + slot, "polling_sessions": 1, "websocket_sessions": slot,
                "loop_delay_p99": 1.5e6 * (slot as f64 + 1.0), "heap_used": 1 << 24, "heap_limit": 1_u64 << 31,
                "sessions_opened": 12_345, "upgrades": 1234, "recovered": 12, "closed_ping_timeout": 3,
                "closed_transport": 1200, "closed_error": 0, "closed_by_server": 1, "refused_session": 7,
                "messages_in": 100, "messages_out": 200, "bytes_in": 1 << 20, "bytes_out": 1 << 22}
        })
    };
    serde_json::from_value(serde_json::json!({
        "version": "1.2.3", "name": "api-3000", "pid": 4711, "uptime_seconds": 90_061.0 + second,
        "listen": ["http://[::]:3000"], "affinity": "ip", "dispatch": "handover", "accepted": 12_345, "in_flight": 3, "held": 1,
        "refused": {"no_worker": if later { 5 } else { 2 }, "stopping": 0}, "generation": 0,
        "slots": (0..slots).map(slot).collect::<Vec<_>>(), "balance": [{"delivered": 12_000}],
        "process": {"resident_bytes": 7 << 20, "cpu_seconds": 2.5, "threads": 1, "descriptors": 40}
    }))
    .expect("a status")
}

fn model(slots: usize) -> Model {
    let mut model = Model::new(status(slots, false));
    model.take(status(slots, true), 1.0, 1_700_000_060);
    model
}

/// The screen as lines of text.
fn shown(model: &Model, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("memory");
    terminal.draw(|frame| draw(frame, model, true)).expect("memory");
    let buffer = terminal.backend().buffer();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(line).collect()
}

/// Compares with the file of this name beside this one; HAFT_SNAPSHOTS=write in the environment writes it.
#[track_caller]
fn is_as_in(lines: &[String], name: &str) {
    let path = format!("{}/src/commands/top/screens/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let text = lines.join("\n") + "\n";
    if std::env::var("HAFT_SNAPSHOTS").is_ok_and(|value| value == "write") {
        std::fs::write(&path, &text).expect("written");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(text == expected, "{path}:\n{text}");
}

#[test]
fn at_80_by_24_all_is_there() {
    is_as_in(&shown(&model(4), 80, 24), "80x24");
}

#[test]
fn a_wide_terminal_shows_more_and_64_slots_fit_by_scrolling() {
    let mut model = model(64);
    is_as_in(&shown(&model, 120, 40), "120x40");
    model.key(KeyCode::End);
    let last = shown(&model, 80, 24);
    assert!(last.iter().any(|line| line.starts_with("  63 ")), "{last:#?}");
}

#[test]
fn a_slot_alone_shows_what_it_tells_and_its_last_lines() {
    let mut model = model(4);
    model.key(KeyCode::Down);
    model.key(KeyCode::Enter);
    assert_eq!(model.screen, Screen::Detail(1));
    model.lines =
        (1..=3).map(|number| WorkerLine { number, slot: 1, text: format!("line {number} \u{1b}[2J") }).collect();
    is_as_in(&shown(&model, 80, 24), "detail");
    model.key(KeyCode::Down);
    assert_eq!((&model.screen, model.lines.len()), (&Screen::Detail(2), 0), "the next one's lines are not this one's");
}

#[test]
fn a_reload_shows_how_far_it_has_come() {
    let mut model = model(4);
    let mut now = status(4, true);
    now.generation = 1;
    now.slots[0].generation = 1;
    now.slots[0].worker = 9;
    now.reload = serde_json::from_str(r#"{"state": "under_way", "description": "it has begun", "unix_time": 5}"#).ok();
    model.take(now, 1.0, 1_700_000_061);
    assert_eq!(model.reload_progress(), Some((1, 4)));
    is_as_in(&shown(&model, 80, 24), "reload");
}

#[test]
fn alarms_stand_above_the_table_as_long_as_they_last() {
    let mut model = model(4);
    let mut now = status(4, true);
    now.alarms = serde_json::from_value(serde_json::json!([
        {"alarm": "skew", "active": true, "line": "slot 2 gets 3.1 times the mean: most clients have one address"},
        {"alarm": "restarts", "active": false, "line": null},
        {"alarm": "descriptors", "active": true, "line": "900 of 1000 descriptors are open: raise the limit"},
    ]))
    .expect("alarms");
    model.take(now, 1.0, 1_700_000_061);
    is_as_in(&shown(&model, 80, 24), "alarms");
    model.take(status(4, true), 1.0, 1_700_000_062);
    assert!(
        model.events.iter().all(|event| event.text != "over: skew"),
        "a figure that an older haft does not report is not over its limit"
    );
    let lines = shown(&model, 80, 24);
    assert!(!lines.iter().any(|line| line.starts_with('!')), "{lines:#?}");
}

#[test]
fn small_and_odd_sizes_do_not_break_it() {
    let mut model = model(4);
    for (width, height) in [(1, 1), (10, 3), (80, 10), (79, 13), (300, 8), (40, 200)] {
        for screen in
            [Screen::Table, Screen::Detail(0), Screen::Ask(ChangeRequest::Reload), Screen::Help, Screen::Filter]
        {
            model.screen = screen;
            shown(&model, width, height);
        }
    }
    shown(&Model::new(Status::default()), 80, 24);
}

#[test]
fn nothing_is_done_without_a_yes() {
    let mut model = model(4);
    for (key, wish) in [
        ('r', ChangeRequest::Reload),
        ('+', ChangeRequest::Scale(5)),
        ('-', ChangeRequest::Scale(3)),
        ('d', ChangeRequest::Drain(0)),
        ('R', ChangeRequest::Restart(0)),
    ] {
        assert_eq!(model.key(KeyCode::Char(key)), KeyOutcome::Nothing);
        assert_eq!(model.screen, Screen::Ask(wish));
        assert!(shown(&model, 80, 24).iter().any(|line| line.contains("y: yes")), "{key}");
        assert_eq!(model.key(KeyCode::Enter), KeyOutcome::Nothing, "{key}");
        model.key(KeyCode::Char(key));
        assert_eq!(model.key(KeyCode::Char('y')), KeyOutcome::Do(wish));
    }
    model.chosen = 2;
    model.key(KeyCode::Char('d'));
    assert_eq!(model.screen, Screen::Ask(ChangeRequest::Undrain(2)), "it is drained already");
}

#[test]
fn rows_are_sorted_and_filtered() {
    let mut model = model(4);
    let order = |model: &Model| model.shown().iter().map(|row| row.slot.slot).collect::<Vec<_>>();
    assert_eq!(order(&model), [0, 1, 2, 3]);
    model.key(KeyCode::Char('s'));
    assert_eq!(order(&model), [3, 2, 1, 0], "by CPU");
    model.key(KeyCode::Char('/'));
    "drained".chars().for_each(|letter| _ = model.key(KeyCode::Char(letter)));
    assert_eq!(order(&model), [2]);
    assert!(shown(&model, 80, 24).iter().any(|line| line.contains("slots matching: drained_")));
    model.key(KeyCode::Enter);
    assert_eq!(model.chosen_slot().map(|slot| slot.slot), Some(2));
    model.key(KeyCode::Char('/'));
    model.key(KeyCode::Esc);
    assert_eq!(order(&model).len(), 4);
    assert_eq!(model.key(KeyCode::Char('q')), KeyOutcome::Quit);
}

#[test]
fn what_happened_between_two_looks_is_told() {
    let model = model(4);
    let texts: Vec<&str> = model.events.iter().map(|event| event.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "slot 1: a worker ended: exit code 1",
            "slot 1: its worker died (signal SIGSEGV) and was replaced",
            "3 connections refused: no_worker"
        ]
    );
    assert_eq!((model.rows[1].rate, model.rows[1].cpu.map(f64::round)), (2.0, Some(20.0)));
    assert_eq!((bytes(512 << 10), bytes(44 << 20), bytes(3 << 30)), ("0.5M".into(), "44M".into(), "3.0G".into()));
}
