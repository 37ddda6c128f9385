//! `syncctl voters`.

use std::time::Duration;

use p2p_sync_proto::v1;
use serde::Serialize;
use tonic::transport::Channel;

use crate::args::VotersCommand;
use crate::client::Locks;
use crate::exit::Failure;
use crate::output::{Stop, table};
use crate::view::{DeviceJson, device_words};
use crate::{CALL_TIMEOUT, Session};

/// What the daemon may take: it asks the new voters, and then those before.
const SET_TIMEOUT: Duration = Duration::from_secs(35);

#[derive(Debug, Serialize)]
struct VotersJson {
    schema: &'static str,
    epoch: u64,
    voters: Vec<VoterJson>,
    chosen_by: Option<DeviceJson>,
    forced: bool,
}

#[derive(Debug, Serialize)]
struct VoterJson {
    device: Option<DeviceJson>,
    reachable: bool,
    removed: bool,
}

pub(crate) async fn run(session: &mut Session<'_>, command: VotersCommand) -> Result<(), Stop> {
    match command {
        VotersCommand::List => {
            let voters = list(session).await?;
            let text = words(&voters);
            session.out.answer(&json(voters), || text)
        }
        VotersCommand::Set { devices, force } => {
            let request = v1::SetVotersRequest { devices, force };
            let call = async |channel: Channel| Locks::new(channel).set_voters(request).await;
            let done = session.call_on(SET_TIMEOUT, call).await?;
            let voters = done.voters.unwrap_or_default();
            let named = voters.voters.iter().filter_map(|voter| voter.device.as_ref());
            let names: Vec<String> = named.map(device_words).collect();
            let text = format!("Locks are granted by {} from now on", names.join(", "));
            session.out.answer(&json(voters), || text)
        }
    }
}

async fn list(session: &Session<'_>) -> Result<v1::ListVotersResponse, Failure> {
    let call = async |channel: Channel| Locks::new(channel).list_voters(v1::ListVotersRequest {}).await;
    session.call_on(CALL_TIMEOUT, call).await
}

/// Returns those of these devices that count as voters; none if nobody can say.
pub(crate) async fn among(session: &Session<'_>, devices: &[v1::Device]) -> Vec<v1::Device> {
    let known = list(session).await.unwrap_or_default();
    let voters = known.voters.into_iter().filter_map(|voter| voter.device);
    let is_named = |voter: &v1::Device| devices.iter().any(|device| device.id == voter.id);
    voters.filter(is_named).collect()
}

fn json(voters: v1::ListVotersResponse) -> VotersJson {
    let voter = |voter: v1::Voter| VoterJson {
        device: voter.device.map(DeviceJson::from),
        reachable: voter.reachable,
        removed: voter.removed,
    };
    VotersJson {
        schema: "p2psync.voters/1",
        epoch: voters.epoch,
        voters: voters.voters.into_iter().map(voter).collect(),
        chosen_by: voters.chosen_by.map(DeviceJson::from),
        forced: voters.forced,
    }
}

fn words(voters: &v1::ListVotersResponse) -> String {
    let mut rows = vec![["VOTER", "STATE"].map(str::to_owned).to_vec()];
    for voter in &voters.voters {
        let name = voter.device.as_ref().map_or_else(|| "-".to_owned(), device_words);
        rows.push(vec![name, state(voter).to_owned()]);
    }
    let count = voters.voters.len();
    let chosen = match &voters.chosen_by {
        Some(device) if voters.forced => format!("chosen by {}, by force", device_words(device)),
        Some(device) => format!("chosen by {}", device_words(device)),
        None => "since the group was founded".to_owned(),
    };
    format!(
        "{}\na lock needs {} of {count}; epoch {}, {chosen}",
        table(&rows).trim_end(),
        count / 2 + 1,
        voters.epoch
    )
}

const fn state(voter: &v1::Voter) -> &'static str {
    match (voter.removed, voter.reachable) {
        (true, _) => "removed from the group",
        (false, true) => "reachable",
        (false, false) => "not reachable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voter(name: &str, reachable: bool, removed: bool) -> v1::Voter {
        v1::Voter {
            device: Some(v1::Device {
                name: name.into(),
                ..Default::default()
            }),
            reachable,
            removed,
        }
    }

    #[test]
    fn who_grants_locks_is_told_with_what_is_needed() {
        let mut voters = v1::ListVotersResponse {
            voters: vec![voter("nas", true, false)],
            ..Default::default()
        };
        let text = words(&voters);
        assert!(text.ends_with("a lock needs 1 of 1; epoch 0, since the group was founded"));
        voters
            .voters
            .extend([voter("de\x1bsk", false, false), voter("old", true, true)]);
        voters.epoch = 3;
        voters.chosen_by = voter("nas", true, false).device;
        let text = words(&voters);
        assert!(
            text.contains("de\\x1bsk") && text.contains("not reachable"),
            "{text}"
        );
        assert!(text.contains("removed from the group"), "{text}");
        assert!(
            text.ends_with("a lock needs 2 of 3; epoch 3, chosen by nas"),
            "{text}"
        );
        voters.forced = true;
        assert!(words(&voters).ends_with("chosen by nas, by force"));
    }
}
