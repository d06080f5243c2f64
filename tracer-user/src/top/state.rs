//! Which screen is shown, and what keys do.

use super::{
    flame::Node,
    rows::{Row, Wanted, rows},
};
use crate::report::{Cgroup, FileRow, RegionRow, Report, StackRow, Value, autopsy::Autopsy};
use std::sync::Arc;

/// What screens show.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The last look.
    pub report: Arc<Report>,
    /// The last look into processes, which alone tells regions.
    pub whole: Option<Arc<Report>>,
    /// OOM kills, the oldest first.
    pub kills: Vec<Arc<Autopsy>>,
    /// Where it comes from: `tracing`, a socket, a file.
    pub source: String,
    /// Seconds between two looks; 0 for a moment that does not change.
    pub interval_s: f64,
}

impl View {
    /// A cgroup by its id.
    #[must_use]
    pub fn cgroup(&self, id: &str) -> Option<&Cgroup> {
        self.report.cgroups.iter().find(|cgroup| cgroup.id == id)
    }

    /// The same as of the last look into processes.
    #[must_use]
    pub fn looked_into(&self, id: &str) -> Option<&Cgroup> {
        self.whole.as_ref()?.cgroups.iter().find(|cgroup| cgroup.id == id)
    }

    /// Stacks of a cgroup that hold something, largest first.
    #[must_use]
    pub fn stacks(&self, id: &str) -> Vec<&StackRow> {
        let mut rows: Vec<&StackRow> = self.cgroup(id).iter().flat_map(|cgroup| &cgroup.stacks).filter(|row| row.live > 0).collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.live));
        rows
    }

    /// Its files, largest first.
    #[must_use]
    pub fn files(&self, id: &str) -> Vec<&FileRow> {
        let mut rows: Vec<&FileRow> = self.cgroup(id).iter().flat_map(|cgroup| &cgroup.files).filter(|row| row.bytes() > 0).collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.bytes()));
        rows
    }

    /// Regions of its processes, largest resident first.
    #[must_use]
    pub fn regions(&self, id: &str) -> Vec<&RegionRow> {
        let mut rows: Vec<&RegionRow> = self.looked_into(id).iter().flat_map(|cgroup| &cgroup.regions).collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.resident.unwrap_or(row.live)));
        rows
    }

    /// The tree of a cgroup's stacks, or of all.
    #[must_use]
    pub fn tree(&self, id: Option<&str>) -> Node {
        Node::of(self.report.cgroups.iter().filter(|cgroup| id.is_none_or(|id| cgroup.id == id)), Value::Live)
    }
}

/// What of a container is listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tab {
    /// Kinds of memory, with what is concluded.
    Kinds,
    /// Stacks.
    #[default]
    Stacks,
    /// Files.
    Files,
    /// Regions of processes.
    Regions,
}

impl Tab {
    /// All, in the order of their keys.
    pub const ALL: [Tab; 4] = [Tab::Kinds, Tab::Stacks, Tab::Files, Tab::Regions];

    /// As the screen calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Tab::Kinds => "kinds",
            Tab::Stacks => "stacks",
            Tab::Files => "files",
            Tab::Regions => "regions",
        }
    }
}

/// A screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Screen {
    /// Containers and cgroups.
    Table,
    /// One of them.
    Container {
        /// Its id.
        id: String,
        /// What of it.
        tab: Tab,
        /// The row that keys are about.
        chosen: usize,
    },
    /// A text to be read: a stack, an autopsy, help.
    Text {
        /// Its head.
        title: String,
        /// Its lines.
        lines: Vec<String>,
        /// The first that is shown.
        from: usize,
    },
    /// The flame graph.
    Flame {
        /// Of one cgroup, or of all.
        id: Option<String>,
        /// The way to the box that fills the width.
        zoom: Vec<String>,
        /// The way to the chosen box.
        chosen: Vec<String>,
    },
    /// OOM kills.
    Kills {
        /// The row that keys are about.
        chosen: usize,
    },
}

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are called what they are")]
pub enum Key {
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    Home,
    End,
    Enter,
    Escape,
    Backspace,
    Tab,
    Char(char),
}

