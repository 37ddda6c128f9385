//! The configuration file.

use std::fs;
use std::ops::Range;
use std::path::Path;

use serde::Deserialize as _;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::ConfigError;
use super::layer::{KEYS, Layer, unknown};

/// The version of the file's format.
const VERSION: u64 = 1;

/// Reads a file.
pub(super) fn read(path: &Path) -> Result<Layer, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(&text).map_err(|mistakes| {
        let place = |m: Mistake| match m.at {
            Some(at) => {
                let (line, column) = line_column(&text, at.start);
                format!("{}:{line}:{column}: {}", path.display(), m.what)
            }
            None => format!("{}: {}", path.display(), m.what),
        };
        ConfigError::Mistakes(mistakes.into_iter().map(place).collect())
    })
}

#[derive(Debug)]
struct Mistake {
    at: Option<Range<usize>>,
    what: String,
}

impl From<toml::de::Error> for Mistake {
    fn from(error: toml::de::Error) -> Self {
        Self {
            at: error.span(),
            what: error.message().lines().collect::<Vec<_>>().join(", "),
        }
    }
}

/// Reads a file's text; collects all unknown keys and syntax errors, then the first wrong value.
fn parse(text: &str) -> Result<Layer, Vec<Mistake>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut mistakes: Vec<Mistake> = errors.into_iter().map(Mistake::from).collect();
    unknown_keys(table.get_ref(), &mut mistakes);
    bad_patterns(table.get_ref(), &mut mistakes);
    if !mistakes.is_empty() {
        mistakes.sort_by_key(|m| m.at.as_ref().map(|at| at.start));
        return Err(mistakes);
    }
    let layer = Layer::deserialize(toml::Deserializer::from(table)).map_err(|e| vec![Mistake::from(e)])?;
    match layer.version {
        None | Some(VERSION) => Ok(layer),
        Some(other) => {
            let what = format!("version {other} is not known to this daemon; it knows {VERSION}");
            Err(vec![Mistake { at: None, what }])
        }
    }
}

fn unknown_keys(table: &DeTable<'_>, mistakes: &mut Vec<Mistake>) {
    for (name, value) in table {
        if name.get_ref() == "version" {
            continue;
        }
        let Some((section, keys)) = KEYS.iter().find(|(section, _)| section == name.get_ref()) else {
            let known = KEYS.iter().map(|(section, _)| *section).chain(["version"]);
            let what = match value.get_ref() {
                DeValue::Table(_) => "section",
                _ => "key",
            };
            mistakes.push(Mistake {
                at: Some(name.span()),
                what: unknown(what, name.get_ref(), known),
            });
            continue;
        };
        let DeValue::Table(table) = value.get_ref() else {
            let what = format!("'{section}' is a section: write [{section}]");
            mistakes.push(Mistake {
                at: Some(name.span()),
                what,
            });
            continue;
        };
        let strangers = table.keys().filter(|key| !keys.contains(&&**key.get_ref()));
        mistakes.extend(strangers.map(|key| Mistake {
            at: Some(Spanned::span(key)),
            what: unknown("key", key.get_ref(), keys.iter().copied()) + &format!(" (in [{section}])"),
        }));
    }
}

/// Ignore patterns are looked at here, where each still has its place.
fn bad_patterns(table: &DeTable<'_>, mistakes: &mut Vec<Mistake>) {
    let folder = table.get("folder").map(Spanned::get_ref);
    let list = folder.and_then(|folder| folder.get("ignore"));
    let patterns = list
        .and_then(|list| list.get_ref().as_array())
        .into_iter()
        .flatten();
    for pattern in patterns {
        if let DeValue::String(text) = pattern.get_ref()
            && let Err(what) = crate::ignore_rules::check(text.as_ref())
        {
            let at = Some(pattern.span());
            mistakes.push(Mistake { at, what });
        }
    }
}

/// Returns line and column, both from 1, the column in characters.
fn line_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (
        before.matches('\n').count() + 1,
        before[line_start..].chars().count() + 1,
    )
}
