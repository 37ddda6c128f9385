//! `syncctl member`.

use std::ffi::OsString;

use p2p_sync_proto::v1;
use serde::Serialize;
use tonic::transport::Channel;

use crate::args::{PersonWanted, RemovalWanted, RoleName, RoleWanted};
use crate::client::Members;
use crate::cmds::confirm::confirm;
use crate::cmds::{place, voters};
use crate::exit::Failure;
use crate::output::{JsonPath, Stop, escape, number, or_null, short, table};
use crate::view::role as role_word;
use crate::{CALL_TIMEOUT, Session};

#[derive(Debug, Serialize)]
struct ListJson<'a> {
    schema: &'static str,
    members: Vec<MemberJson<'a>>,
}

#[derive(Debug, Serialize)]
struct MemberJson<'a> {
    id: &'a str,
    #[serde(serialize_with = "or_null")]
    name: &'a str,
    #[serde(serialize_with = "or_null")]
    person: &'a str,
    role: Option<&'static str>,
    scopes: Vec<JsonPath>,
    granted_by: Option<NamedJson<'a>>,
    this_device: bool,
    connected: bool,
    events: u64,
    event_bytes: u64,
    removed_by: Option<NamedJson<'a>>,
    #[serde(serialize_with = "or_null")]
    removal_reason: &'a str,
}

/// A device, as it is named beside others.
#[derive(Debug, Serialize)]
pub(crate) struct NamedJson<'a> {
    id: &'a str,
    #[serde(serialize_with = "or_null")]
    name: &'a str,
}

impl<'a> NamedJson<'a> {
    pub(crate) fn of(device: &'a v1::Device) -> Self {
        Self {
            id: &device.id,
            name: &device.name,
        }
    }
}

pub(crate) async fn list(session: &mut Session<'_>) -> Result<(), Stop> {
    let call = async |channel: Channel| {
        Members::new(channel)
            .list_members(v1::ListMembersRequest {})
            .await
    };
    let members = session.call_on(CALL_TIMEOUT, call).await?.members;
    session.out.answer(&json(&members), || words(&members))
}

pub(crate) async fn role(session: &mut Session<'_>, wanted: RoleWanted) -> Result<(), Stop> {
    #[derive(Serialize)]
    struct Json<'a> {
        schema: &'static str,
        device: Option<NamedJson<'a>>,
        role: Option<&'static str>,
        scopes: Vec<JsonPath>,
        now: bool,
    }
    let scopes = paths(session, &wanted.scopes).await?;
    let request = v1::ChangeRoleRequest {
        device: wanted.device,
        role: to_proto(wanted.role).into(),
        scopes: scopes.clone(),
        now: wanted.now,
    };
    let call = async |channel: Channel| Members::new(channel).change_role(request).await;
    let done = session.call_on(CALL_TIMEOUT, call).await?;
    let json = Json {
        schema: "p2psync.member-role/1",
        device: done.device.as_ref().map(NamedJson::of),
        role: role_word(done.role()),
        scopes: scopes.iter().map(|path| JsonPath::new(path)).collect(),
        now: wanted.now,
    };
    session.out.answer(&json, || {
        let device = done.device.clone().unwrap_or_default();
        let writes = match (done.role(), scopes.is_empty()) {
            (v1::Role::Viewer, _) | (_, true) => String::new(),
            (_, false) => format!(", writing in {}", scope_words(&scopes)),
        };
        let role = role_word(done.role()).unwrap_or("member");
        format!("{} is now {role}{writes}", called(&device))
    })
}

