//! Whose device it is: a tag that groups devices for people. It gives no rights.

use std::fmt;

/// Bytes that a person's tag may have.
pub(crate) const MAX_PERSON: usize = 64;

/// A tag that the devices of one person have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Person(String);

/// A text is no tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("The tag of a person has 1 to 64 bytes, no control characters, and no space at its ends")]
pub struct PersonError;

impl Person {
    /// Reads a tag.
    ///
    /// # Errors
    /// [`PersonError`] if the text is empty, too long, has control characters, or begins or ends with white space.
    pub fn parse(text: &str) -> Result<Self, PersonError> {
        let fits = !text.is_empty() && text.len() <= MAX_PERSON && text.trim() == text;
        if fits && !text.chars().any(char::is_control) {
            Ok(Self(text.to_owned()))
        } else {
            Err(PersonError)
        }
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Person {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_a_short_text_on_one_line() {
        let longest = "\u{e4}".repeat(32);
        for good in ["a", "Anna B", longest.as_str(), "anna@example.org"] {
            assert_eq!(Person::parse(good).unwrap().as_str(), good);
        }
        let too_long = format!("{longest}a");
        for bad in [
            "",
            " ",
            " anna",
            "anna ",
            "an\nna",
            "an\u{1b}na",
            "an\u{85}na",
            too_long.as_str(),
        ] {
            assert_eq!(Person::parse(bad), Err(PersonError), "{bad:?}");
        }
    }
}
