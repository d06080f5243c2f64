use super::super::{
    rows::Sort,
    screens::{self, LEAST},
    theme::Theme,
};
use super::*;
use crate::report::{FileToucher, KindRow, LimitRow, Verdict};
use std::collections::BTreeMap;

fn cgroup(id: &str, anon: u64, stacks: Vec<StackRow>) -> Cgroup {
    Cgroup {
        path: format!("/{id}"),
        id: id.to_owned(),
        state: "alive".to_owned(),
        kinds: BTreeMap::from([("anon".to_owned(), KindRow { stat: Some(anon), ..KindRow::default() })]),
        binding_limit: Some(LimitRow { path: format!("/{id}"), limit_bytes: 2 * anon, left_bytes: Some(anon), ..LimitRow::default() }),
        stacks,
        ..Cgroup::default()
    }
}

fn stack(frames: &[&str], live: u64) -> StackRow {
    let frames = frames.iter().map(|frame| (*frame).to_owned()).collect();
    StackRow { kind: "anon".to_owned(), comm: "java".to_owned(), frames, live, ..StackRow::default() }
}

fn view() -> View {
    let toucher = FileToucher { comm: "log".to_owned(), pid: Some(7), bytes: 5, ..FileToucher::default() };
    let mut web = cgroup("web", 300 << 20, vec![stack(&["main", "fill"], 200 << 20), stack(&["main", "read"], 60 << 20)]);
    web.files = vec![FileRow { path: "/var/log/app.log".to_owned(), live: 9 << 20, writers: vec![toucher], ..FileRow::default() }];
    web.verdicts =
        vec![Verdict { id: "growth".to_owned(), severity: "critical".to_owned(), text: "It grows.".to_owned(), ..Verdict::default() }];
    let report = Report { cgroups: vec![web, cgroup("db", 100 << 20, Vec::new())], ..Report::default() };
    let kill = Autopsy { time: "2026-12-01T10:00:00Z".to_owned(), verdict: Some("java was killed".to_owned()), ..Autopsy::default() };
    View { report: Arc::new(report), kills: vec![Arc::new(kill)], source: "test".to_owned(), interval_s: 1.0, ..View::default() }
}

const PLAIN: Theme = Theme { color: false, ascii: true };

fn text(state: &State, view: &View, size: (u16, u16)) -> String {
    let lines = screens::draw(state, view, PLAIN, size);
    lines.iter().map(|line| line.spans.iter().map(|span| span.content.as_ref()).collect::<String>() + "\n").collect()
}

fn press(state: &mut State, view: &View, keys: &[Key]) -> Action {
    keys.iter().fold(Action::Draw, |_, key| state.key(*key, view))
}

#[test]
fn the_chosen_row_is_followed_where_it_moves() {
    let (mut state, mut view) = (State::new(Wanted::default()), view());
    press(&mut state, &view, &[Key::Down]);
    let rows = state.rows(&view);
    assert_eq!(rows[state.chosen(&rows)].id, "db");
    let mut report = (*view.report).clone();
    report.cgroups[1] = cgroup("db", 900 << 20, Vec::new());
    view.report = Arc::new(report);
    let rows = state.rows(&view);
    assert_eq!((rows[0].id.as_str(), state.chosen(&rows)), ("db", 0));
}

#[test]
fn screens_open_and_close_and_q_ends_in_the_first_alone() {
    let (mut state, view) = (State::new(Wanted::default()), view());
    assert_eq!(press(&mut state, &view, &[Key::Enter, Key::Char('q')]), Action::Draw);
    assert_eq!(*state.screen(), Screen::Table);
    assert_eq!(press(&mut state, &view, &[Key::Char('q')]), Action::Quit);
    assert_eq!(press(&mut state, &view, &[Key::Enter, Key::Char('Q')]), Action::Quit);
    let mut state = State::new(Wanted::default());
    press(&mut state, &view, &[Key::Enter]);
    let shown = text(&state, &view, (100, 30));
    assert!(shown.contains("fill < main (java)") && shown.contains("200.0 MiB"), "{shown}");
    assert_eq!(press(&mut state, &view, &[Key::Escape, Key::Escape, Key::Char('o'), Key::Enter]), Action::Draw);
    assert!(text(&state, &view, (100, 30)).contains("OOM kill at 2026-12-01"));
}

