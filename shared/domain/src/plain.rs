//! Text that is safe to print on a terminal, in one line or in a log.

use std::borrow::Cow;
use std::fmt::Write;

/// Whether a character controls the display instead of being displayed: controls (C0, C1, DEL), line and paragraph
/// separators, and the formatting characters that change the direction of text (UAX #9).
fn controls_display(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

/// Whether the text has no character that controls the display.
pub fn is_plain(text: &str) -> bool {
    !text.chars().any(controls_display)
}

/// The text with every character that controls the display replaced by its escape sequence: `\u{1b}`.
pub fn escaped(text: &str) -> Cow<'_, str> {
    if is_plain(text) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if controls_display(character) {
            // Writing to a String cannot fail.
            let _ = write!(plain, "{}", character.escape_unicode());
        } else {
            plain.push(character);
        }
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_control_the_display_are_escaped() {
        for (text, shown) in [
            ("ticket 7, é, 日本", "ticket 7, é, 日本"),
            ("\x1b[2J", "\\u{1b}[2J"),
            ("a\r\nb", "a\\u{d}\\u{a}b"),
            ("\u{7f}\u{9b}\0\t", "\\u{7f}\\u{9b}\\u{0}\\u{9}"),
            ("\u{202e}txt.exe", "\\u{202e}txt.exe"),
            ("\u{2028}\u{2029}\u{202a}", "\\u{2028}\\u{2029}\\u{202a}"),
            (
                "\u{2066}\u{2069}\u{61c}\u{200e}\u{200f}",
                "\\u{2066}\\u{2069}\\u{61c}\\u{200e}\\u{200f}",
            ),
            ("\u{2027}\u{202f}\u{206a}", "\u{2027}\u{202f}\u{206a}"),
        ] {
            assert_eq!(escaped(text), shown);
            assert_eq!(is_plain(text), text == shown, "{shown}");
        }
    }
}
