use std::fs;

use super::*;

fn rel(bytes: impl Into<Vec<u8>>) -> RelPath {
    RelPath::parse(bytes).unwrap()
}

struct Rig {
    dir: tempfile::TempDir,
}

impl Rig {
    fn new(file: impl AsRef<[u8]>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(".p2p-sync")).unwrap();
        fs::write(dir.path().join(IGNORE_FILE), file).unwrap();
        Self { dir }
    }

    fn rules(&self, built_in: bool, patterns: &[&str]) -> Rules {
        let patterns = patterns.iter().map(|p| (*p).to_owned()).collect();
        RuleSource::new(built_in, patterns, self.dir.path())
            .read()
            .unwrap()
    }
}

fn of(patterns: &[&str]) -> Rules {
    let rules = Rig::new("").rules(false, patterns);
    assert_eq!(rules.problems(), [] as [&str; 0]);
    rules
}

/// Checks paths; a slash at the end says that it is a directory.
fn check_all(rules: &Rules, ignored: &[&str], others: &[&str]) {
    let is = |text: &str| rules.is_ignored(&rel(text.trim_end_matches('/')), text.ends_with('/'));
    for text in ignored {
        assert!(is(text), "{text} is not ignored");
    }
    for text in others {
        assert!(!is(text), "{text} is ignored");
    }
}

#[test]
fn temporary_names_are_ignored_unless_switched_off() {
    let rig = Rig::new("");
    let names = [
        ".a.swp",
        "d/.#x",
        "d/#x#",
        "4913",
        "f.iso.part",
        "x.crdownload",
        ".~lock.plan.odt#",
        "~$plan.docx",
        ".git/index.lock",
        "a/.git/r/h.lock",
    ];
    let others = [
        "a.swp",
        "Cargo.lock",
        "x.git/a.lock",
        "part",
        ".part",
        ".git/index",
        "a~",
        "4913x",
        "#x",
    ];
    check_all(&rig.rules(true, &[]), &names, &others);
    check_all(&rig.rules(false, &[]), &[], &names);
}

#[test]
fn patterns_mean_what_they_mean_to_git() {
    let rules = of(&["*.o", "/top", "build/", "a/**/z", "doc/*.pdf"]);
    check_all(
        &rules,
        &[
            "x.o",
            "d/x.o",
            "top",
            "top/x",
            "build/",
            "d/build/",
            "build/x/y",
            "a/z",
            "a/b/c/z",
            "doc/x.pdf",
        ],
        &["x.oo", "d/top", "build", "d/build", "doc/d/x.pdf", "b/a/z"],
    );
}

#[test]
fn a_negation_brings_back_what_lies_in_no_ignored_directory() {
    check_all(
        &of(&["*.log", "!keep.log", "out/", "!out/keep.log"]),
        &["a.log", "out/", "out/keep.log", "out/a"],
        &["keep.log", "d/keep.log"],
    );
    check_all(&of(&["/*", "!/kept"]), &["a", "d/kept"], &["kept/", "kept/x"]);
}

#[test]
fn the_last_source_decides() {
    let rig = Rig::new("!x.part\n# a comment\n\n*.tmp\r\n");
    let rules = rig.rules(true, &["*.bak", "!b.tmp"]);
    check_all(
        &rules,
        &["a.bak", "a.tmp", "b.tmp", "y.part"],
        &["x.part", "# a comment"],
    );
}

#[test]
fn names_that_are_no_text_are_matched_by_their_bytes() {
    let rules = of(&["*.part", "x?z", "dir\u{e9}/"]);
    let odd = |bytes: &[u8]| rules.is_ignored(&rel(bytes), false);
    assert!(odd(b"\xff\xfe.part"));
    assert!(odd(b"d/\xff.part"));
    assert!(odd(b"x\xffz"));
    assert!(odd("dir\u{e9}/\u{fc}".as_bytes()));
    assert!(!odd(b"\xff"));
    assert!(!odd(b"dir\xe9/x"));
}

#[test]
fn a_bad_pattern_is_named_and_the_others_hold() {
    let rig = Rig::new(b"*.a\nx[y\n\xff\n*.b\n".as_slice());
    let rules = rig.rules(false, &[]);
    check_all(&rules, &["q.a", "q.b"], &["x[y", "xy"]);
    let [bad, bytes] = rules.problems() else {
        panic!("{:?}", rules.problems())
    };
    assert!(
        bad.starts_with(".p2p-sync/ignore:2: \"x[y\" is no pattern: "),
        "{bad}"
    );
    assert_eq!(bytes, ".p2p-sync/ignore:3: not UTF-8");
    for bad in ["", "  ", "# x", "a\nb", "a[", "a{b", &"x".repeat(1025)] {
        assert!(check(bad).is_err(), "{bad:?}");
    }
    for good in ["\\#x", "!a", "a/", "[ab]*", "x y"] {
        assert_eq!(check(good), Ok(()), "{good:?}");
    }
}

#[test]
fn too_many_patterns_are_cut_off_and_said_to_be() {
    let lines: String = (0..PATTERNS_MAX + 5).map(|i| format!("f{i}\n")).collect();
    let rules = Rig::new(lines).rules(false, &[]);
    check_all(&rules, &["f0", "f999"], &["f1000"]);
    assert_eq!(rules.problems().len(), 1);
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_and_an_absent_one_is_not() {
    let rig = Rig::new("");
    let file = rig.dir.path().join(IGNORE_FILE);
    let source = RuleSource::new(true, Vec::new(), rig.dir.path());
    fs::remove_file(&file).unwrap();
    assert!(source.read().is_ok());
    fs::create_dir(&file).unwrap();
    assert!(matches!(source.read(), Err(IgnoreError::Read { .. })));
    fs::remove_dir(&file).unwrap();
    fs::write(&file, "x\n".repeat(40_000)).unwrap();
    assert!(matches!(source.read(), Err(IgnoreError::Read { .. })));
}

#[test]
fn rules_of_the_same_patterns_have_the_same_id() {
    let id = |patterns: &[&str], file: &str| Rig::new(file).rules(false, patterns).id();
    assert_eq!(id(&["a", "b"], ""), id(&["a"], "# x\nb\n"));
    assert_ne!(id(&["a", "b"], ""), id(&["b", "a"], ""));
    assert_ne!(id(&[], ""), [0; 32]);
}
