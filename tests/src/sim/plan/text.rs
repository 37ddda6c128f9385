//! Plans as text, one thing a line: `device …`, `set <name> <number>`, and one line for each happening. Lines that begin
//! with `#` say something to people.

use std::collections::BTreeMap;
use std::fmt;
use std::str::{FromStr, SplitWhitespace};

use p2p_sync_core::access::Role;

use super::{DevicePlan, Happening, Plan};

const ROLES: [(Role, &str); 3] = [
    (Role::Editor, "editor"),
    (Role::Admin, "admin"),
    (Role::Viewer, "viewer"),
];

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut copy = self.clone();
        for (name, value) in settings(&mut copy) {
            writeln!(f, "set {name} {value}")?;
        }
        for (name, value) in switches(&mut copy) {
            writeln!(f, "set {name} {}", u64::from(*value))?;
        }
        for device in &self.devices {
            writeln!(f, "{device}")?;
        }
        for happening in &self.happenings {
            writeln!(f, "{happening}")?;
        }
        Ok(())
    }
}

fn settings(plan: &mut Plan) -> BTreeMap<&'static str, &mut u64> {
    BTreeMap::from([
        ("seed", &mut plan.seed),
        ("faults_from", &mut plan.faults_from_ms),
        ("span", &mut plan.span_ms),
        ("loss", &mut plan.loss),
        ("duplicates", &mut plan.duplicates),
        ("missed_hints", &mut plan.missed_hints),
        ("bad_fetches", &mut plan.bad_fetches),
        ("user_syncs", &mut plan.user_syncs),
        ("delay_max", &mut plan.delay_max_ms),
        ("report_delay_max", &mut plan.report_delay_max_ms),
        ("commit_max", &mut plan.commit_max_ms),
    ])
}

fn switches(plan: &mut Plan) -> BTreeMap<&'static str, &mut bool> {
    BTreeMap::from([
        ("lan", &mut plan.lan),
        ("trust_lan", &mut plan.trust_lan),
        ("stranger", &mut plan.stranger),
    ])
}

impl fmt::Display for DevicePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            start_ms,
            join_ms,
            role,
            files,
            skew_ms,
        } = self;
        let role = ROLES
            .iter()
            .find(|(known, _)| known == role)
            .map_or("editor", |(_, name)| name);
        match join_ms {
            Some(join) => write!(f, "device start {start_ms} join {join} {role}")?,
            None => write!(f, "device start {start_ms} alone {role}")?,
        }
        write!(f, " files {files} skew {skew_ms}")
    }
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User { at, device, seed } => write!(f, "user {at} {device} {seed}"),
            Self::Admin { at, device, seed } => write!(f, "admin {at} {device} {seed}"),
            Self::Meddle {
                at,
                device,
                steps,
                seed,
            } => write!(f, "meddle {at} {device} {steps} {seed}"),
            Self::Cut { at, until, a, b } => write!(f, "cut {at} {until} {a} {b}"),
            Self::OneWay { at, until, from, to } => write!(f, "oneway {at} {until} {from} {to}"),
            Self::Slow {
                at,
                until,
                a,
                b,
                delay,
            } => write!(f, "slow {at} {until} {a} {b} {delay}"),
            Self::Crash {
                at,
                until,
                device,
                steps,
                power,
            } => {
                let name = if *power { "power" } else { "crash" };
                write!(f, "{name} {at} {until} {device} {steps}")
            }
            Self::Empty { at, device } => write!(f, "empty {at} {device}"),
            Self::Jump { at, device, by } => write!(f, "jump {at} {device} {by}"),
            Self::Lose { at, device } => write!(f, "lose {at} {device}"),
            Self::Exchange { at, device } => write!(f, "exchange {at} {device}"),
            Self::Backup { at, device } => write!(f, "backup {at} {device}"),
            Self::Restore { at, device } => write!(f, "restore {at} {device}"),
        }
    }
}

impl FromStr for Plan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut plan = Self::quiet(0);
        for line in text.lines().map(str::trim) {
            if !line.is_empty() && !line.starts_with('#') {
                read_line(&mut plan, line).map_err(|reason| format!("{line:?}: {reason}"))?;
            }
        }
        let count = plan.devices.len();
        let stray = plan
            .happenings
            .iter()
            .find(|one| one.devices().iter().any(|device| *device >= count));
        match stray {
            Some(happening) => Err(format!("{happening}: there are {count} devices")),
            None => Ok(plan),
        }
    }
}

