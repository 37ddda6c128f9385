use std::collections::BTreeMap;
use std::fs;

use clap::{CommandFactory as _, Parser as _};
use tempfile::TempDir;

use super::*;

struct Case {
    dir: TempDir,
    vars: BTreeMap<String, std::ffi::OsString>,
}

impl Case {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let vars = BTreeMap::from([("HOME".to_owned(), dir.path().join("home").into())]);
        Self { dir, vars }
    }

    fn var(mut self, name: &str, value: &str) -> Self {
        self.vars.insert(name.to_owned(), value.into());
        self
    }

    fn file(self, text: &str) -> Self {
        let dir = self.dir.path().join("home/.config/p2p-sync");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("config.toml"), text).unwrap();
        self
    }

    fn resolve(&self, args: &str) -> Result<Settings, ConfigError> {
        let words = ["p2p_sync_daemon"].into_iter().chain(args.split_whitespace());
        let environment = Environment {
            vars: self.vars.clone(),
            current_dir: self.dir.path().canonicalize().unwrap(),
            uid: 1000,
            host_name: "atlas".into(),
        };
        Settings::resolve_in(&Cli::try_parse_from(words).unwrap(), &environment)
    }

    /// Returns the mistakes in the file, one a line, without the file's own path.
    fn mistakes(&self) -> String {
        let file = self
            .dir
            .path()
            .canonicalize()
            .unwrap()
            .join("home/.config/p2p-sync/config.toml");
        let text = self.resolve("").unwrap_err().to_string();
        let shown = self.dir.path().join("home/.config/p2p-sync/config.toml");
        text.replace(&format!("{}:", shown.display()), "")
            .replace(&format!("{}:", file.display()), "")
    }
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn without_anything_said_it_keeps_sync_folder_here() {
    let case = Case::new();
    let settings = case.resolve("").unwrap();
    let here = case.dir.path().canonicalize().unwrap();
    assert_eq!(settings.folder, here.join("sync_folder"));
    assert_eq!((settings.name.as_str(), settings.modes), ("atlas", Modes::Full));
    assert!(settings.mdns && settings.lan_pairing && !settings.trust_lan && settings.listen_is_default);
    assert_eq!(settings.listen, ["/ip4/0.0.0.0/tcp/22010", "/ip6/::/tcp/22010"]);
    let SocketPlace::Own { dir, name } = &settings.socket else {
        panic!()
    };
    assert_eq!(dir, Path::new("/tmp/p2p-sync-1000"));
    assert_eq!(settings.state_dir.file_name().unwrap(), &name[..16]);
    assert!(
        !settings.folder.exists() && !settings.state_dir.exists(),
        "resolving makes nothing"
    );
}

#[test]
fn an_option_comes_before_the_environment_before_the_file() {
    let file = "version = 1\n[daemon]\nname = \"file\"\nlog = \"debug\"\n[network]\nmdns = true\nlisten = [\"/ip4/1.1.1.1/tcp/1\"]\n";
    let case = Case::new().file(file);
    assert_eq!(case.resolve("").unwrap().name, "file");
    let case = case
        .var("P2P_SYNC_DAEMON__NAME", "env")
        .var("P2P_SYNC_NETWORK__MDNS", "false");
    let settings = case.resolve("").unwrap();
    assert_eq!(
        (settings.name.as_str(), settings.log.as_str(), settings.mdns),
        ("env", "debug", false)
    );
    assert!(!case.resolve("--no-lan-pairing").unwrap().lan_pairing);
    let settings = case
        .resolve("--name flag --listen /ip4/127.0.0.1/tcp/0 --trust-lan")
        .unwrap();
    assert_eq!((settings.name.as_str(), settings.trust_lan), ("flag", true));
    assert_eq!(settings.listen, ["/ip4/127.0.0.1/tcp/0"]);
    assert!(!settings.listen_is_default);
}

#[test]
fn lists_and_paths_come_from_the_environment_too() {
    let case = Case::new()
        .var(
            "P2P_SYNC_NETWORK__PEERS",
            "/ip4/1.1.1.1/tcp/1, /ip4/2.2.2.2/tcp/2",
        )
        .var("P2P_SYNC_FOLDER__PATH", "/srv/sync")
        .var("P2P_SYNC_SOCKET", "/run/x.sock")
        .var("P2P_SYNC_BOOT_ID", "not configuration");
    let settings = case.resolve("").unwrap();
    assert_eq!(settings.peers.len(), 2);
    assert_eq!(settings.folder, Path::new("/srv/sync"));
    assert_eq!(settings.socket, SocketPlace::Named("/run/x.sock".into()));
    let case = case.var("P2P_SYNC_CONTROL__SOCKET", "/run/y.sock");
    assert_eq!(
        case.resolve("").unwrap().socket,
        SocketPlace::Named("/run/y.sock".into())
    );
    assert_eq!(
        case.resolve("--socket /z").unwrap().socket,
        SocketPlace::Named("/z".into())
    );
}

#[test]
fn unknown_keys_are_all_named_with_line_and_suggestion() {
    let case = Case::new().file("verzion = 1\n[daemon]\nnam = \"x\"\n[network]\n  mdnss = true\n[netwrk]\n");
    assert_eq!(
        case.mistakes(),
        "1:1: unknown key 'verzion'; did you mean 'version'?\n\
         3:1: unknown key 'nam'; did you mean 'name'? (in [daemon])\n\
         5:3: unknown key 'mdnss'; did you mean 'mdns'? (in [network])\n\
         6:2: unknown section 'netwrk'; did you mean 'network'?"
    );
}

