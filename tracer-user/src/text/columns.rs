//! Text in a terminal's columns: its width, cutting in the middle, filling, breaking into lines. Nothing here shortens a text without showing
//! `…` where it did.

use unicode_width::UnicodeWidthChar;

/// Columns that a text takes in a terminal. Characters without a width of their own count as one: a name made of combining marks must not
/// count as short.
#[must_use]
pub fn width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

/// The text in at most `columns` columns: its middle is replaced by `…`, so that the beginning and the end stay readable.
#[must_use]
pub fn cut_middle(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let Some(room) = columns.checked_sub(1) else { return String::new() };
    let head = take_columns(text.chars(), room.div_ceil(2));
    let head_width: usize = head.iter().copied().map(char_width).sum();
    let mut tail = take_columns(text.chars().rev(), room - head_width);
    tail.reverse();
    head.into_iter().chain(std::iter::once('…')).chain(tail).collect()
}

/// The text filled with spaces to a width; longer ones are cut in the middle.
#[must_use]
pub fn pad_right(text: &str, columns: usize) -> String {
    let mut padded = cut_middle(text, columns);
    padded.extend(std::iter::repeat_n(' ', columns.saturating_sub(width(&padded))));
    padded
}

/// The text after spaces to a width. Never cut: it is a figure.
#[must_use]
pub fn pad_left(text: &str, columns: usize) -> String {
    let mut padded = " ".repeat(columns.saturating_sub(width(text)));
    padded.push_str(text);
    padded
}

/// Breaks a text at spaces into lines of at most `columns` columns; a longer word is cut in the middle.
#[must_use]
pub fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let word = cut_middle(word, columns);
        match lines.last_mut() {
            Some(line) if width(line) + 1 + width(&word) <= columns => {
                line.push(' ');
                line.push_str(&word);
            }
            _ => lines.push(word),
        }
    }
    lines
}

fn char_width(character: char) -> usize {
    character.width().unwrap_or(1).max(1)
}

fn take_columns(characters: impl Iterator<Item = char>, columns: usize) -> Vec<char> {
    let mut used = 0;
    characters
        .take_while(|character| {
            used += char_width(*character);
            used <= columns
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_in_the_middle() {
        assert_eq!(cut_middle("short", 5), "short");
        assert_eq!(cut_middle("abcdefghij", 7), "abc…hij");
        assert_eq!(cut_middle("abcdefghij", 6), "abc…ij");
        assert_eq!(cut_middle("abc", 1), "…");
        assert_eq!(cut_middle("abc", 0), "");
        for columns in 0..20 {
            assert!(width(&cut_middle("漢字漢字漢字abc漢字漢字", columns)) <= columns);
        }
        assert!(width(&"\u{301}".repeat(100)) == 100);
    }

    #[test]
    fn texts_wrap_at_spaces() {
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("abcdefghij", 5), ["ab…ij"]);
        assert!(wrap("", 5).is_empty());
        assert_eq!(pad_right("ab", 4), "ab  ");
        assert_eq!(pad_left("ab", 4), "  ab");
    }
}
