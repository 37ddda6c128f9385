//! How long a file may be. Unit tests, at its end or in a `tests.rs` of their own, are not
//! counted.

use anyhow::Result;

use crate::source::{self, none};

/// From here on a file needs a reason.
const LINES_WITHOUT_REASON: usize = 600;
/// No reason is good enough for more.
const LINES_MOST: usize = 900;

/// Files that are longer than [`LINES_WITHOUT_REASON`], and why.
const REASONS: &[(&str, &str)] = &[(
    "daemon/core/src/engine/io.rs",
    "the engine's whole contract with the shell, two thirds of it documentation",
)];

#[test]
fn files_are_of_readable_length() -> Result<()> {
    let mut findings = Vec::new();
    for path in source::rust_files("")? {
        if path.file_name().is_some_and(|name| name == "tests.rs") {
            continue;
        }
        let text = source::read(&path)?;
        let lines = source::without_tests(&text).len();
        let has_reason = REASONS.iter().any(|(file, _)| path.as_os_str() == *file);
        if lines > LINES_MOST || (lines > LINES_WITHOUT_REASON && !has_reason) {
            findings.push(format!("{}: {lines} lines", path.display()));
        }
    }
    none("At most 600 lines, 900 with a reason in REASONS", &findings)
}

#[test]
fn reasons_are_given_for_long_files_only() -> Result<()> {
    let mut findings = Vec::new();
    for (file, _) in REASONS {
        let text = source::read(file.as_ref())?;
        if source::without_tests(&text).len() <= LINES_WITHOUT_REASON {
            findings.push((*file).to_owned());
        }
    }
    none("These files need no entry in REASONS any more", &findings)
}

#[test]
fn unit_tests_are_not_counted() {
    let text = "a\nb\n\n#[cfg(test)]\nmod tests {\n}\n";
    assert_eq!(source::without_tests(text).len(), 3);
    assert_eq!(
        source::without_tests("#[cfg(test)]\nuse x;\nfn f() {}\n").len(),
        3
    );
}
