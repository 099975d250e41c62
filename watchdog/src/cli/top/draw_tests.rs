//! Whole screens, cell by cell, as files beside this one: `BLESS=1 cargo test top` writes them anew.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::Color;

use super::super::feed::News;
use super::super::model::Model;
use super::super::order::Sort;
use super::super::sample::{NOW_US, PLAIN, answer, model, status};
use super::*;
use crate::control::status::Status;
use crate::incident::FeatureLost;

fn drawn(model: &Model, width: u16, height: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a backend");
    terminal
        .draw(|frame| {
            draw(frame, model, NOW_US);
        })
        .expect("drawn");
    terminal.backend().buffer().clone()
}

fn text(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width);
    let lines = buffer.content.chunks(width).map(|cells| {
        let line: String = cells.iter().map(|cell| cell.symbol()).collect();
        line.trim_end().to_owned() + "\n"
    });
    lines.collect()
}

fn is_as_kept(name: &str, model: &Model, width: u16, height: u16) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/cli/top/screens")
        .join(format!("{name}-{width}x{height}.txt"));
    let screen = text(&drawn(model, width, height));
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, &screen).expect("written");
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(screen, kept, "{} differs:\n{screen}", path.display());
}

fn press(model: &mut Model, codes: &[KeyCode]) {
    for code in codes {
        let key = KeyEvent::new(*code, KeyModifiers::NONE);
        model.press(key, Shown { rows: 5, lines: 60 });
    }
}

#[test]
fn the_table_at_every_size() {
    for (width, height) in [
        (80, 24),
        (40, 10),
        (60, 20),
        (100, 12),
        (160, 30),
        (24, 5),
        (10, 3),
    ] {
        is_as_kept("table", &model(PLAIN), width, height);
    }
}

#[test]
fn pages_at_a_usual_and_a_small_size() {
    let mut model = model(PLAIN);
    model.hear(News::Said {
        id: 2,
        line: "memwatch: SIGTERM to python3 (4250): limit full in 35ms (allowed: 50ms or less)"
            .into(),
    });
    for (name, code) in [
        ("help", KeyCode::F(1)),
        ("details", KeyCode::Enter),
        ("sort", KeyCode::F(6)),
    ] {
        press(&mut model, &[code]);
        for (width, height) in [(80, 24), (40, 10)] {
            is_as_kept(name, &model, width, height);
        }
        press(&mut model, &[KeyCode::Esc]);
    }
}

#[test]
fn typing_silence_and_nothing() {
    let mut model = model(PLAIN);
    press(
        &mut model,
        &[KeyCode::F(4), KeyCode::Char('b'), KeyCode::Char('u')],
    );
    is_as_kept("filter", &model, 80, 24);
    press(&mut model, &[KeyCode::Esc, KeyCode::Char('k')]);
    is_as_kept("no-kill", &model, 80, 24);
    model.hear(News::Silence {
        why: "no daemon listens at /run/memwatch.sock: Connection refused (os error 111); start it with: systemctl start memwatch".into(),
        now_us: NOW_US - 12_000_000,
    });
    is_as_kept("silence", &model, 80, 24);
    let mut nobody = status();
    nobody.targets.clear();
    let model = Model::new(answer(nobody), Sort::default(), PLAIN);
    is_as_kept("nothing", &model, 80, 24);
}

#[test]
fn ascii_is_enough_where_there_is_no_more() {
    let ascii = Glyphs {
        is_unicode: false,
        ..PLAIN
    };
    let mut model = model(ascii);
    model.status.targets[0].cgroup = "/sys/fs/cgroup/größe".into();
    is_as_kept("ascii", &model, 80, 24);
    assert!(text(&drawn(&model, 160, 30)).is_ascii());
}

#[test]
fn no_color_means_none_and_all_is_told_without() {
    let colors = |buffer: &Buffer| {
        let cells = buffer.content.iter();
        cells
            .filter(|cell| (cell.fg, cell.bg) != (Color::Reset, Color::Reset))
            .count()
    };
    let with = drawn(
        &model(Glyphs {
            has_color: true,
            ..PLAIN
        }),
        80,
        24,
    );
    let without = drawn(&model(PLAIN), 80, 24);
    assert!(colors(&with) > 50);
    assert_eq!(colors(&without), 0);
    assert_eq!(text(&with), text(&without));
}

