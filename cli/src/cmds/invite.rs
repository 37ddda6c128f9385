//! `syncctl invite`.

use p2p_sync_proto::v1;
use serde::Serialize;
use tonic::transport::Channel;

use crate::args::{InviteRole, InviteWanted};
use crate::client::Invites;
use crate::cmds::confirm::confirm;
use crate::cmds::member::{self, NamedJson};
use crate::exit::{Exit, Failure};
use crate::output::{JsonPath, Stop, escape, or_null, short, table};
use crate::view::role;
use crate::{CALL_TIMEOUT, Client, Session};

#[derive(Debug, Serialize)]
struct Json {
    schema: &'static str,
    ticket: String,
    role: Option<&'static str>,
    max_uses: u32,
    expires_at: Option<String>,
    addresses: Vec<String>,
    key: String,
    scopes: Vec<JsonPath>,
    person: Option<String>,
}

#[derive(Debug, Serialize)]
struct ListJson<'a> {
    schema: &'static str,
    invites: Vec<InviteJson<'a>>,
}

#[derive(Debug, Serialize)]
struct InviteJson<'a> {
    key: &'a str,
    role: Option<&'static str>,
    scopes: Vec<JsonPath>,
    made_by: Option<NamedJson<'a>>,
    expires_at: Option<String>,
    max_uses: u32,
    uses: u32,
    state: &'static str,
    #[serde(serialize_with = "or_null")]
    person: &'a str,
}

pub(crate) async fn create(session: &mut Session<'_>, wanted: InviteWanted) -> Result<(), Stop> {
    let valid_for = prost_types::Duration::try_from(wanted.expires)
        .map_err(|_| Failure::new(Exit::Usage, "INVALID_ARGUMENT", "--expires is too long"))?;
    let scopes = member::paths(session, &wanted.scopes).await?;
    let request = v1::CreateInviteRequest {
        role: to_proto(wanted.role).into(),
        valid_for: Some(valid_for),
        max_uses: wanted.uses,
        scopes: scopes.clone(),
        person: wanted.person.clone().unwrap_or_default(),
    };
    let call = async |mut client: Client| client.create_invite(request).await;
    let invite = session.call(CALL_TIMEOUT, call).await?;
    if invite.addresses.is_empty() {
        let _ = writeln!(
            session.err,
            "warning: the ticket has no address on it; the other device must be on the same local network"
        );
    }
    let text = words(&invite, &scopes, wanted.person.as_deref());
    let role = role(invite.role());
    let json = Json {
        schema: "p2psync.invite/1",
        ticket: invite.ticket,
        role,
        max_uses: invite.max_uses,
        expires_at: invite.expires_at.map(|t| t.to_string()),
        addresses: invite.addresses,
        key: invite.key,
        scopes: scopes.iter().map(|path| JsonPath::new(path)).collect(),
        person: wanted.person,
    };
    session.out.answer(&json, || text)
}

pub(crate) fn to_proto(role: InviteRole) -> v1::Role {
    member::to_proto(role.into())
}

pub(crate) async fn list(session: &mut Session<'_>) -> Result<(), Stop> {
    let call = async |channel: Channel| {
        Invites::new(channel)
            .list_invites(v1::ListInvitesRequest {})
            .await
    };
    let invites = session.call_on(CALL_TIMEOUT, call).await?.invites;
    let json = ListJson {
        schema: "p2psync.invites/1",
        invites: invites.iter().map(InviteJson::of).collect(),
    };
    session.out.answer(&json, || list_words(&invites))
}

pub(crate) async fn revoke(session: &mut Session<'_>, invite: String, yes: bool) -> Result<(), Stop> {
    #[derive(Serialize)]
    struct Json<'a> {
        schema: &'static str,
        key: &'a str,
    }
    let question = "Revoke the invite? Whoever has its ticket and did not join yet needs another.";
    confirm(session, yes, question)?;
    let request = v1::RevokeInviteRequest { invite };
    let call = async |channel: Channel| Invites::new(channel).revoke_invite(request).await;
    let done = session.call_on(CALL_TIMEOUT, call).await?;
    let json = Json {
        schema: "p2psync.invite-revoke/1",
        key: &done.key,
    };
    session.out.answer(&json, || {
        format!("revoked invite {}", escape(short(&done.key).as_bytes()))
    })
}

