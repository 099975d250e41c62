//! What `memwatch top` knows and where in it one is: news and keys in, what to do about them out. Pure: times
//! come as arguments. What it looks like is `draw`'s.

use std::collections::{HashMap, HashSet, VecDeque};

use nix::sys::signal::Signal;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::draw::{Glyphs, Shown};
use super::feed::{Answer, News};
use super::keys::{Step, Wish, step, wish};
use super::order::Sort;
use crate::control::status::{Status, Target};
use crate::incident::Text;

/// As many looks at a target as a picture of it has room for.
pub(super) const HISTORY: usize = 240;
/// Lines that were heard, of all targets together.
const HEARD: usize = 200;
/// Of what is typed.
const LONGEST_INPUT: usize = 200;

/// What is to be done outside of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// To go on.
    None,
    /// To end, since it was asked for.
    Quit,
    /// To end by a signal.
    End(Signal),
    /// To draw all of it anew.
    Redraw,
    /// To ask for the job to be stopped.
    Suspend,
    /// To give the terminal back until one is continued.
    Stop,
}

/// One look at a target: `some` and `full`.
pub(super) type Look = (Option<u32>, Option<u32>);

/// What one looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    /// The table of targets.
    Table,
    /// The help, from this line on.
    Help(usize),
    /// All about one target, from this line on.
    Details(u64, usize),
    /// The columns to sort by, at this one.
    SortMenu(usize),
}

/// What is being typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Typing {
    /// Nothing.
    No,
    /// A name to go to, and where one was before.
    Search(String, Option<u64>),
    /// A part of names, and what it was before.
    Filter(String),
}

/// All of it.
pub(super) struct Model {
    /// The last that the daemon said, which is what is shown.
    pub(super) status: Status,
    /// What it has said since, while nothing may change.
    held: Option<Status>,
    /// Whether nothing may change.
    pub(super) is_held: bool,
    /// Why the daemon does not answer, and since when.
    pub(super) silence: Option<(Text, i64)>,
    /// The looks at each target, by its id.
    pub(super) history: HashMap<u64, VecDeque<Look>>,
    /// Lines about targets, the last at the end.
    pub(super) heard: VecDeque<(u64, Text)>,
    /// Names of users, by their ids.
    pub(super) users: HashMap<u32, Text>,
    /// Where one is.
    pub(super) view: View,
    /// What is being typed.
    pub(super) typing: Typing,
    /// Only targets whose names have this in them.
    pub(super) filter: String,
    /// What targets are sorted by.
    pub(super) sort: Sort,
    /// The other way round.
    pub(super) is_inverted: bool,
    /// The target that one is at; none is the first, whichever that is.
    chosen: Option<u64>,
    /// A word to the person, until the next key.
    pub(super) word: Option<&'static str>,
    /// What may be drawn with.
    pub(super) glyphs: Glyphs,
}

impl Model {
    pub(super) fn new(first: Answer, sort: Sort, glyphs: Glyphs) -> Self {
        let Answer { status, users } = first;
        let mut model = Self {
            status: (*status).clone(),
            held: None,
            is_held: false,
            silence: None,
            history: HashMap::new(),
            heard: VecDeque::new(),
            users,
            view: View::Table,
            typing: Typing::No,
            filter: String::new(),
            sort,
            is_inverted: false,
            chosen: None,
            word: None,
            glyphs,
        };
        model.look_at(&status);
        model
    }

    fn look_at(&mut self, status: &Status) {
        for target in &status.targets {
            let looks = self.history.entry(target.id).or_default();
            looks.push_back((target.some_permille, target.full_permille));
            if looks.len() > HISTORY {
                looks.pop_front();
            }
        }
        let ids: HashSet<u64> = status.targets.iter().map(|target| target.id).collect();
        self.history.retain(|id, _| ids.contains(id));
    }

    /// What the feed brings.
    pub(super) fn hear(&mut self, news: News) {
        match news {
            News::Status(Answer { status, users }) => {
                self.users.extend(users);
                self.silence = None;
                self.look_at(&status);
                if self.is_held {
                    self.held = Some(*status);
                } else {
                    self.status = *status;
                }
            }
            News::Said { id, line } => {
                self.heard.push_back((id, line));
                if self.heard.len() > HEARD {
                    self.heard.pop_front();
                }
            }
            News::Silence { why, now_us } => {
                let since = self.silence.take().map_or(now_us, |(_, since)| since);
                self.silence = Some((why, since));
            }
        }
    }

    /// The targets that are shown, in their order.
    pub(super) fn targets(&self) -> Vec<&Target> {
        let wanted = self.filter.to_lowercase();
        let mut targets: Vec<&Target> = self
            .status
            .targets
            .iter()
            .filter(|target| self.name_of(target).contains(&wanted))
            .collect();
        targets.sort_by(|one, other| self.sort.compare(one, other));
        if self.is_inverted {
            targets.reverse();
        }
        targets
    }

    /// What searches look into.
    fn name_of(&self, target: &Target) -> String {
        let user = target.uid.and_then(|uid| self.users.get(&uid));
        let user = user.map_or("", Text::as_str);
        format!("{} {user}", target.cgroup).to_lowercase()
    }

    /// Which of `targets` one is at: the one that was chosen, else the first.
    pub(super) fn at(&self, targets: &[&Target]) -> usize {
        let place = |id| targets.iter().position(|target| target.id == id);
        self.chosen.and_then(place).unwrap_or(0)
    }

    fn chosen_id(&self) -> Option<u64> {
        let targets = self.targets();
        targets.get(self.at(&targets)).map(|target| target.id)
    }

