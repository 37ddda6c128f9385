//! Events and items as JSON and as words.

use p2p_sync_proto::v1;
use p2p_sync_proto::v1::event_item::What;
use serde::Serialize;

use crate::cmds::history;
use crate::output::{JsonPath, escape, hex, number, short, size};
use crate::view::{DeviceJson, device_words, role};

/// Digits of an event's id that people are shown: enough to name it by.
const ID_SHOWN: usize = 12;

/// What people are told of what has no effect for want of its author's rights.
const VOID: &str = "counts nowhere";

#[derive(Debug, Serialize)]
pub(super) struct EventJson {
    id: String,
    author: DeviceJson,
    author_role: Option<&'static str>,
    role_then: Option<&'static str>,
    void: bool,
    seq: u64,
    time: Option<String>,
    hlc: String,
    kind: &'static str,
    items_total: u32,
    items: Vec<JudgedJson>,
    arrival: u64,
}

/// An item, and whether it counts.
#[derive(Debug, Serialize)]
struct JudgedJson {
    #[serde(flatten)]
    item: ItemJson,
    void: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct ItemJson {
    index: u32,
    #[serde(flatten)]
    what: WhatJson,
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum WhatJson {
    Genesis {
        name: String,
        recovery_key: String,
    },
    Grant {
        device: String,
        name: String,
        role: Option<&'static str>,
        invite_key: Option<String>,
        scopes: Vec<JsonPath>,
        person: Option<String>,
    },
    Invite {
        key: String,
        role: Option<&'static str>,
        expires_at: Option<String>,
        max_uses: u32,
        scopes: Vec<JsonPath>,
        person: Option<String>,
    },
    Person {
        device: String,
        person: Option<String>,
    },
    Revoke {
        device: String,
        reason: String,
        keep: Option<Vec<HeadJson>>,
    },
    Cancel {
        key: String,
    },
    Name {
        name: String,
    },
    Put(Box<PutJson>),
    Del {
        #[serde(flatten)]
        path: JsonPath,
        base: Vec<String>,
        moved_to: Option<JsonPath>,
    },
    Discard {
        #[serde(flatten)]
        path: JsonPath,
        dropped: Vec<String>,
    },
    LockGrant {
        epoch: u64,
        number: u64,
        resources: Vec<JsonPath>,
        durable: bool,
        until: Option<String>,
        note: String,
        voters: Vec<String>,
    },
    LockEnd {
        grant: String,
        lapsed: bool,
    },
    Voters {
        epoch: u64,
        voters: Vec<String>,
        forced: bool,
        sealed: Vec<String>,
        locks: u32,
    },
    LockBreak {
        grant: String,
        reason: String,
    },
    Other {
        tag: u64,
    },
}

#[derive(Debug, Serialize)]
struct HeadJson {
    size: u64,
    root: String,
}

#[derive(Debug, Serialize)]
struct PutJson {
    #[serde(flatten)]
    path: JsonPath,
    kind: &'static str,
    size: u64,
    content: Option<String>,
    target: Option<JsonPath>,
    mode: String,
    mtime_ns: i64,
    base: Vec<String>,
    import: bool,
    metadata: bool,
    moved_from: Option<JsonPath>,
}

impl EventJson {
    pub(super) fn of(event: &v1::Event) -> Self {
        Self {
            id: event.id.clone(),
            author: event.author.clone().unwrap_or_default().into(),
            author_role: role(event.author_role()),
            role_then: role(event.role_then()),
            void: event.void,
            seq: event.seq,
            time: event.time.map(|time| time.to_string()),
            hlc: event.hlc.to_string(),
            kind: kind(event.kind()),
            items_total: event.items_total,
            items: event.items.iter().map(JudgedJson::of).collect(),
            arrival: event.arrival,
        }
    }
}

impl JudgedJson {
    fn of(item: &v1::EventItem) -> Self {
        Self {
            item: ItemJson::of(item),
            void: item.void,
        }
    }
}

/// Returns an event's items.
pub(super) fn items(event: &v1::Event) -> Vec<ItemJson> {
    event.items.iter().map(ItemJson::of).collect()
}

impl ItemJson {
    pub(super) fn of(item: &v1::EventItem) -> Self {
        let what = item.what.as_ref();
        Self {
            index: item.index,
            what: what.map_or(WhatJson::Other { tag: 0 }, WhatJson::of),
        }
    }
}

impl WhatJson {
    fn of(what: &What) -> Self {
        match what {
            What::Genesis(item) => Self::Genesis {
                name: item.name.clone(),
                recovery_key: hex(&item.recovery_key),
            },
            What::Grant(item) => {
                let device = item.device.clone().unwrap_or_default();
                Self::Grant {
                    device: device.id,
                    name: device.name,
                    role: role(item.role()),
                    invite_key: hex_or_null(&item.invite_key),
                    scopes: scopes(&item.scopes),
                    person: text_or_null(&device.person),
                }
            }
            What::Invite(item) => Self::Invite {
                key: hex(&item.key),
                role: role(item.role()),
                expires_at: item.expires_at.map(|time| time.to_string()),
                max_uses: item.max_uses,
                scopes: scopes(&item.scopes),
                person: text_or_null(&item.person),
            },
            What::Person(item) => {
                let device = item.device.clone().unwrap_or_default();
                Self::Person {
                    person: text_or_null(&device.person),
                    device: device.id,
                }
            }
            What::Revoke(item) => {
                let until_seen = item.keep.is_empty() && !item.keep_none;
                Self::Revoke {
                    device: item.device.clone().unwrap_or_default().id,
                    reason: item.reason.clone(),
                    keep: (!until_seen).then(|| item.keep.iter().map(head).collect()),
                }
            }
            What::Cancel(item) => Self::Cancel { key: hex(&item.key) },
            What::Name(item) => Self::Name {
                name: item.name.clone(),
            },
            What::Put(item) => Self::Put(Box::new(PutJson {
                path: JsonPath::new(&item.path),
                kind: history::kind(item.kind()),
                size: item.size,
                content: hex_or_null(&item.content),
                target: path_or_null(&item.target),
                mode: format!("{:04o}", item.mode),
                mtime_ns: item.mtime_ns,
                base: item.base.clone(),
                import: item.is_import,
                metadata: item.is_metadata,
                moved_from: path_or_null(&item.moved_from),
            })),
            What::Del(item) => Self::Del {
                path: JsonPath::new(&item.path),
                base: item.base.clone(),
                moved_to: path_or_null(&item.moved_to),
            },
            What::Discard(item) => Self::Discard {
                path: JsonPath::new(&item.path),
                dropped: item.dropped.clone(),
            },
            What::LockGrant(item) => Self::LockGrant {
                epoch: item.epoch,
                number: item.number,
                resources: scopes(&item.resources),
                durable: item.is_durable,
                until: item.until.map(|time| time.to_string()),
                note: item.note.clone(),
                voters: item.voters.clone(),
            },
            What::LockEnd(item) => Self::LockEnd {
                grant: item.grant.clone(),
                lapsed: item.has_lapsed,
            },
            What::Voters(item) => Self::Voters {
                epoch: item.epoch,
                voters: item.voters.clone(),
                forced: item.is_forced,
                sealed: item.sealed.clone(),
                locks: item.locks,
            },
            What::LockBreak(item) => Self::LockBreak {
                grant: item.grant.clone(),
                reason: item.reason.clone(),
            },
            What::Other(item) => Self::Other { tag: item.tag },
        }
    }
}

fn head(head: &v1::LogHead) -> HeadJson {
    HeadJson {
        size: head.size,
        root: hex(&head.root),
    }
}

fn scopes(paths: &[Vec<u8>]) -> Vec<JsonPath> {
    paths.iter().map(|path| JsonPath::new(path)).collect()
}

/// Says where a grant or an invite reaches; nothing if everywhere.
fn scope_words(paths: &[Vec<u8>]) -> String {
    let paths: Vec<String> = paths.iter().map(|path| escape(path)).collect();
    if paths.is_empty() {
        return String::new();
    }
    format!(" for {}", paths.join(", "))
}

fn text_or_null(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

fn hex_or_null(bytes: &[u8]) -> Option<String> {
    Some(hex(bytes)).filter(|text| !text.is_empty())
}

fn path_or_null(bytes: &[u8]) -> Option<JsonPath> {
    Some(JsonPath::new(bytes)).filter(|_| !bytes.is_empty())
}

/// Returns a kind as JSON spells it.
pub(super) const fn kind(kind: v1::EventKind) -> &'static str {
    match kind {
        v1::EventKind::Unspecified => "unknown",
        v1::EventKind::Genesis => "genesis",
        v1::EventKind::Admin => "admin",
        v1::EventKind::Work => "work",
    }
}

/// Returns what an item says: a verb, what it is about, and more.
pub(super) fn words(item: &v1::EventItem) -> [String; 3] {
    let (verb, about, more) = match item.what.as_ref() {
        Some(What::Genesis(item)) => ("found", escape(item.name.as_bytes()), String::new()),
        Some(What::Grant(item)) => {
            let by = if item.invite_key.is_empty() {
                ""
            } else {
                ", by invite"
            };
            let role = role(item.role()).unwrap_or("nothing");
            let device = item.device.clone().unwrap_or_default();
            (
                "grant",
                device_words(&device),
                format!("{role}{}{by}", scope_words(&item.scopes)),
            )
        }
        Some(What::Invite(item)) => {
            let until = item
                .expires_at
                .map_or("for ever".to_owned(), |t| format!("until {}", seconds(t)));
            let role = role(item.role()).unwrap_or("nothing").to_owned();
            let uses = if item.max_uses == 1 { "use" } else { "uses" };
            let mut reach = scope_words(&item.scopes);
            if !item.person.is_empty() {
                reach.push_str(&format!(" of {}", escape(item.person.as_bytes())));
            }
            (
                "invite",
                role + &reach,
                format!("{} {uses}, {until}", item.max_uses),
            )
        }
        Some(What::Put(item)) => put_words(item),
        Some(What::Del(item)) if !item.moved_to.is_empty() => {
            let to = format!("moved to {}", escape(&item.moved_to));
            ("delete", escape(&item.path), to)
        }
        Some(What::Del(item)) => ("delete", escape(&item.path), String::new()),
        Some(What::Discard(item)) => {
            let copies = format!("{} versions", item.dropped.len());
            ("discard", escape(&item.path), copies)
        }
        Some(What::Revoke(item)) => {
            let device = item.device.clone().unwrap_or_default();
            ("revoke", device_words(&device), escape(item.reason.as_bytes()))
        }
        Some(What::Cancel(item)) => (
            "cancel",
            format!("invite {}", short(&hex(&item.key))),
            String::new(),
        ),
        Some(What::Person(item)) => {
            let device = item.device.clone().unwrap_or_default();
            let whose = match device.person.as_str() {
                "" => "nobody's".to_owned(),
                _ => String::new(),
            };
            ("person", device_words(&device), whose)
        }
        Some(What::LockGrant(item)) => lock_words(item),
        Some(What::Voters(item)) => {
            let voters: Vec<&str> = item.voters.iter().map(|voter| short(voter)).collect();
            let how = if item.is_forced { ", by force" } else { "" };
            ("voters", voters.join(", "), format!("epoch {}{how}", item.epoch))
        }
        Some(What::LockEnd(item)) => {
            let why = if item.has_lapsed { "it lapsed" } else { "" };
            ("unlock", item.grant.clone(), why.to_owned())
        }
        Some(What::LockBreak(item)) => ("break lock", item.grant.clone(), escape(item.reason.as_bytes())),
        Some(What::Name(item)) => ("name", escape(item.name.as_bytes()), String::new()),
        Some(What::Other(item)) => ("item", format!("of kind {}", item.tag), String::new()),
        None => ("item", String::new(), String::new()),
    };
    [verb.to_owned(), about, more]
}

fn put_words(item: &v1::PutItem) -> (&'static str, String, String) {
    let mut more = match item.kind() {
        v1::VersionKind::File => size(item.size),
        v1::VersionKind::Link => format!("link to {}", escape(&item.target)),
        other => history::kind(other).to_owned(),
    };
    if !item.moved_from.is_empty() {
        more.push_str(&format!(", moved from {}", escape(&item.moved_from)));
    }
    let verb = if item.is_metadata { "touch" } else { "put" };
    (verb, escape(&item.path), more)
}

fn lock_words(item: &v1::LockGrantItem) -> (&'static str, String, String) {
    let paths: Vec<String> = item.resources.iter().map(|path| escape(path)).collect();
    let mut more = format!("token {}.{}", item.epoch, item.number);
    if let Some(until) = item.until {
        more.push_str(&format!(", until {}", seconds(until)));
    }
    if !item.note.is_empty() {
        more.push_str(&format!(", {}", escape(item.note.as_bytes())));
    }
    ("lock", paths.join(", "), more)
}

/// Returns one line for each shown item of an event: time, device, its role then, what it says, the event's id.
pub(super) fn lines(event: &v1::Event) -> Vec<Vec<String>> {
    let mut lines: Vec<Vec<String>> = event.items.iter().map(|item| line(event, judged(item))).collect();
    if lines.is_empty() {
        let more = if event.void { VOID } else { "" };
        lines.push(line(event, ["note".to_owned(), String::new(), more.to_owned()]));
    }
    lines
}

/// Returns what an item says, and whether it counts.
pub(super) fn judged(item: &v1::EventItem) -> [String; 3] {
    let [verb, about, mut more] = words(item);
    if item.void {
        let sep = if more.is_empty() { "" } else { ", " };
        more.push_str(sep);
        more.push_str(VOID);
    }
    [verb, about, more]
}

fn line(event: &v1::Event, says: [String; 3]) -> Vec<String> {
    let mut line = vec![time(event), author(event), role_then(event).to_owned()];
    line.extend(says);
    line.push(event.id.chars().take(ID_SHOWN).collect());
    line
}

/// Returns the role in which an event was made.
pub(super) fn role_then(event: &v1::Event) -> &'static str {
    role(event.role_then()).unwrap_or("none")
}

/// Returns the line that says how many items of an event were not shown; none if all were.
pub(super) fn left_out(event: &v1::Event) -> Option<Vec<String>> {
    let left = u64::from(event.items_total).saturating_sub(event.items.len() as u64);
    if left == 0 {
        return None;
    }
    let says = ["and".to_owned(), format!("{} more", number(left)), String::new()];
    Some(line(event, says))
}

/// Returns when an event was signed, to the second.
pub(super) fn time(event: &v1::Event) -> String {
    event.time.map(seconds).unwrap_or_default()
}

pub(super) fn seconds(time: prost_types::Timestamp) -> String {
    prost_types::Timestamp { nanos: 0, ..time }.to_string()
}

pub(super) fn author(event: &v1::Event) -> String {
    event.author.as_ref().map(device_words).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(what: What) -> v1::EventItem {
        v1::EventItem {
            index: 0,
            what: Some(what),
            void: false,
        }
    }

    #[test]
    fn each_item_is_a_few_words_whatever_names_hold() {
        let put = v1::PutItem {
            path: b"a\nb".to_vec(),
            kind: v1::VersionKind::File.into(),
            size: 2048,
            moved_from: b"c".to_vec(),
            ..Default::default()
        };
        let grant = v1::GrantItem {
            device: Some(v1::Device {
                name: "n\x1bas".into(),
                ..Default::default()
            }),
            role: v1::Role::Admin.into(),
            invite_key: vec![1],
            scopes: vec![b"docs".to_vec()],
        };
        let del = v1::DelItem {
            path: b"x".to_vec(),
            ..Default::default()
        };
        let person = |person: &str| {
            What::Person(v1::PersonItem {
                device: Some(v1::Device {
                    name: "nas".into(),
                    person: person.into(),
                    ..Default::default()
                }),
            })
        };
        let lock = v1::LockGrantItem {
            epoch: 1,
            number: 57,
            resources: vec![b"a\n/".to_vec()],
            note: "Fig\x1bures".into(),
            ..Default::default()
        };
        let end = v1::LockEndItem {
            grant: "0a0a0a0a-1-0".into(),
            has_lapsed: true,
        };
        let voters = |forced| {
            What::Voters(v1::VotersItem {
                epoch: 2,
                voters: vec!["0a".repeat(32), "0b".repeat(32)],
                is_forced: forced,
                ..Default::default()
            })
        };
        let broken = v1::LockBreakItem {
            grant: "0a0a0a0a-1-0".into(),
            reason: "left".into(),
        };
        for (what, expected) in [
            (person("An\x1bna"), ["person", "nas (An\\x1bna)", ""]),
            (person(""), ["person", "nas", "nobody's"]),
            (What::Put(put), ["put", "a\\x0ab", "2.0 KiB, moved from c"]),
            (
                What::Grant(grant),
                ["grant", "n\\x1bas", "admin for docs, by invite"],
            ),
            (What::Del(del), ["delete", "x", ""]),
            (
                What::LockGrant(lock),
                ["lock", "a\\x0a/", "token 1.57, Fig\\x1bures"],
            ),
            (What::LockEnd(end), ["unlock", "0a0a0a0a-1-0", "it lapsed"]),
            (voters(false), ["voters", "0a0a0a0a, 0b0b0b0b", "epoch 2"]),
            (
                voters(true),
                ["voters", "0a0a0a0a, 0b0b0b0b", "epoch 2, by force"],
            ),
            (What::LockBreak(broken), ["break lock", "0a0a0a0a-1-0", "left"]),
            (What::Other(v1::OtherItem { tag: 40 }), ["item", "of kind 40", ""]),
        ] {
            assert_eq!(words(&item(what)), expected);
        }
    }

    #[test]
    fn an_event_as_json_leaves_no_key_out() {
        let del = What::Del(v1::DelItem {
            path: b"x".to_vec(),
            base: vec!["0a0a0a0a-1-0".into()],
            ..Default::default()
        });
        let event = v1::Event {
            id: "ab".into(),
            seq: 3,
            hlc: 1 << 60,
            kind: v1::EventKind::Work.into(),
            items_total: 1,
            items: vec![v1::EventItem {
                void: true,
                ..item(del)
            }],
            arrival: 9,
            role_then: v1::Role::Viewer.into(),
            void: true,
            ..Default::default()
        };
        assert_eq!(
            lines(&event),
            [["", "", "viewer", "delete", "x", "counts nowhere", "ab"]]
        );
        assert_eq!(
            serde_json::to_string(&EventJson::of(&event)).unwrap(),
            r#"{"id":"ab","author":{"id":null,"name":"","peer_id":null,"person":null},"author_role":null,"role_then":"viewer","void":true,"seq":3,"time":null,"hlc":"1152921504606846976","kind":"work","items_total":1,"items":[{"index":0,"type":"del","path":"x","path_hex":null,"base":["0a0a0a0a-1-0"],"moved_to":null,"void":true}],"arrival":9}"#
        );
    }
}