fn read_line(plan: &mut Plan, line: &str) -> Result<(), String> {
    let mut words = line.split_whitespace();
    let mut words = Words(&mut words);
    match words.word()? {
        "set" => set(plan, words.word()?, words.next()?)?,
        "device" => plan.devices.push(read_device(&mut words)?),
        kind => plan.happenings.push(read_happening(kind, &mut words)?),
    }
    match words.0.next() {
        Some(more) => Err(format!("{more:?} is too much")),
        None => Ok(()),
    }
}

fn set(plan: &mut Plan, name: &str, value: u64) -> Result<(), String> {
    if let Some(setting) = settings(plan).remove(name) {
        *setting = value;
        return Ok(());
    }
    let mut switches = switches(plan);
    let switch = switches.get_mut(name).ok_or("no such setting")?;
    **switch = value != 0;
    Ok(())
}

fn read_device(words: &mut Words<'_, '_>) -> Result<DevicePlan, String> {
    words.expect("start")?;
    let start_ms = words.next()?;
    let join_ms = match words.word()? {
        "join" => Some(words.next()?),
        "alone" => None,
        other => return Err(format!("{other:?} is neither join nor alone")),
    };
    let role = words.word()?;
    let role = ROLES.iter().find(|(_, name)| *name == role);
    let (role, _) = role.ok_or("no such role")?;
    words.expect("files")?;
    let files = words.next()?;
    words.expect("skew")?;
    let skew_ms = words.next()?;
    Ok(DevicePlan {
        start_ms,
        join_ms,
        role: *role,
        files,
        skew_ms,
    })
}

fn read_happening(kind: &str, words: &mut Words<'_, '_>) -> Result<Happening, String> {
    let at = words.next()?;
    Ok(match kind {
        "user" => Happening::User {
            at,
            device: words.next()?,
            seed: words.next()?,
        },
        "admin" => Happening::Admin {
            at,
            device: words.next()?,
            seed: words.next()?,
        },
        "meddle" => Happening::Meddle {
            at,
            device: words.next()?,
            steps: words.next()?,
            seed: words.next()?,
        },
        "cut" => Happening::Cut {
            at,
            until: words.next()?,
            a: words.next()?,
            b: words.next()?,
        },
        "oneway" => Happening::OneWay {
            at,
            until: words.next()?,
            from: words.next()?,
            to: words.next()?,
        },
        "slow" => Happening::Slow {
            at,
            until: words.next()?,
            a: words.next()?,
            b: words.next()?,
            delay: words.next()?,
        },
        "crash" | "power" => Happening::Crash {
            at,
            until: words.next()?,
            device: words.next()?,
            steps: words.next()?,
            power: kind == "power",
        },
        "jump" => Happening::Jump {
            at,
            device: words.next()?,
            by: words.next()?,
        },
        _ => return read_simple(kind, at, words.next()?),
    })
}

fn read_simple(kind: &str, at: u64, device: usize) -> Result<Happening, String> {
    match kind {
        "empty" => Ok(Happening::Empty { at, device }),
        "lose" => Ok(Happening::Lose { at, device }),
        "exchange" => Ok(Happening::Exchange { at, device }),
        "backup" => Ok(Happening::Backup { at, device }),
        "restore" => Ok(Happening::Restore { at, device }),
        _ => Err("nothing of this name happens".to_owned()),
    }
}

/// The words of one line.
struct Words<'w, 't>(&'w mut SplitWhitespace<'t>);

impl<'t> Words<'_, 't> {
    fn word(&mut self) -> Result<&'t str, String> {
        self.0.next().ok_or_else(|| "too short".to_owned())
    }

    fn next<T: FromStr>(&mut self) -> Result<T, String> {
        let word = self.word()?;
        word.parse().map_err(|_| format!("{word:?} is no number"))
    }

    fn expect(&mut self, word: &str) -> Result<(), String> {
        let found = self.word()?;
        if found == word {
            Ok(())
        } else {
            Err(format!("{found:?} is not {word:?}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Draw;
    use super::*;

    #[test]
    fn a_plan_that_was_written_down_is_the_same_when_it_is_read() {
        for seed in 0..50 {
            let plan = Draw {
                restores: true,
                roles: true,
                twins: true,
            }
            .plan(seed);
            let text = format!("# why it is kept\n\n{plan}");
            assert_eq!(text.parse(), Ok(plan));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "user 1 0",
            "set x 1",
            "crash 1 2 3 4",
            "device start x",
            "empty 1 0 0",
        ] {
            assert!(text.parse::<Plan>().is_err(), "{text}");
        }
    }
}