/// What a key asks of who holds the terminal and the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing but to draw.
    Draw,
    /// To end.
    Quit,
    /// To write what is shown into a file.
    Export,
    /// To look into processes.
    Look,
    /// To look more often.
    Faster,
    /// To look less often.
    Slower,
}

/// Rows that a page's key goes.
const PAGE: usize = 10;

/// What is shown, apart from what there is.
#[derive(Clone, Debug)]
pub struct State {
    /// The screens one came through; the last is shown. Never empty.
    screens: Vec<Screen>,
    /// What the table shows.
    pub wanted: Wanted,
    /// The chosen row of the table, by its id: it is followed where it moves.
    chosen: Option<String>,
    /// The filter as it is being typed.
    pub typing: Option<String>,
    /// Nothing changes until it is let go.
    pub is_frozen: bool,
    /// One line for the user, until the next key.
    pub message: Option<String>,
}

impl State {
    /// The table.
    #[must_use]
    pub fn new(wanted: Wanted) -> State {
        State { screens: vec![Screen::Table], wanted, chosen: None, typing: None, is_frozen: false, message: None }
    }

    /// The screen that is shown.
    #[must_use]
    pub fn screen(&self) -> &Screen {
        // There is always the table.
        self.screens.last().unwrap_or(&Screen::Table)
    }

    /// The table's rows.
    #[must_use]
    pub fn rows(&self, view: &View) -> Vec<Row> {
        rows(&view.report, view.whole.as_deref(), &self.wanted)
    }

    /// Which of these rows is chosen.
    #[must_use]
    pub fn chosen(&self, rows: &[Row]) -> usize {
        self.chosen.as_ref().and_then(|id| rows.iter().position(|row| row.id == *id)).unwrap_or(0)
    }

    /// Shows a screen above the others.
    pub fn open(&mut self, screen: Screen) {
        self.screens.push(screen);
    }

    /// Takes a key.
    pub fn key(&mut self, key: Key, view: &View) -> Action {
        self.message = None;
        if self.typing.is_some() {
            self.type_filter(key);
            return Action::Draw;
        }
        match key {
            Key::Char('q') if self.screens.len() == 1 => return Action::Quit,
            Key::Char('q') | Key::Escape | Key::Backspace => {
                self.back();
                return Action::Draw;
            }
            Key::Char('Q') => return Action::Quit,
            Key::Char('?') => self.open(help()),
            Key::Char('z') => {
                self.is_frozen = !self.is_frozen;
                self.message = Some(if self.is_frozen { "frozen: z goes on" } else { "it goes on" }.to_owned());
            }
            Key::Char('x') => return Action::Export,
            Key::Char('+') => return Action::Faster,
            Key::Char('-') => return Action::Slower,
            Key::Char('o') => self.open(Screen::Kills { chosen: 0 }),
            _ => return self.key_of_screen(key, view),
        }
        Action::Draw
    }

    fn back(&mut self) {
        if let Some(Screen::Flame { zoom, chosen, .. }) = self.screens.last_mut()
            && !zoom.is_empty()
        {
            chosen.clone_from(zoom);
            zoom.pop();
        } else if self.screens.len() > 1 {
            self.screens.pop();
        } else if !self.wanted.filter.is_empty() {
            self.wanted.filter.clear();
        }
    }

    fn type_filter(&mut self, key: Key) {
        let Some(text) = &mut self.typing else { return };
        match key {
            // As long as any screen is wide.
            Key::Char(character) if text.len() < 200 => text.push(character),
            Key::Backspace => drop(text.pop()),
            Key::Enter => self.wanted.filter = self.typing.take().unwrap_or_default(),
            Key::Escape => self.typing = None,
            _ => {}
        }
        if let Some(text) = &self.typing {
            self.wanted.filter.clone_from(text);
        }
    }

