//! Keys pressed one after the other, and where they lead.

use super::super::sample::{PLAIN, answer, model, status};
use super::*;
use crate::incident::Timestamp;

const SHOWN: Shown = Shown { rows: 3, lines: 4 };

fn key(code: KeyCode) -> KeyEvent {
    KeyEvent::new(code, KeyModifiers::NONE)
}

fn press(model: &mut Model, keys: &[KeyCode]) -> Action {
    let mut last = Action::None;
    for code in keys {
        last = model.press(key(*code), SHOWN);
    }
    last
}

fn word(model: &mut Model, text: &str) {
    for c in text.chars() {
        press(model, &[KeyCode::Char(c)]);
    }
}

fn shown(model: &Model) -> Vec<u64> {
    model.targets().iter().map(|target| target.id).collect()
}

fn chosen(model: &Model) -> u64 {
    let targets = model.targets();
    targets[model.at(&targets)].id
}

#[test]
fn each_sort_has_the_largest_first_and_turns_round() {
    use KeyCode::Char;
    let mut model = model(PLAIN);
    assert_eq!(shown(&model), [2, 4, 1, 3], "by pressure");
    press(&mut model, &[Char('M')]);
    assert_eq!(shown(&model), [3, 2, 1, 4], "by memory");
    press(&mut model, &[Char('I')]);
    assert_eq!(shown(&model), [4, 1, 2, 3]);
    press(&mut model, &[Char('T')]);
    assert_eq!(
        shown(&model),
        [4, 3, 2, 1],
        "the longest guarded first, upright again"
    );
    press(&mut model, &[Char('P')]);
    assert_eq!(shown(&model), [2, 4, 1, 3]);
    for (at, sort) in Sort::ALL.into_iter().enumerate() {
        press(&mut model, &[Char('>'), KeyCode::Home]);
        for _ in 0..at {
            press(&mut model, &[KeyCode::Down]);
        }
        press(&mut model, &[KeyCode::Enter]);
        assert_eq!((model.sort, model.view), (sort, View::Table));
    }
    press(&mut model, &[KeyCode::F(6), KeyCode::Home, KeyCode::Esc]);
    assert_eq!(model.sort, Sort::Target, "nothing was chosen");
}

#[test]
fn the_cursor_stays_at_the_top_or_follows_its_target() {
    let mut model = model(PLAIN);
    assert_eq!(chosen(&model), 2);
    let mut calm = status();
    calm.targets[1].full_permille = Some(0);
    calm.targets[1].some_permille = Some(0);
    model.hear(News::Status(answer(calm.clone())));
    assert_eq!(shown(&model), [4, 1, 2, 3]);
    assert_eq!(chosen(&model), 4, "at the top");
    press(&mut model, &[KeyCode::Down, KeyCode::Down]);
    assert_eq!(chosen(&model), 2);
    model.hear(News::Status(answer(status())));
    assert_eq!(chosen(&model), 2, "which is the first now");
    press(&mut model, &[KeyCode::End, KeyCode::Down]);
    assert_eq!(chosen(&model), 3);
    press(&mut model, &[KeyCode::PageUp]);
    assert_eq!(chosen(&model), 2);
    press(
        &mut model,
        &[KeyCode::PageDown, KeyCode::Up, KeyCode::Home, KeyCode::Up],
    );
    assert_eq!(chosen(&model), 2);

    press(&mut model, &[KeyCode::Down]);
    calm.targets.clear();
    model.hear(News::Status(answer(calm)));
    assert!(model.targets().is_empty() && model.history.is_empty());
    press(&mut model, &[KeyCode::Down, KeyCode::End, KeyCode::Enter]);
    assert_eq!(
        (model.view, model.word),
        (View::Table, Some("there is no target here"))
    );
}

#[test]
fn a_search_goes_there_and_back_and_on() {
    let mut model = model(PLAIN);
    press(&mut model, &[KeyCode::Char('/')]);
    word(&mut model, "MEMWATCH-");
    assert_eq!(chosen(&model), 2);
    press(&mut model, &[KeyCode::F(3)]);
    assert_eq!(chosen(&model), 1);
    press(&mut model, &[KeyCode::F(3)]);
    assert_eq!(chosen(&model), 2, "round and round");
    word(&mut model, "q");
    assert_eq!(model.word, Some("nothing fits"));
    press(
        &mut model,
        &[KeyCode::Backspace, KeyCode::F(3), KeyCode::Enter],
    );
    assert_eq!((chosen(&model), &model.typing), (1, &Typing::No));
    press(&mut model, &[KeyCode::F(3)]);
    word(&mut model, "build");
    assert_eq!(chosen(&model), 3);
    press(&mut model, &[KeyCode::Esc]);
    assert_eq!(chosen(&model), 1, "where it was");
}

