//! Text inside XML: what SVG pictures are written in.

/// The text as the content of an element: `&`, `<` and `>` are written as entities. It is no attribute's value: quotes stay.
#[must_use]
pub fn content(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    #[test]
    fn markup_is_shown_and_not_obeyed() {
        assert_eq!(super::content("a<b>&amp;\""), "a&lt;b&gt;&amp;amp;\"");
    }
}
