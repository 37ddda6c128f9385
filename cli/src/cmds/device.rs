//! `syncctl device`.

use p2p_sync_proto::v1;
use serde::Serialize;
use tonic::transport::Channel;

use crate::client::Members;
use crate::output::{Stop, escape};
use crate::{CALL_TIMEOUT, Session};

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