#[test]
fn wrong_values_and_syntax_are_named_with_their_line() {
    assert!(
        Case::new()
            .file("[network]\nmdns = \"yes\"\n")
            .mistakes()
            .starts_with("2:8: invalid type")
    );
    assert!(
        Case::new()
            .file("[folder]\nmodes = \"some\"\n")
            .mistakes()
            .contains("full")
    );
    assert!(
        Case::new()
            .file("[daemon\nname = 1\n")
            .mistakes()
            .starts_with("1:")
    );
    assert!(
        Case::new()
            .file("version = 2\n")
            .mistakes()
            .contains("version 2 is not known")
    );
    assert!(
        Case::new()
            .file("daemon = 1\n")
            .mistakes()
            .contains("write [daemon]")
    );
}

#[test]
fn unknown_and_wrong_variables_are_errors() {
    let text = |name, value| Case::new().var(name, value).resolve("").unwrap_err().to_string();
    assert_eq!(
        text("P2P_SYNC_DAEMON__NAMEE", "x"),
        "P2P_SYNC_DAEMON__NAMEE: unknown key 'namee'; did you mean 'name'?"
    );
    assert!(text("P2P_SYNC_DEMON__NAME", "x").contains("did you mean 'daemon'?"));
    assert!(text("P2P_SYNC_NETWORK__MDNS", "yes").contains("expected true or false"));
}

#[test]
fn values_that_make_no_sense_are_refused() {
    let case = Case::new();
    let key = |args: &str| match case.resolve(args).unwrap_err() {
        ConfigError::Value { key, .. } => key,
        other => panic!("{other}"),
    };
    assert_eq!(key("--listen 127.0.0.1:1"), "network.listen");
    assert_eq!(key("--peer /ip4/x"), "network.peers");
    assert_eq!(key("--state-dir sync_folder/state"), "daemon.state_dir");
    let case = case.var("P2P_SYNC_FOLDER__MIN_FREE", "2%");
    assert_eq!(case.resolve("").unwrap().min_free, Reserve::Percent(2));
    let case = case.var("P2P_SYNC_FOLDER__MIN_FREE", "much");
    assert!(matches!(
        case.resolve("").unwrap_err(),
        ConfigError::Value {
            key: "folder.min_free",
            ..
        }
    ));
    let case = case.var("P2P_SYNC_FOLDER__MIN_FREE", "1GiB");
    assert!(matches!(
        case.resolve("--join p2ps1x"),
        Err(ConfigError::Ticket(_))
    ));
    assert!(matches!(
        case.resolve("--config missing.toml"),
        Err(ConfigError::Read { .. })
    ));
    let long = format!("--socket /{}", "s".repeat(107));
    assert!(matches!(
        case.resolve(&long),
        Err(ConfigError::Paths(PathsError::SocketTooLong { .. }))
    ));
}

#[test]
fn the_packaged_file_is_accepted_and_names_every_key() {
    let text = include_str!("../../../packaging/config.toml");
    let uncommented: String = text
        .lines()
        .map(|l| {
            l.strip_prefix("#")
                .filter(|l| !l.starts_with(' '))
                .unwrap_or(l)
                .to_owned()
                + "\n"
        })
        .collect();
    for text in [text, &uncommented] {
        let settings = Case::new().file(text).resolve("").unwrap();
        assert_eq!(settings.folder, Path::new("/srv/sync"));
        assert_eq!(settings.state_dir, Path::new("/var/lib/p2p-sync/state"));
    }
    for (section, keys) in layer::KEYS {
        assert!(text.contains(&format!("[{section}]")));
        for key in keys {
            assert!(
                uncommented.lines().any(|l| l.starts_with(&format!("{key} = "))),
                "{section}.{key}"
            );
        }
    }
}

#[test]
fn the_first_start_names_folder_device_socket_and_next_steps() {
    let case = Case::new();
    let words = |args: &str, socket: &str| {
        print_first_start(&case.resolve(args).unwrap(), "0a0a0a", Path::new(socket))
    };
    let text = words("", "/tmp/p2p-sync-1000/control.sock");
    for part in [
        "sync_folder",
        "0a0a0a",
        "control.sock",
        " syncctl invite create",
        "p2p_sync_daemon --join TICKET",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(words("--socket /s.sock", "/s.sock").contains("syncctl --socket /s.sock invite create"));
    assert!(words("", "/tmp/p2p-sync-1000/12.sock").contains("sync_folder invite create"));
    assert_eq!(shell_word(Path::new("/a b'c")), "'/a b'\\''c'");
}

#[test]
fn the_summary_ends_with_ok() {
    let text = Case::new().resolve("").unwrap().summary();
    assert!(
        text.contains("folder.modes           full\n") && text.ends_with("OK\n"),
        "{text}"
    );
}

#[test]
fn ignore_patterns_come_from_the_file_and_bad_ones_are_named_with_their_place() {
    let case = Case::new().file("[folder]\ndefault_ignores = false\nignore = [\"*.part\", \"!x\"]\n");
    let settings = case.resolve("").unwrap();
    assert!(!settings.default_ignores);
    assert_eq!(settings.ignore, ["*.part", "!x"]);
    assert!(settings.summary().contains("folder.ignore          *.part !x\n"));
    let case = Case::new().var("P2P_SYNC_FOLDER__IGNORE", "a, b[");
    let error = case.resolve("").unwrap_err().to_string();
    assert!(
        error.starts_with("folder.ignore: \"b[\" is no pattern: "),
        "{error}"
    );
    let case = Case::new().file("[folder]\nignore = [\n  \"ok\",\n  \"x[\",\n  \"\",\n]\n");
    let mistakes = case.mistakes();
    let lines: Vec<&str> = mistakes.lines().collect();
    assert!(lines[0].starts_with("4:3: \"x[\" is no pattern: "), "{mistakes}");
    assert_eq!(lines[1..], ["5:3: an empty pattern"]);
}