impl<'a> InviteJson<'a> {
    fn of(invite: &'a v1::Invite) -> Self {
        Self {
            key: &invite.key,
            role: role(invite.role()),
            scopes: invite.scopes.iter().map(|path| JsonPath::new(path)).collect(),
            made_by: invite.made_by.as_ref().map(NamedJson::of),
            expires_at: invite.expires_at.map(|t| t.to_string()),
            max_uses: invite.max_uses,
            uses: invite.uses,
            state: state(invite.state()),
            person: &invite.person,
        }
    }
}

fn state(state: v1::InviteState) -> &'static str {
    match state {
        v1::InviteState::Unspecified => "unknown",
        v1::InviteState::Open => "open",
        v1::InviteState::Expired => "expired",
        v1::InviteState::UsedUp => "used_up",
        v1::InviteState::Closed => "closed",
    }
}

fn list_words(invites: &[v1::Invite]) -> String {
    let heading = [
        "KEY", "PERSON", "ROLE", "WRITES", "USES", "STATE", "EXPIRES", "MADE BY",
    ]
    .map(str::to_owned)
    .to_vec();
    let rows = invites.iter().map(|invite| {
        let ends = invite
            .expires_at
            .map(|t| prost_types::Timestamp { nanos: 0, ..t }.to_string());
        vec![
            escape(short(&invite.key).as_bytes()),
            match invite.person.as_str() {
                "" => "-".to_owned(),
                person => escape(person.as_bytes()),
            },
            role(invite.role()).unwrap_or("-").to_owned(),
            match invite.role() {
                v1::Role::Viewer => "-".to_owned(),
                _ => member::scope_words(&invite.scopes),
            },
            format!("{} of {}", invite.uses, invite.max_uses),
            state(invite.state()).replace('_', " "),
            ends.unwrap_or_else(|| "never".to_owned()),
            invite.made_by.as_ref().map_or("-".to_owned(), member::called),
        ]
    });
    table(&std::iter::once(heading).chain(rows).collect::<Vec<_>>())
}

/// Returns the ticket on a line of its own, for copying.
fn words(invite: &v1::CreateInviteResponse, scopes: &[Vec<u8>], person: Option<&str>) -> String {
    let ends = match invite.expires_at {
        Some(t) => format!("until {}", prost_types::Timestamp { nanos: 0, ..t }),
        None => "without end".to_owned(),
    };
    let uses = if invite.max_uses == 1 {
        "1 use".to_owned()
    } else {
        format!("{} uses", invite.max_uses)
    };
    format!(
        "{ticket}\n\nMakes one {role}{whose}{writes}, {uses}, {ends}. Whoever has it can join: hand it over in private.\n\
         On the other machine, if its daemon runs:   syncctl join TICKET\n\
         and if not:                                 p2p_sync_daemon --join TICKET\n",
        ticket = invite.ticket,
        writes = if scopes.is_empty() {
            String::new()
        } else {
            format!(" that writes in {}", member::scope_words(scopes))
        },
        role = role(invite.role()).unwrap_or("member"),
        whose = person.map_or_else(String::new, |person| format!(" of {}", escape(person.as_bytes()))),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ticket_stands_on_a_line_of_its_own() {
        let invite = v1::CreateInviteResponse {
            ticket: "p2ps1abc".into(),
            role: v1::Role::Editor.into(),
            expires_at: Some(prost_types::Timestamp {
                seconds: 86_400,
                nanos: 5,
            }),
            max_uses: 1,
            addresses: Vec::new(),
            key: "0505".into(),
        };
        let text = words(&invite, &[], Some("Anna"));
        assert_eq!(text.lines().next(), Some("p2ps1abc"));
        assert!(
            text.contains("Makes one editor of Anna, 1 use, until 1970-01-02T00:00:00Z."),
            "{text}"
        );
    }
    #[test]
    fn the_invites_in_words() {
        let invite = v1::Invite {
            key: "0505050505".into(),
            role: v1::Role::Editor.into(),
            scopes: vec![b"docs".to_vec()],
            max_uses: 3,
            uses: 1,
            state: v1::InviteState::Open.into(),
            person: "Anna".into(),
            ..Default::default()
        };
        assert_eq!(
            list_words(&[invite]),
            "\
KEY       PERSON  ROLE    WRITES  USES    STATE  EXPIRES  MADE BY
05050505  Anna    editor  docs    1 of 3  open   never    -
"
        );
    }
}