#[test]
fn a_filter_shows_what_fits_by_name_or_user() {
    let mut model = model(PLAIN);
    press(&mut model, &[KeyCode::Char('\\')]);
    word(&mut model, "mara");
    assert_eq!(shown(&model), [2, 1]);
    press(&mut model, &[KeyCode::Enter]);
    assert_eq!(shown(&model), [2, 1], "still");
    press(&mut model, &[KeyCode::F(4), KeyCode::Esc]);
    assert_eq!(shown(&model).len(), 4);
    press(&mut model, &[KeyCode::F(4)]);
    word(&mut model, "none such");
    press(&mut model, &[KeyCode::Enter, KeyCode::Enter]);
    assert_eq!((shown(&model).len(), model.view), (0, View::Table));
    press(&mut model, &[KeyCode::Esc]);
    assert_eq!(shown(&model).len(), 4);
}

#[test]
fn every_way_in_has_a_way_out_and_q_ends_it_at_the_table_alone() {
    use KeyCode::{Char, F};
    let mut model = model(PLAIN);
    for (way_in, view) in [
        (F(1), View::Help(0)),
        (Char('h'), View::Help(0)),
        (Char('?'), View::Help(0)),
        (KeyCode::Enter, View::Details(2, 0)),
        (F(6), View::SortMenu(0)),
        (Char('<'), View::SortMenu(0)),
    ] {
        for way_out in [KeyCode::Esc, Char('q'), F(10)] {
            assert_eq!(press(&mut model, &[way_in]), Action::None);
            assert_eq!(model.view, view);
            assert_eq!(press(&mut model, &[way_out]), Action::None);
            assert_eq!(model.view, View::Table);
        }
    }
    for quit in [Char('q'), F(10)] {
        assert_eq!(press(&mut model, &[quit]), Action::Quit);
    }
    let control = |c| KeyEvent::new(Char(c), KeyModifiers::CONTROL);
    for way_in in [F(1), F(4), F(3), KeyCode::Enter] {
        press(&mut model, &[way_in]);
        assert_eq!(model.press(control('c'), SHOWN), Action::Quit, "{way_in:?}");
        assert_eq!(model.press(control('z'), SHOWN), Action::Suspend);
        assert_eq!(model.press(control('l'), SHOWN), Action::Redraw);
        press(&mut model, &[KeyCode::Esc]);
    }
}

#[test]
fn pages_end_where_their_lines_end() {
    let mut model = model(PLAIN);
    press(&mut model, &[KeyCode::F(1), KeyCode::End, KeyCode::Down]);
    assert_eq!(model.view, View::Help(1), "of four lines three are shown");
    press(&mut model, &[KeyCode::PageUp]);
    assert_eq!(model.view, View::Help(0));
}

#[test]
fn nobody_is_signalled() {
    let mut model = model(PLAIN);
    for kill in [KeyCode::F(9), KeyCode::Char('k')] {
        assert_eq!(press(&mut model, &[kill]), Action::None);
        let word = model.word.expect("why not");
        assert!(word.contains("signals nobody"), "{word}");
    }
    press(&mut model, &[KeyCode::Down]);
    assert_eq!(model.word, None);
}

#[test]
fn what_is_held_stands_still_and_goes_on_with_the_last() {
    let mut model = model(PLAIN);
    press(&mut model, &[KeyCode::Char('Z')]);
    let mut later = status();
    later.targets.truncate(1);
    model.hear(News::Status(answer(later)));
    assert_eq!(shown(&model).len(), 4);
    press(&mut model, &[KeyCode::Char('Z')]);
    assert_eq!(shown(&model), [1]);
}

#[test]
fn silence_is_told_from_when_it_began_until_there_is_an_answer() {
    let mut model = model(PLAIN);
    for now_us in [5, 7] {
        let why = "it is dead".into();
        model.hear(News::Silence { why, now_us });
    }
    assert_eq!(model.silence, Some(("it is dead".into(), 5)));
    assert_eq!(shown(&model).len(), 4, "the last that is known");
    model.hear(News::Status(answer(status())));
    assert_eq!(model.silence, None);
}

#[test]
fn what_is_kept_has_bounds() {
    let mut model = model(PLAIN);
    for n in 0..1000 {
        model.hear(News::Status(answer(status())));
        model.hear(News::Said {
            id: n,
            line: "a line".into(),
        });
    }
    assert_eq!(model.history[&1].len(), HISTORY);
    assert_eq!(model.heard.len(), HEARD);
    press(&mut model, &[KeyCode::F(4)]);
    word(&mut model, &"x".repeat(5000));
    assert_eq!(model.filter.len(), LONGEST_INPUT);
}

#[test]
fn targets_without_a_time_or_a_figure_have_their_place() {
    let mut odd = status();
    odd.targets[0].since = serde_json::from_str::<Timestamp>("\"long ago\"").expect("a text");
    odd.targets[1].limit_bytes = Some(0);
    let mut model = model(PLAIN);
    model.hear(News::Status(answer(odd)));
    for sort in Sort::ALL {
        model.sort_by(sort);
        assert_eq!(shown(&model).len(), 4);
    }
}