    /// A target by its id, if it is still there.
    pub(super) fn target(&self, id: u64) -> Option<&Target> {
        self.status.targets.iter().find(|target| target.id == id)
    }

    /// What `key` changes, with this on the screen.
    pub(super) fn press(&mut self, key: KeyEvent, shown: Shown) -> Action {
        let Shown { rows, lines } = shown;
        let starts = lines.saturating_sub(rows) + 1;
        self.word = None;
        if self.typing != Typing::No && !key.modifiers.contains(KeyModifiers::CONTROL) {
            self.type_in(key);
            return Action::None;
        }
        let Some(wish) = wish(key) else {
            return Action::None;
        };
        match (wish, self.view) {
            (Wish::Quit, View::Table) => return Action::Quit,
            // Ctrl-C ends it wherever one is.
            (Wish::Quit, _) if key.code == KeyCode::Char('c') => return Action::Quit,
            (Wish::Suspend, _) => return Action::Suspend,
            (Wish::Redraw, _) => return Action::Redraw,
            (Wish::Quit | Wish::Back, View::Help(_) | View::Details(..) | View::SortMenu(_)) => {
                self.view = View::Table;
            }
            (Wish::Move(step), View::Help(at)) => {
                self.view = View::Help(step.from(at, starts, rows));
            }
            (Wish::Move(step), View::Details(id, at)) => {
                self.view = View::Details(id, step.from(at, starts, rows));
            }
            (Wish::Move(step), View::SortMenu(at)) => {
                self.view = View::SortMenu(step.from(at, Sort::ALL.len(), rows));
            }
            (Wish::Details, View::SortMenu(at)) => {
                self.sort_by(Sort::ALL[at.min(Sort::ALL.len() - 1)]);
                self.view = View::Table;
            }
            (Wish::Help, _) => self.view = View::Help(0),
            (wish, _) => self.at_the_table(wish, rows),
        }
        Action::None
    }

    fn at_the_table(&mut self, wish: Wish, rows: usize) {
        match wish {
            Wish::Move(step) => self.go(step, rows),
            Wish::Details => match self.chosen_id() {
                Some(id) => self.view = View::Details(id, 0),
                None => self.word = Some("there is no target here"),
            },
            Wish::Incidents => self.word = Some("see them with: memwatch incidents list"),
            Wish::Search => {
                self.view = View::Table;
                self.typing = Typing::Search(String::new(), self.chosen);
            }
            Wish::Filter => {
                self.view = View::Table;
                self.typing = Typing::Filter(self.filter.clone());
            }
            Wish::SortMenu => {
                let at = Sort::ALL.iter().position(|sort| *sort == self.sort);
                self.view = View::SortMenu(at.unwrap_or(0));
            }
            Wish::SortBy(sort) => self.sort_by(sort),
            Wish::Invert => self.is_inverted = !self.is_inverted,
            Wish::Hold => {
                self.is_held = !self.is_held;
                if let Some(status) = self.held.take().filter(|_| !self.is_held) {
                    self.status = status;
                }
            }
            Wish::Kill => {
                self.word = Some("memwatch top signals nobody; memwatch does, by its rules");
            }
            Wish::Back => self.filter.clear(),
            Wish::Quit | Wish::Suspend | Wish::Redraw | Wish::Help => {}
        }
    }

    fn sort_by(&mut self, sort: Sort) {
        self.sort = sort;
        self.is_inverted = false;
    }

    fn go(&mut self, step: Step, rows: usize) {
        let targets = self.targets();
        let to = step.from(self.at(&targets), targets.len(), rows);
        // At the first place one stays there, whoever comes to be the first.
        self.chosen = match to {
            0 => None,
            to => targets.get(to).map(|target| target.id),
        };
    }

    fn type_in(&mut self, key: KeyEvent) {
        let (Typing::Search(text, _) | Typing::Filter(text)) = &mut self.typing else {
            return;
        };
        match key.code {
            KeyCode::Char(c) => {
                if text.chars().count() < LONGEST_INPUT {
                    text.push(c);
                }
            }
            KeyCode::Backspace => {
                text.pop();
            }
            KeyCode::F(3) if matches!(self.typing, Typing::Search(..)) => {
                self.search(1);
                return;
            }
            KeyCode::Enter | KeyCode::F(10) => {
                self.typing = Typing::No;
                return;
            }
            KeyCode::Esc => {
                match std::mem::replace(&mut self.typing, Typing::No) {
                    Typing::Search(_, before) => self.chosen = before,
                    Typing::Filter(_) => self.filter.clear(),
                    Typing::No => {}
                }
                return;
            }
            code => {
                // As in htop, one may move on from there.
                if let Some(step) = step(code) {
                    self.typing = Typing::No;
                    self.go(step, 1);
                }
                return;
            }
        }
        match &self.typing {
            Typing::Filter(text) => self.filter.clone_from(text),
            _ => self.search(0),
        }
    }

    /// Goes to the next target that fits, from `skip` places after the one that one is at.
    fn search(&mut self, skip: usize) {
        let Typing::Search(text, _) = &self.typing else {
            return;
        };
        let text = text.to_lowercase();
        let targets = self.targets();
        let from = self.at(&targets) + skip;
        let mut places = (0..targets.len()).map(|n| (from + n) % targets.len());
        let found = places.find(|at| self.name_of(targets[*at]).contains(&text));
        match found.map(|at| targets[at].id) {
            Some(id) => self.chosen = Some(id),
            None => self.word = Some("nothing fits"),
        }
    }
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