pub(crate) async fn remove(session: &mut Session<'_>, wanted: RemovalWanted) -> Result<(), Stop> {
    #[derive(Serialize)]
    struct Json<'a> {
        schema: &'static str,
        removed: Vec<NamedJson<'a>>,
        again: Vec<NamedJson<'a>>,
    }
    let has_cut = wanted.cut.is_some() || wanted.cut_event.is_some();
    let mut request = v1::RemoveMemberRequest {
        devices: wanted.devices,
        cut: wanted.cut,
        cut_event: wanted.cut_event.unwrap_or_default(),
        with_admitted: wanted.with_admitted,
        reason: wanted.reason,
        only_list: true,
    };
    let listed = remove_call(session, request.clone()).await?.removed;
    confirm(session, wanted.yes, &question(&listed, &request))?;
    // Those who were shown are removed, whatever else the names mean by now.
    request.devices = listed.into_iter().map(|device| device.id).collect();
    request.only_list = false;
    let done = remove_call(session, request).await?;
    let voters = voters::among(session, &done.removed).await;
    let json = Json {
        schema: "p2psync.member-remove/1",
        removed: done.removed.iter().map(NamedJson::of).collect(),
        again: done.again.iter().map(NamedJson::of).collect(),
    };
    session.out.answer(&json, || {
        let mut text = removed_words(&done);
        if has_cut {
            text.push_str("what is known here of its changes beyond the cut: syncctl quarantine list\n");
        }
        for voter in &voters {
            text.push_str(&format!(
                "{} counts among those who grant locks until an owner chooses others: syncctl voters set DEVICE...\n",
                called(voter)
            ));
        }
        text
    })
}

async fn remove_call(
    session: &Session<'_>,
    request: v1::RemoveMemberRequest,
) -> Result<v1::RemoveMemberResponse, Failure> {
    let call = async |channel: Channel| Members::new(channel).remove_member(request).await;
    session.call_on(CALL_TIMEOUT, call).await
}

/// Says whose device a member is.
pub(crate) async fn person(session: &mut Session<'_>, wanted: PersonWanted) -> Result<(), Stop> {
    #[derive(Serialize)]
    struct Json<'a> {
        schema: &'static str,
        device: NamedJson<'a>,
        #[serde(serialize_with = "or_null")]
        person: &'a str,
    }
    let request = v1::SetPersonRequest {
        device: wanted.device,
        person: wanted.person.filter(|_| !wanted.none).unwrap_or_default(),
    };
    let call = async |channel: Channel| Members::new(channel).set_person(request).await;
    let device = session.call_on(CALL_TIMEOUT, call).await?.device;
    let device = device.unwrap_or_default();
    let json = Json {
        schema: "p2psync.member-person/1",
        device: NamedJson::of(&device),
        person: &device.person,
    };
    session.out.answer(&json, || match device.person.as_str() {
        "" => format!("{} is nobody's in particular", called(&device)),
        person => format!("{} is a device of {}", called(&device), escape(person.as_bytes())),
    })
}

/// Returns paths as they were typed as paths below the folder.
pub(crate) async fn paths(session: &mut Session<'_>, typed: &[OsString]) -> Result<Vec<Vec<u8>>, Stop> {
    let mut paths = Vec::new();
    for path in typed {
        paths.push(place::of(session, path).await?);
    }
    Ok(paths)
}

pub(crate) fn to_proto(role: RoleName) -> v1::Role {
    match role {
        RoleName::Viewer => v1::Role::Viewer,
        RoleName::Editor => v1::Role::Editor,
        RoleName::Admin => v1::Role::Admin,
        RoleName::Owner => v1::Role::Owner,
    }
}

/// Returns where somebody may write, for people.
pub(crate) fn scope_words(scopes: &[Vec<u8>]) -> String {
    if scopes.is_empty() {
        return "everywhere".to_owned();
    }
    let list: Vec<String> = scopes.iter().map(|path| escape(path)).collect();
    list.join(", ")
}

/// Returns a device's name, and the beginning of its id.
pub(crate) fn called(device: &v1::Device) -> String {
    let id = escape(short(&device.id).as_bytes());
    match device.name.as_str() {
        "" => id,
        name => format!("{} ({id})", escape(name.as_bytes())),
    }
}