    fn key_of_screen(&mut self, key: Key, view: &View) -> Action {
        match self.screen().clone() {
            Screen::Table => self.key_of_table(key, view),
            Screen::Container { id, tab, chosen } => self.key_of_container(key, view, &id, tab, chosen),
            Screen::Text { lines, from, .. } => {
                let last = lines.len().saturating_sub(1);
                if let Some(Screen::Text { from: shown, .. }) = self.screens.last_mut() {
                    *shown = moved(key, from, last);
                }
                Action::Draw
            }
            Screen::Flame { id, zoom, chosen } => {
                let tree = view.tree(id.as_deref());
                let (zoom, chosen) = flame_key(key, &tree, zoom, chosen);
                if let Some(screen) = self.screens.last_mut() {
                    *screen = Screen::Flame { id, zoom, chosen };
                }
                Action::Draw
            }
            Screen::Kills { chosen } => {
                let newest = || view.kills.iter().rev();
                if let (Key::Enter, Some(autopsy)) = (key, newest().nth(chosen)) {
                    let lines = crate::output::autopsy::render(autopsy).lines().map(str::to_owned).collect();
                    self.open(Screen::Text { title: format!("OOM kill at {}", autopsy.time), lines, from: 0 });
                } else if let Some(screen) = self.screens.last_mut() {
                    *screen = Screen::Kills { chosen: moved(key, chosen, view.kills.len().saturating_sub(1)) };
                }
                Action::Draw
            }
        }
    }

    fn key_of_table(&mut self, key: Key, view: &View) -> Action {
        match key {
            Key::Char('/') => self.typing = Some(self.wanted.filter.clone()),
            Key::Char('s') => self.wanted.sort = self.wanted.sort.next(),
            Key::Char('t') => self.wanted.only_pods = !self.wanted.only_pods,
            Key::Char('d') => self.wanted.only_dead = !self.wanted.only_dead,
            Key::Char('f') => self.open(Screen::Flame { id: None, zoom: Vec::new(), chosen: Vec::new() }),
            _ => {
                let rows = self.rows(view);
                let at = self.chosen(&rows);
                if let (Key::Enter | Key::Right, Some(row)) = (key, rows.get(at)) {
                    self.open(Screen::Container { id: row.id.clone(), tab: Tab::default(), chosen: 0 });
                } else {
                    self.chosen = rows.get(moved(key, at, rows.len().saturating_sub(1))).map(|row| row.id.clone());
                }
            }
        }
        Action::Draw
    }

    fn key_of_container(&mut self, key: Key, view: &View, id: &str, tab: Tab, chosen: usize) -> Action {
        let length = match tab {
            Tab::Kinds => 1,
            Tab::Stacks => view.stacks(id).len(),
            Tab::Files => view.files(id).len(),
            Tab::Regions => view.regions(id).len(),
        };
        let turn = |by: usize| {
            let at = Tab::ALL.iter().position(|other| *other == tab).unwrap_or(0);
            Tab::ALL[(at + by) % Tab::ALL.len()]
        };
        let to = match key {
            Key::Char(digit @ '1'..='4') => Tab::ALL[digit as usize - '1' as usize],
            Key::Tab | Key::Right => turn(1),
            Key::Left => turn(Tab::ALL.len() - 1),
            Key::Char('f') => {
                self.open(Screen::Flame { id: Some(id.to_owned()), zoom: Vec::new(), chosen: Vec::new() });
                return Action::Draw;
            }
            Key::Enter => {
                self.open_row(view, id, tab, chosen);
                return Action::Draw;
            }
            _ => tab,
        };
        if let Some(Screen::Container { tab: shown, chosen: at, .. }) = self.screens.last_mut() {
            *at = if to == tab { moved(key, chosen, length.saturating_sub(1)) } else { 0 };
            *shown = to;
        }
        // Regions are known after a look into processes only.
        if to == Tab::Regions && tab != to { Action::Look } else { Action::Draw }
    }