#[test]
fn the_chosen_one_is_always_on_the_screen() {
    let mut crowd = status();
    let one = crowd.targets[0].clone();
    crowd.targets = (0..1000)
        .map(|id| crate::control::status::Target {
            id,
            cgroup: format!("/sys/fs/cgroup/target-{id:04}").into(),
            ..one.clone()
        })
        .collect();
    let mut model = Model::new(answer(crowd), Sort::Target, PLAIN);
    press(&mut model, &[KeyCode::End]);
    assert!(text(&drawn(&model, 80, 24)).contains("target-0999"));
    press(&mut model, &[KeyCode::PageUp, KeyCode::PageUp]);
    assert!(text(&drawn(&model, 40, 10)).contains("target-0989"));
}

#[test]
fn a_hostile_name_is_shown_and_not_obeyed() {
    let mut hostile = status();
    let name = "\u{1b}[2J\u{202e}gro\u{301}\u{9b}ße\u{4e2d}\u{4e2d}\n";
    hostile.targets[0].cgroup = name.repeat(30).into();
    hostile.oomd.state = name.into();
    hostile.features_lost = vec![FeatureLost {
        feature: name.into(),
        fallback: name.into(),
        cost: name.into(),
    }];
    let mut model = Model::new(answer(hostile), Sort::default(), PLAIN);
    model.users.insert(1000, name.into());
    for view in [KeyCode::Esc, KeyCode::Enter] {
        press(&mut model, &[view]);
        for width in [20, 21, 40, 41, 80, 133] {
            let screen = text(&drawn(&model, width, 24));
            let speaks = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
            assert!(!screen.contains(speaks), "{screen:?}");
        }
    }
}

prop_compose! {
    fn any_status()(
        figures in prop::collection::vec(any::<(u64, Option<u64>, Option<u64>, Option<u32>, Option<u32>)>(), 0..8),
        machine in any::<(u64, u64, Option<u64>, Option<u64>, Option<u32>)>(),
        name in "\\PC{0,60}",
    ) -> Status {
        let mut status = status();
        let one = status.targets[0].clone();
        let targets = figures.into_iter().enumerate().map(|(id, it)| {
            let (count, current_bytes, limit_bytes, some_permille, full_permille) = it;
            crate::control::status::Target {
                id: id as u64,
                cgroup: name.as_str().into(),
                current_bytes,
                limit_bytes,
                some_permille,
                full_permille,
                processes: count,
                interventions: count,
                ..one.clone()
            }
        });
        status.targets = targets.collect();
        let (total, available, swap, free, share) = machine;
        status.machine.total_bytes = total;
        status.machine.available_bytes = available;
        status.machine.swap_total_bytes = swap;
        status.machine.swap_free_bytes = free;
        status.machine.some_permille = share;
        status
    }
}

proptest! {
    #[test]
    fn nothing_that_a_daemon_says_and_no_size_makes_it_panic(
        status in any_status(),
        (width, height) in (0u16..200, 0u16..60),
        keys in prop::collection::vec(prop_oneof![
            Just(KeyCode::Enter), Just(KeyCode::Down), Just(KeyCode::End), Just(KeyCode::F(1)),
            Just(KeyCode::F(3)), Just(KeyCode::F(4)), Just(KeyCode::F(6)), Just(KeyCode::Esc),
            Just(KeyCode::Char('I')), Just(KeyCode::Char('/')), Just(KeyCode::Char('ß')),
            Just(KeyCode::PageDown), Just(KeyCode::Backspace),
        ], 0..12),
        now_us in any::<i64>(),
    ) {
        let mut model = Model::new(answer(status.clone()), Sort::default(), PLAIN);
        model.hear(News::Status(answer(status)));
        press(&mut model, &keys);
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a backend");
        terminal.draw(|frame| { draw(frame, &model, now_us); }).expect("drawn");
    }
}
