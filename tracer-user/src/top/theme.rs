//! Colours, and signs beside them: nothing is told by colour alone.

use ratatui::style::{Color, Modifier, Style};

/// How a terminal may be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    /// The sixteen colours of terminals; without them, bold and reversed only.
    pub color: bool,
    /// No character beyond ASCII.
    pub ascii: bool,
}

/// Kinds with a hue and a sign, in the order of the bar.
pub const KINDS: [(&str, char); 4] = [("anon", '#'), ("file", '='), ("shmem", '~'), ("kernel", 'k')];

impl Theme {
    fn colored(self, color: Color) -> Style {
        if self.color { Style::new().fg(color) } else { Style::new() }
    }

    /// Of a kind of memory.
    #[must_use]
    pub fn kind(self, kind: &str) -> Style {
        self.colored(match kind {
            "anon" => Color::Yellow,
            "file" => Color::Blue,
            "shmem" => Color::Magenta,
            _ => Color::Cyan,
        })
    }

    /// Of a verdict.
    #[must_use]
    pub fn severity(self, severity: &str) -> Style {
        match severity {
            "critical" => self.colored(Color::Red).add_modifier(Modifier::BOLD),
            "warning" => self.colored(Color::Yellow),
            _ => Style::new(),
        }
    }

    /// The sign of a verdict.
    #[must_use]
    pub fn sign(severity: &str) -> char {
        match severity {
            "critical" => 'X',
            "warning" => '!',
            _ => 'i',
        }
    }

    /// Heads of tables.
    #[must_use]
    pub fn head(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// The row that keys are about.
    #[must_use]
    pub fn chosen(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// What matters less.
    #[must_use]
    pub fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// A box of the flame graph, by its name: the same name has the same hue everywhere.
    #[must_use]
    pub fn flame(self, name: &str, is_chosen: bool) -> Style {
        if is_chosen {
            return self.chosen();
        }
        if !self.color {
            return Style::new();
        }
        let hue = name.bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
        let color = if name.ends_with("_[k]") {
            Color::Cyan
        } else {
            [Color::Yellow, Color::Red, Color::LightYellow, Color::LightRed][(hue % 4) as usize]
        };
        Style::new().fg(Color::Black).bg(color)
    }

    /// The end of what is cut.
    #[must_use]
    pub fn ellipsis(self) -> &'static str {
        if self.ascii { ".." } else { "…" }
    }

    /// Text in the characters that the terminal takes.
    #[must_use]
    pub fn text(self, text: &str) -> String {
        let escaped = crate::text::escape(text);
        if self.ascii { escaped.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect() } else { escaped }
    }
}