    fn open_row(&mut self, view: &View, id: &str, tab: Tab, chosen: usize) {
        let text = |title: String, lines: Vec<String>| Screen::Text { title, lines, from: 0 };
        let opened = match tab {
            Tab::Stacks => view
                .stacks(id)
                .get(chosen)
                .map(|row| text(format!("{}, {} {}, {}", row.comm, row.kind, row.region, row.status), row.frames.clone())),
            Tab::Files => view.files(id).get(chosen).map(|row| {
                let who = |name: &str, all: &[crate::report::FileToucher]| {
                    all.iter()
                        .map(|one| {
                            format!(
                                "{name} {}[{}]: {} bytes",
                                one.comm,
                                one.pid.map_or_else(|| "?".to_owned(), |pid| pid.to_string()),
                                one.bytes
                            )
                        })
                        .collect::<Vec<_>>()
                };
                text(row.path.clone(), [who("written by", &row.writers), who("read by", &row.readers)].concat())
            }),
            Tab::Kinds | Tab::Regions => None,
        };
        if let Some(screen) = opened {
            self.open(screen);
        }
    }
}

/// Where a key moves a mark in a list.
fn moved(key: Key, at: usize, last: usize) -> usize {
    let to = match key {
        Key::Up | Key::Char('k') => at.saturating_sub(1),
        Key::Down | Key::Char('j') => at.saturating_add(1),
        Key::PageUp => at.saturating_sub(PAGE),
        Key::PageDown => at.saturating_add(PAGE),
        Key::Home | Key::Char('g') => 0,
        Key::End | Key::Char('G') => last,
        _ => at,
    };
    to.min(last)
}

/// Moves in the flame graph: down to the largest box that is called, up to the caller, left and right among boxes of one caller.
fn flame_key(key: Key, tree: &Node, zoom: Vec<String>, chosen: Vec<String>) -> (Vec<String>, Vec<String>) {
    // What was chosen may be gone by now.
    let chosen = if tree.at(&chosen).is_some() && chosen.starts_with(&zoom) { chosen } else { zoom.clone() };
    let by_size = |node: &Node| {
        let mut children: Vec<(String, u64)> = node.children.iter().map(|(name, child)| (name.clone(), child.bytes)).collect();
        children.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        children
    };
    let beside = |by: isize| -> Option<Vec<String>> {
        if chosen.len() <= zoom.len() {
            return None;
        }
        let (name, above) = chosen.split_last()?;
        let siblings = by_size(tree.at(above)?);
        let at = siblings.iter().position(|(other, _)| other == name)?.checked_add_signed(by)?;
        let (to, _) = siblings.get(at)?;
        Some([above, std::slice::from_ref(to)].concat())
    };
    let to = match key {
        Key::Down | Key::Char('j') => {
            tree.at(&chosen).and_then(|node| Some([chosen.as_slice(), &[by_size(node).first()?.0.clone()]].concat()))
        }
        Key::Up | Key::Char('k') if chosen.len() > zoom.len() => Some(chosen[..chosen.len() - 1].to_vec()),
        Key::Left | Key::Char('h') => beside(-1),
        Key::Right | Key::Char('l') => beside(1),
        Key::Enter => return (chosen.clone(), chosen),
        _ => None,
    };
    (zoom, to.unwrap_or(chosen))
}

fn help() -> Screen {
    let lines = [
        "arrows, hjkl      move; PgUp PgDn Home End too",
        "Enter             look at the chosen row; Esc or q goes back, q in the first screen ends, Q ends everywhere",
        "s                 sort by usage, growth, share of limit, dirty, name",
        "/                 filter: words, !word, kind:shmem, verdict:growth; Esc leaves it, Esc again clears it",
        "t                 pods and containers only, or all cgroups",
        "d                 removed ones only, to which memory is still charged",
        "1 2 3 4, Tab      of a container: kinds, stacks, files, regions",
        "f                 flame graph of what is live; Enter zooms in, Esc out",
        "o                 OOM kills, and their autopsies",
        "z                 freeze, and go on",
        "x                 write the stacks of what is shown into a file, folded",
        "+ -               look more or less often",
        "",
        "HOLDS is memory of the cgroup itself: # anon, = file, ~ shmem, k kernel. LIMIT is the one that is met first, its own or one above;",
        "FULL IN is the time until it is met at the growth of the last half minute.",
    ];
    Screen::Text { title: "keys".to_owned(), lines: lines.map(str::to_owned).to_vec(), from: 0 }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
