//! What a key means, by where one is: htop's keys, as far as there is something behind them. Pure. What is done
//! about it is `model`'s.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::order::Sort;

/// What a person wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// To leave.
    Quit,
    /// The shell, and to come back.
    Suspend,
    /// All of it drawn anew, since something else wrote over it.
    Redraw,
    /// To move.
    Move(Step),
    /// The page of help.
    Help,
    /// All about the chosen target.
    Details,
    /// Its incidents.
    Incidents,
    /// To look for a name, or for the next that fits.
    Search,
    /// Those that fit and no others.
    Filter,
    /// To choose a column to sort by.
    SortMenu,
    /// That column.
    SortBy(Sort),
    /// The other way round.
    Invert,
    /// That nothing changes for now.
    Hold,
    /// Somebody ended, which is not to be had here.
    Kill,
    /// To be where one was before.
    Back,
}

/// Where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// One back.
    Up,
    /// One on.
    Down,
    /// As many back as are shown.
    PageUp,
    /// As many on.
    PageDown,
    /// To the first.
    Home,
    /// To the last.
    End,
}

/// What `key` means where no text is typed.
pub(super) fn wish(key: KeyEvent) -> Option<Wish> {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return Some(match key.code {
            KeyCode::Char('c') => Wish::Quit,
            KeyCode::Char('z') => Wish::Suspend,
            KeyCode::Char('l') => Wish::Redraw,
            KeyCode::Char('p') => Wish::Move(Step::Up),
            KeyCode::Char('n') => Wish::Move(Step::Down),
            _ => return None,
        });
    }
    Some(match key.code {
        KeyCode::F(10) | KeyCode::Char('q' | 'Q') => Wish::Quit,
        KeyCode::F(1) | KeyCode::Char('h' | '?') => Wish::Help,
        KeyCode::F(3) | KeyCode::Char('/') => Wish::Search,
        KeyCode::F(4) | KeyCode::Char('\\') => Wish::Filter,
        KeyCode::F(6) | KeyCode::Char('>' | '<' | '.' | ',') => Wish::SortMenu,
        KeyCode::F(9) | KeyCode::Char('k') => Wish::Kill,
        KeyCode::Char('P') => Wish::SortBy(Sort::Pressure),
        KeyCode::Char('M') => Wish::SortBy(Sort::Memory),
        KeyCode::Char('T') => Wish::SortBy(Sort::Time),
        KeyCode::Char('I') => Wish::Invert,
        KeyCode::Char('Z') => Wish::Hold,
        KeyCode::Char('i') => Wish::Incidents,
        KeyCode::Enter => Wish::Details,
        KeyCode::Esc => Wish::Back,
        code => Wish::Move(step(code)?),
    })
}

/// Where `key` leads to.
pub(super) fn step(code: KeyCode) -> Option<Step> {
    Some(match code {
        KeyCode::Up => Step::Up,
        KeyCode::Down => Step::Down,
        KeyCode::PageUp => Step::PageUp,
        KeyCode::PageDown => Step::PageDown,
        KeyCode::Home => Step::Home,
        KeyCode::End => Step::End,
        _ => return None,
    })
}

impl Step {
    /// From place `at` of `count` places, of which `page` are shown.
    pub(super) fn from(self, at: usize, count: usize, page: usize) -> usize {
        let last = count.saturating_sub(1);
        let page = page.max(1);
        let to = match self {
            Self::Up => at.saturating_sub(1),
            Self::Down => at.saturating_add(1),
            Self::PageUp => at.saturating_sub(page),
            Self::PageDown => at.saturating_add(page),
            Self::Home => 0,
            Self::End => last,
        };
        to.min(last)
    }
}
