//! The terminal while a screen of ours is on it. However it ends, also by a panic, the terminal is as it was before; what would have been printed
//! on it meanwhile is printed afterwards.

use crate::top::screens;
use anyhow::{Context as _, Result};
use ratatui::{
    Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor,
        event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
        execute, terminal,
    },
    text::Line,
    widgets::Paragraph,
};
use rustix::fs::{MemfdFlags, memfd_create};
use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::fd::AsFd as _,
    time::Duration,
};

use crate::top::state::Key;

/// Of what was printed meanwhile, the end that is shown.
const MOST_SAID: u64 = 16 << 10;

/// The terminal, taken.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<io::Stdout>>,
    _restored: Restored,
}

/// What somebody did.
pub(super) enum Input {
    /// A key.
    Key(Key),
    /// Ctrl-C.
    End,
    /// The terminal has another size, or came back.
    Redraw,
}

impl Screen {
    /// Takes the terminal.
    pub(super) fn take() -> Result<Screen> {
        let restored = Restored::of_now().context("cannot take the terminal")?;
        terminal::enable_raw_mode().context("cannot take the terminal")?;
        execute!(io::stdout(), terminal::EnterAlternateScreen, cursor::Hide).context("cannot take the terminal")?;
        let terminal = Terminal::new(CrosstermBackend::new(io::stdout())).context("cannot take the terminal")?;
        Ok(Screen { terminal, _restored: restored })
    }

    /// Columns and rows.
    pub(super) fn size(&self) -> (u16, u16) {
        terminal::size().unwrap_or(screens::LEAST)
    }

    /// Shows lines.
    pub(super) fn show(&mut self, lines: Vec<Line<'static>>) -> Result<()> {
        self.terminal.draw(|frame| frame.render_widget(Paragraph::new(lines), frame.area())).context("cannot write to the terminal")?;
        Ok(())
    }

    /// What was done within that time, if anything.
    pub(super) fn input(&self, within: Duration) -> Result<Option<Input>> {
        if !event::poll(within).context("cannot read the terminal")? {
            return Ok(None);
        }
        Ok(match event::read().context("cannot read the terminal")? {
            Event::Key(key) if key.kind != KeyEventKind::Release => {
                let ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
                let key = match key.code {
                    KeyCode::Char('c' | 'd') if ctrl => return Ok(Some(Input::End)),
                    KeyCode::Char('l') if ctrl => return Ok(Some(Input::Redraw)),
                    KeyCode::Char(character) if !ctrl => Key::Char(character),
                    KeyCode::Up => Key::Up,
                    KeyCode::Down => Key::Down,
                    KeyCode::Left => Key::Left,
                    KeyCode::Right => Key::Right,
                    KeyCode::PageUp => Key::PageUp,
                    KeyCode::PageDown => Key::PageDown,
                    KeyCode::Home => Key::Home,
                    KeyCode::End => Key::End,
                    KeyCode::Enter => Key::Enter,
                    KeyCode::Esc => Key::Escape,
                    KeyCode::Backspace => Key::Backspace,
                    KeyCode::Tab => Key::Tab,
                    _ => return Ok(None),
                };
                Some(Input::Key(key))
            }
            Event::Resize(..) | Event::FocusGained => Some(Input::Redraw),
            _ => None,
        })
    }
}

/// Standard error goes elsewhere while this lives. Dropped, the terminal is as it was.
struct Restored {
    stderr: File,
    said: File,
}

impl Restored {
    fn of_now() -> io::Result<Restored> {
        let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        let said = File::from(memfd_create("memtrail-said", MemfdFlags::CLOEXEC)?);
        rustix::stdio::dup2_stderr(&said)?;
        Ok(Restored { stderr, said })
    }

    fn said(&mut self) -> io::Result<Vec<u8>> {
        let length = self.said.metadata()?.len();
        self.said.seek(SeekFrom::Start(length.saturating_sub(MOST_SAID)))?;
        let mut said = Vec::new();
        (&mut self.said).take(MOST_SAID).read_to_end(&mut said)?;
        Ok(said)
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        // A terminal that is gone needs none of it.
        let _ = execute!(io::stdout(), cursor::Show, terminal::LeaveAlternateScreen);
        let _ = terminal::disable_raw_mode();
        let _ = rustix::stdio::dup2_stderr(&self.stderr);
        if let Ok(said) = self.said() {
            let _ = io::stderr().write_all(&said);
        }
    }
}