fn question(devices: &[v1::Device], wanted: &v1::RemoveMemberRequest) -> String {
    let names: Vec<String> = devices.iter().map(whole_name).collect();
    let mut names = names.join(", ");
    if wanted.with_admitted {
        names.push_str(", and whom only they admitted,");
    }
    let undone = match (wanted.cut, wanted.cut_event.as_str()) {
        (None, "") => "What is known here of its changes stays".to_owned(),
        (Some(cut), _) => format!("What it did from number {cut} on is undone on all devices"),
        (None, event) => {
            let event = escape(event.as_bytes());
            format!("What it did from event {event} on is undone on all devices")
        }
    };
    format!("Remove {names} from the group? {undone}; changes of it that are not known here count nowhere.")
}

/// Returns a device's name, the beginning of its id, and whose it is.
fn whole_name(device: &v1::Device) -> String {
    match device.person.as_str() {
        "" => called(device),
        person => format!("{} of {}", called(device), escape(person.as_bytes())),
    }
}

fn removed_words(done: &v1::RemoveMemberResponse) -> String {
    let mut text = String::new();
    for device in &done.removed {
        text.push_str(&format!("removed {}\n", called(device)));
    }
    for device in &done.again {
        text.push_str(&format!(
            "removed {} again: that was done by an event that does not count any more\n",
            called(device)
        ));
    }
    text
}

fn json(members: &[v1::Member]) -> ListJson<'_> {
    let members = members.iter().map(|member| {
        let device = member.device.as_ref();
        MemberJson {
            id: device.map_or("", |d| &d.id),
            name: device.map_or("", |d| &d.name),
            person: device.map_or("", |d| &d.person),
            role: role_word(member.role()),
            scopes: member.scopes.iter().map(|path| JsonPath::new(path)).collect(),
            granted_by: member.granted_by.as_ref().map(NamedJson::of),
            this_device: member.this_device,
            connected: member.connected,
            events: member.events,
            event_bytes: member.event_bytes,
            removed_by: member.removed_by.as_ref().map(NamedJson::of),
            removal_reason: &member.removal_reason,
        }
    });
    ListJson {
        schema: "p2psync.members/1",
        members: members.collect(),
    }
}

fn words(members: &[v1::Member]) -> String {
    let heading = [
        "DEVICE",
        "NAME",
        "PERSON",
        "ROLE",
        "WRITES",
        "GRANTED BY",
        "EVENTS",
        "STATE",
    ]
    .map(str::to_owned)
    .to_vec();
    // Those who were members come last.
    let (current, former): (Vec<_>, Vec<_>) = members
        .iter()
        .partition(|member| member.role() != v1::Role::Unspecified);
    let rows = current.into_iter().chain(former).map(row);
    table(&std::iter::once(heading).chain(rows).collect::<Vec<_>>())
}

fn row(member: &v1::Member) -> Vec<String> {
    let dash = |text: &str| {
        if text.is_empty() {
            "-".to_owned()
        } else {
            escape(text.as_bytes())
        }
    };
    let device = member.device.clone().unwrap_or_default();
    let writes = match member.role() {
        v1::Role::Unspecified | v1::Role::Viewer => "-".to_owned(),
        v1::Role::Editor | v1::Role::Admin | v1::Role::Owner => scope_words(&member.scopes),
    };
    let by = member.granted_by.as_ref();
    let by = by.map_or("-".to_owned(), |by| match by.name.as_str() {
        "" => dash(short(&by.id)),
        name => dash(name),
    });
    vec![
        dash(short(&device.id)),
        dash(&device.name),
        dash(&device.person),
        role_word(member.role()).unwrap_or("none").to_owned(),
        writes,
        by,
        number(member.events),
        state(member),
    ]
}

