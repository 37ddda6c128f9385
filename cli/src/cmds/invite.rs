//! `syncctl invite`.

use std::time::Duration;

use p2p_sync_proto::v1;
use serde::Serialize;

use crate::args::InviteRole;
use crate::exit::{Exit, Failure};
use crate::output::Stop;
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
}

pub(crate) async fn create(
    session: &mut Session<'_>,
    invite_role: InviteRole,
    expires: Duration,
    uses: u32,
) -> Result<(), Stop> {
    let valid_for = prost_types::Duration::try_from(expires)
        .map_err(|_| Failure::new(Exit::Usage, "INVALID_ARGUMENT", "--expires is too long"))?;
    let request = v1::CreateInviteRequest {
        role: to_proto(invite_role).into(),
        valid_for: Some(valid_for),
        max_uses: uses,
    };
    let call = async |mut client: Client| client.create_invite(request).await;
    let invite = session.call(CALL_TIMEOUT, call).await?;
    if invite.addresses.is_empty() {
        let _ = writeln!(
            session.err,
            "warning: the ticket has no address on it; the other device must be on the same local network"
        );
    }
    let text = words(&invite);
    let role = role(invite.role());
    let json = Json {
        schema: "p2psync.invite/1",
        ticket: invite.ticket,
        role,
        max_uses: invite.max_uses,
        expires_at: invite.expires_at.map(|t| t.to_string()),
        addresses: invite.addresses,
    };
    session.out.answer(&json, || text)
}

pub(crate) fn to_proto(role: InviteRole) -> v1::Role {
    match role {
        InviteRole::Viewer => v1::Role::Viewer,
        InviteRole::Editor => v1::Role::Editor,
        InviteRole::Admin => v1::Role::Admin,
    }
}

/// Returns the ticket on a line of its own, for copying.
fn words(invite: &v1::CreateInviteResponse) -> String {
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
        "{ticket}\n\nMakes one {role}, {uses}, {ends}. Whoever has it can join: hand it over in private.\n\
         On the other machine, if its daemon runs:   syncctl join TICKET\n\
         and if not:                                 p2p_sync_daemon --join TICKET\n",
        ticket = invite.ticket,
        role = role(invite.role()).unwrap_or("member"),
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
        };
        let text = words(&invite);
        assert_eq!(text.lines().next(), Some("p2ps1abc"));
        assert!(
            text.contains("Makes one editor, 1 use, until 1970-01-02T00:00:00Z."),
            "{text}"
        );
    }
}
