//! `syncctl device`.

use p2p_sync_proto::v1;
use serde::Serialize;
use tonic::transport::Channel;

use super::status;
use crate::client::Members;
use crate::output::{Stop, escape, short};
use crate::view::DeviceJson;
use crate::{CALL_TIMEOUT, Session};

#[derive(Debug, Serialize)]
struct Json {
    schema: &'static str,
    #[serde(flatten)]
    device: DeviceJson,
}

/// Shows who this device is.
pub(crate) async fn id(session: &mut Session<'_>) -> Result<(), Stop> {
    let device = status::fetch(session).await?.device.unwrap_or_default();
    let text = words(&device);
    let json = Json {
        schema: "p2psync.device/1",
        device: device.into(),
    };
    session.out.answer(&json, || text)
}

/// Gives this device another name.
pub(crate) async fn rename(session: &mut Session<'_>, name: String) -> Result<(), Stop> {
    #[derive(Serialize)]
    struct Json<'a> {
        schema: &'static str,
        name: &'a str,
    }
    let request = v1::RenameDeviceRequest { name: name.clone() };
    session
        .call_on(CALL_TIMEOUT, async |channel: Channel| {
            Members::new(channel).rename_device(request).await
        })
        .await?;
    let json = Json {
        schema: "p2psync.device-rename/1",
        name: &name,
    };
    session.out.answer(&json, || {
        format!("This device is called {}", escape(name.as_bytes()))
    })
}

fn words(device: &v1::Device) -> String {
    let [short, name, id, peer] =
        [short(&device.id), &device.name, &device.id, &device.peer_id].map(|text| escape(text.as_bytes()));
    let person = match device.person.as_str() {
        "" => String::new(),
        person => format!("Person    {}\n", escape(person.as_bytes())),
    };
    format!("{short}  \"{name}\"\n\nId        {id}\nPeerId    {peer}\n{person}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::sample_status;

    #[test]
    fn a_device_is_shown_first_as_people_name_it() {
        let text = words(&sample_status().device.unwrap());
        assert_eq!(
            text,
            "0a0a0a0a  \"atlas\"\n\nId        0a0a0a0a0a0a\nPeerId    12D3Koo\nPerson    Anna\n"
        );
    }
}