fn state(member: &v1::Member) -> String {
    if let Some(by) = &member.removed_by {
        let mut text = format!("removed by {}", called(by));
        if !member.removal_reason.is_empty() {
            text.push_str(&format!(": {}", escape(member.removal_reason.as_bytes())));
        }
        return text;
    }
    let text = match (member.role(), member.this_device, member.connected) {
        (v1::Role::Unspecified, ..) => "removed",
        (_, true, _) => "this device",
        (_, false, true) => "connected",
        (_, false, false) => "disconnected",
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(id: &str, name: &str) -> Option<v1::Device> {
        Some(v1::Device {
            id: id.repeat(6),
            name: name.into(),
            ..Default::default()
        })
    }

    pub(crate) fn sample() -> Vec<v1::Member> {
        vec![
            v1::Member {
                device: device("0a", "old"),
                removed_by: device("0b", "atlas"),
                removal_reason: "sold".into(),
                events: 7,
                event_bytes: 700,
                ..Default::default()
            },
            v1::Member {
                device: device("0b", "atlas"),
                role: v1::Role::Owner.into(),
                this_device: true,
                connected: true,
                events: 1_200,
                ..Default::default()
            },
            v1::Member {
                device: device("0c", "lap\x1btop").map(|device| v1::Device {
                    person: "An\x1bna".into(),
                    ..device
                }),
                role: v1::Role::Editor.into(),
                scopes: vec![b"docs".to_vec(), b"a\xff".to_vec()],
                granted_by: device("0b", "atlas"),
                ..Default::default()
            },
        ]
    }

    #[test]
    fn the_members_in_words_with_those_who_were_last() {
        assert_eq!(
            words(&sample()),
            "\
DEVICE    NAME        PERSON    ROLE    WRITES       GRANTED BY  EVENTS  STATE
0b0b0b0b  atlas       -         owner   everywhere   -           1,200   this device
0c0c0c0c  lap\\x1btop  An\\x1bna  editor  docs, a\\xff  atlas       0       disconnected
0a0a0a0a  old         -         none    -            -           7       removed by atlas (0b0b0b0b): sold
"
        );
    }

    #[test]
    fn the_members_as_json() {
        let members = sample();
        assert_eq!(
            serde_json::to_string(&json(&members[..1])).unwrap(),
            r#"{"schema":"p2psync.members/1","members":[{"id":"0a0a0a0a0a0a","name":"old","person":null,"role":null,"scopes":[],"granted_by":null,"this_device":false,"connected":false,"events":7,"event_bytes":700,"removed_by":{"id":"0b0b0b0b0b0b","name":"atlas"},"removal_reason":"sold"}]}"#
        );
    }

    #[test]
    fn whom_a_removal_is_about_is_listed_with_whose_devices_they_are() {
        let devices: Vec<v1::Device> = sample().into_iter().filter_map(|member| member.device).collect();
        let mut request = v1::RemoveMemberRequest {
            with_admitted: true,
            ..Default::default()
        };
        let text = question(&devices[1..], &request);
        let names =
            "Remove atlas (0b0b0b0b), lap\\x1btop (0c0c0c0c) of An\\x1bna, and whom only they admitted, from";
        assert!(text.starts_with(names), "{text}");
        request.cut = Some(7);
        let text = question(&devices[..1], &request);
        assert!(text.contains("from number 7 on is undone"), "{text}");
        (request.cut, request.cut_event) = (None, "8f3a".to_owned());
        let text = question(&devices[..1], &request);
        assert!(text.contains("from event 8f3a on is undone"), "{text}");
    }

    #[test]
    fn a_removal_that_is_said_again_is_said_aloud() {
        let done = v1::RemoveMemberResponse {
            removed: device("0a", "old").into_iter().collect(),
            again: device("0c", "").into_iter().collect(),
        };
        let text = removed_words(&done);
        assert!(
            text.starts_with("removed old (0a0a0a0a)\nremoved 0c0c0c0c again:"),
            "{text}"
        );
    }
}
