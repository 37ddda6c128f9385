//! `syncctl join`.

use p2p_sync_proto::v1;
use serde::Serialize;

use super::pairing;
use crate::output::{Stop, escape, number, or_null, short};
use crate::view::{JoinCountsJson, role};
use crate::{Client, JOIN_TIMEOUT, Session};

#[derive(Debug, Serialize)]
struct Json<'a> {
    schema: &'static str,
    #[serde(serialize_with = "or_null")]
    group: &'a str,
    role: Option<&'static str>,
    dry_run: bool,
    addresses: &'a [String],
    counts: Option<JoinCountsJson>,
}

/// Returns the choice that the flags make; clap lets at most one through.
pub(crate) fn choice(keep_both: bool, prefer_group: bool) -> v1::JoinChoice {
    match (keep_both, prefer_group) {
        (true, _) => v1::JoinChoice::KeepBoth,
        (false, true) => v1::JoinChoice::PreferGroup,
        (false, false) => v1::JoinChoice::Unspecified,
    }
}

pub(crate) async fn run(
    session: &mut Session<'_>,
    ticket: Option<String>,
    choice: v1::JoinChoice,
    dry_run: bool,
) -> Result<(), Stop> {
    if let Some(name) = ticket.as_deref().and_then(pairing::lan_name) {
        return match name {
            _ if dry_run => pairing::list_lan(session).await,
            "" => pairing::list_lan(session).await,
            name => pairing::join(session, name, choice).await,
        };
    }
    let request = v1::JoinRequest {
        ticket: ticket.unwrap_or_default(),
        choice: choice.into(),
        dry_run,
    };
    let joined = session
        .call(JOIN_TIMEOUT, async |mut client: Client| {
            client.join(request).await
        })
        .await?;
    show(session, &joined, dry_run)
}

/// Shows what came of a join.
pub(crate) fn show(session: &mut Session<'_>, joined: &v1::JoinResponse, dry_run: bool) -> Result<(), Stop> {
    let json = Json {
        schema: "p2psync.join/1",
        group: &joined.group_id,
        role: role(joined.role()),
        dry_run,
        addresses: &joined.addresses,
        counts: joined.counts.map(JoinCountsJson::from),
    };
    session.out.answer(&json, || words(joined, dry_run))
}

fn words(joined: &v1::JoinResponse, dry_run: bool) -> String {
    let group = escape(short(&joined.group_id).as_bytes());
    if let Some(counts) = joined.counts {
        return count_words(counts);
    }
    if dry_run {
        let mut text = format!("The ticket is for group {group}; its devices are at:\n");
        for address in &joined.addresses {
            text.push_str(&format!("  {}\n", escape(address.as_bytes())));
        }
        text.push_str("How the files here compare with the group's is known once it is joined\n");
        return text;
    }
    match role(joined.role()) {
        Some(role) => format!("Joined group {group} as {role}; see: syncctl status"),
        None => "Decided; see: syncctl status".to_owned(),
    }
}

fn count_words(counts: v1::JoinCounts) -> String {
    format!(
        "\
{:>10}  as the group has them
{:>10}  as the group had them once; replaced, their bytes kept as old versions
{:>10}  new; published
{:>10}  differing; held until: syncctl join --keep-both, or syncctl join --prefer-group
",
        number(counts.same),
        number(counts.old),
        number(counts.new),
        number(counts.differing)
    )
}