#[test]
fn regions_are_asked_for_when_they_are_shown() {
    let (mut state, view) = (State::new(Wanted::default()), view());
    press(&mut state, &view, &[Key::Enter]);
    assert_eq!(press(&mut state, &view, &[Key::Char('4')]), Action::Look);
    assert!(text(&state, &view, (100, 30)).contains("being looked into"));
    assert_eq!(press(&mut state, &view, &[Key::Char('3')]), Action::Draw);
    press(&mut state, &view, &[Key::Enter]);
    assert!(text(&state, &view, (100, 30)).contains("written by log[7]"));
}

#[test]
fn a_filter_works_while_it_is_typed() {
    let (mut state, view) = (State::new(Wanted::default()), view());
    press(&mut state, &view, &[Key::Char('/'), Key::Char('d'), Key::Char('q')]);
    assert_eq!(state.wanted.filter, "dq", "a letter of the filter is no key");
    press(&mut state, &view, &[Key::Backspace]);
    assert_eq!(state.rows(&view).len(), 1);
    press(&mut state, &view, &[Key::Enter]);
    assert_eq!((state.typing.clone(), state.rows(&view).len()), (None, 1));
    press(&mut state, &view, &[Key::Escape]);
    assert_eq!(state.rows(&view).len(), 2);
    press(&mut state, &view, &[Key::Char('s')]);
    assert_eq!(state.wanted.sort, Sort::Growth);
}

#[test]
fn the_flame_graph_is_walked_by_keys() {
    let (mut state, view) = (State::new(Wanted::default()), view());
    press(&mut state, &view, &[Key::Char('f'), Key::Down, Key::Down, Key::Down]);
    let chosen = |state: &State| match state.screen() {
        Screen::Flame { chosen, zoom, .. } => (chosen.join(";"), zoom.join(";")),
        other => panic!("{other:?}"),
    };
    assert_eq!(chosen(&state).0, "java;main;fill");
    press(&mut state, &view, &[Key::Right]);
    assert_eq!(chosen(&state).0, "java;main;read");
    press(&mut state, &view, &[Key::Up, Key::Enter]);
    assert_eq!(chosen(&state), ("java;main".to_owned(), "java;main".to_owned()));
    let shown = text(&state, &view, (80, 24));
    assert!(shown.contains("[main  ") && !shown.contains("[java") && shown.contains("main: 260.0 MiB (100.0 %)"), "{shown}");
    press(&mut state, &view, &[Key::Escape]);
    assert_eq!(chosen(&state).1, "java");
    press(&mut state, &view, &[Key::Escape, Key::Escape]);
    assert_eq!(*state.screen(), Screen::Table);
}

#[test]
fn every_screen_fits_every_terminal() {
    let mut view = view();
    let mut report = (*view.report).clone();
    report.cgroups[0].path = "/hostile\u{1b}[2J\u{202e}\n名前".repeat(20);
    report.cgroups[0].stacks[0].frames[0] = "evil\u{1b}]0;x\u{7}".repeat(50);
    view.report = Arc::new(report);
    let openings: [&[Key]; 8] = [
        &[],
        &[Key::Enter],
        &[Key::Enter, Key::Char('1')],
        &[Key::Enter, Key::Char('3')],
        &[Key::Enter, Key::Char('4')],
        &[Key::Enter, Key::Enter],
        &[Key::Char('f'), Key::Down],
        &[Key::Char('o')],
    ];
    for keys in openings {
        let mut state = State::new(Wanted::default());
        press(&mut state, &view, keys);
        for size in [LEAST, (80, 24), (120, 40), (200, 50), (61, 12)] {
            for theme in [PLAIN, Theme { color: true, ascii: false }] {
                let lines = screens::draw(&state, &view, theme, size);
                assert_eq!(lines.len(), usize::from(size.1), "{keys:?} {size:?}");
                for line in &lines {
                    assert!(line.width() <= usize::from(size.0), "{keys:?} {size:?}: {} columns: {line}", line.width());
                    let text: String = line.spans.iter().map(|span| span.content.as_ref()).collect();
                    assert!(!text.chars().any(|c| c.is_control() || c == '\u{202e}'), "{text:?}");
                    assert!(!theme.ascii || text.is_ascii(), "{text:?}");
                }
            }
        }
    }
    let small = screens::draw(&State::new(Wanted::default()), &view, PLAIN, (40, 10));
    assert!(small[0].to_string().contains("needs 60x12"));
}
